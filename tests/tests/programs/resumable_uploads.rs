//! Resumable uploads of the IETF draft at /files/, by clients that do all that its text permits, and much that it does not.
//! A file is published exactly, and only once a request that brings its end was processed wholly.

use bigup_core::protocol::name::FileName;
use bigup_core::storage::data_dir::DataDir;
use bigup_core::storage::spool::{Spool, UploadId, UploadRecord};
use bigup_tests::daemon::{Daemon, list};
use bigup_tests::process::{eventually, within};
use bigup_tests::{data, http, programs};
use serde_json::Value;
use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// Bytes of a slice that bodies are cut into.
const SLICE: usize = 8 << 20;

const MIB: usize = 1 << 20;

const PARTIAL: &str = "Content-Type: application/partial-upload";

/// Longest time for which a state that must not change is watched.
const WATCHED: Duration = Duration::from_secs(5);

// --- a client

/// A daemon that cuts uploads of unknown length into slices of [`SLICE`] bytes.
fn start() -> Daemon {
    start_with(&[])
}

fn start_with(arguments: &[&str]) -> Daemon {
    Daemon::with(&[&["--max-file-size", "1G"], arguments].concat())
}

/// A response.
#[derive(Debug)]
struct Reply {
    status: u16,
    head: String,
    body: Value,
}

impl Reply {
    fn parse(text: &str) -> Reply {
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((text, ""));
        let status = head.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok()).unwrap_or(0);
        Reply { status, head: head.to_owned(), body: serde_json::from_str(body).unwrap_or(Value::Null) }
    }

    fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.find_map(|(key, value)| key.eq_ignore_ascii_case(name).then_some(value))
    }

    #[track_caller]
    fn expect(self, status: u16) -> Reply {
        assert_eq!(self.status, status, "{self:?}");
        self
    }

    /// A problem of this type of the draft.
    #[track_caller]
    fn expect_problem(self, status: u16, kind: &str) -> Reply {
        let reply = self.expect(status);
        let told = format!("https://iana.org/assignments/http-problem-types#{kind}");
        assert_eq!(reply.body["type"], told, "{reply:?}");
        assert_eq!(reply.header("content-type"), Some("application/problem+json"), "{reply:?}");
        assert_eq!(reply.body["status"], status, "{reply:?}");
        reply
    }

    #[track_caller]
    fn offset(&self) -> usize {
        self.header("upload-offset").and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("{self:?}"))
    }

    #[track_caller]
    fn is_complete(&self) -> bool {
        match self.header("upload-complete") {
            Some("?1") => true,
            Some("?0") => false,
            _ => panic!("{self:?}"),
        }
    }
}

fn head_of(method: &str, path: &str, headers: &[&str]) -> String {
    let has_host = headers.iter().any(|line| line.starts_with("Host:"));
    let host = if has_host { "" } else { "Host: localhost\r\n" };
    let lines: String = headers.iter().map(|line| format!("{line}\r\n")).collect();
    format!("{method} {path} HTTP/1.1\r\n{host}{lines}\r\n")
}

/// A request whose body's length is told; `None`: it has no body.
fn ask(url: &str, method: &str, path: &str, headers: &[&str], body: Option<&[u8]>) -> Reply {
    let len = body.map(|body| format!("Content-Length: {}", body.len()));
    let lines = [headers, &["Connection: close"], &len.as_deref().into_iter().collect::<Vec<_>>()].concat();
    let request = [head_of(method, path, &lines).as_bytes(), body.unwrap_or_default()].concat();
    Reply::parse(&http::raw(url, &request))
}

/// The first bytes of a request whose body's length is not told. [`LAST_CHUNK`] ends it.
fn chunked(method: &str, path: &str, headers: &[&str], body: &[u8]) -> Vec<u8> {
    let head = head_of(method, path, &[headers, &["Connection: close", "Transfer-Encoding: chunked"]].concat());
    let size = if body.is_empty() { String::new() } else { format!("{:x}\r\n", body.len()) };
    let end = if body.is_empty() { "" } else { "\r\n" };
    [head.as_bytes(), size.as_bytes(), body, end.as_bytes()].concat()
}

const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

fn complete(is_end: bool) -> &'static str {
    if is_end { "Upload-Complete: ?1" } else { "Upload-Complete: ?0" }
}

fn named(name: &str) -> String {
    format!("Content-Disposition: attachment; filename=\"{name}\"")
}

fn create(daemon: &Daemon, name: &str, is_end: bool, more: &[&str], body: Option<&[u8]>) -> Reply {
    let name = named(name);
    ask(daemon.url(), "POST", "/files/", &[&[complete(is_end), &name][..], more].concat(), body)
}

/// An upload that was created.
struct Upload<'a> {
    daemon: &'a Daemon,
    path: String,
}

