//! A whole folder of an upload, as bad disks and other programs may leave it. The bytes are lines: the first is
//! upload.json (nothing: there is none), each other one puts something into the folder:
//!
//! ```text
//! merged LEN  sparse LEN       the merged file, with content or without
//! slice ID LEN                 a slice
//! record ID LEN cv|hash        the record of a slice, right for its content if that is there
//! synced FRONTIER  boot        the head of the records
//! publication                  a publication under way, of the merged file
//! bytes AT TEXT                bytes in the file of records
//! file NAME LEN  dir NAME  link NAME  fifo NAME
//! stored LEN                   a finished file of that name
//! ```
//!
//! Beside it lies an upload in order, which nothing of this may hinder.

use bigup_core::protocol::digest::{DigestKind, SliceDigest, SliceHasher};
use bigup_core::protocol::kept::Kept;
use bigup_core::protocol::name::FileName;
use bigup_core::protocol::plan::{MAX_SLICES, Plan};
use bigup_core::storage::data_dir::{DataDir, FileModes};
use bigup_core::storage::disk::BootId;
use bigup_core::storage::space::DiskSpace;
use bigup_core::storage::spool::{Publication, Record, Records, Spool, UploadId, UploadRecord};
use bigup_merger::{Events, MergeEnd, Stop};
use bigupd::admission::access::Access;
use bigupd::config::Config;
use bigupd::metrics::UploadProtocol;
use bigupd::upkeep::reconcile::Reconciler;
use bigupd::uploads::request::BeginRequest;
use bigupd::uploads::{SliceRequest, Uploads};
use nix::sys::stat::Mode;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Most lines that are followed.
const MANY: usize = 40;

/// Largest file with content, in bytes.
const LARGE: u64 = 1 << 16;

/// Name of the upload in order.
const NEIGHBOUR: &str = "neighbour";

/// A folder being filled.
struct Folder {
    spool: PathBuf,
    stored: PathBuf,
    plan: Plan,
    /// Whether what is recorded may be a lie.
    is_recorded: bool,
    is_published: bool,
}

/// Checks a folder of an upload.
///
/// # Panics
/// It hinders another upload, or is published as something that it is not.
pub fn check(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut lines = text.lines();
    let json = lines.next().unwrap_or_default();
    let upload = UploadRecord::from_json(json.as_bytes()).ok();
    let plain = FileName::new("x").expect("it is a name");
    let name = upload.as_ref().map_or(plain, |upload| upload.file_name.clone());
    if name.as_str().starts_with(NEIGHBOUR) {
        return;
    }
    let dir = tempfile::tempdir().expect("a temporary folder can be made");
    let data = DataDir::create(dir.path()).expect("a data folder can be made");
    let neighbour = FileName::new(NEIGHBOUR).expect("it is a name");
    let plan = Plan::new(Some(1), None, Some(7)).expect("these numbers fit");
    assert!(
        Spool::create(
            &data,
            &UploadId::of_name(&neighbour),
            &UploadRecord::begin(neighbour.clone(), plan, None),
            &DiskSpace::new(&data, 0)
        )
        .expect("a spool can be made")
    );

    let spool = Spool::of(&data, &UploadId::of_name(&name));
    let plan = upload.as_ref().map_or(Plan::default(), |upload| upload.plan.clone());
    let mut folder = Folder::new(spool.path(), data.files().join(name.as_str()), json, plan);
    for line in lines.take(MANY) {
        // What makes no sense is passed over.
        let _ = folder.put(line);
    }

    let uploads = {
        let config = Config::defaults(dir.path().to_owned());
        Uploads::new(data.clone(), config.uploads.clone(), &config.hooks)
    };
    let (list, _) = uploads.list(|_| true).expect("uploads can be listed");
    assert!(list.iter().any(|upload| upload.file_name == NEIGHBOUR), "{list:?}");
    // Whatever these answer.
    let _ = uploads.peek(&UploadId::of_name(&name), &name, None);
    let _ = uploads.digests(&UploadId::of_name(&name), &name, 0, 4095);
    let _ = Reconciler::new(data.clone()).reconcile(|_, _| ());
    let ini = std::fs::read_to_string(data.info_ini()).expect("info.ini is there");
    assert!(ini.contains("[neighbour]"), "{ini}");

    // What is larger would rightly be read to its end.
    if std::fs::symlink_metadata(spool.merged_path()).is_ok_and(|found| found.len() > LARGE) {
        return;
    }
    let config = bigup_merger::Config {
        data_dir: dir.path().to_owned(),
        file_name: name.clone(),
        idle: Duration::ZERO,
        events: Events::none(),
        leave_notice: false,
        modes: FileModes::default(),
        store: None,
    };
    if let (Ok(MergeEnd::Published(digest)), Some(upload)) = (bigup_merger::run(&config, &Stop::never()), &upload)
        && !folder.is_published
    {
        assert!(upload.file_digest().is_none_or(|promised| promised == digest), "{digest}, not as promised");
        let content = std::fs::read(&folder.stored).expect("it is there");
        assert!(upload.plan.file_size.is_none_or(|size| size == content.len() as u64), "{} bytes", content.len());
        assert!(folder.is_recorded || blake3::hash(&content).as_bytes() == &digest.0, "{digest}");
    }
    go_on(&uploads, name, upload);
    assert!(uploads.peek(&UploadId::of_name(&neighbour), &neighbour, None).expect("it is in order").is_some());
}

