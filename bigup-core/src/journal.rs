//! Log lines of programs that can run as a service: to systemd's journal where standard error leads there, else as
//! [`crate::logging`] has them. Linux only.
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

use crate::logging::logger;
use crate::protocol::name::{FileName, printable};
use env_logger::Logger;
use log::{Log, Metadata, Record};
use systemd_journal_logger::{JournalLog, connected_to_journal};

/// Starts to log, to the journal where standard error leads there. `upload` is the upload that every line is about;
/// `None` if there is no such upload.
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
