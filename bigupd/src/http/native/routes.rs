//! The native endpoint: the way of each request, and its response.

use crate::admission::access::Access;
use crate::admission::origins::{Effect, SharedHeaders};
use crate::admission::tokens::{Permission, redacted};
use crate::http::app::{App, Protocol, alive, last_unless};
use crate::http::body::{Body, RawBody, content_length, drain, is_form};
use crate::http::digest_fields::{check_content_coding, content_digest};
use crate::http::native::query::{QueryParams, ResponseForm, is_bundle};
use crate::http::native::words;
use crate::http::receive::{Expected, Received, check_sha256, receive, receive_zeroes};
use crate::http::request::Request;
use crate::metrics::Route;
use crate::net::min_rate::MinRate;
use crate::net::peer::Peer;
use crate::net::response::{Response, json};
use crate::refusal::Refusal;
use crate::uploads::request::BeginRequest;
use crate::uploads::{Admission, NameState, SliceRequest, SliceStored, SliceTarget, Unfinished};
use bigup_core::protocol::digest::{Digest, DigestKind, SliceDigest};
use bigup_core::protocol::name::FileName;
use bigup_core::protocol::native::{
    CancelResponse, ErrorCode, ListResponse, MAX_ZEROES, RightsResponse, SliceResponse, UploadResponse, param,
};
use bigup_core::protocol::ranges::SliceRanges;
use bigup_core::storage::spool::{Spool, UploadId};
use warp::http::header::{CONTENT_TYPE, HeaderMap, TRANSFER_ENCODING};
use warp::http::{Method, StatusCode};

/// The native protocol.
pub const NATIVE: Protocol = Protocol {
    words: words::response,
    shared_headers: SharedHeaders {
        request: "authorization, content-digest, content-type",
        response: "allow, retry-after, www-authenticate",
    },
};

/// Bytes of a digest in a response, with its kind, quotes and comma.
const DIGEST_LEN: u64 = 80;

/// The methods that there are.
const METHODS: &str = "GET, POST, DELETE, OPTIONS";

/// The parameter that makes a GET one that only looks ([`param::PEEK`]).
const PEEKS: &str = "peek=1";

/// Parameters of a request that only looks.
const LOOKING: [&str; 7] =
    [param::PEEK, param::FILE_NAME, param::SOURCE, param::RANGES, param::DIGESTS, param::WAIT, param::RIGHTS];

/// Answers a request to the native endpoint.
pub async fn native(app: App, request: Request) -> Response {
    let route = route_of(&request.method, &request.query);
    app.serve(&NATIVE, route, request, answer).await
}

fn rights(by: &Access) -> RightsResponse {
    let permissions = by.permissions().iter().map(Permission::to_string).collect();
    RightsResponse { status: 200, permissions, prefix: by.prefix().to_owned() }
}

/// The effect of a request, told by its parameters' names as they stand there.
fn does_of(method: &Method, query: &str) -> Effect {
    let names = || query.split('&').map(|pair| pair.split_once('=').map_or(pair, |(name, _)| name));
    let looks = route_of(method, query) == Route::Peek && names().all(|name| LOOKING.contains(&name));
    if looks { Effect::Looks } else { Effect::Changes }
}

/// The route by which a request is counted, also if it is refused.
fn route_of(method: &Method, query: &str) -> Route {
    match *method {
        Method::POST => Route::Slice,
        Method::GET if query.split('&').any(|pair| pair == PEEKS) => Route::Peek,
        Method::GET => Route::Begin,
        _ => Route::Other,
    }
}

async fn answer(app: App, request: Request) -> Response {
    let Request { method, headers, query, peer, body, .. } = request;
    log::debug!(peer = Peer::shown(peer); "{method} {}", redacted(&bigup_core::protocol::name::printable(&query)));
    if method == Method::POST {
        return match is_bundle(&query) {
            true => app.bundle(headers, peer, query, body).await,
            false => app.post(headers, peer, query, body).await,
        };
    }
    let does = does_of(&method, &query);
    let answer = match method {
        // Browsers ask by it whether a page may call, and send no token along.
        Method::OPTIONS => app.options(&NATIVE, &headers, METHODS),
        method => match app.enter(&headers, peer, does).await {
            Err(refusal) => Err(refusal),
            Ok(by) if method == Method::GET => app.get(by, peer, &query).await,
            Ok(by) if method == Method::DELETE => app.cancel(by, &query).await,
            Ok(_) => {
                let what = "GET asks and begins, POST sends a slice, DELETE cancels an upload";
                Err(Refusal::method(method.as_str(), what, METHODS))
            }
        },
    };
    app.answer_after(&headers, body, answer, &NATIVE).await
}

