//! Several daemons with a data folder each, behind HAProxy with the configuration of docs/several-daemons.md, and a store of
//! three servers. Each daemon is in a network namespace whose link has a rate each way.

use crate::measure::{Client, client, read_once};
use crate::table::{Table, seconds, size_name, times};
use crate::{Bench, Report};
use anyhow::{Context, ensure};
use bigup_core::protocol::name::FileName;
use bigup_core::protocol::units::show_size;
use bigup_core::storage::objects::Objects;
use bigup_tests::daemon::Daemon;
use bigup_tests::gateway::Gateway;
use bigup_tests::mount::run as system;
use bigup_tests::process::signal;
use bigup_tests::seaweed::{Cluster, write_credentials};
use bigup_tests::usage::{total_cpu, tree};
use bigup_tests::{data, docs, programs};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

/// Where a daemon listens in its namespace.
const PORT: u16 = 8888;

/// Names that are tried until each daemon has as many files as the others.
const NAMES: usize = 10_000;

const HEADER: [&str; 8] = [
    "daemons",
    "time",
    "rate",
    "× one daemon",
    "CPU clients",
    "CPU daemons and mergers",
    "CPU balancer and store",
    "bytes sent again",
];

/// A network namespace with a link to this one.
struct Place {
    name: String,
    number: usize,
}

impl Place {
    fn new(number: usize, mbit: u32) -> Place {
        let place = Place { name: format!("bigup-{}-{number}", std::process::id()), number };
        // What a run before this one left under the same process id goes first.
        place.remove();
        let (here, there) = (place.device("h"), place.device("t"));
        let ip = |arguments: &[&str]| drop(system(Command::new("ip").args(arguments)));
        ip(&["netns", "add", &place.name]);
        ip(&["link", "add", &here, "type", "veth", "peer", "name", &there, "netns", &place.name]);
        ip(&["address", "add", &format!("{}/30", place.address(1)), "dev", &here]);
        ip(&["link", "set", &here, "up"]);
        ip(&["-n", &place.name, "address", "add", &format!("{}/30", place.address(2)), "dev", &there]);
        ip(&["-n", &place.name, "link", "set", &there, "up"]);
        ip(&["-n", &place.name, "link", "set", "lo", "up"]);
        let rate = format!("{mbit}mbit");
        let link = ["tbf", "rate", &rate, "burst", "64kb", "latency", "50ms"];
        system(Command::new("tc").args(["qdisc", "add", "dev", &here, "root"]).args(link));
        system(Command::new("tc").args(["-n", &place.name, "qdisc", "add", "dev", &there, "root"]).args(link));
        place
    }

    /// Names of devices have at most 15 bytes.
    fn device(&self, end: &str) -> String {
        format!("bu{}{end}{}", std::process::id() % 1_000_000, self.number)
    }

    /// The address of this machine (1), or of the daemon (2).
    fn address(&self, end: u8) -> String {
        format!("10.81.{}.{end}", self.number)
    }

    fn remove(&self) {
        // They may be there or not. The kernel removes devices some time after their namespace: a next one needs the name.
        let _ = Command::new("ip").args(["link", "delete", &self.device("h")]).output();
        let _ = Command::new("ip").args(["netns", "delete", &self.name]).output();
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.remove();
    }
}

/// Daemons behind a balancer.
struct Setup {
    daemons: Vec<Daemon>,
    gateway: Gateway,
    objects: Objects,
    bucket: String,
    _places: Vec<Place>,
}

/// What a transfer took.
struct Took {
    wall: f64,
    clients: Vec<Client>,
    server_cpu: f64,
    /// CPU seconds of the balancer and the store.
    rest_cpu: f64,
}

