//! `bigupd`: the bigup daemon.

use anyhow::Context;
use bigup_core::data_dir::DataDir;
use bigupd::config::{Arguments, Config, Mode};
use clap::Parser;
use std::io::Write;
use std::process::ExitCode;
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

/// The configuration is wrong: as clap's own code for a wrong command line.
const EXIT_USAGE: u8 = 2;

fn main() -> ExitCode {
    let settled = Arguments::parse().settle(&|name| std::env::var(name).ok());
    env_logger::Builder::from_env(env_logger::Env::new().filter_or("BIGUP_LOG", "info")).init();
    let (config, mode) = match settled {
        Ok(settled) => settled,
        Err(mistakes) => {
            for mistake in mistakes {
                eprintln!("bigupd: {mistake}");
            }
            return ExitCode::from(EXIT_USAGE);
        }
    };
    if mode.check_config {
        println!("the configuration is right");
        return ExitCode::SUCCESS;
    }
    match serve(&config, mode) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bigupd: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn serve(config: &Config, mode: Mode) -> anyhow::Result<()> {
    let data = DataDir::create(&config.data_dir)?;
    let runtime = tokio::runtime::Runtime::new().context("starting threads")?;
    let served = runtime.block_on(async {
        let listener =
            TcpListener::bind(config.listen).await.with_context(|| format!("listening on {}", config.listen))?;
        let address = listener.local_addr().context("asking for the address listened on")?;
        let stop = stop_asked(mode)?;
        // For whoever started us: from here on connections are accepted. A closed standard output is no reason to end.
        let _ = writeln!(std::io::stdout(), "bigupd listening on http://{address}");
        log::info!("listening on http://{address}, data in {}", data.root().display());
        bigupd::run(listener, data, config, stop).await;
        Ok(())
    });
    // A thread that reads standard input never comes back; one that publishes a file may.
    runtime.shutdown_timeout(config.stop_grace);
    served
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
