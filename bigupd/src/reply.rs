//! What goes back: JSON bodies, and refusals with their status.

use crate::metrics::Limit;
use bigup_core::name::NameError;
use bigup_core::plan::PlanError;
use bigup_core::room::FULL_FILE_SYSTEM;
use bigup_core::spool::SliceError;
use bigup_core::wire::{ErrorAnswer, ErrorCode};
use bytes::Bytes;
use serde::Serialize;
use std::io;
use warp::http::header::{
    CONNECTION, CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
};
use warp::http::{Response, StatusCode};

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
}

impl Refusal {
    /// A refusal that asking again will not change.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Refusal {
        Refusal { code, message: message.into(), retry_after: None, limit: None }
    }

    /// The same, since this limit is reached.
    pub fn over(limit: Limit, code: ErrorCode, message: impl Into<String>) -> Refusal {
        Refusal { limit: Some(limit), ..Refusal::new(code, message) }
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
    let headers = reply.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    // No browser is to take a name in it for a page.
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    reply
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
            _ => {
                log::error!("{error}");
                Refusal::new(ErrorCode::Internal, "the server failed to do this; its log says why")
            }
        }
    }
}
