//! Clients of tus that others made: their files arrive exactly, and go on after a cut near the byte where they were cut.
//!
//! Needs node with the modules of clients/tus/package.json in `BIGUP_NODE_MODULES`, and Python with the packages of
//! clients/requirements.txt, which `BIGUP_PYTHON` names if it is not `python3`.

use bigup_tests::daemon::Daemon;
use bigup_tests::gate::Gate;
use bigup_tests::process::{eventually, kill_9, signal};
use bigup_tests::{clients, data, http, turns};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Bytes of the files.
const LEN: u64 = (256 << 20) + 1;

/// Bytes after which transfers are held.
const HALF: u64 = 128 << 20;

/// Bytes that a cut may cost: headers, and bytes that were still between the kernel and bigupd.
const SLACK: u64 = 24 << 20;

/// Bytes of a request of those who send many.
const CHUNK: u64 = 5_000_000;

fn endpoint(port: u16) -> String {
    format!("http://127.0.0.1:{port}/files/")
}

fn endpoint_of(daemon: &Daemon) -> String {
    format!("{}/files/", daemon.url())
}

fn held_gate(daemon: &Daemon) -> Gate {
    Gate::held_at(HALF, http::address(daemon.url()))
}

fn eventually_holds(gate: &Gate) {
    eventually("half of the file went on", || gate.holds());
}

fn file(daemon: &Daemon, name: &str, len: u64) -> PathBuf {
    data::file(&daemon.scratch(), name, len, len)
}

/// Options as they are, and some more.
fn with(options: &Value, more: &[(&str, Value)]) -> Value {
    let mut options = options.clone();
    for (name, value) in more {
        options[*name] = value.clone();
    }
    options
}

/// What a client told: lists of a word and of what belongs to it.
#[derive(Debug)]
struct Told(Vec<Value>);

impl Told {
    fn parse(stdout: &[u8]) -> Told {
        let text = String::from_utf8_lossy(stdout);
        Told(text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {text}"))).collect())
    }

    /// Lists that begin with this word.
    fn of<'a>(&'a self, word: &'a str) -> impl Iterator<Item = &'a Value> {
        self.0.iter().filter(move |list| list[0] == word)
    }

    fn url(&self) -> String {
        self.of("url").next().and_then(|list| list[1].as_str()).unwrap_or_else(|| panic!("no URL: {self:?}")).to_owned()
    }

    /// Statuses of the responses to a method.
    fn statuses(&self, method: &str) -> Vec<u64> {
        self.of(method).filter_map(|list| list[1].as_u64()).collect()
    }

    /// The offset in the first response to a method.
    fn first_offset(&self, method: &str) -> u64 {
        let first = self.of(method).next().unwrap_or_else(|| panic!("no {method}: {self:?}"));
        first[2].as_str().and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("no offset: {self:?}"))
    }
}

/// tus-js-client in node, with options of clients/tus/upload.mjs.
fn js(options: &Value) -> Command {
    let mut command = clients::node("tus/upload.mjs");
    command.arg(options.to_string());
    command
}

/// Runs a client to its good end.
fn run(mut command: Command) -> Told {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?} cannot be started: {e}"));
    assert!(output.status.success(), "{output:?}");
    let told = Told::parse(&output.stdout);
    assert_eq!(told.of("success").count(), 1, "{told:?}");
    told
}

fn start(mut command: Command) -> Child {
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    child.unwrap_or_else(|e| panic!("{command:?} cannot be started: {e}"))
}

/// What it told that ends by itself.
fn ended(child: Child) -> Told {
    let output = child.wait_with_output().expect("it was started");
    assert!(output.status.success(), "{output:?}");
    Told::parse(&output.stdout)
}

/// What it told until it was killed.
fn killed(mut child: Child) -> Told {
    // What it told stays in the pipe.
    kill_9(&mut child);
    Told::parse(&child.wait_with_output().expect("it was started").stdout)
}

/// The file is finished and exact, and nothing else is left.
fn assert_exact(daemon: &Daemon, file: &Path, name: &str) {
    assert!(data::same(file, &daemon.finished(name)), "{name} arrived differently");
    daemon.eventually_clean();
}

