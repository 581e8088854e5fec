//! info.ini, the operators' view: right, readable at every instant, mended by itself, and never what anything depends
//! on.

use bigup_tests::daemon::Daemon;
use bigup_tests::data::bytes;
use bigup_tests::process::{eventually, signal_program, within};
use nix::sys::signal::Signal;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Sections and their keys.
type Sections = BTreeMap<String, BTreeMap<String, String>>;

/// Reads info.ini strictly: a torn one does not pass.
///
/// # Panics
/// A line is none that bigup writes, or a section or key is there twice.
fn parse(text: &str) -> Sections {
    let mut sections = Sections::new();
    let mut title = String::new();
    assert!(text.is_empty() || text.ends_with('\n'), "torn: {text:?}");
    for line in text.lines().filter(|line| !line.is_empty()) {
        if let Some(inner) = line.strip_prefix('[') {
            title = inner.strip_suffix(']').unwrap_or_else(|| panic!("torn: {text:?}")).to_owned();
            assert!(sections.insert(title.clone(), BTreeMap::new()).is_none(), "{title} is there twice");
            continue;
        }
        let (key, value) = line.split_once(" = ").unwrap_or_else(|| panic!("torn: {text:?}"));
        let old = sections.entry(title.clone()).or_default().insert(key.to_owned(), value.to_owned());
        assert!(old.is_none(), "{key} is there twice");
    }
    sections
}

fn number(sections: &Sections, title: &str, key: &str) -> u64 {
    let value = sections.get(title).and_then(|keys| keys.get(key));
    value.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("[{title}] {key} is {value:?}"))
}

/// Begins an upload of `num` slices of `size` bytes.
fn begin(daemon: &Daemon, name: &str, num: usize, size: usize) {
    let query = format!("file_name={name}&slice_num={num}&slice_size={size}&file_size={}", num * size);
    daemon.server().get(&query).expect(200);
}

/// Sends slices of `content`.
fn send(daemon: &Daemon, name: &str, content: &[u8], size: usize, ids: impl IntoIterator<Item = usize>) {
    let server = daemon.server();
    for id in ids {
        let part = &content[id * size..content.len().min((id + 1) * size)];
        server.post(&format!("file_name={name}&slice_id={id}&slice_size={}", part.len()), part).expect(200);
    }
}

/// Whether info.ini says these of an upload.
fn says(daemon: &Daemon, name: &str, expected: &[(&str, Option<&str>)]) -> bool {
    expected.iter().all(|(key, value)| daemon.info(name, key).as_deref() == *value)
}

fn eventually_finished(daemon: &Daemon, name: &str, content: &[u8]) {
    eventually("the file is finished", || std::fs::read(daemon.finished(name)).is_ok_and(|found| found == content));
}

/// Several times what mending takes, for slow machines.
const A_FEW_SECONDS: Duration = Duration::from_secs(10);

#[test]
fn a_section_tells_an_upload_and_goes_with_it() {
    let daemon = Daemon::start();
    let content = bytes(1, 25);
    begin(&daemon, "seed", 2, 10);
    daemon.server().get("file_name=abc.txt&slice_num=3&slice_size=10&file_size=25").expect(200);
    within(A_FEW_SECONDS, "both are told", || parse(&daemon.info_ini()).keys().eq(["abc.txt", "seed"]));
    let sections = parse(&daemon.info_ini());
    let keys = &sections["abc.txt"];
    for (key, value) in [
        ("merge_slice_process_exist", "0"),
        ("curr_merge_slice_id", "0"),
        ("slice_num", "3"),
        ("slice_size", "10"),
        ("file_size", "25"),
    ] {
        assert_eq!(keys[key], value, "{keys:?}");
    }
    // Like 2026-01-02T03:04:05Z.
    assert!(keys["begun"].len() == 20 && keys["begun"].ends_with('Z'), "{keys:?}");
    assert!(!keys.contains_key("merger_pid") && !keys.contains_key("last_error"), "{keys:?}");
    send(&daemon, "abc.txt", &content, 10, [2, 0, 1]);
    eventually_finished(&daemon, "abc.txt", &content);
    eventually("the section is gone", || !daemon.info_ini().contains("[abc.txt]"));
    assert_eq!(parse(&daemon.info_ini()).keys().collect::<Vec<_>>(), ["seed"]);
}

