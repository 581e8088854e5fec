//! Web pages of others, in a browser on a machine that reaches the daemon: nothing is written, replaced, begun or told by
//! them where no token counts. And pages that may call, by the headers of CORS.

use bigup_tests::browser::{Site, shown};
use bigup_tests::daemon::{Daemon, list};
use bigup_tests::http::{self, Answer, connect, read_answer};
use bigup_tests::process::eventually;
use bigup_tests::{docs, programs};
use serde_json::Value;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output};

const LIST: &str = "GET /big_file_upload?peek=1";
const SLICE: &str = "slice_id=0&slice_num=1&slice_size=5";

/// What browsers send for a page of somebody else.
const FOREIGN: [&str; 8] = [
    "Origin: http://evil.example",
    "Origin: null",
    "Sec-Fetch-Site: cross-site",
    "Sec-Fetch-Site: same-site",
    "Referer: http://evil.example/page",
    "Host: rebound.evil.example",
    "Host: rebound.evil.example:8888",
    "Host: 127.0.0.1.evil.example\r\nOrigin: http://127.0.0.1.evil.example",
];

/// The answer to a request by hand: `line` without its version, whole `headers`, and a body.
fn ask(url: &str, line: &str, headers: &[&str], body: &str) -> (Answer, String) {
    let host = if headers.iter().any(|header| header.starts_with("Host:")) { "" } else { "Host: localhost\r\n" };
    let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    let mut stream = connect(url);
    let length = body.len();
    let request =
        format!("{line} HTTP/1.1\r\n{host}{headers}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}");
    stream.write_all(request.as_bytes()).unwrap();
    let text = read_answer(&mut stream);
    (Answer::parse(&text), text.split_once("\r\n\r\n").map_or(String::new(), |(head, _)| head.to_ascii_lowercase()))
}

