//! Names of hosts in programs that contain the C library.
#![allow(unsafe_code)]

use std::ffi::{c_char, c_int};

unsafe extern "C" {
    /// Says by which services the entries of a database are found, in place of /etc/nsswitch.conf (glibc, nss/nss.h).
    fn __nss_configure_lookup(database: *const c_char, services: *const c_char) -> c_int;
}

/// Has names of hosts found in /etc/hosts and by DNS alone, whatever /etc/nsswitch.conf says. Call it before any other
/// thread is started.
///
/// A program that contains glibc has these two services in it. All others are libraries of the system, which come with
/// its own glibc: loaded into a program that contains another one, they crash it.
pub fn find_by_files_and_dns() {
    // SAFETY: both are C strings, which the function copies, and no other thread looks a name up yet. It refuses only
    // databases that are unknown; this one is not.
    unsafe { __nss_configure_lookup(c"hosts".as_ptr(), c"files dns".as_ptr()) };
}
