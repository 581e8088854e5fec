//! Settings: flags over environment over file over defaults, all checked at once before anything is bound.

use crate::check;
use crate::tokens::{self, SecretHash};
use bigup_core::name::quoted;
use bigup_core::plan::{MAX_FILE_SIZE, MAX_SLICES};
use bigup_core::units::{MIB, parse_duration, parse_size};
use clap::{Parser, Subcommand};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Environment variable by which a program that starts a daemon for itself hands it a token of its own.
const OWNER_TOKEN: &str = "BIGUP_OWNER_TOKEN";

/// Where the daemon listens unless told otherwise: this machine only, the seed's port.
const DEFAULT_LISTEN: &str = "127.0.0.1:8888";

/// Long enough to bridge a slow client's pause, short enough that idle mergers do not pile up.
const DEFAULT_MERGER_IDLE: &str = "10s";

/// How long a push must be silent before another one, of other content, may go on with its upload: more than a pause
/// between two slices, less than people wait.
const DEFAULT_TAKEOVER_AFTER: &str = "15s";

/// Far above what clients use; bounds what a refused body can cost.
const DEFAULT_MAX_SLICE_SIZE: &str = "1G";

/// As long as common proxies wait for a silent peer.
const DEFAULT_BODY_TIMEOUT: &str = "60s";

/// What systemd's default stop timeout (90 s) leaves ample room for.
const DEFAULT_STOP_GRACE: &str = "10s";

/// Longest timeout: more than anybody waits, and no clock overflows by adding it.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Enough for logs, small uploads and an operator's shell on a disk that big uploads have filled.
const DEFAULT_RESERVE: &str = "256M";

/// Longer than a weekend and a holiday beside it.
const DEFAULT_EXPIRE_AFTER: &str = "7d";

/// A client that is at work sends its next head at once; one that trickles holds a connection this long.
const DEFAULT_HEADER_TIMEOUT: &str = "30s";

/// More than common proxies keep theirs, so that they close first and no request meets a closing connection.
const DEFAULT_IDLE_TIMEOUT: &str = "75s";

/// Below any link that a push makes sense over, far above what it costs to trickle.
const DEFAULT_MIN_BODY_RATE: &str = "1K";

/// What one process can hold with little memory.
const DEFAULT_MAX_CONNECTIONS: &str = "16384";

/// Far above what a client or a common proxy opens.
const DEFAULT_MAX_CONNECTIONS_PER_ADDRESS: &str = "1024";

/// What the design is made for.
const DEFAULT_MAX_FILE_SIZE: &str = "16T";

/// Unfinished uploads of all clients; each is a folder.
const DEFAULT_MAX_UPLOADS: &str = "10000";

/// Unfinished uploads of one token.
const DEFAULT_MAX_UPLOADS_PER_TOKEN: &str = "1000";

/// Each is a process of a few MiB that keeps a disk busy; more would only take turns.
const DEFAULT_MAX_MERGERS: &str = "16";

/// Room for the ids of a million slices.
const DEFAULT_MAX_ANSWER_SIZE: &str = "16M";

