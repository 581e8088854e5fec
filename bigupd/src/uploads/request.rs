//! The parts of a request about an upload, by any protocol.

use crate::admission::access::Access;
use crate::admission::amount;
use crate::hooks::begin::BeginQuestion;
use crate::metrics::UploadProtocol;
use bigup_core::protocol::digest::Digest;
use bigup_core::protocol::kept::Kept;
use bigup_core::protocol::name::FileName;
use bigup_core::protocol::plan::Plan;
use bigup_core::storage::spool::{Concat, FileSha256, UploadId};
use std::net::IpAddr;

/// A client asks to begin an upload, or to go on with it.
#[derive(Clone, Debug)]
pub struct BeginRequest {
    /// The asker. It may push this name, and replace it if it asks to.
    pub by: Access,
    /// Identity of the upload.
    pub id: UploadId,
    /// Name of the file.
    pub name: FileName,
    /// The protocol of the request.
    pub protocol: UploadProtocol,
    /// The known sizes. `slice_size` is a wish.
    pub plan: Plan,
    /// The client's source.
    pub source: Option<String>,
    /// Digest that the whole file must have.
    pub file_digest: Option<Digest>,
    /// Replace a finished file of other content.
    pub replace: bool,
    /// Cut an upload that holds nothing yet anew, by this plan.
    pub recut: bool,
    /// With `recut`: drop what the upload holds first.
    pub discard: bool,
    /// A finished file of which no more is known than that its size is the told one may pass for the asker's. Such an
    /// asker compares it, or is the oldest client, which cannot.
    pub by_size: bool,
    /// The facts of the client's file that it asks to be kept.
    pub kept: Kept,
    /// Anything that the client tells of the file, in the form of its protocol. `None` if it tells nothing.
    pub metadata: Option<String>,
    /// The SHA-256 of the whole file. `None`: it is of no interest.
    pub sha256: Option<FileSha256>,
    /// The file is not to be published before its client says that it is whole.
    pub awaits_end: bool,
    /// Its role in a concatenation. `None`: it has none.
    pub concat: Option<Concat>,
    /// The address the request came from, if it is known.
    pub peer: Option<IpAddr>,
    /// Name in the client certificate that was shown. `None` if no certificate was shown.
    pub certificate: Option<String>,
}

impl BeginRequest {
    /// Bytes that the upload counts for as it begins. The bytes of a final upload count as those of its partial ones,
    /// which go when it does.
    pub(super) fn bytes_at_begin(&self) -> u64 {
        if self.concat.as_ref().is_some_and(Concat::is_final) { 0 } else { amount::bytes_at_begin(&self.plan) }
    }

    /// True if a hook is asked before it begins. One is asked of the file that partial uploads become, by its name.
    pub(super) fn has_hook(&self) -> bool {
        !matches!(self.concat, Some(Concat::Partial(_)))
    }

    /// The asker, of clients that name no source. `None` if a source is named, or nothing is known.
    pub fn client(&self) -> Option<String> {
        if self.source.is_some() { None } else { self.by.client(self.peer) }
    }

    /// The question for the hook before it begins.
    pub(super) fn beginning(&self) -> BeginQuestion<'_> {
        let (size, token) = (self.plan.file_size, self.by.token());
        BeginQuestion {
            name: &self.name,
            size,
            token,
            replace: self.replace,
            metadata: self.metadata.as_deref(),
            peer: self.peer,
        }
    }
}
