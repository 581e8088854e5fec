//! The command line: the commands and their arguments.
//!
//! - `push` - those of `push`, `sync` - those of `sync`; `watch` - those of `watch`; `files` - those of commands for finished files;
//!   `server` - those that tell the server, of all commands.
//!
//! It says how arguments are written. No request and no file comes in here.

use crate::cli::args::files::{CancelArgs, GetArgs, ListArgs, RemoveArgs};
use crate::cli::args::push::PushArgs;
use crate::cli::args::server::{CertificateFiles, Server, no_url, split_server};
use crate::cli::args::sync::SyncArgs;
use crate::cli::args::watch::WatchArgs;
use crate::cli::config::merge::ShownSetting;
use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;

pub mod files;
pub mod push;
pub mod server;
pub mod sync;
pub mod transfer;
pub mod watch;

const AFTER_HELP: &str = "\
Exit codes:
  0  everything is stored and verified
  1  something failed; the same command again goes on where it stopped
  2  the command line or the configuration file makes no sense
  SIGINT and SIGTERM end the program by the signal (a shell tells 130 and 143); what is stored stays
  Ctrl-C on Windows ends it with 3221225786 (0xC000013A)

Environment:
  BIGUP_URL   the server, where --url is not given
  BIGUP_CA_CERT, BIGUP_CLIENT_CERT, BIGUP_CLIENT_KEY   where --ca-cert, --client-cert, --client-key are not given
  BIGUP_TOKEN   the token, where --token-file is not given
  XDG_CONFIG_HOME   folder of bigup/config.ini, in place of ~/.config (on Windows: %APPDATA%)
  BIGUP_LOG   what to log to standard error, like debug or bigup_client=debug (default bigup_client=warn)
  SSL_CERT_FILE, SSL_CERT_DIR   the system's authorities, where they do not lie at their usual place
  http_proxy, https_proxy, all_proxy, no_proxy   the proxy and the hosts without one, as curl takes them: http://, https://,
              socks4://, socks4a://, socks5:// or socks5h://; this machine is never reached by way of a proxy";

const EXAMPLES: &str = "
  bigup-cli push disk.img   push a file under its own name to a server on this machine
  bigup-cli get disk.img   fetch it again
  bigup-cli status   what is unfinished
  bigup-cli verify disk.img   whether the server has the same";

const PUSH_EXAMPLES: &str = "
  bigup-cli push --url https://files.example.org --token-file alice.token --name alice/disk.img disk.img
  bigup-cli push a.bin b.bin --into runs/2026/   push several files into a folder of the server
  bigup-cli push lab:runs/2026/ a.bin   the same, on the server lab of the configuration file
  bigup-cli push photos videos   push two folders with all that is below them
  pg_dump db | bigup-cli push --name db.sql -   push what a program writes
  bigup-cli push --name db.sql --command -- pg_dump db   the same, and store nothing if the program fails
  bigup-cli push --embedded /srv/bigup disk.img   push into a data folder of this machine";

const SYNC_EXAMPLES: &str = "
  bigup-cli sync photos lab:backup/photos/   send what differs, and remove nothing
  bigup-cli sync --delete --dry-run photos lab:backup/photos/   show what would be sent and removed";

const WATCH_EXAMPLES: &str = "
  bigup-cli watch /data/scope --into scope/   push each file once it is complete, and keep it here
  bigup-cli watch lab:scope/ /data/scope --then delete   to the server lab, and remove what is stored there
  bigup-cli watch /data/runs --into runs/ --ready-when CopyComplete.txt --then move=/data/done   whole folders";

const STATUS_EXAMPLES: &str = "
  bigup-cli status   all unfinished uploads
  bigup-cli status --json disk.img   what the server has of one file";

const VERIFY_EXAMPLES: &str = "
  bigup-cli verify disk.img   compare with the finished file of the same name
  bigup-cli verify --name alice/disk.img disk.img   with one of another name
  bigup-cli verify photos   all that is below a folder
  bigup-cli verify --manifest run.b3   the files of a manifest, by their digests

