//! A watched folder: each file arrives once, whole, and only when it is complete, whatever is done to it meanwhile and
//! whatever is killed; and local files end as they should.

use bigup_tests::daemon::Daemon;
use bigup_tests::data::Dice;
use bigup_tests::mapped::Mapped;
use bigup_tests::mount::Mount;
use bigup_tests::process::{eventually, eventually_equal, kill_9, signal};
use bigup_tests::scrape::promtool_says;
use bigup_tests::{data, needs_root, programs};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, SystemTime};

/// Time for which files must rest in these tests.
const QUIET: Duration = Duration::from_millis(300);

/// A watch that runs, and its events.
struct Watch {
    child: Child,
    events: Arc<Mutex<Vec<Value>>>,
    said: Arc<Mutex<String>>,
}

impl Watch {
    fn start(url: &str, folder: &Path, state: &Path, arguments: &[&str]) -> Watch {
        let mut command = programs::cli();
        command.arg("watch").arg(folder).args(["--url", url, "--json", "--settle", "300ms", "--state"]).arg(state);
        Watch::of(command, arguments)
    }

    fn of(mut command: Command, arguments: &[&str]) -> Watch {
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (events, said) = (Arc::new(Mutex::new(vec![])), Arc::new(Mutex::new(String::new())));
        let (stdout, mut stderr) = (BufReader::new(child.stdout.take().unwrap()), child.stderr.take().unwrap());
        let (all, text) = (Arc::clone(&events), Arc::clone(&said));
        thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                // A kill may cut the last one.
                all.lock().unwrap().extend(serde_json::from_str::<Value>(&line).ok());
            }
        });
        thread::spawn(move || {
            let mut bytes = vec![];
            let _ = stderr.read_to_end(&mut bytes);
            text.lock().unwrap().push_str(&String::from_utf8_lossy(&bytes));
        });
        let watch = Watch { child, events, said };
        eventually("it watches", || watch.count("watching") == 1 || watch.is_over());
        watch
    }

    fn is_over(&self) -> bool {
        fs::read_to_string(format!("/proc/{}/stat", self.child.id())).map_or(true, |stat| stat.contains(") Z "))
    }

    fn all(&self, event: &str) -> Vec<Value> {
        self.events.lock().unwrap().iter().filter(|found| found["event"] == event).cloned().collect()
    }

    fn count(&self, event: &str) -> usize {
        self.all(event).len()
    }

    /// The names in the events of this kind, in their order.
    fn names(&self, event: &str) -> Vec<String> {
        self.all(event).iter().map(|found| found["file_name"].as_str().unwrap_or_default().to_owned()).collect()
    }

    /// The reasons for which this file waited.
    fn reasons(&self, name: &str) -> Vec<String> {
        let waiting = self.all("waiting").into_iter().filter(|event| event["file_name"] == name);
        waiting.map(|event| event["reason"].as_str().unwrap().to_owned()).collect()
    }

    fn eventually_done(&self, name: &str) {
        eventually(&format!("{name} is stored"), || self.names("done").iter().any(|done| done == name));
    }

    fn kill_9(&mut self) {
        kill_9(&mut self.child);
    }

    fn stop(&mut self) -> ExitStatus {
        signal(self.child.id(), Signal::SIGTERM);
        self.child.wait().unwrap()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        kill_9(&mut self.child);
        if thread::panicking() {
            let events = self.events.lock().unwrap();
            let lines: Vec<String> = events.iter().rev().take(60).map(Value::to_string).collect();
            eprintln!(
                "--- last events, the latest first\n{}\n--- it said\n{}",
                lines.join("\n"),
                self.said.lock().unwrap()
            );
        }
    }
}

/// A daemon, a folder that is watched, and the place of the journal.
struct Place {
    daemon: Daemon,
    folder: PathBuf,
    state: PathBuf,
}

impl Place {
    fn new() -> Place {
        Place::of(Daemon::start())
    }

    fn of(daemon: Daemon) -> Place {
        let (folder, state) = (daemon.scratch().join("watched"), daemon.scratch().join("state"));
        fs::create_dir(&folder).unwrap();
        Place { daemon, folder, state }
    }

    fn watch(&self, arguments: &[&str]) -> Watch {
        Watch::start(self.daemon.url(), &self.folder, &self.state, &[&["--into", "in/"], arguments].concat())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        fs::write(self.path(name), content).unwrap();
    }

    fn stored(&self, name: &str) -> Option<Vec<u8>> {
        fs::read(self.daemon.finished(&format!("in/{name}"))).ok()
    }

    fn eventually_stored(&self, name: &str, content: impl AsRef<[u8]>) {
        eventually(&format!("{name} is stored"), || self.stored(name).as_deref() == Some(content.as_ref()));
    }
}

