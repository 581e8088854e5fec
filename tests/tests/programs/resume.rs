//! Interrupted pushes go on where they stopped, and content is never mixed, whoever comes, goes, changes the file, or
//! pushes something else under the same name.

use bigup_tests::daemon::Daemon;
use bigup_tests::mapped::Mapped;
use bigup_tests::process::{eventually, kill_9, signal, signal_program};
use bigup_tests::{data, programs};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

const SLICE: u64 = 64 << 10;

/// Bytes of a file whose push takes long enough to be met in the middle.
const LARGE: u64 = 64 << 20;

/// A daemon that lets pushes be taken over soon.
fn daemon() -> Daemon {
    Daemon::with(&["--takeover-after", "2s", "--merger-idle", "500ms"])
}

fn push(daemon: &Daemon, file: &Path, more: &[&str]) -> Command {
    let mut command = programs::cli();
    command.arg("push").arg(file).args(["--url", daemon.url(), "--slice-size", "64K", "--name", "f", "--json"]);
    command.args(more).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn start(mut command: Command) -> Child {
    command.spawn().expect("the client can be started")
}

/// The events of a push that ended, and whether it succeeded.
fn events(output: &Output) -> Vec<Value> {
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{line}: {e}"))).collect()
}

fn event<'a>(events: &'a [Value], name: &str) -> &'a Value {
    events.iter().rfind(|e| e["event"] == name).unwrap_or_else(|| panic!("no {name} in {events:?}"))
}

/// The last event of a push that must succeed.
fn done(output: &Output) -> Value {
    let events = events(output);
    assert!(output.status.success(), "{events:?}");
    event(&events, "done").clone()
}

/// The message of a push that must fail.
fn failure(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    event(&events(output), "error")["message"].as_str().expect("it is text").to_owned()
}

fn held(daemon: &Daemon) -> usize {
    daemon.server().get("peek=1&file_name=f").held().len()
}

/// Waits until the push is somewhere in the middle.
fn eventually_half_way(daemon: &Daemon, slices: usize) {
    eventually("some slices are held", || held(daemon) >= slices);
    assert!(!daemon.finished("f").exists(), "too fast to be met in the middle");
}

/// A push of `file` that was killed in the middle.
fn interrupted(daemon: &Daemon, file: &Path) {
    let mut client = start(push(daemon, file, &[]));
    eventually_half_way(daemon, 200);
    kill_9(&mut client);
}

fn large(daemon: &Daemon, seed: u64) -> PathBuf {
    data::file(&daemon.scratch(), &format!("large{seed}"), seed, LARGE)
}

fn assert_stored(daemon: &Daemon, file: &Path) {
    assert!(data::same(file, &daemon.finished("f")));
    daemon.eventually_clean();
}

/// Bytes that a child has read, by the kernel's count; waits for its end and leaves it to be reaped.
fn bytes_read_by(child: &Child) -> u64 {
    let stat = format!("/proc/{}/stat", child.id());
    let ended = || {
        std::fs::read_to_string(&stat).is_ok_and(|text| text.rsplit(") ").next().is_some_and(|s| s.starts_with('Z')))
    };
    eventually("the client ends", ended);
    let io = std::fs::read_to_string(format!("/proc/{}/io", child.id())).expect("its counters can be read");
    let line = io.lines().find_map(|line| line.strip_prefix("rchar: ")).expect("there is such a counter");
    line.parse().expect("it is a number")
}

#[test]
fn a_killed_client_goes_on_and_reads_only_what_is_missing() {
    let daemon = daemon();
    let file = large(&daemon, 1);
    interrupted(&daemon, &file);
    let client = start(push(&daemon, &file, &[]));
    let read = bytes_read_by(&client);
    let done = done(&client.wait_with_output().unwrap());
    let (sent, held) = (done["bytes_sent"].as_u64().unwrap(), done["bytes_held"].as_u64().unwrap());
    assert_eq!(sent + held, LARGE);
    assert!(held >= 200 * SLICE, "{done}");
    assert!(read < sent + (2 << 20), "{read} bytes were read to send {sent}");
    assert_eq!(done["file_digest"], data::digest(&file));
    assert_stored(&daemon, &file);
}

