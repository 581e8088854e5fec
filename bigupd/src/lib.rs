//! The daemon: receives slices over HTTP, tells clients which slices are held, starts mergers and looks after them.
//!
//! It keeps no state of uploads in memory: each request reads the data folder and leaves it in a state from which the
//! next request, at any daemon, can go on.
//!
//! - [`net`] - connections; [`http`] - requests and responses, a folder for each protocol.
//! - [`admission`] - permissions, limits and quotas.
//! - [`uploads`] - the effect of a request on its upload.
//! - [`mergers`] - starting and watching mergers; [`hooks`] - programs and URLs that are asked and told.
//! - [`upkeep`] - work that no request asks for; [`commands`] - commands for operators.
//! - [`refusal`] - why a request is refused.
//! - [`cli`] - the command line; [`config`] - the settings; [`metrics`] - counters and gauges; [`readiness`] - tells if
//!   uploads can be taken; [`systemd`] - messages to the service manager; [`descriptors`] - limits of open files;
//!   [`ending`] - draining and stopping.

pub mod admission;
pub mod cli;
pub mod commands;
pub mod config;
pub mod descriptors;
pub mod ending;
pub mod hooks;
pub mod http;
pub mod mergers;
pub mod metadata;
pub mod metrics;
pub mod net;
pub mod readiness;
pub mod refusal;
pub mod systemd;
pub mod upkeep;
pub mod uploads;

use admission::access::Authenticator;
use admission::origins::Origins;
use bigup_core::storage::data_dir::DataDir;
use config::Config;
use ending::Asked;
use http::app::{App, Settings};
use http::page::site::Site;
use http::probes::{self, Probes};
use http::routes::routes;
use mergers::Mergers;
use metrics::Metrics;
use net::limits::Limits;
use net::listeners::Listeners;
use net::tls::Tls;
use net::{body_memory, server};
use readiness::Readiness;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use upkeep::expiry::ExpiryTimes;
use upkeep::reconcile::{self, Wakeup};
use upkeep::sweep;
use uploads::{Uploads, recent_slices};

/// Most connections of monitoring programs; more than a real system has.
const MAX_WATCHERS: u64 = 256;

/// Runs the daemon on `listeners` over `data` until it is `asked` to stop and running requests had their grace. With `tls` all
/// connections are TLS. `urls`, its addresses, are told to systemd. `for_watchers` are sockets of their own for
/// monitoring programs; they can go on while the daemon stops.
///
/// Mergers go on: they need no daemon.
pub async fn run(
    listeners: Listeners,
    urls: String,
    data: DataDir,
    config: &Config,
    tls: Option<Arc<Tls>>,
    for_watchers: Option<Listeners>,
    asked: Asked,
) {
    let uploads = Uploads::new(data.clone(), config.uploads.clone(), &config.hooks);
    let mergers = Mergers::new(data.clone(), config.mergers.clone(), uploads.metrics.clone());
    let wakeup = Wakeup::default();
    let metrics = uploads.metrics.clone();
    let sweeper = tokio::spawn(sweep::sweep_forever(
        data.clone(),
        ExpiryTimes { any: config.expire_after, begun: config.begin_expire_after },
        metrics.clone(),
    ));
    let reconciler = tokio::spawn(reconcile::reconcile_forever(uploads.clone(), mergers.clone(), wakeup.clone()));
    let at_work = {
        let mergers = mergers.clone();
        move || mergers.at_work()
    };
    let reporter = tokio::spawn(systemd::report_forever(urls, data.clone(), at_work));
    let memory = tokio::spawn(body_memory::give_back_forever());
    let recent = tokio::spawn(recent_slices::let_go_forever(uploads.recent.clone()));
    let (stopping, is_stopping) = watch::channel(false);
    let teller = tokio::spawn(hooks::complete::tell_forever(
        data.clone(),
        config.hooks.clone(),
        uploads.completions.clone(),
        mergers.ended(),
        metrics.clone(),
        is_stopping.clone(),
        config.stop_grace,
    ));
    let (draining, is_draining) = watch::channel(false);
    let probes = Probes::new(metrics.clone(), Readiness::new(&uploads, is_draining, is_stopping.clone()));
    let origins = config.origins();
    let watched = tokio::spawn(serve_watchers(for_watchers, probes.clone(), origins, metrics.clone()));
    let authenticator = Authenticator::new(&data, config.access(), config.origins());
    let settings = Settings {
        limits: config.limits.clone(),
        expiry: ExpiryTimes { any: config.expire_after, begun: config.begin_expire_after },
        has_metrics_listener: config.metrics_listen.is_some(),
        page: Site::new(&config.page),
    };
    let app = App::new(uploads, mergers.clone(), wakeup, probes, authenticator, settings, is_stopping);
    let (uses, used_in) = (app.token_uses(), data.clone());
    let noting = tokio::spawn(uses.clone().write_forever(data.clone()));
    let routes = routes(app);
    let (looks, reports) = (reconciler.abort_handle(), reporter.abort_handle());
    let stop = async {
        asked.drained(config.drain_time, draining).await;
        // It would start mergers again.
        looks.abort();
        reports.abort();
        systemd::stopping();
        mergers.stop();
        stopping.send_replace(true);
    };
    server::serve(listeners, tls, routes, &config.limits, metrics, stop, config.stop_grace).await;
    // Hooks at work have had their grace by then, or nearly so. A panic there was reported where it happened.
    let _ = teller.await;
    noting.abort();
    if let Ok(Err(e)) = tokio::task::spawn_blocking(move || uses.write(&used_in)).await {
        log::warn!("cannot write the last uses of tokens: {e}");
    }
    sweeper.abort();
    memory.abort();
    recent.abort();
    watched.abort();
}

/// Serves monitoring programs, for as long as it is polled.
async fn serve_watchers(listeners: Option<Listeners>, probes: Probes, origins: Origins, metrics: Metrics) {
    let Some(listeners) = listeners else { return };
    let limits = Limits { connections: MAX_WATCHERS, connections_per_address: 0, ..Config::defaults("".into()).limits };
    let (routes, never) = (probes::routes(probes, origins), std::future::pending());
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
