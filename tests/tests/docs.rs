//! docs/durability.md names the tests that run its sentences: they are there.

use bigup_tests::docs::root;

/// `file: test` pairs in backquotes.
fn named(text: &str) -> Vec<(&str, &str)> {
    let pieces = text.split('`').skip(1).step_by(2);
    pieces.filter_map(|piece| piece.split_once(": ")).filter(|(file, _)| *file != "is_uploaded").collect()
}

#[test]
fn the_tests_that_the_documents_name_are_there() {
    let text = std::fs::read_to_string(root().join("docs/durability.md")).expect("the document is there");
    let named = named(&text);
    assert!(named.len() > 20, "few tests are named: {named:?}");
    for (file, test) in named {
        let folders = ["tests/tests", "bigup-merger/tests", "bigup-core/tests", "bigupd/tests"];
        let source =
            folders.iter().find_map(|f| std::fs::read_to_string(root().join(f).join(format!("{file}.rs"))).ok());
        let source = source.unwrap_or_else(|| panic!("there is no file {file}.rs"));
        let test = format!("fn {test}(");
        let at = source.find(&test).unwrap_or_else(|| panic!("{file}.rs has no {test}"));
        let before = &source[..at];
        assert!(before.trim_end().ends_with("#[test]"), "{file}.rs: {test} is no test");
    }
}
