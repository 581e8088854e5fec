//! Folders without files: made by PUT, and by `--empty-folders` of the client.

use super::content::{Reply, send};
use bigup_tests::daemon::{Daemon, list};
use bigup_tests::http::{forty_at_once, raw};
use bigup_tests::programs::{self, succeed};
use serde_json::Value;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

fn put(daemon: &Daemon, path: &str, headers: &[&str]) -> Reply {
    send(daemon.url(), &format!("PUT /content/{path}"), headers)
}

fn cli(daemon: &Daemon, arguments: &[&str]) -> Command {
    let mut command = programs::cli();
    command.args(arguments).args(["--url", daemon.url()]).current_dir(daemon.scratch());
    command
}

fn files(daemon: &Daemon) -> PathBuf {
    daemon.data().join("files")
}

/// A folder `tree` with a file, and folders with nothing to be pushed.
fn make_tree(daemon: &Daemon) {
    let tree = daemon.scratch().join("tree");
    for folder in ["a/b/empty", "a/full", "c", "only temporary", "left out/inner"] {
        fs::create_dir_all(tree.join(folder)).unwrap();
    }
    fs::write(tree.join("a/full/file"), "content").unwrap();
    fs::write(tree.join("only temporary/x.tmp"), "content").unwrap();
}

#[test]
fn a_put_without_a_body_makes_a_folder_once() {
    let daemon = Daemon::start();
    assert_eq!(put(&daemon, "a/b%20c/", &["Content-Length: 0"]).expect(201).header("location"), "/content/a/b%20c/");
    assert!(files(&daemon).join("a/b c").is_dir());
    put(&daemon, "a/b%20c/", &[]).expect(204);
    put(&daemon, "a/", &[]).expect(204);
    assert!(files(&daemon).join("a/b c").is_dir());
    for (path, rest, says) in [
        ("x/", "Content-Length: 5\r\n\r\nhello", "5 bytes"),
        ("x/", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", "a body"),
        ("../x/", "Content-Length: 0\r\n\r\n", "name"),
        ("x//", "Content-Length: 0\r\n\r\n", "name"),
    ] {
        let request = format!("PUT /content/{path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{rest}");
        let refused = raw(daemon.url(), request.as_bytes());
        assert!(refused.starts_with("HTTP/1.1 400") && refused.contains(says), "{path}: {refused}");
    }
    put(&daemon, "", &["Content-Length: 0"]).expect(405);
    assert_eq!(list(&files(&daemon)), ["a"]);
    // A file takes its place, and then is in the way.
    let server = daemon.server();
    server.post("file_name=a/b%20c&slice_id=0&slice_num=1&slice_size=1", b"x").expect(200);
    assert!(files(&daemon).join("a/b c").is_file());
    let refused = put(&daemon, "a/b%20c/d/", &[]).expect(409);
    assert_eq!(refused.error(), "conflict");
    assert_eq!(put(&daemon, "a/b%20c/", &[]).expect(409).error(), "conflict");
}

#[test]
fn a_token_makes_folders_below_its_prefix_and_within_its_quota_also_forty_at_once() {
    let daemon = Daemon::start();
    let token = |arguments: &[&str]| {
        let mut command = Command::new(programs::path("bigupd"));
        command.args(["token", "new"]).args(arguments).arg("--data-dir").arg(daemon.data());
        format!("Authorization: Bearer {}", succeed(command).trim())
    };
    let own = token(&["t", "--prefix", "own", "--max-files", "10"]);
    let reader = token(&["r", "--prefix", "own", "--permissions", "read"]);
    put(&daemon, "own/x/", &[]).expect(401);
    put(&daemon, "own/x/", &[&reader]).expect(403);
    put(&daemon, "other/x/", &[&own]).expect(403);
    assert!(list(&files(&daemon)).is_empty());
    let statuses = forty_at_once(|i| put(&daemon, &format!("own/f{i}/"), &[&own]).status);
    let made = list(&files(&daemon).join("own")).len();
    assert!((1..=10).contains(&made), "{made} were made: {statuses:?}");
    assert!(statuses.iter().all(|status| [201, 413, 429, 503].contains(status)), "{statuses:?}");
}

#[test]
fn the_client_makes_folders_in_which_nothing_is_pushed() {
    let daemon = Daemon::start();
    make_tree(&daemon);
    let options = ["--empty-folders", "--exclude", "*.tmp", "--exclude", "left out/"];
    succeed(cli(&daemon, &["push", "tree"]));
    assert_eq!(list(&files(&daemon).join("tree")), ["a", "only temporary"], "only on request");
    let other = Daemon::start();
    make_tree(&other);
    let pushed = succeed(cli(&other, &[&["push", "tree", "--into", "in/", "--json"], &options[..]].concat()));
    let events: Vec<Value> = pushed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let folders: Vec<&Value> = events.iter().filter(|e| e["event"] == "folder").map(|e| &e["file_name"]).collect();
    assert_eq!(folders, ["in/tree/a/b/empty/", "in/tree/c/", "in/tree/only temporary/"]);
    let tree = files(&other).join("in/tree");
    assert_eq!(list(&tree), ["a", "c", "only temporary"]);
    assert!(tree.join("a/b/empty").is_dir() && tree.join("a/full/file").is_file());
    // Again, and by sync, which tells it beforehand.
    succeed(cli(&other, &[&["push", "tree", "--into", "in/"], &options[..]].concat()));
    let sync = |more: &[&str]| succeed(cli(&other, &[&["sync", "tree", "synced/", "--empty-folders"], more].concat()));
    assert!(sync(&["--dry-run"]).contains("make: synced/c/"));
    assert!(!files(&other).join("synced").exists());
    sync(&[]);
    assert!(files(&other).join("synced/a/b/empty").is_dir() && files(&other).join("synced/left out/inner").is_dir());
}

#[test]
fn a_folder_that_cannot_be_made_is_an_error_and_the_rest_is_done() {
    let daemon = Daemon::start();
    make_tree(&daemon);
    fs::create_dir(files(&daemon).join("tree")).unwrap();
    fs::write(files(&daemon).join("tree/c"), "a file").unwrap();
    let output = cli(&daemon, &["push", "tree", "--empty-folders"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && said.contains("tree/c/"), "{said}");
    assert!(files(&daemon).join("tree/left out/inner").is_dir() && files(&daemon).join("tree/a/full/file").is_file());
}
