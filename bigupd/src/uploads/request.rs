//! The parts of a request about an upload, by any protocol.

use crate::admission::access::Access;
use crate::hooks::begin::BeginQuestion;
use bigup_core::protocol::digest::Digest;
use bigup_core::protocol::name::FileName;
use bigup_core::protocol::plan::Plan;
use bigup_core::storage::spool::UploadId;
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
    /// Anything that the client tells of the file, in the form of its protocol. `None` if it tells nothing.
    pub metadata: Option<String>,
    /// The file is not to be published before its client says that it is whole.
    pub awaits_end: bool,
    /// The address the request came from, if it is known.
    pub peer: Option<IpAddr>,
    /// Name in the client certificate that was shown. `None` if no certificate was shown.
    pub certificate: Option<String>,
}

impl BeginRequest {
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
