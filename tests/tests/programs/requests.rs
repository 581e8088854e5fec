//! Requests: bad ones change nothing and say what is wrong, good ones mean what the wire says, and whoever sends a
//! whole body before reading gets to read the answer.

use bigup_core::protocol::digest::{DigestKind, SliceHasher};
use bigup_core::protocol::name::FileName;
use bigup_core::storage::data_dir::DataDir;
use bigup_core::storage::spool::{Spool, UploadId};
use bigup_tests::daemon::{Daemon, list};
use bigup_tests::data::{Dice, bytes};
use bigup_tests::http::{Answer, connect, post_head, raw, read_answer, read_head};
use bigup_tests::process::eventually;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect as connect_socket, socket};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddrV4, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Begins an upload of 25 bytes in 3 slices.
const BEGIN_A: &str = "file_name=a&slice_num=3&slice_size=10&file_size=25";

/// More than the buffers of a loopback connection hold.
const BIG: usize = 20 << 20;

/// Makes sure that an answer refuses, with what it must say.
fn assert_refused(case: &str, answer: &Answer, status: u16, error: &str, says: &[&str]) {
    assert_eq!(answer.status, status, "{case}: {answer:?}");
    assert_eq!(answer.body["status"], status, "{case}: {answer:?}");
    assert_eq!(answer.body["error"], error, "{case}: {answer:?}");
    for part in says {
        assert!(answer.message().contains(part), "{case}: {part:?} is not in {:?}", answer.message());
    }
}

/// Query of a slice of the upload `a`, from the source that begins it.
fn slice(id: u64, len: usize) -> String {
    slice_from("test", id, len)
}

fn slice_from(source: &str, id: u64, len: usize) -> String {
    format!("file_name=a&slice_id={id}&slice_size={len}&source={source}")
}

/// The slices of a file of this content, with their ids.
fn slices(content: &[u8], size: usize) -> impl Iterator<Item = (u64, &[u8])> {
    (0..).zip(content.chunks(size))
}

fn hash(content: &[u8]) -> String {
    format!("hash:{}", blake3::hash(content))
}

/// What is in the spool of `name`, but for what a merger adds.
fn spool_files(daemon: &Daemon, name: &str) -> Vec<String> {
    let mut names = list(&daemon.data().join("tmp").join(name));
    names.retain(|name| !["merger.lock", "merged", "hash"].contains(&name.as_str()));
    names
}

/// Waits until the spool of `a` has nothing but what every spool has: a refused slice may go an instant after its
/// answer.
fn eventually_no_slices(daemon: &Daemon) {
    eventually("no slice and no part of one is left", || spool_files(daemon, "a") == ["digests", "upload.json"]);
}

/// Waits until the file is finished and has this content.
fn eventually_finished(daemon: &Daemon, name: &str, content: &[u8]) {
    eventually(&format!("{name} is finished"), || {
        daemon.server().get(&format!("file_name={name}&peek=1")).body["is_uploaded"] == 1
    });
    assert!(std::fs::read(daemon.finished(name)).unwrap() == content, "{name} has other content");
}

#[test]
fn bad_beginnings_begin_nothing_and_say_why() {
    let daemon = Daemon::with(&["--max-slice-size", "1M"]);
    let long_source = format!("file_name=a&slice_num=1&source={}", "x".repeat(129));
    for (query, status, error, says) in [
        ("", 400, "bad_request", &["file_name is missing"][..]),
        ("slice_num=1", 400, "bad_request", &["file_name is missing"]),
        ("file_name=a", 400, "bad_request", &["slice_num is missing"]),
        ("file_name=a&slice_num=", 400, "bad_request", &["slice_num is \"\""]),
        ("file_name=a&slice_num=three", 400, "bad_request", &["\"three\""]),
        ("file_name=a&slice_num=-1", 400, "bad_request", &["\"-1\""]),
        ("file_name=a&slice_num=%2B1", 400, "bad_request", &["\"+1\""]),
        ("file_name=a&slice_num=1.5", 400, "bad_request", &["\"1.5\""]),
        ("file_name=a&slice_num=0x10", 400, "bad_request", &["\"0x10\""]),
        ("file_name=a&slice_num=%D9%A3", 400, "bad_request", &["slice_num"]),
        (
            "file_name=a&slice_num=18446744073709551616",
            400,
            "bad_request",
            &["18446744073709551616", "18446744073709551615"],
        ),
        ("file_name=a&slice_num=18446744073709551615", 413, "too_large", &["18446744073709551615", "1000000"]),
        ("file_name=a&slice_num=1000001", 413, "too_large", &["1000001", "1000000"]),
        ("file_name=a&slice_size=0", 400, "bad_request", &["slice_size is 0"]),
        ("file_name=a&slice_num=1&slice_size=0", 400, "bad_request", &["slice_size is 0"]),
        ("file_name=a&slice_num=1&slice_size=1048577", 413, "too_large", &["1048577", "1048576"]),
        (
            "file_name=a&slice_num=3&slice_size=10&file_size=100",
            400,
            "bad_request",
            &["slice_num is 3", "100", "10 slices"],
        ),
        ("file_name=a&slice_num=5&file_size=4", 400, "bad_request", &["5", "4"]),
        ("file_name=a&slice_num=0&file_size=7", 400, "bad_request", &["0", "7"]),
        (
            "file_name=a&slice_size=1024&file_size=18446744073709551615",
            413,
            "too_large",
            &["18014398509481984", "1000000"],
        ),
        ("file_name=a&slice_num=1&file_size=17592186044417", 413, "too_large", &["17592186044417", "17592186044416"]),
        ("file_name=a&slice_num=1&slice_num=1", 400, "bad_request", &["slice_num", "twice"]),
        ("file_name=a&file_name=b&slice_num=1", 400, "bad_request", &["file_name", "twice"]),
        ("file_name=%FF&slice_num=1", 400, "bad_request", &["UTF-8"]),
        ("file_name=%C3&slice_num=1", 400, "bad_request", &["UTF-8"]),
        ("file_name=a&slice_num=1&%FF=1", 400, "bad_request", &["UTF-8"]),
        ("file_name=a&slice_num=1&source=", 400, "bad_request", &["source", "128"]),
        ("file_name=a&slice_num=1&source=a%20b", 400, "bad_request", &["source"]),
        (&long_source, 400, "bad_request", &["source", "128"]),
        ("file_name=a&slice_num=1&file_digest=00", 400, "bad_request", &["64", "2 characters"]),
        ("file_name=a&slice_num=1&replace=yes", 400, "bad_request", &["replace is neither 1 nor 0"]),
        ("file_name=a&slice_num=1&ranges=2", 400, "bad_request", &["ranges is neither 1 nor 0"]),
        ("file_name=a&slice_num=1&peek=x", 400, "bad_request", &["peek is neither 1 nor 0"]),
        ("file_name=a&slice_num=1&wait=soon", 400, "bad_request", &["wait is \"soon\""]),
        ("file_name=a&peek=1", 404, "no_upload", &["a"]),
    ] {
        assert_refused(query, &daemon.server().get(query), status, error, says);
    }
    assert_eq!(daemon.spools(), [""; 0]);
    assert!(!daemon.info_ini().contains('['), "{}", daemon.info_ini());
    assert_eq!(list(&daemon.data().join("files")), [""; 0]);
}

