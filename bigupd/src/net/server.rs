//! Accepting connections and serving them until told to stop.
//!
//! A refused client gets to read the reason. A socket that is closed while it holds unread bytes is reset, and the
//! reset destroys a response under way (RFC 9112, section 9.6). So a connection over the limit is served like any
//! other, by a service that only refuses. A connection is closed for writing first, then read until its client closes
//! it too.

use crate::descriptors;
use crate::metrics::{Limit, Metrics};
use crate::net::body_memory;
use crate::net::client_certificate::ClientCertificate;
use crate::net::connection_slots::ConnectionSlots;
use crate::net::file_parts::{FileParts, FileStream};
use crate::net::host::Host;
use crate::net::limits::Limits;
use crate::net::linger::{self, Lingering};
use crate::net::listeners::{Listeners, Socket};
use crate::net::peer::Peer;
use crate::net::response::Response;
use crate::net::timeouts::{RequestTurns, TimedStream, Timeout};
use crate::net::tls::Tls;
use crate::net::trailers::BodyWithTrailers;
use crate::refusal::Refusal;
use bigup_core::protocol::name::quoted;
use bigup_core::protocol::native::ErrorCode;
use bytes::Bytes;
use hyper::Request;
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::convert::Infallible;
use std::future::ready;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, timeout};
use warp::Filter;
use warp::http::header::{HOST, HeaderValue, TRANSFER_ENCODING};
use warp::http::{Uri, Version};

/// A connection that has rested this long after a response is taken from hyper, and given back with its next request.
/// The buffers that hyper keeps for it are as large as its largest body needed, and those of thousands would fill the
/// memory.
const REST_AFTER: Duration = Duration::from_millis(100);

/// Largest request header, in bytes: ten times the longest file name and source, percent-encoded.
const MAX_HEAD: usize = 64 << 10;

/// Pause after a connection could not be accepted for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Least time between two log lines about this while it lasts, or comes back as descriptors come and go.
const ACCEPT_SAID_EVERY: Duration = Duration::from_secs(60);

/// Time limit for the header of a request that is refused in any case.
const REFUSAL_TIME: Duration = Duration::from_secs(5);

/// Longest time for a first request on a connection made as the daemon was told to stop: the request is on its way, and
/// closing the connection would refuse it.
const FIRST_REQUEST_TIME: Duration = Duration::from_secs(2);

