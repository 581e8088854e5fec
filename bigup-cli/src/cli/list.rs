//! The command `list`, and the lists of finished files that other commands need.

use crate::cli::advice;
use crate::cli::args::files::ListArgs;
use crate::cli::print::{eprint_line, print_json, print_line};
use crate::client::Client;
use bigup_core::protocol::content::ListedFile;
use bigup_core::protocol::units::show_size;
use serde_json::json;

/// Files of a page.
const PAGE: u64 = 10_000;

/// Prints the finished files.
///
/// # Errors
/// The server refuses, or does not respond.
pub fn run(args: &ListArgs) -> anyhow::Result<()> {
    let (client, mut files) = (args.server.client()?, 0_u64);
    each(&client, args.prefix.as_deref().unwrap_or_default(), |file| {
        files += 1;
        if args.json {
            print_json(&json!(file));
        } else {
            print_line(&format!("{:>10}  {}  {}", show_size(file.file_size), file.modified, file.file_name));
        }
        Ok(())
    })?;
    if files == 0 && !args.json {
        eprint_line("no finished files");
    }
    Ok(())
}

/// Shows `each` finished file whose name begins with `prefix`, by name.
///
/// # Errors
/// The server refuses, or does not respond, or `each` fails.
pub fn each(
    client: &Client,
    prefix: &str,
    mut each: impl FnMut(ListedFile) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut after = String::new();
    loop {
        let page = client.list_page(prefix, &after, PAGE).map_err(advice::failed_call)?;
        let is_last = (page.len() as u64) < PAGE;
        after = page.last().map(|file| file.file_name.clone()).unwrap_or_default();
        page.into_iter().try_for_each(&mut each)?;
        if is_last {
            return Ok(());
        }
    }
}
