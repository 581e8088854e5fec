//! Standard input, or what a command writes: a file of unknown length that is read once, from end to end.
//!
//! An input that fits into one slice is an ordinary file of known size. Else full slices are sent as they come; the
//! length is told when the input has ended, before its last slice is sent, which may be a shorter one.

use crate::buffer::Buffer;
use crate::client::error::CallError;
use crate::client::requests::UploadRequests;
use crate::client::server_digests::{ServerDigests, ids_below};
use crate::pipeline::buffers::Buffers;
use crate::pipeline::error::{RoundError, SliceSizeError};
use crate::pipeline::local_digests::LocalDigests;
use crate::pipeline::reader::{Slice, SliceContent, SliceReader, WholeHash};
use crate::pipeline::slice_size;
use crate::pipeline::slow_line::SlowLineDetector;
use crate::pipeline::{self, RoundEnd, RoundWork};
use crate::source::error::SourceError;
use crate::source::{Memory, random_token};
use crate::stop::StopSignal;
use crate::upload::Uploaded;
use crate::upload::contention::Contention;
use crate::upload::error::UploadError;
use crate::upload::finish::{self, Finish, confirmed};
use crate::upload::{self, PushContext, plan_of};
use bigup_core::protocol::digest::{self, Digest, DigestKind, SliceHasher};
use bigup_core::protocol::name::FileName;
use bigup_core::protocol::native::{ErrorCode, UploadResponse};
use bigup_core::protocol::plan::{MAX_SLICES, Plan};
use std::io::{self, ErrorKind, Read};

/// An input of which the beginning was read already, and perhaps one byte more.
struct ReadAhead<R> {
    head: Buffer,
    /// Bytes of `head` that were given out.
    at: usize,
    peeked: Option<u8>,
    input: R,
}

/// The slices of an input, in order.
struct StreamFeed<'a, R> {
    input: ReadAhead<R>,
    plan: Plan,
    slice_size: u64,
    /// Told the length at the end.
    requests: UploadRequests<'a>,
    next_id: u64,
    total: u64,
    ended: bool,
    hash: WholeHash,
}

/// Pushes what `input` gives as `name`.
///
/// # Errors
/// Any [`UploadError`].
pub fn push<'a>(cx: &'a PushContext<'a>, name: &'a FileName, input: impl Read) -> Result<Uploaded, UploadError> {
    let slice_size = cx.slice_size_for(None)?;
    let mut input = ReadAhead::new(input, slice_size)?;
    if !input.has_more()? {
        return upload::push(cx, name, &Memory::new(input.head));
    }
    let token = random_token();
    let mut requests = cx.requests(name, &token, None, slice_size);
    let answer = open(cx, &mut requests)?;
    let leaving = requests.clone();
    let result = begun(cx, requests, answer, input);
    if result.is_err() {
        leaving.leave();
    }
    result
}

/// Goes on with an upload that was begun, or found finished.
fn begun<'a, R: Read>(
    cx: &PushContext<'a>,
    mut requests: UploadRequests<'a>,
    mut answer: UploadResponse,
    input: ReadAhead<R>,
) -> Result<Uploaded, UploadError> {
    if answer.is_uploaded != 1
        && let Some(slice_size) = cx.better_cut(None, &answer)
    {
        (requests.slice_size, requests.recut) = (slice_size, true);
        answer = open(cx, &mut requests)?;
        requests.recut = false;
    }
    if answer.is_uploaded == 1 {
        return compared(requests, &answer, input);
    }
    let plan = plan_of(&answer, &requests)?;
    requests.slice_size = plan.slice_size.ok_or(UploadError::NoSliceSize)?;
    send(cx, requests, &plan, &answer, input)
}

/// Begins the upload. A finished file is answered as such only where it is not to be replaced.
fn open<'a>(cx: &PushContext<'a>, requests: &mut UploadRequests<'a>) -> Result<UploadResponse, UploadError> {
    let mut contention = Contention::default();
    loop {
        let result = requests.ask(0);
        let exists = match &result {
            Ok(answer) => answer.is_uploaded == 1,
            Err(error) => error.code() == Some(ErrorCode::Exists),
        };
        match result {
            _ if exists && cx.replace && !requests.replace => requests.replace = true,
            Ok(answer) => {
                // The client that began this upload may not have said so.
                requests.replace = cx.replace;
                return Ok(answer);
            }
            Err(error) if error.code() == Some(ErrorCode::Busy) => contention.wait_turn(requests, None, error)?,
            Err(error) => return Err(error.into()),
        }
    }
}

