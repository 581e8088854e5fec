//! Settings: flags over environment over file over defaults, all checked at once before anything is bound.
//!
//! Each folder has a type for its own settings. They are gathered here, and no folder but
//! [`commands`](crate::commands) uses this one. The effect of a setting does not come in here.

use crate::admission::access;
use crate::admission::origins::{AllowedOrigins, Origins, parse_hosts};
use crate::admission::tokens::SecretHash;
use crate::config::settings::{Given, SETTINGS, Setting};
use crate::hooks::{Hook, HookSettings};
use crate::http::page::settings::PageSettings;
use crate::mergers;
use crate::net::forwarded::Proxies;
use crate::net::host::Host;
use crate::net::limits::Limits;
use crate::net::listeners::Listen;
use crate::net::tls::TlsFiles;
use crate::uploads;
use crate::uploads::settings::SliceAck;
use bigup_core::protocol::name::quoted;
use bigup_core::protocol::plan::{MAX_FILE_SIZE, MAX_SLICES};
use bigup_core::protocol::units::{MIB, parse_duration, parse_mode, parse_size};
use bigup_core::storage::data_dir::FileModes;
use bigup_core::storage::objects::{MOST_PARTS_AT_ONCE, ObjectSettings};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

pub mod settings;

/// Environment variable by which a program that starts a daemon for itself hands it a token of its own.
const OWNER_TOKEN: &str = "BIGUP_OWNER_TOKEN";

/// The configuration file if no file and no data folder is given: that of the package, so that commands find the data
/// of the service.
const USUAL_CONFIG: &str = "/etc/bigup/bigupd.ini";

/// Longest timeout: longer than any client waits, and no clock overflows by adding it.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Settings, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The data folder.
    pub data_dir: PathBuf,
    /// Where to listen.
    pub listen: Listen,
    /// Permissions of a socket in the file system, if it listens on one of its own.
    pub listen_mode: u32,
    /// Address for monitoring programs. `None`: only where uploads go.
    pub metrics_listen: Option<SocketAddr>,
    /// Clients without a token are let in, on every address that the daemon listens on.
    pub allow_anonymous: bool,
    /// Origins whose web pages are permitted to call.
    pub allowed_origins: AllowedOrigins,
    /// Names of this server beside those that it has by itself.
    pub allowed_hosts: Vec<Host>,
    /// The token of the program that started this daemon for itself; it gives full access. `None` if there is no such
    /// program.
    pub owner: Option<SecretHash>,
    /// Settings of mergers.
    pub mergers: mergers::Settings,
    /// Longest time for which running requests go on after a stop was asked for.
    pub stop_grace: Duration,
    /// Time for which the daemon serves on after it was told to stop, while `/readyz` says that it is about to go.
    pub drain_time: Duration,
    /// Permissions of finished files.
    pub modes: FileModes,
    /// The store that finished files go to. `None`: they go into the data folder.
    pub store: Option<ObjectSettings>,
    /// An unfinished upload goes this long after its last byte. `None`: never.
    pub expire_after: Option<Duration>,
    /// Time after its begin at which an upload that received nothing is removed. `None`: like any other.
    pub begin_expire_after: Option<Duration>,
    /// TLS on all connections. `None`: plain HTTP.
    pub tls: Option<TlsFiles>,
    /// Limits to the number of connections, and to their slowness.
    pub limits: Limits,
    /// Settings and limits of uploads.
    pub uploads: uploads::settings::Settings,
    /// Hooks: asked before an upload begins, and told of finished files.
    pub hooks: HookSettings,
    /// The page for browsers.
    pub page: PageSettings,
}

/// The origin of a value, and the value.
type Value = (String, String);

/// Collects settings and every mistake in them.
struct Collector<'a> {
    flags: Given,
    environment: &'a dyn Fn(&str) -> Option<String>,
    file: Vec<(String, String)>,
    mistakes: Vec<String>,
}

