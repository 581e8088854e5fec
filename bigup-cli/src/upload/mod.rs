//! The protocol of one file of known size, from the first question to the published file.
//!
//! The server decides how the file is cut and what it holds; we send what is missing, as often as it asks, as long as
//! that makes anything better.
//!
//! It uses sources, the client and the pipeline. No terminal and no flag comes in here.

use crate::client::Client;
use crate::client::observer::Observer;
use crate::client::requests::UploadRequests;
use crate::client::retry::RetryBudget;
use crate::client::server_digests::{ServerDigests, ids_below};
use crate::pipeline::buffers::Buffers;
use crate::pipeline::concurrency::{Concurrency, FAR};
use crate::pipeline::error::SliceSizeError;
use crate::pipeline::local_digests::LocalDigests;
use crate::pipeline::reader::SourceReader;
use crate::pipeline::slice_size::{not_too_many, slice_size_for};
use crate::pipeline::slow_line::SlowLineDetector;
use crate::pipeline::{self, RoundEnd, RoundWork};
use crate::source::error::SourceError;
use crate::source::{Source, hash_all, random_token};
use crate::stop::StopSignal;
use crate::upload::contention::Contention;
use crate::upload::error::UploadError;
use crate::upload::finish::{Finish, WAIT_SECS, because, confirmed};
use crate::upload::keep::Keep;
use bigup_core::protocol::digest::{Digest, SliceDigest, of_bytes, of_slice};
use bigup_core::protocol::kept::Kept;
use bigup_core::protocol::name::{FileName, printable};
use bigup_core::protocol::native::{ErrorCode, UploadResponse};
use bigup_core::protocol::plan::Plan;
use bigup_core::protocol::units::{MIB, show_size};

pub mod ahead;
pub mod builder;
pub mod bundle;
pub mod compare;
pub mod contention;
pub mod error;
pub mod finish;
pub mod keep;
pub mod stream;

/// A push that ended well.
#[derive(Clone, Debug, PartialEq)]
pub struct Uploaded {
    /// Bytes of the file.
    pub file_size: u64,
    /// Its digest, where anybody told.
    pub file_digest: Option<Digest>,
    /// The server had it all along.
    pub already: bool,
    /// It went in one request, whose answer said that it is finished.
    pub at_once: bool,
}

/// Largest file that goes in one request, in bytes: above it, losing the connection costs more than a second request.
const SMALL: u64 = MIB;

/// Most rounds without progress: no fewer slices are missing than in the best round before, and no slice was merged.
const FUTILE_ROUNDS: u32 = 5;

/// The tools of the push of a file.
pub struct PushContext<'a> {
    /// The server.
    pub client: &'a Client,
    /// Learns of progress.
    pub observer: &'a dyn Observer,
    /// The time of retries.
    pub retry: &'a RetryBudget,
    /// Closed when the user stops the upload.
    pub stop: &'a StopSignal,
    /// Threads and queue.
    pub concurrency: &'a Concurrency,
    /// The slice size that the user asked for, in bytes.
    pub slice_size: Option<u64>,
    /// True if finished files of other content are to be replaced.
    pub replace: bool,
    /// The facts of the local file that are kept.
    pub keep: Keep,
}

/// The response to the first question.
pub enum OpenState {
    /// The file is finished, and ours.
    Finished(Uploaded),
    /// This is held.
    Unfinished(UploadResponse),
}

/// A file at work.
struct FilePush<'a> {
    cx: &'a PushContext<'a>,
    source: &'a dyn Source,
    requests: UploadRequests<'a>,
    local: LocalDigests,
    /// The cut of the file. `None`: the server did not say yet.
    plan: Option<Plan>,
    rounds: Rounds,
    /// True if we sent any of it.
    sent: bool,
    /// True if slices may be cut smaller, if they turn out to be too large for the line.
    may_recut: bool,
    /// True if the server knows that we push.
    begun: bool,
}

/// Counts the rounds in which nothing got better.
#[derive(Default)]
struct Rounds {
    fewest: Option<u64>,
    frontier: u64,
    futile: u32,
}

/// True if a file of `size` bytes takes one request, or an empty one's few; `slice_size` is what the user asked for.
pub fn is_small(size: u64, slice_size: Option<u64>) -> bool {
    size <= SMALL.min(slice_size.unwrap_or(SMALL))
}