fn token(data: &Path, name: &str) -> String {
    let mut command = Command::new(programs::path("bigupd"));
    let output = command.args(["token", "new", name, "--data-dir"]).arg(data).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// All that a page of others may try is refused, and nothing has come of it.
fn assert_closed_to_pages(daemon: &Daemon, headers: &[&str]) {
    let before = (list(&daemon.data().join("files")), daemon.spools());
    let form = "--XX\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\nowned\r\n--XX--\r\n";
    let with = |more: &'static str| [headers, &[more]].concat();
    for (line, headers, body) in [
        (LIST.to_owned(), headers.to_vec(), ""),
        ("GET /metrics".to_owned(), headers.to_vec(), ""),
        ("GET /big_file_upload?file_name=begun&slice_num=2".to_owned(), headers.to_vec(), ""),
        ("GET /big_file_upload?file_name=empty&slice_num=0".to_owned(), headers.to_vec(), ""),
        (format!("POST /big_file_upload?file_name=written&{SLICE}"), with("Content-Type: text/plain"), "owned"),
        (
            format!("POST /big_file_upload?file_name=form&{SLICE}"),
            with("Content-Type: multipart/form-data; boundary=XX"),
            form,
        ),
        (format!("POST /big_file_upload?file_name=target&{SLICE}&replace=1"), headers.to_vec(), "owned"),
    ] {
        let (answer, _) = ask(daemon.url(), &line, &headers, body);
        assert_eq!(
            (answer.status, &answer.body["error"]),
            (403, &"forbidden".into()),
            "{line} {headers:?}: {answer:?}"
        );
        let says = if headers[0].starts_with("Host:") { "allowed_hosts" } else { "allowed_origins" };
        assert!(answer.message().contains(says), "{answer:?}");
    }
    assert_eq!((list(&daemon.data().join("files")), daemon.spools()), before, "{headers:?}");
    assert_eq!(std::fs::read(daemon.finished("target")).unwrap(), b"right");
}

fn put_target(daemon: &Daemon, headers: &[&str]) {
    let (answer, _) = ask(daemon.url(), &format!("POST /big_file_upload?file_name=target&{SLICE}"), headers, "right");
    assert_eq!(answer.status, 200, "{answer:?}");
    eventually("the file is there", || daemon.finished("target").exists());
}

#[test]
fn pages_of_others_are_refused_without_tokens() {
    let daemon = Daemon::start();
    put_target(&daemon, &[]);
    for foreign in FOREIGN {
        assert_closed_to_pages(&daemon, &[foreign]);
        // Without tokens one shows nothing.
        assert_closed_to_pages(&daemon, &[foreign, "Authorization: Bearer x"]);
    }
    let own = format!("Host: {}", http::address(daemon.url()));
    let own_page = format!("Origin: {}", daemon.url());
    for headers in
        [&[own.as_str()][..], &[&own, &own_page], &["Sec-Fetch-Site: none"], &["Sec-Fetch-Site: same-origin"]]
    {
        assert_eq!(ask(daemon.url(), LIST, headers, "").0.status, 200, "{headers:?}");
    }
    // A link in a letter.
    let link = "GET /big_file_upload?file_name=linked&slice_num=0";
    assert!(ask(daemon.url(), link, &["Sec-Fetch-Site: none"], "").0.expect(403).message().contains("peek=1"));
    assert!(ask(daemon.url(), &format!("{LIST}&slice_num=0"), &["Sec-Fetch-Site: none"], "").0.status == 403);
    assert_eq!(list(&daemon.data().join("files")), ["target"]);
    // Whether it is well is no secret.
    assert!(ask(daemon.url(), "GET /healthz", &[FOREIGN[0]], "").1.starts_with("http/1.1 200"));
    // A browser that tells nothing of the page may look, as for an address that somebody typed.
    let firefox = "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0";
    assert_eq!(ask(daemon.url(), LIST, &[firefox], "").0.status, 200);
    let begin = "GET /big_file_upload?file_name=hidden&slice_num=2";
    assert!(ask(daemon.url(), begin, &[firefox], "").0.expect(403).message().contains("Referer"));
    assert!(daemon.spools().is_empty());
}

#[test]
fn pages_of_others_are_refused_where_anybody_may_push_and_tokens_pass() {
    let daemon = Daemon::with(&["--allow-anonymous", "yes"]);
    put_target(&daemon, &[]);
    let secret = format!("Authorization: Bearer {}", token(&daemon.data(), "app"));
    for foreign in FOREIGN {
        let (answer, _) = ask(daemon.url(), LIST, &[foreign], "");
        assert_eq!(answer.status, 403, "{answer:?}");
        assert_eq!(ask(daemon.url(), LIST, &[foreign, &secret], "").0.status, 200, "{foreign}");
    }
    let (answer, _) = ask(daemon.url(), &format!("POST /big_file_upload?file_name=x&{SLICE}"), &[FOREIGN[2]], "owned");
    assert_eq!(answer.status, 403, "{answer:?}");
    assert!(!daemon.finished("x").exists());
}

#[test]
fn what_a_refusal_advises_lets_pass() {
    let named = "Host: files.example.org";
    let refused = ask(Daemon::start().url(), LIST, &[named], "").0.expect(403);
    assert!(refused.message().contains("Add files.example.org to allowed_hosts"), "{refused:?}");
    let page = "Origin: https://app.example.org";
    let refused = ask(Daemon::start().url(), LIST, &[page], "").0.expect(403);
    assert!(refused.message().contains("https://app.example.org") && refused.message().contains("allowed_origins"));
    // As docs/http.md sets it.
    let ini = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(ini.path(), docs::block("docs/http.md", "tests/tests/programs/pages.rs: bigupd")).unwrap();
    let daemon = Daemon::with(&["--config", ini.path().to_str().unwrap()]);
    for headers in
        [&[named][..], &[page], &[named, page, "Sec-Fetch-Site: cross-site"], &["Origin: http://localhost:3000"]]
    {
        assert_eq!(ask(daemon.url(), LIST, headers, "").0.status, 200, "{headers:?}");
    }
    assert_closed_to_pages_that_are_not_listed(&daemon);
}

fn assert_closed_to_pages_that_are_not_listed(daemon: &Daemon) {
    put_target(daemon, &[]);
    for foreign in FOREIGN {
        assert_closed_to_pages(daemon, &[foreign]);
    }
}

#[test]
fn metrics_at_an_address_of_their_own_are_for_no_page_either() {
    let daemon = Daemon::with(&["--metrics-listen", "127.0.0.1:0"]);
    let log = daemon.log();
    let url = log.split("metrics on ").nth(1).and_then(|rest| rest.split("/metrics").next()).expect("it is told");
    assert!(ask(url, "GET /metrics", &[], "").1.starts_with("http/1.1 200"));
    for foreign in FOREIGN {
        assert!(ask(url, "GET /metrics", &[foreign], "").1.starts_with("http/1.1 403"), "{foreign}");
        assert!(ask(url, "GET /healthz", &[foreign], "").1.starts_with("http/1.1 200"), "{foreign}");
    }
}

#[test]
fn a_page_that_may_call_gets_to_read_every_answer() {
    let daemon = Daemon::with(&["--allowed-origins", "https://app.example.org"]);
    let page = "Origin: https://app.example.org";
    let preflight = "Access-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: content-digest";
    let (_, head) = ask(daemon.url(), "OPTIONS /big_file_upload", &[page, preflight], "");
    for line in [
        "http/1.1 204",
        "access-control-allow-origin: https://app.example.org",
        "access-control-allow-methods: get, post, delete, options",
        "access-control-allow-headers: authorization, content-digest, content-type",
        "access-control-max-age: 7200",
        "vary: origin",
    ] {
        assert!(head.contains(line), "{line}: {head}");
    }
    for (line, status) in [
        (LIST, 200),
        ("GET /big_file_upload?peek=1&file_name=x", 404),
        ("GET /big_file_upload?file_name=..", 400),
        ("PUT /big_file_upload", 405),
        ("GET /nowhere", 404),
    ] {
        let (answer, head) = ask(daemon.url(), line, &[page], "");
        assert_eq!(answer.status, status, "{line}");
        assert!(head.contains("access-control-allow-origin: https://app.example.org\r\n"), "{line}: {head}");
        assert!(head.contains("access-control-expose-headers: allow, retry-after, www-authenticate"), "{line}: {head}");
        assert!(!head.contains("allow-credentials"), "{head}");
        // Others must not get that answer from a cache.
        let (_, head) = ask(daemon.url(), line, &["Origin: https://evil.example"], "");
        assert!(!head.contains("access-control-") && head.contains("vary: origin"), "{line}: {head}");
    }
    let (answer, head) =
        ask(daemon.url(), "OPTIONS /big_file_upload", &["Origin: https://evil.example", preflight], "");
    assert!(answer.status == 403 && !head.contains("access-control-"), "{head}");
}

fn start_with(data: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(programs::path("bigupd"));
    command.args(["--check-config", "--data-dir"]).arg(data).args(arguments).output().unwrap()
}

#[test]
fn all_pages_may_call_only_where_each_request_needs_a_token() {
    let folder = tempfile::tempdir().unwrap();
    let any = ["--allowed-origins", "*"];
    let refused = start_with(folder.path(), &any);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(2), "{said}");
    assert!(said.contains("bigupd token new NAME") && said.contains("allow_anonymous"), "{said}");
    let secret = token(folder.path(), "app");
    assert!(start_with(folder.path(), &any).status.success());
    assert_eq!(start_with(folder.path(), &[&any[..], &["--allow-anonymous", "yes"]].concat()).status.code(), Some(2));
    let daemon = Daemon::with_data(folder.path(), &any);
    let page = "Origin: https://any.example";
    let (answer, head) = ask(daemon.url(), LIST, &[page, &format!("Authorization: Bearer {secret}")], "");
    assert!(answer.status == 200 && head.contains("access-control-allow-origin: *"), "{head}");
    let (answer, head) = ask(daemon.url(), LIST, &[page], "");
    assert!(answer.status == 401 && head.contains("access-control-allow-origin: *"), "{head}");
    // The tokens are gone, by somebody's mistake: then nobody's page may call.
    std::fs::remove_file(folder.path().join("tokens.json")).unwrap();
    eventually("the daemon has seen it", || ask(daemon.url(), LIST, &[], "").0.status == 200);
    assert_eq!(ask(daemon.url(), LIST, &[page], "").0.status, 403);
}

