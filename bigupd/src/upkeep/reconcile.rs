//! Upkeep of all uploads, again and again: mergers that died are started again, and info.ini is brought up to date with
//! the spools.
//!
//! Most of many uploads are idle. An upload that was found idle, with nothing to merge and no merger, is not read again
//! until its folder changes. Every event that wakes it (a slice, a client, a merger) adds a file there or removes one.
//! So an idle upload costs one stat(2). The remembered state decides nothing else, and is dropped from time to time.

use crate::mergers::Mergers;
use crate::metrics::ScanResult;
use crate::uploads::Uploads;
use bigup_core::protocol::name::{FileName, printable};
use bigup_core::storage::data_dir::DataDir;
use bigup_core::storage::disk::{Durability, FileVersion};
use bigup_core::storage::info_ini::{InfoIni, Section, Sections};
use bigup_core::storage::space::DiskSpace;
use bigup_core::storage::spool::{Holdings, Spool, UploadId, UploadRecord};
use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// Longest time between two scans.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// The same while all uploads rest. Those that come or go by this daemon have it look at once.
const LOOK_AT_REST_EVERY: Duration = Duration::from_secs(5);

/// Shortest time between two scans: info.ini lags by this time when uploads come and go all the time.
const SHORTEST_PAUSE: Duration = Duration::from_millis(500);

/// Time after which the remembered state is dropped, in case something changed without a trace.
const FORGET_AFTER: Duration = Duration::from_secs(300);

/// A folder that changed more recently can change again unseen.
const AT_REST_AFTER: Duration = Duration::from_secs(1);

/// Tells the reconciler that an upload came or went.
#[derive(Clone, Default)]
pub struct Wakeup(Arc<Notify>);

impl Wakeup {
    /// Has info.ini brought up to date soon.
    pub fn tell(&self) {
        self.0.notify_one();
    }
}

/// Reconciles all `uploads` for as long as it is polled, and sets their metrics.
pub async fn reconcile_forever(uploads: Uploads, mergers: Mergers, wakeup: Wakeup) {
    let reconciler = Arc::new(Mutex::new(Reconciler::new(uploads.data.clone())));
    loop {
        let (reconciler, uploads, mergers) = (Arc::clone(&reconciler), uploads.clone(), mergers.clone());
        let reconcile = move || {
            let mut reconciler = reconciler.lock().unwrap_or_else(PoisonError::into_inner);
            // First, since the metrics tell the time of a scan as a whole.
            let space = DiskSpace::new(&uploads.data, uploads.settings.reserve);
            if let Some(left) = space.left()? {
                uploads.metrics.disk_free(left);
            }
            if let Some(left) = space.inodes_left()? {
                uploads.metrics.disk_inodes_free(left);
            }
            let scanned = reconciler.reconcile(|id, name| mergers.ensure(id, name))?;
            uploads.metrics.scanned(scanned);
            Ok(scanned.all_rest)
        };
        let all_rest = tokio::task::spawn_blocking(reconcile).await.map_err(io::Error::other).and_then(|done| done);
        let pause = match all_rest {
            Ok(true) => LOOK_AT_REST_EVERY,
            Ok(false) => LOOK_EVERY,
            Err(e) => {
                log::error!("cannot reconcile the data folder: {e}");
                LOOK_EVERY
            }
        };
        tokio::time::sleep(SHORTEST_PAUSE).await;
        // Time over is as good as news.
        let _ = tokio::time::timeout(pause - SHORTEST_PAUSE, wakeup.0.notified()).await;
    }
}

/// The state at the last scan.
pub struct Reconciler {
    data: DataDir,
    /// Since when it remembers.
    since: Instant,
    /// All uploads, by their folders. `None` if it was not at rest.
    uploads: HashMap<UploadId, Option<IdleUpload>>,
    /// The reason uploads could not be read, by their folders.
    trouble: HashMap<UploadId, String>,
    /// info.ini, if all of it was right.
    info_ini: Option<FileVersion>,
}

/// An upload at rest.
struct IdleUpload {
    folder: FileVersion,
    name: FileName,
    /// Its section, as it stood when it was right.
    section: String,
    /// Bytes that it holds and that are not merged.
    lag_bytes: u64,
}

/// An upload that was read.
struct ActiveUpload {
    upload: UploadRecord,
    holdings: Holdings,
    merger: Option<u32>,
    /// The version of its folder before.
    folder: FileVersion,
    /// Bytes of the slices that wait to be merged.
    lag_bytes: u64,
    /// Bytes that wait for the store of objects, if there is one.
    for_store: u64,
    /// Time for which its first mergeable slice, or the publication of the merged file, has waited.
    lag: Duration,
}

