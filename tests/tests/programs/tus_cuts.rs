//! Requests of tus that are cut off, that come at once, and that are checked: nothing that arrived is lost or mixed.

use bigup_core::protocol::name::FileName;
use bigup_core::protocol::plan::Plan;
use bigup_core::storage::data_dir::DataDir;
use bigup_core::storage::spool::{Spool, UploadId, UploadRecord};
use bigup_tests::daemon::Daemon;
use bigup_tests::data::{self, Dice};
use bigup_tests::process::{PATIENCE, eventually, signal_program, within};
use bigup_tests::tus::{Reply, Tus, base64, close, reset};
use nix::sys::signal::Signal;
use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

const MIB: usize = 1 << 20;

/// Bytes of a slice that bodies are cut into, without other settings.
const SLICE: usize = 8 * MIB;

/// Bytes of a slice with [`SMALL_SLICES`].
const SMALL: usize = MIB;

const SMALL_SLICES: [&str; 2] = ["--max-slice-size", "1M"];

/// Seconds between two notes of how much of a slice came, and time for a slow machine.
const LOST_BY_A_KILL: Duration = Duration::from_secs(5);

/// A moment, on a slow machine.
const A_MOMENT: Duration = Duration::from_secs(8);

fn sent(stream: &mut TcpStream, bytes: &[u8]) {
    stream.write_all(bytes).expect("the daemon takes bytes");
}

