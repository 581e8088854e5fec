//! Bundles: several small files in one request. Each has the checks, the rights and the answer that it would have alone,
//! and what the request cannot do for one of them keeps no other from being stored.

use bigup_tests::daemon::{Daemon, list};
use bigup_tests::data;
use bigup_tests::http::{Answer, Server, address, forty_at_once, post_head, read_answer};
use bigup_tests::process::eventually;
use bigup_tests::programs;
use bigup_tests::scrape::eventually_counted;
use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

/// A file, as it stands in a bundle.
fn file(name: &str, content: &[u8], more: &str) -> Vec<u8> {
    let query = format!("file_name={name}&slice_id=0&slice_num=1&slice_size={}&source=s{more}\n", content.len());
    [query.as_bytes(), content].concat()
}

fn post(server: &Server, files: &[Vec<u8>]) -> Answer {
    server.post(&format!("bundle={}", files.len()), &files.concat())
}

/// The statuses of the files.
fn statuses(answer: &Answer) -> Vec<u64> {
    let files = answer.body["files"].as_array().expect("a list of files");
    files.iter().map(|file| file["status"].as_u64().expect("a status")).collect()
}

fn push(daemon: &Daemon, arguments: &[&str]) -> Command {
    let mut command = programs::cli();
    command.arg("push").args(["--url", daemon.url()]).args(arguments).stdin(Stdio::null());
    command
}

/// A folder with files of 100 bytes each.
fn folder(daemon: &Daemon, files: u64) -> String {
    let folder = daemon.scratch().join("few");
    (0..files).for_each(|i| drop(data::file(&folder, &format!("f{i:03}"), i, 100)));
    folder.to_str().expect("paths of tests are UTF-8").to_owned()
}

fn text(output: &Output) -> String {
    [&output.stdout[..], &output.stderr[..]].map(String::from_utf8_lossy).concat()
}

/// Number of requests that brought a bundle.
fn bundles(daemon: &Daemon) -> usize {
    daemon.log().matches("POST bundle=").count()
}

#[test]
fn each_file_has_the_answer_that_it_would_have_alone() {
    let daemon = Daemon::start();
    let server = daemon.server();
    server.post("file_name=old&slice_id=0&slice_num=1&slice_size=3&source=s", b"old").expect(200);
    server.get("file_name=begun&slice_num=2&slice_size=3&file_size=6&source=s").expect(200);
    let wrong = format!("&slice_digest=hash:{}", "0".repeat(64));
    let right = format!("&slice_digest=hash:{}&modified=1.5", blake3::hash(b"right").to_hex());
    let files = [
        file("a/right", b"right", &right),
        file("old", b"old", ""),
        file("old", b"new", ""),
        file("begun", b"xyz", ""),
        file("../x", b"x", ""),
        file("damaged", b"x", &wrong),
        file("slice", b"x", "&file_size=5"),
        file("a/right/below", b"x", ""),
        file("a/again", b"1", ""),
        file("a/again", b"2", ""),
        file("zeroes", b"", "&zeroes=1"),
        file("offset", b"x", "&offset=5"),
        file("subtree", b"x", &format!("&slice_digest=cv:{}", "0".repeat(64))),
    ];
    let answer = post(&server, &files).expect(200);
    assert_eq!(statuses(&answer), [200, 200, 409, 409, 400, 400, 400, 409, 200, 409, 400, 409, 400], "{answer:?}");
    let told = |i: usize, field: &str| answer.body["files"][i][field].clone();
    assert_eq!((told(0, "is_uploaded"), told(0, "held")), (1.into(), serde_json::Value::Null));
    assert_eq!(told(0, "file_digest"), blake3::hash(b"right").to_hex().as_str());
    assert_eq!((told(1, "is_uploaded"), told(1, "held")), (1.into(), true.into()));
    assert!(told(2, "message").as_str().unwrap().contains("--replace"), "{answer:?}");
    assert!(told(3, "message").as_str().unwrap().contains("send it alone"), "{answer:?}");
    for (name, content) in [("a/right", "right"), ("old", "old"), ("a/again", "1")] {
        assert_eq!(fs::read_to_string(daemon.finished(name)).unwrap(), content);
    }
    let modified = fs::metadata(daemon.finished("a/right")).unwrap().modified().unwrap();
    assert_eq!(modified.duration_since(std::time::UNIX_EPOCH).unwrap(), Duration::from_millis(1500));
    assert_eq!(list(&daemon.data().join("files")), ["a", "old"]);
    let alone = "file_name=offset&slice_id=0&slice_num=1&slice_size=1&source=s&offset=5";
    assert!(server.post(alone, b"x").expect(409).message().contains("not at 5"));
    server.get("file_name=offset&peek=1").expect(404);
    // A file is replaced by a request of its own.
    assert_eq!(statuses(&post(&server, &[file("old", b"new", "&replace=1")])), [409]);
    assert_eq!(statuses(&post(&server, &[file("old", b"old", "&replace=1")])), [200]);
    assert_eq!(post(&server, &[]).expect(200).body["files"], serde_json::json!([]));
}

