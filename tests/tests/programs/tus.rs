//! tus 1.0.0, by the real daemon: each request of the protocol, its refusals, which change nothing, and names.

use bigup_tests::daemon::{Daemon, list};
use bigup_tests::data;
use bigup_tests::http::connect;
use bigup_tests::process::eventually;
use bigup_tests::tus::{OFFSET_STREAM, RESUMABLE, Reply, Tus, base64, file_name};
use std::fs;
use std::io::Write;

/// Bytes of a slice that bodies are cut into, with [`SMALL_SLICES`].
const SLICE: usize = 1 << 20;

const SMALL_SLICES: [&str; 2] = ["--max-slice-size", "1M"];

fn daemon(arguments: &[&str]) -> (Daemon, Tus) {
    let daemon = Daemon::with(&[&SMALL_SLICES, arguments].concat());
    let tus = Tus::new(daemon.url());
    (daemon, tus)
}

/// The finished file is this.
fn assert_finished(daemon: &Daemon, name: &str, content: &[u8]) {
    let found = fs::read(daemon.finished(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
    assert!(found == content, "{name} has {} bytes, not the {} that were sent", found.len(), content.len());
}

/// A reply as every reply to a request of the version is, with this status.
fn told(reply: Reply, status: u16) -> Reply {
    assert_eq!(reply.header("Tus-Resumable"), Some("1.0.0"), "{reply:?}");
    reply.expect(status)
}

/// The paths of an upload, with the first eight bytes of its file held.
fn begun(tus: &Tus, name: &str, len: u64) -> String {
    let at = tus.create(name, len);
    told(tus.patch(&at, 0, b"12345678"), 204);
    at
}

#[test]
fn a_file_comes_in_requests_of_any_length() {
    let (daemon, tus) = daemon(&[]);
    let content = data::bytes(1, 5 * SLICE + 77);
    let at = tus.create("dir/a.bin", content.len() as u64);
    assert!(at.starts_with("/files/") && at.ends_with("/dir/a.bin"), "{at}");
    let mut offset = 0;
    for len in [1, 0, 7, SLICE - 8, SLICE, 1, SLICE, SLICE - 2, 1, SLICE, 76, 1] {
        assert_eq!(tus.offset(&at), offset as u64);
        let reply = told(tus.patch(&at, offset as u64, &content[offset..offset + len]), 204);
        offset += len;
        assert_eq!(reply.offset(), Some(offset as u64), "{reply:?}");
        assert!(reply.header("Upload-Expires").is_some() || offset == content.len(), "{reply:?}");
    }
    assert_finished(&daemon, "dir/a.bin", &content);
    let reply = told(tus.head(&at), 200);
    let len = content.len().to_string();
    assert_eq!((reply.header("Upload-Offset"), reply.header("Upload-Length")), (Some(&*len), Some(&*len)));
    daemon.eventually_clean();
}

#[test]
fn options_tells_all_that_is_spoken() {
    let daemon = Daemon::with(&["--max-file-size", "1G"]);
    let tus = Tus::new(daemon.url());
    for (path, version) in [("/files/", None), ("/files", Some("0.2.2")), ("/files/0123/x", Some("1.0.0"))] {
        let version = version.map(|version| ("Tus-Resumable", version));
        let reply = told(tus.send("OPTIONS", path, &version.into_iter().collect::<Vec<_>>(), b""), 204);
        assert_eq!(reply.header("Tus-Version"), Some("1.0.0"));
        assert_eq!(reply.header("Tus-Max-Size"), Some("1073741824"));
        let extensions = reply.header("Tus-Extension").unwrap().split(',').collect::<Vec<_>>();
        for extension in ["creation", "creation-with-upload", "creation-defer-length", "expiration", "checksum-trailer"]
        {
            assert!(extensions.contains(&extension), "{extension}: {extensions:?}");
        }
        assert!(extensions.contains(&"termination"));
        assert_eq!(reply.header("Tus-Checksum-Algorithm"), Some("sha1,sha256,sha512,md5,crc32,blake3"));
    }
}

#[test]
fn another_version_is_refused_with_the_one_that_is_spoken() {
    let (_daemon, tus) = daemon(&[]);
    let at = begun(&tus, "a", 20);
    for version in [None, Some("0.2.2"), Some("1.0"), Some("1.0.0, 0.2.2"), Some("")] {
        let version: Vec<_> = version.map(|version| ("Tus-Resumable", version)).into_iter().collect();
        let with = |more: &[(&'static str, &'static str)]| [&version, more].concat();
        let mut replies = vec![
            tus.send("PATCH", &at, &with(&[OFFSET_STREAM, ("Upload-Offset", "8")]), b"9"),
            tus.send("POST", "/files/", &with(&[("Upload-Length", "1")]), b""),
        ];
        // Without a version these are requests of the IETF draft.
        if !version.is_empty() {
            replies.push(tus.send("HEAD", &at, &with(&[]), b""));
            replies.push(tus.send("DELETE", &at, &with(&[]), b""));
        }
        for reply in replies {
            assert_eq!((reply.status, reply.header("Tus-Version")), (412, Some("1.0.0")), "{version:?}: {reply:?}");
            assert_eq!((reply.offset(), reply.header("Location")), (None, None));
        }
    }
    assert_eq!(tus.offset(&at), 8, "nothing was done");
}

#[test]
fn the_overriding_method_counts_and_the_real_one_does_not() {
    let (daemon, tus) = daemon(&[]);
    let at = tus.create("a", 5);
    let over = |real: &str, method: &str, more: &[(&str, &str)], body: &[u8]| {
        tus.send(real, &at, &[&[RESUMABLE, ("X-HTTP-Method-Override", method)], more].concat(), body)
    };
    told(over("POST", "PATCH", &[OFFSET_STREAM, ("Upload-Offset", "0")], b"12"), 204);
    assert_eq!(told(over("POST", "HEAD", &[], b""), 200).offset(), Some(2));
    assert_eq!(told(over("DELETE", "HEAD", &[], b""), 200).offset(), Some(2), "nothing is deleted");
    assert_eq!(told(over("POST", "OPTIONS", &[], b""), 204).header("Tus-Version"), Some("1.0.0"));
    told(over("POST", "BREW", &[], b""), 405);
    told(over("POST", "no method", &[], b""), 400);
    told(over("PATCH", "DELETE", &[], b""), 204);
    told(tus.head(&at), 410);
    assert_eq!(list(&daemon.data().join("files")), Vec::<String>::new());
}

#[test]
fn methods_that_are_not_there_are_refused() {
    let (_daemon, tus) = daemon(&[]);
    let at = tus.create("a", 5);
    let reply = told(tus.send("PUT", &at, &[RESUMABLE], b""), 405);
    assert!(reply.header("Allow").unwrap().contains("PATCH"), "{reply:?}");
    told(tus.send("POST", &at, &[RESUMABLE, ("Upload-Length", "5")], b""), 405);
    told(tus.send("GET", &at, &[RESUMABLE], b""), 405);
    let reply = told(tus.send("PATCH", "/files/", &[RESUMABLE], b""), 405);
    assert_eq!(reply.header("Allow"), Some("POST, OPTIONS"));
}

#[test]
fn head_tells_everything_and_is_kept_nowhere() {
    let (_daemon, tus) = daemon(&[]);
    let metadata = format!("{},is_secret,filetype {}", file_name("b.bin"), base64(b"image/png"));
    let at = tus.post(&[("Upload-Length", "20"), ("Upload-Metadata", &metadata)]).location();
    for (sent, offset) in [(&b""[..], 0), (b"12345678", 8)] {
        told(tus.patch(&at, 0, sent), 204);
        let reply = told(tus.head(&at), 200);
        assert_eq!((reply.offset(), reply.header("Upload-Length")), (Some(offset), Some("20")));
        assert_eq!(reply.header("Upload-Metadata"), Some(&*metadata));
        assert_eq!(reply.header("Upload-Defer-Length"), None);
        assert_eq!(reply.header("Cache-Control"), Some("no-store"));
        assert!(reply.header("Upload-Expires").unwrap().ends_with(" GMT"), "{reply:?}");
    }
    let at = tus.create_deferred("c");
    let reply = told(tus.head(&at), 200);
    let said = |name| reply.header(name);
    assert_eq!(
        (said("Upload-Defer-Length"), said("Upload-Length"), said("Upload-Offset")),
        (Some("1"), None, Some("0"))
    );
}

#[test]
fn head_without_an_upload_tells_no_offset() {
    let (_daemon, tus) = daemon(&[]);
    let at = tus.create("a", 5);
    let (key, _) = at.strip_prefix("/files/").unwrap().split_once('/').unwrap();
    let other = key.chars().rev().collect::<String>();
    for path in [format!("/files/{other}/a"), format!("/files/{key}/b"), format!("/files/{key}"), "/files/x".to_owned()]
    {
        let reply = told(tus.head(&path), 404);
        assert_eq!((reply.offset(), reply.header("Cache-Control")), (None, Some("no-store")), "{path}: {reply:?}");
        told(tus.patch(&path, 0, b"1"), 404);
        told(tus.delete(&path), 404);
    }
    assert_eq!(tus.offset(&at), 0);
}

#[test]
fn a_patch_that_is_refused_changes_nothing() {
    let (_daemon, tus) = daemon(&[]);
    let at = begun(&tus, "a", 20);
    let bad = |headers: &[(&str, &str)], body: &[u8]| {
        let reply = tus.send("PATCH", &at, &[&[RESUMABLE], headers].concat(), body);
        assert_eq!(tus.offset(&at), 8, "{headers:?}");
        reply
    };
    let octets = OFFSET_STREAM;
    for offset in ["0", "7", "9", "20", "21", "18446744073709551615"] {
        assert_eq!(told(bad(&[octets, ("Upload-Offset", offset)], b"x"), 409).offset(), Some(8), "{offset}");
    }
    for wrong in ["-1", "+8", "8.0", "0x8", "", "18446744073709551616", "eight", "8 8"] {
        told(bad(&[octets, ("Upload-Offset", wrong)], b"x"), 400);
    }
    told(bad(&[octets], b"x"), 400);
    told(bad(&[octets, ("Upload-Offset", "8"), ("Upload-Offset", "8")], b"x"), 400);
    for kind in ["application/octet-stream", "", "text/plain", "application/offset+octet-streams"] {
        told(bad(&[("Content-Type", kind), ("Upload-Offset", "8")], b"x"), 415);
    }
    told(bad(&[("Upload-Offset", "8")], b"x"), 415);
    told(bad(&[octets, ("Upload-Offset", "8")], b"1234567890123"), 413);
    for (length, status) in [("19", 400), ("21", 400), ("7", 400), ("0", 400), ("x", 400)] {
        told(bad(&[octets, ("Upload-Offset", "8"), ("Upload-Length", length)], b"x"), status);
    }
    for checksum in ["sha3 AAAA", "sha1", "sha1 %%%", "SHA1 AAAA", "", " ", "sha1,AAAA"] {
        told(bad(&[octets, ("Upload-Offset", "8"), ("Upload-Checksum", checksum)], b"x"), 400);
    }
    told(bad(&[octets, ("Upload-Offset", "8"), ("Upload-Checksum", &format!("sha1 {}", base64(&[0; 20])))], b"x"), 460);
    // The length that is known may be told again.
    told(bad(&[octets, ("Upload-Offset", "8"), ("Upload-Length", "20")], b""), 204);
    let reply = told(tus.patch_with(&at, 8, &[("Upload-Length", "20")], b"901234567890"), 204);
    assert_eq!(reply.offset(), Some(20));
}

#[test]
fn a_body_without_a_length_that_is_too_long_is_refused_and_the_file_goes_on() {
    let (daemon, tus) = daemon(&[]);
    let content = data::bytes(2, 3 * SLICE);
    for (name, len) in [("ends-with-a-slice", 2 * SLICE), ("ends-within", 2 * SLICE + 5), ("short", 9)] {
        let at = tus.create(name, len as u64);
        let mut stream = tus.begin_patch_with(&at, 0, &[("Transfer-Encoding", "chunked")]);
        let _ = stream.write_all(format!("{:x}\r\n", content.len()).as_bytes());
        let _ = stream.write_all(&content).and_then(|()| stream.write_all(b"\r\n0\r\n\r\n"));
        told(Reply::read(&mut stream, "PATCH"), 413);
        assert!(!daemon.finished(name).exists(), "{name}: a body that is too long is another file's");
        let offset = tus.offset(&at) as usize;
        assert!(offset < len, "{name}: {offset}");
        told(tus.patch(&at, offset as u64, &content[offset..len]), 204);
        assert_finished(&daemon, name, &content[..len]);
    }
}

#[test]
fn a_creation_that_is_refused_begins_nothing() {
    let daemon = Daemon::with(&["--max-file-size", "1M"]);
    let tus = Tus::new(daemon.url());
    let length = ("Upload-Length", "5");
    for (headers, status) in [
        (&[][..], 400),
        (&[("Upload-Length", "-1")][..], 400),
        (&[("Upload-Length", "five")], 400),
        (&[("Upload-Length", "")], 400),
        (&[("Upload-Defer-Length", "0")], 400),
        (&[("Upload-Defer-Length", "2")], 400),
        (&[length, ("Upload-Defer-Length", "1")], 400),
        (&[length, length], 400),
        (&[("Upload-Length", "1048577")], 413),
        (&[("Upload-Length", "18446744073709551615")], 413),
        (&[("Upload-Length", "18446744073709551616")], 400),
        (&[length, ("Upload-Metadata", "filename %")], 400),
        (&[length, ("Upload-Metadata", "filename YQ==,filename Yg==")], 400),
        (&[length, ("Upload-Metadata", "filename YQ== Yg==")], 400),
        (&[length, ("Upload-Concat", "final;/files/x")], 400),
        (&[length, ("Upload-Metadata", "filename YQ=="), ("Upload-Metadata", "filename YQ==")], 400),
    ] {
        told(tus.post(headers), status);
        assert_eq!(daemon.spools(), Vec::<String>::new(), "{headers:?}");
    }
    let creation =
        |headers: &[(&str, &str)], body: &[u8]| tus.send("POST", "/files/", &[&[RESUMABLE], headers].concat(), body);
    told(creation(&[length, ("Content-Type", "text/plain")], b"12345"), 415);
    told(creation(&[length, OFFSET_STREAM], b"123456"), 413);
    told(creation(&[length, OFFSET_STREAM, ("Upload-Checksum", "sha3 AAAA")], b"12345"), 400);
    assert_eq!(daemon.spools(), Vec::<String>::new());
    tus.post(&[("Upload-Length", "1048576")]).location();
}

#[test]
fn a_creation_can_bring_the_first_bytes_or_all() {
    let (daemon, tus) = daemon(&[]);
    let content = data::bytes(3, 2 * SLICE + 9);
    for (name, len) in [("none", 0), ("some", 5), ("slice", SLICE), ("more", SLICE + 1), ("all", content.len())] {
        let length = content.len().to_string();
        let headers = [RESUMABLE, OFFSET_STREAM, ("Upload-Length", &length), ("Upload-Metadata", &file_name(name))];
        let reply = told(tus.send("POST", "/files/", &headers, &content[..len]), 201);
        assert_eq!(reply.offset(), Some(len as u64), "{name}");
        assert_eq!(reply.header("Upload-Expires").is_some(), len < content.len(), "{name}: {reply:?}");
        let at = reply.location();
        assert_eq!(tus.offset(&at), len as u64, "{name}");
        told(tus.patch(&at, len as u64, &content[len..]), 204);
        assert_finished(&daemon, name, &content);
    }
    // With a wrong checksum the upload is there, and holds nothing.
    let checksum = format!("sha1 {}", base64(&[0; 20]));
    let headers = [RESUMABLE, OFFSET_STREAM, ("Upload-Length", "9"), ("Upload-Checksum", &checksum)];
    let reply = told(tus.send("POST", "/files/", &headers, b"12345"), 201);
    assert_eq!(reply.offset(), Some(0));
    assert_eq!(tus.offset(&reply.location()), 0);
}

#[test]
fn an_empty_file_is_finished_at_once() {
    let (daemon, tus) = daemon(&[]);
    let reply = told(tus.post(&[("Upload-Length", "0"), ("Upload-Metadata", &file_name("empty"))]), 201);
    assert_eq!((reply.offset(), reply.header("Upload-Expires")), (Some(0), None));
    assert_finished(&daemon, "empty", b"");
    let at = reply.location();
    let reply = told(tus.head(&at), 200);
    assert_eq!((reply.offset(), reply.header("Upload-Length")), (Some(0), Some("0")));
    told(tus.patch(&at, 0, b""), 204);
    let at = tus.create_deferred("empty-after-all");
    assert_eq!(told(tus.patch_with(&at, 0, &[("Upload-Length", "0")], b""), 204).offset(), Some(0));
    assert_finished(&daemon, "empty-after-all", b"");
    assert_eq!(tus.offset(&at), 0);
    daemon.eventually_clean();
}

/// When a client of a deferred length tells it.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Tells {
    First,
    Last,
    Behind,
}

#[test]
fn the_length_may_be_told_by_any_later_request() {
    let (daemon, tus) = daemon(&[]);
    for len in [0, 1, SLICE - 1, SLICE, SLICE + 1, 2 * SLICE, 3 * SLICE + 5] {
        for tells in [Tells::First, Tells::Last, Tells::Behind] {
            for piece in [SLICE / 2, SLICE, 5 * SLICE] {
                let (name, content) = (format!("{len}-{tells:?}-{piece}"), data::bytes(len as u64, len));
                let (at, length) = (tus.create_deferred(&name), len.to_string());
                let says = |is: bool| if is { vec![("Upload-Length", &*length)] } else { vec![] };
                let mut offset = 0;
                for (i, bytes) in content.chunks(piece).enumerate() {
                    let is_last = offset + bytes.len() == len;
                    let says = says(tells == Tells::First && i == 0 || tells == Tells::Last && is_last);
                    let reply = told(tus.patch_with(&at, offset as u64, &says, bytes), 204);
                    offset += bytes.len();
                    assert_eq!(reply.offset(), Some(offset as u64), "{name}");
                }
                if tells == Tells::Behind || len == 0 {
                    assert!(!daemon.finished(&name).exists(), "{name}");
                    let reply = told(tus.head(&at), 200);
                    assert_eq!(reply.header("Upload-Defer-Length"), Some("1"), "{name}: {reply:?}");
                    told(tus.patch_with(&at, len as u64, &says(true), b""), 204);
                }
                assert_finished(&daemon, &name, &content);
                assert_eq!(tus.offset(&at), len as u64);
            }
        }
    }
    daemon.eventually_clean();
}

#[test]
fn a_length_told_by_a_refused_request_is_not_the_files() {
    let (daemon, tus) = daemon(&["--max-file-size", "100K"]);
    let at = tus.create_deferred("a");
    told(tus.patch(&at, 0, b"12345678"), 204);
    let tell = |offset, length, body: &[u8]| tus.patch_with(&at, offset, &[("Upload-Length", length)], body);
    assert_eq!(told(tell(7, "9", b"x"), 409).offset(), Some(8));
    assert_eq!(told(tell(9, "9", b""), 409).offset(), Some(8));
    told(tell(8, "7", b""), 400);
    told(tell(8, "9", b"too long"), 413);
    told(tell(8, "102401", b"9"), 413);
    let reply = told(tus.head(&at), 200);
    assert_eq!((reply.offset(), reply.header("Upload-Defer-Length")), (Some(8), Some("1")), "{reply:?}");
    told(tell(8, "10", b"9"), 204);
    told(tell(9, "11", b"0"), 400);
    told(tus.patch(&at, 9, b"0"), 204);
    assert_finished(&daemon, "a", b"1234567890");
}

#[test]
fn the_last_request_may_come_again() {
    let (daemon, tus) = daemon(&[]);
    let content = data::bytes(4, SLICE + 100);
    let at = tus.create("a", content.len() as u64);
    told(tus.patch(&at, 0, &content), 204);
    let len = content.len() as u64;
    assert_eq!(tus.offset(&at), len);
    assert_eq!(told(tus.patch(&at, len, b""), 204).offset(), Some(len));
    assert_eq!(told(tus.patch(&at, 0, &content), 409).offset(), Some(len), "its response was lost");
    assert_eq!(told(tus.patch(&at, 5, b""), 409).offset(), Some(len));
    told(tus.patch(&at, len, b"more"), 413);
    assert_finished(&daemon, "a", &content);
}

#[test]
fn a_deleted_upload_is_gone() {
    let (daemon, tus) = daemon(&[]);
    for len in [0, 8, SLICE + 8, 4 * SLICE] {
        let content = data::bytes(5, len);
        let at = tus.create("a", 5 * SLICE as u64);
        told(tus.patch(&at, 0, &content), 204);
        told(tus.delete(&at), 204);
        assert_eq!(
            daemon.spools().iter().filter(|name| !name.contains(".cancelled-")).count(),
            0,
            "{:?}",
            daemon.spools()
        );
        for reply in [tus.head(&at), tus.patch(&at, len as u64, b"x"), tus.delete(&at)] {
            assert!(matches!(reply.status, 404 | 410), "{reply:?}");
            assert_eq!(reply.offset(), None);
        }
        let again = tus.create("a", 5);
        assert!(again.ends_with("/a"), "the name is free: {again}");
        told(tus.delete(&again), 204);
    }
}

#[test]
fn a_deleted_upload_ends_the_request_that_appends() {
    let (daemon, tus) = daemon(&[]);
    let at = tus.create("a", 5 * SLICE as u64);
    let mut stream = tus.begin_patch(&at, 0, 5 * SLICE as u64);
    stream.write_all(&data::bytes(6, 2 * SLICE + 9)).unwrap();
    eventually("some of it is held", || {
        daemon.info("a", "slices_held").is_some_and(|held| held != "0") || daemon.info_ini().contains("[a]")
    });
    told(tus.delete(&at), 204);
    told(tus.head(&at), 410);
    drop(stream);
    assert_eq!(walk(&daemon, ""), Vec::<String>::new());
}

#[test]
fn an_abandoned_upload_expires_at_the_time_that_was_told() {
    let (daemon, tus) = daemon(&["--expire-after", "2s"]);
    let (bare, at) = (tus.create("bare", 20), begun(&tus, "a", 20));
    assert!(tus.head(&at).header("Upload-Expires").is_some());
    eventually("they are gone", || daemon.spools().is_empty());
    for at in [at, bare] {
        told(tus.head(&at), 404);
        told(tus.patch(&at, 8, b"x"), 404);
    }
}

#[test]
fn nothing_expires_where_that_is_not_set() {
    let (_daemon, tus) = daemon(&["--expire-after", "0"]);
    let at = begun(&tus, "a", 20);
    assert_eq!(tus.head(&at).header("Upload-Expires"), None);
}

#[test]
fn names_are_made_safe() {
    let (daemon, tus) = daemon(&[]);
    for (wanted, name) in [
        ("../../../etc/passwd", "etc/passwd"),
        ("/abs", "abs"),
        ("C:\\fakepath\\x.bin", "C:/fakepath/x.bin"),
        ("a//b/./c", "a/b/c"),
        ("tab\tnew\nline\0nul", "tab_new_line_nul"),
        ("\u{202e}gpj.exe", "\u{202e}gpj.exe"),
        ("sp ace+plus%2e?x#y&z", "sp ace+plus%2e?x#y&z"),
        ("ü/日本語.txt", "ü/日本語.txt"),
        (" leading", " leading"),
        ("trailing ", "trailing "),
    ] {
        let at = tus.create(wanted, 3);
        assert!(at.is_ascii() && !at.contains(' '), "{at}");
        told(tus.patch(&at, 0, b"abc"), 204);
        let found: Vec<_> = walk(&daemon, "");
        assert!(daemon.finished(name).is_file(), "{wanted:?} is not {name:?}; there is {found:?}");
        assert_eq!(tus.offset(&at), 3);
    }
    for wanted in ["", "..", "/", ".", "\\"] {
        let at = tus.create(wanted, 3);
        told(tus.patch(&at, 0, b"abc"), 204);
        let name = at.rsplit_once('/').unwrap().1;
        assert_eq!(name.len(), 32, "{wanted:?}: {at}");
        assert_finished(&daemon, name, b"abc");
    }
    for metadata in ["", "filetype dGV4dA==", "filename", "filename /w=="] {
        let at = tus.post(&[("Upload-Length", "3"), ("Upload-Metadata", metadata)]).location();
        assert_eq!(at.rsplit_once('/').unwrap().1.len(), 32, "{metadata:?}: {at}");
    }
}

fn walk(daemon: &Daemon, below: &str) -> Vec<String> {
    let folder = daemon.data().join("files").join(below);
    list(&folder)
        .into_iter()
        .flat_map(|name| {
            let path = if below.is_empty() { name.clone() } else { format!("{below}/{name}") };
            if folder.join(&name).is_dir() { walk(daemon, &path) } else { vec![path] }
        })
        .collect()
}

/// Creates, sends and returns the path.
fn put(tus: &Tus, name: &str, content: &[u8]) -> String {
    let at = tus.create(name, content.len() as u64);
    told(tus.patch(&at, 0, content), 204);
    at
}

#[test]
fn a_name_that_is_taken_gets_a_number() {
    let (daemon, tus) = daemon(&[]);
    put(&tus, "d/a.tar.gz", b"one");
    put(&tus, "d/a.tar.gz", b"two");
    let begun = begun(&tus, "d/a.tar.gz", 20);
    put(&tus, "d/a.tar.gz", b"four");
    for (name, content) in [("a.tar.gz", b"one".as_slice()), ("a.tar (2).gz", b"two"), ("a.tar (4).gz", b"four")] {
        assert_finished(&daemon, &format!("d/{name}"), content);
    }
    assert!(begun.ends_with("/d/a.tar%20%283%29.gz"), "{begun}");
    // Two empty files of one name are two files.
    told(tus.post(&[("Upload-Length", "0"), ("Upload-Metadata", &file_name("e"))]), 201);
    told(tus.post(&[("Upload-Length", "0"), ("Upload-Metadata", &file_name("e"))]), 201);
    assert_finished(&daemon, "e (2)", b"");
}

#[test]
fn many_of_one_name_at_once_get_names_of_their_own() {
    let (daemon, tus) = daemon(&[]);
    let paths: Vec<String> = std::thread::scope(|scope| {
        let each: Vec<_> = (0..40_u64)
            .map(|i| {
                let tus = &tus;
                scope.spawn(move || put(tus, "same.bin", &data::bytes(i, 100)))
            })
            .collect();
        each.into_iter().map(|one| one.join().unwrap()).collect()
    });
    let mut names: Vec<_> = paths.iter().map(|path| path.rsplit_once('/').unwrap().1).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), 40, "{names:?}");
    let mut held: Vec<_> = walk(&daemon, "").iter().map(|name| fs::read(daemon.finished(name)).unwrap()).collect();
    held.sort();
    let mut sent: Vec<_> = (0..40).map(|i| data::bytes(i, 100)).collect();
    sent.sort();
    assert!(held == sent, "each file is one that was sent");
}

