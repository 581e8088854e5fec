//! A folder of finished files as a tar archive, made while it is read.
//!
//! The files are listed before the response begins: this gives length and entity tag, and nothing has to be read for it.
//! The list itself is not kept. It is cut into batches, and of each batch the plan has its first offset, the name before
//! it, and a digest of its members. A batch is listed again when its turn comes, and each file is compared once more
//! when it is opened. Where anything differs, the response breaks off. So an archive is one moment of its folder: bytes
//! of two moments are never mixed.

use crate::admission::access::Access;
use crate::http::app::App;
use crate::http::content::conditions::Validators;
use crate::http::content::folder::Folder;
use crate::http::content::representation::Representation;
use crate::http::content::sending::Source;
use crate::http::content::tar;
use crate::net::response::Response;
use crate::refusal::Refusal;
use crate::uploads::Uploads;
use bigup_core::protocol::digest::Digest;
use bigup_core::protocol::name::FileName;
use bigup_core::protocol::native::ErrorCode;
use bigup_core::storage::disk::FileVersion;
use bigup_core::storage::store::{Content, ListedFile, OpenFile};
use std::io;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};
use warp::http::Method;
use warp::http::header::HeaderMap;

/// Begins what an entity tag is a hash of. Another format of archives must have another one.
const FORMAT: &[u8] = b"bigup archive, tar 1\n";

/// Most memory for the members of a batch, in bytes. The last one may take a bit more.
const MOST_OF_BATCH: usize = 256 << 10;

/// Most memory that the members of an archive would take, were they all listed at once, in bytes. It bounds the number of
/// batches, and so the memory of a plan.
const MOST_OF_ALL: usize = 128 << 20;

/// Length of the largest archive without its end, in bytes: no file is longer (off_t).
const MOST_BYTES: u64 = i64::MAX as u64 - tar::END;

/// Memory that a member takes beside its name, in bytes.
const BESIDE_NAME: usize = 160;

/// A file of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Member {
    name: FileName,
    size: u64,
    /// Time of its last write, in whole seconds since 1970.
    modified: i64,
    identity: Identity,
}

/// The proof that a file is still the one that was listed.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Identity {
    /// The digest of its content.
    Digest(Digest),
    /// Its version, where no digest is certain.
    Version(FileVersion),
}

/// A member, and the place where its head begins.
struct Placed {
    member: Member,
    offset: u64,
}

/// Members that are listed together.
#[derive(Debug)]
struct Batch {
    /// The name before its first one; empty if there is none.
    after: String,
    /// The place of its first member.
    offset: u64,
    /// Number of its members.
    members: usize,
    /// Hash of all that is known of them.
    hash: blake3::Hash,
}

/// All that is kept of an archive's members.
#[derive(Debug)]
struct Plan {
    folder: Folder,
    batches: Vec<Batch>,
    /// Length of the members, in bytes.
    len: u64,
    /// Hash of the names, sizes, times and digests. `None` if a digest is not certain.
    hash: Option<blake3::Hash>,
}

/// A plan that is made.
struct Planning {
    plan: Plan,
    hasher: blake3::Hasher,
    is_certain: bool,
    /// Members so far, and the memory they would take.
    members: usize,
    memory: usize,
    /// The batch that is not full yet, with its memory.
    batch: Option<(Batch, blake3::Hasher, usize)>,
    last: String,
}

impl Member {
    fn of(file: ListedFile) -> Member {
        let ListedFile { name, size, modified, digest, version, .. } = file;
        let identity = digest.map_or(Identity::Version(version), Identity::Digest);
        Member { name, size, modified: seconds(modified), identity }
    }

    fn memory(&self) -> usize {
        self.name.as_str().len() + BESIDE_NAME
    }

    fn head(&self, folder: &Folder) -> Vec<u8> {
        tar::head(folder.with_last(self.name.as_str()), self.size, self.modified)
    }

    /// Length in the archive.
    fn len(&self, folder: &Folder) -> u64 {
        self.head(folder).len() as u64 + self.size + tar::padding(self.size)
    }

    /// Adds all that is known of it. Its name in the archive ends with a byte that no name has.
    fn hash_into(&self, hasher: &mut blake3::Hasher, folder: &Folder) {
        hasher.update(folder.with_last(self.name.as_str()).as_bytes()).update(&[0]);
        hasher.update(&self.size.to_le_bytes()).update(&self.modified.to_le_bytes());
        match &self.identity {
            Identity::Digest(digest) => hasher.update(&[1]).update(&digest.0),
            Identity::Version(version) => hasher.update(&[0]).update(&version.to_bytes()),
        };
    }
}