fn rest(times: u32) {
    thread::sleep(QUIET * times);
}

#[test]
fn files_that_are_there_and_files_that_come_are_pushed_once_and_a_restart_pushes_nothing() {
    let place = Place::new();
    place.write("there", "there");
    place.write("sub/deep/ü c", "x");
    data::file(&place.folder, "large", 1, 40 << 20);
    for left_out in ["x.part", "x.tmp", "~x", ".hidden", ".git/x"] {
        place.write(left_out, "unfinished");
    }
    let mut watch = place.watch(&[]);
    place.write("come", "come");
    place.write("new/folder/come", "too");
    place.write("empty", "");
    for (name, content) in [("there", "there"), ("sub/deep/ü c", "x"), ("come", "come"), ("new/folder/come", "too")] {
        place.eventually_stored(name, content);
    }
    place.eventually_stored("empty", "");
    watch.eventually_done("in/large");
    assert!(data::same(&place.path("large"), &place.daemon.finished("in/large")));
    rest(3);
    assert_eq!(watch.count("done"), 6, "{:?}", watch.names("done"));
    assert_eq!(watch.stop().signal(), Some(Signal::SIGTERM as i32));
    eventually("it says so", || watch.all("error").iter().any(|e| e["message"].as_str().unwrap().contains("stopped")));
    let watch = place.watch(&[]);
    assert_eq!(watch.all("watching")[0]["known"], 6);
    place.write("later", "later");
    watch.eventually_done("in/later");
    assert_eq!(watch.names("done"), ["in/later"]);
    let io = fs::read_to_string(format!("/proc/{}/io", watch.child.id())).unwrap();
    let read: u64 = io.lines().next().unwrap().trim_start_matches("rchar: ").parse().unwrap();
    assert!(read < 10 << 20, "the large file is not read again: {io}");
}

#[test]
fn a_file_that_is_open_for_writing_waits_and_the_writer_is_named() {
    let place = Place::new();
    let watch = place.watch(&[]);
    let mut writer = File::create(place.path("slow")).unwrap();
    for part in 0..4 {
        writer.write_all(&data::bytes(part, 1000)).unwrap();
        // Longer than it must rest.
        rest(3);
    }
    assert!(place.stored("slow").is_none() && place.daemon.spools().is_empty());
    let expected = format!("open for writing by process {}", std::process::id());
    eventually("the reason is told", || watch.reasons("in/slow").iter().any(|reason| reason.starts_with(&expected)));
    drop(writer);
    let whole: Vec<u8> = (0..4).flat_map(|part| data::bytes(part, 1000)).collect();
    place.eventually_stored("slow", whole);
    watch.eventually_done("in/slow");
    assert_eq!(watch.count("done"), 1);
}

#[test]
fn a_file_that_is_mapped_for_writing_waits() {
    let place = Place::new();
    let watch = place.watch(&[]);
    place.write("mapped", data::bytes(1, 8192));
    let mapped = Mapped::new(&place.path("mapped"));
    rest(5);
    assert!(place.stored("mapped").is_none());
    let mut expected = data::bytes(1, 8192);
    expected[5000] ^= 1;
    mapped.write(5000, &expected[5000..5001]);
    drop(mapped);
    place.eventually_stored("mapped", expected);
    assert!(watch.reasons("in/mapped").iter().any(|reason| reason.contains("mapped for writing")));
}

#[test]
fn a_writer_that_reopens_its_file_again_and_again_is_waited_for() {
    let place = Place::new();
    let _watch = place.watch(&[]);
    let mut whole = vec![];
    for part in 0..10 {
        let bytes = data::bytes(part, 5000);
        File::options().create(true).append(true).open(place.path("appended")).unwrap().write_all(&bytes).unwrap();
        whole.extend(bytes);
        thread::sleep(QUIET / 3);
    }
    assert!(place.stored("appended").is_none());
    place.eventually_stored("appended", whole);
}

