//! Finished files in a store of objects (SeaweedFS): they are exact, and nothing is left beside them, whatever fails.

use bigup_tests::process::{eventually, eventually_equal};
use bigup_tests::seaweed::{Disturb, Passing, shared, write_credentials};
use bigup_tests::stored::Setup;
use bigup_tests::tus::Tus;
use bigup_tests::{data, programs};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// A file of several parts, the last one smaller.
const LARGE: u64 = (30 << 20) + 17;

fn text(path: &Path) -> &str {
    path.to_str().expect("paths of tests are UTF-8")
}

#[test]
fn files_of_all_sizes_are_objects_that_are_read_listed_and_removed() {
    let setup = Setup::new(&[]);
    for (seed, len) in [(1, 0), (2, 100), (3, 9 << 20), (4, LARGE)] {
        let file = setup.file(seed, len);
        let output = setup.pushed(&file, &["--name", &format!("d/f{seed}")]);
        assert!(String::from_utf8_lossy(&output.stdout).contains(&data::digest(&file)));
        setup.is_exact_and_alone(&format!("d/f{seed}"), &file);
    }
    assert_eq!(setup.names(), ["d/f1", "d/f2", "d/f3", "d/f4"]);
    assert_eq!(setup.notes(), 1, "that of the file with parts");
    assert!(!setup.daemon.finished("d").exists(), "nothing is in files/");

    // Pushed again it is there already; another content is refused, and replaces if it is said so.
    setup.pushed(&setup.file(4, LARGE), &["--name", "d/f4"]);
    let other = setup.file(5, LARGE + 1);
    let refused = setup.push(&[text(&other), "--name", "d/f4"]).output().unwrap();
    assert!(!refused.status.success() && String::from_utf8_lossy(&refused.stderr).contains("--replace"), "{refused:?}");
    setup.pushed(&other, &["--name", "d/f4", "--replace"]);
    setup.is_exact_and_alone("d/f4", &other);
    assert_eq!(setup.notes(), 1, "the note of the replaced file is gone");

    let all = std::fs::read(&other).unwrap();
    let (status, body) = setup.content("d/f4", &["-H", "Range: bytes=9000000-9000099"]);
    assert!(status == "206" && body == all[9_000_000..9_000_100], "{status}");
    let (status, head) = setup.content("d/f4", &["-I"]);
    let head = String::from_utf8_lossy(&head).to_lowercase();
    assert!(status == "200" && head.contains(&format!("content-length: {}", all.len())), "{head}");
    assert!(head.contains(&format!("etag: \"b3-{}\"", data::digest(&other))), "{head}");
    let (_, list) = setup.content("?prefix=d/&limit=2", &[]);
    let list = String::from_utf8_lossy(&list).into_owned();
    assert!(list.lines().count() == 2 && list.contains("\"d/f2\""), "{list}");
    let (_, list) = setup.content("?prefix=d/&after=d/f2", &[]);
    assert_eq!(String::from_utf8_lossy(&list).lines().count(), 2);
    let (_, index) = setup.content("d/", &["-H", "Accept: text/html"]);
    assert!(String::from_utf8_lossy(&index).contains("f3"));
    let (status, archive) = setup.content("d/?tar", &[]);
    assert!(status == "200" && archive.len() > all.len(), "{status} {}", archive.len());

    for name in ["d/f1", "d/f4"] {
        assert_eq!(setup.content(name, &["-X", "DELETE"]).0, "204");
        assert_eq!(setup.content(name, &[]).0, "404");
    }
    assert_eq!((setup.names(), setup.notes()), (vec!["d/f2".to_owned(), "d/f3".to_owned()], 0));
}

#[test]
fn tus_and_put_end_in_the_store_too() {
    let setup = Setup::new(&[]);
    let file = setup.file(1, LARGE);
    let all = std::fs::read(&file).unwrap();
    assert_eq!(setup.content("put", &["-T", text(&file)]).0, "201");
    setup.is_exact_and_alone("put", &file);
    assert_eq!(setup.content("put", &["-T", text(&setup.file(2, 10))]).0, "204");
    setup.is_exact_and_alone("put", &setup.file(2, 10));
    let tus = Tus::new(setup.daemon.url());
    let at = tus.create("tus", LARGE);
    let half = all.len() / 2;
    tus.patch(&at, 0, &all[..half]).expect(204);
    tus.patch(&at, half as u64, &all[half..]).expect(204);
    eventually("it is finished", || setup.content("tus", &[]).0 == "200");
    setup.is_exact_and_alone("tus", &file);
}

