//! Pushing with the real client: what arrives is exact, whatever its size and however it is cut, and what is shown is
//! true.

use bigup_tests::daemon::{Daemon, list};
use bigup_tests::data;
use bigup_tests::mapped::Mapped;
use bigup_tests::process::{eventually, signal};
use bigup_tests::programs::{self, succeed};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn push(daemon: &Daemon, arguments: &[&str]) -> Command {
    let mut command = programs::cli();
    command.arg("push").args(["--url", daemon.url()]).args(arguments);
    command
}

fn run(mut command: Command) -> Output {
    command.output().expect("the client can be started")
}

/// Runs a command that must fail with `code`; all that it printed.
fn fail(command: Command, code: i32) -> String {
    let output = run(command);
    let said = String::from_utf8_lossy(&[output.stderr, output.stdout].concat()).into_owned();
    assert_eq!(output.status.code(), Some(code), "{said}");
    said
}

fn text(path: &Path) -> &str {
    path.to_str().expect("paths of tests are UTF-8")
}

#[test]
fn files_of_all_sizes_around_the_slice_size_arrive_exact() {
    let daemon = Daemon::start();
    const SLICE: u64 = 64 << 10;
    for slices in [0, 1, 2, 3, 17] {
        for len in [(slices * SLICE).saturating_sub(1), slices * SLICE, slices * SLICE + 1] {
            let name = format!("f{len}");
            let file = data::file(&daemon.scratch(), &name, len, len);
            // Above the size that goes in one request, which would leave most of these sizes untested.
            let out = succeed(push(&daemon, &[text(&file), "--slice-size", "64K"]));
            assert!(out.contains(&data::digest(&file)), "{out}");
            assert!(data::same(&file, &daemon.finished(&name)), "{len} bytes");
        }
    }
    daemon.eventually_clean();
}

#[test]
fn slice_sizes_that_are_no_power_of_two_arrive_exact_and_verified() {
    let daemon = Daemon::start();
    let file = data::file(&daemon.scratch(), "odd", 1, 3_000_001);
    let out = succeed(push(&daemon, &[text(&file), "--slice-size", "300000"]));
    assert!(out.contains(&data::digest(&file)), "{out}");
    assert!(data::same(&file, &daemon.finished("odd")));
}

#[test]
fn a_hundred_thousand_slices_arrive_exact() {
    // In memory: file systems differ by an order of magnitude in how fast they make and remove small files.
    let daemon = Daemon::in_folder(tempfile::tempdir_in("/dev/shm").unwrap(), &[]);
    let file = data::file(&daemon.scratch(), "many", 2, (100_000 << 10) - 1);
    let out = succeed(push(&daemon, &[text(&file), "--slice-size", "1K", "--senders", "8"]));
    assert!(out.contains(&data::digest(&file)), "{out}");
    assert!(data::same(&file, &daemon.finished("many")));
    daemon.eventually_clean();
}

#[test]
fn a_folder_keeps_its_paths_and_leaves_links_alone() {
    let daemon = Daemon::start();
    let tree = daemon.scratch().join("tree");
    for (name, len) in [("a", 10), ("sub/b", 2_000_000), ("sub/deep/ü c", 0)] {
        data::file(&tree, name, len, len);
    }
    std::os::unix::fs::symlink("a", tree.join("link")).unwrap();
    let out = succeed(push(&daemon, &[text(&tree)]));
    assert!(out.contains("3 files"), "{out}");
    for name in ["a", "sub/b", "sub/deep/ü c"] {
        assert!(data::same(&tree.join(name), &daemon.finished("tree").join(name)), "{name}");
    }
    assert!(!daemon.finished("tree/link").exists());
    succeed(push(&daemon, &[text(&tree), "--name", "other/place", "--follow-symlinks"]));
    assert!(data::same(&tree.join("a"), &daemon.finished("other/place/link")));
}

#[test]
fn several_files_are_pushed_and_one_that_fails_does_not_stop_the_others() {
    let daemon = Daemon::start();
    let (one, two) = (data::file(&daemon.scratch(), "one", 1, 5), data::file(&daemon.scratch(), "two", 2, 3 << 20));
    let errors = fail(push(&daemon, &[text(&one), "/nonexistent/x", text(&two)]), 1);
    assert!(errors.contains("/nonexistent/x"), "{errors}");
    assert!(data::same(&one, &daemon.finished("one")) && data::same(&two, &daemon.finished("two")));
}

