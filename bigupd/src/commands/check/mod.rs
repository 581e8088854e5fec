//! `bigupd check`: compares unfinished uploads and finished files with their digests, and repairs them where it can.
//!
//! It uses the data folder and the repairs of [`upkeep`](crate::upkeep). Requests do not come in here.
//!
//! It can run beside daemons and mergers. Before a fault counts as damage it is checked again under the lock that keeps
//! the file from changing. Nothing is changed unless `--repair` is given. Nothing is ever deleted but slices that do
//! not match their digest; those are asked for again.

use crate::commands::{owner, with_store};
use crate::config::Config;
use crate::upkeep::reconcile::Reconciler;
use crate::upkeep::sweep;
use bigup_core::protocol::name::{FileName, NameError, printable};
use bigup_core::protocol::units::show_size;
use bigup_core::storage::data_dir::DataDir;
use bigup_core::storage::space::DiskSpace;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

mod files;
mod objects;
mod uploads;

/// Damage was found and left.
const EXIT_DAMAGED: u8 = 3;

/// Time that a merger can need to sync and leave, beyond its time without a slice.
const MERGER_LEAVES: Duration = Duration::from_secs(5);

const AFTER_HELP: &str = "\
A finished file without a digest (put there or changed by hand, or on a file system without extended attributes) counts \
as not known: it is named, with what it was where that is known, and changes no exit code.

Exit codes:
  0  no damage, or all damage was repaired
  1  some files or uploads could not be checked
  2  the command line or the configuration is invalid
  3  damage was found and left

Files:
  DATA/damaged/TIME/   files moved out of the way by a repair or a push; never used or removed by bigup

Examples:
  bigupd check   check all that is stored
  bigupd check --data-dir /srv/bigup --repair alice/   check and repair everything below a folder";

/// Compare unfinished uploads and finished files with the digests that were recorded when they came. Can run beside
/// daemons; nothing is changed without --repair.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = AFTER_HELP)]
pub struct Arguments {
    /// Names of files, folders of files, and uploads [default: all]
    #[arg(value_name = "NAME", value_parser = file_or_folder)]
    names: Vec<FileName>,
    /// Repair: damaged slices are sent again by the next push, damaged files and unreadable uploads go to DATA/damaged/,
    /// info.ini is rewritten
    #[arg(long)]
    repair: bool,
    /// Print a JSON object per line
    #[arg(long)]
    json: bool,
}

/// A name, also that of a folder as shells complete it, with a slash at its end.
fn file_or_folder(name: &str) -> Result<FileName, NameError> {
    FileName::new(name.strip_suffix('/').unwrap_or(name))
}

/// Checks, and prints the faults and the results.
pub fn run(config: &Config, arguments: &Arguments) -> ExitCode {
    match Check::begin(config, arguments).and_then(Check::all) {
        Ok(tally) if tally.damaged > tally.repaired => ExitCode::from(EXIT_DAMAGED),
        Ok(tally) if tally.failures > 0 => ExitCode::FAILURE,
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bigupd: {}", printable(&error.to_string()));
            ExitCode::FAILURE
        }
    }
}

/// The results so far.
#[derive(Default)]
struct Summary {
    files: u64,
    uploads: u64,
    bytes: u64,
    /// Files and uploads with damage.
    damaged: u64,
    repaired: u64,
    /// Files without a digest.
    unknown: u64,
    /// Number of checks that failed to run.
    failures: u64,
}

/// A fault.
struct Finding {
    /// First and last byte, where that can be told.
    bytes: Option<(u64, u64)>,
    /// First and last slice, where that can be told.
    slices: Option<(u64, u64)>,
    what: String,
}

/// The result of a repair.
enum Repair {
    /// No repair was asked for.
    NotAsked,
    /// It is repaired; the text tells how.
    Done(String),
    /// It is not; the text gives the reason.
    Failed(String),
}

struct Check<'a> {
    data: DataDir,
    space: DiskSpace,
    arguments: &'a Arguments,
    /// Longest wait for a merger to leave an upload that must be repaired.
    patience: Duration,
    /// Where damaged things go, once there are any.
    aside: Option<DataDir>,
    tally: Summary,
}

