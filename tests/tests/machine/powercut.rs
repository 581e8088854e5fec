//! Power cuts: uploads run on a file system whose power is cut ([`bigup_tests::powercut`]), at random moments and right after
//! a file was finished. In each of the cuts
//! - every file that had been answered `is_uploaded: 1` is in `files/`, exact;
//! - whatever else is in `files/` is exact too;
//! - every upload that had begun is known;
//! - every slice that had been answered 200 is held, and every byte of tus that a 204 told, where `slice_ack` is `synced`;
//! - every file that was told to be finished is told to a hook, too;
//! - all pushes run again complete, exact, and leave nothing behind.
//!
//! `BIGUP_CUTS` sets how many cuts each of the six kinds of run gets, beside half as many right after a small file;
//! `BIGUP_SEED` the files and wanted moments.

use bigup_tests::daemon::{Daemon, list};
use bigup_tests::data::{self, Dice};
use bigup_tests::hooks::{lines, script};
use bigup_tests::http::Server;
use bigup_tests::needs_root;
use bigup_tests::powercut::{Cut, Kind, Machine, another_boot};
use bigup_tests::process::eventually;
use bigup_tests::programs;
use bigup_tests::turns::turn;
use bigup_tests::tus::Tus;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Cuts of each kind of run.
const CUTS: u64 = 4;

/// Longest time between two cuts.
const LONGEST_PAUSE_MS: u64 = 500;

/// Bytes of the file system: disk space for all files of a run twice.
const SPACE: u64 = 4 << 30;

/// Bytes of a slice.
const SLICE_SIZE: u64 = 256 << 10;

/// What clients were told, up to some moment.
#[derive(Clone, Default)]
struct Told {
    /// Files that somebody set out to begin. Whether they were begun is not told yet.
    asked: BTreeSet<String>,
    /// Files that were begun, and how often each was begun anew with other content.
    begun: BTreeMap<String, u64>,
    /// Files answered `is_uploaded: 1`, with their versions.
    finished: BTreeMap<String, u64>,
    /// Slices answered 200.
    slices: BTreeMap<String, BTreeSet<u64>>,
    /// Uploads by tus: the path, and the bytes that a 204 told.
    offsets: BTreeMap<String, (String, u64)>,
    /// Files joined from partial uploads of tus: of each part the path, and the bytes that a 204 told.
    joined: BTreeMap<String, [(String, u64); 2]>,
}

/// Pushers that run until told to stop, and what they were told.
struct Pushers<'a> {
    url: &'a str,
    scratch: &'a Path,
    seed: u64,
    told: Mutex<Told>,
    stop: AtomicBool,
}

/// Seed and length of the content of one version of a file.
fn content_of(seed: u64, name: &str, version: u64) -> (u64, u64) {
    let number: u64 = name.bytes().fold(seed, |sum, b| sum.wrapping_mul(31).wrapping_add(u64::from(b))) + version;
    let mut dice = Dice::new(number);
    let len = match dice.below(4) {
        _ if name.starts_with("small") => dice.below(SLICE_SIZE / 8),
        0 => dice.below(SLICE_SIZE),
        _ => SLICE_SIZE + dice.below(40 * SLICE_SIZE),
    };
    (number, len)
}

