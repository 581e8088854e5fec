//! The pieces of a file, and the proof that they are right.
//!
//! A piece is 1024·2^k bytes, so that its BLAKE3 chaining value is that of a subtree. Several pieces are a unit: a leaf
//! whose digest the server told, or the whole file. The values of a unit's pieces join to its digest, so that nothing is
//! read again. A value that was noted proves that the bytes were written; a whole unit proves that they are right.

use crate::download::RemoteFile;
use crate::download::error::DownloadError;
use crate::download::place::read_exact_at;
use crate::stop::{StopSignal, is_closed};
use bigup_core::protocol::digest::{Digest, DigestKind, Leaves, SliceHasher, TreeJoin};
use bigup_core::protocol::units::MIB;
use std::fs::File;
use std::ops::Range;
use std::path::Path;

/// Bytes of a piece, unless there would be too many.
const PIECE_LEN: u64 = MIB;

/// Most pieces of a file.
const MOST: u64 = 1 << 16;

/// Smallest leaves that are of use, in bytes: files with smaller ones are small, and are checked as a whole.
const LEAST_LEAF: u64 = 64 << 10;

/// Bytes that are read at a time.
const READ_LEN: u64 = 256 << 10;

/// The pieces of a file.
#[derive(Clone, Debug)]
pub struct Pieces {
    size: u64,
    digest: Digest,
    piece_len: u64,
    leaves: Option<Leaves>,
    /// The value of each piece that is there.
    values: Vec<Option<Digest>>,
}

impl Pieces {
    /// Those of `file`; nothing is there.
    pub fn new(file: &RemoteFile) -> Pieces {
        let mut piece_len = PIECE_LEN;
        while file.size.div_ceil(piece_len) > MOST {
            piece_len *= 2;
        }
        let leaves = file.leaves.clone().filter(|leaves| {
            let len = leaves.leaf_len;
            len >= LEAST_LEAF && len.is_power_of_two() && leaves.values.len() as u64 == file.size.div_ceil(len)
        });
        let piece_len = leaves.as_ref().map_or(piece_len, |leaves| leaves.leaf_len.min(piece_len));
        let values = vec![None; file.size.div_ceil(piece_len) as usize];
        Pieces { size: file.size, digest: file.digest, piece_len, leaves, values }
    }

    /// Bytes of a piece; the last one may be shorter.
    pub fn piece_len(&self) -> u64 {
        self.piece_len
    }

    /// Number of pieces.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// The bytes of piece `index`.
    pub fn bytes_of(&self, index: usize) -> Range<u64> {
        let start = index as u64 * self.piece_len;
        start..(start + self.piece_len).min(self.size)
    }

    /// Digests piece `index`.
    pub fn hasher(&self, index: usize) -> SliceHasher {
        let kind = if self.len() == 1 { DigestKind::Hash } else { DigestKind::ChainingValue };
        SliceHasher::new(kind, index as u64 * self.piece_len)
    }

    /// The value of piece `index`. `None`: it is not there.
    pub fn value(&self, index: usize) -> Option<Digest> {
        self.values[index]
    }

    /// Piece `index` is there with this value, or not.
    pub fn set(&mut self, index: usize, value: Option<Digest>) {
        self.values[index] = value;
    }

    /// Number of pieces that are there, and their bytes.
    pub fn held(&self) -> (u64, u64) {
        let held = (0..self.len()).filter(|index| self.values[*index].is_some());
        held.fold((0, 0), |(count, bytes), index| {
            let of_piece = self.bytes_of(index);
            (count + 1, bytes + of_piece.end - of_piece.start)
        })
    }

    /// Pieces of a unit.
    pub fn unit_len(&self) -> usize {
        self.leaves.as_ref().map_or(self.len(), |leaves| (leaves.leaf_len / self.piece_len) as usize).max(1)
    }

    /// Number of units.
    pub fn units(&self) -> usize {
        self.len().div_ceil(self.unit_len())
    }

    /// The pieces of unit `unit`.
    pub fn pieces_of(&self, unit: usize) -> Range<usize> {
        let start = unit * self.unit_len();
        start..(start + self.unit_len()).min(self.len())
    }

    /// The bytes of unit `unit`.
    pub fn bytes_of_unit(&self, unit: usize) -> Range<u64> {
        let pieces = self.pieces_of(unit);
        self.bytes_of(pieces.start).start..self.bytes_of(pieces.end - 1).end
    }

    /// True if unit `unit` is right. `None`: some of its pieces are not there.
    pub fn check(&self, unit: usize) -> Option<bool> {
        let values: Option<Vec<Digest>> = self.values[self.pieces_of(unit)].iter().copied().collect();
        let values = values?;
        let mut join = TreeJoin::new();
        values.iter().for_each(|value| join.push(*value));
        let (joined, wanted) = match &self.leaves {
            Some(leaves) => (join.finish_subtree(), leaves.values[unit]),
            None if values.len() == 1 => (values.first().copied(), self.digest),
            None => (join.finish(), self.digest),
        };
        Some(joined == Some(wanted))
    }

