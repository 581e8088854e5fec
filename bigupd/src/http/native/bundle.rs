//! A bundle: several small files in the body of one POST ([`param::BUNDLE`]).
//!
//! The body is cut into files as it comes. Those that came whole are stored together once they are enough, or the body
//! ends; then the memory and the descriptors that they took are free again. So a bundle takes no more than a slice does,
//! however long it is and however slowly it comes. They are stored early where the body stalls. Where it breaks off, files
//! that came before may be stored.

use crate::admission::access::Access;
use crate::admission::origins::Effect;
use crate::http::app::{App, last_unless};
use crate::http::body::{Body, RawBody, drain, is_form};
use crate::http::digest_fields::check_content_coding;
use crate::http::native::query::QueryParams;
use crate::http::native::routes::{NATIVE, log_refused, log_stored, slice_answer, slice_ask};
use crate::http::native::words;
use crate::http::receive::STALLED_AFTER;
use crate::net::body_memory::BODIES;
use crate::net::min_rate::MinRate;
use crate::net::peer::Peer;
use crate::net::response::Response;
use crate::refusal::Refusal;
use crate::uploads::SliceRequest;
use crate::uploads::bundle::{BundledEnd, BundledFile};
use bigup_core::protocol::native::{
    BundleResponse, BundledResponse, ErrorCode, MAX_BUNDLE, MAX_BUNDLE_LINE, MAX_BUNDLED_FILE, SliceResponse, param,
};
use std::mem;
use std::pin::pin;
use tokio::time::timeout;
use warp::http::header::HeaderMap;

/// Bytes of files that are stored together, at best: what they share is little beyond that.
const GROUP_LEN: u64 = 512 << 10;

/// Most files that are stored together: each is open until all of them are.
const GROUP: usize = 64;

/// Bytes of a file in a response beside its name: digest, flags, or the reason of a refusal.
const ANSWER_LEN: u64 = 512;

/// Cuts a body into files.
#[derive(Debug, Default)]
pub struct BundleCutter {
    /// Bytes that came and were not cut off yet.
    bytes: Vec<u8>,
    /// Where the next file begins in them.
    begin: usize,
    /// Number of files that were cut off.
    files: u64,
    /// The facts in the line of the next one. `None`: it was not read yet.
    head: Option<Head>,
}

/// The line in front of a file.
#[derive(Clone, Copy, Debug)]
struct Head {
    /// Bytes of the line, without its end.
    line: usize,
    /// Bytes of the file.
    len: usize,
}

/// A file as it was cut off: its query, and its bytes.
pub type Cut = (String, Vec<u8>);

impl BundleCutter {
    /// More of the body came.
    pub fn push(&mut self, piece: &[u8]) {
        self.bytes.drain(..mem::take(&mut self.begin));
        self.bytes.extend_from_slice(piece);
    }

    /// The next file that came whole. `None`: more of it is to come.
    ///
    /// # Errors
    /// The body is no bundle: where a file begins after this is not known.
    pub fn cut(&mut self) -> Result<Option<Cut>, Refusal> {
        let Some(Head { line, len }) = self.head()? else { return Ok(None) };
        let left = &self.bytes[self.begin..];
        let whole = line + 1 + len;
        let Some(bytes) = left.get(line + 1..whole) else { return Ok(None) };
        let cut = (String::from_utf8_lossy(&left[..line]).into_owned(), bytes.to_vec());
        self.begin += whole;
        self.files += 1;
        self.head = None;
        Ok(Some(cut))
    }

    /// The facts in the line of the next file, which is read once. `None`: it did not come whole.
    fn head(&mut self) -> Result<Option<Head>, Refusal> {
        if self.head.is_some() {
            return Ok(self.head);
        }
        let (left, number) = (&self.bytes[self.begin..], self.files);
        let Some(line) = left.iter().take(MAX_BUNDLE_LINE + 1).position(|byte| *byte == b'\n') else {
            return match left.len() > MAX_BUNDLE_LINE {
                true => {
                    Err(bad(format!("file {number}: no line of at most {MAX_BUNDLE_LINE} bytes is in front of it")))
                }
                false => Ok(None),
            };
        };
        let query = std::str::from_utf8(&left[..line]);
        let query = query.map_err(|_| bad(format!("file {number}: the line in front of it is not UTF-8")))?;
        let len = QueryParams::parse(query, Access::Everything)
            .and_then(|params| params.needed_number(param::SLICE_SIZE))
            .map_err(|refusal| Refusal { facts: format!("file {number}: {}", refusal.facts), ..refusal })?;
        if len > MAX_BUNDLED_FILE {
            let message = format!(
                "file {number} has {len} bytes; at most {MAX_BUNDLED_FILE} are possible in a bundle: send it alone"
            );
            return Err(Refusal::new(ErrorCode::TooLarge, message));
        }
        // At most MAX_BUNDLED_FILE.
        self.head = Some(Head { line, len: len as usize });
        Ok(self.head)
    }

