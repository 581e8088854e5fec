//! Several daemons on one data folder that two machines have mounted, behind a balancer with the configurations of
//! docs/several-daemons.md: any daemon takes any slice, and any of them dies.
//!
//! The file system is GlusterFS with two mounts. The second daemon sees another boot of the kernel, as on another
//! machine. Needs root.

use bigup_tests::certificates::Authority;
use bigup_tests::daemon::Daemon;
use bigup_tests::data::{self, Dice};
use bigup_tests::gateway::{Gateway, changed, documented};
use bigup_tests::gluster::Gluster;
use bigup_tests::powercut::another_boot;
use bigup_tests::process::{eventually, signal_program};
use bigup_tests::programs::{self, done};
use bigup_tests::{docs, needs_root};
use nix::sys::signal::Signal;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const MIB: u64 = 1 << 20;

/// Options of the mounts, as the document has them.
const OPTIONS: &str = "attribute-timeout=0,entry-timeout=0,negative-timeout=0";

/// Arguments of both daemons. Their balancer is on this machine, and the volume is small.
const ARGUMENTS: [&str; 4] = ["--trusted-proxies", "127.0.0.1", "--reserve", "0"];

/// Bytes of a slice.
const SLICE: u64 = 4 * MIB;

fn block(name: &str) -> String {
    docs::block("docs/several-daemons.md", &format!("tests/tests/machine/shared_spool.rs: {name}"))
}

/// Two daemons on one data folder, each on its own machine.
struct Pair {
    daemons: [Daemon; 2],
    scratch: tempfile::TempDir,
    gluster: Gluster,
}

impl Pair {
    fn start() -> Pair {
        let (gluster, scratch) = (Gluster::start(OPTIONS), tempfile::tempdir().unwrap());
        let [here, there] = gluster.mounts().map(|mount| mount.join("data"));
        fs::create_dir(&here).unwrap();
        let one = Daemon::with_data(&here, &ARGUMENTS);
        let two = Daemon::launched(another_boot(scratch.path()), &there, &ARGUMENTS);
        Pair { daemons: [one, two], scratch, gluster }
    }

    fn urls(&self) -> [&str; 2] {
        [self.daemons[0].url(), self.daemons[1].url()]
    }

    fn haproxy(&self) -> Gateway {
        Gateway::haproxy(&block("haproxy"), self.urls())
    }

    /// Mergers at work, each with its upload's merged file open: its process id, and that file.
    fn mergers(&self) -> Vec<(u32, PathBuf)> {
        let pids =
            fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        pids.filter_map(|pid: u32| Some((pid, self.merged_of(pid)?))).collect()
    }

    fn merged_of(&self, pid: u32) -> Option<PathBuf> {
        if fs::read_to_string(format!("/proc/{pid}/comm")).ok()?.trim_end() != "bigup-merger" {
            return None;
        }
        let open =
            fs::read_dir(format!("/proc/{pid}/fd")).ok()?.flatten().filter_map(|fd| fs::read_link(fd.path()).ok());
        let mut merged = open.filter_map(|path| {
            let below =
                self.gluster.mounts().iter().find_map(|mount| path.strip_prefix(mount).ok().map(Path::to_owned))?;
            below.ends_with("merged").then_some(below)
        });
        merged.next()
    }

    fn kill_a_merger(&self) -> bool {
        self.mergers().first().is_some_and(|(pid, _)| signal_program(*pid, "bigup-merger", Signal::SIGKILL))
    }
}

fn push(url: &str, file: &Path, arguments: &[&str]) -> Child {
    programs::begin_push(url, file, SLICE, arguments)
}

/// Runs `work`, and looks all the time that no upload has two mergers at once.
fn with_one_merger_at_a_time(pair: &Pair, work: impl FnOnce()) {
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let looker = scope.spawn(|| {
            let mut looks = 0;
            while !ended.load(Ordering::Relaxed) {
                let mut merged: Vec<_> = pair.mergers().into_iter().map(|(_, merged)| merged).collect();
                merged.sort();
                let before = merged.len();
                merged.dedup();
                assert_eq!(merged.len(), before, "two mergers have {merged:?} open");
                looks += 1;
                std::thread::sleep(Duration::from_millis(2));
            }
            looks
        });
        work();
        ended.store(true, Ordering::Relaxed);
        assert!(looker.join().unwrap() > 0);
    });
}