fn assert_finished(daemon: &Daemon, name: &str, content: &[u8]) {
    let found = fs::read(daemon.finished(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
    assert!(found == content, "{name} has {} bytes, not the {} that were sent", found.len(), content.len());
}

/// Sends the rest behind what is held.
fn finish(daemon: &Daemon, tus: &Tus, at: &str, name: &str, content: &[u8]) {
    let mut offset = tus.offset(at) as usize;
    while offset < content.len() {
        let reply = tus.patch(at, offset as u64, &content[offset..]);
        if reply.status == 409 {
            // A request that was cut off may come to the daemon behind the HEAD: its bytes count.
            offset = reply.offset().expect("a refusal tells the offset") as usize;
        } else {
            offset = reply.expect(204).offset().expect("it tells the offset") as usize;
        }
    }
    assert_finished(daemon, name, content);
    assert_eq!(tus.offset(at), content.len() as u64);
}

#[test]
fn a_body_that_its_client_closes_is_kept_to_the_byte() {
    let daemon = Daemon::start();
    let (tus, content, mut dice) = (Tus::new(daemon.url()), data::bytes(1, 64 * MIB), Dice::new(1));
    let at = tus.create("a", content.len() as u64);
    let mut held = 0;
    for round in 0..8 {
        let left = (content.len() - held) as u64;
        let len = match round {
            // Up to the end of a slice, and one byte more and less.
            0..3 => SLICE - 1 + round,
            _ => dice.below(left / 2) as usize + 1,
        };
        let mut stream = if round % 2 == 0 {
            tus.begin_patch(&at, held as u64, left)
        } else {
            tus.begin_patch_with(&at, held as u64, &[("Transfer-Encoding", "chunked")])
        };
        if round % 2 == 1 {
            sent(&mut stream, format!("{left:x}\r\n").as_bytes());
        }
        sent(&mut stream, &content[held..held + len]);
        held += len;
        close(stream);
        // The end of the connection is seen behind all bytes. HEAD comes at once, and ends the request where it is.
        eventually("all of it is held", || {
            let offset = tus.offset(&at) as usize;
            assert!(offset <= held, "{offset} of {held}");
            offset == held || {
                // HEAD has ended the request before it had read all. The rest is sent anew.
                held = offset;
                true
            }
        });
    }
    assert!(held > 0);
    finish(&daemon, &tus, &at, "a", &content);
    daemon.eventually_clean();
}

#[test]
fn a_body_that_breaks_off_unasked_is_kept_to_the_byte() {
    let daemon = Daemon::start();
    let (tus, content, mut dice) = (Tus::new(daemon.url()), data::bytes(2, 64 * MIB), Dice::new(2));
    for name in ["closed", "reset"] {
        let at = tus.create(name, content.len() as u64);
        let mut held = 0;
        for _ in 0..5 {
            let left = content.len() - held;
            let len = dice.below(left as u64 / 2) as usize + 1;
            let mut stream = tus.begin_patch(&at, held as u64, left as u64);
            sent(&mut stream, &content[held..held + len]);
            if name == "reset" {
                reset(&stream);
            }
            drop(stream);
            // Nobody asks until the request has ended by itself.
            eventually("the request has ended", || is_at_rest(&daemon, name));
            let offset = tus.offset(&at) as usize;
            assert!(offset <= held + len, "{offset} of {}", held + len);
            assert!(name == "reset" || offset == held + len, "{offset} of {}", held + len);
            assert!(offset >= held, "{offset} after {held}");
            held = offset;
        }
        finish(&daemon, &tus, &at, name, &content);
    }
    daemon.eventually_clean();
}

fn spool_of(daemon: &Daemon, name: &str) -> Spool {
    Spool::of(&DataDir::open(&daemon.data()).unwrap(), &UploadId::of_name(&FileName::new(name).unwrap()))
}

/// No request appends to the upload of `name`: its tail is free.
fn is_at_rest(daemon: &Daemon, name: &str) -> bool {
    let spool = spool_of(daemon, name);
    let quiet = || !spool.is_tail_locked().unwrap();
    // A request between two slices has none for a moment.
    (0..10).all(|_| {
        std::thread::sleep(Duration::from_millis(20));
        quiet()
    })
}

#[test]
fn a_client_that_stalls_is_ended_in_time_and_all_that_came_is_kept() {
    let daemon = Daemon::with(&["--body-timeout", "2s"]);
    let (tus, content) = (Tus::new(daemon.url()), data::bytes(3, 20 * MIB));
    let at = tus.create("a", content.len() as u64);
    let mut stream = tus.begin_patch(&at, 0, content.len() as u64);
    sent(&mut stream, &content[..SLICE + 12345]);
    assert_eq!(Reply::read(&mut stream, "PATCH").status, 408);
    assert_eq!(tus.offset(&at), SLICE as u64 + 12345);
    finish(&daemon, &tus, &at, "a", &content);
}

#[test]
fn a_newcomer_is_never_locked_out_by_a_connection_that_hangs() {
    let daemon = Daemon::start();
    let (tus, content) = (Tus::new(daemon.url()), data::bytes(4, 40 * MIB));
    for (name, cut) in [("start", 0), ("within", 12345), ("slice", SLICE), ("later", 3 * SLICE + 1)] {
        for head_first in [true, false] {
            let name = format!("{name}-{head_first}");
            let at = tus.create(&name, content.len() as u64);
            let mut hangs = tus.begin_patch(&at, 0, content.len() as u64);
            sent(&mut hangs, &content[..cut]);
            // All of it is taken before the newcomer comes, or the newcomer ends that.
            std::thread::sleep(Duration::from_millis(300));
            let began = Instant::now();
            let held = if head_first {
                tus.offset(&at)
            } else {
                tus.patch(&at, content.len() as u64, b"").expect(409).offset().expect("the offset is told")
            };
            assert!(held as usize <= cut, "{held} of {cut}");
            tus.patch(&at, held, &content[held as usize..]).expect(204);
            assert!(began.elapsed() < A_MOMENT, "{name}: {:?}", began.elapsed());
            // Whatever it sends now is no part of the file.
            let _ = hangs.write_all(&vec![0xff; MIB]);
            assert_finished(&daemon, &name, &content);
        }
    }
}

#[test]
fn a_newcomer_at_another_daemon_is_not_locked_out_either() {
    let daemon = Daemon::start();
    let other_daemon = daemon.another();
    let (here, there) = (Tus::new(daemon.url()), Tus::new(other_daemon.url()));
    let content = data::bytes(14, 20 * MIB);
    for (ask, cut) in [("HEAD", 0), ("PATCH", 12345), ("HEAD", SLICE + 1), ("DELETE", 12345)] {
        let name = format!("{ask}-{cut}");
        let at = here.create(&name, content.len() as u64);
        let mut hangs = here.begin_patch(&at, 0, content.len() as u64);
        sent(&mut hangs, &content[..cut]);
        eventually("the request has the tail", || spool_of(&daemon, &name).is_tail_locked().unwrap());
        let held = match ask {
            "HEAD" => there.offset(&at),
            "PATCH" => there.patch(&at, content.len() as u64, b"").expect(409).offset().expect("it is told"),
            _ => {
                there.delete(&at).expect(204);
                continue;
            }
        };
        assert!(held as usize <= cut, "{held} of {cut}");
        there.patch(&at, held, &content[held as usize..]).expect(204);
        // It is not a time-out of its body that ended the older request.
        assert_eq!(Reply::read(&mut hangs, "PATCH").status, 409);
        assert_finished(&daemon, &name, &content);
    }
}

#[test]
fn a_connection_that_hangs_at_the_very_end_holds_up_nobody() {
    let daemon = Daemon::with(&SMALL_SLICES);
    let tus = Tus::new(daemon.url());
    for len in [9, SMALL, SMALL + 9, 2 * SMALL] {
        for ask in ["HEAD", "PATCH", "close"] {
            let (name, content) = (format!("{len}-{ask}"), data::bytes(5, len));
            let at = tus.create(&name, len as u64);
            let mut hangs = tus.begin_patch_with(&at, 0, &[("Transfer-Encoding", "chunked")]);
            // The last byte came, the end of the body did not.
            sent(&mut hangs, format!("{len:x}\r\n").as_bytes());
            sent(&mut hangs, &content);
            std::thread::sleep(Duration::from_millis(300));
            let began = Instant::now();
            match ask {
                "HEAD" => assert_eq!(tus.offset(&at), len as u64),
                "PATCH" => drop(tus.patch(&at, len as u64, b"").expect(204)),
                _ => {
                    drop(hangs);
                    eventually("it is finished", || daemon.finished(&name).exists());
                }
            }
            assert!(began.elapsed() < A_MOMENT, "{name}: {:?}", began.elapsed());
            assert_finished(&daemon, &name, &content);
        }
    }
}

#[test]
fn of_many_requests_at_once_one_appends_at_a_time() {
    let daemon = Daemon::with(&SMALL_SLICES);
    let (tus, content) = (Tus::new(daemon.url()), data::bytes(6, 6 * MIB + 77));
    let at = tus.create("a", content.len() as u64);
    let deadline = Instant::now() + PATIENCE;
    while tus.offset(&at) < content.len() as u64 {
        assert!(Instant::now() < deadline, "forty clients get on with none of their requests");
        let offset = tus.offset(&at) as usize;
        std::thread::scope(|scope| {
            let each: Vec<_> = (0..40)
                .map(|i| {
                    let (tus, at, content) = (&tus, &at, &content);
                    scope.spawn(move || {
                        // Each sends another number of bytes.
                        let end = content.len().min(offset + 1 + i * 40_000);
                        tus.patch(at, offset as u64, &content[offset..end])
                    })
                })
                .collect();
            for reply in each.into_iter().map(|one| one.join().unwrap()) {
                assert!(matches!(reply.status, 204 | 409), "{reply:?}");
                let told = reply.offset().expect("each response tells the offset");
                assert!(told as usize >= offset && told as usize <= content.len(), "{reply:?}");
            }
        });
    }
    finish(&daemon, &tus, &at, "a", &content);
}

#[test]
fn what_head_tells_while_bytes_come_is_where_the_next_request_goes_on() {
    let daemon = Daemon::with(&SMALL_SLICES);
    let (tus, content, mut dice) = (Tus::new(daemon.url()), data::bytes(7, 48 * MIB), Dice::new(7));
    let at = tus.create("a", content.len() as u64);
    let mut held = 0;
    while held < content.len() {
        let rest = &content[held..];
        let mut stream = tus.begin_patch(&at, held as u64, rest.len() as u64);
        let (pause, is_checked) = (dice.below(60), dice.below(2) == 0);
        let told = std::thread::scope(|scope| {
            scope.spawn(|| {
                let _ = stream.write_all(rest);
            });
            std::thread::sleep(Duration::from_millis(pause));
            tus.offset(&at)
        });
        assert!(told as usize >= held, "{told} after {held}");
        held = told as usize;
        if is_checked && held < content.len() {
            // Nothing came behind it.
            assert_eq!(tus.patch(&at, told, &content[held..held + 1]).expect(204).offset(), Some(told + 1));
            held += 1;
        }
    }
    finish(&daemon, &tus, &at, "a", &content);
}

#[test]
fn a_killed_daemon_loses_no_more_than_a_few_seconds_of_a_slice() {
    let mut daemon = Daemon::start();
    let (tus, content) = (Tus::new(daemon.url()), data::bytes(8, 64 * MIB));
    let at = tus.create("a", content.len() as u64);
    // What was acknowledged is there.
    tus.patch(&at, 0, &content[..5 * MIB + 1]).expect(204);
    daemon.kill_9();
    daemon.run();
    assert_eq!(tus.offset(&at), 5 * MIB as u64 + 1);
    // Whole slices are there.
    let mut stream = tus.begin_patch(&at, 5 * MIB as u64 + 1, content.len() as u64 - 5 * MIB as u64 - 1);
    sent(&mut stream, &content[5 * MIB + 1..3 * SLICE + MIB]);
    eventually("three slices are held", || {
        daemon.info("a", "curr_merge_slice_id").is_some_and(|n| n.parse::<u64>().unwrap() >= 3)
    });
    daemon.kill_9();
    drop(stream);
    daemon.run();
    let offset = tus.offset(&at) as usize;
    assert!((3 * SLICE..=3 * SLICE + MIB).contains(&offset), "{offset}");
    // Of a slice that comes slowly, all but the last seconds is there.
    let mut stream = tus.begin_patch(&at, offset as u64, (content.len() - offset) as u64);
    let (began, mut sent_by, mut end) = (Instant::now(), vec![], offset);
    while began.elapsed() < 3 * LOST_BY_A_KILL {
        let piece = 64 << 10;
        sent(&mut stream, &content[end..end + piece]);
        end += piece;
        sent_by.push((Instant::now(), end));
        std::thread::sleep(Duration::from_millis(250));
    }
    daemon.kill_9();
    let killed = Instant::now();
    daemon.run();
    let before = |(when, _): &&(Instant, usize)| killed - *when > 2 * LOST_BY_A_KILL;
    let (_, least) = sent_by.iter().rfind(before).expect("it took longer than that");
    let offset = tus.offset(&at) as usize;
    assert!((*least..=end).contains(&offset), "{offset}: {least} were sent ten seconds before, {end} in all");
    finish(&daemon, &tus, &at, "a", &content);
    daemon.eventually_clean();
}

#[test]
fn a_request_that_was_killed_with_all_bytes_held_is_ended_by_the_next_question() {
    let mut daemon = Daemon::with(&SMALL_SLICES);
    let tus = Tus::new(daemon.url());
    for len in [9, SMALL, 2 * SMALL + 9] {
        for ask in ["HEAD", "PATCH"] {
            let (name, content) = (format!("{len}-{ask}"), data::bytes(15, len));
            let at = tus.create_deferred(&name);
            tus.patch(&at, 0, &content).expect(204);
            daemon.kill_9();
            // The daemon was killed between the note of the length and that of the slice.
            let mut locked = spool_of(&daemon, &name).lock().unwrap().unwrap();
            let known = locked.upload().clone();
            let told = Plan::new(None, known.plan.slice_size, Some(len as u64)).unwrap();
            locked.save(UploadRecord { plan: known.plan.bind(&told).unwrap(), ..known }).unwrap();
            drop(locked);
            daemon.run();
            if ask == "PATCH" {
                assert_eq!(tus.patch(&at, len as u64, b"").expect(204).offset(), Some(len as u64));
            }
            let reply = tus.head(&at).expect(200);
            assert_eq!((reply.offset(), reply.header("Upload-Length")), (Some(len as u64), Some(&*len.to_string())));
            assert_finished(&daemon, &name, &content);
        }
    }
}

#[test]
fn killed_mergers_and_daemons_change_nothing_of_a_file() {
    let mut daemon = Daemon::with(&SMALL_SLICES);
    let (tus, content, mut dice) = (Tus::new(daemon.url()), data::bytes(9, 64 * MIB), Dice::new(9));
    let at = tus.create("a", content.len() as u64);
    let (mut held, mut kills) = (0, 0);
    while held < content.len() {
        let rest = &content[held..];
        let mut stream = tus.begin_patch(&at, held as u64, rest.len() as u64);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let _ = stream.write_all(rest);
                let _ = Reply::try_read(&mut stream, "PATCH");
            });
            std::thread::sleep(Duration::from_millis(5 + dice.below(80)));
            match dice.below(3) {
                0 if kills < 12 => {
                    daemon.kill_9();
                    daemon.run();
                    kills += 1;
                }
                _ => {
                    if let Some(pid) = daemon.info("a", "merger_pid").and_then(|pid| pid.parse().ok()) {
                        signal_program(pid, "bigup-merger", Signal::SIGKILL);
                    }
                }
            }
        });
        let told = tus.offset(&at) as usize;
        assert!(told >= held, "{told} after {held}");
        held = told;
    }
    finish(&daemon, &tus, &at, "a", &content);
    daemon.eventually_clean();
}

