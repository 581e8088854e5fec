//! Finished files by plain HTTP, `/content/NAME`: by curl, wget and aria2c, and by hand for what these would not send.

use bigup_tests::daemon::Daemon;
use bigup_tests::http::{connect, encoded};
use bigup_tests::process::{eventually, signal};
use bigup_tests::scrape::{Scrape, eventually_counted};
use bigup_tests::{data, docs, programs, usage};
use nix::sys::signal::Signal;
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, SystemTime};

/// An answer as it came.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: HashMap<String, String>,
    pub body: Vec<u8>,
}

impl Reply {
    pub fn parse(bytes: &[u8]) -> Reply {
        let end = bytes.windows(4).position(|w| w == b"\r\n\r\n").expect("the answer has a head");
        let head = String::from_utf8(bytes[..end].to_vec()).expect("it is text");
        let (first, lines) = head.split_once("\r\n").unwrap_or((&head, ""));
        let status = first.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("it has a status");
        let fields = lines.split("\r\n").filter_map(|line| line.split_once(": "));
        let headers = fields.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect();
        Reply { status, headers, body: bytes[end + 4..].to_vec() }
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    #[track_caller]
    pub fn expect(self, status: u16) -> Reply {
        assert_eq!(self.status, status, "{:?} {}", self.headers, String::from_utf8_lossy(&self.body));
        self
    }

    /// What a refusal says to programs.
    pub fn error(&self) -> String {
        let body: serde_json::Value = serde_json::from_slice(&self.body).unwrap_or_default();
        body["error"].as_str().unwrap_or_default().to_owned()
    }
}

/// Sends a request by hand, all in one, and reads until the connection ends.
pub fn send(url: &str, line: &str, headers: &[&str]) -> Reply {
    let mut stream = connect(url);
    let lines: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    let request = format!("{line} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{lines}\r\n");
    stream.write_all(request.as_bytes()).expect("the daemon takes it");
    let mut bytes = vec![];
    stream.read_to_end(&mut bytes).expect("the answer can be read");
    Reply::parse(&bytes)
}

pub fn get(daemon: &Daemon, name: &str, headers: &[&str]) -> Reply {
    send(daemon.url(), &format!("GET /content/{name}"), headers)
}

/// Pushes `content` under `name`, so that its digest is known.
pub fn push(daemon: &Daemon, name: &str, content: &[u8]) {
    let query = format!("file_name={}&slice_id=0&slice_num=1&slice_size={}&replace=1", encoded(name), content.len());
    daemon.server().post(&query, content).expect(200);
    eventually("it is published", || fs::read(daemon.finished(name)).is_ok_and(|is| is == content));
    let path = name.split('/').map(encoded).collect::<Vec<_>>().join("/");
    eventually("its digest is certain", || get(daemon, &path, &[]).header("etag") == tag(content));
}

/// Puts a file there by hand: nothing tells its digest.
pub fn put(daemon: &Daemon, name: &str, content: &[u8]) -> PathBuf {
    let path = daemon.finished(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, content).unwrap();
    path
}

pub fn tag(content: &[u8]) -> String {
    format!("\"b3-{}\"", blake3::hash(content))
}

/// Sets the time of a file's last write, in seconds since 1970.
pub fn set_modified(path: &Path, seconds: u64) {
    let file = File::options().write(true).open(path).unwrap();
    file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)).unwrap();
}

/// 1994-11-06 08:49:37.
const TIME: u64 = 784_111_777;
const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

fn curl(arguments: &[&str]) -> Output {
    Command::new("curl").args(["-sS", "--max-time", "60"]).args(arguments).output().expect("curl can be started")
}

fn text(path: &Path) -> &str {
    path.to_str().expect("paths of tests are UTF-8")
}

#[test]
fn a_finished_file_is_read_with_all_that_is_known_of_it() {
    let daemon = Daemon::start();
    let content = data::bytes(1, 300_000);
    push(&daemon, "a/文 1.bin", &content);
    set_modified(&daemon.finished("a/文 1.bin"), TIME);
    let name = format!("a/{}", encoded("文 1.bin"));
    // Its time was changed, so nothing is certain of it.
    let reply = get(&daemon, &name, &[]).expect(200);
    assert_eq!((reply.header("etag"), reply.header("bigup-digest")), ("", ""));
    assert_eq!(reply.header("last-modified"), DATE);
    push(&daemon, "a/文 1.bin", &content);
    let reply = get(&daemon, &name, &[]).expect(200);
    assert!(reply.body == content);
    let digest = format!("blake3={}", blake3::hash(&content));
    for (header, value) in [
        ("content-length", "300000"),
        ("content-type", "application/octet-stream"),
        ("content-disposition", "attachment; filename=\"_ 1.bin\"; filename*=UTF-8''%E6%96%87%201.bin"),
        ("accept-ranges", "bytes"),
        ("etag", &tag(&content)),
        ("bigup-digest", &digest),
        ("x-content-type-options", "nosniff"),
        ("content-security-policy", "default-src 'none'; sandbox"),
        ("cache-control", "private, no-cache"),
        ("content-range", ""),
        ("transfer-encoding", ""),
    ] {
        assert_eq!(reply.header(header), value, "{header}");
    }
    eventually("the second of its last write is over", || !get(&daemon, &name, &[]).header("last-modified").is_empty());
    let mut alike = [get(&daemon, &name, &[]), send(daemon.url(), &format!("HEAD /content/{name}"), &[])];
    alike.iter_mut().for_each(|reply| drop(reply.headers.remove("date")));
    assert_eq!(alike[0].headers, alike[1].headers);
    assert!(alike[1].body.is_empty());
}

