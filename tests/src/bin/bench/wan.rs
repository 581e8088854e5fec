//! Pushing and fetching over a long link that loses packets, beside other tools on the same link: iperf3, which only sends,
//! curl and aria2c with nginx, and rsync with its daemon.
//!
//! Each is stopped after [`LIMIT`]; its rate is that of the bytes that arrived then. Tools that are not installed are left
//! out.

use crate::measure::read_once;
use crate::table::{Table, size_name};
use crate::{Bench, Report};
use anyhow::Context;
use bigup_core::protocol::units::show_size;
use bigup_tests::data;
use bigup_tests::process::{PATIENCE, kill_9, signal};
use bigup_tests::programs;
use bigup_tests::wan::{ADDRESS_B, Wan};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde_json::Value;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long each tool may take.
const LIMIT: Duration = Duration::from_secs(30);

/// How long iperf3 sends.
const IPERF_SECS: &str = "15";

/// Rate and delay each way of the link.
const LINK: (u32, u32) = (500, 50);

/// Congestion controls and losses in percent; the first two with all tools.
const KINDS: [(&str, f64, bool); 4] =
    [("cubic", 0.1, true), ("cubic", 0.0, true), ("bbr", 0.1, false), ("bbr", 0.0, false)];

/// What one tool did on one link.
struct Row {
    tool: &'static str,
    /// Mbit/s of content; None: it is not installed.
    rate: Option<f64>,
    note: String,
}

/// Files that all tools send, and where they put them.
struct Place<'a> {
    file: &'a Path,
    size: u64,
    /// Files and folders of the tools lie here.
    folder: &'a Path,
    /// Further arguments of the push.
    arguments: &'a [String],
}

/// A server at the far end, in a process group of its own, ended with this.
struct Server(Child);

/// How a command ended.
struct Ran {
    seconds: f64,
    output: String,
    /// Whether it ended by itself, and well.
    finished: bool,
}

/// Runs it.
pub fn run(bench: &Bench<'_>, size: u64, arguments: &[String]) -> anyhow::Result<Report> {
    let file = bench.source("source", size);
    let place = Place { file: &file, size, folder: bench.folder, arguments };
    let mut tables = vec![];
    for (congestion, loss, with_all) in KINDS {
        tables.push(beside("sent", congestion, loss, senders(with_all), &place)?);
        if with_all {
            tables.push(beside("fetched", congestion, loss, fetchers(), &place)?);
        }
    }
    Ok(Report {
        title: "A long link that loses packets".to_owned(),
        text: format!(
            "{} of random bytes over a simulated link of {} Mbit/s and {} ms round trip between two network namespaces, \
             by TCP with the congestion control named. Mbit/s of content; each tool is stopped after {} s, and its rate is \
             that of what had arrived then. bigup chooses its senders and slices by itself.",
            size_name(size),
            LINK.0,
            2 * LINK.1,
            LIMIT.as_secs()
        ),
        versions: vec![],
        tables,
    })
}

