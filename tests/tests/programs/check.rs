//! `bigupd check`: damage is found and named, wherever it is; a repair has just that sent again; and beside daemons,
//! mergers and pushes nothing that is well is called damaged.

use bigup_tests::daemon::{Daemon, list};
use bigup_tests::process::{eventually, kill_9, signal_program};
use bigup_tests::{data, programs};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

const SLICE: u64 = 64 << 10;

/// What `bigupd check --json` said.
struct Said {
    code: Option<i32>,
    lines: Vec<Value>,
}

impl Said {
    fn damaged(&self) -> Vec<&Value> {
        self.lines.iter().filter(|line| line["event"] == "damaged").collect()
    }

    /// The first and last slice of each damaged range.
    fn slices(&self) -> Vec<(u64, u64)> {
        let number = |line: &Value, key: &str| line[key].as_u64().unwrap_or_else(|| panic!("{key} in {line}"));
        self.damaged().iter().map(|line| (number(line, "first_slice"), number(line, "last_slice"))).collect()
    }

    fn summary(&self) -> &Value {
        self.lines.last().expect("there is a summary")
    }

    fn expect(self, code: i32) -> Said {
        assert_eq!(self.code, Some(code), "{:#?}", self.lines);
        self
    }
}

fn command(data: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(programs::path("bigupd"));
    command.arg("check").arg("--data-dir").arg(data).args(arguments);
    command
}

fn check(data: &Path, arguments: &[&str]) -> Said {
    let output = command(data, arguments).arg("--json").output().expect("bigupd can be started");
    let text = String::from_utf8_lossy(&output.stdout);
    let lines: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{line}: {e}"))).collect();
    assert!(!lines.is_empty(), "{output:?}");
    Said { code: output.status.code(), lines }
}

fn push(daemon: &Daemon, file: &Path) -> Command {
    let mut command = programs::cli();
    command.arg("push").arg(file).args(["--url", daemon.url(), "--slice-size", "64K", "--name", "f", "--quiet"]);
    command.stdin(Stdio::null());
    command
}

fn succeed(output: Output) {
    assert!(output.status.success(), "{output:?}");
}

/// Pushes `file` to the end; the ids of the slices that were sent, sorted.
fn sent_by_push(daemon: &Daemon, file: &Path) -> Vec<u64> {
    let before = daemon.log().len();
    succeed(push(daemon, file).output().expect("the client can be started"));
    let log = daemon.log();
    let posts = log[before..].lines().filter(|line| line.contains(" POST "));
    let id = |line: &str| line.split("slice_id=").nth(1)?.split('&').next()?.parse().ok();
    let mut ids: Vec<u64> = posts.filter_map(id).collect();
    ids.sort_unstable();
    ids
}

/// Changes a byte as a failing disk would: the file's times stay as they were.
fn flip(path: &Path, at: u64) {
    let file = File::options().read(true).write(true).open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let modified = file.metadata().unwrap().modified().unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).expect("the byte is there");
    file.write_all_at(&[!byte[0]], at).unwrap();
    file.set_modified(modified).unwrap();
}

fn spool(daemon: &Daemon) -> PathBuf {
    daemon.data().join("tmp/f")
}

/// An upload of 20 slices as a push of `file` would leave it: the first 10 merged, of the others all but 12 waiting. Its
/// merger and its daemon are gone.
fn unfinished(daemon: &mut Daemon, file: &Path) {
    let content = fs::read(file).unwrap();
    assert_eq!(content.len() as u64, 20 * SLICE);
    let begin = format!("file_name=f&slice_size={SLICE}&file_size={}", content.len());
    daemon.server().get(&begin).expect(200);
    for (id, slice) in content.chunks(SLICE as usize).enumerate().filter(|(id, _)| ![10, 12].contains(id)) {
        daemon.server().post(&format!("file_name=f&slice_id={id}&slice_size={SLICE}"), slice).expect(200);
    }
    eventually("ten slices are merged", || daemon.info("f", "curr_merge_slice_id").as_deref() == Some("10"));
    eventually("the merger is gone", || daemon.info("f", "merger_pid").is_none());
    daemon.stop();
}