impl App {
    async fn get(&self, by: Access, peer: Option<Peer>, query: &str) -> Result<Response, Refusal> {
        let params = QueryParams::parse(query, by)?;
        if params.switch(param::PEEK)? {
            return self.peek(params).await;
        }
        let (peer, certificate) = (peer.and_then(Peer::ip), self.shown_name());
        let (ask, form) = (BeginRequest { peer, certificate, ..params.begin()? }, params.form()?);
        let standing = self.begin_and_wait(ask.clone(), form).await?;
        let held = held(&standing, ask.plan.slice_num);
        let size = self.responses.size_with(&held, form.ranges)?;
        self.responses.make(size, || upload_answer(&ask.name, &standing, held, form))
    }

    /// Begins or goes on, sees to a merger, and waits for the end if that was asked for and can be expected.
    async fn begin_and_wait(&self, ask: BeginRequest, form: ResponseForm) -> Result<NameState, Refusal> {
        let deadline = tokio::time::Instant::now() + form.wait;
        let (mut waited, waits) = (false, !form.wait.is_zero());
        loop {
            let mut some_end = std::pin::pin!(self.mergers.some_end());
            let (uploads, asked) = (self.uploads.clone(), ask.clone());
            let standing = self.blocking(move || {
                // If it was finished while we waited that must not begin another one, be it to replace this.
                if waited {
                    match uploads.peek(&asked.id, &asked.name, asked.source.as_deref())? {
                        Some(finished @ NameState::Finished { .. }) => return Ok(finished),
                        // To begin again would be to try again, and again.
                        Some(NameState::Unfinished(unfinished)) if unfinished.upload.blocked.is_some() => {
                            return Err(uploads.refusal_of_blocked(&unfinished.upload)?);
                        }
                        _ => {}
                    }
                }
                if waits { uploads.begin_and_wait(&asked) } else { uploads.begin(&asked) }
            });
            let standing = standing.await?;
            waited = true;
            let NameState::Unfinished(unfinished) = &standing else { return Ok(standing) };
            self.wakeup.tell();
            if unfinished.is_merger_due() {
                self.ensure_merger(&ask.id, &ask.name).await?;
            }
            if !unfinished.is_all_held() || unfinished.upload.needs_comparison() {
                return Ok(standing);
            }
            let spool = Spool::of(&self.uploads.data, &ask.id);
            let ends = self.some_end_of(&spool, some_end.as_mut(), deadline);
            if !alive(spool.clone(), ends).await {
                return Ok(standing);
            }
        }
    }

    async fn cancel(&self, by: Access, query: &str) -> Result<Response, Refusal> {
        let name = QueryParams::parse(query, by.clone())?.name_to_cancel()?;
        let uploads = self.uploads.clone();
        self.blocking(move || {
            let bytes_held = uploads.cancel(&UploadId::of_name(&name), &name, &by)?;
            log::info!(file_name = name.as_str(); "{name}: cancelled by a client");
            let file_name = name.as_str().to_owned();
            Ok(json(StatusCode::OK, &CancelResponse { file_name, status: 200, bytes_held }))
        })
        .await
    }

