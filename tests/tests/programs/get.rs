//! Fetching finished files with the real client: each byte is checked, nothing is fetched twice, and no local file is
//! lost. Lists, removal and cancellation by the client.

use bigup_tests::daemon::{Daemon, list};
use bigup_tests::data::{self, Dice};
use bigup_tests::http::{address, connect};
use bigup_tests::process::{eventually, kill_9};
use bigup_tests::programs::{self, succeed};
use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

const MIB: u64 = 1 << 20;

fn cli(url: &str, arguments: &[&str]) -> Command {
    let mut command = programs::cli();
    command.args(arguments).args(["--url", url]);
    command
}

/// All that a command printed which must fail.
#[track_caller]
fn fail(mut command: Command) -> String {
    let Output { status, stdout, stderr } = command.output().expect("the client can be started");
    let said = String::from_utf8_lossy(&[stderr, stdout].concat()).into_owned();
    assert_eq!(status.code(), Some(1), "{said}");
    said
}

/// Pushes a file in slices of 256 KiB, so that the server keeps digests of its parts.
fn push(daemon: &Daemon, path: &Path, name: &str) {
    let path = path.to_str().unwrap();
    succeed(cli(daemon.url(), &["push", path, "--name", name, "--slice-size", "256K", "--replace", "-q"]));
}

fn text(path: &Path) -> &str {
    path.to_str().expect("paths of tests are UTF-8")
}

/// The last event of this kind in the output of a command with `--json`.
fn event(output: &str, name: &str) -> Value {
    let mut events = output.lines().map(|line| serde_json::from_str::<Value>(line).expect("a line is JSON"));
    events.rfind(|event| event["event"] == name).unwrap_or_else(|| panic!("no {name} in {output}"))
}

/// Starts a slow `get`, and waits until so many bytes are there.
fn begin_slow(daemon: &Daemon, arguments: &[&str], bytes: u64) -> Child {
    let mut get = cli(daemon.url(), arguments);
    get.args(["--json", "--limit-rate", "6M"]).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = get.spawn().expect("the client can be started");
    let lines = BufReader::new(child.stdout.take().expect("it is a pipe")).lines();
    let mut events = lines.map_while(Result::ok).map(|line| serde_json::from_str::<Value>(&line).unwrap());
    let is_there = |event: Value| event["bytes_stored"].as_u64().is_some_and(|stored| stored >= bytes);
    assert!(events.any(is_there), "it ended before {bytes} bytes were there");
    // It goes on to write to the pipe, which must not end it.
    thread::spawn(move || events.for_each(drop));
    child
}

#[test]
fn files_of_all_sizes_come_back_as_they_were() {
    let daemon = Daemon::start();
    let folder = daemon.scratch().join("tree");
    let sizes = [0, 1, MIB - 1, MIB, MIB + 1, 3 * MIB, 20 * MIB + 7];
    for (number, size) in sizes.into_iter().enumerate() {
        let name = format!("d{}/f{number}", number % 2);
        push(&daemon, &data::file(&folder, &name, size, size), &format!("tree/{name}"));
    }
    let listed = succeed(cli(daemon.url(), &["list", "tree/d1/"]));
    assert_eq!(
        listed.lines().map(|line| line.rsplit(' ').next().unwrap()).collect::<Vec<_>>(),
        ["tree/d1/f1", "tree/d1/f3", "tree/d1/f5"]
    );
    let to = daemon.scratch().join("to");
    let said = succeed(cli(daemon.url(), &["get", "tree/", text(&to)]));
    assert!(said.contains(&format!("{} files, ", sizes.len())), "{said}");
    for number in 0..sizes.len() {
        let name = format!("tree/d{}/f{number}", number % 2);
        assert!(data::same(&daemon.finished(&name), &to.join(&name)), "{name}");
        assert!(!list(to.join(&name).parent().unwrap()).iter().any(|name| name.starts_with('.')), "{name}");
        let time = |path: &Path| fs::metadata(path).unwrap().modified().unwrap();
        let (here, there) = (time(&to.join(&name)), time(&daemon.finished(&name)));
        assert!(here.duration_since(there).or_else(|e| Ok::<_, ()>(e.duration())).unwrap().as_secs() < 1, "{name}");
    }
    let mut get = cli(daemon.url(), &["get", "tree/d0/f6"]);
    get.current_dir(daemon.scratch());
    assert!(succeed(get).contains(&data::digest(&daemon.finished("tree/d0/f6"))));
    assert!(data::same(&daemon.finished("tree/d0/f6"), &daemon.scratch().join("f6")));
    assert!(fail(cli(daemon.url(), &["get", "tree/none"])).contains("there is no finished file tree/none"));
}

