//! `on_complete`: a program or a server is told of each finished file, with what is known of it, at least once and in
//! order, whatever dies; and what it does wrong costs nobody else anything.
//!
//! `BIGUP_SEED` sets what is killed when.

use bigup_tests::daemon::{Daemon, list};
use bigup_tests::data::{self, Dice};
use bigup_tests::hooks::{WebHook, lines, script};
use bigup_tests::http::{Server, encoded};
use bigup_tests::process::{PATIENCE, eventually, signal_program};
use bigup_tests::{docs, number, programs, usage};
use nix::sys::signal::Signal;
use serde_json::json;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A daemon with a hook, and the folder where that leaves its traces.
struct Hooked {
    daemon: Daemon,
    place: PathBuf,
}

impl Hooked {
    /// With `text` as the script of `on_complete`, and further settings.
    fn with(text: &str, settings: &[&str]) -> Hooked {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().canonicalize().unwrap();
        let hook = script(&place, "hook", text);
        let daemon = Daemon::in_folder(folder, &[&["--on-complete", hook.as_str()], settings].concat());
        Hooked { daemon, place }
    }

    /// Lines of the file `told`.
    fn told(&self) -> Vec<String> {
        lines(&self.place.join("told"))
    }

    fn touch(&self, name: &str) {
        fs::write(self.place.join(name), "").unwrap();
    }

    fn notices(&self) -> Vec<String> {
        let all = list(&self.daemon.data().join("completed"));
        all.into_iter().filter(|name| name != "failed" && !name.starts_with('.')).collect()
    }

    fn failed(&self) -> Vec<String> {
        list(&self.daemon.data().join("completed/failed"))
    }

    fn eventually_logged(&self, what: &str) {
        eventually(&format!("the log says {what:?}"), || self.daemon.log().contains(what));
    }
}

/// Stores a file of one slice in one request.
fn put(server: &Server, name: &str, content: &[u8], more: &str) {
    let (name, len) = (encoded(name), content.len());
    let answer = server.post(&format!("file_name={name}&slice_id=0&slice_num=1&slice_size={len}{more}"), content);
    assert_eq!(answer.expect(200).body["is_uploaded"], 1);
}

fn push(daemon: &Daemon, file: &Path, name: &str) -> Command {
    let mut command = programs::cli();
    command.args(["push", "--quiet", "--url", daemon.url(), "--slice-size", "8K", "--name", name]).arg(file);
    command.stdin(Stdio::null());
    command
}

