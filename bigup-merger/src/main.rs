//! `bigup-merger`: merges the slices of one upload and publishes the file. Usually started by bigupd.

use bigup_merger::args::Arguments;
use bigup_merger::{Config, Ended, Stop, run};
use clap::Parser;
use std::process::ExitCode;

/// Somebody else merges this upload.
const EXIT_ALREADY_RUNNING: u8 = 3;
/// There is no such upload.
const EXIT_NO_UPLOAD: u8 = 4;
/// The file cannot be published as things stand.
const EXIT_BLOCKED: u8 = 5;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    bigup_core::logging::start("info", Some(&arguments.file_name));
    let name = arguments.file_name.clone();
    let config = Config { data_dir: arguments.data_dir, file_name: arguments.file_name, idle: arguments.idle };
    let ended = Stop::on_signals().map_err(anyhow::Error::from).and_then(|stop| Ok(run(&config, &stop)?));
    match ended {
        Ok(Ended::Published(digest)) => {
            log::info!("{name}: merged, verified and published, digest {digest}");
            ExitCode::SUCCESS
        }
        Ok(Ended::Idle | Ended::Stopped) => ExitCode::SUCCESS,
        Ok(Ended::AlreadyRunning(pid)) => {
            log::warn!("{name}: another merger is at work (process {pid})");
            ExitCode::from(EXIT_ALREADY_RUNNING)
        }
        Ok(Ended::NoUpload) => {
            log::warn!("{name}: there is no such upload in {}", config.data_dir.display());
            ExitCode::from(EXIT_NO_UPLOAD)
        }
        Ok(Ended::Blocked(why)) => {
            log::error!("{name}: cannot be published: {why}");
            ExitCode::from(EXIT_BLOCKED)
        }
        Err(error) => {
            log::error!("{name}: {error:#}");
            ExitCode::FAILURE
        }
    }
}
