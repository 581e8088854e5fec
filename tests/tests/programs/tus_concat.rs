//! tus 1.0.0, "Concatenation": files joined from partial uploads, also while those still run.

use bigup_tests::daemon::Daemon;
use bigup_tests::data;
use bigup_tests::process::{eventually, signal_program};
use bigup_tests::tus::{Reply, Tus, base64, file_name};
use nix::sys::signal::Signal;
use std::fs;

const MIB: usize = 1 << 20;

/// Bytes of a slice that bodies are cut into.
const SLICE: usize = MIB;

fn daemon(arguments: &[&str]) -> (Daemon, Tus) {
    let daemon = Daemon::with(&[&["--max-slice-size", "1M"], arguments].concat());
    let tus = Tus::new(daemon.url());
    (daemon, tus)
}

fn assert_finished(daemon: &Daemon, name: &str, content: &[u8]) {
    let found = fs::read(daemon.finished(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
    assert!(found == content, "{name} has {} bytes, not the {} that were sent", found.len(), content.len());
}

/// A partial upload for each of the pieces, in their order.
fn partials(tus: &Tus, pieces: &[&[u8]]) -> Vec<String> {
    pieces.iter().map(|piece| tus.create_partial(piece.len() as u64)).collect()
}

/// The same with all bytes sent.
fn sent_partials(tus: &Tus, pieces: &[&[u8]]) -> Vec<String> {
    let paths = partials(tus, pieces);
    for (path, piece) in paths.iter().zip(pieces) {
        tus.patch(path, 0, piece).expect(204);
    }
    paths
}

/// The content in pieces that begin at these offsets.
fn cut<'a>(content: &'a [u8], at: &[usize]) -> Vec<&'a [u8]> {
    let ends = at[1..].iter().copied().chain([content.len()]);
    at.iter().zip(ends).map(|(start, end)| &content[*start..end]).collect()
}

#[test]
fn a_file_is_joined_from_its_parts_in_the_order_of_the_list() {
    let (daemon, tus) = daemon(&[]);
    let content = data::bytes(1, 7 * SLICE + 321);
    // Parts of no slice, of less than one, of whole ones, and with a rest.
    let pieces = cut(&content, &[0, 0, 5, 5 + 2 * SLICE, 5 * SLICE + 1]);
    let paths = sent_partials(&tus, &pieces);
    for (path, piece) in paths.iter().zip(&pieces) {
        let reply = tus.head(path).expect(200);
        assert_eq!(reply.offset(), Some(piece.len() as u64), "{reply:?}");
        assert_eq!(reply.header("Upload-Concat"), Some("partial"), "{reply:?}");
    }
    let at = tus.join("dir/a.bin", &paths).location();
    assert!(at.ends_with("/dir/a.bin"), "{at}");
    assert_finished(&daemon, "dir/a.bin", &content);
    let reply = tus.head(&at).expect(200);
    let len = content.len().to_string();
    assert_eq!((reply.header("Upload-Offset"), reply.header("Upload-Length")), (Some(&*len), Some(&*len)));
    // Nothing is left of the parts, and a client that asks for one once more is told that it has all of it.
    assert_eq!(daemon.spools(), Vec::<String>::new());
    assert_eq!(tus.offset(&paths[4]), pieces[4].len() as u64);
    assert_eq!(tus.join("dir/a.bin", &paths).location(), at, "asked once more");
    assert_finished(&daemon, "dir/a.bin", &content);
    daemon.eventually_clean();
}

#[test]
fn the_addresses_of_parts_may_be_absolute() {
    let (daemon, tus) = daemon(&[]);
    let content = data::bytes(2, 30);
    let paths = sent_partials(&tus, &cut(&content, &[0, 10, 20]));
    let urls: Vec<String> = [("https://files.example/up", 0), (daemon.url(), 1), ("", 2)]
        .map(|(before, index): (&str, usize)| format!("{before}{}", paths[index]))
        .into();
    tus.join("a", &urls).expect(201);
    assert_finished(&daemon, "a", &content);
}

