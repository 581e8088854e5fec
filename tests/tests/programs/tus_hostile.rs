//! tus, asked by those who may not, for more than there is, and while operators are at work.

use bigup_tests::daemon::Daemon;
use bigup_tests::data;
use bigup_tests::http::{connect, read_answer, read_head};
use bigup_tests::process::eventually;
use bigup_tests::programs;
use bigup_tests::tus::{OFFSET_STREAM, RESUMABLE, Reply, Tus, base64, file_name};
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output};

const MIB: usize = 1 << 20;

fn bigupd(data: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(programs::path("bigupd"));
    command.arg("--data-dir").arg(data).args(arguments).output().expect("bigupd can be started")
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn new_token(daemon: &Daemon, name: &str, arguments: &[&str]) -> Tus {
    let output = bigupd(&daemon.data(), &[&["token", "new", name], arguments].concat());
    assert!(output.status.success(), "{output:?}");
    Tus::new(daemon.url()).with_token(String::from_utf8(output.stdout).unwrap().trim())
}

/// What can be asked of an upload.
fn ask_all(tus: &Tus, at: &str, headers: &[(&str, &str)]) -> Vec<Reply> {
    let with = |more: &[(&'static str, &'static str)]| [headers, &[RESUMABLE], more].concat();
    vec![
        tus.send("HEAD", at, &with(&[]), b""),
        tus.send("PATCH", at, &with(&[OFFSET_STREAM, ("Upload-Offset", "8")]), b"9"),
        tus.send(
            "POST",
            at,
            &with(&[OFFSET_STREAM, ("Upload-Offset", "8"), ("X-HTTP-Method-Override", "PATCH")]),
            b"9",
        ),
        tus.send("DELETE", at, &with(&[]), b""),
        tus.send("POST", "/files/", &with(&[("Upload-Length", "0")]), b""),
        tus.send("POST", "/files/", &with(&[("Upload-Length", "1"), OFFSET_STREAM]), b"1"),
    ]
}

fn begun(tus: &Tus, name: &str) -> String {
    let at = tus.create(name, 20);
    tus.patch(&at, 0, b"12345678").expect(204);
    at
}

#[test]
fn pages_of_others_get_nothing() {
    let daemon = Daemon::start();
    let tus = Tus::new(daemon.url());
    let at = begun(&tus, "a");
    for foreign in [
        ("Origin", "http://evil.example"),
        ("Origin", "null"),
        ("Sec-Fetch-Site", "cross-site"),
        ("Sec-Fetch-Site", "same-site"),
        ("Sec-Fetch-Site", "none"),
        ("Referer", "http://evil.example/page"),
        ("Host", "rebound.evil.example"),
        ("User-Agent", "Mozilla/5.0"),
    ] {
        for reply in ask_all(&tus, &at, &[foreign]) {
            assert_eq!((reply.status, reply.offset()), (403, None), "{foreign:?}: {reply:?}");
            assert_eq!(reply.header("Access-Control-Allow-Origin"), None);
        }
        assert_eq!(tus.offset(&at), 8);
        assert_eq!(daemon.spools(), ["a"]);
        assert_eq!(bigup_tests::daemon::list(&daemon.data().join("files")), Vec::<String>::new());
    }
    let preflight = [("Origin", "http://evil.example"), ("Access-Control-Request-Method", "PATCH")];
    assert_eq!(tus.send("OPTIONS", "/files/", &preflight, b"").status, 403);
}

#[test]
fn an_address_is_nothing_without_the_right_token() {
    let daemon = Daemon::start();
    let alice = new_token(&daemon, "alice", &["--prefix", "alice/"]);
    let at = begun(&alice, "a");
    assert!(at.ends_with("/alice/a"), "{at}");
    let nobody = Tus::new(daemon.url());
    for reply in ask_all(&nobody, &at, &[]) {
        assert_eq!((reply.status, reply.offset()), (401, None), "{reply:?}");
        assert!(reply.header("WWW-Authenticate").is_some(), "{reply:?}");
    }
    for wrong in ["Bearer ", "Bearer bigup_wrong", "Basic YTpi", "Bearer x y"] {
        assert_eq!(nobody.send("HEAD", &at, &[RESUMABLE, ("Authorization", wrong)], b"").status, 401, "{wrong}");
    }
    let mallory = new_token(&daemon, "mallory", &["--prefix", "mallory/"]);
    for reply in &ask_all(&mallory, &at, &[])[..4] {
        assert_eq!((reply.status, reply.offset()), (403, None), "{reply:?}");
    }
    let reader = new_token(&daemon, "reader", &["--prefix", "alice/", "--permissions", "read"]);
    for reply in ask_all(&reader, &at, &[]) {
        assert_eq!((reply.status, reply.offset()), (403, None), "{reply:?}");
    }
    assert_eq!(alice.offset(&at), 8);
    // Names stay below the prefix, whatever they are.
    for name in ["../mallory/x", "/mallory/x", "alice/../mallory/x", "..\\mallory\\x", "alice", "x/../../mallory/y"] {
        let at = alice.create(name, 5);
        let path = at.splitn(4, '/').nth(3).unwrap().to_owned();
        assert!(path.starts_with("alice/"), "{name}: {at}");
    }
    // The key and the name belong together: another name is another upload.
    let key = at.split('/').nth(2).unwrap();
    for path in ["alice/b", "mallory/a", "alice/../mallory/a", "alice%2F..%2Fmallory%2Fa", "..%2f..%2fetc", "%2e%2e/a"]
    {
        let reply = alice.head(&format!("/files/{key}/{path}"));
        assert!(matches!(reply.status, 403 | 404), "{path}: {reply:?}");
    }
    assert_eq!(alice.offset(&format!("/files/{key}/alice%2Fa")), 8, "the same name, otherwise encoded");
}

#[test]
fn parts_are_joined_only_by_those_who_may_append_to_them() {
    let daemon = Daemon::start();
    let alice = new_token(&daemon, "alice", &["--prefix", "alice/"]);
    let parts = [alice.create_partial(5)];
    assert!(parts[0].contains("/alice/"), "{parts:?}");
    alice.patch(&parts[0], 0, b"12345").expect(204);
    let mallory = new_token(&daemon, "mallory", &["--prefix", "mallory/"]);
    mallory.join("x", &parts).expect(403);
    let mixed = [parts[0].clone(), mallory.create_partial(5)];
    mallory.join("x", &mixed).expect(403);
    alice.join("x", &mixed).expect(403);
    Tus::new(daemon.url()).join("x", &parts).expect(401);
    assert_eq!(alice.offset(&parts[0]), 5);
    // The file stays below the prefix, whatever its name is.
    let at = alice.join("../mallory/x", &parts).location();
    assert!(at.ends_with("/alice/mallory/x"), "{at}");
    assert_eq!(fs::read(daemon.finished("alice/mallory/x")).unwrap(), b"12345");
}

#[test]
fn replacing_takes_the_right_to() {
    let daemon = Daemon::with(&["--existing-files", "replace"]);
    let pusher = new_token(&daemon, "pusher", &["--permissions", "push"]);
    let reply = pusher.post(&[("Upload-Length", "3"), ("Upload-Metadata", &file_name("a"))]).expect(403);
    assert!(reply.body.contains("replace"), "{reply:?}");
    assert_eq!(daemon.spools(), Vec::<String>::new());
    let owner = new_token(&daemon, "owner", &["--permissions", "push,replace"]);
    for content in [b"one", b"two"] {
        owner.patch(&owner.create("a", 3), 0, content).expect(204);
        assert_eq!(fs::read(daemon.finished("a")).unwrap(), content);
    }
}

#[test]
fn keys_are_not_guessed_and_not_written_down() {
    let daemon = Daemon::start();
    let tus = Tus::new(daemon.url());
    let at = begun(&tus, "a");
    let key = at.split('/').nth(2).unwrap().to_owned();
    for guess in ["0".repeat(32), key.to_uppercase(), key[..31].to_owned(), format!("{key}0"), "%00".repeat(32)] {
        for method in ["HEAD", "DELETE", "PATCH"] {
            let headers = [RESUMABLE, OFFSET_STREAM, ("Upload-Offset", "8")];
            let reply = tus.send(method, &format!("/files/{guess}/a"), &headers, b"");
            assert!(matches!(reply.status, 404 | 400), "{method} {guess}: {reply:?}");
        }
    }
    assert_eq!(tus.offset(&at), 8);
    tus.patch(&at, 8, b"901234567890").expect(204);
    let text = |path: &Path| String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned();
    let told = [daemon.log(), daemon.info_ini(), text(&daemon.data().join("tmp/a/upload.json"))].concat();
    assert!(!told.contains(&key), "the key is nowhere but in the client's hands");
}

/// Who knows the name of a file, and may push it, cannot disturb the upload of it without its key.
#[test]
fn a_request_with_another_key_does_not_end_one_at_work() {
    let daemon = Daemon::start();
    let (tus, content) = (Tus::new(daemon.url()), data::bytes(1, 20 * MIB));
    let at = tus.create("a", content.len() as u64);
    let mut stream = tus.begin_patch(&at, 0, content.len() as u64);
    stream.write_all(&content[..9 * MIB]).unwrap();
    eventually("some of it is held", || daemon.data().join("tmp/a/tail").exists());
    let other = format!("/files/{}/a", "0".repeat(32));
    for reply in &ask_all(&tus, &other, &[])[..4] {
        assert_eq!((reply.status, reply.offset()), (404, None), "{reply:?}");
    }
    for method in ["HEAD", "DELETE"] {
        assert_eq!(tus.send(method, &other, &[], b"").status, 404, "{method} of the draft");
    }
    stream.write_all(&content[9 * MIB..]).unwrap();
    let reply = read_head(&mut stream);
    assert!(reply.starts_with("HTTP/1.1 204"), "{reply}");
    assert!(fs::read(daemon.finished("a")).is_ok_and(|found| found == content));
}

#[test]
fn of_many_at_once_as_many_begin_as_a_quota_and_a_limit_permit() {
    let daemon = Daemon::with(&["--max-uploads-per-token", "7"]);
    let few = new_token(&daemon, "few", &[]);
    let quota = new_token(&daemon, "quota", &["--prefix", "q/", "--quota", "1M"]);
    let begin = |tus: &Tus, i: usize, len: &str| {
        let replies = [("Upload-Length", len), ("Upload-Metadata", &file_name(&format!("{i}")))];
        tus.post(&replies)
    };
    let (limited, sized): (Vec<Reply>, Vec<Reply>) = std::thread::scope(|scope| {
        let each: Vec<_> = (0..40)
            .map(|i| {
                let (few, quota, begin) = (&few, &quota, &begin);
                scope.spawn(move || (begin(few, i, "100"), begin(quota, i, "200000")))
            })
            .collect();
        each.into_iter().map(|one| one.join().unwrap()).unzip()
    });
    let begun = |replies: &[Reply]| replies.iter().filter(|reply| reply.status == 201).count();
    assert_eq!(begun(&limited), 7);
    assert!((1..=5).contains(&begun(&sized)), "{}", begun(&sized));
    for reply in limited.iter().filter(|reply| reply.status != 201) {
        assert_eq!(reply.status, 429, "{reply:?}");
        assert!(reply.header("Retry-After").is_some());
    }
    for reply in sized.iter().filter(|reply| reply.status != 201) {
        assert!(matches!(reply.status, 507 | 429 | 413 | 503), "{reply:?}");
    }
}

#[test]
fn bytes_of_unknown_number_stop_at_the_quota_and_what_came_is_kept() {
    let daemon = Daemon::with(&["--max-slice-size", "1M"]);
    let tus = new_token(&daemon, "quota", &["--prefix", "q/", "--quota", "3500000"]);
    let content = data::bytes(1, 6 * MIB);
    let at = tus.create_deferred("a");
    let reply = tus.patch(&at, 0, &content).expect(413);
    assert!(reply.body.contains("may push up to"), "{reply:?}");
    let held = tus.offset(&at);
    assert_eq!(held as usize, 3 * MIB, "whole slices are kept");
    tus.patch_with(&at, held, &[("Upload-Length", "6291456")], b"").expect(413);
    tus.patch_with(&at, held, &[("Upload-Length", "3145728")], b"").expect(204);
    assert_eq!(fs::read(daemon.finished("q/a")).unwrap(), &content[..3 * MIB]);
}

#[test]
fn sizes_and_lengths_that_no_disk_has_are_refused_at_once() {
    let daemon = Daemon::with(&["--reserve", "100000T"]);
    let tus = Tus::new(daemon.url());
    for headers in [("Upload-Length", "5000000000"), ("Upload-Length", "17592186044416")] {
        let reply = tus.post(&[headers]).expect(507);
        assert!(reply.header("Tus-Resumable").is_some());
    }
    assert_eq!(daemon.spools(), Vec::<String>::new());
    // Where the length is not known, the first bytes find out.
    let reply = tus.post(&[("Upload-Defer-Length", "1")]);
    if reply.status == 201 {
        let at = reply.location();
        assert_eq!(tus.patch(&at, 0, b"1").status, 507);
        assert_eq!(tus.offset(&at), 0);
    }
}

#[test]
fn headers_without_bounds_are_refused() {
    let daemon = Daemon::start();
    let tus = Tus::new(daemon.url());
    let metadata = |len: usize| format!("filename YQ==,x {}", base64(&vec![b'x'; len]));
    tus.post(&[("Upload-Length", "5"), ("Upload-Metadata", &metadata(6000))]).location();
    let reply = tus.post(&[("Upload-Length", "5"), ("Upload-Metadata", &metadata(7000))]).expect(400);
    assert!(reply.body.contains("at most"), "{reply:?}");
    // A name as long as metadata may be is no name that a file can have, and more folders than there may be.
    for name in ["n".repeat(5000), "d/".repeat(200), "ä/".repeat(1500)] {
        let reply = tus.post(&[("Upload-Length", "5"), ("Upload-Metadata", &file_name(&name))]);
        assert!(matches!(reply.status, 201 | 400), "{reply:?}");
    }
    for huge in ["Upload-Metadata", "Tus-Resumable", "Upload-Offset", "X-HTTP-Method-Override", "Upload-Checksum"] {
        let mut stream = connect(daemon.url());
        let head = format!("POST /files/ HTTP/1.1\r\nHost: localhost\r\n{huge}: {}\r\n\r\n", "a".repeat(2 * MIB));
        let _ = stream.write_all(head.as_bytes());
        let answer = std::panic::catch_unwind(move || read_answer(&mut stream)).unwrap_or_default();
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 431") || answer.starts_with("HTTP/1.1 4"),
            "{answer}"
        );
    }
    for raw in ["Upload-Length: 5\r\nUpload-Metadata: filename \u{ff}", "Upload-Length: 5\r\nUpload-Length: 6"] {
        let mut stream = connect(daemon.url());
        let head = format!("POST /files/ HTTP/1.1\r\nHost: localhost\r\nTus-Resumable: 1.0.0\r\n{raw}\r\n\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        assert!(Reply::read(&mut stream, "POST").status == 400, "{raw}");
    }
    assert!(!daemon.log().contains("panicked"));
}

#[test]
fn operators_see_pause_check_and_cancel_these_uploads_like_others() {
    let daemon = Daemon::with(&["--max-slice-size", "1M", "--allow-anonymous", "yes"]);
    let tus = Tus::new(daemon.url());
    let content = data::bytes(2, 3 * MIB + 5);
    let bare = tus.create("bare", content.len() as u64);
    let at = tus.create("dir/a b", content.len() as u64);
    tus.patch(&at, 0, &content[..MIB + 77]).expect(204);
    let open = tus.create_deferred("open");
    tus.patch(&open, 0, b"12345").expect(204);
    let status = said(&bigupd(&daemon.data(), &["status"]));
    for name in ["bare", "dir/a b", "open"] {
        assert!(status.contains(name), "{status}");
    }
    for section in ["bare", "dir/a b", "open"] {
        eventually("info.ini tells it", || daemon.info_ini().contains(&format!("[{section}]")));
    }
    let output = bigupd(&daemon.data(), &["check"]);
    assert!(output.status.success(), "{}", said(&output));
    assert!(!said(&output).contains("tail"), "{}", said(&output));
    // Paused: the client is to come back.
    assert!(bigupd(&daemon.data(), &["pause", "dir/a b"]).status.success());
    let reply = tus.patch(&at, MIB as u64 + 77, &content[MIB + 77..]).expect(423);
    assert!(reply.header("Retry-After").is_some(), "{reply:?}");
    assert_eq!(tus.offset(&at), MIB as u64 + 77);
    let output = bigupd(&daemon.data(), &["check"]);
    assert!(output.status.success(), "{}", said(&output));
    assert!(bigupd(&daemon.data(), &["resume", "dir/a b"]).status.success());
    tus.patch(&at, MIB as u64 + 77, &content[MIB + 77..]).expect(204);
    assert_eq!(fs::read(daemon.finished("dir/a b")).unwrap(), content);
    // Cancelled: it is gone.
    for (name, at) in [("bare", bare), ("open", open)] {
        let output = bigupd(&daemon.data(), &["cancel", name]);
        assert!(output.status.success(), "{}", said(&output));
        assert_eq!(tus.head(&at).status, 410);
        assert_eq!(tus.patch(&at, 0, b"x").status, 410);
        assert!(matches!(tus.delete(&at).status, 404 | 410));
    }
    let output = bigupd(&daemon.data(), &["check"]);
    assert!(output.status.success(), "{}", said(&output));
}

#[test]
fn an_upload_that_is_cancelled_while_bytes_come_is_gone() {
    let daemon = Daemon::with(&["--max-slice-size", "1M"]);
    let tus = Tus::new(daemon.url());
    let at = tus.create("a", 8 * MIB as u64);
    let mut stream = tus.begin_patch(&at, 0, 8 * MIB as u64);
    stream.write_all(&data::bytes(3, 3 * MIB + 5)).unwrap();
    eventually("some of it is merged", || daemon.info("a", "curr_merge_slice_id").is_some_and(|id| id == "3"));
    assert!(bigupd(&daemon.data(), &["cancel", "a"]).status.success());
    let _ = stream.write_all(&data::bytes(3, 5 * MIB));
    assert_eq!(tus.head(&at).status, 410);
    assert_eq!(bigup_tests::daemon::list(&daemon.data().join("files")), Vec::<String>::new());
}
