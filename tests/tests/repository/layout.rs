//! How files and folders of a crate use each other: none uses another one that uses it, be it by others between.
//!
//! It reads `use` and paths that begin with `crate` or `super`, up to a file's own tests. A folder's `mod.rs` gathers what
//! is in it, and what is in it may use what `mod.rs` has for all: these two are not looked at as users of each other.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Crates, by their folders.
const CRATES: [&str; 4] = ["bigup-core", "bigupd", "bigup-merger", "bigup-cli"];

/// Files by the paths of their modules, and which of them each uses.
type Uses = BTreeMap<String, BTreeSet<String>>;

fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] }).collect()
}

/// The path of the module that is in the file `path` below `src`.
fn module_of(src: &Path, path: &Path) -> String {
    let path = path.strip_prefix(src).unwrap().with_extension("");
    let parts: Vec<&str> = path.iter().map(|part| part.to_str().unwrap()).collect();
    let parts = if parts.last() == Some(&"mod") { &parts[..parts.len() - 1] } else { &parts };
    parts.join("::")
}

/// The code of a file without comments and without its tests, which are last.
fn code(text: &str) -> String {
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
    code.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// All paths that begin with `root` in `code`, without it. Those in braces are taken apart.
fn paths(code: &str, root: &str) -> Vec<String> {
    let begins = code.match_indices(root).map(|(at, _)| at);
    let begins = begins.filter(|at| !code[..*at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':'));
    begins.flat_map(|at| spread(&code[at + root.len()..])).collect()
}

/// The paths at the beginning of `text`: one, or several where it goes on with braces.
fn spread(text: &str) -> Vec<String> {
    let end = text.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':')).unwrap_or(text.len());
    let (path, rest) = (text[..end].trim_end_matches(':'), &text[end..]);
    let Some(inner) = rest.strip_prefix('{').filter(|_| text[..end].ends_with("::") || end == 0) else {
        return vec![path.to_owned()];
    };
    let (mut depth, mut begin, mut paths) = (0, 0, vec![]);
    for (at, c) in inner.char_indices() {
        match c {
            '{' => depth += 1,
            ',' | '}' if depth == 0 => {
                let joined = |inner: String| if path.is_empty() { inner } else { format!("{path}::{inner}") };
                paths.extend(spread(inner[begin..at].trim()).into_iter().map(joined));
                begin = at + 1;
                if c == '}' {
                    return paths;
                }
            }
            '}' => depth -= 1,
            _ => {}
        }
    }
    paths
}

/// The file in which what has this path is: that of its longest part which is one.
fn file_of<'a>(uses: &'a Uses, path: &str) -> Option<&'a str> {
    let parts: Vec<&str> = path.split("::").collect();
    let found = (1..=parts.len()).rev().find_map(|n| uses.get_key_value(&parts[..n].join("::")));
    found.map(|(module, _)| module.as_str())
}

fn uses_of(src: &Path) -> Uses {
    let texts: BTreeMap<String, String> =
        sources(src).iter().map(|path| (module_of(src, path), code(&fs::read_to_string(path).unwrap()))).collect();
    let known: Uses = texts.keys().map(|module| (module.clone(), BTreeSet::new())).collect();
    let of = |module: &str, text: &str| {
        let above = module.rsplit_once("::").map_or("", |(above, _)| above);
        let from_above = paths(text, "super::").into_iter().map(|path| [above, &path].join("::"));
        let all =
            paths(text, "crate::").into_iter().chain(from_above.map(|path| path.trim_start_matches(':').to_owned()));
        let files = all.filter_map(|path| file_of(&known, &path).map(str::to_owned));
        let is_around =
            |a: &str, b: &str| a.strip_prefix(b).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"));
        files.filter(|file| !is_around(module, file) && !is_around(file, module)).collect()
    };
    texts.iter().map(|(module, text)| (module.clone(), of(module, text))).collect()
}

/// A way from `from` to `to`, the first step of which is a use.
fn way(uses: &Uses, from: &str, to: &str) -> Option<Vec<String>> {
    let (mut found, mut ways) = (BTreeSet::new(), vec![vec![from.to_owned()]]);
    while let Some(way) = ways.pop() {
        for next in &uses[way.last().unwrap()] {
            let longer = [&way[..], std::slice::from_ref(next)].concat();
            if next == to {
                return Some(longer);
            }
            if found.insert(next.clone()) {
                ways.push(longer);
            }
        }
    }
    None
}

/// The same of what is in the folder of the module `folder`: files, and folders as a whole.
fn within(uses: &Uses, folder: &str) -> Uses {
    let entry_of = |module: &str| {
        let rest = if folder.is_empty() { Some(module) } else { module.strip_prefix(folder)?.strip_prefix("::") };
        rest?.split("::").next().map(str::to_owned)
    };
    let mut found = Uses::new();
    for (module, used) in uses {
        let Some(user) = entry_of(module) else { continue };
        let others = used.iter().filter_map(|other| entry_of(other)).filter(|other| *other != user);
        found.entry(user.clone()).or_default().extend(others);
    }
    found
}

#[test]
fn no_file_and_no_folder_uses_what_uses_it() {
    for name in CRATES {
        let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name).join("src");
        let mut uses = uses_of(&src);
        // Tests may use what they like.
        uses.retain(|module, _| module != "tests" && !module.ends_with("::tests"));
        assert!(uses.values().any(|used| !used.is_empty()), "{name}: no use was found");
        let folders = uses.keys().flat_map(|module| module.match_indices("::").map(|(at, _)| module[..at].to_owned()));
        let folders: BTreeSet<String> = folders.chain([String::new()]).collect();
        let all = folders.iter().map(|folder| within(&uses, folder)).chain([uses.clone()]);
        for uses in all {
            for user in uses.keys() {
                assert_eq!(way(&uses, user, user), None, "{name}");
            }
        }
    }
}

#[test]
fn uses_are_found_however_they_are_written() {
    let text = "use crate::a::{self, b::C, d::{E, f::g}};\nuse crate::h;\n// crate::no\nfn x() { crate::i::j() }\n";
    let found = paths(&code(text), "crate::");
    assert_eq!(found, ["a::self", "a::b::C", "a::d::E", "a::d::f::g", "h", "i::j"]);
    let src = tempfile::tempdir().unwrap();
    for (name, text) in [
        ("a.rs", "use crate::b::c::X;"),
        ("b/mod.rs", "mod c;"),
        ("b/c.rs", "use super::d;"),
        ("b/d.rs", "use crate::a;"),
    ] {
        fs::create_dir_all(src.path().join(name).parent().unwrap()).unwrap();
        fs::write(src.path().join(name), text).unwrap();
    }
    let circle = way(&uses_of(src.path()), "a", "a").unwrap();
    assert_eq!(circle, ["a", "b::c", "b::d", "a"]);
}
