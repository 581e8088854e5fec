//! The folders of a data folder, and nothing of what is in them.
//!
//! ```text
//! DATA/info.ini       see crate::info_ini
//! DATA/tokens.json    who may do what, once there are tokens; only bigupd reads and writes it
//! DATA/token-uses.json when tokens were used last; only bigupd reads and writes it
//! DATA/tmp/<upload>/  one unfinished upload: its spool, see crate::spool
//! DATA/tmp/.…         spools being made or removed; never looked into
//! DATA/files/<name>   finished files, see crate::store
//! DATA/completed/<…>/ finished files that a hook is still to be told of, see crate::notice
//! DATA/damaged/<time>/ what a repair moved out of the way, as in a data folder
//! ```

use crate::disk::Context;
use crate::joint::JointSyncs;
use nix::unistd::{AccessFlags, eaccess};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A data folder, shared by any number of daemons and mergers.
#[derive(Clone, Debug)]
pub struct DataDir {
    root: PathBuf,
    leaves_notices: bool,
    /// What this process syncs in it for several at once.
    pub(crate) syncs: Arc<JointSyncs>,
}

impl DataDir {
    /// Takes `root` as a data folder and creates what is missing of it.
    ///
    /// # Errors
    /// A folder cannot be created or written to, or something else stands in its place.
    pub fn create(root: &Path) -> io::Result<DataDir> {
        let data = DataDir { root: root.to_owned(), leaves_notices: false, syncs: Arc::default() };
        std::fs::create_dir_all(&data.root).at("creating the folder", &data.root)?;
        create_folder(&data.tmp())?;
        create_folder(&data.files())?;
        for folder in [data.root.clone(), data.tmp(), data.files()] {
            eaccess(&folder, AccessFlags::R_OK | AccessFlags::W_OK | AccessFlags::X_OK).at("writing to", &folder)?;
        }
        Ok(data)
    }

    /// Takes `root` as a data folder that exists.
    ///
    /// # Errors
    /// It has no `tmp/` or no `files/`.
    pub fn open(root: &Path) -> io::Result<DataDir> {
        let data = DataDir { root: root.to_owned(), leaves_notices: false, syncs: Arc::default() };
        check_folder(&data.tmp())?;
        check_folder(&data.files())?;
        Ok(data)
    }

    /// The same, where each file that is finished leaves a [notice](crate::notice). All who publish into a data folder must
    /// be of one mind about that.
    ///
    /// # Errors
    /// `completed/` cannot be created or written to.
    pub fn leaving_notices(self) -> io::Result<DataDir> {
        let completed = self.completed();
        create_folder(&completed)?;
        eaccess(&completed, AccessFlags::R_OK | AccessFlags::W_OK | AccessFlags::X_OK).at("writing to", &completed)?;
        Ok(DataDir { leaves_notices: true, ..self })
    }

    /// Whether each file that is finished leaves a notice.
    pub fn leaves_notices(&self) -> bool {
        self.leaves_notices
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

    /// Where notices of finished files are, once there were any.
    pub fn completed(&self) -> PathBuf {
        self.root.join("completed")
    }

    /// A data folder for what is moved out of this one's way at the time `when`; no program looks into it.
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

    /// Who may do what.
    pub fn tokens_json(&self) -> PathBuf {
        self.root.join("tokens.json")
    }
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