/// The checksum of `content` as a header.
fn blake3_of(content: &[u8]) -> String {
    format!("blake3 {}", base64(blake3::hash(content).as_bytes()))
}

#[test]
fn a_checked_body_of_several_slices_is_kept_whole_or_not_at_all() {
    let daemon = Daemon::with(&SMALL_SLICES);
    let (tus, content) = (Tus::new(daemon.url()), data::bytes(10, 9 * MIB + 5));
    let at = tus.create("a", content.len() as u64);
    tus.patch(&at, 0, &content[..100]).expect(204);
    let mut held = 100;
    for len in [1, SMALL - 101, 3 * SMALL + 7, 2 * SMALL - 7, content.len() - 6 * SMALL] {
        let body = &content[held..held + len];
        let sum = blake3_of(body);
        let wrong = blake3_of(b"another");
        assert_eq!(tus.patch_with(&at, held as u64, &[("Upload-Checksum", &wrong)], body).expect(460).offset(), None);
        assert_eq!(tus.offset(&at), held as u64, "of {len} bytes with a wrong checksum none is kept");
        // Cut off at its middle, and before its very end.
        for cut in [len / 2, len - 1] {
            let headers = [("Content-Length", &*len.to_string()), ("Upload-Checksum", &sum)];
            let mut stream = tus.begin_patch_with(&at, held as u64, &headers);
            sent(&mut stream, &body[..cut]);
            drop(stream);
            eventually("the request has ended", || is_at_rest(&daemon, "a"));
            assert_eq!(tus.offset(&at), held as u64, "of {cut} of {len} bytes none is kept");
        }
        let reply = tus.patch_with(&at, held as u64, &[("Upload-Checksum", &sum)], body).expect(204);
        held += len;
        assert_eq!(reply.offset(), Some(held as u64));
    }
    finish(&daemon, &tus, &at, "a", &content);
    daemon.eventually_clean();
}

