//! Requests that wait for mergers: until merging has caught up, or until the file is finished.

use crate::http::app::{App, alive};
use crate::refusal::{Advice, Refusal};
use crate::uploads::{NameState, SliceRequest, check_not_paused};
use bigup_core::protocol::digest::Digest;
use bigup_core::protocol::name::FileName;
use bigup_core::protocol::native::ErrorCode;
use bigup_core::storage::spool::{Spool, UploadId};
use std::pin::{Pin, pin};
use std::time::Duration;
use tokio::time::Instant;

/// Time between two checks for the end of an upload that a merger of another daemon may be finishing.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// Most bytes, and slices where that is more, that merging may lie behind. A merger copies and syncs them in a moment,
/// so that the file is finished a moment after its last slice, however large it is. A client that sends faster than
/// slices are merged waits for the response.
const MAX_LAG: (u64, u64) = (64 << 20, 8);

/// Longest time that a response waits for merging, and the time between two checks. Slices go on whatever is the matter
/// with the merger.
const LAG_PATIENCE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_millis(10));

impl App {
    /// Waits until merging is not too far behind a slice, for a while.
    pub(super) async fn wait_for_merging(&self, ask: &SliceRequest) {
        let deadline = tokio::time::Instant::now() + LAG_PATIENCE.0;
        let most = MAX_LAG.0.max(ask.len.saturating_mul(MAX_LAG.1));
        loop {
            let (uploads, id, slice_id) = (self.uploads.clone(), ask.id.clone(), ask.slice_id);
            // A lag that cannot be told keeps nobody waiting.
            let lag = self.blocking(move || uploads.lag(&id, slice_id)).await.unwrap_or(0);
            if lag <= most || *self.stopping.borrow() || tokio::time::Instant::now() >= deadline {
                return;
            }
            tokio::time::sleep(LAG_PATIENCE.1).await;
        }
    }

    /// Waits until some merger has finished its file or ended, be it one of another daemon that removed `spool` or blocked
    /// its upload. `false` if that takes until `deadline`, or if the daemon stops.
    pub(super) async fn some_end_of(
        &self,
        spool: &Spool,
        mut some_end: Pin<&mut impl Future<Output = ()>>,
        deadline: Instant,
    ) -> bool {
        loop {
            if Instant::now() >= deadline || *self.stopping.borrow() {
                return false;
            }
            // Ends early with any merger of ours; looks by itself for those of other daemons.
            let next = deadline.min(Instant::now() + LOOK_AGAIN);
            let ended = tokio::time::timeout_at(next, some_end.as_mut()).await.is_ok();
            if ended || is_over(spool) {
                return true;
            }
        }
    }

    /// Waits until the upload of `source`, of which all bytes are held, has become the file `name`. Returns its digest,
    /// and its size in bytes.
    ///
    /// # Errors
    /// It is not the file that was promised, and ended with that; it cannot be finished, bytes of it are missing after
    /// all, or it takes more than `patience`.
    pub(super) async fn wait_for_end(
        &self,
        id: &UploadId,
        name: &FileName,
        source: &str,
        patience: Duration,
    ) -> Result<(Digest, u64), Refusal> {
        let (deadline, spool) = (Instant::now() + patience, Spool::of(&self.uploads.data, id));
        loop {
            let mut some_end = pin!(self.mergers.some_end());
            let (uploads, asked) = (self.uploads.clone(), (id.clone(), name.clone(), source.to_owned()));
            let end = self.blocking(move || {
                let (id, name, source) = &asked;
                let found = match uploads.peek(id, name, Some(source)) {
                    // A power cut can leave the spool of a finished file, and damage it.
                    Err(refusal) => return uploads.became(id, name, source)?.map(Ok).ok_or(refusal),
                    found => found?,
                };
                match found {
                    Some(NameState::Unfinished(unfinished))
                        if unfinished.upload.source.as_ref() == Some(source) && !unfinished.upload.is_partial() =>
                    {
                        check_not_paused(&unfinished.upload)?;
                        match &unfinished.upload.blocked {
                            Some(why) if unfinished.upload.needs_comparison() => {
                                uploads.end(id, source)?;
                                Err(other_content(why))
                            }
                            Some(_) => Err(uploads.refusal_of_blocked(&unfinished.upload)?),
                            None if !unfinished.is_all_held() => Err(came_to_harm()),
                            None => Ok(Err(unfinished.is_merger_due())),
                        }
                    }
                    _ => match uploads.became(id, name, source)? {
                        Some(became) => Ok(Ok(became)),
                        None => Err(uploads.no_upload_for(id, name, source)?),
                    },
                }
            });
            match end.await? {
                Ok(became) => return Ok(became),
                Err(true) => self.ensure_merger(id, name).await?,
                Err(false) => {}
            }
            if !alive(spool.clone(), self.some_end_of(&spool, some_end.as_mut(), deadline)).await {
                let facts = "all bytes are held, and the file is being finished: ask again in a moment";
                return Err(Refusal { retry_after: Some(1), ..Refusal::new(ErrorCode::Busy, facts) });
            }
        }
    }
}

/// True if no merger will do more for the upload: it is gone, blocked, or cannot be read.
fn is_over(spool: &Spool) -> bool {
    !matches!(spool.upload(), Ok(Some(upload)) if upload.blocked.is_none())
}

/// The bytes that came are not those that were promised, for this reason. No request can mend that.
fn other_content(why: &str) -> Refusal {
    let facts = format!("{why}, and nothing of it was kept");
    Refusal::new(ErrorCode::Damaged, facts).advising(Advice::UploadAgain)
}

/// Slices were found to be damaged once all had come.
fn came_to_harm() -> Refusal {
    let facts = "bytes that had arrived were damaged on the server: ask for the offset, and go on from there";
    Refusal::new(ErrorCode::Conflict, facts)
}
