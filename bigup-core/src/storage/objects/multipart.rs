//! Multipart uploads: an object that comes in parts, in any order.
//!
//! # What is on disk and in the store, and what a kill there leaves
//! ```text
//! 1  `object.json` in the spool names key and note  a record without an upload id
//! 2  the note is stored, without facts              the same, and a note: the next merger removes both, and begins anew
//! 3  the multipart upload is created                an upload without parts whose id nobody knows: the next merger
//!                                                   ends those of this key that have no part
//! 4  `object.json` has its id, synced               an upload: the next merger goes on with it
//! 5  parts are stored, in any order                 the parts: the next merger lists them, and keeps those whose
//!                                                   size and tag are those of the bytes in `merged`. Before the first
//!                                                   one is recorded (`parts` in the spool) it begins anew
//! 6  the note has the facts                         the same
//! 7  the upload is completed                        the object: the next merger finds that the same file is there
//! 8  section and spool go                           nothing
//! ```
//! The list of parts is the truth: nothing on disk says that a part is stored. SeaweedFS lists a part twice that was sent
//! twice, in no order: so a multipart upload has parts of one content only, but after a take-over.
//!
//! A multipart upload that is gone (aborted by somebody, or expired) is begun anew: `merged` has all the bytes.

use super::request::{COMPLETING, Payload, STORING_A_PART, Signed};
use super::{Facts, FactsJson, NOTE, Note, ObjectError, Objects, age, listed_time, new_note, senseless};
use crate::protocol::name::FileName;
use crate::protocol::parts::PartSizes;
use crate::storage::disk::{self, Durability};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use instant_xml::FromXml;
use rusty_s3::actions::{CompleteMultipartUpload, CreateMultipartUpload, ListParts};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::Path;
use std::time::Duration;

/// Name of the file in a spool that has the multipart upload.
pub(super) const OBJECT_JSON: &str = "object.json";

/// Largest such file that is read, in bytes.
pub(super) const MAX_OBJECT_JSON: u64 = 64 << 10;

/// A part that the store has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SentPart {
    /// Its size, in bytes.
    pub size: u64,
    /// The store's tag of it.
    pub etag: String,
}

impl SentPart {
    /// A part of this size and tag, whose quotes count for nothing: some answers have them and others do not.
    fn new(size: u64, etag: &str) -> SentPart {
        SentPart { size, etag: etag.trim_matches('"').to_owned() }
    }

    /// The hash of the store's answer.
    pub fn answer(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.size.to_le_bytes()).update(self.etag.as_bytes());
        *hasher.finalize().as_bytes()
    }

    /// True if it has this MD5. False if the store has tags of another kind.
    pub fn is_of(&self, md5: [u8; 16]) -> bool {
        let hex: String = md5.iter().map(|byte| format!("{byte:02x}")).collect();
        self.etag.eq_ignore_ascii_case(&hex)
    }
}

/// `object.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct MultipartRecord {
    /// Key of the object.
    key: String,
    /// Name of its note.
    pub(super) note: String,
    /// Bytes of each part but the last.
    part_size: u64,
    /// The store's id of the multipart upload. `None` before it is created.
    upload_id: Option<String>,
}

impl MultipartRecord {
    /// The record in the spool at `folder`. `None` if there is none, or it cannot be read: then a new one is made, and
    /// a sweep finds the things that the old one told of.
    pub(super) fn read(folder: &Path) -> Option<MultipartRecord> {
        serde_json::from_slice(&disk::read_small(&folder.join(OBJECT_JSON), MAX_OBJECT_JSON).ok()?).ok()
    }

    fn save(&self, folder: &Path) -> io::Result<()> {
        let text = serde_json::to_vec(self).expect("strings and numbers always serialise");
        disk::replace_file(folder, OBJECT_JSON, &text, Durability::PowerCut)
    }
}

/// The id of the multipart upload of the spool at `folder`, and the size of its parts, as they are noted there. `None` if
/// nothing is noted.
pub fn multipart_in(folder: &Path) -> Option<(String, PartSizes)> {
    let record = MultipartRecord::read(folder)?;
    Some((record.upload_id?, PartSizes { part: record.part_size }))
}

/// The parts that the store has of a multipart upload.
pub struct StoredParts {
    /// The store's id of the multipart upload.
    pub id: String,
    /// The size of its parts.
    pub sizes: PartSizes,
    /// The parts, by their numbers.
    pub parts: BTreeMap<u64, SentPart>,
}

