//! Files that only their owner may read.

use anyhow::Context;
use std::fs::{DirBuilder, OpenOptions};
use std::io::Write;
use std::path::Path;

/// Makes `folder` with all above it, for its owner alone.
///
/// # Errors
/// As the system gives them.
pub fn make_folder(folder: &Path) -> anyhow::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder).with_context(|| format!("cannot make {}", folder.display()))
}

/// Writes `text` to the file `path`, for its owner alone: mode 0600, on Windows by the rights of the folder. After a kill
/// the file is the old or the new one.
///
/// # Errors
/// As the system gives them.
pub fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    let name = path.file_name().and_then(|name| name.to_str()).context("the file has a name")?;
    let fresh = path.with_file_name(format!(".{name}.{}", std::process::id()));
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let written = (|| {
        let mut file = options.open(&fresh)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&fresh, path)
    })();
    if written.is_err() {
        // It may not have been made, and else is of no use.
        let _ = std::fs::remove_file(&fresh);
    }
    written.with_context(|| format!("cannot write {}", path.display()))
}
