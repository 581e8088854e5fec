//! Files that a command line stands for, and their names on the server.

use crate::cli::filter::Filter;
use crate::cli::globs;
use crate::source::system;
use anyhow::{Context, anyhow, bail};
use bigup_core::protocol::name::FileName;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::ffi::OsStr;
use std::io;
use std::path::{Component, Path, PathBuf};
use walkdir::{DirEntry, WalkDir};

/// The origin of the bytes of an input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A file.
    File(PathBuf),
    /// Standard input.
    Stdin,
    /// The output of a command, which is a program and its arguments.
    Command(Vec<PathBuf>),
}

/// The part of a command line that is about files.
#[derive(Clone, Debug, Default)]
pub struct InputOptions<'a> {
    /// Files, folders, or `-`; of a command its words.
    pub paths: &'a [PathBuf],
    /// The name given.
    pub name: Option<&'a str>,
    /// The folder on the server that all names are in.
    pub into: Option<&'a str>,
    /// Links inside folders are followed.
    pub follow_symlinks: bool,
    /// Folders without files are of interest.
    pub empty_folders: bool,
    /// The paths are a command's words.
    pub is_command: bool,
    /// The data folder of a server of our own: nothing in it is pushed.
    pub data_dir: Option<&'a Path>,
    /// The files that are left out.
    pub filter: Filter,
    /// A file with more paths, a line each, or `-` for standard input. These files keep the folders in their paths.
    pub files_from: Option<&'a Path>,
}

/// A file to be pushed.
#[derive(Debug)]
pub struct InputFile {
    /// Its origin.
    pub origin: Input,
    /// Its name on the server.
    pub name: FileName,
}

/// All files of a command line.
#[derive(Debug, Default)]
pub struct Inputs {
    /// In the order in which they are pushed.
    pub files: Vec<InputFile>,
    /// Folders below which no file is pushed, where those are wanted; none of them lies in another one.
    pub empty_folders: BTreeSet<FileName>,
    /// The skipped paths, in words.
    pub notes: Vec<String>,
    /// The paths that are left out by the filter, and the reasons.
    pub left_out: Vec<(String, String)>,
    /// The paths that cannot be pushed, and the reasons.
    pub failures: Vec<(String, String)>,
    /// True if there are folders among the paths.
    pub folders: bool,
}

impl Inputs {
    /// Looks at all that is `wanted`. A path that cannot be pushed is listed; the rest is pushed.
    pub fn collect(wanted: &InputOptions<'_>) -> Inputs {
        let mut inputs = Inputs::default();
        if wanted.is_command {
            match wanted.name.context("a command needs --name").and_then(|name| Ok(FileName::new(&with_slashes(name))?))
            {
                Ok(name) => inputs.files.push(InputFile { origin: Input::Command(wanted.paths.to_vec()), name }),
                Err(error) => inputs.failures.push(("--command".to_owned(), format!("{error:#}"))),
            }
        }
        let into = wanted.into.unwrap_or_default().trim_end_matches('/');
        // A data folder that is not there yet has nothing in it.
        let data_dir = wanted.data_dir.and_then(|dir| dir.canonicalize().ok());
        for path in wanted.paths.iter().filter(|_| !wanted.is_command) {
            let found = if is_stdin(path) { Ok(vec![path.to_owned()]) } else { globs::expand(path) };
            match found {
                Ok(paths) if wanted.name.is_some() && paths.len() > 1 => {
                    let message = format!("--name stands for one file, and {} match it", paths.len());
                    inputs.failures.push((path.display().to_string(), message));
                }
                Ok(paths) => paths.iter().for_each(|path| inputs.add_or_fail(path, wanted, data_dir.as_deref())),
                Err(message) => inputs.failures.push((path.display().to_string(), message)),
            }
        }
        if let Some(list) = wanted.files_from
            && let Err(error) = inputs.add_listed(list, wanted, data_dir.as_deref())
        {
            inputs.failures.push((list.display().to_string(), format!("{error:#}")));
        }
        if !into.is_empty() {
            inputs.put_below(&format!("{into}/"), |_| true);
        }
        inputs.drop_doubles();
        inputs.drop_full_folders();
        inputs
    }