/// Serves `routes` on `listeners`, with `tls` if it is given, until `stop` is done; running requests then have `grace`
/// to finish. Connections, and the reasons of refusals, are counted in `metrics`.
pub async fn serve<F>(
    listeners: Listeners,
    tls: Option<Arc<Tls>>,
    routes: F,
    limits: &Limits,
    metrics: Metrics,
    stop: impl Future<Output = ()>,
    grace: Duration,
) where
    F: Filter<Extract = (Response,), Error = Infallible> + Clone + Send + Sync + 'static,
    F::Future: Send,
{
    let door = Acceptor {
        slots: ConnectionSlots::new(limits),
        refusals: Arc::new(Semaphore::new(descriptors::refusals())),
        lingering: Lingering::new(descriptors::refusals()),
        limits: Arc::new(limits.clone()),
        tls,
        metrics,
    };
    let (stopping, is_stopping) = watch::channel(false);
    let mut stop = std::pin::pin!(stop);
    let mut said: Option<Instant> = None;
    loop {
        let accepted = tokio::select! {
            accepted = listeners.accept() => accepted,
            () = &mut stop => break,
        };
        match accepted {
            Ok((stream, peer)) => door.admit(stream, peer, routes.clone(), is_stopping.clone()),
            // It went before it was accepted.
            Err(e) if matches!(e.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) => {}
            Err(e) => {
                if said.is_none_or(|at| at.elapsed() >= ACCEPT_SAID_EVERY) {
                    said = Some(Instant::now());
                    log::error!("accepting a connection: {e}; trying again until it works");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop((listeners, is_stopping));
    log::info!("stopping: {} connections have {} s to finish", stopping.receiver_count(), grace.as_secs());
    stopping.send_replace(true);
    if timeout(grace, stopping.closed()).await.is_err() {
        log::warn!("requests dropped that did not finish within {} s; no stored data is lost", grace.as_secs());
    }
}

/// Accepts connections.
struct Acceptor {
    slots: ConnectionSlots,
    /// A permit for each connection that can be refused at once; further connections are closed without a response.
    refusals: Arc<Semaphore>,
    lingering: Lingering,
    limits: Arc<Limits>,
    tls: Option<Arc<Tls>>,
    metrics: Metrics,
}

impl Acceptor {
    /// Starts to serve a connection, or to tell it why it is not served.
    fn admit<F>(&self, stream: Socket, peer: Peer, routes: F, stopping: watch::Receiver<bool>)
    where
        F: Filter<Extract = (Response,), Error = Infallible> + Clone + Send + Sync + 'static,
        F::Future: Send,
    {
        let (metrics, limits) = (&self.metrics, Arc::clone(&self.limits));
        // Clients behind a trusted proxy have a limit for each request (routes).
        let address = peer.ip().filter(|_| !self.limits.trusted_proxies.trust(peer));
        match self.slots.take(address) {
            Ok(slot) => {
                let routes = TowerToHyperService::new(warp::service(routes));
                let service = service_fn(move |mut request: Request<Incoming>| {
                    request.extensions_mut().insert(peer);
                    let (mut head, body) = request.into_parts();
                    let body = BodyWithTrailers::new(body, &head.headers);
                    body.trailers().into_iter().for_each(|trailers| drop(head.extensions.insert(trailers)));
                    routes.call(Request::from_parts(head, body))
                });
                let place = (slot, metrics.connection_served());
                tokio::spawn(serve_connection(stream, self.manners(limits), service, place, stopping));
            }
            Err(refusal) => {
                log::debug!(peer:%; "{peer} is refused: {}", refusal.facts);
                refusal.limit.into_iter().for_each(|limit| metrics.refused(limit));
                let Ok(permit) = Arc::clone(&self.refusals).try_acquire_owned() else { return };
                let service = service_fn(move |_request| ready(Ok(refusal.last_response())));
                let header_timeout = limits.header_timeout.min(REFUSAL_TIME);
                let limits = Arc::new(Limits { header_timeout, ..Limits::clone(&limits) });
                tokio::spawn(serve_connection(stream, self.manners(limits), service, permit, stopping));
            }
        }
    }

    fn manners(&self, limits: Arc<Limits>) -> ConnectionSettings {
        let (tls, lingering, metrics) = (self.tls.clone(), self.lingering.clone(), self.metrics.clone());
        ConnectionSettings { tls, limits, lingering, metrics }
    }
}

/// Settings of a connection, the same for every client.
struct ConnectionSettings {
    tls: Option<Arc<Tls>>,
    limits: Arc<Limits>,
    lingering: Lingering,
    metrics: Metrics,
}

/// Serves a connection as it was accepted. It keeps `place` until its last response.
async fn serve_connection<V>(
    stream: Socket,
    manners: ConnectionSettings,
    service: V,
    place: impl Send,
    mut stopping: watch::Receiver<bool>,
) where
    V: Service<Request<Incoming>, Response = Response, Error = Infallible>,
{
    let Some(tls) = &manners.tls else {
        let parts = FileParts::default();
        let stream = FileStream::new(stream, parts.clone());
        let service = service_fn(|mut request: Request<Incoming>| {
            request.extensions_mut().insert(parts.clone());
            service.call(request)
        });
        return converse(stream, service, &manners, place, stopping).await;
    };
    // In boxes: else every plain connection would reserve memory for them too, which is twice its own.
    let accepted = tokio::select! {
        accepted = Box::pin(tls.accept(stream, manners.limits.header_timeout)) => accepted,
        () = stop_asked_long_ago(&mut stopping) => return,
    };
    match accepted {
        Ok(stream) => {
            let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
            let certificate = ClientCertificate::first_of(chain);
            let service = service_fn(|mut request: Request<Incoming>| {
                certificate.iter().cloned().for_each(|shown| drop(request.extensions_mut().insert(shown)));
                service.call(request)
            });
            Box::pin(converse(stream, service, &manners, place, stopping)).await;
        }
        Err(e) => log::debug!("a connection ended in its handshake: {e}"),
    }
}

/// Serves requests over `stream` until either side ends it, or `stopping` is true and the request at hand is answered.
async fn converse<S, V>(
    stream: S,
    service: V,
    manners: &ConnectionSettings,
    place: impl Send,
    mut stopping: watch::Receiver<bool>,
) where
    S: AsyncRead + AsyncWrite + Unpin,
    V: Service<Request<Incoming>, Response = Response, Error = Infallible>,
{
    let limits = &*manners.limits;
    let turns = RequestTurns::default();
    let mut stream = TimedStream::new(stream, turns.clone(), limits);
    let service = service_fn(|mut request: Request<Incoming>| {
        turns.next();
        host_of_target(&mut request);
        path_of_target(&mut request);
        let body = (!request.body().is_end_stream()).then(|| body_memory::BODIES.begin());
        let answer = check_head(&request).map(|()| service.call(request));
        let turns = turns.clone();
        // Boxed, since hyper keeps the place for it between requests too.
        Box::pin(async move {
            let answer = match answer {
                Ok(answer) => answer.await,
                Err(refusal) => Ok(refusal.last_response()),
            };
            drop(body);
            turns.next();
            answer
        })
    });
    let mut http = http1::Builder::new();
    // A client that has sent a whole request is permitted to close its side and read: half of a connection is enough
    // for a response (RFC 9112, section 9.6).
    http.half_close(true);
    // The stream has limits of its own. hyper's limit makes it read, and so check them, while it is idle.
    http.timer(TokioTimer::new()).header_read_timeout(limits.idle_timeout + limits.header_timeout);
    http.max_header_size(MAX_HEAD).max_buf_size(body_memory::MAX_BUFFER);
    let ended = loop {
        // On the heap, so that it goes with its buffers.
        let mut connection = Box::new(http.serve_connection(TokioIo::new(&mut stream), &service));
        tokio::select! {
            ended = &mut connection => break ended,
            () = turns.rest(REST_AFTER) => {}
            () = stop_asked(&mut stopping) => {
                tokio::select! {
                    ended = &mut connection => break ended,
                    _ = timeout(FIRST_REQUEST_TIME, turns.first()) => {}
                }
                std::pin::Pin::new(&mut *connection).graceful_shutdown();
                break connection.await;
            }
        }
        let mut unread = connection.into_parts().read_buf;
        if unread.is_empty() {
            // An empty one, too, holds its buffer.
            drop(unread);
            body_memory::note_freed();
            let first = tokio::select! {
                first = stream.read_u8() => first,
                () = stop_asked(&mut stopping) => break Ok(()),
            };
            // No response is owed to a client that leaves, or is sent away, while no request is under way.
            let Ok(first) = first else { break Ok(()) };
            unread = Bytes::copy_from_slice(&[first]);
        }
        stream.unread(unread);
    };
    body_memory::note_freed();
    // Clients go away in many ways, and no way matters here.
    let refusal = ended.err().and_then(|e| {
        log::debug!("a connection ended: {e}");
        refusal_owed(&stream, &e, limits)
    });
    let (late, stream) = (stream.late(), stream.into_inner());
    say_goodbye(stream, late, refusal, manners, place, stopping).await;
}

/// Ends a connection: sends the last response, and reads on until the other side closes it too. `place` is given back
/// before that, since it can take long.
async fn say_goodbye(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    late: Option<Timeout>,
    refusal: Option<Refusal>,
    manners: &ConnectionSettings,
    place: impl Send,
    mut stopping: watch::Receiver<bool>,
) {
    if late == Some(Timeout::Reader) {
        manners.metrics.refused(Limit::Reading);
        return;
    }
    if let Some(refusal) = refusal {
        refusal.limit.into_iter().for_each(|limit| manners.metrics.refused(limit));
        let _ = timeout(linger::SILENCE, stream.write_all(&refusal.bytes())).await;
    }
    let _ = timeout(linger::SILENCE, stream.shutdown()).await;
    drop(place);
    if late != Some(Timeout::Idle) {
        tokio::select! {
            () = manners.lingering.linger(&mut stream) => {}
            () = stop_asked(&mut stopping) => {}
        }
    }
}

async fn stop_asked(stopping: &mut watch::Receiver<bool>) {
    // Also if the sender is gone.
    let _ = stopping.wait_for(|stop| *stop).await;
}

/// The same once the time for a first request is over, too.
async fn stop_asked_long_ago(stopping: &mut watch::Receiver<bool>) {
    stop_asked(stopping).await;
    tokio::time::sleep(FIRST_REQUEST_TIME).await;
}

/// A whole address as target tells the host, whatever the Host header tells (RFC 9112, section 3.2.2).
fn host_of_target(request: &mut Request<Incoming>) {
    let target = request.uri().authority().and_then(|host| HeaderValue::from_str(host.as_str()).ok());
    if let Some(host) = target.filter(|_| request.headers().get_all(HOST).iter().count() == 1) {
        request.headers_mut().insert(HOST, host);
    }
}

/// A target without a path, as CONNECT has, is nothing that is here; warp takes only targets with a path.
fn path_of_target(request: &mut Request<Incoming>) {
    if request.uri().path_and_query().is_none() {
        *request.uri_mut() = Uri::from_static("/");
    }
}

/// Checks of RFC 9112 that hyper leaves to its user.
fn check_head(request: &Request<Incoming>) -> Result<(), Refusal> {
    let values = |name| request.headers().get_all(name).iter().map(HeaderValue::as_bytes);
    // Section 3.2: one Host, and one only.
    let hosts = values(HOST).count();
    if hosts > 1 || (hosts == 0 && request.version() == Version::HTTP_11) {
        return Err(Refusal::new(ErrorCode::BadRequest, format!("the request has {hosts} Host headers, not 1")));
    }
    if let Some(host) = values(HOST).next()
        && std::str::from_utf8(host).ok().and_then(Host::parse).is_none()
    {
        let shown = quoted(&String::from_utf8_lossy(host));
        return Err(Refusal::new(ErrorCode::BadRequest, format!("the Host header {shown} is no host")));
    }
    // Section 6.1: a body in another coding would be stored as it is.
    let codings: Vec<&[u8]> = values(TRANSFER_ENCODING).collect();
    if !codings.is_empty() && !matches!(&codings[..], [only] if only.trim_ascii().eq_ignore_ascii_case(b"chunked")) {
        let message = "the only Transfer-Encoding that is possible is chunked, once";
        return Err(Refusal::new(ErrorCode::BadRequest, message));
    }
    Ok(())
}

/// The refusal for a request that hyper gave up without a response. `None` if hyper answered, or there was no request.
fn refusal_owed<S>(stream: &TimedStream<S>, error: &hyper::Error, limits: &Limits) -> Option<Refusal> {
    if !stream.owes_answer() {
        return None;
    }
    if stream.late() == Some(Timeout::Head) {
        let message =
            format!("the head of the request did not come whole within {} s", limits.header_timeout.as_secs_f64());
        return Some(Refusal::over(Limit::Header, ErrorCode::Timeout, message));
    }
    let message = match error {
        // Its body, if it was to have one, says so itself.
        error if error.is_incomplete_message() => "the connection was closed for writing before the request was whole",
        error if error.is_parse() => "this is no request of HTTP/1.1, which is what is spoken here",
        _ => return None,
    };
    Some(Refusal::new(ErrorCode::BadRequest, message))
}
