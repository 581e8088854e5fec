//! Hooks: questions before an upload begins, and messages after a file is finished, as an operator wants them. Each
//! hook is a program, run without a shell, or a URL.
//!
//! - [`begin`] - `on_begin`: asks if an upload is permitted to begin.
//! - [`complete`] - `on_complete`: this file is finished, told at least once, from the completion records that
//!   publications leave.
//! - [`program`] - running a program within limits; [`web`] - the same question as a POST, and [`signature`] of that.
//!
//! It uses completion records of the data folder. A hook is given a question, and knows no upload, no request and no
//! merger.

pub mod begin;
pub mod complete;
pub mod program;
pub mod signature;
pub mod web;

use crate::metrics::{self, HookResult, Metrics};
use bigup_core::protocol::name::{FileName, printable, quoted};
use nix::unistd::{AccessFlags, eaccess};
use serde_json::{Map, Value};
use signature::Secret;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::watch;
use ureq::http::Uri;

/// Most bytes that are kept of each output of a hook. Further bytes are read and dropped.
pub const MAX_SAID: usize = 4 << 10;

/// Most lines of it that are logged.
const MAX_LINES: usize = 40;

/// A program or URL that is asked or told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hook {
    /// This program, by its absolute path.
    Program(PathBuf),
    /// A POST to this URL, http:// or https://.
    Url(String),
}

impl Hook {
    /// Reads the value of a setting.
    ///
    /// # Errors
    /// It is neither an absolute path nor a URL.
    pub fn parse(text: &str) -> Result<Hook, String> {
        if text.starts_with('/') {
            return Ok(Hook::Program(PathBuf::from(text)));
        }
        let url = text.parse::<Uri>().ok().filter(|url| url.authority().is_some_and(|host| !host.host().is_empty()));
        match url.and_then(|url| url.scheme_str().map(str::to_owned)).as_deref() {
            Some("http" | "https") => Ok(Hook::Url(text.to_owned())),
            _ => Err(format!(
                "{} is neither the absolute path of a program, without arguments, nor an http:// or https:// URL",
                quoted(text)
            )),
        }
    }

    /// True if it can be used as things stand.
    ///
    /// # Errors
    /// The program is not there or cannot be executed, or there is no authority to trust.
    fn check(&self) -> Result<(), String> {
        match self {
            Hook::Program(path) => {
                let shown = printable(&path.to_string_lossy());
                let found = std::fs::metadata(path).map_err(|e| format!("{shown}: {e}"))?;
                if !found.is_file() {
                    return Err(format!("{shown} is no regular file"));
                }
                eaccess(path, AccessFlags::X_OK).map_err(|e| format!("{shown} cannot be executed: {e}"))
            }
            Hook::Url(url) => web::check(url),
        }
    }
}

/// Settings of hooks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookSettings {
    /// The hook that is asked before an upload begins. `None`: no hook.
    pub on_begin: Option<Hook>,
    /// Time limit for its response.
    pub on_begin_timeout: Duration,
    /// The hook that is told of finished files. `None`: no hook.
    pub on_complete: Option<Hook>,
    /// Time limit for it, at each attempt.
    pub on_complete_timeout: Duration,
    /// Number of attempts, at least 1.
    pub on_complete_attempts: u32,
    /// The file of the secret by which questions to URLs are signed. `None` if they are not.
    pub secret_file: Option<PathBuf>,
}

impl HookSettings {
    /// Mistakes in the hooks' settings as things stand.
    pub fn mistakes(&self) -> Vec<String> {
        let hooks = [("on_begin", &self.on_begin), ("on_complete", &self.on_complete)];
        let check =
            |(key, hook): (&str, &Option<Hook>)| hook.as_ref()?.check().err().map(|why| format!("{key}: {why}"));
        let secret = self.secret_file.as_deref().and_then(|file| Secret::read(file).err());
        let secret = secret.map(|why| format!("hook_secret_file: {why}"));
        hooks.into_iter().filter_map(check).chain(secret).collect()
    }
}

/// A question or message for a hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookQuestion {
    /// Tells it from other questions; the same at each attempt.
    id: String,
    /// Arguments of a program; an unknown value is empty.
    arguments: Vec<String>,
    /// All of it, by name: `file_size` is `BIGUP_FILE_SIZE` in a program's environment ([`variable`]) and `"file_size"` in a body's JSON.
    fields: Vec<(&'static str, Value)>,
}

