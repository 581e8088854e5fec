//! The options of `push`.

use crate::cli::args::server::{Server, no_url, split_server};
use crate::cli::args::transfer::Transfer;
use crate::cli::filter::Filter;
use crate::cli::inputs::{InputOptions, is_stdin};
use crate::client::retry::{self, RetryPolicy};
use crate::upload::keep::Keep;
use bigup_core::protocol::units::parse_size;
use clap::{Args, ValueEnum};
use std::path::PathBuf;

/// Smallest slice, in bytes: a BLAKE3 chunk, below which slices are no subtrees and requests are all overhead.
const MIN_SLICE_SIZE: u64 = 1024;

/// The reaction to a server without disk space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum WhenFull {
    /// Fail with the server's numbers.
    Stop,
    /// Ask again until there is disk space, or patience is over.
    Wait,
}

impl From<WhenFull> for retry::WhenFull {
    fn from(when: WhenFull) -> retry::WhenFull {
        match when {
            WhenFull::Stop => retry::WhenFull::Stop,
            WhenFull::Wait => retry::WhenFull::Wait,
        }
    }
}

/// Arguments of `push`.
#[derive(Args, Debug)]
pub struct PushArgs {
    /// Files, folders (with all that is below them), or - for standard input (needs --name); with --command its words
    #[arg(value_name = "PATH", required_unless_present = "files_from")]
    pub paths: Vec<PathBuf>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub server: Server,
    /// Name on the server: of the one file, or in place of the one folder's name. With a / at its end it is a folder,
    /// and the file keeps its own name in it
    #[arg(long)]
    pub name: Option<String>,
    /// Folder on the server that all files go into [default: the folder that the token is for]
    #[arg(long, value_name = "DIR/")]
    pub into: Option<String>,
    /// Push only files that match such a pattern of gitignore, like *.bin or /logs/; may be given several times
    #[arg(long, value_name = "PATTERN")]
    pub include: Vec<String>,
    /// Push no files that match such a pattern of gitignore, like *.tmp or cache/; may be given several times
    #[arg(long, value_name = "PATTERN")]
    pub exclude: Vec<String>,
    /// Push no files with more bytes, like 10G
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub max_size: Option<u64>,
    /// Push the files in this list too, a path a line, or - for standard input. They keep the folders in their paths
    #[arg(long, value_name = "FILE", conflicts_with_all = ["name", "command"])]
    pub files_from: Option<PathBuf>,
    /// Show what would be sent, and why, and send nothing
    #[arg(long, conflicts_with_all = ["command", "embedded", "manifest"])]
    pub dry_run: bool,
    /// Bytes of a slice, like 16M; an upload that holds something keeps its own [default: 8M; files up to 32M in one;
    /// 256K or less where a round trip takes 5 ms; less for a slow line; more for files over 781G]
    #[arg(long, value_name = "SIZE", value_parser = slice_size)]
    pub slice_size: Option<u64>,
    /// Parallel senders [default: as many as help, up to 128 and 48M of slices in memory]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub senders: Option<u16>,
    /// Slices that wait between reading and sending; memory is (queue + senders) slices
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub queue_size: u16,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub transfer: Transfer,
    /// Write the digests and names of the stored files to this file, as b3sum prints them
    #[arg(long, value_name = "FILE")]
    pub manifest: Option<PathBuf>,
    /// Replace finished files of the same name and other content
    #[arg(long)]
    pub replace: bool,
    /// Keep with the finished file: times (of the last write), mode (permissions, as far as the server permits),
    /// times,mode, or none
    #[arg(long, value_name = "FACTS", default_value_t = Keep::TIMES)]
    pub keep: Keep,
    /// Run a command, whose words stand after --, and push what it writes to its standard output (needs --name). Nothing
    /// becomes a finished file unless the command ends with 0, which no pipe can tell
    #[arg(long)]
    pub command: bool,
    /// Remove each local file once it is stored and verified, unless it was changed since the push began
    #[arg(long, conflicts_with_all = ["command", "dry_run"])]
    pub remove_source: bool,
    /// Of files that grow meanwhile, like logs, push what is there at the start. Each file is read twice
    #[arg(long, conflicts_with = "command")]
    pub growing: bool,
    /// Follow symbolic links inside folders
    #[arg(long)]
    pub follow_symlinks: bool,
    /// Make folders in which no file is pushed on the server too
    #[arg(long, conflicts_with = "command")]
    pub empty_folders: bool,
    /// Run a server of our own on this data folder for the time of the push; --url does not count
    #[arg(long, value_name = "DIR")]
    pub embedded: Option<PathBuf>,
    /// On a full server: stop at once, or wait and retry until there is disk space, within --retry-for
    #[arg(long, value_name = "WHAT", value_enum, default_value_t = WhenFull::Stop)]
    pub when_full: WhenFull,
}

