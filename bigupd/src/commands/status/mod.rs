//! `bigupd status`: the unfinished uploads of a data folder, as they are on disk.
//!
//! It reads the data folder and needs no daemon. No change of an upload comes in here.

use crate::commands::EXIT_NO_UPLOAD;
use crate::config::Config;
use bigup_core::protocol::name::{FileName, printable, printable_json};
use bigup_core::protocol::units::parse_duration;
use bigup_core::storage::data_dir::DataDir;
use snapshot::Snapshot;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

pub mod snapshot;
pub mod table;

/// Time between two snapshots, if a single table is asked for: long enough for a rate, short enough to wait for.
const GLANCE: Duration = Duration::from_secs(1);

/// Shortest time between two snapshots: each reads every upload.
const SHORTEST_WATCH: Duration = Duration::from_millis(100);

/// Clears a terminal.
const CLEAR: &str = "\x1b[2J";

/// Puts the next line at the top of a terminal.
const HOME: &str = "\x1b[H";

/// Clears a line from where the cursor is.
const REST_OF_LINE: &str = "\x1b[K";

/// Clears all that is below.
const BELOW: &str = "\x1b[J";

const AFTER_HELP: &str = "\
Exit codes:
  0  success
  1  failure
  2  the command line or the configuration is invalid
  4  a named upload does not exist

Examples:
  bigupd status   all unfinished uploads
  bigupd status --watch --data-dir /srv/bigup disk.img   one upload, refreshed every 2 s";

/// Arguments of `bigupd status`.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = AFTER_HELP)]
pub struct Arguments {
    /// Names of the uploads [default: all]
    #[arg(value_name = "NAME", value_parser = |name: &str| FileName::new(name))]
    names: Vec<FileName>,
    /// Print a JSON object; with --watch a line for each refresh
    #[arg(long)]
    json: bool,
    /// Refresh until Ctrl-C, every TIME [default: 2s]
    #[arg(
        long,
        value_name = "TIME",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "2s",
        value_parser = watch_time
    )]
    watch: Option<Duration>,
    /// Sort by name or by last activity
    #[arg(long, value_name = "name|activity", default_value = "name", hide_possible_values = true)]
    sort: Sort,
}

/// The order of uploads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Sort {
    /// By name.
    Name,
    /// Most recently active first.
    Activity,
}

fn watch_time(text: &str) -> Result<Duration, String> {
    let time = parse_duration(text)?;
    if time < SHORTEST_WATCH { Err(format!("{text} is too short: at least {SHORTEST_WATCH:?}")) } else { Ok(time) }
}

/// Shows the uploads.
pub fn run(config: &Config, arguments: &Arguments) -> ExitCode {
    let shown = DataDir::open(&config.data_dir).and_then(|data| match arguments.watch {
        None => arguments.once(&data),
        Some(every) => arguments.watch(&data, every).map(|()| ExitCode::SUCCESS),
    });
    match shown {
        Ok(code) => code,
        // The reader has closed the pipe: it has enough.
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("bigupd: {}", printable(&e.to_string()));
            ExitCode::FAILURE
        }
    }
}

impl Arguments {
    fn once(&self, data: &DataDir) -> io::Result<ExitCode> {
        let mut look = self.look(data)?;
        if look.is_anything_moving() {
            std::thread::sleep(GLANCE);
            look = self.look(data)?.after(&look);
        }
        missing(&look).for_each(|line| eprintln!("bigupd: {line}"));
        if !self.json && look.uploads.is_empty() && look.unreadable.is_empty() {
            if self.names.is_empty() {
                eprintln!("no unfinished uploads");
            }
        } else {
            self.print(&self.lines(&look))?;
        }
        Ok(if look.missing.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(EXIT_NO_UPLOAD) })
    }

    /// Shows them again and again, until a signal asks to end.
    fn watch(&self, data: &DataDir, every: Duration) -> io::Result<()> {
        let is_screen = !self.json && io::stdout().is_terminal();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
            let mut before: Option<Snapshot> = None;
            if is_screen {
                self.print(&[CLEAR.to_owned()])?;
            }
            loop {
                let look = self.look(data)?;
                let look = before.iter().fold(look, Snapshot::after);
                let mut lines = self.lines(&look);
                lines.extend(missing(&look).filter(|_| !self.json));
                self.print(&if is_screen { redrawn(lines) } else { lines })?;
                if !is_screen && !self.json {
                    // Blocks are told apart.
                    self.print(&[String::new()])?;
                }
                before = Some(look);
                tokio::select! {
                    _ = interrupt.recv() => return Ok(()),
                    _ = terminate.recv() => return Ok(()),
                    () = tokio::time::sleep(every) => {}
                }
            }
        })
    }

    fn look(&self, data: &DataDir) -> io::Result<Snapshot> {
        let mut look = if self.names.is_empty() { Snapshot::at_all(data)? } else { Snapshot::at(data, &self.names) };
        look.sort(self.sort);
        Ok(look)
    }

    fn lines(&self, look: &Snapshot) -> Vec<String> {
        if self.json {
            let json = serde_json::to_string(look).expect("strings and numbers always serialise");
            return vec![printable_json(&json)];
        }
        table::lines(look, terminal().map(|(width, _)| width))
    }

    fn print(&self, lines: &[String]) -> io::Result<()> {
        let mut out = io::stdout().lock();
        let text: String = lines.iter().flat_map(|line| [line, "\n"]).collect();
        out.write_all(text.as_bytes()).and_then(|()| out.flush())
    }
}

/// The text for names without an upload. In JSON the snapshot itself says it.
fn missing(look: &Snapshot) -> impl Iterator<Item = String> {
    look.missing.iter().map(|name| format!("{}: there is no unfinished upload of this name", printable(name)))
}

/// Columns and rows of the terminal on standard output. `None` if that is no terminal.
fn terminal() -> Option<(usize, usize)> {
    let size = terminal_size::terminal_size_of(io::stdout());
    size.map(|(width, height)| (usize::from(width.0), usize::from(height.0)))
}

/// The same lines, to be drawn over those that are there; no more of them than fit.
fn redrawn(mut lines: Vec<String>) -> Vec<String> {
    // Below the last one is the cursor.
    let most = terminal().map_or(usize::MAX, |(_, height)| height.saturating_sub(1)).max(2);
    if lines.len() > most {
        let left = lines.len() - most + 1;
        lines.truncate(most - 1);
        lines.push(format!("… and {left} more lines"));
    }
    let last = lines.len().saturating_sub(1);
    let draw = |(at, line): (usize, &String)| {
        let (begin, end) = (if at == 0 { HOME } else { "" }, if at == last { BELOW } else { "" });
        format!("{begin}{line}{REST_OF_LINE}{end}")
    };
    lines.iter().enumerate().map(draw).collect()
}