/// Waits until so many slices of a push under way are merged.
fn eventually_merged(daemon: &Daemon, slices: u64) {
    eventually("slices are merged", || {
        assert!(!daemon.finished("f").exists(), "too fast to be met in the middle");
        fs::metadata(spool(daemon).join("merged")).is_ok_and(|found| found.len() > slices * SLICE)
    });
}

fn daemon() -> Daemon {
    Daemon::with(&["--merger-idle", "300ms"])
}

fn file(daemon: &Daemon) -> PathBuf {
    data::file(&daemon.scratch(), "f", 1, 20 * SLICE)
}

/// All that is below a folder: paths, kinds, sizes and inodes.
fn everything(folder: &Path) -> Vec<String> {
    let mut all = vec![];
    for name in list(folder) {
        let path = folder.join(name);
        let found = path.symlink_metadata().unwrap();
        all.push(format!("{} {:?} {} {}", path.display(), found.file_type(), found.len(), found.ino()));
        if found.is_dir() {
            all.extend(everything(&path));
        }
    }
    all
}

#[test]
fn what_is_well_is_called_well_and_nothing_is_changed() {
    let mut daemon = daemon();
    let file = file(&daemon);
    unfinished(&mut daemon, &file);
    daemon.run();
    daemon.server().post("file_name=small&slice_num=1&slice_id=0&slice_size=3", b"abc").expect(200);
    daemon.stop();
    let before = everything(&daemon.data());
    let said = check(&daemon.data(), &[]).expect(0);
    let summary = said.summary();
    assert_eq!((&summary["files"], &summary["uploads"], &summary["damaged"]), (&1.into(), &1.into(), &0.into()));
    assert_eq!(summary["bytes"], 18 * SLICE + 3);
    assert_eq!(everything(&daemon.data()), before);
    let text = command(&daemon.data(), &[]).output().unwrap();
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    assert!(text.starts_with("1 files and 1 uploads checked, 1.13 MiB: 0 damaged"), "{text}");
}

#[test]
fn damaged_slices_of_an_upload_are_named_and_a_repair_has_just_those_sent_again() {
    let mut daemon = daemon();
    let file = file(&daemon);
    unfinished(&mut daemon, &file);
    for slice_id in [3, 4, 8] {
        flip(&spool(&daemon).join("merged"), slice_id * SLICE + 77);
    }
    flip(&spool(&daemon).join("15"), 5);
    let before = everything(&daemon.data());
    let said = check(&daemon.data(), &[]).expect(3);
    assert_eq!(said.slices(), [(3, 4), (8, 8), (15, 15)]);
    let first = said.damaged()[0];
    assert_eq!((&first["file_name"], &first["kind"]), (&"f".into(), &"upload".into()));
    assert_eq!((&first["first_byte"], &first["last_byte"]), (&(3 * SLICE).into(), &(5 * SLICE - 1).into()));
    assert_eq!(everything(&daemon.data()), before, "only a repair changes anything");

    let text = command(&daemon.data(), &["--repair"]).output().unwrap();
    assert_eq!(text.status.code(), Some(0), "{text:?}");
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    let line = format!("damaged: upload f: bytes {}-{}, slice 15: ", 15 * SLICE, 16 * SLICE - 1);
    assert!(text.contains(&line) && text.contains("the next push sends it again"), "{text}");
    assert_eq!(check(&daemon.data(), &[]).expect(0).summary()["uploads"], 1);
    daemon.run();
    // The upload was sent by plain requests and has no source of its own.
    let begin = format!("file_name=f&slice_size={SLICE}&file_size={}", 20 * SLICE);
    let held = daemon.server().get(&begin).expect(200).held();
    assert_eq!((0..20).filter(|id| !held.contains(id)).collect::<Vec<u64>>(), [3, 4, 8, 10, 12, 15]);
    let content = fs::read(&file).unwrap();
    for id in [3, 4, 8, 10, 12, 15] {
        let slice = &content[(id * SLICE) as usize..((id + 1) * SLICE) as usize];
        daemon.server().post(&format!("file_name=f&slice_id={id}&slice_size={SLICE}"), slice).expect(200);
    }
    eventually("the file is finished", || daemon.finished("f").exists());
    assert!(data::same(&file, &daemon.finished("f")));
    check(&daemon.data(), &[]).expect(0);
}

