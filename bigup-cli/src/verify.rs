//! The command `verify`.

use crate::args::VerifyArgs;
use crate::client::{CallError, Client};
use crate::jobs::base_name;
use crate::query::Query;
use crate::report::{print_json, print_line};
use crate::source::{LocalFile, hash_all};
use bigup_core::digest::Digest;
use bigup_core::name::FileName;
use bigup_core::wire::{ErrorCode, UploadAnswer, param};
use serde_json::json;

/// What the server has under the name.
enum Theirs {
    Finished(Option<Digest>),
    Unfinished,
    Nothing,
}

/// Compares the local file with the finished one; whether they are equal.
///
/// # Errors
/// The file cannot be read, or the server does not answer.
pub fn run(args: &VerifyArgs) -> anyhow::Result<bool> {
    let client = args.server.client(1)?;
    let given = args.name.clone();
    let name = FileName::new(&given.map_or_else(|| base_name(&args.path), Ok)?)?;
    // The server first: that it cannot be reached is better told before a long read.
    let theirs = ask(&client, &name)?;
    let own = hash_all(&LocalFile::open(&args.path)?)?;
    let said = match theirs {
        Theirs::Finished(said) => said,
        Theirs::Unfinished | Theirs::Nothing => None,
    };
    let equal = said == Some(own);
    if args.json {
        let said = said.map(|said| said.to_string());
        let line = json!({"file_name": name.as_str(), "equal": equal, "finished": matches!(theirs, Theirs::Finished(_)),
            "local_digest": own.to_string(), "server_digest": said});
        print_json(&line);
    } else {
        print_line(&format!("{name}: {}", verdict(&theirs, own)));
        print_line(&format!("{own}  local"));
        print_line(&format!("{}  server", said.map_or("-".repeat(64), |said| said.to_string())));
    }
    Ok(equal)
}

fn ask(client: &Client, name: &FileName) -> Result<Theirs, CallError> {
    let query = Query::new().with(param::FILE_NAME, name.as_str());
    let query = query.with_switch(param::PEEK, true).with_switch(param::RANGES, true);
    let answer: UploadAnswer = match client.get(&query).and_then(|value| client.read_as(value)) {
        Err(error) if error.code() == Some(ErrorCode::NoUpload) => return Ok(Theirs::Nothing),
        answer => answer?,
    };
    Ok(if answer.is_uploaded == 1 { Theirs::Finished(answer.digest()) } else { Theirs::Unfinished })
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
