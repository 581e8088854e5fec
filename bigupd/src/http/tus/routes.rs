//! The requests of tus, and their responses.

use super::headers::{
    self, EXTENSIONS, METHOD_OVERRIDE, Role, TUS_CHECKSUM_ALGORITHM, TUS_EXTENSION, TUS_MAX_SIZE, TUS_RESUMABLE,
    TUS_VERSION, UPLOAD_CONCAT, UPLOAD_DEFER_LENGTH, UPLOAD_EXPIRES, UPLOAD_LENGTH, UPLOAD_METADATA, UPLOAD_OFFSET,
    VERSION,
};
use super::words;
use crate::admission::access::Access;
use crate::admission::origins::Effect;
use crate::admission::tokens::Permission;
use crate::http::app::{App, Protocol};
use crate::http::append::{AppendBody, AppendEnd, BodyChecksum, goes_beyond};
use crate::http::body::content_length;
use crate::http::checksum::Algorithm;
use crate::http::digest_fields::file_sha256;
use crate::http::request::Request;
use crate::http::upload_url::{self as url, Named};
use crate::metadata::Metadata;
use crate::metrics::{Route, UploadProtocol};
use crate::net::peer::Peer;
use crate::net::response::{Response, empty, insert};
use crate::net::trailers::Trailers;
use crate::refusal::Refusal;
use crate::uploads::append::{AppendRequest, Appendable, other_offset, other_protocol, too_long};
use crate::uploads::concat::{ConcatRequest, PartialName};
use crate::uploads::create::{CreateRequest, WantedName};
use bigup_core::protocol::native::ErrorCode;
use bigup_core::storage::spool::{Concat, UploadId};
use std::str::FromStr;
use std::time::{Duration, SystemTime};
use warp::http::header::{HeaderMap, HeaderValue, LOCATION};
use warp::http::{Method, StatusCode};

/// The tus protocol.
pub const TUS: Protocol = Protocol { words: words::response, shared_headers: url::SHARED_HEADERS };

/// Longest time that a response waits for the file to be finished.
const PATIENCE: Duration = Duration::from_secs(50);

/// Answers a request to tus.
pub async fn tus(app: App, request: Request) -> Response {
    app.serve(&TUS, Route::Tus, request, answer).await
}

async fn answer(app: App, request: Request) -> Response {
    let method = match method_of(&request) {
        Ok(method) => method,
        Err(refusal) => return app.answer_after(&request.headers, request.body, Err(refusal), &TUS).await,
    };
    log::debug!(peer = Peer::shown(request.peer); "{method} /files/");
    if method == Method::OPTIONS {
        let options = app.options(&TUS, &request.headers, url::METHODS).map(|response| app.tus_discovery(response));
        return app.answer_after(&request.headers, request.body, options, &TUS).await;
    }
    if request.headers.get(TUS_RESUMABLE).is_none_or(|version| version != VERSION) {
        return app.answer_after(&request.headers, request.body, Ok(words::other_version()), &TUS).await;
    }
    let (headers, body, asked) = (request.headers.clone(), request.body.clone(), app.clone());
    // Whatever becomes of the connection: the bytes that came are kept, and told to the next request.
    let answering = tokio::spawn(async move { asked.tus_answer(method, request).await });
    let answer = answering.await.unwrap_or_else(|e| Err(std::io::Error::other(e).into()));
    words::with_version(app.answer_after(&headers, body, answer, &TUS).await)
}

/// The method, or the one that stands for it.
fn method_of(request: &Request) -> Result<Method, Refusal> {
    match headers::text(&request.headers, &METHOD_OVERRIDE)? {
        None => Ok(request.method.clone()),
        Some(method) => {
            Method::from_str(method).map_err(|_| headers::bad("X-HTTP-Method-Override is no method".to_owned()))
        }
    }
}

impl App {
    /// The response to OPTIONS, which tells what is spoken.
    pub(in crate::http) fn tus_discovery(&self, mut response: Response) -> Response {
        let headers = response.headers_mut();
        headers.insert(TUS_VERSION, HeaderValue::from_static(VERSION));
        headers.insert(TUS_EXTENSION, HeaderValue::from_static(EXTENSIONS));
        headers.insert(TUS_MAX_SIZE, HeaderValue::from(self.uploads.settings.file_size));
        headers.insert(TUS_CHECKSUM_ALGORITHM, HeaderValue::from_static(Algorithm::NAMES));
        words::with_version(response)
    }