#[test]
fn renamed_linked_and_moved_files_arrive_with_times_of_any_clock() {
    let place = Place::new();
    let _watch = place.watch(&[]);
    let outside = place.daemon.scratch();
    fs::write(outside.join("a"), "renamed").unwrap();
    fs::rename(outside.join("a"), place.path("renamed")).unwrap();
    fs::write(outside.join("b"), "linked").unwrap();
    fs::hard_link(outside.join("b"), place.path("linked")).unwrap();
    place.write("x.part", "in place");
    fs::rename(place.path("x.part"), place.path("x")).unwrap();
    fs::create_dir_all(outside.join("tree/sub")).unwrap();
    fs::write(outside.join("tree/sub/f"), "tree").unwrap();
    fs::rename(outside.join("tree"), place.path("tree")).unwrap();
    let hour = Duration::from_secs(3600);
    for (name, time) in [("ahead", SystemTime::now() + hour), ("behind", SystemTime::now() - hour)] {
        place.write(name, name);
        File::options().write(true).open(place.path(name)).unwrap().set_modified(time).unwrap();
    }
    let expected =
        [("renamed", "renamed"), ("linked", "linked"), ("x", "in place"), ("tree/sub/f", "tree"), ("ahead", "ahead")];
    for (name, content) in expected {
        place.eventually_stored(name, content);
    }
    place.eventually_stored("behind", "behind");
}

#[test]
fn a_file_that_changes_after_its_push_follows_the_policy() {
    for (policy, server) in [("error", "first"), ("replace", "second"), ("number", "first")] {
        let place = Place::new();
        let watch = place.watch(&["--changed", policy]);
        place.write("a.txt", "first");
        place.eventually_stored("a.txt", "first");
        place.write("a.txt", "second");
        match policy {
            "error" => eventually("it is told", || watch.names("error") == ["in/a.txt"]),
            "replace" => place.eventually_stored("a.txt", "second"),
            _ => place.eventually_stored("a-2.txt", "second"),
        }
        rest(3);
        assert_eq!(place.stored("a.txt").unwrap(), server.as_bytes(), "{policy}");
        assert!(watch.count("error") <= 1, "it is told once");
        // In place, and cut short without opening it for long.
        place.write("a.txt", "third");
        match policy {
            "error" => eventually("the new one is told", || watch.count("error") == 2),
            "replace" => place.eventually_stored("a.txt", "third"),
            _ => place.eventually_stored("a-3.txt", "third"),
        }
        let done = if policy == "error" { 1 } else { 3 };
        // By then it is in the journal.
        eventually("all are told", || watch.count("done") == done);
        drop(watch);
        let watch = place.watch(&["--changed", policy]);
        place.write("b", "b");
        place.eventually_stored("b", "b");
        assert_eq!(watch.names("done").iter().filter(|name| *name != "in/b").count(), 0, "{policy}");
    }
}

#[test]
fn files_that_are_rewritten_removed_and_moved_while_they_are_pushed_are_never_mixed() {
    let place = Place::new();
    let watch = place.watch(&["--limit-rate", "8M", "--slice-size", "1M", "--changed", "replace"]);
    for name in ["rewritten", "removed", "moved"] {
        data::file(&place.folder, name, 1, 8 << 20);
        eventually("its push moves", || {
            watch.all("progress").iter().any(|event| event["file_name"] == format!("in/{name}"))
        });
        match name {
            "rewritten" => drop(data::file(&place.folder, name, 2, 8 << 20)),
            "removed" => fs::remove_file(place.path(name)).unwrap(),
            _ => fs::rename(place.path(name), place.path("goal")).unwrap(),
        }
    }
    watch.eventually_done("in/rewritten");
    watch.eventually_done("in/goal");
    assert!(data::same(&place.path("rewritten"), &place.daemon.finished("in/rewritten")));
    assert!(data::same(&place.path("goal"), &place.daemon.finished("in/goal")));
    for gone in ["removed", "moved"] {
        assert!(place.stored(gone).is_none_or(|bytes| bytes == data::bytes(1, 8 << 20)), "{gone}");
    }
}

#[test]
fn a_server_that_is_away_is_waited_for_and_nothing_is_lost() {
    let mut place = Place::new();
    place.write("before", "before");
    place.daemon.kill_9();
    let mut watch = place.watch(&[]);
    eventually("it tries", || watch.count("retry") > 0);
    place.write("meanwhile", "meanwhile");
    watch.kill_9();
    let watch = place.watch(&["--retry-for", "1s"]);
    eventually("it gives one attempt up, and tells that the file waits", || {
        watch.reasons("in/before").iter().any(|reason| reason.contains("attempts"))
    });
    place.daemon.run();
    place.eventually_stored("before", "before");
    place.eventually_stored("meanwhile", "meanwhile");
    assert!(!watch.is_over() && watch.count("error") == 0, "{:?}", watch.all("error"));
}

#[test]
fn a_full_server_is_waited_for() {
    needs_root!("to mount a small file system");
    let mount = Mount::in_memory("tmpfs", "size=64M");
    let place = Place::of(Daemon::with_data(&mount.path().join("data"), &["--reserve", "8M"]));
    let filler = data::file(&mount.path(), "others", 1, 40 << 20);
    let watch = place.watch(&[]);
    data::file(&place.folder, "large", 2, 30 << 20);
    eventually("it is told", || watch.reasons("in/large").iter().any(|reason| reason.contains("disk space")));
    place.write("small", "small");
    fs::remove_file(filler).unwrap();
    watch.eventually_done("in/large");
    place.eventually_stored("small", "small");
    assert!(data::same(&place.path("large"), &place.daemon.finished("in/large")));
}

