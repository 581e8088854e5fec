//! GET and HEAD of a finished file.

use crate::admission::access::Access;
use crate::admission::tokens::Permission;
use crate::http::app::App;
use crate::http::content::conditions::{Validators, Verdict};
use crate::http::content::ranges::{Layout, Selection, no_range_of, select};
use crate::http::content::routes::name_of;
use crate::http::content::sending::send;
use crate::http::content::words;
use crate::http::digest_fields::{REPR_DIGEST, repr_digest, wants_sha256};
use crate::net::response::{Response, insert};
use crate::refusal::Refusal;
use bigup_core::protocol::digest::Digest;
use bigup_core::protocol::name::FileName;
use bigup_core::protocol::native::ErrorCode;
use bigup_core::storage::disk::random_suffix;
use bigup_core::storage::store::OpenFile;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use std::time::SystemTime;
use warp::Reply;
use warp::http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_SECURITY_POLICY,
    CONTENT_TYPE, ETAG, HeaderMap, HeaderName, HeaderValue, LAST_MODIFIED, RANGE, X_CONTENT_TYPE_OPTIONS,
};
use warp::http::{Method, StatusCode};

/// BLAKE3 of the whole file, as 64 hexadecimal digits. RFC 9530 has no name for it.
const BIGUP_DIGEST: HeaderName = HeaderName::from_static("bigup-digest");

/// No browser is to run anything of a file, whatever its content.
const POLICY: HeaderValue = HeaderValue::from_static("default-src 'none'; sandbox");

/// A cache of one user may keep a file, and asks each time if it is still the same.
const CACHING: HeaderValue = HeaderValue::from_static("private, no-cache");

/// Characters that are percent-encoded in a parameter: all but `attr-char` (RFC 8187, section 3.2.1).
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'!')
    .remove(b'#')
    .remove(b'$')
    .remove(b'&')
    .remove(b'+')
    .remove(b'-')
    .remove(b'.')
    .remove(b'^')
    .remove(b'_')
    .remove(b'`')
    .remove(b'|')
    .remove(b'~');

impl App {
    /// Responds to a GET or HEAD of the file in `path`.
    ///
    /// # Errors
    /// There is no such file, its sender may not read it, or a condition does not hold.
    pub(super) async fn download(
        &self,
        by: &Access,
        method: &Method,
        headers: &HeaderMap,
        path: &str,
    ) -> Result<Response, Refusal> {
        let name = name_of(path, by, Permission::Read)?;
        let (uploads, asked) = (self.uploads.clone(), name.clone());
        let open = self.blocking(move || uploads.open_finished(&asked)).await?;
        let (size, digest) = (open.found.len(), digest_of(&open));
        let validators = validators(&open);
        match validators.judge(headers, true) {
            Verdict::Holds => {}
            Verdict::NotModified => return Ok(not_modified(&validators)),
            Verdict::Fails => return Err(precondition_failed(&name)),
        }
        let layout = match selection(headers, method, &validators, size) {
            Selection::Whole => Layout::whole(size),
            Selection::Parts(parts) => Layout::of_parts(size, parts, random_suffix()),
            Selection::Unsatisfiable => return Ok(no_such_range(&name, size)),
        };
        let mut response = Response::default();
        *response.status_mut() = if layout.is_whole() { StatusCode::OK } else { StatusCode::PARTIAL_CONTENT };
        describe(&mut response, &name, &layout, &validators, digest);
        if wants_sha256(headers) {
            let sha256 = open.stored_digest.as_ref().and_then(|stored| stored.sha256);
            sha256.iter().for_each(|sha256| insert(&mut response, REPR_DIGEST, &repr_digest(*sha256)));
        }
        if *method == Method::HEAD || layout.is_empty() {
            return Ok(response);
        }
        let (head, _) = response.into_parts();
        let body = warp::reply::stream(send(self.clone(), name, open.file, layout)).into_response().into_body();
        Ok(Response::from_parts(head, body))
    }
}

/// The facts that conditions of a request for a file are compared with.
pub(super) fn validators(open: &OpenFile) -> Validators {
    let etag = digest_of(open).map(etag_of);
    let now = SystemTime::now();
    Validators::new(etag, open.found.modified().unwrap_or(now), now)
}

