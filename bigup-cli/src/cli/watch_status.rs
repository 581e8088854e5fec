//! The state of a watch, for people and for monitors: a JSON file beside its journal, and a file of metrics where one is
//! asked for. Both are replaced as a whole, so a reader never sees half of one.
//!
//! A file that is left over from a watch that ended is harmless: whether it is at work tells the lock of its journal.

use crate::cli::args::watch::WatchArgs;
use crate::cli::counts::count;
use crate::cli::print::{print_json, print_line};
use crate::source::system;
use anyhow::Context;
use bigup_core::protocol::units::show_size;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::fmt::Write as _;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The version of the format of the file.
const VERSION: u32 = 1;

/// Shortest time between two writes.
const PAUSE: Duration = Duration::from_secs(1);

/// Most files that are named with the reason why they wait.
pub const MOST_NAMED: usize = 20;

/// The state of a watch.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WatchStatus {
    /// Version of the format: 1.
    pub version: u32,
    /// The watched folder.
    pub folder: String,
    /// The folder on the server: the URL, a space, and the prefix of names.
    pub place: String,
    /// Number of the process.
    pub pid: u32,
    /// Beginning of the watch, in seconds since 1970.
    pub began: u64,
    /// Time of the last change of what follows, in seconds since 1970.
    pub updated: u64,
    /// Number of files that the journal knows as stored.
    pub known: u64,
    /// Number of files that were stored since the beginning.
    pub stored: u64,
    /// Their bytes.
    pub stored_bytes: u64,
    /// Time at which the last of them was stored, in seconds since 1970. 0: none was.
    pub last_stored: u64,
    /// Number of pushes that failed since the beginning.
    pub failed: u64,
    /// Number of files that wait.
    pub waiting: u64,
    /// Some of these, with their reasons.
    pub files: Vec<WaitingFile>,
}

/// A file that waits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WaitingFile {
    /// Its name on the server.
    pub file_name: String,
    /// Why it waits.
    pub reason: String,
}

impl WatchStatus {
    /// That of a watch that begins.
    pub fn begin(folder: &Path, place: &str) -> WatchStatus {
        WatchStatus {
            version: VERSION,
            folder: folder.display().to_string(),
            place: place.to_owned(),
            pid: std::process::id(),
            began: now(),
            ..WatchStatus::default()
        }
    }

    /// The same as metrics in the text format of Prometheus, as the textfile collector of its node exporter reads them.
    pub fn metrics(&self) -> String {
        let escaped = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let labels = format!("{{folder=\"{}\",place=\"{}\"}}", escaped(&self.folder), escaped(&self.place));
        let mut text = String::new();
        for (name, kind, help, value) in [
            ("stored_files_total", "counter", "Files stored since the watch began", self.stored),
            ("stored_bytes_total", "counter", "Bytes of the files stored since the watch began", self.stored_bytes),
            ("failed_pushes_total", "counter", "Pushes that failed since the watch began", self.failed),
            ("waiting_files", "gauge", "Files that are not stored yet", self.waiting),
            ("known_files", "gauge", "Files that are known as stored", self.known),
            (
                "last_stored_timestamp_seconds",
                "gauge",
                "Time at which a file was stored last, 0 if none was",
                self.last_stored,
            ),
            ("start_time_seconds", "gauge", "Time at which the watch began", self.began),
        ] {
            let name = format!("bigup_watch_{name}");
            // Into a string, which has no errors.
            let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name}{labels} {value}\n");
        }
        text
    }
}

/// Seconds since 1970.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// Keeps the files up to date.
pub struct StatusWriter {
    status: PathBuf,
    metrics: Option<PathBuf>,
    last: Option<(Instant, WatchStatus)>,
}

impl StatusWriter {
    /// For the watch with this journal; `metrics` is the file of metrics.
    pub fn new(journal: &Path, metrics: Option<PathBuf>) -> StatusWriter {
        StatusWriter { status: journal.with_extension("status"), metrics, last: None }
    }

    /// Writes the state, if it is another one. Where it is too early for that, returns when it is not.
    ///
    /// # Errors
    /// As the system gives them; it is not written again before it changes.
    pub fn write(&mut self, state: WatchStatus) -> io::Result<Option<Instant>> {
        if let Some((at, last)) = &self.last {
            if *last == (WatchStatus { updated: last.updated, ..state.clone() }) {
                return Ok(None);
            }
            if at.elapsed() < PAUSE {
                return Ok(Some(*at + PAUSE));
            }
        }
        let state = WatchStatus { updated: now(), ..state };
        let (json, metrics) = (serde_json::to_vec_pretty(&state)?, state.metrics());
        self.last = Some((Instant::now(), state));
        let told = |path: &Path, error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        replace(&self.status, &json).map_err(|error| told(&self.status, error))?;
        let Some(path) = &self.metrics else { return Ok(None) };
        replace(path, metrics.as_bytes()).map_err(|error| told(path, error))?;
        Ok(None)
    }
}