    fn add_or_fail(&mut self, path: &Path, wanted: &InputOptions<'_>, data_dir: Option<&Path>) {
        if let Err(error) = self.add(path, wanted, data_dir) {
            self.failures.push((path.display().to_string(), format!("{error:#}")));
        }
    }

    /// Puts all files into `folder`, which ends in `/`, except those whose names begin with it.
    pub fn default_to(&mut self, folder: &str) {
        self.put_below(folder, |name| !name.as_str().starts_with(folder));
        self.drop_doubles();
    }

    fn put_below(&mut self, folder: &str, is_meant: impl Fn(&FileName) -> bool) {
        for name in std::mem::take(&mut self.empty_folders) {
            let moved = if is_meant(&name) { FileName::new(&format!("{folder}{name}")) } else { Ok(name.clone()) };
            match moved {
                Ok(moved) => {
                    self.empty_folders.insert(moved);
                }
                Err(error) => self.failures.push((format!("{name}/"), error.to_string())),
            }
        }
        for input in std::mem::take(&mut self.files) {
            if !is_meant(&input.name) {
                self.files.push(input);
                continue;
            }
            match FileName::new(&format!("{folder}{}", input.name.as_str())) {
                Ok(name) => self.files.push(InputFile { name, ..input }),
                Err(error) => self.failures.push((input.path(), error.to_string())),
            }
        }
    }

    /// Adds the paths that the file `list` has, a line each.
    fn add_listed(&mut self, list: &Path, wanted: &InputOptions<'_>, data_dir: Option<&Path>) -> anyhow::Result<()> {
        let text = if is_stdin(list) { io::read_to_string(io::stdin()) } else { std::fs::read_to_string(list) };
        let text = text.context("cannot read the list of files")?;
        for line in text.lines().filter(|line| !line.is_empty()) {
            let path = Path::new(line);
            let added = name_with_folders(path)
                .and_then(|name| self.add(path, &InputOptions { name: Some(&name), ..wanted.clone() }, data_dir));
            if let Err(error) = added {
                self.failures.push((line.to_owned(), format!("{error:#}")));
            }
        }
        self.folders = true;
        Ok(())
    }

    fn add(&mut self, path: &Path, wanted: &InputOptions<'_>, data_dir: Option<&Path>) -> anyhow::Result<()> {
        if is_stdin(path) {
            let name = FileName::new(&with_slashes(wanted.name.context("standard input needs --name")?))?;
            self.files.push(InputFile { origin: Input::Stdin, name });
            return Ok(());
        }
        let metadata = std::fs::metadata(path).context("cannot look at it")?;
        if let Some(data_dir) = data_dir
            && path.canonicalize()?.starts_with(data_dir)
        {
            bail!("it lies in the data folder that it would be pushed to, {}", data_dir.display());
        }
        let name = match wanted.name.map(with_slashes) {
            None => base_name(path)?,
            Some(folder) if folder.ends_with('/') && !metadata.is_dir() => format!("{folder}{}", base_name(path)?),
            Some(name) => name,
        };
        if metadata.is_dir() {
            self.folders = true;
            self.add_folder(path, name.trim_end_matches('/'), wanted, data_dir);
            return Ok(());
        }
        let last = path.file_name().map(Path::new).unwrap_or(path);
        if let Some(reason) = wanted.filter.leaves_out(last, || metadata.len()) {
            self.left_out.push((path.display().to_string(), reason));
            return Ok(());
        }
        self.files.push(InputFile { origin: Input::File(path.to_owned()), name: FileName::new(&name)? });
        Ok(())
    }