#[test]
fn many_files_in_many_folders_arrive_once_each() {
    const FILES: u64 = 3000;
    let place = Place::new();
    let mut watch = place.watch(&[]);
    let scratch = place.daemon.scratch();
    for n in 0..FILES {
        let name = format!("{}/{}/{n}", n % 50, n % 7);
        // Some at once, by a rename of all.
        data::file(if n < FILES / 2 { &place.folder } else { &scratch }, &format!("tree{}/{name}", n % 2), n, n * 3);
    }
    for n in 0..2 {
        fs::rename(scratch.join(format!("tree{n}")), place.path(&format!("moved{n}"))).unwrap();
    }
    eventually("all are stored", || watch.count("done") as u64 >= FILES);
    rest(3);
    let mut times: BTreeMap<String, u32> = BTreeMap::new();
    watch.names("done").into_iter().for_each(|name| *times.entry(name).or_default() += 1);
    assert_eq!((times.len() as u64, times.values().max()), (FILES, Some(&1)));
    for n in 0..FILES {
        let tree = if n < FILES / 2 { "tree" } else { "moved" };
        let name = format!("{tree}{}/{}/{}/{n}", n % 2, n % 50, n % 7);
        assert!(data::same(&place.path(&name), &place.daemon.finished(&format!("in/{name}"))), "{name}");
    }
    watch.kill_9();
    let watch = place.watch(&[]);
    assert_eq!(watch.all("watching")[0]["known"], FILES);
    assert_eq!(watch.all("watching")[0]["waiting"], 0);
}

#[test]
fn kills_of_watch_and_daemon_lose_nothing_and_push_nothing_half() {
    const FILES: u64 = 300;
    let mut place = Place::new();
    let mut dice = Dice::new(1);
    let mut watch = place.watch(&["--then", "delete"]);
    let mut made = 0;
    for round in 0..12 {
        for n in made..made + FILES / 12 {
            data::file(&place.folder, &format!("{}/{n}", n % 5), n, if n % 20 == 0 { 3 << 20 } else { 1000 + n });
        }
        made += FILES / 12;
        thread::sleep(Duration::from_millis(200 + dice.below(800)));
        if round % 3 == 2 {
            place.daemon.kill_9();
            place.daemon.run();
        }
        watch.kill_9();
        watch = place.watch(&["--then", "delete"]);
    }
    let left = || {
        let found = walk(&place.folder);
        found.into_iter().map(|path| path.display().to_string()).collect::<Vec<_>>()
    };
    eventually_equal("all are stored and removed", &Vec::new(), left);
    for n in 0..FILES {
        let len = if n % 20 == 0 { 3 << 20 } else { 1000 + n };
        let stored = place.stored(&format!("{}/{n}", n % 5));
        assert!(stored.is_some_and(|bytes| bytes == data::bytes(n, len as usize)), "{n}");
    }
}

