//! What the daemon tells those who watch it: counters say exactly what happened, probes find what is wrong, and the text,
//! the alerts and the dashboard are what Prometheus and Grafana take.

use bigup_tests::daemon::Daemon;
use bigup_tests::http::{Server, connect, post_head, raw, read_answer};
use bigup_tests::process::{eventually, kill_9, signal, signal_program};
use bigup_tests::programs::{self, succeed};
use bigup_tests::scrape::{Page, Scrape, eventually_counted, page, promtool_says};
use bigup_tests::tus::Tus;
use bigup_tests::{data, docs};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Uploads that were begun by the native protocol.
const BEGUN: &str = "uploads_begun_total{protocol=\"native\"}";

const KIB: usize = 1 << 10;
const MIB: u64 = 1 << 20;

/// A daemon whose metrics are at an address of their own, so that looking at them takes nothing away.
struct Watched {
    daemon: Daemon,
    url: String,
}

impl Watched {
    fn with(arguments: &[&str]) -> Watched {
        Watched::of(Daemon::with(&[&["--metrics-listen", "127.0.0.1:0"], arguments].concat()))
    }

    fn of(daemon: Daemon) -> Watched {
        let log = daemon.log();
        // The last one, where several daemons write one log.
        let (_, rest) = log.rsplit_once("metrics on ").expect("it says where the metrics are");
        let url = rest.split_once("/metrics").expect("it says so").0.to_owned();
        Watched { daemon, url }
    }

    fn server(&self) -> Server {
        self.daemon.server()
    }

    #[track_caller]
    fn eventually(&self, expected: &[(&str, f64)]) {
        eventually_counted(&self.url, expected);
    }

    /// Of an upload of four slices of 1 KiB.
    fn begin(&self, name: &str) {
        self.server().get(&format!("file_name={name}&slice_size={KIB}&file_size={}", 4 * KIB)).expect(200);
    }

    fn post(&self, name: &str, slice_id: usize) {
        self.server().post(&slice(name, slice_id), &[slice_id as u8; KIB]).expect(200);
    }

    fn merger(&self, name: &str) -> u32 {
        let mut pid = None;
        eventually("info.ini tells the merger", || {
            pid = self.daemon.info(name, "merger_pid").and_then(|pid| pid.parse().ok());
            pid.is_some()
        });
        pid.expect("it is told")
    }

    fn push(&self, file: &Path, options: &[&str]) -> Command {
        let mut command = programs::cli();
        command.args(["push", "--quiet", "--url", self.daemon.url()]).args(options).arg(file);
        command
    }
}

fn slice(name: &str, slice_id: usize) -> String {
    format!("file_name={name}&slice_id={slice_id}&slice_size={KIB}")
}

#[test]
fn uploads_are_counted_by_their_protocol() {
    let watched = Watched::with(&[]);
    let tus = Tus::new(watched.daemon.url());
    let at = tus.create("tus", 3);
    tus.patch(&at, 0, b"abc").expect(204);
    let parts: Vec<String> = [b"ab", b"cd"].map(|_| tus.create_partial(2)).into();
    parts.iter().for_each(|at| drop(tus.patch(at, 0, b"ab").expect(204)));
    tus.join("joined", &parts).expect(201);
    tus.send("POST", "/files/", &[("Upload-Complete", "?1")], b"abc").expect(201);
    tus.send("PUT", "/content/put", &[], b"abc").expect(201);
    let begun = |protocol: &str| format!("uploads_begun_total{{protocol=\"{protocol}\"}}");
    let expected = [("native", 0.0), ("tus", 2.0), ("ietf", 1.0), ("put", 1.0)].map(|(by, count)| (begun(by), count));
    watched.eventually(&expected.each_ref().map(|(series, count)| (series.as_str(), *count)));
}

