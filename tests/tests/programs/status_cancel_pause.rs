//! What operators do by `bigupd status`, `cancel`, `pause` and `resume`, beside the real daemons, mergers and clients, and
//! without them.

use bigup_core::protocol::name::{FileName, steers};
use bigup_core::storage::data_dir::DataDir;
use bigup_core::storage::spool::{CANCELLED, Spool, UploadId, UploadRecord};
use bigup_tests::daemon::{Daemon, list};
use bigup_tests::data::{self, Dice};
use bigup_tests::http::{Answer, encoded};
use bigup_tests::needs_root;
use bigup_tests::process::{eventually, kill_9, signal, signal_program};
use bigup_tests::programs;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::fs::{self, File, Permissions};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, SystemTime};

const SLICE: usize = 1024;

/// A user who owns nothing.
const NOBODY: u32 = 65534;

// --- the programs

fn bigupd(data: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(programs::path("bigupd"));
    command.args(arguments).arg("--data-dir").arg(data).stdin(Stdio::null());
    command
}

/// What a command printed and its exit code; nothing of it steers a terminal.
fn run(data: &Path, arguments: &[&str]) -> (i32, String, String) {
    let Output { status, stdout, stderr } = bigupd(data, arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let (stdout, stderr) = (text(stdout), text(stderr));
    assert!(!stdout.chars().chain(stderr.chars()).any(|c| c != '\n' && steers(c)), "{stdout:?} {stderr:?}");
    (status.code().expect("it ends by itself"), stdout, stderr)
}

fn status(data: &Path, arguments: &[&str]) -> Value {
    let (code, stdout, stderr) = run(data, &[&["status", "--json"], arguments].concat());
    assert_eq!(code, 0, "{stderr}");
    serde_json::from_str(&stdout).unwrap()
}

fn exit_code(data: &Path, arguments: &[&str]) -> i32 {
    run(data, arguments).0
}

/// A push that takes a while, by four slices a second.
fn slow_push(daemon: &Daemon, file: &Path) -> Child {
    let mut command = programs::cli();
    command.arg("push").arg(file).args(["--url", daemon.url(), "--name", "f", "--slice-size", "64K"]);
    command.args(["--limit-rate", "256K", "--json"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn push(daemon: &Daemon, file: &Path) -> Output {
    let mut command = programs::cli();
    command.arg("push").arg(file).args(["--url", daemon.url(), "--name", "f", "--slice-size", "64K"]).output().unwrap()
}

/// How a push ended, and all that it said.
fn ended(push: Child) -> (i32, String) {
    let output = push.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.code().expect("it ends by itself"), text)
}

// --- uploads

fn begin(daemon: &Daemon, name: &str) -> Answer {
    daemon.server().get(&format!("file_name={}&slice_size={SLICE}&file_size={}&source=s", encoded(name), 4 * SLICE))
}

fn post(daemon: &Daemon, name: &str, slice_id: usize) -> Answer {
    let query = format!("file_name={}&slice_id={slice_id}&slice_size={SLICE}&source=s", encoded(name));
    daemon.server().post(&query, &[slice_id as u8; SLICE])
}

fn spool_of(daemon: &Daemon, name: &str) -> Spool {
    Spool::of(&DataDir::open(&daemon.data()).unwrap(), &UploadId::of_name(&FileName::new(name).unwrap()))
}

fn is_there(daemon: &Daemon, name: &str) -> bool {
    spool_of(daemon, name).path().exists()
}

fn change(daemon: &Daemon, name: &str, change: impl Fn(UploadRecord) -> UploadRecord) {
    let mut locked = spool_of(daemon, name).lock().unwrap().unwrap();
    let upload = change(locked.upload().clone());
    locked.save(upload).unwrap();
}

/// The merger at work on an upload.
fn merger_of(daemon: &Daemon, name: &str) -> u32 {
    let mut pid = None;
    eventually("a merger is at work", || {
        pid = spool_of(daemon, name).merger().unwrap().filter(|pid| *pid > 0);
        pid.is_some()
    });
    pid.unwrap()
}

fn marks(daemon: &Daemon) -> Vec<String> {
    list(&daemon.data().join("tmp")).into_iter().filter(|name| name.starts_with(CANCELLED)).collect()
}

/// Lets the marks of cancelled uploads be older than they count.
fn a_minute_later(daemon: &Daemon) {
    for mark in marks(daemon) {
        let mark = File::options().write(true).open(daemon.data().join("tmp").join(mark)).unwrap();
        mark.set_modified(SystemTime::now() - Duration::from_secs(61)).unwrap();
    }
}

// --- status

#[test]
fn status_tells_what_is_there_with_and_without_a_daemon() {
    let mut daemon = Daemon::with(&["--merger-idle", "100ms"]);
    let odd = "odd/[x]%=\u{202e}文;.bin";
    for name in ["plain", odd, "blocked"] {
        begin(&daemon, name).expect(200);
        [0, 2].into_iter().for_each(|id| drop(post(&daemon, name, id).expect(200)));
    }
    change(&daemon, "blocked", |upload| UploadRecord { blocked: Some("in the way\u{1b}[2J".to_owned()), ..upload });
    let data = daemon.data();
    eventually("slice 0 is merged and the mergers left", || {
        let uploads = status(&data, &["plain", odd])["uploads"].as_array().unwrap().clone();
        uploads.iter().all(|u| u["bytes_merged"] == SLICE && u["merge_slice_process_exist"] == 0)
    });
    for is_running in [true, false] {
        if !is_running {
            daemon.stop();
        }
        let before = fs::metadata(spool_of(&daemon, "plain").path()).unwrap().modified().unwrap();
        let all = status(&data, &[]);
        let uploads = all["uploads"].as_array().unwrap();
        let names: Vec<&str> = uploads.iter().map(|upload| upload["file_name"].as_str().unwrap()).collect();
        assert_eq!(names, ["blocked", odd, "plain"]);
        let plain = uploads[2].as_object().unwrap();
        let keys: Vec<&str> = plain.keys().map(String::as_str).collect();
        assert_eq!(
            keys,
            [
                "age_seconds",
                "awaits_end",
                "begun",
                "blocked",
                "bytes_arriving",
                "bytes_held",
                "bytes_merged",
                "bytes_per_second",
                "file_name",
                "file_size",
                "idle_seconds",
                "last_error",
                "merge_slice_process_exist",
                "merger_due",
                "merger_pid",
                "part_of",
                "partial",
                "paused",
                "slice_num",
                "slice_size",
            ],
            "documented in docs/operations.md"
        );
        assert_eq!(
            (&plain["file_size"], &plain["bytes_held"], &plain["bytes_merged"], &plain["merger_pid"]),
            (&Value::from(4 * SLICE), &Value::from(2 * SLICE), &Value::from(SLICE), &Value::Null)
        );
        assert_eq!((&uploads[0]["blocked"], &plain["blocked"]), (&Value::Bool(true), &Value::Bool(false)));
        assert!(uploads[0]["last_error"].as_str().unwrap().contains("in the way"));
        assert_eq!(all["total"]["bytes_held"], 6 * SLICE);
        let (code, table, _) = run(&data, &["status"]);
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!((code, lines.len()), (0, 5), "{table}");
        assert!(lines[1].contains("blocked  (cannot be finished: in the way"), "{table}");
        assert!(lines[3].ends_with("  plain") && lines[3].contains("2.00K  50%  1.00K  25%"), "{table}");
        assert!(lines[4].starts_with("3 uploads, 12.0K: 6.00K held"), "{table}");
        let after = fs::metadata(spool_of(&daemon, "plain").path()).unwrap().modified().unwrap();
        assert_eq!(before, after, "looking changes nothing");
    }
    let (code, stdout, stderr) = run(&data, &["status", "plain", "no\u{202e}such"]);
    assert!(code == 4 && stdout.contains("plain") && stderr.contains("no unfinished upload of this name"), "{stderr}");
    assert_eq!(status_missing(&data, "none"), [Value::from("none")]);
}

fn status_missing(data: &Path, name: &str) -> Vec<Value> {
    let (code, stdout, _) = run(data, &["status", "--json", name]);
    assert_eq!(code, 4);
    serde_json::from_str::<Value>(&stdout).unwrap()["missing"].as_array().unwrap().clone()
}

#[test]
fn status_follows_a_push_and_ends_with_ctrl_c() {
    let daemon = Daemon::start();
    let file = data::file(&daemon.scratch(), "f", 1, 8 << 20);
    let mut pushing = slow_push(&daemon, &file);
    eventually("it has begun", || is_there(&daemon, "f"));
    let mut watch =
        bigupd(&daemon.data(), &["status", "--watch=200ms", "--json"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut looks = BufReader::new(watch.stdout.take().unwrap()).lines();
    let seen = looks.by_ref().map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap()).take(200);
    let full = seen.map(|look| look["uploads"][0].clone()).find(|upload| {
        let is_more_than_nothing = |key: &str| upload[key].as_u64().is_some_and(|number| number > 0);
        ["bytes_per_second", "bytes_held", "bytes_merged", "merger_pid"].into_iter().all(is_more_than_nothing)
    });
    let full = full.expect("it is seen to move");
    assert_eq!(full["merger_pid"], merger_of(&daemon, "f"));
    signal(watch.id(), Signal::SIGINT);
    looks.for_each(drop);
    assert_eq!(watch.wait().unwrap().code(), Some(0));
    // Two looks for one table.
    let (_, table, _) = run(&daemon.data(), &["status"]);
    assert!(table.lines().nth(1).unwrap().contains("/s  "), "{table}");
    assert_eq!(exit_code(&daemon.data(), &["cancel", "f"]), 0);
    kill_9(&mut pushing);
}

#[test]
fn others_than_the_owner_of_the_folder_may_look_as_far_as_they_can_read_and_change_nothing() {
    needs_root!("to become another user");
    let daemon = Daemon::start();
    begin(&daemon, "f").expect(200);
    let as_nobody = |arguments: &[&str]| {
        let output = bigupd(&daemon.data(), arguments).uid(NOBODY).gid(NOBODY).output().unwrap();
        (output.status.code().unwrap(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    };
    let outer = daemon.data().parent().unwrap().to_owned();
    fs::set_permissions(&outer, Permissions::from_mode(0o700)).unwrap();
    let (code, said) = as_nobody(&["status"]);
    assert!(code == 1 && said.contains("Permission denied"), "{said}");
    fs::set_permissions(&outer, Permissions::from_mode(0o755)).unwrap();
    let (code, said) = as_nobody(&["status"]);
    assert!(code == 0 && said.contains("  f\n"), "{said}");
    for command in ["cancel", "pause", "resume"] {
        let (code, said) = as_nobody(&[command, "f"]);
        assert!(code == 1 && said.contains("belongs to the user 0, this is the user 65534"), "{said}");
    }
    for command in [&["token", "new", "t"][..], &["check", "--repair"]] {
        let (code, said) = as_nobody(command);
        assert!(code == 1 && said.contains("this is the user 65534"), "{said}");
    }
    assert!(is_there(&daemon, "f"));
}

#[test]
fn root_leaves_nothing_of_its_own_in_the_folder_of_another_user() {
    needs_root!("to give files to another user");
    let daemon = Daemon::start();
    let data = daemon.data();
    ["one", "two"].into_iter().for_each(|name| drop(begin(&daemon, name).expect(200)));
    fs::set_permissions(data.parent().unwrap(), Permissions::from_mode(0o755)).unwrap();
    let chown = Command::new("chown").args(["-R", "65534:65534"]).arg(&data).status().unwrap();
    assert!(chown.success());
    assert_eq!(exit_code(&data, &["pause", "one"]), 0);
    assert_eq!(exit_code(&data, &["cancel", "two"]), 0);
    assert_eq!(exit_code(&data, &["check", "--repair"]), 0);
    assert_eq!(exit_code(&data, &["token", "new", "t"]), 0);
    let found = Command::new("find").arg(&data).args(["-uid", "0"]).output().unwrap();
    // The daemon of this test is root's, and may have written what it looks after.
    let own = |path: &&str| !path.contains("info.ini") && !path.ends_with("expiry.json");
    let found = String::from_utf8(found.stdout).unwrap();
    assert_eq!(found.lines().filter(own).collect::<Vec<_>>(), [""; 0]);
}

// --- cancel

#[test]
fn a_push_whose_upload_is_cancelled_ends_and_may_begin_anew_a_minute_later() {
    let daemon = Daemon::with(&["--merger-idle", "100ms"]);
    let file = data::file(&daemon.scratch(), "f", 1, 4 << 20);
    for round in 0..3 {
        let pushing = slow_push(&daemon, &file);
        eventually("some of it is held", || {
            status(&daemon.data(), &[])["total"]["bytes_held"].as_u64().is_some_and(|held| held > round << 18)
        });
        let (code, stdout, stderr) = run(&daemon.data(), &["cancel", "f"]);
        assert!(code == 0 && stdout.starts_with("f: cancelled, with the "), "{stdout}{stderr}");
        let (code, said) = ended(pushing);
        assert!(code == 1 && said.contains("cancelled on the server"), "{code}: {said}");
        assert!(!is_there(&daemon, "f") && !daemon.finished("f").exists());
        let again = push(&daemon, &file);
        let said = String::from_utf8_lossy(&again.stderr);
        assert!(again.status.code() == Some(1) && said.contains("cancelled on the server"), "{said}");
        assert_eq!(status(&daemon.data(), &[])["total"]["uploads"], 0);
        eventually("its section is gone", || daemon.info_ini().is_empty());
        assert_eq!(exit_code(&daemon.data(), &["cancel", "f"]), 4);
        a_minute_later(&daemon);
    }
    let output = push(&daemon, &file);
    assert!(output.status.success(), "{output:?}");
    assert!(data::same(&file, &daemon.finished("f")));
    assert_eq!(exit_code(&daemon.data(), &["cancel", "f"]), 4);
    assert!(data::same(&file, &daemon.finished("f")), "finished files are not touched");
    bigupd::upkeep::sweep::clean(&DataDir::open(&daemon.data()).unwrap(), Duration::from_secs(60)).unwrap();
    assert_eq!(daemon.spools(), [""; 0], "marks are swept");
}

#[test]
fn who_had_a_cancelled_upload_is_told_and_others_begin() {
    let daemon = Daemon::start();
    begin(&daemon, "f").expect(200);
    post(&daemon, "f", 1).expect(200);
    assert_eq!(exit_code(&daemon.data(), &["cancel", "f", "none"]), 4);
    let small = format!("file_name=f&slice_id=0&slice_size={SLICE}&slice_num=1&source=s");
    let told = || [begin(&daemon, "f"), post(&daemon, "f", 2), daemon.server().post(&small, &[1; SLICE])];
    for answer in told() {
        let answer = answer.expect(410);
        assert!(answer.body["error"] == "cancelled" && answer.message().contains("push it again in"), "{answer:?}");
    }
    daemon.server().get("peek=1&file_name=f").expect(404);
    let other = format!("file_name=f&slice_size={SLICE}&file_size={}", 4 * SLICE);
    daemon.server().get(&format!("{other}&source=other")).expect(200);
    begin(&daemon, "f").expect(410);
    assert_eq!(exit_code(&daemon.data(), &["cancel", "f"]), 0);
    daemon.server().get(&format!("{other}&source=other")).expect(410);
    // A client that names no source is one of its own.
    daemon.server().get(&other).expect(200);
    assert_eq!(exit_code(&daemon.data(), &["cancel", "f"]), 0);
    daemon.server().get(&other).expect(410);
    assert_eq!(marks(&daemon).len(), 3);
    a_minute_later(&daemon);
    begin(&daemon, "f").expect(200);
}

#[test]
fn a_cancelled_upload_frees_disk_space_for_another_one() {
    let daemon = Daemon::with(&["--max-uploads", "1"]);
    begin(&daemon, "one").expect(200);
    begin(&daemon, "two").expect(503);
    assert_eq!(exit_code(&daemon.data(), &["cancel", "one"]), 0);
    eventually("it counts no more", || begin(&daemon, "two").status == 200);
}

#[test]
fn a_slice_that_comes_slowly_is_refused_soon_after_its_upload_was_cancelled() {
    use std::io::Write;
    let daemon = Daemon::start();
    let size = 64 << 20;
    daemon.server().get(&format!("file_name=f&slice_size={size}&file_size={}&source=s", 2 * size)).expect(200);
    let mut stream = bigup_tests::http::connect(daemon.url());
    let query = format!("file_name=f&slice_id=1&slice_size={size}&source=s");
    let head = bigup_tests::http::post_head(&query, &[&format!("Content-Length: {size}")]);
    stream.write_all(&head).unwrap();
    stream.write_all(&[0; 1 << 16]).unwrap();
    eventually("it arrives", || daemon.spool_has_part("f"));
    assert_eq!(exit_code(&daemon.data(), &["cancel", "f"]), 0);
    // By a part of the slice: what follows would take any time.
    stream.write_all(&vec![0; 6 << 20]).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let answer = Answer::parse(&bigup_tests::http::read_answer(&mut stream)).expect(410);
    assert_eq!(answer.body["error"], "cancelled");
}

#[test]
fn an_upload_whose_merger_is_stopped_is_cancelled_once_that_is_ended() {
    let daemon = Daemon::start();
    begin(&daemon, "f").expect(200);
    post(&daemon, "f", 0).expect(200);
    let pid = merger_of(&daemon, "f");
    assert!(signal_program(pid, "bigup-merger", Signal::SIGSTOP));
    let (code, _, stderr) = run(&daemon.data(), &["cancel", "f", "--wait", "300ms"]);
    assert!(code == 1 && stderr.contains(&format!("the merger, process {pid}, was told to leave")), "{stderr}");
    assert!(is_there(&daemon, "f"));
    post(&daemon, "f", 1).expect(200);
    assert!(signal_program(pid, "bigup-merger", Signal::SIGKILL));
    assert_eq!(exit_code(&daemon.data(), &["cancel", "f"]), 0);
    assert!(!is_there(&daemon, "f"));
}

#[test]
fn an_upload_whose_merger_was_killed_is_cancelled_without_a_daemon() {
    let mut daemon = Daemon::start();
    begin(&daemon, "f").expect(200);
    post(&daemon, "f", 0).expect(200);
    let pid = merger_of(&daemon, "f");
    daemon.kill_9();
    assert!(signal_program(pid, "bigup-merger", Signal::SIGKILL));
    let (code, stdout, _) = run(&daemon.data(), &["cancel", "f"]);
    assert_eq!((code, &stdout[..]), (0, "f: cancelled, with the 1.00 KiB that it held\n"));
    assert_eq!((daemon.spools(), daemon.info_ini()), (marks(&daemon), String::new()));
}

#[test]
fn no_other_process_is_ended_whatever_id_a_merger_left() {
    let daemon = Daemon::start();
    begin(&daemon, "f").expect(200);
    let mut other = Command::new("sleep").arg("600").spawn().unwrap();
    let lock = spool_of(&daemon, "f").path().join("merger.lock");
    fs::write(&lock, format!("{}\n", other.id())).unwrap();
    let held = Flock::lock(File::open(&lock).unwrap(), FlockArg::LockExclusive).unwrap();
    let (code, _, stderr) = run(&daemon.data(), &["cancel", "f", "--wait", "200ms"]);
    assert!(code == 1 && stderr.contains("cancel again"), "{stderr}");
    // A daemon that publishes holds the lock for an instant.
    fs::write(&lock, format!("{}\n", daemon.pid())).unwrap();
    assert_eq!(exit_code(&daemon.data(), &["cancel", "f", "--wait", "200ms"]), 1);
    drop(held);
    assert!(other.try_wait().unwrap().is_none(), "it lives");
    begin(&daemon, "f").expect(200);
    assert_eq!(exit_code(&daemon.data(), &["cancel", "f"]), 0);
    kill_9(&mut other);
}

#[test]
fn an_upload_that_cannot_be_read_is_cancelled_too() {
    let daemon = Daemon::start();
    begin(&daemon, "f").expect(200);
    fs::write(spool_of(&daemon, "f").path().join("upload.json"), "garbage").unwrap();
    let (code, table, _) = run(&daemon.data(), &["status"]);
    assert!(code == 0 && table.contains("tmp/f: "), "{table}");
    assert_eq!(exit_code(&daemon.data(), &["cancel", "f"]), 0);
    begin(&daemon, "f").expect(200);
}

#[test]
fn a_cancel_that_is_killed_leaves_all_of_an_upload_or_nothing() {
    let daemon = Daemon::with(&["--merger-idle", "100ms"]);
    let mut dice = Dice::new(5);
    let mut outcomes = [0, 0];
    for round in 0..40 {
        let name = format!("f{round}");
        begin(&daemon, &name).expect(200);
        [0, 1, 3].into_iter().for_each(|id| drop(post(&daemon, &name, id).expect(200)));
        let mut cancel = bigupd(&daemon.data(), &["cancel", &name]).stdout(Stdio::null()).spawn().unwrap();
        // No condition to wait for: any instant may be the one.
        std::thread::sleep(Duration::from_micros(dice.below(60_000)));
        kill_9(&mut cancel);
        let is_left = is_there(&daemon, &name);
        outcomes[usize::from(is_left)] += 1;
        if is_left {
            assert_eq!(begin(&daemon, &name).expect(200).held(), [0, 1, 3], "it is as it was, and goes on");
            post(&daemon, &name, 2).expect(200);
            eventually("the file is finished", || daemon.finished(&name).exists());
        } else {
            begin(&daemon, &name).expect(410);
            assert!(!daemon.finished(&name).exists());
        }
    }
    println!("{} gone, {} left", outcomes[0], outcomes[1]);
    eventually("no section is left", || !daemon.info_ini().contains('['));
}

#[test]
fn an_upload_that_is_cancelled_as_it_is_finished_is_one_or_the_other() {
    let daemon = Daemon::with(&["--merger-idle", "1s"]);
    let whole: Vec<u8> = (0..4).flat_map(|id| [id; SLICE]).collect();
    let mut dice = Dice::new(6);
    let mut outcomes = [0, 0];
    for round in 0..40 {
        let name = format!("f{round}");
        begin(&daemon, &name).expect(200);
        [0, 1, 2].into_iter().for_each(|id| drop(post(&daemon, &name, id).expect(200)));
        // Either may come first, and both at once.
        let (until_cancel, until_last) = (dice.below(40_000), dice.below(40_000));
        let (code, last) = std::thread::scope(|scope| {
            let cancelling = scope.spawn(|| {
                std::thread::sleep(Duration::from_micros(until_cancel));
                exit_code(&daemon.data(), &["cancel", &name])
            });
            std::thread::sleep(Duration::from_micros(until_last));
            let last = post(&daemon, &name, 3);
            (cancelling.join().unwrap(), last)
        });
        eventually("the upload is over", || !is_there(&daemon, &name));
        let is_finished = daemon.finished(&name).exists();
        outcomes[usize::from(is_finished)] += 1;
        assert_eq!(code, if is_finished { 4 } else { 0 }, "{last:?}");
        if is_finished {
            last.expect(200);
            assert!(fs::read(daemon.finished(&name)).unwrap() == whole);
        } else {
            assert!([200, 410].contains(&last.status), "{last:?}");
            begin(&daemon, &name).expect(410);
        }
    }
    println!("{} cancelled, {} finished", outcomes[0], outcomes[1]);
}

// --- pause and resume

#[test]
fn a_paused_upload_takes_nothing_by_any_daemon_until_it_is_resumed() {
    let mut daemon = Daemon::with(&["--merger-idle", "100ms"]);
    let other = daemon.another();
    begin(&daemon, "f").expect(200);
    post(&daemon, "f", 1).expect(200);
    assert_eq!(exit_code(&daemon.data(), &["pause", "f", "none"]), 4);
    assert_eq!(daemon.info("f", "paused").as_deref(), Some("1"));
    for round in 0..2 {
        for daemon in [&daemon, &other] {
            for answer in [begin(daemon, "f"), post(daemon, "f", 0), post(daemon, "f", 1)] {
                let answer = answer.expect(503);
                assert!(answer.body["error"] == "paused" && answer.message().contains("is paused"), "{answer:?}");
            }
            let query = format!("file_name=f&slice_size={SLICE}&file_size=1&source=another");
            daemon.server().get(&query).expect(503);
            assert_eq!(daemon.server().get("peek=1&file_name=f").expect(200).body["paused"], true);
            assert_eq!(daemon.server().get("peek=1").expect(200).body["uploads"][0]["paused"], true);
        }
        assert_eq!(status(&daemon.data(), &["f"])["uploads"][0]["paused"], true);
        if round == 0 {
            daemon.stop();
            daemon.run();
        }
    }
    assert_eq!(exit_code(&daemon.data(), &["resume", "f"]), 0);
    assert_eq!(daemon.info("f", "paused"), None);
    [0, 2, 3].into_iter().for_each(|id| drop(post(&other, "f", id).expect(200)));
    daemon.eventually_clean();
    assert_eq!(exit_code(&daemon.data(), &["pause", "f"]), 4);
}

#[test]
fn a_push_waits_while_its_upload_is_paused_and_goes_on() {
    let daemon = Daemon::with(&["--merger-idle", "100ms"]);
    let file = data::file(&daemon.scratch(), "f", 1, 2 << 20);
    let mut pushing = slow_push(&daemon, &file);
    let held = || status(&daemon.data(), &[])["total"]["bytes_held"].as_u64().unwrap();
    eventually("some of it is held", || held() > 1 << 18);
    assert_eq!(exit_code(&daemon.data(), &["pause", "f"]), 0);
    // What was arriving may end.
    eventually("the client was told", || daemon.log().matches("is paused on the server").count() >= 2);
    let before = held();
    eventually("what is held is merged", || {
        status(&daemon.data(), &[])["uploads"][0]["bytes_merged"].as_u64().is_some_and(|merged| merged >= before / 2)
    });
    assert!(pushing.try_wait().unwrap().is_none(), "it waits");
    assert!(held() < 2 << 20);
    assert_eq!(exit_code(&daemon.data(), &["resume", "f"]), 0);
    let (code, said) = ended(pushing);
    assert!(code == 0 && said.contains("is paused on the server"), "{code}: {said}");
    assert!(data::same(&file, &daemon.finished("f")));
}

#[test]
fn what_is_whole_is_finished_although_it_is_paused() {
    let mut daemon = Daemon::with(&["--merger-idle", "100ms"]);
    begin(&daemon, "f").expect(200);
    [1, 2, 3].into_iter().for_each(|id| drop(post(&daemon, "f", id).expect(200)));
    let data = daemon.data();
    daemon.kill_9();
    assert_eq!(exit_code(&data, &["pause", "f"]), 0);
    // As a slice that was arriving ends.
    let spool = spool_of(&daemon, "f");
    let mut arrival = spool.arrival(0).unwrap();
    std::io::Write::write_all(&mut arrival.file(), &[0; SLICE]).unwrap();
    let mut locked = spool.lock().unwrap().unwrap();
    let digest = bigup_core::protocol::digest::of_slice(&locked.upload().plan, 0, &[0; SLICE]);
    locked.commit(&mut arrival, SLICE as u64, Some("s"), &[digest]).unwrap();
    drop(locked);
    daemon.run();
    eventually("the file is finished", || daemon.finished("f").exists());
    daemon.eventually_clean();
}

#[test]
fn a_paused_upload_does_not_expire() {
    let daemon = Daemon::with(&["--expire-after", "3s"]);
    ["paused", "other"].into_iter().for_each(|name| drop(begin(&daemon, name).expect(200)));
    assert_eq!(exit_code(&daemon.data(), &["pause", "paused"]), 0);
    eventually("the other one expires", || !is_there(&daemon, "other"));
    begin(&daemon, "next").expect(200);
    eventually("the next one expires, too", || !is_there(&daemon, "next"));
    assert!(is_there(&daemon, "paused"));
    assert_eq!(exit_code(&daemon.data(), &["resume", "paused"]), 0);
    eventually("it expires", || !is_there(&daemon, "paused"));
}
