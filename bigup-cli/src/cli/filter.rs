//! The choice of files by patterns and by size.
//!
//! Patterns are those of gitignore(5): `*.tmp`, `/build/`, `**/cache`, `!keep.tmp`. They are matched with paths below the
//! folder that is pushed. A file is pushed if it matches an include pattern, where there are any, and no exclude pattern.
//! An excluded folder is not entered.

use anyhow::Context;
use bigup_core::protocol::units::show_size;
use ignore::gitignore::{Gitignore, GitignoreBuilder};
use std::path::Path;

/// The files that are pushed.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// `None`: all.
    include: Option<Gitignore>,
    exclude: Option<Gitignore>,
    max_size: Option<u64>,
}

impl Filter {
    /// By these patterns, and with at most `max_size` bytes. `None`: of any size.
    ///
    /// # Errors
    /// A pattern makes no sense.
    pub fn new(include: &[String], exclude: &[String], max_size: Option<u64>) -> anyhow::Result<Filter> {
        Ok(Filter { include: patterns("--include", include)?, exclude: patterns("--exclude", exclude)?, max_size })
    }

    /// True if a folder, by its path below the pushed one, is left out with all that is in it.
    pub fn leaves_out_folder(&self, path: &Path) -> bool {
        self.exclude.as_ref().is_some_and(|exclude| exclude.matched(path, true).is_ignore())
    }

    /// The reason why the file at `path` below the pushed folder is left out; `size` tells its bytes.
    /// `None`: it is pushed.
    pub fn leaves_out(&self, path: &Path, size: impl FnOnce() -> u64) -> Option<String> {
        let matched = |patterns: &Gitignore| {
            let glob = patterns.matched_path_or_any_parents(path, false);
            glob.is_ignore().then(|| glob.inner().map(|glob| glob.original().to_owned()).unwrap_or_default())
        };
        if let Some(pattern) = self.exclude.as_ref().and_then(matched) {
            return Some(format!("--exclude {pattern}"));
        }
        if self.include.as_ref().is_some_and(|include| matched(include).is_none()) {
            return Some("no --include matches".to_owned());
        }
        let (most, size) = (self.max_size?, size());
        (size > most).then(|| format!("{} are more than --max-size {}", show_size(size), show_size(most)))
    }
}

fn patterns(option: &str, patterns: &[String]) -> anyhow::Result<Option<Gitignore>> {
    if patterns.is_empty() {
        return Ok(None);
    }
    let mut builder = GitignoreBuilder::new("");
    for pattern in patterns {
        builder.add_line(None, pattern).with_context(|| format!("{option} {pattern}"))?;
    }
    Ok(Some(builder.build().with_context(|| option.to_owned())?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(include: &[&str], exclude: &[&str]) -> Filter {
        let owned = |patterns: &[&str]| patterns.iter().map(|pattern| (*pattern).to_owned()).collect::<Vec<_>>();
        Filter::new(&owned(include), &owned(exclude), Some(100)).unwrap()
    }

    fn is_pushed(filter: &Filter, path: &str) -> bool {
        filter.leaves_out(Path::new(path), || 1).is_none()
    }

    #[test]
    fn patterns_are_those_of_gitignore() {
        let some = filter(&["*.bin", "/logs/"], &["*.tmp.bin", "old/", "!keep.tmp.bin"]);
        for path in ["a.bin", "x/y/a.bin", "logs/today", "logs/a/b", "keep.tmp.bin"] {
            assert!(is_pushed(&some, path), "{path}");
        }
        for path in ["a.txt", "x/logs/today", "a.tmp.bin", "old/a.bin", "x/old/y/a.bin"] {
            assert!(!is_pushed(&some, path), "{path}");
        }
        assert!(some.leaves_out_folder(Path::new("x/old")) && !some.leaves_out_folder(Path::new("x")));
        assert!(is_pushed(&Filter::default(), ".hidden"));
        assert!(Filter::new(&["[z-a]".to_owned()], &[], None).is_err());
    }

    #[test]
    fn the_reason_is_told() {
        let some = filter(&["*.bin"], &["b*"]);
        let reason = |path: &str, size| some.leaves_out(Path::new(path), || size).unwrap();
        assert_eq!(reason("b.bin", 1), "--exclude b*");
        assert_eq!(reason("a", 1), "no --include matches");
        assert_eq!(reason("a.bin", 101), "101 B are more than --max-size 100 B");
    }
}
