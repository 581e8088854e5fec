//! Metadata that clients tell of a file: pairs of a key and a value in base64, between commas, as in the header field
//! `Upload-Metadata` (tus 1.0.0, "Creation").

use crate::refusal::Refusal;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bigup_core::protocol::name::quoted;
use bigup_core::protocol::native::ErrorCode;
use serde_json::{Map, Value};

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

    /// The pairs as JSON. Values that are not UTF-8 are left out.
    pub fn json(&self) -> Value {
        let texts =
            self.0.iter().filter_map(|(key, value)| Some((key.clone(), std::str::from_utf8(value).ok()?.into())));
        Value::Object(texts.collect::<Map<_, _>>())
    }

    /// The name of the file. `None` if no name is given, or it is not UTF-8.
    pub fn file_name(&self) -> Option<String> {
        NAMES.iter().find_map(|name| {
            let (_, value) = self.0.iter().find(|(key, _)| key == name)?;
            String::from_utf8(value.clone()).ok()
        })
    }
}

fn bad(facts: String) -> Refusal {
    Refusal::new(ErrorCode::BadRequest, facts)
}

/// The metadata of an upload as JSON. Null if it has none, or none that can be read.
pub fn json(metadata: Option<&str>) -> Value {
    metadata.and_then(|text| Metadata::parse(text).ok()).map_or(Value::Null, |metadata| metadata.json())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hooks_get_texts() {
        let told = json(Some("filename YS5iaW4=,is_confidential,raw /w=="));
        assert_eq!(told, serde_json::json!({"filename": "a.bin", "is_confidential": ""}));
        assert_eq!((json(None), json(Some("a %"))), (Value::Null, Value::Null));
    }

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
