//! Faults at every step: the n-th file operation of daemon and mergers fails, for every n until an upload passes without
//! reaching it, in every way that disks fail. How that is done, and what it does not do, says [`bigup_tests::faults`].
//!
//! After each fault the client ended well or with a clear error, nobody crashed, and under the final name there never
//! was anything but the whole file, or the old one where it is replaced. Once the fault is lifted the same push
//! completes, exact and synced, and nothing is left behind. What single faults are about has tests of its own below.
//!
//! Where all operations count, two of the four uploads are tried at one n in three; `BIGUP_FAULT_STEP=1` tries all.

use bigup_core::storage::disk::forget_cached;
use bigup_core::storage::spool::{CANCELLED, TOLD_FOR};
use bigup_tests::daemon::{Daemon, list};
use bigup_tests::faults::{Effect, Fault, Faults, kind, library, program};
use bigup_tests::http::Server;
use bigup_tests::mount::{Mount, make_image, run};
use bigup_tests::needs_root;
use bigup_tests::process::{PATIENCE, eventually, kill_9};
use bigup_tests::turns::turn;
use bigup_tests::{data, programs};
use nix::errno::Errno;
use std::fs;
use std::io::{Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

/// Data folders that are worked on at once: mostly each waits for somebody's pause.
const LANES: usize = 12;

/// How long a client meets a fault at most; then it is lifted, whether or not the client has given up.
const EXPOSURE: Duration = Duration::from_secs(2);

/// Wrong rounds after which no more are tried.
const ENOUGH: usize = 10;

/// What is uploaded.
#[derive(Clone, Copy, Debug)]
struct UploadRecord {
    what: &'static str,
    /// Bytes of the file.
    len: u64,
    /// Arguments of the push.
    arguments: &'static [&'static str],
    /// A file of other content stands there already.
    replaces: bool,
    /// It is read from standard input.
    stdin: bool,
    /// Settings of the daemon.
    settings: &'static [&'static str],
}

/// Five slices and a rest, subtrees of the file's digest.
const SLICES: UploadRecord = UploadRecord {
    what: "slices",
    len: 5 * 8192 + 777,
    arguments: &["--slice-size", "8K"],
    replaces: false,
    stdin: false,
    settings: &[],
};

/// The same, each synced before the answer to it.
const SYNCED: UploadRecord = UploadRecord { what: "synced slices", settings: &["--slice-ack", "synced"], ..SLICES };

/// All in one request.
const AT_ONCE: UploadRecord = UploadRecord { what: "at once", len: 5000, arguments: &[], ..SLICES };

/// Slices that are no subtrees, over another file.
const REPLACE: UploadRecord = UploadRecord {
    what: "replace",
    len: 3 * 10_000 + 1,
    arguments: &["--slice-size", "10000", "--replace"],
    replaces: true,
    ..SLICES
};

/// The end is not known before it comes.
const STDIN: UploadRecord = UploadRecord { what: "stdin", len: 3 * 8192 + 1, stdin: true, ..SLICES };

/// With a hook, which is told of the file.
const HOOKED: UploadRecord = UploadRecord { what: "hooked", settings: &["--on-complete", "/bin/true"], ..SLICES };

/// The same, by a daemon that publishes it itself.
const HOOKED_AT_ONCE: UploadRecord = UploadRecord { what: "hooked at once", settings: HOOKED.settings, ..AT_ONCE };

/// An error of the disk, at one operation of any kind.
const ERROR: Fault =
    Fault { kinds: kind::ALL, programs: program::BOTH, only: "", error: Errno::EIO, effect: Effect::Fails, period: 0 };

/// A data folder, and its daemon under faults.
struct Lane {
    daemon: Daemon,
    faults: Faults,
    _folder: tempfile::TempDir,
}

/// How one round ended.
struct Round {
    /// The last operation that failed; None: the upload passed without reaching any.
    hit: Option<String>,
    /// What the client said.
    said: String,
    succeeded: bool,
}

impl Lane {
    fn new() -> Lane {
        Lane::with(&[])
    }

    fn with(settings: &[&str]) -> Lane {
        Lane::in_folder(tempfile::tempdir().expect("a temporary folder can be made"), settings)
    }

    fn in_folder(folder: tempfile::TempDir, settings: &[&str]) -> Lane {
        let faults = Faults::new(folder.path());
        let data = folder.path().canonicalize().expect("it is there").join("data");
        let arguments = ["--merger-idle", "2s", "--takeover-after", "100ms", "--reserve", "0"];
        let daemon = Daemon::launched(faults.launcher(), &data, &[&arguments, settings].concat());
        Lane { daemon, faults, _folder: folder }
    }

    /// Pushes a file while operation `n` fails, and once more without that.
    fn round(&mut self, upload: &UploadRecord, fault: &Fault, n: u64) -> Round {
        // In a folder of its own, which must be made.
        let name = format!("d{n}/f");
        let file = data::file(&self.daemon.scratch(), "new", n, upload.len);
        let new = fs::read(&file).expect("it was written");
        let old = upload.replaces.then(|| data::bytes(n + 1_000_000, 12_345));
        if let Some(old) = &old {
            let file = self.daemon.scratch().join("old");
            fs::write(&file, old).expect("there is disk space");
            let output = finish(self.push(&UploadRecord { stdin: false, ..*upload }, &file, &name, &[]));
            assert!(output.status.success(), "{}", said(&output));
        }
        let log_before = self.daemon.log().len();
        let finished = self.daemon.finished(&name);
        let round = watched(&finished, old.as_deref(), &new, || {
            let round = self.exposed(upload, &file, &name, fault, n);
            if round.succeeded {
                self.assert_finished(&finished, &new);
            }
            if n.is_multiple_of(4) {
                self.daemon.kill_9();
                self.daemon.run();
            }
            let output = finish(self.push(upload, &file, &name, &[]));
            assert!(output.status.success(), "after {}: {}", round.said, said(&output));
            self.assert_finished(&finished, &new);
            self.eventually_clean();
            if upload.settings == HOOKED.settings {
                self.eventually_told(&name, log_before);
            }
            round
        });
        let log = self.daemon.log().split_off(log_before);
        assert!(!log.contains("panicked"), "somebody panicked");
        round.assert_clear(fault, &log);
        fs::remove_dir_all(finished.parent().expect("it has one")).expect("it can be removed");
        round
    }