#[test]
fn a_killed_download_goes_on_and_fetches_nothing_again() {
    let daemon = Daemon::start();
    let size = 24 * MIB;
    push(&daemon, &data::file(&daemon.scratch(), "f", 1, size), "f");
    let to = daemon.scratch().join("to/f");
    let mut dice = Dice::new(1);
    for part in 1..=3 {
        let bytes = part * 4 * MIB + dice.below(MIB);
        let mut child = begin_slow(&daemon, &["get", "f", text(&to)], bytes);
        kill_9(&mut child);
        assert!(!to.exists());
    }
    let done = event(&succeed(cli(daemon.url(), &["get", "f", text(&to), "--json"])), "done");
    assert!(done["bytes_held"].as_u64().unwrap() >= 12 * MIB, "{done}");
    assert!(data::same(&daemon.finished("f"), &to));
    assert_eq!(list(to.parent().unwrap()), ["f"]);
}

#[test]
fn two_downloads_to_one_place_do_not_mix() {
    let daemon = Daemon::start();
    push(&daemon, &data::file(&daemon.scratch(), "f", 1, 24 * MIB), "f");
    let to = daemon.scratch().join("to");
    let mut first = begin_slow(&daemon, &["get", "f", text(&to)], MIB);
    assert!(fail(cli(daemon.url(), &["get", "f", text(&to)])).contains("another download is at work"));
    kill_9(&mut first);
    succeed(cli(daemon.url(), &["get", "f", text(&to)]));
    assert!(data::same(&daemon.finished("f"), &to));
}

#[test]
fn of_a_file_that_is_here_only_the_difference_is_fetched_and_only_on_request() {
    let daemon = Daemon::start();
    let size = 16 * MIB;
    let (file, to) = (data::file(&daemon.scratch(), "f", 1, size), daemon.scratch().join("to"));
    push(&daemon, &file, "f");
    fs::copy(&file, &to).unwrap();
    let done = event(&succeed(cli(daemon.url(), &["get", "f", text(&to), "--json"])), "done");
    assert!(done["already"] == true && done["bytes_received"] == 0, "{done}");
    let mut bytes = fs::read(&to).unwrap();
    bytes[5 * MIB as usize] ^= 1;
    bytes.truncate(bytes.len() - 10);
    fs::write(&to, &bytes).unwrap();
    let said = fail(cli(daemon.url(), &["get", "f", text(&to)]));
    assert!(said.contains("other content (--replace replaces it)"), "{said}");
    assert_eq!(fs::read(&to).unwrap(), bytes);
    let done = event(&succeed(cli(daemon.url(), &["get", "f", text(&to), "--replace", "--json"])), "done");
    let received = done["bytes_received"].as_u64().unwrap();
    assert!((1..=2 * MIB).contains(&received), "{done}");
    assert!(data::same(&file, &to));
}

#[test]
fn a_local_file_that_changes_meanwhile_is_not_replaced() {
    let daemon = Daemon::start();
    push(&daemon, &data::file(&daemon.scratch(), "f", 1, 12 * MIB), "f");
    for before in [None, Some(b"old")] {
        let to = daemon.scratch().join(format!("to{}", u8::from(before.is_some())));
        let _ = before.map(|content| fs::write(&to, content).unwrap());
        let mut child = begin_slow(&daemon, &["get", "f", text(&to), "--replace"], MIB);
        fs::write(&to, "somebody's work").unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(1));
        assert_eq!(fs::read(&to).unwrap(), b"somebody's work");
        // What was fetched is not lost either.
        let done = event(&succeed(cli(daemon.url(), &["get", "f", text(&to), "--replace", "--json"])), "done");
        assert_eq!(done["bytes_received"], 0, "{done}");
        assert!(data::same(&daemon.finished("f"), &to));
    }
}

#[test]
fn standard_output_gets_checked_bytes_in_order() {
    let daemon = Daemon::start();
    push(&daemon, &data::file(&daemon.scratch(), "f", 1, 24 * MIB + 5), "f");
    push(&daemon, &data::file(&daemon.scratch(), "small", 2, 5), "small");
    for name in ["f", "small"] {
        let output = cli(daemon.url(), &["get", name, "--to", "-"]).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        assert!(output.stdout == fs::read(daemon.finished(name)).unwrap(), "{name}");
    }
}

