//! One round of sending: the calling thread reads and hashes slices, several threads post them, a bounded queue lies
//! between. Memory is what the pool has and no more.
//!
//! Whoever fails raises the halt; the others finish the request they are in and stop.
//!
//! It uses sources and the client. The order of an upload's questions is not decided here.

use crate::client::error::CallError;
use crate::client::requests::{OutgoingSlice, UploadRequests};
use crate::client::server_digests::ServerDigests;
use crate::pipeline::buffers::Buffers;
use crate::pipeline::concurrency::Concurrency;
use crate::pipeline::error::RoundError;
use crate::pipeline::local_digests::LocalDigests;
use crate::pipeline::reader::{Slice, SliceReader};
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

/// What the senders work on.
pub struct RoundWork<'a> {
    /// The upload.
    pub remote: &'a UploadRequests<'a>,
    /// How it is cut.
    pub plan: &'a Plan,
    /// Slices that are to be sent only where their content differs.
    pub held: &'a ServerDigests,
    /// Where our digests are noted.
    pub ledger: &'a LocalDigests,
    /// How fast slices leave.
    pub gauge: &'a SlowLineDetector,
}

/// How a round ended.
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

/// What the senders of one round share.
struct Round<'a> {
    work: &'a RoundWork<'a>,
    lanes: &'a Concurrency,
    /// Most senders.
    most: usize,
    slices: Receiver<Slice>,
    pool: &'a Buffers,
    halt: &'a RoundStop,
    at_work: AtomicUsize,
}

/// Sends all slices that `feed` gives.
///
/// # Errors
/// A slice could not be read or sent; [`RoundError::Overtaken`] where another push may be at work on the upload.
pub fn run(
    work: &RoundWork<'_>,
    feed: &mut dyn SliceReader,
    pool: &Buffers,
    lanes: &Concurrency,
) -> Result<RoundEnd, RoundError> {
    let halt = RoundStop::new();
    let (queue, slices) = crossbeam_channel::bounded(lanes.queue_size());
    let most = lanes.most(work.plan.slice_size.unwrap_or(0));
    let round = Round { work, lanes, most, slices, pool, halt: &halt, at_work: AtomicUsize::new(0) };
    work.remote.heard(|| {
        with_stop(work.remote.stop, &halt, || {
            thread::scope(|scope| {
                round.fit(scope);
                read_all(feed, queue, pool, &halt);
            });
        });
    });
    let senders = round.senders();
    drop(round);
    match halt.into_reason() {
        None => Ok(RoundEnd::Sent),
        Some(StopReason::Finished(digest)) => Ok(RoundEnd::Finished(digest)),
        Some(StopReason::Lost) => Ok(RoundEnd::Lost),
        Some(StopReason::TooSlow) => Ok(RoundEnd::TooSlow(work.gauge.fitting(senders))),
        Some(StopReason::Failed(error)) => Err(error),
    }
}

/// Does `work`, and raises `halt` when the user's `stop` is closed before it ends.
fn with_stop(stop: &StopSignal, halt: &RoundStop, work: impl FnOnce()) {
    let (done, ended) = crossbeam_channel::bounded::<()>(0);
    thread::scope(|scope| {
        scope.spawn(move || {
            select! {
                recv(stop) -> _ => halt.raise(StopReason::Failed(RoundError::Stopped)),
                recv(ended) -> _ => {}
            }
        });
        work();
        drop(done);
    });
}

fn read_all(feed: &mut dyn SliceReader, queue: Sender<Slice>, pool: &Buffers, halt: &RoundStop) {
    loop {
        let slice = match feed.next(pool, halt.signal()) {
            Ok(Some(slice)) => slice,
            Ok(None) => return,
            Err(error) => return halt.raise(StopReason::Failed(error)),
        };
        select! {
            // The senders never go before the queue is closed, unless they panic: then nobody is left to fail.
            send(queue, slice) -> sent => if sent.is_err() { return },
            recv(halt.signal()) -> _ => return,
        }
    }
}

impl Round<'_> {
    /// Starts senders until there are as many as there should be.
    fn fit<'scope>(&'scope self, scope: &'scope Scope<'scope, '_>) {
        let one_more = |at_work: usize| (at_work < self.lanes.width(self.most)).then_some(at_work + 1);
        while self.at_work.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_ok() {
            scope.spawn(move || self.send_all(scope));
        }
    }

    /// How many senders have something to send.
    fn senders(&self) -> usize {
        let slices = self.work.plan.slice_num.and_then(|num| usize::try_from(num).ok()).unwrap_or(usize::MAX);
        self.at_work.load(Ordering::Relaxed).min(slices)
    }

    /// Whether there is a sender too many; the asker, if so, counts no more.
    fn is_one_too_many(&self) -> bool {
        let one_less = |at_work: usize| (at_work > self.lanes.width(self.most)).then_some(at_work - 1);
        self.at_work.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_ok()
    }

    fn send_all<'scope>(&'scope self, scope: &'scope Scope<'scope, '_>) {
        for slice in &self.slices {
            if self.halt.is_raised() {
                return;
            }
            match self.send(&slice) {
                Ok(None) => {}
                Ok(Some(verdict)) => self.halt.raise(verdict),
                Err(error) => self.halt.raise(StopReason::Failed(error)),
            }
            self.pool.give_back(slice.bytes);
            if self.is_one_too_many() {
                return;
            }
            self.fit(scope);
        }
    }

    /// Sends one slice unless the server has its content; a verdict where nothing more is to be sent.
    fn send(&self, slice: &Slice) -> Result<Option<StopReason>, RoundError> {
        let work = self.work;
        let Slice { id, digest: own, bytes } = slice;
        let (id, own, len) = (*id, *own, bytes.len() as u64);
        if !work.ledger.learn(id, own) {
            return Err(RoundError::SliceChanged(id));
        }
        let held = work.held.has(work.plan, id, own, bytes);
        let watch = |left| !is_closed(work.remote.stop) && work.gauge.left(left, len, self.senders());
        let sending = OutgoingSlice { id, offset: work.plan.offset_of(id), digest: own, bytes };
        let answer = if held { None } else { Some(work.remote.put(&sending, self.halt.signal(), &watch)) };
        let verdict = match answer.transpose() {
            Ok(answer) => answer
                .filter(|answer| answer.is_uploaded == 1)
                .map(|answer| StopReason::Finished(answer.file_digest.and_then(|digest| digest.parse().ok()))),
            Err(CallError::Stopped) if is_closed(work.remote.stop) => return Err(RoundError::Stopped),
            Err(CallError::Stopped) => return Ok(work.gauge.is_too_slow().then_some(StopReason::TooSlow)),
            Err(error) if error.code() == Some(ErrorCode::NoUpload) => return Ok(Some(StopReason::Lost)),
            Err(error) => return Err(failed(id, error)),
        };
        work.gauge.stored();
        self.lanes.stored(len);
        work.ledger.settle(id);
        work.remote.patience.renew();
        if held {
            work.remote.observer.matched(len)
        } else {
            work.remote.observer.sent(len)
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