/// Replaces the file at `path`, which others may read.
///
/// # Errors
/// As the system gives them.
pub fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    // One name, so that what a kill leaves is written over by the next start.
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let fresh = path.with_file_name(format!(".{name}.fresh"));
    fs::write(&fresh, content)?;
    #[cfg(unix)]
    fs::set_permissions(&fresh, std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
    fs::rename(&fresh, path)
}

/// Shows the watches of the folder of `args`, whose journals are in the folder `state`. True if all of them are at work.
///
/// # Errors
/// There is none, or a file cannot be read.
pub fn show(args: &WatchArgs, state: &Path) -> anyhow::Result<bool> {
    let given = args.push.paths.first().map_or(Path::new("."), |path| path.as_path());
    let folder = system::real_path(given).with_context(|| given.display().to_string())?.display().to_string();
    let (mut all_at_work, mut shown) = (true, 0);
    let entries = match fs::read_dir(state) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => vec![],
        entries => {
            entries.and_then(Iterator::collect::<io::Result<Vec<_>>>).with_context(|| state.display().to_string())?
        }
    };
    for path in entries.iter().map(fs::DirEntry::path) {
        if path.extension().is_none_or(|extension| extension != "status") {
            continue;
        }
        let text = fs::read(&path).with_context(|| path.display().to_string())?;
        let status: WatchStatus = serde_json::from_slice(&text).with_context(|| path.display().to_string())?;
        if status.folder != folder {
            continue;
        }
        let at_work = is_at_work(&path.with_extension("lock")).with_context(|| path.display().to_string())?;
        (all_at_work, shown) = (all_at_work && at_work, shown + 1);
        if args.push.transfer.json {
            let mut value = serde_json::to_value(&status)?;
            value["at_work"] = json!(at_work);
            print_json(&value);
        } else {
            lines(&status, at_work).iter().for_each(|line| print_line(line));
        }
    }
    anyhow::ensure!(shown > 0, "no watch of {folder} is known in {}: start it, or give its --state", state.display());
    Ok(all_at_work)
}

fn is_at_work(lock: &Path) -> io::Result<bool> {
    match File::open(lock)?.try_lock_shared() {
        Ok(()) => Ok(false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// A state in words.
fn lines(status: &WatchStatus, at_work: bool) -> Vec<String> {
    let ago = |time: u64| humantime::format_duration(Duration::from_secs(now().saturating_sub(time)));
    let WatchStatus { folder, place, pid, stored, stored_bytes, failed, waiting, known, .. } = status;
    let work = match at_work {
        true => format!("at work for {} (process {pid})", ago(status.began)),
        false => format!("not at work; its last state is {} old", ago(status.updated)),
    };
    let last =
        if status.last_stored == 0 { String::new() } else { format!(", the last {} ago", ago(status.last_stored)) };
    let mut lines = vec![
        format!("{folder} to {place}: {work}"),
        format!(
            "  stored {}, {}{last}; {} known as stored",
            count(*stored, "file"),
            show_size(*stored_bytes),
            count(*known, "file")
        ),
        format!("  {} waiting; {failed} pushes failed", count(*waiting, "file")),
    ];
    lines.extend(status.files.iter().map(|file| format!("  {}: {}", file.file_name, file.reason)));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_written_once_for_each_change_and_at_most_once_a_second() {
        let dir = tempfile::tempdir().unwrap();
        let metrics = dir.path().join("watch.prom");
        // A kill left it in the middle of a write.
        fs::write(dir.path().join(".watch.prom.fresh"), "half").unwrap();
        let mut writer = StatusWriter::new(&dir.path().join("watch-x.journal"), Some(metrics.clone()));
        let state = WatchStatus { waiting: 3, ..WatchStatus::begin(Path::new("/w\"x"), "http://h x/") };
        assert_eq!(writer.write(state.clone()).unwrap(), None);
        let written = fs::read(dir.path().join("watch-x.status")).unwrap();
        let read: WatchStatus = serde_json::from_slice(&written).unwrap();
        assert_eq!((read.waiting, read.updated >= read.began), (3, true));
        assert!(
            fs::read_to_string(&metrics)
                .unwrap()
                .contains("bigup_watch_waiting_files{folder=\"/w\\\"x\",place=\"http://h x/\"} 3")
        );
        assert_eq!(writer.write(state.clone()).unwrap(), None);
        let next = writer.write(WatchStatus { waiting: 4, ..state }).unwrap();
        assert!(next.is_some_and(|next| next > Instant::now()));
        assert_eq!(fs::read(dir.path().join("watch-x.status")).unwrap(), written);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_state_in_words_says_whether_the_watch_is_at_work() {
        let file = WaitingFile { file_name: "x/a".to_owned(), reason: "open".to_owned() };
        let state = WatchStatus { files: vec![file], stored: 1, ..WatchStatus::begin(Path::new("/w"), "http://h x/") };
        let shown = lines(&state, true);
        assert!(shown[0].contains("at work for") && shown[1].contains("stored 1 file,") && shown[3] == "  x/a: open");
        assert!(lines(&state, false)[0].contains("not at work"));
    }
}
