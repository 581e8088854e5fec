//! Writing at a place, and the last steps of a file: the calls that differ between systems.

use std::fs::{self, File};
use std::io;
use std::path::Path;

/// Writes `bytes` to `file` from `offset` on. Several threads may do so at a time.
///
/// # Errors
/// As the system gives them.
#[cfg(unix)]
pub fn write_all_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, bytes, offset)
}

/// Writes `bytes` to `file` from `offset` on. Several threads may do so at a time.
///
/// # Errors
/// As the system gives them.
#[cfg(windows)]
pub fn write_all_at(file: &File, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        let len = std::os::windows::fs::FileExt::seek_write(file, bytes, offset)?;
        if len == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        (bytes, offset) = (&bytes[len..], offset + len as u64);
    }
    Ok(())
}

/// Makes `len` bytes of `file` from `offset` on zeroes that take no room; the file reaches as far already. False: the system
/// or the file system has no holes, and nothing happened.
///
/// # Errors
/// As the system gives them.
#[cfg(target_os = "linux")]
pub fn make_hole(file: &File, offset: u64, len: u64) -> io::Result<bool> {
    use nix::errno::Errno;
    use nix::fcntl::{FallocateFlags, fallocate};
    let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    loop {
        match fallocate(file, flags, offset.cast_signed(), len.cast_signed()) {
            // On tmpfs signals interrupt it.
            Err(Errno::EINTR) => {}
            Ok(()) => return Ok(true),
            Err(Errno::EOPNOTSUPP | Errno::ENOSYS) => return Ok(false),
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Makes holes where the system can; here it cannot, and nothing happens.
///
/// # Errors
/// None.
#[cfg(not(target_os = "linux"))]
pub fn make_hole(_file: &File, _offset: u64, _len: u64) -> io::Result<bool> {
    Ok(false)
}

/// Fills `bytes` from `file`, from `offset` on. Several threads may do so at a time.
///
/// # Errors
/// The file ends before (`UnexpectedEof`), or cannot be read.
#[cfg(unix)]
pub fn read_exact_at(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, bytes, offset)
}

/// Fills `bytes` from `file`, from `offset` on. Several threads may do so at a time.
///
/// # Errors
/// The file ends before (`UnexpectedEof`), or cannot be read.
#[cfg(windows)]
pub fn read_exact_at(file: &File, mut bytes: &mut [u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        let len = std::os::windows::fs::FileExt::seek_read(file, bytes, offset)?;
        if len == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        (bytes, offset) = (&mut bytes[len..], offset + len as u64);
    }
    Ok(())
}

/// Gives the file `from` the name `to`, which no file may have.
///
/// # Errors
/// There is such a file (`AlreadyExists`), or as the system gives them.
pub fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    match fs::hard_link(from, to) {
        Ok(()) => fs::remove_file(from),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(error),
        // File systems like FAT have no links.
        Err(_) if fs::symlink_metadata(to).is_ok() => Err(io::ErrorKind::AlreadyExists.into()),
        Err(_) => fs::rename(from, to),
    }
}

/// Makes sure that the names in `folder` survive a power cut, where the system can.
///
/// # Errors
/// As the system gives them.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    if cfg!(windows) {
        return Ok(());
    }
    File::open(folder)?.sync_all()
}

/// True if a file of this system can have the name `component`, and is found by it.
pub fn can_be_named(component: &str) -> bool {
    !cfg!(windows) || can_be_named_on_windows(component)
}

/// By Microsoft's "Naming Files, Paths, and Namespaces": some characters lead to other places, some names are devices, and
/// dots and spaces at the end are taken away.
fn can_be_named_on_windows(component: &str) -> bool {
    let stem = component.split('.').next().unwrap_or_default().trim_end_matches(' ').to_ascii_uppercase();
    let numbered = stem.strip_prefix("COM").or_else(|| stem.strip_prefix("LPT"));
    let is_numbered =
        numbered.is_some_and(|rest| rest.chars().count() == 1 && rest.contains(|c| "123456789¹²³".contains(c)));
    let is_device = is_numbered || ["CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$"].contains(&stem.as_str());
    let is_odd = |c: char| c.is_control() || "<>:\"/\\|?*".contains(c);
    !is_device && !component.ends_with(['.', ' ']) && !component.contains(is_odd)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_windows_changes_or_takes_elsewhere_are_known() {
        for name in ["a.img", ".profile", "con1", "COM0", "COM10", "console.log", "a b", "ä", "LPT", "a.CON"] {
            assert!(can_be_named_on_windows(name), "{name:?}");
        }
        for name in
            ["CON", "nul.txt", "aux .a.b", "com1", "LPT³.x", "CONIN$", "a.", "a ", "C:a", "a:b", "a\\b", "a?", "\u{1}"]
        {
            assert!(!can_be_named_on_windows(name), "{name:?}");
        }
        assert!(cfg!(windows) || can_be_named("CON"));
    }
}
