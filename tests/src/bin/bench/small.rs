//! A folder of many small files.

use crate::file::{base_of, median_of, rounds_of};
use crate::measure::{cost, files_below, read_once};
use crate::table::{Table, seconds, spread, times};
use crate::{Bench, Report};
use anyhow::{Context, ensure};
use bigup_core::protocol::units::show_size;
use bigup_tests::data;
use std::path::PathBuf;

/// Bytes of a file.
const SIZE: u64 = 4 << 10;

/// Files in each folder.
const IN_FOLDER: usize = 100;

/// Those that send folders.
const GROUPS: [&str; 7] = ["cp", "bigup", "nginx", "dufs", "rsync", "scp", "rclone"];

const HEADER: [&str; 8] =
    ["peer", "whole", "and synced", "files a second", "× cp + sync", "CPU client", "CPU server", "memory server"];

/// Runs it.
pub fn run(bench: &Bench<'_>, count: usize, rounds: usize) -> anyhow::Result<Report> {
    let folder = make_source(bench, count);
    let files = files_below(&folder)?;
    let mut peers = bench.start(&GROUPS);
    peers.all.retain(|peer| peer.send_folder(&folder, "x").is_some() && peer.name != "bigup, slices synced");
    // Nothing is removed in between: for some minutes ext4 passes by inodes that were just freed, which costs whoever makes
    // files next more than the files do.
    let costs = rounds_of(&mut peers, rounds, false, |peer, round| {
        read_once(&files)?;
        // Some of them share a server, and would find what another one sent.
        let letters: String = peer.name.chars().filter(char::is_ascii_alphabetic).collect();
        let name = format!("{letters}{round}");
        let command = peer.send_folder(&folder, &name).context("it sends no folders")?;
        let cost = cost(&peer.servers(), &peer.stored, &[command], 1)?;
        let stored = files_below(&peer.stored.join(&name))?;
        ensure!(stored.len() == files.len(), "{} of {} files were stored", stored.len(), files.len());
        if round == 0 {
            for file in &files {
                let there = peer.stored.join(&name).join(file.strip_prefix(&folder)?);
                ensure!(data::same(file, &there), "{} is not what was sent", there.display());
            }
        }
        Ok(cost)
    });
    let title = format!("{count} files of 4 KiB");
    let mut table = Table::new(&title, "", &HEADER);
    let base = base_of(&costs);
    for (peer, costs) in &costs {
        let synced: Vec<f64> = costs.iter().map(|c| c.synced).collect();
        let middle = median_of(costs, |c| c.synced);
        let of_server = |text: String| if peer.servers().is_empty() { "–".to_owned() } else { text };
        table.row([
            peer.name.to_owned(),
            seconds(median_of(costs, |c| c.wall)),
            spread(&synced),
            format!("{:.0}", count as f64 / middle),
            times(middle / base),
            seconds(median_of(costs, |c| c.client_cpu)),
            of_server(seconds(median_of(costs, |c| c.server_cpu))),
            of_server(show_size(median_of(costs, |c| c.server_peak as f64) as u64)),
        ]);
        table.bars.push((peer.name.to_owned(), middle));
    }
    Ok(Report {
        title: "Many small files".to_owned(),
        text: format!(
            "{count} files of 4 KiB in folders of {IN_FOLDER}, {rounds} rounds. bigup and `rsync --fsync` sync each file; \
             after the others the whole file system is synced once, which promises less: until then any of them may be \
             lost.{}",
            peers.absence()
        ),
        versions: peers.versions,
        tables: vec![table],
    })
}

/// A folder of `count` files.
pub fn make_source(bench: &Bench<'_>, count: usize) -> PathBuf {
    let folder = bench.folder.join("source");
    for i in 0..count {
        data::file(&folder, &format!("{:02}/{i:04}", i / IN_FOLDER), i as u64, SIZE);
    }
    folder
}
