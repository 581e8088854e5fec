//! bigupd as a service: its units, what it tells systemd, and sockets that systemd holds for it.

use bigup_tests::certificates::Authority;
use bigup_tests::process::{eventually, kill_9, signal};
use bigup_tests::{data, http, programs};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Highest exposure that `systemd-analyze security` may find, in tenths.
const MOST_EXPOSURE: &str = "15";

/// The same for watched folders, which it must see.
const MOST_WATCH_EXPOSURE: &str = "22";

/// Address to listen on that nobody can have (RFC 5737): who does not use the socket it was passed fails.
const NOWHERE: &str = "192.0.2.1:1";

/// What passes its standard input on as the first socket.
const PASS_ONE: &str = r#"exec 3<&0 </dev/null; export LISTEN_PID=$$ LISTEN_FDS=1; exec "$@""#;

/// The same with its standard output as the second one; $LOG is where the program's goes.
const PASS_TWO: &str = r#"exec 3<&0 4<&1 </dev/null >"$LOG"; export LISTEN_PID=$$ LISTEN_FDS=2; exec "$@""#;

/// A daemon started as systemd would: by its sockets, which are ours and stay open.
struct Service {
    folder: tempfile::TempDir,
    socket: TcpListener,
    arguments: Vec<String>,
    running: Option<Child>,
}

impl Service {
    fn new(arguments: &[&str]) -> Service {
        let folder = tempfile::tempdir().unwrap();
        let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        Service { folder, socket, arguments, running: None }
    }

    fn started(arguments: &[&str]) -> Service {
        let mut service = Service::new(arguments);
        service.start();
        service
    }

    /// Starts the daemon, and waits until it may be told to stop: a signal before that ends any process.
    fn start(&mut self) {
        let started = |service: &Service| service.log().matches("] listening on").count();
        let before = started(self);
        let mut command = passing(PASS_ONE, self.folder.path());
        command.stdin(Stdio::from(OwnedFd::from(self.socket.try_clone().unwrap()))).args(&self.arguments);
        let log = File::options().create(true).append(true).open(self.folder.path().join("log")).unwrap();
        self.running = Some(command.stdout(Stdio::null()).stderr(log).spawn().unwrap());
        eventually("it listens", || started(self) > before);
    }

    fn stop(&mut self) -> ExitStatus {
        let mut child = self.running.take().expect("it runs");
        signal(child.id(), Signal::SIGTERM);
        child.wait().unwrap()
    }

    fn url(&self, scheme: &str) -> String {
        format!("{scheme}://{}", self.socket.local_addr().unwrap())
    }

    fn finished(&self, name: &str) -> PathBuf {
        self.folder.path().join("data/files").join(name)
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if let Some(child) = &mut self.running {
            kill_9(child);
        }
        if std::thread::panicking() {
            eprintln!("--- log of bigupd and its mergers\n{}---", self.log());
        }
    }
}

/// `bigupd` on a data folder in `folder`, by a shell that passes sockets on.
fn passing(script: &str, folder: &Path) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script, "sh"]).arg(programs::path("bigupd"));
    command.arg("--data-dir").arg(folder.join("data")).args(["--listen", NOWHERE]);
    command.env("LOG", folder.join("log"));
    command
}

/// What bigupd says that is passed `socket` and does not serve.
fn refused(socket: OwnedFd) -> Output {
    let folder = tempfile::tempdir().unwrap();
    passing(PASS_ONE, folder.path()).stdin(Stdio::from(socket)).output().unwrap()
}

#[test]
fn the_units_are_right_and_little_is_exposed() {
    let units = Path::new(env!("CARGO_MANIFEST_DIR")).join("../systemd");
    let folder = tempfile::tempdir().unwrap();
    let bigupd = programs::path("bigupd");
    for unit in ["bigupd.service", "bigupd.socket"] {
        let text = std::fs::read_to_string(units.join(unit)).unwrap();
        // What is started must be there.
        std::fs::write(folder.path().join(unit), text.replace("/usr/bin/bigupd", bigupd.to_str().unwrap())).unwrap();
    }
    let analyze = |arguments: &[&str]| {
        let mut command = Command::new("systemd-analyze");
        let output = command.args(arguments).current_dir(folder.path()).output();
        let output = output.unwrap_or_else(|e| panic!("systemd-analyze ({e}): apt-get install systemd"));
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        (output.status.success(), said)
    };
    let verified = analyze(&["verify", "--man=no", "--recursive-errors=no", "./bigupd.service", "./bigupd.socket"]);
    assert_eq!(verified, (true, String::new()));
    let threshold = format!("--threshold={MOST_EXPOSURE}");
    let (secure, said) = analyze(&["security", "--offline=true", "--no-pager", &threshold, "./bigupd.service"]);
    assert!(secure && said.contains("Overall exposure level"), "{said}");
}

