//! All routes of the daemon: the path decides which protocol a request speaks.
//!
//! A refusal is a response made here, not a rejection of warp's, which would mean "perhaps another route". Every
//! response to a request with a body is given after the body was read or drained: a client that writes all of it before
//! it reads gets to read the response. If it waits for "100 Continue" (RFC 9110, section 10.1.1), none of the body is
//! read.

use crate::admission::origins::Effect;
use crate::http::app::App;
use crate::http::body::raw_body;
use crate::http::content::routes::{PATH as CONTENT_PATH, content};
use crate::http::ietf::routes::{ietf, is_ietf};
use crate::http::native::routes::{NATIVE, native};
use crate::http::page::response;
use crate::http::page::site::PATH as PAGE_PATH;
use crate::http::probes::{ALLOWED, Probe, question};
use crate::http::request::Request;
use crate::http::timing;
use crate::http::tus::routes::{TUS, tus};
use crate::http::upload_url;
use crate::metrics::Route;
use crate::net::peer::Peer;
use crate::net::response::Response;
use crate::refusal::Refusal;
use bigup_core::protocol::native::{ErrorCode, PATH};
use std::convert::Infallible;
use warp::Filter;
use warp::http::Method;
use warp::http::header::HeaderMap;

/// All routes of the daemon.
pub fn routes(app: App) -> impl Filter<Extract = (Response,), Error = Infallible> + Clone {
    let with_app = warp::ext::optional().map(move |certificate| app.clone().of_connection(certificate));
    let query = warp::query::raw().or(warp::any().map(String::new)).unify();
    let body = warp::body::stream().map(raw_body);
    let connection = warp::ext::optional().and(warp::ext::optional()).map(|peer, parts| (peer, parts));
    let head = warp::method()
        .and(warp::path::full())
        .and(warp::header::headers_cloned())
        .and(query)
        .and(connection)
        .and(warp::ext::optional());
    let request = head.and(body).map(Request::new);
    // In boxes: else every request would reserve memory for all of them.
    let native = warp::path(PATH)
        .and(warp::path::end())
        .and(with_app.clone())
        .and(request)
        .then(|app, request| Box::pin(native(app, request)));
    let files = warp::path(upload_url::PATH)
        .and(with_app.clone())
        .and(request)
        .then(|app, request| Box::pin(files(app, request)));
    let content = warp::path(CONTENT_PATH)
        .and(with_app.clone())
        .and(request)
        .then(|app, request| Box::pin(content(app, request)));
    let page = warp::path(PAGE_PATH)
        .or(warp::path::end())
        .unify()
        .and(with_app.clone())
        .and(request)
        .then(|app, request| Box::pin(visit(app, request)));
    let other = with_app
        .and(question())
        .and(request)
        .then(|app, question, request| Box::pin(elsewhere(app, question, request)));
    native.or(files).unify().or(content).unify().or(page).unify().or(other).unify().recover(never).unify()
}

/// A browser that visits the server, if there is a page for it.
async fn visit(app: App, request: Request) -> Response {
    match app.settings.page.at(&request.path).cloned() {
        Some(file) => {
            let answer = async |app: App, Request { method, headers, body, .. }: Request| {
                let answer = response::response(&file, &method, &headers);
                app.answer_after(&headers, body, answer, &NATIVE).await
            };
            app.serve(&NATIVE, Route::Page, request, answer).await
        }
        None => elsewhere(app, None, request).await,
    }
}

/// Two protocols share the addresses of uploads; header fields tell them apart.
async fn files(app: App, request: Request) -> Response {
    match request.method {
        Method::OPTIONS => app.serve(&TUS, Route::Tus, request, discover).await,
        _ if is_ietf(&request) => ietf(app, request).await,
        _ => tus(app, request).await,
    }
}

/// Tells what both of them speak.
async fn discover(app: App, request: Request) -> Response {
    let options = app.options(&TUS, &request.headers, upload_url::METHODS);
    let options = options.map(|response| app.ietf_discovery(app.tus_discovery(response)));
    app.answer_after(&request.headers, request.body, options, &TUS).await
}

/// Every request matches one of the routes; requests that warp itself refuses come here.
async fn never(rejection: warp::Rejection) -> Result<Response, Infallible> {
    log::debug!("refused by warp: {rejection:?}");
    Ok(Refusal::new(ErrorCode::BadRequest, "the request cannot be read").response())
}

async fn elsewhere(app: App, question: Option<Probe>, request: Request) -> Response {
    let Request { method, headers, peer, body, .. } = request;
    let app = app.for_request(&headers, peer);
    let route = question.map_or(Route::Other, Probe::route);
    let sharing = app.sharing(&NATIVE, &headers);
    let answering = async {
        let answer = match question {
            Some(_) if method == Method::OPTIONS => app.options(&NATIVE, &headers, ALLOWED),
            Some(question) => app.tell(question, &method, &headers, peer).await,
            None => Err(nothing_here()),
        };
        app.answer_after(&headers, body, answer, &NATIVE).await
    };
    sharing.told_in(timing::time(app.metrics(), route, answering).await)
}

fn nothing_here() -> Refusal {
    Refusal::new(
        ErrorCode::NotFound,
        format!("there is nothing here; uploads go to /{PATH}, finished files are at /{CONTENT_PATH}/NAME"),
    )
}

impl App {
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
}
