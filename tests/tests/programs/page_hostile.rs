//! The page in Chromium against what it does not expect: names that look like something else, files that go, responses that
//! make no sense, connections that go silent, storage that is blocked or full.

use bigup_tests::daemon::{Daemon, list};
use bigup_tests::process::{eventually, signal};
use bigup_tests::visitor::Visitor;
use bigup_tests::{data, programs, turns};
use nix::sys::signal::Signal;
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const MIB: u64 = 1 << 20;

fn file(daemon: &Daemon, name: &str, len: u64) -> PathBuf {
    data::file(&daemon.scratch(), name, len, len)
}

fn assert_exact(daemon: &Daemon, file: &Path, name: &str) {
    assert!(data::same(file, &daemon.finished(name)), "{name} arrived differently");
}

fn slow_down(visitor: &mut Visitor) {
    visitor.ask(&json!({"do": "select", "at": "#limit", "value": "2"}));
}

fn hurry(visitor: &mut Visitor) {
    visitor.ask(&json!({"do": "select", "at": "#limit", "value": "0"}));
}

fn eventually_some(daemon: &Daemon, name: &str) {
    eventually("some slices are held", || daemon.server().get(&format!("peek=1&file_name={name}")).held().len() >= 2);
}

fn link(daemon: &Daemon, more: &[&str]) -> String {
    let mut command = Command::new(programs::path("bigupd"));
    let guest = ["token", "new", "guest", "--prefix", "guests/", "--permissions", "push", "--link", daemon.url()];
    let output = command.args(guest).args(more).arg("--data-dir").arg(daemon.data()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn width_beyond(visitor: &mut Visitor) -> i64 {
    visitor.run("document.documentElement.scrollWidth - innerWidth").as_i64().unwrap()
}

#[test]
fn names_that_look_like_something_else_are_text_and_arrive_as_they_are() {
    let daemon = Daemon::start();
    let html = "<img src=x onerror=\"document.title='x'\">.txt";
    let turned = "invoice\u{202e}fdp.exe";
    let longest = format!("{}.bin", "ä".repeat(125) + "x");
    assert_eq!(longest.len(), 255);
    let files = [html, turned, &longest].map(|name| file(&daemon, name, name.len() as u64));
    let mut visitor = Visitor::with(json!({"width": 360, "height": 800}));
    visitor.open(daemon.url());
    visitor.choose(&files.each_ref().map(PathBuf::as_path));
    visitor.until_verified(3);
    for (file, name) in files.iter().zip([html, turned, &longest]) {
        assert_exact(&daemon, file, name);
    }
    assert_eq!(visitor.run("document.querySelectorAll('#list img').length"), 0);
    visitor.until("#list .name:text-is('invoice⟨U+202E⟩fdp.exe')");
    assert_eq!(width_beyond(&mut visitor), 0);
    // A number does not make the name too long for the server.
    visitor.click("#clear");
    data::file(&daemon.scratch(), &longest, 9, 99);
    visitor.choose(&[&files[2]]);
    visitor.click(&format!("button[aria-label='Rename: {longest}']"));
    visitor.until_verified(1);
    assert_exact(&daemon, &files[2], &format!("{} (1).bin", "ä".repeat(123)));
    visitor.click("#tab-files");
    visitor.until("#files-list .name:text-is('invoice⟨U+202E⟩fdp.exe')");
    assert_eq!(visitor.run("document.querySelectorAll('#files-list img').length"), 0);
    assert_eq!(width_beyond(&mut visitor), 0);
    assert_eq!(visitor.ask(&json!({"do": "axe"})), json!([]));
    visitor.assert_clean();
}

#[test]
fn a_file_that_is_removed_while_it_is_sent_is_told_and_goes_on_once_it_is_back() {
    let _turn = turns::turn();
    let daemon = Daemon::start();
    let path = file(&daemon, "removed", 64 * MIB);
    let away = path.with_extension("away");
    let mut visitor = Visitor::new();
    visitor.open(daemon.url());
    slow_down(&mut visitor);
    visitor.choose(&[&path]);
    eventually_some(&daemon, "removed");
    fs::rename(&path, &away).unwrap();
    visitor.until("#list .row[data-state=stopped]:has-text('can no longer be read')");
    let held = daemon.server().get("peek=1&file_name=removed").held().len();
    fs::rename(&away, &path).unwrap();
    hurry(&mut visitor);
    visitor.ask(&json!({"do": "posts"}));
    visitor.choose(&[&path]);
    visitor.until_verified(1);
    let sent = visitor.ask(&json!({"do": "posts"})).as_u64().unwrap() as usize;
    assert!(sent <= 32 - held, "{sent} slices were sent, of 32 with {held} held");
    assert_exact(&daemon, &path, "removed");
    visitor.assert_clean();
}

#[test]
fn responses_that_make_no_sense_are_a_pause_and_no_tab_hangs() {
    let daemon = Daemon::start();
    let path = file(&daemon, "sense", 9 * MIB);
    // page_engine.rs has more of them.
    let nonsense = [
        json!({"status": 200, "is_uploaded": 0, "slice_size": 1, "slice_ranges_uploaded": [[0, 1e15]]}),
        json!({"status": 200}),
        json!("<html>log in</html>"),
        json!({"status": 200, "is_uploaded": 1, "file_digest": "<b>"}),
        json!(null),
    ];
    let mut visitor = Visitor::new();
    visitor.open(daemon.url());
    visitor.ask(&json!({"do": "nonsense", "bodies": nonsense}));
    visitor.choose(&[&path]);
    visitor.until("#list .state:has-text('Something else responds')");
    visitor.ask(&json!({"do": "nonsense_told"}));
    visitor.click("#tab-files");
    visitor.until("#files-note:has-text('Something else responds')");
    visitor.click("#tab-send");
    visitor.ask(&json!({"do": "sense"}));
    visitor.until_verified(1);
    assert_exact(&daemon, &path, "sense");
    visitor.assert_clean();
}

#[test]
fn where_the_browser_blocks_storage_a_guest_s_link_works() {
    let daemon = Daemon::start();
    let (small, large) = (file(&daemon, "small", 1000), file(&daemon, "large", 9 * MIB));
    let mut visitor = Visitor::new();
    visitor.ask(&json!({"do": "before", "script": "
        const blocked = () => { throw new DOMException('blocked', 'SecurityError'); };
        for (const name of ['indexedDB', 'localStorage', 'sessionStorage']) {
            Object.defineProperty(globalThis, name, { get: blocked });
        }
        LockManager.prototype.request = async () => blocked();
        LockManager.prototype.query = async () => blocked();"}));
    visitor.open(&link(&daemon, &[]));
    visitor.choose(&[&small, &large]);
    visitor.until_verified(2);
    assert_exact(&daemon, &small, "guests/small");
    assert_exact(&daemon, &large, "guests/large");
    visitor.assert_clean();
}

#[test]
fn where_storage_is_full_or_cleared_meanwhile_files_arrive() {
    let daemon = Daemon::start();
    let files = ["full", "cleared"].map(|name| file(&daemon, name, 3 * MIB));
    let mut visitor = Visitor::new();
    visitor.open(daemon.url());
    visitor.run("IDBObjectStore.prototype.put = () => { throw new DOMException('full', 'QuotaExceededError'); }; 0");
    visitor.choose(&[&files[0]]);
    visitor.until_verified(1);
    visitor
        .run("IDBDatabase.prototype.transaction = () => { throw new DOMException('gone', 'InvalidStateError'); }; 0");
    visitor.choose(&[&files[1]]);
    visitor.until_verified(2);
    assert_exact(&daemon, &files[0], "full");
    assert_exact(&daemon, &files[1], "cleared");
    visitor.assert_clean();
}

#[test]
fn a_link_for_one_file_takes_one_and_says_so_with_the_numbers() {
    let daemon = Daemon::start();
    let (first, second) = (file(&daemon, "first", 9 * MIB), file(&daemon, "second", 1000));
    let mut visitor = Visitor::new();
    visitor.open(&link(&daemon, &["--once"]));
    visitor.choose(&[&first]);
    visitor.until_verified(1);
    visitor.choose(&[&second]);
    visitor.until("#list .row[data-state=stopped]:has-text('may begin 1 upload in all, and has begun 1')");
    assert_exact(&daemon, &first, "guests/first");
    assert_eq!(list(&daemon.data().join("files/guests")), ["first"]);
    visitor.assert_clean();
}

#[test]
fn a_connection_that_goes_silent_without_an_end_is_a_pause() {
    let _turn = turns::turn();
    let daemon = Daemon::start();
    let path = file(&daemon, "silent", 64 * MIB);
    let mut visitor = Visitor::new();
    // With less patience than a visitor's page has.
    visitor.ask(&json!({"do": "before", "script": "
        const post = Worker.prototype.postMessage;
        Worker.prototype.postMessage = function (job) { return post.call(this, { ...job, silence: 1000 }); };"}));
    visitor.open(daemon.url());
    slow_down(&mut visitor);
    visitor.choose(&[&path]);
    eventually_some(&daemon, "silent");
    signal(daemon.pid(), Signal::SIGSTOP);
    visitor.until("#list .state:has-text('The server does not respond')");
    signal(daemon.pid(), Signal::SIGCONT);
    hurry(&mut visitor);
    visitor.until_verified(1);
    assert_exact(&daemon, &path, "silent");
    visitor.assert_clean();
}
