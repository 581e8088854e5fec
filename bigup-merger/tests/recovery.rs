//! Merging and going on after a death: `run` in-process on spools in every state that a killed merger, a killed daemon
//! or a power cut can leave. Whatever happened, what is published is exact, and what is missing is asked for again.

use bigup_core::protocol::digest::{self, Digest, DigestKind, SliceHasher};
use bigup_core::protocol::name::FileName;
use bigup_core::protocol::plan::Plan;
use bigup_core::storage::data_dir::{DataDir, FileModes};
use bigup_core::storage::disk::{BootId, notes_failed_writes};
use bigup_core::storage::space::DiskSpace;
use bigup_core::storage::spool::{
    Arrival, FINISHED, HeldContent, Holdings, Place, Publication, Record, Records, SliceError, Spool, UploadId,
    UploadRecord,
};
use bigup_core::storage::store::{self, Entry, Store, StoredDigest};
use bigup_merger::leave::Leave;
use bigup_merger::merge::Merge;
use bigup_merger::recover::recover;
use bigup_merger::{Config, Events, MergeEnd, Stop, run};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// A kernel that is not the one running.
const OTHER_BOOT: BootId = BootId([9; 8]);

/// Idle time of a merger that is to finish without ever being idle.
const LONG: Duration = Duration::from_secs(30);

const NAME: &str = "folder/file.bin";

/// One data folder with one upload in it, whose slices come from `content`.
struct Bench {
    dir: tempfile::TempDir,
    data: DataDir,
    name: FileName,
    spool: Spool,
    content: Vec<u8>,
    slice_size: usize,
}

impl Bench {
    /// Begins an upload of `len` bytes in slices of `slice_size`; everything about it is known.
    fn new(slice_size: usize, len: usize) -> Bench {
        let plan = Plan::new(None, Some(slice_size as u64), Some(len as u64)).unwrap();
        Bench::with_plan(plan, slice_size, len)
    }

    /// The same with a plan that may know less.
    fn with_plan(plan: Plan, slice_size: usize, len: usize) -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::create(dir.path()).unwrap();
        let name = FileName::new(NAME).unwrap();
        assert!(
            Spool::create(
                &data,
                &UploadId::of_name(&name),
                &UploadRecord::begin(name.clone(), plan, None),
                &DiskSpace::new(&data, 0)
            )
            .unwrap()
        );
        Bench {
            spool: Spool::of(&data, &UploadId::of_name(&name)),
            dir,
            data,
            name,
            content: content(1, len),
            slice_size,
        }
    }

    fn num(&self) -> u64 {
        self.content.len().div_ceil(self.slice_size) as u64
    }

    fn slice(&self, slice_id: u64) -> &[u8] {
        self.content.chunks(self.slice_size).nth(usize::try_from(slice_id).unwrap()).unwrap()
    }

    /// Everything before slice `slice_id`.
    fn before(&self, slice_id: u64) -> &[u8] {
        &self.content[..self.slice_size * usize::try_from(slice_id).unwrap()]
    }

    /// Sends these slices, all of which are wanted.
    fn put(&self, slice_ids: impl IntoIterator<Item = u64>) {
        for slice_id in slice_ids {
            assert_eq!(self.put_bytes(slice_id, self.slice(slice_id)).unwrap(), Place::Wanted, "slice {slice_id}");
        }
    }

    /// Sends one slice of any content, as the daemon does.
    fn put_bytes(&self, slice_id: u64, bytes: &[u8]) -> Result<Place, SliceError> {
        self.try_put_open(slice_id, bytes).map(|(place, _)| place)
    }

    /// The same of a slice that is taken; its file stays open.
    fn put_open(&self, slice_id: u64, bytes: &[u8]) -> (Place, Arrival) {
        self.try_put_open(slice_id, bytes).unwrap()
    }

    fn try_put_open(&self, slice_id: u64, bytes: &[u8]) -> Result<(Place, Arrival), SliceError> {
        let mut locked = self.spool.lock().unwrap().expect("there is an upload");
        let len = bytes.len() as u64;
        let offset = locked.upload().plan.learn(slice_id, len)?.offset_of(slice_id).unwrap_or(0);
        let digests: Vec<_> =
            locked.digest_kinds(slice_id, len)?.into_iter().map(|kind| digest_of(kind, offset, bytes)).collect();
        let mut arrival = self.spool.arrival(slice_id)?;
        arrival.file().write_all(bytes).unwrap();
        let source = locked.upload().source.clone();
        let place = locked.commit(&mut arrival, len, source.as_deref(), &digests)?;
        Ok((place, arrival))
    }

    /// Merges until nothing more can be done.
    fn merge(&self) -> MergeEnd {
        self.merge_for(Duration::from_millis(2))
    }

    /// Merges as a merger that is at work while `act` goes on, and must finish without being idle in between.
    fn merge_during(&self, act: impl FnOnce()) -> MergeEnd {
        let begun = Instant::now();
        let ended = self.merge_during_for(LONG, act);
        assert!(begun.elapsed() < LONG, "it noticed only once it was idle");
        ended
    }

    /// Merges until nothing came for `idle`, while `act` goes on.
    fn merge_during_for(&self, idle: Duration, act: impl FnOnce()) -> MergeEnd {
        std::thread::scope(|scope| {
            let merging = scope.spawn(|| self.merge_for(idle));
            // It says so once it has seen what is there.
            while !self.info_ini().contains("merge_slice_process_exist = 1") {
                std::thread::yield_now();
            }
            act();
            merging.join().unwrap()
        })
    }

    /// Merges until nothing came for `idle`.
    fn merge_for(&self, idle: Duration) -> MergeEnd {
        self.try_merge_for(idle).unwrap()
    }

    /// Merges until nothing more can be done, which may fail.
    fn try_merge(&self) -> std::io::Result<MergeEnd> {
        self.try_merge_for(Duration::from_millis(2))
    }

    fn try_merge_for(&self, idle: Duration) -> std::io::Result<MergeEnd> {
        let config = Config {
            data_dir: self.dir.path().to_owned(),
            file_name: self.name.clone(),
            idle,
            leave_notice: false,
            modes: FileModes::default(),
            store: None,
            events: Events::none(),
        };
        run(&config, &Stop::never())
    }

    fn holdings(&self) -> Holdings {
        self.spool.holdings(&self.upload()).unwrap()
    }

    fn held(&self) -> Vec<u64> {
        self.holdings().ranges().iter().collect()
    }

    fn upload(&self) -> UploadRecord {
        self.spool.upload().unwrap().expect("there is an upload")
    }

    /// Changes what the upload is.
    fn change(&self, change: impl FnOnce(UploadRecord) -> UploadRecord) {
        let mut locked = self.spool.lock().unwrap().unwrap();
        let changed = change(locked.upload().clone());
        locked.save(changed).unwrap();
    }

    fn with_records<T>(&self, act: impl FnOnce(&Records<'_>) -> T) -> T {
        act(&Records(&self.spool.open_digests().unwrap()))
    }

    fn record(&self, slice_id: u64) -> Record {
        self.with_records(|records| records.get(slice_id).unwrap()).expect("there is a record")
    }

    /// All that was written counts as written under another kernel.
    fn reboot(&self) {
        self.with_records(|records| {
            for slice_id in 0..self.num() {
                if let Some(record) = records.get(slice_id).unwrap() {
                    records.put(slice_id, &Record { boot: OTHER_BOOT, ..record }).unwrap();
                }
            }
            records.set_merge_boot(OTHER_BOOT).unwrap();
        });
    }

    /// Leaves the merged file as a killed merger would: with `bytes`, none of which are known to be synced.
    fn leave_merged(&self, bytes: &[u8]) {
        fs::write(self.spool.merged_path(), bytes).unwrap();
        self.with_records(|records| records.set_merge_boot(BootId::current()).unwrap());
    }

    /// Makes the file of a slice into what a power cut may leave: of the right length, with other bytes.
    fn garble_slice(&self, slice_id: u64) {
        let path = self.spool.slice_path(slice_id);
        let len = fs::metadata(&path).unwrap().len();
        fs::write(path, vec![0; usize::try_from(len).unwrap()]).unwrap();
    }

    /// Overwrites what was merged of a slice.
    fn garble_merged(&self, slice_id: u64) {
        let merged = File::options().write(true).open(self.spool.merged_path()).unwrap();
        merged.write_all_at(&vec![0; self.slice(slice_id).len()], self.before(slice_id).len() as u64).unwrap();
    }

    fn finished_path(&self) -> PathBuf {
        self.data.files().join(NAME)
    }

    fn put_finished(&self, bytes: &[u8]) {
        fs::create_dir_all(self.finished_path().parent().unwrap()).unwrap();
        fs::write(self.finished_path(), bytes).unwrap();
    }

    fn assert_unpublished(&self) {
        assert!(!self.finished_path().exists(), "something was published");
    }

    /// The file is finished with `expected` and its digest, and nothing of the upload is left.
    fn assert_finished(&self, ended: MergeEnd, expected: &[u8]) {
        assert_eq!(ended, MergeEnd::Published(digest::of_bytes(expected)));
        assert!(fs::read(self.finished_path()).unwrap() == expected, "the content differs");
        // A kill before it was sealed leaves a file that is read when somebody asks.
        let Entry::File(found) = Store::new(&self.data).confirm(&self.name).unwrap() else { panic!("no file") };
        assert_eq!(found.stored_digest.expect("the file is stamped").digest, digest::of_bytes(expected));
        self.assert_clean();
    }

    fn assert_clean(&self) {
        let entries = fs::read_dir(self.data.tmp()).unwrap().map(|entry| entry.unwrap().file_name());
        let is_mark = |name: &std::ffi::OsString| name.to_string_lossy().starts_with(FINISHED);
        assert_eq!(entries.filter(|name| !is_mark(name)).count(), 0, "a spool is left");
        assert!(!self.info_ini().contains('['), "a section is left: {}", self.info_ini());
    }

    fn stored_digest(&self) -> Option<StoredDigest> {
        match Store::new(&self.data).lookup(&self.name).unwrap() {
            Entry::File(found) => found.stored_digest,
            other => panic!("{other:?}"),
        }
    }

    fn info_ini(&self) -> String {
        fs::read_to_string(self.data.info_ini()).unwrap_or_default()
    }

    /// Merges and sends what is missing, in turns, until it is finished.
    fn finish(&self) -> MergeEnd {
        for _ in 0..5 {
            match self.merge() {
                MergeEnd::Idle => {}
                ended => return ended,
            }
            let held = self.held();
            self.put((0..self.num()).filter(|id| !held.contains(id)));
        }
        panic!("it does not come to an end: {:?} of {}", self.holdings(), self.num());
    }
}