/// Pushes a file again and again; each time the merger is killed at another of its requests to the store.
fn killed_at_every_request(how: Disturb) {
    let setup = Setup::new(&[]);
    let file = setup.file(1, LARGE);
    for number in 0.. {
        let name = format!("n{number}");
        let (kill, is_killed) = (setup.killer(&name), Arc::new(AtomicBool::new(false)));
        let seen = Arc::clone(&is_killed);
        setup.proxy.disturb(move |passing: &Passing| {
            if passing.is_of_merger() && passing.number == number && !seen.swap(true, Ordering::SeqCst) {
                if how == Disturb::Before {
                    kill();
                }
                return how;
            }
            Disturb::Not
        });
        setup.proxy.then(setup.killer(&name));
        let output = setup.push(&[text(&file), "--name", &name]).output().unwrap();
        assert!(output.status.success(), "request {number}: {output:?}");
        setup.proxy.disturb(|_| Disturb::Not);
        setup.is_exact_and_alone(&name, &file);
        assert_eq!(setup.content(&name, &["-X", "DELETE"]).0, "204");
        if !is_killed.load(Ordering::SeqCst) {
            assert!(number > 10, "only {number} requests");
            assert_eq!((setup.names(), setup.notes()), (vec![], 0), "notes are left");
            return;
        }
    }
}

#[test]
fn a_merger_that_is_killed_before_any_request_leaves_an_exact_object() {
    killed_at_every_request(Disturb::Before);
}

#[test]
fn a_merger_that_is_killed_after_any_request_leaves_an_exact_object() {
    killed_at_every_request(Disturb::After);
}

#[test]
fn wrong_answers_are_survived() {
    let setup = Setup::new(&[]);
    let file = setup.file(1, LARGE);
    let is_put = |passing: &Passing| passing.is_part();
    let is_completion = |passing: &Passing| passing.is_completion();
    type Which = fn(&Passing) -> bool;
    let cases: [(&str, Which, Disturb); 6] = [
        ("slow", is_put, Disturb::Answer(503, "SlowDown")),
        ("broken", is_put, Disturb::Answer(500, "InternalError")),
        ("tag", is_put, Disturb::OtherTag),
        ("lost", is_put, Disturb::After),
        ("completion", is_completion, Disturb::After),
        ("incomplete", is_completion, Disturb::Answer(500, "InternalError")),
    ];
    for (name, which, how) in cases {
        let times = AtomicU64::new(0);
        setup.proxy.disturb(move |passing| match which(passing) && times.fetch_add(1, Ordering::SeqCst) < 2 {
            true => how,
            false => Disturb::Not,
        });
        setup.pushed(&file, &["--name", name]);
        setup.is_exact_and_alone(name, &file);
    }
}

#[test]
fn an_upload_waits_for_a_store_that_is_away_or_refuses() {
    let setup = Setup::new(&[]);
    let file = setup.file(1, LARGE);
    type Action<'a> = &'a dyn Fn();
    let trouble: [(&str, Action<'_>, Action<'_>, &str); 3] = [
        ("away", &|| setup.proxy.disturb(|_| Disturb::Before), &|| setup.proxy.disturb(|_| Disturb::Not), "no answer"),
        (
            "refused",
            &|| write_credentials(&setup.credentials, false),
            &|| write_credentials(&setup.credentials, true),
            "403",
        ),
        (
            "bucketless",
            // SeaweedFS makes a bucket that is missing.
            &|| setup.proxy.disturb(|_| Disturb::Answer(404, "NoSuchBucket")),
            &|| setup.proxy.disturb(|_| Disturb::Not),
            "NoSuchBucket",
        ),
    ];
    for (name, begin, end, told) in trouble {
        // It is begun while the store answers, so that the client is not refused.
        let (going, mark) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let (goes, marked) = (Arc::clone(&going), Arc::clone(&mark));
        setup.proxy.disturb(move |passing| {
            if passing.is_of_merger() {
                marked.store(true, Ordering::SeqCst);
                while !goes.load(Ordering::SeqCst) {
                    std::thread::sleep(std::time::Duration::from_millis(2));
                }
            }
            Disturb::Not
        });
        let pushing = setup.push(&[text(&file), "--name", name]).spawn().unwrap();
        eventually("the merger asks the store", || mark.load(Ordering::SeqCst));
        begin();
        going.store(true, Ordering::SeqCst);
        eventually("the reason is told", || setup.last_error(name).contains(told));
        assert!(!setup.daemon.log().contains("cisecret123"), "the log has the secret");
        end();
        let output = pushing.wait_with_output().unwrap();
        assert!(output.status.success(), "{name}: {output:?}");
        setup.is_exact_and_alone(name, &file);
    }
}

