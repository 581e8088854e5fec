//! File systems that several machines can have mounted at once.

use super::IoContext;
use nix::sys::statfs::{FsType, statfs};
use std::io;
use std::path::Path;

/// Types of such file systems (statfs(2), linux/magic.h): NFS, SMB of three versions, Ceph, AFS of two kinds, 9P, GFS2,
/// OCFS2, Lustre, GPFS, BeeGFS; and FUSE, which may be GlusterFS or another one.
const TYPES: [i64; 14] = [
    0x6969,
    0x517b,
    0xff53_4d42,
    0xfe53_4d42,
    0x00c3_6400,
    0x5346_414f,
    0x6b41_4653,
    0x0102_1997,
    0x0116_1970,
    0x7461_636f,
    0x0bd0_0bd0,
    0x4750_4653,
    0x1983_0326,
    0x6573_5546,
];

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
