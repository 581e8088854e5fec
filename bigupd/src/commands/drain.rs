//! `bigupd drain`: tells a daemon on this machine to drain.

use crate::ending::DRAIN;
use bigup_core::protocol::name::printable;
use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

/// The name under which the kernel knows daemons (proc(5), /proc/PID/comm).
const PROGRAM: &str = "bigupd";

const AFTER_HELP: &str = "\
Exit codes:
  0  the daemon was told
  1  failure
  2  the command line is invalid

Examples:
  bigupd drain   the only daemon on this machine
  bigupd drain 4711   the daemon with this process id
  bigupd drain && sleep 20 && systemctl restart bigupd   one of several daemons behind a balancer";

/// Arguments.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = AFTER_HELP)]
pub struct Arguments {
    /// Process id of the daemon [default: the only one on this machine]
    #[arg(value_name = "PID", value_parser = clap::value_parser!(i32).range(1..))]
    pid: Option<i32>,
}

/// Tells the daemon, and prints the result.
pub fn run(arguments: &Arguments) -> ExitCode {
    let told = daemon(arguments.pid).and_then(|pid| match kill(Pid::from_raw(pid), DRAIN) {
        Ok(()) => Ok(pid),
        Err(Errno::EPERM) => Err(format!("process {pid} is another user's: run this as root or as that user")),
        Err(e) => Err(format!("process {pid}: {e}")),
    });
    match told {
        // The daemon was told, whether or not that can be printed.
        Ok(pid) => {
            drop(writeln!(
                io::stdout(),
                "bigupd, process {pid}: draining; /readyz answers 503 until it is started again"
            ));
            ExitCode::SUCCESS
        }
        Err(e) => {
            eprintln!("bigupd: {}", printable(&e));
            ExitCode::FAILURE
        }
    }
}

/// The process to tell.
fn daemon(wanted: Option<i32>) -> Result<i32, String> {
    if let Some(pid) = wanted {
        return if is_daemon(pid) { Ok(pid) } else { Err(format!("process {pid} is no daemon of bigup")) };
    }
    let found: Vec<i32> = daemons().map_err(|e| format!("listing processes in /proc: {e}"))?;
    match found[..] {
        [pid] => Ok(pid),
        [] => Err("no daemon runs on this machine".to_owned()),
        _ => {
            let all = found.iter().map(i32::to_string).collect::<Vec<_>>().join(", ");
            Err(format!("{} daemons run on this machine: name one of the processes {all}", found.len()))
        }
    }
}

fn daemons() -> io::Result<Vec<i32>> {
    let names = fs::read_dir("/proc")?.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let mut found: Vec<i32> = names.filter(|pid| is_daemon(*pid)).collect();
    found.sort_unstable();
    Ok(found)
}

/// True of a process that serves. A command of the same program ends by the signal, and must not get it.
fn is_daemon(pid: i32) -> bool {
    let folder = Path::new("/proc").join(pid.to_string());
    let is_ours = fs::read_to_string(folder.join("comm")).is_ok_and(|name| name.trim_end() == PROGRAM);
    is_ours && fs::read_to_string(folder.join("status")).is_ok_and(|status| handles(&status, DRAIN as u32))
}

/// True if a process handles the signal, by the text of its /proc/PID/status: bit N - 1 of SigCgt is signal N (proc(5)).
fn handles(status: &str, signal: u32) -> bool {
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_that_a_process_handles_are_read_from_its_status() {
        let status = "Name:\tbigupd\nSigIgn:\tffffffffffffffff\nSigCgt:\t0000000000000200\n";
        assert!(handles(status, 10));
        assert!(!handles(status, 9) && !handles(status, 11) && !handles("Name:\tx\n", 10));
    }

    #[test]
    fn other_processes_are_no_daemons() {
        assert!(!is_daemon(1) && !is_daemon(i32::MAX));
        let this = i32::try_from(std::process::id()).unwrap();
        assert_eq!(daemon(Some(this)), Err(format!("process {this} is no daemon of bigup")));
    }
}
