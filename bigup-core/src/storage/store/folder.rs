//! Walking to a name in `files/` component by component, never through a symlink, and making and removing folders
//! there.

use super::{Store, StoreError};
use crate::protocol::name::FileName;
use crate::storage::disk::{IoContext, MountedFs, SharedLock};
use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, RenameFlags, openat, renameat, renameat2};
use nix::sys::stat::{FchmodatFlags, Mode, fchmodat, fstatat, mkdirat};
use nix::unistd::{UnlinkatFlags, linkat, unlinkat};
use std::cell::{Cell, RefCell};
use std::ffi::OsStr;
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

/// Flags with which folders are opened.
pub(super) const FOLDER: OFlag =
    OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

/// Most folders that are looked through for something in them.
pub(super) const MAX_HOLLOW: u32 = 64;

/// Most attempts to give a file its name while folders there come and go.
const ATTEMPTS: usize = 100;

impl Store {
    /// The reason no file can be moved from `tmp/` to `name`: a folder on the way is on another mount. `None` if a file
    /// can be moved, as far as may be seen beforehand.
    ///
    /// # Errors
    /// As the system gives them.
    pub fn out_of_reach(&self, name: &FileName) -> io::Result<Option<String>> {
        if let Some(objects) = &self.objects {
            return Ok(objects.cannot_name(name));
        }
        self.remembered.out_of_reach(name.folder(), || self.on_another_mount(name))
    }

    fn on_another_mount(&self, name: &FileName) -> io::Result<Option<String>> {
        let here = MountedFs::of_folder(&self.tmp)?;
        let (passed, found) = (Cell::new(0), Cell::new(None));
        let walked = self.walk(name, |folder, _| {
            if MountedFs::of(folder).at("looking at the file system of", &self.path_of(name))? != here {
                found.set(Some(passed.get()));
                return Err(StoreError::Exists);
            }
            passed.set(passed.get() + 1);
            Ok(())
        });
        match (found.get(), walked) {
            (Some(depth), _) => Ok(Some(elsewhere(name, depth))),
            // Missing folders are made where the last existing folder is; anything else in the way is found later.
            (None, Err(StoreError::Io(e))) if e.kind() != io::ErrorKind::NotFound => Err(e),
            (None, _) => Ok(None),
        }
    }

    /// The error for a file that could not be moved to `name`, since that is elsewhere for the file system: on another
    /// mount, or of another project quota.
    pub(super) fn moved_nowhere(&self, name: &FileName) -> StoreError {
        // Folders of another project quota cannot be told beforehand (xfs_quota(8)).
        let seen = self.out_of_reach(name).ok().flatten();
        StoreError::InTheWay(seen.unwrap_or_else(|| elsewhere(name, name.components().count() - 1)))
    }

    /// The innermost folder on the way to `name` that is there. Those made below it get its group, if it is setgid.
    pub(super) fn deepest_folder_of(&self, name: &FileName) -> io::Result<Metadata> {
        self.remembered.deepest(name.folder(), || {
            let deepest = RefCell::new(std::fs::metadata(&self.files)?);
            // The walk may end early: it ends at the deepest one.
            let _ = self.walk(name, |folder, _| {
                *deepest.borrow_mut() = folder.metadata()?;
                Ok(())
            });
            Ok(deepest.into_inner())
        })
    }