Exit codes of verify:
  0  all are equal
  1  the server has other content of one, only a part of it, or nothing
  2  one could not be compared: it cannot be read, or the server does not answer";

const LIST_EXAMPLES: &str = "
  bigup-cli list   all finished files
  bigup-cli list lab:runs/2026/   those of a folder on the server lab";

const GET_EXAMPLES: &str = "
  bigup-cli get runs/2026/disk.img   a file, into this folder
  bigup-cli get runs/2026/disk.img copy.img   the same under another name
  bigup-cli get runs/2026/ photos/ backup/   two folders of the server, into the folder backup
  bigup-cli get --to - db.sql | psql db   a file to standard output: each byte is checked before it goes out";

const REMOVE_EXAMPLES: &str = "
  bigup-cli remove runs/2026/disk.img
  bigup-cli remove --recursive runs/2026/   all files below a folder";

const CANCEL_EXAMPLES: &str = "
  bigup-cli cancel disk.img";

const LOGIN_EXAMPLES: &str = "
  bigup-cli login https://files.example.org   the server of all commands from now on
  bigup-cli login --server lab https://lab.example.org   a server by a name: bigup-cli push lab:runs/2026/ disk.img
  bigup-cli login https://files.example.org < alice.token   a token from a file";

const CONFIG_EXAMPLES: &str = "
  bigup-cli config   the settings without a named server
  bigup-cli config --server lab   those of a server of the configuration file";

const COMPLETIONS_EXAMPLES: &str = "
  bigup-cli completions bash > ~/.local/share/bash-completion/completions/bigup-cli
  bigup-cli completions zsh > ~/.zfunc/_bigup-cli   where ~/.zfunc is in fpath
  bigup-cli completions fish > ~/.config/fish/completions/bigup-cli.fish";

/// The text below the options: the part that all commands have in common, and a command's own examples.
fn after_help(examples: &str) -> String {
    format!("{AFTER_HELP}\n\nExamples:{examples}")
}

/// bigup-cli: moves big files to a bigup server, and back.
#[derive(Parser, Debug)]
#[command(name = "bigup-cli", version, about = "Moves big files to a bigup server, and back", after_help = after_help(EXAMPLES))]
pub struct Cli {
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Push files and folders; what the server holds already is not sent again
    #[command(after_help = after_help(PUSH_EXAMPLES))]
    Push(PushArgs),
    /// Make a folder on the server the same as a local one: only what differs is sent
    #[command(after_help = after_help(SYNC_EXAMPLES))]
    Sync(SyncArgs),
    /// Push the files of a folder, each once it is complete, until a signal ends the program
    #[command(after_help = after_help(WATCH_EXAMPLES))]
    Watch(WatchArgs),
    /// Show unfinished uploads, or what the server has of one name
    #[command(after_help = after_help(STATUS_EXAMPLES))]
    Status(StatusArgs),
    /// Compare local files and folders with the finished ones on the server
    #[command(after_help = after_help(VERIFY_EXAMPLES))]
    Verify(VerifyArgs),
    /// List finished files
    #[command(after_help = after_help(LIST_EXAMPLES))]
    List(ListArgs),
    /// Fetch finished files and folders; each part is checked, and what is here already is not fetched again
    #[command(after_help = after_help(GET_EXAMPLES))]
    Get(GetArgs),
    /// Remove finished files for good
    #[command(after_help = after_help(REMOVE_EXAMPLES))]
    Remove(RemoveArgs),
    /// Cancel unfinished uploads; what the server holds of them goes
    #[command(after_help = after_help(CANCEL_EXAMPLES))]
    Cancel(CancelArgs),
    /// Store the address of a server, and a token for it that is asked for
    #[command(after_help = after_help(LOGIN_EXAMPLES))]
    Login(LoginArgs),
    /// Show the settings that count, and where each comes from; no token is shown
    #[command(after_help = after_help(CONFIG_EXAMPLES))]
    Config(ConfigArgs),
    /// Print the completions of a shell
    #[command(after_help = after_help(COMPLETIONS_EXAMPLES))]
    Completions(CompletionsArgs),
}