    /// Number of bytes that came of a file that is not whole, and of its line.
    pub fn rest(&self) -> usize {
        self.bytes.len() - self.begin
    }
}

fn bad(message: String) -> Refusal {
    Refusal::new(ErrorCode::BadRequest, message)
}

/// The number of files of a bundle, as its query tells it.
fn told_files(query: &str, headers: &HeaderMap) -> Result<u64, Refusal> {
    let params = QueryParams::parse(query, Access::Everything)?;
    let files = params.needed_number(param::BUNDLE)?;
    if !params.is_only(param::BUNDLE) {
        return Err(bad(format!("beside {} no parameter is possible: those of a file are in its line", param::BUNDLE)));
    }
    if files > MAX_BUNDLE {
        let message = format!("{files} files are too many in a bundle, at most {MAX_BUNDLE}: send several bundles");
        return Err(Refusal::new(ErrorCode::TooLarge, message));
    }
    if is_form(headers) {
        return Err(bad("a bundle is no form: send it as the body".to_owned()));
    }
    if headers.contains_key("content-digest") {
        let message = format!("files are stored before the end of a bundle: tell the {} of each", param::SLICE_DIGEST);
        return Err(bad(message));
    }
    check_content_coding(headers)?;
    Ok(files)
}

impl App {
    /// Takes a bundle.
    pub(super) async fn bundle(
        &self,
        headers: HeaderMap,
        peer: Option<Peer>,
        query: String,
        body: RawBody,
    ) -> Response {
        let entered = self.enter(&headers, peer, Effect::Changes).await;
        let (by, files) = match entered.and_then(|by| Ok((by, told_files(&query, &headers)?))) {
            Ok(entered) => entered,
            Err(refusal) => return self.answer_after(&headers, body, Err(refusal), &NATIVE).await,
        };
        let _arriving = self.metrics().slice_arrives();
        let ended = self.store_bundle(&by, peer, files, body.clone()).await;
        let stalled = matches!(&ended, Err(refusal) if refusal.code == ErrorCode::Timeout);
        let at_end = !stalled && drain(body, self.drain_limit(), self.body_timeout()).await;
        let response = ended.and_then(|files| {
            let size = files.iter().map(|file| ANSWER_LEN + 2 * name_len(file)).sum();
            self.responses.make(size, || BundleResponse { status: 200, files })
        });
        last_unless(at_end, response.unwrap_or_else(|refusal| words::response(&refusal)))
    }

    /// Stores the `files` of a bundle as they come.
    async fn store_bundle(
        &self,
        by: &Access,
        peer: Option<Peer>,
        files: u64,
        body: RawBody,
    ) -> Result<Vec<BundledResponse>, Refusal> {
        let (mut body, mut pace) = (Body::Raw(body), MinRate::new(&self.settings.limits));
        let (mut cutter, mut group, mut group_len) = (BundleCutter::default(), vec![], 0);
        let mut ends = vec![];
        loop {
            let mut next = pin!(body.next(&mut pace));
            let piece = match timeout(STALLED_AFTER, next.as_mut()).await {
                Ok(piece) => piece?,
                Err(_) => {
                    // They take no memory while nobody knows when more comes.
                    group_len = 0;
                    ends.extend(self.store_group(by, peer, mem::take(&mut group)).await?);
                    next.await?
                }
            };
            cutter.push(piece.as_deref().unwrap_or_default());
            while let Some(cut) = cutter.cut()? {
                if cutter.files > files {
                    return Err(bad(format!("the bundle is to have {files} files, but there are more")));
                }
                group_len += cut.1.len() as u64;
                group.push(cut);
                if group.len() >= GROUP || group_len >= BODIES.batch_len(GROUP_LEN) {
                    group_len = 0;
                    ends.extend(self.store_group(by, peer, mem::take(&mut group)).await?);
                }
            }
            if piece.is_none() {
                break;
            }
        }
        ends.extend(self.store_group(by, peer, group).await?);
        match cutter.rest() {
            0 if cutter.files == files => Ok(ends),
            0 => Err(damaged(format!("the bundle is to have {files} files, and ends after {}", cutter.files))),
            rest => {
                Err(damaged(format!("file {} of the bundle ends after {rest} bytes of it and its line", cutter.files)))
            }
        }
    }

    /// Stores files that came whole, together.
    async fn store_group(
        &self,
        by: &Access,
        peer: Option<Peer>,
        group: Vec<Cut>,
    ) -> Result<Vec<BundledResponse>, Refusal> {
        if group.is_empty() {
            return Ok(vec![]);
        }
        // It is never closed.
        let _turn = self.bundle_turns.acquire().await.ok();
        let (app, by) = (self.clone(), by.clone());
        self.blocking(move || {
            let asked: Vec<Result<BundledFile, Refusal>> =
                group.into_iter().map(|(query, bytes)| app.bundled(by.clone(), peer, &query, bytes)).collect();
            let ends = app.uploads.store_bundle(&asked);
            let answered = asked.iter().zip(ends).map(|(asked, end)| match (asked, end) {
                (Ok(file), Ok(end)) => BundledResponse::Stored(stored_answer(&file.ask, end)),
                (Ok(file), Err(refusal)) => {
                    log_refused(&file.ask, &refusal);
                    refused(&refusal)
                }
                (Err(refusal), _) => refused(refusal),
            });
            Ok(answered.collect())
        })
        .await
    }