impl ActiveUpload {
    /// The upload in `spool`. `None` if it is gone.
    ///
    /// # Errors
    /// It cannot be read.
    fn read(spool: &Spool, has_store: bool) -> io::Result<Option<ActiveUpload>> {
        let Some(folder) = FileVersion::of(spool.path())? else { return Ok(None) };
        // Before the held slices are read: a merger that ends in between has recorded its result by then.
        let merger = spool.merger()?;
        let Some(upload) = spool.upload()? else { return Ok(None) };
        let holdings = match spool.holdings(&upload) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            holdings => holdings?,
        };
        let (bytes, lag) = (spool.bytes(&upload, &holdings)?, lag(spool, &upload, &holdings));
        let lag_bytes = bytes.held - bytes.merged;
        let for_store = if has_store { spool.for_store(&upload, &holdings)? } else { 0 };
        Ok(Some(ActiveUpload { upload, holdings, merger, folder, lag_bytes, for_store, lag }))
    }

    fn is_merger_due(&self) -> bool {
        // Parts that wait for the store need no slice to be sent.
        self.merger.is_none() && (self.holdings.need_merger(&self.upload) || self.for_store > 0)
    }

    /// The state to remember of it: none while it can change without its folder changing.
    fn at_rest(self, section: Section<'_>) -> Option<IdleUpload> {
        // Its final upload ends without a trace in its own folder.
        let may_end = self.upload.placement().is_some();
        let rests = !may_end
            && self.merger.is_none()
            && !self.holdings.need_merger(&self.upload)
            && self.for_store == 0
            && self.folder.is_older(AT_REST_AFTER);
        let section = section.text().to_owned();
        let (folder, name, lag_bytes) = (self.folder, self.upload.file_name, self.lag_bytes);
        rests.then_some(IdleUpload { folder, name, section, lag_bytes })
    }
}

impl Reconciler {
    /// Nothing seen yet.
    pub fn new(data: DataDir) -> Reconciler {
        Reconciler { data, since: Instant::now(), uploads: HashMap::new(), trouble: HashMap::new(), info_ini: None }
    }

    /// Calls `ensure` for uploads that need a merger and have none, and repairs info.ini where it is wrong: an upload
    /// without a section or with a wrong one, a section without upload, a merger that died, a file that cannot be read.
    /// Returns the totals of all uploads.
    ///
    /// # Errors
    /// The spools cannot be listed, or info.ini cannot be read or written; the next scan finds the same.
    pub fn reconcile(&mut self, mut ensure: impl FnMut(&UploadId, &FileName)) -> io::Result<ScanResult> {
        if self.since.elapsed() > FORGET_AFTER {
            (self.since, self.info_ini) = (Instant::now(), None);
            self.uploads.clear();
        }
        if self.rests()? {
            let known = self.uploads.values().flatten();
            let lag_bytes = known.map(|known| known.lag_bytes).sum();
            let uploads = self.uploads.len() as u64;
            return Ok(ScanResult { uploads, lag_bytes, all_rest: true, ..ScanResult::default() });
        }
        let mut before = std::mem::take(&mut self.uploads);
        let known_trouble = std::mem::take(&mut self.trouble);
        let (mut resting, mut found) = (vec![], vec![]);
        let has_store = self.data.objects().is_some();
        let mut scanned = ScanResult::default();
        for spool in Spool::all(&self.data)? {
            scanned.uploads += 1;
            match before.remove(spool.id()).flatten() {
                Some(known) if FileVersion::of(spool.path())? == Some(known.folder) => resting.push((spool, known)),
                _ => {
                    found
                        .extend(read(&spool, has_store, &known_trouble, &mut self.trouble).map(|found| (spool, found)));
                }
            }
        }
        scanned.lag_bytes = resting.iter().map(|(_, known)| known.lag_bytes).sum();
        for (_, found) in &found {
            scanned.lag_bytes += found.lag_bytes;
            scanned.for_store += found.for_store;
            scanned.lag = scanned.lag.max(found.lag);
        }
        for (spool, _) in found.iter().filter(|(_, found)| found.upload.placement().is_some()) {
            look_after_partial(spool);
        }
        for (spool, found) in found.iter().filter(|(_, found)| found.is_merger_due()) {
            ensure(spool.id(), &found.upload.file_name);
        }
        let info_ini = FileVersion::of(&self.data.info_ini())?;
        let matches = self.repair(resting, found)?;
        // A file that changed just now can change again unseen.
        self.info_ini = info_ini.filter(|seen| matches && seen.is_older(AT_REST_AFTER));
        Ok(scanned)
    }

