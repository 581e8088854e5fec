//! Standard input, whose length nobody knows before it ends.

mod common;

use bigup_core::protocol::digest::of_bytes;
use common::{Mock, bytes, started};
use std::io::Write;
use std::process::Stdio;
use std::time::{Duration, Instant};

const K: usize = 1024;
const PUSH: [&str; 6] = ["push", "-", "--name", "a", "--slice-size", "1K"];

#[test]
fn the_length_is_told_before_the_last_slice() {
    for len in [K + 1, 2 * K - 1, 2 * K, 2 * K + 1, 9 * K] {
        let (mock, data) = (Mock::new(), bytes(len));
        let run = mock.run_with_input(&PUSH, &data).ok();
        assert_eq!(mock.finished("a"), Some(data.clone()), "{len}");
        let requests = mock.requests();
        let last = len.div_ceil(K) as u64 - 1;
        assert_eq!((requests[0].get("file_size"), requests[0].get("slice_num")), (None, None));
        let told = requests.iter().position(|request| request.number("file_size") == Some(len as u64)).unwrap();
        let sent = requests.iter().position(|request| request.is_slice(last)).unwrap();
        assert!(told < sent, "{len}");
        assert!(run.out().contains(&of_bytes(&data).to_string()), "{}", run.out());
    }
}

#[test]
fn an_input_that_fits_into_one_slice_is_one_request() {
    for len in [0, 1, K - 1, K] {
        let (mock, data) = (Mock::new(), bytes(len));
        mock.run_with_input(&PUSH, &data).ok();
        assert_eq!(mock.requests().len(), 1, "{len}");
        assert_eq!(mock.finished("a"), Some(data), "{len}");
    }
}

#[test]
fn an_input_larger_than_one_request_but_not_than_a_slice_is_one_slice() {
    let (mock, data) = (Mock::new(), bytes(3 << 20));
    mock.run_with_input(&["push", "-", "--name", "a"], &data).ok();
    assert_eq!(mock.slices_sent(), [0]);
    assert_eq!(mock.finished("a"), Some(data));
}

#[test]
fn slices_of_odd_size_from_an_input_are_checked_as_a_whole() {
    let (mock, data) = (Mock::new(), bytes(10_000));
    mock.holding("a", "earlier", &data, 1500, &[0, 1]);
    mock.run_with_input(&["push", "-", "--name", "a", "--slice-size", "4K"], &data).ok();
    assert_eq!(mock.slices_sent(), [2, 3, 4, 5, 6]);
    assert_eq!(mock.finished("a"), Some(data));
}

#[test]
fn an_interrupted_input_run_again_sends_only_what_differs() {
    let (mock, data) = (Mock::new(), bytes(8 * K));
    let mut other = data.clone();
    other[2 * K] ^= 1;
    mock.holding("a", "earlier", &other, K as u64, &[0, 1, 2, 3]);
    let run = mock.run_with_input(&[&PUSH[..], &["--json"]].concat(), &data).ok();
    assert_eq!(mock.slices_sent(), [2, 4, 5, 6, 7]);
    assert_eq!(mock.finished("a"), Some(data.clone()));
    let requests = mock.requests();
    assert_eq!(requests.last().unwrap().get("file_digest"), Some(&*of_bytes(&data).to_string()));
    assert_eq!(run.events("done")[0]["bytes_held"], 3 * K);
}

#[test]
fn an_input_of_another_length_than_the_upload_is_refused() {
    let (mock, data) = (Mock::new(), bytes(8 * K));
    mock.holding("a", "earlier", &data, K as u64, &[0]);
    mock.run_with_input(&PUSH, &bytes(7 * K)).failed("file_size of this upload is 8192, not 7168");
    mock.run_with_input(&PUSH, &bytes(9 * K)).failed("of this upload");
    assert_eq!(mock.finished("a"), None);
}

#[test]
fn a_finished_file_is_compared_with_the_input() {
    let (mock, data) = (Mock::new(), bytes(8 * K));
    mock.finish("a", &data);
    let run = mock.run_with_input(&PUSH, &data).ok();
    assert!(run.out().contains("stored already"), "{}", run.out());
    let other = bytes(9 * K);
    mock.run_with_input(&PUSH, &other).failed("--replace");
    assert_eq!(mock.finished("a"), Some(data));
    mock.run_with_input(&[&PUSH[..], &["--replace"]].concat(), &other).ok();
    assert_eq!(mock.finished("a"), Some(other));
}

#[test]
fn a_push_whose_input_pauses_is_heard_of() {
    let (mock, data) = (Mock::new(), bytes(3 * K));
    let mut command = mock.command(&PUSH);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut client = started(|| command.spawn());
    let mut input = client.stdin.take().unwrap();
    input.write_all(&data[..2 * K + 1]).unwrap();
    input.flush().unwrap();
    let is_sign = |source: &str| {
        let peeks = mock.requests().into_iter().filter(|request| request.get("peek") == Some("1"));
        peeks.into_iter().any(|request| request.get("source") == Some(source))
    };
    let deadline = Instant::now() + Duration::from_secs(120);
    let is_heard = || mock.requests().first().and_then(|first| first.get("source")).is_some_and(is_sign);
    while !is_heard() {
        assert!(Instant::now() < deadline, "nothing is heard: {:?}", mock.requests());
        std::thread::sleep(Duration::from_millis(50));
    }
    input.write_all(&data[2 * K + 1..]).unwrap();
    drop(input);
    assert!(client.wait().unwrap().success());
    assert_eq!(mock.finished("a"), Some(data));
}
