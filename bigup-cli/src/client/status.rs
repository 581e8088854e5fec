//! Questions about files and uploads that change nothing. Each is asked once, without retries.

use crate::client::Client;
use crate::client::error::CallError;
use crate::client::query::Query;
use crate::stop::{StopSignal, sleep};
use bigup_core::protocol::digest::Digest;
use bigup_core::protocol::name::FileName;
use bigup_core::protocol::native::{ErrorCode, ListResponse, RightsResponse, UploadResponse, UploadStatus, param};
use serde_json::Value;
use std::time::Duration;

/// Wait before the next question while the server reads its file: where it does not say, and the longest.
const ASK_AGAIN: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(60));

/// The state of a name on the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoredFile {
    /// The file is finished. `None`: the server does not know its digest.
    Finished(Option<Digest>),
    /// An upload of this name is not finished.
    Unfinished,
    /// The server has nothing of this name.
    Absent,
}

impl Client {
    /// All unfinished uploads that the token may see.
    ///
    /// # Errors
    /// The server refuses, or does not respond.
    pub fn uploads(&self) -> Result<Vec<UploadStatus>, CallError> {
        let list: ListResponse = self.read_as(self.uploads_json()?)?;
        Ok(list.uploads)
    }

    /// The rights that the token gives; without a token, those of every client. A server that cannot tell them gives
    /// the rights of nobody, without a folder.
    ///
    /// # Errors
    /// The server refuses, or does not respond.
    pub fn rights(&self) -> Result<RightsResponse, CallError> {
        self.read_as(self.get(&Query::new().with_switch(param::PEEK, true).with_switch(param::RIGHTS, true))?)
    }

    /// The same as the JSON that the server sent.
    ///
    /// # Errors
    /// The server refuses, or does not respond.
    pub fn uploads_json(&self) -> Result<Value, CallError> {
        self.get(&Query::new().with_switch(param::PEEK, true))
    }

    /// The state of the file or upload `name`. `None`: the server has nothing of this name.
    ///
    /// # Errors
    /// The server refuses, or does not respond.
    pub fn status(&self, name: &FileName) -> Result<Option<UploadResponse>, CallError> {
        self.status_json(name)?.map(|value| self.read_as(value)).transpose()
    }

    /// The same as the JSON that the server sent.
    ///
    /// # Errors
    /// The server refuses, or does not respond.
    pub fn status_json(&self, name: &FileName) -> Result<Option<Value>, CallError> {
        self.ask_status(name, None)
    }

    /// The finished file `name`. With `expected`, a server that does not know the digest of its file reads the file
    /// first; this waits for it, until `stop`.
    ///
    /// # Errors
    /// The server refuses, or does not respond, or `stop` ended the wait.
    pub fn stored_file(
        &self,
        name: &FileName,
        expected: Option<Digest>,
        stop: &StopSignal,
    ) -> Result<StoredFile, CallError> {
        loop {
            let value = match self.ask_status(name, expected) {
                Err(error) if error.code() == Some(ErrorCode::Busy) => {
                    let wait = error.retry_after().unwrap_or(ASK_AGAIN.0).clamp(ASK_AGAIN.0, ASK_AGAIN.1);
                    if !sleep(stop, wait) {
                        return Err(CallError::Stopped);
                    }
                    continue;
                }
                value => value?,
            };
            let Some(value) = value else { return Ok(StoredFile::Absent) };
            let response: UploadResponse = self.read_as(value)?;
            let is_finished = response.is_uploaded == 1;
            return Ok(if is_finished { StoredFile::Finished(response.digest()) } else { StoredFile::Unfinished });
        }
    }

    fn ask_status(&self, name: &FileName, expected: Option<Digest>) -> Result<Option<Value>, CallError> {
        let query = Query::new().with(param::FILE_NAME, name.as_str()).with_known(param::FILE_DIGEST, expected);
        match self.get(&query.with_switch(param::PEEK, true).with_switch(param::RANGES, true)) {
            Err(error) if error.code() == Some(ErrorCode::NoUpload) => Ok(None),
            value => value.map(Some),
        }
    }
}