/// A multipart upload that the store has.
pub struct Multipart<'a> {
    objects: &'a Objects,
    name: FileName,
    record: MultipartRecord,
    id: String,
    /// The parts that it had when it was opened, by their numbers.
    pub stored: BTreeMap<u64, SentPart>,
}

impl Objects {
    /// The parts that the store has of the multipart upload of the spool at `folder`. `None` if there is none, or if the store has it no more. Nothing is begun.
    ///
    /// # Errors
    /// The store does not answer, or refuses.
    pub fn look_at_multipart(&self, folder: &Path, name: &FileName) -> Result<Option<StoredParts>, ObjectError> {
        let key = self.key_of(name.as_str());
        let Some(record) = MultipartRecord::read(folder).filter(|record| record.key == key) else { return Ok(None) };
        let Some(id) = record.upload_id else { return Ok(None) };
        let sizes = PartSizes { part: record.part_size };
        Ok(self.parts(&key, &id)?.map(|parts| StoredParts { id, sizes, parts }))
    }

    /// The multipart upload of the spool at `folder`, for a finished file of `name`: the one that is under way, or a
    /// new one. `is_anew` tells that nothing is known of any part: then one that has parts is ended, whose parts may be of
    /// other content. SeaweedFS lists a part twice that was sent twice, in no order.
    ///
    /// # Errors
    /// The store does not answer, or refuses; or the record cannot be written.
    pub fn multipart(
        &self,
        folder: &Path,
        name: &FileName,
        sizes: PartSizes,
        is_anew: bool,
    ) -> io::Result<Multipart<'_>> {
        let key = self.key_of(name.as_str());
        if let Some(record) = MultipartRecord::read(folder).filter(|record| record.key == key) {
            let found = record.upload_id.clone().filter(|_| record.part_size == sizes.part);
            if let Some(id) = found
                && let Some(stored) = self.parts(&key, &id)?
                && (stored.is_empty() || !is_anew)
            {
                return Ok(Multipart { objects: self, name: name.clone(), record, id, stored });
            }
            self.abandon(folder)?;
        }
        let mut record = MultipartRecord { key, note: new_note(), part_size: sizes.part, upload_id: None };
        record.save(folder)?;
        self.write_note(&record.note, &Note { name: name.as_str().to_owned(), content: None })?;
        let id = self.create(&record)?;
        record.upload_id = Some(id.clone());
        if let Err(e) = record.save(folder) {
            // Nobody would know the id.
            self.abort(&record.key, &id)?;
            return Err(e);
        }
        Ok(Multipart { objects: self, name: name.clone(), record, id, stored: BTreeMap::new() })
    }

    fn create(&self, record: &MultipartRecord) -> Result<String, ObjectError> {
        const WHAT: &str = "beginning an upload of parts";
        let headers = vec![(NOTE, record.note.clone())];
        let answer = self.requests.call(
            WHAT,
            |bucket, credentials| {
                Signed::of(CreateMultipartUpload::new(bucket, Some(credentials), &record.key), headers.clone())
            },
            Payload::Nothing,
        )?;
        let parsed = CreateMultipartUpload::parse_response(&answer.text).map_err(|e| senseless(WHAT, e))?;
        Ok(parsed.upload_id().to_owned())
    }

    /// The parts of a multipart upload. `None` if there is no such upload.
    pub(super) fn parts(&self, key: &str, id: &str) -> Result<Option<BTreeMap<u64, SentPart>>, ObjectError> {
        self.parts_after(key, id, None, u64::MAX)
    }

    /// Those behind the part of the number `marker`, up to that of the number `last` at least.
    fn parts_after(
        &self,
        key: &str,
        id: &str,
        mut marker: Option<u16>,
        last: u64,
    ) -> Result<Option<BTreeMap<u64, SentPart>>, ObjectError> {
        const WHAT: &str = "listing parts";
        let mut parts = BTreeMap::new();
        loop {
            let sign = |bucket: &rusty_s3::Bucket, credentials: &rusty_s3::Credentials| {
                let mut action = ListParts::new(bucket, Some(credentials), key, id);
                marker.iter().for_each(|marker| action.set_part_number_marker(*marker));
                Signed::of(action, vec![])
            };
            let answer = match self.requests.call(WHAT, sign, Payload::Nothing) {
                Err(e) if e.is_without_upload() => return Ok(None),
                answer => answer?,
            };
            let page = ListParts::parse_response(&answer.text).map_err(|e| senseless(WHAT, e))?;
            let found = page.parts.into_iter();
            parts.extend(found.map(|part| (u64::from(part.number), SentPart::new(part.size, &part.etag))));
            match page.next_part_number_marker {
                Some(next) if u64::from(next) < last => marker = Some(next),
                _ => return Ok(Some(parts)),
            }
        }
    }

    /// Ends the multipart upload of the spool at `folder`, with all its parts, and its note. Nothing is left of it, but
    /// the object and its note if it was completed.
    ///
    /// # Errors
    /// The store does not answer, or refuses.
    pub fn abandon(&self, folder: &Path) -> Result<(), ObjectError> {
        let Some(record) = MultipartRecord::read(folder) else { return Ok(()) };
        // An object that was completed points at its note.
        if self.head(&record.key)?.is_some_and(|object| object.note.as_ref() == Some(&record.note)) {
            return Ok(());
        }
        match &record.upload_id {
            Some(id) => self.abort(&record.key, id)?,
            None => self.abort_empty(&record.key)?,
        }
        self.delete(&self.note_key(&record.note))
    }

    /// Ends the multipart uploads to `key` that have no part: that of a merger which died before it knew the id.
    fn abort_empty(&self, key: &str) -> Result<(), ObjectError> {
        for id in self.uploads_to(key, Duration::ZERO)? {
            if self.parts(key, &id)?.is_some_and(|parts| parts.is_empty()) {
                self.abort(key, &id)?;
            }
        }
        Ok(())
    }

    pub(super) fn abort(&self, key: &str, id: &str) -> Result<(), ObjectError> {
        let sign = |bucket: &rusty_s3::Bucket, credentials: &_| {
            Signed::of(bucket.abort_multipart_upload(Some(credentials), key, id), vec![])
        };
        match self.requests.call("ending an upload of parts", sign, Payload::Nothing) {
            Err(e) if e.status() != Some(404) => Err(e),
            _ => Ok(()),
        }
    }

    /// The ids of the multipart uploads to `key` that began at least `old` ago.
    pub(super) fn uploads_to(&self, key: &str, old: Duration) -> Result<Vec<String>, ObjectError> {
        let ours = self.uploads(key)?.into_iter().filter(|upload| upload.key == key);
        let old_ones = ours.filter(|upload| age(listed_time(&upload.initiated)) >= old || old.is_zero());
        Ok(old_ones.map(|upload| upload.id).collect())
    }

    /// The keys of multipart uploads below the prefix, at most a thousand.
    ///
    /// # Errors
    /// The store does not answer, or refuses.
    pub fn unfinished(&self) -> Result<Vec<String>, ObjectError> {
        Ok(self.uploads(&self.key_of(""))?.into_iter().map(|upload| upload.key).collect())
    }

    fn uploads(&self, prefix: &str) -> Result<Vec<UploadXml>, ObjectError> {
        const WHAT: &str = "listing uploads of parts";
        let answer = self.requests.call(
            WHAT,
            |bucket, credentials| {
                // The library has no such action. Without a key it is one of the bucket.
                let mut action = bucket.get_object(Some(credentials), "");
                let query = rusty_s3::S3Action::query_mut(&mut action);
                query.insert("uploads", "");
                query.insert("prefix", prefix.to_owned());
                Signed::of(action, vec![])
            },
            Payload::Nothing,
        )?;
        let found: UploadsXml = instant_xml::from_str(&answer.text).map_err(|e| senseless(WHAT, e))?;
        Ok(found.uploads)
    }
}

