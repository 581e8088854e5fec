//! `bigup-merger`: merges the slices of one upload and publishes the file. Usually bigupd starts it.

use bigup_core::merger_events::{MergerEvent, MergerExit};
use bigup_core::storage::data_dir::FileModes;
use bigup_merger::args::Arguments;
use bigup_merger::{Config, Events, MergeEnd, Stop, run};
use clap::Parser;
use std::process::ExitCode;

/// Exit code if another merger has this upload.
const EXIT_ALREADY_RUNNING: u8 = 3;
/// Exit code if there is no such upload.
const EXIT_NO_UPLOAD: u8 = 4;
/// Exit code if the file cannot be published as things stand.
const EXIT_BLOCKED: u8 = 5;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    bigup_core::logging::start("info", Some(&arguments.file_name));
    let name = arguments.file_name.clone();
    // Without standard output there is nobody to tell.
    let events = if arguments.events { Events::on_stdout().unwrap_or_default() } else { Events::none() };
    let store = arguments.object_settings();
    let Arguments { data_dir, file_name, idle, leave_notice, file_mode, dir_mode, .. } = arguments;
    let modes = FileModes { file: file_mode, dir: dir_mode };
    let config = Config { data_dir, file_name, idle, leave_notice, modes, store, events: events.clone() };
    let ended = Stop::on_signals().map_err(anyhow::Error::from).and_then(|stop| Ok(run(&config, &stop)?));
    if let Some(how) = ended.as_ref().ok().and_then(told) {
        events.tell(MergerEvent::Ended { how });
    }
    match ended {
        Ok(MergeEnd::Published(digest)) => {
            log::info!("{name}: merged, verified and published, digest {digest}");
            ExitCode::SUCCESS
        }
        Ok(MergeEnd::Idle | MergeEnd::Stopped) => ExitCode::SUCCESS,
        Ok(MergeEnd::AlreadyRunning(pid)) => {
            log::warn!("{name}: another merger is at work (process {pid})");
            ExitCode::from(EXIT_ALREADY_RUNNING)
        }
        Ok(MergeEnd::NoUpload) => {
            log::warn!("{name}: there is no such upload in {}", config.data_dir.display());
            ExitCode::from(EXIT_NO_UPLOAD)
        }
        Ok(MergeEnd::Blocked(why)) => {
            log::error!("{name}: cannot be published: {why}");
            ExitCode::from(EXIT_BLOCKED)
        }
        Err(error) => {
            log::error!("{name}: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The event for an end that the exit code does not tell apart from others.
fn told(ended: &MergeEnd) -> Option<MergerExit> {
    match ended {
        MergeEnd::Published(_) => Some(MergerExit::Published),
        MergeEnd::Idle => Some(MergerExit::Idle),
        MergeEnd::Stopped => Some(MergerExit::Stopped),
        MergeEnd::AlreadyRunning(_) | MergeEnd::NoUpload | MergeEnd::Blocked(_) => None,
    }
}
