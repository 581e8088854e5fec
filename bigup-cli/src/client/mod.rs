//! HTTP: one request, one answer. Which failures pass is for [`crate::client::retry`] to say.
//!
//! The requests of the protocol are here too, and an [`observer`] is told of them. It uses the words of
//! `bigup_core::protocol`. No source, no terminal and no flag comes in here.

use crate::client::address::{Endpoint, masked};
use crate::client::agents::Agents;
use crate::client::connect::Distance;
use crate::client::error::{CallError, ClientError};
use crate::client::query::Query;
use crate::client::rate_limit::RateLimit;
use crate::client::rates::Rates;
use crate::client::tls::Certificates;
use crate::client::token::Token;
use crate::stop::{self, StopSignal};
use bigup_core::protocol::name::printable;
use bigup_core::protocol::native::{CLIENT_HEADER, ErrorResponse};
use serde_json::Value;
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use ureq::http::Response;
use ureq::http::header::{AUTHORIZATION, CONTENT_LENGTH, EXPECT, HeaderValue};
use ureq::tls::TlsConfig;
use ureq::{Agent, Body, Proxy, ProxyProtocol, RequestBuilder, SendBody};

pub mod address;
pub mod agents;
pub mod builder;
pub mod connect;
pub mod content;
pub mod error;
pub mod observer;
pub mod proxy;
pub mod query;
pub mod rate_limit;
pub mod rates;
pub mod requests;
pub mod retry;
pub mod server_digests;
pub mod status;
pub mod text;
pub mod tls;
pub mod token;

/// Longest wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest time in which the server takes none of the sent bytes before we give the connection up, where the system
/// does not notice sooner ([`connect::SILENCE`]). There is no limit to the whole of a request: a slice may take hours
/// on a slow link.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);

/// Longest silence of the server: the longest `wait` and 40 s for what it does besides, like syncing. Where only the
/// link is silent, the system notices sooner ([`connect::SILENCE`]): a server at work still answers it.
const READ_TIMEOUT: Duration = Duration::from_secs(90);

/// Bytes that one write hands to the system. Larger ones gained nothing on a loopback.
const OUTPUT_BUFFER_LEN: usize = 256 << 10;

/// Bytes that one read asks for: answers are small, and there is one of these for each connection.
const INPUT_BUFFER_LEN: usize = 32 << 10;

/// Longest answer that is read, in bytes: the ids of a million slices fit several times over.
const MAX_ANSWER_LEN: u64 = 64 << 20;

/// Longest quotation of a foreign response, in characters.
const EXCERPT_LEN: usize = 200;

/// A bigup server. Shared by all threads; keeps connections open.
pub struct Client {
    agents: Agents,
    endpoint: Endpoint,
    /// The proxy by which it is reached, for messages.
    proxy: Option<String>,
    /// The header of every request, where there is a token.
    authorization: Option<HeaderValue>,
    /// The rate limit of slices, where there is one.
    limit: Option<RateLimit>,
    turned_away: AtomicBool,
    /// The server gave an answer that only a bigup server gives.
    met: AtomicBool,
    /// The server said that it takes bundles.
    bundles: AtomicBool,
    /// A bundle was refused.
    no_bundles: AtomicBool,
    distance: Arc<Distance>,
}

impl Client {
    /// The server at `url`, which may end in `/` or in the endpoint's own path. `certificates` count where TLS is spoken, and
    /// are not looked at elsewhere.
    ///
    /// # Errors
    /// The URL or a certificate cannot be used.
    fn new(url: &str, certificates: &Certificates) -> Result<Client, ClientError> {
        let endpoint = Endpoint::parse(url)?;
        let proxy = proxy::of_environment(&endpoint)?;
        let is_tls = |proxy: &Proxy| proxy.protocol() == ProxyProtocol::Https;
        let proxy_shown = proxy.as_ref().map(proxy::shown);
        let tls = if endpoint.is_tls() || proxy.as_ref().is_some_and(is_tls) {
            tls::config(certificates)?
        } else {
            TlsConfig::default()
        };
        let config = Agent::config_builder()
            .proxy(proxy)
            .tls_config(tls)
            .http_status_as_error(false)
            // A token must not go to an address that the server names.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_per_write(Some(WRITE_TIMEOUT))
            .timeout_per_read(Some(READ_TIMEOUT))
            .output_buffer_size(OUTPUT_BUFFER_LEN)
            .input_buffer_size(INPUT_BUFFER_LEN)
            .max_idle_connections(1)
            .user_agent(concat!("bigup-cli/", env!("CARGO_PKG_VERSION")))
            .build();
        let distance = Arc::default();
        let agents = Agents::new(config, Arc::clone(&distance));
        let (turned_away, met, bundles, no_bundles) = Default::default();
        let proxy = proxy_shown;
        Ok(Client {
            agents,
            endpoint,
            proxy,
            authorization: None,
            limit: None,
            turned_away,
            met,
            bundles,
            no_bundles,
            distance,
        })
    }