/// Runs it.
pub fn run(bench: &Bench<'_>, size: u64, files: usize, daemons: &[usize], mbit: u32) -> anyhow::Result<Report> {
    ensure!(nix::unistd::geteuid().is_root(), "root is needed to make network namespaces");
    let cluster = Cluster::start_in(tempfile::tempdir_in(bench.folder)?);
    let most = daemons.iter().copied().max().unwrap_or(1);
    let folder = bench.folder.join("source");
    let sources: Vec<PathBuf> =
        (0..most * files).map(|i| data::file(&folder, &format!("f{i}"), i as u64, size)).collect();
    let mut table = Table::new(format!("{files} files of {} for each daemon", size_name(size)), "", &HEADER);
    let (mut first, mut last) = (None, 0.0);
    for count in daemons {
        let setup = Setup::start(bench, &cluster, *count, mbit)?;
        let sources = &sources[..count * files];
        let took = setup.transfer(sources, files, None)?;
        let rate = rate_of(sources, size, took.wall);
        let base = *first.get_or_insert(rate);
        last = took.wall;
        table.row(row(count.to_string(), &took, sources, size, base));
        setup.end(&cluster);
    }
    let setup = Setup::start(bench, &cluster, most, mbit)?;
    let took = setup.transfer(&sources, files, Some(Duration::from_secs_f64(last / 2.0)))?;
    table.row(row(format!("{most}, of which one is killed"), &took, &sources, size, first.unwrap_or(f64::NAN)));
    setup.are_exact(&sources)?;
    setup.end(&cluster);
    Ok(Report {
        title: "Several daemons".to_owned(),
        text: format!(
            "Each daemon has a data folder of its own and a link of {mbit} Mbit/s each way. HAProxy is in front of them, SeaweedFS \
             with three servers and two copies behind them, all on this machine. A client for each file, all at once. Names are \
             chosen so that each daemon gets {files} files. In the last row a daemon and its mergers are killed after half of \
             the time: all files arrive and are compared."
        ),
        versions: vec![],
        tables: vec![table],
    })
}

