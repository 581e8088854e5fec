//! The command `verify`. Its exit code tells files that differ (1) from those that could not be compared (2), as cmp(1)
//! does.

use crate::cli::advice;
use crate::cli::args::VerifyArgs;
use crate::cli::counts::count;
use crate::cli::inputs::{Input, InputFile, InputOptions, Inputs};
use crate::cli::print::{print_json, print_line};
use crate::cli::report::Report;
use crate::client::Client;
use crate::client::error::CallError;
use crate::client::query::Query;
use crate::source::{LocalFile, hash_all};
use anyhow::anyhow;
use bigup_core::protocol::digest::Digest;
use bigup_core::protocol::name::FileName;
use bigup_core::protocol::native::{ErrorCode, UploadResponse, param};
use serde_json::json;
use std::path::Path;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

/// A file differs, or is not on the server.
const DIFFERS: u8 = 1;

/// A file could not be compared.
pub const TROUBLE: u8 = 2;

/// How often to ask for a file that the server reads, where it does not say, and longest time between.
const ASK_AGAIN: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(60));

/// What the server has under the name.
enum Theirs {
    Finished(Option<Digest>),
    Unfinished,
    Nothing,
}

/// How many files turned out how.
#[derive(Default)]
struct PushCounts {
    equal: u64,
    differ: u64,
    failed: u64,
}

/// Compares local files with the finished ones: 0 all are equal, 1 some differ, 2 some could not be compared.
///
/// # Errors
/// What keeps every file from being compared.
pub fn run(args: &VerifyArgs, report: &Report) -> anyhow::Result<ExitCode> {
    let client = args.server.client(1)?;
    let name = args.name.as_deref();
    let wanted =
        InputOptions { paths: &args.paths, name, follow_symlinks: args.follow_symlinks, ..InputOptions::default() };
    let jobs = Inputs::collect(&wanted);
    jobs.notes.iter().for_each(|note| report.note(note));
    jobs.failures.iter().for_each(|(path, message)| report.failed(Some(path), message));
    let mut tally = PushCounts { failed: jobs.failures.len() as u64, ..PushCounts::default() };
    let is_many = jobs.folders || jobs.jobs.len() + jobs.failures.len() > 1;
    for job in &jobs.jobs {
        match compare(&client, job, args.json, is_many) {
            Ok(true) => tally.equal += 1,
            Ok(false) => tally.differ += 1,
            Err(error) => {
                tally.failed += 1;
                report.failed(Some(job.name.as_str()), &format!("{error:#}"));
            }
        }
    }
    if is_many && !args.json {
        print_line(&tally.line());
    }
    Ok(tally.code())
}

/// Compares one file, and says how it went; whether it is equal.
fn compare(client: &Client, job: &InputFile, is_json: bool, is_brief: bool) -> anyhow::Result<bool> {
    let InputFile { input: Input::File(path), name } = job else {
        anyhow::bail!("only files and folders are compared; store standard input in a file first")
    };
    // The server first: that it cannot be reached is better told before a long read.
    let theirs = ask(client, name, None).map_err(advice::failed_call)?;
    let own = hash_of(path)?;
    let theirs = match theirs {
        // It does not know for certain, and reads its file once somebody asks for that.
        Theirs::Finished(None) => ask(client, name, Some(own)).map_err(advice::failed_call)?,
        theirs => theirs,
    };
    let said = match theirs {
        Theirs::Finished(said) => said,
        Theirs::Unfinished | Theirs::Nothing => None,
    };
    let is_equal = said == Some(own);
    if is_json {
        let said = said.map(|said| said.to_string());
        let line = json!({"file_name": name.as_str(), "equal": is_equal,
            "finished": matches!(theirs, Theirs::Finished(_)), "local_digest": own.to_string(), "server_digest": said});
        print_json(&line);
    } else {
        print_line(&format!("{name}: {}", verdict(&theirs, own)));
        if !is_brief || matches!(said, Some(said) if said != own) {
            print_line(&format!("{own}  local"));
            print_line(&format!("{}  server", said.map_or("-".repeat(64), |said| said.to_string())));
        }
    }
    if matches!(theirs, Theirs::Finished(None)) {
        anyhow::bail!("the server does not know the digest of its file");
    }
    Ok(is_equal)
}

fn hash_of(path: &Path) -> anyhow::Result<Digest> {
    let hashed = LocalFile::open(path).and_then(|file| hash_all(&file, &crossbeam_channel::never()));
    hashed.map_err(|error| anyhow!(advice::of_source(&error)))
}

/// What the server has. Whoever names the digest that a finished file should have waits until the server has read it,
/// where it does not know its digest.
fn ask(client: &Client, name: &FileName, wanted: Option<Digest>) -> Result<Theirs, CallError> {
    let query = Query::new().with(param::FILE_NAME, name.as_str()).with_known(param::FILE_DIGEST, wanted);
    let query = query.with_switch(param::PEEK, true).with_switch(param::RANGES, true);
    loop {
        let answer: UploadResponse = match client.get(&query).and_then(|value| client.read_as(value)) {
            Err(error) if error.code() == Some(ErrorCode::NoUpload) => return Ok(Theirs::Nothing),
            Err(error) if error.code() == Some(ErrorCode::Busy) => {
                thread::sleep(error.retry_after().unwrap_or(ASK_AGAIN.0).clamp(ASK_AGAIN.0, ASK_AGAIN.1));
                continue;
            }
            answer => answer?,
        };
        return Ok(if answer.is_uploaded == 1 { Theirs::Finished(answer.digest()) } else { Theirs::Unfinished });
    }
}

fn verdict(theirs: &Theirs, own: Digest) -> &'static str {
    match theirs {
        Theirs::Finished(Some(said)) if *said == own => "equal",
        Theirs::Finished(Some(_)) => "DIFFERS",
        Theirs::Finished(None) => "the server does not know the digest of its file",
        Theirs::Unfinished => "not finished on the server; push it again to go on",
        Theirs::Nothing => "not on the server",
    }
}

impl PushCounts {
    /// `3 files equal, 1 not; 1 could not be compared`.
    fn line(&self) -> String {
        let compared = format!("{} equal, {} not", count(self.equal, "file"), self.differ);
        match self.failed {
            0 => compared,
            failed => format!("{compared}; {failed} could not be compared"),
        }
    }

    fn code(&self) -> ExitCode {
        match (self.failed, self.differ) {
            (0, 0) => ExitCode::SUCCESS,
            (0, _) => ExitCode::from(DIFFERS),
            _ => ExitCode::from(TROUBLE),
        }
    }
}
