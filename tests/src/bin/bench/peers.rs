//! Those that do the same work: bigup and what else moves files, each with its server, on this machine.
//!
//! A peer that cannot be started is absent, with the reason, and the others go on.

mod bigup;
mod curl;
mod local;
mod pages;
mod rclone;
mod rsync;
mod ssh;
mod tus;

pub use bigup::daemon as bigupd;
pub use tus::remembering as tus_remembering;

use crate::server::Server;
use anyhow::Context;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

/// Programs that an option names, in the order of tables.
pub const GROUPS: [&str; 11] =
    ["cp", "bigup", "bigup-http", "bigup-tus", "nginx", "dufs", "rsync", "scp", "rclone", "tus", "rustus"];

/// The same over TLS.
pub const OVER_TLS: [&str; 2] = ["bigup-tls", "nginx-tls"];

/// Pages in a browser, in the order of tables.
pub const PAGES: [&str; 4] = ["page", "page-put", "copyparty", "uppy"];

/// Clients of a store of objects beside rclone, in the order of tables.
pub const OF_STORE: [&str; 2] = ["s5cmd", "aws"];

/// The command that moves a file or a folder and gives it a name.
pub type Send = Box<dyn Fn(&Path, &str) -> Command + std::marker::Send + Sync>;

/// The command that fetches the file at a URL into a folder.
pub type Fetch = fn(&str, &Path) -> anyhow::Result<Command>;

/// One that moves files.
pub struct Peer {
    /// As tables name it; of one group each has its own.
    pub name: &'static str,
    /// Folder below which all is that it has stored, under final names.
    pub stored: PathBuf,
    server: Option<Arc<Server>>,
    send: Send,
    send_folder: Option<Send>,
    /// The path below which it serves what it has stored. `None`: it serves nothing by HTTP.
    content: Option<&'static str>,
}

impl Peer {
    fn new(name: &'static str, stored: PathBuf, server: Option<Arc<Server>>, send: Send) -> Peer {
        Peer { name, stored, server, send, send_folder: None, content: None }
    }

    fn with_folders(self, send_folder: Send) -> Peer {
        Peer { send_folder: Some(send_folder), ..self }
    }

    fn serving(self, content: &'static str) -> Peer {
        Peer { content: Some(content), ..self }
    }

    /// The address of a file that it has stored. `None`: it serves none by HTTP.
    pub fn content_url(&self, name: &str) -> Option<String> {
        Some(format!("{}{}{name}", self.server.as_ref()?.url(), self.content?))
    }

    /// A client that fetches what this one has stored, into the folder `fetched`, with its server. `command` gets the
    /// URL of the file and that folder; it was tried before.
    pub fn read_by(&self, name: &'static str, fetched: PathBuf, command: Fetch) -> Peer {
        let (prefix, into) = (self.content_url("").unwrap_or_default(), fetched.clone());
        let fetch = move |_: &Path, name: &str| {
            command(&format!("{prefix}{name}"), &into).expect("the program was found before")
        };
        Peer::new(name, fetched, self.server.clone(), Box::new(fetch))
    }

    /// The command that sends one file.
    pub fn send(&self, file: &Path, name: &str) -> Command {
        (self.send)(file, name)
    }

    /// The command that sends a folder. None: it sends none.
    pub fn send_folder(&self, folder: &Path, name: &str) -> Option<Command> {
        self.send_folder.as_ref().map(|send| send(folder, name))
    }

    /// Where its server listens. None: it has none.
    pub fn port(&self) -> Option<u16> {
        self.server.as_ref().map(|server| server.port)
    }

    /// First processes of its servers.
    pub fn servers(&self) -> Vec<u32> {
        self.server.iter().map(|server| server.pid()).collect()
    }
}

/// Peers that run, and why others do not.
#[derive(Default)]
pub struct Peers {
    /// Those that run.
    pub all: Vec<Peer>,
    /// Names and versions of their programs.
    pub versions: Vec<String>,
    /// Names of the others, with the reason.
    pub absent: Vec<String>,
    /// Names of those that were too slow for more than one round.
    pub once: Vec<&'static str>,
}

