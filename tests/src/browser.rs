//! Chromium, and a site whose pages it opens.

use crate::process::within;
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
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

impl Site {
    /// Serves a page that runs `script`, in which `tell(text)` ends it.
    pub fn start(script: &str) -> Site {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let port = listener.local_addr().expect("it is bound").port();
        let told = Arc::<Mutex<HashMap<String, String>>>::default();
        let tell = "const tell = text => fetch('/told' + location.search, {method: 'POST', body: text});";
        let page = format!("<!doctype html><body><script type=module>{tell}\n{script}</script>");
        let heard = Arc::clone(&told);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (page, heard) = (page.clone(), Arc::clone(&heard));
                // Browsers open connections that they do not use.
                std::thread::spawn(move || stream.ok().and_then(|stream| serve(&stream, &page, &heard)));
            }
        });
        Site { port, told }
    }

    /// What the page told that was opened at `host`, a name of 127.0.0.1, with `query`; opened by a new browser.
    ///
    /// # Panics
    /// It tells nothing for long.
    pub fn told_at(&self, host: &str, query: &str) -> String {
        let url = format!("http://{host}:{}/?{query}", self.port);
        let _browser = Browser::open(&[], &url, Stdio::null());
        let told = || self.told.lock().unwrap_or_else(PoisonError::into_inner).remove(query);
        let mut text = None;
        within(PATIENCE, "the page has run", || {
            text = told();
            text.is_some()
        });
        text.expect("it was told")
    }
}

fn serve(stream: &TcpStream, page: &str, heard: &Mutex<HashMap<String, String>>) -> Option<()> {
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
        heard.lock().unwrap_or_else(PoisonError::into_inner).insert(query.to_owned(), text);
    }
    let status = if matches!(path, "/" | "/told") { "200 OK" } else { "404 Not Found" };
    let mut writer = stream;
    let length = page.len();
    let head = format!("HTTP/1.1 {status}\r\nContent-Type: text/html\r\nContent-Length: {length}\r\nConnection: close");
    write!(writer, "{head}\r\n\r\n{page}").ok()
}

/// What Chromium shows of `url` once it is loaded, as HTML; with further options.
///
/// # Panics
/// Chromium cannot be started.
pub fn shown(options: &[&str], url: &str) -> String {
    let mut browser = Browser::open(&[options, &["--dump-dom"]].concat(), url, Stdio::piped());
    let mut text = String::new();
    let mut stdout = browser.child.stdout.take().expect("it was asked for");
    stdout.read_to_string(&mut text).expect("it is text");
    text
}

/// A running Chromium, ended with all of its processes on drop.
struct Browser {
    child: Child,
    _profile: tempfile::TempDir,
}

impl Browser {
    fn open(options: &[&str], url: &str, stdout: Stdio) -> Browser {
        let profile = tempfile::tempdir().expect("a temporary folder can be made");
        let mut command = Command::new("chromium");
        command.args(OPTIONS).args(options).arg(format!("--user-data-dir={}", profile.path().display())).arg(url);
        command
            .env("HOME", profile.path())
            .env("XDG_CONFIG_HOME", profile.path())
            .env("XDG_CACHE_HOME", profile.path());
        command.stdin(Stdio::null()).stdout(stdout).stderr(Stdio::null()).process_group(0);
        let child =
            command.spawn().unwrap_or_else(|e| panic!("chromium cannot be started ({e}): tests/run installs it"));
        Browser { child, _profile: profile }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let group = nix::unistd::Pid::from_raw(self.child.id().cast_signed());
        // It may have ended by itself.
        let _ = nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGKILL);
        let _ = self.child.wait();
    }
}