#[test]
fn bad_slices_leave_nothing_and_say_why() {
    let daemon = Daemon::with(&["--max-slice-size", "1M"]);
    let server = daemon.server();
    server.get(BEGIN_A).expect(200);
    let cv = format!("file_name=a&slice_id=0&slice_size=10&slice_digest=cv:{}", "0".repeat(64));
    for (query, len, status, error, says) in [
        ("", 10, 400, "bad_request", &["file_name is missing"][..]),
        ("file_name=a&slice_size=10", 10, 400, "bad_request", &["slice_id is missing"]),
        ("file_name=a&slice_id=0", 10, 400, "bad_request", &["slice_size is missing"]),
        ("file_name=a&slice_id=x&slice_size=10", 10, 400, "bad_request", &["slice_id is \"x\""]),
        ("file_name=a&slice_id=-1&slice_size=10", 10, 400, "bad_request", &["slice_id is \"-1\""]),
        ("file_name=a&slice_id=0&slice_size=-10", 10, 400, "bad_request", &["slice_size is \"-10\""]),
        ("file_name=a&slice_id=3&slice_size=10", 10, 400, "bad_request", &["slice_id is 3", "3 slices"]),
        (
            "file_name=a&slice_id=18446744073709551615&slice_size=10",
            10,
            400,
            "bad_request",
            &["18446744073709551615", "3 slices"],
        ),
        ("file_name=a&slice_id=0&slice_size=10", 9, 400, "bad_request", &["slice_size is 10", "9 bytes"]),
        ("file_name=a&slice_id=0&slice_size=10", 11, 400, "bad_request", &["slice_size is 10", "11 bytes"]),
        ("file_name=a&slice_id=0&slice_size=9", 9, 409, "conflict", &["slice 0", "10 bytes", "not 9"]),
        ("file_name=a&slice_id=2&slice_size=10", 10, 409, "conflict", &["slice 2", "5 bytes", "not 10"]),
        ("file_name=a&slice_id=0&slice_size=0", 0, 400, "bad_request", &["slice 0", "0 bytes"]),
        ("file_name=a&slice_id=0&slice_size=1048577", 1_048_577, 413, "too_large", &["1048577", "1048576"]),
        ("file_name=b&slice_id=0&slice_size=10", 10, 404, "no_upload", &["no upload of b"]),
        ("file_name=a&slice_id=0&slice_size=10&source=other", 10, 409, "conflict", &["another push"]),
        ("file_name=a&slice_id=0&slice_size=10&slice_digest=00", 10, 400, "bad_request", &["slice_digest"]),
        ("file_name=a&slice_id=0&slice_size=10&slice_digest=hash:00", 10, 400, "bad_request", &["64", "2 characters"]),
        (&cv, 10, 400, "bad_request", &["chaining value"]),
        ("file_name=a&slice_id=0&slice_id=0&slice_size=10", 10, 400, "bad_request", &["slice_id", "twice"]),
        ("file_name=a&slice_id=0&slice_size=10&x=%FF", 10, 400, "bad_request", &["UTF-8"]),
        ("file_name=a&slice_id=0&slice_size=10&slice_num=4", 10, 409, "conflict", &["3", "4"]),
        ("file_name=a&slice_id=0&slice_size=10&slice_num=3&file_size=24", 10, 409, "conflict", &["25", "24"]),
        ("file_name=a&slice_id=3&slice_size=10&slice_num=3", 10, 400, "bad_request", &["slice_id is 3", "3 slices"]),
        ("file_name=c&slice_id=1&slice_size=10&slice_num=1", 10, 400, "bad_request", &["slice_id is 1", "1 slices"]),
    ] {
        assert_refused(query, &server.post(query, &vec![7; len]), status, error, says);
    }
    eventually_no_slices(&daemon);
    assert_eq!(daemon.spools(), ["a"]);
    assert_eq!(server.get("file_name=a&peek=1").held(), [0; 0]);
}

#[test]
fn numbers_that_contradict_the_upload_are_refused_and_it_stays_as_it_was() {
    let daemon = Daemon::start();
    let server = daemon.server();
    server.get(BEGIN_A).expect(200);
    for (query, says) in [
        ("file_name=a&slice_num=4", &["slice_num", "3", "4"][..]),
        ("file_name=a&slice_num=3&file_size=26", &["file_size", "25", "26"]),
        ("file_name=a&slice_size=10&file_size=26", &["file_size", "25", "26"]),
        ("file_name=a&slice_num=0&source=test", &["0"]),
    ] {
        assert_refused(query, &server.get(query), 409, "conflict", says);
    }
    // A slice size is a wish: the upload keeps its own and says so.
    let answer = server.get("file_name=a&slice_size=12&file_size=25").expect(200);
    assert_eq!(answer.body["slice_size"], 10);
    assert_eq!(answer.body["slice_num"], 3);
    assert_eq!(answer.body["file_size"], 25);
}

#[test]
fn a_damaged_slice_is_refused_and_not_held() {
    let daemon = Daemon::start();
    let server = daemon.server();
    // Slices of 1024 bytes carry chaining values, the others hashes.
    for (begin, len) in [(BEGIN_A, 10), ("file_name=a2&slice_num=3&slice_size=1024&file_size=3072", 1024)] {
        let name = &begin[10..begin.find('&').unwrap()];
        server.get(begin).expect(200);
        let content = bytes(1, len);
        let (told, kind) = if len == 10 { (hash(&content), "hash:") } else { (chaining_value(&content), "cv:") };
        for id in [0, 1] {
            let told = if id == 0 || len == 10 { told.clone() } else { chaining_value_at(&content, 1024) };
            let query = format!("file_name={name}&slice_id={id}&slice_size={len}&slice_digest={told}");
            let mut damaged = content.clone();
            damaged[len / 2] ^= 1;
            assert_refused(
                &query,
                &server.post(&query, &damaged),
                400,
                "damaged",
                &[&format!("slice {id}"), &told, kind],
            );
            assert_eq!(server.get(&format!("file_name={name}&peek=1")).held(), [0; 0]);
            eventually("nothing is left of it", || spool_files(&daemon, name) == ["digests", "upload.json"]);
        }
        let query = format!("file_name={name}&slice_id=0&slice_size={len}&slice_digest={told}");
        server.post(&query, &content).expect(200);
        assert_eq!(server.get(&format!("file_name={name}&peek=1")).held(), [0]);
    }
}

fn chaining_value(content: &[u8]) -> String {
    chaining_value_at(content, 0)
}

fn chaining_value_at(content: &[u8], offset: u64) -> String {
    let mut hasher = SliceHasher::new(DigestKind::ChainingValue, offset);
    hasher.update(content);
    hasher.finish().to_string()
}

#[test]
fn content_digests_are_checked() {
    let daemon = Daemon::start();
    let server = daemon.server();
    server.get(BEGIN_A).expect(200);
    let right = "sha-256=:hNiYd/DUBB77a/kaFvAkjy/Vc+avBcGflr7bn4gveII=:";
    let wrong = "sha-256=:iNiYd/DUBB77a/kaFvAkjy/Vc+avBcGflr7bn4gveII=:";
    let post = |value| server.post_with(&slice(0, 10), ("Content-Digest", value), b"0123456789");
    assert_refused(wrong, &post(wrong), 400, "damaged", &["slice 0", "Content-Digest"]);
    for malformed in ["sha-256=", "sha-256=:AA==:", "sha-256=hNiYd"] {
        assert_refused(malformed, &post(malformed), 400, "bad_request", &["Content-Digest"]);
    }
    eventually_no_slices(&daemon);
    post(right).expect(200);
    // Other algorithms may be ignored (RFC 9530, section 2).
    server.post_with(&slice(1, 10), ("Content-Digest", "sha-512=:AA==:"), b"0123456789").expect(200);
    assert_eq!(server.get("file_name=a&peek=1").held(), [0, 1]);
}

#[test]
fn other_content_for_a_held_slice_is_refused_and_the_held_one_stays() {
    let daemon = Daemon::start();
    let server = daemon.server();
    server.get(BEGIN_A).expect(200);
    let content = bytes(2, 25);
    // Slice 0 is merged at once, slice 2 waits.
    server.post(&slice(0, 10), &content[..10]).expect(200);
    server.post(&slice(2, 5), &content[20..]).expect(200);
    eventually("slice 0 is merged", || server.get("file_name=a&peek=1").body["curr_merge_slice_id"] == 1);
    for (id, held) in [(0, &content[..10]), (2, &content[20..])] {
        let other = bytes(3, held.len());
        for digest in [String::new(), format!("&slice_digest={}", hash(&other))] {
            let query = slice(id, held.len()) + &digest;
            let says = [&format!("slice {id}")[..], &hash(held), &hash(&other)];
            assert_refused(&query, &server.post(&query, &other), 409, "conflict", &says);
        }
    }
    server.post(&slice(1, 10), &content[10..20]).expect(200);
    eventually_finished(&daemon, "a", &content);
    daemon.eventually_clean();
}

#[test]
fn the_same_slice_again_is_held() {
    let daemon = Daemon::start();
    let server = daemon.server();
    server.get(BEGIN_A).expect(200);
    let query = format!("{}&slice_digest={}", slice(2, 5), hash(b"01234"));
    assert_eq!(server.post(&query, b"01234").expect(200).body["held"], serde_json::Value::Null);
    let again = server.post(&query, b"01234").expect(200);
    assert_eq!((&again.body["held"], &again.body["slice_id"]), (&true.into(), &2.into()));
    assert_eq!(spool_files(&daemon, "a"), ["2", "digests", "upload.json"]);
}

