//! The folder of the server that files go into where no other one is given.

use crate::cli::advice;
use crate::cli::display::short_time;
use crate::cli::report::Report;
use crate::client::Client;
use crate::client::error::CallError;
use crate::client::observer::{Observer, Retry};
use crate::client::retry::{RetryBudget, RetryPolicy};

/// The folder that the token is for. `None`: it is for all names, or the server cannot tell.
///
/// # Errors
/// The server refuses, or does not respond.
pub fn default_folder(client: &Client, retry: RetryPolicy, report: &Report) -> anyhow::Result<Option<String>> {
    if !client.has_token() {
        return Ok(None);
    }
    let retry = RetryBudget::new(retry);
    match retry.call(&Asking(report), &crossbeam_channel::never(), None, || client.rights()) {
        Ok(rights) => Ok(Some(rights.prefix).filter(|prefix| prefix.ends_with('/'))),
        // Older servers take it for the list of uploads, which not every token may read.
        Err(CallError::Refused { status: 400 | 403, .. }) => Ok(None),
        Err(error) => Err(advice::failed_call(error)),
    }
}

/// Tells that a question about no file in particular is repeated.
pub struct Asking<'a>(pub &'a Report);

impl Observer for Asking<'_> {
    fn retrying(&self, retry: &Retry<'_>) {
        self.0.note(&format!("retrying for {}: {}", short_time(retry.left), advice::of_call(retry.error)));
    }
}
