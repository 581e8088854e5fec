//! Servers and connections that fail, others that get in the way, signals.

mod common;

use common::{Mock, Reply, Request, State, bytes, file, refusal, refusal_later};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

const K: usize = 1024;

/// Answers the first `times` requests for which `which` is true with `reply`.
fn first(
    times: u32,
    which: impl Fn(&Request) -> bool + Send + Sync + 'static,
    reply: impl Fn() -> Reply + Send + Sync + 'static,
) -> impl Fn(&Request, &mut State) -> Option<Reply> + Send + Sync + 'static {
    let left = AtomicU32::new(times);
    move |request, _| {
        let take = |left: u32| left.checked_sub(1);
        (which(request) && left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take).is_ok()).then(&reply)
    }
}

#[test]
fn a_busy_server_is_asked_again_when_it_said() {
    let later = || refusal_later(503, "stopping", "the server is stopping", 1);
    let mock = Mock::with_hook(first(1, |request| request.is_slice(2), later));
    let data = bytes(4 * K);
    let (_dir, path) = file("a", &data);
    let began = Instant::now();
    let run = mock.run(&["push", &path, "--slice-size", "1K", "--json"]).ok();
    assert!(began.elapsed() >= Duration::from_secs(1));
    assert_eq!(mock.slices_sent(), [0, 1, 2, 2, 3]);
    assert_eq!(mock.finished("a"), Some(data));
    let retry = &run.events("retry")[0];
    assert_eq!((retry["slice_id"].as_u64(), retry["attempt"].as_u64()), (Some(2), Some(1)));
    assert!(retry["wait_seconds"].as_f64().unwrap() >= 1.0 && retry["message"] == "the server is stopping", "{retry}");
}

#[test]
fn a_paused_upload_is_asked_about_before_a_slice_is_sent_once_more() {
    let paused = || refusal_later(503, "paused", "the upload is paused", 0);
    let (left, is_told) = (AtomicU32::new(2), AtomicU32::new(0));
    let mock = Mock::with_hook(move |request, _| {
        if request.is_slice(1) && is_told.swap(1, Ordering::SeqCst) == 0 {
            return Some(paused());
        }
        let asks = !request.is_post() && is_told.load(Ordering::SeqCst) == 1;
        (asks && left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()).then(paused)
    });
    let data = bytes(4 * K);
    let (_dir, path) = file("a", &data);
    let run = mock.run(&["push", &path, "--slice-size", "1K", "--json"]).ok();
    assert_eq!(mock.slices_sent(), [0, 1, 1, 2, 3]);
    let attempts: Vec<_> = run.events("retry").iter().map(|retry| retry["slice_id"].as_u64()).collect();
    assert_eq!(attempts, [Some(1); 3]);
    assert_eq!(mock.finished("a"), Some(data));
}

#[test]
fn a_push_whose_upload_is_cancelled_does_not_begin_it_anew() {
    let cancelled = || refusal(410, "cancelled", "the upload was cancelled");
    let is_cancelled = AtomicU32::new(0);
    let mock = Mock::with_hook(move |request, _| {
        if request.is_slice(2) {
            is_cancelled.store(1, Ordering::SeqCst);
        }
        (is_cancelled.load(Ordering::SeqCst) == 1).then(cancelled)
    });
    let (_dir, path) = file("a", &bytes(4 * K));
    mock.run(&["push", &path, "--slice-size", "1K", "--senders", "1"]).failed("the upload was cancelled");
    // One to begin with, and at the end the word that it is over.
    assert_eq!((mock.slices_sent(), mock.requests().len()), (vec![0, 1, 2], 5));
    assert_eq!(mock.requests()[4].get("leave"), Some("1"));
}

#[test]
fn a_dropped_connection_is_made_again() {
    let mock = Mock::with_hook(first(3, |request| !request.is_slice(0), || Reply::Drop));
    let data = bytes(4 * K);
    let (_dir, path) = file("a", &data);
    mock.run(&["push", &path, "--slice-size", "1K"]).ok();
    assert_eq!(mock.finished("a"), Some(data));
}

#[test]
fn a_slice_that_arrived_damaged_is_sent_again() {
    let damaged = || refusal(400, "damaged", "the slice arrived damaged");
    let mock = Mock::with_hook(first(2, |request| request.is_slice(1), damaged));
    let data = bytes(4 * K);
    let (_dir, path) = file("a", &data);
    mock.run(&["push", &path, "--slice-size", "1K"]).ok();
    assert_eq!(mock.slices_sent(), [0, 1, 1, 1, 2, 3]);
    assert_eq!(mock.finished("a"), Some(data));
}

