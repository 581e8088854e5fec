//! Why an upload or a slice is refused, in the words that its client gets to read.

use super::SliceRequest;
use crate::metrics::Limit;
use crate::refusal::Refusal;
use bigup_core::protocol::digest::Digest;
use bigup_core::protocol::name::FileName;
use bigup_core::protocol::native::ErrorCode;
use bigup_core::storage::space::SpaceError;

/// There is no room for `what`, which goes to the log: its client knows what it sent.
pub(super) fn no_room(error: SpaceError, what: &str) -> Refusal {
    match error {
        SpaceError::Io(e) => e.into(),
        no_room => {
            log::debug!("{what}: {no_room}");
            let message = format!("{no_room}, then push again");
            Refusal::over(Limit::DiskSpace, ErrorCode::NoSpace, message)
        }
    }
}

pub(super) fn cannot_be_finished(name: &FileName, why: &str) -> Refusal {
    Refusal::new(ErrorCode::Conflict, format!("{name} cannot be finished: {why}"))
}

pub(super) fn in_the_way(what: &str) -> Refusal {
    Refusal::new(ErrorCode::Conflict, format!("{what}; use another name"))
}

pub(super) fn exists_with(ask: &SliceRequest, digest: Digest, yours: Digest) -> Refusal {
    let name = &ask.name;
    let message = format!("{name} exists: its digest is {digest}, yours {yours}; push with --replace to replace it");
    Refusal::new(ErrorCode::Exists, message)
}

pub(super) fn no_upload(name: &FileName) -> Refusal {
    Refusal::new(ErrorCode::NoUpload, format!("there is no upload of {name}: begin it by a GET"))
}
