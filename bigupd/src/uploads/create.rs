//! Uploads that have an address of their own: each is begun by a request that the server answers with a secret, by which
//! the client names it from then on.
//!
//! Such an upload is one like any other, whose source is made of the secret. So there is one unfinished upload of a
//! name, whatever it came by, and rights, limits and hooks are those of all uploads.

use super::begin::note_refused;
use super::refusals::no_such_upload;
use super::{NameState, Uploads};
use crate::admission::access::Access;
use crate::admission::tokens::Permission;
use crate::metrics::UploadProtocol;
use crate::refusal::{Advice, Refusal, within_request};
use crate::uploads::request::BeginRequest;
use bigup_core::protocol::digest::is_subtree_size;
use bigup_core::protocol::kept::Kept;
use bigup_core::protocol::name::FileName;
use bigup_core::protocol::native::ErrorCode;
use bigup_core::protocol::plan::Plan;
use bigup_core::protocol::sha256::{RunningSha256, Sha256};
use bigup_core::protocol::units::MIB;
use bigup_core::storage::spool::{Concat, FileSha256, Spool, UploadId};
use bigup_core::storage::store::{Entry, FinishedFile, Store};
use std::net::IpAddr;
use std::str::FromStr;

/// Bytes of a slice that bodies are cut into, unless the file has too many of them.
const SLICE_SIZE: u64 = 8 * MIB;

/// Most names that are tried for a file whose name is taken.
const MOST_NUMBERS: u64 = 10_000;

/// Longest part of a name behind its last dot that is kept behind the number, in bytes.
const MAX_EXTENSION: usize = 20;

/// Longest component of a name, in bytes, with some to spare for a number.
const MAX_COMPONENT: usize = 240;

/// The treatment of a file whose name is taken, where its protocol cannot say more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExistingFiles {
    /// The upload is refused.
    Reject,
    /// It replaces the finished file. Needs the right to.
    Replace,
    /// The new file gets a number: `a (2).bin`.
    Number,
}

impl FromStr for ExistingFiles {
    type Err = String;

    fn from_str(text: &str) -> Result<ExistingFiles, String> {
        match text {
            "reject" => Ok(ExistingFiles::Reject),
            "replace" => Ok(ExistingFiles::Replace),
            "number" => Ok(ExistingFiles::Number),
            _ => Err(format!("{text:?} is not reject, replace or number")),
        }
    }
}

/// The secret in the address of an upload: 128 bits that nobody can guess, as 32 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UploadKey(String);

impl UploadKey {
    /// A new one.
    ///
    /// # Errors
    /// The system gives no random bytes.
    pub fn random() -> Result<UploadKey, Refusal> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).map_err(|e| Refusal::from(std::io::Error::other(e)))?;
        Ok(UploadKey(bytes.iter().map(|byte| format!("{byte:02x}")).collect()))
    }

    /// The key of the final upload of partial ones with these keys: another one for each sequence of them.
    pub fn of_partials<'a>(keys: impl Iterator<Item = &'a UploadKey>) -> UploadKey {
        let mut hasher = blake3::Hasher::new();
        for key in keys {
            hasher.update(key.0.as_bytes());
        }
        UploadKey(hasher.finalize().to_hex()[..32].to_owned())
    }

    /// The key in an address. `None` if it is none.
    pub fn parse(text: &str) -> Option<UploadKey> {
        let is_key = text.len() == 32 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        is_key.then(|| UploadKey(text.to_owned()))
    }

    /// The digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The source of its upload, which does not tell the key.
    pub fn source(&self) -> String {
        format!("url:{}", &blake3::hash(self.0.as_bytes()).to_hex()[..32])
    }
}

/// The name of a file that is uploaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WantedName {
    /// A name like this, below the folder of the asker. `None`: any name.
    Like(Option<String>),
    /// This name and no other. `replace`: it may be that of a finished file, which is replaced then.
    Exactly {
        /// The name.
        name: FileName,
        /// A finished file of that name is replaced.
        replace: bool,
    },
}

/// Refuses a promise that no empty file keeps: such a file has no bytes to come, after which it would be compared.
fn check_empty(promised: Sha256) -> Result<(), Refusal> {
    let empty = RunningSha256::default().finish();
    if promised == empty {
        return Ok(());
    }
    let facts = format!("the file is empty, and has the SHA-256 {empty}, not {promised} as promised");
    Err(Refusal::new(ErrorCode::Damaged, facts).advising(Advice::UploadAgain))
}

