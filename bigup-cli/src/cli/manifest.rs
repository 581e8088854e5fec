//! Manifests: files of digests and names, a line each, as `b3sum` prints and `b3sum -c` reads them.

use anyhow::{Context, bail};
use bigup_core::protocol::digest::Digest;
use bigup_core::protocol::name::FileName;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

/// Writes a manifest of these files to `path`.
///
/// # Errors
/// As the system gives them.
pub fn write<'a>(path: &Path, files: impl Iterator<Item = (Digest, &'a FileName)>) -> anyhow::Result<()> {
    let written = File::create(path).map(BufWriter::new).and_then(|mut file| {
        for (digest, name) in files {
            writeln!(file, "{}", line(digest, name))?;
        }
        file.flush()
    });
    written.with_context(|| format!("cannot write the manifest {}", path.display()))
}

/// The files of the manifest at `path`.
///
/// # Errors
/// It cannot be read, or a line is something else.
pub fn read(path: &Path) -> anyhow::Result<Vec<(Digest, FileName)>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.is_empty());
    let parsed = lines.map(|(number, line)| {
        parse(line).with_context(|| format!("{}, line {}: a line is a digest and a name", path.display(), number + 1))
    });
    parsed.collect()
}

/// A name with a backslash has a backslash before the line, and doubled ones in it (b3sum, "--check").
fn line(digest: Digest, name: &FileName) -> String {
    match name.as_str() {
        name if name.contains('\\') => format!("\\{digest}  {}", name.replace('\\', "\\\\")),
        name => format!("{digest}  {name}"),
    }
}

fn parse(line: &str) -> anyhow::Result<(Digest, FileName)> {
    let (line, is_escaped) = line.strip_prefix('\\').map_or((line, false), |rest| (rest, true));
    let Some((digest, name)) = line.split_once("  ") else { bail!("there are no two spaces behind a digest") };
    let digest = digest.parse().map_err(anyhow::Error::msg)?;
    let name = if is_escaped { name.replace("\\\\", "\\") } else { name.to_owned() };
    // As of `b3sum ./a`.
    let name = FileName::new(name.strip_prefix("./").unwrap_or(&name))?;
    Ok((digest, name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bigup_core::protocol::digest::of_bytes;

    #[test]
    fn what_is_written_is_read_again() {
        let (dir, digest) = (tempfile::tempdir().unwrap(), of_bytes(b"a"));
        let names = ["a", "b/c d", "back\\slash", "two  spaces"].map(|name| FileName::new(name).unwrap());
        let path = dir.path().join("manifest");
        write(&path, names.iter().map(|name| (digest, name))).unwrap();
        assert_eq!(read(&path).unwrap(), names.map(|name| (digest, name)));
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(&format!("\n\\{digest}  back\\\\slash\n")), "{text}");
    }

    #[test]
    fn a_line_that_is_something_else_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("manifest");
        std::fs::write(&path, format!("{}  ./a\n", of_bytes(b""))).unwrap();
        assert_eq!(read(&path).unwrap()[0].1.as_str(), "a");
        for text in ["abc  a", "nothing", &format!("{}  ../a", of_bytes(b""))] {
            std::fs::write(&path, format!("\n{text}\n")).unwrap();
            assert!(format!("{:#}", read(&path).unwrap_err()).contains("line 2"), "{text}");
        }
    }
}