    async fn tus_answer(&self, method: Method, request: Request) -> Result<Response, Refusal> {
        let by = self.enter(&request.headers, request.peer, Effect::Changes).await?;
        match (method, url::parse(&request.path)?) {
            (Method::POST, None) => self.tus_create(by, request).await,
            (method, Some((key, name))) => {
                by.check(&[Permission::Push], Some(&name))?;
                self.tus_on(method, Named { by, key, name }, request).await
            }
            (method, None) => Err(Refusal::method(method.as_str(), "POST creates an upload", "POST, OPTIONS")),
        }
    }

    async fn tus_on(&self, method: Method, named: Named, request: Request) -> Result<Response, Refusal> {
        match method {
            Method::HEAD => self.tus_head(named, request).await,
            Method::PATCH => self.tus_patch(named, request).await,
            Method::DELETE => self.tus_delete(named, request).await,
            method => {
                let what = "HEAD asks for the offset, PATCH appends, DELETE ends an upload";
                Err(Refusal::method(method.as_str(), what, "HEAD, PATCH, DELETE, OPTIONS"))
            }
        }
    }

    async fn tus_create(&self, by: Access, request: Request) -> Result<Response, Refusal> {
        let role = headers::role(&request.headers)?;
        if let Some(Role::Final(partials, text)) = role {
            return self.tus_concatenate(by, &request, partials, text).await;
        }
        let is_partial = role.is_some();
        if is_partial && file_sha256(&request.headers)?.is_some() {
            let facts = "Repr-Digest is of a file, and a partial upload becomes none: send it with the final upload";
            return Err(headers::bad(facts.to_owned()));
        }
        let file_size = headers::created_size(&request.headers)?;
        let body = is_with_upload(&request.headers)?.then(|| append_body(&request)).transpose()?;
        if let (Some(size), Some(len)) = (file_size, body.as_ref().and_then(|body| body.len))
            && len > size
        {
            return Err(too_long(size, 0, len));
        }
        let mut ask = CreateRequest { file_size, is_partial, ..self.tus_create_request(by.clone(), &request)? };
        if is_partial {
            // It names its file by the final upload.
            ask.name = WantedName::Like(None);
        }
        let uploads = self.uploads.clone();
        let created = self.blocking(move || uploads.create(&ask)).await?;
        self.wakeup.tell();
        let location = url::path_of(&created.key, &created.name);
        let mut response = empty(StatusCode::CREATED);
        insert(&mut response, LOCATION, &location);
        if created.is_finished {
            insert(&mut response, UPLOAD_OFFSET, "0");
            return Ok(response);
        }
        let Some(body) = body else {
            self.tell_expiry(&mut response, 0);
            return Ok(response);
        };
        let named = Named { by, key: created.key, name: created.name };
        let ask = named.append_request(request.peer, 0, None);
        // The upload is there whatever becomes of its first bytes, and its client must hear of it.
        let (offset, is_whole) = match self.tus_append(&named, ask, body).await {
            Ok(end) => (end.offset, end.is_whole),
            Err(refusal) => {
                log::debug!("{}: {}", named.name, refusal.facts);
                (self.tus_held(&named).await?, false)
            }
        };
        insert(&mut response, UPLOAD_OFFSET, &offset.to_string());
        if is_whole {
            self.tell_sha256(&mut response, &named.name, named.key.source()).await?;
        } else {
            self.tell_expiry(&mut response, offset);
        }
        Ok(response)
    }

    fn tus_create_request(&self, by: Access, request: &Request) -> Result<CreateRequest, Refusal> {
        let metadata = headers::text(&request.headers, &UPLOAD_METADATA)?;
        let name = metadata.map(Metadata::parse).transpose()?.and_then(|metadata| metadata.file_name());
        Ok(CreateRequest {
            by,
            name: WantedName::Like(name),
            protocol: UploadProtocol::Tus,
            file_size: None,
            awaits_end: false,
            is_partial: false,
            metadata: metadata.filter(|text| !text.is_empty()).map(str::to_owned),
            sha256: file_sha256(&request.headers)?,
            peer: request.peer.and_then(Peer::ip),
            certificate: self.shown_name(),
        })
    }