#[test]
fn a_push_is_counted_to_the_byte() {
    let watched = Watched::with(&[]);
    let len = 10 * MIB + 123;
    succeed(watched.push(&data::file(&watched.daemon.scratch(), "f", 1, len), &["--slice-size", "1M"]));
    let len = len as f64;
    watched.eventually(&[
        (BEGUN, 1.0),
        ("uploads_resumed_total", 0.0),
        ("uploads_finished_total", 1.0),
        ("uploads_unfinished", 0.0),
        ("slices_received_total", 11.0),
        ("slices_arriving", 0.0),
        ("received_bytes_total", len),
        ("merged_bytes_total", len),
        ("published_bytes_total", len),
        ("merge_lag_bytes", 0.0),
        ("merge_lag_seconds", 0.0),
        ("merger_starts_total", 1.0),
        ("merger_exits_total{reason=\"published\"}", 1.0),
        ("mergers_running", 0.0),
        ("mergers_waiting", 0.0),
        ("sync_duration_seconds_count{what=\"slice\"}", 0.0),
        ("sync_duration_seconds_count{what=\"publication\"}", 1.0),
        ("request_duration_seconds_count{route=\"slice\",status=\"200\"}", 11.0),
        ("connections_open", 1.0),
    ]);
    let now = Scrape::of(&watched.url);
    assert!(now.get("sync_duration_seconds_count{what=\"checkpoint\"}") >= 1.0);
    assert_eq!((now.sum("uploads_failed_total"), now.sum("refused_total")), (0.0, 0.0));
    assert!(now.get("disk_free_bytes") > 0.0 && now.get("last_scan_timestamp_seconds") > 1e9);
    // Again it is a no-op.
    succeed(watched.push(&watched.daemon.scratch().join("f"), &["--slice-size", "1M"]));
    watched.eventually(&[(BEGUN, 1.0), ("uploads_finished_total", 1.0), ("received_bytes_total", len)]);
}

#[test]
fn a_file_of_one_slice_needs_no_merger() {
    let watched = Watched::with(&["--slice-ack", "synced"]);
    for (name, len) in [("small", 4 << 10), ("large", 2 * MIB)] {
        succeed(watched.push(&data::file(&watched.daemon.scratch(), name, 1, len), &[]));
    }
    let len = (2 * MIB + 4096) as f64;
    watched.eventually(&[
        (BEGUN, 2.0),
        ("uploads_finished_total", 2.0),
        ("slices_received_total", 2.0),
        ("received_bytes_total", len),
        ("published_bytes_total", len),
        ("merged_bytes_total", 0.0),
        ("merger_starts_total", 0.0),
        ("sync_duration_seconds_count{what=\"publication\"}", 2.0),
    ]);
}

#[test]
fn going_on_counts_where_something_is_held_and_something_missing() {
    let watched = Watched::with(&["--slice-ack", "synced"]);
    watched.begin("a");
    watched.begin("a");
    watched.eventually(&[(BEGUN, 1.0), ("uploads_resumed_total", 0.0), ("uploads_unfinished", 1.0)]);
    watched.post("a", 0);
    watched.server().get("file_name=a&peek=1").expect(200);
    watched.begin("a");
    watched.eventually(&[
        ("uploads_resumed_total", 1.0),
        ("request_duration_seconds_count{route=\"begin\",status=\"200\"}", 3.0),
        ("request_duration_seconds_count{route=\"peek\",status=\"200\"}", 1.0),
    ]);
    (1..4).for_each(|slice_id| watched.post("a", slice_id));
    // A slice that is held is not stored again.
    watched.begin("a");
    watched.eventually(&[
        (BEGUN, 1.0),
        ("uploads_resumed_total", 1.0),
        ("uploads_finished_total", 1.0),
        ("slices_received_total", 4.0),
        ("sync_duration_seconds_count{what=\"slice\"}", 4.0),
        ("merged_bytes_total", 4096.0),
    ]);
}

#[test]
fn a_push_that_was_killed_is_resumed_once() {
    let watched = Watched::with(&[]);
    let file = data::file(&watched.daemon.scratch(), "f", 1, 64 * MIB);
    let mut first = watched.push(&file, &["--slice-size", "64K", "--limit-rate", "8M"]).spawn().unwrap();
    eventually("some slices are held", || Scrape::of(&watched.url).get("slices_received_total") > 20.0);
    kill_9(&mut first);
    succeed(watched.push(&file, &["--slice-size", "64K"]));
    watched.eventually(&[
        (BEGUN, 1.0),
        ("uploads_resumed_total", 1.0),
        ("uploads_finished_total", 1.0),
        ("received_bytes_total", (64 * MIB) as f64),
        ("merged_bytes_total", (64 * MIB) as f64),
    ]);
}

/// Makes sure that `refused` is counted once, for this limit and for no other.
#[track_caller]
fn refused_once(watched: &Watched, limit: &str, refused: impl FnOnce()) {
    let before = Scrape::of(&watched.url).sum("refused_total");
    let series = format!("refused_total{{limit=\"{limit}\"}}");
    let count = Scrape::of(&watched.url).get(&series);
    refused();
    watched.eventually(&[(&series, count + 1.0)]);
    assert_eq!(Scrape::of(&watched.url).sum("refused_total"), before + 1.0, "{limit} and another one");
}

fn read_to_end(mut stream: TcpStream) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("the connection ends, and is not reset");
    text
}

