//! Tokens, by the real programs: who gets in, what they may, what a refusal tells, and that a token is kept nowhere.

use bigup_core::protocol::name::FileName;
use bigup_core::protocol::plan::Plan;
use bigup_core::storage::data_dir::DataDir;
use bigup_core::storage::space::DiskSpace;
use bigup_core::storage::spool::{Spool, UploadId, UploadRecord};
use bigup_tests::daemon::Daemon;
use bigup_tests::http::{Answer, Server, connect, post_head, raw, read_answer, read_head};
use bigup_tests::process::{eventually, kill_9};
use bigup_tests::programs::new_token;
use bigup_tests::turns::all_turns;
use bigup_tests::{data, docs, programs};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::Value;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Barrier;

const KIB: usize = 1 << 10;

/// More than the buffers of a loopback connection hold.
const BIG: usize = 20 << 20;

/// Runs `bigupd` on a data folder.
fn bigupd(data: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(programs::path("bigupd"));
    command.arg("--data-dir").arg(data).args(arguments).output().expect("bigupd can be started")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn revoke(data: &Path, name: &str) {
    let output = bigupd(data, &["token", "revoke", name]);
    assert!(output.status.success(), "{output:?}");
}

/// The endpoint, asked with a new token.
fn with_token(daemon: &Daemon, name: &str, arguments: &[&str]) -> Server {
    daemon.server().with_token(&new_token(&daemon.data(), name, arguments))
}

fn push(daemon: &Daemon, token: &str, arguments: &[&str]) -> Command {
    let mut command = programs::cli();
    command.args(["push", "--url", daemon.url()]).args(arguments).env("BIGUP_TOKEN", token);
    command
}

fn run(mut command: Command) -> (bool, String) {
    let output = command.output().expect("the client can be started");
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    (output.status.success(), said)
}

fn text(path: &Path) -> &str {
    path.to_str().expect("paths of tests are UTF-8")
}

fn hash(content: &[u8]) -> String {
    format!("hash:{}", blake3::hash(content))
}

/// Pushes a file of one slice in one request.
fn put(server: &Server, name: &str, content: &[u8], more: &str) -> Answer {
    let digest = hash(content);
    let len = content.len();
    server
        .post(&format!("file_name={name}&slice_id=0&slice_num=1&slice_size={len}&slice_digest={digest}{more}"), content)
}

/// The text of an answer without what changes with time.
fn timeless(answer: &str) -> String {
    answer.lines().filter(|line| !line.to_ascii_lowercase().starts_with("date:")).collect::<Vec<_>>().join("\n")
}

/// A daemon that listens at any address of this machine.
struct Elsewhere {
    child: Child,
    port: u16,
}

impl Elsewhere {
    fn start(data: &Path, arguments: &[&str]) -> Elsewhere {
        let mut command = Command::new(programs::path("bigupd"));
        command.arg("--data-dir").arg(data).args(["--listen", "0.0.0.0:0"]).args(arguments).stdout(Stdio::piped());
        let mut child = command.spawn().expect("bigupd can be started");
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let port = line.trim().rsplit_once(':').and_then(|(_, port)| port.parse().ok());
        Elsewhere { child, port: port.unwrap_or_else(|| panic!("bigupd did not start: {line:?}")) }
    }

    fn server(&self) -> Server {
        Server::new(&format!("http://127.0.0.1:{}", self.port))
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        kill_9(&mut self.child);
    }
}

#[test]
fn nobody_listens_elsewhere_without_tokens_unless_told_to() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    for check in [&[][..], &["--check-config"]] {
        let refused = bigupd(&data, &[&["--listen", "0.0.0.0:0"], check].concat());
        assert_eq!(refused.status.code(), Some(2), "{refused:?}");
        assert!(
            said(&refused).contains("bigupd token new") && said(&refused).contains("allow_anonymous"),
            "{refused:?}"
        );
        assert!(refused.stdout.is_empty());
    }
    {
        let open = Elsewhere::start(&data, &["--allow-anonymous", "yes"]);
        open.server().get("file_name=a&slice_num=1").expect(200);
    }
    let token = new_token(&data, "t", &[]);
    let daemon = Elsewhere::start(&data, &[]);
    daemon.server().get("file_name=a&slice_num=1").expect(401);
    daemon.server().with_token(&token).get("file_name=a&slice_num=1").expect(200);
    revoke(&data, "t");
    std::fs::remove_file(data.join("tokens.json")).unwrap();
    daemon.server().get("file_name=a&slice_num=1").expect(401);
    daemon.server().with_token(&token).get("file_name=a&slice_num=1").expect(401);
}