/// Relays requests to a daemon, and changes the byte at `offset` of a file in the first `times` responses that have it.
fn lying(url: &str, offset: u64, times: usize) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let here = format!("http://{}", listener.local_addr().unwrap());
    let (url, lies) = (url.to_owned(), Arc::new(AtomicUsize::new(times)));
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (url, lies) = (url.clone(), Arc::clone(&lies));
            // A client that goes away is none of our concern.
            thread::spawn(move || drop(relay(&stream, &url, offset, &lies)));
        }
    });
    here
}

fn relay(mut stream: &TcpStream, url: &str, offset: u64, lies: &AtomicUsize) -> std::io::Result<()> {
    let mut head = String::new();
    let mut reader = BufReader::new(stream);
    while !head.ends_with("\r\n\r\n") && reader.read_line(&mut head)? > 0 {}
    let head = head.replacen("\r\n", "\r\nConnection: close\r\n", 1);
    let mut server = connect(url);
    server.write_all(head.as_bytes())?;
    let mut answer = vec![];
    server.read_to_end(&mut answer)?;
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").map_or(0, |at| at + 4);
    let range = String::from_utf8_lossy(&answer[..end]).to_lowercase();
    let range = range.split("content-range: bytes ").nth(1).and_then(|rest| rest.split('/').next());
    if let Some((first, last)) = range.and_then(|range| range.split_once('-'))
        && (first.parse().unwrap()..=last.parse().unwrap()).contains(&offset)
        && lies.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
    {
        answer[end + (offset - first.parse::<u64>().unwrap()) as usize] ^= 1;
    }
    stream.write_all(&answer)
}

#[test]
fn a_wrong_byte_is_fetched_again_once_and_then_named() {
    let daemon = Daemon::start();
    push(&daemon, &data::file(&daemon.scratch(), "f", 1, 16 * MIB), "f");
    let (offset, to) = (5 * MIB + 17, daemon.scratch().join("to"));
    let url = lying(daemon.url(), offset, 1);
    assert!(!address(&url).is_empty());
    let output = cli(&url, &["get", "f", text(&to)]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("are wrong: they are fetched again"), "{output:?}");
    assert!(data::same(&daemon.finished("f"), &to));
    let (url, to) = (lying(daemon.url(), offset, usize::MAX), daemon.scratch().join("wrong"));
    let said = fail(cli(&url, &["get", "f", text(&to)]));
    let (first, rest) = said.split_once("the bytes ").unwrap().1.split_once(" to ").unwrap();
    let (first, last): (u64, u64) = (first.parse().unwrap(), rest.split(' ').next().unwrap().parse().unwrap());
    let _ = said.rsplit_once("the server's file is damaged").expect("it is said");
    assert!((first..=last).contains(&offset) && last - first < MIB, "{said}");
    assert!(!to.exists());
    let output = cli(&url, &["get", "f", "--to", "-"]).output().unwrap();
    assert!(!output.status.success());
    assert!(fs::read(daemon.finished("f")).unwrap().starts_with(&output.stdout), "a wrong byte went out");
}

#[test]
fn a_file_that_somebody_put_there_is_read_by_the_server_first() {
    let daemon = Daemon::start();
    let file = data::file(&daemon.data().join("files"), "put", 1, 3 * MIB);
    let to = daemon.scratch().join("to");
    succeed(cli(daemon.url(), &["get", "put", text(&to)]));
    assert!(data::same(&file, &to));
}

#[test]
fn files_are_removed_and_uploads_cancelled_by_their_names() {
    let daemon = Daemon::start();
    for name in ["a", "d/b", "d/c"] {
        push(&daemon, &data::file(&daemon.scratch(), "f", 1, 10), name);
    }
    daemon.server().get("file_name=u&source=s&slice_size=1024&file_size=4096").expect(200);
    assert!(succeed(cli(daemon.url(), &["remove", "a"])).contains("a: removed"));
    assert!(fail(cli(daemon.url(), &["remove", "a"])).contains("there is no finished file"));
    assert!(fail(cli(daemon.url(), &["remove", "d/"])).contains("--recursive"));
    succeed(cli(daemon.url(), &["remove", "-r", "d/"]));
    assert_eq!(succeed(cli(daemon.url(), &["list"])), "");
    assert!(succeed(cli(daemon.url(), &["cancel", "u"])).contains("u: cancelled, with the 0 B"));
    assert!(fail(cli(daemon.url(), &["cancel", "u"])).contains("there is no unfinished upload"));
    let status: Value = serde_json::from_str(&succeed(cli(daemon.url(), &["status", "--json"]))).unwrap();
    assert_eq!(status["uploads"], serde_json::json!([]));
}