/// An upload to be created.
#[derive(Clone, Debug)]
pub struct CreateRequest {
    /// The asker.
    pub by: Access,
    /// The name that the client would like.
    pub name: WantedName,
    /// The protocol of the request.
    pub protocol: UploadProtocol,
    /// Bytes of the file. `None` if they are told later.
    pub file_size: Option<u64>,
    /// Anything that the client tells of the file, in the form of its protocol.
    pub metadata: Option<String>,
    /// The SHA-256 of the whole file. `None`: it is of no interest.
    pub sha256: Option<FileSha256>,
    /// The file is not to be published before its client says that it is whole.
    pub awaits_end: bool,
    /// It is a partial upload, whose bytes become a part of another one's file.
    pub is_partial: bool,
    /// The address the request came from. `None` if it is not known.
    pub peer: Option<IpAddr>,
    /// Name in the client certificate that was shown. `None` if no certificate was shown.
    pub certificate: Option<String>,
}

/// An upload that was created.
#[derive(Clone, Debug)]
pub struct Created {
    /// Its secret.
    pub key: UploadKey,
    /// Name of the file.
    pub name: FileName,
    /// True if it is finished already: the file is empty.
    pub is_finished: bool,
}

impl Uploads {
    /// Creates an upload under the wanted name, or another one where that is taken and the settings say so.
    ///
    /// # Errors
    /// Refused; nothing changed then.
    pub fn create(&self, ask: &CreateRequest) -> Result<Created, Refusal> {
        if let (Some(0), Some(FileSha256::Promised(promised))) = (ask.file_size, ask.sha256) {
            check_empty(promised)?;
        }
        let plan = Plan::new(None, Some(self.slice_size_for(ask.file_size)), ask.file_size).map_err(within_request)?;
        self.create_upload(ask, UploadKey::random()?, Some(&plan), ask.is_partial.then_some(Concat::Partial(None)))
    }

    /// The same with this key, plan and role in a concatenation. A final upload that is there already, or is finished,
    /// is returned. `plan` is `None` if there must be one.
    pub(super) fn create_upload(
        &self,
        ask: &CreateRequest,
        key: UploadKey,
        plan: Option<&Plan>,
        concat: Option<Concat>,
    ) -> Result<Created, Refusal> {
        let (wanted, policy) = match &ask.name {
            WantedName::Like(name) => (name_below(ask.by.prefix(), name.as_deref())?, self.settings.existing_files),
            WantedName::Exactly { name, replace: true } => (name.clone(), ExistingFiles::Replace),
            WantedName::Exactly { name, replace: false } => (name.clone(), ExistingFiles::Reject),
        };
        ask.by.check(&[Permission::Push], Some(&wanted))?;
        if policy == ExistingFiles::Replace {
            ask.by.check(&[Permission::Replace], Some(&wanted))?;
        }
        for number in 1..=MOST_NUMBERS {
            let name = numbered(&wanted, number)?;
            let begin = BeginRequest {
                by: ask.by.clone(),
                id: UploadId::of_name(&name),
                name: name.clone(),
                protocol: ask.protocol,
                plan: plan.cloned().unwrap_or_default(),
                source: Some(key.source()),
                file_digest: None,
                replace: policy == ExistingFiles::Replace,
                recut: false,
                discard: false,
                by_size: false,
                kept: Kept::default(),
                metadata: ask.metadata.clone(),
                sha256: ask.sha256,
                awaits_end: ask.awaits_end,
                concat: concat.clone(),
                peer: ask.peer,
                certificate: ask.certificate.clone(),
            };
            match self.create_as(&begin, plan.is_some()) {
                Err(Taken::Name(_)) if policy == ExistingFiles::Number => {}
                Err(Taken::Name(refusal)) => {
                    note_refused(&begin, &refusal);
                    return Err(refusal);
                }
                Err(Taken::Refused(refusal)) => return Err(refusal),
                Ok(is_finished) => return Ok(Created { key, name, is_finished }),
            }
        }
        let facts = format!("{wanted} and the names with a number up to {MOST_NUMBERS} are taken: use another name");
        Err(Refusal::new(ErrorCode::Exists, facts))
    }

