//! Parts of files in responses: the system moves them from its page cache to the socket (sendfile(2)), past this process.
//!
//! hyper takes bytes and not files. So a body has a placeholder for each part: bytes that nobody reads, at addresses of
//! their own. hyper hands them to the connection's stream when it is their turn, and the stream sends the part in their
//! place. So no part needs memory, however slow its reader is.
//!
//! Placeholders cannot be taken for content. A body has some only if its connection gave it a [`FileParts`], which is that
//! of the stream. The stream knows them by their addresses and sends the parts in the order in which they were made. A
//! placeholder that goes away before its part was sent ends the connection, since the order would be another one.

use crate::net::listeners::Socket;
use nix::errno::Errno;
use nix::sys::sendfile::sendfile;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, IoSlice};
use std::os::unix::fs::FileExt;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};

/// Largest part, in bytes.
pub const MOST: usize = 1 << 20;

/// Bytes that are copied at once where the file system has no sendfile.
const COPIED: usize = 64 << 10;

/// The addresses of placeholders. The system gives it no memory, since nobody reads or writes there.
static PLACE: LazyLock<Box<[u8]>> = LazyLock::new(|| vec![0; MOST].into_boxed_slice());

/// The parts that a connection is to send, in their order.
#[derive(Clone, Debug, Default)]
pub struct FileParts(Arc<Queue>);

#[derive(Debug, Default)]
struct Queue {
    parts: Mutex<VecDeque<Arc<Part>>>,
    /// A placeholder went away unsent.
    is_broken: AtomicBool,
}

/// A part of a file.
#[derive(Debug)]
struct Part {
    file: Arc<File>,
    offset: u64,
    len: u64,
    /// Bytes of it that were sent.
    sent: AtomicU64,
}

/// Stands in the body for a part, and holds `held` until that is sent.
struct Placeholder<T> {
    parts: FileParts,
    part: Arc<Part>,
    _held: T,
}

impl FileParts {
    /// A placeholder for `len` bytes of `file` at `offset`: at least 1, at most [`MOST`]. It holds `held` until they are sent.
    pub fn add<T: Send + 'static>(&self, file: Arc<File>, offset: u64, len: u64, held: T) -> bytes::Bytes {
        let part = Arc::new(Part { file, offset, len, sent: AtomicU64::new(0) });
        self.queue().push_back(Arc::clone(&part));
        bytes::Bytes::from_owner(Placeholder { parts: self.clone(), part, _held: held })
    }

    fn queue(&self) -> std::sync::MutexGuard<'_, VecDeque<Arc<Part>>> {
        self.0.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The part that is next.
    fn next(&self) -> io::Result<Arc<Part>> {
        let next = self.queue().front().cloned().filter(|_| !self.0.is_broken.load(Ordering::Relaxed));
        next.ok_or_else(|| io::Error::other("a part of a file is not where its placeholder is"))
    }

    /// Counts bytes of the next part as sent.
    fn sent(&self, part: &Part, bytes: usize) {
        let sent = part.sent.fetch_add(bytes as u64, Ordering::Relaxed) + bytes as u64;
        if sent == part.len {
            self.queue().pop_front();
        }
    }
}

impl Part {
    fn left(&self) -> u64 {
        self.len - self.sent.load(Ordering::Relaxed)
    }

    /// The place in the file of the next byte to send.
    fn next(&self) -> u64 {
        self.offset + self.sent.load(Ordering::Relaxed)
    }
}

impl<T> AsRef<[u8]> for Placeholder<T> {
    fn as_ref(&self) -> &[u8] {
        // At most MOST, which is a usize.
        &PLACE[..self.part.len as usize]
    }
}

impl<T> Drop for Placeholder<T> {
    fn drop(&mut self) {
        if self.part.left() > 0 {
            self.parts.0.is_broken.store(true, Ordering::Relaxed);
        }
    }
}

