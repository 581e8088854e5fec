//! File systems that several machines can have mounted at once.

use super::IoContext;
use crate::shared_file_systems::TYPES;
use nix::sys::statfs::{FsType, statfs};
use std::io;
use std::path::Path;

/// True if other machines may change what is below `path`. Changes of theirs are not told to watchers here (inotify(7)).
///
/// # Errors
/// As the system gives them.
pub fn may_be_shared(path: &Path) -> io::Result<bool> {
    let found = statfs(path).at("looking at the file system of", path)?.filesystem_type();
    Ok(TYPES.iter().any(|known| found == FsType(*known as _)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_systems_of_this_machine_alone_are_not_shared() {
        assert!(!may_be_shared(Path::new("/proc")).unwrap());
        assert!(may_be_shared(Path::new("/no/such/folder")).is_err());
    }
}
