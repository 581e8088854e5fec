//! A file sent by pages in Chromium, to the end that each page shows.

use crate::file::{Costs, check, rounds_of, stored_file};
use crate::measure::{Cost, cost, read_once};
use crate::peers::PAGES;
use crate::table::{Table, median, seconds, size_name, spread, times};
use crate::{Bench, Report};
use anyhow::Context;
use bigup_core::protocol::units::show_size;
use serde_json::Value;
use std::fs::File;
use std::os::unix::fs::FileExt;

/// Kinds of processes of the browser, as send.mjs names them.
const PROCESSES: [&str; 4] = ["browser", "page", "network", "others"];

const HEADER: [&str; 9] = [
    "page",
    "time",
    "× best other",
    "CPU browser",
    "of it main",
    "of it page",
    "of it network",
    "CPU server",
    "memory server",
];

/// Runs it.
pub fn run(bench: &Bench<'_>, size: u64, rounds: usize) -> anyhow::Result<Report> {
    let source = bench.source("source", size);
    let mut peers = bench.start(&PAGES);
    let costs = rounds_of(&mut peers, rounds, true, |peer, round| {
        // copyparty stores no content twice, also when its first file was removed.
        let file = File::options().write(true).open(&source)?;
        file.write_all_at(&round.to_le_bytes(), 0)?;
        file.sync_all()?;
        read_once(std::slice::from_ref(&source))?;
        let name = format!("file{round}");
        let cost = cost(&peer.servers(), &peer.stored, &[peer.send(&source, &name)], 1)?;
        stored_file(peer, size).and_then(|stored| check(&source, &stored, round == 0))?;
        // The start of the browser is no part of it.
        let wall = told(&cost)?["wall"].as_f64().context("send.mjs tells the time")?;
        Ok(Cost { wall, synced: wall, ..cost })
    });
    let mut table = Table::new(format!("A file of {} sent by a page", size_name(size)), "", &HEADER);
    let best = best_other(&costs);
    for (peer, costs) in &costs {
        table.row(row(peer.name, costs, best)?);
    }
    let text = format!(
        "{rounds} rounds, the source changed and in memory before each. The time is that from the choice of the file to the end that the \
         page shows: bigup's is synced and its digest confirmed then, the others' is not. The CPU time is that of all \
         processes of Chromium, without its start. The floor is a page that sends the file by one PUT and does nothing \
         else; it is no peer.{}",
        peers.absence()
    );
    Ok(Report { title: "Pages in a browser".to_owned(), text, versions: peers.versions, tables: vec![table] })
}

fn told(cost: &Cost) -> anyhow::Result<Value> {
    serde_json::from_str(&cost.output).with_context(|| format!("send.mjs printed {:?}", cost.output))
}

/// The median of the fastest page that is neither bigup's nor the floor. NaN if there is none.
fn best_other(costs: &Costs) -> f64 {
    let others = costs.iter().filter(|(peer, _)| !["the page of bigup", "one PUT (floor)"].contains(&peer.name));
    others.map(|(_, costs)| median(costs.iter().map(|c| c.wall))).fold(f64::NAN, f64::min)
}

fn row(name: &str, costs: &[Cost], best: f64) -> anyhow::Result<[String; 9]> {
    let told: Vec<Value> = costs.iter().map(told).collect::<anyhow::Result<_>>()?;
    let of = |kind: &str| median(told.iter().map(|told| told["cpu"][kind].as_f64().unwrap_or(f64::NAN)));
    let sum = median(told.iter().map(|told| PROCESSES.iter().filter_map(|kind| told["cpu"][kind].as_f64()).sum()));
    let walls: Vec<f64> = costs.iter().map(|cost| cost.wall).collect();
    Ok([
        name.to_owned(),
        spread(&walls),
        times(median(walls.iter().copied()) / best),
        seconds(sum),
        seconds(of("browser")),
        seconds(of("page")),
        seconds(of("network")),
        seconds(median(costs.iter().map(|c| c.server_cpu))),
        show_size(median(costs.iter().map(|c| c.server_peak as f64)) as u64),
    ])
}