/// The client went on near the byte where it was cut: from `offset` on, and what went over the gate is not much more than
/// the file.
fn assert_went_on(gate: &Gate, offset: u64) {
    assert!((HALF - SLACK..LEN).contains(&offset), "it went on from {offset}");
    let passed = gate.passed();
    assert!((LEN..=LEN + SLACK).contains(&passed), "{passed} bytes were sent for {LEN}");
}

#[test]
fn tus_js_client_uploads_in_one_request_and_in_many() {
    let _turn = turns::turn();
    let daemon = Daemon::start();
    let file = file(&daemon, "source", LEN);
    // The last ones end where slices of the spool do.
    for (name, chunk) in
        [("whole", None), ("chunks", Some(CHUNK)), ("slices", Some(8 << 20)), ("pairs", Some(16 << 20))]
    {
        let requests = chunk.map_or(1, |chunk| LEN.div_ceil(chunk));
        let metadata = json!({"filename": name, "filetype": "text/x-ü", "empty": ""});
        let options = json!({"endpoint": endpoint_of(&daemon), "file": file, "metadata": metadata});
        let options = chunk.map_or(options.clone(), |chunk| with(&options, &[("chunkSize", chunk.into())]));
        let told = run(js(&options));
        assert_eq!(told.statuses("POST"), [201], "{told:?}");
        assert_eq!(told.statuses("PATCH"), vec![204; usize::try_from(requests).unwrap()], "{told:?}");
        assert_exact(&daemon, &file, name);
        // Its URL tells that it is there.
        let again = run(js(&with(&options, &[("uploadUrl", told.url().into())])));
        assert_eq!((again.first_offset("HEAD"), again.statuses("PATCH")), (LEN, vec![]), "{again:?}");
    }
}

#[test]
fn tus_js_client_uploads_with_the_creation() {
    let _turn = turns::turn();
    let daemon = Daemon::start();
    let file = file(&daemon, "source", LEN);
    for (name, chunk, first, requests) in [("whole", None, LEN, 0), ("chunks", Some(CHUNK), CHUNK, LEN / CHUNK)] {
        let options = json!({"endpoint": endpoint_of(&daemon), "file": file, "uploadDataDuringCreation": true});
        let options = with(&options, &[("metadata", json!({"filename": name}))]);
        let options = chunk.map_or(options.clone(), |chunk| with(&options, &[("chunkSize", chunk.into())]));
        let told = run(js(&options));
        assert_eq!((told.statuses("POST"), told.first_offset("POST")), (vec![201], first), "{told:?}");
        assert_eq!(told.statuses("PATCH").len() as u64, requests, "{told:?}");
        assert_exact(&daemon, &file, name);
    }
}

#[test]
fn tus_js_client_uploads_a_stream_of_unknown_length() {
    let _turn = turns::turn();
    let daemon = Daemon::start();
    // Of nothing, and of a multiple of CHUNK, this client of node does not see the end.
    for (name, len) in [("long", LEN), ("short", 1)] {
        let file = file(&daemon, &format!("source {name}"), len);
        let options = json!({"endpoint": endpoint_of(&daemon), "file": file, "chunkSize": CHUNK, "isStream": true});
        let more = [("uploadLengthDeferred", true.into()), ("metadata", json!({"filename": name}))];
        let told = run(js(&with(&options, &more)));
        assert_eq!(told.statuses("POST"), [201], "{told:?}");
        assert!(told.statuses("PATCH").iter().all(|status| *status == 204), "{told:?}");
        assert_exact(&daemon, &file, name);
    }
}

#[test]
fn tus_js_client_uploads_an_empty_file() {
    let daemon = Daemon::start();
    let file = file(&daemon, "source", 0);
    let options = json!({"endpoint": endpoint_of(&daemon), "file": file, "metadata": {"filename": "empty"}});
    assert_eq!(run(js(&options)).statuses("POST"), [201]);
    assert_exact(&daemon, &file, "empty");
}

