//! What requests cost beside many unfinished uploads: the same ones are sent in turn to a daemon with one unfinished upload
//! and to one with many.

use crate::peers::bigupd;
use crate::table::{Table, median, times};
use crate::{Bench, Report, server};
use bigup_tests::http::Server;
use bigup_tests::usage::cpu;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Requests of each kind to each daemon.
const ROUNDS: usize = 300;

/// How long CPU time of daemons at rest is measured.
const REST: Duration = Duration::from_secs(20);

/// Bytes of a slice.
const SLICE: usize = 64 << 10;

/// Parameters of all uploads: too many slices to be finished.
const SLICES: &str = "slice_num=100000&slice_size=65536";

/// A daemon with unfinished uploads.
struct Side {
    daemon: server::Server,
    server: Server,
    data: PathBuf,
}

impl Side {
    /// Starts it and begins `count` uploads, each with a slice that waits.
    fn start(data: PathBuf, count: usize) -> anyhow::Result<Side> {
        std::fs::create_dir_all(&data)?;
        let daemon = bigupd(&data, &["--max-uploads", "1000000", "--reserve", "0"])?;
        let server = Server::new(&daemon.url());
        std::thread::scope(|scope| {
            for first in 0..8.min(count) {
                let server = &server;
                scope.spawn(move || {
                    for i in (first..count).step_by(8) {
                        server.get(&format!("file_name=u{i}&{SLICES}")).expect(200);
                        server.post(&slice(&format!("u{i}"), 1), &[7; SLICE]).expect(200);
                    }
                });
            }
        });
        Ok(Side { daemon, server, data })
    }

    fn cpu(&self) -> f64 {
        cpu(self.daemon.pid()).unwrap_or_default().own
    }
}

/// What requests of one kind took, in milliseconds each.
struct Cost {
    wall: f64,
    cpu: f64,
}

type Request = fn(&Server, usize);

/// Removes from a data folder what a request left there.
type Undo = fn(&Path, usize);

const KINDS: [(&str, Request, Undo); 5] = [
    ("status", |server, _| drop(server.get("file_name=u0&peek=1&ranges=1").expect(200)), |_, _| {}),
    (
        "begin, going on",
        |server, _| drop(server.get(&format!("file_name=u0&ranges=1&{SLICES}")).expect(200)),
        |_, _| {},
    ),
    (
        "begin, new",
        |server, i| drop(server.get(&format!("file_name=new{i}&{SLICES}")).expect(200)),
        |data, i| std::fs::remove_dir_all(data.join(format!("tmp/new{i}"))).expect("it was begun"),
    ),
    ("slice", |server, i| drop(server.post(&slice("u0", i + 2), &[7; SLICE]).expect(200)), |_, _| {}),
    (
        "file of one slice",
        |server, i| {
            let query = format!("file_name=f{i}&slice_id=0&slice_size={SLICE}&slice_num=1");
            assert_eq!(server.post(&query, &[7; SLICE]).expect(200).body["is_uploaded"], 1);
        },
        |data, i| std::fs::remove_file(data.join(format!("files/f{i}"))).expect("it was finished"),
    ),
];

fn slice(name: &str, slice_id: usize) -> String {
    format!("file_name={name}&slice_id={slice_id}&slice_size={SLICE}")
}

/// Sends requests to a daemon with one unfinished upload and to one with `count`.
pub fn run(bench: &Bench<'_>, count: usize) -> anyhow::Result<Report> {
    let sides = [Side::start(bench.folder.join("one"), 1)?, Side::start(bench.folder.join("many"), count)?];
    let many = format!("of {count}");
    let header = ["request", "of 1", &many, "ratio", "CPU: of 1", &many, "ratio"];
    let mut table = Table::new("Milliseconds until the answer, and of the daemon's CPU time", "", &header);
    for (name, request, undo) in KINDS {
        let [one, many] = costs(&sides, request, undo);
        let figures = [[one.wall, many.wall], [one.cpu, many.cpu]];
        let cells = figures.map(|[one, many]| [format!("{one:.3}"), format!("{many:.3}"), times(many / one)]);
        table.row([name.to_owned()].into_iter().chain(cells.into_iter().flatten()));
    }
    // What the requests left is put right first.
    std::thread::sleep(Duration::from_secs(5));
    let before = sides.each_ref().map(Side::cpu);
    std::thread::sleep(REST);
    let rest = [0, 1].map(|i| 100.0 * (sides[i].cpu() - before[i]) / REST.as_secs_f64());
    Ok(Report {
        title: "Many unfinished uploads".to_owned(),
        text: format!(
            "The same requests, {ROUNDS} of each kind, sent in turn to a daemon with one unfinished upload and to one with \
             {count}: medians of the time to the answer, means of the daemon's CPU time. At rest they use {:.2} % and \
             {:.2} % of one core.",
            rest[0], rest[1]
        ),
        versions: vec![],
        tables: vec![table],
    })
}

fn costs(sides: &[Side; 2], request: Request, undo: fn(&Path, usize)) -> [Cost; 2] {
    let before = sides.each_ref().map(Side::cpu);
    let mut walls = [vec![], vec![]];
    for i in 0..ROUNDS {
        for (side, walls) in sides.iter().zip(&mut walls) {
            let began = Instant::now();
            request(&side.server, i);
            walls.push(began.elapsed().as_secs_f64() * 1000.0);
            undo(&side.data, i);
        }
    }
    [0, 1].map(|i| Cost {
        wall: median(walls[i].iter().copied()),
        cpu: (sides[i].cpu() - before[i]) * 1000.0 / ROUNDS as f64,
    })
}
