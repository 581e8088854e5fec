//! The uploads that a token begins, where their number has a limit (`bigupd token new --uploads`, `--once`).
//!
//! The count stands in tokens.json beside the limit. It is raised and synced before the upload exists, under the lock of
//! tokens.json, which is held until the upload exists. So requests at once begin no more than the limit, in several
//! daemons too.
//!
//! | killed | on disk | afterwards |
//! | --- | --- | --- |
//! | before the rename of tokens.json | the old count, no upload | as if nothing was asked |
//! | after it, before the spool or the finished file has its name | the new count, no upload | that upload is lost to the token: it begins one less |
//! | after that | the new count, the upload | the upload goes on, and is not counted again |

use crate::admission::access::Access;
use crate::admission::tokens::{Token, Tokens, TokensLock};
use crate::refusal::Refusal;
use bigup_core::protocol::native::ErrorCode;
use bigup_core::storage::data_dir::DataDir;
use std::io;

/// An upload that is about to begin and is counted already. Unless it [has begun](CountedBegin::has_begun) the count goes
/// back.
#[must_use = "the count goes back at once"]
pub struct CountedBegin {
    data: DataDir,
    token: Option<(String, u64)>,
    /// Held until the upload exists: a request that is refused then finds it.
    lock: Option<TokensLock>,
}

impl CountedBegin {
    /// Counts an upload of `by`, if those have a limit. Blocks on the disk, and while another one begins.
    ///
    /// # Errors
    /// The token has begun as many as it may, or tokens.json cannot be read or replaced.
    pub fn take(data: &DataDir, by: &Access) -> Result<CountedBegin, Refusal> {
        let Some(token) = limited(by) else { return Ok(CountedBegin { data: data.clone(), token: None, lock: None }) };
        let lock = TokensLock::wait(data)?;
        let mut tokens = Tokens::read(data)?.unwrap_or_default();
        let found = tokens.find_made(&token.name, token.created).filter(|token| !token.is_used_up());
        let found = found.ok_or_else(|| used_up(token))?;
        found.uploads_begun += 1;
        tokens.replace(data, &lock)?;
        let token = Some((token.name.clone(), token.created));
        Ok(CountedBegin { data: data.clone(), token, lock: Some(lock) })
    }

    /// The upload exists: the count stays.
    pub fn has_begun(mut self) {
        self.token = None;
    }

    fn give_back(&self, name: &str, created: u64, lock: &TokensLock) -> io::Result<()> {
        let mut tokens = Tokens::read(&self.data)?.unwrap_or_default();
        let Some(token) = tokens.find_made(name, created) else { return Ok(()) };
        token.uploads_begun = token.uploads_begun.saturating_sub(1);
        tokens.replace(&self.data, lock)
    }
}

impl Drop for CountedBegin {
    fn drop(&mut self) {
        let Some(((name, created), lock)) = self.token.take().zip(self.lock.take()) else { return };
        if let Err(e) = self.give_back(&name, created, &lock) {
            log::warn!("an upload that did not begin counts for the token {name}: {e}");
        }
    }
}

/// Checks that `by` may begin an upload more, without counting one. Blocks while another one begins, if it seems that it
/// may not.
///
/// # Errors
/// The token has begun as many as it may, or tokens.json cannot be read.
pub fn check_left(data: &DataDir, by: &Access) -> Result<(), Refusal> {
    let Some(token) = limited(by).filter(|token| token.is_used_up()) else { return Ok(()) };
    let _lock = TokensLock::wait(data)?;
    let mut tokens = Tokens::read(data)?.unwrap_or_default();
    let has_some = tokens.find_made(&token.name, token.created).is_some_and(|token| !token.is_used_up());
    if has_some { Ok(()) } else { Err(used_up(token)) }
}

/// True if the number of uploads that `by` may begin has a limit.
pub fn is_limited(by: &Access) -> bool {
    limited(by).is_some()
}

