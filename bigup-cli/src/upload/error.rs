//! Errors of an upload.

use crate::client::error::CallError;
use crate::pipeline::error::{RoundError, SliceSizeError};
use crate::source::error::SourceError;
use bigup_core::protocol::digest::Digest;
use bigup_core::protocol::name::NameError;
use bigup_core::protocol::native::ErrorCode;
use bigup_core::protocol::plan::PlanError;
use std::fmt;

/// Why a file was not uploaded.
///
/// The texts name the cause. They give no advice and name no flag of the command line.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// The name cannot be used.
    #[error("{0}")]
    Name(#[from] NameError),
    /// The bytes cannot be read.
    #[error("{0}")]
    Source(SourceError),
    /// The source changed between two reads. The server got none of it, or only bytes of one moment.
    #[error("{0}")]
    Changed(SourceError),
    /// A slice has other content than before.
    #[error("slice {0} reads differently than before: the file changed, or the disk fails")]
    SliceChanged(u64),
    /// The size of slices does not fit.
    #[error("{0}")]
    SliceSize(#[from] SliceSizeError),
    /// A finished file of this name has other content, and replacing it was not asked for.
    #[error("{0}")]
    Exists(FailedCall),
    /// A finished file of this name has another digest than the stream.
    #[error("a finished file of this name has other content: digest {server}, the input's is {local}")]
    OtherContent {
        /// Digest of the file on the server.
        server: Digest,
        /// Digest of the stream.
        local: Digest,
    },
    /// A finished file of this name exists, and the server does not know its digest.
    #[error("a finished file of this name exists, of unknown digest")]
    UnknownContent,
    /// The file was finished with another digest than that of the source.
    #[error("the finished file on the server differs: its digest is {server}, that of the local one {local}")]
    DigestMismatch {
        /// Digest of the file on the server.
        server: Digest,
        /// Digest of the source.
        local: Digest,
    },
    /// The server does not accept the token, or the token lacks the right.
    #[error("{0}")]
    Denied(FailedCall),
    /// The disk of the server is full.
    #[error("{0}")]
    NoSpace(FailedCall),
    /// The request is larger than the server, or a proxy before it, accepts.
    #[error("{0}")]
    TooLarge(FailedCall),
    /// Another push of this name is at work, and the server refused to wait for it any longer.
    #[error("{0}")]
    Busy(FailedCall),
    /// The upload was cancelled on the server.
    #[error("{0}")]
    Cancelled(FailedCall),
    /// Retries ended without success. Only failures without a variant of their own are here.
    #[error("{0}")]
    GaveUp(FailedCall),
    /// Any other failed request.
    #[error("{0}")]
    Call(FailedCall),
    /// Another push of this name took the upload over.
    #[error("slice {slice_id} was refused, another push took over: {error}")]
    Overtaken {
        /// The refused slice.
        slice_id: u64,
        /// The refusal.
        error: CallError,
    },
    /// Another push of this name with other content is at work.
    #[error("another push of {name} is at work: {difference}")]
    AnotherPush {
        /// Name of the file.
        name: String,
        /// The difference between the two contents.
        difference: String,
    },
    /// Another push of this name holds the upload, and made no progress for the whole time of retries.
    #[error("nothing moved for {seconds} s: {busy}")]
    Stalled {
        /// The time of retries, in seconds.
        seconds: u64,
        /// The refusal.
        busy: CallError,
    },
    /// All slices are sent, but the server does not finish the file.
    #[error("everything is sent, but the server does not finish: {0}")]
    NotFinished(String),
    /// The server asks for slices again that it got.
    #[error("gave up: the server asks for {missing} slices again and again{reason}")]
    Futile {
        /// Number of slices.
        missing: u64,
        /// Empty, or the reason of the server after a colon.
        reason: String,
    },
    /// The server forgot the upload of a stream.
    #[error("the server does not know this upload any more")]
    Lost,
    /// The server asks for parts of a stream again, which can be read only once.
    #[error("the server asks for slices of the input again, which cannot be read twice")]
    CannotRepeat,
    /// The server describes an upload of another file under this name.
    #[error("the server's upload of {name} is not of this file: {cause}")]
    NotOfThisFile {
        /// Name of the file; printable.
        name: String,
        /// The contradiction.
        cause: PlanError,
    },
    /// The server did not say how large slices are.
    #[error("the server did not say how large slices are")]
    NoSliceSize,
    /// The numbers of the upload contradict each other.
    #[error("{0}")]
    Plan(#[from] PlanError),
    /// A slice is not one of the upload's.
    #[error("slice {0} has no place in this upload")]
    NoPlace(u64),
    /// [`Stop`](crate::stop::Stop) ended the upload. The server keeps what it holds.
    #[error("stopped")]
    Stopped,
}

/// A failed request, and its place in the upload.
#[derive(Debug)]
pub struct FailedCall {
    /// The step of the upload.
    pub step: Step,
    /// The failure.
    pub error: CallError,
}

/// A step of an upload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Questions about the upload, or a file in one request.
    Ask,
    /// Sending the slice of this number.
    Slice(u64),
    /// Waiting until the server has merged the slices.
    Merge,
}

impl fmt::Display for FailedCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.step {
            Step::Ask => write!(f, "{}", self.error),
            Step::Slice(id) => write!(f, "slice {id}: {}", self.error),
            Step::Merge => write!(f, "waiting for the merge: {}", self.error),
        }
    }
}