#[test]
fn a_daemon_killed_in_the_middle_is_only_a_pause() {
    let mut daemon = daemon();
    let file = large(&daemon, 2);
    let client = start(push(&daemon, &file, &[]));
    for slices in [100, 300, 600] {
        eventually_half_way(&daemon, slices);
        daemon.kill_9();
        daemon.run();
    }
    let output = client.wait_with_output().unwrap();
    let done = done(&output);
    assert_eq!(done["bytes_sent"].as_u64().unwrap() + done["bytes_held"].as_u64().unwrap(), LARGE);
    assert!(events(&output).iter().any(|e| e["event"] == "retry"), "the client noticed");
    assert_stored(&daemon, &file);
}

#[test]
fn a_daemon_stopped_in_the_middle_ends_well_and_goes_on() {
    let mut daemon = daemon();
    let file = large(&daemon, 3);
    let client = start(push(&daemon, &file, &[]));
    eventually_half_way(&daemon, 100);
    daemon.stop();
    daemon.run();
    done(&client.wait_with_output().unwrap());
    assert_stored(&daemon, &file);
}

#[test]
fn a_merger_killed_again_and_again_loses_nothing() {
    let daemon = daemon();
    let file = large(&daemon, 4);
    let client = start(push(&daemon, &file, &[]));
    let mut kills = 0;
    eventually("the push ends", || {
        // Bounded, since bigupd starts a merger that keeps failing less and less often.
        if kills < 5
            && let Some(pid) = daemon.info("f", "merger_pid").and_then(|pid| pid.parse().ok())
        {
            kills += u32::from(signal_program(pid, "bigup-merger", Signal::SIGKILL));
        }
        daemon.finished("f").exists()
    });
    done(&client.wait_with_output().unwrap());
    assert!(kills > 0, "no merger was met");
    assert_stored(&daemon, &file);
}

#[test]
fn after_the_source_changed_only_differing_slices_are_sent_again() {
    let daemon = daemon();
    let file = large(&daemon, 5);
    interrupted(&daemon, &file);
    let before = held(&daemon) as u64;
    // In place and of the same size: slices 3 and 150 differ now, both held already.
    let changed = std::fs::OpenOptions::new().write(true).open(&file).unwrap();
    changed.write_all_at(b"changed", 3 * SLICE + 5).unwrap();
    changed.write_all_at(b"changed", 150 * SLICE).unwrap();
    let done = done(&push(&daemon, &file, &[]).output().unwrap());
    let sent = done["bytes_sent"].as_u64().unwrap();
    assert!(sent <= LARGE - (before - 2) * SLICE, "{before} slices were held, {sent} bytes sent");
    assert_eq!(done["file_digest"], data::digest(&file));
    assert_stored(&daemon, &file);
}

#[test]
fn what_was_written_through_a_memory_map_after_a_push_broke_off_is_sent_again() {
    let (daemon, in_memory) = (daemon(), tempfile::tempdir_in("/dev/shm").unwrap());
    for folder in [&daemon.scratch(), in_memory.path()] {
        let file = data::file(folder, "mapped", 18, LARGE);
        let map = Mapped::new(&file);
        let write = |what: &[u8]| [3, 150].iter().for_each(|slice| map.write(slice * SLICE as usize, what));
        // From here on these pages are dirty, and writing to them again moves no time.
        write(b"old");
        interrupted(&daemon, &file);
        write(b"new");
        done(&push(&daemon, &file, &[]).output().unwrap());
        assert_stored(&daemon, &file);
        std::fs::remove_file(daemon.finished("f")).unwrap();
    }
}

#[test]
fn a_source_that_grew_keeps_its_full_slices() {
    let daemon = daemon();
    let file = large(&daemon, 6);
    interrupted(&daemon, &file);
    let before = held(&daemon) as u64;
    let grown = std::fs::OpenOptions::new().write(true).open(&file).unwrap();
    grown.write_all_at(b"more at the end", LARGE).unwrap();
    let done = done(&push(&daemon, &file, &[]).output().unwrap());
    assert!(done["bytes_sent"].as_u64().unwrap() <= LARGE + 15 - (before - 1) * SLICE, "{before} were held, {done}");
    assert_stored(&daemon, &file);
}