    async fn peek(&self, params: QueryParams) -> Result<Response, Refusal> {
        if params.switch(param::RIGHTS)? {
            return Ok(json(StatusCode::OK, &rights(params.by())));
        }
        let (uploads, responses) = (self.uploads.clone(), self.responses.clone());
        self.blocking(move || {
            if !params.has_file_name() {
                let by = params.by().clone();
                by.check(&[Permission::Read], None)?;
                let (uploads, size) = uploads.list(|name| by.sees(name))?;
                return responses.make(size, || ListResponse { status: 200, uploads });
            }
            let (name, form) = (params.name_to_show()?, params.form()?);
            let id = UploadId::of_name(&name);
            // A client that names a digest wants to know if it is this one.
            let source = params.source()?;
            let standing = match params.value::<Digest>(param::FILE_DIGEST)? {
                Some(_) => uploads.examine(&id, &name, source.as_deref())?,
                None => uploads.peek(&id, &name, source.as_deref())?,
            };
            // After it has shown its life by that look.
            if params.switch(param::LEAVE)? {
                uploads.leave(&UploadId::of_name(&params.name_to_push()?), source.as_deref())?;
            }
            let Some(standing) = standing else {
                let message = format!("nothing is known of {name}: neither an upload nor a finished file");
                return Err(Refusal::new(ErrorCode::NoUpload, message));
            };
            let digests = match (params.digests()?, &standing) {
                (Some((first, last)), NameState::Unfinished(_)) => Some(uploads.digests(&id, &name, first, last)?),
                _ => None,
            };
            let held = held(&standing, None);
            let size =
                responses.size_with(&held, form.ranges)? + digests.as_ref().map_or(0, |d| d.len() as u64 * DIGEST_LEN);
            responses.make(size, || {
                let shown =
                    |digests: Vec<Option<SliceDigest>>| digests.iter().map(|d| d.map(|d| d.to_string())).collect();
                UploadResponse { digests: digests.map(shown), ..upload_answer(&name, &standing, held, form) }
            })
        })
        .await
    }

    async fn post(&self, headers: HeaderMap, peer: Option<Peer>, query: String, body: RawBody) -> Response {
        // All that comes before the body at once, since each change of threads costs as much as most of it.
        let (app, asking) = (self.clone(), headers.clone());
        let asked = self.blocking(move || {
            let by = app.authenticator.enter(&asking, peer, app.certificate.as_ref(), Effect::Changes)?;
            let (mut ask, expected) = slice_ask(by, peer, &asking, &query)?;
            ask.begin.iter_mut().for_each(|begin| begin.certificate = app.shown_name());
            let admission = app.uploads.admit(&ask).inspect_err(|refusal| log_refused(&ask, refusal))?;
            Ok((ask, expected, admission))
        });
        let (ask, expected, target, kinds, offset) = match asked.await {
            Ok((ask, expected, Admission::Take { target, kinds, offset })) => (ask, expected, target, kinds, offset),
            Ok((ask, _, Admission::Held(digest))) => {
                let at_end = self.drain_unless_waiting(&headers, body).await;
                return last_unless(at_end, self.held(&ask, digest).await);
            }
            Err(refusal) => return self.answer_after(&headers, body, Err(refusal), &NATIVE).await,
        };
        let _arriving = self.metrics().slice_arrives();
        if expected.form_sha256.is_some() {
            body.digest();
        }
        let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let received = if expected.is_zeroes {
            receive_zeroes(target, &kinds, offset, &expected, &self.thread_share).await
        } else {
            self.receive(body.clone(), content_type, target, &kinds, offset, &expected).await
        };
        // The rest of the body, if any: an epilogue of a form, or the bytes after a mistake. Of a body that stalled
        // nothing is left.
        let stalled = matches!(&received, Err(refusal) if refusal.code == ErrorCode::Timeout);
        let at_end = !stalled && drain(body.clone(), self.drain_limit(), self.body_timeout()).await;
        let stored = match received.and_then(|received| check_form(&expected, &body, at_end).map(|()| received)) {
            Ok(received) => {
                let (uploads, asked) = (self.uploads.clone(), ask.clone());
                let storing = self.blocking(move || {
                    let (target, digests) = received.finish()?;
                    uploads.commit(&asked, target, &digests)
                });
                alive(Spool::of(&self.uploads.data, &ask.id), storing).await
            }
            Err(refusal) => Err(refusal),
        };
        let response = match stored {
            Ok(stored) => self.stored(&ask, stored).await,
            Err(refusal) => {
                log_refused(&ask, &refusal);
                words::response(&refusal)
            }
        };
        last_unless(at_end, response)
    }

    async fn receive(
        &self,
        raw: RawBody,
        content_type: Option<&str>,
        target: SliceTarget,
        kinds: &[DigestKind],
        offset: u64,
        expected: &Expected,
    ) -> Result<Received, Refusal> {
        let mut body = Body::new(raw, content_type, self.body_timeout()).await?;
        let pace = MinRate::new(&self.settings.limits);
        let received = receive(&mut body, target, kinds, offset, expected, pace, &self.thread_share).await?;
        body.finish(self.body_timeout()).await?;
        Ok(received)
    }

