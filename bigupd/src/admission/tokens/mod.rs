//! The tokens and their permissions. They stand in DATA/tokens.json, which `bigupd token` changes and daemons read. Daemons
//! change one number in it: the uploads that a token has begun, where they have a limit
//! (`admission/begun_uploads.rs`).
//!
//! A token is 256 random bits. Only its BLAKE3 hash is stored. A slow, salted hash would gain nothing: it makes
//! guessing a human password expensive, but 256 random bits cannot be guessed at any speed. It would only make every
//! request slow. Hashes are compared in constant time (documentation of [`blake3::Hash`]), with every token there is,
//! so the time tells nothing of the stored hashes.
//!
//! It uses the data folder. Requests and uploads do not come in here.
//!
//! The file is replaced by rename under a lock on the data folder. As long as it exists tokens are in force. A file
//! that cannot be read is an error; it is never treated like a missing file.

use crate::net::client_certificate::ClientCertificate;
use bigup_core::protocol::digest::Digest;
use bigup_core::protocol::name::FileName;
use bigup_core::storage::data_dir::DataDir;
use bigup_core::storage::disk::{IoContext, read_small, replace_private_file};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

pub mod uses;

/// Beginning of every token. People and programs that look for leaked secrets recognise a token by it.
pub const SECRET_PREFIX: &str = "bigup_";

/// Longest name of a token, in characters.
pub const MAX_NAME_LEN: usize = 64;

/// Format of tokens.json that this version writes and reads.
const VERSION: u32 = 1;

/// Largest tokens.json that is read, in bytes: tens of thousands of tokens.
const MAX_FILE_LEN: u64 = 16 << 20;

/// A permission under a token's prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Permission {
    /// Begin uploads, send slices, and ask how a name stands.
    Push,
    /// Ask how a name stands, list unfinished uploads, and read and list finished files.
    Read,
    /// Replace finished files.
    Replace,
    /// Remove finished files.
    Delete,
    /// All of these.
    Admin,
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Permission::Push => "push",
            Permission::Read => "read",
            Permission::Replace => "replace",
            Permission::Delete => "delete",
            Permission::Admin => "admin",
        })
    }
}

/// The part of all names that a token is for: a folder and everything below it, or everything. Shown as `a/b/`;
/// everything as nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Prefix(String);

impl Prefix {
    /// True if `name` lies below it. `a/` has `a/b`, but neither `a` nor `ab`.
    pub fn covers(&self, name: &str) -> bool {
        name.starts_with(&self.0)
    }

    /// The text, with a `/` at the end; empty for everything.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Prefix {
    type Err = String;

    /// Reads a folder's name, with or without a `/` at the end.
    fn from_str(text: &str) -> Result<Prefix, String> {
        let folder = text.strip_suffix('/').unwrap_or(text);
        let name = FileName::new(folder).map_err(|why| format!("a prefix is a folder, like a/b/: {why}"))?;
        Ok(Prefix(format!("{}/", name.as_str())))
    }
}

impl TryFrom<String> for Prefix {
    type Error = String;

    fn try_from(text: String) -> Result<Prefix, String> {
        if text.is_empty() { Ok(Prefix::default()) } else { text.parse() }
    }
}

impl From<Prefix> for String {
    fn from(prefix: Prefix) -> String {
        prefix.0
    }
}

/// A token's hash, which is all that is kept of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SecretHash(blake3::Hash);

impl SecretHash {
    /// The hash of a token as it was presented.
    pub fn of(secret: &str) -> SecretHash {
        SecretHash(blake3::hash(secret.as_bytes()))
    }
}

impl TryFrom<String> for SecretHash {
    type Error = blake3::HexError;

    fn try_from(text: String) -> Result<SecretHash, blake3::HexError> {
        blake3::Hash::from_hex(text).map(SecretHash)
    }
}

impl From<SecretHash> for String {
    fn from(hash: SecretHash) -> String {
        hash.0.to_hex().to_string()
    }
}

/// A new token: the only moment at which it is known.
pub fn new_secret() -> String {
    let mut bits = [0; 32];
    getrandom::fill(&mut bits).expect("the kernel gives random bytes");
    format!("{SECRET_PREFIX}{}", Digest(bits))
}

