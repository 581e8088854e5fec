//! One file, sent by every peer in turn.

use crate::measure::{Cost, clear, cost, files_below, read_once};
use crate::peers::{GROUPS, Peer, Peers};
use crate::table::{Table, median, rate, seconds, size_name, spread, times};
use crate::{Bench, Report};
use anyhow::{Context, ensure};
use bigup_core::protocol::units::show_size;
use bigup_tests::data;
use std::path::{Path, PathBuf};

/// From this size on only these are measured: all of them would take very long.
const LARGE: u64 = 4 << 30;

const OF_LARGE: [&str; 8] = [
    "cp",
    "bigup",
    "curl → bigup, PUT",
    "curl → bigup, tus",
    "curl → nginx",
    "rsync",
    "rsync --fsync",
    "tus-js ×4 → rustus",
];

/// Content is compared up to this size, beyond it only the length.
const COMPARED: u64 = 1 << 30;

/// So many seconds, and so many times what the fastest takes, are very long.
const SLOW: f64 = 20.0;
const SLOW_FACTOR: f64 = 10.0;

const HEADER: [&str; 9] = [
    "peer",
    "whole",
    "and synced",
    "× cp + sync",
    "synced rate",
    "CPU client",
    "CPU server",
    "memory client",
    "memory server",
];

/// Over TLS.
const OF_TLS: [&str; 3] = ["cp", "bigup-tls", "nginx-tls"];

/// Runs it.
pub fn run(bench: &Bench<'_>, size: u64, rounds: usize) -> anyhow::Result<Report> {
    sent_by(bench, &GROUPS, "", size, rounds)
}

/// The same over TLS.
pub fn run_over_tls(bench: &Bench<'_>, size: u64, rounds: usize) -> anyhow::Result<Report> {
    sent_by(bench, &OF_TLS, " over TLS", size, rounds)
}

fn sent_by(bench: &Bench<'_>, groups: &[&'static str], how: &str, size: u64, rounds: usize) -> anyhow::Result<Report> {
    let source = bench.source("source", size);
    let mut peers = bench.start(groups);
    // They differ for folders only.
    peers.all.retain(|peer| !peer.name.starts_with("curl --parallel"));
    peers.all.retain(|peer| size < LARGE || OF_LARGE.contains(&peer.name));
    let costs = rounds_of(&mut peers, rounds, true, |peer, round| {
        read_once(std::slice::from_ref(&source))?;
        let cost = cost(&peer.servers(), &peer.stored, &[peer.send(&source, &format!("file{round}"))], 1)?;
        let compared = round == 0 && size <= COMPARED;
        stored_file(peer, size).and_then(|stored| check(&source, &stored, compared))?;
        Ok(cost)
    });
    let size_name = size_name(size);
    let mut table = Table::new(format!("One file of {size_name}{how}"), "", &HEADER);
    let base = base_of(&costs);
    for (peer, costs) in &costs {
        table.row(row(peer, costs, base, size));
        table.bars.push((peer.name.to_owned(), median_of(costs, |c| c.synced)));
    }
    let left_out = if size < LARGE { "" } else { " Of large files only some peers are measured." };
    Ok(Report {
        title: format!("A file of {size_name}{how}"),
        text: format!("{rounds} rounds, the source in memory before each.{left_out}{}", peers.absence()),
        versions: peers.versions,
        tables: vec![table],
    })
}

/// What peers cost, round by round.
pub type Costs = Vec<(Peer, Vec<Cost>)>;

