//! A push that only shows what would be sent, and why.

use crate::cli::advice;
use crate::cli::args::push::PushArgs;
use crate::cli::counts::count;
use crate::cli::inputs::{Input, InputFile, Inputs};
use crate::cli::print::{print_json, print_line};
use crate::cli::report::{Report, Style};
use crate::client::Client;
use crate::source::{LocalFile, hash_all};
use anyhow::anyhow;
use bigup_core::protocol::native::UploadResponse;
use bigup_core::protocol::units::show_size;
use serde_json::json;

/// The files and bytes that would be sent.
#[derive(Default)]
struct Sum {
    files: u64,
    bytes: u64,
    stored: u64,
    failed: u64,
}

/// Shows what a push of `inputs` would do with each file; true if nothing would fail.
///
/// # Errors
/// The server refuses, or does not respond.
pub fn run(client: &Client, inputs: &Inputs, args: &PushArgs, report: &Report) -> anyhow::Result<bool> {
    let is_json = args.transfer.style() == Style::Json;
    for (path, reason) in &inputs.left_out {
        show(is_json, "leave out", path, None, reason);
    }
    let mut sum = Sum { failed: inputs.failures.len() as u64, ..Sum::default() };
    for input in &inputs.files {
        let (name, size) = (input.name.as_str(), input.size());
        let told = client.status(&input.name).map_err(advice::failed_call)?;
        match verdict(input, size, told.as_ref(), args.replace) {
            Ok(Some(reason)) => {
                (sum.files, sum.bytes) = (sum.files + 1, sum.bytes + size.unwrap_or(0));
                show(is_json, "send", name, size, &reason);
            }
            Ok(None) => {
                sum.stored += 1;
                show(is_json, "keep", name, size, "stored already");
            }
            Err(error) => {
                sum.failed += 1;
                report.failed(Some(name), &format!("{error:#}"));
            }
        }
    }
    for name in &inputs.empty_folders {
        show(is_json, "make", &format!("{name}/"), None, "an empty folder");
    }
    if !is_json {
        let Sum { files, bytes, stored, failed } = sum;
        let left_out = inputs.left_out.len();
        let sent = format!("{}, {} would be sent", count(files, "file"), show_size(bytes));
        print_line(&format!("{sent}; {stored} stored already, {left_out} left out, {failed} would fail"));
    }
    Ok(sum.failed == 0)
}

/// The reason to send a file, of which the server told this. `None`: there is none.
fn verdict(
    input: &InputFile,
    size: Option<u64>,
    told: Option<&UploadResponse>,
    replace: bool,
) -> anyhow::Result<Option<String>> {
    let Some(told) = told else { return Ok(Some("not on the server".to_owned())) };
    if told.is_uploaded == 0 {
        return Ok(Some(format!("unfinished on the server, which holds {} slices", told.held().count())));
    }
    let differs = match (size, told.file_size, &input.origin) {
        (Some(here), Some(there), _) if here != there => format!("{here} bytes here, {there} on the server"),
        (Some(_), _, Input::File(path)) => {
            let file = LocalFile::open(path).and_then(|file| hash_all(&file, &crossbeam_channel::never()));
            let own = file.map_err(|error| anyhow!(advice::of_source(&error)))?;
            match told.digest() {
                Some(theirs) if theirs == own => return Ok(None),
                Some(_) => "other content".to_owned(),
                None => "the server is not certain of its content".to_owned(),
            }
        }
        _ => "a file of this name is on the server".to_owned(),
    };
    anyhow::ensure!(replace, "{differs} (--replace replaces it)");
    Ok(Some(differs))
}

fn show(is_json: bool, action: &str, name: &str, size: Option<u64>, reason: &str) {
    if is_json {
        let action = action.replace(' ', "_");
        print_json(
            &json!({"event": "dry_run", "action": action, "file_name": name, "file_size": size, "reason": reason}),
        );
        return;
    }
    let size = size.map(|size| format!(" ({})", show_size(size))).unwrap_or_default();
    print_line(&format!("{action}: {name}{size}: {reason}"));
}
