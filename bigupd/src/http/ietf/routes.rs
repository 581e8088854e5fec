//! The requests of the draft, and their responses.
//!
//! An upload is whole once a request says so (`Upload-Complete: ?1`) and all of its body came, also where all bytes of
//! a length that was told are held before. So such an upload awaits the word of its client
//! ([`UploadRecord::awaits_end`](bigup_core::storage::spool::UploadRecord::awaits_end)). A body that is cut off is
//! never taken for a whole one.
//!
//! Interim responses (104) are not sent: hyper has no interface for them. A client that wants to know the address before
//! it sends bytes creates the upload without any.

use super::headers::{
    self, ACCEPT_PATCH, INTEROP_VERSION, UPLOAD_COMPLETE, UPLOAD_LENGTH, UPLOAD_LIMIT, UPLOAD_OFFSET,
};
use super::words;
use crate::admission::access::Access;
use crate::admission::origins::Effect;
use crate::admission::tokens::Permission;
use crate::http::app::{App, Protocol};
use crate::http::append::{AppendBody, AppendEnd, BodyChecksum};
use crate::http::body::content_length;
use crate::http::checksum::Algorithm;
use crate::http::digest_fields::{check_content_coding, content_digest, file_sha256};
use crate::http::request::Request;
use crate::http::upload_url::{self as url, Named};
use crate::metrics::{Route, UploadProtocol};
use crate::net::peer::Peer;
use crate::net::response::{Response, empty, insert};
use crate::refusal::Refusal;
use crate::uploads::append::AppendRequest;
use crate::uploads::create::{CreateRequest, WantedName};
use bigup_core::protocol::native::ErrorCode;
use std::time::Duration;
use warp::http::header::{HeaderMap, HeaderName, LOCATION};
use warp::http::{Method, StatusCode};

/// The protocol of the draft.
pub const IETF: Protocol = Protocol { words: words::response, shared_headers: url::SHARED_HEADERS };

/// Longest time that a response waits for the file to be finished.
const PATIENCE: Duration = Duration::from_secs(50);

/// True if a request to `/files/` speaks the draft, and not tus, whose requests all tell their version.
pub fn is_ietf(request: &Request) -> bool {
    let has = |name: &HeaderName| request.headers.contains_key(name);
    let is_bare = !request.headers.contains_key("tus-resumable")
        && matches!(request.method, Method::HEAD | Method::GET | Method::DELETE);
    is_bare || has(&UPLOAD_COMPLETE) || has(&INTEROP_VERSION) || headers::is_partial_upload(&request.headers)
}

/// Answers a request of the draft.
pub async fn ietf(app: App, request: Request) -> Response {
    app.serve(&IETF, Route::Ietf, request, answer).await
}

async fn answer(app: App, request: Request) -> Response {
    log::debug!(peer = Peer::shown(request.peer); "{} /files/", request.method);
    let (headers, body) = (request.headers.clone(), request.body.clone());
    let answer = app.ietf_answer(request).await.or_else(|refusal| match refusal.code {
        ErrorCode::TooLarge => Ok(app.with_limits(words::response(&refusal))),
        _ => Err(refusal),
    });
    app.answer_after(&headers, body, answer, &IETF).await
}

impl App {
    /// Tells the limits of uploads in `response`. `offset`: bytes that are held of the upload that it is about, which may
    /// expire; `None`: it is about none, or a complete one.
    fn tell_limits(&self, response: &mut Response, offset: Option<u64>) {
        let (size, times) = (self.uploads.settings.file_size, self.settings.expiry);
        let max_age = offset.and_then(|offset| if offset == 0 { times.least() } else { times.any });
        let age = max_age.map_or(String::new(), |age| format!(", max-age={}", age.as_secs()));
        insert(response, UPLOAD_LIMIT, &format!("max-size={size}, min-size=0{age}"));
    }

    fn with_limits(&self, mut response: Response) -> Response {
        self.tell_limits(&mut response, None);
        response
    }

    /// The same, and which bodies can be appended, in the response to OPTIONS.
    pub(in crate::http) fn ietf_discovery(&self, mut response: Response) -> Response {
        self.tell_limits(&mut response, None);
        insert(&mut response, ACCEPT_PATCH, headers::PARTIAL_UPLOAD);
        response
    }

    async fn ietf_answer(&self, request: Request) -> Result<Response, Refusal> {
        let by = self.enter(&request.headers, request.peer, Effect::Changes).await?;
        match (request.method.clone(), url::parse(&request.path)?) {
            (Method::POST, None) => self.ietf_create(by, request).await,
            (method, Some((key, name))) => {
                by.check(&[Permission::Push], Some(&name))?;
                self.ietf_on(method, Named { by, key, name }, request).await
            }
            (method, None) => Err(Refusal::method(method.as_str(), "POST creates an upload", "POST, OPTIONS")),
        }
    }