/// `text` without the digits of tokens in it: for logs.
pub fn redacted(text: &str) -> String {
    let mut parts = text.split(SECRET_PREFIX);
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |shown, part| {
        let rest = part.trim_start_matches(|c: char| c.is_ascii_hexdigit());
        let is_token = part.len() - rest.len() >= 16;
        shown + SECRET_PREFIX + if is_token { "…" } else { "" } + if is_token { rest } else { part }
    })
}

/// The stored facts of a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
// Restrictions by a later version must not be ignored.
#[serde(deny_unknown_fields)]
pub struct Token {
    /// Its name for people; visible ASCII.
    pub name: String,
    /// The hash of the secret. `None` if there is no secret, and only a certificate counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<SecretHash>,
    /// A name in client certificates: a client with a certificate for this name needs no secret. `None` if no
    /// certificate counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
    /// The names that it is for.
    pub prefix: Prefix,
    /// The permitted actions.
    pub permissions: Vec<Permission>,
    /// Limit of the bytes below its prefix, finished and unfinished. `None`: no limit.
    pub quota: Option<u64>,
    /// Limit of the files and folders below its prefix, unfinished uploads among them. `None`: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_files: Option<u64>,
    /// Limit of the uploads that it begins in all its time. `None`: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uploads: Option<u64>,
    /// Uploads that it has begun, as far as they have a limit; 0 otherwise.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub uploads_begun: u64,
    /// Time at which it was made, in seconds since 1970.
    pub created: u64,
    /// Time at which it expires, in seconds since 1970. `None`: never.
    pub expires: Option<u64>,
}

/// For serde, which gives a reference.
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Token {
    /// True if it has begun as many uploads as it may.
    pub fn is_used_up(&self) -> bool {
        self.uploads.is_some_and(|most| self.uploads_begun >= most)
    }

    /// True if it permits that for names below its prefix.
    pub fn may(&self, permission: Permission) -> bool {
        self.permissions.iter().any(|has| *has == permission || *has == Permission::Admin)
    }

    /// True if it has ended at `now`, in seconds since 1970.
    pub fn is_expired(&self, now: u64) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }

    /// `push,read under a/b/`.
    pub fn rights(&self) -> String {
        let permissions: Vec<String> = self.permissions.iter().map(Permission::to_string).collect();
        match self.prefix.as_str() {
            "" => permissions.join(","),
            prefix => format!("{} under {prefix}", permissions.join(",")),
        }
    }
}

/// True if `name` can be a token's: 1 to [`MAX_NAME_LEN`] visible ASCII characters.
///
/// # Errors
/// The error names the fault.
pub fn check_name(name: &str) -> Result<(), String> {
    if name.is_empty() || name.len() > MAX_NAME_LEN || !name.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(format!("the name of a token is 1 to {MAX_NAME_LEN} visible ASCII characters without spaces"));
    }
    Ok(())
}

/// The content of tokens.json.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tokens {
    version: u32,
    /// By age.
    tokens: Vec<Token>,
}

impl Default for Tokens {
    fn default() -> Tokens {
        Tokens { version: VERSION, tokens: vec![] }
    }
}

/// Now, in seconds since 1970.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |t| t.as_secs())
}