impl HookQuestion {
    /// A question with these fields. Those named in `arguments` are a program's arguments, in that order. `id` tells it
    /// from all others.
    fn new(id: String, fields: Vec<(&'static str, Value)>, arguments: &[&str]) -> HookQuestion {
        let value = |name: &&str| fields.iter().find(|(key, _)| key == name).map_or(String::new(), |(_, v)| text(v));
        HookQuestion { id, arguments: arguments.iter().map(value).collect(), fields }
    }

    fn variables(&self) -> impl Iterator<Item = (String, String)> {
        self.fields.iter().map(|(name, value)| (variable(name), text(value)))
    }

    fn json(&self) -> Value {
        let fields = self.fields.iter().map(|(name, value)| ((*name).to_owned(), value.clone()));
        Value::Object(fields.collect::<Map<_, _>>())
    }
}

/// The variable that programs get a field in. Not one that a program of ours takes for something else: `bigup-cli` sends
/// `BIGUP_TOKEN` as a token, and this is only the name of one.
fn variable(field: &str) -> String {
    match field {
        "token" => "BIGUP_TOKEN_NAME".to_owned(),
        _ => format!("BIGUP_{}", field.to_uppercase()),
    }
}

/// A value as programs get it: an unknown one is empty, a switch 1 or 0.
fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Bool(switch) => u8::from(*switch).to_string(),
        other => other.to_string(),
    }
}

/// The response of a hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HookAnswer {
    /// It is well: exit code 0, or a 2xx.
    Yes,
    /// It says no, and that will not change by itself.
    No {
        /// Form of the response, like `exit code 1`.
        how: String,
        /// Its message for the client, printable; empty if it gave none.
        message: String,
    },
    /// It failed, or could not be asked; the text gives the reason.
    Failed(String),
    /// It was ended since the daemon stops.
    Stopped,
}

/// Asks or tells one hook, within its limits.
#[derive(Clone, Debug)]
pub struct HookRunner {
    hook: Hook,
    /// The hook's label in metrics.
    key: metrics::Hook,
    /// The data folder, absolute; where programs run.
    folder: PathBuf,
    agent: Option<ureq::Agent>,
    /// The file of the secret that signs requests to a URL.
    secret_file: Option<PathBuf>,
    metrics: Metrics,
}

impl HookRunner {
    /// A runner of `hook`, the value of the setting `key`. A program runs in the data folder `folder`; a POST is signed
    /// by the secret in `secret_file`. Responses count in `metrics`.
    pub fn new(
        hook: Hook,
        key: metrics::Hook,
        folder: &Path,
        secret_file: Option<PathBuf>,
        metrics: Metrics,
    ) -> HookRunner {
        // It can be told unless the folder that we are in is gone.
        let folder = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
        let agent = match &hook {
            Hook::Program(_) => None,
            Hook::Url(url) => Some(web::agent(url)),
        };
        HookRunner { hook, key, folder, agent, secret_file, metrics }
    }

    /// Asks about the upload `name`, and waits for `time` at most, or until `stop`. The output of a program is logged.
    pub async fn ask(
        &self,
        name: &FileName,
        question: &HookQuestion,
        time: Duration,
        stop: StopDeadline,
    ) -> HookAnswer {
        let answer = self.ask_it(name, question, time, stop).await;
        let counted = match &answer {
            HookAnswer::Yes => HookResult::Yes,
            HookAnswer::No { .. } => HookResult::No,
            HookAnswer::Failed(_) => HookResult::Failed,
            HookAnswer::Stopped => HookResult::Stopped,
        };
        self.metrics.hook_answered(self.key, counted);
        answer
    }

    async fn ask_it(&self, name: &FileName, question: &HookQuestion, time: Duration, stop: StopDeadline) -> HookAnswer {
        match &self.hook {
            Hook::Program(path) => {
                let ended = program::run(path, question, &self.folder, time, stop).await;
                let answer = ended.answer();
                let level = if answer == HookAnswer::Yes { log::Level::Info } else { log::Level::Warn };
                for line in ended.out.lines().into_iter().chain(ended.err.lines()) {
                    log::log!(level, file_name = name.as_str(); "{name}: {}: {line}", self.key.label());
                }
                answer
            }
            Hook::Url(url) => {
                let agent = self.agent.clone().expect("one was made for the URL");
                let (url, question, secret) = (url.clone(), question.clone(), self.secret_file.clone());
                let posted =
                    tokio::task::spawn_blocking(move || web::post(&agent, &url, &question, secret.as_deref(), time));
                tokio::select! {
                    answer = posted => answer.unwrap_or_else(|e| HookAnswer::Failed(e.to_string())),
                    // The thread ends by itself.
                    () = stop.asked() => HookAnswer::Stopped,
                }
            }
        }
    }
}

/// The time at which a running hook is ended because the daemon stops.
#[derive(Clone, Debug)]
pub struct StopDeadline(Option<(watch::Receiver<bool>, Duration)>);

impl StopDeadline {
    /// Once `stopping` has been true for `grace`.
    pub fn after(stopping: watch::Receiver<bool>, grace: Duration) -> StopDeadline {
        StopDeadline(Some((stopping, grace)))
    }

    /// Not before the runtime ends, and the hook with it.
    pub fn never() -> StopDeadline {
        StopDeadline(None)
    }

