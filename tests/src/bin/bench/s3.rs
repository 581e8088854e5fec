//! Files into a store of objects: through bigup, and by clients of the store straight into it.

use crate::measure::{Client, client, read_once};
use crate::peers::{bigupd, program, versions};
use crate::server::Server;
use crate::table::{Table, median, rate, seconds, size_name, spread, times};
use crate::{Bench, Report};
use anyhow::ensure;
use bigup_core::protocol::name::FileName;
use bigup_core::protocol::units::{MIB, show_size};
use bigup_core::storage::objects::Listed;
use bigup_tests::seaweed::{Seaweed, variables, write_credentials};
use bigup_tests::usage::{peak_memory, total_cpu, tree};
use bigup_tests::{data, programs};
use serde_json::Value;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Files of the second table.
const FILES: u64 = 64;

/// Time between two looks at the memory of mergers.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Rate of pushes that the store keeps up with.
const EASY_RATE: &str = "48M";

/// Bytes of a part of files of these sizes.
const PART: u64 = 8 * MIB;

const HEADER: [&str; 8] = [
    "peer",
    "time",
    "× the fastest direct one",
    "rate",
    "CPU client",
    "CPU bigupd and mergers",
    "from the last slice to the object",
    "memory of a merger",
];

/// A client of the store, or bigup.
struct Peer {
    name: &'static str,
    program: PathBuf,
}

/// What one transfer took.
#[derive(Clone, Default)]
struct Took {
    client: Client,
    server_cpu: f64,
    merger_peak: u64,
    /// NaN: it was not told.
    finish: f64,
}

/// Runs it.
pub fn run(bench: &Bench<'_>, size: u64, each: u64, rounds: usize) -> anyhow::Result<Report> {
    let mut peers = vec![Peer { name: "bigup", program: programs::path("bigup-cli") }];
    let (mut absent, mut programs_there) = (vec![], vec![]);
    let is_asked = |name: &str| bench.peers.is_none_or(|peers| peers.iter().any(|peer| peer == name));
    let clients = [("s5cmd", "version"), ("rclone", "version"), ("aws", "--version")];
    for (name, argument) in clients.into_iter().filter(|(name, _)| is_asked(name)) {
        match program(name) {
            Ok(program) => {
                programs_there.push((program.clone(), argument));
                peers.push(Peer { name, program });
            }
            Err(e) => absent.push(format!("{name} ({e})")),
        }
    }
    let there: Vec<(&Path, &str)> = programs_there.iter().map(|(path, argument)| (&**path, *argument)).collect();
    let store = Seaweed::start_in(tempfile::tempdir_in(bench.folder)?);
    let one = bench.source("one", size);
    let folder = bench.folder.join("many");
    let many: Vec<PathBuf> = (0..FILES).map(|i| data::file(&folder, &format!("f{i}"), 2 + i, each)).collect();
    let mut tables = vec![];
    let cases = [
        (format!("One file of {}", size_name(size)), &one, vec![one.clone()], size),
        (format!("{FILES} files of {}", size_name(each)), &folder, many, each * FILES),
    ];
    for (title, path, files, bytes) in cases {
        let mut all: Vec<Vec<Took>> = vec![vec![]; peers.len()];
        for round in 0..rounds {
            for turn in 0..peers.len() {
                let turn = (turn + round) % peers.len();
                read_once(&files)?;
                let took = once(bench, &store, &peers[turn], path, &files)?;
                println!("round {}: {:<8} {:>8}", round + 1, peers[turn].name, seconds(took.client.wall));
                all[turn].push(took);
            }
        }
        tables.push(table(title, &peers, &all, bytes));
    }
    tables.push(finishing(bench, &store, size, rounds)?);
    let absence = if absent.is_empty() { String::new() } else { format!(" Absent: {}.", absent.join("; ")) };
    Ok(Report {
        title: "Into a store of objects".to_owned(),
        text: format!(
            "SeaweedFS of one process on the same disk; through bigup each byte passes twice, by the daemon's disk. rclone \
             with an upload cutoff of 8 MiB, parts of 16 MiB and 8 of them at once. {rounds} rounds.{absence}"
        ),
        versions: versions(&there).into_iter().collect(),
        tables,
    })
}