#[test]
fn each_limit_of_sizes_and_numbers_counts_for_itself() {
    let sizes = ["--max-file-size", "2M", "--max-slices", "5", "--max-slice-size", "1M", "--max-uploads", "2"];
    let watched = Watched::with(&[&sizes[..], &["--max-response-size", "1M"]].concat());
    let server = watched.server();
    let get = |query: &str, status: u16| drop(server.get(query).expect(status));
    refused_once(&watched, "file_size", || get("file_name=a&slice_size=1000&file_size=9000000", 413));
    refused_once(&watched, "slices", || get("file_name=a&slice_size=1&file_size=6", 413));
    refused_once(&watched, "slice_size", || get("file_name=a&slice_size=2000000&file_size=3000000", 413));
    refused_once(&watched, "slice_size", || {
        drop(server.post("file_name=a&slice_id=0&slice_size=2000000", &[0; 2_000_000]).expect(413))
    });
    watched.begin("a");
    watched.begin("b");
    refused_once(&watched, "uploads", || get("file_name=c&slice_num=2&slice_size=1", 503));
    // Beyond what a file may have, so that no answer could list it.
    let watched = Watched::with(&["--max-response-size", "1M"]);
    watched.server().post("file_name=a&slice_id=0&slice_num=1&slice_size=1", b"x").expect(200);
    refused_once(&watched, "response_size", || drop(watched.server().get("file_name=a&slice_num=1000000").expect(413)));
    watched.eventually(&[("request_duration_seconds_count{route=\"begin\",status=\"413\"}", 1.0)]);
    // Answers that nobody reads take the room of others.
    let ask = b"GET /big_file_upload?file_name=a&slice_num=100000&source=test HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let mut unread = vec![];
    refused_once(&watched, "responses", || {
        while Scrape::of(&watched.url).get("refused_total{limit=\"responses\"}") < 1.0 {
            let mut stream = connect(watched.daemon.url());
            stream.write_all(ask).unwrap();
            stream.read_exact(&mut [0]).unwrap();
            unread.push(stream);
            assert!(unread.len() < 20);
        }
    });
}

#[test]
fn each_limit_of_connections_and_times_counts_for_itself() {
    let times = ["--header-timeout", "1s", "--body-timeout", "1s", "--min-body-rate", "1000"];
    let watched = Watched::with(&[&["--max-connections", "2"], &times[..]].concat());
    refused_once(&watched, "header", || {
        let mut stream = connect(watched.daemon.url());
        stream.write_all(b"GET /big_file").unwrap();
        assert!(read_to_end(stream).starts_with("HTTP/1.1 408"));
    });
    watched.begin("a");
    refused_once(&watched, "body_rate", || {
        let mut stream = connect(watched.daemon.url());
        stream.write_all(&post_head(&slice("a", 0), &["Content-Length: 1024"])).unwrap();
        stream.write_all(b"x").unwrap();
        assert!(read_to_end(stream).starts_with("HTTP/1.1 408"));
    });
    watched.server().post("file_name=b&slice_id=0&slice_num=1&slice_size=1", b"x").expect(200);
    eventually("all connections are gone", || Scrape::of(&watched.url).get("connections_open") == 1.0);
    refused_once(&watched, "reading", || {
        let mut stream = connect(watched.daemon.url());
        stream
            .write_all(
                b"GET /big_file_upload?file_name=b&slice_num=1000000&source=test HTTP/1.1\r\nHost: localhost\r\n\r\n",
            )
            .unwrap();
        eventually("it is given up", || Scrape::of(&watched.url).get("refused_total{limit=\"reading\"}") > 0.0);
    });
    let watched = Watched::with(&["--max-connections", "2"]);
    let taken = [connect(watched.daemon.url()), connect(watched.daemon.url())];
    watched.eventually(&[("connections_open", 3.0)]);
    refused_once(&watched, "connections", || drop(watched.server().get("peek=1").expect(503)));
    drop(taken);
    let watched = Watched::with(&["--max-connections-per-address", "1"]);
    let _taken = connect(watched.daemon.url());
    watched.eventually(&[("connections_open", 2.0)]);
    refused_once(&watched, "connections_per_address", || drop(watched.server().get("peek=1").expect(429)));
}