impl Peers {
    /// Starts these groups, each in a folder of its own below `folder`.
    pub fn start(folder: &Path, groups: &[&str]) -> Peers {
        let mut peers = Peers::default();
        for group in groups {
            match start(group, &folder.join(group)) {
                Ok((version, mut started)) => {
                    peers.versions.extend(version);
                    peers.all.append(&mut started);
                }
                Err(error) => {
                    eprintln!("{group} is absent: {error:#}");
                    peers.absent.push(format!("{group} ({error:#})"));
                }
            }
        }
        peers
    }

    /// The sentences about what is missing; nothing if nothing is.
    pub fn absence(&self) -> String {
        let once = if self.once.is_empty() {
            String::new()
        } else {
            format!(" One round only, since it takes long: {}.", self.once.join(", "))
        };
        let absent =
            if self.absent.is_empty() { String::new() } else { format!(" Absent: {}.", self.absent.join("; ")) };
        once + &absent
    }
}

/// A version, if it is worth telling, and the peers of one group.
type Started = (Option<String>, Vec<Peer>);

fn start(group: &str, folder: &Path) -> anyhow::Result<Started> {
    std::fs::create_dir_all(folder)?;
    match group {
        "cp" => local::start(folder),
        "bigup" => bigup::start(folder),
        "bigup-http" => bigup::by_put(folder),
        "bigup-tus" => bigup::by_tus(folder),
        "bigup-sync" => bigup::by_sync(folder),
        "bigup-tls" => bigup::over_tls(folder),
        "nginx" => curl::nginx(folder),
        "nginx-tls" => curl::nginx_over_tls(folder),
        "dufs" => curl::dufs(folder),
        "rsync" => rsync::start(folder),
        "scp" => ssh::start(folder),
        "rclone" => rclone::start(folder),
        "tus" => tus::node(folder),
        "rustus" => tus::rustus(folder),
        "page" => pages::own(folder),
        "page-put" => pages::put(folder),
        "copyparty" => pages::copyparty(folder),
        "uppy" => pages::uppy(folder),
        _ => anyhow::bail!("there is no such peer; there are {}", GROUPS.join(", ")),
    }
}

/// A folder that was made within another.
fn made(folder: &Path, name: &str) -> anyhow::Result<PathBuf> {
    let made = folder.join(name);
    std::fs::create_dir_all(&made)?;
    Ok(made)
}

/// Where `tests/bench` puts peers that are no packages of the system: `target/peers`.
fn peers_folder() -> anyhow::Result<PathBuf> {
    let me = std::env::current_exe()?;
    let target = me.parent().and_then(Path::parent).context("a program is in target/PROFILE")?;
    Ok(target.join("peers"))
}

/// A program of that folder, or of the system.
///
/// # Errors
/// It is not installed.
pub fn program(name: &str) -> anyhow::Result<PathBuf> {
    let own = peers_folder()?.join("bin").join(name);
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&paths).chain(["/usr/sbin".into(), "/sbin".into()]);
    let mut found = std::iter::once(own).chain(folders.map(|folder| folder.join(name)));
    found.find(|path| path.exists()).with_context(|| format!("{name} is not installed"))
}

/// A program's version: the first word with a figure and a dot of what it prints, which some do to standard error.
fn version(program: &Path, argument: &str) -> Option<String> {
    let output = Command::new(program).arg(argument).output().ok()?;
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    let words = text.split(|c: char| c.is_whitespace() || matches!(c, '/' | ','));
    let version = words.map(|word| word.trim_start_matches('v').trim_start_matches("OpenSSH_"));
    let version =
        version.into_iter().find(|word| word.starts_with(|c: char| c.is_ascii_digit()) && word.contains('.'))?;
    Some(format!("{} {version}", program.file_name()?.to_string_lossy()))
}

/// Versions of several programs, as one.
pub fn versions(programs: &[(&Path, &str)]) -> Option<String> {
    let versions: Vec<String> = programs.iter().filter_map(|(program, argument)| version(program, argument)).collect();
    Some(versions.join(", "))
}
