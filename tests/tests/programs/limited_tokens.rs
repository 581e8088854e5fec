//! Tokens that begin so many uploads and no more (`--once`, `--uploads`), by the real programs: requests at once, kills,
//! and requests that begin nothing.

use bigup_tests::daemon::{Daemon, list};
use bigup_tests::http::{Answer, Server, forty};
use bigup_tests::programs;
use serde_json::Value;
use std::process::Command;

const KIB: usize = 1 << 10;

/// Runs `bigupd token` on the folder of a daemon, and gives what it prints.
fn token(daemon: &Daemon, arguments: &[&str]) -> String {
    let mut command = Command::new(programs::path("bigupd"));
    let output = command.arg("token").args(arguments).arg("--data-dir").arg(daemon.data()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// How many uploads a token has begun, as the list tells.
fn begun(daemon: &Daemon, name: &str) -> u64 {
    let listed: Value = serde_json::from_str(&token(daemon, &["list", "--json"])).unwrap();
    let tokens = listed["tokens"].as_array().unwrap();
    tokens.iter().find(|token| token["name"] == name).unwrap()["uploads_begun"].as_u64().unwrap()
}

/// Pushes a file in one request.
fn put(server: &Server, name: &str, content: &[u8]) -> Answer {
    let (len, digest) = (content.len(), blake3::hash(content));
    let query = format!("file_name={name}&slice_id=0&slice_num=1&slice_size={len}&slice_digest=hash:{digest}");
    server.post(&query, content)
}

/// Begins an upload of two slices.
fn begin(server: &Server, name: &str) -> Answer {
    server.get(&format!("file_name={name}&slice_size=65536&file_size=131072"))
}

fn count(statuses: &[u16], status: u16) -> usize {
    statuses.iter().filter(|is| **is == status).count()
}

#[test]
fn of_forty_requests_at_once_one_begins_and_the_others_are_told_the_numbers() {
    let daemon = Daemon::start();
    for round in 0..3 {
        let name = format!("t{round}");
        let folder = format!("r{round}");
        let secret = token(&daemon, &["new", &name, "--once", "--prefix", &folder, "--permissions", "push"]);
        let server = daemon.server().with_token(&secret);
        // Small files in one request, and uploads in slices.
        let statuses = forty(&server, |server, i| {
            let name = format!("{folder}/{i}");
            if i % 2 == 0 { put(server, &name, &[i as u8; KIB]) } else { begin(server, &name) }
        });
        assert_eq!((count(&statuses, 200), count(&statuses, 403)), (1, 39), "{statuses:?}");
        let finished = daemon.data().join("files").join(&folder);
        let there = if finished.exists() { list(&finished).len() } else { 0 };
        let unfinished = daemon.spools().iter().filter(|spool| spool.starts_with(&folder)).count();
        assert_eq!(there + unfinished, 1);
        assert_eq!(begun(&daemon, &name), 1);
        let refused = put(&server, &format!("{folder}/other"), b"x").expect(403);
        let said = format!("the token {name} may begin 1 upload in all, and has begun 1: ask for another token");
        assert_eq!(refused.message(), said);
    }
}

#[test]
fn forty_requests_of_one_name_are_one_upload() {
    let daemon = Daemon::start();
    let secret = token(&daemon, &["new", "t", "--once", "--permissions", "push"]);
    let server = daemon.server().with_token(&secret);
    let statuses = forty(&server, |server, _| put(server, "same", &[7; 10 * KIB]));
    // Those that meet another one at work are to come again, and nobody is refused for good.
    assert_eq!(count(&statuses, 403), 0, "{statuses:?}");
    assert!(count(&statuses, 200) >= 1, "{statuses:?}");
    put(&server, "same", &[7; 10 * KIB]).expect(200);
    assert_eq!(begun(&daemon, "t"), 1);
}

#[test]
fn an_interrupted_upload_goes_on_after_the_last_one_has_begun() {
    let mut daemon = Daemon::start();
    let secret = token(&daemon, &["new", "t", "--uploads", "2", "--permissions", "push"]);
    let server = daemon.server().with_token(&secret);
    begin(&server, "a").expect(200);
    put(&server, "b", b"b").expect(200);
    let slice = |id: usize| format!("file_name=a&slice_id={id}&slice_size=65536&offset={}", id << 16);
    server.post(&slice(0), &[1; 1 << 16]).expect(200);
    daemon.kill_9();
    daemon.run();
    let server = daemon.server().with_token(&secret);
    put(&server, "c", b"c").expect(403);
    begin(&server, "d").expect(403);
    begin(&server, "a").expect(200);
    server.post(&slice(1), &[2; 1 << 16]).expect(200);
    bigup_tests::process::eventually("it is finished", || daemon.finished("a").exists());
    // The client can learn of the end.
    let end = server.get("file_name=a&slice_size=65536&file_size=131072&wait=5").expect(200);
    assert_eq!(end.body["is_uploaded"], 1);
    assert!(token(&daemon, &["list"]).contains("2 of 2"));
    assert_eq!(list(&daemon.data().join("files")), ["a", "b"]);
}

#[test]
fn requests_that_begin_nothing_do_not_count() {
    let daemon = Daemon::with(&["--max-file-size", "1M"]);
    let all = daemon.server().with_token(&token(&daemon, &["new", "all"]));
    put(&all, "there", b"there").expect(200);
    begin(&all, "under-way").expect(200);
    let secret = token(&daemon, &["new", "t", "--once", "--permissions", "push", "--quota", "400K"]);
    let server = daemon.server().with_token(&secret);
    put(&server, "there", b"other").expect(409);
    put(&server, "there", b"there").expect(200);
    server.get("file_name=%2e%2e&slice_size=65536&file_size=131072").expect(400);
    server.get("file_name=large&slice_size=65536&file_size=2000000").expect(413);
    server.get("file_name=quota&slice_size=65536&file_size=500000").expect(413);
    let wrong = "file_name=x&slice_id=0&slice_num=1&slice_size=1&slice_digest=hash:";
    server.post(&format!("{wrong}{}", "0".repeat(64)), b"x").expect(400);
    // Going on is no begin, whoever began it.
    begin(&server, "under-way").expect(200);
    assert_eq!(begun(&daemon, "t"), 0);
    put(&server, "mine", b"mine").expect(200);
    assert_eq!(begun(&daemon, "t"), 1);
    token(&daemon, &["revoke", "t"]);
    // Another token of that name begins anew.
    let again = token(&daemon, &["new", "t", "--once", "--permissions", "push"]);
    put(&daemon.server().with_token(&again), "again", b"again").expect(200);
}

#[test]
fn a_daemon_killed_while_uploads_begin_lets_no_more_begin_than_the_limit() {
    const MOST: usize = 5;
    let mut daemon = Daemon::start();
    let secret = token(&daemon, &["new", "t", "--uploads", &MOST.to_string(), "--permissions", "push"]);
    for round in 0..8 {
        let server = daemon.server().with_token(&secret);
        std::thread::scope(|scope| {
            for i in 0..6 {
                let server = server.clone();
                // The response may be lost.
                let query = format!("file_name={round}-{i}&slice_size=65536&file_size=131072");
                scope.spawn(move || drop(server.try_get(&query)));
            }
            daemon.kill_9();
        });
        daemon.run();
        let there = daemon.spools().len();
        let counted = begun(&daemon, "t") as usize;
        assert!(there <= counted && counted <= MOST, "{there} uploads, {counted} counted, of {MOST}");
    }
    let server = daemon.server().with_token(&secret);
    let begun_after = (0..10).filter(|i| begin(&server, &format!("after-{i}")).status == 200).count();
    assert!(daemon.spools().len() <= MOST, "{begun_after} more");
    assert_eq!(begun(&daemon, "t") as usize, MOST);
}