fn is_running(pid: &str) -> bool {
    // What nobody waited for is a zombie: that is no more than a number.
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

#[test]
fn a_program_gets_what_is_known_and_nothing_else() {
    let text = "d=DIR/run.$$; mkdir $d; printf '%s\\0' \"$@\" > $d/arguments; cat /proc/$$/environ > $d/environment
        pwd -P > $d/folder; wc -c > $d/stdin; ls /proc/self/fd > $d/descriptors; cp \"$2\" $d/copy; mv $d DIR/done.$$";
    let hooked = Hooked::with(text, &[]);
    let mut token = Command::new(programs::path("bigupd"));
    token.args(["token", "new", "alice", "--data-dir"]).arg(hooked.daemon.data());
    let secret = String::from_utf8(token.output().unwrap().stdout).unwrap();
    let server = hooked.daemon.server().with_token(secret.trim());
    let names = ["plain", "sp ace/'q' \"d\" $(touch DIR/x) ; `id` | & \\", "-rf", "*", "ü/文.txt", "a=b%20", "empty"];
    for name in names {
        let content = data::bytes(1, if name == "empty" { 0 } else { 5000 });
        if content.is_empty() {
            server.get("file_name=empty&slice_num=0").expect(200);
        } else {
            put(&server, name, &content, "");
        }
        let runs = || -> Vec<String> { list(&hooked.place).into_iter().filter(|f| f.starts_with("done.")).collect() };
        eventually("the hook has run", || !runs().is_empty());
        let run = hooked.place.join(&runs()[0]);
        let read = |file: &str| fs::read_to_string(run.join(file)).unwrap();
        assert!(fs::read(run.join("copy")).unwrap() == content, "{name} is not whole");

        let path = hooked.daemon.data().canonicalize().unwrap().join("files").join(name);
        let path = path.to_str().unwrap();
        let (size, digest) = (content.len().to_string(), blake3::hash(&content).to_string());
        let arguments = read("arguments");
        let arguments: Vec<&str> = arguments.split_terminator('\0').collect();
        assert_eq!(arguments, [name, path, &size, &digest, "alice"]);

        let environment = read("environment");
        let mut variables: BTreeMap<&str, &str> =
            environment.split_terminator('\0').filter_map(|variable| variable.split_once('=')).collect();
        for (key, value) in [
            ("BIGUP_EVENT", "complete"),
            ("BIGUP_FILE_NAME", name),
            ("BIGUP_PATH", path),
            ("BIGUP_FILE_SIZE", &size),
            ("BIGUP_FILE_DIGEST", &digest),
            ("BIGUP_TOKEN_NAME", "alice"),
            ("BIGUP_METADATA", ""),
            ("BIGUP_ATTEMPT", "1"),
        ] {
            assert_eq!(variables.remove(key), Some(value), "{key}");
        }
        variables.retain(|key, _| !["PATH", "HOME", "LANG", "TZ"].contains(key) && !key.starts_with("LC_"));
        assert!(variables.is_empty(), "more is inherited: {variables:?}");

        assert_eq!(read("folder").trim(), hooked.daemon.data().canonicalize().unwrap().to_str().unwrap());
        assert_eq!(read("stdin").trim(), "0");
        // Its three, and the folder that ls reads.
        assert_eq!(read("descriptors"), "0\n1\n2\n3\n", "neither the daemon's nor of whoever started it");
        fs::remove_dir_all(run).unwrap();
        eventually("the notice is gone", || hooked.notices().is_empty());
    }
    assert!(!hooked.place.join("x").exists(), "there was a shell");
}

/// The example of docs/hooks.md.
#[test]
fn finished_files_can_be_moved_away() {
    let text = docs::block("docs/hooks.md", "tests/tests/programs/on_complete.rs: move")
        .replace("/srv/incoming", "DIR/incoming");
    let hooked = Hooked::with(&text, &[]);
    put(&hooked.daemon.server(), "a b/c", b"text", "");
    eventually("it was moved", || hooked.notices().is_empty());
    assert_eq!(fs::read(hooked.place.join("incoming/a b/c")).unwrap(), b"text");
    assert!(!hooked.daemon.finished("a b/c").exists());
    hooked.eventually_logged("a b/c: on_complete was told");
}

/// Whoever publishes it: the daemon at once, or a merger.
#[test]
fn the_file_is_whole_by_then_and_told_of_once() {
    let hooked = Hooked::with("cmp \"$2\" DIR/source.$3 && echo \"$1\" >> DIR/told", &[]);
    for (i, len) in [1, 5000, 5 * 8192 + 777, 3 << 20].into_iter().enumerate() {
        let file = data::file(&hooked.place, &format!("source.{len}"), 1, len);
        assert!(push(&hooked.daemon, &file, &format!("d/f{i}")).status().unwrap().success());
        // Again: there is nothing to be told.
        assert!(push(&hooked.daemon, &file, &format!("d/f{i}")).status().unwrap().success());
    }
    eventually("all were told", || hooked.told().len() >= 4 && hooked.notices().is_empty());
    assert_eq!(hooked.told(), ["d/f0", "d/f1", "d/f2", "d/f3"]);
    hooked.daemon.eventually_clean();
}

#[test]
fn what_fails_is_tried_again_and_its_words_are_logged() {
    let text = "echo \"$BIGUP_ATTEMPT\" >> DIR/told; printf 'a \\033 word of %s\\n' $BIGUP_ATTEMPT; echo oops >&2
        case $BIGUP_ATTEMPT in 1) exit 3;; 2) kill -9 $$;; esac";
    let hooked = Hooked::with(text, &[]);
    put(&hooked.daemon.server(), "f", b"text", "");
    eventually("it is told in the end", || hooked.told().len() == 3 && hooked.notices().is_empty());
    assert_eq!(hooked.told(), ["1", "2", "3"]);
    let log = hooked.daemon.log();
    let said = ["exit code 3", "killed by signal 9", "f: on_complete: oops", "f: on_complete: a \\u{1b} word of 3"];
    said.into_iter().for_each(|line| assert!(log.contains(line), "{line}"));
    assert!(!log.contains('\x1b'));
}