/// A client comes back.
fn go_on(uploads: &Uploads, name: FileName, upload: Option<UploadRecord>) {
    let plan = upload.as_ref().map_or(Plan::default(), |upload| upload.plan.clone());
    let plan = Plan::new(plan.slice_num.or(Some(2)), plan.slice_size, plan.file_size).unwrap_or(plan);
    let source = upload.and_then(|upload| upload.source);
    let ask = BeginRequest {
        by: Access::Everything,
        id: UploadId::of_name(&name),
        name: name.clone(),
        plan: plan.clone(),
        source: source.clone(),
        file_digest: None,
        replace: false,
        recut: false,
        discard: false,
        by_size: false,
        kept: Kept::default(),
        metadata: None,
        sha256: None,
        protocol: UploadProtocol::Native,
        awaits_end: false,
        concat: None,
        peer: None,
        certificate: None,
    };
    let _ = uploads.begin(&ask);
    for slice_id in [0, 1, MAX_SLICES - 1, u64::MAX] {
        let len = plan.slice_size.unwrap_or(10);
        let _ = uploads.admit(&SliceRequest {
            by: Access::Everything,
            peer: None,
            id: UploadId::of_name(&name),
            name: name.clone(),
            slice_id,
            len,
            digest: None,
            offset: None,
            source: source.clone(),
            begin: None,
        });
    }
}

impl Folder {
    fn new(spool: &Path, stored: PathBuf, json: &str, plan: Plan) -> Folder {
        std::fs::create_dir(spool).expect("a folder can be made");
        if !json.is_empty() {
            std::fs::write(spool.join("upload.json"), json).expect("it can be written");
        }
        let digests = File::create_new(spool.join("digests")).expect("it can be made");
        Records(&digests).initialise().expect("it can be written");
        Folder { spool: spool.to_owned(), stored, plan, is_recorded: false, is_published: false }
    }

    /// Follows a line. None: it makes no sense, or cannot be done.
    fn put(&mut self, line: &str) -> Option<()> {
        let words: Vec<&str> = line.split(' ').collect();
        let number = |at: usize| words.get(at)?.parse::<u64>().ok();
        let place = |at: usize| {
            let name =
                words.get(at).filter(|name| !name.is_empty() && name.len() < 100 && !name.contains(['/', '\0']))?;
            Some(self.spool.join(name)).filter(|_| !matches!(*name, "." | ".."))
        };
        match *words.first()? {
            "merged" => write(&self.spool.join("merged"), &content(0, number(1)?))?,
            "sparse" => File::create_new(self.spool.join("merged")).ok()?.set_len(number(1)?).ok()?,
            "slice" => write(&self.spool.join(number(1)?.to_string()), &content(number(1)?, number(2)?))?,
            "record" => {
                let (slice_id, len, kind) = (number(1)?, number(2)?, *words.get(3)?);
                self.record(slice_id, len, if kind == "cv" { DigestKind::ChainingValue } else { DigestKind::Hash })?;
            }
            "synced" => Records(&self.digests()?).set_synced(number(1)?).ok()?,
            "boot" => Records(&self.digests()?).set_merge_boot(BootId::current()).ok()?,
            "publication" => {
                let inode = std::fs::symlink_metadata(self.spool.join("merged")).map_or(7, |found| found.ino());
                let digest = bigup_core::protocol::digest::of_bytes(b"");
                Records(&self.digests()?).set_publication(Some(Publication { inode, digest })).ok()?;
                self.is_published = true;
            }
            "bytes" => {
                let at = number(1).filter(|at| *at < LARGE)?;
                self.digests()?.write_all_at(words.get(2)?.as_bytes(), at).ok()?;
                self.is_recorded = true;
            }
            "file" => write(&place(1)?, &content(1, number(2)?))?,
            "dir" => std::fs::create_dir(place(1)?).ok()?,
            "link" => std::os::unix::fs::symlink("upload.json", place(1)?).ok()?,
            "fifo" => nix::unistd::mkfifo(&place(1)?, Mode::S_IRWXU).ok()?,
            "stored" => {
                std::fs::create_dir_all(self.stored.parent()?).ok()?;
                write(&self.stored, &content(2, number(1)?))?;
            }
            _ => return None,
        }
        Some(())
    }

    fn digests(&self) -> Option<File> {
        let path = self.spool.join("digests");
        std::fs::symlink_metadata(&path).ok().filter(std::fs::Metadata::is_file)?;
        File::options().read(true).write(true).open(path).ok()
    }

    fn record(&mut self, slice_id: u64, len: u64, kind: DigestKind) -> Option<()> {
        if slice_id >= MAX_SLICES {
            return None;
        }
        let offset = if kind == DigestKind::ChainingValue { self.plan.offset_of(slice_id)? } else { 0 };
        let bytes = content(slice_id, len);
        // What chaining values are defined for (bigup_core::protocol::digest::SliceHasher::new).
        let fits = bigup_core::protocol::digest::is_subtree_size(self.plan.slice_size?)
            && self.plan.slice_size? >= len
            && len > 0;
        if kind == DigestKind::ChainingValue && !fits {
            return None;
        }
        let mut hasher = SliceHasher::new(kind, offset);
        hasher.update(&bytes);
        let SliceDigest { digest, .. } = hasher.finish();
        let record = Record { digest: SliceDigest { kind, digest }, len, boot: BootId::current() };
        self.is_recorded = true;
        Records(&self.digests()?).put(slice_id, &record).ok()
    }
}

/// Writes a file where nothing is yet. What stands there may be a FIFO, which nobody reads.
fn write(path: &Path, bytes: &[u8]) -> Option<()> {
    File::create_new(path).ok()?.write_all(bytes).ok()
}

/// Bytes that can be made again; at most [`LARGE`].
fn content(seed: u64, len: u64) -> Vec<u8> {
    (0..len.min(LARGE)).map(|i| (i.wrapping_mul(31).wrapping_add(seed)) as u8).collect()
}