/// Measures tools on one kind of link, each on a link of its own.
fn beside(
    direction: &str,
    congestion: &str,
    loss: f64,
    tools: Vec<(&'static str, Measure)>,
    place: &Place<'_>,
) -> anyhow::Result<Table> {
    let mut rows = vec![];
    for (tool, measure) in tools {
        read_once(&[place.file.to_owned()])?;
        let mut wan = Wan::with_congestion(LINK.0, LINK.1, loss, congestion);
        let (rate, note) = match measure(&mut wan, place)? {
            Some((rate, note)) => (Some(rate), note),
            None => (None, "not installed".to_owned()),
        };
        println!("{congestion}, {loss} % loss, {direction}: {tool} {} Mbit/s, {note}", shown(rate));
        rows.push(Row { tool, rate, note });
    }
    Ok(table(&format!("{congestion}, {loss} % of the packets lost, {direction}"), &rows))
}

fn shown(rate: Option<f64>) -> String {
    rate.map_or_else(|| "-".to_owned(), |rate| format!("{rate:.1}"))
}

fn table(title: &str, rows: &[Row]) -> Table {
    let header = ["tool", "Mbit/s", "bigup beside it", ""];
    let mut table = Table::new(title, "", &header);
    let ours = rows.first().and_then(|row| row.rate);
    for Row { tool, rate, note } in rows {
        let ratio = ours.zip(*rate).map_or_else(|| "-".to_owned(), |(ours, rate)| format!("{:.2} x", ours / rate));
        table.row([(*tool).to_owned(), shown(*rate), ratio, note.clone()]);
    }
    table
}

type Measure = fn(&mut Wan, &Place<'_>) -> anyhow::Result<Option<(f64, String)>>;

fn senders(all: bool) -> Vec<(&'static str, Measure)> {
    let mut tools: Vec<(&str, Measure)> = vec![("bigup push", push), ("curl to nginx", curl)];
    if all {
        let others: [(&str, Measure); 4] = [
            ("rsync to its daemon", rsync),
            ("iperf3, 1 stream", |wan, _| iperf(wan, 1)),
            ("iperf3, 8 streams", |wan, _| iperf(wan, 8)),
            ("iperf3, 32 streams", |wan, _| iperf(wan, 32)),
        ];
        tools.extend(others);
    }
    tools
}

fn fetchers() -> Vec<(&'static str, Measure)> {
    vec![
        ("bigup get", get),
        ("curl from nginx", |wan, place| from_nginx(wan, place, "curl", &["-sSf", "-o", "fetched"])),
        ("aria2c -x8 from nginx", |wan, place| {
            let options = ["-x8", "-s8", "-k1M", "-q", "--file-allocation=none", "-o", "fetched"];
            from_nginx(wan, place, "aria2c", &options)
        }),
    ]
}

/// Starts a daemon at the far end. Its URL.
fn daemon(wan: &mut Wan, place: &Place<'_>) -> anyhow::Result<(Server, String)> {
    let data = fresh(place.folder, "data")?;
    let mut command = wan.command_in_b(programs::path("bigupd"));
    command.arg("--data-dir").arg(&data).args(["--listen", &format!("{ADDRESS_B}:0"), "--allow-anonymous", "yes"]);
    let mut server = Server(command.env("BIGUP_LOG", "error").process_group(0).stdout(Stdio::piped()).spawn()?);
    let mut line = String::new();
    BufReader::new(server.0.stdout.take().context("it was asked for")?).read_line(&mut line)?;
    let url = line.trim().rsplit(' ').next().unwrap_or_default().to_owned();
    Ok((server, url))
}

fn push(wan: &mut Wan, place: &Place<'_>) -> anyhow::Result<Option<(f64, String)>> {
    let (_server, url) = daemon(wan, place)?;
    let mut client = wan.command_in_a(programs::path("bigup-cli"));
    client.arg("push").arg(place.file).args(["--json", "--url", &url]).args(place.arguments);
    let ran = bounded(&mut client, place.folder)?;
    let stored = || {
        let events = ran.output.lines().rev().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        events.filter_map(|event| event["bytes_stored"].as_u64()).next().unwrap_or(0)
    };
    let bytes = if ran.finished { place.size } else { stored() };
    Ok(Some(rate(bytes, &ran)))
}

fn get(wan: &mut Wan, place: &Place<'_>) -> anyhow::Result<Option<(f64, String)>> {
    let (_server, url) = daemon(wan, place)?;
    // From the server's own machine, so that only the way back is long.
    let mut push = wan.command_in_b(programs::path("bigup-cli"));
    push.arg("push").arg(place.file).args(["--quiet", "--name", "file", "--url", &url]);
    anyhow::ensure!(push.status()?.success(), "nothing was stored to be fetched");
    let mut client = wan.command_in_a(programs::path("bigup-cli"));
    client.args(["get", "file", "--quiet", "--url", &url, "--to", "fetched"]);
    fetched(client, place).map(Some)
}

fn curl(wan: &mut Wan, place: &Place<'_>) -> anyhow::Result<Option<(f64, String)>> {
    let Some((_server, data)) = nginx(wan, place)?.filter(|_| is_installed("curl")) else { return Ok(None) };
    let mut curl = wan.command_in_a("curl");
    curl.args(["--silent", "--show-error", "--fail", "-T"])
        .arg(place.file)
        .arg(format!("http://{ADDRESS_B}:8080/file"));
    let ran = bounded(&mut curl, place.folder)?;
    let bytes = if ran.finished { place.size } else { bytes_below(&data) };
    Ok(Some(rate(bytes, &ran)))
}

/// The file fetched by a program with these options.
fn from_nginx(
    wan: &mut Wan,
    place: &Place<'_>,
    program: &str,
    options: &[&str],
) -> anyhow::Result<Option<(f64, String)>> {
    let Some((_server, data)) = nginx(wan, place)?.filter(|_| is_installed(program)) else { return Ok(None) };
    std::fs::copy(place.file, data.join("files/file"))?;
    let mut client = wan.command_in_a(program);
    client.args(options).arg(format!("http://{ADDRESS_B}:8080/file"));
    fetched(client, place).map(Some)
}

/// Lets a command fetch the file to `fetched` in its working folder.
fn fetched(mut command: Command, place: &Place<'_>) -> anyhow::Result<(f64, String)> {
    let folder = fresh(place.folder, "fetched")?;
    let ran = bounded(command.current_dir(&folder), place.folder)?;
    anyhow::ensure!(!ran.finished || data::same(place.file, &folder.join("fetched")), "other bytes were fetched");
    let bytes = if ran.finished { place.size } else { allocated_below(&folder) };
    Ok(rate(bytes, &ran))
}

/// Starts nginx at the far end. Its folder, whose `files` it takes and serves. `None`: it is not installed.
fn nginx(wan: &mut Wan, place: &Place<'_>) -> anyhow::Result<Option<(Server, PathBuf)>> {
    if !is_installed("nginx") {
        return Ok(None);
    }
    let data = fresh(place.folder, "nginx")?;
    let settings = format!(
        "daemon off; user root; pid {0}/pid; error_log {0}/log; events {{}} http {{ access_log off; sendfile on; \
         client_body_temp_path {0}/temporary; client_max_body_size 0; \
         server {{ listen {ADDRESS_B}:8080; root {0}/files; location / {{ dav_methods PUT; }} }} }}",
        data.display()
    );
    fresh(&data, "files")?;
    std::fs::write(data.join("settings"), settings)?;
    let mut nginx = wan.command_in_b("nginx");
    nginx.arg("-p").arg(&data).arg("-c").arg(data.join("settings")).stderr(Stdio::null());
    Ok(Some((serving(wan, &mut nginx, 8080)?, data)))
}

fn rsync(wan: &mut Wan, place: &Place<'_>) -> anyhow::Result<Option<(f64, String)>> {
    if !is_installed("rsync") {
        return Ok(None);
    }
    let data = fresh(place.folder, "rsync")?;
    let files = fresh(&data, "files")?;
    let settings = format!("[files]\npath = {}\nread only = no\nuse chroot = no\nuid = root\n", files.display());
    std::fs::write(data.join("settings"), settings)?;
    let mut daemon = wan.command_in_b("rsync");
    daemon.args(["--daemon", "--no-detach", "--port=8730", "--config"]).arg(data.join("settings"));
    let _server = serving(wan, &mut daemon, 8730)?;
    let mut client = wan.command_in_a("rsync");
    client.args(["--inplace", "--whole-file"]).arg(place.file).arg(format!("rsync://{ADDRESS_B}:8730/files/"));
    let ran = bounded(&mut client, place.folder)?;
    let bytes = if ran.finished { place.size } else { bytes_below(&files) };
    Ok(Some(rate(bytes, &ran)))
}

fn iperf(wan: &mut Wan, streams: u32) -> anyhow::Result<Option<(f64, String)>> {
    if !is_installed("iperf3") {
        return Ok(None);
    }
    let mut daemon = wan.command_in_b("iperf3");
    daemon.args(["--server", "--bind", ADDRESS_B]).stdout(Stdio::null()).stderr(Stdio::null());
    let _server = serving(wan, &mut daemon, 5201)?;
    let mut client = wan.command_in_a("iperf3");
    client.args(["--json", "--time", IPERF_SECS, "--parallel", &streams.to_string(), "--client", ADDRESS_B]);
    let output = client.output()?;
    let said: Value = serde_json::from_slice(&output.stdout)?;
    let rate = said["end"]["sum_received"]["bits_per_second"].as_f64().context("iperf3 tells no rate")?;
    Ok(Some((rate / 1e6, format!("{IPERF_SECS} s"))))
}

/// Starts a server at the far end and waits until it listens.
fn serving(wan: &Wan, command: &mut Command, port: u16) -> anyhow::Result<Server> {
    let server = Server(command.stdin(Stdio::null()).process_group(0).spawn()?);
    let address: SocketAddr = format!("{ADDRESS_B}:{port}").parse()?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let listening = wan.command_in_b("ss").args(["-Hltn"]).output()?.stdout;
        if String::from_utf8_lossy(&listening).contains(&format!(":{port} ")) {
            return Ok(server);
        }
        anyhow::ensure!(Instant::now() < deadline, "{command:?} does not listen at {address}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // nginx and bigupd end what they started; neither has long to do.
        signal(self.0.id(), Signal::SIGTERM);
        let deadline = Instant::now() + Duration::from_secs(15);
        while Instant::now() < deadline && matches!(self.0.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(10));
        }
        kill_9(&mut self.0);
        // What it started and left, like rsync's receivers, whose senders are never heard of again. It may be gone.
        let _ = killpg(Pid::from_raw(self.0.id().cast_signed()), Signal::SIGKILL);
    }
}

/// Runs a command to its end, or ends it.
fn bounded(command: &mut Command, folder: &Path) -> anyhow::Result<Ran> {
    let path = folder.join("output");
    let began = Instant::now();
    let mut child = command.stdin(Stdio::null()).stdout(File::create(&path)?).spawn()?;
    let ended = loop {
        match child.try_wait()? {
            None if began.elapsed() < LIMIT => std::thread::sleep(Duration::from_millis(5)),
            ended => break ended,
        }
    };
    let seconds = began.elapsed().as_secs_f64();
    kill_9(&mut child);
    anyhow::ensure!(ended.is_none_or(|ended| ended.success()), "{command:?} failed");
    Ok(Ran { seconds, output: std::fs::read_to_string(&path)?, finished: ended.is_some() })
}

fn rate(bytes: u64, ran: &Ran) -> (f64, String) {
    let note = match ran.finished {
        true => format!("{:.1} s", ran.seconds),
        false => format!("stopped after {:.0} s, {} had arrived", ran.seconds, show_size(bytes)),
    };
    (bytes as f64 * 8.0 / 1e6 / ran.seconds, note)
}

/// An empty folder.
fn fresh(folder: &Path, name: &str) -> anyhow::Result<PathBuf> {
    let path = folder.join(name);
    if path.exists() {
        std::fs::remove_dir_all(&path)?;
    }
    std::fs::create_dir(&path)?;
    Ok(path)
}

/// Bytes of all files below a folder.
fn bytes_below(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let of = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(found) if found.is_dir() => bytes_below(&entry.path()),
        Ok(found) => found.len(),
        // It is gone by now.
        Err(_) => 0,
    };
    entries.map(of).sum()
}

/// Bytes that the files in a folder take on the disk: what was fetched so far in any order.
fn allocated_below(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| Some(entry.metadata().ok()?.blocks() * 512)).sum()
}

fn is_installed(program: &str) -> bool {
    let folders = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];
    folders.iter().any(|folder| Path::new(folder).join(program).exists())
}
