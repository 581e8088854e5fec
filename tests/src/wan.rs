//! A long, slow, lossy link: two network namespaces joined by a delay line with a rate, a queue, losses at random and a
//! cable that can be pulled.
//!
//! A small program in C (`tests/wan/wan.c`) carries the packets from one namespace's TUN device to the other's: not every
//! kernel can delay packets by itself (netem), but each has TUN devices. It makes the namespaces and removes them, ends
//! with the process that started it, and in any case after [`LIFE`]. Namespaces know nothing of each other's addresses
//! and devices, so that all links have the same ones and several may be there at once.
//!
//! Needs root, the package iproute2, a C compiler and `/dev/net/tun`.

use crate::process::kill_9;
use crate::programs;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// How long a link lasts at most.
pub const LIFE: Duration = Duration::from_secs(600);

/// Address of the end A.
pub const ADDRESS_A: &str = "10.77.0.1";

/// Address of the end B.
pub const ADDRESS_B: &str = "10.77.0.2";

/// How long it may take to end, where many namespaces come and go.
const PATIENCE: Duration = Duration::from_secs(20);

/// A link and the namespaces at its ends, for as long as this lives.
pub struct Wan {
    carrier: Child,
    /// None while it ends.
    commands: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    namespaces: [String; 2],
}

/// What a link has carried in one direction, IP headers included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Carried {
    /// Bytes that the sending end put on it, whatever became of them.
    pub bytes_in: u64,
    /// Bytes that arrived.
    pub bytes_out: u64,
    /// Packets lost at random or while the cable was out.
    pub lost: u64,
    /// Packets dropped at the end of the queue.
    pub dropped: u64,
}

impl Wan {
    /// A link of so many Mbit/s that takes `delay_ms` each way and loses `loss_pct` percent of the packets each way; TCP
    /// over it is controlled by `cubic`.
    pub fn start(rate_mbit: u32, delay_ms: u32, loss_pct: f64) -> Wan {
        Wan::with_congestion(rate_mbit, delay_ms, loss_pct, "cubic")
    }

    /// The same with another congestion control.
    ///
    /// # Panics
    /// It cannot be made; says what is missing.
    pub fn with_congestion(rate_mbit: u32, delay_ms: u32, loss_pct: f64, congestion: &str) -> Wan {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        let namespaces = ["a", "b"].map(|end| format!("bigup-{}-{n}-{end}", std::process::id()));
        let mut command = Command::new(program());
        command.args(&namespaces).args([&rate_mbit.to_string(), &delay_ms.to_string(), &loss_pct.to_string()]);
        command.args([congestion, &LIFE.as_secs().to_string()]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut carrier = command.spawn().expect("it was just compiled");
        let commands = carrier.stdin.take();
        let answers = BufReader::new(carrier.stdout.take().expect("it was asked for"));
        let mut wan = Wan { carrier, commands, answers, namespaces };
        assert_eq!(wan.answer(), "ready", "{command:?}: these tests need root, iproute2 and /dev/net/tun");
        wan
    }

    /// A command in the namespace at the end A.
    pub fn command_in_a(&self, program: impl AsRef<OsStr>) -> Command {
        self.command_in(0, program.as_ref())
    }

    /// A command in the namespace at the end B.
    pub fn command_in_b(&self, program: impl AsRef<OsStr>) -> Command {
        self.command_in(1, program.as_ref())
    }

    /// What puts the command line that follows it into the namespace at the end B.
    pub fn launcher_in_b(&self) -> Vec<String> {
        ["ip", "netns", "exec", &self.namespaces[1]].map(str::to_owned).to_vec()
    }

    /// It becomes that program itself: its process id is the program's. No proxy of the surroundings counts there.
    fn command_in(&self, end: usize, program: &OsStr) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespaces[end]]).arg(program);
        for variable in ["http_proxy", "https_proxy", "all_proxy", "no_proxy"] {
            command.env_remove(variable).env_remove(variable.to_uppercase());
        }
        command
    }

    /// Pulls the cable: what is sent from now on is lost.
    pub fn pull(&mut self) {
        assert_eq!(self.ask(b'-'), "pulled");
    }

    /// Plugs it in again.
    pub fn plug(&mut self) {
        assert_eq!(self.ask(b'+'), "plugged");
    }

    /// What was carried so far, from A to B and from B to A.
    pub fn carried(&mut self) -> [Carried; 2] {
        let line = self.ask(b'?');
        let mut numbers = line.split(' ').map(|number| number.parse().expect("it is a number"));
        let mut next = || numbers.next().expect("there are eight");
        [(); 2].map(|()| Carried { bytes_in: next(), bytes_out: next(), lost: next(), dropped: next() })
    }

    fn remove_namespaces(&self) {
        for namespace in &self.namespaces {
            // It may be gone already.
            let _ = Command::new("ip").args(["netns", "delete", namespace]).output();
        }
    }

    fn ask(&mut self, command: u8) -> String {
        let commands = self.commands.as_mut().expect("it has not ended");
        commands.write_all(&[command]).expect("the link is there");
        self.answer()
    }

    fn answer(&mut self) -> String {
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("its output can be read");
        line.trim().to_owned()
    }
}

impl Drop for Wan {
    fn drop(&mut self) {
        // It ends with its input, and removes the namespaces.
        self.commands = None;
        let deadline = Instant::now() + PATIENCE;
        while matches!(self.carrier.try_wait(), Ok(None)) {
            if Instant::now() >= deadline {
                kill_9(&mut self.carrier);
                self.remove_namespaces();
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// The program that carries the packets, compiled beside the others.
fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| programs::compiled("wan/wan.c", "wan", &["-O2", "-pthread", "-Wall", "-Wextra", "-Werror"]))
}