impl Setup {
    fn start(bench: &Bench<'_>, cluster: &Cluster, count: usize, mbit: u32) -> anyhow::Result<Setup> {
        static SETUPS: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        let bucket = format!("scale{}", SETUPS.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
        cluster.seaweed.make_bucket(&bucket);
        let credentials = bench.folder.join("credentials");
        write_credentials(&credentials, true);
        let places: Vec<Place> = (0..count).map(|number| Place::new(number, mbit)).collect();
        let mut daemons = vec![];
        for place in &places {
            let data = bench.folder.join(&bucket).join(place.number.to_string());
            std::fs::create_dir_all(&data)?;
            let options = [
                format!("--store=s3://{bucket}/p"),
                format!("--s3-endpoint=http://{}:{}", place.address(1), cluster.seaweed.port()),
                format!("--s3-credentials-file={}", credentials.display()),
                format!("--trusted-proxies={}", place.address(1)),
                "--allow-anonymous=yes".to_owned(),
                "--reserve=0".to_owned(),
            ];
            let launcher = ["ip", "netns", "exec", &place.name, "env", "BIGUP_LOG=warn"].map(str::to_owned).to_vec();
            let listen = format!("{}:{PORT}", place.address(2));
            daemons.push(Daemon::launched_at(&listen, launcher, &data, &options.each_ref().map(String::as_str)));
        }
        let gateway = Gateway::haproxy_of(&configuration(&places));
        let objects = cluster.seaweed.objects(&bucket, &credentials);
        Ok(Setup { daemons, gateway, objects, bucket, _places: places })
    }

    /// Names for so many files for each daemon.
    fn names(&self, files: usize) -> anyhow::Result<Vec<String>> {
        let (mut names, mut counts) = (vec![], std::collections::BTreeMap::<String, usize>::new());
        for i in 0..NAMES {
            let name = format!("file{i}");
            let url = format!("{}/content/{name}", self.gateway.url);
            let response = ureq::get(url).config().http_status_as_error(false).build().call()?;
            let daemon = response.headers().get("bench-daemon").context("the balancer tells the daemon")?.to_str()?;
            let count = counts.entry(daemon.to_owned()).or_default();
            if *count < files {
                *count += 1;
                names.push(name);
            }
            if names.len() == files * self.daemons.len() {
                return Ok(names);
            }
        }
        anyhow::bail!("the balancer does not use all daemons: {counts:?}")
    }

    /// Pushes all files at once. `kill_after`: kills a daemon and its mergers after this time.
    fn transfer(&self, sources: &[PathBuf], files: usize, kill_after: Option<Duration>) -> anyhow::Result<Took> {
        let names = self.names(files)?;
        read_once(sources)?;
        nix::unistd::sync();
        let used = || total_cpu(self.daemons.iter().map(Daemon::pid));
        let (before, rest_before, began) = (used(), self.rest_cpu(), Instant::now());
        let clients: Vec<anyhow::Result<Client>> = std::thread::scope(|scope| {
            let pushes: Vec<_> = sources
                .iter()
                .zip(&names)
                .map(|(source, name)| {
                    let mut push = programs::cli();
                    push.arg("push").arg(source).args(["--json", "--url", &self.gateway.url, "--name", name]);
                    scope.spawn(move || client(&push))
                })
                .collect();
            if let Some(after) = kill_after {
                std::thread::sleep(after);
                // Its mergers are below it.
                tree(self.daemons[0].pid()).into_iter().for_each(|pid| signal(pid, Signal::SIGKILL));
            }
            pushes.into_iter().map(|push| push.join().expect("it does not panic")).collect()
        });
        let wall = began.elapsed().as_secs_f64();
        let clients = clients.into_iter().collect::<anyhow::Result<Vec<_>>>()?;
        // What a killed daemon used is not known.
        let server_cpu = if kill_after.is_some() { f64::NAN } else { used() - before };
        Ok(Took { wall, clients, server_cpu, rest_cpu: self.rest_cpu() - rest_before })
    }

    /// CPU seconds so far of all that this process has started and that runs, but for the daemons and their mergers.
    fn rest_cpu(&self) -> f64 {
        let daemons: Vec<u32> = self.daemons.iter().flat_map(|daemon| tree(daemon.pid())).collect();
        total_cpu(tree(std::process::id()).into_iter().skip(1).filter(|pid| !daemons.contains(pid)))
    }

    /// All files are in the store, in one piece each, and read back they are what was sent.
    fn are_exact(&self, sources: &[PathBuf]) -> anyhow::Result<()> {
        let mut digests: Vec<String> = sources.iter().map(|source| data::digest(source)).collect();
        let mut found = vec![];
        let each = |listed: bigup_core::storage::objects::Listed| {
            found.push(listed.name().to_owned());
            std::ops::ControlFlow::Continue(())
        };
        self.objects.list("", "", false, each).map_err(|e| anyhow::anyhow!("{e}"))?;
        ensure!(found.len() == sources.len(), "{} of {} files are there", found.len(), sources.len());
        for name in found {
            let file = FileName::new(&name).map_err(|e| anyhow::anyhow!("{e}"))?;
            let object = self.objects.find(&file).map_err(|e| anyhow::anyhow!("{e}"))?;
            let told = object.and_then(|object| object.facts).map(|facts| facts.digest.to_string());
            let mut response = ureq::get(format!("{}/content/{name}", self.gateway.url)).call()?;
            let mut hasher = blake3::Hasher::new();
            std::io::copy(&mut response.body_mut().as_reader(), &mut hasher)?;
            let read = hasher.finalize().to_string();
            ensure!(told.as_deref() == Some(&read), "{name} is not what its digest says");
            let at = digests.iter().position(|digest| *digest == read);
            digests.swap_remove(at.with_context(|| format!("{name} was never sent"))?);
        }
        Ok(())
    }

    fn end(self, cluster: &Cluster) {
        drop(self.gateway);
        let folders: Vec<PathBuf> = self.daemons.iter().map(Daemon::data).collect();
        drop(self.daemons);
        folders.iter().for_each(|folder| drop(std::fs::remove_dir_all(folder)));
        cluster.seaweed.remove_bucket(&self.bucket);
    }
}

/// The configuration of the document, with a line for each daemon, which tells the daemon of each response.
fn configuration(places: &[Place]) -> String {
    let whole = docs::block("docs/several-daemons.md", "tests/tests/machine/shared_spool.rs: haproxy");
    let common = whole.split("\nbackend bigupd").next().unwrap_or_default();
    let backend = docs::block("docs/several-daemons.md", "tests/tests/programs/own_spools.rs: haproxy");
    let is_of_two = |line: &&str| line.trim().starts_with("server ") || line.trim().starts_with("use-server ");
    let kept: Vec<&str> = backend.lines().filter(|line| !is_of_two(line)).collect();
    let servers = places.iter().map(|place| format!("    server d{} {}:{PORT}\n", place.number, place.address(2)));
    let told = "    http-response set-header Bench-Daemon %s\n";
    format!("{common}\n{}\n{told}{}", kept.join("\n"), servers.collect::<String>())
}

fn rate_of(sources: &[PathBuf], size: u64, wall: f64) -> f64 {
    (sources.len() as u64 * size) as f64 * 8.0 / 1e6 / wall
}

fn row(daemons: String, took: &Took, sources: &[PathBuf], size: u64, base: f64) -> [String; 8] {
    let rate = rate_of(sources, size, took.wall);
    let sent: u64 = took.clients.iter().map(|client| bytes_sent(&client.output)).sum();
    [
        daemons,
        seconds(took.wall),
        format!("{rate:.0} Mbit/s"),
        times(rate / base),
        seconds(took.clients.iter().map(|client| client.cpu).sum()),
        seconds(took.server_cpu),
        seconds(took.rest_cpu),
        show_size(sent.saturating_sub(sources.len() as u64 * size)),
    ]
}

fn bytes_sent(output: &str) -> u64 {
    let events = output.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    events.filter(|event| event["event"] == "done").filter_map(|event| event["bytes_sent"].as_u64()).sum()
}