#[test]
fn an_upload_is_cancelled_by_the_token_that_began_it_or_may_delete() {
    let daemon = Daemon::start();
    let token = |name: &str, permissions: &str| {
        let mut bigupd = Command::new(programs::path("bigupd"));
        bigupd.arg("--data-dir").arg(daemon.data()).args(["token", "new", name, "--permissions", permissions]);
        String::from_utf8(bigupd.output().unwrap().stdout).unwrap().trim().to_owned()
    };
    let (own, other, deletes) = (token("own", "push"), token("other", "push,read"), token("deletes", "delete"));
    let begin =
        || daemon.server().with_token(&own).get("file_name=u&source=s&slice_size=1024&file_size=4096").expect(200);
    let cancel = |token: &str| {
        let mut cancel = cli(daemon.url(), &["cancel", "u"]);
        cancel.env("BIGUP_TOKEN", token).output().unwrap().status.code()
    };
    begin();
    assert_eq!((cancel(&other), cancel(&own)), (Some(1), Some(0)));
    daemon.server().with_token(&own).get("file_name=u&source=t&slice_size=1024&file_size=4096").expect(200);
    assert_eq!(cancel(&deletes), Some(0));
}

#[test]
fn a_manifest_tells_what_the_server_must_have() {
    let daemon = Daemon::start();
    let (a, b) = (data::file(&daemon.scratch(), "a", 1, 10), data::file(&daemon.scratch(), "b", 2, 3 * MIB));
    let manifest = daemon.scratch().join("run.b3");
    succeed(cli(daemon.url(), &["push", text(&a), text(&b), "--into", "runs/", "--manifest", text(&manifest)]));
    let lines = format!("{}  runs/a\n{}  runs/b\n", data::digest(&a), data::digest(&b));
    assert_eq!(fs::read_to_string(&manifest).unwrap(), lines);
    let said = succeed(cli(daemon.url(), &["verify", "--manifest", text(&manifest)]));
    assert!(said.ends_with("2 files equal, 0 not\n"), "{said}");
    push(&daemon, &a, "runs/b");
    let said = fail(cli(daemon.url(), &["verify", "--manifest", text(&manifest)]));
    assert!(said.contains("runs/b: DIFFERS") && said.contains("1 file equal, 1 not"), "{said}");
}

/// Runs `sync` with a cache in `cache`.
fn sync(daemon: &Daemon, cache: &Path, arguments: &[&str]) -> Command {
    let mut command = cli(daemon.url(), &[&["sync"], arguments].concat());
    command.env("XDG_CACHE_HOME", cache);
    command
}

#[test]
fn a_folder_is_made_the_same_on_the_server() {
    let daemon = Daemon::start();
    let (tree, cache) = (daemon.scratch().join("tree"), daemon.scratch().join("cache"));
    for (name, size) in [("a", 10), ("sub/b", 3 * MIB), ("sub/c", 20), ("sub/keep.tmp", 5)] {
        data::file(&tree, name, size, size);
    }
    // Of a file at rest the cache notes the digest, so that a change is seen although the time is set back.
    let aged = |name: &str| fs::metadata(tree.join(name)).unwrap().modified().unwrap().elapsed().unwrap().as_secs() > 3;
    eventually("the files have not changed for a while", || aged("sub/keep.tmp"));
    let tree_text = text(&tree).to_owned();
    let run = |arguments: &[&str]| sync(&daemon, &cache, &[&[tree_text.as_str(), "x/tree/"], arguments].concat());
    assert!(succeed(run(&["--exclude", "*.tmp"])).contains("3 files, "));
    push(&daemon, &tree.join("sub/keep.tmp"), "x/tree/sub/keep.tmp");
    push(&daemon, &tree.join("a"), "x/tree/gone");
    push(&daemon, &tree.join("a"), "x/treehouse");
    assert!(succeed(run(&["--exclude", "*.tmp"])).ends_with("3 files unchanged, 0 deleted\n"));
    // The same size, and a time that was set back.
    let (b, time) = (tree.join("sub/b"), fs::metadata(tree.join("sub/b")).unwrap().modified().unwrap());
    data::file(&tree, "sub/b", 7, 3 * MIB);
    fs::File::options().write(true).open(&b).unwrap().set_modified(time).unwrap();
    let would = succeed(run(&["--exclude", "*.tmp", "--delete", "--dry-run"]));
    let lines: Vec<&str> = would.lines().collect();
    let (send, delete) = ("send: x/tree/sub/b: other content", "delete: x/tree/gone: not here");
    assert_eq!(lines, [send, delete, "1 file would be sent; 2 are the same, 1 would be deleted"]);
    assert!(daemon.finished("x/tree/gone").exists());
    assert!(succeed(run(&["--exclude", "*.tmp", "--delete"])).ends_with("2 files unchanged, 1 deleted\n"));
    assert!(data::same(&b, &daemon.finished("x/tree/sub/b")) && !daemon.finished("x/tree/gone").exists());
    for kept in ["x/tree/sub/keep.tmp", "x/treehouse"] {
        assert!(daemon.finished(kept).exists(), "{kept}");
    }
    // A file that cannot be pushed keeps all on the server.
    fs::remove_file(tree.join("a")).unwrap();
    std::os::unix::fs::symlink("..", tree.join("sub/up")).unwrap();
    assert!(fail(run(&["--delete", "--follow-symlinks"])).contains("nothing was deleted"));
    assert!(daemon.finished("x/tree/a").exists());
}

