//! A round of sending: the calling thread reads and hashes slices, several threads post them, a bounded queue lies
//! between. The [`Buffers`] bound the memory.
//!
//! A thread that fails raises the [`RoundStop`]; the others finish the request they are in and stop.
//!
//! It uses sources and the client. The order of an upload's questions is not decided here.

use crate::client::error::CallError;
use crate::client::requests::{OutgoingSlice, UploadRequests};
use crate::client::server_digests::ServerDigests;
use crate::pipeline::buffers::Buffers;
use crate::pipeline::concurrency::Concurrency;
use crate::pipeline::error::RoundError;
use crate::pipeline::local_digests::LocalDigests;
use crate::pipeline::reader::{Slice, SliceContent, SliceReader};
use crate::pipeline::round_stop::{RoundStop, StopReason};
use crate::pipeline::slow_line::SlowLineDetector;
use crate::stop::{StopSignal, is_closed};
use bigup_core::protocol::digest::Digest;
use bigup_core::protocol::native::ErrorCode;
use bigup_core::protocol::plan::Plan;
use crossbeam_channel::{Receiver, Sender, select};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, Scope};

pub mod buffers;
pub mod concurrency;
pub mod error;
pub mod local_digests;
pub mod reader;
pub mod round_stop;
pub mod sender_tuning;
pub mod slice_size;
pub mod slow_line;

/// The work of the senders.
pub struct RoundWork<'a> {
    /// The upload.
    pub requests: &'a UploadRequests<'a>,
    /// The cut of the file.
    pub plan: &'a Plan,
    /// Slices that are to be sent only where their content differs.
    pub held: &'a ServerDigests,
    /// The place where our digests are noted.
    pub local: &'a LocalDigests,
    /// The rate at which slices leave.
    pub slow_line: &'a SlowLineDetector,
}

/// The end of a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoundEnd {
    /// All slices are stored.
    Sent,
    /// The server says that the file is finished, with this digest if it says so; some slices may not have been sent.
    Finished(Option<Digest>),
    /// The server does not know the upload any more.
    Lost,
    /// Nothing was stored, since slices take too long on this line. This size, in bytes, would not.
    TooSlow(u64),
}

/// The state that the senders of one round share.
struct Round<'a> {
    work: &'a RoundWork<'a>,
    concurrency: &'a Concurrency,
    /// Most senders.
    most: usize,
    slices: Receiver<Slice>,
    buffers: &'a Buffers,
    round_stop: &'a RoundStop,
    at_work: AtomicUsize,
}

/// Sends all slices that `feed` gives.
///
/// # Errors
/// A slice could not be read or sent; [`RoundError::Overtaken`] where another push may be at work on the upload.
pub fn run(
    work: &RoundWork<'_>,
    feed: &mut dyn SliceReader,
    buffers: &Buffers,
    concurrency: &Concurrency,
) -> Result<RoundEnd, RoundError> {
    let round_stop = RoundStop::new();
    let (queue, slices) = crossbeam_channel::bounded(concurrency.queue_size());
    let most = concurrency.most(work.plan.slice_size.unwrap_or(0));
    let round =
        Round { work, concurrency, most, slices, buffers, round_stop: &round_stop, at_work: AtomicUsize::new(0) };
    work.requests.heard(|| {
        with_stop(work.requests.stop, &round_stop, || {
            thread::scope(|scope| {
                round.fit(scope);
                read_all(feed, queue, buffers, &round_stop);
            });
        });
    });
    let senders = round.senders();
    drop(round);
    match round_stop.into_reason() {
        None => Ok(RoundEnd::Sent),
        Some(StopReason::Finished(digest)) => Ok(RoundEnd::Finished(digest)),
        Some(StopReason::Lost) => Ok(RoundEnd::Lost),
        Some(StopReason::TooSlow) => Ok(RoundEnd::TooSlow(work.slow_line.fitting(senders))),
        Some(StopReason::Failed(error)) => Err(error),
    }
}

/// Does `work`, and raises `round_stop` when the user's `stop` is closed before it ends.
fn with_stop(stop: &StopSignal, round_stop: &RoundStop, work: impl FnOnce()) {
    let (done, ended) = crossbeam_channel::bounded::<()>(0);
    thread::scope(|scope| {
        scope.spawn(move || {
            select! {
                recv(stop) -> _ => round_stop.raise(StopReason::Failed(RoundError::Stopped)),
                recv(ended) -> _ => {}
            }
        });
        work();
        drop(done);
    });
}

