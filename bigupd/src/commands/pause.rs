//! `bigupd pause` and `bigupd resume`: an upload that takes no slices for a while. Its client waits meanwhile, up to
//! its own limit. Held slices are merged, and the file is finished if nothing is missing.

use super::{Outcome, each, finished, no_upload};
use crate::config::Config;
use bigup_core::protocol::name::FileName;
use bigup_core::storage::data_dir::DataDir;
use bigup_core::storage::finish::publish::is_moved;
use bigup_core::storage::info_ini::{self, InfoIni};
use bigup_core::storage::spool::{Spool, UploadId, UploadRecord};
use std::io;
use std::process::ExitCode;

const AFTER_HELP: &str = "\
Exit codes:
  0  success
  1  failure
  2  the command line or the configuration is invalid
  4  there is no such upload

Examples:
  bigupd pause disk.img   refuse slices of an upload for now
  bigupd resume disk.img   accept them again";

/// Arguments of both.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = AFTER_HELP)]
pub struct Arguments {
    /// Names of the uploads
    #[arg(value_name = "NAME", required = true, value_parser = |name: &str| FileName::new(name))]
    names: Vec<FileName>,
}

/// Pauses or resumes the uploads, and prints the results.
pub fn run(config: &Config, arguments: &Arguments, paused: bool) -> ExitCode {
    each(&config.data_dir, &arguments.names, |data, name| set(data, name, paused))
}

/// Has the upload of `name` paused, or not.
///
/// # Errors
/// As the system gives them; it is as it was.
pub fn set(data: &DataDir, name: &FileName, paused: bool) -> io::Result<Outcome> {
    let spool = Spool::of(data, &UploadId::of_name(name));
    let Some(mut locked) = spool.lock()? else { return Ok(no_upload()) };
    if is_moved(data, &spool, &locked)? {
        return Ok(finished());
    }
    let upload = UploadRecord { paused, ..locked.upload().clone() };
    locked.save(upload)?;
    drop(locked);
    info_ini::log_failure(name, InfoIni::new(data).refresh(&spool, name, None));
    Ok(Outcome::Done(if paused { "paused" } else { "not paused" }.to_owned()))
}