/// Makes a token with further arguments of `token new`.
fn new_token(data: &Path, name: &str, arguments: &[&str]) -> String {
    let mut command = Command::new(programs::path("bigupd"));
    let output = command.args(["token", "new", name, "--data-dir"]).arg(data).args(arguments).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn each_limit_of_tokens_and_of_disk_space_counts_for_itself() {
    let watched = Watched::with(&["--max-uploads-per-token", "1"]);
    let token = new_token(&watched.daemon.data(), "bounded", &["--quota", "20000"]);
    let server = watched.server().with_token(&token);
    server.get("file_name=a&slice_size=1000&file_size=4000").expect(200);
    refused_once(&watched, "uploads_per_token", || {
        drop(server.get("file_name=b&slice_size=10&file_size=40").expect(429));
    });
    let watched = Watched::with(&[]);
    let token = new_token(&watched.daemon.data(), "bounded", &["--quota", "20000"]);
    let server = watched.server().with_token(&token);
    server.get("file_name=a&slice_size=1000&file_size=4000").expect(200);
    refused_once(&watched, "quota", || drop(server.get("file_name=b&slice_size=1000&file_size=4000").expect(413)));
    let watched = Watched::with(&["--reserve", "100000T"]);
    refused_once(&watched, "disk_space", || {
        drop(watched.server().get("file_name=a&slice_size=1000&file_size=4000").expect(507));
    });
    let small = "file_name=a&slice_id=0&slice_num=1&slice_size=1";
    refused_once(&watched, "disk_space", || drop(watched.server().post(small, b"x").expect(507)));
    watched.eventually(&[("disk_free_bytes", 0.0), (BEGUN, 0.0)]);
}

#[test]
fn what_expires_and_what_cannot_be_published_has_failed() {
    let watched = Watched::with(&["--expire-after", "3s", "--merger-idle", "100ms"]);
    watched.begin("abandoned");
    watched.eventually(&[("uploads_failed_total{reason=\"expired\"}", 1.0), ("uploads_unfinished", 0.0)]);
    let watched = Watched::with(&[]);
    watched.begin("unreadable");
    fs::write(watched.daemon.data().join("tmp/unreadable/upload.json"), "garbage").unwrap();
    watched.begin("unreadable");
    watched.eventually(&[("uploads_failed_total{reason=\"unreadable\"}", 1.0), (BEGUN, 2.0)]);
    let watched = Watched::with(&[]);
    let wrong = "0".repeat(64);
    watched
        .server()
        .get(&format!("file_name=blocked&slice_size={KIB}&file_size={}&file_digest={wrong}", 4 * KIB))
        .expect(200);
    (0..4).for_each(|slice_id| watched.post("blocked", slice_id));
    watched.eventually(&[
        ("uploads_failed_total{reason=\"blocked\"}", 1.0),
        ("merger_exits_total{reason=\"blocked\"}", 1.0),
        ("uploads_failed_total{reason=\"expired\"}", 0.0),
        ("uploads_failed_total{reason=\"cancelled\"}", 0.0),
        ("uploads_finished_total", 0.0),
        ("uploads_unfinished", 1.0),
        ("merged_bytes_total", 4096.0),
    ]);
}

#[test]
fn mergers_that_are_killed_idle_or_fail_are_told_apart() {
    let watched = Watched::with(&["--merger-idle", "60s"]);
    watched.begin("a");
    watched.post("a", 0);
    let merger = watched.merger("a");
    watched.eventually(&[("mergers_running", 1.0), ("merged_bytes_total", 1024.0)]);
    // What is not synced yet would be merged again, and counted again.
    eventually("slice 0 is merged for good", || !watched.daemon.data().join("tmp/a/0").exists());
    assert!(signal_program(merger, "bigup-merger", Signal::SIGKILL));
    watched.eventually(&[
        ("merger_exits_total{reason=\"killed\"}", 1.0),
        ("mergers_running", 0.0),
        ("merger_starts_total", 1.0),
    ]);
    watched.post("a", 1);
    // info.ini may tell the old one for a moment.
    eventually("the next one is there", || signal_program(watched.merger("a"), "bigup-merger", Signal::SIGTERM));
    watched.eventually(&[("merger_exits_total{reason=\"stopped\"}", 1.0), ("merged_bytes_total", 2048.0)]);
    let watched = Watched::with(&["--merger-idle", "10ms"]);
    watched.begin("a");
    watched.post("a", 0);
    watched.eventually(&[("merger_exits_total{reason=\"idle\"}", 1.0)]);
    let watched = Watched::with(&["--merger", "/nonexistent/merger"]);
    watched.begin("a");
    watched.post("a", 0);
    eventually("starting it fails", || {
        Scrape::of(&watched.url).get("merger_exits_total{reason=\"not_started\"}") > 0.0
    });
    watched.eventually(&[("merger_starts_total", 0.0)]);
}

#[test]
fn hooks_count_by_what_they_answer() {
    let watched = Watched::with(&["--on-begin", "/bin/false"]);
    watched.server().get("file_name=a&slice_size=1000&file_size=4000").expect(403);
    watched.eventually(&[
        ("hook_answers_total{hook=\"on_begin\",answer=\"no\"}", 1.0),
        ("hook_answers_total{hook=\"on_begin\",answer=\"yes\"}", 0.0),
        (BEGUN, 0.0),
    ]);
    let small = "file_name=a&slice_id=0&slice_num=1&slice_size=1";
    for (program, given_up, answers) in [("/bin/true", 0.0, ("yes", 1.0)), ("/bin/false", 1.0, ("no", 2.0))] {
        let watched = Watched::with(&["--on-complete", program, "--on-complete-attempts", "2"]);
        watched.server().post(small, b"x").expect(200);
        let answers = (format!("hook_answers_total{{hook=\"on_complete\",answer=\"{}\"}}", answers.0), answers.1);
        watched.eventually(&[
            (&answers.0, answers.1),
            ("completions_given_up_total", given_up),
            ("completions_waiting", 0.0),
            ("uploads_finished_total", 1.0),
        ]);
    }
}

#[test]
fn lag_is_what_waits_and_its_age_only_where_a_merger_is_due() {
    let watched = Watched::with(&["--merger", "/bin/false"]);
    watched.begin("a");
    watched.post("a", 2);
    watched.post("a", 3);
    watched.eventually(&[("merge_lag_bytes", 2048.0), ("merge_lag_seconds", 0.0), ("merger_starts_total", 0.0)]);
    watched.post("a", 0);
    watched.eventually(&[("merge_lag_bytes", 3072.0)]);
    eventually("the slice grows old", || Scrape::of(&watched.url).get("merge_lag_seconds") > 3.0);
    assert!(Scrape::of(&watched.url).get("merger_exits_total{reason=\"failed\"}") > 0.0);
    // As it rests, and is not read again: what it holds still counts.
    let watched = Watched::with(&["--merger-idle", "10ms"]);
    watched.begin("a");
    watched.post("a", 0);
    watched.post("a", 2);
    watched.eventually(&[("merge_lag_bytes", 1024.0), ("mergers_running", 0.0)]);
    std::thread::sleep(std::time::Duration::from_secs(5));
    watched.eventually(&[("merge_lag_bytes", 1024.0), ("merge_lag_seconds", 0.0), ("uploads_unfinished", 1.0)]);
}

#[test]
fn a_merger_whose_daemon_died_goes_on_and_publishes() {
    let mut watched = Watched::with(&["--merger-idle", "120s"]);
    watched.begin("a");
    watched.post("a", 0);
    let merger = watched.merger("a");
    watched.eventually(&[("merged_bytes_total", 1024.0)]);
    watched.daemon.kill_9();
    let other = Watched::of(watched.daemon.another());
    // Several checkpoints, each of which is told to nobody.
    for slice_id in 1..4 {
        other.post("a", slice_id);
        if slice_id < 3 {
            let next = (slice_id + 1).to_string();
            eventually("it is merged and synced", || {
                other.daemon.info("a", "curr_merge_slice_id").as_ref() == Some(&next)
            });
            assert_eq!(other.merger("a"), merger);
        }
    }
    eventually("it is published", || other.daemon.finished("a").exists());
    let content: Vec<u8> = (0..4).flat_map(|slice_id| [slice_id; KIB]).collect();
    assert!(fs::read(other.daemon.finished("a")).unwrap() == content);
    other.daemon.eventually_clean();
    other.eventually(&[("merger_starts_total", 0.0), ("uploads_finished_total", 0.0), ("slices_received_total", 3.0)]);
}

#[test]
fn many_who_look_at_once_see_counters_that_only_grow() {
    let watched = Watched::with(&[]);
    let file = data::file(&watched.daemon.scratch(), "f", 1, 48 * MIB);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let (mut seen, mut times) = (0.0, 0);
                while !stop.load(Ordering::Relaxed) || times < 10 {
                    let now = Scrape::of(&watched.url).get("received_bytes_total");
                    assert!(now >= seen, "{now} after {seen}");
                    (seen, times) = (now, times + 1);
                    page(&watched.url, "/readyz", None);
                }
            });
        }
        succeed(watched.push(&file, &["--slice-size", "256K"]));
        stop.store(true, Ordering::Relaxed);
    });
    watched.eventually(&[("received_bytes_total", (48 * MIB) as f64), ("merged_bytes_total", (48 * MIB) as f64)]);
    let now = Scrape::of(&watched.url);
    assert_eq!(now.get("request_duration_seconds_count{route=\"metrics\",status=\"200\"}").fract(), 0.0);
    assert!(now.get("request_duration_seconds_count{route=\"health\",status=\"200\"}") >= 40.0);
}