    /// A file of a bundle, as it would come alone.
    fn bundled(&self, by: Access, peer: Option<Peer>, query: &str, bytes: Vec<u8>) -> Result<BundledFile, Refusal> {
        let (mut ask, expected) = slice_ask(by, peer, &HeaderMap::new(), query)?;
        let is_whole = ask.slice_id == 0 && ask.begin.as_ref().is_some_and(|begin| begin.plan.slice_num == Some(1));
        if !is_whole || expected.is_zeroes {
            let message = format!("{}: a bundle has whole files alone, with their bytes: send it by itself", ask.name);
            return Err(bad(message));
        }
        ask.begin.iter_mut().for_each(|begin| begin.certificate = self.shown_name());
        Ok(BundledFile { ask, bytes })
    }
}

fn stored_answer(ask: &SliceRequest, end: BundledEnd) -> SliceResponse {
    if !end.held {
        log_stored(ask);
    }
    let file_digest = Some(end.digest.to_string());
    SliceResponse { is_uploaded: 1, file_digest, held: end.held, ..slice_answer(ask) }
}

fn refused(refusal: &Refusal) -> BundledResponse {
    BundledResponse::Refused(refusal.answer(&words::of(refusal)))
}

fn name_len(file: &BundledResponse) -> u64 {
    match file {
        BundledResponse::Stored(stored) => stored.file_name.len() as u64,
        BundledResponse::Refused(refused) => refused.message.len() as u64,
    }
}

fn damaged(message: String) -> Refusal {
    Refusal::new(ErrorCode::Damaged, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut_all(cutter: &mut BundleCutter, pieces: &[&[u8]]) -> Result<Vec<Cut>, Refusal> {
        let mut cuts = vec![];
        for piece in pieces {
            cutter.push(piece);
            while let Some(cut) = cutter.cut()? {
                cuts.push(cut);
            }
        }
        Ok(cuts)
    }

    #[test]
    fn files_are_cut_off_wherever_the_pieces_end() {
        let body = b"slice_size=3&file_name=a\nabcslice_size=0\nslice_size=2&file_name=\xc3\xa9\n\n\n";
        let expected =
            [("slice_size=3&file_name=a", "abc"), ("slice_size=0", ""), ("slice_size=2&file_name=\u{e9}", "\n\n")];
        for len in 1..=body.len() {
            let mut cutter = BundleCutter::default();
            let cuts = cut_all(&mut cutter, &body.chunks(len).collect::<Vec<_>>()).unwrap();
            let cuts: Vec<_> = cuts.iter().map(|(q, b)| (q.as_str(), std::str::from_utf8(b).unwrap())).collect();
            assert_eq!((cuts, cutter.rest(), cutter.files), (expected.to_vec(), 0, 3), "{len}");
        }
    }

    #[test]
    fn a_body_that_is_no_bundle_is_told() {
        let long = [b'x'; MAX_BUNDLE_LINE + 1];
        let too_large = format!("slice_size={}\n", MAX_BUNDLED_FILE + 1);
        for (body, says) in [
            (&b"\n"[..], "file 0: slice_size is missing"),
            (b"slice_size=x\n", "file 0: slice_size is \"x\""),
            (b"slice_size=0\nslice_size=1&slice_size=1\nx", "file 1: the parameter slice_size is there twice"),
            (b"\xff\n", "not UTF-8"),
            (&long, "no line of at most"),
            (too_large.as_bytes(), "at most 65536 are possible"),
        ] {
            let refusal = cut_all(&mut BundleCutter::default(), &[body]).unwrap_err();
            assert!(refusal.facts.contains(says), "{}", refusal.facts);
        }
        assert_eq!(cut_all(&mut BundleCutter::default(), &[&long[1..]]), Ok(vec![]), "its line may end there");
    }

    #[test]
    fn what_a_query_says_of_a_bundle() {
        let told = |query: &str, headers: &[(&'static str, &'static str)]| {
            let headers = headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
            told_files(query, &headers.collect()).map_err(|refusal| refusal.facts)
        };
        assert_eq!(told("bundle=1000", &[]), Ok(1000));
        assert!(told("bundle=1001", &[]).unwrap_err().contains("1001 files are too many"));
        assert!(told("bundle=1&file_name=x", &[]).unwrap_err().contains("no parameter"));
        assert!(told("bundle=1", &[("content-type", "multipart/form-data")]).unwrap_err().contains("no form"));
        assert!(told("bundle=1", &[("content-digest", "x")]).unwrap_err().contains("slice_digest"));
        assert!(told("bundle=1", &[("content-encoding", "gzip")]).unwrap_err().contains("gzip"));
    }
}