#[test]
fn a_cancelled_upload_leaves_nothing_in_the_store_and_a_sweep_finds_the_rest() {
    let mut setup = Setup::new(&["--expire-after", "1h"]);
    let file = setup.file(1, LARGE);
    setup
        .proxy
        .disturb(|passing| if passing.is_completion() { Disturb::Answer(500, "InternalError") } else { Disturb::Not });
    let cancelled = |setup: &Setup| {
        let options = Setup::options(&setup.bucket, setup.proxy.endpoint(), &setup.credentials);
        let mut command = Command::new(programs::path("bigupd"));
        command.args(&options[..3]).arg("--data-dir").arg(setup.daemon.data()).args(["cancel", "f1"]);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
    };
    let mut pushing = setup.push(&[text(&file)]).spawn().unwrap();
    eventually("completion fails", || setup.last_error("f1").contains("completing"));
    assert_eq!((setup.objects.unfinished().unwrap().len(), setup.notes()), (1, 1));
    cancelled(&setup);
    assert!(!pushing.wait().unwrap().success());
    assert_eq!((setup.objects.unfinished().unwrap().len(), setup.notes()), (0, 0));

    // The data folder is lost in the middle of another one.
    let mut pushing = setup.push(&[text(&file), "--name", "g"]).spawn().unwrap();
    eventually("completion fails", || setup.last_error("g").contains("completing"));
    setup.daemon.kill_9();
    eventually("no merger is left", || {
        setup.killer("g")();
        std::fs::remove_dir_all(setup.daemon.data().join("tmp/g")).ok();
        !setup.daemon.data().join("tmp/g").exists()
    });
    let _ = pushing.kill();
    let _ = pushing.wait();
    assert_eq!((setup.objects.unfinished().unwrap().len(), setup.notes()), (1, 1));
    assert_eq!(setup.objects.sweep(std::time::Duration::from_secs(3600), &[]).unwrap(), 0, "it is too young");
    assert_eq!(setup.objects.sweep(std::time::Duration::ZERO, &[]).unwrap(), 1);
    eventually_equal("nothing is left", &(0, 0), || (setup.objects.unfinished().unwrap().len(), setup.notes()));
}

#[test]
fn a_store_that_cannot_be_used_is_told_at_the_start() {
    let store = shared();
    store.make_bucket("startup");
    let folder = tempfile::tempdir().unwrap();
    let credentials = folder.path().join("credentials");
    write_credentials(&credentials, true);
    let start = |bucket: &str, endpoint: &str| {
        let mut command = Command::new(programs::path("bigupd"));
        command.args(&Setup::options(bucket, endpoint, &credentials)[..3]).arg("--check-config");
        command.arg("--data-dir").arg(folder.path().join("data"));
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, said) = start("startup", &store.endpoint());
    assert_eq!(code, Some(0), "{said}");
    let told = |bucket: &str, endpoint: &str, words: &[&str]| {
        let (code, said) = start(bucket, endpoint);
        let last = said.lines().last().unwrap_or_default();
        assert_eq!(code, Some(1), "{said}");
        assert!(words.iter().all(|word| last.contains(word)), "{last} lacks one of {words:?}");
    };
    told("nobucket", &store.endpoint(), &["s3://nobucket/p", "NoSuchBucket", "make the bucket first"]);
    told("startup", "http://127.0.0.1:1", &["s3://startup/p", "http://127.0.0.1:1", "no answer"]);
    write_credentials(&credentials, false);
    told("startup", &store.endpoint(), &["403", "rights"]);
    std::fs::remove_file(&credentials).unwrap();
    told("startup", &store.endpoint(), &["s3_credentials_file", "credentials"]);
}

