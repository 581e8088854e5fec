//! How long a stored file stays here before it is moved or removed.
//!
//! | `keep_for` | `keep_free` | a stored file ends |
//! | --- | --- | --- |
//! | no | no | at once |
//! | yes | no | that long after its last change |
//! | no | yes | when the disk is short, the oldest first |
//! | yes | yes | that long after its last change, or earlier when the disk is short, the oldest first |

use crate::source::fingerprint::Fingerprint;
use bigup_core::protocol::units::{parse_size, show_size};
use std::fmt;
use std::io;
use std::path::Path;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The rule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keeping {
    /// Time since the last change of a file. `None`: it says nothing.
    pub keep_for: Option<Duration>,
    /// Disk space that is to be free. `None`: it says nothing.
    pub keep_free: Option<FreeSpace>,
}

/// Disk space that is to be free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FreeSpace {
    /// So many bytes.
    Bytes(u64),
    /// This part of the file system, in percent, 1 to 99.
    Percent(u8),
}

/// Time since the last change of a file, by the clock of this machine. `None`: that is in the future.
pub fn age(found: &Fingerprint) -> Option<Duration> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    let changed = u128::try_from(last_change(found)).unwrap_or(0);
    let nanos = now.checked_sub(changed)?;
    Some(Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)))
}

/// The last change of a file, in nanoseconds since 1970.
pub fn last_change(found: &Fingerprint) -> i128 {
    found.modified.max(found.changed)
}

impl Keeping {
    /// True if a stored file is to end by its age.
    pub fn is_over(&self, found: &Fingerprint) -> bool {
        match (self.keep_for, self.keep_free) {
            (Some(time), _) => age(found).is_some_and(|age| age >= time),
            (None, Some(_)) => false,
            (None, None) => true,
        }
    }

    /// True if less disk space is free where `folder` is than is to be.
    ///
    /// # Errors
    /// As the system gives them.
    pub fn is_short(&self, folder: &Path) -> io::Result<bool> {
        let Some(wanted) = self.keep_free else { return Ok(false) };
        let disk = fs2::statvfs(folder)?;
        Ok(disk.available_space() < wanted.of(disk.total_space()))
    }
}

impl FreeSpace {
    /// Bytes of a file system that has `total` bytes.
    fn of(self, total: u64) -> u64 {
        match self {
            FreeSpace::Bytes(bytes) => bytes,
            FreeSpace::Percent(percent) => (u128::from(total) * u128::from(percent) / 100) as u64,
        }
    }
}

impl FromStr for FreeSpace {
    type Err = String;

    fn from_str(text: &str) -> Result<FreeSpace, String> {
        let Some(percent) = text.strip_suffix('%') else { return parse_size(text).map(FreeSpace::Bytes) };
        match percent.parse() {
            Ok(percent @ 1..=99) => Ok(FreeSpace::Percent(percent)),
            _ => Err(format!("{text:?} is no percentage from 1% to 99%")),
        }
    }
}

impl fmt::Display for FreeSpace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FreeSpace::Bytes(bytes) => f.write_str(&show_size(*bytes)),
            FreeSpace::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed_before(age: Duration) -> Fingerprint {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as i128;
        let changed = now - age.as_nanos() as i128;
        Fingerprint { size: 1, modified: changed - 5, changed, inode: 7, volume: 0 }
    }

    #[test]
    fn a_file_ends_by_its_age_or_at_once_or_when_the_disk_is_short() {
        let (hour, day) = (Duration::from_secs(3600), Duration::from_secs(24 * 3600));
        let (keep_for, keep_free) = (Some(day), Some(FreeSpace::Percent(5)));
        for (keeping, after_an_hour, after_two_days) in [
            (Keeping::default(), true, true),
            (Keeping { keep_for, keep_free: None }, false, true),
            (Keeping { keep_for: None, keep_free }, false, false),
            (Keeping { keep_for, keep_free }, false, true),
        ] {
            let is_over = [hour, 2 * day].map(|age| keeping.is_over(&changed_before(age)));
            assert_eq!(is_over, [after_an_hour, after_two_days], "{keeping:?}");
        }
        let future = Fingerprint { modified: i128::MAX, ..changed_before(hour) };
        assert_eq!(age(&future), None);
    }

    #[test]
    fn space_is_bytes_or_a_part_of_the_disk() {
        assert_eq!("10%".parse(), Ok(FreeSpace::Percent(10)));
        assert_eq!("5G".parse(), Ok(FreeSpace::Bytes(5 << 30)));
        for wrong in ["0%", "100%", "x%", "-1%", "%", "ten"] {
            assert!(wrong.parse::<FreeSpace>().is_err(), "{wrong}");
        }
        assert_eq!(FreeSpace::Percent(10).of(1000), 100);
        let keeping = |keep_free| Keeping { keep_for: None, keep_free };
        let here = Path::new(".");
        assert!(!keeping(None).is_short(here).unwrap() && !keeping(Some(FreeSpace::Bytes(0))).is_short(here).unwrap());
        assert!(keeping(Some(FreeSpace::Bytes(u64::MAX))).is_short(here).unwrap());
    }
}
