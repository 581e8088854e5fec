//! Text in files as the editors and shells of all systems write it: UTF-8 or UTF-16, with a byte order mark or without.

/// `bytes` as text, without the byte order mark. `None`: they are neither UTF-8 nor UTF-16 with its mark.
///
/// Windows PowerShell writes UTF-16 by `>`; "UTF-8" of others there begins with the mark (RFC 3629, section 6).
pub fn decode(bytes: &[u8]) -> Option<String> {
    match bytes {
        [0xFF, 0xFE, rest @ ..] => utf16(rest, u16::from_le_bytes),
        [0xFE, 0xFF, rest @ ..] => utf16(rest, u16::from_be_bytes),
        [0xEF, 0xBB, 0xBF, rest @ ..] => String::from_utf8(rest.to_vec()).ok(),
        _ => String::from_utf8(bytes.to_vec()).ok(),
    }
}

fn utf16(bytes: &[u8], unit: fn([u8; 2]) -> u16) -> Option<String> {
    let (pairs, rest) = bytes.as_chunks::<2>();
    rest.is_empty().then(|| String::from_utf16(&pairs.iter().map(|pair| unit(*pair)).collect::<Vec<_>>()).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_the_same_however_it_is_written() {
        let text = "bigup_ä\r\n";
        let utf16 = |unit: fn(u16) -> [u8; 2]| text.encode_utf16().flat_map(unit).collect::<Vec<u8>>();
        let marked = |mark: &[u8], bytes: &[u8]| [mark, bytes].concat();
        for bytes in [
            text.as_bytes().to_vec(),
            marked(b"\xEF\xBB\xBF", text.as_bytes()),
            marked(b"\xFF\xFE", &utf16(u16::to_le_bytes)),
            marked(b"\xFE\xFF", &utf16(u16::to_be_bytes)),
        ] {
            assert_eq!(decode(&bytes).as_deref(), Some(text), "{bytes:?}");
        }
        assert_eq!(decode(b"").as_deref(), Some(""));
    }

    #[test]
    fn what_is_cut_or_neither_of_them_is_no_text() {
        for bytes in [&b"\xFF\xFEa"[..], b"\xFF\xFE\x00\xD8", b"\xE4", b"\xEF\xBB\xBF\xE4"] {
            assert_eq!(decode(bytes), None, "{bytes:?}");
        }
    }
}
