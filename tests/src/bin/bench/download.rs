//! Reading a finished file: by one client, and by many slow ones.

use crate::file::{Costs, median_of, rounds_of};
use crate::measure::cost;
use crate::peers::Peer;
use crate::table::{Table, median, rate, seconds, spread};
use crate::{Bench, Report};
use anyhow::{Context, ensure};
use bigup_core::protocol::units::show_size;
use bigup_tests::http::connect;
use bigup_tests::usage::{peak_memory, reset_peak, tree};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

/// Bytes that a slow reader takes at once, and the time between two of them.
const SIP: (usize, Duration) = (4 << 10, Duration::from_millis(500));

/// Time for which slow readers read.
const SLOW_FOR: Duration = Duration::from_secs(10);

/// Name of the file.
const NAME: &str = "download";

const HEADER: [&str; 6] = ["peer", "time", "rate", "CPU client", "CPU server", "memory server"];

/// Runs it with a file of `size` bytes, and `readers` slow ones.
pub fn run(bench: &Bench<'_>, size: u64, rounds: usize, readers: usize) -> anyhow::Result<Report> {
    let source = bench.source("source", size);
    let mut peers = bench.start(&["bigup-http", "nginx"]);
    peers.all.retain(|peer| peer.content_url(NAME).is_some());
    for peer in &peers.all {
        ensure!(peer.send(&source, NAME).status()?.success(), "{} stores nothing", peer.name);
    }
    let costs = rounds_of(&mut peers, rounds, false, |peer, _| {
        let url = peer.content_url(NAME).context("it serves files")?;
        let mut command = Command::new("curl");
        command.args(["-sSf", "-o", "/dev/null", &url]);
        cost(&peer.servers(), &peer.stored, &[command], 1)
    });
    let mut table = Table::new(format!("A file of {} read by curl", crate::table::size_name(size)), "", &HEADER);
    costs.iter().for_each(|(peer, costs)| table.row(row(peer, costs, size)));
    Ok(Report {
        title: "Downloads".to_owned(),
        text: format!(
            "{rounds} rounds, the file in memory. nginx uses sendfile. A slow reader takes {} every {} s.{}",
            show_size(SIP.0 as u64),
            SIP.1.as_secs_f64(),
            peers.absence()
        ),
        versions: peers.versions,
        tables: vec![table, slow_readers(&costs, readers)?],
    })
}

fn row(peer: &Peer, costs: &[crate::measure::Cost], size: u64) -> [String; 6] {
    let walls: Vec<f64> = costs.iter().map(|cost| cost.wall).collect();
    [
        peer.name.replace('→', "←"),
        spread(&walls),
        rate(size, median(walls.iter().copied())),
        seconds(median_of(costs, |c| c.client_cpu)),
        seconds(median_of(costs, |c| c.server_cpu)),
        show_size(median_of(costs, |c| c.server_peak as f64) as u64),
    ]
}

/// Memory of servers while many read slowly.
fn slow_readers(costs: &Costs, readers: usize) -> anyhow::Result<Table> {
    let mut table = Table::new(format!("{readers} slow readers"), "", &["peer", "memory before", "memory at most"]);
    for (peer, _) in costs {
        let processes: Vec<u32> = peer.servers().into_iter().flat_map(tree).collect();
        let memory = || processes.iter().filter_map(|pid| peak_memory(*pid)).sum::<u64>();
        processes.iter().for_each(|pid| reset_peak(*pid));
        let before = memory();
        let address = peer.port().context("it has a server")?;
        let path = peer.content_url(NAME).and_then(|url| Some(url.splitn(4, '/').nth(3)?.to_owned()));
        let read = read_slowly(address, &path.context("it serves files")?, readers);
        let at_most = read.map_or_else(|e| format!("a reader waits for bytes: {e}"), |()| show_size(memory()));
        table.row([peer.name.replace('→', "←"), show_size(before), at_most]);
    }
    Ok(table)
}

/// An error if a reader gets nothing for the patience of [`connect`].
fn read_slowly(port: u16, path: &str, readers: usize) -> std::io::Result<()> {
    let request = format!("GET /{path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let mut streams: Vec<TcpStream> = (0..readers)
        .map(|_| {
            let mut stream = connect(&format!("http://127.0.0.1:{port}"));
            stream.write_all(request.as_bytes()).expect("the server takes a request");
            stream
        })
        .collect();
    let began = Instant::now();
    let mut sip = vec![0; SIP.0];
    while began.elapsed() < SLOW_FOR {
        let round = Instant::now();
        for stream in &mut streams {
            stream.read_exact(&mut sip)?;
        }
        std::thread::sleep(SIP.1.saturating_sub(round.elapsed()));
    }
    Ok(())
}
