//! The document of results and its chart. Each mode has a section between two comments, and a run of one mode replaces that
//! section and no other.

use crate::table::Table;
use anyhow::Context;
use std::path::{Path, PathBuf};

const HEAD: &str = include_str!("head.md");
const BEGIN: &str = "<!-- mode: ";
const END: &str = "<!-- end -->";

/// What one mode found, with what it was measured on.
pub struct Section {
    /// Which section it replaces.
    pub key: String,
    /// What was measured.
    pub title: String,
    /// How; Markdown.
    pub text: String,
    /// On what.
    pub machine: String,
    /// The figures.
    pub tables: Vec<Table>,
}

impl Section {
    fn markdown(&self) -> String {
        let Section { title, text, machine, tables, .. } = self;
        let tables: Vec<String> = tables.iter().map(Table::markdown).collect();
        format!("## {title}\n\n{text}\n\n{machine}\n\n{}", tables.join("\n"))
    }
}

/// Puts a section into the document, which may not be there yet, in the order of `keys`, and draws the chart anew, which
/// lies beside it.
///
/// # Errors
/// The document cannot be read or written.
pub fn update(path: &Path, section: &Section, keys: &[&str]) -> anyhow::Result<()> {
    let old = if path.exists() { std::fs::read_to_string(path)? } else { String::new() };
    let mut sections = sections(&old);
    sections.retain(|(key, _)| *key != section.key);
    sections.push((section.key.clone(), section.markdown()));
    sections.sort_by_key(|(key, _)| (keys.iter().position(|k| k == key).unwrap_or(keys.len()), key.clone()));
    let chart = chart(path)?;
    let mut text = HEAD.replace("{chart}", &chart.file_name().unwrap_or_default().to_string_lossy());
    for (key, body) in &sections {
        text += &format!("\n{BEGIN}{key} -->\n{}\n{END}\n", body.trim());
    }
    let svg = crate::chart::draw(&crate::table::bars(&text));
    std::fs::write(&chart, svg).with_context(|| chart.display().to_string())?;
    std::fs::write(path, text).with_context(|| path.display().to_string())
}

fn chart(path: &Path) -> anyhow::Result<PathBuf> {
    anyhow::ensure!(path.file_name().is_some(), "{} is no file", path.display());
    Ok(path.with_extension("svg"))
}

/// Keys and bodies of a document's sections.
fn sections(text: &str) -> Vec<(String, String)> {
    let parts = text.split(BEGIN).skip(1);
    let section = |part: &str| {
        let (key, rest) = part.split_once(" -->\n")?;
        Some((key.to_owned(), rest.split(END).next()?.trim().to_owned()))
    };
    parts.filter_map(section).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section(key: &str, title: &str) -> Section {
        let mut table = Table::new("t", "how", &["peer", "s"]);
        table.row(["bigup".to_owned(), "1".to_owned()]);
        table.bars = vec![("bigup".to_owned(), 1.0)];
        let text = |text: &str| text.to_owned();
        Section { key: text(key), title: text(title), text: text("x"), machine: text("y"), tables: vec![table] }
    }

    #[test]
    fn one_section_is_replaced_and_the_others_stay_in_their_order() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("b.md");
        let keys = ["a", "b", "c"];
        for (key, title) in [("c", "C1"), ("z", "Z1"), ("a", "A1"), ("c", "C2")] {
            update(&path, &section(key, title), &keys).unwrap();
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let titles: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("## ")).collect();
        assert_eq!(titles, ["A1", "C2", "Z1"]);
        assert_eq!(crate::table::bars(&text).len(), 3);
        assert!(std::fs::read_to_string(folder.path().join("b.svg")).unwrap().starts_with("<svg"));
    }
}
