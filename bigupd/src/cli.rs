//! The command line: serving, or one of the commands.

use crate::commands::{cancel, check, pause, status, token};
use crate::config::settings::Given;
use crate::config::{self, Config};
use clap::{Parser, Subcommand};
use std::path::PathBuf;

const AFTER_HELP: &str = "\
Every setting may also stand in the environment (BIGUP_DATA_DIR, BIGUP_LISTEN, …) or in the configuration file \
(data_dir = …, listen = …), without a section or in [bigupd]. Flags win over the environment, the environment over the \
file. Sizes are bytes or numbers with K, M, G, T; times are seconds or numbers with ms, s, m, h, d.

Exit codes:
  0  stopped as asked, or the configuration is right
  1  something failed
  2  the command line or the configuration makes no sense; every mistake is told

Signals:
  SIGTERM, SIGINT   stop: running requests have stop_grace to finish; a second one ends it at once
  SIGHUP   read the certificates again

Environment:
  BIGUP_CONFIG   the configuration file, where --config is not given
  BIGUP_LOG   what is logged: error, warn, info (default), debug

Files:
  /etc/bigup/bigupd.ini   the configuration of the service
  DATA/info.ini   the unfinished uploads, to be read
  DATA/tokens.json   who is let in; changed by bigupd token
  DATA/files/   finished files
  DATA/tmp/   unfinished uploads

Examples:
  bigupd --data-dir /srv/bigup --listen 127.0.0.1:8888   serve this machine
  bigupd --config /etc/bigup/bigupd.ini --check-config   tell the mistakes in a configuration";

/// Receives slices of big files over HTTP, has them merged while they arrive, and keeps finished files in
/// DATA/files/.
#[derive(Parser, Debug, Default)]
#[command(name = "bigupd", version, after_help = AFTER_HELP)]
pub struct Arguments {
    /// What to do instead of serving.
    #[command(subcommand)]
    pub command: Option<Command>,
    #[command(flatten)]
    given: Given,
    /// Configuration file (INI) [default: /etc/bigup/bigupd.ini, where there is one and no data folder is named].
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// Check the configuration and leave.
    #[arg(long)]
    check_config: bool,
    /// Stop when standard input is closed: for programs that start a daemon of their own.
    #[arg(long, hide = true)]
    until_stdin_closes: bool,
}

/// A command to run instead of serving.
#[derive(Subcommand, Clone, Debug)]
pub enum Command {
    /// Compare unfinished uploads and finished files with their digests
    ///
    /// The digests are those that were recorded when slices and files came. It may run beside daemons; nothing is changed
    /// without --repair, and what is missing is sent again by the next push.
    Check(check::Arguments),
    /// Make, list and revoke tokens, by which clients are let in
    ///
    /// As long as there is a list of tokens, be it empty, every request needs one, or a client certificate that has the
    /// rights of one. Daemons see what changed at their next request.
    Token(token::Arguments),
    /// Show unfinished uploads, from the data folder, whether or not a daemon runs. Nothing is changed
    ///
    /// HELD is what has arrived, MERGED what of it is in the merged file already. RATE is what came in the last second, or
    /// since the last look. MERGER is the process that merges; `waiting` where there is something to merge and none at work.
    /// AGE is the time since an upload was begun, IDLE since anything of it came or went. K, M, G, T are 1024 bytes and its
    /// powers.
    Status(status::Arguments),
    /// Remove unfinished uploads, with all that is held of them. Finished files are not touched
    ///
    /// It works with or without daemons, whatever mergers and clients are at work: a client is told that its upload was
    /// cancelled, and ends. For a minute that source cannot begin the upload anew; others can.
    Cancel(cancel::Arguments),
    /// Let unfinished uploads rest: no slices are taken of them until they are resumed
    Pause(pause::Arguments),
    /// Let paused uploads go on
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