/// Receives slices of big files over HTTP, has them merged while they arrive, and keeps finished files in
/// DATA/files/.
#[derive(Parser, Debug, Default)]
#[command(
    version,
    after_help = "Every setting may also stand in the environment (BIGUP_DATA_DIR, BIGUP_LISTEN, …) or \
in the configuration file (data_dir = …, listen = …), without a section or in [bigupd]. Flags win over the environment, \
the environment over the file. Sizes are bytes or numbers with K, M, G, T; times are seconds or numbers with ms, s, m, \
h, d.\n\nBIGUP_LOG sets what is logged: error, warn, info (default), debug.\n\nExit codes: 0 stopped, 1 failed, 2 wrong \
usage or configuration."
)]
pub struct Arguments {
    /// What to do instead of serving.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// The data folder; created if missing.
    #[arg(long, value_name = "DIR", global = true)]
    data_dir: Option<String>,
    /// Address and port to listen on; port 0 takes a free one [default: 127.0.0.1:8888].
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Option<String>,
    /// Let in who has no token: without tokens to do everything, also at other addresses than this machine's own; with
    /// tokens to push and read, but not to replace or to go on with what a token began: yes or no [default: no].
    #[arg(long, value_name = "YES|NO")]
    allow_anonymous: Option<String>,
    /// The merge worker's program [default: bigup-merger beside this program].
    #[arg(long, value_name = "PATH")]
    merger: Option<String>,
    /// A merger leaves after this time without a new slice [default: 10s].
    #[arg(long, value_name = "TIME")]
    merger_idle: Option<String>,
    /// A push that has been silent this long may be taken over by another one of other content [default: 15s].
    #[arg(long, value_name = "TIME")]
    takeover_after: Option<String>,
    /// Largest slice [default: 1G].
    #[arg(long, value_name = "SIZE")]
    max_slice_size: Option<String>,
    /// A request is given up after this time without a byte of its body [default: 60s].
    #[arg(long, value_name = "TIME")]
    body_timeout: Option<String>,
    /// After SIGTERM running requests have this time to finish [default: 10s].
    #[arg(long, value_name = "TIME")]
    stop_grace: Option<String>,
    /// What a slice's 200 promises: written (it survives the death of any process) or synced (a power cut too)
    /// [default: written].
    #[arg(long, value_name = "WRITTEN|SYNCED")]
    slice_ack: Option<String>,
    /// Room that uploads leave free on the disk [default: 256M].
    #[arg(long, value_name = "SIZE")]
    reserve: Option<String>,
    /// An unfinished upload is removed this long after its last byte; 0: never [default: 7d].
    #[arg(long, value_name = "TIME")]
    expire_after: Option<String>,
    /// Certificate chain (PEM); with it and its key all connections are TLS. Read again on SIGHUP.
    #[arg(long, value_name = "FILE")]
    tls_cert: Option<String>,
    /// Private key of the certificate (PEM).
    #[arg(long, value_name = "FILE")]
    tls_key: Option<String>,
    /// Clients must show a certificate of one of these authorities (PEM).
    #[arg(long, value_name = "FILE")]
    tls_client_ca: Option<String>,
    /// Longest time from the first byte of a request's head, or from the begin of a connection, to the head's end
    /// [default: 30s].
    #[arg(long, value_name = "TIME")]
    header_timeout: Option<String>,
    /// A connection is closed this long after its last answer [default: 75s].
    #[arg(long, value_name = "TIME")]
    idle_timeout: Option<String>,
    /// Bytes a second that a body must bring, and that an answer must be read with, over each body_timeout; 0: any
    /// [default: 1K].
    #[arg(long, value_name = "SIZE")]
    min_body_rate: Option<String>,
    /// Most connections at once [default: 16384].
    #[arg(long, value_name = "N")]
    max_connections: Option<String>,
    /// Most connections from one address (of IPv6: one /64); 0: no limit of its own, as behind a proxy [default: 1024].
    #[arg(long, value_name = "N")]
    max_connections_per_address: Option<String>,
    /// Largest file [default: 16T].
    #[arg(long, value_name = "SIZE")]
    max_file_size: Option<String>,
    /// Most slices of a file, at most a million [default: 1000000].
    #[arg(long, value_name = "N")]
    max_slices: Option<String>,
    /// Most unfinished uploads in all [default: 10000].
    #[arg(long, value_name = "N")]
    max_uploads: Option<String>,
    /// Most unfinished uploads of one token [default: 1000].
    #[arg(long, value_name = "N")]
    max_uploads_per_token: Option<String>,
    /// Most mergers at work; more wait for their turn [default: 16].
    #[arg(long, value_name = "N")]
    max_mergers: Option<String>,
    /// Largest answer, at least 1M; four such may be on the way at once [default: 16M].
    #[arg(long, value_name = "SIZE")]
    max_answer_size: Option<String>,
    /// Configuration file (INI).
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// Check the configuration and leave.
    #[arg(long)]
    check_config: bool,
    /// Stop when standard input is closed: for programs that start a daemon of their own.
    #[arg(long, hide = true)]
    until_stdin_closes: bool,
}

/// What the program does instead of serving.
#[derive(Subcommand, Clone, Debug)]
pub enum Command {
    /// Compare unfinished uploads and finished files with their digests
    Check(check::Arguments),
    /// Make, list and revoke tokens, by which clients are let in
    Token(tokens::command::Arguments),
}

/// What a slice's 200 promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SliceAck {
    /// It survives the death of any process; after a power cut a damaged one is found and asked for again.
    Written,
    /// It survives a power cut.
    Synced,
}

/// Certificates, as files in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate chain, the server's own first.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// Authorities whose certificates clients must show. None: clients need none.
    pub client_ca: Option<PathBuf>,
}

