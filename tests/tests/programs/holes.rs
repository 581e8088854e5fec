//! Sparse files: holes are not sent, zeroes are stored as holes, and all is digested and counted as ever.

use bigup_tests::daemon::{Daemon, list};
use bigup_tests::data;
use bigup_tests::http::forty;
use bigup_tests::process::{eventually, kill_9};
use bigup_tests::programs::{self, succeed};
use serde_json::Value;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

const MIB: u64 = 1 << 20;

fn push(daemon: &Daemon, path: &Path, name: &str, more: &[&str]) -> Command {
    let mut command = programs::cli();
    command.arg("push").arg(path).args(["--url", daemon.url(), "--name", name, "--json"]).args(more);
    command
}

/// The last event of a push that must succeed.
#[track_caller]
fn done(mut command: Command) -> Value {
    let Output { status, stdout, stderr } = command.output().expect("the client can be started");
    assert!(status.success(), "{}", String::from_utf8_lossy(&stderr));
    let text = String::from_utf8(stdout).unwrap();
    let mut events = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("a line is JSON"));
    events.rfind(|event| event["event"] == "done").unwrap_or_else(|| panic!("not done: {text}"))
}

/// A sparse file of `len` bytes, with data of these lengths at these offsets.
fn sparse(folder: &Path, name: &str, len: u64, parts: &[(u64, usize)]) -> PathBuf {
    let path = folder.join(name);
    let file = File::create(&path).unwrap();
    file.set_len(len).unwrap();
    for (number, (offset, len)) in (1..).zip(parts) {
        file.write_all_at(&data::bytes(number, *len), *offset).unwrap();
    }
    path
}

/// Bytes that the file takes on the disk, as `du` prints them.
fn du(path: &Path) -> u64 {
    File::open(path).unwrap().sync_all().unwrap();
    let output = Command::new("du").args(["--block-size=1"]).arg(path).output().expect("du can be started");
    let text = String::from_utf8(output.stdout).unwrap();
    text.split_whitespace().next().and_then(|bytes| bytes.parse().ok()).unwrap_or_else(|| panic!("{text}"))
}

#[test]
fn ten_gibibytes_of_hole_go_in_seconds_and_take_little_room() {
    let daemon = Daemon::start();
    let (len, at) = (10 << 30, (7 << 30) + 12_345);
    let file = sparse(&daemon.scratch(), "f", len, &[(at, MIB as usize)]);
    let began = Instant::now();
    let done = done(push(&daemon, &file, "f", &[]));
    let took = began.elapsed();
    // Two programs digest all of it, on a machine that others use too.
    assert!(took < Duration::from_secs(60), "it took {took:?}");
    assert_eq!(done["file_size"], len);
    let sent = done["bytes_sent"].as_u64().unwrap();
    assert!((MIB..=16 * MIB).contains(&sent), "{sent} bytes were sent");
    let finished = daemon.finished("f");
    assert_eq!(fs::metadata(&finished).unwrap().len(), len);
    let room = du(&finished);
    assert!((MIB..=17 * MIB).contains(&room), "it takes {room} bytes");
    let (mut is, mut was) = (vec![0; 3 * MIB as usize], vec![0; 3 * MIB as usize]);
    File::open(&finished).unwrap().read_exact_at(&mut is, at - MIB).unwrap();
    File::open(&file).unwrap().read_exact_at(&mut was, at - MIB).unwrap();
    assert!(is == was);
    daemon.eventually_clean();
}

/// Offsets and lengths of the data in a sparse file.
type Parts = Vec<(u64, usize)>;

/// Where data lies: at borders of slices and beside them, at the beginning and the end, in every other slice.
fn layouts() -> Vec<(&'static str, u64, Parts)> {
    let slice = 64 << 10;
    vec![
        ("all hole", 20 * slice, vec![]),
        ("odd end", 20 * slice + 1, vec![]),
        ("first and last byte", 20 * slice + 5, vec![(0, 1), (20 * slice + 4, 1)]),
        ("a whole slice", 20 * slice, vec![(5 * slice, slice as usize)]),
        ("across a border", 20 * slice, vec![(7 * slice - 10, 20)]),
        ("every other slice", 20 * slice, (0..10).map(|number| (2 * number * slice + 100, 100)).collect()),
    ]
}