/// Arguments of `status`.
#[derive(Args, Debug)]
pub struct StatusArgs {
    /// Name on the server; without it all unfinished uploads
    pub name: Option<String>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub server: Server,
    /// The server's answer as one JSON object
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `verify`.
#[derive(Args, Debug)]
pub struct VerifyArgs {
    /// Local files and folders (with all that is below them)
    #[arg(value_name = "PATH", required_unless_present = "manifest")]
    pub paths: Vec<PathBuf>,
    /// Compare the files of the server with those of a manifest, as push --manifest and b3sum write them; no local file
    /// is read
    #[arg(long, value_name = "FILE", conflicts_with_all = ["paths", "name", "into"])]
    pub manifest: Option<PathBuf>,
    /// Folder on the server that all files are in [default: the folder that the token is for]
    #[arg(long, value_name = "DIR/")]
    pub into: Option<String>,
    /// Name on the server: of the one file, or in place of the one folder's name
    #[arg(long)]
    pub name: Option<String>,
    /// Follow symbolic links inside folders
    #[arg(long)]
    pub follow_symlinks: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub server: Server,
    /// Print JSON objects, one a line, one a file
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `login`.
#[derive(Args, Debug)]
pub struct LoginArgs {
    /// The server; without user and password
    pub url: String,
    /// Name for the server [default: none, it is the server of all commands]
    #[arg(long, value_name = "NAME", value_parser = server_name)]
    pub server: Option<String>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub certificates: CertificateFiles,
}

/// Arguments of `config`.
#[derive(Args, Debug)]
pub struct ConfigArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub server: Server,
    /// Print JSON objects, one a line, one a setting
    #[arg(long)]
    pub json: bool,
    /// The settings that count.
    #[arg(skip)]
    pub shown: Vec<ShownSetting>,
}

/// Arguments of `completions`.
#[derive(Args, Debug)]
pub struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    pub shell: clap_complete::Shell,
}

impl Cli {
    /// Checks that the arguments fit together.
    ///
    /// # Errors
    /// Says which do not.
    pub fn check(&self) -> Result<(), String> {
        match &self.command {
            Command::Push(args) => args.check(),
            Command::Sync(args) => args.push.check(),
            Command::Watch(args) => args.check(),
            Command::Status(args) => args.name.as_deref().map_or(Ok(()), no_url),
            Command::Get(args) => args.check(),
            Command::Verify(args) if args.name.is_some() && args.paths.len() > 1 => {
                Err("--name stands for one PATH; --into DIR/ is a folder for several".to_owned())
            }
            Command::Verify(args) => args.paths.iter().try_for_each(|path| no_url(&path.to_string_lossy())),
            _ => Ok(()),
        }
    }
}

impl Command {
    /// True if settings of the configuration file count.
    pub fn has_settings(&self) -> bool {
        !matches!(self, Command::Login(_) | Command::Completions(_))
    }

    /// True if the command line says where on the server files are, so that no folder of the settings counts.
    pub fn has_place(&self) -> bool {
        match self {
            Command::Push(args) => args.name.is_some() || args.into.is_some(),
            Command::Watch(args) => args.push.into.is_some(),
            Command::Verify(args) => args.name.is_some() || args.into.is_some(),
            Command::Sync(_) => true,
            _ => false,
        }
    }

    /// The server that the command line names, by `--server` or before a name on it, which is cut off. `is_known` knows
    /// the servers of the configuration file. `None`: it names none.
    ///
    /// # Errors
    /// It names two.
    pub fn take_server(&mut self, is_known: &dyn Fn(&str) -> bool) -> Result<Option<String>, String> {
        let taken = match self {
            Command::Push(args) => args.take_server(is_known)?,
            Command::Sync(args) => args.take_server(is_known)?,
            Command::Watch(args) => args.push.take_server(is_known)?,
            Command::Status(args) => args.name.as_mut().and_then(|name| cut_server(name, is_known)),
            Command::List(args) => args.prefix.as_mut().and_then(|name| cut_server(name, is_known)),
            Command::Get(args) => {
                args.take_destination();
                cut_servers(&mut args.names, is_known)?
            }
            Command::Remove(args) => cut_servers(&mut args.names, is_known)?,
            Command::Cancel(args) => cut_servers(&mut args.names, is_known)?,
            Command::Verify(_) | Command::Login(_) | Command::Config(_) | Command::Completions(_) => None,
        };
        match (self.server().and_then(|server| server.server.clone()), taken) {
            (Some(given), Some(taken)) if given != taken => {
                Err(format!("--server {given} and {taken}: stand for two servers: leave one out"))
            }
            (given, taken) => Ok(given.or(taken)),
        }
    }