/// All that it started ends with it, what does not listen to SIGTERM too.
#[test]
fn what_hangs_is_ended_and_given_up_after_the_last_attempt() {
    let text = "[ -e DIR/go ] && { echo \"$BIGUP_ATTEMPT\" >> DIR/told; exit 0; }
        trap '' TERM; sleep 1000 & echo $! $$ >> DIR/pids; sleep 1000; sleep 1000";
    let settings = ["--on-complete-timeout", "500ms", "--on-complete-attempts", "2"];
    let hooked = Hooked::with(text, &settings);
    put(&hooked.daemon.server(), "f", b"text", "");
    eventually("it is given up", || !hooked.failed().is_empty());
    hooked.eventually_logged("on_complete failed 2 times");
    let pids = lines(&hooked.place.join("pids"));
    assert_eq!(pids.len(), 2);
    for pid in pids.iter().flat_map(|line| line.split(' ')) {
        eventually("nothing of it is left", || !is_running(pid));
    }
    // Moved back it is tried again, as often as at first.
    hooked.touch("go");
    let completed = hooked.daemon.data().join("completed");
    let notice = &hooked.failed()[0];
    fs::rename(completed.join("failed").join(notice), completed.join(notice)).unwrap();
    eventually("it is told", || hooked.told() == ["1"] && hooked.notices().is_empty());
}

#[test]
fn what_floods_costs_no_memory() {
    let text = "[ $1 = f ] && { head -c 1G /dev/zero; head -c 100M /dev/zero >&2; }; echo $1 >> DIR/told";
    let hooked = Hooked::with(text, &[]);
    put(&hooked.daemon.server(), "warm", b"text", "");
    eventually("one was told", || hooked.told() == ["warm"]);
    let before = usage::peak_memory(hooked.daemon.pid()).unwrap();
    put(&hooked.daemon.server(), "f", b"text", "");
    eventually("the other was told", || hooked.told() == ["warm", "f"] && hooked.notices().is_empty());
    let more = usage::peak_memory(hooked.daemon.pid()).unwrap().saturating_sub(before);
    assert!(more < 16 << 20, "{more} bytes more");
    assert!(hooked.daemon.log().len() < 1 << 20);
}

#[test]
fn of_one_name_the_later_waits_for_the_earlier_and_others_do_not() {
    let text = "[ $1 = x ] && while [ ! -e DIR/go ]; do sleep 0.02; done; echo $1 $4 >> DIR/told";
    let hooked = Hooked::with(text, &[]);
    let server = hooked.daemon.server();
    let contents = [1, 2, 3].map(|seed| data::bytes(seed, 1000));
    contents.iter().for_each(|content| put(&server, "x", content, "&replace=1"));
    ["a", "b"].into_iter().for_each(|name| put(&server, name, b"text", ""));
    eventually("the others are told", || hooked.told().len() == 2);
    hooked.touch("go");
    eventually("all are told", || hooked.told().len() == 5 && hooked.notices().is_empty());
    let of_x = contents.map(|content| format!("x {}", blake3::hash(&content)));
    assert_eq!(hooked.told()[2..], of_x);
}

#[test]
fn what_was_not_told_when_the_daemon_went_is_told_by_the_next() {
    let text = "echo $1 $BIGUP_ATTEMPT >> DIR/told; [ -e DIR/go ]";
    let mut hooked = Hooked::with(text, &[]);
    put(&hooked.daemon.server(), "f", b"text", "");
    eventually("it failed twice", || hooked.told().len() == 2);
    hooked.daemon.kill_9();
    hooked.touch("go");
    hooked.daemon.run();
    eventually("it is told", || hooked.notices().is_empty());
    let told = hooked.told();
    // The second failure may not have been noted yet.
    assert!(told.last().is_some_and(|last| ["f 2", "f 3"].contains(&last.as_str())), "{told:?}");
}

