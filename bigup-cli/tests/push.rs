//! What goes over the wire when all is well: as little as possible.

mod common;

use bigup_core::protocol::digest::of_bytes;
use common::{Mock, bytes, file};

const K: usize = 1024;

#[test]
fn a_file_in_slices_arrives_whole_and_its_digest_is_told() {
    let (mock, data) = (Mock::new(), bytes(10 * K + 1));
    let (_dir, path) = file("a.bin", &data);
    let run = mock.run(&["push", &path, "--slice-size", "1K", "--name", "x/a b.bin"]).ok();
    assert_eq!(mock.finished("x/a b.bin"), Some(data.clone()));
    assert_eq!(mock.slices_sent(), (0..11).collect::<Vec<_>>());
    let (out, digest) = (run.out(), of_bytes(&data));
    assert!(out.starts_with("x/a b.bin: 10.0 KiB stored, merged and verified in "), "{out}");
    assert_eq!(out.lines().nth(1), Some(&*format!("{digest}  x/a b.bin")));
    assert_eq!(run.err(), "");
}

#[test]
fn slices_that_are_no_subtrees_are_checked_as_a_whole() {
    let (mock, data) = (Mock::new(), bytes(10_000));
    let (_dir, path) = file("a", &data);
    mock.run(&["push", &path, "--slice-size", "1500"]).ok();
    assert_eq!(mock.finished("a"), Some(data));
}

#[test]
fn only_missing_slices_are_sent() {
    let (mock, data) = (Mock::new(), bytes(8 * K));
    let (_dir, path) = file("a", &data);
    mock.holding("a", &token(&path), &data, K as u64, &[0, 1, 2, 5]);
    let run = mock.run(&["push", &path, "--slice-size", "1K"]).ok();
    assert_eq!(mock.slices_sent(), [3, 4, 6, 7]);
    assert_eq!(mock.finished("a"), Some(data));
    assert!(run.out().contains("4 slices held already"), "{}", run.out());
    assert!(mock.requests().iter().all(|request| request.get("file_digest").is_none()));
}

#[test]
fn the_uploads_own_slice_size_is_kept() {
    let (mock, data) = (Mock::new(), bytes(8 * K));
    let (_dir, path) = file("a", &data);
    mock.holding("a", &token(&path), &data, 2 * K as u64, &[0]);
    mock.run(&["push", &path, "--slice-size", "1K"]).ok();
    assert_eq!(mock.slices_sent(), [1, 2, 3]);
    assert_eq!(mock.finished("a"), Some(data));
}

#[test]
fn what_another_source_began_is_compared_and_only_what_differs_is_sent() {
    let (mock, data) = (Mock::new(), bytes(8 * K));
    let mut other = data.clone();
    other[3 * K] ^= 1;
    mock.holding("a", "somebody else", &other, K as u64, &[0, 1, 3, 4]);
    let (_dir, path) = file("a", &data);
    let run = mock.run(&["push", &path, "--slice-size", "1K", "--json"]).ok();
    assert_eq!(mock.slices_sent(), [2, 3, 5, 6, 7]);
    assert_eq!(mock.finished("a"), Some(data.clone()));
    let ends = mock.requests().into_iter().filter(|request| request.get("wait").is_some()).collect::<Vec<_>>();
    assert_eq!(ends.len(), 1);
    assert_eq!(ends[0].get("file_digest"), Some(&*of_bytes(&data).to_string()));
    let done = &run.events("done")[0];
    assert_eq!((done["bytes_held"].as_u64(), done["bytes_sent"].as_u64()), (Some(3 * 1024), Some(5 * 1024)));
}

#[test]
fn slices_of_odd_size_are_compared_too() {
    let (mock, data) = (Mock::new(), bytes(10_000));
    mock.holding("a", "somebody else", &data, 1500, &[0, 1, 2, 3, 4, 5, 6]);
    let (_dir, path) = file("a", &data);
    mock.run(&["push", &path, "--slice-size", "1500"]).ok();
    assert_eq!(mock.slices_sent(), Vec::<u64>::new());
    assert_eq!(mock.finished("a"), Some(data));
}