#[test]
fn a_push_after_a_repair_sends_just_the_damaged_slices_of_its_upload() {
    let mut daemon = daemon();
    // Large enough to be met in the middle.
    let file = data::file(&daemon.scratch(), "f", 2, 64 << 20);
    let mut client = push(&daemon, &file).spawn().unwrap();
    eventually_merged(&daemon, 100);
    kill_9(&mut client);
    eventually("the merger is gone", || daemon.info("f", "merger_pid").is_none());
    let held = daemon.server().get("peek=1&file_name=f").expect(200).held();
    daemon.stop();
    flip(&spool(&daemon).join("merged"), 50 * SLICE);
    assert_eq!(check(&daemon.data(), &["--repair"]).expect(0).slices(), [(50, 50)]);
    daemon.run();
    let missing: Vec<u64> = (0..1024).filter(|id| *id == 50 || !held.contains(id)).collect();
    assert_eq!(sent_by_push(&daemon, &file), missing);
    assert!(data::same(&file, &daemon.finished("f")));
}

#[test]
fn damage_in_a_finished_file_is_located_and_a_push_after_a_repair_sends_just_the_damaged_slices() {
    let daemon = daemon();
    let file = data::file(&daemon.scratch(), "f", 3, 200 * SLICE + 100);
    assert_eq!(sent_by_push(&daemon, &file).len(), 201);
    check(&daemon.data(), &[]).expect(0);
    // Leaves are of 4 slices here.
    for at in [9 * SLICE, 13 * SLICE, 200 * SLICE + 99] {
        flip(&daemon.finished("f"), at);
    }
    let said = check(&daemon.data(), &[]).expect(3);
    assert_eq!(said.slices(), [(8, 15), (200, 200)]);
    assert_eq!(said.damaged()[1]["last_byte"], 200 * SLICE + 99);
    let damaged = fs::read(daemon.finished("f")).unwrap();

    let said = check(&daemon.data(), &["--repair"]).expect(0);
    assert!(!daemon.finished("f").exists());
    let run = list(&daemon.data().join("damaged"));
    let kept = daemon.data().join("damaged").join(&run[0]).join("files/f");
    assert!(fs::read(&kept).unwrap() == damaged, "the damaged file is kept as it was");
    let told = said.damaged()[0]["repair"].as_str().unwrap();
    assert!(told.contains(kept.to_str().unwrap()) && told.contains("only what differs"), "{told}");
    let said = check(&daemon.data(), &[]).expect(0);
    assert_eq!((&said.summary()["files"], &said.summary()["uploads"]), (&0.into(), &1.into()));

    assert_eq!(sent_by_push(&daemon, &file), [9, 13, 200]);
    assert!(data::same(&file, &daemon.finished("f")));
    daemon.eventually_clean();
    check(&daemon.data(), &[]).expect(0);
}

#[test]
fn without_leaves_or_source_a_damaged_file_is_found_and_sent_whole() {
    let daemon = daemon();
    let content = data::bytes(4, 30_000);
    for (id, slice) in content.chunks(10_000).enumerate() {
        daemon.server().get("file_name=odd&slice_size=10000&file_size=30000&source=s").expect(200);
        let sent = format!("file_name=odd&slice_id={id}&slice_size=10000&source=s");
        daemon.server().post(&sent, slice).expect(200);
    }
    eventually("the file is finished", || daemon.finished("odd").exists());
    for (id, slice) in content.chunks(16384).enumerate() {
        daemon.server().as_oldest().get("file_name=plain&slice_num=2").expect(200);
        daemon
            .server()
            .as_oldest()
            .post(&format!("file_name=plain&slice_id={id}&slice_size={}", slice.len()), slice)
            .expect(200);
    }
    eventually("the file is finished", || daemon.finished("plain").exists());
    flip(&daemon.finished("odd"), 3);
    flip(&daemon.finished("plain"), 20_000);
    let said = check(&daemon.data(), &["--repair"]).expect(0);
    for (name, first, why) in [("odd", 0, "digests of its parts"), ("plain", 16384, "no source")] {
        let line = said.damaged().into_iter().find(|line| line["file_name"] == name).unwrap();
        assert_eq!((&line["first_byte"], &line["last_byte"]), (&first.into(), &29_999.into()));
        assert!(line["repair"].as_str().unwrap().contains(why), "{line}");
        daemon.server().get(&format!("peek=1&file_name={name}")).expect(404);
    }
}

