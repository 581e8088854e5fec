//! The command line.

use crate::cli::advice;
use crate::cli::inputs::{InputOptions, is_stdin};
use crate::cli::print::eprint_line;
use crate::cli::report::Style;
use crate::client::Client;
use crate::client::address::masked;
use crate::client::builder::ClientBuilder;
use crate::client::rate_limit::MIN_RATE;
use crate::client::retry::{self, RetryPolicy};
use crate::client::tls::Certificates;
use crate::client::token::Token;
use anyhow::Context;
use bigup_core::protocol::units::{parse_duration, parse_size};
use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use std::io::ErrorKind::BrokenPipe;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

/// Smallest slice, in bytes: a BLAKE3 chunk, below which slices are no subtrees and requests are all overhead.
const MIN_SLICE_SIZE: u64 = 1024;

/// Environment variable with the token.
const TOKEN_VARIABLE: &str = "BIGUP_TOKEN";

const AFTER_HELP: &str = "\
Exit codes:
  0  everything is stored and verified
  1  something failed; the same command again goes on where it stopped
  2  the command line makes no sense
  SIGINT and SIGTERM end the program by the signal (a shell tells 130 and 143); what is stored stays

Environment:
  BIGUP_URL   the server, where --url is not given
  BIGUP_CA_CERT, BIGUP_CLIENT_CERT, BIGUP_CLIENT_KEY   where --ca-cert, --client-cert, --client-key are not given
  BIGUP_TOKEN   the token, where --token-file is not given
  BIGUP_LOG   what to log to standard error, like debug or bigup_client=debug (default bigup_client=warn)
  SSL_CERT_FILE, SSL_CERT_DIR   the system's authorities, where they do not lie at their usual place
  http_proxy, https_proxy, all_proxy, no_proxy   the proxy and the hosts without one, as curl takes them: http://, https://,
              socks4://, socks4a://, socks5:// or socks5h://; this machine is never reached by way of a proxy";

const EXAMPLES: &str = "
  bigup-cli push disk.img   push a file under its own name to a server on this machine
  bigup-cli status   what is unfinished
  bigup-cli verify disk.img   whether the server has the same";

const PUSH_EXAMPLES: &str = "
  bigup-cli push --url https://files.example.org --token-file alice.token --name alice/disk.img disk.img
  bigup-cli push a.bin b.bin --into runs/2026/   push several files into a folder of the server
  bigup-cli push photos videos   push two folders with all that is below them
  pg_dump db | bigup-cli push --name db.sql -   push what a program writes
  bigup-cli push --name db.sql --command -- pg_dump db   the same, and store nothing if the program fails
  bigup-cli push --embedded /srv/bigup disk.img   push into a data folder of this machine";

const STATUS_EXAMPLES: &str = "
  bigup-cli status   all unfinished uploads
  bigup-cli status --json disk.img   what the server has of one file";

const VERIFY_EXAMPLES: &str = "
  bigup-cli verify disk.img   compare with the finished file of the same name
  bigup-cli verify --name alice/disk.img disk.img   with one of another name
  bigup-cli verify photos   all that is below a folder

Exit codes of verify:
  0  all are equal
  1  the server has other content of one, only a part of it, or nothing
  2  one could not be compared: it cannot be read, or the server does not answer";

/// The text below the options: the part that all commands have in common, and a command's own examples.
fn after_help(examples: &str) -> String {
    format!("{AFTER_HELP}\n\nExamples:{examples}")
}

/// bigup-cli: moves big files to a bigup server.
#[derive(Parser, Debug)]
#[command(name = "bigup-cli", version, about = "Moves big files to a bigup server", after_help = after_help(EXAMPLES))]
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
    /// Show unfinished uploads, or what the server has of one name
    #[command(after_help = after_help(STATUS_EXAMPLES))]
    Status(StatusArgs),
    /// Compare local files and folders with the finished ones on the server
    #[command(after_help = after_help(VERIFY_EXAMPLES))]
    Verify(VerifyArgs),
}

/// Where the server is.
#[derive(Args, Debug)]
pub struct Server {
    /// The server; without user and password, which everybody on this machine could see
    #[arg(long, env = "BIGUP_URL", hide_env_values = true, default_value = "http://127.0.0.1:8888")]
    pub url: String,
    /// File with the token that the server asks for; there is no flag for the token itself, which everybody on this
    /// machine could see
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub certificates: CertificateFiles,
}

