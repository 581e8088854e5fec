//! File names: good ones are kept to the letter, bad ones are refused with a reason, and nothing that a name or a link
//! placed by somebody says leads out of the data folder.

use bigup_core::protocol::name::{FileName, printable};
use bigup_tests::daemon::{Daemon, list};
use bigup_tests::data::bytes;
use bigup_tests::http::{Answer, Server, encoded};
use bigup_tests::process::eventually;
use nix::sys::stat::Mode;
use std::collections::BTreeSet;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// Names that must be kept to the letter.
fn good_names() -> Vec<String> {
    let long = |component: &str, times: usize| component.repeat(times);
    let mut names: Vec<String> = [
        "plain.txt",
        "a/b/c/d.bin",
        "a/b/c2",
        "文件/übermäßig.tar",
        "e\u{301} is not é",
        "with several  spaces",
        " space in front and behind ",
        "100%",
        "%2e%2e%2f",
        "%2F%00",
        "[abc]",
        "]x[",
        "semi;colon",
        "#number",
        "key=value",
        "colon: here",
        "DEFAULT",
        "default",
        "quo\"te",
        "apo'strophe",
        "back\\slash\\n",
        "🦀/🚀🚀.zip",
        ".hidden",
        ".folder/.file",
        "...",
        "..leading",
        "trailing.",
        "--help",
        "-x",
        "~",
        "*?<>|&$()`!",
        "a+b",
        "upload.json",
        "merger.lock/merged",
        "hash",
        "0",
        "CON",
        "right\u{202e}left\u{200b}zero",
        "line\u{2028}separator",
    ]
    .map(str::to_owned)
    .to_vec();
    names.push(long("x", 255));
    names.push(format!("{}x", long("é", 127)));
    names.push(format!("{}/{}", long("a", 255), long("b", 255)));
    // 2048 bytes, the most that is possible.
    names.push(format!("{}/12345678", vec![long("w", 254); 8].join("/")));
    names
}

/// A whole file in one request.
fn post_whole(server: &Server, name: &str, content: &[u8]) -> Answer {
    server.post(&format!("file_name={}&slice_num=1&slice_id=0&slice_size={}", encoded(name), content.len()), content)
}

/// Begins an upload of two slices of 4 bytes.
fn begin(server: &Server, name: &str) -> Answer {
    server.get(&format!("file_name={}&slice_num=2&slice_size=4&file_size=8", encoded(name)))
}

fn post(server: &Server, name: &str, id: u64, content: &[u8]) -> Answer {
    server.post(&format!("file_name={}&slice_id={id}&slice_size={}", encoded(name), content.len()), content)
}

/// Makes sure that an answer refuses, and that its message can be shown anywhere.
fn assert_refused(case: &str, answer: &Answer, status: u16, error: &str) {
    assert_eq!((answer.status, answer.body["error"].as_str()), (status, Some(error)), "{case}: {answer:?}");
    assert_eq!(answer.message(), printable(answer.message()), "{case}");
    assert!(!answer.message().is_empty(), "{case}");
}

/// A folder outside the data folder, with one file in it.
fn outside(daemon: &Daemon) -> PathBuf {
    let outside = daemon.scratch().join("outside");
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("secret"), "do not touch").unwrap();
    outside
}

fn assert_untouched(outside: &Path) {
    assert_eq!(list(outside), ["secret"]);
    assert_eq!(std::fs::read(outside.join("secret")).unwrap(), b"do not touch");
}

fn files_below(folder: &Path) -> usize {
    let entries = std::fs::read_dir(folder).unwrap().flatten();
    entries.map(|entry| if entry.path().is_dir() { files_below(&entry.path()) } else { 1 }).sum()
}

#[test]
fn good_names_are_kept_to_the_letter() {
    let daemon = Daemon::start();
    let server = daemon.server();
    let names = good_names();
    for (seed, name) in (0..).zip(&names) {
        let content = bytes(seed, 100);
        let answer = post_whole(&server, name, &content).expect(200);
        assert_eq!((answer.body["file_name"].as_str(), &answer.body["is_uploaded"]), (Some(&name[..]), &1.into()));
        assert!(std::fs::read(daemon.finished(name)).unwrap() == content, "{name}");
    }
    assert_eq!(files_below(&daemon.data().join("files")), names.len());
    daemon.eventually_clean();
}