/// What is too much. Over it requests are refused, never dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Longest time from the first byte of a request's head, or from the begin of a connection, to the head's end.
    pub header_timeout: Duration,
    /// Longest time without a byte of the next request on a connection.
    pub idle_timeout: Duration,
    /// Longest silence within a body, and longest time that nothing of an answer is read.
    pub body_timeout: Duration,
    /// Bytes a second that a body must bring, and an answer be read with, on the average of each `body_timeout`. 0: any.
    pub min_body_rate: u64,
    /// Most connections at once.
    pub connections: u64,
    /// Most connections from one address, of IPv6 from one /64, at once. 0: no limit.
    pub connections_per_address: u64,
    /// Largest slice, in bytes.
    pub slice_size: u64,
    /// Largest file, in bytes.
    pub file_size: u64,
    /// Most slices of a file.
    pub slices: u64,
    /// Most unfinished uploads in all.
    pub uploads: u64,
    /// Most unfinished uploads of one token.
    pub uploads_per_token: u64,
    /// Most mergers of this daemon at work at once.
    pub mergers: u64,
    /// Largest answer, in bytes.
    pub answer_size: u64,
}

/// Settings, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The data folder.
    pub data_dir: PathBuf,
    /// Where to listen.
    pub listen: SocketAddr,
    /// Whoever has no token is let in, wherever the daemon listens.
    pub allow_anonymous: bool,
    /// The token of the program that started this daemon for itself, and may do everything. None: there is none.
    pub owner: Option<SecretHash>,
    /// The merge worker's program.
    pub merger: PathBuf,
    /// A merger leaves after this time without a new slice.
    pub merger_idle: Duration,
    /// How long a push must be silent before another source may take its upload over.
    pub takeover_after: Duration,
    /// How long running requests may go on after a stop was asked for.
    pub stop_grace: Duration,
    /// What a slice's 200 promises.
    pub slice_ack: SliceAck,
    /// Bytes that uploads leave free on the disk.
    pub reserve: u64,
    /// An unfinished upload goes this long after its last byte. None: never.
    pub expire_after: Option<Duration>,
    /// TLS on all connections. None: plain HTTP.
    pub tls: Option<TlsFiles>,
    /// What is too much.
    pub limits: Limits,
}

/// What the command line asks for besides settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mode {
    /// Check the configuration and leave.
    pub check_config: bool,
    /// Stop when standard input is closed.
    pub until_stdin_closes: bool,
}

/// Where a value came from and what it is.
type Given = (String, String);

/// Collects settings and every mistake in them.
struct Collector<'a> {
    environment: &'a dyn Fn(&str) -> Option<String>,
    file: Vec<(String, String)>,
    known: Vec<&'static str>,
    mistakes: Vec<String>,
}

impl Collector<'_> {
    /// The value of `key`, by precedence.
    fn given(&mut self, key: &'static str, flag: Option<String>) -> Option<Given> {
        self.known.push(key);
        let variable = format!("BIGUP_{}", key.to_uppercase());
        let from_file = self.file.iter().rev().find(|(k, _)| k == key).map(|(_, v)| v.clone());
        flag.map(|value| (format!("--{}", key.replace('_', "-")), value))
            .or_else(|| (self.environment)(&variable).map(|value| (variable, value)))
            .or_else(|| from_file.map(|value| (format!("{key} in the configuration file"), value)))
    }

    /// The value of `key`, read by `parse`; the default where nothing or nonsense was given.
    fn get<T>(
        &mut self,
        key: &'static str,
        flag: Option<String>,
        default: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> T {
        if let Some((whence, value)) = self.given(key, flag) {
            match parse(&value) {
                Ok(parsed) => return parsed,
                Err(why) => self.mistakes.push(format!("{whence}: {why}")),
            }
        }
        parse(default).expect("defaults are right")
    }

    fn tls(&mut self, cert: Option<String>, key: Option<String>, client_ca: Option<String>) -> Option<TlsFiles> {
        let mut path = |key, flag| self.given(key, flag).map(|(_, value)| PathBuf::from(value));
        let files = (path("tls_cert", cert), path("tls_key", key), path("tls_client_ca", client_ca));
        match files {
            (Some(cert), Some(key), client_ca) => Some(TlsFiles { cert, key, client_ca }),
            (None, None, None) => None,
            _ => {
                self.mistakes.push("TLS needs both tls_cert and tls_key".to_owned());
                None
            }
        }
    }
}