fn checks(page: &Page) -> Value {
    serde_json::from_str::<Value>(&page.text).unwrap_or_else(|e| panic!("{page:?}: {e}"))["checks"].clone()
}

#[test]
fn a_daemon_is_ready_until_its_folder_its_disk_space_or_its_lock_is_gone() {
    let watched = Watched::with(&[]);
    let daemon = &watched.daemon;
    for url in [daemon.url(), &watched.url] {
        let alive = page(url, "/healthz", None);
        assert_eq!(
            (alive.status, &alive.text[..], &alive.content_type[..]),
            (200, "ok\n", "text/plain; charset=utf-8")
        );
        let ready = page(url, "/readyz", None);
        assert_eq!((ready.status, &ready.content_type[..]), (200, "application/json"), "{ready:?}");
        for check in ["data_folder", "disk_space", "lock", "running"] {
            assert_eq!(checks(&ready)[check], "ok", "{ready:?}");
        }
    }
    let not_ready = |check: &str, says: &str| {
        eventually(&format!("{check} is wrong"), || page(daemon.url(), "/readyz", None).status == 503);
        let said = page(daemon.url(), "/readyz", None);
        assert!(checks(&said)[check].as_str().unwrap().contains(says), "{said:?}");
        assert!(!said.text.contains("data/") && !said.text.contains("tmp/"), "a path is told: {said:?}");
        assert_eq!(page(daemon.url(), "/healthz", None).status, 200);
    };
    let ready_again = || eventually("it is ready again", || page(daemon.url(), "/readyz", None).status == 200);
    let (tmp, aside) = (daemon.data().join("tmp"), daemon.data().join("aside"));
    fs::rename(&tmp, &aside).unwrap();
    not_ready("data_folder", "cannot be written to");
    fs::rename(&aside, &tmp).unwrap();
    ready_again();
    // Nothing replaces info.ini while there is no upload.
    let held = File::options().create(true).append(true).open(daemon.data().join("info.ini")).unwrap();
    held.lock().unwrap();
    not_ready("lock", "holds the lock");
    held.unlock().unwrap();
    ready_again();
    assert_eq!(daemon.spools(), [""; 0], "nothing is left of the checks");
    let full = Daemon::with(&["--reserve", "100000T"]);
    let said = page(full.url(), "/readyz", None);
    assert_eq!((said.status, &checks(&said)["data_folder"]), (503, &"ok".into()));
    assert!(checks(&said)["disk_space"].as_str().unwrap().contains("free some"), "{said:?}");
}