#[test]
fn section_titles_lead_back_to_the_names() {
    let daemon = Daemon::with(&["--merger-idle", "300ms"]);
    let server = daemon.server();
    let names: BTreeSet<String> = good_names().into_iter().collect();
    for name in &names {
        assert_eq!(begin(&server, name).expect(200).body["file_name"], name[..]);
    }
    let sections = || daemon.info_ini().lines().filter(|line| line.starts_with('[')).count();
    eventually("all have a section", || sections() == names.len());
    let ini = daemon.info_ini();
    let titles = ini.lines().filter_map(|line| line.strip_prefix('[')?.strip_suffix(']'));
    let found: Vec<String> = titles
        .map(|title| FileName::from_section_title(title).unwrap_or_else(|| panic!("{title}")).as_str().to_owned())
        .collect();
    assert_eq!(found.len(), names.len(), "one section each");
    assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), names);
    for name in &names {
        let section = FileName::new(name).unwrap().section_title();
        assert_eq!(daemon.info(&section, "slice_num").as_deref(), Some("2"), "{name}");
        for c in ['[', ']', ';', '#', '=', '"', '\\', ':'] {
            assert!(!section.contains(c), "{c} in {section}");
        }
    }
    for (i, name) in names.iter().enumerate().filter(|(i, _)| i % 3 == 0) {
        let content = bytes(i as u64, 8);
        post(&server, name, 0, &content[..4]).expect(200);
        post(&server, name, 1, &content[4..]).expect(200);
        eventually("it is merged", || std::fs::read(daemon.finished(name)).is_ok_and(|found| found == content));
        let section = FileName::new(name).unwrap().section_title();
        eventually("its section is gone", || daemon.info(&section, "slice_num").is_none());
    }
}

#[test]
fn bad_names_are_refused_and_nothing_is_touched() {
    let daemon = Daemon::start();
    let server = daemon.server();
    let folder = daemon.data().parent().unwrap().to_owned();
    let (long, deep) = ("x".repeat(256), "x/".repeat(1024) + "x");
    let before = list(&folder);
    for (name, says) in [
        ("", "empty"),
        ("/", "absolute"),
        ("/etc/passwd", "absolute"),
        ("//x", "absolute"),
        (".", "elsewhere"),
        ("..", "elsewhere"),
        ("./x", "elsewhere"),
        ("../x", "elsewhere"),
        ("a/.", "elsewhere"),
        ("a/..", "elsewhere"),
        ("a/../b", "elsewhere"),
        ("a/./b", "elsewhere"),
        ("../../../../../../tmp/x", "elsewhere"),
        ("a//b", "empty component"),
        ("a/", "empty component"),
        ("\0", "U+0000"),
        ("a\0b", "U+0000"),
        ("a\nb", "U+000A"),
        ("a\rb", "U+000D"),
        ("a\tb", "U+0009"),
        ("\u{1b}[2J", "U+001B"),
        ("a\u{7f}", "U+007F"),
        ("a\u{9b}b", "U+009B"),
        ("a\u{85}", "U+0085"),
        (&long, "256"),
        (&deep, "2049"),
        ("\u{202e}/../x", "elsewhere"),
    ] {
        for answer in [begin(&server, name), post_whole(&server, name, b"abc"), post(&server, name, 0, b"abcd")] {
            assert_refused(name, &answer, 400, "bad_name");
            assert!(answer.message().contains(says), "{name:?}: {}", answer.message());
        }
    }
    // The same in other spellings of the query.
    for name in ["..%2fx", "%2e%2e%2fx", "%2E%2E/x", "a%2f..%2fb", "../x", "%2fetc%2fpasswd"] {
        let answer = server.get(&format!("file_name={name}&slice_num=2"));
        assert_refused(name, &answer, 400, "bad_name");
        let answer = server.get(&format!("file_name={name}&peek=1"));
        assert_refused(name, &answer, 400, "bad_name");
    }
    // Slashes that UTF-8 does not know (over-long forms).
    for name in ["..%c0%afx", "%e0%80%afetc", "%ff"] {
        assert_refused(name, &server.get(&format!("file_name={name}&slice_num=2")), 400, "bad_request");
    }
    assert_eq!(list(&folder), before);
    assert_eq!(daemon.spools(), [""; 0]);
    assert_eq!(files_below(&daemon.data().join("files")), 0);
    assert!(!daemon.info_ini().contains('['));
}

