//! Plain English in comments and documents: no first sentence begins with a word like "What", "Whoever" or "None".
//!
//! Such a sentence has no noun, and its reader must begin again. [`REMAINING`] holds the files that still have such
//! sentences, with their numbers. A number can only go down: after a mend, write the lower number, or remove the line.

use std::collections::BTreeMap;
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

/// Files that are not mended yet, with the number of their findings.
const REMAINING: [(&str, usize); 69] = [
    ("CONTRIBUTING.md", 1),
    ("bigup-cli/src/cli/args.rs", 10),
    ("bigup-cli/src/cli/bar.rs", 3),
    ("bigup-cli/src/cli/counts.rs", 1),
    ("bigup-cli/src/cli/embedded.rs", 2),
    ("bigup-cli/src/cli/inputs.rs", 7),
    ("bigup-cli/src/cli/picture.rs", 1),
    ("bigup-cli/src/cli/print.rs", 1),
    ("bigup-cli/src/cli/push.rs", 1),
    ("bigup-cli/src/cli/report.rs", 2),
    ("bigup-cli/src/cli/status.rs", 1),
    ("bigup-cli/src/cli/verify.rs", 2),
    ("bigup-cli/src/client/address.rs", 3),
    ("bigup-cli/src/client/connect.rs", 5),
    ("bigup-cli/src/client/mod.rs", 9),
    ("bigup-cli/src/client/observer.rs", 2),
    ("bigup-cli/src/client/proxy.rs", 3),
    ("bigup-cli/src/client/rate_limit.rs", 1),
    ("bigup-cli/src/client/requests.rs", 4),
    ("bigup-cli/src/client/retry.rs", 5),
    ("bigup-cli/src/client/server_digests.rs", 1),
    ("bigup-cli/src/client/tls.rs", 3),
    ("bigup-cli/src/pipeline/local_digests.rs", 2),
    ("bigup-cli/src/pipeline/mod.rs", 4),
    ("bigup-cli/src/pipeline/reader.rs", 1),
    ("bigup-cli/src/pipeline/sender_tuning.rs", 2),
    ("bigup-cli/src/pipeline/slow_line.rs", 2),
    ("bigup-cli/src/source/fingerprint.rs", 7),
    ("bigup-cli/src/source/lease.rs", 1),
    ("bigup-cli/src/source/mod.rs", 3),
    ("bigup-cli/src/stop.rs", 2),
    ("bigup-cli/src/upload/contention.rs", 2),
    ("bigup-cli/src/upload/mod.rs", 11),
    ("bigup-cli/src/upload/stream.rs", 2),
    ("bigup-core/src/protocol/plan.rs", 1),
    ("bigup-core/src/storage/finish/publish.rs", 6),
    ("bigup-core/src/storage/spool/arrival.rs", 1),
    ("bigup-core/src/storage/spool/checks.rs", 6),
    ("bigup-core/src/storage/spool/commit.rs", 4),
    ("bigup-core/src/storage/spool/finished_mark.rs", 1),
    ("bigup-core/src/storage/spool/holdings.rs", 6),
    ("bigup-core/src/storage/spool/idle.rs", 4),
    ("bigup-core/src/storage/spool/locked.rs", 5),
    ("bigup-core/src/storage/spool/marks.rs", 1),
    ("bigup-core/src/storage/spool/mod.rs", 5),
    ("bigup-core/src/storage/spool/records.rs", 3),
    ("bigup-core/src/storage/spool/sync_slice.rs", 1),
    ("bigup-core/src/storage/spool/upload.rs", 6),
    ("bigup-core/src/storage/spool/whole_hash.rs", 2),
    ("bigup-core/src/storage/store/digest_attribute.rs", 5),
    ("bigup-core/src/storage/store/folder.rs", 1),
    ("bigup-core/src/storage/store/mod.rs", 7),
    ("bigup-core/src/storage/store/possible_names.rs", 1),
    ("bigup-merger/src/lib.rs", 2),
    ("bigup-merger/src/main.rs", 1),
    ("bigupd/src/admission/access.rs", 1),
    ("bigupd/src/http/native/query.rs", 7),
    ("bigupd/src/http/native/routes.rs", 9),
    ("bigupd/src/refusal.rs", 2),
    ("bigupd/src/uploads/begin.rs", 5),
    ("bigupd/src/uploads/finished_digests.rs", 3),
    ("bigupd/src/uploads/limits.rs", 2),
    ("bigupd/src/uploads/mod.rs", 13),
    ("bigupd/src/uploads/request.rs", 6),
    ("bigupd/src/uploads/settings.rs", 2),
    ("bigupd/src/uploads/show.rs", 1),
    ("bigupd/src/uploads/single_request.rs", 1),
    ("bigupd/src/uploads/slice.rs", 4),
    ("bigupd/src/uploads/tests.rs", 3),
];

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

/// Complaints about files that have other numbers of findings than the list says.
fn complaints(found: &BTreeMap<String, Vec<Finding>>, remaining: &BTreeMap<String, usize>) -> Vec<String> {
    let mut complaints = vec![];
    for (path, findings) in found {
        let (now, listed) = (findings.len(), remaining.get(path).copied().unwrap_or(0));
        if now > listed {
            let show = |finding: &Finding| format!("{path}:{}: \"{}\"", finding.line, finding.form);
            complaints.extend(findings.iter().map(show));
            complaints.push(format!("{path}: {now} findings, {listed} are listed; begin these sentences with a noun"));
        }
    }
    for (path, listed) in remaining {
        let now = found.get(path).map_or(0, Vec::len);
        if now < *listed {
            complaints.push(format!("{path}: {listed} findings are listed; lower that to {now} in REMAINING"));
        }
    }
    complaints
}

#[test]
fn comments_and_documents_are_in_plain_english() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut found = BTreeMap::new();
    for path in CHECKED.iter().flat_map(|path| files(&root.join(path))) {
        let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
        if !GENERATED.contains(&name.as_str()) {
            let is_source = path.extension().is_some_and(|end| end == "rs");
            found.insert(name, findings(is_source, &fs::read_to_string(&path).unwrap()));
        }
    }
    assert!(found.len() > 100, "only {} files are found", found.len());
    let remaining = REMAINING.into_iter().map(|(path, number)| (path.to_owned(), number)).collect();
    let complaints = complaints(&found, &remaining);
    let list: Vec<String> = found.iter().filter(|(_, found)| !found.is_empty()).map(listed).collect();
    let complaints = complaints.join("\n");
    assert!(complaints.is_empty(), "{complaints}\nthe list as the files are now:\n{}", list.join("\n"));
}

/// The line of [`REMAINING`] for a file.
fn listed((path, findings): (&String, &Vec<Finding>)) -> String {
    format!("    (\"{path}\", {}),", findings.len())
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

#[test]
fn numbers_can_neither_rise_nor_stay_above_the_truth() {
    let found = |number| {
        let findings = (0..number).map(|line| Finding { line, form: "What" }).collect();
        BTreeMap::from([("a.rs".to_owned(), findings)])
    };
    let remaining = BTreeMap::from([("a.rs".to_owned(), 2)]);
    assert_eq!(complaints(&found(2), &remaining), [""; 0]);
    assert_eq!(complaints(&found(1), &remaining), ["a.rs: 2 findings are listed; lower that to 1 in REMAINING"]);
    assert!(complaints(&found(3), &remaining).last().unwrap().contains("3 findings, 2 are listed"));
    assert_eq!(complaints(&BTreeMap::new(), &remaining).len(), 1);
}
