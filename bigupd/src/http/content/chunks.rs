//! Bodies that are made chunk by chunk as their reader takes them.
//!
//! Each chunk goes on after the last name of the one before, so nothing is held in between but that name.

use crate::http::app::App;
use crate::http::content::sending::{Piece, Shared};
use crate::net::response::Response;
use crate::refusal::Refusal;
use crate::uploads::Uploads;
use bytes::Bytes;
use futures_util::stream::{Stream, unfold};
use std::io;
use std::sync::Arc;
use tokio::sync::Semaphore;
use warp::Reply;

/// Bytes of a chunk, after which the next one begins.
pub(super) const CHUNK: usize = 64 << 10;

/// A body, as far as it is still to be made.
pub(super) trait Chunks: Sized + Send + 'static {
    /// The next chunk, and the rest. `None` if nothing follows.
    ///
    /// # Errors
    /// It cannot be read.
    fn chunk(self, uploads: &Uploads) -> Result<(Vec<u8>, Option<Self>), Refusal>;
}

impl App {
    /// The first chunk of a body, and the rest of it.
    ///
    /// # Errors
    /// It cannot be read.
    pub(super) async fn chunk<C: Chunks>(&self, body: C) -> Result<(Vec<u8>, Option<C>), Refusal> {
        let uploads = self.uploads.clone();
        self.blocking(move || body.chunk(&uploads)).await
    }

    /// A response with the `first` chunk and those that follow it.
    pub(super) fn chunked<C: Chunks>(&self, first: Vec<u8>, rest: Option<C>) -> Response {
        match rest {
            None => Response::new(first.into()),
            Some(rest) => warp::reply::stream(Shared::new(self.clone().chunks(first, rest))).into_response(),
        }
    }

    fn chunks<C: Chunks>(self, first: Vec<u8>, rest: C) -> impl Stream<Item = io::Result<Bytes>> + Send {
        // One chunk at a time is in memory.
        let turns = Arc::new(Semaphore::new(1));
        unfold(Some((Some(first), Some(rest))), move |state| {
            let (app, turns) = (self.clone(), Arc::clone(&turns));
            async move {
                let (first, rest) = state?;
                let turn = turns.acquire_owned().await.map_err(io::Error::other);
                let made = match (first, rest) {
                    (Some(first), rest) => Ok((first, rest)),
                    (None, Some(rest)) => app.chunk(rest).await,
                    (None, None) => return None,
                };
                match (made, turn) {
                    (Ok((bytes, rest)), Ok(permit)) => Some((Ok(Piece::new(bytes, permit).into()), Some((None, rest)))),
                    (Err(refusal), _) => Some((Err(io::Error::other(refusal.facts)), None)),
                    (_, Err(e)) => Some((Err(e), None)),
                }
            }
        })
    }
}
