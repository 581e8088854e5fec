//! Header fields of the draft. They are Structured Fields (RFC 9651): a value of another type counts as absent.

use crate::metadata::Metadata;
use crate::refusal::Refusal;
use bigup_core::protocol::native::ErrorCode;
use bigup_core::protocol::units::parse_u64;
use percent_encoding::percent_decode_str;
use warp::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE, HeaderMap, HeaderName};

/// `Upload-Complete`: true if the request brings the end of the file.
pub const UPLOAD_COMPLETE: HeaderName = HeaderName::from_static("upload-complete");
/// `Upload-Offset`: bytes of the file that are held.
pub const UPLOAD_OFFSET: HeaderName = HeaderName::from_static("upload-offset");
/// `Upload-Length`: bytes of the file.
pub const UPLOAD_LENGTH: HeaderName = HeaderName::from_static("upload-length");
/// `Upload-Limit`: limits of uploads.
pub const UPLOAD_LIMIT: HeaderName = HeaderName::from_static("upload-limit");
/// `Upload-Draft-Interop-Version`: the version of the draft that a client speaks.
pub const INTEROP_VERSION: HeaderName = HeaderName::from_static("upload-draft-interop-version");
/// `Accept-Patch` (RFC 5789, section 3.1).
pub const ACCEPT_PATCH: HeaderName = HeaderName::from_static("accept-patch");
/// `Upload-Metadata` (tus 1.0.0, "Creation").
const UPLOAD_METADATA: HeaderName = HeaderName::from_static("upload-metadata");

/// The content type of bodies that are appended.
pub const PARTIAL_UPLOAD: &str = "application/partial-upload";

/// Largest integer of a Structured Field (RFC 9651, section 3.3.1).
const MAX_INTEGER: u64 = 999_999_999_999_999;

/// A boolean. `None` if it is absent, or of another type.
pub fn boolean(headers: &HeaderMap, name: &HeaderName) -> Option<bool> {
    match item(headers, name)? {
        "?1" => Some(true),
        "?0" => Some(false),
        _ => None,
    }
}

/// A whole number that is not negative. `None` if it is absent, or of another type.
pub fn integer(headers: &HeaderMap, name: &HeaderName) -> Option<u64> {
    parse_u64(item(headers, name)?).filter(|number| *number <= MAX_INTEGER)
}

/// The bare item, without its parameters. A field that is there twice is a list, and so of another type.
fn item<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut lines = headers.get_all(name).iter();
    let value = lines.next()?.to_str().ok()?;
    let bare = value.split_once(';').map_or(value, |(bare, _parameters)| bare);
    lines.next().is_none().then_some(bare.trim())
}

/// True if the body is one to be appended.
pub fn is_partial_upload(headers: &HeaderMap) -> bool {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(PARTIAL_UPLOAD)
}

/// The file's name in `Content-Disposition` (RFC 6266, section 4.3): `filename*`, or else `filename`. `None` if it has
/// neither, or one that cannot be read.
pub fn file_name(headers: &HeaderMap) -> Option<String> {
    // Browsers and curl send names of files as UTF-8, too.
    let text = std::str::from_utf8(headers.get(CONTENT_DISPOSITION)?.as_bytes()).ok()?;
    let parameters = parameters(text);
    let find = |name: &str| parameters.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value);
    find("filename*").and_then(|value| extended(value)).or_else(|| find("filename").cloned())
}

/// The metadata that tus-js-client tells in this protocol, too, as they came and as they are read. `None` if there are
/// none, or none that can be read.
pub fn metadata(headers: &HeaderMap) -> Option<(&str, Metadata)> {
    let text = headers.get(UPLOAD_METADATA)?.to_str().ok().filter(|text| !text.is_empty())?;
    Some((text, Metadata::parse(text).ok()?))
}

/// A value with its character set (RFC 8187, section 3.2). `None` if it is not UTF-8.
fn extended(value: &str) -> Option<String> {
    let (charset, rest) = value.split_once('\'')?;
    let (_language, encoded) = rest.split_once('\'')?;
    let is_utf8 = charset.eq_ignore_ascii_case("utf-8");
    is_utf8.then(|| percent_decode_str(encoded).decode_utf8().ok().map(|name| name.into_owned())).flatten()
}

/// The parameters behind a type, with quotes undone (RFC 9110, section 5.6.4).
fn parameters(text: &str) -> Vec<(String, String)> {
    let (mut all, mut chars) = (vec![], text.chars().peekable());
    while chars.find(|c| *c == ';').is_some() {
        let key: String = std::iter::from_fn(|| chars.next_if(|c| !"=;".contains(*c))).collect();
        if chars.next_if_eq(&'=').is_none() {
            continue;
        }
        while chars.next_if(|c| c.is_whitespace()).is_some() {}
        let mut value = String::new();
        if chars.next_if_eq(&'"').is_some() {
            while let Some(c) = chars.next().filter(|c| *c != '"') {
                value.push(if c == '\\' { chars.next().unwrap_or(c) } else { c });
            }
        } else {
            value = std::iter::from_fn(|| chars.next_if(|c| *c != ';')).collect::<String>().trim().to_owned();
        }
        all.push((key.trim().to_owned(), value));
    }
    all
}

/// The refusal of a request whose header fields make no sense.
pub fn bad(facts: String) -> Refusal {
    Refusal::new(ErrorCode::BadRequest, facts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use warp::http::header::HeaderValue;

    fn headers(name: HeaderName, lines: &[&str]) -> HeaderMap {
        lines.iter().map(|value| (name.clone(), HeaderValue::from_bytes(value.as_bytes()).unwrap())).collect()
    }

    #[test]
    fn values_of_another_type_count_as_absent() {
        for (lines, expected) in [
            (&["?1"][..], Some(true)),
            (&["?0;a=b"], Some(false)),
            (&["1"], None),
            (&["true"], None),
            (&["?1, ?1"], None),
            (&["?1", "?1"], None),
            (&[], None),
        ] {
            assert_eq!(boolean(&headers(UPLOAD_COMPLETE, lines), &UPLOAD_COMPLETE), expected, "{lines:?}");
        }
        for (lines, expected) in [
            (&["0"][..], Some(0)),
            (&["999999999999999"], Some(MAX_INTEGER)),
            (&["1000000000000000"], None),
            (&["-1"], None),
            (&["1.0"], None),
            (&["\"1\""], None),
        ] {
            assert_eq!(integer(&headers(UPLOAD_OFFSET, lines), &UPLOAD_OFFSET), expected, "{lines:?}");
        }
    }

    #[test]
    fn names_are_read_from_dispositions() {
        for (text, name) in [
            ("inline; filename=a.bin", Some("a.bin")),
            ("inline; filename=\"file name.jpg\"; filename*=UTF-8''file%20n%C3%A4me.jpg", Some("file näme.jpg")),
            ("attachment;filename = \"a\\\"b;c\" ; x=y", Some("a\"b;c")),
            ("inline; filename*=ISO-8859-1''%E4; filename=\"fallback\"", Some("fallback")),
            ("inline; FILENAME=x", Some("x")),
            ("inline", None),
            ("inline; filename*=UTF-8''%ff", None),
            ("inline; filename=\"open", Some("open")),
            ("inline; filename=\"grüße\"", Some("grüße")),
        ] {
            assert_eq!(file_name(&headers(CONTENT_DISPOSITION, &[text])).as_deref(), name, "{text}");
        }
    }
}
