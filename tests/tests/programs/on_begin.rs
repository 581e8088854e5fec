//! `on_begin`: an upload begins only if a program or a server lets it in; what it says reaches the client, and when it
//! cannot say anything the client comes back.

use bigup_tests::daemon::{Daemon, list};
use bigup_tests::hooks::{WebHook, lines, script};
use bigup_tests::http::raw;
use bigup_tests::process::eventually;
use bigup_tests::tus::Tus;
use bigup_tests::{data, docs, programs};
use serde_json::json;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

/// A daemon with `text` as the script of `on_begin`, and the folder where that leaves its traces.
fn asking(text: &str, settings: &[&str]) -> (Daemon, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().canonicalize().unwrap();
    let hook = script(&place, "hook", text);
    (Daemon::in_folder(folder, &[&["--on-begin", hook.as_str()], settings].concat()), place)
}

fn push(daemon: &Daemon, name: &str, len: u64) -> Command {
    let file = data::file(&daemon.scratch(), name, 1, len);
    let mut command = programs::cli();
    command.args(["push", "--quiet", "--url", daemon.url(), "--slice-size", "8K", "--name", name]).arg(file);
    command.stdin(Stdio::null());
    command
}

#[test]
fn what_is_refused_leaves_nothing_and_the_client_reads_why() {
    let text = "printf '%s|' \"$@\" \"$BIGUP_EVENT\" \"$BIGUP_FILE_NAME\" \"$BIGUP_FILE_SIZE\" \"$BIGUP_TOKEN_NAME\" \"$BIGUP_REPLACE\" \\
        \"$BIGUP_PEER\" >> DIR/asked; echo >> DIR/asked; case $1 in bad*) printf 'not \\033 here,\\nplease\\n'; exit 1;; esac";
    let (daemon, place) = asking(text, &[]);
    // Of one request, and of several slices.
    for (name, len) in [("bad small", 100), ("bad large", 100_000)] {
        let output = push(&daemon, name, len).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1));
        assert!(said.contains("not \\u{1b} here, please"), "{said}");
        assert!(!daemon.finished(name).exists());
    }
    assert_eq!((daemon.spools(), daemon.info_ini()), (vec![], String::new()));
    let refused = daemon.server().get("file_name=bad&slice_num=3").expect(403);
    assert_eq!((&refused.body["error"], refused.message()), (&json!("forbidden"), "not \\u{1b} here, please"));
    daemon.server().get("file_name=bad&slice_num=3&peek=1").expect(404);

    assert!(push(&daemon, "good", 100_000).status().unwrap().success());
    assert!(push(&daemon, "good", 100_000).status().unwrap().success(), "a finished file is no new upload");
    daemon.server().get("file_name=good2&slice_num=0&replace=1").expect(200);
    let asked = lines(&place.join("asked"));
    let expected = [
        "bad small|100||begin|bad small|100||0|127.0.0.1|",
        "bad large|100000||begin|bad large|100000||0|127.0.0.1|",
        "bad|||begin|bad|||0|127.0.0.1|",
        "good|100000||begin|good|100000||0|127.0.0.1|",
        "good2|0||begin|good2|0||1|127.0.0.1|",
    ];
    assert_eq!(asked, expected);
}

/// Of a file that is joined from parts the hook is asked by its name, and not of the parts.
#[test]
fn parts_are_asked_about_as_the_file_that_they_become() {
    let text = "echo \"$BIGUP_FILE_NAME $BIGUP_FILE_SIZE\" >> DIR/asked; case $1 in bad*) echo no; exit 1;; esac";
    let (daemon, place) = asking(text, &[]);
    let tus = Tus::new(daemon.url());
    let parts = [tus.create_partial(5), tus.create_partial(3)];
    tus.patch(&parts[0], 0, b"12345").expect(204);
    tus.patch(&parts[1], 0, b"678").expect(204);
    tus.join("bad", &parts).expect(403);
    assert_eq!((tus.offset(&parts[0]), tus.offset(&parts[1])), (5, 3));
    tus.join("good", &parts).expect(201);
    assert_eq!(fs::read(daemon.finished("good")).unwrap(), b"12345678");
    assert_eq!(lines(&place.join("asked")), ["bad 8", "good 8"]);
}

