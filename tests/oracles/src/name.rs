//! File names. The bytes are two texts, split at the first newline: what is true of one name must be true of each, and
//! two names must never be taken for each other.

use bigup_core::protocol::name::{FileName, MAX_COMPONENT_LEN, MAX_NAME_LEN, printable};

/// Longest folder name, in bytes: `NAME_MAX` of Linux (limits.h).
const MAX_FOLDER_LEN: usize = 255;

/// Checks two texts as file names.
///
/// # Panics
/// An accepted name is not safe, or two names meet.
pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (a, b) = text.split_once('\n').unwrap_or((text, ""));
    check_printable(text);
    let (Some(a), b) = (one(a), one(b)) else { return };
    // Beside the other one: what this one is encoded as, which is a name too.
    let alike = [b, one(&a.spool_folder()), one(&a.section_title())];
    for b in alike.into_iter().flatten() {
        assert_eq!(a == b, a.spool_folder() == b.spool_folder(), "{a:?} and {b:?}");
        assert_eq!(a == b, a.section_title() == b.section_title(), "{a:?} and {b:?}");
    }
}

/// Checks one text; gives the name if it is one.
fn one(text: &str) -> Option<FileName> {
    let name = match FileName::new(text) {
        Ok(name) => name,
        Err(why) => {
            assert_harmless(&why.to_string());
            return None;
        }
    };
    assert_eq!(name.as_str(), text);
    assert!((1..=MAX_NAME_LEN).contains(&text.len()) && !text.chars().any(char::is_control));
    for component in name.components() {
        assert!((1..=MAX_COMPONENT_LEN).contains(&component.len()) && component != "." && component != "..");
    }
    let folder = name.spool_folder();
    assert!((1..=MAX_FOLDER_LEN).contains(&folder.len()) && !folder.contains('/') && !folder.starts_with('.'));
    assert_harmless(&folder);
    let title = name.section_title();
    assert!(title.trim() == title && !title.contains(['[', ']', ';', '#', '=', ':', '"', '\'', '\\']), "{title}");
    assert_harmless(&title);
    assert_eq!(FileName::from_section_title(&title).as_ref(), Some(&name));
    assert_harmless(&name.to_string());
    Some(name)
}

/// Checks the printable form of any text.
fn check_printable(text: &str) {
    let shown = printable(text);
    assert_harmless(&shown);
    assert_eq!(printable(&shown), shown);
    if !text.chars().any(steers) {
        assert_eq!(shown, text);
    }
}

/// Makes sure that a text can be shown anywhere, on one line.
///
/// # Panics
/// It cannot.
pub fn assert_harmless(text: &str) {
    assert!(!text.chars().any(steers), "{text:?}");
}

/// Whether a character moves a terminal's cursor, ends a line, turns the direction of text (Bidi_Control, UAX #9), or
/// cannot be seen.
fn steers(c: char) -> bool {
    let turns = matches!(c, '\u{61C}' | '\u{200E}' | '\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}');
    let unseen = matches!(c, '\u{AD}' | '\u{200B}'..='\u{200D}' | '\u{2060}'..='\u{206F}' | '\u{FEFF}'
        | '\u{115F}' | '\u{1160}' | '\u{180E}' | '\u{3164}' | '\u{FFA0}' | '\u{FFF9}'..='\u{FFFB}' | '\u{E0000}'..='\u{E007F}');
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') || turns || unseen
}
