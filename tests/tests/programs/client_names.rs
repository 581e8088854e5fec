//! The names that pushed files get: folders of the server, and the folder that a token is for.

use bigup_tests::daemon::Daemon;
use bigup_tests::{data, programs};
use std::path::Path;
use std::process::{Command, Output};

fn new_token(daemon: &Daemon, name: &str, arguments: &[&str]) -> String {
    let mut bigupd = Command::new(programs::path("bigupd"));
    let output =
        bigupd.arg("--data-dir").arg(daemon.data()).args(["token", "new", name]).args(arguments).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn push(daemon: &Daemon, token: &str, paths: &[&Path], arguments: &[&str]) -> Output {
    let mut cli = programs::cli();
    cli.args(["push", "--url", daemon.url()]).args(paths).args(arguments).env("BIGUP_TOKEN", token);
    cli.output().expect("the client can be started")
}

#[test]
fn a_token_puts_files_into_its_folder_unless_a_name_is_given() {
    let daemon = Daemon::start();
    let token = new_token(&daemon, "alice", &["--prefix", "alice", "--permissions", "push"]);
    let (a, b) = (data::file(&daemon.scratch(), "a", 1, 10), data::file(&daemon.scratch(), "alice/b", 2, 2_000_000));
    let output = push(&daemon, &token, &[&a, b.parent().unwrap()], &[]);
    assert!(output.status.success(), "{output:?}");
    assert!(data::same(&a, &daemon.finished("alice/a")) && data::same(&b, &daemon.finished("alice/b")));
    let output = push(&daemon, &token, &[&a, &b], &["--into", "alice/runs/2026/"]);
    assert!(output.status.success(), "{output:?}");
    assert!(data::same(&b, &daemon.finished("alice/runs/2026/b")));
    for arguments in [["--name", "c"], ["--into", "bob/"]] {
        let output = push(&daemon, &token, &[&a], &arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(1) && said.contains("under alice/"), "{said}");
    }
}

#[test]
fn a_token_that_does_not_count_ends_a_push_with_the_reason() {
    let daemon = Daemon::start();
    new_token(&daemon, "alice", &[]);
    let a = data::file(&daemon.scratch(), "a", 1, 10);
    let output = push(&daemon, "bigup_wrong", &[&a], &[]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && said.contains("the token is none of this server's"), "{said}");
}