/// All files below a folder.
fn walk(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

#[test]
fn stored_files_are_removed_or_moved_and_those_that_changed_stay() {
    let place = Place::new();
    let done = place.daemon.scratch().join("done");
    let moves = format!("move={}", done.display());
    let mut watch = place.watch(&["--then", &moves]);
    place.write("sub/a", "a");
    eventually("it is moved", || done.join("sub/a").exists() && !place.path("sub/a").exists());
    assert_eq!(place.stored("sub/a").unwrap(), b"a");
    eventually("it is told", || watch.names("source_moved") == ["in/sub/a"]);
    watch.kill_9();
    // A folder inside the watched one is not pushed in turn.
    let inside = place.path("done");
    let mut watch = place.watch(&["--then", &format!("move={}", inside.display())]);
    place.write("b", "b");
    eventually("it is moved", || inside.join("b").exists());
    place.write("c", "c");
    eventually("it is moved too", || inside.join("c").exists());
    assert!(place.stored("done/b").is_none());
    watch.kill_9();
    let slow = ["--limit-rate", "8M", "--slice-size", "1M"];
    let watch = place.watch(&[&["--then", "delete", "--changed", "replace"], &slow[..]].concat());
    data::file(&place.folder, "large", 1, 8 << 20);
    eventually("its push moves", || watch.all("progress").iter().any(|event| event["file_name"] == "in/large"));
    let writer = File::options().append(true).open(place.path("large")).unwrap();
    // It is not changed, and may be.
    watch.eventually_done("in/large");
    rest(3);
    assert!(place.path("large").exists(), "somebody has it open for writing");
    (&writer).write_all(b"more").unwrap();
    drop(writer);
    eventually("the changed one is stored and removed", || !place.path("large").exists());
    assert_eq!(fs::metadata(place.daemon.finished("in/large")).unwrap().len(), (8 << 20) + 4);
}

#[test]
fn a_folder_goes_when_its_marker_is_there_and_the_marker_goes_last() {
    let place = Place::new();
    let done = place.daemon.scratch().join("done");
    let moves = format!("move={}", done.display());
    let watch = place.watch(&["--ready-when", "CopyComplete.txt", "--then", &moves]);
    place.write("run1/a", "a");
    data::file(&place.folder, "run1/deep/large", 1, 5 << 20);
    place.write("alone", "alone");
    eventually("the reason is told", || {
        watch.reasons("in/run1/").iter().any(|reason| reason.contains("--ready-when CopyComplete.txt"))
    });
    place.eventually_stored("alone", "alone");
    rest(3);
    assert!(place.stored("run1/a").is_none());
    // One of its files is not complete when the marker comes.
    let mut slow = File::create(place.path("run1/slow")).unwrap();
    slow.write_all(b"half").unwrap();
    place.write("run1/CopyComplete.txt", "");
    eventually("the marker waits", || {
        watch.reasons("in/run1/CopyComplete.txt").iter().any(|r| r.contains("goes last"))
    });
    rest(3);
    assert!(place.stored("run1/CopyComplete.txt").is_none() && place.path("run1/a").exists());
    slow.write_all(b" and whole").unwrap();
    drop(slow);
    watch.eventually_done("in/run1/CopyComplete.txt");
    let order = watch.names("done");
    assert_eq!(order.iter().filter(|name| name.starts_with("in/run1/")).count(), 4);
    assert_eq!(order.iter().rfind(|name| name.starts_with("in/run1/")).unwrap(), "in/run1/CopyComplete.txt");
    assert_eq!(place.stored("run1/slow").unwrap(), b"half and whole");
    eventually("the whole folder is moved", || !place.path("run1").exists());
    assert!(done.join("run1/CopyComplete.txt").exists() && done.join("run1/deep/large").exists());
}

#[test]
fn a_second_watch_of_the_same_is_refused_and_mistakes_are_told() {
    let place = Place::new();
    let _watch = place.watch(&[]);
    let mut command = programs::cli();
    let run = |command: &mut Command| {
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    command.arg("watch").arg(&place.folder).args(["--url", place.daemon.url(), "--into", "in/", "--state"]);
    let (code, said) = run(command.arg(&place.state));
    assert!(code == Some(1) && said.contains("another watch of this folder"), "{said}");
    let watch = |arguments: &[&str]| {
        let mut command = programs::cli();
        command.args(["watch", "--url", place.daemon.url(), "--state"]).arg(place.daemon.scratch().join("other"));
        run(command.args(arguments))
    };
    let folder = place.folder.to_str().unwrap();
    place.write("watch.prom", "mine");
    for (arguments, code, why) in [
        (&["/nonexistent"][..], 1, "is no folder"),
        (&[folder, "--into", "../x"], 1, "--into"),
        (&[folder, "--then", "remove"], 2, "move=DIR"),
        (&[folder, "--then", &format!("move={folder}")], 1, "is the watched folder"),
        (&[folder, "--name", "x"], 2, "of push"),
        (&[folder, "--metrics-file", "watch.txt"], 2, ".prom"),
        (&[folder, "--metrics-file", "/nonexistent/watch.prom"], 1, "--metrics-file /nonexistent/watch.prom"),
        (&[folder, "--metrics-file", &format!("{folder}/watch.prom")], 1, "is in the watched folder"),
        (&[folder, folder], 2, "2 are given"),
    ] {
        let (found, said) = watch(arguments);
        assert!(found == Some(code) && said.contains(why), "{arguments:?}: {said}");
    }
    assert_eq!(fs::read(place.path("watch.prom")).unwrap(), b"mine", "a refused file of metrics was written");
}

#[test]
fn lost_events_and_used_up_watches_are_made_good_by_scans() {
    let place = Place::new();
    let watch = place.watch(&["--exclude", "*.noise"]);
    signal(watch.child.id(), Signal::SIGSTOP);
    // Two events each, and the system keeps 16,384.
    for n in 0..9000 {
        place.write(&format!("{n}.noise"), "");
    }
    place.write("last", "last");
    signal(watch.child.id(), Signal::SIGCONT);
    place.eventually_stored("last", "last");
}

#[test]
fn where_watches_are_used_up_folders_are_scanned_and_that_is_told() {
    needs_root!("to make a user namespace with few watches");
    let place = Place::new();
    for n in 0..20 {
        place.write(&format!("{n}/f"), "there");
    }
    let script = r#"echo 5 >/proc/sys/user/max_inotify_watches && exec "$@""#;
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "sh", "-c", script, "sh"]).arg(programs::path("bigup-cli"));
    command.env("XDG_CONFIG_HOME", "/nonexistent").arg("watch").arg(&place.folder);
    command.args(["--url", place.daemon.url(), "--json", "--settle", "300ms", "--state"]).arg(&place.state);
    let watch = Watch::of(command, &["--into", "in/", "--poll", "500ms"]);
    let told = watch.all("scanning");
    assert!(told.len() == 1 && told[0]["reason"].as_str().unwrap().contains("max_user_watches"), "{told:?}");
    for n in 0..20 {
        place.eventually_stored(&format!("{n}/f"), "there");
    }
    place.write("15/new/f", "new");
    place.eventually_stored("15/new/f", "new");
}

