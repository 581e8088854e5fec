//! The spool at its own interface: what is held after each step, and what is refused.

use bigup_core::protocol::digest::{DigestKind, SliceDigest, SliceHasher, of_bytes};
use bigup_core::protocol::name::FileName;
use bigup_core::protocol::plan::Plan;
use bigup_core::storage::data_dir::DataDir;
use bigup_core::storage::disk::BootId;
use bigup_core::storage::space::DiskSpace;
use bigup_core::storage::spool::{
    HeldContent, Idle, Place, Publication, Record, Records, SliceError, Spool, UploadId, UploadRecord,
};
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::time::Duration;

struct Fixture {
    _dir: tempfile::TempDir,
    data: DataDir,
    spool: Spool,
}

fn upload(plan: Plan, source: Option<&str>) -> UploadRecord {
    UploadRecord::begin(FileName::new("f").unwrap(), plan, source.map(str::to_owned))
}

fn fixture(slice_num: Option<u64>, slice_size: Option<u64>) -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let data = DataDir::create(dir.path()).unwrap();
    let upload = upload(Plan::new(slice_num, slice_size, None).unwrap(), None);
    assert!(Spool::create(&data, &UploadId::of_name(&upload.file_name), &upload, &DiskSpace::new(&data, 0)).unwrap());
    Fixture { spool: Spool::of(&data, &UploadId::of_name(&upload.file_name)), data, _dir: dir }
}

fn digest(kind: DigestKind, offset: u64, content: &[u8]) -> SliceDigest {
    let mut hasher = SliceHasher::new(kind, offset);
    hasher.update(content);
    hasher.finish()
}

impl Fixture {
    fn commit(&self, slice_id: u64, content: &[u8], digests: &[SliceDigest]) -> Result<Place, SliceError> {
        let mut arrival = self.spool.arrival(slice_id).unwrap();
        arrival.file().write_all(content).unwrap();
        let mut locked = self.spool.lock().unwrap().unwrap();
        locked.commit(&mut arrival, content.len() as u64, None, digests)
    }

    fn held(&self) -> Vec<u64> {
        self.spool.lock().unwrap().unwrap().holdings().unwrap().ranges().iter().collect()
    }

    fn parts(&self) -> usize {
        let names = std::fs::read_dir(self.spool.path()).unwrap().flatten();
        names.filter(|entry| entry.file_name().to_string_lossy().ends_with(".part")).count()
    }
}

#[test]
fn an_upload_is_created_once() {
    let f = fixture(Some(3), None);
    let other = upload(Plan::new(Some(9), None, None).unwrap(), None);
    assert!(
        !Spool::create(&f.data, &UploadId::of_name(&other.file_name), &other, &DiskSpace::new(&f.data, 0)).unwrap()
    );
    assert_eq!(f.spool.upload().unwrap().unwrap().plan.slice_num, Some(3));
    assert_eq!(std::fs::read_dir(f.data.tmp()).unwrap().count(), 1, "nothing half made is left");
}

#[test]
fn a_slice_is_held_from_its_commit_on_and_a_dropped_arrival_leaves_nothing() {
    let f = fixture(Some(3), None);
    drop(f.spool.arrival(1).unwrap());
    assert_eq!((f.held(), f.parts()), (vec![], 0));
    let hash = digest(DigestKind::Hash, 0, &[7; 10]);
    assert_eq!(f.commit(1, &[7; 10], &[hash]).unwrap(), Place::Wanted);
    assert_eq!(f.commit(1, &[7; 10], &[hash]).unwrap(), Place::Held);
    assert_eq!((f.held(), f.parts()), (vec![1], 0));
}

#[test]
fn other_content_and_other_sources_are_refused() {
    let f = fixture(Some(3), None);
    f.commit(0, &[1; 10], &[digest(DigestKind::Hash, 0, &[1; 10])]).unwrap();
    let differs = f.commit(0, &[2; 10], &[digest(DigestKind::Hash, 0, &[2; 10])]);
    assert!(matches!(differs, Err(SliceError::Content { slice_id: 0, .. })));
    let locked = f.spool.lock().unwrap().unwrap();
    assert!(matches!(locked.place(1, 10, Some("other"), &[]), Err(SliceError::OtherSource)));
}