#[test]
fn what_is_no_bundle_is_refused_and_says_why() {
    let daemon = Daemon::start();
    let server = daemon.server();
    let one = file("x", b"x", "");
    for (query, body, status, says) in [
        ("bundle=2", one.clone(), 400, "is to have 2 files, and ends after 1"),
        ("bundle=0", one.clone(), 400, "is to have 0 files, but there are more"),
        ("bundle=1", one[..one.len() - 1].to_vec(), 400, "file 0 of the bundle ends after"),
        ("bundle=1001", one.clone(), 413, "1001 files are too many"),
        ("bundle=x", one.clone(), 400, "bundle is \"x\""),
        ("bundle=1&file_name=y", one.clone(), 400, "no parameter"),
        ("bundle=1", b"file_name=x\nx".to_vec(), 400, "file 0: slice_size is missing"),
        ("bundle=1", file("y", &vec![0; (64 << 10) + 1], ""), 413, "at most 65536 are possible"),
    ] {
        let refused = server.post(query, &body).expect(status);
        assert!(refused.message().contains(says), "{refused:?}");
    }
    let refused = server.post_with("bundle=1", ("Content-Encoding", "gzip"), &one).expect(415);
    assert!(refused.message().contains("gzip"), "{refused:?}");
    // Another site's page.
    server.post_with("bundle=1", ("Origin", "https://elsewhere.example"), &file("page", b"x", "")).expect(403);
    // Of a bundle that turns out to be none at its end, the files before are stored.
    assert_eq!(fs::read(daemon.finished("x")).unwrap(), b"x");
    assert_eq!(list(&daemon.data().join("files")), ["x"]);
}

#[test]
fn a_bundle_of_any_length_comes_in_pieces_and_what_came_before_a_break_is_stored() {
    let daemon = Daemon::start();
    let contents: Vec<Vec<u8>> = (0..200).map(|i| data::bytes(i, (i * 331) as usize % 65_537)).collect();
    let named = |i: usize| format!("d{}/f{i}", i % 7);
    let files: Vec<Vec<u8>> = (0..200).filter(|i| *i > 0).map(|i| file(&named(i), &contents[i][..], "")).collect();
    let answer = post(&daemon.server(), &files).expect(200);
    assert!(statuses(&answer).iter().all(|status| *status == 200), "{answer:?}");
    (1..200).for_each(|i| assert!(fs::read(daemon.finished(&named(i))).unwrap() == contents[i], "{i}"));
    // The head says more than comes.
    let body = (0..200).flat_map(|i| file(&format!("broken/{i:03}"), &contents[7], "")).collect::<Vec<u8>>();
    let length = format!("Content-Length: {}", body.len());
    let mut stream = TcpStream::connect(address(daemon.url())).unwrap();
    stream.write_all(&post_head("bundle=200", &[&length])).unwrap();
    stream.write_all(&body[..body.len() - 10]).unwrap();
    eventually("whole groups are stored", || daemon.finished("broken/100").exists());
    drop(stream);
    eventually_counted(daemon.url(), &[("bigup_slices_arriving", 0.0)]);
    let stored = list(&daemon.data().join("files/broken"));
    assert!((101..200).contains(&stored.len()), "{}", stored.len());
    stored
        .iter()
        .for_each(|name| assert!(fs::read(daemon.finished(&format!("broken/{name}"))).unwrap() == contents[7]));
    assert_eq!(daemon.spools(), Vec::<String>::new());
}