/// A finished file stands there: all is well if the input has the same content.
fn compared<R: Read>(
    mut requests: UploadRequests<'_>,
    answer: &UploadResponse,
    mut input: ReadAhead<R>,
) -> Result<Uploaded, UploadError> {
    let mut hasher = SliceHasher::new(DigestKind::Hash, 0);
    let (mut bytes, mut file_size) = (vec![0; 1 << 20], 0);
    loop {
        let len = input.fill(&mut bytes)?;
        hasher.update(&bytes[..len]);
        file_size += len as u64;
        if len < bytes.len() {
            break;
        }
    }
    let own = hasher.finish().digest;
    let said = match answer.digest() {
        None => examined(&mut requests, file_size, own)?,
        said => said,
    };
    match said {
        Some(said) if said == own => Ok(Uploaded { file_size, file_digest: Some(own), already: true, at_once: false }),
        Some(server) => Err(UploadError::OtherContent { server, local: own }),
        None => Err(UploadError::UnknownContent),
    }
}

/// The digest of the finished file, which the server reads to find out.
fn examined(requests: &mut UploadRequests<'_>, file_size: u64, own: Digest) -> Result<Option<Digest>, UploadError> {
    (requests.file_size, requests.file_digest) = (Some(file_size), Some(own));
    let mut contention = Contention::default();
    loop {
        match requests.examine() {
            Err(error) if error.code() == Some(ErrorCode::Busy) => contention.wait_turn(requests, None, error)?,
            answer => return Ok(answer?.digest()),
        }
    }
}

fn send<'a, R: Read>(
    cx: &PushContext<'a>,
    mut requests: UploadRequests<'a>,
    plan: &Plan,
    answer: &UploadResponse,
    input: ReadAhead<R>,
) -> Result<Uploaded, UploadError> {
    cx.observer.started(plan, 0, 0);
    let held = answer.held();
    // No other push had our token: whatever is held is somebody else's, and compared.
    let digests = ServerDigests::fetch(&requests, ids_below(&held, plan.slice_num.unwrap_or(MAX_SLICES)))?;
    let (mut local, buffers) = (LocalDigests::new(), Buffers::new(cx.concurrency.buffers(requests.slice_size)));
    buffers.adopt();
    let mut feed = StreamFeed::new(input, requests.clone(), plan);
    // Content of a stream cannot be read again to be cut anew.
    let slow_line = SlowLineDetector::new(false);
    let work = RoundWork { requests: &requests, plan, held: &digests, local: &local, slow_line: &slow_line };
    let ended = pipeline::run(&work, &mut feed, &buffers, cx.concurrency)?;
    if ended == RoundEnd::Lost {
        return Err(UploadError::Lost);
    }
    if let Some(digest) = feed.digest() {
        local.set_whole(digest);
    }
    let plan = Plan::new(None, plan.slice_size, Some(feed.total))?;
    let own = local.file_digest(&plan);
    if let (RoundEnd::Finished(Some(said)), Some(own), true) = (ended, own, feed.ended) {
        // Somebody may move it away before we could ask for it.
        let file_digest = confirmed(Some(own), Some(said))?;
        return Ok(Uploaded { file_size: feed.total, file_digest, already: false, at_once: false });
    }
    requests.file_size = Some(feed.total);
    requests.file_digest = own.filter(|_| answer.compare);
    finish(&requests, &plan, own)
}

fn finish(requests: &UploadRequests<'_>, plan: &Plan, own: Option<Digest>) -> Result<Uploaded, UploadError> {
    match finish::wait(requests, plan)? {
        Finish::Finished(answer) => {
            let file_digest = confirmed(own, answer.digest())?;
            Ok(Uploaded { file_size: plan.file_size.unwrap_or(0), file_digest, already: false, at_once: false })
        }
        Finish::Missing(_) => Err(UploadError::CannotRepeat),
    }
}

impl<R: Read> ReadAhead<R> {
    /// Reads the first `len` bytes of `input`, or all where there are fewer.
    fn new(input: R, len: u64) -> Result<ReadAhead<R>, UploadError> {
        let mut head = slice_size::buffer(len)?;
        let mut ahead = ReadAhead { head: Buffer::default(), at: 0, peeked: None, input };
        let len = ahead.fill(&mut head)?;
        head.set_len(len);
        ahead.head = head;
        Ok(ahead)
    }

    /// True if a byte follows beyond the head.
    fn has_more(&mut self) -> Result<bool, SourceError> {
        if self.peeked.is_none() {
            let mut byte = [0];
            let len = read_full(&mut self.input, &mut byte)?;
            self.peeked = byte.first().copied().filter(|_| len == 1);
        }
        Ok(self.peeked.is_some())
    }