/// Sends a body in chunks of `by` bytes, whose checksum is announced behind it, and then these fields.
fn patch_with_trailer(tus: &Tus, at: &str, offset: u64, body: &[u8], by: usize, fields: &str) -> Reply {
    let headers = [("Transfer-Encoding", "chunked"), ("Trailer", "x, Upload-Checksum")];
    let mut stream = tus.begin_patch_with(at, offset, &headers);
    for piece in body.chunks(by) {
        sent(&mut stream, format!("{:x}\r\n", piece.len()).as_bytes());
        sent(&mut stream, piece);
        sent(&mut stream, b"\r\n");
    }
    sent(&mut stream, format!("0\r\n{fields}\r\n").as_bytes());
    Reply::read(&mut stream, "PATCH")
}

#[test]
fn a_checksum_can_come_behind_the_body() {
    let daemon = Daemon::with(&SMALL_SLICES);
    let (tus, content) = (Tus::new(daemon.url()), data::bytes(13, 5 * MIB + 5));
    let at = tus.create("a", content.len() as u64);
    let mut held = 0;
    for len in [1, SMALL - 1, 2 * SMALL + 7, content.len() - 3 * SMALL - 7] {
        let (body, offset) = (&content[held..held + len], held as u64);
        let send = |fields: &str| patch_with_trailer(&tus, &at, offset, body, 100_000, fields);
        let wrong = format!("Upload-Checksum: {}\r\n", blake3_of(b"another"));
        send(&wrong).expect(460);
        let missing = send("X: y\r\n").expect(400);
        assert!(missing.body.contains("is not there"), "{missing:?}");
        send("Upload-Checksum: sha3 AAAA\r\n").expect(400);
        assert_eq!(tus.offset(&at), offset, "of {len} bytes without a right checksum none is kept");
        held += len;
        let right = format!("upload-checksum: {}\r\n", blake3_of(body));
        assert_eq!(send(&right).expect(204).offset(), Some(held as u64));
    }
    finish(&daemon, &tus, &at, "a", &content);
    daemon.eventually_clean();
}

