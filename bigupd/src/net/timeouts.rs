//! A connection's stream with time limits, for hyper to read requests from and write responses to.
//!
//! hyper has a single limit for request headers (`header_read_timeout`), which runs from the end of the previous
//! response, and no limit for responses that are not read. Here a header has its time from its own first byte on, an
//! idle connection another, and a response must be taken at the pace of a body.

use crate::net::body_memory::BODIES;
use crate::net::limits::Limits;
use crate::net::min_rate::{MinRate, TooSlow};
use bytes::Bytes;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

/// Time between two looks for a first request, on the few connections that are made as the daemon stops.
const FIRST_LOOK_EVERY: Duration = Duration::from_millis(10);

/// Counts the begins and ends of requests on one connection: odd while one is being answered.
#[derive(Clone, Debug, Default)]
pub struct RequestTurns(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    turn: AtomicU64,
    /// During which turn the next request is waited for, after the last byte was written. 0: it is not.
    waited: AtomicU64,
}

impl RequestTurns {
    /// A request's header came whole, or its response is ready.
    pub fn next(&self) {
        self.0.turn.fetch_add(1, Ordering::Relaxed);
    }

    /// Waits until the header of a first request came whole.
    pub async fn first(&self) {
        while self.now() == 0 {
            tokio::time::sleep(FIRST_LOOK_EVERY).await;
        }
    }

    fn now(&self) -> u64 {
        self.0.turn.load(Ordering::Relaxed)
    }

    fn wait(&self) {
        self.0.waited.store(self.now(), Ordering::Relaxed);
    }

    fn go_on(&self) {
        self.0.waited.store(0, Ordering::Relaxed);
    }

    /// Waits until the connection has rested for `time` or a little longer: a response was sent and taken whole, and
    /// nothing came since.
    pub async fn rest(&self, time: Duration) {
        let mut before = None;
        loop {
            let turn = self.now();
            let rests = turn > 0 && self.0.waited.load(Ordering::Relaxed) == turn;
            if rests && before == Some(turn) {
                return;
            }
            before = rests.then_some(turn);
            tokio::time::sleep(time).await;
        }
    }
}

/// The timeout that ended a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timeout {
    /// A request's header did not come whole.
    Head,
    /// Nothing of another request came.
    Idle,
    /// A response was not read.
    Reader,
}

/// The next event that must come, its deadline, and the turn during which that holds.
struct Due {
    turn: u64,
    late: Timeout,
    at: Instant,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Due {
    fn within(time: Duration, turn: u64, late: Timeout) -> Due {
        Due { turn, late, at: Instant::now() + time, timer: None }
    }
}

/// The stream.
pub struct TimedStream<S> {
    stream: S,
    turns: RequestTurns,
    header_timeout: Duration,
    idle_timeout: Duration,
    due: Due,
    pace: MinRate,
    /// Since when the reader is waited for.
    blocked: Option<Instant>,
    write_timer: Option<Pin<Box<Sleep>>>,
    /// Bytes of a request came, and no response to it was begun.
    owes_answer: bool,
    late: Option<Timeout>,
    /// Bytes that came and are to be read first.
    unread: Bytes,
}

impl<S> TimedStream<S> {
    /// A stream just opened: the first header is due now.
    pub fn new(stream: S, turns: RequestTurns, limits: &Limits) -> TimedStream<S> {
        TimedStream {
            stream,
            due: Due::within(limits.header_timeout, turns.now(), Timeout::Head),
            turns,
            header_timeout: limits.header_timeout,
            idle_timeout: limits.idle_timeout,
            pace: MinRate::new(limits),
            blocked: None,
            write_timer: None,
            owes_answer: false,
            late: None,
            unread: Bytes::new(),
        }
    }

    /// Takes back bytes that were read of the next request, so that they are read again.
    pub fn unread(&mut self, bytes: Bytes) {
        self.came(bytes.len());
        self.unread = bytes;
    }

    /// The timeout that ended it. `None` if there was none.
    pub fn late(&self) -> Option<Timeout> {
        self.late
    }

    /// True if part of a request came to which no response was begun, and one can be written.
    pub fn owes_answer(&self) -> bool {
        self.owes_answer && self.blocked.is_none()
    }

    /// The stream itself.
    pub fn into_inner(self) -> S {
        self.stream
    }

    /// Bytes came, or the other side ended.
    fn came(&mut self, bytes: usize) {
        let turn = self.turns.now();
        if bytes == 0 || !turn.is_multiple_of(2) {
            return;
        }
        self.owes_answer = true;
        self.turns.go_on();
        if self.due.turn != turn || self.due.late == Timeout::Idle {
            self.due = Due::within(self.header_timeout, turn, Timeout::Head);
        }
    }