    /// Begins this upload. True if it is finished already.
    fn create_as(&self, begin: &BeginRequest, may_begin: bool) -> Result<bool, Taken> {
        let name = &begin.name;
        if let Some(is_finished) = self.is_known_final(begin)? {
            return Ok(is_finished);
        }
        let taken = |how: &str| Taken::Name(Refusal::new(ErrorCode::Exists, format!("{name} {how}: use another name")));
        if self.has_spool(&begin.id) && !self.holds_nothing(&begin.id)? {
            return Err(taken("is being uploaded by somebody else"));
        }
        let found = Store::new(&self.data).lookup(name).map_err(Refusal::from)?;
        if found != Entry::Nothing && !(begin.replace && matches!(found, Entry::File(_))) {
            return Err(taken("exists"));
        }
        if !may_begin {
            return Err(Taken::Refused(no_such_upload()));
        }
        match self.begin(begin)? {
            NameState::Finished { same_source: true, .. } => Ok(true),
            NameState::Finished { .. } => Err(taken("exists")),
            NameState::Unfinished(unfinished) if unfinished.upload.source != begin.source => {
                Err(taken("is being uploaded by somebody else"))
            }
            // Another upload was finished under the name while this one began. It could never be.
            NameState::Unfinished(_) if !begin.replace && self.lookup(name)? != Entry::Nothing => {
                self.end(&begin.id, begin.source.as_deref().unwrap_or_default())?;
                Err(taken("exists"))
            }
            NameState::Unfinished(_) => {
                // Its address is told, so that its file is not published in the same breath.
                Spool::of(&self.data, &begin.id).sync_record().map_err(Refusal::from)?;
                Ok(false)
            }
        }
    }

    /// True if this final upload is finished, `false` if it has begun. `None`: there is none, or this is no final one.
    fn is_known_final(&self, begin: &BeginRequest) -> Result<Option<bool>, Refusal> {
        if !begin.concat.as_ref().is_some_and(Concat::is_final) {
            return Ok(None);
        }
        let source = begin.source.as_deref().unwrap_or_default();
        if self.lock_of(&Spool::of(&self.data, &begin.id), source)?.is_some() {
            return Ok(Some(false));
        }
        // A finished file is not read for this: it may be large, and somebody else's.
        let is_finished = Spool::of(&self.data, &begin.id).finished(source)?.is_some()
            || matches!(self.lookup(&begin.name)?, Entry::File(FinishedFile { stored_digest: Some(stored), .. })
                if stored.source.as_deref() == Some(source));
        Ok(is_finished.then_some(true))
    }

    /// True if nothing of the upload is held, like one whose client never heard of its address. It can be taken over.
    /// One that cannot be read is moved away.
    fn holds_nothing(&self, id: &UploadId) -> Result<bool, Refusal> {
        let Some(locked) = self.lock_to_begin(&Spool::of(&self.data, id))? else { return Ok(true) };
        Ok(locked.holdings()?.ranges().count() == 0 && locked.held_run()?.offset == 0)
    }

    /// Bytes of the slices that a file of `file_size` bytes is cut into on arrival. `None`: any size that is permitted.
    fn slice_size_for(&self, file_size: Option<u64>) -> u64 {
        let limits = &self.settings;
        let least = file_size.unwrap_or(limits.file_size).div_ceil(limits.slices.max(1)).next_power_of_two();
        let most = 1 << limits.slice_size.ilog2();
        debug_assert!(is_subtree_size(SLICE_SIZE));
        least.max(SLICE_SIZE).min(most)
    }
}

/// The reason why an upload is not begun.
enum Taken {
    /// Its name is taken.
    Name(Refusal),
    /// It is refused.
    Refused(Refusal),
}

impl From<Refusal> for Taken {
    fn from(refusal: Refusal) -> Taken {
        // The name was free a moment ago, or another client has it that may still come back.
        if matches!(refusal.code, ErrorCode::Exists | ErrorCode::Busy) {
            Taken::Name(refusal)
        } else {
            Taken::Refused(refusal)
        }
    }
}

