//! The list of finished files, in the order of their names' bytes.
//!
//! Nothing sorts all names: of each folder on the way those that come next are gathered, up to [`MOST_BYTES`] in all
//! such folders, and the folder is read again for those after them. In this order a folder counts as its name with the
//! `/`: `a-b`, `a.txt`, `a/x`, `a0`.

use super::folder::{FOLDER, last_component};
use super::{Content, OpenEntry, OpenFile, Store, StoreError, in_objects};
use crate::protocol::digest::Digest;
use crate::protocol::kept::FileTime;
use crate::protocol::name::FileName;
use crate::storage::disk::{FileVersion, IoContext};
use nix::dir::{Dir, Type};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, openat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstatat};
use std::collections::BinaryHeap;
use std::fs::File;
use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Bytes of the names that are gathered, in all folders on the way together. The last of them take a bit more.
const MOST_BYTES: usize = 1 << 20;

/// Least bytes that a folder's names can take.
const LEAST_BYTES: usize = 8 << 10;

/// Bytes that a gathered name takes beside itself.
const BESIDE: usize = 32;

/// A finished file in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedFile {
    /// Its name.
    pub name: FileName,
    /// Its size, in bytes.
    pub size: u64,
    /// Time of the last write to it, or to the client's file if that is kept.
    pub modified: SystemTime,
    /// Time of the last write to the client's file, exactly, if that is kept.
    pub source_modified: Option<FileTime>,
    /// The digest of its content, if that is certain.
    pub digest: Option<Digest>,
    /// Its version, to see whether it changed since.
    pub version: FileVersion,
}

impl ListedFile {
    /// The file of this name that is open, as a list shows it.
    ///
    /// # Errors
    /// The system does not tell its time.
    pub fn of(name: FileName, open: &OpenFile) -> io::Result<ListedFile> {
        let OpenFile { size, version, stored_digest, .. } = open;
        let (size, version) = (*size, *version);
        let is_told = matches!(open.content, Content::File(_));
        let digest = stored_digest.as_ref().map(|stored| stored.digest).filter(|_| is_told);
        // The list of a store has the times at which objects were stored.
        let (modified, source_modified) =
            if is_told { (open.modified, open.source_modified) } else { (open.changed, None) };
        Ok(ListedFile { name, size, modified, source_modified, digest, version })
    }
}

/// A thing in a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FolderEntry {
    /// A finished file.
    File(ListedFile),
    /// A folder with finished files. Its name ends in `/`.
    Folder(String),
}

impl FolderEntry {
    /// Its whole name; a folder's ends in `/`.
    pub fn name(&self) -> &str {
        match self {
            FolderEntry::File(file) => file.name.as_str(),
            FolderEntry::Folder(name) => name,
        }
    }
}

/// The part of the names that a list shows.
struct Wanted<'a> {
    prefix: &'a str,
    after: &'a str,
}

impl<'a> Wanted<'a> {
    /// The same for names without `path`, with which they begin. `None` if it shows none of these.
    fn below(&self, path: &str) -> Option<Wanted<'a>> {
        let prefix = match self.prefix.strip_prefix(path) {
            Some(rest) => rest,
            None => path.starts_with(self.prefix).then_some("")?,
        };
        let after = match self.after.strip_prefix(path) {
            Some(rest) => rest,
            None => (path > self.after).then_some("")?,
        };
        Some(Wanted { prefix, after })
    }

    fn has_file(&self, name: &str) -> bool {
        name.starts_with(self.prefix) && name > self.after
    }

    /// True if a folder, whose name ends in `/`, can have such files.
    fn has_folder(&self, name: &str) -> bool {
        let is_in_prefix = name.starts_with(self.prefix) || self.prefix.starts_with(name);
        is_in_prefix && (name > self.after || self.after.starts_with(name))
    }
}

impl Store {
    /// Shows `each` finished file whose name begins with `prefix` and comes after `after`, in the order of the names'
    /// bytes, until it breaks. Links are not followed. A file that is there all the time is shown once.
    ///
    /// # Errors
    /// A folder or a digest cannot be read.
    pub fn list(
        &self,
        prefix: &str,
        after: &str,
        mut each: impl FnMut(ListedFile) -> ControlFlow<()>,
    ) -> io::Result<()> {
        if let Some(objects) = &self.objects {
            return in_objects::list(objects, prefix, after, each);
        }
        let path = prefix.rfind('/').map_or("", |slash| &prefix[..=slash]);
        if let Some(folder) = self.folder_at(path)? {
            let _ = self.list_folder(&folder, path, &Wanted { prefix, after }, MOST_BYTES, &mut each)?;
        }
        Ok(())
    }

