//! Connections at rest: they cost little, are held, and go on with the next request as if nothing had been.

use bigup_tests::daemon::Daemon;
use bigup_tests::http::{connect, post_head, read_answer};
use bigup_tests::process::eventually;
use bigup_tests::turns::all_turns;
use bigup_tests::usage::{descriptors, memory};
use bigup_tests::{data, programs};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

const ASK: &[u8] = b"GET /big_file_upload?peek=1 HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// Several times what it takes until a connection counts as resting.
const REST: Duration = Duration::from_millis(600);

/// Bytes of a body. Slices of this size have plain digests.
const BODY: usize = 1_000_000;

fn request(stream: &mut TcpStream, request: &[u8]) -> String {
    stream.write_all(request).unwrap();
    let answer = read_answer(stream);
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    answer
}

#[test]
fn two_thousand_idle_connections_are_held_in_little_memory_and_a_push_works_beside() {
    let _turns = all_turns();
    const HALF: usize = 1000;
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    let daemon = Daemon::with(&["--max-connections-per-address", "0", "--idle-timeout", "10m"]);
    let body = vec![7; BODY];
    let query = format!("file_name=f&slice_id=1&slice_num=3&slice_size={BODY}");
    let query = format!("{query}&slice_digest=hash:{}", blake3::hash(&body));
    // Only the first one is stored, the others find it held.
    let send = [post_head(&query, &[&format!("Content-Length: {BODY}")]), body].concat();
    let mut connections: Vec<TcpStream> = vec![];
    for sent in [ASK, &send] {
        for _ in 0..HALF {
            let mut stream = connect(daemon.url());
            request(&mut stream, sent);
            connections.push(stream);
        }
    }
    std::thread::sleep(REST);
    // What hyper keeps for those that sent a body would be 300 MiB alone. What became free goes back a moment later.
    eventually("they take little memory", || {
        let memory = memory(daemon.pid()).unwrap();
        println!("{} connections: {} KiB", connections.len(), memory >> 10);
        memory < 150 << 20
    });
    let file = data::file(&daemon.scratch(), "beside", 1, 20 << 20);
    let pushed = programs::cli().args(["push", "--url", daemon.url()]).arg(&file).output().unwrap();
    assert!(pushed.status.success(), "{pushed:?}");
    assert!(data::same(&file, &daemon.finished("beside")));
    for stream in &mut connections {
        request(stream, ASK);
    }
}

#[test]
fn a_request_that_began_with_the_one_before_is_answered_after_a_rest() {
    let daemon = Daemon::start();
    for cut in [1, 5, 30, ASK.len() - 1] {
        let mut stream = connect(daemon.url());
        request(&mut stream, &[ASK, &ASK[..cut]].concat());
        std::thread::sleep(REST);
        request(&mut stream, &ASK[cut..]);
        std::thread::sleep(REST);
        request(&mut stream, ASK);
    }
}

#[test]
fn a_request_that_begins_with_the_one_before_has_no_more_time_than_another() {
    let daemon = Daemon::with(&["--header-timeout", "1s", "--idle-timeout", "10m"]);
    let mut stream = connect(daemon.url());
    request(&mut stream, &[ASK, b"G"].concat());
    let answer = read_answer(&mut stream);
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
}

#[test]
fn a_resting_connection_ends_when_its_time_is_over_and_with_the_daemon() {
    let mut daemon = Daemon::with(&["--idle-timeout", "2s", "--stop-grace", "50s"]);
    let mut idle = connect(daemon.url());
    request(&mut idle, ASK);
    assert_eq!(read_answer(&mut idle), "", "it is closed without a word");
    let mut other = connect(daemon.url());
    request(&mut other, ASK);
    std::thread::sleep(REST);
    daemon.stop();
    assert_eq!(read_answer(&mut other), "");
    assert!(!daemon.log().contains("did not finish"), "{}", daemon.log());
}

#[test]
fn a_resting_connection_that_the_client_closes_gives_its_descriptor_back() {
    let daemon = Daemon::start();
    let before = descriptors(daemon.pid()).unwrap().len();
    let mut stream = connect(daemon.url());
    request(&mut stream, ASK);
    std::thread::sleep(REST);
    assert!(descriptors(daemon.pid()).unwrap().len() > before);
    drop(stream);
    bigup_tests::process::eventually("it is closed", || descriptors(daemon.pid()).unwrap().len() <= before);
}