/// Certificates for a server at https://, as files in PEM.
#[derive(Args, Clone, Debug, Default)]
pub struct CertificateFiles {
    /// Authorities that the server's certificate may be of, in PEM [default: those of the system]
    #[arg(long, value_name = "FILE", env = "BIGUP_CA_CERT")]
    pub ca_cert: Option<PathBuf>,
    /// Certificate to show to a server that asks for one, in PEM
    #[arg(long, value_name = "FILE", env = "BIGUP_CLIENT_CERT", requires = "client_key")]
    pub client_cert: Option<PathBuf>,
    /// Private key of the client certificate, in PEM
    #[arg(long, value_name = "FILE", env = "BIGUP_CLIENT_KEY", requires = "client_cert")]
    pub client_key: Option<PathBuf>,
}

impl CertificateFiles {
    /// As the client takes them.
    pub fn certificates(&self) -> Certificates {
        let CertificateFiles { ca_cert, client_cert, client_key } = self.clone();
        Certificates { ca_cert, client_cert, client_key }
    }
}

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
    #[arg(value_name = "PATH", required = true)]
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
    /// Bytes of a slice, like 16M; an upload that holds something keeps its own [default: 8M; files up to 32M in one;
    /// 512K or less where a round trip takes 5 ms; less for a slow line; more for files over 781G]
    #[arg(long, value_name = "SIZE", value_parser = slice_size)]
    pub slice_size: Option<u64>,
    /// Parallel senders [default: as many as help, up to 64 and 48M of slices in memory]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub senders: Option<u16>,
    /// Slices that wait between reading and sending; memory is (queue + senders) slices
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub queue_size: u16,
    /// Bytes of content a second at most, over all senders together, like 10M
    #[arg(long, value_name = "RATE", value_parser = limit_rate)]
    pub limit_rate: Option<u64>,
    /// Print events as JSON objects, one a line, on standard output
    #[arg(long)]
    pub json: bool,
    /// Only errors
    #[arg(long, conflicts_with = "json")]
    pub quiet: bool,
    /// Replace finished files of the same name and other content
    #[arg(long)]
    pub replace: bool,
    /// Run a command, whose words stand after --, and push what it writes to its standard output (needs --name). Nothing
    /// becomes a finished file unless the command ends with 0, which no pipe can tell
    #[arg(long)]
    pub command: bool,
    /// Follow symbolic links inside folders
    #[arg(long)]
    pub follow_symlinks: bool,
    /// Run a server of our own on this data folder for the time of the push; --url does not count
    #[arg(long, value_name = "DIR")]
    pub embedded: Option<PathBuf>,
    /// Retries of a request; the default leaves it to --retry-for
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub retries: u32,
    /// Give up after this time without progress, like 10m
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = parse_duration)]
    pub retry_for: Duration,
    /// On a full server: stop at once, or wait and retry until there is disk space, within --retry-for
    #[arg(long, value_name = "WHAT", value_enum, default_value_t = WhenFull::Stop)]
    pub when_full: WhenFull,
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
    #[arg(value_name = "PATH", required = true)]
    pub paths: Vec<PathBuf>,
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

impl Cli {
    /// The arguments of this program; ends it as clap does (exit code 2) where they make no sense.
    pub fn parse_or_exit() -> Cli {
        let checked = Cli::try_parse().and_then(|cli| match cli.check() {
            Ok(()) => Ok(cli),
            Err(message) => Err(Cli::command().error(ErrorKind::ArgumentConflict, message)),
        });
        checked.unwrap_or_else(|error| {
            if !error.use_stderr() {
                let printed = error.print().and_then(|()| std::io::stdout().flush());
                std::process::exit(i32::from(printed.is_err_and(|error| error.kind() != BrokenPipe)));
            }
            // It quotes arguments, which may be names that a shell found in a folder.
            error.render().to_string().lines().for_each(eprint_line);
            std::process::exit(error.exit_code())
        })
    }
}

