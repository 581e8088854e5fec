//! `digests`: a fixed-size record for every slice that ever arrived, and a head. Written in place; its inode stays the
//! same for the life of the spool, which makes it the file to lock.
//!
//! ```text
//! head, 128 bytes      0  magic            "BIGUPDG1"
//!                      8  merge boot       boot id under which the merged file was last written
//!                     16  inode            of the merged file, just before it was renamed into files/
//!                     24  file digest      its digest
//!                     56  check            of bytes 16 to 55; anything else: not being published
//!                     64  synced frontier  slices below it have reached the disk in the merged file
//!                    120  check            of bytes 64 to 119; anything else: none is known to have
//! record i at 64·(i+2)  0  digest
//!                     32  length           bytes, little-endian
//!                     40  boot             boot id under which the slice was written
//!                     48  kind             1 chaining value, 2 hash
//!                     56  check            of bytes 0 to 55 and i; anything else: no record
//! ```
//! A record may be there without its slice (a kill between the two, a slice found damaged later): that a slice is held
//! is never read from here. A check that does not match means "nothing recorded", so a torn write loses one record.

use crate::protocol::digest::{Digest, DigestKind, SliceDigest};
use crate::protocol::plan::MAX_SLICES;
use crate::storage::disk::BootId;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

const MAGIC: &[u8; 8] = b"BIGUPDG1";

/// Bytes of a record, and of each half of the head.
const RECORD_LEN: usize = 64;

/// Records' lengths before the first record.
const HEAD_BLOCKS: u64 = 2;

/// Number of records that are read at once, when all are read.
const BATCH: usize = 1024;

/// The record of a slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// Digest of its content.
    pub digest: SliceDigest,
    /// Its length, in bytes.
    pub len: u64,
    /// Boot id of the kernel under which it was written. Under another one its content must be checked before it is
    /// used.
    pub boot: BootId,
}

/// The part of the head about a file that is being published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Publication {
    /// Inode of the merged file.
    pub inode: u64,
    /// Its digest.
    pub digest: Digest,
}

/// The file `digests` of one spool.
pub struct Records<'a>(pub &'a File);