#[test]
fn a_source_that_changes_during_the_push_is_an_error_and_nothing_is_published() {
    let daemon = daemon();
    let file = large(&daemon, 7);
    let client = start(push(&daemon, &file, &["--senders", "1"]));
    eventually_half_way(&daemon, 50);
    let changed = std::fs::OpenOptions::new().write(true).open(&file).unwrap();
    changed.write_all_at(b"changed", LARGE - 100).unwrap();
    let message = failure(&client.wait_with_output().unwrap());
    assert!(message.contains("changed"), "{message}");
    assert!(!daemon.finished("f").exists());
    done(&push(&daemon, &file, &[]).output().unwrap());
    assert_stored(&daemon, &file);
}

#[test]
fn the_same_content_pushed_twice_at_once_succeeds_twice() {
    let daemon = daemon();
    let file = large(&daemon, 8);
    let copy = daemon.scratch().join("copy");
    std::fs::copy(&file, &copy).unwrap();
    let first = start(push(&daemon, &file, &[]));
    eventually_half_way(&daemon, 50);
    let second = start(push(&daemon, &copy, &[]));
    let third = start(push(&daemon, &file, &[]));
    for client in [first, second, third] {
        assert_eq!(done(&client.wait_with_output().unwrap())["file_digest"], data::digest(&file));
    }
    assert_stored(&daemon, &file);
}

#[test]
fn different_content_under_one_name_is_an_error_for_whoever_comes_second() {
    let daemon = daemon();
    for (size, says) in [(LARGE, "differs"), (LARGE - 1, "bytes")] {
        let (file, other) = (large(&daemon, 9), data::file(&daemon.scratch(), "other", size + 1, size));
        let first = start(push(&daemon, &file, &["--senders", "1", "--replace"]));
        eventually_half_way(&daemon, 50);
        let message = failure(&push(&daemon, &other, &[]).output().unwrap());
        assert!(message.contains(says) || message.contains("--replace"), "{message}");
        done(&first.wait_with_output().unwrap());
        assert_stored(&daemon, &file);
        std::fs::remove_file(daemon.finished("f")).unwrap();
    }
}

#[test]
fn whoever_was_silent_for_long_finds_the_upload_taken_over() {
    let daemon = daemon();
    let (file, other) = (large(&daemon, 10), large(&daemon, 11));
    let first = start(push(&daemon, &file, &[]));
    eventually_half_way(&daemon, 50);
    signal(first.id(), Signal::SIGSTOP);
    done(&push(&daemon, &other, &[]).output().unwrap());
    signal(first.id(), Signal::SIGCONT);
    let message = failure(&first.wait_with_output().unwrap());
    assert!(message.contains("another push") || message.contains("differs") || message.contains("exists"), "{message}");
    assert_stored(&daemon, &other);
}

#[test]
fn standard_input_that_broke_off_is_not_sent_again() {
    let daemon = daemon();
    let file = large(&daemon, 12);
    let from_stdin = |input: Stdio| {
        let mut command = programs::cli();
        command.args(["push", "-", "--url", daemon.url(), "--slice-size", "64K", "--name", "f", "--json"]);
        command.stdin(input).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    };
    let open = || Stdio::from(std::fs::File::open(&file).unwrap());
    let mut client = start(from_stdin(open()));
    eventually_half_way(&daemon, 200);
    kill_9(&mut client);
    let done = done(&from_stdin(open()).output().unwrap());
    assert!(done["bytes_sent"].as_u64().unwrap() <= LARGE - 190 * SLICE, "{done}");
    assert_stored(&daemon, &file);
}