/// One transfer into a bucket of its own, which goes with all that is in it.
fn once(bench: &Bench<'_>, store: &Seaweed, peer: &Peer, path: &Path, files: &[PathBuf]) -> anyhow::Result<Took> {
    static BUCKETS: AtomicU64 = AtomicU64::new(0);
    let bucket = format!("bench{}", BUCKETS.fetch_add(1, Ordering::Relaxed));
    store.make_bucket(&bucket);
    let credentials = bench.folder.join("credentials");
    write_credentials(&credentials, true);
    let took = match peer.name {
        "bigup" => through_bigup(bench, store, &bucket, &credentials, path, &[])?,
        _ => {
            nix::unistd::sync();
            Took { client: client(&direct(peer, store, &bucket, path))?, finish: f64::NAN, ..Took::default() }
        }
    };
    let (objects, mut found) = (store.objects(&bucket, &credentials), 0);
    let each = |_: Listed| {
        found += 1;
        ControlFlow::Continue(())
    };
    objects.list("", "", false, each).map_err(|e| anyhow::anyhow!("{e}"))?;
    ensure!(found == files.len(), "{} stored {found} of {} objects", peer.name, files.len());
    if let ("bigup", [file]) = (peer.name, files) {
        let name = FileName::new("one").map_err(|e| anyhow::anyhow!("{e}"))?;
        let object = objects.find(&name).map_err(|e| anyhow::anyhow!("{e}"))?;
        let digest = object.and_then(|object| object.facts).map(|facts| facts.digest.to_string());
        ensure!(digest == Some(data::digest(file)), "the object has another digest");
    }
    store.remove_bucket(&bucket);
    Ok(took)
}

fn through_bigup(
    bench: &Bench<'_>,
    store: &Seaweed,
    bucket: &str,
    credentials: &Path,
    path: &Path,
    arguments: &[&str],
) -> anyhow::Result<Took> {
    let data = bench.folder.join(bucket).join("data");
    std::fs::create_dir_all(&data)?;
    let settings = [
        format!("--store=s3://{bucket}/p"),
        format!("--s3-endpoint={}", store.endpoint()),
        format!("--s3-credentials-file={}", credentials.display()),
    ];
    let server = bigupd(&data, &settings.each_ref().map(String::as_str))?;
    let mut push = programs::cli();
    push.arg("push").arg(path).args(["--json", "--url", &server.url()]).args(arguments);
    if path.is_file() {
        push.args(["--name", "one"]);
    }
    nix::unistd::sync();
    let used = |server: &Server| total_cpu([server.pid()]);
    let (before, over, peak) = (used(&server), AtomicBool::new(false), AtomicU64::new(0));
    let client = std::thread::scope(|scope| {
        scope.spawn(|| watch_mergers(server.pid(), &over, &peak));
        let client = client(&push);
        over.store(true, Ordering::Relaxed);
        client
    })?;
    // The last mergers end, so that they count with the daemon.
    let is_alone = || tree(server.pid()).len() == 1;
    bigup_tests::process::eventually("mergers end", is_alone);
    let finish = finish_seconds(&client.output);
    let took = Took { client, server_cpu: used(&server) - before, merger_peak: peak.into_inner(), finish };
    drop(server);
    std::fs::remove_dir_all(bench.folder.join(bucket))?;
    Ok(took)
}

/// The time from the last slice of a file to its object, for files of several sizes, at a rate that the store keeps up with.
fn finishing(bench: &Bench<'_>, store: &Seaweed, size: u64, rounds: usize) -> anyhow::Result<Table> {
    let (bucket, credentials) = ("finish", bench.folder.join("credentials"));
    store.make_bucket(bucket);
    let sizes = [size / 16, size / 4, size];
    let (mut parts, mut finishes) = (vec![], vec![vec![]; sizes.len()]);
    for _ in 0..rounds {
        parts.push(part_seconds(bench, store, bucket)?);
        for (size, finishes) in sizes.iter().zip(&mut finishes) {
            let file = bench.source("cut", *size);
            read_once(std::slice::from_ref(&file))?;
            let arguments = ["--limit-rate", EASY_RATE, "--replace"];
            finishes.push(through_bigup(bench, store, bucket, &credentials, &file, &arguments)?.finish);
        }
    }
    store.remove_bucket(bucket);
    let title = format!("From the last slice to the object, at {EASY_RATE}/s");
    let mut table = Table::new(title, "", &["file", "from the last slice to the object", "a part by curl"]);
    for (size, finishes) in sizes.iter().zip(&finishes) {
        table.row([size_name(*size), spread(finishes), spread(&parts)]);
    }
    Ok(table)
}