impl PushArgs {
    /// True if the arguments fit together.
    ///
    /// # Errors
    /// Says which do not.
    pub fn check(&self) -> Result<(), String> {
        self.filter().map_err(|error| format!("{error:#}"))?;
        if self.command {
            return self.name.as_ref().map(drop).ok_or_else(|| "--command needs --name".to_owned());
        }
        self.paths.iter().try_for_each(|path| no_url(&path.to_string_lossy()))?;
        let inputs = self.paths.iter().filter(|path| is_stdin(path)).count();
        match (&self.name, self.paths.len(), inputs) {
            (Some(_), 2.., _) => Err("--name stands for one PATH; --into DIR/ puts several into a folder".to_owned()),
            (_, _, 2..) => Err("standard input can be read only once".to_owned()),
            (None, _, 1) => Err("standard input (-) needs --name; push it by itself".to_owned()),
            _ => Ok(()),
        }
    }

    /// Takes the server out of a first path like `lab:runs/2026/`, whose rest becomes the folder or the name.
    ///
    /// # Errors
    /// No path is left, or the rest contradicts `--into` or `--name`.
    pub fn take_server(&mut self, is_known: &dyn Fn(&str) -> bool) -> Result<Option<String>, String> {
        let first = self.paths.first().filter(|_| !self.command).and_then(|path| path.to_str()).unwrap_or_default();
        let Some((server, rest)) = split_server(first, is_known) else { return Ok(None) };
        let (server, rest, shown) = (server.to_owned(), rest.to_owned(), first.to_owned());
        self.paths.remove(0);
        if self.paths.is_empty() && self.files_from.is_none() {
            return Err(format!("{shown} is the place on the server: which files are to be pushed there?"));
        }
        let (place, option) = match rest.as_str() {
            "" => return Ok(Some(server)),
            folder if folder.ends_with('/') => (&mut self.into, "--into"),
            _ => (&mut self.name, "--name"),
        };
        match place.replace(rest) {
            Some(given) => Err(format!("{shown} is the place on the server, and {option} {given} is another one")),
            None => Ok(Some(server)),
        }
    }

    /// The files that are pushed, by patterns and size.
    ///
    /// # Errors
    /// A pattern makes no sense.
    pub fn filter(&self) -> anyhow::Result<Filter> {
        Filter::new(&self.include, &self.exclude, self.max_size)
    }

    /// The inputs to be pushed.
    ///
    /// # Errors
    /// A pattern makes no sense.
    pub fn wanted(&self) -> anyhow::Result<InputOptions<'_>> {
        Ok(InputOptions {
            paths: &self.paths,
            name: self.name.as_deref(),
            into: self.into.as_deref(),
            follow_symlinks: self.follow_symlinks,
            empty_folders: self.empty_folders,
            is_command: self.command,
            data_dir: self.embedded.as_deref(),
            filter: self.filter()?,
            files_from: self.files_from.as_deref(),
        })
    }

    /// The number and the time of retries of failed requests.
    pub fn retry_policy(&self) -> RetryPolicy {
        RetryPolicy { when_full: self.when_full.into(), ..self.transfer.retry_policy() }
    }
}