#[test]
fn forty_bundles_of_the_same_names_store_each_file_once_and_whole() {
    let daemon = Daemon::start();
    let server = daemon.server();
    let answers = forty_at_once(|who| {
        let content = data::bytes(who as u64 % 2, 2000);
        let files: Vec<_> = (0..20).map(|i| file(&format!("d{}/f{i}", i % 3), &content, "")).collect();
        (who % 2, post(&server, &files).expect(200))
    });
    for i in 0..20 {
        let there = fs::read(daemon.finished(&format!("d{}/f{i}", i % 3))).unwrap();
        let winner = (0..2).find(|which| data::bytes(*which, 2000) == there).expect("it is one of the two") as usize;
        for (which, answer) in &answers {
            // Who comes while another one reads the file, to find out its digest, is told to ask again.
            let status = statuses(answer)[i];
            let is_busy = status == 409 && answer.body["files"][i]["error"] == "busy";
            let is_right = if *which == winner { status == 200 || is_busy } else { status == 409 };
            assert!(is_right, "{i} of {which}, winner {winner}: {answer:?}");
        }
    }
    assert_eq!(daemon.spools(), Vec::<String>::new());
}

#[test]
fn rights_and_quotas_count_for_each_file() {
    let daemon = Daemon::start();
    let token =
        programs::new_token(&daemon.data(), "a", &["--prefix", "a/", "--permissions", "push", "--quota", "10000"]);
    let server = daemon.server().with_token(&token);
    let content = data::bytes(1, 1000);
    let names = ["a/1", "b/1", "a/2", "a/3"];
    let answer = post(&server, &names.map(|name| file(name, &content, ""))).expect(200);
    // The others may still be taken back, as far as the quota can know.
    assert_eq!(statuses(&answer), [200, 403, 200, 429], "{answer:?}");
    assert_eq!(statuses(&post(&server, &[file("a/3", &content, "")])), [413]);
    post(&daemon.server(), &[file("a/9", b"x", "")]).expect(401);
    assert_eq!(list(&daemon.data().join("files/a")), ["1", "2"]);
}

#[test]
fn the_client_sends_bundles_where_the_daemon_takes_them_and_single_files_where_it_does_not() {
    for (settings, takes) in [(&[][..], true), (&["--on-complete", "/bin/true"][..], false)] {
        let daemon = Daemon::with(settings);
        let folder = folder(&daemon, 100);
        let output = push(&daemon, &[&folder]).output().unwrap();
        assert!(output.status.success(), "{}", text(&output));
        assert!(text(&output).contains("100 files"), "{}", text(&output));
        assert_eq!(list(&daemon.data().join("files/few")).len(), 100);
        assert_eq!(bundles(&daemon) > 0, takes, "{settings:?}");
        assert!(bundles(&daemon) < 30, "{}", bundles(&daemon));
    }
}

