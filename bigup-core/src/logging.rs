//! Log lines of the programs: a line each to standard error. A line steers no terminal and fakes no other line, whatever
//! it quotes of a client, a server or the disk. [`crate::journal`] sends them to systemd's journal instead.

use crate::protocol::name::printable;
use env_logger::{Builder, Env};
use log::Record;
use std::io::{self, Write};

/// A logger of lines to be started. `BIGUP_LOG` sets the level (env_logger's syntax), `filter` if it is not set.
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
