//! `Repr-Digest` in responses: the SHA-256 of a finished file, where it was computed while the file was uploaded. No
//! request reads a file for it.

use crate::http::app::App;
use crate::http::digest_fields::{REPR_DIGEST, repr_digest};
use crate::net::response::{Response, insert};
use crate::refusal::Refusal;
use bigup_core::protocol::name::FileName;

impl App {
    /// Tells the SHA-256 of the file that the upload of `source` became, if it is known.
    ///
    /// # Errors
    /// As the system gives them.
    pub(super) async fn tell_sha256(
        &self,
        response: &mut Response,
        name: &FileName,
        source: String,
    ) -> Result<(), Refusal> {
        let (uploads, name) = (self.uploads.clone(), name.clone());
        let known = self.blocking(move || uploads.sha256_of(&name, &source)).await?;
        known.iter().for_each(|sha256| insert(response, REPR_DIGEST, &repr_digest(*sha256)));
        Ok(())
    }
}
