//! Facts of a client's file beside its content that are kept with the finished file: the time of its last write, and
//! its permission bits.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Nanoseconds of a second.
const SECOND: i128 = 1_000_000_000;

/// The beginning of 1601, in seconds since 1970: the time of Windows' files that have none.
const FIRST: i128 = -11_644_473_600;

/// The beginning of the year 10000, in seconds since 1970.
const END: i128 = 253_402_300_800;

/// All permission bits: those of the owner, the group and others. Set-id bits and the sticky bit are none.
const PERMISSIONS: u32 = 0o777;

/// Permission to read and write for the owner: the server reads the file and writes down its digest.
const OWNER: u32 = 0o600;

/// The facts that are kept. The default keeps none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// Time of the last write to the client's file. `None`: the time of publication counts.
    pub modified: Option<FileTime>,
    /// Its permission bits. `None`: the server chooses them.
    pub mode: Option<FileMode>,
}

impl Kept {
    /// These facts, and those of `former` where one of these is not known.
    #[must_use]
    pub fn or(self, former: Kept) -> Kept {
        Kept { modified: self.modified.or(former.modified), mode: self.mode.or(former.mode) }
    }
}

/// The time of the last write to a file, after the beginning of 1601 and before the year 10000, in nanoseconds.
///
/// As text it is a number of seconds since 1970 in UTC, with up to nine decimals, like `1700000000.123456789` or
/// `-0.5`: `stat -c %.9Y FILE` prints it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileTime(i128);

impl FileTime {
    /// The time of so many nanoseconds since 1970. `None` if it is out of range.
    pub fn new(nanos: i128) -> Option<FileTime> {
        (nanos > FIRST * SECOND && nanos < END * SECOND).then_some(FileTime(nanos))
    }

    /// Nanoseconds since 1970; negative before.
    pub fn nanos(self) -> i128 {
        self.0
    }

    /// The same as a time of this system. `None` if the system has no such time.
    pub fn to_system(self) -> Option<SystemTime> {
        let magnitude = self.0.unsigned_abs();
        let (seconds, nanos) = (magnitude / SECOND as u128, magnitude % SECOND as u128);
        let distance = Duration::new(u64::try_from(seconds).ok()?, u32::try_from(nanos).ok()?);
        if self.0 < 0 { UNIX_EPOCH.checked_sub(distance) } else { UNIX_EPOCH.checked_add(distance) }
    }
}

impl fmt::Display for FileTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let magnitude = self.0.unsigned_abs();
        let (seconds, nanos) = (magnitude / SECOND as u128, magnitude % SECOND as u128);
        write!(f, "{sign}{seconds}")?;
        if nanos == 0 {
            return Ok(());
        }
        write!(f, ".{}", format!("{nanos:09}").trim_end_matches('0'))
    }
}

impl FromStr for FileTime {
    type Err = String;

    fn from_str(text: &str) -> Result<FileTime, String> {
        let wrong = || {
            let shown = crate::protocol::name::quoted(text);
            format!("{shown} is no time in seconds since 1970, like 1700000000.5, with at most 9 decimals")
        };
        let (is_negative, digits) = text.strip_prefix('-').map_or((false, text), |digits| (true, digits));
        let (seconds, decimals) = digits.split_once('.').unwrap_or((digits, "0"));
        let is_number = |part: &str, most: usize| {
            (1..=most).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit())
        };
        // No time in range has more digits.
        if !is_number(seconds, 12) || !is_number(decimals, 9) {
            return Err(wrong());
        }
        let seconds: i128 = seconds.parse().map_err(|_| wrong())?;
        let nanos: i128 = format!("{decimals:0<9}").parse().map_err(|_| wrong())?;
        let magnitude = seconds * SECOND + nanos;
        FileTime::new(if is_negative { -magnitude } else { magnitude })
            .ok_or_else(|| format!("{text} is out of range: the years 1601 to 9999 are from {FIRST} to {END}"))
    }
}

/// Permission bits of a file (chmod(2)), at most 777 in octal. As text they are octal, like `640`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileMode(u32);

