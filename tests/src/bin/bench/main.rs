//! Measures bigup beside others that move files, and what its requests and connections cost. It judges nothing: machines are
//! shared and noisy, so only figures of one run are to be compared, and of those the medians.
//!
//! Each mode is a file of its own with a function that yields a [`Report`]; its tables are printed, and with `--docs` put
//! into a document. `bench --help` lists the modes. `tests/bench` installs the peers first. A new mode is a file, a variant of
//! [`Mode`] with its key, which is also a place in [`KEYS`], and a line in the lists of what `all` runs.

mod busy;
mod chart;
mod clients;
mod device;
mod document;
mod download;
mod file;
mod finish;
mod floor;
mod get;
mod idle;
mod machine;
mod measure;
mod page;
mod peers;
mod reflink;
mod rest;
mod resume;
mod s3;
mod scale;
mod server;
mod small;
mod start;
mod sync;
mod table;
mod uploads;
mod wan;
mod watch;

use anyhow::Context;
use bigup_core::protocol::units::parse_size;
use bigup_tests::data;
use clap::{Args, Parser, Subcommand};
use std::path::{Path, PathBuf};
use table::Table;

/// Sections of the document, in order.
const KEYS: [&str; 26] = [
    "file 64 MiB",
    "file 1 GiB",
    "file 1 GiB busy",
    "file 8 GiB",
    "tls",
    "small",
    "small busy",
    "sync",
    "watch",
    "rest",
    "clients",
    "clients busy",
    "wan",
    "resume",
    "finish",
    "get",
    "download",
    "page",
    "floor",
    "reflink",
    "device",
    "uploads",
    "idle",
    "start",
    "s3",
    "scale",
];

/// Measures bigup beside others that move files.
#[derive(Parser)]
#[command(name = "bench")]
struct Cli {
    #[command(subcommand)]
    mode: Mode,
    #[command(flatten)]
    options: Options,
}

/// What all modes take.
#[derive(Args)]
struct Options {
    /// Peers beside bigup: of cp, bigup-http, bigup-tus, nginx, dufs, rsync, scp, rclone, tus, rustus, page, page-put, copyparty, uppy, s5cmd, aws [default: all that the mode knows]
    #[arg(long, global = true, value_delimiter = ',', value_name = "PEER,…")]
    peers: Option<Vec<String>>,
    /// Folder on the disk that is to be measured [default: target/, where this program lies]
    #[arg(long, global = true, value_name = "FOLDER", env = "BENCH_DIR")]
    dir: Option<PathBuf>,
    /// Keep each processor busy meanwhile, by a loop for each
    #[arg(long, global = true)]
    busy: bool,
    /// Document whose sections of these modes are replaced; its chart lies beside it [default of `all`: docs/benchmarks.md]
    #[arg(long, global = true, value_name = "FILE")]
    docs: Option<PathBuf>,
}

