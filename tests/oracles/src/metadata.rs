//! What a spool says of itself. The bytes are taken for an upload.json, and for a file of records.

use crate::plan::assert_sound;
use bigup_core::protocol::digest::{Digest, DigestKind, SliceDigest};
use bigup_core::storage::disk::BootId;
use bigup_core::storage::spool::{Publication, Record, Records, UploadRecord};
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;

/// How many records are looked at.
const MANY: u64 = 40;

/// Checks an upload.json and a file of records.
///
/// # Panics
/// Something is read that was not written, or something that was written is not read.
pub fn check(data: &[u8]) {
    match UploadRecord::from_json(data) {
        Ok(upload) => {
            assert_sound(&upload.plan);
            assert_eq!(UploadRecord::from_json(&upload.to_json()), Ok(upload));
        }
        Err(why) => assert!(!why.is_empty()),
    }
    let mut file = tempfile::tempfile().expect("a temporary file can be made");
    file.write_all(data).expect("it can be written");
    check_records(&file, data);
    what_is_put_is_read(&file);
}

/// 64 bytes of `data`; what is past the end is zero.
fn block(data: &[u8], index: u64) -> [u8; 64] {
    let mut block = [0; 64];
    let start = data.len().min(usize::try_from(index * 64).unwrap_or(usize::MAX));
    let there = &data[start..data.len().min(start + 64)];
    block[..there.len()].copy_from_slice(there);
    block
}

/// The check of a block, by the description of the file.
fn is_checked(bytes: &[u8], check: &[u8], place: u64) -> bool {
    let sum = blake3::hash(&[bytes, &place.to_le_bytes()].concat());
    sum.as_bytes()[..8] == *check
}

fn check_records(file: &File, data: &[u8]) {
    let records = Records(file);
    let mut found = vec![];
    for slice_id in 0..MANY {
        let bytes = block(data, slice_id + 2);
        let record = records.get(slice_id).expect("it can be read");
        let is_one = is_checked(&bytes[..56], &bytes[56..], slice_id) && matches!(bytes[48], 1 | 2);
        assert_eq!(record.is_some(), is_one, "{slice_id}");
        if let Some(record) = record {
            assert_eq!(record.digest.digest.0[..], bytes[..32]);
            assert_eq!(record.len.to_le_bytes()[..], bytes[32..40]);
        }
        found.push(record);
    }
    let mut scanned = vec![];
    let each = |slice_id: u64, record| {
        scanned.push((slice_id, record));
        Ok(())
    };
    records.scan(0, MANY - 1, each).expect("it can be read");
    assert_eq!(scanned, (0..).zip(found).collect::<Vec<_>>());
    for far in [1 << 20, u64::MAX / 64, u64::MAX - 2, u64::MAX] {
        assert_eq!(records.get(far).expect("it can be read"), None);
        records.scan(far, far, |slice_id, _| panic!("{slice_id}")).expect("it can be read");
    }
    let (head, second) = (block(data, 0), block(data, 1));
    let publication = records.publication().expect("it can be read");
    assert_eq!(publication.is_some(), is_checked(&head[16..56], &head[56..], u64::MAX));
    let synced = records.synced().expect("it can be read");
    assert!(synced == 0 || is_checked(&second[..56], &second[56..], u64::MAX - 1));
    let boot = records.merge_boot().expect("it can be read");
    assert!(boot.is_none_or(|boot| head[..8] == *b"BIGUPDG1" && boot.0[..] == head[8..16]));
}

/// Whatever is in the file, what is written into it is read, and touches nothing else.
fn what_is_put_is_read(file: &File) {
    let records = Records(file);
    let before = records.get(6).expect("it can be read");
    let digest = SliceDigest { kind: DigestKind::Hash, digest: Digest([5; 32]) };
    let record = Record { digest, len: u64::MAX, boot: BootId([1; 8]) };
    let publication = Publication { inode: 9, digest: Digest([2; 32]) };
    records.put(5, &record).expect("it can be written");
    records.set_synced(3).expect("it can be written");
    records.set_publication(Some(publication)).expect("it can be written");
    records.set_merge_boot(BootId([4; 8])).expect("it can be written");
    assert_eq!(records.get(5).expect("it can be read"), Some(record));
    assert_eq!(records.get(6).expect("it can be read"), before);
    assert_eq!(records.synced().expect("it can be read"), 3);
    assert_eq!(records.publication().expect("it can be read"), Some(publication));
    assert_eq!(records.merge_boot().expect("it can be read"), Some(BootId([4; 8])));
    // One bit of a record less, and it is none.
    let mut byte = [0];
    file.read_exact_at(&mut byte, 64 * 7 + 11).expect("it can be read");
    file.write_all_at(&[byte[0] ^ 1], 64 * 7 + 11).expect("it can be written");
    assert_eq!(records.get(5).expect("it can be read"), None);
}