#[test]
fn the_same_slice_again_without_a_digest_is_held_too() {
    let daemon = Daemon::start();
    let server = daemon.server();
    server.get(BEGIN_A).expect(200);
    server.post(&slice(2, 5), b"01234").expect(200);
    let inode = || std::fs::metadata(daemon.data().join("tmp/a/2")).unwrap().ino();
    let before = inode();
    let again = server.post(&slice(2, 5), b"01234").expect(200);
    assert_eq!(inode(), before);
    eventually("its file is gone", || spool_files(&daemon, "a") == ["2", "digests", "upload.json"]);
    assert_eq!(again.body["held"], true, "{again:?}");
}

#[test]
fn only_the_source_that_began_sends_slices() {
    let daemon = Daemon::start();
    let server = daemon.server();
    server.get(&format!("{BEGIN_A}&source=one")).expect(200);
    let oldest = daemon.server().as_oldest();
    for answer in [
        oldest.post("file_name=a&slice_id=0&slice_size=10", &[0; 10]),
        server.post(&slice_from("two", 0, 10), &[0; 10]),
    ] {
        assert_refused("POST", &answer, 409, "conflict", &["another push"]);
    }
    assert_refused("GET", &server.get(&format!("{BEGIN_A}&source=two")), 409, "busy", &["another push of a"]);
    assert_refused("GET", &oldest.get("file_name=a&slice_num=3"), 409, "conflict", &["another client"]);
    eventually_no_slices(&daemon);
    server.post(&slice_from("one", 0, 10), &[0; 10]).expect(200);
}

#[test]
fn a_slice_of_a_finished_file_is_refused_but_for_its_own_source() {
    let daemon = Daemon::start();
    let server = daemon.server();
    let content = bytes(4, 25);
    server.get(&format!("{BEGIN_A}&source=me")).expect(200);
    for (id, part) in slices(&content, 10) {
        server.post(&slice_from("me", id, part.len()), part).expect(200);
    }
    eventually_finished(&daemon, "a", &content);
    daemon.eventually_clean();
    let oldest = daemon.server().as_oldest();
    for answer in [
        oldest.post("file_name=a&slice_id=0&slice_size=10", &[0; 10]),
        server.post(&slice_from("other", 0, 10), &[0; 10]),
    ] {
        assert_refused("POST", &answer, 409, "exists", &["a is finished"]);
    }
    let again = server.post(&slice_from("me", 0, 10), &content[..10]).expect(200);
    assert_eq!((&again.body["held"], &again.body["is_uploaded"]), (&true.into(), &1.into()));
    assert_eq!(daemon.spools(), [""; 0]);
    eventually_finished(&daemon, "a", &content);
}

#[test]
fn an_upload_is_cut_anew_while_it_holds_nothing_and_what_was_sent_for_the_old_cut_is_refused() {
    let (daemon, content) = (Daemon::start(), bytes(9, 16_384));
    let server = daemon.server();
    let begin = |slice_size, recut| {
        let query = format!("file_name=f&file_size=16384&slice_size={slice_size}&source=s&recut={recut}");
        server.get(&query).expect(200).body
    };
    assert_eq!(begin(4096, 0)["slice_size"], 4096);
    assert_eq!(begin(2048, 0)["slice_size"], 4096, "only who asks for it");
    let mut old = connect(daemon.url());
    let head = post_head("file_name=f&source=s&slice_id=1&slice_size=4096", &["Content-Length: 4096"]);
    old.write_all(&[&head[..], &content[4096..6000]].concat()).unwrap();
    eventually("the slice arrives", || daemon.spool_has_part("f"));
    for (slice_size, is) in [(2048, 2048), (16_384, 2048), (1024, 1024)] {
        let body = begin(slice_size, 1);
        assert_eq!((&body["slice_size"], &body["slice_num"]), (&is.into(), &(16_384 / is).into()), "into several");
    }
    old.write_all(&content[6000..8192]).unwrap();
    assert_refused("let in by the old cut", &Answer::parse(&read_answer(&mut old)), 409, "conflict", &["1024", "4096"]);
    // The length is that of a slice of the new cut; only the place tells.
    let late = "file_name=f&source=s&slice_id=3&slice_size=1024&offset=12288";
    assert_refused("late", &server.post(late, &content[12_288..13_312]), 409, "conflict", &["3072", "12288"]);
    assert!(spool_files(&daemon, "f").iter().all(|name| name.parse::<u64>().is_err()), "nothing is held");
    let put = |id: usize| {
        let place = id * 1024;
        let query = format!("file_name=f&source=s&slice_id={id}&slice_size=1024&offset={place}");
        server.post(&query, &content[place..place + 1024]).expect(200);
    };
    put(5);
    assert_eq!(begin(2048, 1)["slice_size"], 1024, "something is held");
    (0..16).filter(|id| *id != 5).for_each(put);
    eventually_finished(&daemon, "f", &content);
}

#[test]
fn an_upload_of_a_single_slice_is_cut_into_several() {
    let (daemon, content) = (Daemon::start(), bytes(10, 5000));
    let server = daemon.server();
    let begin = |more: &str| server.get(&format!("file_name=f&file_size=5000&source=s&{more}")).expect(200).body;
    assert_eq!(begin("slice_size=8192")["slice_num"], 1);
    assert_eq!(begin("slice_size=2048&recut=1")["slice_num"], 3);
    for (id, slice) in content.chunks(2048).enumerate() {
        let query = format!("file_name=f&source=s&slice_id={id}&slice_size={}&offset={}", slice.len(), id * 2048);
        server.post(&query, slice).expect(200);
    }
    eventually_finished(&daemon, "f", &content);
}

/// The head of an answer to a request by hand, in lower case.
fn head_of(daemon: &Daemon, line: &str, headers: &str) -> String {
    let request = format!("{line} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\r\n");
    let text = raw(daemon.url(), request.as_bytes());
    text.split_once("\r\n\r\n").map_or(String::new(), |(head, _)| format!("{}\r\n", head.to_ascii_lowercase()))
}

#[test]
fn all_lines_of_content_digest_count_and_that_of_a_form_is_of_the_form() {
    let daemon = Daemon::start();
    let server = daemon.server();
    server.get(BEGIN_A).expect(200);
    let form = [
        &b"--X\r\nContent-Disposition: form-data; name=\"slic_content\"\r\n\r\n0123456789\r\n--X--\r\n"[..],
        b"epilogue",
    ];
    let form = form.concat();
    let post = |digests: &[String]| {
        let mut head: Vec<String> = digests.iter().map(|digest| format!("Content-Digest: {digest}")).collect();
        head.push("Content-Type: multipart/form-data; boundary=X".to_owned());
        head.push(format!("Content-Length: {}", form.len()));
        let head: Vec<&str> = head.iter().map(String::as_str).collect();
        let request = [&post_head(&slice(0, 10), &head)[..], &form].concat();
        Answer::parse(&raw(daemon.url(), &request))
    };
    let (whole, field) = (sha256(&form), sha256(b"0123456789"));
    let other = "sha-512=:AA==:".to_owned();
    for wrong in [&[field.clone()][..], &[other.clone(), field.clone()], &[whole.clone(), field.clone()]] {
        assert_refused("a form", &post(wrong), 400, "damaged", &["slice 0", "Content-Digest"]);
        assert_eq!(server.get(BEGIN_A).held(), [0; 0]);
    }
    post(&[other.clone(), whole]).expect(200);
    assert_eq!(server.get(BEGIN_A).held(), [0]);
    let lines = format!("Content-Digest: {other}\r\nContent-Digest: {}\r\n", sha256(b"other"));
    let head = post_head(&slice(1, 10), &[lines.trim_end(), "Content-Length: 10"]);
    let answer = Answer::parse(&raw(daemon.url(), &[&head[..], b"0123456789"].concat()));
    assert_refused("a second line", &answer, 400, "damaged", &["slice 1", "Content-Digest"]);
}

/// As Content-Digest has it; by a program of others.
fn sha256(bytes: &[u8]) -> String {
    let mut openssl = std::process::Command::new("sh");
    openssl.args(["-c", "openssl dgst -sha256 -binary | base64 -w0"]);
    let mut openssl = openssl.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped()).spawn().unwrap();
    openssl.stdin.take().unwrap().write_all(bytes).unwrap();
    let output = openssl.wait_with_output().unwrap();
    format!("sha-256=:{}:", String::from_utf8(output.stdout).unwrap())
}

