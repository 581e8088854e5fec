//! `parts`: a fixed-size record for every part that a store of objects has answered. Written in place.
//!
//! ```text
//! record of part n at 72·(n−1)   0  slices   the hash of the records of its slices
//!                               32  answer   the hash of the store's answer: its size and its tag
//!                               64  check    of bytes 0 to 63, n, the part size and the id of the multipart upload;
//!                                            anything else: no record
//! ```
//! A record says: "the store has taken a part of these slices, and answered so". That is true for ever, so nothing has to
//! take it back: not a cut, not a slice that is replaced, not a power cut that brings an old one back. It counts if the
//! slices have these very records, and if the store lists the part with this very answer. One of another multipart upload
//! is none.
//!
//! The space of a part is given back ([`Spool::give_back`]) after its record and the records of its slices are synced. So
//! a hole that is no content has a record. If its part is lost, the hole is compared with the records of its slices like
//! any content, and is cut off.

use super::{Holdings, LockedSpool, MERGED, Spool, UploadRecord};
use crate::storage::disk::{self, IoContext};
use crate::storage::space;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

const PARTS: &str = "parts";

/// Bytes of a record.
const RECORD_LEN: usize = 72;

/// The record of a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartRecord {
    /// Hash of the records of its slices.
    pub slices: [u8; 32],
    /// Hash of the store's answer.
    pub answer: [u8; 32],
}

/// The file `parts` of one spool, for one multipart upload.
pub struct PartRecords {
    file: File,
    of: blake3::Hasher,
}

impl PartRecords {
    /// The record of part `number`, from 1. `None` if there is none.
    ///
    /// # Errors
    /// As the system gives them.
    pub fn get(&self, number: u64) -> io::Result<Option<PartRecord>> {
        let mut block = [0; RECORD_LEN];
        match self.file.read_exact_at(&mut block, place(number)) {
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            read => read?,
        }
        let (slices, answer) = (block[..32].try_into(), block[32..64].try_into());
        let record = slices.ok().zip(answer.ok()).map(|(slices, answer)| PartRecord { slices, answer });
        Ok(record.filter(|_| block[64..] == self.check(&block[..64], number)))
    }

    /// Records part `number`.
    ///
    /// # Errors
    /// As the system gives them.
    pub fn put(&self, number: u64, record: &PartRecord) -> io::Result<()> {
        let mut block = [0; RECORD_LEN];
        block[..32].copy_from_slice(&record.slices);
        block[32..64].copy_from_slice(&record.answer);
        let sum = self.check(&block[..64], number);
        block[64..].copy_from_slice(&sum);
        self.file.write_all_at(&block, place(number))
    }

    /// Makes all records survive a power cut.
    ///
    /// # Errors
    /// As the system gives them.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn check(&self, bytes: &[u8], number: u64) -> [u8; 8] {
        let mut hasher = self.of.clone();
        hasher.update(&number.to_le_bytes()).update(bytes);
        *hasher.finalize().as_bytes().first_chunk().expect("a hash has 32 bytes")
    }
}

fn place(number: u64) -> u64 {
    number.saturating_sub(1).saturating_mul(RECORD_LEN as u64)
}

impl Spool {
    /// The records of the parts of `part_size` bytes of the multipart upload `id`, to be read and written. Their file
    /// survives a power cut from here on.
    ///
    /// # Errors
    /// As the system gives them.
    pub fn part_records(&self, id: &str, part_size: u64) -> io::Result<PartRecords> {
        let path = self.path.join(PARTS);
        let is_new = !path.exists();
        let file = disk::open_or_create(&path)?;
        if is_new {
            disk::sync_dir(&self.path)?;
        }
        let mut of = blake3::Hasher::new();
        of.update(&part_size.to_le_bytes()).update(id.as_bytes());
        Ok(PartRecords { file, of })
    }

    /// True if parts of this upload were recorded: bytes below the frontier may be in the store only.
    pub fn has_part_records(&self) -> bool {
        self.path.join(PARTS).exists()
    }

