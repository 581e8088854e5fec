//! Long, slow and lossy links, and cables that are pulled: pushes with the real programs between network namespaces.
//! Needs root; see `bigup_tests::wan`.

use bigup_tests::daemon::Daemon;
use bigup_tests::needs_root;
use bigup_tests::process::{kill_9, signal, within};
use bigup_tests::turns::turn;
use bigup_tests::wan::{ADDRESS_B, Wan};
use bigup_tests::{data, programs};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// When a silent link is noticed, by the README: after 30 s and a moment, which here is what machines need that are busy.
const NOTICED: std::ops::Range<Duration> = Duration::from_secs(25)..Duration::from_secs(45);

/// A daemon at the far end of a link.
fn daemon(wan: &Wan, folder: &Path) -> Daemon {
    let listen = format!("{ADDRESS_B}:0");
    Daemon::launched_at(&listen, wan.launcher_in_b(), &folder.join("data"), &["--allow-anonymous", "yes"])
}

/// A push at the near end, and what it says.
struct Push {
    child: Child,
    events: Receiver<(Instant, Value)>,
}

impl Push {
    fn start(wan: &Wan, daemon: &Daemon, file: &Path, arguments: &[&str]) -> Push {
        let mut command = wan.command_in_a(programs::path("bigup-cli"));
        command.arg("push").arg(file).args(["--url", daemon.url(), "--json"]).args(arguments);
        let mut child = command.stdout(Stdio::piped()).spawn().expect("ip can be started");
        let lines = BufReader::new(child.stdout.take().expect("it was asked for")).lines();
        let (say, events) = channel();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let event = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{line}: {e}"));
                // Nobody listens any more once the test has failed.
                let _ = say.send((Instant::now(), event));
            }
        });
        Push { child, events }
    }

    /// The next event of which `is_it` holds.
    fn next(&self, what: &str, patience: Duration, is_it: impl Fn(&Value) -> bool) -> (Instant, Value) {
        let deadline = Instant::now() + patience;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let (at, event) = self.events.recv_timeout(left).unwrap_or_else(|e| panic!("{what}, {patience:?}: {e}"));
            assert_ne!(event["event"], "error", "{event}");
            if is_it(&event) {
                return (at, event);
            }
        }
    }

    fn done(&self, patience: Duration) -> Value {
        self.next("it is done", patience, |event| event["event"] == "done").1
    }
}

impl Drop for Push {
    fn drop(&mut self) {
        kill_9(&mut self.child);
    }
}

#[test]
fn a_push_over_a_long_lossy_link_arrives_exact() {
    needs_root!("to make network namespaces");
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let mut wan = Wan::start(100, 50, 0.5);
    let daemon = daemon(&wan, folder.path());
    let file = data::file(folder.path(), "long", 1, (16 << 20) + 1);
    let push = Push::start(&wan, &daemon, &file, &["--senders", "16", "--slice-size", "512K"]);
    let done = push.done(Duration::from_secs(80));
    assert_eq!(done["bytes_sent"], (16 << 20) + 1, "{done}");
    assert!(data::same(&file, &daemon.finished("long")));
    let [there, back] = wan.carried();
    assert!(there.lost > 0 && back.bytes_out > 0, "the link is not what it should be: {there:?} {back:?}");
}

#[test]
fn a_long_lossy_link_gets_more_senders_and_smaller_slices_by_itself() {
    needs_root!("to make network namespaces");
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let wan = Wan::start(200, 40, 1.0);
    let daemon = daemon(&wan, folder.path());
    let file = data::file(folder.path(), "far", 3, 48 << 20);
    let push = Push::start(&wan, &daemon, &file, &[]);
    let start = push.next("it begins", Duration::from_secs(30), |event| event["event"] == "start").1;
    assert_eq!(start["slice_size"], 256 << 10, "{start}");
    let connections = || {
        let sockets = wan.command_in_b("ss").args(["-Htn", "state", "established"]).output().expect("iproute2 has it");
        String::from_utf8_lossy(&sockets.stdout).lines().count()
    };
    within(Duration::from_secs(30), "more than a short link would get", || connections() >= 16);
    let done = push.done(Duration::from_secs(80));
    assert_eq!((&done["bytes_sent"], &done["bytes_held"]), (&(48 << 20).into(), &0.into()), "{done}");
    assert!(data::same(&file, &daemon.finished("far")));
}