impl Pushers<'_> {
    fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn told(&self) -> Told {
        self.told.lock().expect("no pusher panics while it holds this").clone()
    }

    fn tell(&self, note: impl FnOnce(&mut Told)) {
        note(&mut self.told.lock().expect("no pusher panics while it holds this"));
    }

    /// One file after the other by the real client, until told to stop.
    fn by_client(&self, who: &str) {
        for number in 0.. {
            if self.is_over() {
                return;
            }
            self.push_one(who, number);
        }
    }

    /// A file by the real client; of three in a row the second and third replace the one before.
    fn push_one(&self, who: &str, number: u64) {
        let (name, version) = (format!("{who}{}", number / 3 * 3), number % 3);
        let (seed, len) = content_of(self.seed, &name, version);
        let file = data::file(self.scratch, &name, seed, len);
        self.tell(|told| _ = told.begun.insert(name.clone(), version));
        push(self.url, &file);
        self.tell(|told| _ = told.finished.insert(name, version));
    }

    /// One file after the other by tus, in requests of any length, until told to stop.
    fn by_tus(&self, who: &str) {
        let tus = Tus::new(self.url);
        for number in 0.. {
            let name = format!("{who}{number}");
            let (seed, len) = content_of(self.seed, &name, 0);
            let (content, mut dice) = (data::bytes(seed, len as usize), Dice::new(seed));
            let (at, mut offset) = (tus.create(&name, len), 0);
            self.tell(|told| _ = told.offsets.insert(name.clone(), (at.clone(), 0)));
            while offset < len && !self.is_over() {
                let piece = (dice.below(6 * SLICE_SIZE) + 1).min(len - offset);
                tus.patch(&at, offset, &content[offset as usize..(offset + piece) as usize]).expect(204);
                offset += piece;
                self.tell(|told| _ = told.offsets.insert(name.clone(), (at.clone(), offset)));
            }
            if offset < len {
                return;
            }
            self.tell(|told| _ = told.finished.insert(name.clone(), 0));
        }
    }

    /// One file after the other by tus from two parts, which are joined before they have come or then, until told to stop.
    fn by_parts(&self, who: &str) {
        let tus = Tus::new(self.url);
        for number in 0.. {
            let name = format!("{who}{number}");
            let (seed, len) = content_of(self.seed, &name, 0);
            let content = data::bytes(seed, len as usize);
            let (mut dice, pieces) = (Dice::new(seed), halves(&content));
            let mut parts = pieces.map(|piece| (tus.create_partial(piece.len() as u64), 0));
            self.tell(|told| _ = told.joined.insert(name.clone(), parts.clone()));
            if number % 2 == 0 {
                join(&tus, &name, &parts);
            }
            while let Some(part) = (0..2).find(|part| parts[*part].1 < pieces[*part].len() as u64) {
                if self.is_over() {
                    return;
                }
                let other = 1 - part;
                let part = if parts[other].1 < pieces[other].len() as u64 { dice.below(2) as usize } else { part };
                let (at, offset) = parts[part].clone();
                let rest = &pieces[part][offset as usize..];
                let end = (dice.below(6 * SLICE_SIZE) + 1).min(rest.len() as u64);
                tus.patch(&at, offset, &rest[..end as usize]).expect(204);
                parts[part].1 += end;
                self.tell(|told| _ = told.joined.insert(name.clone(), parts.clone()));
            }
            // Joined once more, it is stored once that is answered.
            join(&tus, &name, &parts);
            self.tell(|told| _ = told.finished.insert(name.clone(), 0));
        }
    }

    /// One file after the other slice by slice, in no order, until told to stop.
    fn by_slice(&self, who: &str) {
        let server = Server::new(self.url);
        for number in 0.. {
            let name = format!("{who}{number}");
            let (seed, len) = content_of(self.seed, &name, 0);
            let content = data::bytes(seed, len as usize);
            self.tell(|told| _ = told.asked.insert(name.clone()));
            server.get(&begin(&name, &content)).expect(200);
            self.tell(|told| _ = told.begun.insert(name.clone(), 0));
            let mut slices: Vec<(usize, &[u8])> = content.chunks(SLICE_SIZE as usize).enumerate().collect();
            let mut dice = Dice::new(seed);
            while !slices.is_empty() && !self.is_over() {
                // Mostly near the frontier, as a client sends them.
                let (slice_id, bytes) = slices.remove(dice.below(4.min(slices.len() as u64)) as usize);
                post(&server, &name, slice_id, bytes);
                self.tell(|told| _ = told.slices.entry(name.clone()).or_default().insert(slice_id as u64));
            }
            if !slices.is_empty() {
                return;
            }
            finish(&server, &name, &content);
            self.tell(|told| _ = told.finished.insert(name.clone(), 0));
        }
    }
}