/// A file that is written to `path` for some seconds: 48 MiB at 16 MiB a second, and its head once more at the end.
fn write_slowly(path: PathBuf, content: Vec<u8>) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        let mut file = File::create(path).unwrap();
        file.write_all(&[0; 1000]).unwrap();
        for part in content[1000..].chunks(1 << 20) {
            file.write_all(part).unwrap();
            thread::sleep(Duration::from_millis(60));
        }
        file.write_all_at(&content[..1000], 0).unwrap();
    })
}

#[test]
fn a_growing_file_is_sent_while_it_grows_and_appears_once_it_is_complete() {
    let daemon = Daemon::start();
    let (folder, state) = (daemon.scratch().join("in"), daemon.scratch().join("state"));
    fs::create_dir(&folder).unwrap();
    let watch = Watch::start(daemon.url(), &folder, &state, &["--follow", "--slice-size", "1M"]);
    let content = data::bytes(1, 48 << 20);
    let writer = write_slowly(folder.join("f"), content.clone());
    let merged = || daemon.info("f", "curr_merge_slice_id").and_then(|id| id.parse::<u64>().ok()).unwrap_or(0);
    eventually("it is merged while it grows", || merged() > 4);
    assert!(!writer.is_finished() && !daemon.finished("f").exists());
    writer.join().unwrap();
    watch.eventually_done("f");
    assert!(fs::read(daemon.finished("f")).unwrap() == content);
    assert_eq!((watch.names("following"), watch.names("followed")), (vec!["f".to_owned()], vec!["f".to_owned()]));
    let sent = |event: &str| watch.all(event)[0]["bytes_sent"].as_u64().unwrap();
    // The head was sent twice.
    let (ahead, after) = (sent("followed"), sent("done"));
    assert!(ahead >= 20 << 20 && ahead + after >= 49 << 20 && after <= 40 << 20, "{ahead} ahead, {after} after");
    daemon.eventually_clean();
}

#[test]
fn four_files_at_most_are_followed_at_a_time() {
    let place = Place::new();
    let watch = place.watch(&["--follow"]);
    let writers: Vec<(File, u64)> = (0..6)
        .map(|n| {
            let writer = File::create(place.path(&format!("f{n}"))).unwrap();
            (&writer).write_all(&data::bytes(n, 18 << 20)).unwrap();
            (writer, n)
        })
        .collect();
    eventually("four are on their way", || place.daemon.spools().len() == 4);
    for _ in 0..10 {
        rest(1);
        assert_eq!(place.daemon.spools().len(), 4);
    }
    for (writer, n) in writers {
        (&writer).write_all(&[7]).unwrap();
        drop(writer);
        place.eventually_stored(&format!("f{n}"), [data::bytes(n, 18 << 20), vec![7]].concat());
    }
    assert!(watch.all("error").is_empty());
}

