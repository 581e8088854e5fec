//! The options of the commands for finished files: `list`, `get`, `remove`, and of `cancel`.

use crate::cli::args::server::Server;
use crate::cli::args::transfer::Transfer;
use crate::cli::report::Style;
use clap::Args;
use std::path::PathBuf;

/// Arguments of `list`.
#[derive(Args, Debug)]
pub struct ListArgs {
    /// The beginning of the names, like runs/2026/; without it all names
    pub prefix: Option<String>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub server: Server,
    /// Print JSON objects, one a line, one a file
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `get`.
#[derive(Args, Debug)]
pub struct GetArgs {
    /// Names on the server; a name with a / at its end is a folder with all that is below it. Of several, the last one is
    /// the local destination, unless --to is given
    #[arg(value_name = "NAME", required = true)]
    pub names: Vec<String>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub server: Server,
    /// Local destination: a file, a folder (it exists, or has a / at its end), or - for standard output [default: .]
    #[arg(long, value_name = "DEST")]
    pub to: Option<PathBuf>,
    /// Replace local files of other content; only the parts that differ are fetched
    #[arg(long)]
    pub replace: bool,
    /// Parallel connections [default: as many as help, up to 128]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=128))]
    pub connections: Option<u16>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub transfer: Transfer,
}

/// Arguments of `remove`.
#[derive(Args, Debug)]
pub struct RemoveArgs {
    /// Names of finished files
    #[arg(value_name = "NAME", required = true)]
    pub names: Vec<String>,
    /// Remove all files below names with a / at their ends
    #[arg(short, long)]
    pub recursive: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub server: Server,
    /// Print JSON objects, one a line, one a file
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `cancel`.
#[derive(Args, Debug)]
pub struct CancelArgs {
    /// Names of unfinished uploads
    #[arg(value_name = "NAME", required = true)]
    pub names: Vec<String>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub server: Server,
    /// Print JSON objects, one a line, one an upload
    #[arg(long)]
    pub json: bool,
}

impl GetArgs {
    /// Takes the destination from behind the names.
    pub fn take_destination(&mut self) {
        if self.to.is_none() && self.names.len() > 1 {
            self.to = self.names.pop().map(PathBuf::from);
        }
    }

    /// Checks that the arguments fit together.
    ///
    /// # Errors
    /// Says which do not.
    pub fn check(&self) -> Result<(), String> {
        let is_one = self.names.len() == 1 && !self.names[0].ends_with('/') && !self.names[0].is_empty();
        if self.is_to_stdout() && !is_one {
            return Err("standard output (-) takes one file".to_owned());
        }
        if self.is_to_stdout() && self.transfer.json {
            return Err("standard output has the file (-): leave --json out".to_owned());
        }
        Ok(())
    }

    /// True if the file goes to standard output.
    pub fn is_to_stdout(&self) -> bool {
        self.to.as_ref().is_some_and(|to| to.as_os_str() == "-")
    }

    /// The style of the output.
    pub fn style(&self) -> Style {
        // The file itself is on standard output.
        match self.is_to_stdout() {
            true => Style::Quiet,
            false => self.transfer.style(),
        }
    }
}