fn halves(content: &[u8]) -> [&[u8]; 2] {
    let (first, second) = content.split_at(content.len() / 2);
    [first, second]
}

fn join(tus: &Tus, name: &str, parts: &[(String, u64); 2]) {
    tus.join(name, &parts.each_ref().map(|(at, _)| at.clone())).expect(201);
}

fn begin(name: &str, content: &[u8]) -> String {
    let slice_num = content.len().div_ceil(SLICE_SIZE as usize);
    format!("file_name={name}&slice_num={slice_num}&slice_size={SLICE_SIZE}&file_size={}&source=p", content.len())
}

fn post(server: &Server, name: &str, slice_id: usize, bytes: &[u8]) {
    server
        .post(&format!("file_name={name}&slice_id={slice_id}&slice_size={}&source=p", bytes.len()), bytes)
        .expect(200);
}

/// Sends what is missing until the file is finished. Slices that lay damaged are asked for as they are found.
fn finish(server: &Server, name: &str, content: &[u8]) {
    eventually("the file is finished", || {
        let answer = server.get(&format!("{}&wait=1", begin(name, content))).expect(200);
        let (held, is_uploaded) = (answer.held(), answer.body["is_uploaded"] == 1);
        for (slice_id, bytes) in content.chunks(SLICE_SIZE as usize).enumerate() {
            if !is_uploaded && !held.contains(&(slice_id as u64)) {
                post(server, name, slice_id, bytes);
            }
        }
        is_uploaded
    });
}

fn push(url: &str, file: &Path) {
    let mut command = programs::cli();
    command.arg("push").arg(file).args(["--url", url, "--slice-size", "256K", "--replace", "--quiet"]);
    let ended = command.status().expect("the client can be started");
    assert!(ended.success(), "the push of {} ended with {ended}", file.display());
}