#[test]
fn standard_input_of_any_length_is_stored() {
    let daemon = Daemon::start();
    for len in [0, 1, 64 << 10, (64 << 10) + 1, 128 << 10, 1_000_000] {
        let (name, bytes) = (format!("in{len}"), data::bytes(7, len));
        let mut command = push(&daemon, &["-", "--name", &name, "--slice-size", "64K"]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(&bytes).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{len}: {output:?}");
        assert_eq!(std::fs::read(daemon.finished(&name)).unwrap(), bytes, "{len}");
        assert!(String::from_utf8_lossy(&output.stdout).contains(&blake3::hash(&bytes).to_string()));
    }
}

#[test]
fn json_lines_tell_the_whole_story() {
    let daemon = Daemon::start();
    let file = data::file(&daemon.scratch(), "f", 3, 5 << 20);
    let out = succeed(push(&daemon, &[text(&file), "--slice-size", "1M", "--json"]));
    let events: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |name: &str| events.iter().filter(|e| e["event"] == name).collect::<Vec<_>>();
    assert_eq!(of("start")[0]["slice_num"], 5);
    assert_eq!(of("start")[0]["slices_held"], 0);
    assert_eq!(of("progress").last().unwrap()["bytes_stored"], 5 << 20);
    assert_eq!(of("done")[0]["file_digest"], data::digest(&file));
    assert_eq!(of("done")[0]["bytes_sent"], 5 << 20);
    assert_eq!(events.last().unwrap()["event"], "done");
}

#[test]
fn without_a_terminal_there_is_no_bar_and_quiet_means_quiet() {
    let daemon = Daemon::start();
    let file = data::file(&daemon.scratch(), "f", 3, 5 << 20);
    let output = run(push(&daemon, &[text(&file)]));
    assert!(!output.stderr.contains(&b'\r') && !output.stderr.contains(&0x1b), "{output:?}");
    let output = run(push(&daemon, &[text(&file), "--quiet"]));
    assert!(output.status.success() && output.stdout.is_empty() && output.stderr.is_empty(), "{output:?}");
}

#[test]
fn what_is_finished_is_not_pushed_again() {
    let daemon = Daemon::start();
    let file = data::file(&daemon.scratch(), "f", 4, 5 << 20);
    succeed(push(&daemon, &[text(&file), "--slice-size", "1M"]));
    let requests = |daemon: &Daemon| daemon.log().matches(" stored, ").count();
    let before = requests(&daemon);
    let out = succeed(push(&daemon, &[text(&file), "--json"]));
    let done: Value = serde_json::from_str(out.lines().last().unwrap()).unwrap();
    assert_eq!((&done["already"], &done["bytes_sent"]), (&Value::Bool(true), &Value::from(0)));
    assert_eq!(done["file_digest"], data::digest(&file));
    // A copy is another source of the same content: compared by digest, not sent.
    let copy = daemon.scratch().join("copy");
    std::fs::copy(&file, &copy).unwrap();
    succeed(push(&daemon, &[text(&copy), "--name", "f"]));
    assert_eq!(requests(&daemon), before, "no slice was sent");
}

#[test]
fn another_content_is_refused_unless_it_is_to_replace() {
    let daemon = Daemon::start();
    for (one, two) in [(3 << 20, 4 << 20), (3 << 20, 3 << 20), (10, 10), (10, 11), (5, 3 << 20)] {
        let name = format!("f{one}-{two}");
        let first = data::file(&daemon.scratch(), "first", one, one);
        let second = data::file(&daemon.scratch(), "second", two + 1, two);
        succeed(push(&daemon, &[text(&first), "--name", &name]));
        let errors = fail(push(&daemon, &[text(&second), "--name", &name]), 1);
        assert!(errors.contains("--replace"), "{errors}");
        assert!(data::same(&first, &daemon.finished(&name)));
        succeed(push(&daemon, &[text(&second), "--name", &name, "--replace"]));
        assert!(data::same(&second, &daemon.finished(&name)), "{name}");
        succeed(push(&daemon, &[text(&second), "--name", &name, "--replace"]));
    }
    daemon.eventually_clean();
}

#[test]
fn verify_and_status_tell_how_things_stand() {
    let daemon = Daemon::start();
    let file = data::file(&daemon.scratch(), "f", 5, 2 << 20);
    let command = |arguments: &[&str]| {
        let mut command = programs::cli();
        command.args(arguments).args(["--url", daemon.url()]);
        command
    };
    let errors = fail(command(&["verify", text(&file)]), 1);
    assert!(errors.contains("not on the server"), "{errors}");
    daemon.server().get("file_name=half%2Fway&slice_num=4").expect(200);
    daemon.server().post("file_name=half%2Fway&slice_id=1&slice_size=1024", &[7; 1024]).expect(200);
    let out = succeed(command(&["status"]));
    assert!(out.contains("half/way"), "{out}");
    let out = succeed(command(&["status", "half/way", "--json"]));
    let status: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&status["slice_num"], &status["is_uploaded"]), (&Value::from(4), &Value::from(0)));
    succeed(push(&daemon, &[text(&file)]));
    let out = succeed(command(&["verify", text(&file)]));
    assert!(out.contains(&data::digest(&file)), "{out}");
    let stored = data::digest(&file);
    data::file(&daemon.scratch(), "f", 6, 2 << 20);
    let said = fail(command(&["verify", text(&file)]), 1);
    assert!(said.contains(&stored) && said.contains(&data::digest(&file)), "{said}");
    fail(command(&["status", "nothing-here"]), 1);
}