    /// True if the slice is a whole file, and more such files may come as bundles.
    fn takes_more_as(&self, ask: &SliceRequest) -> bool {
        let is_whole = ask.begin.as_ref().is_some_and(|begin| begin.plan.slice_num == Some(1));
        is_whole && self.uploads.takes_bundles()
    }

    async fn stored(&self, ask: &SliceRequest, stored: SliceStored) -> Response {
        log_stored(ask);
        let mut answer = SliceResponse { bundles: self.takes_more_as(ask), ..slice_answer(ask) };
        match stored {
            SliceStored::Finished(digest) => {
                answer.is_uploaded = 1;
                answer.file_digest = Some(digest.to_string());
            }
            SliceStored::MergerDue(name) => {
                // The slice is stored whether or not a merger can be started; the sweep tries again.
                let _ = self.ensure_merger(&UploadId::of_name(&name), &name).await;
            }
            SliceStored::Held => return self.held(ask, None).await,
            SliceStored::Waits => self.wait_for_merging(ask).await,
        }
        json(StatusCode::OK, &answer)
    }

    /// A slice that was there already. It may be one whose upload waits for a merger, the last attempt having failed.
    async fn held(&self, ask: &SliceRequest, finished: Option<Digest>) -> Response {
        let mut answer = SliceResponse { held: true, bundles: self.takes_more_as(ask), ..slice_answer(ask) };
        if let Some(digest) = finished {
            answer.is_uploaded = 1;
            answer.file_digest = Some(digest.to_string());
            return json(StatusCode::OK, &answer);
        }
        let (app, id, name) = (self.clone(), ask.id.clone(), ask.name.clone());
        let due = self.blocking(move || {
            let standing = app.uploads.peek(&id, &name, None)?;
            Ok(matches!(standing, Some(NameState::Unfinished(unfinished)) if unfinished.is_merger_due()))
        });
        if due.await.unwrap_or(false) {
            let _ = self.ensure_merger(&ask.id, &ask.name).await;
        }
        json(StatusCode::OK, &answer)
    }
}

pub(super) fn log_stored(ask: &SliceRequest) {
    let (upload, slice, peer) = (ask.name.as_str(), ask.slice_id, Peer::shown(ask.peer));
    log::debug!(upload, slice, peer; "{}: slice {} stored, {} bytes", ask.name, ask.slice_id, ask.len);
}

pub(super) fn log_refused(ask: &SliceRequest, refusal: &Refusal) {
    let (upload, slice, peer) = (ask.name.as_str(), ask.slice_id, Peer::shown(ask.peer));
    log::debug!(upload, slice, peer; "{}: slice {} refused: {}", ask.name, ask.slice_id, words::of(refusal));
}

pub(super) fn slice_answer(ask: &SliceRequest) -> SliceResponse {
    let file_name = ask.name.as_str().to_owned();
    SliceResponse { file_name, slice_id: ask.slice_id, status: 200, ..SliceResponse::default() }
}

/// The request of a POST, and the rules for its body.
pub(super) fn slice_ask(
    by: Access,
    peer: Option<Peer>,
    headers: &HeaderMap,
    query: &str,
) -> Result<(SliceRequest, Expected), Refusal> {
    let params = QueryParams::parse(query, by)?;
    let name = params.name_to_push()?;
    let slice_id = params.needed_number(param::SLICE_ID)?;
    let len = params.needed_number(param::SLICE_SIZE)?;
    let is_zeroes = params.switch(param::ZEROES)?;
    if is_zeroes {
        check_zeroes(headers, len)?;
    } else {
        check_content_length(headers, len)?;
    }
    let digest: Option<SliceDigest> = params.value(param::SLICE_DIGEST)?;
    let begin = match params.number(param::SLICE_NUM)? {
        Some(_) => Some(BeginRequest { peer: peer.and_then(Peer::ip), ..params.begin_with_slice(slice_id, len)? }),
        None => None,
    };
    check_content_coding(headers)?;
    let digested = content_digest(headers)?;
    let (sha256, form_sha256) = if is_form(headers) { (None, digested) } else { (digested, None) };
    let (offset, source) = (params.number(param::OFFSET)?, params.source()?);
    // Of the other slices only the upload tells.
    if let Some(offset) = offset.filter(|offset| slice_id == 0 && *offset != 0) {
        let message = format!("slice 0 begins at byte 0 of any file, not at {offset}");
        return Err(Refusal::new(ErrorCode::Conflict, message));
    }
    let (by, id) = (params.by().clone(), UploadId::of_name(&name));
    let ask = SliceRequest { by, peer, id, name, slice_id, len, digest, offset, source, begin };
    Ok((ask, Expected { slice_id, len, is_zeroes, sha256, form_sha256 }))
}