#[test]
fn what_the_seeds_client_left_is_compared_and_gone_on_with() {
    let daemon = daemon();
    // Small enough to go in one request, which an upload that has begun in slices does not take.
    for (len, slice) in [(700_000, 64 << 10), (5 << 20, 1 << 20)] {
        let file = data::file(&daemon.scratch(), "left", len, len);
        let content = std::fs::read(&file).unwrap();
        let slices: Vec<&[u8]> = content.chunks(slice).collect();
        let server = daemon.server().as_oldest();
        server.get(&format!("file_name=f&slice_num={}", slices.len())).expect(200);
        for (id, other) in [(0, false), (2, false), (3, true)] {
            let bytes = if other { vec![9; slice] } else { slices[id].to_vec() };
            server.post(&format!("file_name=f&slice_id={id}&slice_size={slice}"), &bytes).expect(200);
        }
        let done = done(&push(&daemon, &file, &[]).output().unwrap());
        assert_eq!(done["bytes_sent"].as_u64().unwrap(), len - 2 * slice as u64, "{done}");
        assert_stored(&daemon, &file);
        std::fs::remove_file(daemon.finished("f")).unwrap();
    }
}

#[test]
fn ctrl_c_says_how_to_go_on() {
    let daemon = daemon();
    let file = large(&daemon, 13);
    let mut command = programs::cli();
    command.arg("push").arg(&file).args(["--url", daemon.url(), "--slice-size", "64K", "--name", "f"]);
    let client = command.stderr(Stdio::piped()).spawn().unwrap();
    eventually_half_way(&daemon, 50);
    signal(client.id(), Signal::SIGINT);
    let output = client.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    // As a shell sees it, whose loop ends then.
    assert_eq!(output.status.signal(), Some(Signal::SIGINT as i32));
    assert!(said.contains("of 1024 slices") && said.contains("again"), "{said}");
}

#[test]
fn a_push_that_failed_keeps_nobody_waiting() {
    let daemon = Daemon::with(&["--takeover-after", "1h", "--merger-idle", "100ms", "--max-file-size", "10M"]);
    let (long, short) =
        (data::file(&daemon.scratch(), "long", 21, 20 << 20), data::file(&daemon.scratch(), "short", 22, 5 << 20));
    let arguments = ["--senders", "1"];
    // Nobody knows how much is to come, until it is too much.
    let mut command = push(&daemon, Path::new("-"), &arguments);
    let refused = command.stdin(std::fs::File::open(&long).unwrap()).output().unwrap();
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(held(&daemon) > 0);
    done(&push(&daemon, &short, &arguments).output().unwrap());
    assert_stored(&daemon, &short);
}

#[test]
fn an_upload_of_which_nothing_is_held_is_taken_over_with_the_word_to_replace() {
    let daemon = Daemon::with(&["--takeover-after", "0", "--merger-idle", "100ms"]);
    let (old, new) =
        (data::file(&daemon.scratch(), "old", 16, 3 << 20), data::file(&daemon.scratch(), "new", 17, 3 << 20));
    for from_stdin in [false, true] {
        done(&push(&daemon, &old, &["--replace"]).output().unwrap());
        let begin = format!("file_name=f&slice_size={SLICE}&file_size={}&source=gone&replace=1", 5 << 20);
        assert_eq!(daemon.server().get(&begin).expect(200).body["is_uploaded"], 0);
        // Stopped before it sent anything; the push that takes over asks first whether the file is there.
        let path = if from_stdin { Path::new("-") } else { &new };
        let mut command = push(&daemon, path, &["--replace"]);
        let output = command.stdin(std::fs::File::open(&new).unwrap()).output().unwrap();
        done(&output);
        assert_stored(&daemon, &new);
    }
}

#[test]
fn a_replaced_file_stays_readable_until_the_new_one_is_whole() {
    let daemon = daemon();
    let (old, new) = (data::file(&daemon.scratch(), "old", 14, 3 << 20), large(&daemon, 15));
    done(&push(&daemon, &old, &[]).output().unwrap());
    let client = start(push(&daemon, &new, &["--replace"]));
    eventually("the new one arrives", || held(&daemon) >= 100);
    assert!(data::same(&old, &daemon.finished("f")));
    done(&client.wait_with_output().unwrap());
    assert_stored(&daemon, &new);
}