/// A list of multipart uploads, its first page: no key has a thousand of them.
#[derive(FromXml)]
#[xml(rename = "ListMultipartUploadsResult", ns("http://s3.amazonaws.com/doc/2006-03-01/"))]
struct UploadsXml {
    uploads: Vec<UploadXml>,
}

#[derive(FromXml)]
#[xml(rename = "Upload", ns("http://s3.amazonaws.com/doc/2006-03-01/"))]
struct UploadXml {
    #[xml(rename = "Key")]
    key: String,
    #[xml(rename = "UploadId")]
    id: String,
    #[xml(rename = "Initiated")]
    initiated: String,
}

impl Multipart<'_> {
    /// The store's id of it.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Stores `len` bytes at `offset` of `file`, whose MD5 is `md5`, as part `number`. The store compares the bytes that
    /// arrive with the MD5.
    ///
    /// # Errors
    /// The store does not answer, or refuses: with status 404 where the multipart upload is gone.
    pub fn send(
        &self,
        number: u64,
        file: &File,
        offset: u64,
        len: u64,
        md5: [u8; 16],
    ) -> Result<SentPart, ObjectError> {
        const WHAT: &str = STORING_A_PART;
        let number = u16::try_from(number).map_err(|e| senseless(WHAT, e))?;
        let sign = |bucket: &rusty_s3::Bucket, credentials: &_| {
            let action = bucket.upload_part(Some(credentials), &self.record.key, number, &self.id);
            Signed::of(action, vec![("content-md5", STANDARD.encode(md5))])
        };
        let answer = self.objects.requests.call(WHAT, sign, Payload::Range { file, offset, len })?;
        let etag = answer.header("etag").ok_or_else(|| senseless(WHAT, "it has no ETag"))?;
        let sent = SentPart::new(len, etag);
        if sent.is_of(md5) {
            return Ok(sent);
        }
        // Tags of another kind, or an answer that came wrong: the space of the part is given back on its word.
        let listed = self.objects.parts_after(&self.record.key, &self.id, number.checked_sub(1), u64::from(number))?;
        match listed.and_then(|listed| listed.get(&u64::from(number)).cloned()) {
            Some(listed) if listed.size == len && (listed == sent || listed.is_of(md5)) => Ok(listed),
            _ => Err(senseless(WHAT, "it has another ETag than the list of parts")),
        }
    }

    /// The size of its parts.
    pub fn sizes(&self) -> PartSizes {
        PartSizes { part: self.record.part_size }
    }

    /// Most parts that are sent at once.
    pub fn at_once(&self) -> u64 {
        self.objects.settings.parts_at_once
    }

    /// Makes all `parts`, in order, the object: `size` bytes with these facts. An object that is there is
    /// replaced if `replace`.
    ///
    /// # Errors
    /// The store does not answer, or refuses: with status 404 where the multipart upload is gone, which a completion
    /// whose answer was lost leaves too; with 412 where an object is there that is not to be replaced, and the store can
    /// tell.
    pub fn complete(&self, parts: &[SentPart], size: u64, facts: &Facts, replace: bool) -> Result<(), ObjectError> {
        let content = Some(FactsJson::of(facts, size));
        self.objects.write_note(&self.record.note, &Note { name: self.name.as_str().to_owned(), content })?;
        let headers = if replace { vec![] } else { vec![("if-none-match", "*".to_owned())] };
        let body = body_of(parts);
        let sign = |bucket: &rusty_s3::Bucket, credentials: &rusty_s3::Credentials| {
            let etags = parts.iter().map(|part| part.etag.as_str());
            let action = CompleteMultipartUpload::new(bucket, Some(credentials), &self.record.key, &self.id, etags);
            Signed::of(action, headers.clone())
        };
        self.objects.requests.call(COMPLETING, sign, Payload::Bytes(body.as_bytes())).map(drop)
    }
}

