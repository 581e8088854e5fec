//! Finished files as objects of an S3-compatible store: the requests that are made of it, and their answers.
//!
//! The only network I/O of this crate is here, and only where a store is set. Spools, records and slices do not come in
//! here, nor do the meaning of a finished file (`store`) and its publication (`finish`).
//!
//! # What is in the bucket
//! ```text
//! PREFIX/<name>          a finished file. Its metadata have either the facts about its content (`bigup-facts`), or the
//!                        name of its note (`bigup-note`): they are fixed when an upload of many parts begins, and the
//!                        digest is known when it ends
//! PREFIX/.bigup/<note>   a note about an object of many parts: its name, and the facts once they are known. It is
//!                        there before the multipart upload is, so that a sweep finds what a lost data folder left
//! PREFIX/.bigup/check-…  object of the check at the start; removed by it
//! ```
//! An object points at its own note, whose name is random. So whatever replaces an object, no digest of another content
//! is taken for its own.

use crate::merger_events::StoreObserver;
use crate::protocol::digest::Digest;
use crate::protocol::kept::FileTime;
use crate::protocol::name::FileName;
use crate::protocol::sha256::Sha256;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use md5::{Digest as _, Md5};
use request::{Answer, Payload, Requests, STORING, Signed};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

mod check;
mod credentials;
mod error;
mod listing;
mod multipart;
mod reader;
mod request;
mod settings;
mod sweep;

pub use error::ObjectError;
pub use listing::Listed;
pub use multipart::{Multipart, SentPart, StoredParts, multipart_in};
pub use reader::ObjectReader;
pub use settings::{MOST_PARTS_AT_ONCE, ObjectSettings, StoreUrl};

/// First component of the keys that are no finished files.
const RESERVED: &str = ".bigup";

/// Longest key, in bytes: that of Amazon's store.
const MAX_KEY: usize = 1024;

/// Most bytes of facts in an object's metadata; the rest of the 2 KiB that stores take is left to others.
const MAX_FACTS: usize = 1024;

/// The metadata of an object whose facts were known when its upload began.
const FACTS: &str = "x-amz-meta-bigup-facts";

/// The metadata of an object with a note.
const NOTE: &str = "x-amz-meta-bigup-note";

/// The store, ready for requests.
pub struct Objects {
    requests: Requests,
    settings: ObjectSettings,
}

impl std::fmt::Debug for Objects {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Objects").field("url", &self.settings.url).finish_non_exhaustive()
    }
}

/// The facts about the content of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// BLAKE3 of the whole content.
    pub digest: Digest,
    /// The client's source that it came from, if the client named one.
    pub source: Option<String>,
    /// SHA-256 of the whole content. `None` if it was not computed.
    pub sha256: Option<Sha256>,
    /// Time of the last write to the client's file, if that is kept.
    pub modified: Option<FileTime>,
}

/// The form of facts in the store.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct FactsJson {
    digest: String,
    /// Bytes of the content: facts hold for that size only.
    size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    source: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sha256: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    modified: Option<String>,
}

impl FactsJson {
    fn of(facts: &Facts, size: u64) -> FactsJson {
        FactsJson {
            size,
            digest: facts.digest.to_string(),
            source: facts.source.clone(),
            sha256: facts.sha256.map(|sha256| sha256.to_string()),
            modified: facts.modified.map(|modified| modified.to_string()),
        }
    }

    /// The facts of an object of `size` bytes. `None` if these are of another one, or not what this program writes.
    fn facts(&self, size: u64) -> Option<Facts> {
        if self.size != size {
            return None;
        }
        let sha256 = self.sha256.as_ref().and_then(|text| text.parse().ok());
        let modified = self.modified.as_ref().and_then(|text| text.parse().ok());
        Some(Facts { digest: self.digest.parse().ok()?, source: self.source.clone(), sha256, modified })
    }
}

/// The content of a note.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Note {
    /// Name of the finished file.
    name: String,
    /// The facts; `None` as long as its parts are being sent.
    content: Option<FactsJson>,
}

/// An object that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// Its key.
    key: String,
    /// Bytes of its content.
    pub size: u64,
    /// The store's tag of this version of it.
    pub etag: String,
    /// The time at which it was stored.
    pub modified: SystemTime,
    /// The facts about its content. `None` if another program stored it, or if they are lost.
    pub facts: Option<Facts>,
    note: Option<String>,
}

impl Objects {
    /// The store with these settings. No request is made.
    ///
    /// # Errors
    /// The settings contradict each other.
    pub fn new(settings: ObjectSettings) -> Result<Objects, String> {
        Ok(Objects { requests: Requests::new(&settings)?, settings })
    }

    /// The same, where `observer` is told of each request.
    pub fn observed_by(mut self, observer: Arc<StoreObserver>) -> Objects {
        self.requests.observed_by(observer);
        self
    }

