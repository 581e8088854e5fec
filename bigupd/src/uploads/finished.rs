//! Finished files, for clients that read, list and remove them.

use super::Uploads;
use crate::admission::access::Access;
use crate::refusal::Refusal;
use bigup_core::protocol::digest::Leaves;
use bigup_core::protocol::name::FileName;
use bigup_core::protocol::native::ErrorCode;
use bigup_core::protocol::sha256::Sha256;
use bigup_core::storage::audit::{AuditEvent, AuditLine};
use bigup_core::storage::store::{
    Content, Entry, FinishedFile, FolderEntry, ListedFile, OpenFile, Removal, Store, read_leaves,
};
use std::net::IpAddr;
use std::ops::ControlFlow;

/// The client that removes a file.
#[derive(Clone, Debug)]
pub struct Remover {
    /// Its permissions. It may delete this name.
    pub by: Access,
    /// The address it comes from.
    pub peer: Option<IpAddr>,
    /// The name in the certificate that it showed.
    pub certificate: Option<String>,
}

impl Uploads {
    /// The finished file of this name, opened. Its digest is told if it is known without reading the file.
    ///
    /// # Errors
    /// There is no such file, or as the system gives them.
    pub fn open_finished(&self, name: &FileName) -> Result<OpenFile, Refusal> {
        let open = Store::new(&self.data).open_file(name)?.ok_or_else(|| no_file(name))?;
        Ok(self.with_remembered_digest(open))
    }

    /// The finished file of this name, opened, and the digests of its leaves if they are kept and the file did not change.
    ///
    /// # Errors
    /// There is no such file, or as the system gives them.
    pub fn open_with_leaves(&self, name: &FileName) -> Result<(OpenFile, Option<Leaves>), Refusal> {
        let open = self.open_finished(name)?;
        let leaves = match (&open.content, &open.stored_digest) {
            (Content::File(file), Some(stored)) => read_leaves(file, stored.digest).map(|(_, leaves)| leaves),
            _ => None,
        };
        Ok((open, leaves))
    }

    /// The SHA-256 of the finished file of this name, if it is from this source, and its SHA-256 was computed while it
    /// was uploaded.
    ///
    /// # Errors
    /// As the system gives them.
    pub fn sha256_of(&self, name: &FileName, source: &str) -> Result<Option<Sha256>, Refusal> {
        Ok(match self.lookup(name)? {
            Entry::File(FinishedFile { stored_digest: Some(stored), .. })
                if stored.source.as_deref() == Some(source) =>
            {
                stored.sha256
            }
            _ => None,
        })
    }

    fn with_remembered_digest(&self, open: OpenFile) -> OpenFile {
        let remembered = || self.finished_digests.remembered(&open.version);
        OpenFile { stored_digest: open.stored_digest.clone().or_else(remembered), ..open }
    }

    /// Removes a finished file for good, if it is the one that `is_meant`. `false` if it is another one, which stays. The
    /// line of the audit log comes first, so that no kill loses it.
    ///
    /// # Errors
    /// There is no such file, or as the system gives them.
    pub fn remove_finished(
        &self,
        name: &FileName,
        remover: &Remover,
        is_meant: impl FnOnce(&OpenFile) -> bool,
    ) -> Result<bool, Refusal> {
        let removal = Store::new(&self.data).remove(name, |open| {
            let open = self.with_remembered_digest(open);
            let is_meant = is_meant(&open);
            if is_meant {
                note_deleted(name, &open, remover);
            }
            is_meant
        })?;
        match removal {
            Removal::Removed => {
                self.metrics.file_deleted();
                Ok(true)
            }
            Removal::Kept => Ok(false),
            Removal::Nothing => Err(no_file(name)),
        }
    }

    /// Shows `each` finished file whose name begins with `prefix` and comes after `after`, by name, until it breaks.
    ///
    /// # Errors
    /// As the system gives them.
    pub fn list_finished(
        &self,
        prefix: &str,
        after: &str,
        mut each: impl FnMut(ListedFile) -> ControlFlow<()>,
    ) -> Result<(), Refusal> {
        let is_in_objects = self.data.objects().is_some();
        let with_remembered_digest = |file: ListedFile| {
            // An open object is shown without a digest, too.
            let remembered = || self.finished_digests.remembered(&file.version).filter(|_| !is_in_objects);
            let digest = file.digest.or_else(|| remembered().map(|stored| stored.digest));
            each(ListedFile { digest, ..file })
        };
        Ok(Store::new(&self.data).list(prefix, after, with_remembered_digest)?)
    }

    /// Shows `each` file and folder in the folder at `path`, by name, until it breaks: those that come after `after` and
    /// whose names begin with `prefix`.
    ///
    /// # Errors
    /// As the system gives them.
    pub fn list_level(
        &self,
        path: &str,
        prefix: &str,
        after: &str,
        each: impl FnMut(FolderEntry) -> ControlFlow<()>,
    ) -> Result<(), Refusal> {
        Ok(Store::new(&self.data).list_level(path, prefix, after, each)?)
    }
}

fn note_deleted(name: &FileName, open: &OpenFile, remover: &Remover) {
    AuditLine::new(AuditEvent::Deleted, name)
        .with("file_size", Some(open.size))
        .with("file_digest", open.stored_digest.as_ref().map(|stored| stored.digest))
        .with("token", remover.by.token())
        .with("certificate", remover.certificate.as_ref())
        .with("peer", remover.peer)
        .log();
}

fn no_file(name: &FileName) -> Refusal {
    Refusal::new(ErrorCode::NotFound, format!("there is no finished file {name}"))
}
