//! Starting and stopping: configuration, signals, exit codes, of the daemon and of mergers started by hand.

use bigup_tests::daemon::Daemon;
use bigup_tests::process::{eventually, signal};
use bigup_tests::{data, http, programs};
use nix::sys::signal::Signal;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

fn bigupd(arguments: &[&str]) -> Output {
    Command::new(programs::path("bigupd")).args(arguments).output().expect("bigupd can be started")
}

/// A daemon with an upload of 4 slices of 1 KiB whose slice 0 is missing.
fn with_unfinished_upload(arguments: &[&str]) -> Daemon {
    let daemon = Daemon::with(arguments);
    daemon.server().get("file_name=f&slice_num=4").expect(200);
    for id in 1..4 {
        daemon.server().post(&format!("file_name=f&slice_id={id}&slice_size=1024"), &[7; 1024]).expect(200);
    }
    daemon
}

#[test]
fn a_wrong_configuration_is_told_whole_and_binds_nothing() {
    let output = bigupd(&["--listen", "nonsense", "--merger-idle", "soon", "--max-slice-size", "1"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    for part in ["--listen", "--merger-idle", "--max-slice-size", "data folder"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(output.stdout.is_empty());
}

#[test]
fn a_right_configuration_is_only_checked() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bigupd.ini");
    std::fs::write(&file, format!("[bigupd]\ndata_dir = {}\n", folder.path().join("data").display())).unwrap();
    let output = bigupd(&["--config", file.to_str().unwrap(), "--check-config"]);
    assert!(output.status.success(), "{output:?}");
    assert!(!folder.path().join("data").exists());
}

#[test]
fn a_taken_port_is_a_failure() {
    let daemon = Daemon::start();
    let address = daemon.url().trim_start_matches("http://");
    let output = bigupd(&["--data-dir", daemon.data().to_str().unwrap(), "--listen", address]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains(address));
}

#[test]
fn a_slice_on_its_way_finishes_after_sigterm_and_new_connections_are_refused() {
    let mut daemon = Daemon::start();
    daemon.server().get("file_name=f&slice_num=2").expect(200);
    let mut stream = http::connect(daemon.url());
    let head = "POST /big_file_upload?file_name=f&slice_id=0&slice_size=1000&source=test HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(&[1; 500]).unwrap();
    eventually("the slice arrives", || daemon.spool_has_part("f"));
    signal(daemon.pid(), Signal::SIGTERM);
    eventually("no new connection is accepted", || {
        std::net::TcpStream::connect(daemon.url().trim_start_matches("http://")).is_err()
    });
    stream.write_all(&[1; 500]).unwrap();
    assert!(http::read_answer(&mut stream).starts_with("HTTP/1.1 200"));
    // A second signal would end it at once.
    daemon.ended_well();
    assert!(daemon.data().join("tmp/f/0").exists());
}

#[test]
fn a_request_that_waits_does_not_hold_up_the_stop() {
    let mut daemon = with_unfinished_upload(&["--merger", "/bin/true", "--stop-grace", "50s"]);
    daemon.server().post("file_name=f&slice_id=0&slice_size=1024", &[7; 1024]).expect(200);
    let server = daemon.server();
    let waiting = std::thread::spawn(move || server.get("file_name=f&slice_num=4&wait=40"));
    eventually("the request is there", || daemon.log().contains("wait=40"));
    let began = Instant::now();
    daemon.stop();
    assert_eq!(waiting.join().unwrap().expect(200).body["is_uploaded"], 0);
    assert!(began.elapsed() < Duration::from_secs(30), "it waited {:?}", began.elapsed());
}

#[test]
fn a_second_merger_says_so_and_leaves_with_its_own_code() {
    let daemon = with_unfinished_upload(&[]);
    let mut first = programs::merger(&daemon.data(), "f").arg("--idle=60s").stdin(Stdio::null()).spawn().unwrap();
    eventually("the first one is told", || daemon.info("f", "merger_pid") == Some(first.id().to_string()));
    let second = programs::merger(&daemon.data(), "f").output().unwrap();
    assert_eq!(second.status.code(), Some(3), "{second:?}");
    assert!(String::from_utf8_lossy(&second.stderr).contains(&first.id().to_string()), "{second:?}");
    signal(first.id(), Signal::SIGTERM);
    assert!(first.wait().unwrap().success(), "it stops well");
    assert_eq!(daemon.info("f", "merge_slice_process_exist").unwrap(), "0");
}

#[test]
fn a_merger_without_an_upload_says_so() {
    let daemon = Daemon::start();
    let output = programs::merger(&daemon.data(), "nothing").output().unwrap();
    assert_eq!(output.status.code(), Some(4), "{output:?}");
    let output = programs::merger(&daemon.data(), "../x").output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}

#[test]
fn a_merger_started_by_hand_needs_no_daemon() {
    let mut daemon = with_unfinished_upload(&["--merger", "/bin/true"]);
    daemon.server().post("file_name=f&slice_id=0&slice_size=1024", &[7; 1024]).expect(200);
    daemon.kill_9();
    let output = programs::merger(&daemon.data(), "f").output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(std::fs::read(daemon.finished("f")).unwrap(), [7; 4096]);
    assert_eq!(daemon.info_ini(), "");
}

#[test]
fn the_merger_goes_on_while_the_daemon_is_away() {
    let mut daemon = Daemon::start();
    let content = data::bytes(1, 200 << 20);
    daemon.server().get("file_name=f&slice_num=25&slice_size=8388608").expect(200);
    for (id, slice) in content.chunks(8 << 20).enumerate() {
        daemon.server().post(&format!("file_name=f&slice_id={id}&slice_size={}", slice.len()), slice).expect(200);
    }
    daemon.kill_9();
    eventually("the file is finished without a daemon", || daemon.finished("f").exists());
    assert!(std::fs::read(daemon.finished("f")).unwrap() == content);
}

#[test]
fn an_upload_is_dropped_by_removing_its_folder() {
    let daemon = with_unfinished_upload(&[]);
    std::fs::remove_dir_all(daemon.data().join("tmp/f")).unwrap();
    daemon.eventually_clean();
    daemon.server().get("peek=1&file_name=f").expect(404);
    assert_eq!(daemon.server().get("file_name=f&slice_num=2").expect(200).held(), [0; 0]);
}

#[test]
fn who_sends_faster_than_slices_are_merged_waits_for_answers_but_not_for_ever() {
    const SLICE: usize = 1 << 20;
    let daemon = Daemon::start();
    let (server, slice) = (daemon.server(), data::bytes(1, SLICE));
    server.get(&format!("file_name=f&slice_size={SLICE}&file_size={}&source=s", 200 * SLICE)).expect(200);
    let send = |id: u64| {
        let began = Instant::now();
        server.post(&format!("file_name=f&source=s&slice_id={id}&slice_size={SLICE}"), &slice).expect(200);
        began.elapsed()
    };
    // The slice at the frontier is missing: there is nothing to wait for.
    assert!(send(150) < Duration::from_millis(900));
    send(0);
    eventually("a merger is at work", || daemon.info("f", "merger_pid").is_some());
    let pid: u32 = daemon.info("f", "merger_pid").unwrap().parse().unwrap();
    signal(pid, Signal::SIGSTOP);
    let waited: Vec<Duration> = (1..75).map(send).collect();
    signal(pid, Signal::SIGCONT);
    let long = waited.iter().filter(|time| **time >= Duration::from_secs(1)).count();
    assert!((5..20).contains(&long), "{long} slices waited: {waited:?}");
    assert!(waited[..50].iter().sum::<Duration>() < Duration::from_secs(30), "{waited:?}");
}

/// Ctrl-C leaves a running request its time; Ctrl-C again, or SIGTERM, ends the daemon.
#[test]
fn a_second_signal_ends_the_daemon_at_once() {
    for (first, second) in [(Signal::SIGINT, Signal::SIGINT), (Signal::SIGTERM, Signal::SIGINT)] {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let mut command = Command::new(programs::path("bigupd"));
        command.arg("--data-dir").arg(&data).args(["--listen", "127.0.0.1:0", "--stop-grace", "300s"]);
        command.env("BIGUP_LOG", "debug");
        let mut child = command.stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let mut stream = http::connect(line.trim().strip_prefix("bigupd listening on ").unwrap());
        let query = "file_name=f&slice_id=0&slice_num=1&slice_size=10";
        stream.write_all(&http::post_head(query, &["Content-Length: 10"])).unwrap();
        stream.write_all(b"half").unwrap();
        let said = || std::fs::read_to_string(folder.path().join("log")).unwrap();
        eventually("it arrives", || said().contains("POST file_name=f"));
        signal(child.id(), first);
        eventually("it stops", || said().contains("have 300 s to finish"));
        assert!(child.try_wait().unwrap().is_none(), "a running request had no time");
        signal(child.id(), second);
        let mut ended = None;
        eventually("it has ended", || {
            ended = child.try_wait().unwrap();
            ended.is_some()
        });
        assert_eq!(ended.unwrap().signal(), Some(second as i32));
    }
}

/// The same of a merger, whatever it is at.
#[test]
fn a_second_signal_ends_a_merger_at_once() {
    let daemon = with_unfinished_upload(&["--merger", "/bin/true"]);
    daemon.server().post("file_name=f&slice_id=0&slice_size=1024", &[7; 1024]).expect(200);
    daemon.server().get("file_name=g&slice_num=2").expect(200);
    let mut merger = programs::merger(&daemon.data(), "g").arg("--idle=300s").stdin(Stdio::null()).spawn().unwrap();
    eventually("it is at work", || daemon.info("g", "merger_pid").is_some());
    // It handles nothing before it has both.
    signal(merger.id(), Signal::SIGSTOP);
    signal(merger.id(), Signal::SIGTERM);
    signal(merger.id(), Signal::SIGINT);
    signal(merger.id(), Signal::SIGCONT);
    assert!(merger.wait().unwrap().signal().is_some(), "it ended as if one signal had come");
}

#[test]
fn metrics_on_a_public_address_are_warned_of() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let check = |address: &str| {
        let output = bigupd(&["--data-dir", data.to_str().unwrap(), "--metrics-listen", address, "--check-config"]);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let said = check("0.0.0.0:9888");
    assert!(said.contains("metrics_listen is 0.0.0.0:9888") && said.contains("127.0.0.1:9888"), "{said}");
    assert_eq!(check("127.0.0.1:9888"), "");
}