/// The example of docs/hooks.md.
#[test]
fn names_and_sizes_can_be_refused() {
    let (daemon, _) = asking(&docs::block("docs/hooks.md", "tests/tests/programs/on_begin.rs: refuse"), &[]);
    let begin = |name: &str, size: u64| {
        daemon.server().get(&format!("file_name={name}&slice_size=1073741824&file_size={size}&peek=0"))
    };
    assert_eq!(begin("x.iso", 1).expect(403).message(), "only alice may push ISO images");
    let refused = begin("x.img", (10 << 30) + 1).expect(403);
    assert_eq!(refused.message(), "10737418241 bytes are too many: at most 10 GiB");
    begin("x.img", 1 << 20).expect(200);
}

/// Whoever goes on with an upload is not asked about; another source that takes it over is.
#[test]
fn only_what_begins_is_asked_about() {
    let (daemon, place) = asking("echo $1 >> DIR/asked; [ ! -e DIR/no ]", &["--takeover-after", "300ms"]);
    let server = daemon.server();
    let begin = |source: &str| server.get(&format!("file_name=f&slice_size=8192&file_size=20000&source={source}"));
    begin("one").expect(200);
    begin("one").expect(200);
    server.post("file_name=f&slice_id=0&slice_size=8192&source=one", &[0; 8192]).expect(200);
    begin("two").expect(409);
    assert_eq!(lines(&place.join("asked")), ["f"]);
    fs::write(place.join("no"), "").unwrap();
    let mut answer = begin("two");
    eventually("it has been silent long enough", || {
        answer = begin("two");
        answer.status != 409
    });
    assert_eq!((answer.status, answer.message()), (403, "this server does not take it"));
    begin("one").expect(200);
    fs::remove_file(place.join("no")).unwrap();
    eventually("it is taken over", || begin("two").status == 200);
    begin("one").expect(409);
}

/// Nor is about what does not fit anyway.
#[test]
fn what_is_over_a_limit_is_not_asked_about() {
    let (daemon, place) = asking("echo $1 >> DIR/asked", &["--max-uploads", "1"]);
    let begin = |name: &str| daemon.server().get(&format!("file_name={name}&slice_size=8192&file_size=20000"));
    begin("one").expect(200);
    begin("two").expect(503);
    assert_eq!(lines(&place.join("asked")), ["one"]);
}

/// 75, a signal, no program at all: none of them is a no.
#[test]
fn without_an_answer_the_client_is_told_to_come_back() {
    let text = "case $1 in later) exit 75;; killed) kill -9 $$;; shell) exit 127;; esac";
    let (daemon, place) = asking(text, &[]);
    let ask = |name: &str| {
        let head = format!(
            "GET /big_file_upload?file_name={name}&slice_num=3 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        );
        raw(daemon.url(), head.as_bytes())
    };
    for name in ["later", "killed", "shell"] {
        let answer = ask(name);
        assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("retry-after: 5"), "{answer}");
        assert!(!answer.contains("127") && !answer.contains("signal"), "details are for the log: {answer}");
    }
    fs::remove_file(place.join("hook")).unwrap();
    assert!(ask("gone").starts_with("HTTP/1.1 503"));
    for why in ["exit code 75", "killed by signal 9", "exit code 127", "cannot be run"] {
        assert!(daemon.log().contains(why), "{why}");
    }
    assert!(daemon.spools().is_empty());
}

#[test]
fn a_push_goes_on_once_a_hook_that_hung_behaves() {
    let text = "[ -e DIR/go ] || { echo $$ >> DIR/pids; exec sleep 1000; }";
    let (daemon, place) = asking(text, &["--on-begin-timeout", "300ms"]);
    let mut client = push(&daemon, "f", 100_000).spawn().unwrap();
    eventually("it hung", || daemon.log().contains("not done after 0.3 s"));
    fs::write(place.join("go"), "").unwrap();
    assert!(client.wait().unwrap().success());
    for pid in lines(&place.join("pids")) {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"));
        assert!(!stat.is_ok_and(|stat| stat.contains("(sleep) S")), "process {pid} lives on");
    }
    daemon.eventually_clean();
}

/// So many at once, so many more wait, and all others come back; who is not about to begin anything waits for nobody.
#[test]
fn hooks_that_take_long_keep_nobody_else() {
    let text = "echo >> DIR/begun; while [ ! -e DIR/go ]; do sleep 0.05; done";
    let (daemon, place) = asking(text, &["--on-begin-timeout", "60s"]);
    let (done, refused) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for i in 0..144 {
            let (server, done, refused) = (daemon.server(), &done, &refused);
            scope.spawn(move || {
                let status = server.get(&format!("file_name=f{i}&slice_num=3")).status;
                assert!(status == 200 || status == 503, "{status}");
                if status == 200 { done } else { refused }.fetch_add(1, Ordering::Relaxed);
            });
        }
        eventually("some are told to come back", || refused.load(Ordering::Relaxed) == 16);
        eventually("as many as may are asked about", || lines(&place.join("begun")).len() == 16);
        daemon.server().get("peek=1").expect(200);
        assert_eq!((lines(&place.join("begun")).len(), done.load(Ordering::Relaxed)), (16, 0));
        fs::write(place.join("go"), "").unwrap();
    });
    assert_eq!((done.into_inner(), refused.into_inner()), (128, 16));
    assert_eq!(list(&daemon.data().join("tmp")).len(), 128);
}