#[test]
fn a_daemon_that_drains_is_not_ready_and_serves_on_until_it_is_stopped() {
    let mut daemon = Daemon::with(&["--drain-time", "10m"]);
    let running = |daemon: &Daemon| {
        let ready = page(daemon.url(), "/readyz", None);
        (ready.status, checks(&ready)["running"].as_str().unwrap().to_owned())
    };
    assert_eq!(running(&daemon), (200, "ok".to_owned()));
    let drain = |pid: &str| Command::new(programs::path("bigupd")).args(["drain", pid]).output().unwrap();
    let wrong = drain(&std::process::id().to_string());
    assert!(!wrong.status.success() && String::from_utf8_lossy(&wrong.stderr).contains("is no daemon of bigup"));
    let told = drain(&daemon.pid().to_string());
    assert!(told.status.success(), "{told:?}");
    eventually("it is not ready", || running(&daemon).0 == 503);
    assert!(running(&daemon).1.contains("draining"), "{:?}", running(&daemon));
    signal(daemon.pid(), Signal::SIGTERM);
    eventually("it has heard the signal", || daemon.log().contains("then the daemon stops"));
    daemon.server().get("file_name=f&slice_num=1").expect(200);
    assert_eq!(running(&daemon).0, 503);
    // A second signal ends it at once. That loses nothing.
    daemon.kill_by(Signal::SIGTERM);
    let mut daemon = Daemon::with(&["--drain-time", "1s"]);
    let began = Instant::now();
    daemon.stop();
    assert!(began.elapsed() >= Duration::from_secs(1), "{:?}", began.elapsed());
}

#[test]
fn a_daemon_that_stops_says_so_to_those_who_watch_it() {
    let watched = Watched::with(&["--stop-grace", "60s"]);
    watched.begin("a");
    let mut stream = connect(watched.daemon.url());
    stream.write_all(&post_head(&slice("a", 0), &["Content-Length: 1024"])).unwrap();
    stream.write_all(b"x").unwrap();
    watched.eventually(&[("slices_arriving", 1.0)]);
    signal(watched.daemon.pid(), Signal::SIGTERM);
    eventually("it is not ready", || page(&watched.url, "/readyz", None).status == 503);
    let said = page(&watched.url, "/readyz", None);
    assert!(checks(&said)["running"].as_str().unwrap().contains("stopping"), "{said:?}");
    assert_eq!(page(&watched.url, "/healthz", None).status, 200);
    stream.write_all(&[b'x'; KIB - 1]).unwrap();
    assert!(read_answer(&mut stream).starts_with("HTTP/1.1 200"));
}

