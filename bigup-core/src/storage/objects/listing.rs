//! Lists of objects, a page at a time.

use super::request::{Payload, Signed};
use super::{ObjectError, Objects, RESERVED, listed_time, senseless};
use rusty_s3::actions::ListObjectsV2;
use std::ops::ControlFlow;
use std::time::SystemTime;

/// Something in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listed {
    /// A finished file.
    Object {
        /// Its name.
        name: String,
        /// Its size, in bytes.
        size: u64,
        /// The store's tag of its version.
        etag: String,
        /// The time at which it was stored.
        modified: SystemTime,
    },
    /// A folder with finished files; its name ends in `/`.
    Folder(String),
}

impl Listed {
    /// Its whole name.
    pub fn name(&self) -> &str {
        match self {
            Listed::Object { name, .. } | Listed::Folder(name) => name,
        }
    }
}

impl Objects {
    /// Shows `each` object whose name begins with `prefix` and comes after `after`, in the store's order, until it
    /// breaks. With `by_level` names that have a `/` behind the prefix are told by their folder.
    ///
    /// # Errors
    /// The store does not answer, or refuses.
    pub fn list(
        &self,
        prefix: &str,
        after: &str,
        by_level: bool,
        mut each: impl FnMut(Listed) -> ControlFlow<()>,
    ) -> Result<(), ObjectError> {
        let root = self.key_of("");
        let reserved = format!("{RESERVED}/");
        self.pages(&self.key_of(prefix), &self.key_of(after), by_level, |listed| {
            let own = |key: String| key.strip_prefix(&root).map(str::to_owned);
            let listed = match listed {
                Listed::Object { name, size, etag, modified } => {
                    own(name).map(|name| Listed::Object { name, size, etag, modified })
                }
                Listed::Folder(name) => own(name).map(Listed::Folder),
            };
            match listed.filter(|listed| !listed.name().starts_with(&reserved) && listed.name() > after) {
                Some(listed) => each(listed),
                None => ControlFlow::Continue(()),
            }
        })
    }

    /// The same for keys, the reserved ones too.
    pub(super) fn pages(
        &self,
        prefix: &str,
        after: &str,
        by_level: bool,
        mut each: impl FnMut(Listed) -> ControlFlow<()>,
    ) -> Result<(), ObjectError> {
        const WHAT: &str = "listing objects";
        let mut token: Option<String> = None;
        loop {
            let answer = self.requests.call(
                WHAT,
                |bucket, credentials| {
                    let mut action = bucket.list_objects_v2(Some(credentials));
                    action.with_prefix(prefix.to_owned());
                    if after.len() > prefix.len() || after > prefix {
                        action.with_start_after(after.to_owned());
                    }
                    if by_level {
                        action.with_delimiter("/");
                    }
                    token.iter().for_each(|token| action.with_continuation_token(token.clone()));
                    Signed::of(action, vec![])
                },
                Payload::Nothing,
            )?;
            let page = ListObjectsV2::parse_response(&answer.text).map_err(|e| senseless(WHAT, e))?;
            let objects = page.contents.into_iter().map(|found| Listed::Object {
                name: found.key,
                size: found.size.unwrap_or(0),
                etag: found.etag.unwrap_or_default(),
                modified: listed_time(found.last_modified.as_deref().unwrap_or_default()),
            });
            let folders = page.common_prefixes.into_iter().map(|found| Listed::Folder(found.prefix));
            let mut all: Vec<Listed> = objects.chain(folders).collect();
            all.sort_by(|a, b| a.name().cmp(b.name()));
            for listed in all {
                if each(listed).is_break() {
                    return Ok(());
                }
            }
            match page.next_continuation_token {
                Some(next) => token = Some(next),
                None => return Ok(()),
            }
        }
    }
}