#[test]
fn a_push_that_a_balancer_spreads_survives_the_death_of_a_daemon_and_its_merger() {
    needs_root!("to mount a file system of two machines");
    let mut pair = Pair::start();
    let haproxy = pair.haproxy();
    let file = data::file(pair.scratch.path(), "big", 1, 256 * MIB);
    let pushing = push(&haproxy.url, &file, &[]);
    let held = |daemon: &Daemon| daemon.server().get("file_name=big&peek=1").held().len();
    eventually("a part of it is held", || held(&pair.daemons[1]) > 12);
    pair.kill_a_merger();
    pair.daemons[0].kill_9();
    let done = done(pushing);
    assert!(data::same(&file, &pair.daemons[1].finished("big")));
    assert_eq!(done["file_digest"], data::digest(&file));
    // Requests that were in flight at the dead daemon, by at most 64 senders, may have come before their responses.
    let again = done["bytes_sent"].as_u64().unwrap() - 256 * MIB;
    assert!(again <= 64 * SLICE, "{again} bytes were sent twice");
    pair.daemons[1].eventually_clean();
}

#[test]
fn kills_at_random_on_two_machines_never_make_two_mergers_of_one_upload() {
    needs_root!("to mount a file system of two machines");
    let mut pair = Pair::start();
    let configuration = changed(&documented("nginx"), "proxy_next_upstream off;", "proxy_next_upstream error;");
    let (from, to) = (configuration.find("upstream bigupd").unwrap(), configuration.find("server {").unwrap());
    let upstream = block("nginx").replace("10.0.0.1:8888", "127.0.0.1:8888");
    let configuration = [&configuration[..from], &upstream, "\n", &configuration[to..]].concat();
    let configuration = changed(&configuration, "10.0.0.2:8888", bigup_tests::http::address(pair.daemons[1].url()));
    let authority = Authority::new(pair.scratch.path(), "authority");
    let certificate = authority.issue("server", &["127.0.0.1"]);
    let nginx = Gateway::nginx(&configuration, pair.daemons[0].url(), &certificate);
    let files: Vec<PathBuf> =
        (0..3).map(|i| data::file(pair.scratch.path(), &format!("file-{i}"), i, 96 * MIB + i)).collect();
    let pushes: Vec<Child> = files.iter().map(|file| push(&nginx.plain, file, &["--limit-rate", "12M"])).collect();
    let mut dice = Dice::new(19);
    let url = nginx.plain.clone();
    for _ in 0..30 {
        match dice.below(3) {
            0 => drop(pair.kill_a_merger()),
            end => {
                let daemon = &mut pair.daemons[end as usize - 1];
                daemon.kill_9();
                daemon.run();
            }
        }
        with_one_merger_at_a_time(&pair, || std::thread::sleep(Duration::from_millis(100 + dice.below(400))));
    }
    with_one_merger_at_a_time(&pair, || {
        for (file, pushing) in files.iter().zip(pushes) {
            let name = file.file_name().unwrap().to_str().unwrap();
            assert_eq!(done(pushing)["file_digest"], data::digest(file), "{name} by {url}");
            assert!(data::same(file, &pair.daemons[0].finished(name)));
        }
    });
    pair.daemons[0].eventually_clean();
}

#[test]
fn a_daemon_cancels_an_upload_whose_merger_is_on_another_machine() {
    needs_root!("to mount a file system of two machines");
    let pair = Pair::start();
    let [here, there] = [0, 1].map(|i| pair.daemons[i].server());
    here.get("file_name=f&slice_num=3").expect(200);
    here.post("file_name=f&slice_id=0&slice_size=1024", &[7; 1024]).expect(200);
    eventually("its merger is at work", || !pair.mergers().is_empty());
    // A slice that came to the other machine is merged, although nothing tells the merger of it.
    there.post("file_name=f&slice_id=1&slice_size=1024", &[8; 1024]).expect(200);
    let merged = pair.gluster.mounts()[0].join("data/tmp/f/merged");
    eventually("it is merged", || fs::metadata(&merged).is_ok_and(|found| found.len() == 2048));
    let mut cancel = Command::new(programs::path("bigupd"));
    let output = cancel.args(["cancel", "f", "--data-dir"]).arg(pair.daemons[1].data()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    eventually("the merger has left", || pair.mergers().is_empty());
    pair.daemons[0].eventually_clean();
}
