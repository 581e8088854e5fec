//! Connections side by side, each of which reads runs of missing pieces.
//!
//! Long runs at first, so that few requests are made, and shorter ones towards the end, so that all connections end at
//! the same time. A unit that turns out to be wrong is fetched once more.

use crate::client::content::{READ_LEN, ReadError};
use crate::client::error::CallError;
use crate::download::error::DownloadError;
use crate::download::part::Sink;
use crate::download::pieces::Pieces;
use crate::download::{DownloadContext, RemoteFile};
use crate::pipeline::concurrency::FAR;
use crate::stop::Stop;
use bigup_core::protocol::digest::SliceHasher;
use std::ops::Range;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, Scope};

/// Most pieces of a run, from a server that is near and from one that is far away. On a long line a connection is slow by
/// itself, and one too many leaves only at the end of its run.
const MOST_OF_A_RUN: (usize, usize) = (32, 4);

/// The pieces, and who fetches which. Shared by all connections.
pub struct Board {
    state: Mutex<State>,
    changed: Condvar,
    /// Ends all connections.
    stop: Stop,
}

struct State {
    pieces: Pieces,
    /// True for pieces that a connection reads now.
    taken: Vec<bool>,
    /// The first piece that may not be fetched yet.
    limit: usize,
    /// Pieces before it are all there.
    first_missing: usize,
    /// True for units that were wrong once.
    wrong: Vec<bool>,
    /// Connections that look for work.
    at_work: usize,
    /// The reason of a failure, until it is told.
    failure: Option<DownloadError>,
    has_failed: bool,
}

/// A download at work.
pub struct Fetch<'a> {
    /// Its tools.
    pub cx: &'a DownloadContext<'a>,
    /// The file.
    pub file: &'a RemoteFile,
    /// Its pieces.
    pub board: &'a Board,
    /// Takes the pieces.
    pub sink: &'a dyn Sink,
}

/// A run of pieces as it is read.
struct Run {
    pieces: Range<usize>,
    /// The next byte.
    at: u64,
    hasher: SliceHasher,
}

impl Board {
    /// Missing ones of `pieces` are to be fetched, those before `limit` at first.
    pub fn new(pieces: Pieces, limit: usize) -> Board {
        let (taken, wrong) = (vec![false; pieces.len()], vec![false; pieces.units()]);
        let state =
            State { pieces, taken, limit, first_missing: 0, wrong, at_work: 0, failure: None, has_failed: false };
        Board { state: Mutex::new(state), changed: Condvar::new(), stop: Stop::new() }
    }

    /// Waits until unit `unit` is right; false if the download failed.
    pub fn wait_for(&self, unit: usize) -> bool {
        let is_pending = |state: &mut State| !state.has_failed && state.pieces.check(unit) != Some(true);
        let state = self.changed.wait_while(self.lock(), is_pending).unwrap_or_else(PoisonError::into_inner);
        !state.has_failed
    }

    /// Pieces before `limit` may be fetched from now on.
    pub fn allow(&self, limit: usize) {
        self.lock().limit = limit;
        self.changed.notify_all();
    }

    /// Ends the download for this reason, unless there is one already.
    pub fn fail(&self, error: DownloadError) {
        let mut state = self.lock();
        if !std::mem::replace(&mut state.has_failed, true) {
            state.failure = Some(error);
        }
        drop(state);
        self.changed.notify_all();
        self.stop.stop();
    }

    /// The number of connections, if there are no more than `width`; `None`: there is one too many, which leaves with
    /// this.
    fn stay(&self, width: usize) -> Option<usize> {
        let mut state = self.lock();
        if state.at_work > width {
            state.at_work -= 1;
            return None;
        }
        Some(state.at_work)
    }

    /// A connection leaves.
    fn leave(&self) {
        self.lock().at_work -= 1;
    }

