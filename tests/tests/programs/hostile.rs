//! Hostile HTTP over plain connections: whatever comes, the answer is the one that is due and arrives, nothing is
//! stored, a connection whose framing is in doubt ends, and the next honest request is served.

use bigup_tests::daemon::{Daemon, list};
use bigup_tests::data::bytes;
use bigup_tests::http::{connect, post_head};
use bigup_tests::process::{eventually, eventually_equal};
use std::io::{Read, Write};

/// What a connection carries after a hostile request: whoever takes it for a request of its own begins this upload.
const SMUGGLED: &str = "GET /big_file_upload?file_name=smuggled&slice_num=1 HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// A daemon, and all that is in its data folder.
struct Target {
    daemon: Daemon,
    holds: Vec<String>,
}

impl Target {
    /// With the upload `a`, begun, of 25 bytes in 3 slices. Slice 0 does not come, so no merger is started.
    fn new() -> Target {
        Target::with(&[])
    }

    fn with(arguments: &[&str]) -> Target {
        let daemon = Daemon::with(arguments);
        daemon.server().get("file_name=a&slice_num=3&slice_size=10&file_size=25").expect(200);
        let holds = Target::look(&daemon);
        Target { daemon, holds }
    }

    fn look(daemon: &Daemon) -> Vec<String> {
        let data = daemon.data();
        let a = list(&data.join("tmp/a")).into_iter().map(|name| format!("tmp/a/{name}"));
        let tmp = list(&data.join("tmp")).into_iter().map(|name| format!("tmp/{name}"));
        let files = list(&data.join("files")).into_iter().map(|name| format!("files/{name}"));
        // The daemon's own, which it writes when it comes to it, each first by another name.
        let is_written = |name: &String| ["expiry.json", "info.ini"].contains(&&**name) || name.ends_with(".tmp");
        let here = list(&data).into_iter().filter(|name| !is_written(name));
        here.chain(tmp).chain(a).chain(files).collect()
    }

    /// Sends all of `request`, and only then reads until the daemon closes the connection; gives the statuses of the answers.
    fn statuses(&self, case: &str, request: &[u8]) -> Vec<u16> {
        statuses(&self.exchange(case, request))
    }

    fn exchange(&self, case: &str, request: &[u8]) -> String {
        let mut stream = connect(self.daemon.url());
        let sent = stream.write_all(request);
        assert!(sent.is_ok(), "{case}: {sent:?}");
        let mut text = vec![];
        let read = stream.read_to_end(&mut text);
        assert!(read.is_ok(), "{case}: {read:?} after {:?}", String::from_utf8_lossy(&text));
        String::from_utf8_lossy(&text).into_owned()
    }

    /// Makes sure that nothing became of the hostile requests, and that an honest one is served.
    fn unharmed(&self, case: &str) {
        eventually_equal(&format!("{case}: the data folder"), &self.holds, || Target::look(&self.daemon));
        let log = self.daemon.log();
        assert!(!log.contains("panicked"), "{case}: {log}");
        assert!(log.chars().all(|c| c == '\n' || !c.is_control()), "{case}: {log:?}");
        let content = bytes(1, 1000);
        let query = "file_name=honest&slice_id=0&slice_num=1&slice_size=1000";
        let answer = self.daemon.server().post(query, &content).expect(200);
        assert_eq!(answer.body["is_uploaded"], 1, "{case}");
        assert!(std::fs::read(self.daemon.finished("honest")).unwrap() == content, "{case}");
        std::fs::remove_file(self.daemon.finished("honest")).unwrap();
    }
}

/// The statuses of all answers in what a connection gave.
fn statuses(text: &str) -> Vec<u16> {
    let after =
        |version: &str| text.split(version).skip(1).map(|rest| rest[..3].parse().unwrap()).collect::<Vec<u16>>();
    [after("HTTP/1.1 "), after("HTTP/1.0 ")].concat()
}

/// A POST of slice 1 of `a`, with these header lines and this body.
fn slice_1(headers: &[&str], body: &[u8]) -> Vec<u8> {
    [&post_head("file_name=a&slice_id=1&slice_size=10", headers), body].concat()
}

fn get(line: &str) -> Vec<u8> {
    format!("{line} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").into_bytes()
}