impl Tokens {
    /// Reads tokens.json. `None` if it does not exist.
    ///
    /// # Errors
    /// It cannot be read, or makes no sense.
    pub fn read(data: &DataDir) -> io::Result<Option<Tokens>> {
        let path = data.tokens_json();
        let bytes = match read_small(&path, MAX_FILE_LEN) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            bytes => bytes?,
        };
        Tokens::from_json(&bytes)
            .map(Some)
            .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
            .at("reading", &path)
    }

    fn from_json(bytes: &[u8]) -> Result<Tokens, String> {
        let tokens: Tokens = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
        if tokens.version != VERSION {
            return Err(format!("version {}; this program reads version {VERSION}", tokens.version));
        }
        tokens.tokens.iter().try_for_each(|token| check_name(&token.name))?;
        Ok(tokens)
    }

    /// Changes tokens.json, which is made if need be; the change survives a power cut once this returns.
    ///
    /// # Errors
    /// `change` refuses, or the file cannot be read or replaced; it is unchanged then.
    pub fn update<T>(data: &DataDir, change: impl FnOnce(&mut Tokens) -> anyhow::Result<T>) -> anyhow::Result<T> {
        let lock = TokensLock::wait(data)?;
        let mut tokens = Tokens::read(data)?.unwrap_or_default();
        let changed = change(&mut tokens)?;
        tokens.replace(data, &lock)?;
        Ok(changed)
    }

    /// Replaces tokens.json; that survives a power cut once this returns.
    ///
    /// # Errors
    /// As the system gives them; the file is unchanged then.
    pub fn replace(&self, data: &DataDir, _: &TokensLock) -> io::Result<()> {
        let mut json = serde_json::to_vec_pretty(self)?;
        json.push(b'\n');
        replace_private_file(data.root(), "tokens.json", &json)
    }

    /// The token of that name that was made at this time, in seconds since 1970, to be changed. `None`: it was revoked.
    pub fn find_made(&mut self, name: &str, created: u64) -> Option<&mut Token> {
        self.tokens.iter_mut().find(|token| token.name == name && token.created == created)
    }

    /// The token that `secret` is, unless it has ended.
    pub fn find(&self, secret: &str, now: u64) -> Option<&Token> {
        let hash = SecretHash::of(secret);
        // All of them, whichever it is.
        let found = self.tokens.iter().filter(|token| token.hash == Some(hash)).fold(None, |_, token| Some(token));
        found.filter(|token| !token.is_expired(now))
    }

    /// The first token that counts for a client with `certificate`, unless it has expired.
    pub fn find_certified(&self, certificate: &ClientCertificate, now: u64) -> Option<&Token> {
        let counts = |token: &&Token| token.certificate.as_ref().is_some_and(|name| certificate.is_for(name));
        self.tokens.iter().filter(|token| !token.is_expired(now)).find(counts)
    }

    /// All tokens, by age.
    pub fn iter(&self) -> impl Iterator<Item = &Token> {
        self.tokens.iter()
    }

    /// True if there is no token, not even one that has ended.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// Adds a token. `false` if there is one of that name.
    pub fn add(&mut self, token: Token) -> bool {
        let is_new = self.iter().all(|other| other.name != token.name);
        if is_new {
            self.tokens.push(token);
        }
        is_new
    }

    /// Removes a token. `false` if there is no token of that name.
    pub fn remove(&mut self, name: &str) -> bool {
        let before = self.tokens.len();
        self.tokens.retain(|token| token.name != name);
        self.tokens.len() < before
    }
}

