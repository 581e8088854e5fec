//! nginx and Caddy before a daemon, with the very configurations of docs/behind-a-proxy.md: pushes are exact, slices go on as
//! they come, refusals arrive as they are, and what is restarted is not noticed.

use bigup_tests::certificates::{Authority, Certificate};
use bigup_tests::daemon::{Daemon, list};
use bigup_tests::gateway::{Gateway, changed, documented};
use bigup_tests::http::{self, Server};
use bigup_tests::process::{eventually, kill_9};
use bigup_tests::{data, hooks, programs};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use serde_json::Value;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// What is pushed through a proxy.
const LEN: u64 = (200 << 20) + 1;

/// bigupd's limits, small enough to be met: a slice has up to 32 MiB, a file 1 GiB.
const LIMITS: [&str; 6] = ["--trusted-proxies", "127.0.0.1", "--max-slice-size", "32M", "--max-file-size", "1G"];

/// nginx before a daemon.
struct Setting {
    folder: tempfile::TempDir,
    authority: PathBuf,
    daemon: Daemon,
    nginx: Gateway,
}

fn nginx_as(configuration: &str) -> Setting {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "authority");
    let certificate: Certificate = authority.issue("server", &["127.0.0.1"]);
    let daemon = Daemon::with(&LIMITS);
    let nginx = Gateway::nginx(configuration, daemon.url(), &certificate);
    Setting { folder, authority: authority.file, daemon, nginx }
}

fn nginx() -> Setting {
    nginx_as(&documented("nginx"))
}

impl Setting {
    fn push(&self, file: &Path, arguments: &[&str]) -> Command {
        let mut push = push(&self.nginx.url, file, arguments);
        push.arg("--ca-cert").arg(&self.authority);
        push
    }
}

fn push(url: &str, file: &Path, arguments: &[&str]) -> Command {
    let mut push = programs::cli();
    push.args(["push", "--url", url]).arg(file).args(arguments).stdin(Stdio::null());
    push
}

/// Runs a push that must succeed, and of which nothing was tried twice.
fn succeed(mut push: Command, file: &Path) {
    let output = push.arg("--json").output().expect("the client can be started");
    assert!(output.status.success(), "{output:?}");
    assert_smooth(&output, file);
}

