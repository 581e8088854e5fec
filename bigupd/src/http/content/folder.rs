//! A folder of finished files, as far as the sender of a request may read it.

use crate::admission::access::Access;
use crate::admission::tokens::Permission;
use crate::refusal::Refusal;
use bigup_core::protocol::name::FileName;
use bigup_core::protocol::native::ErrorCode;

/// A folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Folder {
    /// Its path, which ends in `/`; empty if it is the one of all files.
    path: String,
    /// The beginning of the names in it that the sender may read.
    prefix: String,
}

impl Folder {
    /// The folder at `path`, as a sender sees it.
    ///
    /// # Errors
    /// It may read no name there.
    pub(super) fn seen_by(path: String, by: &Access) -> Result<Folder, Refusal> {
        by.check(&[Permission::Read], None)?;
        let own = by.prefix();
        if own.starts_with(&path) {
            return Ok(Folder { prefix: own.to_owned(), path });
        }
        // All names in it are alike.
        if let Ok(inner) = FileName::new(&format!("{path}x")) {
            by.check(&[Permission::Read], Some(&inner))?;
        }
        Ok(Folder { prefix: path.clone(), path })
    }

    /// Its path, which ends in `/`; empty if it is the one of all files.
    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// The beginning of the names in it that the sender may read.
    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// True if it is the folder of all files.
    pub(super) fn is_all(&self) -> bool {
        self.path.is_empty()
    }

    /// Its name in messages.
    pub(super) fn shown(&self) -> &str {
        if self.is_all() { "all finished files" } else { &self.path }
    }

    /// Its last component. `None` if it is the one of all files.
    pub(super) fn last(&self) -> Option<&str> {
        self.path.trim_end_matches('/').rsplit('/').next().filter(|last| !last.is_empty())
    }

    /// A whole name, without the path of the folder.
    pub(super) fn inner<'a>(&self, name: &'a str) -> &'a str {
        name.strip_prefix(&self.path).unwrap_or(name)
    }

    /// A whole name, which begins with the last component of the folder.
    pub(super) fn with_last<'a>(&self, name: &'a str) -> &'a str {
        let skipped = self.path.len() - self.last().map_or(0, |last| last.len() + 1);
        name.get(skipped..).unwrap_or(name)
    }

    /// The refusal of a request for a folder that has no file.
    pub(super) fn without_files(&self) -> Refusal {
        let message = match self.is_all() {
            true => "there is no finished file that this request may read".to_owned(),
            false => format!("there is no folder {} with finished files", self.path),
        };
        Refusal::new(ErrorCode::NotFound, message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_with_and_without_the_folder() {
        for (path, name, last, inner, with_last) in [
            ("", "a/b/c", None, "a/b/c", "a/b/c"),
            ("a/", "a/b/c", Some("a"), "b/c", "a/b/c"),
            ("a/b/", "a/b/c", Some("b"), "c", "b/c"),
            ("文/文/", "文/文/x", Some("文"), "x", "文/x"),
        ] {
            let folder = Folder::seen_by(path.to_owned(), &Access::Everything).unwrap();
            assert_eq!((folder.last(), folder.inner(name), folder.with_last(name)), (last, inner, with_last));
        }
    }
}
