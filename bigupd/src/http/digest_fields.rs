//! Header fields about a body's coding and digest, which all protocols take alike (RFC 9110, section 8.4; RFC 9530).

use crate::http::checksum::Algorithm;
use crate::http::receive::parse_content_digest;
use crate::refusal::Refusal;
use bigup_core::protocol::native::ErrorCode;
use warp::http::header::{CONTENT_ENCODING, HeaderMap, HeaderName};

/// Content-Digest (RFC 9530).
const CONTENT_DIGEST: HeaderName = HeaderName::from_static("content-digest");

/// Repr-Digest (RFC 9530).
const REPR_DIGEST: HeaderName = HeaderName::from_static("repr-digest");

/// The SHA-256 in Content-Digest. `None` if none is told. All lines of the header count (RFC 9110, section 5.3).
///
/// # Errors
/// It is malformed.
pub fn content_digest(headers: &HeaderMap) -> Result<Option<[u8; 32]>, Refusal> {
    sha256_in(headers, &CONTENT_DIGEST)
}

/// The SHA-256 that a body which is the whole file must have, by Content-Digest or Repr-Digest.
///
/// # Errors
/// One is malformed, or they differ.
pub fn sha256_of(headers: &HeaderMap) -> Result<Option<(Algorithm, Vec<u8>)>, Refusal> {
    let told = match (content_digest(headers)?, sha256_in(headers, &REPR_DIGEST)?) {
        (Some(content), Some(file)) if content != file => {
            let facts = "Content-Digest and Repr-Digest differ, and the body is the whole file";
            return Err(Refusal::new(ErrorCode::BadRequest, facts));
        }
        (content, file) => content.or(file),
    };
    Ok(told.map(|sha256| (Algorithm::Sha256, sha256.to_vec())))
}

fn sha256_in(headers: &HeaderMap, name: &HeaderName) -> Result<Option<[u8; 32]>, Refusal> {
    let lines = headers.get_all(name).iter().map(|value| value.to_str().unwrap_or("sha-256="));
    parse_content_digest(&lines.collect::<Vec<_>>().join(","))
}

/// Refuses a coded body, which would be stored as it is: nobody means that.
///
/// # Errors
/// It is coded.
pub fn check_content_coding(headers: &HeaderMap) -> Result<(), Refusal> {
    let lines = headers.get_all(CONTENT_ENCODING).iter().map(|value| value.to_str().unwrap_or("unknown"));
    let coding = lines.flat_map(|line| line.split(',')).map(str::trim);
    match coding.filter(|coding| !coding.is_empty()).find(|coding| !coding.eq_ignore_ascii_case("identity")) {
        None => Ok(()),
        Some(coding) => {
            let coding = bigup_core::protocol::name::quoted(coding);
            let message = format!("Content-Encoding {coding} is not spoken here: send the slice's own bytes");
            Err(Refusal::new(ErrorCode::Unsupported, message))
        }
    }
}
