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

/// Pages that are held at most for a caller that is slower than the server.
const AHEAD: usize = 3;

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
    ahead(client, prefix, |mut pages| pages.try_for_each(|page| page?.into_iter().try_for_each(&mut each)))
}

/// Gives `with` the pages of finished files whose name begins with `prefix`, by name. Another thread asks for them
/// meanwhile. After an error no page follows.
///
/// # Errors
/// Those of `with`. A page is one if the server refuses, or does not respond.
pub fn ahead<T>(
    client: &Client,
    prefix: &str,
    with: impl FnOnce(crossbeam_channel::IntoIter<anyhow::Result<Vec<ListedFile>>>) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let (pages, received) = crossbeam_channel::bounded(AHEAD);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let mut after = String::new();
            loop {
                let page = client.list_page(prefix, &after, PAGE).map_err(advice::failed_call);
                let last = page.as_ref().ok().filter(|page| page.len() as u64 == PAGE).and_then(|page| page.last());
                let next = last.map(|file| file.file_name.clone());
                match (pages.send(page), next) {
                    (Ok(()), Some(next)) => after = next,
                    _ => return,
                }
            }
        });
        with(received.into_iter())
    })
}
