//! Header fields and addresses of tus. The bytes are the value of a field, as they stand, and the path of a request.

use crate::told;
use bigup_core::protocol::name::FileName;
use bigupd::http::tus::headers::{
    self, Role, TUS_RESUMABLE, UPLOAD_CHECKSUM, UPLOAD_CONCAT, UPLOAD_DEFER_LENGTH, UPLOAD_LENGTH, UPLOAD_METADATA,
    UPLOAD_OFFSET,
};
use bigupd::http::upload_url;
use bigupd::metadata::Metadata;
use bigupd::uploads::concat::PartialName;
use bigupd::uploads::create::{UploadKey, name_below};
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};

/// Checks a field's value, and a path.
///
/// # Panics
/// What was accepted makes no sense, leads elsewhere or is not read back, or what was refused is not told properly.
pub fn check(data: &[u8]) {
    if let Ok(value) = HeaderValue::from_bytes(data) {
        fields(&value);
    }
    let Ok(text) = std::str::from_utf8(data) else { return };
    name_is_safe(text);
    address(text);
}

fn fields(value: &HeaderValue) {
    let with = |name: &HeaderName| HeaderMap::from_iter([(name.clone(), value.clone())]);
    for name in [&UPLOAD_OFFSET, &UPLOAD_LENGTH] {
        let number = told(headers::number(&with(name), name)).flatten();
        assert!(number.is_none() || value.to_str().is_ok_and(|text| text.trim().parse() == Ok(number.unwrap_or(0))));
    }
    let size = told(headers::created_size(&with(&UPLOAD_LENGTH)));
    assert_eq!(size.flatten(), told(headers::number(&with(&UPLOAD_LENGTH), &UPLOAD_LENGTH)).flatten());
    assert_ne!(told(headers::created_size(&with(&UPLOAD_DEFER_LENGTH))).flatten(), Some(1));
    told(headers::text(&with(&TUS_RESUMABLE), &TUS_RESUMABLE));
    if let Some(Role::Final(partials, text)) = told(headers::role(&with(&UPLOAD_CONCAT))).flatten() {
        assert!(value.to_str().is_ok_and(|value| value.trim() == text));
        for PartialName { key, name } in &partials {
            assert_eq!(upload_url::find(&upload_url::path_of(key, name)), Some((key.clone(), name.clone())));
        }
        let key = UploadKey::of_partials(partials.iter().map(|partial| &partial.key));
        assert_eq!(UploadKey::parse(key.as_str()), Some(key));
    }
    told(headers::checksum(&with(&UPLOAD_CHECKSUM)));
    let _ = headers::is_offset_stream(&with(&CONTENT_TYPE));
    if let Some(text) = told(headers::text(&with(&UPLOAD_METADATA), &UPLOAD_METADATA)).flatten()
        && let Some(metadata) = told(Metadata::parse(text))
    {
        if let Some(name) = metadata.file_name() {
            name_is_safe(&name);
        }
        // It is sent back as it came, and read alike.
        assert_eq!(Metadata::parse(text), Ok(metadata));
    }
}

/// Whatever name a client would like, the file lies below its prefix.
fn name_is_safe(wanted: &str) {
    for prefix in ["", "alice/", "alice/bob/"] {
        let Some(name) = told(name_below(prefix, Some(wanted))) else { continue };
        assert!(name.as_str().starts_with(prefix) && name.as_str().len() > prefix.len(), "{name:?}");
        assert_eq!(FileName::new(name.as_str()).as_ref(), Ok(&name));
    }
}

fn address(path: &str) {
    for path in [path.to_owned(), format!("/files/{path}"), format!("/files/0123456789abcdef0123456789abcdef/{path}")] {
        if let Some((key, name)) = told(upload_url::parse(&path)).flatten() {
            let again = upload_url::path_of(&key, &name);
            assert!(again.bytes().all(|b| b.is_ascii_graphic()), "{again}");
            assert_eq!(upload_url::parse(&again), Ok(Some((key, name))));
        }
    }
}