/// What a page tries; each answers the status that it could read, or `refused` where the browser shows it nothing.
const ATTACK: &str = r#"
const query = new URLSearchParams(location.search), at = query.get("at") + "/big_file_upload";
const slice = name => at + "?slice_id=0&slice_num=1&slice_size=5&file_name=" + name;
const tried = {}, attempt = async (name, work) => {
    try { tried[name] = await work(); } catch { tried[name] = "refused"; }
};
const token = query.get("token"), authorization = token ? {Authorization: "Bearer " + token} : {};
await attempt("read", async () => (await fetch(at + "?peek=1", {headers: authorization})).status);
await attempt("write", async () => (await fetch(slice("write"), {method: "POST", mode: "no-cors", body: "owned"})).type);
await attempt("replace", async () =>
    (await fetch(slice("target") + "&replace=1", {method: "POST", mode: "no-cors", body: "owned"})).type);
await attempt("begin", async () => (await fetch(at + "?file_name=begin&slice_num=2", {mode: "no-cors"})).type);
await attempt("preflighted", async () => {
    const digest = "sha-256=:" + btoa(String.fromCharCode(...new Uint8Array(
        await crypto.subtle.digest("SHA-256", new TextEncoder().encode("owned"))))) + ":";
    const headers = {...authorization, "Content-Digest": digest, "Content-Type": "application/octet-stream"};
    return (await fetch(slice("preflighted"), {method: "POST", headers, body: "owned"})).status;
});
await attempt("img", () => new Promise(done => {
    const img = new Image();
    img.onload = img.onerror = () => done("sent");
    img.src = at + "?file_name=img&slice_num=2";
}));
await attempt("form", () => new Promise(done => {
    document.body.insertAdjacentHTML("beforeend", `<iframe name=f></iframe>
        <form target=f method=post enctype="multipart/form-data" action="${slice("form")}"><input name=a value=owned></form>`);
    document.querySelector("iframe").onload = () => done("sent");
    document.querySelector("form").submit();
}));
tell(JSON.stringify(tried));
"#;

