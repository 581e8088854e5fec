//! The questions of the protocol about one upload, each repeated while its failure may pass.

use crate::client::Client;
use crate::client::error::CallError;
use crate::client::observer::Observer;
use crate::client::query::Query;
use crate::client::retry::RetryBudget;
use crate::stop::{StopSignal, is_closed, sleep};
use bigup_core::protocol::digest::{Digest, SliceDigest};
use bigup_core::protocol::kept::Kept;
use bigup_core::protocol::name::FileName;
use bigup_core::protocol::native::{ErrorCode, SliceResponse, UploadResponse, param};
use crossbeam_channel::RecvTimeoutError;
use std::thread;
use std::time::Duration;

/// Longest time in which the server hears nothing of a push at work: a third of that after which it may let another one
/// go on with the upload.
const QUIET: Duration = Duration::from_secs(5);

/// Time between two looks at that clock.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// An upload, as the server is asked about it. Shared by the senders.
#[derive(Clone)]
pub struct UploadRequests<'a> {
    /// The server.
    pub client: &'a Client,
    /// Learns of retries.
    pub observer: &'a dyn Observer,
    /// The time of retries.
    pub retry: &'a RetryBudget,
    /// Closed when the user stops the upload.
    pub stop: &'a StopSignal,
    /// Name of the file.
    pub name: &'a FileName,
    /// Token of where the bytes come from.
    pub source: String,
    /// Bytes of the file; `None` while not known.
    pub file_size: Option<u64>,
    /// Bytes of a slice: what we would like, then what the upload has.
    pub slice_size: u64,
    /// Digest that the whole file must have; `None`: not said.
    pub file_digest: Option<Digest>,
    /// The facts of the file that the server is to keep.
    pub kept: Kept,
    /// True: say that a finished file of other content is to be replaced.
    pub replace: bool,
    /// True: say that the upload is to be cut anew, by `slice_size`, if nothing of it is held yet.
    pub recut: bool,
    /// With `recut`: whether what is held is to be dropped first.
    pub discard: bool,
}

/// A slice to be sent.
pub struct OutgoingSlice<'a> {
    /// Its number.
    pub id: u64,
    /// Offset in the file, in bytes, if it is known.
    pub offset: Option<u64>,
    /// Its digest.
    pub digest: SliceDigest,
    /// All of it.
    pub bytes: &'a [u8],
    /// So many zeroes are all of it, in place of `bytes`, which are empty then.
    pub zeroes: Option<u64>,
}