#[test]
fn files_of_unknown_content_are_counted_and_those_that_lost_their_end_are_damaged() {
    let daemon = daemon();
    let files = daemon.data().join("files");
    for name in ["whole", "edited", "short", "long"] {
        daemon.server().post(&format!("file_name={name}&slice_num=1&slice_id=0&slice_size=5"), b"abcde").expect(200);
    }
    fs::write(files.join("by hand"), "x").unwrap();
    fs::write(files.join("edited"), "abcdX").unwrap();
    for (name, len) in [("short", 3), ("long", 9)] {
        let file = File::options().write(true).open(files.join(name)).unwrap();
        let modified = file.metadata().unwrap().modified().unwrap();
        file.set_len(len).unwrap();
        file.set_modified(modified).unwrap();
    }
    let said = check(&daemon.data(), &[]).expect(3);
    assert_eq!((&said.summary()["unknown"], &said.summary()["files"]), (&2.into(), &3.into()));
    let text = command(&daemon.data(), &[]).output().unwrap();
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    let told = |name: &str| text.lines().find(|line| line.starts_with(&format!("not known: file {name}: ")));
    let edited = told("edited").expect("it is named");
    assert!(edited.contains(&blake3::hash(b"abcde").to_string()) && edited.contains("5 bytes"), "{edited}");
    assert!(told("by hand").is_some_and(|line| line.contains("no digest") && line.contains("1 bytes")), "{text}");
    let mut ranges: Vec<(String, String)> = said
        .damaged()
        .iter()
        .map(|line| (line["file_name"].to_string(), format!("{}-{}", line["first_byte"], line["last_byte"])))
        .collect();
    ranges.sort();
    let expected = [("\"long\"", "5-8"), ("\"short\"", "0-4")];
    assert_eq!(ranges, expected.map(|(name, range)| (name.to_owned(), range.to_owned())));
}

#[test]
fn an_upload_that_cannot_be_used_is_moved_aside_and_begins_anew() {
    for (what, garbage) in [("upload.json", &b"{"[..]), ("digests", b""), ("upload.json", b"")] {
        let mut daemon = daemon();
        let file = file(&daemon);
        unfinished(&mut daemon, &file);
        let place = spool(&daemon).join(what);
        fs::remove_file(&place).unwrap();
        if !garbage.is_empty() {
            fs::write(&place, garbage).unwrap();
        }
        fs::write(daemon.data().join("info.ini"), "garbage").unwrap();
        let said = check(&daemon.data(), &[]).expect(3);
        assert!(said.damaged()[0]["what"].as_str().unwrap().contains(what), "{:?}", said.damaged());
        assert!(spool(&daemon).exists());
        let said = check(&daemon.data(), &["--repair"]).expect(0);
        let told = said.damaged()[0]["repair"].as_str().unwrap();
        let run = list(&daemon.data().join("damaged"));
        let kept = daemon.data().join("damaged").join(&run[0]).join("tmp/f");
        assert!(told.contains(kept.to_str().unwrap()), "{told}");
        assert!(kept.join("merged").exists() && !spool(&daemon).exists(), "nothing is deleted");
        assert_eq!(daemon.info_ini(), "", "info.ini is written anew");
        daemon.run();
        assert_eq!(sent_by_push(&daemon, &file).len(), 20);
        assert!(data::same(&file, &daemon.finished("f")));
    }
}

#[test]
fn records_that_are_lost_have_their_slices_sent_again() {
    let mut daemon = daemon();
    let file = file(&daemon);
    unfinished(&mut daemon, &file);
    // The records of slices 2 and 13.
    for slice_id in [2, 13] {
        flip(&spool(&daemon).join("digests"), 64 * (slice_id + 2) + 5);
    }
    assert_eq!(check(&daemon.data(), &["--repair"]).expect(0).slices(), [(2, 2), (13, 13)]);
    daemon.run();
    let held = daemon.server().get("peek=1&file_name=f").expect(200).held();
    assert_eq!((0..20).filter(|id| !held.contains(id)).collect::<Vec<u64>>(), [2, 10, 12, 13]);
}

