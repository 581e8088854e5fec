//! A `bigupd` of its own for a test, with a data folder that goes when the test ends, and its log shown when it fails.

use crate::process::{PATIENCE, eventually, kill_9, signal, within};
use crate::{http, http::Server, programs};
use nix::sys::signal::Signal;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Time between two looks of a daemon for what processes that died left.
const SWEEP: Duration = Duration::from_secs(60);

/// A data folder and the daemon on it.
pub struct Daemon {
    folder: Arc<tempfile::TempDir>,
    data: PathBuf,
    /// What starts it, before its own command line; mostly nothing.
    launcher: Vec<String>,
    arguments: Vec<String>,
    listen: String,
    running: Option<Child>,
    url: String,
}

impl Daemon {
    /// Starts a daemon on a new data folder.
    pub fn start() -> Daemon {
        Daemon::with(&[])
    }

    /// Starts a daemon with further arguments on a new data folder.
    pub fn with(arguments: &[&str]) -> Daemon {
        Daemon::in_folder(tempfile::tempdir().expect("a temporary folder can be made"), arguments)
    }

    /// Starts a daemon whose data folder is `data` in `folder`.
    pub fn in_folder(folder: tempfile::TempDir, arguments: &[&str]) -> Daemon {
        let data = folder.path().join("data");
        Daemon::on(Arc::new(folder), data, vec![], owned(arguments))
    }

    /// Starts a daemon whose data folder is `data`, on another file system maybe; its log lies elsewhere. That folder is
    /// the caller's to remove.
    pub fn with_data(data: &Path, arguments: &[&str]) -> Daemon {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        Daemon::on(Arc::new(folder), data.to_owned(), vec![], owned(arguments))
    }

    /// The same by the command line `launcher`, which ends by executing the one that follows it.
    pub fn launched(launcher: Vec<String>, data: &Path, arguments: &[&str]) -> Daemon {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        Daemon::on(Arc::new(folder), data.to_owned(), launcher, owned(arguments))
    }

    /// The same, listening at `listen`, like `10.0.0.1:0`, which is mostly no address of this machine's own.
    pub fn launched_at(listen: &str, launcher: Vec<String>, data: &Path, arguments: &[&str]) -> Daemon {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        Daemon::listening(listen, Arc::new(folder), data.to_owned(), launcher, owned(arguments))
    }

    /// Starts one more daemon with the same arguments on the same data folder, at an address of its own. The folder goes
    /// with the last of them.
    pub fn another(&self) -> Daemon {
        Daemon::on(Arc::clone(&self.folder), self.data.clone(), self.launcher.clone(), self.arguments.clone())
    }

    fn on(folder: Arc<tempfile::TempDir>, data: PathBuf, launcher: Vec<String>, arguments: Vec<String>) -> Daemon {
        Daemon::listening("127.0.0.1:0", folder, data, launcher, arguments)
    }

    fn listening(
        listen: &str,
        folder: Arc<tempfile::TempDir>,
        data: PathBuf,
        launcher: Vec<String>,
        arguments: Vec<String>,
    ) -> Daemon {
        let listen = listen.to_owned();
        let mut daemon = Daemon { folder, data, launcher, arguments, listen, running: None, url: String::new() };
        daemon.run();
        daemon
    }

    /// Starts the daemon again, at the address it had.
    ///
    /// # Panics
    /// It runs, or does not start.
    pub fn run(&mut self) {
        assert!(self.running.is_none(), "the daemon runs already");
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut child = self.command().spawn().expect("bigupd can be started");
            let stdout = child.stdout.take().expect("it was asked for");
            let mut line = String::new();
            BufReader::new(stdout).read_line(&mut line).expect("it can be read");
            if let Some(url) = line.trim().strip_prefix("bigupd listening on ") {
                self.url = url.to_owned();
                self.listen = http::address(url).to_owned();
                self.running = Some(child);
                return;
            }
            // The old address may be taken for a moment longer.
            let ended = child.wait().expect("it was started");
            assert!(Instant::now() < deadline, "bigupd ended with {ended}:\n{}", self.log());
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }

    fn command(&self) -> Command {
        let log = File::options().create(true).append(true).open(self.log_path()).expect("the log can be opened");
        let program = programs::path("bigupd");
        let mut command = match self.launcher.split_first() {
            None => Command::new(program),
            Some((launcher, rest)) => {
                let mut command = Command::new(launcher);
                command.args(rest).arg(program);
                command
            }
        };
        command.arg("--data-dir").arg(self.data()).args(["--listen", &self.listen]).args(&self.arguments);
        command.env("BIGUP_LOG", "debug").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        command
    }