fn is_placeholder(bytes: &[u8]) -> bool {
    PLACE.as_ptr_range().contains(&bytes.as_ptr())
}

/// A socket that sends parts of files in place of their placeholders.
#[derive(Debug)]
pub struct FileStream {
    socket: Socket,
    parts: FileParts,
    /// The file system of a part has no sendfile.
    copies: bool,
}

impl FileStream {
    /// Sends by `socket` what is in `parts`.
    pub fn new(socket: Socket, parts: FileParts) -> FileStream {
        FileStream { socket, parts, copies: false }
    }

    /// Sends up to `most` bytes of the next part.
    fn poll_send(&mut self, cx: &mut Context<'_>, most: usize) -> Poll<io::Result<usize>> {
        let part = self.parts.next()?;
        let len = part.left().min(most as u64) as usize;
        let sent = match self.copies {
            false => ready!(self.poll_sendfile(cx, &part, len)),
            true => ready!(self.poll_copy(cx, &part, len)),
        }?;
        if sent == 0 {
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        self.parts.sent(&part, sent);
        Poll::Ready(Ok(sent))
    }

    fn poll_sendfile(&mut self, cx: &mut Context<'_>, part: &Part, len: usize) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.socket.poll_write_ready(cx))?;
            let mut offset = i64::try_from(part.next()).map_err(io::Error::other)?;
            let send = || Ok(sendfile(&self.socket, &part.file, Some(&mut offset), len)?);
            match self.socket.try_io(Interest::WRITABLE, send) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock || e.kind() == io::ErrorKind::Interrupted => {}
                Err(e)
                    if [Errno::EINVAL, Errno::ENOSYS].map(|errno| Some(errno as i32)).contains(&e.raw_os_error()) =>
                {
                    self.copies = true;
                    return self.poll_copy(cx, part, len);
                }
                done => return Poll::Ready(done),
            }
        }
    }

    fn poll_copy(&mut self, cx: &mut Context<'_>, part: &Part, len: usize) -> Poll<io::Result<usize>> {
        ready!(self.socket.poll_write_ready(cx))?;
        let mut bytes = vec![0; len.min(COPIED)];
        part.file.read_exact_at(&mut bytes, part.next())?;
        Pin::new(&mut self.socket).poll_write(cx, &bytes)
    }
}

impl AsyncRead for FileStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(cx, buf)
    }
}