/// Looks at one cut and finishes what it holds.
fn check(cut: &Cut, seed: u64, told: &Told, slice_ack: &str, scratch: &Path) {
    let mount = cut.mount();
    let data = mount.path().join("data");
    let exact = |name: &str, version: u64| {
        let (seed, len) = content_of(seed, name, version);
        std::fs::read(data.join("files").join(name)).is_ok_and(|found| found == data::bytes(seed, len as usize))
    };
    for (name, version) in &told.finished {
        // A later version may have been finished after the answers were written down.
        assert!((*version..3).any(|later| exact(name, later)), "{name}, version {version}, was finished");
    }
    for name in list(&data.join("files")) {
        assert!((0..3).any(|version| exact(&name, version)), "{name} is in files/ and wrong");
    }
    let boot = tempfile::tempdir().expect("a temporary folder can be made");
    let arguments = ["--slice-ack", slice_ack, "--merger-idle", "1s", "--reserve", "0", "--takeover-after", "100ms"];
    let daemon = Daemon::launched(another_boot(boot.path()), &data, &arguments);
    let server = daemon.server();
    for (name, version) in &told.begun {
        let (content_seed, len) = content_of(seed, name, *version);
        if name.starts_with("slices") && len > SLICE_SIZE {
            let known = server.get(&format!("peek=1&file_name={name}")).expect(200);
            if slice_ack == "synced" && known.body["is_uploaded"] == 0 {
                let query = begin(name, &data::bytes(content_seed, len as usize));
                let slices = told.slices.get(name).cloned().unwrap_or_default();
                // A merger looks first at what the other boot left.
                eventually(&format!("all of {slices:?} of {name} are held"), || {
                    let answer = server.get(&query).expect(200);
                    let held: BTreeSet<u64> = answer.held().into_iter().collect();
                    slices.is_subset(&held)
                });
            }
        }
    }
    let tus = Tus::new(daemon.url());
    for (name, (at, told_offset)) in &told.offsets {
        let (content_seed, len) = content_of(seed, name, 0);
        let content = data::bytes(content_seed, len as usize);
        let reply = tus.head(at);
        if slice_ack == "synced" && *told_offset > 0 || told.finished.contains_key(name) {
            let offset = reply.expect(200).offset().expect("HEAD tells the offset");
            assert!(offset >= *told_offset, "{name}: {offset} of {told_offset} bytes that were told are held");
        }
        match tus.head(at).offset() {
            Some(offset) if offset < len => drop(tus.patch(at, offset, &content[offset as usize..]).expect(204)),
            Some(_) => {}
            // Its record was not synced. It is sent anew.
            None => drop(tus.patch(&tus.create(name, len), 0, &content).expect(204)),
        }
        assert!(exact(name, 0), "{name} differs");
    }
    for (name, parts) in &told.joined {
        let (content_seed, len) = content_of(seed, name, 0);
        let content = data::bytes(content_seed, len as usize);
        // What lay damaged is found by the merger, and is asked for again.
        eventually(&format!("{name} is finished"), || {
            if exact(name, 0) {
                return true;
            }
            for ((at, told_offset), piece) in parts.iter().zip(halves(&content)) {
                let offset = tus.offset(at);
                let is_enough = slice_ack != "synced" || offset >= *told_offset;
                assert!(is_enough, "{name}: {offset} of {told_offset} bytes of a part that were told are held");
                if offset < piece.len() as u64 {
                    tus.patch(at, offset, &piece[offset as usize..]).expect(204);
                }
            }
            matches!(tus.join(name, &parts.each_ref().map(|(at, _)| at.clone())).status, 201 | 409) && exact(name, 0)
        });
    }
    // Of others the client never heard. The next push takes them over.
    for name in daemon.spools().iter().filter(|name| name.starts_with("tus") && !told.offsets.contains_key(*name)) {
        let (content_seed, len) = content_of(seed, name, 0);
        push(daemon.url(), &data::file(scratch, name, content_seed, len));
        assert!(exact(name, 0), "{name} differs");
    }
    let asked = told.asked.iter().filter(|name| !told.begun.contains_key(*name)).map(|name| (name, &0));
    for (name, version) in told.begun.iter().chain(asked) {
        let (content_seed, len) = content_of(seed, name, *version);
        if name.starts_with("slices") {
            finish(&server, name, &data::bytes(content_seed, len as usize));
            assert!(exact(name, *version), "{name} differs");
        } else {
            // The last version; another one may be what the cut holds of.
            push(daemon.url(), &scratch.join(name));
            assert!(data::same(&scratch.join(name), &daemon.finished(name)), "{name} differs");
        }
    }
    // Of parts the client may never have heard.
    let is_untold_part = |name: &str| {
        let is_part = name.len() == 32 && name.bytes().all(|b| b.is_ascii_hexdigit());
        is_part && !told.joined.values().flatten().any(|(at, _)| at.ends_with(name))
    };
    eventually("info.ini has no section", || {
        let text = daemon.info_ini();
        let mut titles = text.lines().filter_map(|line| line.strip_prefix('[')?.strip_suffix(']'));
        titles.all(is_untold_part)
    });
    let mut left = daemon.spools();
    left.retain(|name| !name.starts_with('.') && !is_untold_part(name));
    assert_eq!(left, Vec::<String>::new(), "spools are left");
    assert!(!daemon.log().contains("panicked"));
}