#[test]
fn long_names_that_begin_alike_do_not_meet() {
    let daemon = Daemon::start();
    let server = daemon.server();
    let names = ["a", "b", "c"].map(|end| "n".repeat(250) + end);
    let contents = [1, 2, 3].map(|seed| bytes(seed, 8));
    names.iter().for_each(|name| drop(begin(&server, name).expect(200)));
    assert_eq!(daemon.spools().len(), 3);
    for id in [1, 0] {
        for (name, content) in names.iter().zip(&contents) {
            post(&server, name, id, &content[id as usize * 4..][..4]).expect(200);
        }
    }
    for (name, content) in names.iter().zip(&contents) {
        eventually("it is finished", || std::fs::read(daemon.finished(name)).is_ok_and(|found| found == *content));
    }
    daemon.eventually_clean();
}

#[test]
fn names_that_another_name_would_be_encoded_as_do_not_meet() {
    let daemon = Daemon::start();
    let server = daemon.server();
    let names = ["a/b", "a%2Fb", "a%252Fb", "A/b"];
    for (seed, name) in (0..).zip(names) {
        begin(&server, name).expect(200);
        post(&server, name, 1, &bytes(seed, 4)).expect(200);
    }
    assert_eq!(daemon.spools().len(), names.len());
    for (seed, name) in (0..).zip(names) {
        post(&server, name, 0, b"head").expect(200);
        let content = [&b"head"[..], &bytes(seed, 4)].concat();
        eventually("it is finished", || std::fs::read(daemon.finished(name)).is_ok_and(|found| found == content));
    }
}

#[test]
fn a_file_is_no_folder_and_a_folder_no_file() {
    let daemon = Daemon::start();
    let server = daemon.server();
    post_whole(&server, "f", b"file").expect(200);
    post_whole(&server, "d/x", b"file").expect(200);
    for replace in ["", "&replace=1"] {
        for (name, says) in [("f/x", "f of f/x is a file"), ("f/x/y", "is a file"), ("d", "d is a folder")] {
            let query = format!("file_name={name}&slice_num=1{replace}");
            let answers = [server.get(&query), server.post(&format!("{query}&slice_id=0&slice_size=3"), b"abc")];
            for answer in answers {
                assert_refused(name, &answer, 409, "conflict");
                assert!(answer.message().contains(says), "{name}: {}", answer.message());
            }
        }
    }
    assert_eq!(daemon.spools(), [""; 0]);
    assert_eq!(std::fs::read(daemon.finished("f")).unwrap(), b"file");
    assert_eq!(std::fs::read(daemon.finished("d/x")).unwrap(), b"file");
}

#[test]
fn of_a_file_and_one_below_it_the_first_is_finished_and_the_other_says_why_not() {
    let daemon = Daemon::start();
    let server = daemon.server();
    begin(&server, "e").expect(200);
    begin(&server, "e/x").expect(200);
    for name in ["e/x", "e"] {
        post(&server, name, 0, b"0123").expect(200);
        post(&server, name, 1, b"4567").expect(200);
        let section = FileName::new(name).unwrap().section_title();
        eventually("it is finished or blocked", || {
            daemon.finished(name).is_file() || daemon.info(&section, "last_error").is_some()
        });
    }
    assert_eq!(std::fs::read(daemon.finished("e/x")).unwrap(), b"01234567");
    assert_refused("e", &begin(&server, "e"), 409, "conflict");
    assert!(daemon.info("e", "last_error").unwrap().contains("folder"));
}

