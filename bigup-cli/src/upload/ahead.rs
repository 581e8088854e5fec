//! Slices of a file that still grows, sent before its push.
//!
//! The upload is begun without a length, by a source of its own, and its end is never told: nothing can be published by it. The
//! push of the complete file goes on with it as with an upload that another source began. It compares the digest of each
//! slice that is held with the file, and sends those that differ or are missing. So a slice that was written again since,
//! like a header, is right in the end.

use crate::client::requests::{OutgoingSlice, UploadRequests};
use crate::pipeline::slice_size;
use crate::source::error::SourceError;
use crate::source::{random_token, system};
use crate::stop::{is_closed, sleep};
use crate::upload::error::UploadError;
use crate::upload::{PushContext, plan_of};
use bigup_core::protocol::digest::{SliceHasher, kind_of};
use bigup_core::protocol::name::FileName;
use bigup_core::protocol::native::ErrorCode;
use bigup_core::protocol::plan::Plan;
use bigup_core::protocol::ranges::SliceRanges;
use std::fs::File;
use std::io;
use std::path::Path;
use std::time::Duration;

/// Time between two looks at the size of the file.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Sends each slice of the file at `path` once it is full and more follows, until the upload is stopped or the file gets
/// shorter. Returns the number of bytes that were sent. An upload of `name` that has a length, and a finished file, are left
/// to the push.
///
/// # Errors
/// The file cannot be read; the server refuses, or does not answer.
pub fn send(cx: &PushContext<'_>, name: &FileName, path: &Path) -> Result<u64, UploadError> {
    let failed = |action| move |cause| SourceError::Io { action, path: path.to_owned(), cause };
    let file = system::open_written(path).map_err(failed("open"))?;
    let mut requests = cx.requests(name, &random_token(), None, cx.slice_size_for(None)?);
    let answer = match requests.ask(0) {
        Ok(answer) if answer.is_uploaded == 1 => return Ok(0),
        Ok(answer) => answer,
        Err(error) if matches!(error.code(), Some(ErrorCode::Busy | ErrorCode::Exists)) => return Ok(0),
        Err(error) => return Err(error.into()),
    };
    let plan = plan_of(&answer, &requests)?;
    requests.slice_size = plan.slice_size.ok_or(UploadError::NoSliceSize)?;
    let sent =
        if plan.slice_num.is_none() { full_slices(&requests, &plan, &answer.held(), &file, path) } else { Ok(0) };
    // The push need not wait until the server misses us.
    requests.leave();
    sent
}

fn full_slices(
    requests: &UploadRequests<'_>,
    plan: &Plan,
    held: &SliceRanges,
    file: &File,
    path: &Path,
) -> Result<u64, UploadError> {
    let len = requests.slice_size;
    let (mut bytes, mut sent) = (slice_size::buffer(len)?, 0);
    for id in (0..).filter(|id| !held.contains(*id)) {
        let offset = plan.offset_of(id).ok_or(UploadError::NoPlace(id))?;
        let failed = |cause| SourceError::Io { action: "read", path: path.to_owned(), cause };
        // The last slice, which may be a full one, is the push's: it tells the end.
        while file.metadata().map_err(failed)?.len() <= offset + len {
            if !sleep(requests.stop, LOOK_EVERY) {
                return Ok(sent);
            }
        }
        match system::read_exact_at(file, &mut bytes, offset) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(sent),
            read => read.map_err(failed)?,
        }
        let mut hasher = SliceHasher::new(kind_of(plan, id), offset);
        hasher.update(&bytes);
        let digest = hasher.finish();
        let slice = OutgoingSlice { id, offset: Some(offset), digest, bytes: &bytes, zeroes: None };
        match requests.put(&slice, requests.stop, &|_| true) {
            Err(_) if is_closed(requests.stop) => return Ok(sent),
            put => drop(put?),
        }
        sent += len;
    }
    Ok(sent)
}
