//! The endpoints: the way of each request, and its response.
//!
//! A refusal is a response made here, not a rejection of warp's, which would mean "perhaps another route". Every
//! response to a request with a body is given after the body was read or drained: a client that writes all of it before
//! it reads gets to read the response. If it waits for "100 Continue" (RFC 9110, section 10.1.1), none of the body is
//! read.

use crate::admission::access::{Access, Authenticator};
use crate::admission::origins::Effect;
use crate::admission::thread_shares::{ShareOwner, ThreadShare, ThreadShares};
use crate::admission::tokens::{Permission, redacted, uses};
use crate::http::body::{Body, MAX_FORM_OVERHEAD, RawBody, drain, is_form, raw_body};
use crate::http::native::query::{QueryParams, ResponseForm};
use crate::http::native::words;
use crate::http::probes::{ALLOWED, Probe, Probes, question};
use crate::http::receive::{Expected, Received, check_sha256, parse_content_digest, receive};
use crate::http::response_budget::ResponseBudget;
use crate::http::timing;
use crate::mergers::Mergers;
use crate::metrics::{Metrics, Route};
use crate::net::client_certificate::ClientCertificate;
use crate::net::connection_slots::{ConnectionSlot, ConnectionSlots};
use crate::net::limits::Limits;
use crate::net::min_rate::MinRate;
use crate::net::peer::Peer;
use crate::net::response::{Response, json};
use crate::refusal::Refusal;
use crate::upkeep::reconcile::Wakeup;
use crate::uploads::request::BeginRequest;
use crate::uploads::{Admission, NameState, SliceRequest, SliceStored, SliceTarget, Unfinished, Uploads};
use bigup_core::protocol::digest::{Digest, DigestKind, SliceDigest};
use bigup_core::protocol::name::FileName;
use bigup_core::protocol::native::{ErrorCode, ListResponse, PATH, SliceResponse, UploadResponse, param};
use bigup_core::protocol::ranges::SliceRanges;
use bigup_core::storage::spool::{Spool, UploadId};
use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use warp::Filter;
use warp::http::header::{
    CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, HeaderMap, HeaderName, HeaderValue,
};
use warp::http::{Method, StatusCode};

/// Content-Digest (RFC 9530).
const CONTENT_DIGEST: HeaderName = HeaderName::from_static("content-digest");

/// Bytes of a digest in a response, with its kind, quotes and comma.
const DIGEST_LEN: u64 = 80;

/// The methods that there are.
const METHODS: &str = "GET, POST, OPTIONS";

/// The parameter that makes a GET one that only looks ([`param::PEEK`]).
const PEEKS: &str = "peek=1";

/// Parameters of a request that only looks.
const LOOKING: [&str; 6] = [param::PEEK, param::FILE_NAME, param::SOURCE, param::RANGES, param::DIGESTS, param::WAIT];
/// Time between two notes that a client is heard of whose request is at work.
const SIGN_OF_LIFE_EVERY: Duration = Duration::from_secs(1);

/// Time between two checks for the end of an upload that a merger of another daemon may be finishing.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// Most bytes, and slices where that is more, that merging may lie behind. A merger copies and syncs them in a moment,
/// so that the file is finished a moment after its last slice, however large it is. A client that sends faster than
/// slices are merged waits for the response.
const MAX_LAG: (u64, u64) = (64 << 20, 8);

/// Longest time that a response waits for merging, and the time between two checks. Slices go on whatever is the matter
/// with the merger.
const LAG_PATIENCE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_millis(10));

/// Treatment of requests.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Limits on slow bodies, and the clients for whom proxies may ask.
    pub limits: Limits,
    /// True if monitors of the daemon have a socket of their own, and get responses nowhere else.
    pub has_metrics_listener: bool,
}

/// The state that handlers work on.
#[derive(Clone)]
pub struct App {
    authenticator: Arc<Authenticator>,
    settings: Arc<Settings>,
    uploads: Uploads,
    mergers: Mergers,
    responses: ResponseBudget,
    wakeup: Wakeup,
    probes: Probes,
    /// Clients for whom trusted proxies ask, each request being a connection of theirs.
    visitors: ConnectionSlots,
    stopping: watch::Receiver<bool>,
    thread_shares: ThreadShares,
    /// The share of the sender of the request at hand.
    thread_share: ThreadShare,
    /// The certificate that they showed in the handshake. `None` if there is none, or it is a proxy's.
    certificate: Option<ClientCertificate>,
}

