//! Refusals in the words of tus.

use super::headers::{TUS_RESUMABLE, TUS_VERSION, UPLOAD_OFFSET, VERSION};
use crate::net::response::Response;
use crate::refusal::{Advice, Refusal};
use bigup_core::protocol::native::ErrorCode;
use warp::http::StatusCode;
use warp::http::header::HeaderValue;

/// The status of a checksum that differs (tus 1.0.0, "Checksum").
const CHECKSUM_MISMATCH: u16 = 460;

/// The response to a refused request.
pub fn response(refusal: &Refusal) -> Response {
    let mut response = refusal.response_saying(&format!("{}{}", refusal.facts, advice(refusal.advice)));
    if let Some(status) = status(refusal) {
        *response.status_mut() = status;
    }
    if let Some(offset) = refusal.offset {
        response.headers_mut().insert(UPLOAD_OFFSET, HeaderValue::from(offset));
    }
    with_version(response)
}

/// The status, where it is another one than in other protocols.
fn status(refusal: &Refusal) -> Option<StatusCode> {
    match (refusal.code, refusal.advice) {
        (ErrorCode::Damaged, Some(Advice::SendAgain | Advice::UploadAgain)) => {
            StatusCode::from_u16(CHECKSUM_MISMATCH).ok()
        }
        // Proposed by the protocol's authors, and taken by its clients as "come back, and keep the address".
        (ErrorCode::Busy | ErrorCode::Paused, _) => Some(StatusCode::LOCKED),
        _ => None,
    }
}

fn advice(advice: Option<Advice>) -> &'static str {
    match advice {
        Some(Advice::SendToken) => ": send Authorization: Bearer TOKEN",
        Some(Advice::SendAgain) => ": send them again",
        Some(Advice::UploadUnderOtherName | Advice::MoveAway | Advice::UseOtherServer) => ": use another name",
        Some(
            Advice::UploadAgain | Advice::UploadAgainIn(_) | Advice::UploadAgainInAMinute | Advice::UploadAgainThen,
        ) => ": upload it again",
        _ => "",
    }
}

/// The response, with the version that it is of.
pub fn with_version(mut response: Response) -> Response {
    response.headers_mut().insert(TUS_RESUMABLE, HeaderValue::from_static(VERSION));
    response
}

/// The response to a request of another version.
pub fn other_version() -> Response {
    let facts = format!("Tus-Resumable is not {VERSION}, the only version that is spoken here");
    let mut response = Refusal::new(ErrorCode::BadRequest, facts).response();
    *response.status_mut() = StatusCode::PRECONDITION_FAILED;
    response.headers_mut().insert(TUS_VERSION, HeaderValue::from_static(VERSION));
    with_version(response)
}
