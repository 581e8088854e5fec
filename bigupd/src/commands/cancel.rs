//! `bigupd cancel`: removes unfinished uploads at once, whether or not a client or merger is at work on them.
//!
//! A merger at work is told to leave, which it does between two slices. Then its lock and that of the spool are taken,
//! so that no process is publishing, and the upload is removed ([`bigup_core::storage::finish::cancel`]). A daemon that
//! starts another merger meanwhile has that merger told to leave, too.

use super::{Outcome, each, finished, no_upload, with_store};
use crate::config::Config;
use crate::mergers::take_from_merger;
use bigup_core::protocol::name::FileName;
use bigup_core::protocol::units::{parse_duration, show_size};
use bigup_core::storage::data_dir::DataDir;
use bigup_core::storage::finish::cancel::{Ended, end};
use bigup_core::storage::info_ini::{self, InfoIni};
use bigup_core::storage::spool::{Spool, UploadId};
use std::io;
use std::process::ExitCode;
use std::time::Duration;

const AFTER_HELP: &str = "\
Exit codes:
  0  cancelled
  1  failure
  2  the command line or the configuration is invalid
  4  there is no such upload

Examples:
  bigupd cancel disk.img   remove an upload";

/// Arguments of `bigupd cancel`.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = AFTER_HELP)]
pub struct Arguments {
    /// Names of the uploads
    #[arg(value_name = "NAME", required = true, value_parser = |name: &str| FileName::new(name))]
    names: Vec<FileName>,
    /// Wait this long for a merger at work to exit
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse_duration)]
    wait: Duration,
}

/// Cancels the uploads, and prints the results.
pub fn run(config: &Config, arguments: &Arguments) -> ExitCode {
    each(&config.data_dir, &arguments.names, |data, name| {
        // Hooks must still be told of an upload that turns out to be finished.
        let data = with_store(data.clone(), config)?;
        let data = if config.hooks.on_complete.is_some() { data.recording_completions()? } else { data };
        cancel(&data, name, arguments.wait)
    })
}

/// Cancels the upload of `name`; a merger has so long to leave.
///
/// # Errors
/// The merger does not leave, or as the system gives them; the upload is as it was.
pub fn cancel(data: &DataDir, name: &FileName, wait: Duration) -> io::Result<Outcome> {
    let spool = Spool::of(data, &UploadId::of_name(name));
    let merger = match take_from_merger(&spool, wait) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(no_upload()),
        taken => taken?,
    };
    if let Err(e) = spool.lock()
        && e.kind() == io::ErrorKind::InvalidData
    {
        spool.remove_unreadable()?;
        info_ini::log_failure(name, InfoIni::new(data).remove(name));
        return Ok(Outcome::Done(format!("cancelled; it could not be read: {e}")));
    }
    Ok(match end(data, &spool, &merger, |_| true)? {
        Ended::NoUpload => no_upload(),
        Ended::Finished => finished(),
        Ended::Cancelled(held) => Outcome::Done(format!("cancelled, with the {} that it held", show_size(held))),
    })
}
