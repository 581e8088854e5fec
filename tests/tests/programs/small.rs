//! Many small files in one push, several at a time: each is exact, synced and stamped before it is told, whoever dies
//! meanwhile; and of two that want one name at once one gets it.
//!
//! `BIGUP_SEED` sets what is killed when.

use bigup_tests::daemon::{Daemon, list};
use bigup_tests::data::{self, Dice};
use bigup_tests::process::{PATIENCE, eventually};
use bigup_tests::programs;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Barrier;
use std::time::{Duration, Instant};

/// Makes `number` files below `folder`, of all small sizes, in folders and under names that need escaping; their names.
fn tree(folder: &Path, number: u64) -> Vec<String> {
    let place = |i: u64| match i % 5 {
        0 => format!("f{i}"),
        1 => format!("sub/f{i}"),
        2 => format!("sub/deep er/%41 & ü+[{i}]"),
        3 => format!("{}/f{i}", i / 50),
        _ => format!("sub/other/#{i};=?.txt"),
    };
    let len = |i: u64| match i % 7 {
        0 => 0,
        1 => 1,
        2 => 4096,
        _ => (i * 7919) % 20_000,
    };
    (0..number)
        .map(|i| {
            data::file(folder, &place(i), i, len(i));
            place(i)
        })
        .collect()
}

fn push(daemon: &Daemon, arguments: &[&str]) -> Command {
    let mut command = programs::cli();
    command.arg("push").args(["--url", daemon.url()]).args(arguments).stdin(Stdio::null());
    command
}

fn text(path: &Path) -> &str {
    path.to_str().expect("paths of tests are UTF-8")
}

fn events(output: &Output) -> Vec<Value> {
    let out = String::from_utf8_lossy(&output.stdout);
    out.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

fn of<'a>(events: &'a [Value], kind: &str) -> Vec<&'a Value> {
    events.iter().filter(|event| event["event"] == kind).collect()
}

/// All files below `folder`, relative to it.
fn files_below(folder: &Path) -> BTreeSet<PathBuf> {
    let (mut found, mut left) = (BTreeSet::new(), vec![folder.to_owned()]);
    while let Some(next) = left.pop() {
        for name in list(&next) {
            let path = next.join(name);
            if path.is_dir() {
                left.push(path);
            } else {
                found.insert(path.strip_prefix(folder).expect("it is below").to_owned());
            }
        }
    }
    found
}