/// The strong entity tag of content with this digest.
pub(super) fn etag_of(digest: Digest) -> String {
    format!("\"b3-{digest}\"")
}

/// The refusal of a request whose conditions do not hold.
pub(super) fn precondition_failed(name: &FileName) -> Refusal {
    let message = format!("the finished {name} is not as the conditions of the request demand: ask for its ETag again");
    Refusal::new(ErrorCode::PreconditionFailed, message)
}

fn digest_of(open: &OpenFile) -> Option<Digest> {
    open.stored_digest.as_ref().map(|stored| stored.digest)
}

/// The bytes that are asked for. Range is a header of GET only (RFC 9110, section 14.2).
fn selection(headers: &HeaderMap, method: &Method, validators: &Validators, size: u64) -> Selection {
    let mut lines = headers.get_all(RANGE).iter();
    match (lines.next().and_then(|line| line.to_str().ok()), lines.next()) {
        (Some(range), None) if *method == Method::GET && validators.range_counts(headers) => select(range, size),
        _ => Selection::Whole,
    }
}

fn not_modified(validators: &Validators) -> Response {
    let mut response = Response::default();
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    identify(&mut response, validators);
    response
}

fn no_such_range(name: &FileName, size: u64) -> Response {
    let message = format!("the finished {name} has {size} bytes, and none in the ranges of the request");
    let mut response = words::response(&Refusal::new(ErrorCode::RangeNotSatisfiable, message));
    insert(&mut response, CONTENT_RANGE, &no_range_of(size));
    response
}

/// Sets the headers that tell which content it is, and how caches treat it.
fn identify(response: &mut Response, validators: &Validators) {
    response.headers_mut().insert(CACHE_CONTROL, CACHING);
    validators.etag.iter().for_each(|etag| insert(response, ETAG, etag));
    validators.last_modified().iter().for_each(|time| insert(response, LAST_MODIFIED, time));
}

fn describe(
    response: &mut Response,
    name: &FileName,
    layout: &Layout,
    validators: &Validators,
    digest: Option<Digest>,
) {
    identify(response, validators);
    let content_type = match layout.boundary() {
        Some(boundary) => format!("multipart/byteranges; boundary={boundary}"),
        None => "application/octet-stream".to_owned(),
    };
    insert(response, CONTENT_TYPE, &content_type);
    insert(response, CONTENT_LENGTH, &layout.len().to_string());
    layout.content_range().iter().for_each(|range| insert(response, CONTENT_RANGE, range));
    digest.iter().for_each(|digest| insert(response, BIGUP_DIGEST, &format!("blake3={digest}")));
    insert(response, CONTENT_DISPOSITION, &disposition(name));
    let headers = response.headers_mut();
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(CONTENT_SECURITY_POLICY, POLICY);
}

/// The value of Content-Disposition (RFC 6266): a browser saves the file under the last component of its name. Old
/// clients get its ASCII characters.
fn disposition(name: &FileName) -> String {
    let last = name.components().last().unwrap_or_default();
    let is_plain = |c: char| (c.is_ascii_graphic() || c == ' ') && !"\"\\%/".contains(c);
    let plain: String = last.chars().map(|c| if is_plain(c) { c } else { '_' }).collect();
    format!("attachment; filename=\"{plain}\"; filename*=UTF-8''{}", utf8_percent_encode(last, ENCODED))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_saved_under_its_own_name() {
        for (name, value) in [
            ("a/b.bin", "attachment; filename=\"b.bin\"; filename*=UTF-8''b.bin"),
            ("a b", "attachment; filename=\"a b\"; filename*=UTF-8''a%20b"),
            ("文.txt", "attachment; filename=\"_.txt\"; filename*=UTF-8''%E6%96%87.txt"),
            ("x\"; y=\\%41", "attachment; filename=\"x_; y=__41\"; filename*=UTF-8''x%22%3B%20y%3D%5C%2541"),
            ("it's*", "attachment; filename=\"it's*\"; filename*=UTF-8''it%27s%2A"),
        ] {
            assert_eq!(disposition(&FileName::new(name).unwrap()), value);
        }
    }
}
