//! The state of uploads, for clients that only look.

use super::begin::show_life;
use super::refusals::no_upload;
use super::{NameState, Unfinished, Uploads, finished, unusable};
use crate::metrics::Limit;
use crate::refusal::Refusal;
use bigup_core::protocol::digest::SliceDigest;
use bigup_core::protocol::name::FileName;
use bigup_core::protocol::native::{ErrorCode, UploadStatus};
use bigup_core::storage::spool::{Spool, UploadId};
use bigup_core::storage::store::Entry;
use std::io;

/// Bytes that the list of uploads takes of each, beside its name and error; a bit more than it does.
const LISTED_LEN: usize = 256;

impl Uploads {
    /// The state of an upload of a name, or of the finished file, changing nothing. `None` if nothing is known of it. A
    /// client that names the source of an upload shows that it is alive.
    ///
    /// # Errors
    /// The data folder cannot be read.
    pub fn peek(&self, id: &UploadId, name: &FileName, source: Option<&str>) -> Result<Option<NameState>, Refusal> {
        self.peek_by(id, source, || self.lookup(name))
    }

    /// The same for one to whom the digest matters: a finished file whose digest is not known for certain is read.
    ///
    /// # Errors
    /// The data folder cannot be read, or a large file is being read: then it is to be asked again.
    pub fn examine(&self, id: &UploadId, name: &FileName, source: Option<&str>) -> Result<Option<NameState>, Refusal> {
        self.peek_by(id, source, || self.look_into(name))
    }

    fn peek_by(
        &self,
        id: &UploadId,
        source: Option<&str>,
        look: impl FnOnce() -> Result<Entry, Refusal>,
    ) -> Result<Option<NameState>, Refusal> {
        let spool = Spool::of(&self.data, id);
        if let Some(upload) = spool.upload().map_err(|e| unusable(&spool, e))? {
            match spool.holdings(&upload) {
                Ok(holdings) => {
                    if source.is_some() && upload.source.as_deref() == source {
                        show_life(&spool);
                    }
                    return Ok(Some(NameState::Unfinished(Box::new(Unfinished { upload, holdings }))));
                }
                // Finished in between.
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(match look()? {
            Entry::File(found) => Some(finished(&found, source)),
            Entry::Nothing | Entry::Other(_) => None,
        })
    }

    /// Notes that the client with this source has given up an upload, if that is its.
    ///
    /// # Errors
    /// As the system gives them.
    pub fn leave(&self, id: &UploadId, source: Option<&str>) -> Result<(), Refusal> {
        let spool = Spool::of(&self.data, id);
        match self.lock(&spool)? {
            Some(locked) if source.is_some() && locked.upload().source.as_deref() == source => {
                let name = &locked.upload().file_name;
                log::debug!(file_name = name.as_str(); "{name}: its client has given up");
                Ok(spool.set_left()?)
            }
            _ => Ok(()),
        }
    }

    /// Bytes that merging lies behind a slice; 0 if no merger could get on.
    ///
    /// # Errors
    /// The upload cannot be read.
    pub fn lag(&self, id: &UploadId, slice_id: u64) -> Result<u64, Refusal> {
        let spool = Spool::of(&self.data, id);
        match spool.upload().and_then(|upload| upload.map_or(Ok(0), |upload| spool.lag(&upload, slice_id))) {
            // Finished in between.
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(0),
            lag => Ok(lag?),
        }
    }

    /// The digests of the held ones among the slices `first` to `last` (inclusive), in order.
    ///
    /// # Errors
    /// There is no such upload, or it cannot be read.
    pub fn digests(
        &self,
        id: &UploadId,
        name: &FileName,
        first: u64,
        last: u64,
    ) -> Result<Vec<Option<SliceDigest>>, Refusal> {
        let locked = self.lock(&Spool::of(&self.data, id))?.ok_or_else(|| no_upload(name))?;
        let held = locked.holdings()?.ranges();
        let mut digests = vec![];
        locked.records().scan(first, last, |slice_id, record| {
            digests.push(record.filter(|_| held.contains(slice_id)).map(|r| r.digest));
            Ok(())
        })?;
        Ok(digests)
    }

    /// The unfinished uploads whose names are `shown`, by name, and the bytes that an answer with them takes, or a bit
    /// more.
    ///
    /// # Errors
    /// The data folder cannot be read, or the response would be too large.
    pub fn list(&self, shown: impl Fn(&str) -> bool) -> Result<(Vec<UploadStatus>, u64), Refusal> {
        let (mut list, mut size, most) = (vec![], 0, self.settings.response_size);
        for spool in Spool::all(&self.data)? {
            match status_of(&spool) {
                Ok(Some(status)) if shown(&status.file_name) => {
                    // Names and errors have no control characters; quotes and backslashes take two bytes.
                    let text = status.file_name.len() + status.last_error.as_ref().map_or(0, String::len);
                    size += (2 * text + LISTED_LEN) as u64;
                    list.push(status);
                }
                Ok(_) => {}
                Err(e) => log::warn!("{}: {e}", spool.path().display()),
            }
            if size > most {
                let message = format!(
                    "the list of uploads takes more than {most} bytes, the most that are sent: ask for one by its name"
                );
                return Err(Refusal::over(Limit::ResponseSize, ErrorCode::TooLarge, message));
            }
        }
        list.sort_by(|a, b| a.file_name.cmp(&b.file_name));
        Ok((list, size))
    }
}

fn status_of(spool: &Spool) -> io::Result<Option<UploadStatus>> {
    let Some(upload) = spool.upload()? else { return Ok(None) };
    let holdings = spool.holdings(&upload)?;
    Ok(Some(UploadStatus {
        file_name: upload.file_name.as_str().to_owned(),
        slice_num: upload.plan.slice_num,
        slice_size: upload.plan.slice_size,
        file_size: upload.plan.file_size,
        slices_held: holdings.ranges().count(),
        curr_merge_slice_id: holdings.frontier,
        merge_slice_process_exist: u8::from(spool.merger()?.is_some()),
        idle_seconds: spool.idle()?.as_secs(),
        last_error: upload.problem().map(str::to_owned),
        paused: upload.paused,
    }))
}