    async fn ietf_on(&self, method: Method, named: Named, request: Request) -> Result<Response, Refusal> {
        match method {
            Method::HEAD | Method::GET => self.ietf_offset(named, request).await,
            Method::PATCH => self.ietf_append(named, request).await,
            Method::DELETE => {
                self.end(named.append_request(request.peer, 0, None)).await?;
                Ok(empty(StatusCode::NO_CONTENT))
            }
            method => {
                let what = "HEAD asks for the offset, PATCH appends, DELETE ends an upload";
                Err(Refusal::method(method.as_str(), what, "HEAD, GET, PATCH, DELETE, OPTIONS"))
            }
        }
    }

    async fn ietf_create(&self, by: Access, request: Request) -> Result<Response, Refusal> {
        let is_end = headers::boolean(&request.headers, &UPLOAD_COMPLETE);
        let is_end = is_end.ok_or_else(|| headers::bad("Upload-Complete is neither ?1 nor ?0".to_owned()))?;
        let len = content_length(&request.headers);
        let file_size = match told_size(&request.headers, 0, is_end) {
            Ok(size) => size,
            Err(facts) => return Ok(words::inconsistent_length(&facts)),
        };
        let metadata = headers::metadata(&request.headers);
        let ask = CreateRequest {
            by: by.clone(),
            name: WantedName::Like(headers::file_name(&request.headers).or_else(|| metadata.as_ref()?.1.file_name())),
            protocol: UploadProtocol::Ietf,
            file_size,
            metadata: metadata.map(|(text, _)| text.to_owned()),
            sha256: file_sha256(&request.headers)?,
            awaits_end: true,
            is_partial: false,
            peer: request.peer.and_then(Peer::ip),
            certificate: self.shown_name(),
        };
        let checksum = checksum(&request.headers)?;
        let uploads = self.uploads.clone();
        let created = self.blocking(move || uploads.create(&ask)).await?;
        self.wakeup.tell();
        let named = Named { by, key: created.key, name: created.name };
        let ask = append_request(&named, request.peer, 0, None);
        let body = AppendBody { body: request.body, len, checksum };
        let (mut response, held) = match self.begun(&named, ask, body, is_end).await {
            Ok(offset) => {
                let mut response = told(StatusCode::CREATED, is_end, offset);
                if is_end {
                    self.tell_sha256(&mut response, &named.name, named.key.source()).await?;
                }
                (response, Some(offset).filter(|_| !is_end))
            }
            // The upload is there whatever became of its first bytes, and its client must hear of it.
            Err(refusal) if refusal.code != ErrorCode::Exists => (words::response(&refusal), Some(0)),
            Err(refusal) => return Err(refusal),
        };
        insert(&mut response, LOCATION, &url::path_of(&named.key, &named.name));
        self.tell_limits(&mut response, held);
        Ok(response)
    }

    async fn ietf_offset(&self, named: Named, request: Request) -> Result<Response, Refusal> {
        let found = self.at_rest(&named.append_request(request.peer, 0, None)).await?;
        let (offset, size, is_end) = match found.filter(|found| !found.is_whole()) {
            Some(found) => (found.offset, found.upload.plan.file_size, false),
            None => {
                let (_, size) = self.wait_for_end(&named.id(), &named.name, &named.key.source(), PATIENCE).await?;
                (size, Some(size), true)
            }
        };
        let mut response = told(StatusCode::NO_CONTENT, is_end, offset);
        let is_misread = !is_end && size == Some(offset) && takes_length_for_end(&request.headers);
        if let Some(size) = size.filter(|_| !is_misread) {
            insert(&mut response, UPLOAD_LENGTH, &size.to_string());
        }
        self.tell_limits(&mut response, Some(offset).filter(|_| !is_end));
        Ok(response)
    }

    async fn ietf_append(&self, named: Named, request: Request) -> Result<Response, Refusal> {
        if !headers::is_partial_upload(&request.headers) {
            let facts = format!("Content-Type is not {}", headers::PARTIAL_UPLOAD);
            return Err(Refusal::new(ErrorCode::Unsupported, facts));
        }
        let offset = headers::integer(&request.headers, &UPLOAD_OFFSET);
        let offset = offset.ok_or_else(|| headers::bad("Upload-Offset is no whole number, or missing".to_owned()))?;
        let is_end = headers::boolean(&request.headers, &UPLOAD_COMPLETE);
        let is_end = is_end.ok_or_else(|| headers::bad("Upload-Complete is neither ?1 nor ?0".to_owned()))?;
        let file_size = match told_size(&request.headers, offset, is_end) {
            Ok(size) => size,
            Err(facts) => return Ok(words::inconsistent_length(&facts)),
        };
        if self.has_ended(&named).await? {
            return Ok(words::completed_upload());
        }
        let ask = append_request(&named, request.peer, offset, file_size);
        let len = content_length(&request.headers);
        let body = AppendBody { body: request.body, len, checksum: checksum(&request.headers)? };
        match self.appended(&named, ask, body, is_end).await {
            Ok(end) if is_end => {
                let mut response = told(StatusCode::OK, true, end.offset);
                self.tell_sha256(&mut response, &named.name, named.key.source()).await?;
                Ok(response)
            }
            Ok(end) => Ok(told(StatusCode::NO_CONTENT, false, end.offset)),
            Err(refusal) => match refusal.offset {
                Some(expected) => Ok(words::mismatching_offset(&refusal, expected, offset)),
                None => Err(refusal),
            },
        }
    }

