//! A random client of tus against a plain model of an upload: requests of any length, cut off, hanging, at wrong offsets,
//! again, several at once, checked, while daemon and merger are killed. The offset is never below what was acknowledged,
//! and never above what was sent; the finished file is exact. A request that was cut off may come to its turn behind a
//! later one, and get on then.
//!
//! `BIGUP_TUS_SECONDS` sets the time, `BIGUP_SEED` the first upload. The deeds depend on the seed alone; the moments at
//! which they meet do not.

use bigup_tests::daemon::Daemon;
use bigup_tests::data::{self, Dice};
use bigup_tests::number;
use bigup_tests::process::{PATIENCE, signal_program};
use bigup_tests::turns::turn;
use bigup_tests::tus::{Reply, Tus, base64, reset};
use nix::sys::signal::Signal;
use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// Seconds after which no further upload begins.
const SECONDS: u64 = 15;

/// Bytes of a slice.
const SLICE: u64 = 1 << 20;

/// Most slices of a file.
const MOST: u64 = 5;

/// Deeds before the client sends the rest.
const DEEDS: u64 = 14;

/// An upload, as far as its client knows.
struct Upload {
    seed: u64,
    dice: Dice,
    tus: Tus,
    at: String,
    name: String,
    content: Vec<u8>,
    is_told: bool,
    /// Bytes that a response said are held.
    acknowledged: u64,
    /// Bytes from the start that went out, at places where they could count.
    sent: u64,
    /// Connections whose client has fallen silent.
    hanging: Vec<TcpStream>,
    /// True if the daemon may come to a request that was cut off only after a later one: they came by two connections.
    may_be_late: bool,
}

impl Upload {
    fn begin(daemon: &Daemon, seed: u64) -> Upload {
        let (mut dice, tus) = (Dice::new(seed), Tus::new(daemon.url()));
        let len = match dice.below(4) {
            0 => dice.below(3),
            1 => SLICE * (dice.below(MOST) + 1),
            _ => dice.below(MOST * SLICE),
        };
        let (name, content) = (format!("{seed}.bin"), data::bytes(seed, len as usize));
        let is_told = dice.below(3) > 0;
        let at = if is_told { tus.create(&name, len) } else { tus.create_deferred(&name) };
        let hanging = vec![];
        let (acknowledged, sent, may_be_late) = (0, 0, false);
        Upload { seed, dice, tus, at, name, content, is_told, acknowledged, sent, hanging, may_be_late }
    }

    fn len(&self) -> u64 {
        self.content.len() as u64
    }

    /// Takes the offset of a response.
    fn take(&mut self, deed: &str, offset: u64) {
        let (seed, least, most) = (self.seed, self.acknowledged, self.sent);
        assert!((least..=most).contains(&offset), "seed {seed}: {deed}: {offset} is not from {least} to {most}");
        self.acknowledged = offset;
    }

    fn ask(&mut self) -> u64 {
        let reply = self.tus.head(&self.at).expect(200);
        let length = reply.header("Upload-Length").map(str::to_owned);
        assert!(length.is_none() || length == Some(self.len().to_string()), "seed {}: {reply:?}", self.seed);
        self.take("HEAD", reply.offset().expect("HEAD tells the offset"));
        self.acknowledged
    }

    /// A length to send from `from` on: bytes, parts of a slice, up to its end, several, or all.
    fn piece(&mut self, from: u64) -> u64 {
        let left = self.len() - from;
        let to_slice = SLICE - from % SLICE;
        let wanted = match self.dice.below(6) {
            0 => self.dice.below(3),
            1 => self.dice.below(SLICE),
            2 => to_slice,
            3 => to_slice - 1 + self.dice.below(3),
            4 => self.dice.below(3 * SLICE),
            _ => left,
        };
        wanted.min(left)
    }

    /// Headers that tell the length, if it is still to be told and this request happens to, or is the last.
    fn told(&mut self, is_last: bool) -> Vec<(&'static str, String)> {
        if self.is_told || !(is_last || self.dice.below(4) == 0) {
            return vec![];
        }
        vec![("Upload-Length", self.len().to_string())]
    }

    fn bytes(&self, from: u64, len: u64) -> &[u8] {
        &self.content[from as usize..(from + len) as usize]
    }

    /// True if the response tells that a request which was cut off before came late, and got on.
    fn is_late(&mut self, reply: &Reply) -> bool {
        let is_late = self.may_be_late && reply.status == 409;
        if is_late {
            self.take("409", reply.offset().expect("409 tells the offset"));
        }
        is_late
    }

