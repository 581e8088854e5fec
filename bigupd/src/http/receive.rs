//! Receiving one slice: from the body to a file, digested while the bytes are hot.
//!
//! Pieces are gathered to batches and handed to a thread that can block, one batch at a time for each slice, while the
//! next one is received. So memory is two batches a slice, the async threads never wait for a disk, and a slow client
//! occupies no thread. Batches become smaller the more bodies are at work ([`crate::net::body_memory`]), and the batch
//! of a stalled body is written early.

use crate::admission::thread_shares::ThreadShare;
use crate::http::body::Body;
use crate::net::body_memory::{self, BODIES};
use crate::net::min_rate::MinRate;
use crate::refusal::{Advice, Refusal};
use crate::uploads::SliceTarget;
use bigup_core::protocol::digest::{DigestKind, SliceDigest, SliceHasher};
use bigup_core::protocol::native::ErrorCode;
use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use std::fs::File;
use std::io::{self, IoSlice, Write};
use std::pin::pin;
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Bytes written and digested at once, of small slices and of large ones: enough that a switch of threads costs little, few
/// enough to stay in the cache. Small slices come by the dozen over long lines, and wait in memory while a batch fills.
const BATCH_LEN: std::ops::RangeInclusive<u64> = (128 << 10)..=(1 << 20);

/// Longest time that bytes wait for a batch to fill: written bytes show that a slow client is at work.
const BATCH_TIME: Duration = Duration::from_secs(1);

/// Batches of a slice.
const BATCHES: u64 = 8;

/// Time without new bytes after which the gathered part of a body is written. It is longer than an ordinary pause of a
/// line, since small writes cost more.
const STALLED_AFTER: Duration = Duration::from_secs(1);

/// Pieces below it, in bytes, are put together. Each would keep the buffer that it was read into, however little it is of it.
const SMALL_PIECE: usize = 16 << 10;

/// Bytes gathered to be written at once.
#[derive(Debug, Default)]
struct Batch {
    pieces: Vec<Bytes>,
    /// Small pieces that came last, one behind the other.
    small: Vec<u8>,
    len: u64,
}

impl Batch {
    fn push(&mut self, piece: Bytes) {
        self.len += piece.len() as u64;
        if piece.len() < SMALL_PIECE {
            self.small.extend_from_slice(&piece);
        } else {
            self.end_small();
            self.pieces.push(piece);
        }
    }

    fn end_small(&mut self) {
        if !self.small.is_empty() {
            self.pieces.push(std::mem::take(&mut self.small).into());
        }
    }

    /// All of it, in order; the next one begins.
    fn take(&mut self) -> Vec<Bytes> {
        self.end_small();
        self.len = 0;
        std::mem::take(&mut self.pieces)
    }
}

/// The expected length and digest of a slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    /// Number of the slice; for messages.
    pub slice_id: u64,
    /// Its length, in bytes.
    pub len: u64,
    /// Its SHA-256, from a Content-Digest header. That is of the content of a message (RFC 9530, section 2).
    pub sha256: Option<[u8; 32]>,
    /// The same where the content is a form: of the whole form, not of the slice in it.
    pub form_sha256: Option<[u8; 32]>,
}

/// The part of the work that blocks.
struct Writer {
    target: SliceTarget,
    hashers: Vec<SliceHasher>,
    sha256: Option<Sha256>,
}

impl Writer {
    fn write(&mut self, pieces: &[Bytes]) -> io::Result<()> {
        if let Some(file) = self.target.file() {
            write_all(file, pieces)?;
        }
        for piece in pieces {
            self.hashers.iter_mut().for_each(|hasher| hasher.update(piece));
            if let Some(sha256) = &mut self.sha256 {
                sha256.update(piece);
            }
        }
        Ok(())
    }
}

