//! Reasons of refusals: a code, the facts, and the client's remedy. The words for the latter are the protocol's.

use crate::metrics::Limit;
use bigup_core::protocol::name::NameError;
use bigup_core::protocol::native::ErrorCode;
use bigup_core::protocol::plan::PlanError;
use bigup_core::storage::disk::is_passing;
use bigup_core::storage::objects::ObjectError;
use bigup_core::storage::space::FULL_FILE_SYSTEM;
use bigup_core::storage::spool::SliceError;
use std::io;

/// Seconds after which the resource that the system was short of may be there again.
const SHORT_FOR: u64 = 2;

/// Seconds after which a store of objects that does not answer is worth another request.
const STORE_RETRY_AFTER: u64 = 5;

/// A remedy that a client has for a refusal, where its protocol has words of its own for that. Each protocol renders it
/// after the facts: the native one in `http/native/words.rs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advice {
    /// Say that the finished file is to be replaced.
    Replace,
    /// Name the content of the file, by its digest or source; or say that the finished one is to be replaced.
    IdentifyOrReplace,
    /// Name the digest of the file, or say that the finished one is to be replaced.
    NameDigestOrReplace,
    /// Begin the upload first.
    BeginFirst,
    /// Begin another upload, which replaces the finished file.
    BeginToReplace,
    /// Send the same bytes again: they were damaged on the way.
    SendAgain,
    /// Upload the file again: the bytes that came are not the file.
    UploadAgain,
    /// The same, after so many seconds.
    UploadAgainIn(u64),
    /// The same, after a minute.
    UploadAgainInAMinute,
    /// Upload the file again, once there is disk space.
    UploadAgainThen,
    /// Upload the file again, under another name.
    UploadUnderOtherName,
    /// Upload the file again once the obstacle is moved away, or under another name.
    MoveAway,
    /// Upload to a server of that version, or under another name.
    UseOtherServer,
    /// Send a token.
    SendToken,
    /// Send a digest of the kind `hash`.
    SendHash,
    /// Send the slices between the runs of held ones, which joins them.
    JoinRuns,
    /// Ask for the held slices as runs.
    AskForRuns,
    /// Ask later, or for the held slices as runs.
    AskLaterOrForRuns,
}

/// A request refused, with the facts that the client needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The kind of error, for programs; decides the status.
    pub code: ErrorCode,
    /// The error, with both numbers, in words that hold in every protocol.
    pub facts: String,
    /// The client's remedy in its protocol. `None` if the facts say all.
    pub advice: Option<Advice>,
    /// Seconds after which asking again makes sense. `None` if it makes no sense, as things stand.
    pub retry_after: Option<u64>,
    /// The limit that is the reason. `None` if the reason is none of those that are counted.
    pub limit: Option<Limit>,
    /// Bytes of the upload that are held, where the request names another offset. `None` if it does not.
    pub offset: Option<u64>,
    /// True if the request tells another size of the file than one before, or less than is held.
    pub is_other_size: bool,
    /// The methods that are possible, where the one asked for is not. `None` if the method is right.
    pub allow: Option<&'static str>,
}

impl Refusal {
    /// A refusal that asking again will not change.
    pub fn new(code: ErrorCode, facts: impl Into<String>) -> Refusal {
        Refusal {
            code,
            facts: facts.into(),
            advice: None,
            retry_after: None,
            limit: None,
            offset: None,
            is_other_size: false,
            allow: None,
        }
    }

    /// The same refusal, with the client's remedy.
    pub fn advising(self, advice: Advice) -> Refusal {
        Refusal { advice: Some(advice), ..self }
    }

    /// The same, since this limit is reached.
    pub fn over(limit: Limit, code: ErrorCode, facts: impl Into<String>) -> Refusal {
        Refusal { limit: Some(limit), ..Refusal::new(code, facts) }
    }

