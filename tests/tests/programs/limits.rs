//! Every limit, by exceeding it: the answer says so with both numbers and arrives, and what is within goes on.

use bigup_tests::daemon::{Daemon, list};
use bigup_tests::http::{Answer, connect, post_head, read_answer};
use bigup_tests::process::{PATIENCE, eventually};
use bigup_tests::turns::all_turns;
use bigup_tests::{data, programs, usage};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// More than the buffers of a loopback connection hold.
const BIG: usize = 20 << 20;

/// A connection with a request answered on it, kept open.
fn open(daemon: &Daemon) -> TcpStream {
    let mut stream = connect(daemon.url());
    stream.write_all(b"GET /big_file_upload?peek=1 HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    assert!(read_answer(&mut stream).starts_with("HTTP/1.1 200"));
    stream
}

/// Sends all of a POST with a big body, and only then reads, up to the end of the connection.
fn send_all_then_read(daemon: &Daemon) -> String {
    let mut stream = connect(daemon.url());
    let length = format!("Content-Length: {BIG}");
    stream.write_all(&post_head("file_name=a&slice_id=0&slice_size=20971520", &[&length])).unwrap();
    stream.write_all(&vec![b'x'; BIG]).unwrap();
    read_to_end(stream)
}

fn read_to_end(mut stream: TcpStream) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("the connection ends, and is not reset");
    text
}

/// Makes sure that an answer refuses, with what it must say, and tells when to come back where that helps.
fn assert_refused(text: &str, status: u16, error: &str, says: &[&str]) {
    let answer = Answer::parse(text);
    assert_eq!((answer.status, &answer.body["error"]), (status, &error.into()), "{text}");
    let says_when = text.to_ascii_lowercase().contains("\r\nretry-after: ");
    assert_eq!(says_when, matches!(status, 429 | 503), "{text}");
    for part in says {
        assert!(answer.message().contains(part), "{part:?} is not in {text}");
    }
}