#[test]
fn damage_on_the_disk_never_becomes_part_of_an_object() {
    let setup = Setup::new(&[]);
    let file = setup.file(1, LARGE);
    let merged = setup.daemon.data().join("tmp/f1/merged");
    let is_damaged = Arc::new(AtomicBool::new(false));
    let done = Arc::clone(&is_damaged);
    // The bytes are changed while the merger waits for its upload of parts to begin.
    setup.proxy.disturb(move |passing| {
        if passing.is_of_merger()
            && passing.method == "POST"
            && !passing.is_completion()
            && !done.swap(true, Ordering::SeqCst)
        {
            use std::os::unix::fs::FileExt;
            let file = std::fs::File::options().write(true).open(&merged).unwrap();
            file.write_all_at(b"damage", 1 << 20).unwrap();
        }
        Disturb::Not
    });
    setup.pushed(&file, &[]);
    assert!(is_damaged.load(Ordering::SeqCst));
    setup.is_exact_and_alone("f1", &file);
}

#[test]
fn objects_are_checked_by_reading_them() {
    let setup = Setup::new(&[]);
    let file = setup.file(1, LARGE);
    setup.pushed(&file, &[]);
    let options = Setup::options(&setup.bucket, setup.proxy.endpoint(), &setup.credentials);
    let mut command = Command::new(programs::path("bigupd"));
    command.args(&options[..3]).arg("--data-dir").arg(setup.daemon.data()).args(["check", "--json"]);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && said.contains("\"files\":1") && said.contains("\"damaged\":0"), "{said}");
}

/// An upload whose parts are all in the store, and whose completion fails until the disturbance ends.
fn given_back(setup: &Setup, file: &Path) -> std::process::Child {
    setup
        .proxy
        .disturb(|passing| if passing.is_completion() { Disturb::Answer(500, "InternalError") } else { Disturb::Not });
    let pushing = setup.push(&[text(file), "--name", "f"]).spawn().unwrap();
    eventually("completion fails", || setup.last_error("f").contains("completing"));
    let (len, on_disk) = setup.merged("f");
    assert!(len == LARGE && on_disk < 1 << 20, "{on_disk} bytes of {len} are on the disk");
    pushing
}

#[test]
fn space_that_was_given_back_is_no_damage_and_is_found_again_by_the_next_merger() {
    let mut setup = Setup::new(&[]);
    let file = setup.file(1, LARGE);
    let pushing = given_back(&setup, &file);
    setup.daemon.kill_9();
    let options = Setup::options(&setup.bucket, setup.proxy.endpoint(), &setup.credentials);
    let mut command = Command::new(programs::path("bigupd"));
    command.args(&options[..3]).arg("--data-dir").arg(setup.daemon.data()).args(["check", "--json"]);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && said.contains("\"damaged\":0"), "{said}");
    setup.proxy.disturb(|passing| {
        assert!(!(passing.is_of_merger() && passing.is_part()), "the store has all parts");
        Disturb::Not
    });
    setup.daemon.run();
    let output = pushing.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    setup.is_exact_and_alone("f", &file);
}

#[test]
fn bytes_that_only_a_former_store_has_are_never_published_as_holes() {
    let mut setup = Setup::new(&[]);
    let file = setup.file(1, LARGE);
    let mut pushing = given_back(&setup, &file);
    setup.daemon.kill_9();
    setup.killer("f")();
    let data = setup.daemon.data();
    let folder = bigup_tests::daemon::Daemon::with_data(&data, &["--merger-idle=2s"]);
    eventually("it is told", || folder.log().contains("are asked for again"));
    pushing.kill().unwrap();
    pushing.wait().unwrap();
    let mut push = programs::cli();
    push.args(["push", "--url", folder.url(), "--slice-size", "4M", "--name", "f"]).arg(&file);
    let output = push.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(data::same(&file, &folder.finished("f")));
}

#[test]
fn a_part_that_the_store_shows_with_another_tag_is_not_given_back() {
    let setup = Setup::new(&[]);
    let file = setup.file(1, LARGE);
    setup.proxy.disturb(|passing| if passing.is_part() { Disturb::OtherTag } else { Disturb::Not });
    setup.pushed(&file, &["--name", "f"]);
    setup.is_exact_and_alone("f", &file);
    assert!(!setup.daemon.log().contains("are asked for again"), "{}", setup.daemon.log());
}

