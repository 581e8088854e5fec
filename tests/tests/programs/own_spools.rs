//! Several daemons, each with a data folder of its own, whose finished files go to one store of objects (SeaweedFS), behind a
//! balancer with the configurations of docs/several-daemons.md that sends the requests of a file to one daemon.

use bigup_core::protocol::name::FileName;
use bigup_core::storage::objects::Objects;
use bigup_tests::certificates::Authority;
use bigup_tests::daemon::Daemon;
use bigup_tests::gateway::{Gateway, changed, documented};
use bigup_tests::process::{eventually, eventually_equal, signal_program};
use bigup_tests::programs::{self, done};
use bigup_tests::seaweed::{shared, write_credentials};
use bigup_tests::tus::Tus;
use bigup_tests::{data, docs};
use nix::sys::signal::Signal;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const MIB: u64 = 1 << 20;

/// Bytes of a slice.
const SLICE: u64 = MIB;

/// Bytes of a file that takes some seconds at [`RATE`].
const LARGE: u64 = 96 * MIB + 17;

/// A push that can be disturbed in its middle.
const RATE: [&str; 2] = ["--limit-rate", "16M"];

/// Time in which the balancer notices a daemon that drains: five looks, one each second.
const NOTICED: Duration = Duration::from_secs(8);

fn block(name: &str) -> String {
    docs::block("docs/several-daemons.md", &format!("tests/tests/programs/own_spools.rs: {name}"))
}

/// Two daemons with one store.
struct Pair {
    daemons: [Daemon; 2],
    objects: Objects,
    folder: tempfile::TempDir,
}

impl Pair {
    fn start(arguments: &[&str]) -> Pair {
        Pair::started_by(arguments, |all| [Daemon::with(all), Daemon::with(all)])
    }

    /// Both have the same data folder.
    fn on_one_folder() -> Pair {
        Pair::started_by(&[], |all| {
            let one = Daemon::with(all);
            let two = one.another();
            [one, two]
        })
    }

    fn started_by(arguments: &[&str], start: impl FnOnce(&[&str]) -> [Daemon; 2]) -> Pair {
        static BUCKETS: AtomicU64 = AtomicU64::new(0);
        let (store, folder) = (shared(), tempfile::tempdir().unwrap());
        let bucket = format!("own{}", BUCKETS.fetch_add(1, Ordering::Relaxed));
        store.make_bucket(&bucket);
        let credentials = folder.path().join("credentials");
        write_credentials(&credentials, true);
        let options = [
            format!("--store=s3://{bucket}/p"),
            format!("--s3-endpoint={}", store.endpoint()),
            format!("--s3-credentials-file={}", credentials.display()),
            "--trusted-proxies=127.0.0.1".to_owned(),
            "--reserve=0".to_owned(),
            "--merger-idle=2s".to_owned(),
        ];
        let all: Vec<&str> = options.iter().map(String::as_str).chain(arguments.iter().copied()).collect();
        let objects = store.objects(&bucket, &credentials);
        let daemons = start(&all);
        Pair { daemons, objects, folder }
    }

    fn urls(&self) -> [&str; 2] {
        [self.daemons[0].url(), self.daemons[1].url()]
    }

    fn haproxy(&self) -> Gateway {
        self.haproxy_that_looks(5)
    }

    /// HAProxy that takes a daemon out after so many looks in vain, one each second.
    fn haproxy_that_looks(&self, times: u32) -> Gateway {
        let whole = docs::block("docs/several-daemons.md", "tests/tests/machine/shared_spool.rs: haproxy");
        let (common, _) = whole.split_once("\nbackend bigupd").unwrap();
        let backend = changed(&block("haproxy"), "fall 5", &format!("fall {times}"));
        Gateway::haproxy(&[common, "\n", &backend].concat(), self.urls())
    }

    fn nginx(&self) -> Gateway {
        let one = changed(&documented("nginx"), "proxy_next_upstream off;", "proxy_next_upstream error;");
        let (_, site) = one.split_once("\nserver {").unwrap();
        let (before, rest) = site.split_once("    location /files {").unwrap();
        let (_, after) = rest.split_once("\n    }").unwrap();
        let whole = [&block("nginx"), "\nserver {", before, &block("nginx files"), after].concat();
        let certificate = Authority::new(self.folder.path(), "authority").issue("server", &["127.0.0.1"]);
        Gateway::nginx_before_two(&whole, self.urls(), &certificate)
    }

