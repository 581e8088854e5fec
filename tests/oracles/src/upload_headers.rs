//! Header fields of resumable uploads of the IETF draft. Each line of the bytes is a line of the field; all of them are also
//! the name of a file.

use crate::name::assert_harmless;
use bigupd::http::digest_fields::content_digest;
use bigupd::http::ietf::headers::{UPLOAD_COMPLETE, UPLOAD_OFFSET, boolean, file_name, integer, is_partial_upload};
use std::fmt::Write;
use warp::http::HeaderMap;
use warp::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE, HeaderName, HeaderValue};

/// Largest integer of a Structured Field (RFC 9651, section 3.3.1).
const MAX_INTEGER: u64 = 999_999_999_999_999;

/// Checks the fields.
///
/// # Panics
/// A field is read as something else than it says, or a name is not read as it was told.
pub fn check(data: &[u8]) {
    let lines: Vec<&[u8]> = data.split(|byte| *byte == b'\n').collect();
    check_items(&lines);
    let told = fields(&CONTENT_TYPE, &lines);
    let is_one = |text: &str| text.to_ascii_lowercase().contains("application/partial-upload");
    assert!(!is_partial_upload(&told) || told[&CONTENT_TYPE].to_str().is_ok_and(is_one));
    if let Err(refusal) = content_digest(&fields(&HeaderName::from_static("content-digest"), &lines)) {
        assert_harmless(&refusal.facts);
    }
    // Any text has a name, or none.
    file_name(&fields(&CONTENT_DISPOSITION, &lines));
    if let Ok(name) = std::str::from_utf8(data) {
        check_name(name);
    }
}

fn fields(name: &HeaderName, lines: &[&[u8]]) -> HeaderMap {
    let values = lines.iter().filter_map(|line| HeaderValue::from_bytes(line).ok());
    values.map(|value| (name.clone(), value)).collect()
}

fn check_items(lines: &[&[u8]]) {
    let bare = |name: &HeaderName| {
        let told = fields(name, lines);
        let values: Vec<_> = told.get_all(name).iter().collect();
        let [only] = values[..] else { return None };
        let text = only.to_str().ok()?.to_owned();
        text.split(';').next().map(|bare| bare.trim().to_owned())
    };
    let expected = match bare(&UPLOAD_COMPLETE).as_deref() {
        Some("?1") => Some(true),
        Some("?0") => Some(false),
        _ => None,
    };
    assert_eq!(boolean(&fields(&UPLOAD_COMPLETE, lines), &UPLOAD_COMPLETE), expected);
    let digits = bare(&UPLOAD_OFFSET).filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    let number = digits.and_then(|text| text.parse().ok()).filter(|number| *number <= MAX_INTEGER);
    assert_eq!(integer(&fields(&UPLOAD_OFFSET, lines), &UPLOAD_OFFSET), number);
}

/// A name comes as it was sent, in both of its forms, and whatever stands around it.
fn check_name(name: &str) {
    let mut encoded = String::new();
    name.bytes().for_each(|byte| write!(encoded, "%{byte:02x}").expect("a text takes all"));
    for text in [
        format!("attachment; filename*=UTF-8''{encoded}"),
        format!("inline; filename=\"other;\\\"\"; FileName* = utf-8'en'{encoded} ; x=\"y;z\""),
    ] {
        assert_eq!(file_name(&fields(&CONTENT_DISPOSITION, &[text.as_bytes()])).as_deref(), Some(name), "{text}");
    }
    let quoted = name.replace('\\', "\\\\").replace('"', "\\\"");
    for text in [format!("form-data; filename=\"{quoted}\""), format!("a;b=c;filename = \"{quoted}\";d")] {
        let told = fields(&CONTENT_DISPOSITION, &[text.as_bytes()]);
        // A field has no control characters.
        assert!(told.is_empty() || file_name(&told).as_deref() == Some(name), "{text}");
    }
}
