//! `bigupd`: the bigup daemon.

use anyhow::Context;
use bigup_core::protocol::name::printable;
use bigup_core::storage::data_dir::DataDir;
use bigup_core::storage::objects::Objects;
use bigupd::admission::{access, origins, thread_shares};
use bigupd::cli::{Arguments, Command, DataDirCommand, Mode};
use bigupd::commands::{cancel, check, drain, pause, status};
use bigupd::config::Config;
use bigupd::descriptors::{self, OtherHolders};
use bigupd::ending::Asked;
use bigupd::http::probes;
use bigupd::net::body_memory;
use bigupd::net::listeners::{InheritedSockets, Listen, Listeners};
use bigupd::net::tls::Tls;
use bigupd::systemd;
use clap::Parser;
use nix::libc::SIGXFSZ;
use nix::sys::resource::{Resource, getrlimit};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The configuration is wrong: as clap's own code for a wrong command line.
const EXIT_USAGE: u8 = 2;

/// Time for which a thread for disk work waits for more work before it ends.
const THREAD_IDLE: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    #[cfg(all(target_env = "gnu", target_feature = "crt-static"))]
    bigup_core::host_names::find_by_files_and_dns();
    descriptors::keep_from_children();
    let mut arguments = Arguments::parse();
    let command = match arguments.command.take() {
        Some(Command::Drain(arguments)) => return drain::run(&arguments),
        Some(Command::OfDataDir(command)) => Some(*command),
        None => None,
    };
    let settled = arguments.settle(&|name| std::env::var(name).ok());
    bigup_core::journal::start("info", None);
    let (mut config, mode) = match settled {
        Ok(settled) => settled,
        Err(mistakes) => return refuse(&mistakes),
    };
    if let Some(command) = command {
        return match command {
            DataDirCommand::Check(arguments) => check::run(&config, &arguments),
            DataDirCommand::Token(arguments) => ended(arguments.run(&config.data_dir)),
            DataDirCommand::Status(arguments) => status::run(&config, &arguments),
            DataDirCommand::Cancel(arguments) => cancel::run(&config, &arguments),
            DataDirCommand::Pause(arguments) => pause::run(&config, &arguments, true),
            DataDirCommand::Resume(arguments) => pause::run(&config, &arguments, false),
        };
    }
    let passed = match InheritedSockets::take() {
        Ok(passed) => passed,
        Err(mistake) => return refuse(&[mistake]),
    };
    listen_as_passed(&mut config, &passed);
    if let Err(mistake) = access::check_listen(&config.data_dir, &config.listen, config.access())
        .and_then(|()| origins::check_any(&config.data_dir, &config.allowed_origins, config.allow_anonymous))
    {
        return refuse(&[mistake]);
    }
    config.metrics_listen.and_then(probes::warning).into_iter().for_each(|warning| log::warn!("{warning}"));
    let files = [config.hooks.mistakes(), config.page.mistakes()].concat();
    let tls = match config.tls.as_ref().map(Tls::load).transpose() {
        Ok(tls) if files.is_empty() => tls.map(Arc::new),
        Ok(_) => return refuse(&files),
        Err(mistakes) => return refuse(&[mistakes, files].concat()),
    };
    let objects = match config.store.clone().map(Objects::new).transpose() {
        Ok(objects) => objects.map(Arc::new),
        Err(mistake) => return refuse(&[mistake]),
    };
    if let Some(Err(why)) = objects.as_ref().map(|objects| objects.check_told()) {
        return ended(Err(anyhow::Error::msg(why)));
    }
    if mode.check_config {
        if let Err(e) = check_mounts(&config) {
            return refuse(&[e.to_string()]);
        }
        println!("the configuration is right");
        return ExitCode::SUCCESS;
    }
    let has_hooks = config.hooks.on_begin.is_some() || config.hooks.on_complete.is_some();
    let others = OtherHolders { mergers: config.mergers.most, has_hooks };
    config.limits.connections = descriptors::fit(config.limits.connections, others);
    fit_file_size(&mut config.uploads.file_size);
    ended(serve(&config, mode, passed, tls, objects))
}

