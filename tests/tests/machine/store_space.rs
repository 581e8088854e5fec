//! Files that are larger than the disk of the data folder, on their way into a store of objects (SeaweedFS). Needs root,
//! and the programs of e2fsprogs, xfsprogs and btrfs-progs.

use bigup_tests::data::Dice;
use bigup_tests::mount::Mount;
use bigup_tests::needs_root;
use bigup_tests::process::eventually;
use bigup_tests::seaweed::{Disturb, Passing};
use bigup_tests::stored::Setup;
use std::path::Path;
use std::process::Child;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

const MIB: u64 = 1 << 20;

/// The daemon's disk.
const DISK: u64 = 160 * MIB;

/// A file that fits on no such disk.
const LARGE: u64 = 512 * MIB + 12_345;

struct SmallDisk {
    setup: Setup,
    _mount: Mount,
}

impl SmallDisk {
    fn new(size: u64, arguments: &[&str]) -> SmallDisk {
        SmallDisk::formatted(&["mkfs.ext4", "-q", "-m", "0"], size, arguments)
    }

    fn formatted(mkfs: &[&str], size: u64, arguments: &[&str]) -> SmallDisk {
        let mount = Mount::new(mkfs, size);
        let setup = Setup::on(&mount.path().join("data"), &[&["--reserve", "8M"], arguments].concat());
        SmallDisk { setup, _mount: mount }
    }

    fn begin(&self, file: &Path, name: &str) -> Child {
        self.setup.push(&[file.to_str().unwrap(), "--name", name]).spawn().expect("the client can be started")
    }

    /// Waits until parts of an upload are in the store only.
    fn eventually_gives_back(&self, name: &str) {
        eventually("space is given back", || {
            let (len, on_disk) = self.setup.merged(name);
            len >= on_disk + 48 * MIB
        });
    }
}

fn succeeds(mut pushing: Child) {
    let ended = pushing.wait().unwrap();
    assert!(ended.success(), "{ended}");
}

#[test]
fn a_file_of_four_times_the_disk_goes_through() {
    needs_root!("to mount file systems");
    let disk = SmallDisk::new(256 * MIB, &[]);
    let file = disk.setup.file(1, 1 << 30);
    disk.setup.pushed(&file, &["--name", "f"]);
    disk.setup.is_exact_and_alone("f", &file);
}

/// There slices and the merged file share blocks.
fn goes_through_where_blocks_are_shared(mkfs: &[&str]) {
    let disk = SmallDisk::formatted(mkfs, 384 * MIB, &[]);
    let file = disk.setup.file(7, 1 << 30);
    disk.setup.pushed(&file, &["--name", "f"]);
    disk.setup.is_exact_and_alone("f", &file);
}

#[test]
fn a_file_of_more_than_the_disk_goes_through_on_xfs() {
    needs_root!("to mount file systems");
    goes_through_where_blocks_are_shared(&["mkfs.xfs", "-q", "-m", "reflink=1"]);
}

#[test]
fn a_file_of_more_than_the_disk_goes_through_on_btrfs() {
    needs_root!("to mount file systems");
    goes_through_where_blocks_are_shared(&["mkfs.btrfs", "-q"]);
}

#[test]
fn kills_of_mergers_and_daemons_lose_nothing_of_a_file_larger_than_the_disk() {
    needs_root!("to mount file systems");
    let mut disk = SmallDisk::new(DISK, &[]);
    let file = disk.setup.file(2, LARGE);
    let mut pushing = disk.begin(&file, "f");
    let (mut dice, kill) = (Dice::new(7), disk.setup.killer("f"));
    let mut kills = 0;
    while pushing.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_millis(300 + dice.below(3000)));
        kill();
        kills += 1;
        if dice.below(5) == 0 {
            disk.setup.daemon.kill_9();
            disk.setup.daemon.run();
        }
    }
    succeeds(pushing);
    assert!(kills > 3, "only {kills} kills");
    disk.setup.is_exact_and_alone("f", &file);
    assert!(!disk.setup.daemon.log().contains("are asked for again"), "something was lost");
}

#[test]
fn parts_that_the_store_loses_are_asked_for_again_and_nothing_else_is_published() {
    needs_root!("to mount file systems");
    let disk = SmallDisk::new(DISK, &[]);
    let file = disk.setup.file(3, LARGE);
    let pushing = disk.begin(&file, "f");
    disk.eventually_gives_back("f");
    disk.setup.abort("f");
    eventually("it is told", || disk.setup.daemon.log().contains("the store has lost parts that it had taken"));
    succeeds(pushing);
    disk.setup.is_exact_and_alone("f", &file);
}

#[test]
fn a_full_disk_waits_for_a_store_that_is_away() {
    needs_root!("to mount file systems");
    let disk = SmallDisk::new(DISK, &[]);
    let file = disk.setup.file(4, LARGE);
    let is_away = Arc::new(AtomicBool::new(false));
    let (away, parts) = (Arc::clone(&is_away), AtomicU64::new(0));
    disk.setup.proxy.disturb(move |passing: &Passing| {
        if passing.is_part() && parts.fetch_add(1, Ordering::SeqCst) == 4 {
            away.store(true, Ordering::SeqCst);
        }
        if passing.is_of_merger() && away.load(Ordering::SeqCst) {
            Disturb::Answer(503, "SlowDown")
        } else {
            Disturb::Not
        }
    });
    let mut pushing = disk.begin(&file, "f");
    eventually("the store is away", || is_away.load(Ordering::SeqCst));
    eventually("the disk is full", || disk.setup.merged("f").1 > DISK / 2);
    // The client is told to come back, for longer than a merger that has nothing to do stays.
    std::thread::sleep(Duration::from_secs(12));
    assert_eq!(pushing.try_wait().unwrap(), None, "the client gave up");
    disk.setup.proxy.disturb(|_| Disturb::Not);
    succeeds(pushing);
    disk.setup.is_exact_and_alone("f", &file);
}

#[test]
fn another_source_that_takes_over_a_file_larger_than_the_disk_sends_all_of_it() {
    needs_root!("to mount file systems");
    let disk = SmallDisk::new(DISK, &["--takeover-after", "1s"]);
    let (one, other) = (disk.setup.file(5, LARGE), disk.setup.file(6, LARGE));
    let mut pushing = disk.begin(&one, "f");
    disk.eventually_gives_back("f");
    pushing.kill().unwrap();
    pushing.wait().unwrap();
    disk.setup.pushed(&other, &["--name", "f"]);
    disk.setup.is_exact_and_alone("f", &other);
}
