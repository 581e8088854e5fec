//! Patterns in place of file names, like `*.img`: shells expand them, but those of Windows leave it to each program.

use std::path::{Path, PathBuf};

/// The files that `path` stands for: those that match it, in order, where it is a pattern; else itself.
///
/// # Errors
/// Nothing matches, in words.
#[cfg(windows)]
pub fn expand(path: &Path) -> Result<Vec<PathBuf>, String> {
    let Some(pattern) = path.to_str().filter(|text| is_pattern(text)) else { return Ok(vec![path.to_owned()]) };
    // A name may have brackets there, and no shell gives them a meaning.
    let escaped: String = pattern.chars().map(|c| if c == '[' { "[[]".to_owned() } else { c.to_string() }).collect();
    let options = glob::MatchOptions { case_sensitive: false, ..glob::MatchOptions::new() };
    let found = glob::glob_with(&escaped, options).map_err(|error| error.to_string())?;
    let mut found =
        found.map(|path| path.map(exact)).collect::<Result<Vec<_>, _>>().map_err(|error| error.to_string())?;
    found.sort_unstable();
    if found.is_empty() { Err("no file matches it".to_owned()) } else { Ok(found) }
}

/// A path to what has this very name: the system would take dots and spaces at its end away.
#[cfg(windows)]
fn exact(path: PathBuf) -> PathBuf {
    match (path.parent(), path.file_name()) {
        (Some(folder), Some(name)) if name.to_string_lossy().ends_with(['.', ' ']) => {
            let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
            crate::source::system::unambiguous(folder).join(name)
        }
        _ => path,
    }
}

/// True if `text` has a character that no name can have there.
#[cfg(windows)]
fn is_pattern(text: &str) -> bool {
    // The prefix of paths that the system takes as they are.
    text.strip_prefix(r"\\?\").unwrap_or(text).contains(['*', '?'])
}

/// `path` itself: the shell expanded what was a pattern, and a name may have any character.
///
/// # Errors
/// None.
#[cfg(not(windows))]
pub fn expand(path: &Path) -> Result<Vec<PathBuf>, String> {
    Ok(vec![path.to_owned()])
}

#[cfg(all(test, windows))]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_stands_for_what_matches_and_brackets_mean_themselves() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["b.img", "A.IMG", "c[1].img", "d.txt"] {
            std::fs::write(dir.path().join(name), name).unwrap();
        }
        let names = |pattern: &str| {
            let found = expand(&dir.path().join(pattern))?;
            Ok(found.iter().map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect::<Vec<_>>())
        };
        assert_eq!(names("*.img").unwrap(), ["A.IMG", "b.img", "c[1].img"]);
        assert_eq!(names("?.txt").unwrap(), ["d.txt"]);
        assert_eq!(names("c[1].*").unwrap(), ["c[1].img"]);
        assert_eq!(names("c[1].img").unwrap(), ["c[1].img"]);
        let nothing: Result<_, String> = names("*.iso");
        assert!(nothing.unwrap_err().contains("no file matches"));
        assert!(!is_pattern(r"\\?\C:\a"));
    }
}
