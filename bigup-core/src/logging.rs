//! Log lines of the programs: a line each to standard error, or to systemd's journal where standard error leads there.
//! A line steers no terminal and fakes no other line, whatever it quotes of a client, a server or the disk.
//!
//! In the journal each entry has a priority, and beside the line the fields that its place in the program knows, by which
//! `journalctl` finds it:
//!
//! | field | |
//! | --- | --- |
//! | `FILE_NAME` | name of the file, as it is |
//! | `SLICE` | id of the slice |
//! | `PEER` | address that the request came from, with its port where that is known |
//!
//! Places in the program give them as key and value of [`log`]'s macros: `file_name`, `slice`, `peer`.

use crate::protocol::name::{FileName, printable};
use env_logger::{Builder, Env, Logger};
use log::{Log, Metadata, Record};
use std::io::{self, Write};
use systemd_journal_logger::{JournalLog, connected_to_journal};

/// A logger of lines to be started. `BIGUP_LOG` sets the level (env_logger's syntax), `filter` if it is not set.
pub fn logger(filter: &str) -> Builder {
    let mut builder = Builder::from_env(Env::new().filter_or("BIGUP_LOG", filter));
    builder.format(write_line);
    builder
}

/// Starts to log, to the journal where standard error leads there, for a program that can run as a service. `upload` is
/// the upload that every line is about; `None` if there is no such upload.
pub fn start(filter: &str, upload: Option<&FileName>) {
    let mut logger = logger(filter);
    match journal(upload) {
        None => logger.init(),
        Some(journal) => {
            let lines = logger.build();
            log::set_max_level(lines.filter());
            let set = log::set_boxed_logger(Box::new(ToJournal { lines, journal }));
            set.expect("the logger is started once");
        }
    }
}

fn write_line(out: &mut env_logger::fmt::Formatter, record: &Record<'_>) -> io::Result<()> {
    let style = out.default_level_style(record.level());
    let (time, message) = (out.timestamp(), printable(&record.args().to_string()));
    writeln!(out, "[{time} {style}{:<5}{style:#} {}] {message}", record.level(), record.target())
}

/// The journal; `None` if standard error leads elsewhere, or the journal cannot be reached.
fn journal(upload: Option<&FileName>) -> Option<JournalLog> {
    let journal = connected_to_journal().then(JournalLog::new)?.ok()?;
    Some(match upload {
        Some(name) => journal.add_extra_field("FILE_NAME", name.as_str()),
        None => journal,
    })
}

/// Logs to the journal.
struct ToJournal {
    /// Decides which lines are logged, and takes those that the journal does not: standard error leads there too.
    lines: Logger,
    journal: JournalLog,
}

impl Log for ToJournal {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.lines.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if !self.lines.matches(record) {
            return;
        }
        let message = printable(&record.args().to_string());
        if self.journal.journal_send(&record.to_builder().args(format_args!("{message}")).build()).is_err() {
            self.lines.log(record);
        }
    }

    fn flush(&self) {
        self.lines.flush();
    }
}