#[test]
fn a_file_is_joined_and_merged_while_its_parts_still_run() {
    let (daemon, tus) = daemon(&[]);
    let content = data::bytes(3, 9 * SLICE + 5);
    let pieces = cut(&content, &[0, 3 * SLICE + 7, 6 * SLICE]);
    let paths = partials(&tus, &pieces);
    tus.patch(&paths[2], 0, &pieces[2][..SLICE + 3]).expect(204);
    let at = tus.join("a", &paths).location();
    let reply = tus.head(&at).expect(200);
    assert_eq!((reply.offset(), reply.header("Upload-Length")), (None, Some(&*content.len().to_string())), "{reply:?}");
    assert_eq!(reply.header("Upload-Concat"), Some(&*format!("final;{}", paths.join(" "))));
    // Nothing is appended to it, and its parts do not go by themselves.
    tus.patch(&at, 0, b"x").expect(403);
    tus.delete(&paths[0]).expect(409);
    // The bytes of the first part are merged before the others came.
    tus.patch(&paths[0], 0, pieces[0]).expect(204);
    eventually("the first slices are merged", || daemon.info("a", "curr_merge_slice_id").as_deref() == Some("4"));
    assert_eq!(tus.offset(&paths[0]), pieces[0].len() as u64);
    assert_eq!(tus.offset(&paths[2]), SLICE as u64 + 3, "also bytes that are no slice yet");
    tus.patch(&paths[2], SLICE as u64 + 3, &pieces[2][SLICE + 3..]).expect(204);
    assert!(!daemon.finished("a").exists());
    tus.patch(&paths[1], 0, pieces[1]).expect(204);
    eventually("it is finished", || tus.head(&at).offset() == Some(content.len() as u64));
    assert_finished(&daemon, "a", &content);
    daemon.eventually_clean();
}

#[test]
fn a_part_alone_is_no_file() {
    let (daemon, tus) = daemon(&["--expire-after", "2s"]);
    let paths = sent_partials(&tus, &[b"12345", &data::bytes(4, 3 * SLICE)]);
    assert_eq!(fs::read_dir(daemon.data().join("files")).unwrap().count(), 0);
    eventually("they expire", || paths.iter().all(|path| matches!(tus.head(path).status, 404 | 410)));
    assert_eq!(fs::read_dir(daemon.data().join("files")).unwrap().count(), 0);
}

#[test]
fn lists_that_make_no_sense_are_refused_and_leave_the_parts_alone() {
    let (daemon, tus) = daemon(&[]);
    let content = data::bytes(5, 2 * SLICE + 1);
    let pieces = cut(&content, &[0, SLICE - 1]);
    let paths = sent_partials(&tus, &pieces);
    let whole = tus.create("whole", 5);
    let deferred = tus.post(&[("Upload-Concat", "partial"), ("Upload-Defer-Length", "1")]).location();
    let stranger = format!("/files/{}/x", "0".repeat(32));
    let list = |paths: &[&String]| paths.iter().map(|path| path.as_str()).collect::<Vec<_>>().join(" ");
    for (concat, status) in [
        ("", 400),
        ("partially", 400),
        ("final", 400),
        ("final;", 400),
        ("final;/files/x", 400),
        ("final;/files/../../etc/passwd", 400),
        (&format!("final;/files/{}/%2e%2e/x", "0".repeat(32)), 400),
        (&format!("final;{}", list(&[&paths[0], &paths[0]])), 400),
        (&format!("final;{}", list(&[&paths[0], &whole])), 400),
        (&format!("final;{}", list(&[&paths[0], &deferred])), 400),
        (&format!("final;{}", list(&[&paths[0], &stranger])), 404),
        (&format!("final;{}", [paths[0].as_str(); 300].join(" ")), 400),
    ] {
        tus.post(&[("Upload-Concat", concat), ("Upload-Metadata", &file_name("a"))]).expect(status);
        assert!(!daemon.finished("a").exists() && !daemon.spools().contains(&"a".to_owned()), "{concat}");
    }
    let list = format!("final;{}", paths.join(" "));
    tus.post(&[("Upload-Concat", &list), ("Upload-Length", "5")]).expect(400);
    tus.join("a", &paths).expect(201);
    assert_finished(&daemon, "a", &content);
}

