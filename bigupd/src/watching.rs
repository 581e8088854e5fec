//! What programs that watch the daemon ask: `/healthz`, `/readyz` and `/metrics`.
//!
//! On the listener for uploads, or, for all three, on one of their own that no flood of uploads fills; then `/metrics` is
//! there alone. Nothing here waits for the disk: only `/readyz` looks at it, for a limited time.

use crate::metrics::{CONTENT_TYPE, Metrics, Route};
use crate::ready::Readiness;
use crate::reply::{Refusal, Reply, json};
use bigup_core::wire::ErrorCode;
use std::convert::Infallible;
use std::sync::Arc;
use warp::Filter;
use warp::http::header::{CACHE_CONTROL, CONTENT_TYPE as TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use warp::http::{Method, StatusCode};

/// What can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// Whether the daemon is alive.
    Alive,
    /// Whether it can take uploads.
    Ready,
    /// What it counted.
    Metrics,
}

impl Question {
    /// How it is counted.
    pub fn route(self) -> Route {
        match self {
            Question::Alive | Question::Ready => Route::Health,
            Question::Metrics => Route::Metrics,
        }
    }
}

/// Answers such questions, whoever asks.
#[derive(Clone)]
pub struct Watching {
    metrics: Metrics,
    readiness: Arc<Readiness>,
}

impl Watching {
    /// By these metrics and this readiness.
    pub fn new(metrics: Metrics, readiness: Readiness) -> Watching {
        Watching { metrics, readiness: Arc::new(readiness) }
    }

    /// The answer.
    ///
    /// # Errors
    /// It is not asked by a GET or HEAD.
    pub async fn answer(&self, question: Question, method: &Method) -> Result<Reply, Refusal> {
        if !matches!(*method, Method::GET | Method::HEAD) {
            let message = format!("{method} is not possible here: GET asks");
            return Err(Refusal::new(ErrorCode::MethodNotAllowed, message));
        }
        let mut reply = match question {
            Question::Alive => text("text/plain; charset=utf-8", "ok\n".to_owned()),
            Question::Metrics => text(CONTENT_TYPE, self.metrics.text()),
            Question::Ready => {
                let report = self.readiness.now().await;
                let status = if report.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
                json(status, &report)
            }
        };
        reply.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        Ok(reply)
    }

    async fn answer_any(self, question: Option<Question>, method: Method) -> Reply {
        let route = question.map_or(Route::Other, Question::route);
        let answering = async {
            let answer = match question {
                Some(question) => self.answer(question, &method).await,
                None => {
                    let message = "there is nothing here; ask for /healthz, /readyz or /metrics";
                    Err(Refusal::new(ErrorCode::NotFound, message))
                }
            };
            // No body was read; whoever sent one gets no second answer on this connection.
            answer.unwrap_or_else(|refusal| refusal.last_reply())
        };
        self.metrics.time(route, answering).await
    }
}

fn text(content_type: &'static str, text: String) -> Reply {
    let mut reply = Reply::new(text.into());
    reply.headers_mut().insert(TYPE, HeaderValue::from_static(content_type));
    reply.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    reply
}

/// The question that a request is. None: it is another request.
pub fn question() -> impl Filter<Extract = (Option<Question>,), Error = Infallible> + Copy {
    let at = |path: &'static str, question| warp::path(path).and(warp::path::end()).map(move || Some(question));
    let (alive, ready) = (at("healthz", Question::Alive), at("readyz", Question::Ready));
    let any = alive.or(ready).unify().or(at("metrics", Question::Metrics)).unify();
    any.or(warp::any().map(|| None)).unify()
}

/// The routes of a listener of their own.
pub fn routes(watching: Watching) -> impl Filter<Extract = (Reply,), Error = Infallible> + Clone {
    let asked = question().and(warp::method());
    asked.then(move |question, method| watching.clone().answer_any(question, method))
}