#[test]
fn a_folder_of_small_files_arrives_exact_and_what_fails_fails_alone() {
    let daemon = Daemon::start();
    let folder = daemon.scratch().join("tree");
    let names = tree(&folder, 300);
    // One that exists with other content, one that cannot have its name on the server, two that are not small.
    fs::create_dir_all(daemon.finished("tree")).unwrap();
    fs::write(daemon.finished("tree").join(&names[10]), "other").unwrap();
    fs::write(folder.join(std::ffi::OsStr::from_bytes(b"\xff")), "x").unwrap();
    let large = ["large", "sub/large"];
    large.iter().for_each(|name| drop(data::file(&folder, name, 1, 3 << 20)));

    let output = push(&daemon, &[text(&folder), "--json"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let told = events(&output);
    assert_eq!((of(&told, "done").len(), of(&told, "error").len()), (301, 2), "{told:?}");
    let refused = of(&told, "error").into_iter().find(|e| e["file_name"] == format!("tree/{}", names[10])).unwrap();
    assert!(refused["message"].as_str().unwrap().contains("--replace"), "{refused}");
    assert_eq!(fs::read(daemon.finished("tree").join(&names[10])).unwrap(), b"other");
    for name in names.iter().map(String::as_str).chain(large).filter(|name| *name != names[10]) {
        assert!(data::same(&folder.join(name), &daemon.finished("tree").join(name)), "{name}");
        let whole = format!("tree/{name}");
        let done = of(&told, "done").into_iter().find(|event| event["file_name"] == whole).unwrap();
        assert_eq!(done["file_digest"], data::digest(&folder.join(name)));
        let kinds: Vec<&Value> = told.iter().filter(|e| e["file_name"] == whole).map(|e| &e["event"]).collect();
        let len = fs::metadata(folder.join(name)).unwrap().len();
        assert!((len == 0 || kinds[0] == "start") && kinds[kinds.len() - 1] == "done", "{name}: {kinds:?}");
        let is_large = len > 1 << 20;
        assert!(done["finish_seconds"].as_f64().is_some_and(|time| (time > 0.0) == is_large), "{done}");
    }

    // The digests and sources are kept: nothing is sent again.
    let stored = || daemon.log().matches(" stored, ").count();
    let before = stored();
    let output = push(&daemon, &[text(&folder), "--json"]).output().unwrap();
    let again = events(&output);
    assert_eq!(of(&again, "done").len(), 301);
    for done in of(&again, "done") {
        assert!(done["bytes_sent"] == 0 && (done["already"] == true || done["file_size"] == 0), "{done}");
    }
    assert_eq!(stored(), before);
    let output = push(&daemon, &[text(&folder), "--replace"]).output().unwrap();
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(out.contains("302 files") && out.contains("1 failed"), "{out}");
    assert!(data::same(&folder.join(&names[10]), &daemon.finished("tree").join(&names[10])));
    daemon.eventually_clean();
}

#[test]
fn kills_leave_nothing_partial_and_nothing_over() {
    let seed = std::env::var("BIGUP_SEED").ok().map_or(1, |text| text.parse().expect("it is a number"));
    let (mut daemon, mut dice) = (Daemon::start(), Dice::new(seed));
    for round in 0..8 {
        let top = format!("tree{round}");
        let folder = daemon.scratch().join(&top);
        let names = tree(&folder, 300);
        let deadline = Instant::now() + PATIENCE;
        let mut told = BTreeSet::new();
        loop {
            assert!(Instant::now() < deadline, "the push does not end, seed {seed}");
            let client = push(&daemon, &[text(&folder), "--json"]).stdout(Stdio::piped()).spawn().unwrap();
            let pid = nix::unistd::Pid::from_raw(client.id() as i32);
            let waiter = std::thread::spawn(move || client.wait_with_output().unwrap());
            std::thread::sleep(Duration::from_millis(20 + dice.below(400)));
            if dice.below(2) == 0 {
                daemon.kill_9();
                daemon.run();
            } else {
                // It may have ended.
                let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
            }
            let output = waiter.join().unwrap();
            for line in String::from_utf8_lossy(&output.stdout).lines() {
                // A client that is killed may leave half a line.
                let Ok(event) = serde_json::from_str::<Value>(line) else { continue };
                if event["event"] == "done" {
                    told.insert(event["file_name"].as_str().unwrap().to_owned());
                }
            }
            for name in &told {
                assert!(daemon.finished(name).is_file(), "{name} was told, seed {seed}");
            }
            for path in files_below(&daemon.data().join("files").join(&top)) {
                let finished = daemon.data().join("files").join(&top).join(&path);
                assert!(data::same(&folder.join(&path), &finished), "{} is wrong, seed {seed}", path.display());
            }
            if output.status.success() {
                break;
            }
        }
        assert_eq!(files_below(&daemon.data().join("files").join(&top)).len(), names.len());
    }
    daemon.eventually_clean();
    // Whatever a kill left is hidden.
    eventually("no upload is left", || daemon.spools().iter().all(|name| name.starts_with('.')));
}

/// A link replaces nothing, so the first one stays, and all who bring the same content are told that it is finished.
#[test]
fn of_two_contents_at_once_one_gets_the_name() {
    let daemon = Daemon::start();
    let contents = [data::bytes(1, 4000), data::bytes(2, 4000)];
    for round in 0..30 {
        let (name, start) = (format!("d{round}/f"), Barrier::new(8));
        let statuses: Vec<(usize, u16, Value)> = std::thread::scope(|scope| {
            let post = |who: usize| {
                let (server, which) = (daemon.server(), who % 2);
                let query = format!("file_name={name}&slice_id=0&slice_num=1&slice_size=4000&source=s{which}");
                start.wait();
                let answer = server.post(&query, &contents[which]);
                (which, answer.status, answer.body)
            };
            let posts: Vec<_> = (0..8).map(|who| scope.spawn(move || post(who))).collect();
            posts.into_iter().map(|post| post.join().unwrap()).collect()
        });
        let finished = fs::read(daemon.finished(&name)).unwrap();
        let winner = contents.iter().position(|content| *content == finished).expect("it is one of the two");
        for (which, status, body) in statuses {
            let is_right = if which == winner {
                status == 200 && body["is_uploaded"] == 1
            } else {
                status == 409 && (body["error"] == "exists" || body["error"] == "busy")
            };
            assert!(is_right, "round {round}, winner {winner}: {which} got {status}, {body}");
        }
    }
    daemon.eventually_clean();
}

/// Slices of an upload that has begun go on to it, in whatever way they are sent.
#[test]
fn an_upload_that_has_begun_is_gone_on_with() {
    let daemon = Daemon::start();
    let (server, content) = (daemon.server(), data::bytes(1, 4000));
    server.get("file_name=f&slice_num=1&file_size=4000&source=s").expect(200);
    let query = "file_name=f&slice_id=0&slice_num=1&slice_size=4000&file_size=4000&source=";
    assert_eq!(server.post(&format!("{query}other"), &content).expect(409).body["error"], "busy");
    assert_eq!(server.post(&format!("{query}s"), &content).expect(200).body["is_uploaded"], 1);
    assert_eq!(server.post(&format!("{query}other"), &content).expect(200).body["is_uploaded"], 1);
    assert!(fs::read(daemon.finished("f")).unwrap() == content);
    daemon.eventually_clean();
}

/// What the whole file must be is compared before it has a name.
#[test]
fn a_file_that_is_not_what_was_promised_gets_no_name() {
    let daemon = Daemon::start();
    let (server, content) = (daemon.server(), data::bytes(1, 4000));
    let query = "file_name=f&slice_id=0&slice_num=1&slice_size=4000";
    let wrong = "0".repeat(64);
    let refused = server.post(&format!("{query}&slice_digest=hash:{wrong}"), &content).expect(400);
    assert_eq!(refused.body["error"], "damaged");
    let refused = server.post(&format!("{query}&file_digest={wrong}"), &content).expect(409);
    assert!(refused.message().contains("as promised"), "{refused:?}");
    let sha256 = ("Content-Digest", "sha-256=:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:");
    assert_eq!(server.post_with(query, sha256, &content).expect(400).body["error"], "damaged");
    assert_eq!(list(&daemon.data().join("files")), Vec::<String>::new());
    assert_eq!(daemon.spools(), Vec::<String>::new());
}