#[test]
fn tus_js_client_that_aborted_goes_on_in_another_process() {
    let _turn = turns::turn();
    let daemon = Daemon::start();
    let file = file(&daemon, "source", LEN);
    for (name, more) in [("whole", vec![]), ("chunks", vec![("chunkSize", CHUNK.into())])] {
        let gate = held_gate(&daemon);
        let options = json!({"endpoint": endpoint(gate.port), "file": file, "metadata": {"filename": name}});
        let options = with(&options, &more);
        let child = start(js(&options));
        eventually_holds(&gate);
        signal(child.id(), Signal::SIGTERM);
        let told = ended(child);
        assert_eq!(told.of("aborted").count(), 1, "{told:?}");
        gate.open();
        let told = run(js(&with(&options, &[("uploadUrl", told.url().into())])));
        assert_eq!((told.statuses("HEAD"), told.statuses("POST")), (vec![200], vec![]), "{told:?}");
        assert_went_on(&gate, told.first_offset("HEAD"));
        assert_exact(&daemon, &file, name);
    }
}

#[test]
fn tus_js_client_that_was_killed_goes_on_although_its_connection_is_still_there() {
    let _turn = turns::turn();
    let daemon = Daemon::start();
    let file = file(&daemon, "source", LEN);
    let gate = held_gate(&daemon);
    let options = json!({"endpoint": endpoint(gate.port), "file": file, "metadata": {"filename": "big"}});
    let child = start(js(&options));
    eventually_holds(&gate);
    let told = killed(child);
    // The gate has not noticed that the client is gone, so that bigupd still waits for its bytes.
    let direct = with(&options, &[("endpoint", endpoint_of(&daemon).into())]);
    let url = told.url().replace(&endpoint(gate.port), &endpoint_of(&daemon));
    let told = run(js(&with(&direct, &[("uploadUrl", url.into())])));
    let offset = told.first_offset("HEAD");
    assert!((HALF - SLACK..LEN).contains(&offset), "{told:?}");
    assert_exact(&daemon, &file, "big");
}

#[test]
fn tus_js_client_outlives_a_kill_of_the_daemon() {
    let _turn = turns::turn();
    let mut daemon = Daemon::start();
    let file = file(&daemon, "source", LEN);
    for (name, more) in [("whole", vec![]), ("chunks", vec![("chunkSize", CHUNK.into())])] {
        let gate = held_gate(&daemon);
        let options = json!({"endpoint": endpoint(gate.port), "file": file, "metadata": {"filename": name}});
        let child = start(js(&with(&options, &more)));
        eventually_holds(&gate);
        daemon.kill_9();
        gate.open();
        daemon.run();
        let told = ended(child);
        assert_eq!((told.statuses("POST"), told.statuses("HEAD").last()), (vec![201], Some(&200)), "{told:?}");
        assert_went_on(&gate, told.first_offset("HEAD"));
        assert_exact(&daemon, &file, name);
    }
}

#[test]
fn tus_js_client_terminates() {
    let daemon = Daemon::start();
    let file = file(&daemon, "source", 20 << 20);
    let gate = Gate::held_at(10 << 20, http::address(daemon.url()));
    let options = json!({"endpoint": endpoint(gate.port), "file": file, "metadata": {"filename": "gone"}});
    let child = start(js(&options));
    eventually("some of it went on", || gate.holds());
    signal(child.id(), Signal::SIGINT);
    gate.open();
    let told = ended(child);
    assert_eq!(told.statuses("DELETE"), [204], "{told:?}");
    assert!(!daemon.spools().contains(&"gone".to_owned()) && !daemon.finished("gone").exists());
    // Its URL is one no longer: the client begins again.
    let told = run(js(&with(&options, &[("uploadUrl", told.url().into())])));
    assert_eq!((told.statuses("HEAD"), told.statuses("POST")), (vec![404], vec![201]), "{told:?}");
    assert!(data::same(&file, &daemon.finished("gone")));
}