/// Passed sockets replace `listen`, also in the check of permitted addresses.
fn listen_as_passed(config: &mut Config, passed: &InheritedSockets) {
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

/// Takes no larger files than the system lets this process and its mergers write (`ulimit -f`, `LimitFSIZE=`).
fn fit_file_size(file_size: &mut u64) {
    match getrlimit(Resource::RLIMIT_FSIZE) {
        Ok((most, _)) if most < *file_size => {
            log::warn!("max_file_size lowered from {file_size} to {most} bytes: the limit of file sizes (ulimit -f)");
            *file_size = most;
        }
        Ok(_) => {}
        Err(e) => log::warn!("cannot find out the largest file size allowed: {e}"),
    }
}

fn serve(
    config: &Config,
    mode: Mode,
    passed: InheritedSockets,
    tls: Option<Arc<Tls>>,
    objects: Option<Arc<Objects>>,
) -> anyhow::Result<()> {
    body_memory::keep_some();
    body_memory::BODIES.limit(config.limits.body_memory);
    let data = DataDir::create(&config.data_dir)?.with_modes(config.modes).with_objects(objects);
    let data = if config.hooks.on_complete.is_some() { data.recording_completions()? } else { data };
    warn_of_mounts(&data);
    let runtime = runtime().context("starting threads")?;
    let served = runtime.block_on(async {
        let listeners = passed
            .or_bind(&config.listen, config.listen_mode)
            .with_context(|| format!("listening on {}", config.listen))?;
        let scheme = if tls.is_some() { "https" } else { "http" };
        let addresses = listeners.addresses().context("asking for the address listened on")?;
        let urls = addresses.iter().map(|address| address.url(scheme)).collect::<Vec<_>>().join(" ");
        let for_watchers = config.metrics_listen.map(listen_for_watchers).transpose()?;
        let asked = Asked::by_signals(mode.until_stdin_closes)?;
        // From here on a file that is larger than allowed is an error of the write, and not our end (setrlimit(2)).
        let _too_large = signal(SignalKind::from_raw(SIGXFSZ)).context("handling SIGXFSZ")?;
        tokio::spawn(reload_forever(signal(SignalKind::hangup()).context("handling SIGHUP")?, tls.clone()));
        // For the parent process: from here on connections are accepted. A closed standard output is no reason to end.
        let _ = writeln!(std::io::stdout(), "bigupd listening on {urls}");
        log::info!("listening on {urls}, data in {}", data.root().display());
        systemd::ready(&urls);
        bigupd::run(listeners, urls, data, config, tls, for_watchers, asked).await;
        Ok(())
    });
    // A thread that reads standard input never comes back; a thread that publishes a file might not.
    runtime.shutdown_timeout(config.stop_grace);
    served
}

/// A thread for each processor, and others for work that waits on a disk.
fn runtime() -> io::Result<Runtime> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.enable_all().max_blocking_threads(thread_shares::THREADS).thread_keep_alive(THREAD_IDLE).build()
}

/// Checks that finished files can be moved to their places, as far as the data folder exists yet.
fn check_mounts(config: &Config) -> std::io::Result<()> {
    let Ok(data) = DataDir::open(&config.data_dir) else { return Ok(()) };
    warn_of_mounts(&data);
    data.check_mounts()
}

fn warn_of_mounts(data: &DataDir) {
    for point in data.mounts_in_files() {
        log::warn!(
            "{} is a mount of its own: uploads of names there are refused, since no file can be moved to it from {}",
            point.display(),
            data.tmp().display()
        );
    }
}

fn listen_for_watchers(address: SocketAddr) -> anyhow::Result<Listeners> {
    let address = Listen::from(address);
    let listeners = Listeners::bind(&address, 0).with_context(|| format!("listening on {address} (metrics_listen)"))?;
    let bound = listeners.addresses().ok().and_then(|addresses| addresses.first().cloned());
    log::info!("metrics on {}/metrics", bound.unwrap_or(address).url("http"));
    Ok(listeners)
}

/// Reads certificates again at each SIGHUP. Without TLS there is nothing to read, and the signal ends nothing either.
async fn reload_forever(mut hangup: Signal, tls: Option<Arc<Tls>>) {
    while hangup.recv().await.is_some() {
        systemd::reloading(|| reload(tls.as_deref()));
    }
}

fn reload(tls: Option<&Tls>) {
    match tls.map(Tls::reload) {
        None => log::info!("SIGHUP ignored: TLS is off"),
        Some(Ok(())) => log::info!("SIGHUP: certificates reloaded for new connections"),
        Some(Err(mistakes)) => {
            mistakes.iter().for_each(|mistake| log::error!("{mistake}"));
            log::error!("SIGHUP: the certificates in use stay as they are");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_tells_the_same_numbers() {
        let text = include_str!("../../docs/operations.md").replace("\n ", "");
        assert!(text.contains(&format!(
            "at most {}. One without work ends after {} s",
            thread_shares::THREADS,
            THREAD_IDLE.as_secs()
        )));
    }
}