impl<'a> Check<'a> {
    fn begin(config: &Config, arguments: &'a Arguments) -> io::Result<Check<'a>> {
        let data = if arguments.repair { owner::open } else { DataDir::open }(&config.data_dir)?;
        let data = with_store(data, config)?;
        let patience = config.mergers.idle.saturating_add(MERGER_LEAVES);
        let space = DiskSpace::new(&data, config.uploads.reserve);
        Ok(Check { data, space, arguments, patience, aside: None, tally: Summary::default() })
    }

    fn all(mut self) -> io::Result<Summary> {
        // Uploads first: an upload that is finished meanwhile is checked as a file.
        let mut unseen = self.arguments.names.clone();
        self.check_uploads(&mut unseen)?;
        match self.data.objects() {
            Some(_) => self.check_objects(&mut unseen),
            None => self.check_files(&mut unseen),
        }
        for name in unseen {
            self.failed("file", name.as_str(), "there is no upload and no file of this name");
        }
        if self.arguments.repair {
            sweep::clean(&self.data, sweep::LEFTOVER_AGE)?;
            Reconciler::new(self.data.clone()).reconcile(|_, _| {})?;
        }
        self.summary();
        Ok(self.tally)
    }

    /// True if `name` is to be checked; it is seen then.
    fn is_asked_for(&self, name: &str, unseen: &mut Vec<FileName>) -> bool {
        let stands_for = |asked: &FileName| {
            name.strip_prefix(asked.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        unseen.retain(|asked| !stands_for(asked));
        self.arguments.names.is_empty() || self.arguments.names.iter().any(stands_for)
    }

    /// The data folder for files moved out of the way in this run.
    fn aside(&mut self) -> io::Result<DataDir> {
        if self.aside.is_none() {
            let now = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
            self.aside = Some(self.data.aside(&now)?);
        }
        Ok(self.aside.clone().expect("it was just made"))
    }

    /// Prints the fault of a file or upload, and its repair.
    fn damaged(&mut self, kind: &str, name: &str, findings: &[Finding], repair: &Repair) {
        self.tally.damaged += 1;
        self.tally.repaired += u64::from(matches!(repair, Repair::Done(_)));
        for finding in findings {
            self.say(&finding.text(kind, name, repair), &finding.json(kind, name, repair));
        }
    }

    /// Prints a file in `files/` that cannot be compared with anything, and the facts known of it.
    fn unknown(&mut self, name: &str, what: &str) {
        self.tally.unknown += 1;
        let text = format!("not known: file {}: {}", printable(name), printable(what));
        self.say(&text, &serde_json::json!({"event": "unknown", "kind": "file", "file_name": name, "what": what}));
    }

    fn failed(&mut self, kind: &str, name: &str, why: &str) {
        self.tally.failures += 1;
        let text = format!("not checked: {kind} {}: {}", printable(name), printable(why));
        self.say(&text, &serde_json::json!({"event": "failed", "kind": kind, "file_name": name, "what": why}));
    }

    fn summary(&self) {
        let t = &self.tally;
        let mut text = format!(
            "{} files and {} uploads checked, {}: {} damaged, {} repaired",
            t.files,
            t.uploads,
            show_size(t.bytes),
            t.damaged,
            t.repaired
        );
        if t.unknown > 0 {
            text += &format!("; {} files not known", t.unknown);
        }
        if t.failures > 0 {
            text += &format!("; {} could not be checked", t.failures);
        }
        let json = serde_json::json!({
            "event": "summary", "files": t.files, "uploads": t.uploads, "bytes": t.bytes, "damaged": t.damaged,
            "repaired": t.repaired, "unknown": t.unknown, "failures": t.failures,
        });
        self.say(&text, &json);
    }

    fn say(&self, text: &str, json: &serde_json::Value) {
        let line = if self.arguments.json { json.to_string() } else { text.to_owned() };
        // The reader may be gone; the repair counts all the same.
        let _ = writeln!(io::stdout(), "{line}");
    }
}

impl Finding {
    fn text(&self, kind: &str, name: &str, repair: &Repair) -> String {
        let mut text = format!("damaged: {kind} {}", printable(name));
        if let Some((first, last)) = self.bytes {
            text += &format!(": bytes {first}-{last}");
        }
        if let Some((first, last)) = self.slices {
            text += &if first == last { format!(", slice {first}") } else { format!(", slices {first}-{last}") };
        }
        text += &format!(": {}", printable(&self.what));
        match repair {
            Repair::NotAsked => {}
            Repair::Done(how) => text += &format!("; {}", printable(how)),
            Repair::Failed(why) => text += &format!("; not repaired: {}", printable(why)),
        }
        text
    }

    fn json(&self, kind: &str, name: &str, repair: &Repair) -> serde_json::Value {
        let (repaired, repair) = match repair {
            Repair::NotAsked => (false, None),
            Repair::Done(how) => (true, Some(how)),
            Repair::Failed(why) => (false, Some(why)),
        };
        serde_json::json!({
            "event": "damaged", "kind": kind, "file_name": name, "what": self.what,
            "first_byte": self.bytes.map(|b| b.0), "last_byte": self.bytes.map(|b| b.1),
            "first_slice": self.slices.map(|s| s.0), "last_slice": self.slices.map(|s| s.1),
            "repaired": repaired, "repair": repair,
        })
    }
}