/// The time that curl takes to store a part.
fn part_seconds(bench: &Bench<'_>, store: &Seaweed, bucket: &str) -> anyhow::Result<f64> {
    let part = bench.source("part", PART);
    let value = |name: &str| variables().into_iter().find(|(is, _)| *is == name).map_or("", |(_, value)| value);
    let mut curl = Command::new("curl");
    curl.args(["-sSf", "-o", "/dev/null", "-w", "%{time_total}", "--aws-sigv4", "aws:amz:us-east-1:s3"]);
    curl.args(["-u", &format!("{}:{}", value("AWS_ACCESS_KEY_ID"), value("AWS_SECRET_ACCESS_KEY"))]);
    curl.arg("-T").arg(&part).arg(format!("{}/{bucket}/part", store.endpoint()));
    Ok(client(&curl)?.output.trim().parse()?)
}

/// The largest peak of a process below the daemon.
fn watch_mergers(daemon: u32, over: &AtomicBool, peak: &AtomicU64) {
    while !over.load(Ordering::Relaxed) {
        let mergers = tree(daemon).into_iter().filter(|pid| *pid != daemon);
        peak.fetch_max(mergers.filter_map(peak_memory).max().unwrap_or(0), Ordering::Relaxed);
        std::thread::sleep(LOOK_EVERY);
    }
}

/// What a client of the store does, with a file or with a folder.
fn direct(peer: &Peer, store: &Seaweed, bucket: &str, path: &Path) -> Command {
    let mut command = Command::new(&peer.program);
    command.envs(variables());
    for variable in ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "AWS_CA_BUNDLE"] {
        command.env_remove(variable);
    }
    let (endpoint, is_file) = (store.endpoint(), path.is_file());
    let to = format!("s3://{bucket}/p/{}", if is_file { "one" } else { "" });
    match peer.name {
        "s5cmd" => {
            command.args(["--endpoint-url", &endpoint, "cp"]);
            let from = if is_file { path.display().to_string() } else { format!("{}/*", path.display()) };
            command.args([from, to]);
        }
        "rclone" => {
            command.args(["--config", "", "--s3-provider", "Other", "--s3-env-auth", "--s3-endpoint", &endpoint]);
            command.args(["--s3-upload-cutoff", "8M", "--s3-chunk-size", "16M", "--s3-upload-concurrency", "8"]);
            command.arg(if is_file { "copyto" } else { "copy" }).arg(path);
            command.arg(to.replacen("s3://", ":s3:", 1));
        }
        _ => {
            command.args(["--endpoint-url", &endpoint, "s3", "cp", "--only-show-errors"]);
            command.args((!is_file).then_some("--recursive")).arg(path).arg(to);
        }
    }
    command
}

fn table(title: String, peers: &[Peer], all: &[Vec<Took>], bytes: u64) -> Table {
    let mut table = Table::new(title, "", &HEADER);
    let wall = |tooks: &[Took]| median(tooks.iter().map(|took| took.client.wall));
    let fastest = all.iter().skip(1).map(|tooks| wall(tooks)).fold(f64::NAN, f64::min);
    for (peer, tooks) in peers.iter().zip(all) {
        let is_bigup = peer.name == "bigup";
        let of_bigup = |text: String| if is_bigup { text } else { "–".to_owned() };
        let finish: Vec<f64> = tooks.iter().map(|took| took.finish).collect();
        table.row([
            peer.name.to_owned(),
            spread(&tooks.iter().map(|took| took.client.wall).collect::<Vec<_>>()),
            times(wall(tooks) / fastest),
            rate(bytes, wall(tooks)),
            seconds(median(tooks.iter().map(|took| took.client.cpu))),
            of_bigup(seconds(median(tooks.iter().map(|took| took.server_cpu)))),
            of_bigup(spread(&finish)),
            // Files of one slice have no merger.
            match tooks.iter().map(|took| took.merger_peak).max() {
                Some(peak) if peak > 0 => show_size(peak),
                _ => "–".to_owned(),
            },
        ]);
        table.bars.push((peer.name.to_owned(), wall(tooks)));
    }
    table
}

/// The longest time from the last slice of a file to its end, of all files. NaN: it was not told.
fn finish_seconds(output: &str) -> f64 {
    let events = output.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let done = events.filter(|event| event["event"] == "done");
    done.filter_map(|event| event["finish_seconds"].as_f64()).fold(f64::NAN, f64::max)
}