/// Whole seconds since 1970; earlier ones are negative.
fn seconds(time: SystemTime) -> i64 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => after.as_secs().try_into().unwrap_or(i64::MAX),
        Err(before) => {
            let before = before.duration();
            let whole = i64::try_from(before.as_secs()).unwrap_or(i64::MAX);
            if before.subsec_nanos() == 0 { -whole } else { (-whole).saturating_sub(1) }
        }
    }
}

impl Planning {
    fn new(folder: Folder) -> Planning {
        let plan = Plan { folder, batches: vec![], len: 0, hash: None };
        let mut hasher = blake3::Hasher::new();
        hasher.update(FORMAT);
        Planning { plan, hasher, is_certain: true, members: 0, memory: 0, batch: None, last: String::new() }
    }

    /// Adds the next member.
    ///
    /// # Errors
    /// It is one too many.
    fn add(&mut self, member: &Member, most_of_batch: usize, most_of_all: usize) -> Result<(), Refusal> {
        let (folder, offset) = (&self.plan.folder, self.plan.len);
        self.members += 1;
        self.memory += member.memory();
        if self.memory > most_of_all {
            return Err(too_many(folder, self.members, self.memory, most_of_all));
        }
        // Sparse files may be of any size.
        let len = offset.checked_add(member.len(folder)).filter(|len| *len <= MOST_BYTES);
        self.plan.len = len.ok_or_else(|| too_large(folder, self.members))?;
        let (mut batch, mut hasher, mut memory) = self.batch.take().unwrap_or_else(|| {
            let hash = blake3::Hash::from([0; 32]);
            (Batch { after: self.last.clone(), offset, members: 0, hash }, blake3::Hasher::new(), 0)
        });
        batch.members += 1;
        memory += member.memory();
        member.hash_into(&mut hasher, folder);
        member.hash_into(&mut self.hasher, folder);
        self.is_certain &= matches!(member.identity, Identity::Digest(_));
        member.name.as_str().clone_into(&mut self.last);
        self.batch = Some((batch, hasher, memory));
        if memory >= most_of_batch {
            self.close_batch();
        }
        Ok(())
    }

    fn close_batch(&mut self) {
        if let Some((batch, hasher, _)) = self.batch.take() {
            self.plan.batches.push(Batch { hash: hasher.finalize(), ..batch });
        }
    }

    fn done(mut self) -> Plan {
        self.close_batch();
        self.plan.hash = self.is_certain.then(|| self.hasher.finalize());
        self.plan
    }
}