    /// Done when it is time.
    async fn asked(self) {
        let Some((mut stopping, grace)) = self.0 else { return std::future::pending().await };
        // Also if the sender is gone.
        let _ = stopping.wait_for(|stop| *stop).await;
        tokio::time::sleep(grace).await;
    }
}

/// A hook's output, up to the size that is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CapturedOutput {
    /// The first [`MAX_SAID`] bytes.
    kept: Vec<u8>,
    /// Number of bytes dropped beyond that.
    more: u64,
}

impl CapturedOutput {
    /// Takes the next bytes.
    fn take(&mut self, bytes: &[u8]) {
        let keep = bytes.len().min(MAX_SAID - self.kept.len());
        self.kept.extend_from_slice(&bytes[..keep]);
        self.more += (bytes.len() - keep) as u64;
    }

    /// Its lines, printable, for the log.
    fn lines(&self) -> Vec<String> {
        let text = String::from_utf8_lossy(&self.kept);
        let lines = text.lines().map(str::trim_end).filter(|line| !line.is_empty());
        let mut lines: Vec<String> = lines.take(MAX_LINES + 1).map(printable).collect();
        if lines.len() > MAX_LINES || self.more > 0 {
            lines.truncate(MAX_LINES);
            lines.push(format!("(and more, {} bytes of it not kept)", self.more));
        }
        lines
    }

    /// The same in one line of at most `most` bytes, for a client.
    fn message(&self, most: usize) -> String {
        let text = String::from_utf8_lossy(&self.kept);
        let lines: Vec<String> = text.lines().map(str::trim).filter(|line| !line.is_empty()).map(printable).collect();
        let mut message = lines.join(" ");
        message.truncate(message.floor_char_boundary(most));
        message
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_hook_is_an_absolute_path_or_a_url() {
        assert_eq!(Hook::parse("/usr/bin/x y"), Ok(Hook::Program("/usr/bin/x y".into())));
        for url in ["http://127.0.0.1:1/a?b=c", "https://example.org"] {
            assert_eq!(Hook::parse(url), Ok(Hook::Url(url.to_owned())));
        }
        for wrong in ["", "bin/x", "ftp://x/y", "http://", "https:///x", "mailto:x", "http:x"] {
            assert!(Hook::parse(wrong).unwrap_err().contains("absolute path"), "{wrong}");
        }
    }

    #[test]
    fn programs_must_be_there_and_executable() {
        let dir = tempfile::tempdir().unwrap();
        let plain = dir.path().join("plain");
        std::fs::write(&plain, "").unwrap();
        let settings = |begin: &Path, complete: &Path| HookSettings {
            on_begin: Some(Hook::Program(begin.to_owned())),
            on_complete: Some(Hook::Program(complete.to_owned())),
            on_begin_timeout: Duration::ZERO,
            on_complete_timeout: Duration::ZERO,
            on_complete_attempts: 1,
            secret_file: None,
        };
        let mistakes = settings(&plain, &dir.path().join("none")).mistakes();
        assert_eq!(mistakes.len(), 2);
        assert!(mistakes[0].starts_with("on_begin: ") && mistakes[0].contains("executed"), "{mistakes:?}");
        assert!(settings(dir.path(), Path::new("/bin/sh")).mistakes()[0].contains("no regular file"));
        assert_eq!(settings(Path::new("/bin/sh"), Path::new("/bin/sh")).mistakes(), [""; 0]);
    }

    #[test]
    fn a_question_is_told_in_three_forms() {
        let fields = vec![
            ("file_name", json!("a b")),
            ("file_size", json!(7)),
            ("token", Value::Null),
            ("replace", json!(true)),
        ];
        let question = HookQuestion::new("1".to_owned(), fields, &["file_name", "token", "file_size"]);
        assert_eq!(question.arguments, ["a b", "", "7"]);
        let variables: Vec<String> = question.variables().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(variables, ["BIGUP_FILE_NAME=a b", "BIGUP_FILE_SIZE=7", "BIGUP_TOKEN_NAME=", "BIGUP_REPLACE=1"]);
        assert_eq!(question.json(), json!({"file_name": "a b", "file_size": 7, "token": null, "replace": true}));
    }

    #[test]
    fn what_is_said_is_kept_up_to_a_limit_and_steers_no_terminal() {
        let mut said = CapturedOutput::default();
        (0..1000).for_each(|_| said.take(b"ab\x1b\n\n"));
        assert_eq!((said.kept.len(), said.more), (MAX_SAID, 5000 - MAX_SAID as u64));
        let lines = said.lines();
        assert_eq!((lines.len(), lines[0].as_str()), (MAX_LINES + 1, "ab\\u{1b}"));
        assert!(lines[MAX_LINES].contains("904 bytes"), "{}", lines[MAX_LINES]);
        assert_eq!(said.message(12), "ab\\u{1b} ab\\");
        let mut short = CapturedOutput::default();
        short.take("ü".repeat(3).as_bytes());
        assert_eq!((short.message(5), short.lines().len()), ("üü".to_owned(), 1));
    }
}
