//! The bigup client: a plain synchronous program. One reader thread reads a file's slices, several sender threads hash
//! and post them, a bounded queue lies between.
//!
//! # Layout
//! - [`args`] - the command line.
//! - [`jobs`] - which files a command line stands for, and their names on the server.
//! - [`source`], [`fingerprint`], [`lease`], [`stdin`], [`producer`] - what is read, and how a change under
//!   our hands, or a failed command, is noticed.
//! - [`slicing`] - how large slices are.
//! - [`client`], [`query`], [`retry`] - HTTP requests, and which failures pass; [`token`] - what lets us in.
//! - [`address`], [`proxy`] - where the server is, and what stands before it.
//! - [`connect`] - TCP connections that notice a silent link; [`rate`] - a limit to what is sent a second.
//! - [`tls`] - certificates, and what a failure of TLS means.
//! - [`remote`] - the questions of the protocol, about one upload.
//! - [`pool`], [`pipeline`], [`halt`], [`feed`] - reader, queue and senders; [`lanes`], [`width`] - how many; [`gauge`] -
//!   whether slices are too large for the line.
//! - [`ledger`], [`held`] - digests of our slices and of the server's.
//! - [`upload`], [`rival`], [`ending`] - the protocol of one file, from the first question to the published file.
//! - [`push`], [`status`], [`verify`] - the commands.
//! - [`descriptors`] - how much may be open at a time.
//! - [`embedded`] - a daemon of our own for one push.
//! - [`report`], [`tally`], [`picture`], [`bar`] - what people and programs get to see.
//!
//! # Who ends what
//! The work is done in a thread of its own, so that a signal ends the program at once, whatever that thread waits for.
//! Nothing needs undoing: what the server answered is stored, all else is sent again next time.

pub mod address;
pub mod args;
pub mod bar;
pub mod client;
pub mod connect;
pub mod descriptors;
pub mod embedded;
pub mod ending;
pub mod feed;
pub mod fingerprint;
pub mod gauge;
pub mod halt;
pub mod held;
pub mod jobs;
pub mod lanes;
#[cfg(target_os = "linux")]
pub mod lease;
pub mod ledger;
pub mod picture;
pub mod pipeline;
pub mod pool;
pub mod producer;
pub mod proxy;
pub mod push;
pub mod query;
pub mod rate;
pub mod remote;
pub mod report;
pub mod retry;
pub mod rival;
pub mod signals;
pub mod slicing;
pub mod source;
pub mod status;
pub mod stdin;
pub mod tally;
pub mod tls;
pub mod token;
pub mod upload;
pub mod verify;
pub mod width;

use crate::args::{Cli, Command};
use crate::report::{Report, Style};
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;

/// Runs the command until it ends or a signal ends the program. The exit code is 0, or 1 for whatever went wrong; of `verify`
/// see there.
pub fn run(cli: Cli) -> ExitCode {
    let style = match &cli.command {
        Command::Push(args) => args.style(),
        Command::Status(_) | Command::Verify(_) => Style::Quiet,
    };
    let report = Arc::new(Report::new(style));
    let signals = match signals::watch() {
        Ok(signals) => signals,
        Err(error) => {
            report.failed(None, &format!("cannot watch for signals: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let (done, ended) = crossbeam_channel::bounded(1);
    let worker_report = Arc::clone(&report);
    // A send that fails means that a signal came first: nobody asks any more.
    thread::spawn(move || done.send(work(cli.command, &worker_report)));
    crossbeam_channel::select! {
        // No answer at all means that the worker panicked, and said so.
        recv(ended) -> code => code.unwrap_or(ExitCode::FAILURE),
        recv(signals) -> signal => {
            report.interrupted();
            signal.map_or(ExitCode::FAILURE, signals::die_by)
        }
    }
}

/// Runs the command, and gives its exit code: output that did not arrive is no success.
fn work(command: Command, report: &Report) -> ExitCode {
    let (outcome, trouble) = match command {
        Command::Push(args) => (push::run(&args, report).map(code), ExitCode::FAILURE),
        Command::Status(args) => (status::run(&args).map(code), ExitCode::FAILURE),
        Command::Verify(args) => (verify::run(&args, report), ExitCode::from(verify::TROUBLE)),
    };
    let code = outcome.unwrap_or_else(|error| {
        report.failed(None, &format!("{error:#}"));
        trouble
    });
    if let Err(error) = report::output_arrived() {
        report::eprint_line(&format!("error: cannot write to standard output: {error}"));
        return trouble;
    }
    code
}

fn code(is_well: bool) -> ExitCode {
    if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