#[test]
fn only_what_is_named_is_checked_and_what_is_not_there_is_told() {
    let daemon = daemon();
    for name in ["a", "dir/b", "dir/c", "dirt"] {
        daemon.server().post(&format!("file_name={name}&slice_num=1&slice_id=0&slice_size=1"), b"x").expect(200);
    }
    daemon.server().get("file_name=dir/open&slice_num=2").expect(200);
    let said = check(&daemon.data(), &["dir"]).expect(0);
    assert_eq!((&said.summary()["files"], &said.summary()["uploads"]), (&2.into(), &1.into()));
    let said = check(&daemon.data(), &["a", "nothing"]).expect(1);
    assert_eq!((&said.lines[0]["event"], &said.lines[0]["file_name"]), (&"failed".into(), &"nothing".into()));
    assert_eq!(said.summary()["files"], 1);
    let refused = command(&daemon.data(), &["../x"]).output().unwrap();
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    let nowhere = command(&daemon.data().join("nowhere"), &[]).output().unwrap();
    assert_eq!(nowhere.status.code(), Some(1), "{nowhere:?}");
    assert!(!daemon.data().join("nowhere").exists());
}

#[test]
fn the_data_folder_may_stand_in_the_configuration_file() {
    let daemon = daemon();
    let config = daemon.scratch().join("bigupd.ini");
    fs::write(&config, format!("[bigupd]\ndata_dir = {}\n", daemon.data().display())).unwrap();
    let mut command = Command::new(programs::path("bigupd"));
    let output = command.args(["check", "--config"]).arg(&config).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn beside_pushes_nothing_that_is_well_is_called_damaged_and_a_repair_changes_nothing() {
    let daemon = Daemon::with(&["--merger-idle", "10ms"]);
    let file = data::file(&daemon.scratch(), "f", 5, 24 << 20);
    let other = data::file(&daemon.scratch(), "other", 6, 24 << 20);
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let checks = scope.spawn(|| {
            let mut seen = 0;
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                for arguments in [&[][..], &["--repair"]] {
                    let said = check(&daemon.data(), arguments);
                    assert_eq!(said.damaged(), Vec::<&Value>::new());
                    assert_eq!(said.code, Some(0), "{:?}", said.lines);
                    seen += said.summary()["uploads"].as_u64().unwrap();
                }
            }
            seen
        });
        for round in 0..6 {
            let source = if round % 2 == 0 { &file } else { &other };
            let mut command = push(&daemon, source);
            if round == 3 {
                // A merger killed in the middle, too.
                let mut client = command.arg("--replace").spawn().unwrap();
                eventually("a merger is at work", || daemon.info("f", "merger_pid").is_some());
                let pid = daemon.info("f", "merger_pid").and_then(|pid| pid.parse().ok()).unwrap_or(0);
                signal_program(pid, "bigup-merger", Signal::SIGKILL);
                assert!(client.wait().unwrap().success());
            } else {
                succeed(command.arg("--replace").output().unwrap());
            }
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(checks.join().unwrap() > 0, "no check met an upload");
    });
    assert!(data::same(&other, &daemon.finished("f")));
    assert!(!daemon.data().join("damaged").exists());
}

#[test]
fn a_repair_beside_the_daemon_waits_for_the_merger_and_the_push_goes_on() {
    let daemon = daemon();
    let content = data::bytes(7, 6 * SLICE as usize);
    let begin = format!("file_name=f&slice_size={SLICE}&file_size={}", content.len());
    let post = |id: u64| {
        let slice = &content[(id * SLICE) as usize..((id + 1) * SLICE) as usize];
        daemon.server().post(&format!("file_name=f&slice_id={id}&slice_size={SLICE}"), slice).expect(200);
    };
    daemon.server().get(&begin).expect(200);
    [0, 1, 2, 4].into_iter().for_each(post);
    eventually("three slices are merged", || daemon.info("f", "curr_merge_slice_id").as_deref() == Some("3"));
    // While the merger is still there.
    flip(&spool(&daemon).join("merged"), SLICE);
    assert_eq!(check(&daemon.data(), &["--repair"]).expect(0).slices(), [(1, 1)]);
    assert_eq!(daemon.server().get(&begin).expect(200).held(), [0, 2, 4]);
    [1, 3, 5].into_iter().for_each(post);
    eventually("the file is finished", || daemon.finished("f").exists());
    assert!(fs::read(daemon.finished("f")).unwrap() == content);
    check(&daemon.data(), &[]).expect(0);
}

