//! `push --growing`: of a file that others write to, what was there at the start.

use bigup_tests::daemon::Daemon;
use bigup_tests::process::{eventually, kill_9};
use bigup_tests::{data, programs};
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

const MIB: u64 = 1 << 20;

fn push(daemon: &Daemon, path: &Path, more: &[&str]) -> Command {
    let mut command = programs::cli();
    command.arg("push").arg(path).args(["--url", daemon.url(), "--name", "f", "--slice-size", "256K"]).args(more);
    command
}

/// What a push said, and its exit code.
fn run(mut command: Command) -> (Option<i32>, String) {
    let Output { status, stdout, stderr } = command.output().expect("the client can be started");
    (status.code(), String::from_utf8_lossy(&[stdout, stderr].concat()).into_owned())
}

/// Does `work` while the file at `path` grows all the time.
fn while_growing<T>(path: &Path, work: impl FnOnce() -> T) -> T {
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut file = File::options().append(true).open(path).unwrap();
            while !is_over.load(Ordering::Relaxed) {
                file.write_all(b"a line of the log\n").unwrap();
                thread::sleep(Duration::from_millis(2));
            }
        });
        let done = work();
        is_over.store(true, Ordering::Relaxed);
        done
    })
}

#[test]
fn of_a_growing_file_what_was_there_is_stored() {
    let daemon = Daemon::start();
    // In one request, in one slice, in several.
    for len in [100, 200 << 10, 6 * MIB] {
        let file = data::file(&daemon.scratch(), "log", 1, len);
        // A small one may be read between two lines.
        if len > MIB {
            let refused = while_growing(&file, || run(push(&daemon, &file, &["--limit-rate", "4M"])));
            assert_eq!(refused.0, Some(1), "{}", refused.1);
            assert!(!daemon.finished("f").exists());
        }
        let before = fs::metadata(&file).unwrap().len();
        let (code, said) = while_growing(&file, || run(push(&daemon, &file, &["--growing", "--limit-rate", "4M"])));
        assert_eq!(code, Some(0), "{len}: {said}");
        let (stored, all) = (fs::read(daemon.finished("f")).unwrap(), fs::read(&file).unwrap());
        assert!((before..before + 1000).contains(&(stored.len() as u64)), "{} of {before}", stored.len());
        assert!(all.len() > stored.len() && all.starts_with(&stored));
        fs::remove_file(daemon.finished("f")).unwrap();
    }
    daemon.eventually_clean();
}

#[test]
fn a_growing_file_may_get_another_name_and_not_another_content() {
    let (daemon, other) = (Daemon::start(), Daemon::start());
    let file = data::file(&daemon.scratch(), "log", 1, 8 * MIB);
    let begin = |daemon: &Daemon| {
        let mut command = push(daemon, &file, &["--growing", "--limit-rate", "4M"]);
        let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        eventually("it is on its way", || daemon.info("f", "curr_merge_slice_id").is_some_and(|id| id != "0"));
        child
    };
    let child = begin(&daemon);
    fs::rename(&file, daemon.scratch().join("log.1")).unwrap();
    fs::write(&file, "a new log").unwrap();
    assert!(child.wait_with_output().unwrap().status.success());
    assert_eq!(fs::read(daemon.finished("f")).unwrap(), data::bytes(1, 8 * MIB as usize));
    fs::remove_file(daemon.finished("f")).unwrap();
    fs::rename(daemon.scratch().join("log.1"), &file).unwrap();
    // A byte of what was sent already.
    let child = begin(&daemon);
    File::options().write(true).open(&file).unwrap().write_all_at(b"x", 7).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && said.contains("reads differently"), "{said}");
    assert!(!daemon.finished("f").exists());
    // Cut short, as by a rotation that copies and truncates.
    let child = begin(&other);
    File::options().write(true).open(&file).unwrap().set_len(5).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && said.contains("-> 5 bytes"), "{said}");
    assert!(!other.finished("f").exists());
}

#[test]
fn a_growing_file_goes_on_after_a_kill_and_is_compared() {
    let daemon = Daemon::with(&["--takeover-after", "1s"]);
    let file = data::file(&daemon.scratch(), "log", 1, 8 * MIB);
    let kill_in_the_middle = || {
        let mut command = push(&daemon, &file, &["--growing", "--limit-rate", "4M"]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        eventually("some of it is merged", || daemon.info("f", "curr_merge_slice_id").is_some_and(|id| id != "0"));
        kill_9(&mut child);
    };
    let stored_right = |json: &str| {
        assert_eq!(fs::read(daemon.finished("f")).unwrap(), fs::read(&file).unwrap(), "{json}");
        fs::remove_file(daemon.finished("f")).unwrap();
    };
    // It has not grown.
    kill_in_the_middle();
    let (code, said) = run(push(&daemon, &file, &["--growing"]));
    assert_eq!(code, Some(0), "{said}");
    stored_right(&said);
    // It has grown.
    kill_in_the_middle();
    File::options().append(true).open(&file).unwrap().write_all(&data::bytes(2, 100_000)).unwrap();
    let (code, said) = run(push(&daemon, &file, &["--growing"]));
    assert_eq!(code, Some(0), "{said}");
    stored_right(&said);
    // It is as long as it was, and another one.
    kill_in_the_middle();
    let len = fs::metadata(&file).unwrap().len();
    File::options().write(true).open(&file).unwrap().write_all_at(&data::bytes(3, len as usize), 0).unwrap();
    let (code, said) = run(push(&daemon, &file, &["--growing"]));
    assert_eq!(code, Some(0), "{said}");
    stored_right(&said);
    daemon.eventually_clean();
}