#[test]
fn a_token_sees_pushes_and_resumes_only_below_its_prefix() {
    let daemon = Daemon::start();
    let (alice, all) = (with_token(&daemon, "alice", &["--prefix", "al/ice"]), with_token(&daemon, "all", &[]));
    put(&all, "al/ice/f", b"1", "").expect(200);
    put(&all, "bob/f", b"2", "").expect(200);
    for name in ["al/ice/u", "al/u", "u"] {
        all.get(&format!("file_name={name}&slice_num=3&slice_size=10&file_size=25")).expect(200);
    }
    alice.get("file_name=al/ice/f&peek=1").expect(200);
    alice.get("file_name=al/ice/u&slice_num=3&slice_size=10&file_size=25").expect(200);
    alice.post("file_name=al/ice/u&slice_id=1&slice_size=10", &[1; 10]).expect(200);
    put(&alice, "al/ice/new/g", b"3", "").expect(200);
    for name in ["bob/f", "u", "al/u", "al/ice", "al/iceberg/f", "nothing", "AL/ICE/f"] {
        alice.get(&format!("file_name={name}&peek=1")).expect(403);
        alice.get(&format!("file_name={name}&peek=1&digests=0-1")).expect(403);
        alice.get(&format!("file_name={name}&slice_num=3&slice_size=10&file_size=25")).expect(403);
        alice.post(&format!("file_name={name}&slice_id=1&slice_size=10"), &[1; 10]).expect(403);
        put(&alice, name, b"4", "").expect(403);
    }
    let names = |server: &Server| {
        let list = server.get("peek=1").expect(200);
        let uploads = list.body["uploads"].as_array().unwrap().clone();
        uploads.iter().map(|upload| upload["file_name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names(&alice), ["al/ice/u"]);
    assert_eq!(names(&all), ["al/ice/u", "al/u", "u"]);
    assert_eq!(std::fs::read(daemon.finished("bob/f")).unwrap(), b"2");
}

#[test]
fn each_permission_allows_what_it_says_and_nothing_else() {
    let daemon = Daemon::start();
    let all = with_token(&daemon, "all", &["--permissions", "admin"]);
    for (has, may) in [
        ("push", "begin slice show"),
        ("read", "show list"),
        ("replace", ""),
        ("push,read", "begin slice show list"),
        ("push,replace", "begin slice show replace"),
        ("admin", "begin slice show list replace"),
    ] {
        let server = with_token(&daemon, has, &["--permissions", has]);
        put(&all, "f", b"old", "&replace=1").expect(200);
        all.get("file_name=u&slice_num=3&slice_size=10&file_size=25").expect(200);
        let is = |action: &str, answer: Answer| {
            let expected = if may.split(' ').any(|may| may == action) { 200 } else { 403 };
            assert_eq!(answer.status, expected, "{has}: {action}: {answer:?}");
            assert!(answer.status == 200 || answer.message().contains(&format!("the token {has} has {has};")));
        };
        is("begin", server.get("file_name=u&slice_num=3&slice_size=10&file_size=25"));
        is("slice", server.post("file_name=u&slice_id=1&slice_size=10", &[1; 10]));
        is("show", server.get("file_name=u&peek=1"));
        is("show", server.get("file_name=u&peek=1&digests=0-1"));
        is("list", server.get("peek=1"));
        is("replace", put(&server, "f", b"new", "&replace=1"));
        let content = std::fs::read(daemon.finished("f")).unwrap();
        assert_eq!(content == b"new", may.contains("replace"), "{has}");
        is("replace", server.get("file_name=g&slice_num=3&slice_size=10&file_size=25&replace=1"));
    }
}

#[test]
fn refusals_do_not_tell_what_there_is() {
    let daemon = Daemon::start();
    let all = with_token(&daemon, "all", &[]);
    put(&all, "finished", b"1", "").expect(200);
    all.get("file_name=unfinished&slice_num=3&slice_size=10&file_size=25").expect(200);
    let over = new_token(&daemon.data(), "over", &["--expires", "1s"]);
    let revoked = new_token(&daemon.data(), "revoked", &[]);
    revoke(&daemon.data(), "revoked");
    eventually("the token ends", || daemon.server().with_token(&over).get("file_name=unfinished&peek=1").status == 401);
    let elsewhere = new_token(&daemon.data(), "elsewhere", &["--prefix", "else/", "--permissions", "admin"]);
    let reader = new_token(&daemon.data(), "reader", &["--permissions", "read"]);
    let ask = |token: Option<&str>, request: &str, body: &[u8]| {
        let authorization = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
        let length = body.len();
        let head = format!("{request} HTTP/1.1\r\nHost: localhost\r\n{authorization}Content-Length: {length}\r\n\r\n");
        timeless(&raw(daemon.url(), &[head.as_bytes(), body].concat()))
    };
    let requests = |name: &str| {
        let at = format!("/big_file_upload?file_name={name}");
        [
            (format!("GET {at}&slice_num=3&slice_size=10&file_size=25"), vec![]),
            (format!("GET {at}&slice_num=3&slice_size=10&file_size=25&replace=1"), vec![]),
            (format!("POST {at}&slice_id=1&slice_size=10"), vec![1; 10]),
            (format!("POST {at}&slice_id=0&slice_size=1&slice_num=1"), vec![1]),
            (format!("GET {at}&peek=1"), vec![]),
            (format!("GET {at}&peek=1&digests=0-1"), vec![]),
        ]
    };
    let wrong = format!("bigup_{}", "0".repeat(64));
    for (token, status, among) in [
        (None, 401, 6),
        (Some(&wrong), 401, 6),
        (Some(&over), 401, 6),
        (Some(&revoked), 401, 6),
        (Some(&elsewhere), 403, 6),
        (Some(&reader), 403, 4),
    ] {
        let answers = |name: &str| {
            let requests = requests(name).into_iter().take(among);
            requests.map(|(request, body)| ask(token.map(String::as_str), &request, &body)).collect::<Vec<_>>()
        };
        let answer = answers("missing");
        assert!(answer.iter().all(|answer| answer.starts_with(&format!("HTTP/1.1 {status}"))), "{answer:?}");
        assert_eq!(
            status == 401,
            answer.iter().all(|answer| answer.contains("www-authenticate: Bearer")),
            "{answer:?}"
        );
        for name in ["finished", "unfinished"] {
            assert_eq!(answers(name), answer, "{token:?} {name}");
        }
        if status == 401 && token.is_some() {
            let (request, body) = &requests("finished")[0];
            assert_eq!(ask(Some(&wrong), request, body), answer[0], "why a token does not count is not told");
        }
    }
    assert_eq!(daemon.spools(), ["unfinished"]);
}

#[test]
fn a_refused_body_does_not_keep_the_answer_from_arriving_and_need_not_be_sent() {
    let daemon = Daemon::start();
    let token = new_token(&daemon.data(), "t", &["--prefix", "a/"]);
    let query = format!("file_name=b&slice_id=0&slice_size={BIG}");
    for (authorization, status) in [("X-None: 1".to_owned(), "401"), (format!("Authorization: Bearer {token}"), "403")]
    {
        let length = format!("Content-Length: {BIG}");
        let head = post_head(&query, &[&length, &authorization]);
        let answer = raw(daemon.url(), &[head, vec![0; BIG]].concat());
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
        let mut stream = connect(daemon.url());
        stream.write_all(&post_head(&query, &[&length, &authorization, "Expect: 100-continue"])).unwrap();
        let answer = read_answer(&mut stream);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
    }
}

#[test]
fn tokens_come_and_go_without_a_restart_in_every_daemon() {
    let one = Daemon::start();
    let two = one.another();
    let daemons = [&one, &two];
    for daemon in daemons {
        daemon.server().get("peek=1").expect(200);
    }
    let first = new_token(&one.data(), "first", &[]);
    for daemon in daemons {
        daemon.server().get("peek=1").expect(401);
        daemon.server().with_token(&first).get("peek=1").expect(200);
    }
    let second = new_token(&one.data(), "second", &[]);
    revoke(&one.data(), "first");
    for daemon in daemons {
        daemon.server().with_token(&first).get("peek=1").expect(401);
        daemon.server().with_token(&second).get("peek=1").expect(200);
    }
    // Nobody gets in once the last one is revoked; only without the file nobody is asked for a token.
    revoke(&one.data(), "second");
    for daemon in daemons {
        daemon.server().get("peek=1").expect(401);
        daemon.server().with_token(&second).get("peek=1").expect(401);
    }
    std::fs::remove_file(one.data().join("tokens.json")).unwrap();
    for daemon in daemons {
        daemon.server().get("peek=1").expect(200);
    }
}

#[test]
fn a_push_whose_token_is_revoked_ends_and_goes_on_with_another_one() {
    let daemon = Daemon::start();
    let file = data::file(&daemon.scratch(), "f", 1, 64 << 20);
    let token = new_token(&daemon.data(), "first", &[]);
    let mut command = push(&daemon, &token, &[text(&file), "--slice-size", "16K", "--senders", "1", "--json"]);
    let pushing = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    eventually("slices arrive", || daemon.log().contains("slice 20 stored"));
    revoke(&daemon.data(), "first");
    let output = pushing.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("was revoked") && !said.contains("\"retry\""), "{said}");
    let next = new_token(&daemon.data(), "next", &[]);
    let (done, said) = run(push(&daemon, &next, &[text(&file), "--json"]));
    assert!(done, "{said}");
    let start: Value = serde_json::from_str(said.lines().next().unwrap()).unwrap();
    assert!(start["slices_held"].as_u64().unwrap() > 20 && start["slice_size"] == 16384, "{start}");
    assert!(data::same(&file, &daemon.finished("f")));
}

#[test]
fn the_client_pushes_shows_and_verifies_with_a_token() {
    let daemon = Daemon::start();
    let token = new_token(&daemon.data(), "t", &["--prefix", "a"]);
    let token_file = daemon.scratch().join("token");
    std::fs::write(&token_file, format!("{token}\n")).unwrap();
    let file = data::file(&daemon.scratch(), "f", 1, 3 << 20);
    let cli = |arguments: &[&str]| {
        let mut command = programs::cli();
        command.args(arguments).args(["--url", daemon.url(), "--token-file", text(&token_file)]);
        run(command)
    };
    assert!(cli(&["push", text(&file), "--name", "a/f", "--slice-size", "64K"]).0);
    assert!(cli(&["verify", text(&file), "--name", "a/f"]).0);
    assert!(cli(&["status"]).0 && cli(&["status", "a/f"]).0);
    let (done, said) = cli(&["push", text(&file), "--name", "b/f"]);
    assert!(!done && said.contains("push,read under a/"), "{said}");
    let other = data::file(&daemon.scratch(), "g", 2, 3 << 20);
    let (done, said) = cli(&["push", text(&other), "--name", "a/f", "--replace"]);
    assert!(!done && said.contains("needs replace"), "{said}");
    assert!(data::same(&file, &daemon.finished("a/f")) && !daemon.finished("b/f").exists());
}

#[test]
fn a_quota_bounds_what_lies_below_the_prefix_whoever_put_it_there() {
    let daemon = Daemon::start();
    let all = with_token(&daemon, "all", &[]);
    put(&all, "a/others", &[1; 30 * KIB], "").expect(200);
    put(&all, "b/others", &[1; 5000], "").expect(200);
    let mut bounded = with_token(&daemon, "bounded", &["--prefix", "a", "--quota", "100K"]);
    put(&bounded, "a/own", &[2; 40 * KIB], "").expect(200);
    let begin = |server: &Server, size: usize| server.get(&format!("file_name=a/u&slice_size=10240&file_size={size}"));
    let refused = begin(&bounded, 31 * KIB).expect(413);
    assert_eq!(refused.body["error"], "too_large");
    for part in ["bounded", "102400 bytes", "under a/", "71680 are there", "31744 more"] {
        assert!(refused.message().contains(part), "{part}: {refused:?}");
    }
    assert_eq!(daemon.spools(), [""; 0]);
    put(&bounded, "a/more", &[3; 31 * KIB], "").expect(413);
    begin(&bounded, 30 * KIB).expect(200);
    put(&bounded, "a/more", &[3; 1], "").expect(413);
    // An upload that has begun counts once, also to a daemon that knows nothing of it yet.
    let another = daemon.another();
    bounded = another.server().with_token(&new_token(&daemon.data(), "same", &["--prefix", "a", "--quota", "100K"]));
    begin(&bounded, 30 * KIB).expect(200);
    put(&bounded, "a/more", &[3; 1], "").expect(413);
    for id in 0..3 {
        bounded.post(&format!("file_name=a/u&slice_id={id}&slice_size=10240"), &[4; 10 * KIB]).expect(200);
    }
    eventually("the file is finished", || daemon.finished("a/u").exists());
    put(&bounded, "a/more", &[3; 1], "").expect(413);
    // Who has no quota is not bounded; what is removed counts no more within seconds.
    std::fs::remove_file(daemon.finished("a/u")).unwrap();
    eventually("the quota has bytes left again", || put(&bounded, "a/more", &[3; 30 * KIB], "").status == 200);
    put(&all, "a/others2", &[1; 1000], "").expect(200);
}

#[test]
fn what_an_upload_holds_stays_where_a_quota_refuses_another_cut() {
    let daemon = Daemon::start();
    let server = with_token(&daemon, "t", &["--prefix", "a", "--quota", "200K"]);
    server.get("file_name=a/x&slice_size=51200&file_size=102400&source=s").expect(200);
    server.post("file_name=a/x&slice_id=1&slice_size=51200&source=s", &[1; 50 * KIB]).expect(200);
    // Each slice counts for a block.
    let again = "file_name=a/x&file_size=102400&source=s&recut=1&discard=1";
    server.get(&format!("{again}&slice_size=1024")).expect(413);
    let kept = daemon.data().join("tmp/a%2Fx/1");
    assert_eq!(std::fs::metadata(&kept).unwrap().len(), 50 * 1024);
    server.get(&format!("{again}&slice_size=10240")).expect(200);
    assert!(!kept.exists());
}

#[test]
fn a_small_file_that_is_sent_again_while_it_still_comes_is_not_refused_for_good() {
    let daemon = Daemon::start();
    let token = new_token(&daemon.data(), "t", &["--prefix", "a", "--quota", "100K"]);
    let server = daemon.server().with_token(&token);
    let query = "file_name=a/x&slice_id=0&slice_num=1&slice_size=61440&file_size=61440&source=s";
    let mut first = connect(daemon.url());
    let authorization = format!("Authorization: Bearer {token}");
    first.write_all(&post_head(query, &[&authorization, "Content-Length: 61440", "Expect: 100-continue"])).unwrap();
    assert_eq!(read_head(&mut first), "HTTP/1.1 100 Continue\r\n\r\n");
    let again = server.post(query, &[1; 60 * KIB]).expect(429);
    assert_eq!(again.body["error"], "too_many");
    drop(first);
    eventually("it is taken", || server.post(query, &[1; 60 * KIB]).status == 200);
}

#[test]
fn a_quota_bounds_uploads_of_unknown_size_slice_by_slice() {
    let daemon = Daemon::with(&["--takeover-after", "0"]);
    let server = with_token(&daemon, "t", &["--prefix", "a", "--quota", "35K"]);
    let slice = |name: &str, id: u64, len: usize| {
        server.post(&format!("file_name={name}&slice_id={id}&slice_size={len}"), &vec![id as u8; len])
    };
    server.get("file_name=a/open&slice_size=10240").expect(200);
    for id in 0..3 {
        slice("a/open", id, 10 * KIB).expect(200);
    }
    assert!(slice("a/open", 3, 10 * KIB).expect(413).message().contains("30720 are there, and 10240 more"));
    // Telling the size takes nothing that was not taken before, unless it is larger.
    server.get("file_name=a/open&slice_size=10240&file_size=36864").expect(413);
    server.get("file_name=a/open&slice_size=10240&file_size=30720").expect(200);
    eventually("the file is finished", || daemon.finished("a/open").exists());
    std::fs::remove_file(daemon.finished("a/open")).unwrap();
    eventually("the quota has bytes left again", || {
        server.get("file_name=a/n&slice_num=100").expect(200);
        slice("a/n", 0, 10 * KIB).status == 200
    });
    // The last slice tells the size of the whole, of which it was granted already.
    assert!(slice("a/n", 99, 5 * KIB).expect(413).message().contains("1003520 more"));
    slice("a/n", 1, 10 * KIB).expect(200);
    // Nor does an upload grow beyond it by being taken over.
    server.get("file_name=a/n&slice_size=10240&file_size=36864&source=x").expect(413);
    server.get("file_name=a/n&slice_size=10240&file_size=35840&source=x").expect(200);
}

/// Does `work` so many times at the same moment; how often it came to true.
fn at_once(times: usize, work: impl Fn(usize) -> bool + Sync) -> usize {
    let gate = Barrier::new(times);
    let run = |i| {
        gate.wait();
        work(i)
    };
    std::thread::scope(|scope| {
        let (run, mut threads) = (&run, vec![]);
        threads.extend((0..times).map(|i| scope.spawn(move || run(i))));
        threads.into_iter().filter_map(|thread| thread.join().ok()).filter(|is| *is).count()
    })
}

#[test]
fn of_what_is_asked_for_at_once_no_more_is_granted_than_one_after_the_other() {
    let daemon = Daemon::with(&["--max-uploads-per-token", "5"]);
    for round in 0..3 {
        let folder = format!("r{round}");
        let server = with_token(&daemon, &folder, &["--prefix", &folder, "--quota", "1M"]);
        // Each on a connection of its own.
        let begin = |i: usize, size: usize| {
            let query = format!("file_name={folder}/{i}&slice_size=65536&file_size={size}");
            Server::clone(&server).get(&query).status == 200
        };
        let granted = at_once(24, |i| begin(i, 400 << 10));
        assert!((1..=2).contains(&granted), "{granted} of 400 KiB were granted of 1 MiB");
        let granted = granted + (24..30).filter(|i| begin(*i, 400 << 10)).count();
        assert_eq!(granted, 2, "at once and afterwards");
        let granted = granted + at_once(24, |i| begin(100 + i, 1));
        assert!((3..=5).contains(&granted), "{granted} uploads of a token that may have 5");
        let granted = granted + (200..206).filter(|i| begin(*i, 1)).count();
        assert_eq!(granted, 5, "at once and afterwards");
    }
}

#[test]
fn slices_of_unknown_size_that_come_at_once_stay_within_the_quota_and_so_do_small_files() {
    let daemon = Daemon::start();
    for round in 0..3 {
        let folder = format!("r{round}");
        let server = with_token(&daemon, &folder, &["--prefix", &folder, "--quota", "290K"]);
        server.get(&format!("file_name={folder}/open&slice_size=102400")).expect(200);
        let slice = |i: usize| {
            let query = format!("file_name={folder}/open&slice_id={i}&slice_size=102400");
            Server::clone(&server).post(&query, &[i as u8; 100 * KIB]).status == 200
        };
        let stored = at_once(16, slice);
        assert!((1..=2).contains(&stored), "{stored} slices of 100 KiB beside an upload, of 290 KiB");
        let small = at_once(16, |i| put(&server, &format!("{folder}/{i}"), &[1; 90 * KIB], "").status == 200);
        let kept = small * 90 + stored * 100;
        assert!(kept <= 290, "{kept} KiB");
    }
}

#[test]
fn every_file_and_folder_counts() {
    let daemon = Daemon::start();
    let one_byte = with_token(&daemon, "one", &["--prefix", "a", "--quota", "1"]);
    for nothing in ["file_name=a/f&slice_num=0", "file_name=a/b/c/d/f&slice_num=0"] {
        let refused = one_byte.get(nothing).expect(413);
        assert!(
            refused.message().contains("0 are there") && refused.message().contains("more do not fit"),
            "{refused:?}"
        );
    }
    put(&one_byte, "a/f", b"1", "").expect(413);
    // A slice may wait in a file of its own.
    let some = with_token(&daemon, "some", &["--prefix", "b", "--quota", "1M"]);
    some.get("file_name=b/f&slice_size=1&file_size=1000").expect(413);
    some.get("file_name=b/f&slice_size=4096&file_size=100000").expect(200);
    let few = with_token(&daemon, "few", &["--prefix", "c", "--max-files", "4"]);
    put(&few, "c/d/e", b"1", "").expect(200);
    few.get("file_name=c/d/f&slice_size=10&file_size=25").expect(200);
    let refused = put(&few, "c/g/h", b"1", "").expect(413);
    for part in ["few", "4 files and folders under c/", "3 are there", "2 more do not fit"] {
        assert!(refused.message().contains(part), "{part}: {refused:?}");
    }
    put(&few, "c/d/h", b"1", "").expect(200);
    put(&few, "c/d/i", b"1", "").expect(413);
    std::fs::remove_dir_all(daemon.finished("c")).unwrap();
    eventually("there may be another", || put(&few, "c/i", b"1", "").status == 200);
}

#[test]
fn requests_of_one_token_that_all_hang_keep_no_other_waiting() {
    let _turns = all_turns();
    // More than the daemon has threads for what may wait for a disk.
    const MANY: usize = 1500;
    let (_, files) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, files, files).unwrap();
    let daemon = Daemon::with(&["--max-connections-per-address", "0"]);
    let token = new_token(&daemon.data(), "one", &[]);
    let (one, other) = (daemon.server().with_token(&token), with_token(&daemon, "other", &[]));
    let query = "file_name=hangs&slice_size=10&file_size=25&source=test";
    one.get(query).expect(200);
    // As a disk does that does not answer.
    let held = std::fs::File::open(daemon.data().join("tmp/hangs/digests")).unwrap();
    held.lock().unwrap();
    let head =
        format!("GET /big_file_upload?{query} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n");
    let ask = |_| {
        let mut stream = connect(daemon.url());
        stream.write_all(head.as_bytes()).unwrap();
        stream
    };
    let mut asked: Vec<_> = (0..MANY).map(ask).collect();
    for i in 0..20 {
        put(&other, &format!("f{i}"), b"1", "").expect(200);
        other.get("file_name=f0&peek=1").expect(200);
    }
    let ready = raw(daemon.url(), b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert!(ready.starts_with("HTTP/1.1 200"), "{ready}");
    drop(held);
    for stream in &mut asked {
        assert!(read_answer(stream).starts_with("HTTP/1.1 200"));
    }
}

#[test]
fn a_name_has_so_many_folders_and_older_ones_with_more_stay_of_use() {
    let daemon = Daemon::start();
    let (server, name) = (daemon.server(), |components| vec!["d"; components].join("/"));
    let refused = server.get(&format!("file_name={}&slice_size=10&file_size=25", name(65))).expect(400);
    assert!(refused.message().contains("65 components") && refused.message().contains("64"), "{refused:?}");
    put(&server, &name(65), b"1", "").expect(400);
    assert_eq!((daemon.spools(), std::fs::read_dir(daemon.data().join("files")).unwrap().count()), (vec![], 0));
    put(&server, &name(64), b"1", "").expect(200);
    // As an older daemon left them.
    let deep = daemon.finished(&name(70));
    std::fs::remove_file(daemon.finished(&name(64))).unwrap();
    std::fs::create_dir_all(deep.parent().unwrap()).unwrap();
    std::fs::write(&deep, b"1").unwrap();
    server.get(&format!("file_name={}&peek=1", name(70))).expect(200);
    let old_name = |components| format!("e/{}", name(components));
    let (data, old) = (DataDir::open(&daemon.data()).unwrap(), FileName::new(&old_name(79)).unwrap());
    let upload = UploadRecord::begin(old, Plan::new(None, Some(10), Some(20)).unwrap(), Some("test".to_owned()));
    assert!(Spool::create(&data, &UploadId::of_name(&upload.file_name), &upload, &DiskSpace::new(&data, 0)).unwrap());
    for id in 0..2 {
        server.post(&format!("file_name={}&slice_id={id}&slice_size=10", old_name(79)), &[1; 10]).expect(200);
    }
    eventually("it is finished", || daemon.finished(&old_name(79)).exists());
    let old = UploadRecord { file_name: FileName::new(&old_name(89)).unwrap(), ..upload };
    assert!(Spool::create(&data, &UploadId::of_name(&old.file_name), &old, &DiskSpace::new(&data, 0)).unwrap());
    let cancelled = bigupd(&daemon.data(), &["cancel", &old_name(89)]);
    assert!(cancelled.status.success(), "{}", said(&cancelled));
}

#[test]
fn the_client_does_not_ask_again_when_a_quota_is_full() {
    let daemon = Daemon::start();
    let token = new_token(&daemon.data(), "t", &["--quota", "2M"]);
    let file = data::file(&daemon.scratch(), "f", 1, 3 << 20);
    let (done, said) = run(push(&daemon, &token, &[text(&file), "--json"]));
    assert!(!done && said.contains("2.00 MiB") && !said.contains("\"retry\""), "{said}");
    let mut command = push(&daemon, &token, &["-", "--name", "g", "--slice-size", "64K", "--json"]);
    command.stdin(std::fs::File::open(&file).unwrap());
    let (done, said) = run(command);
    // What others of its slices take may come back until they are stored; then it is full.
    let is_asked_in_vain = |line: &str| line.contains("\"retry\"") && !line.contains("beside what other requests");
    assert!(!done && said.contains("2.00 MiB") && !said.lines().any(is_asked_in_vain), "{said}");
}

#[test]
fn a_token_has_only_so_many_unfinished_uploads() {
    let daemon = Daemon::with(&["--max-uploads-per-token", "2", "--takeover-after", "0"]);
    let (one, two) = (with_token(&daemon, "one", &[]), with_token(&daemon, "two", &[]));
    let begin = |server: &Server, name: &str| server.get(&format!("file_name={name}&slice_size=10&file_size=25"));
    for (server, name) in [(&one, "a"), (&two, "b"), (&one, "c"), (&one, "a")] {
        begin(server, name).expect(200);
    }
    let refused = begin(&one, "d").expect(429);
    assert!(refused.message().contains("2 unfinished uploads"), "{refused:?}");
    put(&one, "d", b"1", "").expect(429);
    let token = new_token(&daemon.data(), "three", &[]);
    let three = daemon.server().with_token(&token);
    for name in ["e", "f"] {
        begin(&three, name).expect(200);
    }
    let head = format!(
        "GET /big_file_upload?file_name=g&slice_num=3 HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n"
    );
    let answer = raw(daemon.url(), head.as_bytes());
    assert!(answer.starts_with("HTTP/1.1 429") && answer.contains("retry-after: "), "{answer}");
    // Nor by taking one over; going on with another's is nobody's gain.
    begin(&one, "b").expect(200);
    one.get("file_name=b&slice_size=10&file_size=25&source=x").expect(429);
    two.get("file_name=b&slice_size=10&file_size=25&source=x").expect(200);
    for id in 0..3 {
        let len = if id == 2 { 5 } else { 10 };
        one.post(&format!("file_name=a&slice_id={id}&slice_size={len}"), &vec![1; len]).expect(200);
    }
    eventually("one is finished, and there may be another", || begin(&one, "d").status == 200);
}

#[test]
fn where_anybody_is_let_in_tokens_still_protect_what_is_theirs() {
    let daemon = Daemon::with(&["--allow-anonymous", "yes", "--takeover-after", "0"]);
    let anybody = daemon.server();
    // Without tokens anybody may do everything.
    put(&anybody, "f", b"1", "").expect(200);
    put(&anybody, "f", b"2", "&replace=1").expect(200);
    let pusher = with_token(&daemon, "pusher", &["--permissions", "push"]);
    let replacer = with_token(&daemon, "replacer", &["--permissions", "push,replace"]);
    let begin = |server: &Server, name: &str, more: &str| {
        server.get(&format!("file_name={name}&slice_num=3&slice_size=10&file_size=25{more}"))
    };
    let slice =
        |server: &Server, name: &str| server.post(&format!("file_name={name}&slice_id=1&slice_size=10"), &[1; 10]);
    put(&anybody, "g", b"1", "").expect(200);
    anybody.get("peek=1").expect(200);
    put(&anybody, "f", b"3", "&replace=1").expect(401);
    anybody.clone().with_token("bigup_0").get("peek=1").expect(401);
    begin(&anybody, "theirs", "").expect(200);
    begin(&pusher, "theirs", "").expect(200);
    slice(&pusher, "theirs").expect(200);
    begin(&pusher, "own", "").expect(200);
    let answers = [begin(&anybody, "own", ""), begin(&anybody, "own", "&source=x"), slice(&anybody, "own")];
    for answer in answers {
        assert_eq!(answer.status, 409, "{answer:?}");
        assert!(answer.message().contains("begun by a token"), "{answer:?}");
    }
    // What one may replace, another may not finish for him.
    begin(&replacer, "f", "&replace=1").expect(200);
    for answer in [begin(&pusher, "f", ""), slice(&pusher, "f")] {
        assert_eq!(answer.status, 409, "{answer:?}");
        assert!(answer.message().contains("to replace"), "{answer:?}");
    }
    slice(&replacer, "f").expect(200);
}

#[test]
fn who_has_no_token_has_a_quota_and_a_number() {
    let settings = ["--allow-anonymous", "yes", "--anonymous-quota", "100K", "--max-uploads-per-token", "2"];
    let daemon = Daemon::with(&settings);
    let anybody = daemon.server();
    put(&anybody, "a", &[1; 60 * KIB], "").expect(200);
    let refused = put(&anybody, "b", &[1; 60 * KIB], "").expect(413);
    for part in ["without a token", "102400 bytes", "in all", "61440 are there"] {
        assert!(refused.message().contains(part), "{part}: {refused:?}");
    }
    // Where there are tokens as well.
    let known = with_token(&daemon, "known", &[]);
    put(&anybody, "b", &[1; 60 * KIB], "").expect(413);
    put(&known, "b", &[1; 20 * KIB], "").expect(200);
    let begin = |server: &Server, name: &str| server.get(&format!("file_name={name}&slice_size=10&file_size=10"));
    for name in ["c", "d"] {
        begin(&anybody, name).expect(200);
    }
    let refused = begin(&anybody, "e").expect(429);
    assert!(refused.message().contains("without a token have 2 unfinished uploads"), "{refused:?}");
    begin(&known, "e").expect(200);
}

#[test]
fn damaged_tokens_let_nobody_in_and_leave_a_running_daemon_to_be_mended() {
    let daemon = Daemon::start();
    let token = new_token(&daemon.data(), "t", &[]);
    let server = daemon.server().with_token(&token);
    server.get("peek=1").expect(200);
    let path = daemon.data().join("tokens.json");
    let good = std::fs::read(&path).unwrap();
    for damaged in [&good[..good.len() / 2], b"", b"{}", b"[]"] {
        std::fs::write(&path, damaged).unwrap();
        for server in [&server, &daemon.server()] {
            let answer = server.get("peek=1").expect(500);
            assert!(answer.message().contains("tokens"), "{answer:?}");
            put(server, "f", b"1", "").expect(500);
        }
        assert_eq!(bigupd(&daemon.data(), &["token", "list"]).status.code(), Some(1));
        assert_eq!(bigupd(&daemon.data(), &["token", "new", "u"]).status.code(), Some(1));
        let refused = bigupd(&daemon.data(), &["--listen", "127.0.0.1:0"]);
        assert_eq!(refused.status.code(), Some(2), "{refused:?}");
        assert!(said(&refused).contains("tokens.json"), "{refused:?}");
        assert_eq!(std::fs::read(&path).unwrap(), damaged);
    }
    assert!(daemon.log().contains("all requests are refused until the tokens can be read"));
    std::fs::write(&path, &good).unwrap();
    server.get("peek=1").expect(200);
    daemon.server().get("peek=1").expect(401);
}

#[test]
fn a_token_is_kept_nowhere() {
    let mut daemon = Daemon::start();
    let token = new_token(&daemon.data(), "t", &[]);
    let wrong = token.replace(|c: char| c.is_ascii_digit(), "a");
    let file = data::file(&daemon.scratch(), "f", 1, 1 << 20);
    let (done, mut said) = run(push(&daemon, &token, &[text(&file), "--slice-size", "64K"]));
    assert!(done, "{said}");
    said += &run(push(&daemon, &wrong, &[text(&file)])).1;
    let server = daemon.server().with_token(&token);
    server.get("file_name=u&slice_num=3").expect(200);
    // It waits for the one before it, so that no merger is at work on it.
    server.post("file_name=u&slice_id=1&slice_size=5", b"hello").expect(200);
    // Given in other ways a token counts for nothing, and is not logged either.
    for given in ["token", "access_token", "BIGUP_TOKEN"] {
        said += daemon.server().get(&format!("file_name=u&slice_num=3&{given}={token}")).expect(401).message();
    }
    for shown in [&daemon.log(), &said] {
        for secret in [&token, &wrong] {
            assert!(!shown.contains(secret.as_str()) && !shown.contains(&secret[6..]), "{shown}");
        }
    }
    assert!(daemon.log().contains("a request from 127.0.0.1:"), "who was not let in is logged");
    // At rest: what is replaced or removed while it is looked for would be missed, or could not be read.
    eventually("the other upload is gone", || daemon.spools() == ["u"] && daemon.info("u", "slice_num").is_some());
    daemon.stop();
    let mut files = vec![daemon.data()];
    let mut hashes = 0;
    while let Some(path) = files.pop() {
        if path.is_dir() {
            files.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            continue;
        }
        let content = std::fs::read(&path).unwrap();
        let has = |text: &str| content.windows(text.len()).any(|window| window == text.as_bytes());
        assert!(!has(&token[6..]), "{}", path.display());
        hashes += usize::from(has(blake3::hash(token.as_bytes()).to_hex().as_str()));
    }
    assert_eq!(hashes, 1);
    assert_eq!(std::fs::metadata(daemon.data().join("tokens.json")).unwrap().mode() & 0o7777, 0o600);
}

#[test]
fn tokens_are_listed_without_their_secrets_and_have_names_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let secrets = [
        new_token(&data, "one", &[]),
        new_token(
            &data,
            "two",
            &["--prefix", "a/b/", "--permissions", "read,push,read", "--quota", "10G", "--expires", "2100-01-31"],
        ),
    ];
    for secret in &secrets {
        assert!(secret.starts_with("bigup_") && secret.len() == 70, "{secret}");
    }
    assert_ne!(secrets[0], secrets[1]);
    let taken = bigupd(&data, &["token", "new", "one"]);
    assert_eq!(taken.status.code(), Some(1));
    assert!(said(&taken).contains("one already") && taken.stdout.is_empty(), "{taken:?}");
    for wrong in [&["a b"][..], &[""], &["ä"], &["x", "--prefix", "../a"], &["x", "--permissions", "all"]] {
        assert_eq!(bigupd(&data, &[&["token", "new"], wrong].concat()).status.code(), Some(2), "{wrong:?}");
    }
    let list = String::from_utf8(bigupd(&data, &["token", "list"]).stdout).unwrap();
    let lines: Vec<Vec<&str>> = list.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines.len(), 3, "{list}");
    assert_eq!((&lines[1][..6], &lines[1][7..]), (&["one", "push,read", "-", "-", "-", "-"][..], &["never", "-"][..]));
    let two = ["two", "push,read", "a/b/", "0", "B", "of", "10.0", "GiB", "-", "-"];
    assert_eq!((&lines[2][..10], &lines[2][11..]), (&two[..], &["2100-01-31T00:00:00Z", "-"][..]));
    let json: Value = serde_json::from_slice(&bigupd(&data, &["token", "list", "--json"]).stdout).unwrap();
    assert_eq!((&json["tokens"][1]["name"], &json["tokens"][1]["quota"]), (&"two".into(), &(10_u64 << 30).into()));
    assert_eq!((&json["tokens"][1]["expired"], &json["tokens"][0]["expires"]), (&false.into(), &Value::Null));
    revoke(&data, "one");
    assert_eq!(bigupd(&data, &["token", "revoke", "one"]).status.code(), Some(1));
    let missing = bigupd(&folder.path().join("nothing"), &["token", "list"]);
    assert_eq!(missing.status.code(), Some(1), "{missing:?}");
}