impl AsyncWrite for FileStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if is_placeholder(bytes) {
            self.poll_send(cx, bytes.len())
        } else {
            Pin::new(&mut self.socket).poll_write(cx, bytes)
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let first = bytes.iter().position(|slice| !slice.is_empty()).unwrap_or(0);
        let plain = bytes[first..].iter().take_while(|slice| !is_placeholder(slice)).count();
        match bytes.get(first) {
            Some(part) if plain == 0 => self.poll_send(cx, part.len()),
            _ => Pin::new(&mut self.socket).poll_write_vectored(cx, &bytes[first..first + plain]),
        }
    }

    fn is_write_vectored(&self) -> bool {
        // So hyper hands placeholders on, and does not copy them.
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::{Buf, Bytes};
    use std::future::poll_fn;
    use std::io::Write;
    use tokio::io::AsyncReadExt;
    use tokio::net::{TcpListener, TcpStream, UnixStream};

    const LEN: usize = 3 * MOST + 17;

    /// A file of bytes that differ, and these.
    fn file() -> (Arc<File>, Vec<u8>) {
        let bytes: Vec<u8> = (0..LEN).map(|i| (i % 251) as u8).collect();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bytes).unwrap();
        (Arc::new(file), bytes)
    }

    async fn tcp() -> (Socket, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let theirs = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (Socket::Tcp(listener.accept().await.unwrap().0), theirs)
    }

    /// Writes as hyper does: several pieces at once, each dropped once it is written.
    async fn write_all(stream: &mut FileStream, mut pieces: VecDeque<Bytes>) -> io::Result<()> {
        while !pieces.is_empty() {
            let slices: Vec<IoSlice<'_>> = pieces.iter().take(16).map(|piece| IoSlice::new(piece)).collect();
            let mut written = poll_fn(|cx| Pin::new(&mut *stream).poll_write_vectored(cx, &slices)).await?;
            while let Some(piece) = pieces.front_mut() {
                let part = written.min(piece.len());
                piece.advance(part);
                written -= part;
                if !piece.is_empty() {
                    break;
                }
                pieces.pop_front();
            }
        }
        Ok(())
    }

    async fn assert_interleaved((ours, mut theirs): (Socket, impl AsyncRead + Unpin + Send + 'static), copies: bool) {
        let (file, bytes) = file();
        let parts = FileParts::default();
        let part = |offset: usize, len: usize| parts.add(Arc::clone(&file), offset as u64, len as u64, ());
        let text = Bytes::from_static;
        let pieces =
            [text(b"head"), part(0, MOST), part(MOST, 5), text(b""), text(b"middle"), part(LEN - 1, 1), part(7, MOST)];
        let expected = [b"head", &bytes[..MOST + 5], b"middle", &bytes[LEN - 1..], &bytes[7..MOST + 7]].concat();
        let reader = tokio::spawn(async move {
            let mut all = vec![];
            theirs.read_to_end(&mut all).await.unwrap();
            all
        });
        let mut stream = FileStream { copies, ..FileStream::new(ours, parts.clone()) };
        write_all(&mut stream, pieces.into()).await.unwrap();
        drop(stream);
        assert!(reader.await.unwrap() == expected);
        assert!(parts.queue().is_empty() && !parts.0.is_broken.load(Ordering::Relaxed));
    }

    #[tokio::test]
    async fn parts_of_a_file_are_sent_in_their_places_between_bytes() {
        assert_interleaved(tcp().await, false).await;
        assert_interleaved(tcp().await, true).await;
        let (ours, theirs) = UnixStream::pair().unwrap();
        assert_interleaved((Socket::Unix(ours), theirs), false).await;
    }

    #[tokio::test]
    async fn a_part_holds_what_it_was_given_until_it_is_sent() {
        let ((file, _), (ours, mut theirs)) = (file(), tcp().await);
        let (parts, held) = (FileParts::default(), Arc::new(()));
        let part = parts.add(file, 0, 3, Arc::clone(&held));
        assert_eq!(Arc::strong_count(&held), 2);
        write_all(&mut FileStream::new(ours, parts), [part].into()).await.unwrap();
        assert_eq!(Arc::strong_count(&held), 1);
        theirs.read_exact(&mut [0; 3]).await.unwrap();
    }

    #[tokio::test]
    async fn a_part_that_goes_away_unsent_ends_the_connection() {
        let ((file, _), (ours, _theirs)) = (file(), tcp().await);
        let parts = FileParts::default();
        let (first, second) = (parts.add(Arc::clone(&file), 0, 3, ()), parts.add(file, 3, 3, ()));
        drop(first);
        assert!(write_all(&mut FileStream::new(ours, parts), [second].into()).await.is_err());
    }

    #[tokio::test]
    async fn a_placeholder_of_another_connection_is_never_sent_as_bytes() {
        let ((file, _), (ours, _theirs)) = (file(), tcp().await);
        let part = FileParts::default().add(file, 0, 3, ());
        assert!(write_all(&mut FileStream::new(ours, FileParts::default()), [part].into()).await.is_err());
    }

    #[tokio::test]
    async fn a_file_that_became_shorter_breaks_the_response_off() {
        let ((file, _), (ours, _theirs)) = (file(), tcp().await);
        let parts = FileParts::default();
        let part = parts.add(Arc::clone(&file), 0, 10, ());
        file.set_len(4).unwrap();
        let error = write_all(&mut FileStream::new(ours, parts), [part].into()).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}
