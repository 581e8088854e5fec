//! Disk space: what does not fit is refused at once and with numbers, what was begun fits, what stays free stays
//! free, and nothing that is reserved outlives its upload. On small file systems of all types, which others fill too.
//! Needs root, and the programs of xfsprogs, btrfs-progs and e2fsprogs.

use bigup_tests::daemon::{Daemon, list};
use bigup_tests::mount::{Mount, run};
use bigup_tests::needs_root;
use bigup_tests::process::{eventually, kill_9, signal, signal_program, within};
use bigup_tests::tus::Tus;
use bigup_tests::usage::descriptors;
use bigup_tests::{data, http, programs};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const MIB: u64 = 1 << 20;

/// What the daemons of these tests leave free.
const KEPT: u64 = 8 * MIB;

/// Disk space that a file system has when a test begins, where it has more.
const SPACE: u64 = 60 * MIB;

/// A file system of which about [`SPACE`] is left, and a daemon on it.
struct Disk {
    daemon: Daemon,
    mount: Mount,
}

impl Disk {
    fn on(mount: Mount) -> Disk {
        let daemon = Daemon::with_data(&mount.path().join("data"), &["--reserve", "8M", "--merger-idle", "500ms"]);
        let disk = Disk { daemon, mount };
        disk.fill("others", SPACE);
        disk
    }

    fn ext4() -> Disk {
        Disk::on(Mount::new(&["mkfs.ext4", "-q", "-m", "0", "-O", "^has_journal"], 64 << 20))
    }

    /// ext4 as it was before extents, which cannot reserve.
    fn without_fallocate() -> Disk {
        Disk::on(Mount::new(&["mkfs.ext4", "-q", "-m", "0", "-O", "^has_journal,^extent,^64bit"], 64 << 20))
    }

    fn xfs() -> Disk {
        Disk::on(Mount::new(&["mkfs.xfs", "-q", "-m", "reflink=1"], 512 << 20))
    }

    fn btrfs() -> Disk {
        Disk::on(Mount::new(&["mkfs.btrfs", "-q"], 512 << 20))
    }

    fn tmpfs() -> Disk {
        Disk::on(Mount::in_memory("tmpfs", "size=64m"))
    }

    /// Bytes that are left, as whoever is no root sees them. Btrfs tells only after a sync.
    fn available(&self) -> u64 {
        run(Command::new("sync").arg("--file-system").arg(self.mount.path()));
        let found = nix::sys::statvfs::statvfs(&self.mount.path()).expect("it is mounted");
        found.blocks_available() * found.fragment_size()
    }

    /// Writes a file of somebody else's, so that `left` bytes are left.
    fn fill(&self, name: &str, left: u64) -> PathBuf {
        let path = self.mount.path().join(name);
        let len = self.available().saturating_sub(left);
        fs::write(&path, vec![1; len as usize]).expect("there is disk space for it");
        path
    }

    /// Removes a file and waits until its disk space is told: XFS gives it back in the background.
    fn remove(&self, path: &Path) {
        let (len, before) = (path.metadata().expect("it is there").len(), self.available());
        fs::remove_file(path).expect("it can be removed");
        eventually("its disk space is back", || self.available() + MIB >= before + len);
    }

    fn file(&self, name: &str, len: u64) -> PathBuf {
        data::file(&self.daemon.scratch(), name, len, len)
    }