    /// The next run of pieces for one of `connections`. `None`: there is no more work.
    fn take(&self, connections: usize, is_far: bool) -> Option<Range<usize>> {
        let most_of_a_run = if is_far { MOST_OF_A_RUN.1 } else { MOST_OF_A_RUN.0 };
        let mut state = self.lock();
        loop {
            if state.has_failed {
                return None;
            }
            let len = state.pieces.len();
            while state.first_missing < len && state.pieces.value(state.first_missing).is_some() {
                state.first_missing += 1;
            }
            if state.first_missing == len {
                return None;
            }
            let is_free = |state: &State, index: usize| state.pieces.value(index).is_none() && !state.taken[index];
            let end = state.limit.min(len);
            if let Some(start) = (state.first_missing..end).find(|index| is_free(&state, *index)) {
                let most = ((end - start) / (2 * connections.max(1))).clamp(1, most_of_a_run);
                let run = start
                    ..(start..(start + most).min(end))
                        .find(|i| !is_free(&state, *i))
                        .unwrap_or((start + most).min(end));
                run.clone().for_each(|index| state.taken[index] = true);
                return Some(run);
            }
            // Others read the rest, which may turn out to be wrong.
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn give_back(&self, pieces: Range<usize>) {
        let mut state = self.lock();
        pieces.for_each(|index| state.taken[index] = false);
        drop(state);
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Fetch<'_> {
    /// Fetches all pieces that are missing.
    ///
    /// # Errors
    /// Any [`DownloadError`].
    pub fn run(&self) -> Result<(), DownloadError> {
        if self.is_far() {
            self.cx.concurrency.reach_far();
        }
        let (done, ended) = crossbeam_channel::bounded::<()>(0);
        thread::scope(|scope| {
            scope.spawn(move || {
                crossbeam_channel::select! {
                    recv(self.cx.stop) -> _ => self.board.fail(DownloadError::Stopped),
                    recv(ended) -> _ => {}
                }
            });
            thread::scope(|scope| self.fit(scope));
            drop(done);
        });
        let mut state = self.board.lock();
        match state.failure.take() {
            Some(error) => Err(error),
            None if state.pieces.is_whole() => Ok(()),
            None => Err(DownloadError::Incomplete(self.file.name.clone())),
        }
    }

    fn is_far(&self) -> bool {
        self.cx.client.distance().is_some_and(|distance| distance >= FAR)
    }

    fn most(&self) -> usize {
        let state = self.board.lock();
        self.cx.concurrency.most(READ_LEN as u64).min(state.pieces.len().max(1))
    }

    /// Starts connections until there are as many as there should be.
    fn fit<'scope>(&'scope self, scope: &'scope Scope<'scope, '_>) {
        let width = self.cx.concurrency.width(self.most());
        let missing = {
            let mut state = self.board.lock();
            let missing = width.saturating_sub(state.at_work);
            state.at_work += missing;
            missing
        };
        for _ in 0..missing {
            scope.spawn(move || self.work(scope));
        }
    }

    fn work<'scope>(&'scope self, scope: &'scope Scope<'scope, '_>) {
        loop {
            let width = self.cx.concurrency.width(self.most()).max(1);
            let Some(at_work) = self.board.stay(width) else { return };
            let Some(pieces) = self.board.take(at_work, self.is_far()) else { return self.board.leave() };
            let result = self.read(pieces.clone(), scope);
            self.board.give_back(pieces);
            if let Err(error) = result {
                self.board.fail(error);
                return self.board.leave();
            }
            self.fit(scope);
        }
    }

    /// Reads a run of pieces; goes on behind the last byte that came where the connection breaks.
    fn read<'scope>(&'scope self, pieces: Range<usize>, scope: &'scope Scope<'scope, '_>) -> Result<(), DownloadError> {
        let (hasher, start, end) = {
            let state = self.board.lock();
            let all = &state.pieces;
            (all.hasher(pieces.start), all.bytes_of(pieces.start).start, all.bytes_of(pieces.end - 1).end)
        };
        let (mut run, mut failure) = (Run { pieces, at: start, hasher }, None);
        let result = self.cx.retry.call(self.cx.observer, self.board.stop.signal(), None, || {
            if run.at == end {
                return Ok(());
            }
            let range = run.at..end;
            let read = self.cx.client.read_range(
                &self.file.name,
                self.file.digest,
                range,
                self.board.stop.signal(),
                |bytes| {
                    self.take_in(&mut run, bytes)?;
                    self.count(bytes.len());
                    // A run can take minutes: others need not wait for its end.
                    self.fit(scope);
                    Ok(())
                },
            );
            match read {
                Err(ReadError::Call(error)) => Err(error),
                Err(ReadError::Reader(error)) => {
                    failure = Some(error);
                    Ok(())
                }
                Ok(()) => Ok(()),
            }
        });
        if let Some(error) = failure {
            return Err(error);
        }
        result.map_err(|error| match error.last() {
            CallError::Refused { status: 412, .. } => DownloadError::Replaced(self.file.name.clone()),
            CallError::Stopped => DownloadError::Stopped,
            _ => DownloadError::Call(error),
        })
    }

