//! A soak: 64 clients push files of all sizes at once through a bad network to two daemons on one data folder, while
//! clients, daemons and mergers are killed. No user sees an error, each file is exact, and nothing is left: no spool, no
//! section, no descriptor.
//!
//! `BIGUP_SOAK_SECONDS` sets how long pushes are begun, `BIGUP_SEED` what is drawn.

use bigup_core::protocol::units::show_size;
use bigup_tests::daemon::{Daemon, list};
use bigup_tests::data::{self, Dice};
use bigup_tests::process::{PATIENCE, eventually, kill_9, signal};
use bigup_tests::proxy::Proxy;
use bigup_tests::turns::all_turns;
use bigup_tests::usage::{descriptors, peak_memory};
use bigup_tests::{number, programs};
use nix::sys::signal::Signal;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How long pushes are begun unless told otherwise.
const SECONDS: u64 = 30;

/// Clients at once.
const CLIENTS: u64 = 64;

/// Longest time that one push may take, with all its repetitions. The machine may be slow; nothing may hang.
const LONGEST_PUSH: Duration = Duration::from_secs(600);

const MIB: u64 = 1 << 20;

/// Sizes of files, each as often as it stands here.
const SIZES: [u64; 16] = [
    0,
    1,
    700,
    4096,
    70_001,
    70_001,
    MIB - 1,
    MIB - 1,
    MIB,
    MIB,
    MIB + 1,
    MIB + 1,
    3 * MIB,
    5 * MIB,
    5 * MIB + 7,
    40 * MIB,
];

/// Different contents of each size.
const CONTENTS: u64 = 3;

/// A file to push, and where else it is pushed from at the same time.
struct Source {
    path: PathBuf,
    copy: PathBuf,
    len: u64,
}

/// What happened.
#[derive(Default)]
struct Figures {
    pushes: AtomicU64,
    bytes: AtomicU64,
    clients_killed: AtomicU64,
    daemons_killed: AtomicU64,
    mergers_killed: AtomicU64,
    daemon_peak: AtomicU64,
    merger_peak: AtomicU64,
    over: AtomicBool,
    failed: AtomicBool,
}

impl Figures {
    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }
}

/// Pushes one file after the other until `deadline`.
struct Client<'a> {
    dice: Dice,
    folder: PathBuf,
    url: &'a str,
    finished: &'a Path,
    sources: &'a [Source],
    figures: &'a Figures,
}

