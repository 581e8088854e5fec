//! Files of a watched folder that are sent while they grow (`watch --follow`), each by a thread of its own.

use crate::cli::advice::{self, PushFlags};
use crate::cli::args::watch::WatchArgs;
use crate::cli::push::Line;
use crate::cli::report::Report;
use crate::stop::Stop;
use crate::watch::paths::{below, place};
use bigup_core::protocol::name::FileName;
use bigup_core::protocol::units::show_size;
use serde_json::json;
use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Scope, ScopedJoinHandle};

/// Most files that are sent at a time while they grow: each has a slice in memory.
const MOST: usize = 4;

/// The connections to the server, which all pushes of a watch share. They are opened when they are needed.
pub struct Lines<'a> {
    args: &'a WatchArgs,
    line: Mutex<Option<Arc<Line>>>,
}

impl<'a> Lines<'a> {
    /// Those of `line`, to begin with.
    pub fn new(args: &'a WatchArgs, line: Line) -> Lines<'a> {
        Lines { args, line: Mutex::new(Some(Arc::new(line))) }
    }

    /// The line, which is opened if there is none.
    ///
    /// # Errors
    /// The token or a certificate cannot be used.
    pub fn get(&self) -> anyhow::Result<Arc<Line>> {
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        let open = line.take().map_or_else(|| Line::new(&self.args.push, None).map(Arc::new), Ok)?;
        Ok(Arc::clone(line.insert(open)))
    }

    /// Closes the connections, unless somebody uses them; true if there were any.
    pub fn close(&self) -> bool {
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        line.take_if(|line| Arc::strong_count(line) == 1).is_some()
    }
}

/// The threads that send growing files. They end when this is dropped.
pub struct Followers<'scope, 'env> {
    scope: &'scope Scope<'scope, 'env>,
    args: &'env WatchArgs,
    report: &'env Report,
    into: &'env str,
    root: &'env Path,
    lines: &'env Lines<'env>,
    at_work: HashMap<Arc<str>, (Stop, ScopedJoinHandle<'scope, ()>)>,
}

impl<'scope, 'env> Followers<'scope, 'env> {
    /// No file is sent so far. Files below `root` get names below `into`.
    pub fn new(
        scope: &'scope Scope<'scope, 'env>,
        args: &'env WatchArgs,
        report: &'env Report,
        (root, into): (&'env Path, &'env str),
        lines: &'env Lines<'env>,
    ) -> Followers<'scope, 'env> {
        Followers { scope, args, report, into, root, lines, at_work: HashMap::new() }
    }

    /// Sends the file at `path` while it grows, unless it is sent already, or too many are.
    pub fn follow(&mut self, path: &Arc<str>) {
        self.at_work.retain(|_, (_, thread)| !thread.is_finished());
        if self.at_work.len() >= MOST || self.at_work.contains_key(path) {
            return;
        }
        // The push tells why a name cannot be.
        let Ok(name) = FileName::new(&below(self.into, path)) else { return };
        let (file, stop) = (place(self.root, path), Stop::new());
        let (args, report, lines, signal) = (self.args, self.report, self.lines, stop.clone());
        let thread = self.scope.spawn(move || {
            let event = json!({"event": "following", "file_name": name.as_str()});
            report.event(event, &format!("{name} is sent while it grows"), false);
            let sent = lines.get().map_err(|error| format!("{error:#}")).and_then(|line| {
                let sent = line.send_ahead(&args.push, &name, &file, signal.signal());
                let flags = PushFlags { replace: args.push.replace, when_full: args.push.when_full.into() };
                sent.map_err(|error| advice::of_upload(&error, flags))
            });
            match sent {
                Ok(bytes) => {
                    let event = json!({"event": "followed", "file_name": name.as_str(), "bytes_sent": bytes});
                    report.event(event, &format!("{name}: {} were sent while it grew", show_size(bytes)), false);
                }
                // The push goes on with what the server has, and tells errors that stay.
                Err(message) => report.waits(name.as_str(), &message, false),
            }
        });
        self.at_work.insert(Arc::clone(path), (stop, thread));
    }

    /// The file at `path` is to be pushed: its thread ends first.
    pub fn end(&mut self, path: &str) {
        if let Some((stop, thread)) = self.at_work.remove(path) {
            stop.stop();
            let _ = thread.join();
        }
    }
}

impl Drop for Followers<'_, '_> {
    fn drop(&mut self) {
        self.at_work.values().for_each(|(stop, _)| stop.stop());
    }
}