    /// True if all uploads rest, none came or went, and info.ini is as it was when it was right.
    fn rests(&self) -> io::Result<bool> {
        if self.info_ini.is_none() || FileVersion::of(&self.data.info_ini())? != self.info_ini {
            return Ok(false);
        }
        let mut number = 0;
        let rests = Spool::look_at_folders(&self.data, |folder, version| {
            number += 1;
            self.uploads.get(folder).and_then(Option::as_ref).is_some_and(|known| known.folder == version)
        })?;
        Ok(rests && number == self.uploads.len())
    }

    /// Makes info.ini right, and remembers which uploads rest. True if it was right.
    fn repair(&mut self, resting: Vec<(Spool, IdleUpload)>, mut found: Vec<(Spool, ActiveUpload)>) -> io::Result<bool> {
        let info_ini = InfoIni::new(&self.data);
        let bytes = match info_ini.read() {
            Err(e) if e.kind() == io::ErrorKind::InvalidInput => {
                info_ini.rebuild_if_broken().and_then(|()| info_ini.read())
            }
            read => read,
        }?;
        let Ok(sections) = Sections::cut(&bytes) else {
            // All uploads are scanned again once it can be read.
            return info_ini.rebuild_if_broken().map(|()| false);
        };
        let mut others: HashMap<&str, Section<'_>> = HashMap::new();
        let mut is_broken = false;
        for section in sections.iter() {
            // Of several sections of one title all must be readable, and the last one counts.
            let before = others.insert(section.title(), section);
            is_broken |= before.is_some_and(|before| before.upload().is_err());
        }
        for (spool, known) in resting {
            match others.get(&known.name.section_title()[..]) {
                Some(section) if section.text() == known.section => {
                    others.remove(&known.name.section_title()[..]);
                    self.uploads.insert(spool.id().clone(), Some(known));
                }
                _ => found.extend(
                    read(&spool, self.data.objects().is_some(), &HashMap::new(), &mut self.trouble)
                        .map(|found| (spool, found)),
                ),
            }
        }
        let mut wrong = vec![];
        for (spool, found) in found {
            let section = others.remove(&found.upload.file_name.section_title()[..]);
            let right = section.filter(|section| section.matches(&found.upload, &found.holdings, found.merger));
            if right.is_none() {
                wrong.push((spool.id().clone(), found.upload.file_name.clone()));
            }
            self.uploads.insert(spool.id().clone(), right.and_then(|section| found.at_rest(section)));
        }
        for section in others.values() {
            match section.upload() {
                Ok(Some(name)) => {
                    // A section tells the name alone: that of an upload which cannot be read stays.
                    let id = UploadId::of_name(&name);
                    if !Spool::of(&self.data, &id).path().exists() {
                        wrong.push((id, name));
                    }
                }
                Ok(None) => {}
                Err(_) => is_broken = true,
            }
        }
        if is_broken {
            info_ini.rebuild_if_broken()?;
        } else if !wrong.is_empty() {
            info_ini.refresh_all(&wrong)?;
        }
        Ok(wrong.is_empty() && !is_broken)
    }
}

/// Ends a partial upload whose final one has ended, or else gives it what a process that died did not. Trouble is logged:
/// the next scan finds the same.
fn look_after_partial(spool: &Spool) {
    let looked_after = (|| {
        let Some(locked) = spool.lock()? else { return Ok(()) };
        if !locked.remove_if_final_ended()?
            && let Some(locked) = spool.lock()?
        {
            // With a merger of the final upload due, the next scan sees that.
            locked.give_slices(Durability::PowerCut)?;
        }
        Ok::<_, io::Error>(())
    })();
    if let Err(e) = looked_after {
        log::warn!("{e}");
    }
}

/// Time for which the first mergeable slice has waited; if all slices are merged, the time for which the file has
/// waited to be published. Zero if a merger would find nothing to do.
fn lag(spool: &Spool, upload: &UploadRecord, holdings: &Holdings) -> Duration {
    if !holdings.need_merger(upload) {
        return Duration::ZERO;
    }
    let first = holdings.waiting.first().filter(|first| **first <= holdings.frontier);
    let path = first.map_or_else(|| spool.merged_path(), |first| spool.slice_path(*first));
    // A file that is gone by now waits no more.
    let written = std::fs::symlink_metadata(path).and_then(|found| found.modified());
    written.ok().and_then(|written| written.elapsed().ok()).unwrap_or_default()
}