/// Lets peers take turns, and what they stored be removed in between if `removes`. One that fails is absent from then on,
/// with the reason. One other than bigup that takes very long has one turn.
pub fn rounds_of(
    peers: &mut Peers,
    rounds: usize,
    removes: bool,
    mut once: impl FnMut(&Peer, usize) -> anyhow::Result<Cost>,
) -> Costs {
    let mut costs: Costs = peers.all.drain(..).map(|peer| (peer, vec![])).collect();
    let mut left: Vec<&'static str> = costs.iter().map(|(peer, _)| peer.name).collect();
    for round in 0..rounds {
        for turn in 0..costs.len() {
            let turn = (turn + round) % costs.len();
            let (peer, costs) = &mut costs[turn];
            if !left.contains(&peer.name) {
                continue;
            }
            match once(peer, round).and_then(|cost| if removes { clear(&peer.stored).map(|()| cost) } else { Ok(cost) })
            {
                Ok(cost) => {
                    println!("round {}: {:<24} {:>8} synced", round + 1, peer.name, seconds(cost.synced));
                    costs.push(cost);
                }
                Err(error) => {
                    println!("round {}: {} failed: {error:#}", round + 1, peer.name);
                    costs.clear();
                    left.retain(|name| *name != peer.name);
                    peers.absent.push(format!("{} ({error:#})", peer.name));
                }
            }
        }
        if round == 0 {
            let slow = slow(&costs);
            left.retain(|name| !slow.contains(name));
            peers.once.extend(slow.into_iter().filter(|_| rounds > 1));
        }
    }
    costs.retain(|(_, costs)| !costs.is_empty());
    costs
}

/// Those that would make the whole take very long.
fn slow(costs: &Costs) -> Vec<&'static str> {
    let took = |costs: &[Cost]| costs.iter().map(|cost| cost.wall).sum::<f64>();
    let fastest =
        costs.iter().filter(|(_, costs)| !costs.is_empty()).map(|(_, costs)| took(costs)).fold(f64::MAX, f64::min);
    let is_slow = |(peer, costs): &&(Peer, Vec<Cost>)| {
        !peer.name.starts_with("bigup") && took(costs) > SLOW && took(costs) > SLOW_FACTOR * fastest
    };
    costs.iter().filter(is_slow).map(|(peer, _)| peer.name).collect()
}

fn row(peer: &Peer, costs: &[Cost], base: f64, size: u64) -> [String; 9] {
    let synced = median_of(costs, |c| c.synced);
    let walls: Vec<f64> = costs.iter().map(|c| c.synced).collect();
    let server = !peer.servers().is_empty();
    let of_server = |text: String| if server { text } else { "–".to_owned() };
    [
        peer.name.to_owned(),
        seconds(median_of(costs, |c| c.wall)),
        spread(&walls),
        times(synced / base),
        rate(size, synced),
        seconds(median_of(costs, |c| c.client_cpu)),
        of_server(seconds(median_of(costs, |c| c.server_cpu))),
        show_size(median_of(costs, |c| c.client_peak as f64) as u64),
        of_server(show_size(median_of(costs, |c| c.server_peak as f64) as u64)),
    ]
}

/// What `cp` and a sync take; NaN if it takes no part.
pub fn base_of(costs: &Costs) -> f64 {
    median_of(costs.iter().filter(|(peer, _)| peer.name == "cp").flat_map(|(_, costs)| costs), |c| c.synced)
}

/// The median of one figure.
pub fn median_of<'a>(costs: impl IntoIterator<Item = &'a Cost>, figure: fn(&Cost) -> f64) -> f64 {
    median(costs.into_iter().map(figure))
}

/// The file of this size that a peer has stored, whatever it calls it.
pub fn stored_file(peer: &Peer, size: u64) -> anyhow::Result<PathBuf> {
    let files = files_below(&peer.stored)?;
    let found = files.into_iter().find(|file| file.metadata().is_ok_and(|data| data.len() == size));
    found.with_context(|| format!("no file of {size} bytes was stored"))
}

/// Makes sure that as many bytes were stored as were sent, and with `content` the same ones.
pub fn check(source: &Path, stored: &Path, content: bool) -> anyhow::Result<()> {
    ensure!(!content || data::same(source, stored), "what was stored is not what was sent");
    Ok(())
}
