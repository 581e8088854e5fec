//! Clients of tus that others made: their files arrive exactly, and go on after a cut near the byte where they were cut.
//!
//! Needs node with the modules of clients/tus/package.json in `BIGUP_NODE_MODULES`, and Python with the packages of
//! clients/requirements.txt, which `BIGUP_PYTHON` names if it is not `python3`.

use bigup_tests::browser::{Profile, Site};
use bigup_tests::certificates::Authority;
use bigup_tests::daemon::Daemon;
use bigup_tests::gate::Gate;
use bigup_tests::gateway::{Gateway, documented};
use bigup_tests::process::{eventually, kill_9, signal};
use bigup_tests::{clients, data, docs, http, programs, turns};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Bytes of the files.
const LEN: u64 = (256 << 20) + 1;

/// Bytes after which transfers are held.
const HALF: u64 = 128 << 20;

/// Bytes that a cut may cost: headers, and bytes that were still between the kernel and bigupd.
const SLACK: u64 = 16 << 20;

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
fn tus_js_client_uploads_by_four_connections_and_joins_the_parts() {
    let _turn = turns::turn();
    let daemon = Daemon::start();
    let file = file(&daemon, "source", LEN);
    for (name, chunk, requests) in [("whole", None, 4), ("chunks", Some(CHUNK), LEN.div_ceil(4).div_ceil(CHUNK) * 4)] {
        let options = json!({"endpoint": endpoint_of(&daemon), "file": file, "parallelUploads": 4});
        let options = with(&options, &[("metadata", json!({"filename": name}))]);
        let options = chunk.map_or(options.clone(), |chunk| with(&options, &[("chunkSize", chunk.into())]));
        let told = run(js(&options));
        // The last creation is that of the file.
        assert_eq!(told.statuses("POST"), [201; 5], "{told:?}");
        assert_eq!(told.statuses("PATCH"), vec![204; usize::try_from(requests).unwrap()], "{told:?}");
        assert_exact(&daemon, &file, name);
    }
}

