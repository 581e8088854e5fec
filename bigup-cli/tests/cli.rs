//! The command line: usage, exit codes, what is printed where.

mod common;

use bigup_core::protocol::digest::of_bytes;
use common::{Mock, bytes, file};
use serde_json::json;

const K: usize = 1024;

#[test]
fn usage_errors_have_their_own_exit_code() {
    let mock = Mock::new();
    for args in [
        &["push"][..],
        &["push", "-"],
        &["push", "a", "b", "--name", "x"],
        &["push", "a", "--slice-size", "10"],
        &["push", "a", "--senders", "0"],
        &["push", "a", "--json", "--quiet"],
        &["push", "a", "--retry-for", "soon"],
        &["verify"],
        &["nothing"],
    ] {
        let run = mock.run(args);
        assert_eq!(run.code(), 2, "{args:?}: {}", run.err());
        assert_eq!((run.out().as_str(), mock.requests().len()), ("", 0));
    }
}

#[test]
fn help_tells_exit_codes_and_environment() {
    let mock = Mock::new();
    for args in [&["--help"][..], &["push", "--help"]] {
        let out = mock.run(args).ok().out();
        assert!(out.contains("Exit codes:") && out.contains("BIGUP_URL"), "{out}");
    }
}

#[test]
fn urls_that_cannot_be_used_are_told() {
    let mock = Mock::new();
    let (_dir, path) = file("a", b"a");
    mock.run(&["push", &path, "--url", "localhost:8888"]).failed("http://HOST:PORT");
    let with_path = format!("{}/big_file_upload/", mock.url);
    mock.run(&["push", &path, "--url", &with_path]).ok();
}

#[test]
fn a_server_that_is_not_there_is_told() {
    let mock = Mock::new();
    let (_dir, path) = file("a", b"a");
    // Port 1 is nobody's.
    let args = ["push", &path, "--url", "http://127.0.0.1:1", "--retries", "0"];
    mock.run(&args).failed("error: a: no answer from http://127.0.0.1:1");
    mock.run(&["status", "--url", "http://127.0.0.1:1"]).failed("no answer");
}

#[cfg(unix)]
#[test]
fn output_that_does_not_arrive_is_an_error() {
    let mock = Mock::new();
    let (_dir, path) = file("a", b"a");
    for (args, code) in [
        (&["push", &path][..], 1),
        (&["push", &path, "--json"], 1),
        (&["status", "--json"], 1),
        // Its 1 says that the files differ.
        (&["verify", &path], 2),
    ] {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let output = mock.command(args).stdout(full).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
        assert!(said.contains("cannot write to standard output: No space left"), "{args:?}: {said}");
    }
    assert_eq!(mock.finished("a"), Some(b"a".to_vec()));
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    assert_eq!(mock.command(&["--help"]).stdout(full).status().unwrap().code(), Some(1));
}

#[test]
fn a_server_in_place_of_a_file_is_told() {
    let mock = Mock::new();
    for args in [&["push", "a", "http://h:8888"][..], &["status", "http://h"], &["verify", "https://h"]] {
        let run = mock.run(args);
        assert_eq!(run.code(), 2, "{args:?}");
        assert!(run.err().contains("is a server: give it by --url"), "{args:?}: {}", run.err());
    }
}

#[test]
fn quiet_says_nothing_but_errors() {
    let mock = Mock::new();
    let (_dir, path) = file("a", b"a");
    let run = mock.run(&["push", &path, "--quiet"]).ok();
    assert_eq!((run.out(), run.err()), (String::new(), String::new()));
    mock.finish("a", b"b");
    mock.run(&["push", &path, "--quiet"]).failed("error: a: ");
}

#[test]
fn json_lines_tell_the_whole_story() {
    let (mock, data) = (Mock::new(), bytes(4 * K));
    let (_dir, path) = file("a", &data);
    let run = mock.run(&["push", &path, "/nonexistent/b", "--slice-size", "1K", "--json"]);
    assert_eq!((run.code(), run.err().as_str()), (1, ""));
    assert_eq!(
        run.events("start"),
        [json!({"event": "start", "file_name": "a", "file_size": 4096, "slice_size": 1024, "slice_num": 4,
            "slices_held": 0, "bytes_held": 0})]
    );
    let last = run.events("progress").pop().unwrap();
    assert_eq!((&last["bytes_stored"], &last["file_size"]), (&json!(4096), &json!(4096)));
    assert!(last["bytes_per_second"].is_u64(), "{last}");
    let done = &run.events("done")[0];
    assert_eq!(done["file_digest"], of_bytes(&data).to_string());
    assert_eq!((&done["bytes_sent"], &done["bytes_held"], &done["already"]), (&json!(4096), &json!(0), &json!(false)));
    let error = &run.events("error")[0];
    assert_eq!(error["file_name"], "/nonexistent/b");
}

