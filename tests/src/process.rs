//! Waiting for conditions, and ending processes by their id.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fmt::Debug;
use std::process::Child;
use std::time::{Duration, Instant};

/// How long to wait for what must happen. Long, since machines are slow at times; nothing waits longer than it needs.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until `condition` holds.
///
/// # Panics
/// It does not within [`PATIENCE`].
pub fn eventually(what: &str, condition: impl FnMut() -> bool) {
    within(PATIENCE, what, condition);
}

/// Waits until what is found is `expected`.
///
/// # Panics
/// It is not within [`PATIENCE`]; says what is found instead.
pub fn eventually_equal<T: PartialEq + Debug>(what: &str, expected: &T, mut find: impl FnMut() -> T) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let found = find();
        if found == *expected {
            return;
        }
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} in vain: {what}: {expected:?}, not {found:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Waits until `condition` holds, for what must happen soon.
///
/// # Panics
/// It does not within `time`.
pub fn within(time: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + time;
    while !condition() {
        assert!(Instant::now() < deadline, "waited {time:?} in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Sends a signal to a process that the caller started. After SIGSTOP all of its threads have stopped: until then it goes
/// on, and handles what comes next.
pub fn signal(pid: u32, signal: Signal) {
    // It may have ended by itself.
    let _ = kill(Pid::from_raw(pid.cast_signed()), signal);
    if signal == Signal::SIGSTOP {
        eventually("it has stopped", || has_stopped(pid));
    }
}

/// True if each thread of a process has stopped, or the process has ended.
fn has_stopped(pid: u32) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    threads.into_iter().all(|thread| {
        let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        // The state comes behind the name, which ends with the last parenthesis (proc_pid_stat(5)).
        let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
        state.is_none_or(|state| matches!(state, 'T' | 'Z' | 'X'))
    })
}

/// Sends a signal to a process whose id a program of ours wrote down, if it is still that program.
pub fn signal_program(pid: u32, program: &str, what: Signal) -> bool {
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    let is_it = name.trim() == program;
    if is_it {
        signal(pid, what);
    }
    is_it
}

/// Ends a child at once, as a crash would.
pub fn kill_9(child: &mut Child) {
    // It may have ended by itself.
    let _ = child.kill();
    let _ = child.wait();
}