#[test]
fn a_coded_body_is_refused_before_it_is_read() {
    let daemon = Daemon::start();
    let server = daemon.server();
    server.get(BEGIN_A).expect(200);
    for coding in ["gzip", "identity, br", "GZIP"] {
        let answer = server.post_with(&slice(0, 10), ("Content-Encoding", coding), b"0123456789");
        assert_refused(coding, &answer, 415, "unsupported", &["Content-Encoding", "the slice's own bytes"]);
    }
    assert_eq!(server.get(BEGIN_A).held(), [0; 0]);
    server.post_with(&slice(0, 10), ("Content-Encoding", "Identity"), b"0123456789").expect(200);
    let line = format!("POST /big_file_upload?{}", slice(1, 10));
    let head = head_of(&daemon, &line, "Content-Encoding: gzip\r\nContent-Length: 10\r\nExpect: 100-continue\r\n");
    assert!(head.starts_with("http/1.1 415") && head.contains("accept-encoding: identity\r\n"), "{head}");
}

#[test]
fn methods_are_told_and_no_answer_is_to_be_kept() {
    let daemon = Daemon::start();
    for (line, status, allow) in [
        ("OPTIONS /big_file_upload", 204, Some("get, post, delete, options")),
        ("PUT /big_file_upload", 405, Some("get, post, delete, options")),
        ("OPTIONS /metrics", 204, Some("get, head, options")),
        ("PUT /readyz", 405, Some("get, head, options")),
        ("GET /big_file_upload?peek=1", 200, None),
        ("GET /big_file_upload?peek=1&file_name=x", 404, None),
        ("GET /big_file_upload?file_name=x&slice_num=2", 200, None),
        ("GET /big_file_upload", 400, None),
        ("GET /nowhere", 404, None),
        ("GET /healthz", 200, None),
        ("GET /readyz", 200, None),
        ("GET /metrics", 200, None),
    ] {
        let head = head_of(&daemon, line, "");
        assert!(head.starts_with(&format!("http/1.1 {status}")), "{line}: {head}");
        assert!(head.contains("cache-control: no-store\r\n"), "{line}: {head}");
        let told = head.lines().find_map(|line| line.strip_prefix("allow: "));
        assert_eq!(told, allow, "{line}: {head}");
    }
}

#[test]
fn other_methods_and_paths_are_refused() {
    let daemon = Daemon::start();
    for method in ["PUT", "PATCH"] {
        let request =
            format!("{method} /big_file_upload?{BEGIN_A} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc");
        let answer = Answer::parse(&raw(daemon.url(), request.as_bytes()));
        assert_refused(method, &answer, 405, "method_not_allowed", &[method, "GET", "POST"]);
    }
    for path in ["/nothing/here", "/big_file_uploads", "/big_file_upload/x"] {
        let request = format!("POST {path}?{BEGIN_A} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc");
        let answer = Answer::parse(&raw(daemon.url(), request.as_bytes()));
        assert_refused(path, &answer, 404, "not_found", &["/big_file_upload"]);
    }
    assert_eq!(daemon.spools(), [""; 0]);
}

#[test]
fn chunked_bodies_must_have_the_length_they_say() {
    let daemon = Daemon::start();
    daemon.server().get(BEGIN_A).expect(200);
    let post = |id, len| {
        let mut request = post_head(&slice(id, 10), &["Transfer-Encoding: chunked"]);
        for piece in vec![b'x'; len].chunks(4) {
            request.extend(format!("{:x}\r\n{}\r\n", piece.len(), String::from_utf8_lossy(piece)).bytes());
        }
        request.extend(b"0\r\n\r\n");
        Answer::parse(&raw(daemon.url(), &request))
    };
    assert_refused("shorter", &post(0, 9), 400, "damaged", &["slice 0", "10", "9"]);
    assert_refused("longer", &post(0, 11), 400, "bad_request", &["slice 0", "10"]);
    assert_refused("empty", &post(0, 0), 400, "damaged", &["slice 0", "10", "0"]);
    eventually_no_slices(&daemon);
    post(1, 10).expect(200);
    assert_eq!(daemon.server().get("file_name=a&peek=1").held(), [1]);
}

#[test]
fn a_body_may_come_byte_by_byte() {
    let daemon = Daemon::start();
    daemon.server().get(BEGIN_A).expect(200);
    let mut stream = connect(daemon.url());
    stream.set_nodelay(true).unwrap();
    for byte in post_head(&slice(2, 5), &["Content-Length: 5"]).iter().chain(b"01234") {
        stream.write_all(&[*byte]).unwrap();
    }
    Answer::parse(&read_answer(&mut stream)).expect(200);
    assert_eq!(std::fs::read(daemon.data().join("tmp/a/2")).unwrap(), b"01234");
}

const FORM: (&str, &str) = ("Content-Type", "multipart/form-data; boundary=XX");

fn field(content: &[u8]) -> Vec<u8> {
    let head = b"--XX\r\nContent-Disposition: form-data; name=\"slic_content\"; filename=\"slic_content\"\r\n\
        Content-Type: application/octet-stream\r\n\r\n";
    [&head[..], content, b"\r\n"].concat()
}

#[test]
fn the_content_of_a_form_is_taken_exactly() {
    let daemon = Daemon::start();
    let server = daemon.server();
    let mut dice = Dice::new(5);
    // Whatever resembles a boundary, and never one: each piece ends in a dot.
    let pieces = [&b"\r\n--X."[..], b"\n--XX.", b"--XX--.", b"\r\n\r\n.", b"\r--XX\r\n.", b"\0\xff\r\n-.", b"\r\n--."];
    let mut content: Vec<u8> =
        (0..60_000).flat_map(|_| pieces[dice.below(pieces.len() as u64) as usize]).copied().collect();
    content.extend(b"\r\n--X\r\n");
    // No power of two: such slices carry hashes.
    let size = 150_001;
    server.get(&format!("file_name=a&slice_size={size}&file_size={}", content.len())).expect(200);
    for (id, part) in slices(&content, size) {
        let query = format!("{}&slice_digest={}", slice(id, part.len()), hash(part));
        server.post_with(&query, FORM, &[&field(part)[..], b"--XX--\r\n"].concat()).expect(200);
    }
    eventually_finished(&daemon, "a", &content);
}

#[test]
fn forms_that_are_not_one_whole_field_are_refused() {
    let daemon = Daemon::start();
    let server = daemon.server();
    server.get(BEGIN_A).expect(200);
    let one = field(b"0123456789");
    for (case, header, body, says) in [
        ("two fields", FORM.1, [&one[..], &one, b"--XX--\r\n"].concat(), "more than one field"),
        ("no field", FORM.1, b"--XX--\r\n".to_vec(), "no field"),
        ("no end", FORM.1, one.clone(), "multipart"),
        ("no boundary", FORM.1, b"0123456789".to_vec(), "multipart"),
        ("empty", FORM.1, vec![], "multipart"),
        ("boundary not told", "multipart/form-data", [&one[..], b"--XX--\r\n"].concat(), "multipart"),
        ("another boundary", "multipart/form-data; boundary=YY", [&one[..], b"--XX--\r\n"].concat(), "multipart"),
        ("longer field", FORM.1, [&field(b"0123456789a")[..], b"--XX--\r\n"].concat(), "10"),
    ] {
        let answer = server.post_with(&slice(0, 10), ("Content-Type", header), &body);
        assert_refused(case, &answer, 400, "bad_request", &[says]);
    }
    let shorter = [&field(b"012345678")[..], b"--XX--\r\n"].concat();
    let answer = server.post_with(&slice(0, 10), FORM, &shorter);
    assert_refused("shorter field", &answer, 400, "damaged", &["slice 0", "10", "9"]);
    eventually_no_slices(&daemon);
    server.post_with(&slice(0, 10), FORM, &[&one[..], b"--XX--\r\n"].concat()).expect(200);
    assert_eq!(server.get("file_name=a&peek=1").held(), [0]);
}

/// Query of a whole file in one request.
fn whole(name: &str, len: usize) -> String {
    format!("file_name={name}&slice_num=1&slice_id=0&slice_size={len}")
}

#[test]
fn a_small_file_is_finished_in_one_request() {
    let daemon = Daemon::start();
    let server = daemon.server();
    for (name, len) in [("one", 1), ("k", 1024), ("odd", 70_001)] {
        let content = bytes(len as u64, len);
        let answer = server.post(&whole(name, len), &content).expect(200);
        assert_eq!(answer.body["is_uploaded"], 1, "{answer:?}");
        assert_eq!(answer.body["file_digest"], blake3::hash(&content).to_string());
        assert!(std::fs::read(daemon.finished(name)).unwrap() == content);
        assert_eq!(daemon.spools(), [""; 0], "the answer comes after all is done");

        let inode = std::fs::metadata(daemon.finished(name)).unwrap().ino();
        for digest in [String::new(), format!("&slice_digest={}", hash(&content))] {
            let again = server.post(&(whole(name, len) + &digest), &content).expect(200);
            assert_eq!(again.body["is_uploaded"], 1, "{again:?}");
            assert_eq!(again.body["file_digest"], blake3::hash(&content).to_string());
        }
        assert_eq!(std::fs::metadata(daemon.finished(name)).unwrap().ino(), inode, "the file was left alone");
        let told = server.get(&format!("file_name={name}&slice_num=1")).expect(200);
        assert_eq!((&told.body["is_uploaded"], told.held()), (&1.into(), vec![0]));
    }
    daemon.eventually_clean();
}

