//! Pushing a large file: wall time, CPU seconds and peak memory of each program, beside `cp` and `sync` of the same file,
//! and the wall time where every slice is synced before it is answered.

use crate::{Bigupd, median};
use bigup_core::units::{parse_size, show_size};
use bigup_tests::usage::{cpu, peak_memory};
use bigup_tests::{data, programs};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How often peak memory is looked at. The kernel keeps the peak; only the last moments of a process can be missed.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// What one push cost.
#[derive(Default)]
struct Cost {
    wall: f64,
    client: Usage,
    daemon: Usage,
    merger: Usage,
}

/// What one process used.
#[derive(Clone, Copy, Default)]
struct Usage {
    cpu: f64,
    peak: u64,
}

/// Runs the benchmark: `[SIZE [ROUNDS [FOLDER]]]`.
pub fn run(mut arguments: impl Iterator<Item = String>) -> anyhow::Result<()> {
    let size = parse_size(&arguments.next().unwrap_or_else(|| "1G".to_owned())).map_err(anyhow::Error::msg)?;
    let rounds: usize = arguments.next().unwrap_or_else(|| "5".to_owned()).parse()?;
    let temporary = match arguments.next() {
        Some(folder) => tempfile::tempdir_in(folder)?,
        None => tempfile::tempdir()?,
    };
    let folder = temporary.path();
    println!("{} of random bytes, {rounds} rounds, in {}", show_size(size), folder.display());
    let file = data::file(folder, "source", 1, size);
    let digest = data::digest(&file);
    let (mut copies, mut costs, mut synced) = (vec![], vec![], vec![]);
    for round in 0..=rounds {
        let copy = time_copy(&file, &folder.join("copy"))?;
        let cost = push(&file, &folder.join("data"), &digest, "written")?;
        let safe = push(&file, &folder.join("data"), &digest, "synced")?.wall;
        // The first round warms caches and disk.
        if round > 0 {
            println!("round {round}: cp + sync {copy:.2} s, push {:.2} s, slices synced {safe:.2} s", cost.wall);
            copies.push(copy);
            costs.push(cost);
            synced.push(safe);
        }
    }
    print_medians(size, &copies, &costs);
    println!("  slice_ack = synced: {:.2} s", median(synced.into_iter()));
    Ok(())
}

fn time_copy(from: &Path, to: &Path) -> anyhow::Result<f64> {
    let began = Instant::now();
    let copied = Command::new("cp").arg(from).arg(to).status()?;
    let synced = Command::new("sync").arg(to).status()?;
    let time = began.elapsed().as_secs_f64();
    anyhow::ensure!(copied.success() && synced.success(), "cp or sync failed");
    std::fs::remove_file(to)?;
    Ok(time)
}

fn push(file: &Path, data: &Path, digest: &str, slice_ack: &str) -> anyhow::Result<Cost> {
    let daemon = Bigupd::start(data, &["--slice-ack", slice_ack])?;
    let began = Instant::now();
    let before = cpu_of_children();
    let client = programs::cli().arg("push").arg(file).args(["--url", &daemon.url]).stdout(Stdio::piped()).spawn()?;
    let peaks = Peaks::default();
    let client_id = client.id();
    let (output, wall) = std::thread::scope(|scope| {
        scope.spawn(|| peaks.watch(client_id, data));
        let output = client.wait_with_output();
        let wall = began.elapsed().as_secs_f64();
        peaks.over.store(true, Ordering::Relaxed);
        (output, wall)
    });
    let output = output?;
    let client = Usage { cpu: cpu_of_children() - before, peak: peaks.client.load(Ordering::Relaxed) };
    anyhow::ensure!(output.status.success(), "the push failed");
    anyhow::ensure!(String::from_utf8_lossy(&output.stdout).contains(digest), "the digest differs");

    let used = cpu(daemon.pid()).unwrap_or_default();
    let daemon_usage = Usage { cpu: used.own, peak: peak_memory(daemon.pid()).unwrap_or(0) };
    let merger = Usage { cpu: used.children, peak: peaks.merger.load(Ordering::Relaxed) };
    daemon.end()?;
    std::fs::remove_dir_all(data)?;
    Ok(Cost { wall, client, daemon: daemon_usage, merger })
}

/// Peak memory of the processes that end before they can be asked.
#[derive(Default)]
struct Peaks {
    client: AtomicU64,
    merger: AtomicU64,
    over: AtomicBool,
}

impl Peaks {
    fn watch(&self, client: u32, data: &Path) {
        let lock: PathBuf = data.join("tmp/source/merger.lock");
        while !self.over.load(Ordering::Relaxed) {
            self.client.fetch_max(peak_memory(client).unwrap_or(0), Ordering::Relaxed);
            let merger = std::fs::read_to_string(&lock).ok().and_then(|text| text.trim().parse().ok());
            self.merger.fetch_max(merger.and_then(peak_memory).unwrap_or(0), Ordering::Relaxed);
            std::thread::sleep(LOOK_EVERY);
        }
    }
}

fn cpu_of_children() -> f64 {
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_CHILDREN);
    let seconds = |t: nix::sys::time::TimeVal| t.tv_sec() as f64 + t.tv_usec() as f64 / 1e6;
    usage.map_or(0.0, |usage| seconds(usage.user_time()) + seconds(usage.system_time()))
}

fn print_medians(size: u64, copies: &[f64], costs: &[Cost]) {
    let (copy, wall) = (median(copies.iter().copied()), median(costs.iter().map(|c| c.wall)));
    println!("medians");
    println!("  cp + sync      {copy:6.2} s");
    println!(
        "  push           {wall:6.2} s   {:.2} x cp + sync, {:.0} MiB/s",
        wall / copy,
        size as f64 / wall / 1048576.0
    );
    println!("  program        CPU s    peak memory");
    for (name, usage) in
        [("client", (|c| c.client) as fn(&Cost) -> Usage), ("daemon", |c| c.daemon), ("merger", |c| c.merger)]
    {
        let peak = costs.iter().map(|c| usage(c).peak).max().unwrap_or(0);
        println!("  {name:<12} {:6.2}    {}", median(costs.iter().map(|c| usage(c).cpu)), show_size(peak));
    }
}