    /// The same, with a token that goes with every request. Warns where others may read it on its way.
    fn with_token(mut self, token: Option<&Token>) -> Client {
        self.authorization = token.map(|token| {
            let value = HeaderValue::try_from(format!("Bearer {}", token.secret()));
            let mut value = value.expect("a token is visible ASCII");
            value.set_sensitive(true);
            value
        });
        if self.authorization.is_some() && !self.endpoint.is_tls() && !self.endpoint.is_loopback() {
            log::warn!("the token goes to {} in plain text: others on the way may read it", self.endpoint.url());
        }
        self
    }

    /// The same, sending at most so many bytes of content a second over all connections together. `None`: no limit.
    fn with_limit(mut self, rates: Option<Rates>) -> Client {
        self.limit = rates.map(RateLimit::new);
        self
    }

    /// The distance of the server: the shortest time that a connection to it took so far. `None`: there was none, or a
    /// proxy made it.
    pub fn distance(&self) -> Option<Duration> {
        self.distance.shortest()
    }

    /// True if a token goes with every request.
    pub fn has_token(&self) -> bool {
        self.authorization.is_some()
    }

    /// True if the server said that we have no token that counts: then it lets nothing else in either.
    pub fn is_turned_away(&self) -> bool {
        self.turned_away.load(Ordering::Relaxed)
    }

    /// True if several small files may go in one request.
    pub fn takes_bundles(&self) -> bool {
        self.bundles.load(Ordering::Relaxed) && !self.no_bundles.load(Ordering::Relaxed)
    }

    /// The server said that they may.
    pub fn may_send_bundles(&self) {
        self.bundles.store(true, Ordering::Relaxed);
    }

    /// They may not, whatever it said or says.
    pub fn send_no_bundles(&self) {
        self.no_bundles.store(true, Ordering::Relaxed);
    }

    fn authorized<B>(&self, request: RequestBuilder<B>) -> RequestBuilder<B> {
        let request = request.header(CLIENT_HEADER, concat!("bigup-cli/", env!("CARGO_PKG_VERSION")));
        match &self.authorization {
            Some(value) => request.header(AUTHORIZATION, value),
            None => request,
        }
    }

    /// Asks, and reads the JSON answer.
    ///
    /// # Errors
    /// No answer, or not one that says yes.
    pub fn get(&self, query: &Query) -> Result<Value, CallError> {
        let url = self.url(query);
        log::debug!("GET {url}");
        self.answer(self.exchange(|agent| self.authorized(agent.get(&url)).call()))
    }