    /// Makes the folder `name`, and those that it is in, durable. False: it was there.
    ///
    /// A kill leaves some of them, the outer ones first. A folder with nothing in it gives way to a file of its name.
    ///
    /// # Errors
    /// A file has its name or that of a folder on the way; the finished files are objects, which have no folders; or as
    /// the system gives them.
    pub fn make_folder(&self, name: &FileName) -> Result<bool, StoreError> {
        if self.objects.is_some() {
            return Err(StoreError::InTheWay(
                "finished files are objects, and among these are no empty folders".into(),
            ));
        }
        let inner = FileName::new(&format!("{name}/x")).map_err(|e| StoreError::InTheWay(e.to_string()))?;
        let mut attempts = 1..ATTEMPTS;
        loop {
            let made = RefCell::default();
            let done = self.make_folder_of(&inner, &made).map(drop);
            let made = made.into_inner();
            match done {
                Ok(()) => {
                    // Another process may have made it, and died before its sync.
                    self.sync_entry(&inner)?;
                    return Ok(made.contains(&(name.components().count() - 1)));
                }
                // One of them went in the instant after it was made or found.
                Err(StoreError::Io(e)) if e.kind() == io::ErrorKind::NotFound && attempts.next().is_some() => {}
                Err(e) => {
                    self.remove_folders(&inner, &made);
                    return Err(e);
                }
            }
        }
    }

    /// Moves `from_name` of the folder `here` under `name`, as [`Store::publish`] does.
    pub(super) fn take(
        &self,
        here: &File,
        from_name: &OsStr,
        name: &FileName,
        replace: bool,
    ) -> Result<(), StoreError> {
        let to = last_component(name);
        let moved = self.settle(name, |folder| {
            if replace {
                // A removal must not take the new file for the one that it looked at.
                let _lock = SharedLock::on(folder).map_err(|e| Errno::from_raw(e.raw_os_error().unwrap_or(0)))?;
                return renameat(here, from_name, folder, to);
            }
            match renameat2(here, from_name, folder, to, RenameFlags::RENAME_NOREPLACE) {
                // This file system has no such rename.
                Err(Errno::EINVAL | Errno::ENOSYS) => move_if_free(here, from_name, folder, to),
                done => done,
            }
        })?;
        match moved {
            Ok(()) => {}
            Err(Errno::EEXIST) => return Err(StoreError::Exists),
            Err(Errno::EISDIR | Errno::ENOTEMPTY) => {
                return Err(StoreError::InTheWay(format!("{name} is a folder with finished files")));
            }
            Err(Errno::EXDEV) => return Err(self.moved_nowhere(name)),
            Err(e) => return Err(e).at("publishing", &self.path_of(name)).map_err(StoreError::Io),
        }
        self.sync_entry(name)
    }

    /// Has `put` give a file the name `name` in its folder, and creates what is missing of that. If folders with
    /// nothing in them have that name, they go, and `put` is tried again. It is also tried again if its own folder went
    /// as one of those. If it fails, the folders that were made for it go again, unless somebody else uses them by
    /// then.
    pub(super) fn settle(
        &self,
        name: &FileName,
        put: impl Fn(&File) -> nix::Result<()>,
    ) -> Result<nix::Result<()>, StoreError> {
        let mut attempts = 1..ATTEMPTS;
        loop {
            let made = RefCell::default();
            let (done, may_pass) = match self.make_folder_of(name, &made) {
                Ok(folder) => {
                    let done = put(&folder);
                    let may_pass = match done {
                        Err(Errno::EEXIST | Errno::EISDIR | Errno::ENOTEMPTY) => {
                            remove_hollow(&folder, last_component(name))
                        }
                        // Otherwise the file that is to get the name is gone, and stays so.
                        Err(Errno::ENOENT) => folder.metadata().is_ok_and(|found| found.nlink() == 0),
                        _ => false,
                    };
                    (Ok(done), may_pass)
                }
                // A folder on the way went in the instant after it was made or found.
                Err(StoreError::Io(e)) if e.kind() == io::ErrorKind::NotFound => (Err(StoreError::Io(e)), true),
                Err(e) => (Err(e), false),
            };
            if !matches!(done, Ok(Ok(()))) {
                self.remembered.forget();
                self.remove_folders(name, &made.into_inner());
            }
            if !may_pass || attempts.next().is_none() {
                return done;
            }
        }
    }