/// Bytes that depend on `seed`.
fn content(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

fn digest_of(kind: DigestKind, offset: u64, bytes: &[u8]) -> digest::SliceDigest {
    let mut hasher = SliceHasher::new(kind, offset);
    hasher.update(bytes);
    hasher.finish()
}

// --- merging

#[test]
fn slices_in_any_order_become_the_file() {
    for (slice_size, len) in [(1024, 5 * 1024 + 1), (2048, 5 * 2048), (1000, 5999), (7, 35), (3000, 17_999)] {
        for order in [[0, 1, 2, 3, 4, 5], [5, 4, 3, 2, 1, 0], [3, 0, 5, 1, 4, 2]] {
            let bench = Bench::new(slice_size, len);
            bench.put(order.into_iter().filter(|id| *id < bench.num()));
            bench.assert_finished(bench.merge(), &bench.content);
        }
    }
}

#[test]
fn a_merger_between_any_two_slices_changes_nothing() {
    for slice_size in [1000, 1024] {
        let bench = Bench::new(slice_size, slice_size * 4 + 1);
        for slice_id in [1, 0, 4, 3] {
            bench.put([slice_id]);
            assert_eq!(bench.merge(), MergeEnd::Idle);
        }
        assert_eq!(bench.holdings(), Holdings { frontier: 2, waiting: vec![3, 4] });
        bench.put([2]);
        bench.assert_finished(bench.merge(), &bench.content);
    }
}

#[test]
fn one_slice_and_the_border_cases_of_the_last_one() {
    for (slice_size, len) in [(1024, 1), (1024, 1024), (1000, 1000), (1000, 999), (1024, 1025), (1000, 1001), (1, 3)] {
        let bench = Bench::new(slice_size, len);
        bench.put(0..bench.num());
        bench.assert_finished(bench.merge(), &bench.content);
    }
}

#[test]
fn an_empty_file_is_a_file() {
    let bench = Bench::with_plan(Plan::new(Some(0), None, None).unwrap(), 1, 0);
    bench.assert_finished(bench.merge(), b"");
}

#[test]
fn an_upload_that_tells_only_its_number_of_slices_is_merged_last_slice_first() {
    for slice_size in [1000, 1024] {
        for last_len in [1, slice_size] {
            let plan = Plan::new(Some(4), None, None).unwrap();
            let bench = Bench::with_plan(plan, slice_size, slice_size * 3 + last_len);
            bench.put([3]);
            assert_eq!(bench.merge(), MergeEnd::Idle);
            assert_eq!(bench.held(), [3]);
            bench.put([1, 0]);
            assert_eq!(bench.merge(), MergeEnd::Idle);
            bench.put([2]);
            bench.assert_finished(bench.merge(), &bench.content);
        }
    }
}

#[test]
fn an_unknown_length_is_merged_as_it_comes_and_published_once_it_is_told() {
    let plan = Plan::new(None, Some(1024), None).unwrap();
    let bench = Bench::with_plan(plan, 1024, 3 * 1024);
    bench.put([0, 1, 2]);
    assert_eq!(bench.merge(), MergeEnd::Idle);
    let told = Plan::new(Some(3), None, None).unwrap();
    bench.change(|upload| UploadRecord { plan: upload.plan.bind(&told).unwrap(), ..upload });
    bench.assert_finished(bench.merge(), &bench.content);
}

#[test]
fn fewer_slices_than_were_merged_are_no_file() {
    for slice_size in [1000, 1024] {
        let plan = Plan::new(None, Some(slice_size as u64), None).unwrap();
        let bench = Bench::with_plan(plan, slice_size, 3 * slice_size);
        bench.put([0, 1, 2]);
        assert_eq!(bench.merge(), MergeEnd::Idle);
        let told = Plan::new(Some(2), None, None).unwrap();
        bench.change(|upload| UploadRecord { plan: upload.plan.bind(&told).unwrap(), ..upload });
        let MergeEnd::Blocked(why) = bench.merge() else { panic!("3 slices were taken for a file of 2") };
        assert!(why.contains(&(3 * slice_size).to_string()), "{why}");
        bench.assert_unpublished();
    }
}

#[test]
fn an_idle_merger_leaves_with_its_frontier_in_info_ini() {
    let bench = Bench::new(1024, 4096);
    bench.put([0, 1, 3]);
    assert_eq!(bench.merge(), MergeEnd::Idle);
    let info = bench.info_ini();
    for line in ["[folder/file.bin]", "curr_merge_slice_id = 2", "merge_slice_process_exist = 0", "slice_num = 4"] {
        assert!(info.lines().any(|l| l == line), "{line} in {info}");
    }
    assert_eq!(bench.holdings(), Holdings { frontier: 2, waiting: vec![3] });
}

#[test]
fn an_upload_has_one_merger() {
    let bench = Bench::new(1024, 2048);
    bench.put([0, 1]);
    let lock = bench.spool.try_merger_lock().unwrap().unwrap();
    assert_eq!(bench.merge(), MergeEnd::AlreadyRunning(std::process::id()));
    assert_eq!(bench.holdings(), Holdings { frontier: 0, waiting: vec![0, 1] });
    drop(lock);
    bench.assert_finished(bench.merge(), &bench.content);
    assert_eq!(bench.merge(), MergeEnd::NoUpload);
}

// --- a merger killed under the same kernel

#[test]
fn part_of_a_slice_at_the_end_is_no_slice() {
    for slice_size in [1000, 1024] {
        for part in [1, slice_size - 1] {
            let bench = Bench::new(slice_size, slice_size * 4 - 1);
            bench.put(0..4);
            bench.leave_merged(&[bench.before(1), &vec![0xee; part]].concat());
            bench.assert_finished(bench.merge(), &bench.content);
        }
    }
}

#[test]
fn merged_slices_whose_files_still_stand_are_merged_once() {
    for slice_size in [1000, 1024] {
        for merged in 1..=4 {
            let bench = Bench::new(slice_size, slice_size * 3 + 5);
            bench.put(0..4);
            bench.leave_merged(&bench.content[..bench.content.len().min(slice_size * merged)]);
            bench.assert_finished(bench.merge(), &bench.content);
        }
    }
}

#[test]
fn slices_half_unlinked_are_merged_once() {
    let bench = Bench::new(1000, 3500);
    bench.put(0..3);
    bench.leave_merged(bench.before(3));
    fs::remove_file(bench.spool.slice_path(0)).unwrap();
    assert_eq!(bench.merge(), MergeEnd::Idle);
    assert_eq!(bench.holdings(), Holdings { frontier: 3, waiting: vec![] });
    bench.put([3]);
    bench.assert_finished(bench.merge(), &bench.content);
}

/// A whole merged file, stamped, and its publication written down: all but the rename.
fn about_to_be_renamed(bench: &Bench) {
    bench.put(0..bench.num());
    bench.leave_merged(&bench.content);
    for slice_id in 0..bench.num() {
        fs::remove_file(bench.spool.slice_path(slice_id)).unwrap();
    }
    let (path, digest) = (bench.spool.merged_path(), digest::of_bytes(&bench.content));
    let merged = File::options().read(true).write(true).open(&path).unwrap();
    store::stamp(&merged, &path, &StoredDigest { digest, source: None, sha256: None }, None).unwrap();
    let inode = merged.metadata().unwrap().ino();
    bench.with_records(|records| records.set_publication(Some(Publication { inode, digest })).unwrap());
}

/// The same after the rename, before the spool was removed.
fn renamed(bench: &Bench) {
    about_to_be_renamed(bench);
    fs::create_dir_all(bench.finished_path().parent().unwrap()).unwrap();
    fs::rename(bench.spool.merged_path(), bench.finished_path()).unwrap();
}

#[test]
fn a_publication_that_was_only_written_down_is_made() {
    let bench = Bench::new(1024, 2500);
    about_to_be_renamed(&bench);
    bench.assert_finished(bench.merge(), &bench.content);
}

#[test]
fn a_publication_that_lost_its_rename_to_a_power_cut_is_made_from_the_only_slice() {
    let bench = Bench::new(1024, 700);
    bench.put([0]);
    let inode = fs::metadata(bench.spool.slice_path(0)).unwrap().ino();
    let publication = Publication { inode, digest: digest::of_bytes(&bench.content) };
    bench.with_records(|records| records.set_publication(Some(publication)).unwrap());
    bench.reboot();
    bench.assert_finished(bench.merge(), &bench.content);
}

#[test]
fn a_spool_left_after_the_rename_is_removed() {
    let bench = Bench::new(1024, 2500);
    renamed(&bench);
    assert_eq!(bench.held(), [0, 1, 2], "nothing is asked for again");
    bench.assert_finished(bench.merge(), &bench.content);
}

#[test]
fn a_file_that_a_power_cut_left_with_both_names_is_published_and_not_touched_again() {
    for (touched, slices) in [(false, 3), (true, 3), (false, 1), (true, 1)] {
        let bench = Bench::new(1024, 1024 * slices - 500);
        about_to_be_renamed(&bench);
        fs::create_dir_all(bench.finished_path().parent().unwrap()).unwrap();
        fs::hard_link(bench.spool.merged_path(), bench.finished_path()).unwrap();
        if touched {
            let file = File::options().write(true).open(bench.finished_path()).unwrap();
            file.set_modified(std::time::UNIX_EPOCH).unwrap();
        }
        bench.reboot();
        bench.with_records(|records| records.set_synced(0).unwrap());
        bench.assert_finished(bench.merge(), &bench.content);
    }
}

#[test]
fn a_file_that_was_changed_by_hand_while_it_had_both_names_is_not_vouched_for() {
    let bench = Bench::new(1024, 2500);
    about_to_be_renamed(&bench);
    bench.put_finished(b"");
    fs::remove_file(bench.finished_path()).unwrap();
    fs::hard_link(bench.spool.merged_path(), bench.finished_path()).unwrap();
    fs::write(bench.finished_path(), "by hand").unwrap();
    assert_eq!(bench.merge(), MergeEnd::Published(digest::of_bytes(&bench.content)));
    assert_eq!(
        (fs::read_to_string(bench.finished_path()).unwrap(), bench.stored_digest()),
        ("by hand".to_owned(), None)
    );
    bench.assert_clean();
}

#[test]
fn what_an_operator_did_to_a_file_just_published_stands() {
    let bench = Bench::new(1024, 2500);
    renamed(&bench);
    bench.put_finished(b"replaced by hand");
    assert_eq!(bench.merge(), MergeEnd::Published(digest::of_bytes(&bench.content)));
    assert_eq!(fs::read(bench.finished_path()).unwrap(), b"replaced by hand");
    bench.assert_clean();

    let bench = Bench::new(1024, 2500);
    renamed(&bench);
    fs::remove_dir_all(bench.finished_path().parent().unwrap()).unwrap();
    assert_eq!(bench.merge(), MergeEnd::Published(digest::of_bytes(&bench.content)));
    bench.assert_unpublished();
    bench.assert_clean();
}

// --- something stands under the name

#[test]
fn another_file_of_the_name_blocks_until_it_may_be_replaced() {
    let bench = Bench::new(1000, 2500);
    bench.put_finished(b"precious");
    bench.put(0..3);
    let MergeEnd::Blocked(why) = bench.merge() else { panic!("not blocked") };
    assert!(why.contains("exists with other content"), "{why}");
    assert_eq!(bench.upload().blocked, Some(why));
    assert_eq!(fs::read(bench.finished_path()).unwrap(), b"precious");
    assert_eq!(bench.held(), [0, 1, 2]);
    assert!(matches!(bench.merge(), MergeEnd::Blocked(_)), "the reason stands until a client begins anew");

    bench.change(|upload| UploadRecord { replace: true, blocked: None, ..upload });
    bench.assert_finished(bench.merge(), &bench.content);
}

#[test]
fn a_folder_of_the_name_blocks_even_replacement() {
    let bench = Bench::new(1000, 2500);
    fs::create_dir_all(bench.finished_path()).unwrap();
    fs::write(bench.finished_path().join("in the way"), "").unwrap();
    bench.change(|upload| UploadRecord { replace: true, ..upload });
    bench.put(0..3);
    let MergeEnd::Blocked(why) = bench.merge() else { panic!("not blocked") };
    assert!(why.contains("folder"), "{why}");
    assert_eq!(bench.held(), [0, 1, 2]);
    fs::remove_dir_all(bench.finished_path()).unwrap();
    bench.change(|upload| UploadRecord { blocked: None, ..upload });
    bench.assert_finished(bench.merge(), &bench.content);
}

#[test]
fn the_same_file_of_the_name_is_the_published_one() {
    let bench = Bench::new(1000, 2500);
    bench.put_finished(&bench.content);
    let finished = File::options().read(true).write(true).open(bench.finished_path()).unwrap();
    let stored_digest =
        StoredDigest { digest: digest::of_bytes(&bench.content), source: Some("first".to_owned()), sha256: None };
    store::stamp(&finished, &bench.finished_path(), &stored_digest, None).unwrap();
    let inode = finished.metadata().unwrap().ino();
    bench.put(0..3);
    bench.assert_finished(bench.merge(), &bench.content);
    assert_eq!(fs::metadata(bench.finished_path()).unwrap().ino(), inode, "it was left alone");
    assert_eq!(bench.stored_digest(), Some(stored_digest));
}

// --- another kernel: what was not synced may be anything

#[test]
fn intact_slices_survive_a_reboot() {
    for slice_size in [1000, 1024] {
        let bench = Bench::new(slice_size, slice_size * 4 + 1);
        bench.put([0, 1]);
        assert_eq!(bench.merge(), MergeEnd::Idle);
        bench.put([2, 4]);
        bench.reboot();
        assert_eq!(bench.merge(), MergeEnd::Idle);
        assert_eq!(bench.held(), [0, 1, 2, 4]);
        bench.put([3]);
        bench.assert_finished(bench.merge(), &bench.content);
    }
}

#[test]
fn a_slice_damaged_before_it_was_merged_is_asked_for_again() {
    for slice_size in [1000, 1024] {
        for damaged in 0..4 {
            let bench = Bench::new(slice_size, slice_size * 3 + 1);
            bench.put(0..4);
            bench.reboot();
            bench.garble_slice(damaged);
            assert_eq!(bench.merge(), MergeEnd::Idle);
            assert_eq!(bench.holdings().frontier, damaged);
            assert!(!bench.held().contains(&damaged));
            bench.assert_unpublished();
            bench.put([damaged]);
            bench.assert_finished(bench.merge(), &bench.content);
        }
    }
}

#[test]
fn a_slice_cut_short_or_of_a_torn_record_is_asked_for_again() {
    for damage in [0, 1, 2] {
        let bench = Bench::new(1024, 3000);
        bench.put(0..3);
        bench.reboot();
        match damage {
            0 => fs::write(bench.spool.slice_path(1), "").unwrap(),
            1 => fs::write(bench.spool.slice_path(1), &bench.slice(1)[..1023]).unwrap(),
            _ => bench.spool.open_digests().unwrap().write_all_at(b"torn", 3 * 64 + 30).unwrap(),
        }
        assert_eq!(bench.merge(), MergeEnd::Idle);
        assert_eq!(bench.held(), [0, 2], "damage {damage}");
        bench.put([1]);
        bench.assert_finished(bench.merge(), &bench.content);
    }
}

#[test]
fn good_merged_bytes_are_kept_where_their_slices_come_back_damaged() {
    for slice_size in [1000, 1024] {
        let bench = Bench::new(slice_size, slice_size * 3 + 1);
        bench.put([0, 1, 2]);
        assert_eq!(bench.merge(), MergeEnd::Idle);
        bench.reboot();
        // Unlinking was not durable yet: directory entries are back, their bytes never reached the disk.
        fs::write(bench.spool.slice_path(1), vec![0; slice_size]).unwrap();
        fs::write(bench.spool.slice_path(2), "").unwrap();
        assert_eq!(bench.merge(), MergeEnd::Idle);
        assert_eq!(bench.holdings(), Holdings { frontier: 3, waiting: vec![] });
        bench.put([3]);
        bench.assert_finished(bench.merge(), &bench.content);
    }
}

#[test]
fn damaged_merged_bytes_are_written_again_from_good_slices() {
    for slice_size in [1000, 1024] {
        let bench = Bench::new(slice_size, slice_size * 4 + 1);
        bench.put([0, 1]);
        assert_eq!(bench.merge(), MergeEnd::Idle);
        bench.put([2, 3, 4]);
        fs::write(bench.spool.merged_path(), &bench.content).unwrap();
        bench.reboot();
        bench.garble_merged(2);
        bench.garble_merged(4);
        bench.assert_finished(bench.merge(), &bench.content);
    }
}

#[test]
fn the_file_is_cut_where_both_the_slice_and_what_was_merged_of_it_are_damaged() {
    for slice_size in [1000, 1024] {
        let bench = Bench::new(slice_size, slice_size * 5);
        bench.put([0, 1]);
        assert_eq!(bench.merge(), MergeEnd::Idle);
        bench.put([2, 3, 4]);
        fs::write(bench.spool.merged_path(), &bench.content).unwrap();
        bench.reboot();
        bench.garble_merged(3);
        bench.garble_slice(3);
        assert_eq!(bench.merge(), MergeEnd::Idle);
        assert_eq!(bench.held(), [0, 1, 2, 4]);
        assert_eq!(fs::read(bench.spool.merged_path()).unwrap(), bench.before(3));
        bench.assert_unpublished();
        bench.put([3]);
        bench.assert_finished(bench.merge(), &bench.content);
    }
}

/// Without its file a slice below the frontier counts as synced, so the file may go only once the garbage has.
#[test]
fn the_file_is_cut_before_the_damaged_slice_goes() {
    let bench = Bench::new(1024, 4096);
    bench.put(0..4);
    bench.leave_merged(&bench.content);
    bench.reboot();
    bench.garble_merged(2);
    bench.garble_slice(2);
    let events = Inotify::init(InitFlags::IN_NONBLOCK).unwrap();
    events.add_watch(bench.spool.path(), AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_DELETE).unwrap();
    assert_eq!(bench.merge(), MergeEnd::Idle);
    let seen = events.read_events().unwrap();
    let first =
        |mask, name: &str| seen.iter().position(|e| e.mask.contains(mask) && e.name.as_deref() == Some(name.as_ref()));
    let cut = first(AddWatchFlags::IN_MODIFY, "merged").expect("it is cut");
    let gone = first(AddWatchFlags::IN_DELETE, "2").expect("the slice goes");
    assert!(cut < gone, "{seen:?}");
}

#[test]
fn any_damage_after_a_reboot_ends_in_the_exact_file() {
    for slice_size in [1000, 1024] {
        for damage in 0..64_u64 {
            let bench = Bench::new(slice_size, slice_size * 3 + 7);
            bench.put([0, 1, 2]);
            bench.leave_merged(bench.before(1 + damage % 3));
            bench.put([3]);
            bench.reboot();
            for slice_id in 0..3 {
                if damage & (1 << slice_id) != 0 {
                    bench.garble_slice(slice_id);
                }
                if damage & (8 << slice_id) != 0 && slice_id < 1 + damage % 3 {
                    bench.garble_merged(slice_id);
                }
            }
            bench.assert_finished(bench.finish(), &bench.content);
        }
    }
}

/// A file system may keep a longer merged file and lose the names of the slices that came before it.
#[test]
fn garbage_in_the_merged_file_is_found_although_the_slices_are_gone() {
    for slice_size in [1000, 1024] {
        for garbled in 0..4 {
            for merged in garbled + 1..=4 {
                let bench = Bench::new(slice_size, slice_size * 3 + 7);
                bench.put(0..4);
                let end = (merged as usize * slice_size).min(bench.content.len());
                bench.leave_merged(&bench.content[..end]);
                for slice_id in 0..merged {
                    fs::remove_file(bench.spool.slice_path(slice_id)).unwrap();
                }
                bench.reboot();
                bench.garble_merged(garbled);
                bench.assert_finished(bench.finish(), &bench.content);
            }
        }
    }
}

#[test]
fn all_that_a_power_cut_damaged_is_asked_for_at_once() {
    let bench = Bench::new(1024, 1024 * 6);
    bench.put(0..6);
    bench.reboot();
    [2, 3, 5].into_iter().for_each(|slice_id| bench.garble_slice(slice_id));
    assert_eq!(bench.merge(), MergeEnd::Idle);
    assert_eq!(bench.held(), [0, 1, 4]);
    assert_eq!(bench.record(4).boot, BootId::current(), "it was checked, once for all");
    bench.assert_finished(bench.finish(), &bench.content);
}

#[test]
fn what_is_below_the_synced_frontier_is_not_read_again() {
    let bench = Bench::new(1024, 1024 * 4);
    bench.put([0, 1]);
    assert_eq!(bench.merge(), MergeEnd::Idle);
    assert_eq!(bench.with_records(|records| records.synced().unwrap()), 2);
    bench.reboot();
    // Only reading it could tell.
    bench.garble_merged(0);
    assert_eq!(bench.merge(), MergeEnd::Idle);
    assert_eq!(bench.held(), [0, 1]);
    // What is not below it is read.
    bench.with_records(|records| records.set_synced(0).unwrap());
    bench.reboot();
    assert_eq!(bench.merge(), MergeEnd::Idle);
    assert_eq!(bench.held(), Vec::<u64>::new());
}

#[test]
fn a_second_death_during_recovery_changes_nothing() {
    for is_slice_damaged in [false, true] {
        let bench = Bench::new(1024, 4096);
        bench.put(0..4);
        bench.leave_merged(&bench.content);
        bench.reboot();
        bench.garble_merged(1);
        if is_slice_damaged {
            bench.garble_slice(1);
        }
        // The next merger had said that it is the one that writes, and died before it wrote.
        bench.with_records(|records| records.set_merge_boot(BootId::current()).unwrap());
        if is_slice_damaged {
            assert_eq!(bench.merge(), MergeEnd::Idle);
            assert_eq!(bench.held(), [0, 2, 3]);
            bench.put([1]);
        }
        bench.assert_finished(bench.merge(), &bench.content);
    }
}

#[test]
fn a_slice_sent_again_because_its_record_was_torn_is_in_the_digest() {
    for slice_size in [1000, 1024] {
        let bench = Bench::new(slice_size, slice_size * 3);
        bench.put([0, 1]);
        assert_eq!(bench.merge(), MergeEnd::Idle);
        bench.spool.open_digests().unwrap().write_all_at(b"torn", 2 * 64 + 30).unwrap();
        bench.put([0, 2]);
        bench.assert_finished(bench.merge(), &bench.content);
    }
}

#[test]
fn the_digest_is_that_of_the_file_even_if_a_slice_of_a_torn_record_comes_with_other_content() {
    for slice_size in [1000, 1024] {
        let bench = Bench::new(slice_size, slice_size * 3);
        bench.put([0, 1]);
        let other = content(3, slice_size);
        let ended = bench.merge_during(|| {
            while bench.holdings().frontier < 2 {
                std::thread::yield_now();
            }
            bench.spool.open_digests().unwrap().write_all_at(b"torn", 2 * 64 + 30).unwrap();
            bench.put_bytes(0, &other).unwrap();
            bench.put([2]);
        });
        bench.assert_finished(ended, &[&other, &bench.content[slice_size..]].concat());
    }
}

// --- the disk loses what it took in, without a reboot and without a word

#[test]
fn slices_that_were_lost_while_they_waited_are_asked_for_again_all_at_once() {
    for slice_size in [1000, 1024] {
        let bench = Bench::new(slice_size, slice_size * 5 + 1);
        bench.put([0, 1, 2, 3, 5]);
        [1, 3, 5].into_iter().for_each(|slice_id| bench.garble_slice(slice_id));
        assert_eq!(bench.merge(), MergeEnd::Idle);
        assert_eq!(bench.held(), [0, 2], "by {slice_size}");
        bench.assert_finished(bench.finish(), &bench.content);
    }
}

#[test]
fn an_only_slice_that_was_lost_while_it_waited_is_asked_for_again() {
    let bench = Bench::new(1024, 1000);
    bench.put([0]);
    bench.garble_slice(0);
    assert_eq!(bench.merge(), MergeEnd::Idle);
    assert_eq!(bench.held(), Vec::<u64>::new());
    bench.assert_finished(bench.finish(), &bench.content);
}

/// A merger died after it had merged a slice and before it synced; then the disk lost that slice.
#[test]
fn a_slice_below_the_frontier_that_was_lost_is_asked_for_again() {
    for slice_size in [1000, 1024] {
        let bench = Bench::new(slice_size, slice_size * 4);
        bench.put(0..3);
        bench.leave_merged(&bench.content[..slice_size * 3]);
        bench.garble_slice(1);
        assert_eq!(bench.merge(), MergeEnd::Idle);
        assert!(!bench.held().contains(&1), "by {slice_size}");
        bench.assert_finished(bench.finish(), &bench.content);
    }
}

/// What their sender has open since before their first byte is merged as it is, which spares hashing it. Only reading could
/// tell that it was changed here.
#[test]
fn slices_that_their_sender_keeps_open_are_not_read_for_their_digest() {
    for is_kept_open in [true, false] {
        let bench = Bench::new(1024, 2048);
        let mut changed = bench.content.clone();
        changed[1024..].fill(0);
        let ended = bench.merge_during_for(if is_kept_open { LONG } else { Duration::from_millis(300) }, || {
            let kept = bench.put_open(1, bench.slice(1)).1;
            bench.garble_slice(1);
            let kept = is_kept_open.then_some(kept);
            bench.put([0]);
            while bench.spool.path().exists() && bench.spool.slice_path(1).exists() {
                std::thread::yield_now();
            }
            drop(kept);
        });
        let is_known = notes_failed_writes(&File::open(bench.data.root()).unwrap());
        if is_kept_open && is_known {
            assert!(matches!(ended, MergeEnd::Published(_)));
            assert!(fs::read(bench.finished_path()).unwrap() == changed, "it was read");
        } else if !is_kept_open {
            assert_eq!(ended, MergeEnd::Idle);
            assert_eq!(bench.held(), [0]);
        }
    }
}

/// A merger that died may have been told that it was lost, which is told once.
#[test]
fn slices_that_waited_when_the_merger_began_are_read_all_the_same() {
    let bench = Bench::new(1024, 2048);
    let kept = bench.put_open(0, bench.slice(0)).1;
    bench.garble_slice(0);
    assert_eq!(bench.merge(), MergeEnd::Idle);
    assert_eq!(bench.held(), Vec::<u64>::new());
    drop(kept);
}

#[test]
fn what_was_hashed_by_one_merger_is_not_read_by_the_next() {
    let bench = Bench::new(1000, 4000);
    for slice_id in 0..3 {
        bench.put([slice_id]);
        assert_eq!(bench.merge(), MergeEnd::Idle);
    }
    // Only reading it could tell.
    bench.garble_merged(0);
    bench.put([3]);
    assert_eq!(bench.merge(), MergeEnd::Published(digest::of_bytes(&bench.content)));
}

/// As an upload is left by a version that kept none, or by a power cut.
#[test]
fn without_a_kept_hash_all_is_read_once_and_compared() {
    for is_torn in [false, true] {
        let bench = Bench::new(1000, 4000);
        bench.put(0..3);
        assert_eq!(bench.merge(), MergeEnd::Idle);
        let hash = bench.spool.path().join("hash");
        if is_torn {
            fs::write(&hash, "BIGUPWH1 torn").unwrap()
        } else {
            fs::remove_file(&hash).unwrap()
        }
        bench.garble_merged(1);
        bench.put([3]);
        let error = bench.try_merge().unwrap_err();
        assert!(error.to_string().contains("slice 1 was damaged after it was merged"), "{error}");
        assert_eq!(bench.held(), [0, 3]);
        bench.assert_finished(bench.finish(), &bench.content);
    }
}

#[test]
fn a_merged_only_slice_is_looked_at_after_a_reboot() {
    // Its end is not known when it is merged, so it is not adopted.
    let bench = Bench::with_plan(Plan::new(None, Some(1024), None).unwrap(), 1024, 1024);
    bench.put([0]);
    assert_eq!(bench.merge(), MergeEnd::Idle);
    bench.change(|upload| UploadRecord { plan: Plan::new(None, Some(1024), Some(1024)).unwrap(), ..upload });
    // Nothing of it was synced before the power was cut.
    bench.with_records(|records| records.set_synced(0).unwrap());
    bench.reboot();
    bench.garble_merged(0);
    assert_eq!(bench.merge(), MergeEnd::Idle);
    assert_eq!(bench.held(), Vec::<u64>::new());
    bench.assert_finished(bench.finish(), &bench.content);
}

// --- taken over: held slices may be of another content

/// An upload of one source that another one took over, when these slices of the first were held and merged as far as
/// they go; and the content of the second source. Each third slice of it is another one.
fn taken_over(slice_size: usize, held: &[u64]) -> (Bench, Vec<u8>) {
    let bench = Bench::new(slice_size, slice_size * 5 + 1);
    let (last, others) = held.split_last().unwrap();
    bench.put(others.iter().copied());
    assert_eq!(bench.merge(), MergeEnd::Idle);
    bench.put([*last]);
    bench.change(|upload| UploadRecord {
        source: Some("second".to_owned()),
        content: HeldContent::ToCompare,
        ..upload
    });
    let mut second = bench.content.clone();
    for (slice_id, bytes) in second.chunks_mut(slice_size).enumerate() {
        if slice_id % 3 == 0 {
            bytes.copy_from_slice(&content(2, bytes.len()));
        }
    }
    (bench, second)
}

/// Sends these slices of the content.
fn put_of(bench: &Bench, content: &[u8], slice_ids: impl IntoIterator<Item = u64>) {
    for slice_id in slice_ids {
        let bytes = content.chunks(bench.slice_size).nth(usize::try_from(slice_id).unwrap()).unwrap();
        bench.put_bytes(slice_id, bytes).unwrap();
    }
}

fn promise(bench: &Bench, content: &[u8]) {
    let file_digest = Some(digest::of_bytes(content));
    bench.change(|upload| UploadRecord { content: upload.content.promised(file_digest), blocked: None, ..upload });
}

#[test]
fn slices_replaced_below_the_frontier_are_written_again() {
    for slice_size in [1000, 1024] {
        let (bench, second) = taken_over(slice_size, &[0, 1, 2, 3, 5]);
        assert_eq!(bench.holdings().frontier, 4);
        put_of(&bench, &second, 0..6);
        assert_eq!(bench.merge(), MergeEnd::Idle, "whole, but nobody has promised what it is");
        bench.assert_unpublished();
        promise(&bench, &second);
        bench.assert_finished(bench.merge(), &second);
    }
}

#[test]
fn slices_replaced_while_the_merger_is_at_work_are_written_again() {
    for slice_size in [1000, 1024] {
        let (bench, second) = taken_over(slice_size, &[0, 1, 2, 3]);
        let ended = bench.merge_during(|| {
            // Thrice, each other content than before.
            put_of(&bench, &second, [3, 0, 4, 5]);
            put_of(&bench, &bench.content, [3, 0]);
            put_of(&bench, &second, [0, 3]);
            promise(&bench, &second);
        });
        bench.assert_finished(ended, &second);
    }
}

#[test]
fn content_that_was_not_replaced_is_never_published_under_the_promise_of_another() {
    for slice_size in [1000, 1024] {
        let (bench, second) = taken_over(slice_size, &[0, 1, 2, 3, 4, 5]);
        promise(&bench, &second);
        let MergeEnd::Blocked(why) = bench.merge() else { panic!("not blocked") };
        assert!(why.contains(&digest::of_bytes(&bench.content).to_string()), "{why}");
        bench.assert_unpublished();
        assert_eq!(bench.upload().file_digest(), None);
        assert!(bench.upload().needs_comparison());
        // The flow goes on: compare, send what differs, promise.
        put_of(&bench, &second, 0..6);
        promise(&bench, &second);
        bench.assert_finished(bench.merge(), &second);
    }
}

#[test]
fn a_record_written_without_its_slice_never_vouches_for_the_old_content() {
    for slice_size in [1000, 1024] {
        let (bench, second) = taken_over(slice_size, &[0, 1, 2, 3, 4, 5]);
        // The daemon was killed after it recorded slice 3 of the second source and before it renamed it.
        let plan = bench.upload().plan;
        let bytes = &second[slice_size * 3..slice_size * 4];
        let record = Record { digest: digest::of_slice(&plan, 3, bytes), ..bench.record(3) };
        bench.with_records(|records| records.put(3, &record).unwrap());
        // By its digest it seems to be there, so the client sends only the other one.
        put_of(&bench, &second, [0, 3]);
        promise(&bench, &second);
        assert!(matches!(bench.merge(), MergeEnd::Blocked(_)));
        bench.assert_unpublished();
        let is = digest::of_slice(&plan, 3, bench.slice(3));
        assert_eq!(bench.record(3).digest, is, "records say what is there now");
        put_of(&bench, &second, 0..6);
        promise(&bench, &second);
        bench.assert_finished(bench.merge(), &second);
    }
}

#[test]
fn a_record_written_without_its_slice_makes_a_waiting_slice_absent() {
    let (bench, second) = taken_over(1024, &[0, 3]);
    // The same death, of a slice that was waiting: it was unlinked before the record changed.
    fs::remove_file(bench.spool.slice_path(3)).unwrap();
    let record = Record { digest: digest::of_slice(&bench.upload().plan, 3, &second[3072..4096]), ..bench.record(3) };
    bench.with_records(|records| records.put(3, &record).unwrap());
    assert_eq!(bench.held(), [0]);
    put_of(&bench, &second, 0..6);
    promise(&bench, &second);
    bench.assert_finished(bench.merge(), &second);
}

#[test]
fn a_promise_that_is_wrong_blocks_an_upload_of_a_length_never_told() {
    let plan = Plan::new(None, Some(1024), None).unwrap();
    let bench = Bench::with_plan(plan, 1024, 3 * 1024);
    bench.put([0, 1, 2]);
    assert_eq!(bench.merge(), MergeEnd::Idle);
    let told = bench.upload().plan.bind(&Plan::new(Some(3), None, None).unwrap()).unwrap();
    bench.change(|upload| UploadRecord { plan: told, content: HeldContent::ToCompare, ..upload });
    promise(&bench, b"something else");
    assert!(matches!(bench.merge(), MergeEnd::Blocked(_)));
    bench.assert_unpublished();
    promise(&bench, &bench.content);
    bench.assert_finished(bench.merge(), &bench.content);
}

#[test]
fn a_wrong_promise_blocks_an_upload_that_was_not_taken_over() {
    for slice_size in [1000, 1024, 4096] {
        let bench = Bench::new(slice_size, 3000);
        promise(&bench, b"something else");
        bench.put(0..bench.num());
        assert!(matches!(bench.merge(), MergeEnd::Blocked(_)));
        bench.assert_unpublished();
        promise(&bench, &bench.content);
        bench.assert_finished(bench.merge(), &bench.content);
    }
}

/// Two pushes of unknown length: the second, shorter one tells its end over more slices of the first than it has.
#[test]
fn what_lies_beyond_an_end_told_later_is_not_of_the_file() {
    for merger_at_work in [false, true] {
        for (slice_size, merged, waiting) in
            [(1024, 0..5, 0..0), (1024, 0..1, 2..5), (1000, 0..2, 3..5), (1000, 0..4, 4..5)]
        {
            let open = Plan::new(None, Some(slice_size as u64), None).unwrap();
            let bench = Bench::with_plan(open.clone(), slice_size, slice_size * 5);
            bench.put(merged.clone());
            assert_eq!(bench.merge(), MergeEnd::Idle);
            let second = content(2, slice_size * 3 + 5);
            let act = || {
                bench.put(waiting.clone());
                bench.change(|upload| UploadRecord {
                    source: Some("second".to_owned()),
                    content: HeldContent::ToCompare,
                    ..upload
                });
                put_of(&bench, &second, 0..3);
                let told = open.bind(&Plan::new(None, None, Some(second.len() as u64)).unwrap()).unwrap();
                bench.change(|upload| UploadRecord { plan: told, ..upload });
                assert!(bench.held().iter().all(|id| *id < 3), "{:?} of 3", bench.held());
                put_of(&bench, &second, [3]);
                promise(&bench, &second);
            };
            let ended = if merger_at_work {
                bench.merge_during(act)
            } else {
                act();
                bench.merge()
            };
            bench.assert_finished(ended, &second);
        }
    }
}

#[test]
fn an_upload_taken_over_by_an_empty_file_becomes_empty() {
    let open = Plan::new(None, Some(1024), None).unwrap();
    let bench = Bench::with_plan(open.clone(), 1024, 3 * 1024);
    bench.put([0, 2]);
    assert_eq!(bench.merge(), MergeEnd::Idle);
    let told = open.bind(&Plan::new(None, None, Some(0)).unwrap()).unwrap();
    bench.change(|upload| UploadRecord { plan: told, content: HeldContent::ToCompare, ..upload });
    promise(&bench, b"");
    bench.assert_finished(bench.merge(), b"");
}

/// A kill between forgetting the promise and blocking would leave an upload that anything may be published of.
#[test]
fn a_broken_promise_blocks_in_one_step_and_is_not_forgotten() {
    for held in [HeldContent::Own(None), HeldContent::ToCompare] {
        let bench = Bench::new(1000, 3000);
        bench.put(0..3);
        bench.change(|upload| UploadRecord { content: held, ..upload });
        promise(&bench, b"something else");
        let events = Inotify::init(InitFlags::IN_NONBLOCK).unwrap();
        events.add_watch(bench.spool.path(), AddWatchFlags::IN_MOVED_TO).unwrap();
        assert!(matches!(bench.merge(), MergeEnd::Blocked(_)));
        let replaced = events.read_events().unwrap();
        let times = replaced.iter().filter(|event| event.name.as_deref() == Some("upload.json".as_ref())).count();
        assert_eq!(times, 1, "upload.json is replaced once");
        // Whatever a client says next, but for another promise.
        bench.change(|upload| UploadRecord { blocked: None, replace: true, ..upload });
        assert!(!matches!(bench.merge(), MergeEnd::Published(_)));
        bench.assert_unpublished();
    }
}

#[test]
fn nothing_is_dropped_under_the_hands_of_a_merger() {
    let bench = Bench::new(1024, 700);
    bench.put([0]);
    let merger = bench.spool.try_merger_lock().unwrap().unwrap();
    // It may have opened slice 0 and be about to append it: dropped now, it would count as merged later.
    let error = bench.spool.lock().unwrap().unwrap().keep_first(0, &Plan::default(), None).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ResourceBusy);
    assert_eq!(bench.held(), [0]);
    bench.spool.lock().unwrap().unwrap().keep_first(0, &Plan::default(), Some(&merger)).unwrap();
    assert_eq!(bench.held(), Vec::<u64>::new());
}