    /// Nothing comes: ready once that is so for too long. Bodies have limits of their own.
    fn request_is_late(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let turn = self.turns.now();
        if !turn.is_multiple_of(2) {
            return Poll::Pending;
        }
        if self.due.turn != turn {
            self.due = Due::within(self.idle_timeout, turn, Timeout::Idle);
        }
        if self.due.late == Timeout::Idle && self.blocked.is_none() {
            self.turns.wait();
        }
        let Due { at, timer, late, .. } = &mut self.due;
        ready!(timer.get_or_insert_with(|| Box::pin(sleep_until(*at))).as_mut().poll(cx));
        self.late = Some(*late);
        Poll::Ready(io::ErrorKind::TimedOut.into())
    }

    /// The outcome of an attempt to write `len` bytes.
    fn wrote(&mut self, outcome: Poll<io::Result<usize>>, len: usize, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.turns.go_on();
        match outcome {
            Poll::Ready(Ok(written)) => {
                self.owes_answer = false;
                let waited = self.blocked.take().map_or(Duration::ZERO, |since| since.elapsed());
                self.write_timer = None;
                if written < len {
                    self.blocked = Some(Instant::now());
                }
                let judgement = self.pace.waited(waited, written as u64);
                Poll::Ready(self.judged(judgement).map(|()| written))
            }
            Poll::Pending => {
                ready!(self.reader_is_late(cx))?;
                Poll::Pending
            }
            failed => failed,
        }
    }

    /// Ready once the reader is too slow.
    fn reader_is_late(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let since = *self.blocked.get_or_insert_with(Instant::now);
            let until = since + self.pace.patience();
            let timer = self.write_timer.get_or_insert_with(|| Box::pin(sleep_until(until)));
            ready!(timer.as_mut().poll(cx));
            (self.write_timer, self.blocked) = (None, Some(Instant::now()));
            let judgement = self.pace.waited(since.elapsed(), 0);
            self.judged(judgement)?;
        }
    }

    fn judged(&mut self, judgement: Result<(), TooSlow>) -> io::Result<()> {
        judgement.map_err(|_| {
            self.late = Some(Timeout::Reader);
            io::ErrorKind::TimedOut.into()
        })
    }
}

/// Reads at most `most` bytes into `buf`: hyper offers more where earlier reads brought much, and keeps that memory for
/// as long as any part of it is held.
fn poll_read_within(
    stream: Pin<&mut impl AsyncRead>,
    cx: &mut Context<'_>,
    buf: &mut ReadBuf<'_>,
    most: usize,
) -> Poll<io::Result<()>> {
    if buf.remaining() <= most {
        return stream.poll_read(cx, buf);
    }
    let mut part = ReadBuf::new(buf.initialize_unfilled_to(most));
    ready!(stream.poll_read(cx, &mut part))?;
    let read = part.filled().len();
    buf.advance(read);
    Poll::Ready(Ok(()))
}

