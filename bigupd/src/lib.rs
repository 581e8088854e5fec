//! The daemon: receives slices over HTTP, answers what is held, starts mergers and looks after them.
//!
//! It keeps no state of uploads in memory: each request reads the data folder and leaves it such that the next one, of
//! whichever daemon, can go on.
//!
//! - [`settings`] - the table of all settings; [`config`] - reading and checking them.
//! - [`sockets`] - where connections come in; [`service`] - what is told to systemd.
//! - [`server`] - connections; [`tls`] - their certificates and handshakes; [`seats`] counts them, [`timed`] and [`pace`]
//!   limit their time; [`memory`] gives back what they needed.
//! - [`access`] - who asks and what they may do; [`tokens`] - the tokens, and `bigupd token`; [`quota`].
//! - [`routes`] - requests and answers; [`params`] reads queries, [`reply`] makes answers, [`answers`] large ones.
//! - [`uploads`] - what a request means for its upload; [`census`] tells how many there are, [`arriving`] of those that
//!   have no spool.
//! - [`body`], [`intake`]: bytes from the body to the disk.
//! - [`mergers`] - starting and watching mergers.
//! - [`look`] - looking after all uploads and info.ini.
//! - [`sweep`] - what is removed from time to time; [`expiry`] - the end of abandoned uploads.
//! - [`check`] - `bigupd check`: comparing what is stored with its digests.
//! - [`status`] - `bigupd status`; [`operate`] - `bigupd cancel`, `pause` and `resume`.

pub mod access;
pub mod answers;
pub mod arriving;
pub mod body;
pub mod census;
pub mod check;
pub mod config;
pub mod expiry;
pub mod intake;
pub mod look;
pub mod memory;
pub mod mergers;
pub mod operate;
pub mod pace;
pub mod params;
pub mod quota;
pub mod reply;
pub mod routes;
pub mod seats;
pub mod server;
pub mod service;
pub mod settings;
pub mod sockets;
pub mod status;
pub mod sweep;
pub mod timed;
pub mod tls;
pub mod tokens;
pub mod uploads;

use bigup_core::data_dir::DataDir;
use config::Config;
use look::News;
use mergers::Mergers;
use routes::App;
use sockets::Listeners;
use std::sync::Arc;
use tls::Tls;
use tokio::sync::watch;
use uploads::Uploads;

/// Runs the daemon on `listeners` over `data` until `stop` is done and running requests had their grace. With `tls` all
/// connections are TLS. `urls`, where it serves, are told to systemd.
///
/// Mergers go on: they need no daemon.
pub async fn run(
    listeners: Listeners,
    urls: String,
    data: DataDir,
    config: &Config,
    tls: Option<Arc<Tls>>,
    stop: impl Future<Output = ()>,
) {
    let uploads = Uploads::new(data.clone(), Arc::new(config.clone()));
    let mergers = Mergers::new(uploads.clone());
    let news = News::default();
    let sweeper = tokio::spawn(sweep::sweep_forever(data.clone(), config.expire_after));
    let looker = tokio::spawn(look::look_forever(data.clone(), mergers.clone(), news.clone()));
    let reporter = tokio::spawn(service::report_forever(urls, data, mergers.clone()));
    let memory = tokio::spawn(memory::give_back_forever());
    let (stopping, is_stopping) = watch::channel(false);
    let routes = routes::routes(App::new(uploads, mergers.clone(), news, is_stopping));
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
    server::serve(listeners, tls, routes, &config.limits, stop, config.stop_grace).await;
    sweeper.abort();
    memory.abort();
}
