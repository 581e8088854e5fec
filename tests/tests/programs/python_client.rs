//! docs/client.py, which shows how a client is written: its files arrive exactly, it resumes after a kill of either side,
//! and it takes no other file for its own. The requests by curl in docs/http.md do the same by hand.
//!
//! Needs Python without packages: `BIGUP_PYTHON` names one, else it is `python3`.

use bigup_tests::daemon::Daemon;
use bigup_tests::process::{eventually, kill_9};
use bigup_tests::{data, docs, programs};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const MIB: u64 = 1 << 20;

/// Slices so small that a push of a few MiB takes its time.
const SLOW_SLICE: u64 = 2048;

/// The client, about to push `file` under its own name.
fn client(daemon: &Daemon, file: &Path) -> Command {
    let python = std::env::var("BIGUP_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let mut command = Command::new(python);
    command.arg(docs::root().join("docs/client.py")).arg(daemon.url()).arg(file).stdin(Stdio::null());
    for variable in ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "BIGUP_TOKEN", "BIGUP_SLICE_SIZE"] {
        command.env_remove(variable);
    }
    command
}

fn slowly(daemon: &Daemon, file: &Path) -> Command {
    let mut command = client(daemon, file);
    command.env("BIGUP_SLICE_SIZE", SLOW_SLICE.to_string());
    command
}

/// Runs it to its end: whether that was a good one, and the text of both outputs.
fn run(mut command: Command) -> (bool, String) {
    let output = command.output().expect("Python can be started: set BIGUP_PYTHON");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.success(), text(&output.stdout) + &text(&output.stderr))
}

/// Runs it to its good end; how many slices it sent.
fn push(command: Command) -> u64 {
    let (is_good, said) = run(command);
    assert!(is_good, "{said}");
    let number = said.split_once(" slices sent, ").and_then(|(number, _)| number.parse().ok());
    number.unwrap_or_else(|| panic!("it does not say what it sent: {said}"))
}

fn file(daemon: &Daemon, name: &str, len: u64) -> PathBuf {
    data::file(&daemon.scratch(), name, len, len)
}

fn held(daemon: &Daemon, name: &str) -> u64 {
    daemon.server().get(&format!("file_name={name}&peek=1")).held().len() as u64
}

/// Starts a slow push of a file, and waits until some slices are held.
fn begun(daemon: &Daemon, file: &Path) -> std::process::Child {
    let mut command = slowly(daemon, file);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("Python can be started");
    let name = file.file_name().and_then(|name| name.to_str()).expect("it has a name");
    eventually("some slices are held", || held(daemon, name) >= 20);
    child
}

#[test]
fn files_of_every_size_arrive_and_are_not_sent_again() {
    let daemon = Daemon::start();
    for (name, len, slices) in [("empty", 0, 0), ("byte", 1, 1), ("slice", 8 * MIB, 1), ("more", 20 * MIB + 1, 3)] {
        let file = file(&daemon, name, len);
        assert_eq!(push(client(&daemon, &file)), slices, "{name}");
        assert!(data::same(&file, &daemon.finished(name)), "{name} arrived differently");
        let (is_good, said) = run(client(&daemon, &file));
        assert!(is_good && said.trim() == format!("0 slices sent, {}  {name}", data::digest(&file)), "{said}");
    }
    daemon.eventually_clean();
}

#[test]
fn a_killed_client_resumes() {
    let daemon = Daemon::start();
    let file = file(&daemon, "again", 3 * MIB + 7);
    kill_9(&mut begun(&daemon, &file));
    let (all, held) = (1537, held(&daemon, "again"));
    let sent = push(slowly(&daemon, &file));
    assert!(sent > 0 && sent <= all - held, "{held} were held, {sent} of {all} were sent");
    assert!(data::same(&file, &daemon.finished("again")));
    daemon.eventually_clean();
}

