//! A second `sync` of a folder in which nothing has changed, beside rsync.

use crate::measure::{cost, files_below};
use crate::small::make_source;
use crate::table::{Table, median, seconds, spread, times};
use crate::{Bench, Report};
use anyhow::{Context, ensure};
use bigup_core::protocol::units::show_size;

const HEADER: [&str; 6] = ["peer", "time", "× rsync", "CPU client", "CPU server", "memory client"];

/// Runs it.
pub fn run(bench: &Bench<'_>, count: usize, rounds: usize) -> anyhow::Result<Report> {
    let folder = make_source(bench, count);
    let mut peers = bench.start(&["bigup-sync", "rsync"]);
    peers.all.retain(|peer| peer.name != "rsync --fsync");
    let mut measured = vec![];
    for peer in &peers.all {
        let command = || peer.send_folder(&folder, "x").context("it sends folders");
        ensure!(command()?.status()?.success(), "{} stores nothing", peer.name);
        let stored = files_below(&peer.stored)?.len();
        ensure!(stored == count, "{} stored {stored} of {count} files", peer.name);
        let costs: anyhow::Result<Vec<_>> =
            (0..rounds).map(|_| cost(&peer.servers(), &peer.stored, &[command()?], 1)).collect();
        measured.push((peer, costs?));
    }
    let wall = |costs: &[crate::measure::Cost]| median(costs.iter().map(|cost| cost.wall));
    let base = measured.iter().find(|(peer, _)| peer.name == "rsync").map_or(f64::NAN, |(_, costs)| wall(costs));
    let mut table = Table::new(format!("{count} unchanged files of 4 KiB"), "", &HEADER);
    for (peer, costs) in &measured {
        table.row([
            peer.name.to_owned(),
            spread(&costs.iter().map(|cost| cost.wall).collect::<Vec<_>>()),
            times(wall(costs) / base),
            seconds(median(costs.iter().map(|cost| cost.client_cpu))),
            seconds(median(costs.iter().map(|cost| cost.server_cpu))),
            show_size(median(costs.iter().map(|cost| cost.client_peak as f64)) as u64),
        ]);
    }
    drop(measured);
    Ok(Report {
        title: "A folder that did not change".to_owned(),
        text: format!(
            "`bigup-cli sync` and `rsync -a` of a folder that the server has already, {rounds} rounds. Both compare sizes and \
             times.{}",
            peers.absence()
        ),
        versions: peers.versions,
        tables: vec![table],
    })
}
