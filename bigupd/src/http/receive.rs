//! Receiving one slice: from the body to a file, digested while the bytes are hot.
//!
//! Pieces are gathered to batches and handed to a thread that can block, one batch at a time for each slice, while the
//! next one is received. So memory is two batches a slice, the async threads never wait for a disk, and a slow client
//! occupies no thread. Batches become smaller the more bodies are at work ([`crate::net::body_memory`]), and the batch
//! of a stalled body is written early.

use crate::admission::thread_shares::ThreadShare;
use crate::http::body::Body;
use crate::http::checksum::{Algorithm, Checksum};
use crate::net::body_memory::{self, BODIES};
use crate::net::min_rate::MinRate;
use crate::refusal::{Advice, Refusal};
use crate::uploads::SliceTarget;
use crate::uploads::append::AppendTarget;
use bigup_core::protocol::digest::{DigestKind, SliceDigest, SliceHasher, are_zeroes};
use bigup_core::protocol::native::ErrorCode;
use bigup_core::storage::disk::make_hole;
use bytes::Bytes;
use std::fs::File;
use std::io::{self, IoSlice, Seek, SeekFrom, Write};
use std::pin::{Pin, pin};
use std::time::{Duration, Instant, SystemTime};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Bytes written and digested at once, of small slices and of large ones: enough that a switch of threads costs little, few
/// enough to stay in the cache. Small slices come by the dozen over long lines, and wait in memory while a batch fills.
const BATCH_LEN: std::ops::RangeInclusive<u64> = (128 << 10)..=(1 << 20);

/// Longest time that bytes wait for a batch to fill: written bytes show that a slow client is at work.
const BATCH_TIME: Duration = Duration::from_secs(1);

/// Bytes after which the disk begins with a slice that is wanted there early.
const WRITE_BACK_AFTER: u64 = 8 << 20;

/// Batches of a slice.
const BATCHES: u64 = 8;

/// Time without new bytes after which the gathered part of a body is written. It is longer than an ordinary pause of a
/// line, since small writes cost more.
pub const STALLED_AFTER: Duration = Duration::from_secs(1);

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
    /// True if all of its bytes are zeroes, which are not sent.
    pub is_zeroes: bool,
    /// Its SHA-256, from a Content-Digest header. That is of the content of a message (RFC 9530, section 2).
    pub sha256: Option<[u8; 32]>,
    /// The same where the content is a form: of the whole form, not of the slice in it.
    pub form_sha256: Option<[u8; 32]>,
}

/// The part of the work that blocks.
struct Writer {
    target: SliceTarget,
    /// Zeroes at its beginning that were not written yet. `None` once anything was written.
    zeroes: Option<u64>,
    /// Bytes that were written since the disk was last told to begin with them.
    ahead: u64,
    hashers: Vec<SliceHasher>,
    checksum: Option<Checksum>,
}

impl Writer {
    fn write(&mut self, pieces: &[Bytes]) -> io::Result<()> {
        if pieces.is_empty() {
            return Ok(());
        }
        let len = pieces.iter().map(|piece| piece.len() as u64).sum::<u64>();
        if self.is_more_zeroes(pieces) {
            self.zeroes = self.zeroes.map(|zeroes| zeroes + len);
            // As writing it would show that a client is at work.
            self.target.file().map_or(Ok(()), |file| file.set_modified(SystemTime::now()))?;
        } else if let Some(file) = self.target.file() {
            if let Some(zeroes) = self.zeroes.take().filter(|zeroes| *zeroes > 0) {
                // What was reserved and not written reads as zeroes.
                let mut file = file;
                file.seek(SeekFrom::Start(zeroes))?;
            }
            write_all(file, pieces)?;
            self.ahead += len;
            if let SliceTarget::Spool(arrival, _) = &self.target
                && self.ahead >= WRITE_BACK_AFTER
            {
                self.ahead = 0;
                arrival.write_back()?;
            }
        }
        for piece in pieces {
            self.hashers.iter_mut().for_each(|hasher| hasher.update(piece));
            if let Some(checksum) = &mut self.checksum {
                checksum.update(piece);
            }
        }
        if let (SliceTarget::Tail(tail), Some(hasher)) = (&mut self.target, self.hashers.first()) {
            tail.wrote(len, || hasher.finish())?;
        }
        Ok(())
    }
}

impl Writer {
    /// True if nothing but zeroes came so far, and these are more of them. Of a whole slice of zeroes nothing is written.
    fn is_more_zeroes(&self, pieces: &[Bytes]) -> bool {
        self.zeroes.is_some() && pieces.iter().all(|piece| are_zeroes(piece))
    }