#[test]
fn a_part_is_of_one_file() {
    let (daemon, tus) = daemon(&[]);
    let (one, other) = (data::bytes(6, SLICE), data::bytes(7, 2 * SLICE));
    let paths = partials(&tus, &[&one, &other]);
    let at = tus.join("a", &paths).location();
    let reply = tus.join("b", &paths[1..]).expect(409);
    assert!(reply.body.contains("part of another file"), "{reply:?}");
    assert_eq!(tus.join("c", &paths).location(), at, "the same list is the same upload, whatever it is called");
    assert!(!daemon.spools().iter().any(|spool| spool == "b" || spool == "c"));
    tus.patch(&paths[0], 0, &one).expect(204);
    tus.patch(&paths[1], 0, &other).expect(204);
    eventually("it is finished", || tus.head(&at).offset() == Some(3 * SLICE as u64));
    assert_finished(&daemon, "a", &[one, other].concat());
}

#[test]
fn forty_that_join_at_once_are_told_one_file() {
    let (daemon, tus) = daemon(&[]);
    fs::create_dir_all(daemon.data().join("files")).unwrap();
    fs::write(daemon.finished("a"), "another").unwrap();
    let content = data::bytes(8, 4 * SLICE + 9);
    let paths = sent_partials(&tus, &cut(&content, &[0, SLICE, 2 * SLICE + 5]));
    let told: Vec<Reply> = std::thread::scope(|threads| {
        let join = || tus.join("a", &paths);
        let all: Vec<_> = (0..40).map(|_| threads.spawn(join)).collect();
        all.into_iter().map(|one| one.join().unwrap()).collect()
    });
    let at = told[0].clone().location();
    assert!(told.into_iter().all(|reply| reply.location() == at));
    assert_finished(&daemon, "a (2)", &content);
    assert!(!daemon.finished("a (3)").exists());
    assert_eq!(fs::read(daemon.finished("a")).unwrap(), b"another");
}

#[test]
fn of_two_lists_that_share_a_part_one_is_joined() {
    let (daemon, tus) = daemon(&[]);
    for round in 0..10 {
        let content = data::bytes(round, 2 * SLICE + 11);
        let mut paths = sent_partials(&tus, &cut(&content, &[0, SLICE - 3]));
        let backwards = vec![paths[1].clone(), paths[0].clone()];
        let name = |what: &str| format!("{round}-{what}");
        let (one, other) = std::thread::scope(|threads| {
            let one = threads.spawn(|| tus.join(&name("forwards"), &paths));
            let other = threads.spawn(|| tus.join(&name("backwards"), &backwards));
            (one.join().unwrap(), other.join().unwrap())
        });
        let statuses = [one.status, other.status];
        assert!(statuses == [201, 409] || statuses == [409, 201] || statuses == [201, 404] || statuses == [404, 201]);
        let is_forwards = one.status == 201;
        if !is_forwards {
            paths.reverse();
        }
        let (first, second) = content.split_at(SLICE - 3);
        let expected = if is_forwards { content.clone() } else { [second, first].concat() };
        assert_finished(&daemon, &name(if is_forwards { "forwards" } else { "backwards" }), &expected);
        assert!(!daemon.finished(&name(if is_forwards { "backwards" } else { "forwards" })).exists());
    }
    eventually("no upload is left", || daemon.spools().iter().all(|spool| spool.starts_with('.')));
}

