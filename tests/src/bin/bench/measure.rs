//! What some work costs: wall time, and CPU seconds and peak memory of those that send and of those that store.
//!
//! A client is started by this program itself, started anew for that (`bench --measure-child`): what the system counts for
//! a process that waits for its children is then the client's alone. Servers live on; theirs is read before and after.

use anyhow::{Context, bail, ensure};
use bigup_tests::usage::{cpu, peak_memory, reset_peak, total_cpu, tree};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// First argument of this program where it runs a client: then a file for what it cost, the client, its arguments.
pub const MEASURE_CHILD: &str = "--measure-child";

/// How often the memory of servers is looked at. The kernel keeps the peak of each; only the last moments of those that end
/// can be missed.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// How long what servers started for one client may take to end.
const SETTLE: Duration = Duration::from_secs(2);

/// What a client, with all that it started, cost.
#[derive(Clone, Debug, Default)]
pub struct Client {
    /// Seconds from its start to its end.
    pub wall: f64,
    /// Seconds of CPU time.
    pub cpu: f64,
    /// Bytes, of the process that took most.
    pub peak: u64,
    /// What it printed.
    pub output: String,
}

/// What some work cost.
#[derive(Clone, Debug, Default)]
pub struct Cost {
    /// Seconds until the last client had ended.
    pub wall: f64,
    /// The same, and a sync of what was stored.
    pub synced: f64,
    /// CPU seconds of all clients.
    pub client_cpu: f64,
    /// CPU seconds of the servers and all that they started.
    pub server_cpu: f64,
    /// Of the servers, what the first process of each used itself.
    pub first_cpu: f64,
    /// Peak memory of a client.
    pub client_peak: u64,
    /// Peak memory of the servers: the sum over all their processes.
    pub server_peak: u64,
    /// What the first client printed.
    pub output: String,
}

/// Runs a client and writes down what it cost. `arguments` follow [`MEASURE_CHILD`]. Gives the code to end with.
pub fn measure_child(mut arguments: impl Iterator<Item = std::ffi::OsString>) -> anyhow::Result<i32> {
    let report = arguments.next().context("a file for the report is missing")?;
    let program = arguments.next().context("a program is missing")?;
    let began = Instant::now();
    let status = Command::new(&program).args(arguments).status();
    let wall = began.elapsed().as_secs_f64();
    let status = status.with_context(|| format!("{} cannot be started", program.display()))?;
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let seconds = |t: TimeVal| t.tv_sec() as f64 + t.tv_usec() as f64 / 1e6;
    let cpu = seconds(usage.user_time()) + seconds(usage.system_time());
    std::fs::write(report, format!("{wall} {cpu} {}", usage.max_rss() << 10))?;
    Ok(status.code().unwrap_or(1))
}

