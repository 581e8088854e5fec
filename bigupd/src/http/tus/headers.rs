//! Header fields of tus (tus 1.0.0, "Headers" and "Protocol Extensions").

use crate::http::checksum::{Algorithm, ToldChecksum};
use crate::http::upload_url;
use crate::refusal::Refusal;
use crate::uploads::concat::PartialName;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bigup_core::protocol::name::quoted;
use bigup_core::protocol::native::ErrorCode;
use bigup_core::protocol::units::parse_u64;
use warp::http::header::{CONTENT_TYPE, HeaderMap, HeaderName, TRAILER};

/// The version that is spoken.
pub const VERSION: &str = "1.0.0";

/// The extensions that are spoken.
pub const EXTENSIONS: &str = "creation,creation-with-upload,creation-defer-length,\
                              expiration,checksum,checksum-trailer,termination,concatenation,concatenation-unfinished";

/// `Tus-Resumable`: the version of a message.
pub const TUS_RESUMABLE: HeaderName = HeaderName::from_static("tus-resumable");
/// `Tus-Version`: the versions that the server speaks.
pub const TUS_VERSION: HeaderName = HeaderName::from_static("tus-version");
/// `Tus-Extension`: its extensions.
pub const TUS_EXTENSION: HeaderName = HeaderName::from_static("tus-extension");
/// `Tus-Max-Size`: the largest file, in bytes.
pub const TUS_MAX_SIZE: HeaderName = HeaderName::from_static("tus-max-size");
/// `Tus-Checksum-Algorithm`: the algorithms of checksums.
pub const TUS_CHECKSUM_ALGORITHM: HeaderName = HeaderName::from_static("tus-checksum-algorithm");
/// `Upload-Offset`: bytes of the file that are held.
pub const UPLOAD_OFFSET: HeaderName = HeaderName::from_static("upload-offset");
/// `Upload-Length`: bytes of the file.
pub const UPLOAD_LENGTH: HeaderName = HeaderName::from_static("upload-length");
/// `Upload-Defer-Length`: 1, where the length is told later.
pub const UPLOAD_DEFER_LENGTH: HeaderName = HeaderName::from_static("upload-defer-length");
/// `Upload-Metadata`: what the client tells of the file.
pub const UPLOAD_METADATA: HeaderName = HeaderName::from_static("upload-metadata");
/// `Upload-Expires`: the time at which the upload goes if nothing more comes.
pub const UPLOAD_EXPIRES: HeaderName = HeaderName::from_static("upload-expires");
/// `Upload-Checksum`: the checksum of a body.
pub const UPLOAD_CHECKSUM: HeaderName = HeaderName::from_static("upload-checksum");
/// `Upload-Concat`: the role of an upload in a concatenation.
pub const UPLOAD_CONCAT: HeaderName = HeaderName::from_static("upload-concat");
/// `X-HTTP-Method-Override`: the method, where a client cannot send it.
pub const METHOD_OVERRIDE: HeaderName = HeaderName::from_static("x-http-method-override");

/// The value of `Upload-Concat` for a partial upload.
pub const PARTIAL: &str = "partial";

/// The content type of bodies that are appended.
pub const OFFSET_OCTET_STREAM: &str = "application/offset+octet-stream";

/// The text of a header field. `None` if it is not there.
///
/// # Errors
/// It is there more than once, or not ASCII.
pub fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, Refusal> {
    let mut lines = headers.get_all(name).iter();
    let Some(value) = lines.next() else { return Ok(None) };
    if lines.next().is_some() {
        return Err(bad(format!("{name} is there more than once")));
    }
    value.to_str().map(|text| Some(text.trim())).map_err(|_| bad(format!("{name} is not ASCII")))
}

/// The number in a header field, in bytes. `None` if it is not there.
///
/// # Errors
/// It is no whole number.
pub fn number(headers: &HeaderMap, name: &HeaderName) -> Result<Option<u64>, Refusal> {
    let Some(text) = text(headers, name)? else { return Ok(None) };
    let wrong = || bad(format!("{name} is {}, not a whole number from 0 to {}", quoted(text), u64::MAX));
    parse_u64(text).map(Some).ok_or_else(wrong)
}

/// The size of a file that is created, in bytes. `None` if it is told later.
///
/// # Errors
/// Neither or both are said, or they make no sense.
pub fn created_size(headers: &HeaderMap) -> Result<Option<u64>, Refusal> {
    match (number(headers, &UPLOAD_LENGTH)?, text(headers, &UPLOAD_DEFER_LENGTH)?) {
        (Some(size), None) => Ok(Some(size)),
        (None, Some("1")) => Ok(None),
        (None, Some(other)) => Err(bad(format!("Upload-Defer-Length is {}; it can only be 1", quoted(other)))),
        (Some(_), Some(_)) => Err(bad("both Upload-Length and Upload-Defer-Length are there: send one".to_owned())),
        (None, None) => Err(bad("Upload-Length is missing (or Upload-Defer-Length: 1)".to_owned())),
    }
}

