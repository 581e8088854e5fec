//! `bigup-merger`: merges the slices of one upload and publishes the file. Usually started by bigupd.

use bigup_core::event::{Event, How};
use bigup_core::name::FileName;
use bigup_merger::{Config, Ended, Events, Stop, run};
use clap::Parser;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Somebody else merges this upload.
const EXIT_ALREADY_RUNNING: u8 = 3;
/// There is no such upload.
const EXIT_NO_UPLOAD: u8 = 4;
/// The file cannot be published as things stand.
const EXIT_BLOCKED: u8 = 5;

/// Merges the slices of one upload, in order, while they arrive, and publishes the file when all are there.
///
/// bigupd starts it where there is something to merge; started by hand it does the same. It may be killed at any time:
/// the next one goes on where it stopped.
#[derive(Parser)]
#[command(
    version,
    after_help = "Exit codes: 0 done, idle or stopped; 1 failed; 2 wrong usage; 3 another merger is at \
work on this upload; 4 there is no such upload; 5 the file cannot be published as things stand (the reason is printed \
and stands in info.ini).\n\nBIGUP_LOG sets what is logged: error, warn, info (default), debug."
)]
struct Arguments {
    /// The data folder.
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// Name of the file, relative to the data folder's files/.
    #[arg(long, value_name = "NAME", value_parser = |name: &str| FileName::new(name))]
    file_name: FileName,
    /// Leave after this time without a new slice.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = bigup_core::units::parse_duration)]
    idle: Duration,
    /// Tell on standard output what is done: a line of JSON for each checkpoint, publication, and the end.
    #[arg(long)]
    events: bool,
    /// Leave a notice of the finished file in the data folder's completed/, where bigupd has a program told of it
    /// (on_complete).
    #[arg(long)]
    leave_notice: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    bigup_core::logging::logger("info").init();
    let name = arguments.file_name.clone();
    // Without standard output there is nobody to tell.
    let events = if arguments.events { Events::on_stdout().unwrap_or_default() } else { Events::untold() };
    let Arguments { data_dir, file_name, idle, leave_notice, .. } = arguments;
    let config = Config { data_dir, file_name, idle, leave_notice, events: events.clone() };
    let ended = Stop::on_signals().map_err(anyhow::Error::from).and_then(|stop| Ok(run(&config, &stop)?));
    if let Some(how) = ended.as_ref().ok().and_then(told) {
        events.tell(Event::Ended { how });
    }
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

/// What is told of an end that the exit code does not tell apart from others.
fn told(ended: &Ended) -> Option<How> {
    match ended {
        Ended::Published(_) => Some(How::Published),
        Ended::Idle => Some(How::Idle),
        Ended::Stopped => Some(How::Stopped),
        Ended::AlreadyRunning(_) | Ended::NoUpload | Ended::Blocked(_) => None,
    }
}