#[test]
fn a_killed_daemon_is_a_pause() {
    let mut daemon = Daemon::start();
    let file = file(&daemon, "pause", 3 * MIB + 7);
    let push = begun(&daemon, &file);
    daemon.kill_9();
    daemon.run();
    let output = push.wait_with_output().expect("it was started");
    assert!(output.status.success(), "{output:?}");
    assert!(data::same(&file, &daemon.finished("pause")));
    daemon.eventually_clean();
}

#[test]
fn another_file_is_not_taken_for_its_own() {
    let daemon = Daemon::start();
    let one = file(&daemon, "name", 9 * MIB);
    push(client(&daemon, &one));
    // As many bytes, so that only the content differs.
    data::file(&daemon.scratch(), "name", 7, 9 * MIB);
    let (is_good, said) = run(client(&daemon, &one));
    assert!(!is_good && said.contains("a file of this name exists"), "{said}");
    assert!(!data::same(&one, &daemon.finished("name")));
}

#[test]
fn a_file_that_changed_since_is_not_mixed_with_what_it_was() {
    let daemon = Daemon::with(&["--takeover-after", "1s"]);
    let file = file(&daemon, "changed", 3 * MIB + 7);
    kill_9(&mut begun(&daemon, &file));
    data::file(&daemon.scratch(), "changed", 7, 3 * MIB + 7);
    let (is_good, said) = run(slowly(&daemon, &file));
    assert!(!is_good && said.contains("slices of another source"), "{said}");
    assert!(!daemon.finished("changed").exists());
    // As it says.
    let mut push = programs::cli();
    let (is_good, said) = run({
        push.args(["push", "--url", daemon.url()]).arg(&file);
        push
    });
    assert!(is_good, "{said}");
    assert!(data::same(&file, &daemon.finished("changed")));
}

#[test]
fn a_token_lets_it_in_and_a_refusal_is_told() {
    let daemon = Daemon::start();
    let file = file(&daemon, "secret", 1000);
    let mut make = Command::new(programs::path("bigupd"));
    make.args(["token", "new", "alice", "--prefix", "alice/", "--data-dir"]).arg(daemon.data());
    let (is_good, token) = run(make);
    assert!(is_good, "{token}");
    let secret = token.lines().next().expect("it is the first line");
    let (is_good, said) = run(client(&daemon, &file));
    assert!(!is_good && said.contains("token"), "{said}");
    let with_token = |name: &str| {
        let mut command = client(&daemon, &file);
        command.arg(name).env("BIGUP_TOKEN", secret);
        command
    };
    let (is_good, said) = run(with_token("bob/secret"));
    assert!(!is_good && said.contains("alice"), "{said}");
    assert_eq!(push(with_token("alice/secret")), 1);
    assert!(data::same(&file, &daemon.finished("alice/secret")));
}

#[test]
fn the_requests_by_curl_that_the_document_shows_upload_a_file() {
    let daemon = Daemon::start();
    let file = data::file(&daemon.scratch(), "disk.img", 1, 12_000_000);
    let script = docs::block("docs/http.md", "tests/tests/programs/python_client.rs: curl");
    let url = "http://127.0.0.1:8888";
    assert!(script.contains(url) && script.matches("curl ").count() == 5, "{script}");
    let mut command = Command::new("sh");
    command.args(["-euc", &script.replace(url, daemon.url())]).current_dir(daemon.scratch());
    command.env("no_proxy", "127.0.0.1").env_remove("NO_PROXY");
    let (is_good, said) = run(command);
    assert!(is_good && said.contains("\"slice_ranges_uploaded\":[[0,0]]"), "{said}");
    let end = said.rfind("{\"file_name\"").expect("the last response");
    let end: serde_json::Value = serde_json::from_str(said[end..].lines().next().unwrap()).expect("it is JSON");
    assert_eq!((&end["is_uploaded"], &end["same_source"]), (&1.into(), &true.into()), "{said}");
    assert_eq!(end["file_digest"], data::digest(&file));
    assert!(data::same(&file, &daemon.finished("disk.img")));
}
