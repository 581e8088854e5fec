//! A visitor of the page: in Chromium, driven by `tests/clients/page/visitor.mjs`, or in Firefox, by `firefox.mjs` beside it.

use crate::clients;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;

/// The selector of rows whose upload is verified.
pub const VERIFIED: &str = "#list .row[data-state=verified]";

/// A browser with a profile of its own, which ends with the test.
pub struct Visitor {
    child: Child,
    commands: Option<ChildStdin>,
    results: BufReader<ChildStdout>,
    profile: Arc<tempfile::TempDir>,
}

impl Default for Visitor {
    fn default() -> Visitor {
        Visitor::new()
    }
}

impl Visitor {
    /// A browser that was never used.
    pub fn new() -> Visitor {
        Visitor::with(json!({}))
    }

    /// The same with options of `visitor.mjs`.
    pub fn with(options: Value) -> Visitor {
        let profile = tempfile::tempdir().expect("a temporary folder can be made");
        Visitor::start(Arc::new(profile), options)
    }

    /// Firefox, which knows fewer commands, and selectors of CSS alone.
    pub fn in_firefox() -> Visitor {
        let mut command = clients::node("page/firefox.mjs");
        // Up to node 20 it has WebSocket behind this option only.
        command.env("NODE_OPTIONS", "--experimental-websocket --no-warnings");
        let profile = tempfile::tempdir().expect("a temporary folder can be made");
        Visitor::by(command, Arc::new(profile), json!({}))
    }

    fn start(profile: Arc<tempfile::TempDir>, options: Value) -> Visitor {
        Visitor::by(clients::node("page/visitor.mjs"), profile, options)
    }

    fn by(mut command: Command, profile: Arc<tempfile::TempDir>, mut options: Value) -> Visitor {
        options["profile"] = profile.path().to_string_lossy().into();
        command.arg(options.to_string()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("node can be started: tests/run installs it");
        let results = BufReader::new(child.stdout.take().expect("it was asked for"));
        let commands = child.stdin.take();
        Visitor { child, commands, results, profile }
    }

    /// Ends the browser as a crash does, and starts another one with what it stored.
    pub fn crash(self) -> Visitor {
        let profile = Arc::clone(&self.profile);
        drop(self);
        Visitor::start(profile, json!({}))
    }

    /// The result of a command.
    ///
    /// # Panics
    /// It fails; tells what the page showed.
    pub fn ask(&mut self, command: &Value) -> Value {
        let commands = self.commands.as_mut().expect("it is open");
        writeln!(commands, "{command}").and_then(|()| commands.flush()).expect("the browser runs");
        let mut line = String::new();
        self.results.read_line(&mut line).expect("the browser responds");
        let mut response: Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{command}: {e}: {line}"));
        assert_eq!(response["error"], Value::Null, "{}", response["error"].as_str().unwrap_or_default());
        response["result"].take()
    }

    /// Opens an address.
    pub fn open(&mut self, url: &str) {
        self.ask(&json!({"do": "open", "url": url}));
    }

    /// Chooses files by the input.
    pub fn choose(&mut self, files: &[&Path]) {
        self.ask(&json!({"do": "choose", "files": files}));
    }

    /// Drops files and folders.
    pub fn drop_files(&mut self, files: &[&Path]) {
        self.ask(&json!({"do": "drop", "files": files}));
    }

    /// Clicks at what a selector finds first.
    pub fn click(&mut self, at: &str) {
        self.ask(&json!({"do": "click", "at": at}));
    }

    /// Waits until a selector finds something that is shown.
    pub fn until(&mut self, at: &str) {
        self.ask(&json!({"do": "until", "at": at}));
    }

    /// Waits until so many uploads in sight are verified.
    pub fn until_verified(&mut self, count: usize) {
        self.ask(&json!({"do": "until", "at": VERIFIED, "count": count}));
    }

    /// The text of what a selector finds first.
    pub fn text(&mut self, at: &str) -> String {
        self.ask(&json!({"do": "text", "at": at})).as_str().unwrap_or_default().to_owned()
    }

    /// The value of a script.
    pub fn run(&mut self, script: &str) -> Value {
        self.ask(&json!({"do": "run", "script": script}))
    }

    /// No error, no exception, and no request to elsewhere came so far.
    ///
    /// # Panics
    /// There was one.
    pub fn assert_clean(&mut self) {
        assert_eq!(self.ask(&json!({"do": "faults"})), json!([]));
    }
}

impl Drop for Visitor {
    fn drop(&mut self) {
        // It closes the browser at the end of its input.
        drop(self.commands.take());
        let _ = self.child.wait();
    }
}
