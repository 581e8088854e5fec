//! The list of finished files, in the order of their names' bytes.
//!
//! Nothing sorts all names: of each folder on the way those that come next are gathered, up to [`MOST_BYTES`] in all
//! such folders, and the folder is read again for those after them. In this order a folder counts as its name with the
//! `/`: `a-b`, `a.txt`, `a/x`, `a0`.

use super::digest_attribute::StoredDigest;
use super::folder::FOLDER;
use super::{OpenEntry, OpenFile, Store, StoreError};
use crate::protocol::name::FileName;
use crate::storage::disk::IoContext;
use nix::dir::{Dir, Type};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, openat};
use nix::sys::stat::{Mode, SFlag, fstatat};
use std::collections::BinaryHeap;
use std::fs::File;
use std::io;
use std::ops::ControlFlow;
use std::time::SystemTime;

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
    /// Time of the last write to it.
    pub modified: SystemTime,
    /// The digest of its content, if that is certain.
    pub stored_digest: Option<StoredDigest>,
}

/// The part of the names that a list shows.
struct Wanted<'a> {
    prefix: &'a str,
    after: &'a str,
}

impl Wanted<'_> {
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
        let folder = prefix.rsplit_once('/').map_or("", |(folder, _)| folder);
        let path = if prefix.contains('/') { format!("{folder}/") } else { String::new() };
        // Any name in that folder will do.
        let Ok(inner) = FileName::new(&format!("{path}x")) else { return Ok(()) };
        let opened = match self.folder_of(&inner) {
            Ok(opened) => opened,
            Err(StoreError::Io(e)) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            Err(_) => return Ok(()),
        };
        let _ = self.list_folder(&opened, &path, &Wanted { prefix, after }, MOST_BYTES, &mut each)?;
        Ok(())
    }

    /// The same of one folder, whose `path` ends in `/` or is empty.
    fn list_folder(
        &self,
        folder: &File,
        path: &str,
        wanted: &Wanted<'_>,
        most_bytes: usize,
        each: &mut impl FnMut(ListedFile) -> ControlFlow<()>,
    ) -> io::Result<ControlFlow<()>> {
        let half = (most_bytes / 2).max(LEAST_BYTES);
        let mut last = String::new();
        loop {
            let Batch { names, is_all } = next_names(folder, path, wanted, &last, half)?;
            for name in &names {
                let flow = match name.strip_suffix('/') {
                    Some(_) => match open_folder(folder, name).at("opening", &self.files.join(path))? {
                        Some(inner) => self.list_folder(&inner, &format!("{path}{name}"), wanted, half, each)?,
                        None => ControlFlow::Continue(()),
                    },
                    None => {
                        self.listed(folder, &format!("{path}{name}"))?.map_or(ControlFlow::Continue(()), &mut *each)
                    }
                };
                if flow.is_break() {
                    return Ok(flow);
                }
            }
            match names.last() {
                Some(name) if !is_all => last.clone_from(name),
                _ => return Ok(ControlFlow::Continue(())),
            }
        }
    }

    /// The file `name`, which is in `folder`. `None` if it went, or cannot be read at all.
    fn listed(&self, folder: &File, name: &str) -> io::Result<Option<ListedFile>> {
        let Ok(name) = FileName::new(name) else { return Ok(None) };
        let file = match self.open_in(folder, &name) {
            Ok(OpenEntry::File(file)) => file,
            Ok(OpenEntry::Nothing | OpenEntry::Other(_)) => return Ok(None),
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
                log::debug!("not listed: {e}");
                return Ok(None);
            }
            Err(e) => return Err(e),
        };
        let OpenFile { found, stored_digest, .. } = self.look_at(&name, file)?;
        Ok(Some(ListedFile { name, size: found.len(), modified: found.modified()?, stored_digest }))
    }
}

/// Names of a folder that come next, in order; those of folders end in `/`.
struct Batch {
    names: Vec<String>,
    /// No names follow them.
    is_all: bool,
}

/// The wanted names of `folder` after `last`.
fn next_names(folder: &File, path: &str, wanted: &Wanted<'_>, last: &str, most_bytes: usize) -> io::Result<Batch> {
    let (mut heap, mut bytes, mut is_all) = (BinaryHeap::new(), 0, true);
    let path_buf = std::path::Path::new(path);
    let mut dir = Dir::openat(folder, ".", FOLDER, Mode::empty()).at("reading", path_buf)?;
    for entry in dir.iter() {
        let entry = entry.at("reading", path_buf)?;
        let Ok(component) = entry.file_name().to_str() else { continue };
        let Some(name) = key_of(folder, component, entry.file_type()) else { continue };
        let whole = format!("{path}{name}");
        let is_wanted = if name.ends_with('/') { wanted.has_folder(&whole) } else { wanted.has_file(&whole) };
        if !is_wanted || name.as_str() <= last || heap.peek().is_some_and(|most| !is_all && name > *most) {
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
/// folder, or has no possible name.
fn key_of(folder: &File, component: &str, kind: Option<Type>) -> Option<String> {
    if FileName::new(component).is_err() {
        return None;
    }
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

/// Opens a folder in `folder`. `None` if it went, or is none any more.
fn open_folder(folder: &File, name: &str) -> nix::Result<Option<File>> {
    match openat(folder, name.trim_end_matches('/'), FOLDER, Mode::empty()) {
        Ok(fd) => Ok(Some(File::from(fd))),
        Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => Ok(None),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::data_dir::DataDir;
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
