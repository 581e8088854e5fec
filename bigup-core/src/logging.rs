//! What the programs log, to standard error: a line each, which steers no terminal and fakes no other line, whatever it
//! quotes of a client, a server or the disk.

use crate::name::printable;
use env_logger::{Builder, Env};
use log::Record;
use std::io::{self, Write};

/// A logger to be started. `BIGUP_LOG` says what is logged (env_logger's syntax), `filter` where it is not set.
pub fn logger(filter: &str) -> Builder {
    let mut builder = Builder::from_env(Env::new().filter_or("BIGUP_LOG", filter));
    builder.format(write_line);
    builder
}

fn write_line(out: &mut env_logger::fmt::Formatter, record: &Record<'_>) -> io::Result<()> {
    let style = out.default_level_style(record.level());
    let (time, message) = (out.timestamp(), printable(&record.args().to_string()));
    writeln!(out, "[{time} {style}{:<5}{style:#} {}] {message}", record.level(), record.target())
}
