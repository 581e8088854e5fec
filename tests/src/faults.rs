//! Making the n-th file operation of the real programs fail.
//!
//! A small library in C (`tests/faults/faults.c`) is preloaded into `bigupd` and the mergers that it starts. So the programs
//! under test are those that are shipped, with no seam in them that could be wrong or forgotten, and every operation
//! counts: calls of libc are replaced, and system calls made round libc are trapped; one that the library does not know
//! ends the program.
//!
//! Operations on paths in one folder are counted over all processes, and the one that is armed fails: with an error,
//! or as half of what was asked for. A sync that fails takes what was written to that file since the last good one with
//! it, as Linux does, which holds those pages as clean from then on: at once (they read as zeros) or later (they
//! read well for as long as nobody cuts the power, and no sync will ever write them). The library remembers what is in
//! neither way on the disk, so that a test can ask whether a finished file was wholly synced.
//!
//! What it does not do: no operation on a path beside the folder fails, nor closing a file or memory mapped from one;
//! syncs that are to succeed are not passed on, since nothing here looks at the disk; what a failed sync of a
//! folder loses stays visible; how long a file is, is never lost.

use crate::programs;
use nix::errno::Errno;
use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Kinds of operations, to be added up.
pub mod kind {
    /// Opening what exists.
    pub const OPEN: u64 = 1;
    /// Making files, folders and links.
    pub const CREATE: u64 = 2;
    /// Writing, copying, cutting, reserving disk space.
    pub const WRITE: u64 = 4;
    /// Syncing.
    pub const SYNC: u64 = 8;
    /// Renaming.
    pub const RENAME: u64 = 16;
    /// Unlinking.
    pub const REMOVE: u64 = 32;
    /// Changing attributes, extended ones too.
    pub const ATTRIBUTE: u64 = 64;
    /// Reading files, folders and extended attributes.
    pub const READ: u64 = 128;
    /// Looking at what there is.
    pub const STAT: u64 = 256;
    /// Locking.
    pub const LOCK: u64 = 512;
    /// All of them.
    pub const ALL: u64 = 1023;
    /// Those that need disk space; writing back at a sync may be the first to find none.
    pub const SPACE: u64 = CREATE | WRITE | SYNC | RENAME | ATTRIBUTE;
}

/// Programs whose operations count, to be added up.
pub mod program {
    /// `bigupd`.
    pub const DAEMON: u64 = 1;
    /// `bigup-merger`.
    pub const MERGER: u64 = 2;
    /// Both.
    pub const BOTH: u64 = 3;
}

/// What failing means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// An error, and nothing was done.
    Fails = 0,
    /// Reading, writing and copying do half of what was asked for; all else fails with the error.
    Short = 1,
    /// An error; where a sync fails what it was about reads as zeros from then on.
    Loses = 2,
    /// An error; where a sync fails what it was about reads well and will never reach the disk.
    LosesLater = 3,
}

/// Which operations fail, and how.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// The kinds that count.
    pub kinds: u64,
    /// The programs that count.
    pub programs: u64,
    /// The error.
    pub error: Errno,
    /// What failing means.
    pub effect: Effect,
    /// After the first one every so many fail too, until the fault is lifted. 0: none.
    pub period: u64,
    /// What the paths that count end with: that of the file, for copies the one written to.
    pub only: &'static str,
}

/// Offsets into the file that library and test share; see `struct control` there.
mod at {
    pub const KINDS: u64 = 0;
    pub const PROGRAMS: u64 = 8;
    pub const AT: u64 = 16;
    pub const PERIOD: u64 = 24;
    pub const ERROR: u64 = 32;
    pub const EFFECT: u64 = 40;
    pub const COUNT: u64 = 48;
    pub const HITS: u64 = 56;
    pub const HIT: u64 = 72;
    pub const HIT_LEN: usize = 256;
    pub const ONLY: u64 = 328;
    pub const ONLY_LEN: usize = 64;
    pub const USED: u64 = 392;
    pub const EXTENTS: u64 = 400;
    pub const EXTENT_LEN: u64 = 40;
    /// More than the whole.
    pub const END: u64 = 1 << 20;
}

