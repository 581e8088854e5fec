//! The paths of a data folder; other modules know the content of its files.
//!
//! ```text
//! DATA/info.ini       see crate::storage::info_ini
//! DATA/tokens.json    who may do what, once there are tokens; only bigupd reads and writes it
//! DATA/token-uses.json when tokens were used last; only bigupd reads and writes it
//! DATA/tmp/<upload>/  one unfinished upload: its spool, see crate::storage::spool
//! DATA/tmp/.…         spools being made or removed; never looked into
//! DATA/files/<name>   finished files, see crate::storage::store
//! DATA/completed/<…>/ finished files that a hook is still to be told of, see crate::storage::finish::completion
//! DATA/damaged/<time>/ what a repair, or a begin, moved out of the way, as in a data folder
//! ```

use crate::storage::disk::{self, IoContext, MountedFs, may_be_shared};
use crate::storage::group_sync::GroupSync;
use crate::storage::list_memory::ListMemory;
use crate::storage::objects::Objects;
use nix::unistd::{AccessFlags, eaccess};
use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};

/// Permissions of finished files (chmod(2)). `None`: the process's umask decides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileModes {
    /// Of finished files.
    pub file: Option<u32>,
    /// Of folders that are made for them.
    pub dir: Option<u32>,
}

/// A data folder, shared by any number of daemons and mergers.
#[derive(Clone, Debug)]
pub struct DataDir {
    root: PathBuf,
    leaves_notices: bool,
    modes: FileModes,
    /// Where finished files go. `None`: into `files/`.
    objects: Option<Arc<Objects>>,
    is_shared: bool,
    /// True if files of `tmp/` can have holes; asked when it is of interest for the first time.
    has_holes: Arc<OnceLock<bool>>,
    /// The group syncs of this process in this data folder.
    pub(crate) syncs: Arc<GroupSync>,
    /// The finished files that this process has listed.
    pub(crate) list_memory: Arc<ListMemory>,
    /// Bytes that this process has taken since it had the file system count them, where that counts late.
    pub(crate) uncounted: Arc<AtomicU64>,
}

impl DataDir {
    fn at(root: &Path) -> DataDir {
        let (has_holes, syncs, list_memory, uncounted) = Default::default();
        // A folder that is not there is not found out here, and is an error elsewhere.
        let is_shared = may_be_shared(root).unwrap_or(false);
        DataDir {
            root: root.to_owned(),
            leaves_notices: false,
            modes: FileModes::default(),
            objects: None,
            is_shared,
            has_holes,
            syncs,
            list_memory,
            uncounted,
        }
    }

    /// Takes `root` as a data folder and creates its missing folders.
    ///
    /// # Errors
    /// A folder cannot be created or written to, or something else stands in its place.
    pub fn create(root: &Path) -> io::Result<DataDir> {
        std::fs::create_dir_all(root).at("creating the folder", root)?;
        let data = DataDir::at(root);
        create_folder(&data.tmp())?;
        create_folder(&data.files())?;
        for folder in [data.root.clone(), data.tmp(), data.files()] {
            eaccess(&folder, AccessFlags::R_OK | AccessFlags::W_OK | AccessFlags::X_OK).at("writing to", &folder)?;
        }
        data.check_mounts()?;
        Ok(data)
    }

    /// Takes `root` as a data folder that exists.
    ///
    /// # Errors
    /// It has no `tmp/` or no `files/`.
    pub fn open(root: &Path) -> io::Result<DataDir> {
        let data = DataDir::at(root);
        check_folder(&data.tmp())?;
        check_folder(&data.files())?;
        Ok(data)
    }

    /// The same, but each finished file leaves a [record](crate::storage::finish::completion). All programs that
    /// publish into a data folder must agree on that.
    ///
    /// # Errors
    /// `completed/` cannot be created or written to.
    pub fn recording_completions(self) -> io::Result<DataDir> {
        let completed = self.completed();
        create_folder(&completed)?;
        eaccess(&completed, AccessFlags::R_OK | AccessFlags::W_OK | AccessFlags::X_OK).at("writing to", &completed)?;
        self.check_mounts()?;
        Ok(DataDir { leaves_notices: true, ..self })
    }

    /// True if other machines may have it mounted, too.
    pub fn is_shared(&self) -> bool {
        self.is_shared
    }

    /// The same, where finished files and their folders get these permissions.
    pub fn with_modes(self, modes: FileModes) -> DataDir {
        DataDir { modes, ..self }
    }

    /// The same, where finished files go into a store of objects.
    pub fn with_objects(self, objects: Option<Arc<Objects>>) -> DataDir {
        DataDir { objects, ..self }
    }

    /// The store of objects that finished files go to. `None`: they go into `files/`.
    pub fn objects(&self) -> Option<&Arc<Objects>> {
        self.objects.as_ref()
    }

