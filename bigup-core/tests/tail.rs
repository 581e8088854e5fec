//! Uploads whose bytes come in order: the tail, at its own interface.

use bigup_core::protocol::digest::{DigestKind, SliceHasher};
use bigup_core::protocol::name::FileName;
use bigup_core::protocol::plan::Plan;
use bigup_core::storage::data_dir::DataDir;
use bigup_core::storage::disk::Durability;
use bigup_core::storage::space::{DiskSpace, SpaceError};
use bigup_core::storage::spool::{LockedSpool, Place, Spool, Tail, UploadId, UploadRecord};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::FileExt;

/// Bytes of a slice: a whole subtree.
const SLICE: u64 = 1024;

struct Fixture {
    _dir: tempfile::TempDir,
    data: DataDir,
    spool: Spool,
}

fn fixture(file_size: Option<u64>) -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let data = DataDir::create(dir.path()).unwrap();
    let plan = Plan::new(None, Some(SLICE), file_size).unwrap();
    let upload = UploadRecord::begin(FileName::new("f").unwrap(), plan, Some("s".to_owned()));
    let id = UploadId::of_name(&upload.file_name);
    assert!(Spool::create(&data, &id, &upload, &DiskSpace::new(&data, 0)).unwrap());
    Fixture { spool: Spool::of(&data, &id), data, _dir: dir }
}

impl Fixture {
    fn lock(&self) -> LockedSpool {
        self.spool.lock().unwrap().unwrap()
    }

    fn offset(&self) -> u64 {
        self.lock().held_run().unwrap().offset
    }

    fn open(&self) -> Result<Option<Tail>, SpaceError> {
        let locked = self.lock();
        let run = locked.held_run().unwrap();
        locked.open_tail(run, &[DigestKind::ChainingValue], &DiskSpace::new(&self.data, 0))
    }

    /// Appends `content`, all of one slice, and keeps it as the tail, or as the slice if that is whole.
    fn append(&self, content: &[u8]) {
        let Tail { mut arrival, mut hashers, len } = self.open().unwrap().unwrap();
        arrival.file().write_all(content).unwrap();
        hashers[0].update(content);
        let (mut locked, len) = (self.lock(), len + content.len() as u64);
        let run = locked.held_run().unwrap();
        if locked.upload().plan.len_of(run.slice_id) == Some(len) {
            assert_eq!(locked.commit(&mut arrival, len, Some("s"), &[hashers[0].finish()]).unwrap(), Place::Wanted);
        } else {
            locked.keep_tail(&mut arrival, len, hashers[0].finish(), Durability::Process).unwrap();
        }
    }

    fn tail(&self) -> std::path::PathBuf {
        self.spool.path().join("tail")
    }
}

#[test]
fn bytes_come_in_order_however_they_are_cut() {
    let f = fixture(Some(2500));
    let content: Vec<u8> = (0..2500u32).map(|i| (i * 7) as u8).collect();
    for (from, to) in [(0, 1), (1, 1000), (1000, 1024), (1024, 2048), (2048, 2499), (2499, 2500)] {
        assert_eq!(f.offset(), from as u64);
        f.append(&content[from..to]);
    }
    assert_eq!(f.offset(), 2500);
    let held: Vec<u8> = (0..3).flat_map(|id| std::fs::read(f.spool.slice_path(id)).unwrap()).collect();
    assert!(held == content);
    for slice_id in 0..3 {
        let offset = slice_id * SLICE;
        let mut hasher = SliceHasher::new(DigestKind::ChainingValue, offset);
        hasher.update(&content[offset as usize..content.len().min((offset + SLICE) as usize)]);
        assert_eq!(f.lock().records().get(slice_id).unwrap().unwrap().digest, hasher.finish(), "{slice_id}");
    }
}