#[test]
fn metrics_are_for_who_may_read_everything_and_probes_for_everybody() {
    let daemon = Daemon::start();
    assert_eq!(page(daemon.url(), "/metrics", None).status, 200);
    let token = |name: &str, arguments: &[&str]| new_token(&daemon.data(), name, arguments);
    let readers = [token("reader", &["--permissions", "read"]), token("admin", &["--permissions", "admin"])];
    let others = [token("pusher", &["--permissions", "push"]), token("tenant", &["--prefix", "tenant/"])];
    for reader in &readers {
        assert_eq!(page(daemon.url(), "/metrics", Some(reader)).status, 200);
    }
    for other in &others {
        assert_eq!(page(daemon.url(), "/metrics", Some(other)).status, 403);
    }
    assert_eq!(page(daemon.url(), "/metrics", None).status, 401);
    assert_eq!(page(daemon.url(), "/metrics", Some("bigup_wrong")).status, 401);
    for path in ["/healthz", "/readyz"] {
        assert_eq!(page(daemon.url(), path, None).status, 200, "{path}");
    }
    let post = |path: &str| {
        let mut stream = connect(daemon.url());
        write!(stream, "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nxxx").unwrap();
        read_answer(&mut stream)
    };
    assert!(post("/healthz").starts_with("HTTP/1.1 405"));
    assert!(post("/elsewhere").starts_with("HTTP/1.1 404"));
}

#[test]
fn a_listener_of_their_own_takes_the_metrics_away_from_the_uploads() {
    let watched = Watched::with(&[]);
    assert_eq!(page(watched.daemon.url(), "/metrics", None).status, 404);
    assert_eq!(page(&watched.url, "/big_file_upload?peek=1", None).status, 404);
    // It asks for no token, whatever uploads need.
    new_token(&watched.daemon.data(), "t", &[]);
    let metrics = page(&watched.url, "/metrics", None);
    assert_eq!((metrics.status, &metrics.content_type[..]), (200, "text/plain; version=0.0.4; charset=utf-8"));
    for (line, status) in [
        ("HEAD /healthz", 200),
        ("POST /metrics", 405),
        ("OPTIONS *", 404),
        ("CONNECT test:80", 404),
        ("GET http://x", 404),
    ] {
        let request = format!("{line} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        let answer = raw(&watched.url, request.as_bytes());
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{line}: {answer}");
    }
    let mut taken = Command::new(programs::path("bigupd"));
    let address = watched.url.strip_prefix("http://").unwrap();
    let data = watched.daemon.scratch().join("other");
    taken.arg("--data-dir").arg(data).args(["--listen", "127.0.0.1:0", "--metrics-listen", address]);
    let output = taken.output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("metrics_listen"), "{output:?}");
}

/// The metrics of a daemon that has done a bit of everything.
fn lived_in() -> String {
    let watched = Watched::with(&[]);
    let len = 3 * MIB;
    succeed(watched.push(&data::file(&watched.daemon.scratch(), "f", 1, len), &["--slice-size", "1M"]));
    watched.server().get("file_name=..").expect(400);
    page(&watched.url, "/metrics", None);
    page(&watched.url, "/metrics", None).text
}

/// Name and type of each metric.
fn types(text: &str) -> BTreeSet<(String, String)> {
    let lines = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    lines
        .map(|line| line.split_once(' ').expect("a name and a type"))
        .map(|(n, t)| (n.to_owned(), t.to_owned()))
        .collect()
}

