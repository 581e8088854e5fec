//! Refusals in the words of the draft: problem details (RFC 9457), where it has types for them.

use super::headers::{UPLOAD_COMPLETE, UPLOAD_OFFSET};
use crate::net::response::{Response, json};
use crate::refusal::Refusal;
use bigup_core::protocol::native::ErrorCode;
use serde_json::{Map, Value, json};
use warp::http::StatusCode;
use warp::http::header::{CONTENT_TYPE, HeaderValue};

/// The beginning of problem types that are registered.
const TYPES: &str = "https://iana.org/assignments/http-problem-types";

/// The response to a refused request.
pub fn response(refusal: &Refusal) -> Response {
    if refusal.is_other_size {
        return inconsistent_length(&refusal.facts);
    }
    // The other protocols' response has the header fields that all need.
    let mut response = refusal.response();
    // A client comes back after a 503, and not after another 4xx.
    if refusal.code == ErrorCode::Busy {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    let status = response.status();
    let problem = problem(status, "about:blank", &refusal.facts, Map::new());
    *response.body_mut() = problem.to_string().into();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    if let Some(offset) = refusal.offset {
        response.headers_mut().insert(UPLOAD_OFFSET, HeaderValue::from(offset));
        response.headers_mut().insert(UPLOAD_COMPLETE, HeaderValue::from_static("?0"));
    }
    response
}

/// The response to a request that names an offset, `provided`, which is not the upload's.
pub fn mismatching_offset(refusal: &Refusal, expected: u64, provided: u64) -> Response {
    let numbers = [("expected-offset", expected), ("provided-offset", provided)];
    let mut response = typed("mismatching-upload-offset", StatusCode::CONFLICT, &refusal.facts, &numbers);
    response.headers_mut().insert(UPLOAD_OFFSET, HeaderValue::from(expected));
    response.headers_mut().insert(UPLOAD_COMPLETE, HeaderValue::from_static("?0"));
    response
}

/// The response to a request that appends to an upload that is whole.
pub fn completed_upload() -> Response {
    let facts = "the upload is complete, and nothing can be appended to it";
    let mut response = typed("completed-upload", StatusCode::BAD_REQUEST, facts, &[]);
    response.headers_mut().insert(UPLOAD_COMPLETE, HeaderValue::from_static("?1"));
    response
}

/// The response to a request that tells another length than before, or two.
pub fn inconsistent_length(facts: &str) -> Response {
    typed("inconsistent-upload-length", StatusCode::BAD_REQUEST, facts, &[])
}

fn typed(kind: &str, status: StatusCode, facts: &str, numbers: &[(&str, u64)]) -> Response {
    let more = numbers.iter().map(|(name, number)| ((*name).to_owned(), json!(number))).collect();
    let mut response = json(status, &problem(status, &format!("{TYPES}#{kind}"), facts, more));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    response
}

fn problem(status: StatusCode, kind: &str, facts: &str, more: Map<String, Value>) -> Value {
    let title = status.canonical_reason().unwrap_or_default();
    let mut members = Map::new();
    members.insert("type".to_owned(), json!(kind));
    members.insert("title".to_owned(), json!(title));
    members.insert("status".to_owned(), json!(status.as_u16()));
    members.insert("detail".to_owned(), json!(facts));
    members.extend(more);
    Value::Object(members)
}
