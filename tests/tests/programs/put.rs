//! PUT of files to `/content/NAME`: stored whole or not at all, by curl and by hand.

use bigup_tests::daemon::Daemon;
use bigup_tests::http::{connect, raw, read_answer};
use bigup_tests::process::eventually;
use bigup_tests::{data, programs};
use std::fs;
use std::io::Write;
use std::net::Shutdown;
use std::path::Path;
use std::process::Command;

const MIB: usize = 1 << 20;

/// Status and body of curl's PUT of a file.
fn put(daemon: &Daemon, file: &Path, name: &str, options: &[&str]) -> (String, String) {
    let url = format!("{}/content/{name}", daemon.url());
    let mut command = Command::new("curl");
    command.args(["-sS", "--max-time", "60", "-w", "\n%{http_code}", "-T"]).arg(file).args(options).arg(url);
    let output = command.output().expect("curl can be started");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (body, status) = text.rsplit_once('\n').unwrap_or(("", &text));
    (status.to_owned(), body.to_owned())
}

fn head(name: &str, headers: &[&str]) -> String {
    let lines: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    format!("PUT /content/{name} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{lines}\r\n")
}

/// The daemon holds nothing unfinished. Marks of uploads that ended stay for a while.
fn nothing_is_left(daemon: &Daemon) {
    eventually("the upload is gone", || daemon.spools().iter().all(|name| name.starts_with('.')));
    let info_ini = || fs::read_to_string(daemon.data().join("info.ini")).unwrap_or_default();
    eventually("info.ini tells of none", || !info_ini().contains('['));
}

#[test]
fn a_file_is_stored_whatever_its_length_and_however_it_comes() {
    let daemon = Daemon::start();
    // Around the end of a slice, which has 8 MiB.
    for (i, len) in [0, 1, 8 * MIB - 1, 8 * MIB, 8 * MIB + 1, 20 * MIB + 3].into_iter().enumerate() {
        let file = data::file(&daemon.scratch(), "source", i as u64, len as u64);
        for (how, options) in [("sized", &[][..]), ("chunked", &["-H", "Transfer-Encoding: chunked"])] {
            if len == 0 && how == "chunked" {
                // curl 7.88 does not end such a body.
                continue;
            }
            let name = format!("dir/{how}%20{len}");
            assert_eq!(put(&daemon, &file, &name, options), ("201".to_owned(), String::new()), "{name}");
            assert!(data::same(&file, &daemon.finished(&format!("dir/{how} {len}"))), "{name}");
            assert_eq!(put(&daemon, &file, &name, options).0, "204", "{name} is replaced");
        }
    }
    nothing_is_left(&daemon);
    let shown = raw(daemon.url(), head("x", &["Content-Length: 1"]).replace("\r\n\r\n", "\r\n\r\ny").as_bytes());
    let lower = shown.to_ascii_lowercase();
    let tag = format!("etag: \"b3-{}\"", blake3::hash(b"y"));
    assert!(lower.contains(&tag) && lower.contains("location: /content/x"), "{shown}");
}

#[test]
fn a_body_that_is_cut_off_leaves_nothing() {
    let daemon = Daemon::start();
    for (how, headers) in [("sized", "Content-Length: 20000000"), ("chunked", "Transfer-Encoding: chunked")] {
        for cut_by in ["shutdown", "close"] {
            let mut stream = connect(daemon.url());
            stream.write_all(head("cut", &[headers]).as_bytes()).unwrap();
            let piece = vec![7; 9_000_000];
            if how == "chunked" {
                stream.write_all(format!("{:x}\r\n", piece.len()).as_bytes()).unwrap();
            }
            stream.write_all(&piece).unwrap();
            eventually("some of it is held", || !daemon.spools().is_empty());
            if cut_by == "shutdown" {
                stream.shutdown(Shutdown::Write).unwrap();
            }
            drop(stream);
            nothing_is_left(&daemon);
            assert!(!daemon.finished("cut").exists(), "{how} {cut_by}");
        }
    }
    // The name is free again at once.
    let file = data::file(&daemon.scratch(), "source", 1, 3 * MIB as u64);
    assert_eq!(put(&daemon, &file, "cut", &[]).0, "201");
}

#[test]
fn a_daemon_that_is_killed_leaves_no_file_and_its_upload_expires() {
    let mut daemon = Daemon::with(&["--expire-after", "2s"]);
    let mut stream = connect(daemon.url());
    stream.write_all(head("cut", &["Content-Length: 20000000"]).as_bytes()).unwrap();
    stream.write_all(&vec![7; 19_999_999]).unwrap();
    eventually("some of it is held", || !daemon.spools().is_empty());
    daemon.kill_9();
    daemon.run();
    assert!(!daemon.finished("cut").exists());
    eventually("it has expired", || daemon.spools().is_empty());
}

