//! The state that all protocols work on, and the treatment that is the same for each of their requests: the sender's
//! rights, its share of blocking threads, the rest of a body, and the count.

use crate::admission::access::{Access, Authenticator};
use crate::admission::origins::{CorsHeaders, Effect, SharedHeaders};
use crate::admission::thread_shares::{ShareOwner, ThreadShare, ThreadShares};
use crate::admission::tokens::uses;
use crate::http::body::{MAX_FORM_OVERHEAD, RawBody, drain};
use crate::http::page::site::Site;
use crate::http::probes::Probes;
use crate::http::request::Request;
use crate::http::response_budget::ResponseBudget;
use crate::http::timing;
use crate::mergers::Mergers;
use crate::metrics::{Metrics, Route};
use crate::net::client_certificate::ClientCertificate;
use crate::net::connection_slots::{ConnectionSlot, ConnectionSlots};
use crate::net::limits::Limits;
use crate::net::peer::Peer;
use crate::net::response::Response;
use crate::refusal::Refusal;
use crate::upkeep::expiry::ExpiryTimes;
use crate::upkeep::reconcile::Wakeup;
use crate::uploads::Uploads;
use bigup_core::protocol::name::FileName;
use bigup_core::storage::spool::{Spool, UploadId};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use warp::http::header::{CONNECTION, EXPECT, HeaderMap, HeaderValue};

/// Time between two notes that a client is heard of whose request is at work.
const SIGN_OF_LIFE_EVERY: Duration = Duration::from_secs(1);

/// Groups of files of bundles that are stored at once, of all bundles: their files are open beside those of the connections.
const BUNDLE_GROUPS: usize = 4;

/// A protocol, as far as each of its requests is treated like those of others.
#[derive(Debug)]
pub struct Protocol {
    /// The response to a refused request, in its words.
    pub words: fn(&Refusal) -> Response,
    /// The header fields that web pages need.
    pub shared_headers: SharedHeaders,
}

/// Treatment of requests.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Limits on slow bodies, and the clients for whom proxies may ask.
    pub limits: Limits,
    /// Time after which an unfinished upload goes if nothing of it comes, and the same if nothing has come at all.
    /// `None`: never.
    pub expiry: ExpiryTimes,
    /// True if monitors of the daemon have a socket of their own, and get responses nowhere else.
    pub has_metrics_listener: bool,
    /// The page for browsers.
    pub page: Site,
}

/// The state that handlers work on.
#[derive(Clone)]
pub struct App {
    pub(super) authenticator: Arc<Authenticator>,
    pub(super) settings: Arc<Settings>,
    pub(super) uploads: Uploads,
    pub(super) mergers: Mergers,
    pub(super) responses: ResponseBudget,
    pub(super) wakeup: Wakeup,
    pub(super) probes: Probes,
    /// Clients for whom trusted proxies ask, each request being a connection of theirs.
    visitors: ConnectionSlots,
    pub(super) stopping: watch::Receiver<bool>,
    thread_shares: ThreadShares,
    /// A permit for each group of files of bundles that may be stored now.
    pub(super) bundle_turns: Arc<Semaphore>,
    /// The share of the sender of the request at hand.
    pub(super) thread_share: ThreadShare,
    /// The connection slot of the request at hand, if a trusted proxy asks for its sender. A response that is sent piece
    /// by piece keeps it.
    _visitor: Option<Arc<ConnectionSlot>>,
    /// The certificate that they showed in the handshake. `None` if there is none, or it is a proxy's.
    pub(super) certificate: Option<ClientCertificate>,
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
            bundle_turns: Arc::new(Semaphore::new(BUNDLE_GROUPS)),
            thread_share,
            _visitor: None,
            certificate: None,
        }
    }
}

impl App {
    /// Uses of the tokens that let clients in.
    pub fn token_uses(&self) -> uses::TokenUses {
        self.authenticator.uses.clone()
    }

    /// The same for requests by a connection in whose handshake `certificate` was shown.
    pub(super) fn of_connection(self, certificate: Option<ClientCertificate>) -> App {
        App { certificate, ..self }
    }

    /// The same for a request with these headers: blocking work is done on the share of its sender.
    pub(super) fn for_request(self, headers: &HeaderMap, peer: Option<Peer>) -> App {
        let thread_share = self.thread_shares.of(self.authenticator.whose(headers, peer.and_then(Peer::ip)));
        // A client for whom a proxy asks has shown nothing to us.
        let certificate = self.certificate.filter(|_| Peer::shows_its_own(peer));
        App { thread_share, certificate, ..self }
    }

