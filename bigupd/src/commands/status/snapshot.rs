//! A snapshot of unfinished uploads: the bytes held of each, and the bytes that came since another snapshot.

use super::Sort;
use bigup_core::protocol::name::FileName;
use bigup_core::storage::data_dir::DataDir;
use bigup_core::storage::spool::{Spool, UploadId};
use serde::Serialize;
use std::collections::HashMap;
use std::io;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// An upload to which something came in this time is moving.
const MOVING: u64 = 5;

/// A snapshot.
#[derive(Clone, Debug, Serialize)]
pub struct Snapshot {
    /// Its time, in seconds since 1970.
    pub time: u64,
    /// The uploads.
    pub uploads: Vec<UploadRow>,
    /// All of them together.
    pub total: Totals,
    /// Names that were asked for and have no upload.
    pub missing: Vec<String>,
    /// Folders that cannot be read as uploads, and why.
    pub unreadable: Vec<Unreadable>,
    #[serde(skip)]
    when: Instant,
}

/// An unfinished upload. Sizes are in bytes, times in seconds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct UploadRow {
    /// Name of the file.
    pub file_name: String,
    /// Bytes of the file; `None` while not known.
    pub file_size: Option<u64>,
    /// Bytes of a slice; `None` while not known.
    pub slice_size: Option<u64>,
    /// Number of slices; `None` while not known.
    pub slice_num: Option<u64>,
    /// Bytes of the slices that are held.
    pub bytes_held: u64,
    /// Bytes of those in the merged file.
    pub bytes_merged: u64,
    /// Bytes of slices that are arriving.
    pub bytes_arriving: u64,
    /// Bytes that came per second, between two snapshots. `None` if there is a single snapshot.
    pub bytes_per_second: Option<u64>,
    /// 1 while a merger is at work.
    pub merge_slice_process_exist: u8,
    /// Its process. `None` if there is none, or it is not known.
    pub merger_pid: Option<u32>,
    /// There is something to merge, and no merger at work.
    pub merger_due: bool,
    /// Time at which it was begun, in seconds since 1970.
    pub begun: u64,
    /// Seconds since then.
    pub age_seconds: u64,
    /// Seconds since the last file of it came or went.
    pub idle_seconds: u64,
    /// An operator lets it rest.
    pub paused: bool,
    /// All bytes are held, and its client has not said that the file is whole.
    pub awaits_end: bool,
    /// It is a partial upload: its bytes become a part of another file.
    pub partial: bool,
    /// Name of that file. `None` if it is not known yet, or this is no partial upload.
    pub part_of: Option<String>,
    /// It cannot be finished for now; `last_error` gives the reason.
    pub blocked: bool,
    /// The reason the merger stopped, or the file cannot be finished.
    pub last_error: Option<String>,
}

/// Sums over uploads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// Number of uploads.
    pub uploads: u64,
    /// Bytes of the files, as far as known.
    pub file_size: u64,
    /// See [`UploadRow`].
    pub bytes_held: u64,
    /// See [`UploadRow`].
    pub bytes_merged: u64,
    /// See [`UploadRow`].
    pub bytes_arriving: u64,
    /// `None` if there is a single snapshot.
    pub bytes_per_second: Option<u64>,
}

/// A folder that cannot be read.
#[derive(Clone, Debug, Serialize)]
pub struct Unreadable {
    /// Its name in `tmp/`.
    pub folder: String,
    /// The reason.
    pub why: String,
}

impl Snapshot {
    /// Looks at all uploads of `data`.
    ///
    /// # Errors
    /// They cannot be listed.
    pub fn at_all(data: &DataDir) -> io::Result<Snapshot> {
        let mut look = Snapshot::of(vec![]);
        for spool in Spool::all(data)? {
            // Without an upload: it was finished meanwhile.
            look.take(&spool);
        }
        look.sum();
        Ok(look)
    }

    /// Looks at the uploads of these names.
    pub fn at(data: &DataDir, names: &[FileName]) -> Snapshot {
        let mut look = Snapshot::of(vec![]);
        for name in names {
            if !look.take(&Spool::of(data, &UploadId::of_name(name))) {
                look.missing.push(name.as_str().to_owned());
            }
        }
        look.sum();
        look
    }