    fn file(&self, name: &str, seed: u64, len: u64) -> PathBuf {
        data::file(self.folder.path(), name, seed, len)
    }

    /// The daemon that has an unfinished upload of this name with more than so many slices.
    fn holder(&self, name: &str, more_than: usize) -> usize {
        let held = |daemon: &Daemon| daemon.server().get(&format!("file_name={name}&peek=1")).held().len();
        let mut holder = None;
        eventually("a daemon holds some of it", || {
            holder = self.daemons.iter().position(|daemon| held(daemon) > more_than);
            holder.is_some()
        });
        holder.unwrap()
    }

    /// Kills a daemon and its mergers.
    fn kill(&mut self, daemon: usize) {
        let daemon = &mut self.daemons[daemon];
        daemon.kill_9();
        let locks = daemon.spools().into_iter().map(|spool| daemon.data().join("tmp").join(spool).join("merger.lock"));
        let pids = locks.filter_map(|lock| std::fs::read_to_string(lock).ok()?.trim().parse().ok());
        for pid in pids {
            // It may have ended by itself.
            signal_program(pid, "bigup-merger", Signal::SIGKILL);
        }
    }

    /// The object is this file, as any daemon reads it.
    fn is_exact(&self, name: &str, file: &Path) {
        let found = self.objects.find(&FileName::new(name).unwrap()).unwrap().expect("the object is there");
        assert_eq!(found.facts.expect("they are noted").digest.to_string(), data::digest(file));
        let url = self.daemons.iter().map(Daemon::url).find(|url| std::net::TcpStream::connect(&url[7..]).is_ok());
        assert!(content(url.expect("a daemon runs"), name) == std::fs::read(file).unwrap(), "{name} is not exact");
    }

    /// Nothing is left of any upload: no spool, no upload of parts, no note that no object needs.
    fn is_clean(&self, notes: usize) {
        self.daemons.iter().for_each(Daemon::eventually_clean);
        assert_eq!(self.objects.unfinished().unwrap(), Vec::<String>::new(), "uploads of parts are left");
        assert_eq!(self.objects.notes().unwrap().len(), notes, "notes");
    }
}

fn content(url: &str, name: &str) -> Vec<u8> {
    let output = Command::new("curl")
        .args(["-sSf", "--max-time", "60"])
        .arg(format!("{url}/content/{}", name.replace(' ', "%20")))
        .output();
    let output = output.expect("curl can be started");
    assert!(output.status.success(), "{output:?}");
    output.stdout
}

fn push(url: &str, file: &Path, arguments: &[&str]) -> Child {
    programs::begin_push(url, file, SLICE, arguments)
}

#[test]
fn a_push_begins_anew_elsewhere_when_its_daemon_dies_and_the_left_over_ends_as_finished() {
    let mut pair = Pair::start(&[]);
    let haproxy = pair.haproxy();
    let file = pair.file("big file", 1, LARGE);
    let name = "sub/big file";
    let pushing = push(&haproxy.url, &file, &[&RATE[..], &["--name", name]].concat());
    let holder = pair.holder("sub%2Fbig%20file", 24);
    pair.kill(holder);
    let done_elsewhere = done(pushing);
    assert_eq!(done_elsewhere["file_digest"], data::digest(&file));
    pair.is_exact(name, &file);
    // It is back. The same push finds the object of the other daemon, and the left-over goes.
    pair.daemons[holder].run();
    assert_eq!(pair.daemons[holder].spools().len(), 1, "the left-over is there");
    let again = done(push(pair.daemons[holder].url(), &file, &["--name", name]));
    assert_eq!((&again["file_digest"], &again["bytes_sent"]), (&data::digest(&file).into(), &0.into()), "{again}");
    assert!(pair.daemons[holder].spools().is_empty());
    pair.is_exact(name, &file);
    pair.is_clean(1);
}

#[test]
fn a_left_over_of_another_file_goes_on_whatever_was_finished_elsewhere() {
    let pair = Pair::start(&[]);
    let [one, two] = [(1, LARGE), (2, LARGE)].map(|(seed, len)| pair.file(&format!("c{seed}"), seed, len));
    let mut pushing = push(pair.daemons[0].url(), &one, &[&RATE[..], &["--name", "f"]].concat());
    let holder = pair.holder("f", 24);
    assert_eq!(holder, 0);
    pushing.kill().unwrap();
    pushing.wait().unwrap();
    assert_eq!(done(push(pair.daemons[1].url(), &two, &["--name", "f"]))["file_digest"], data::digest(&two));
    let held = pair.daemons[0].server().get("file_name=f&peek=1").held().len() as u64;
    let replaced = done(push(pair.daemons[0].url(), &one, &["--name", "f", "--replace"]));
    let most = LARGE - held * SLICE;
    assert!(replaced["bytes_sent"].as_u64().unwrap() <= most, "at most {most} bytes were missing: {replaced}");
    pair.is_exact("f", &one);
    pair.is_clean(1);
}

