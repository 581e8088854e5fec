//! What people and programs get to see steers no terminal and fakes no line, whatever a server, a disk or a command line
//! says; and JSON stays JSON, with the same meaning.

use bigup_core::protocol::name::steers;
use bigup_tests::daemon::Daemon;
use bigup_tests::http::encoded;
use bigup_tests::process::eventually;
use bigup_tests::{data, programs};
use serde_json::{Value, json};
use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::ffi::OsStrExt;
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

/// Moves the cursor (in 7 and 8 bits), rings, sets a title, turns the direction of text, cannot be seen, ends the line.
const HOSTILE: &str =
    "\u{1b}[2J\u{9b}2J\u{7}\u{1b}]0;t\u{7}\u{202e}\u{61c}\u{2066}\u{200b}\u{ad}\u{e0041}\u{2028}\r\n[x]";

/// Answers every request with the same bytes; ends with the test's process. Gives its URL.
fn server_that_says(answer: Vec<u8>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // A client that goes away is none of our concern.
            let _ = answer_once(&stream, &answer);
        }
    });
    url
}

fn answer_once(mut stream: &TcpStream, answer: &[u8]) -> std::io::Result<()> {
    let (mut reader, mut line, mut len) = (BufReader::new(stream), String::new(), 0);
    while reader.read_line(&mut line)? > 2 {
        len = line.to_lowercase().strip_prefix("content-length:").map_or(len, |value| value.trim().parse().unwrap());
        line.clear();
    }
    std::io::copy(&mut reader.take(len), &mut std::io::sink())?;
    stream.write_all(answer)
}

fn answer(status: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

fn cli(url: &str, args: &[&str]) -> Output {
    programs::cli().args(args).args(["--url", url]).env("BIGUP_LOG", "debug").output().unwrap()
}

/// Makes sure that what a program printed is harmless; gives its standard output.
fn harmless(case: &str, output: &Output) -> String {
    let text = |bytes: &[u8]| {
        let text = String::from_utf8(bytes.to_vec()).unwrap_or_else(|e| panic!("{case}: {e}"));
        assert!(!text.chars().any(|c| c != '\n' && steers(c)), "{case}: {text:?}");
        text
    };
    text(&output.stderr);
    text(&output.stdout)
}

fn json_lines(case: &str, text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{case}: {e}: {line}"))).collect()
}

#[test]
fn no_answer_of_a_server_steers_a_terminal() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    std::fs::write(&path, "content").unwrap();
    let path = path.to_str().unwrap();
    let upload = json!({"file_name": HOSTILE, "status": 200, "is_uploaded": 0, "slice_ids_uploaded": [0],
        "slice_num": 3, "slice_size": 10, "file_size": 25, "curr_merge_slice_id": 0, "last_error": HOSTILE});
    let finished = json!({"file_name": HOSTILE, "status": 200, "is_uploaded": 1, "file_digest": HOSTILE});
    let list = json!({"status": 200, "uploads": [{"file_name": HOSTILE, "slice_num": 1, "slice_size": 2,
        "file_size": 3, "slices_held": u64::MAX, "curr_merge_slice_id": u64::MAX, "merge_slice_process_exist": 255,
        "idle_seconds": u64::MAX, "last_error": HOSTILE}]});
    let refused = |error: &str| json!({"status": 409, "message": HOSTILE, "error": error}).to_string();
    let title = format!("409 {}\r\nX-Title: {}", "\u{9b}2J", "\u{202e}\u{9b}");
    let answers = [
        ("refused", answer("409 Conflict", refused("exists").as_bytes())),
        ("refused by nobody we know", answer("409 Conflict", refused(HOSTILE).as_bytes())),
        ("no upload", answer("404 Not Found", refused("no_upload").as_bytes())),
        ("a page", answer("403 Forbidden", format!("<html>{HOSTILE}</html>").as_bytes())),
        ("no text", answer("403 Forbidden", b"\xff\x1b[2J\x9b")),
        ("an upload", answer("200 OK", upload.to_string().as_bytes())),
        ("a finished file", answer("200 OK", finished.to_string().as_bytes())),
        ("a list", answer("200 OK", list.to_string().as_bytes())),
        ("JSON of nothing", answer("200 OK", json!({HOSTILE: HOSTILE}).to_string().as_bytes())),
        ("head", answer(&title, HOSTILE.as_bytes())),
        ("not HTTP", HOSTILE.as_bytes().to_vec()),
        ("a bad header", format!("HTTP/1.1 200 OK\r\n{HOSTILE}\r\n\r\n").into_bytes()),
    ];
    for (says, bytes) in answers {
        let url = server_that_says(bytes);
        let push = ["push", path, "--retries", "0"];
        for args in [&push[..], &["status"], &["status", "x"], &["verify", path]] {
            let case = format!("{says}: {args:?}");
            harmless(&case, &cli(&url, args));
            let stdout = harmless(&case, &cli(&url, &[args, &["--json"]].concat()));
            json_lines(&case, &stdout);
        }
        harmless(says, &cli(&url, &[&push[..], &["--quiet"]].concat()));
    }
}