/// Writes all pieces, in as few calls as there can be: each costs the file system anew.
fn write_all(mut file: &File, pieces: &[Bytes]) -> io::Result<()> {
    let mut slices: Vec<IoSlice<'_>> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
    let mut left = &mut slices[..];
    while !left.is_empty() {
        match file.write_vectored(left) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => IoSlice::advance_slices(&mut left, written),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// A writer at work, or at rest.
enum Work {
    Rests(Box<Writer>),
    Writes(JoinHandle<Result<Box<Writer>, Refusal>>),
}

impl Work {
    async fn rest(self) -> Result<Box<Writer>, Refusal> {
        match self {
            Work::Rests(writer) => Ok(writer),
            Work::Writes(handle) => handle.await.map_err(io::Error::other)?,
        }
    }

    /// Begins to write `pieces`, once those before them are written.
    async fn go_on(self, pieces: Vec<Bytes>, thread_share: &ThreadShare) -> Result<Work, Refusal> {
        let (mut writer, thread_share) = (self.rest().await?, thread_share.clone());
        let write = move || {
            if writer.target.is_cancelled() {
                // Sooner than with its last byte, which can take longer than the client's time limit.
                return Err(cancelled());
            }
            writer.write(&pieces)?;
            Ok(writer)
        };
        Ok(Work::Writes(tokio::spawn(async move { thread_share.run(write).await.map_err(io::Error::other)? })))
    }

    /// Writes the gathered bytes, since nothing more comes, and gives their memory back.
    async fn stall(self, batch: &mut Batch, thread_share: &ThreadShare) -> Result<Work, Refusal> {
        if batch.len == 0 {
            return Ok(self);
        }
        let writer = self.go_on(batch.take(), thread_share).await?.rest().await?;
        body_memory::note_freed();
        Ok(Work::Rests(writer))
    }
}

/// A slice that came whole. A thread that can block must still write the last batch of it; with small slices, all of
/// it.
pub struct Received {
    writer: Box<Writer>,
    rest: Vec<Bytes>,
    expected: Expected,
}

impl Received {
    /// Returns the slice's target and the digests of its bytes, of the kinds asked for and in that order.
    ///
    /// # Errors
    /// The slice differs from `expected`, or could not be stored; the file is gone then.
    pub fn finish(mut self) -> Result<(SliceTarget, Vec<SliceDigest>), Refusal> {
        self.writer.write(&self.rest)?;
        let Writer { target, hashers, sha256 } = *self.writer;
        check_sha256(self.expected.slice_id, self.expected.sha256, sha256)?;
        Ok((target, hashers.iter().map(SliceHasher::finish).collect()))
    }
}

/// Receives a slice into `target`, to be digested by `kinds`; chaining values are computed for `offset`. The body must
/// keep the `pace`.
///
/// # Errors
/// The body differs from `expected`, or could not be stored; the file is gone then. The rest of the body is left in
/// `body`. Blocking work is done on `thread_share`.
pub async fn receive(
    body: &mut Body,
    target: SliceTarget,
    kinds: &[DigestKind],
    offset: u64,
    expected: &Expected,
    mut pace: MinRate,
    thread_share: &ThreadShare,
) -> Result<Received, Refusal> {
    let writer = Writer {
        target,
        hashers: kinds.iter().map(|kind| SliceHasher::new(*kind, offset)).collect(),
        sha256: expected.sha256.map(|_| Sha256::new()),
    };
    let mut work = Work::Rests(Box::new(writer));
    let (mut batch, mut received) = (Batch::default(), 0);
    let mut written = Instant::now();
    let best = (expected.len / BATCHES).clamp(*BATCH_LEN.start(), *BATCH_LEN.end());
    loop {
        let mut next = pin!(body.next(&mut pace));
        let piece = match timeout(STALLED_AFTER, next.as_mut()).await {
            Ok(piece) => piece,
            Err(_) => {
                work = work.stall(&mut batch, thread_share).await?;
                next.await
            }
        };
        let Some(piece) = piece? else { break };
        received += piece.len() as u64;
        if received > expected.len {
            let message = format!("slice {}: slice_size is {}, but more bytes came", expected.slice_id, expected.len);
            return Err(Refusal::new(ErrorCode::BadRequest, message));
        }
        batch.push(piece);
        if batch.len >= BODIES.batch_len(best) || written.elapsed() >= BATCH_TIME {
            work = work.go_on(batch.take(), thread_share).await?;
            written = Instant::now();
        }
    }
    if received != expected.len {
        let message =
            format!("slice {}: expected {} bytes, got {received}: send it again", expected.slice_id, expected.len);
        return Err(Refusal::new(ErrorCode::Damaged, message));
    }
    Ok(Received { writer: work.rest().await?, rest: batch.take(), expected: expected.clone() })
}

fn cancelled() -> Refusal {
    Refusal::new(ErrorCode::Cancelled, "the upload was cancelled on the server").advising(Advice::UploadAgainInAMinute)
}

/// Compares the SHA-256 of a body with the one that was `told`, where one was.
///
/// # Errors
/// They differ.
pub fn check_sha256(slice_id: u64, told: Option<[u8; 32]>, is: Option<Sha256>) -> Result<(), Refusal> {
    match (told, is.map(|hasher| hasher.finalize())) {
        (Some(told), Some(is)) if told[..] != is[..] => {
            let message =
                format!("slice {slice_id}: the body's SHA-256 is not the one in Content-Digest: send it again");
            Err(Refusal::new(ErrorCode::Damaged, message))
        }
        _ => Ok(()),
    }
}

/// The SHA-256 in a Content-Digest header (RFC 9530, section 2). `None` if it has none; other algorithms are ignored,
/// as the RFC permits.
///
/// # Errors
/// It is malformed.
pub fn parse_content_digest(header: &str) -> Result<Option<[u8; 32]>, Refusal> {
    use base64::Engine;
    // Of several the last one counts (RFC 9651, section 4.2.2).
    let Some(value) = header.split(',').rev().find_map(|member| member.trim().strip_prefix("sha-256=")) else {
        return Ok(None);
    };
    let value = value.split_once(';').map_or(value, |(value, _parameters)| value);
    let encoded = value.strip_prefix(':').and_then(|v| v.strip_suffix(':'));
    let bytes = encoded.and_then(|text| base64::engine::general_purpose::STANDARD.decode(text).ok());
    match bytes.and_then(|bytes| <[u8; 32]>::try_from(bytes).ok()) {
        Some(digest) => Ok(Some(digest)),
        None => {
            let message = "Content-Digest: sha-256 is not 32 bytes in base64 between colons (RFC 9530)";
            Err(Refusal::new(ErrorCode::BadRequest, message))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_keeps_the_order_and_no_buffer_for_the_sake_of_a_byte() {
        let mut batch = Batch::default();
        let large = Bytes::from(vec![b'x'; SMALL_PIECE]);
        let buffer = Bytes::from(vec![b'y'; 8 << 10]);
        (0..1000).for_each(|i| batch.push(buffer.slice(i..i + 1)));
        batch.push(large.clone());
        batch.push(buffer.slice(..2));
        assert!(buffer.is_unique(), "the buffer that bytes were read into is held");
        assert_eq!(batch.len, 1002 + SMALL_PIECE as u64);
        let lens = |pieces: &[Bytes]| pieces.iter().map(Bytes::len).collect::<Vec<_>>();
        let taken = batch.take();
        assert_eq!((lens(&taken), &taken[1]), (vec![1000, SMALL_PIECE, 2], &large));
        assert_eq!((batch.take(), batch.len), (vec![], 0));
    }

    #[test]
    fn content_digests_are_read() {
        let zeros = format!("sha-256=:{}=:", "A".repeat(43));
        assert_eq!(parse_content_digest(&zeros), Ok(Some([0; 32])));
        assert_eq!(parse_content_digest(&format!("sha-512=:AA==:, {zeros}")), Ok(Some([0; 32])));
        assert_eq!(parse_content_digest(&format!("sha-256=:AA==:, {zeros};p=1")), Ok(Some([0; 32])));
        assert!(parse_content_digest(&format!("{zeros}, sha-256=:AA==:")).is_err());
        assert_eq!(parse_content_digest("sha-512=:AA==:"), Ok(None));
        assert_eq!(parse_content_digest(""), Ok(None));
        for wrong in ["sha-256=", "sha-256=:AA==:", "sha-256=::", "sha-256=AAAA", "sha-256=:é:"] {
            assert!(parse_content_digest(wrong).is_err(), "{wrong}");
        }
    }
}
