//! Many clients at once, beside one client with as many bytes.

use crate::file::{median_of, rounds_of, stored_file};
use crate::measure::{Cost, clear, cost, files_below, read_once};
use crate::peers::Peer;
use crate::table::{Table, rate, seconds, size_name, spread, times};
use crate::{Bench, Report};
use anyhow::ensure;
use bigup_core::protocol::units::show_size;
use bigup_tests::data;
use std::path::{Path, PathBuf};

/// Files that are sent.
const FILES: u64 = 64;

/// Clients at any time.
const AT_ONCE: usize = 16;

const GROUPS: [&str; 5] = ["cp", "bigup", "nginx", "dufs", "rsync"];

const HEADER: [&str; 9] = [
    "peer",
    "one client, synced",
    "all clients whole",
    "and synced",
    "rate",
    "× one client's",
    "CPU clients",
    "CPU server",
    "memory server",
];

/// Runs it.
pub fn run(bench: &Bench<'_>, size: u64, rounds: usize) -> anyhow::Result<Report> {
    let all = size * FILES;
    let one = bench.source("one", all);
    let folder = bench.folder.join("many");
    let files: Vec<PathBuf> = (0..FILES).map(|i| data::file(&folder, &format!("f{i}"), 2 + i, size)).collect();
    let mut peers = bench.start(&GROUPS);
    peers.all.retain(|peer| {
        !["bigup, slices synced", "curl --parallel → nginx", "curl --parallel → dufs"].contains(&peer.name)
    });
    let mut single: Vec<(&'static str, Cost)> = vec![];
    let costs = rounds_of(&mut peers, rounds, true, |peer, _| {
        single.push((peer.name, send_one(peer, &one, all)?));
        send_many(peer, &files, size)
    });
    let title = format!("{FILES} files of {} by {AT_ONCE} clients at once", size_name(size));
    let mut table = Table::new(&title, "", &HEADER);
    for (peer, costs) in &costs {
        let alone = median_of(single.iter().filter(|(name, _)| *name == peer.name).map(|(_, cost)| cost), |c| c.synced);
        let synced = median_of(costs, |c| c.synced);
        let of_server = |text: String| if peer.servers().is_empty() { "–".to_owned() } else { text };
        table.row([
            peer.name.to_owned(),
            seconds(alone),
            seconds(median_of(costs, |c| c.wall)),
            spread(&costs.iter().map(|c| c.synced).collect::<Vec<_>>()),
            rate(all, synced),
            times(alone / synced),
            seconds(median_of(costs, |c| c.client_cpu)),
            of_server(seconds(median_of(costs, |c| c.server_cpu))),
            of_server(show_size(median_of(costs, |c| c.server_peak as f64) as u64)),
        ]);
        table.bars.push((peer.name.to_owned(), synced));
    }
    Ok(Report {
        title: "Many clients at once".to_owned(),
        text: format!(
            "A process for each of {FILES} files, {AT_ONCE} at any time, and one with a single file of {} beside it in the \
             same round; {rounds} rounds. The ratio is that of the rates, synced: above 1 many are faster than one.{}",
            size_name(all),
            peers.absence()
        ),
        versions: peers.versions,
        tables: vec![table],
    })
}

fn send_one(peer: &Peer, file: &Path, size: u64) -> anyhow::Result<Cost> {
    read_once(&[file.to_owned()])?;
    let cost = cost(&peer.servers(), &peer.stored, &[peer.send(file, "one")], 1)?;
    stored_file(peer, size)?;
    clear(&peer.stored)?;
    Ok(cost)
}

fn send_many(peer: &Peer, files: &[PathBuf], size: u64) -> anyhow::Result<Cost> {
    read_once(files)?;
    let commands: Vec<_> = files.iter().enumerate().map(|(i, file)| peer.send(file, &format!("many{i}"))).collect();
    let cost = cost(&peer.servers(), &peer.stored, &commands, AT_ONCE)?;
    let whole =
        files_below(&peer.stored)?.into_iter().filter(|file| file.metadata().is_ok_and(|data| data.len() == size));
    ensure!(whole.count() == files.len(), "not all files were stored");
    Ok(cost)
}
