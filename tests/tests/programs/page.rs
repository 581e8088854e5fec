//! The page for browsers, in Chromium: files arrive exactly and their digests are shown, whatever happens meanwhile.
//!
//! Needs node with the modules of clients/tus/package.json in `BIGUP_NODE_MODULES`, and Chromium.

use bigup_tests::browser::Site;
use bigup_tests::daemon::{Daemon, list};
use bigup_tests::http::{Answer, connect, read_answer};
use bigup_tests::mount::Mount;
use bigup_tests::process::eventually;
use bigup_tests::visitor::Visitor;
use bigup_tests::{data, docs, needs, programs, turns};
use serde_json::json;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

const MIB: u64 = 1 << 20;

/// Slices of a file of 64 MiB whose upload begins while the limit of [`slow_down`] is set: each takes a second of it.
const SLICES: usize = 32;

fn file(daemon: &Daemon, name: &str, len: u64) -> PathBuf {
    data::file(&daemon.scratch(), name, len, len)
}

fn get(url: &str, head: &str) -> (Answer, String) {
    let mut stream = connect(url);
    write!(stream, "{head}\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let text = read_answer(&mut stream);
    (Answer::parse(&text), text)
}

fn assert_exact(daemon: &Daemon, file: &Path, name: &str) {
    assert!(data::same(file, &daemon.finished(name)), "{name} arrived differently");
}

/// Sends so slowly that a test can do something in the middle.
fn slow_down(visitor: &mut Visitor) {
    visitor.ask(&json!({"do": "select", "at": "#limit", "value": "2"}));
}

/// Numbers of held slices.
fn held(daemon: &Daemon, name: &str) -> usize {
    daemon.server().get(&format!("peek=1&file_name={name}")).held().len()
}

fn eventually_half(daemon: &Daemon, name: &str) {
    eventually("some slices are held", || held(daemon, name) >= 2);
}

fn token(daemon: &Daemon, arguments: &[&str]) -> String {
    let mut command = Command::new(programs::path("bigupd"));
    let output = command.args(["token", "new"]).args(arguments).arg("--data-dir").arg(daemon.data()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn the_page_is_served_with_a_strict_policy_and_only_if_it_is_on() {
    let folder = tempfile::tempdir().unwrap();
    let logo = folder.path().join("logo.svg");
    fs::write(&logo, "<svg>own</svg>").unwrap();
    let options = ["--web-title", "Files & more", "--web-text", "Ask <us>", "--web-logo", logo.to_str().unwrap()];
    let daemon = Daemon::with(&options);
    let (answer, text) = get(daemon.url(), "GET / HTTP/1.1");
    assert_eq!(answer.status, 200);
    let lower = text.to_ascii_lowercase();
    for header in [
        "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; connect-src 'self'",
        "frame-ancestors 'none'",
        "x-content-type-options: nosniff",
        "referrer-policy: same-origin",
        "cache-control: no-cache",
        "content-type: text/html; charset=utf-8",
    ] {
        assert!(lower.contains(header), "{header}: {text}");
    }
    assert!(text.contains("<title>Files &amp; more</title>") && text.contains("Ask &lt;us&gt;"), "{text}");
    assert!(text.contains("src=\"/page/logo\""), "{text}");
    let (_, picture) = get(daemon.url(), "GET /page/logo HTTP/1.1");
    assert!(picture.contains("image/svg+xml") && picture.ends_with("<svg>own</svg>"), "{picture}");
    let etag = text.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("etag: ").map(str::to_owned));
    let known = format!("GET / HTTP/1.1\r\nIf-None-Match: {}", etag.unwrap());
    assert_eq!(get(daemon.url(), &known).0.status, 304);
    let (head, text) = get(daemon.url(), "HEAD /page/app.js HTTP/1.1");
    assert!(head.status == 200 && text.ends_with("\r\n\r\n") && text.contains("text/javascript"), "{text}");
    assert!(get(daemon.url(), "GET /page/engine/blake3.wasm HTTP/1.1").1.contains("application/wasm"));
    assert_eq!(get(daemon.url(), "POST / HTTP/1.1\r\nContent-Length: 0").0.status, 405);
    for nothing in ["/page/", "/page/index.html", "/page/..%2Fapp.js", "/index.html"] {
        assert_eq!(get(daemon.url(), &format!("GET {nothing} HTTP/1.1")).0.status, 404, "{nothing}");
    }
    let daemon = Daemon::with(&["--web", "no"]);
    assert_eq!(get(daemon.url(), "GET / HTTP/1.1").0.status, 404);
    assert_eq!(get(daemon.url(), "GET /page/app.js HTTP/1.1").0.status, 404);
}

#[test]
fn files_that_are_chosen_arrive_exactly_and_their_digests_are_shown() {
    let _turn = turns::turn();
    let daemon = Daemon::start();
    let sizes = [("empty", 0), ("byte", 1), ("small", 100_000), ("border", 2 * MIB), ("slices", 20 * MIB + 1)];
    let files = sizes.map(|(name, len)| file(&daemon, name, len));
    let mut visitor = Visitor::new();
    visitor.open(daemon.url());
    visitor.choose(&files.each_ref().map(PathBuf::as_path));
    visitor.until_verified(files.len());
    let shown = visitor.ask(&json!({"do": "texts", "at": "#list .digest"}));
    for (file, (name, _)) in files.iter().zip(sizes) {
        assert_exact(&daemon, file, name);
        assert!(shown.as_array().unwrap().contains(&data::digest(file).into()), "{name}: {shown}");
    }
    daemon.eventually_clean();
    // The same files again: nothing is sent, and the page says that they are there.
    visitor.ask(&json!({"do": "reload"}));
    visitor.ask(&json!({"do": "posts"}));
    visitor.choose(&[&files[4]]);
    visitor.until_verified(1);
    assert_eq!(visitor.ask(&json!({"do": "posts"})), 0);
    visitor.assert_clean();
}

#[test]
fn a_gibibyte_is_exact_and_takes_little_memory() {
    let _turn = turns::turn();
    let daemon = Daemon::start();
    let file = file(&daemon, "gib", 1 << 30);
    let mut visitor = Visitor::new();
    visitor.open(daemon.url());
    visitor.choose(&[&file]);
    // It is seen to go on.
    visitor.until("#uploads-title:text-matches('^[1-9][0-9.]* MiB of 1 GiB')");
    visitor.until("#list .facts:text-matches('MiB of 1 GiB · .*/s · .* left')");
    visitor.until_verified(1);
    assert_eq!(visitor.text("#list .digest"), data::digest(&file));
    assert_exact(&daemon, &file, "gib");
    let memory = visitor.ask(&json!({"do": "memory"})).as_u64().unwrap();
    assert!(memory < 32 * MIB, "{memory} bytes");
    visitor.assert_clean();
}

#[test]
fn a_folder_of_two_thousand_files_is_dropped_and_few_rows_are_in_the_document() {
    let _turn = turns::turn();
    let daemon = Daemon::start();
    let folder = daemon.scratch().join("many");
    for number in 0..2000_u64 {
        data::file(&folder.join(format!("part {}", number % 7)), &format!("{number}.bin"), number, number % 3000);
    }
    let mut visitor = Visitor::new();
    visitor.open(daemon.url());
    visitor.drop_files(&[&folder]);
    visitor.until("#uploads-title:has-text('All files are verified')");
    assert!(visitor.text("#sum-detail").contains("2000 files"));
    assert!(visitor.ask(&json!({"do": "count", "at": "#list .row"})).as_u64().unwrap() < 60);
    visitor.ask(&json!({"do": "scroll", "to": 147_000}));
    visitor.until("#list .row[aria-posinset='1500']");
    for number in [0, 1, 777, 1999] {
        let name = format!("part {}/{number}.bin", number % 7);
        assert!(data::same(&folder.join(&name), &daemon.finished(&format!("many/{name}"))), "{name}");
    }
    daemon.eventually_clean();
    visitor.assert_clean();
}

#[test]
fn a_reloaded_page_lists_the_upload_and_sends_only_what_is_missing() {
    let _turn = turns::turn();
    let daemon = Daemon::start();
    let file = file(&daemon, "reloaded", 64 * MIB);
    let mut visitor = Visitor::new();
    visitor.open(daemon.url());
    slow_down(&mut visitor);
    visitor.choose(&[&file]);
    eventually_half(&daemon, "reloaded");
    visitor.ask(&json!({"do": "reload"}));
    visitor.until("#list .row[data-state=missing]:has-text('Choose the same file again')");
    let before = held(&daemon, "reloaded");
    visitor.ask(&json!({"do": "posts"}));
    // By the row, and as a part of another choice.
    visitor.choose(&[&file]);
    visitor.until_verified(1);
    let sent = visitor.ask(&json!({"do": "posts"})).as_u64().unwrap() as usize;
    assert!(sent <= SLICES - before, "{sent} slices were sent, of {SLICES} with {before} held");
    assert_eq!(visitor.text("#list .digest"), data::digest(&file));
    assert_exact(&daemon, &file, "reloaded");
    visitor.assert_clean();
}

#[test]
fn after_a_crash_of_the_browser_the_upload_is_listed_still() {
    let _turn = turns::turn();
    let daemon = Daemon::start();
    let file = file(&daemon, "crashed", 64 * MIB);
    let mut visitor = Visitor::new();
    visitor.open(daemon.url());
    slow_down(&mut visitor);
    visitor.choose(&[&file]);
    eventually_half(&daemon, "crashed");
    let mut visitor = visitor.crash();
    visitor.open(daemon.url());
    visitor.until("#list .row[data-state=missing]");
    visitor.choose(&[&file]);
    visitor.until_verified(1);
    assert_exact(&daemon, &file, "crashed");
    visitor.assert_clean();
}

#[test]
fn a_dropped_file_goes_on_by_one_click_after_a_reload() {
    let _turn = turns::turn();
    let daemon = Daemon::start();
    let file = file(&daemon, "dropped", 64 * MIB);
    let mut visitor = Visitor::new();
    visitor.open(daemon.url());
    slow_down(&mut visitor);
    visitor.drop_files(&[&file]);
    eventually_half(&daemon, "dropped");
    visitor.ask(&json!({"do": "reload"}));
    // What the server holds is shown before the file can be read.
    visitor.until("#uploads-title:text-matches('^[1-9].* of 64 MiB')");
    let before = held(&daemon, "dropped");
    visitor.ask(&json!({"do": "posts"}));
    // Nobody can click at the browser's own question here: stand-ins give the permission, and then the file.
    visitor.run(
        "const input = document.createElement('input'); input.type = 'file'; input.id = 'stand-in';
         document.body.append(input);
         FileSystemHandle.prototype.requestPermission = async () => 'granted';
         FileSystemFileHandle.prototype.getFile = async () => input.files[0]; 0",
    );
    visitor.ask(&json!({"do": "choose", "files": [file], "input": "#stand-in"}));
    visitor.click("button[aria-label='Go on: dropped']");
    visitor.until_verified(1);
    assert!(visitor.ask(&json!({"do": "posts"})).as_u64().unwrap() as usize <= SLICES - before);
    assert_exact(&daemon, &file, "dropped");
    visitor.assert_clean();
}

#[test]
fn a_dropped_file_whose_reading_is_denied_is_chosen_again() {
    let _turn = turns::turn();
    let daemon = Daemon::start();
    let file = file(&daemon, "denied", 64 * MIB);
    let mut visitor = Visitor::new();
    visitor.open(daemon.url());
    slow_down(&mut visitor);
    visitor.drop_files(&[&file]);
    eventually_half(&daemon, "denied");
    visitor.ask(&json!({"do": "reload"}));
    visitor.until("button[aria-label='Go on: denied']");
    visitor.run("FileSystemHandle.prototype.requestPermission = async () => 'denied'; 0");
    visitor.click("button[aria-label='Go on: denied']");
    visitor.until("button[aria-label='Choose file: denied']");
    visitor.choose(&[&file]);
    visitor.until_verified(1);
    assert_exact(&daemon, &file, "denied");
    visitor.assert_clean();
}

/// Begins an upload as another client does whose slices fit no tree, stores slices of `bytes`, and gives it up.
fn begin_as_another(daemon: &Daemon, name: &str, bytes: &[u8], slices: &[usize]) {
    const SLICE: usize = 3_000_000;
    let server = daemon.server();
    let begin = format!("file_name={name}&source=another&file_size={}&slice_size={SLICE}", bytes.len());
    server.get(&begin).expect(200);
    for id in slices {
        let (at, slice) = (id * SLICE, &bytes[id * SLICE..(id + 1) * SLICE]);
        let query = format!("file_name={name}&source=another&slice_id={id}&slice_size={SLICE}&offset={at}");
        server.post(&query, slice).expect(200);
    }
    server.get(&format!("file_name={name}&source=another&peek=1&leave=1")).expect(200);
}

#[test]
fn an_upload_of_another_client_goes_on_with_the_slices_that_are_equal() {
    let _turn = turns::turn();
    let daemon = Daemon::start();
    let file = file(&daemon, "taken", 12 * MIB);
    let bytes = fs::read(&file).unwrap();
    let mut other = bytes.clone();
    other[4_000_000] ^= 1;
    begin_as_another(&daemon, "taken", &other, &[0, 1, 3]);
    let mut visitor = Visitor::new();
    visitor.open(daemon.url());
    visitor.choose(&[&file]);
    visitor.until_verified(1);
    // Of five slices two were held with the same bytes.
    assert_eq!(visitor.ask(&json!({"do": "posts"})), 3);
    assert_exact(&daemon, &file, "taken");
    assert_eq!(visitor.text("#list .digest"), data::digest(&file));
    visitor.assert_clean();
}

#[test]
fn what_cannot_be_read_is_listed_with_the_reason_and_the_rest_arrives() {
    let daemon = Daemon::start();
    let good = file(&daemon, "folder/good", 1000);
    file(&daemon, "folder/secret", 10);
    let mut visitor = Visitor::new();
    visitor.open(daemon.url());
    // For the superuser there is no unreadable file.
    visitor.run(
        "const read = FileSystemFileHandle.prototype.getFile;
         FileSystemFileHandle.prototype.getFile = function () {
             const no = () => Promise.reject(new DOMException('permission denied', 'NotAllowedError'));
             return this.name === 'secret' ? no() : read.call(this);
         }; 0",
    );
    visitor.drop_files(&[&daemon.scratch().join("folder")]);
    visitor.until("#skipped:has-text('1 entry could not be read'):has-text('folder/secret: permission denied')");
    visitor.until_verified(1);
    assert_exact(&daemon, &good, "folder/good");
    visitor.click("#skipped-dismiss");
    assert_eq!(visitor.ask(&json!({"do": "axe"})), json!([]));
    visitor.assert_clean();
}

#[test]
fn leaving_is_asked_about_only_while_something_is_unsent() {
    let _turn = turns::turn();
    let daemon = Daemon::start();
    let file = file(&daemon, "left", 24 * MIB);
    let mut visitor = Visitor::new();
    visitor.open(daemon.url());
    slow_down(&mut visitor);
    // Browsers ask only for pages that were used.
    visitor.click("#drop-title");
    visitor.choose(&[&file]);
    eventually("a slice is held", || held(&daemon, "left") >= 1);
    assert_eq!(visitor.ask(&json!({"do": "leave"})), "asked");
    visitor.ask(&json!({"do": "select", "at": "#limit", "value": "0"}));
    visitor.until_verified(1);
    assert_eq!(visitor.ask(&json!({"do": "leave"})), "left");
}

#[test]
fn over_plain_http_and_without_webassembly_files_are_exact_too() {
    let _turn = turns::turn();
    let daemon = Daemon::with(&["--allowed-hosts", "files.example.org"]);
    let (small, large) = (file(&daemon, "small", 1000), file(&daemon, "large", 9 * MIB));
    let options = ["--host-resolver-rules=MAP files.example.org 127.0.0.1", "--js-flags=--jitless"];
    let mut visitor = Visitor::with(json!({"args": options}));
    visitor.open(&daemon.url().replace("127.0.0.1", "files.example.org"));
    assert_eq!(
        visitor.run("[isSecureContext, typeof WebAssembly, typeof navigator.locks].join()"),
        "false,undefined,undefined"
    );
    visitor.choose(&[&small, &large]);
    visitor.until_verified(2);
    assert_exact(&daemon, &small, "small");
    assert_exact(&daemon, &large, "large");
    visitor.click("button[aria-label='Copy digest: large']");
    visitor.until("#live:has-text('Copied')");
    visitor.assert_clean();
}

#[test]
fn a_file_that_changed_before_it_was_chosen_again_is_sent_anew() {
    let _turn = turns::turn();
    let daemon = Daemon::start();
    let file = file(&daemon, "other", 40 * MIB);
    let mut visitor = Visitor::new();
    visitor.open(daemon.url());
    slow_down(&mut visitor);
    visitor.choose(&[&file]);
    eventually_half(&daemon, "other");
    visitor.ask(&json!({"do": "reload"}));
    visitor.until("#list .row[data-state=missing]");
    // The old bytes are held, and another version comes.
    data::file(&daemon.scratch(), "other", 7, 40 * MIB);
    visitor.choose(&[&file]);
    visitor.until_verified(1);
    assert_exact(&daemon, &file, "other");
    assert_eq!(visitor.text("#list .digest"), data::digest(&file));
    visitor.assert_clean();
}

#[test]
fn a_file_that_changes_while_it_is_sent_is_told_and_not_mixed() {
    let _turn = turns::turn();
    let daemon = Daemon::start();
    let file = file(&daemon, "changing", 64 * MIB);
    let mut visitor = Visitor::new();
    visitor.open(daemon.url());
    slow_down(&mut visitor);
    visitor.choose(&[&file]);
    eventually_half(&daemon, "changing");
    data::file(&daemon.scratch(), "changing", 7, 64 * MIB);
    visitor.until("#list .row[data-state=stopped]:has-text('The file changed')");
    assert!(!daemon.finished("changing").exists());
    visitor.assert_clean();
}

#[test]
fn a_daemon_that_is_killed_and_started_again_is_a_pause() {
    let _turn = turns::turn();
    let mut daemon = Daemon::start();
    let file = file(&daemon, "killed", 64 * MIB);
    let mut visitor = Visitor::new();
    visitor.open(daemon.url());
    slow_down(&mut visitor);
    visitor.choose(&[&file]);
    eventually_half(&daemon, "killed");
    daemon.kill_9();
    visitor.until("#list .state:has-text('The server does not respond')");
    daemon.run();
    visitor.ask(&json!({"do": "select", "at": "#limit", "value": "0"}));
    visitor.until_verified(1);
    assert_exact(&daemon, &file, "killed");
    visitor.assert_clean();
}

#[test]
fn offline_it_waits_and_online_it_goes_on() {
    let _turn = turns::turn();
    let daemon = Daemon::start();
    let file = file(&daemon, "offline", 64 * MIB);
    let mut visitor = Visitor::new();
    visitor.open(daemon.url());
    slow_down(&mut visitor);
    visitor.choose(&[&file]);
    eventually_half(&daemon, "offline");
    visitor.ask(&json!({"do": "offline", "on": true}));
    visitor.until("#list .state:has-text('You are offline')");
    visitor.ask(&json!({"do": "offline", "on": false}));
    visitor.ask(&json!({"do": "select", "at": "#limit", "value": "0"}));
    visitor.until_verified(1);
    assert_exact(&daemon, &file, "offline");
    visitor.assert_clean();
}

#[test]
fn an_upload_is_paused_resumed_and_cancelled() {
    let _turn = turns::turn();
    let daemon = Daemon::start();
    let (first, second) = (file(&daemon, "first", 64 * MIB), file(&daemon, "second", 48 * MIB));
    let mut visitor = Visitor::new();
    visitor.open(daemon.url());
    slow_down(&mut visitor);
    visitor.choose(&[&first, &second]);
    eventually_half(&daemon, "first");
    visitor.click("button[aria-label='Cancel: second']");
    visitor.click("button[aria-label='Pause: first']");
    visitor.until("#list .row[data-state=paused]");
    let paused = held(&daemon, "first");
    visitor.ask(&json!({"do": "posts"}));
    visitor.ask(&json!({"do": "select", "at": "#limit", "value": "0"}));
    // Both are still for as long as a slice would take several times over.
    eventually("what was cancelled holds nothing", || held(&daemon, "second") == 0);
    assert_eq!(visitor.ask(&json!({"do": "posts"})), 0);
    visitor.click("button[aria-label='Resume: first']");
    visitor.until_verified(1);
    assert!(visitor.ask(&json!({"do": "posts"})).as_u64().unwrap() as usize <= SLICES - paused);
    assert_exact(&daemon, &first, "first");
    assert!(!daemon.finished("second").exists());
    visitor.assert_clean();
}

#[test]
fn two_tabs_send_a_name_one_after_the_other() {
    let _turn = turns::turn();
    let daemon = Daemon::start();
    let file = file(&daemon, "twice", 64 * MIB);
    let mut visitor = Visitor::new();
    visitor.open(daemon.url());
    slow_down(&mut visitor);
    visitor.choose(&[&file]);
    eventually_half(&daemon, "twice");
    visitor.ask(&json!({"do": "open", "url": daemon.url(), "tab": "second"}));
    visitor.run("new Promise((looked) => requestIdleCallback(() => looked(0)))");
    assert_eq!(visitor.ask(&json!({"do": "count", "at": "#list .row"})), 0, "what another tab sends is not unfinished");
    visitor.choose(&[&file]);
    visitor.until("#list .state:has-text('Another tab of this browser')");
    visitor.ask(&json!({"do": "turn", "tab": "first"}));
    visitor.ask(&json!({"do": "select", "at": "#limit", "value": "0"}));
    visitor.until_verified(1);
    visitor.ask(&json!({"do": "turn", "tab": "second"}));
    visitor.until_verified(1);
    assert_exact(&daemon, &file, "twice");
    visitor.assert_clean();
}

#[test]
fn a_name_that_exists_is_kept_replaced_or_numbered_as_the_visitor_says() {
    let _turn = turns::turn();
    let daemon = Daemon::start();
    let names = ["kept.txt", "new.txt", "numbered.txt", "long.bin"];
    let lens = [10, 20, 30, 5 * MIB];
    let files: Vec<PathBuf> = names.iter().zip(lens).map(|(name, len)| file(&daemon, name, len)).collect();
    let mut visitor = Visitor::new();
    visitor.open(daemon.url());
    visitor.choose(&files.iter().map(PathBuf::as_path).collect::<Vec<_>>());
    visitor.until_verified(4);
    let old: Vec<PathBuf> = names.iter().map(|name| daemon.scratch().join(format!("old {name}"))).collect();
    names.iter().zip(&old).for_each(|(name, old)| {
        fs::copy(daemon.finished(name), old).unwrap();
    });
    // Other content of the same length and of another one.
    for (name, len) in names.iter().zip([10, 21, 30, 5 * MIB]) {
        data::file(&daemon.scratch(), name, 99, len);
    }
    visitor.click("#clear");
    visitor.choose(&files.iter().map(PathBuf::as_path).collect::<Vec<_>>());
    visitor.ask(&json!({"do": "until", "at": "#list .row[data-state=asking]", "count": 4}));
    visitor.click("button[aria-label='Keep: kept.txt']");
    visitor.click("button[aria-label='Replace: new.txt']");
    visitor.click("button[aria-label='Rename: numbered.txt']");
    visitor.until_verified(2);
    visitor.until("#list .row[data-state=kept]");
    // One choice for all that are left, and for those to come.
    visitor.run("document.getElementById('all-replace').click()");
    visitor.until_verified(3);
    assert!(data::same(&old[0], &daemon.finished("kept.txt")), "it was to stay");
    assert_exact(&daemon, &files[1], "new.txt");
    assert!(data::same(&old[2], &daemon.finished("numbered.txt")), "it was to stay");
    assert_exact(&daemon, &files[2], "numbered (1).txt");
    assert_exact(&daemon, &files[3], "long.bin");
    visitor.assert_clean();
}

#[test]
fn a_small_file_does_not_wait_for_the_end_of_a_large_one() {
    let _turn = turns::turn();
    let daemon = Daemon::start();
    let (large, small) = (file(&daemon, "large", 64 * MIB), file(&daemon, "small", 1000));
    let mut visitor = Visitor::new();
    visitor.open(daemon.url());
    slow_down(&mut visitor);
    visitor.choose(&[&large, &small]);
    visitor.until_verified(1);
    assert!(daemon.finished("small").exists() && !daemon.finished("large").exists());
    visitor.click("button[aria-label='Cancel: large']");
    visitor.assert_clean();
}

#[test]
fn two_files_of_one_name_both_arrive() {
    let _turn = turns::turn();
    let daemon = Daemon::start();
    let (first, second) = (file(&daemon, "a/same.bin", 24 * MIB), file(&daemon, "b/same.bin", 3 * MIB));
    let mut visitor = Visitor::new();
    visitor.open(daemon.url());
    slow_down(&mut visitor);
    visitor.choose(&[&first]);
    eventually("a slice is held", || held(&daemon, "same.bin") >= 1);
    visitor.choose(&[&second]);
    // The same file once more is no other one.
    visitor.choose(&[&first]);
    visitor.ask(&json!({"do": "select", "at": "#limit", "value": "0"}));
    visitor.until_verified(2);
    assert_exact(&daemon, &first, "same.bin");
    assert_exact(&daemon, &second, "same (1).bin");
    assert_eq!(list(&daemon.data().join("files")), ["same (1).bin", "same.bin"]);
    visitor.assert_clean();
}

#[test]
fn a_name_that_the_server_refuses_is_told_with_what_to_do() {
    let daemon = Daemon::start();
    let (bad, good) = (file(&daemon, "bad", 10), file(&daemon, "good", 10));
    let mut visitor = Visitor::new();
    visitor.open(daemon.url());
    visitor.ask(&json!({"do": "fill", "at": "#folder", "text": ".."}));
    visitor.choose(&[&bad]);
    visitor.until("#list .row[data-state=stopped]:has-text('refuses this name')");
    let said = visitor.text("#list .state");
    assert!(said.contains("(") && said.contains(".."), "the server's own words: {said}");
    visitor.ask(&json!({"do": "fill", "at": "#folder", "text": "fine"}));
    visitor.choose(&[&good]);
    visitor.until_verified(1);
    assert_exact(&daemon, &good, "fine/good");
    visitor.assert_clean();
}

#[test]
fn a_token_is_asked_for_and_stays_in_the_tab() {
    let daemon = Daemon::start();
    let secret = token(&daemon, &["alice"]);
    let file = file(&daemon, "secret", 3 * MIB);
    let mut visitor = Visitor::new();
    visitor.open(daemon.url());
    visitor.choose(&[&file]);
    visitor.until("#token:has-text('stays in this tab only')");
    visitor.ask(&json!({"do": "fill", "at": "#token-input", "text": "wrong"}));
    visitor.ask(&json!({"do": "press", "key": "Enter"}));
    visitor.until("#token:has-text('does not know this token')");
    visitor.ask(&json!({"do": "fill", "at": "#token-input", "text": secret}));
    visitor.ask(&json!({"do": "press", "key": "Enter"}));
    visitor.until_verified(1);
    assert_exact(&daemon, &file, "secret");
    assert_eq!(visitor.run("sessionStorage.getItem('bigup-token')"), secret);
    assert_eq!(
        visitor.run("Object.values(localStorage).join() + document.cookie").as_str().unwrap().find(&secret),
        None
    );
    // After a reload of this tab it is known still, and another tab asks.
    visitor.ask(&json!({"do": "reload"}));
    visitor.click("#tab-files");
    visitor.until("#files-list .row:has-text('secret')");
    visitor.ask(&json!({"do": "open", "url": daemon.url(), "tab": "second"}));
    visitor.click("#tab-files");
    visitor.until("#token");
    visitor.assert_clean();
}

#[test]
fn a_guest_with_a_link_drops_files_and_sees_nothing_else() {
    let daemon = Daemon::start();
    let guest = ["guest", "--prefix", "guests/ann/", "--permissions", "push", "--expires", "1h", "--link"];
    let link = token(&daemon, &[&guest[..], &[daemon.url()]].concat());
    let file = file(&daemon, "present", 3 * MIB);
    let mut visitor = Visitor::new();
    visitor.open(&link);
    // The address bar does not have the token any more, nor does the history.
    assert_eq!(visitor.ask(&json!({"do": "address"})), format!("{}/", daemon.url()));
    visitor.until("#text:has-text('with this link')");
    for hidden in ["#tabs", "#folder-field", "#files"] {
        assert_eq!(visitor.run(&format!("document.querySelector('{hidden}').checkVisibility()")), false, "{hidden}");
    }
    visitor.choose(&[&file]);
    visitor.until_verified(1);
    assert_exact(&daemon, &file, "guests/ann/present");
    visitor.assert_clean();
}

#[test]
fn files_on_the_server_are_listed_searched_sorted_and_removed() {
    let daemon = Daemon::start();
    let files = [("b.txt", 3000), ("a.txt", 10), ("c/d.bin", 200)].map(|(name, len)| file(&daemon, name, len));
    let mut visitor = Visitor::new();
    visitor.open(daemon.url());
    visitor.choose(&[&files[0], &files[1]]);
    visitor.until_verified(2);
    let slow = file(&daemon, "under way", 64 * MIB);
    slow_down(&mut visitor);
    visitor.choose(&[&slow]);
    eventually_half(&daemon, "under%20way");
    visitor.click("#tab-files");
    visitor.until("#progress-list li:has-text('under way'):has-text('arrived')");
    visitor.until("#operator:has-text('free')");
    let names = |visitor: &mut Visitor| visitor.ask(&json!({"do": "texts", "at": "#files-list .name"}));
    visitor.until("#files-list .row:has-text('b.txt')");
    assert_eq!(names(&mut visitor), json!(["a.txt", "b.txt"]));
    visitor.click("[data-sort=size]");
    visitor.click("[data-sort=size]");
    assert_eq!(names(&mut visitor), json!(["a.txt", "b.txt"]));
    visitor.click("[data-sort=size]");
    assert_eq!(names(&mut visitor), json!(["b.txt", "a.txt"]));
    visitor.ask(&json!({"do": "fill", "at": "#search", "text": "B.T"}));
    assert_eq!(names(&mut visitor), json!(["b.txt"]));
    visitor.until(&format!("#files-list .digest:has-text('{}')", data::digest(&files[0])));
    visitor.click("#files-list button[aria-label='Delete: b.txt']");
    visitor.until("#files-note:has-text('No name has this in it')");
    assert_eq!(list(&daemon.data().join("files")), ["a.txt"]);
    visitor.assert_clean();
}

#[test]
fn files_are_downloaded_with_a_token_and_without_and_only_deleted_by_who_may() {
    let daemon = Daemon::start();
    let file = file(&daemon, "dir/a b.txt", 100_000);
    let mut visitor = Visitor::new();
    visitor.open(daemon.url());
    visitor.ask(&json!({"do": "fill", "at": "#folder", "text": "dir"}));
    visitor.choose(&[&file]);
    visitor.until_verified(1);
    let downloaded = |visitor: &mut Visitor| {
        let path = visitor.ask(&json!({"do": "download", "at": "a[aria-label='Download: dir/a b.txt']"}));
        assert!(data::same(&file, Path::new(path.as_str().unwrap())));
    };
    visitor.click("#tab-files");
    downloaded(&mut visitor);
    let secret = token(&daemon, &["reader", "--permissions", "read"]);
    visitor.click("#refresh");
    visitor.until("#token");
    visitor.ask(&json!({"do": "fill", "at": "#token-input", "text": secret}));
    visitor.ask(&json!({"do": "press", "key": "Enter"}));
    visitor.until("#files-list .row");
    // Nobody can answer the browser's own dialog here, so it is as in browsers that have none.
    visitor.run("delete window.showSaveFilePicker; 0");
    downloaded(&mut visitor);
    visitor.click("button[aria-label='Delete: dir/a b.txt']");
    visitor.until("#files-list .row");
    assert!(daemon.finished("dir/a b.txt").exists());
    visitor.assert_clean();
}

#[test]
fn a_full_disk_is_told_and_the_upload_goes_on_once_there_is_room() {
    if !needs::root("page::a_full_disk_is_told", "mounts a file system") {
        return;
    }
    let mount = Mount::in_memory("tmpfs", "size=64m");
    let ballast = mount.path().join("ballast");
    fs::write(&ballast, vec![0; 40 << 20]).unwrap();
    let daemon = Daemon::with_data(&mount.path().join("data"), &["--reserve", "1M"]);
    let file = file(&daemon, "room", 24 * MIB);
    let mut visitor = Visitor::new();
    visitor.open(daemon.url());
    visitor.choose(&[&file]);
    visitor.until("#list .state:has-text('disk is full')");
    fs::remove_file(&ballast).unwrap();
    visitor.until_verified(1);
    assert_exact(&daemon, &file, "room");
    visitor.assert_clean();
}

#[test]
fn the_document_s_settings_are_right() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bigupd.ini");
    fs::write(&file, docs::block("docs/page.md", "tests/tests/programs/page.rs: bigupd")).unwrap();
    let checked = Command::new(programs::path("bigupd")).arg("--config").arg(&file).arg("--check-config").output();
    assert!(checked.unwrap().status.success());
}

#[test]
fn no_other_page_frames_this_one_or_uses_its_server() {
    let daemon = Daemon::start();
    let script = "const at = new URLSearchParams(location.search).get('at');
        const tried = await fetch(at + '/big_file_upload?file_name=x&slice_id=0&slice_num=1&slice_size=1',
            {method: 'POST', mode: 'no-cors', body: 'x'}).then(() => 'sent', () => 'failed');
        const frame = document.createElement('iframe'); frame.src = at + '/';
        const shown = new Promise(ready => { frame.onload = ready; }); document.body.append(frame); await shown;
        tell(tried);";
    let site = Site::start(script);
    let told = site.told_at("localhost", &format!("at={}", daemon.url()));
    assert_eq!(told, "sent", "a browser sends it, and the server refuses it");
    assert_eq!((list(&daemon.data().join("files")), daemon.spools()), (vec![], vec![]));
    let (_, text) = get(daemon.url(), "GET / HTTP/1.1");
    assert!(text.contains("frame-ancestors 'none'"));
}

#[test]
fn axe_finds_nothing_in_both_themes_and_all_languages_fit() {
    let _turn = turns::turn();
    let daemon = Daemon::start();
    let (small, slow) = (file(&daemon, "small", 10), file(&daemon, "slow", 64 * MIB));
    for locale in ["en-GB", "de-DE", "zh-CN"] {
        let mut visitor = Visitor::with(json!({"locale": locale}));
        visitor.open(daemon.url());
        assert_eq!(visitor.run("document.documentElement.lang"), locale[..2]);
        slow_down(&mut visitor);
        visitor.choose(&[&small, &slow]);
        visitor.until_verified(1);
        for (dark, width) in [(false, 360), (true, 360), (false, 1440), (true, 1440)] {
            visitor.ask(&json!({"do": "theme", "dark": dark, "width": width, "height": 800}));
            for tab in ["#tab-files", "#tab-send"] {
                visitor.click(tab);
                assert_eq!(visitor.ask(&json!({"do": "axe"})), json!([]), "{locale}, dark: {dark}, {tab}");
                let wide = visitor.run("document.documentElement.scrollWidth - innerWidth").as_i64().unwrap();
                assert!(wide <= 0, "{locale}: {wide} px wider than {width}");
            }
        }
        visitor.run("document.querySelectorAll('#all-cancel')[0].click()");
        visitor.assert_clean();
    }
}