/// It has the grace that requests have; what is not done by then is ended, and done again, without being a failure.
#[test]
fn a_hook_at_work_when_the_daemon_stops_is_let_finish_or_done_again() {
    let text = "echo $1 $BIGUP_ATTEMPT >> DIR/told; [ -e DIR/go ] && exit 0; [ $1 = short ] && exec sleep 1
        trap 'echo ended >> DIR/told; exit 1' TERM; sleep 1000 & wait";
    let mut hooked = Hooked::with(text, &["--stop-grace", "3s"]);
    put(&hooked.daemon.server(), "short", b"text", "");
    eventually("it is at work", || hooked.told().len() == 1);
    hooked.daemon.stop();
    assert!(hooked.notices().is_empty(), "it was not let finish");
    hooked.daemon.run();
    put(&hooked.daemon.server(), "long", b"text", "");
    eventually("it is at work", || hooked.told().len() == 2);
    hooked.daemon.stop();
    assert_eq!(hooked.told(), ["short 1", "long 1", "ended"]);
    hooked.touch("go");
    hooked.daemon.run();
    eventually("it is told", || hooked.notices().is_empty());
    assert_eq!(hooked.told().last().unwrap(), "long 1");
}

#[test]
fn of_two_daemons_one_tells() {
    let hooked = Hooked::with("echo $1 >> DIR/told", &[]);
    let other = hooked.daemon.another();
    let servers = [hooked.daemon.server(), other.server()];
    for i in 0..40 {
        put(&servers[i % 2], &format!("f{i}"), b"text", "");
    }
    eventually("all are told", || hooked.told().len() >= 40 && hooked.notices().is_empty());
    let mut told = hooked.told();
    told.sort();
    told.dedup();
    assert_eq!((told.len(), hooked.told().len()), (40, 40));
}

/// Daemons and mergers are killed at random moments around publications.
#[test]
fn kills_take_no_notice_away() {
    let seed = number("BIGUP_SEED", 1);
    let hooked = Hooked::with("cmp \"$2\" DIR/source.$3 && echo \"$1\" >> DIR/told", &[]);
    let Hooked { mut daemon, place } = hooked;
    let mut dice = Dice::new(seed);
    let sizes = [100, 5000, 5 * 8192 + 777, 200_000];
    sizes.iter().for_each(|len| drop(data::file(&place, &format!("source.{len}"), 1, *len)));
    let mut kills = 0;
    for i in 0..20 {
        let (name, file) = (format!("f{i}"), place.join(format!("source.{}", sizes[i % 4])));
        let mut client = push(&daemon, &file, &name).spawn().unwrap();
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            assert!(Instant::now() < deadline, "{name} is not finished, seed {seed}");
            std::thread::sleep(Duration::from_millis(dice.below(30)));
            if let Some(status) = client.try_wait().unwrap() {
                break status;
            }
            if kills < 3 * (i + 1) {
                kills += 1;
                let merger = daemon.info(&name, "merger_pid").and_then(|pid| pid.parse().ok());
                if !merger.is_some_and(|pid| signal_program(pid, "bigup-merger", Signal::SIGKILL)) {
                    daemon.kill_9();
                    daemon.run();
                }
            }
        };
        assert!(status.success(), "{name} ended with {status}, seed {seed}");
    }
    // What kills left half made or removed is hidden, and swept a minute later.
    let visible = |folder: &str| list(&daemon.data().join(folder)).iter().filter(|name| !name.starts_with('.')).count();
    eventually("all uploads and notices are gone", || visible("tmp") == 0 && visible("completed") == 0);
    let mut told = lines(&place.join("told"));
    let times = told.len();
    told.sort();
    told.dedup();
    assert_eq!(told.len(), 20, "{kills} kills, seed {seed}: {told:?}");
    println!("{kills} kills; 20 files were told of {times} times");
}

#[test]
fn a_server_is_told_by_a_post_and_again_where_it_fails() {
    let web = WebHook::start(|n| match n {
        0 => ("500 Internal Server Error", "oops".to_owned()),
        1 => ("302 Found\r\nLocation: http://127.0.0.1:1/", String::new()),
        _ => ("204 No Content", String::new()),
    });
    let daemon = Daemon::with(&["--on-complete", &web.url]);
    put(&daemon.server(), "a b", b"text", "");
    eventually("it is told", || web.asked().len() == 3 && list(&daemon.data().join("completed")).is_empty());
    for (i, asked) in web.asked().into_iter().enumerate() {
        let path = daemon.data().join("files/a b");
        let expected = json!({"event": "complete", "file_name": "a b", "path": path, "file_size": 4, "token": null,
            "file_digest": blake3::hash(b"text").to_string(), "metadata": null, "attempt": i + 1});
        assert_eq!(asked, expected);
    }
    assert!(daemon.log().contains("HTTP status 500") && daemon.log().contains("HTTP status 302"));
}