/// A promise that was broken makes all that is held doubtful; who promises anew as it sends is not to be refused for what is
/// held.
#[test]
fn other_content_takes_the_place_of_what_a_takeover_left_in_doubt() {
    let f = fixture(Some(3), None);
    f.commit(0, &[1; 10], &[digest(DigestKind::Hash, 0, &[1; 10])]).unwrap();
    let mut locked = f.spool.lock().unwrap().unwrap();
    let content = HeldContent::Compared(of_bytes(&[2; 30]));
    locked.save(UploadRecord { content, ..locked.upload().clone() }).unwrap();
    drop(locked);
    let placed = f.commit(0, &[2; 10], &[digest(DigestKind::Hash, 0, &[2; 10])]);
    assert_eq!(placed.unwrap(), Place::Wanted);
    assert_eq!(std::fs::read(f.spool.slice_path(0)).unwrap(), [2; 10]);
}

#[test]
fn a_slice_that_cannot_be_compared_with_the_one_that_came_meanwhile_is_refused() {
    let f = fixture(None, Some(1024));
    f.commit(1, &[1; 1024], &[digest(DigestKind::ChainingValue, 1024, &[1; 1024])]).unwrap();
    let late = f.commit(1, &[2; 1024], &[digest(DigestKind::Hash, 0, &[2; 1024])]);
    assert!(matches!(late, Err(SliceError::Meanwhile(1))));
    assert_eq!(std::fs::read(f.spool.slice_path(1)).unwrap(), [1; 1024]);
}

#[test]
fn a_sweep_takes_what_nobody_writes() {
    let f = fixture(Some(3), None);
    let alive = f.spool.arrival(0).unwrap();
    std::fs::write(f.spool.path().join("1.dead.part"), "x").unwrap();
    std::fs::write(f.spool.path().join(".upload.json.1.tmp"), "x").unwrap();
    f.spool.sweep(Duration::from_secs(60)).unwrap();
    assert_eq!(f.parts(), 2, "too young to go");
    std::thread::sleep(Duration::from_millis(5));
    f.spool.sweep(Duration::ZERO).unwrap();
    assert_eq!(f.parts(), 1);
    assert!(!f.spool.path().join(".upload.json.1.tmp").exists());
    drop(alive);
}

#[test]
fn an_upload_that_cannot_be_read_says_so() {
    let f = fixture(Some(3), None);
    std::fs::write(f.spool.path().join("upload.json"), "").unwrap();
    assert_eq!(f.spool.upload().unwrap_err().kind(), std::io::ErrorKind::InvalidData);
    f.spool.remove_unreadable().unwrap();
    assert!(f.spool.upload().unwrap().is_none());
}

#[test]
fn disk_space_for_what_is_there_already_makes_no_merged_file() {
    let f = fixture(Some(3), Some(1024));
    std::fs::remove_file(f.spool.merged_path()).unwrap();
    let locked = f.spool.lock().unwrap().unwrap();
    let (space, plan) = (DiskSpace::new(&f.data, 0), locked.upload().plan.clone());
    locked.reserve(&space, &Plan::new(None, Some(1024), Some(3000)).unwrap()).unwrap();
    drop(locked.arrival(0, 1024, &plan, &space).unwrap());
    assert!(!f.spool.merged_path().exists(), "a file that stands in files/ would seem to be here again");
}

#[test]
fn a_slice_is_refused_before_any_of_it_is_stored_where_too_little_would_stay_free() {
    let f = fixture(Some(3), Some(1024));
    let locked = f.spool.lock().unwrap().unwrap();
    let refused = locked.arrival(0, 1024, &locked.upload().plan, &DiskSpace::new(&f.data, 1 << 60));
    let Err(refused) = refused else { panic!("nobody has that much") };
    let message = refused.to_string();
    assert!(message.contains("1.00 EiB stay free"), "{message}");
    assert_eq!(f.parts(), 0);
}

#[test]
fn of_slices_from_another_boot_only_those_that_survived_are_synced() {
    let f = fixture(Some(3), Some(1024));
    let (one, two) = ([1; 1024], [2; 1024]);
    for (slice_id, content) in [(0, one), (1, two), (2, two)] {
        let offset = slice_id * 1024;
        f.commit(slice_id, &content, &[digest(DigestKind::ChainingValue, offset, &content)]).unwrap();
        assert!(f.spool.sync_slice(slice_id).unwrap(), "of this boot nothing is lost");
        let locked = f.spool.lock().unwrap().unwrap();
        let record = locked.records().get(slice_id).unwrap().unwrap();
        locked.records().put(slice_id, &Record { boot: BootId([9; 8]), ..record }).unwrap();
    }
    // Slice 1 is damaged. Slice 2 had been merged.
    std::fs::write(f.spool.slice_path(1), one).unwrap();
    std::fs::write(f.spool.merged_path(), [one, two, two].concat()).unwrap();
    std::fs::remove_file(f.spool.slice_path(2)).unwrap();
    assert_eq!([0, 1, 2].map(|slice_id| f.spool.sync_slice(slice_id).unwrap()), [true, false, true]);
    assert!(f.spool.slice_path(0).exists() && !f.spool.slice_path(1).exists());
    std::fs::write(f.spool.merged_path(), [one, two, one].concat()).unwrap();
    assert!(!f.spool.sync_slice(2).unwrap());
    std::fs::remove_dir_all(f.spool.path()).unwrap();
    assert!(f.spool.sync_slice(0).unwrap(), "it was published meanwhile");
}