impl App {
    /// Handlers over `uploads`, with `mergers` to start. `wakeup` learns of uploads that begin, `probes` answers
    /// monitors, and `authenticator` tells the permissions of the asker. Once `stopping` is true no request is kept
    /// waiting.
    pub fn new(
        uploads: Uploads,
        mergers: Mergers,
        wakeup: Wakeup,
        probes: Probes,
        authenticator: Authenticator,
        settings: Settings,
        stopping: watch::Receiver<bool>,
    ) -> App {
        let (authenticator, settings) = (Arc::new(authenticator), Arc::new(settings));
        let responses = ResponseBudget::new(uploads.settings.response_size);
        let visitors = ConnectionSlots::new(&Limits { connections: u64::MAX, ..settings.limits.clone() });
        let thread_shares = ThreadShares::default();
        let thread_share = thread_shares.of(ShareOwner::Unknown);
        App {
            authenticator,
            settings,
            uploads,
            mergers,
            responses,
            wakeup,
            probes,
            visitors,
            stopping,
            thread_shares,
            thread_share,
            certificate: None,
        }
    }
}

impl App {
    /// Uses of the tokens that let clients in.
    pub fn token_uses(&self) -> uses::TokenUses {
        self.authenticator.uses.clone()
    }

    /// The same for a request with these headers: blocking work is done on the share of its sender.
    fn for_request(self, headers: &HeaderMap, peer: Option<Peer>) -> App {
        let thread_share = self.thread_shares.of(self.authenticator.whose(headers, ip_of(peer)));
        // A client for whom a proxy asks has shown nothing to us.
        let certificate = self.certificate.filter(|_| Peer::shows_its_own(peer));
        App { thread_share, certificate, ..self }
    }

    /// The name in the certificate that was shown.
    fn shown_name(&self) -> Option<String> {
        self.certificate.as_ref().map(|certificate| certificate.name().to_owned())
    }

    /// Runs work that blocks on the disk where it may block.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        self.thread_share.run(work).await.unwrap_or_else(|e| Err(std::io::Error::other(e).into()))
    }
}

/// A request as it came, its body unread.
struct Request {
    method: Method,
    headers: HeaderMap,
    /// The text behind the question mark; empty if there is none.
    query: String,
    /// The peer of the connection it came by; `None` if it is not known.
    peer: Option<Peer>,
    body: RawBody,
}

impl Request {
    fn new(method: Method, headers: HeaderMap, query: String, peer: Option<Peer>, body: RawBody) -> Request {
        Request { method, headers, query, peer, body }
    }
}

/// All routes of the daemon.
pub fn routes(app: App) -> impl Filter<Extract = (Response,), Error = Infallible> + Clone {
    let with_app = warp::ext::optional().map(move |certificate| App { certificate, ..app.clone() });
    let query = warp::query::raw().or(warp::any().map(String::new)).unify();
    let body = warp::body::stream().map(raw_body);
    let head = warp::method().and(warp::header::headers_cloned()).and(query).and(warp::ext::optional());
    let request = head.and(body).map(Request::new);
    let native = warp::path(PATH).and(warp::path::end()).and(with_app.clone()).and(request).then(native);
    let other = with_app.and(question()).and(request).then(elsewhere);
    native.or(other).unify().recover(never).unify()
}

/// Every request matches one of the two routes; requests that warp itself refuses come here.
async fn never(rejection: warp::Rejection) -> Result<Response, Infallible> {
    log::debug!("refused by warp: {rejection:?}");
    Ok(Refusal::new(ErrorCode::BadRequest, "the request cannot be read").response())
}

async fn elsewhere(app: App, question: Option<Probe>, request: Request) -> Response {
    let Request { method, headers, peer, body, .. } = request;
    let app = app.for_request(&headers, peer);
    let route = question.map_or(Route::Other, Probe::route);
    let sharing = app.authenticator.origins().sharing(&headers);
    let answering = async {
        let answer = match question {
            Some(_) if method == Method::OPTIONS => app.authenticator.origins().options(&headers, ALLOWED),
            Some(question) => app.tell(question, &method, &headers, peer).await,
            None => Err(nothing_here()),
        };
        app.answer_after(&headers, body, answer).await
    };
    sharing.told_in(timing::time(app.metrics(), route, answering).await)
}