    /// Shows `each` entry of the folder at `path`, whose name ends in `/`, or is empty for all of the store, in the order
    /// of the names' bytes until it breaks: files whose name begins with `prefix`, and folders that have such files, if
    /// they come after `after`. Links are not followed.
    ///
    /// # Errors
    /// As for [`Store::list`].
    pub fn list_level(
        &self,
        path: &str,
        prefix: &str,
        after: &str,
        mut each: impl FnMut(FolderEntry) -> ControlFlow<()>,
    ) -> io::Result<()> {
        if let Some(objects) = &self.objects {
            return in_objects::list_level(objects, path, (prefix, after), each);
        }
        let Some(folder) = self.folder_at(path)? else { return Ok(()) };
        let wanted = Wanted { prefix, after };
        let _ = each_name(&folder, path, &wanted, MOST_BYTES / 2, |name| {
            let whole = format!("{path}{name}");
            let entry = match name.strip_suffix('/') {
                // It was wanted for files in it that follow `after`; it was shown before.
                Some(_) if whole.as_str() <= after => None,
                Some(_) => self.has_files(&folder, path, name, prefix)?.then_some(FolderEntry::Folder(whole)),
                None => self.listed(&folder, &whole)?.map(FolderEntry::File),
            };
            Ok(entry.map_or(ControlFlow::Continue(()), &mut each))
        })?;
        Ok(())
    }

    /// The folder at `path`, which ends in `/` or is empty. `None` if there is none.
    fn folder_at(&self, path: &str) -> io::Result<Option<Arc<File>>> {
        // Any name in that folder will do.
        let Ok(inner) = FileName::new(&format!("{path}x")) else { return Ok(None) };
        match self.folder_of(&inner) {
            Ok(opened) => Ok(Some(opened)),
            Err(StoreError::Io(e)) if e.kind() != io::ErrorKind::NotFound => Err(e),
            Err(_) => Ok(None),
        }
    }

    /// True if the folder `name` in `folder`, which is at `path`, has a file whose name begins with `prefix`.
    fn has_files(&self, folder: &File, path: &str, name: &str, prefix: &str) -> io::Result<bool> {
        let Some(inner) = self.open_folder(folder, path, name)? else { return Ok(false) };
        let wanted = Wanted { prefix, after: "" };
        let flow =
            self.list_folder(&inner, &format!("{path}{name}"), &wanted, LEAST_BYTES, &mut |_| ControlFlow::Break(()))?;
        Ok(flow.is_break())
    }

    /// The same as [`Store::list`] of one folder, whose `path` ends in `/` or is empty.
    fn list_folder(
        &self,
        folder: &File,
        path: &str,
        wanted: &Wanted<'_>,
        most_bytes: usize,
        each: &mut impl FnMut(ListedFile) -> ControlFlow<()>,
    ) -> io::Result<ControlFlow<()>> {
        let half = (most_bytes / 2).max(LEAST_BYTES);
        each_name(folder, path, wanted, half, |name| match name.strip_suffix('/') {
            Some(_) => match self.open_folder(folder, path, name)? {
                Some(inner) => self.list_folder(&inner, &format!("{path}{name}"), wanted, half, each),
                None => Ok(ControlFlow::Continue(())),
            },
            None => {
                let listed = self.listed(folder, &format!("{path}{name}"))?;
                Ok(listed.map_or(ControlFlow::Continue(()), &mut *each))
            }
        })
    }

    /// Opens the folder `name` in `folder`, which is at `path`. `None` if it went, or is none any more.
    fn open_folder(&self, folder: &File, path: &str, name: &str) -> io::Result<Option<File>> {
        match openat(folder, name.trim_end_matches('/'), FOLDER, Mode::empty()) {
            Ok(fd) => Ok(Some(File::from(fd))),
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => Ok(None),
            Err(e) => Err(e).at("opening", &self.files.join(path)),
        }
    }

