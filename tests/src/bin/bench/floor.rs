//! What the work of a push costs by itself, each part alone and in a loop of its own: below the sum of them no push can come
//! that reads a file, sends it, digests it on both sides, stores it in slices and merges these by copying.

use crate::measure::{clear, cost, read_once};
use crate::table::{Table, median, seconds, size_name, times};
use crate::{Bench, Report};
use bigup_core::protocol::units::MIB;
use bigup_core::storage::disk::Copier;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;

/// Bytes of one call.
const STEP: usize = 256 << 10;

/// Bytes of a file that stands for a slice.
const SLICE: u64 = 8 * MIB;

/// A part of the work, done with so many bytes of a file, in a folder.
type Part = fn(&Path, &Path, u64) -> anyhow::Result<()>;

/// The parts, and how often a push does each.
const PARTS: [(&str, u32, Part); 5] = [
    ("reading a file that is in memory", 1, read),
    ("BLAKE3", 2, digest),
    ("sending and receiving over loopback", 1, send),
    ("writing slices, and unlinking them", 1, write),
    ("copying slices to another file", 1, copy),
];

/// Runs it.
pub fn run(bench: &Bench<'_>, size: u64, rounds: usize) -> anyhow::Result<Report> {
    let source = bench.source("source", size);
    let folder = bench.folder.join("floor");
    std::fs::create_dir(&folder)?;
    let mut peers = bench.start(&["bigup"]);
    peers.all.retain(|peer| peer.name == "bigup");
    let (mut parts, mut pushes) = (vec![vec![]; PARTS.len()], vec![]);
    for _ in 0..rounds {
        read_once(std::slice::from_ref(&source))?;
        for ((_, _, part), costs) in PARTS.iter().zip(&mut parts) {
            let before = cpu()?;
            part(&source, &folder, size)?;
            costs.push(cpu()? - before);
        }
        for peer in &peers.all {
            let cost = cost(&peer.servers(), &peer.stored, &[peer.send(&source, "file")], 1)?;
            pushes.push(cost.client_cpu + cost.server_cpu);
            clear(&peer.stored)?;
        }
    }
    let mut table = Table::new("CPU seconds", "", &["part", "once", "in a push", "of the push"]);
    let push = median(pushes);
    let mut sum = 0.0;
    for ((name, often, _), costs) in PARTS.iter().zip(parts) {
        let once = median(costs);
        let all = once * f64::from(*often);
        sum += all;
        table.row([(*name).to_owned(), seconds(once), seconds(all), times(all / push)]);
    }
    table.row(["together".to_owned(), "-".to_owned(), seconds(sum), times(sum / push)]);
    table.row(["bigup".to_owned(), "-".to_owned(), seconds(push), times(1.0)]);
    Ok(Report {
        title: "What the work costs by itself".to_owned(),
        text: format!(
            "{} by calls of {} KiB, each part in a loop of its own, beside a whole push of client, daemon and merger; \
             {rounds} rounds. What a push has beyond the sum is requests, locks, waking each other up, info.ini, and a copy of \
             each slice that the HTTP library makes into its buffer.",
            size_name(size),
            STEP >> 10
        ),
        versions: vec![],
        tables: vec![table],
    })
}

/// CPU seconds of this process so far.
fn cpu() -> anyhow::Result<f64> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    Ok((usage.user_time() + usage.system_time()).num_microseconds() as f64 / 1e6)
}

fn read(source: &Path, _: &Path, _: u64) -> anyhow::Result<()> {
    let (mut file, mut buffer) = (File::open(source)?, vec![0; STEP]);
    while file.read(&mut buffer)? > 0 {}
    Ok(())
}

fn digest(_: &Path, _: &Path, size: u64) -> anyhow::Result<()> {
    let (mut hasher, buffer) = (blake3::Hasher::new(), vec![7; STEP]);
    for _ in 0..size / STEP as u64 {
        hasher.update(&buffer);
    }
    anyhow::ensure!(hasher.finalize().as_bytes() != &[0; 32], "a digest of zeros");
    Ok(())
}

fn send(_: &Path, _: &Path, size: u64) -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut sender = TcpStream::connect(listener.local_addr()?)?;
    let (mut receiver, _) = listener.accept()?;
    let buffer = vec![7; STEP];
    std::thread::scope(|scope| {
        let sent = scope.spawn(move || (0..size / STEP as u64).try_for_each(|_| sender.write_all(&buffer)));
        let mut buffer = vec![0; STEP];
        while receiver.read(&mut buffer)? > 0 {}
        Ok(sent.join().expect("writing does not panic")?)
    })
}

fn write(_: &Path, folder: &Path, size: u64) -> anyhow::Result<()> {
    let buffer = vec![7; STEP];
    for _ in 0..size / SLICE {
        fill(&folder.join("slice"), &buffer)?;
    }
    Ok(std::fs::remove_file(folder.join("slice"))?)
}

fn fill(path: &Path, buffer: &[u8]) -> anyhow::Result<()> {
    let _ = std::fs::remove_file(path);
    let mut file = File::create_new(path)?;
    Ok((0..SLICE / buffer.len() as u64).try_for_each(|_| file.write_all(buffer))?)
}

fn copy(_: &Path, folder: &Path, size: u64) -> anyhow::Result<()> {
    let (from, to) = (folder.join("slice"), folder.join("merged"));
    fill(&from, &vec![7; STEP])?;
    let (slice, merged, mut copier) = (File::open(&from)?, File::create(&to)?, Copier::new());
    for at in (0..size / SLICE).map(|i| i * SLICE) {
        copier.copy(&slice, &merged, at, SLICE).map_err(std::io::Error::from)?;
    }
    std::fs::remove_file(from)?;
    Ok(std::fs::remove_file(to)?)
}
