//! Memory that the allocator keeps (malloc_trim(3)). Linux with glibc only.
#![allow(unsafe_code)]

/// Gives all free pages back to the system.
pub fn trim() {
    // SAFETY: it takes no pointer, and only unmaps or discards pages that are free.
    unsafe { nix::libc::malloc_trim(0) };
}
