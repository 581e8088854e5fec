//! Request bodies as a stream of pieces, raw or out of a multipart form, in bounded memory; and draining the rest of
//! them.

use crate::http::checksum::{Algorithm, Checksum};
use crate::metrics::Limit;
use crate::net::body_memory::MAX_BUFFER;
use crate::net::min_rate::MinRate;
use crate::refusal::Refusal;
use bigup_core::protocol::native::ErrorCode;
use bigup_core::protocol::units::parse_u64;
use bytes::{Buf, Bytes};
use futures_util::{Stream, StreamExt};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Instant, timeout, timeout_at};
use warp::http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap};

/// The body of a request. A copy reads on where the other copy stopped, so that the holder of a copy can drain the
/// rest.
#[derive(Clone)]
pub struct RawBody(Arc<Mutex<Raw>>);

struct Raw {
    pieces: Pieces,
    broken: bool,
    /// It was asked for, so that a client that waits for "100 Continue" sends it.
    begun: bool,
    /// `None` if no digest is needed.
    sha256: Option<Checksum>,
}

type Pieces = Pin<Box<dyn Stream<Item = Result<Bytes, warp::Error>> + Send + Sync>>;

/// Most bytes of a form beside the field: boundaries, part headers, preamble.
pub const MAX_FORM_OVERHEAD: u64 = 64 << 10;

/// Longest boundary of a form, in characters (RFC 2046, section 5.1.1).
const MAX_BOUNDARY_LEN: usize = 70;

/// Longest time to go on reading a refused body. So a client that writes the whole body before it reads gets the
/// response. A body that has not ended by then is cut off.
const DRAIN_TIME: Duration = Duration::from_secs(30);

/// Makes a [`RawBody`] of warp's stream.
pub fn raw_body(stream: impl Stream<Item = Result<impl Buf, warp::Error>> + Send + Sync + 'static) -> RawBody {
    let pieces = stream.map(|piece| piece.map(|mut buf| buf.copy_to_bytes(buf.remaining())));
    RawBody(Arc::new(Mutex::new(Raw { pieces: Box::pin(pieces), broken: false, begun: false, sha256: None })))
}

impl Stream for RawBody {
    type Item = Result<Bytes, warp::Error>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut raw = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        raw.begun = true;
        let piece = raw.pieces.as_mut().poll_next(cx);
        raw.broken |= matches!(piece, Poll::Ready(Some(Err(_))));
        if let (Poll::Ready(Some(Ok(piece))), Some(sha256)) = (&piece, &mut raw.sha256) {
            sha256.update(piece);
        }
        piece
    }
}

impl RawBody {
    /// True if any of it was asked for.
    pub fn is_begun(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).begun
    }

    /// Digests from here on all bytes read of it, by every copy.
    pub fn digest(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).sha256 = Some(Checksum::new(Algorithm::Sha256));
    }

    /// The digest of the bytes so far. `None` if no digest was asked for.
    pub fn sha256(&self) -> Option<Checksum> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).sha256.clone()
    }
}

/// The length of a body that its header tells, in bytes. `None` if it is not told.
pub fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()).and_then(parse_u64)
}

/// True if the headers are those of a form, which has its slice in a field.
pub fn is_form(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).is_some_and(is_form_type)
}

fn is_form_type(content_type: &str) -> bool {
    content_type.to_ascii_lowercase().starts_with("multipart/")
}

/// The content of a slice, as its request carries it.
pub enum Body {
    /// The body itself.
    Raw(RawBody),
    /// The only field of a multipart/form-data body (RFC 7578).
    Form(Box<FormBody>),
}

/// The field of a form being read, and its feed.
pub struct FormBody {
    form: multer::Multipart<'static>,
    field: multer::Field<'static>,
    held_back: Arc<HeldBack>,
}

/// Bytes that a form parser holds back until it can parse them.
#[derive(Default)]
struct HeldBack {
    bytes: AtomicU64,
    /// Bytes searched in vain, again with every piece.
    looked_through: AtomicU64,
}

impl Body {
    /// Takes a body by its content type. The header of a form is read here.
    ///
    /// # Errors
    /// It is no form although it says so.
    pub async fn new(raw: RawBody, content_type: Option<&str>, silence: Duration) -> Result<Body, Refusal> {
        let Some(content_type) = content_type.filter(|content_type| is_form_type(content_type)) else {
            return Ok(Body::Raw(raw));
        };
        let boundary = multer::parse_boundary(content_type).map_err(bad_form)?;
        if boundary.len() > MAX_BOUNDARY_LEN {
            let message = format!(
                "the form's boundary has {} characters; at most {MAX_BOUNDARY_LEN} are possible",
                boundary.len()
            );
            return Err(Refusal::new(ErrorCode::BadRequest, message));
        }
        let held_back = Arc::<HeldBack>::default();
        let mut form = multer::Multipart::new(MultipartFeed::new(raw, Arc::clone(&held_back)), boundary);
        let field = timeout(silence, form.next_field()).await.map_err(|_| too_slow(silence))?.map_err(bad_form)?;
        let field = field.ok_or_else(|| Refusal::new(ErrorCode::BadRequest, "the form has no field"))?;
        Ok(Body::Form(Box::new(FormBody { form, field, held_back })))
    }