#[test]
fn links_among_finished_files_lead_nowhere() {
    let daemon = Daemon::start();
    let server = daemon.server();
    let outside = outside(&daemon);
    symlink(&outside, daemon.finished("folder")).unwrap();
    symlink(outside.join("secret"), daemon.finished("file")).unwrap();
    symlink(outside.join("new"), daemon.finished("dangling")).unwrap();
    for name in ["folder", "folder/x", "folder/secret", "file", "dangling"] {
        for replace in ["", "&replace=1"] {
            let query = format!("file_name={}&slice_num=1{replace}", encoded(name));
            assert_refused(name, &server.get(&query), 409, "conflict");
            let answer = server.post(&format!("{query}&slice_id=0&slice_size=3"), b"abc");
            assert_refused(name, &answer, 409, "conflict");
        }
        let peeked = server.get(&format!("file_name={}&peek=1", encoded(name)));
        assert_refused(name, &peeked, 404, "no_upload");
    }
    assert_eq!(daemon.spools(), [""; 0]);
    assert_untouched(&outside);
}

#[test]
fn links_placed_while_an_upload_runs_lead_nowhere() {
    let daemon = Daemon::start();
    let server = daemon.server();
    let outside = outside(&daemon);
    for (name, link) in [("d/x", "d"), ("g", "g")] {
        begin(&server, name).expect(200);
        symlink(if name == "g" { outside.join("secret") } else { outside.clone() }, daemon.finished(link)).unwrap();
        post(&server, name, 0, b"0123").expect(200);
        post(&server, name, 1, b"4567").expect(200);
        let section = FileName::new(name).unwrap().section_title();
        eventually("the upload is blocked", || daemon.info(&section, "last_error").is_some());
        assert_refused(name, &begin(&server, name), 409, "conflict");
        assert_untouched(&outside);
    }
    std::fs::remove_file(daemon.finished("d")).unwrap();
    server.get("file_name=d%2Fx&slice_num=2&replace=1").expect(200);
    eventually("it is finished", || std::fs::read(daemon.finished("d/x")).is_ok_and(|found| found == b"01234567"));
}

#[test]
fn a_fifo_in_place_of_a_finished_file_hangs_nobody() {
    let daemon = Daemon::start();
    let server = daemon.server();
    nix::unistd::mkfifo(&daemon.finished("pipe"), Mode::S_IRWXU).unwrap();
    for replace in ["", "&replace=1"] {
        let query = format!("file_name=pipe&slice_num=1{replace}");
        assert_refused("GET", &server.get(&query), 409, "conflict");
        assert_refused("POST", &server.post(&format!("{query}&slice_id=0&slice_size=3"), b"abc"), 409, "conflict");
    }
    assert_refused("peek", &server.get("file_name=pipe&peek=1"), 404, "no_upload");
    begin(&server, "late").expect(200);
    nix::unistd::mkfifo(&daemon.finished("late"), Mode::S_IRWXU).unwrap();
    post(&server, "late", 0, b"0123").expect(200);
    post(&server, "late", 1, b"4567").expect(200);
    eventually("the upload is blocked", || daemon.info("late", "last_error").is_some());
}

#[test]
fn a_link_in_place_of_a_spool_leads_nowhere() {
    let daemon = Daemon::start();
    let server = daemon.server();
    let outside = outside(&daemon);
    symlink(&outside, daemon.data().join("tmp/a")).unwrap();
    // Whatever it answers.
    begin(&server, "a");
    post(&server, "a", 0, b"0123");
    post_whole(&server, "a", b"01234567");
    server.get("file_name=a&peek=1");
    server.get("file_name=a&peek=1&digests=0-1");
    server.get("peek=1").expect(200);
    assert_untouched(&outside);
}

#[test]
fn a_link_to_a_whole_spool_elsewhere_is_not_written_through() {
    let daemon = Daemon::start();
    let server = daemon.server();
    begin(&server, "a").expect(200);
    let elsewhere = daemon.scratch().join("elsewhere");
    std::fs::rename(daemon.data().join("tmp/a"), &elsewhere).unwrap();
    symlink(&elsewhere, daemon.data().join("tmp/a")).unwrap();
    let look = || list(&elsewhere).into_iter().map(|name| (std::fs::read(elsewhere.join(&name)).unwrap(), name));
    let before: Vec<_> = look().collect();
    begin(&server, "a");
    post(&server, "a", 0, b"0123");
    assert!(look().collect::<Vec<_>>() == before, "{:?}", list(&elsewhere));
}

