//! Going on after the client was killed at half of a file: how long until something new is on its way, and until the end.

use crate::measure::{clear, files_below, read_once, sync_stored};
use crate::peers::{Peer, tus_remembering};
use crate::table::{Table, median, seconds, size_name, spread};
use crate::{Bench, Report};
use anyhow::{Context, ensure};
use bigup_tests::data;
use bigup_tests::process::kill_9;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How often it is looked whether something has happened.
const LOOK_EVERY: Duration = Duration::from_micros(500);

/// How long a server has to notice that its client is gone.
const SETTLE: Duration = Duration::from_secs(1);

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(600);

const GROUPS: [&str; 4] = ["bigup", "nginx", "rsync", "tus"];

/// Content is compared up to this size, beyond it only the length.
const COMPARED: u64 = 1 << 30;

/// One way of going on.
struct Case<'a> {
    name: &'static str,
    peer: &'a Peer,
    begin: Command,
    go_on: Command,
    /// Where it begins anew instead.
    starts_over: bool,
}

/// What one case took, in seconds.
struct Resumed {
    first: f64,
    whole: f64,
    synced: f64,
}

/// Runs it.
pub fn run(bench: &Bench<'_>, size: u64, rounds: usize) -> anyhow::Result<Report> {
    let source = bench.source("source", size);
    let mut peers = bench.start(&GROUPS);
    let mut table = Table::new(
        format!("Second half of a file of {}", size_name(size)),
        "",
        &["peer", "first new bytes", "whole", "and synced"],
    );
    let names: Vec<&str> = cases(bench, &peers.all, &source)?.iter().map(|case| case.name).collect();
    for (turn, name) in names.iter().enumerate() {
        let (mut firsts, mut wholes, mut synced) = (vec![], vec![], vec![]);
        for _ in 0..rounds {
            let mut case = cases(bench, &peers.all, &source)?.swap_remove(turn);
            match once(&mut case, &source, size) {
                Ok(resumed) => {
                    println!(
                        "{name}: {} to the first new bytes, {} in all",
                        seconds(resumed.first),
                        seconds(resumed.whole)
                    );
                    firsts.push(resumed.first);
                    wholes.push(resumed.whole);
                    synced.push(resumed.synced);
                }
                Err(error) => peers.absent.push(format!("{name} ({error:#})")),
            }
            clear(&case.peer.stored)?;
        }
        if wholes.is_empty() {
            continue;
        }
        let first = if firsts.iter().all(|first| first.is_nan()) { "starts over".to_owned() } else { spread(&firsts) };
        table.row([(*name).to_owned(), first, spread(&wholes), spread(&synced)]);
        table.bars.push(((*name).to_owned(), median(synced)));
    }
    Ok(Report {
        title: "Resuming".to_owned(),
        text: format!(
            "The client is killed (SIGKILL) when half is stored, and the same command is run again, the source unchanged \
             and in memory: time from its start until the first new bytes arrive at the server, and until the file is \
             whole; {rounds} rounds. For nginx it is the whole file, which scp, rclone and others also send again. \
             `rsync --append` trusts what is there, without a look; `--append-verify` compares it at the end, as part of \
             the whole file's checksum.{}",
            peers.absence()
        ),
        versions: peers.versions,
        tables: vec![table],
    })
}

