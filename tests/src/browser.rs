//! Chromium, and a site whose pages it opens.

use crate::process::{signal, within};
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How long a browser may take to start and to run a page, on a machine with much else to do.
const PATIENCE: Duration = Duration::from_secs(240);

/// Nothing that talks to anybody else, and a profile of its own.
const OPTIONS: [&str; 12] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-extensions",
    "--disable-sync",
];

/// A site with one page. It ends with the test.
pub struct Site {
    /// Its port at 127.0.0.1.
    pub port: u16,
    told: Arc<Mutex<HashMap<String, String>>>,
}

/// What a site serves.
struct Served {
    page: String,
    /// Paths, and the files and folders that are there.
    files: Vec<(&'static str, PathBuf)>,
    heard: Arc<Mutex<HashMap<String, String>>>,
}

impl Site {
    /// Serves a page that runs `script`, in which `tell(text)` ends it.
    pub fn start(script: &str) -> Site {
        Site::serving("", script, vec![])
    }

    /// The same with HTML before the script, and with files and folders at these paths.
    pub fn serving(html: &str, script: &str, files: Vec<(&'static str, PathBuf)>) -> Site {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let port = listener.local_addr().expect("it is bound").port();
        let told = Arc::<Mutex<HashMap<String, String>>>::default();
        let tell = "const tell = text => fetch('/told' + location.search, {method: 'POST', body: text});";
        let page = format!("<!doctype html><body>{html}<script type=module>{tell}\n{script}</script>");
        let served = Arc::new(Served { page, files, heard: Arc::clone(&told) });
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let served = Arc::clone(&served);
                // Browsers open connections that they do not use.
                std::thread::spawn(move || stream.ok().and_then(|stream| serve(&stream, &served)));
            }
        });
        Site { port, told }
    }

    /// The URL of its page at `host`, a name of 127.0.0.1, with `query`.
    pub fn url(&self, host: &str, query: &str) -> String {
        format!("http://{host}:{}/?{query}", self.port)
    }

    /// What the page told that was opened at `host`, a name of 127.0.0.1, with `query`; opened by a new browser.
    ///
    /// # Panics
    /// It tells nothing for long.
    pub fn told_at(&self, host: &str, query: &str) -> String {
        let profile = Profile::new();
        let _browser = profile.open(&self.url(host, query));
        self.told(query)
    }

    /// What a page told that is open with `query`.
    ///
    /// # Panics
    /// It tells nothing for long.
    pub fn told(&self, query: &str) -> String {
        let told = || self.told.lock().unwrap_or_else(PoisonError::into_inner).remove(query);
        let mut text = None;
        within(PATIENCE, "the page has run", || {
            text = told();
            text.is_some()
        });
        text.expect("it was told")
    }
}

fn serve(stream: &TcpStream, served: &Served) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let (mut target, mut len) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if let Some(length) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            len = length.trim().parse().ok()?;
        }
        if target.is_empty() {
            target = line.split(' ').nth(1)?.to_owned();
        }
        if line.trim().is_empty() {
            break;
        }
    }
    let mut body = vec![0; len];
    reader.read_exact(&mut body).ok()?;
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    if path == "/told" {
        let text = String::from_utf8_lossy(&body).into_owned();
        served.heard.lock().unwrap_or_else(PoisonError::into_inner).insert(query.to_owned(), text);
    }
    match (path, served.file(path)) {
        ("/" | "/told", _) => respond(stream, "200 OK", "text/html", served.page.len() as u64, served.page.as_bytes()),
        (_, Some((file, len))) => respond(stream, "200 OK", kind(path), len, file),
        _ => respond(stream, "404 Not Found", "text/html", 0, io::empty()),
    }
}

impl Served {
    /// The file at a path, and its length in bytes.
    fn file(&self, path: &str) -> Option<(File, u64)> {
        let (at, file) = self.files.iter().find(|(at, _)| path.starts_with(at))?;
        let rest = path[at.len()..].trim_start_matches('/');
        let file = File::open(if rest.is_empty() { file.clone() } else { file.join(rest) }).ok()?;
        let meta = file.metadata().ok().filter(std::fs::Metadata::is_file)?;
        Some((file, meta.len()))
    }
}

/// The content type that browsers want of a path.
fn kind(path: &str) -> &'static str {
    match Path::new(path).extension().and_then(|extension| extension.to_str()) {
        Some("js" | "mjs") => "text/javascript",
        Some("json") => "application/json",
        _ => "application/octet-stream",
    }
}

fn respond(mut stream: &TcpStream, status: &str, kind: &str, len: u64, mut body: impl Read) -> Option<()> {
    let head = format!("HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len}\r\nConnection: close");
    write!(stream, "{head}\r\n\r\n").ok()?;
    io::copy(&mut body, &mut stream).ok().map(drop)
}

/// What Chromium shows of `url` once it is loaded, as HTML; with further options.
///
/// # Panics
/// Chromium cannot be started.
pub fn shown(options: &[&str], url: &str) -> String {
    let profile = Profile::new();
    let mut browser = profile.open_with(&[options, &["--dump-dom"]].concat(), url, Stdio::piped());
    let mut text = String::new();
    let mut stdout = browser.child.stdout.take().expect("it was asked for");
    stdout.read_to_string(&mut text).expect("it is text");
    text
}

/// What Chromium stores: it stays from one browser to the next one.
pub struct Profile(tempfile::TempDir);

impl Default for Profile {
    fn default() -> Profile {
        Profile::new()
    }
}

impl Profile {
    /// A new one.
    pub fn new() -> Profile {
        Profile(tempfile::tempdir().expect("a temporary folder can be made"))
    }