    fn add_folder(&mut self, folder: &Path, prefix: &str, wanted: &InputOptions<'_>, data_dir: Option<&Path>) {
        let folder = &system::unambiguous(folder);
        let mut walk = WalkDir::new(folder).follow_links(wanted.follow_symlinks).sort_by_file_name().into_iter();
        while let Some(entry) = walk.next() {
            if let (Ok(entry), Some(data_dir)) = (&entry, data_dir)
                && entry.file_type().is_dir()
                && entry.path().canonicalize().is_ok_and(|path| path == data_dir)
            {
                self.notes.push(format!("skipped {}: the data folder of this push", shown(entry.path())));
                walk.skip_current_dir();
                continue;
            }
            if let Ok(entry) = &entry
                && entry.file_type().is_dir()
                && entry.depth() > 0
                && let Ok(relative) = entry.path().strip_prefix(folder)
                && wanted.filter.leaves_out_folder(relative)
            {
                self.left_out.push((entry.path().display().to_string(), "--exclude".to_owned()));
                walk.skip_current_dir();
                continue;
            }
            let result = match &entry {
                Ok(entry) if entry.file_type().is_dir() => match wanted.empty_folders {
                    true => name_below(folder, prefix, entry.path()).map(|name| {
                        self.empty_folders.insert(name);
                    }),
                    false => Ok(()),
                },
                Ok(entry) => self.add_entry(folder, prefix, entry, &wanted.filter),
                Err(error) => Err(anyhow!(in_words(error))),
            };
            if let Err(error) = result {
                let path = match &entry {
                    Ok(entry) => entry.path(),
                    Err(error) => error.path().unwrap_or(folder),
                };
                self.failures.push((shown(path), format!("{error:#}")));
            }
        }
    }

    fn add_entry(&mut self, folder: &Path, prefix: &str, entry: &DirEntry, filter: &Filter) -> anyhow::Result<()> {
        let kind = entry.file_type();
        // A folder that was given as a link is gone through like any other.
        if entry.depth() == 0 {
            return Ok(());
        }
        if !kind.is_file() {
            let what = if kind.is_symlink() { "a symbolic link (see --follow-symlinks)" } else { "not a regular file" };
            self.notes.push(format!("skipped {}: {what}", shown(entry.path())));
            return Ok(());
        }
        let relative = entry.path().strip_prefix(folder).context("outside the folder")?;
        // Only a limit of size needs its size.
        let size = || entry.metadata().map_or(0, |found| found.len());
        if let Some(reason) = filter.leaves_out(relative, size) {
            self.left_out.push((entry.path().display().to_string(), reason));
            return Ok(());
        }
        let name = name_below(folder, prefix, entry.path())?;
        self.files.push(InputFile { origin: Input::File(entry.path().to_owned()), name });
        Ok(())
    }

    /// Drops folders that have files or other folders in them.
    fn drop_full_folders(&mut self) {
        let mut folders = std::mem::take(&mut self.empty_folders);
        if folders.is_empty() {
            return;
        }
        let names = self.files.iter().map(|file| &file.name).chain(&folders).map(FileName::as_str);
        let full: HashSet<String> = names.flat_map(folders_of).map(str::to_owned).collect();
        folders.retain(|name| !full.contains(name.as_str()));
        self.empty_folders = folders;
    }

    /// Moves all but the first of several inputs with one name to the failures: each would replace the one before.
    fn drop_doubles(&mut self) {
        let files = std::mem::take(&mut self.files);
        let mut first: HashMap<&FileName, &Input> = HashMap::with_capacity(files.len());
        let mut is_first = Vec::with_capacity(files.len());
        for input in &files {
            let other = *first.entry(&input.name).or_insert(&input.origin);
            is_first.push(std::ptr::eq(other, &input.origin));
            if let Input::File(path) = other
                && *other != input.origin
            {
                let message = format!("{} has the name {} too; push one with --name", shown(path), input.name);
                self.failures.push((input.path(), message));
            }
        }
        self.files =
            files.into_iter().zip(is_first).filter_map(|(input, is_first)| is_first.then_some(input)).collect();
    }
}

/// The folders that a name is in.
fn folders_of(name: &str) -> impl Iterator<Item = &str> {
    name.match_indices('/').map(|(at, _)| &name[..at])
}