#[test]
fn a_small_file_is_one_request() {
    let (mock, data) = (Mock::new(), bytes(5000));
    let (_dir, path) = file("a", &data);
    let run = mock.run(&["push", &path]).ok();
    assert_eq!(mock.requests().len(), 1);
    assert_eq!(mock.finished("a"), Some(data.clone()));
    let again = mock.run(&["push", &path]).ok();
    assert_eq!(mock.requests().len(), 2);
    let digest = format!("{}  a", of_bytes(&data));
    assert!(run.out().contains(&digest) && again.out().contains(&digest));
    assert!(again.out().contains("stored already"), "{}", again.out());
}

#[test]
fn an_empty_file_is_one_request() {
    let mock = Mock::new();
    let (_dir, path) = file("a", b"");
    mock.run(&["push", &path]).ok();
    assert_eq!(mock.requests().len(), 1);
    assert_eq!(mock.finished("a"), Some(vec![]));
}

#[test]
fn a_finished_file_of_the_same_source_is_one_request() {
    let (mock, data) = (Mock::new(), bytes(8 * K));
    let (_dir, path) = file("a", &data);
    mock.run(&["push", &path, "--slice-size", "1K"]).ok();
    let before = mock.requests().len();
    let run = mock.run(&["push", &path, "--slice-size", "1K"]).ok();
    assert_eq!(mock.requests().len(), before + 1);
    assert!(run.out().contains("stored already"), "{}", run.out());
}

#[test]
fn a_finished_file_of_another_source_and_the_same_content_is_not_sent_again() {
    let (mock, data) = (Mock::new(), bytes(2 << 20));
    mock.finish("a", &data);
    let (_dir, path) = file("a", &data);
    let run = mock.run(&["push", &path]).ok();
    assert_eq!(mock.requests().len(), 1);
    assert!(run.out().contains("stored already"), "{}", run.out());
}

#[test]
fn a_finished_file_of_other_content_stays_unless_it_is_to_be_replaced() {
    for (len, other) in [(2 << 20, 2 << 20), (2 << 20, 1000), (1000, 999), (1000, 1000)] {
        let (mock, data, old) = (Mock::new(), bytes(len), vec![7; other]);
        mock.finish("a", &old);
        let (_dir, path) = file("a", &data);
        mock.run(&["push", &path]).failed("--replace");
        assert_eq!(mock.finished("a"), Some(old));
        mock.run(&["push", &path, "--replace"]).ok();
        assert_eq!(mock.finished("a"), Some(data));
    }
}

#[test]
fn a_folder_is_pushed_file_by_file_and_one_failure_does_not_stop_the_rest() {
    let mock = Mock::new();
    let (dir, _) = file("ignored", b"");
    let top = dir.path().join("top");
    std::fs::create_dir_all(top.join("sub")).unwrap();
    for name in ["a", "b", "sub/c"] {
        std::fs::write(top.join(name), name).unwrap();
    }
    mock.finish("top/b", b"other");
    let run = mock.run(&["push", top.to_str().unwrap()]).failed("top/b: a finished file of other content exists");
    assert_eq!(mock.finished("top/a"), Some(b"a".to_vec()));
    assert_eq!(mock.finished("top/sub/c"), Some(b"sub/c".to_vec()));
    let sum = run.out().lines().last().unwrap_or_default().to_owned();
    assert!(sum.starts_with("2 files, 6 B stored in ") && sum.ends_with("; 1 failed"), "{}", run.out());
}

/// The token under which the program pushes the file at `path`.
fn token(path: &str) -> String {
    use bigup_client::source::{LocalFile, Source};
    LocalFile::open(path.as_ref()).unwrap().token().to_owned()
}
