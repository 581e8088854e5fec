//! The command line: arguments, the commands, and what people and programs get to see.
//!
//! It uses the public functions of the library, and alone the terminal, signals and the process's exit code. The
//! protocol of an upload does not come in here, and nothing of the library uses this folder.

use crate::cli::args::{Cli, Command};
use crate::cli::report::{Report, Style};
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;

pub mod advice;
pub mod args;
pub mod bar;
pub mod console;
pub mod counts;
pub mod descriptors;
pub mod display;
pub mod embedded;
pub mod globs;
pub mod inputs;
pub mod print;
pub mod push;
pub mod report;
pub mod signals;
pub mod status;
pub mod verify;

/// Runs the command until it ends or a signal ends the program. The exit code is 0, or 1 for whatever went wrong; of
/// `verify` see there.
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
    if let Err(error) = print::output_arrived() {
        print::eprint_line(&format!("error: cannot write to standard output: {error}"));
        return trouble;
    }
    code
}

fn code(is_well: bool) -> ExitCode {
    if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