/// The push showed no error, and the digest of `file` at the end.
fn assert_smooth(output: &Output, file: &Path) {
    let shown = String::from_utf8_lossy(&output.stdout);
    let events: Vec<Value> = shown.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let bad = events.iter().find(|event| event["event"] == "retry" || event["event"] == "error");
    assert!(bad.is_none() && output.stderr.is_empty(), "{bad:?}\n{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(events.last().unwrap()["file_digest"], data::digest(file), "{shown}");
}

/// How many files are made in a folder while `work` runs.
fn files_made_in(folder: &Path, work: impl FnOnce()) -> usize {
    let watch = Inotify::init(InitFlags::IN_NONBLOCK).unwrap();
    watch.add_watch(folder, AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO).unwrap();
    work();
    // Nothing to read is an error.
    std::iter::from_fn(|| watch.read_events().ok()).flatten().count()
}

/// Half of a slice arrives at bigupd while the other half is not sent yet.
fn assert_slices_go_on_as_they_come(url: &str, daemon: &Daemon) {
    let slice = data::bytes(7, 2 << 20);
    let head = http::post_head(
        "file_name=half&slice_num=2&slice_id=0&slice_size=2097152",
        &["Content-Type: application/octet-stream", "Content-Length: 2097152"],
    );
    let mut stream = http::connect(url);
    stream.write_all(&head).unwrap();
    stream.write_all(&slice[..1 << 20]).unwrap();
    let arrived = || {
        let folder = std::fs::read_dir(daemon.data().join("tmp/half")).into_iter().flatten().flatten();
        let mut parts = folder.filter(|entry| entry.file_name().to_string_lossy().ends_with(".part"));
        parts.next().and_then(|part| part.metadata().ok()).map_or(0, |part| part.len())
    };
    // bigupd writes batches, the last of which waits for more.
    eventually("half of the slice is there", || arrived() >= 512 << 10);
    stream.write_all(&slice[1 << 20..]).unwrap();
    let answer = http::read_answer(&mut stream);
    assert_eq!(http::Answer::parse(&answer).status, 200, "{answer}");
    assert_eq!(daemon.server().get("file_name=half&slice_num=2").held(), [0]);
}

/// Refusals of bigupd come through as bigupd gives them, those before the body is read as those after it.
fn assert_refusals_arrive(url: &str, daemon: &Daemon) {
    let (through, direct) = (Server::new(url), daemon.server());
    let slice = data::bytes(8, 1 << 20);
    direct.post("file_name=there&slice_num=1&slice_id=0&slice_size=1048576", &slice).expect(200);
    eventually("it is finished", || daemon.finished("there").exists());
    let large = data::bytes(9, (32 << 20) + 1);
    for (status, query, body) in [
        (409, "file_name=there&slice_num=1&slice_id=0&slice_size=1048576", &large[..1 << 20]),
        (413, "file_name=large&slice_num=2&slice_id=0&slice_size=33554433", &large[..]),
        (413, "file_name=huge&slice_num=1908&slice_id=0&slice_size=1048576&file_size=2000000000", &slice[..]),
        (400, "file_name=damaged&slice_num=2&slice_id=0&slice_size=1048577", &slice[..]),
        (400, "file_name=../up&slice_num=1&slice_id=0&slice_size=1048576", &slice[..]),
    ] {
        let (answer, same) = (through.post(query, body).expect(status), direct.post(query, body));
        assert_eq!(answer.body, same.body, "{query}");
        assert!(!answer.message().is_empty(), "{answer:?}");
    }
    // bigupd goes on to serve the connections that these came over.
    through.get("peek=1").expect(200);
}

#[test]
fn nginx_passes_a_file_on_without_gathering_slices() {
    let setting = nginx();
    let file = data::file(setting.folder.path(), "big", 1, LEN);
    let made = files_made_in(&setting.nginx.temp(), || succeed(setting.push(&file, &[]), &file));
    assert_eq!(made, 0, "nginx put slices into files");
    assert!(data::same(&file, &setting.daemon.finished("big")));
    assert_slices_go_on_as_they_come(&setting.nginx.plain, &setting.daemon);
    // The watch would have seen them: nginx as it is by itself puts slices into files.
    let gathers = nginx_as(&changed(&documented("nginx"), "proxy_request_buffering off;", ""));
    let made = files_made_in(&gathers.nginx.temp(), || succeed(gathers.push(&file, &[]), &file));
    assert!(made > 0);
}

#[test]
fn caddy_passes_a_file_on_without_gathering_slices() {
    let daemon = Daemon::with(&LIMITS);
    let caddy = Gateway::caddy(&documented("caddy"), daemon.url());
    let folder = tempfile::tempdir().unwrap();
    let file = data::file(folder.path(), "big", 2, LEN);
    succeed(push(&caddy.url, &file, &[]), &file);
    assert!(data::same(&file, &daemon.finished("big")));
    assert_slices_go_on_as_they_come(&caddy.plain, &daemon);
}

#[test]
fn refusals_arrive_through_nginx_as_they_are() {
    let setting = nginx();
    assert_refusals_arrive(&setting.nginx.plain, &setting.daemon);
}

#[test]
fn refusals_arrive_through_caddy_as_they_are() {
    let daemon = Daemon::with(&LIMITS);
    let caddy = Gateway::caddy(&documented("caddy"), daemon.url());
    assert_refusals_arrive(&caddy.plain, &daemon);
}

#[test]
fn a_full_disk_is_told_through_both() {
    let folder = tempfile::tempdir().unwrap();
    let certificate = Authority::new(folder.path(), "authority").issue("server", &["127.0.0.1"]);
    let daemon = Daemon::with(&["--reserve", "1000T"]);
    let nginx = Gateway::nginx(&documented("nginx"), daemon.url(), &certificate);
    let caddy = Gateway::caddy(&documented("caddy"), daemon.url());
    let file = data::file(folder.path(), "f", 3, 9 << 20);
    for url in [&nginx.plain, &caddy.plain] {
        let output = push(url, &file, &[]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("PiB stay free, but ") && said.contains("--when-full wait"), "{said}");
    }
}

#[test]
fn a_reload_of_nginx_is_not_noticed() {
    let setting = nginx();
    let file = data::file(setting.folder.path(), "big", 4, LEN);
    let arguments = ["--json", "--slice-size", "1M", "--limit-rate", "40M"];
    let mut push = setting.push(&file, &arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut shown = vec![];
    let mut reloads = 0;
    for line in BufReader::new(push.stdout.take().unwrap()).split(b'\n') {
        let line = line.unwrap();
        let event: Value = serde_json::from_slice(&line).unwrap();
        // At each quarter of the file.
        if event["bytes_stored"].as_u64().is_some_and(|stored| stored >= LEN / 4 * (reloads + 1)) && reloads < 3 {
            reloads += 1;
            setting.nginx.reload();
        }
        shown.extend(line);
        shown.push(b'\n');
    }
    let output = Output { stdout: shown, ..push.wait_with_output().unwrap() };
    assert!(output.status.success(), "{output:?}");
    assert_eq!(reloads, 3);
    assert_smooth(&output, &file);
    assert!(data::same(&file, &setting.daemon.finished("big")));
}

#[test]
fn a_restart_of_bigupd_behind_nginx_is_a_pause() {
    let mut setting = nginx();
    let file = data::file(setting.folder.path(), "big", 5, 64 << 20);
    let arguments = ["--json", "--slice-size", "1M", "--limit-rate", "20M"];
    let mut push = setting.push(&file, &arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    eventually("half of it is there", || {
        let answer = setting.daemon.server().get("peek=1&file_name=big");
        answer.held().len() > 32
    });
    setting.daemon.kill_9();
    let mut lines = BufReader::new(push.stdout.take().unwrap()).lines();
    let retry = lines.by_ref().map(Result::unwrap).find(|line| line.contains("\"retry\"")).expect("bigupd is missed");
    assert!(retry.contains("502"), "{retry}");
    setting.daemon.run();
    lines.for_each(drop);
    let output = push.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(data::same(&file, &setting.daemon.finished("big")));
}

#[test]
fn a_slice_that_nginx_takes_for_too_large_ends_the_push_at_once_with_what_to_do() {
    let setting = nginx_as(&changed(&documented("nginx"), "client_max_body_size 1g;", "client_max_body_size 1m;"));
    let file = data::file(setting.folder.path(), "big", 6, 24 << 20);
    // One that fits goes through, the limit's edge included.
    let fits = data::file(setting.folder.path(), "fits", 6, 5 << 20);
    succeed(setting.push(&fits, &["--slice-size", "1M"]), &fits);
    for url in [&setting.nginx.url, &setting.nginx.plain] {
        let mut push = push(url, &file, &["--slice-size", "8M"]);
        let output = push.arg("--ca-cert").arg(&setting.authority).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(!said.contains("retrying"), "{said}");
        for part in ["413", "--slice-size", "no bigup server"] {
            assert!(said.contains(part), "{part:?} is not in {said}");
        }
    }
}

#[test]
fn smaller_slices_pass_nginx_as_it_is_advised_whatever_is_held() {
    let setting = nginx_as(&changed(&documented("nginx"), "client_max_body_size 1g;", "client_max_body_size 1m;"));
    // Whether the last slice, which is small enough, is there by then depends on who is faster.
    for (name, len) in [("equal", 24 << 20), ("odd", (24 << 20) + 5), ("whole", 3 << 20)] {
        let file = data::file(setting.folder.path(), name, len, len);
        // By itself a client whose machine is busy takes the server for a slow one, and cuts smaller slices.
        let refused = push(&setting.nginx.plain, &file, &["--slice-size", "8M"]).output().unwrap();
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(said.contains("push with a smaller --slice-size"), "{said}");
        succeed(push(&setting.nginx.plain, &file, &["--slice-size", "1M"]), &file);
        assert!(data::same(&file, &setting.daemon.finished(name)));
    }
    // Some is held by a push that did not come through nginx.
    let file = data::file(setting.folder.path(), "begun", 7, 40 << 20);
    let arguments = ["--slice-size", "8M", "--limit-rate", "8M", "--senders", "1"];
    let mut first = push(setting.daemon.url(), &file, &arguments).spawn().unwrap();
    eventually("a slice is held", || !setting.daemon.server().get("peek=1&file_name=begun").held().is_empty());
    kill_9(&mut first);
    succeed(push(&setting.nginx.plain, &file, &["--slice-size", "512K"]), &file);
    assert!(data::same(&file, &setting.daemon.finished("begun")));
}

#[test]
fn only_the_endpoints_are_behind_either() {
    let setting = nginx();
    let caddy = Gateway::caddy(&documented("caddy"), setting.daemon.url());
    for url in [&setting.nginx.plain, &caddy.plain] {
        // bigupd itself refuses the method that tus does not have.
        for (path, status) in [
            ("/big_file_upload?peek=1", "200"),
            ("/files/", "405"),
            ("/", "200"),
            ("/page/app.js", "200"),
            ("/content/", "200"),
            ("/metrics", "404"),
            ("/x", "404"),
        ] {
            let mut stream = http::connect(url);
            write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
            let answer = http::read_answer(&mut stream);
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{url}{path}: {answer}");
        }
    }
}

#[test]
fn the_document_s_settings_are_right() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bigupd.ini");
    for marker in ["bigupd", "bigupd by a socket"] {
        std::fs::write(&file, documented(marker)).unwrap();
        let mut bigupd = Command::new(programs::path("bigupd"));
        let checked = bigupd.arg("--config").arg(&file).arg("--check-config").output().unwrap();
        assert!(checked.status.success(), "{checked:?}");
    }
}

/// A daemon with the document's settings at a socket in `folder`.
fn by_a_socket(folder: &Path) -> Daemon {
    let ini = folder.join("bigupd.ini");
    std::fs::write(&ini, documented("bigupd by a socket")).unwrap();
    let listen = format!("unix:{}", folder.join("bigupd.sock").display());
    Daemon::launched_at(&listen, vec![], &folder.join("data"), &["--config", ini.to_str().unwrap()])
}

fn sockets_in(folder: &Path) -> Vec<String> {
    list(folder).into_iter().filter(|name| name.contains("sock")).collect()
}

#[test]
fn both_reach_bigupd_by_a_socket_that_outlives_no_daemon() {
    let folder = tempfile::tempdir().unwrap();
    let certificate = Authority::new(folder.path(), "authority").issue("server", &["127.0.0.1"]);
    let mut daemon = by_a_socket(folder.path());
    let nginx = changed(&documented("nginx"), "server 127.0.0.1:8888;", &documented("nginx by a socket"));
    let nginx = Gateway::nginx(&nginx, daemon.url(), &certificate);
    let caddy = changed(&documented("caddy"), "reverse_proxy 127.0.0.1:8888 {", &documented("caddy by a socket"));
    let caddy = Gateway::caddy(&caddy, daemon.url());
    for (name, gateway) in [("nginx", &nginx), ("caddy", &caddy)] {
        let file = data::file(folder.path(), name, 11, 20 << 20);
        succeed(push(&gateway.plain, &file, &[]), &file);
        assert!(data::same(&file, &daemon.finished(name)));
        Server::new(&gateway.plain).get("peek=1").expect(200);
    }
    let path = folder.path().join("bigupd.sock");
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o660);
    // One that was killed leaves it, and the next one has it.
    daemon.kill_9();
    assert_eq!(sockets_in(folder.path()), ["bigupd.sock"]);
    daemon.run();
    assert_eq!(Server::new(&nginx.plain).get("peek=1").status, 200);
    // A second one does not take it away.
    let mut second = Command::new(programs::path("bigupd"));
    second.args(["--listen", daemon.url(), "--data-dir"]).arg(folder.path().join("other"));
    let said = second.output().unwrap();
    assert_eq!(said.status.code(), Some(1), "{said:?}");
    assert!(String::from_utf8_lossy(&said.stderr).contains("another program listens there"), "{said:?}");
    assert_eq!(Server::new(&nginx.plain).get("peek=1").status, 200);
    daemon.stop();
    assert!(sockets_in(folder.path()).is_empty());
}

/// The answer to a GET by hand, with whole header lines.
fn ask(url: &str, query: &str, headers: &[&str]) -> http::Answer {
    let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    let head =
        format!("GET /big_file_upload?{query} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\r\n");
    http::Answer::parse(&http::raw(url, head.as_bytes()))
}

#[test]
fn whom_a_trusted_proxy_asks_for_is_told_to_log_and_hook_whatever_the_client_says() {
    let folder = tempfile::tempdir().unwrap();
    let certificate = Authority::new(folder.path(), "authority").issue("server", &["127.0.0.1"]);
    let hook = hooks::script(folder.path(), "hook", "echo $BIGUP_FILE_NAME $BIGUP_PEER >> DIR/peers");
    let daemon = Daemon::with(&["--trusted-proxies", "127.0.0.1", "--on-begin", &hook]);
    let nginx = Gateway::nginx(&documented("nginx"), daemon.url(), &certificate);
    let caddy = Gateway::caddy(&documented("caddy"), daemon.url());
    for (name, url) in [("nginx", &nginx.plain), ("caddy", &caddy.plain)] {
        let mut curl = Command::new("curl");
        // Another client of this machine, that says to be somebody else.
        curl.args(["-sS", "--noproxy", "*", "--interface", "127.0.0.2", "-H", "X-Forwarded-For: 203.0.113.7"]);
        curl.args(["-H", "Forwarded: for=203.0.113.7", &format!("{url}/big_file_upload?file_name={name}&slice_num=2")]);
        let output = curl.output().unwrap();
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"));
        assert_eq!(answer["status"], 200, "{answer}");
    }
    assert_eq!(hooks::lines(&folder.path().join("peers")), ["nginx 127.0.0.2", "caddy 127.0.0.2"]);
    assert!(daemon.log().contains("GET file_name=caddy") && !daemon.log().contains("203.0.113.7"));
}

#[test]
fn whom_a_trusted_proxy_asks_for_is_no_program_of_this_machine() {
    let daemon = Daemon::with(&["--trusted-proxies", "127.0.0.0/8"]);
    for (headers, status) in [
        (&[][..], 200),
        (&["X-Forwarded-For: 127.0.0.9"], 200),
        (&["X-Forwarded-For: 203.0.113.7"], 401),
        (&["X-Forwarded-For: 203.0.113.7, 127.0.0.9"], 401),
        (&["X-Forwarded-For: 127.0.0.9, 203.0.113.7"], 401),
        (&["X-Forwarded-For: 127.0.0.9", "X-Forwarded-For: 203.0.113.7"], 401),
        (&["X-Forwarded-For: ::ffff:203.0.113.7"], 401),
        (&["Forwarded: for=127.0.0.9, for=203.0.113.7"], 401),
        (&["Forwarded: for=unknown"], 401),
        (&["Forwarded: for=127.0.0.9;x=\", for=203.0.113.7"], 400),
        (&["X-Forwarded-For: 127.0.0.9", "Forwarded: for=203.0.113.7"], 400),
    ] {
        let answer = ask(daemon.url(), "peek=1", headers);
        assert_eq!(answer.status, status, "{headers:?}: {answer:?}");
    }
    assert!(daemon.log().contains("from 203.0.113.7 was not let in"), "{}", daemon.log());
}

#[test]
fn a_proxy_that_is_not_trusted_is_warned_of_where_there_are_no_tokens() {
    let warning = "everybody who reaches the proxy may do everything";
    let forwarded = ["X-Forwarded-For: 203.0.113.7"];
    let daemon = Daemon::start();
    ask(daemon.url(), "peek=1", &[]).expect(200);
    assert!(!daemon.log().contains(warning));
    for _ in 0..3 {
        ask(daemon.url(), "peek=1", &forwarded).expect(200);
    }
    assert_eq!(daemon.log().matches(warning).count(), 1);
    // What it advises keeps everybody else out.
    let advised = daemon.log().split("set trusted_proxies = ").nth(1).unwrap().split(' ').next().unwrap().to_owned();
    let daemon = Daemon::with(&["--trusted-proxies", &advised]);
    ask(daemon.url(), "peek=1", &forwarded).expect(401);
    ask(daemon.url(), "peek=1", &[]).expect(200);
    assert!(!daemon.log().contains(warning));
}

#[test]
fn the_limit_for_an_address_is_that_of_each_client_behind_a_trusted_proxy() {
    let daemon = Daemon::with(&["--trusted-proxies", "127.0.0.1", "--max-connections-per-address", "1"]);
    let head = |client: &str, name: &str| {
        let query = format!("file_name={name}&slice_id=0&slice_num=2&slice_size=10");
        http::post_head(&query, &[&format!("X-Forwarded-For: {client}"), "Content-Length: 10"])
    };
    let mut first = http::connect(daemon.url());
    first.write_all(&[&head("127.0.1.1", "a")[..], b"12345"].concat()).unwrap();
    eventually("half of it is there", || daemon.spool_has_part("a"));
    let mut second = http::connect(daemon.url());
    second.write_all(&[&head("127.0.1.1", "b")[..], b"1234567890"].concat()).unwrap();
    let refused = http::Answer::parse(&http::read_answer(&mut second)).expect(429);
    assert!(refused.message().contains("of your address"), "{refused:?}");
    // On that same connection of the proxy's, for another client.
    second.write_all(&[&head("127.0.1.2", "c")[..], b"1234567890"].concat()).unwrap();
    http::Answer::parse(&http::read_answer(&mut second)).expect(200);
    first.write_all(b"67890").unwrap();
    http::Answer::parse(&http::read_answer(&mut first)).expect(200);
    second.write_all(&[&head("127.0.1.1", "b")[..], b"1234567890"].concat()).unwrap();
    http::Answer::parse(&http::read_answer(&mut second)).expect(200);
}