fn slice_size(text: &str) -> Result<u64, String> {
    match parse_size(text)? {
        size if size < MIN_SLICE_SIZE => Err(format!("{size} bytes are too few: at least {MIN_SLICE_SIZE}")),
        size => Ok(size),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::{Cli, Command};
    use crate::client::rates::Rates;
    use clap::{CommandFactory, Parser};

    fn push(args: &[&str]) -> Result<PushArgs, String> {
        let cli = Cli::try_parse_from([&["bigup-cli", "push"], args].concat()).map_err(|e| e.to_string())?;
        match cli.command {
            Command::Push(args) => args.check().map(|()| args),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_name_stands_for_one_path() {
        assert!(push(&["a", "--name", "x"]).is_ok());
        let message = push(&["a", "b", "--name", "x"]).unwrap_err();
        assert!(message.contains("--name") && message.contains("--into"), "{message}");
        assert!(push(&["a", "b", "--into", "x/"]).is_ok());
        assert!(push(&["a", "b"]).is_ok());
    }

    #[test]
    fn a_server_is_no_path() {
        for url in ["http://u:s3cr3t@h:8888", "HTTPS://h"] {
            let message = push(&["a", url]).unwrap_err();
            assert!(message.contains("--url") && !message.contains("s3cr3t"), "{message}");
        }
        assert!(push(&["http:"]).is_ok());
    }

    #[test]
    fn the_default_slice_sizes_are_told() {
        use crate::pipeline::slice_size::{DEFAULT_SLICE_SIZE, FAR_SLICE_SIZE, slice_size_for};
        use bigup_core::protocol::units::MIB;
        let help = Cli::command().find_subcommand_mut("push").unwrap().render_long_help().to_string();
        let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
        let told = |text: &str| assert!(help.contains(text), "{text:?} is not in: {help}");
        told(&format!("[default: {}M;", DEFAULT_SLICE_SIZE / MIB));
        told(&format!("; {}K or less where a round trip takes", FAR_SLICE_SIZE / 1024));
        told("; files up to 32M in one;");
        assert_eq!(slice_size_for(Some(32 * MIB), None, false), Ok(32 * MIB));
        told("; more for files over 781G]");
        assert_eq!(slice_size_for(Some(781 << 30), None, false), Ok(DEFAULT_SLICE_SIZE));
        assert_eq!(slice_size_for(Some(782 << 30), None, false), Ok(2 * DEFAULT_SLICE_SIZE));
    }

    #[test]
    fn standard_input_needs_a_name() {
        assert!(push(&["-", "--name", "x"]).is_ok());
        assert!(push(&["-"]).unwrap_err().contains("--name"));
        assert!(push(&["a", "-"]).unwrap_err().contains("--name"));
        assert!(push(&["-", "-"]).unwrap_err().contains("once"));
    }

    #[test]
    fn a_command_needs_a_name_and_keeps_its_own_options() {
        assert!(push(&["--command", "--", "a", "-b"]).unwrap_err().contains("--name"));
        let words = push(&["--command", "--name", "x", "--", "a", "-b", "-", "-"]).unwrap().paths;
        assert_eq!(words, ["a", "-b", "-", "-"].map(PathBuf::from));
    }

    #[test]
    fn times_are_kept_unless_other_facts_are_named() {
        let kept = |args: &[&str]| push(&[&["a"], args].concat()).map(|args| args.keep.to_string());
        assert_eq!(kept(&[]).as_deref(), Ok("times"));
        assert_eq!(kept(&["--keep", "times,mode"]).as_deref(), Ok("times,mode"));
        assert_eq!(kept(&["--keep=none"]).as_deref(), Ok("none"));
        assert!(kept(&["--keep", "owner"]).unwrap_err().contains("times, mode"));
    }

    #[test]
    fn a_slice_has_at_least_a_kibibyte() {
        assert!(push(&["a", "--slice-size", "1023"]).unwrap_err().contains("1024"));
        assert_eq!(push(&["a", "--slice-size", "1K"]).unwrap().slice_size, Some(1024));
        assert_eq!(push(&["a", "--slice-size", "1025"]).unwrap().slice_size, Some(1025));
    }

    #[test]
    fn a_limit_has_at_least_four_kibibytes_a_second() {
        assert!(push(&["a", "--limit-rate", "4095"]).unwrap_err().contains("4096"));
        assert_eq!(push(&["a", "--limit-rate", "4K"]).unwrap().transfer.limit_rate, Some(Rates::from(4096)));
        assert_eq!(push(&["a"]).unwrap().transfer.limit_rate, None);
    }

    #[test]
    fn a_client_certificate_needs_its_key() {
        assert!(push(&["a", "--client-cert", "c", "--client-key", "k"]).is_ok());
        assert!(push(&["a", "--client-cert", "c"]).unwrap_err().contains("--client-key"));
        assert!(push(&["a", "--client-key", "k"]).unwrap_err().contains("--client-cert"));
    }

    #[test]
    fn there_is_at_least_one_sender_and_one_place_in_the_queue() {
        assert!(push(&["a", "--senders", "0"]).is_err());
        assert!(push(&["a", "--queue-size", "0"]).is_err());
    }
}
