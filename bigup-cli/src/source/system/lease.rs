//! Leases (fcntl(2), `F_SETLEASE`): whether anybody else has a file open for writing, or has it mapped so. Linux only.
#![allow(unsafe_code)]

use crate::source::system::Writers;
use nix::errno::Errno;
use nix::libc::{F_RDLCK, F_SETLEASE, F_UNLCK, SIGURG, c_int, fcntl};
use std::fs::File;
use std::os::fd::AsRawFd;

/// Names the signal that tells of a lease (asm-generic/fcntl.h).
const F_SETSIG: c_int = 10;

/// The programs that have `file`, which is open for reading only, open for writing or mapped for writing at this moment.
/// Unknown: the file is another user's, or its file system has no leases.
pub fn writers(file: &File) -> Writers {
    // A process that comes to write in this instant has us told by a signal, which ends a program unless another one is
    // named. SIGURG is ignored by default (signal(7)).
    let taken = set(file, F_SETSIG, SIGURG).and_then(|()| set(file, F_SETLEASE, F_RDLCK));
    // Given back at once: as long as it is held every process that wants to write waits.
    match taken.and_then(|()| set(file, F_SETLEASE, F_UNLCK)) {
        Ok(()) => Writers::None,
        Err(Errno::EAGAIN) => Writers::Some,
        Err(_) => Writers::Unknown,
    }
}

/// True if nobody can be writing to `file`, see [`writers`]. False: somebody may be.
pub fn has_no_writers(file: &File) -> bool {
    writers(file) == Writers::None
}

fn set(file: &File, command: c_int, value: c_int) -> nix::Result<()> {
    // SAFETY: these commands take an int and no pointer; the descriptor is open for as long as `file` is borrowed.
    Errno::result(unsafe { fcntl(file.as_raw_fd(), command, value) }).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_writer_is_noticed_and_gone_when_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let writer = File::create(&path).unwrap();
        let file = File::open(&path).unwrap();
        assert!(!has_no_writers(&file));
        assert_eq!(writers(&file), Writers::Some);
        drop(writer);
        assert!(has_no_writers(&file));
        assert!(has_no_writers(&file), "it was given back");
        drop(File::options().write(true).open(&path).unwrap());
    }
}