    /// Takes the pieces of wrong units away.
    pub fn drop_wrong(&mut self) {
        for unit in 0..self.units() {
            if self.check(unit) == Some(false) {
                self.pieces_of(unit).for_each(|index| self.values[index] = None);
            }
        }
    }

    /// True if all pieces are there and right.
    pub fn is_whole(&self) -> bool {
        (0..self.units()).all(|unit| self.check(unit) == Some(true))
    }

    /// Takes what `file` has, read from the file: pieces of right units are there afterwards.
    ///
    /// # Errors
    /// It cannot be read, or `stop` was closed.
    pub fn read(&mut self, file: &File, stop: &StopSignal, path: &Path) -> Result<(), DownloadError> {
        let len = file.metadata().map_err(|cause| DownloadError::io("look at", path, cause))?.len();
        for index in 0..self.len() {
            if self.bytes_of(index).end <= len {
                self.values[index] = Some(self.digest_in(file, index, stop, path)?);
            }
        }
        self.drop_wrong();
        Ok(())
    }

    /// The value that piece `index` has in `file`.
    ///
    /// # Errors
    /// It cannot be read, or `stop` was closed.
    pub fn digest_in(
        &self,
        file: &File,
        index: usize,
        stop: &StopSignal,
        path: &Path,
    ) -> Result<Digest, DownloadError> {
        let (mut hasher, mut buffer, mut bytes) =
            (self.hasher(index), vec![0; READ_LEN as usize], self.bytes_of(index));
        while bytes.start < bytes.end {
            if is_closed(stop) {
                return Err(DownloadError::Stopped);
            }
            let len = READ_LEN.min(bytes.end - bytes.start);
            let buffer = &mut buffer[..len as usize];
            read_exact_at(file, buffer, bytes.start).map_err(|cause| DownloadError::io("read", path, cause))?;
            hasher.update(buffer);
            bytes.start += len;
        }
        Ok(hasher.finish().digest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bigup_core::protocol::digest::of_bytes;
    use bigup_core::protocol::name::FileName;

    fn bytes(len: usize) -> Vec<u8> {
        (0..len).map(|i| (i % 251) as u8 ^ (i >> 12) as u8).collect()
    }

    /// A file of these bytes, with leaves of that length.
    fn remote(bytes: &[u8], leaf_len: Option<usize>) -> RemoteFile {
        let leaves = leaf_len.map(|len| {
            let value = |(index, leaf): (usize, &[u8])| {
                let mut hasher = SliceHasher::new(DigestKind::ChainingValue, (index * len) as u64);
                hasher.update(leaf);
                hasher.finish().digest
            };
            Leaves { leaf_len: len as u64, values: bytes.chunks(len).enumerate().map(value).collect() }
        });
        let name = FileName::new("a").unwrap();
        RemoteFile { name, size: bytes.len() as u64, digest: of_bytes(bytes), modified: None, leaves }
    }

    fn filled(pieces: &mut Pieces, bytes: &[u8]) {
        for index in 0..pieces.len() {
            let mut hasher = pieces.hasher(index);
            let of_piece = pieces.bytes_of(index);
            hasher.update(&bytes[of_piece.start as usize..of_piece.end as usize]);
            pieces.set(index, Some(hasher.finish().digest));
        }
    }

    #[test]
    fn the_values_of_pieces_lead_to_the_digest_of_the_file() {
        const M: usize = 1 << 20;
        for len in [0, 1, M - 1, M, M + 1, 3 * M, 5 * M + 7] {
            let bytes = bytes(len);
            for leaf_len in [None, Some(64 << 10), Some(M), Some(2 * M), Some(4096)] {
                let leaf_len = leaf_len.filter(|leaf_len| len > *leaf_len);
                let mut pieces = Pieces::new(&remote(&bytes, leaf_len));
                assert!(!pieces.is_whole() || len == 0, "{len}");
                filled(&mut pieces, &bytes);
                assert!(pieces.is_whole(), "{len} {leaf_len:?}");
                assert_eq!(pieces.held().1, len as u64);
            }
        }
    }

    #[test]
    fn a_wrong_byte_makes_its_unit_wrong_and_no_other_one() {
        const M: usize = 1 << 20;
        let right = bytes(5 * M + 7);
        let mut wrong = right.clone();
        wrong[3 * M] ^= 1;
        let mut pieces = Pieces::new(&remote(&right, Some(2 * M)));
        filled(&mut pieces, &wrong);
        let checks: Vec<_> = (0..pieces.units()).map(|unit| pieces.check(unit)).collect();
        assert_eq!(checks, [Some(true), Some(false), Some(true)]);
        assert_eq!(pieces.bytes_of_unit(1), 2 * M as u64..4 * M as u64);
        pieces.drop_wrong();
        assert_eq!((pieces.check(1), pieces.held().0), (None, 4));
    }
}
