//! Sizes and times as people write them.

use crate::protocol::name::quoted;
use std::time::Duration;

/// Bytes of a mebibyte.
pub const MIB: u64 = 1 << 20;

/// Reads a size: a whole number of bytes, or with one of the suffixes K, M, G, T (1024 and its powers; `KiB`, `MiB` …
/// mean the same, `B` means bytes).
///
/// # Errors
/// The message quotes the text and names the right forms.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let wrong = || format!("{} is no size: give bytes or a number with K, M, G or T, like 8M", quoted(text));
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match text[digits.len()..].to_ascii_uppercase().as_str() {
        "" | "B" => 0,
        "K" | "KB" | "KIB" => 10,
        "M" | "MB" | "MIB" => 20,
        "G" | "GB" | "GIB" => 30,
        "T" | "TB" | "TIB" => 40,
        _ => return Err(wrong()),
    };
    let number = parse_u64(digits.trim_end()).ok_or_else(wrong)?;
    number.checked_mul(1 << shift).ok_or_else(|| format!("{} is over 2^64 bytes", quoted(text)))
}

/// Reads a time: a whole number of seconds, or with one of the suffixes ms, s, m, h, d.
///
/// # Errors
/// The message quotes the text and names the right forms.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{} is no time: give seconds or a number with ms, s, m, h or d, like 10s", quoted(text));
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let millis: u64 = match &text[digits.len()..] {
        "ms" => 1,
        "" | "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(wrong()),
    };
    let number = parse_u64(digits.trim_end()).ok_or_else(wrong)?;
    number.checked_mul(millis).map(Duration::from_millis).ok_or_else(wrong)
}

/// Reads a whole number: ASCII digits only, so neither `+5` nor `５` passes.
pub fn parse_u64(text: &str) -> Option<u64> {
    let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if plain { text.parse().ok() } else { None }
}

/// Shows bytes with a binary unit and three figures: `8.00 MiB`.
pub fn show_size(bytes: u64) -> String {
    shown(bytes, |value, _| value)
}

/// Shows bytes like [`show_size`], but never less than there are: `8.01 MiB` for a byte more than 8 MiB.
pub fn show_size_up(bytes: u64) -> String {
    shown(bytes, |value, decimals| {
        let figures = 10_f64.powi(decimals as i32);
        (value * figures).ceil() / figures
    })
}

fn shown(bytes: u64, round: impl Fn(f64, usize) -> f64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    // 999.5 and up would print as four figures.
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let decimals = if value < 9.995 {
        2
    } else if value < 99.95 {
        1
    } else {
        0
    };
    format!("{:.decimals$} {}", round(value, decimals), UNITS[unit])
}

/// Permissions in octal, like `640`, up to `7777` (chmod(2)).
///
/// # Errors
/// The text is no mode.
pub fn parse_mode(text: &str) -> Result<u32, String> {
    let digits = text.len() <= 5 && text.bytes().all(|b| b.is_ascii_digit());
    let mode = u32::from_str_radix(text, 8).ok().filter(|mode| digits && *mode <= 0o7777);
    mode.ok_or_else(|| format!("{} is no mode in octal, like 640", crate::protocol::name::quoted(text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_octal() {
        assert_eq!((parse_mode("640"), parse_mode("02775"), parse_mode("0")), (Ok(0o640), Ok(0o2775), Ok(0)));
        for bad in ["", "8", "rw-r-----", "10000", "+640", "0o640", "-1", "000640"] {
            assert!(parse_mode(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_are_read() {
        for (text, bytes) in
            [("0", 0), ("1023", 1023), ("8M", 8 << 20), ("8MiB", 8 << 20), ("2 g", 2 << 30), ("1k", 1024)]
        {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for bad in ["", "M", "-1", "+1", "1.5M", "1X", "99999999999T", "8M8"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn times_are_read() {
        assert_eq!(parse_duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse_duration("10"), Ok(Duration::from_secs(10)));
        assert_eq!(parse_duration("7d"), Ok(Duration::from_secs(7 * 86400)));
        for bad in ["", "s", "1w", "-1s", "1.5s", "99999999999999999d"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_to_be_freed_is_never_too_little() {
        for (bytes, text) in [
            (5, "5 B"),
            (8 << 20, "8.00 MiB"),
            ((8 << 20) + 1, "8.01 MiB"),
            ((100 << 20) + 1, "101 MiB"),
            (219_830_098_219_008, "200 TiB"),
        ] {
            assert_eq!(show_size_up(bytes), text);
        }
    }

    #[test]
    fn sizes_are_shown_with_three_figures() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.00 KiB"),
            (8 << 20, "8.00 MiB"),
            (1_000_000_000, "954 MiB"),
            (1 << 30, "1.00 GiB"),
            (1023 << 20, "1.00 GiB"),
        ] {
            assert_eq!(show_size(bytes), text);
        }
    }
}