/// A bundle cannot replace them, so few are sent in vain.
#[test]
fn files_that_are_replaced_go_alone_and_few_are_sent_twice() {
    let daemon = Daemon::start();
    let name = folder(&daemon, 300);
    assert!(push(&daemon, &[&name]).output().unwrap().status.success());
    let before = bundles(&daemon);
    (0..300).for_each(|i| drop(data::file(Path::new(&name), &format!("f{i:03}"), 1000 + i, 100)));
    let output = push(&daemon, &[&name]).output().unwrap();
    assert!(output.status.code() == Some(1) && text(&output).contains("--replace"), "{}", text(&output));
    let output = push(&daemon, &[&name, "--replace"]).output().unwrap();
    assert!(output.status.success() && text(&output).contains("300 files"), "{}", text(&output));
    for i in 0..300 {
        assert!(
            data::same(&Path::new(&name).join(format!("f{i:03}")), &daemon.finished(&format!("few/f{i:03}"))),
            "{i}"
        );
    }
    // Those that are on their way when the first one ends, each time.
    assert!(bundles(&daemon) - before <= 2 * 8, "{} bundles", bundles(&daemon) - before);
}

#[test]
fn a_token_that_is_revoked_ends_the_push_and_what_was_stored_is_whole() {
    let daemon = Daemon::start();
    let token = programs::new_token(&daemon.data(), "t", &["--permissions", "push"]);
    let name = folder(&daemon, 3000);
    let mut command = push(&daemon, &[&name, "--limit-rate", "64K"]);
    command.env("BIGUP_TOKEN", &token).stdout(Stdio::piped()).stderr(Stdio::piped());
    let pushing = command.spawn().unwrap();
    eventually("some are stored", || daemon.finished("few/f000").exists());
    let mut revoke = Command::new(programs::path("bigupd"));
    assert!(revoke.arg("--data-dir").arg(daemon.data()).args(["token", "revoke", "t"]).status().unwrap().success());
    let output = pushing.wait_with_output().unwrap();
    assert!(output.status.code() == Some(1) && text(&output).contains("more files not tried"), "{}", text(&output));
    for stored in list(&daemon.data().join("files/few")) {
        assert!(data::same(&Path::new(&name).join(&stored), &daemon.finished(&format!("few/{stored}"))), "{stored}");
    }
}

#[test]
fn a_token_for_a_number_of_uploads_stores_as_many_files() {
    let daemon = Daemon::start();
    let token = programs::new_token(&daemon.data(), "five", &["--permissions", "push", "--uploads", "5"]);
    let folder = folder(&daemon, 8);
    let output = push(&daemon, &[&folder]).env("BIGUP_TOKEN", &token).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output).contains("may begin 5 uploads in all"), "{}", text(&output));
    assert_eq!(list(&daemon.data().join("files/few")).len(), 5);
}

#[test]
fn what_is_removed_after_its_push_was_stored() {
    let daemon = Daemon::start();
    let folder = folder(&daemon, 50);
    fs::create_dir_all(daemon.finished("few")).unwrap();
    fs::write(daemon.finished("few/f007"), "other").unwrap();
    let output = push(&daemon, &[&folder, "--remove-source"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert_eq!(list(Path::new(&folder)), ["f007"], "{}", text(&output));
    assert_eq!(list(&daemon.data().join("files/few")).len(), 50);
}

/// A body that stalls holds no thread, no file and no turn of others.
#[test]
fn bundles_that_stall_keep_nobody_waiting() {
    let daemon = Daemon::with(&["--body-timeout", "5s"]);
    let half = [file("whole", b"w", ""), file("half", &data::bytes(1, 1000), "")].concat();
    let stalled: Vec<TcpStream> = (0..40)
        .map(|_| {
            let mut stream = TcpStream::connect(address(daemon.url())).unwrap();
            stream.write_all(&post_head("bundle=2", &["Content-Length: 5000"])).unwrap();
            stream.write_all(&half[..500]).unwrap();
            stream
        })
        .collect();
    assert_eq!(statuses(&post(&daemon.server(), &[file("other", b"x", "")]).expect(200)), [200]);
    eventually("the file that came whole is stored meanwhile", || daemon.finished("whole").exists());
    for mut stream in stalled {
        let answer = read_answer(&mut stream);
        assert!(answer.contains(" 408 ") && answer.contains("too slow"), "{answer}");
    }
    assert_eq!(list(&daemon.data().join("files")), ["other", "whole"]);
}