    /// The file `name`, which is in `folder`. `None` if it went, or cannot be read at all.
    fn listed(&self, folder: &File, name: &str) -> io::Result<Option<ListedFile>> {
        let Ok(name) = FileName::new(name) else { return Ok(None) };
        let found = match fstatat(folder, last_component(&name), AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(found) => found,
            Err(Errno::ENOENT) => return Ok(None),
            Err(e) => return Err(e).at("looking at", &self.path_of(&name)),
        };
        if let Some((digest, source_modified)) = self.list_memory.told_of(&found) {
            let (size, version) = (u64::try_from(found.st_size).unwrap_or(0), FileVersion::of_stat(&found));
            let modified = modified_of(&found);
            return Ok(Some(ListedFile { name, size, modified, source_modified, digest, version }));
        }
        let open = match self.open_in(folder, &name) {
            Ok(OpenEntry::File(file, found)) => self.look_at(&name, file, &found)?,
            Ok(OpenEntry::Nothing | OpenEntry::Other(_)) => return Ok(None),
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
                log::debug!("not listed: {e}");
                return Ok(None);
            }
            Err(e) => return Err(e),
        };
        let file = ListedFile::of(name, &open)?;
        self.list_memory.tell(file.version, (file.digest, file.source_modified), &found);
        Ok(Some(file))
    }
}

/// The time of the last write to a file with these metadata.
fn modified_of(found: &FileStat) -> SystemTime {
    let nanoseconds = Duration::from_nanos(u64::try_from(found.st_mtime_nsec).unwrap_or(0));
    let seconds = Duration::from_secs(found.st_mtime.unsigned_abs());
    (if found.st_mtime < 0 { UNIX_EPOCH - seconds } else { UNIX_EPOCH + seconds }) + nanoseconds
}

/// Names of a folder that come next, in order; those of folders end in `/`.
struct Batch {
    names: Vec<String>,
    /// No names follow them.
    is_all: bool,
}

