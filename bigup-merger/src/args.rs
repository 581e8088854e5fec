//! The command line.

use bigup_core::protocol::name::FileName;
use bigup_core::protocol::units::parse_mode;
use clap::Parser;
use std::path::PathBuf;
use std::time::Duration;

const AFTER_HELP: &str = "\
Exit codes:
  0  the file is published, or nothing came for the idle time, or the merger was told to stop
  1  something failed; the reason is printed and stands in info.ini
  2  the command line makes no sense
  3  another merger is at work on this upload
  4  there is no such upload
  5  the file cannot be published as things stand; the reason is printed and stands in info.ini

Environment:
  BIGUP_LOG   what to log: error, warn, info (default), debug

Signals:
  SIGTERM, SIGINT   stop after the slice at hand; the next merger goes on from there

Files:
  DATA/tmp/   the unfinished upload, in a folder of its own; its `merger.lock` is locked as long as a merger lives
  DATA/files/   where the finished file comes to
  DATA/info.ini   how far merging is

Examples:
  bigup-merger --data-dir /var/lib/bigup --file-name disk.img   merge what is there of disk.img, as bigupd's user";

/// Merges the slices of one upload, in order, while they arrive, and publishes the file when all are there.
///
/// bigupd starts it where there is something to merge; started by hand it does the same. It may be killed at any time:
/// the next one goes on where it stopped.
#[derive(Parser, Clone, Debug)]
#[command(name = "bigup-merger", version, after_help = AFTER_HELP)]
pub struct Arguments {
    /// The data folder.
    #[arg(long, value_name = "DIR")]
    pub data_dir: PathBuf,
    /// Name of the file, relative to the data folder's files/.
    #[arg(long, value_name = "NAME", value_parser = |name: &str| FileName::new(name))]
    pub file_name: FileName,
    /// Leave after this time without a new slice.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = bigup_core::protocol::units::parse_duration)]
    pub idle: Duration,
    /// Tell on standard output what is done: a line of JSON for each checkpoint, publication, and the end.
    #[arg(long)]
    pub events: bool,
    /// Leave a notice of the finished file in the data folder's completed/, where bigupd has a program told of it
    /// (on_complete).
    #[arg(long)]
    pub leave_notice: bool,
    /// Permissions of the finished file, in octal [default: what the umask leaves].
    #[arg(long, value_name = "MODE", value_parser = parse_mode)]
    pub file_mode: Option<u32>,
    /// Permissions of folders that are made for it, in octal [default: what the umask leaves].
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