#[test]
fn bodies_of_doubtful_length_are_refused_and_what_follows_is_no_request() {
    let target = Target::new();
    let chunked: &[u8] = b"a\r\n0123456789\r\n0\r\n\r\n";
    for headers in [
        &["Content-Length: 10", "Content-Length: 11"][..],
        &["Content-Length: +10"],
        &["Content-Length: -10"],
        &["Content-Length: 10, 10"],
        &["Content-Length: 10 10"],
        &["Content-Length: 0x0a"],
        &["Content-Length: 1e1"],
        &["Content-Length: 10.0"],
        &["Content-Length:"],
        &["Content-Length: ten"],
        &["Content-Length: 18446744073709551626"],
        &["Content-Length : 10"],
        &["Content-Length: 10\rX: y"],
        &["Content-Length: 10", "X: a\r\n folded"],
        &[" Content-Length: 10"],
        &["Content-Length\0: 10"],
        &["Transfer-Encoding: gzip"],
        &["Transfer-Encoding: identity", "Content-Length: 10"],
        &["Transfer-Encoding: xchunked"],
        &["Transfer-Encoding: chunked, gzip"],
        &["Transfer-Encoding: gzip, chunked"],
        &["Transfer-Encoding: chunked, chunked"],
        &["Transfer-Encoding: chunked", "Transfer-Encoding: chunked"],
        &["Transfer-Encoding: \x0bchunked"],
        &["Transfer-Encoding : chunked"],
        &["Transfer-Encoding\t: chunked"],
    ] {
        let case = format!("{headers:?}");
        for body in [b"0123456789", chunked] {
            assert_eq!(
                target.statuses(&case, &[&slice_1(headers, body), SMUGGLED.as_bytes()].concat()),
                [400],
                "{case}"
            );
        }
    }
    // More than hyper can count.
    let endless = slice_1(&["Content-Length: 18446744073709551615"], SMUGGLED.as_bytes());
    assert_eq!(target.statuses("longest", &endless), [431]);
    let old =
        b"POST /big_file_upload?file_name=a&slice_id=1&slice_size=10&source=test HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(target.statuses("HTTP/1.0", &[old, chunked, SMUGGLED.as_bytes()].concat()), [400]);
    target.unharmed("doubtful length");
}

#[test]
fn of_two_framings_the_chunked_one_counts_and_the_connection_ends_after_it() {
    let target = Target::new();
    for headers in [
        ["Content-Length: 10", "Transfer-Encoding: chunked"],
        ["Transfer-Encoding: chunked", "Content-Length: 10"],
        ["Transfer-Encoding: chunked", "Content-Length: 3"],
    ] {
        let chunked = b"6\r\n012345\r\n0\r\n\r\n";
        let request = [&slice_1(&headers, chunked), SMUGGLED.as_bytes()].concat();
        let text = target.exchange("both", &request);
        assert_eq!(statuses(&text), [400], "{headers:?}: {text}");
        assert!(text.contains("connection: close"), "{headers:?}: {text}");
        assert!(text.contains("expected 10 bytes, got 6"), "the chunks count, {headers:?}: {text}");
    }
    target.unharmed("two framings");
}