    /// The slice came whole, and `len` bytes of it are zeroes that were not written: it has no others.
    fn end_zeroes(&self) -> io::Result<()> {
        match (&self.target, self.zeroes) {
            (SliceTarget::Spool(arrival, _), Some(len)) if len > 0 => arrival.take_zeroes(len),
            _ => Ok(()),
        }
    }

    /// Takes `len` zeroes that nobody sent.
    fn take_zeroes(&mut self, len: u64) -> io::Result<()> {
        self.hashers.iter_mut().for_each(|hasher| hasher.update_zeroes(len));
        match &self.target {
            SliceTarget::Spool(arrival, _) => arrival.take_zeroes(len),
            target => target.file().map_or(Ok(()), |file| make_hole(file, 0, len)),
        }
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
        self.writer.end_zeroes()?;
        let Writer { target, hashers, checksum, .. } = *self.writer;
        check_sha256(self.expected.slice_id, self.expected.sha256, checksum)?;
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
        zeroes: matches!(target, SliceTarget::Spool(..)).then_some(0),
        target,
        ahead: 0,
        hashers: kinds.iter().map(|kind| SliceHasher::new(*kind, offset)).collect(),
        checksum: expected.sha256.map(|_| Checksum::new(Algorithm::Sha256)),
    };
    let (mut filling, mut more) = (Filling::of(writer, expected.len), None);
    match filling.fill(body, &mut more, &mut pace, thread_share, std::future::pending()).await? {
        Ended::Stopped => Err(cancelled())?,
        Ended::Body => {
            let (len, received) = (expected.len, filling.received);
            let message = format!("slice {}: expected {len} bytes, got {received}: send it again", expected.slice_id);
            return Err(Refusal::new(ErrorCode::Damaged, message));
        }
        Ended::Full if more.is_some() || body.next(&mut pace).await?.is_some() => {
            let message = format!("slice {}: slice_size is {}, but more bytes came", expected.slice_id, expected.len);
            return Err(Refusal::new(ErrorCode::BadRequest, message));
        }
        Ended::Full => {}
    }
    let (writer, rest) = filling.end().await?;
    Ok(Received { writer, rest, expected: expected.clone() })
}

/// Takes a slice of zeroes that has no body into `target`, to be digested by `kinds`, as [`receive`] does. Blocking work
/// is done on `thread_share`.
///
/// # Errors
/// It could not be stored; the file is gone then.
pub async fn receive_zeroes(
    target: SliceTarget,
    kinds: &[DigestKind],
    offset: u64,
    expected: &Expected,
    thread_share: &ThreadShare,
) -> Result<Received, Refusal> {
    let hashers = kinds.iter().map(|kind| SliceHasher::new(*kind, offset)).collect();
    let (mut writer, len) =
        (Box::new(Writer { target, zeroes: None, ahead: 0, hashers, checksum: None }), expected.len);
    let work = move || writer.take_zeroes(len).map(|()| writer);
    let writer = thread_share.run(work).await.map_err(io::Error::other)??;
    Ok(Received { writer, rest: vec![], expected: expected.clone() })
}

/// The reason why no more bytes are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// All bytes that are wanted came.
    Full,
    /// The body ended before.
    Body,
    /// The request is to stop.
    Stopped,
}

/// The next thing to be done for a body.
enum Next {
    Piece(Bytes),
    End,
    Stop,
}

/// The bytes of a body on their way to a file, up to a number.
struct Filling {
    /// `None` while it is handed on.
    work: Option<Work>,
    batch: Batch,
    wanted: u64,
    received: u64,
    written: Instant,
    best: u64,
}

impl Filling {
    fn of(writer: Writer, wanted: u64) -> Filling {
        let best = (wanted / BATCHES).clamp(*BATCH_LEN.start(), *BATCH_LEN.end());
        let work = Some(Work::Rests(Box::new(writer)));
        Filling { work, batch: Batch::default(), wanted, received: 0, written: Instant::now(), best }
    }

    /// Takes pieces of `body`, the first one from `more`, until all that is wanted came. The rest of the last piece is
    /// left in `more`.
    async fn fill(
        &mut self,
        body: &mut Body,
        more: &mut Option<Bytes>,
        pace: &mut MinRate,
        thread_share: &ThreadShare,
        stopped: impl Future<Output = ()>,
    ) -> Result<Ended, Refusal> {
        let mut stopped = pin!(stopped);
        while self.received < self.wanted {
            let mut piece = match more.take() {
                Some(piece) => piece,
                None => match self.next(body, pace, thread_share, stopped.as_mut()).await? {
                    Next::Piece(piece) => piece,
                    Next::End => return Ok(Ended::Body),
                    Next::Stop => return Ok(Ended::Stopped),
                },
            };
            let left = usize::try_from(self.wanted - self.received).unwrap_or(usize::MAX);
            if piece.len() > left {
                *more = Some(piece.split_off(left));
            }
            self.received += piece.len() as u64;
            self.batch.push(piece);
            if self.batch.len >= BODIES.batch_len(self.best) || self.written.elapsed() >= BATCH_TIME {
                self.write(thread_share).await?;
            }
        }
        Ok(Ended::Full)
    }