/// Runs `bigup-cli verify` with these arguments.
fn verify(daemon: &Daemon, arguments: &[&str]) -> Command {
    let mut command = programs::cli();
    command.arg("verify").args(["--url", daemon.url()]).args(arguments);
    command
}

/// Changes the first byte of a file, and puts its time of the last write back.
fn change_slyly(path: &Path) {
    use std::os::unix::fs::FileExt;
    // Of another tick of the file system's clock.
    std::thread::sleep(std::time::Duration::from_millis(50));
    let file = std::fs::File::options().read(true).write(true).open(path).unwrap();
    let (found, mut byte) = (file.metadata().unwrap(), [0]);
    file.read_exact_at(&mut byte, 0).unwrap();
    file.write_all_at(&[!byte[0]], 0).unwrap();
    file.set_modified(found.modified().unwrap()).unwrap();
}

#[test]
fn verify_takes_folders_and_tells_what_differs_from_what_cannot_be_compared() {
    let daemon = Daemon::start();
    let tree = daemon.scratch().join("tree");
    let files = [("a", 10), ("sub/b", 2 << 20)].map(|(name, len)| data::file(&tree, name, len, len));
    succeed(push(&daemon, &[text(&tree)]));
    let out = succeed(verify(&daemon, &[text(&tree)]));
    assert!(out.contains("tree/a: equal") && out.contains("tree/sub/b: equal") && out.contains("2 files"), "{out}");
    std::fs::write(tree.join("new"), "x").unwrap();
    let said = fail(verify(&daemon, &[text(&tree)]), 1);
    assert!(said.contains("tree/new: not on the server") && said.contains("tree/a: equal"), "{said}");
    std::fs::remove_file(tree.join("new")).unwrap();
    data::file(&tree, "a", 11, 10);
    let said = fail(verify(&daemon, &[text(&tree), "--json"]), 1);
    let equal = |line: &str| serde_json::from_str::<Value>(line).unwrap()["equal"].as_bool().unwrap();
    assert_eq!(said.lines().map(equal).collect::<Vec<_>>(), [false, true], "{said}");
    // What cannot be compared counts for more than what differs.
    let said = fail(verify(&daemon, &[text(&tree), "/nonexistent/x"]), 2);
    assert!(said.contains("DIFFERS") && said.contains("/nonexistent/x"), "{said}");
    let mut nowhere = programs::cli();
    nowhere.args(["verify", text(&files[1]), "--url", "http://127.0.0.1:1"]);
    fail(nowhere, 2);
    fail(verify(&daemon, &[text(&files[0]), text(&files[1]), "--name", "x"]), 2);
}