/// The modes.
#[derive(Clone, Subcommand)]
enum Mode {
    /// One file, all peers
    File {
        /// Its size
        #[arg(default_value = "1G", value_parser = parse_size)]
        size: u64,
        /// Rounds
        #[arg(default_value_t = 5)]
        rounds: usize,
    },
    /// One file over TLS
    Tls {
        /// Its size
        #[arg(default_value = "1G", value_parser = parse_size)]
        size: u64,
        /// Rounds
        #[arg(default_value_t = 5)]
        rounds: usize,
    },
    /// A folder of many files of 4 KiB
    Small {
        /// How many
        #[arg(default_value_t = 2000)]
        files: usize,
        /// Rounds
        #[arg(default_value_t = 5)]
        rounds: usize,
    },
    /// A second sync of a folder of files of 4 KiB in which nothing changed
    Sync {
        /// How many
        #[arg(default_value_t = 100_000)]
        files: usize,
        /// Rounds
        #[arg(default_value_t = 3)]
        rounds: usize,
    },
    /// Files that appear in a watched folder
    Watch {
        /// How many
        #[arg(default_value_t = 10_000)]
        files: usize,
        /// Size of each
        #[arg(default_value = "1M", value_parser = parse_size)]
        size: u64,
        /// Rounds
        #[arg(default_value_t = 1)]
        rounds: usize,
    },
    /// A watch of files of 4 KiB at rest
    Rest {
        /// How many
        #[arg(default_value_t = 100_000)]
        files: usize,
    },
    /// 64 files by 16 clients at once
    Clients {
        /// Size of each
        #[arg(default_value = "32M", value_parser = parse_size)]
        size: u64,
        /// Rounds
        #[arg(default_value_t = 3)]
        rounds: usize,
    },
    /// Going on after a client was killed at half of a file
    Resume {
        /// Its size
        #[arg(default_value = "8G", value_parser = parse_size)]
        size: u64,
        /// Rounds
        #[arg(default_value_t = 1)]
        rounds: usize,
    },
    /// From the last slice stored to the file being finished
    Finish {
        /// Rounds for each size
        #[arg(default_value_t = 3)]
        rounds: usize,
        /// Sizes of the file
        #[arg(default_values = ["64M", "1G", "8G"], value_parser = parse_size)]
        sizes: Vec<u64>,
    },
    /// Fetching a finished file into a folder
    Get {
        /// Size of the file
        #[arg(default_value = "1G", value_parser = parse_size)]
        size: u64,
        /// Rounds
        #[arg(default_value_t = 5)]
        rounds: usize,
    },
    /// Reading a finished file, by one client and by many slow ones
    Download {
        /// Size of the file
        #[arg(default_value = "1G", value_parser = parse_size)]
        size: u64,
        /// Rounds
        #[arg(default_value_t = 5)]
        rounds: usize,
        /// Slow readers
        #[arg(default_value_t = 1000)]
        readers: usize,
    },
    /// One file by pages in Chromium
    Page {
        /// Its size
        #[arg(default_value = "1G", value_parser = parse_size)]
        size: u64,
        /// Rounds
        #[arg(default_value_t = 5)]
        rounds: usize,
    },
    /// What the parts of the work cost by themselves
    Floor {
        /// Size of the file
        #[arg(default_value = "1G", value_parser = parse_size)]
        size: u64,
        /// Rounds
        #[arg(default_value_t = 5)]
        rounds: usize,
    },
    /// The merger's work where the file system shares blocks (XFS; needs root)
    Reflink {
        /// Size of the file
        #[arg(default_value = "1G", value_parser = parse_size)]
        size: u64,
        /// Rounds
        #[arg(default_value_t = 3)]
        rounds: usize,
    },
    /// Bytes written to the device for each byte of a file (ext4; needs root)
    Device {
        /// Rounds for each size
        #[arg(default_value_t = 1)]
        rounds: usize,
        /// Sizes of the file
        #[arg(default_values = ["1G", "4G"], value_parser = parse_size)]
        sizes: Vec<u64>,
    },
    /// A long link that loses packets, in network namespaces (needs root)
    Wan {
        /// Size of the file
        #[arg(default_value = "512M", value_parser = parse_size)]
        size: u64,
        /// Further arguments of the push
        #[arg(last = true)]
        push: Vec<String>,
    },
    /// Requests to a daemon with one unfinished upload and to one with many
    Uploads {
        /// How many
        #[arg(default_value_t = 1000)]
        count: usize,
    },
    /// Memory that idle connections take
    Idle {
        /// How many
        #[arg(default_value_t = 10_000)]
        count: usize,
    },
    /// Time that programs take to start
    Start {
        /// Rounds
        #[arg(default_value_t = 30)]
        rounds: usize,
    },
    /// Files into a store of objects, beside clients of the store
    S3 {
        /// Size of one file
        #[arg(default_value = "1G", value_parser = parse_size)]
        size: u64,
        /// Size of each of 64 files
        #[arg(default_value = "32M", value_parser = parse_size)]
        each: u64,
        /// Rounds
        #[arg(default_value_t = 3)]
        rounds: usize,
    },
    /// Several daemons on slow links behind a balancer, with one store of objects (needs root)
    Scale {
        /// Size of each file
        #[arg(default_value = "64M", value_parser = parse_size)]
        size: u64,
        /// Files for each daemon
        #[arg(default_value_t = 4)]
        files: usize,
        /// Numbers of daemons
        #[arg(default_values_t = [1, 2, 4])]
        daemons: Vec<usize>,
        /// Rate of each link, in Mbit/s
        #[arg(long, default_value_t = 200)]
        mbit: u32,
    },
    /// All of these, into the document
    All {
        /// With less of everything
        #[arg(long)]
        quick: bool,
    },
}

/// What a mode found.
struct Report {
    /// What was measured.
    title: String,
    /// How; Markdown.
    text: String,
    /// Programs that took part.
    versions: Vec<String>,
    /// The figures.
    tables: Vec<Table>,
}

impl Report {
    /// Says that so many loops kept processors busy.
    fn name_as_busy(&mut self, loops: usize) {
        self.title += ", on busy processors";
        self.text =
            format!("{loops} loops that never rest share the processors with all that is measured. {}", self.text);
        self.tables.iter_mut().for_each(|table| table.title += ", on busy processors");
    }
}

/// What a mode has to work with.
struct Bench<'a> {
    /// Empty at the beginning, on the disk that is to be measured.
    folder: &'a Path,
    peers: Option<&'a [String]>,
}