    /// Bytes of the file so far that are on the disk: those that were given back are in a store of objects. Zeroes that
    /// were merged as holes count for nothing, too. 0 if nothing was merged.
    ///
    /// # Errors
    /// As the system gives them.
    pub fn unsent(&self) -> io::Result<u64> {
        match disk::open_regular(&self.merged_path()) {
            Ok(merged) => {
                let len = merged.metadata().at("looking at", &self.merged_path())?.len();
                Ok(len - disk::holes_before(&merged, len)?)
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(0),
            Err(e) => Err(e),
        }
    }

    /// Bytes of `upload`, which this spool is of and which holds this, that a store of objects could take now: whole parts
    /// of the file so far whose space comes back then; all of a complete file. 0 if it cannot be published as things
    /// stand.
    ///
    /// # Errors
    /// As the system gives them.
    pub fn for_store(&self, upload: &UploadRecord, holdings: &Holdings) -> io::Result<u64> {
        if upload.blocked.is_some() || upload.is_partial() {
            return Ok(0);
        }
        if upload.may_be_published() && Some(holdings.frontier) == upload.plan.slice_num {
            return self.unsent();
        }
        if !upload.gives_parts_back() {
            return Ok(0);
        }
        let unsent = self.unsent()?;
        Ok(unsent - unsent % upload.part_size())
    }

    /// Bytes that this spool takes on the disk, but for space that is reserved in the merged file: slices that wait or
    /// arrive, and the file so far as in [`Spool::unsent`].
    ///
    /// # Errors
    /// As the system gives them.
    pub fn bytes_on_disk(&self) -> io::Result<u64> {
        let mut bytes = self.unsent()?;
        for entry in std::fs::read_dir(&self.path).at("listing", &self.path)? {
            let entry = entry.at("listing", &self.path)?;
            if entry.file_name() == MERGED {
                continue;
            }
            match entry.metadata() {
                Ok(found) if found.is_file() => bytes += found.blocks() * 512,
                Ok(_) => {}
                // It was merged meanwhile.
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(e).at("looking at", &entry.path()),
            }
        }
        Ok(bytes)
    }

    /// Gives back the space of `len` bytes at `offset` of `merged`, the file so far, which the store has. Their records are
    /// synced. Nothing happens if the upload is another one by now, or one that gives no parts back: another source took
    /// it over. False if the file system has no holes.
    ///
    /// # Errors
    /// As the system gives them.
    pub fn give_back(&self, merged: &File, offset: u64, len: u64) -> io::Result<bool> {
        let Some(locked) = self.lock()? else { return Ok(true) };
        let path = self.merged_path();
        let is_it = match std::fs::symlink_metadata(&path) {
            Ok(found) => found.ino() == merged.metadata().at("looking at", &path)?.ino(),
            Err(e) if e.kind() == io::ErrorKind::NotFound => false,
            Err(e) => return Err(e).at("looking at", &path),
        };
        if !is_it || !locked.upload.gives_parts_back() || offset + len > merged.metadata()?.len() {
            return Ok(true);
        }
        let tmp = self.path.parent().unwrap_or(Path::new("."));
        space::give_back(tmp, merged, offset, len, locked.upload.ahead()).at("giving back space of", &path)
    }
}

impl LockedSpool {
    /// Forgets the records of parts, once nothing is left in the merged file.
    ///
    /// # Errors
    /// As the system gives them.
    pub fn forget_parts(&self) -> io::Result<()> {
        let path = self.spool.path.join(PARTS);
        match std::fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e).at("removing", &path),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(file: File, id: &str) -> PartRecords {
        let mut of = blake3::Hasher::new();
        of.update(id.as_bytes());
        PartRecords { file, of }
    }

    #[test]
    fn a_record_counts_for_its_part_and_its_multipart_upload_only() {
        let file = tempfile::tempfile().unwrap();
        let mine = records(file.try_clone().unwrap(), "a");
        let record = |n| PartRecord { slices: [n; 32], answer: [n + 1; 32] };
        for number in [1, 3, 10_000] {
            mine.put(number, &record(number as u8)).unwrap();
        }
        let found = [1, 2, 3, 4, 10_000, 10_001].map(|number| mine.get(number).unwrap());
        assert_eq!(found, [Some(record(1)), None, Some(record(3)), None, Some(record(16)), None]);
        let other = records(file.try_clone().unwrap(), "b");
        assert_eq!(other.get(1).unwrap(), None);
        let mut block = [0; RECORD_LEN];
        file.read_exact_at(&mut block, 0).unwrap();
        file.write_all_at(&block, place(2)).unwrap();
        assert_eq!(mine.get(2).unwrap(), None, "of another part");
        for at in 0..RECORD_LEN {
            block[at] ^= 1;
            file.write_all_at(&block, 0).unwrap();
            assert_eq!(mine.get(1).unwrap(), None, "byte {at}");
            block[at] ^= 1;
        }
    }
}