    /// Creates a final upload. If all of its bytes are held, the file is stored when the response says so, as after the
    /// last request of another upload.
    async fn tus_concatenate(
        &self,
        by: Access,
        request: &Request,
        partials: Vec<PartialName>,
        text: String,
    ) -> Result<Response, Refusal> {
        for told in [&UPLOAD_LENGTH, &UPLOAD_DEFER_LENGTH] {
            if request.headers.contains_key(told) {
                return Err(headers::bad(format!(
                    "{told} is there: the length of a final upload follows from its parts"
                )));
            }
        }
        if is_with_upload(&request.headers)? {
            return Err(headers::bad("a final upload has no bytes of its own: send no body".to_owned()));
        }
        let create = self.tus_create_request(by, request)?;
        let (uploads, ask) = (self.uploads.clone(), ConcatRequest { create, partials: partials.clone(), text });
        let (created, is_whole) = self.blocking(move || uploads.concatenate(&ask)).await?;
        self.wakeup.tell();
        let id = UploadId::of_name(&created.name);
        if is_whole {
            self.wait_for_end(&id, &created.name, &created.key.source(), PATIENCE).await?;
            let uploads = self.uploads.clone();
            self.blocking(move || uploads.end_partials(&partials)).await?;
        } else {
            // The upload is there whether or not a merger can be started; the scan tries again.
            drop(self.ensure_merger(&id, &created.name).await);
        }
        let mut response = empty(StatusCode::CREATED);
        insert(&mut response, LOCATION, &url::path_of(&created.key, &created.name));
        if is_whole {
            self.tell_sha256(&mut response, &created.name, created.key.source()).await?;
        }
        Ok(response)
    }

    /// Bytes of an unfinished upload that are held.
    async fn tus_held(&self, named: &Named) -> Result<u64, Refusal> {
        let (uploads, id, source) = (self.uploads.clone(), named.id(), named.key.source());
        let found = self.blocking(move || uploads.appendable(&id, &source)).await?;
        Ok(found.map_or(0, |found| found.offset))
    }

    async fn tus_head(&self, named: Named, request: Request) -> Result<Response, Refusal> {
        let ask = named.append_request(request.peer, 0, None);
        let found = self.at_rest(&ask).await?;
        let mut response = empty(StatusCode::OK);
        if let Some(found) = found.as_ref().filter(|found| found.ends_in_tail && !found.upload.awaits_end) {
            self.append(AppendRequest { offset: found.offset, ..ask }, AppendBody::empty()).await?;
        }
        match found.filter(|found| !found.is_whole() || found.is_final()) {
            // All bytes may be held, which would tell this client that its file is stored.
            Some(found) if found.upload.awaits_end => return Err(other_protocol()),
            Some(found) => self.describe_upload(&mut response, &found),
            None => {
                let (_, size) = self.wait_for_end(&named.id(), &named.name, &named.key.source(), PATIENCE).await?;
                insert(&mut response, UPLOAD_OFFSET, &size.to_string());
                insert(&mut response, UPLOAD_LENGTH, &size.to_string());
            }
        }
        Ok(response)
    }

    fn describe_upload(&self, response: &mut Response, found: &Appendable) {
        match &found.upload.concat {
            // The offset of a final upload is told once it is finished.
            Some(Concat::Final(text)) => insert(response, UPLOAD_CONCAT, text),
            concat => {
                insert(response, UPLOAD_OFFSET, &found.offset.to_string());
                concat.iter().for_each(|_| insert(response, UPLOAD_CONCAT, headers::PARTIAL));
            }
        }
        match found.upload.plan.file_size {
            Some(size) => insert(response, UPLOAD_LENGTH, &size.to_string()),
            None => insert(response, UPLOAD_DEFER_LENGTH, "1"),
        }
        if let Some(metadata) = &found.upload.metadata {
            insert(response, UPLOAD_METADATA, metadata);
        }
        self.tell_expiry(response, found.offset);
    }

    async fn tus_patch(&self, named: Named, request: Request) -> Result<Response, Refusal> {
        if !headers::is_offset_stream(&request.headers) {
            let facts = format!("Content-Type is not {}", headers::OFFSET_OCTET_STREAM);
            return Err(Refusal::new(ErrorCode::Unsupported, facts));
        }
        let offset = headers::number(&request.headers, &UPLOAD_OFFSET)?;
        let offset = offset.ok_or_else(|| headers::bad("Upload-Offset is missing".to_owned()))?;
        let file_size = headers::number(&request.headers, &UPLOAD_LENGTH)?;
        let ask = named.append_request(request.peer, offset, file_size);
        let end = self.tus_append(&named, ask, append_body(&request)?).await?;
        let mut response = empty(StatusCode::NO_CONTENT);
        insert(&mut response, UPLOAD_OFFSET, &end.offset.to_string());
        if end.is_whole {
            self.tell_sha256(&mut response, &named.name, named.key.source()).await?;
        } else {
            self.tell_expiry(&mut response, end.offset);
        }
        Ok(response)
    }