impl Cli {
    fn check(&self) -> Result<(), String> {
        match &self.command {
            Command::Push(args) => args.check(),
            Command::Status(args) => args.name.as_deref().map_or(Ok(()), no_url),
            Command::Verify(args) if args.name.is_some() && args.paths.len() > 1 => {
                Err("--name stands for one PATH; verify the others by themselves".to_owned())
            }
            Command::Verify(args) => args.paths.iter().try_for_each(|path| no_url(&path.to_string_lossy())),
        }
    }
}

/// True if `text`, which is no option's value, is something else than a server.
fn no_url(text: &str) -> Result<(), String> {
    let is_url = ["http://", "https://"].iter().any(|scheme| text.to_ascii_lowercase().starts_with(scheme));
    if is_url { Err(format!("{} is a server: give it by --url", masked(text))) } else { Ok(()) }
}

impl Server {
    /// The server, with its token and certificates.
    ///
    /// # Errors
    /// The token cannot be used.
    pub fn builder(&self) -> anyhow::Result<ClientBuilder> {
        let builder = Client::builder(&self.url).certificates(self.certificates.certificates());
        Ok(builder.token(self.token()?))
    }

    /// The server, for a command that asks one question at a time.
    ///
    /// # Errors
    /// The URL, the token or a certificate cannot be used.
    pub fn client(&self) -> anyhow::Result<Client> {
        self.builder()?.connections(1).build().map_err(advice::failed_client)
    }

    /// The token in the file, or else in the environment. `None`: there is none.
    fn token(&self) -> anyhow::Result<Option<Token>> {
        if let Some(path) = &self.token_file {
            return Ok(Some(Token::from_file(path)?));
        }
        match std::env::var_os(TOKEN_VARIABLE) {
            Some(value) if !value.is_empty() => {
                let token = value.to_str().and_then(|value| Token::new(value).ok());
                token.map(Some).with_context(|| format!("{TOKEN_VARIABLE} is no token"))
            }
            _ => Ok(None),
        }
    }
}

impl PushArgs {
    /// True if the arguments fit together.
    ///
    /// # Errors
    /// Says which do not.
    pub fn check(&self) -> Result<(), String> {
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

    /// The inputs to be pushed.
    pub fn wanted(&self) -> InputOptions<'_> {
        InputOptions {
            paths: &self.paths,
            name: self.name.as_deref(),
            into: self.into.as_deref(),
            follow_symlinks: self.follow_symlinks,
            is_command: self.command,
            data_dir: self.embedded.as_deref(),
        }
    }

    /// The number and the time of retries of failed requests.
    pub fn retry_policy(&self) -> RetryPolicy {
        RetryPolicy { retries: self.retries, retry_for: self.retry_for, when_full: self.when_full.into() }
    }

    /// The style of the output.
    pub fn style(&self) -> Style {
        match (self.json, self.quiet) {
            (true, _) => Style::Json,
            (_, true) => Style::Quiet,
            _ => Style::Human,
        }
    }
}

fn slice_size(text: &str) -> Result<u64, String> {
    match parse_size(text)? {
        size if size < MIN_SLICE_SIZE => Err(format!("{size} bytes are too few: at least {MIN_SLICE_SIZE}")),
        size => Ok(size),
    }
}

fn limit_rate(text: &str) -> Result<u64, String> {
    match parse_size(text)? {
        rate if rate < MIN_RATE => Err(format!("{rate} bytes a second are too few: at least {MIN_RATE}")),
        rate => Ok(rate),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(args: &[&str]) -> Result<PushArgs, String> {
        let cli = Cli::try_parse_from([&["bigup-cli", "push"], args].concat()).map_err(|e| e.to_string())?;
        match cli.command {
            Command::Push(args) => args.check().map(|()| args),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
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
    fn a_slice_has_at_least_a_kibibyte() {
        assert!(push(&["a", "--slice-size", "1023"]).unwrap_err().contains("1024"));
        assert_eq!(push(&["a", "--slice-size", "1K"]).unwrap().slice_size, Some(1024));
        assert_eq!(push(&["a", "--slice-size", "1025"]).unwrap().slice_size, Some(1025));
    }

    #[test]
    fn a_limit_has_at_least_four_kibibytes_a_second() {
        assert!(push(&["a", "--limit-rate", "4095"]).unwrap_err().contains("4096"));
        assert_eq!(push(&["a", "--limit-rate", "4K"]).unwrap().limit_rate, Some(4096));
        assert_eq!(push(&["a"]).unwrap().limit_rate, None);
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
