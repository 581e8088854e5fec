//! Endpoints for monitoring programs: `/healthz`, `/readyz` and `/metrics`.
//!
//! They are served on the listener for uploads. With `metrics_listen` all three are also served on a listener of their
//! own that no flood of uploads fills; `/metrics` is then served there only. No response waits for the disk: only
//! `/readyz` checks it, for a limited time.

use crate::admission::origins::{Effect, Origins};
use crate::http::timing;
use crate::metrics::{CONTENT_TYPE, Metrics, Route};
use crate::net::response::{Response, json, keep_nowhere, no_content};
use crate::readiness::Readiness;
use crate::refusal::Refusal;
use bigup_core::protocol::native::ErrorCode;
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use warp::Filter;
use warp::http::header::{CONTENT_TYPE as TYPE, HeaderMap, HeaderValue};
use warp::http::{Method, StatusCode};

/// The methods there are.
pub const ALLOWED: &str = "GET, HEAD, OPTIONS";

/// An endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    /// True if the daemon is alive.
    Alive,
    /// True if it can take uploads.
    Ready,
    /// The counted values.
    Metrics,
}

impl Probe {
    /// Its route in the metrics.
    pub fn route(self) -> Route {
        match self {
            Probe::Alive | Probe::Ready => Route::Health,
            Probe::Metrics => Route::Metrics,
        }
    }
}

/// The warning about answering all clients at `address`. `None` if only this machine, or a private network, reaches it.
pub fn warning(address: SocketAddr) -> Option<String> {
    is_public(address.ip()).then(|| {
        format!(
            "metrics_listen is {address}: whoever reaches it reads how much is uploaded, without a token and not encrypted;              use an address of this machine or of a network of your own, like 127.0.0.1:{}",
            address.port()
        )
    })
}

/// True if clients beyond this machine and its own networks can reach an address. All addresses at once count as
/// public. Private are those of RFC 1918, RFC 6598 (of carriers and overlay networks), RFC 4193, and link-local ones.
fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            let is_shared = v4.octets()[0] == 100 && v4.octets()[1] & 0b1100_0000 == 64;
            !(v4.is_loopback() || v4.is_private() || v4.is_link_local() || is_shared)
        }
        IpAddr::V6(v6) => !(v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local()),
    }
}

/// Answers these requests, from every client.
#[derive(Clone)]
pub struct Probes {
    metrics: Metrics,
    readiness: Arc<Readiness>,
}

impl Probes {
    /// By these metrics and this readiness.
    pub fn new(metrics: Metrics, readiness: Readiness) -> Probes {
        Probes { metrics, readiness: Arc::new(readiness) }
    }

    /// The response.
    ///
    /// # Errors
    /// It is not asked by a GET or HEAD.
    pub async fn answer(&self, question: Probe, method: &Method) -> Result<Response, Refusal> {
        if !matches!(*method, Method::GET | Method::HEAD) {
            return Err(Refusal::method(method.as_str(), "GET asks", ALLOWED));
        }
        Ok(match question {
            Probe::Alive => text("text/plain; charset=utf-8", "ok\n".to_owned()),
            Probe::Metrics => text(CONTENT_TYPE, self.metrics.text()),
            Probe::Ready => {
                let report = self.readiness.now().await;
                let status = if report.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
                json(status, &report)
            }
        })
    }

    async fn answer_any(
        self,
        origins: Arc<Origins>,
        question: Option<Probe>,
        method: Method,
        headers: HeaderMap,
    ) -> Response {
        let route = question.map_or(Route::Other, Probe::route);
        let answering = async {
            let answer = match question {
                Some(_) if method == Method::OPTIONS => Ok(no_content(ALLOWED)),
                // Metrics are for no foreign page, whether or not there are tokens. The daemon's health is no secret,
                // and often asked by other names.
                Some(Probe::Metrics) if let Err(foreign) = origins.check(&headers, Effect::Looks) => Err(foreign),
                Some(question) => self.answer(question, &method).await,
                None => {
                    let message = "there is nothing here; ask for /healthz, /readyz or /metrics";
                    Err(Refusal::new(ErrorCode::NotFound, message))
                }
            };
            // No body was read; a client that sent a body gets no second response on this connection.
            answer.unwrap_or_else(|refusal| refusal.last_response())
        };
        timing::time(&self.metrics, route, answering).await
    }
}

fn text(content_type: &'static str, text: String) -> Response {
    let mut response = Response::new(text.into());
    response.headers_mut().insert(TYPE, HeaderValue::from_static(content_type));
    keep_nowhere(&mut response);
    response
}

/// The question that a request is. `None` if it is another request.
pub fn question() -> impl Filter<Extract = (Option<Probe>,), Error = Infallible> + Copy {
    let at = |path: &'static str, question| warp::path(path).and(warp::path::end()).map(move || Some(question));
    let (alive, ready) = (at("healthz", Probe::Alive), at("readyz", Probe::Ready));
    let any = alive.or(ready).unify().or(at("metrics", Probe::Metrics)).unify();
    any.or(warp::any().map(|| None)).unify()
}

/// The routes of a listener of their own.
pub fn routes(probes: Probes, origins: Origins) -> impl Filter<Extract = (Response,), Error = Infallible> + Clone {
    let asked = question().and(warp::method()).and(warp::header::headers_cloned());
    let origins = Arc::new(origins);
    asked.then(move |question, method, headers| {
        probes.clone().answer_any(Arc::clone(&origins), question, method, headers)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn public_addresses_are_warned_of() {
        let is_warned = |address: &str| warning(address.parse().unwrap()).is_some_and(|text| text.contains(address));
        for public in ["0.0.0.0:9888", "[::]:9888", "203.0.113.7:1", "100.128.0.1:1", "[2001:db8::1]:1", "172.32.0.1:1"]
        {
            assert!(is_warned(public), "{public}");
        }
        for own in [
            "127.0.0.1:1",
            "127.9.0.1:1",
            "[::1]:1",
            "10.1.2.3:1",
            "172.31.0.1:1",
            "192.168.1.1:1",
            "100.64.0.1:1",
            "169.254.1.1:1",
            "[fd00::1]:1",
            "[fe80::1]:1",
            "[::ffff:10.0.0.1]:1",
        ] {
            assert!(!is_warned(own), "{own}");
        }
    }
}