#[test]
fn a_name_that_is_taken_can_be_refused() {
    let (daemon, tus) = daemon(&["--existing-files", "reject"]);
    put(&tus, "a", b"one");
    let again = || tus.post(&[("Upload-Length", "3"), ("Upload-Metadata", &file_name("a"))]);
    told(again(), 409);
    assert_finished(&daemon, "a", b"one");
    fs::remove_file(daemon.finished("a")).unwrap();
    let begun = begun(&tus, "a", 20);
    told(again(), 409);
    assert_eq!(tus.offset(&begun), 8);
}

#[test]
fn an_upload_that_cannot_be_read_takes_no_name() {
    for policy in ["number", "reject"] {
        let (daemon, tus) = daemon(&["--existing-files", policy]);
        let at = begun(&tus, "a", 20);
        // As a power cut leaves it.
        fs::write(daemon.data().join("tmp/a/upload.json"), "").unwrap();
        assert!(matches!(tus.head(&at).status, 404 | 409));
        told(tus.patch(&at, 8, b"x"), 404);
        assert!(put(&tus, "a", b"abc").ends_with("/a"));
        assert_finished(&daemon, "a", b"abc");
    }
}

#[test]
fn a_name_that_is_taken_can_be_replaced() {
    let (daemon, tus) = daemon(&["--existing-files", "replace"]);
    let old = put(&tus, "a", b"one");
    let content = data::bytes(7, 2 * SLICE + 1);
    let new = tus.create("a", content.len() as u64);
    assert_finished(&daemon, "a", b"one");
    told(tus.patch(&new, 0, &content), 204);
    assert_finished(&daemon, "a", &content);
    assert_eq!(tus.offset(&new), content.len() as u64);
    // The end of the old upload is another file's end by now, or is still told as its own.
    assert!(matches!(tus.head(&old).status, 200 | 404));
    put(&tus, "a", b"");
    put(&tus, "a", b"");
    assert_finished(&daemon, "a", b"");
}

