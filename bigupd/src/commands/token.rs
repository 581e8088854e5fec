//! `bigupd token`: making, listing and revoking tokens. Daemons see changes at their next request.

use crate::admission::amount::Amount;
use crate::admission::quota;
use crate::admission::tokens::uses::Uses;
use crate::admission::tokens::{Permission, Prefix, SecretHash, Token, Tokens, check_name, new_secret, now};
use crate::admission::upload_count::UploadCount;
use crate::commands::owner;
use anyhow::{Context, bail};
use bigup_core::protocol::name::quoted;
use bigup_core::protocol::units::{parse_duration, parse_size, parse_u64, show_size};
use bigup_core::storage::data_dir::DataDir;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const AFTER_HELP: &str = "\
Exit codes:
  0  success
  1  failure; nothing changed
  2  the command line or the configuration is invalid

Files:
  DATA/tokens.json       hashes and permissions of the tokens; never the tokens themselves
  DATA/token-uses.json   last use of each token, written by daemons once a minute

Examples:
  bigupd token new alice --prefix alice/ --output alice.token   make a token for everything below a folder
  bigupd token new guest --prefix guest/ --permissions push --expires 7d --link https://files.example.org   make a
      link with which a guest can send files on the page; with --once a single file
  bigupd token new lab --certificate lab.example.org   give rights to a client certificate
  bigupd token list   list the tokens
  bigupd token revoke alice   end a token";

/// Arguments of `bigupd token`.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = AFTER_HELP)]
pub struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(clap::Subcommand, Clone, Debug)]
enum Action {
    /// Make a token and print it once: only its hash is stored. With --certificate there is no secret
    #[command(after_help = AFTER_HELP)]
    New(New),
    /// List the tokens without their secrets: permissions, used part of the quota, last use
    #[command(after_help = AFTER_HELP)]
    List {
        /// Print a JSON object
        #[arg(long)]
        json: bool,
    },
    /// End a token: requests with it are refused. Its uploads stay
    #[command(after_help = AFTER_HELP)]
    Revoke {
        /// Its name
        name: String,
    },
}

#[derive(clap::Args, Clone, Debug)]
struct New {
    /// Name the token: up to 64 visible ASCII characters
    #[arg(value_parser = name)]
    name: String,
    /// Restrict it to names below this folder of finished files, like alice/ [default: all names]
    #[arg(long, value_name = "DIR/")]
    prefix: Option<Prefix>,
    /// Permit: push (begin uploads, send slices, ask for the state of a name), read (ask for the state of a name, list
    /// unfinished uploads, read and list finished files), replace (finished files), delete (finished files), admin (all
    /// of these)
    #[arg(long, value_delimiter = ',', value_name = "WHAT,…", default_value = "push,read")]
    permissions: Vec<Permission>,
    /// Limit the bytes below the prefix, finished and unfinished, like 100G [default: no limit]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    quota: Option<u64>,
    /// Limit the files, folders and unfinished uploads below the prefix [default: no limit]
    #[arg(long, value_name = "NUMBER")]
    max_files: Option<u64>,
    /// Let it begin this many uploads and no more. An interrupted one goes on, and one that is cancelled counts too
    /// [default: no limit]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    uploads: Option<u64>,
    /// The same as --uploads 1
    #[arg(long, conflicts_with = "uploads")]
    once: bool,
    /// Let it expire after a time, like 30d, or at a moment in UTC, like 2030-01-31 or 2030-01-31T12:00:00Z
    /// [default: never]
    #[arg(long, value_name = "WHEN", value_parser = expiry)]
    expires: Option<u64>,
    /// Write the token to this new file, readable only by you, instead of standard output
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Give the rights to client certificates (tls_client_ca) issued for this name, without a secret. The name is the
    /// common name, or a host name, e-mail address or URI in subjectAltName
    #[arg(long, value_name = "NAME", conflicts_with = "output")]
    certificate: Option<String>,
    /// Print a link to the page instead, which has the token behind its #. URL is the server's address, as guests reach it
    #[arg(long, value_name = "URL", value_parser = address, conflicts_with = "certificate")]
    link: Option<String>,
}

/// An address of a server, without a slash at its end.
fn address(text: &str) -> Result<String, String> {
    let is_web = text.starts_with("http://") || text.starts_with("https://");
    if is_web && !text.contains(['?', '#', ' ']) {
        return Ok(text.trim_end_matches('/').to_owned());
    }
    Err(format!("{} is no address like https://files.example.org", quoted(text)))
}

/// The page with the token behind its #, which browsers send nobody. The page takes its guest's folder from it, too.
fn link(url: &str, secret: &str, prefix: &Prefix) -> String {
    format!("{url}/#token={secret}&folder={}", utf8_percent_encode(prefix.as_str(), NON_ALPHANUMERIC))
}

fn name(text: &str) -> Result<String, String> {
    check_name(text).map(|()| text.to_owned())
}