impl<S: AsyncRead + Unpin> AsyncRead for TimedStream<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.unread.is_empty() {
            let len = buf.remaining().min(self.unread.len());
            buf.put_slice(&self.unread.split_to(len));
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        match poll_read_within(Pin::new(&mut self.stream), cx, buf, BODIES.read_len()) {
            Poll::Ready(Ok(())) => {
                self.came(buf.filled().len() - before);
                Poll::Ready(Ok(()))
            }
            Poll::Pending => self.request_is_late(cx).map(Err),
            failed => failed,
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for TimedStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.wrote(outcome, bytes.len(), cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(cx, bytes);
        self.wrote(outcome, bytes.iter().map(|slice| slice.len()).sum(), cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.turns.go_on();
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    const LIMIT: Duration = Duration::from_secs(30);

    /// A stream with a buffer of 100 bytes each way, and its other end. Time is the test's own.
    fn pair() -> (TimedStream<DuplexStream>, RequestTurns, DuplexStream) {
        let limits = Config::defaults("/d".into()).limits;
        let limits =
            Limits { header_timeout: LIMIT, idle_timeout: 2 * LIMIT, body_timeout: LIMIT, min_body_rate: 10, ..limits };
        let (ours, theirs) = duplex(100);
        let turns = RequestTurns::default();
        (TimedStream::new(ours, turns.clone(), &limits), turns, theirs)
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_head_is_due_when_the_connection_is_opened() {
        let (mut timed, _turns, _theirs) = pair();
        let began = Instant::now();
        assert_eq!(timed.read_u8().await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!((began.elapsed().as_secs(), timed.late(), timed.owes_answer()), (30, Some(Timeout::Head), false));
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_that_trickles_has_no_more_time_than_another() {
        let (mut timed, turns, mut theirs) = pair();
        timed.came(1);
        turns.next();
        turns.next();
        tokio::time::sleep(10 * LIMIT).await;
        let began = Instant::now();
        tokio::spawn(async move {
            while theirs.write_u8(b'G').await.is_ok() {
                tokio::time::sleep(LIMIT / 4).await;
            }
        });
        while timed.read_u8().await.is_ok() {}
        assert_eq!((began.elapsed(), timed.late(), timed.owes_answer()), (LIMIT, Some(Timeout::Head), true));
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_is_not_timed_here_and_an_idle_connection_by_another_limit() {
        let (mut timed, turns, _theirs) = pair();
        turns.next();
        assert!(tokio::time::timeout(10 * LIMIT, timed.read_u8()).await.is_err());
        assert_eq!(timed.late(), None);
        turns.next();
        let began = Instant::now();
        assert_eq!(timed.read_u8().await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!((began.elapsed(), timed.late()), (2 * LIMIT, Some(Timeout::Idle)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_that_begins_as_the_idle_time_ends_has_all_its_time() {
        let (mut timed, turns, mut theirs) = pair();
        turns.next();
        turns.next();
        tokio::spawn(async move {
            tokio::time::sleep(2 * LIMIT - Duration::from_secs(1)).await;
            theirs.write_u8(b'G').await.unwrap();
            tokio::time::sleep(LIMIT - Duration::from_secs(1)).await;
            theirs.write_u8(b'E').await.unwrap();
            tokio::time::sleep(LIMIT).await;
        });
        let began = Instant::now();
        while timed.read_u8().await.is_ok() {}
        let time = 3 * LIMIT - Duration::from_secs(1);
        assert_eq!((began.elapsed(), timed.late()), (time, Some(Timeout::Head)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_rests_once_an_answer_was_taken_and_nothing_comes() {
        let (mut timed, turns, mut theirs) = pair();
        let rests =
            async |turns: &RequestTurns| tokio::time::timeout(LIMIT / 10, turns.rest(LIMIT / 100)).await.is_ok();
        let wait = async |timed: &mut TimedStream<DuplexStream>| {
            assert!(tokio::time::timeout(LIMIT / 100, timed.read_u8()).await.is_err(), "nothing comes");
        };
        wait(&mut timed).await;
        assert!(!rests(&turns).await, "nothing was asked yet");
        turns.next();
        wait(&mut timed).await;
        assert!(!rests(&turns).await, "a request is being answered");
        turns.next();
        assert!(!rests(&turns).await, "nobody waits for the next one yet");
        wait(&mut timed).await;
        assert!(rests(&turns).await);
        theirs.write_u8(b'G').await.unwrap();
        timed.read_u8().await.unwrap();
        assert!(!rests(&turns).await, "a head begins");
        turns.next();
        turns.next();
        timed.write_all(&[0; 100]).await.unwrap();
        assert!(tokio::time::timeout(LIMIT / 100, timed.write_u8(0)).await.is_err());
        wait(&mut timed).await;
        assert!(!rests(&turns).await, "the answer was not taken whole");
        theirs.read_exact(&mut [0; 100]).await.unwrap();
        timed.write_u8(0).await.unwrap();
        assert!(!rests(&turns).await, "something was written since");
        wait(&mut timed).await;
        assert!(rests(&turns).await);
        timed.shutdown().await.unwrap();
        assert!(!rests(&turns).await, "it ends");
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_read_is_read_again_and_its_time_runs() {
        let (mut timed, turns, mut theirs) = pair();
        turns.next();
        turns.next();
        theirs.write_all(b"ET").await.unwrap();
        timed.unread(Bytes::from_static(b"G"));
        let mut all = [0; 3];
        timed.read_exact(&mut all).await.unwrap();
        assert_eq!(&all, b"GET");
        assert_eq!(timed.read_u8().await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(timed.late(), Some(Timeout::Head));
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_nobody_reads_ends_the_connection() {
        let (mut timed, _turns, _theirs) = pair();
        let began = Instant::now();
        assert_eq!(timed.write_all(&[0; 101]).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!((began.elapsed(), timed.late()), (LIMIT, Some(Timeout::Reader)));
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_read_at_the_pace_of_a_body() {
        for (bytes, is_enough) in [(1, false), (25, true)] {
            let (mut timed, _turns, mut theirs) = pair();
            tokio::spawn(async move {
                let mut block = vec![0; bytes];
                while theirs.read_exact(&mut block).await.is_ok() {
                    tokio::time::sleep(Duration::from_secs(2)).await;
                }
            });
            let written = timed.write_all(&[0; 2000]).await;
            assert_eq!((written.is_ok(), timed.late().is_none()), (is_enough, is_enough), "{bytes} bytes in 2 s");
        }
    }
}
