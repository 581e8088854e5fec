//! Fetching a finished file into a folder: `bigup-cli get`, which checks each piece of it, beside clients that do not.

use crate::file::{median_of, rounds_of};
use crate::measure::cost;
use crate::peers::{Peers, program};
use crate::table::{Table, median, rate, seconds, size_name, spread, times};
use crate::{Bench, Report};
use anyhow::{Context, ensure};
use bigup_core::protocol::units::show_size;
use bigup_tests::{data, programs};
use std::path::Path;
use std::process::Command;

/// Name of the file.
const NAME: &str = "file";

/// The time of which others are told as multiples.
const BASE: &str = "curl ← nginx";

const HEADER: [&str; 8] =
    ["peer", "time", "and synced", "× curl ← nginx", "rate", "CPU client", "CPU server", "memory client"];

/// A client with its name, the name of the peer whose server it asks, and its command for a URL and a destination.
type Client = (&'static str, &'static str, fn(&str, &Path) -> anyhow::Result<Command>);

const CLIENTS: [Client; 4] = [
    ("bigup-cli get", "curl → bigup, PUT", get),
    ("curl ← bigup", "curl → bigup, PUT", curl),
    (BASE, "curl → nginx", curl),
    ("aria2c -x8 ← nginx", "curl → nginx", aria2c),
];

/// Runs it.
pub fn run(bench: &Bench<'_>, size: u64, rounds: usize) -> anyhow::Result<Report> {
    let source = bench.source("source", size);
    let servers = bench.start(&["bigup-http", "nginx"]);
    let mut peers = Peers { versions: servers.versions.clone(), absent: servers.absent.clone(), ..Peers::default() };
    for (name, of, command) in CLIENTS {
        let Some(server) = servers.all.iter().find(|peer| peer.name == of) else { continue };
        let fetched = bench.folder.join(name);
        std::fs::create_dir_all(&fetched)?;
        let url = server.content_url(NAME).context("it serves files")?;
        match command(&url, &fetched) {
            Ok(_) => peers.all.push(server.read_by(name, fetched, command)),
            Err(error) => peers.absent.push(format!("{name} ({error:#})")),
        }
    }
    for server in servers.all.iter().filter(|peer| peer.content_url(NAME).is_some()) {
        ensure!(server.send(&source, NAME).status()?.success(), "{} stores nothing", server.name);
    }
    let costs = rounds_of(&mut peers, rounds, true, |peer, round| {
        let cost = cost(&peer.servers(), &peer.stored, &[peer.send(&source, NAME)], 1)?;
        ensure!(round > 0 || data::same(&source, &peer.stored.join(NAME)), "other bytes were fetched");
        Ok(cost)
    });
    let base = costs.iter().find(|(peer, _)| peer.name == BASE).map(|(_, costs)| median_of(costs, |c| c.synced));
    let mut table = Table::new(format!("A file of {} fetched", size_name(size)), "", &HEADER);
    for (peer, costs) in &costs {
        let walls: Vec<f64> = costs.iter().map(|c| c.synced).collect();
        let synced = median(walls.iter().copied());
        table.row([
            peer.name.to_owned(),
            seconds(median_of(costs, |c| c.wall)),
            spread(&walls),
            times(synced / base.unwrap_or(f64::NAN)),
            rate(size, synced),
            seconds(median_of(costs, |c| c.client_cpu)),
            seconds(median_of(costs, |c| c.server_cpu)),
            show_size(median_of(costs, |c| c.client_peak as f64) as u64),
        ]);
        table.bars.push((peer.name.to_owned(), synced));
    }
    Ok(Report {
        title: "Fetching a file".to_owned(),
        text: format!(
            "{rounds} rounds, the file in the server's memory. `bigup-cli get` compares each piece with its digest and syncs \
             the file; the others do neither, and are synced after their end.{}",
            peers.absence()
        ),
        versions: peers.versions,
        tables: vec![table],
    })
}

fn get(url: &str, folder: &Path) -> anyhow::Result<Command> {
    let server = url.split_once("/content/").context("it is a URL of bigup")?.0;
    let mut command = programs::cli();
    command.args(["get", NAME, "--quiet", "--url", server, "--to"]).arg(folder.join(NAME));
    Ok(command)
}

fn curl(url: &str, folder: &Path) -> anyhow::Result<Command> {
    let mut command = Command::new(program("curl")?);
    command.args(["-sSf", "-o"]).arg(folder.join(NAME)).arg(url);
    Ok(command)
}

fn aria2c(url: &str, folder: &Path) -> anyhow::Result<Command> {
    let mut command = Command::new(program("aria2c")?);
    command.args(["-x8", "-s8", "-k1M", "-q", "--file-allocation=none", "-o", NAME, "-d"]).arg(folder).arg(url);
    Ok(command)
}