    /// The same of some files that come in a bundle, but for the first.
    fn bundle_round(&mut self, fault: &Fault, n: u64) -> Round {
        let (folder, into) = (self.daemon.scratch().join(format!("{n}")), format!("d{n}/"));
        let names = ["a", "b/c", "b/d", "e", "f/g"];
        names.iter().zip(1..).for_each(|(name, i)| drop(data::file(&folder, name, 10 * n + i, 700 * i)));
        let push = |arguments: &[&str]| {
            let mut command = programs::cli();
            command.args(["push", "--quiet", "--url", self.daemon.url(), "--into", &into]).args(arguments).arg(&folder);
            command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the client can be started")
        };
        let finished = |name: &str| self.daemon.data().join(format!("files/d{n}/{n}")).join(name);
        let content = |name: &str| fs::read(folder.join(name)).expect("it was written");
        let log_before = self.daemon.log().len();
        let round = self.exposed_to(fault, n, || push(&["--retries", "3", "--retry-for", "1s"]));
        for name in names.iter().filter(|name| round.succeeded || finished(name).exists()) {
            assert!(fs::read(finished(name)).ok() == Some(content(name)), "{name} is not whole");
        }
        let again = finish(push(&[]));
        assert!(again.status.success(), "after {}: {}", round.said, said(&again));
        names.iter().for_each(|name| self.assert_finished(&finished(name), &content(name)));
        self.eventually_clean();
        let log = self.daemon.log().split_off(log_before);
        assert!(!log.contains("panicked"), "somebody panicked");
        round.assert_clear(fault, &log);
        fs::remove_dir_all(self.daemon.data().join(format!("files/d{n}"))).expect("it can be removed");
        round
    }

    fn exposed(&self, upload: &UploadRecord, file: &Path, name: &str, fault: &Fault, n: u64) -> Round {
        self.exposed_to(fault, n, || self.push(upload, file, name, &["--retries", "3", "--retry-for", "1s"]))
    }

    /// Lets a client that `start` starts meet a fault.
    fn exposed_to(&self, fault: &Fault, n: u64, start: impl FnOnce() -> Child) -> Round {
        self.faults.arm(fault, n);
        let mut client = start();
        let began = Instant::now();
        while client.try_wait().expect("it was started").is_none() && began.elapsed() < EXPOSURE {
            std::thread::sleep(Duration::from_millis(5));
        }
        let hit = (self.faults.hits() > 0).then(|| self.faults.last_hit());
        self.faults.lift();
        let output = finish(client);
        Round { hit, said: said(&output), succeeded: output.status.success() }
    }

    fn push(&self, upload: &UploadRecord, file: &Path, name: &str, arguments: &[&str]) -> Child {
        let mut command = programs::cli();
        command.arg("push").args(["--url", self.daemon.url(), "--name", name]).args(upload.arguments).args(arguments);
        if upload.stdin {
            command.arg("-").stdin(fs::File::open(file).expect("it is there"));
        } else {
            command.arg(file).stdin(Stdio::null());
        }
        command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the client can be started")
    }

    /// The file is exact, and all of it is on the disk, with the entries that lead to it.
    fn assert_finished(&self, finished: &Path, content: &[u8]) {
        assert!(fs::read(finished).expect("it is finished") == content, "the content differs");
        let files = self.daemon.data().join("files");
        for path in finished.ancestors().take_while(|path| path.starts_with(&files)) {
            assert!(!self.faults.is_unsynced(path), "{} is not synced", path.display());
        }
    }

    /// Only hidden folders may be left of uploads; they are swept after a minute.
    fn eventually_clean(&self) {
        eventually("the spools are gone", || self.daemon.spools().iter().all(|name| name.starts_with('.')));
        eventually("info.ini has no section", || !self.daemon.info_ini().contains('['));
    }

    /// The hook was told of a file since the log had `log_before` bytes, and nothing is left to be told.
    fn eventually_told(&self, name: &str, log_before: usize) {
        let told = format!("{name}: on_complete was told");
        eventually("the hook is told", || self.daemon.log()[log_before..].contains(&told));
        let is_notice = |name: &String| name != "failed" && !name.starts_with('.');
        let completed = self.daemon.data().join("completed");
        eventually("the notices are gone", || !list(&completed).iter().any(is_notice));
        assert!(list(&completed.join("failed")).is_empty(), "a notice was given up");
    }

    /// The end of the log, without what is told of each request.
    fn tail(&self) -> String {
        let log = self.daemon.log();
        let lines: Vec<&str> = log.lines().filter(|line| !line.contains("DEBUG")).collect();
        lines[lines.len().saturating_sub(8)..].join("\n")
    }
}

impl Round {
    /// A push that failed said why, and the log says more.
    fn assert_clear(&self, fault: &Fault, log: &str) {
        if self.succeeded {
            return;
        }
        assert!(self.hit.is_some(), "nothing failed, and yet: {}", self.said);
        let why = match fault.error {
            Errno::ENOSPC | Errno::EDQUOT => "there is not enough disk space on the server",
            _ => "its log says why",
        };
        // What a pipe brought is not read twice.
        let is_clear = self.said.contains(why) || self.said.contains("run the same command again");
        assert!(is_clear, "the client says nothing of use: {}", self.said);
        let detail = format!("os error {}", fault.error as i32);
        assert!(log.contains(&detail), "the log does not say {detail}");
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).trim().to_owned()
}

/// Waits for a client, which must end by itself.
fn finish(mut client: Child) -> Output {
    let deadline = Instant::now() + 2 * PATIENCE;
    let mut status: Option<ExitStatus> = None;
    while status.is_none() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(5));
        status = client.try_wait().expect("it was started");
    }
    kill_9(&mut client);
    let mut stderr = vec![];
    client.stderr.take().expect("it was asked for").read_to_end(&mut stderr).expect("it can be read");
    let status = status.unwrap_or_else(|| panic!("the client hangs: {}", String::from_utf8_lossy(&stderr)));
    Output { status, stdout: vec![], stderr }
}

/// Does `work` while `path` is looked at: there is never anything but the old or the new content.
fn watched<T>(path: &Path, old: Option<&[u8]>, new: &[u8], work: impl FnOnce() -> T) -> T {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let seen = fs::read(path).ok();
                if seen.as_deref() != Some(new) && seen.as_deref() != old {
                    return seen;
                }
                std::thread::sleep(Duration::from_millis(2));
            }
            None
        });
        let result = catch_unwind(AssertUnwindSafe(work));
        done.store(true, Ordering::Relaxed);
        let wrong = watcher.join().expect("it does not panic");
        assert!(wrong.is_none(), "{} bytes of other content were seen", wrong.unwrap_or_default().len());
        result.unwrap_or_else(|panic| resume_unwind(panic))
    })
}

