//! PUT of a file: stored whole, or not at all.
//!
//! The body is an upload like those of other protocols, cut into slices on arrival and merged while it comes. It awaits
//! its end ([`UploadRecord::awaits_end`](bigup_core::storage::spool::UploadRecord::awaits_end)), which is told once all
//! of the body came. A digest that is promised is compared before the file is published. A request that ends before that
//! takes its upload with it.

use crate::admission::access::Access;
use crate::admission::tokens::Permission;
use crate::http::app::App;
use crate::http::append::AppendBody;
use crate::http::body::content_length;
use crate::http::content::conditions::Verdict;
use crate::http::content::download::{etag_of, message_name, validators};
use crate::http::content::representation::precondition_failed;
use crate::http::content::routes::{file_name, path_of};
use crate::http::digest_fields::{body_sha256, check_content_coding};
use crate::http::request::Request;
use crate::http::upload_url::Named;
use crate::metrics::UploadProtocol;
use crate::net::peer::Peer;
use crate::net::response::{Response, empty, insert};
use crate::refusal::Refusal;
use crate::uploads::Uploads;
use crate::uploads::append::AppendRequest;
use crate::uploads::create::{CreateRequest, WantedName};
use bigup_core::protocol::digest::Digest;
use bigup_core::protocol::name::FileName;
use bigup_core::protocol::native::ErrorCode;
use bigup_core::storage::spool::FileSha256;
use std::time::Duration;
use warp::http::StatusCode;
use warp::http::header::{CONTENT_RANGE, ETAG, HeaderMap, IF_MATCH, LOCATION};

/// Longest time that a response waits for the file to be finished. Merging keeps up with the body, so this is for disks
/// that hang.
const PATIENCE: Duration = Duration::from_secs(600);

/// An upload that ends with its request, unless it became a file.
struct Passing {
    uploads: Uploads,
    ask: AppendRequest,
    is_over: bool,
}

impl Drop for Passing {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        let (uploads, ask) = (self.uploads.clone(), self.ask.clone());
        // The request may be gone with its connection: nobody waits for this.
        tokio::task::spawn_blocking(move || {
            if let Err(refusal) = uploads.end(&ask.id, &ask.source) {
                log::debug!("{}: {}", ask.name, refusal.facts);
            }
        });
    }
}

impl App {
    /// Stores the body under the name in the path.
    ///
    /// # Errors
    /// It is refused, a condition does not hold, or the body is not whole: then nothing of it is left.
    pub(super) async fn put(&self, by: Access, request: Request) -> Result<Response, Refusal> {
        let Request { headers, path, peer, body, .. } = request;
        let name = file_name(&path)?;
        by.check(&[Permission::Push], Some(&name))?;
        let sha256 = checked(&headers)?;
        let replaces = self.may_be_put(&by, &name, &headers).await?;
        let len = content_length(&headers);
        let create = CreateRequest {
            by: by.clone(),
            name: WantedName::Exactly { name: name.clone(), replace: replaces },
            protocol: UploadProtocol::Put,
            file_size: len,
            metadata: None,
            sha256,
            awaits_end: true,
            is_partial: false,
            peer: peer.and_then(Peer::ip),
            certificate: self.shown_name(),
        };
        let uploads = self.uploads.clone();
        let created = self.blocking(move || uploads.create(&create)).await?;
        self.wakeup.tell();
        let named = Named { by: by.clone(), key: created.key, name: name.clone() };
        let ask = AppendRequest { awaits_end: true, ..named.append_request(peer, 0, len) };
        let mut passing = Passing { uploads: self.uploads.clone(), ask: ask.clone(), is_over: false };
        let body = AppendBody { body, len, checksum: None };
        let offset = self.append(ask.clone(), body).await?.offset;
        if len.is_some_and(|len| len != offset) {
            let facts = format!("{} bytes of {} came", offset, len.unwrap_or(0));
            return Err(Refusal::new(ErrorCode::Damaged, facts));
        }
        // The file may be another one than when the body began.
        self.may_be_put(&by, &name, &headers).await?;
        let digest = self.finish_put(AppendRequest { offset, file_size: Some(offset), ..ask }, &mut passing).await?;
        let mut response = empty(if replaces { StatusCode::NO_CONTENT } else { StatusCode::CREATED });
        insert(&mut response, ETAG, &etag_of(digest));
        insert(&mut response, LOCATION, &path_of(&name));
        self.tell_sha256(&mut response, &name, named.key.source()).await?;
        Ok(response)
    }

    /// Takes the body for whole, and waits until it is the finished file.
    async fn finish_put(&self, last: AppendRequest, passing: &mut Passing) -> Result<Digest, Refusal> {
        // The last slice may be in the tail, since nobody knew that it was the last one.
        self.append(last.clone(), AppendBody::empty()).await?;
        let (uploads, asked) = (self.uploads.clone(), last.clone());
        self.blocking(move || uploads.complete(&asked)).await?;
        let end = self.wait_for_end(&last.id, &last.name, &last.source, PATIENCE).await;
        // It goes on without its client where that takes too long.
        passing.is_over = end.as_ref().map_or_else(|refusal| refusal.code == ErrorCode::Busy, |_| true);
        Ok(end?.0)
    }

    /// True if a PUT of this name replaces a file, which is permitted.
    ///
    /// # Errors
    /// A condition does not hold, or the file may not be replaced.
    async fn may_be_put(&self, by: &Access, name: &FileName, headers: &HeaderMap) -> Result<bool, Refusal> {
        let (uploads, asked) = (self.uploads.clone(), name.clone());
        let found = self.blocking(move || match uploads.open_finished(&asked) {
            Err(refusal) if refusal.code == ErrorCode::NotFound => Ok(None),
            found => found.map(|open| Some(validators(&open))),
        });
        match found.await? {
            None if headers.contains_key(IF_MATCH) => Err(precondition_failed(&message_name(name))),
            None => Ok(false),
            Some(validators) if validators.judge(headers, false) != Verdict::Holds => {
                Err(precondition_failed(&message_name(name)))
            }
            Some(_) => by.check(&[Permission::Replace], Some(name)).map(|()| true),
        }
    }
}

/// The part that the SHA-256 of the body plays.
///
/// # Errors
/// The body is a part of a file, is coded, or its digest is malformed.
fn checked(headers: &HeaderMap) -> Result<Option<FileSha256>, Refusal> {
    if headers.contains_key(CONTENT_RANGE) {
        // RFC 9110, section 14.5: a server that takes no part must not take it for the whole.
        let facts = "Content-Range: a PUT stores a whole file, and no part of one";
        return Err(Refusal::new(ErrorCode::BadRequest, facts));
    }
    check_content_coding(headers)?;
    body_sha256(headers)
}