/// Pushes `source` as `name`.
///
/// # Errors
/// Any [`UploadError`].
pub fn push<'a>(cx: &'a PushContext<'a>, name: &'a FileName, source: &'a dyn Source) -> Result<Uploaded, UploadError> {
    let size = source.size();
    let is_small = size > 0 && is_small(size, cx.slice_size);
    let slice_size = cx.slice_size_for(Some(size))?;
    let kept = cx.keep.of(source.kept());
    let requests = UploadRequests { kept, ..cx.requests(name, source.token(), Some(size), slice_size) };
    let (local, rounds) = (LocalDigests::new(), Rounds::default());
    let may_recut = cx.slice_size.is_none();
    let mut upload = FilePush { cx, source, requests, local, plan: None, rounds, sent: false, may_recut, begun: false };
    let result = if is_small { upload.at_once() } else { upload.in_slices() };
    if result.is_err() && upload.begun {
        upload.requests.leave();
    }
    result
}

impl<'a> PushContext<'a> {
    /// The questions about a file.
    pub fn requests(
        &self,
        name: &'a FileName,
        token: &str,
        file_size: Option<u64>,
        slice_size: u64,
    ) -> UploadRequests<'a> {
        UploadRequests {
            client: self.client,
            observer: self.observer,
            retry: self.retry,
            stop: self.stop,
            name,
            source: token.to_owned(),
            file_size,
            slice_size,
            file_digest: None,
            kept: Kept::default(),
            replace: false,
            recut: false,
            discard: false,
        }
    }

    /// Bytes of a slice to ask for. Before the first answer nobody knows how far the server is.
    ///
    /// # Errors
    /// There would be too many, or the file is too large.
    pub fn slice_size_for(&self, file_size: Option<u64>) -> Result<u64, SliceSizeError> {
        slice_size_for(file_size, self.slice_size, self.is_far())
    }

    /// The better cut of an upload that begins by `answer`, in bytes of a slice: as the user says, or as fits the
    /// server's distance, now that it is known. `None`: it is cut well, or nothing can be done about it.
    pub fn better_cut(&self, file_size: Option<u64>, answer: &UploadResponse) -> Option<u64> {
        if self.is_far() {
            self.concurrency.reach_far();
        }
        let (has, fitting) = (answer.slice_size?, self.slice_size_for(file_size).ok()?);
        let is_better = match self.slice_size {
            Some(given) => given != has,
            None => self.is_far() && fitting < has,
        };
        (is_better && answer.held().count() == 0).then_some(fitting)
    }

    fn is_far(&self) -> bool {
        self.client.distance().is_some_and(|distance| distance >= FAR)
    }
}

/// All of a small source, as it was at one moment.
struct WholeSource {
    /// The cut: a single slice.
    plan: Plan,
    bytes: Vec<u8>,
    /// Of all bytes.
    digest: SliceDigest,
}

impl WholeSource {
    fn read(source: &dyn Source, stop: &StopSignal) -> Result<WholeSource, UploadError> {
        let size = source.size();
        let plan = Plan::new(Some(1), Some(size), Some(size))?;
        let mut bytes = vec![0; size as usize];
        source.read_at(0, &mut bytes)?;
        source.check_name()?;
        if source.doubts() > 0 && hash_all(source, stop)? != of_bytes(&bytes) {
            return Err(SourceError::ReadsDifferently.into());
        }
        let digest = of_slice(&plan, 0, &bytes);
        Ok(WholeSource { plan, bytes, digest })
    }
}

