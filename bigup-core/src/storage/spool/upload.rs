//! `upload.json`: the record of an upload. It is replaced by rename only, under the spool's lock.

use super::concat::{Concat, ConcatJson, Placement};
use crate::protocol::digest::{self, Digest};
use crate::protocol::kept::Kept;
use crate::protocol::name::FileName;
use crate::protocol::parts::{PartSizes, goes_in_parts};
use crate::protocol::plan::Plan;
use crate::protocol::sha256::Sha256;
use crate::storage::space::Ahead;
use serde::{Deserialize, Serialize};
use std::time::{SystemTime, UNIX_EPOCH};

/// Format of `upload.json` that this version writes and reads.
const VERSION: u32 = 1;

/// The same of an upload that gives parts back: a program that does not know of it would take holes for content.
const VERSION_WITH_HOLES: u32 = 2;

/// True if this version reads an `upload.json` of `version`.
fn is_known(version: u64, gives_back: bool) -> bool {
    version == u64::from(VERSION) || gives_back && version == u64::from(VERSION_WITH_HOLES)
}

/// Parts for which space is reserved behind the end of the merged file of an upload that gives parts back: one that is
/// being merged, and one while the store takes the part before it.
const PARTS_AHEAD: u64 = 2;

/// An upload that another version of the program made, and that is left as it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the upload in tmp/{folder} was made by another version of bigup: its upload.json is of version {is}, this program \
     reads version {VERSION}"
)]
pub struct OtherVersion {
    pub(super) folder: String,
    pub(super) is: u64,
}

impl OtherVersion {
    /// The other version that an error from reading a spool is about. `None` if it is about something else.
    pub fn of(error: &std::io::Error) -> Option<&OtherVersion> {
        error.get_ref()?.downcast_ref()
    }
}

/// The record of an upload: enough, with the slices and digests beside it, to rebuild its section of info.ini.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UploadRecord {
    /// Name under which the file will be published.
    pub file_name: FileName,
    /// The plan by which it is cut, as far as known.
    pub plan: Plan,
    /// The source of these bytes, which is the only one that may write. `None` for clients that name no source.
    pub source: Option<String>,
    /// The sender if no source is named: an address, and the name of a token. `None` if a source is named, or if the
    /// sender is not known.
    pub client: Option<String>,
    /// Name of the token by which it was begun, or taken over. `None` if there was no token.
    pub token: Option<String>,
    /// Name in the client certificate that was shown then. `None` if no certificate was shown.
    pub certificate: Option<String>,
    /// Address from which it was begun, or taken over. `None` if it is not known.
    pub peer: Option<String>,
    /// True if a finished file of this name is replaced at publication.
    pub replace: bool,
    /// The content of the held slices, as far as known.
    pub content: HeldContent,
    /// The SHA-256 of the whole file, which protocols of others know. `None`: it is of no interest.
    pub sha256: Option<FileSha256>,
    /// The facts of the client's file that the finished file is to have.
    pub kept: Kept,
    /// Anything that the client told of the file, in the form of its protocol. `None` if it told nothing.
    pub metadata: Option<String>,
    /// True if the file is not to be published before its client says that it is whole, also where all bytes are held.
    pub awaits_end: bool,
    /// Its role in a concatenation. `None`: it has none.
    pub concat: Option<Concat>,
    /// Time when it was begun, in seconds since 1970.
    pub begun: u64,
    /// The reason the file cannot be published as things stand. No merger is started until a client begins anew.
    pub blocked: Option<String>,
    /// The reason the last merger failed.
    pub last_error: Option<String>,
    /// True if an operator let it rest: no slice of it is taken, held slices are merged, and it does not expire.
    pub paused: bool,
    /// True if slices were lost that clients were told to be held. Slices are refused until the client has asked which are
    /// held.
    pub asks_again: bool,
    /// True if it began where finished files go to a store of objects, and files can have holes. See
    /// [`UploadRecord::gives_parts_back`].
    pub gives_back: bool,
}

/// The content of an upload's held slices: whose it is, and the digest that proves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeldContent {
    /// All held slices are the present source's. The digest is that of the whole file, if the client gave it.
    Own(Option<Digest>),
    /// Another source began the upload. Its slices are of unknown content until the present source has compared them.
    /// They may be replaced, their digests prove nothing, and nothing is published.
    ToCompare,
    /// The present source has compared the slices of the former one, and gave this digest of the whole file. It alone
    /// proves the content: publication reads the whole file.
    Compared(Digest),
}

/// The reason why the SHA-256 of a whole file is computed; it is stored with the finished file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileSha256 {
    /// The client wants to know it.
    Wanted,
    /// The client promised this one: a file that has another is not published.
    Promised(Sha256),
}