#[test]
fn a_merger_whose_upload_was_removed_by_hand_takes_nothing_of_the_one_begun_after_it() {
    let bench = Bench::new(1024, 4 * 1024);
    bench.put([0, 1]);
    let from = recover(&bench.spool).unwrap().unwrap();
    let mut merge = Merge::begin(&bench.data, &bench.spool, &bench.name, from, Events::none()).unwrap();
    let (never, spool) = (Stop::never(), bench.spool.clone());
    let leave = Leave::from_now_on(&never, &spool).unwrap();
    assert!(merge.merge_what_is_there(&leave).unwrap());
    assert!(merge.has_its_upload().unwrap());
    let upload = bench.upload();
    fs::remove_dir_all(bench.spool.path()).unwrap();
    assert!(!merge.has_its_upload().unwrap());
    assert!(
        Spool::create(&bench.data, &UploadId::of_name(&upload.file_name), &upload, &DiskSpace::new(&bench.data, 0))
            .unwrap()
    );
    bench.put(0..4);
    merge.merge_what_is_there(&leave).unwrap();
    merge.checkpoint().unwrap();
    assert!(!merge.has_its_upload().unwrap());
    assert_eq!(bench.held(), [0, 1, 2, 3]);
    bench.assert_finished(bench.merge(), &bench.content);
}

