//! The endpoint of finished files: the way of each request.

use crate::admission::access::Access;
use crate::admission::origins::{Effect, SharedHeaders};
use crate::admission::tokens::{Permission, redacted};
use crate::http::app::{App, Protocol};
use crate::http::content::words;
use crate::http::request::Request;
use crate::metrics::Route;
use crate::net::file_parts::FileParts;
use crate::net::peer::Peer;
use crate::net::response::Response;
use crate::refusal::Refusal;
use bigup_core::protocol::content;
use bigup_core::protocol::name::{FileName, printable, quoted};
use bigup_core::protocol::native::ErrorCode;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use std::borrow::Cow;
use warp::http::Method;
use warp::http::header::{ACCEPT, HeaderMap};

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
pub const PATH: &str = content::PATH;

/// Characters that are encoded in a path. Slashes between a name's components stay.
pub(super) const ENCODED: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b'/');

/// The methods that there are for a file.
const METHODS: &str = "GET, HEAD, PUT, DELETE, OPTIONS";

/// The methods that there are for folders.
const METHODS_OF_FOLDER: &str = "GET, HEAD, PUT, OPTIONS";

/// The methods that there are for the list of files.
const METHODS_OF_LIST: &str = "GET, HEAD, OPTIONS";

/// The thing that a GET reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// The finished file in the path.
    File,
    /// Size and digests of the finished file in the path.
    Leaves,
    /// A page of the list of finished files.
    List,
    /// The index of the folder at this path, which ends in `/`, or is empty for that of all files.
    Index(String),
    /// An archive of that folder.
    Archive(String),
}

/// Answers a request for a finished file.
pub async fn content(app: App, request: Request) -> Response {
    app.serve(&CONTENT, Route::Content, request, answer).await
}

async fn answer(app: App, request: Request) -> Response {
    if request.method == Method::PUT && !is_folder(&request.path) {
        // In a box: readers, of whom there are many, need not reserve memory for it.
        return Box::pin(store(app, request)).await;
    }
    let Request { method, path, headers, query, peer, parts, body, .. } = request;
    let target = if query.is_empty() { path.clone() } else { format!("{path}?{query}") };
    log::debug!(peer = Peer::shown(peer); "{method} {}", redacted(&printable(&target)));
    let answer = match method {
        // Browsers ask by it whether a page may call, and send no token along.
        Method::OPTIONS => app.options(&CONTENT, &headers, methods(&path)),
        Method::GET | Method::HEAD => match app.enter(&headers, peer, Effect::Looks).await {
            Ok(by) => read(&app, &by, &method, &headers, (&path, &query), parts).await,
            Err(refusal) => Err(refusal),
        },
        method => match app.enter(&headers, peer, Effect::Changes).await {
            Ok(by) if method == Method::DELETE && !is_folder(&path) => app.delete(by, peer, &headers, &path).await,
            Ok(by) if method == Method::PUT && !name_in(&path).is_empty() => app.put_folder(by, &headers, &path).await,
            Ok(_) => Err(Refusal::method(method.as_str(), possible(&path), methods(&path))),
            Err(refusal) => Err(refusal),
        },
    };
    app.answer_after(&headers, body, answer, &CONTENT).await
}

async fn read(
    app: &App,
    by: &Access,
    method: &Method,
    headers: &HeaderMap,
    (path, query): (&str, &str),
    parts: Option<FileParts>,
) -> Result<Response, Refusal> {
    match target(path, query, wants_html(headers))? {
        Target::File => app.download(by, method, headers, path, parts).await,
        Target::Leaves => app.leaves(by, path).await,
        Target::List => app.list(by, method, query).await,
        Target::Index(folder) => app.index(by, method, folder).await,
        Target::Archive(folder) => app.archive(by, method, headers, folder).await,
    }
}

/// The thing that a path and a query name; `wants_html` is true of browsers.
///
/// # Errors
/// They name a folder that cannot be, or nothing that can be read of one.
pub fn target(path: &str, query: &str, wants_html: bool) -> Result<Target, Refusal> {
    let is_list = name_in(path).is_empty();
    match query {
        content::LEAVES | "leaves=" if !is_folder(path) => Ok(Target::Leaves),
        _ if !is_folder(path) => Ok(Target::File),
        "tar" | "tar=" => folder_path(path).map(Target::Archive),
        "" if wants_html || !is_list => folder_path(path).map(Target::Index),
        _ if is_list => Ok(Target::List),
        _ => {
            let facts =
                format!("the query of a folder is {}, and not tar: nothing else can be asked of it", quoted(query));
            Err(Refusal::new(ErrorCode::BadRequest, facts))
        }
    }
}

