//! Files that are mapped for writing (mmap(2), `MAP_SHARED`).
#![allow(unsafe_code)]

use nix::libc::{MAP_FAILED, MAP_SHARED, PROT_READ, PROT_WRITE, c_void, mmap, munmap};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;

/// A file that is mapped for writing for as long as this lives.
pub struct Mapped {
    start: *mut c_void,
    len: usize,
}

impl Mapped {
    /// Maps all of the file at `path`, which must not be cut short meanwhile.
    ///
    /// # Panics
    /// It is empty, or cannot be mapped.
    pub fn new(path: &Path) -> Mapped {
        let file = File::options().read(true).write(true).open(path).expect("it can be opened");
        let len = usize::try_from(file.metadata().expect("it is there").len()).expect("it is small");
        // SAFETY: the kernel chooses the place, so that nothing is there; the map needs no open descriptor.
        let start = unsafe { mmap(std::ptr::null_mut(), len, PROT_READ | PROT_WRITE, MAP_SHARED, file.as_raw_fd(), 0) };
        assert!(start != MAP_FAILED, "{} cannot be mapped: {}", path.display(), std::io::Error::last_os_error());
        Mapped { start, len }
    }

    /// Writes `bytes` from `offset` on. Moves the times of the file only where the kernel holds its page for clean.
    ///
    /// # Panics
    /// They do not fit.
    pub fn write(&self, offset: usize, bytes: &[u8]) {
        let end = offset.checked_add(bytes.len()).expect("it is small");
        assert!(end <= self.len, "it ends at {} of {} bytes", end, self.len);
        // SAFETY: all of it lies within the map, and nobody has a reference to what is mapped.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.start.cast::<u8>().add(offset), bytes.len()) };
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: it was mapped so, and nobody uses it any more.
        unsafe { munmap(self.start, self.len) };
    }
}