    /// Sends `bytes` as a slice, no faster than the limit allows. `watch` is told how many bytes more are on their way,
    /// and says whether to go on. With `asks_first` nothing of them is sent before the server says that it wants them, or
    /// has said nothing for a second (RFC 9110, section 10.1.1).
    ///
    /// # Errors
    /// No answer, not one that says yes, `watch` said no, or `stop` cut the wait for the limit short.
    pub fn post<T: serde::de::DeserializeOwned>(
        &self,
        query: &Query,
        bytes: &[u8],
        asks_first: bool,
        stop: &StopSignal,
        watch: &dyn Fn(u64) -> bool,
    ) -> Result<T, CallError> {
        let url = self.url(query);
        log::debug!("POST {url}");
        let agent = self.agents.lend();
        let send = |mut body: WatchedBody<'_, &mut dyn Read>| {
            let request = self.authorized(agent.post(&url)).content_type("application/octet-stream");
            let request = request.header(CONTENT_LENGTH, bytes.len().to_string());
            let request = if asks_first { request.header(EXPECT, "100-continue") } else { request };
            request.send(SendBody::from_reader(&mut body))
        };
        let result = match &self.limit {
            None => anew(|| send(WatchedBody { bytes: &mut &*bytes, watch })),
            Some(limit) => anew(|| match limit.pace(bytes, stop) {
                Some(mut paced) => send(WatchedBody { bytes: &mut paced, watch }),
                None => Err(io::Error::from(io::ErrorKind::Interrupted).into()),
            }),
        };
        if result.is_err() && (!watch(0) || self.limit.is_some() && stop::is_closed(stop)) {
            return Err(CallError::Stopped);
        }
        let value = self.answer(self.whole(result))?;
        self.read_as(value)
    }

    /// The answer `value` as a `T`.
    ///
    /// # Errors
    /// It is something else.
    pub fn read_as<T: serde::de::DeserializeOwned>(&self, value: Value) -> Result<T, CallError> {
        serde_json::from_value(value.clone()).map_err(|_| self.foreign(200, value.to_string().as_bytes(), None))
    }

    fn url(&self, query: &Query) -> String {
        format!("{}?{}", self.endpoint.url(), query.as_str())
    }

    /// The server, and the proxy on the way to it, for messages.
    fn shown(&self) -> String {
        let url = self.endpoint.url();
        self.proxy.as_ref().map_or_else(|| url.to_owned(), |proxy| format!("{url} by way of the proxy {proxy}"))
    }

    /// The whole response to `call`, which gets a connection for as long as that takes.
    fn exchange(&self, call: impl Fn(&Agent) -> Result<Response<Body>, ureq::Error>) -> Result<Reply, CallError> {
        let agent = self.agents.lend();
        self.whole(anew(|| call(&agent)))
    }

    /// The JSON in a response that says yes.
    fn answer(&self, reply: Result<Reply, CallError>) -> Result<Value, CallError> {
        let reply = reply?;
        if reply.status == 200
            && let Ok(value @ Value::Object(_)) = serde_json::from_slice(&reply.body)
        {
            self.met.store(true, Ordering::Relaxed);
            return Ok(value);
        }
        Err(self.refusal(reply))
    }

    /// The response with all of its body, whatever it says.
    fn whole(&self, result: Result<Response<Body>, ureq::Error>) -> Result<Reply, CallError> {
        let mut response = result.map_err(|error| self.transport(error))?;
        let status = response.status().as_u16();
        let (location, retry_after) = (location(&response), retry_after(&response));
        let body = response.body_mut().with_config().limit(MAX_ANSWER_LEN).read_to_vec();
        let body = body.map_err(|error| self.transport(error))?;
        log::debug!("{status}, {} bytes", body.len());
        Ok(Reply { status, location, retry_after, body })
    }

    /// The reason in a response that does not say yes.
    fn refusal(&self, reply: Reply) -> CallError {
        let Reply { status, location, retry_after, body } = reply;
        if let (300..400, Some(location)) = (status, location) {
            return CallError::Moved { url: self.shown(), status, location, met: self.is_met() };
        }
        match serde_json::from_slice::<ErrorResponse>(&body) {
            Ok(ErrorResponse { message, error: code, .. }) if status != 200 => {
                self.met.store(true, Ordering::Relaxed);
                self.turned_away.fetch_or(status == 401, Ordering::Relaxed);
                CallError::Refused { status, code, message: printable(&message), retry_after }
            }
            _ => {
                self.turned_away.fetch_or(status == 401 && !self.is_met(), Ordering::Relaxed);
                self.foreign(status, &body, retry_after)
            }
        }
    }

    fn is_met(&self) -> bool {
        self.met.load(Ordering::Relaxed)
    }

    fn transport(&self, error: ureq::Error) -> CallError {
        let (url, met) = (self.shown(), self.is_met());
        if let Some(failure) = tls::diagnosis(&error) {
            return CallError::Tls { url, failure, met };
        }
        if let Some(why) = connect::refused_by_proxy(&error) {
            return CallError::Proxy { url, why };
        }
        match connect::unresolved(&error) {
            Some(why) if !met => CallError::Unresolved { url, why },
            _ => CallError::Transport { url, cause: Box::new(error) },
        }
    }

    fn foreign(&self, status: u16, body: &[u8], retry_after: Option<Duration>) -> CallError {
        let start = &body[..body.len().min(8 * EXCERPT_LEN)];
        let text = String::from_utf8_lossy(start).split_whitespace().collect::<Vec<_>>().join(" ");
        let excerpt = printable(&text.chars().take(EXCERPT_LEN).collect::<String>());
        CallError::Foreign { url: self.shown(), status, excerpt, met: self.is_met(), retry_after }
    }
}