impl FileSha256 {
    /// Its text on disk, where it is only wanted.
    const WANTED: &str = "wanted";

    fn to_text(self) -> String {
        match self {
            FileSha256::Wanted => FileSha256::WANTED.to_owned(),
            FileSha256::Promised(promised) => promised.to_string(),
        }
    }

    fn read(text: &str) -> Result<FileSha256, String> {
        if text == FileSha256::WANTED { Ok(FileSha256::Wanted) } else { text.parse().map(FileSha256::Promised) }
    }
}

impl HeldContent {
    /// Content of an upload by its two values on disk.
    fn new(taken_over: bool, file_digest: Option<Digest>) -> HeldContent {
        if taken_over { HeldContent::ToCompare.promised(file_digest) } else { HeldContent::Own(file_digest) }
    }

    /// The content once the present source has given the digest of the whole file. `None`: it gave none, and an earlier
    /// one counts.
    pub fn promised(self, file_digest: Option<Digest>) -> HeldContent {
        match (self, file_digest) {
            (HeldContent::Own(_), Some(_)) => HeldContent::Own(file_digest),
            (HeldContent::ToCompare | HeldContent::Compared(_), Some(file_digest)) => {
                HeldContent::Compared(file_digest)
            }
            (known, None) => known,
        }
    }
}

/// The form on disk.
#[derive(Serialize, Deserialize)]
struct UploadJson {
    version: u32,
    file_name: String,
    #[serde(flatten)]
    plan: Plan,
    source: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    client: Option<String>,
    #[serde(default)]
    token: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    certificate: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    peer: Option<String>,
    replace: bool,
    taken_over: bool,
    file_digest: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sha256: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    modified: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mode: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    metadata: Option<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    awaits_end: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    concat: Option<ConcatJson>,
    begun: u64,
    blocked: Option<String>,
    last_error: Option<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    paused: bool,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    asks_again: bool,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    gives_back: bool,
}