#[test]
fn a_server_lets_in_or_not() {
    let web = WebHook::start(|n| match n {
        0 => ("403 Forbidden", json!({"message": "not today"}).to_string()),
        1 => ("429 Too Many Requests", String::new()),
        2 => ("302 Found\r\nLocation: http://127.0.0.1:1/", String::new()),
        _ => ("200 OK", "x".repeat(1 << 20)),
    });
    let daemon = Daemon::with(&["--on-begin", &web.url]);
    let begin = || daemon.server().get("file_name=f&slice_num=3&replace=1");
    let refused = begin().expect(403);
    assert_eq!(refused.message(), "not today");
    begin().expect(503);
    begin().expect(503);
    begin().expect(200);
    begin().expect(200);
    let expected = json!({"event": "begin", "file_name": "f", "file_size": null, "token": null, "replace": true, "metadata": null,
        "peer": "127.0.0.1"});
    assert_eq!(web.asked(), vec![expected; 4]);
}

#[test]
fn a_server_that_says_nothing_is_given_up() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", silent.local_addr().unwrap());
    let daemon = Daemon::with(&["--on-begin", &url, "--on-begin-timeout", "300ms"]);
    daemon.server().get("file_name=f&slice_num=3").expect(503);
    drop(silent);
    daemon.server().get("file_name=f&slice_num=3").expect(503);
    assert!(daemon.spools().is_empty());
}

/// The secret is made as docs/hooks.md says; openssl checks what it signs.
#[test]
fn what_a_server_gets_is_signed() {
    let folder = tempfile::tempdir().unwrap();
    let make = docs::block("docs/hooks.md", "tests/tests/programs/on_begin.rs: secret");
    assert!(Command::new("sh").args(["-c", &make]).current_dir(&folder).status().unwrap().success());
    let file = folder.path().join("hook.secret");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let web = WebHook::start(|_| ("200 OK", String::new()));
    let hooks = ["--on-begin", &web.url, "--on-complete", &web.url, "--hook-secret-file", file.to_str().unwrap()];
    let daemon = Daemon::with(&hooks);
    daemon.server().post("file_name=f&slice_id=0&slice_num=1&slice_size=3", b"abc").expect(200);
    eventually("both are told", || web.requests().len() == 2);
    let shell = "key=$(sed s/whsec_// | base64 -d | od -An -v -tx1 | tr -d ' \\n'); \
        openssl dgst -sha256 -mac HMAC -macopt hexkey:$key -binary signed | base64";
    for request in web.requests() {
        let (id, time) = (request.header("webhook-id"), request.header("webhook-timestamp"));
        let signed = [format!("{id}.{time}.").as_bytes(), &request.body].concat();
        fs::write(folder.path().join("signed"), signed).unwrap();
        let mut openssl = Command::new("sh");
        openssl.args(["-c", shell]).current_dir(&folder).stdin(fs::File::open(&file).unwrap());
        let right = String::from_utf8(openssl.output().unwrap().stdout).unwrap();
        assert_eq!(request.header("webhook-signature"), format!("v1,{}", right.trim()));
        let age = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs().abs_diff(time.parse().unwrap());
        assert!(age < 600, "{time}");
    }
    let ids: Vec<String> = web.requests().iter().map(|request| request.header("webhook-id").to_owned()).collect();
    assert_ne!(ids[0], ids[1]);
    // Without its secret nothing is asked.
    fs::write(&file, "x").unwrap();
    daemon.server().get("file_name=g&slice_num=3").expect(503);
    assert!(daemon.log().contains("does not begin with whsec_"), "{}", daemon.log());
    assert_eq!(web.requests().len(), 2);
}

#[test]
fn a_secret_that_is_none_is_told_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let mut check = Command::new(programs::path("bigupd"));
    check.arg("--data-dir").arg(folder.path()).args(["--hook-secret-file", "/dev/null", "--check-config"]);
    let output = check.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("hook_secret_file: /dev/null: the secret does not begin with whsec_"), "{said}");
}