impl Config {
    /// The defaults, over this data folder.
    pub fn defaults(data_dir: PathBuf) -> Config {
        let arguments = Arguments { data_dir: Some(String::new()), ..Arguments::default() };
        let mut from = Collector { environment: &|_| None, file: vec![], known: vec![], mistakes: vec![] };
        Config { data_dir, ..arguments.collect(&mut from) }
    }
}

impl Arguments {
    /// Settles the configuration. `environment` gives the value of a variable.
    ///
    /// # Errors
    /// All mistakes, one each.
    pub fn settle(self, environment: &dyn Fn(&str) -> Option<String>) -> Result<(Config, Mode), Vec<String>> {
        let mut mistakes = vec![];
        let config_file = self.config.clone().or_else(|| environment("BIGUP_CONFIG").map(PathBuf::from));
        let file = config_file.map_or(Ok(vec![]), |path| read_file(&path)).unwrap_or_else(|mistake| {
            mistakes.push(mistake);
            vec![]
        });
        let mut from = Collector { environment, file, known: vec![], mistakes };
        let mode = Mode { check_config: self.check_config, until_stdin_closes: self.until_stdin_closes };
        let config = self.collect(&mut from);
        for (key, _) in &from.file {
            if !from.known.contains(&key.as_str()) {
                let known = from.known.join(", ");
                from.mistakes.push(format!("{key} in the configuration file is unknown; known are {known}"));
            }
        }
        if from.mistakes.is_empty() { Ok((config, mode)) } else { Err(from.mistakes) }
    }

    /// All settings; mistakes are noted in `from`.
    fn collect(self, from: &mut Collector<'_>) -> Config {
        let data_dir = from.given("data_dir", self.data_dir).map(|(_, value)| value).unwrap_or_default();
        if data_dir.is_empty() {
            from.mistakes.push("no data folder is given: use --data-dir, BIGUP_DATA_DIR or data_dir".to_owned());
        }
        // From nobody who serves by himself: not a setting, and known to the two programs only.
        let owner = (from.environment)(OWNER_TOKEN).filter(|_| self.until_stdin_closes);
        Config {
            data_dir: PathBuf::from(data_dir),
            listen: from.get("listen", self.listen, DEFAULT_LISTEN, parse_address),
            allow_anonymous: from.get("allow_anonymous", self.allow_anonymous, "no", parse_switch),
            owner: owner.map(|secret| SecretHash::of(&secret)),
            merger: from.get("merger", self.merger, "", parse_program),
            merger_idle: from.get("merger_idle", self.merger_idle, DEFAULT_MERGER_IDLE, parse_duration),
            takeover_after: from.get("takeover_after", self.takeover_after, DEFAULT_TAKEOVER_AFTER, parse_duration),
            stop_grace: from.get("stop_grace", self.stop_grace, DEFAULT_STOP_GRACE, parse_duration),
            slice_ack: from.get("slice_ack", self.slice_ack, "written", parse_slice_ack),
            reserve: from.get("reserve", self.reserve, DEFAULT_RESERVE, parse_size),
            expire_after: Some(from.get("expire_after", self.expire_after, DEFAULT_EXPIRE_AFTER, parse_duration))
                .filter(|time| !time.is_zero()),
            tls: from.tls(self.tls_cert, self.tls_key, self.tls_client_ca),
            limits: Limits {
                header_timeout: from.get("header_timeout", self.header_timeout, DEFAULT_HEADER_TIMEOUT, some_time),
                idle_timeout: from.get("idle_timeout", self.idle_timeout, DEFAULT_IDLE_TIMEOUT, some_time),
                body_timeout: from.get("body_timeout", self.body_timeout, DEFAULT_BODY_TIMEOUT, some_time),
                min_body_rate: from.get("min_body_rate", self.min_body_rate, DEFAULT_MIN_BODY_RATE, parse_size),
                connections: from.get("max_connections", self.max_connections, DEFAULT_MAX_CONNECTIONS, at_least_one),
                connections_per_address: from.get(
                    "max_connections_per_address",
                    self.max_connections_per_address,
                    DEFAULT_MAX_CONNECTIONS_PER_ADDRESS,
                    parse_count,
                ),
                slice_size: from.get("max_slice_size", self.max_slice_size, DEFAULT_MAX_SLICE_SIZE, at_least_one_mib),
                file_size: from.get("max_file_size", self.max_file_size, DEFAULT_MAX_FILE_SIZE, size_of_a_file),
                slices: from.get("max_slices", self.max_slices, &MAX_SLICES.to_string(), number_of_slices),
                uploads: from.get("max_uploads", self.max_uploads, DEFAULT_MAX_UPLOADS, at_least_one),
                uploads_per_token: from.get(
                    "max_uploads_per_token",
                    self.max_uploads_per_token,
                    DEFAULT_MAX_UPLOADS_PER_TOKEN,
                    at_least_one,
                ),
                mergers: from.get("max_mergers", self.max_mergers, DEFAULT_MAX_MERGERS, at_least_one),
                answer_size: from.get(
                    "max_answer_size",
                    self.max_answer_size,
                    DEFAULT_MAX_ANSWER_SIZE,
                    room_for_digests,
                ),
            },
        }
    }
}

