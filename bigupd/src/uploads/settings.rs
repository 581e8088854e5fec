//! Treatment of uploads, and their limits.

use crate::uploads::create::ExistingFiles;
use bigup_core::protocol::kept::Kept;
use bigup_core::protocol::name::quoted;
use std::str::FromStr;
use std::time::Duration;

/// The promise of a slice's 200.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SliceAck {
    /// It survives the death of any process; after a power cut a damaged one is found and asked for again.
    Written,
    /// It survives a power cut.
    Synced,
}

/// The facts of clients' files that finished files may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    /// True: the time of the last write.
    times: bool,
    /// True: permission bits, as far as permitted.
    mode: bool,
}

impl Keep {
    /// Those of the facts `asked` for that are kept.
    pub fn permitted(self, asked: Kept) -> Kept {
        Kept { modified: asked.modified.filter(|_| self.times), mode: asked.mode.filter(|_| self.mode) }
    }
}

impl FromStr for Keep {
    type Err = String;

    fn from_str(text: &str) -> Result<Keep, String> {
        let mut keep = Keep { times: false, mode: false };
        if text == "none" {
            return Ok(keep);
        }
        for word in text.split(',') {
            match word.trim() {
                "times" => keep.times = true,
                "mode" => keep.mode = true,
                _ => return Err(format!("{} is none of times, mode, times,mode and none", quoted(text))),
            }
        }
        Ok(keep)
    }
}

/// Treatment of uploads, and their limits. Requests over a limit are refused, never dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Largest slice, in bytes.
    pub slice_size: u64,
    /// Largest file, in bytes.
    pub file_size: u64,
    /// Most slices of a file.
    pub slices: u64,
    /// Most unfinished uploads in all.
    pub number: u64,
    /// Most unfinished uploads of one token.
    pub number_per_token: u64,
    /// Largest response, in bytes.
    pub response_size: u64,
    /// Most bytes that all files may take for clients that have no token to push more. `None` if any number may.
    pub anonymous_quota: Option<u64>,
    /// Time that a push must be silent before another source may take its upload over.
    pub takeover_after: Duration,
    /// The promise of a slice's 200.
    pub slice_ack: SliceAck,
    /// The treatment of a file whose name is taken, where its protocol cannot say more.
    pub existing_files: ExistingFiles,
    /// Bytes that uploads leave free on the disk.
    pub reserve: u64,
    /// True: readers of finished files are sent to the store of objects, where it can be.
    pub redirects_to_store: bool,
    /// Most bytes of all uploads in the data folder while the store of objects is behind. 0: the disk is the limit.
    pub spool_limit: u64,
    /// The facts of clients' files that finished files may have.
    pub keep: Keep,
}

#[cfg(test)]
mod tests {
    use super::*;
    use bigup_core::protocol::kept::{FileMode, FileTime};

    #[test]
    fn only_what_the_operator_permits_is_kept() {
        let asked = Kept { modified: FileTime::new(1), mode: Some(FileMode::of(0o640)) };
        let permitted = |text: &str| text.parse::<Keep>().unwrap().permitted(asked);
        assert_eq!(permitted("times,mode"), asked);
        assert_eq!(permitted("times"), Kept { mode: None, ..asked });
        assert_eq!(permitted("mode"), Kept { modified: None, ..asked });
        assert_eq!(permitted("none"), Kept::default());
        for bad in ["", "owner", "times,none", "times,"] {
            assert!(bad.parse::<Keep>().unwrap_err().contains("times,mode"), "{bad}");
        }
    }
}