impl Bench<'_> {
    /// Starts bigup and, of these, the peers that were asked for.
    fn start(&self, groups: &[&'static str]) -> peers::Peers {
        let asked = |group: &str| {
            ["bigup", "bigup-sync", "bigup-tls", "page"].contains(&group)
                || self.peers.is_none_or(|peers| peers.iter().any(|p| p == group))
        };
        let groups: Vec<&str> = groups.iter().copied().filter(|group| asked(group)).collect();
        peers::Peers::start(self.folder, &groups)
    }

    /// A file to be sent.
    fn source(&self, name: &str, size: u64) -> PathBuf {
        data::file(&self.folder.join("source"), name, 1, size)
    }
}

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|first| first == measure::MEASURE_CHILD) {
        std::process::exit(measure::measure_child(arguments)?);
    }
    let Cli { mode, mut options } = Cli::parse();
    let known = [&peers::GROUPS[..], &peers::OVER_TLS, &peers::PAGES, &peers::OF_STORE].concat();
    if let Some(unknown) = options.peers.iter().flatten().find(|peer| !known.contains(&&peer[..])) {
        anyhow::bail!("there is no peer {unknown}; there are {}", known.join(", "));
    }
    let Mode::All { quick } = mode else { return mode.run(&options) };
    options.docs.get_or_insert_with(|| "docs/benchmarks.md".into());
    let mut failed = 0;
    for mode in if quick { quick_modes() } else { all_modes() } {
        // What cannot be measured here is told, and the others go on.
        if let Err(error) = mode.run(&options) {
            eprintln!("{}: {error:#}", mode.key());
            failed += 1;
        }
    }
    anyhow::ensure!(failed == 0, "{failed} modes could not be run");
    Ok(())
}

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

fn all_modes() -> Vec<Mode> {
    vec![
        Mode::File { size: 64 * MIB, rounds: 5 },
        Mode::File { size: GIB, rounds: 5 },
        Mode::File { size: 8 * GIB, rounds: 2 },
        Mode::Tls { size: GIB, rounds: 5 },
        Mode::Small { files: 2000, rounds: 5 },
        Mode::Sync { files: 100_000, rounds: 3 },
        Mode::Watch { files: 10_000, size: MIB, rounds: 1 },
        Mode::Rest { files: 100_000 },
        Mode::Clients { size: 32 * MIB, rounds: 3 },
        Mode::Wan { size: 512 * MIB, push: vec![] },
        Mode::Resume { size: 8 * GIB, rounds: 1 },
        Mode::Finish { rounds: 1, sizes: vec![64 * MIB, GIB, 8 * GIB] },
        Mode::Get { size: GIB, rounds: 5 },
        Mode::Download { size: GIB, rounds: 5, readers: 1000 },
        Mode::Page { size: GIB, rounds: 5 },
        Mode::Floor { size: GIB, rounds: 5 },
        Mode::Reflink { size: GIB, rounds: 3 },
        Mode::Device { rounds: 1, sizes: vec![GIB, 4 * GIB] },
        Mode::Uploads { count: 1000 },
        Mode::Idle { count: 10_000 },
        Mode::Start { rounds: 30 },
        Mode::S3 { size: GIB, each: 32 * MIB, rounds: 3 },
        Mode::Scale { size: 64 * MIB, files: 4, daemons: vec![1, 2, 4], mbit: 200 },
    ]
}

fn quick_modes() -> Vec<Mode> {
    vec![
        Mode::File { size: 64 * MIB, rounds: 3 },
        Mode::File { size: GIB, rounds: 1 },
        Mode::Tls { size: 256 * MIB, rounds: 1 },
        Mode::Small { files: 500, rounds: 2 },
        Mode::Sync { files: 2000, rounds: 2 },
        Mode::Watch { files: 500, size: MIB, rounds: 1 },
        Mode::Rest { files: 2000 },
        Mode::Clients { size: 4 * MIB, rounds: 2 },
        Mode::Wan { size: 128 * MIB, push: vec![] },
        Mode::Resume { size: GIB, rounds: 1 },
        Mode::Finish { rounds: 2, sizes: vec![64 * MIB, GIB] },
        Mode::Get { size: 256 * MIB, rounds: 1 },
        Mode::Download { size: 256 * MIB, rounds: 1, readers: 100 },
        Mode::Page { size: 256 * MIB, rounds: 1 },
        Mode::Floor { size: 256 * MIB, rounds: 1 },
        Mode::Reflink { size: 256 * MIB, rounds: 1 },
        Mode::Device { rounds: 1, sizes: vec![256 * MIB] },
        Mode::Uploads { count: 100 },
        Mode::Idle { count: 1000 },
        Mode::Start { rounds: 5 },
        Mode::S3 { size: 256 * MIB, each: 4 * MIB, rounds: 1 },
        Mode::Scale { size: 16 * MIB, files: 2, daemons: vec![1, 2, 4], mbit: 200 },
    ]
}