    fn server(&self) -> Option<&Server> {
        match self {
            Command::Push(args) => Some(&args.server),
            Command::Sync(args) => Some(&args.push.server),
            Command::Watch(args) => Some(&args.push.server),
            Command::Status(args) => Some(&args.server),
            Command::Verify(args) => Some(&args.server),
            Command::List(args) => Some(&args.server),
            Command::Get(args) => Some(&args.server),
            Command::Remove(args) => Some(&args.server),
            Command::Cancel(args) => Some(&args.server),
            Command::Config(args) => Some(&args.server),
            Command::Login(_) | Command::Completions(_) => None,
        }
    }
}

/// Cuts the server off a name on it.
fn cut_server(name: &mut String, is_known: &dyn Fn(&str) -> bool) -> Option<String> {
    let (server, rest) = split_server(name, is_known).map(|(server, rest)| (server.to_owned(), rest.to_owned()))?;
    *name = rest;
    Some(server)
}

/// Cuts the server off several names, which must all be on the same one.
fn cut_servers(names: &mut [String], is_known: &dyn Fn(&str) -> bool) -> Result<Option<String>, String> {
    let servers: Vec<Option<String>> = names.iter_mut().map(|name| cut_server(name, is_known)).collect();
    let first = servers.first().cloned().flatten();
    match servers.iter().find(|server| **server != first) {
        None => Ok(first),
        Some(_) => Err("all names must be on one server: give it before each of them, or by --server".to_owned()),
    }
}

fn server_name(text: &str) -> Result<String, String> {
    let is_name = text.len() > 1 && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    if !is_name || text.starts_with('.') {
        return Err("it has at least two letters, digits, hyphens, underscores or dots, and no dot first".to_owned());
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_server_stands_before_a_name_on_it() {
        let taken = |arguments: &[&str]| {
            let mut cli = Cli::try_parse_from([&["bigup-cli"], arguments].concat()).unwrap();
            let server = cli.command.take_server(&|name| name == "lab")?;
            Ok::<_, String>((server, cli.command))
        };
        let push = |arguments: &[&str]| match taken(&[&["push"], arguments].concat())? {
            (server, Command::Push(args)) => Ok::<_, String>((server, args.paths, args.into, args.name)),
            other => panic!("{other:?}"),
        };
        let (lab, a) = (Some("lab".to_owned()), vec![PathBuf::from("a")]);
        assert_eq!(push(&["lab:x/", "a"]), Ok((lab.clone(), a.clone(), Some("x/".to_owned()), None)));
        assert_eq!(push(&["lab:x", "a"]), Ok((lab.clone(), a.clone(), None, Some("x".to_owned()))));
        assert_eq!(push(&["lab:", "a"]), Ok((lab.clone(), a.clone(), None, None)));
        assert_eq!(push(&["a", "--server", "lab"]), Ok((lab.clone(), a, None, None)));
        for path in ["./lab:x", "bal:x", "C:x"] {
            assert_eq!(push(&[path]), Ok((None, vec![PathBuf::from(path)], None, None)));
        }
        assert!(push(&["lab:x/"]).unwrap_err().contains("which files"));
        assert!(push(&["lab:x/", "a", "--into", "y/"]).unwrap_err().contains("--into y/"));
        assert!(push(&["lab:x/", "a", "--server", "bal"]).unwrap_err().contains("two servers"));
        let (server, command) = taken(&["status", "lab:x"]).unwrap();
        assert!(server == lab && matches!(command, Command::Status(args) if args.name.as_deref() == Some("x")));
    }
}
