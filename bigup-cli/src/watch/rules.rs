//! The choice of files, as the command line makes it.

use std::path::Path;

/// The files of a watched folder that are pushed. Paths are relative to it.
pub trait Rules: Sync {
    /// True if a folder is left out with all that is below it.
    fn leaves_out_folder(&self, path: &Path) -> bool;

    /// True if a file of `size` bytes is left out.
    fn leaves_out(&self, path: &Path, size: u64) -> bool;

    /// True if a folder in the watched one is pushed as a whole, once a file in it says that it is complete.
    fn has_units(&self) -> bool;

    /// True if this file says that the folder that it is in, as a whole, is complete. Its path begins below that folder.
    fn is_marker(&self, path: &Path) -> bool;
}

/// The unit of a file, and its path below that. `None`: it is pushed by itself.
pub fn unit_of<'a>(rules: &dyn Rules, path: &'a str) -> Option<(&'a str, &'a str)> {
    if rules.has_units() { path.split_once('/') } else { None }
}

/// True if the file at `path` is the marker of a unit.
pub fn is_marker(rules: &dyn Rules, path: &str) -> bool {
    unit_of(rules, path).is_some_and(|(_, rest)| rules.is_marker(Path::new(rest)))
}