#[test]
fn sizes_that_no_client_told_are_absent() {
    let daemon = Daemon::start();
    daemon.server().get("file_name=abc.txt&slice_num=3").expect(200);
    within(A_FEW_SECONDS, "it is told", || daemon.info_ini().contains("[abc.txt]"));
    let keys = &parse(&daemon.info_ini())["abc.txt"];
    assert_eq!(keys["slice_num"], "3");
    assert!(!keys.contains_key("slice_size") && !keys.contains_key("file_size"), "{keys:?}");
    send(&daemon, "abc.txt", &[7; 25], 10, [0]);
    eventually("the slice size is learned", || says(&daemon, "abc.txt", &[("slice_size", Some("10"))]));
    assert_eq!(daemon.info("abc.txt", "file_size"), None);
}

/// Reads info.ini in a loop until `stop`; every read must be whole, know `known`, and not tell more than is merged.
fn watch(daemon: &Daemon, known: &str, size: u64, stop: &AtomicBool) -> u64 {
    let path = daemon.data().join("info.ini");
    let mut reads = 0;
    while !stop.load(Ordering::Relaxed) {
        let text = std::fs::read_to_string(&path).expect("it is always there");
        let sections = parse(&text);
        assert_eq!(number(&sections, known, "curr_merge_slice_id"), 1, "{text}");
        for (title, keys) in &sections {
            assert!(["0", "1"].contains(&&keys["merge_slice_process_exist"][..]), "{text}");
            assert_eq!(keys["merge_slice_process_exist"] == "1", keys.contains_key("merger_pid"), "{text}");
            let told = number(&sections, title, "curr_merge_slice_id");
            // Looked at later, and it only grows, until it is finished and moved away.
            if let Ok(merged) = std::fs::metadata(daemon.data().join("tmp").join(title).join("merged")) {
                assert!(told * size <= merged.len(), "{title}: {told} is told, merged has {} bytes", merged.len());
            } else {
                let is_finished = daemon.finished(title).exists();
                assert!(told == 0 || is_finished || reads_as_finished(daemon, title), "{title}: {told} of nothing");
            }
        }
        reads += 1;
    }
    reads
}

/// The merged file was gone: it stands among the finished files an instant later.
fn reads_as_finished(daemon: &Daemon, name: &str) -> bool {
    eventually("it is finished", || daemon.finished(name).exists());
    true
}

#[test]
fn it_is_whole_and_never_tells_too_much_while_eight_uploads_run() {
    const SIZE: usize = 20_000;
    const NUM: usize = 60;
    let daemon = Daemon::with(&["--merger-idle", "300ms"]);
    begin(&daemon, "known", 2, SIZE);
    send(&daemon, "known", &[1; 2 * SIZE], SIZE, [0]);
    eventually("the known one rests", || {
        says(&daemon, "known", &[("curr_merge_slice_id", Some("1")), ("merge_slice_process_exist", Some("0"))])
    });
    let stop = AtomicBool::new(false);
    let names: Vec<String> = (0..8).map(|i| format!("f{i}")).collect();
    let reads = std::thread::scope(|scope| {
        let watching = scope.spawn(|| watch(&daemon, "known", SIZE as u64, &stop));
        let sending: Vec<_> = (names.iter().enumerate())
            .map(|(i, name)| {
                let daemon = &daemon;
                scope.spawn(move || {
                    let content = bytes(i as u64, NUM * SIZE);
                    for half in [0..NUM / 2, NUM / 2..NUM] {
                        begin(daemon, name, NUM, SIZE);
                        send(daemon, name, &content, SIZE, half);
                    }
                    eventually_finished(daemon, name, &content);
                })
            })
            .collect();
        let sent: Vec<_> = sending.into_iter().map(|thread| thread.join()).collect();
        stop.store(true, Ordering::Relaxed);
        assert!(sent.iter().all(Result::is_ok), "all were sent");
        watching.join().expect("the watcher found all well")
    });
    assert!(reads > 100, "{reads}");
    eventually("only the known one is left", || parse(&daemon.info_ini()).keys().eq(["known"]));
}