#[test]
fn files_with_holes_arrive_as_they_are_in_slices_of_any_size() {
    let daemon = Daemon::start();
    for (number, (what, len, parts)) in (0..).zip(layouts()) {
        let file = sparse(&daemon.scratch(), &format!("f{number}"), len, &parts);
        // Slices whose digests join, others, and one slice.
        for cut in ["64K", "100000", "8M"] {
            let name = format!("{number}-{cut}");
            let done = done(push(&daemon, &file, &name, &["--slice-size", cut]));
            assert_eq!(done["file_digest"], data::digest(&file), "{what}, {cut}");
            assert!(data::same(&file, &daemon.finished(&name)), "{what}, {cut}");
            let sent = done["bytes_sent"].as_u64().unwrap();
            assert!(parts.len() > 1 || sent <= 3 * 100_000 || cut == "8M", "{what}, {cut}: {sent} bytes were sent");
        }
    }
    let check =
        Command::new(programs::path("bigupd")).args(["check", "--data-dir"]).arg(daemon.data()).output().unwrap();
    assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stdout));
    daemon.eventually_clean();
}

#[test]
fn zeroes_that_are_sent_are_stored_as_holes_too() {
    let daemon = Daemon::start();
    let file = daemon.scratch().join("f");
    let mut content = vec![0; 24 * MIB as usize];
    // Zeroes, zeroes and then data, data and then zeroes.
    content[13 * MIB as usize..18 * MIB as usize].copy_from_slice(&data::bytes(1, 5 * MIB as usize));
    fs::write(&file, &content).unwrap();
    File::open(&file).unwrap().sync_all().unwrap();
    let done = done(push(&daemon, &file, "f", &["--slice-size", "4M"]));
    assert_eq!(
        (&done["bytes_sent"], &done["file_digest"]),
        (&Value::from(24 * MIB), &Value::from(data::digest(&file)))
    );
    assert!(data::same(&file, &daemon.finished("f")));
    let room = du(&daemon.finished("f"));
    // The slices 0, 1, 2 and 5 are zeroes.
    assert!((5 * MIB..=9 * MIB).contains(&room), "it takes {room} bytes");
}

#[test]
fn zeroes_that_are_fetched_become_holes_also_over_other_bytes() {
    let daemon = Daemon::start();
    let file = sparse(&daemon.scratch(), "f", 128 * MIB, &[(3 * MIB, 5000), (100 * MIB + 1, 2 * MIB as usize)]);
    done(push(&daemon, &file, "f", &[]));
    let fetched = daemon.scratch().join("fetched");
    let get = || {
        let mut command = programs::cli();
        command.args(["get", "f", "--replace", "--quiet", "--url", daemon.url(), "--to"]).arg(&fetched);
        command
    };
    succeed(get());
    assert!(data::same(&file, &fetched));
    assert!(du(&fetched) <= 8 * MIB, "it takes {} bytes", du(&fetched));
    // A part of another attempt, of the right size and with wrong bytes: it is read, and what is wrong is fetched.
    fs::remove_file(&fetched).unwrap();
    data::file(&daemon.scratch(), ".fetched.bigup-part", 9, 128 * MIB);
    succeed(get());
    assert!(data::same(&file, &fetched));
    assert!(du(&fetched) <= 8 * MIB, "it takes {} bytes", du(&fetched));
}

#[test]
fn a_sparse_push_goes_on_after_the_death_of_everyone() {
    let mut daemon = Daemon::start();
    let parts: Parts = (0..32).map(|number| (number * 16 * MIB + 99, 2 * MIB as usize)).collect();
    let file = sparse(&daemon.scratch(), "f", 512 * MIB, &parts);
    let mut slow = push(&daemon, &file, "f", &["--slice-size", "1M", "--limit-rate", "16M"]);
    let mut child = slow.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let frontier = || daemon.info("f", "curr_merge_slice_id").and_then(|id| id.parse::<u64>().ok()).unwrap_or(0);
    eventually("some of it is merged", || frontier() > 40);
    kill_9(&mut child);
    daemon.kill_9();
    daemon.run();
    let done = done(push(&daemon, &file, "f", &["--slice-size", "1M"]));
    assert_eq!(done["file_digest"], data::digest(&file));
    assert!(data::same(&file, &daemon.finished("f")));
    assert!(du(&daemon.finished("f")) <= 32 * 4 * MIB);
    daemon.eventually_clean();
}

