//! PUT of a folder: a path that ends in `/`, without a body.

use crate::admission::access::Access;
use crate::admission::tokens::Permission;
use crate::http::app::App;
use crate::http::body::content_length;
use crate::http::content::routes::{folder_name, path_of};
use crate::net::response::{Response, empty, insert};
use crate::refusal::Refusal;
use bigup_core::protocol::native::ErrorCode;
use warp::http::StatusCode;
use warp::http::header::{HeaderMap, LOCATION, TRANSFER_ENCODING};

impl App {
    /// Makes the folder in the path, with those that it is in. A folder that is there stays as it is.
    ///
    /// # Errors
    /// Its sender may not push there, a body comes along, a file is in the way, or a limit is reached.
    pub(super) async fn put_folder(&self, by: Access, headers: &HeaderMap, path: &str) -> Result<Response, Refusal> {
        let name = folder_name(path)?;
        by.check(&[Permission::Push], Some(&name))?;
        let body = match content_length(headers) {
            Some(0) => None,
            Some(len) => Some(format!("{len} bytes")),
            None => headers.contains_key(TRANSFER_ENCODING).then(|| "a body".to_owned()),
        };
        if let Some(body) = body {
            let facts =
                format!("{body} came for {name}/, but a folder has no content: give the file a name behind the /");
            return Err(Refusal::new(ErrorCode::BadRequest, facts));
        }
        let (uploads, asked) = (self.uploads.clone(), name.clone());
        let is_new = self.blocking(move || uploads.make_folder(&by, &asked)).await?;
        let mut response = empty(if is_new { StatusCode::CREATED } else { StatusCode::NO_CONTENT });
        insert(&mut response, LOCATION, &format!("{}/", path_of(&name)));
        Ok(response)
    }
}