#[test]
fn chunks_that_are_none_or_make_another_length_are_refused() {
    let target = Target::new();
    let headers = ["Transfer-Encoding: chunked"];
    let long_extension = format!("a;{}\r\n0123456789\r\n0\r\n\r\n", "x".repeat(100_000));
    let many_trailers = format!("a\r\n0123456789\r\n0\r\n{}\r\n", "X: y\r\n".repeat(5000));
    let long_trailer = format!("a\r\n0123456789\r\n0\r\nX: {}\r\n\r\n", "y".repeat(100_000));
    for body in [
        "zz\r\n0123456789\r\n0\r\n\r\n",
        "-a\r\n0123456789\r\n0\r\n\r\n",
        "+a\r\n0123456789\r\n0\r\n\r\n",
        "0xa\r\n0123456789\r\n0\r\n\r\n",
        "a a\r\n0123456789\r\n0\r\n\r\n",
        "\r\n0123456789\r\n0\r\n\r\n",
        "1000000000000000a\r\n0123456789\r\n0\r\n\r\n",
        "fffffffffffffffffffffffffffffffff\r\n0123456789\r\n0\r\n\r\n",
        "a\n0123456789\n0\n\n",
        "a\r0123456789\r\n0\r\n\r\n",
        "a\r\n0123456789XX0\r\n\r\n",
        "9\r\n0123456789\r\n0\r\n\r\n",
        "a;x\n=y\r\n0123456789\r\n0\r\n\r\n",
        "b\r\n0123456789\r\n0\r\n\r\n",
        &long_extension,
        &many_trailers,
        &long_trailer,
    ] {
        let case = body.chars().take(40).collect::<String>();
        let text = target.exchange(&case, &[&slice_1(&headers, body.as_bytes()), SMUGGLED.as_bytes()].concat());
        assert_eq!(statuses(&text), [400], "{case:?}: {text}");
        assert!(text.contains("connection: close"), "{case:?}: {text}");
    }
    for (body, says) in [
        ("9\r\n012345678\r\n0\r\n\r\n", "expected 10 bytes, got 9"),
        ("5\r\n01234\r\n6\r\n012345\r\n0\r\n\r\n", "more bytes came"),
        ("0\r\n\r\n", "expected 10 bytes, got 0"),
    ] {
        let text = target.exchange(body, &slice_1(&["Connection: close", headers[0]], body.as_bytes()));
        assert_eq!(statuses(&text), [400], "{body:?}: {text}");
        assert!(text.contains(says), "{body:?}: {text}");
    }
    target.unharmed("bad chunks");
}