    /// Bytes came. Where there are more connections than there should be, since their runs have not ended, the rate says
    /// nothing of the number that is tried.
    fn count(&self, len: usize) {
        let at_work = self.board.lock().at_work;
        if len > 0 && at_work <= self.cx.concurrency.width(self.most()) {
            self.cx.concurrency.stored(len as u64);
        }
    }

    /// Takes bytes of a run: they are written, and each piece that is whole is noted.
    fn take_in(&self, run: &mut Run, mut bytes: &[u8]) -> Result<(), DownloadError> {
        while !bytes.is_empty() {
            let of_piece = self.board.lock().pieces.bytes_of(run.pieces.start);
            let len = bytes.len().min((of_piece.end - run.at) as usize);
            let (now, later) = bytes.split_at(len);
            run.hasher.update(now);
            self.sink.write(now, run.at)?;
            (bytes, run.at) = (later, run.at + len as u64);
            if run.at == of_piece.end {
                self.end_piece(run, of_piece.end - of_piece.start)?;
            }
        }
        Ok(())
    }

    fn end_piece(&self, run: &mut Run, len: u64) -> Result<(), DownloadError> {
        let (index, value) = (run.pieces.start, run.hasher.finish().digest);
        self.sink.note(index, Some(value))?;
        let mut state = self.board.lock();
        state.pieces.set(index, Some(value));
        let unit = index / state.pieces.unit_len();
        let is_wrong = state.pieces.check(unit) == Some(false);
        if is_wrong {
            self.again(&mut state, unit)?;
        }
        run.pieces.start += 1;
        if run.pieces.start < run.pieces.end {
            run.hasher = state.pieces.hasher(run.pieces.start);
        }
        drop(state);
        self.board.changed.notify_all();
        self.cx.retry.renew();
        self.cx.observer.sent(len);
        Ok(())
    }

    /// Unit `unit` is wrong: its pieces are fetched again, once.
    fn again(&self, state: &mut State, unit: usize) -> Result<(), DownloadError> {
        let bytes = state.pieces.bytes_of_unit(unit);
        let name = self.file.name.clone();
        let was_wrong = std::mem::replace(&mut state.wrong[unit], true);
        for index in state.pieces.pieces_of(unit) {
            self.sink.note(index, None)?;
            state.pieces.set(index, None);
            state.taken[index] = false;
        }
        state.first_missing = state.first_missing.min(state.pieces.pieces_of(unit).start);
        if was_wrong {
            return Err(DownloadError::Damaged { name, first: bytes.start, last: bytes.end - 1 });
        }
        let (first, last) = (bytes.start, bytes.end - 1);
        self.cx.observer.noted(&format!("the bytes {first} to {last} are wrong: they are fetched again"));
        Ok(())
    }
}