impl Plan {
    /// The plan of an archive of all files in `folder`.
    ///
    /// # Errors
    /// There are none, or too many of them, or they cannot be listed.
    fn of(uploads: &Uploads, folder: Folder) -> Result<Plan, Refusal> {
        let (prefix, mut planning) = (folder.prefix().to_owned(), Planning::new(folder));
        let mut added = Ok(());
        uploads.list_finished(&prefix, "", |file| {
            added = planning.add(&Member::of(file), MOST_OF_BATCH, MOST_OF_ALL);
            if added.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        added?;
        if planning.members == 0 { Err(planning.plan.folder.without_files()) } else { Ok(planning.done()) }
    }

    fn size(&self) -> u64 {
        self.len + tar::END
    }

    fn etag(&self) -> Option<String> {
        self.hash.map(|hash| format!("\"tar-{hash}\""))
    }
}

fn too_many(folder: &Folder, members: usize, memory: usize, most: usize) -> Refusal {
    let message = format!(
        "the first {members} files of {} take {memory} bytes to list, and those of an archive take {most} at most: ask for \
         a folder in it, or read the files one by one",
        folder.shown()
    );
    Refusal::new(ErrorCode::TooLarge, message)
}

fn too_large(folder: &Folder, members: usize) -> Refusal {
    let message = format!(
        "the first {members} files of {} have more than the {MOST_BYTES} bytes of the largest archive: ask for a folder \
         in it, or read the files one by one",
        folder.shown()
    );
    Refusal::new(ErrorCode::TooLarge, message)
}

/// An archive that is read.
struct Archive {
    uploads: Uploads,
    plan: Plan,
    /// Only one read at a time needs it.
    state: Mutex<State>,
}

/// Where the last read ended.
#[derive(Default)]
struct State {
    /// Number of the batch that is listed, and its members.
    batch: Option<(usize, Vec<Placed>)>,
    /// The file that is open, by the place of its head.
    open: Option<(u64, Content)>,
}

impl Source for Archive {
    fn fill(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut done = 0;
        while done < bytes.len() {
            done += self.read_some(&mut state, &mut bytes[done..], offset + done as u64)?;
        }
        Ok(())
    }
}

impl Archive {
    /// Bytes of one member, or of the end: at least one.
    fn read_some(&self, state: &mut State, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        if offset >= self.plan.len {
            bytes.fill(0);
            return Ok(bytes.len());
        }
        let number = self.plan.batches.partition_point(|batch| batch.offset <= offset) - 1;
        if state.batch.as_ref().is_none_or(|(listed, _)| *listed != number) {
            // Two batches are never in memory.
            state.batch = None;
            state.batch = Some((number, self.members_of(&self.plan.batches[number])?));
        }
        let State { batch: Some((_, members)), open } = state else { return Err(changed(self.plan.folder.shown())) };
        let placed = &members[members.partition_point(|placed| placed.offset <= offset) - 1];
        self.read_member(placed, open, bytes, offset - placed.offset)
    }

    /// The members of a batch, as they were when the archive was begun.
    fn members_of(&self, batch: &Batch) -> io::Result<Vec<Placed>> {
        let folder = &self.plan.folder;
        let (mut members, mut hasher, mut offset) = (vec![], blake3::Hasher::new(), batch.offset);
        let listing = self.uploads.list_finished(folder.prefix(), &batch.after, |file| {
            let member = Member::of(file);
            member.hash_into(&mut hasher, folder);
            let len = member.len(folder);
            members.push(Placed { member, offset });
            offset += len;
            if members.len() < batch.members { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        listing.map_err(|refusal| io::Error::other(refusal.facts))?;
        if members.len() == batch.members && hasher.finalize() == batch.hash {
            Ok(members)
        } else {
            Err(changed(folder.shown()))
        }
    }

    /// Bytes of a member at `offset` from its head: at least one.
    fn read_member(
        &self,
        placed: &Placed,
        open: &mut Option<(u64, Content)>,
        bytes: &mut [u8],
        offset: u64,
    ) -> io::Result<usize> {
        let Placed { member, offset: place } = placed;
        let head = member.head(&self.plan.folder);
        let at_most = |left: u64| usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
        let Some(offset) = offset.checked_sub(head.len() as u64) else {
            let rest = &head[offset as usize..];
            let len = at_most(rest.len() as u64);
            bytes[..len].copy_from_slice(&rest[..len]);
            return Ok(len);
        };
        let Some(left) = member.size.checked_sub(offset).filter(|left| *left > 0) else {
            let len = at_most(member.size + tar::padding(member.size) - offset);
            bytes[..len].fill(0);
            return Ok(len);
        };
        let file = match open.take().filter(|(opened, _)| opened == place) {
            Some((_, file)) => file,
            None => self.open(member)?,
        };
        let len = at_most(left);
        file.read_exact_at(&mut bytes[..len], offset)?;
        *open = Some((*place, file));
        Ok(len)
    }

    /// Opens a member's file, which is the one that was listed.
    fn open(&self, member: &Member) -> io::Result<Content> {
        let open = self.uploads.open_finished(&member.name).map_err(|refusal| io::Error::other(refusal.facts))?;
        let is = Member::of(ListedFile::of(member.name.clone(), &open)?);
        let OpenFile { content, .. } = open;
        if is == *member { Ok(content) } else { Err(changed(member.name.as_str())) }
    }
}

fn changed(name: &str) -> io::Error {
    io::Error::other(format!("{name} changed since the archive was begun"))
}

impl App {
    /// Responds to a GET or HEAD of an archive of the folder at `path`.
    ///
    /// # Errors
    /// It has no files, or too many of them; its sender may not read there, or a condition does not hold.
    pub(super) async fn archive(
        &self,
        by: &Access,
        method: &Method,
        headers: &HeaderMap,
        path: String,
    ) -> Result<Response, Refusal> {
        let (uploads, folder) = (self.uploads.clone(), Folder::seen_by(path, by)?);
        let plan = self.blocking(move || Plan::of(&uploads, folder)).await?;
        self.respond(method, headers, representation(&self.uploads, plan))
    }
}

fn representation(uploads: &Uploads, plan: Plan) -> Representation {
    let name = plan.folder.shown().to_owned();
    let etag = plan.etag();
    Representation {
        message_name: format!("the archive of {name}"),
        name,
        content_type: "application/x-tar",
        saved_as: format!("{}.tar", plan.folder.last().unwrap_or("files")),
        size: plan.size(),
        // Without a tag nothing tells the parts of one archive from those of another.
        has_ranges: etag.is_some(),
        // No time tells that a file of the folder was removed.
        validators: Validators { etag, modified: None, changed: None, is_settled: false },
        digest: None,
        sha256: None,
        source: Arc::new(Archive { uploads: uploads.clone(), plan, state: Mutex::default() }),
        direct: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(name: &str, size: u64) -> Member {
        let digest = Digest(*blake3::hash(name.as_bytes()).as_bytes());
        Member { name: FileName::new(name).unwrap(), size, modified: 5, identity: Identity::Digest(digest) }
    }

    fn folder() -> Folder {
        Folder::seen_by("a/b/".to_owned(), &Access::Everything).unwrap()
    }

    fn plan(members: &[Member], most_of_batch: usize) -> Plan {
        let mut planning = Planning::new(folder());
        for member in members {
            planning.add(member, most_of_batch, usize::MAX).unwrap();
        }
        planning.done()
    }

    #[test]
    fn a_tag_tells_names_sizes_times_and_digests_and_nothing_else() {
        let members = ["a/b/x", "a/b/y", "a/b/z"].map(|name| member(name, 600));
        let is = plan(&members, 1);
        assert_eq!((is.len, is.batches.len()), (3 * (512 + 1024), 3));
        assert_eq!(is.batches.iter().map(|batch| batch.offset).collect::<Vec<_>>(), [0, 1536, 3072]);
        assert_eq!(is.batches.iter().map(|batch| &*batch.after).collect::<Vec<_>>(), ["", "a/b/x", "a/b/y"]);
        let in_one = plan(&members, usize::MAX);
        assert_eq!((in_one.batches.len(), in_one.etag()), (1, is.etag()));
        let changed: [fn(&mut Vec<Member>); 6] = [
            |members| drop(members.pop()),
            |members| members[1].size += 1,
            |members| members[1].modified += 1,
            |members| members[1].name = FileName::new("a/b/y0").unwrap(),
            |members| members[1].identity = Identity::Digest(Digest([0; 32])),
            |members| members.swap(0, 1),
        ];
        for (number, change) in changed.iter().enumerate() {
            let mut others = members.to_vec();
            change(&mut others);
            assert_ne!(plan(&others, 1).etag(), is.etag(), "{number}");
        }
        let mut uncertain = members.to_vec();
        let version = FileVersion::of_metadata(&std::fs::metadata("/").unwrap());
        uncertain[2].identity = Identity::Version(version);
        assert_eq!(plan(&uncertain, 1).etag(), None);
    }

    #[test]
    fn a_plan_takes_little_memory_or_is_refused() {
        let mut planning = Planning::new(folder());
        let many = (0..).map(|number| member(&format!("a/b/{number}{}", "x".repeat(number % 200)), 0));
        let refused = many.map(|member| planning.add(&member, 4 << 10, 1 << 20)).find_map(Result::err).unwrap();
        assert_eq!(refused.code, ErrorCode::TooLarge);
        let facts = refused.facts;
        assert!(facts.contains(&planning.members.to_string()) && facts.contains("most: ask"), "{facts}");
        assert!(facts.contains("1048576") && facts.contains(&planning.memory.to_string()), "{facts}");
        assert!(planning.plan.batches.len() <= 256, "{}", planning.plan.batches.len());
        let most = planning.plan.batches.iter().map(|batch| batch.members * BESIDE_NAME).max();
        assert!(most <= Some((4 << 10) + BESIDE_NAME));
        assert!(size_of::<Placed>() <= BESIDE_NAME);
    }

    #[test]
    fn an_archive_is_no_longer_than_a_file_can_be() {
        let mut planning = Planning::new(folder());
        planning.add(&member("a/b/x", MOST_BYTES - 5000), 1, 1 << 20).unwrap();
        planning.add(&member("a/b/y", 100), 1, 1 << 20).unwrap();
        let refused = planning.add(&member("a/b/z", 5000), 1, 1 << 20).unwrap_err();
        assert_eq!(refused.code, ErrorCode::TooLarge);
        assert!(planning.done().size() <= i64::MAX as u64);
    }

    #[test]
    fn times_are_whole_seconds() {
        let at = |millis: u64| std::time::Duration::from_millis(millis);
        assert_eq!(seconds(UNIX_EPOCH + at(1999)), 1);
        assert_eq!([0, 1, 1000, 1001].map(|early| seconds(UNIX_EPOCH - at(early))), [0, -1, -1, -2]);
    }

    #[test]
    fn the_document_tells_the_same_numbers() {
        let (all, batch) = (MOST_OF_ALL >> 20, MOST_OF_BATCH >> 10);
        let document = include_str!("../../../../docs/content.md");
        for told in [
            format!("its files take up to {all} MiB to list: each its name and {BESIDE_NAME} bytes"),
            format!("at most {batch} KiB of that list are in memory"),
        ] {
            assert!(document.contains(&told), "{told}");
        }
    }
}