/// Runs pushers on a machine and looks at what cuts of its power leave.
fn survives(kind: Kind, slice_ack: &str) {
    let number = |variable: &str, default| {
        std::env::var(variable).ok().map_or(default, |text| text.parse().expect("it is a number"))
    };
    let (seed, cuts) = (number("BIGUP_SEED", 1), number("BIGUP_CUTS", CUTS));
    println!("{kind:?}, {slice_ack}, seed {seed}, {cuts} cuts");
    let machine = Machine::new(kind, SPACE);
    let scratch = tempfile::tempdir().expect("a temporary folder can be made");
    let data = machine.path().join("data");
    let arguments = ["--slice-ack", slice_ack, "--merger-idle", "1s", "--reserve", "0"];
    let daemon = Daemon::with_data(&data, &arguments);
    let pushers = Pushers {
        url: daemon.url(),
        scratch: scratch.path(),
        seed,
        told: Mutex::default(),
        stop: AtomicBool::new(false),
    };
    let mut dice = Dice::new(seed);
    let mut taken: Vec<(Told, Cut)> = vec![];
    std::thread::scope(|threads| {
        let pushers_run = [
            threads.spawn(|| pushers.by_client("files")),
            threads.spawn(|| pushers.by_client("more")),
            threads.spawn(|| pushers.by_client("small")),
            threads.spawn(|| pushers.by_slice("slices")),
            threads.spawn(|| pushers.by_tus("tus")),
            threads.spawn(|| pushers.by_parts("joined")),
        ];
        let is_told = || {
            let told = pushers.told();
            !told.finished.is_empty() && !told.slices.is_empty() && told.offsets.len() > 1 && told.joined.len() > 1
        };
        // Without a limit of its own: pushers that fail end the test.
        while !is_told() && pushers_run.iter().all(|pusher| !pusher.is_finished()) {
            std::thread::sleep(Duration::from_millis(5));
        }
        for cut in 0..cuts / 2 {
            std::thread::sleep(Duration::from_millis(20 + dice.below(LONGEST_PAUSE_MS)));
            // What was told before the device is copied must be in the copy.
            taken.push((pushers.told(), machine.cut(cut)));
        }
        pushers.stop.store(true, Ordering::Relaxed);
    });
    // Alone, so that nobody else's syncs take this file along.
    for number in 0..cuts - cuts / 2 {
        pushers.push_one("alone", number);
        taken.push((pushers.told(), machine.cut(cuts / 2 + 2 * number)));
        pushers.push_one("smallest", 3 * number);
        taken.push((pushers.told(), machine.cut(cuts / 2 + 2 * number + 1)));
    }
    drop(daemon);
    let (mut files, mut slices) = (0, 0);
    for (told, cut) in &taken {
        check(cut, seed, told, slice_ack, scratch.path());
        files += told.finished.len();
        slices += told.slices.values().map(BTreeSet::len).sum::<usize>();
    }
    println!(
        "{kind:?}, {slice_ack}: {} cuts, {files} finished files and {slices} slices told and looked at",
        taken.len()
    );
}

/// What HEAD tells of a request that was killed survives a power cut.
fn keeps_what_a_killed_daemon_noted(kind: Kind) {
    let machine = Machine::new(kind, SPACE);
    let arguments = ["--slice-ack", "synced", "--reserve", "0", "--merger-idle", "1s"];
    let mut daemon = Daemon::with_data(&machine.path().join("data"), &arguments);
    let (tus, content) = (Tus::new(daemon.url()), data::bytes(1, 20 << 20));
    // Slices are of 8 MiB. One lies in the tail, and one in front of it is held.
    let ats = [("one", 6 << 20), ("several", 20 << 20)].map(|(name, len)| (tus.create(name, len), len));
    let mut streams: Vec<_> = ats.iter().map(|(at, len)| tus.begin_patch(at, 0, *len)).collect();
    streams[1].write_all(&content[..8 << 20]).expect("the daemon takes it");
    // The tail is noted after five seconds.
    for piece in content[8 << 20..12 << 20].chunks(512 << 10) {
        streams[0].write_all(piece).and_then(|()| streams[1].write_all(piece)).expect("the daemon takes it");
        std::thread::sleep(Duration::from_secs(1));
    }
    daemon.kill_9();
    daemon.run();
    let told = ats.clone().map(|(at, _)| tus.offset(&at));
    assert!(told[0] > 0 && told[1] > 8 << 20, "the tails were noted: {told:?}");
    let cut = machine.cut(0);
    drop(daemon);
    let (mount, boot) = (cut.mount(), tempfile::tempdir().expect("a temporary folder can be made"));
    let daemon = Daemon::launched(another_boot(boot.path()), &mount.path().join("data"), &arguments);
    let tus = Tus::new(daemon.url());
    assert_eq!(ats.map(|(at, _)| tus.offset(&at)), told);
}