#[test]
fn a_link_or_fifo_in_place_of_a_slice_is_not_held_and_leads_nowhere() {
    let daemon = Daemon::with(&["--merger-idle", "300ms"]);
    let server = daemon.server();
    let outside = outside(&daemon);
    for (name, is_link) in [("a", true), ("b", false)] {
        begin(&server, name).expect(200);
        let slice = daemon.data().join("tmp").join(name).join("1");
        if is_link {
            symlink(outside.join("secret"), &slice).unwrap();
        } else {
            nix::unistd::mkfifo(&slice, Mode::S_IRWXU).unwrap();
        }
        assert_eq!(begin(&server, name).expect(200).held(), [0; 0], "{name}: it is no slice");
        post(&server, name, 0, b"0123").expect(200);
        assert!(!begin(&server, name).expect(200).held().contains(&1), "{name}: it is no slice");
        post(&server, name, 1, b"4567").expect(200);
        eventually("it is finished", || std::fs::read(daemon.finished(name)).is_ok_and(|found| found == b"01234567"));
        assert_untouched(&outside);
    }
}

#[test]
fn a_link_or_fifo_in_place_of_a_slice_does_not_keep_an_upload_from_its_end() {
    let daemon = Daemon::with(&["--merger-idle", "300ms"]);
    let server = daemon.server();
    let outside = outside(&daemon);
    for (name, is_link) in [("a", true), ("b", false)] {
        begin(&server, name).expect(200);
        post(&server, name, 0, b"0123").expect(200);
        let slice = daemon.data().join("tmp").join(name).join("1");
        if is_link {
            symlink(outside.join("secret"), &slice).unwrap();
        } else {
            nix::unistd::mkfifo(&slice, Mode::S_IRWXU).unwrap();
        }
        post(&server, name, 1, b"4567").expect(200);
        eventually("it is finished", || std::fs::read(daemon.finished(name)).is_ok_and(|found| found == b"01234567"));
        assert_untouched(&outside);
    }
}

#[test]
fn messages_steer_no_terminal() {
    let daemon = Daemon::start();
    let server = daemon.server();
    let name = "right\u{202e}left\u{200b}zero\u{feff}";
    assert_refused("no upload", &post(&server, name, 0, b"0123"), 404, "no_upload");
    let unknown = format!("file_name={}&peek=1", encoded(name));
    assert_refused("peek", &server.get(&unknown), 404, "no_upload");
    post_whole(&server, name, b"old").expect(200);
    let other = format!("file_name={}&slice_num=2&file_size=8", encoded(name));
    assert_refused("exists", &server.get(&other), 409, "exists");
    assert_refused("finished", &post(&server, name, 0, b"0123"), 409, "exists");
    assert_refused("below a file", &begin(&server, &format!("{name}/x")), 409, "conflict");
    for (query, error) in [
        ("file_name=a&slice_num=%1B%5B2J", "bad_request"),
        ("file_name=a&slice_num=1&file_digest=%1B%5B2J", "bad_request"),
        ("file_name=a&%1B=1&%1B=2&slice_num=1", "bad_request"),
        ("file_name=a&slice_num=%E2%80%AE1", "bad_request"),
    ] {
        assert_refused(query, &server.get(query), 400, error);
    }
    let digest = "file_name=a&slice_id=0&slice_size=3&slice_num=1&slice_digest=%1B%5B2J";
    assert_refused("slice_digest", &server.post(digest, b"abc"), 400, "bad_request");
    assert!(!daemon.log().chars().any(|c| c.is_control() && c != '\n'), "{:?}", daemon.log());
}

#[test]
fn the_message_of_a_blocked_upload_steers_no_terminal() {
    let daemon = Daemon::start();
    let server = daemon.server();
    let name = "right\u{202e}left\u{200b}zero";
    begin(&server, name).expect(200);
    std::fs::write(daemon.finished(name), "by hand").unwrap();
    post(&server, name, 0, b"0123").expect(200);
    post(&server, name, 1, b"4567").expect(200);
    let section = FileName::new(name).unwrap().section_title();
    eventually("the upload is blocked", || daemon.info(&section, "last_error").is_some());
    assert_refused("blocked", &begin(&server, name), 409, "exists");
}