#[test]
fn tus_js_client_of_four_connections_that_was_killed_goes_on() {
    let _turn = turns::turn();
    let daemon = Daemon::start();
    let file = file(&daemon, "source", LEN);
    let gate = held_gate(&daemon);
    let options = json!({"endpoint": endpoint(gate.port), "file": file, "parallelUploads": 4});
    let state = daemon.scratch().join("state");
    let options = with(&options, &[("metadata", json!({"filename": "a"})), ("state", json!(state))]);
    let child = start(js(&options));
    eventually_holds(&gate);
    killed(child);
    gate.open();
    let told = run(js(&options));
    assert_eq!((told.statuses("HEAD"), told.statuses("POST")), (vec![200; 4], vec![201]), "{told:?}");
    let held: u64 = told.of("HEAD").filter_map(|list| list[2].as_str()?.parse::<u64>().ok()).sum();
    assert_went_on(&gate, held);
    assert_exact(&daemon, &file, "a");
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
    assert_eq!((told.statuses("HEAD"), told.statuses("POST")), (vec![410], vec![201]), "{told:?}");
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

/// A page of another origin than the daemon, whose token it has.
struct Page {
    site: Site,
    daemon: Daemon,
    token: String,
    file: PathBuf,
}

/// Bytes of a page's file.
const PAGE_LEN: u64 = (64 << 20) + 1;

impl Page {
    fn start(html: &str, script: &str) -> Page {
        let folder = tempfile::tempdir().unwrap();
        let file = data::file(folder.path(), "file", 3, PAGE_LEN);
        let site = Site::serving(html, script, vec![("/modules", clients::node_modules()), ("/file", file.clone())]);
        let data = folder.path().join("data");
        let token = token(&data);
        let daemon = Daemon::in_folder(folder, &["--allowed-origins", &format!("http://localhost:{}", site.port)]);
        Page { site, daemon, token, file }
    }

    /// What it tells that uploads to its end in the browser that is to open it.
    fn told(&self, profile: &Profile, port: u16, more: &str) -> Told {
        let query = self.query(port, more);
        let _browser = profile.open(&self.site.url("localhost", &query));
        let told = Told::parse(self.site.told(&query).as_bytes());
        assert_eq!(told.of("success").count(), 1, "{told:?}");
        told
    }

    fn query(&self, port: u16, more: &str) -> String {
        format!("endpoint={}&token={}&{more}", endpoint(port), self.token)
    }

    /// The browser is closed in the middle of the file and opened again.
    fn assert_goes_on(&self, name: &str, more: &str) {
        let gate = Gate::held_at(PAGE_LEN / 2, http::address(self.daemon.url()));
        let profile = Profile::new();
        let browser = profile.open(&self.site.url("localhost", &self.query(gate.port, more)));
        eventually_holds(&gate);
        // Chromium writes it down some seconds later, or never where it is closed before that on a busy machine.
        eventually("the browser remembers the upload", || profile.remembers("tus::"));
        browser.close();
        gate.open();
        let told = self.told(&profile, gate.port, more);
        assert_eq!((told.statuses("POST"), told.statuses("HEAD")), (vec![], vec![200]), "{told:?}");
        let offset = told.first_offset("HEAD");
        assert!((PAGE_LEN / 2 - SLACK..PAGE_LEN).contains(&offset), "{told:?}");
        assert!(gate.passed() <= PAGE_LEN + SLACK, "{} bytes were sent for {PAGE_LEN}", gate.passed());
        assert_exact(&self.daemon, &self.file, name);
    }
}

fn token(data: &Path) -> String {
    let mut command = Command::new(programs::path("bigupd"));
    let output = command.args(["token", "new", "page", "--data-dir"]).arg(data).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn script(name: &str) -> String {
    std::fs::read_to_string(docs::root().join("tests/clients/tus").join(name)).expect("it is there")
}

#[test]
fn a_page_with_tus_js_client_goes_on_after_the_browser_was_closed() {
    let _turn = turns::turn();
    let html = "<script src=/modules/tus-js-client/dist/tus.min.js></script>";
    Page::start(html, &script("page.mjs")).assert_goes_on("page.bin", "chunk=0");
}

#[test]
fn a_page_with_uppy_goes_on_after_the_browser_was_closed() {
    let _turn = turns::turn();
    let page = Page::start(&script("uppy.html"), &script("uppy.mjs"));
    page.assert_goes_on("uppy.bin", &format!("chunk={CHUNK}"));
}

/// A killed upload goes on through a proxy of the document, over connections of its own.
fn assert_goes_on_through(proxy: &str, authority: Option<&Path>, daemon: &Daemon) {
    let file = file(daemon, "source", LEN);
    let gate = Gate::held_at(HALF, http::address(proxy));
    let (scheme, _) = proxy.split_once("://").expect("it is a URL");
    let endpoint = format!("{scheme}://127.0.0.1:{}/files", gate.port);
    let options = json!({"endpoint": endpoint, "file": file, "metadata": {"filename": "a folder/ü.bin"}});
    let client = |options: &Value| {
        let mut client = js(options);
        client.envs(authority.map(|authority| ("NODE_EXTRA_CA_CERTS", authority)));
        client
    };
    let child = start(client(&options));
    eventually_holds(&gate);
    let told = killed(child);
    // bigupd names a path, so that the client stays with the proxy.
    assert!(told.url().starts_with(&format!("{endpoint}/")), "{told:?}");
    gate.open();
    let told = run(client(&with(&options, &[("uploadUrl", told.url().into())])));
    assert_went_on(&gate, told.first_offset("HEAD"));
    assert_exact(daemon, &file, "a folder/ü.bin");
}

#[test]
fn tus_js_client_goes_on_through_nginx() {
    let _turn = turns::turn();
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "authority");
    let daemon = Daemon::with(&["--trusted-proxies", "127.0.0.1"]);
    let certificate = authority.issue("server", &["127.0.0.1"]);
    let nginx = Gateway::nginx(&documented("nginx"), daemon.url(), &certificate);
    assert_goes_on_through(&nginx.url, Some(&authority.file), &daemon);
}

#[test]
fn tus_js_client_goes_on_through_caddy() {
    let _turn = turns::turn();
    let daemon = Daemon::with(&["--trusted-proxies", "127.0.0.1"]);
    let caddy = Gateway::caddy(&documented("caddy"), daemon.url());
    assert_goes_on_through(&caddy.url, None, &daemon);
}

/// curl, with arguments that are split at spaces and some more.
fn curl(arguments: &str, more: &[&str]) -> Command {
    let mut command = Command::new("curl");
    command.args(["-sS", "--noproxy", "*", "-H", "Tus-Resumable: 1.0.0"]).args(arguments.split(' ')).args(more);
    command.stdin(Stdio::null());
    command
}

/// Runs curl to its end: its exit code, and the value of a header field of the response. Empty: it has none.
fn field(mut curl: Command, name: &str) -> (Option<i32>, String) {
    let output = curl.output().expect("curl can be started: tests/run installs it");
    let head = String::from_utf8_lossy(&output.stdout).into_owned();
    let line =
        head.lines().filter_map(|line| line.split_once(": ")).find(|(found, _)| found.eq_ignore_ascii_case(name));
    (output.status.code(), line.map_or(String::new(), |(_, value)| value.trim().to_owned()))
}

#[test]
fn curl_goes_on_where_it_was_killed_and_where_its_time_was_over() {
    let _turn = turns::turn();
    let daemon = Daemon::start();
    let file = file(&daemon, "source", LEN);
    let file_text = file.to_str().unwrap();
    let gate = Gate::held_at(64 << 20, http::address(daemon.url()));
    let length = format!("Upload-Length: {LEN}");
    let create =
        curl("-i -X POST -H", &[&length, "-H", "Upload-Metadata: filename Y3VybC5iaW4=", &endpoint(gate.port)]);
    let (_, location) = field(create, "Location");
    assert!(location.starts_with("/files/") && location.ends_with("/curl.bin"), "{location}");
    let (slow, url) = (format!("http://127.0.0.1:{}{location}", gate.port), format!("{}{location}", daemon.url()));
    let append = |url: &str, offset: &str, more: &str| {
        let offset = format!("Upload-Offset: {offset}");
        curl(
            &format!("-i -X PATCH {more} {url}"),
            &["-H", "Content-Type: application/offset+octet-stream", "-H", &offset],
        )
    };
    let offset = || field(curl(&format!("-I {url}"), &[]), "Upload-Offset").1;
    // Killed.
    let child = start(append(&slow, "0", &format!("--limit-rate 200M -T {file_text}")));
    eventually_holds(&gate);
    kill_9(&mut { child });
    let first: u64 = offset().parse().unwrap();
    assert!(((64 << 20) - SLACK..LEN).contains(&first), "{first}");
    // The rest as a stream of unknown length, until its time is over.
    let mut rest = append(&url, &first.to_string(), "--limit-rate 8M --max-time 3 -T -");
    let from = format!("+{}", first + 1);
    let mut tail = Command::new("tail").args(["-c", &from, file_text]).stdout(Stdio::piped()).spawn().unwrap();
    rest.stdin(tail.stdout.take().unwrap());
    assert_eq!(field(rest, "Upload-Offset").0, Some(28));
    kill_9(&mut tail);
    let second: u64 = offset().parse().unwrap();
    assert!((first..LEN).contains(&second), "{first} {second}");
    // The rest of the file that curl passes by itself.
    let rest = append(&url, &second.to_string(), &format!("-C {second} -T {file_text}"));
    assert_eq!(field(rest, "Upload-Offset"), (Some(0), LEN.to_string()));
    assert_exact(&daemon, &file, "curl.bin");
}