impl Client<'_> {
    fn work(mut self, number: u64, deadline: Instant) {
        std::fs::create_dir_all(&self.folder).expect("the folder can be made");
        for round in 0.. {
            if Instant::now() >= deadline || self.figures.failed.load(Ordering::Relaxed) {
                return;
            }
            let name = format!("client{number}/{round}.bin");
            let sources = self.sources;
            let source = &sources[self.dice.below(sources.len() as u64) as usize];
            match self.dice.below(8) {
                0 => std::thread::scope(|scope| {
                    let kills = [self.dice.below(2), 0];
                    let (seeds, this) = ([0, 1].map(|_| self.dice.below(u64::MAX)), &self);
                    for (i, path) in [&source.path, &source.copy].into_iter().enumerate() {
                        let (name, mut dice) = (&name, Dice::new(seeds[i]));
                        scope.spawn(move || this.push(name, path, i, false, kills[i], &mut dice));
                    }
                }),
                1 | 2 => self.push_once(&name, &source.path, true),
                _ => self.push_once(&name, &source.path, false),
            }
            let stored = self.finished.join(&name);
            assert!(data::same(&source.path, &stored), "{name} differs from {}", source.path.display());
            // Emptied for the disk space. Were it removed, a request that comes late, its client long gone, would begin
            // the upload anew.
            File::create(&stored).expect("it is there");
            self.figures.pushes.fetch_add(1, Ordering::Relaxed);
            self.figures.bytes.fetch_add(source.len, Ordering::Relaxed);
        }
    }

    fn push_once(&mut self, name: &str, path: &Path, stdin: bool) {
        let kills = if self.dice.below(4) == 0 { 1 + self.dice.below(3) } else { 0 };
        let mut dice = Dice::new(self.dice.below(u64::MAX));
        self.push(name, path, 0, stdin, kills, &mut dice);
    }

    /// Pushes a file until a client ends well; the first `kills` are killed, if they live long enough.
    fn push(&self, name: &str, path: &Path, which: usize, stdin: bool, kills: u64, dice: &mut Dice) {
        let deadline = Instant::now() + LONGEST_PUSH;
        let printed = self.folder.join(format!("stderr{which}"));
        let slice_size = ["256K", "1M", "1M", "8M", "300000"][dice.below(5) as usize];
        for attempt in 0.. {
            let mut child = self.start(name, path, &printed, stdin, slice_size);
            let kill_at = (attempt < kills).then(|| Instant::now() + Duration::from_millis(dice.below(1500)));
            let status = loop {
                if let Some(status) = child.try_wait().expect("it was started") {
                    break status;
                }
                if kill_at.is_some_and(|at| Instant::now() >= at) {
                    kill_9(&mut child);
                    self.figures.clients_killed.fetch_add(1, Ordering::Relaxed);
                    break child.wait().expect("it was started");
                }
                if Instant::now() > deadline {
                    kill_9(&mut child);
                    panic!("the push of {name} from {} takes too long:\n{}", path.display(), read(&printed));
                }
                std::thread::sleep(Duration::from_millis(5));
            };
            if status.success() {
                return;
            }
            let shown =
                || format!("the push of {name} from {} ended with {status}:\n{}", path.display(), read(&printed));
            assert!(kill_at.is_some() && status.signal() == Some(9), "{}", shown());
        }
    }

    fn start(&self, name: &str, path: &Path, printed: &Path, stdin: bool, slice_size: &str) -> Child {
        let mut command = programs::cli();
        command.args([
            "push",
            "--url",
            self.url,
            "--name",
            name,
            "--senders",
            "2",
            "--slice-size",
            slice_size,
            "--quiet",
        ]);
        if stdin {
            command.arg("-").stdin(File::open(path).expect("it is there"));
        } else {
            command.arg(path).stdin(Stdio::null());
        }
        command.stdout(Stdio::null()).stderr(File::create(printed).expect("the file can be made"));
        command.spawn().expect("the client can be started")
    }
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// Mergers at work in this data folder: those that wrote themselves down in a spool and were started for it.
fn mergers(data: &Path) -> Vec<u32> {
    let locks = list(&data.join("tmp")).into_iter().map(|spool| data.join("tmp").join(spool).join("merger.lock"));
    let pids = locks.filter_map(|lock| read(&lock).trim().parse().ok());
    let is_ours = |pid: &u32| {
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let mut arguments = command.split(|byte| *byte == 0);
        let program = arguments.next().unwrap_or_default();
        program.ends_with(b"bigup-merger") && arguments.any(|a| a == data.as_os_str().as_encoded_bytes())
    };
    pids.filter(is_ours).collect()
}

/// Kills a daemon or a merger now and then until all is over; daemons are started again.
fn make_trouble(daemons: &mut [Daemon; 2], mut dice: Dice, figures: &Figures) {
    let data = daemons[0].data();
    while !figures.is_over() {
        std::thread::sleep(Duration::from_millis(dice.below(700)));
        if dice.below(4) == 0 {
            let daemon = &mut daemons[dice.below(2) as usize];
            note_peak(&figures.daemon_peak, daemon.pid());
            daemon.kill_9();
            std::thread::sleep(Duration::from_millis(dice.below(500)));
            daemon.run();
            figures.daemons_killed.fetch_add(1, Ordering::Relaxed);
        } else if let mergers @ [_, ..] = &mergers(&data)[..] {
            let pid = mergers[dice.below(mergers.len() as u64) as usize];
            note_peak(&figures.merger_peak, pid);
            signal(pid, Signal::SIGKILL);
            figures.mergers_killed.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn note_peak(peak: &AtomicU64, pid: u32) {
    peak.fetch_max(peak_memory(pid).unwrap_or(0), Ordering::Relaxed);
}

/// Says that something failed when it is dropped by a panic, so that others do not go on for nothing.
struct Alarm<'a>(&'a Figures);

impl Drop for Alarm<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.failed.store(true, Ordering::Relaxed);
        }
    }
}

/// Requests that the daemons noted.
fn requests(log: &Path) -> usize {
    let lines = BufReader::new(File::open(log).expect("there is a log")).lines().map_while(Result::ok);
    lines.filter(|line| line.contains("] GET ") || line.contains("] POST ")).count()
}

