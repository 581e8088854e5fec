//! Measures. It judges nothing: machines are shared and noisy, so only figures of one run are to be compared, and of those
//! the medians.
//!
//! - `bench [SIZE [ROUNDS [FOLDER]]]` pushes a large file; by default 1G, 5 rounds and a temporary folder.
//! - `bench uploads [N]` sends requests to a daemon with one unfinished upload and to one with N; by default 1000.
//! - `bench wan [SIZE [ARGUMENT OF PUSH]…]` pushes over a long lossy link, beside other tools; by default 512M. Needs root.
//! - `bench idle [N]` holds N idle connections; by default 10000.

mod idle;
mod push;
mod uploads;
mod wan;

use bigup_tests::process::signal;
use bigup_tests::programs;
use nix::sys::signal::Signal;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1).peekable();
    let mode = arguments.next_if(|first| matches!(&first[..], "uploads" | "idle" | "wan"));
    match mode.as_deref() {
        Some("uploads") => uploads::run(arguments),
        Some("wan") => wan::run(arguments),
        Some(_) => idle::run(arguments),
        None => push::run(arguments),
    }
}

/// A daemon to be measured.
struct Bigupd {
    child: Child,
    url: String,
}

impl Bigupd {
    fn start(data: &Path, arguments: &[&str]) -> anyhow::Result<Bigupd> {
        let mut child = Command::new(programs::path("bigupd"))
            .arg("--data-dir")
            .arg(data)
            .args(["--listen", "127.0.0.1:0"])
            .args(arguments)
            .env("BIGUP_LOG", "warn")
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("it was asked for")).read_line(&mut line)?;
        let url = line.trim().rsplit(' ').next().unwrap_or_default().to_owned();
        Ok(Bigupd { child, url })
    }

    fn pid(&self) -> u32 {
        self.child.id()
    }

    fn end(mut self) -> anyhow::Result<()> {
        signal(self.child.id(), Signal::SIGTERM);
        anyhow::ensure!(self.child.wait()?.success(), "bigupd failed");
        Ok(())
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