/// Its content went before it was to be synced, and the kernel may have forgotten why.
#[test]
fn a_slice_that_nobody_has_open_is_compared_once_it_is_synced() {
    let f = fixture(Some(3), Some(1024));
    let digests = [digest(DigestKind::ChainingValue, 1024, &[2; 1024])];
    f.commit(1, &[2; 1024], &digests).unwrap();
    std::fs::write(f.spool.slice_path(1), [0; 1024]).unwrap();
    assert!(!f.spool.sync_slice(1).unwrap());
    assert_eq!(f.held(), Vec::<u64>::new());
    f.commit(1, &[2; 1024], &digests).unwrap();
    assert!(f.spool.sync_slice(1).unwrap());
    assert_eq!(f.held(), [1]);
}

/// Makes the spool, and what is in it, look untouched for an hour.
fn age(f: &Fixture) {
    let long_ago = std::time::SystemTime::now() - Duration::from_secs(3600);
    for path in std::fs::read_dir(f.spool.path()).unwrap().map(|entry| entry.unwrap().path()) {
        if path.symlink_metadata().unwrap().is_file() {
            std::fs::File::open(path).unwrap().set_modified(long_ago).unwrap();
        }
    }
    std::fs::File::open(f.spool.path()).unwrap().set_modified(long_ago).unwrap();
}

#[test]
fn a_slice_that_cannot_take_the_place_of_another_leaves_that_one() {
    let f = fixture(Some(3), None);
    let [old, new] = [[1; 10], [2; 10]];
    let [old_digest, new_digest] = [old, new].map(|content| digest(DigestKind::Hash, 0, &content));
    f.commit(0, &old, &[old_digest]).unwrap();
    let mut locked = f.spool.lock().unwrap().unwrap();
    let taken_over = UploadRecord { content: HeldContent::ToCompare, ..locked.upload().clone() };
    locked.save(taken_over).unwrap();
    let mut arrival = f.spool.arrival(0).unwrap();
    arrival.file().write_all(&new).unwrap();
    // The disk fails to give it its name.
    std::fs::remove_file(arrival.path()).unwrap();
    assert!(matches!(locked.commit(&mut arrival, 10, None, &[new_digest]), Err(SliceError::Io(_))));
    assert_eq!(locked.records().get(0).unwrap().map(|record| record.digest), Some(old_digest));
    // The same where nothing is recorded of what is held.
    locked.records().forget(0).unwrap();
    let mut arrival = f.spool.arrival(0).unwrap();
    std::fs::remove_file(arrival.path()).unwrap();
    assert!(matches!(locked.commit(&mut arrival, 10, None, &[new_digest]), Err(SliceError::Io(_))));
    assert_eq!(locked.records().get(0).unwrap(), None);
    drop(locked);
    assert_eq!((f.held(), f.parts()), (vec![0], 0));
    assert_eq!(std::fs::read(f.spool.slice_path(0)).unwrap(), old);
    f.commit(0, &new, &[new_digest]).unwrap();
    assert_eq!((std::fs::read(f.spool.slice_path(0)).unwrap(), f.parts()), (new.to_vec(), 0));
}

#[test]
fn what_is_taken_apart_keeps_its_disk_space() {
    let dir = tempfile::tempdir().unwrap();
    let data = DataDir::create(dir.path()).unwrap();
    let size = 1 << 20;
    let upload = upload(Plan::new(None, Some(size / 8), Some(size)).unwrap(), None);
    assert!(Spool::create(&data, &UploadId::of_name(&upload.file_name), &upload, &DiskSpace::new(&data, 0)).unwrap());
    let f = Fixture { spool: Spool::of(&data, &UploadId::of_name(&upload.file_name)), data, _dir: dir };
    let blocks = || std::fs::metadata(f.spool.merged_path()).unwrap().blocks() * 512;
    if blocks() < size {
        eprintln!("nothing can be reserved here");
        return;
    }
    let content = vec![7; size as usize / 8];
    for id in 0..4 {
        f.commit(id, &content, &[digest(DigestKind::ChainingValue, id * size / 8, &content)]).unwrap();
        std::fs::File::options().append(true).open(f.spool.merged_path()).unwrap().write_all(&content).unwrap();
        std::fs::remove_file(f.spool.slice_path(id)).unwrap();
    }
    let merged = std::fs::File::options().write(true).open(f.spool.merged_path()).unwrap();
    merged.write_all_at(&[8], size / 8).unwrap();
    let merger = f.spool.try_merger_lock().unwrap().unwrap();
    assert_eq!(f.spool.take_apart(&merger, &[1]).unwrap(), [1]);
    assert_eq!((merged.metadata().unwrap().len(), f.held()), (size / 8, vec![0, 2, 3]));
    assert!(blocks() >= size, "{} bytes are left of what was reserved", blocks());
}