fn nothing_here() -> Refusal {
    Refusal::new(ErrorCode::NotFound, format!("there is nothing here; uploads go to /{PATH}"))
}

/// Says that the connection is closed after this answer, unless its request's body was read to the end: hyper closes it
/// then, and its client is not to send another request (RFC 9112, section 9.6).
fn last_unless(at_end: bool, mut response: Response) -> Response {
    if !at_end {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

async fn native(app: App, request: Request) -> Response {
    let (route, metrics) = (route_of(&request.method, &request.query), app.metrics().clone());
    let sharing = app.authenticator.origins().sharing(&request.headers);
    let answering = async {
        match app.visitor(request.peer, &request.headers) {
            Ok((peer, _seat)) => {
                let app = app.for_request(&request.headers, peer);
                answer(app, Request { peer, ..request }).await
            }
            Err(refusal) => app.answer_after(&request.headers, request.body, Err(refusal)).await,
        }
    };
    sharing.told_in(timing::time(&metrics, route, answering).await)
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
    let Request { method, headers, query, peer, body } = request;
    log::debug!(peer = Peer::shown(peer); "{method} {}", redacted(&bigup_core::protocol::name::printable(&query)));
    if method == Method::POST {
        return app.post(headers, peer, query, body).await;
    }
    let does = does_of(&method, &query);
    let answer = match method {
        // Browsers ask by it whether a page may call, and send no token along.
        Method::OPTIONS => app.authenticator.origins().options(&headers, METHODS),
        method => match app.enter(&headers, peer, does).await {
            Err(refusal) => Err(refusal),
            Ok(by) if method == Method::GET => app.get(by, peer, &query).await,
            Ok(_) => Err(Refusal::method(method.as_str(), "GET asks and begins, POST sends a slice", METHODS)),
        },
    };
    app.answer_after(&headers, body, answer).await
}

impl App {
    /// The permissions of the sender of a request, before anything else of it is looked at.
    async fn enter(&self, headers: &HeaderMap, peer: Option<Peer>, does: Effect) -> Result<Access, Refusal> {
        let (authenticator, headers, certificate) =
            (Arc::clone(&self.authenticator), headers.clone(), self.certificate.clone());
        self.blocking(move || authenticator.enter(&headers, peer, certificate.as_ref(), does)).await
    }

    /// The sender of a request that came by a connection of `peer`, and its connection slot if `peer` is a proxy that
    /// tells.
    fn visitor(
        &self,
        peer: Option<Peer>,
        headers: &HeaderMap,
    ) -> Result<(Option<Peer>, Option<ConnectionSlot>), Refusal> {
        let Some(peer) = peer else { return Ok((None, None)) };
        match self.settings.limits.trusted_proxies.sender(peer, headers)? {
            Peer::Forwarded(ip) => Ok((Some(Peer::Forwarded(ip)), Some(self.visitors.take(ip)?))),
            peer => Ok((Some(peer), None)),
        }
    }

    fn metrics(&self) -> &Metrics {
        &self.uploads.metrics
    }

    /// Responds to a monitor of the daemon. Everybody may ask for its health; its counts are of all uploads.
    async fn tell(
        &self,
        question: Probe,
        method: &Method,
        headers: &HeaderMap,
        peer: Option<Peer>,
    ) -> Result<Response, Refusal> {
        if question == Probe::Metrics {
            if self.settings.has_metrics_listener {
                return Err(nothing_here());
            }
            let (peer, _seat) = self.visitor(peer, headers)?;
            self.enter(headers, peer, Effect::Looks).await?.check_reads_all()?;
        }
        self.probes.answer(question, method).await
    }

    fn drain_limit(&self) -> u64 {
        self.uploads.settings.slice_size + MAX_FORM_OVERHEAD
    }

    fn body_timeout(&self) -> Duration {
        self.settings.limits.body_timeout
    }

    /// Gets rid of a body that is not wanted, unless its client waits to be told to send it. True if it is gone.
    async fn drain_unless_waiting(&self, headers: &HeaderMap, body: RawBody) -> bool {
        !headers.contains_key(EXPECT) && drain(body, self.drain_limit(), self.body_timeout()).await
    }

    /// The reply to a request whose body is not wanted, given once that is gone.
    async fn answer_after(&self, headers: &HeaderMap, body: RawBody, answer: Result<Response, Refusal>) -> Response {
        let at_end = self.drain_unless_waiting(headers, body).await;
        last_unless(at_end, answer.unwrap_or_else(|refusal| words::response(&refusal)))
    }

    async fn get(&self, by: Access, peer: Option<Peer>, query: &str) -> Result<Response, Refusal> {
        let params = QueryParams::parse(query, by)?;
        if params.switch(param::PEEK)? {
            return self.peek(params).await;
        }
        let (peer, certificate) = (ip_of(peer), self.shown_name());
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
            let ends = async {
                loop {
                    if tokio::time::Instant::now() >= deadline || *self.stopping.borrow() {
                        return false;
                    }
                    // Ends early with any merger of ours; looks by itself for those of other daemons.
                    let next = deadline.min(tokio::time::Instant::now() + LOOK_AGAIN);
                    let ended = tokio::time::timeout_at(next, some_end.as_mut()).await.is_ok();
                    if ended || !spool.path().exists() {
                        return true;
                    }
                }
            };
            if !alive(spool.clone(), ends).await {
                return Ok(standing);
            }
        }
    }

    async fn ensure_merger(&self, id: &UploadId, name: &FileName) -> Result<(), Refusal> {
        // On this runtime, since it starts a process and a task that waits for it.
        let (mergers, id, name) = (self.mergers.clone(), id.clone(), name.clone());
        self.blocking(move || {
            mergers.ensure(&id, &name);
            Ok(())
        })
        .await
    }

    async fn peek(&self, params: QueryParams) -> Result<Response, Refusal> {
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
            Err(refusal) => return self.answer_after(&headers, body, Err(refusal)).await,
        };
        let _arriving = self.metrics().slice_arrives();
        if expected.form_sha256.is_some() {
            body.digest();
        }
        let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let received = self.receive(body.clone(), content_type, target, &kinds, offset, &expected).await;
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

    async fn stored(&self, ask: &SliceRequest, stored: SliceStored) -> Response {
        let (upload, slice, peer) = (ask.name.as_str(), ask.slice_id, Peer::shown(ask.peer));
        log::debug!(upload, slice, peer; "{}: slice {} stored, {} bytes", ask.name, ask.slice_id, ask.len);
        let mut answer = slice_answer(ask);
        match stored {
            SliceStored::Finished(digest) => {
                answer.is_uploaded = 1;
                answer.file_digest = Some(digest.to_string());
            }
            SliceStored::MergerDue => {
                // The slice is stored whether or not a merger can be started; the sweep tries again.
                let _ = self.ensure_merger(&ask.id, &ask.name).await;
            }
            SliceStored::Held => return self.held(ask, None).await,
            SliceStored::Waits => self.wait_for_merging(ask).await,
        }
        json(StatusCode::OK, &answer)
    }

    /// Waits until merging is not too far behind a slice, for a while.
    async fn wait_for_merging(&self, ask: &SliceRequest) {
        let deadline = tokio::time::Instant::now() + LAG_PATIENCE.0;
        let most = MAX_LAG.0.max(ask.len.saturating_mul(MAX_LAG.1));
        loop {
            let (uploads, id, slice_id) = (self.uploads.clone(), ask.id.clone(), ask.slice_id);
            // A lag that cannot be told keeps nobody waiting.
            let lag = self.blocking(move || uploads.lag(&id, slice_id)).await.unwrap_or(0);
            if lag <= most || *self.stopping.borrow() || tokio::time::Instant::now() >= deadline {
                return;
            }
            tokio::time::sleep(LAG_PATIENCE.1).await;
        }
    }

    /// A slice that was there already. It may be one whose upload waits for a merger, the last attempt having failed.
    async fn held(&self, ask: &SliceRequest, finished: Option<Digest>) -> Response {
        let mut answer = SliceResponse { held: true, ..slice_answer(ask) };
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

/// Waits for `work` on a request of the client whose upload is in `spool`: meanwhile it is heard of.
async fn alive<T>(spool: Spool, work: impl Future<Output = T>) -> T {
    let mut work = std::pin::pin!(work);
    let mut last: Option<JoinHandle<_>> = None;
    loop {
        match tokio::time::timeout(SIGN_OF_LIFE_EVERY, work.as_mut()).await {
            Ok(done) => return done,
            // While the disk hangs one thread is enough.
            Err(_) if last.as_ref().is_none_or(JoinHandle::is_finished) => {
                let spool = spool.clone();
                // A file of one request has no spool.
                last = Some(tokio::task::spawn_blocking(move || spool.sign_of_life()));
            }
            Err(_) => {}
        }
    }
}

fn log_refused(ask: &SliceRequest, refusal: &Refusal) {
    let (upload, slice, peer) = (ask.name.as_str(), ask.slice_id, Peer::shown(ask.peer));
    log::debug!(upload, slice, peer; "{}: slice {} refused: {}", ask.name, ask.slice_id, words::of(refusal));
}

fn slice_answer(ask: &SliceRequest) -> SliceResponse {
    let file_name = ask.name.as_str().to_owned();
    SliceResponse { file_name, slice_id: ask.slice_id, status: 200, ..SliceResponse::default() }
}

fn ip_of(peer: Option<Peer>) -> Option<IpAddr> {
    peer.and_then(Peer::ip)
}

/// The request of a POST, and the rules for its body.
fn slice_ask(
    by: Access,
    peer: Option<Peer>,
    headers: &HeaderMap,
    query: &str,
) -> Result<(SliceRequest, Expected), Refusal> {
    let params = QueryParams::parse(query, by)?;
    let name = params.name_to_push()?;
    let slice_id = params.needed_number(param::SLICE_ID)?;
    let len = params.needed_number(param::SLICE_SIZE)?;
    check_content_length(headers, len)?;
    let digest: Option<SliceDigest> = params.value(param::SLICE_DIGEST)?;
    let begin = match params.number(param::SLICE_NUM)? {
        Some(_) => Some(BeginRequest { peer: ip_of(peer), ..params.begin_with_slice(slice_id, len)? }),
        None => None,
    };
    check_content_coding(headers)?;
    let digested = content_digest(headers)?;
    let (sha256, form_sha256) = if is_form(headers) { (None, digested) } else { (digested, None) };
    let (offset, source) = (params.number(param::OFFSET)?, params.source()?);
    let (by, id) = (params.by().clone(), UploadId::of_name(&name));
    let ask = SliceRequest { by, peer, id, name, slice_id, len, digest, offset, source, begin };
    Ok((ask, Expected { slice_id, len, sha256, form_sha256 }))
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

/// The SHA-256 that a body must have. All lines of the header count (RFC 9110, section 5.3).
fn content_digest(headers: &HeaderMap) -> Result<Option<[u8; 32]>, Refusal> {
    let lines = headers.get_all(CONTENT_DIGEST).iter().map(|value| value.to_str().unwrap_or("sha-256="));
    parse_content_digest(&lines.collect::<Vec<_>>().join(","))
}

/// A coded body would be stored as it is, which nobody means.
fn check_content_coding(headers: &HeaderMap) -> Result<(), Refusal> {
    let lines = headers.get_all(CONTENT_ENCODING).iter().map(|value| value.to_str().unwrap_or("unknown"));
    let coding = lines.flat_map(|line| line.split(',')).map(str::trim);
    match coding.filter(|coding| !coding.is_empty()).find(|coding| !coding.eq_ignore_ascii_case("identity")) {
        None => Ok(()),
        Some(coding) => {
            let coding = bigup_core::protocol::name::quoted(coding);
            let message = format!("Content-Encoding {coding} is not spoken here: send the slice's own bytes");
            Err(Refusal::new(ErrorCode::Unsupported, message))
        }
    }
}

/// A raw body's length is told twice; they must agree. That of a form says nothing of its field's.
fn check_content_length(headers: &HeaderMap, len: u64) -> Result<(), Refusal> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    match text(CONTENT_LENGTH).and_then(bigup_core::protocol::units::parse_u64) {
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
}
