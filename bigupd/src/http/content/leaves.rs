//! The digests of a finished file's parts: by them a client checks each part of a download before it counts.

use crate::admission::access::Access;
use crate::admission::tokens::Permission;
use crate::http::app::App;
use crate::http::content::listing::fine_moment;
use crate::http::content::routes::name_of;
use crate::net::response::{Response, json};
use crate::refusal::Refusal;
use bigup_core::protocol::content::LeavesResponse;
use bigup_core::protocol::digest::Leaves;
use bigup_core::protocol::name::FileName;
use bigup_core::storage::store::OpenFile;
use warp::http::StatusCode;

impl App {
    /// Responds with size and digests of the file in `path`. The file is not read for it.
    ///
    /// # Errors
    /// There is no such file, or its sender may not read it.
    pub(super) async fn leaves(&self, by: &Access, path: &str) -> Result<Response, Refusal> {
        let name = name_of(path, by, Permission::Read)?;
        let (uploads, asked) = (self.uploads.clone(), name.clone());
        let (open, leaves) = self.blocking(move || uploads.open_with_leaves(&asked)).await?;
        Ok(json(StatusCode::OK, &response(&name, &open, leaves)))
    }
}

fn response(name: &FileName, open: &OpenFile, leaves: Option<Leaves>) -> LeavesResponse {
    LeavesResponse {
        file_name: name.as_str().to_owned(),
        file_size: open.size,
        file_digest: open.stored_digest.as_ref().map(|stored| stored.digest.to_string()),
        modified: fine_moment(open.modified),
        source_modified: open.source_modified.map(|time| time.to_string()),
        leaf_size: leaves.as_ref().map(|leaves| leaves.leaf_len),
        leaves: leaves.map(|leaves| leaves.values.iter().map(ToString::to_string).collect()),
    }
}
