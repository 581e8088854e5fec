//! Paths below the watched folder: text with `/` between its parts, on every system.

use std::path::{Path, PathBuf};

/// The path of `name` in the folder at `path`, which is empty for the watched folder itself.
pub fn below(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}/{name}") }
}

/// The place of `path` below `root`.
pub fn place(root: &Path, path: &str) -> PathBuf {
    // Part by part: Windows takes no `/` in the paths that it leaves as they are.
    let mut place = root.to_owned();
    place.extend(path.split('/').filter(|part| !part.is_empty()));
    place
}

/// `a/b-2.tif` for `a/b.tif`.
pub fn numbered(path: &str, number: u32) -> String {
    let (folder, name) = path.rsplit_once('/').map_or(("", path), |(folder, name)| (folder, name));
    let (stem, extension) = match name.rsplit_once('.') {
        Some((stem, extension)) if !stem.is_empty() => (stem, format!(".{extension}")),
        _ => (name, String::new()),
    };
    below(folder, &format!("{stem}-{number}{extension}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_stands_before_the_extension() {
        for (path, expected) in
            [("a/b.tif", "a/b-2.tif"), ("a.d/b", "a.d/b-2"), (".x", ".x-2"), ("a.tar.gz", "a.tar-2.gz")]
        {
            assert_eq!(numbered(path, 2), expected);
        }
    }

    #[test]
    fn a_place_is_below_the_root() {
        assert_eq!(place(Path::new("r"), "a/b"), Path::new("r").join("a").join("b"));
        assert_eq!(place(Path::new("r"), ""), Path::new("r"));
        assert_eq!((below("", "a"), below("a", "b")), ("a".to_owned(), "a/b".to_owned()));
    }
}