/// A moment that is to come, in seconds since 1970.
fn expiry(text: &str) -> Result<u64, String> {
    // A number alone could be meant as a year.
    if let Some(time) = parse_duration(text).ok().filter(|_| parse_u64(text).is_none()) {
        return Ok(now().saturating_add(time.as_secs()).saturating_add(u64::from(time.subsec_nanos() > 0)));
    }
    let moment =
        humantime::parse_rfc3339_weak(text).or_else(|_| humantime::parse_rfc3339_weak(&format!("{text}T00:00:00")));
    let moment = moment.ok().and_then(|moment| moment.duration_since(UNIX_EPOCH).ok()).map(|since| since.as_secs());
    match moment {
        Some(moment) if moment <= now() => Err(format!("{} is over already", show_moment(moment))),
        Some(moment) => Ok(moment),
        None => Err(format!(
            "{} is neither a time like 30d nor a moment like 2030-01-31 or 2030-01-31T12:00:00Z",
            quoted(text)
        )),
    }
}

impl Arguments {
    /// Runs the command on the data folder `data_dir`.
    ///
    /// # Errors
    /// The error gives the reason; nothing changed then.
    pub fn run(self, data_dir: &Path) -> anyhow::Result<()> {
        match self.action {
            Action::New(new) => {
                // As the user who runs this, before root goes on as the folder's owner.
                let output = new.output.as_deref().map(create_private).transpose()?;
                new.run(&owner::create(data_dir)?, output)
            }
            Action::List { json } => list(&DataDir::open(data_dir)?, json),
            Action::Revoke { name } => revoke(&owner::open(data_dir)?, &name),
        }
    }
}

impl New {
    fn run(self, data: &DataDir, output: Option<File>) -> anyhow::Result<()> {
        let secret = self.certificate.is_none().then(new_secret);
        let mut permissions = self.permissions;
        permissions.sort_unstable();
        permissions.dedup();
        let token = Token {
            name: self.name,
            hash: secret.as_deref().map(SecretHash::of),
            certificate: self.certificate,
            prefix: self.prefix.unwrap_or_default(),
            permissions,
            quota: self.quota,
            max_files: self.max_files,
            uploads: self.uploads.or(self.once.then_some(1)),
            uploads_begun: 0,
            created: now(),
            expires: self.expires,
        };
        let (name, rights, prefix) = (token.name.clone(), token.rights(), token.prefix.clone());
        let added = Tokens::update(data, |tokens| {
            if let Some(other) =
                tokens.iter().find(|other| other.certificate.is_some() && other.certificate == token.certificate)
            {
                bail!("the token {} has that certificate already: revoke it first", other.name);
            }
            if !tokens.add(token) {
                bail!("there is a token {name} already: revoke it first, or take another name");
            }
            Ok(())
        });
        if let (Err(_), Some(path)) = (&added, &self.output) {
            // It is empty, and this is not the error to tell.
            let _ = std::fs::remove_file(path);
        }
        added?;
        let Some(secret) = secret else {
            eprintln!("token {name}: {rights}; by certificate");
            return Ok(());
        };
        // The secret alone, so that a file with this output is a token file; or the link.
        let secret = self.link.map_or(secret.clone(), |url| link(&url, &secret, &prefix));
        let shown = match output {
            Some(mut file) => writeln!(file, "{secret}").and_then(|()| file.sync_all()),
            None => writeln!(io::stdout(), "{secret}").and_then(|()| io::stdout().flush()),
        };
        shown.with_context(|| format!("the token {name} is made but could not be shown: revoke it"))?;
        eprintln!("token {name}: {rights}; it is shown this once and not stored");
        Ok(())
    }
}

/// A new file that only this user can read.
fn create_private(path: &Path) -> anyhow::Result<File> {
    let created = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    created.with_context(|| format!("the token cannot be written to {}", path.display()))
}

fn revoke(data: &DataDir, name: &str) -> anyhow::Result<()> {
    Tokens::update(data, |tokens| {
        if !tokens.remove(name) {
            bail!("there is no token {}", bigup_core::protocol::name::printable(name));
        }
        Ok(())
    })?;
    print(&format!("token {name} is revoked"))
}

/// A token, and further facts about it.
struct Listed<'a> {
    token: &'a Token,
    /// The amount below its prefix. `None` if it has no quota, or the amount cannot be counted.
    used: Option<Amount>,
    /// Time of its last use, in seconds since 1970. `None`: never, as far as is known.
    last_used: Option<u64>,
}

fn list(data: &DataDir, json: bool) -> anyhow::Result<()> {
    let tokens = Tokens::read(data)?.unwrap_or_default();
    let uses = Uses::read(data);
    let used = |token: &Token| {
        if token.quota.is_none() && token.max_files.is_none() {
            return None;
        }
        let counted = UploadCount::default().look(data).and_then(|uploads| quota::count(data, &token.prefix, &uploads));
        counted.inspect_err(|e| eprintln!("what the token {} has used cannot be counted: {e}", token.name)).ok()
    };
    let listed = tokens.iter().map(|token| Listed { token, used: used(token), last_used: uses.last(token) });
    let listed: Vec<Listed<'_>> = listed.collect();
    if json {
        let list: Vec<Value> = listed.iter().map(as_json).collect();
        return print(&json!({ "tokens": list }).to_string());
    }
    if tokens.is_empty() {
        eprintln!("no tokens");
        return Ok(());
    }
    print(&table(&listed))
}

