//! Ranges of a file (RFC 9110, section 14): which bytes a Range header selects, and the body that has them.

use bigup_core::protocol::units::parse_u64;
use std::ops::Range;

/// Most ranges of one request. A header with more is ignored, as section 14.2 permits: it is a mistake or an attack.
pub const MAX_RANGES: usize = 100;

/// The bytes that a request selects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// The whole file, since no range counts.
    Whole,
    /// These parts, none of them empty, none of them overlapping another.
    Parts(Vec<Range<u64>>),
    /// Nothing: no range has a byte of the file.
    Unsatisfiable,
}

/// A range as it stands in the header.
enum Spec {
    /// The bytes from here on, to this one (inclusive) if it is there.
    From(u64, Option<u64>),
    /// So many of the last bytes.
    Last(u64),
}

/// The bytes that a Range header selects of a file of `size` bytes. A header that is malformed, or of another unit than
/// bytes, selects the whole file (section 14.2).
pub fn select(header: &str, size: u64) -> Selection {
    let Some(specs) = parse(header) else { return Selection::Whole };
    // No Content-Range can tell a part of no bytes.
    if size == 0 && specs.iter().any(|spec| matches!(spec, Spec::Last(1..))) {
        return Selection::Whole;
    }
    let parts: Vec<Range<u64>> = specs.iter().map(|spec| spec.within(size)).filter(|part| !part.is_empty()).collect();
    if parts.is_empty() { Selection::Unsatisfiable } else { Selection::Parts(without_overlaps(parts)) }
}

/// The ranges of a header. `None` if it does not count.
fn parse(header: &str) -> Option<Vec<Spec>> {
    let (unit, set) = header.split_once('=')?;
    if !unit.trim_matches([' ', '\t']).eq_ignore_ascii_case("bytes") {
        return None;
    }
    // Empty elements of a list are ignored (section 5.6.1.2).
    let specs: Vec<&str> =
        set.split(',').map(|spec| spec.trim_matches([' ', '\t'])).filter(|s| !s.is_empty()).collect();
    if specs.is_empty() || specs.len() > MAX_RANGES {
        return None;
    }
    specs.into_iter().map(Spec::parse).collect()
}

impl Spec {
    fn parse(text: &str) -> Option<Spec> {
        let (first, last) = text.split_once('-')?;
        Some(match (first, last) {
            ("", last) => Spec::Last(position(last)?),
            (first, "") => Spec::From(position(first)?, None),
            (first, last) => {
                let (first, last) = (position(first)?, position(last)?);
                (first <= last).then_some(Spec::From(first, Some(last)))?
            }
        })
    }

    /// The bytes of it that a file of this size has.
    fn within(&self, size: u64) -> Range<u64> {
        match *self {
            Spec::From(first, last) => first..last.map_or(size, |last| last.saturating_add(1).min(size)),
            Spec::Last(number) => size.saturating_sub(number)..size,
        }
    }
}

/// A number of digits alone. Every number that is too large for a position is beyond the end of every file.
fn position(text: &str) -> Option<u64> {
    let is_number = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    is_number.then(|| parse_u64(text).unwrap_or(u64::MAX))
}

/// The same bytes, each once: in the order of the request, or by offset where ranges overlap.
fn without_overlaps(parts: Vec<Range<u64>>) -> Vec<Range<u64>> {
    let mut sorted = parts.clone();
    sorted.sort_by_key(|part| part.start);
    let mut joined: Vec<Range<u64>> = vec![];
    for part in sorted {
        match joined.last_mut().filter(|last| part.start < last.end) {
            Some(last) => last.end = last.end.max(part.end),
            None => joined.push(part),
        }
    }
    if joined.len() == parts.len() { parts } else { joined }
}

/// The body of a response, as parts of a file and the text between them (section 14.6).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    size: u64,
    parts: Vec<Range<u64>>,
    form: Form,
}

/// The form of a body.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Form {
    /// The whole file.
    Whole,
    /// A single part of it.
    Part,
    /// Several parts of this type, with this boundary between them.
    Multipart { content_type: &'static str, boundary: String },
}

