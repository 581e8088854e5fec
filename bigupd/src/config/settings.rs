//! Every setting, in one table: the command line, the environment, the configuration file and its sample, the manual and
//! the reference are made from it.

use clap::{Arg, ArgMatches, Args, Command, FromArgMatches};
use std::collections::HashMap;

/// A setting.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Its name in the configuration file: `max_uploads` there is `--max-uploads` on the command line and
    /// `BIGUP_MAX_UPLOADS` in the environment.
    pub key: &'static str,
    /// The kind of its value, like `SIZE`.
    pub value: &'static str,
    /// The value where none is given, as one would write it. `None` if there is none.
    pub default: Option<&'static str>,
    /// An example of another value.
    pub example: &'static str,
    /// Its meaning, in a sentence or two.
    pub help: &'static str,
    /// Its topic.
    pub topic: Topic,
}

/// Topics of settings; they are shown in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topic {
    /// Where the data are, who is let in.
    Serving,
    /// Certificates.
    Tls,
    /// Room, and how long uploads live.
    Uploads,
    /// Requests over a limit are refused.
    Limits,
    /// Times.
    Times,
    /// Programs and URLs that are asked and told.
    Hooks,
}

impl Topic {
    /// Its heading.
    pub fn title(self) -> &'static str {
        match self {
            Topic::Serving => "Serving",
            Topic::Tls => "TLS",
            Topic::Uploads => "Uploads",
            Topic::Limits => "Limits",
            Topic::Times => "Times",
            Topic::Hooks => "Hooks",
        }
    }
}

impl Setting {
    /// The same on the command line, without the two dashes.
    pub fn flag(&self) -> String {
        self.key.replace('_', "-")
    }

    /// The same in the environment.
    pub fn variable(&self) -> String {
        format!("BIGUP_{}", self.key.to_uppercase())
    }

    fn arg(&self) -> Arg {
        let default = self.default.map(|default| format!(" [default: {default}]")).unwrap_or_default();
        let arg = Arg::new(self.key).long(self.flag()).value_name(self.value).help_heading(self.topic.title());
        // Subcommands work on the same data folder.
        arg.help(format!("{}{default}", self.help)).global(self.key == "data_dir")
    }
}

/// The setting of this key.
pub fn find(key: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.key == key)
}