/// A response with all of its body.
struct Reply {
    status: u16,
    location: Option<String>,
    retry_after: Option<Duration>,
    body: Vec<u8>,
}

/// The sent bytes, and the observer of their leaving.
struct WatchedBody<'a, R> {
    bytes: R,
    watch: &'a dyn Fn(u64) -> bool,
}

impl<R: Read> Read for WatchedBody<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = self.bytes.read(buffer)?;
        if (self.watch)(len as u64) { Ok(len) } else { Err(io::Error::other("stopped")) }
    }
}

/// The result of `call`, called once more where its connection was closed while it was kept, as a server that is restarted
/// closes all. A fresh connection is never retried.
fn anew<T>(call: impl Fn() -> Result<T, ureq::Error>) -> Result<T, ureq::Error> {
    match call() {
        Err(error) if connect::was_closed_at_rest(&error) => {
            log::debug!("again at once: {error}");
            call()
        }
        result => result,
    }
}

/// `Location` without its query.
fn location(response: &Response<Body>) -> Option<String> {
    let text = response.headers().get("location")?.to_str().ok()?;
    Some(printable(&masked(text.split('?').next()?)))
}

/// Seconds of `Retry-After`; the form with a date is passed over.
fn retry_after(response: &Response<Body>) -> Option<Duration> {
    let seconds = response.headers().get("retry-after")?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader, Read, Write};
    use std::net::TcpListener;

    #[test]
    fn a_connection_that_was_closed_at_rest_is_given_up_without_a_word_once() {
        for (closed, ends_well) in [(0, true), (1, true), (2, false)] {
            let calls = std::cell::Cell::new(0);
            let result: Result<(), _> = anew(|| {
                calls.set(calls.get() + 1);
                if calls.get() <= closed { Err(connect::closed_at_rest()) } else { Ok(()) }
            });
            assert_eq!((result.is_ok(), calls.get()), (ends_well, 1 + closed.min(1)));
        }
        let calls = std::cell::Cell::new(0);
        let other = || -> Result<(), _> {
            calls.set(calls.get() + 1);
            Err(ureq::Error::HostNotFound)
        };
        assert!(anew(other).is_err() && calls.get() == 1);
    }

    /// A server that answers so many requests on each connection, and closes it at the first byte of one more.
    fn answering(requests: usize) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                for _ in 0..requests {
                    let head = BufReader::new(&stream).lines().map(Result::unwrap);
                    assert!(head.take_while(|line| !line.is_empty()).count() > 0);
                    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").unwrap();
                }
                stream.read_exact(&mut [0]).unwrap();
            }
        });
        url
    }

    #[test]
    fn a_connection_that_was_closed_while_it_was_kept_costs_no_attempt() {
        let client = Client::new(&answering(1), &Certificates::default()).unwrap();
        (0..4).for_each(|_| drop(client.get(&Query::new()).unwrap()));
        let broken = Client::new(&answering(0), &Certificates::default()).unwrap();
        assert!(matches!(broken.get(&Query::new()), Err(CallError::Transport { .. })));
    }

    #[test]
    fn a_foreign_answer_is_quoted_in_printable_form() {
        let client = Client::new("http://h", &Certificates::default()).unwrap();
        let body = format!("<html>\n\x1b[31m{}", "x".repeat(5000));
        let message = client.foreign(502, body.as_bytes(), None).to_string();
        assert!(message.contains("502") && message.contains("<html> \\u{1b}[31mxx"), "{message}");
        assert!(message.len() < 400, "{}", message.len());
        assert!(!message.contains("proxy"), "{message}");
        let message = client.foreign(413, b"<html>", None).to_string();
        assert!(message.contains("<html>; ") && message.contains("takes no slices as large"), "{message}");
    }
}