    /// Its settings.
    pub fn settings(&self) -> &ObjectSettings {
        &self.settings
    }

    /// The place of a finished file, for messages.
    pub fn place_of(&self, name: &str) -> String {
        format!("{}/{name}", self.settings.url)
    }

    /// The reason for which no object can have this name. `None` if one can.
    pub fn cannot_name(&self, name: &FileName) -> Option<String> {
        let len = self.key_of(name.as_str()).len();
        if len > MAX_KEY {
            return Some(format!(
                "its key in the store would have {len} bytes, and {MAX_KEY} are the most: use a shorter name"
            ));
        }
        let is_reserved = name.components().next() == Some(RESERVED);
        is_reserved.then(|| format!("names in {RESERVED}/ are the server's own in this store: use another name"))
    }

    fn key_of(&self, name: &str) -> String {
        match &*self.settings.url.prefix {
            "" => name.to_owned(),
            prefix => format!("{prefix}/{name}"),
        }
    }

    fn note_key(&self, note: &str) -> String {
        self.key_of(&format!("{RESERVED}/{note}"))
    }

    /// The object of this name. `None` if there is none.
    ///
    /// # Errors
    /// The store does not answer, or refuses.
    pub fn find(&self, name: &FileName) -> Result<Option<Object>, ObjectError> {
        let Some(mut object) = self.head(&self.key_of(name.as_str()))? else { return Ok(None) };
        if let (None, Some(note)) = (&object.facts, &object.note) {
            let noted = self.note(note)?.and_then(|note| note.content);
            object.facts = noted.and_then(|facts| facts.facts(object.size));
        }
        Ok(Some(object))
    }

    fn head(&self, key: &str) -> Result<Option<Object>, ObjectError> {
        let sign =
            |bucket: &rusty_s3::Bucket, credentials: &_| Signed::of(bucket.head_object(Some(credentials), key), vec![]);
        match self.requests.call("looking for an object", sign, Payload::Nothing) {
            Ok(answer) => Ok(Some(object(key, &answer))),
            Err(e) if e.status() == Some(404) => Ok(None),
            Err(e) => Err(e),
        }
    }

    fn note(&self, note: &str) -> Result<Option<Note>, ObjectError> {
        // It came with an object that anybody may have stored.
        if note.is_empty() || !note.chars().all(|c| c.is_ascii_alphanumeric()) {
            return Ok(None);
        }
        let key = self.note_key(note);
        let sign =
            |bucket: &rusty_s3::Bucket, credentials: &_| Signed::of(bucket.get_object(Some(credentials), &key), vec![]);
        match self.requests.call("reading a note", sign, Payload::Nothing) {
            Ok(answer) => Ok(serde_json::from_str(&answer.text).ok()),
            Err(e) if e.status() == Some(404) => Ok(None),
            Err(e) => Err(e),
        }
    }

    fn write_note(&self, note: &str, content: &Note) -> Result<(), ObjectError> {
        let text = serde_json::to_string(content).expect("strings and numbers always serialise");
        self.put(&self.note_key(note), Payload::Bytes(text.as_bytes()), Md5::digest(&text).into(), vec![])
    }

