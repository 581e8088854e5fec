//! Commands that documents tell their readers to type, so that tests run those very ones.

use std::path::{Path, PathBuf};

/// The repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package is in the repository").to_owned()
}

/// The code block that follows `<!-- run by MARKER -->` in a document, named from the repository on.
///
/// # Panics
/// There is none.
pub fn block(document: &str, marker: &str) -> String {
    let text = std::fs::read_to_string(root().join(document)).expect("the document is there");
    let (_, rest) = text.split_once(&format!("<!-- run by {marker} -->")).unwrap_or_else(|| panic!("no {marker}"));
    let (_, block) = rest.split_once("```").and_then(|(_, block)| block.split_once('\n')).expect("a block follows");
    block.split_once("\n```").expect("it ends").0.to_owned()
}