/// The name on the server of what `path` leads to, below `folder`, which is called `prefix` there.
fn name_below(folder: &Path, prefix: &str, path: &Path) -> anyhow::Result<FileName> {
    let relative = path.strip_prefix(folder).context("outside the folder")?;
    let components =
        std::iter::once(Ok(prefix)).chain(relative.iter().map(utf8)).collect::<anyhow::Result<Vec<_>>>()?;
    Ok(FileName::new(&components.join("/"))?)
}

impl InputFile {
    /// Bytes of the file, as it is now. `None`: that is not known.
    pub fn size(&self) -> Option<u64> {
        let Input::File(path) = &self.origin else { return None };
        std::fs::metadata(path).ok().filter(|found| found.is_file()).map(|found| found.len())
    }

    /// The path, for messages.
    fn path(&self) -> String {
        match &self.origin {
            Input::File(path) => shown(path),
            Input::Stdin => "-".to_owned(),
            Input::Command(_) => "--command".to_owned(),
        }
    }
}

/// The last component of `path`; of the folder it stands for where it has none, like `.`.
///
/// # Errors
/// There is none, or it is not UTF-8.
pub fn base_name(path: &Path) -> anyhow::Result<String> {
    if let Some(name) = path.file_name() {
        return utf8(name).map(|name| if system::is_exact(path) { name.to_owned() } else { as_opened(name) });
    }
    match system::real_path(path)?.file_name() {
        Some(name) => utf8(name).map(str::to_owned),
        None => bail!("it has no name of its own; give --name"),
    }
}

/// The name of what Windows opens under `name`: without dots and spaces at its end.
fn as_opened(name: &str) -> String {
    let opened = name.trim_end_matches(['.', ' ']);
    if opened.is_empty() { name } else { opened }.to_owned()
}

/// A name on the server as it is given on this system: on Windows a backslash divides it too.
fn with_slashes(name: &str) -> String {
    if cfg!(windows) { name.replace('\\', "/") } else { name.to_owned() }
}

/// A path for people.
fn shown(path: &Path) -> String {
    system::shown(path).display().to_string()
}

/// The name of the file at a relative `path`, with the folders in it.
fn name_with_folders(path: &Path) -> anyhow::Result<String> {
    let mut name = vec![];
    for component in path.components() {
        match component {
            Component::Normal(component) => name.push(utf8(component)?),
            Component::CurDir => {}
            _ => bail!("a path in a list is relative, and has no .. in it: push it by itself"),
        }
    }
    Ok(name.join("/"))
}

/// Why a folder cannot be gone through, without the path, which stands before it.
fn in_words(error: &walkdir::Error) -> String {
    match (error.io_error(), error.loop_ancestor()) {
        (Some(error), _) => error.to_string(),
        (None, Some(above)) => format!("this link leads back to {}", shown(above)),
        (None, None) => error.to_string(),
    }
}

fn utf8(name: &OsStr) -> anyhow::Result<&str> {
    name.to_str().ok_or_else(|| anyhow!("the name {name:?} is not UTF-8; rename it, or push it with --name"))
}