fn cases<'a>(bench: &Bench<'_>, peers: &'a [Peer], source: &Path) -> anyhow::Result<Vec<Case<'a>>> {
    let mut cases = vec![];
    for peer in peers {
        let send = || peer.send(source, "file");
        let with = |options: &[&str]| {
            let plain = send();
            let mut command = Command::new(plain.get_program());
            command.args(options).args(plain.get_args());
            command
        };
        let case = |name, begin, go_on| Case { name, peer, begin, go_on, starts_over: false };
        match peer.name {
            "bigup" => cases.push(case("bigup", send(), send())),
            "curl → nginx" => cases.push(Case { starts_over: true, ..case(peer.name, send(), send()) }),
            "rsync" => {
                let inplace = || with(&["--inplace"]);
                cases.push(case("rsync --append", inplace(), with(&["--append"])));
                cases.push(case("rsync --append-verify", inplace(), with(&["--append-verify"])));
                cases.push(case("rsync --inplace", inplace(), inplace()));
            }
            "tus-js → @tus/server" => {
                let state = tempfile::Builder::new().tempfile_in(bench.folder)?.into_temp_path().to_path_buf();
                let send = tus_remembering(peer.port().context("it has a server")?, state)?;
                cases.push(case(peer.name, send(source, "file"), send(source, "file")));
            }
            _ => {}
        }
    }
    Ok(cases)
}

fn once(case: &mut Case<'_>, source: &Path, size: u64) -> anyhow::Result<Resumed> {
    read_once(&[source.to_owned()])?;
    nix::unistd::sync();
    if !case.starts_over {
        let mut child = spawn(&mut case.begin)?;
        let half = wait(&mut child, "half of it is stored", || held(case.peer) >= size / 2);
        kill_9(&mut child);
        half?;
        std::thread::sleep(SETTLE);
    }
    read_once(&[source.to_owned()])?;
    nix::unistd::sync();
    let before = held(case.peer);
    let began = Instant::now();
    let mut child = spawn(&mut case.go_on)?;
    let mut first = f64::NAN;
    if !case.starts_over {
        wait(&mut child, "something new arrives", || arrives(case.peer, before))?;
        first = began.elapsed().as_secs_f64();
    }
    ensure!(child.wait()?.success(), "{:?} failed", case.go_on);
    let whole = began.elapsed().as_secs_f64();
    sync_stored(&case.peer.stored)?;
    let synced = began.elapsed().as_secs_f64();
    let stored = crate::file::stored_file(case.peer, size)?;
    ensure!(size > COMPARED || data::same(source, &stored), "what was stored is not what was sent");
    Ok(Resumed { first, whole, synced })
}

fn spawn(command: &mut Command) -> anyhow::Result<Child> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().with_context(|| format!("{command:?} cannot be started"))
}

fn wait(child: &mut Child, what: &str, mut condition: impl FnMut() -> bool) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        let ended = child.try_wait()?.is_some();
        ensure!(!ended || condition(), "the client ended before {what}");
        ensure!(Instant::now() < deadline, "waited {PATIENCE:?} in vain until {what}");
        std::thread::sleep(LOOK_EVERY);
    }
    Ok(())
}

/// Bytes that a server holds of the one file, finished or not.
fn held(peer: &Peer) -> u64 {
    let spool = spool(peer).map(|spool| files_in(&spool)).unwrap_or_default();
    let slices = spool.iter().filter(|(name, _)| name == "merged" || name.parse::<u64>().is_ok());
    let stored = files_below(&peer.stored).unwrap_or_default();
    let stored = stored.iter().filter_map(|file| file.metadata().ok()).map(|data| data.len());
    slices.map(|(_, len)| len).chain(stored.max().as_ref()).sum()
}

/// Whether more arrives than was held before.
fn arrives(peer: &Peer, before: u64) -> bool {
    match spool(peer) {
        Some(spool) => files_in(&spool).iter().any(|(name, _)| name.ends_with(".part")) || !spool.exists(),
        None => held(peer) > before,
    }
}

/// Where bigup keeps the unfinished upload.
fn spool(peer: &Peer) -> Option<PathBuf> {
    Some(peer.stored.parent()?.join("tmp/file")).filter(|_| peer.name == "bigup")
}

/// Names and lengths of what is in a folder.
fn files_in(folder: &Path) -> Vec<(String, u64)> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|e| Some((e.file_name().into_string().ok()?, e.metadata().ok()?.len()))).collect()
}
