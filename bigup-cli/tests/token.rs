//! Tokens: where they come from, where they go and where not, and what happens when one does not count.

mod common;

use common::{Mock, Reply, bytes, file, refusal, started};
use std::collections::HashSet;

const K: usize = 1024;

/// The header of every request that arrived; None for those without.
fn sent(mock: &Mock) -> HashSet<Option<String>> {
    mock.requests().into_iter().map(|request| request.authorization).collect()
}

fn bearer(token: &str) -> HashSet<Option<String>> {
    HashSet::from([Some(format!("Bearer {token}"))])
}

#[test]
fn every_request_of_every_command_carries_the_token() {
    let (_dir, path) = file("a", &bytes(4 * K));
    let (_token_dir, token) = file("token", b"bigup_1\n");
    for args in [&["push", &path, "--slice-size", "1K"][..], &["push", &path], &["status"], &["verify", &path]] {
        let mock = Mock::new();
        mock.finish("a", &bytes(4 * K));
        mock.run(&[args, &["--token-file", &token]].concat()).ok();
        assert_eq!(sent(&mock), bearer("bigup_1"), "{args:?}");
    }
    let mock = Mock::new();
    mock.run(&["push", &path, "--slice-size", "1K", "--token-file", &token]).ok();
    assert!(mock.requests().len() > 4);
    assert_eq!(sent(&mock), bearer("bigup_1"));
}

#[test]
fn a_file_wins_over_the_environment_and_without_both_there_is_none() {
    let (_dir, path) = file("a", b"content");
    let (_token_dir, token) = file("token", b" from-file\r\n");
    let sent_with = |args: &[&str], variable: Option<&str>| {
        let mock = Mock::new();
        let mut command = mock.command(&[&["push", &path], args].concat());
        command.envs(variable.map(|value| ("BIGUP_TOKEN", value)));
        common::Run(started(|| command.output())).ok();
        sent(&mock)
    };
    assert_eq!(sent_with(&["--token-file", &token], Some("from-environment")), bearer("from-file"));
    assert_eq!(sent_with(&[], Some("from-environment\n")), bearer("from-environment"));
    assert_eq!(sent_with(&[], Some("")), HashSet::from([None]));
    assert_eq!(sent_with(&[], None), HashSet::from([None]));
}

#[test]
fn what_is_no_token_is_told_without_being_shown_and_nothing_is_sent() {
    let mock = Mock::new();
    let (dir, path) = file("a", b"content");
    let no_file = dir.path().join("no-file");
    let (_one, empty) = file("empty", b"\n");
    let (_two, two) = file("two", b"top secret\n");
    for (token, says) in [(no_file.to_str().unwrap(), "no-file"), (&empty, "empty"), (&two, "two")] {
        let run = mock.run(&["push", &path, "--token-file", token]).failed(says);
        assert!(!run.err().contains("secret"), "{}", run.err());
    }
    let mut command = mock.command(&["push", &path]);
    let run = common::Run(started(|| command.env("BIGUP_TOKEN", "top secret").output())).failed("BIGUP_TOKEN");
    assert!(!run.err().contains("secret"), "{}", run.err());
    assert_eq!(mock.requests().len(), 0);
    let args = ["push", &path, "--token", "x"];
    assert_eq!(mock.run(&args).code(), 2, "a flag would show it to everybody on the machine");
}

#[cfg(unix)]
#[test]
fn a_token_may_come_through_a_link_or_a_pipe() {
    let mock = Mock::new();
    let (dir, path) = file("a", b"content");
    let (_token_dir, token) = file("token", b"bigup_1\n");
    let link = dir.path().join("link");
    std::os::unix::fs::symlink(&token, &link).unwrap();
    mock.run(&["push", &path, "--token-file", link.to_str().unwrap()]).ok();
    mock.run_with_input(&["push", &path, "--token-file", "/dev/stdin"], b"bigup_1\n").ok();
    assert_eq!(sent(&mock), bearer("bigup_1"));
}