    /// Makes the entry of a file that stands under `name` durable, and those of its folders up to `files/`: the process
    /// that put it there, or made a folder, may have died before it did so, or may be about to do it.
    ///
    /// # Errors
    /// As the system gives them.
    pub fn sync_entry(&self, name: &FileName) -> Result<(), StoreError> {
        if self.objects.is_some() {
            // An object that is shown is stored.
            return Ok(());
        }
        let sync_all = || {
            self.walk(name, |folder, _| Ok(folder.sync_all().at("syncing the folder of", &self.path_of(name))?))
                .map(drop)
        };
        Ok(self.syncs.sync(name.folder(), || sync_all().map_err(StoreError::into_io))?)
    }

    /// Opens the folder that `name` is in.
    pub(super) fn folder_of(&self, name: &FileName) -> Result<Arc<File>, StoreError> {
        self.remembered.find(name.folder(), || self.walk(name, |_, _| Ok(())))
    }

    /// Removes those folders on the way to `name` that have these depths, the innermost first, as long as they are
    /// empty.
    fn remove_folders(&self, name: &FileName, depths: &[usize]) {
        for depth in depths.iter().rev() {
            let folder: Vec<&str> = name.components().take(depth + 1).collect();
            let Ok(folder) = FileName::new(&folder.join("/")) else { return };
            let removed = self
                .folder_of(&folder)
                .map(|parent| unlinkat(&parent, last_component(&folder), UnlinkatFlags::RemoveDir));
            // The folders above have this one in them.
            let Ok(Ok(())) = removed else { return };
        }
    }

    /// Opens the folder that `name` is in, and creates what is missing; `made` gets the depths of the created folders.
    fn make_folder_of(&self, name: &FileName, made: &RefCell<Vec<usize>>) -> Result<Arc<File>, StoreError> {
        self.remembered.find_or_make(name.folder(), || self.walk_and_make(name, made))
    }

    fn walk_and_make(&self, name: &FileName, made: &RefCell<Vec<usize>>) -> Result<File, StoreError> {
        let depth = RefCell::new(0..);
        self.walk(name, |folder, next| {
            let (Some(component), Some(depth)) = (next, depth.borrow_mut().next()) else { return Ok(()) };
            match mkdirat(folder, component, Mode::from_bits_truncate(0o777)) {
                Ok(()) => {}
                Err(Errno::EEXIST) => return Ok(()),
                Err(e) => return Err(e).at("creating the folder of", &self.path_of(name)).map_err(StoreError::Io),
            }
            if let Some(mode) = self.modes.dir {
                let made = fchmodat(folder, component, Mode::from_bits_truncate(mode), FchmodatFlags::FollowSymlink);
                made.at("setting the mode of the folder of", &self.path_of(name))?;
            }
            if let Err(e) = folder.sync_all() {
                // The next process would find it there and take it for durable.
                let _ = unlinkat(folder, component, UnlinkatFlags::RemoveDir);
                return Err(e).at("syncing a folder of", &self.path_of(name)).map_err(StoreError::Io);
            }
            made.borrow_mut().push(depth);
            Ok(())
        })
    }

    /// Opens the folders that lead to `name` one after the other, beginning with `files/`. Each is shown to `visit`,
    /// with the name of the next one in it. Returns the last one.
    fn walk(
        &self,
        name: &FileName,
        visit: impl Fn(&File, Option<&str>) -> Result<(), StoreError>,
    ) -> Result<File, StoreError> {
        let mut folder =
            nix::fcntl::open(&self.files, FOLDER, Mode::empty()).map(File::from).at("opening", &self.files)?;
        let mut components: Vec<&str> = name.components().collect();
        components.pop();
        for component in components {
            visit(&folder, Some(component))?;
            folder = match openat(&folder, component, FOLDER, Mode::empty()) {
                Ok(fd) => File::from(fd),
                Err(Errno::ENOTDIR | Errno::ELOOP) => {
                    let what = format!("{component} of {name} is a file or a symbolic link, not a folder");
                    return Err(StoreError::InTheWay(crate::protocol::name::printable(&what)));
                }
                Err(e) => return Err(e).at("opening the folder of", &self.path_of(name)).map_err(StoreError::Io),
            };
        }
        visit(&folder, None)?;
        Ok(folder)
    }
}

