//! The time of the last write and the permissions of a client's file, kept with the finished file.

use super::content::{get, send};
use bigup_tests::daemon::Daemon;
use bigup_tests::data;
use bigup_tests::process::{eventually, kill_9};
use bigup_tests::programs::{self, succeed};
use serde_json::Value;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const MIB: u64 = 1 << 20;

fn cli(daemon: &Daemon, arguments: &[&str]) -> Command {
    let mut command = programs::cli();
    command.args(arguments).args(["--url", daemon.url()]);
    command
}

#[track_caller]
fn push(daemon: &Daemon, path: &Path, name: &str, more: &[&str]) {
    succeed(cli(daemon, &[&["push", text(path), "--name", name, "-q"], more].concat()));
}

fn text(path: &Path) -> &str {
    path.to_str().expect("paths of tests are UTF-8")
}

/// The time so many nanoseconds after 1970.
fn at(nanos: i64) -> SystemTime {
    let distance = Duration::from_nanos(nanos.unsigned_abs());
    if nanos < 0 { UNIX_EPOCH - distance } else { UNIX_EPOCH + distance }
}

fn set_time(path: &Path, time: SystemTime) {
    File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
}

fn time_of(path: &Path) -> SystemTime {
    fs::metadata(path).unwrap().modified().unwrap()
}

