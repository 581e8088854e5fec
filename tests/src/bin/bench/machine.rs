//! What figures were measured on: they mean nothing without it.

use bigup_core::protocol::units::show_size;
use std::path::Path;
use std::process::Command;

/// The machine, the file system of `folder`, the state of the source and the time: some sentences in Markdown.
pub fn describe(folder: &Path) -> String {
    format!(
        "Measured {} at commit {}, on {} × {}, {} of memory, Linux {}, {}, {} free; load before: {}.",
        printed("date", &["-u", "+%Y-%m-%d %H:%M UTC"]),
        commit(),
        std::thread::available_parallelism().map_or(0, |cores| cores.get()),
        info("/proc/cpuinfo", "model name").unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
        memory(),
        printed("uname", &["-r"]),
        printed("findmnt", &["-n", "-o", "FSTYPE", "-T", &folder.display().to_string()]),
        nix::sys::statvfs::statvfs(folder)
            .map_or_else(|_| "?".to_owned(), |disk| show_size(disk.blocks_available() * disk.fragment_size())),
        std::fs::read_to_string("/proc/loadavg").unwrap_or_default().split(' ').next().unwrap_or_default(),
    )
}

fn commit() -> String {
    let commit = printed("git", &["rev-parse", "--short", "HEAD"]);
    // What this program writes itself changes nothing that is measured.
    let changed = printed("git", &["status", "--porcelain", "--untracked-files=no", "--", ":/", ":(exclude,top)docs"]);
    if changed.is_empty() { commit } else { format!("{commit} with changes") }
}

fn memory() -> String {
    let total = info("/proc/meminfo", "MemTotal");
    let bytes = total.and_then(|line| Some(line.strip_suffix(" kB")?.parse::<u64>().ok()? << 10));
    bytes.map_or_else(|| "?".to_owned(), show_size)
}

/// The value of the first line of this key.
fn info(file: &str, key: &str) -> Option<String> {
    let text = std::fs::read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.starts_with(key))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// The one line that a program prints; `?` if it cannot be run.
fn printed(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().ok().filter(|output| output.status.success());
    output.map_or_else(|| "?".to_owned(), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