impl Records<'_> {
    /// Writes the head of a new file.
    ///
    /// # Errors
    /// As the system gives them.
    pub fn initialise(&self) -> io::Result<()> {
        let mut head = [0; RECORD_LEN];
        head[..8].copy_from_slice(MAGIC);
        self.0.write_all_at(&head, 0)
    }

    /// Boot id of the kernel under which the merged file was last written. `None` if it was not written yet.
    ///
    /// # Errors
    /// As the system gives them.
    pub fn merge_boot(&self) -> io::Result<Option<BootId>> {
        let head = self.read_block(0)?;
        let boot = BootId(*head[8..].first_chunk().expect("64 bytes were read"));
        Ok((head[..8] == *MAGIC && boot != BootId::NONE).then_some(boot))
    }

    /// Notes that the merged file is written under `boot` from now on.
    ///
    /// # Errors
    /// As the system gives them.
    pub fn set_merge_boot(&self, boot: BootId) -> io::Result<()> {
        self.0.write_all_at(MAGIC, 0)?;
        self.0.write_all_at(&boot.0, 8)
    }

    /// The publication under way, if any.
    ///
    /// # Errors
    /// As the system gives them.
    pub fn publication(&self) -> io::Result<Option<Publication>> {
        let head = self.read_block(0)?;
        let valid = head[56..] == check(&head[16..56], u64::MAX);
        Ok(valid.then(|| Publication { inode: u64_at(&head, 16), digest: digest_at(&head, 24) }))
    }

    /// Notes that the merged file is about to be renamed into `files/`. `None` takes that back.
    ///
    /// # Errors
    /// As the system gives them.
    pub fn set_publication(&self, publication: Option<Publication>) -> io::Result<()> {
        let mut tail = [0; RECORD_LEN - 16];
        if let Some(publication) = publication {
            tail[..8].copy_from_slice(&publication.inode.to_le_bytes());
            tail[8..40].copy_from_slice(&publication.digest.0);
            let sum = check(&tail[..40], u64::MAX);
            tail[40..].copy_from_slice(&sum);
        }
        self.0.write_all_at(&tail, 16)
    }

    /// The frontier up to which the merged file is known to have reached the disk; it may lag.
    ///
    /// # Errors
    /// As the system gives them.
    pub fn synced(&self) -> io::Result<u64> {
        let block = self.read_block(1)?;
        Ok(if block[56..] == check(&block[..56], u64::MAX - 1) { u64_at(&block, 0) } else { 0 })
    }

    /// Notes that the merged file is on disk up to `frontier`, after a sync of it; or that it was cut to that, before
    /// anything else is appended.
    ///
    /// # Errors
    /// As the system gives them.
    pub fn set_synced(&self, frontier: u64) -> io::Result<()> {
        let mut block = [0; RECORD_LEN];
        block[..8].copy_from_slice(&frontier.to_le_bytes());
        let sum = check(&block[..56], u64::MAX - 1);
        block[56..].copy_from_slice(&sum);
        self.0.write_all_at(&block, RECORD_LEN as u64)
    }

    /// The record of slice `slice_id`. `None` if nothing is recorded, or if there can be no such slice
    /// ([`MAX_SLICES`]).
    ///
    /// # Errors
    /// As the system gives them.
    pub fn get(&self, slice_id: u64) -> io::Result<Option<Record>> {
        if slice_id >= MAX_SLICES {
            return Ok(None);
        }
        Ok(decode(&self.read_block(slice_id + HEAD_BLOCKS)?, slice_id))
    }

    /// Records slice `slice_id`.
    ///
    /// # Errors
    /// As the system gives them.
    pub fn put(&self, slice_id: u64, record: &Record) -> io::Result<()> {
        let mut block = [0; RECORD_LEN];
        block[..32].copy_from_slice(&record.digest.digest.0);
        block[32..40].copy_from_slice(&record.len.to_le_bytes());
        block[40..48].copy_from_slice(&record.boot.0);
        block[48] = match record.digest.kind {
            DigestKind::ChainingValue => 1,
            DigestKind::Hash => 2,
        };
        let sum = check(&block[..56], slice_id);
        block[56..].copy_from_slice(&sum);
        self.0.write_all_at(&block, (slice_id + HEAD_BLOCKS) * RECORD_LEN as u64)
    }

    /// Records nothing of slice `slice_id` any more.
    ///
    /// # Errors
    /// As the system gives them.
    pub fn forget(&self, slice_id: u64) -> io::Result<()> {
        self.0.write_all_at(&[0; RECORD_LEN], (slice_id + HEAD_BLOCKS) * RECORD_LEN as u64)
    }

    /// Calls `each` with every slice from `first` to `last` (inclusive) and its record. Slices that cannot exist
    /// ([`MAX_SLICES`]) are passed over.
    ///
    /// # Errors
    /// As the system or `each` gives them.
    pub fn scan(
        &self,
        first: u64,
        last: u64,
        mut each: impl FnMut(u64, Option<Record>) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut buffer = vec![0; RECORD_LEN * BATCH];
        let (mut slice_id, last) = (first, last.min(MAX_SLICES - 1));
        while slice_id <= last {
            let count = BATCH.min(usize::try_from(last - slice_id + 1).unwrap_or(BATCH));
            let bytes = &mut buffer[..count * RECORD_LEN];
            self.read_or_zero(bytes, (slice_id + HEAD_BLOCKS) * RECORD_LEN as u64)?;
            for block in bytes.chunks_exact(RECORD_LEN) {
                each(slice_id, decode(block.try_into().expect("chunks are exact"), slice_id))?;
                slice_id += 1;
            }
        }
        Ok(())
    }

    fn read_block(&self, index: u64) -> io::Result<[u8; RECORD_LEN]> {
        let mut block = [0; RECORD_LEN];
        self.read_or_zero(&mut block, index * RECORD_LEN as u64)?;
        Ok(block)
    }

    /// Reads `bytes` at `offset`; bytes past the end read as zero.
    fn read_or_zero(&self, mut bytes: &mut [u8], mut offset: u64) -> io::Result<()> {
        while !bytes.is_empty() {
            let got = self.0.read_at(bytes, offset)?;
            if got == 0 {
                bytes.fill(0);
                return Ok(());
            }
            bytes = &mut bytes[got..];
            offset += got as u64;
        }
        Ok(())
    }
}

