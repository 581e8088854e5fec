//! Questions about finished files by their names: the list, digests, content, and removal. Each is asked once, without
//! retries.

use crate::client::error::CallError;
use crate::client::query::Query;
use crate::client::{Client, anew};
use crate::stop::{StopSignal, is_closed};
use bigup_core::protocol::content::{LEAVES, LeavesResponse, ListedFile, PATH};
use bigup_core::protocol::digest::Digest;
use bigup_core::protocol::name::FileName;
use bigup_core::protocol::native::{CancelResponse, ErrorCode, param};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use std::io::{self, Read};
use std::ops::Range;
use ureq::http::Response;
use ureq::http::header::{IF_MATCH, RANGE};

/// Characters that are encoded in a path. Slashes between a name's components stay.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b'/');

/// Bytes that are read at a time.
pub const READ_LEN: usize = 256 << 10;

/// Why bytes of a file did not arrive.
#[derive(Debug)]
pub enum ReadError<E> {
    /// The request failed. Bytes before that arrived.
    Call(CallError),
    /// The reader of the bytes failed.
    Reader(E),
}

impl Client {
    /// Size and digests of the finished file `name`. `None`: there is no such file.
    ///
    /// # Errors
    /// The server refuses, or does not respond.
    pub fn leaves(&self, name: &FileName) -> Result<Option<LeavesResponse>, CallError> {
        let url = format!("{}?{LEAVES}", self.content_url(name.as_str()));
        log::debug!("GET {url}");
        match self.answer(self.exchange(|agent| self.authorized(agent.get(&url)).call())) {
            Err(error) if error.code() == Some(ErrorCode::NotFound) => Ok(None),
            value => self.read_as(value?).map(Some),
        }
    }

    /// A page of at most `limit` finished files, by name: those whose names begin with `prefix` and come after `after`. A
    /// page with fewer files is the last one.
    ///
    /// # Errors
    /// The server refuses, or does not respond.
    pub fn list_page(&self, prefix: &str, after: &str, limit: u64) -> Result<Vec<ListedFile>, CallError> {
        let query = Query::new().with("prefix", prefix).with("after", after).with("limit", limit);
        let url = format!("{}?{}", self.content_url(""), query.as_str());
        log::debug!("GET {url}");
        let reply = self.exchange(|agent| self.authorized(agent.get(&url)).call())?;
        if reply.status != 200 {
            return Err(self.refusal(reply));
        }
        let lines = serde_json::Deserializer::from_slice(&reply.body).into_iter();
        match lines.collect() {
            Ok(files) => Ok(files),
            // It breaks off, or is something else.
            Err(_) => Err(self.refusal(reply)),
        }
    }

    /// Removes the finished file `name` for good; with `digest` only the file of that digest. False: there is no such file.
    ///
    /// # Errors
    /// The server refuses, or does not respond.
    pub fn remove(&self, name: &FileName, digest: Option<Digest>) -> Result<bool, CallError> {
        let url = self.content_url(name.as_str());
        log::debug!("DELETE {url}");
        let reply = self.exchange(|agent| {
            let request = self.authorized(agent.delete(&url));
            match digest {
                Some(digest) => request.header(IF_MATCH, etag(digest)).call(),
                None => request.call(),
            }
        })?;
        match reply.status {
            204 => Ok(true),
            _ => match self.refusal(reply) {
                error if error.code() == Some(ErrorCode::NotFound) => Ok(false),
                error => Err(error),
            },
        }
    }

    /// Makes the folder `name` among the finished files, with those that it is in.
    ///
    /// # Errors
    /// The server refuses, or does not respond.
    pub fn make_folder(&self, name: &FileName) -> Result<(), CallError> {
        let url = format!("{}/", self.content_url(name.as_str()));
        log::debug!("PUT {url}");
        let reply = self.exchange(|agent| self.authorized(agent.put(&url)).send_empty())?;
        if matches!(reply.status, 201 | 204) { Ok(()) } else { Err(self.refusal(reply)) }
    }