#[test]
fn the_unit_of_watched_folders_is_right_and_little_is_exposed() {
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../systemd/bigup-watch@.service");
    let folder = tempfile::tempdir().unwrap();
    let text = std::fs::read_to_string(unit).unwrap();
    let text = text.replace("/usr/bin/bigup-cli", programs::path("bigup-cli").to_str().unwrap());
    std::fs::write(folder.path().join("bigup-watch@scope.service"), text).unwrap();
    let analyze = |arguments: &[&str]| {
        let mut command = Command::new("systemd-analyze");
        let output = command.args(arguments).arg("./bigup-watch@scope.service").current_dir(folder.path()).output();
        let output = output.unwrap_or_else(|e| panic!("systemd-analyze ({e}): apt-get install systemd"));
        (output.status.success(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    };
    assert_eq!(analyze(&["verify", "--man=no", "--recursive-errors=no"]), (true, String::new()));
    let threshold = format!("--threshold={MOST_WATCH_EXPOSURE}");
    let (secure, said) = analyze(&["security", "--offline=true", "--no-pager", &threshold]);
    assert!(secure && said.contains("Overall exposure level"), "{said}");
}

#[test]
fn systemd_hears_when_a_folder_is_watched_and_how_many_files_wait() {
    let service = Service::started(&[]);
    let manager = Manager::new(service.folder.path());
    let watched = service.folder.path().join("watched");
    std::fs::create_dir(&watched).unwrap();
    let mut command = programs::cli();
    command.arg("watch").arg(&watched).args(["--url", &service.url("http"), "--settle", "200ms", "--state"]);
    command.arg(service.folder.path().join("state")).env("NOTIFY_SOCKET", &manager.path);
    let mut watch = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    assert_eq!(manager.next(), ["READY=1", "STATUS=0 files stored, 0 waiting"]);
    std::fs::write(watched.join("a"), "a").unwrap();
    while manager.next() != ["READY=1", "STATUS=1 file stored, 0 waiting"] {}
    kill_9(&mut watch);
}

/// What systemd hears.
struct Manager {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Manager {
    fn new(folder: &Path) -> Manager {
        let path = folder.join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(bigup_tests::process::PATIENCE)).unwrap();
        Manager { socket, path }
    }

    /// The next message, line by line.
    fn next(&self) -> Vec<String> {
        let mut bytes = [0; 4096];
        let len = self.socket.recv(&mut bytes).expect("something is told in time");
        String::from_utf8_lossy(&bytes[..len]).lines().map(str::to_owned).collect()
    }

    /// The first message that begins with `line`. Nothing but signs of life and the status may come before.
    fn expect(&self, line: &str) -> Vec<String> {
        loop {
            let message = self.next();
            if message[0].starts_with(line) {
                return message;
            }
            assert!(
                ["WATCHDOG=1", "STATUS="].iter().any(|usual| message[0].starts_with(usual)),
                "{message:?}, not {line}"
            );
        }
    }
}

#[test]
fn systemd_is_told_what_goes_on_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let manager = Manager::new(folder.path());
    let mut daemon = Command::new(programs::path("bigupd"));
    daemon.arg("--data-dir").arg(folder.path().join("data")).args(["--listen", "127.0.0.1:0"]);
    daemon.env("NOTIFY_SOCKET", &manager.path).env("WATCHDOG_USEC", "2000000");
    let mut daemon = daemon.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(daemon.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let url = line.trim().strip_prefix("bigupd listening on ").unwrap();
    assert_eq!(manager.next(), ["READY=1".to_owned(), format!("STATUS=serving on {url}")]);
    // It accepts connections from here on.
    let server = http::Server::new(url);
    manager.expect("WATCHDOG=1");
    server.get("file_name=f&slice_num=4").expect(200);
    let told = |status: &str| manager.expect(&format!("STATUS=serving on {url}, {status}"));
    told("1 upload unfinished, 0 mergers at work");
    server.post("file_name=f&slice_id=0&slice_size=1024", &[7; 1024]).expect(200);
    told("1 upload unfinished, 1 merger at work");
    signal(daemon.id(), Signal::SIGHUP);
    let reloading = manager.expect("RELOADING=1");
    assert!(reloading[1].strip_prefix("MONOTONIC_USEC=").unwrap().parse::<u64>().unwrap() > 0, "{reloading:?}");
    assert_eq!(manager.expect("READY=1"), ["READY=1"]);
    signal(daemon.id(), Signal::SIGTERM);
    assert!(manager.expect("STOPPING=1")[1].starts_with("STATUS=stopping"));
    assert!(daemon.wait().unwrap().success());
}

#[test]
fn a_program_that_bigupd_starts_inherits_nothing_of_what_systemd_gave() {
    let scratch = tempfile::tempdir().unwrap();
    let (script, seen) = (scratch.path().join("merger"), scratch.path().join("seen"));
    let text = format!("#!/bin/sh\nenv >{0}.new; ls -l /proc/$$/fd >>{0}.new; mv {0}.new {0}\n", seen.display());
    std::fs::write(&script, text).unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o700)).unwrap();
    let manager = Manager::new(scratch.path());
    let mut service = Service::new(&["--merger", script.to_str().unwrap()]);
    let mut command = passing(PASS_ONE, service.folder.path());
    command.env("NOTIFY_SOCKET", &manager.path).env("WATCHDOG_USEC", "60000000").env("LISTEN_FDNAMES", "bigupd.socket");
    command.stdin(Stdio::from(OwnedFd::from(service.socket.try_clone().unwrap()))).args(&service.arguments);
    service.running = Some(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    let server = http::Server::new(&service.url("http"));
    server.get("file_name=f&slice_num=2").expect(200);
    server.post("file_name=f&slice_id=0&slice_size=4", b"abcd").expect(200);
    eventually("the merger ran", || seen.exists());
    let seen = std::fs::read_to_string(seen).unwrap();
    for own in ["NOTIFY_SOCKET", "WATCHDOG_", "LISTEN_", "socket:"] {
        assert!(!seen.contains(own), "{own}: {seen}");
    }
}

#[test]
fn who_connects_before_the_daemon_starts_is_served_by_the_socket_that_was_passed() {
    let mut service = Service::new(&[]);
    let mut early = http::connect(&service.url("http"));
    early.write_all(b"GET /big_file_upload?peek=1 HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    service.start();
    assert!(http::read_answer(&mut early).starts_with("HTTP/1.1 200"));
    assert!(service.stop().success());
    let log = service.log();
    let warned =
        format!("listen is {NOWHERE}, but systemd passes a socket on {}", service.socket.local_addr().unwrap());
    assert!(log.contains(&warned), "{log}");
}

#[test]
fn all_sockets_that_are_passed_are_served() {
    let folder = tempfile::tempdir().unwrap();
    let sockets = [TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("[::1]:0").unwrap()];
    let [first, second] = sockets.each_ref().map(|socket| Stdio::from(OwnedFd::from(socket.try_clone().unwrap())));
    let mut daemon =
        passing(PASS_TWO, folder.path()).stdin(first).stdout(second).stderr(Stdio::null()).spawn().unwrap();
    for socket in &sockets {
        let server = http::Server::new(&format!("http://{}", socket.local_addr().unwrap()));
        server.get("peek=1").expect(200);
    }
    kill_9(&mut daemon);
}

#[test]
fn a_socket_in_the_file_system_that_is_passed_is_served() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bigupd.sock");
    let socket = Stdio::from(OwnedFd::from(UnixListener::bind(&path).unwrap()));
    let mut early = UnixStream::connect(&path).unwrap();
    early.write_all(b"GET /big_file_upload?peek=1 HTTP/1.0\r\n\r\n").unwrap();
    let mut daemon =
        passing(PASS_ONE, folder.path()).stdin(socket).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let mut answer = String::new();
    early.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("200 OK"), "{answer}");
    signal(daemon.id(), Signal::SIGTERM);
    assert!(daemon.wait().unwrap().success());
    // It is systemd's, and stays.
    assert!(path.exists());
}

