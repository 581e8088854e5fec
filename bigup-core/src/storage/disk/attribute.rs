//! Reading extended attributes (xattr(7)) by one call, where that is enough.

use rustix::io::Errno;
use std::fs::File;
use std::io;
use xattr::FileExt;

/// Bytes that most values have at most.
const USUAL: usize = 1 << 10;

/// The value of the extended attribute `name`. `None`: `file` has none of that name, or its file system keeps none.
///
/// # Errors
/// As the system gives them.
pub fn attribute(file: &File, name: &str) -> io::Result<Option<Vec<u8>>> {
    let mut value = [0; USUAL];
    match rustix::fs::fgetxattr(file, name, &mut value[..]) {
        Ok(len) => Ok(Some(value[..len].to_vec())),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(None),
        // It asks for the length first.
        Err(Errno::RANGE) => file.get_xattr(name),
        Err(e) => Err(e.into()),
    }
}