#[test]
fn a_finished_file_that_was_changed_with_its_old_time_is_not_called_equal() {
    let daemon = Daemon::start();
    for len in [100, 3 << 20] {
        let (name, file) = (format!("f{len}"), data::file(&daemon.scratch(), &format!("f{len}"), len, len));
        succeed(push(&daemon, &[text(&file), "--slice-size", "1M"]));
        change_slyly(&daemon.finished(&name));
        let said = fail(verify(&daemon, &[text(&file)]), 1);
        assert!(said.contains("DIFFERS"), "{said}");
        let said = fail(push(&daemon, &[text(&file)]), 1);
        assert!(said.contains(&data::digest(&daemon.finished(&name))) && said.contains("--replace"), "{said}");
        succeed(push(&daemon, &[text(&file), "--replace"]));
        assert!(data::same(&file, &daemon.finished(&name)));
    }
}

#[test]
fn a_file_whose_digest_was_lost_is_read_where_it_is_and_not_sent_again() {
    let daemon = Daemon::start();
    for len in [100, 3 << 20] {
        let (name, file) = (format!("f{len}"), data::file(&daemon.scratch(), &format!("f{len}"), len, len));
        for input in [text(&file), "-"] {
            // As by a restore without extended attributes.
            std::fs::copy(&file, daemon.finished(&name)).unwrap();
            let mut command = push(&daemon, &[input, "--name", &name, "--slice-size", "64K", "--json"]);
            command.stdin(std::fs::File::open(&file).unwrap());
            let out = succeed(command);
            assert!(out.contains("\"bytes_sent\":0"), "{input}: {out}");
            std::fs::remove_file(daemon.finished(&name)).unwrap();
        }
    }
}

#[test]
fn other_attributes_of_a_source_do_not_fail_its_push_and_other_bytes_do() {
    let daemon = Daemon::start();
    for is_changed in [false, true] {
        let name = format!("f{is_changed}");
        let file = data::file(&daemon.scratch(), &name, 1, 6 << 20);
        // Two senders: more would have all of it read before it is changed.
        let arguments = [text(&file), "--slice-size", "256K", "--senders", "2", "--limit-rate", "2M", "--quiet"];
        let mut command = push(&daemon, &arguments);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        eventually("slices are stored", || daemon.log().matches(&format!("{name}: slice ")).count() > 2);
        signal(child.id(), Signal::SIGSTOP);
        if is_changed {
            change_slyly(&file);
        } else {
            std::fs::hard_link(&file, daemon.scratch().join("link")).unwrap();
        }
        signal(child.id(), Signal::SIGCONT);
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.success(), !is_changed, "{said}");
        if is_changed {
            assert!(said.contains("reads differently"), "{said}");
            assert!(!daemon.finished(&name).exists());
        } else {
            assert!(data::same(&file, &daemon.finished(&name)));
        }
    }
}

