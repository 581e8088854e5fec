//! GET and HEAD of a finished file.

use crate::admission::access::Access;
use crate::admission::tokens::Permission;
use crate::http::app::App;
use crate::http::content::conditions::Validators;
use crate::http::content::representation::Representation;
use crate::http::content::routes::name_of;
use crate::http::content::sending::{Direct, Source};
use crate::net::file_parts::FileParts;
use crate::net::response::{Response, empty, insert, keep_nowhere};
use crate::refusal::Refusal;
use bigup_core::protocol::digest::Digest;
use bigup_core::protocol::name::FileName;
use bigup_core::storage::store::{Content, OpenFile};
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use warp::http::header::{
    HeaderMap, HeaderName, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, LOCATION,
};
use warp::http::{Method, StatusCode};

/// Time for which a link to the store may be used: to begin a download, not to end it.
const LINK_HOLDS: Duration = Duration::from_secs(5 * 60);

/// Conditions of requests. The store knows no entity tags of this server's, so such requests are answered here.
const CONDITIONS: [HeaderName; 5] = [IF_MATCH, IF_NONE_MATCH, IF_MODIFIED_SINCE, IF_UNMODIFIED_SINCE, IF_RANGE];

/// The response that sends a reader to `link`.
fn see_store(link: &str) -> Response {
    let mut response = empty(StatusCode::TEMPORARY_REDIRECT);
    insert(&mut response, LOCATION, link);
    // The link holds for a while only, and is for this reader.
    keep_nowhere(&mut response);
    response
}

impl App {
    /// Responds to a GET or HEAD of the file in `path`.
    ///
    /// # Errors
    /// There is no such file, its sender may not read it, or a condition does not hold.
    pub(super) async fn download(
        &self,
        by: &Access,
        method: &Method,
        headers: &HeaderMap,
        path: &str,
        parts: Option<FileParts>,
    ) -> Result<Response, Refusal> {
        let name = name_of(path, by, Permission::Read)?;
        let (uploads, asked) = (self.uploads.clone(), name.clone());
        let open = self.blocking(move || uploads.open_finished(&asked)).await?;
        if self.uploads.settings.redirects_to_store
            && *method == Method::GET
            && !CONDITIONS.iter().any(|condition| headers.contains_key(condition))
            && let Content::Object(object) = &open.content
        {
            return Ok(see_store(&object.link(LINK_HOLDS).map_err(io::Error::from)?));
        }
        self.respond(method, headers, file(&name, open, parts))
    }
}

fn file(name: &FileName, open: OpenFile, parts: Option<FileParts>) -> Representation {
    let (validators, digest) = (validators(&open), digest_of(&open));
    let (source, direct): (Arc<dyn Source>, _) = match open.content {
        Content::File(file) => {
            let file = Arc::new(file);
            (Arc::clone(&file) as _, parts.map(|parts| Direct { file, parts }))
        }
        object @ Content::Object(_) => (Arc::new(object), None),
    };
    Representation {
        name: name.as_str().to_owned(),
        message_name: message_name(name),
        content_type: "application/octet-stream",
        saved_as: name.components().last().unwrap_or_default().to_owned(),
        size: open.size,
        validators,
        digest,
        sha256: open.stored_digest.as_ref().and_then(|stored| stored.sha256),
        has_ranges: true,
        source,
        direct,
    }
}

/// The words for a file in messages.
pub(super) fn message_name(name: &FileName) -> String {
    format!("the finished {name}")
}

/// The facts that conditions of a request for a file are compared with.
pub(super) fn validators(open: &OpenFile) -> Validators {
    let etag = digest_of(open).map(etag_of);
    let validators = Validators::new(etag, open.modified, SystemTime::now());
    match open.source_modified {
        Some(_) => validators.with_kept_time(open.changed),
        None => validators,
    }
}

/// The strong entity tag of content with this digest.
pub(super) fn etag_of(digest: Digest) -> String {
    format!("\"b3-{digest}\"")
}

fn digest_of(open: &OpenFile) -> Option<Digest> {
    open.stored_digest.as_ref().map(|stored| stored.digest)
}
