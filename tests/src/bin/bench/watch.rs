//! Files that appear all at once in a watched folder, beside a push of the same files.

use crate::measure::{cost, files_below, read_once};
use crate::table::{Table, median, rate, seconds, spread, times};
use crate::{Bench, Report};
use anyhow::{Context, ensure};
use bigup_core::protocol::units::show_size;
use bigup_tests::process::signal;
use bigup_tests::usage::{cpu, peak_memory};
use bigup_tests::{data, programs};
use nix::sys::signal::Signal;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Longest time that all files may take.
pub const PATIENCE: Duration = Duration::from_secs(600);

/// Time for which the watch lets files rest, by default.
const SETTLE: Duration = Duration::from_secs(2);

/// Time between two looks at the stored files. Each takes a while itself.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Files in each folder.
const IN_FOLDER: usize = 500;

const HEADER: [&str; 5] = ["", "time", "rate", "CPU client", "memory client"];

/// The watch, ended with this.
pub struct Watch(Child);

impl Watch {
    /// Starts one of `folder` that stores below `name`, with its journal in `state`, and waits until it listens for events.
    pub fn start(folder: &Path, state: &Path, name: &str, url: &str) -> anyhow::Result<Watch> {
        let mut command: Command = programs::cli();
        command.arg("watch").arg(folder).args(["--quiet", "--into", name, "--url", url, "--state"]).arg(state);
        let watch = Watch(command.stdin(Stdio::null()).spawn()?);
        // It listens once it has its journal.
        let deadline = Instant::now() + PATIENCE;
        while !state.exists() || files_below(state)?.is_empty() {
            ensure!(Instant::now() < deadline, "the watch does not start");
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(watch)
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        signal(self.0.id(), Signal::SIGTERM);
        let _ = self.0.wait();
    }
}

/// The time, the CPU time and the peak memory of a watch.
struct Seen {
    wall: f64,
    cpu: f64,
    peak: u64,
}

/// Runs it.
pub fn run(bench: &Bench<'_>, count: usize, size: u64, rounds: usize) -> anyhow::Result<Report> {
    let folder = bench.folder.join("dropped");
    let files: Vec<PathBuf> = (0..count)
        .map(|i| data::file(&folder.join(format!("d{}", i / IN_FOLDER)), &format!("f{i}"), i as u64, size))
        .collect();
    let mut peers = bench.start(&["bigup"]);
    peers.all.truncate(1);
    let peer = peers.all.first().context("bigup cannot be started")?;
    let (mut pushes, mut watches) = (vec![], vec![]);
    // Nothing is removed in between: for some minutes ext4 passes by inodes that were just freed, which costs whoever makes
    // files next more than the files do.
    for round in 0..rounds {
        read_once(&files)?;
        let push = peer.send_folder(&folder, &format!("pushed{round}")).context("it sends folders")?;
        pushes.push(cost(&peer.servers(), &peer.stored, &[push], 1)?);
        read_once(&files)?;
        // As before the push.
        nix::unistd::sync();
        let url = format!("http://127.0.0.1:{}", peer.port().context("it has a server")?);
        let seen = watch(bench.folder, &folder, &url, &peer.stored, count, round)?;
        println!("round {}: push {}, watch {}", round + 1, seconds(pushes[round].wall), seconds(seen.wall));
        watches.push(seen);
    }
    let all = size * count as u64;
    let push = median(pushes.iter().map(|cost| cost.wall));
    let watch = median(watches.iter().map(|seen| seen.wall));
    let mut table = Table::new(format!("{count} files of {} in a watched folder", show_size(size)), "", &HEADER);
    table.row([
        "bigup-cli push".to_owned(),
        spread(&pushes.iter().map(|cost| cost.wall).collect::<Vec<_>>()),
        rate(all, push),
        seconds(median(pushes.iter().map(|cost| cost.client_cpu))),
        show_size(median(pushes.iter().map(|cost| cost.client_peak as f64)) as u64),
    ]);
    table.row([
        "bigup-cli watch".to_owned(),
        spread(&watches.iter().map(|seen| seen.wall).collect::<Vec<_>>()),
        rate(all, watch),
        seconds(median(watches.iter().map(|seen| seen.cpu))),
        show_size(median(watches.iter().map(|seen| seen.peak as f64)) as u64),
    ]);
    Ok(Report {
        title: "A watched folder".to_owned(),
        text: format!(
            "Rounds: {rounds}. The folder is moved into the watched one, and the time is that until the server has all files. \
             It contains `--settle`, 2 s. The rate of the watch is {} of that of the push, and {} without those 2 s.",
            times(push / watch),
            times(push / (watch - SETTLE.as_secs_f64()))
        ),
        versions: vec![],
        tables: vec![table],
    })
}

/// Moves `dropped` into a watched folder and back again.
fn watch(bench: &Path, dropped: &Path, url: &str, stored: &Path, count: usize, round: usize) -> anyhow::Result<Seen> {
    let (watched, state) = (bench.join("watched"), bench.join(format!("state{round}")));
    std::fs::create_dir_all(&watched)?;
    let name = format!("watched{round}");
    let watch = Watch::start(&watched, &state, &name, url)?;
    let before = cpu(watch.pid()).unwrap_or_default().own;
    let (began, inside) = (Instant::now(), watched.join("in"));
    std::fs::rename(dropped, &inside)?;
    let (deadline, stored) = (Instant::now() + PATIENCE, stored.join(&name));
    let seen = || if stored.exists() { files_below(&stored).map(|files| files.len()) } else { Ok(0) };
    while seen()? < count {
        ensure!(Instant::now() < deadline, "{} of {count} files are stored", seen()?);
        std::thread::sleep(LOOK_EVERY);
    }
    let wall = began.elapsed().as_secs_f64();
    let seen = Seen {
        wall,
        cpu: cpu(watch.pid()).unwrap_or_default().own - before,
        peak: peak_memory(watch.pid()).unwrap_or(0),
    };
    drop(watch);
    std::fs::rename(&inside, dropped)?;
    Ok(seen)
}