#[test]
fn bytes_that_were_written_and_not_kept_do_not_count() {
    let f = fixture(Some(2500));
    f.append(&[1; 100]);
    let tail = f.open().unwrap().unwrap();
    tail.arrival.file().write_all(&[2; 50]).unwrap();
    drop(tail);
    assert_eq!(f.offset(), 100);
    f.append(&[3; 924]);
    let slice = std::fs::read(f.spool.slice_path(0)).unwrap();
    assert!(slice[..100] == [1; 100] && slice[100..] == [3; 924]);
}

#[test]
fn one_request_at_a_time_has_the_tail() {
    let f = fixture(Some(2500));
    let tail = f.open().unwrap().unwrap();
    assert!(f.open().unwrap().is_none());
    assert!(f.spool.is_tail_locked().unwrap());
    drop(tail);
    assert!(!f.spool.is_tail_locked().unwrap());
    assert!(f.open().unwrap().is_some());
}

#[test]
fn a_damaged_tail_counts_for_nothing() {
    let f = fixture(Some(2500));
    f.append(&[1; 1024]);
    f.append(&[1; 100]);
    let file = std::fs::File::options().write(true).open(f.tail()).unwrap();
    file.write_all_at(&[2], 50).unwrap();
    let Err(SpaceError::Io(e)) = f.open() else { panic!("a damaged tail was opened") };
    assert_eq!(e.kind(), ErrorKind::InvalidData);
    assert_eq!(f.offset(), 1024);
    f.append(&[3; 1024]);
    assert_eq!(f.offset(), 2048);
}

#[test]
fn a_tail_of_another_boot_is_compared_before_it_is_told() {
    for (damage, offset) in [(None, 100), (Some(&[2][..]), 0)] {
        let f = fixture(Some(2500));
        f.append(&[1; 100]);
        let path = f.spool.path().join("tail.json");
        let mut json: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        json["boot"] = serde_json::json!([1, 2, 3, 4, 5, 6, 7, 8]);
        std::fs::write(&path, json.to_string()).unwrap();
        let file = std::fs::File::options().write(true).open(f.tail()).unwrap();
        damage.iter().for_each(|bytes| file.write_all_at(bytes, 99).unwrap());
        assert_eq!(f.offset(), offset);
        // Or less of it reached the disk than its record.
        file.set_len(99).unwrap();
        assert_eq!(f.offset(), 0);
        std::fs::remove_file(f.tail()).unwrap();
        assert_eq!(f.offset(), 0);
    }
}

#[test]
fn a_record_that_is_torn_or_of_another_source_or_slice_counts_for_nothing() {
    let f = fixture(Some(2500));
    f.append(&[1; 100]);
    let path = f.spool.path().join("tail.json");
    let text = std::fs::read_to_string(&path).unwrap();
    for other in [
        String::new(),
        text.replace("\"slice_id\":0", "\"slice_id\":1"),
        text.replace("\"source\":\"s\"", "\"source\":\"t\""),
        text.replace("\"len\":100", "\"len\":1025"),
        text[..40].to_owned(),
    ] {
        assert_ne!(other, text);
        std::fs::write(&path, other).unwrap();
        assert_eq!(f.offset(), 0);
    }
    std::fs::write(&path, text).unwrap();
    assert_eq!(f.offset(), 100);
}

#[test]
fn an_upload_that_holds_only_a_tail_is_none_of_which_nothing_came() {
    use bigup_core::storage::spool::Idle;
    let f = fixture(Some(2500));
    f.append(&[1; 100]);
    let nothing = std::time::Duration::ZERO;
    assert!(f.spool.remove_if_idle(nothing, Idle::NothingHeld, || {}).unwrap().is_none());
    let tail = f.open().unwrap().unwrap();
    assert!(f.spool.remove_if_idle(nothing, Idle::WhateverIsHeld, || {}).unwrap().is_none(), "a request appends");
    drop(tail);
    assert!(f.spool.remove_if_idle(nothing, Idle::WhateverIsHeld, || {}).unwrap().is_some());
}