#[test]
fn a_second_sync_reads_no_file_that_did_not_change() {
    let daemon = Daemon::start();
    let (tree, cache) = (daemon.scratch().join("tree"), daemon.scratch().join("cache"));
    let file = data::file(&tree, "a", 1, 10);
    // Times of a moment ago prove nothing.
    let aged = || fs::metadata(&file).unwrap().modified().unwrap().elapsed().unwrap().as_secs() > 3;
    eventually("the file has not changed for a while", aged);
    succeed(sync(&daemon, &cache, &[text(&tree), "x/"]));
    let noted = fs::read_dir(cache.join("bigup")).unwrap().next().unwrap().unwrap().path();
    let known = fs::read_to_string(&noted).unwrap();
    assert!(known.contains(&data::digest(&file)), "{known}");
    // The cache is what is asked, and not the file: only --checksum reads that.
    fs::write(&noted, known.replace(&data::digest(&file), &"0".repeat(64))).unwrap();
    let would =
        |arguments: &[&str]| succeed(sync(&daemon, &cache, &[&[text(&tree), "x/", "--dry-run"], arguments].concat()));
    assert!(would(&[]).contains("send: x/a: other content"));
    assert!(would(&["--checksum"]).starts_with("0 files would be sent; 1 are the same"));
}

#[test]
fn a_source_is_removed_once_it_is_stored_and_only_if_it_did_not_change() {
    let daemon = Daemon::start();
    let (a, b) = (data::file(&daemon.scratch(), "a", 1, 10), data::file(&daemon.scratch(), "b", 2, 12 * MIB));
    succeed(cli(daemon.url(), &["push", text(&a), "--remove-source"]));
    assert!(!a.exists() && daemon.finished("a").exists());
    push(&daemon, &b, "b");
    fs::write(&a, "other").unwrap();
    assert!(fail(cli(daemon.url(), &["push", text(&a), "--remove-source"])).contains("--replace"));
    assert!(a.exists());
}

#[test]
fn thousands_of_files_are_a_sum_and_some_have_lines_on_request() {
    let daemon = Daemon::start();
    let tree = daemon.scratch().join("tree");
    for number in 0..40 {
        data::file(&tree, &format!("f{number}"), number, 10);
    }
    let log = daemon.scratch().join("log");
    let said = succeed(cli(daemon.url(), &["push", text(&tree), "--log-file", text(&log)]));
    assert!(said.lines().count() == 1 && said.starts_with("40 files, 400 B stored in "), "{said}");
    assert!(fs::read_to_string(&log).unwrap().lines().count() > 80);
    let said = succeed(cli(daemon.url(), &["push", text(&tree), "-v"]));
    assert_eq!(said.lines().count(), 81, "{said}");
    let total = event(&succeed(cli(daemon.url(), &["push", text(&tree), "--json"])), "total");
    assert!(total["files"] == 40 && total["failed"] == 0 && total["bytes"] == 400, "{total}");
    let would = succeed(cli(daemon.url(), &["push", text(&tree), "--dry-run", "--exclude", "f1*"]));
    assert!(would.ends_with("0 files, 0 B would be sent; 29 stored already, 11 left out, 0 would fail\n"), "{would}");
}