    /// The next piece. While none comes, the gathered bytes are written.
    async fn next(
        &mut self,
        body: &mut Body,
        pace: &mut MinRate,
        thread_share: &ThreadShare,
        mut stopped: Pin<&mut impl Future<Output = ()>>,
    ) -> Result<Next, Refusal> {
        let mut next = pin!(async {
            tokio::select! {
                biased;
                () = stopped.as_mut() => Ok(Next::Stop),
                piece = body.next(pace) => Ok(piece?.map_or(Next::End, Next::Piece)),
            }
        });
        match timeout(STALLED_AFTER, next.as_mut()).await {
            Ok(piece) => piece,
            Err(_) => {
                let work = self.work.take().ok_or_else(lost_writer)?;
                self.work = Some(work.stall(&mut self.batch, thread_share).await?);
                next.await
            }
        }
    }

    async fn write(&mut self, thread_share: &ThreadShare) -> Result<(), Refusal> {
        let work = self.work.take().ok_or_else(lost_writer)?;
        self.work = Some(work.go_on(self.batch.take(), thread_share).await?);
        self.written = Instant::now();
        Ok(())
    }

    /// The writer, once it rests, and the bytes that it is still to write.
    async fn end(mut self) -> Result<(Box<Writer>, Vec<Bytes>), Refusal> {
        let work = self.work.take().ok_or_else(lost_writer)?;
        Ok((work.rest().await?, self.batch.take()))
    }
}

/// A writer is lost where it failed, and that was told then.
fn lost_writer() -> Refusal {
    io::Error::other("the writer of a slice failed before").into()
}

/// Bytes that were appended to a slice.
pub struct Appended {
    /// The slice, with all that came.
    pub slice: SliceTarget,
    /// The digests of all bytes of the slice. Empty if it has none.
    pub digests: Vec<SliceDigest>,
    /// The checksum of the body so far, if one is asked for.
    pub checksum: Option<Checksum>,
    /// Number of bytes that came.
    pub received: u64,
    /// The reason why no more came.
    pub ended: Result<Ended, Refusal>,
}

/// Appends bytes of `body`, the first ones from `more`, to the slice `to`, until that is whole, the body ends or breaks
/// off, or `stopped`. What came is written whatever ended it. Blocking work is done on `thread_share`.
///
/// # Errors
/// The bytes could not be stored.
pub async fn append(
    body: &mut Body,
    more: &mut Option<Bytes>,
    to: AppendTarget,
    checksum: Option<Checksum>,
    pace: &mut MinRate,
    thread_share: &ThreadShare,
    stopped: impl Future<Output = ()>,
) -> Result<Appended, Refusal> {
    let held = to.held();
    let writer = Writer { target: to.slice, zeroes: None, ahead: 0, hashers: to.hashers, checksum };
    let mut filling = Filling::of(writer, to.wanted);
    let ended = filling.fill(body, more, pace, thread_share, stopped).await;
    let received = filling.received;
    // If the writer failed, that is the error.
    let (mut writer, rest) = filling.end().await.map_err(|lost| ended.as_ref().err().cloned().unwrap_or(lost))?;
    let write = move || writer.write(&rest).map(|()| writer).map_err(Refusal::from);
    let writer = thread_share.run(write).await.map_err(io::Error::other)??;
    let Writer { target, hashers, checksum, .. } = *writer;
    // A slice without bytes has no digest: a body may end where a slice does.
    let is_empty = held == 0 && received == 0;
    let digests = if is_empty { vec![] } else { hashers.iter().map(SliceHasher::finish).collect() };
    Ok(Appended { slice: target, digests, checksum, received, ended })
}

fn cancelled() -> Refusal {
    Refusal::new(ErrorCode::Cancelled, "the upload was cancelled on the server").advising(Advice::UploadAgainInAMinute)
}

/// Compares the SHA-256 of a body with the one that was `told`, where one was.
///
/// # Errors
/// They differ.
pub fn check_sha256(slice_id: u64, told: Option<[u8; 32]>, is: Option<Checksum>) -> Result<(), Refusal> {
    match (told, is.map(Checksum::finish)) {
        (Some(told), Some(is)) if told[..] != is[..] => {
            let message =
                format!("slice {slice_id}: the body's SHA-256 is not the one in Content-Digest: send it again");
            Err(Refusal::new(ErrorCode::Damaged, message))
        }
        _ => Ok(()),
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
}
