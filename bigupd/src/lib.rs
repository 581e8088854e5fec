//! The daemon: receives slices over HTTP, answers what is held, starts mergers and looks after them.
//!
//! It keeps no state of uploads in memory: each request reads the data folder and leaves it such that the next one, of
//! whichever daemon, can go on.
//!
//! - [`settings`] - the table of all settings; [`config`] - reading and checking them.
//! - [`sockets`] - where connections come in; [`service`] - what is told to systemd.
//! - [`server`] - connections; [`tls`] - their certificates and handshakes; [`seats`] counts them, [`timed`] and [`pace`]
//!   limit their time; [`lingering`] reads on after the last answer; [`memory`] bounds what their bodies take, and gives it
//!   back; [`descriptors`] tells how many fit.
//! - [`peer`] - where a request came from; [`forwarded`] - for whom a proxy asks.
//! - [`host`] - the server that a request means; [`origins`] - which web pages may use the daemon.
//! - [`client_certificate`] - the names in what a client showed.
//! - [`access`] - who asks and what they may do; [`tokens`] - the tokens, and `bigupd token`.
//! - [`routes`] - requests and answers; [`params`] reads queries, [`reply`] makes answers, [`answers`] large ones.
//! - [`uploads`] - what a request means for its upload.
//! - [`grants`] - what was granted and is not on the disk yet; [`census`] - the unfinished uploads that are; [`quota`] - what
//!   counts below a prefix; [`turns`] - counting, one for all who wait.
//! - [`contents`] - what finished files hold whose digest is not certain.
//! - [`body`], [`intake`]: bytes from the body to the disk; [`fresh`] keeps open what just came; [`shares`] - the threads for
//!   that and all else that may block.
//! - [`mergers`] - starting and watching mergers.
//! - [`hooks`] - who is asked before an upload begins, and told of finished files.
//! - [`look`] - looking after all uploads and info.ini.
//! - [`metrics`] - what is counted; [`ready`] - whether uploads can be taken; [`watching`] answers who asks for either.
//! - [`sweep`] - what is removed from time to time; [`expiry`] - the end of abandoned uploads.
//! - [`check`] - `bigupd check`: comparing what is stored with its digests.
//! - [`status`] - `bigupd status`; [`operate`] - `bigupd cancel`, `pause` and `resume`; [`owner`] - as whom they work.

pub mod access;
pub mod answers;
pub mod body;
pub mod census;
pub mod check;
pub mod client_certificate;
pub mod config;
pub mod contents;
pub mod descriptors;
pub mod expiry;
pub mod forwarded;
pub mod fresh;
pub mod grants;
pub mod hooks;
pub mod host;
pub mod intake;
pub mod lingering;
pub mod look;
pub mod memory;
pub mod mergers;
pub mod metrics;
pub mod operate;
pub mod origins;
pub mod owner;
pub mod pace;
pub mod params;
pub mod peer;
pub mod quota;
pub mod ready;
pub mod reply;
pub mod routes;
pub mod seats;
pub mod server;
pub mod service;
pub mod settings;
pub mod shares;
pub mod sockets;
pub mod status;
pub mod sweep;
pub mod timed;
pub mod tls;
pub mod tokens;
pub mod turns;
pub mod uploads;
pub mod watching;

use bigup_core::storage::data_dir::DataDir;
use config::{Config, Limits};
use expiry::Times;
use look::News;
use mergers::Mergers;
use metrics::Metrics;
use origins::Origins;
use ready::Readiness;
use routes::App;
use sockets::Listeners;
use std::sync::Arc;
use std::time::Duration;
use tls::Tls;
use tokio::sync::watch;
use uploads::Uploads;
use watching::Watching;

/// Most connections of those who watch the daemon: more than anybody has of them.
const MAX_WATCHERS: u64 = 256;

/// Runs the daemon on `listeners` over `data` until `stop` is done and running requests had their grace. With `tls` all
/// connections are TLS. `urls`, where it serves, are told to systemd. `for_watchers` are sockets of their own for those who
/// watch the daemon; they may go on while it stops.
///
/// Mergers go on: they need no daemon.
pub async fn run(
    listeners: Listeners,
    urls: String,
    data: DataDir,
    config: &Config,
    tls: Option<Arc<Tls>>,
    for_watchers: Option<Listeners>,
    stop: impl Future<Output = ()>,
) {
    let uploads = Uploads::new(data.clone(), Arc::new(config.clone()));
    let mergers = Mergers::new(uploads.clone());
    let news = News::default();
    let metrics = uploads.metrics.clone();
    let sweeper = tokio::spawn(sweep::sweep_forever(data.clone(), Times::of(config), metrics.clone()));
    let looker = tokio::spawn(look::look_forever(uploads.clone(), mergers.clone(), news.clone()));
    let reporter = tokio::spawn(service::report_forever(urls, data.clone(), mergers.clone()));
    let memory = tokio::spawn(memory::give_back_forever());
    let fresh = tokio::spawn(fresh::let_go_forever(uploads.fresh.clone()));
    let (stopping, is_stopping) = watch::channel(false);
    let teller = tokio::spawn(hooks::complete::tell_forever(
        data.clone(),
        config.hooks.clone(),
        uploads.completions.clone(),
        mergers.clone(),
        metrics.clone(),
        is_stopping.clone(),
        config.stop_grace,
    ));
    let watching = Watching::new(metrics.clone(), Readiness::new(&uploads, is_stopping.clone()));
    let origins = Origins::new(config);
    let watched = tokio::spawn(serve_watchers(for_watchers, watching.clone(), origins, metrics.clone()));
    let app = App::new(uploads, mergers.clone(), news, watching, is_stopping);
    let (uses, used_in) = (app.token_uses(), data.clone());
    let noting = tokio::spawn(uses.clone().write_forever(data.clone()));
    let routes = routes::routes(app);
    let (looks, reports) = (looker.abort_handle(), reporter.abort_handle());
    let stop = async {
        stop.await;
        // It would start mergers again.
        looks.abort();
        reports.abort();
        service::stopping();
        mergers.stop();
        stopping.send_replace(true);
    };
    server::serve(listeners, tls, routes, &config.limits, metrics, stop, config.stop_grace).await;
    // Hooks at work have had their grace by then, or nearly so. A panic there was reported where it happened.
    let _ = teller.await;
    noting.abort();
    if let Ok(Err(e)) = tokio::task::spawn_blocking(move || uses.write(&used_in)).await {
        log::warn!("when tokens were used cannot be written down: {e}");
    }
    sweeper.abort();
    memory.abort();
    fresh.abort();
    watched.abort();
}

/// Answers those who watch the daemon, for as long as it is polled.
async fn serve_watchers(listeners: Option<Listeners>, watching: Watching, origins: Origins, metrics: Metrics) {
    let Some(listeners) = listeners else { return };
    let limits = Limits { connections: MAX_WATCHERS, connections_per_address: 0, ..Config::defaults("".into()).limits };
    let (routes, never) = (watching::routes(watching, origins), std::future::pending());
    server::serve(listeners, None, routes, &limits, metrics, never, Duration::ZERO).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_tells_the_same_numbers() {
        let text = include_str!("../../docs/metrics.md").replace('\n', " ");
        assert!(text.contains(&format!("it has {MAX_WATCHERS} connections of its own")), "docs/metrics.md");
    }
}