/// Tries every `step`-th n until an upload passes without reaching it, or all up to `last`; tells what went wrong.
fn rounds(upload: &UploadRecord, fault: &Fault, step: u64, last: u64) -> Vec<String> {
    rounds_of(upload.what, upload.settings, step, last, |lane, n| lane.round(upload, fault, n))
}

/// The same of any round.
fn rounds_of(
    what: &str,
    settings: &[&str],
    step: u64,
    last: u64,
    round: impl Fn(&mut Lane, u64) -> Round + Sync,
) -> Vec<String> {
    let _turn = turn();
    let (next, last) = (AtomicU64::new(1), AtomicU64::new(last));
    let (wrong, done, failed) = (Mutex::new(vec![]), AtomicU64::new(0), AtomicU64::new(0));
    let began = Instant::now();
    let work = || {
        let mut lane = Lane::with(settings);
        loop {
            let n = next.fetch_add(step, Ordering::Relaxed);
            if n > last.load(Ordering::Relaxed) || wrong.lock().unwrap().len() >= ENOUGH {
                return;
            }
            match catch_unwind(AssertUnwindSafe(|| round(&mut lane, n))) {
                Ok(round) => {
                    done.fetch_add(1, Ordering::Relaxed);
                    failed.fetch_add(u64::from(!round.succeeded), Ordering::Relaxed);
                    if round.hit.is_none() {
                        last.fetch_min(n, Ordering::Relaxed);
                    }
                }
                Err(panic) => {
                    let why = panic.downcast_ref::<String>().cloned().unwrap_or_default();
                    let (hit, tail) = (lane.faults.last_hit(), lane.tail());
                    wrong.lock().unwrap().push(format!("{what}, n {n}, {hit}: {why}\n{tail}\n"));
                    lane = Lane::with(settings);
                }
            }
        }
    };
    std::thread::scope(|scope| (0..LANES).for_each(|_| drop(scope.spawn(work))));
    let (done, failed) = (done.into_inner(), failed.into_inner());
    println!("{what}: {done} rounds in {:?}, {failed} pushes failed at first", began.elapsed());
    wrong.into_inner().unwrap()
}

