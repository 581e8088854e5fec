//! The body of a download: bytes of a source, read piece by piece as its reader takes them.
//!
//! A piece is read on a thread of the sender's share, and only once an earlier one was handed to the system: so a slow
//! reader holds no thread, and no more than two pieces of memory. The pieces of all readers together take
//! [`ReaderMemory::MOST`]. Beyond that each reader has a piece of [`ReaderMemory::FLOOR`].
//!
//! Of a file on a connection without TLS the system sends the pieces itself ([`Direct`]), and they take no memory. The
//! thread only has the disk bring them.

use crate::http::app::App;
use crate::http::content::ranges::{Layout, Step};
use crate::metrics::GaugeGuard;
use crate::net::file_parts::{self, FileParts};
use bigup_core::storage::store::Content;
use bytes::Bytes;
use futures_util::stream::{Stream, unfold};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use tokio::sync::Semaphore;

/// Number of pieces of a reader that are in memory at once: one is read while another is sent.
const PIECES: u32 = 2;

/// Bytes that the system reads from a disk in one go, at least (`read_ahead_kb` is 128 by default).
const READ_AHEAD: usize = 64 << 10;

/// The pieces of this process.
static READERS: ReaderMemory = ReaderMemory { taken: AtomicUsize::new(0) };

/// Counts the bytes of pieces in memory, and tells the size that the next one can have.
#[derive(Debug)]
struct ReaderMemory {
    taken: AtomicUsize,
}

/// Memory of a piece, counted until it is dropped.
#[derive(Debug)]
struct PieceMemory {
    len: usize,
    of: &'static ReaderMemory,
}

impl ReaderMemory {
    /// Bytes that large pieces take, all together.
    const MOST: usize = 4 << 20;

    /// Largest piece, in bytes: larger ones save little time.
    const BEST: usize = 128 << 10;

    /// Size that each piece can have, however many readers there are, in bytes.
    const FLOOR: usize = 8 << 10;

    /// Memory for a piece of up to `wanted` bytes. A piece takes no more than a part of the free memory: so readers that
    /// come later have some too, though others stall.
    fn take(&'static self, wanted: u64) -> PieceMemory {
        let most = self.part_of_free().clamp(Self::FLOOR, Self::BEST);
        let len = usize::try_from(wanted).unwrap_or(usize::MAX).min(most);
        self.taken.fetch_add(len, Ordering::Relaxed);
        PieceMemory { len, of: self }
    }

    fn part_of_free(&self) -> usize {
        Self::MOST.saturating_sub(self.taken.load(Ordering::Relaxed)) / 16
    }

    /// True if readers have the floor only.
    fn is_short(&self) -> bool {
        self.part_of_free() < Self::FLOOR
    }
}

impl Drop for PieceMemory {
    fn drop(&mut self) {
        self.of.taken.fetch_sub(self.len, Ordering::Relaxed);
    }
}

/// Bytes on their way to a reader, and the permit that lets them be in memory. hyper drops them once the system has taken
/// them.
pub(super) struct Piece<P> {
    bytes: Vec<u8>,
    _permit: P,
}

impl<P> Piece<P> {
    pub(super) fn new(bytes: Vec<u8>, permit: P) -> Piece<P> {
        Piece { bytes, _permit: permit }
    }
}

impl<P: Send + 'static> From<Piece<P>> for Bytes {
    fn from(piece: Piece<P>) -> Bytes {
        Bytes::from_owner(piece)
    }
}

impl<P> AsRef<[u8]> for Piece<P> {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Bytes that a download reads.
pub(super) trait Source: Send + Sync + 'static {
    /// Fills `bytes` with those at `offset`. This may block.
    ///
    /// # Errors
    /// They are not there any more, or as the system gives them.
    fn fill(&self, bytes: &mut [u8], offset: u64) -> io::Result<()>;
}

impl Source for Content {
    fn fill(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        self.read_exact_at(bytes, offset)
    }
}

impl Source for File {
    fn fill(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        self.read_exact_at(bytes, offset)
    }
}

/// The way of a file to the socket past this process.
pub(super) struct Direct {
    pub(super) file: Arc<File>,
    pub(super) parts: FileParts,
}

/// A download under way.
struct Sending {
    app: App,
    /// Name of the file or folder, for the log.
    name: String,
    source: Arc<dyn Source>,
    direct: Option<Direct>,
    layout: Layout,
    /// The step of the layout that is next.
    step: usize,
    /// Bytes of that step that were sent.
    sent: u64,
    /// A permit for each piece that can be in memory.
    turns: Arc<Semaphore>,
    _running: GaugeGuard,
}

/// A stream that several threads can refer to, as a body must be. Only its holder polls it.
pub(super) struct Shared(Mutex<Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>>);

impl Shared {
    pub(super) fn new(stream: impl Stream<Item = io::Result<Bytes>> + Send + 'static) -> Shared {
        Shared(Mutex::new(Box::pin(stream)))
    }
}

