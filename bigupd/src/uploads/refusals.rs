//! Why an upload or a slice is refused.

use super::SliceRequest;
use crate::metrics::Limit;
use crate::refusal::{Advice, Refusal};
use bigup_core::protocol::digest::Digest;
use bigup_core::protocol::name::FileName;
use bigup_core::protocol::native::ErrorCode;
use bigup_core::storage::finish::publish::Remedy;
use bigup_core::storage::space::SpaceError;

/// There is no upload of this source.
pub fn no_such_upload() -> Refusal {
    Refusal::new(ErrorCode::NoUpload, "there is no such upload: it never was, has expired, or was cancelled")
}

/// There is no disk space for `what`, which goes to the log: its client knows what it sent.
pub(super) fn no_disk_space(error: SpaceError, what: &str) -> Refusal {
    match error {
        SpaceError::Io(e) => e.into(),
        no_disk_space => {
            log::debug!("{what}: {no_disk_space}");
            let refusal = Refusal::over(Limit::DiskSpace, ErrorCode::NoSpace, no_disk_space.to_string());
            refusal.advising(Advice::UploadAgainThen)
        }
    }
}

pub(super) fn cannot_be_finished(name: &FileName, why: &str) -> Refusal {
    Refusal::new(ErrorCode::Conflict, format!("{name} cannot be finished: {why}"))
}

/// The upload is blocked: `why`.
pub(super) fn blocked(name: &FileName, why: &str, remedy: Option<Remedy>) -> Refusal {
    let advice = remedy.map(|remedy| match remedy {
        Remedy::Replace => Advice::Replace,
        Remedy::UploadAgain => Advice::UploadAgain,
        Remedy::OtherName => Advice::UploadUnderOtherName,
    });
    Refusal { advice, ..cannot_be_finished(name, why) }
}

pub(super) fn in_the_way(what: &str) -> Refusal {
    Refusal::new(ErrorCode::Conflict, format!("{what}; use another name"))
}

pub(super) fn exists_with(ask: &SliceRequest, digest: Digest, yours: Digest) -> Refusal {
    let name = &ask.name;
    let facts = format!("{name} exists: its digest is {digest}, yours {yours}");
    Refusal::new(ErrorCode::Exists, facts).advising(Advice::Replace)
}

pub(super) fn no_upload(name: &FileName) -> Refusal {
    Refusal::new(ErrorCode::NoUpload, format!("there is no upload of {name}")).advising(Advice::BeginFirst)
}