#[test]
fn two_daemons_on_one_folder_with_one_store_take_the_slices_of_a_file() {
    let mut pair = Pair::on_one_folder();
    let files: Vec<PathBuf> = (0..3).map(|i| pair.file(&format!("o{i}"), 40 + i, LARGE / 2 + i)).collect();
    // Each request goes to the other one than the one before.
    let haproxy = Gateway::haproxy(
        &docs::block("docs/several-daemons.md", "tests/tests/machine/shared_spool.rs: haproxy"),
        pair.urls(),
    );
    let pushes: Vec<Child> = files.iter().map(|file| push(&haproxy.url, file, &["--limit-rate", "8M"])).collect();
    for round in 0..4 {
        std::thread::sleep(Duration::from_millis(1500));
        pair.kill(round % 2);
        pair.daemons[round % 2].run();
    }
    for (file, pushing) in files.iter().zip(pushes) {
        assert_eq!(done(pushing)["file_digest"], data::digest(file));
        pair.is_exact(file.file_name().unwrap().to_str().unwrap(), file);
    }
    pair.is_clean(files.len());
}

#[test]
fn behind_nginx_a_push_begins_anew_elsewhere_and_the_left_over_expires() {
    let mut pair = Pair::start(&["--expire-after", "20s", "--begin-expire-after", "20s"]);
    let nginx = pair.nginx();
    let file = pair.file("big", 2, LARGE);
    let pushing = push(&nginx.plain, &file, &RATE);
    let holder = pair.holder("big", 24);
    pair.kill(holder);
    assert_eq!(done(pushing)["file_digest"], data::digest(&file));
    pair.is_exact("big", &file);
    pair.daemons[holder].run();
    pair.is_exact("big", &file);
    pair.is_clean(1);
}

#[test]
fn a_push_survives_that_its_daemon_dies_and_comes_back_again_and_again() {
    let mut pair = Pair::start(&[]);
    let nginx = pair.nginx();
    let files: Vec<PathBuf> = (0..3).map(|i| pair.file(&format!("f{i}"), i, LARGE + i)).collect();
    let pushes: Vec<Child> = files.iter().map(|file| push(&nginx.plain, file, &["--limit-rate", "8M"])).collect();
    for round in 0..6 {
        std::thread::sleep(Duration::from_millis(1500));
        pair.daemons[round % 2].kill_9();
        std::thread::sleep(Duration::from_millis(500));
        pair.daemons[round % 2].run();
    }
    for (file, pushing) in files.iter().zip(pushes) {
        assert_eq!(done(pushing)["file_digest"], data::digest(file));
        let name = file.file_name().unwrap().to_str().unwrap();
        pair.is_exact(name, file);
        // Both know it now: nothing of it is left at the daemon that did not finish it.
        for url in pair.urls() {
            assert_eq!(done(push(url, file, &[]))["file_digest"], data::digest(file));
        }
    }
    pair.is_clean(files.len());
}

#[test]
fn of_two_files_that_two_daemons_complete_under_one_name_one_is_the_object_and_the_other_is_told() {
    let pair = Pair::start(&[]);
    let [one, two] = [(7, 30 * MIB), (8, 30 * MIB + 5)].map(|(seed, len)| pair.file(&format!("c{seed}"), seed, len));
    let mut ended_at_once = 0;
    for round in 0..6 {
        let name = format!("n{round}");
        let files = [&one, &two];
        let pushes = [0, 1].map(|i| push(pair.daemons[i].url(), files[i], &["--name", &name]));
        let outputs = pushes.map(|push| push.wait_with_output().unwrap());
        let well: Vec<usize> = (0..2).filter(|i| outputs[*i].status.success()).collect();
        assert_eq!(well.len(), 1, "one of them is the file: {outputs:?}");
        let told = String::from_utf8_lossy(&outputs[1 - well[0]].stdout).into_owned();
        assert!(told.contains("--replace"), "{told}");
        pair.is_exact(&name, files[well[0]]);
        // A push that was refused before it sent anything has no upload.
        let loser = &pair.daemons[1 - well[0]];
        ended_at_once += loser.spools().len();
        let mut cancel = programs::cli();
        cancel.args(["cancel", "--url", loser.url(), &name]);
        let _ = cancel.output().unwrap();
    }
    assert!(ended_at_once > 0, "the two never came together");
    pair.is_clean(6);
}