impl<'a> Upload<'a> {
    /// One of which nothing is held.
    fn begin(daemon: &'a Daemon, name: &str, more: &[&str]) -> Upload<'a> {
        let created = create(daemon, name, false, more, Some(b"")).expect(201);
        Upload::at(daemon, &created)
    }

    fn at(daemon: &'a Daemon, created: &Reply) -> Upload<'a> {
        let path = created.header("location").unwrap_or_else(|| panic!("{created:?}")).to_owned();
        Upload { daemon, path }
    }

    fn ask(&self, method: &str, headers: &[&str], body: Option<&[u8]>) -> Reply {
        ask(self.daemon.url(), method, &self.path, headers, body)
    }

    fn head(&self) -> Reply {
        self.ask("HEAD", &["Upload-Draft-Interop-Version: 8"], None)
    }

    /// Bytes that are held; the upload is not complete.
    #[track_caller]
    fn offset(&self) -> usize {
        let reply = self.head().expect(204);
        assert!(!reply.is_complete(), "{reply:?}");
        reply.offset()
    }

    fn patch(&self, offset: usize, is_end: bool, more: &[&str], body: &[u8]) -> Reply {
        let offset = format!("Upload-Offset: {offset}");
        self.ask("PATCH", &[&[PARTIAL, complete(is_end), &offset][..], more].concat(), Some(body))
    }

    /// Sends the rest of `content` with its end, and makes sure that all of it arrived.
    #[track_caller]
    fn finish(&self, name: &str, content: &[u8]) {
        let offset = self.offset();
        let reply = self.patch(offset, true, &[], &content[offset..]).expect(200);
        assert_eq!((reply.is_complete(), reply.offset()), (true, content.len()), "{reply:?}");
        self.assert_published(name, content);
    }

    #[track_caller]
    fn assert_published(&self, name: &str, content: &[u8]) {
        assert!(fs::read(self.daemon.finished(name)).unwrap() == content, "{name} arrived differently");
        let reply = self.head().expect(204);
        assert_eq!((reply.is_complete(), reply.offset()), (true, content.len()), "{reply:?}");
    }

    /// Begins a PATCH with the end, whose body has no end yet.
    fn hanging(&self, offset: usize, body: &[u8]) -> TcpStream {
        let offset = format!("Upload-Offset: {offset}");
        let mut stream = http::connect(self.daemon.url());
        stream.write_all(&chunked("PATCH", &self.path, &[PARTIAL, complete(true), &offset], body)).unwrap();
        stream
    }
}

// --- what is on the disk

fn spool_of(daemon: &Daemon, name: &str) -> Spool {
    Spool::of(&DataDir::open(&daemon.data()).unwrap(), &UploadId::of_name(&FileName::new(name).unwrap()))
}

fn record(daemon: &Daemon, name: &str) -> UploadRecord {
    spool_of(daemon, name).upload().unwrap().unwrap_or_else(|| panic!("there is no upload {name}"))
}

fn tail_exists(daemon: &Daemon, name: &str, len: usize) -> bool {
    let path = spool_of(daemon, name).path().join("tail");
    fs::metadata(path).is_ok_and(|tail| tail.len() == len as u64)
}

fn files(daemon: &Daemon) -> Vec<String> {
    list(&daemon.data().join("files"))
}

/// A program that merges as bigup-merger does while the file `works` is there, and counts its starts.
struct Mergers {
    folder: tempfile::TempDir,
}

impl Mergers {
    fn new(works: bool) -> Mergers {
        let folder = tempfile::tempdir().unwrap();
        let mergers = Mergers { folder };
        let (at, merger) = (mergers.folder.path().display(), programs::path("bigup-merger"));
        let script =
            format!("#!/bin/sh\necho >> {at}/starts\n[ -e {at}/works ] && exec {} \"$@\"\nexit 1\n", merger.display());
        fs::write(mergers.program(), script).unwrap();
        fs::set_permissions(mergers.program(), fs::Permissions::from_mode(0o755)).unwrap();
        if works {
            mergers.work();
        }
        mergers
    }

    fn program(&self) -> String {
        self.folder.path().join("merger").to_str().unwrap().to_owned()
    }

    fn work(&self) {
        fs::write(self.folder.path().join("works"), "").unwrap();
    }

    fn starts(&self) -> usize {
        fs::read_to_string(self.folder.path().join("starts")).unwrap_or_default().lines().count()
    }
}

/// The output of `bigupd` with these arguments on the data folder.
fn bigupd(data: &Path, arguments: &[&str]) -> String {
    let output = Command::new(programs::path("bigupd")).args(arguments).arg("--data-dir").arg(data).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

// --- creation

#[test]
fn a_creation_tells_address_and_limits() {
    let daemon = Daemon::with(&["--max-file-size", "1G", "--expire-after", "1d", "--begin-expire-after", "1h"]);
    let reply = ask(daemon.url(), "OPTIONS", "/files/", &[], None);
    let limits = reply.header("upload-limit").unwrap();
    assert!(limits.contains("max-size=1073741824") && limits.contains("min-size=0"), "{limits}");
    let reply = create(&daemon, "f", false, &["Upload-Length: 5"], Some(b"")).expect(201);
    assert_eq!((reply.is_complete(), reply.offset()), (false, 0));
    let limits = reply.header("upload-limit").unwrap();
    assert!(limits.contains("max-size=1073741824") && limits.contains("max-age=3600"), "{limits}");
    assert_eq!(reply.header("cache-control"), Some("no-store"));
    let upload = Upload::at(&daemon, &reply);
    let reply = upload.head().expect(204);
    assert_eq!((reply.is_complete(), reply.offset(), reply.header("upload-length")), (false, 0, Some("5")));
    assert_eq!(reply.header("cache-control"), Some("no-store"));
    assert!(reply.header("upload-limit").unwrap().contains("max-age=3600"), "{reply:?}");
    upload.patch(0, false, &[], b"01").expect(204);
    assert!(upload.head().header("upload-limit").unwrap().contains("max-age=86400"), "it lives longer by now");
    upload.finish("f", b"01234");
    let reply = upload.head().expect(204);
    assert_eq!((reply.header("upload-length"), reply.header("cache-control")), (Some("5"), Some("no-store")));
    assert!(reply.header("upload-limit").is_some(), "{reply:?}");
    daemon.eventually_clean();
}

#[test]
fn a_file_of_one_request_is_published_at_once() {
    let daemon = start();
    for (name, len) in [("empty", 0), ("small", 1), ("a slice", SLICE), ("more", 2 * SLICE + 1)] {
        let content = data::bytes(1, len);
        for chunks in [false, true] {
            let name = format!("{name} {chunks}");
            let header = named(&name);
            let reply = if chunks {
                let begin = chunked("POST", "/files/", &[complete(true), &header], &content);
                Reply::parse(&http::raw(daemon.url(), &[&begin, LAST_CHUNK].concat()))
            } else {
                create(&daemon, &name, true, &[], Some(&content))
            };
            let reply = reply.expect(201);
            assert_eq!((reply.is_complete(), reply.offset()), (true, len), "{reply:?}");
            assert!(reply.header("upload-limit").is_some(), "{reply:?}");
            Upload::at(&daemon, &reply).assert_published(&name, &content);
        }
    }
    // Neither body nor length.
    let reply = create(&daemon, "nothing", true, &[], None).expect(201);
    Upload::at(&daemon, &reply).assert_published("nothing", b"");
    daemon.eventually_clean();
}

#[test]
fn an_empty_file_is_published_once_its_client_says_that_it_is_whole() {
    let daemon = start();
    for (name, headers) in [("unknown", &[][..]), ("known", &["Upload-Length: 0"])] {
        let upload = Upload::begin(&daemon, name, headers);
        assert_eq!(upload.offset(), 0);
        assert_eq!(upload.patch(0, false, &[], b"").expect(204).offset(), 0);
        std::thread::sleep(Duration::from_secs(3));
        assert!(!daemon.finished(name).exists(), "{name} is published, and is not whole");
        upload.finish(name, b"");
    }
    daemon.eventually_clean();
}

#[test]
fn creations_that_make_no_sense_are_refused_and_change_nothing() {
    let daemon = Daemon::with(&["--max-file-size", "1M"]);
    let inconsistent = create(&daemon, "f", true, &["Upload-Length: 5"], Some(b"1234"));
    inconsistent.expect_problem(400, "inconsistent-upload-length");
    for headers in [
        &["Upload-Draft-Interop-Version: 8"][..],
        &["Upload-Complete: 1"],
        &["Upload-Complete: true"],
        &["Upload-Complete: ?1", "Upload-Complete: ?1"],
        &["Upload-Complete: ?0", "Content-Digest: sha-256=:AAAA:"],
    ] {
        let name = named("f");
        let headers = [headers, &["Upload-Draft-Interop-Version: 8", &name]].concat();
        let reply = ask(daemon.url(), "POST", "/files/", &headers, Some(b"x")).expect(400);
        assert_eq!(reply.header("content-type"), Some("application/problem+json"), "{reply:?}");
    }
    let large = create(&daemon, "f", false, &["Upload-Length: 1048577"], Some(b"")).expect(413);
    assert!(large.header("upload-limit").is_some_and(|limit| limit.contains("max-size=1048576")), "{large:?}");
    for method in ["PUT", "PATCH", "DELETE", "HEAD", "GET"] {
        let reply = ask(daemon.url(), method, "/files/", &[complete(true)], None).expect(405);
        assert!(reply.header("allow").is_some(), "{reply:?}");
    }
    assert_eq!((daemon.spools(), files(&daemon)), (vec![], vec![]));
}

#[test]
fn a_creation_whose_body_is_refused_tells_the_address() {
    let daemon = start();
    let reply = create(&daemon, "f", false, &["Upload-Length: 5"], Some(b"0123456789")).expect(413);
    let upload = Upload::at(&daemon, &reply);
    assert_eq!(upload.offset(), 0);
    upload.finish("f", b"01234");
    let digest = "Content-Digest: sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:";
    let reply = create(&daemon, "g", true, &[digest], Some(b"0123456789"));
    assert!(reply.status >= 400, "{reply:?}");
    let upload = Upload::at(&daemon, &reply);
    assert_eq!(upload.offset(), 0);
    upload.finish("g", b"0123456789");
}

// --- appending

#[test]
fn bytes_are_appended_in_requests_of_any_length() {
    let daemon = start();
    for last in [SLICE - 1, SLICE, SLICE + 1, 1, 0] {
        let content = data::bytes(last as u64, 2 * SLICE + last);
        let name = format!("f{last}");
        let upload = Upload::begin(&daemon, &name, &[]);
        let mut offset = 0;
        for len in [1, SLICE - 1, 3, SLICE - 3, last] {
            let reply = upload.patch(offset, false, &[], &content[offset..offset + len]).expect(204);
            offset += len;
            assert_eq!((reply.is_complete(), reply.offset(), upload.offset()), (false, offset, offset), "{reply:?}");
        }
        assert!(!daemon.finished(&name).exists());
        // The end in a request of its own.
        let reply = upload.patch(offset, true, &[], b"").expect(200);
        assert_eq!((reply.is_complete(), reply.offset()), (true, offset), "{reply:?}");
        upload.assert_published(&name, &content);
    }
    daemon.eventually_clean();
}

#[test]
fn an_end_comes_with_bytes_around_the_end_of_a_slice() {
    let daemon = start();
    for len in [SLICE - 1, SLICE, SLICE + 1, 2 * SLICE - 1, 2 * SLICE, 2 * SLICE + 1] {
        let content = data::bytes(len as u64, len);
        for chunks in [false, true] {
            let name = format!("{len} {chunks}");
            let upload = Upload::begin(&daemon, &name, &[]);
            let first = SLICE / 2;
            upload.patch(0, false, &[], &content[..first]).expect(204);
            if chunks {
                let mut stream = upload.hanging(first, &content[first..]);
                stream.write_all(LAST_CHUNK).unwrap();
                Reply::parse(&http::read_answer(&mut stream)).expect(200);
                upload.assert_published(&name, &content);
            } else {
                upload.finish(&name, &content);
            }
        }
    }
    daemon.eventually_clean();
}

#[test]
fn an_upload_whose_length_is_told_is_not_complete_when_all_bytes_are_held() {
    let daemon = start();
    let content = data::bytes(1, SLICE + 5);
    for (name, created, patched) in [("creation", true, false), ("append", false, true)] {
        let length = format!("Upload-Length: {}", content.len());
        let told = |is_told: bool| if is_told { vec![&*length] } else { vec![] };
        let upload = Upload::begin(&daemon, name, &told(created));
        let reply = upload.patch(0, false, &told(patched), &content).expect(204);
        assert_eq!((reply.is_complete(), reply.offset()), (false, content.len()));
        std::thread::sleep(Duration::from_secs(3));
        assert_eq!(upload.offset(), content.len());
        assert!(!daemon.finished(name).exists());
        upload.finish(name, &content);
    }
    daemon.eventually_clean();
}

#[test]
fn appends_that_make_no_sense_are_refused_and_change_nothing() {
    let daemon = start();
    let upload = Upload::begin(&daemon, "f", &[]);
    upload.patch(0, false, &[], b"01234").expect(204);
    for offset in [0, 4, 6, 1 << 40] {
        for is_end in [false, true] {
            let reply = upload.patch(offset, is_end, &[], b"xyz").expect_problem(409, "mismatching-upload-offset");
            assert_eq!((reply.is_complete(), reply.offset()), (false, 5), "{reply:?}");
            assert_eq!((&reply.body["expected-offset"], &reply.body["provided-offset"]), (&5.into(), &offset.into()));
        }
    }
    for headers in [
        &["Upload-Offset: 5"][..],
        &["Upload-Complete: ?1"],
        &["Upload-Complete: ?1", "Upload-Offset: -5"],
        &["Upload-Complete: ?1", "Upload-Offset: 5.0"],
        &["Upload-Complete: ?1", "Upload-Offset: 5, 5"],
        &["Upload-Complete: 1", "Upload-Offset: 5"],
        &["Upload-Complete: ?1", "Upload-Offset: 5", "Content-Digest: sha-256=:AAAA:"],
    ] {
        upload.ask("PATCH", &[&[PARTIAL][..], headers].concat(), Some(b"xyz")).expect(400);
    }
    for kind in ["application/offset+octet-stream", "application/octet-stream", "multipart/form-data; boundary=x"] {
        let kind = format!("Content-Type: {kind}");
        upload.ask("PATCH", &[&kind, "Upload-Complete: ?1", "Upload-Offset: 5"], Some(b"xyz")).expect(415);
    }
    upload.ask("PATCH", &["Upload-Complete: ?1", "Upload-Offset: 5"], Some(b"xyz")).expect(415);
    for method in ["POST", "PUT"] {
        let reply = upload.ask(method, &["Upload-Complete: ?1", "Upload-Offset: 5"], Some(b"xyz")).expect(405);
        assert!(reply.header("allow").is_some(), "{reply:?}");
    }
    let short = upload.patch(5, true, &["Upload-Length: 9"], b"xyz");
    short.expect_problem(400, "inconsistent-upload-length");
    let reply = upload.head().expect(204);
    assert_eq!((reply.offset(), reply.header("upload-length")), (5, None), "no length was learnt: {reply:?}");
    upload.finish("f", b"0123456789");
}

#[test]
fn a_length_cannot_change() {
    let daemon = start();
    let upload = Upload::begin(&daemon, "f", &["Upload-Length: 10"]);
    upload.patch(0, false, &["Upload-Length: 9"], b"01").expect_problem(400, "inconsistent-upload-length");
    upload.patch(0, true, &[], b"01").expect_problem(400, "inconsistent-upload-length");
    upload.patch(0, true, &[], b"01234567890").expect_problem(400, "inconsistent-upload-length");
    assert_eq!(upload.offset(), 0);
    upload.patch(0, false, &["Upload-Length: 10"], b"01").expect(204);
    upload.patch(2, true, &["Upload-Length: 11"], b"234567890").expect_problem(400, "inconsistent-upload-length");
    // Over the length, told and not.
    upload.patch(2, false, &[], b"234567890").expect(413);
    let mut stream = http::connect(daemon.url());
    let headers = [PARTIAL, complete(false), "Upload-Offset: 2"];
    let begin = chunked("PATCH", &upload.path, &headers, b"234567890");
    stream.write_all(&[&begin, LAST_CHUNK].concat()).unwrap();
    Reply::parse(&http::read_answer(&mut stream)).expect(413);
    // An end before the length is reached, by a body whose length is not told.
    let offset = upload.offset();
    if offset < 10 {
        let mut stream = upload.hanging(offset, b"x");
        stream.write_all(LAST_CHUNK).unwrap();
        Reply::parse(&http::read_answer(&mut stream)).expect_problem(400, "inconsistent-upload-length");
    }
    assert!(!daemon.finished("f").exists());
    // A length that is less than what is held.
    let upload = Upload::begin(&daemon, "g", &[]);
    upload.patch(0, false, &[], b"0123456789").expect(204);
    upload.patch(10, false, &["Upload-Length: 9"], b"").expect_problem(400, "inconsistent-upload-length");
    upload.finish("g", b"0123456789");
}

#[test]
fn nothing_is_appended_to_a_complete_upload() {
    let daemon = start();
    let content = data::bytes(1, SLICE + 1);
    for (name, content) in [("f", &content[..]), ("empty", b"")] {
        let upload = Upload::begin(&daemon, name, &[]);
        upload.finish(name, content);
        for (offset, is_end, body) in
            [(content.len(), true, &b""[..]), (content.len(), false, b"x"), (0, true, content), (0, false, b"")]
        {
            upload.patch(offset, is_end, &[], body).expect_problem(400, "completed-upload");
        }
        upload.assert_published(name, content);
    }
    daemon.eventually_clean();
}

#[test]
fn a_body_with_another_digest_is_not_kept() {
    let daemon = start();
    let content = data::bytes(1, SLICE + 100);
    let digest = |bytes: &[u8]| {
        use base64::Engine;
        use sha2::Digest;
        let sha256 = base64::engine::general_purpose::STANDARD.encode(sha2::Sha256::digest(bytes));
        format!("Content-Digest: sha-256=:{sha256}:")
    };
    let upload = Upload::begin(&daemon, "f", &[]);
    upload.patch(0, false, &[&digest(&content[..50])], &content[..50]).expect(204);
    let wrong = upload.patch(50, true, &[&digest(b"else")], &content[50..]);
    assert!(wrong.status >= 400, "{wrong:?}");
    let reply = upload.head().expect(204);
    assert_eq!((reply.offset(), reply.is_complete()), (50, false));
    assert!(!daemon.finished("f").exists());
    // The request that was damaged told the length, which may be kept or not. It is the same the next time.
    upload.patch(50, true, &[&digest(&content[50..])], &content[50..]).expect(200);
    upload.assert_published("f", &content);
}

// --- bodies that are cut off

/// Sends the first bytes of a body, and makes sure that they arrived.
fn partly_sent(daemon: &Daemon, name: &str, mut request: TcpStream, rest: &[u8], arrives: usize) -> TcpStream {
    request.write_all(rest).unwrap();
    eventually("the bytes arrived", || tail_exists(daemon, name, arrives));
    request
}

/// The ways by which a request ends before its body does.
#[derive(Clone, Copy, Debug)]
enum Cut {
    Close,
    Reset,
    Stall,
}

const CUTS: [Cut; 3] = [Cut::Close, Cut::Reset, Cut::Stall];

impl Cut {
    /// Cuts a request that was told to go on, and has not read that.
    fn cut(self, request: TcpStream) -> Option<TcpStream> {
        match self {
            Cut::Close => {
                let mut request = request;
                http::read_head(&mut request);
                drop(request);
                None
            }
            // Bytes that were not read make the kernel reset the connection.
            Cut::Reset => {
                request.peek(&mut [0]).unwrap();
                drop(request);
                None
            }
            Cut::Stall => Some(request),
        }
    }
}

/// Requests with the end, whose body of `content` lacks something.
fn cut_bodies(content: &[u8]) -> Vec<(&'static str, String, Vec<u8>, usize)> {
    let (all, half) = (content.len(), content.len() / 2);
    let chunk = |bytes: &[u8]| [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat();
    let part = [format!("{all:x}\r\n").as_bytes(), &content[..half]].concat();
    vec![
        ("half of a length", format!("Content-Length: {all}"), content[..half].to_vec(), half),
        ("half of a chunk", "Transfer-Encoding: chunked".to_owned(), part, half),
        ("all but the last chunk", "Transfer-Encoding: chunked".to_owned(), chunk(content), all),
        (
            "half of the last chunk",
            "Transfer-Encoding: chunked".to_owned(),
            [&chunk(content)[..], b"0\r\n"].concat(),
            all,
        ),
    ]
}

#[test]
fn an_append_with_the_end_that_is_cut_off_completes_nothing() {
    let daemon = start();
    let content = data::bytes(1, 3 * MIB);
    let told = format!("Upload-Length: {}", content.len());
    for (cut, known) in CUTS.into_iter().flat_map(|cut| [(cut, vec![]), (cut, vec![&*told])]) {
        for (kind, length, body, arrives) in cut_bodies(&content) {
            let name = format!("{kind} {cut:?} {}", known.len());
            let upload = Upload::begin(&daemon, &name, &known);
            let mut request = http::connect(daemon.url());
            let headers = [PARTIAL, complete(true), "Upload-Offset: 0", "Expect: 100-continue", &length];
            request.write_all(head_of("PATCH", &upload.path, &headers).as_bytes()).unwrap();
            let request = cut.cut(partly_sent(&daemon, &name, request, &body, arrives));
            let offset = upload.offset();
            assert_eq!(offset, arrives, "{name}");
            assert!(!daemon.finished(&name).exists(), "{name} is published, and was cut off");
            upload.finish(&name, &content);
            drop(request);
        }
    }
    daemon.eventually_clean();
}

#[test]
fn a_creation_with_the_end_that_is_cut_off_is_never_published() {
    let daemon = start();
    let content = data::bytes(1, 3 * MIB);
    let mut stalled = vec![];
    let mut names = vec![];
    for cut in CUTS {
        for (kind, length, body, arrives) in cut_bodies(&content) {
            let name = format!("{kind} {cut:?}");
            let header = named(&name);
            let mut request = http::connect(daemon.url());
            let headers = [complete(true), &header, "Expect: 100-continue", &length];
            request.write_all(head_of("POST", "/files/", &headers).as_bytes()).unwrap();
            stalled.extend(cut.cut(partly_sent(&daemon, &name, request, &body, arrives)));
            names.push(name);
        }
    }
    std::thread::sleep(WATCHED);
    assert_eq!(files(&daemon), Vec::<String>::new());
    for name in names {
        assert!(record(&daemon, &name).awaits_end, "{name}");
    }
}

#[test]
fn an_end_that_came_counts_although_its_client_hears_nothing() {
    let daemon = start();
    for len in [0, 5, MIB, SLICE + 1] {
        let content = data::bytes(1, len);
        let name = format!("f{len}");
        let upload = Upload::begin(&daemon, &name, &[]);
        let mut request = upload.hanging(0, &content);
        request.write_all(LAST_CHUNK).unwrap();
        drop(request);
        eventually("it is published", || daemon.finished(&name).exists());
        upload.assert_published(&name, &content);
    }
}

// --- kills

#[test]
fn a_kill_before_the_end_leaves_an_upload_that_is_not_complete() {
    let mut daemon = start();
    let content = data::bytes(1, SLICE + MIB);
    let length = format!("Upload-Length: {}", content.len());
    for (name, headers) in [("known", &[&*length][..]), ("unknown", &[])] {
        let path = {
            let upload = Upload::begin(&daemon, name, headers);
            upload.patch(0, false, &[], &content).expect(204);
            upload.path
        };
        daemon.kill_9();
        daemon.run();
        let upload = Upload { daemon: &daemon, path };
        assert_eq!(upload.offset(), content.len());
        upload.finish(name, &content);
    }
    daemon.eventually_clean();
}

#[test]
fn a_kill_while_a_request_with_the_end_hangs_completes_nothing() {
    let mut daemon = start();
    let content = data::bytes(1, SLICE + MIB);
    let (path, request) = {
        let upload = Upload::begin(&daemon, "f", &[]);
        let request = upload.hanging(0, &content);
        eventually("all bytes arrived", || tail_exists(&daemon, "f", MIB));
        (upload.path, request)
    };
    daemon.kill_9();
    drop(request);
    daemon.run();
    let upload = Upload { daemon: &daemon, path };
    assert!(upload.offset() >= SLICE);
    assert!(!daemon.finished("f").exists());
    upload.finish("f", &content);
    daemon.eventually_clean();
}

#[test]
fn a_kill_between_the_end_and_publication_loses_neither() {
    let mergers = Mergers::new(false);
    let mut daemon = start_with(&["--merger", &mergers.program()]);
    let content = data::bytes(1, 2 * SLICE + 1);
    for name in ["with bytes", "alone"] {
        let (path, request) = {
            let upload = Upload::begin(&daemon, name, &[]);
            let first = if name == "alone" { content.len() } else { SLICE + 5 };
            upload.patch(0, false, &[], &content[..first]).expect(204);
            let mut request = upload.hanging(first, &content[first..]);
            request.write_all(LAST_CHUNK).unwrap();
            eventually("the end is noted", || !record(&daemon, name).awaits_end);
            (upload.path, request)
        };
        daemon.kill_9();
        drop(request);
        daemon.run();
        assert!(!daemon.finished(name).exists());
        mergers.work();
        // Nobody asks: it is published all the same.
        eventually("it is published", || daemon.finished(name).exists());
        Upload { daemon: &daemon, path }.assert_published(name, &content);
        fs::remove_file(mergers.folder.path().join("works")).unwrap();
    }
}

// --- requests beside each other

#[test]
fn a_newer_request_ends_an_older_one() {
    // The older one is answered once nothing came of its body for that long.
    let daemon = start_with(&["--body-timeout", "2s"]);
    let content = data::bytes(1, 3 * MIB);
    let upload = Upload::begin(&daemon, "f", &[]);
    let mut older = upload.hanging(0, &content[..MIB]);
    eventually("the bytes arrived", || tail_exists(&daemon, "f", MIB));
    // One that takes another offset to be right learns the right one.
    let reply = upload.patch(0, true, &[], b"x").expect_problem(409, "mismatching-upload-offset");
    assert_eq!(reply.offset(), MIB);
    Reply::parse(&http::read_answer(&mut older)).expect(409);
    let mut older = upload.hanging(MIB, &content[MIB..2 * MIB]);
    eventually("the bytes arrived", || tail_exists(&daemon, "f", 2 * MIB));
    assert_eq!(upload.offset(), 2 * MIB);
    Reply::parse(&http::read_answer(&mut older)).expect(409);
    // Bytes that were sent by the older one, and did not come.
    let mut older = upload.hanging(2 * MIB, &content[2 * MIB..2 * MIB + 5]);
    eventually("the bytes arrived", || tail_exists(&daemon, "f", 2 * MIB + 5));
    upload.finish("f", &content);
    Reply::parse(&http::read_answer(&mut older)).expect(409);
    upload.assert_published("f", &content);
    // Its end does not hang either.
    let upload = Upload::begin(&daemon, "g", &[]);
    let older = upload.hanging(0, &content[..MIB]);
    eventually("the bytes arrived", || tail_exists(&daemon, "g", MIB));
    upload.ask("DELETE", &[], None).expect(204);
    let head = upload.head();
    assert!(matches!(head.status, 404 | 410), "{head:?}");
    drop(older);
}

#[test]
fn forty_uploads_at_once_are_exact() {
    let daemon = start();
    std::thread::scope(|scope| {
        for number in 0..40_usize {
            let daemon = &daemon;
            scope.spawn(move || {
                let content = data::bytes(number as u64, 100_000 + number);
                let name = format!("f{number}");
                let upload = Upload::begin(daemon, &name, &[]);
                let mut offset = 0;
                for _ in 0..3 {
                    offset = upload.patch(offset, false, &[], &content[offset..offset + 20_000]).expect(204).offset();
                }
                upload.finish(&name, &content);
            });
        }
    });
    daemon.eventually_clean();
}

#[test]
fn forty_requests_for_one_upload_mix_nothing() {
    let daemon = start();
    let content = data::bytes(1, 4 * MIB);
    let upload = Upload::begin(&daemon, "f", &[]);
    std::thread::scope(|scope| {
        for _ in 0..40 {
            scope.spawn(|| {
                // Each goes on from where it finds the upload, as a client that is impatient does.
                for _ in 0..200 {
                    let reply = upload.head();
                    if reply.status != 204 {
                        continue;
                    }
                    if reply.is_complete() {
                        return;
                    }
                    let offset = reply.offset();
                    let end = (offset + MIB / 2 + 1).min(content.len());
                    let reply = upload.patch(offset, end == content.len(), &[], &content[offset..end]);
                    assert!(reply.status < 500 || reply.status == 503, "{reply:?}");
                }
            });
        }
    });
    if !daemon.finished("f").exists() {
        upload.finish("f", &content);
    }
    upload.assert_published("f", &content);
    daemon.eventually_clean();
}

// --- versions, and the other protocol

#[test]
fn versions_of_the_draft_are_spoken_alike() {
    let daemon = start();
    for version in ["3", "5", "6", "7", "8", "9", "\"x\"", "-1"] {
        let version = format!("Upload-Draft-Interop-Version: {version}");
        let reply = create(&daemon, "f", false, &[&version], Some(b"01")).expect(201);
        let upload = Upload::at(&daemon, &reply);
        let reply = upload.ask("HEAD", &[&version], None).expect(204);
        assert_eq!((reply.is_complete(), reply.offset()), (false, 2));
        let reply = upload.patch(2, true, &[&version], b"234").expect(200);
        assert_eq!((reply.is_complete(), reply.offset()), (true, 5));
        upload.ask("DELETE", &[&version], None).expect(404);
    }
}

#[test]
fn a_client_of_an_old_version_is_not_led_to_take_all_bytes_for_the_end() {
    let daemon = start();
    let old = "Upload-Draft-Interop-Version: 6";
    let metadata = "Upload-Metadata: filename Zi5iaW4=,filetype eA==";
    let headers = [complete(false), old, metadata, "Upload-Length: 4"];
    let reply = ask(daemon.url(), "POST", "/files/", &headers, Some(b"")).expect(201);
    let upload = Upload::at(&daemon, &reply);
    assert_eq!(upload.ask("HEAD", &[old], None).expect(204).header("upload-length"), Some("4"));
    upload.patch(0, false, &[old], b"0123").expect(204);
    let reply = upload.ask("HEAD", &[old], None).expect(204);
    assert_eq!((reply.offset(), reply.is_complete(), reply.header("upload-length")), (4, false, None));
    assert_eq!(upload.head().header("upload-length"), Some("4"));
    upload.patch(4, true, &[old], b"").expect(200);
    assert_eq!(upload.ask("HEAD", &[old], None).expect(204).header("upload-length"), Some("4"));
    upload.assert_published("f.bin", b"0123");
}

const TUS: &str = "Tus-Resumable: 1.0.0";

const TUS_BODY: &str = "Content-Type: application/offset+octet-stream";

fn tus_patch(upload: &Upload<'_>, offset: usize, body: &[u8]) -> Reply {
    let offset = format!("Upload-Offset: {offset}");
    upload.ask("PATCH", &[TUS, TUS_BODY, &offset], Some(body))
}

#[test]
fn an_upload_of_tus_is_not_touched_by_the_draft() {
    let daemon = start();
    let created =
        ask(daemon.url(), "POST", "/files/", &[TUS, "Upload-Length: 10", "Upload-Metadata: filename Zg=="], Some(b""));
    let upload = Upload::at(&daemon, &created.expect(201));
    tus_patch(&upload, 0, b"01234").expect(204);
    // Anybody who has the address may look, without any header field.
    for method in ["HEAD", "GET"] {
        let reply = upload.ask(method, &[], None).expect(204);
        assert_eq!((reply.is_complete(), reply.offset(), reply.header("upload-length")), (false, 5, Some("10")));
        assert_eq!(reply.header("tus-resumable"), None, "{reply:?}");
    }
    for is_end in [false, true] {
        let reply = upload.patch(5, is_end, &[], b"56789");
        assert!(matches!(reply.status, 400 | 409), "{reply:?}");
    }
    let head = upload.ask("HEAD", &[TUS], None).expect(200);
    assert_eq!((head.offset(), head.header("upload-complete")), (5, None), "{head:?}");
    tus_patch(&upload, 5, b"56789").expect(204);
    upload.assert_published("f", b"0123456789");
    daemon.eventually_clean();
}

#[test]
fn an_upload_of_the_draft_is_not_touched_by_tus() {
    let daemon = start();
    let upload = Upload::begin(&daemon, "f", &["Upload-Length: 10"]);
    upload.patch(0, false, &[], b"01234").expect(204);
    let reply = tus_patch(&upload, 5, b"56789");
    assert!(matches!(reply.status, 400 | 409), "{reply:?}");
    assert_eq!(upload.offset(), 5);
    upload.patch(5, false, &[], b"56789").expect(204);
    // All bytes are held, which means "done" in the words of tus, and it is not.
    let reply = upload.ask("HEAD", &[TUS], None);
    assert!(reply.status >= 400, "{reply:?}");
    let reply = tus_patch(&upload, 10, b"");
    assert!(matches!(reply.status, 400 | 409), "{reply:?}");
    upload.finish("f", b"0123456789");
    // Now it is.
    let reply = upload.ask("HEAD", &[TUS], None).expect(200);
    assert_eq!((reply.offset(), reply.header("upload-length")), (10, Some("10")));
}

// --- names, rights, limits

#[test]
fn names_are_made_safe() {
    let daemon = start();
    for (disposition, name) in [
        ("inline; filename*=UTF-8''na%C3%AFve%20%E2%82%AC.txt", "naïve €.txt"),
        ("attachment; filename=\"a\\\"b\\\\c;d.txt\"", "a\"b/c;d.txt"),
        ("attachment; filename=token.txt; filename*=utf-8'de'x%2Fy.txt", "x/y.txt"),
        ("attachment; filename=\"../../../etc/passwd\"", "etc/passwd"),
        ("attachment; filename*=UTF-8''..%2F..%2F..%2Fetc%2Fpasswd2", "etc/passwd2"),
        ("attachment; filename*=UTF-8''%00%1b%5B31m", "__[31m"),
        ("attachment; filename=\"grüße.txt\"", "grüße.txt"),
    ] {
        let header = format!("Content-Disposition: {disposition}");
        let reply = ask(daemon.url(), "POST", "/files/", &[complete(true), &header], Some(b"x")).expect(201);
        assert!(daemon.finished(name).exists(), "{disposition}: {reply:?}");
        assert!(Upload::at(&daemon, &reply).head().expect(204).is_complete());
    }
    for disposition in
        ["inline", "attachment; filename=\"..\"", "attachment; filename*=UTF-8''%ff", "\"", ";;;=", "a;b="]
    {
        let header = format!("Content-Disposition: {disposition}");
        let reply = ask(daemon.url(), "POST", "/files/", &[complete(true), &header], Some(b"x")).expect(201);
        let name = reply.header("location").unwrap().rsplit_once('/').unwrap().1.to_owned();
        assert_eq!(name.len(), 32, "{disposition}: {name}");
        assert!(daemon.finished(&name).exists(), "{disposition}");
    }
    assert!(!daemon.data().parent().unwrap().join("etc").exists());
}

#[test]
fn a_token_is_asked_for_and_its_prefix_kept() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let token = |name: &str, more: &[&str]| {
        let text = bigupd(&data, &[&["token", "new", name], more].concat());
        format!("Authorization: Bearer {}", text.trim())
    };
    let (alice, bob) = (token("alice", &["--prefix", "alice/"]), token("bob", &["--prefix", "bob/"]));
    let reader = token("reader", &["--permissions", "read"]);
    let daemon = Daemon::with_data(&data, &[]);
    create(&daemon, "f", false, &[], Some(b"")).expect(401);
    create(&daemon, "f", false, &[&reader], Some(b"")).expect(403);
    let reply = create(&daemon, "../bob/f", false, &[&alice], Some(b"01")).expect(201);
    let upload = Upload::at(&daemon, &reply);
    assert!(upload.path.ends_with("/alice/bob/f"), "{}", upload.path);
    for (header, status) in [(&[][..], 401), (&[&*bob], 403), (&[&*reader], 403)] {
        upload.ask("HEAD", header, None).expect(status);
        upload.ask("GET", header, None).expect(status);
        upload.patch(2, true, header, b"x").expect(status);
        upload.ask("DELETE", header, None).expect(status);
    }
    assert_eq!(upload.ask("HEAD", &[&alice], None).expect(204).offset(), 2);
    upload.patch(2, true, &[&alice], b"23").expect(200);
    assert_eq!(fs::read(daemon.finished("alice/bob/f")).unwrap(), b"0123");
}

#[test]
fn pages_and_hosts_that_are_not_ours_change_nothing() {
    let daemon = start();
    for header in ["Origin: https://evil.example", "Host: rebound.evil.example"] {
        create(&daemon, "f", true, &[header], Some(b"x")).expect(403);
    }
    assert_eq!((daemon.spools(), files(&daemon)), (vec![], vec![]));
    let upload = Upload::begin(&daemon, "f", &[]);
    for header in ["Origin: https://evil.example", "Host: rebound.evil.example"] {
        upload.patch(0, true, &[header], b"x").expect(403);
        upload.ask("HEAD", &[header], None).expect(403);
        upload.ask("DELETE", &[header], None).expect(403);
    }
    upload.finish("f", b"x");
    drop(daemon);
    let daemon = start_with(&["--allowed-origins", "https://app.example.org"]);
    let page = "Origin: https://app.example.org";
    let asks = "Access-Control-Request-Headers: upload-complete, upload-offset, upload-length, content-type, \
                content-disposition, content-digest, upload-draft-interop-version";
    let reply = ask(daemon.url(), "OPTIONS", "/files/", &[page, "Access-Control-Request-Method: PATCH", asks], None);
    let allowed = reply.header("access-control-allow-headers").unwrap().to_ascii_lowercase();
    for header in ["upload-complete", "upload-offset", "upload-length", "content-disposition", "content-digest"] {
        assert!(allowed.contains(header), "{header}: {allowed}");
    }
    assert!(reply.header("access-control-allow-methods").unwrap().contains("PATCH"), "{reply:?}");
    let reply = create(&daemon, "f", false, &[page], Some(b"")).expect(201);
    let shown = reply.header("access-control-expose-headers").unwrap().to_ascii_lowercase();
    for header in ["location", "upload-offset", "upload-complete", "upload-limit", "upload-length"] {
        assert!(shown.contains(header), "{header}: {shown}");
    }
}

#[test]
fn a_name_that_is_taken_is_treated_as_the_setting_says() {
    for (policy, status) in [("number", 201), ("replace", 201), ("reject", 409)] {
        let daemon = start_with(&["--existing-files", policy]);
        create(&daemon, "f.bin", true, &[], Some(b"one")).expect(201);
        let reply = create(&daemon, "f.bin", true, &[], Some(b"two")).expect(status);
        let second = if policy == "number" { "f (2).bin" } else { "f.bin" };
        let expected: &[u8] = if policy == "reject" { b"one" } else { b"two" };
        assert_eq!(fs::read(daemon.finished(second)).unwrap(), expected, "{policy}");
        assert_eq!(reply.header("location").is_some(), status == 201, "{reply:?}");
        // An unfinished upload has the name, too.
        let first = Upload::begin(&daemon, "g", &[]);
        first.patch(0, false, &[], b"0").expect(204);
        let second = create(&daemon, "g", true, &[], Some(b"two"));
        assert_eq!(second.status, if policy == "number" { 201 } else { 409 }, "{policy}: {second:?}");
        first.finish("g", b"01");
    }
}

#[test]
fn paused_and_cancelled_uploads_take_nothing() {
    let daemon = start();
    for all in [false, true] {
        let upload = Upload::begin(&daemon, "f", &["Upload-Length: 4"]);
        let held: &[u8] = if all { b"0123" } else { b"01" };
        upload.patch(0, false, &[], held).expect(204);
        bigupd(&daemon.data(), &["pause", "f"]);
        let reply = upload.patch(held.len(), true, &[], &b"0123"[held.len()..]);
        assert!(matches!(reply.status, 409 | 423 | 503), "{reply:?}");
        assert_eq!(upload.offset(), held.len());
        assert!(!daemon.finished("f").exists());
        bigupd(&daemon.data(), &["resume", "f"]);
        assert_eq!(upload.offset(), held.len());
        bigupd(&daemon.data(), &["cancel", "f"]);
        for reply in [upload.head(), upload.patch(held.len(), true, &[], b"")] {
            assert!(matches!(reply.status, 404 | 410), "{reply:?}");
        }
        assert!(!daemon.finished("f").exists());
    }
}

#[test]
fn a_quota_holds_for_an_upload_of_unknown_length() {
    let daemon = start_with(&["--allow-anonymous", "yes", "--anonymous-quota", "20M"]);
    let content = data::bytes(1, 40 * MIB);
    let upload = Upload::begin(&daemon, "f", &[]);
    let mut stream = upload.hanging(0, &content);
    stream.write_all(LAST_CHUNK).unwrap();
    let reply = Reply::parse(&http::read_answer(&mut stream));
    assert!(matches!(reply.status, 413 | 507), "{reply:?}");
    let offset = upload.offset();
    assert!(offset <= 20 * MIB, "{offset}");
    assert!(!daemon.finished("f").exists());
    upload.finish("f", &content[..offset]);
    daemon.eventually_clean();
}

// --- uploads that await their end

#[test]
fn nobody_merges_again_and_again_while_an_upload_awaits_its_end() {
    let mergers = Mergers::new(true);
    let daemon = start_with(&["--merger", &mergers.program(), "--merger-idle", "200ms"]);
    let content = data::bytes(1, 2 * SLICE);
    for (name, headers) in [("known", &["Upload-Length: 16777216"][..]), ("unknown", &[])] {
        let upload = Upload::begin(&daemon, name, headers);
        upload.patch(0, false, &[], &content).expect(204);
        eventually("the merger has left", || spool_of(&daemon, name).merger().unwrap().is_none());
        // Its slices are merged.
        let spool = spool_of(&daemon, name);
        eventually("all is merged", || spool.holdings(&record(&daemon, name)).unwrap().frontier == 2);
        eventually("the merger has left", || spool_of(&daemon, name).merger().unwrap().is_none());
        let starts = mergers.starts();
        // Three scans of the daemon.
        std::thread::sleep(WATCHED + Duration::from_secs(1));
        assert_eq!(mergers.starts(), starts, "{name}");
        // An upload whose size is not known shows that instead.
        let shown = bigupd(&daemon.data(), &["status"]);
        assert_eq!(shown.contains("awaits its end"), name == "known", "{shown}");
        bigupd(&daemon.data(), &["check"]);
        upload.finish(name, &content);
        assert!(mergers.starts() <= starts + 2, "{name}: {} of {starts}", mergers.starts());
    }
    daemon.eventually_clean();
}

#[test]
fn an_upload_whose_end_never_comes_expires() {
    let daemon = start_with(&["--expire-after", "3s", "--merger-idle", "100ms"]);
    let upload = Upload::begin(&daemon, "f", &["Upload-Length: 4"]);
    upload.patch(0, false, &[], b"0123").expect(204);
    eventually("it is gone", || !daemon.spools().contains(&"f".to_owned()));
    assert!(!daemon.finished("f").exists());
    let reply = upload.head();
    assert!(matches!(reply.status, 404 | 410), "{reply:?}");
}

#[test]
fn another_client_takes_over_an_upload_whose_end_never_came() {
    let daemon = start_with(&["--takeover-after", "1s", "--merger-idle", "100ms"]);
    for (name, len) in [("one slice", MIB), ("some", 2 * SLICE + 5)] {
        let content = data::bytes(7, len);
        let file = daemon.scratch().join("file");
        fs::write(&file, &content).unwrap();
        let length = format!("Upload-Length: {len}");
        let upload = Upload::begin(&daemon, name, &[&length]);
        upload.patch(0, false, &[], &content).expect(204);
        let mut push = programs::cli();
        push.arg("push").arg(&file).args(["--url", daemon.url(), "--name", name, "--slice-size", "8M"]);
        let output = push.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        assert!(data::same(&file, &daemon.finished(name)), "{name}");
        // Its former client is told that it is gone.
        let reply = upload.patch(len, true, &[], b"");
        assert!(matches!(reply.status, 404 | 409 | 410), "{reply:?}");
    }
    daemon.eventually_clean();
}

#[test]
fn a_kill_at_each_step_of_an_end_leaves_an_upload_that_can_be_completed() {
    let daemon = start();
    let content = data::bytes(3, SLICE + 5);
    let upload = Upload::begin(&daemon, "f", &[]);
    upload.patch(0, false, &[], &content).expect(204);
    // Its length is known from its end, and the last slice is not one yet.
    let mut locked = spool_of(&daemon, "f").lock().unwrap().unwrap();
    let told = bigup_core::protocol::plan::Plan::new(None, Some(SLICE as u64), Some(content.len() as u64)).unwrap();
    let plan = locked.upload().plan.bind(&told).unwrap();
    let upload_record = UploadRecord { plan, ..locked.upload().clone() };
    locked.save(upload_record).unwrap();
    drop(locked);
    within(WATCHED, "its merger merges what is whole", || {
        spool_of(&daemon, "f").holdings(&record(&daemon, "f")).unwrap().frontier == 1
    });
    assert_eq!(upload.offset(), content.len());
    upload.finish("f", &content);
    daemon.eventually_clean();
}
