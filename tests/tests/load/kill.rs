//! Random kills: client, daemon and merger are killed at random moments, again and again, while files are pushed. After
//! that each file is exact, no spool is left, and info.ini has no section.
//!
//! `BIGUP_KILLS` sets the number of kills, `BIGUP_SEED` the schedule. The schedule depends on the seed alone; what the
//! programs do at those moments does not.

use bigup_tests::daemon::Daemon;
use bigup_tests::data::{self, Dice};
use bigup_tests::process::{PATIENCE, kill_9, signal_program};
use bigup_tests::turns::turn;
use bigup_tests::{number, programs};
use nix::sys::signal::Signal;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// Kills in all; each file takes its share of them.
const KILLS: u64 = 240;

/// Kills before a file is left alone, so that it gets finished.
const KILLS_A_FILE: u64 = 30;

/// Longest time between two kills. Long enough that some slices arrive, short enough that all is in motion.
const LONGEST_PAUSE_MS: u64 = 60;

/// A client that is started again whenever it ended without success.
struct Pusher {
    url: String,
    file: PathBuf,
    name: String,
    slice_size: &'static str,
    child: Child,
    done: bool,
}

impl Pusher {
    fn start(url: &str, file: &Path, name: &str, slice_size: &'static str) -> Pusher {
        let child = Pusher::spawn(url, file, name, slice_size);
        Pusher { url: url.to_owned(), file: file.to_owned(), name: name.to_owned(), slice_size, child, done: false }
    }

    fn spawn(url: &str, file: &Path, name: &str, slice_size: &str) -> Child {
        let mut command = programs::cli();
        command.arg("push").arg(file).args(["--url", url, "--name", name, "--slice-size", slice_size, "--quiet"]);
        command.stdin(Stdio::null()).spawn().expect("the client can be started")
    }

    /// Starts it again where it was killed; a client that gives up by itself is an error.
    fn tend(&mut self) {
        if let Some(status) = self.child.try_wait().expect("it was started")
            && !self.done
        {
            use std::os::unix::process::ExitStatusExt;
            self.done = status.success();
            assert!(self.done || status.signal().is_some(), "{} ended with {status}", self.name);
            if !self.done {
                self.child = Pusher::spawn(&self.url, &self.file, &self.name, self.slice_size);
            }
        }
    }
}

impl Drop for Pusher {
    fn drop(&mut self) {
        kill_9(&mut self.child);
    }
}

/// What can be killed.
fn kill_one(dice: &mut Dice, daemon: &mut Daemon, pusher: &mut Pusher) -> &'static str {
    match dice.below(4) {
        0 => {
            // Reaped and started again when it is tended.
            let _ = pusher.child.kill();
            "client"
        }
        1 => {
            daemon.kill_9();
            daemon.run();
            "daemon"
        }
        _ => match daemon.info(&pusher.name, "merger_pid").and_then(|pid| pid.parse().ok()) {
            Some(pid) if signal_program(pid, "bigup-merger", Signal::SIGKILL) => "merger",
            _ => "nobody",
        },
    }
}

#[test]
fn random_kills_lose_and_mix_nothing() {
    let _turn = turn();
    let (seed, kills) = (number("BIGUP_SEED", 1), number("BIGUP_KILLS", KILLS));
    println!("seed {seed}, {kills} kills");
    let mut daemon = Daemon::with(&["--merger-idle", "200ms"]);
    let mut dice = Dice::new(seed);
    let mut killed = std::collections::BTreeMap::new();
    let mut total = 0;
    while total < kills {
        let slice_size = ["8K", "64K", "1M", "100000"][dice.below(4) as usize];
        let (name, len) = (format!("f{total}"), (1 << 20) + dice.below(24 << 20));
        let file = data::file(&daemon.scratch(), "source", total, len);
        let mut pusher = Pusher::start(daemon.url(), &file, &name, slice_size);
        let mut left = KILLS_A_FILE.min(kills - total);
        let deadline = Instant::now() + PATIENCE;
        while !pusher.done {
            assert!(Instant::now() < deadline, "{name} is not finished, seed {seed}\n{}", daemon.info_ini());
            std::thread::sleep(Duration::from_millis(1 + dice.below(LONGEST_PAUSE_MS)));
            if left > 0 {
                let whom = kill_one(&mut dice, &mut daemon, &mut pusher);
                if whom != "nobody" {
                    *killed.entry(whom).or_insert(0) += 1;
                    left -= 1;
                    total += 1;
                }
            }
            pusher.tend();
        }
        assert!(data::same(&file, &daemon.finished(&name)), "{name} differs, seed {seed}");
        std::fs::remove_file(daemon.finished(&name)).expect("it is there");
    }
    println!("killed: {killed:?}");
    daemon.eventually_clean();
}