    /// Sends `len` bytes behind what is held.
    fn send(&mut self, from: u64, len: u64, is_checked: bool) {
        let mut headers = self.told(from + len == self.len());
        let tells = !headers.is_empty();
        let body = self.bytes(from, len).to_vec();
        if is_checked {
            headers.push(("Upload-Checksum", format!("blake3 {}", base64(blake3::hash(&body).as_bytes()))));
        }
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, &**value)).collect();
        let reply = self.tus.patch_with(&self.at, from, &headers, &body);
        if self.is_late(&reply) {
            return;
        }
        let reply = reply.expect(204);
        self.is_told |= tells;
        self.sent = self.sent.max(from + len);
        self.take("PATCH", reply.offset().expect("PATCH tells the offset"));
        assert_eq!(self.acknowledged, from + len, "seed {}", self.seed);
    }

    fn send_wrongly(&mut self, from: u64) {
        let (beyond, len) = (self.sent + 1 + self.dice.below(3), self.dice.below(2 * SLICE));
        let other = if from > 0 && self.dice.below(2) == 0 { self.dice.below(from) } else { beyond };
        let at = self.at.clone();
        let reply = self.tus.patch(&at, other, &vec![0xff; len as usize]).expect(409);
        assert!(reply.offset() == Some(from) || self.is_late(&reply), "seed {}: {reply:?}", self.seed);
        let (from, body) = (self.acknowledged, [0xff]);
        if from < self.len() {
            let sum = [("Upload-Checksum", format!("sha1 {}", base64(&[1; 20])))];
            let reply = self.tus.patch_with(&at, from, &[(sum[0].0, &sum[0].1)], &body);
            assert!(reply.status == 460 || self.is_late(&reply), "seed {}: {reply:?}", self.seed);
        } else if self.is_told {
            assert_eq!(self.tus.patch(&at, from, &body).status, 413, "seed {}", self.seed);
        }
        assert!(self.ask() == from || self.may_be_late, "seed {}", self.seed);
    }

    /// Sends a part of a body, and is gone, or hangs.
    fn send_and_go(&mut self, from: u64, len: u64) {
        let cut = self.dice.below(len + 1);
        self.may_be_late = true;
        let mut stream = if self.dice.below(2) == 0 {
            self.tus.begin_patch(&self.at, from, len)
        } else {
            let mut stream = self.tus.begin_patch_with(&self.at, from, &[("Transfer-Encoding", "chunked")]);
            let _ = stream.write_all(format!("{len:x}\r\n").as_bytes());
            stream
        };
        let _ = stream.write_all(self.bytes(from, cut));
        self.sent = self.sent.max(from + cut);
        match self.dice.below(3) {
            0 => drop(stream),
            1 => reset(&stream),
            _ => self.hanging.push(stream),
        }
        let pause = self.dice.below(30);
        std::thread::sleep(Duration::from_millis(pause));
    }

    /// Several requests at one offset, at once.
    fn send_at_once(&mut self, from: u64) {
        let lens: Vec<_> = (0..4).map(|_| self.piece(from)).collect();
        let this = &*self;
        let replies: Vec<Reply> = std::thread::scope(|scope| {
            let send = |len| scope.spawn(move || this.tus.patch(&this.at, from, this.bytes(from, len)));
            let each: Vec<_> = lens.iter().map(|len| send(*len)).collect();
            each.into_iter().map(|one| one.join().expect("it ends")).collect()
        });
        self.sent = self.sent.max(from + lens.iter().max().expect("there are some"));
        let mut least = from;
        for reply in replies {
            assert!(matches!(reply.status, 204 | 409), "seed {}: {reply:?}", self.seed);
            let offset = reply.offset().expect("each response tells the offset");
            assert!((from..=self.sent).contains(&offset), "seed {}: {reply:?}", self.seed);
            least = least.max(offset);
        }
        self.acknowledged = least;
    }

    fn deed(&mut self, daemon: &mut Daemon) {
        let from = self.ask();
        let len = self.piece(from);
        match self.dice.below(12) {
            0..3 => self.send(from, len, false),
            3 => self.send(from, len, true),
            4 => self.send_wrongly(from),
            5..8 => self.send_and_go(from, len),
            8 => self.send_at_once(from),
            9 => {
                self.send_and_go(from, len);
                daemon.kill_9();
                daemon.run();
            }
            10 => {
                daemon.kill_9();
                daemon.run();
            }
            _ => {
                if let Some(pid) = daemon.info(&self.name, "merger_pid").and_then(|pid| pid.parse().ok()) {
                    signal_program(pid, "bigup-merger", Signal::SIGKILL);
                }
            }
        }
    }

    /// Sends the rest, and makes sure that the file is exact.
    fn finish(mut self, daemon: &Daemon) {
        let deadline = Instant::now() + PATIENCE;
        while !daemon.finished(&self.name).exists() {
            assert!(Instant::now() < deadline, "seed {}: it is not finished", self.seed);
            let from = self.ask();
            self.send(from, self.len() - from, false);
        }
        let found = std::fs::read(daemon.finished(&self.name)).expect("the file is finished");
        assert!(found == self.content, "seed {}: the file differs", self.seed);
        assert_eq!(self.ask(), self.len(), "seed {}", self.seed);
        std::fs::remove_file(daemon.finished(&self.name)).expect("it can be removed");
    }
}

#[test]
fn a_random_client_of_tus_loses_and_mixes_nothing() {
    let _turn = turn();
    let mut daemon = Daemon::with(&["--max-slice-size", "1M"]);
    let began = Instant::now();
    let mut seed = number("BIGUP_SEED", u64::from(std::process::id()) * 1000);
    println!("uploads from BIGUP_SEED={seed} on");
    while began.elapsed() < Duration::from_secs(number("BIGUP_TUS_SECONDS", SECONDS)) {
        let mut upload = Upload::begin(&daemon, seed);
        for _ in 0..upload.dice.below(DEEDS) {
            upload.deed(&mut daemon);
        }
        upload.finish(&daemon);
        seed += 1;
    }
    println!("uploads to BIGUP_SEED={seed}");
}