impl FileMode {
    /// The permission bits of `mode`; all other bits are left out.
    pub fn of(mode: u32) -> FileMode {
        FileMode(mode & PERMISSIONS)
    }

    /// The permissions of a finished file whose client asks for these. The owner, which is the server, reads and writes
    /// in any case. All other bits are among those of `most`, the configured ones. `None`: they are among the bits of
    /// `found`, which the server's umask left. Who may read there may execute too, since umasks seldom tell of that.
    pub fn permitted(self, most: Option<u32>, found: u32) -> u32 {
        let most = most.unwrap_or(found | (found & 0o444) >> 2);
        OWNER | self.0 & most
    }
}

impl fmt::Display for FileMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:o}", self.0)
    }
}

impl FromStr for FileMode {
    type Err = String;

    fn from_str(text: &str) -> Result<FileMode, String> {
        match crate::protocol::units::parse_mode(text)? {
            mode if mode > PERMISSIONS => {
                Err(format!("{text} is more than 777: set-id bits and the sticky bit are not kept"))
            }
            mode => Ok(FileMode(mode)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_they_are_written() {
        for (text, nanos) in [
            ("0", 0),
            ("1700000000.123456789", 1_700_000_000_123_456_789),
            ("1700000000.1", 1_700_000_000_100_000_000),
            ("-1", -1_000_000_000),
            ("-0.5", -500_000_000),
            ("-0.000000001", -1),
            ("253402300799.999999999", 253_402_300_799_999_999_999),
            ("-11644473599.9999999", -11_644_473_599_999_999_900),
        ] {
            let time: FileTime = text.parse().unwrap();
            assert_eq!((time.nanos(), time.to_string().as_str()), (nanos, text));
        }
        let loose: FileTime = "007.500000000".parse().unwrap();
        assert_eq!(loose.to_string(), "7.5");
    }

    #[test]
    fn no_time_is_taken_for_another_one() {
        for bad in ["", "-", ".", "1.", ".5", "+1", "1e9", "1.0000000001", "--1", "1 ", "0x1", "1,5", "1234567890123"] {
            let why = bad.parse::<FileTime>().unwrap_err();
            assert!(why.contains("1700000000.5"), "{bad}: {why}");
        }
        for beyond in ["253402300800", "-11644473600", "999999999999"] {
            let why = beyond.parse::<FileTime>().unwrap_err();
            assert!(why.contains("out of range") && why.contains("253402300800"), "{beyond}: {why}");
        }
    }

    #[test]
    fn times_are_those_of_the_system() {
        let system = |text: &str| text.parse::<FileTime>().unwrap().to_system().unwrap();
        assert_eq!(system("-1.25"), UNIX_EPOCH - Duration::from_millis(1250));
        assert_eq!(system("5.000000001"), UNIX_EPOCH + Duration::new(5, 1));
    }

    #[test]
    fn a_mode_is_never_more_than_is_permitted() {
        let mode = |text: &str| text.parse::<FileMode>().unwrap();
        assert_eq!((mode("755").to_string(), FileMode::of(0o104_755)), ("755".to_owned(), mode("755")));
        for (asked, most, found, is) in [
            // Without a configured mode the umask counts: 022, 027, 077.
            ("755", None, 0o644, 0o755),
            ("777", None, 0o644, 0o755),
            ("777", None, 0o640, 0o750),
            ("777", None, 0o600, 0o700),
            ("640", None, 0o644, 0o640),
            ("0", None, 0o644, 0o600),
            // The configured one is the most.
            ("777", Some(0o640), 0o644, 0o640),
            ("755", Some(0o755), 0o600, 0o755),
            ("400", Some(0o640), 0o644, 0o600),
            ("777", Some(0o6640), 0o644, 0o640),
        ] {
            assert_eq!(mode(asked).permitted(most, found), is, "{asked} {most:?} {found:o}");
        }
        // Done again after a kill it is the same.
        let once = mode("751").permitted(None, 0o644);
        assert_eq!(mode("751").permitted(None, once), once);
        for bad in ["4755", "1777", "", "8", "rwx"] {
            assert!(bad.parse::<FileMode>().is_err(), "{bad}");
        }
    }
}
