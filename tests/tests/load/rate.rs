//! `--limit-rate` with the real programs: never faster, hardly slower, whatever is pushed, by how many senders, or by a
//! watch.

use bigup_tests::daemon::Daemon;
use bigup_tests::process::{kill_9, within};
use bigup_tests::proxy::Proxy;
use bigup_tests::turns::turn;
use bigup_tests::{data, programs};
use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const RATE: u64 = 4 << 20;
const SIZE: u64 = 2 * RATE;

fn push(url: &str, arguments: &[&str]) -> Command {
    let mut command = programs::cli();
    command.arg("push").args(["--url", url, "--limit-rate", "4M"]).args(arguments);
    command
}

/// How long a push takes that must succeed.
fn time(command: &mut Command) -> Duration {
    let began = Instant::now();
    let output = command.output().expect("the client can be started");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    began.elapsed()
}

/// No faster than the rate; slower by 5 %, and by what a machine that is busy makes of starting and ending.
fn assert_kept(took: Duration, bytes: u64, what: &str) {
    let least = Duration::from_secs_f64(bytes as f64 / RATE as f64);
    let most = least.mul_f64(1.05) + Duration::from_secs(3);
    assert!(least <= took && took <= most, "{what}: {bytes} bytes took {took:?}, {least:?} to {most:?} are right");
}

#[test]
fn the_rate_is_kept_by_any_number_of_senders() {
    let _turn = turn();
    let daemon = Daemon::start();
    for senders in ["1", "4", "32"] {
        let file = data::file(&daemon.scratch(), senders, 1, SIZE);
        let took = time(&mut push(daemon.url(), &[path(&file), "--senders", senders, "--slice-size", "256K"]));
        assert_kept(took, SIZE, senders);
        assert!(data::same(&file, &daemon.finished(senders)));
    }
}

#[test]
fn the_rate_is_kept_for_standard_input_and_for_small_files() {
    let _turn = turn();
    let daemon = Daemon::start();
    let file = data::file(&daemon.scratch(), "input", 1, SIZE);
    let mut command = push(daemon.url(), &["-", "--name", "input", "--slice-size", "1M"]);
    assert_kept(time(command.stdin(Stdio::from(File::open(&file).unwrap()))), SIZE, "standard input");
    assert!(data::same(&file, &daemon.finished("input")));
    let folder = daemon.scratch().join("many");
    (0..16).for_each(|i| drop(data::file(&folder, &i.to_string(), i, SIZE / 16)));
    assert_kept(time(&mut push(daemon.url(), &[path(&folder)])), SIZE, "small files");
}

#[test]
fn what_is_sent_again_counts_too() {
    let _turn = turn();
    let daemon = Daemon::start();
    let proxy = Proxy::start(&[daemon.url()], 3);
    let file = data::file(&daemon.scratch(), "again", 1, 3 * SIZE);
    let took = time(&mut push(proxy.url(), &[path(&file), "--slice-size", "1M"]));
    assert!(proxy.cuts() > 0, "nothing was cut");
    let sent = proxy.bytes_up();
    assert!(sent > 3 * SIZE, "{sent} bytes went up");
    // Heads of requests go by uncounted.
    let least = Duration::from_secs_f64(sent as f64 / RATE as f64 / 1.01);
    assert!(took >= least, "{sent} bytes took {took:?}, {least:?} is right");
    assert!(data::same(&file, &daemon.finished("again")));
}

#[test]
fn followed_files_and_complete_ones_share_the_rate() {
    let _turn = turn();
    let daemon = Daemon::start();
    let proxy = Proxy::start(&[daemon.url()], 0);
    proxy.calm_down();
    let (folder, state) = (daemon.scratch().join("watched"), daemon.scratch().join("state"));
    data::file(&folder, "complete", 1, SIZE);
    // Files that a program writes to are followed.
    let names = ["log", "video"];
    let open: Vec<File> = (2..)
        .zip(names)
        .map(|(seed, name)| File::options().append(true).open(data::file(&folder, name, seed, 3 * SIZE)).unwrap())
        .collect();
    let began = Instant::now();
    let mut command = programs::cli();
    command.arg("watch").arg(&folder).args([
        "--url",
        proxy.url(),
        "--follow",
        "--settle",
        "100ms",
        "--slice-size",
        "1M",
    ]);
    command.args(["--limit-rate", "4M", "--state"]).arg(&state).stdout(Stdio::null());
    let mut watch = command.spawn().unwrap();
    let ahead = 5 * SIZE;
    within(Duration::from_secs(120), "most is sent while the files are open", || proxy.bytes_up() >= ahead);
    let took = began.elapsed();
    drop(open);
    let all = [&["complete"][..], &names].concat();
    let is_stored = |name: &&str| data::same(&folder.join(name), &daemon.finished(name));
    within(Duration::from_secs(120), "all are stored", || all.iter().all(|name| daemon.finished(name).exists()));
    kill_9(&mut watch);
    assert!(all.iter().all(is_stored));
    let least = Duration::from_secs_f64(ahead as f64 / RATE as f64 / 1.01);
    assert!(took >= least, "{ahead} bytes took {took:?}, {least:?} is right");
}

fn path(path: &Path) -> &str {
    path.to_str().expect("paths of tests are UTF-8")
}