    /// True if the upload is whole, or finished already.
    async fn has_ended(&self, named: &Named) -> Result<bool, Refusal> {
        let (uploads, named) = (self.uploads.clone(), named.clone());
        self.blocking(move || {
            let source = named.key.source();
            match uploads.appendable(&named.id(), &source)? {
                Some(found) => Ok(found.is_whole()),
                None => Ok(uploads.became(&named.id(), &named.name, &source)?.is_some()),
            }
        })
        .await
    }

    /// Appends the body of a creation, if it has one. Returns the offset.
    async fn begun(&self, named: &Named, ask: AppendRequest, body: AppendBody, is_end: bool) -> Result<u64, Refusal> {
        // To append nothing takes disk space for a slice.
        if body.len == Some(0) && !is_end {
            return Ok(0);
        }
        Ok(self.appended(named, ask, body, is_end).await?.offset)
    }

    /// Appends a body. If it is the end of the file, that is noted, and waited for.
    ///
    /// ```text
    /// a kill after                             leaves an upload                    the next request with the end
    /// 1  the last bytes are held               whose size may not be known         repeats 2 to 4
    /// 2  its size is saved                     whose last slice may be in `tail`   repeats 3 and 4
    /// 3  `tail` is renamed to the last slice   that awaits its end                 repeats 4
    /// 4  `awaits_end` goes                     that is complete once merged        is refused: the file is published
    /// ```
    async fn appended(
        &self,
        named: &Named,
        ask: AppendRequest,
        body: AppendBody,
        is_end: bool,
    ) -> Result<AppendEnd, Refusal> {
        let app = self.clone();
        // Whatever becomes of the connection: the bytes that came are kept, and so is the end behind all of them.
        let appending = tokio::spawn(async move {
            let end = app.append(ask.clone(), body).await?;
            if is_end {
                app.end_at(AppendRequest { offset: end.offset, file_size: Some(end.offset), ..ask }).await?;
            }
            Ok::<_, Refusal>(end)
        });
        let end = appending.await.unwrap_or_else(|e| Err(std::io::Error::other(e).into()))?;
        if is_end {
            self.wait_for_end(&named.id(), &named.name, &named.key.source(), PATIENCE).await?;
        }
        Ok(end)
    }

    /// The bytes up to the offset of `last` are the file.
    async fn end_at(&self, last: AppendRequest) -> Result<(), Refusal> {
        // The last slice may be in the tail, since nobody knew that it was the last one.
        self.append(last.clone(), AppendBody::empty()).await?;
        let uploads = self.uploads.clone();
        self.blocking(move || uploads.complete(&last)).await
    }
}

/// True if the client takes an upload whose offset is its length for complete, without a look at `Upload-Complete`.
/// tus-js-client does so, which speaks version 6.
fn takes_length_for_end(asked: &HeaderMap) -> bool {
    headers::integer(asked, &INTEROP_VERSION).is_some_and(|version| version <= 6)
}

/// A request to append to an upload whose client says when it is whole.
fn append_request(named: &Named, peer: Option<Peer>, offset: u64, file_size: Option<u64>) -> AppendRequest {
    AppendRequest { awaits_end: true, ..named.append_request(peer, offset, file_size) }
}

/// The size of the file that a request tells, in bytes; its body begins at `offset`. `None` if it tells none.
///
/// # Errors
/// It tells two; both are named.
fn told_size(asked: &HeaderMap, offset: u64, is_end: bool) -> Result<Option<u64>, String> {
    let by_content = content_length(asked).filter(|_| is_end).map(|len| offset.saturating_add(len));
    match (headers::integer(asked, &UPLOAD_LENGTH), by_content) {
        (Some(told), Some(content)) if told != content => {
            Err(format!("Upload-Length is {told}, but offset and Content-Length make {content}"))
        }
        (told, content) => Ok(told.or(content)),
    }
}

/// The checksum that a body must have. `None` if none is told.
fn checksum(asked: &HeaderMap) -> Result<Option<BodyChecksum>, Refusal> {
    check_content_coding(asked)?;
    Ok(content_digest(asked)?.map(|sha256| BodyChecksum::Told(Algorithm::Sha256, sha256.to_vec())))
}

/// A response that tells the state of an upload.
fn told(status: StatusCode, is_complete: bool, offset: u64) -> Response {
    let mut response = empty(status);
    insert(&mut response, UPLOAD_COMPLETE, if is_complete { "?1" } else { "?0" });
    insert(&mut response, UPLOAD_OFFSET, &offset.to_string());
    response
}
