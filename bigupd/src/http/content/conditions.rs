//! Conditions of a request (RFC 9110, section 13): If-Match, If-None-Match, their forms by time, and If-Range.

use std::time::{Duration, SystemTime, UNIX_EPOCH};
use warp::http::header::{
    HeaderMap, HeaderName, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE,
};

/// The facts of a finished file that conditions are compared with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Validators {
    /// The strong entity tag, in its quotes. `None` if no digest of the content is certain.
    pub etag: Option<String>,
    /// Time of the last write, in seconds since 1970; earlier times count as 0. `None` if no time tells a change.
    pub modified: Option<u64>,
    /// Time of the last change of anything about the file, in seconds since 1970, where `modified` is the time of the
    /// client's file: another content of this name may have the same. `None`: `modified` tells every change.
    pub changed: Option<u64>,
    /// The second of the last write is over: every later write has another one. Only then is the time told, so every
    /// client that knows it read the file after that second (section 8.8.2.2).
    pub is_settled: bool,
}

/// The result of a request's conditions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// They hold, or there are no conditions.
    Holds,
    /// The client has the file already: 304.
    NotModified,
    /// They do not hold: 412.
    Fails,
}

/// An entity tag as it stands in a list.
struct Tag<'a> {
    is_weak: bool,
    /// With its quotes.
    text: &'a str,
}

impl Validators {
    /// The validators of a file last written to at `modified`; `now` is the time of the request.
    pub fn new(etag: Option<String>, modified: SystemTime, now: SystemTime) -> Validators {
        let is_settled = since_1970(modified) < since_1970(now);
        Validators { etag, modified: Some(since_1970(modified)), changed: None, is_settled }
    }

    /// The same of a file whose time is that of the client's file, and that was changed last at `changed`. The time is a
    /// weak validator then (section 8.8.2.2).
    #[must_use]
    pub fn with_kept_time(self, changed: SystemTime) -> Validators {
        Validators { changed: Some(since_1970(changed)), ..self }
    }

    /// The value of Last-Modified, if it is told.
    pub fn last_modified(&self) -> Option<String> {
        let modified = self.modified.filter(|_| self.is_settled)?;
        Some(httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(modified)))
    }

    /// Judges the conditions of a request in the order of section 13.2.2; `reads` is true of GET and HEAD.
    pub fn judge(&self, headers: &HeaderMap, reads: bool) -> Verdict {
        if let Some(list) = text(headers, &IF_MATCH) {
            if !self.is_any_of(&list, false) {
                return Verdict::Fails;
            }
        } else if self.is_changed_since(headers, &IF_UNMODIFIED_SINCE) == Some(true) {
            return Verdict::Fails;
        }
        let is_known = match text(headers, &IF_NONE_MATCH) {
            Some(list) => self.is_any_of(&list, true),
            None => reads && self.is_changed_since(headers, &IF_MODIFIED_SINCE) == Some(false),
        };
        match (is_known, reads) {
            (false, _) => Verdict::Holds,
            (true, true) => Verdict::NotModified,
            (true, false) => Verdict::Fails,
        }
    }

    /// True if the Range header of a request counts: there is no If-Range, or it names this very content.
    pub fn range_counts(&self, headers: &HeaderMap) -> bool {
        let Some(validator) = text(headers, &IF_RANGE) else { return true };
        match &self.etag {
            Some(etag) if validator == *etag => true,
            // Bytes of two contents must not come together.
            _ if self.changed.is_some() => false,
            _ => self.is_settled && self.modified.is_some() && seconds(&validator) == self.modified,
        }
    }

    /// True if the file changed since the time in a condition. `None` if there is no such condition, or it is ignored.
    ///
    /// If the file has the time of the client's file, an older content may have had a later one. So the condition either
    /// names this very time, or a moment after the last change here.
    fn is_changed_since(&self, headers: &HeaderMap, name: &HeaderName) -> Option<bool> {
        let (modified, since) = self.modified.zip(time(headers, name))?;
        Some(match self.changed {
            None => modified > since,
            Some(changed) => since != modified && since <= changed,
        })
    }

    /// True if a list of entity tags has this file's, or is `*`. Weak tags match in a weak comparison only.
    fn is_any_of(&self, list: &str, weakly: bool) -> bool {
        if list == "*" {
            return true;
        }
        let tags = tags(list).unwrap_or_default();
        tags.iter().any(|tag| (weakly || !tag.is_weak) && self.etag.as_deref() == Some(tag.text))
    }
}

/// The tags of a list. `None` if it is malformed.
fn tags(list: &str) -> Option<Vec<Tag<'_>>> {
    let (mut tags, mut rest) = (vec![], list);
    loop {
        // Empty elements of a list are ignored (section 5.6.1.2).
        rest = rest.trim_start_matches([' ', '\t', ',']);
        if rest.is_empty() {
            return Some(tags);
        }
        let tag = rest.strip_prefix("W/");
        let (is_weak, quoted) = (tag.is_some(), tag.unwrap_or(rest));
        let end = quoted.strip_prefix('"')?.find('"')? + 2;
        let (text, after) = quoted.split_at(end);
        rest = after.trim_start_matches([' ', '\t']);
        if !rest.is_empty() && !rest.starts_with(',') {
            return None;
        }
        tags.push(Tag { is_weak, text });
    }
}