#[test]
fn status_in_json_says_what_the_server_says() {
    let list = json!({"status": 200, "uploads": [], "more": HOSTILE});
    let url = server_that_says(answer("200 OK", list.to_string().as_bytes()));
    let output = cli(&url, &["status", "--json"]);
    assert_eq!(json_lines("status", &harmless("status", &output)), [list]);
}

#[test]
fn names_on_disk_steer_no_terminal() {
    let daemon = Daemon::start();
    let folder = daemon.scratch().join("folder");
    std::fs::create_dir(&folder).unwrap();
    let bidi = "right\u{202e}left\u{61c}\u{200b}";
    let long = "文".repeat(85);
    let good = [bidi, &long, "plain"];
    good.iter().for_each(|name| std::fs::write(folder.join(name), name).unwrap());
    let bad = [b"\x1b[2J\x07".as_slice(), b"new\nline", b"\xff\x1b[2J", b"\xc2\x9b2J"];
    bad.iter().for_each(|name| std::fs::write(folder.join(OsStr::from_bytes(name)), "x").unwrap());
    std::os::unix::fs::symlink("plain", folder.join(HOSTILE.replace('/', ""))).unwrap();

    let folder = folder.to_str().unwrap();
    let output = cli(daemon.url(), &["push", folder]);
    let stdout = harmless("people", &output);
    assert_eq!(output.status.code(), Some(1));
    assert!(stdout.contains("folder/right\\u{202e}left"), "{stdout}");
    assert!(stdout.contains("3 files") && stdout.contains("4 failed"), "{stdout}");

    let output = cli(daemon.url(), &["push", folder, "--json"]);
    let events = json_lines("programs", &harmless("programs", &output));
    let of = |kind: &str| events.iter().filter(|event| event["event"] == kind).collect::<Vec<_>>();
    assert_eq!((of("done").len(), of("error").len()), (good.len(), bad.len()), "{events:?}");
    for name in good {
        let name = format!("folder/{name}");
        assert!(of("done").iter().any(|event| event["file_name"] == name), "{name:?} in {events:?}");
        assert!(daemon.finished(&name).is_file());
    }

    for (args, code) in [
        (["verify", &format!("{folder}/{bidi}"), "--name", &format!("folder/{bidi}")], 0),
        (["verify", &format!("{folder}/{bidi}"), "--name", bidi], 1),
        (["push", &format!("/nowhere/{HOSTILE}"), "--name", "x"], 1),
        (["push", &format!("{folder}/plain"), "--name", HOSTILE], 1),
        (["push", &format!("{folder}/plain"), "--url", HOSTILE], 2),
    ] {
        let output = programs::cli().args(args).env("BIGUP_URL", daemon.url()).output().unwrap();
        harmless(&format!("{args:?}"), &output);
        assert!(code == 2 || output.status.code() == Some(code), "{args:?}: {output:?}");
    }
}

#[test]
fn a_wrong_command_line_is_quoted_in_printable_form() {
    let option = format!("--{}", HOSTILE.replace(['\r', '\n'], ""));
    for args in [vec!["push", "x", &option], vec![&option], vec!["push", "x", "--slice-size", HOSTILE]] {
        let output = programs::cli().args(&args).output().unwrap();
        harmless(&format!("{args:?}"), &output);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {output:?}");
        assert!(String::from_utf8(output.stderr).unwrap().contains("\\u{202e}"), "{args:?}");
    }
    let help = programs::cli().arg("--help").output().unwrap();
    assert!(help.status.success() && String::from_utf8(help.stdout).unwrap().contains("Usage"));
}