#[test]
fn a_merger_notices_that_its_upload_was_removed_by_hand() {
    let bench = Bench::new(1024, 4 * 1024);
    bench.put([0, 1]);
    let ended = bench.merge_during_for(Duration::from_millis(300), || fs::remove_dir_all(bench.spool.path()).unwrap());
    assert_eq!(ended, MergeEnd::NoUpload);
}

#[test]
fn a_digest_is_what_b3sum_prints() {
    let bench = Bench::new(1024, 10_000);
    bench.put(0..10);
    let expected = Digest(*blake3::hash(&bench.content).as_bytes());
    assert_eq!(bench.merge(), MergeEnd::Published(expected));
}

/// It may come between any two steps of publication, which takes some milliseconds.
#[test]
fn the_same_file_put_there_by_hand_during_publication_is_the_finished_file() {
    for round in 0..40 {
        let bench = Bench::new(1024, 4 * 1024);
        bench.put(0..4);
        let by_hand = bench.dir.path().join("by_hand");
        fs::write(&by_hand, &bench.content).unwrap();
        fs::create_dir_all(bench.finished_path().parent().unwrap()).unwrap();
        let ended = std::thread::scope(|threads| {
            threads.spawn(|| {
                std::thread::sleep(Duration::from_micros(250 * round));
                // Where the upload was faster its file has the name.
                let _ = fs::hard_link(&by_hand, bench.finished_path());
            });
            bench.merge_for(LONG)
        });
        bench.assert_finished(ended, &bench.content);
    }
}

#[test]
fn a_merger_leaves_if_a_file_in_its_spool_asks_it_to() {
    let bench = Bench::new(1024, 4 * 1024);
    bench.put([0, 1]);
    // An earlier call meant an earlier merger.
    bench.spool.ask_merger_to_leave().unwrap();
    std::thread::scope(|scope| {
        let merger = scope.spawn(|| bench.merge_for(Duration::from_secs(600)));
        // A call that comes while it begins may be lost, so that callers repeat it.
        while !merger.is_finished() {
            std::thread::sleep(Duration::from_millis(20));
            bench.spool.ask_merger_to_leave().unwrap();
        }
        assert_eq!(merger.join().unwrap(), MergeEnd::Stopped);
    });
    assert_eq!(bench.held(), [0, 1]);
    bench.put(2..4);
    bench.assert_finished(bench.merge(), &bench.content);
}
