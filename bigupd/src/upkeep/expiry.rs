//! The end of abandoned uploads.
//!
//! An upload is removed when nothing came for the time that is set. Times of files are the wall clock's, and the clock
//! can be set. A clock that was wrong for a while, or is set forward by a year, must not remove all uploads at once. So
//! the daemons of a data folder write down the time of their last scan. The clock was set or the server was off if the
//! last scan is long ago (more than half of the time that is set), or lies in the future. Then all uploads have the
//! whole time again. An upload is removed only if scans went on through all that time.
//!
//! An upload that received nothing yet expires sooner: no client has sent bytes in vain, and it keeps disk space from
//! others. Its time has a count of its own, since a pause that is short for a week is long for an hour. A client that
//! is about to send its first slice then begins it anew.

use crate::metrics::{Failure, Metrics};
use bigup_core::protocol::name::printable;
use bigup_core::protocol::units::show_size;
use bigup_core::storage::audit::{AuditEvent, AuditLine};
use bigup_core::storage::data_dir::DataDir;
use bigup_core::storage::disk::{self, Durability, IoContext};
use bigup_core::storage::info_ini::InfoIni;
use bigup_core::storage::spool::{Expired, Idle, OtherVersion, Spool};
use serde::{Deserialize, Serialize};
use std::io;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Name of the file in the data folder that holds the times of scans.
pub const LOOKED: &str = "expiry.json";

/// Largest such file that is read, in bytes; it has about 50.
const MAX_LOOKED: u64 = 1 << 10;

/// A pause between scans that never counts, however short the time that is set: a restart, a machine under load.
const SHORT_PAUSE: u64 = 600;

/// Times after which uploads without new bytes expire. `None`: never.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExpiryTimes {
    /// Any.
    pub any: Option<Duration>,
    /// Time for an upload that received nothing yet.
    pub begun: Option<Duration>,
}

impl ExpiryTimes {
    /// The shorter one. `None` if nothing expires.
    pub fn least(self) -> Option<Duration> {
        [self.any, self.begun].into_iter().flatten().min()
    }
}

/// Times at which the daemons of a data folder scanned, in seconds since 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Looks {
    /// Begin of the unbroken scans that count for [`ExpiryTimes::any`]. `None` if there were none.
    since: Option<u64>,
    /// The same for [`ExpiryTimes::begun`]. Older daemons did not write this field.
    #[serde(default)]
    since_for_begun: Option<u64>,
    /// The last time.
    last: u64,
}

impl Looks {
    /// Takes account of a scan at `now`.
    fn and_now(previous: Option<Looks>, now: u64, times: ExpiryTimes) -> Looks {
        let since = |time: Option<Duration>, before: fn(Looks) -> Option<u64>| {
            let longest_pause = (time?.as_secs() / 2).max(SHORT_PAUSE);
            let unbroken = previous.filter(|p| now.abs_diff(p.last) <= longest_pause);
            Some(unbroken.and_then(before).unwrap_or(now))
        };
        Looks {
            since: since(times.any, |p| p.since),
            since_for_begun: since(times.begun, |p| p.since_for_begun),
            last: now,
        }
    }

    /// The times of uploads that have had all of them by now.
    fn over(&self, times: ExpiryTimes) -> ExpiryTimes {
        let over = |time: Option<Duration>, since: Option<u64>| {
            time.filter(|time| since.is_some_and(|since| self.last.saturating_sub(since) >= time.as_secs()))
        };
        ExpiryTimes { any: over(times.any, self.since), begun: over(times.begun, self.since_for_begun) }
    }
}

/// Looks at all uploads of `data`, and removes those to which nothing has come for these times.
///
/// # Errors
/// The data folder cannot be listed or written to. Uploads that cannot be removed are reported and left.
pub fn expire(data: &DataDir, times: ExpiryTimes, metrics: &Metrics) -> io::Result<()> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let over = look(data, now, times)?.over(times);
    if over.least().is_none() {
        return Ok(());
    }
    for spool in Spool::all(data)? {
        let upload = match spool.upload() {
            // Its own program knows if it is paused, or at work.
            Err(e) if OtherVersion::of(&e).is_some() => continue,
            read => read.ok().flatten(),
        };
        // An upload that is resumed has all its time again, since resuming changes its folder.
        // A partial upload that has its place goes when its final upload does.
        if upload.as_ref().is_some_and(|upload| upload.paused || upload.placement().is_some()) {
            continue;
        }
        let name = upload.as_ref().map_or_else(|| printable(spool.folder()), |upload| upload.file_name.to_string());
        let named = upload.as_ref().map_or(spool.folder(), |upload| upload.file_name.as_str());
        let tell = || {
            upload.iter().for_each(|upload| AuditLine::of(AuditEvent::Expired, upload, None).log());
            // A client that comes back in this instant sends nothing again: its bytes are here.
            if let Some(Err(e)) = data.objects().map(|objects| objects.abandon(spool.path())) {
                log::warn!("{name}: its parts stay in the store until a sweep finds them: {e}");
            }
        };
        match remove_if_over(&spool, over, tell) {
            Ok(None) => {}
            Ok(Some(gone)) => {
                metrics.upload_failed(Failure::Expired);
                let (time, size) = (shown(gone.idle), show_size(gone.bytes));
                log::warn!(file_name = named; "{name}: the upload is removed with the {size} that it held: nothing came for {time}");
                if let Some(upload) = &upload {
                    InfoIni::new(data).remove(&upload.file_name)?;
                }
            }
            // Published in between.
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => log::warn!(file_name = named; "{name}: {e}"),
        }
    }
    Ok(())
}