#[test]
fn a_followed_file_that_is_cut_short_rewritten_or_removed_is_never_mixed() {
    let daemon = Daemon::start();
    let (folder, state) = (daemon.scratch().join("in"), daemon.scratch().join("state"));
    fs::create_dir(&folder).unwrap();
    let watch = Watch::start(daemon.url(), &folder, &state, &["--follow", "--slice-size", "1M"]);
    let begin = |name: &str| {
        let mut file = File::create(folder.join(name)).unwrap();
        file.write_all(&data::bytes(7, 20 << 20)).unwrap();
        eventually("it is followed", || watch.names("following").iter().any(|followed| followed == name));
        eventually("some of it is held", || daemon.info(name, "curr_merge_slice_id").is_some_and(|id| id != "0"));
        file
    };
    let short = begin("short");
    short.set_len(5 << 20).unwrap();
    drop(short);
    let other = begin("other");
    other.write_all_at(&data::bytes(8, 20 << 20), 0).unwrap();
    drop(other);
    drop(begin("removed"));
    let _ = fs::remove_file(folder.join("removed"));
    for name in ["short", "other"] {
        watch.eventually_done(name);
        assert!(data::same(&folder.join(name), &daemon.finished(name)), "{name}");
    }
    let is_whole = |name: &str| fs::read(daemon.finished(name)).map_or(true, |is| is == data::bytes(7, 20 << 20));
    assert!(is_whole("removed"), "it is not there, or was pushed in the moment before");
}

#[test]
fn a_followed_file_survives_kills_of_watch_and_daemon() {
    let mut daemon = Daemon::start();
    let (folder, state) = (daemon.scratch().join("in"), daemon.scratch().join("state"));
    fs::create_dir(&folder).unwrap();
    let content = data::bytes(2, 48 << 20);
    let writer = write_slowly(folder.join("f"), content.clone());
    let mut watch = Watch::start(daemon.url(), &folder, &state, &["--follow", "--slice-size", "1M"]);
    for _ in 0..3 {
        eventually("it is followed", || watch.count("following") > 0);
        thread::sleep(Duration::from_millis(300));
        watch.kill_9();
        daemon.kill_9();
        daemon.run();
        watch = Watch::start(daemon.url(), &folder, &state, &["--follow", "--slice-size", "1M"]);
    }
    writer.join().unwrap();
    eventually("it is stored", || daemon.finished("f").exists());
    watch.eventually_done("f");
    assert!(fs::read(daemon.finished("f")).unwrap() == content);
    daemon.eventually_clean();
}

#[test]
fn a_revoked_token_ends_the_watch() {
    let place = Place::new();
    let mut bigupd = Command::new(programs::path("bigupd"));
    let made =
        bigupd.arg("--data-dir").arg(place.daemon.data()).args(["token", "new", "t", "--prefix", "alice"]).output();
    let token = String::from_utf8(made.unwrap().stdout).unwrap();
    let mut command = programs::cli();
    command.env("BIGUP_TOKEN", token.trim()).arg("watch").arg(&place.folder).args([
        "--url",
        place.daemon.url(),
        "--json",
    ]);
    let mut watch = Watch::of(command, &["--settle", "300ms", "--state", place.state.to_str().unwrap()]);
    place.write("a", "a");
    // Without --into, the folder that the token is for.
    watch.eventually_done("alice/a");
    let mut bigupd = Command::new(programs::path("bigupd"));
    let revoked = bigupd.arg("--data-dir").arg(place.daemon.data()).args(["token", "revoke", "t"]).output().unwrap();
    assert!(revoked.status.success(), "{revoked:?}");
    // The daemon reads its tokens again within a moment.
    eventually("it ends", || {
        place.write("b", data::bytes(1, 100));
        thread::sleep(QUIET);
        watch.is_over()
    });
    assert_eq!(watch.child.wait().unwrap().code(), Some(1));
    assert!(watch.all("error").iter().any(|event| event["message"].as_str().unwrap().contains("token")));
}

#[test]
fn a_file_that_is_too_young_waits_and_a_stored_one_stays_for_its_time() {
    let place = Place::new();
    place.write("a", "a");
    let began = SystemTime::now();
    let watch = place.watch(&["--min-age", "3s", "--then", "delete", "--keep-for", "6s", "--scan", "500ms"]);
    eventually("the reason is told", || watch.reasons("in/a").iter().any(|reason| reason.contains("(--min-age)")));
    watch.eventually_done("in/a");
    assert!(began.elapsed().unwrap() >= Duration::from_millis(2900), "it was pushed too early");
    assert!(place.path("a").exists(), "it was removed too early");
    eventually("it is removed", || !place.path("a").exists());
    assert!(began.elapsed().unwrap() >= Duration::from_millis(5900), "it was removed too early");
    assert_eq!(place.stored("a").unwrap(), b"a");
}

#[test]
fn a_file_from_the_future_says_so_while_it_waits() {
    let place = Place::new();
    place.write("f", "x");
    let tomorrow = SystemTime::now() + Duration::from_secs(24 * 3600);
    File::options().append(true).open(place.path("f")).unwrap().set_modified(tomorrow).unwrap();
    let watch = place.watch(&["--min-age", "1s"]);
    eventually("the reason is told", || watch.reasons("in/f").iter().any(|reason| reason.contains("in the future")));
    place.write("g", "x");
    watch.eventually_done("in/g");
    assert!(place.stored("f").is_none());
}

