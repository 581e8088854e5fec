//! The user under whom a data folder is changed by hand: its owner, as whom the daemon runs. The daemon might be unable
//! to read or to change another user's files. So root goes on as the owner, and other users are refused.

use bigup_core::storage::data_dir::DataDir;
use nix::unistd::{Gid, Uid, geteuid, setgid, setgroups, setuid};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Opens a data folder for changes, as its owner.
///
/// # Errors
/// It does not exist, it belongs to another user, or as the system gives them.
pub fn open(data_dir: &Path) -> io::Result<DataDir> {
    let data = DataDir::open(data_dir)?;
    become_owner_of(&data.tmp())?;
    // A folder opened as root must not be used any more.
    DataDir::open(data_dir)
}

/// The same, making its missing parts. If the folder does not exist at all, it belongs to the user who makes it.
///
/// # Errors
/// It belongs to another user, or as the system gives them.
pub fn create(data_dir: &Path) -> io::Result<DataDir> {
    if data_dir.exists() {
        become_owner_of(data_dir)?;
    }
    DataDir::create(data_dir)
}

fn become_owner_of(folder: &Path) -> io::Result<()> {
    let found = std::fs::metadata(folder)?;
    let (owner, group, me) = (Uid::from_raw(found.uid()), Gid::from_raw(found.gid()), geteuid());
    if owner == me {
        return Ok(());
    }
    if !me.is_root() {
        let folder = folder.display();
        let why =
            format!("{folder} belongs to the user {owner}, this is the user {me}: run it as that user, or as root");
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
    }
    setgroups(&[group]).and_then(|()| setgid(group)).and_then(|()| setuid(owner))?;
    Ok(())
}
