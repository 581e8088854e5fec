//! The commands `remove`, for finished files, and `cancel`, for unfinished uploads.

use crate::cli::advice;
use crate::cli::args::files::{CancelArgs, RemoveArgs};
use crate::cli::list;
use crate::cli::print::{print_json, print_line};
use crate::cli::report::Report;
use crate::client::Client;
use bigup_core::protocol::digest::Digest;
use bigup_core::protocol::name::FileName;
use bigup_core::protocol::units::show_size;
use serde_json::json;

/// Removes finished files; true if all are gone by it.
///
/// # Errors
/// The server cannot be asked.
pub fn run(args: &RemoveArgs, report: &Report) -> anyhow::Result<bool> {
    let client = args.server.client()?;
    let mut is_well = true;
    for name in &args.names {
        let result = if name.ends_with('/') || name.is_empty() {
            remove_folder(&client, name, args, report)
        } else {
            remove(&client, name, None, args.json)
        };
        if let Err(error) = result {
            report.failed(Some(name), &format!("{error:#}"));
            is_well = false;
        }
    }
    Ok(is_well)
}

fn remove(client: &Client, name: &str, digest: Option<Digest>, is_json: bool) -> anyhow::Result<()> {
    let is_removed = client.remove(&FileName::new(name)?, digest).map_err(advice::failed_call)?;
    anyhow::ensure!(is_removed, "there is no finished file of this name on the server");
    if is_json {
        print_json(&json!({"event": "removed", "file_name": name}));
    } else {
        print_line(&format!("{name}: removed"));
    }
    Ok(())
}

/// Removes the files of a folder, each if it is still the listed one.
fn remove_folder(client: &Client, folder: &str, args: &RemoveArgs, report: &Report) -> anyhow::Result<()> {
    anyhow::ensure!(args.recursive, "this is a folder: --recursive removes all files in it");
    let (mut failed, mut files) = (0_u64, 0_u64);
    list::each(client, folder, |file| {
        files += 1;
        let digest = file.file_digest.as_ref().and_then(|digest| digest.parse().ok());
        if let Err(error) = remove(client, &file.file_name, digest, args.json) {
            report.failed(Some(&file.file_name), &format!("{error:#}"));
            failed += 1;
        }
        Ok(())
    })?;
    anyhow::ensure!(files > 0, "there are no finished files in it");
    anyhow::ensure!(failed == 0, "{failed} of {files} files were not removed");
    Ok(())
}

/// Cancels unfinished uploads; true if all are gone by it.
///
/// # Errors
/// The server cannot be asked.
pub fn cancel(args: &CancelArgs, report: &Report) -> anyhow::Result<bool> {
    let client = args.server.client()?;
    let mut is_well = true;
    for name in &args.names {
        if let Err(error) = cancel_one(&client, name, args.json) {
            report.failed(Some(name), &format!("{error:#}"));
            is_well = false;
        }
    }
    Ok(is_well)
}

fn cancel_one(client: &Client, name: &str, is_json: bool) -> anyhow::Result<()> {
    let held = client.cancel(&FileName::new(name)?).map_err(advice::failed_call)?;
    let held = held.ok_or_else(|| anyhow::anyhow!("there is no unfinished upload of this name on the server"))?;
    if is_json {
        print_json(&json!({"event": "cancelled", "file_name": name, "bytes_held": held}));
    } else {
        print_line(&format!("{name}: cancelled, with the {} that it held", show_size(held)));
    }
    Ok(())
}