    /// Where it listens, like `http://127.0.0.1:1234`, or https:// with TLS.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Its endpoint, for plain requests.
    pub fn server(&self) -> Server {
        Server::new(&self.url)
    }

    /// Its endpoint by TLS, for plain requests that trust the authorities in `ca`.
    pub fn server_trusting(&self, ca: &Path) -> Server {
        Server::trusting(&self.url, ca)
    }

    /// The data folder.
    pub fn data(&self) -> PathBuf {
        self.data.clone()
    }

    /// A folder beside the data folder, for the test's own files.
    pub fn scratch(&self) -> PathBuf {
        let scratch = self.folder.path().join("scratch");
        std::fs::create_dir_all(&scratch).expect("the folder can be made");
        scratch
    }

    /// Where the finished file `name` is.
    pub fn finished(&self, name: &str) -> PathBuf {
        self.data().join("files").join(name)
    }

    /// The text of info.ini; empty if there is none.
    pub fn info_ini(&self) -> String {
        std::fs::read_to_string(self.data().join("info.ini")).unwrap_or_default()
    }

    /// The value of a key in a section of info.ini.
    pub fn info(&self, section: &str, key: &str) -> Option<String> {
        let text = self.info_ini();
        let mut lines = text.lines().skip_while(|line| *line != format!("[{section}]")).skip(1);
        let line = lines
            .by_ref()
            .take_while(|line| !line.starts_with('['))
            .find(|line| line.starts_with(&format!("{key} = ")))?;
        Some(line[key.len() + 3..].to_owned())
    }

    /// Whether a slice of the upload of `name`, which needs no encoding, is arriving.
    pub fn spool_has_part(&self, name: &str) -> bool {
        list(&self.data().join("tmp").join(name)).iter().any(|entry| entry.ends_with(".part"))
    }

    /// What is in `tmp/`, but for the marks of finished files, which stay there for a while.
    pub fn spools(&self) -> Vec<String> {
        list(&self.data().join("tmp")).into_iter().filter(|name| !name.contains(".finished-")).collect()
    }

    /// What it and its mergers logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    fn log_path(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.running.as_ref().expect("the daemon runs").id()
    }

    /// Ends it as a crash would. Mergers go on.
    pub fn kill_9(&mut self) {
        kill_9(self.running.as_mut().expect("the daemon runs"));
        self.running = None;
    }

    /// Ends it by a signal that it does not handle, or not any more.
    pub fn kill_by(&mut self, what: Signal) {
        signal(self.pid(), what);
        let mut child = self.running.take().expect("the daemon runs");
        eventually("bigupd ends by the signal", || child.try_wait().expect("it was started").is_some());
    }

    /// Ends it by SIGTERM.
    ///
    /// # Panics
    /// It does not end, or not with exit code 0.
    pub fn stop(&mut self) {
        signal(self.pid(), Signal::SIGTERM);
        self.ended_well();
    }

    /// Waits for its end, after it was told to stop.
    ///
    /// # Panics
    /// It does not end, or not with exit code 0.
    pub fn ended_well(&mut self) {
        let mut child = self.running.take().expect("the daemon runs");
        let mut ended = None;
        eventually("bigupd ends after SIGTERM", || {
            ended = child.try_wait().expect("it was started");
            ended.is_some()
        });
        assert!(ended.expect("it ended").success(), "bigupd ended with {ended:?}:\n{}", self.log());
    }

    /// Waits until nothing is left of any upload: no spool, no section.
    pub fn eventually_clean(&self) {
        // A kill leaves hidden folders. The sweep a minute after the start removes them, the one at the start finds them too young.
        within(SWEEP + PATIENCE, "the spools are gone", || self.spools().is_empty());
        eventually("info.ini has no section", || !self.info_ini().contains('['));
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(child) = &mut self.running {
            kill_9(child);
        }
        if std::thread::panicking() {
            eprintln!("--- log of bigupd and its mergers\n{}---", self.log());
        }
        // Mergers leave by themselves once their spool is gone.
    }
}

fn owned(arguments: &[&str]) -> Vec<String> {
    arguments.iter().map(|a| (*a).to_owned()).collect()
}

/// Names of what is in a folder, sorted.
pub fn list(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}