impl UploadError {
    /// The failure of a request in the step `step`, sorted by its cause.
    pub fn of_call(step: Step, error: CallError) -> UploadError {
        if matches!(error, CallError::Stopped) {
            return UploadError::Stopped;
        }
        let (code, last) = (error.code(), error.last());
        let (is_full, is_foreign_413) = (last.is_full(), matches!(last, CallError::Foreign { status: 413, .. }));
        let gave_up = matches!(error, CallError::GaveUp { .. });
        let failed = FailedCall { step, error };
        match code {
            Some(ErrorCode::Exists) => UploadError::Exists(failed),
            Some(ErrorCode::Unauthorized | ErrorCode::Forbidden) => UploadError::Denied(failed),
            Some(ErrorCode::TooLarge) => UploadError::TooLarge(failed),
            Some(ErrorCode::Busy) => UploadError::Busy(failed),
            Some(ErrorCode::Cancelled) => UploadError::Cancelled(failed),
            _ if is_full => UploadError::NoSpace(failed),
            _ if is_foreign_413 => UploadError::TooLarge(failed),
            _ if gave_up => UploadError::GaveUp(failed),
            _ => UploadError::Call(failed),
        }
    }

    /// The failed request. `None`: the error has another cause than a request.
    pub fn call(&self) -> Option<&CallError> {
        match self {
            UploadError::Exists(failed)
            | UploadError::Denied(failed)
            | UploadError::NoSpace(failed)
            | UploadError::TooLarge(failed)
            | UploadError::Busy(failed)
            | UploadError::Cancelled(failed)
            | UploadError::GaveUp(failed)
            | UploadError::Call(failed) => Some(&failed.error),
            UploadError::Overtaken { error, .. } | UploadError::Stalled { busy: error, .. } => Some(error),
            _ => None,
        }
    }

    /// True if the same upload can succeed later without any change on our side. True for a full disk: the operator can
    /// free space.
    pub fn is_temporary(&self) -> bool {
        match self {
            UploadError::GaveUp(failed) | UploadError::Call(failed) => failed.error.is_temporary(),
            UploadError::Changed(_)
            | UploadError::NoSpace(_)
            | UploadError::Busy(_)
            | UploadError::Cancelled(_)
            | UploadError::Overtaken { .. }
            | UploadError::AnotherPush { .. }
            | UploadError::Stalled { .. }
            | UploadError::NotFinished(_)
            | UploadError::Lost
            | UploadError::CannotRepeat
            | UploadError::Stopped => true,
            _ => false,
        }
    }

    /// True if a finished file of this name with other content, or of unknown content, is in the way.
    pub fn is_existing_file(&self) -> bool {
        matches!(self, UploadError::Exists(_) | UploadError::OtherContent { .. } | UploadError::UnknownContent)
    }

    /// True if a proxy before the server refused a slice for its size.
    pub fn is_too_large_for_proxy(&self) -> bool {
        matches!(self, UploadError::TooLarge(FailedCall { step: Step::Slice(_), error: CallError::Foreign { .. } }))
    }
}

impl From<CallError> for UploadError {
    fn from(error: CallError) -> UploadError {
        UploadError::of_call(Step::Ask, error)
    }
}

impl From<SourceError> for UploadError {
    fn from(error: SourceError) -> UploadError {
        match error {
            SourceError::Stopped => UploadError::Stopped,
            error if error.is_change() => UploadError::Changed(error),
            error => UploadError::Source(error),
        }
    }
}

impl From<RoundError> for UploadError {
    fn from(error: RoundError) -> UploadError {
        match error {
            RoundError::Source(error) => error.into(),
            RoundError::Call(error) => error.into(),
            RoundError::Slice { id, error } => UploadError::of_call(Step::Slice(id), error),
            RoundError::Overtaken { id, error } => UploadError::Overtaken { slice_id: id, error },
            RoundError::SliceChanged(id) => UploadError::SliceChanged(id),
            RoundError::NoPlace(id) => UploadError::NoPlace(id),
            RoundError::SliceSize(error) => UploadError::SliceSize(error),
            RoundError::Stopped => UploadError::Stopped,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(status: u16, code: ErrorCode) -> CallError {
        CallError::Refused { status, code, message: "no".to_owned(), retry_after: None }
    }

    fn gave_up(last: CallError) -> CallError {
        CallError::GaveUp { attempts: 2, seconds: 1, last: Box::new(last) }
    }

    #[test]
    fn a_failed_request_is_sorted_by_its_cause_also_after_retries() {
        for repeated in [false, true] {
            let of = |status, code| {
                let error = refused(status, code);
                UploadError::of_call(Step::Ask, if repeated { gave_up(error) } else { error })
            };
            assert!(matches!(of(409, ErrorCode::Exists), UploadError::Exists(_)));
            assert!(matches!(of(401, ErrorCode::Unauthorized), UploadError::Denied(_)));
            assert!(matches!(of(403, ErrorCode::Forbidden), UploadError::Denied(_)));
            assert!(matches!(of(507, ErrorCode::NoSpace), UploadError::NoSpace(_)));
            assert!(matches!(of(413, ErrorCode::TooLarge), UploadError::TooLarge(_)));
            let other = of(500, ErrorCode::Internal);
            assert_eq!(matches!(other, UploadError::GaveUp(_)), repeated, "{other:?}");
            assert!(other.is_temporary() && !of(413, ErrorCode::TooLarge).is_temporary());
        }
        assert!(matches!(UploadError::from(CallError::Stopped), UploadError::Stopped));
    }

    #[test]
    fn the_step_stands_before_the_failure() {
        let of = |step| UploadError::of_call(step, refused(400, ErrorCode::BadRequest)).to_string();
        assert_eq!(of(Step::Ask), "no");
        assert_eq!(of(Step::Slice(3)), "slice 3: no");
        assert_eq!(of(Step::Merge), "waiting for the merge: no");
    }
}
