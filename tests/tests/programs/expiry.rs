//! Abandoned uploads go, those at work stay, and a clock that is set takes none of them. Needs libfaketime.

use bigup_core::protocol::name::FileName;
use bigup_core::storage::data_dir::DataDir;
use bigup_core::storage::spool::{Spool, UploadId};
use bigup_tests::daemon::Daemon;
use bigup_tests::process::{eventually, within};
use bigup_tests::{data, http, programs};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const SLICE: usize = 1024;

fn begin(daemon: &Daemon, name: &str) {
    daemon.server().get(&format!("file_name={name}&slice_size={SLICE}&file_size={}", 4 * SLICE)).expect(200);
}

fn post(daemon: &Daemon, name: &str, slice_id: usize) {
    let query = format!("file_name={name}&slice_id={slice_id}&slice_size={SLICE}");
    daemon.server().post(&query, &[7; SLICE]).expect(200);
}

fn spool_of(daemon: &Daemon, name: &str) -> Spool {
    Spool::of(&DataDir::open(&daemon.data()).unwrap(), &UploadId::of_name(&FileName::new(name).unwrap()))
}

fn exists(daemon: &Daemon, name: &str) -> bool {
    daemon.spools().contains(&name.to_owned())
}

#[test]
fn an_abandoned_upload_goes_and_those_at_work_stay() {
    let daemon = Daemon::with(&["--expire-after", "3s", "--merger-idle", "100ms"]);
    for name in ["abandoned", "blocked", "merged", "arriving", "sent"] {
        begin(&daemon, name);
        post(&daemon, name, 1);
    }
    // Blocked for good, and named as such.
    let blocked = spool_of(&daemon, "blocked");
    let mut locked = blocked.lock().unwrap().unwrap();
    let upload =
        bigup_core::storage::spool::UploadRecord { blocked: Some("in the way".to_owned()), ..locked.upload().clone() };
    locked.save(upload).unwrap();
    drop(locked);
    // A merger at work, a slice that is stuck, and one that comes again and again.
    let merger = spool_of(&daemon, "merged").try_merger_lock().unwrap().unwrap();
    let mut stuck = http::connect(daemon.url());
    let head = format!(
        "POST /big_file_upload?file_name=arriving&slice_id=2&slice_size={SLICE}&source=test HTTP/1.1\r\nHost: localhost\r\n\
         Content-Length: {SLICE}\r\n\r\nx"
    );
    stuck.write_all(head.as_bytes()).unwrap();
    eventually("the slice is arriving", || daemon.spool_has_part("arriving"));
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let sent = spool_of(&daemon, "sent");
            while !stop.load(Ordering::Relaxed) {
                // As any byte of a slice does; no request could be sure to come often enough on a slow machine.
                drop(sent.arrival(3).unwrap());
                std::thread::sleep(Duration::from_millis(100));
            }
        });
        eventually("the abandoned ones are gone", || !exists(&daemon, "abandoned") && !exists(&daemon, "blocked"));
        // Two more looks.
        std::thread::sleep(Duration::from_secs(5));
        for name in ["merged", "arriving", "sent"] {
            assert!(exists(&daemon, name), "{name}");
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(daemon.log().contains("abandoned: the upload is removed with the"), "it is told");
    daemon.server().get("peek=1&file_name=abandoned").expect(404);
    drop((merger, stuck));
    daemon.eventually_clean();
}

#[test]
fn an_upload_that_expired_under_a_push_is_begun_anew() {
    let daemon = Daemon::with(&["--expire-after", "2s", "--merger-idle", "100ms"]);
    begin(&daemon, "f");
    post(&daemon, "f", 0);
    eventually("it is gone", || !exists(&daemon, "f"));
    let query = format!("file_name=f&slice_id=1&slice_size={SLICE}");
    assert_eq!(daemon.server().post(&query, &[7; SLICE]).expect(404).body["error"], "no_upload");
    begin(&daemon, "f");
    (0..4).for_each(|slice_id| post(&daemon, "f", slice_id));
    eventually("the file is finished", || daemon.finished("f").exists());
}

#[test]
fn an_upload_of_which_nothing_came_goes_sooner_and_may_be_begun_anew() {
    let daemon = Daemon::with(&["--begin-expire-after", "3s", "--merger-idle", "100ms"]);
    for name in ["begun", "waits", "merged", "arriving"] {
        begin(&daemon, name);
    }
    post(&daemon, "waits", 1);
    post(&daemon, "merged", 0);
    let mut stuck = http::connect(daemon.url());
    let query = format!("file_name=arriving&slice_id=2&slice_size={SLICE}");
    stuck.write_all(&http::post_head(&query, &[&format!("Content-Length: {SLICE}")])).unwrap();
    eventually("the slice is arriving", || daemon.spool_has_part("arriving"));
    eventually("it is gone", || !exists(&daemon, "begun"));
    eventually("it is told", || daemon.log().contains("begun: the upload is removed with the"));
    // Another one goes in the same way, after the same looks at those that stay.
    begin(&daemon, "next");
    eventually("it is gone, too", || !exists(&daemon, "next"));
    for name in ["waits", "merged", "arriving"] {
        assert!(exists(&daemon, name), "{name}");
    }
    // A client that took its time.
    let query = format!("file_name=begun&slice_id=0&slice_size={SLICE}");
    assert_eq!(daemon.server().post(&query, &[7; SLICE]).expect(404).body["error"], "no_upload");
    begin(&daemon, "begun");
    (0..4).for_each(|slice_id| post(&daemon, "begun", slice_id));
    eventually("the file is finished", || daemon.finished("begun").exists());
}