/// Above 1 MiB what came is held, beside a promise that it broke.
#[test]
fn a_file_of_one_request_that_broke_its_promise_is_finished_by_another_request() {
    let daemon = Daemon::start();
    let server = daemon.server();
    let (wrong, right) = (bytes(1, 2 << 20), bytes(2, 2 << 20));
    let query = format!("{}&file_digest={}", whole("f", right.len()), blake3::hash(&right));
    assert_refused("wrong", &server.post(&query, &wrong), 409, "conflict", &["not", "as promised", "push it again"]);
    server.post(&query, &right).expect(200);
    eventually_finished(&daemon, "f", &right);
    daemon.eventually_clean();
}

#[test]
fn other_content_does_not_take_the_place_of_a_finished_file() {
    let daemon = Daemon::start();
    let server = daemon.server();
    let (old, new) = (bytes(6, 3000), bytes(7, 3000));
    server.post(&whole("f", 3000), &old).expect(200);
    let told = blake3::hash(&new).to_string();
    for query in [
        format!("{}&slice_digest={}", whole("f", 3000), hash(&new)),
        format!("{}&file_digest={told}", whole("f", 3000)),
        format!("{}&slice_num=1&file_digest={told}", slice(0, 3000).replace("file_name=a", "file_name=f")),
    ] {
        let answer = server.post(&query, &new);
        assert_refused(&query, &answer, 409, "exists", &[&told, &blake3::hash(&old).to_string(), "--replace"]);
    }
    let query = format!("file_name=f&slice_num=3&slice_size=1024&file_size=3000&file_digest={told}");
    assert_refused(&query, &server.get(&query), 409, "exists", &[&told, "--replace"]);
    let query = "file_name=f&slice_num=3&slice_size=1024&file_size=2999";
    assert_refused(query, &server.get(query), 409, "exists", &["3000", "2999"]);
    assert_eq!(daemon.spools(), [""; 0]);
    eventually_finished(&daemon, "f", &old);
}

#[test]
fn other_content_without_any_digest_is_not_answered_as_if_it_were_stored() {
    let daemon = Daemon::start();
    let server = daemon.server();
    let old = bytes(6, 3000);
    server.post(&whole("f", 3000), &old).expect(200);
    for (case, new) in [("other length", bytes(7, 2999)), ("same length", bytes(7, 3000))] {
        let answer = server.post(&whole("f", new.len()), &new);
        assert_refused(case, &answer, 409, "exists", &[]);
    }
    eventually_finished(&daemon, "f", &old);
}

#[test]
fn a_last_slice_that_comes_first_with_the_number_of_slices_does_not_set_the_slice_size() {
    let daemon = Daemon::start();
    let server = daemon.server();
    server.post("file_name=a&slice_num=2&slice_id=1&slice_size=3&source=test", b"abc").expect(200);
    server.post("file_name=a&slice_num=2&slice_id=0&slice_size=10", b"0123456789").expect(200);
    eventually_finished(&daemon, "a", b"0123456789abc");
}

/// Ends a thread that looks at this flag, also when the test fails before.
struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_file_is_replaced_on_demand_and_the_old_one_is_readable_until_then() {
    let daemon = Daemon::start();
    let server = daemon.server();
    let (first, second, third) = (bytes(8, 3000), bytes(9, 3000), bytes(10, 4000));
    server.post(&whole("f", 3000), &first).expect(200);
    let replaced = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let (mut reads, mut last) = (0, 0);
            while !replaced.load(Ordering::Relaxed) {
                let read = std::fs::read(daemon.finished("f")).expect("it is always there");
                let which = [&first, &second, &third].iter().position(|content| **content == read);
                let which = which.expect("it is always a whole one");
                assert!(which >= last, "never an older one again");
                (reads, last) = (reads + 1, which);
            }
            reads
        });
        let ended = SetOnDrop(&replaced);
        let digest = format!("&slice_digest={}", hash(&second));
        let answer = server.post(&(whole("f", 3000) + "&replace=1" + &digest), &second).expect(200);
        assert_eq!(answer.body["file_digest"], blake3::hash(&second).to_string());
        assert!(std::fs::read(daemon.finished("f")).unwrap() == second);

        let begin = "file_name=f&slice_num=4&slice_size=1024&file_size=4000&replace=1";
        assert_eq!(server.get(begin).expect(200).body["is_uploaded"], 0);
        for (id, part) in slices(&third, 1024) {
            assert!(std::fs::read(daemon.finished("f")).unwrap() == second);
            server.post(&format!("file_name=f&slice_id={id}&slice_size={}", part.len()), part).expect(200);
        }
        let digest = blake3::hash(&third).to_string();
        let done = server.get(&format!("{begin}&file_digest={digest}&wait=50")).expect(200);
        assert_eq!((&done.body["is_uploaded"], &done.body["file_digest"]), (&1.into(), &digest.into()));
        drop(ended);
        assert!(reader.join().expect("the reader found all well") > 0);
    });
    eventually_finished(&daemon, "f", &third);
    daemon.eventually_clean();
}

#[test]
fn replacing_a_file_by_the_same_content_leaves_it_alone() {
    let daemon = Daemon::start();
    let server = daemon.server();
    let content = bytes(11, 3000);
    server.post(&whole("f", 3000), &content).expect(200);
    let inode = || std::fs::metadata(daemon.finished("f")).unwrap().ino();
    let before = inode();
    let digest = blake3::hash(&content);
    let begin = format!("file_name=f&slice_num=3&slice_size=1024&file_size=3000&replace=1&file_digest={digest}");
    assert_eq!(server.get(&begin).expect(200).body["is_uploaded"], 1);
    for told in [format!("&slice_digest=hash:{digest}"), String::new()] {
        let answer = server.post(&(whole("f", 3000) + "&replace=1" + &told), &content).expect(200);
        assert_eq!(answer.body["is_uploaded"], 1, "{answer:?}");
        assert_eq!(answer.body["file_digest"], digest.to_string());
    }
    assert_eq!(inode(), before);
    assert_eq!(daemon.spools(), [""; 0]);
}

#[test]
fn an_empty_file_is_finished_by_its_beginning() {
    let daemon = Daemon::start();
    for query in ["file_name=empty&slice_num=0", "file_name=none&slice_size=1024&file_size=0"] {
        for _ in 0..2 {
            let answer = daemon.server().get(query).expect(200);
            assert_eq!(answer.body["is_uploaded"], 1, "{answer:?}");
            assert_eq!((&answer.body["file_size"], answer.held()), (&0.into(), vec![]));
            assert_eq!(answer.body["file_digest"], blake3::hash(b"").to_string());
        }
    }
    assert_eq!(std::fs::read(daemon.finished("empty")).unwrap(), b"");
    assert_eq!(std::fs::read(daemon.finished("none")).unwrap(), b"");
    daemon.eventually_clean();
}

/// Sends the whole upload `a` while a file of that name is put in its way by hand; its content.
fn send_all_and_be_blocked(daemon: &Daemon) -> Vec<u8> {
    let (server, content) = (daemon.server(), bytes(12, 25));
    server.get(BEGIN_A).expect(200);
    std::fs::write(daemon.finished("a"), "by hand").unwrap();
    for (id, part) in slices(&content, 10) {
        server.post(&slice(id, part.len()), part).expect(200);
    }
    eventually("the upload is blocked", || daemon.info("a", "last_error").is_some());
    content
}

#[test]
fn an_upload_that_another_file_blocks_says_so_and_goes_on_with_replace() {
    let daemon = Daemon::start();
    let server = daemon.server();
    let content = send_all_and_be_blocked(&daemon);
    assert!(daemon.info("a", "last_error").unwrap().contains("exists"));
    assert_refused("GET", &server.get(BEGIN_A), 409, "exists", &["a cannot be finished", "exists", "--replace"]);
    let peeked = server.get("file_name=a&peek=1").expect(200);
    assert!(peeked.body["last_error"].as_str().unwrap().contains("exists"), "{peeked:?}");
    assert_eq!(std::fs::read(daemon.finished("a")).unwrap(), b"by hand");

    server.get(&format!("{BEGIN_A}&replace=1")).expect(200);
    eventually_finished(&daemon, "a", &content);
    daemon.eventually_clean();
}