/// The lines of a header, joined (section 5.3), without the white space around (section 5.6.3). `None` if there are none.
fn text(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let lines: Vec<_> = headers.get_all(name).iter().map(|line| String::from_utf8_lossy(line.as_bytes())).collect();
    (!lines.is_empty()).then(|| lines.join(",").trim_matches([' ', '\t']).to_owned())
}

/// A time in seconds since 1970. `None` if there is none, or it is malformed and to be ignored.
fn time(headers: &HeaderMap, name: &HeaderName) -> Option<u64> {
    seconds(&text(headers, name)?)
}

fn seconds(date: &str) -> Option<u64> {
    let time = httpdate::parse_http_date(date).ok()?;
    Some(time.duration_since(UNIX_EPOCH).ok()?.as_secs())
}

/// Whole seconds since 1970; 0 for earlier times.
fn since_1970(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;
    use warp::http::header::HeaderValue;

    /// 1994-11-06 08:49:37, the example of RFC 9110.
    const TIME: u64 = 784_111_777;
    const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const BEFORE: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
    const AFTER: &str = "Sun, 06 Nov 1994 08:49:38 GMT";

    fn headers(lines: &[(HeaderName, &str)]) -> HeaderMap {
        lines.iter().map(|(name, value)| (name.clone(), HeaderValue::from_str(value).unwrap())).collect()
    }

    fn file() -> Validators {
        Validators { etag: Some("\"x\"".to_owned()), modified: Some(TIME), changed: None, is_settled: true }
    }

    /// The verdicts for a GET and a DELETE.
    fn judged(lines: &[(HeaderName, &str)]) -> (Verdict, Verdict) {
        (file().judge(&headers(lines), true), file().judge(&headers(lines), false))
    }

    const HOLDS: (Verdict, Verdict) = (Verdict::Holds, Verdict::Holds);
    const KNOWN: (Verdict, Verdict) = (Verdict::NotModified, Verdict::Fails);
    const FAILS: (Verdict, Verdict) = (Verdict::Fails, Verdict::Fails);

    #[test]
    fn entity_tags_are_compared_strongly_or_weakly() {
        for (list, if_match, if_none_match) in [
            ("*", HOLDS, KNOWN),
            (" * ", HOLDS, KNOWN),
            ("\"x\"", HOLDS, KNOWN),
            ("\"y\", \"x\"", HOLDS, KNOWN),
            (",, \"y\" ,\t\"x\",", HOLDS, KNOWN),
            ("\"a,\",\"x\"", HOLDS, KNOWN),
            ("W/\"x\"", FAILS, KNOWN),
            ("\"y\"", FAILS, HOLDS),
            ("\"y,\"x\"", FAILS, HOLDS),
            ("\"x\" \"y\"", FAILS, HOLDS),
            ("\"x", FAILS, HOLDS),
            ("w/\"x\"", FAILS, HOLDS),
            ("x", FAILS, HOLDS),
            ("", FAILS, HOLDS),
            ("*, \"y\"", FAILS, HOLDS),
        ] {
            assert_eq!(judged(&[(IF_MATCH, list)]), if_match, "If-Match: {list}");
            assert_eq!(judged(&[(IF_NONE_MATCH, list)]), if_none_match, "If-None-Match: {list}");
        }
        // Two lines are one list.
        assert_eq!(judged(&[(IF_MATCH, "\"y\""), (IF_MATCH, "\"x\"")]), HOLDS);
    }

    #[test]
    fn nothing_matches_a_file_without_a_tag_but_an_asterisk() {
        let unknown = Validators { etag: None, ..file() };
        assert_eq!(unknown.judge(&headers(&[(IF_MATCH, "\"x\"")]), true), Verdict::Fails);
        assert_eq!(unknown.judge(&headers(&[(IF_NONE_MATCH, "\"x\"")]), true), Verdict::Holds);
        assert_eq!(unknown.judge(&headers(&[(IF_MATCH, "*")]), true), Verdict::Holds);
    }

    #[test]
    fn times_are_compared_and_malformed_ones_are_ignored() {
        let reads_again = (Verdict::NotModified, Verdict::Holds);
        for (date, modified, unmodified) in [
            (BEFORE, HOLDS, FAILS),
            (DATE, reads_again, HOLDS),
            (AFTER, reads_again, HOLDS),
            ("Sunday, 06-Nov-94 08:49:37 GMT", reads_again, HOLDS),
            ("Sun Nov  6 08:49:37 1994", reads_again, HOLDS),
            ("yesterday", HOLDS, HOLDS),
            ("1994-11-06T08:49:37Z", HOLDS, HOLDS),
            ("", HOLDS, HOLDS),
        ] {
            assert_eq!(judged(&[(IF_MODIFIED_SINCE, date)]), modified, "If-Modified-Since: {date}");
            assert_eq!(judged(&[(IF_UNMODIFIED_SINCE, date)]), unmodified, "If-Unmodified-Since: {date}");
        }
    }

    #[test]
    fn conditions_by_time_are_ignored_where_no_time_tells_a_change() {
        let timeless = Validators { modified: None, is_settled: false, ..file() };
        for (name, date) in [(IF_MODIFIED_SINCE, AFTER), (IF_UNMODIFIED_SINCE, BEFORE)] {
            assert_eq!(timeless.judge(&headers(&[(name, date)]), true), Verdict::Holds, "{date}");
        }
        assert!(!timeless.range_counts(&headers(&[(IF_RANGE, DATE)])));
        assert!(!timeless.range_counts(&headers(&[(IF_RANGE, "yesterday")])));
        assert!(timeless.range_counts(&headers(&[(IF_RANGE, "\"x\"")])));
        assert_eq!(timeless.last_modified(), None);
    }

    #[test]
    fn tags_come_before_times_and_what_must_match_before_what_must_not() {
        assert_eq!(judged(&[(IF_MATCH, "\"x\""), (IF_UNMODIFIED_SINCE, BEFORE)]), HOLDS);
        assert_eq!(judged(&[(IF_NONE_MATCH, "\"y\""), (IF_MODIFIED_SINCE, AFTER)]), HOLDS);
        assert_eq!(judged(&[(IF_MATCH, "\"y\""), (IF_NONE_MATCH, "\"x\"")]), FAILS);
        assert_eq!(judged(&[(IF_UNMODIFIED_SINCE, BEFORE), (IF_NONE_MATCH, "\"x\"")]), FAILS);
        assert_eq!(judged(&[(IF_MATCH, "\"x\""), (IF_NONE_MATCH, "\"x\"")]), KNOWN);
    }

    #[test]
    fn a_range_counts_for_this_very_content() {
        let counts = |file: &Validators, validator: &str| file.range_counts(&headers(&[(IF_RANGE, validator)]));
        assert!(file().range_counts(&headers(&[])));
        for (validator, is_this) in [
            ("\"x\"", true),
            (" \"x\"\t", true),
            ("\"x\"\u{a0}", false),
            ("\"y\"", false),
            ("W/\"x\"", false),
            ("x", false),
            ("*", false),
            ("\"x\", \"y\"", false),
        ] {
            assert_eq!(counts(&file(), validator), is_this, "{validator}");
        }
        let unsettled = Validators { is_settled: false, ..file() };
        for (date, is_this) in [(DATE, true), (BEFORE, false), (AFTER, false)] {
            assert_eq!(counts(&file(), date), is_this, "{date}");
            assert!(!counts(&unsettled, date), "{date}");
        }
        assert!(counts(&unsettled, "\"x\""));
    }

    #[test]
    fn the_time_of_a_clients_file_is_a_weak_validator() {
        let kept = Validators { changed: Some(TIME + 100), ..file() };
        let date = |seconds: u64| httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(seconds));
        for (seconds, is_changed) in [
            (TIME, false),
            // A former content may have had any time: later than this one, and read before this one came.
            (TIME - 1, true),
            (TIME + 1, true),
            (TIME + 100, true),
            (TIME + 101, false),
        ] {
            let date = date(seconds);
            let judged = |name| kept.judge(&headers(&[(name, &date)]), true);
            let expected = if is_changed { Verdict::Holds } else { Verdict::NotModified };
            assert_eq!(judged(IF_MODIFIED_SINCE), expected, "{date}");
            let expected = if is_changed { Verdict::Fails } else { Verdict::Holds };
            assert_eq!(judged(IF_UNMODIFIED_SINCE), expected, "{date}");
        }
        assert!(!kept.range_counts(&headers(&[(IF_RANGE, DATE)])), "another content may have this time");
        assert!(kept.range_counts(&headers(&[(IF_RANGE, "\"x\"")])));
        assert_eq!(kept.last_modified().as_deref(), Some(DATE));
    }

    #[test]
    fn a_time_is_told_once_its_second_is_over() {
        let at = |millis: u64| UNIX_EPOCH + Duration::from_millis(millis);
        let told = |modified, now| Validators::new(None, modified, now).last_modified();
        assert_eq!(told(at(TIME * 1000 + 900), at((TIME + 1) * 1000)).as_deref(), Some(DATE));
        assert_eq!(told(at(TIME * 1000), at(TIME * 1000 + 999)), None);
        assert_eq!(told(at((TIME + 9) * 1000), at(TIME * 1000)), None, "it lies in the future");
        let early = UNIX_EPOCH - Duration::from_secs(5);
        assert_eq!(told(early, at(TIME * 1000)).as_deref(), Some("Thu, 01 Jan 1970 00:00:00 GMT"));
        let late = UNIX_EPOCH + Duration::from_secs(1 << 40);
        assert_eq!(told(late, at(TIME * 1000)), None);
    }
}