#[test]
fn the_frontier_follows_within_about_a_second() {
    let daemon = Daemon::start();
    let content = bytes(2, 1000);
    begin(&daemon, "f", 10, 100);
    // Slice 8 waits; what is before it comes piece by piece.
    send(&daemon, "f", &content, 100, [8]);
    for (ids, frontier) in [(0..4, "4"), (4..5, "5"), (5..7, "7"), (7..8, "9")] {
        send(&daemon, "f", &content, 100, ids);
        within(Duration::from_secs(3), frontier, || says(&daemon, "f", &[("curr_merge_slice_id", Some(frontier))]));
    }
    send(&daemon, "f", &content, 100, [9]);
    eventually_finished(&daemon, "f", &content);
}

#[test]
fn it_tells_whether_a_merger_is_at_work() {
    let daemon = Daemon::with(&["--merger-idle", "300ms"]);
    let content = bytes(3, 400);
    begin(&daemon, "f", 4, 100);
    for id in 0..3 {
        send(&daemon, "f", &content, 100, [id]);
        eventually("a merger is told", || says(&daemon, "f", &[("merge_slice_process_exist", Some("1"))]));
        eventually("it left", || says(&daemon, "f", &[("merge_slice_process_exist", Some("0")), ("merger_pid", None)]));
        assert_eq!(daemon.info("f", "curr_merge_slice_id"), Some((id + 1).to_string()));
    }
    send(&daemon, "f", &content, 100, [3]);
    eventually_finished(&daemon, "f", &content);
    daemon.eventually_clean();
}

/// The merger that info.ini names, once it does.
fn eventual_merger(daemon: &Daemon, name: &str) -> u32 {
    let mut pid = None;
    eventually("a merger is named", || {
        pid = daemon.info(name, "merger_pid").and_then(|pid| pid.parse().ok()).filter(|pid| *pid != 0);
        pid.is_some()
    });
    pid.expect("it was waited for")
}

#[test]
fn a_killed_merger_is_noticed_by_itself() {
    let daemon = Daemon::with(&["--merger-idle", "60s"]);
    let content = bytes(4, 400);
    begin(&daemon, "f", 4, 100);
    send(&daemon, "f", &content, 100, [0, 1]);
    let pid = eventual_merger(&daemon, "f");
    eventually("two are merged", || says(&daemon, "f", &[("curr_merge_slice_id", Some("2"))]));
    assert!(signal_program(pid, "bigup-merger", Signal::SIGKILL));
    within(A_FEW_SECONDS, "the section is right again", || {
        says(&daemon, "f", &[("merge_slice_process_exist", Some("0")), ("merger_pid", None)])
    });
    assert_eq!(daemon.info("f", "curr_merge_slice_id").as_deref(), Some("2"));
    send(&daemon, "f", &content, 100, [2]);
    assert_ne!(eventual_merger(&daemon, "f"), pid);
    send(&daemon, "f", &content, 100, [3]);
    eventually_finished(&daemon, "f", &content);
    daemon.eventually_clean();
}

