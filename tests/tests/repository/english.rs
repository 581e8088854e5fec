//! Plain English in comments and documents: no first sentence begins with a word like "What", "Whoever" or "None".
//!
//! Such a sentence has no noun, and its reader must begin again.

use std::fs;
use std::path::{Path, PathBuf};

/// Folders of sources and of documents, and single documents, below the repository.
const CHECKED: [&str; 8] = [
    "bigup-core/src",
    "bigupd/src",
    "bigup-merger/src",
    "bigup-cli/src",
    "docs",
    "README.md",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
];

/// Documents that programs write: their sentences are those of the sources.
const GENERATED: [&str; 3] = ["docs/configuration.md", "docs/reference.md", "docs/benchmarks.md"];

/// Words that begin no doc comment, paragraph or list item. "`None` if it is gone." is right, "None: it is gone." is not.
const WORDS: [&str; 7] = ["What", "Whether", "Who", "Whoever", "Whose", "One", "None"];

/// A sentence to mend.
#[derive(Debug, PartialEq)]
struct Finding {
    /// Number of the line, from 1.
    line: usize,
    /// The word or phrase.
    form: &'static str,
}

/// A paragraph, or an item of a list.
struct Paragraph {
    /// Number of its first line, from 1.
    line: usize,
    /// Its lines, joined by spaces.
    text: String,
    /// True if its first word is checked.
    begins: bool,
}

/// The text of a list item; `None` if `line` begins no item.
fn item(line: &str) -> Option<&str> {
    let numbered = || line.trim_start_matches(|c: char| c.is_ascii_digit()).strip_prefix(". ");
    line.strip_prefix("- ").or_else(|| line.strip_prefix("* ")).or_else(numbered)
}

/// The paragraphs of a document without headings, tables and code blocks.
fn paragraphs_of_document(text: &str) -> Vec<Paragraph> {
    let (mut found, mut is_code, mut is_open): (Vec<Paragraph>, _, _) = (vec![], false, false);
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.starts_with("```") {
            is_code = !is_code;
        }
        if is_code || line.is_empty() || line.starts_with(['#', '|', '<']) || line.starts_with("```") {
            is_open = false;
        } else if let (true, None, Some(last)) = (is_open, item(line), found.last_mut()) {
            last.text = format!("{} {line}", last.text);
        } else {
            found.push(Paragraph { line: number + 1, text: item(line).unwrap_or(line).to_owned(), begins: true });
            is_open = true;
        }
    }
    found
}

/// The comments of a source. The first word is checked of doc comments alone.
fn comments(text: &str) -> Vec<Paragraph> {
    let mut found: Vec<Paragraph> = vec![];
    let mut above = None;
    for (number, line) in text.lines().enumerate() {
        let marker = ["//!", "///", "//"].into_iter().find(|marker| line.trim_start().starts_with(marker));
        let Some(marker) = marker else {
            above = None;
            continue;
        };
        let line = line.trim_start().trim_start_matches(marker).trim();
        match found.last_mut() {
            Some(last) if above == Some(marker) => last.text = format!("{} {line}", last.text),
            _ => found.push(Paragraph { line: number + 1, text: line.to_owned(), begins: marker != "//" }),
        }
        above = Some(marker);
    }
    found
}

/// True if `text` begins with `word`, and the word ends there.
fn begins_with(text: &str, word: &str) -> bool {
    text.strip_prefix(word).is_some_and(|rest| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_'))
}

/// True if "it is so" ends a clause of `text`: "it is so large" is right.
fn says_it_is_so(text: &str) -> bool {
    let mut ends = text.match_indices("it is so").map(|(at, phrase)| &text[at + phrase.len()..]);
    ends.any(|rest| !rest.starts_with(|c: char| c.is_alphanumeric() || c == ' '))
}

/// The sentences to mend in a source or a document.
fn findings(is_source: bool, text: &str) -> Vec<Finding> {
    let paragraphs = if is_source { comments(text) } else { paragraphs_of_document(text) };
    let mut found = vec![];
    for Paragraph { line, text, begins } in paragraphs {
        let word = WORDS.into_iter().find(|word| begins && begins_with(&text, word));
        let phrase = text.contains("of which there are").then_some("of which there are");
        let forms = [word, phrase, says_it_is_so(&text).then_some("it is so")];
        found.extend(forms.into_iter().flatten().map(|form| Finding { line, form }));
    }
    found
}

/// Sources and documents at or below `path`.
fn files(path: &Path) -> Vec<PathBuf> {
    if !path.is_dir() {
        return vec![path.to_owned()];
    }
    let entries = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
    let below: Vec<PathBuf> = entries.flat_map(|path| files(&path)).collect();
    below.into_iter().filter(|path| path.extension().is_some_and(|end| end == "rs" || end == "md")).collect()
}

#[test]
fn comments_and_documents_are_in_plain_english() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let (mut seen, mut complaints) = (0, vec![]);
    for path in CHECKED.iter().flat_map(|path| files(&root.join(path))) {
        let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
        if !GENERATED.contains(&name.as_str()) {
            let is_source = path.extension().is_some_and(|end| end == "rs");
            let found = findings(is_source, &fs::read_to_string(&path).unwrap());
            complaints.extend(found.iter().map(|finding| format!("{name}:{}: \"{}\"", finding.line, finding.form)));
            seen += 1;
        }
    }
    assert!(seen > 100, "only {seen} files are found");
    assert!(complaints.is_empty(), "begin these sentences with a noun:\n{}", complaints.join("\n"));
}

#[test]
fn doc_comments_that_begin_badly_are_found() {
    let text = "//! What it is.\n\nuse a;\n\n/// Who asks.\n///\n/// One more.\nfn a() {\n    // None of these.\n}\n";
    assert_eq!(findings(true, text), [Finding { line: 1, form: "What" }, Finding { line: 5, form: "Who" }]);
    let text = "/// None: it is gone.\nfn a() {}\n    /// Whether so.\n    b: bool,\n    /// Whoever it is.\n";
    let forms: Vec<&str> = findings(true, text).iter().map(|finding| finding.form).collect();
    assert_eq!(forms, ["None", "Whether", "Whoever"]);
}

#[test]
fn plain_doc_comments_pass() {
    let text =
        "//! The parts.\n/// `None` if it is gone. One more.\n/// Whatever\n\n/// Once.\nlet text = \"/// What\";\n";
    assert_eq!(findings(true, text), []);
}

#[test]
fn phrases_are_found_in_every_comment_and_across_lines() {
    let text = "fn a() {\n    // Marks, of which\n    // there are two.\n    // But it is so.\n}\n/// It is so, as it is so large.\n";
    let wanted = [Finding { line: 2, form: "of which there are" }, Finding { line: 2, form: "it is so" }];
    assert_eq!(findings(true, text), wanted);
}

#[test]
fn paragraphs_and_items_of_documents_are_checked_but_no_headings_tables_and_code() {
    let text = "# What to do\n\nWho asks\nWhat\n\n| What | a |\n\n- One item\n  Who\n- two\n\n3. None\n```\nWhat\n```\nWhose.\n";
    let wanted = [(3, "Who"), (8, "One"), (12, "None"), (16, "Whose")].map(|(line, form)| Finding { line, form });
    assert_eq!(findings(false, text), wanted);
}