#[test]
fn slices_that_would_take_long_on_a_slow_link_are_cut_anew() {
    needs_root!("to make network namespaces");
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let wan = Wan::start(4, 1, 0.0);
    let daemon = daemon(&wan, folder.path());
    let file = data::file(folder.path(), "slow", 4, 12 << 20);
    let push = Push::start(&wan, &daemon, &file, &["--senders", "2"]);
    let start = push.next("it begins", Duration::from_secs(30), |event| event["event"] == "start").1;
    // On a machine so busy that the server seems far away they are smaller from the beginning.
    println!("slices of {} at first", start["slice_size"]);
    within(Duration::from_secs(30), "it is cut anew", || {
        let size = daemon.info("slow", "slice_size").and_then(|size| size.parse::<u64>().ok());
        size.is_some_and(|size| size <= 1 << 20)
    });
    let done = push.done(Duration::from_secs(80));
    assert_eq!(done["bytes_sent"], 12 << 20, "{done}");
    assert!(data::same(&file, &daemon.finished("slow")));
}

#[test]
fn a_pulled_cable_is_noticed_in_time_and_costs_a_slice_for_each_sender_at_most() {
    needs_root!("to make network namespaces");
    let _turn = turn();
    const SENDERS: u64 = 4;
    const SLICE: u64 = 1 << 20;
    const SIZE: u64 = 24 * SLICE;
    let folder = tempfile::tempdir().unwrap();
    let mut wan = Wan::start(20, 20, 0.0);
    let daemon = daemon(&wan, folder.path());
    let file = data::file(folder.path(), "cut", 2, SIZE);
    let push = Push::start(&wan, &daemon, &file, &["--senders", "4", "--slice-size", "1M"]);
    let is_amid = |event: &Value| event["bytes_stored"].as_u64().is_some_and(|bytes| bytes >= 6 * SLICE);
    push.next("a quarter is stored", Duration::from_secs(30), is_amid);
    wan.pull();
    let pulled = Instant::now();
    let (noticed, retry) = push.next("it is noticed", NOTICED.end, |event| event["event"] == "retry");
    let silence = noticed - pulled;
    println!("noticed after {silence:?}");
    assert!(NOTICED.contains(&silence), "after {silence:?}: {retry}");
    wan.plug();
    let done = push.done(Duration::from_secs(60));
    assert_eq!((&done["bytes_sent"], &done["bytes_held"]), (&SIZE.into(), &0.into()), "{done}");
    assert!(data::same(&file, &daemon.finished("cut")));
    // Heads of packets, questions, and what the full queue drops are 10 % at most.
    let (sent, lost) = (wan.carried()[0].bytes_in, SENDERS * SLICE);
    let most = (SIZE + lost) * 11 / 10;
    println!("{sent} bytes for {SIZE}");
    assert!((SIZE..=most).contains(&sent), "{sent} bytes went onto the link: {SIZE} were to go, {most} may");
}

#[test]
fn a_link_that_goes_silent_while_an_answer_is_waited_for_is_noticed_in_time() {
    needs_root!("to make network namespaces");
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let mut wan = Wan::start(20, 20, 0.0);
    let daemon = daemon(&wan, folder.path());
    // Its system takes the question; nobody answers.
    signal(daemon.pid(), Signal::SIGSTOP);
    let mut command = wan.command_in_a(programs::path("bigup-cli"));
    command.args(["status", "--url", daemon.url()]).stderr(Stdio::piped());
    let mut status = command.spawn().expect("ip can be started");
    within(Duration::from_secs(20), "the question arrives", || wan.carried()[0].bytes_out > 200);
    std::thread::sleep(Duration::from_secs(1));
    wan.pull();
    let pulled = Instant::now();
    within(NOTICED.end, "it is noticed", || status.try_wait().unwrap().is_some());
    let silence = pulled.elapsed();
    println!("noticed after {silence:?}");
    let output = status.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(NOTICED.contains(&silence) && said.contains("no answer"), "after {silence:?}: {said}");
    signal(daemon.pid(), Signal::SIGCONT);
}

#[test]
fn a_download_fills_a_long_line() {
    needs_root!("to make network namespaces");
    let _turn = turn();
    let wan = Wan::start(200, 50, 0.0);
    let folder = tempfile::tempdir().unwrap();
    let daemon = daemon(&wan, folder.path());
    data::file(&daemon.data().join("files"), "big.bin", 1, 24 << 20);
    let began = Instant::now();
    let mut command = wan.command_in_a("curl");
    let read =
        command.args(["-sSf", "-o"]).arg(folder.path().join("to")).arg(format!("{}/content/big.bin", daemon.url()));
    assert!(read.status().expect("curl can be started").success());
    let took = began.elapsed();
    assert!(data::same(&folder.path().join("to"), &daemon.data().join("files/big.bin")));
    // The line takes a second for that. With a send buffer of 128 KiB it would be 20 s.
    assert!(took < Duration::from_secs(10), "{took:?}");
}