/// The upload in `spool`, if it is there and can be read. The reason it cannot is noted in `trouble`, and logged unless
/// it is known.
fn read(
    spool: &Spool,
    has_store: bool,
    known: &HashMap<UploadId, String>,
    trouble: &mut HashMap<UploadId, String>,
) -> Option<ActiveUpload> {
    ActiveUpload::read(spool, has_store).unwrap_or_else(|e| {
        let why = e.to_string();
        if known.get(spool.id()) != Some(&why) {
            log::warn!("an upload cannot be looked after: {}", printable(&why));
        }
        trouble.insert(spool.id().clone(), why);
        None
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use bigup_core::protocol::plan::Plan;
    use bigup_core::storage::space::DiskSpace;
    use std::fs;

    struct Fixture {
        _dir: tempfile::TempDir,
        data: DataDir,
        reconciler: Reconciler,
    }

    impl Fixture {
        fn new() -> Fixture {
            let dir = tempfile::tempdir().unwrap();
            let data = DataDir::create(&dir.path().join("data")).unwrap();
            Fixture { _dir: dir, reconciler: Reconciler::new(data.clone()), data }
        }

        fn begin(&self, name: &str) -> Spool {
            let name = FileName::new(name).unwrap();
            let plan = Plan::new(None, Some(10), Some(25)).unwrap();
            let upload = UploadRecord::begin(name.clone(), plan, None);
            assert!(
                Spool::create(
                    &self.data,
                    &UploadId::of_name(&upload.file_name),
                    &upload,
                    &DiskSpace::new(&self.data, 0)
                )
                .unwrap()
            );
            Spool::of(&self.data, &UploadId::of_name(&name))
        }

        /// Looks once; the names that need a merger.
        fn reconcile(&mut self) -> Vec<String> {
            let mut due = vec![];
            self.reconciler.reconcile(|_, name| due.push(name.as_str().to_owned())).unwrap();
            due
        }

        /// Looks until nothing is left that changed a moment ago.
        fn look_until_all_rest(&mut self) {
            let deadline = Instant::now() + 60 * AT_REST_AFTER;
            while self.reconciler.info_ini.is_none() || self.reconciler.uploads.values().any(Option::is_none) {
                assert!(Instant::now() < deadline, "uploads do not come to rest");
                self.reconcile();
                std::thread::sleep(AT_REST_AFTER / 10);
            }
        }

        fn text(&self) -> String {
            fs::read_to_string(self.data.info_ini()).unwrap()
        }

        fn titles(&self) -> Vec<String> {
            self.text().lines().filter(|line| line.starts_with('[')).map(str::to_owned).collect()
        }
    }

    #[test]
    fn sections_that_are_missing_wrong_or_over_are_mended() {
        let mut f = Fixture::new();
        let (one, _two) = (f.begin("one"), f.begin("two"));
        f.reconcile();
        assert_eq!(f.titles(), ["[one]", "[two]"]);
        fs::write(f.data.info_ini(), f.text().replace("[two]", "[three]") + "\n[notes]\nx = 1\n").unwrap();
        f.reconcile();
        assert_eq!(f.titles(), ["[one]", "[notes]", "[two]"]);
        f.look_until_all_rest();
        let right = f.text();
        for (is, was) in [("slice_num = 3", "slice_num = 4"), ("curr_merge_slice_id = 0", "curr_merge_slice_id = 1")] {
            fs::write(f.data.info_ini(), right.replace(is, was)).unwrap();
            f.reconcile();
            assert_eq!(f.text(), right);
            f.look_until_all_rest();
        }
        fs::remove_dir_all(one.path()).unwrap();
        f.reconcile();
        assert_eq!(f.titles(), ["[notes]", "[two]"]);
        f.look_until_all_rest();
        fs::remove_file(f.data.info_ini()).unwrap();
        f.reconcile();
        assert_eq!(f.titles(), ["[two]"]);
    }

    #[test]
    fn an_upload_dropped_before_it_came_to_rest_loses_its_section() {
        let mut f = Fixture::new();
        let one = f.begin("one");
        f.reconcile();
        fs::remove_dir_all(one.path()).unwrap();
        f.reconcile();
        assert_eq!(f.text(), "");
    }

    #[test]
    fn a_merger_that_died_is_told_and_another_one_asked_for_where_one_is_due() {
        let mut f = Fixture::new();
        let one = f.begin("one");
        fs::write(one.slice_path(1), [0; 10]).unwrap();
        let merger = one.try_merger_lock().unwrap().unwrap();
        assert_eq!(f.reconcile(), [""; 0]);
        assert!(f.text().contains("merge_slice_process_exist = 1"), "{}", f.text());
        std::thread::sleep(AT_REST_AFTER * 2);
        f.reconcile();
        // Nothing in its folder tells that it died.
        drop(merger);
        assert_eq!(f.reconcile(), [""; 0], "slice 0 is missing");
        assert!(f.text().contains("merge_slice_process_exist = 0"), "{}", f.text());
        f.look_until_all_rest();
        fs::write(one.slice_path(0), [0; 10]).unwrap();
        for _ in 0..2 {
            assert_eq!(f.reconcile(), ["one"]);
            std::thread::sleep(AT_REST_AFTER * 2);
        }
    }

    #[test]
    fn uploads_at_rest_are_not_read_again_until_their_folder_changes() {
        let mut f = Fixture::new();
        let (one, _two) = (f.begin("one"), f.begin("two"));
        f.look_until_all_rest();
        let (json, right) = (one.path().join("upload.json"), f.text());
        // In place, as no program of ours does it.
        let changed = fs::read_to_string(&json).unwrap().replace("25", "26");
        fs::write(&json, changed).unwrap();
        f.reconcile();
        assert_eq!(f.text(), right, "it was not read");
        fs::write(one.slice_path(2), [0; 5]).unwrap();
        f.reconcile();
        assert!(f.text().contains("file_size = 26"), "{}", f.text());
    }

    #[test]
    fn a_scan_while_all_rest_tells_the_same_totals_and_sees_what_comes_and_goes() {
        let mut f = Fixture::new();
        let (one, two) = (f.begin("one"), f.begin("a/two"));
        fs::write(two.slice_path(2), [0; 5]).unwrap();
        f.look_until_all_rest();
        fs::write(f.data.tmp().join("stray"), "").unwrap();
        fs::create_dir(f.data.tmp().join(".new-x")).unwrap();
        let scan = |f: &mut Fixture| {
            let scanned = f.reconciler.reconcile(|_, _| {}).unwrap();
            (scanned.uploads, scanned.lag_bytes, scanned.all_rest)
        };
        for _ in 0..3 {
            assert_eq!(scan(&mut f), (2, 5, true));
        }
        f.begin("three");
        assert_eq!(scan(&mut f), (3, 5, false));
        f.look_until_all_rest();
        assert_eq!(scan(&mut f), (3, 5, true));
        fs::write(one.slice_path(1), [0; 10]).unwrap();
        assert_eq!(scan(&mut f), (3, 15, false));
        f.look_until_all_rest();
        fs::remove_dir_all(two.path()).unwrap();
        assert_eq!(scan(&mut f), (2, 10, false));
    }

    #[test]
    fn an_upload_that_cannot_be_read_keeps_no_other_from_being_looked_after() {
        let mut f = Fixture::new();
        let (broken, due) = (f.begin("broken"), f.begin("due"));
        fs::write(due.slice_path(0), [0; 10]).unwrap();
        fs::write(broken.path().join("upload.json"), "garbage").unwrap();
        for _ in 0..2 {
            assert_eq!(f.reconcile(), ["due"]);
            assert_eq!(f.titles(), ["[due]"]);
            assert!(f.reconciler.trouble[broken.id()].contains("upload.json"), "{:?}", f.reconciler.trouble);
        }
    }

    #[test]
    fn an_info_ini_that_cannot_be_read_is_kept_aside_whosever_section_it_is() {
        let mut f = Fixture::new();
        f.begin("one");
        f.look_until_all_rest();
        let right = f.text();
        std::fs::remove_file(f.data.info_ini()).unwrap();
        std::fs::create_dir(f.data.info_ini()).unwrap();
        f.reconcile();
        assert_eq!(f.text(), right);
        std::fs::remove_dir(f.data.root().join("info.ini.broken")).unwrap();
        for garbage in ["\n[notes]\nno key\n", "\n[without end\n", "\0"] {
            let broken = right.clone() + garbage;
            fs::write(f.data.info_ini(), &broken).unwrap();
            f.reconcile();
            assert_eq!(f.text(), right);
            assert_eq!(fs::read_to_string(f.data.root().join("info.ini.broken")).unwrap(), broken);
        }
    }
}