/// Tries all uploads at every n; two of them at every `step`-th.
fn every_step(fault: &Fault, step: u64) {
    let step = std::env::var("BIGUP_FAULT_STEP").map_or(step, |text| text.parse().expect("it is a number"));
    let uploads = [(SLICES, 1), (AT_ONCE, 1), (REPLACE, step), (STDIN, step)];
    let wrong: Vec<String> = uploads.iter().flat_map(|(upload, step)| rounds(upload, fault, *step, u64::MAX)).collect();
    assert!(wrong.is_empty(), "{fault:?}: {} rounds went wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn an_error_at_any_operation() {
    every_step(&ERROR, 3);
}

/// What fails for one file of a bundle fails for no other, and what fails for all leaves none of them by half.
#[test]
fn files_of_a_bundle_are_whole_or_not_there_whatever_fails() {
    let sync = Fault { kinds: kind::SYNC, effect: Effect::LosesLater, ..ERROR };
    let space = Fault { kinds: kind::SPACE, error: Errno::ENOSPC, ..ERROR };
    let wrong: Vec<String> = [("errors", ERROR, 3), ("syncs", sync, 1), ("disk space", space, 1)]
        .iter()
        .flat_map(|(what, fault, step)| rounds_of(what, &[], *step, u64::MAX, |lane, n| lane.bundle_round(fault, n)))
        .collect();
    assert!(wrong.is_empty(), "{} rounds went wrong:\n{}", wrong.len(), wrong.join("\n"));
}

/// The others are told and stay, whether it is the beginning of its write-back that fails or its sync.
#[test]
fn a_file_of_a_bundle_whose_sync_failed_leaves_nothing() {
    let lane = Lane::new();
    let (server, content) = (lane.daemon.server(), data::bytes(16, 5000));
    for n in [2, 5] {
        let named = |name: &str| format!("d{n}/{name}");
        let file = |name: &str| {
            let query = format!("file_name={}&slice_id=0&slice_num=1&slice_size=5000&source=s\n", named(name));
            [query.as_bytes(), &content].concat()
        };
        lane.faults.arm(&Fault { kinds: kind::SYNC, only: " (deleted)", effect: Effect::LosesLater, ..ERROR }, n);
        let answer = server.post("bundle=3", &["a", "b", "c/d"].map(file).concat()).expect(200);
        assert_eq!(lane.faults.hits(), 1);
        let statuses: Vec<_> = (0..3).map(|i| answer.body["files"][i]["status"].as_u64()).collect();
        assert_eq!(statuses, [Some(200), Some(500), Some(200)], "{n}: {answer:?}");
        server.get(&format!("file_name={}&peek=1", named("b"))).expect(404);
        assert_eq!(list(&lane.daemon.data().join(format!("files/d{n}"))), ["a", "c"]);
        ["a", "c/d"].iter().for_each(|name| lane.assert_finished(&lane.daemon.finished(&named(name)), &content));
    }
    assert_eq!(lane.daemon.spools(), Vec::<String>::new());
}

#[test]
fn no_disk_space_for_a_moment() {
    every_step(&Fault { kinds: kind::SPACE, error: Errno::ENOSPC, ..ERROR }, 1);
}

#[test]
fn no_disk_space_until_there_is_some() {
    every_step(&Fault { kinds: kind::SPACE, error: Errno::ENOSPC, period: 1, ..ERROR }, 1);
}

#[test]
fn a_quota_that_is_reached() {
    every_step(&Fault { kinds: kind::SPACE, error: Errno::EDQUOT, ..ERROR }, 1);
}

#[test]
fn half_of_what_is_read_written_or_copied() {
    every_step(&Fault { kinds: kind::WRITE | kind::READ, effect: Effect::Short, ..ERROR }, 3);
}

#[test]
fn a_sync_that_fails_and_loses_what_was_written() {
    every_step(&Fault { kinds: kind::SYNC, effect: Effect::Loses, ..ERROR }, 1);
}

#[test]
fn a_sync_that_fails_and_hides_what_it_lost() {
    every_step(&Fault { kinds: kind::SYNC, effect: Effect::LosesLater, ..ERROR }, 1);
}

#[test]
fn syncs_that_fail_until_the_disk_is_mended() {
    every_step(&Fault { kinds: kind::SYNC, effect: Effect::LosesLater, period: 1, ..ERROR }, 1);
}

#[test]
fn a_sync_that_fails_before_a_slice_is_answered() {
    let fault = Fault { kinds: kind::SYNC, effect: Effect::LosesLater, ..ERROR };
    let wrong = rounds(&SYNCED, &fault, 1, u64::MAX);
    assert!(wrong.is_empty(), "{} rounds went wrong:\n{}", wrong.len(), wrong.join("\n"));
}

/// Whatever fails, a file that is finished is told of in the end.
#[test]
fn a_hook_is_told_whatever_fails() {
    let sync = Fault { kinds: kind::SYNC, effect: Effect::LosesLater, ..ERROR };
    let fault = Fault { kinds: kind::ALL ^ kind::STAT ^ kind::LOCK, ..ERROR };
    let wrong: Vec<String> = [(HOOKED, fault, 2), (HOOKED_AT_ONCE, fault, 1), (HOOKED_AT_ONCE, sync, 1)]
        .iter()
        .flat_map(|(upload, fault, step)| rounds(upload, fault, *step, u64::MAX))
        .collect();
    assert!(wrong.is_empty(), "{} rounds went wrong:\n{}", wrong.len(), wrong.join("\n"));
}

/// Errors again and again, beginning at each n: what is done about one meets the next.
#[test]
fn errors_over_and_over() {
    for period in [37, 71, 113] {
        let fault = Fault { effect: Effect::LosesLater, period, ..ERROR };
        let wrong: Vec<String> =
            [SLICES, AT_ONCE].iter().flat_map(|upload| rounds(upload, &fault, 1, period)).collect();
        assert!(wrong.is_empty(), "{fault:?}: {} rounds went wrong:\n{}", wrong.len(), wrong.join("\n"));
    }
}

// --- what single faults are about

const SLICE_SIZE: usize = 8192;

fn begin(lane: &Lane, content: &[u8]) -> bigup_tests::http::Answer {
    let slice_num = content.len().div_ceil(SLICE_SIZE);
    let query = format!("slice_num={slice_num}&slice_size={SLICE_SIZE}&file_size={}&source=test", content.len());
    lane.daemon.server().get(&format!("file_name=f&{query}"))
}

fn post(server: &Server, content: &[u8], slice_id: usize) -> bigup_tests::http::Answer {
    let bytes = content.chunks(SLICE_SIZE).nth(slice_id).expect("the slice is within the content");
    server.post(&format!("file_name=f&slice_id={slice_id}&slice_size={}", bytes.len()), bytes)
}

fn eventually_finished(lane: &Lane, content: &[u8]) {
    eventually("the file is finished", || begin(lane, content).body["is_uploaded"] == 1);
    lane.assert_finished(&lane.daemon.finished("f"), content);
    lane.eventually_clean();
}

fn spool(lane: &Lane) -> PathBuf {
    lane.daemon.data().join("tmp/f")
}

fn eventually_logged(lane: &Lane, what: &str) {
    eventually(&format!("the log says {what:?}"), || lane.daemon.log().contains(what));
}

/// The merged file is cut back to what was synced before, and the slices are looked at before they are merged again.
#[test]
fn what_was_merged_since_the_last_good_sync_is_merged_again_from_slices_that_are_right() {
    let mut lane = Lane::new();
    let (server, content) = (lane.daemon.server(), data::bytes(1, 6 * SLICE_SIZE));
    begin(&lane, &content).expect(200);
    (0..3).for_each(|slice_id| drop(post(&server, &content, slice_id).expect(200)));
    eventually("what is merged is synced", || !spool(&lane).join("2").exists());

    let fault = Fault { kinds: kind::SYNC, only: "/merged", programs: program::MERGER, effect: Effect::Loses, ..ERROR };
    lane.faults.arm(&fault, 1);
    (3..5).for_each(|slice_id| drop(post(&server, &content, slice_id).expect(200)));
    // So that nobody goes on before we have looked.
    lane.daemon.kill_9();
    eventually_logged(&lane, "syncing the merged file of");
    eventually("it is cut", || fs::metadata(spool(&lane).join("merged")).expect("it is there").len() == 3 * 8192);
    let damaged = spool(&lane).join("4");
    let mut bytes = fs::read(&damaged).expect("it was not unlinked");
    bytes[100] ^= 1;
    fs::write(&damaged, bytes).expect("it can be written");

    lane.daemon.run();
    eventually_logged(&lane, "slice 4 did not survive");
    assert_eq!(begin(&lane, &content).expect(200).held(), [0, 1, 2, 3]);
    let server = lane.daemon.server();
    (4..6).for_each(|slice_id| drop(post(&server, &content, slice_id).expect(200)));
    eventually_finished(&lane, &content);
}

/// Where the merged file could not even be cut back, what it lost reads well until memory is needed for something else.
#[test]
fn what_a_failed_sync_lost_is_not_trusted_for_being_readable() {
    let mut lane = Lane::new();
    let (server, content) = (lane.daemon.server(), data::bytes(9, 5 * SLICE_SIZE));
    begin(&lane, &content).expect(200);
    (0..3).for_each(|slice_id| drop(post(&server, &content, slice_id).expect(200)));
    eventually("what is merged is synced", || !spool(&lane).join("2").exists());

    let (kinds, effect) = (kind::WRITE | kind::SYNC, Effect::LosesLater);
    // After the copy of slice 3: its sync, and the cut.
    lane.faults.arm(&Fault { kinds, only: "/merged", programs: program::MERGER, effect, period: 1, ..ERROR }, 2);
    post(&server, &content, 3).expect(200);
    lane.daemon.kill_9();
    eventually("both have failed", || lane.faults.hits() == 2);
    lane.faults.lift();
    let damaged = spool(&lane).join("3");
    let mut bytes = fs::read(&damaged).expect("it was not unlinked");
    bytes[100] ^= 1;
    fs::write(&damaged, bytes).expect("it can be written");

    lane.daemon.run();
    eventually_logged(&lane, "slice 3 did not survive");
    let server = lane.daemon.server();
    (3..5).for_each(|slice_id| drop(post(&server, &content, slice_id).expect(200)));
    eventually_finished(&lane, &content);
}

/// Another sync of it would succeed, and reading it would tell nothing.
#[test]
fn a_single_slice_whose_sync_failed_is_asked_for_again() {
    let lane = Lane::new();
    let content = data::bytes(2, 5000);
    // Only an upload that has begun takes a spool.
    begin(&lane, &content).expect(200);
    let fault = Fault { kinds: kind::SYNC, only: "/0", effect: Effect::LosesLater, ..ERROR };
    lane.faults.arm(&fault, 1);
    let query = "file_name=f&slice_id=0&slice_num=1&slice_size=5000&file_size=5000&source=test";
    let server = lane.daemon.server();
    assert_eq!(server.post(query, &content).expect(500).body["error"], "internal");
    assert_eq!(begin(&lane, &content).expect(200).held(), Vec::<u64>::new());
    assert_eq!(server.post(query, &content).expect(200).body["is_uploaded"], 1);
    eventually_finished(&lane, &content);
}

/// It had no name yet.
#[test]
fn a_small_file_whose_sync_failed_leaves_nothing() {
    let lane = Lane::new();
    let (server, content) = (lane.daemon.server(), data::bytes(13, 5000));
    let query = "file_name=d/f&slice_id=0&slice_num=1&slice_size=5000&file_size=5000";
    lane.faults.arm(&Fault { kinds: kind::SYNC, only: " (deleted)", effect: Effect::LosesLater, ..ERROR }, 1);
    assert_eq!(server.post(query, &content).expect(500).body["error"], "internal");
    assert_eq!(lane.faults.hits(), 1);
    assert_eq!(list(&lane.daemon.data().join("files")), Vec::<String>::new());
    assert_eq!(lane.daemon.spools(), Vec::<String>::new());
    server.get("file_name=d/f&peek=1").expect(404);
    assert_eq!(server.post(query, &content).expect(200).body["is_uploaded"], 1);
    lane.assert_finished(&lane.daemon.finished("d/f"), &content);
}

/// It stands there, whole, and nobody is told so before a power cut could not take its name any more.
#[test]
fn a_small_file_whose_folder_could_not_be_synced_is_told_only_after_another_sync() {
    let lane = Lane::new();
    let (server, content) = (lane.daemon.server(), data::bytes(14, 5000));
    let post = |name: &str| {
        let query = format!("file_name={name}&slice_id=0&slice_num=1&slice_size=5000&file_size=5000");
        server.post(&query, &content)
    };
    post("d/first").expect(200);
    for (number, folder) in ["files/d", "data/files"].into_iter().enumerate() {
        for (again, ask) in ["post", "get", "peek"].into_iter().enumerate() {
            let name = format!("d/f{number}{again}");
            lane.faults.arm(&Fault { kinds: kind::SYNC, only: folder, period: 1, ..ERROR }, 1);
            post(&name).expect(500);
            let finished = lane.daemon.finished(&name);
            assert!(fs::read(&finished).expect("it is there") == content);
            let digest = data::digest(&finished);
            let asked = || match ask {
                "post" => post(&name),
                "get" => server.get(&format!("file_name={name}&slice_num=1&file_digest={digest}")),
                _ => server.get(&format!("file_name={name}&peek=1")),
            };
            asked().expect(500);
            lane.faults.lift();
            assert_eq!(asked().expect(200).body["is_uploaded"], 1);
            lane.assert_finished(&finished, &content);
        }
    }
}

/// Else its share of a quota could be given away twice, until the next count.
#[test]
fn a_small_file_whose_folder_could_not_be_synced_counts_against_the_quota() {
    let lane = Lane::with(&["--anonymous-quota", "20000"]);
    let (server, content) = (lane.daemon.server(), data::bytes(15, 12_000));
    let post = |name: &str| {
        let query = format!("file_name={name}&slice_id=0&slice_num=1&slice_size=12000&file_size=12000");
        server.post(&query, &content)
    };
    lane.faults.arm(&Fault { kinds: kind::SYNC, only: "data/files", ..ERROR }, 1);
    assert_eq!(post("f").expect(500).body["error"], "internal");
    assert_eq!(lane.faults.hits(), 1);
    assert!(fs::read(lane.daemon.finished("f")).expect("it is there") == content);
    post("g").expect(413);
    assert_eq!(post("f").expect(200).body["is_uploaded"], 1);
    lane.assert_finished(&lane.daemon.finished("f"), &content);
    fs::remove_file(lane.daemon.finished("f")).expect("it can be removed");
    eventually("what is removed counts no more", || post("g").status == 200);
}

/// So a kill between the two leaves a line, or two.
#[test]
fn a_cancelled_upload_is_in_the_audit_log_before_its_mark_goes() {
    let mut lane = Lane::new();
    begin(&lane, &data::bytes(16, 2 * SLICE_SIZE)).expect(200);
    let mut cancel = Command::new(programs::path("bigupd"));
    let cancelled = cancel.args(["cancel", "f", "--data-dir"]).arg(lane.daemon.data()).output().expect("it can be run");
    assert!(cancelled.status.success(), "{}", said(&cancelled));
    let tmp = lane.daemon.data().join("tmp");
    let name = list(&tmp).into_iter().find(|name| name.starts_with(CANCELLED)).expect("it leaves a mark");
    let mark = tmp.join(&name);
    let file = fs::File::options().write(true).open(&mark).expect("it is there");
    file.set_modified(SystemTime::now() - TOLD_FOR - Duration::from_secs(1)).expect("it is ours");

    let lines = |lane: &Lane| lane.daemon.log().matches("cancelled f: file_size=16384").count();
    lane.daemon.kill_9();
    lane.faults.arm(&Fault { kinds: kind::REMOVE, only: name.leak(), period: 1, ..ERROR }, 1);
    lane.daemon.run();
    eventually("it is told", || lines(&lane) == 1);
    eventually("its removal fails", || lane.faults.hits() > 0);
    assert!(mark.exists());
    lane.daemon.kill_9();
    lane.faults.lift();
    lane.daemon.run();
    eventually("it goes", || !mark.exists());
    eventually("it is told again", || lines(&lane) == 2);
}

/// Its 200 promises that it survives a power cut.
#[test]
fn a_slice_that_could_not_be_synced_before_its_answer_is_asked_for_again() {
    let lane = Lane::with(SYNCED.settings);
    let (server, content) = (lane.daemon.server(), data::bytes(12, 3 * SLICE_SIZE));
    begin(&lane, &content).expect(200);
    for only in ["/1", "/digests"] {
        lane.faults.arm(&Fault { kinds: kind::SYNC, only, effect: Effect::LosesLater, ..ERROR }, 1);
        post(&server, &content, 1).expect(500);
        assert_eq!(begin(&lane, &content).expect(200).held(), Vec::<u64>::new());
    }
    post(&server, &content, 1).expect(200);
    assert!(!lane.faults.is_unsynced(&spool(&lane).join("1")) && !lane.faults.is_unsynced(&spool(&lane)));
    post(&server, &content, 0).expect(200);
    post(&server, &content, 2).expect(200);
    eventually_finished(&lane, &content);
}

/// Where its folder could not be synced, a power cut could bring the first source back beside slices of the second.
#[test]
fn a_takeover_that_is_not_durable_has_not_happened() {
    let lane = Lane::new();
    let server = lane.daemon.server();
    let query = |source| format!("file_name=f&slice_size={SLICE_SIZE}&file_size=20000&source={source}");
    server.get(&query("one")).expect(200);
    server.post(&format!("file_name=f&slice_id=1&slice_size={SLICE_SIZE}&source=one"), &[1; 8192]).expect(200);
    std::thread::sleep(Duration::from_millis(300));
    lane.faults.arm(&Fault { kinds: kind::SYNC, only: "/tmp/f", programs: program::DAEMON, ..ERROR }, 1);
    server.get(&query("two")).expect(500);
    let upload = fs::read_to_string(spool(&lane).join("upload.json")).expect("it is there");
    assert!(upload.contains("\"source\": \"one\""), "{upload}");
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(server.get(&query("two")).expect(200).body["compare"], true);
    assert!(!lane.faults.is_unsynced(&spool(&lane)));
}

#[test]
fn an_upload_that_is_not_durable_was_not_begun() {
    let lane = Lane::new();
    lane.faults.arm(&Fault { kinds: kind::SYNC, only: "data/tmp", ..ERROR }, 1);
    begin(&lane, &[0; 20_000]).expect(500);
    assert_eq!(lane.daemon.spools(), Vec::<String>::new());
    assert_eq!(begin(&lane, &[0; 20_000]).expect(200).held(), Vec::<u64>::new());
}

/// Sharing the blocks of a slice writes it back first, and that is as good as a sync of it.
#[test]
fn a_slice_that_cannot_be_written_back_is_asked_for_again() {
    needs_root!("to mount file systems");
    let mount = Mount::new(&["mkfs.xfs", "-q", "-m", "reflink=1"], 512 << 20);
    let lane = Lane::in_folder(tempfile::tempdir_in(mount.path()).expect("a temporary folder can be made"), &[]);
    let (server, content) = (lane.daemon.server(), data::bytes(3, 3 * SLICE_SIZE));
    begin(&lane, &content).expect(200);
    let fault =
        Fault { kinds: kind::WRITE, only: "/merged", programs: program::MERGER, effect: Effect::Loses, ..ERROR };
    lane.faults.arm(&fault, 1);
    (0..3).for_each(|slice_id| drop(post(&server, &content, slice_id).expect(200)));
    eventually_logged(&lane, "writing it back");
    eventually("slice 0 is asked for", || begin(&lane, &content).expect(200).held() == [1, 2]);
    post(&server, &content, 0).expect(200);
    eventually_finished(&lane, &content);
}

/// A disk that takes in what it cannot keep: its device, a loop over a file in memory, finds no disk space for some time,
/// as a thinly provisioned volume may. What is written back then is lost, and no sync of ours is told.
struct LossyDisk {
    host: Mount,
    disk: Mount,
}

impl LossyDisk {
    fn new() -> LossyDisk {
        let host = Mount::in_memory("tmpfs", "size=60m");
        let image = host.path().join("image");
        let options = "lazy_itable_init=0,lazy_journal_init=0,packed_meta_blocks=1,nodiscard";
        make_image(&image, &["mkfs.ext4", "-q", "-F", "-J", "size=8", "-E", options], 300 << 20);
        // What the file system needs for itself lies at the beginning, and is not lost.
        run(Command::new("fallocate").args(["-o", "0", "-l", "22M"]).arg(&image));
        let disk = Mount::of_image(&image, "loop,nodiscard");
        LossyDisk { host, disk }
    }

    fn data(&self) -> PathBuf {
        self.disk.path().join("data")
    }

    /// Has all written back, which may fail.
    fn settle(&self) {
        let _ = Command::new("sync").arg("--file-system").arg(self.disk.path()).output();
    }

    /// Somebody else takes the disk space that the device believed it had, but for very little.
    fn take_space(&self) {
        self.settle();
        let mut other = fs::File::create(self.host.path().join("other")).expect("a file can be made");
        while other.write_all(&[0; 65_536]).is_ok() {}
        let len = other.metadata().expect("it is there").len();
        other.set_len(len - (6 << 20)).expect("it can be cut");
        // The last disk space, of which a block may be lost unsaid.
        fs::write(self.disk.path().join("filler"), data::bytes(8, 8 << 20)).expect("it is taken in");
        self.settle();
    }

    /// What was written is lost, all of it at the end; then there is disk space again.
    fn lose(&self, spool: &Path) {
        let control = self.disk.path().join("control");
        fs::write(&control, data::bytes(9, 8 << 20)).expect("it is taken in");
        self.settle();
        fs::remove_file(self.host.path().join("other")).expect("it is there");
        run(Command::new("mount").args(["-o", "remount,size=300m"]).arg(self.host.path()));
        // As where memory is short.
        let written = list(spool).into_iter().map(|name| spool.join(name)).chain([control.clone()]);
        written.for_each(|path| forget_cached(&fs::File::open(path).expect("it can be opened"), 0, 0));
        assert!(fs::read(&control).expect("it can be read") != data::bytes(9, 8 << 20), "the disk lost nothing");
    }

    /// Forgets all that the kernel knows of its files, as it does of those that nobody has open for some time.
    fn mount_anew(self) -> LossyDisk {
        self.settle();
        let LossyDisk { host, disk } = self;
        drop(disk);
        let disk = Mount::of_image(&host.path().join("image"), "loop,nodiscard");
        LossyDisk { host, disk }
    }
}

/// All slices but the first, which are acknowledged and wait for it while the disk loses them.
fn what_a_disk_loses_unsaid(slice_size: usize, is_forgotten: bool) {
    let (num, query) = (24, format!("file_name=x&slice_size={slice_size}&file_size={}&source=s", 24 * slice_size));
    let content = data::bytes(7, num * slice_size);
    let mut disk = LossyDisk::new();
    let mut daemon = Daemon::with_data(&disk.data(), &["--reserve", "0", "--merger-idle", "300ms"]);
    let send = |daemon: &Daemon, slice_id: u64| {
        let at = slice_id as usize * slice_size;
        let query = format!("file_name=x&slice_id={slice_id}&slice_size={slice_size}&source=s");
        daemon.server().post(&query, &content[at..at + slice_size])
    };
    daemon.server().get(&query).expect(200);
    disk.take_space();
    (1..num as u64).for_each(|slice_id| drop(send(&daemon, slice_id).expect(200)));
    disk.lose(&disk.data().join("tmp/x"));
    if is_forgotten {
        daemon.kill_9();
        disk = disk.mount_anew();
        daemon = Daemon::with_data(&disk.data(), &["--reserve", "0", "--merger-idle", "300ms"]);
    }
    eventually("it is finished", || {
        let answer = daemon.server().get(&format!("{query}&wait=1"));
        let held = answer.held();
        if answer.body["is_uploaded"] == 0 {
            (0..num as u64).filter(|id| !held.contains(id)).for_each(|slice_id| drop(send(&daemon, slice_id)));
        }
        answer.body["is_uploaded"] == 1
    });
    assert!(fs::read(daemon.finished("x")).expect("it is there") == content, "it was published with other content");
    daemon.stop();
}

#[test]
fn what_a_disk_lost_of_waiting_slices_is_asked_for_again() {
    needs_root!("to mount file systems");
    for slice_size in [1 << 20, 1_000_000] {
        what_a_disk_loses_unsaid(slice_size, false);
    }
}

#[test]
fn what_a_disk_lost_of_waiting_slices_and_nobody_knows_any_more_is_asked_for_again() {
    needs_root!("to mount file systems");
    for slice_size in [1 << 20, 1_000_000] {
        what_a_disk_loses_unsaid(slice_size, true);
    }
}

#[test]
fn a_slice_that_cannot_be_read_is_asked_for_again() {
    let lane = Lane::new();
    let (server, content) = (lane.daemon.server(), data::bytes(4, 3 * SLICE_SIZE));
    begin(&lane, &content).expect(200);
    // Reading fails within a copy, which does not say which side failed; then it fails where the slice is looked at.
    // Each merger tries a reflink before the copy.
    let fault = Fault { kinds: kind::WRITE, only: "/merged", programs: program::MERGER, ..ERROR };
    lane.faults.arm(&Fault { period: 2, ..fault }, 2);
    (0..3).for_each(|slice_id| drop(post(&server, &content, slice_id).expect(200)));
    eventually("a copy has failed", || lane.faults.hits() > 0);
    lane.faults.arm(&Fault { kinds: kind::READ, only: "/0", period: 1, ..ERROR }, 1);
    eventually("slice 0 is asked for", || begin(&lane, &content).expect(200).held() == [1, 2]);
    assert!(lane.faults.hits() > 0, "nobody read it");
    lane.faults.lift();
    post(&server, &content, 0).expect(200);
    eventually_finished(&lane, &content);
}

/// After a take-over all of the merged file is read before it is published.
#[test]
fn a_merged_slice_that_cannot_be_read_after_a_takeover_is_asked_for_again() {
    for slice_size in [SLICE_SIZE, 8000] {
        let lane = Lane::new();
        let (server, content) = (lane.daemon.server(), data::bytes(4, 3 * slice_size));
        let begin = |source| format!("file_name=f&slice_size={slice_size}&file_size={}&source={source}", content.len());
        let post = |source, slice_id: usize| {
            let query = format!("file_name=f&slice_id={slice_id}&slice_size={slice_size}&source={source}");
            server.post(&query, &content[slice_id * slice_size..][..slice_size]).expect(200);
        };
        server.get(&begin("one")).expect(200);
        [0, 1].into_iter().for_each(|slice_id| post("one", slice_id));
        let merged = spool(&lane).join("merged");
        eventually("they are merged", || merged.metadata().is_ok_and(|found| found.len() == 2 * slice_size as u64));
        std::thread::sleep(Duration::from_millis(300));
        assert_eq!(server.get(&begin("two")).expect(200).body["compare"], true);
        post("two", 2);
        lane.faults.arm(&Fault { kinds: kind::READ, only: "/merged", period: 1, ..ERROR }, 1);
        let promise = format!("{}&file_digest={}", begin("two"), blake3::hash(&content));
        eventually("slice 0 is asked for", || !server.get(&promise).expect(200).held().contains(&0));
        assert!(lane.faults.hits() > 0, "nobody read it");
        lane.faults.lift();
        (0..3).for_each(|slice_id| post("two", slice_id));
        eventually("the file is finished", || server.get(&promise).body["is_uploaded"] == 1);
        lane.assert_finished(&lane.daemon.finished("f"), &content);
        lane.eventually_clean();
    }
}

/// An upload is removed where its file is gone from the spool; an error must not pass for that.
#[test]
fn a_merged_file_that_cannot_be_looked_at_is_not_taken_for_a_published_one() {
    let lane = Lane::new();
    let (server, content) = (lane.daemon.server(), data::bytes(5, 2 * SLICE_SIZE));
    begin(&lane, &content).expect(200);
    lane.faults.arm(&Fault { kinds: kind::RENAME, only: "files/f", period: 1, ..ERROR }, 1);
    (0..2).for_each(|slice_id| drop(post(&server, &content, slice_id).expect(200)));
    eventually_logged(&lane, "publishing /");
    lane.faults.arm(&Fault { kinds: kind::STAT, only: "/merged", programs: program::MERGER, period: 1, ..ERROR }, 1);
    eventually("a merger has looked", || lane.faults.hits() > 0);
    lane.faults.lift();
    eventually_finished(&lane, &content);
}

#[test]
fn without_info_ini_files_arrive_all_the_same() {
    let lane = Lane::new();
    let kinds = kind::OPEN | kind::CREATE | kind::RENAME;
    lane.faults.arm(&Fault { kinds, only: "/info.ini", error: Errno::ENOSPC, period: 1, ..ERROR }, 1);
    for (upload, name) in [(SLICES, "slices"), (AT_ONCE, "at once")] {
        let file = data::file(&lane.daemon.scratch(), "new", 6, upload.len);
        let output = finish(lane.push(&upload, &file, name, &[]));
        assert_eq!((output.status.success(), said(&output)), (true, String::new()));
        lane.assert_finished(&lane.daemon.finished(name), &fs::read(&file).expect("it is there"));
    }
    eventually("both programs tried to write it", || lane.faults.hits() > 3);
    eventually_logged(&lane, "info.ini is not up to date");
    lane.faults.lift();
    lane.eventually_clean();
}

#[test]
fn a_merger_without_disk_space_says_so() {
    let lane = Lane::new();
    let (server, content) = (lane.daemon.server(), data::bytes(7, 2 * SLICE_SIZE));
    begin(&lane, &content).expect(200);
    let fault = Fault { kinds: kind::WRITE, only: "/merged", programs: program::MERGER, error: Errno::ENOSPC, ..ERROR };
    lane.faults.arm(&Fault { period: 1, ..fault }, 1);
    (0..2).for_each(|slice_id| drop(post(&server, &content, slice_id).expect(200)));
    let tells = |text: Option<&str>| text.is_some_and(|text| text.contains("not enough disk space on the server"));
    eventually("the answer says so", || tells(begin(&lane, &content).expect(200).body["last_error"].as_str()));
    eventually("info.ini says so", || tells(lane.daemon.info("f", "last_error").as_deref()));
    lane.faults.lift();
    eventually_finished(&lane, &content);
}

/// It may be the one that frees disk space.
#[test]
fn a_merger_works_without_disk_space_for_its_process_id() {
    let lane = Lane::new();
    let (server, content) = (lane.daemon.server(), data::bytes(10, 2 * SLICE_SIZE));
    begin(&lane, &content).expect(200);
    lane.faults.arm(&Fault { kinds: kind::WRITE, only: "/merger.lock", error: Errno::ENOSPC, period: 1, ..ERROR }, 1);
    (0..2).for_each(|slice_id| drop(post(&server, &content, slice_id).expect(200)));
    eventually_finished(&lane, &content);
    assert!(lane.faults.hits() > 0);
}

/// To a push that would be another file than its own.
#[test]
fn a_digest_that_cannot_be_read_is_an_error_and_not_unknown() {
    let lane = Lane::new();
    let content = data::bytes(11, 5000);
    let query = "file_name=f&slice_id=0&slice_num=1&slice_size=5000&file_size=5000";
    lane.daemon.server().post(query, &content).expect(200);
    lane.faults.arm(&Fault { kinds: kind::READ, only: "files/f", ..ERROR }, 1);
    begin(&lane, &content).expect(500);
    assert!(begin(&lane, &content).expect(200).body["file_digest"].is_string());
}

#[test]
fn a_daemon_that_cannot_start_says_why() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let faults = Faults::new(folder.path());
    let launcher = faults.launcher();
    let mut failed = 0;
    for n in 1.. {
        faults.arm(&ERROR, n);
        let mut command = Command::new(&launcher[0]);
        command.args(&launcher[1..]).arg(programs::path("bigupd")).arg("--data-dir");
        command.arg(folder.path().canonicalize().expect("it is there").join(format!("data{n}")));
        // Stops at once.
        command.args(["--listen", "127.0.0.1:0", "--until-stdin-closes"]).stdin(Stdio::null());
        let output = command.output().expect("bigupd can be started");
        assert!(!said(&output).contains("panicked"), "{}", said(&output));
        if !output.status.success() {
            assert_eq!(output.status.code(), Some(1));
            assert!(said(&output).contains("os error 5") && said(&output).contains("/data"), "{}", said(&output));
            failed += 1;
        }
        if faults.hits() == 0 {
            break;
        }
    }
    assert!(failed > 0, "nothing failed");
}