/// A folder on the daemon's disk and one in memory, each with a name: there a map is noticed by different means.
fn places(daemon: &Daemon, in_memory: &tempfile::TempDir) -> [(&'static str, std::path::PathBuf); 2] {
    [("disk", daemon.scratch()), ("memory", in_memory.path().to_owned())]
}

#[test]
fn what_was_written_through_a_memory_map_between_two_pushes_is_noticed() {
    let (daemon, in_memory) = (Daemon::start(), tempfile::tempdir_in("/dev/shm").unwrap());
    for (place, folder) in places(&daemon, &in_memory) {
        for len in [100, 3 << 20] {
            let name = format!("{place}{len}");
            let file = data::file(&folder, &name, len, len);
            let map = Mapped::new(&file);
            // From here on the page is dirty, and writing to it again moves no time.
            map.write(50, b"old");
            succeed(push(&daemon, &[text(&file), "--slice-size", "1M"]));
            assert!(data::same(&file, &daemon.finished(&name)), "{name}");
            map.write(50, b"new");
            let said = fail(push(&daemon, &[text(&file), "--slice-size", "1M"]), 1);
            assert!(said.contains("--replace"), "{name}: {said}");
            succeed(push(&daemon, &[text(&file), "--slice-size", "1M", "--replace"]));
            assert!(data::same(&file, &daemon.finished(&name)), "{name}");
        }
    }
}

#[test]
fn what_is_written_through_a_memory_map_during_a_push_is_never_mixed() {
    const LEN: usize = 8 << 20;
    let (daemon, in_memory) = (Daemon::start(), tempfile::tempdir_in("/dev/shm").unwrap());
    for (place, folder) in places(&daemon, &in_memory) {
        let file = data::file(&folder, place, 1, LEN as u64);
        let map = Mapped::new(&file);
        let write = |what: &[u8]| [100, LEN - 100].iter().for_each(|offset| map.write(*offset, what));
        write(b"old");
        let old = std::fs::read(&file).unwrap();
        let mut command = push(&daemon, &[text(&file), "--slice-size", "256K", "--limit-rate", "2M", "--quiet"]);
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        eventually("slices are stored", || {
            let stored = daemon.log().matches(&format!("{place}: slice ")).count();
            stored > 2 || child.try_wait().unwrap().is_some()
        });
        write(b"new");
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        // A slow machine may write only after all was read.
        if output.status.success() {
            assert!(std::fs::read(daemon.finished(place)).unwrap() == old, "{place}: it never was like that");
        } else {
            assert!(said.contains("changed while it was being pushed"), "{place}: {said}");
            assert!(!daemon.finished(place).exists(), "{place}");
        }
        succeed(push(&daemon, &[text(&file), "--slice-size", "256K", "--replace"]));
        assert!(data::same(&file, &daemon.finished(place)), "{place}");
    }
}

#[test]
fn a_finished_file_that_is_moved_away_at_once_was_stored_all_the_same() {
    let daemon = Daemon::with(&["--merger-idle", "300ms"]);
    let moved = daemon.scratch().join("moved");
    std::fs::create_dir_all(&moved).unwrap();
    let (files, done) = (daemon.data().join("files"), std::sync::atomic::AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                for name in list(&files) {
                    std::fs::rename(files.join(&name), moved.join(&name)).unwrap();
                }
            }
        });
        let pushed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for (name, len) in [("small", 5), ("one", 3 << 20), ("many", 9 << 20)] {
                let file = data::file(&daemon.scratch(), name, len, len);
                let slice_size = if name == "many" { "1M" } else { "8M" };
                let out = succeed(push(&daemon, &[text(&file), "--slice-size", slice_size, "--json"]));
                assert!(out.contains(&format!("\"bytes_sent\":{len}")), "{out}");
                eventually("the file is moved away", || moved.join(name).exists());
                assert!(data::same(&file, &moved.join(name)), "{name}");
            }
        }));
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        pushed.unwrap_or_else(|why| std::panic::resume_unwind(why));
    });
    daemon.eventually_clean();
    // A new push is one: nothing of it is there.
    let file = daemon.scratch().join("many");
    succeed(push(&daemon, &[text(&file), "--slice-size", "1M"]));
    assert!(data::same(&file, &daemon.finished("many")));
}

#[test]
fn the_output_of_a_command_is_stored_only_if_that_succeeds() {
    let daemon = Daemon::start();
    for len in [0, 10, 300_000] {
        for code in [0, 3] {
            let (name, script) = (format!("f{len}-{code}"), format!("head -c {len} /dev/zero; exit {code}"));
            let words = ["--slice-size", "64K", "--name", &name, "--command", "--", "sh", "-c", &script];
            if code == 0 {
                succeed(push(&daemon, &words));
                assert_eq!(std::fs::read(daemon.finished(&name)).unwrap(), vec![0; len], "{len}");
            } else {
                let said = fail(push(&daemon, &words), 1);
                assert!(said.contains("the command ended with") && said.contains('3'), "{said}");
                assert!(!daemon.finished(&name).exists());
            }
        }
    }
    let said = fail(push(&daemon, &["--name", "x", "--command", "--", "/nonexistent/x"]), 1);
    assert!(said.contains("/nonexistent/x"), "{said}");
}

#[test]
fn a_file_of_proc_is_pushed_as_its_message_says() {
    let daemon = Daemon::start();
    let said = fail(push(&daemon, &["/proc/version"]), 1);
    let advice = said.split("push what it says: ").nth(1).expect("there is advice").trim();
    let words = advice.strip_prefix("bigup-cli push --name NAME - < ").expect("it is a command");
    let mut command = push(&daemon, &["--name", "NAME", "-"]);
    command.stdin(std::fs::File::open(words).unwrap());
    succeed(command);
    assert_eq!(std::fs::read(daemon.finished("NAME")).unwrap(), std::fs::read("/proc/version").unwrap());
}