#[test]
fn sockets_that_anybody_reaches_or_nobody_can_serve_on_are_refused() {
    let open = TcpListener::bind("0.0.0.0:0").unwrap();
    let address = open.local_addr().unwrap();
    for (socket, why) in [
        (OwnedFd::from(open), format!("listening on {address} lets anybody")),
        (OwnedFd::from(UdpSocket::bind("127.0.0.1:0").unwrap()), "socket 1 of those that systemd passes".to_owned()),
        (OwnedFd::from(File::open("/dev/null").unwrap()), "socket 1 of those that systemd passes".to_owned()),
    ] {
        let output = refused(socket);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(&why), "{why}: {said}");
    }
}

#[test]
fn sockets_of_another_process_are_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let script = r#"exec 3<&0 </dev/null; export LISTEN_PID=1 LISTEN_FDS=1; exec "$@""#;
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let output = passing(script, folder.path()).stdin(Stdio::from(OwnedFd::from(socket))).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains(&format!("listening on {NOWHERE}")), "{said}");
}

#[test]
fn lines_stay_lines_where_standard_error_is_not_the_journal() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = passing(r#"exec "$@""#, folder.path());
    let output = command.env("JOURNAL_STREAM", "1:1").env("BIGUP_LISTEN", NOWHERE).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("bigupd: listening on"), "{output:?}");
}

