//! Connections at rest: they cost little, are held, and go on with the next request as if nothing had been.

use bigup_tests::daemon::Daemon;
use bigup_tests::http::{connect, post_head, read_answer};
use bigup_tests::process::{eventually, kill_9, within};
use bigup_tests::turns::all_turns;
use bigup_tests::usage::{cpu, descriptors, memory};
use bigup_tests::{data, programs};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::io::Write;
use std::net::TcpStream;
use std::process::Stdio;
use std::time::{Duration, Instant};

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
fn a_watch_of_a_hundred_thousand_files_at_rest_costs_next_to_nothing() {
    let _turns = all_turns();
    const FILES: usize = 100_000;
    const REST: Duration = Duration::from_secs(30);
    let daemon = Daemon::in_folder(tempfile::tempdir_in("/dev/shm").unwrap(), &[]);
    let (folder, state) = (daemon.scratch().join("watched"), daemon.scratch().join("state"));
    for n in 0..FILES {
        let folder = folder.join(format!("{}", n / 1000));
        if n % 1000 == 0 {
            std::fs::create_dir_all(&folder).unwrap();
        }
        std::fs::write(folder.join(format!("{n}")), format!("{n}")).unwrap();
    }
    let watch = || {
        let mut command = programs::cli();
        command.arg("watch").arg(&folder).args(["--url", daemon.url(), "--settle", "100ms", "--state"]).arg(&state);
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    };
    let journal = || {
        let entries = std::fs::read_dir(&state).into_iter().flatten().flatten().map(|entry| entry.path());
        let texts = entries.filter(|path| path.extension().is_some_and(|e| e == "journal"));
        texts.map(|path| std::fs::read_to_string(path).unwrap_or_default().lines().count()).sum::<usize>()
    };
    let mut first = watch();
    within(Duration::from_secs(600), "all are stored", || {
        std::thread::sleep(REST / 30);
        journal() > FILES
    });
    let after_all = memory(first.id()).unwrap();
    kill_9(&mut first);
    let (began, mut second) = (Instant::now(), watch());
    std::thread::sleep(Duration::from_secs(5));
    let (cpu_before, start) = (cpu(second.id()).unwrap().own, began.elapsed());
    std::thread::sleep(REST);
    let (rest, memory) = (cpu(second.id()).unwrap().own - cpu_before, memory(second.id()).unwrap());
    kill_9(&mut second);
    println!(
        "after pushing all {} KiB; after a start {} KiB, {cpu_before} s of CPU in {start:?}; at rest {rest} s in {REST:?}",
        after_all >> 10,
        memory >> 10
    );
    assert!(rest / REST.as_secs_f64() <= 0.001, "{rest} s");
    assert!(memory <= 20 << 20, "{} KiB", memory >> 10);
    assert_eq!(journal(), FILES + 1, "nothing was pushed again");
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
