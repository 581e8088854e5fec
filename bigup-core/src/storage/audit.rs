//! The audit log: a line for each upload that ended, for each that was refused, and for each finished file that a client
//! removed. It names the client, the file and its digest.
//!
//! A line is `KIND NAME: key=value …`, at level info, with the target `audit`. The journal has the same keys as fields.
//!
//! | key | journal | |
//! | --- | --- | --- |
//! | `file_size` | `FILE_SIZE` | bytes of the file |
//! | `file_digest` | `FILE_DIGEST` | BLAKE3 of the file |
//! | `token` | `TOKEN` | name of the token by which the upload was begun or taken over |
//! | `certificate` | `CERTIFICATE` | name in the client certificate that was shown then |
//! | `peer` | `PEER` | address from which it was begun or taken over; behind a trusted proxy that of the client |
//! | `seconds` | `SECONDS` | time from its begin to its end |
//! | `reason` | `REASON` | why it was refused |
//!
//! Of a removed file, `token`, `certificate` and `peer` are those of the client that removed it. A key is left out where its value is not known. The fields `FILE_NAME` and `AUDIT` have the name and the kind.
//!
//! The line of a finished file is written after its publication is durable, and before its spool is removed. After a
//! kill in between, the process that cleans up writes it again. So the line is never lost, and can appear twice.

use crate::protocol::digest::Digest;
use crate::protocol::name::FileName;
use crate::storage::spool::UploadRecord;
use log::{Level, Record};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

/// Target of the lines, for a filter like `BIGUP_LOG=info,audit=off`.
pub const TARGET: &str = "audit";

/// The end of an upload, or of a finished file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AuditEvent {
    /// A new file is finished.
    Finished,
    /// A finished file was replaced.
    Replaced,
    /// An operator removed the upload.
    Cancelled,
    /// It was removed since nothing came for long.
    Expired,
    /// It was not let begin.
    Refused,
    /// A client removed the finished file.
    Deleted,
}

impl AuditEvent {
    fn as_str(self) -> &'static str {
        match self {
            AuditEvent::Finished => "finished",
            AuditEvent::Replaced => "replaced",
            AuditEvent::Cancelled => "cancelled",
            AuditEvent::Expired => "expired",
            AuditEvent::Refused => "refused",
            AuditEvent::Deleted => "deleted",
        }
    }
}

/// A line of the audit log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditLine {
    kind: AuditEvent,
    name: String,
    fields: Vec<(String, String)>,
}

impl AuditLine {
    /// A line that tells of nothing but the name.
    pub fn new(kind: AuditEvent, name: &FileName) -> AuditLine {
        AuditLine { kind, name: name.as_str().to_owned(), fields: vec![] }
    }

    /// The line about the end of `upload`, now; with the digest of the file where it is known.
    pub fn of(kind: AuditEvent, upload: &UploadRecord, digest: Option<Digest>) -> AuditLine {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
        AuditLine::new(kind, &upload.file_name)
            .with("file_size", upload.plan.file_size)
            .with("file_digest", digest)
            .with("token", upload.token.as_ref())
            .with("certificate", upload.certificate.as_ref())
            .with("peer", upload.peer.as_ref())
            .with("seconds", now.checked_sub(upload.begun))
    }

    /// The same with one more key. `None` if its value is not known.
    pub fn with(mut self, key: &str, value: Option<impl fmt::Display>) -> AuditLine {
        self.fields.extend(value.map(|value| (key.to_owned(), value.to_string())));
        self
    }

    /// Writes the line.
    pub fn log(&self) {
        let mut pairs = vec![("audit", self.kind.as_str()), ("file_name", self.name.as_str())];
        pairs.extend(self.fields.iter().map(|(key, value)| (key.as_str(), value.as_str())));
        let mut record = Record::builder();
        record.level(Level::Info).target(TARGET).key_values(&pairs);
        log::logger().log(&record.args(format_args!("{self}")).build());
    }
}

impl fmt::Display for AuditLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}:", self.kind.as_str(), as_one_word(&self.name))?;
        self.fields.iter().try_for_each(|(key, value)| write!(f, " {key}={}", as_one_word(value)))
    }
}

/// In quotes where it has spaces, quotes or the like, so that it ends where it seems to.
fn as_one_word(value: &str) -> Cow<'_, str> {
    let is_plain = !value.is_empty() && value.chars().all(|c| c.is_alphanumeric() || "-_./@:".contains(c));
    if is_plain { value.into() } else { format!("{value:?}").into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::plan::Plan;

    #[test]
    fn a_line_has_what_is_known_and_nothing_can_fake_a_key() {
        let line = AuditLine::new(AuditEvent::Replaced, &FileName::new("a/b size=2").unwrap())
            .with("file_size", Some(7))
            .with("file_digest", None::<Digest>)
            .with("certificate", Some("x size=1"))
            .with("peer", Some("2001:db8::1"));
        let text = r#"replaced "a/b size=2": file_size=7 certificate="x size=1" peer=2001:db8::1"#;
        assert_eq!(line.to_string(), text);
        let read: AuditLine = serde_json::from_str(&serde_json::to_string(&line).unwrap()).unwrap();
        assert_eq!(read, line);
    }

    #[test]
    fn an_upload_tells_who_began_it() {
        let plan = Plan::new(None, Some(10), Some(25)).unwrap();
        let upload = UploadRecord {
            token: Some("alice".to_owned()),
            peer: Some("192.0.2.1".to_owned()),
            ..UploadRecord::begin(FileName::new("f").unwrap(), plan, None)
        };
        let text = AuditLine::of(AuditEvent::Finished, &upload, Some(Digest([1; 32]))).to_string();
        assert!(text.starts_with("finished f: file_size=25 file_digest=0101"), "{text}");
        assert!(text.contains(" token=alice peer=192.0.2.1 seconds="), "{text}");
        // A damaged record can tell any time.
        let later = UploadRecord { begun: u64::MAX, ..upload };
        assert!(AuditLine::of(AuditEvent::Finished, &later, None).to_string().ends_with("peer=192.0.2.1"));
    }
}
