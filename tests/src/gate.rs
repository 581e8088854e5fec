//! A TCP proxy that can be held: it passes so many bytes of clients on, and no more before it is opened. So a transfer stops
//! in its middle, however fast the machine is.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Bytes passed on at once.
const BLOCK: usize = 64 << 10;

/// Time between two looks if it was opened.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Listens, and passes bytes on to a server.
pub struct Gate {
    /// Its port at 127.0.0.1.
    pub port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    server: String,
    passed: AtomicU64,
    limit: AtomicU64,
    stop: AtomicBool,
}

impl Gate {
    /// Starts one before the server at this address, like `127.0.0.1:1234`. It is held after `limit` bytes of clients.
    pub fn held_at(limit: u64, server: &str) -> Gate {
        let listener = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let (passed, stop, limit) = (AtomicU64::new(0), AtomicBool::new(false), AtomicU64::new(limit));
        let shared = Arc::new(Shared { server: server.to_owned(), passed, limit, stop });
        let accepting = Arc::clone(&shared);
        std::thread::spawn(move || {
            for client in listener.incoming() {
                if accepting.stop.load(Ordering::Relaxed) {
                    return;
                }
                // A server that is not there now: the client sees its connection end.
                let _ = client.and_then(|client| pass(&accepting, &client));
            }
        });
        Gate { port, shared }
    }

    /// Bytes of clients that went on to the server.
    pub fn passed(&self) -> u64 {
        self.shared.passed.load(Ordering::Relaxed)
    }

    /// True if it holds bytes back.
    pub fn holds(&self) -> bool {
        self.passed() >= self.shared.limit.load(Ordering::Relaxed)
    }

    /// Passes everything on from here on.
    pub fn open(&self) {
        self.shared.limit.store(u64::MAX, Ordering::Relaxed);
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.open();
        self.shared.stop.store(true, Ordering::Relaxed);
        // Ends the loop that accepts.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

fn pass(shared: &Arc<Shared>, client: &TcpStream) -> io::Result<()> {
    let server = TcpStream::connect(&shared.server)?;
    for (from, to, is_up) in [(client, &server, true), (&server, client, false)] {
        let (from, to, shared) = (from.try_clone()?, to.try_clone()?, Arc::clone(shared));
        std::thread::spawn(move || {
            // An error is the end of the connection.
            let _ = if is_up { copy_up(&from, &to, &shared) } else { io::copy(&mut &from, &mut &to).map(drop) };
            let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
        });
    }
    Ok(())
}

fn copy_up(mut from: &TcpStream, mut to: &TcpStream, shared: &Shared) -> io::Result<()> {
    let mut block = vec![0; BLOCK];
    while let got @ 1.. = from.read(&mut block)? {
        while shared.passed.load(Ordering::Relaxed) >= shared.limit.load(Ordering::Relaxed) {
            std::thread::sleep(LOOK_EVERY);
        }
        to.write_all(&block[..got])?;
        shared.passed.fetch_add(got as u64, Ordering::Relaxed);
    }
    Ok(())
}
