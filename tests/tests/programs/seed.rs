//! The seed's own protocol, spoken by a client in the manner of the seed's: it must work unchanged, through kills on
//! either side.
//!
//! Needs Python with the packages of clients/requirements.txt: `BIGUP_PYTHON` names one, else it is `python3`.

use bigup_tests::daemon::Daemon;
use bigup_tests::data;
use bigup_tests::process::{eventually, kill_9};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

const MIB: u64 = 1 << 20;

fn python() -> String {
    std::env::var("BIGUP_PYTHON").unwrap_or_else(|_| "python3".to_owned())
}

/// Makes sure that the client can run at all.
///
/// # Panics
/// Python or a package is missing; says how to get it.
fn check_python() {
    let modules = Command::new(python()).args(["-c", "import aiofiles, aiohttp, requests"]).output();
    let modules = modules.unwrap_or_else(|e| panic!("{} cannot be started ({e}): set BIGUP_PYTHON", python()));
    assert!(
        modules.status.success(),
        "{0} lacks what the seed's client needs: run `{0} -m pip install -r tests/clients/requirements.txt`, in a virtual \
         environment that BIGUP_PYTHON may name:\n{1}",
        python(),
        String::from_utf8_lossy(&modules.stderr)
    );
}

/// The client, about to push `file`.
fn client(daemon: &Daemon, file: &Path, arguments: &[&str]) -> Command {
    check_python();
    let mut command = Command::new(python());
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/seed_client.py"));
    command.arg(file).arg(format!("{}/big_file_upload", daemon.url())).args(arguments);
    command.stdin(Stdio::null()).env("PYTHONWARNINGS", "ignore");
    for proxy in ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"] {
        command.env_remove(proxy);
    }
    command
}

/// Runs the client to its end; what it printed.
fn push(daemon: &Daemon, file: &Path, arguments: &[&str]) -> String {
    let output = client(daemon, file, arguments).output().expect("it was started before");
    assert!(output.status.success(), "{}", shown(&output));
    String::from_utf8(output.stdout).expect("it prints text")
}

fn shown(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!("{}: {}{}", output.status, text(&output.stdout), text(&output.stderr))
}

/// Starts the client with slices so small that it takes its time.
fn start_slowly(daemon: &Daemon, file: &Path) -> Child {
    let mut command = client(daemon, file, SLOWLY);
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it was started before")
}

const SLOWLY: &[&str] = &["--slice-size", "2048", "--consumers", "1"];

/// Waits until some slices are held.
fn eventually_some_held(daemon: &Daemon, name: &str, at_least: u64) {
    eventually("some slices are held", || held(daemon, name) >= at_least);
}

/// How many slices of an unfinished upload are held.
fn held(daemon: &Daemon, name: &str) -> u64 {
    let answer = daemon.server().get(&format!("file_name={name}&peek=1&ranges=1"));
    assert_ne!(answer.body["is_uploaded"], 1, "the file is finished already: too fast for this test");
    let runs = answer.body["slice_ranges_uploaded"].as_array().cloned().unwrap_or_default();
    runs.iter().map(|run| run[1].as_u64().unwrap() - run[0].as_u64().unwrap() + 1).sum()
}

fn file(daemon: &Daemon, name: &str, len: u64) -> PathBuf {
    data::file(&daemon.scratch(), name, len, len)
}

/// Waits until `file` is finished, and compares it. The client leaves when nothing is missing, which may be earlier.
fn eventually_exact(daemon: &Daemon, file: &Path) {
    let name = file.file_name().unwrap().to_str().unwrap();
    let peek = format!("file_name={name}&peek=1");
    eventually("the file is finished", || daemon.server().get(&peek).body["is_uploaded"] == 1);
    assert!(data::same(file, &daemon.finished(name)), "{name} arrived differently");
    assert_eq!(daemon.server().get(&peek).body["file_digest"], data::digest(file));
    daemon.eventually_clean();
}

#[test]
fn a_file_arrives_exactly_and_is_not_sent_again() {
    let daemon = Daemon::start();
    let file = file(&daemon, "odd.bin", 5 * MIB + 1);
    let printed = push(&daemon, &file, &["--consumers", "4"]);
    assert!(printed.contains("11 of 11 slices are missing"), "{printed}");
    eventually_exact(&daemon, &file);
    let log = daemon.log();
    assert_eq!(push(&daemon, &file, &[]).trim(), "already uploaded");
    assert!(!daemon.log()[log.len()..].contains("stored"), "{}", daemon.log());
    eventually_exact(&daemon, &file);
}

#[test]
fn files_of_few_bytes_arrive() {
    let daemon = Daemon::start();
    for (name, len) in [("one.bin", 1), ("slice.bin", 512 << 10), ("two.bin", 1 << 20), ("more.bin", (512 << 10) + 1)] {
        let file = file(&daemon, name, len);
        push(&daemon, &file, &["--consumers", "2"]);
        eventually_exact(&daemon, &file);
    }
}

#[test]
fn an_empty_file_arrives() {
    let daemon = Daemon::start();
    let file = file(&daemon, "empty.bin", 0);
    assert_eq!(push(&daemon, &file, &[]).trim(), "already uploaded");
    eventually_exact(&daemon, &file);
}

#[test]
fn slices_of_no_power_of_two_give_the_digest_of_the_file() {
    let daemon = Daemon::start();
    let file = file(&daemon, "thousands.bin", 300_007);
    push(&daemon, &file, &["--slice-size", "1000", "--consumers", "4"]);
    eventually_exact(&daemon, &file);
}

#[test]
fn a_killed_client_goes_on_where_it_was() {
    let daemon = Daemon::start();
    let file = file(&daemon, "again.bin", 3 * MIB + 7);
    let mut first = start_slowly(&daemon, &file);
    eventually_some_held(&daemon, "again.bin", 20);
    kill_9(&mut first);
    let held = held(&daemon, "again.bin");
    let printed = push(&daemon, &file, SLOWLY);
    let missing: u64 = printed.split(' ').next().unwrap().parse().unwrap();
    assert!(missing <= 1537 - held, "{held} were held: {printed}");
    assert!(printed.contains(&format!("{missing} of 1537 slices")), "{printed}");
    eventually_exact(&daemon, &file);
}

#[test]
fn a_killed_daemon_goes_on_where_it_was() {
    let mut daemon = Daemon::start();
    let file = file(&daemon, "restart.bin", 3 * MIB + 7);
    let mut first = start_slowly(&daemon, &file);
    eventually_some_held(&daemon, "restart.bin", 20);
    daemon.kill_9();
    // As the seed's: it does not outlive a server that does not answer.
    assert_eq!(first.wait().unwrap().code(), Some(1));
    daemon.run();
    let held = held(&daemon, "restart.bin");
    assert!(held >= 20, "{held}");
    let printed = push(&daemon, &file, &["--slice-size", "2048", "--consumers", "4"]);
    assert!(printed.contains(&format!("{} of 1537 slices", 1537 - held)), "{held} were held: {printed}");
    eventually_exact(&daemon, &file);
}

#[test]
fn two_clients_push_one_file_at_once() {
    let daemon = Daemon::start();
    let file = file(&daemon, "both.bin", 3 * MIB + 7);
    let arguments = ["--slice-size", "20000", "--consumers", "3"];
    let start = || {
        let mut command = client(&daemon, &file, &arguments);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it was started before")
    };
    for child in [start(), start()] {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", shown(&output));
    }
    eventually_exact(&daemon, &file);
}