#[test]
fn a_missing_bucket_is_not_taken_for_lost_parts() {
    let setup = Setup::new(&[]);
    let file = setup.file(1, LARGE);
    let pushing = given_back(&setup, &file);
    setup.proxy.disturb(|_| Disturb::Answer(404, "NoSuchBucket"));
    eventually("the reason is told", || setup.last_error("f").contains("NoSuchBucket"));
    setup.proxy.disturb(|_| Disturb::Not);
    let output = pushing.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    setup.is_exact_and_alone("f", &file);
    assert!(!setup.daemon.log().contains("are asked for again"), "{}", setup.daemon.log());
}

#[test]
fn readers_are_sent_to_the_store_where_that_is_set() {
    let setup = Setup::new(&["--s3-redirect=yes"]);
    let file = setup.file(1, LARGE);
    setup.pushed(&file, &["--name", "d/ä b"]);
    let all = std::fs::read(&file).unwrap();
    let path = "d/%C3%A4%20b";
    let (status, body) = setup.content(path, &[]);
    assert!(status == "307" && body.is_empty(), "{status}");
    let (_, head) = setup.content(path, &["-D", "-"]);
    let head = String::from_utf8_lossy(&head).to_lowercase();
    assert!(head.contains("location: http://127.0.0.1") && head.contains("x-amz-expires=300"), "{head}");
    assert!(head.contains("cache-control: no-store"), "{head}");
    let (status, body) = setup.content(path, &["-L"]);
    assert!(status == "200" && body == all, "{status}");
    let (status, body) = setup.content(path, &["-L", "-r", "9000000-9000099"]);
    assert!(status == "206" && body == all[9_000_000..9_000_100], "{status}");
    // The rest is answered as ever.
    let (status, head) = setup.content(path, &["-I"]);
    let etag = format!("\"b3-{}\"", data::digest(&file));
    assert!(status == "200" && String::from_utf8_lossy(&head).to_lowercase().contains(&etag), "{status}");
    let (status, body) = setup.content(path, &["-H", &format!("If-Match: {etag}"), "-r", "0-9"]);
    assert!(status == "206" && body == all[..10], "{status}");
    assert_eq!(setup.content(path, &["-H", &format!("If-None-Match: {etag}")]).0, "304");
    assert_eq!(setup.content("d/none", &[]).0, "404");
    let fetched = setup.daemon.scratch().join("got");
    let mut get = programs::cli();
    get.args(["get", "--url", setup.daemon.url(), "d/ä b", "--to", text(&fetched)]);
    let output = get.output().unwrap();
    assert!(output.status.success() && data::same(&fetched, &file), "{output:?}");
    assert!(!setup.daemon.log().contains("Signature"), "the log has a link");
}