fn read_file(path: &PathBuf) -> Result<Vec<(String, String)>, String> {
    let ini = ini::Ini::load_from_file_noescape(path).map_err(|e| format!("{}: {e}", path.display()))?;
    let mut settings = vec![];
    for (section, keys) in &ini {
        if let Some(other) = section.filter(|name| *name != "bigupd") {
            return Err(format!("{}: the section [{other}] is unknown; settings stand in [bigupd]", path.display()));
        }
        settings.extend(keys.iter().map(|(key, value)| (key.to_owned(), value.to_owned())));
    }
    Ok(settings)
}

fn parse_address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| format!("{} is no address with a port, like {DEFAULT_LISTEN} or [::1]:8888", quoted(text)))
}

fn parse_switch(text: &str) -> Result<bool, String> {
    match text {
        "yes" => Ok(true),
        "no" => Ok(false),
        _ => Err(format!("{} is neither yes nor no", quoted(text))),
    }
}

fn parse_program(text: &str) -> Result<PathBuf, String> {
    if !text.is_empty() {
        return Ok(PathBuf::from(text));
    }
    // Where we are cannot be told only if /proc is missing; the search path is the next best.
    let beside = std::env::current_exe().ok().map(|me| me.with_file_name("bigup-merger"));
    Ok(beside.filter(|path| path.exists()).unwrap_or_else(|| PathBuf::from("bigup-merger")))
}

fn parse_slice_ack(text: &str) -> Result<SliceAck, String> {
    match text {
        "written" => Ok(SliceAck::Written),
        "synced" => Ok(SliceAck::Synced),
        _ => Err(format!("{} is neither written nor synced", quoted(text))),
    }
}

fn some_time(text: &str) -> Result<Duration, String> {
    match parse_duration(text)? {
        Duration::ZERO => Err("0 leaves no time for anything".to_owned()),
        time if time > LONGEST_TIMEOUT => Err(format!("{text} is too long: at most 365d")),
        time => Ok(time),
    }
}

fn parse_count(text: &str) -> Result<u64, String> {
    bigup_core::units::parse_u64(text).ok_or_else(|| format!("{} is not a whole number", quoted(text)))
}

fn at_least_one(text: &str) -> Result<u64, String> {
    match parse_count(text)? {
        0 => Err("0 would refuse everything".to_owned()),
        count => Ok(count),
    }
}

fn number_of_slices(text: &str) -> Result<u64, String> {
    match at_least_one(text)? {
        count if count > MAX_SLICES => Err(format!("{count} slices are too many: at most {MAX_SLICES}")),
        count => Ok(count),
    }
}

fn size_of_a_file(text: &str) -> Result<u64, String> {
    match parse_size(text)? {
        size if size > MAX_FILE_SIZE => Err(format!("a file of {size} bytes is too large: at most {MAX_FILE_SIZE}")),
        size => Ok(size),
    }
}

fn room_for_digests(text: &str) -> Result<u64, String> {
    match parse_size(text)? {
        size if size < MIB => Err(format!("{size} bytes are too few: answers with digests need {MIB}")),
        size => Ok(size),
    }
}

