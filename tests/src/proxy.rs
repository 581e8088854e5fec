//! A TCP proxy that behaves like a bad network: it cuts connections in the middle of anything, and lets others stall.

use crate::accept::Accept;
use crate::data::Dice;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Bytes passed on at once.
const BLOCK: usize = 64 << 10;

/// A connection is cut within so many bytes, if it is.
const LONGEST_LIFE: u64 = 8 << 20;

/// Longest pause of one that stalls.
const LONGEST_STALL_MS: u64 = 500;

/// Listens, and passes bytes on to servers in turn.
pub struct Proxy {
    accept: Accept,
    shared: Arc<Shared>,
}

struct Shared {
    servers: Vec<String>,
    seed: u64,
    calm: AtomicBool,
    connections: AtomicU64,
    cuts: AtomicU64,
    bytes_up: AtomicU64,
}

impl Proxy {
    /// Starts one before the servers at these addresses, like `http://127.0.0.1:1234`. What becomes of a connection
    /// depends on `seed` and on how many were there before it.
    pub fn start(servers: &[&str], seed: u64) -> Proxy {
        let shared = Arc::new(Shared {
            servers: servers.iter().map(|url| url.trim_start_matches("http://").to_owned()).collect(),
            seed,
            calm: AtomicBool::new(false),
            connections: AtomicU64::new(0),
            cuts: AtomicU64::new(0),
            bytes_up: AtomicU64::new(0),
        });
        let of_listener = Arc::clone(&shared);
        let accept = Accept::start(move |client| of_listener.pass(client));
        Proxy { accept, shared }
    }

    /// Where it listens.
    pub fn url(&self) -> &str {
        self.accept.url()
    }

    /// Cuts and stalls nothing from here on but connections that are there.
    pub fn calm_down(&self) {
        self.shared.calm.store(true, Ordering::Relaxed);
    }

    /// How many connections it cut.
    pub fn cuts(&self) -> u64 {
        self.shared.cuts.load(Ordering::Relaxed)
    }

    /// Bytes that came from clients.
    pub fn bytes_up(&self) -> u64 {
        self.shared.bytes_up.load(Ordering::Relaxed)
    }
}

impl Shared {
    fn pass(self: &Arc<Shared>, client: TcpStream) {
        let number = self.connections.fetch_add(1, Ordering::Relaxed);
        let mut dice = Dice::new(self.seed.wrapping_mul(1_000_003).wrapping_add(number));
        let server = &self.servers[(number % self.servers.len() as u64) as usize];
        // A server that is not there now: the client sees its connection end.
        let Ok(server) = TcpStream::connect(server) else { return };
        let is_calm = self.calm.load(Ordering::Relaxed);
        let (up, down) = match dice.below(4) {
            0 if !is_calm => (dice.below(LONGEST_LIFE), u64::MAX),
            // Answers are short.
            1 if !is_calm => (u64::MAX, dice.below(2000)),
            _ => (u64::MAX, u64::MAX),
        };
        for (from, to, life, is_up) in [(&client, &server, up, true), (&server, &client, down, false)] {
            let (Ok(from), Ok(to)) = (from.try_clone(), to.try_clone()) else { return };
            let (shared, mut dice) = (Arc::clone(self), Dice::new(dice.below(u64::MAX)));
            std::thread::spawn(move || {
                let count = |got| {
                    if is_up {
                        shared.bytes_up.fetch_add(got, Ordering::Relaxed);
                    }
                };
                if copy(&from, &to, life, &mut dice, is_calm, count) {
                    shared.cuts.fetch_add(1, Ordering::Relaxed);
                }
                let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
            });
        }
    }
}

/// Passes bytes on until the connection ends, or `life` bytes went; all that come are given to `count`. Whether it is to
/// be cut.
fn copy(
    mut from: &TcpStream,
    mut to: &TcpStream,
    life: u64,
    dice: &mut Dice,
    is_calm: bool,
    count: impl Fn(u64),
) -> bool {
    let (mut block, mut left) = (vec![0; BLOCK], life);
    while let Ok(got @ 1..) = from.read(&mut block) {
        count(got as u64);
        if !is_calm && dice.below(200) == 0 {
            std::thread::sleep(Duration::from_millis(dice.below(LONGEST_STALL_MS)));
        }
        let pass = usize::try_from(left).map_or(got, |left| got.min(left));
        if to.write_all(&block[..pass]).is_err() {
            return false;
        }
        left -= pass as u64;
        if left == 0 {
            return true;
        }
    }
    false
}
