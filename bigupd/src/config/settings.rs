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
    /// The value if no other is given, in the form of a configuration. `None` if there is no default.
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
    /// The place of the data, and the clients that are let in.
    Serving,
    /// Certificates.
    Tls,
    /// Disk space, and how long uploads live.
    Uploads,
    /// A store of objects for finished files.
    Store,
    /// Requests over a limit are refused.
    Limits,
    /// Times.
    Times,
    /// Programs and URLs that are asked and told.
    Hooks,
    /// The page for browsers.
    Page,
}

impl Topic {
    /// Its heading.
    pub fn title(self) -> &'static str {
        match self {
            Topic::Serving => "Serving",
            Topic::Tls => "TLS",
            Topic::Uploads => "Uploads",
            Topic::Store => "Store",
            Topic::Limits => "Limits",
            Topic::Times => "Times",
            Topic::Hooks => "Hooks",
            Topic::Page => "Page",
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
        help: "Use this data folder; created if missing",
        topic: Topic::Serving,
    },
    Setting {
        key: "listen",
        value: "ADDR:PORT|unix:PATH",
        // This machine only, the seed's port.
        default: Some("127.0.0.1:8888"),
        example: "0.0.0.0:8888",
        help: "Listen on this address and port; port 0 takes a free one. Addresses beyond this machine need tokens, \
               tls_client_ca or allow_anonymous. unix: and an absolute path make a socket for a proxy on this \
               machine. Sockets passed by systemd (bigupd.socket) replace it",
        topic: Topic::Serving,
    },
    Setting {
        key: "listen_mode",
        value: "MODE",
        // The daemon's user and group, which can include a proxy's user.
        default: Some("660"),
        example: "666",
        help: "Set the mode of the socket of listen = unix:PATH, in octal; write permission lets a user connect",
        topic: Topic::Serving,
    },
    Setting {
        key: "allow_anonymous",
        value: "YES|NO",
        default: Some("no"),
        example: "yes",
        help: "Let in clients without a token. If there are no tokens, they have full access, from every address. If \
               there are tokens, they can push and read, but not replace files or go on with uploads that a token \
               began",
        topic: Topic::Serving,
    },
    Setting {
        key: "anonymous_quota",
        value: "SIZE",
        default: None,
        example: "100G",
        help: "Limit the total size of all files, finished and unfinished, up to which clients without a token can \
               push. A file, a folder and a slice count as at least 4096 bytes",
        topic: Topic::Serving,
    },
    Setting {
        key: "allowed_origins",
        value: "ORIGINS",
        default: None,
        example: "https://app.example.org",
        help: "Let web pages of these origins call, separated by commas, like https://app.example.org; * allows all \
               origins, whose requests then need a token. Pages of other origins cannot read responses, and need a \
               token to change anything",
        topic: Topic::Serving,
    },
    Setting {
        key: "allowed_hosts",
        value: "NAMES",
        default: None,
        example: "files.example.org",
        help: "Accept these names of the server in requests without a token, separated by commas. Addresses, \
               localhost and the machine's own name are always accepted",
        topic: Topic::Serving,
    },
    Setting {
        key: "trusted_proxies",
        value: "ADDRS",
        default: None,
        example: "127.0.0.1, 10.1.0.0/16",
        help: "Trust these proxies, separated by commas, to name their client by X-Forwarded-For or Forwarded: \
               addresses, networks, and unix for every connection to a socket in the file system. That client counts \
               for limits, log and hooks",
        topic: Topic::Serving,
    },
    Setting {
        key: "metrics_listen",
        value: "ADDR:PORT",
        default: None,
        example: "127.0.0.1:9888",
        help: "Serve /metrics, /healthz and /readyz at this address too, over plain HTTP and to all clients. /metrics \
               is then served there only. Without it they are served where uploads go",
        topic: Topic::Serving,
    },
    Setting {
        key: "merger",
        value: "PATH",
        default: None,
        example: "/usr/lib/bigup/bigup-merger",
        help: "Run this program as merge worker; without it bigup-merger beside this program",
        topic: Topic::Serving,
    },
    Setting {
        key: "tls_cert",
        value: "FILE",
        default: None,
        example: "/etc/bigup/cert.pem",
        help: "Use this certificate chain (PEM); with it and its key all connections are TLS. Read again on SIGHUP",
        topic: Topic::Tls,
    },
    Setting {
        key: "tls_key",
        value: "FILE",
        default: None,
        example: "/etc/bigup/key.pem",
        help: "Use this private key of the certificate (PEM); the daemon's user must be able to read it",
        topic: Topic::Tls,
    },
    Setting {
        key: "tls_client_ca",
        value: "FILE",
        default: None,
        example: "/etc/bigup/clients.pem",
        help: "Require client certificates of one of these authorities (PEM)",
        topic: Topic::Tls,
    },
    Setting {
        key: "tls_client_crl",
        value: "FILE",
        default: None,
        example: "/etc/bigup/clients.crl",
        help: "Check client certificates against these revocation lists (PEM): one list of each authority from a \
               client's certificate up to the one in tls_client_ca. Revoked certificates are refused, and all \
               certificates once a list is out of date. Read again on SIGHUP",
        topic: Topic::Tls,
    },
    Setting {
        key: "file_mode",
        value: "MODE",
        default: None,
        example: "640",
        help: "Set permissions of finished files, in octal; without it the daemon's umask decides",
        topic: Topic::Uploads,
    },
    Setting {
        key: "dir_mode",
        value: "MODE",
        default: None,
        example: "750",
        help: "Set permissions of folders made for finished files, in octal; without it the daemon's umask decides",
        topic: Topic::Uploads,
    },
    Setting {
        key: "keep",
        value: "FACTS",
        default: Some("times,mode"),
        example: "none",
        help: "Keep these facts of clients' files where clients ask for them: times (of the last write), mode \
               (permissions, within file_mode, or else within the daemon's umask), both, or none",
        topic: Topic::Uploads,
    },
    Setting {
        key: "slice_ack",
        value: "WRITTEN|SYNCED",
        default: Some("written"),
        example: "synced",
        help: "Choose the promise of a slice's 200: written (survives the death of any process) or synced (a power \
               cut too)",
        topic: Topic::Uploads,
    },
    Setting {
        key: "existing_files",
        value: "NUMBER|REJECT|REPLACE",
        default: Some("number"),
        example: "reject",
        help: "Choose the treatment of an upload at /files/ whose name is taken: number (store it as `a (2).bin`), \
               reject, or replace (needs a token with that permission)",
        topic: Topic::Uploads,
    },
    Setting {
        key: "reserve",
        value: "SIZE",
        // Enough for logs, small uploads and an operator's shell on a disk that big uploads have filled.
        default: Some("256M"),
        example: "10G",
        help: "Keep this much disk space free of uploads",
        topic: Topic::Uploads,
    },
    Setting {
        key: "expire_after",
        value: "TIME",
        // Longer than a weekend and a holiday beside it.
        default: Some("7d"),
        example: "30d",
        help: "Remove an unfinished upload this long after its last byte; 0: never",
        topic: Topic::Uploads,
    },
    Setting {
        key: "begin_expire_after",
        value: "TIME",
        // A pipe's first byte can take its time; no client's work is lost.
        default: Some("1h"),
        example: "1d",
        help: "Remove an unfinished upload that holds nothing after this time without a byte; 0: like any other",
        topic: Topic::Uploads,
    },
    Setting {
        key: "takeover_after",
        value: "TIME",
        // More than a pause between two slices, less than people wait.
        default: Some("15s"),
        example: "1m",
        help: "Let a push of other content take over an upload after this time without a request of its client. An \
               upload whose client only waits for the server to finish the file is not taken over",
        topic: Topic::Uploads,
    },
    Setting {
        key: "store",
        value: "s3://BUCKET/PREFIX",
        default: None,
        example: "s3://files/bigup",
        help: "Store finished files in this bucket of an S3-compatible store, below this prefix, and not in the data folder",
        topic: Topic::Store,
    },
    Setting {
        key: "s3_endpoint",
        value: "URL",
        default: None,
        example: "https://s3.example.org",
        help: "Reach the store at this URL; without it at Amazon's of the region",
        topic: Topic::Store,
    },
    Setting {
        key: "s3_region",
        value: "NAME",
        default: Some("us-east-1"),
        example: "eu-central-1",
        help: "Sign requests to the store for this region",
        topic: Topic::Store,
    },
    Setting {
        key: "s3_path_style",
        value: "yes|no",
        default: Some("yes"),
        example: "no",
        help: "yes: name the bucket in the path of requests; no: name it in the host, as BUCKET.HOST",
        topic: Topic::Store,
    },
    Setting {
        key: "s3_credentials_file",
        value: "FILE",
        default: None,
        example: "/etc/bigup/s3",
        help: "Read aws_access_key_id and aws_secret_access_key from this file at each request; without it the \
               environment has AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
        topic: Topic::Store,
    },
    Setting {
        key: "s3_parts_at_once",
        value: "NUMBER",
        default: Some("4"),
        example: "8",
        help: "Send at most so many parts of one file to the store at once",
        topic: Topic::Store,
    },
    Setting {
        key: "s3_redirect",
        value: "yes|no",
        default: Some("no"),
        example: "yes",
        help: "Send readers of finished files to the store, by a link that holds for 5 minutes",
        topic: Topic::Store,
    },
    Setting {
        key: "spool_limit",
        value: "SIZE",
        // The disk is the limit, and its reserve.
        default: Some("0"),
        example: "200G",
        help: "While files wait for the store, let unfinished uploads take at most this much of the data folder; 0: the disk is the limit",
        topic: Topic::Store,
    },
    Setting {
        key: "max_file_size",
        value: "SIZE",
        // The largest size that the design is made for.
        default: Some("16T"),
        example: "500G",
        help: "Limit the size of a file",
        topic: Topic::Limits,
    },
    Setting {
        key: "max_slice_size",
        value: "SIZE",
        // Far above what clients use; bounds what a refused body can cost.
        default: Some("1G"),
        example: "64M",
        help: "Limit the size of a slice",
        topic: Topic::Limits,
    },
    Setting {
        key: "max_slices",
        value: "N",
        default: Some("1000000"),
        example: "10000",
        help: "Limit the slices of a file, at most 1000000",
        topic: Topic::Limits,
    },
    Setting {
        key: "max_uploads",
        value: "N",
        // Of all clients; each is a folder.
        default: Some("10000"),
        example: "500",
        help: "Limit unfinished uploads in all",
        topic: Topic::Limits,
    },
    Setting {
        key: "max_uploads_per_token",
        value: "N",
        default: Some("1000"),
        example: "50",
        help: "Limit unfinished uploads of a token; if there are tokens, all clients without a token count as one",
        topic: Topic::Limits,
    },
    Setting {
        key: "max_mergers",
        value: "N",
        // Each is a process of a few MiB that keeps a disk busy; more would only take turns.
        default: Some("16"),
        example: "4",
        help: "Limit mergers at work; further uploads wait for their turn",
        topic: Topic::Limits,
    },
    Setting {
        key: "max_connections",
        value: "N",
        // Most connections that one process holds with little memory.
        default: Some("16384"),
        example: "1000",
        help: "Limit open connections; lowered at start, with a warning, if too few open files are allowed",
        topic: Topic::Limits,
    },
    Setting {
        key: "max_connections_per_address",
        value: "N",
        // Far above what a client or a common proxy opens.
        default: Some("1024"),
        example: "0",
        help: "Limit connections from an address (IPv6: a /64); 0: no such limit, as behind a proxy",
        topic: Topic::Limits,
    },
    Setting {
        key: "max_response_size",
        value: "SIZE",
        // Room for the ids of a million slices.
        default: Some("16M"),
        example: "64M",
        help: "Limit the size of a response, at least 1M; four of this size can be on the way at once",
        topic: Topic::Limits,
    },
    Setting {
        key: "max_body_memory",
        value: "SIZE",
        // Sixteen bodies at full speed.
        default: Some("64M"),
        example: "256M",
        help: "Limit the memory for all arriving bodies together, at least 1M, beside 64K for each. The more bodies \
               arrive, the smaller are the pieces in which they are written",
        topic: Topic::Limits,
    },
    Setting {
        key: "min_body_rate",
        value: "SIZE",
        // Below every link that a push makes sense over, far above the rate of an attack by trickling.
        default: Some("1K"),
        example: "0",
        help: "Require this many bytes per second of a body that arrives, and of a response that is read, over each \
               body_timeout; 0: any rate",
        topic: Topic::Limits,
    },
    Setting {
        key: "body_timeout",
        value: "TIME",
        // As long as common proxies wait for a silent peer.
        default: Some("60s"),
        example: "5m",
        help: "Give up a request after this time without a byte of its body",
        topic: Topic::Times,
    },
    Setting {
        key: "header_timeout",
        value: "TIME",
        // A client that is at work sends its next header at once; a client that trickles holds a connection this long.
        default: Some("30s"),
        example: "10s",
        help: "Limit the time for receiving the complete request header",
        topic: Topic::Times,
    },
    Setting {
        key: "idle_timeout",
        value: "TIME",
        // More than common proxies keep theirs, so that they close first and no request meets a closing connection.
        default: Some("75s"),
        example: "10m",
        help: "Close a connection this long after its last response",
        topic: Topic::Times,
    },
    Setting {
        key: "merger_idle",
        value: "TIME",
        // Long enough to bridge a slow client's pause, short enough that idle mergers do not pile up.
        default: Some("10s"),
        example: "1m",
        help: "End a merger after this time without a new slice",
        topic: Topic::Times,
    },
    Setting {
        key: "stop_grace",
        value: "TIME",
        // Systemd's default stop timeout (90 s) is much longer.
        default: Some("10s"),
        example: "30s",
        help: "Give running requests this time to finish after SIGTERM; a second signal ends the daemon at once",
        topic: Topic::Times,
    },
    Setting {
        key: "drain_time",
        value: "TIME",
        // Without a balancer nothing is won by waiting.
        default: Some("0s"),
        example: "20s",
        help: "Serve on for this time after SIGTERM, while /readyz answers 503, so that a balancer sends new requests \
               elsewhere. 0: stop at once",
        topic: Topic::Times,
    },
    Setting {
        key: "on_begin",
        value: "PATH|URL",
        default: None,
        example: "/etc/bigup/on-begin",
        help: "Ask this program (absolute path, no arguments) or http(s):// URL before an upload begins; it can \
               refuse the upload. See docs/hooks.md",
        topic: Topic::Hooks,
    },
    Setting {
        key: "on_begin_timeout",
        value: "TIME",
        // A client waits for it.
        default: Some("10s"),
        example: "30s",
        help: "End on_begin after this time; the client is told to retry",
        topic: Topic::Hooks,
    },
    Setting {
        key: "on_complete",
        value: "PATH|URL",
        default: None,
        example: "/etc/bigup/on-complete",
        help: "Tell this program (absolute path, no arguments) or http(s):// URL of each finished file, at least \
               once. Must be the same for all daemons of a data folder. See docs/hooks.md",
        topic: Topic::Hooks,
    },
    Setting {
        key: "on_complete_timeout",
        value: "TIME",
        // Enough to send a message, or to move a file within a disk; slower hooks need a longer setting.
        default: Some("60s"),
        example: "1h",
        help: "End on_complete after this time, which counts as a failure",
        topic: Topic::Hooks,
    },
    Setting {
        key: "on_complete_attempts",
        value: "N",
        // About a quarter of an hour, with pauses from 1 s to 5 min.
        default: Some("10"),
        example: "100",
        help: "Try on_complete this many times, with doubling pauses of 1 s to 5 min. Then the file's completion \
               record goes to completed/failed/ in the data folder",
        topic: Topic::Hooks,
    },
    Setting {
        key: "hook_secret_file",
        value: "FILE",
        default: None,
        example: "/etc/bigup/hook.secret",
        help: "Sign requests to hooks' URLs with the secret in this file (whsec_ and base64), by HMAC-SHA256 as in \
               Standard Webhooks; read each time. See docs/hooks.md",
        topic: Topic::Hooks,
    },
    Setting {
        key: "web",
        value: "YES|NO",
        default: Some("yes"),
        example: "no",
        help: "Serve a page at / on which browsers drop files; it uploads like any client, with the same tokens and limits",
        topic: Topic::Page,
    },
    Setting {
        key: "web_title",
        value: "TEXT",
        default: Some("bigup"),
        example: "Files for Example",
        help: "Show this title on the page",
        topic: Topic::Page,
    },
    Setting {
        key: "web_text",
        value: "TEXT",
        default: None,
        example: "Questions: files@example.org",
        help: "Show this sentence below the title",
        topic: Topic::Page,
    },
    Setting {
        key: "web_logo",
        value: "FILE",
        default: None,
        example: "/etc/bigup/logo.svg",
        help: "Show this picture beside the title: .svg, .png, .jpg or .webp, at most 1 MiB; read at the start",
        topic: Topic::Page,
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
            let is_part_of_name = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
            assert!(setting.key.bytes().all(is_part_of_name), "{}", setting.key);
            assert!(SETTINGS[..i].iter().all(|other| other.key != setting.key), "{} twice", setting.key);
            assert_ne!(setting.default, Some(setting.example), "{}: the example tells nothing", setting.key);
            assert!(!setting.help.ends_with('.') && setting.help.len() > 10, "{}", setting.key);
        }
    }
}