#[test]
fn a_merger_and_daemon_killed_together_are_noticed_after_the_start() {
    let mut daemon = Daemon::with(&["--merger-idle", "60s"]);
    let content = bytes(5, 400);
    begin(&daemon, "f", 4, 100);
    begin(&daemon, "g", 4, 100);
    send(&daemon, "f", &content, 100, [0, 2]);
    let pid = eventual_merger(&daemon, "f");
    daemon.kill_9();
    assert!(signal_program(pid, "bigup-merger", Signal::SIGKILL));
    eventually("the merger is gone", || !Path::new(&format!("/proc/{pid}/fd/0")).exists());
    std::fs::remove_file(daemon.data().join("info.ini")).unwrap();
    daemon.run();
    within(A_FEW_SECONDS, "both sections are there", || {
        parse(&daemon.info_ini()).keys().eq(["f", "g"]) && daemon.info("f", "merger_pid") != Some(pid.to_string())
    });
    send(&daemon, "f", &content, 100, [1, 3]);
    eventually_finished(&daemon, "f", &content);
}

/// Spoils info.ini by `spoil` while two uploads run, one of them without a merger, and waits until it is right again.
fn is_rebuilt_after(spoil: impl Fn(&Path), kept: Option<&[u8]>) {
    let daemon = Daemon::with(&["--merger-idle", "300ms"]);
    let (one, two) = (bytes(6, 400), bytes(7, 1000));
    begin(&daemon, "one", 4, 100);
    begin(&daemon, "two", 10, 100);
    send(&daemon, "one", &one, 100, [0, 1]);
    let right = || {
        says(
            &daemon,
            "one",
            &[
                ("merge_slice_process_exist", Some("0")),
                ("curr_merge_slice_id", Some("2")),
                ("slice_num", Some("4")),
                ("slice_size", Some("100")),
                ("file_size", Some("400")),
                ("merger_pid", None),
            ],
        ) && says(
            &daemon,
            "two",
            &[
                ("merge_slice_process_exist", Some("0")),
                ("curr_merge_slice_id", Some("0")),
                ("slice_num", Some("10")),
                ("file_size", Some("1000")),
            ],
        )
    };
    eventually("the mergers rest", right);
    spoil(&daemon.data().join("info.ini"));
    within(A_FEW_SECONDS, "info.ini is right again", right);
    parse(&daemon.info_ini());
    let broken = std::fs::read(daemon.data().join("info.ini.broken")).ok();
    assert_eq!(broken.as_deref(), kept, "the broken one is kept where it could not be read");

    // In the midst of merging, too.
    send(&daemon, "two", &two, 100, 0..5);
    spoil(&daemon.data().join("info.ini"));
    send(&daemon, "two", &two, 100, 5..10);
    send(&daemon, "one", &one, 100, 2..4);
    eventually_finished(&daemon, "one", &one);
    eventually_finished(&daemon, "two", &two);
    daemon.eventually_clean();
}

#[test]
fn binary_garbage_is_kept_aside_and_info_ini_rebuilt() {
    is_rebuilt_after(|path| std::fs::write(path, b"\xff\xfe[\0\0\x80").unwrap(), Some(b"\xff\xfe[\0\0\x80"));
}

#[test]
fn zeros_are_kept_aside_and_info_ini_rebuilt() {
    is_rebuilt_after(|path| std::fs::write(path, [0; 300]).unwrap(), Some(&[0; 300]));
}

#[test]
fn a_title_without_end_is_kept_aside_and_info_ini_rebuilt() {
    is_rebuilt_after(|path| std::fs::write(path, "[one\n").unwrap(), Some(b"[one\n"));
}

#[test]
fn an_emptied_info_ini_is_rebuilt() {
    is_rebuilt_after(|path| std::fs::write(path, "").unwrap(), None);
}

#[test]
fn a_deleted_info_ini_is_rebuilt() {
    is_rebuilt_after(|path| drop(std::fs::remove_file(path)), None);
}

#[test]
fn an_info_ini_cut_within_a_section_is_rebuilt() {
    is_rebuilt_after(
        |path| {
            let text = std::fs::read_to_string(path).unwrap();
            let key = "merge_slice_process_exist = 0\n";
            std::fs::write(path, &text[..text.find(key).map_or(0, |at| at + key.len())]).unwrap();
        },
        None,
    );
}