    /// True if uploads that begin now may give the space of their parts back once the store of objects has them
    /// ([`UploadRecord::gives_parts_back`](crate::storage::spool::UploadRecord::gives_parts_back)).
    pub fn gives_back(&self) -> bool {
        self.objects.is_some()
            && *self.has_holes.get_or_init(|| {
                let tmp = self.tmp();
                let has_holes = disk::has_holes(&tmp);
                match &has_holes {
                    Ok(true) => {}
                    Ok(false) => log::warn!(
                        "the file system of {} has no holes: each upload takes its whole size there until its object stands",
                        tmp.display()
                    ),
                    Err(e) => log::warn!("uploads that begin now take their whole size until their objects stand: {e}"),
                }
                has_holes.unwrap_or(false)
            })
    }

    /// Permissions of finished files and their folders.
    pub fn modes(&self) -> FileModes {
        self.modes
    }

    /// True if each finished file leaves a completion record.
    pub fn leaves_notices(&self) -> bool {
        self.leaves_notices
    }

    /// An error's text with paths as they are below this folder: clients are told of it, and where the folder lies is not
    /// their business.
    pub fn without_root(&self, text: &str) -> String {
        text.replace(&format!("{}/", self.root.display()), "")
    }

    /// The folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where spools are.
    pub fn tmp(&self) -> PathBuf {
        self.root.join("tmp")
    }

    /// Where finished files are.
    pub fn files(&self) -> PathBuf {
        self.root.join("files")
    }

    /// Folder of completion records; missing before the first record.
    pub fn completed(&self) -> PathBuf {
        self.root.join("completed")
    }

    /// Makes sure that finished files can be moved from `tmp/` to their places: only within one mount.
    ///
    /// # Errors
    /// They cannot; the error names the folders on other mounts and the remedy. Or as the system gives them.
    pub fn check_mounts(&self) -> io::Result<()> {
        let tmp = self.tmp();
        let here = MountedFs::of_folder(&tmp)?;
        let completed = Some(self.completed()).filter(|completed| completed.exists());
        for folder in [Some(self.files()), completed].into_iter().flatten() {
            if MountedFs::of_folder(&folder)? != here {
                return Err(io::Error::other(format!(
                    "{} and {} are on different mounts, between which no file can be moved: \
                     mount one disk for both, at {}",
                    folder.display(),
                    tmp.display(),
                    self.root.display()
                )));
            }
        }
        Ok(())
    }

    /// Mounts below `files/`, as far as the kernel tells: no file of a name there can be finished.
    pub fn mounts_in_files(&self) -> Vec<PathBuf> {
        let Ok(files) = self.files().canonicalize() else { return vec![] };
        // Without /proc each upload finds out for itself.
        let told = std::fs::read("/proc/self/mountinfo").unwrap_or_default();
        mount_points(&told).filter(|point| *point != files && point.starts_with(&files)).collect()
    }

    /// A data folder for files that are moved out of the way at the time `when`; no program reads it.
    ///
    /// # Errors
    /// It cannot be created.
    pub fn aside(&self, when: &str) -> io::Result<DataDir> {
        let damaged = self.root.join("damaged");
        create_folder(&damaged)?;
        create_folder(&damaged.join(when))?;
        DataDir::create(&damaged.join(when))
    }

    /// The operators' view.
    pub fn info_ini(&self) -> PathBuf {
        self.root.join("info.ini")
    }

    /// File of the tokens and their permissions.
    pub fn tokens_json(&self) -> PathBuf {
        self.root.join("tokens.json")
    }
}

/// The places that a text like /proc/self/mountinfo tells of: the fifth field of each line, with blanks and the like as
/// octal numbers (proc_pid_mountinfo(5)).
fn mount_points(told: &[u8]) -> impl Iterator<Item = PathBuf> {
    let fields = told.split(|byte| *byte == b'\n').filter_map(|line| line.split(|byte| *byte == b' ').nth(4));
    fields.map(|field| PathBuf::from(OsString::from_vec(unescaped(field))))
}

fn unescaped(field: &[u8]) -> Vec<u8> {
    let (mut bytes, mut rest) = (vec![], field);
    while let Some((first, more)) = rest.split_first() {
        let octal = more.get(..3).filter(|_| *first == b'\\').and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &more[3..];
            }
            None => {
                bytes.push(*first);
                rest = more;
            }
        }
    }
    bytes
}

/// Creates a folder, unless it is there.
pub(crate) fn create_folder(path: &Path) -> io::Result<()> {
    match std::fs::create_dir(path) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => check_folder(path),
        made => made.at("creating the folder", path),
    }
}

/// Makes sure that `path` is a folder itself: a symlink in place of one of ours would lead elsewhere.
///
/// # Errors
/// It is something else, or as the system gives them.
pub fn check_folder(path: &Path) -> io::Result<()> {
    let found = std::fs::symlink_metadata(path).at("looking for the folder", path)?;
    if !found.is_dir() {
        let what = if found.is_symlink() { "a symbolic link, not a folder" } else { "not a folder" };
        return Err(io::Error::other(what)).at("looking for the folder", path);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_read_with_their_escapes() {
        let told = b"36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw\n\
                     37 35 0:5 / /a\\040b\\134c\\999 rw - tmpfs tmpfs rw\n\n";
        let points: Vec<PathBuf> = mount_points(told).collect();
        assert_eq!(points, [Path::new("/mnt2"), Path::new("/a b\\c\\999")]);
    }
}
