//! `Upload-Metadata` (tus 1.0.0, "Creation"): pairs of a key and a value in base64, between commas.

use super::headers::bad;
use crate::refusal::Refusal;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bigup_core::protocol::name::quoted;

/// Longest header that is taken, in bytes.
const MAX_LEN: usize = 8 << 10;

/// Keys that clients give a file's name by: the common one, and those of clients that call it otherwise.
const NAMES: [&str; 2] = ["filename", "name"];

/// The pairs in a header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metadata(Vec<(String, Vec<u8>)>);

impl Metadata {
    /// Reads a header.
    ///
    /// # Errors
    /// It is too long, a key is there twice, or a value is no base64.
    pub fn parse(header: &str) -> Result<Metadata, Refusal> {
        if header.len() > MAX_LEN {
            return Err(bad(format!("Upload-Metadata has {} bytes; at most {MAX_LEN} are taken", header.len())));
        }
        let mut pairs: Vec<(String, Vec<u8>)> = vec![];
        for pair in header.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once(' ').unwrap_or((pair, ""));
            if pairs.iter().any(|(other, _)| other == key) {
                return Err(bad(format!("Upload-Metadata: the key {} is there twice", quoted(key))));
            }
            let value = STANDARD.decode(value.trim());
            let value =
                value.map_err(|e| bad(format!("Upload-Metadata: the value of {} is no base64: {e}", quoted(key))))?;
            pairs.push((key.to_owned(), value));
        }
        Ok(Metadata(pairs))
    }

    /// The name of the file. `None` if no name is given, or it is not UTF-8.
    pub fn file_name(&self) -> Option<String> {
        NAMES.iter().find_map(|name| {
            let (_, value) = self.0.iter().find(|(key, _)| key == name)?;
            String::from_utf8(value.clone()).ok()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_is_found_among_other_pairs() {
        let read = |header: &str| Metadata::parse(header).map(|metadata| metadata.file_name());
        assert_eq!(read("filename YS5iaW4="), Ok(Some("a.bin".to_owned())));
        assert_eq!(read("is_confidential,name Yg==, filename YQ=="), Ok(Some("a".to_owned())));
        assert_eq!(read("name Yg==,filetype eA=="), Ok(Some("b".to_owned())));
        assert_eq!(read("filename /w=="), Ok(None));
        assert_eq!(read(""), Ok(None));
        for wrong in ["filename %", "a YQ==,a YQ==", &format!("a {}", "A".repeat(MAX_LEN))] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