impl FilePush<'_> {
    /// All in one request.
    fn at_once(&mut self) -> Result<Uploaded, UploadError> {
        let size = self.source.size();
        let WholeSource { plan, bytes, digest } = WholeSource::read(self.source, self.cx.stop)?;
        self.cx.observer.started(&plan, 0, 0);
        self.plan = Some(plan);
        self.local.set_whole(digest.digest);
        let mut contention = Contention::default();
        let answer = loop {
            match self.requests.put_file(digest, &bytes, self.cx.replace) {
                Ok(answer) => break answer,
                Err(busy) if busy.code() == Some(ErrorCode::Busy) => {
                    contention.wait_turn(&self.requests, Some(self.source), busy)?;
                }
                // An upload that has begun in slices goes on in slices.
                Err(error) if error.code() == Some(ErrorCode::Conflict) => return self.in_slices(),
                Err(error) => return Err(error.into()),
            }
        };
        if answer.bundles {
            self.cx.client.may_send_bundles();
        }
        if !answer.held {
            self.sent = true;
            self.cx.observer.sent(size);
        }
        if answer.is_uploaded != 1 {
            return self.in_slices();
        }
        let said = answer.file_digest.and_then(|digest| digest.parse().ok());
        let file_digest = confirmed(Some(digest.digest), said)?;
        Ok(Uploaded { file_size: size, file_digest, already: answer.held, at_once: true })
    }

    /// Asks first, then sends what is missing.
    fn in_slices(&mut self) -> Result<Uploaded, UploadError> {
        let mut answer = match self.open()? {
            OpenState::Finished(done) => return Ok(done),
            OpenState::Unfinished(answer) => answer,
        };
        if let Some(slice_size) = self.cx.better_cut(Some(self.source.size()), &answer) {
            answer = match self.recut(slice_size)? {
                OpenState::Finished(done) => return Ok(done),
                OpenState::Unfinished(answer) => answer,
            };
        }
        loop {
            let plan = self.adopt(&answer)?;
            if !compare::holds_ours(&self.requests, self.source, &plan, &answer, &self.local)? {
                match self.begin_as_another()? {
                    OpenState::Finished(done) => return Ok(done),
                    OpenState::Unfinished(next) => answer = next,
                }
                continue;
            }
            let opened = match self.send_missing(&plan, &answer) {
                // As at the beginning: it may end with the same content.
                Err(UploadError::Overtaken { .. }) if self.is_overtaken() => Some(self.begin_anew()?),
                Err(error) if error.is_too_large_for_proxy() => {
                    let Some(slice_size) = self.smaller_cut(&plan) else { return Err(error) };
                    self.requests.discard = true;
                    Some(self.recut(slice_size)?)
                }
                ended => match ended? {
                    RoundEnd::TooSlow(slice_size) => {
                        // Once: whatever the server says to it.
                        self.may_recut = false;
                        Some(self.recut(not_too_many(slice_size, self.source.size()))?)
                    }
                    RoundEnd::Lost => Some(self.begin_anew()?),
                    // Somebody may move it away before we could ask for it.
                    RoundEnd::Finished(Some(said)) => {
                        let own = self.own_digest()?;
                        return Ok(self.done(confirmed(Some(own), Some(said))?));
                    }
                    RoundEnd::Sent | RoundEnd::Finished(None) => None,
                },
            };
            match opened {
                Some(OpenState::Finished(done)) => return Ok(done),
                Some(OpenState::Unfinished(next)) => {
                    answer = next;
                    continue;
                }
                None => {}
            }
            if answer.compare {
                self.requests.file_digest = Some(self.own_digest()?);
            }
            match finish::wait(&self.requests, &plan)? {
                Finish::Finished(answer) => return self.finished(&answer),
                Finish::Missing(next) => answer = next,
            }
        }
    }

    /// Begins again as another source, since the token of ours stands for other bytes too. The server lets it go on at
    /// once, with what is equal.
    fn begin_as_another(&mut self) -> Result<OpenState, UploadError> {
        log::debug!("{}: the file changed since the push that began its upload", self.requests.name);
        self.requests.leave();
        self.requests.source = random_token();
        self.begin_anew()
    }

    /// Begins again, with nothing of ours held.
    fn begin_anew(&mut self) -> Result<OpenState, UploadError> {
        self.local.unsettle();
        self.open()
    }

    /// The size of slices to go on with where those of `plan` are too large for a proxy: the size that the user gave,
    /// if it was given after the upload had begun and is smaller. Held slices cannot be kept then, and would be of no
    /// use either.
    fn smaller_cut(&self, plan: &Plan) -> Option<u64> {
        let (given, has) = (self.cx.slice_size?, plan.slice_size?);
        if given >= has {
            return None;
        }
        let (has, given_shown) = (show_size(has), show_size(given));
        self.cx.observer.noted(&format!(
            "slices of {has} do not pass the proxy: what is held of them is dropped, and the file cut into slices of \
             {given_shown}"
        ));
        Some(given)
    }

    /// Begins again with slices of `slice_size` bytes, which the server takes over unless it holds something by now.
    fn recut(&mut self, slice_size: u64) -> Result<OpenState, UploadError> {
        log::debug!("{}: asks for slices of {slice_size} bytes", self.requests.name);
        (self.requests.slice_size, self.requests.recut) = (slice_size, true);
        self.open()
    }

    /// True if another push went on with the upload while ours was silent.
    fn is_overtaken(&self) -> bool {
        match self.requests.ask(0) {
            Ok(answer) => {
                let is_recut = answer.slice_size != self.plan.as_ref().and_then(|plan| plan.slice_size);
                answer.is_uploaded == 1 || answer.compare || is_recut
            }
            Err(error) => error.code() == Some(ErrorCode::Busy),
        }
    }

    /// Begins the upload, or goes on with it; waits for others and settles what to do about a finished file.
    fn open(&mut self) -> Result<OpenState, UploadError> {
        let mut contention = Contention::default();
        // Not before the finished file is known to be another one.
        self.requests.replace = false;
        // Nothing is to be sent of an empty file: it is finished as soon as it is begun.
        let wait = if self.source.size() == 0 { WAIT_SECS } else { 0 };
        loop {
            match self.requests.ask(wait) {
                Ok(answer) if answer.is_uploaded == 1 => {
                    if let Some(done) = self.judge(&answer)? {
                        return Ok(OpenState::Finished(done));
                    }
                }
                Ok(answer) => {
                    // From here on: the client that began this upload may not have said so.
                    self.requests.replace = self.cx.replace;
                    self.begun = true;
                    return Ok(OpenState::Unfinished(answer));
                }
                Err(error) if error.code() == Some(ErrorCode::Busy) => {
                    contention.wait_turn(&self.requests, Some(self.source), error)?;
                }
                Err(error) if error.code() == Some(ErrorCode::Exists) && self.cx.replace && !self.requests.replace => {
                    self.requests.replace = true;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Judges a finished file that we did not expect: it is ours, or the next question names our digest.
    fn judge(&mut self, answer: &UploadResponse) -> Result<Option<Uploaded>, UploadError> {
        if answer.same_source && !self.source.may_change_unseen() {
            return Ok(Some(self.done(answer.digest())));
        }
        self.cx.observer.doing("comparing");
        let own = self.own_digest()?;
        if answer.digest() == Some(own) {
            return Ok(Some(self.done(Some(own))));
        }
        if self.requests.file_digest.is_some() {
            // The server was told our digest and says that this is it.
            return Ok(Some(self.done(confirmed(Some(own), answer.digest())?)));
        }
        self.requests.file_digest = Some(own);
        self.requests.replace = self.cx.replace;
        Ok(None)
    }

    /// Takes over how the file is cut and what is held.
    fn adopt(&mut self, answer: &UploadResponse) -> Result<Plan, UploadError> {
        let plan = plan_of(answer, &self.requests)?;
        let held: Vec<u64> = ids_below(&answer.held(), plan.slice_num.unwrap_or(0))
            .filter(|id| !answer.compare || self.local.is_settled(*id))
            .collect();
        let bytes = held.iter().filter_map(|id| plan.len_of(*id)).sum();
        match &self.plan {
            Some(before) if *before == plan => self.cx.observer.corrected(&plan, held.len() as u64, bytes),
            Some(_) => {
                self.local = LocalDigests::new();
                self.cx.observer.corrected(&plan, held.len() as u64, bytes);
            }
            None => self.cx.observer.started(&plan, held.len() as u64, bytes),
        }
        // From here on nobody of us asks for another cut.
        (self.requests.slice_size, self.requests.recut) = (plan.slice_size.unwrap_or(self.requests.slice_size), false);
        self.requests.discard = false;
        self.plan = Some(plan.clone());
        Ok(plan)
    }

    /// Sends what is not held; what is held of unknown content is compared first.
    fn send_missing(&mut self, plan: &Plan, answer: &UploadResponse) -> Result<RoundEnd, UploadError> {
        let (held, num) = (answer.held(), plan.slice_num.unwrap_or(0));
        let trusted = |id: &u64| held.contains(*id) && (!answer.compare || self.local.is_settled(*id));
        let missing: Vec<u64> = (0..num).filter(|id| !trusted(id)).collect();
        if missing.is_empty() {
            return Ok(RoundEnd::Sent);
        }
        self.rounds.begin(missing.len() as u64, answer)?;
        let doubtful = missing.iter().copied().filter(|id| held.contains(*id));
        let digests = ServerDigests::fetch(&self.requests, doubtful)?;
        let buffers = Buffers::new(self.cx.concurrency.buffers(plan.slice_size.unwrap_or(0)));
        let mut feed = SourceReader::new(self.source, plan, missing, &self.requests, answer.zeroes);
        let slow_line = SlowLineDetector::new(self.may_recut && held.count() == 0);
        let work =
            RoundWork { requests: &self.requests, plan, held: &digests, local: &self.local, slow_line: &slow_line };
        self.sent = true;
        let ended = pipeline::run(&work, &mut feed, &buffers, self.cx.concurrency)?;
        if let (RoundEnd::Sent, Some(digest)) = (ended, feed.digest()) {
            self.local.set_whole(digest);
        }
        Ok(ended)
    }

    /// The file is finished after our sending: its digest must be ours.
    fn finished(&mut self, answer: &UploadResponse) -> Result<Uploaded, UploadError> {
        let own = match self.plan.as_ref().and_then(|plan| self.local.file_digest(plan)) {
            None if !answer.same_source || self.source.may_change_unseen() => Some(self.own_digest()?),
            own => own,
        };
        Ok(self.done(confirmed(own, answer.digest())?))
    }

    fn done(&self, file_digest: Option<Digest>) -> Uploaded {
        let file_size = self.source.size();
        Uploaded { file_size, file_digest, already: !self.sent && file_size > 0, at_once: false }
    }

    /// The file's digest, from its slices' where they are known, else by reading it.
    fn own_digest(&mut self) -> Result<Digest, UploadError> {
        if let Some(digest) = self.plan.as_ref().and_then(|plan| self.local.file_digest(plan)) {
            return Ok(digest);
        }
        let digest = self.requests.heard(|| hash_all(self.source, self.cx.stop))?;
        self.local.set_whole(digest);
        Ok(digest)
    }
}

impl Rounds {
    /// Another round, for which so many slices are missing.
    fn begin(&mut self, missing: u64, answer: &UploadResponse) -> Result<(), UploadError> {
        let frontier = answer.curr_merge_slice_id.unwrap_or(0);
        if self.fewest.is_none_or(|fewest| missing < fewest) || frontier > self.frontier {
            let fewest = self.fewest.map_or(missing, |fewest| fewest.min(missing));
            *self = Rounds { fewest: Some(fewest), frontier: frontier.max(self.frontier), futile: 0 };
            return Ok(());
        }
        self.futile += 1;
        if self.futile >= FUTILE_ROUNDS {
            return Err(UploadError::Futile { missing, reason: because(answer) });
        }
        Ok(())
    }
}

/// The cut of the upload: by the server's answer, else by our own question.
///
/// # Errors
/// The answer contradicts itself, or our file.
pub fn plan_of(answer: &UploadResponse, requests: &UploadRequests<'_>) -> Result<Plan, UploadError> {
    let slice_size = answer.slice_size.or((requests.file_size != Some(0)).then_some(requests.slice_size));
    let asked = Plan::new(None, slice_size, requests.file_size)?;
    let theirs = Plan::new(answer.slice_num, slice_size, answer.file_size);
    theirs
        .and_then(|theirs| theirs.bind(&asked))
        .map_err(|cause| UploadError::NotOfThisFile { name: printable(&answer.file_name), cause })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_that_make_nothing_better_are_few() {
        let (mut rounds, answer) = (Rounds::default(), UploadResponse::default());
        rounds.begin(10, &answer).unwrap();
        for missing in [9, 9, 9, 9, 9, 8, 9, 8, 10, 8] {
            rounds.begin(missing, &answer).unwrap();
        }
        let merged = UploadResponse { curr_merge_slice_id: Some(1), ..UploadResponse::default() };
        rounds.begin(8, &merged).unwrap();
        for _ in 0..4 {
            rounds.begin(8, &merged).unwrap();
        }
        let message = rounds.begin(8, &merged).unwrap_err().to_string();
        assert!(message.contains("8 slices"), "{message}");
    }
}