/// What libc has that changes files or what leads to them.
const FILE_FUNCTIONS: &str = "\
    open open64 openat openat64 openat2 creat creat64 fopen fopen64 freopen freopen64 mkstemp mkstemp64 mkostemp tmpfile \
    mkdir mkdirat mknod mknodat mkfifo mkfifoat mkdtemp link linkat symlink symlinkat rename renameat renameat2 unlink \
    unlinkat rmdir remove write writev pwrite pwrite64 pwritev pwritev64 pwritev2 pwritev64v2 fwrite fputs dprintf \
    truncate truncate64 ftruncate ftruncate64 fallocate fallocate64 posix_fallocate posix_fallocate64 copy_file_range \
    sendfile sendfile64 splice tee vmsplice ioctl fsync fdatasync sync syncfs sync_file_range msync setxattr lsetxattr \
    fsetxattr removexattr lremovexattr fremovexattr chmod fchmod fchmodat chown fchown lchown fchownat utime utimes \
    futimes utimensat futimens flock lockf lockf64 syscall read readv pread pread64 preadv preadv64 preadv2 \
    fgetxattr getxattr lgetxattr opendir readdir readdir64 stat stat64 lstat lstat64 fstat fstat64 fstatat fstatat64 statx";

/// Names of the symbols of a library or program, as nm prints them.
fn symbols(path: &Path, which: &str) -> Vec<String> {
    let output = Command::new("nm").args(["--dynamic", which]).arg(path).output().expect("nm comes with a C compiler");
    let text = String::from_utf8(output.stdout).expect("symbols are UTF-8");
    let name =
        |line: &str| line.split_whitespace().last().map(|name| name.split('@').next().unwrap_or(name).to_owned());
    text.lines().filter_map(name).collect()
}