#[test]
fn chunk_extensions_and_trailers_mean_nothing() {
    let target = Target::new();
    for body in
        ["a;x=y;z=\"q\"\r\n0123456789\r\n0;last\r\n\r\n", "00a\r\n0123456789\r\n0\r\nContent-Length: 3\r\nX: y\r\n\r\n"]
    {
        let request = slice_1(&["Transfer-Encoding: chunked"], body.as_bytes());
        let both = [request, get("GET /big_file_upload?file_name=a&peek=1")].concat();
        let text = target.exchange(body, &both);
        assert_eq!(statuses(&text), [200, 200], "{body:?}: {text}");
        assert!(text.contains(r#""slice_ids_uploaded":[1]"#), "{body:?}: {text}");
        std::fs::remove_file(target.daemon.data().join("tmp/a/1")).unwrap();
    }
    target.unharmed("extensions");
}

#[test]
fn the_body_of_a_refused_request_is_never_a_request() {
    let target = Target::new();
    let (length, last) = (format!("Content-Length: {}", SMUGGLED.len()), get("GET /big_file_upload?peek=1"));
    for (case, head, status) in [
        ("bad name", post_head("file_name=../x&slice_id=0&slice_size=10", &[&length]), 400),
        ("other length", post_head("file_name=a&slice_id=1&slice_size=10", &[&length]), 400),
        ("no upload", post_head(&format!("file_name=b&slice_id=1&slice_size={}", SMUGGLED.len()), &[&length]), 404),
        ("elsewhere", format!("POST /elsewhere HTTP/1.1\r\nHost: localhost\r\n{length}\r\n\r\n").into_bytes(), 404),
        (
            "other method",
            format!("PUT /big_file_upload HTTP/1.1\r\nHost: localhost\r\n{length}\r\n\r\n").into_bytes(),
            405,
        ),
        (
            "a body of a GET",
            format!("GET /big_file_upload?x HTTP/1.1\r\nHost: localhost\r\n{length}\r\n\r\n").into_bytes(),
            400,
        ),
    ] {
        let text = target.exchange(case, &[&head[..], SMUGGLED.as_bytes(), &last].concat());
        assert_eq!(statuses(&text), [status, 200], "{case}: {text}");
    }
    // Where it waits to be told to send, none of its body is read: the connection ends.
    let waits =
        post_head("file_name=../x&slice_id=0&slice_size=10", &["Content-Length: 1000000", "Expect: 100-continue"]);
    let text = target.exchange("expects", &[&waits[..], SMUGGLED.as_bytes(), &last].concat());
    assert_eq!(statuses(&text), [400], "{text}");
    assert!(text.contains("connection: close"), "{text}");
    target.unharmed("pipelined");
}

#[test]
fn heads_without_measure_are_cut_short() {
    let target = Target::new();
    let start = "GET /big_file_upload?peek=1 HTTP/1.1\r\nHost: localhost\r\n";
    let million = "x".repeat(1 << 20);
    for (case, head) in [
        ("thousands of headers", format!("{start}{}\r\n", "A: b\r\n".repeat(5000))),
        ("a header of 1 MiB", format!("{start}A: {million}\r\n\r\n")),
        ("a header's name of 1 MiB", format!("{start}{million}: a\r\n\r\n")),
        ("a header line without end", format!("{start}A: {}", "x".repeat(20 << 20))),
        ("headers without end", format!("{start}{}", "A: b\r\n".repeat(1 << 20))),
        ("a URI of 1 MiB", format!("GET /{million} HTTP/1.1\r\nHost: localhost\r\n\r\n")),
        ("a URI without end", format!("GET /{}", "x".repeat(20 << 20))),
        ("a method of 1 MiB", format!("{million} / HTTP/1.1\r\nHost: localhost\r\n\r\n")),
    ] {
        let found = target.statuses(case, head.as_bytes());
        assert!(matches!(found[..], [400 | 414 | 431]), "{case}: {found:?}");
    }
    for (count, status) in [(98, 200), (99, 431)] {
        let headers: String = (0..count).map(|n| format!("X{n}: y\r\n")).collect();
        let head = format!("{start}Connection: close\r\n{headers}\r\n");
        assert_eq!(target.statuses("as many as fit", head.as_bytes()), [status], "{count}");
    }
    target.unharmed("head bombs");
}

#[test]
fn what_is_no_text_is_refused_and_not_logged_as_it_is() {
    let target = Target::new();
    let header = |value: &[u8]| {
        [b"GET /elsewhere HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nX: ", value, b"\r\n\r\n"].concat()
    };
    for (case, request, status) in [
        ("bytes in the path", &b"GET /\xff\xfe HTTP/1.1\r\nHost: localhost\r\n\r\n"[..], 400),
        (
            "bytes in the query",
            b"GET /big_file_upload?file_name=\xff&slice_num=1 HTTP/1.1\r\nHost: localhost\r\n\r\n",
            400,
        ),
        ("NUL in the path", b"GET /\0 HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        ("escape in the path", b"GET /\x1b[31m HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        ("DEL in the path", b"GET /\x7f HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        ("bytes in the method", b"G\xffT / HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        ("NUL in a header", &header(b"a\0b"), 400),
        ("escape in a header", &header(b"a\x1b[31mb"), 400),
        ("bytes in a header's name", b"GET / HTTP/1.1\r\nHost: localhost\r\n\xff: a\r\n\r\n", 400),
        ("bytes in a header", &header(b"a\xffb"), 404),
        ("encoded bytes", &get("GET /big_file_upload?file_name=%FF&slice_num=1"), 400),
        ("encoded NUL", &get("GET /big_file_upload?file_name=a%00b&slice_num=1"), 400),
        ("encoded line end", &get("GET /big_file_upload?file_name=a%0D%0AINFO%20forged&slice_num=1"), 400),
        ("encoded escape", &get("GET /big_file_upload?file_name=a%1b%5b31m&slice_num=1"), 400),
        ("a number of escapes", &get("GET /big_file_upload?file_name=b&slice_num=%1b%5b31m"), 400),
        ("a parameter of escapes", &get("GET /big_file_upload?%1b%5b31m=1&%1b%5b31m=1"), 400),
        ("a source of escapes", &get("GET /big_file_upload?file_name=b&slice_num=1&source=%1b%5b31m"), 400),
        ("an overlong dot", &get("GET /big_file_upload?file_name=%C0%AE%C0%AE/x&slice_num=1"), 400),
        ("a half of a pair", &get("GET /big_file_upload?file_name=%ED%A0%80&slice_num=1"), 400),
        ("half an escape", &get("GET /big_file_upload?file_name=%&slice_num=%4"), 400),
    ] {
        let text = target.exchange(case, request);
        assert_eq!(statuses(&text), [status], "{case}: {text}");
        assert!(text.chars().all(|c| c == '\r' || c == '\n' || !c.is_control()), "{case}: {text:?}");
    }
    target.unharmed("no text");
}

#[test]
fn names_come_back_as_json_that_no_browser_takes_for_a_page() {
    let target = Target::new();
    let script = "%3Cscript%3Ealert(1)%3C/script%3E";
    for (case, line, status) in [
        ("a name unknown", format!("GET /big_file_upload?peek=1&file_name={script}"), 404),
        ("a name refused", format!("GET /big_file_upload?slice_num=1&file_name=../{script}"), 400),
        ("a number", format!("GET /big_file_upload?file_name=b&slice_num={script}"), 400),
        ("a parameter", format!("GET /big_file_upload?{script}&{script}"), 400),
        ("elsewhere", format!("GET /{script}"), 404),
        ("another method", format!("PUT /big_file_upload?{script}"), 405),
        ("a list", "GET /big_file_upload?peek=1".to_owned(), 200),
    ] {
        let text = target.exchange(case, &get(&line));
        assert_eq!(statuses(&text), [status], "{case}: {text}");
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains("content-type: application/json\r\n"), "{case}: {head}");
        assert!(head.contains("x-content-type-options: nosniff\r\n"), "{case}: {head}");
        assert!(serde_json::from_str::<serde_json::Value>(body).is_ok(), "{case}: {body}");
    }
    target.unharmed("script");
}

#[test]
fn any_method_and_any_form_of_target_gets_its_answer() {
    let target = Target::new();
    for (line, status) in [
        ("HEAD /big_file_upload?file_name=b&slice_num=1", 405),
        ("PUT /big_file_upload?file_name=b&slice_num=1", 405),
        ("DELETE /big_file_upload?file_name=nothing", 404),
        ("TRACE /big_file_upload", 405),
        ("PATCH /big_file_upload", 405),
        ("get /big_file_upload?file_name=b&slice_num=1", 405),
        ("BREW /big_file_upload", 405),
        ("OPTIONS *", 404),
        ("OPTIONS /big_file_upload", 204),
        ("CONNECT test:80", 405),
        ("CONNECT /big_file_upload", 405),
        ("GET http://localhost/big_file_upload?peek=1", 200),
        ("GET http://other/big_file_upload?peek=1", 403),
        ("GET http://user@localhost/big_file_upload?peek=1", 400),
        // The page, which has nothing of anybody's in it.
        ("GET http://other", 200),
        ("GET /../big_file_upload?peek=1", 404),
        ("GET /./big_file_upload?peek=1", 404),
        ("GET //big_file_upload?peek=1", 404),
        ("GET /big_file_upload/?peek=1", 200),
        ("GET /big%5Ffile_upload?peek=1", 404),
        ("GET /big_file_upload?peek=1#fragment", 400),
        ("GET big_file_upload?peek=1", 400),
        ("GET  /big_file_upload?peek=1", 400),
        ("GET", 400),
        ("", 400),
    ] {
        let found = target.statuses(line, &get(line));
        // A fragment is passed over by some parsers and refused by others.
        let fragment = line.contains('#') && found == [200];
        assert!(found == [status] || fragment, "{line}: {found:?}");
    }
    target.unharmed("methods");
}

#[test]
fn other_versions_and_protocols_are_answered_as_far_as_they_can_be() {
    let target = Target::new();
    let tls = [&b"\x16\x03\x01\x00\xc8\x01\x00\x00\xc4\x03\x03"[..], &[7; 200]].concat();
    let upgrade =
        "Connection: Upgrade, HTTP2-Settings, close\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA";
    let h2c = format!("GET /big_file_upload?peek=1 HTTP/1.1\r\nHost: localhost\r\n{upgrade}\r\n\r\n");
    for (case, request, expected) in [
        ("HTTP/0.9", &b"GET /big_file_upload?peek=1\r\n\r\n"[..], &[400][..]),
        ("HTTP/1.0", b"GET /big_file_upload?peek=1 HTTP/1.0\r\n\r\n", &[200]),
        ("HTTP/1.2", b"GET / HTTP/1.2\r\nHost: localhost\r\n\r\n", &[400]),
        ("HTTP/2.0", b"GET / HTTP/2.0\r\nHost: localhost\r\n\r\n", &[400]),
        ("http/1.1", b"GET / http/1.1\r\nHost: localhost\r\n\r\n", &[400]),
        ("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0", &[400]),
        ("h2c", h2c.as_bytes(), &[200]),
        ("TLS", &tls, &[400]),
        ("no Host", b"GET /big_file_upload?file_name=b&slice_num=1 HTTP/1.1\r\n\r\n", &[400]),
        (
            "a Host of two words",
            b"GET /big_file_upload?peek=1 HTTP/1.1\r\nHost: a b/@c\r\nConnection: close\r\n\r\n",
            &[400],
        ),
        (
            "a Host of no port",
            b"GET /big_file_upload?peek=1 HTTP/1.1\r\nHost: a:http\r\nConnection: close\r\n\r\n",
            &[400],
        ),
        ("two Hosts", b"GET /big_file_upload?file_name=b&slice_num=1 HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", &[400]),
    ] {
        assert_eq!(target.statuses(case, request), expected, "{case}");
    }
    target.unharmed("versions");
}

#[test]
fn digests_that_are_none_are_refused_wherever_they_stand() {
    let target = Target::new();
    let (short, long) = ("0".repeat(63), "0".repeat(65));
    let odd = ["", "0", &short, &long, &"g".repeat(64), &"0".repeat(100_000 / 2), "%00", &"%C3%A9".repeat(32)];
    for digest in odd {
        for line in [
            format!("GET /big_file_upload?file_name=b&slice_num=1&file_digest={digest}"),
            format!(
                "POST /big_file_upload?file_name=a&slice_id=1&slice_size=10&source=test&slice_digest=hash:{digest}"
            ),
            format!("POST /big_file_upload?file_name=a&slice_id=1&slice_size=10&source=test&slice_digest=cv:{digest}"),
            format!("POST /big_file_upload?file_name=a&slice_id=1&slice_size=10&source=test&slice_digest={digest}"),
            format!("GET /big_file_upload?file_name=a&peek=1&digests={digest}-x"),
        ] {
            let case: String = line.chars().take(120).collect();
            assert_eq!(target.statuses(&case, &get(&line)), [400], "{case}");
        }
    }
    for value in
        ["sha-256=", "sha-256=:", "sha-256=::", "sha-256=:AA==:", "sha-256=:!!!!:", "sha-256=:\u{e9}:", "sha-256=x"]
    {
        let digest = format!("Content-Digest: {value}");
        let request = slice_1(&[&digest, "Content-Length: 10", "Connection: close"], b"0123456789");
        assert_eq!(target.statuses(value, &request), [400], "{value}");
    }
    target.unharmed("digests");
}

#[test]
fn parameters_that_come_twice_or_without_measure_are_refused() {
    let target = Target::new();
    let many: String = (0..2000).map(|n| format!("&p{n}=x")).collect();
    for (query, status) in [
        ("file_name=b&slice_num=1&slice_num=2".to_owned(), 400),
        ("file_name=b&slice_num=1&file%5Fname=c".to_owned(), 400),
        ("file_name=b&file_name=b&slice_num=1".to_owned(), 400),
        ("&&&===&&=".to_owned(), 400),
        (format!("slice_num=1&file_name={}", "b".repeat(60_000)), 400),
        (format!("file_name=a&peek=1{many}"), 200),
    ] {
        let case: String = query.chars().take(60).collect();
        assert_eq!(target.statuses(&case, &get(&format!("GET /big_file_upload?{query}"))), [status], "{case}");
    }
    target.unharmed("parameters");
}

/// A POST of slice 1 of `a` as a form, after which the connection ends.
fn form(content_type: &str, body: &[u8]) -> Vec<u8> {
    let (kind, length) = (format!("Content-Type: {content_type}"), format!("Content-Length: {}", body.len()));
    slice_1(&[&kind, &length, "Connection: close"], body)
}

#[test]
fn hostile_forms_are_refused() {
    let target = Target::new();
    let part = |name: &str, content: &str| {
        format!("--XX\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{content}\r\n").into_bytes()
    };
    let one = part("slic_content", "0123456789");
    let end = &b"--XX--\r\n"[..];
    let nested =
        b"--XX\r\nContent-Type: multipart/mixed; boundary=YY\r\n\r\n--YY\r\n\r\n0123456789\r\n--YY--\r\n\r\n--XX--\r\n";
    let huge_header = format!("--XX\r\nX: {}\r\n\r\n0123456789\r\n--XX--\r\n", "y".repeat(6 << 20));
    let many_headers = format!("--XX\r\n{}\r\n0123456789\r\n--XX--\r\n", "X: y\r\n".repeat(10_000));
    let tiny = "--X\r\n".repeat(1 << 18);
    let ordinary = "multipart/form-data; boundary=XX";
    let with_boundary = |boundary: &str| {
        let form = String::from_utf8([&one[..], end].concat()).unwrap();
        form.replace("--XX", &format!("--{boundary}")).into_bytes()
    };
    let long = "X".repeat(71);
    for (case, content_type, body) in [
        ("hundreds of fields", ordinary, [one.repeat(500), end.to_vec()].concat()),
        ("two fields", ordinary, [&one[..], &one, end].concat()),
        ("a huge part header", ordinary, huge_header.into_bytes()),
        ("many part headers", ordinary, many_headers.into_bytes()),
        ("no boundary in 8 MiB", ordinary, vec![b'x'; 8 << 20]),
        ("almost boundaries", ordinary, tiny.into_bytes()),
        ("no end", ordinary, one.clone()),
        ("half an end", ordinary, [&one[..], b"--XX-"].concat()),
        ("nothing", ordinary, vec![]),
        ("no field", ordinary, end.to_vec()),
        ("nested", ordinary, nested.to_vec()),
        ("a field too short", ordinary, [&part("slic_content", "012345678")[..], end].concat()),
        ("a field too long", ordinary, [&part("slic_content", "0123456789a")[..], end].concat()),
        ("no boundary told", "multipart/form-data", [&one[..], end].concat()),
        ("an empty boundary", "multipart/form-data; boundary=", [&one[..], end].concat()),
        ("a boundary too long", &format!("multipart/form-data; boundary={long}"), with_boundary(&long)),
        ("another type", "multipart/mixed; boundary=XX", [&one[..], end].concat()),
        ("half a type", "multipart/", [&one[..], end].concat()),
        ("bytes in a part header", ordinary, [b"--XX\r\nX\xff: y\r\n\r\n0123456789\r\n", end].concat()),
    ] {
        assert_eq!(target.statuses(case, &form(content_type, &body)), [400], "{case}");
    }
    let boundary = "X".repeat(1 << 20);
    let found =
        target.statuses("a boundary of 1 MiB", &form(&format!("multipart/form-data; boundary={boundary}"), b""));
    assert_eq!(found, [431]);
    target.unharmed("forms");
}

#[test]
fn the_names_within_a_form_mean_nothing() {
    let target = Target::new();
    for name in ["\0", "\u{1b}[31m", "../../x", "\\\"", "", "é", &"x".repeat(100_000)] {
        let head = format!("--XX\r\nContent-Disposition: form-data; name=\"{name}\"; filename=\"/etc/{name}\"\r\n\r\n");
        let body = [head.as_bytes(), b"0123456789\r\n--XX--\r\n"].concat();
        let found = target.statuses(name, &form("multipart/form-data; boundary=XX", &body));
        assert!(matches!(found[..], [200 | 400]), "{name:?}: {found:?}");
        let _ = std::fs::remove_file(target.daemon.data().join("tmp/a/1"));
    }
    target.unharmed("names in forms");
}

#[test]
fn a_flood_of_broken_connections_does_no_harm() {
    let target = Target::new();
    for n in 0..500 {
        let mut stream = connect(target.daemon.url());
        let request = slice_1(&["Content-Length: 10"], b"0123456789");
        // Closed with an answer unread, or in the middle: a reset.
        stream.write_all(&request[..request.len() - n % 100]).unwrap();
    }
    eventually("no slice is left arriving", || !target.daemon.spool_has_part("a"));
    let _ = std::fs::remove_file(target.daemon.data().join("tmp/a/1"));
    target.unharmed("flood");
}
