//! The folders of a data folder, and nothing of what is in them.
//!
//! ```text
//! DATA/info.ini       see crate::info_ini
//! DATA/tokens.json    who may do what, once there are tokens; only bigupd reads and writes it
//! DATA/tmp/<upload>/  one unfinished upload: its spool, see crate::spool
//! DATA/tmp/.…         spools being made or removed; never looked into
//! DATA/files/<name>   finished files, see crate::store
//! ```

use crate::disk::Context;
use std::io;
use std::path::{Path, PathBuf};

/// A data folder, shared by any number of daemons and mergers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataDir {
    root: PathBuf,
}

impl DataDir {
    /// Takes `root` as a data folder and creates what is missing of it.
    ///
    /// # Errors
    /// A folder cannot be created, or something else stands in its place.
    pub fn create(root: &Path) -> io::Result<DataDir> {
        let data = DataDir { root: root.to_owned() };
        for folder in [data.root.clone(), data.tmp(), data.files()] {
            std::fs::create_dir_all(&folder).at("creating the folder", &folder)?;
        }
        Ok(data)
    }

    /// Takes `root` as a data folder that exists.
    ///
    /// # Errors
    /// It has no `tmp/` or no `files/`.
    pub fn open(root: &Path) -> io::Result<DataDir> {
        let data = DataDir { root: root.to_owned() };
        for folder in [data.tmp(), data.files()] {
            let found = std::fs::metadata(&folder).at("looking for the folder", &folder)?;
            if !found.is_dir() {
                return Err(io::Error::from(io::ErrorKind::NotADirectory)).at("looking for the folder", &folder);
            }
        }
        Ok(data)
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

    /// The operators' view.
    pub fn info_ini(&self) -> PathBuf {
        self.root.join("info.ini")
    }

    /// Who may do what.
    pub fn tokens_json(&self) -> PathBuf {
        self.root.join("tokens.json")
    }
}