impl<'a> UploadRequests<'a> {
    /// The same, with these facts of the file to be kept.
    #[must_use]
    pub fn keeping(self, kept: Kept) -> UploadRequests<'a> {
        UploadRequests { kept, ..self }
    }

    /// Begins the upload or goes on with it, and asks what is held. The server takes up to `wait` seconds to answer
    /// unless the file is finished.
    ///
    /// # Errors
    /// Refused, or no answer.
    pub fn ask(&self, wait: u64) -> Result<UploadResponse, CallError> {
        self.get(&self.question(wait))
    }

    fn question(&self, wait: u64) -> Query {
        let query = match self.file_size {
            Some(0) => self.named().with(param::SLICE_NUM, 0),
            _ => self.named().with(param::SLICE_SIZE, self.slice_size),
        };
        self.with_kept(query)
            .with_known(param::FILE_SIZE, self.file_size)
            .with(param::SOURCE, &self.source)
            .with_switch(param::RANGES, true)
            .with_known(param::WAIT, Some(wait).filter(|wait| *wait > 0))
            .with_known(param::FILE_DIGEST, self.file_digest)
            .with_switch(param::REPLACE, self.replace)
            .with_switch(param::RECUT, self.recut)
            .with_switch(param::DISCARD, self.recut && self.discard)
    }

    fn with_kept(&self, query: Query) -> Query {
        query.with_known(param::MODIFIED, self.kept.modified).with_known(param::MODE, self.kept.mode)
    }

    /// Asks what is held, without beginning anything.
    ///
    /// # Errors
    /// Refused, or no answer.
    pub fn peek(&self) -> Result<UploadResponse, CallError> {
        self.get(&self.named().with_switch(param::PEEK, true).with_switch(param::RANGES, true))
    }

    /// Says that we have given up, so that nobody waits for us, a push of another version of the file least of all.
    /// Once, and whatever comes of it: others wait a while then.
    pub fn leave(&self) {
        let query = self.named().with_switch(param::PEEK, true).with_switch(param::RANGES, true);
        let query = query.with(param::SOURCE, &self.source).with_switch(param::LEAVE, true);
        if let Err(error) = self.client.get(&query) {
            log::debug!("{}: that we left was not heard: {error}", self.name);
        }
    }

    /// Asks how a finished file of the digest that we know stands; the server reads it where it does not know.
    ///
    /// # Errors
    /// Refused, or no answer.
    pub fn examine(&self) -> Result<UploadResponse, CallError> {
        let query = self.named().with_switch(param::PEEK, true).with_switch(param::RANGES, true);
        self.get(&query.with_known(param::FILE_DIGEST, self.file_digest))
    }

    /// Does `work`, in which nothing may be asked or sent for long. The server hears of us all the same, so that it
    /// does not take this push for one that ended.
    pub fn heard<T>(&self, work: impl FnOnce() -> T) -> T {
        let (done, ended) = crossbeam_channel::bounded::<()>(0);
        thread::scope(|scope| {
            scope.spawn(move || {
                while ended.recv_timeout(LOOK_EVERY) == Err(RecvTimeoutError::Timeout) {
                    if self.retry.is_quiet_for(QUIET) {
                        self.show_life();
                    }
                }
            });
            let result = work();
            drop(done);
            result
        })
    }

    /// Looks at the upload, as its source. Whatever comes of it, what matters is found out by others.
    fn show_life(&self) {
        let query = self.named().with_switch(param::PEEK, true).with_switch(param::RANGES, true);
        let query = query.with(param::SOURCE, &self.source);
        let once = || Ok(self.client.get(&query).is_ok());
        let _ = self.retry.call(self.observer, self.stop, None, once);
    }

    /// Asks for the digests of the slices `first..=last`, in order; `None` for those that are not held.
    ///
    /// # Errors
    /// Refused, or no answer.
    pub fn digests(&self, first: u64, last: u64) -> Result<Vec<Option<String>>, CallError> {
        let query = self.named().with_switch(param::PEEK, true).with_switch(param::RANGES, true);
        let answer = self.get(&query.with(param::DIGESTS, format_args!("{first}-{last}")))?;
        Ok(answer.digests.unwrap_or_default())
    }

    /// Sends a slice. `watch` is told how many bytes more are on their way, and says whether to go on.
    ///
    /// # Errors
    /// Refused, no answer, or stopped.
    pub fn put(
        &self,
        slice: &OutgoingSlice<'_>,
        stop: &StopSignal,
        watch: &dyn Fn(u64) -> bool,
    ) -> Result<SliceResponse, CallError> {
        let len = slice.zeroes.unwrap_or(slice.bytes.len() as u64);
        let query = self.slice(slice.id, slice.digest, len).with_known(param::OFFSET, slice.offset);
        let query = query.with_switch(param::ZEROES, slice.zeroes.is_some());
        self.post(&query, slice, stop, watch)
    }

    /// Sends a file of one slice, all in one request.
    ///
    /// # Errors
    /// Refused, or no answer.
    pub fn put_file(&self, digest: SliceDigest, bytes: &[u8], replace: bool) -> Result<SliceResponse, CallError> {
        let query = self.whole_file(digest, bytes.len() as u64, replace);
        let slice = OutgoingSlice { id: 0, offset: None, digest, bytes, zeroes: None };
        self.post(&query, &slice, self.stop, &|_| !is_closed(self.stop))
    }

    /// The query of a request that brings a file of `size` bytes whole.
    pub fn whole_file(&self, digest: SliceDigest, size: u64, replace: bool) -> Query {
        let query = self.with_kept(self.slice(0, digest, size));
        query.with(param::SLICE_NUM, 1).with(param::FILE_SIZE, size).with_switch(param::REPLACE, replace)
    }

    /// Waits for `time`.
    ///
    /// # Errors
    /// The user stopped the upload.
    pub fn pause(&self, time: Duration) -> Result<(), CallError> {
        if sleep(self.stop, time) { Ok(()) } else { Err(CallError::Stopped) }
    }

    fn named(&self) -> Query {
        Query::new().with(param::FILE_NAME, self.name.as_str())
    }

    fn slice(&self, id: u64, digest: SliceDigest, len: u64) -> Query {
        self.named()
            .with(param::SLICE_ID, id)
            .with(param::SLICE_SIZE, len)
            .with(param::SLICE_DIGEST, digest)
            .with(param::SOURCE, &self.source)
    }

    fn get(&self, query: &Query) -> Result<UploadResponse, CallError> {
        self.retry.call(self.observer, self.stop, None, || {
            self.client.get(query).and_then(|value| self.client.read_as(value))
        })
    }

    fn post(
        &self,
        query: &Query,
        slice: &OutgoingSlice<'_>,
        stop: &StopSignal,
        watch: &dyn Fn(u64) -> bool,
    ) -> Result<SliceResponse, CallError> {
        let (mut is_paused, mut was_cut_off) = (false, false);
        let call = || {
            if is_paused {
                // Not the whole slice once more, only to be told the same.
                self.client.get(&self.question(0))?;
            }
            // The server may have refused the slice and closed, and the refusal may be lost: once more it is asked for
            // before the slice is sent.
            let answer = self.client.post(query, slice.bytes, was_cut_off, stop, watch);
            was_cut_off = matches!(answer, Err(CallError::Transport { .. }));
            is_paused = answer.as_ref().is_err_and(|error| error.code() == Some(ErrorCode::Paused));
            answer
        };
        self.retry.call(self.observer, stop, Some(slice.id), call)
    }
}