#[test]
fn nothing_expires_where_that_is_told() {
    let daemon = Daemon::with(&["--expire-after", "0", "--begin-expire-after", "0"]);
    begin(&daemon, "f");
    std::thread::sleep(Duration::from_secs(3));
    assert!(exists(&daemon, "f") && !daemon.data().join("expiry.json").exists());
}

#[test]
fn two_daemons_expire_and_sweep_one_folder_and_pushes_go_through_both() {
    let daemon = Daemon::with(&["--expire-after", "3s", "--merger-idle", "100ms"]);
    let other = daemon.another();
    for i in 0..20 {
        begin(&daemon, &format!("left{i}"));
        post(&daemon, &format!("left{i}"), 2);
    }
    std::thread::scope(|scope| {
        for (i, url) in [daemon.url(), other.url()].into_iter().enumerate() {
            let file = data::file(&daemon.scratch(), &format!("f{i}"), i as u64, 8 << 20);
            scope.spawn(move || {
                for round in 0..4 {
                    let name = format!("pushed{i}-{round}");
                    let mut command = programs::cli();
                    command.arg("push").arg(&file).args(["--url", url, "--slice-size", "64K", "--name", &name]);
                    let output = command.stdin(Stdio::null()).output().unwrap();
                    assert!(output.status.success(), "{output:?}");
                }
            });
        }
    });
    daemon.eventually_clean();
    for i in 0..2 {
        for round in 0..4 {
            let pushed = daemon.finished(&format!("pushed{i}-{round}"));
            assert!(data::same(&daemon.scratch().join(format!("f{i}")), &pushed));
        }
    }
    assert_eq!(daemon.log().matches(": the upload is removed with the").count(), 20, "each is removed by one of them");
    assert!(!daemon.log().contains("panicked"));
}

/// What starts a program whose clock is as the file says: an offset like `+365d`, or nothing for the right time.
fn with_clock(file: &Path) -> Vec<String> {
    let library = ["x86_64", "aarch64"].map(|cpu| format!("/usr/lib/{cpu}-linux-gnu/faketime/libfaketime.so.1"));
    let library = library.iter().find(|path| Path::new(path).exists()).expect("libfaketime is installed");
    let set = |key: &str, value: &str| format!("{key}={value}");
    vec![
        "env".to_owned(),
        set("LD_PRELOAD", library),
        set("FAKETIME_TIMESTAMP_FILE", file.to_str().unwrap()),
        set("FAKETIME_NO_CACHE", "1"),
        // Neither the clock that only goes forward nor the times of files are set with the wall clock.
        set("DONT_FAKE_MONOTONIC", "1"),
        set("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        set("NO_FAKE_STAT", "1"),
    ]
}

struct Clock {
    folder: tempfile::TempDir,
}

impl Clock {
    fn new() -> Clock {
        let clock = Clock { folder: tempfile::tempdir().unwrap() };
        clock.set("+0");
        clock
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("clock")
    }

    fn set(&self, offset: &str) {
        fs::write(self.folder.path().join("new"), format!("{offset}\n")).unwrap();
        fs::rename(self.folder.path().join("new"), self.file()).unwrap();
    }
}

fn told(daemon: &Daemon) -> usize {
    daemon.log().matches("the clock was set, or no daemon ran").count()
}

#[test]
fn a_clock_set_forward_by_a_year_and_back_takes_no_upload() {
    let (clock, folder) = (Clock::new(), tempfile::tempdir().unwrap());
    let arguments = ["--expire-after", "1m", "--merger-idle", "1s"];
    let mut daemon = Daemon::launched(with_clock(&clock.file()), &folder.path().join("data"), &arguments);
    begin(&daemon, "paused");
    post(&daemon, "paused", 1);
    let paused = spool_of(&daemon, "paused");
    for (jump, offset) in ["+365d", "+0", "-30d", "+0"].into_iter().enumerate() {
        clock.set(offset);
        eventually("the daemon sees it", || told(&daemon) > jump);
        // Looks go on, and so do pushes.
        begin(&daemon, &format!("f{jump}"));
        (0..4).for_each(|slice_id| post(&daemon, &format!("f{jump}"), slice_id));
        eventually("the file is finished", || daemon.finished(&format!("f{jump}")).exists());
        std::thread::sleep(Duration::from_secs(5));
        assert!(paused.upload().unwrap().is_some(), "{offset}");
    }
    // The same across a restart.
    daemon.stop();
    clock.set("+365d");
    daemon.run();
    within(Duration::from_secs(60), "the daemon sees it", || told(&daemon) > 4);
    std::thread::sleep(Duration::from_secs(5));
    assert!(paused.upload().unwrap().is_some());
    post(&daemon, "paused", 0);
    assert!(!daemon.log().contains("panicked") && !daemon.log().contains("the upload is removed"));
}