#[test]
fn natively_begun_uploads_and_these_keep_apart() {
    for policy in ["number", "reject", "replace"] {
        let (daemon, tus) = daemon(&["--existing-files", policy]);
        let (native, server) = (data::bytes(8, 2 * SLICE), daemon.server());
        let query = format!("slice_size={SLICE}&file_size={}", 2 * SLICE);
        server.get(&format!("file_name=a&{query}")).expect(200);
        server.post(&format!("file_name=a&slice_id=0&slice_size={SLICE}"), &native[..SLICE]).expect(200);
        let reply = tus.post(&[("Upload-Length", "3"), ("Upload-Metadata", &file_name("a"))]);
        if policy == "number" {
            assert!(reply.location().ends_with("/a%20%282%29"));
        } else {
            told(reply, 409);
        }
        // The other way round.
        let at = begun(&tus, "b", 2 * SLICE as u64);
        let answer = server.get(&format!("file_name=b&{query}")).expect(409);
        assert_eq!(answer.body["error"], "busy", "{answer:?}");
        let answer = server.post(&format!("file_name=b&slice_id=0&slice_size={SLICE}"), &native[..SLICE]);
        assert_eq!(answer.status, 409, "{answer:?}");
        assert_eq!(tus.offset(&at), 8);
        // Both end as they began.
        server.post(&format!("file_name=a&slice_id=1&slice_size={SLICE}"), &native[SLICE..]).expect(200);
        eventually("it is finished", || daemon.finished("a").exists());
        assert_finished(&daemon, "a", &native);
        let content = [b"12345678", &data::bytes(9, 2 * SLICE)[8..]].concat();
        told(tus.patch(&at, 8, &content[8..]), 204);
        assert_finished(&daemon, "b", &content);
    }
}