impl UploadRecord {
    /// A new upload, begun now.
    pub fn begin(file_name: FileName, plan: Plan, source: Option<String>) -> UploadRecord {
        let begun = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |t| t.as_secs());
        UploadRecord {
            file_name,
            plan,
            source,
            client: None,
            token: None,
            certificate: None,
            peer: None,
            replace: false,
            content: HeldContent::Own(None),
            sha256: None,
            kept: Kept::default(),
            metadata: None,
            awaits_end: false,
            concat: None,
            begun,
            blocked: None,
            last_error: None,
            paused: false,
            asks_again: false,
            gives_back: false,
        }
    }

    /// True if another source began this upload: held slices may be its own, and their digests prove nothing.
    pub fn is_taken_over(&self) -> bool {
        !matches!(self.content, HeldContent::Own(_))
    }

    /// True if held slices may be of other content than the present source's.
    pub fn needs_comparison(&self) -> bool {
        self.content == HeldContent::ToCompare
    }

    /// Digest that the whole file must have. `None` if no client gave it.
    pub fn file_digest(&self) -> Option<Digest> {
        match self.content {
            HeldContent::Own(file_digest) => file_digest,
            HeldContent::ToCompare => None,
            HeldContent::Compared(file_digest) => Some(file_digest),
        }
    }

    /// True if all that publication needs from clients, slices apart, is there.
    pub fn may_be_published(&self) -> bool {
        let is_ready = self.plan.slice_num.is_some() && !self.needs_comparison() && !self.awaits_end;
        is_ready && !self.is_partial() && self.blocked.is_none()
    }

    /// True if the space of its parts may be given back as soon as the store of objects has them. Publication must need no
    /// byte of them then: the digests of its slices join to that of the file, nobody wants another digest, and no other
    /// source compares them.
    pub fn gives_parts_back(&self) -> bool {
        let joins = self.plan.slice_size.is_some_and(digest::is_subtree_size);
        let is_several = joins && self.goes_in_parts() && self.plan.slice_num.is_some_and(|num| num > 1);
        self.gives_back && is_several && self.sha256.is_none() && self.concat.is_none() && !self.is_taken_over()
    }

    /// True if its object is to be made of parts, as far as its size is known.
    pub fn goes_in_parts(&self) -> bool {
        self.plan.file_size.is_some_and(|size| goes_in_parts(size, self.plan.slice_num))
    }

    /// Bytes of each part but the last of its object.
    pub fn part_size(&self) -> u64 {
        PartSizes::of(self.plan.file_size, self.plan.slice_size).part
    }

    /// The bytes that are reserved in its merged file.
    pub fn ahead(&self) -> Ahead {
        let window = self.part_size().saturating_mul(PARTS_AHEAD);
        Ahead::of(&self.plan, self.gives_parts_back().then_some(window))
    }

    /// The same if it goes on by `plan`.
    pub fn ahead_by(&self, plan: &Plan) -> Ahead {
        UploadRecord { plan: plan.clone(), ..self.clone() }.ahead()
    }

    /// True if it is a partial upload: its bytes become a part of another one's file.
    pub fn is_partial(&self) -> bool {
        matches!(self.concat, Some(Concat::Partial(_)))
    }

    /// Its place in a final upload. `None` if it is no partial upload, or its place is not known yet.
    pub fn placement(&self) -> Option<&Placement> {
        match &self.concat {
            Some(Concat::Partial(place)) => place.as_ref(),
            _ => None,
        }
    }

    /// The reason the upload gets no further: it is blocked, or its last merger failed.
    pub fn problem(&self) -> Option<&str> {
        self.blocked.as_deref().or(self.last_error.as_deref())
    }

    /// The content of `upload.json`.
    pub fn to_json(&self) -> Vec<u8> {
        let stored = UploadJson {
            version: if self.gives_back { VERSION_WITH_HOLES } else { VERSION },
            file_name: self.file_name.as_str().to_owned(),
            plan: self.plan.clone(),
            source: self.source.clone(),
            client: self.client.clone(),
            token: self.token.clone(),
            certificate: self.certificate.clone(),
            peer: self.peer.clone(),
            replace: self.replace,
            taken_over: self.is_taken_over(),
            file_digest: self.file_digest().map(|d| d.to_string()),
            sha256: self.sha256.map(FileSha256::to_text),
            modified: self.kept.modified.map(|modified| modified.to_string()),
            mode: self.kept.mode.map(|mode| mode.to_string()),
            metadata: self.metadata.clone(),
            awaits_end: self.awaits_end,
            concat: self.concat.as_ref().map(ConcatJson::new),
            begun: self.begun,
            blocked: self.blocked.clone(),
            last_error: self.last_error.clone(),
            paused: self.paused,
            asks_again: self.asks_again,
            gives_back: self.gives_back,
        };
        let mut bytes = serde_json::to_vec_pretty(&stored).expect("strings and numbers always serialise");
        bytes.push(b'\n');
        bytes
    }

    /// The version that the content of an `upload.json` says it is of, if this program reads another one.
    pub(super) fn other_version(bytes: &[u8]) -> Option<u64> {
        #[derive(Deserialize)]
        struct Versioned {
            version: u64,
            #[serde(default)]
            gives_back: bool,
        }
        let found: Versioned = serde_json::from_slice(bytes).ok()?;
        Some(found.version).filter(|version| !is_known(*version, found.gives_back))
    }

    /// Reads the content of `upload.json`.
    ///
    /// # Errors
    /// The message says what is wrong with it.
    pub fn from_json(bytes: &[u8]) -> Result<UploadRecord, String> {
        let stored: UploadJson = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
        if !is_known(u64::from(stored.version), stored.gives_back) {
            return Err(format!("version {}; this program reads version {VERSION}", stored.version));
        }
        // The plan that was read may contradict itself; binding it to nothing known checks it.
        let plan = Plan::default().bind(&stored.plan).map_err(|e| e.to_string())?;
        Ok(UploadRecord {
            file_name: FileName::new(&stored.file_name).map_err(|e| e.to_string())?,
            plan,
            source: stored.source,
            client: stored.client,
            token: stored.token,
            certificate: stored.certificate,
            peer: stored.peer,
            replace: stored.replace,
            content: HeldContent::new(stored.taken_over, stored.file_digest.map(|text| text.parse()).transpose()?),
            sha256: stored.sha256.as_deref().map(FileSha256::read).transpose()?,
            kept: Kept {
                modified: stored.modified.map(|text| text.parse()).transpose()?,
                mode: stored.mode.map(|text| text.parse()).transpose()?,
            },
            metadata: stored.metadata,
            awaits_end: stored.awaits_end,
            concat: stored.concat.map(ConcatJson::read).transpose()?,
            begun: stored.begun,
            blocked: stored.blocked,
            last_error: stored.last_error,
            paused: stored.paused,
            asks_again: stored.asks_again,
            gives_back: stored.gives_back,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::kept::{FileMode, FileTime};

    fn upload() -> UploadRecord {
        let plan = Plan::new(None, Some(10), Some(25)).unwrap();
        UploadRecord::begin(FileName::new("a/ü \"x\".bin").unwrap(), plan, Some("s".to_owned()))
    }

    #[test]
    fn what_is_written_is_read() {
        let token = Some("t".to_owned());
        let upload = UploadRecord { content: HeldContent::Compared(Digest([7; 32])), token, paused: true, ..upload() };
        assert_eq!(UploadRecord::from_json(&upload.to_json()), Ok(upload.clone()));
        for sha256 in [FileSha256::Wanted, FileSha256::Promised(Sha256([0xa5; 32]))] {
            let upload = UploadRecord { sha256: Some(sha256), ..upload.clone() };
            assert_eq!(UploadRecord::from_json(&upload.to_json()), Ok(upload));
        }
        let kept = Kept { modified: FileTime::new(-1), mode: Some(FileMode::of(0o751)) };
        let keeping = UploadRecord { kept, ..upload.clone() };
        assert_eq!(UploadRecord::from_json(&keeping.to_json()), Ok(keeping));
        let open = UploadRecord::begin(FileName::new("x").unwrap(), Plan::new(Some(3), None, None).unwrap(), None);
        let client = Some("10.0.0.1 t".to_owned());
        for concat in [
            Concat::Partial(None),
            Concat::Partial(Some(Placement {
                file_name: FileName::new("ä/\"").unwrap(),
                source: "s".to_owned(),
                first_slice: 7,
            })),
            Concat::Final("final;/files/x".to_owned()),
        ] {
            let upload = UploadRecord { concat: Some(concat), ..open.clone() };
            assert_eq!(UploadRecord::from_json(&upload.to_json()), Ok(upload));
        }
        let learned = UploadRecord { plan: open.plan.learn(2, 4).unwrap(), client, ..open };
        assert_eq!(UploadRecord::from_json(&learned.to_json()), Ok(learned));
    }

    #[test]
    fn an_upload_from_before_there_were_tokens_is_read() {
        let text = String::from_utf8(upload().to_json()).unwrap();
        let old = text.replace("  \"token\": null,\n", "");
        assert!(old.len() < text.len());
        assert_eq!(UploadRecord::from_json(old.as_bytes()), Ok(upload()));
    }

    /// The two values on disk, as all versions write and read them.
    #[test]
    fn the_content_of_held_slices_is_two_values_on_disk() {
        let (first, second) = (Digest([7; 32]), Digest([8; 32]));
        let quoted = format!("\"{first}\"");
        for (content, taken_over, file_digest) in [
            (HeldContent::Own(None), "false", "null"),
            (HeldContent::Own(Some(first)), "false", &quoted),
            (HeldContent::ToCompare, "true", "null"),
            (HeldContent::Compared(first), "true", &quoted),
        ] {
            let old = format!(
                "{{\n  \"version\": 1,\n  \"file_name\": \"x\",\n  \"slice_num\": 3,\n  \"slice_size\": 10,\n  \
                 \"file_size\": 25,\n  \"source\": \"s\",\n  \"token\": null,\n  \"replace\": false,\n  \
                 \"taken_over\": {taken_over},\n  \"file_digest\": {file_digest},\n  \"begun\": 7,\n  \
                 \"blocked\": null,\n  \"last_error\": null\n}}\n"
            );
            let upload = UploadRecord { file_name: FileName::new("x").unwrap(), begun: 7, content, ..upload() };
            assert_eq!(UploadRecord::from_json(old.as_bytes()), Ok(upload.clone()));
            assert_eq!(String::from_utf8(upload.to_json()).unwrap(), old);
            assert_eq!(
                (upload.is_taken_over(), upload.needs_comparison()),
                (taken_over == "true", content == HeldContent::ToCompare)
            );
            assert_eq!(upload.content.promised(None), content, "an earlier promise counts");
            let anew = UploadRecord { content: upload.content.promised(Some(second)), ..upload };
            assert_eq!((anew.file_digest(), anew.is_taken_over()), (Some(second), taken_over == "true"));
            assert!(!anew.needs_comparison());
        }
    }

    #[test]
    fn an_upload_that_is_not_paused_says_nothing_of_it_as_before_uploads_could_be() {
        let text = String::from_utf8(upload().to_json()).unwrap();
        assert!(!text.contains("paused"), "{text}");
        assert!(!UploadRecord::from_json(text.as_bytes()).unwrap().paused);
    }

    #[test]
    fn another_version_is_told_from_what_cannot_be_read() {
        let text = String::from_utf8(upload().to_json()).unwrap();
        let newer = text.replace("\"version\": 1", "\"version\": 2").replace("slice_size", "cut");
        for (text, version) in [(&newer[..], Some(2)), (&text, None), ("{}", None), ("", None), (&newer[1..], None)] {
            assert_eq!(UploadRecord::other_version(text.as_bytes()), version, "{text}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let text = String::from_utf8(upload().to_json()).unwrap();
        for (from, to) in [("\"version\": 1", "\"version\": 2"), ("a/ü", "../ü"), (": 25", ": 500"), ("{", "")] {
            assert!(text.contains(from));
            assert!(UploadRecord::from_json(text.replacen(from, to, 1).as_bytes()).is_err(), "{from}");
        }
        assert!(UploadRecord::from_json(b"").is_err());
    }
}