/// The body that names the parts. Tags are quoted strings of letters and digits.
fn body_of(parts: &[SentPart]) -> String {
    let escaped = |etag: &str| etag.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let parts = parts.iter().zip(1..).map(|(SentPart { etag, .. }, number)| {
        format!("<Part><PartNumber>{number}</PartNumber><ETag>\"{}\"</ETag></Part>", escaped(etag))
    });
    let namespace = "xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"";
    format!("<CompleteMultipartUpload {namespace}>{}</CompleteMultipartUpload>", parts.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uploads_are_read_from_a_list() {
        let text = "<?xml version=\"1.0\"?>\n<ListMultipartUploadsResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\
            <Bucket>b</Bucket><KeyMarker/><IsTruncated>false</IsTruncated><Upload><Key>a/x</Key><UploadId>id1</UploadId>\
            <Initiated>2026-11-29T10:00:00.000Z</Initiated></Upload></ListMultipartUploadsResult>";
        let found: UploadsXml = instant_xml::from_str(text).unwrap();
        assert_eq!((&*found.uploads[0].key, &*found.uploads[0].id), ("a/x", "id1"));
        assert!(age(listed_time(&found.uploads[0].initiated)) < Duration::from_secs(u64::MAX / 2));
    }

    #[test]
    fn the_body_of_a_completion_names_all_parts() {
        let body = body_of(&[SentPart::new(1, "\"a\""), SentPart::new(1, "b<")]);
        assert!(body.contains("<Part><PartNumber>1</PartNumber><ETag>\"a\"</ETag></Part><Part><PartNumber>2</PartNumber><ETag>\"b&lt;\"</ETag>"));
    }
}