    /// The next piece; `None` at the end.
    ///
    /// # Errors
    /// It does not come at this `pace`, the connection broke, or the form is malformed.
    pub async fn next(&mut self, pace: &mut MinRate) -> Result<Option<Bytes>, Refusal> {
        loop {
            let began = Instant::now();
            let piece = match timeout(pace.patience(), self.next_piece()).await {
                Ok(Ok(Some(piece))) => Some(piece),
                Ok(end) => return end,
                Err(_) => None,
            };
            pace.waited(began.elapsed(), piece.as_ref().map_or(0, Bytes::len) as u64)
                .map_err(|slow| late(format!("the client is too slow: {slow}")))?;
            if piece.is_some() {
                return Ok(piece);
            }
        }
    }

    /// Nothing of the piece is lost where waiting for it is given up.
    async fn next_piece(&mut self) -> Result<Option<Bytes>, Refusal> {
        match self {
            Body::Raw(raw) => raw.next().await.transpose().map_err(broken),
            Body::Form(form) => form.next().await,
        }
    }
}

/// Reads and forgets `raw`, up to `limit` bytes, for half a minute at most, and until nothing comes for `silence`. True
/// if its end was reached.
pub async fn drain(mut raw: RawBody, limit: u64, silence: Duration) -> bool {
    let deadline = Instant::now() + DRAIN_TIME;
    let mut left = limit;
    loop {
        match timeout_at(deadline.min(Instant::now() + silence), raw.next()).await {
            Ok(Some(Ok(piece))) => left = left.saturating_sub(piece.len() as u64),
            // It ends after it broke, too.
            Ok(None) => return !raw.0.lock().unwrap_or_else(PoisonError::into_inner).broken,
            Ok(Some(Err(_))) | Err(_) => return false,
        }
        if left == 0 {
            return false;
        }
    }
}

impl FormBody {
    async fn next(&mut self) -> Result<Option<Bytes>, Refusal> {
        if let Some(piece) = self.field.chunk().await.map_err(bad_form)? {
            self.held_back.bytes.fetch_sub(piece.len() as u64, Ordering::Relaxed);
            self.held_back.looked_through.store(0, Ordering::Relaxed);
            return Ok(Some(piece));
        }
        // The field must be let go before the next one can be asked for; an ended one gives no more pieces.
        Ok(None)
    }

    /// Makes sure that the form ends after its field.
    async fn finish(self) -> Result<(), Refusal> {
        let FormBody { mut form, field, held_back: _ } = self;
        drop(field);
        match form.next_field().await.map_err(bad_form)? {
            None => Ok(()),
            Some(_) => Err(Refusal::new(ErrorCode::BadRequest, "the form has more than one field")),
        }
    }
}

impl Body {
    /// Makes sure that nothing follows the content.
    ///
    /// # Errors
    /// Something does, or it does not come.
    pub async fn finish(self, silence: Duration) -> Result<(), Refusal> {
        match self {
            Body::Raw(_) => Ok(()),
            Body::Form(form) => timeout(silence, form.finish()).await.map_err(|_| too_slow(silence))?,
        }
    }
}

/// Feeds a form parser piece by piece.
///
/// The parser takes all that is ready before it parses, and looks for a beginning or a header for as long as none
/// comes. So every piece is followed by "not ready". The bytes that the parser can hold back, and the number of times
/// that it can search them, are limited: small pieces would make it quadratic.
struct MultipartFeed {
    raw: RawBody,
    held_back: Arc<HeldBack>,
    rest: bool,
}

impl MultipartFeed {
    /// Most bytes that a parser can hold back: a piece as hyper gives them, and the part of a header or a boundary
    /// before it.
    const MAX_HELD_BACK: u64 = 2 * MAX_BUFFER as u64;

    /// Most bytes that a parser can search until it finds something: some milliseconds' work.
    const MAX_LOOKED_THROUGH: u64 = 64 << 20;

    fn new(raw: RawBody, held_back: Arc<HeldBack>) -> MultipartFeed {
        MultipartFeed { raw, held_back, rest: false }
    }
}