    /// The name in the certificate that was shown.
    pub(super) fn shown_name(&self) -> Option<String> {
        self.certificate.as_ref().map(|certificate| certificate.name().to_owned())
    }

    /// Runs work that blocks on the disk where it may block.
    pub(super) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        self.thread_share.run(work).await.unwrap_or_else(|e| Err(std::io::Error::other(e).into()))
    }
}

impl App {
    /// Answers a request by `answer`, once its sender is known; the response goes with what pages of others may read of it,
    /// and is counted as of `route`.
    pub(super) async fn serve(
        self,
        protocol: &'static Protocol,
        route: Route,
        request: Request,
        answer: impl AsyncFnOnce(App, Request) -> Response,
    ) -> Response {
        let (metrics, sharing) = (self.metrics().clone(), self.sharing(protocol, &request.headers));
        // In a box: it goes from hand to hand, and each would reserve memory for it.
        let answering = Box::pin(async {
            match self.visitor(request.peer, &request.headers) {
                Ok((peer, slot)) => {
                    let app = App { _visitor: slot.map(Arc::new), ..self.for_request(&request.headers, peer) };
                    answer(app, Request { peer, ..request }).await
                }
                Err(refusal) => self.answer_after(&request.headers, request.body, Err(refusal), protocol).await,
            }
        });
        sharing.told_in(timing::time(&metrics, route, answering).await)
    }

    /// Headers that tell a browser which pages can read the response to a request with these headers.
    pub(super) fn sharing(&self, protocol: &Protocol, headers: &HeaderMap) -> CorsHeaders {
        self.authenticator.origins().sharing(headers, protocol.shared_headers)
    }

    /// The response to OPTIONS, where `allow` are the methods there are.
    pub(super) fn options(
        &self,
        protocol: &Protocol,
        headers: &HeaderMap,
        allow: &'static str,
    ) -> Result<Response, Refusal> {
        self.authenticator.origins().options(headers, allow, protocol.shared_headers)
    }

    /// The permissions of the sender of a request, before anything else of it is looked at.
    pub(super) async fn enter(&self, headers: &HeaderMap, peer: Option<Peer>, does: Effect) -> Result<Access, Refusal> {
        let (authenticator, headers, certificate) =
            (Arc::clone(&self.authenticator), headers.clone(), self.certificate.clone());
        self.blocking(move || authenticator.enter(&headers, peer, certificate.as_ref(), does)).await
    }

    /// The sender of a request that came by a connection of `peer`, and its connection slot if `peer` is a proxy that
    /// tells.
    pub(super) fn visitor(
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

    pub(super) fn metrics(&self) -> &Metrics {
        &self.uploads.metrics
    }

    pub(super) fn drain_limit(&self) -> u64 {
        self.uploads.settings.slice_size + MAX_FORM_OVERHEAD
    }

    pub(super) fn body_timeout(&self) -> Duration {
        self.settings.limits.body_timeout
    }

    /// Gets rid of a body that is not wanted, unless its client waits to be told to send it. True if it is gone.
    pub(super) async fn drain_unless_waiting(&self, headers: &HeaderMap, body: RawBody) -> bool {
        let waits = headers.contains_key(EXPECT) && !body.is_begun();
        !waits && drain(body, self.drain_limit(), self.body_timeout()).await
    }

    /// The reply to a request whose body is not wanted, given once that is gone.
    pub(super) async fn answer_after(
        &self,
        headers: &HeaderMap,
        body: RawBody,
        answer: Result<Response, Refusal>,
        protocol: &Protocol,
    ) -> Response {
        let at_end = self.drain_unless_waiting(headers, body).await;
        last_unless(at_end, answer.unwrap_or_else(|refusal| (protocol.words)(&refusal)))
    }

    pub(super) async fn ensure_merger(&self, id: &UploadId, name: &FileName) -> Result<(), Refusal> {
        // On this runtime, since it starts a process and a task that waits for it.
        let (mergers, id, name) = (self.mergers.clone(), id.clone(), name.clone());
        self.blocking(move || {
            mergers.ensure(&id, &name);
            Ok(())
        })
        .await
    }
}

/// Says that the connection is closed after this answer, unless its request's body was read to the end: hyper closes it
/// then, and its client is not to send another request (RFC 9112, section 9.6).
pub(super) fn last_unless(at_end: bool, mut response: Response) -> Response {
    if !at_end {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Waits for `work` on a request of the client whose upload is in `spool`: meanwhile it is heard of.
pub(super) async fn alive<T>(spool: Spool, work: impl Future<Output = T>) -> T {
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