/// The checksum that a body must have. `None` if there is no such header.
///
/// # Errors
/// The algorithm is not known, or the value makes no sense.
pub fn checksum(headers: &HeaderMap) -> Result<Option<ToldChecksum>, Refusal> {
    let Some(text) = text(headers, &UPLOAD_CHECKSUM)? else { return Ok(None) };
    let (name, value) = text.split_once(' ').ok_or_else(|| {
        bad(format!("Upload-Checksum is {}, not an algorithm, a space, and a checksum in base64", quoted(text)))
    })?;
    let algorithm =
        name.parse().map_err(|()| bad(format!("Upload-Checksum: {} is none of {}", quoted(name), Algorithm::NAMES)))?;
    let value = STANDARD.decode(value.trim()).map_err(|e| bad(format!("Upload-Checksum is no base64: {e}")))?;
    Ok(Some((algorithm, value)))
}

/// True if a checksum is announced behind the body.
pub fn has_checksum_behind(headers: &HeaderMap) -> bool {
    let lines = headers.get_all(TRAILER).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).any(|name| name.trim().eq_ignore_ascii_case(UPLOAD_CHECKSUM.as_str()))
}

/// The checksum behind a body that announced one.
///
/// # Errors
/// It is not there, or as for [`checksum`].
pub fn checksum_behind(trailers: &HeaderMap) -> Result<ToldChecksum, Refusal> {
    let missing = "Upload-Checksum was announced behind the body, and is not there: nothing of the body was kept";
    checksum(trailers)?.ok_or_else(|| bad(missing.to_owned()))
}

/// The role in a concatenation of an upload that is created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// Its bytes become a part of the file of a final upload.
    Partial,
    /// It is joined from these partial uploads; the text is the header field's.
    Final(Vec<PartialName>, String),
}

/// The role in a concatenation (tus 1.0.0, "Concatenation"). `None` if there is no such header.
///
/// # Errors
/// It is neither `partial` nor `final;` with addresses of uploads.
pub fn role(headers: &HeaderMap) -> Result<Option<Role>, Refusal> {
    let Some(text) = text(headers, &UPLOAD_CONCAT)? else { return Ok(None) };
    if text == PARTIAL {
        return Ok(Some(Role::Partial));
    }
    let list = text.strip_prefix("final;").ok_or_else(|| {
        bad(format!("Upload-Concat is {}, not partial, or final; with addresses of partial uploads", quoted(text)))
    })?;
    let partials = list.split_ascii_whitespace().map(|url| {
        let (key, name) = upload_url::find(url)
            .ok_or_else(|| bad(format!("Upload-Concat: {} is no address of an upload", quoted(url))))?;
        Ok(PartialName { key, name })
    });
    Ok(Some(Role::Final(partials.collect::<Result<_, Refusal>>()?, text.to_owned())))
}

/// True if the body is one to be appended.
pub fn is_offset_stream(headers: &HeaderMap) -> bool {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(OFFSET_OCTET_STREAM)
}

pub(super) fn bad(facts: String) -> Refusal {
    Refusal::new(ErrorCode::BadRequest, facts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use warp::http::header::HeaderValue;

    fn headers(lines: &[(HeaderName, &str)]) -> HeaderMap {
        lines.iter().map(|(name, value)| (name.clone(), HeaderValue::from_str(value).unwrap())).collect()
    }

    #[test]
    fn a_creation_tells_its_length_or_that_it_comes_later() {
        let size = |lines: &[(HeaderName, &str)]| created_size(&headers(lines));
        assert_eq!(size(&[(UPLOAD_LENGTH, "0")]), Ok(Some(0)));
        assert_eq!(size(&[(UPLOAD_DEFER_LENGTH, "1")]), Ok(None));
        for wrong in [
            &[][..],
            &[(UPLOAD_DEFER_LENGTH, "2")],
            &[(UPLOAD_LENGTH, "5"), (UPLOAD_DEFER_LENGTH, "1")],
            &[(UPLOAD_LENGTH, "-1")],
            &[(UPLOAD_LENGTH, "1e3")],
            &[(UPLOAD_LENGTH, "18446744073709551616")],
        ] {
            assert_eq!(size(wrong).unwrap_err().code, ErrorCode::BadRequest, "{wrong:?}");
        }
    }

    #[test]
    fn a_field_that_is_there_twice_is_refused() {
        let mut twice = headers(&[(UPLOAD_OFFSET, "1")]);
        twice.append(UPLOAD_OFFSET, HeaderValue::from_static("2"));
        assert!(number(&twice, &UPLOAD_OFFSET).unwrap_err().facts.contains("more than once"));
    }

    #[test]
    fn checksums_are_read() {
        let read = |text: &str| checksum(&headers(&[(UPLOAD_CHECKSUM, text)]));
        assert_eq!(read("sha1 AAE="), Ok(Some((Algorithm::Sha1, vec![0, 1]))));
        for wrong in ["sha1", "sha1 %", "SHA1 AAE=", "sha3 AAE=", ""] {
            assert_eq!(read(wrong).unwrap_err().code, ErrorCode::BadRequest, "{wrong}");
        }
    }
}
