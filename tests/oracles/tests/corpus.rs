//! The fuzzers' corpora, by every `cargo test`: what was found once stays found.

use bigup_oracles::ORACLES;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz")
}

fn names_in(folder: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn every_oracle_has_a_target_and_a_corpus_and_none_is_left_over() {
    let oracles: BTreeSet<String> = ORACLES.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(names_in(&fuzz().join("corpus")), oracles);
    let targets = names_in(&fuzz().join("targets"));
    let targets: BTreeSet<String> = targets.iter().map(|file| file.trim_end_matches(".rs").to_owned()).collect();
    assert_eq!(targets, oracles);
}

#[test]
fn all_corpora_pass() {
    let mut failed = vec![];
    for (name, oracle) in ORACLES {
        let folder = fuzz().join("corpus").join(name);
        let files = names_in(&folder);
        assert!(files.len() >= 5, "{name} has only {} seeds", files.len());
        for file in files {
            let data = std::fs::read(folder.join(&file)).unwrap();
            if std::panic::catch_unwind(|| oracle(&data)).is_err() {
                failed.push(format!("tests/fuzz/corpus/{name}/{file}"));
            }
        }
    }
    assert!(failed.is_empty(), "see above; what failed: {failed:#?}");
}
