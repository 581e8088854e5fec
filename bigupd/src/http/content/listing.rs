//! The list of finished files: a JSON object for each, a line each, in the order of names, a page at a time.

use crate::admission::access::Access;
use crate::admission::tokens::Permission;
use crate::http::app::App;
use crate::http::content::chunks::Chunks;
use crate::net::response::{Response, keep_nowhere};
use crate::refusal::Refusal;
use crate::uploads::Uploads;
use bigup_core::protocol::content as protocol;
use bigup_core::protocol::name::quoted;
use bigup_core::protocol::native::ErrorCode;
use bigup_core::protocol::units::parse_u64;
use bigup_core::storage::store::ListedFile;
use percent_encoding::percent_decode_str;
use std::ops::ControlFlow;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use warp::http::Method;
use warp::http::header::{CONTENT_TYPE, HeaderValue};

/// Files on a page that asks for no other number.
const USUAL: u64 = 1000;

/// Bytes of a chunk, after which the next one begins: the folders on the way are read anew for each.
const CHUNK: usize = 128 << 10;

/// Most files on a page.
const MOST: u64 = 10_000;

/// JSON objects, a line each.
const LINES: HeaderValue = HeaderValue::from_static("application/x-ndjson");

/// The files that a page has, as far as they are still to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The beginning of their names.
    prefix: String,
    /// The name that they come after.
    after: String,
    /// The most that there are.
    limit: u64,
}

impl Page {
    /// The page that a query asks for.
    ///
    /// # Errors
    /// A parameter is unknown, is there twice, or makes no sense.
    pub fn parse(query: &str) -> Result<Page, Refusal> {
        let (mut prefix, mut after, mut limit) = (None, None, None);
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let place = match name {
                "prefix" => &mut prefix,
                "after" => &mut after,
                "limit" => &mut limit,
                _ => return Err(bad(format!("the parameter {} is none of prefix, after, limit", quoted(name)))),
            };
            if place.replace(decode(value)?).is_some() {
                return Err(bad(format!("the parameter {name} is there twice")));
            }
        }
        let limit = match limit {
            None => USUAL,
            Some(text) => parse_u64(&text)
                .filter(|limit| (1..=MOST).contains(limit))
                .ok_or_else(|| bad(format!("limit is {}, not a whole number from 1 to {MOST}", quoted(&text))))?,
        };
        Ok(Page { prefix: prefix.unwrap_or_default(), after: after.unwrap_or_default(), limit })
    }

    /// The same page without names that its sender may not see. `None` if nothing is left.
    fn seen_by(self, by: &Access) -> Option<Page> {
        let own = by.prefix();
        match () {
            () if self.prefix.starts_with(own) => Some(self),
            () if own.starts_with(&self.prefix) => Some(Page { prefix: own.to_owned(), ..self }),
            () => None,
        }
    }
}

fn bad(message: String) -> Refusal {
    Refusal::new(ErrorCode::BadRequest, message)
}

/// Percent-decoding as forms do it: `+` is a space.
fn decode(text: &str) -> Result<String, Refusal> {
    let spaced = text.replace('+', " ");
    let decoded = percent_decode_str(&spaced).decode_utf8();
    decoded.map(Into::into).map_err(|_| bad("a parameter is not UTF-8 in percent-encoding".to_owned()))
}

impl App {
    /// Responds with a page of the list.
    ///
    /// # Errors
    /// The query makes no sense, its sender may not read, or the first files cannot be read.
    pub(super) async fn list(&self, by: &Access, method: &Method, query: &str) -> Result<Response, Refusal> {
        by.check(&[Permission::Read], None)?;
        let (first, rest) = match Page::parse(query)?.seen_by(by) {
            Some(page) if *method == Method::GET => self.chunk(page).await?,
            _ => (vec![], None),
        };
        let mut response = self.chunked(first, rest);
        response.headers_mut().insert(CONTENT_TYPE, LINES);
        keep_nowhere(&mut response);
        Ok(response)
    }
}

impl Chunks for Page {
    fn chunk(self, uploads: &Uploads) -> Result<(Vec<u8>, Option<Page>), Refusal> {
        let (mut lines, mut rest, mut is_all) = (vec![], self.clone(), true);
        uploads.list_finished(&self.prefix, &self.after, |file| {
            add(&mut lines, &file);
            rest.limit -= 1;
            if lines.len() < CHUNK && rest.limit > 0 {
                return ControlFlow::Continue(());
            }
            is_all = rest.limit == 0;
            rest.after = file.name.as_str().to_owned();
            ControlFlow::Break(())
        })?;
        Ok((lines, (!is_all).then_some(rest)))
    }
}

fn add(lines: &mut Vec<u8>, file: &ListedFile) {
    let line = protocol::ListedFile {
        file_name: file.name.as_str().to_owned(),
        file_size: file.size,
        modified: moment(file.modified),
        source_modified: file.source_modified.map(|time| time.to_string()),
        file_digest: file.digest.map(|digest| digest.to_string()),
    };
    lines.extend(serde_json::to_vec(&line).expect("strings and numbers always serialise"));
    lines.push(b'\n');
}

/// `2030-01-31T12:00:00Z`; times before 1970 or after 9999 are shown as the nearest one.
pub(super) fn moment(time: SystemTime) -> String {
    humantime::format_rfc3339_seconds(shown(time)).to_string()
}

/// The same with nanoseconds.
pub(super) fn fine_moment(time: SystemTime) -> String {
    humantime::format_rfc3339_nanos(shown(time)).to_string()
}

fn shown(time: SystemTime) -> SystemTime {
    time.clamp(UNIX_EPOCH, UNIX_EPOCH + Duration::from_secs(253_402_300_799))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(prefix: &str, after: &str, limit: u64) -> Page {
        Page { prefix: prefix.to_owned(), after: after.to_owned(), limit }
    }

    #[test]
    fn a_query_asks_for_a_page() {
        for (query, asked) in [
            ("", page("", "", USUAL)),
            ("prefix=a%2Fb+c&after=a/x&limit=10", page("a/b c", "a/x", 10)),
            ("&limit=10000&", page("", "", MOST)),
            ("prefix=&after=", page("", "", USUAL)),
        ] {
            assert_eq!(Page::parse(query), Ok(asked), "{query}");
        }
        for query in ["limit=0", "limit=10001", "limit=", "limit=-1", "limit=1&limit=1", "x=1", "tar", "prefix=%FF"] {
            assert_eq!(Page::parse(query).unwrap_err().code, ErrorCode::BadRequest, "{query}");
        }
    }

    #[test]
    fn any_time_can_be_shown() {
        let time = |seconds: u64| UNIX_EPOCH + Duration::from_secs(seconds);
        assert_eq!(moment(time(784_111_777)), "1994-11-06T08:49:37Z");
        assert_eq!(moment(UNIX_EPOCH - Duration::from_secs(9)), "1970-01-01T00:00:00Z");
        assert_eq!(moment(time(1 << 40)), "9999-12-31T23:59:59Z");
    }
}
