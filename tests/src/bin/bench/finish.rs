//! From the last slice's answer to the end of a push: what is left to do once all bytes are there.

use crate::measure::{clear, cost, read_once};
use crate::table::{Table, median, seconds, size_name, spread};
use crate::{Bench, Report};
use serde_json::Value;

/// Runs it.
pub fn run(bench: &Bench<'_>, rounds: usize, sizes: &[u64]) -> anyhow::Result<Report> {
    let mut peers = bench.start(&["bigup"]);
    peers.all.retain(|peer| peer.name != "bigup, slices synced");
    let header = ["file", "peer", "push", "from the last slice to the end"];
    let mut table = Table::new("From the last slice stored to the file being whole and synced", "", &header);
    for size in sizes {
        let source = bench.source("source", *size);
        let mut found = vec![(vec![], vec![]); peers.all.len()];
        for round in 0..rounds {
            for (peer, (pushes, finishes)) in peers.all.iter().zip(&mut found) {
                read_once(std::slice::from_ref(&source))?;
                let cost = cost(&peer.servers(), &peer.stored, &[peer.send(&source, "file")], 1)?;
                clear(&peer.stored)?;
                let finish = finish_seconds(&cost.output).unwrap_or(f64::NAN);
                println!("round {}: {} {} to finish", round + 1, size_name(*size), seconds(finish));
                pushes.push(cost.wall);
                finishes.push(finish);
            }
        }
        for (peer, (pushes, finishes)) in peers.all.iter().zip(&found) {
            table.row([
                size_name(*size),
                peer.name.to_owned(),
                seconds(median(pushes.iter().copied())),
                spread(finishes),
            ]);
        }
        std::fs::remove_file(source)?;
    }
    Ok(Report {
        title: "Finishing".to_owned(),
        text: format!("As `push --json` tells it (`finish_seconds`); {rounds} rounds."),
        versions: vec![],
        tables: vec![table],
    })
}

/// What `done` tells of it. None: this client does not tell it.
fn finish_seconds(output: &str) -> Option<f64> {
    let events = output.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    events.filter(|event| event["event"] == "done").find_map(|event| event["finish_seconds"].as_f64())
}