/// The values given on the command line, by keys.
#[derive(Clone, Debug, Default)]
pub struct Given(HashMap<&'static str, String>);

impl Given {
    /// The value given for a key.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }
}

impl Args for Given {
    fn augment_args(command: Command) -> Command {
        command.args(SETTINGS.iter().map(Setting::arg))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Given::augment_args(command)
    }
}

impl FromArgMatches for Given {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Given, clap::Error> {
        let mut given = Given::default();
        given.update_from_arg_matches(matches)?;
        Ok(given)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        let found = SETTINGS.iter().filter_map(|s| Some((s.key, matches.get_one::<String>(s.key)?.clone())));
        self.0.extend(found);
        Ok(())
    }
}

/// All settings.
pub const SETTINGS: &[Setting] = &[
    Setting {
        key: "data_dir",
        value: "DIR",
        default: None,
        example: "/var/lib/bigup",
        help: "The data folder; created if missing",
        topic: Topic::Serving,
    },
    Setting {
        key: "listen",
        value: "ADDR:PORT|unix:PATH",
        // This machine only, the seed's port.
        default: Some("127.0.0.1:8888"),
        example: "0.0.0.0:8888",
        help: "Address and port to listen on; port 0 takes a free one. Other addresses than this machine's own need \
               tokens, tls_client_ca or allow_anonymous. unix: and an absolute path: a socket there, for a proxy on this \
               machine. Sockets that systemd passes (bigupd.socket) count in its place",
        topic: Topic::Serving,
    },
    Setting {
        key: "listen_mode",
        value: "MODE",
        // The daemon's user and group, where a proxy's user may be.
        default: Some("660"),
        example: "666",
        help: "Mode of the socket that listen = unix:PATH makes, in octal: who may write to it may connect",
        topic: Topic::Serving,
    },
    Setting {
        key: "allow_anonymous",
        value: "YES|NO",
        default: Some("no"),
        example: "yes",
        help: "Let in who has no token: without tokens to do everything, also at other addresses than this machine's \
               own; with tokens to push and read, but not to replace or to go on with what a token began",
        topic: Topic::Serving,
    },
    Setting {
        key: "anonymous_quota",
        value: "SIZE",
        default: None,
        example: "100G",
        help: "Who has no token may push as long as all files together, finished and unfinished, take at most so much; a file, \
               a folder and a slice count as 4096 bytes at least",
        topic: Topic::Serving,
    },
    Setting {
        key: "allowed_origins",
        value: "ORIGINS",
        default: None,
        example: "https://app.example.org",
        help: "Origins whose web pages may call, between commas, like https://app.example.org; * for those of all, who \
               need a token then. Pages of other origins may not read answers, and change nothing without a token",
        topic: Topic::Serving,
    },
    Setting {
        key: "allowed_hosts",
        value: "NAMES",
        default: None,
        example: "files.example.org",
        help: "Names of this server, between commas, by which it is asked without a token. Those that count by themselves \
               are addresses, localhost, and the machine's own name",
        topic: Topic::Serving,
    },
    Setting {
        key: "trusted_proxies",
        value: "ADDRS",
        default: None,
        example: "127.0.0.1, 10.1.0.0/16",
        help: "Proxies, between commas, that tell for whom they ask by X-Forwarded-For or Forwarded: addresses, networks, \
               and unix for all who reach a socket in the file system. Who they ask for counts for limits, log and hooks",
        topic: Topic::Serving,
    },
    Setting {
        key: "metrics_listen",
        value: "ADDR:PORT",
        default: None,
        example: "127.0.0.1:9888",
        help: "Answer /metrics, /healthz and /readyz at an address of their own too, over plain HTTP and to everybody who \
               reaches it; /metrics is there alone then. Without it they are where uploads go",
        topic: Topic::Serving,
    },
    Setting {
        key: "merger",
        value: "PATH",
        default: None,
        example: "/usr/lib/bigup/bigup-merger",
        help: "The merge worker's program; without it bigup-merger beside this program",
        topic: Topic::Serving,
    },
    Setting {
        key: "tls_cert",
        value: "FILE",
        default: None,
        example: "/etc/bigup/cert.pem",
        help: "Certificate chain (PEM); with it and its key all connections are TLS. Read again on SIGHUP",
        topic: Topic::Tls,
    },
    Setting {
        key: "tls_key",
        value: "FILE",
        default: None,
        example: "/etc/bigup/key.pem",
        help: "Private key of the certificate (PEM), readable by the daemon's user",
        topic: Topic::Tls,
    },
    Setting {
        key: "tls_client_ca",
        value: "FILE",
        default: None,
        example: "/etc/bigup/clients.pem",
        help: "Clients must show a certificate of one of these authorities (PEM)",
        topic: Topic::Tls,
    },
    Setting {
        key: "tls_client_crl",
        value: "FILE",
        default: None,
        example: "/etc/bigup/clients.crl",
        help: "Certificate revocation lists (PEM), one of each authority from a client's certificate up to the one in \
               tls_client_ca. A revoked certificate is refused, and so is every certificate once a list is out of date. \
               Read again on SIGHUP",
        topic: Topic::Tls,
    },
    Setting {
        key: "file_mode",
        value: "MODE",
        default: None,
        example: "640",
        help: "Permissions of finished files, in octal; without it what the daemon's umask leaves",
        topic: Topic::Uploads,
    },
    Setting {
        key: "dir_mode",
        value: "MODE",
        default: None,
        example: "750",
        help: "Permissions of folders that are made for finished files, in octal; without it what the daemon's umask leaves",
        topic: Topic::Uploads,
    },
    Setting {
        key: "slice_ack",
        value: "WRITTEN|SYNCED",
        default: Some("written"),
        example: "synced",
        help: "What a slice's 200 promises: written (it survives the death of any process) or synced (a power cut too)",
        topic: Topic::Uploads,
    },
    Setting {
        key: "reserve",
        value: "SIZE",
        // Enough for logs, small uploads and an operator's shell on a disk that big uploads have filled.
        default: Some("256M"),
        example: "10G",
        help: "Room that uploads leave free on the disk",
        topic: Topic::Uploads,
    },
    Setting {
        key: "expire_after",
        value: "TIME",
        // Longer than a weekend and a holiday beside it.
        default: Some("7d"),
        example: "30d",
        help: "An unfinished upload is removed this long after its last byte; 0: never",
        topic: Topic::Uploads,
    },
    Setting {
        key: "begin_expire_after",
        value: "TIME",
        // A pipe's first byte can take its time; no client's work is lost.
        default: Some("1h"),
        example: "1d",
        help: "An unfinished upload that holds nothing is removed once nothing of it came for this time; 0: like any other",
        topic: Topic::Uploads,
    },
    Setting {
        key: "takeover_after",
        value: "TIME",
        // More than a pause between two slices, less than people wait.
        default: Some("15s"),
        example: "1m",
        help: "A push of which nothing was heard for so long may be taken over by another one of other content; one that only \
               waits for the server to finish its file is not",
        topic: Topic::Uploads,
    },
    Setting {
        key: "max_file_size",
        value: "SIZE",
        // The largest size that the design is made for.
        default: Some("16T"),
        example: "500G",
        help: "Largest file",
        topic: Topic::Limits,
    },
    Setting {
        key: "max_slice_size",
        value: "SIZE",
        // Far above what clients use; bounds what a refused body can cost.
        default: Some("1G"),
        example: "64M",
        help: "Largest slice",
        topic: Topic::Limits,
    },
    Setting {
        key: "max_slices",
        value: "N",
        default: Some("1000000"),
        example: "10000",
        help: "Most slices of a file, at most a million",
        topic: Topic::Limits,
    },
    Setting {
        key: "max_uploads",
        value: "N",
        // Of all clients; each is a folder.
        default: Some("10000"),
        example: "500",
        help: "Most unfinished uploads in all",
        topic: Topic::Limits,
    },
    Setting {
        key: "max_uploads_per_token",
        value: "N",
        default: Some("1000"),
        example: "50",
        help: "Most unfinished uploads of one token; where there are tokens, all who have none count as one",
        topic: Topic::Limits,
    },
    Setting {
        key: "max_mergers",
        value: "N",
        // Each is a process of a few MiB that keeps a disk busy; more would only take turns.
        default: Some("16"),
        example: "4",
        help: "Most mergers at work; more wait for their turn",
        topic: Topic::Limits,
    },
    Setting {
        key: "max_connections",
        value: "N",
        // Most connections that one process holds with little memory.
        default: Some("16384"),
        example: "1000",
        help: "Most connections at once; lowered at start, with a warning, to what the open files that are allowed suffice for",
        topic: Topic::Limits,
    },
    Setting {
        key: "max_connections_per_address",
        value: "N",
        // Far above what a client or a common proxy opens.
        default: Some("1024"),
        example: "0",
        help: "Most connections from one address (of IPv6: one /64); 0: no limit of its own, as behind a proxy",
        topic: Topic::Limits,
    },
    Setting {
        key: "max_answer_size",
        value: "SIZE",
        // Room for the ids of a million slices.
        default: Some("16M"),
        example: "64M",
        help: "Largest answer, at least 1M; four such may be on the way at once",
        topic: Topic::Limits,
    },
    Setting {
        key: "max_body_memory",
        value: "SIZE",
        // Sixteen bodies at full speed.
        default: Some("64M"),
        example: "256M",
        help: "Memory that all arriving bodies take together, at least 1M, beside 64K for each. The more bodies arrive, the \
               smaller are the pieces that they are written in",
        topic: Topic::Limits,
    },
    Setting {
        key: "min_body_rate",
        value: "SIZE",
        // Below any link that a push makes sense over, far above what it costs to trickle.
        default: Some("1K"),
        example: "0",
        help: "Bytes a second that a body must bring, and that an answer must be read with, over each body_timeout; \
               0: any",
        topic: Topic::Limits,
    },
    Setting {
        key: "body_timeout",
        value: "TIME",
        // As long as common proxies wait for a silent peer.
        default: Some("60s"),
        example: "5m",
        help: "A request is given up after this time without a byte of its body",
        topic: Topic::Times,
    },
    Setting {
        key: "header_timeout",
        value: "TIME",
        // A client that is at work sends its next head at once; one that trickles holds a connection this long.
        default: Some("30s"),
        example: "10s",
        help: "Longest time from the first byte of a request's head, or from the begin of a connection, to the head's \
               end",
        topic: Topic::Times,
    },
    Setting {
        key: "idle_timeout",
        value: "TIME",
        // More than common proxies keep theirs, so that they close first and no request meets a closing connection.
        default: Some("75s"),
        example: "10m",
        help: "A connection is closed this long after its last answer",
        topic: Topic::Times,
    },
    Setting {
        key: "merger_idle",
        value: "TIME",
        // Long enough to bridge a slow client's pause, short enough that idle mergers do not pile up.
        default: Some("10s"),
        example: "1m",
        help: "A merger leaves after this time without a new slice",
        topic: Topic::Times,
    },
    Setting {
        key: "stop_grace",
        value: "TIME",
        // Systemd's default stop timeout (90 s) is much longer.
        default: Some("10s"),
        example: "30s",
        help: "After SIGTERM running requests have this time to finish; a second signal ends the daemon at once",
        topic: Topic::Times,
    },
    Setting {
        key: "on_begin",
        value: "PATH|URL",
        default: None,
        example: "/etc/bigup/on-begin",
        help: "Program (absolute path, no arguments) or http(s):// URL that is asked before an upload begins, and may \
               refuse it. See docs/hooks.md",
        topic: Topic::Hooks,
    },
    Setting {
        key: "on_begin_timeout",
        value: "TIME",
        // A client waits for it.
        default: Some("10s"),
        example: "30s",
        help: "on_begin is ended after this time, and the client told to come back",
        topic: Topic::Hooks,
    },
    Setting {
        key: "on_complete",
        value: "PATH|URL",
        default: None,
        example: "/etc/bigup/on-complete",
        help: "Program (absolute path, no arguments) or http(s):// URL that is told of each finished file, at least once. \
               The same for all daemons of a data folder. See docs/hooks.md",
        topic: Topic::Hooks,
    },
    Setting {
        key: "on_complete_timeout",
        value: "TIME",
        // Enough to send a message, or to move a file within a disk; slower hooks need a longer setting.
        default: Some("60s"),
        example: "1h",
        help: "on_complete is ended after this time, which counts as a failure",
        topic: Topic::Hooks,
    },
    Setting {
        key: "on_complete_attempts",
        value: "N",
        // About a quarter of an hour, with pauses from 1 s to 5 min.
        default: Some("10"),
        example: "100",
        help: "How often on_complete is tried, with doubling pauses of 1 s to 5 min; then the notice of the file goes to \
               completed/failed/ in the data folder",
        topic: Topic::Hooks,
    },
    Setting {
        key: "hook_secret_file",
        value: "FILE",
        default: None,
        example: "/etc/bigup/hook.secret",
        help: "File with a secret (whsec_ and base64) by which what hooks' URLs get is signed with HMAC-SHA256, as Standard \
               Webhooks has it; read each time. See docs/hooks.md",
        topic: Topic::Hooks,
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_come_one_after_the_other() {
        let mut topics: Vec<Topic> = SETTINGS.iter().map(|setting| setting.topic).collect();
        topics.dedup();
        let unique: Vec<_> = topics.iter().enumerate().filter(|(i, t)| !topics[..*i].contains(t)).collect();
        assert_eq!(topics.len(), unique.len(), "{topics:?}");
    }

    #[test]
    fn keys_are_names_and_come_once() {
        for (i, setting) in SETTINGS.iter().enumerate() {
            assert!(setting.key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{}", setting.key);
            assert!(SETTINGS[..i].iter().all(|other| other.key != setting.key), "{} twice", setting.key);
            assert_ne!(setting.default, Some(setting.example), "{}: the example tells nothing", setting.key);
            assert!(!setting.help.ends_with('.') && setting.help.len() > 10, "{}", setting.key);
        }
    }
}
