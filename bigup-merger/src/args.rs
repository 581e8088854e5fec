//! The command line.

use bigup_core::protocol::name::FileName;
use bigup_core::protocol::units::parse_mode;
use clap::Parser;
use std::path::PathBuf;
use std::time::Duration;

const AFTER_HELP: &str = "\
Exit codes:
  0  the file is published, or no slice came for the idle time, or the merger was told to stop
  1  failure; the reason is printed and written to info.ini
  2  the command line is invalid
  3  another merger is at work on this upload
  4  there is no such upload
  5  the file cannot be published for now; the reason is printed and written to info.ini

Environment:
  BIGUP_LOG   log level: error, warn, info (default), debug

Signals:
  SIGTERM, SIGINT   stop after the current slice; the next merger goes on from there

Files:
  DATA/tmp/   the unfinished upload, in a folder of its own; its `merger.lock` is locked as long as a merger lives
  DATA/files/   the finished file
  DATA/info.ini   the progress of merging

Examples:
  bigup-merger --data-dir /var/lib/bigup --file-name disk.img   merge the slices of disk.img, as bigupd's user";

/// Merge the slices of an upload, in order, while they arrive, and publish the file when all are there.
///
/// bigupd starts it when there is something to merge; started by hand it does the same. It can be killed at any time:
/// the next merger goes on where it stopped.
#[derive(Parser, Clone, Debug)]
#[command(name = "bigup-merger", version, after_help = AFTER_HELP)]
pub struct Arguments {
    /// Use this data folder.
    #[arg(long, value_name = "DIR")]
    pub data_dir: PathBuf,
    /// Merge the upload of this file name, relative to the data folder's files/.
    #[arg(long, value_name = "NAME", value_parser = |name: &str| FileName::new(name))]
    pub file_name: FileName,
    /// Exit after this time without a new slice.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = bigup_core::protocol::units::parse_duration)]
    pub idle: Duration,
    /// Print a line of JSON on standard output for each checkpoint, publication, and the end.
    #[arg(long)]
    pub events: bool,
    /// Record the finished file in the data folder's completed/, so that bigupd tells a hook of it (on_complete).
    #[arg(long)]
    pub leave_notice: bool,
    /// Set permissions of the finished file, in octal [default: the umask decides].
    #[arg(long, value_name = "MODE", value_parser = parse_mode)]
    pub file_mode: Option<u32>,
    /// Set permissions of folders made for it, in octal [default: the umask decides].
    #[arg(long, value_name = "MODE", value_parser = parse_mode)]
    pub dir_mode: Option<u32>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Arguments::command().debug_assert();
    }
}