/// Runs a client to its end.
///
/// # Errors
/// It cannot be started, or fails.
pub fn client(command: &Command) -> anyhow::Result<Client> {
    let report = tempfile::NamedTempFile::new()?;
    let mut wrapped = Command::new(std::env::current_exe()?);
    wrapped.arg(MEASURE_CHILD).arg(report.path()).arg(command.get_program()).args(command.get_args());
    for (variable, value) in command.get_envs() {
        match value {
            Some(value) => wrapped.env(variable, value),
            None => wrapped.env_remove(variable),
        };
    }
    let output = wrapped.output()?;
    if !output.status.success() {
        bail!("{command:?} failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let text = std::fs::read_to_string(report.path())?;
    let figures: Vec<f64> = text.split(' ').filter_map(|figure| figure.parse().ok()).collect();
    let [wall, cpu, peak] = figures[..] else { bail!("what {command:?} cost was not written down: {text:?}") };
    Ok(Client { wall, cpu, peak: peak as u64, output: String::from_utf8_lossy(&output.stdout).into_owned() })
}

/// Runs clients, `at_once` at any time, that store below `stored` by way of these servers.
///
/// # Errors
/// A client fails.
pub fn cost(servers: &[u32], stored: &Path, clients: &[Command], at_once: usize) -> anyhow::Result<Cost> {
    // Nobody pays for what another has left to be written.
    nix::unistd::sync();
    let before = Servers::now(servers);
    before.processes.iter().for_each(|pid| reset_peak(*pid));
    let (over, peak) = (AtomicBool::new(false), AtomicU64::new(0));
    let (ended, wall, synced) = std::thread::scope(|scope| {
        scope.spawn(|| watch(servers, &over, &peak));
        let began = Instant::now();
        let ended = run_all(clients, at_once);
        let mut wall = began.elapsed().as_secs_f64();
        if let (Ok(ended), 1) = (&ended, clients.len()) {
            wall = ended.iter().map(|client| client.wall).sum();
        }
        let began = Instant::now();
        let synced = ended.as_ref().map_or(Ok(()), |_| sync_stored(stored));
        over.store(true, Ordering::Relaxed);
        (ended, wall, synced.map(|()| wall + began.elapsed().as_secs_f64()))
    });
    let (ended, synced) = (ended?, synced?);
    let after = before.settled(servers);
    Ok(Cost {
        wall,
        synced,
        client_cpu: ended.iter().map(|client| client.cpu).sum(),
        server_cpu: after.all - before.all,
        first_cpu: after.first - before.first,
        client_peak: ended.iter().map(|client| client.peak).max().unwrap_or(0),
        server_peak: peak.into_inner(),
        output: ended.into_iter().next().map(|client| client.output).unwrap_or_default(),
    })
}

fn run_all(clients: &[Command], at_once: usize) -> anyhow::Result<Vec<Client>> {
    let (next, ended) = (AtomicU64::new(0), Mutex::new(vec![]));
    std::thread::scope(|scope| {
        for _ in 0..at_once.min(clients.len()) {
            scope.spawn(|| {
                while let Some(command) = clients.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
                    let client = client(command);
                    ended.lock().expect("no holder panics").push(client);
                }
            });
        }
    });
    ended.into_inner().expect("no holder panics").into_iter().collect()
}

/// What servers have used so far.
struct Servers {
    processes: Vec<u32>,
    all: f64,
    first: f64,
}

impl Servers {
    fn now(servers: &[u32]) -> Servers {
        let processes: Vec<u32> = servers.iter().flat_map(|pid| tree(*pid)).collect();
        let all = total_cpu(processes.iter().copied());
        let first = servers.iter().filter_map(|pid| cpu(*pid)).map(|cpu| cpu.own).sum();
        Servers { processes, all, first }
    }

    /// The same once all that was started since has ended, so that it counts with its parent.
    fn settled(&self, servers: &[u32]) -> Servers {
        let deadline = Instant::now() + SETTLE;
        loop {
            let now = Servers::now(servers);
            if now.processes.iter().all(|pid| self.processes.contains(pid)) || Instant::now() > deadline {
                return now;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

fn watch(servers: &[u32], over: &AtomicBool, peak: &AtomicU64) {
    while !over.load(Ordering::Relaxed) {
        let sum = servers.iter().flat_map(|pid| tree(*pid)).filter_map(peak_memory).sum();
        peak.fetch_max(sum, Ordering::Relaxed);
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Syncs what is stored below a folder: one file and its folder, of several the file system, once.
///
/// # Errors
/// It cannot be read or synced.
pub fn sync_stored(folder: &Path) -> anyhow::Result<()> {
    let [file] = &files_below(folder)?[..] else { return Ok(nix::unistd::syncfs(File::open(folder)?)?) };
    File::open(file)?.sync_all()?;
    Ok(File::open(file.parent().context("a file is in a folder")?)?.sync_all()?)
}

/// All files below a folder, of any depth.
///
/// # Errors
/// A folder cannot be read.
pub fn files_below(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = vec![];
    for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            files.append(&mut files_below(&entry.path())?);
        } else {
            files.push(entry.path());
        }
    }
    Ok(files)
}

/// Removes all that is in a folder.
///
/// # Errors
/// Something cannot be removed.
pub fn clear(folder: &Path) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            std::fs::remove_dir_all(entry.path())?;
        } else {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Reads files once, so that nobody has to wait for the disk to read them.
///
/// # Errors
/// One cannot be read.
pub fn read_once(files: &[PathBuf]) -> anyhow::Result<()> {
    for file in files {
        let mut reader = BufReader::with_capacity(1 << 20, File::open(file)?);
        let len = std::io::copy(&mut reader, &mut std::io::sink())?;
        ensure!(len == file.metadata()?.len(), "{} changed", file.display());
    }
    Ok(())
}
