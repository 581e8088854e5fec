//! DELETE of a finished file.

use crate::admission::access::Access;
use crate::admission::tokens::Permission;
use crate::http::app::App;
use crate::http::content::conditions::Verdict;
use crate::http::content::download::{message_name, validators};
use crate::http::content::representation::precondition_failed;
use crate::http::content::routes::name_of;
use crate::net::peer::Peer;
use crate::net::response::{Response, empty};
use crate::refusal::Refusal;
use crate::uploads::finished::Remover;
use warp::http::StatusCode;
use warp::http::header::HeaderMap;

impl App {
    /// Removes the file in `path` for good.
    ///
    /// # Errors
    /// There is no such file, its sender may not remove it, or a condition does not hold.
    pub(super) async fn delete(
        &self,
        by: Access,
        peer: Option<Peer>,
        headers: &HeaderMap,
        path: &str,
    ) -> Result<Response, Refusal> {
        let name = name_of(path, &by, Permission::Delete)?;
        let remover = Remover { by, peer: peer.and_then(Peer::ip), certificate: self.shown_name() };
        let (uploads, asked, headers) = (self.uploads.clone(), name.clone(), headers.clone());
        let removing = self.blocking(move || {
            uploads.remove_finished(&asked, &remover, |open| validators(open).judge(&headers, false) == Verdict::Holds)
        });
        if !removing.await? {
            return Err(precondition_failed(&message_name(&name)));
        }
        Ok(empty(StatusCode::NO_CONTENT))
    }
}