#[test]
fn sixty_four_clients_on_a_bad_network_with_kills_see_no_error_and_lose_nothing() {
    let _turns = all_turns();
    let (seed, seconds) = (number("BIGUP_SEED", 1), number("BIGUP_SOAK_SECONDS", SECONDS));
    println!("seed {seed}, {seconds} s");
    // A push from standard input that was killed is gone on with as soon as it has been silent for a moment.
    let first = Daemon::with(&["--takeover-after", "3s", "--merger-idle", "2s", "--reserve", "0"]);
    let second = first.another();
    let mut daemons = [first, second];
    let (data, scratch) = (daemons[0].data(), daemons[0].scratch());
    let sources: Vec<Source> = (0..CONTENTS)
        .flat_map(|content| SIZES.into_iter().enumerate().map(move |(i, len)| (content * 100 + i as u64, len)))
        .map(|(id, len)| Source {
            path: data::file(&scratch, &format!("source{id}"), id, len),
            copy: data::file(&scratch, &format!("copy{id}"), id, len),
            len,
        })
        .collect();
    let proxy = Proxy::start(&[daemons[0].url(), daemons[1].url()], seed);
    let finished = data.join("files");
    let figures = Figures::default();
    let began = Instant::now();
    let deadline = began + Duration::from_secs(seconds);
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| {
                let client_of = Client {
                    dice: Dice::new(seed.wrapping_mul(1000).wrapping_add(client)),
                    folder: scratch.join(format!("client{client}")),
                    url: proxy.url(),
                    finished: &finished,
                    sources: &sources,
                    figures: &figures,
                };
                let figures = &figures;
                scope.spawn(move || {
                    let _alarm = Alarm(figures);
                    client_of.work(client, deadline);
                })
            })
            .collect();
        let trouble = scope.spawn(|| make_trouble(&mut daemons, Dice::new(seed), &figures));
        scope.spawn(|| {
            while !figures.is_over() {
                mergers(&data).into_iter().for_each(|pid| note_peak(&figures.merger_peak, pid));
                std::thread::sleep(Duration::from_millis(100));
            }
        });
        let ended: Vec<_> = clients.into_iter().map(|client| client.join()).collect();
        figures.over.store(true, Ordering::Relaxed);
        trouble.join().expect("daemons start again");
        assert!(ended.iter().all(Result::is_ok), "a push went wrong, seed {seed}");
    });
    let took = began.elapsed();

    let spools = || list(&data.join("tmp")).into_iter().filter(|name| !name.starts_with('.')).collect::<Vec<_>>();
    eventually_or("all uploads are gone", || spools().is_empty(), || format!("{:?}", spools()));
    eventually("info.ini has no section", || !daemons[0].info_ini().contains('['));
    eventually("mergers leave", || mergers(&data).is_empty());
    let is_full = |path: &PathBuf| std::fs::metadata(path).is_ok_and(|found| found.len() > 0);
    let later: Vec<PathBuf> = files_below(&finished).into_iter().filter(is_full).collect();
    assert!(later.is_empty(), "stored again after they were found finished: {later:?}");
    // What a daemon that was never used has open.
    let fresh = daemons[0].another();
    for daemon in &daemons {
        note_peak(&figures.daemon_peak, daemon.pid());
        let open = || descriptors(daemon.pid()).expect("it runs");
        let reference = || descriptors(fresh.pid()).expect("it runs").len();
        eventually_or("descriptors are closed", || open().len() <= reference(), || format!("{:#?}", open()));
    }
    let get = |figure: &AtomicU64| figure.load(Ordering::Relaxed);
    println!(
        "soak: {:.0} s, {} pushes, {} stored, {} requests; killed: {} clients, {} daemons, {} mergers; {} connections cut; \
         errors seen by users 0, files wrong 0; peak memory: daemon {}, merger {}; descriptors at the end as at the start",
        took.as_secs_f64(),
        get(&figures.pushes),
        show_size(get(&figures.bytes)),
        requests(&scratch.with_file_name("log")),
        get(&figures.clients_killed),
        get(&figures.daemons_killed),
        get(&figures.mergers_killed),
        proxy.cuts(),
        show_size(get(&figures.daemon_peak)),
        show_size(get(&figures.merger_peak)),
    );
}

/// All files below a folder.
fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = vec![];
    for name in list(folder) {
        let path = folder.join(name);
        if path.is_dir() { found.extend(files_below(&path)) } else { found.push(path) }
    }
    found
}

/// Waits until `condition` holds; `shown` tells what is instead.
fn eventually_or(what: &str, condition: impl Fn() -> bool, shown: impl Fn() -> String) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain: {what}\n{}", shown());
        std::thread::sleep(Duration::from_millis(20));
    }
}