    /// A method that is not possible; `allow` are those that are (RFC 9110, section 10.2.1), and `what` says for what.
    pub fn method(method: &str, what: &str, allow: &'static str) -> Refusal {
        let message = format!("{method} is not possible here: {what}");
        Refusal { allow: Some(allow), ..Refusal::new(ErrorCode::MethodNotAllowed, message) }
    }
}

impl From<NameError> for Refusal {
    fn from(error: NameError) -> Refusal {
        Refusal::new(ErrorCode::BadName, error.to_string())
    }
}

impl From<SliceError> for Refusal {
    fn from(error: SliceError) -> Refusal {
        match error {
            SliceError::Plan(error) => against_upload(error),
            SliceError::OtherSource | SliceError::Content { .. } | SliceError::Recut { .. } => {
                Refusal::new(ErrorCode::Conflict, error.to_string())
            }
            SliceError::Meanwhile(_) => Refusal::new(ErrorCode::Damaged, error.to_string()),
            SliceError::Io(error) => error.into(),
        }
    }
}

/// Numbers that do not fit the upload. Those that fit no upload at all are bad in themselves.
pub fn against_upload(error: PlanError) -> Refusal {
    let code = match error {
        PlanError::BeyondEnd { .. } | PlanError::EmptySlice(_) | PlanError::EmptyRun(_) | PlanError::ZeroSliceSize => {
            ErrorCode::BadRequest
        }
        PlanError::TooManySlices(_) | PlanError::FileTooLarge(_) => ErrorCode::TooLarge,
        PlanError::Count { .. }
        | PlanError::Thin { .. }
        | PlanError::Differs { .. }
        | PlanError::SliceLen { .. }
        | PlanError::LastTooLong { .. }
        | PlanError::Unequal { .. } => ErrorCode::Conflict,
    };
    let limit = match error {
        PlanError::TooManySlices(_) => Some(Limit::Slices),
        PlanError::FileTooLarge(_) => Some(Limit::FileSize),
        _ => None,
    };
    Refusal { limit, ..Refusal::new(code, error.to_string()) }
}

/// Numbers of one request that contradict each other.
pub fn within_request(error: PlanError) -> Refusal {
    match against_upload(error) {
        refusal if refusal.code == ErrorCode::Conflict => Refusal { code: ErrorCode::BadRequest, ..refusal },
        refusal => refusal,
    }
}

impl From<io::Error> for Refusal {
    /// Detail goes to the log, the client gets the part that it can act on.
    fn from(error: io::Error) -> Refusal {
        if ObjectError::of(&error).is_some() {
            log::error!("{error}; who asked is told to come back");
            let message = "the store of finished files does not answer, or refuses: try again later";
            return Refusal { retry_after: Some(STORE_RETRY_AFTER), ..Refusal::new(ErrorCode::Overloaded, message) };
        }
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                log::error!("no disk space left: {error}");
                Refusal::over(Limit::DiskSpace, ErrorCode::NoSpace, FULL_FILE_SYSTEM).advising(Advice::UploadAgainThen)
            }
            _ if is_passing(&error) => {
                log::error!("{error}; who asked is told to come back");
                let message = "the server is short of open files or memory just now: try again later";
                Refusal { retry_after: Some(SHORT_FOR), ..Refusal::new(ErrorCode::Overloaded, message) }
            }
            io::ErrorKind::FileTooLarge => {
                log::error!("too large to be stored: {error}");
                let message = "the server's file system, or a limit of its process, has no files as large as this";
                Refusal::over(Limit::FileSize, ErrorCode::TooLarge, message)
            }
            io::ErrorKind::InvalidFilename => {
                log::error!("a name that cannot be: {error}");
                Refusal::new(ErrorCode::BadName, "the server's file system has no names as long as this; use another")
            }
            _ => {
                log::error!("{error}");
                Refusal::new(ErrorCode::Internal, "the server failed to do this; its log says why")
            }
        }
    }
}