    fn push(&self, path: &Path, more: &[&str]) -> Command {
        let mut command = programs::cli();
        command.arg("push").arg(path).args(["--url", self.daemon.url(), "--json"]).args(more);
        if !more.contains(&"--slice-size") {
            command.args(["--slice-size", "256K"]);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// A push that is stopped, as by Ctrl-Z, somewhere in the middle.
    fn stopped_half_way(&self, path: &Path, more: &[&str]) -> Child {
        // One sender: of several the one with the next slice may be stopped, and what others sent could not be merged.
        let child = self.push(path, more).args(["--senders", "1"]).spawn().expect("the client can be started");
        let name = path.file_name().unwrap().to_str().unwrap();
        let held = || self.daemon.server().get(&format!("peek=1&file_name={name}")).held().len();
        eventually("some slices are held", || held() >= 20);
        signal(child.id(), Signal::SIGSTOP);
        assert!(!self.daemon.finished(name).exists(), "too fast to be met in the middle");
        // What waits to be merged gives its disk space back.
        let spool = self.daemon.data().join("tmp").join(name);
        eventually("all is merged", || !list(&spool).iter().any(|name| name.parse::<u64>().is_ok()));
        self.eventually_let_go();
        child
    }

    /// Waits until the daemon has closed what it kept open of merged slices, which gives their disk space back.
    fn eventually_let_go(&self) {
        eventually("what is merged is let go", || {
            descriptors(self.daemon.pid()).is_some_and(|open| !open.iter().any(|file| file.ends_with(" (deleted)")))
        });
    }

    fn assert_stored(&self, path: &Path) {
        let finished = self.daemon.finished(path.file_name().unwrap().to_str().unwrap());
        assert!(data::same(path, &finished), "{}", finished.display());
        let (size, blocks) = (path.metadata().unwrap().len(), finished.metadata().unwrap().blocks() * 512);
        assert!(blocks <= size + MIB, "{blocks} bytes on the disk for a file of {size}");
    }

    fn begin(&self, name: &str, file_size: u64, slice_size: u64) -> http::Answer {
        self.daemon.server().get(&format!("file_name={name}&slice_size={slice_size}&file_size={file_size}"))
    }

    fn merged(&self, name: &str) -> fs::Metadata {
        self.daemon.data().join("tmp").join(name).join("merged").metadata().expect("it is there")
    }
}

fn events(output: &Output) -> Vec<Value> {
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{line}: {e}"))).collect()
}

fn event(output: &Output, name: &str) -> Value {
    let events = events(output);
    events.iter().rfind(|e| e["event"] == name).unwrap_or_else(|| panic!("no {name} in {events:?}")).clone()
}

fn succeed(output: &Output) -> Value {
    assert!(output.status.success(), "{output:?}");
    event(output, "done")
}

fn fail(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    event(output, "error")["message"].as_str().expect("it is text").to_owned()
}

/// The bytes that a message asks to free, which may be some more than are missing: the message has three figures.
fn bytes_missing(message: &str) -> u64 {
    let after = message.split_once("free at least ").expect("it says so").1;
    let (number, unit) = after.split_once(" there").expect("it goes on").0.split_once(' ').expect("there is a unit");
    let unit = ["B", "KiB", "MiB", "GiB"].iter().position(|name| *name == unit).expect("it is one of these");
    (number.parse::<f64>().expect("it is a number") * (1 << (10 * unit)) as f64).ceil() as u64
}

fn big_is_refused_small_goes_through(disk: &Disk) {
    let (big, small, one) = (disk.file("big", 64 * MIB), disk.file("small", 100_000), disk.file("one", 3 * MIB));
    let before = disk.available();
    let message = fail(&disk.push(&big, &["--slice-size", "4M"]).output().unwrap());
    let parts = [
        "not enough disk space",
        "64.0 MiB are needed, with 4.00 MiB for a slice beside, and 8.00 MiB stay free",
        "--when-full",
    ];
    for part in parts {
        assert!(message.contains(part), "{part}: {message}");
    }
    // The client says of which file it speaks; nothing says it twice.
    assert!(!message.contains("big") && !message.contains(" bytes"), "{message}");
    // What a file system needs for itself changes by the minute.
    assert!(bytes_missing(&message).abs_diff(64 * MIB + 4 * MIB + KEPT - before) < MIB, "{before}: {message}");
    assert_eq!(disk.daemon.spools(), Vec::<String>::new(), "nothing was begun");
    assert_eq!(disk.begin("one", 80 * MIB, 80 * MIB).expect(507).body["error"], "no_space");
    for path in [&small, &one] {
        succeed(&disk.push(path, &["--slice-size", "4M"]).output().unwrap());
        disk.assert_stored(path);
    }
    let request = format!(
        "GET /big_file_upload?file_name=x&slice_size=1024&file_size={}&source=test HTTP/1.1\r\nHost: localhost\r\n\r\n",
        64 * MIB
    );
    let head = http::raw(disk.daemon.url(), request.as_bytes()).to_lowercase();
    assert!(head.starts_with("http/1.1 507") && !head.contains("retry-after"), "{head}");
    disk.daemon.eventually_clean();
}

#[test]
fn ext4_refuses_what_does_not_fit() {
    needs_root!("to mount file systems");
    big_is_refused_small_goes_through(&Disk::ext4());
}

#[test]
fn xfs_refuses_what_does_not_fit() {
    needs_root!("to mount file systems");
    big_is_refused_small_goes_through(&Disk::xfs());
}

#[test]
fn btrfs_refuses_what_does_not_fit() {
    needs_root!("to mount file systems");
    big_is_refused_small_goes_through(&Disk::btrfs());
}

#[test]
fn tmpfs_refuses_what_does_not_fit() {
    needs_root!("to mount file systems");
    big_is_refused_small_goes_through(&Disk::tmpfs());
}

#[test]
fn without_fallocate_what_does_not_fit_is_refused_all_the_same() {
    needs_root!("to mount file systems");
    let disk = Disk::without_fallocate();
    big_is_refused_small_goes_through(&disk);
    let file = disk.file("file", 20 * MIB);
    succeed(&disk.push(&file, &[]).output().unwrap());
    disk.assert_stored(&file);
}

/// Calls `during` while somebody looks all the time whether less than [`KEPT`] is left, but for `used` bytes.
fn watching<T>(disk: &Disk, used: u64, during: impl FnOnce() -> T) -> T {
    let over = AtomicBool::new(false);
    std::thread::scope(|threads| {
        let watcher = threads.spawn(|| {
            let mut least = u64::MAX;
            while !over.load(Ordering::Relaxed) {
                let found = nix::sys::statvfs::statvfs(&disk.mount.path()).expect("it is mounted");
                least = least.min(found.blocks_available() * found.fragment_size());
                std::thread::sleep(Duration::from_millis(1));
            }
            least
        });
        let result = during();
        over.store(true, Ordering::Relaxed);
        let least = watcher.join().expect("it does not panic");
        // Folders and the like are not counted beforehand.
        assert!(least + used + MIB / 2 >= KEPT, "{least} bytes were left");
        result
    })
}

fn one_of_two_is_refused(disk: &Disk) {
    let before = disk.available();
    let files = [disk.file("a", 30 * MIB), disk.file("b", 30 * MIB)];
    let small = disk.file("small", 10_000);
    let outputs = watching(disk, 0, || {
        let children = files.each_ref().map(|file| disk.push(file, &[]).spawn().unwrap());
        succeed(&disk.push(&small, &[]).output().unwrap());
        children.map(|child| child.wait_with_output().unwrap())
    });
    let stored: Vec<&PathBuf> =
        files.iter().zip(&outputs).filter(|(_, o)| o.status.success()).map(|(f, _)| f).collect();
    assert_eq!(stored.len(), 1, "{outputs:?}");
    disk.assert_stored(stored[0]);
    let refused = outputs.iter().find(|output| !output.status.success()).unwrap();
    assert!(fail(refused).contains("not enough disk space"), "{refused:?}");
    disk.daemon.eventually_clean();
    disk.eventually_let_go();
    let taken = before - disk.available();
    assert!(taken < 32 * MIB, "{taken} bytes are taken for a file of 30 MiB");
    disk.remove(&disk.daemon.finished(stored[0].file_name().unwrap().to_str().unwrap()));
    let other = files.iter().find(|file| *file != stored[0]).unwrap();
    succeed(&disk.push(other, &[]).output().unwrap());
    disk.assert_stored(other);
}

#[test]
fn of_two_at_once_ext4_takes_the_one_that_fits() {
    needs_root!("to mount file systems");
    one_of_two_is_refused(&Disk::ext4());
}

#[test]
fn of_two_at_once_xfs_takes_the_one_that_fits() {
    needs_root!("to mount file systems");
    one_of_two_is_refused(&Disk::xfs());
}

#[test]
fn of_two_at_once_btrfs_takes_the_one_that_fits() {
    needs_root!("to mount file systems");
    one_of_two_is_refused(&Disk::btrfs());
}

#[test]
fn of_two_at_once_tmpfs_takes_the_one_that_fits() {
    needs_root!("to mount file systems");
    one_of_two_is_refused(&Disk::tmpfs());
}

/// Somebody else fills the disk while a file is pushed; the push stops, and goes on once there is disk space again.
fn stops_and_goes_on(disk: &Disk) {
    let file = disk.file("file", 30 * MIB);
    let client = disk.stopped_half_way(&file, &[]);
    let ballast = disk.fill("ballast", KEPT - 4 * MIB);
    signal(client.id(), Signal::SIGCONT);
    let message = fail(&client.wait_with_output().unwrap());
    assert!(message.contains("not enough disk space") && bytes_missing(&message) > MIB / 2, "{message}");
    assert!(disk.available() > KEPT - 5 * MIB, "it used what is to stay free");
    disk.remove(&ballast);
    let done = succeed(&disk.push(&file, &[]).output().unwrap());
    assert!(done["bytes_held"].as_u64().unwrap() >= 20 * (MIB / 4), "{done}");
    disk.assert_stored(&file);
    disk.daemon.eventually_clean();
}

#[test]
fn a_push_over_which_ext4_fills_up_stops_and_goes_on() {
    needs_root!("to mount file systems");
    stops_and_goes_on(&Disk::ext4());
}

#[test]
fn a_push_over_which_xfs_fills_up_stops_and_goes_on() {
    needs_root!("to mount file systems");
    stops_and_goes_on(&Disk::xfs());
}

#[test]
fn a_push_over_which_btrfs_fills_up_stops_and_goes_on() {
    needs_root!("to mount file systems");
    stops_and_goes_on(&Disk::btrfs());
}

#[test]
fn a_push_over_which_tmpfs_fills_up_stops_and_goes_on() {
    needs_root!("to mount file systems");
    stops_and_goes_on(&Disk::tmpfs());
}

/// A body of tus over which the disk fills up: what came is kept, and the rest comes once there is room.
fn body_stops_and_goes_on(disk: &Disk) {
    let (tus, content) = (Tus::new(disk.daemon.url()), data::bytes(1, 24 << 20));
    let at = tus.create("a", content.len() as u64);
    let first = 9 << 20;
    tus.patch(&at, 0, &content[..first]).expect(204);
    let others = disk.fill("more", 9 * MIB);
    let reply = tus.patch(&at, first as u64, &content[first..]);
    assert!(matches!(reply.status, 204 | 507), "{reply:?}");
    let held = tus.offset(&at) as usize;
    assert!(held >= first && (reply.status == 507) == (held < content.len()), "{held}: {reply:?}");
    disk.remove(&others);
    if held < content.len() {
        tus.patch(&at, held as u64, &content[held..]).expect(204);
    }
    assert!(fs::read(disk.daemon.finished("a")).is_ok_and(|found| found == content), "it is exact");
}

/// Parts that cannot be joined for want of disk space stay, and are joined once there is room.
#[test]
fn parts_that_do_not_fit_joined_stay_and_are_joined_once_there_is_room() {
    needs_root!("to mount file systems");
    let disk = Disk::ext4();
    let (tus, content) = (Tus::new(disk.daemon.url()), data::bytes(1, 16 << 20));
    let pieces = [&content[..9 << 20], &content[9 << 20..]];
    let paths = pieces.map(|piece| tus.create_partial(piece.len() as u64));
    for (at, piece) in paths.iter().zip(pieces) {
        tus.patch(at, 0, piece).expect(204);
    }
    let others = disk.fill("more", 9 * MIB);
    let reply = tus.join("a", &paths).expect(507);
    assert!(reply.body.contains("disk"), "{reply:?}");
    for (at, piece) in paths.iter().zip(pieces) {
        assert_eq!(tus.offset(at), piece.len() as u64);
    }
    disk.remove(&others);
    tus.join("a", &paths).expect(201);
    assert!(fs::read(disk.daemon.finished("a")).is_ok_and(|found| found == content), "it is exact");
}

#[test]
fn a_body_over_which_ext4_fills_up_stops_and_goes_on() {
    needs_root!("to mount file systems");
    body_stops_and_goes_on(&Disk::ext4());
}

#[test]
fn without_fallocate_a_body_over_which_the_disk_fills_up_stops_and_goes_on() {
    needs_root!("to mount file systems");
    body_stops_and_goes_on(&Disk::without_fallocate());
}

#[test]
fn a_push_that_is_to_wait_for_disk_space_goes_on_by_itself() {
    needs_root!("to mount file systems");
    let disk = Disk::ext4();
    let (file, big) = (disk.file("file", 30 * MIB), disk.file("big", 40 * MIB));
    let client = disk.stopped_half_way(&file, &["--when-full", "wait"]);
    let ballast = disk.fill("ballast", KEPT - 4 * MIB);
    signal(client.id(), Signal::SIGCONT);
    let refused = || disk.daemon.log().contains("not enough disk space");
    eventually("a slice is refused", refused);
    // Longer than merging would have taken to free disk space.
    std::thread::sleep(Duration::from_secs(11));
    fs::remove_file(ballast).unwrap();
    // Does not fit beside the other one; that one's disk space comes back as it is removed.
    let waiting = disk.push(&big, &["--when-full", "wait"]).spawn().unwrap();
    let output = client.wait_with_output().unwrap();
    succeed(&output);
    let told = event(&output, "retry");
    assert!(told["message"].as_str().unwrap().contains("free at least "), "{told}");
    disk.assert_stored(&file);
    fs::remove_file(disk.daemon.finished("file")).unwrap();
    succeed(&waiting.wait_with_output().unwrap());
    disk.assert_stored(&big);
}

#[test]
fn waiting_for_disk_space_ends_with_patience() {
    needs_root!("to mount file systems");
    let disk = Disk::ext4();
    let big = disk.file("big", 80 * MIB);
    let output = disk.push(&big, &["--when-full", "wait", "--retry-for", "2s"]).output().unwrap();
    let message = fail(&output);
    assert!(message.contains("gave up after") && bytes_missing(&message) > 0, "{message}");
    assert!(!message.contains("--when-full"), "{message}");
}

#[test]
fn many_senders_get_by_with_disk_space_for_one_slice() {
    needs_root!("to mount file systems");
    let disk = Disk::ext4();
    let file = disk.file("file", 30 * MIB);
    disk.fill("ballast", KEPT + 32 * MIB + MIB / 2);
    let push = || disk.push(&file, &["--slice-size", "2M", "--senders", "8"]).output().unwrap();
    succeed(&watching(&disk, 0, push));
    disk.assert_stored(&file);
}

#[test]
fn standard_input_stops_before_it_uses_what_stays_free() {
    needs_root!("to mount file systems");
    let disk = Disk::ext4();
    // The slices that merging waits for, one of each sender at most, may use what is to stay free: each for itself and for its
    // place, until it is merged and synced.
    let output = watching(&disk, 8 * 2 * (MIB / 4), || {
        let mut command = disk.push(Path::new("-"), &["--name", "in", "--senders", "8"]);
        let mut client = command.stdin(Stdio::piped()).spawn().unwrap();
        // It stops reading at some point.
        let _ = client.stdin.take().unwrap().write_all(&data::bytes(1, 100 << 20));
        client.wait_with_output().unwrap()
    });
    assert!(fail(&output).contains("not enough disk space"), "{output:?}");
    assert!(disk.available() < KEPT + 4 * MIB, "it stopped early");
}

#[test]
fn after_kills_an_upload_still_has_its_disk_space() {
    needs_root!("to mount file systems");
    for mut disk in [Disk::ext4(), Disk::xfs(), Disk::btrfs()] {
        let file = disk.file("file", 30 * MIB);
        let mut client = disk.stopped_half_way(&file, &[]);
        kill_9(&mut client);
        if let Some(pid) = disk.daemon.info("file", "merger_pid").and_then(|pid| pid.parse().ok()) {
            signal_program(pid, "bigup-merger", Signal::SIGKILL);
        }
        disk.daemon.kill_9();
        // All that is left goes to somebody else, but for the disk space of some slices.
        let ballast = disk.fill("ballast", KEPT + 4 * MIB);
        disk.daemon.run();
        succeed(&disk.push(&file, &[]).output().unwrap());
        disk.assert_stored(&file);
        disk.remove(&ballast);
    }
}

/// Sends slices of a mebibyte of the file `f`, but the first, until there is no disk space; how many came.
fn fill_with_waiting(disk: &Disk, content: &[u8]) -> usize {
    disk.begin("f", content.len() as u64, MIB).expect(200);
    let slices = content.chunks(MIB as usize).enumerate().skip(1);
    let came = slices.take_while(|(slice_id, _)| post(disk, content, *slice_id).status == 200).count();
    assert!(came > 1 && came < content.len() / MIB as usize - 1, "{came} slices fit");
    came
}

fn post(disk: &Disk, content: &[u8], slice_id: usize) -> http::Answer {
    let slice = content.chunks(MIB as usize).nth(slice_id).unwrap();
    disk.daemon.server().post(&format!("file_name=f&slice_id={slice_id}&slice_size={}", slice.len()), slice)
}

/// Sends what is missing of the file `f`, from the first slice on, until it is finished.
fn send_the_rest(disk: &Disk, content: &[u8]) {
    for slice_id in 0..content.len().div_ceil(MIB as usize) {
        // Merging gives disk space back.
        eventually("the slice gets in", || post(disk, content, slice_id).status == 200);
    }
    eventually("it is finished", || disk.daemon.finished("f").exists());
    assert!(fs::read(disk.daemon.finished("f")).unwrap() == content);
    disk.daemon.eventually_clean();
}

#[test]
fn slices_that_wait_leave_what_stays_free_and_the_one_they_wait_for_gets_in() {
    needs_root!("to mount file systems");
    for disk in [Disk::ext4(), Disk::xfs(), Disk::btrfs(), Disk::tmpfs()] {
        let content = data::bytes(9, 30 * MIB as usize);
        disk.fill("ballast", KEPT + 40 * MIB);
        fill_with_waiting(&disk, &content);
        // What Btrfs has not counted yet is none that is left. Folders and the like take some.
        let left = disk.available();
        assert!(left + MIB / 2 >= KEPT + MIB, "{left} bytes are left");
        send_the_rest(&disk, &content);
    }
}

#[test]
fn the_slice_that_merging_waits_for_may_use_what_stays_free() {
    needs_root!("to mount file systems");
    for disk in [Disk::ext4(), Disk::xfs(), Disk::btrfs(), Disk::tmpfs()] {
        let content = data::bytes(9, 30 * MIB as usize);
        disk.fill("ballast", KEPT + 40 * MIB);
        let came = fill_with_waiting(&disk, &content);
        // Somebody else takes the disk space that was left for it.
        let others = disk.fill("others too", KEPT - MIB);
        assert_eq!(post(&disk, &content, came + 1).expect(507).body["error"], "no_space");
        // One of them is enough: while it arrives it is not let in again.
        let mut arriving = http::connect(disk.daemon.url());
        let query = format!("file_name=f&slice_id=0&slice_size={MIB}");
        let length = format!("Content-Length: {MIB}");
        arriving.write_all(&http::post_head(&query, &[&length])).unwrap();
        eventually("it is let in", || disk.daemon.spool_has_part("f"));
        post(&disk, &content, 0).expect(507);
        drop(arriving);
        // All that waits is merged then, and nothing of it is left in the disk space that stays free.
        eventually("it gets in", || post(&disk, &content, 0).status == 200);
        eventually("what waited is merged", || disk.merged("f").len() == (came as u64 + 1) * MIB);
        disk.remove(&others);
        send_the_rest(&disk, &content);
    }
}

#[test]
fn what_is_reserved_is_seen_at_once_stays_and_goes_with_its_upload() {
    needs_root!("to mount file systems");
    for disk in [Disk::ext4(), Disk::xfs(), Disk::btrfs(), Disk::tmpfs()] {
        let (server, before) = (disk.daemon.server(), disk.available());
        disk.begin("f", 30 * MIB, MIB).expect(200);
        let taken = || before.saturating_sub(disk.available());
        let is_taken = || (30 * MIB..31 * MIB).contains(&taken());
        assert!(is_taken(), "{} bytes are taken", taken());
        assert_eq!(disk.merged("f").len(), 0);
        // Mergers come and go without giving anything back.
        for slice_id in 0..3 {
            server
                .post(&format!("file_name=f&slice_id={slice_id}&slice_size={MIB}"), &vec![7; MIB as usize])
                .expect(200);
            eventually("it is merged", || disk.merged("f").len() == (slice_id + 1) * MIB);
            eventually("the merger leaves", || disk.daemon.info("f", "merge_slice_process_exist").unwrap() == "0");
            within(Duration::from_secs(20), "the disk space is that of the file", is_taken);
        }
        // Part of a slice, as a killed merger leaves it, is cut off; what the cut gives back is reserved again.
        let merged = disk.daemon.data().join("tmp/f/merged");
        fs::OpenOptions::new().append(true).open(&merged).unwrap().write_all(&[1; 1000]).unwrap();
        server.post(&format!("file_name=f&slice_id=3&slice_size={MIB}"), &vec![7; MIB as usize]).expect(200);
        eventually("it is merged", || disk.merged("f").len() == 4 * MIB);
        within(Duration::from_secs(20), "the disk space is that of the file", is_taken);
        // A merger that is about to leave may write there once more.
        eventually("the folder is removed", || fs::remove_dir_all(disk.daemon.data().join("tmp/f")).is_ok());
        disk.daemon.eventually_clean();
        within(Duration::from_secs(20), "the disk space is back", || taken() < MIB);
    }
}

#[test]
fn what_an_upload_reserved_for_more_than_it_became_goes_back() {
    needs_root!("to mount file systems");
    let mount = Mount::new(&["mkfs.ext4", "-q", "-m", "0"], 64 << 20);
    let daemon = Daemon::with_data(&mount.path().join("data"), &["--reserve", "0", "--takeover-after", "100ms"]);
    let server = daemon.server();
    server.get(&format!("file_name=f&slice_size={MIB}&file_size={}&source=long", 40 * MIB)).expect(200);
    let content = data::bytes(1, (2 * MIB) as usize);
    let short = format!("file_name=f&slice_size={MIB}&file_size={}&source=short", 2 * MIB);
    eventually("it may be taken over", || server.get(&short).status == 200);
    for (slice_id, slice) in content.chunks(MIB as usize).enumerate() {
        server.post(&format!("file_name=f&slice_id={slice_id}&slice_size={MIB}&source=short"), slice).expect(200);
    }
    eventually("it is finished", || server.get(&format!("{short}&wait=5")).body["is_uploaded"] == 1);
    let finished = daemon.finished("f");
    assert!(fs::read(&finished).unwrap() == content);
    assert!(finished.metadata().unwrap().blocks() * 512 < 3 * MIB);
}

#[test]
fn a_size_that_is_told_later_is_reserved_then() {
    needs_root!("to mount file systems");
    let disk = Disk::ext4();
    let server = disk.daemon.server();
    server.get(&format!("file_name=f&slice_size={MIB}")).expect(200);
    server.post(&format!("file_name=f&slice_id=1&slice_size={MIB}"), &vec![7; MIB as usize]).expect(200);
    let before = disk.available();
    disk.begin("f", 20 * MIB, MIB).expect(200);
    assert!(before - disk.available() >= 18 * MIB, "the place of one slice was reserved before");
    // Going on with what has begun is no refusal, even where the rest does not fit.
    server.get(&format!("file_name=g&slice_size={MIB}")).expect(200);
    disk.begin("g", 70 * MIB, MIB).expect(200);
}

#[test]
fn a_quota_is_a_full_disk() {
    needs_root!("to mount file systems");
    let mount = Mount::new(&["mkfs.btrfs", "-q"], 512 << 20);
    let data = mount.path().join("data");
    let btrfs = |arguments: &[&str], path: &Path| run(Command::new("btrfs").args(arguments).arg(path));
    btrfs(&["quota", "enable"], &mount.path());
    btrfs(&["subvolume", "create"], &data);
    btrfs(&["qgroup", "limit", "40M"], &data);
    let daemon = Daemon::with_data(&data, &["--reserve", "0", "--merger-idle", "1s"]);
    let server = daemon.server();
    let begin = |name: &str, size: u64| server.get(&format!("file_name={name}&slice_size={MIB}&file_size={size}"));
    assert_eq!(begin("big", 60 * MIB).expect(507).body["error"], "no_space");
    assert_eq!(daemon.spools(), Vec::<String>::new());
    // Of unknown size: slices come until there is no disk space, and a merger has to do with what there is.
    let content = data::bytes(1, (60 * MIB) as usize);
    server.get(&format!("file_name=f&slice_size={MIB}")).expect(200);
    let post = |slice_id: usize| {
        let slice = content.chunks(MIB as usize).nth(slice_id).unwrap();
        server.post(&format!("file_name=f&slice_id={slice_id}&slice_size={MIB}"), slice)
    };
    let refused = (0..60).find(|slice_id| post(*slice_id).status != 200).expect("there is disk space for 40");
    assert!((10..=40).contains(&refused), "slice {refused} is refused");
    btrfs(&["qgroup", "limit", "none"], &data);
    (refused..60).for_each(|slice_id| drop(post(slice_id).expect(200)));
    eventually("it is finished", || begin("f", 60 * MIB).body["is_uploaded"] == 1);
    assert!(fs::read(daemon.finished("f")).unwrap() == content);
    daemon.eventually_clean();
}
