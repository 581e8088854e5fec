//! Bodies. The bytes are one that says how the body is cut into pieces, a line with the content type, and the body. The
//! body is read as it is, in one piece and in many; and it is put into a form as its only field, which must give it back.

use bigup_core::protocol::native::ErrorCode;
use bigupd::config::Config;
use bigupd::http::body::{Body, raw_body};
use bigupd::net::min_rate::MinRate;
use bigupd::refusal::Refusal;
use bytes::Bytes;
use std::time::Duration;

/// Nothing here is ever silent.
const SILENCE: Duration = Duration::from_secs(600);

/// Longest boundary (RFC 2046, section 5.1.1).
const MAX_BOUNDARY_LEN: usize = 70;

/// Checks a body.
///
/// # Panics
/// It is read differently in pieces, or a form does not give back its field.
pub fn check(data: &[u8]) {
    let Some((cut, rest)) = data.split_first() else { return };
    let end = rest.iter().position(|b| *b == b'\n').unwrap_or(rest.len());
    let (content_type, body) = (String::from_utf8_lossy(&rest[..end]), rest.get(end + 1..).unwrap_or_default());
    let whole = read(vec![Bytes::copy_from_slice(body)], &content_type);
    assert_eq!(read(pieces(body, *cut), &content_type), whole, "cut by {cut}");
    if !content_type.to_ascii_lowercase().starts_with("multipart/") {
        assert_eq!(whole.as_deref(), Ok(body), "a raw body is its content");
    }
    let boundary: String = content_type.chars().filter(char::is_ascii_alphanumeric).take(MAX_BOUNDARY_LEN).collect();
    let boundary = if boundary.is_empty() { "XX" } else { &boundary };
    let delimiter = format!("\r\n--{boundary}");
    let head = format!("--{boundary}\r\nContent-Disposition: form-data; name=\"f\"; filename=\"f\"\r\n\r\n");
    let content_is_plain = !body.windows(delimiter.len()).any(|w| w == delimiter.as_bytes())
        && !body.starts_with(&delimiter.as_bytes()[2..]);
    if content_is_plain {
        let form = [head.as_bytes(), body, delimiter.as_bytes(), b"--\r\n"].concat();
        let content_type = format!("multipart/form-data; boundary={boundary}");
        assert_eq!(read(pieces(&form, *cut), &content_type).as_deref(), Ok(body), "boundary {boundary}, cut by {cut}");
    }
}

/// `data` in pieces whose lengths follow from `cut`, some of them empty.
fn pieces(mut data: &[u8], cut: u8) -> Vec<Bytes> {
    let lengths = [cut % 5, cut / 5 % 7, 1 + cut / 35, 1];
    let mut pieces = vec![];
    for len in lengths.iter().cycle() {
        let (piece, rest) = data.split_at(data.len().min((*len).into()));
        pieces.push(Bytes::copy_from_slice(piece));
        data = rest;
        if data.is_empty() {
            break;
        }
    }
    pieces
}

/// Reads a body to its end; of a refusal what programs read.
fn read(pieces: Vec<Bytes>, content_type: &str) -> Result<Vec<u8>, ErrorCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime starts");
    let limits = Config::defaults("/d".into()).limits;
    let raw = raw_body(futures_util::stream::iter(pieces.into_iter().map(Ok)));
    let content = runtime.block_on(async {
        let mut body = Body::new(raw, Some(content_type), SILENCE).await?;
        let mut content = vec![];
        let mut pace = MinRate::new(&limits);
        while let Some(piece) = body.next(&mut pace).await? {
            content.extend(piece);
        }
        body.finish(SILENCE).await?;
        Ok::<_, Refusal>(content)
    });
    content.map_err(|refusal| {
        crate::name::assert_harmless(&refusal.facts);
        assert_eq!(refusal.code, ErrorCode::BadRequest, "{refusal:?}");
        refusal.code
    })
}