#[test]
fn ext4_keeps_what_a_killed_daemon_noted() {
    needs_root!("to mount file systems");
    let _turn = turn();
    keeps_what_a_killed_daemon_noted(Kind::Ext4);
}

#[test]
fn xfs_keeps_what_a_killed_daemon_noted() {
    needs_root!("to mount file systems");
    let _turn = turn();
    keeps_what_a_killed_daemon_noted(Kind::Xfs);
}

/// Of every file that was told to be finished, and that no hook has taken note of, one is told after the cut.
fn keeps_notices(kind: Kind) {
    let machine = Machine::new(kind, SPACE);
    let scratch = tempfile::tempdir().expect("a temporary folder can be made");
    let settings = ["--reserve", "0", "--on-complete-attempts", "1000", "--on-complete"];
    let daemon = Daemon::with_data(&machine.path().join("data"), &[&settings[..], &["/bin/false"]].concat());
    let (mut names, mut taken) = (BTreeSet::new(), vec![]);
    for (number, len) in (0..).zip([100, SLICE_SIZE * 5 / 2, 2000, SLICE_SIZE * 3, 0, 10_000]) {
        let name = format!("f{number}");
        push(daemon.url(), &data::file(scratch.path(), &name, number, len));
        names.insert(name);
        taken.push((names.clone(), machine.cut(number)));
    }
    drop(daemon);
    let hook = script(scratch.path(), "hook", "echo \"$1\" >> DIR/told");
    let told = scratch.path().join("told");
    for (names, cut) in taken {
        let (mount, boot) = (cut.mount(), tempfile::tempdir().expect("a temporary folder can be made"));
        let data = mount.path().join("data");
        std::fs::write(&told, "").expect("there is disk space");
        let daemon = Daemon::launched(another_boot(boot.path()), &data, &[&settings[..], &[hook.as_str()]].concat());
        eventually("all are told", || names.is_subset(&lines(&told).into_iter().collect()));
        eventually("no upload is left", || daemon.spools().iter().all(|name| name.starts_with('.')));
    }
}

#[test]
fn ext4_keeps_notices() {
    needs_root!("to mount file systems");
    let _turn = turn();
    keeps_notices(Kind::Ext4);
}

#[test]
fn xfs_keeps_notices() {
    needs_root!("to mount file systems");
    let _turn = turn();
    keeps_notices(Kind::Xfs);
}

#[test]
fn btrfs_keeps_notices() {
    needs_root!("to mount file systems");
    let _turn = turn();
    keeps_notices(Kind::Btrfs);
}

#[test]
fn ext4_keeps_what_was_told() {
    needs_root!("to mount file systems");
    let _turn = turn();
    survives(Kind::Ext4, "written");
}

#[test]
fn ext4_keeps_synced_slices() {
    needs_root!("to mount file systems");
    let _turn = turn();
    survives(Kind::Ext4, "synced");
}

#[test]
fn xfs_keeps_what_was_told() {
    needs_root!("to mount file systems");
    let _turn = turn();
    survives(Kind::Xfs, "written");
}

#[test]
fn xfs_keeps_synced_slices() {
    needs_root!("to mount file systems");
    let _turn = turn();
    survives(Kind::Xfs, "synced");
}

#[test]
fn btrfs_keeps_what_was_told() {
    needs_root!("to mount file systems");
    let _turn = turn();
    survives(Kind::Btrfs, "written");
}

#[test]
fn btrfs_keeps_synced_slices() {
    needs_root!("to mount file systems");
    let _turn = turn();
    survives(Kind::Btrfs, "synced");
}