#[test]
fn a_data_folder_within_what_is_pushed_is_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    data::file(folder.path(), "a", 1, 300_000);
    for _ in 0..3 {
        let mut command = programs::cli();
        command.current_dir(folder.path()).args(["push", "--embedded", "data", ".", "--name", "all"]);
        succeed(command);
    }
    assert_eq!(list(&folder.path().join("data/files/all")), ["a"]);
}

#[test]
fn files_larger_than_the_daemon_may_write_are_refused_and_end_nobody() {
    let limit = ["sh", "-c", "ulimit -f 4096; exec \"$@\"", "sh"].map(str::to_owned).to_vec();
    let folder = tempfile::tempdir().unwrap();
    let daemon = Daemon::launched(limit, &folder.path().join("data"), &[]);
    let file = data::file(&daemon.scratch(), "f", 1, 6 << 20);
    let said = fail(push(&daemon, &[text(&file)]), 1);
    // POSIX counts in 512 bytes (ulimit), shells in 1024 too.
    assert!(said.contains("too large: at most 2097152") || said.contains("too large: at most 4194304"), "{said}");
    let mut command = push(&daemon, &["-", "--name", "g", "--slice-size", "64K"]);
    command.stdin(std::fs::File::open(&file).unwrap());
    fail(command, 1);
    let small = data::file(&daemon.scratch(), "small", 2, 100_000);
    succeed(push(&daemon, &[text(&small)]));
}

#[test]
fn usage_errors_are_told_apart() {
    let daemon = Daemon::start();
    fail(push(&daemon, &["-"]), 2);
    fail(push(&daemon, &["a", "b", "--name", "x"]), 2);
    fail(push(&daemon, &["x", "--slice-size", "0"]), 2);
    fail(push(&daemon, &[]), 2);
    let mut nowhere = programs::cli();
    nowhere.args(["push", "/etc/hostname", "--url", "http://127.0.0.1:1", "--retry-for", "1s"]);
    let errors = fail(nowhere, 1);
    assert!(errors.contains("127.0.0.1:1"), "{errors}");
}

#[test]
fn the_embedded_daemon_lives_as_long_as_the_push() {
    let folder = tempfile::tempdir().unwrap();
    let file = data::file(folder.path(), "f", 6, 20 << 20);
    let mut command = programs::cli();
    command.args(["push", "--embedded", text(&folder.path().join("data")), text(&file)]);
    let out = succeed(command);
    assert!(out.contains(&data::digest(&file)) && out.contains("data/files/f"), "{out}");
    assert!(data::same(&file, &folder.path().join("data/files/f")));
    let data = text(folder.path()).to_owned();
    eventually("no process has the folder in its command line", || processes_with(&data).is_empty());
}

/// Ids of the processes whose command line contains `text`.
fn processes_with(text: &str) -> Vec<String> {
    let named = |pid: &String| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(text)
    };
    list(Path::new("/proc")).into_iter().filter(|name| name.parse::<u32>().is_ok()).filter(named).collect()
}

#[test]
fn finished_files_and_their_folders_have_the_modes_that_are_set() {
    use std::os::unix::fs::PermissionsExt;
    let daemon = Daemon::with(&["--file-mode", "640", "--dir-mode", "2750"]);
    for (size, name) in [(5, "new/small"), (3 << 20, "also/new/large")] {
        let file = data::file(&daemon.scratch(), "f", 1, size);
        let mut push = programs::cli();
        push.args(["push", "--url", daemon.url(), "--slice-size", "1M", "--name", name]).arg(&file);
        assert!(push.output().unwrap().status.success());
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o7777;
        let finished = daemon.finished(name);
        assert_eq!((mode(&finished), mode(finished.parent().unwrap())), (0o640, 0o2750), "{name}");
        assert!(data::same(&file, &finished));
        // What it is known to be is not lost by that.
        let verify =
            programs::cli().args(["verify", "--url", daemon.url(), "--name", name]).arg(&file).output().unwrap();
        assert!(verify.status.success(), "{verify:?}");
    }
}
