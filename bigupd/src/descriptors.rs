//! File descriptors: how many this process may have, how many connections they suffice for, and that no child gets ours.
//!
//! # What they suffice for
//! Of all descriptors that the system allows some are for other things than connections, at most half of them:
//! - `OWN` for the daemon itself and for what looks after its uploads;
//! - two for each merger at work: its pipe, and the descriptor by which its end is waited for;
//! - `HOOKS` for programs of hooks, where there are any;
//! - as many as [`refusals`] for connections that are refused, and as many again for those that are read on after their last
//!   answer;
//! - as many as [`crate::uploads::recent_slices`] keeps open of slices that just came.
//!
//! Of the rest each connection gets `A_CONNECTION`: its socket, the file of the slice that arrives, and what a request opens
//! for a moment. More than that may be open for an instant; then requests are told to come back.
#![allow(unsafe_code)]

use nix::errno::Errno;
use nix::libc;
use nix::sys::resource::{Resource, getrlimit, rlim_t, setrlimit};
use std::io;
use std::sync::OnceLock;
use tokio::process::Command;

/// For the daemon itself: its sockets, its log, the runtime, and what sweeps, looks and answers watchers.
const OWN: u64 = 48;

/// For the twenty programs of hooks that may run at once: two pipes each, and what waits for its end.
const HOOKS: u64 = 60;

/// Of each connection.
const A_CONNECTION: u64 = 3;

/// Most refused connections at once; beyond, connections are closed without an answer.
const MAX_REFUSALS: u64 = 256;

/// The share of all descriptors that is for refused connections.
const REFUSALS_SHARE: u64 = 16;

/// The limits of open files as they were at the start, soft and hard.
static AT_START: OnceLock<(rlim_t, rlim_t)> = OnceLock::new();

/// Keeps all descriptors but the standard ones from our children, also those that whoever started us left open, and sockets
/// that are passed (fcntl(2), FD_CLOEXEC). For the start of the program, before it has threads.
pub fn keep_from_children() {
    // Without /proc there is no list of them, and those that we open ourselves are kept anyway.
    let listed = std::fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let numbers: Vec<i32> = listed.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    for number in numbers.into_iter().filter(|number| *number > libc::STDERR_FILENO) {
        // SAFETY: it changes a flag of a descriptor, and of one that is not open any more (the list's own) nothing.
        unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) };
    }
}

/// Most files kept open: what a merger may lie behind by, several times.
const MOST_KEPT: u64 = 256;

/// Of the descriptors that the daemon may have, the part that is used for this.
const KEPT_SHARE: u64 = 16;

/// Who takes descriptors beside connections.
#[derive(Clone, Copy, Debug)]
pub struct OtherHolders {
    /// Mergers that may be at work at once.
    pub mergers: u64,
    /// There are hooks.
    pub has_hooks: bool,
}

/// Takes all descriptors that the system allows. Gives how many of the `asked` connections they suffice for.
pub fn fit(asked: u64, others: OtherHolders) -> u64 {
    let allowed = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| {
        AT_START.get_or_init(|| (soft, hard));
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
        Ok(hard)
    });
    let files = match allowed {
        Ok(files) => files,
        Err(e) => {
            log::warn!("how many files may be open cannot be told or changed: {e}");
            return asked;
        }
    };
    let fit = connections_for(files, others);
    if asked > fit {
        log::warn!(
            "max_connections is {asked}, but {files} open files are allowed (LimitNOFILE, ulimit -Hn): {fit} it is"
        );
    }
    asked.min(fit)
}

/// How many connections so many descriptors suffice for; see the head of this file.
fn connections_for(files: u64, others: OtherHolders) -> u64 {
    let hooks = if others.has_hooks { HOOKS } else { 0 };
    let taken = OWN + hooks + 2 * refusals_for(files) + kept_open(files);
    let taken = taken.saturating_add(others.mergers.saturating_mul(2)).min(files / 2);
    ((files - taken) / A_CONNECTION).max(1)
}

/// How many connections may be refused at once, and how many may be read on after their last answer.
pub fn refusals() -> usize {
    let files = getrlimit(Resource::RLIMIT_NOFILE).map_or(MAX_REFUSALS * REFUSALS_SHARE, |(soft, _)| soft);
    usize::try_from(refusals_for(files)).unwrap_or(usize::MAX)
}

/// How many files of slices that just came are kept open at most, where there may be so many open files.
pub fn kept_open(files: u64) -> u64 {
    (files / KEPT_SHARE).min(MOST_KEPT)
}

fn refusals_for(files: u64) -> u64 {
    (files / REFUSALS_SHARE).clamp(1, MAX_REFUSALS)
}

/// Has `child` get the limit of open files that we got: programs there are that are slow, or fail, where it is high (select(2)
/// takes descriptors below 1,024 only).
pub fn as_at_start(child: &mut Command) {
    let Some(&(soft, hard)) = AT_START.get() else { return };
    let lower = move || setrlimit(Resource::RLIMIT_NOFILE, soft, hard).map_err(|e: Errno| io::Error::from(e));
    // SAFETY: between fork and exec it makes one system call, which takes no lock and no memory (signal-safety(7)).
    unsafe { child.pre_exec(lower) };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn others() -> OtherHolders {
        let defaults = crate::config::Config::defaults("/d".into());
        OtherHolders { mergers: defaults.mergers.most, has_hooks: false }
    }

    #[test]
    fn connections_leave_descriptors_for_other_things() {
        let fit = |files| connections_for(files, others());
        assert_eq!([0, 64, 256, 1024, 65536].map(fit), [1, 10, 42, 250, 21562]);
        let with_hooks = OtherHolders { has_hooks: true, ..others() };
        assert_eq!(connections_for(1024, with_hooks), 230);
        let with_more = OtherHolders { mergers: u64::MAX, ..with_hooks };
        assert_eq!(connections_for(1024, with_more), 170, "never more than half is for others");
        assert_eq!(connections_for(u64::MAX, others()), (u64::MAX - 848) / 3);
    }

    /// The formula and the examples of docs/operations.md.
    #[test]
    fn the_document_tells_the_same_numbers() {
        let text = include_str!("../../docs/operations.md");
        for files in [256, 1024, 65536] {
            let row = format!("| {files} | {} |", connections_for(files, others()));
            assert!(text.contains(&row), "docs/operations.md has no row {row}");
        }
        for part in [format!("{OWN} for"), format!("{HOOKS} where"), format!("a {REFUSALS_SHARE}th")] {
            assert!(text.contains(&part), "docs/operations.md does not say {part}");
        }
    }
}
