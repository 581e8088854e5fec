//! `bigupd check`: compares unfinished uploads and finished files with their digests, and mends what it can.
//!
//! It may run beside daemons and mergers. What looks wrong is looked at again under the lock that keeps it from changing
//! before it counts as damage. Nothing is changed unless `--repair` is given, and nothing is ever deleted but slices that
//! are not what their digest says, which are asked for again.

use crate::commands::owner;
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
mod uploads;

/// Damage was found and left.
const EXIT_DAMAGED: u8 = 3;

/// What a merger may need, over the time without a slice after which it leaves, to sync and leave.
const MERGER_LEAVES: Duration = Duration::from_secs(5);

const AFTER_HELP: &str = "\
A finished file without a digest (put there or changed by hand, or on a file system without extended attributes) counts \
as not known: it is named, with what it was where that is known, and changes no exit code.

Exit codes:
  0  all is well, or was made so
  1  something could not be checked
  2  the command line or the configuration makes no sense
  3  damage was found and left

Files:
  DATA/damaged/TIME/   what a repair, or a push, moved out of the way; never used or removed by bigup

Examples:
  bigupd check   check all that is stored
  bigupd check --data-dir /srv/bigup --repair alice/   check and mend what is below a folder";

/// Compares unfinished uploads and finished files with the digests that were recorded when they came. May run beside
/// daemons; nothing is changed without --repair.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = AFTER_HELP)]
pub struct Arguments {
    /// Files, folders of files and uploads, by name [default: all]
    #[arg(value_name = "NAME", value_parser = file_or_folder)]
    names: Vec<FileName>,
    /// Have damaged slices sent again by the next push; move damaged files and unreadable uploads to DATA/damaged/; write
    /// info.ini anew
    #[arg(long)]
    repair: bool,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

/// A name, also that of a folder as shells complete it, with a slash at its end.
fn file_or_folder(name: &str) -> Result<FileName, NameError> {
    FileName::new(name.strip_suffix('/').unwrap_or(name))
}

/// Checks, says what is wrong, and how it went.
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

/// What was found so far.
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
    /// What could not be checked.
    failures: u64,
}

/// One thing that is wrong.
struct Finding {
    /// First and last byte, where that can be told.
    bytes: Option<(u64, u64)>,
    /// First and last slice, where that can be told.
    slices: Option<(u64, u64)>,
    what: String,
}

/// What a repair came to.
enum Repair {
    /// None was asked for.
    NotAsked,
    /// It is mended; says how.
    Done(String),
    /// It is not; says why.
    Failed(String),
}

struct Check<'a> {
    data: DataDir,
    space: DiskSpace,
    arguments: &'a Arguments,
    /// How long to wait for a merger to leave an upload that must be repaired.
    patience: Duration,
    /// Where damaged things go, once there are any.
    aside: Option<DataDir>,
    tally: Summary,
}

impl<'a> Check<'a> {
    fn begin(config: &Config, arguments: &'a Arguments) -> io::Result<Check<'a>> {
        let data = if arguments.repair { owner::open } else { DataDir::open }(&config.data_dir)?;
        let patience = config.mergers.idle.saturating_add(MERGER_LEAVES);
        let space = DiskSpace::new(&data, config.uploads.reserve);
        Ok(Check { data, space, arguments, patience, aside: None, tally: Summary::default() })
    }

    fn all(mut self) -> io::Result<Summary> {
        // Uploads first: one that is finished meanwhile is looked at as a file.
        let mut unseen = self.arguments.names.clone();
        self.check_uploads(&mut unseen)?;
        self.check_files(&mut unseen);
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

    /// Whether `name` is to be checked; it is seen then.
    fn is_asked_for(&self, name: &str, unseen: &mut Vec<FileName>) -> bool {
        let stands_for = |asked: &FileName| {
            name.strip_prefix(asked.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        unseen.retain(|asked| !stands_for(asked));
        self.arguments.names.is_empty() || self.arguments.names.iter().any(stands_for)
    }

    /// The data folder for what is moved out of the way in this run.
    fn aside(&mut self) -> io::Result<DataDir> {
        if self.aside.is_none() {
            let now = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
            self.aside = Some(self.data.aside(&now)?);
        }
        Ok(self.aside.clone().expect("it was just made"))
    }

    /// Tells what is wrong with one file or upload, and what was done about it.
    fn damaged(&mut self, kind: &str, name: &str, findings: &[Finding], repair: &Repair) {
        self.tally.damaged += 1;
        self.tally.repaired += u64::from(matches!(repair, Repair::Done(_)));
        for finding in findings {
            self.say(&finding.text(kind, name, repair), &finding.json(kind, name, repair));
        }
    }

    /// Tells of what stands in `files/` and cannot be compared with anything, and what is known of it.
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
        // Nobody may be listening any more; what is mended is mended all the same.
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