#[test]
fn the_list_tells_what_of_a_quota_is_used_and_when_a_token_was_used_last() {
    let mut daemon = Daemon::start();
    let used = with_token(&daemon, "used", &["--prefix", "a", "--quota", "1M", "--max-files", "9"]);
    new_token(&daemon.data(), "idle", &["--prefix", "b", "--quota", "1M"]);
    put(&used, "a/f", &[1; 100 * KIB], "").expect(200);
    used.get("file_name=a/b/u&slice_size=65536&file_size=204800").expect(200);
    // Written down once a minute, and when the daemon ends.
    daemon.stop();
    let json: Value = serde_json::from_slice(&bigupd(&daemon.data(), &["token", "list", "--json"]).stdout).unwrap();
    let (of_used, of_idle) = (&json["tokens"][0], &json["tokens"][1]);
    assert_eq!(of_used["used"], serde_json::json!({ "bytes": 300 * KIB + 4096, "files": 3 }));
    assert_eq!(of_used["max_files"], 9);
    assert!(of_used["last_used"].as_str().is_some_and(|last| last >= of_used["created"].as_str().unwrap()), "{json}");
    assert_eq!((&of_idle["used"]["bytes"], &of_idle["last_used"]), (&0.into(), &Value::Null));
    let list = String::from_utf8(bigupd(&daemon.data(), &["token", "list"]).stdout).unwrap();
    assert!(list.contains("304 KiB of 1.00 MiB") && list.contains("3 of 9"), "{list}");
    revoke(&daemon.data(), "used");
    new_token(&daemon.data(), "unused", &[]);
    let uses = std::fs::metadata(daemon.data().join("token-uses.json")).unwrap();
    assert_eq!(uses.mode() & 0o7777, 0o600);
}