    /// True if anything follows at all.
    fn has_any(&mut self) -> Result<bool, SourceError> {
        Ok(self.at < self.head.len() || self.has_more()?)
    }

    /// Fills `bytes`; fewer only at the end.
    fn fill(&mut self, bytes: &mut [u8]) -> Result<usize, SourceError> {
        let ready = &self.head[self.at..];
        let mut len = ready.len().min(bytes.len());
        bytes[..len].copy_from_slice(&ready[..len]);
        self.at += len;
        if len < bytes.len()
            && let Some(byte) = self.peeked.take()
        {
            bytes[len] = byte;
            len += 1;
        }
        Ok(len + read_full(&mut self.input, &mut bytes[len..])?)
    }

    /// The head's buffer, once all of it was given out.
    fn spent_head(&mut self) -> Option<Buffer> {
        let spent = self.at > 0 && self.at == self.head.len();
        if spent {
            self.at = 0;
        }
        spent.then(|| std::mem::take(&mut self.head))
    }
}

fn read_full(input: &mut impl Read, bytes: &mut [u8]) -> Result<usize, SourceError> {
    let mut len = 0;
    while len < bytes.len() {
        match input.read(&mut bytes[len..]) {
            Ok(0) => break,
            Ok(more) => len += more,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(failed(error)),
        }
    }
    Ok(len)
}

fn failed(error: io::Error) -> SourceError {
    // The end of a command tells all.
    if error.kind() == ErrorKind::Other { SourceError::Incomplete(error) } else { SourceError::Input(error) }
}

impl<'a, R: Read> StreamFeed<'a, R> {
    fn new(input: ReadAhead<R>, requests: UploadRequests<'a>, plan: &Plan) -> StreamFeed<'a, R> {
        let (slice_size, hash) = (requests.slice_size, WholeHash::new(plan, true));
        StreamFeed { input, plan: plan.clone(), slice_size, requests, next_id: 0, total: 0, ended: false, hash }
    }

    fn digest(&self) -> Option<Digest> {
        self.hash.finish()
    }

    /// Tells the server how long the file is, before its last slice arrives.
    fn tell_length(&mut self) -> Result<(), CallError> {
        self.requests.file_size = Some(self.total);
        self.requests.ask(0).map(drop)
    }
}

impl<R: Read> SliceReader for StreamFeed<'_, R> {
    fn next(&mut self, buffers: &Buffers, stop: &StopSignal) -> Result<Option<Slice>, RoundError> {
        if self.ended {
            return Ok(None);
        }
        if self.next_id == MAX_SLICES {
            return Err(SliceSizeError::StreamTooLong(self.slice_size).into());
        }
        let Some(mut bytes) = buffers.take(self.slice_size, stop)? else { return Ok(None) };
        let len = self.input.fill(&mut bytes)?;
        bytes.set_len(len);
        if let Some(head) = self.input.spent_head() {
            buffers.give_back(head);
        }
        self.total += len as u64;
        let digest = digest::of_slice(&self.plan, self.next_id, &bytes);
        let content = SliceContent::Bytes(bytes);
        self.hash.update(&content);
        self.ended = !self.input.has_any()?;
        if self.ended {
            self.tell_length()?;
        }
        self.next_id += 1;
        Ok(Some(Slice { id: self.next_id - 1, digest, content }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives one byte a read, as a slow pipe does.
    struct Drip(Vec<u8>);

    impl Read for Drip {
        fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
            if self.0.is_empty() || bytes.is_empty() {
                return Ok(0);
            }
            bytes[0] = self.0.remove(0);
            Ok(1)
        }
    }

    #[test]
    fn what_fits_into_the_head_has_nothing_more() {
        for (len, more) in [(0, false), (9, false), (10, false), (11, true)] {
            let mut ahead = ReadAhead::new(Drip(vec![1; len]), 10).unwrap();
            assert_eq!((ahead.head.len(), ahead.has_more().unwrap()), (len.min(10), more), "{len}");
        }
    }

    #[test]
    fn an_input_is_recut_without_losing_a_byte() {
        let bytes: Vec<u8> = (0..100).collect();
        for cut in [1, 3, 9, 10, 11, 25, 100, 101] {
            let mut ahead = ReadAhead::new(Drip(bytes.clone()), 10).unwrap();
            let (mut got, mut heads) = (Vec::new(), 0);
            assert!(ahead.has_more().unwrap());
            while ahead.has_any().unwrap() {
                let mut part = vec![0; cut];
                let len = ahead.fill(&mut part).unwrap();
                got.extend_from_slice(&part[..len]);
                heads += usize::from(ahead.spent_head().is_some());
            }
            assert_eq!((got, heads), (bytes.clone(), 1), "slices of {cut}");
        }
    }
}