/// True if there is nothing in a folder, or only such folders; `left` is the number of folders that may still be
/// looked through. `false` also if there are too many.
pub(super) fn is_hollow(folder: &File, left: &mut u32) -> nix::Result<bool> {
    let mut inner = vec![];
    for entry in Dir::openat(folder, ".", FOLDER, Mode::empty())?.iter() {
        let name = entry?.file_name().to_owned();
        if name.as_c_str() != c"." && name.as_c_str() != c".." {
            inner.push(name);
        }
        if inner.len() > *left as usize {
            return Ok(false);
        }
    }
    for name in inner {
        *left = left.saturating_sub(1);
        let is_hollow = match openat(folder, name.as_c_str(), FOLDER, Mode::empty()) {
            Ok(inner) => *left > 0 && is_hollow(&inner.into(), left)?,
            Err(Errno::ENOENT) => true,
            Err(_) => false,
        };
        if !is_hollow {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Removes the folder `name` of `folder` if it is hollow. Nothing goes that is no empty folder at that instant: a file
/// that comes into one meanwhile keeps it, and all above it. Returns true if it went.
fn remove_hollow(folder: &File, name: &str) -> bool {
    let is_removed = || -> nix::Result<bool> {
        let found = File::from(openat(folder, name, FOLDER, Mode::empty())?);
        if !is_hollow(&found, &mut { MAX_HOLLOW })? {
            return Ok(false);
        }
        remove_inner(&found)?;
        unlinkat(folder, name, UnlinkatFlags::RemoveDir).map(|()| true)
    };
    is_removed().unwrap_or(false)
}

/// Removes the folders in `folder`, hollow ones, from the innermost on.
fn remove_inner(folder: &File) -> nix::Result<()> {
    for entry in Dir::openat(folder, ".", FOLDER, Mode::empty())?.iter() {
        let entry = entry?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            remove_inner(&openat(folder, name, FOLDER, Mode::empty())?.into())?;
            unlinkat(folder, name, UnlinkatFlags::RemoveDir)?;
        }
    }
    Ok(())
}

/// Says that finished files cannot get into the folder of `name` that is so many steps below `files/`.
fn elsewhere(name: &FileName, depth: usize) -> String {
    let steps: String = name.components().take(depth).flat_map(|component| ["/", component]).collect();
    let outside = if depth > 0 { format!(", or use a name outside of files{steps}") } else { String::new() };
    crate::protocol::name::printable(&format!(
        "files{steps} in the server's data folder is on another mount (or subvolume, or project quota) than tmp, and no \
         file can be moved from there: mount one disk for the whole data folder{outside}"
    ))
}

pub(super) fn last_component(name: &FileName) -> &str {
    name.components().last().expect("a name has at least one component")
}

/// A link does not replace either. If there are no links, the only way left is to look first: uploads of one name never
/// get here at once, since the lock of the merger is between them.
fn move_if_free(here: &File, from: &OsStr, folder: &File, to: &str) -> nix::Result<()> {
    match linkat(here, from, folder, to, AtFlags::empty()) {
        Ok(()) => unlinkat(here, from, UnlinkatFlags::NoRemoveDir),
        Err(Errno::EPERM | Errno::EOPNOTSUPP | Errno::ENOSYS) => {
            match fstatat(folder, to, AtFlags::AT_SYMLINK_NOFOLLOW) {
                Ok(_) => Err(Errno::EEXIST),
                Err(Errno::ENOENT) => renameat(here, from, folder, to),
                Err(e) => Err(e),
            }
        }
        Err(e) => Err(e),
    }
}