#[test]
fn an_unknown_length_is_null_in_json() {
    let mock = Mock::new();
    let args = ["push", "-", "--name", "a", "--slice-size", "1K", "--json"];
    let run = mock.run_with_input(&args, &bytes(3 * K)).ok();
    let start = &run.events("start")[0];
    assert!(start["file_size"].is_null() && start["slice_num"].is_null(), "{start}");
    assert_eq!(run.events("done")[0]["file_size"], 3 * K);
}

#[test]
fn status_lists_unfinished_uploads() {
    let mock = Mock::new();
    assert_eq!(mock.run(&["status"]).ok().err(), "no unfinished uploads\n");
    mock.holding("x/a", "other", &bytes(8 * K), K as u64, &[0, 1, 2]);
    let out = mock.run(&["status"]).ok().out();
    assert!(out.lines().nth(1).unwrap().contains("3/8") && out.ends_with("  x/a\n"), "{out}");
    let list: serde_json::Value = serde_json::from_str(&mock.run(&["status", "--json"]).ok().out()).unwrap();
    assert_eq!(list["uploads"][0]["slices_held"], 3);
}

#[test]
fn status_of_a_name_tells_finished_unfinished_and_unknown_apart() {
    let mock = Mock::new();
    mock.holding("a", "other", &bytes(8 * K), K as u64, &[0, 1, 2]);
    mock.finish("b", b"b");
    assert!(mock.run(&["status", "a"]).ok().out().contains("a: not finished, 8.00 KiB, 3/8 slices held"));
    assert!(mock.run(&["status", "b"]).ok().out().contains(&format!("{}  b", of_bytes(b"b"))));
    mock.run(&["status", "c"]).failed("c: the server knows no such file");
    assert!(mock.requests().iter().all(|request| request.get("peek") == Some("1")));
}

#[test]
fn verify_compares_digests() {
    let mock = Mock::new();
    let (_dir, path) = file("a", b"content");
    mock.finish("a", b"content");
    mock.finish("other", b"other");
    mock.holding("begun", "other", &bytes(8 * K), K as u64, &[0]);
    let equal = mock.run(&["verify", &path]).ok().out();
    assert_eq!(equal.matches(&of_bytes(b"content").to_string()).count(), 2, "{equal}");
    for (name, says) in [("other", "DIFFERS"), ("begun", "not finished"), ("nothing", "not on the server")] {
        let run = mock.run(&["verify", &path, "--name", name]).failed("");
        assert!(run.out().contains(says), "{}", run.out());
    }
    let json: serde_json::Value = serde_json::from_str(&mock.run(&["verify", &path, "--json"]).ok().out()).unwrap();
    assert_eq!(json["equal"], true);
}

#[cfg(unix)]
#[test]
fn an_embedded_server_is_started_and_ends_with_the_push() {
    use std::os::unix::fs::PermissionsExt;
    let mock = Mock::new();
    let (dir, path) = file("a", b"content");
    let (program, daemon) = (dir.path().join("bigup-cli"), dir.path().join("bigupd"));
    std::fs::copy(env!("CARGO_BIN_EXE_bigup-cli"), &program).unwrap();
    let script = format!(
        "#!/bin/sh\necho bigupd listening on {}\necho \"$@ $BIGUP_LOG\" > \"$2/args\"\ncat > \"$2/closed\"\n",
        mock.url
    );
    std::fs::write(&daemon, script).unwrap();
    std::fs::set_permissions(&daemon, std::fs::Permissions::from_mode(0o755)).unwrap();
    let data = dir.path().join("data/sub");
    let data = data.to_str().unwrap();
    let mut command = std::process::Command::new(&program);
    command.args(["push", &path, "--embedded", data]).env("BIGUP_URL", "http://127.0.0.1:1").env_remove("BIGUP_LOG");
    let run = common::Run(command.output().unwrap()).ok();
    assert_eq!(mock.finished("a"), Some(b"content".to_vec()));
    assert!(run.out().ends_with(&format!("{data}/files/a\n")), "{}", run.out());
    let args = std::fs::read_to_string(format!("{data}/args")).unwrap();
    assert_eq!(
        args,
        format!("--data-dir {data} --listen 127.0.0.1:0 --until-stdin-closes --max-connections 1024 warn\n")
    );
    assert!(std::fs::exists(format!("{data}/closed")).unwrap());
}