#[test]
fn an_empty_file_is_read() {
    let daemon = Daemon::start();
    put(&daemon, "empty", b"");
    for range in ["X: y", "Range: bytes=-5", "Range: bytes=2-1"] {
        let reply = get(&daemon, "empty", &[range]).expect(200);
        assert_eq!((reply.header("content-length"), reply.body.len()), ("0", 0), "{range}");
    }
    for range in ["Range: bytes=0-", "Range: bytes=0-0", "Range: bytes=-0"] {
        assert_eq!(get(&daemon, "empty", &[range]).expect(416).header("content-range"), "bytes */0", "{range}");
    }
}

#[test]
fn names_lead_nowhere_but_to_regular_files_below_the_store() {
    let daemon = Daemon::start();
    put(&daemon, "folder/file", b"right");
    let secret = daemon.data().join("secret");
    fs::write(&secret, "secret").unwrap();
    symlink(&secret, daemon.finished("link")).unwrap();
    symlink(daemon.data(), daemon.finished("out")).unwrap();
    symlink(daemon.finished("folder"), daemon.finished("folder-link")).unwrap();
    nix::unistd::mkfifo(&daemon.finished("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    for name in [
        "../secret",
        "%2e%2e/secret",
        "%2E%2E%2Fsecret",
        "folder/../../secret",
        "folder/..%2f..%2fsecret",
        "%2e/folder/file",
        "folder/.",
        "/folder/file",
        "%2Ffolder/file",
        "folder//file",
        "folder/file%2F",
        "folder//",
        "folder/file%00",
        "%00",
        "%ff",
        "folder%5C..%0a",
        &"a".repeat(256),
        &"a/".repeat(2000),
    ] {
        assert_eq!(get(&daemon, name, &[]).expect(400).error(), "bad_name", "{name}");
        assert_eq!(send(daemon.url(), &format!("HEAD /content/{name}"), &[]).status, 400, "{name}");
    }
    for name in [
        "link",
        "out/secret",
        "folder-link/file",
        "fifo",
        "folder",
        "folder/file/x",
        "nothing",
        "folder%5Cfile",
        "%252e",
    ] {
        assert_eq!(get(&daemon, name, &[]).expect(404).error(), "not_found", "{name}");
    }
    for name in
        ["folder/file", "./folder/./file", "folder%2Ffile", "folder%2ffile", "%66older/file?version=1", "folder/file?"]
    {
        assert_eq!(get(&daemon, name, &[]).expect(200).body, b"right", "{name}");
    }
    assert_eq!(get(&daemon, &"d/".repeat(1000).replace("d/", "d%2F"), &[]).status, 400);
}

#[test]
fn what_is_not_possible_is_said() {
    let daemon = Daemon::start();
    put(&daemon, "f", b"x");
    for method in ["POST", "PATCH", "PROPFIND"] {
        let reply = send(daemon.url(), &format!("{method} /content/f"), &["Content-Length: 0"]).expect(405);
        assert!(reply.header("allow").starts_with("GET, HEAD, "), "{reply:?}");
    }
    for (path, methods) in [("f", "GET, HEAD, PUT, DELETE, OPTIONS"), ("", "GET, HEAD, OPTIONS")] {
        let options = send(daemon.url(), &format!("OPTIONS /content/{path}"), &[]).expect(204);
        assert_eq!(options.header("allow"), methods);
        let refused = send(daemon.url(), &format!("PROPFIND /content/{path}"), &[]).expect(405);
        assert_eq!(refused.header("allow"), methods);
    }
    assert_eq!(send(daemon.url(), "DELETE /content/", &[]).expect(405).error(), "method_not_allowed");
    // The body of a GET is read and forgotten.
    let mut stream = connect(daemon.url());
    let two = "GET /content/f HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc";
    let last = "GET /content/f HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    stream.write_all(format!("{two}{last}").as_bytes()).unwrap();
    let mut all = String::new();
    stream.read_to_string(&mut all).unwrap();
    assert_eq!(all.matches("HTTP/1.1 200 OK").count(), 2, "{all}");
}

/// The parts of a multipart body: Content-Range and bytes.
pub fn parts(reply: &Reply, content_type: &str) -> Vec<(String, Vec<u8>)> {
    let boundary =
        reply.header("content-type").strip_prefix("multipart/byteranges; boundary=").expect("it is multipart");
    assert_eq!(reply.header("content-length"), reply.body.len().to_string());
    assert_eq!(reply.header("content-range"), "");
    let text = String::from_utf8_lossy(&reply.body).into_owned();
    assert!(
        text.starts_with(&format!("--{boundary}\r\n")) && text.ends_with(&format!("\r\n--{boundary}--\r\n")),
        "{text}"
    );
    let (delimiter, end) = (format!("--{boundary}\r\n"), format!("\r\n--{boundary}--\r\n"));
    let parts = text.trim_end_matches(&end).split(&delimiter).skip(1);
    let part = |part: &str| {
        let (head, body) = part.split_once("\r\n\r\n").expect("a part has a head");
        assert!(head.contains(&format!("Content-Type: {content_type}\r\n")), "{head}");
        let range = head.lines().find_map(|line| line.strip_prefix("Content-Range: ")).expect("it has a range");
        (range.to_owned(), body.trim_end_matches("\r\n").as_bytes().to_vec())
    };
    parts.map(part).collect()
}

#[test]
fn ranges_are_parts_of_the_file() {
    let daemon = Daemon::start();
    put(&daemon, "f", b"0123456789");
    for (range, content_range, body) in [
        ("bytes=0-0", "bytes 0-0/10", "0"),
        ("bytes=2-4", "bytes 2-4/10", "234"),
        ("bytes=8-", "bytes 8-9/10", "89"),
        ("bytes=-3", "bytes 7-9/10", "789"),
        ("bytes=-99", "bytes 0-9/10", "0123456789"),
        ("bytes=0-99999999999999999999", "bytes 0-9/10", "0123456789"),
        ("Bytes=9-9,50-", "bytes 9-9/10", "9"),
        ("bytes=3-5,4-6,0-1,1-3", "bytes 0-6/10", "0123456"),
    ] {
        let reply = get(&daemon, "f", &[&format!("Range: {range}")]).expect(206);
        let told = (reply.header("content-range"), reply.header("content-length").to_owned(), &reply.body[..]);
        assert_eq!(told, (content_range, body.len().to_string(), body.as_bytes()), "{range}");
        assert_eq!(reply.header("accept-ranges"), "bytes");
    }
    let reply = get(&daemon, "f", &["Range: bytes=8-, 0-1 ,4-4"]).expect(206);
    let expected = [("bytes 8-9/10", "89"), ("bytes 0-1/10", "01"), ("bytes 4-4/10", "4")];
    assert_eq!(
        parts(&reply, "application/octet-stream"),
        expected.map(|(range, body)| (range.to_owned(), body.as_bytes().to_vec()))
    );
    for range in ["bytes=10-", "bytes=99-100,-0", "bytes=18446744073709551615-18446744073709551616"] {
        let reply = get(&daemon, "f", &[&format!("Range: {range}")]).expect(416);
        assert_eq!((reply.header("content-range"), &*reply.error()), ("bytes */10", "range_not_satisfiable"));
    }
    let many: Vec<String> = (0..5000).map(|i| format!("{}-{}", i % 10, i % 10)).collect();
    let many = format!("bytes={}", many.join(","));
    for range in ["bytes=5-4", "bytes=a-b", "bytes=", "lines=0-1", "bytes=0-1,x", &many] {
        let reply = get(&daemon, "f", &[&format!("Range: {range}")]).expect(200);
        assert_eq!(reply.body, b"0123456789", "{range}");
    }
    assert_eq!(get(&daemon, "f", &["Range: bytes=0-0", "Range: bytes=1-1"]).expect(200).body.len(), 10);
    let head = send(daemon.url(), "HEAD /content/f", &["Range: bytes=0-0"]).expect(200);
    assert_eq!(head.header("content-length"), "10");
}

#[test]
fn conditions_decide_what_is_sent() {
    let daemon = Daemon::start();
    push(&daemon, "f", b"0123456789");
    let (is, other) = (tag(b"0123456789"), tag(b"other"));
    let (range, mut statuses) = ("Range: bytes=1-2", vec![]);
    for headers in [
        vec![format!("If-None-Match: {is}")],
        vec![format!("If-None-Match: {other}, W/{is}")],
        vec![format!("If-None-Match: {other}")],
        vec![format!("If-Match: {is}")],
        vec![format!("If-Match: W/{is}")],
        vec![format!("If-Match: {other}"), format!("If-None-Match: {is}")],
        vec!["If-Match: *".to_owned()],
        vec!["If-None-Match: *".to_owned()],
        vec!["If-Modified-Since: Sat, 01 Jan 2050 00:00:00 GMT".to_owned()],
        vec![format!("If-Modified-Since: {DATE}")],
        vec![format!("If-Unmodified-Since: {DATE}")],
        vec![format!("If-Range: {is}"), range.to_owned()],
        vec![format!("If-Range: {other}"), range.to_owned()],
        vec![format!("If-Range: W/{is}"), range.to_owned()],
        vec![format!("If-Range: {DATE}"), range.to_owned()],
        vec![format!("If-None-Match: {is}"), range.to_owned()],
        vec![format!("If-Match: {other}"), "Range: bytes=99-".to_owned()],
        vec![format!("If-Range: {other}"), "Range: bytes=99-".to_owned()],
    ] {
        let lines: Vec<&str> = headers.iter().map(String::as_str).collect();
        let reply = get(&daemon, "f", &lines);
        assert!(reply.status != 304 || (reply.header("etag") == is && reply.body.is_empty()), "{reply:?}");
        assert!(reply.status != 412 || reply.error() == "precondition_failed", "{reply:?}");
        statuses.push(reply.status);
    }
    assert_eq!(statuses, [304, 304, 200, 200, 412, 412, 200, 304, 304, 200, 412, 206, 200, 200, 200, 304, 412, 200]);
    // A time identifies a file whose digest is not known.
    set_modified(&put(&daemon, "by-hand", b"0123456789"), TIME);
    for (headers, status) in [
        ([&*format!("If-Range: {DATE}"), range], 206),
        (["If-Range: Sun, 06 Nov 1994 08:49:38 GMT", range], 200),
        ([&*format!("If-Modified-Since: {DATE}"), range], 304),
        ([&*format!("If-Unmodified-Since: {DATE}"), range], 206),
        ([&*format!("If-Match: {is}"), range], 412),
        (["If-None-Match: *", range], 304),
    ] {
        assert_eq!(get(&daemon, "by-hand", &headers).status, status, "{headers:?}");
    }
    assert_eq!(get(&daemon, "nothing", &["If-Match: *"]).status, 404);
    assert_eq!(get(&daemon, "nothing", &["If-None-Match: *"]).status, 404);
}

#[test]
fn an_open_download_has_the_bytes_of_one_file_whatever_takes_its_name() {
    let daemon = Daemon::start();
    let (first, second) = (data::bytes(1, 20 << 20), data::bytes(2, 20 << 20));
    push(&daemon, "f", &first);
    let mut stream = connect(daemon.url());
    stream.write_all(b"GET /content/f HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut begin = vec![0; 4096];
    stream.read_exact(&mut begin).unwrap();
    push(&daemon, "f", &second);
    let mut rest = vec![];
    stream.read_to_end(&mut rest).unwrap();
    let reply = Reply::parse(&[begin, rest].concat());
    assert_eq!(reply.header("etag"), tag(&first));
    assert!(reply.body == first, "{} bytes", reply.body.len());
    assert_eq!(get(&daemon, "f", &[&format!("If-Match: {}", tag(&first))]).status, 412);
    assert!(get(&daemon, "f", &[&format!("If-Range: {}", tag(&first)), "Range: bytes=5-"]).expect(200).body == second);
}

#[test]
fn a_file_that_is_cut_or_grows_under_its_reader_is_never_longer_than_said() {
    let daemon = Daemon::start();
    for (name, len) in [("cut", 1 << 20), ("grown", 30 << 20)] {
        let path = put(&daemon, name, &data::bytes(1, 20 << 20));
        let mut stream = connect(daemon.url());
        let two =
            "Host: localhost\r\n\r\nGET /content/nothing HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        stream.write_all(format!("GET /content/{name} HTTP/1.1\r\n{two}").as_bytes()).unwrap();
        let mut begin = vec![0; 4096];
        stream.read_exact(&mut begin).unwrap();
        File::options().write(true).open(&path).unwrap().set_len(len).unwrap();
        let mut rest = vec![];
        // A connection that is given up may be reset.
        let _ = stream.read_to_end(&mut rest);
        let reply = Reply::parse(&[begin, rest].concat());
        let body = &reply.body[..reply.body.len().min(20 << 20)];
        if name == "grown" {
            assert!(body == data::bytes(1, 20 << 20) && reply.body[20 << 20..].starts_with(b"HTTP/1.1 404"));
        } else {
            assert!(reply.body.len() < 20 << 20, "the connection ends early");
            eventually("the log says so", || daemon.log().contains("cut: its download breaks off"));
        }
    }
}

#[test]
fn curl_reads_resumes_and_compares() {
    let daemon = Daemon::start();
    let scratch = daemon.scratch();
    let content = data::bytes(7, 5_000_000);
    push(&daemon, "d/big.bin", &content);
    let (url, to, etag) = (format!("{}/content/d/big.bin", daemon.url()), scratch.join("to"), scratch.join("etag"));
    let read = |arguments: &[&str]| {
        let output = curl(&[&["-f", "-w", "%{http_code}", "-o", text(&to)], arguments, &[&url]].concat());
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        (String::from_utf8(output.stdout).unwrap(), fs::read(&to).unwrap_or_default())
    };
    assert!(read(&[]) == ("200".to_owned(), content.clone()));
    assert!(read(&["--range", "100-199"]) == ("206".to_owned(), content[100..200].to_vec()));
    assert!(read(&["--range", "-7"]) == ("206".to_owned(), content[content.len() - 7..].to_vec()));
    fs::write(&to, &content[..3_333_333]).unwrap();
    assert!(read(&["-C", "-"]) == ("206".to_owned(), content.clone()));
    assert_eq!(read(&["--etag-save", text(&etag)]).0, "200");
    assert_eq!(read(&["--etag-compare", text(&etag)]).0, "304");
    assert_eq!(read(&["-z", "01 Jan 2050 00:00:00 GMT"]).0, "304");
    // It saves the file under its own name.
    let named = Command::new("curl").args(["-sSfOJ", &url]).current_dir(&scratch).output().unwrap();
    assert!(named.status.success() && fs::read(scratch.join("big.bin")).unwrap() == content, "{named:?}");
    // More than its bytes is an error there, and changes nothing.
    fs::write(&to, [&content[..], b"more"].concat()).unwrap();
    let output = curl(&["-f", "-C", "-", "-o", text(&to), &url]);
    assert!(!output.status.success() || fs::read(&to).unwrap().len() == content.len() + 4, "{output:?}");
}

fn delete(daemon: &Daemon, name: &str, headers: &[&str]) -> Reply {
    send(daemon.url(), &format!("DELETE /content/{name}"), headers)
}

#[test]
fn a_file_is_removed_if_it_is_the_one_that_is_meant() {
    let daemon = Daemon::with(&["--metrics-listen", "127.0.0.1:0"]);
    push(&daemon, "a/b/f", b"0123456789");
    set_modified(&put(&daemon, "by-hand", b"x"), TIME);
    let (is, other) = (format!("If-Match: {}", tag(b"0123456789")), format!("If-Match: {}", tag(b"other")));
    for headers in [&[&*other][..], &["If-None-Match: *"], &["If-Unmodified-Since: Sun, 06 Nov 1994 08:49:36 GMT"]] {
        assert_eq!(delete(&daemon, "a/b/f", headers).expect(412).error(), "precondition_failed", "{headers:?}");
    }
    assert_eq!(delete(&daemon, "by-hand", &[&is]).status, 412, "nothing tells what it is");
    assert_eq!(delete(&daemon, "by-hand", &[&format!("If-Unmodified-Since: {DATE}")]).status, 204);
    assert_eq!(delete(&daemon, "a/b/f", &[&is]).expect(204).body, b"");
    for name in ["a/b/f", "a/b", "a", "nothing", "a/b/f/g"] {
        assert_eq!(delete(&daemon, name, &["If-Match: *"]).expect(404).error(), "not_found", "{name}");
    }
    assert_eq!(get(&daemon, "a/b/f", &[]).status, 404);
    assert!(daemon.finished("a/b").is_dir() && !daemon.finished("by-hand").exists());
    let digest = blake3::hash(b"0123456789");
    let line = format!("deleted a/b/f: file_size=10 file_digest={digest} peer=127.0.0.1");
    let log = daemon.log();
    assert!(log.contains(&line) && log.contains("deleted by-hand: file_size=1 peer="), "{log}");
    assert_eq!(log.matches("deleted ").count(), 2, "{log}");
    // Its name is free, also for its own client.
    push(&daemon, "a/b/f", b"0123456789");
}

#[test]
fn a_removed_file_is_read_to_its_end_and_links_are_not_followed() {
    let daemon = Daemon::start();
    let content = data::bytes(3, 20 << 20);
    put(&daemon, "f", &content);
    let outside = daemon.data().join("outside");
    fs::write(&outside, "x").unwrap();
    symlink(&outside, daemon.finished("link")).unwrap();
    symlink(daemon.data(), daemon.finished("folder")).unwrap();
    let mut stream = connect(daemon.url());
    stream.write_all(b"GET /content/f HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut bytes = vec![0; 4096];
    stream.read_exact(&mut bytes).unwrap();
    assert_eq!(delete(&daemon, "f", &[]).status, 204);
    stream.read_to_end(&mut bytes).unwrap();
    assert!(Reply::parse(&bytes).body == content);
    for name in ["link", "folder", "folder/outside"] {
        assert_eq!(delete(&daemon, name, &[]).status, 404, "{name}");
    }
    for name in ["../outside", "%2e%2e%2foutside", "/etc/passwd"] {
        assert_eq!(delete(&daemon, name, &[]).status, 400, "{name}");
    }
    assert!(outside.exists() && daemon.finished("link").is_symlink());
}

#[test]
fn one_of_many_removals_has_the_file() {
    let daemon = Daemon::start();
    for round in 0..20 {
        put(&daemon, "f", b"x");
        let statuses: Vec<u16> = std::thread::scope(|threads| {
            let removals: Vec<_> = (0..8).map(|_| threads.spawn(|| delete(&daemon, "f", &[]).status)).collect();
            removals.into_iter().map(|removal| removal.join().unwrap()).collect()
        });
        assert_eq!(statuses.iter().filter(|status| **status == 204).count(), 1, "{round}: {statuses:?}");
        assert_eq!(statuses.iter().filter(|status| **status == 404).count(), 7, "{round}: {statuses:?}");
    }
}

/// The names of a list, and the lines themselves.
fn list(daemon: &Daemon, query: &str, headers: &[&str]) -> Vec<serde_json::Value> {
    let reply = send(daemon.url(), &format!("GET /content/?{query}"), headers).expect(200);
    assert_eq!(reply.header("content-type"), "application/x-ndjson");
    let text = if reply.header("transfer-encoding") == "chunked" { unchunked(&reply.body) } else { reply.body };
    let text = String::from_utf8(text).unwrap();
    assert!(text.is_empty() || text.ends_with('\n'));
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The content of a chunked body (RFC 9112, section 7.1).
pub fn unchunked(mut body: &[u8]) -> Vec<u8> {
    let mut content = vec![];
    loop {
        let end = body.windows(2).position(|w| w == b"\r\n").expect("a chunk has a size");
        let len = usize::from_str_radix(std::str::from_utf8(&body[..end]).unwrap(), 16).unwrap();
        if len == 0 {
            return content;
        }
        content.extend(&body[end + 2..end + 2 + len]);
        body = &body[end + 2 + len + 2..];
    }
}

fn names(lines: &[serde_json::Value]) -> Vec<String> {
    lines.iter().map(|line| line["file_name"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn finished_files_are_listed_by_name() {
    let daemon = Daemon::start();
    push(&daemon, "a/b c", b"0123456789");
    set_modified(&put(&daemon, "a.txt", b"12"), TIME);
    put(&daemon, "文", b"");
    fs::create_dir_all(daemon.finished("empty/inner")).unwrap();
    symlink(daemon.data(), daemon.finished("link")).unwrap();
    let lines = list(&daemon, "", &[]);
    assert_eq!(names(&lines), ["a.txt", "a/b c", "文"]);
    let by_hand = serde_json::json!({"file_name": "a.txt", "file_size": 2, "modified": "1994-11-06T08:49:37Z"});
    assert_eq!(lines[0], by_hand);
    assert_eq!(lines[1]["file_digest"], blake3::hash(b"0123456789").to_string());
    for (query, listed) in [
        ("prefix=a/", &["a/b c"][..]),
        ("prefix=a&after=a.txt", &["a/b c"]),
        ("after=a/b+c", &["文"]),
        ("limit=1&after=a.", &["a.txt"]),
        ("prefix=%E6%96%87", &["文"]),
        ("prefix=../", &[]),
        ("prefix=link/", &[]),
        ("prefix=/", &[]),
    ] {
        assert_eq!(names(&list(&daemon, query, &[])), listed, "{query}");
    }
    for query in ["limit=0", "limit=x", "prefix=a&prefix=b", "peek=1", "after=%ff"] {
        let reply = send(daemon.url(), &format!("GET /content/?{query}"), &[]).expect(400);
        assert_eq!(reply.error(), "bad_request", "{query}");
    }
    let head = send(daemon.url(), "HEAD /content/", &[]).expect(200);
    assert_eq!((head.header("content-type"), head.body.len()), ("application/x-ndjson", 0));
    assert_eq!(send(daemon.url(), "GET /content", &[]).status, 200);
}

#[test]
fn a_long_list_is_read_page_by_page() {
    let daemon = Daemon::start();
    let mut all: Vec<String> = (0..2500).map(|i| format!("{}/{i:04}-{}", i % 3, "x".repeat(100))).collect();
    all.iter().for_each(|name| drop(put(&daemon, name, b"x")));
    all.sort_unstable();
    for limit in [700, 1000, 10_000] {
        let (mut seen, mut after): (Vec<String>, _) = (vec![], String::new());
        loop {
            let page = names(&list(&daemon, &format!("limit={limit}&after={}", encoded(&after)), &[]));
            assert!(page.len() <= limit);
            let is_last = page.len() < limit;
            after = page.last().cloned().unwrap_or_default();
            seen.extend(page);
            if is_last {
                break;
            }
        }
        assert!(seen == all, "{} of {}", seen.len(), all.len());
    }
    assert_eq!(list(&daemon, "", &[]).len(), 1000);
}

pub fn token(daemon: &Daemon, name: &str, arguments: &[&str]) -> String {
    let mut command = Command::new(programs::path("bigupd"));
    let output = command.arg("--data-dir").arg(daemon.data()).args(["token", "new", name]).args(arguments).output();
    let output = output.expect("bigupd can be started");
    assert!(output.status.success(), "{output:?}");
    format!("Authorization: Bearer {}", String::from_utf8(output.stdout).unwrap().trim())
}

#[test]
fn tokens_read_and_remove_under_their_prefix_alone() {
    let daemon = Daemon::with(&["--allow-anonymous", "yes"]);
    for name in ["a/x", "a/y", "ab", "b/z"] {
        put(&daemon, name, b"x");
    }
    let reader = token(&daemon, "reader", &["--prefix", "a/", "--permissions", "read"]);
    let pusher = token(&daemon, "pusher", &["--permissions", "push,replace"]);
    let remover = token(&daemon, "remover", &["--prefix", "a/", "--permissions", "delete"]);
    let admin = token(&daemon, "admin", &["--permissions", "admin"]);
    let foreign = "Authorization: Bearer bigup_0000".to_owned();
    let statuses = |method: &str, name: &str| {
        let nobody = "X-Nothing: here".to_owned();
        [&reader, &pusher, &remover, &admin, &nobody, &foreign]
            .map(|token| send(daemon.url(), &format!("{method} /content/{name}"), &[token]).status)
    };
    assert_eq!(statuses("GET", "a/x"), [200, 403, 403, 200, 200, 401]);
    assert_eq!(statuses("HEAD", "b/z"), [403, 403, 403, 200, 200, 401]);
    // A refusal tells nothing of what there is.
    assert_eq!(statuses("GET", "b/nothing"), [403, 403, 403, 404, 404, 401]);
    assert_eq!(statuses("DELETE", "ab"), [403, 403, 403, 204, 401, 401]);
    assert_eq!(statuses("DELETE", "b/nothing"), [403, 403, 403, 404, 401, 401]);
    assert_eq!(statuses("DELETE", "a/x"), [403, 403, 204, 404, 401, 401]);
    assert_eq!(statuses("GET", ""), [200, 403, 403, 200, 200, 401]);
    assert_eq!(names(&list(&daemon, "", &[&reader])), ["a/y"]);
    assert_eq!(names(&list(&daemon, "prefix=b/", &[&reader])), Vec::<String>::new());
    assert_eq!(names(&list(&daemon, "prefix=a/y", &[&reader])), ["a/y"]);
    assert_eq!(names(&list(&daemon, "", &[&admin])), ["a/y", "b/z"]);
    let log = daemon.log();
    assert!(log.contains("deleted a/x: file_size=1 token=remover peer=127.0.0.1"), "{log}");
    let refusal = send(daemon.url(), "DELETE /content/a/y", &[]).expect(401);
    assert!(String::from_utf8_lossy(&refusal.body).contains("may delete here"), "{refusal:?}");
}

#[test]
fn pages_of_others_neither_read_nor_remove() {
    let daemon = Daemon::start();
    put(&daemon, "f", b"x");
    for foreign in ["Origin: http://evil.example", "Sec-Fetch-Site: cross-site", "Referer: http://evil.example/page"] {
        for line in ["GET /content/f", "HEAD /content/f", "GET /content/", "DELETE /content/f"] {
            assert_eq!(send(daemon.url(), line, &[foreign]).status, 403, "{line} {foreign}");
        }
    }
    // An address that a user typed reads, and removes nothing.
    assert_eq!(get(&daemon, "f", &["Sec-Fetch-Site: none"]).status, 200);
    assert_eq!(delete(&daemon, "f", &["Sec-Fetch-Site: none"]).status, 403);
    let daemon = Daemon::with(&["--allowed-origins", "https://app.example.org"]);
    put(&daemon, "f", b"x");
    let page = "Origin: https://app.example.org";
    let preflight = ["Access-Control-Request-Method: DELETE", "Access-Control-Request-Headers: if-match", page];
    let preflight = send(daemon.url(), "OPTIONS /content/f", &preflight).expect(204);
    assert_eq!(preflight.header("access-control-allow-methods"), "GET, HEAD, PUT, DELETE, OPTIONS");
    for header in ["range", "if-range", "if-match", "if-none-match", "authorization"] {
        let allowed = preflight.header("access-control-allow-headers").split(", ").any(|allowed| allowed == header);
        assert!(allowed, "{header} {preflight:?}");
    }
    let reply = get(&daemon, "f", &[page, "Range: bytes=0-0"]).expect(206);
    assert_eq!(reply.header("access-control-allow-origin"), "https://app.example.org");
    for header in ["etag", "content-range", "accept-ranges", "content-length", "content-disposition", "bigup-digest"] {
        let shown = reply.header("access-control-expose-headers").split(", ").any(|shown| shown == header);
        assert!(shown, "{header} {reply:?}");
    }
    assert_eq!(delete(&daemon, "f", &[page]).status, 204);
}

/// Runs a block of docs/content.md against a daemon, with a token in a file, in a folder of its own. Its marker has the name
/// of a file beside this one.
pub fn run_documented(marker: &str, daemon: &Daemon, token: &Path, folder: &Path) {
    let block = docs::block("docs/content.md", &format!("tests/tests/programs/{marker}"));
    let script = block.replace("https://files.example.org", daemon.url());
    assert_ne!(block, script);
    fs::copy(token, folder.join("alice.token")).unwrap();
    let search = format!("{}:{}", folder.display(), std::env::var("PATH").expect("it is set"));
    let mut command = Command::new("bash");
    command.args(["-euo", "pipefail", "-c", &script]).current_dir(folder).env("PATH", search);
    let output = command.output().expect("bash can be started");
    assert!(output.status.success(), "{script}\n{output:?}");
}

#[test]
fn the_documented_commands_do_what_they_say() {
    let daemon = Daemon::start();
    let folder = tempfile::tempdir().unwrap();
    let content = data::bytes(9, 6_000_000);
    push(&daemon, "alice/disk.img", &content);
    for name in ["alice/old/1", "alice/old/2"] {
        push(&daemon, name, name.as_bytes());
    }
    let secret = token(&daemon, "alice", &["--prefix", "alice/", "--permissions", "read,delete"]);
    let alice = daemon.scratch().join("alice");
    fs::write(&alice, secret.rsplit(' ').next().unwrap()).unwrap();
    let here = |name: &str| fs::read(folder.path().join(name)).unwrap();
    fs::write(folder.path().join("half.img"), &content[..3_000_000]).unwrap();
    run_documented("content.rs: read", &daemon, &alice, folder.path());
    for name in ["disk.img", "half.img", "wget.img", "aria2.img"] {
        assert!(here(name) == content, "{name}");
    }
    assert!(here("head.bin") == content[..1024]);
    run_documented("content.rs: changed", &daemon, &alice, folder.path());
    // b3sum is no program of the tests: this one checks what it is told.
    let b3sum = folder.path().join("b3sum");
    let expected = format!("{}  disk.img", blake3::hash(&content));
    fs::write(&b3sum, format!("#!/bin/sh\nread -r line && [ \"$line\" = '{expected}' ]\n")).unwrap();
    fs::set_permissions(&b3sum, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    run_documented("content.rs: digest", &daemon, &alice, folder.path());
    run_documented("content.rs: remove", &daemon, &alice, folder.path());
    assert!(daemon.finished("alice/disk.img").exists());
    assert_eq!(fs::read_dir(daemon.finished("alice/old")).unwrap().count(), 0);
}

#[test]
fn wget_and_aria2c_continue_what_was_interrupted() {
    let daemon = Daemon::start();
    let folder = tempfile::tempdir().unwrap();
    let content = data::bytes(11, 12 << 20);
    push(&daemon, "big.bin", &content);
    let url = format!("{}/content/big.bin", daemon.url());
    let wget = ["wget", "-q", "-c", "-O", "wget.bin"];
    let aria2c = ["aria2c", "-q", "-c", "-x", "4", "-s", "4", "-k", "1M", "--file-allocation=none", "-o", "aria2.bin"];
    for (command, to, limit) in
        [(&wget[..], "wget.bin", "--limit-rate=3M"), (&aria2c, "aria2.bin", "--max-download-limit=3M")]
    {
        let to = folder.path().join(to);
        let start = |more: &[&str]| {
            let mut started = Command::new(command[0]);
            started.args(&command[1..]).args(more).arg(&url).current_dir(folder.path());
            started.spawn().expect("it can be started")
        };
        let mut interrupted = start(&[limit]);
        let has_some = || fs::metadata(&to).is_ok_and(|found| std::os::unix::fs::MetadataExt::blocks(&found) > 4000);
        eventually("a part is there", has_some);
        signal(interrupted.id(), Signal::SIGTERM);
        interrupted.wait().unwrap();
        assert!(fs::read(&to).unwrap() != content, "{to:?} is whole already");
        let before = sent(&daemon);
        assert!(start(&[]).wait().unwrap().success());
        assert!(fs::read(&to).unwrap() == content, "{to:?}");
        let again = sent(&daemon) - before;
        assert!(again > 0.0 && again < content.len() as f64, "{to:?}: it began anew");
    }
}

/// Bytes that were sent to readers.
pub fn sent(daemon: &Daemon) -> f64 {
    Scrape::of(daemon.url()).get("sent_bytes_total")
}

/// A reader that takes the beginning of a file and nothing more.
fn stalled(daemon: &Daemon, name: &str) -> TcpStream {
    let mut stream = connect(daemon.url());
    stream.write_all(format!("GET /content/{name} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes()).unwrap();
    stream.read_exact(&mut [0; 100]).unwrap();
    stream
}

#[test]
fn readers_that_take_nothing_are_given_up_and_slow_ones_are_not() {
    let daemon = Daemon::with(&["--body-timeout", "2s", "--min-body-rate", "1K"]);
    let content = data::bytes(5, 30 << 20);
    put(&daemon, "f", &content);
    let mut reader = stalled(&daemon, "f");
    eventually_counted(daemon.url(), &[("downloads_running", 1.0)]);
    eventually_counted(daemon.url(), &[("downloads_running", 0.0), ("refused_total{limit=\"reading\"}", 1.0)]);
    let mut rest = vec![];
    let _ = reader.read_to_end(&mut rest);
    assert!(rest.len() < content.len());
    // One that takes 5 MiB a second is slow, too.
    let mut reader = stalled(&daemon, "f");
    let (mut bytes, mut block) = (0, vec![0; 512 << 10]);
    while let Ok(len @ 1..) = reader.read(&mut block) {
        bytes += len;
        if bytes > content.len() - 1000 {
            break;
        }
        std::thread::sleep(Duration::from_millis(len as u64 / 5000));
    }
    assert!(bytes > content.len() - 1000, "{bytes}");
}

#[test]
fn many_readers_that_stall_take_little_memory_and_no_thread() {
    const READERS: u64 = 400;
    let daemon = Daemon::with(&["--max-connections-per-address", "0"]);
    put(&daemon, "f", &data::bytes(6, 20 << 20));
    let before = usage::memory(daemon.pid()).unwrap();
    let readers: Vec<TcpStream> = (0..READERS).map(|_| stalled(&daemon, "f")).collect();
    eventually_counted(daemon.url(), &[("downloads_running", READERS as f64)]);
    // A piece of each, those of the first ones, what hyper has of a connection, and what malloc keeps.
    let most = before + READERS * (64 << 10) + (24 << 20);
    let is = usage::memory(daemon.pid()).unwrap();
    assert!(is < most, "{} MiB of {}", is >> 20, most >> 20);
    // Each address has 160 threads: were they held, nobody would be answered.
    assert_eq!(get(&daemon, "f", &["Range: bytes=5-9"]).expect(206).body.len(), 5);
    drop(readers);
    eventually_counted(daemon.url(), &[("downloads_running", 0.0)]);
}