/// The faults of one data folder.
pub struct Faults {
    control: File,
    scratch: tempfile::TempDir,
    below: PathBuf,
    hits_before: std::cell::Cell<u64>,
}

impl Faults {
    /// None yet, in the folder `below`, which exists.
    pub fn new(below: &Path) -> Faults {
        let scratch = tempfile::tempdir().expect("a temporary folder can be made");
        let control = File::options().read(true).write(true).create_new(true).open(scratch.path().join("control"));
        let control = control.expect("the file can be made");
        control.set_len(at::END).expect("a sparse file can be made");
        let below = below.canonicalize().expect("the folder is there");
        Faults { control, scratch, below, hits_before: 0.into() }
    }

    /// A command line before that of a program which puts it, and what it starts, under these faults.
    pub fn launcher(&self) -> Vec<String> {
        let variable = |name, path: &Path| format!("{name}={}", path.display());
        vec![
            "env".to_owned(),
            variable("LD_PRELOAD", library()),
            variable("BIGUP_FAULTS", &self.scratch.path().join("control")),
            variable("BIGUP_FAULTS_BELOW", &self.below),
        ]
    }

    /// From here on the `n`-th operation that counts, from 1, fails.
    pub fn arm(&self, fault: &Fault, n: u64) {
        self.lift();
        self.hits_before.set(self.get(at::HITS));
        self.set(at::KINDS, fault.kinds);
        self.set(at::PROGRAMS, fault.programs);
        self.set(at::ERROR, u64::from((fault.error as i32).unsigned_abs()));
        self.set(at::EFFECT, fault.effect as u64);
        self.set(at::PERIOD, fault.period);
        let mut only = [0; at::ONLY_LEN];
        only[..fault.only.len()].copy_from_slice(fault.only.as_bytes());
        self.control.write_all_at(&only, at::ONLY).expect("the file can be written");
        self.set(at::AT, self.get(at::COUNT) + n);
    }

    /// From here on nothing fails.
    pub fn lift(&self) {
        self.set(at::AT, 0);
    }

    /// How many operations have failed since the fault was armed.
    pub fn hits(&self) -> u64 {
        self.get(at::HITS) - self.hits_before.get()
    }

    /// The last operation that failed, for messages.
    pub fn last_hit(&self) -> String {
        let mut text = [0; at::HIT_LEN];
        self.control.read_exact_at(&mut text, at::HIT).expect("the file is longer");
        let text = text.split(|byte| *byte == 0).next().unwrap_or_default();
        String::from_utf8_lossy(text).into_owned()
    }

    /// Whether anything of a file, or an entry of a folder, was written and has not reached the disk.
    pub fn is_unsynced(&self, path: &Path) -> bool {
        let found = std::fs::metadata(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        (0..self.get(at::USED)).any(|i| {
            let extent = at::EXTENTS + i * at::EXTENT_LEN;
            (self.get(extent), self.get(extent + 8)) == (found.dev(), found.ino())
        })
    }

    fn get(&self, offset: u64) -> u64 {
        let mut bytes = [0; 8];
        self.control.read_exact_at(&mut bytes, offset).expect("the file is longer");
        u64::from_ne_bytes(bytes)
    }

    fn set(&self, offset: u64, value: u64) {
        self.control.write_all_at(&value.to_ne_bytes(), offset).expect("the file can be written");
    }
}

/// The library, compiled beside the programs.
///
/// # Panics
/// There is no C compiler.
pub fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        // Hardened headers would replace the functions that are defined here.
        let unhardened = ["-shared", "-fPIC", "-O1", "-U_FORTIFY_SOURCE", "-fvisibility=hidden"];
        programs::compiled(
            "faults/faults.c",
            "faults.so",
            &[&unhardened[..], &["-Wall", "-Wextra", "-Werror"]].concat(),
        )
    })
}