/// The lock of tokens.json, which is on the data folder. It is given back as this goes.
///
/// Its holder may create a spool and publish a file. The holder of a spool's lock may wait for it, so nobody may wait for
/// the lock of a spool that exists while they hold this one.
pub struct TokensLock(#[expect(dead_code, reason = "closing it gives the lock back")] File);

impl TokensLock {
    /// Waits for it.
    ///
    /// # Errors
    /// As the system gives them.
    pub fn wait(data: &DataDir) -> io::Result<TokensLock> {
        let folder = File::open(data.root()).at("opening", data.root())?;
        folder.lock().at("locking", data.root())?;
        Ok(TokensLock(folder))
    }
}

/// tokens.json as a daemon sees it: read again once it has changed.
pub struct WatchedTokens {
    data: DataDir,
    known: Mutex<CountedUpload>,
}

#[derive(Default)]
struct CountedUpload {
    /// The tokens read last, and the state of the file then.
    tokens: Option<(Identity, Arc<Tokens>)>,
    /// The last error, so that it is logged once and not for every request.
    trouble: Option<String>,
}

/// Identifies a state of a file.
#[derive(PartialEq, Eq)]
struct Identity {
    inode: (u64, u64),
    len: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Identity {
    fn of(found: &Metadata) -> Identity {
        Identity {
            inode: (found.dev(), found.ino()),
            len: found.len(),
            modified: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
        }
    }
}

impl WatchedTokens {
    /// The tokens of `data`; nothing is read yet.
    pub fn new(data: DataDir) -> WatchedTokens {
        WatchedTokens { data, known: Mutex::default() }
    }

    /// The tokens as they stand now. `None` if there is no tokens.json. Blocks on the disk.
    ///
    /// # Errors
    /// It cannot be read, or makes no sense.
    pub fn now(&self) -> io::Result<Option<Arc<Tokens>>> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let tokens = self.look(&mut known);
        match &tokens {
            Ok(_) => known.trouble = None,
            Err(e) => {
                let trouble = e.to_string();
                if known.trouble.as_ref() != Some(&trouble) {
                    log::error!("all requests are refused until the tokens can be read: {trouble}");
                    known.trouble = Some(trouble);
                }
            }
        }
        tokens
    }

    fn look(&self, known: &mut CountedUpload) -> io::Result<Option<Arc<Tokens>>> {
        let path = self.data.tokens_json();
        let identity = match std::fs::symlink_metadata(&path) {
            Ok(found) => Identity::of(&found),
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e).at("looking at", &path),
        };
        if let Some((_, tokens)) = known.tokens.as_ref().filter(|(of, _)| *of == identity) {
            return Ok(Some(Arc::clone(tokens)));
        }
        // A file replaced during the read has another identity at the next check.
        let Some(tokens) = Tokens::read(&self.data)? else { return Ok(None) };
        log::info!("{} holds {} tokens", path.display(), tokens.tokens.len());
        let tokens = Arc::new(tokens);
        known.tokens = Some((identity, Arc::clone(&tokens)));
        Ok(Some(tokens))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn token(name: &str, secret: &str, expires: Option<u64>) -> Token {
        Token {
            name: name.to_owned(),
            hash: Some(SecretHash::of(secret)),
            certificate: None,
            prefix: "a/b".parse().unwrap(),
            permissions: vec![Permission::Push],
            quota: None,
            max_files: None,
            uploads: None,
            uploads_begun: 0,
            created: 1,
            expires,
        }
    }

    fn data() -> (tempfile::TempDir, DataDir) {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::create(dir.path()).unwrap();
        (dir, data)
    }

    fn add(data: &DataDir, name: &str, secret: &str) -> bool {
        Tokens::update(data, |tokens| Ok(tokens.add(token(name, secret, None)))).unwrap()
    }

    #[test]
    fn a_prefix_is_a_folder_and_what_is_below() {
        for text in ["a/b", "a/b/"] {
            let prefix: Prefix = text.parse().unwrap();
            assert_eq!(prefix.as_str(), "a/b/");
            assert!(prefix.covers("a/b/c") && prefix.covers("a/b/c/d"));
            for other in ["a/b", "a/bc", "a/bc/d", "a", "b", "x/a/b/c", "A/b/c"] {
                assert!(!prefix.covers(other), "{other}");
            }
        }
        assert!(Prefix::default().covers("x"));
        for bad in ["", "/", "/a", "a//", "../a", "a/../b", "a\n"] {
            assert!(bad.parse::<Prefix>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_token_is_found_by_its_secret_until_it_ends() {
        let mut tokens = Tokens::default();
        assert!(tokens.add(token("one", "s1", None)) && tokens.add(token("two", "s2", Some(100))));
        assert!(!tokens.add(token("one", "s3", None)), "the name is taken");
        let found = |secret, now| tokens.find(secret, now).map(|token| token.name.clone());
        assert_eq!(found("s1", u64::MAX), Some("one".to_owned()));
        assert_eq!(found("s2", 99), Some("two".to_owned()));
        assert_eq!((found("s2", 100), found("s3", 1), found("", 1)), (None, None, None));
        assert!(tokens.remove("one") && !tokens.remove("one"));
        assert!(tokens.find("s1", 1).is_none());
    }

    #[test]
    fn admin_stands_for_everything_and_nothing_else_does() {
        let with = |permissions: &[Permission]| Token { permissions: permissions.to_vec(), ..token("t", "s", None) };
        let all = [Permission::Push, Permission::Read, Permission::Replace, Permission::Admin];
        for has in all {
            for wanted in all {
                let may = has == wanted || has == Permission::Admin;
                assert_eq!(with(&[has]).may(wanted), may, "{has} {wanted}");
            }
        }
    }

    #[test]
    fn new_secrets_differ_and_are_not_shown_in_logs() {
        let (one, two) = (new_secret(), new_secret());
        assert_ne!(one, two);
        assert_eq!(one.len(), SECRET_PREFIX.len() + 64);
        assert_eq!(redacted(&format!("a={one}&b={two}&c=1")), "a=bigup_…&b=bigup_…&c=1");
        assert_eq!(redacted("file_name=bigup_core.tar"), "file_name=bigup_core.tar");
    }

    #[test]
    fn what_is_written_is_read_and_the_secret_is_not_in_it() {
        let (_dir, data) = data();
        assert!(Tokens::read(&data).unwrap().is_none());
        assert!(add(&data, "one", "top-secret") && add(&data, "two", "s2") && !add(&data, "two", "s3"));
        let tokens = Tokens::read(&data).unwrap().unwrap();
        assert_eq!(tokens.iter().map(|t| t.name.as_str()).collect::<Vec<_>>(), ["one", "two"]);
        let text = fs::read_to_string(data.tokens_json()).unwrap();
        assert!(!text.contains("top-secret") && text.contains(blake3::hash(b"top-secret").to_hex().as_str()));
        assert_eq!(fs::metadata(data.tokens_json()).unwrap().mode() & 0o7777, 0o600);
    }

    #[test]
    fn a_refused_change_changes_nothing() {
        let (_dir, data) = data();
        let refused = Tokens::update(&data, |tokens| {
            tokens.add(token("t", "s", None));
            anyhow::bail!("no") as anyhow::Result<()>
        });
        assert_eq!(refused.unwrap_err().to_string(), "no");
        assert!(Tokens::read(&data).unwrap().is_none());
    }

    #[test]
    fn changes_made_at_once_are_all_kept() {
        let (_dir, data) = data();
        std::thread::scope(|scope| {
            for i in 0..8 {
                let data = &data;
                scope.spawn(move || assert!(add(data, &format!("t{i}"), "s")));
            }
        });
        assert_eq!(Tokens::read(&data).unwrap().unwrap().iter().count(), 8);
    }

    #[test]
    fn what_makes_no_sense_is_refused_whole() {
        let (_dir, data) = data();
        add(&data, "t", "s");
        let text = fs::read_to_string(data.tokens_json()).unwrap();
        for (from, to) in [
            ("\"version\": 1", "\"version\": 2"),
            ("\"push\"", "\"everything\""),
            ("a/b/", "../"),
            ("\"t\"", "\"t t\""),
            ("\"quota\"", "\"hosts\": [], \"quota\""),
            ("{", ""),
            (text.as_str(), ""),
        ] {
            assert!(text.contains(from), "{from}");
            fs::write(data.tokens_json(), text.replacen(from, to, 1)).unwrap();
            assert!(Tokens::read(&data).is_err(), "{from}");
            assert!(Tokens::update(&data, |_| Ok(())).is_err(), "{from}");
        }
    }

    #[test]
    fn a_change_is_seen_and_trouble_is_never_the_same_as_no_file() {
        let (_dir, data) = data();
        let watched = WatchedTokens::new(data.clone());
        let names = || watched.now().map(|tokens| tokens.map(|t| t.iter().map(|t| t.name.clone()).collect::<Vec<_>>()));
        assert_eq!(names().unwrap(), None);
        add(&data, "one", "s");
        assert_eq!(names().unwrap(), Some(vec!["one".to_owned()]));
        Tokens::update(&data, |tokens| Ok(tokens.remove("one"))).unwrap();
        assert_eq!(names().unwrap(), Some(vec![]));
        fs::write(data.tokens_json(), "").unwrap();
        assert!(names().is_err() && names().is_err());
        fs::remove_file(data.tokens_json()).unwrap();
        std::os::unix::fs::symlink("/nowhere", data.tokens_json()).unwrap();
        assert!(names().is_err(), "a link is no file, wherever it leads");
        fs::remove_file(data.tokens_json()).unwrap();
        assert_eq!(names().unwrap(), None);
    }
}
