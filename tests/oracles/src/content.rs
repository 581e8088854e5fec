//! Headers of a request for a finished file. The bytes are twice the size of the file (8 bytes) and lines: Range, If-Match,
//! If-None-Match, If-Range, If-Modified-Since, the path, the query. A request without a header has an empty line in its place.

use crate::name::assert_harmless;
use bigupd::http::content::conditions::{Validators, Verdict};
use bigupd::http::content::ranges::{Layout, MAX_RANGES, Selection, Step, select};
use bigupd::http::content::routes::{Target, file_name, target};
use http::header::{HeaderMap, HeaderName, HeaderValue, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE};
use std::ops::Range;

const TAG: &str = "\"x\"";

/// 1994-11-06 08:49:37.
const TIME: u64 = 784_111_777;

/// Checks headers.
///
/// # Panics
/// A part is outside the file, bytes are sent twice, a length is wrong, or a condition holds that cannot.
pub fn check(data: &[u8]) {
    let Some((size, rest)) = data.split_first_chunk() else { return };
    // No file is larger (off_t).
    let size = u64::from_le_bytes(*size) >> 1;
    let mut lines = rest.split(|b| *b == b'\n');
    let mut line = || lines.next().unwrap_or_default();
    if let Ok(range) = std::str::from_utf8(line()) {
        check_range(range, size);
    }
    check_match(line(), line());
    check_range_condition(line());
    check_time(line());
    let path = String::from_utf8_lossy(line()).into_owned();
    check_path(&path);
    check_target(&path, &String::from_utf8_lossy(line()));
}

fn check_range(header: &str, size: u64) {
    let parts = match select(header, size) {
        Selection::Whole => return,
        Selection::Unsatisfiable => return assert!(header.contains('=') && header.contains('-')),
        Selection::Parts(parts) => parts,
    };
    assert!(!parts.is_empty() && parts.len() <= MAX_RANGES, "{header:?}");
    let mut sorted = parts.clone();
    sorted.sort_by_key(|part| part.start);
    assert!(sorted.iter().all(|part| part.start < part.end && part.end <= size), "{header:?}: {parts:?}");
    assert!(sorted.windows(2).all(|two| two[0].end <= two[1].start), "{header:?}: {parts:?}");
    // A list of this part alone selects it again.
    for Range { start, end } in &parts {
        let again = select(&format!("bytes={start}-{}", end - 1), size);
        assert_eq!(again, Selection::Parts(std::iter::once(*start..*end).collect()));
    }
    check_layout(&Layout::of_parts(size, parts.clone(), "application/x-tar", "B".to_owned()), &parts);
}

fn check_layout(layout: &Layout, parts: &[Range<u64>]) {
    let steps: Vec<Step> = (0..).map_while(|number| layout.step(number)).collect();
    let bytes: Vec<Range<u64>> = steps
        .iter()
        .filter_map(|step| match step {
            Step::Bytes(part) => Some(part.clone()),
            Step::Text(_) => None,
        })
        .collect();
    assert_eq!(bytes, parts);
    let lens = steps.iter().map(|step| match step {
        Step::Bytes(part) => part.end - part.start,
        Step::Text(text) => text.len() as u64,
    });
    assert_eq!(lens.map(u128::from).sum::<u128>(), u128::from(layout.len()));
    assert_eq!(layout.content_range().is_some(), parts.len() == 1);
    assert_eq!(layout.boundary().is_some(), parts.len() > 1);
}

fn headers(lines: &[(HeaderName, &[u8])]) -> HeaderMap {
    let filled = lines.iter().filter(|(_, value)| !value.is_empty());
    filled.filter_map(|(name, value)| Some((name.clone(), HeaderValue::from_bytes(value).ok()?))).collect()
}

fn file(etag: Option<&str>) -> Validators {
    Validators { etag: etag.map(str::to_owned), modified: Some(TIME), changed: None, is_settled: true }
}

fn has(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

fn check_match(if_match: &[u8], if_none_match: &[u8]) {
    let asked = headers(&[(IF_MATCH, if_match), (IF_NONE_MATCH, if_none_match)]);
    let (reads, changes) = (file(Some(TAG)).judge(&asked, true), file(Some(TAG)).judge(&asked, false));
    let names = |list: &[u8]| has(list, TAG.as_bytes()) || has(list, b"*");
    match reads {
        Verdict::Holds => {
            assert_eq!(changes, Verdict::Holds);
            assert!(!asked.contains_key(IF_MATCH) || names(if_match));
        }
        Verdict::NotModified => assert!(changes == Verdict::Fails && names(if_none_match)),
        Verdict::Fails => assert!(changes == Verdict::Fails && asked.contains_key(IF_MATCH)),
    }
    // A file whose content is not known is matched by nothing but an asterisk.
    let unknown = file(None).judge(&asked, false);
    if asked.contains_key(IF_MATCH) && if_match.trim_ascii() != b"*" {
        assert_eq!(unknown, Verdict::Fails);
    }
}

fn check_range_condition(if_range: &[u8]) {
    let asked = headers(&[(IF_RANGE, if_range)]);
    if asked.is_empty() || !file(Some(TAG)).range_counts(&asked) {
        return;
    }
    let is_time = httpdate::parse_http_date(&String::from_utf8_lossy(if_range.trim_ascii())).is_ok();
    assert!(if_range.trim_ascii() == TAG.as_bytes() || is_time);
    assert_eq!(file(None).range_counts(&asked), is_time);
}

fn check_time(if_modified_since: &[u8]) {
    let asked = headers(&[(IF_MODIFIED_SINCE, if_modified_since)]);
    let is_known = file(Some(TAG)).judge(&asked, true) == Verdict::NotModified;
    let date = httpdate::parse_http_date(&String::from_utf8_lossy(if_modified_since.trim_ascii()));
    let since = date.ok().and_then(|date| date.duration_since(std::time::UNIX_EPOCH).ok());
    assert!(!is_known || since.is_some_and(|since| since.as_secs() >= TIME));
    assert_eq!(file(Some(TAG)).judge(&asked, false), Verdict::Holds);
}

fn check_path(path: &str) {
    match file_name(path) {
        Ok(name) => {
            assert!(name.components().all(|part| !["", ".", ".."].contains(&part)));
            assert!(!name.as_str().contains('\0'));
        }
        Err(refusal) => assert_harmless(&refusal.facts),
    }
}

fn check_target(path: &str, query: &str) {
    for wants_html in [false, true] {
        match target(path, query, wants_html) {
            Ok(Target::File | Target::Leaves) => assert!(!path.ends_with('/')),
            Ok(Target::List) => assert!(!["tar", "tar="].contains(&query)),
            Ok(Target::Index(folder)) => {
                assert!(query.is_empty());
                check_folder(path, &folder);
            }
            Ok(Target::Archive(folder)) => {
                assert!(["tar", "tar="].contains(&query));
                check_folder(path, &folder);
            }
            Err(refusal) => assert_harmless(&refusal.facts),
        }
    }
}

fn check_folder(path: &str, folder: &str) {
    match folder.strip_suffix('/') {
        Some(name) => {
            assert!(path.ends_with('/'));
            assert!(name.split('/').all(|part| !["", ".", ".."].contains(&part)) && !name.contains('\0'));
        }
        None => assert!(folder.is_empty()),
    }
}
