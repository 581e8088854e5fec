//! The facts of a local file beside its content that the finished file is to have.

use bigup_core::protocol::kept::Kept;
use std::fmt;
use std::str::FromStr;

/// A choice among the facts. The default is [`Keep::TIMES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    /// True: the time of the last write.
    pub times: bool,
    /// True: the permission bits, as far as the server permits.
    pub mode: bool,
}

impl Keep {
    /// Nothing is kept: the server chooses all.
    pub const NONE: Keep = Keep { times: false, mode: false };

    /// The time of the last write.
    pub const TIMES: Keep = Keep { times: true, mode: false };

    /// Those of the facts that are chosen.
    pub(super) fn of(self, kept: Kept) -> Kept {
        Kept { modified: kept.modified.filter(|_| self.times), mode: kept.mode.filter(|_| self.mode) }
    }
}

impl Default for Keep {
    fn default() -> Keep {
        Keep::TIMES
    }
}

impl fmt::Display for Keep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (self.times, self.mode) {
            (true, true) => "times,mode",
            (true, false) => "times",
            (false, true) => "mode",
            (false, false) => "none",
        })
    }
}

impl FromStr for Keep {
    type Err = String;

    fn from_str(text: &str) -> Result<Keep, String> {
        let mut keep = Keep::NONE;
        if text == "none" {
            return Ok(keep);
        }
        for word in text.split(',') {
            match word {
                "times" => keep.times = true,
                "mode" => keep.mode = true,
                "" => return Err("a word is missing: times, mode, times,mode or none".to_owned()),
                other => return Err(format!("{other} is not kept: times, mode, times,mode and none can be given")),
            }
        }
        Ok(keep)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bigup_core::protocol::kept::{FileMode, FileTime};

    #[test]
    fn a_choice_is_read_as_it_is_shown() {
        let all = Kept { modified: FileTime::new(7), mode: Some(FileMode::of(0o644)) };
        for (text, kept) in [
            ("times,mode", all),
            ("times", Kept { mode: None, ..all }),
            ("mode", Kept { modified: None, ..all }),
            ("none", Kept::default()),
        ] {
            let keep: Keep = text.parse().unwrap();
            assert_eq!((keep.to_string().as_str(), keep.of(all)), (text, kept));
        }
        assert_eq!("mode,times".parse::<Keep>().unwrap().to_string(), "times,mode");
        for bad in ["", "owner", "times,", "none,times", "Times", "times mode"] {
            assert!(bad.parse::<Keep>().is_err(), "{bad}");
        }
    }
}
