//! A file whose bytes were changed since an earlier push in a way that leaves its token as it was, as Windows permits:
//! what the server holds of the earlier push is compared, and nothing mixed is stored.

mod common;

use bigup_client::source::{LocalFile, Source};
use bigup_client::{Client, SourceError, UploadError};
use common::{Mock, bytes, file};

const K: usize = 1024;

/// A file as a system has it on which its token does not tell of each change.
struct Unseen(LocalFile);

/// The token of the file, before and after the change.
const TOKEN: &str = "0123456789abcdef0123456789abcdef";

impl Source for Unseen {
    fn size(&self) -> u64 {
        self.0.size()
    }

    fn token(&self) -> &str {
        TOKEN
    }

    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> Result<(), SourceError> {
        self.0.read_at(offset, bytes)
    }

    fn check_name(&self) -> Result<(), SourceError> {
        self.0.check_name()
    }

    fn may_change_unseen(&self) -> bool {
        true
    }
}

/// Pushes the file at `path` in slices of 1 KiB; whether it was finished already.
fn push(mock: &Mock, path: &str) -> Result<bool, UploadError> {
    let client = Client::builder(&mock.url).build().unwrap();
    let source = Unseen(LocalFile::open(path.as_ref()).unwrap());
    client.upload("a", source).slice_size(K as u64).run().map(|done| done.already)
}

#[test]
fn what_is_held_and_equal_is_not_sent_again_and_nobody_waits() {
    let (mock, data) = (Mock::new(), bytes(8 * K));
    mock.holding("a", TOKEN, &data, K as u64, &[0, 1, 4]);
    let (_dir, path) = file("a", &data);
    assert!(!push(&mock, &path).unwrap());
    assert_eq!(mock.slices_sent(), [2, 3, 5, 6, 7]);
    assert!(mock.requests().iter().all(|request| request.get("leave").is_none()));
    assert!(mock.requests().iter().all(|request| request.get("source").is_none_or(|source| source == TOKEN)));
    assert_eq!(mock.finished("a"), Some(data));
}

#[test]
fn a_held_slice_that_differs_is_replaced_before_any_other_is_sent() {
    for changed in [0, 1, 4] {
        let (mock, data) = (Mock::new(), bytes(8 * K));
        let mut old = data.clone();
        old[changed * K + 5] ^= 1;
        mock.holding("a", TOKEN, &old, K as u64, &[0, 1, 4]);
        let (_dir, path) = file("a", &data);
        assert!(!push(&mock, &path).unwrap());
        assert_eq!(mock.finished("a"), Some(data), "slice {changed}");
        let mut expected = vec![2, 3, 5, 6, 7, changed as u64];
        expected.sort_unstable();
        assert_eq!(mock.slices_sent(), expected);
        // As another source, which the server lets go on at once since the first one left.
        let requests = mock.requests();
        let left = requests.iter().position(|request| request.get("leave").is_some()).expect("it left");
        assert_eq!(requests[left].get("source"), Some(TOKEN));
        for (at, request) in requests.iter().enumerate().filter(|(_, request)| request.is_post()) {
            assert!(at > left && request.get("source") != Some(TOKEN), "{request:?}");
        }
    }
}

#[test]
fn a_finished_file_is_compared_too() {
    let (mock, data) = (Mock::new(), bytes(8 * K));
    let (_dir, path) = file("a", &data);
    assert!(!push(&mock, &path).unwrap());
    assert!(push(&mock, &path).unwrap());
    let (_dir, path) = file("a", &vec![7; 8 * K]);
    assert!(push(&mock, &path).unwrap_err().is_existing_file());
    assert_eq!(mock.finished("a"), Some(data));
}

#[cfg(windows)]
#[test]
fn a_file_of_the_same_size_and_time_is_not_taken_for_the_one_before() {
    let token = |path: &str| LocalFile::open(path.as_ref()).unwrap().token().to_owned();
    let (mock, old, data) = (Mock::new(), vec![7; 8 * K], bytes(8 * K));
    let (dir, path) = file("a", &old);
    let time = std::fs::metadata(&path).unwrap().modified().unwrap();
    let set_back = |path: &str| std::fs::File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
    let before = token(&path);
    mock.holding("a", &before, &old, K as u64, &[0, 1, 4]);
    // Another file in its place has another number, and this one's bytes were changed where it is.
    let other = dir.path().join("b");
    std::fs::write(&other, &data).unwrap();
    set_back(other.to_str().unwrap());
    assert_ne!(token(other.to_str().unwrap()), before);
    std::fs::write(&path, &data).unwrap();
    set_back(&path);
    assert_eq!(token(&path), before);
    mock.run(&["push", &path, "--slice-size", "1K"]).ok();
    assert_eq!(mock.finished("a"), Some(data));
}
