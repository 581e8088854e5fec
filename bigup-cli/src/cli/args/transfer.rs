//! The options of the commands that move the content of files: `push`, `sync` and `get`.

use crate::cli::report::Style;
use crate::client::rates::Rates;
use crate::client::retry::RetryPolicy;
use bigup_core::protocol::units::parse_duration;
use clap::Args;
use std::path::PathBuf;
use std::time::Duration;

/// The limits of a transfer, and what is said of it.
#[derive(Args, Debug)]
pub struct Transfer {
    /// Bytes of content a second at most, over all connections together, like 10M; or a timetable of the local time, like
    /// 08:00=1M,18:00=off
    #[arg(long, value_name = "RATE")]
    pub limit_rate: Option<Rates>,
    /// Print events as JSON objects, one a line, on standard output
    #[arg(long)]
    pub json: bool,
    /// Only errors
    #[arg(short, long, conflicts_with = "json")]
    pub quiet: bool,
    /// A line for each file, however many there are; of more than 20, only their sum is shown otherwise
    #[arg(short, long, conflicts_with_all = ["json", "quiet"])]
    pub verbose: bool,
    /// Write all lines about files to the end of this file too, each with its time
    #[arg(long, value_name = "FILE")]
    pub log_file: Option<PathBuf>,
    /// Retries of a request; the default leaves it to --retry-for
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub retries: u32,
    /// Give up after this time without progress, like 10m
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = parse_duration)]
    pub retry_for: Duration,
}

impl Transfer {
    /// The number and the time of retries of failed requests.
    pub fn retry_policy(&self) -> RetryPolicy {
        RetryPolicy { retries: self.retries, retry_for: self.retry_for, ..RetryPolicy::default() }
    }

    /// The style of the output.
    pub fn style(&self) -> Style {
        match (self.json, self.quiet, self.verbose) {
            (true, ..) => Style::Json,
            (_, true, _) => Style::Quiet,
            (_, _, true) => Style::Verbose,
            _ => Style::Human,
        }
    }
}