#[test]
fn a_slice_of_zeroes_is_compared_with_its_digest_and_has_no_body() {
    let daemon = Daemon::start();
    let server = daemon.server();
    let begun = server.get("file_name=f&slice_size=65536&file_size=131072").expect(200);
    assert_eq!(begun.body["zeroes"], true);
    let slice = |more: &str, body: &[u8]| server.post(&format!("file_name=f&slice_id=0&{more}"), body);
    let hash = |bytes: &[u8]| format!("hash:{}", blake3::hash(bytes));
    let wrong = slice(&format!("slice_size=65536&zeroes=1&slice_digest={}", hash(b"x")), b"").expect(400);
    assert_eq!(wrong.body["error"], "damaged", "{wrong:?}");
    for (more, body, status, says) in [
        ("slice_size=65536&zeroes=1", &b"x"[..], 400, "1 bytes"),
        ("slice_size=65537&zeroes=1", b"", 409, "65537"),
        ("slice_size=67108865&zeroes=1", b"", 413, "at most 67108864"),
        ("slice_size=65536&zeroes=2", b"", 400, "zeroes"),
        ("slice_size=65536", b"", 400, "0 bytes"),
    ] {
        let refused = slice(more, body).expect(status);
        assert!(refused.message().contains(says), "{more}: {refused:?}");
    }
    assert_eq!(server.get("peek=1&file_name=f").expect(200).held(), [0; 0]);
    let digest = hash(&[0; 65536]);
    slice(&format!("slice_size=65536&zeroes=1&slice_digest={digest}"), b"").expect(200);
    // The same with a body is held, and so is the other way round.
    let again = slice("slice_size=65536", &[0; 65536]).expect(200);
    assert_eq!(again.body["held"], true, "{again:?}");
    let last = |query: &str, body: &[u8]| server.post(&format!("file_name=f&slice_id=1&slice_size=65536{query}"), body);
    last("", &[7; 65536]).expect(200);
    eventually("it is published", || daemon.finished("f").exists());
    let content = fs::read(daemon.finished("f")).unwrap();
    assert!(content[..65536].iter().all(|byte| *byte == 0) && content[65536..].iter().all(|byte| *byte == 7));
    // A small file in one request.
    server.post("file_name=g&slice_id=0&slice_num=1&slice_size=1000&zeroes=1", b"").expect(200);
    eventually("it is published", || daemon.finished("g").exists());
    assert_eq!(fs::read(daemon.finished("g")).unwrap(), [0; 1000]);
}

#[test]
fn forty_slices_of_zeroes_at_once_stay_within_the_quota_and_the_slice() {
    let daemon = Daemon::start();
    let mut token = Command::new(programs::path("bigupd"));
    token.args(["token", "new", "t", "--prefix", "a", "--quota", "1M", "--data-dir"]).arg(daemon.data());
    let server = daemon.server().with_token(succeed(token).trim());
    // Small files in one request, and uploads of unknown size.
    let statuses = forty(&server, |server, i| {
        let slice = format!("file_name=a/{i}&slice_id=0&slice_size=65536&zeroes=1");
        if i % 2 == 0 {
            return server.post(&format!("{slice}&slice_num=1"), b"");
        }
        let begun = server.get(&format!("file_name=a/{i}&slice_size=65536"));
        if begun.status == 200 { server.post(&slice, b"") } else { begun }
    });
    let taken = statuses.iter().filter(|status| **status == 200).count();
    assert!((1..=16).contains(&taken), "{taken} slices of 64 KiB: {statuses:?}");
    assert!(statuses.iter().all(|status| [200, 413, 429, 503].contains(status)), "{statuses:?}");
    let (finished, unfinished) = (daemon.data().join("files/a"), daemon.spools());
    let there = list(&finished).len() + unfinished.len();
    assert!(there >= taken, "{there} files and uploads for {taken} slices: {unfinished:?}");

    // The same slice, with zeroes told and with zeroes sent.
    let other = Daemon::start();
    other.server().get("file_name=b&slice_size=65536&file_size=131072").expect(200);
    let statuses = forty(&other.server(), |server, i| match i % 2 {
        0 => server.post("file_name=b&slice_id=0&slice_size=65536&zeroes=1", b""),
        _ => server.post("file_name=b&slice_id=0&slice_size=65536", &[0; 65536]),
    });
    assert!(statuses.contains(&200), "{statuses:?}");
    other.server().post("file_name=b&slice_id=1&slice_size=65536", &[5; 65536]).expect(200);
    eventually("it is published", || other.finished("b").exists());
    assert_eq!(fs::read(other.finished("b")).unwrap(), [[0; 65536], [5; 65536]].concat());
    other.eventually_clean();
}

#[test]
fn a_sparse_file_counts_with_its_size() {
    let daemon = Daemon::with(&["--max-file-size", "1G"]);
    let file = sparse(&daemon.scratch(), "f", (1 << 30) + 1, &[]);
    let output = push(&daemon, &file, "f", &[]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(fs::metadata(&file).unwrap().blocks() < 100, "reading it made no blocks");
    assert_eq!(daemon.spools(), [""; 0]);
}