#[test]
fn a_cancelled_file_takes_its_parts_with_it() {
    let (daemon, tus) = daemon(&[]);
    let paths = partials(&tus, &[&[0; 2 * SLICE], &[0; SLICE]]);
    tus.patch(&paths[0], 0, &[0; SLICE + 1]).expect(204);
    let at = tus.join("a", &paths).location();
    tus.delete(&at).expect(204);
    for path in &paths {
        assert!(matches!(tus.head(path).status, 404 | 410));
        assert!(matches!(tus.patch(path, 0, b"x").status, 404 | 410));
    }
    eventually("no upload is left", || daemon.spools().iter().all(|spool| spool.starts_with('.')));
}

#[test]
fn kills_at_any_moment_lose_nothing_that_was_told() {
    let mut daemon = Daemon::with(&["--max-slice-size", "1M"]);
    let content = data::bytes(9, 12 * SLICE + 17);
    let pieces = cut(&content, &[0, 4 * SLICE + 1, 8 * SLICE]);
    let tus = Tus::new(daemon.url());
    let paths = partials(&tus, &pieces);
    let mut at = String::new();
    let mut held = [0; 3];
    for round in 0..14 {
        let tus = Tus::new(daemon.url());
        for (index, path) in paths.iter().enumerate() {
            let told = tus.offset(path) as usize;
            assert!(told >= held[index], "round {round}: {told} bytes of part {index}, {} were told", held[index]);
            let end = (told + SLICE / 2 + 17 * round).min(pieces[index].len());
            held[index] =
                tus.patch(path, told as u64, &pieces[index][told..end]).expect(204).offset().unwrap() as usize;
        }
        if round == 4 {
            at = tus.join("a", &paths).location();
        }
        if round == 6 {
            assert_eq!(tus.join("a", &paths).location(), at);
        }
        if round % 2 == 0 {
            daemon.kill_9();
            daemon.run();
        } else {
            let pid = daemon.info("a", "merger_pid").and_then(|pid| pid.parse().ok()).unwrap_or(0);
            signal_program(pid, "bigup-merger", Signal::SIGKILL);
        }
    }
    assert_eq!(held.iter().sum::<usize>(), content.len());
    let tus = Tus::new(daemon.url());
    eventually("it is finished", || tus.head(&at).offset() == Some(content.len() as u64));
    assert_finished(&daemon, "a", &content);
    daemon.eventually_clean();
}

#[test]
fn a_quota_holds_for_the_bytes_once() {
    let (daemon, tus) = daemon(&["--anonymous-quota", "6M"]);
    let content = data::bytes(10, 5 * SLICE);
    let paths = sent_partials(&tus, &cut(&content, &[0, 2 * SLICE]));
    let over = tus.post(&[("Upload-Concat", "partial"), ("Upload-Length", &(2 * SLICE).to_string())]);
    over.expect(413);
    tus.join("a", &paths).expect(201);
    assert_finished(&daemon, "a", &content);
    let next = tus.create("b", SLICE as u64 - 65536);
    tus.patch(&next, 0, &vec![1; SLICE - 65536]).expect(204);
}

#[test]
fn the_metadata_of_the_file_is_its_own() {
    let (_daemon, tus) = daemon(&[]);
    let metadata = format!("{},kind {}", file_name("part"), base64(b"p"));
    let headers = [("Upload-Concat", "partial"), ("Upload-Length", "5"), ("Upload-Metadata", &*metadata)];
    let path = tus.post(&headers).location();
    assert!(!path.ends_with("/part"), "{path}");
    assert_eq!(tus.head(&path).header("Upload-Metadata"), Some(&*metadata));
    let at = tus.join("a", std::slice::from_ref(&path)).location();
    assert_eq!(tus.head(&at).header("Upload-Metadata"), Some(&*file_name("a")));
}