#[test]
fn tokens_are_managed_on_the_data_folder_of_the_configuration_file() {
    let folder = tempfile::tempdir().unwrap();
    let (data, config) = (folder.path().join("data"), folder.path().join("bigupd.ini"));
    // A daemon with this configuration cannot start before there is a token: it is no hindrance to making one.
    std::fs::write(&config, format!("[bigupd]\ndata_dir = {}\nlisten = 0.0.0.0:0\n", data.display())).unwrap();
    let bigupd = |arguments: &[&str]| Command::new(programs::path("bigupd")).args(arguments).output().unwrap();
    assert_eq!(bigupd(&["--config", text(&config), "--check-config"]).status.code(), Some(2));
    assert!(bigupd(&["token", "new", "t", "--config", text(&config)]).status.success());
    assert!(bigupd(&["--config", text(&config), "--check-config"]).status.success());
    let mut command = Command::new(programs::path("bigupd"));
    let listed = command.args(["token", "list"]).env("BIGUP_DATA_DIR", &data).output().unwrap();
    assert!(String::from_utf8(listed.stdout).unwrap().contains("push,read"));
}

#[test]
fn the_embedded_daemon_needs_no_token_and_lets_nobody_else_in() {
    let mut daemon = Daemon::start();
    let token = new_token(&daemon.data(), "t", &[]);
    let file = data::file(&daemon.scratch(), "f", 1, 3 << 20);
    put(&daemon.server().with_token(&token), "f", b"old", "").expect(200);
    daemon.stop();
    let mut command = programs::cli();
    let arguments = ["push", text(&file), "--replace", "--slice-size", "64K", "--embedded"];
    let (done, said) = run({
        command.args(arguments).arg(daemon.data());
        command
    });
    assert!(done, "{said}");
    assert!(data::same(&file, &daemon.finished("f")));
    // Such a daemon, as the client starts it.
    let mut command = Command::new(programs::path("bigupd"));
    command.arg("--data-dir").arg(daemon.data()).args(["--listen", "127.0.0.1:0", "--until-stdin-closes"]);
    command.env("BIGUP_OWNER_TOKEN", "own").stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let server = Server::new(line.trim().strip_prefix("bigupd listening on ").unwrap());
    server.get("peek=1").expect(401);
    server.clone().with_token("other").get("peek=1").expect(401);
    server.clone().with_token(&token).get("peek=1").expect(200);
    server.with_token("own").get("peek=1").expect(200);
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
}