    fn put(
        &self,
        key: &str,
        payload: Payload<'_>,
        md5: [u8; 16],
        mut headers: Vec<(&'static str, String)>,
    ) -> Result<(), ObjectError> {
        headers.push(("content-md5", STANDARD.encode(md5)));
        let sign = |bucket: &rusty_s3::Bucket, credentials: &_| {
            Signed::of(bucket.put_object(Some(credentials), key), headers.clone())
        };
        self.requests.call(STORING, sign, payload).map(drop)
    }

    /// Stores all of `file`, `len` bytes of this MD5, as the object `name`, in one request. The store compares what
    /// arrives with the MD5. An object that is there is replaced if `replace`.
    ///
    /// # Errors
    /// The store does not answer, or refuses: with status 412 where an object is there that is not to be replaced, and
    /// the store can tell.
    pub fn put_file(
        &self,
        name: &FileName,
        file: &File,
        len: u64,
        md5: [u8; 16],
        facts: &Facts,
        replace: bool,
    ) -> Result<(), ObjectError> {
        let mut headers = vec![(FACTS, encoded(facts, len))];
        if !replace {
            headers.push(("if-none-match", "*".to_owned()));
        }
        let payload = if len == 0 { Payload::Bytes(&[]) } else { Payload::Range { file, offset: 0, len } };
        self.put(&self.key_of(name.as_str()), payload, md5, headers)
    }

    /// Removes an object, and its note after it.
    ///
    /// # Errors
    /// The store does not answer, or refuses. Its note may stay: a sweep finds it.
    pub fn remove(&self, object: &Object) -> Result<(), ObjectError> {
        self.delete(&object.key)?;
        object.note.as_ref().map_or(Ok(()), |note| self.delete(&self.note_key(note)))
    }

    /// Removes the note of an object that another one has replaced. A note that stays is found by a sweep.
    pub fn forget(&self, replaced: &Object) {
        let Some(note) = &replaced.note else { return };
        if let Err(e) = self.delete(&self.note_key(note)) {
            log::debug!("the note of a replaced object stays: {e}");
        }
    }

    fn delete(&self, key: &str) -> Result<(), ObjectError> {
        let sign = |bucket: &rusty_s3::Bucket, credentials: &_| {
            Signed::of(bucket.delete_object(Some(credentials), key), vec![])
        };
        match self.requests.call("removing an object", sign, Payload::Nothing) {
            Err(e) if e.status() != Some(404) => Err(e),
            _ => Ok(()),
        }
    }
}

/// The object that the answer to a HEAD tells of.
fn object(key: &str, answer: &Answer) -> Object {
    let facts = answer.header(FACTS).and_then(|text| URL_SAFE_NO_PAD.decode(text).ok());
    let facts = facts.and_then(|bytes| serde_json::from_slice::<FactsJson>(&bytes).ok());
    let size = answer.header("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
    Object {
        key: key.to_owned(),
        size,
        etag: answer.header("etag").unwrap_or_default().to_owned(),
        modified: answer
            .header("last-modified")
            .and_then(|text| httpdate::parse_http_date(text).ok())
            .unwrap_or(SystemTime::UNIX_EPOCH),
        facts: facts.and_then(|facts| facts.facts(size)),
        note: answer.header(NOTE).map(str::to_owned),
    }
}

/// Facts as metadata have them. Sources that are too long are left out: their clients push again then, and are told
/// that the file is there.
fn encoded(facts: &Facts, size: u64) -> String {
    let encode = |facts: &FactsJson| {
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(facts).expect("strings and numbers always serialise"))
    };
    let whole = FactsJson::of(facts, size);
    let text = encode(&whole);
    if text.len() > MAX_FACTS { encode(&FactsJson { source: None, ..whole }) } else { text }
}

/// A time in the form of the store's lists, like `2013-05-24T00:00:00.000Z`.
fn listed_time(text: &str) -> SystemTime {
    humantime::parse_rfc3339_weak(text).unwrap_or(SystemTime::UNIX_EPOCH)
}

/// Time since then; zero if clocks disagree.
fn age(time: SystemTime) -> Duration {
    SystemTime::now().duration_since(time).unwrap_or_default()
}

/// A name for a note, which no other one has.
fn new_note() -> String {
    crate::storage::disk::random_suffix().chars().filter(char::is_ascii_alphanumeric).collect()
}

/// A mistake in an answer of the store.
fn senseless(what: &'static str, why: impl std::fmt::Display) -> ObjectError {
    ObjectError::new(what, error::Reason::Senseless(why.to_string()))
}

impl From<&ObjectError> for io::Error {
    fn from(error: &ObjectError) -> io::Error {
        error.clone().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn objects(prefix: &str) -> Objects {
        let url = format!("s3://bucket/{prefix}").parse().unwrap();
        let endpoint = Some("http://127.0.0.1:1".to_owned());
        Objects::new(ObjectSettings {
            url,
            endpoint,
            region: "r".to_owned(),
            path_style: true,
            credentials_file: None,
            parts_at_once: 1,
        })
        .unwrap()
    }

    #[test]
    fn names_become_keys_below_the_prefix_or_are_refused() {
        let name = |text: &str| FileName::new(text).unwrap();
        assert_eq!(objects("").key_of("a/b"), "a/b");
        let objects = objects("p/q");
        assert_eq!(objects.key_of("a/b"), "p/q/a/b");
        assert_eq!(objects.place_of("a/b"), "s3://bucket/p/q/a/b");
        assert_eq!(objects.cannot_name(&name(".bigup2/x")), None);
        assert!(objects.cannot_name(&name(".bigup/x")).unwrap().contains("another name"));
        let long = vec!["x".repeat(250); 5].join("/");
        assert!(objects.cannot_name(&name(&long)).unwrap().contains(&format!("{} bytes", long.len() + 4)));
    }

    #[test]
    fn facts_are_read_as_they_were_written() {
        let (sha256, modified) = (Some(Sha256([3; 32])), FileTime::new(-1));
        let facts = Facts { digest: Digest([7; 32]), source: Some("ä ☃".to_owned()), sha256, modified };
        let decoded =
            |text: &str| serde_json::from_slice::<FactsJson>(&URL_SAFE_NO_PAD.decode(text).unwrap()).unwrap().facts(5);
        assert_eq!(decoded(&encoded(&facts, 5)), Some(facts.clone()));
        let long = Facts { source: Some("s".repeat(2000)), ..facts.clone() };
        assert!(encoded(&long, 5).len() <= MAX_FACTS);
        assert_eq!(decoded(&encoded(&long, 5)), Some(Facts { source: None, ..facts }));
    }
}
