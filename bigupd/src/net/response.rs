//! Responses: JSON bodies, and refusals with their status, as all protocols have them that bring no form of their own.

use crate::refusal::Refusal;
use bigup_core::protocol::native::{ErrorCode, ErrorResponse};
use bytes::Bytes;
use serde::Serialize;
use warp::http::StatusCode;
use warp::http::header::{
    ACCEPT_ENCODING, ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER,
    WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
};

/// A response of the daemon.
pub type Response = warp::reply::Response;

impl Refusal {
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
            ErrorCode::PreconditionFailed => StatusCode::PRECONDITION_FAILED,
            ErrorCode::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            ErrorCode::Unsupported => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            ErrorCode::RangeNotSatisfiable => StatusCode::RANGE_NOT_SATISFIABLE,
            ErrorCode::TooMany => StatusCode::TOO_MANY_REQUESTS,
            ErrorCode::Overloaded | ErrorCode::Paused => StatusCode::SERVICE_UNAVAILABLE,
            ErrorCode::NoSpace => StatusCode::INSUFFICIENT_STORAGE,
            ErrorCode::Internal | ErrorCode::Unknown => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The response of a protocol that says it in the facts alone; see [`Refusal::response_saying`].
    pub fn response(&self) -> Response {
        self.response_saying(&self.facts)
    }

    /// The response in the words of a protocol, which carries the limit to the counters.
    pub fn response_saying(&self, message: &str) -> Response {
        let mut response = json(self.status(), &self.answer(message));
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(limit) = self.limit {
            response.extensions_mut().insert(limit);
        }
        if let Some(allow) = self.allow {
            response.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
        }
        if self.code == ErrorCode::Unsupported {
            // The header lists the accepted codings (RFC 9110, section 15.5.16).
            response.headers_mut().insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        }
        if self.code == ErrorCode::Unauthorized {
            // RFC 6750, section 3, wants a parameter.
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"bigup\""));
        }
        response
    }

    /// The response, after which the connection is closed.
    pub fn last_response(&self) -> Response {
        let mut response = self.response();
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        response
    }

    /// The response as bytes, for a connection that is closed after it.
    pub fn bytes(&self) -> Vec<u8> {
        let body = json_text(&self.answer(&self.facts));
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

    /// The body of that response.
    pub fn answer(&self, message: &str) -> ErrorResponse {
        ErrorResponse { status: self.status().as_u16(), message: message.to_owned(), error: self.code }
    }
}

/// A response with a JSON body.
pub fn json(status: StatusCode, body: &impl Serialize) -> Response {
    json_bytes(status, json_text(body).into())
}

/// The text of a JSON body.
pub fn json_text(body: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(body).expect("strings and numbers always serialise")
}

/// A response with such a text.
pub fn json_bytes(status: StatusCode, text: Bytes) -> Response {
    let mut response = Response::new(text.into());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    keep_nowhere(&mut response);
    response
}

/// A response to OPTIONS, where `allow` are the methods there are.
pub fn no_content(allow: &'static str) -> Response {
    let mut response = empty(StatusCode::NO_CONTENT);
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
    response
}

/// A response without a body.
pub fn empty(status: StatusCode) -> Response {
    let mut response = Response::default();
    *response.status_mut() = status;
    keep_nowhere(&mut response);
    response
}

/// Adds a header field. A value that no field can have is left out.
pub fn insert(response: &mut Response, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}

/// Tells a client to take a response by its declared type, and not to store it: a response tells how things stand now.
pub fn keep_nowhere(response: &mut Response) {
    // No browser is to take a name in it for a page.
    response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
}