    /// A snapshot of these uploads, taken now.
    pub(super) fn of(uploads: Vec<UploadRow>) -> Snapshot {
        let (total, missing, unreadable) = Default::default();
        let mut look = Snapshot { time: now(), uploads, total, missing, unreadable, when: Instant::now() };
        look.sum();
        look
    }

    /// Adds the upload in a spool. `false` if there is no upload.
    fn take(&mut self, spool: &Spool) -> bool {
        match read(spool, self.time) {
            Ok(Some(upload)) => self.uploads.push(upload),
            Ok(None) => return false,
            // Finished in between.
            Err(_) if !spool.path().exists() => return false,
            Err(e) => {
                self.unreadable.push(Unreadable { folder: spool.folder().to_owned(), why: e.to_string() });
            }
        }
        true
    }

    /// True if anything came to any upload in the last seconds.
    pub fn is_anything_moving(&self) -> bool {
        self.uploads.iter().any(|upload| upload.idle_seconds < MOVING)
    }

    /// The same snapshot, with the bytes that came since another one.
    pub fn after(mut self, before: &Snapshot) -> Snapshot {
        let known: HashMap<_, u64> = before.uploads.iter().map(|upload| (upload.id(), upload.came())).collect();
        let time = self.when.duration_since(before.when);
        for upload in &mut self.uploads {
            // For an upload that began since, all its bytes are new. A slice that failed takes its bytes back.
            let came = upload.came().saturating_sub(known.get(&upload.id()).copied().unwrap_or(0));
            upload.bytes_per_second = Some(per_second(came, time));
        }
        self.sum();
        self
    }

    fn sum(&mut self) {
        // The bytes of the others are part of these.
        let counted = || self.uploads.iter().filter(|upload| upload.part_of.is_none());
        let sum = |of: fn(&UploadRow) -> u64| counted().map(of).fold(0, u64::saturating_add);
        self.total = Totals {
            uploads: counted().count() as u64,
            file_size: sum(|upload| upload.file_size.unwrap_or(0)),
            bytes_held: sum(|upload| upload.bytes_held),
            bytes_merged: sum(|upload| upload.bytes_merged),
            bytes_arriving: sum(|upload| upload.bytes_arriving),
            bytes_per_second: counted().map(|upload| upload.bytes_per_second).sum(),
        };
    }

    /// Sorts the uploads; those that are equally active by name.
    pub fn sort(&mut self, by: Sort) {
        self.uploads.sort_by(|a, b| a.file_name.cmp(&b.file_name));
        if by == Sort::Activity {
            self.uploads.sort_by_key(|upload| upload.idle_seconds);
        }
    }
}

impl UploadRow {
    /// Tells it from another upload of the same name.
    fn id(&self) -> (&str, u64) {
        (&self.file_name, self.begun)
    }

    fn came(&self) -> u64 {
        self.bytes_held.saturating_add(self.bytes_arriving)
    }
}

