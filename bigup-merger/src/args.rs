//! The command line.

use bigup_core::protocol::name::FileName;
use bigup_core::protocol::units::parse_mode;
use bigup_core::storage::objects::{MOST_PARTS_AT_ONCE, ObjectSettings, StoreUrl};
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
  AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN   credentials of the store, without a file of them

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
    /// Store the finished file in this bucket of an S3-compatible store, below this prefix. The credentials are those of
    /// bigupd: in the environment, or in a file.
    #[arg(long, value_name = "s3://BUCKET/PREFIX")]
    pub store: Option<StoreUrl>,
    /// Reach the store at this URL [default: Amazon's of the region].
    #[arg(long, value_name = "URL")]
    pub s3_endpoint: Option<String>,
    /// Sign requests to the store for this region.
    #[arg(long, value_name = "NAME", default_value = "us-east-1")]
    pub s3_region: String,
    /// Name the bucket in the host of requests, and not in their path.
    #[arg(long)]
    pub s3_host_style: bool,
    /// Read the credentials of the store from this file [default: the environment has them].
    #[arg(long, value_name = "FILE")]
    pub s3_credentials_file: Option<PathBuf>,
    /// Send at most so many parts to the store at once.
    #[arg(long, value_name = "NUMBER", default_value = "4", value_parser = clap::value_parser!(u64).range(1..=MOST_PARTS_AT_ONCE))]
    pub s3_parts_at_once: u64,
}

impl Arguments {
    /// The store of objects. `None`: finished files go into the data folder.
    pub fn object_settings(&self) -> Option<ObjectSettings> {
        Some(ObjectSettings {
            url: self.store.clone()?,
            endpoint: self.s3_endpoint.clone(),
            region: self.s3_region.clone(),
            path_style: !self.s3_host_style,
            credentials_file: self.s3_credentials_file.clone(),
            parts_at_once: self.s3_parts_at_once,
        })
    }
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
