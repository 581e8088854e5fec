//! Finished files, for clients that read them.

use super::Uploads;
use crate::refusal::Refusal;
use bigup_core::protocol::name::FileName;
use bigup_core::protocol::native::ErrorCode;
use bigup_core::storage::disk::FileVersion;
use bigup_core::storage::store::{OpenFile, Store};

impl Uploads {
    /// The finished file of this name, opened. Its digest is told if it is known without reading the file.
    ///
    /// # Errors
    /// There is no such file, or as the system gives them.
    pub fn open_finished(&self, name: &FileName) -> Result<OpenFile, Refusal> {
        let open = Store::new(&self.data).open_file(name)?.ok_or_else(|| no_file(name))?;
        let version = FileVersion::of_metadata(&open.found);
        let stored_digest = open.stored_digest.or_else(|| self.finished_digests.remembered(&version));
        Ok(OpenFile { stored_digest, ..open })
    }
}

fn no_file(name: &FileName) -> Refusal {
    Refusal::new(ErrorCode::NotFound, format!("there is no finished file {name}"))
}