impl Collector<'_> {
    /// The value given for `setting`, by precedence.
    fn given(&self, setting: &Setting) -> Option<Value> {
        let key = setting.key;
        let from_file = || self.file.iter().rev().find(|(k, _)| k == key).map(|(_, v)| v.clone());
        let flag = self.flags.get(key).map(|value| (format!("--{}", setting.flag()), value.to_owned()));
        flag.or_else(|| (self.environment)(&setting.variable()).map(|value| (setting.variable(), value)))
            .or_else(|| from_file().map(|value| (format!("{key} in the configuration file"), value)))
    }

    /// The value of `key`, read by `parse`; the default if nothing or nonsense was given. `None` if there is no
    /// default.
    fn some<T>(&mut self, key: &str, parse: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        let setting = settings::find(key).expect("every setting is in the table");
        if let Some((whence, value)) = self.given(setting) {
            match parse(&value) {
                Ok(parsed) => return Some(parsed),
                Err(why) => self.mistakes.push(format!("{whence}: {why}")),
            }
        }
        setting.default.map(|default| parse(default).expect("defaults are right"))
    }

    /// The same of a setting that has a default.
    fn get<T>(&mut self, key: &str, parse: impl Fn(&str) -> Result<T, String>) -> T {
        self.some(key, parse).expect("it has a default")
    }

    fn path(&mut self, key: &str) -> Option<PathBuf> {
        self.some(key, |text| Ok(PathBuf::from(text)))
    }

    /// The store of objects. The other settings of it mean nothing without it.
    fn store(&mut self) -> Option<ObjectSettings> {
        let settings = ObjectSettings {
            endpoint: self.some("s3_endpoint", parse_endpoint),
            region: self.get("s3_region", some_text),
            path_style: self.get("s3_path_style", parse_switch),
            credentials_file: self.path("s3_credentials_file"),
            parts_at_once: self.get("s3_parts_at_once", number_of_parts),
            url: self.some("store", str::parse)?,
        };
        Some(settings)
    }

    fn tls(&mut self) -> Option<TlsFiles> {
        let (client_ca, client_crl) = (self.path("tls_client_ca"), self.path("tls_client_crl"));
        if client_crl.is_some() && client_ca.is_none() {
            self.mistakes.push("tls_client_crl needs tls_client_ca, whose certificates it revokes".to_owned());
        }
        match (self.path("tls_cert"), self.path("tls_key")) {
            (Some(cert), Some(key)) => Some(TlsFiles { cert, key, client_ca, client_crl }),
            (None, None) if client_ca.is_none() => None,
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
        let mut from = Collector { flags: Given::default(), environment: &|_| None, file: vec![], mistakes: vec![] };
        Config { data_dir, ..Config::collect(&mut from) }
    }

    /// The settings of admission.
    pub fn access(&self) -> access::Settings {
        let is_guarded = self.listen.is_local() || self.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some());
        access::Settings { allow_anonymous: self.allow_anonymous, owner: self.owner, is_guarded }
    }

    /// Origins whose web pages are permitted to use the daemon.
    pub fn origins(&self) -> Origins {
        Origins::new(self.allowed_origins.clone(), &self.allowed_hosts, self.tls.is_some())
    }

    /// All settings; mistakes are noted in `from`.
    fn collect(from: &mut Collector<'_>) -> Config {
        let data_dir = from.path("data_dir").unwrap_or_default();
        if data_dir.as_os_str().is_empty() {
            from.mistakes.push("no data folder is given: use --data-dir, BIGUP_DATA_DIR or data_dir".to_owned());
        }
        Config {
            data_dir,
            listen: from.get("listen", |text| text.parse()),
            listen_mode: from.get("listen_mode", parse_mode),
            metrics_listen: from.some("metrics_listen", parse_address),
            allow_anonymous: from.get("allow_anonymous", parse_switch),
            allowed_origins: from.some("allowed_origins", AllowedOrigins::parse).unwrap_or_default(),
            allowed_hosts: from.some("allowed_hosts", parse_hosts).unwrap_or_default(),
            owner: None,
            mergers: mergers::Settings {
                program: from.path("merger").unwrap_or_else(merger_beside),
                idle: from.get("merger_idle", parse_duration),
                most: from.get("max_mergers", at_least_one),
            },
            stop_grace: from.get("stop_grace", parse_duration),
            drain_time: from.get("drain_time", parse_duration),
            modes: FileModes { file: from.some("file_mode", parse_mode), dir: from.some("dir_mode", parse_mode) },
            store: from.store(),
            expire_after: Some(from.get("expire_after", parse_duration)).filter(|time| !time.is_zero()),
            begin_expire_after: Some(from.get("begin_expire_after", parse_duration)).filter(|time| !time.is_zero()),
            tls: from.tls(),
            limits: Limits {
                header_timeout: from.get("header_timeout", some_time),
                idle_timeout: from.get("idle_timeout", some_time),
                body_timeout: from.get("body_timeout", some_time),
                min_body_rate: from.get("min_body_rate", parse_size),
                connections: from.get("max_connections", at_least_one),
                connections_per_address: from.get("max_connections_per_address", parse_count),
                trusted_proxies: from.some("trusted_proxies", Proxies::parse).unwrap_or_default(),
                body_memory: from.get("max_body_memory", room_for_bodies),
            },
            uploads: uploads::settings::Settings {
                slice_size: from.get("max_slice_size", at_least_one_mib),
                file_size: from.get("max_file_size", size_of_a_file),
                slices: from.get("max_slices", number_of_slices),
                number: from.get("max_uploads", at_least_one),
                number_per_token: from.get("max_uploads_per_token", at_least_one),
                response_size: from.get("max_response_size", room_for_digests),
                anonymous_quota: from.some("anonymous_quota", parse_size),
                takeover_after: from.get("takeover_after", parse_duration),
                slice_ack: from.get("slice_ack", parse_slice_ack),
                existing_files: from.get("existing_files", str::parse),
                reserve: from.get("reserve", parse_size),
                redirects_to_store: from.get("s3_redirect", parse_switch),
                spool_limit: from.get("spool_limit", parse_size),
                keep: from.get("keep", str::parse),
            },
            hooks: HookSettings {
                on_begin: from.some("on_begin", Hook::parse),
                on_begin_timeout: from.get("on_begin_timeout", some_time),
                on_complete: from.some("on_complete", Hook::parse),
                on_complete_timeout: from.get("on_complete_timeout", some_time),
                on_complete_attempts: from.get("on_complete_attempts", number_of_attempts),
                secret_file: from.path("hook_secret_file"),
            },
            page: PageSettings {
                is_on: from.get("web", parse_switch),
                title: from.get("web_title", some_text),
                text: from.some("web_text", some_text),
                logo: from.path("web_logo"),
            },
        }
    }
}