impl Mode {
    /// The section that it writes.
    fn key(&self) -> String {
        match self {
            Mode::File { size, .. } => format!("file {}", table::size_name(*size)),
            Mode::Tls { .. } => "tls".to_owned(),
            Mode::Small { .. } => "small".to_owned(),
            Mode::Sync { .. } => "sync".to_owned(),
            Mode::Watch { .. } => "watch".to_owned(),
            Mode::Rest { .. } => "rest".to_owned(),
            Mode::Clients { .. } => "clients".to_owned(),
            Mode::Wan { .. } => "wan".to_owned(),
            Mode::Resume { .. } => "resume".to_owned(),
            Mode::Finish { .. } => "finish".to_owned(),
            Mode::Get { .. } => "get".to_owned(),
            Mode::Download { .. } => "download".to_owned(),
            Mode::Page { .. } => "page".to_owned(),
            Mode::Floor { .. } => "floor".to_owned(),
            Mode::Reflink { .. } => "reflink".to_owned(),
            Mode::Device { .. } => "device".to_owned(),
            Mode::Uploads { .. } => "uploads".to_owned(),
            Mode::Idle { .. } => "idle".to_owned(),
            Mode::Start { .. } => "start".to_owned(),
            Mode::S3 { .. } => "s3".to_owned(),
            Mode::Scale { .. } => "scale".to_owned(),
            Mode::All { .. } => "all".to_owned(),
        }
    }

    /// Runs one mode: prints its tables and puts them into the document, if there is to be one.
    fn run(&self, options: &Options) -> anyhow::Result<()> {
        let temporary = match &options.dir {
            Some(folder) => tempfile::tempdir_in(folder).with_context(|| folder.display().to_string())?,
            None => tempfile::tempdir_in(std::env::current_exe()?.parent().context("a program is in a folder")?)?,
        };
        let machine = machine::describe(temporary.path());
        println!("== {} in {}", self.key(), temporary.path().display());
        let loops = options.busy.then(busy::Loops::start).transpose()?;
        let mut report = self.measure(&Bench { folder: temporary.path(), peers: options.peers.as_deref() })?;
        let key = match &loops {
            Some(loops) => {
                report.name_as_busy(loops.number());
                format!("{} busy", self.key())
            }
            None => self.key(),
        };
        drop(loops);
        println!("{}\n{machine}\n", report.title);
        report.tables.iter().for_each(|table| println!("{}", table.plain()));
        let Some(path) = &options.docs else { return Ok(()) };
        let Report { title, text, versions, tables } = report;
        let peers = if versions.is_empty() { String::new() } else { format!(" Peers: {}.", versions.join(", ")) };
        let section = document::Section { key, title, text, machine: format!("{machine}{peers}"), tables };
        document::update(path, &section, &KEYS)
    }

    fn measure(&self, bench: &Bench<'_>) -> anyhow::Result<Report> {
        match self {
            Mode::File { size, rounds } => file::run(bench, *size, *rounds),
            Mode::Tls { size, rounds } => file::run_over_tls(bench, *size, *rounds),
            Mode::Small { files, rounds } => small::run(bench, *files, *rounds),
            Mode::Sync { files, rounds } => sync::run(bench, *files, *rounds),
            Mode::Watch { files, size, rounds } => watch::run(bench, *files, *size, *rounds),
            Mode::Rest { files } => rest::run(bench, *files),
            Mode::Clients { size, rounds } => clients::run(bench, *size, *rounds),
            Mode::Wan { size, push } => wan::run(bench, *size, push),
            Mode::Resume { size, rounds } => resume::run(bench, *size, *rounds),
            Mode::Finish { rounds, sizes } => finish::run(bench, *rounds, sizes),
            Mode::Get { size, rounds } => get::run(bench, *size, *rounds),
            Mode::Download { size, rounds, readers } => download::run(bench, *size, *rounds, *readers),
            Mode::Page { size, rounds } => page::run(bench, *size, *rounds),
            Mode::Floor { size, rounds } => floor::run(bench, *size, *rounds),
            Mode::Reflink { size, rounds } => reflink::run(bench, *size, *rounds),
            Mode::Device { rounds, sizes } => device::run(bench, *rounds, sizes),
            Mode::Uploads { count } => uploads::run(bench, *count),
            Mode::Idle { count } => idle::run(bench, *count),
            Mode::Start { rounds } => start::run(bench, *rounds),
            Mode::S3 { size, each, rounds } => s3::run(bench, *size, *each, *rounds),
            Mode::Scale { size, files, daemons, mbit } => scale::run(bench, *size, *files, daemons, *mbit),
            Mode::All { .. } => anyhow::bail!("it consists of the others"),
        }
    }
}
