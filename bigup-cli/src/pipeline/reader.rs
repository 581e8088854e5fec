//! The reader: the slices of a source of known size.

use crate::buffer::Buffer;
use crate::client::requests::UploadRequests;
use crate::client::server_digests::ServerDigests;
use crate::pipeline::buffers::Buffers;
use crate::pipeline::error::RoundError;
use crate::source::error::SourceError;
use crate::source::{Source, read_pieces};
use crate::stop::StopSignal;
use bigup_core::protocol::digest::{self, Digest, DigestKind, SliceDigest, SliceHasher, is_subtree_size};
use bigup_core::protocol::native::MAX_ZEROES;
use bigup_core::protocol::plan::Plan;

/// Bytes that are read and digested at once: few enough to be in the processor's cache for the second of the two.
const PIECE_LEN: usize = 256 << 10;

/// A slice on its way to the server.
pub struct Slice {
    /// Its place.
    pub id: u64,
    /// Its digest, of the kind that slices of the upload have.
    pub digest: SliceDigest,
    /// All of it.
    pub content: SliceContent,
}

/// The bytes of a slice.
pub enum SliceContent {
    /// These, in a buffer.
    Bytes(Buffer),
    /// So many zeroes.
    Zeroes(u64),
}

impl SliceContent {
    /// Number of bytes.
    pub fn size(&self) -> u64 {
        match self {
            SliceContent::Bytes(bytes) => bytes.len() as u64,
            SliceContent::Zeroes(len) => *len,
        }
    }

    /// Has all bytes digested.
    pub fn digest_by(&self, hasher: &mut SliceHasher) {
        match self {
            SliceContent::Bytes(bytes) => hasher.update(bytes),
            SliceContent::Zeroes(len) => hasher.update_zeroes(*len),
        }
    }
}

/// Gives slices, one after the other.
pub trait SliceReader {
    /// The next slice, in a buffer of `buffers`; `None` at the end or when stopped.
    ///
    /// # Errors
    /// It cannot be read, or the source changed; then none of it may be sent.
    fn next(&mut self, buffers: &Buffers, stop: &StopSignal) -> Result<Option<Slice>, RoundError>;
}

/// Hashes a file whose slices are given in order but do not join.
pub struct WholeHash(Option<SliceHasher>);

/// Some of the slices of a source.
pub struct SourceReader<'a> {
    source: &'a dyn Source,
    plan: &'a Plan,
    requests: &'a UploadRequests<'a>,
    /// True if slices of zeroes need not be read and sent.
    leaves_holes: bool,
    ids: Vec<u64>,
    /// Digests of the first so many of them, as they were read.
    read: Vec<SliceDigest>,
    hash: WholeHash,
}

impl WholeHash {
    /// Hashes where `all` slices will be given and their digests, cut by `plan`, would not join.
    pub fn new(plan: &Plan, all: bool) -> WholeHash {
        let joins = plan.slice_num == Some(1) || plan.slice_size.is_some_and(is_subtree_size);
        WholeHash((all && !joins).then(|| SliceHasher::new(DigestKind::Hash, 0)))
    }

    /// Takes the next slice.
    pub fn update(&mut self, content: &SliceContent) {
        if let Some(hasher) = &mut self.0 {
            content.digest_by(hasher);
        }
    }

    /// The digest of all that was taken; `None` where nothing was to be hashed.
    pub fn finish(&self) -> Option<Digest> {
        self.0.as_ref().map(|hasher| hasher.finish().digest)
    }
}

impl<'a> SourceReader<'a> {
    /// The slices `ids` of `source` cut by `plan`; `ids` ascend. `requests` knows the digests of those that are held. With
    /// `leaves_holes` holes of the source are not read: the server takes their slices without bytes.
    pub fn new(
        source: &'a dyn Source,
        plan: &'a Plan,
        ids: Vec<u64>,
        requests: &'a UploadRequests<'a>,
        leaves_holes: bool,
    ) -> SourceReader<'a> {
        let all = plan.slice_num == Some(ids.len() as u64);
        SourceReader { source, plan, requests, leaves_holes, ids, read: vec![], hash: WholeHash::new(plan, all) }
    }

    /// The content of the slice in this place, which `hasher` digests. `None` when stopped.
    fn read(
        &self,
        (offset, len): (u64, u64),
        hasher: &mut SliceHasher,
        buffers: &Buffers,
        stop: &StopSignal,
    ) -> Result<Option<SliceContent>, RoundError> {
        if self.leaves_holes && len <= MAX_ZEROES && self.source.is_hole(offset, len)? {
            hasher.update_zeroes(len);
            return Ok(Some(SliceContent::Zeroes(len)));
        }
        let Some(mut bytes) = buffers.take(len, stop)? else { return Ok(None) };
        for (at, piece) in (offset..).step_by(PIECE_LEN).zip(bytes.chunks_mut(PIECE_LEN)) {
            self.source.read_at(at, piece)?;
            hasher.update(piece);
        }
        Ok(Some(SliceContent::Bytes(bytes)))
    }

    fn place_of(&self, id: u64) -> Result<(u64, u64), RoundError> {
        let place = self.plan.offset_of(id).zip(self.plan.len_of(id));
        place.ok_or(RoundError::NoPlace(id))
    }

    /// Makes sure, while the last slice is in our hands and the server cannot have published anything, that what was
    /// read is of one moment, together with what was held already.
    fn settle(&self, stop: &StopSignal) -> Result<(), RoundError> {
        self.source.check_name()?;
        if self.source.doubts() == 0 {
            return Ok(());
        }
        self.requests.observer.doing("reading it again, since its attributes changed");
        let all = 0..self.plan.slice_num.unwrap_or(0);
        let held = ServerDigests::fetch(self.requests, all.clone().filter(|id| self.ids.binary_search(id).is_err()))?;
        for id in all {
            let read = self.ids.binary_search(&id).ok().and_then(|at| self.read.get(at).copied());
            // A slice that is neither will be asked for, and read then.
            let Some(known) = read.or_else(|| held.get(id)) else { continue };
            let (offset, len) = self.place_of(id)?;
            let mut hasher = SliceHasher::new(known.kind, offset);
            read_pieces(self.source, offset, len, stop, |bytes| hasher.update(bytes))?;
            if hasher.finish() != known {
                return Err(SourceError::ReadsDifferently.into());
            }
        }
        Ok(self.source.check_name()?)
    }

    /// The digest of the whole source, where it was read from end to end and no other way leads to it.
    pub fn digest(&self) -> Option<Digest> {
        self.hash.finish()
    }
}

impl SliceReader for SourceReader<'_> {
    fn next(&mut self, buffers: &Buffers, stop: &StopSignal) -> Result<Option<Slice>, RoundError> {
        let Some(id) = self.ids.get(self.read.len()).copied() else { return Ok(None) };
        let mut hasher = digest::hasher_of(self.plan, id);
        let Some(content) = self.read(self.place_of(id)?, &mut hasher, buffers, stop)? else { return Ok(None) };
        let digest = hasher.finish();
        self.read.push(digest);
        if self.read.len() == self.ids.len() {
            self.settle(stop)?;
        }
        self.hash.update(&content);
        Ok(Some(Slice { id, digest, content }))
    }
}