impl Stream for Shared {
    type Item = io::Result<Bytes>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let stream = self.get_mut().0.get_mut().unwrap_or_else(PoisonError::into_inner);
        stream.as_mut().poll_next(cx)
    }
}

/// The parts of `source` that `layout` has, as a body that has that length or breaks off; past this process, if there is
/// such a way. The log tells `name`.
pub(super) fn send(
    app: App,
    name: String,
    (source, direct): (Arc<dyn Source>, Option<Direct>),
    layout: Layout,
) -> impl Stream<Item = io::Result<Bytes>> + Send + Sync + 'static {
    let running = app.metrics().download_runs();
    let turns = Arc::new(Semaphore::new(PIECES as usize));
    let sending = Sending { app, name, source, direct, layout, step: 0, sent: 0, turns, _running: running };
    Shared::new(unfold(Some(sending), next))
}

/// The next piece; nothing follows one that could not be read.
async fn next(sending: Option<Sending>) -> Option<(io::Result<Bytes>, Option<Sending>)> {
    let mut sending = sending?;
    match sending.piece().await {
        Ok(piece) => piece.map(|piece| (Ok(piece), Some(sending))),
        Err(e) => {
            let name = &sending.name;
            log::error!(file_name = name.as_str(); "{name}: its download breaks off: {e}");
            Some((Err(e), None))
        }
    }
}

impl Sending {
    async fn piece(&mut self) -> io::Result<Option<Bytes>> {
        while let Some(step) = self.layout.step(self.step) {
            let (offset, left) = match step {
                Step::Bytes(range) => (range.start + self.sent, range.end - range.start - self.sent),
                Step::Text(text) => {
                    self.step += 1;
                    return Ok(Some(text.into()));
                }
            };
            if left > 0 {
                let piece = match &self.direct {
                    Some(direct) => self.place(direct, offset, left).await?,
                    None => self.read(offset, left).await?,
                };
                self.sent += piece.len() as u64;
                self.app.metrics().sent(piece.len() as u64);
                return Ok(Some(piece));
            }
            (self.step, self.sent) = (self.step + 1, 0);
        }
        Ok(None)
    }

    /// Bytes at `offset`, at least 1 and at most `left`, once there is a turn.
    async fn read(&self, offset: u64, left: u64) -> io::Result<Bytes> {
        // A second piece saves time; where memory is short there is no second one.
        let permits = if READERS.is_short() { PIECES } else { 1 };
        let turn = Arc::clone(&self.turns).acquire_many_owned(permits).await.map_err(io::Error::other)?;
        let memory = READERS.take(left);
        let source = Arc::clone(&self.source);
        let reading = self.app.thread_share.run(move || {
            let mut bytes = vec![0; memory.len];
            source.fill(&mut bytes, offset).map(|()| Piece::new(bytes, (memory, turn)))
        });
        Ok(reading.await.map_err(io::Error::other)??.into())
    }

    /// A placeholder for bytes at `offset`, at least 1 and at most `left`, once there is a turn.
    async fn place(&self, direct: &Direct, offset: u64, left: u64) -> io::Result<Bytes> {
        let turn = Arc::clone(&self.turns).acquire_owned().await.map_err(io::Error::other)?;
        let (len, file) = (left.min(file_parts::MOST as u64), Arc::clone(&direct.file));
        let bringing = self.app.thread_share.run(move || bring(&file, offset, len));
        bringing.await.map_err(io::Error::other)??;
        Ok(direct.parts.add(Arc::clone(&direct.file), offset, len, turn))
    }
}

/// Has the system read these bytes into its memory, so that sending them does not wait for the disk.
fn bring(file: &File, offset: u64, len: u64) -> io::Result<()> {
    (offset..offset + len).step_by(READ_AHEAD).try_for_each(|at| file.read_exact_at(&mut [0], at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_large_while_readers_are_few_and_small_then() {
        static FEW: ReaderMemory = ReaderMemory { taken: AtomicUsize::new(0) };
        let mut held: Vec<PieceMemory> = (0..16).map(|_| FEW.take(u64::MAX)).collect();
        assert!(held.iter().all(|memory| memory.len == ReaderMemory::BEST));
        held.extend((0..2000).map(|_| FEW.take(u64::MAX)));
        let all: usize = held.iter().map(|memory| memory.len).sum();
        assert!(all <= ReaderMemory::MOST + 2016 * ReaderMemory::FLOOR, "{all}");
        assert_eq!(held.last().map(|memory| memory.len), Some(ReaderMemory::FLOOR));
        assert_eq!(FEW.take(5).len, 5);
        drop(held);
        assert_eq!(FEW.taken.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn the_document_tells_the_same_numbers() {
        let (most, floor) = (ReaderMemory::MOST >> 20, ReaderMemory::FLOOR >> 10);
        let told = format!("take at most {most} MiB together, beside {floor} KiB for each reader");
        assert!(include_str!("../../../../docs/content.md").contains(&told), "{told}");
    }
}