fn print(text: &str) -> anyhow::Result<()> {
    match writeln!(io::stdout(), "{text}") {
        // The reader has closed the pipe: it has enough.
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.context("writing to standard output"),
    }
}

fn as_json(listed: &Listed<'_>) -> Value {
    let Listed { token, used, last_used } = listed;
    json!({
        "name": token.name,
        "permissions": token.permissions,
        "prefix": token.prefix,
        "certificate": token.certificate,
        "quota": token.quota,
        "max_files": token.max_files,
        "uploads": token.uploads,
        "uploads_begun": token.uploads.map(|_| token.uploads_begun),
        "used": used.map(|used| json!({ "bytes": used.bytes, "files": used.files })),
        "created": show_moment(token.created),
        "expires": token.expires.map(show_moment),
        "expired": token.is_expired(now()),
        "last_used": last_used.map(show_moment),
    })
}

/// The tokens in aligned columns.
fn table(listed: &[Listed<'_>]) -> String {
    let header = ["NAME", "PERMISSIONS", "PREFIX", "QUOTA", "FILES", "UPLOADS", "CREATED", "EXPIRES", "LAST USED"];
    let header = header.map(str::to_owned);
    let rows: Vec<[String; 9]> = std::iter::once(header).chain(listed.iter().map(row)).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..9).map(width).collect();
    let line = |row: &[String; 9]| {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        cells.join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn row(listed: &Listed<'_>) -> [String; 9] {
    let Listed { token, used, last_used } = listed;
    let permissions: Vec<String> = token.permissions.iter().map(Permission::to_string).collect();
    let prefix = match token.prefix.as_str() {
        "" => "-".to_owned(),
        prefix => bigup_core::protocol::name::printable(prefix),
    };
    let expires = match token.expires {
        None => "never".to_owned(),
        Some(moment) if token.is_expired(now()) => format!("{} (over)", show_moment(moment)),
        Some(moment) => show_moment(moment),
    };
    let of = |used: Option<String>, most: Option<String>| match most {
        None => "-".to_owned(),
        Some(most) => format!("{} of {most}", used.unwrap_or("?".to_owned())),
    };
    let quota = of(used.map(|used| show_size(used.bytes)), token.quota.map(show_size));
    let files = of(used.map(|used| used.files.to_string()), token.max_files.map(|most| most.to_string()));
    let uploads = of(Some(token.uploads_begun.to_string()), token.uploads.map(|most| most.to_string()));
    let last_used = last_used.map_or("-".to_owned(), show_moment);
    let created = show_moment(token.created);
    [token.name.clone(), permissions.join(","), prefix, quota, files, uploads, created, expires, last_used]
}

/// `2030-01-31T12:00:00Z`.
fn show_moment(seconds: u64) -> String {
    // Latest time that the format can show; a file changed by hand can hold a later one.
    let moment: SystemTime = UNIX_EPOCH + Duration::from_secs(seconds.min(253_402_300_799));
    humantime::format_rfc3339_seconds(moment).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_ends_after_a_time_or_at_a_moment_to_come() {
        let before = now();
        let after_an_hour = expiry("1h").unwrap();
        assert!((before + 3600..=now() + 3600).contains(&after_an_hour));
        assert!(expiry("1ms").unwrap() > before, "a part of a second counts as a whole one");
        assert_eq!(expiry("2100-01-31").map(show_moment), Ok("2100-01-31T00:00:00Z".to_owned()));
        assert_eq!(expiry("2100-01-31T12:34:56Z").map(show_moment), Ok("2100-01-31T12:34:56Z".to_owned()));
        assert_eq!(expiry("2100-01-31 12:34:56").map(show_moment), Ok("2100-01-31T12:34:56Z".to_owned()));
        assert!(expiry("2000-01-31").unwrap_err().contains("over already"));
        for bad in ["", "soon", "2100-13-01", "2100", "2100-01-31T12"] {
            assert!(expiry(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_link_has_the_token_behind_its_hash_and_the_folder() {
        let (url, prefix) = (address("https://files.example.org/").unwrap(), "a b/".parse().unwrap());
        assert_eq!(link(&url, "s3", &prefix), "https://files.example.org/#token=s3&folder=a%20b%2F");
        assert_eq!(link("http://h:1", "s3", &Prefix::default()), "http://h:1/#token=s3&folder=");
        for bad in ["files.example.org", "ftp://h", "https://h/?x", "https://h/#x", ""] {
            assert!(address(bad).unwrap_err().contains("no address"), "{bad}");
        }
    }

    #[test]
    fn any_moment_can_be_shown() {
        assert_eq!(show_moment(0), "1970-01-01T00:00:00Z");
        assert_eq!(show_moment(u64::MAX), "9999-12-31T23:59:59Z");
    }
}