/// True if the client shows HTML: it names that type.
fn wants_html(headers: &HeaderMap) -> bool {
    let lines = headers.get_all(ACCEPT).iter().filter_map(|line| line.to_str().ok());
    let kinds = lines.flat_map(|line| line.split(',')).map(|kind| kind.split(';').next().unwrap_or_default().trim());
    kinds.into_iter().any(|kind| kind.eq_ignore_ascii_case("text/html"))
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

/// True if a path names no file: it ends in a slash, or is the one of all files.
fn is_folder(path: &str) -> bool {
    let name = name_in(path);
    name.is_empty() || name.ends_with('/')
}

fn methods(path: &str) -> &'static str {
    match &*name_in(path) {
        "" => METHODS_OF_LIST,
        name if name.ends_with('/') => METHODS_OF_FOLDER,
        _ => METHODS,
    }
}

fn possible(path: &str) -> &'static str {
    match &*name_in(path) {
        "" => "GET lists finished files",
        name if name.ends_with('/') => "GET lists the files of a folder, PUT makes one",
        _ => "GET reads a finished file, PUT stores one, DELETE removes it",
    }
}

/// The part of a path behind `/content/`, as it came but for `./` in it, which means nothing (RFC 3986, section 5.2.4):
/// rclone sends it before a name with a colon.
fn name_in(path: &str) -> Cow<'_, str> {
    let rest = path.trim_start_matches('/').strip_prefix(PATH).unwrap_or_default();
    let rest = rest.strip_prefix('/').unwrap_or(rest);
    if !rest.contains("./") {
        return rest.into();
    }
    rest.split_inclusive('/').filter(|part| *part != "./").collect()
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
    decoded(&name_in(path))
}

/// The name of the folder in a path like `/content/a/b%20c/`, without the `/` at its end.
///
/// # Errors
/// It is not UTF-8, or no folder can have it.
pub fn folder_name(path: &str) -> Result<FileName, Refusal> {
    let name = name_in(path);
    decoded(name.strip_suffix('/').unwrap_or(&name))
}

/// The path of the folder in a path like `/content/a/b%20c/`: it ends in `/`, or is empty for that of all files.
fn folder_path(path: &str) -> Result<String, Refusal> {
    match &*name_in(path) {
        "" => Ok(String::new()),
        name => decoded(name.strip_suffix('/').unwrap_or(name)).map(|name| format!("{name}/")),
    }
}

fn decoded(name: &str) -> Result<FileName, Refusal> {
    let name = percent_decode_str(name).decode_utf8();
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
            ("/content/./a:b/././c", "a:b/c"),
            ("/content/a./b", "a./b"),
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
            "/content/a/%2e/b",
            "/content/a/.",
            "/content/./../a",
            "/content/.//a",
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

    #[test]
    fn a_path_with_a_slash_at_its_end_is_a_folder() {
        let index = |path: &str| Ok(Target::Index(path.to_owned()));
        let archive = |path: &str| Ok(Target::Archive(path.to_owned()));
        for (path, query, wants_html, is) in [
            ("/content/a", "", true, Ok(Target::File)),
            ("/content/a", "tar", false, Ok(Target::File)),
            ("/content/a", "leaves", false, Ok(Target::Leaves)),
            ("/content/a", "leaves=", true, Ok(Target::Leaves)),
            ("/content/a/", "leaves", true, Err(ErrorCode::BadRequest)),
            ("/content/a%2F", "", true, Ok(Target::File)),
            ("/content", "", false, Ok(Target::List)),
            ("/content/", "prefix=a", true, Ok(Target::List)),
            ("/content/", "tar&x", true, Ok(Target::List)),
            ("/content", "", true, index("")),
            ("/content/", "", true, index("")),
            ("/content/a/", "", false, index("a/")),
            ("/content/a/b%20%2f/c/", "", true, Err(ErrorCode::BadName)),
            ("/content/a/b%2fc/", "", true, index("a/b/c/")),
            ("/content/./a/./", "", true, index("a/")),
            ("/content/./", "", false, Ok(Target::List)),
            ("/content/", "tar", true, archive("")),
            ("/content/a/", "tar=", false, archive("a/")),
            ("/content/a/", "tar=1", false, Err(ErrorCode::BadRequest)),
            ("/content/a/", "tar&x", false, Err(ErrorCode::BadRequest)),
            ("/content/a/", "tar&tar", false, Err(ErrorCode::BadRequest)),
            ("/content/a/", "prefix=a", false, Err(ErrorCode::BadRequest)),
            ("/content/a//", "tar", false, Err(ErrorCode::BadName)),
            ("/content//", "tar", false, Err(ErrorCode::BadName)),
            ("/content/../", "tar", false, Err(ErrorCode::BadName)),
            ("/content/a/%2e%2e/", "", false, Err(ErrorCode::BadName)),
        ] {
            assert_eq!(target(path, query, wants_html).map_err(|refusal| refusal.code), is, "{path}?{query}");
        }
    }
}