fn read_all(feed: &mut dyn SliceReader, queue: Sender<Slice>, buffers: &Buffers, round_stop: &RoundStop) {
    loop {
        let slice = match feed.next(buffers, round_stop.signal()) {
            Ok(Some(slice)) => slice,
            Ok(None) => return,
            Err(error) => return round_stop.raise(StopReason::Failed(error)),
        };
        select! {
            // The senders never go before the queue is closed, unless they panic: then nobody is left to fail.
            send(queue, slice) -> sent => if sent.is_err() { return },
            recv(round_stop.signal()) -> _ => return,
        }
    }
}

impl Round<'_> {
    /// Starts senders until there are as many as there should be.
    fn fit<'scope>(&'scope self, scope: &'scope Scope<'scope, '_>) {
        let one_more = |at_work: usize| (at_work < self.concurrency.width(self.most)).then_some(at_work + 1);
        while self.at_work.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_ok() {
            scope.spawn(move || self.send_all(scope));
        }
    }

    /// Number of senders that have something to send.
    fn senders(&self) -> usize {
        let slices = self.work.plan.slice_num.and_then(|num| usize::try_from(num).ok()).unwrap_or(usize::MAX);
        self.at_work.load(Ordering::Relaxed).min(slices)
    }

    /// True if there is a sender too many; the asker, if so, counts no more.
    fn is_one_too_many(&self) -> bool {
        let one_less = |at_work: usize| (at_work > self.concurrency.width(self.most)).then_some(at_work - 1);
        self.at_work.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_ok()
    }

    fn send_all<'scope>(&'scope self, scope: &'scope Scope<'scope, '_>) {
        for slice in &self.slices {
            if self.round_stop.is_raised() {
                return;
            }
            match self.send(&slice) {
                Ok(None) => {}
                Ok(Some(verdict)) => self.round_stop.raise(verdict),
                Err(error) => self.round_stop.raise(StopReason::Failed(error)),
            }
            if let SliceContent::Bytes(bytes) = slice.content {
                self.buffers.give_back(bytes);
            }
            if self.is_one_too_many() {
                return;
            }
            self.fit(scope);
        }
    }

    /// Sends one slice unless the server has its content; a verdict where nothing more is to be sent.
    fn send(&self, slice: &Slice) -> Result<Option<StopReason>, RoundError> {
        let work = self.work;
        let Slice { id, digest: own, content } = slice;
        let (id, own, len) = (*id, *own, content.size());
        if !work.local.learn(id, own) {
            return Err(RoundError::SliceChanged(id));
        }
        let held = work.held.has(work.plan, id, own, |hasher| content.digest_by(hasher));
        let watch = |left| !is_closed(work.requests.stop) && work.slow_line.left(left, len, self.senders());
        let offset = work.plan.offset_of(id);
        let (bytes, zeroes) = match content {
            SliceContent::Bytes(bytes) => (&bytes[..], None),
            SliceContent::Zeroes(len) => (&[][..], Some(*len)),
        };
        let sending = OutgoingSlice { id, offset, digest: own, bytes, zeroes };
        let put = |slice: &OutgoingSlice<'_>| work.requests.put(slice, self.round_stop.signal(), &watch);
        let answer = match (held, zeroes) {
            (true, _) => None,
            (false, None) => Some(put(&sending)),
            (false, Some(zeroes)) => Some(put(&sending).or_else(|error| match error.code() {
                // Of several daemons this one may be older than the one that was asked.
                Some(ErrorCode::BadRequest) => {
                    put(&OutgoingSlice { bytes: &vec![0; zeroes as usize], zeroes: None, ..sending })
                }
                _ => Err(error),
            })),
        };
        let verdict = match answer.transpose() {
            Ok(answer) => answer
                .filter(|answer| answer.is_uploaded == 1)
                .map(|answer| StopReason::Finished(answer.file_digest.and_then(|digest| digest.parse().ok()))),
            Err(CallError::Stopped) if is_closed(work.requests.stop) => return Err(RoundError::Stopped),
            Err(CallError::Stopped) => return Ok(work.slow_line.is_too_slow().then_some(StopReason::TooSlow)),
            Err(error) if error.code() == Some(ErrorCode::NoUpload) => return Ok(Some(StopReason::Lost)),
            Err(error) => return Err(failed(id, error)),
        };
        work.slow_line.stored();
        self.concurrency.stored(bytes.len() as u64);
        work.local.settle(id);
        work.requests.retry.renew();
        // Of zeroes nothing is sent either.
        if held || zeroes.is_some() {
            work.requests.observer.matched(len)
        } else {
            work.requests.observer.sent(len)
        }
        Ok(verdict)
    }
}

fn failed(id: u64, error: CallError) -> RoundError {
    match error.code() {
        Some(ErrorCode::Busy | ErrorCode::Conflict | ErrorCode::Exists) => RoundError::Overtaken { id, error },
        _ => RoundError::Slice { id, error },
    }
}