#[test]
fn an_upload_goes_when_it_is_idle_and_nobody_works_on_it() {
    let day = Duration::from_secs(86400);
    let minute = Duration::from_secs(60);
    let f = fixture(Some(3), None);
    f.commit(1, &[7; 10], &[digest(DigestKind::Hash, 0, &[7; 10])]).unwrap();
    drop(f.spool.try_merger_lock().unwrap());
    assert_eq!(f.spool.remove_if_idle(minute, Idle::WhateverIsHeld, || panic!("it stays")).unwrap(), None, "too young");
    age(&f);
    assert_eq!(f.spool.remove_if_idle(day, Idle::WhateverIsHeld, || panic!("it stays")).unwrap(), None, "too young");
    let merger = f.spool.try_merger_lock().unwrap().unwrap();
    assert_eq!(
        f.spool.remove_if_idle(minute, Idle::WhateverIsHeld, || panic!("it stays")).unwrap(),
        None,
        "a merger is at work"
    );
    drop(merger);
    let arrival = f.spool.arrival(2).unwrap();
    age(&f);
    assert_eq!(
        f.spool.remove_if_idle(minute, Idle::WhateverIsHeld, || panic!("it stays")).unwrap(),
        None,
        "a slice arrives"
    );
    arrival.file().write_all(b"x").unwrap();
    std::mem::forget(arrival);
    assert!(f.spool.upload().unwrap().is_some());
}

#[test]
fn an_upload_of_which_nothing_came_may_go_sooner() {
    let minute = Duration::from_secs(60);
    let f = fixture(Some(3), None);
    drop(f.spool.try_merger_lock().unwrap());
    assert_eq!(f.spool.remove_if_idle(minute, Idle::NothingHeld, || panic!("it stays")).unwrap(), None, "too young");
    f.commit(1, &[7; 10], &[digest(DigestKind::Hash, 0, &[7; 10])]).unwrap();
    age(&f);
    assert_eq!(
        f.spool.remove_if_idle(minute, Idle::NothingHeld, || panic!("it stays")).unwrap(),
        None,
        "a slice waits"
    );
    std::fs::rename(f.spool.slice_path(1), f.spool.merged_path()).unwrap();
    age(&f);
    assert_eq!(
        f.spool.remove_if_idle(minute, Idle::NothingHeld, || panic!("it stays")).unwrap(),
        None,
        "something is merged"
    );
    std::fs::remove_file(f.spool.merged_path()).unwrap();
    let digests = f.spool.open_digests().unwrap();
    let publication = Publication { inode: 1, digest: digest(DigestKind::Hash, 0, &[7; 10]).digest };
    Records(&digests).set_publication(Some(publication)).unwrap();
    age(&f);
    assert_eq!(
        f.spool.remove_if_idle(minute, Idle::NothingHeld, || panic!("it stays")).unwrap(),
        None,
        "its file is finished"
    );
    Records(&digests).set_publication(None).unwrap();
    age(&f);
    assert!(f.spool.remove_if_idle(minute, Idle::NothingHeld, || {}).unwrap().is_some());
    assert_eq!(std::fs::read_dir(f.data.tmp()).unwrap().count(), 0);
}

#[test]
fn what_a_dead_process_left_keeps_no_upload_alive() {
    let f = fixture(Some(3), None);
    f.commit(1, &[7; 10], &[digest(DigestKind::Hash, 0, &[7; 10])]).unwrap();
    std::fs::write(f.spool.path().join("2.dead.part"), [0; 100]).unwrap();
    age(&f);
    let mut told = 0;
    let tell = || {
        assert!(f.spool.upload().unwrap().is_some(), "a kill here leaves the upload");
        told += 1;
    };
    let gone =
        f.spool.remove_if_idle(Duration::from_secs(60), Idle::WhateverIsHeld, tell).unwrap().expect("it is idle");
    assert_eq!(told, 1);
    assert!(gone.idle >= Duration::from_secs(3599) && gone.bytes > 110, "{gone:?}");
    assert_eq!(std::fs::read_dir(f.data.tmp()).unwrap().count(), 0);
}