#[test]
fn waiting_for_a_replacement_ends_with_it_and_begins_no_other() {
    let daemon = Daemon::start();
    let server = daemon.server();
    let content = send_all_and_be_blocked(&daemon);
    let done = server.get(&format!("{BEGIN_A}&replace=1&wait=50")).expect(200);
    assert_eq!(done.body["is_uploaded"], 1, "{done:?}");
    assert!(std::fs::read(daemon.finished("a")).unwrap() == content);
    daemon.eventually_clean();
}

#[test]
fn a_body_that_stalls_is_given_up_and_leaves_nothing() {
    let daemon = Daemon::with(&["--body-timeout", "300ms"]);
    daemon.server().get(BEGIN_A).expect(200);
    let mut stream = connect(daemon.url());
    stream.write_all(&post_head(&slice(0, 10), &["Content-Length: 10"])).unwrap();
    stream.write_all(b"01234").unwrap();
    let answer = read_answer(&mut stream);
    assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("\"timeout\""), "{answer}");
    assert_eq!(daemon.server().get("file_name=a&peek=1").expect(200).held(), [0; 0]);
    eventually("the part is gone", || !daemon.spool_has_part("a"));
}

#[test]
fn peeking_changes_nothing() {
    let daemon = Daemon::start();
    let server = daemon.server();
    assert_refused("unknown", &server.get("file_name=nobody&peek=1&slice_num=3"), 404, "no_upload", &["nobody"]);
    assert_refused("unknown", &server.get("file_name=nobody&peek=1&digests=0-1"), 404, "no_upload", &["nobody"]);
    assert_eq!(daemon.spools(), [""; 0]);
    assert!(!daemon.info_ini().contains('['));

    server.get(BEGIN_A).expect(200);
    server.post(&slice(2, 5), b"01234").expect(200);
    eventually("it is told", || daemon.info("a", "slice_num").is_some());
    let look = || {
        let spool = daemon.data().join("tmp/a");
        let upload = std::fs::metadata(spool.join("upload.json")).unwrap();
        let info = std::fs::metadata(daemon.data().join("info.ini")).unwrap();
        (list(&spool), upload.ino(), info.ino(), daemon.info_ini())
    };
    let before = look();
    for query in [
        "file_name=a&peek=1",
        "file_name=a&peek=1&slice_num=9&replace=1&source=x",
        "peek=1",
        "file_name=a&peek=1&digests=0-9",
    ] {
        server.get(query).expect(200);
    }
    assert_eq!(look(), before);
}

#[test]
fn peeking_without_a_name_lists_the_unfinished_uploads() {
    let daemon = Daemon::with(&["--merger-idle", "60s"]);
    let server = daemon.server();
    assert_eq!(server.get("peek=1").expect(200).body, serde_json::json!({"status": 200, "uploads": []}));
    server.get("file_name=z&slice_num=4").expect(200);
    server.get(BEGIN_A).expect(200);
    server.post(&slice(0, 10), &[1; 10]).expect(200);
    server.post(&slice(2, 5), &[1; 5]).expect(200);
    server.post(&whole("done", 3), b"abc").expect(200);
    eventually("slice 0 is merged", || server.get("peek=1").body["uploads"][0]["curr_merge_slice_id"] == 1);
    let answer = server.get("peek=1").expect(200);
    let uploads = answer.body["uploads"].as_array().unwrap();
    assert_eq!(uploads.len(), 2, "{answer:?}");
    for (i, key, value) in [
        (0, "file_name", serde_json::json!("a")),
        (0, "slice_num", 3.into()),
        (0, "slice_size", 10.into()),
        (0, "file_size", 25.into()),
        (0, "slices_held", 2.into()),
        (0, "merge_slice_process_exist", 1.into()),
        (0, "last_error", serde_json::Value::Null),
        (1, "file_name", "z".into()),
        (1, "slice_num", 4.into()),
        (1, "slice_size", serde_json::Value::Null),
        (1, "slices_held", 0.into()),
        (1, "curr_merge_slice_id", 0.into()),
        (1, "merge_slice_process_exist", 0.into()),
    ] {
        assert_eq!(uploads[i][key], value, "{key} of {}", uploads[i]);
    }
    assert!(uploads[0]["idle_seconds"].as_u64().unwrap() < 60);
}

#[test]
fn held_slices_are_told_as_ids_or_as_runs() {
    let daemon = Daemon::start();
    let server = daemon.server();
    server.get("file_name=a&slice_num=10&slice_size=10&file_size=100").expect(200);
    for id in [0, 1, 2, 4, 7, 8] {
        server.post(&slice(id, 10), &[b'x'; 10]).expect(200);
    }
    let ids = server.get("file_name=a&slice_num=10").expect(200);
    assert_eq!(ids.held(), [0, 1, 2, 4, 7, 8]);
    assert_eq!(ids.body.get("slice_ranges_uploaded"), None);
    for query in ["file_name=a&slice_num=10&ranges=1", "file_name=a&peek=1&ranges=1"] {
        let runs = server.get(query).expect(200);
        assert_eq!(runs.body["slice_ranges_uploaded"], serde_json::json!([[0, 2], [4, 4], [7, 8]]));
        assert_eq!(runs.body.get("slice_ids_uploaded"), None);
    }
}

#[test]
fn digests_of_held_slices_are_told() {
    let daemon = Daemon::start();
    let server = daemon.server();
    let content = bytes(13, 4 * 1024);
    server.get("file_name=a&slice_num=4&slice_size=1024&file_size=4096").expect(200);
    for id in [0, 1, 3] {
        let at = id as usize * 1024;
        server.post(&slice(id, 1024), &content[at..at + 1024]).expect(200);
    }
    let digest = |id: usize| serde_json::json!(chaining_value_at(&content[id * 1024..][..1024], id as u64 * 1024));
    let told =
        |range: &str| server.get(&format!("file_name=a&peek=1&digests={range}")).expect(200).body["digests"].clone();
    assert_eq!(told("0-3"), serde_json::json!([digest(0), digest(1), null, digest(3)]));
    assert_eq!(told("1-1"), serde_json::json!([digest(1)]));
    assert_eq!(told("3-5"), serde_json::json!([digest(3), null, null]));
    for (range, says) in [
        ("3-1", "FIRST-LAST"),
        ("x", "FIRST-LAST"),
        ("", "FIRST-LAST"),
        ("0-4096", "4097"),
        ("0-18446744073709551615", "4096"),
        ("18446744073709551615-18446744073709551615", "999999"),
        ("999999-1000000", "999999"),
    ] {
        let answer = server.get(&format!("file_name=a&peek=1&digests={range}"));
        assert_refused(range, &answer, 400, "bad_request", &["digests", says]);
    }
}

#[test]
fn waiting_ends_with_the_file_or_in_time() {
    let daemon = Daemon::start();
    let server = daemon.server();
    let timed = |query: &str| {
        let begun = Instant::now();
        (server.get(query).expect(200).body["is_uploaded"].clone(), begun.elapsed())
    };
    // Nobody merges while the test has the merger's lock.
    server.get(BEGIN_A).expect(200);
    let data = DataDir::open(&daemon.data()).unwrap();
    let lock = Spool::of(&data, &UploadId::of_name(&FileName::new("a").unwrap()))
        .try_merger_lock()
        .unwrap()
        .expect("nobody merges");
    for (id, part) in slices(&[b'x'; 25], 10) {
        server.post(&slice(id, part.len()), part).expect(200);
    }
    let (uploaded, took) = timed(&format!("{BEGIN_A}&wait=1"));
    assert_eq!(uploaded, 0);
    assert!(took >= Duration::from_secs(1) && took < Duration::from_secs(10), "{took:?}");
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| timed(&format!("{BEGIN_A}&wait=50")));
        drop(lock);
        let (uploaded, took) = waiting.join().unwrap();
        assert_eq!(uploaded, 1);
        assert!(took < Duration::from_secs(30), "{took:?}");
    });
    let (uploaded, took) = timed("file_name=a&slice_num=3&wait=50");
    assert_eq!(uploaded, 1);
    assert!(took < Duration::from_secs(10), "{took:?}");
}