/// Removes the upload if its time is over; `tell` is called just before.
fn remove_if_over(spool: &Spool, over: ExpiryTimes, tell: impl Fn()) -> io::Result<Option<Expired>> {
    let removed = over.any.map_or(Ok(None), |time| spool.remove_if_idle(time, Idle::WhateverIsHeld, &tell))?;
    match (removed, over.begun) {
        (None, Some(time)) => spool.remove_if_idle(time, Idle::NothingHeld, &tell),
        (removed, _) => Ok(removed),
    }
}

/// Writes down a scan at `now`, and the begin of the unbroken scans.
fn look(data: &DataDir, now: u64, times: ExpiryTimes) -> io::Result<Looks> {
    // A file that cannot be read counts as empty: uploads live longer.
    let previous = disk::read_small(&data.root().join(LOOKED), MAX_LOOKED).ok();
    let previous: Option<Looks> = previous.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let looks = Looks::and_now(previous, now, times);
    let was_broken = |before: Option<u64>, is: Option<u64>| before.is_some() && is.is_some() && before != is;
    if let Some(previous) = previous.filter(|p| was_broken(p.since, looks.since)) {
        let since = shown(Duration::from_secs(now.abs_diff(previous.last)));
        log::warn!(
            "the clock was set, or no daemon ran: by it the last look at uploads differs by {since}; they have all their \
             time again"
        );
    }
    let bytes = serde_json::to_vec(&looks).expect("numbers always serialise");
    disk::replace_file(data.root(), LOOKED, &bytes, Durability::Process)
        .at("noting a look at uploads in", data.root())?;
    Ok(looks)
}

fn shown(time: Duration) -> String {
    humantime::format_duration(Duration::from_secs(time.as_secs())).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 86_400;
    const WEEK: u64 = 7 * DAY;
    const HOUR: u64 = 3600;

    fn of_a_week() -> ExpiryTimes {
        ExpiryTimes { any: Some(Duration::from_secs(WEEK)), begun: Some(Duration::from_secs(HOUR)) }
    }

    fn looks(times: &[u64]) -> Looks {
        times.iter().fold(None, |previous, now| Some(Looks::and_now(previous, *now, of_a_week()))).unwrap()
    }

    #[test]
    fn the_time_counts_from_the_first_look_through_restarts() {
        let now = 1_800_000_000;
        assert_eq!(looks(&[now]).since, Some(now));
        let often: Vec<u64> = (0..20_000).map(|minute| now + 60 * minute).collect();
        assert_eq!((looks(&often).since, looks(&often).since_for_begun), (Some(now), Some(now)));
        let nights = looks(&[now, now + DAY, now + 3 * DAY, now + 6 * DAY]);
        assert_eq!(nights.since, Some(now), "off at night and for a weekend");
        assert_eq!(nights.since_for_begun, Some(now + 6 * DAY), "a night is long for what has an hour");
    }

    #[test]
    fn a_clock_that_is_set_gives_uploads_all_their_time_again() {
        let now = 1_800_000_000;
        let year = 365 * DAY;
        assert_eq!(looks(&[now, now + 60, now + year]).since, Some(now + year), "forward");
        assert_eq!(looks(&[now, now + year, now + 60]).since, Some(now + 60), "and back");
        assert_eq!(looks(&[now, now - 5]).since, Some(now), "by seconds, as clocks are");
        assert_eq!(looks(&[now, 0]).since, Some(0), "no clock at all");
        let by_two_hours = looks(&[now, now + 2 * HOUR]);
        assert_eq!((by_two_hours.since, by_two_hours.since_for_begun), (Some(now), Some(now + 2 * HOUR)));
    }

    #[test]
    fn a_pause_of_minutes_means_nothing_however_short_the_time() {
        let first = Looks { since: Some(100), last: 1000, ..Looks::default() };
        let times = ExpiryTimes { any: Some(Duration::from_secs(2)), begun: None };
        assert_eq!(Looks::and_now(Some(first), 1600, times).since, Some(100));
        assert_eq!(Looks::and_now(Some(first), 1601, times).since, Some(1601));
    }

    #[test]
    fn only_what_was_looked_at_through_all_its_time_is_over() {
        let now = 1_800_000_000;
        let minutes: Vec<u64> = (0..=60).map(|minute| now + 60 * minute).collect();
        let times = of_a_week();
        assert_eq!(looks(&minutes[..60]).over(times), ExpiryTimes { any: None, begun: None });
        assert_eq!(looks(&minutes).over(times), ExpiryTimes { any: None, begun: times.begun });
        let never = ExpiryTimes { any: None, begun: None };
        assert_eq!(looks(&minutes).over(never).least(), None);
    }

    #[test]
    fn what_an_older_daemon_wrote_counts_and_it_reads_what_this_one_writes() {
        let old: Looks = serde_json::from_str(r#"{"since":100,"last":1000}"#).unwrap();
        assert_eq!(
            Looks::and_now(Some(old), 1060, of_a_week()),
            Looks { since: Some(100), since_for_begun: Some(1060), last: 1060 }
        );
        let written = serde_json::to_value(looks(&[100, 160])).unwrap();
        assert_eq!((&written["since"], &written["last"]), (&100.into(), &160.into()));
    }
}
