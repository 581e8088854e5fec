//! Finished files by plain HTTP, `/content/NAME`: by curl, wget and aria2c, and by hand for what these would not send.

use bigup_tests::daemon::Daemon;
use bigup_tests::data;
use bigup_tests::http::{connect, encoded};
use bigup_tests::process::eventually;
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, SystemTime};

/// An answer as it came.
#[derive(Debug)]
struct Reply {
    status: u16,
    headers: HashMap<String, String>,
    body: Vec<u8>,
}

impl Reply {
    fn parse(bytes: &[u8]) -> Reply {
        let end = bytes.windows(4).position(|w| w == b"\r\n\r\n").expect("the answer has a head");
        let head = String::from_utf8(bytes[..end].to_vec()).expect("it is text");
        let (first, lines) = head.split_once("\r\n").unwrap_or((&head, ""));
        let status = first.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("it has a status");
        let fields = lines.split("\r\n").filter_map(|line| line.split_once(": "));
        let headers = fields.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect();
        Reply { status, headers, body: bytes[end + 4..].to_vec() }
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    #[track_caller]
    fn expect(self, status: u16) -> Reply {
        assert_eq!(self.status, status, "{:?} {}", self.headers, String::from_utf8_lossy(&self.body));
        self
    }

    /// What a refusal says to programs.
    fn error(&self) -> String {
        let body: serde_json::Value = serde_json::from_slice(&self.body).unwrap_or_default();
        body["error"].as_str().unwrap_or_default().to_owned()
    }
}

/// Sends a request by hand, all in one, and reads until the connection ends.
fn send(url: &str, line: &str, headers: &[&str]) -> Reply {
    let mut stream = connect(url);
    let lines: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    let request = format!("{line} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{lines}\r\n");
    stream.write_all(request.as_bytes()).expect("the daemon takes it");
    let mut bytes = vec![];
    stream.read_to_end(&mut bytes).expect("the answer can be read");
    Reply::parse(&bytes)
}

fn get(daemon: &Daemon, name: &str, headers: &[&str]) -> Reply {
    send(daemon.url(), &format!("GET /content/{name}"), headers)
}

/// Pushes `content` under `name`, so that its digest is known.
fn push(daemon: &Daemon, name: &str, content: &[u8]) {
    let query = format!("file_name={}&slice_id=0&slice_num=1&slice_size={}&replace=1", encoded(name), content.len());
    daemon.server().post(&query, content).expect(200);
    eventually("it is published", || fs::read(daemon.finished(name)).is_ok_and(|is| is == content));
    let path = name.split('/').map(encoded).collect::<Vec<_>>().join("/");
    eventually("its digest is certain", || get(daemon, &path, &[]).header("etag") == tag(content));
}

/// Puts a file there by hand: nothing tells its digest.
fn put(daemon: &Daemon, name: &str, content: &[u8]) -> PathBuf {
    let path = daemon.finished(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, content).unwrap();
    path
}

fn tag(content: &[u8]) -> String {
    format!("\"b3-{}\"", blake3::hash(content))
}

/// Sets the time of a file's last write, in seconds since 1970.
fn set_modified(path: &Path, seconds: u64) {
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
        "./folder/file",
        "/folder/file",
        "%2Ffolder/file",
        "folder//file",
        "folder/file/",
        "folder/",
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
    for name in ["folder/file", "folder%2Ffile", "folder%2ffile", "%66older/file?version=1", "folder/file?"] {
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
    let options = send(daemon.url(), "OPTIONS /content/f", &[]).expect(204);
    assert!(options.header("allow").ends_with("OPTIONS"), "{options:?}");
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
fn parts(reply: &Reply) -> Vec<(String, Vec<u8>)> {
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
        assert!(head.contains("Content-Type: application/octet-stream"), "{head}");
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
    assert_eq!(parts(&reply), expected.map(|(range, body)| (range.to_owned(), body.as_bytes().to_vec())));
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
