//! `on_begin`: a hook is asked before an upload begins.
//!
//! A client that goes on with an upload is let through: the upload has begun. A source that takes an upload over begins
//! it anew, so the hook is asked. A request that waits for a response holds a thread, so their number is limited.

use super::{HookAnswer, HookQuestion, HookRunner, HookSettings, StopDeadline};
use crate::metadata;
use crate::metrics::{self, Limit, Metrics};
use crate::refusal::Refusal;
use bigup_core::protocol::name::FileName;
use bigup_core::protocol::native::ErrorCode;
use bigup_core::storage::disk::random_suffix;
use serde_json::json;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::Instant;

/// Most questions at once.
const MOST_AT_ONCE: usize = 16;

/// Most requests that wait for a response, or their turn; further clients are told to retry. Twice what a client sends
/// at once, and far fewer than there are threads for blocking work, which all other requests need too.
const MOST_WAITING: usize = 128;

/// Seconds after which a client can retry if there was no response.
const RETRY_AFTER: u64 = 5;

/// An upload that is to begin.
#[derive(Clone, Copy, Debug)]
pub struct BeginQuestion<'a> {
    /// Name of the file.
    pub name: &'a FileName,
    /// Bytes of the file. `None` if not known yet.
    pub size: Option<u64>,
    /// Name of the client's token. `None` if it has no token.
    pub token: Option<&'a str>,
    /// A finished file of that name can be replaced.
    pub replace: bool,
    /// Anything else that the client tells of the file. `None` if it tells nothing.
    pub metadata: Option<&'a str>,
    /// Where the request came from, where known.
    pub peer: Option<IpAddr>,
}

/// Asks the hook about uploads that are to begin.
#[derive(Clone, Debug)]
pub struct BeginHook {
    runner: HookRunner,
    time: Duration,
    turns: Arc<Semaphore>,
    places: Arc<Semaphore>,
}

impl BeginHook {
    /// The hook that `settings` ask for, over the data folder `folder`. `None` if all uploads are permitted to begin.
    pub fn new(settings: &HookSettings, folder: &Path, metrics: Metrics) -> Option<BeginHook> {
        let (hook, time) = (settings.on_begin.clone()?, settings.on_begin_timeout);
        let runner = HookRunner::new(hook, metrics::Hook::Begin, folder, settings.secret_file.clone(), metrics);
        let places = |most| Arc::new(Semaphore::new(most));
        Some(BeginHook { runner, time, turns: places(MOST_AT_ONCE), places: places(MOST_WAITING) })
    }

    /// Lets an upload begin, or refuses it. Blocks until there is a response; call it from a runtime's thread that can
    /// block.
    ///
    /// # Errors
    /// The upload is refused (403), or the hook gives no response now (503).
    pub fn admit(&self, ask: BeginQuestion<'_>) -> Result<(), Refusal> {
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            let name = ask.name;
            log::warn!(file_name = name.as_str(); "{name}: on_begin was not asked: {MOST_WAITING} uploads wait for it already");
            return Err(Refusal { limit: Some(Limit::OnBegin), ..not_now() });
        };
        let (name, question, this) = (ask.name.clone(), question(ask), self.clone());
        // On the runtime: when that is shut down, no request waits any more.
        let (tell, told) = oneshot::channel();
        Handle::current().spawn(async move {
            let _place = place;
            // The request may be gone.
            let _ = tell.send(this.ask(&name, &question).await);
        });
        match told.blocking_recv() {
            Ok(HookAnswer::Yes) => Ok(()),
            Ok(HookAnswer::No { how, message }) => {
                log::info!(file_name = ask.name.as_str(); "{}: on_begin refused the upload: {how}", ask.name);
                let message = if message.is_empty() { "this server does not take it".to_owned() } else { message };
                Err(Refusal::new(ErrorCode::Forbidden, message))
            }
            Ok(HookAnswer::Failed(why)) => {
                log::error!(file_name = ask.name.as_str(); "{}: on_begin gave no response: {why}", ask.name);
                Err(not_now())
            }
            Ok(HookAnswer::Stopped) | Err(_) => Err(not_now()),
        }
    }

    async fn ask(&self, name: &FileName, question: &HookQuestion) -> HookAnswer {
        let deadline = Instant::now() + self.time;
        let turn = tokio::time::timeout_at(deadline, self.turns.acquire()).await;
        let Ok(Ok(_turn)) = turn else {
            return HookAnswer::Failed(format!(
                "{MOST_AT_ONCE} others were asked about for {} s",
                self.time.as_secs_f64()
            ));
        };
        // Requests at work have their grace when the daemon stops, and this is part of one.
        self.runner.ask(name, question, deadline - Instant::now(), StopDeadline::never()).await
    }
}

fn not_now() -> Refusal {
    let message = "whether this may be uploaded cannot be told just now: ask again later";
    Refusal { retry_after: Some(RETRY_AFTER), ..Refusal::new(ErrorCode::Overloaded, message) }
}

fn question(ask: BeginQuestion<'_>) -> HookQuestion {
    let fields = vec![
        ("event", json!("begin")),
        ("file_name", json!(ask.name.as_str())),
        ("file_size", json!(ask.size)),
        ("token", json!(ask.token)),
        ("replace", json!(ask.replace)),
        ("metadata", metadata::json(ask.metadata)),
        ("peer", json!(ask.peer.map(|peer| peer.to_string()))),
    ];
    HookQuestion::new(random_suffix(), fields, &["file_name", "file_size", "token"])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documents_tell_the_same_numbers() {
        let (hooks, metrics) = (include_str!("../../../docs/hooks.md"), include_str!("../../../docs/metrics.md"));
        let waiting = format!("{MOST_AT_ONCE} are asked about at once, {MOST_WAITING} may wait in all");
        assert!(hooks.contains(&waiting), "docs/hooks.md does not say: {waiting}");
        let refused = format!("an answer of `on_begin`, since {MOST_WAITING} did");
        assert!(metrics.contains(&refused), "docs/metrics.md does not say: {refused}");
        assert!(hooks.contains(&format!("`Retry-After: {RETRY_AFTER}`")));
    }
}
