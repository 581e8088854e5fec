//! The command line: arguments, the commands, and what people and programs get to see.
//!
//! It uses the public functions of the library, and alone the terminal, signals and the process's exit code. The
//! protocol of an upload does not come in here, and nothing of the library uses this folder.

use crate::cli::args::{Cli, Command};
use crate::cli::report::{Report, Style};
use anyhow::Context;
use clap::CommandFactory;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;

pub mod advice;
pub mod args;
pub mod at_work;
pub mod bar;
pub mod bundle_queue;
pub mod completions;
pub mod config;
pub mod console;
pub mod counts;
pub mod default_folder;
pub mod descriptors;
pub mod digest_cache;
pub mod display;
pub mod dry_run;
pub mod embedded;
pub mod empty_folders;
pub mod filter;
pub mod followers;
pub mod get;
pub mod globs;
pub mod inputs;
pub mod list;
pub mod login;
pub mod manifest;
pub mod parse;
pub mod print;
pub mod push;
pub mod remove;
pub mod report;
pub mod show;
pub mod signals;
pub mod status;
pub mod sync;
pub mod systemd;
pub mod verify;
pub mod watch;
pub mod watch_status;

/// Runs the command until it ends or a signal ends the program. The exit code is 0, or 1 for whatever went wrong; of
/// `verify` see there.
pub fn run(cli: Cli) -> ExitCode {
    let style = match &cli.command {
        Command::Push(args) => args.transfer.style(),
        Command::Sync(args) => args.push.transfer.style(),
        Command::Watch(args) => args.push.transfer.style(),
        Command::Get(args) => args.style(),
        _ => Style::Quiet,
    };
    let is_watch = matches!(cli.command, Command::Watch(_));
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
            if is_watch { report.stopped() } else { report.interrupted() }
            signal.map_or(ExitCode::FAILURE, signals::die_by)
        }
    }
}

/// Begins the log file that the command asks for.
fn begin_log(command: &Command) -> anyhow::Result<()> {
    let path = match command {
        Command::Push(args) => args.transfer.log_file.as_ref(),
        Command::Sync(args) => args.push.transfer.log_file.as_ref(),
        Command::Watch(args) => args.push.transfer.log_file.as_ref(),
        Command::Get(args) => args.transfer.log_file.as_ref(),
        _ => None,
    };
    path.map_or(Ok(()), |path| print::log_to(path).with_context(|| format!("cannot open {}", path.display())))
}

/// Runs the command, and gives its exit code: output that did not arrive is no success.
fn work(command: Command, report: &Report) -> ExitCode {
    if let Err(error) = begin_log(&command) {
        report.failed(None, &format!("{error:#}"));
        return ExitCode::FAILURE;
    }
    let (outcome, trouble) = match command {
        Command::Sync(args) => (sync::run(&args, report).map(code), ExitCode::FAILURE),
        Command::Push(args) => (push::run(&args, report).map(code), ExitCode::FAILURE),
        Command::Watch(args) => (watch::run(args, report).map(code), ExitCode::FAILURE),
        Command::Status(args) => (status::run(&args).map(code), ExitCode::FAILURE),
        Command::Verify(args) => (verify::run(&args, report), ExitCode::from(verify::TROUBLE)),
        Command::List(args) => (list::run(&args).map(|()| ExitCode::SUCCESS), ExitCode::FAILURE),
        Command::Get(args) => (get::run(&args, report).map(code), ExitCode::FAILURE),
        Command::Remove(args) => (remove::run(&args, report).map(code), ExitCode::FAILURE),
        Command::Cancel(args) => (remove::cancel(&args, report).map(code), ExitCode::FAILURE),
        Command::Login(args) => (login::run(&args).map(|()| ExitCode::SUCCESS), ExitCode::FAILURE),
        Command::Config(args) => {
            show::run(&args);
            (Ok(ExitCode::SUCCESS), ExitCode::FAILURE)
        }
        Command::Completions(args) => {
            print::print_raw(&completions::of(&Cli::command(), args.shell));
            (Ok(ExitCode::SUCCESS), ExitCode::FAILURE)
        }
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