/// Refuses a form that was read to its end, if `at_end`, and is not the one whose digest was told.
fn check_form(expected: &Expected, body: &RawBody, at_end: bool) -> Result<(), Refusal> {
    if expected.form_sha256.is_some() && !at_end {
        let message =
            format!("slice {}: the form does not end, so that its digest cannot be checked", expected.slice_id);
        return Err(Refusal::new(ErrorCode::BadRequest, message));
    }
    check_sha256(expected.slice_id, expected.form_sha256, body.sha256())
}

/// Refuses a body beside a slice of `len` zeroes, and too many of these.
fn check_zeroes(headers: &HeaderMap, len: u64) -> Result<(), Refusal> {
    if headers.contains_key(TRANSFER_ENCODING) || content_length(headers).is_some_and(|len| len > 0) {
        let body = content_length(headers)
            .map_or_else(|| "a length that is not told".to_owned(), |len| format!("{len} bytes"));
        let message = format!("zeroes=1 means that the body is empty, but it has {body}: send the one or the other");
        return Err(Refusal::new(ErrorCode::BadRequest, message));
    }
    if headers.contains_key("content-digest") {
        let message = "Content-Digest is the digest of an empty body where zeroes=1: send slice_digest";
        return Err(Refusal::new(ErrorCode::BadRequest, message));
    }
    if len > MAX_ZEROES {
        let message = format!("{len} zeroes are too many without a body, at most {MAX_ZEROES}: send them as the body");
        return Err(Refusal::new(ErrorCode::TooLarge, message));
    }
    Ok(())
}

/// A raw body's length is told twice; they must agree. That of a form says nothing of its field's.
fn check_content_length(headers: &HeaderMap, len: u64) -> Result<(), Refusal> {
    match content_length(headers) {
        Some(content_length) if !is_form(headers) && content_length != len => {
            let message = format!("slice_size is {len}, but the body has {content_length} bytes");
            Err(Refusal::new(ErrorCode::BadRequest, message))
        }
        _ => Ok(()),
    }
}

/// The slices held of an upload. `asked_num` is how many the asker has in mind, for files that are finished.
fn held(standing: &NameState, asked_num: Option<u64>) -> SliceRanges {
    match standing {
        NameState::Finished { .. } => SliceRanges::up_to(asked_num.unwrap_or(0)),
        NameState::Unfinished(unfinished) => unfinished.holdings.ranges(),
    }
}

/// The response to a GET.
fn upload_answer(name: &FileName, standing: &NameState, held: SliceRanges, form: ResponseForm) -> UploadResponse {
    let mut answer = UploadResponse { file_name: name.as_str().to_owned(), status: 200, ..UploadResponse::default() };
    match standing {
        NameState::Finished { file_size, digest, same_source } => {
            answer.is_uploaded = 1;
            answer.file_size = Some(*file_size);
            answer.file_digest = digest.map(|d| d.to_string());
            answer.same_source = *same_source;
        }
        NameState::Unfinished(unfinished) => describe(&mut answer, unfinished),
    }
    if form.ranges {
        answer.slice_ranges_uploaded = Some(held);
    } else {
        answer.slice_ids_uploaded = Some(held.iter().collect());
    }
    answer
}

fn describe(answer: &mut UploadResponse, unfinished: &Unfinished) {
    let Unfinished { upload, holdings } = unfinished;
    answer.slice_num = upload.plan.slice_num;
    answer.slice_size = upload.plan.slice_size;
    answer.file_size = upload.plan.file_size;
    answer.curr_merge_slice_id = Some(holdings.frontier);
    answer.compare = upload.needs_comparison();
    answer.last_error = upload.problem().map(str::to_owned);
    answer.paused = upload.paused;
    answer.zeroes = true;
}
