//! The program that has a file open for writing (proc(5), `/proc/PID/fdinfo`). Linux only.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Bits of the flags of an open file that say how it is open (open(2), `O_ACCMODE`); 0 is for reading only.
const ACCESS_MODE: u32 = 3;

/// The id and the name of a program that has the file at `path` open for writing, among those whose open files we may see.
/// `None`: none of these has.
pub fn find(path: &Path) -> Option<(u32, String)> {
    let file = fs::metadata(path).ok()?;
    let ids = fs::read_dir("/proc").ok()?.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    for id in ids {
        // The open files of other users' programs are not shown to us.
        let Ok(open) = fs::read_dir(format!("/proc/{id}/fd")) else { continue };
        let is_it = |descriptor: fs::DirEntry| {
            let found = fs::metadata(descriptor.path()).ok()?;
            let is_same = (found.dev(), found.ino()) == (file.dev(), file.ino());
            let number = descriptor.file_name();
            (is_same
                && is_for_writing(&fs::read_to_string(Path::new(&format!("/proc/{id}/fdinfo")).join(number)).ok()?))
            .then_some(())
        };
        if open.flatten().find_map(is_it).is_some() {
            let name = fs::read_to_string(format!("/proc/{id}/comm")).unwrap_or_default();
            return Some((id, name.trim().to_owned()));
        }
    }
    None
}

/// True if the text of a file in `fdinfo` says that it is open for writing.
fn is_for_writing(text: &str) -> bool {
    let flags = text.lines().find_map(|line| line.strip_prefix("flags:"));
    let flags = flags.and_then(|flags| u32::from_str_radix(flags.trim(), 8).ok());
    flags.is_some_and(|flags| flags & ACCESS_MODE != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_writing_program_is_found_and_no_reading_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let writer = fs::File::create(&path).unwrap();
        assert_eq!(find(&path).unwrap().0, std::process::id());
        drop(writer);
        let _reader = fs::File::open(&path).unwrap();
        assert_eq!(find(&path), None);
    }
}
