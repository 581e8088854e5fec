//! Commands for operators: `bigupd check`, `status`, `cancel`, `pause`, `resume`, `token` and `drain`.
//!
//! They need no daemon and disturb none: everything is decided by the state of the data folder. `drain` alone is for a
//! daemon, which it sends a signal. No command knows HTTP.

use crate::config::Config;
use bigup_core::protocol::name::{FileName, printable};
use bigup_core::storage::data_dir::DataDir;
use bigup_core::storage::objects::Objects;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

pub mod cancel;
pub mod check;
pub mod drain;
pub mod owner;
pub mod pause;
pub mod status;
pub mod token;

/// There is no such upload: as bigup-merger's code for it.
pub const EXIT_NO_UPLOAD: u8 = 4;

/// The result for one name.
pub enum Outcome {
    /// The request is fulfilled; the text tells the action.
    Done(String),
    /// There is no unfinished upload of this name; the text tells its state.
    NoUpload(String),
}

/// The data folder with the store of objects, if one is set.
fn with_store(data: DataDir, config: &Config) -> io::Result<DataDir> {
    let objects = config.store.clone().map(Objects::new).transpose().map_err(io::Error::other)?;
    Ok(data.with_objects(objects.map(Arc::new)))
}

/// Acts on the uploads of these names in `data_dir`, in order, and prints the results. A failure does not stop the
/// others.
fn each(data_dir: &Path, names: &[FileName], act: impl Fn(&DataDir, &FileName) -> io::Result<Outcome>) -> ExitCode {
    let data = match owner::open(data_dir) {
        Ok(data) => data,
        Err(e) => {
            eprintln!("bigupd: {}", printable(&e.to_string()));
            return ExitCode::FAILURE;
        }
    };
    let (mut failed, mut missing) = (false, false);
    for name in names {
        match act(&data, name) {
            // The action is done, whether or not its result can be printed.
            Ok(Outcome::Done(what)) => drop(writeln!(io::stdout(), "{name}: {}", printable(&what))),
            Ok(Outcome::NoUpload(what)) => {
                missing = true;
                eprintln!("bigupd: {name}: {}", printable(&what));
            }
            Err(e) => {
                failed = true;
                eprintln!("bigupd: {name}: {}", printable(&e.to_string()));
            }
        }
    }
    match (failed, missing) {
        (true, _) => ExitCode::FAILURE,
        (false, true) => ExitCode::from(EXIT_NO_UPLOAD),
        (false, false) => ExitCode::SUCCESS,
    }
}

fn no_upload() -> Outcome {
    Outcome::NoUpload("there is no unfinished upload of this name".to_owned())
}

fn finished() -> Outcome {
    Outcome::NoUpload("it is finished; finished files are not touched".to_owned())
}