#[test]
fn a_repair_that_is_killed_loses_nothing_and_the_next_one_ends_it() {
    let mut dice = data::Dice::new(8);
    let mut daemon = daemon();
    let file = data::file(&daemon.scratch(), "f", 9, 64 << 20);
    for round in 0..4 {
        let mut client = push(&daemon, &file).spawn().unwrap();
        eventually_merged(&daemon, 100);
        kill_9(&mut client);
        eventually("the merger is gone", || daemon.info("f", "merger_pid").is_none());
        daemon.stop();
        flip(&spool(&daemon).join("merged"), 2 * SLICE);
        for _ in 0..2 {
            let mut repair = command(&daemon.data(), &["--repair"]).stdout(Stdio::null()).spawn().unwrap();
            std::thread::sleep(std::time::Duration::from_millis(5 + dice.below(60)));
            kill_9(&mut repair);
        }
        check(&daemon.data(), &["--repair"]).expect(0);
        check(&daemon.data(), &[]).expect(0);
        daemon.run();
        succeed(push(&daemon, &file).output().unwrap());
        assert!(data::same(&file, &daemon.finished("f")), "round {round}");
        // The same for the finished file, every other time.
        if round % 2 == 0 {
            flip(&daemon.finished("f"), 11 << 20);
            let mut repair = command(&daemon.data(), &["--repair"]).stdout(Stdio::null()).spawn().unwrap();
            std::thread::sleep(std::time::Duration::from_millis(5 + dice.below(60)));
            kill_9(&mut repair);
            check(&daemon.data(), &["--repair"]).expect(0);
            succeed(push(&daemon, &file).output().unwrap());
            assert!(data::same(&file, &daemon.finished("f")), "round {round}");
            check(&daemon.data(), &[]).expect(0);
        }
        fs::remove_file(daemon.finished("f")).unwrap();
    }
}

/// Folders in each other, deeper than any path that a program may name (PATH_MAX).
fn make_deep(folder: &Path) {
    use nix::fcntl::{OFlag, openat};
    use nix::sys::stat::{Mode, mkdirat};
    let mut at = std::os::fd::OwnedFd::from(File::open(folder).unwrap());
    for _ in 0..1500 {
        mkdirat(&at, "dd", Mode::S_IRWXU).unwrap();
        at = openat(&at, "dd", OFlag::O_DIRECTORY, Mode::empty()).unwrap();
    }
}

#[test]
fn links_pipes_and_deep_folders_are_neither_followed_nor_opened() {
    let mut daemon = daemon();
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("canary"), "c").unwrap();
    daemon.server().post("file_name=good&slice_num=1&slice_id=0&slice_size=1", b"x").expect(200);
    daemon.stop();
    let (files, tmp) = (daemon.data().join("files"), daemon.data().join("tmp"));
    let mode = nix::sys::stat::Mode::S_IRWXU;
    std::os::unix::fs::symlink(outside.path(), files.join("out")).unwrap();
    std::os::unix::fs::symlink(outside.path().join("canary"), files.join("link")).unwrap();
    nix::unistd::mkfifo(&files.join("fifo"), mode).unwrap();
    fs::write(files.join("evil\u{1b}[2J\n"), "x").unwrap();
    std::os::unix::fs::symlink(outside.path(), tmp.join("linked")).unwrap();
    nix::unistd::mkfifo(&tmp.join("fifo"), mode).unwrap();
    fs::create_dir(tmp.join("evil\u{1b}[2J")).unwrap();
    fs::create_dir(tmp.join("pipes")).unwrap();
    for name in ["upload.json", "digests", "merged", "merger.lock", "0"] {
        nix::unistd::mkfifo(&tmp.join("pipes").join(name), mode).unwrap();
    }
    make_deep(&files);

    let output = command(&daemon.data(), &["--repair"]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(!text.contains('\u{1b}'), "{text:?}");
    for line in ["1 files and 0 uploads checked", "4 damaged, 4 repaired", "4 files not known"] {
        assert!(text.contains(line), "{line}: {text}");
    }
    assert_eq!(list(&tmp), Vec::<String>::new());
    assert_eq!(fs::read(outside.path().join("canary")).unwrap(), b"c");
    assert_eq!(list(outside.path()), ["canary"]);
    // It needs no descriptor for each level.
    succeed(Command::new("rm").arg("-rf").arg(files.join("dd")).output().unwrap());
}
