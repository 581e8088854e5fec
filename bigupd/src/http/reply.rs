//! What goes back: JSON bodies, and refusals with their status.

use crate::metrics::Limit;
use bigup_core::protocol::name::NameError;
use bigup_core::protocol::native::{ErrorAnswer, ErrorCode};
use bigup_core::protocol::plan::PlanError;
use bigup_core::storage::disk::is_passing;
use bigup_core::storage::space::FULL_FILE_SYSTEM;
use bigup_core::storage::spool::SliceError;
use bytes::Bytes;
use serde::Serialize;
use std::io;
use warp::http::header::{
    ACCEPT_ENCODING, ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE,
    X_CONTENT_TYPE_OPTIONS,
};
use warp::http::{Method, Response, StatusCode};

/// Seconds after which what the system was short of may be there again.
const SHORT_FOR: u64 = 2;

/// A response of the daemon.
pub type Reply = warp::reply::Response;

/// A request refused, with what the client gets to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What was wrong, for programs; decides the status.
    pub code: ErrorCode,
    /// What was wrong, with both numbers, and what to do.
    pub message: String,
    /// Seconds after which asking again makes sense. None: it does not, as things stand.
    pub retry_after: Option<u64>,
    /// The limit that is the reason. None: it is none of those that are counted.
    pub limit: Option<Limit>,
    /// The methods that are possible, where the one asked for is not. None: the method is right.
    pub allow: Option<&'static str>,
}

impl Refusal {
    /// A refusal that asking again will not change.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Refusal {
        Refusal { code, message: message.into(), retry_after: None, limit: None, allow: None }
    }

    /// The same, since this limit is reached.
    pub fn over(limit: Limit, code: ErrorCode, message: impl Into<String>) -> Refusal {
        Refusal { limit: Some(limit), ..Refusal::new(code, message) }
    }

    /// A method that is not possible; `allow` are those that are (RFC 9110, section 10.2.1), and `what` says for what.
    pub fn method(method: &Method, what: &str, allow: &'static str) -> Refusal {
        let message = format!("{method} is not possible here: {what}");
        Refusal { allow: Some(allow), ..Refusal::new(ErrorCode::MethodNotAllowed, message) }
    }

    /// The status that goes with a code.
    pub fn status(&self) -> StatusCode {
        match self.code {
            ErrorCode::BadRequest | ErrorCode::BadName | ErrorCode::Damaged => StatusCode::BAD_REQUEST,
            ErrorCode::Unauthorized => StatusCode::UNAUTHORIZED,
            ErrorCode::Forbidden => StatusCode::FORBIDDEN,
            ErrorCode::NotFound | ErrorCode::NoUpload => StatusCode::NOT_FOUND,
            ErrorCode::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            ErrorCode::Timeout => StatusCode::REQUEST_TIMEOUT,
            ErrorCode::Conflict | ErrorCode::Busy | ErrorCode::Exists => StatusCode::CONFLICT,
            ErrorCode::Cancelled => StatusCode::GONE,
            ErrorCode::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            ErrorCode::Unsupported => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            ErrorCode::TooMany => StatusCode::TOO_MANY_REQUESTS,
            ErrorCode::Overloaded | ErrorCode::Paused => StatusCode::SERVICE_UNAVAILABLE,
            ErrorCode::NoSpace => StatusCode::INSUFFICIENT_STORAGE,
            ErrorCode::Internal | ErrorCode::Unknown => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The response, which carries the limit to whoever counts.
    pub fn reply(&self) -> Reply {
        let mut reply = json(self.status(), &self.answer());
        if let Some(seconds) = self.retry_after {
            reply.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(limit) = self.limit {
            reply.extensions_mut().insert(limit);
        }
        if let Some(allow) = self.allow {
            reply.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
        }
        if self.code == ErrorCode::Unsupported {
            // Which codings are not (RFC 9110, section 15.5.16).
            reply.headers_mut().insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        }
        if self.code == ErrorCode::Unauthorized {
            // RFC 6750, section 3, wants a parameter.
            reply.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"bigup\""));
        }
        reply
    }

    /// The response, after which the connection is closed.
    pub fn last_reply(&self) -> Reply {
        let mut reply = self.reply();
        reply.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        reply
    }

    /// The response as bytes, for a connection that is closed after it.
    pub fn bytes(&self) -> Vec<u8> {
        let body = json_text(&self.answer());
        let head = [
            format!("HTTP/1.1 {}", self.status()),
            "connection: close".to_owned(),
            "content-type: application/json".to_owned(),
            "x-content-type-options: nosniff".to_owned(),
            "cache-control: no-store".to_owned(),
            format!("content-length: {}", body.len()),
        ];
        [format!("{}\r\n\r\n", head.join("\r\n")).into_bytes(), body].concat()
    }

    fn answer(&self) -> ErrorAnswer {
        ErrorAnswer { status: self.status().as_u16(), message: self.message.clone(), error: self.code }
    }
}

/// A response with a JSON body.
pub fn json(status: StatusCode, body: &impl Serialize) -> Reply {
    json_bytes(status, json_text(body).into())
}

/// The text of a JSON body.
pub fn json_text(body: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(body).expect("strings and numbers always serialise")
}

/// A response with such a text.
pub fn json_bytes(status: StatusCode, text: Bytes) -> Reply {
    let mut reply = Response::new(text.into());
    *reply.status_mut() = status;
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    keep_nowhere(&mut reply);
    reply
}

/// A response to OPTIONS, where `allow` are the methods there are.
pub fn no_content(allow: &'static str) -> Reply {
    let mut reply = Reply::default();
    *reply.status_mut() = StatusCode::NO_CONTENT;
    reply.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
    keep_nowhere(&mut reply);
    reply
}

/// Tells whoever gets a response to take it as what it says it is, and not to give it to somebody who asks later: it tells
/// how things stand now.
pub fn keep_nowhere(reply: &mut Reply) {
    // No browser is to take a name in it for a page.
    reply.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    reply.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
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
        PlanError::BeyondEnd { .. } | PlanError::EmptySlice(_) | PlanError::ZeroSliceSize => ErrorCode::BadRequest,
        PlanError::TooManySlices(_) | PlanError::FileTooLarge(_) => ErrorCode::TooLarge,
        PlanError::Count { .. }
        | PlanError::Thin { .. }
        | PlanError::Differs { .. }
        | PlanError::SliceLen { .. }
        | PlanError::LastTooLong { .. } => ErrorCode::Conflict,
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
    /// Detail goes to the log, the client gets what it can act on.
    fn from(error: io::Error) -> Refusal {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                log::error!("no room left: {error}");
                Refusal::over(Limit::Room, ErrorCode::NoSpace, FULL_FILE_SYSTEM)
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
