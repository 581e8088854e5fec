//! The end of abandoned uploads.
//!
//! An upload goes when nothing came for the time that is set. Times of files are the wall clock's, and that may be set:
//! one that was wrong for a while, or is set forward by a year, must not remove all uploads at once. So the daemons of a
//! data folder write down when they last looked. Where nobody has looked for long (more than half of the time that is
//! set), or somebody has looked in what is now the future, the clock was set or the server was off: then all uploads have
//! the whole time again. An upload is removed only after a look at it through all that time.

use crate::metrics::{Failure, Metrics};
use bigup_core::data_dir::DataDir;
use bigup_core::disk::{self, Context, Durability};
use bigup_core::info_ini::InfoIni;
use bigup_core::name::printable;
use bigup_core::spool::{OtherVersion, Spool};
use bigup_core::units::show_size;
use serde::{Deserialize, Serialize};
use std::io;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Name of the file in the data folder that says when somebody looked.
pub const LOOKED: &str = "expiry.json";

/// Largest such file that is read, in bytes; it has about 50.
const MAX_LOOKED: u64 = 1 << 10;

/// A pause between looks that means nothing, however short the time that is set: a restart, a machine under load.
const SHORT_PAUSE: u64 = 600;

/// When the daemons of a data folder looked, in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Looks {
    /// Since when somebody has looked again and again.
    since: u64,
    /// The last time.
    last: u64,
}

impl Looks {
    /// Takes account of a look at `now`, where uploads have `after` seconds.
    fn and_now(previous: Option<Looks>, now: u64, after: u64) -> Looks {
        let longest_pause = (after / 2).max(SHORT_PAUSE);
        let since = previous.filter(|p| now.abs_diff(p.last) <= longest_pause).map_or(now, |p| p.since);
        Looks { since, last: now }
    }
}

/// Looks at all uploads of `data`, and removes those to which nothing has come for `after`.
///
/// # Errors
/// The data folder cannot be listed or written to. What cannot be removed is reported and left.
pub fn expire(data: &DataDir, after: Duration, metrics: &Metrics) -> io::Result<()> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    if !has_looked_long_enough(data, now, after)? {
        return Ok(());
    }
    for spool in Spool::all(data)? {
        let upload = match spool.upload() {
            // Whether it is paused, or at work, its own program knows.
            Err(e) if OtherVersion::of(&e).is_some() => continue,
            read => read.ok().flatten(),
        };
        // One that is resumed has all its time again, since that changes its folder.
        if upload.as_ref().is_some_and(|upload| upload.paused) {
            continue;
        }
        let name = upload.as_ref().map_or_else(|| printable(spool.folder()), |upload| upload.file_name.to_string());
        let named = upload.as_ref().map_or(spool.folder(), |upload| upload.file_name.as_str());
        match spool.remove_if_idle(after) {
            Ok(None) => {}
            Ok(Some(gone)) => {
                metrics.upload_failed(Failure::Expired);
                let (days, size) = (shown(gone.idle), show_size(gone.bytes));
                log::warn!(upload = named; "{name}: the upload is removed with the {size} that it held: nothing came for {days}");
                if let Some(upload) = upload {
                    InfoIni::new(data).remove(&upload.file_name)?;
                }
            }
            // Published in between.
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => log::warn!(upload = named; "{name}: {e}"),
        }
    }
    Ok(())
}

/// Writes down that somebody looks, and says whether that has been so for as long as uploads have.
fn has_looked_long_enough(data: &DataDir, now: u64, after: Duration) -> io::Result<bool> {
    // What cannot be read is as good as nothing: uploads live longer.
    let previous = disk::read_small(&data.root().join(LOOKED), MAX_LOOKED).ok();
    let previous: Option<Looks> = previous.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let looks = Looks::and_now(previous, now, after.as_secs());
    if let Some(previous) = previous.filter(|previous| looks.since != previous.since) {
        let (since, all) = (shown(Duration::from_secs(now.abs_diff(previous.last))), shown(after));
        log::warn!(
            "the clock was set, or no daemon ran: by it the last look at uploads differs by {since}; they have {all} again"
        );
    }
    let bytes = serde_json::to_vec(&looks).expect("numbers always serialise");
    disk::replace_file(data.root(), LOOKED, &bytes, Durability::Process)
        .at("noting a look at uploads in", data.root())?;
    Ok(now.saturating_sub(looks.since) >= after.as_secs())
}

fn shown(time: Duration) -> String {
    humantime::format_duration(Duration::from_secs(time.as_secs())).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 86_400;
    const WEEK: u64 = 7 * DAY;

    fn looks(times: &[u64]) -> Looks {
        times.iter().fold(None, |previous, now| Some(Looks::and_now(previous, *now, WEEK))).unwrap()
    }

    #[test]
    fn the_time_counts_from_the_first_look_through_restarts() {
        let now = 1_800_000_000;
        assert_eq!(looks(&[now]).since, now);
        let often: Vec<u64> = (0..20_000).map(|minute| now + 60 * minute).collect();
        assert_eq!(looks(&often).since, now);
        assert_eq!(looks(&[now, now + DAY, now + 3 * DAY, now + 6 * DAY]).since, now, "off at night and for a weekend");
    }

    #[test]
    fn a_clock_that_is_set_gives_uploads_all_their_time_again() {
        let now = 1_800_000_000;
        let year = 365 * DAY;
        assert_eq!(looks(&[now, now + 60, now + year]).since, now + year, "forward");
        assert_eq!(looks(&[now, now + year, now + 60]).since, now + 60, "and back");
        assert_eq!(looks(&[now, now - 5]).since, now, "by seconds, as clocks are");
        assert_eq!(looks(&[now, 0]).since, 0, "no clock at all");
    }

    #[test]
    fn a_pause_of_minutes_means_nothing_however_short_the_time() {
        let first = Looks { since: 100, last: 1000 };
        assert_eq!(Looks::and_now(Some(first), 1600, 2).since, 100);
        assert_eq!(Looks::and_now(Some(first), 1601, 2).since, 1601);
    }
}
