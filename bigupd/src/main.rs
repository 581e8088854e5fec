//! `bigupd`: the bigup daemon.

use anyhow::Context;
use bigup_core::data_dir::DataDir;
use bigup_core::name::printable;
use bigupd::config::{Arguments, Command, Config, Limits, Mode};
use bigupd::operate::{cancel, pause};
use bigupd::service;
use bigupd::sockets::{Listeners, Passed};
use bigupd::tls::Tls;
use bigupd::{check, memory, shares, status};
use clap::Parser;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::io::Write;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use tokio::io::AsyncReadExt;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The configuration is wrong: as clap's own code for a wrong command line.
const EXIT_USAGE: u8 = 2;

fn main() -> ExitCode {
    let mut arguments = Arguments::parse();
    let command = arguments.command.take();
    let settled = arguments.settle(&|name| std::env::var(name).ok());
    bigup_core::logging::start("info", None);
    let (mut config, mode) = match settled {
        Ok(settled) => settled,
        Err(mistakes) => return refuse(&mistakes),
    };
    if let Some(command) = command {
        return match command {
            Command::Check(arguments) => check::run(&config, &arguments),
            Command::Token(arguments) => ended(arguments.run(&config.data_dir)),
            Command::Status(arguments) => status::run(&config, &arguments),
            Command::Cancel(arguments) => cancel::run(&config, &arguments),
            Command::Pause(arguments) => pause::run(&config, &arguments, true),
            Command::Resume(arguments) => pause::run(&config, &arguments, false),
        };
    }
    let passed = match Passed::take() {
        Ok(passed) => passed,
        Err(mistake) => return refuse(&[mistake]),
    };
    listen_as_passed(&mut config, &passed);
    if let Err(mistake) = bigupd::access::check_listen(&config) {
        return refuse(&[mistake]);
    }
    let hooks = config.hooks.mistakes();
    let tls = match config.tls.as_ref().map(Tls::load).transpose() {
        Ok(tls) if hooks.is_empty() => tls.map(Arc::new),
        Ok(_) => return refuse(&hooks),
        Err(mistakes) => return refuse(&[mistakes, hooks].concat()),
    };
    if mode.check_config {
        println!("the configuration is right");
        return ExitCode::SUCCESS;
    }
    fit_connections(&mut config.limits);
    ended(serve(&config, mode, passed, tls))
}

/// Sockets that were passed count in place of `listen`, also for who may listen where.
fn listen_as_passed(config: &mut Config, passed: &Passed) {
    if let Some(address) = passed.most_exposed() {
        if config.listen != address && config.listen != Config::defaults(config.data_dir.clone()).listen {
            log::warn!(
                "listen is {}, but systemd passes a socket on {address}, which counts: see bigupd.socket",
                config.listen
            );
        }
        config.listen = address;
    }
}

fn ended(done: anyhow::Result<()>) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bigupd: {}", printable(&format!("{error:#}")));
            ExitCode::FAILURE
        }
    }
}

fn refuse(mistakes: &[String]) -> ExitCode {
    for mistake in mistakes {
        eprintln!("bigupd: {}", printable(mistake));
    }
    ExitCode::from(EXIT_USAGE)
}

/// Takes all file descriptors that the system allows, and no more connections than they are enough for.
fn fit_connections(limits: &mut Limits) {
    let files = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(_, hard)| {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
        Ok(hard)
    });
    match files.map(|files| (files, connections_for(files))) {
        Ok((files, fit)) if limits.connections > fit => {
            log::warn!("max_connections is {}, but {files} open files are allowed: {fit} it is", limits.connections);
            limits.connections = fit;
        }
        Ok(_) => {}
        Err(e) => log::warn!("how many files may be open cannot be told or changed: {e}"),
    }
}

/// How many connections so many descriptors are enough for: each has a socket, and one in three a slice arriving, far more
/// than memory is enough for; besides, requests at work open files of spools, and refused connections have sockets too.
fn connections_for(files: u64) -> u64 {
    ((files - (files / 4).min(2048)) / 4 * 3).max(1)
}

fn serve(config: &Config, mode: Mode, passed: Passed, tls: Option<Arc<Tls>>) -> anyhow::Result<()> {
    memory::keep_some();
    let data = DataDir::create(&config.data_dir)?;
    let data = if config.hooks.on_complete.is_some() { data.leaving_notices()? } else { data };
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.enable_all().max_blocking_threads(shares::THREADS).build().context("starting threads")?;
    let served = runtime.block_on(async {
        let listeners = passed.or_bind(config.listen).with_context(|| format!("listening on {}", config.listen))?;
        let scheme = if tls.is_some() { "https" } else { "http" };
        let addresses = listeners.addresses().context("asking for the address listened on")?;
        let urls = addresses.iter().map(|address| format!("{scheme}://{address}")).collect::<Vec<_>>().join(" ");
        let for_watchers = config.metrics_listen.map(listen_for_watchers).transpose()?;
        let stop = stop_asked(mode)?;
        tokio::spawn(reload_forever(signal(SignalKind::hangup()).context("handling SIGHUP")?, tls.clone()));
        // For whoever started us: from here on connections are accepted. A closed standard output is no reason to end.
        let _ = writeln!(std::io::stdout(), "bigupd listening on {urls}");
        log::info!("listening on {urls}, data in {}", data.root().display());
        service::ready(&urls);
        bigupd::run(listeners, urls, data, config, tls, for_watchers, stop).await;
        Ok(())
    });
    // A thread that reads standard input never comes back; one that publishes a file may.
    runtime.shutdown_timeout(config.stop_grace);
    served
}

fn listen_for_watchers(address: SocketAddr) -> anyhow::Result<Listeners> {
    let listeners = Listeners::bind(address).with_context(|| format!("listening on {address} (metrics_listen)"))?;
    let bound = listeners.addresses().ok().and_then(|addresses| addresses.first().copied());
    log::info!("metrics on http://{}/metrics", bound.unwrap_or(address));
    Ok(listeners)
}

/// Reads certificates again at each SIGHUP. Without TLS there is nothing to read, and the signal ends nothing either.
async fn reload_forever(mut hangup: Signal, tls: Option<Arc<Tls>>) {
    while hangup.recv().await.is_some() {
        service::reloading(|| reload(tls.as_deref()));
    }
}

fn reload(tls: Option<&Tls>) {
    match tls.map(Tls::reload) {
        None => log::info!("SIGHUP: there is no TLS, and nothing to read again"),
        Some(Ok(())) => log::info!("SIGHUP: new connections get the certificates as they are now"),
        Some(Err(mistakes)) => {
            mistakes.iter().for_each(|mistake| log::error!("{mistake}"));
            log::error!("SIGHUP: the certificates in use stay as they are");
        }
    }
}

/// Done once a signal, or the end of standard input where that counts, asks to stop.
fn stop_asked(mode: Mode) -> anyhow::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate()).context("handling SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("handling SIGINT")?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            () = stdin_closed(), if mode.until_stdin_closes => {}
        }
    })
}

async fn stdin_closed() {
    let mut stdin = tokio::io::stdin();
    let mut ignored = [0; 64];
    while matches!(stdin.read(&mut ignored).await, Ok(n) if n > 0) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_descriptors_for_other_things() {
        assert_eq!([0, 64, 1024, 1_048_576].map(connections_for), [1, 36, 576, 784_896]);
        assert_eq!(connections_for(u64::MAX), (u64::MAX - 2048) / 4 * 3);
    }
}
