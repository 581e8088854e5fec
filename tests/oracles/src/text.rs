//! Short texts: sizes, times, digests, Content-Digest. The bytes are one text, read as each of them.

use crate::name::assert_harmless;
use base64::Engine;
use bigup_core::protocol::digest::{Digest, SliceDigest};
use bigup_core::protocol::units::{parse_duration, parse_size, parse_u64, show_size};
use bigupd::http::digest_fields::parse_digest;

/// Checks a text.
///
/// # Panics
/// It is read as something else than it says, or what is shown is not read as the same.
pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    assert_eq!(parse_u64(text).map(u128::from), number(text).filter(|n| *n <= u128::from(u64::MAX)));
    check_size(text);
    check_duration(text);
    if let Ok(digest) = text.parse::<Digest>() {
        assert_eq!(digest.to_string(), text.to_ascii_lowercase());
        assert_eq!(digest.to_string().parse(), Ok(digest));
        let header = format!("sha-256=:{}:", base64::engine::general_purpose::STANDARD.encode(digest.0));
        assert_eq!(parse_digest("Content-Digest", &header), Ok(Some(digest.0)));
    }
    match text.parse::<SliceDigest>() {
        Ok(digest) => assert_eq!(digest.to_string().parse(), Ok(digest)),
        Err(why) => assert_harmless(&why),
    }
    match parse_digest("Content-Digest", text) {
        Ok(Some(_)) => assert!(text.contains("sha-256=:")),
        Ok(None) => assert!(!text.starts_with("sha-256=")),
        Err(refusal) => assert_harmless(&refusal.facts),
    }
}

/// The plain meaning of a number.
fn number(text: &str) -> Option<u128> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    // Saturates, which is over every limit.
    Some(text.bytes().fold(0, |n: u128, b| n.saturating_mul(10).saturating_add(u128::from(b - b'0'))))
}

/// The number before one of these units, and its factor.
fn with_unit(text: &str, units: &[(&str, u128)]) -> Option<u128> {
    let digits = text.len() - text.bytes().rev().take_while(u8::is_ascii_alphabetic).count();
    let (number_text, unit) = text.split_at(digits);
    let factor = units.iter().find(|(name, _)| *name == unit)?.1;
    Some(number(number_text.trim_end())?.saturating_mul(factor))
}

fn check_size(text: &str) {
    let powers = [("K", 1 << 10), ("M", 1 << 20), ("G", 1 << 30), ("T", 1 << 40)];
    let mut units: Vec<(String, u128)> = vec![(String::new(), 1), ("B".to_owned(), 1)];
    for (letter, factor) in powers {
        units.extend(["", "B", "IB"].map(|rest| (format!("{letter}{rest}"), factor)));
    }
    let units: Vec<(&str, u128)> = units.iter().map(|(name, factor)| (&name[..], *factor)).collect();
    let meant = with_unit(&text.to_ascii_uppercase(), &units).and_then(|size| u64::try_from(size).ok());
    match parse_size(text) {
        Ok(size) => {
            assert_eq!(Some(size), meant);
            let shown = show_size(size);
            assert!(shown.len() <= "1023 KiB".len() && shown.is_ascii(), "{shown}");
        }
        Err(why) => {
            assert_eq!(meant, None, "{text}");
            assert_harmless(&why);
        }
    }
}

fn check_duration(text: &str) {
    let units = [("ms", 1), ("", 1000), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
    let meant = with_unit(text, &units).and_then(|millis| u64::try_from(millis).ok());
    match parse_duration(text) {
        Ok(time) => assert_eq!(Some(time.as_millis()), meant.map(u128::from)),
        Err(why) => {
            // A number may be too large before it is multiplied.
            assert_eq!(meant, None, "{text}");
            assert_harmless(&why);
        }
    }
}