    /// A browser that opens `url`. There can be one at a time.
    ///
    /// # Panics
    /// Chromium cannot be started.
    pub fn open(&self, url: &str) -> Browser {
        self.open_with(&[], url, Stdio::null())
    }

    /// A browser that opens `url`, and does as it is told. It saves files in `downloads`.
    ///
    /// # Panics
    /// Chromium cannot be started, or does not respond for long.
    pub fn driven(&self, url: &str, downloads: &Path) -> Driven {
        let [requests, responses] = ["requests", "responses"].map(|name| self.0.path().join(name));
        for pipe in [&requests, &responses] {
            mkfifo(pipe, Mode::S_IRWXU).expect("a pipe can be made");
        }
        let mut command = Command::new("bash");
        // The descriptors that --remote-debugging-pipe means.
        command.args([
            "-c",
            "exec chromium --remote-debugging-pipe \"$@\" 3<\"$REQUESTS\" 4>\"$RESPONSES\"",
            "chromium",
        ]);
        command.env("REQUESTS", &requests).env("RESPONSES", &responses);
        let browser = self.started(command, &[], "about:blank", Stdio::null());
        let requests = File::options().write(true).open(&requests).expect("Chromium reads it");
        let responses = File::open(&responses).expect("Chromium writes it");
        Driven::begin(browser, requests, responses, url, downloads)
    }

    /// True if a page's local storage has this text on disk.
    pub fn remembers(&self, text: &str) -> bool {
        let Ok(files) = self.0.path().join("Default/Local Storage/leveldb").read_dir() else { return false };
        // A file may go meanwhile.
        let has = |bytes: Vec<u8>| bytes.windows(text.len()).any(|part| part == text.as_bytes());
        files.flatten().any(|file| std::fs::read(file.path()).is_ok_and(has))
    }

    fn open_with(&self, options: &[&str], url: &str, stdout: Stdio) -> Browser {
        self.started(Command::new("chromium"), options, url, stdout)
    }

    fn started(&self, mut command: Command, options: &[&str], url: &str, stdout: Stdio) -> Browser {
        let folder = self.0.path();
        command.args(OPTIONS).args(options).arg(format!("--user-data-dir={}", folder.display())).arg(url);
        command.env("HOME", folder).env("XDG_CONFIG_HOME", folder).env("XDG_CACHE_HOME", folder);
        command.stdin(Stdio::null()).stdout(stdout).stderr(Stdio::null()).process_group(0);
        let child =
            command.spawn().unwrap_or_else(|e| panic!("chromium cannot be started ({e}): tests/run installs it"));
        Browser { child }
    }
}

/// A running Chromium, ended with all of its processes on drop.
pub struct Browser {
    child: Child,
}

impl Browser {
    /// Closes it as its user does: it stores what its pages want stored.
    ///
    /// # Panics
    /// It stays for long.
    pub fn close(mut self) {
        signal(self.child.id(), Signal::SIGTERM);
        within(PATIENCE, "the browser is closed", || self.child.try_wait().is_ok_and(|ended| ended.is_some()));
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let group = nix::unistd::Pid::from_raw(self.child.id().cast_signed());
        // It may have ended by itself.
        let _ = nix::sys::signal::killpg(group, Signal::SIGKILL);
        let _ = self.child.wait();
    }
}

/// A browser that runs scripts in the page it shows, by the Chrome DevTools Protocol.
pub struct Driven {
    _browser: Browser,
    requests: File,
    responses: Receiver<Value>,
    session: Value,
    number: u64,
}

impl Driven {
    fn begin(browser: Browser, requests: File, responses: File, url: &str, downloads: &Path) -> Driven {
        let (sender, receiver) = channel();
        std::thread::spawn(move || {
            for message in BufReader::new(responses).split(0).map_while(Result::ok) {
                let message = serde_json::from_slice(&message).expect("Chromium speaks JSON");
                if sender.send(message).is_err() {
                    return;
                }
            }
        });
        let mut driven = Driven { _browser: browser, requests, responses: receiver, session: Value::Null, number: 0 };
        driven.ask("Browser.setDownloadBehavior", json!({"behavior": "allow", "downloadPath": downloads}));
        let target = driven.ask("Target.createTarget", json!({"url": url}));
        let attached = json!({"targetId": target["targetId"], "flatten": true});
        driven.session = driven.ask("Target.attachToTarget", attached)["sessionId"].clone();
        driven
    }

    /// The value of a script in the page that is shown. Null if it has none, or the page is just loading.
    ///
    /// # Panics
    /// The browser does not respond for long.
    pub fn value(&mut self, script: &str) -> Value {
        let found = self.ask("Runtime.evaluate", json!({"expression": script, "awaitPromise": true}));
        found["result"]["value"].clone()
    }

    /// Follows the link with this text, once it is there.
    ///
    /// # Panics
    /// It is not there for long.
    pub fn follow(&mut self, text: &str) {
        let find = format!("[...document.links].find(link => link.textContent === {})", json!(text));
        let click = format!("(link => {{ link?.click(); return Boolean(link); }})({find})");
        within(PATIENCE, "the link is followed", || self.value(&click) == true);
    }

    fn ask(&mut self, method: &str, params: Value) -> Value {
        self.number += 1;
        let mut message = json!({"id": self.number, "method": method, "params": params});
        if self.session.is_string() {
            message["sessionId"] = self.session.clone();
        }
        self.requests.write_all(format!("{message}\0").as_bytes()).expect("Chromium reads it");
        loop {
            let mut response = self.responses.recv_timeout(PATIENCE).expect("Chromium responds");
            if response["id"] == self.number {
                return response["result"].take();
            }
        }
    }
}
