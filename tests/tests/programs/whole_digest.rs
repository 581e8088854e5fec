//! The SHA-256 of a whole file (RFC 9530, Repr-Digest): promised before its upload by tus, by the draft of resumable
//! uploads and by PUT, compared before the file is seen, and told to clients that want it.

use bigup_tests::daemon::Daemon;
use bigup_tests::data;
use bigup_tests::process::{eventually, signal_program};
use bigup_tests::tus::{Reply, Tus, base64, file_name};
use nix::sys::signal::Signal;
use sha2::{Digest, Sha256};
use std::fs;

const MIB: usize = 1 << 20;

fn daemon() -> (Daemon, Tus) {
    let daemon = Daemon::with(&["--max-slice-size", "1M"]);
    let tus = Tus::new(daemon.url());
    (daemon, tus)
}

/// The value of Repr-Digest for this content.
fn repr_digest(content: &[u8]) -> String {
    format!("sha-256=:{}:", base64(&Sha256::digest(content)))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The response to the creation of an upload by tus whose client promises this digest.
fn promised_reply(tus: &Tus, name: &str, len: usize, digest: &str) -> Reply {
    let (len, metadata) = (len.to_string(), file_name(name));
    tus.post(&[("Upload-Length", &len), ("Upload-Metadata", &metadata), ("Repr-Digest", digest)])
}

/// An upload by tus whose client promised this digest.
fn promised(tus: &Tus, name: &str, len: usize, digest: &str) -> String {
    promised_reply(tus, name, len, digest).location()
}

/// A request of the draft, all of whose bytes are the file's last ones.
fn last_of_draft(tus: &Tus, method: &str, at: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
    tus.send(method, at, &[&[("Upload-Complete", "?1")], headers].concat(), body)
}

/// The SHA-256 that the server tells of a finished file.
fn told_of(tus: &Tus, name: &str) -> Option<String> {
    let reply = tus.send("HEAD", &format!("/content/{name}"), &[("Want-Repr-Digest", "sha-256=10")], b"").expect(200);
    reply.header("Repr-Digest").map(str::to_owned)
}

fn assert_nothing_is_left(daemon: &Daemon, name: &str) {
    eventually("the upload is gone", || daemon.spools().iter().all(|name| name.starts_with('.')));
    assert!(!daemon.finished(name).exists(), "{name}");
}

#[test]
fn a_file_that_is_as_promised_is_finished_and_its_digest_is_told() {
    let (daemon, tus) = daemon();
    for (i, len) in [1, MIB, 5 * MIB + 7].into_iter().enumerate() {
        let (name, content) = (format!("dir/{len}"), data::bytes(i as u64, len));
        let digest = repr_digest(&content);
        let at = promised(&tus, &name, len, &digest);
        tus.patch(&at, 0, &content[..len / 3]).expect(204);
        // Clients that send a header with each request send this one too.
        let last = tus.patch_with(&at, (len / 3) as u64, &[("Repr-Digest", &digest)], &content[len / 3..]).expect(204);
        assert_eq!(last.header("Repr-Digest"), Some(&*digest));
        assert!(fs::read(daemon.finished(&name)).unwrap() == content);
        assert_eq!(told_of(&tus, &name), Some(digest));
    }
    let unasked = tus.send("HEAD", "/content/dir/1", &[], b"").expect(200);
    assert_eq!(unasked.header("Repr-Digest"), None);
    let part = [("Want-Repr-Digest", "sha-256=1"), ("Range", "bytes=0-0")];
    let part = tus.send("GET", &format!("/content/dir/{MIB}"), &part, b"").expect(206);
    assert!(part.header("Repr-Digest").is_some(), "it is of the whole file: {part:?}");
    // Nobody was interested in the digest of this one, and nobody reads a file for it.
    tus.patch(&tus.create("plain", 3), 0, b"abc").expect(204);
    assert_eq!(told_of(&tus, "plain"), None);
}

#[test]
fn a_file_that_is_not_as_promised_is_never_seen_and_its_upload_ends() {
    let (daemon, tus) = daemon();
    let (content, other) = (data::bytes(1, 3 * MIB + 7), data::bytes(2, 3 * MIB + 7));
    let at = promised(&tus, "a.bin", content.len(), &repr_digest(&other));
    tus.patch(&at, 0, &content[..MIB]).expect(204);
    let refused = tus.patch(&at, MIB as u64, &content[MIB..]).expect(460);
    for sha256 in [&content, &other].map(|bytes| hex(&Sha256::digest(bytes))) {
        assert!(refused.body.contains(&sha256), "both are named: {}", refused.body);
    }
    assert!(refused.body.contains("upload it again"), "{}", refused.body);
    assert_nothing_is_left(&daemon, "a.bin");
    tus.head(&at).expect(410);
    // The advice holds.
    let at = promised(&tus, "a.bin", other.len(), &repr_digest(&other));
    tus.patch(&at, 0, &other).expect(204);
    // A finished file stays as it is where a replacement is not as promised.
    let wrong = [("Repr-Digest", &*repr_digest(&other))];
    let refused = tus.send("PUT", "/content/a.bin", &wrong, &content).expect(400);
    assert!(refused.body.contains("not") && refused.body.contains("as promised"), "{}", refused.body);
    assert!(fs::read(daemon.finished("a.bin")).unwrap() == other);
    // By the draft.
    let refused = last_of_draft(&tus, "POST", "/files/", &wrong, &content).expect(400);
    assert!(refused.body.contains("as promised"), "{}", refused.body);
    assert_eq!(daemon.spools().iter().filter(|name| !name.starts_with('.')).count(), 0);
}

#[test]
fn an_empty_file_is_compared_before_its_name_is_taken() {
    let (daemon, tus) = daemon();
    let wrong = [("Repr-Digest", &*repr_digest(b"else"))];
    let refused = promised_reply(&tus, "empty", 0, wrong[0].1).expect(460);
    for sha256 in [&b""[..], b"else"].map(|bytes| hex(&Sha256::digest(bytes))) {
        assert!(refused.body.contains(&sha256), "both are named: {}", refused.body);
    }
    tus.send("PUT", "/content/empty", &wrong, b"").expect(400);
    last_of_draft(&tus, "POST", "/files/", &wrong, b"").expect(400);
    assert_nothing_is_left(&daemon, "empty");
    promised_reply(&tus, "empty", 0, &repr_digest(b"")).expect(201);
    assert_eq!(fs::read(daemon.finished("empty")).unwrap(), b"");
}

#[test]
fn a_promise_survives_kills_of_daemon_and_merger() {
    let (mut daemon, tus) = daemon();
    let (content, other) = (data::bytes(1, 6 * MIB + 7), data::bytes(2, 6 * MIB + 7));
    for (name, promise, status) in [("right", &content, 204), ("wrong", &other, 460)] {
        let at = promised(&tus, name, content.len(), &repr_digest(promise));
        tus.patch(&at, 0, &content[..4 * MIB]).expect(204);
        let merger = daemon.info(name, "merger_pid").and_then(|pid| pid.parse().ok()).unwrap_or(0);
        signal_program(merger, "bigup-merger", Signal::SIGKILL);
        daemon.kill_9();
        daemon.run();
        let tus = Tus::new(daemon.url());
        let held = tus.offset(&at);
        assert!(held >= 3 * MIB as u64, "{held}");
        tus.patch(&at, held, &content[held as usize..]).expect(status);
        assert_eq!(daemon.finished(name).exists(), status == 204, "{name}");
    }
    assert_nothing_is_left(&daemon, "wrong");
}

/// The merger that finds out need not be one of the daemon that is asked.
#[test]
fn a_broken_promise_is_told_also_where_another_daemons_merger_found_it() {
    let (daemon, tus) = daemon();
    let other_daemon = daemon.another();
    let content = data::bytes(1, 3 * MIB);
    let at = promised(&tus, "a", content.len(), &repr_digest(b"else"));
    tus.patch(&at, 0, &content[..2 * MIB]).expect(204);
    Tus::new(other_daemon.url()).patch(&at, 2 * MIB as u64, &content[2 * MIB..]).expect(460);
    assert_nothing_is_left(&daemon, "a");
}

#[test]
fn a_joined_file_is_compared_as_a_whole() {
    let (daemon, tus) = daemon();
    let content = data::bytes(3, 3 * MIB);
    let join = |name: &str, digest: &str| {
        let paths: Vec<String> = content.chunks(MIB + 5).map(|piece| tus.create_partial(piece.len() as u64)).collect();
        for (path, piece) in paths.iter().zip(content.chunks(MIB + 5)) {
            tus.patch(path, 0, piece).expect(204);
        }
        let list = format!("final;{}", paths.join(" "));
        tus.post(&[("Upload-Concat", &list), ("Upload-Metadata", &file_name(name)), ("Repr-Digest", digest)])
    };
    let joined = join("right", &repr_digest(&content)).expect(201);
    assert_eq!(joined.header("Repr-Digest"), Some(&*repr_digest(&content)));
    join("wrong", &repr_digest(b"else")).expect(460);
    assert_nothing_is_left(&daemon, "wrong");
    let part = [("Upload-Concat", "partial"), ("Upload-Length", "5"), ("Repr-Digest", &*repr_digest(b"12345"))];
    assert!(tus.post(&part).expect(400).body.contains("send it with the final upload"));
}

#[test]
fn a_client_that_wants_the_digest_is_told_it_at_the_end() {
    let (_daemon, tus) = daemon();
    let content = data::bytes(4, 2 * MIB + 1);
    let digest = repr_digest(&content);
    let want = ("Want-Repr-Digest", "sha-256=3, sha-512=10");
    let put = tus.send("PUT", "/content/put", &[want], &content).expect(201);
    assert_eq!(put.header("Repr-Digest"), Some(&*digest));
    let disposition = ("Content-Disposition", "attachment; filename=\"whole\"");
    let whole = last_of_draft(&tus, "POST", "/files/", &[want, disposition], &content).expect(201);
    assert_eq!(whole.header("Repr-Digest"), Some(&*digest));
    // It is said when the upload is created, and told when it ends.
    let headers = [("Upload-Complete", "?0"), want, ("Content-Disposition", "attachment; filename=\"parts\"")];
    let at = tus.send("POST", "/files/", &headers, &content[..MIB]).location();
    let offset = MIB.to_string();
    let rest = [("Content-Type", "application/partial-upload"), ("Upload-Offset", &*offset)];
    let last = last_of_draft(&tus, "PATCH", &at, &rest, &content[MIB..]).expect(200);
    assert_eq!(last.header("Repr-Digest"), Some(&*digest));
    for name in ["put", "whole", "parts"] {
        assert_eq!(told_of(&tus, name), Some(digest.clone()), "{name}");
    }
}

#[test]
fn a_malformed_digest_is_refused_before_anything_is_created() {
    let (daemon, tus) = daemon();
    for wrong in ["sha-256=x", "sha-256=:AAAA:"] {
        let reply = tus.post(&[("Upload-Length", "5"), ("Repr-Digest", wrong)]).expect(400);
        assert!(reply.body.contains("32 bytes in base64"), "{}", reply.body);
        last_of_draft(&tus, "POST", "/files/", &[("Repr-Digest", wrong)], b"abc").expect(400);
        tus.send("PUT", "/content/x", &[("Repr-Digest", wrong)], b"abc").expect(400);
    }
    // Other algorithms are passed over, as the RFC permits.
    let at = promised(&tus, "other", 3, "md5=:AAAA:");
    tus.patch(&at, 0, b"abc").expect(204);
    assert_eq!(daemon.spools().iter().filter(|name| !name.starts_with('.')).count(), 0);
}