/// The token of `by`, if its uploads have a limit.
fn limited(by: &Access) -> Option<&Token> {
    match by {
        Access::Token(token) if token.uploads.is_some() => Some(token),
        _ => None,
    }
}

fn used_up(token: &Token) -> Refusal {
    let most = token.uploads.unwrap_or(0);
    let message = format!(
        "the token {} may begin {most} upload{} in all, and has begun {most}: ask for another token",
        token.name,
        if most == 1 { "" } else { "s" }
    );
    Refusal::new(ErrorCode::Forbidden, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::tokens::{Permission, Prefix, now};
    use std::sync::Arc;

    fn token(uploads: Option<u64>) -> Token {
        Token {
            name: "t".to_owned(),
            hash: None,
            certificate: None,
            prefix: Prefix::default(),
            permissions: vec![Permission::Push],
            quota: None,
            max_files: None,
            uploads,
            uploads_begun: 0,
            created: now(),
            expires: None,
        }
    }

    fn with(token: &Token) -> (tempfile::TempDir, DataDir, Access) {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::create(dir.path()).unwrap();
        Tokens::update(&data, |tokens| Ok(tokens.add(token.clone()))).unwrap();
        (dir, data, Access::Token(Arc::new(token.clone())))
    }

    fn begun(data: &DataDir) -> u64 {
        Tokens::read(data).unwrap().unwrap().iter().next().unwrap().uploads_begun
    }

    #[test]
    fn the_count_stays_once_the_upload_exists_and_goes_back_otherwise() {
        let (_dir, data, by) = with(&token(Some(2)));
        CountedBegin::take(&data, &by).unwrap().has_begun();
        let refused = CountedBegin::take(&data, &by).unwrap();
        assert_eq!(begun(&data), 2, "it is counted before it exists");
        drop(refused);
        assert_eq!(begun(&data), 1);
        CountedBegin::take(&data, &by).unwrap().has_begun();
        let refusal = CountedBegin::take(&data, &by).err().unwrap();
        assert_eq!(refusal.code, ErrorCode::Forbidden);
        assert!(refusal.facts.contains("may begin 2 uploads in all, and has begun 2"), "{}", refusal.facts);
        assert_eq!(begun(&data), 2);
    }

    #[test]
    fn of_forty_at_once_no_more_begin_than_the_limit() {
        let (_dir, data, by) = with(&token(Some(3)));
        let began = std::thread::scope(|scope| {
            let take = || CountedBegin::take(&data, &by).map(CountedBegin::has_begun).is_ok();
            let all: Vec<_> = (0..40).map(|_| scope.spawn(take)).collect();
            all.into_iter().map(|one| one.join().unwrap()).filter(|began| *began).count()
        });
        assert_eq!((began, begun(&data)), (3, 3));
    }

    #[test]
    fn a_token_without_a_limit_changes_no_file_and_a_revoked_one_begins_nothing() {
        let (_dir, data, by) = with(&token(None));
        let before = std::fs::metadata(data.tokens_json()).unwrap().modified().unwrap();
        CountedBegin::take(&data, &by).unwrap().has_begun();
        CountedBegin::take(&data, &Access::Everything).unwrap().has_begun();
        assert_eq!(std::fs::metadata(data.tokens_json()).unwrap().modified().unwrap(), before);
        let (_dir, data, by) = with(&token(Some(1)));
        Tokens::update(&data, |tokens| Ok(tokens.remove("t"))).unwrap();
        assert!(CountedBegin::take(&data, &by).is_err());
    }

    #[test]
    fn what_an_older_request_knows_of_the_count_does_not_decide() {
        let (_dir, data, fresh) = with(&token(Some(1)));
        let old = Access::Token(Arc::new(Token { uploads_begun: 1, ..token(Some(1)) }));
        // It was given back since.
        check_left(&data, &old).unwrap();
        CountedBegin::take(&data, &fresh).unwrap().has_begun();
        assert!(check_left(&data, &old).is_err());
    }
}