#[test]
fn what_waits_for_the_store_stays_below_its_limit_and_completes_by_itself() {
    const LIMIT: u64 = 48 << 20;
    let setup = Setup::new(&["--spool-limit=48M"]);
    let files: Vec<_> = (0..3).map(|seed| setup.file(10 + seed, 60 << 20)).collect();
    let is_away = Arc::new(AtomicBool::new(false));
    let away = Arc::clone(&is_away);
    setup.proxy.disturb(move |passing| {
        if passing.is_part() {
            away.store(true, Ordering::SeqCst);
        }
        let is_hit = passing.is_of_merger() && away.load(Ordering::SeqCst);
        if is_hit { Disturb::Answer(503, "SlowDown") } else { Disturb::Not }
    });
    let pushing: Vec<_> = (0_u64..)
        .zip(&files)
        .map(|(number, file)| {
            let mut push = setup.push(&[text(file), "--name", &format!("s{number}"), "--json"]);
            push.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap()
        })
        .collect();
    eventually("the store is away", || is_away.load(Ordering::SeqCst));
    let metrics = || bigup_tests::scrape::page(setup.daemon.url(), "/metrics", None).text;
    eventually("slices are refused", || {
        metrics().lines().any(|line| {
            line.strip_prefix("bigup_refused_total{limit=\"spool_limit\"} ").is_some_and(|number| number != "0")
        })
    });
    // Other requests come and go meanwhile.
    for _ in 0..40 {
        let used: u64 = (0..3).map(|number| setup.on_disk(&format!("s{number}"))).sum();
        // Beside it one slice of each upload that merging waits for, those of them that are being merged, and what is
        // reserved.
        assert!(used <= LIMIT + 3 * (4 << 20) + (32 << 20), "{used} bytes are in the spools");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    eventually("the reason is told", || {
        (0..3).any(|number| setup.last_error(&format!("s{number}")).contains("SlowDown"))
    });
    let (waiting, failures) = ("bigup_store_waiting_bytes ", "bigup_store_failures_total{reason=\"slow_down\"} ");
    let value = |start: &str| {
        let page = metrics();
        page.lines().find_map(|line| line.strip_prefix(start)?.parse::<f64>().ok()).unwrap_or(0.0)
    };
    eventually("the metrics tell", || value(waiting) >= 8e6 && value(failures) > 0.0);
    setup.proxy.disturb(|_| Disturb::Not);
    for pushing in pushing {
        let output = pushing.wait_with_output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
    for (number, file) in files.iter().enumerate() {
        setup.is_exact_and_alone(&format!("s{number}"), file);
    }
    eventually("nothing waits", || value(waiting) == 0.0 && value("bigup_store_parts_in_flight ") == 0.0);
    assert!(value("bigup_store_parts_total ") >= 20.0 && value("bigup_store_sent_bytes_total ") >= 180e6);
}

#[test]
fn uploads_in_order_wait_for_the_store_and_complete_once_it_is_back() {
    const LIMIT: u64 = 24 << 20;
    let setup = Setup::new(&["--spool-limit=24M"]);
    let file = setup.file(20, 64 << 20);
    let all = std::fs::read(&file).unwrap();
    let is_away = |passing: &Passing| match passing.is_of_merger() {
        true => Disturb::Answer(503, "SlowDown"),
        false => Disturb::Not,
    };
    setup.proxy.disturb(is_away);
    let tus = Tus::new(setup.daemon.url());
    let at = tus.create("f", all.len() as u64);
    let patched = |from: u64, to: u64| tus.patch(&at, from, &all[from as usize..to as usize]);
    let (mut offset, mut refused) = (0, None);
    while refused.is_none() {
        assert!(offset <= LIMIT + (8 << 20), "{offset} bytes are taken");
        let reply = patched(offset, offset + (1 << 20));
        match reply.status {
            204 => offset += 1 << 20,
            _ => refused = Some(reply),
        }
    }
    let refused = refused.unwrap().expect(503);
    assert!(refused.header("Retry-After").is_some_and(|seconds| seconds.parse::<u64>().is_ok()), "{refused:?}");
    assert_eq!(tus.offset(&at), offset, "nothing is lost");
    setup.proxy.disturb(|_| Disturb::Not);
    eventually("all of it is taken", || {
        let to = (offset + (1 << 20)).min(all.len() as u64);
        let reply = patched(offset, to);
        if reply.status != 204 {
            reply.expect(503);
        }
        // One that is refused may have stored a part.
        offset = tus.offset(&at);
        offset == all.len() as u64
    });
    setup.is_exact_and_alone("f", &file);
}

#[test]
fn a_file_that_is_not_the_promised_one_is_sent_again_as_a_whole() {
    const SLICE: usize = 4 << 20;
    let setup = Setup::new(&[]);
    let (wrong, right) = (data::bytes(1, LARGE as usize), setup.file(2, LARGE));
    let server = setup.daemon.server();
    let begin = format!("file_name=f&slice_size={SLICE}&file_size={LARGE}&file_digest={}", data::digest(&right));
    server.get(&begin).expect(200);
    let slice_num = wrong.len().div_ceil(SLICE);
    for (slice_id, slice) in wrong.chunks(SLICE).enumerate() {
        if slice_id + 1 == slice_num {
            eventually("parts are in the store only", || {
                let (len, on_disk) = setup.merged("f");
                len > on_disk + (8 << 20)
            });
        }
        let len = slice.len();
        let query = format!("file_name=f&slice_id={slice_id}&slice_num={slice_num}&slice_size={len}");
        server.post(&query, slice).expect(200);
    }
    eventually("it is told", || setup.last_error("f").contains("as promised"));
    // Slices of parts that are in the store only cannot be replaced one by one.
    assert_eq!(setup.merged("f").0, 0);
    assert!(server.get("file_name=f&peek=1").held().is_empty());
    for (slice_id, slice) in std::fs::read(&right).unwrap().chunks(SLICE).enumerate() {
        if slice_id == 0 {
            server.get(&begin).expect(200);
        }
        let len = slice.len();
        let query = format!("file_name=f&slice_id={slice_id}&slice_num={slice_num}&slice_size={len}");
        server.post(&query, slice).expect(200);
    }
    eventually("it is finished", || setup.content("f", &["-I"]).0 == "200");
    setup.is_exact_and_alone("f", &right);
}