/// Others would pass uncounted.
#[test]
fn the_library_knows_all_file_functions_that_the_programs_call() {
    let known = symbols(library(), "--defined-only");
    for program in ["bigupd", "bigup-merger"] {
        let called = symbols(&programs::path(program), "--undefined-only");
        assert!(called.len() > 50, "{called:?}");
        let unknown = |name: &&String| FILE_FUNCTIONS.split_whitespace().any(|f| f == **name) && !known.contains(name);
        let unknown: Vec<&String> = called.iter().filter(unknown).collect();
        assert!(unknown.is_empty(), "{program} calls {unknown:?}: add them to tests/faults/faults.c");
    }
}

/// Leaving a hidden folder behind is no failure of an upload.
#[test]
fn an_upload_that_is_finished_but_not_removed_is_finished() {
    let lane = Lane::new();
    let content = data::bytes(8, 5000);
    // Only an upload that has begun takes a spool.
    begin(&lane, &content).expect(200);
    lane.faults.arm(&Fault { kinds: kind::REMOVE, only: "/upload.json", ..ERROR }, 1);
    let query = "file_name=f&slice_id=0&slice_num=1&slice_size=5000&file_size=5000&source=test";
    assert_eq!(lane.daemon.server().post(query, &content).expect(200).body["is_uploaded"], 1);
    assert_eq!(lane.faults.hits(), 1);
    assert!(list(&lane.daemon.data().join("tmp")).iter().any(|name| name.starts_with(".gone-")));
    lane.assert_finished(&lane.daemon.finished("f"), &content);
}