    /// Cancels the unfinished upload of `name`: bytes that it held. `None`: there is no such upload.
    ///
    /// # Errors
    /// The server refuses, or does not respond.
    pub fn cancel(&self, name: &FileName) -> Result<Option<u64>, CallError> {
        let url = self.url(&Query::new().with(param::FILE_NAME, name.as_str()));
        log::debug!("DELETE {url}");
        match self.answer(self.exchange(|agent| self.authorized(agent.delete(&url)).call())) {
            Err(error) if error.code() == Some(ErrorCode::NoUpload) => Ok(None),
            value => Ok(Some(self.read_as::<CancelResponse>(value?)?.bytes_held)),
        }
    }

    /// Reads the bytes `range` of the finished file `name`, if that is still the one of this digest, and hands them to
    /// `reader` in order, all but the last of the same number at a time.
    ///
    /// # Errors
    /// The server refuses, the connection breaks, `reader` fails, or `stop` was closed.
    pub fn read_range<E>(
        &self,
        name: &FileName,
        digest: Digest,
        range: Range<u64>,
        stop: &StopSignal,
        mut reader: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), ReadError<E>> {
        let url = self.content_url(name.as_str());
        let asked = format!("bytes={}-{}", range.start, range.end - 1);
        log::debug!("GET {url} {asked}");
        let agent = self.agents.lend();
        let request = || self.authorized(agent.get(&url)).header(RANGE, &asked).header(IF_MATCH, etag(digest));
        let result = anew(|| request().call());
        let mut response = match result {
            Ok(response) if is_of_range(&response, &range) => response,
            result => {
                let reply = self.whole(result).map_err(ReadError::Call)?;
                return Err(ReadError::Call(self.refusal(reply)));
            }
        };
        let (mut body, mut buffer) = (response.body_mut().as_reader(), vec![0; READ_LEN]);
        let mut left = range.end - range.start;
        let failed = |error| ReadError::Call(self.transport(ureq::Error::Io(error)));
        while left > 0 {
            let len = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
            // Whole buffers, whatever comes at a time: holes that meet within a block would leave it there.
            let (filled, result) = self.fill(&mut body, &mut buffer[..len], stop);
            // Of a connection that breaks again and again, each piece counts.
            reader(&buffer[..filled]).map_err(ReadError::Reader)?;
            result.map_err(|error| error.map_or(ReadError::Call(CallError::Stopped), failed))?;
            left -= len as u64;
        }
        // So that the connection can be kept.
        match body.read(&mut buffer) {
            Ok(0) | Err(_) => Ok(()),
            Ok(_) => Err(failed(io::Error::other("more bytes came than were asked for"))),
        }
    }

    /// Fills `bytes` from `body`, no faster than the limit allows: the number of bytes that came, and whether those are all;
    /// `None` in the error: `stop` ended it.
    fn fill(
        &self,
        body: &mut impl Read,
        bytes: &mut [u8],
        stop: &StopSignal,
    ) -> (usize, Result<(), Option<io::Error>>) {
        let mut filled = 0;
        while filled < bytes.len() {
            if is_closed(stop) {
                return (filled, Err(None));
            }
            let more = match body.read(&mut bytes[filled..]) {
                Ok(0) => return (filled, Err(Some(io::ErrorKind::UnexpectedEof.into()))),
                Ok(more) => more,
                Err(error) => return (filled, Err(Some(error))),
            };
            filled += more;
            if self.limit.as_ref().is_some_and(|limit| !limit.wait(more, stop)) {
                return (filled, Err(None));
            }
        }
        (filled, Ok(()))
    }

    fn content_url(&self, path: &str) -> String {
        format!("{}{PATH}/{}", self.endpoint.base(), utf8_percent_encode(path, ENCODED))
    }
}

fn etag(digest: Digest) -> String {
    format!("\"b3-{digest}\"")
}

/// True if a response has the bytes `range`, and nothing else.
fn is_of_range(response: &Response<ureq::Body>, range: &Range<u64>) -> bool {
    let content_range = response.headers().get("content-range").and_then(|value| value.to_str().ok());
    let begins = format!("bytes {}-{}/", range.start, range.end - 1);
    response.status() == 206 && content_range.is_some_and(|text| text.starts_with(&begins))
}