/// Sends a whole request of [`BIG`] bytes before it reads the answer, then uses the connection again.
fn refused_after_all_was_sent(daemon: &Daemon, case: &str, head: &[u8], body: &[u8]) -> Answer {
    let mut stream = connect(daemon.url());
    stream.write_all(head).unwrap_or_else(|e| panic!("{case}: sending the head: {e}"));
    stream.write_all(body).unwrap_or_else(|e| panic!("{case}: sending the body: {e}"));
    let answer = Answer::parse(&read_answer(&mut stream));
    stream.write_all(b"GET /big_file_upload?peek=1 HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    assert_eq!(Answer::parse(&read_answer(&mut stream)).status, 200, "{case}: the connection goes on");
    answer
}

#[test]
fn whoever_sends_all_of_a_refused_body_reads_the_answer() {
    let daemon = Daemon::start();
    let server = daemon.server();
    let content = vec![b'x'; BIG];
    server.get(&format!("file_name=a&slice_num=2&slice_size={BIG}")).expect(200);
    server.post(&slice(0, BIG), &content).expect(200);
    server.get("file_name=small&slice_num=2&slice_size=1024").expect(200);
    let length = format!("Content-Length: {BIG}");
    // Slices of this size are no subtrees, so they carry hashes.
    let other = format!("{}&slice_digest=hash:{}", slice(0, BIG), "0".repeat(64));
    for (case, line, status, error) in [
        ("bad parameter", "POST /big_file_upload?file_name=a&slice_id=x".to_owned(), 400, "bad_request"),
        ("bad name", format!("POST /big_file_upload?{}", slice(1, BIG).replace("=a", "=..")), 400, "bad_name"),
        ("other length", format!("POST /big_file_upload?{}", slice(1, BIG - 1)), 400, "bad_request"),
        ("unknown upload", format!("POST /big_file_upload?{}", slice(0, BIG).replace("=a", "=b")), 404, "no_upload"),
        ("digest conflict", format!("POST /big_file_upload?{other}"), 409, "conflict"),
        ("other source", format!("POST /big_file_upload?{}", slice_from("x", 1, BIG)), 409, "conflict"),
        ("slice too long", format!("POST /big_file_upload?{}", slice(0, BIG).replace("=a", "=small")), 409, "conflict"),
        ("beyond the end", format!("POST /big_file_upload?{}", slice(2, BIG)), 400, "bad_request"),
        ("other path", "POST /elsewhere".to_owned(), 404, "not_found"),
        ("other method", format!("PUT /big_file_upload?{}", slice(0, BIG)), 405, "method_not_allowed"),
        ("GET with a body and no name", "GET /big_file_upload".to_owned(), 400, "bad_request"),
    ] {
        let head = format!("{line} HTTP/1.1\r\nHost: localhost\r\n{length}\r\n\r\n");
        let answer = refused_after_all_was_sent(&daemon, case, head.as_bytes(), &content);
        assert_refused(case, &answer, status, error, &[]);
    }
}

#[test]
fn whoever_sends_all_of_a_damaged_slice_reads_the_answer() {
    let daemon = Daemon::start();
    daemon.server().get(&format!("file_name=a&slice_num=2&slice_size={BIG}")).expect(200);
    let length = format!("Content-Length: {BIG}");
    let query = format!("{}&slice_digest=hash:{}", slice(0, BIG), "0".repeat(64));
    let answer = refused_after_all_was_sent(&daemon, "damaged", &post_head(&query, &[&length]), &vec![b'x'; BIG]);
    assert_refused("damaged", &answer, 400, "damaged", &[]);
    let mut chunks = format!("{BIG:x}\r\n").into_bytes();
    chunks.extend(vec![b'x'; BIG]);
    chunks.extend(b"\r\n0\r\n\r\n");
    let head = post_head("file_name=small&slice_num=2&slice_id=0&slice_size=10", &["Transfer-Encoding: chunked"]);
    let answer = refused_after_all_was_sent(&daemon, "longer than told", &head, &chunks);
    assert_refused("longer than told", &answer, 400, "bad_request", &[]);
}

/// Posts a form of slice 0 of `a` as a client does that reads only once all is sent.
fn post_form(daemon: &Daemon, case: &str, content_type: &str, slice_size: usize, form: &[u8]) -> Answer {
    daemon.server().get(&format!("file_name=a&slice_num=2&slice_size={slice_size}")).expect(200);
    let length = format!("Content-Length: {}", form.len());
    let head = post_head(&slice(0, slice_size), &[&format!("Content-Type: {content_type}"), &length]);
    refused_after_all_was_sent(daemon, case, &head, form)
}

#[test]
fn whoever_sends_all_of_a_form_without_its_boundary_reads_the_answer() {
    let answer = post_form(&Daemon::start(), "no form", FORM.1, BIG, &vec![b'x'; BIG]);
    assert_refused("no form", &answer, 400, "bad_request", &[]);
}

#[test]
fn whoever_sends_all_of_a_form_that_tells_no_boundary_reads_the_answer() {
    let form = [&field(&vec![b'x'; BIG])[..], b"--XX--\r\n"].concat();
    let answer = post_form(&Daemon::start(), "no boundary told", "multipart/form-data", BIG, &form);
    assert_refused("no boundary told", &answer, 400, "bad_request", &[]);
}

#[test]
fn whoever_sends_all_of_a_form_with_a_second_field_reads_the_answer() {
    let form = [&field(b"0123456789")[..], &field(&vec![b'x'; BIG]), b"--XX--\r\n"].concat();
    let answer = post_form(&Daemon::start(), "two fields", FORM.1, 10, &form);
    assert_refused("two fields", &answer, 400, "bad_request", &["more than one field"]);
}

#[test]
fn whoever_sends_all_of_a_form_with_too_long_a_field_reads_the_answer() {
    let form = [&field(&vec![b'x'; BIG])[..], b"--XX--\r\n"].concat();
    let answer = post_form(&Daemon::start(), "too long", FORM.1, 10, &form);
    assert_refused("too long", &answer, 400, "bad_request", &["10"]);
}

#[test]
fn a_refused_request_that_waits_for_continue_is_answered_without_it() {
    let daemon = Daemon::start();
    let server = daemon.server();
    server.get(BEGIN_A).expect(200);
    server.post(&slice(2, 5), b"01234").expect(200);
    for (case, line, status) in [
        ("bad parameter", "POST /big_file_upload?file_name=a&slice_id=x".to_owned(), 400),
        ("unknown upload", format!("POST /big_file_upload?{}", slice(0, 5).replace("=a", "=b")), 404),
        ("slice too long", format!("POST /big_file_upload?{}", slice(0, 5)), 409),
        ("digest conflict", format!("POST /big_file_upload?{}&slice_digest={}", slice(2, 5), hash(b"other")), 409),
        ("held", format!("POST /big_file_upload?{}&slice_digest={}", slice(2, 5), hash(b"01234")), 200),
        ("other method", format!("PUT /big_file_upload?{}", slice(2, 5)), 405),
    ] {
        assert_eq!(first_status(&daemon, &line), status, "{case}");
    }
}

#[test]
fn a_request_to_another_path_that_waits_for_continue_is_answered_without_it() {
    assert_eq!(first_status(&Daemon::start(), "POST /elsewhere"), 404);
}

/// The first status that answers a request of 5 bytes which waits before it sends them.
fn first_status(daemon: &Daemon, line: &str) -> u16 {
    let mut stream = connect(daemon.url());
    let head = format!("{line} HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    Answer::parse(&read_head(&mut stream)).status
}

#[test]
fn an_accepted_slice_that_waits_for_continue_gets_it() {
    let daemon = Daemon::start();
    daemon.server().get(BEGIN_A).expect(200);
    let mut stream = connect(daemon.url());
    stream.write_all(&post_head(&slice(2, 5), &["Expect: 100-continue", "Content-Length: 5"])).unwrap();
    assert_eq!(read_head(&mut stream), "HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"01234").unwrap();
    Answer::parse(&read_answer(&mut stream)).expect(200);
    assert_eq!(daemon.server().get("file_name=a&peek=1").held(), [2]);
}

#[test]
fn a_connection_cut_within_a_body_leaves_nothing() {
    let daemon = Daemon::start();
    let server = daemon.server();
    server.get("file_name=a&slice_num=2&slice_size=4000000").expect(200);
    let form = ["Content-Type: multipart/form-data; boundary=XX", "Content-Length: 4000200"];
    for (case, headers, start) in [
        ("raw", &["Content-Length: 4000000"][..], vec![]),
        ("chunked", &["Transfer-Encoding: chunked"], b"3d0900\r\n".to_vec()),
        ("form", &form, field(b"").strip_suffix(b"\r\n").unwrap().to_vec()),
    ] {
        let mut stream = connect(daemon.url());
        stream.write_all(&post_head(&slice(0, 4_000_000), headers)).unwrap();
        stream.write_all(&start).unwrap();
        stream.write_all(&vec![b'x'; 2_000_000]).unwrap();
        eventually(&format!("{case}: the slice arrives"), || {
            spool_files(&daemon, "a").iter().any(|name| name.starts_with("0.") && name.ends_with(".part"))
        });
        drop(stream);
        eventually_no_slices(&daemon);
        assert_eq!(server.get("file_name=a&peek=1").held(), [0; 0], "{case}");
    }
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let daemon = Daemon::start();
    let get = |name: &str| {
        format!("GET /big_file_upload?file_name={name}&slice_num=2&source=test HTTP/1.1\r\nHost: localhost\r\n")
    };
    let posted = [&post_head("file_name=one&slice_id=0&slice_size=3", &["Content-Length: 3"])[..], b"abc"].concat();
    let last = format!("{}Connection: close\r\n\r\n", get("two"));
    let mut stream = connect(daemon.url());
    stream.write_all(&[get("one").as_bytes(), b"\r\n", &posted, last.as_bytes()].concat()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert_eq!(text.matches("HTTP/1.1 200 OK").count(), 3, "{text}");
    let (one, two) = (text.find(r#""file_name":"one""#).unwrap(), text.find(r#""file_name":"two""#).unwrap());
    assert!(one < two && text.contains(r#""slice_id":0"#), "{text}");
}

#[test]
fn garbage_does_not_bring_the_daemon_down() {
    let daemon = Daemon::start();
    let pid = daemon.pid();
    let long_header = [&b"GET / HTTP/1.1\r\nX: "[..], &vec![b'a'; 1 << 20], b"\r\n\r\n"].concat();
    let bad_bytes = b"GET /big_file_upload?file_name=\xff\xfe&slice_num=1 HTTP/1.1\r\nHost: localhost\r\n\r\n";
    for garbage in [
        &bytes(14, 5000)[..],
        b"\0\0\0\0",
        b"GET\r\n\r\n",
        b"\r\n\r\n\r\n",
        b"GET /big_file_upload?%%%%&&&=== HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"POST /big_file_upload?slice_id=1 HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST /big_file_upload?slice_id=1 HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"POST /big_file_upload HTTP/1.1\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\nzzzz\r\n",
        b"POST /big_file_upload HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffffff\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        bad_bytes,
        &long_header,
    ] {
        let mut stream = connect(daemon.url());
        // Whatever becomes of this connection, it is the daemon that matters.
        let _ = stream.write_all(garbage);
        let _ = stream.shutdown(Shutdown::Write);
        let _ = stream.read_to_end(&mut vec![]);
        daemon.server().get("peek=1").expect(200);
    }
    assert_eq!(daemon.pid(), pid);
    assert!(!daemon.log().contains("panicked"), "{}", daemon.log());
    assert_eq!(daemon.spools(), [""; 0]);
}

/// Who has sent a whole request may close its side, as `nc -N` does, and reads its answer.
#[test]
fn a_client_that_closes_its_side_after_the_request_is_answered() {
    let daemon = Daemon::start();
    let exchange = |sent: &[u8]| {
        let mut stream = connect(daemon.url());
        stream.write_all(sent).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    };
    let get = |target: &str| format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n").into_bytes();
    for round in 0..3 {
        for target in ["/healthz", "/big_file_upload?peek=1", "/big_file_upload?file_name=b&slice_num=3"] {
            assert!(exchange(&get(target)).starts_with("HTTP/1.1 200"), "{target}");
        }
        for len in [1, 5, 300_000, 3 << 20] {
            let (name, content) = (format!("f{round}-{len}"), bytes(1, len));
            let query = format!("file_name={name}&slice_id=0&slice_num=1&slice_size={len}");
            let head = post_head(&query, &[&format!("Content-Length: {len}")]);
            let text = exchange(&[&head[..], &content].concat());
            assert!(text.starts_with("HTTP/1.1 200"), "{len}: {text}");
            eventually("it is finished", || daemon.finished(&name).exists());
            assert!(std::fs::read(daemon.finished(&name)).unwrap() == content, "{len}");
        }
    }
    let two = exchange(&[get("/healthz"), get("/big_file_upload?peek=1")].concat());
    assert_eq!(two.matches("HTTP/1.1 200").count(), 2, "{two}");
    assert_eq!(exchange(b""), "", "nothing was asked");
    for part in [&b"GET /healthz HTTP/1.1\r\nHo"[..], b"GET"] {
        let text = exchange(part);
        assert_refused("half a head", &Answer::parse(&text), 400, "bad_request", &["before the request was whole"]);
    }
    let half =
        [post_head("file_name=h&slice_id=0&slice_num=1&slice_size=10", &["Content-Length: 10"]), b"half".to_vec()];
    assert_refused("half a body", &Answer::parse(&exchange(&half.concat())), 400, "damaged", &["broke off"]);
    assert!(!daemon.finished("h").exists());
}

#[test]
fn whoever_begins_several_slices_says_whose_they_are_unless_it_is_the_oldest_client() {
    let daemon = Daemon::start();
    let server = daemon.server().as_oldest();
    for query in [
        BEGIN_A,
        "file_name=a&slice_size=10",
        "file_name=a&slice_num=3&ranges=1",
        "file_name=a&slice_num=3&wait=1",
        "file_name=a&slice_num=3&anything=new",
    ] {
        assert_refused(query, &server.get(query), 400, "bad_request", &["source", "file_digest"]);
    }
    let query = "file_name=a&slice_id=0&slice_size=10&slice_num=3";
    assert_refused(query, &server.post(query, &[0; 10]), 400, "bad_request", &["source", "file_digest"]);
    assert_eq!(daemon.spools(), [""; 0]);
    // As the message says.
    let digest = blake3::hash(b"x");
    for (name, named) in [("one", "source=s".to_owned()), ("two", format!("file_digest={digest}"))] {
        server.get(&format!("file_name={name}&slice_num=3&slice_size=10&{named}")).expect(200);
    }
    for query in ["file_name=three&slice_num=3", "file_name=four&slice_num=1&file_size=5"] {
        server.get(query).expect(200);
    }
}

#[test]
fn a_finished_file_of_the_same_length_does_not_pass_for_that_of_who_names_nothing() {
    let daemon = Daemon::start();
    let server = daemon.server().as_oldest();
    let content = bytes(6, 3000);
    server.post(&whole("f", 3000), &content).expect(200);
    let query = "file_name=f&slice_num=1&file_size=3000";
    assert_refused(query, &server.get(query), 409, "exists", &["file_digest", "source", "--replace"]);
    let digest = blake3::hash(&content);
    assert_eq!(server.get(&format!("{query}&file_digest={digest}")).expect(200).body["is_uploaded"], 1);
    let other = server.get(&format!("{query}&source=x")).expect(200);
    assert_eq!((&other.body["is_uploaded"], &other.body["same_source"]), (&1.into(), &serde_json::Value::Null));
    // The oldest client knows no better.
    assert_eq!(server.get("file_name=f&slice_num=1").expect(200).body["is_uploaded"], 1);
    assert_eq!(server.get(&format!("{query}&replace=1")).expect(200).body["is_uploaded"], 0);
}

#[test]
fn two_of_the_oldest_clients_at_two_addresses_do_not_fill_one_upload_together() {
    let daemon = Daemon::start();
    let ask = |from: &str, request: &str, body: &[u8]| {
        let socket = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
        let address = |text: &str| SockaddrIn::from(text.parse::<SocketAddrV4>().unwrap());
        bind(socket.as_raw_fd(), &address(&format!("{from}:0"))).unwrap();
        connect_socket(socket.as_raw_fd(), &address(bigup_tests::http::address(daemon.url()))).unwrap();
        let mut stream = TcpStream::from(socket);
        let length = body.len();
        let head = format!("{request} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n");
        stream.write_all(&[head.as_bytes(), body].concat()).unwrap();
        Answer::parse(&read_answer(&mut stream))
    };
    let begin = |from| ask(from, "GET /big_file_upload?file_name=a&slice_num=2", b"");
    let send = |from, id: u64, content: &[u8]| {
        ask(from, &format!("POST /big_file_upload?file_name=a&slice_id={id}&slice_size=4"), content)
    };
    begin("127.0.0.1").expect(200);
    send("127.0.0.1", 0, b"mine").expect(200);
    assert_refused("GET", &begin("127.0.0.2"), 409, "busy", &["another push of a"]);
    assert_refused("POST", &send("127.0.0.2", 1, b"ours"), 409, "conflict", &["another push"]);
    send("127.0.0.1", 1, b"mine").expect(200);
    eventually_finished(&daemon, "a", b"minemine");
}