/// The name below `prefix` that a client would like, made safe; a random one if it would like none.
///
/// # Errors
/// No file can have it: it is too long, or has too many folders.
pub fn name_below(prefix: &str, wanted: Option<&str>) -> Result<FileName, Refusal> {
    let safe = wanted.map(safe_name).filter(|name| !name.is_empty());
    let name = match safe {
        Some(name) if name.starts_with(prefix) => name,
        Some(name) => format!("{prefix}{name}"),
        None => format!("{prefix}{}", UploadKey::random()?.as_str()),
    };
    Ok(FileName::new(&name)?)
}

/// The same name without anything that leads elsewhere, or that steers a terminal.
fn safe_name(name: &str) -> String {
    let clean: String = name.chars().map(|c| if c.is_control() { '_' } else { c }).collect();
    let components = clean.split(['/', '\\']).filter(|component| !matches!(*component, "" | "." | ".."));
    components.map(shortened).collect::<Vec<_>>().join("/")
}

/// A component that is not too long, with its extension.
fn shortened(component: &str) -> String {
    if component.len() <= MAX_COMPONENT {
        return component.to_owned();
    }
    let (stem, extension) = split_extension(component);
    let keep = stem.floor_char_boundary(MAX_COMPONENT - extension.len());
    format!("{}{extension}", &stem[..keep])
}

/// The part before the last dot, and the rest.
fn split_extension(component: &str) -> (&str, &str) {
    let dot = component.rfind('.').filter(|dot| *dot > 0 && component.len() - dot <= MAX_EXTENSION);
    component.split_at(dot.unwrap_or(component.len()))
}

/// The name with a number; 1 is the name itself.
fn numbered(name: &FileName, number: u64) -> Result<FileName, Refusal> {
    if number == 1 {
        return Ok(name.clone());
    }
    let (folder, last) = name.as_str().rsplit_once('/').map_or(("", name.as_str()), |(folder, last)| (folder, last));
    let (stem, extension) = split_extension(last);
    let slash = if folder.is_empty() { "" } else { "/" };
    Ok(FileName::new(&format!("{folder}{slash}{stem} ({number}){extension}"))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn below(prefix: &str, wanted: &str) -> String {
        name_below(prefix, Some(wanted)).unwrap().as_str().to_owned()
    }

    #[test]
    fn names_are_made_safe_below_the_prefix() {
        for (wanted, name) in [
            ("a.bin", "a.bin"),
            ("../../etc/passwd", "etc/passwd"),
            ("/abs/x", "abs/x"),
            ("C:\\fakepath\\x.bin", "C:/fakepath/x.bin"),
            ("a//./b", "a/b"),
            ("a\u{1b}[31m\n", "a_[31m_"),
        ] {
            assert_eq!(below("", wanted), name);
            assert_eq!(below("alice/", wanted), format!("alice/{name}"));
        }
        assert_eq!(below("alice/", "alice/x"), "alice/x");
        for nothing in ["", "..", "/", "\\..\\"] {
            assert_eq!(below("alice/", nothing).len(), "alice/".len() + 32, "{nothing}");
        }
        let long = format!("{}.tar.gz", "ä".repeat(300));
        let cut = below("", &long);
        assert!(cut.len() <= MAX_COMPONENT && cut.ends_with("ä.gz"), "{cut}");
    }

    #[test]
    fn numbers_stand_before_the_extension() {
        for (name, second) in [
            ("a/b.bin", "a/b (2).bin"),
            ("b", "b (2)"),
            (".hidden", ".hidden (2)"),
            ("x.y/z", "x.y/z (2)"),
            ("a.averyveryverylongextension", "a.averyveryverylongextension (2)"),
        ] {
            let name = FileName::new(name).unwrap();
            assert_eq!(numbered(&name, 2).unwrap().as_str(), second);
            assert_eq!(numbered(&name, 1).unwrap(), name);
        }
    }

    #[test]
    fn a_key_is_32_digits_and_its_source_does_not_tell_it() {
        let (one, other) = (UploadKey::random().unwrap(), UploadKey::random().unwrap());
        assert_ne!(one, other);
        assert_eq!(UploadKey::parse(one.as_str()), Some(one.clone()));
        assert!(!one.source().contains(one.as_str()));
        for wrong in ["", "0", &one.as_str()[1..], &format!("{}0", one.as_str()), &"G".repeat(32), &"A".repeat(32)] {
            assert_eq!(UploadKey::parse(wrong), None, "{wrong}");
        }
    }
}