fn at_least_one_mib(text: &str) -> Result<u64, String> {
    match parse_size(text)? {
        size if size < MIB => Err(format!("{size} bytes are too few: a slice must be able to have {MIB}")),
        size => Ok(size),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn nothing(_: &str) -> Option<String> {
        None
    }

    fn parse(arguments: &[&str]) -> Arguments {
        Arguments::parse_from([&["bigupd"], arguments].concat())
    }

    #[test]
    fn flags_win_over_environment_over_file_over_defaults() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        writeln!(file, "data_dir = /file\nlisten = 127.0.0.1:1\n[bigupd]\nmerger_idle = 1s\nstop_grace = 1s").unwrap();
        let environment = |name: &str| match name {
            "BIGUP_LISTEN" => Some("127.0.0.1:2".to_owned()),
            "BIGUP_MERGER_IDLE" => Some("2s".to_owned()),
            _ => None,
        };
        let arguments = parse(&["--config", file.path().to_str().unwrap(), "--listen", "127.0.0.1:3"]);
        let (config, _) = arguments.settle(&environment).unwrap();
        assert_eq!(config.data_dir, PathBuf::from("/file"));
        assert_eq!(config.listen, "127.0.0.1:3".parse().unwrap());
        assert_eq!(config.merger_idle, Duration::from_secs(2));
        assert_eq!(config.stop_grace, Duration::from_secs(1));
        assert_eq!(config.takeover_after, Duration::from_secs(15));
    }

    #[test]
    fn all_mistakes_are_told_at_once() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        writeln!(file, "merger_idle = soon\nspeed = 3").unwrap();
        let arguments = parse(&[
            "--config",
            file.path().to_str().unwrap(),
            "--listen",
            "here",
            "--max-slice-size",
            "4",
            "--allow-anonymous",
            "maybe",
        ]);
        let mistakes = arguments.settle(&nothing).unwrap_err();
        for part in ["data folder", "--listen: \"here\"", "merger_idle in", "4 bytes", "speed in", "\"maybe\""] {
            assert!(mistakes.iter().any(|m| m.contains(part)), "{part}: {mistakes:?}");
        }
        assert_eq!(mistakes.len(), 6);
    }

    #[test]
    fn tls_needs_certificate_and_key() {
        for part in [&["--tls-cert", "c"][..], &["--tls-key", "k"], &["--tls-client-ca", "a"]] {
            let mistakes = parse(&[&["--data-dir", "/d"], part].concat()).settle(&nothing).unwrap_err();
            assert!(mistakes[0].contains("both tls_cert and tls_key"), "{mistakes:?}");
        }
        let all = ["--data-dir", "/d", "--tls-cert", "c", "--tls-key", "k", "--tls-client-ca", "a"];
        let (config, _) = parse(&all).settle(&nothing).unwrap();
        let files = TlsFiles { cert: "c".into(), key: "k".into(), client_ca: Some("a".into()) };
        assert_eq!(config.tls, Some(files));
    }

    #[test]
    fn subcommands_know_the_data_folder_and_the_configuration_file() {
        for arguments in [&["--data-dir", "/d", "token", "list"][..], &["token", "list", "--data-dir", "/d"]] {
            let mut arguments = parse(arguments);
            assert!(matches!(arguments.command.take(), Some(Command::Token(_))));
            assert_eq!(arguments.settle(&nothing).unwrap().0.data_dir, PathBuf::from("/d"));
        }
        assert!(parse(&[]).command.is_none());
        assert!(Arguments::try_parse_from(["bigupd", "token", "list", "--listen", "127.0.0.1:1"]).is_err());
    }

    #[test]
    fn only_a_daemon_of_somebodys_own_takes_a_token_from_the_environment() {
        let environment = |name: &str| (name == "BIGUP_OWNER_TOKEN").then(|| "secret".to_owned());
        let owner = |arguments: &[&str]| parse(arguments).settle(&environment).unwrap().0.owner;
        assert_eq!(owner(&["--data-dir", "/d"]), None);
        assert_eq!(owner(&["--data-dir", "/d", "--until-stdin-closes"]), Some(SecretHash::of("secret")));
    }

    #[test]
    fn files_that_cannot_be_read_are_told() {
        let mistakes = parse(&["--data-dir", "/d", "--config", "/nowhere/x"]).settle(&nothing).unwrap_err();
        assert!(mistakes[0].contains("/nowhere/x"), "{mistakes:?}");
        let mut file = tempfile::NamedTempFile::new().unwrap();
        writeln!(file, "[other]\nx = 1").unwrap();
        let arguments = parse(&["--data-dir", "/d", "--config", file.path().to_str().unwrap()]);
        assert!(arguments.settle(&nothing).unwrap_err()[0].contains("[other]"));
    }
}