/// A step of a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Text.
    Text(String),
    /// These bytes of the file.
    Bytes(Range<u64>),
}

impl Layout {
    /// A whole file of `size` bytes.
    pub fn whole(size: u64) -> Layout {
        Layout { size, parts: vec![Range { start: 0, end: size }], form: Form::Whole }
    }

    /// Parts of a file of `size` bytes. The type of their content and `boundary` are told of several.
    pub fn of_parts(size: u64, parts: Vec<Range<u64>>, content_type: &'static str, boundary: String) -> Layout {
        let form = if parts.len() == 1 { Form::Part } else { Form::Multipart { content_type, boundary } };
        Layout { size, parts, form }
    }

    /// True if it is the whole file, not parts of it.
    pub fn is_whole(&self) -> bool {
        self.form == Form::Whole
    }

    /// The value of Content-Range, if the body is a single part.
    pub fn content_range(&self) -> Option<String> {
        match (&self.parts[..], &self.form) {
            ([part], Form::Part) => Some(content_range(part, self.size)),
            _ => None,
        }
    }

    /// The boundary, if the body has several parts.
    pub fn boundary(&self) -> Option<&str> {
        match &self.form {
            Form::Multipart { boundary, .. } => Some(boundary),
            Form::Whole | Form::Part => None,
        }
    }

    /// The step with this number, from 0. `None` after the last one.
    pub fn step(&self, number: usize) -> Option<Step> {
        let Form::Multipart { content_type, boundary } = &self.form else {
            return self.parts.get(number).cloned().map(Step::Bytes);
        };
        let part = self.parts.get(number / 2);
        match (number % 2, part) {
            (0, Some(part)) => Some(Step::Text(self.head(number > 0, content_type, boundary, part))),
            (_, Some(part)) => Some(Step::Bytes(part.clone())),
            (0, None) if number / 2 == self.parts.len() => Some(Step::Text(format!("\r\n--{boundary}--\r\n"))),
            (_, None) => None,
        }
    }

    fn head(&self, is_after_part: bool, content_type: &str, boundary: &str, part: &Range<u64>) -> String {
        let end = if is_after_part { "\r\n" } else { "" };
        let range = content_range(part, self.size);
        format!("{end}--{boundary}\r\nContent-Type: {content_type}\r\nContent-Range: {range}\r\n\r\n")
    }

    /// Length of the body, in bytes.
    pub fn len(&self) -> u64 {
        let steps = (0..).map_while(|number| self.step(number));
        steps.fold(0, |sum, step| {
            sum + match step {
                Step::Text(text) => text.len() as u64,
                Step::Bytes(part) => part.end - part.start,
            }
        })
    }