impl Stream for MultipartFeed {
    type Item = Result<Bytes, std::io::Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if std::mem::take(&mut self.rest) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let piece = match Pin::new(&mut self.raw).poll_next(cx) {
            Poll::Ready(Some(Ok(piece))) => piece,
            Poll::Ready(Some(Err(e))) => return Poll::Ready(Some(Err(std::io::Error::other(e)))),
            Poll::Ready(None) => return Poll::Ready(None),
            Poll::Pending => return Poll::Pending,
        };
        self.rest = true;
        let HeldBack { bytes, looked_through } = &*self.held_back;
        let held = bytes.fetch_add(piece.len() as u64, Ordering::Relaxed) + piece.len() as u64;
        let looked = looked_through.fetch_add(held, Ordering::Relaxed);
        if held > MultipartFeed::MAX_HELD_BACK || looked > MultipartFeed::MAX_LOOKED_THROUGH {
            return Poll::Ready(Some(Err(std::io::Error::other("no field where one is due"))));
        }
        Poll::Ready(Some(Ok(piece)))
    }
}

fn bad_form(error: multer::Error) -> Refusal {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    let text = bigup_core::protocol::name::printable(&text);
    Refusal::new(ErrorCode::BadRequest, format!("the multipart form cannot be read: {text}"))
}

fn broken(error: warp::Error) -> Refusal {
    Refusal::new(ErrorCode::Damaged, format!("the body broke off: {error}"))
}

fn too_slow(silence: Duration) -> Refusal {
    late(format!("no byte of the body came for {} s", silence.as_secs()))
}

fn late(message: String) -> Refusal {
    Refusal::over(Limit::MinRate, ErrorCode::Timeout, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SILENCE: Duration = Duration::from_secs(20);

    fn pace() -> MinRate {
        MinRate::new(&crate::config::Config::defaults("/d".into()).limits)
    }

    fn pieces(data: &[u8], by: usize) -> RawBody {
        let pieces: Vec<_> = data.chunks(by).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
        raw_body(futures_util::stream::iter(pieces))
    }

    fn form(content: &[u8]) -> Vec<u8> {
        let head = b"--XX\r\nContent-Disposition: form-data; name=\"slic_content\"; filename=\"slic_content\"\r\n\r\n";
        [&head[..], content, b"\r\n--XX--\r\n"].concat()
    }

    async fn read(raw: RawBody, content_type: &str) -> Result<Vec<u8>, Refusal> {
        let mut body = Body::new(raw, Some(content_type), SILENCE).await?;
        let mut all = vec![];
        let mut pace = pace();
        while let Some(piece) = body.next(&mut pace).await? {
            all.extend(piece);
        }
        body.finish(SILENCE).await?;
        Ok(all)
    }

    #[tokio::test]
    async fn a_form_gives_its_field_however_it_is_cut() {
        let content: Vec<u8> = (0..5000).map(|i| b"\r\n--X"[i % 5]).collect();
        for by in [1, 2, 7, 64, 100_000] {
            let raw = pieces(&form(&content), by);
            assert_eq!(read(raw, "multipart/form-data; boundary=XX").await.unwrap(), content, "{by}");
        }
    }

    #[tokio::test]
    async fn malformed_forms_are_refused() {
        for (data, content_type) in [
            (&b"no boundary at all"[..], "multipart/form-data; boundary=XX"),
            (b"--XX--\r\n", "multipart/form-data; boundary=XX"),
            (b"--XX\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\ncut off", "multipart/form-data; boundary=XX"),
            (&[&form(b"1")[..form(b"1").len() - 8], &form(b"2")].concat(), "multipart/form-data; boundary=XX"),
            (b"--XX--\r\n", "multipart/form-data"),
            (&form(b"1"), &format!("multipart/form-data; boundary={}", "X".repeat(71))),
        ] {
            let refusal = read(pieces(data, 10), content_type).await.unwrap_err();
            assert_eq!(refusal.code, ErrorCode::BadRequest, "{refusal:?}");
        }
    }

    #[tokio::test]
    async fn a_form_without_end_is_not_held_in_memory() {
        let endless = futures_util::stream::repeat_with(|| Ok(Bytes::from_static(&[b'x'; 65536])));
        let refusal = read(raw_body(endless), "multipart/form-data; boundary=XX").await.unwrap_err();
        assert!(refusal.facts.contains("no field where one is due"), "{refusal:?}");
    }

    #[tokio::test]
    async fn a_form_without_end_in_tiny_pieces_is_not_looked_through_for_long() {
        let endless = futures_util::stream::repeat_with(|| Ok(Bytes::from_static(b"x")));
        let refusal = read(raw_body(endless), "multipart/form-data; boundary=XX").await;
        assert!(refusal.unwrap_err().facts.contains("no field where one is due"));
    }

    #[tokio::test]
    async fn draining_ends_at_its_limit() {
        let endless = futures_util::stream::repeat_with(|| Ok(Bytes::from_static(b"0123456789")));
        assert!(!drain(raw_body(endless), 1000, DRAIN_TIME).await);
        assert!(drain(pieces(b"short", 2), 1000, DRAIN_TIME).await);
        // A client that stalls has its connection no longer than for a body that is wanted.
        let stalled = futures_util::stream::pending::<Result<Bytes, warp::Error>>();
        assert!(!drain(raw_body(stalled), 1000, Duration::from_millis(1)).await);
    }
}