/// Pushes `what` while the daemon is restarted, `times` at most, each time once more bytes or files were stored. The push
/// must show nothing of it. On a slow machine fewer restarts fit into it.
fn pushed_through_restarts(service: &mut Service, scheme: &str, what: &Path, arguments: &[&str], times: u32) {
    let mut push = programs::cli();
    push.arg("push").arg(what).args(["--url", &service.url(scheme), "--json"]).args(arguments);
    let mut push = push.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (lines, moved) = (Arc::new(Mutex::new(vec![])), Arc::new(AtomicU64::new(0)));
    let stdout = BufReader::new(push.stdout.take().unwrap());
    let reader = {
        let (lines, moved) = (Arc::clone(&lines), Arc::clone(&moved));
        std::thread::spawn(move || {
            for line in stdout.lines() {
                lines.lock().unwrap().push(line.unwrap());
                moved.fetch_add(1, Ordering::Relaxed);
            }
        })
    };
    let mut restarts = 0;
    while restarts < times && push.try_wait().unwrap().is_none() {
        let before = moved.load(Ordering::Relaxed);
        eventually("the push moves", || {
            moved.load(Ordering::Relaxed) >= before + 3 || push.try_wait().unwrap().is_some()
        });
        assert!(service.stop().success(), "the daemon ends well");
        service.start();
        restarts += 1;
    }
    let output = push.wait_with_output().unwrap();
    reader.join().unwrap();
    let lines = lines.lock().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{said}\n{}", lines.join("\n"));
    let events: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let shown: Vec<&Value> = events.iter().filter(|e| e["event"] == "retry" || e["event"] == "error").collect();
    assert!(shown.is_empty(), "{shown:?}");
    assert!(restarts >= times / 3, "the push ended too soon for this test: {restarts}");
}

/// Each push lasts about this long for its pace, and restarts come as fast as they can.
const PACE: &str = "16M";

#[test]
fn a_push_through_restarts_shows_nothing_of_them() {
    let mut service = Service::started(&[]);
    let file = service.folder.path().join("big");
    std::fs::write(&file, data::bytes(1, 160 << 20)).unwrap();
    pushed_through_restarts(&mut service, "http", &file, &["--limit-rate", PACE, "--slice-size", "512K"], 12);
    eventually("it is finished", || service.finished("big").exists());
    assert!(std::fs::read(service.finished("big")).unwrap() == std::fs::read(&file).unwrap());
}

#[test]
fn a_push_by_tls_through_restarts_shows_nothing_of_them() {
    let scratch = tempfile::tempdir().unwrap();
    let authority = Authority::new(scratch.path(), "authority");
    let mut service = Service::started(&authority.issue("server", &["127.0.0.1"]).arguments());
    let file = service.folder.path().join("big");
    std::fs::write(&file, data::bytes(2, 96 << 20)).unwrap();
    let arguments = ["--limit-rate", PACE, "--slice-size", "512K", "--ca-cert", authority.file.to_str().unwrap()];
    pushed_through_restarts(&mut service, "https", &file, &arguments, 6);
    assert!(std::fs::read(service.finished("big")).unwrap() == std::fs::read(&file).unwrap());
}

#[test]
fn small_files_pushed_through_restarts_show_nothing_of_them() {
    const FILES: u64 = 2000;
    let mut service = Service::started(&[]);
    let folder = service.folder.path().join("small");
    std::fs::create_dir(&folder).unwrap();
    for i in 0..FILES {
        std::fs::write(folder.join(format!("{i}")), data::bytes(i, 20_000)).unwrap();
    }
    pushed_through_restarts(&mut service, "http", &folder, &["--limit-rate", "4M"], 12);
    for i in 0..FILES {
        let stored = std::fs::read(service.finished(&format!("small/{i}"))).unwrap();
        assert!(stored == data::bytes(i, 20_000), "{i}");
    }
}

#[test]
fn who_connected_as_the_daemon_stops_is_answered_and_silence_holds_nothing_up() {
    let mut service = Service::started(&["--stop-grace", "50s"]);
    // Two that the daemon has accepted: the others it accepted before are answered.
    let (mut asks, _silent) = (http::connect(&service.url("http")), http::connect(&service.url("http")));
    http::Server::new(&service.url("http")).get("peek=1").expect(200);
    let began = std::time::Instant::now();
    signal(service.running.as_ref().unwrap().id(), Signal::SIGTERM);
    eventually("it stops", || service.log().contains("stopping: "));
    asks.write_all(b"GET /big_file_upload?peek=1 HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let answer = http::read_answer(&mut asks);
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(asks.read(&mut [0]).unwrap(), 0, "it is asked nothing more");
    assert!(service.running.take().unwrap().wait().unwrap().success());
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
}