/// Gives `each` the wanted names of `folder`, which is at `path`, in order, until it breaks. Names of up to `most_bytes`
/// are gathered at a time.
fn each_name(
    folder: &File,
    path: &str,
    wanted: &Wanted<'_>,
    most_bytes: usize,
    mut each: impl FnMut(&str) -> io::Result<ControlFlow<()>>,
) -> io::Result<ControlFlow<()>> {
    let mut last = String::new();
    loop {
        let Batch { names, is_all } = next_names(folder, path, wanted, &last, most_bytes)?;
        for name in &names {
            if each(name)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        match names.last() {
            Some(name) if !is_all => last.clone_from(name),
            _ => return Ok(ControlFlow::Continue(())),
        }
    }
}

/// The wanted names of `folder` after `last`.
fn next_names(folder: &File, path: &str, wanted: &Wanted<'_>, last: &str, most_bytes: usize) -> io::Result<Batch> {
    let (mut heap, mut bytes, mut is_all) = (BinaryHeap::new(), 0, true);
    let Some(wanted) = wanted.below(path) else { return Ok(Batch { names: vec![], is_all }) };
    let path_buf = std::path::Path::new(path);
    let mut dir = Dir::openat(folder, ".", FOLDER, Mode::empty()).at("reading", path_buf)?;
    for entry in dir.iter() {
        let entry = entry.at("reading", path_buf)?;
        let Ok(component) = entry.file_name().to_str() else { continue };
        let Some(name) = key_of(folder, component, entry.file_type()) else { continue };
        let is_wanted = if name.ends_with('/') { wanted.has_folder(&name) } else { wanted.has_file(&name) };
        let comes_later = || heap.peek().is_some_and(|most| !is_all && name > *most);
        if !is_wanted || name.as_str() <= last || comes_later() || FileName::new(component).is_err() {
            continue;
        }
        bytes += name.len() + BESIDE;
        heap.push(name);
        while bytes > most_bytes && heap.len() > 1 {
            bytes -= heap.pop().map_or(0, |name: String| name.len() + BESIDE);
            is_all = false;
        }
    }
    Ok(Batch { names: heap.into_sorted_vec(), is_all })
}

/// The name of an entry by which it is sorted: of a folder with a `/`. `None` if it is neither a regular file nor a
/// folder.
fn key_of(folder: &File, component: &str, kind: Option<Type>) -> Option<String> {
    match kind.or_else(|| kind_of(folder, component))? {
        Type::Directory => Some(format!("{component}/")),
        Type::File => Some(component.to_owned()),
        _ => None,
    }
}

/// The kind of an entry, for file systems that do not tell it with the name.
fn kind_of(folder: &File, component: &str) -> Option<Type> {
    let found = fstatat(folder, component, AtFlags::AT_SYMLINK_NOFOLLOW).ok()?;
    match SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT {
        SFlag::S_IFDIR => Some(Type::Directory),
        SFlag::S_IFREG => Some(Type::File),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::{StoredDigest, digest_attribute};
    use super::*;
    use crate::protocol::digest::of_bytes;
    use crate::storage::data_dir::DataDir;
    use crate::storage::list_memory::SETTLED;
    use std::ffi::OsStr;
    use std::fs;
    use std::os::unix::ffi::OsStrExt;

    struct Fixture {
        dir: tempfile::TempDir,
        store: Store,
    }

    impl Fixture {
        fn with(names: &[&str]) -> Fixture {
            let dir = tempfile::tempdir().unwrap();
            let store = Store::new(&DataDir::create(dir.path()).unwrap());
            let fixture = Fixture { dir, store };
            for name in names {
                let path = fixture.dir.path().join("files").join(name);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, name).unwrap();
            }
            fixture
        }

        fn list(&self, prefix: &str, after: &str, most: usize) -> Vec<String> {
            let mut names = vec![];
            let each = |file: ListedFile| {
                assert_eq!(file.size, file.name.as_str().len() as u64);
                names.push(file.name.as_str().to_owned());
                if names.len() < most { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            };
            self.store.list(prefix, after, each).unwrap();
            names
        }
    }

    #[test]
    fn names_come_in_the_order_of_their_bytes() {
        let names = ["a-b", "a.txt", "a/w", "a/x.y/1", "a/x0", "a0", "b/c/d", "b/c0", "文"];
        let f = Fixture::with(&names);
        assert!(names.is_sorted());
        assert_eq!(f.list("", "", 99), names);
        for (prefix, listed) in [
            ("a", &names[..6]),
            ("a/", &names[2..5]),
            ("a/x", &names[3..5]),
            ("a/x.y/1", &names[3..4]),
            ("b/c", &names[6..8]),
            ("b/c/", &names[6..7]),
            ("c", &[]),
            ("nothing/", &[]),
            ("a.txt/", &[]),
            ("../", &[]),
            ("/", &[]),
            ("a/../b/", &[]),
        ] {
            assert_eq!(f.list(prefix, "", 99), listed, "{prefix}");
            for after in 0..listed.len() {
                assert_eq!(f.list(prefix, listed[after], 99), listed[after + 1..], "{prefix} {after}");
                assert_eq!(f.list(prefix, &listed[after][..1], 99), f.list(prefix, "", 99), "{prefix}");
                assert_eq!(f.list(prefix, "", after + 1), listed[..=after], "{prefix} {after}");
            }
        }
        assert_eq!(f.list("", "a/", 2), ["a/w", "a/x.y/1"]);
        assert_eq!(f.list("", "a/x.y", 1), ["a/x.y/1"]);
        assert_eq!(f.list("b", "文", 9), Vec::<String>::new());
    }

    #[test]
    fn a_file_that_is_remembered_is_shown_as_it_is_now() {
        let f = Fixture::with(&["old", "touched", "other", "replaced"]);
        let path = |name: &str| f.dir.path().join("files").join(name);
        let stamp = |name: &str, text: &str| {
            let file = File::open(path(name)).unwrap();
            let stored_digest = StoredDigest { digest: of_bytes(text.as_bytes()), source: None, sha256: None };
            digest_attribute::stamp(&file, &path(name), &stored_digest, text.parse().ok()).unwrap();
            digest_attribute::seal(&file, &path(name));
        };
        let shown = || {
            let mut shown = vec![];
            let each = |file: ListedFile| {
                shown.push((
                    file.name.as_str().to_owned(),
                    file.size,
                    file.digest,
                    file.source_modified,
                    file.modified,
                ));
                ControlFlow::Continue(())
            };
            f.store.list("", "", each).unwrap();
            shown
        };
        ["old", "touched", "other", "replaced"].iter().for_each(|name| stamp(name, "86400.5"));
        let first = shown();
        assert!(f.store.list_memory.is_empty(), "they changed a moment ago");
        std::thread::sleep(SETTLED + Duration::from_millis(50));
        assert_eq!(shown(), first);
        assert!(!f.store.list_memory.is_empty());
        assert_eq!(shown(), first);
        assert!(first.iter().all(|file| file.2 == Some(of_bytes(b"86400.5")) && file.3.is_some()), "{first:?}");
        // Another content of the same length under the same times, as far as a program can set them.
        let modified = fs::metadata(path("touched")).unwrap().modified().unwrap();
        fs::write(path("touched"), "TOUCHED").unwrap();
        File::options().write(true).open(path("touched")).unwrap().set_modified(modified).unwrap();
        stamp("other", "-1");
        fs::write(path("new"), "replaced").unwrap();
        fs::rename(path("new"), path("replaced")).unwrap();
        let now = shown();
        assert_eq!(now.iter().find(|file| file.0 == "old"), first.iter().find(|file| file.0 == "old"));
        let found = |name: &str| now.iter().find(|file| file.0 == name).map(|file| (file.2, file.3));
        assert_eq!(found("touched"), Some((None, "86400.5".parse().ok())), "its digest is not certain any more");
        assert_eq!(found("other"), Some((Some(of_bytes(b"-1")), "-1".parse().ok())));
        assert_eq!(found("replaced"), Some((None, None)));
    }

    #[test]
    fn a_folder_has_its_files_and_folders_with_files() {
        let f = Fixture::with(&["a-b", "a/w", "a/x/1", "a/x/2", "a/x0", "a0", "b/c/d"]);
        fs::create_dir_all(f.dir.path().join("files/a/empty/inner")).unwrap();
        std::os::unix::fs::symlink(f.dir.path().join("files/b"), f.dir.path().join("files/a/link")).unwrap();
        for (path, prefix, listed) in [
            ("", "", &["a-b", "a/", "a0", "b/"][..]),
            ("a/", "a/", &["a/w", "a/x/", "a/x0"]),
            ("a/", "a/x", &["a/x/", "a/x0"]),
            ("", "b/c/", &["b/"]),
            ("b/", "b/c/d", &["b/c/"]),
            ("b/", "b/c/e", &[]),
            ("a/x/", "", &["a/x/1", "a/x/2"]),
            ("a/empty/", "", &[]),
            ("a/link/", "", &[]),
            ("a/w/", "", &[]),
            ("nothing/", "", &[]),
            ("../", "", &[]),
            ("/", "", &[]),
        ] {
            for after in 0..=listed.len() {
                let last = if after == 0 { "" } else { listed[after - 1] };
                let mut names = vec![];
                let each = |entry: FolderEntry| {
                    names.push(entry.name().to_owned());
                    ControlFlow::Continue(())
                };
                f.store.list_level(path, prefix, last, each).unwrap();
                assert_eq!(names, listed[after..], "{path} {prefix} {last}");
            }
        }
    }

    #[test]
    fn many_names_are_listed_however_few_are_gathered() {
        let names: Vec<String> = (0..3000).map(|i| format!("{}/{i:05}{}", i % 7, "x".repeat(i % 90))).collect();
        let f = Fixture::with(&names.iter().map(String::as_str).collect::<Vec<_>>());
        let mut sorted = names;
        sorted.sort_unstable();
        assert_eq!(f.list("", "", usize::MAX), sorted);
        let folder = File::open(f.dir.path().join("files/3")).unwrap();
        let (wanted, mut last, mut seen) = (Wanted { prefix: "", after: "" }, String::new(), vec![]);
        loop {
            let batch = next_names(&folder, "3/", &wanted, &last, 1000).unwrap();
            assert!(batch.names.iter().map(|name| name.len() + BESIDE).sum::<usize>() <= 1000);
            seen.extend(batch.names.iter().map(|name| format!("3/{name}")));
            if batch.is_all {
                break;
            }
            last.clone_from(batch.names.last().unwrap());
        }
        assert_eq!(seen, f.list("3/", "", usize::MAX));
    }

    #[test]
    fn nothing_but_regular_files_is_listed_and_no_link_is_followed() {
        let f = Fixture::with(&["a/file"]);
        let files = f.dir.path().join("files");
        fs::create_dir_all(files.join("empty/inner")).unwrap();
        std::os::unix::fs::symlink(f.dir.path(), files.join("link")).unwrap();
        std::os::unix::fs::symlink(files.join("a/file"), files.join("a/link")).unwrap();
        nix::unistd::mkfifo(&files.join("fifo"), Mode::S_IRWXU).unwrap();
        fs::write(files.join("new\nline"), "").unwrap();
        fs::write(files.join(OsStr::from_bytes(b"\xFF")), "").unwrap();
        assert_eq!(f.list("", "", 99), ["a/file"]);
        assert_eq!(f.list("link/", "", 99), Vec::<String>::new());
    }
}
