//! The end of an upload that a client does not want, by its name.

use super::Uploads;
use super::refusals::no_such_upload;
use crate::admission::access::Access;
use crate::admission::tokens::Permission;
use crate::mergers::take_from_merger;
use crate::refusal::Refusal;
use bigup_core::protocol::name::FileName;
use bigup_core::storage::finish::cancel::{Ended, end};
use bigup_core::storage::spool::{Spool, UploadId};
use std::time::Duration;

/// Longest wait for a merger at work to leave.
const MERGER_LEAVES: Duration = Duration::from_secs(10);

impl Uploads {
    /// Ends the upload `id`, which becomes the file `name`, and returns the bytes that it held. Its mark tells its client.
    ///
    /// # Errors
    /// There is none, it is finished, `by` neither began it nor may delete files, or a merger does not leave it.
    pub fn cancel(&self, id: &UploadId, name: &FileName, by: &Access) -> Result<u64, Refusal> {
        let spool = Spool::of(&self.data, id);
        let locked = self.lock(&spool)?.ok_or_else(no_such_upload)?;
        let source = locked.upload().source.clone();
        let began_it = by.token().is_some() && locked.upload().token.as_deref() == by.token();
        by.check(if began_it { &[Permission::Push, Permission::Delete] } else { &[Permission::Delete] }, Some(name))?;
        drop(locked);
        let merger = take_from_merger(&spool, MERGER_LEAVES)?;
        match end(&self.data, &spool, &merger, |upload| upload.source == source)? {
            Ended::Cancelled(held) => Ok(held),
            Ended::Finished | Ended::NoUpload => Err(no_such_upload()),
        }
    }
}
