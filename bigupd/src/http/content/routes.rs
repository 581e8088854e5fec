//! The endpoint of finished files: the way of each request.

use crate::admission::access::Access;
use crate::admission::origins::{Effect, SharedHeaders};
use crate::admission::tokens::{Permission, redacted};
use crate::http::app::{App, Protocol};
use crate::http::content::words;
use crate::http::request::Request;
use crate::metrics::Route;
use crate::net::peer::Peer;
use crate::net::response::Response;
use crate::refusal::Refusal;
use bigup_core::protocol::name::{FileName, printable};
use bigup_core::protocol::native::ErrorCode;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use warp::http::Method;

/// Plain HTTP.
pub const CONTENT: Protocol = Protocol {
    words: words::response,
    shared_headers: SharedHeaders {
        request: "authorization, content-digest, content-type, if-match, if-modified-since, if-none-match, if-range, if-unmodified-since, range, \
                  repr-digest, want-repr-digest",
        response: "accept-ranges, allow, bigup-digest, content-disposition, content-length, content-range, etag, \
                   location, repr-digest, retry-after, www-authenticate",
    },
};

/// First component of the path.
pub const PATH: &str = "content";

/// Characters that are encoded in a path. Slashes between a name's components stay.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b'/');

/// The methods that there are for a file.
const METHODS: &str = "GET, HEAD, PUT, DELETE, OPTIONS";

/// The methods that there are for the list of files.
const METHODS_OF_LIST: &str = "GET, HEAD, OPTIONS";

/// Answers a request for a finished file.
pub async fn content(app: App, request: Request) -> Response {
    app.serve(&CONTENT, Route::Content, request, answer).await
}

async fn answer(app: App, request: Request) -> Response {
    if request.method == Method::PUT && !is_list(&request.path) {
        return store(app, request).await;
    }
    let Request { method, path, headers, query, peer, body, .. } = request;
    let target = if query.is_empty() { path.clone() } else { format!("{path}?{query}") };
    log::debug!(peer = Peer::shown(peer); "{method} {}", redacted(&printable(&target)));
    let answer = match method {
        // Browsers ask by it whether a page may call, and send no token along.
        Method::OPTIONS => app.options(&CONTENT, &headers, methods(&path)),
        Method::GET | Method::HEAD => match app.enter(&headers, peer, Effect::Looks).await {
            Ok(by) if is_list(&path) => app.list(&by, &method, &query).await,
            Ok(by) => app.download(&by, &method, &headers, &path).await,
            Err(refusal) => Err(refusal),
        },
        method => match app.enter(&headers, peer, Effect::Changes).await {
            Ok(by) if method == Method::DELETE && !is_list(&path) => app.delete(by, peer, &headers, &path).await,
            Ok(_) => Err(Refusal::method(method.as_str(), possible(&path), methods(&path))),
            Err(refusal) => Err(refusal),
        },
    };
    app.answer_after(&headers, body, answer, &CONTENT).await
}

async fn store(app: App, request: Request) -> Response {
    log::debug!(peer = Peer::shown(request.peer); "PUT {}", redacted(&printable(&request.path)));
    let (headers, body) = (request.headers.clone(), request.body.clone());
    let answer = match app.enter(&headers, request.peer, Effect::Changes).await {
        Ok(by) => app.put(by, request).await,
        Err(refusal) => Err(refusal),
    };
    app.answer_after(&headers, body, answer, &CONTENT).await
}

/// The path of a file.
pub(super) fn path_of(name: &FileName) -> String {
    format!("/{PATH}/{}", utf8_percent_encode(name.as_str(), ENCODED))
}

/// True if a path names no file: a GET lists the files.
fn is_list(path: &str) -> bool {
    name_in(path).is_empty()
}

fn methods(path: &str) -> &'static str {
    if is_list(path) { METHODS_OF_LIST } else { METHODS }
}

fn possible(path: &str) -> &'static str {
    if is_list(path) {
        "GET lists the finished files"
    } else {
        "GET reads a finished file, PUT stores one, DELETE removes it"
    }
}

/// The part of a path behind `/content/`, as it came.
fn name_in(path: &str) -> &str {
    let rest = path.trim_start_matches('/').strip_prefix(PATH).unwrap_or_default();
    rest.strip_prefix('/').unwrap_or(rest)
}

/// The file that a path names, if its sender has the permission.
///
/// # Errors
/// It names none, or the permission is missing.
pub(super) fn name_of(path: &str, by: &Access, permission: Permission) -> Result<FileName, Refusal> {
    let name = file_name(path)?;
    by.check(&[permission], Some(&name))?;
    Ok(name)
}

/// The name in a path like `/content/a/b%20c`.
///
/// # Errors
/// It is not UTF-8, or no file can have it.
pub fn file_name(path: &str) -> Result<FileName, Refusal> {
    let name = percent_decode_str(name_in(path)).decode_utf8();
    let name = name.map_err(|_| Refusal::new(ErrorCode::BadName, "the name in the path is not UTF-8"))?;
    Ok(FileName::new(&name)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_names_a_file_below_the_store_or_none() {
        for (path, name) in [
            ("/content/a", "a"),
            ("/content/a/b%20c.bin", "a/b c.bin"),
            ("/content/a%2Fb", "a/b"),
            ("/content/%E6%96%87", "文"),
            ("/content/a+b%25", "a+b%"),
            ("/content/content", "content"),
            ("/content/..a/b..", "..a/b.."),
        ] {
            assert_eq!(file_name(path).unwrap().as_str(), name, "{path}");
        }
        for path in [
            "/content",
            "/content/",
            "/content//etc/passwd",
            "/content/%2Fetc/passwd",
            "/content/../tokens.json",
            "/content/%2e%2e/tokens.json",
            "/content/a/..%2f..%2ftokens.json",
            "/content/a/./b",
            "/content/a/",
            "/content/a%2F",
            "/content/a//b",
            "/content/a%00b",
            "/content/a%0Ab",
            "/content/%FF",
            "/content/%C0%AE%C0%AE/x",
        ] {
            assert_eq!(file_name(path).unwrap_err().code, ErrorCode::BadName, "{path}");
        }
    }
}
