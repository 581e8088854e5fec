//! The command `verify`. Its exit code tells files that differ (1) from those that could not be compared (2), as cmp(1)
//! does.

use crate::cli::advice;
use crate::cli::args::VerifyArgs;
use crate::cli::counts::count;
use crate::cli::default_folder::default_folder;
use crate::cli::inputs::{Input, InputFile, InputOptions, Inputs};
use crate::cli::manifest;
use crate::cli::print::{print_json, print_line};
use crate::cli::report::Report;
use crate::client::Client;
use crate::client::retry::RetryPolicy;
use crate::client::status::StoredFile;
use crate::source::{LocalFile, hash_all};
use anyhow::anyhow;
use bigup_core::protocol::digest::Digest;
use bigup_core::protocol::name::FileName;
use serde_json::json;
use std::path::Path;
use std::process::ExitCode;

/// A file differs, or is not on the server.
const DIFFERS: u8 = 1;

/// A file could not be compared.
pub const TROUBLE: u8 = 2;

/// Numbers of files by their result.
#[derive(Default)]
struct PushCounts {
    equal: u64,
    differ: u64,
    failed: u64,
}

/// Compares local files with the finished ones: 0 all are equal, 1 some differ, 2 some could not be compared.
///
/// # Errors
/// No file can be compared.
pub fn run(args: &VerifyArgs, report: &Report) -> anyhow::Result<ExitCode> {
    let client = args.server.client()?;
    if let Some(path) = &args.manifest {
        return verify_manifest(&client, path, args.json, report);
    }
    let (name, into, follow_symlinks) = (args.name.as_deref(), args.into.as_deref(), args.follow_symlinks);
    let wanted = InputOptions { paths: &args.paths, name, into, follow_symlinks, ..InputOptions::default() };
    let mut inputs = Inputs::collect(&wanted);
    if args.name.is_none() && args.into.is_none() && !inputs.files.is_empty() {
        default_folder(&client, RetryPolicy::default(), report)?.iter().for_each(|folder| inputs.default_to(folder));
    }
    report.notes(&inputs.notes);
    inputs.failures.iter().for_each(|(path, message)| report.failed(Some(path), message));
    let mut counts = PushCounts { failed: inputs.failures.len() as u64, ..PushCounts::default() };
    let is_many = inputs.folders || inputs.files.len() + inputs.failures.len() > 1;
    for input in &inputs.files {
        match compare(&client, input, args.json, is_many) {
            Ok(true) => counts.equal += 1,
            Ok(false) => counts.differ += 1,
            Err(error) => {
                counts.failed += 1;
                report.failed(Some(input.name.as_str()), &format!("{error:#}"));
            }
        }
    }
    if is_many && !args.json {
        print_line(&counts.line());
    }
    Ok(counts.code())
}

/// Compares the files of a manifest by their digests alone.
fn verify_manifest(client: &Client, path: &Path, is_json: bool, report: &Report) -> anyhow::Result<ExitCode> {
    let mut counts = PushCounts::default();
    for (digest, name) in manifest::read(path)? {
        let never = crossbeam_channel::never();
        let told = client.stored_file(&name, Some(digest), &never).map_err(advice::failed_call);
        match told.and_then(|theirs| tell(&name, &theirs, digest, is_json, true)) {
            Ok(true) => counts.equal += 1,
            Ok(false) => counts.differ += 1,
            Err(error) => {
                counts.failed += 1;
                report.failed(Some(name.as_str()), &format!("{error:#}"));
            }
        }
    }
    if !is_json {
        print_line(&counts.line());
    }
    Ok(counts.code())
}

/// Compares one file, and says how it went; whether it is equal.
fn compare(client: &Client, input: &InputFile, is_json: bool, is_brief: bool) -> anyhow::Result<bool> {
    let InputFile { origin: Input::File(path), name } = input else {
        anyhow::bail!("only files and folders are compared; store standard input in a file first")
    };
    let never = crossbeam_channel::never();
    let ask = |expected| client.stored_file(name, expected, &never).map_err(advice::failed_call);
    // The server first: that it cannot be reached is better told before a long read.
    let theirs = ask(None)?;
    let own = hash_of(path)?;
    let theirs = match theirs {
        // It does not know for certain, and reads its file once somebody asks for that.
        StoredFile::Finished(None) => ask(Some(own))?,
        theirs => theirs,
    };
    tell(name, &theirs, own, is_json, is_brief)
}

/// Says how a file compares whose right digest is `own`; whether it is equal.
fn tell(name: &FileName, theirs: &StoredFile, own: Digest, is_json: bool, is_brief: bool) -> anyhow::Result<bool> {
    let said = match theirs {
        StoredFile::Finished(said) => *said,
        StoredFile::Unfinished | StoredFile::Absent => None,
    };
    let is_equal = said == Some(own);
    if is_json {
        let said = said.map(|said| said.to_string());
        let line = json!({"file_name": name.as_str(), "equal": is_equal,
            "finished": matches!(theirs, StoredFile::Finished(_)), "local_digest": own.to_string(), "server_digest": said});
        print_json(&line);
    } else {
        print_line(&format!("{name}: {}", verdict(theirs, own)));
        if !is_brief || matches!(said, Some(said) if said != own) {
            print_line(&format!("{own}  local"));
            print_line(&format!("{}  server", said.map_or("-".repeat(64), |said| said.to_string())));
        }
    }
    if matches!(theirs, StoredFile::Finished(None)) {
        anyhow::bail!("the server does not know the digest of its file");
    }
    Ok(is_equal)
}

fn hash_of(path: &Path) -> anyhow::Result<Digest> {
    let hashed = LocalFile::open(path).and_then(|file| hash_all(&file, &crossbeam_channel::never()));
    hashed.map_err(|error| anyhow!(advice::of_source(&error)))
}

fn verdict(theirs: &StoredFile, own: Digest) -> &'static str {
    match theirs {
        StoredFile::Finished(Some(said)) if *said == own => "equal",
        StoredFile::Finished(Some(_)) => "DIFFERS",
        StoredFile::Finished(None) => "the server does not know the digest of its file",
        StoredFile::Unfinished => "not finished on the server; push it again to go on",
        StoredFile::Absent => "not on the server",
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
