//! The command line: serving, or one of the commands.

use crate::commands::{cancel, check, drain, pause, status, token};
use crate::config::settings::Given;
use crate::config::{self, Config};
use clap::{Parser, Subcommand};
use std::path::PathBuf;

const AFTER_HELP: &str = "\
Every setting can also be given in the environment (BIGUP_DATA_DIR, BIGUP_LISTEN, …) or in the configuration file \
(data_dir = …, listen = …), without a section or in [bigupd]. Flags override the environment, which overrides the \
file. Sizes are bytes or numbers with K, M, G, T; times are seconds or numbers with ms, s, m, h, d.

Exit codes:
  0  stopped as asked, or the configuration is valid
  1  failure
  2  the command line or the configuration is invalid; every mistake is printed

Signals:
  SIGTERM, SIGINT   drain for drain_time, then stop: running requests have stop_grace to finish; a second signal ends the daemon at once
  SIGUSR1   drain: /readyz answers 503, everything else goes on; sent by bigupd drain
  SIGHUP   read the certificates again

Environment:
  BIGUP_CONFIG   the configuration file, if --config is not given
  BIGUP_LOG   log level: error, warn, info (default), debug

Files:
  /etc/bigup/bigupd.ini   the configuration of the service
  DATA/info.ini   list of the unfinished uploads, for people and scripts to read
  DATA/tokens.json   the tokens; changed by bigupd token
  DATA/files/   finished files
  DATA/tmp/   unfinished uploads

Examples:
  bigupd --data-dir /srv/bigup --listen 127.0.0.1:8888   serve this machine
  bigupd --config /etc/bigup/bigupd.ini --check-config   print the mistakes in a configuration";

/// Receive slices of big files over HTTP, merge them while they arrive, and store finished files in DATA/files/.
#[derive(Parser, Debug, Default)]
#[command(name = "bigupd", version, after_help = AFTER_HELP)]
pub struct Arguments {
    /// Run this command instead of serving.
    #[command(subcommand)]
    pub command: Option<Command>,
    #[command(flatten)]
    given: Given,
    /// Read this configuration file (INI) [default: /etc/bigup/bigupd.ini, if it exists and no data folder is named].
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// Check the configuration and exit.
    #[arg(long)]
    check_config: bool,
    /// Stop when standard input is closed: for programs that start a daemon of their own.
    #[arg(long, hide = true)]
    until_stdin_closes: bool,
}

/// A command to run instead of serving.
#[derive(Subcommand, Clone, Debug)]
pub enum Command {
    /// A command about a data folder.
    #[command(flatten)]
    OfDataDir(Box<DataDirCommand>),
    /// Tell a daemon to drain: /readyz answers 503, so that a balancer sends new requests elsewhere
    ///
    /// The daemon serves on until it is stopped. Several daemons behind a balancer can be restarted one after the other
    /// so, and no client sees an error. The setting drain_time does the same for each stop.
    Drain(drain::Arguments),
}

/// A command about a data folder.
#[derive(Subcommand, Clone, Debug)]
pub enum DataDirCommand {
    /// Compare unfinished uploads and finished files with their digests
    ///
    /// The digests were recorded when slices and files came. The command can run beside daemons. Nothing is changed
    /// without --repair; the next push sends missing slices again.
    Check(check::Arguments),
    /// Make, list and revoke the tokens of clients
    ///
    /// As long as there is a list of tokens, even an empty one, every request needs a token, or a client certificate with
    /// the rights of a token. Daemons see changes at their next request.
    Token(token::Arguments),
    /// Show unfinished uploads of the data folder. Needs no daemon and changes nothing
    ///
    /// HELD is the part that has arrived, MERGED the part of that in the merged file. RATE counts the bytes of the last
    /// second, or since the last refresh. MERGER is the process that merges; `waiting` if there is something to merge and
    /// no merger at work. AGE is the time since an upload was begun, IDLE the time since data last came or went. K, M, G,
    /// T are 1024 bytes and its powers.
    Status(status::Arguments),
    /// Remove unfinished uploads, with all slices held. Finished files are not touched
    ///
    /// The command works with or without daemons, mergers and clients at work. A client is told that its upload was
    /// cancelled, and exits. For a minute that source cannot begin the upload anew; other sources can.
    Cancel(cancel::Arguments),
    /// Pause unfinished uploads: their slices are refused until they are resumed
    Pause(pause::Arguments),
    /// Resume paused uploads
    Resume(pause::Arguments),
}

/// The command line's options besides settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mode {
    /// Check the configuration and leave.
    pub check_config: bool,
    /// Stop when standard input is closed.
    pub until_stdin_closes: bool,
}

impl Arguments {
    /// Settles the configuration. `environment` gives the value of a variable.
    ///
    /// # Errors
    /// All mistakes, one each.
    pub fn settle(self, environment: &dyn Fn(&str) -> Option<String>) -> Result<(Config, Mode), Vec<String>> {
        let mode = Mode { check_config: self.check_config, until_stdin_closes: self.until_stdin_closes };
        let is_owned = self.until_stdin_closes;
        config::settle(self.given, self.config, is_owned, environment).map(|config| (config, mode))
    }
}
