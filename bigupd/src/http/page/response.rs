//! The responses of the page: everybody may read it, since it has nothing of anybody's in it.

use crate::http::page::site::Sent;
use crate::net::response::{Response, insert, no_content};
use crate::refusal::Refusal;
use warp::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, HeaderMap, HeaderName, IF_NONE_MATCH, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};
use warp::http::{Method, StatusCode};

/// The methods there are.
const METHODS: &str = "GET, HEAD, OPTIONS";

/// The page loads its own files, calls its own server, and stands in no other page. Its BLAKE3 is WebAssembly.
const POLICY: &str = "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; connect-src 'self'; \
                      worker-src 'self'; img-src 'self' data:; manifest-src 'self'; frame-ancestors 'none'; \
                      base-uri 'none'; form-action 'none'";

/// Headers of each file.
const HEADERS: [(HeaderName, &str); 5] = [
    (CONTENT_SECURITY_POLICY, POLICY),
    // The page names itself to its own server alone: over plain HTTP nothing else tells its requests from another page's.
    (REFERRER_POLICY, "same-origin"),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    // A new daemon has new files, and a browser must not mix them with old ones.
    (CACHE_CONTROL, "no-cache"),
];

/// The response to a request for a file of the page.
///
/// # Errors
/// It is not asked for by a GET or HEAD.
pub fn response(file: &Sent, method: &Method, headers: &HeaderMap) -> Result<Response, Refusal> {
    match *method {
        // The server leaves the body out of a response to HEAD.
        Method::GET | Method::HEAD if is_known(file, headers) => Ok(described(StatusCode::NOT_MODIFIED, file)),
        Method::GET | Method::HEAD => {
            let mut response = described(StatusCode::OK, file);
            *response.body_mut() = file.bytes.clone().into();
            Ok(response)
        }
        Method::OPTIONS => Ok(no_content(METHODS)),
        _ => Err(Refusal::method(method.as_str(), "GET reads the page", METHODS)),
    }
}

/// True if the browser has the file as it is.
fn is_known(file: &Sent, headers: &HeaderMap) -> bool {
    let tags = headers.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    tags.flat_map(|list| list.split(',')).any(|tag| tag.trim().trim_start_matches("W/") == file.etag)
}

fn described(status: StatusCode, file: &Sent) -> Response {
    let mut response = Response::default();
    *response.status_mut() = status;
    for (name, value) in HEADERS {
        insert(&mut response, name, value);
    }
    insert(&mut response, ETAG, &file.etag);
    insert(&mut response, CONTENT_TYPE, file.content_type);
    response
}