fn per_second(bytes: u64, time: Duration) -> u64 {
    let per = u128::from(bytes) * 1000 / time.as_millis().max(1);
    u64::try_from(per).unwrap_or(u64::MAX)
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// The upload in a spool at the time `now`. `None` if there is no such upload.
fn read(spool: &Spool, now: u64) -> io::Result<Option<UploadRow>> {
    // Before the held slices are read: a merger that ends in between has recorded its result by then.
    let merger = spool.merger()?;
    let Some(upload) = spool.upload()? else { return Ok(None) };
    // Arriving bytes are read before held ones: a slice that is completed meanwhile counts twice rather than not at
    // all.
    let bytes_arriving = spool.arriving()?;
    let holdings = spool.holdings(&upload)?;
    let bytes = spool.bytes(&upload, &holdings)?;
    Ok(Some(UploadRow {
        file_size: upload.plan.file_size,
        slice_size: upload.plan.slice_size,
        slice_num: upload.plan.slice_num,
        bytes_held: bytes.held,
        bytes_merged: bytes.merged,
        bytes_arriving,
        bytes_per_second: None,
        merge_slice_process_exist: u8::from(merger.is_some()),
        // 0 stands for an unknown process.
        merger_pid: merger.filter(|pid| *pid > 0),
        merger_due: merger.is_none() && holdings.need_merger(&upload),
        begun: upload.begun,
        age_seconds: now.saturating_sub(upload.begun),
        idle_seconds: spool.idle()?.as_secs(),
        paused: upload.paused,
        awaits_end: upload.awaits_end && upload.plan.file_size == Some(bytes.held),
        partial: upload.is_partial(),
        part_of: upload.placement().map(|place| place.file_name.as_str().to_owned()),
        blocked: upload.blocked.is_some(),
        last_error: upload.problem().map(str::to_owned),
        file_name: upload.file_name.as_str().to_owned(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bigup_core::protocol::plan::Plan;
    use bigup_core::storage::space::DiskSpace;

    fn look(uploads: &[(&str, u64, u64)]) -> Snapshot {
        let upload = |(name, bytes_held, idle_seconds): &(&str, u64, u64)| UploadRow {
            file_name: (*name).to_owned(),
            bytes_held: *bytes_held,
            idle_seconds: *idle_seconds,
            ..UploadRow::default()
        };
        Snapshot::of(uploads.iter().map(upload).collect())
    }

    #[test]
    fn rates_are_what_came_between_two_looks() {
        let before = look(&[("a", 100, 0), ("b", 50, 0)]);
        let mut now = look(&[("a", 300, 0), ("b", 20, 0), ("c", 60, 0)]);
        now.when = before.when + Duration::from_secs(2);
        let now = now.after(&before);
        let rates: Vec<Option<u64>> = now.uploads.iter().map(|upload| upload.bytes_per_second).collect();
        assert_eq!(rates, [Some(100), Some(0), Some(30)]);
        assert_eq!(now.total.bytes_per_second, Some(130));
        assert_eq!(before.total.bytes_per_second, None);
        assert_eq!(before.total.bytes_held, 150);
    }

    #[test]
    fn uploads_are_sorted_by_name_or_by_what_moved_last() {
        let mut seen = look(&[("b", 0, 7), ("c", 0, 7), ("a", 0, 9)]);
        let names = |look: &Snapshot| look.uploads.iter().map(|upload| upload.file_name.clone()).collect::<String>();
        seen.sort(Sort::Activity);
        assert_eq!(names(&seen), "bca");
        seen.sort(Sort::Name);
        assert_eq!(names(&seen), "abc");
    }

    #[test]
    fn held_merged_and_arriving_bytes_are_what_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::create(dir.path()).unwrap();
        for (name, plan) in [
            ("known", Plan::new(None, Some(10), Some(25))),
            ("open", Plan::new(None, Some(10), None)),
            ("counted", Plan::new(Some(3), None, None)),
        ] {
            let name = FileName::new(name).unwrap();
            let upload = bigup_core::storage::spool::UploadRecord::begin(name.clone(), plan.unwrap(), None);
            assert!(
                Spool::create(&data, &UploadId::of_name(&upload.file_name), &upload, &DiskSpace::new(&data, 0))
                    .unwrap()
            );
            let spool = Spool::of(&data, &UploadId::of_name(&name));
            std::fs::write(spool.slice_path(2), [0; 5]).unwrap();
            if name.as_str() != "counted" {
                // And a part of a slice, which a killed merger can leave.
                std::fs::write(spool.merged_path(), [0; 13]).unwrap();
            }
        }
        let arrival = Spool::of(&data, &UploadId::of_name(&FileName::new("known").unwrap())).arrival(1).unwrap();
        std::io::Write::write_all(&mut arrival.file(), &[0; 7]).unwrap();
        // Left by a process that died.
        std::fs::write(data.tmp().join("known/1.0123.part"), [0; 9]).unwrap();
        let mut look = Snapshot::at_all(&data).unwrap();
        look.sort(Sort::Name);
        let bytes = |upload: &UploadRow| (upload.bytes_held, upload.bytes_merged, upload.bytes_arriving);
        let all: Vec<_> = look.uploads.iter().map(bytes).collect();
        assert_eq!(all, [(5, 0, 0), (15, 10, 7), (20, 10, 0)], "{look:?}");
    }
}
