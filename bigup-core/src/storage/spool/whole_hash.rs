//! `hash`: the progress of the hash of a whole file whose slices' digests do not join. So a merger reads nothing again
//! that an earlier one has hashed.
//!
//! ```text
//!  0  magic      "BIGUPWH1"
//!  8  slices     number of slices that were hashed, from the first on
//! 16  of         the hash of the records of these slices
//! 48  state      of the running hash
//!     check      8 bytes of BLAKE3 of all before; anything else: nothing is known
//! ```
//! The merger replaces it by rename, without a sync. It says: "bytes in slices of these digests hash to this", and that
//! was compared slice by slice when they were hashed. That is true for ever, so nothing has to take it back: not a cut,
//! not a slice that is replaced, not a power cut that brings an old one back. It counts if the records name these very
//! digests.

use super::{Record, Records, Spool};
use crate::protocol::digest::{Digest, DigestKind, RunningHash};
use crate::storage::disk::{self, Durability, IoContext};
use std::io;

const HASH: &str = "hash";

const MAGIC: &[u8; 8] = b"BIGUPWH1";

/// Bytes before the state.
const HEAD_LEN: usize = 48;

/// Bytes of the check.
const CHECK_LEN: usize = 8;

/// Largest such file that is read, in bytes.
const MAX_LEN: u64 = 128 << 10;

/// The hash of a whole file, as its slices come by in order.
#[derive(Clone, Default)]
pub struct WholeHash {
    hash: RunningHash,
    slices: u64,
    /// Hash of the records of these slices.
    of: blake3::Hasher,
    /// True if a slice among them has no record, so that nothing can be said of them later.
    is_nameless: bool,
}

impl WholeHash {
    /// Number of slices that it took.
    pub fn slices(&self) -> u64 {
        self.slices
    }

    /// The hash of all bytes taken.
    pub fn finish(&self) -> Digest {
        self.hash.finish()
    }

    /// Takes the next bytes of the next slice.
    pub fn update(&mut self, bytes: &[u8]) {
        self.hash.update(bytes);
    }

    /// Ends a slice whose bytes were compared with this record. `None` if there is no record.
    pub fn end_slice(&mut self, record: Option<&Record>) {
        self.slices += 1;
        match record {
            Some(record) => self.name(record),
            None => self.is_nameless = true,
        }
    }

    fn name(&mut self, record: &Record) {
        let kind = match record.digest.kind {
            DigestKind::ChainingValue => 1,
            DigestKind::Hash => 2,
        };
        self.of.update(&[kind]).update(&record.len.to_le_bytes()).update(&record.digest.digest.0);
    }

    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&self.slices.to_le_bytes());
        bytes.extend_from_slice(self.of.finalize().as_bytes());
        bytes.extend_from_slice(&self.hash.to_bytes());
        bytes.extend_from_slice(&check(&bytes));
        bytes
    }

    /// `None` if `bytes` say nothing of these records, of which the first `limit` slices count.
    fn from_bytes(bytes: &[u8], records: &Records<'_>, limit: u64) -> io::Result<Option<WholeHash>> {
        let Some((said, sum)) = bytes.split_last_chunk::<CHECK_LEN>() else { return Ok(None) };
        if said.len() < HEAD_LEN || said[..8] != *MAGIC || *sum != check(said) {
            return Ok(None);
        }
        let slices = u64::from_le_bytes(*said[8..].first_chunk().expect("the head is longer"));
        let Some(hash) = RunningHash::from_bytes(&said[HEAD_LEN..]).filter(|_| (1..=limit).contains(&slices)) else {
            return Ok(None);
        };
        let (mut whole, mut len) = (WholeHash { hash, slices, ..WholeHash::default() }, 0_u64);
        records.scan(0, slices - 1, |_, record| {
            match record {
                Some(record) => {
                    len = len.saturating_add(record.len);
                    whole.name(&record);
                }
                None => whole.is_nameless = true,
            }
            Ok(())
        })?;
        let is_theirs = whole.of.finalize().as_bytes()[..] == said[16..HEAD_LEN];
        Ok((is_theirs && !whole.is_nameless && len == whole.hash.len()).then_some(whole))
    }
}

fn check(bytes: &[u8]) -> [u8; CHECK_LEN] {
    *blake3::hash(bytes).as_bytes().first_chunk().expect("a hash has 32 bytes")
}

impl Spool {
    /// Keeps the progress of the hash of the whole file.
    ///
    /// # Errors
    /// As the system gives them; the progress kept before may stand.
    pub fn keep_hash(&self, whole: &WholeHash) -> io::Result<()> {
        if whole.is_nameless || whole.slices == 0 {
            return Ok(());
        }
        disk::replace_file(&self.path, HASH, &whole.to_bytes(), Durability::Process)
    }

    /// The hash of the whole file as far as an earlier merger has come, if these records still name what it hashed of
    /// the first `limit` slices. If there is nothing to go on from, the hash begins anew.
    ///
    /// # Errors
    /// The records cannot be read.
    pub fn kept_hash(&self, records: &Records<'_>, limit: u64) -> io::Result<WholeHash> {
        let path = self.path.join(HASH);
        let bytes = match disk::read_small(&path, MAX_LEN) {
            Ok(bytes) => bytes,
            Err(e) => {
                if e.kind() != io::ErrorKind::NotFound {
                    log::warn!("hashing from the beginning: {e}");
                }
                return Ok(WholeHash::default());
            }
        };
        let kept = WholeHash::from_bytes(&bytes, records, limit).at("reading the digests beside", &path)?;
        Ok(kept.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::digest::{SliceDigest, of_bytes};
    use crate::storage::disk::BootId;

    fn record(bytes: &[u8]) -> Record {
        let digest = SliceDigest { kind: DigestKind::Hash, digest: of_bytes(bytes) };
        Record { digest, len: bytes.len() as u64, boot: BootId::current() }
    }

    #[test]
    fn what_is_kept_counts_for_just_the_records_that_it_is_of() {
        let file = tempfile::tempfile().unwrap();
        let records = Records(&file);
        records.initialise().unwrap();
        let slices = [b"one".as_slice(), b"two", b"three"];
        let mut whole = WholeHash::default();
        for (id, slice) in (0..).zip(slices) {
            records.put(id, &record(slice)).unwrap();
            whole.update(slice);
            whole.end_slice(Some(&record(slice)));
        }
        let kept = whole.to_bytes();
        let read = |bytes: &[u8], limit| WholeHash::from_bytes(bytes, &records, limit).unwrap();
        let mut back = read(&kept, 3).unwrap();
        assert_eq!((back.slices(), back.finish()), (3, of_bytes(b"onetwothree")));
        back.update(b"four");
        assert_eq!(back.finish(), of_bytes(b"onetwothreefour"));
        assert!(read(&kept, 2).is_none(), "more than there is");
        for at in 0..kept.len() {
            let mut torn = kept.clone();
            torn[at] ^= 1;
            assert!(read(&torn, 3).is_none(), "{at}");
            assert!(read(&kept[..at], 3).is_none(), "{at}");
        }
        // Under another kernel it is as true.
        records.put(1, &Record { boot: BootId([7; 8]), ..record(b"two") }).unwrap();
        assert!(read(&kept, 3).is_some());
        records.put(1, &record(b"TWO")).unwrap();
        assert!(read(&kept, 3).is_none());
    }
}