#[test]
fn what_the_server_refuses_for_good_is_not_sent_again() {
    for (status, code) in [(400, "bad_request"), (409, "exists"), (413, "too_large"), (507, "no_space")] {
        let refused = move || refusal(status, code, "never ever");
        let mock = Mock::with_hook(first(u32::MAX, |request| request.is_slice(0), refused));
        let (_dir, path) = file("a", &bytes(K));
        mock.run(&["push", &path]).failed("never ever");
        assert_eq!(mock.requests().len(), 1, "{status}");
    }
}

#[test]
fn a_small_file_whose_upload_has_begun_in_slices_goes_on_in_slices() {
    let whole = |request: &Request| request.is_post() && request.get("slice_num").is_some();
    let mock = Mock::with_hook(first(1, whole, || refusal(409, "conflict", "slice_num of this upload is 4, not 1")));
    let data = bytes(4 * K);
    let (_dir, path) = file("a", &data);
    mock.run(&["push", &path]).ok();
    assert_eq!(mock.finished("a"), Some(data));
}

#[test]
fn retries_are_limited_and_the_last_failure_is_told() {
    let mock = Mock::with_hook(first(u32::MAX, Request::is_post, || refusal(500, "internal", "the disk is on fire")));
    let (_dir, path) = file("a", &bytes(K));
    mock.run(&["push", &path, "--retries", "1"]).failed("gave up after 2 attempts in 0 s: the disk is on fire");
    assert_eq!(mock.requests().len(), 2);
}

#[test]
fn an_answer_of_somebody_else_is_quoted_and_harmless() {
    let mock = Mock::with_hook(|_, _| Some(Reply::Raw(502, "<html>\u{1b}[31mBad Gateway</html>")));
    let (_dir, path) = file("a", &bytes(K));
    let run = mock.run(&["push", &path, "--retries", "0"]).failed("502");
    assert!(run.err().contains("<html>\\u{1b}[31mBad Gateway"), "{}", run.err());
}

#[test]
fn what_a_server_says_cannot_steer_the_terminal() {
    let mock = Mock::with_hook(|_, _| Some(refusal(400, "bad_request", "\u{1b}]0;x\u{7}\u{202e}no")));
    let (_dir, path) = file("a", &bytes(K));
    let run = mock.run(&["push", &path]).failed("\\u{1b}]0;x\\u{7}\\u{202e}no");
    assert!(!run.err().chars().any(|c| c.is_control() && c != '\n'), "{:?}", run.err());
}

#[test]
fn slices_that_the_server_lost_are_sent_again() {
    let lose = AtomicU32::new(0);
    let mock = Mock::with_hook(move |request, state| {
        if request.get("wait").is_some() && lose.fetch_add(1, Ordering::SeqCst) == 0 {
            state.uploads.get_mut("a").unwrap().slices.remove(&2);
        }
        None
    });
    let data = bytes(4 * K);
    let (_dir, path) = file("a", &data);
    mock.run(&["push", &path, "--slice-size", "1K"]).ok();
    assert_eq!(mock.slices_sent(), [0, 1, 2, 2, 3]);
    assert_eq!(mock.finished("a"), Some(data));
}

#[test]
fn a_server_that_loses_slices_for_ever_is_given_up() {
    let mock = Mock::with_hook(|request, state| {
        if request.get("wait").is_some() {
            state.uploads.get_mut("a").unwrap().slices.remove(&2);
        }
        None
    });
    let (_dir, path) = file("a", &bytes(4 * K));
    mock.run(&["push", &path, "--slice-size", "1K"]).failed("asks for 1 slices again and again");
}

#[test]
fn an_upload_that_went_is_begun_again() {
    let cancel = AtomicU32::new(0);
    let mock = Mock::with_hook(move |request, state| {
        if request.is_slice(3) && cancel.fetch_add(1, Ordering::SeqCst) == 0 {
            state.uploads.clear();
        }
        None
    });
    let data = bytes(8 * K);
    let (_dir, path) = file("a", &data);
    mock.run(&["push", &path, "--slice-size", "1K"]).ok();
    assert_eq!(mock.finished("a"), Some(data));
}

#[test]
fn a_busy_answer_at_the_end_is_waited_out() {
    let busy = || refusal_later(409, "busy", "being merged", 0);
    let mock = Mock::with_hook(first(1, |request| request.get("wait").is_some(), busy));
    let data = bytes(4 * K);
    let (_dir, path) = file("a", &data);
    mock.run(&["push", &path, "--slice-size", "1K"]).ok();
    assert_eq!(mock.finished("a"), Some(data));
}

#[test]
fn a_finished_file_that_differs_from_what_was_sent_is_an_error() {
    let mock = Mock::with_hook(|request, state| {
        if request.get("wait").is_some() {
            state.uploads.get_mut("a").unwrap().slices.get_mut(&1).unwrap()[0] ^= 1;
        }
        None
    });
    let (_dir, path) = file("a", &bytes(4 * K));
    mock.run(&["push", &path, "--slice-size", "1K"]).failed("the finished file on the server differs");
}