    /// Appends a body, and waits for the end if that was the rest of the file.
    async fn tus_append(&self, named: &Named, ask: AppendRequest, body: AppendBody) -> Result<AppendEnd, Refusal> {
        let sent = body.body.clone();
        let end = match self.append(ask.clone(), body).await {
            // The file may be finished, and this be the last request once more.
            Err(refusal) if refusal.code == ErrorCode::NoUpload => {
                let (uploads, id, name) = (self.uploads.clone(), named.id(), named.name.clone());
                let became = self.blocking(move || uploads.became(&id, &name, &ask.source)).await?;
                let (_, size) = became.ok_or(refusal)?;
                if size != ask.offset {
                    return Err(other_offset(size, ask.offset));
                }
                if self.has_bytes(sent).await? {
                    return Err(goes_beyond(size));
                }
                return Ok(AppendEnd { offset: size, is_whole: true });
            }
            end => end?,
        };
        if end.is_whole && !self.is_partial(named).await? {
            self.wait_for_end(&named.id(), &named.name, &named.key.source(), PATIENCE).await?;
        }
        Ok(end)
    }

    /// True of a partial upload, which becomes no file by itself.
    async fn is_partial(&self, named: &Named) -> Result<bool, Refusal> {
        let (uploads, id, source) = (self.uploads.clone(), named.id(), named.key.source());
        self.blocking(move || uploads.is_partial(&id, &source)).await
    }

    async fn tus_delete(&self, named: Named, request: Request) -> Result<Response, Refusal> {
        self.end(named.append_request(request.peer, 0, None)).await?;
        Ok(empty(StatusCode::NO_CONTENT))
    }

    /// Tells when an upload goes, of which `offset` bytes are held.
    fn tell_expiry(&self, response: &mut Response, offset: u64) {
        let times = self.settings.expiry;
        let after = if offset == 0 { times.begun.or(times.any) } else { times.any };
        let when = after.and_then(|after| SystemTime::now().checked_add(after));
        if let Some(when) = when {
            insert(response, UPLOAD_EXPIRES, &http_date(when));
        }
    }
}

fn append_body(request: &Request) -> Result<AppendBody, Refusal> {
    let checksum = body_checksum(&request.headers, request.trailers.as_ref())?;
    Ok(AppendBody { body: request.body.clone(), len: content_length(&request.headers), checksum })
}

/// The checksum that a body must have: it is told before it, or behind it (tus 1.0.0, "Checksum").
fn body_checksum(asked: &HeaderMap, trailers: Option<&Trailers>) -> Result<Option<BodyChecksum>, Refusal> {
    match (headers::checksum(asked)?, trailers.filter(|_| headers::has_checksum_behind(asked))) {
        (Some(_), Some(_)) => {
            Err(headers::bad("Upload-Checksum is before the body and announced behind it".to_owned()))
        }
        (Some((algorithm, told)), None) => Ok(Some(BodyChecksum::Told(algorithm, told))),
        (None, Some(trailers)) => Ok(Some(BodyChecksum::InTrailers(trailers.clone(), headers::checksum_behind))),
        (None, None) => Ok(None),
    }
}

/// True if a creation brings the first bytes (tus 1.0.0, "Creation With Upload").
fn is_with_upload(asked: &HeaderMap) -> Result<bool, Refusal> {
    if headers::is_offset_stream(asked) {
        return Ok(true);
    }
    match content_length(asked) {
        None | Some(0) => Ok(false),
        Some(len) => {
            let facts =
                format!("a body of {len} bytes is there, whose Content-Type is not {}", headers::OFFSET_OCTET_STREAM);
            Err(Refusal::new(ErrorCode::Unsupported, facts))
        }
    }
}

/// A time as header fields tell it (RFC 9110, section 5.6.7).
fn http_date(when: SystemTime) -> String {
    httpdate::fmt_http_date(when)
}
