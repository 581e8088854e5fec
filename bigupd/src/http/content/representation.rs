//! The response to a GET or HEAD of content that may be read in parts: a finished file, or an archive of many.

use crate::http::app::App;
use crate::http::content::conditions::{Validators, Verdict};
use crate::http::content::ranges::{Layout, Selection, no_range_of, select};
use crate::http::content::sending::{Direct, Source, send};
use crate::http::content::words;
use crate::http::digest_fields::{REPR_DIGEST, repr_digest, wants_sha256};
use crate::net::response::{Response, insert};
use crate::refusal::Refusal;
use bigup_core::protocol::digest::Digest;
use bigup_core::protocol::native::ErrorCode;
use bigup_core::protocol::sha256::Sha256;
use bigup_core::storage::disk::random_suffix;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use std::sync::Arc;
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

/// Content, and all that a response tells of it.
pub(super) struct Representation {
    /// Name of the file or folder, for the log.
    pub name: String,
    /// The words for it in messages.
    pub message_name: String,
    /// The value of Content-Type.
    pub content_type: &'static str,
    /// The name under which a browser saves it.
    pub saved_as: String,
    /// Its length, in bytes.
    pub size: u64,
    /// The facts that conditions are compared with.
    pub validators: Validators,
    /// Digest of all of it. `None` if that is not known.
    pub digest: Option<Digest>,
    /// SHA-256 of all of it. `None` if that is not known.
    pub sha256: Option<Sha256>,
    /// Parts of it can be asked for.
    pub has_ranges: bool,
    /// Its bytes.
    pub source: Arc<dyn Source>,
    /// The way past this process. `None` if there is none.
    pub direct: Option<Direct>,
}

impl App {
    /// Responds with all of `content` or parts of it, as the headers of the request ask.
    ///
    /// # Errors
    /// A condition does not hold.
    pub(super) fn respond(
        &self,
        method: &Method,
        headers: &HeaderMap,
        content: Representation,
    ) -> Result<Response, Refusal> {
        match content.validators.judge(headers, true) {
            Verdict::Holds => {}
            Verdict::NotModified => return Ok(not_modified(&content.validators)),
            Verdict::Fails => return Err(precondition_failed(&content.message_name)),
        }
        let (size, content_type) = (content.size, content.content_type);
        let layout = match content.selection(headers, method) {
            Selection::Whole => Layout::whole(size),
            Selection::Parts(parts) => Layout::of_parts(size, parts, content_type, random_suffix()),
            Selection::Unsatisfiable => return Ok(content.no_such_range()),
        };
        let mut response = Response::default();
        *response.status_mut() = if layout.is_whole() { StatusCode::OK } else { StatusCode::PARTIAL_CONTENT };
        content.describe(&mut response, &layout);
        if wants_sha256(headers) {
            content.sha256.iter().for_each(|sha256| insert(&mut response, REPR_DIGEST, &repr_digest(*sha256)));
        }
        if *method == Method::HEAD || layout.is_empty() {
            return Ok(response);
        }
        let (head, _) = response.into_parts();
        let sent = send(self.clone(), content.name, (content.source, content.direct), layout);
        Ok(Response::from_parts(head, warp::reply::stream(sent).into_response().into_body()))
    }
}

/// The refusal of a request whose conditions do not hold.
pub(super) fn precondition_failed(message_name: &str) -> Refusal {
    let message = format!("{message_name} is not as the conditions of the request demand: ask for its ETag again");
    Refusal::new(ErrorCode::PreconditionFailed, message)
}

impl Representation {
    /// The bytes that are asked for. Range is a header of GET only (RFC 9110, section 14.2).
    fn selection(&self, headers: &HeaderMap, method: &Method) -> Selection {
        let mut lines = headers.get_all(RANGE).iter();
        let counts = self.has_ranges && *method == Method::GET;
        match (lines.next().and_then(|line| line.to_str().ok()), lines.next()) {
            (Some(range), None) if counts && self.validators.range_counts(headers) => select(range, self.size),
            _ => Selection::Whole,
        }
    }

    fn no_such_range(&self) -> Response {
        let message = format!("{} has {} bytes, and none in the ranges of the request", self.message_name, self.size);
        let mut response = words::response(&Refusal::new(ErrorCode::RangeNotSatisfiable, message));
        insert(&mut response, CONTENT_RANGE, &no_range_of(self.size));
        response
    }

    fn describe(&self, response: &mut Response, layout: &Layout) {
        identify(response, &self.validators);
        let content_type = match layout.boundary() {
            Some(boundary) => format!("multipart/byteranges; boundary={boundary}"),
            None => self.content_type.to_owned(),
        };
        insert(response, CONTENT_TYPE, &content_type);
        insert(response, CONTENT_LENGTH, &layout.len().to_string());
        layout.content_range().iter().for_each(|range| insert(response, CONTENT_RANGE, range));
        self.digest.iter().for_each(|digest| insert(response, BIGUP_DIGEST, &format!("blake3={digest}")));
        insert(response, CONTENT_DISPOSITION, &disposition(&self.saved_as));
        insert(response, ACCEPT_RANGES, if self.has_ranges { "bytes" } else { "none" });
        let headers = response.headers_mut();
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(CONTENT_SECURITY_POLICY, POLICY);
    }
}

fn not_modified(validators: &Validators) -> Response {
    let mut response = Response::default();
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    identify(&mut response, validators);
    response
}

/// Sets the headers that tell which content it is, and how caches treat it.
fn identify(response: &mut Response, validators: &Validators) {
    response.headers_mut().insert(CACHE_CONTROL, CACHING);
    validators.etag.iter().for_each(|etag| insert(response, ETAG, etag));
    validators.last_modified().iter().for_each(|time| insert(response, LAST_MODIFIED, time));
}

/// The value of Content-Disposition (RFC 6266): a browser saves the content under this name. Old clients get its ASCII
/// characters.
fn disposition(name: &str) -> String {
    let is_plain = |c: char| (c.is_ascii_graphic() || c == ' ') && !"\"\\%/".contains(c);
    let plain: String = name.chars().map(|c| if is_plain(c) { c } else { '_' }).collect();
    format!("attachment; filename=\"{plain}\"; filename*=UTF-8''{}", utf8_percent_encode(name, ENCODED))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_saved_under_its_own_name() {
        for (name, value) in [
            ("b.bin", "attachment; filename=\"b.bin\"; filename*=UTF-8''b.bin"),
            ("a b", "attachment; filename=\"a b\"; filename*=UTF-8''a%20b"),
            ("文.txt", "attachment; filename=\"_.txt\"; filename*=UTF-8''%E6%96%87.txt"),
            ("x\"; y=\\%41", "attachment; filename=\"x_; y=__41\"; filename*=UTF-8''x%22%3B%20y%3D%5C%2541"),
            ("it's*", "attachment; filename=\"it's*\"; filename*=UTF-8''it%27s%2A"),
        ] {
            assert_eq!(disposition(name), value);
        }
    }
}