fn read(path: &str) -> String {
    fs::read_to_string(docs::root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

#[test]
fn prometheus_finds_nothing_to_complain_of() {
    assert_eq!(promtool_says(&["check", "metrics"], &lived_in()), "");
    let rules: PathBuf = docs::root().join("systemd/alerts.yml");
    let said = promtool_says(&["check", "rules", "--lint=all", "--lint-fatal", rules.to_str().unwrap()], "");
    assert!(said.contains("SUCCESS"), "{said}");
}

#[test]
fn each_alert_fires_where_something_is_wrong_and_none_where_all_is_well() {
    let tests: PathBuf = docs::root().join("tests/alerts.yml");
    promtool_says(&["test", "rules", tests.to_str().unwrap()], "");
    let (alerts, tests) = (read("systemd/alerts.yml"), read("tests/alerts.yml"));
    for alert in alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")) {
        assert!(tests.contains(&format!("alertname=\"{alert}\"")), "{alert} is not in tests/alerts.yml");
    }
}

/// Rows of the tables of docs/metrics.md: name, type, labels.
fn documented() -> Vec<(String, String, BTreeSet<String>)> {
    let text = read("docs/metrics.md");
    let rows = text.lines().filter(|line| line.starts_with("| `bigup_") || line.starts_with("| `process_"));
    rows.map(|row| {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let labels = cells[3].split('`').skip(1).step_by(2).map(str::to_owned).collect();
        (cells[1].trim_matches('`').to_owned(), cells[2].to_owned(), labels)
    })
    .collect()
}

#[test]
fn the_documents_tell_of_every_metric_and_of_no_other() {
    let text = lived_in();
    let documented = documented();
    let told: BTreeSet<(String, String)> = documented.iter().map(|(n, t, _)| (n.clone(), t.clone())).collect();
    assert_eq!(told.len(), documented.len(), "a metric is told of twice");
    assert_eq!(told, types(&text));
    let scrape = Scrape::read(&text);
    for (name, kind, labels) in documented {
        let is_of_it = |series: &&str| {
            let rest = series.strip_prefix(&name[..]).unwrap_or("-");
            let rest = if kind == "histogram" { rest.strip_prefix("_count").unwrap_or("-") } else { rest };
            rest.is_empty() || rest.starts_with('{')
        };
        let mut any = false;
        for series in scrape.series().filter(is_of_it) {
            let pairs = series.split_once('{').map_or("", |(_, pairs)| pairs.trim_end_matches('}'));
            let has = pairs.split(',').filter_map(|pair| Some(pair.split_once('=')?.0.to_owned())).collect();
            assert_eq!(labels, has, "{series}");
            any = true;
        }
        assert!(any, "{name} has no series");
    }
}

/// Names of metrics in an expression, without what histograms add.
fn names(expression: &str) -> BTreeSet<String> {
    let words = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let names = words.filter(|word| word.starts_with("bigup_") || word.starts_with("process_"));
    let suffixes = ["_bucket", "_count", "_sum"];
    names.map(|name| suffixes.iter().find_map(|s| name.strip_suffix(s)).unwrap_or(name).to_owned()).collect()
}

/// Everything under this key, at any depth.
fn all<'a>(key: &str, value: &'a Value, found: &mut Vec<&'a Value>) {
    match value {
        Value::Object(object) => {
            found.extend(object.get(key));
            object.values().for_each(|value| all(key, value, found));
        }
        Value::Array(array) => array.iter().for_each(|value| all(key, value, found)),
        _ => {}
    }
}

#[test]
fn the_dashboard_and_the_alerts_ask_for_metrics_that_there_are() {
    let there: BTreeSet<String> = documented().into_iter().map(|(name, _, _)| name).collect();
    let dashboard: Value = serde_json::from_str(&read("systemd/grafana.json")).expect("it is JSON");
    let mut expressions = vec![];
    all("expr", &dashboard, &mut expressions);
    let mut asked = BTreeSet::new();
    for expression in &expressions {
        let names = names(expression.as_str().expect("it is text"));
        assert!(!names.is_empty() && names.is_subset(&there), "{expression}");
        asked.extend(names);
    }
    assert!(asked.len() > 15, "few are shown: {asked:?}");
    // What an import needs: a panel for each expression, on a source of data that is chosen then.
    let panels = dashboard["panels"].as_array().expect("there are panels");
    let ids: BTreeSet<u64> = panels.iter().map(|panel| panel["id"].as_u64().expect("a number")).collect();
    assert_eq!(ids.len(), panels.len());
    for panel in panels.iter().filter(|panel| panel["type"] != "row") {
        assert!(panel["title"].is_string() && panel["gridPos"]["w"].is_u64(), "{panel}");
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{panel}");
        assert!(!panel["targets"].as_array().expect("something is asked").is_empty());
    }
    assert!(
        dashboard["schemaVersion"].as_u64() >= Some(38) && dashboard["id"].is_null() && dashboard["title"].is_string()
    );
    let alerts = read("systemd/alerts.yml");
    let asked = names(&alerts.lines().filter(|line| !line.trim_start().starts_with('#')).collect::<String>());
    assert!(asked.len() > 5 && asked.is_subset(&there), "{:?}", asked.difference(&there));
    // Documented alerts are those.
    let text = read("docs/metrics.md");
    for alert in alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")) {
        assert!(text.contains(&format!("`{alert}`")), "{alert} is not in docs/metrics.md");
    }
}