fn mode_of(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

/// The line of the list about a file.
fn listed(daemon: &Daemon, name: &str) -> Value {
    let list = succeed(cli(daemon, &["list", name, "--json"]));
    serde_json::from_str(list.lines().next().expect("it is listed")).unwrap()
}

/// Times as the server shows them, in nanoseconds, and as `Last-Modified`: ordinary ones, the second as Windows counts
/// it; before and at 1970, which headers cannot tell apart; in the future, which is no `Last-Modified` (RFC 9110, section
/// 8.8.2.1).
const TIMES: [(&str, i64, &str); 6] = [
    ("1234567890.123456789", 1_234_567_890_123_456_789, "Fri, 13 Feb 2009 23:31:30 GMT"),
    ("1700000000.1234567", 1_700_000_000_123_456_700, "Tue, 14 Nov 2023 22:13:20 GMT"),
    ("-1", -1_000_000_000, "Thu, 01 Jan 1970 00:00:00 GMT"),
    ("-86400.0000001", -86_400_000_000_100, "Thu, 01 Jan 1970 00:00:00 GMT"),
    ("0", 0, "Thu, 01 Jan 1970 00:00:00 GMT"),
    ("4102444800.5", 4_102_444_800_500_000_000, ""),
];

/// Sizes of files that go in each way: empty, without a spool, published by the daemon, published by a merger.
const SIZES: [u64; 4] = [0, 1000, 2 * MIB, 3 * MIB + 1];

#[test]
fn a_finished_file_has_the_time_of_its_clients_file() {
    let daemon = Daemon::start();
    for (number, size) in (0..).zip(SIZES) {
        for (shown, nanos, last_modified) in TIMES {
            let name = format!("t/{number}{shown}");
            let file = data::file(&daemon.scratch(), &name, number, size);
            set_time(&file, at(nanos));
            let cut: &[&str] = if size > 3 * MIB { &["--slice-size", "256K"] } else { &[] };
            push(&daemon, &file, &name, cut);
            let finished = daemon.finished(&name);
            assert!(data::same(&file, &finished));
            assert_eq!(time_of(&finished), at(nanos), "{name}");
            let line = listed(&daemon, &name);
            assert_eq!(line["source_modified"], shown, "{line}");
            assert!(line["file_digest"].is_string(), "the digest is certain: {line}");
            let leaves = get(&daemon, &format!("{name}?leaves"), &[]).expect(200);
            let leaves: Value = serde_json::from_slice(&leaves.body).unwrap();
            assert_eq!(leaves["source_modified"], shown, "{leaves}");
            let told = get(&daemon, &name, &[]).expect(200);
            assert_eq!(told.header("last-modified"), last_modified, "{name}");
            let back = daemon.scratch().join("back");
            succeed(cli(&daemon, &["get", &name, text(&back), "-q"]));
            assert!(data::same(&file, &back));
            assert_eq!(time_of(&back), at(nanos), "{name}");
            fs::remove_file(back).unwrap();
        }
    }
    daemon.eventually_clean();
}

#[test]
fn files_of_a_folder_have_their_times_and_come_back_with_them() {
    let daemon = Daemon::start();
    let tree = daemon.scratch().join("tree");
    for (number, (name, nanos, _)) in (0..).zip(TIMES) {
        set_time(&data::file(&tree, name, number, 100), at(nanos));
    }
    push(&daemon, &tree, "tree", &[]);
    succeed(cli(&daemon, &["get", "tree/", text(&daemon.scratch().join("back")), "-q"]));
    for (name, nanos, _) in TIMES {
        assert_eq!(time_of(&daemon.finished(&format!("tree/{name}"))), at(nanos), "{name}");
        assert_eq!(time_of(&daemon.scratch().join("back/tree").join(name)), at(nanos), "{name}");
    }
}

#[test]
fn nothing_is_kept_on_request_or_where_the_operator_forbids_it() {
    let permitting = Daemon::start();
    let forbidding = Daemon::with(&["--keep", "none", "--file-mode", "640"]);
    let (start, old) = (SystemTime::now() - Duration::from_secs(2), at(1_000_000_000_000_000_000));
    for (daemon, keep) in [(&permitting, "none"), (&forbidding, "times,mode")] {
        for (number, size) in (0..).zip(SIZES) {
            let name = format!("f{number}");
            let file = data::file(&daemon.scratch(), &name, number, size);
            set_time(&file, old);
            fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
            push(daemon, &file, &name, &["--keep", keep]);
            assert!(time_of(&daemon.finished(&name)) >= start, "{name}");
            assert_ne!(mode_of(&daemon.finished(&name)), 0o755, "{name}");
            assert_eq!(listed(daemon, &name).get("source_modified"), None);
        }
    }
    assert_eq!(mode_of(&forbidding.finished("f0")), 0o640);
}

#[test]
fn permissions_are_kept_on_request_within_what_the_server_permits() {
    let (by_umask, by_mode) = (Daemon::start(), Daemon::with(&["--file-mode", "640"]));
    let plain = data::file(&by_umask.scratch(), "plain", 1, 10);
    push(&by_umask, &plain, "plain", &[]);
    // The umask of the tests.
    let usual = mode_of(&by_umask.finished("plain"));
    for (number, size) in (0..).zip(SIZES) {
        for asked in [0o755, 0o600, 0o444, 0o4777, 0o2770, 0o1777, 0o640] {
            let file = data::file(&by_umask.scratch(), &format!("{number}-{asked:o}"), number, size);
            fs::set_permissions(&file, fs::Permissions::from_mode(asked)).unwrap();
            let name = format!("{number}-{asked:o}");
            push(&by_umask, &file, &name, &["--keep", "times,mode"]);
            let expected = 0o600 | asked & (usual | (usual & 0o444) >> 2);
            assert_eq!(mode_of(&by_umask.finished(&name)), expected, "{name}, the usual mode is {usual:o}");
            assert!(listed(&by_umask, &name)["file_digest"].is_string(), "{name}: the digest is certain");
            push(&by_mode, &file, &name, &["--keep", "mode"]);
            assert_eq!(mode_of(&by_mode.finished(&name)), 0o600 | asked & 0o640, "{name}");
            push(&by_mode, &file, &format!("{name}-not"), &[]);
            assert_eq!(mode_of(&by_mode.finished(&format!("{name}-not"))), 0o640, "{name}");
        }
    }
}

#[test]
fn a_finished_file_of_the_same_content_keeps_its_time_and_permissions() {
    let daemon = Daemon::start();
    for (number, size) in (1..).zip(&SIZES[1..]) {
        let name = format!("f{number}");
        let file = data::file(&daemon.scratch(), &name, number, *size);
        set_time(&file, at(5_000_000_000));
        push(&daemon, &file, &name, &["--keep", "times,mode"]);
        let mode = mode_of(&daemon.finished(&name));
        set_time(&file, at(6_000_000_000));
        fs::set_permissions(&file, fs::Permissions::from_mode(0o700)).unwrap();
        push(&daemon, &file, &name, &["--keep", "times,mode"]);
        push(&daemon, &file, &name, &["--keep", "times,mode", "--replace"]);
        assert_eq!((time_of(&daemon.finished(&name)), mode_of(&daemon.finished(&name))), (at(5_000_000_000), mode));
        // Other content brings its own.
        let file = data::file(&daemon.scratch(), &name, number + 10, *size);
        set_time(&file, at(4_000_000_000));
        push(&daemon, &file, &name, &["--replace"]);
        assert_eq!(time_of(&daemon.finished(&name)), at(4_000_000_000));
    }
}

#[test]
fn a_time_survives_the_death_of_everyone() {
    let mut daemon = Daemon::start();
    let file = data::file(&daemon.scratch(), "f", 1, 24 * MIB);
    set_time(&file, at(-7_000_000_001));
    let mut slow = cli(&daemon, &["push", text(&file), "--name", "f", "--slice-size", "256K", "--limit-rate", "8M"]);
    let mut child = slow.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    eventually("some of it is merged", || daemon.info("f", "curr_merge_slice_id").is_some_and(|id| id != "0"));
    kill_9(&mut child);
    daemon.kill_9();
    let record = fs::read_to_string(daemon.data().join("tmp/f/upload.json")).unwrap();
    let record: Value = serde_json::from_str(&record).unwrap();
    assert_eq!(record["modified"], "-7.000000001", "{record}");
    daemon.run();
    // A client of another kind, which tells no time, goes on with it.
    let source = record["source"].as_str().unwrap();
    let (server, query) =
        (daemon.server(), format!("file_name=f&source={source}&slice_size=262144&file_size={}", 24 * MIB));
    server.get(&query).expect(200);
    push(&daemon, &file, "f", &["--keep", "none"]);
    assert!(data::same(&file, &daemon.finished("f")));
    assert_eq!(time_of(&daemon.finished("f")), at(-7_000_000_001));
    daemon.eventually_clean();
}

#[test]
fn the_time_of_an_upload_is_the_one_that_its_source_told_last() {
    let daemon = Daemon::with(&["--takeover-after", "0s"]);
    let (server, half) = (daemon.server(), vec![7; 1024]);
    let begin = |source: &str, more: &str| {
        server.get(&format!("file_name=f&slice_size=1024&file_size=2048&source={source}{more}"))
    };
    let slice = |source: &str, id: u64| {
        server.post(&format!("file_name=f&slice_id={id}&slice_size=1024&source={source}"), &half).expect(200)
    };
    begin("a", "&modified=100").expect(200);
    slice("a", 0);
    begin("a", "&modified=200.5").expect(200);
    begin("a", "").expect(200);
    slice("a", 1);
    eventually("it is published", || daemon.finished("f").exists());
    assert_eq!(time_of(&daemon.finished("f")), at(200_500_000_000));
    fs::remove_file(daemon.finished("f")).unwrap();
    // The time of another source is none of this one's.
    begin("b", "&modified=300").expect(200);
    slice("b", 0);
    begin("c", "").expect(200);
    let record = fs::read_to_string(daemon.data().join("tmp/f/upload.json")).unwrap();
    assert!(!record.contains("modified"), "{record}");
}

#[test]
fn facts_that_make_no_sense_are_refused() {
    let daemon = Daemon::start();
    let server = daemon.server();
    for (wrong, says) in [
        ("modified=yesterday", "1700000000.5"),
        ("modified=99999999999999", "1700000000.5"),
        ("modified=253402300800", "out of range"),
        ("modified=-11644473600", "out of range"),
        ("mode=4755", "more than 777"),
        ("mode=rwx", "octal"),
    ] {
        let refused = server.get(&format!("file_name=f&slice_num=1&{wrong}")).expect(400);
        assert!(refused.message().contains(says), "{wrong}: {refused:?}");
        let refused =
            server.post(&format!("file_name=f&slice_id=0&slice_num=1&slice_size=1&{wrong}"), b"x").expect(400);
        assert!(refused.message().contains(says), "{wrong}: {refused:?}");
    }
    assert_eq!(daemon.spools(), [""; 0]);
}

#[test]
fn a_kept_time_mixes_no_two_contents() {
    let daemon = Daemon::start();
    let (one, two) = (data::file(&daemon.scratch(), "one", 1, 5000), data::file(&daemon.scratch(), "two", 2, 5000));
    for (file, seconds) in [(&one, 1_000_000_000), (&two, 1_000_000_000)] {
        set_time(file, at(seconds * 1_000_000_000));
    }
    push(&daemon, &one, "f", &[]);
    let first = get(&daemon, "f", &["Range: bytes=0-99"]).expect(206);
    let date = first.header("last-modified").to_owned();
    assert_eq!(date, "Sun, 09 Sep 2001 01:46:40 GMT");
    push(&daemon, &two, "f", &["--replace"]);
    // The same time, and another content: the rest of it is not the rest of the first one.
    let rest = get(&daemon, "f", &["Range: bytes=100-", &format!("If-Range: {date}")]).expect(200);
    assert_eq!(rest.body, fs::read(&two).unwrap());
    assert_eq!(rest.header("last-modified"), date);
    let rest = get(&daemon, "f", &["Range: bytes=100-", &format!("If-Range: {}", rest.header("etag"))]).expect(206);
    assert_eq!(rest.body, fs::read(&two).unwrap()[100..]);
    // An older version comes back: a reader that has the newer one gets it.
    let three = data::file(&daemon.scratch(), "three", 3, 5000);
    set_time(&three, at(900_000_000_000_000_000));
    push(&daemon, &three, "f", &["--replace"]);
    let answer = get(&daemon, "f", &[&format!("If-Modified-Since: {date}")]).expect(200);
    assert_eq!(answer.body, fs::read(&three).unwrap());
    let same = answer.header("last-modified").to_owned();
    get(&daemon, "f", &[&format!("If-Modified-Since: {same}")]).expect(304);
    let remove = |date: &str| send(daemon.url(), "DELETE /content/f", &[&format!("If-Unmodified-Since: {date}")]);
    remove(&date).expect(412);
    remove(&same).expect(204);
}

#[test]
fn sync_reads_no_file_that_has_the_size_and_the_time_of_the_servers() {
    let daemon = Daemon::start();
    let (tree, cache) = (daemon.scratch().join("tree"), daemon.scratch().join("cache"));
    let (a, b) = (data::file(&tree, "a", 1, 1000), data::file(&tree, "b", 2, 1000));
    for file in [&a, &b] {
        set_time(file, at(1_111_111_111_222_222_200));
    }
    push(&daemon, &a, "x/a", &[]);
    // Not kept.
    push(&daemon, &b, "x/b", &["--keep", "none"]);
    // The same size and time, and another content: only reading it tells.
    data::file(&tree, "a", 3, 1000);
    set_time(&a, at(1_111_111_111_222_222_200));
    let sync = |arguments: &[&str]| {
        let mut command = cli(&daemon, &[&["sync", "--dry-run", text(&tree), "x/"], arguments].concat());
        // A cache that knows nothing, each time.
        let _ = fs::remove_dir_all(&cache);
        command.env("XDG_CACHE_HOME", &cache);
        succeed(command)
    };
    assert!(sync(&[]).contains("send: x/a: other content"), "it changed a moment ago");
    let is_settled = || {
        use std::os::unix::fs::MetadataExt;
        let changed = fs::metadata(&a).unwrap().ctime();
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64 - changed > 4
    };
    eventually("it has not changed for a while", is_settled);
    let all = sync(&[]);
    assert!(all.starts_with("0 files would be sent; 2 are the same"), "{all}");
    assert!(sync(&["--checksum"]).contains("send: x/a: other content"));
    // One nanosecond is another time.
    set_time(&a, at(1_111_111_111_222_222_201));
    assert!(sync(&[]).contains("send: x/a: other content"));
}