// Windows lets nobody write to it meanwhile.
#[cfg(unix)]
#[test]
fn a_change_of_the_file_is_noticed_and_nothing_of_it_is_sent() {
    let old = vec![1; 64 * K];
    let (_dir, path) = file("a", &old);
    let (victim, new) = (path.clone(), vec![2; 64 * K]);
    let mock = Mock::with_hook(move |request, _| {
        if request.is_slice(0) {
            common::write_file(&victim, &new);
        }
        None
    });
    let args = ["push", &path, "--slice-size", "1K", "--senders", "1", "--queue-size", "1"];
    mock.run(&args).failed("changed while it was being pushed");
    let sent = mock.requests();
    assert!(sent.iter().filter(|request| request.is_post()).count() < 8);
    assert!(sent.iter().all(|request| request.body.iter().all(|byte| *byte == 1)));
    assert_eq!(mock.finished("a"), None);
}

#[test]
fn another_push_of_the_same_content_is_waited_for() {
    let data = bytes(4 * K);
    let (busy, whole) = (AtomicU32::new(0), data.clone());
    let mock = Mock::with_hook(move |request, state| {
        if request.get("peek").is_some() || request.is_post() {
            return None;
        }
        match busy.fetch_add(1, Ordering::SeqCst) {
            0 => Some(refusal_later(409, "busy", "another push is at work", 0)),
            1 => {
                // The other one ends meanwhile.
                state.uploads.clear();
                let finished = common::Finished { source: "other".to_owned(), bytes: whole.clone() };
                state.finished.insert("a".to_owned(), finished);
                None
            }
            _ => None,
        }
    });
    mock.holding("a", "other", &data, K as u64, &[0, 1]);
    let (_dir, path) = file("a", &data);
    let run = mock.run(&["push", &path, "--slice-size", "1K"]).ok();
    assert_eq!(mock.slices_sent(), Vec::<u64>::new());
    assert!(mock.requests().iter().any(|request| request.get("digests") == Some("0-1")));
    assert_eq!(run.err(), "a: waiting: another push is at work\n");
}

#[test]
fn another_push_may_end_while_its_slices_are_compared() {
    let data = bytes(4 * K);
    let (whole, begun) = (data.clone(), AtomicU32::new(0));
    let mock = Mock::with_hook(move |request, state| {
        if request.get("digests").is_some() {
            state.uploads.clear();
            let finished = common::Finished { source: "other".to_owned(), bytes: whole.clone() };
            state.finished.insert("a".to_owned(), finished);
            return Some(refusal(404, "no_upload", "there is no upload of a"));
        }
        let begins = !request.is_post() && request.get("peek").is_none();
        let busy = begins && begun.fetch_add(1, Ordering::SeqCst) == 0;
        busy.then(|| refusal_later(409, "busy", "another push is at work", 0))
    });
    mock.holding("a", "other", &data, K as u64, &[0, 1]);
    let (_dir, path) = file("a", &data);
    mock.run(&["push", &path, "--slice-size", "1K"]).ok();
    assert_eq!(mock.slices_sent(), Vec::<u64>::new());
}

#[test]
fn a_push_that_was_overtaken_ends_with_the_other_one_where_the_content_is_the_same() {
    let data = bytes(4 * K);
    for same in [true, false] {
        let (begun, mut whole) = (AtomicU32::new(0), data.clone());
        whole[0] ^= u8::from(!same);
        let mock = Mock::with_hook(move |request, state| {
            let belongs = "this upload belongs to another push";
            if request.is_slice(2) {
                return Some(refusal(409, "conflict", belongs));
            }
            if request.is_post() || request.get("peek").is_some() {
                return None;
            }
            match begun.fetch_add(1, Ordering::SeqCst) {
                1 | 2 => return Some(refusal_later(409, "busy", "another push is at work", 0)),
                3 => {
                    state.uploads.clear();
                    let finished = common::Finished { source: "other".to_owned(), bytes: whole.clone() };
                    state.finished.insert("a".to_owned(), finished);
                }
                _ => {}
            }
            None
        });
        let (_dir, path) = file("a", &data);
        let run = mock.run(&["push", &path, "--slice-size", "1K", "--senders", "1", "--queue-size", "1"]);
        if same {
            run.ok();
        } else {
            run.failed("exists");
        }
    }
}

#[test]
fn a_refusal_by_our_own_upload_ends_the_push() {
    let mock = Mock::with_hook(|request, _| request.is_slice(1).then(|| refusal(409, "conflict", "it differs")));
    let (_dir, path) = file("a", &bytes(4 * K));
    mock.run(&["push", &path, "--slice-size", "1K"]).failed("slice 1 was refused, another push took over: it differs");
}

