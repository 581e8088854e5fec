//! Header fields about a body's coding and digest, which all protocols take alike (RFC 9110, section 8.4; RFC 9530).

use crate::refusal::Refusal;
use bigup_core::protocol::native::ErrorCode;
use bigup_core::protocol::sha256::Sha256;
use bigup_core::storage::spool::FileSha256;
use warp::http::header::{CONTENT_ENCODING, HeaderMap, HeaderName};

/// A digest of the whole file (RFC 9530, section 3).
pub const REPR_DIGEST: HeaderName = HeaderName::from_static("repr-digest");

/// The digests of whole files that a client would like to be told (RFC 9530, section 4).
const WANT_REPR_DIGEST: HeaderName = HeaderName::from_static("want-repr-digest");

/// The SHA-256 in Content-Digest. `None` if none is told. All lines of the header count (RFC 9110, section 5.3).
///
/// # Errors
/// It is malformed.
pub fn content_digest(headers: &HeaderMap) -> Result<Option<[u8; 32]>, Refusal> {
    sha256_in(headers, "Content-Digest")
}

/// The part that the SHA-256 of a file plays, by the request that begins its upload. `None`: none.
///
/// # Errors
/// Repr-Digest is malformed.
pub fn file_sha256(headers: &HeaderMap) -> Result<Option<FileSha256>, Refusal> {
    Ok(of_interest(headers, sha256_in(headers, REPR_DIGEST.as_str())?))
}

/// The same of a request whose body is the whole file.
///
/// # Errors
/// Content-Digest or Repr-Digest is malformed, or they differ.
pub fn body_sha256(headers: &HeaderMap) -> Result<Option<FileSha256>, Refusal> {
    let told = match (content_digest(headers)?, sha256_in(headers, "Repr-Digest")?) {
        (Some(content), Some(file)) if content != file => {
            let facts = "Content-Digest and Repr-Digest differ, and the body is the whole file";
            return Err(Refusal::new(ErrorCode::BadRequest, facts));
        }
        (content, file) => content.or(file),
    };
    Ok(of_interest(headers, told))
}

fn of_interest(headers: &HeaderMap, promised: Option<[u8; 32]>) -> Option<FileSha256> {
    match promised {
        Some(promised) => Some(FileSha256::Promised(Sha256(promised))),
        None => wants_sha256(headers).then_some(FileSha256::Wanted),
    }
}

/// True if the client would like to be told the SHA-256 of the whole file.
pub fn wants_sha256(headers: &HeaderMap) -> bool {
    let lines = headers.get_all(WANT_REPR_DIGEST).iter().filter_map(|line| line.to_str().ok());
    let mut wishes = lines.flat_map(|line| line.split(',')).filter_map(|member| member.trim().strip_prefix("sha-256="));
    wishes.next_back().is_some_and(|wish| matches!(wish.parse(), Ok(1..=10_u8)))
}

/// The value of Repr-Digest for a file of this SHA-256.
pub fn repr_digest(sha256: Sha256) -> String {
    use base64::Engine;
    format!("sha-256=:{}:", base64::engine::general_purpose::STANDARD.encode(sha256.0))
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

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        lines.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    #[test]
    fn a_client_can_want_the_digest_of_a_file() {
        for (value, is_wanted) in [
            ("sha-256=10", true),
            ("sha-512=3, sha-256=1", true),
            ("sha-256=0", false),
            ("sha-256=5, sha-256=0", false),
            ("sha-256", false),
            ("sha-256=11", false),
            ("sha-512=9", false),
            ("", false),
        ] {
            assert_eq!(wants_sha256(&headers(&[("want-repr-digest", value)])), is_wanted, "{value}");
        }
        assert_eq!(file_sha256(&headers(&[("want-repr-digest", "sha-256=1")])), Ok(Some(FileSha256::Wanted)));
    }

    #[test]
    fn a_digest_of_the_whole_file_is_a_promise() {
        let (zeros, ones) = (repr_digest(Sha256([0; 32])), repr_digest(Sha256([1; 32])));
        let promised = Ok(Some(FileSha256::Promised(Sha256([0; 32]))));
        for lines in [vec![("repr-digest", &*zeros)], vec![("repr-digest", &zeros), ("want-repr-digest", "sha-256=1")]]
        {
            assert_eq!(file_sha256(&headers(&lines)), promised);
            assert_eq!(body_sha256(&headers(&lines)), promised);
        }
        assert_eq!(body_sha256(&headers(&[("content-digest", &zeros)])), promised);
        assert_eq!(file_sha256(&headers(&[("content-digest", &zeros)])), Ok(None), "it is of the body only");
        assert!(body_sha256(&headers(&[("content-digest", &zeros), ("repr-digest", &ones)])).is_err());
        assert!(file_sha256(&headers(&[("repr-digest", "sha-256=x")])).is_err());
    }

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