#[test]
fn a_token_that_does_not_count_ends_the_push_at_once() {
    let mock = Mock::with_hook(|_, _| Some(refusal(401, "unauthorized", "the token is none of this server's")));
    let dir = tempfile::tempdir().unwrap();
    for name in ["a", "b", "c"] {
        std::fs::write(dir.path().join(name), b"content").unwrap();
    }
    let run = mock.run(&["push", dir.path().to_str().unwrap(), "--name", "x"]);
    let run = run.failed("error: x/a: the token is none of this server's\nerror: 2 more files not tried\n");
    assert!(run.out().contains("3 failed"), "{}", run.out());
    assert_eq!(mock.requests().len(), 1);
}

#[test]
fn a_name_that_the_token_may_not_push_fails_alone_and_at_once() {
    let mock = Mock::with_hook(|request, _| {
        (request.get("file_name") == Some("x/a")).then(|| refusal(403, "forbidden", "the token t has push under y/"))
    });
    let dir = tempfile::tempdir().unwrap();
    for name in ["a", "b"] {
        std::fs::write(dir.path().join(name), b"content").unwrap();
    }
    let run = mock.run(&["push", dir.path().to_str().unwrap(), "--name", "x"]);
    run.failed("error: x/a: the token t has push under y/\n");
    assert_eq!(mock.finished("x/b"), Some(b"content".to_vec()));
    assert_eq!(mock.requests().len(), 2);
}

#[test]
fn a_token_does_not_follow_a_redirection() {
    let other = Mock::new();
    let to = other.url.clone();
    let mock = Mock::with_hook(move |_, _| Some(Reply::Redirect(format!("{to}/big_file_upload?file_name=a"))));
    let (_dir, path) = file("a", b"content");
    let (_token_dir, token) = file("token", b"bigup_1\n");
    for (args, code) in [(&["push", &path, "--retries", "0"][..], 1), (&["status"], 1), (&["verify", &path], 2)] {
        mock.run(&[args, &["--token-file", &token]].concat()).failed_with(code, "307");
    }
    assert_eq!(other.requests().len(), 0);
}

// Windows has no such address for this machine.
#[cfg(unix)]
#[test]
fn a_token_in_plain_text_over_a_network_is_warned_of_once() {
    let (_dir, path) = file("a", &bytes(4 * K));
    let (_token_dir, token) = file("token", b"bigup_1\n");
    let mock = Mock::new();
    // This machine, by an address that does not say so.
    let url = mock.url.replace("127.0.0.1", "[::ffff:127.0.0.1]");
    let args = ["push", &path, "--slice-size", "1K", "--url", &url];
    let warned = mock.run(&[&args[..], &["--token-file", &token]].concat()).ok();
    assert_eq!(warned.err().matches("plain text").count(), 1, "{}", warned.err());
    assert!(!warned.err().contains("bigup_1"));
    assert!(!mock.run(&args).ok().err().contains("plain text"));
    let local = mock.run(&["push", &path, "--token-file", &token]).ok();
    assert!(!local.err().contains("plain text"), "{}", local.err());
}

#[test]
fn a_token_is_in_no_log() {
    let mock = Mock::new();
    let (_dir, path) = file("a", &bytes(4 * K));
    let (_token_dir, token) = file("token", b"bigup_1\n");
    let mut command = mock.command(&["push", &path, "--slice-size", "1K", "--token-file", &token]);
    let run = common::Run(started(|| command.env("BIGUP_LOG", "trace,ureq_proto=trace").output())).ok();
    assert_eq!(sent(&mock), bearer("bigup_1"));
    let log = run.err();
    assert!(log.contains("TRACE ureq") && log.contains("HEADERS ARE REDACTED"), "there is a log: {log}");
    assert!(!log.contains("bigup_1") && !run.out().contains("bigup_1"), "{log}");
    // A dump of bytes, in lines of 16, would hide it from this test and not from people.
    assert!(!log.contains("POST./big_file_u"), "{log}");
}