#[test]
fn a_checksum_behind_the_body_is_by_any_algorithm_and_counts_only_if_it_was_announced() {
    let daemon = Daemon::start();
    let tus = Tus::new(daemon.url());
    // Of "abc", as the standards tell them.
    for (i, sum) in [
        "sha1 qZk+NkcGgWq6PiVxeFDCbJzQ2J0=",
        "sha256 ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=",
        "sha512 3a81oZNherrMQXNJriBBMRLm+k6JqX6iCp7u5ktV05ohkpkqJ0/BqDa6PCOj/uu9RU1EI2Q86A4qmslPpUyknw==",
        "md5 kAFQmDzST7DWlj99KOF/cg==",
        "crc32 NSRBwg==",
        "blake3 ZDezrDhGUTP/tjt1JzqNtUjFWEZdedsD/TWcbNW9nYU=",
    ]
    .into_iter()
    .enumerate()
    {
        let at = tus.create(&format!("{i}"), 3);
        let wrong = sum.replace(' ', " AAAA");
        assert!(matches!(tus.patch_with(&at, 0, &[("Upload-Checksum", &wrong)], b"abc").status, 400 | 460), "{sum}");
        patch_with_trailer(&tus, &at, 0, b"abc", 2, &format!("Upload-Checksum: {sum}\r\n")).expect(204);
        assert_eq!(std::fs::read(daemon.finished(&format!("{i}"))).unwrap(), b"abc");
    }
    // A field that nobody announced may be dropped on the way, and proves nothing (RFC 9110, section 6.5.1).
    let at = tus.create("unannounced", 3);
    let mut stream = tus.begin_patch_with(&at, 0, &[("Transfer-Encoding", "chunked")]);
    sent(&mut stream, b"3\r\nabc\r\n0\r\nUpload-Checksum: md5 AAAA\r\n\r\n");
    Reply::read(&mut stream, "PATCH").expect(204);
    // Both ways at once make no sense.
    let at = tus.create("both", 3);
    let headers = [("Trailer", "Upload-Checksum"), ("Upload-Checksum", "crc32 NSRBwg==")];
    assert!(tus.patch_with(&at, 0, &headers, b"abc").expect(400).body.contains("announced"));
}