/// Settles the configuration. Values `given` by flags override `environment`, which gives the value of a variable; that
/// overrides the file `told`, or the usual file; that overrides the defaults. `is_owned`: the daemon serves a program
/// that started it, and takes its token.
///
/// # Errors
/// All mistakes, one each.
pub fn settle(
    given: Given,
    told: Option<PathBuf>,
    is_owned: bool,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<Config, Vec<String>> {
    let mut mistakes = vec![];
    let told = told.or_else(|| environment("BIGUP_CONFIG").map(PathBuf::from));
    // A command line that names a data folder means that folder, with the defaults.
    let names_data = given.get("data_dir").is_some() || environment("BIGUP_DATA_DIR").is_some();
    let usual = Some(PathBuf::from(USUAL_CONFIG)).filter(|usual| !names_data && usual.exists());
    let config_file = told.or(usual);
    let file = config_file.map_or(Ok(vec![]), |path| read_file(&path)).unwrap_or_else(|mistake| {
        mistakes.push(mistake);
        vec![]
    });
    for (key, _) in file.iter().filter(|(key, _)| settings::find(key).is_none()) {
        let known: Vec<&str> = SETTINGS.iter().map(|setting| setting.key).collect();
        mistakes.push(format!("{key} in the configuration file is unknown; known are {}", known.join(", ")));
    }
    let mut from = Collector { flags: given, environment, file, mistakes };
    let config = Config::collect(&mut from);
    // The owner's token is no setting, and known to the two programs only. A daemon without an owner ignores it.
    let owner = environment(OWNER_TOKEN).filter(|_| is_owned);
    match from.mistakes.is_empty() {
        true => Ok(Config { owner: owner.map(|secret| SecretHash::of(&secret)), ..config }),
        false => Err(from.mistakes),
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
    text.parse().map_err(|_| format!("{} is no address with a port, like 127.0.0.1:8888 or [::1]:8888", quoted(text)))
}

fn parse_switch(text: &str) -> Result<bool, String> {
    match text {
        "yes" => Ok(true),
        "no" => Ok(false),
        _ => Err(format!("{} is neither yes nor no", quoted(text))),
    }
}

fn parse_endpoint(text: &str) -> Result<String, String> {
    let host = text.strip_prefix("http://").or(text.strip_prefix("https://"));
    let is_host = host.is_some_and(|host| !host.is_empty() && !host.contains(['@', '?', '#', ' ']));
    if is_host {
        Ok(text.to_owned())
    } else {
        Err(format!("{} is no URL of http:// or https:// and a host", quoted(text)))
    }
}

fn number_of_parts(text: &str) -> Result<u64, String> {
    match at_least_one(text)? {
        number if number <= MOST_PARTS_AT_ONCE => Ok(number),
        number => Err(format!("{number} is more than {MOST_PARTS_AT_ONCE}")),
    }
}

fn some_text(text: &str) -> Result<String, String> {
    match text.trim() {
        "" => Err("it has no letter".to_owned()),
        text if text.chars().any(char::is_control) => Err("it has a control character".to_owned()),
        text => Ok(text.to_owned()),
    }
}

fn merger_beside() -> PathBuf {
    // Where we are cannot be told only if /proc is missing; the search path is the next best.
    let beside = std::env::current_exe().ok().map(|me| me.with_file_name("bigup-merger"));
    beside.filter(|path| path.exists()).unwrap_or_else(|| PathBuf::from("bigup-merger"))
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
    bigup_core::protocol::units::parse_u64(text).ok_or_else(|| format!("{} is not a whole number", quoted(text)))
}

fn at_least_one(text: &str) -> Result<u64, String> {
    match parse_count(text)? {
        0 => Err("0 would refuse everything".to_owned()),
        count => Ok(count),
    }
}

fn number_of_attempts(text: &str) -> Result<u32, String> {
    u32::try_from(at_least_one(text)?).map_err(|_| format!("{text} is too many: at most {}", u32::MAX))
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

fn room_for_bodies(text: &str) -> Result<u64, String> {
    match parse_size(text)? {
        size if size < MIB => Err(format!("{size} bytes are too few: bodies need {MIB}")),
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
    use crate::cli::{Arguments, Command, DataDirCommand};
    use clap::Parser;
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
        assert_eq!(config.mergers.idle, Duration::from_secs(2));
        assert_eq!(config.stop_grace, Duration::from_secs(1));
        assert_eq!(config.uploads.takeover_after, Duration::from_secs(15));
    }

    #[test]
    fn every_setting_of_the_table_is_read() {
        let asked = std::cell::RefCell::new(vec![]);
        let environment = |name: &str| {
            asked.borrow_mut().push(name.to_owned());
            None
        };
        parse(&["--data-dir", "/d"]).settle(&environment).unwrap();
        let unread: Vec<_> = SETTINGS.iter().filter(|setting| !asked.borrow().contains(&setting.variable())).collect();
        // A setting given by a flag is not looked for elsewhere.
        assert_eq!(unread.iter().map(|setting| setting.key).collect::<Vec<_>>(), ["data_dir"]);
    }

    #[test]
    fn examples_are_values() {
        for setting in SETTINGS {
            let environment = |name: &str| (name == setting.variable()).then(|| setting.example.to_owned());
            let mut from =
                Collector { flags: Given::default(), environment: &environment, file: vec![], mistakes: vec![] };
            Config::collect(&mut from);
            let about: Vec<_> = from.mistakes.iter().filter(|mistake| mistake.contains(&setting.variable())).collect();
            assert!(setting.key == "data_dir" || about.is_empty(), "{about:?}");
        }
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
        let all =
            ["--data-dir", "/d", "--tls-cert", "c", "--tls-key", "k", "--tls-client-ca", "a", "--tls-client-crl", "r"];
        let (config, _) = parse(&all).settle(&nothing).unwrap();
        let files =
            TlsFiles { cert: "c".into(), key: "k".into(), client_ca: Some("a".into()), client_crl: Some("r".into()) };
        assert_eq!(config.tls, Some(files));
    }

    #[test]
    fn subcommands_know_the_data_folder_and_the_configuration_file() {
        for arguments in [&["--data-dir", "/d", "token", "list"][..], &["token", "list", "--data-dir", "/d"]] {
            let mut arguments = parse(arguments);
            let command = arguments.command.take();
            assert!(matches!(command, Some(Command::OfDataDir(of)) if matches!(*of, DataDirCommand::Token(_))));
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