#[test]
fn another_push_of_other_content_is_told_once_it_moves() {
    let (data, mut other) = (bytes(4 * K), bytes(4 * K));
    other[K + 5] ^= 1;
    let looks = AtomicU32::new(0);
    let mock = Mock::with_hook(move |request, state| {
        if !request.is_post() && request.get("peek").is_none() {
            return Some(refusal_later(409, "busy", "another push is at work", 0));
        }
        // The third look finds one more slice.
        if request.get("digests").is_none() && looks.fetch_add(1, Ordering::SeqCst) == 2 {
            state.uploads.get_mut("a").unwrap().slices.insert(2, vec![7; K]);
        }
        None
    });
    mock.holding("a", "other", &other, K as u64, &[0, 1]);
    let (_dir, path) = file("a", &data);
    mock.run(&["push", &path, "--slice-size", "1K"]).failed("its content differs from this file's in slice 1");
    let begins = mock.requests().iter().filter(|request| request.get("peek").is_none()).count();
    assert_eq!(begins, 3, "content that differs is no error while nothing moves");
}

#[test]
fn content_left_by_an_interrupted_push_is_gone_on_with_once_the_server_lets_us() {
    let (data, mut other) = (bytes(4 * K), bytes(4 * K));
    other[K + 5] ^= 1;
    let asked = AtomicU32::new(0);
    let mock = Mock::with_hook(move |request, _| {
        let begins = !request.is_post() && request.get("peek").is_none();
        let busy = begins && asked.fetch_add(1, Ordering::SeqCst) < 3;
        busy.then(|| refusal_later(409, "busy", "another push was at work", 0))
    });
    mock.holding("a", "other", &other, K as u64, &[0, 1]);
    let (_dir, path) = file("a", &data);
    mock.run(&["push", &path, "--slice-size", "1K"]).ok();
    assert_eq!(mock.finished("a").unwrap(), data);
    assert_eq!(mock.slices_sent(), [1, 2, 3]);
}

#[test]
fn a_push_that_nobody_lets_in_ends_after_the_time_allowed() {
    let mock = Mock::with_hook(|request, _| {
        let begins = !request.is_post() && request.get("peek").is_none();
        begins.then(|| refusal_later(409, "busy", "another push is at work", 0))
    });
    let data = bytes(4 * K);
    mock.holding("a", "other", &data, K as u64, &[0]);
    let (_dir, path) = file("a", &data);
    let args = ["push", &path, "--slice-size", "1K", "--retry-for", "300ms"];
    mock.run(&args).failed("nothing moved for 0 s: another push is at work");
}

#[test]
fn a_merge_that_does_not_move_is_given_up_with_its_reason() {
    let mock = Mock::with_hook(|request, state| {
        request.get("wait")?;
        assert_eq!(state.uploads["a"].slices.len(), 4);
        Some(Reply::Json(
            200,
            serde_json::json!({"file_name": "a", "status": 200, "is_uploaded": 0, "slice_size": 1024, "slice_num": 4,
                "slice_ranges_uploaded": [[0, 3]], "curr_merge_slice_id": 2, "last_error": "\u{1b}disk full"}),
        ))
    });
    let (_dir, path) = file("a", &bytes(4 * K));
    let run = mock.run(&["push", &path, "--slice-size", "1K", "--retry-for", "0s"]);
    let run = run.failed("the server does not finish: \\u{1b}disk full");
    assert_eq!(run.err().matches("the merger stopped").count(), 1, "{}", run.err());
}

#[cfg(unix)]
#[test]
fn a_signal_ends_the_push_at_once_and_tells_what_is_stored() {
    use std::io::{BufRead, BufReader};
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;
    use std::sync::{Arc, Mutex, mpsc};
    let (release, held) = mpsc::channel::<()>();
    let held = Mutex::new(held);
    let mock = Arc::new(Mock::with_hook(move |request, _| {
        if request.is_slice(1) {
            // Until the test is over.
            let _ = held.lock().unwrap().recv();
        }
        None
    }));
    let (_dir, path) = file("a", &bytes(4 * K));
    let args = ["push", &path, "--slice-size", "1K", "--senders", "1", "--json"];
    let mut child = mock.command(&args).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.any(|line| line.contains("\"progress\"")));
    let killed = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    assert!(killed.success());
    // As a shell sees it: it died by the signal, and did not exit.
    assert_eq!(child.wait().unwrap().signal(), Some(15));
    let last = lines.last().unwrap();
    assert!(last.contains("interrupted: 1 of 4 slices are stored; run the same command again to go on"), "{last}");
    drop(release);
}