/// The names in the watched folder.
fn left(place: &Place) -> Vec<String> {
    bigup_tests::daemon::list(&place.folder)
}

#[test]
fn when_the_disk_is_short_the_oldest_stored_files_go_first() {
    needs_root!("to mount a small disk");
    let mount = Mount::in_memory("tmpfs", "size=64M");
    let mut place = Place::new();
    place.folder = mount.path().join("watched");
    fs::create_dir(&place.folder).unwrap();
    let write = |names: std::ops::Range<u64>| {
        for n in names {
            data::file(&place.folder, &format!("f{n}"), n, 4 << 20);
            rest(1);
        }
    };
    write(0..4);
    // 48 MiB are free of 64.
    let watch = place.watch(&["--then", "delete", "--keep-free", "60%", "--scan", "500ms", "--poll", "500ms"]);
    eventually("all are stored", || (0..4).all(|n| place.stored(&format!("f{n}")).is_some()));
    rest(5);
    assert_eq!(left(&place).len(), 4, "there is space enough");
    write(4..8);
    // 38.4 MiB are wanted: two files go.
    eventually("the disk is short no more", || left(&place).len() == 6);
    rest(5);
    assert_eq!(left(&place), ["f2", "f3", "f4", "f5", "f6", "f7"]);
    // Nothing that is not stored goes.
    data::file(&place.folder, "huge.part", 9, 30 << 20);
    eventually("all stored files go", || left(&place) == ["huge.part"]);
    eventually("that is told", || {
        watch.all("error").iter().any(|e| e["message"].as_str().unwrap().contains("--keep-free 60%"))
    });
    assert_eq!(watch.count("error"), 1);
    for n in 0..8 {
        assert!(place.stored(&format!("f{n}")).unwrap() == data::bytes(n, 4 << 20), "f{n}");
    }
}

#[test]
fn monitors_read_the_state_of_a_watch() {
    let place = Place::new();
    let metrics = place.daemon.scratch().join("watch.prom");
    let status = |arguments: &[&str]| {
        let mut command = programs::cli();
        command.args(["watch", "--status", "--url", "http://nowhere.example", "--state"]).arg(&place.state);
        let output = command.arg(&place.folder).args(arguments).output().unwrap();
        let said = [&output.stdout[..], &output.stderr[..]].map(String::from_utf8_lossy).concat();
        (output.status.code(), said)
    };
    let (code, said) = status(&[]);
    assert!(code == Some(1) && (said.contains("no watch of") || said.contains("No such file")), "{said}");
    let mut watch = place.watch(&["--metrics-file", metrics.to_str().unwrap()]);
    place.write("sub/stored", "12345");
    let mut writer = File::create(place.path("open")).unwrap();
    writer.write_all(b"x").unwrap();
    watch.eventually_done("in/sub/stored");
    let state = || -> Value { serde_json::from_str(&status(&["--json"]).1).unwrap() };
    eventually("the state has all", || {
        let state = state();
        state["stored"] == 1
            && state["files"][0]["reason"].as_str().is_some_and(|reason| reason.contains("open for writing"))
    });
    let found = state();
    assert_eq!((&found["stored_bytes"], &found["waiting"], &found["at_work"]), (&5.into(), &1.into(), &true.into()));
    assert_eq!(found["files"][0]["file_name"], "in/open");
    assert_eq!((&found["known"], &found["failed"], &found["pid"]), (&1.into(), &0.into(), &watch.child.id().into()));
    let (code, said) = status(&[]);
    assert!(code == Some(0) && said.contains("at work for") && said.contains("  in/open: open for writing"), "{said}");
    let text = fs::read_to_string(&metrics).unwrap();
    assert_eq!(promtool_says(&["check", "metrics"], &text), "");
    assert!(text.contains("bigup_watch_stored_bytes_total{") && text.contains("} 5\n"), "{text}");
    // A second watch to the same place is refused, and writes nothing.
    let mut second = programs::cli();
    second.args(["watch", "--url", place.daemon.url(), "--into", "in/", "--metrics-file"]).arg(&metrics);
    let refused = second.arg("--state").arg(&place.state).arg(&place.folder).output().unwrap();
    assert_eq!(refused.status.code(), Some(1));
    assert!(fs::read_to_string(&metrics).unwrap().contains("bigup_watch_stored_bytes_total{"));
    drop(writer);
    watch.eventually_done("in/open");
    watch.kill_9();
    let (code, said) = status(&[]);
    assert!(code == Some(1) && said.contains("not at work"), "{said}");
    assert_eq!(state()["at_work"], false);
}
