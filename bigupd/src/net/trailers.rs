//! Fields behind a body (RFC 9110, section 6.5), which warp's streams of bodies leave out.

use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use warp::http::header::{HeaderMap, TRAILER};

/// The fields behind a body, once its end was read. Many hold them; they are those of one body.
#[derive(Clone, Debug, Default)]
pub struct Trailers(Arc<OnceLock<HeaderMap>>);

impl Trailers {
    /// The fields. `None` if the body has not ended, or had none.
    pub fn get(&self) -> Option<&HeaderMap> {
        self.0.get()
    }
}

/// A body that keeps its trailers where its head announced some.
#[derive(Debug)]
pub struct BodyWithTrailers {
    body: Incoming,
    trailers: Option<Trailers>,
}

impl BodyWithTrailers {
    /// The body of a request with these header fields.
    pub fn new(body: Incoming, headers: &HeaderMap) -> BodyWithTrailers {
        BodyWithTrailers { body, trailers: headers.contains_key(TRAILER).then(Trailers::default) }
    }

    /// The place of its trailers. `None` if none were announced.
    pub fn trailers(&self) -> Option<Trailers> {
        self.trailers.clone()
    }
}

impl Body for BodyWithTrailers {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let Some(Ok(frame)) = &frame
            && let (Some(fields), Some(trailers)) = (frame.trailers_ref(), &self.trailers)
        {
            // There is one frame of them at most.
            let _ = trailers.0.set(fields.clone());
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