    /// True if the body has no byte.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

fn content_range(part: &Range<u64>, size: u64) -> String {
    format!("bytes {}-{}/{size}", part.start, part.end - 1)
}

/// The value of Content-Range for a file of which no range has a byte.
pub fn no_range_of(size: u64) -> String {
    format!("bytes */{size}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(parts: &[(u64, u64)]) -> Selection {
        Selection::Parts(parts.iter().map(|(start, end)| *start..*end).collect())
    }

    #[test]
    fn ranges_select_bytes_of_the_file() {
        for (header, selected) in [
            ("bytes=0-0", parts(&[(0, 1)])),
            ("bytes=0-499", parts(&[(0, 500)])),
            ("bytes=500-", parts(&[(500, 1000)])),
            ("bytes=-500", parts(&[(500, 1000)])),
            ("bytes=-1", parts(&[(999, 1000)])),
            ("bytes=-5000", parts(&[(0, 1000)])),
            ("bytes=999-5000", parts(&[(999, 1000)])),
            ("bytes=0-18446744073709551615", parts(&[(0, 1000)])),
            ("bytes=0-99999999999999999999999999", parts(&[(0, 1000)])),
            ("bytes=-99999999999999999999999999", parts(&[(0, 1000)])),
            ("BYTES = 1-2", parts(&[(1, 3)])),
            ("bytes=1-2 ,\t4-5,,", parts(&[(1, 3), (4, 6)])),
            ("bytes=900-, 0-1, 5000-", parts(&[(900, 1000), (0, 2)])),
            ("bytes=0-1,2-3", parts(&[(0, 2), (2, 4)])),
        ] {
            assert_eq!(select(header, 1000), selected, "{header}");
        }
    }

    #[test]
    fn ranges_beyond_the_end_select_nothing() {
        for header in ["bytes=1000-", "bytes=1000-1001", "bytes=-0", "bytes=18446744073709551616-", "bytes=5000-,-0"] {
            assert_eq!(select(header, 1000), Selection::Unsatisfiable, "{header}");
        }
        assert_eq!(select("bytes=0-", 0), Selection::Unsatisfiable);
        assert_eq!(select("bytes=-5", 0), Selection::Whole);
        assert_eq!(select("bytes=-0", 0), Selection::Unsatisfiable);
    }

    #[test]
    fn malformed_ranges_and_other_units_do_not_count() {
        for header in [
            "",
            "bytes",
            "bytes=",
            "bytes=,",
            "bytes=-",
            "bytes=1",
            "bytes=2-1",
            "bytes=0-1,2-1",
            "bytes=a-b",
            "bytes=+1-2",
            "bytes=1-2-3",
            "bytes=1 - 2",
            "bytes=--1",
            "bytes=0x1-2",
            "lines=1-2",
            "bytes:1-2",
            "bytes=１-２",
        ] {
            assert_eq!(select(header, 1000), Selection::Whole, "{header}");
        }
    }

    #[test]
    fn ranges_that_overlap_are_joined_and_too_many_do_not_count() {
        assert_eq!(select("bytes=5-9,0-5", 100), parts(&[(0, 10)]));
        assert_eq!(select("bytes=0-,0-,-1", 100), parts(&[(0, 100)]));
        assert_eq!(select("bytes=50-60,0-1,55-70", 100), parts(&[(0, 2), (50, 71)]));
        let many = |number: u64| {
            let specs: Vec<String> = (0..number).map(|i| format!("{}-{}", 2 * i, 2 * i)).collect();
            format!("bytes={}", specs.join(","))
        };
        let Selection::Parts(selected) = select(&many(MAX_RANGES as u64), 1000) else { panic!("it is refused") };
        assert_eq!(selected.len(), MAX_RANGES);
        assert_eq!(select(&many(MAX_RANGES as u64 + 1), 1000), Selection::Whole);
    }

    fn text_of(layout: &Layout, file: &str) -> String {
        let steps = (0..).map_while(|number| layout.step(number));
        let texts = steps.map(|step| match step {
            Step::Text(text) => text,
            Step::Bytes(part) => file[part.start as usize..part.end as usize].to_owned(),
        });
        texts.collect()
    }

    #[test]
    fn a_body_has_its_parts_and_its_length() {
        let file = "0123456789";
        let part = Layout::of_parts(10, std::iter::once(2..5).collect(), "a/b", "B".to_owned());
        for layout in [&Layout::whole(10), &part] {
            assert_eq!((layout.len(), layout.boundary()), (text_of(layout, file).len() as u64, None));
        }
        assert_eq!(part.content_range().unwrap(), "bytes 2-4/10");
        assert_eq!(Layout::whole(10).content_range(), None);
        assert!(Layout::whole(0).is_empty() && text_of(&Layout::whole(10), file) == file);
        let several = Layout::of_parts(10, vec![8..10, 0..1], "a/b", "B".to_owned());
        let head = |range: &str| format!("--B\r\nContent-Type: a/b\r\nContent-Range: bytes {range}/10\r\n\r\n");
        assert_eq!(text_of(&several, file), format!("{}89\r\n{}0\r\n--B--\r\n", head("8-9"), head("0-0")));
        assert_eq!((several.len(), several.content_range()), (text_of(&several, file).len() as u64, None));
    }
}