fn decode(block: &[u8; RECORD_LEN], slice_id: u64) -> Option<Record> {
    if block[56..] != check(&block[..56], slice_id) {
        return None;
    }
    let kind = match block[48] {
        1 => DigestKind::ChainingValue,
        2 => DigestKind::Hash,
        _ => return None,
    };
    Some(Record {
        digest: SliceDigest { kind, digest: digest_at(block, 0) },
        len: u64_at(block, 32),
        boot: BootId(*block[40..].first_chunk().expect("a block has 64 bytes")),
    })
}

fn digest_at(block: &[u8; RECORD_LEN], at: usize) -> Digest {
    Digest(*block[at..].first_chunk().expect("offsets are within the block"))
}

fn u64_at(block: &[u8; RECORD_LEN], at: usize) -> u64 {
    u64::from_le_bytes(*block[at..].first_chunk().expect("offsets are within the block"))
}

/// 8 bytes of BLAKE3 over `bytes` and the place they belong to.
fn check(bytes: &[u8], place: u64) -> [u8; 8] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(bytes).update(&place.to_le_bytes());
    *hasher.finalize().as_bytes().first_chunk().expect("a hash has 32 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(n: u8) -> Record {
        let digest = SliceDigest { kind: DigestKind::ChainingValue, digest: Digest([n; 32]) };
        Record { digest, len: u64::from(n) + 1, boot: BootId([n; 8]) }
    }

    #[test]
    fn records_are_independent_of_each_other() {
        let file = tempfile::tempfile().unwrap();
        let records = Records(&file);
        records.initialise().unwrap();
        assert_eq!(records.get(0).unwrap(), None);
        records.put(5, &record(5)).unwrap();
        records.put(0, &record(0)).unwrap();
        assert_eq!(records.get(5).unwrap(), Some(record(5)));
        assert_eq!(records.get(0).unwrap(), Some(record(0)));
        assert_eq!(records.get(3).unwrap(), None);
        assert_eq!(records.get(900_000).unwrap(), None);
        let mut seen = vec![];
        records
            .scan(0, 3000, |id, found| {
                seen.extend(found.map(|r| (id, r)));
                Ok(())
            })
            .unwrap();
        assert_eq!(seen, [(0, record(0)), (5, record(5))]);
    }

    #[test]
    fn a_torn_or_misplaced_record_is_none() {
        let file = tempfile::tempfile().unwrap();
        let records = Records(&file);
        records.put(1, &record(1)).unwrap();
        let mut block = [0; 64];
        file.read_exact_at(&mut block, 192).unwrap();
        file.write_all_at(&block, 256).unwrap();
        assert_eq!(records.get(2).unwrap(), None);
        for at in [0, 31, 32, 40, 48, 56, 63] {
            block[at] ^= 1;
            file.write_all_at(&block, 192).unwrap();
            assert_eq!(records.get(1).unwrap(), None, "byte {at}");
            block[at] ^= 1;
        }
    }

    #[test]
    fn slices_that_there_can_not_be_have_no_record() {
        let file = tempfile::tempfile().unwrap();
        let records = Records(&file);
        records.initialise().unwrap();
        for far in [MAX_SLICES, u64::MAX / 64, u64::MAX - 1, u64::MAX] {
            assert_eq!(records.get(far).unwrap(), None);
            records.scan(far, far, |id, _| panic!("{id}")).unwrap();
        }
        let mut last = 0;
        let each = |id, _| {
            last = id;
            Ok(())
        };
        records.scan(MAX_SLICES - 3, u64::MAX, each).unwrap();
        assert_eq!(last, MAX_SLICES - 1);
    }

    #[test]
    fn the_head_keeps_boot_and_publication_apart() {
        let file = tempfile::tempfile().unwrap();
        let records = Records(&file);
        records.initialise().unwrap();
        assert_eq!((records.merge_boot().unwrap(), records.publication().unwrap()), (None, None));
        let publication = Publication { inode: 77, digest: Digest([9; 32]) };
        records.set_publication(Some(publication)).unwrap();
        records.set_merge_boot(BootId([3; 8])).unwrap();
        assert_eq!(records.merge_boot().unwrap(), Some(BootId([3; 8])));
        assert_eq!(records.publication().unwrap(), Some(publication));
        assert_eq!(records.synced().unwrap(), 0);
        records.set_synced(5).unwrap();
        records.set_publication(None).unwrap();
        assert_eq!(records.synced().unwrap(), 5);
        assert_eq!(records.publication().unwrap(), None);
        assert_eq!(records.merge_boot().unwrap(), Some(BootId([3; 8])));
    }
}
