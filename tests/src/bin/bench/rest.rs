//! What a watch at rest costs: one that has pushed many files, and one that was started again after it.

use crate::measure::files_below;
use crate::peers::bigupd;
use crate::small::make_source;
use crate::table::Table;
use crate::watch::{PATIENCE, Watch};
use crate::{Bench, Report};
use anyhow::ensure;
use bigup_core::protocol::units::show_size;
use bigup_tests::usage::{cpu, memory};
use std::path::Path;
use std::time::{Duration, Instant};

/// How long CPU time is measured.
const REST: Duration = Duration::from_secs(30);

/// Time after the last file, or after a start, until a watch counts as resting.
const UNTIL_REST: Duration = Duration::from_secs(20);

/// Runs it.
pub fn run(bench: &Bench<'_>, count: usize) -> anyhow::Result<Report> {
    let folder = make_source(bench, count);
    let (data, state) = (bench.folder.join("data"), bench.folder.join("state"));
    std::fs::create_dir_all(&data)?;
    let daemon = bigupd(&data, &["--reserve", "0"])?;
    let mut table = Table::new(format!("A watch of {count} files at rest"), "", &["", "CPU of a core", "memory"]);
    for when in ["after it pushed all", "after it was started again"] {
        let watch = Watch::start(&folder, &state, "watched", &daemon.url())?;
        until_stored(&data.join("files/watched"), count)?;
        std::thread::sleep(UNTIL_REST);
        let used = || cpu(watch.pid()).unwrap_or_default().own;
        let before = used();
        std::thread::sleep(REST);
        let share = 100.0 * (used() - before) / REST.as_secs_f64();
        table.row([when.to_owned(), format!("{share:.3} %"), show_size(memory(watch.pid()).unwrap_or(0))]);
    }
    Ok(Report {
        title: "A watched folder at rest".to_owned(),
        text: format!("CPU time of {} s in which nothing happens.", REST.as_secs()),
        versions: vec![],
        tables: vec![table],
    })
}

fn until_stored(folder: &Path, count: usize) -> anyhow::Result<()> {
    let (deadline, stored) = (Instant::now() + PATIENCE, || files_below(folder).map_or(0, |files| files.len()));
    while stored() < count {
        ensure!(Instant::now() < deadline, "{} of {count} files are stored", stored());
        std::thread::sleep(Duration::from_secs(1));
    }
    Ok(())
}