#[test]
fn digests_are_checked_before_the_file_is_seen() {
    let daemon = Daemon::start();
    let file = data::file(&daemon.scratch(), "source", 1, 17 * MIB as u64);
    let other = data::file(&daemon.scratch(), "other", 2, 17 * MIB as u64);
    let sha256 = |file: &Path| {
        let output = Command::new("openssl").args(["dgst", "-sha256", "-binary"]).arg(file).output().unwrap();
        use base64::Engine;
        base64::engine::general_purpose::STANDARD.encode(output.stdout)
    };
    for field in ["Content-Digest", "Repr-Digest"] {
        let told = |file: &Path| format!("{field}: sha-256=:{}:", sha256(file));
        assert_eq!(put(&daemon, &file, field, &["-H", &told(&file)]).0, "201");
        let (status, body) = put(&daemon, &file, "wrong", &["-H", &told(&other)]);
        assert!(status == "400" && body.contains("as promised"), "{status} {body}");
        nothing_is_left(&daemon);
        assert!(!daemon.finished("wrong").exists());
    }
    let both =
        [format!("Content-Digest: sha-256=:{}:", sha256(&file)), format!("Repr-Digest: sha-256=:{}:", sha256(&other))];
    assert_eq!(put(&daemon, &file, "wrong", &["-H", &both[0], "-H", &both[1]]).0, "400");
}

#[test]
fn conditions_and_parts_are_looked_at_before_the_body() {
    let daemon = Daemon::start();
    let file = data::file(&daemon.scratch(), "source", 1, MIB as u64);
    let other = data::file(&daemon.scratch(), "other", 2, MIB as u64);
    assert_eq!(put(&daemon, &file, "f", &["-H", "If-Match: *"]).0, "412");
    assert_eq!(put(&daemon, &file, "f", &["-H", "If-None-Match: *"]).0, "201");
    assert_eq!(put(&daemon, &other, "f", &["-H", "If-None-Match: *"]).0, "412");
    let tag = format!("If-Match: \"b3-{}\"", data::digest(&file));
    assert_eq!(put(&daemon, &other, "f", &["-H", &tag]).0, "204");
    assert_eq!(put(&daemon, &file, "f", &["-H", &tag]).0, "412", "it is another one by now");
    assert!(data::same(&other, &daemon.finished("f")));
    for (option, status) in [("Content-Range: bytes 0-9/20", "400"), ("Content-Encoding: gzip", "415")] {
        assert_eq!(put(&daemon, &file, "part", &["-H", option]).0, status, "{option}");
    }
    // A client that waits to be told to send is told not to.
    let mut stream = connect(daemon.url());
    let asked = head("f", &["Content-Length: 1000000000", "Expect: 100-continue", "If-None-Match: *"]);
    stream.write_all(asked.as_bytes()).unwrap();
    assert!(read_answer(&mut stream).starts_with("HTTP/1.1 412"));
    nothing_is_left(&daemon);
}

#[test]
fn a_token_may_put_what_it_may_push_and_replace() {
    let daemon = Daemon::start();
    let secret = |name: &str, permissions: &str| {
        let mut command = Command::new(programs::path("bigupd"));
        command.args(["token", "new", name, "--prefix", "a/", "--permissions", permissions, "--data-dir"]);
        let output = command.arg(daemon.data()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    let (pusher, replacer) = (secret("pusher", "push"), secret("replacer", "push,replace"));
    let file = data::file(&daemon.scratch(), "source", 1, 100);
    let with = |token: &str, name: &str| put(&daemon, &file, name, &["--oauth2-bearer", token]).0;
    eventually("tokens are in force", || put(&daemon, &file, "a/x", &[]).0 == "401");
    assert_eq!(with(&pusher, "a/x"), "201");
    assert_eq!(with(&pusher, "a/x"), "403", "it may not replace");
    assert_eq!(with(&replacer, "a/x"), "204");
    for outside in ["b/x", "x", "a/../b", "a%2f..%2fb"] {
        assert_ne!(with(&replacer, outside), "201", "{outside}");
    }
    assert!(!daemon.finished("b").exists() && !daemon.finished("x").exists());
}

#[test]
fn an_upload_of_the_same_name_is_not_disturbed() {
    let daemon = Daemon::start();
    let file = data::file(&daemon.scratch(), "source", 1, 100);
    daemon.server().get("file_name=f&slice_num=3&source=s").expect(200);
    assert_eq!(put(&daemon, &file, "f", &[]).0, "409");
    assert_eq!(daemon.spools(), ["f"]);
    // Nor is a PUT by a push.
    let mut stream = connect(daemon.url());
    stream.write_all(head("g", &["Content-Length: 20000000"]).as_bytes()).unwrap();
    stream.write_all(&vec![7; 10_000_000]).unwrap();
    eventually("it has begun", || daemon.spools().contains(&"g".to_owned()));
    daemon.server().get("file_name=g&slice_num=3&source=s").expect(409);
    stream.write_all(&vec![7; 10_000_000]).unwrap();
    assert!(read_answer(&mut stream).starts_with("HTTP/1.1 201"));
    assert_eq!(fs::metadata(daemon.finished("g")).unwrap().len(), 20_000_000);
}

#[test]
fn forty_at_once_of_one_name_make_one_file() {
    let daemon = Daemon::start();
    let files: Vec<_> = (0..40).map(|i| data::file(&daemon.scratch(), &format!("source{i}"), i, 100_000)).collect();
    let statuses: Vec<String> = std::thread::scope(|scope| {
        let puts: Vec<_> = files.iter().map(|file| scope.spawn(|| put(&daemon, file, "f", &[]).0)).collect();
        puts.into_iter().map(|put| put.join().unwrap()).collect()
    });
    assert!(statuses.iter().any(|status| status == "201"), "{statuses:?}");
    assert!(statuses.iter().all(|status| ["201", "204", "409"].contains(&&status[..])), "{statuses:?}");
    assert!(files.iter().any(|file| data::same(file, &daemon.finished("f"))), "it is mixed");
    nothing_is_left(&daemon);
}