#[test]
fn mistakes_in_settings_are_told_at_the_start_all_of_them() {
    let mut check = Command::new(programs::path("bigupd"));
    check.args(["--check-config", "--data-dir", "/tmp/none", "--on-begin", "bin/hook", "--on-complete", "/nowhere"]);
    let output = check.args(["--on-complete-attempts", "0"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2));
    assert!(said.contains("--on-begin: \"bin/hook\"") && said.contains("--on-complete-attempts: 0"), "{said}");
    let mut check = Command::new(programs::path("bigupd"));
    check.args(["--check-config", "--data-dir", "/tmp/none", "--on-begin", "/etc/passwd", "--on-complete", "/nowhere"]);
    let output = check.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2));
    assert!(said.contains("on_begin: /etc/passwd cannot be executed"), "{said}");
    assert!(said.contains("on_complete: /nowhere: No such file"), "{said}");
}

/// Who starts the daemon leaves files open in it, and allows it a number of its own. Hooks and mergers get none of the former
/// and the latter.
#[test]
fn hooks_and_mergers_get_no_file_of_the_starter_and_its_limit() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().canonicalize().unwrap();
    let look = "ls -l /proc/self/fd > DIR/$(basename $0).open; ulimit -Sn > DIR/$(basename $0).limit";
    let merger = format!("{look}; exec '{}' \"$@\"", programs::path("bigup-merger").display());
    let [begin, complete, merger] =
        [("begin", look), ("complete", look), ("merger", &merger)].map(|(name, text)| script(&place, name, text));
    let launcher = format!("ulimit -Sn 123; exec 9< {}/begin 10> {0}/held; exec \"$0\" \"$@\"", place.display());
    let launcher = ["bash", "-c", &launcher].map(str::to_owned).to_vec();
    let settings = ["--on-begin", &begin, "--on-complete", &complete, "--merger", &merger];
    let daemon = Daemon::launched(launcher, &place.join("data"), &settings);
    daemon.server().get("file_name=f&slice_num=2&slice_size=3").expect(200);
    (0..2).for_each(|id| {
        drop(daemon.server().post(&format!("file_name=f&slice_id={id}&slice_size=3"), b"abc").expect(200))
    });
    eventually("all have run", || {
        ["begin", "complete", "merger"].iter().all(|name| place.join(format!("{name}.limit")).exists())
    });
    for name in ["begin", "complete", "merger"] {
        eventually("it has looked", || !lines(&place.join(format!("{name}.limit"))).is_empty());
        assert_eq!(lines(&place.join(format!("{name}.limit"))), ["123"], "{name}");
        let open = lines(&place.join(format!("{name}.open"))).join("\n");
        assert!(!open.contains("/held") && !open.contains("/begin\n") && !open.contains("socket:"), "{name}: {open}");
    }
}

/// A `bigup-cli` that a hook runs takes none of them for something else, nor does a `bigupd`.
#[test]
fn the_variables_of_hooks_are_no_settings() {
    use clap::CommandFactory;
    fn variables(command: &clap::Command, all: &mut Vec<String>) {
        all.extend(command.get_arguments().filter_map(|arg| Some(arg.get_env()?.to_string_lossy().into_owned())));
        command.get_subcommands().for_each(|command| variables(command, all));
    }
    let mut ours = vec!["BIGUP_TOKEN".to_owned(), "BIGUP_LOG".to_owned(), "BIGUP_CONFIG".to_owned()];
    variables(&bigup_client::cli::args::Cli::command(), &mut ours);
    ours.extend(bigupd::config::settings::SETTINGS.iter().map(|setting| setting.variable()));
    let hooked = Hooked::with("env > DIR/env.new; mv DIR/env.new DIR/env", &[]);
    put(&hooked.daemon.server(), "f", b"text", "");
    eventually("it was told", || hooked.place.join("env").exists());
    let told = lines(&hooked.place.join("env"));
    let told: Vec<&str> = told.iter().filter_map(|line| Some(line.split_once('=')?.0)).collect();
    assert!(told.contains(&"BIGUP_TOKEN_NAME"), "{told:?}");
    assert!(!ours.iter().any(|variable| told.contains(&&variable[..])), "{told:?}");
}
