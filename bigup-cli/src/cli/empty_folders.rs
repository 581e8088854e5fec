//! Folders in which no file is pushed, and which the server is to have too (`--empty-folders`).

use crate::cli::advice;
use crate::cli::counts::count;
use crate::cli::default_folder::Asking;
use crate::cli::report::Report;
use crate::client::Client;
use crate::client::retry::{RetryBudget, RetryPolicy};
use bigup_core::protocol::name::FileName;
use serde_json::json;
use std::collections::BTreeSet;

/// Makes these folders on the server, and tells so; true if all are there.
pub fn make(client: &Client, folders: &BTreeSet<FileName>, retry: RetryPolicy, report: &Report) -> bool {
    let mut made = 0;
    for name in folders {
        let retry = RetryBudget::new(retry);
        match retry.call(&Asking(report), &crossbeam_channel::never(), None, || client.make_folder(name)) {
            Ok(()) => {
                made += 1;
                let event = json!({"event": "folder", "file_name": format!("{name}/")});
                report.event(event, &format!("{name}/: the empty folder is there"), false);
            }
            Err(error) => report.failed(Some(&format!("{name}/")), &format!("{:#}", advice::failed_call(error))),
        }
        if client.is_turned_away() {
            break;
        }
    }
    if made > 0 {
        report.total(&count(made, "empty folder"));
    }
    made == folders.len() as u64
}