#[test]
fn looking_at_an_upload_is_no_sign_of_life() {
    let f = fixture(Some(3), None);
    drop(f.spool.try_merger_lock().unwrap());
    age(&f);
    let upload = f.spool.upload().unwrap().unwrap();
    f.spool.holdings(&upload).unwrap();
    f.spool.merger().unwrap();
    drop(f.spool.lock().unwrap());
    drop(f.spool.try_merger_lock().unwrap());
    f.spool.sweep(Duration::from_secs(1)).unwrap();
    bigup_core::storage::info_ini::InfoIni::new(&f.data)
        .refresh_all(&[(f.spool.id().clone(), upload.file_name)])
        .unwrap();
    assert!(f.spool.idle().unwrap() >= Duration::from_secs(3599));
}

#[test]
fn hostile_things_in_a_spool_are_removed_themselves_and_not_followed() {
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("canary"), "c").unwrap();
    for hostile in ["digests", "merger.lock", "upload.json", "merged", "0", "0.x.part", "y"] {
        for kind in 0..3 {
            let f = fixture(Some(3), None);
            let path = f.spool.path().join(hostile);
            let _ = std::fs::remove_file(&path);
            match kind {
                0 => std::os::unix::fs::symlink(outside.path().join("canary"), &path).unwrap(),
                1 => std::os::unix::fs::symlink(outside.path(), &path).unwrap(),
                _ => nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap(),
            }
            // Symlinks and pipes are as young as they are; they count by their names.
            std::thread::sleep(Duration::from_millis(5));
            age(&f);
            let age = if hostile.ends_with(".part") { Duration::from_millis(1) } else { Duration::from_secs(60) };
            assert!(f.spool.remove_if_idle(age, Idle::WhateverIsHeld, || {}).unwrap().is_some(), "{hostile} {kind}");
            assert_eq!(std::fs::read_dir(f.data.tmp()).unwrap().count(), 0);
        }
    }
    assert_eq!(std::fs::read(outside.path().join("canary")).unwrap(), b"c");
}

#[test]
fn a_sweep_goes_on_after_what_it_cannot_remove() {
    let f = fixture(Some(3), None);
    std::fs::create_dir(f.spool.path().join("0.a.part")).unwrap();
    nix::unistd::mkfifo(&f.spool.path().join("1.b.part"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    std::fs::write(f.spool.path().join("2.c.part"), "x").unwrap();
    std::thread::sleep(Duration::from_millis(5));
    f.spool.sweep(Duration::ZERO).unwrap();
    assert_eq!(f.parts(), 1, "only the folder is left");
}

#[test]
fn a_merged_file_is_taken_apart_down_to_the_damaged_slice_and_no_further() {
    let f = fixture(None, Some(1024));
    let content: Vec<u8> = (0..10 * 1024_u32).map(|i| (i / 7) as u8).collect();
    for (id, slice) in content.chunks(1024).enumerate() {
        f.commit(id as u64, slice, &[digest(DigestKind::ChainingValue, id as u64 * 1024, slice)]).unwrap();
        if id < 8 {
            std::fs::remove_file(f.spool.slice_path(id as u64)).unwrap();
        }
    }
    let mut merged = content[..8 * 1024].to_vec();
    merged[5 * 1024] ^= 1;
    // A slice sent anew, which waits to be written again over what is damaged.
    merged[6 * 1024] ^= 1;
    std::fs::write(f.spool.slice_path(6), &content[6 * 1024..7 * 1024]).unwrap();
    // Part of a slice, left by a merger that was killed.
    merged.extend([9; 100]);
    std::fs::write(f.spool.merged_path(), &merged).unwrap();
    let merger = f.spool.try_merger_lock().unwrap().unwrap();
    assert_eq!(f.spool.take_apart(&merger, &[1, 6]).unwrap(), [0; 0], "nothing of it is damaged");
    assert_eq!(f.held().len(), 10);
    assert_eq!(f.spool.take_apart(&merger, &[1, 5]).unwrap(), [5]);
    assert_eq!(f.held(), [0, 1, 2, 3, 4, 6, 7, 8, 9]);
    assert!(std::fs::read(f.spool.merged_path()).unwrap() == content[..5 * 1024]);
    for id in [6, 7] {
        assert!(std::fs::read(f.spool.slice_path(id)).unwrap() == content[id as usize * 1024..][..1024], "{id}");
    }
    assert_eq!(f.parts(), 0);
}
