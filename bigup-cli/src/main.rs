//! The program `bigup-cli`: logging, flags, exit code. All else is in the library.

use bigup_cli::args::Cli;
use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    // Our own warnings only: what the HTTP library has to say of each connection would tear the progress bar.
    let filter = env_logger::Env::new().filter_or("BIGUP_LOG", "bigup_cli=warn");
    // Whatever is asked for: as traces ureq would show all that is sent, the token with it.
    env_logger::Builder::from_env(filter).filter_module("ureq_proto::util", log::LevelFilter::Debug).init();
    bigup_cli::run(Cli::parse().checked_or_exit())
}
