//! Where the file system shares blocks, merging moves none: what the merger works there.

use crate::file::{base_of, median_of, rounds_of, stored_file};
use crate::measure::{cost, read_once};
use crate::peers::Peers;
use crate::table::{Table, seconds, size_name, spread, times};
use crate::{Bench, Report};
use anyhow::ensure;
use bigup_tests::mount::Mount;

const HEADER: [&str; 7] =
    ["peer", "whole", "and synced", "× cp + sync", "CPU client", "CPU bigupd", "CPU bigup-merger a GiB"];

/// Runs it.
pub fn run(bench: &Bench<'_>, size: u64, rounds: usize) -> anyhow::Result<Report> {
    ensure!(nix::unistd::geteuid().is_root(), "mounting a file system needs root");
    let source = bench.source("source", size);
    let mount = Mount::new_in(bench.folder, &["mkfs.xfs", "-q", "-m", "reflink=1"], 4 * size + (2 << 30));
    let mut peers = Peers::start(&mount.path(), &["cp", "bigup"]);
    peers.all.retain(|peer| peer.name != "bigup, slices synced");
    let costs = rounds_of(&mut peers, rounds, true, |peer, round| {
        read_once(std::slice::from_ref(&source))?;
        let cost = cost(&peer.servers(), &peer.stored, &[peer.send(&source, &format!("file{round}"))], 1)?;
        stored_file(peer, size)?;
        Ok(cost)
    });
    let mut table = Table::new(format!("One file of {} on XFS with reflinks", size_name(size)), "", &HEADER);
    let base = base_of(&costs);
    for (peer, costs) in &costs {
        let of_server = |value: f64| if peer.name == "cp" { "–".to_owned() } else { seconds(value) };
        let merger = median_of(costs, |c| c.server_cpu - c.first_cpu);
        table.row([
            peer.name.to_owned(),
            seconds(median_of(costs, |c| c.wall)),
            spread(&costs.iter().map(|c| c.synced).collect::<Vec<_>>()),
            times(median_of(costs, |c| c.synced) / base),
            seconds(median_of(costs, |c| c.client_cpu)),
            of_server(median_of(costs, |c| c.first_cpu)),
            of_server(merger * (1u64 << 30) as f64 / size as f64),
        ]);
    }
    Ok(Report {
        title: "Reflinks".to_owned(),
        text: format!("On XFS in an image file on the same disk, from a source outside of it; {rounds} rounds."),
        versions: vec![],
        tables: vec![table],
    })
}