#[test]
fn daemons_are_restarted_one_after_the_other_under_pushes_that_show_no_error() {
    let mut pair = Pair::start(&["--drain-time", "0s"]);
    let haproxy = pair.haproxy();
    let files: Vec<PathBuf> = (0..4).map(|i| pair.file(&format!("r{i}"), 20 + i, LARGE + i)).collect();
    let pushes: Vec<Child> = files.iter().map(|file| push(&haproxy.url, file, &["--limit-rate", "2M"])).collect();
    pair.holder("r0", 2);
    for i in 0..2 {
        let mut drain = Command::new(programs::path("bigupd"));
        let pid = pair.daemons[i].pid().to_string();
        let output = drain.arg("drain").arg(pid).arg("--data-dir").arg(pair.daemons[i].data()).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        std::thread::sleep(NOTICED);
        pair.daemons[i].stop();
        pair.daemons[i].run();
        // The balancer takes it back after two looks.
        std::thread::sleep(Duration::from_secs(4));
    }
    for (file, pushing) in files.iter().zip(pushes) {
        let output = pushing.wait_with_output().unwrap();
        let shown = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && !shown.contains("\"event\":\"retry\""), "{shown}");
        pair.is_exact(file.file_name().unwrap().to_str().unwrap(), file);
    }
}

#[test]
fn a_short_restart_moves_no_upload() {
    let mut pair = Pair::start(&[]);
    // However slow this machine is, the restart is short.
    let haproxy = pair.haproxy_that_looks(120);
    let file = pair.file("f", 3, LARGE);
    let pushing = push(&haproxy.url, &file, &RATE);
    let holder = pair.holder("f", 24);
    pair.daemons[holder].stop();
    pair.daemons[holder].run();
    let done = done(pushing);
    assert_eq!(done["file_digest"], data::digest(&file));
    let again = done["bytes_sent"].as_u64().unwrap() - LARGE;
    assert!(again <= 64 * SLICE, "{again} bytes were sent twice");
    assert!(pair.daemons[1 - holder].spools().is_empty());
    pair.is_exact("f", &file);
    pair.is_clean(1);
}

#[test]
fn the_address_of_a_tus_upload_leads_to_its_daemon_and_parts_are_joined_there() {
    let pair = Pair::start(&[]);
    for (balancer, gateway) in [("haproxy", pair.haproxy()), ("nginx", pair.nginx())] {
        let tus = Tus::new(&gateway.plain);
        let file = pair.file("t", 4, 4 * MIB + 3);
        let all = std::fs::read(&file).unwrap();
        let half = all.len() / 2;
        for i in 0..4 {
            let name = format!("{balancer}{i}");
            let at = tus.create(&name, all.len() as u64);
            let (_, daemon) = at.split_once("?at=").unwrap_or_else(|| panic!("{at} names no daemon"));
            let holder = ["one", "two"].iter().position(|one| *one == daemon).unwrap();
            let other = &pair.daemons[1 - holder];
            assert!(pair.daemons[holder].spools().contains(&name) && !other.spools().contains(&name), "{at}");
            tus.patch(&at, 0, &all[..half]).expect(204);
            assert_eq!(tus.offset(&at), half as u64);
            // At a daemon that has no such upload.
            let elsewhere = at.replace(&format!("at={daemon}"), if holder == 0 { "at=two" } else { "at=one" });
            assert_eq!(tus.head(&elsewhere).status, 404);
            tus.patch(&at, half as u64, &all[half..]).expect(204);
            eventually_equal("it is the object", &true, || {
                pair.objects.find(&FileName::new(&name).unwrap()).unwrap().is_some()
            });
            pair.is_exact(&name, &file);
        }
        let parts = [(0, half), (half, all.len())].map(|(from, to)| {
            let at = tus.create_partial((to - from) as u64);
            tus.patch(&at, 0, &all[from..to]).expect(204);
            at
        });
        let name = format!("{balancer}-joined");
        tus.join(&name, &parts).expect(201);
        eventually("it is the object", || pair.objects.find(&FileName::new(&name).unwrap()).unwrap().is_some());
        pair.is_exact(&name, &file);
    }
    pair.is_clean(0);
}