#[test]
fn a_checked_body_with_too_many_slices_is_refused_and_nothing_of_it_kept() {
    let daemon = Daemon::with(&SMALL_SLICES);
    let (tus, content) = (Tus::new(daemon.url()), data::bytes(11, 140 * MIB));
    let at = tus.create("a", content.len() as u64);
    let sum = blake3_of(&content);
    let reply = tus.patch_with(&at, 0, &[("Upload-Checksum", &sum)], &content).expect(413);
    assert!(reply.body.contains("shorter"), "{reply:?}");
    assert_eq!(tus.offset(&at), 0);
    let half = &content[..100 * MIB];
    tus.patch_with(&at, 0, &[("Upload-Checksum", &blake3_of(half))], half).expect(204);
    finish(&daemon, &tus, &at, "a", &content);
}

#[test]
fn a_checked_body_that_is_ended_by_a_newcomer_is_not_mixed_with_its() {
    let daemon = Daemon::with(&SMALL_SLICES);
    let (tus, content) = (Tus::new(daemon.url()), data::bytes(12, 30 * MIB));
    for pause in [0, 5, 20, 60, 120] {
        let name = format!("a{pause}");
        let at = tus.create(&name, content.len() as u64);
        let sum = blake3_of(&content[..29 * MIB]);
        std::thread::scope(|scope| {
            let older = scope.spawn(|| tus.patch_with(&at, 0, &[("Upload-Checksum", &sum)], &content[..29 * MIB]));
            std::thread::sleep(Duration::from_millis(pause));
            let told = tus.offset(&at);
            // Once the checksum of all is right, the slices are stored one after the other.
            assert!((told as usize).is_multiple_of(SMALL), "whole slices: {told}");
            let reply = tus.patch(&at, told, &content[told as usize..]);
            // The older one may have begun only now.
            assert!(matches!(reply.status, 204 | 409), "{reply:?}");
            older.join().unwrap();
        });
        finish(&daemon, &tus, &at, &name, &content);
    }
    within(PATIENCE, "nothing is left", || daemon.spools().is_empty());
}