#[test]
fn a_client_that_waits_to_be_asked_for_its_body_is_refused_without_it() {
    let (_daemon, tus) = daemon(&[]);
    let at = begun(&tus, "a", 1 << 30);
    let headers = [("Expect", "100-continue"), ("Content-Length", "100000000")];
    let mut stream = tus.begin_patch_with(&at, 9, &headers);
    let reply = Reply::read(&mut stream, "PATCH");
    assert_eq!((reply.status, reply.offset()), (409, Some(8)), "{reply:?}");
    let mut stream = tus.begin_patch_with(&at, 8, &[("Expect", "100-continue"), ("Content-Length", "4")]);
    assert_eq!(Reply::read(&mut stream, "PATCH").status, 100);
    stream.write_all(b"9012").unwrap();
    assert_eq!(told(Reply::read(&mut stream, "PATCH"), 204).offset(), Some(12));
}

#[test]
fn responses_can_be_read_by_pages_that_may_call() {
    let (daemon, tus) = daemon(&["--allowed-origins", "https://app.example.org"]);
    let origin = ("Origin", "https://app.example.org");
    let asks = ("Access-Control-Request-Method", "PATCH");
    let reply = tus.send("OPTIONS", "/files/", &[origin, asks], b"");
    let list = |name: &str| {
        let value = reply.header(name).unwrap_or_else(|| panic!("{name}: {reply:?}"));
        value.to_ascii_lowercase().split(", ").map(str::to_owned).collect::<Vec<_>>()
    };
    for header in ["tus-resumable", "upload-offset", "upload-length", "upload-metadata", "upload-defer-length"] {
        assert!(list("Access-Control-Allow-Headers").contains(&header.to_owned()), "{header}");
    }
    for header in ["content-type", "authorization", "upload-checksum", "x-http-method-override", "x-requested-with"] {
        assert!(list("Access-Control-Allow-Headers").contains(&header.to_owned()), "{header}");
    }
    for method in ["patch", "head", "post", "delete"] {
        assert!(list("Access-Control-Allow-Methods").contains(&method.to_owned()), "{method}");
    }
    let reply = tus.send("POST", "/files/", &[RESUMABLE, origin, ("Upload-Length", "5")], b"");
    assert_eq!(reply.header("Access-Control-Allow-Origin"), Some("https://app.example.org"));
    let exposed = reply.header("Access-Control-Expose-Headers").unwrap().to_ascii_lowercase();
    for header in ["upload-offset", "location", "upload-length", "upload-expires", "tus-resumable", "retry-after"] {
        assert!(exposed.contains(header), "{header}: {exposed}");
    }
    // A refusal, too.
    let at = reply.location();
    let reply = tus.send("PATCH", &at, &[RESUMABLE, origin, OFFSET_STREAM, ("Upload-Offset", "3")], b"x");
    assert_eq!((reply.status, reply.header("Access-Control-Allow-Origin")), (409, Some("https://app.example.org")));
    drop(daemon);
}

#[test]
fn one_connection_serves_request_after_request() {
    let (daemon, tus) = daemon(&[]);
    let content = data::bytes(10, 2 * SLICE);
    let at = tus.create("a", content.len() as u64);
    let mut stream = connect(daemon.url());
    for (i, piece) in content.chunks(SLICE / 2).enumerate() {
        let offset = (i * SLICE / 2).to_string();
        let length = piece.len().to_string();
        let headers = [RESUMABLE, OFFSET_STREAM, ("Upload-Offset", &offset), ("Content-Length", &length)];
        let head = format!("{}\r\n", tus.head_of("PATCH", &at, &headers));
        stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(piece)).unwrap();
        told(Reply::read(&mut stream, "PATCH"), 204);
        // A refusal in between keeps it open.
        stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(piece)).unwrap();
        told(Reply::read(&mut stream, "PATCH"), 409);
    }
    assert_finished(&daemon, "a", &content);
}
