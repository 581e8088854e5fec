//! The last use of each token. Daemons write it down now and then; it decides nothing.
//!
//! It stands in a file of its own beside tokens.json, whose content decides. A token is known there by its name and
//! the time when it was made, so that one of the same name begins anew. Several daemons keep the latest time of all.

use super::{Token, Tokens, TokensLock, now};
use bigup_core::storage::data_dir::DataDir;
use bigup_core::storage::disk::{read_small, replace_private_file};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Name of the file in the data folder.
pub const USES: &str = "token-uses.json";

/// Largest such file that is read, in bytes; the same as for tokens.json.
const MAX_FILE_LEN: u64 = 16 << 20;

/// Time between two writes of new uses.
const WRITE_EVERY: Duration = Duration::from_secs(60);

/// The content of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Uses {
    /// By names of tokens.
    tokens: BTreeMap<String, Use>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Use {
    /// Time at which the token was made, in seconds since 1970.
    created: u64,
    /// Time at which it last let a request in, in seconds since 1970.
    last: u64,
}

impl Uses {
    /// Reads the stored uses. A file that cannot be read counts as empty.
    pub fn read(data: &DataDir) -> Uses {
        let bytes = read_small(&data.root().join(USES), MAX_FILE_LEN).unwrap_or_default();
        serde_json::from_slice(&bytes).unwrap_or_default()
    }

    /// Time of the last use of `token`, in seconds since 1970, accurate to a minute. `None`: never, as far as is known.
    pub fn last(&self, token: &Token) -> Option<u64> {
        self.tokens.get(&token.name).filter(|used| used.created == token.created).map(|used| used.last)
    }

    fn note(&mut self, name: String, of: Use) {
        let known = self.tokens.entry(name).or_insert(of);
        if known.created != of.created || known.last < of.last {
            *known = of;
        }
    }
}

/// The uses that a daemon has seen and not written down. Copies share them.
#[derive(Clone, Debug, Default)]
pub struct TokenUses(Arc<Mutex<HashMap<String, Use>>>);

impl TokenUses {
    /// Notes that `token` let a request in.
    pub fn note(&self, token: &Token) {
        let of = Use { created: token.created, last: now() };
        let mut seen = self.lock();
        match seen.get_mut(&token.name) {
            Some(known) => *known = of,
            None => drop(seen.insert(token.name.clone(), of)),
        }
    }

    /// Writes the uses seen to `data`, if there were any. Blocks on the disk.
    ///
    /// # Errors
    /// As the system gives them; it is tried again with the next call.
    pub fn write(&self, data: &DataDir) -> io::Result<()> {
        let seen = std::mem::take(&mut *self.lock());
        if seen.is_empty() {
            return Ok(());
        }
        let written = write(data, &seen);
        if written.is_err() {
            let mut since = self.lock();
            for (name, of) in seen {
                since.entry(name).or_insert(of);
            }
        }
        written
    }

    /// Writes it down again and again for as long as it is polled.
    pub async fn write_forever(self, data: DataDir) {
        loop {
            tokio::time::sleep(WRITE_EVERY).await;
            let (seen, data) = (self.clone(), data.clone());
            let written = tokio::task::spawn_blocking(move || seen.write(&data)).await;
            if let Err(e) = written.map_err(io::Error::other).and_then(|written| written) {
                log::warn!("cannot write the last uses of tokens: {e}");
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Use>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn write(data: &DataDir, seen: &HashMap<String, Use>) -> io::Result<()> {
    let _lock = TokensLock::wait(data)?;
    let mut uses = Uses::read(data);
    seen.iter().for_each(|(name, of)| uses.note(name.clone(), *of));
    let tokens = Tokens::read(data)?.unwrap_or_default();
    uses.tokens.retain(|name, of| tokens.iter().any(|token| token.name == *name && token.created == of.created));
    let json = serde_json::to_vec(&uses).expect("strings and numbers always serialise");
    replace_private_file(data.root(), USES, &json)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::tokens::{Permission, Prefix, SecretHash};

    fn token(name: &str, created: u64) -> Token {
        Token {
            name: name.to_owned(),
            hash: Some(SecretHash::of(name)),
            certificate: None,
            prefix: Prefix::default(),
            permissions: vec![Permission::Push],
            quota: None,
            max_files: None,
            uploads: None,
            uploads_begun: 0,
            created,
            expires: None,
        }
    }

    #[test]
    fn the_last_use_of_each_token_is_kept_for_as_long_as_there_is_one() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::create(dir.path()).unwrap();
        for new in [token("one", 1), token("two", 1)] {
            assert!(Tokens::update(&data, |tokens| Ok(tokens.add(new))).unwrap());
        }
        let (seen, other) = (TokenUses::default(), TokenUses::default());
        seen.write(&data).unwrap();
        assert!(!data.root().join(USES).exists(), "nothing was seen");
        let before = now();
        seen.note(&token("one", 1));
        seen.note(&token("revoked", 1));
        seen.write(&data).unwrap();
        other.note(&token("two", 1));
        other.write(&data).unwrap();
        let uses = Uses::read(&data);
        for name in ["one", "two"] {
            assert!(uses.last(&token(name, 1)).is_some_and(|last| last >= before));
            assert_eq!(uses.last(&token(name, 2)), None, "another one of this name");
        }
        assert_eq!(uses.tokens.len(), 2);
        std::fs::write(data.root().join(USES), "garbage").unwrap();
        assert_eq!(Uses::read(&data), Uses::default());
    }

    #[test]
    fn of_two_uses_the_later_one_counts() {
        let mut uses = Uses::default();
        for last in [5, 7, 6] {
            uses.note("t".to_owned(), Use { created: 1, last });
        }
        assert_eq!(uses.last(&token("t", 1)), Some(7));
        uses.note("t".to_owned(), Use { created: 2, last: 3 });
        assert_eq!((uses.last(&token("t", 1)), uses.last(&token("t", 2))), (None, Some(3)));
    }
}
