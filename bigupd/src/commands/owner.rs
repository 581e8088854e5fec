//! Who changes a data folder by hand: the user to whom it belongs, as whom the daemon runs. What another user left there
//! the daemon might be unable to read or to change. So root goes on as that user, and nobody else may.

use bigup_core::storage::data_dir::DataDir;
use nix::unistd::{Gid, Uid, geteuid, setgid, setgroups, setuid};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Opens a data folder for changes, as its owner.
///
/// # Errors
/// There is none, it belongs to somebody else, or as the system gives them.
pub fn open(data_dir: &Path) -> io::Result<DataDir> {
    let data = DataDir::open(data_dir)?;
    become_owner_of(&data.tmp())?;
    // What was opened as root is not to be used any more.
    DataDir::open(data_dir)
}

/// The same, making what is missing of it. What is not there at all belongs to whoever makes it.
///
/// # Errors
/// It belongs to somebody else, or as the system gives them.
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
