//! Bytes that reach the block device for each byte of a file. A slice that is merged and unlinked before the system writes
//! it back is written once, else twice.

use crate::measure::{clear, cost, read_once};
use crate::peers::Peers;
use crate::table::{Table, median, seconds, size_name};
use crate::{Bench, Report};
use anyhow::{Context, ensure};
use bigup_core::protocol::units::show_size;
use bigup_tests::mount::Mount;
use std::fs::File;
use std::path::Path;
use std::process::Command;

/// Bytes of a sector in the block layer's statistics, whatever the device has.
const SECTOR: u64 = 512;

/// Nothing of the file system itself is left to be written later.
const MKFS: [&str; 4] = ["mkfs.ext4", "-q", "-E", "lazy_itable_init=0,lazy_journal_init=0"];

/// Runs it.
pub fn run(bench: &Bench<'_>, rounds: usize, sizes: &[u64]) -> anyhow::Result<Report> {
    ensure!(nix::unistd::geteuid().is_root(), "mounting a file system needs root");
    let most = sizes.iter().copied().max().unwrap_or(0);
    let mount = Mount::new_in(bench.folder, &MKFS, 3 * most + (2 << 30));
    let peers = Peers::start(&mount.path(), &["cp", "bigup"]);
    let device = device_of(&mount.path())?;
    let mut table = Table::new("Bytes written to the device", "", &["file", "peer", "and synced", "written", "a byte"]);
    for size in sizes {
        let source = bench.source("source", *size);
        for peer in &peers.all {
            let (mut walls, mut written) = (vec![], vec![]);
            for _ in 0..rounds {
                read_once(std::slice::from_ref(&source))?;
                sync(&mount.path())?;
                let before = bytes_written(&device)?;
                walls.push(cost(&peer.servers(), &peer.stored, &[peer.send(&source, "file")], 1)?.synced);
                sync(&mount.path())?;
                written.push((bytes_written(&device)? - before) as f64);
                clear(&peer.stored)?;
            }
            let (wall, written) = (median(walls), median(written));
            let each = format!("{:.3}", written / *size as f64);
            table.row([size_name(*size), peer.name.to_owned(), seconds(wall), show_size(written as u64), each]);
        }
        std::fs::remove_file(source)?;
    }
    Ok(Report {
        title: "Written to the device".to_owned(),
        text: format!(
            "On ext4 in an image file, as its loop device counts it until all is synced, with journal and metadata; \
             {rounds} rounds."
        ),
        versions: vec![],
        tables: vec![table],
    })
}

fn sync(folder: &Path) -> anyhow::Result<()> {
    Ok(nix::unistd::syncfs(File::open(folder)?)?)
}

/// The name of the device that a file system is on.
fn device_of(mount: &Path) -> anyhow::Result<String> {
    let output = Command::new("findmnt").args(["-n", "-o", "SOURCE", "-T"]).arg(mount).output()?;
    let path = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    path.strip_prefix("/dev/").map(ToOwned::to_owned).with_context(|| format!("{path:?} is no device"))
}

fn bytes_written(device: &str) -> anyhow::Result<u64> {
    let text = std::fs::read_to_string(format!("/sys/block/{device}/stat"))?;
    // Reads, merged, sectors, time; writes, merged, sectors, …
    let sectors = text.split_whitespace().nth(6).and_then(|field| field.parse::<u64>().ok());
    Ok(sectors.context("the device counts no sectors")? * SECTOR)
}