fn tried(site: &Site, host: &str, daemon: &Daemon, more: &str) -> Value {
    serde_json::from_str(&site.told_at(host, &format!("at={}{more}", daemon.url()))).unwrap()
}

#[test]
fn a_page_in_chromium_changes_nothing_and_learns_nothing() {
    let site = Site::start(ATTACK);
    let daemon = Daemon::start();
    put_target(&daemon, &[]);
    // `localhost` is another site than 127.0.0.1; another port of it is the same site and another origin.
    for host in ["localhost", "127.0.0.1"] {
        let tried = tried(&site, host, &daemon, "");
        for (what, is) in [("read", "refused"), ("preflighted", "refused"), ("img", "sent"), ("form", "sent")] {
            assert_eq!(tried[what], is, "{host}: {tried}");
        }
        assert_eq!(
            (list(&daemon.data().join("files")), daemon.spools()),
            (vec!["target".to_owned()], vec![]),
            "{tried}"
        );
        assert_eq!(std::fs::read(daemon.finished("target")).unwrap(), b"right");
    }
    // A page whose own name stands for the daemon's address now.
    let rebound = format!(
        "http://rebound.evil.example:{}/big_file_upload?peek=1",
        http::address(daemon.url()).split(':').next_back().unwrap()
    );
    let text = shown(&["--host-resolver-rules=MAP rebound.evil.example 127.0.0.1"], &rebound);
    assert!(text.contains("does not know rebound.evil.example as its own name"), "{text}");
    // An address that somebody typed.
    let text = shown(&[], &format!("{}/big_file_upload?peek=1", daemon.url()));
    assert!(text.contains("\"uploads\""), "{text}");
}

#[test]
fn a_page_in_chromium_that_may_call_pushes_and_reads() {
    let site = Site::start(ATTACK);
    let daemon = Daemon::with(&["--allowed-origins", &format!("http://localhost:{}", site.port)]);
    let tried_by_page = tried(&site, "localhost", &daemon, "");
    assert_eq!((&tried_by_page["read"], &tried_by_page["preflighted"]), (&200.into(), &200.into()), "{tried_by_page}");
    assert_eq!(std::fs::read(daemon.finished("preflighted")).unwrap(), b"owned");
    assert!(daemon.finished("write").exists(), "{tried_by_page}");
    // Nothing tells which page that was.
    assert!(!daemon.spools().contains(&"img".to_owned()), "{tried_by_page}");
    let folder = tempfile::tempdir().unwrap();
    let secret = token(folder.path(), "app");
    let daemon = Daemon::with_data(folder.path(), &["--allowed-origins", "*"]);
    let tried_by_page = tried(&site, "localhost", &daemon, &format!("&token={secret}"));
    assert_eq!((&tried_by_page["read"], &tried_by_page["preflighted"]), (&200.into(), &200.into()), "{tried_by_page}");
    assert_eq!(list(&daemon.data().join("files")), ["preflighted"]);
}