#[test]
fn a_frontier_written_too_high_by_hand_becomes_right() {
    is_rebuilt_after(
        |path| {
            let text = std::fs::read_to_string(path).unwrap();
            std::fs::write(path, text.replace("curr_merge_slice_id = 2", "curr_merge_slice_id = 4")).unwrap();
        },
        None,
    );
}

#[test]
fn what_operators_add_survives() {
    let daemon = Daemon::with(&["--merger-idle", "300ms"]);
    let content = bytes(8, 400);
    begin(&daemon, "f", 4, 100);
    send(&daemon, "f", &content, 100, [0]);
    eventually("the merger rests", || {
        says(&daemon, "f", &[("curr_merge_slice_id", Some("1")), ("merge_slice_process_exist", Some("0"))])
    });
    let text = daemon.info_ini().replace("[f]\n", "[f]\nowner = ada 100% ; \\x\n") + "\n[notes]\ntodo = call bob\n";
    std::fs::write(daemon.data().join("info.ini"), text).unwrap();
    let added = || {
        says(&daemon, "f", &[("owner", Some("ada 100% ; \\x"))])
            && says(&daemon, "notes", &[("todo", Some("call bob"))])
    };
    send(&daemon, "f", &content, 100, [1]);
    eventually("it goes on", || says(&daemon, "f", &[("curr_merge_slice_id", Some("2"))]));
    assert!(added(), "{}", daemon.info_ini());
    begin(&daemon, "f", 4, 100);
    begin(&daemon, "g", 4, 100);
    assert!(added(), "{}", daemon.info_ini());
    send(&daemon, "f", &content, 100, [2, 3]);
    eventually_finished(&daemon, "f", &content);
    eventually("the section goes with the upload", || parse(&daemon.info_ini()).keys().eq(["g", "notes"]));
    assert_eq!(daemon.info("notes", "todo").as_deref(), Some("call bob"));
}

#[test]
fn two_daemons_on_one_data_folder_take_slices_of_one_upload() {
    const NUM: usize = 100;
    const SIZE: usize = 10_000;
    let one = Daemon::with(&["--merger-idle", "300ms"]);
    let two = one.another();
    let content = bytes(9, NUM * SIZE);
    begin(&one, "f", NUM, SIZE);
    std::thread::scope(|scope| {
        for (daemon, rest) in [(&one, 0), (&two, 1)] {
            let content = &content;
            scope.spawn(move || {
                begin(daemon, "f", NUM, SIZE);
                send(daemon, "f", content, SIZE, (0..NUM).filter(|id| id % 2 == rest));
            });
        }
    });
    for daemon in [&one, &two] {
        let query = format!("file_name=f&slice_num={NUM}&slice_size={SIZE}&wait=50");
        let answer = daemon.server().get(&query).expect(200);
        assert_eq!(answer.body["is_uploaded"], 1, "{answer:?}");
    }
    assert!(std::fs::read(one.finished("f")).unwrap() == content);
    one.eventually_clean();
}

#[test]
fn one_of_two_daemons_may_die_within_an_upload() {
    let mut one = Daemon::with(&["--merger-idle", "60s"]);
    let two = one.another();
    let content = bytes(10, 1000);
    begin(&one, "f", 10, 100);
    send(&one, "f", &content, 100, [0, 1, 5]);
    send(&two, "f", &content, 100, [2, 7]);
    let pid = eventual_merger(&one, "f");
    one.kill_9();
    assert!(signal_program(pid, "bigup-merger", Signal::SIGKILL));
    within(A_FEW_SECONDS, "the other one notices", || daemon_noticed(&two, pid));
    send(&two, "f", &content, 100, [3, 4, 6, 8, 9]);
    eventually_finished(&two, "f", &content);
    two.eventually_clean();
}

fn daemon_noticed(daemon: &Daemon, dead: u32) -> bool {
    daemon.info("f", "merger_pid") != Some(dead.to_string())
}