#[test]
fn tus_js_client_that_aborted_goes_on_by_the_draft_of_the_ietf() {
    let _turn = turns::turn();
    let daemon = Daemon::start();
    let len = 64 << 20;
    let file = file(&daemon, "source", len);
    for (name, more) in [("whole", vec![]), ("chunks", vec![("chunkSize", CHUNK.into())])] {
        let gate = Gate::held_at(len / 2, http::address(daemon.url()));
        let options = json!({"endpoint": endpoint(gate.port), "file": file, "metadata": {"filename": name}});
        // From a file this client of node says the end only if it sends all of it at once.
        let draft = [("protocol", "ietf-draft-05".into()), ("isBuffer", true.into())];
        let options = with(&with(&options, &more), &draft);
        let child = start(js(&options));
        eventually_holds(&gate);
        signal(child.id(), Signal::SIGTERM);
        let told = ended(child);
        assert_eq!(told.of("aborted").count(), 1, "{told:?}");
        gate.open();
        let told = run(js(&with(&options, &[("uploadUrl", told.url().into())])));
        assert_eq!((told.statuses("HEAD"), told.statuses("POST")), (vec![204], vec![]), "{told:?}");
        assert_eq!(told.statuses("PATCH").last(), Some(&200), "{told:?}");
        let (offset, passed) = (told.first_offset("HEAD"), gate.passed());
        assert!((len / 2 - SLACK..len).contains(&offset), "it went on from {offset}");
        assert!((len..=len + SLACK).contains(&passed), "{passed} bytes were sent for {len}");
        assert_exact(&daemon, &file, name);
    }
}

#[test]
fn tus_js_client_uploads_by_the_draft_of_the_ietf_with_the_creation_and_an_empty_file() {
    let daemon = Daemon::start();
    for (name, len) in [("some", CHUNK + 1), ("empty", 0)] {
        let file = file(&daemon, &format!("source {name}"), len);
        let options = json!({"endpoint": endpoint_of(&daemon), "file": file, "protocol": "ietf-draft-05"});
        let options = with(&options, &[("isBuffer", true.into()), ("metadata", json!({"filename": name}))]);
        let told = run(js(&with(&options, &[("uploadDataDuringCreation", true.into())])));
        assert_eq!(told.statuses("POST"), [201], "{told:?}");
        assert_exact(&daemon, &file, name);
    }
}

/// tuspy, with arguments of clients/tus/upload.py.
fn py(arguments: &Value) -> Command {
    let mut command = clients::python("tus/upload.py", "tusclient");
    command.arg(arguments.to_string());
    command
}

#[test]
fn tuspy_uploads_with_checksums_and_goes_on_by_the_address() {
    let _turn = turns::turn();
    let daemon = Daemon::start();
    let file = file(&daemon, "source", LEN);
    let arguments = json!({"file_path": file, "chunk_size": CHUNK, "upload_checksum": true});
    let arguments = with(&arguments, &[("endpoint", endpoint_of(&daemon).into())]);
    let told = run(py(&with(&arguments, &[("metadata", json!({"filename": "big"})), ("stop_at", HALF.into())])));
    let told = run(py(&with(&arguments, &[("url", told.url().into())])));
    assert_eq!(told.first_offset("begins"), HALF, "{told:?}");
    assert_exact(&daemon, &file, "big");
}

#[test]
fn tuspy_that_was_killed_keeps_no_bytes_that_were_not_checked() {
    let _turn = turns::turn();
    let daemon = Daemon::start();
    let file = file(&daemon, "source", LEN);
    let gate = held_gate(&daemon);
    let arguments = json!({"file_path": file, "chunk_size": 16 << 20, "upload_checksum": true, "retries": 3});
    let arguments = with(&arguments, &[("endpoint", endpoint(gate.port).into())]);
    let child = start(py(&with(&arguments, &[("metadata", json!({"filename": "big"}))])));
    eventually_holds(&gate);
    let told = killed(child);
    gate.open();
    let told = run(py(&with(&arguments, &[("url", told.url().into())])));
    let offset = told.first_offset("begins");
    assert_eq!(offset % (16 << 20), 0, "{told:?}");
    assert_went_on(&gate, offset);
    assert_exact(&daemon, &file, "big");
}
