//! Header fields about a body's coding and digest, which all protocols take alike (RFC 9110, section 8.4; RFC 9530).

use crate::http::checksum::Algorithm;
use crate::refusal::Refusal;
use bigup_core::protocol::native::ErrorCode;
use warp::http::header::{CONTENT_ENCODING, HeaderMap};

/// The SHA-256 in Content-Digest. `None` if none is told. All lines of the header count (RFC 9110, section 5.3).
///
/// # Errors
/// It is malformed.
pub fn content_digest(headers: &HeaderMap) -> Result<Option<[u8; 32]>, Refusal> {
    sha256_in(headers, "Content-Digest")
}

/// The SHA-256 that a body which is the whole file must have, by Content-Digest or Repr-Digest.
///
/// # Errors
/// One is malformed, or they differ.
pub fn sha256_of(headers: &HeaderMap) -> Result<Option<(Algorithm, Vec<u8>)>, Refusal> {
    let told = match (content_digest(headers)?, sha256_in(headers, "Repr-Digest")?) {
        (Some(content), Some(file)) if content != file => {
            let facts = "Content-Digest and Repr-Digest differ, and the body is the whole file";
            return Err(Refusal::new(ErrorCode::BadRequest, facts));
        }
        (content, file) => content.or(file),
    };
    Ok(told.map(|sha256| (Algorithm::Sha256, sha256.to_vec())))
}

fn sha256_in(headers: &HeaderMap, field: &str) -> Result<Option<[u8; 32]>, Refusal> {
    let lines = headers.get_all(field).iter().map(|value| value.to_str().unwrap_or("sha-256="));
    parse_digest(field, &lines.collect::<Vec<_>>().join(","))
}

/// The SHA-256 in a digest field (RFC 9530, section 2), whose name is `field`. `None` if it has none; other algorithms
/// are ignored, as the RFC permits.
///
/// # Errors
/// It is malformed.
pub fn parse_digest(field: &str, header: &str) -> Result<Option<[u8; 32]>, Refusal> {
    use base64::Engine;
    // Of several the last one counts (RFC 9651, section 4.2.2).
    let Some(value) = header.split(',').rev().find_map(|member| member.trim().strip_prefix("sha-256=")) else {
        return Ok(None);
    };
    let value = value.split_once(';').map_or(value, |(value, _parameters)| value);
    let encoded = value.strip_prefix(':').and_then(|v| v.strip_suffix(':'));
    let bytes = encoded.and_then(|text| base64::engine::general_purpose::STANDARD.decode(text).ok());
    match bytes.and_then(|bytes| <[u8; 32]>::try_from(bytes).ok()) {
        Some(digest) => Ok(Some(digest)),
        None => {
            let message = format!("{field}: sha-256 is not 32 bytes in base64 between colons (RFC 9530)");
            Err(Refusal::new(ErrorCode::BadRequest, message))
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_digests_are_read() {
        let zeros = format!("sha-256=:{}=:", "A".repeat(43));
        assert_eq!(parse_digest("Content-Digest", &zeros), Ok(Some([0; 32])));
        assert_eq!(parse_digest("Content-Digest", &format!("sha-512=:AA==:, {zeros}")), Ok(Some([0; 32])));
        assert_eq!(parse_digest("Content-Digest", &format!("sha-256=:AA==:, {zeros};p=1")), Ok(Some([0; 32])));
        assert!(parse_digest("Content-Digest", &format!("{zeros}, sha-256=:AA==:")).is_err());
        assert_eq!(parse_digest("Content-Digest", "sha-512=:AA==:"), Ok(None));
        assert_eq!(parse_digest("Content-Digest", ""), Ok(None));
        for wrong in ["sha-256=", "sha-256=:AA==:", "sha-256=::", "sha-256=AAAA", "sha-256=:é:"] {
            assert!(parse_digest("Content-Digest", wrong).is_err(), "{wrong}");
        }
    }
}