#[test]
fn nothing_makes_the_daemon_log_steer_a_terminal() {
    let scratch = tempfile::tempdir().unwrap();
    let data = scratch.path().join(format!("data{}", HOSTILE.replace('/', "")));
    let daemon = Daemon::with_data(&data, &["--merger-idle", "300ms"]);
    let server = daemon.server();
    // A spool that cannot be read, of a name that no upload has.
    let spool = data.join("tmp").join(HOSTILE.replace('/', ""));
    std::fs::create_dir(&spool).unwrap();
    std::fs::write(spool.join("upload.json"), HOSTILE).unwrap();
    std::fs::write(spool.join(format!("{HOSTILE}.part")), "x").unwrap();
    // One that can, and says such things.
    let begin = |name: &str| server.get(&format!("file_name={}&slice_num=2&slice_size=4", encoded(name)));
    begin("right\u{202e}left").expect(200);
    begin("a").expect(200);
    let path = data.join("tmp/a/upload.json");
    let mut upload: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    upload["last_error"] = HOSTILE.into();
    std::fs::write(&path, upload.to_string()).unwrap();
    for query in ["peek=1", "file_name=a&peek=1", "file_name=%1B%9B&slice_num=1", "%1B=%E2%80%AE&%1B=1"] {
        server.get(query);
    }
    let digest = ("Content-Digest", "sha-256=\u{9b}");
    server.post_with("file_name=a&slice_id=0&slice_size=4", digest, b"0123");
    let form = ("Content-Type", "multipart/form-data; boundary=\u{9b}\u{202e}");
    server.post_with("file_name=a&slice_id=0&slice_size=4", form, HOSTILE.as_bytes());
    // Damaged while the daemon looks: the merger says so, too.
    std::fs::write(data.join("tmp/a/upload.json"), HOSTILE).unwrap();
    eventually("the daemon was asked", || daemon.log().contains("peek"));
    begin("a").expect(200);
    for _ in [0, 1] {
        let merged = data.join("tmp/a/merged");
        if merged.is_file() {
            std::fs::remove_file(&merged).unwrap();
        }
        std::fs::create_dir(&merged).unwrap_or_default();
        server.post("file_name=a&slice_id=0&slice_size=4", b"0123");
    }
    eventually("it failed at something", || daemon.log().contains("a/merged"));
    let log = daemon.log();
    assert!(!log.chars().any(|c| c != '\n' && steers(c)), "{log:?}");
    assert!(log.lines().all(|line| line.starts_with('[')), "a line each: {log}");
}

#[test]
fn the_bar_says_why_nothing_moves_and_goes_with_ctrl_c() {
    let mut daemon = Daemon::start();
    let file = data::file(&daemon.scratch(), "big.iso", 1, 40 << 20);
    // script(1) gives it a terminal, of which this is the size.
    let push = format!(
        "stty cols 80 rows 24; exec {} push --url {} --limit-rate 4M --slice-size 1M {}",
        programs::path("bigup-cli").display(),
        daemon.url(),
        file.display()
    );
    let mut script = Command::new("script");
    script.args(["-qefc", &push, "/dev/null"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut script = script.spawn().unwrap();
    let (mut out, shown) = (script.stdout.take().unwrap(), Arc::new(Mutex::new(Vec::new())));
    let seen = Arc::clone(&shown);
    let reader = thread::spawn(move || {
        let mut bytes = [0; 4096];
        while let Ok(len @ 1..) = out.read(&mut bytes) {
            seen.lock().unwrap().extend_from_slice(&bytes[..len]);
        }
    });
    let shown = || String::from_utf8_lossy(&shown.lock().unwrap()).into_owned();
    eventually("rate and time left are shown", || shown().contains("MiB/s, ") && shown().contains(" left"));
    daemon.kill_9();
    eventually("the reason is shown", || shown().contains("% ") && shown().contains(", trying 9m"));
    script.stdin.as_mut().unwrap().write_all(b"\x03").unwrap();
    // A shell's number for SIGINT.
    assert_eq!(script.wait().unwrap().code(), Some(130), "{}", shown());
    reader.join().unwrap();
    let shown = shown();
    let (drawn, end) = shown.rsplit_once("\u{1b}[2K").unwrap();
    assert!(end.starts_with("interrupted: "), "{end:?}");
    for line in drawn.split(['\r', '\n']) {
        let line = line.replace("\u{1b}[2K", "").replace("^C", "");
        assert!(line.chars().count() <= 77, "{line:?}");
    }
}

#[test]
fn a_wrong_configuration_is_told_in_printable_form() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bigupd.ini");
    std::fs::write(&path, "data_dir = /d\n\u{1b}[2J = 1\nlisten = \u{9b}2J\u{202e}\n").unwrap();
    let output = Command::new(programs::path("bigupd")).arg("--config").arg(&path).output().unwrap();
    harmless("configuration", &output);
    assert_eq!(output.status.code(), Some(2));
}
