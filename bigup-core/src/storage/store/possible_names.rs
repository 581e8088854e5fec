//! The names that the file system can have.

use crate::protocol::name::FileName;
use crate::storage::data_dir::DataDir;
use crate::storage::disk::IoContext;
use crate::storage::spool::MAKING;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use std::io;

/// Longest part of a name that every file system has, in bytes, if its characters are usual ones: that of eCryptfs.
const USUAL_LEN: usize = 143;

/// Tries if the file system of `data` can have files of this name; the inner `Err` says why not. Only unusual names are
/// tried, in a folder of their own.
///
/// # Errors
/// As the system gives them.
pub fn is_possible(data: &DataDir, name: &FileName) -> io::Result<Result<(), String>> {
    if data.objects().is_some() {
        return Ok(Ok(()));
    }
    let is_usual = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let is_plain = |part: &str| part.len() <= USUAL_LEN && part.chars().all(is_usual) && !part.ends_with('.');
    let mut parts = name.components().filter(|part| !is_plain(part)).peekable();
    if parts.peek().is_none() {
        return Ok(Ok(()));
    }
    let trial = data.tmp().join(format!("{MAKING}{}", crate::storage::disk::random_suffix()));
    std::fs::create_dir(&trial).at("creating", &trial)?;
    let tried = parts.try_for_each(|part| {
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        match nix::fcntl::open(&trial.join(part), flags, Mode::S_IRUSR | Mode::S_IWUSR) {
            // A part of the name that differs from another one by case only is there already.
            Ok(_) | Err(Errno::EEXIST) => Ok(()),
            Err(e) => Err((part, e)),
        }
    });
    crate::storage::disk::remove_folder(&trial)?;
    match tried {
        Ok(()) => Ok(Ok(())),
        Err((part, Errno::EINVAL | Errno::EILSEQ | Errno::ENAMETOOLONG | Errno::ENOENT)) => {
            let part = crate::protocol::name::printable(part);
            Ok(Err(format!("the server's file system has no files of the name {part}: use another, by --name")))
        }
        Err((_, e)) => Err(e).at("trying a name in", &trial),
    }
}