#[test]
fn the_example_in_the_readme_works() {
    let example = docs::block("README.md", "tests/tests/programs/tokens.rs: tokens");
    let folder = tempfile::tempdir().unwrap();
    let file = data::file(folder.path(), "disk.img", 1, 3 << 20);
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let data: PathBuf = folder.path().join("data");
    let script = example.replace("/srv/bigup", text(&data)).replace("8888", &port.to_string());
    assert!(script.contains("SERVER") && script.lines().count() == 3, "{script}");
    let script = format!("{}\nstatus=$?; kill $!; wait $!; exit $status", script.replace("SERVER", "127.0.0.1"));
    let programs = programs::path("bigupd").parent().unwrap().to_owned();
    let search = format!("{}:{}", text(&programs), std::env::var("PATH").unwrap());
    let mut command = Command::new("sh");
    command.args(["-c", &script]).current_dir(folder.path()).env("PATH", search).env_remove("BIGUP_TOKEN");
    let (done, said) = run(command);
    assert!(done, "{said}");
    assert!(data::same(&file, &data.join("files/alice/disk.img")));
}

#[test]
fn who_pushed_what_is_in_the_log_of_whoever_finished_it() {
    let mut daemon = Daemon::with(&["--merger-idle", "100ms"]);
    let alice = with_token(&daemon, "alice", &["--prefix", "alice/", "--permissions", "push,read,replace"]);
    let (small, large) = (data::bytes(1, 5), data::bytes(2, 3 << 20));
    put(&alice, "alice/small", &small, "").expect(200);
    put(&alice, "alice/small", b"other", "&replace=1").expect(200);
    let token = new_token(&daemon.data(), "bob", &["--quota", "10M"]);
    let file = data::file(&daemon.scratch(), "large", 2, 3 << 20);
    let pushed = run(push(&daemon, &token, &[text(&file), "--slice-size", "1M"]));
    assert!(pushed.0, "{}", pushed.1);
    put(&alice, "bob/x", b"x", "").expect(403);
    let quota = daemon.server().with_token(&token).get("file_name=y&slice_size=1024&file_size=104857600&source=s");
    quota.expect(413);
    let has = |parts: &[&str]| daemon.log().lines().any(|line| parts.iter().all(|part| line.contains(part)));
    let digest = |content: &[u8]| format!("file_digest={}", blake3::hash(content));
    for parts in [
        &["finished alice/small: file_size=5", &digest(&small), "token=alice", "peer=127.0.0.1", "seconds="][..],
        &["replaced alice/small: file_size=5", &digest(b"other"), "token=alice"],
        &["finished large: file_size=3145728", &digest(&large), "token=bob", "peer=127.0.0.1"],
        &["refused y: file_size=104857600", "token=bob", "reason=", "may push up to"],
    ] {
        eventually(&format!("{parts:?} is in the log"), || has(parts));
    }
    assert!(!daemon.log().contains("refused bob/x"), "what a token may not even ask for is not an upload");

    alice.get("file_name=alice/z&slice_size=1024&file_size=4096&source=s").expect(200);
    assert!(bigupd(&daemon.data(), &["cancel", "alice/z"]).status.success());
    let tmp = daemon.data().join("tmp");
    for mark in std::fs::read_dir(&tmp).unwrap().map(|entry| entry.unwrap().path()) {
        if mark.to_string_lossy().contains(".cancelled-") {
            let mark = std::fs::File::options().write(true).open(mark).unwrap();
            mark.set_modified(std::time::SystemTime::now() - std::time::Duration::from_secs(61)).unwrap();
        }
    }
    daemon.stop();
    daemon.run();
    eventually("the cancelled one is in the log", || {
        daemon.log().lines().any(|line| line.contains("cancelled alice/z: file_size=4096 token=alice peer=127.0.0.1"))
    });
}

#[test]
fn a_token_can_be_written_to_a_file_of_its_own() {
    let daemon = Daemon::start();
    let file = daemon.scratch().join("alice.token");
    assert_eq!(new_token(&daemon.data(), "alice", &["--output", text(&file)]), "", "it is shown nowhere else");
    assert_eq!(file.metadata().unwrap().mode() & 0o777, 0o600);
    let mut push = programs::cli();
    push.args(["push", "--url", daemon.url(), "--token-file", text(&file), "/etc/hostname"]);
    let (is_well, told) = run(push);
    assert!(is_well, "{told}");
    let before = std::fs::read(&file).unwrap();
    let output = bigupd(&daemon.data(), &["token", "new", "bob", "--output", text(&file)]);
    assert!(!output.status.success() && said(&output).contains("File exists"), "{output:?}");
    assert_eq!(std::fs::read(&file).unwrap(), before);
    let other = daemon.scratch().join("other.token");
    let output = bigupd(&daemon.data(), &["token", "new", "alice", "--output", text(&other)]);
    assert!(!output.status.success() && said(&output).contains("already") && !other.exists(), "{output:?}");
}
