//! A request, as all protocols take it.

use crate::http::body::RawBody;
use crate::net::file_parts::FileParts;
use crate::net::peer::Peer;
use crate::net::trailers::Trailers;
use warp::filters::path::FullPath;
use warp::http::Method;
use warp::http::header::HeaderMap;

/// A request as it came, its body unread.
pub struct Request {
    /// Its method.
    pub method: Method,
    /// Its path, as it came: percent-encoded.
    pub path: String,
    /// Its header fields.
    pub headers: HeaderMap,
    /// The text behind the question mark; empty if there is none.
    pub query: String,
    /// The peer of the connection it came by; `None` if it is not known.
    pub peer: Option<Peer>,
    /// The parts of files that its connection sends. `None` if it cannot, as under TLS.
    pub parts: Option<FileParts>,
    /// Its body.
    pub body: RawBody,
    /// The fields behind its body. `None` if its head announced none.
    pub trailers: Option<Trailers>,
}

impl Request {
    /// A request of these parts.
    pub fn new(
        method: Method,
        path: FullPath,
        headers: HeaderMap,
        query: String,
        (peer, parts): (Option<Peer>, Option<FileParts>),
        trailers: Option<Trailers>,
        body: RawBody,
    ) -> Request {
        let path = path.as_str().to_owned();
        Request { method, path, headers, query, peer, parts, body, trailers }
    }
}