/// True if `path` stands for standard input.
pub fn is_stdin(path: &Path) -> bool {
    path.as_os_str() == "-"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::{Cli, Command};
    use clap::Parser;

    fn collect(args: &[&str]) -> Inputs {
        match Cli::try_parse_from([&["bigup-cli", "push"], args].concat()).unwrap().command {
            Command::Push(args) => Inputs::collect(&args.wanted().unwrap()),
            other => panic!("{other:?}"),
        }
    }

    fn names(inputs: &Inputs) -> Vec<&str> {
        inputs.files.iter().map(|input| input.name.as_str()).collect()
    }

    fn folder() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("top/sub")).unwrap();
        std::fs::write(dir.path().join("top/b"), "b").unwrap();
        std::fs::write(dir.path().join("top/sub/a"), "a").unwrap();
        dir
    }

    #[test]
    fn a_folder_stands_for_all_files_below_it() {
        let dir = folder();
        let top = dir.path().join("top");
        let top = top.to_str().unwrap();
        assert_eq!(names(&collect(&[top])), ["top/b", "top/sub/a"]);
        assert_eq!(names(&collect(&[&format!("{top}/")])), ["top/b", "top/sub/a"]);
        assert_eq!(names(&collect(&[&format!("{top}/sub/..")])), ["top/b", "top/sub/a"]);
        assert_eq!(names(&collect(&[top, "--name", "x/y"])), ["x/y/b", "x/y/sub/a"]);
    }

    #[test]
    fn the_data_folder_of_the_push_is_none_of_what_is_pushed() {
        let dir = folder();
        let top = dir.path().join("top");
        let (top, data) = (top.to_str().unwrap(), top.join("sub"));
        let data = data.to_str().unwrap();
        let inputs = collect(&[top, "--embedded", data]);
        assert_eq!(names(&inputs), ["top/b"]);
        assert!(inputs.notes[0].contains("data folder") && inputs.failures.is_empty(), "{inputs:?}");
        for inside in [data, &format!("{data}/a"), &format!("{data}/../sub")] {
            let inputs = collect(&[inside, "--embedded", data]);
            assert!(inputs.files.is_empty() && inputs.failures[0].1.contains("data folder"), "{inputs:?}");
        }
        assert_eq!(names(&collect(&[top, "--embedded", &format!("{data}/not/there")])), ["top/b", "top/sub/a"]);
    }

    #[test]
    fn a_file_has_its_own_name_or_the_given_one() {
        let dir = folder();
        let file = dir.path().join("top/sub/a");
        let file = file.to_str().unwrap();
        assert_eq!(names(&collect(&[file])), ["a"]);
        assert_eq!(names(&collect(&[file, "--name", "x/y"])), ["x/y"]);
        let refused = collect(&[file, "--name", "../y"]);
        assert!(refused.files.is_empty() && refused.failures[0].1.contains("elsewhere"), "{refused:?}");
    }

    #[test]
    fn files_go_into_a_folder_of_the_server() {
        let dir = folder();
        let (top, file) = (dir.path().join("top"), dir.path().join("top/sub/a"));
        let (top, file) = (top.to_str().unwrap(), file.to_str().unwrap());
        assert_eq!(names(&collect(&[top, file, "--into", "x/y/"])), ["x/y/top/b", "x/y/top/sub/a", "x/y/a"]);
        assert_eq!(names(&collect(&[file, "--into", "x", "--name", "z/c"])), ["x/z/c"]);
        assert_eq!(names(&collect(&["-", "--into", "x/", "--name", "c"])), ["x/c"]);
        assert_eq!(names(&collect(&["--into", "x/", "--name", "c", "--command", "true"])), ["x/c"]);
        assert_eq!(names(&collect(&[file, "--name", "x/"])), ["x/a"], "a name with a slash is a folder");
        assert_eq!(names(&collect(&[top, "--name", "x/"])), ["x/b", "x/sub/a"]);
        let refused = collect(&[file, "--into", "../x"]);
        assert!(refused.files.is_empty() && refused.failures[0].1.contains("elsewhere"), "{refused:?}");
    }

    #[test]
    fn files_that_a_pattern_or_their_size_leaves_out_are_not_pushed() {
        let dir = folder();
        let top = dir.path().join("top");
        std::fs::write(top.join("sub/large"), [0; 100]).unwrap();
        let top = top.to_str().unwrap();
        assert_eq!(names(&collect(&[top, "--exclude", "sub/"])), ["top/b"]);
        assert_eq!(names(&collect(&[top, "--exclude", "/b", "--max-size", "99"])), ["top/sub/a"]);
        assert_eq!(names(&collect(&[top, "--include", "a", "--include", "b"])), ["top/b", "top/sub/a"]);
        let large = format!("{top}/sub/large");
        let inputs = collect(&[&large, "--max-size", "99"]);
        assert!(inputs.files.is_empty() && inputs.left_out[0].0 == large, "{inputs:?}");
    }

    #[test]
    fn listed_files_keep_their_folders() {
        assert_eq!(name_with_folders(Path::new("./a/./b")).unwrap(), "a/b");
        assert!(name_with_folders(Path::new("/a")).is_err() && name_with_folders(Path::new("a/../b")).is_err());
        let dir = folder();
        let list = dir.path().join("list");
        std::fs::write(&list, "/nonexistent\n\n").unwrap();
        let inputs = collect(&["--files-from", list.to_str().unwrap()]);
        assert_eq!(inputs.failures.len(), 1, "{inputs:?}");
        assert_eq!(inputs.failures[0].0, "/nonexistent");
    }

    #[test]
    fn a_default_folder_is_for_names_outside_it() {
        let dir = folder();
        let (top, file) = (dir.path().join("top"), dir.path().join("top/sub/a"));
        let mut inputs = collect(&[top.to_str().unwrap(), file.to_str().unwrap()]);
        inputs.default_to("top/");
        assert_eq!(names(&inputs), ["top/b", "top/sub/a", "top/a"]);
    }

    #[cfg(unix)]
    #[test]
    fn links_are_skipped_with_a_note_unless_they_are_to_be_followed() {
        let dir = folder();
        let top = dir.path().join("top");
        std::os::unix::fs::symlink("b", top.join("link")).unwrap();
        let skipped = collect(&[top.to_str().unwrap()]);
        assert_eq!(names(&skipped), ["top/b", "top/sub/a"]);
        assert!(skipped.notes[0].contains("--follow-symlinks"), "{skipped:?}");
        let followed = collect(&[top.to_str().unwrap(), "--follow-symlinks"]);
        assert_eq!(names(&followed), ["top/b", "top/link", "top/sub/a"]);
    }

    #[cfg(unix)]
    #[test]
    fn a_folder_given_as_a_link_is_pushed_and_not_said_to_be_skipped() {
        let dir = folder();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink("top", &link).unwrap();
        for args in [&[link.to_str().unwrap()][..], &[link.to_str().unwrap(), "--follow-symlinks"]] {
            let inputs = collect(args);
            assert_eq!(names(&inputs), ["link/b", "link/sub/a"]);
            assert!(inputs.notes.is_empty() && inputs.failures.is_empty(), "{inputs:?}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_failure_has_its_path_once() {
        let dir = folder();
        let top = dir.path().join("top");
        std::os::unix::fs::symlink("..", top.join("sub/up")).unwrap();
        let inputs = collect(&[top.to_str().unwrap(), "--follow-symlinks"]);
        let [(path, message)] = &inputs.failures[..] else { panic!("{inputs:?}") };
        assert!(path.ends_with("top/sub/up") && !message.contains("sub/up"), "{path}: {message}");
        assert!(message.contains("leads back to") && message.ends_with("/top"), "{message}");
    }

    #[cfg(unix)]
    #[test]
    fn a_name_that_is_not_utf8_fails_alone() {
        use std::os::unix::ffi::OsStrExt;
        let dir = folder();
        std::fs::write(dir.path().join("top").join(OsStr::from_bytes(b"\xff")), "").unwrap();
        let inputs = collect(&[dir.path().join("top").to_str().unwrap()]);
        assert_eq!(names(&inputs), ["top/b", "top/sub/a"]);
        assert!(inputs.failures[0].1.contains("UTF-8"), "{inputs:?}");
    }

    #[test]
    fn two_files_of_one_name_are_not_pushed_over_each_other() {
        let dir = folder();
        std::fs::write(dir.path().join("a"), "other").unwrap();
        let (one, two) = (dir.path().join("a"), dir.path().join("top/sub/a"));
        let inputs = collect(&[one.to_str().unwrap(), two.to_str().unwrap(), one.to_str().unwrap()]);
        assert_eq!(names(&inputs), ["a"]);
        assert_eq!(inputs.failures.len(), 1, "{inputs:?}");
    }

    #[test]
    fn a_path_that_is_not_there_fails_alone() {
        let dir = folder();
        let inputs = collect(&["/nonexistent/x", dir.path().join("top").to_str().unwrap()]);
        assert_eq!(names(&inputs).len(), 2);
        assert_eq!(inputs.failures[0].0, "/nonexistent/x");
    }
}