fn push(daemon: &Daemon, path: &std::path::Path, options: &[&str]) -> Output {
    let mut command = programs::cli();
    command.args(["push", "--url", daemon.url()]).args(options).arg(path);
    command.output().expect("bigup-cli can be started")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn one_connection_too_many_is_answered_503_even_if_it_sends_all_before_it_reads() {
    let daemon = Daemon::with(&["--max-connections", "3"]);
    let mut taken: Vec<TcpStream> = (0..3).map(|_| open(&daemon)).collect();
    let text = send_all_then_read(&daemon);
    assert_refused(&text, 503, "overloaded", &["3 connections"]);
    assert!(text.contains("connection: close"), "{text}");
    // Whoever has a connection is served on it.
    taken[0].write_all(b"GET /big_file_upload?peek=1 HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    assert!(read_answer(&mut taken[0]).starts_with("HTTP/1.1 200"));
    taken.pop();
    eventually("a connection that ended makes room", || daemon.server().get("peek=1").status == 200);
}

#[test]
fn one_connection_too_many_of_an_address_is_answered_429() {
    let daemon = Daemon::with(&["--max-connections-per-address", "2"]);
    let taken: Vec<TcpStream> = (0..2).map(|_| open(&daemon)).collect();
    let text = send_all_then_read(&daemon);
    assert_refused(&text, 429, "too_many", &["2 connections"]);
    drop(taken);
    eventually("connections that ended make room", || daemon.server().get("peek=1").status == 200);
}

#[test]
fn refusals_are_bounded_too() {
    let daemon = Daemon::with(&["--max-connections", "1"]);
    let mut taken = open(&daemon);
    let _silent: Vec<TcpStream> = (0..256).map(|_| connect(daemon.url())).collect();
    let mut beyond = connect(daemon.url());
    let _ = beyond.write_all(b"GET /big_file_upload?peek=1 HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let mut answer = vec![];
    let _ = beyond.read_to_end(&mut answer);
    assert_eq!(String::from_utf8_lossy(&answer), "");
    taken.write_all(b"GET /big_file_upload?peek=1 HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    assert!(read_answer(&mut taken).starts_with("HTTP/1.1 200"));
    eventually("whoever is refused reads why again", || {
        let mut stream = connect(daemon.url());
        let _ = stream.write_all(b"GET /big_file_upload?peek=1 HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let mut text = String::new();
        let _ = stream.read_to_string(&mut text);
        text.starts_with("HTTP/1.1 503")
    });
}

#[test]
fn a_push_waits_for_a_connection_and_says_why() {
    let daemon = Daemon::with(&["--max-connections", "1"]);
    let taken = open(&daemon);
    let file = data::file(&daemon.scratch(), "f", 1, 1 << 20);
    let mut command = programs::cli();
    command.args(["push", "--json", "--url", daemon.url()]).arg(&file).stdout(Stdio::piped());
    let mut pushing = command.spawn().unwrap();
    let mut lines = BufReader::new(pushing.stdout.take().unwrap()).lines().map(Result::unwrap);
    let retry = lines.find(|line| line.contains("\"retry\"")).expect("it tries again");
    assert!(retry.contains("1 connections are open"), "{retry}");
    drop(taken);
    let rest: Vec<String> = lines.collect();
    assert!(pushing.wait().unwrap().success(), "{rest:?}");
    assert!(data::same(&file, &daemon.finished("f")));
}

#[test]
fn connections_fit_the_file_descriptors_that_are_allowed() {
    let folder = tempfile::tempdir().unwrap();
    let launcher = ["sh", "-c", "ulimit -Sn 32; ulimit -Hn 64; exec \"$0\" \"$@\""].map(str::to_owned).to_vec();
    let mut daemon = Daemon::launched(launcher, &folder.path().join("data"), &[]);
    let url = daemon.url().to_owned();
    let ask = || {
        let mut stream = connect(&url);
        stream.write_all(b"GET /big_file_upload?peek=1 HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        let text = read_answer(&mut stream);
        (stream, text)
    };
    let mut taken = vec![];
    for _ in 0..10 {
        let (stream, text) = ask();
        assert!(text.starts_with("HTTP/1.1 200"), "{text}");
        taken.push(stream);
    }
    assert_refused(&ask().1, 503, "overloaded", &["10 connections"]);
    // More than there are descriptors for: they wait, or are refused, and nothing breaks.
    let beyond: Vec<TcpStream> = (0..60).map(|_| connect(&url)).collect();
    drop((beyond, taken));
    eventually("it serves again", || {
        // As long as those that are gone are still being looked at, it may be cut off.
        let (mut stream, mut text) = (connect(&url), String::new());
        let head = b"GET /big_file_upload?peek=1 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        let is_read = stream.write_all(head).and_then(|()| stream.read_to_string(&mut text)).is_ok();
        is_read && text.starts_with("HTTP/1.1 200")
    });
    daemon.stop();
    let log = daemon.log();
    let warning = "max_connections is 16384, but 64 open files are allowed (LimitNOFILE, ulimit -Hn): 10 it is";
    assert!(log.contains(warning), "{log}");
}

#[test]
fn a_daemon_out_of_file_descriptors_goes_on_when_there_are_some_again() {
    let daemon = Daemon::start();
    let allow = |files: &str| {
        let (pid, files) = (daemon.pid().to_string(), format!("--nofile={files}"));
        assert!(Command::new("prlimit").args(["--pid", &pid, &files]).status().unwrap().success());
    };
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", daemon.pid())).unwrap();
    let hard =
        limits.lines().find(|line| line.starts_with("Max open files")).unwrap().split_whitespace().nth(4).unwrap();
    let open_now = std::fs::read_dir(format!("/proc/{}/fd", daemon.pid())).unwrap().count();
    allow(&format!("{}:{hard}", open_now + 3));
    let connections: Vec<TcpStream> = (0..20).map(|_| connect(daemon.url())).collect();
    eventually("it runs out", || daemon.log().contains("accepting a connection"));
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(daemon.log().matches("accepting a connection").count(), 1, "said once, not at every attempt");
    allow(&format!("{hard}:{hard}"));
    let file = data::file(&daemon.scratch(), "f", 1, 1 << 20);
    let pushed = push(&daemon, &file, &[]);
    assert!(pushed.status.success(), "{}", stderr(&pushed));
    drop(connections);
}

/// All that there is room for have a slice arriving, and others come and go: nothing runs out.
#[test]
fn connections_that_fit_may_all_send_slices_at_once() {
    const CONNECTIONS: usize = 42;
    let folder = tempfile::tempdir().unwrap();
    let launcher = ["sh", "-c", "ulimit -n 256; exec \"$0\" \"$@\""].map(str::to_owned).to_vec();
    let daemon = Daemon::launched(launcher, &folder.path().join("data"), &[]);
    daemon.server().get("file_name=a&slice_num=1000&slice_size=1000").expect(200);
    let begin = |id: usize| {
        let mut stream = connect(daemon.url());
        let query = format!("file_name=a&slice_id={id}&slice_size=1000");
        stream.write_all(&[post_head(&query, &["Content-Length: 1000"]), vec![b'x'; 500]].concat()).unwrap();
        stream
    };
    let mut arriving: Vec<TcpStream> = (0..CONNECTIONS - 1).map(begin).collect();
    let parts = || list(&daemon.data().join("tmp/a")).iter().filter(|name| name.ends_with(".part")).count();
    eventually("all arrive", || parts() == CONNECTIONS - 1);
    // The last seat is for whoever comes and goes.
    for i in 0..50 {
        let query = format!("file_name=small{i}&slice_id=0&slice_num=1&slice_size=3");
        let small = [post_head(&query, &["Content-Length: 3", "Connection: close"]), b"abc".to_vec()].concat();
        eventually("there is a seat", || {
            let mut stream = connect(daemon.url());
            stream.write_all(&small).unwrap();
            read_to_end(stream).starts_with("HTTP/1.1 200")
        });
    }
    arriving.iter_mut().for_each(|stream| stream.write_all(&[b'x'; 500]).unwrap());
    arriving.iter_mut().for_each(|stream| assert!(read_answer(stream).starts_with("HTTP/1.1 200")));
    assert!(!daemon.log().contains("Too many open files"), "{}", daemon.log());
}

#[test]
fn a_request_that_finds_no_descriptor_is_told_to_come_back() {
    let daemon = Daemon::start();
    let server = daemon.server();
    server.get("file_name=a&slice_num=2&slice_size=3").expect(200);
    let mut asking = open(&daemon);
    let allow = |files: &str| {
        let (pid, files) = (daemon.pid().to_string(), format!("--nofile={files}"));
        assert!(Command::new("prlimit").args(["--pid", &pid, &files]).status().unwrap().success());
    };
    // No further descriptor is as low as that: those that are open stay so.
    allow("3:");
    let requests = [
        b"GET /big_file_upload?file_name=a&slice_num=2&slice_size=3&source=test HTTP/1.1\r\nHost: localhost\r\n\r\n"
            .to_vec(),
        b"GET /big_file_upload?file_name=b&slice_num=2&slice_size=3&source=test HTTP/1.1\r\nHost: localhost\r\n\r\n"
            .to_vec(),
        b"GET /big_file_upload?file_name=a&peek=1 HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(),
        [post_head("file_name=a&slice_id=0&slice_size=3", &["Content-Length: 3"]), b"abc".to_vec()].concat(),
        [post_head("file_name=c&slice_id=0&slice_num=1&slice_size=3", &["Content-Length: 3"]), b"abc".to_vec()]
            .concat(),
    ];
    for request in &requests {
        asking.write_all(request).unwrap();
        assert_refused(&read_answer(&mut asking), 503, "overloaded", &["open files"]);
    }
    allow("1024:");
    for request in &requests {
        asking.write_all(request).unwrap();
        let answer = read_answer(&mut asking);
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
}

/// Who was cut off and does not go away keeps nobody else out.
#[test]
fn who_lingers_has_no_place_among_connections() {
    let daemon = Daemon::with(&["--max-connections", "1", "--body-timeout", "300ms"]);
    daemon.server().get("file_name=a&slice_num=1&file_size=100&source=test").expect(200);
    let mut silent = vec![];
    eventually("others are cut off, too, while the first one still lingers", || {
        let mut stream = connect(daemon.url());
        let head = post_head("file_name=a&slice_id=0&slice_size=100", &["Content-Length: 100"]);
        stream.write_all(&head).unwrap();
        let text = read_answer(&mut stream);
        // 408: it had the only place, and was cut off.
        assert!(text.starts_with("HTTP/1.1 408") || text.starts_with("HTTP/1.1 503"), "{text}");
        silent.extend(text.starts_with("HTTP/1.1 408").then_some(stream));
        silent.len() > 2
    });
    eventually("there is a place", || daemon.server().get("peek=1").status == 200);
}

/// Bytes of slices that arrive for an upload, as far as they are in its files.
fn arrived(daemon: &Daemon, name: &str) -> u64 {
    let entries = std::fs::read_dir(daemon.data().join("tmp").join(name)).into_iter().flatten().flatten();
    let parts = entries.filter(|entry| entry.file_name().to_string_lossy().ends_with(".part"));
    parts.filter_map(|entry| entry.metadata().ok()).map(|found| found.len()).sum()
}

#[test]
fn bodies_that_stall_take_little_memory_and_none_once_they_are_gone() {
    const BODIES: usize = 200;
    const MIB: usize = 1 << 20;
    allow_many_files();
    let daemon = Daemon::start();
    daemon.server().get("file_name=a&slice_size=8388608").expect(200);
    let memory = || usage::memory(daemon.pid()).unwrap();
    let before = memory();
    let body = data::bytes(1, MIB - 1);
    let stalled: Vec<TcpStream> = (0..BODIES)
        .map(|id| {
            let mut stream = connect(daemon.url());
            let query = format!("file_name=a&slice_id={id}&slice_size=8388608");
            stream.write_all(&post_head(&query, &["Content-Length: 8388608"])).unwrap();
            stream.write_all(&body).unwrap();
            stream
        })
        .collect();
    eventually("all that came is written", || arrived(&daemon, "a") == (BODIES * body.len()) as u64);
    eventually("they take little", || memory() < before + 64 * MIB as u64);
    drop(stalled);
    eventually("it is given back", || memory() < before + 32 * MIB as u64);
}

/// Each byte by itself would keep the buffer that it was read into.
#[test]
fn a_body_that_comes_byte_by_byte_takes_little_memory() {
    const LEN: usize = 40_000;
    let daemon = Daemon::start();
    let mut stream = connect(daemon.url());
    stream.set_nodelay(true).unwrap();
    let query = format!("file_name=a&slice_id=0&slice_num=1&slice_size={LEN}");
    stream.write_all(&post_head(&query, &[&format!("Content-Length: {LEN}")])).unwrap();
    let before = usage::memory(daemon.pid()).unwrap();
    for _ in 0..LEN {
        stream.write_all(b"x").unwrap();
    }
    assert!(read_answer(&mut stream).starts_with("HTTP/1.1 200"));
    let peak = usage::peak_memory(daemon.pid()).unwrap();
    assert!(peak < before + (32 << 20), "{before} bytes before, {peak} at most");
}

#[test]
fn a_head_has_its_time_and_an_idle_connection_another() {
    let daemon = Daemon::with(&["--header-timeout", "500ms", "--idle-timeout", "3s"]);
    let mut first = connect(daemon.url());
    first.write_all(b"GET /big_file").unwrap();
    assert_refused(&read_to_end(first), 408, "timeout", &["head", "0.5 s"]);
    assert_eq!(read_to_end(connect(daemon.url())), "", "a connection on which nothing comes is closed without a word");
    // The same after a request was answered.
    let mut later = open(&daemon);
    std::thread::sleep(Duration::from_secs(1));
    later.write_all(b"POST /big_file_upload HTTP/1.1\r\nHost").unwrap();
    assert_refused(&read_to_end(later), 408, "timeout", &["head", "0.5 s"]);
    let idle = open(&daemon);
    let began = Instant::now();
    assert_eq!(read_to_end(idle), "");
    assert!(began.elapsed() > Duration::from_secs(2), "it was closed as if a head were due");
}

#[test]
fn a_body_that_trickles_is_given_up_with_both_numbers() {
    let daemon = Daemon::with(&["--body-timeout", "1s", "--min-body-rate", "1000"]);
    daemon.server().get("file_name=a&slice_num=1&file_size=100000&source=test").expect(200);
    let mut stream = connect(daemon.url());
    stream.write_all(&post_head("file_name=a&slice_id=0&slice_size=100000", &["Content-Length: 100000"])).unwrap();
    let mut trickle = stream.try_clone().unwrap();
    std::thread::spawn(move || {
        while trickle.write_all(b"x").is_ok() {
            std::thread::sleep(Duration::from_millis(50));
        }
    });
    let text = read_to_end(stream);
    assert_refused(&text, 408, "timeout", &["bytes of the body came in 1 s", "at least 1000 must"]);
    assert!(text.contains("connection: close"), "{text}");
    eventually("nothing is left of the slice", || !daemon.spool_has_part("a"));
}

#[test]
fn a_body_may_be_slow_where_no_rate_is_asked_for() {
    let daemon = Daemon::with(&["--body-timeout", "1s", "--min-body-rate", "0"]);
    let mut stream = connect(daemon.url());
    let query = "file_name=a&slice_id=0&slice_num=1&slice_size=30";
    stream.write_all(&post_head(query, &["Content-Length: 30"])).unwrap();
    for _ in 0..30 {
        stream.write_all(b"x").unwrap();
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(read_answer(&mut stream).starts_with("HTTP/1.1 200"));
}

/// A finished file of one byte, of which answers with a million ids can be had.
fn with_a_finished_file(arguments: &[&str]) -> Daemon {
    let daemon = Daemon::with(arguments);
    daemon.server().post("file_name=a&slice_id=0&slice_num=1&slice_size=1", b"x").expect(200);
    daemon
}

#[test]
fn an_answer_that_nobody_reads_does_not_hold_its_connection() {
    let daemon = with_a_finished_file(&["--body-timeout", "1s"]);
    let mut stream = connect(daemon.url());
    stream
        .write_all(
            b"GET /big_file_upload?file_name=a&slice_num=1000000&source=test HTTP/1.1\r\nHost: localhost\r\n\r\n",
        )
        .unwrap();
    let mut start = [0; 15];
    stream.read_exact(&mut start).unwrap();
    assert_eq!(&start, b"HTTP/1.1 200 OK");
    let sockets = || std::fs::read_dir(format!("/proc/{}/fd", daemon.pid())).unwrap().count();
    let before = sockets();
    eventually("the daemon lets the connection go", || sockets() < before);
    let mut rest = vec![];
    let _ = stream.read_to_end(&mut rest);
    assert!(rest.len() < 6_000_000, "all of it came: {} bytes", rest.len());
}

#[test]
fn large_answers_are_refused_and_say_what_to_ask_for() {
    let daemon = with_a_finished_file(&["--max-response-size", "1M"]);
    let refused = daemon.server().get("file_name=a&slice_num=1000000").expect(413);
    assert_eq!(refused.body["error"], "too_large");
    assert!(refused.message().contains("1048576") && refused.message().contains("ranges=1"), "{}", refused.message());
    daemon.server().get("file_name=a&slice_num=1000000&ranges=1").expect(200);
    daemon.server().get("file_name=a&slice_num=100000").expect(200);
}

#[test]
fn a_file_too_large_is_refused_as_it_begins_and_as_it_grows() {
    let daemon = Daemon::with(&["--max-file-size", "2M"]);
    let server = daemon.server();
    let too_large = |answer: Answer, numbers: [&str; 2]| {
        let answer = answer.expect(413);
        assert_eq!(answer.body["error"], "too_large");
        assert!(numbers.iter().all(|number| answer.message().contains(number)), "{}", answer.message());
    };
    too_large(server.get("file_name=a&slice_num=1&file_size=2097153"), ["2097153", "2097152"]);
    too_large(server.get("file_name=a&slice_size=1048576&file_size=3000000"), ["3000000", "2097152"]);
    let slice = vec![b'x'; 1 << 20];
    let long = "file_name=a&slice_id=0&slice_num=3&slice_size=1048576&file_size=3145728";
    too_large(server.post(long, &slice), ["3145728", "2097152"]);
    assert_eq!(daemon.spools(), [""; 0]);
    server.get("file_name=a&slice_size=1048576").expect(200);
    for id in 0..2 {
        server.post(&format!("file_name=a&slice_id={id}&slice_size=1048576"), &slice).expect(200);
    }
    too_large(server.post("file_name=a&slice_id=2&slice_size=1048576", &slice), ["3145728", "2097152"]);
    server.get("file_name=a&slice_size=1048576&file_size=2097152").expect(200);
    eventually("what is within the limit is finished", || daemon.finished("a").exists());
}

#[test]
fn a_file_of_too_many_slices_is_refused_as_it_begins_and_as_it_grows() {
    let daemon = Daemon::with(&["--max-slices", "2"]);
    let server = daemon.server();
    for query in ["file_name=a&slice_num=3", "file_name=a&slice_size=10&file_size=21"] {
        let refused = server.get(query).expect(413);
        assert!(refused.message().contains("3 slices are too many: at most 2"), "{}", refused.message());
    }
    server.get("file_name=a&slice_size=1").expect(200);
    server.post("file_name=a&slice_id=1&slice_size=1", b"x").expect(200);
    let refused = server.post("file_name=a&slice_id=2&slice_size=1", b"x").expect(413);
    assert!(refused.message().contains("3 slices are too many: at most 2"), "{}", refused.message());
}

#[test]
fn a_push_over_a_limit_ends_and_says_which() {
    let daemon = Daemon::with(&["--max-file-size", "4M", "--max-slice-size", "1M"]);
    let file = data::file(&daemon.scratch(), "f", 1, (4 << 20) + 1);
    let pushed = push(&daemon, &file, &["--slice-size", "1M"]);
    assert_eq!(pushed.status.code(), Some(1));
    assert!(stderr(&pushed).contains("a file of 4194305 bytes is too large: at most 4194304"), "{}", stderr(&pushed));
    let small = data::file(&daemon.scratch(), "g", 1, 4 << 20);
    let pushed = push(&daemon, &small, &["--slice-size", "2M"]);
    assert_eq!(pushed.status.code(), Some(1));
    assert!(stderr(&pushed).contains("a slice of 2097152 bytes is too large: at most 1048576"), "{}", stderr(&pushed));
    // Of standard input the length is not known before.
    let mut command = programs::cli();
    command.args(["push", "--url", daemon.url(), "--slice-size", "256K", "--name", "s", "-"]).stderr(Stdio::piped());
    let mut pushing = command.stdin(Stdio::piped()).spawn().unwrap();
    let _ = pushing.stdin.take().unwrap().write_all(&vec![b'x'; 8 << 20]);
    let pushed = pushing.wait_with_output().unwrap();
    assert_eq!(pushed.status.code(), Some(1));
    assert!(stderr(&pushed).contains("too large: at most 4194304"), "{}", stderr(&pushed));
    let within = push(&daemon, &small, &["--slice-size", "256K"]);
    assert!(within.status.success(), "{}", stderr(&within));
}

#[test]
fn one_upload_too_many_waits_until_another_is_finished() {
    let daemon = Daemon::with(&["--max-uploads", "2"]);
    let server = daemon.server();
    server.get("file_name=a&slice_num=2&slice_size=1").expect(200);
    server.get("file_name=b&slice_num=2&slice_size=1").expect(200);
    for refused in [
        server.get("file_name=c&slice_num=2&slice_size=1"),
        server.post("file_name=c&slice_id=0&slice_num=1&slice_size=1", b"x"),
    ] {
        assert_eq!((refused.status, &refused.body["error"]), (503, &"overloaded".into()));
        assert!(refused.message().contains("2 uploads are unfinished"), "{}", refused.message());
    }
    // Those that are there go on.
    server.get("file_name=a&slice_num=2&slice_size=1").expect(200);
    let file = data::file(&daemon.scratch(), "d", 1, 3 << 20);
    let mut command = programs::cli();
    command.args(["push", "--json", "--slice-size", "1M", "--url", daemon.url()]).arg(&file).stdout(Stdio::piped());
    let mut pushing = command.spawn().unwrap();
    let mut lines = BufReader::new(pushing.stdout.take().unwrap()).lines().map(Result::unwrap);
    let retry = lines.find(|line| line.contains("\"retry\"")).expect("it tries again");
    assert!(retry.contains("2 uploads are unfinished"), "{retry}");
    for id in 0..2 {
        server.post(&format!("file_name=a&slice_id={id}&slice_size=1"), b"x").expect(200);
    }
    let rest: Vec<String> = lines.collect();
    assert!(pushing.wait().unwrap().success(), "{rest:?}");
    assert!(data::same(&file, &daemon.finished("d")));
}

/// Allows this process, and those that it starts, as many open files as the system does.
fn allow_many_files() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
}

/// A connection that brings a byte now and then.
struct Trickle {
    stream: TcpStream,
    answer: Vec<u8>,
    id: usize,
}

impl Trickle {
    /// Trickles a head or a body, by turns.
    fn begin(daemon: &Daemon, id: usize) -> Trickle {
        let mut stream = connect(daemon.url());
        if id.is_multiple_of(2) {
            stream.write_all(b"GET /big_file_upload?peek=1&x=").unwrap();
        } else {
            let query = format!("file_name=trickle&slice_id={}&slice_size=100000", id % 5000);
            stream.write_all(&post_head(&query, &["Content-Length: 100000"])).unwrap();
        }
        stream.set_nonblocking(true).unwrap();
        Trickle { stream, answer: vec![], id }
    }

    /// Brings a byte. False: the connection was ended.
    fn goes_on(&mut self) -> bool {
        let mut block = [0; 1000];
        match self.stream.read(&mut block) {
            Ok(0) => return false,
            Ok(got) => self.answer.extend(&block[..got]),
            Err(e) => assert_eq!(e.kind(), ErrorKind::WouldBlock, "{}: {e}", self.id),
        }
        let _ = self.stream.write(b"x");
        true
    }
}

#[test]
fn thousands_of_trickling_connections_stop_no_push_and_are_cut() {
    let _turns = all_turns();
    const TRICKLES: usize = 2000;
    allow_many_files();
    let daemon = Daemon::with(&[
        "--max-connections-per-address",
        "0",
        "--header-timeout",
        "3s",
        "--body-timeout",
        "3s",
        "--min-body-rate",
        "1K",
    ]);
    daemon.server().get("file_name=trickle&slice_num=5000&slice_size=100000").expect(200);
    let file = data::file(&daemon.scratch(), "f", 1, 64 << 20);
    let (at_work, pushed) = (AtomicUsize::new(0), AtomicBool::new(false));
    let cut = std::thread::scope(|scope| {
        let trickling = scope.spawn(|| {
            let mut trickles: Vec<Trickle> = (0..TRICKLES).map(|id| Trickle::begin(&daemon, id)).collect();
            let (mut next, mut cut, mut last_push) = (TRICKLES, 0, Instant::now());
            while !trickles.is_empty() {
                if !pushed.load(Ordering::Relaxed) {
                    last_push = Instant::now();
                }
                assert!(last_push.elapsed() < PATIENCE, "{} connections are not cut", trickles.len());
                at_work.store(trickles.len(), Ordering::Relaxed);
                for trickle in &mut trickles {
                    while !trickle.goes_on() {
                        let answer = String::from_utf8_lossy(&trickle.answer).into_owned();
                        assert!(answer.starts_with("HTTP/1.1 408 "), "{}: {answer:?}", trickle.id);
                        cut += 1;
                        // Another takes its place, for as long as it may disturb.
                        if pushed.load(Ordering::Relaxed) {
                            trickle.answer = b"gone".to_vec();
                            break;
                        }
                        *trickle = Trickle::begin(&daemon, next);
                        next += 1;
                    }
                }
                trickles.retain(|trickle| trickle.answer != b"gone");
                std::thread::sleep(Duration::from_millis(100));
            }
            cut
        });
        eventually("they trickle", || at_work.load(Ordering::Relaxed) == TRICKLES || trickling.is_finished());
        let output = push(&daemon, &file, &[]);
        pushed.store(true, Ordering::Relaxed);
        assert!(output.status.success(), "{}", stderr(&output));
        trickling.join().unwrap()
    });
    assert!(cut >= TRICKLES, "{cut}");
    assert!(data::same(&file, &daemon.finished("f")));
    eventually("nothing arrives any more", || !daemon.spool_has_part("trickle"));
}

/// How many mergers that a daemon started are at work.
fn mergers_of(daemon: &Daemon) -> usize {
    let parent = daemon.pid().to_string();
    let is_one = |pid: &String| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let after = |at: usize| stat.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(at));
        stat.contains("(bigup-merger)") && after(0) != Some("Z") && after(1) == Some(&parent)
    };
    list(std::path::Path::new("/proc"))
        .iter()
        .filter(|name| name.parse::<u32>().is_ok())
        .filter(|pid| is_one(pid))
        .count()
}

/// Does something and tells the most mergers that were at work meanwhile.
fn most_mergers(daemon: &Daemon, work: impl FnOnce()) -> usize {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watching = scope.spawn(|| {
            let mut most = 0;
            while !done.load(Ordering::Relaxed) {
                most = most.max(mergers_of(daemon));
                std::thread::sleep(Duration::from_millis(2));
            }
            most
        });
        work();
        done.store(true, Ordering::Relaxed);
        watching.join().unwrap()
    })
}

#[test]
fn slow_uploads_share_two_mergers_and_none_waits_for_an_idle_one() {
    const UPLOADS: u64 = 50;
    let daemon = Daemon::with(&["--max-mergers", "2"]);
    let server = daemon.server();
    let content = |upload: u64| data::bytes(upload, 4 << 10);
    let send = |upload: u64, id: usize| {
        let query = format!("file_name=f{upload}&slice_id={id}&slice_size=1024");
        server.post(&query, &content(upload)[id << 10..][..1 << 10]).expect(200);
    };
    let most = most_mergers(&daemon, || {
        for upload in 0..UPLOADS {
            server.get(&format!("file_name=f{upload}&slice_num=4&slice_size=1024&file_size=4096")).expect(200);
        }
        // Each has something to merge, and then waits for the rest longer than this test has patience.
        for id in 0..3 {
            (0..UPLOADS).for_each(|upload| send(upload, id));
        }
        eventually("all are merged as far as they came", || {
            let list = server.get("peek=1").body["uploads"].as_array().cloned().unwrap_or_default();
            list.len() as u64 == UPLOADS && list.iter().all(|upload| upload["curr_merge_slice_id"] == 3)
        });
        (0..UPLOADS).for_each(|upload| send(upload, 3));
        for upload in 0..UPLOADS {
            eventually("it is finished", || daemon.finished(&format!("f{upload}")).exists());
            assert!(std::fs::read(daemon.finished(&format!("f{upload}"))).unwrap() == content(upload));
        }
    });
    assert!((1..=2).contains(&most), "{most} mergers at once");
    daemon.eventually_clean();
}
