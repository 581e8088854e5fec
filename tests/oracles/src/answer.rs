//! A server's answers. The bytes are JSON, read as each answer that a client expects, and as a list of runs.

use crate::name::assert_harmless;
use crate::plan::assert_sound;
use bigup_client::client::Client;
use bigup_client::client::observer::NoObserver;
use bigup_client::client::requests::UploadRequests;
use bigup_client::client::retry::{RetryBudget, RetryPolicy};
use bigup_client::client::server_digests::ids_below;
use bigup_client::stop::Stop;
use bigup_client::upload::finish::because;
use bigup_client::upload::plan_of;
use bigup_core::protocol::name::FileName;
use bigup_core::protocol::native::{ErrorResponse, ListResponse, SliceResponse, UploadResponse};
use bigup_core::protocol::ranges::SliceRanges;
use std::collections::BTreeSet;

/// How many ids are looked at one by one.
const MANY: usize = 300;

/// Checks an answer.
///
/// # Panics
/// It is taken for something that it does not say, or cannot be said again.
pub fn check(data: &[u8]) {
    if let Ok(ranges) = serde_json::from_slice::<SliceRanges>(data) {
        check_ranges(&ranges);
    }
    if let Ok(answer) = serde_json::from_slice::<UploadResponse>(data) {
        let again = serde_json::to_vec(&answer).expect("an answer can be said");
        assert_eq!(serde_json::from_slice::<UploadResponse>(&again).expect("it can be read"), answer);
        check_held(&answer);
        check_plan(&answer);
        assert_harmless(&because(&answer));
        if let Some(digest) = answer.digest() {
            assert_eq!(answer.file_digest.as_ref().map(|text| text.to_ascii_lowercase()), Some(digest.to_string()));
        }
    }
    if let Ok(answer) = serde_json::from_slice::<ErrorResponse>(data) {
        assert!(serde_json::to_vec(&answer).is_ok());
    }
    if let Ok(answer) = serde_json::from_slice::<SliceResponse>(data) {
        let again = serde_json::to_vec(&answer).expect("an answer can be said");
        assert_eq!(serde_json::from_slice::<SliceResponse>(&again).expect("it can be read"), answer);
    }
    if let Ok(answer) = serde_json::from_slice::<ListResponse>(data) {
        let again = serde_json::to_vec(&answer).expect("an answer can be said");
        assert_eq!(serde_json::from_slice::<ListResponse>(&again).expect("it can be read"), answer);
    }
}

fn check_ranges(ranges: &SliceRanges) {
    let runs = ranges.runs();
    let in_order = runs.iter().all(|[first, last]| first <= last)
        && runs.windows(2).all(|pair| u128::from(pair[0][1]) + 1 < u128::from(pair[1][0]));
    let count = in_order.then(|| runs.iter().map(|[first, last]| u128::from(*last) - u128::from(*first) + 1).sum());
    assert_eq!(ranges.is_valid(), count.is_some_and(|count: u128| count <= u64::MAX.into()), "{runs:?}");
    if !ranges.is_valid() {
        return;
    }
    assert_eq!(Some(u128::from(ranges.count())), count);
    let some: Vec<u64> = ranges.iter().take(MANY).collect();
    assert!(some.windows(2).all(|pair| pair[0] < pair[1]) && some.iter().all(|id| ranges.contains(*id)));
    for [first, last] in runs.iter().take(MANY) {
        assert!(ranges.contains(*first) && ranges.contains(*last));
        assert!(first.checked_sub(1).is_none_or(|before| !ranges.contains(before)));
        assert!(last.checked_add(1).is_none_or(|after| !ranges.contains(after)));
    }
    for limit in [0, 1, some.last().copied().unwrap_or(7), u64::MAX] {
        let below: Vec<u64> = ids_below(ranges, limit).take(MANY).collect();
        assert_eq!(below, some.iter().copied().filter(|id| *id < limit).collect::<Vec<_>>(), "below {limit}");
    }
}

fn check_held(answer: &UploadResponse) {
    let held = answer.held();
    check_ranges(&held);
    assert!(held.is_valid(), "{held:?}");
    match (&answer.slice_ranges_uploaded, &answer.slice_ids_uploaded) {
        (Some(ranges), _) if ranges.is_valid() => assert_eq!(held, *ranges),
        (_, Some(ids)) => {
            let set: BTreeSet<u64> = ids.iter().copied().collect();
            assert_eq!(held.iter().collect::<Vec<_>>(), set.into_iter().collect::<Vec<_>>());
        }
        _ => assert_eq!(held.count(), 0),
    }
}

/// What a client takes for the plan of its file is one, and of its file.
fn check_plan(answer: &UploadResponse) {
    let client = Client::builder("http://127.0.0.1:1").build().expect("it is a URL");
    let retry = RetryBudget::new(RetryPolicy::default());
    let (name, stop) = (FileName::new("x").expect("it is a name"), Stop::new());
    for file_size in [Some(0), Some(25), Some(1 << 40), None] {
        let requests = UploadRequests {
            client: &client,
            observer: &NoObserver,
            retry: &retry,
            stop: stop.signal(),
            name: &name,
            source: String::new(),
            file_size,
            slice_size: 1 << 23,
            file_digest: None,
            kept: bigup_core::protocol::kept::Kept::default(),
            replace: false,
            recut: false,
            discard: false,
        };
        match plan_of(answer, &requests) {
            Ok(plan) => {
                assert_sound(&plan);
                assert!(file_size.is_none() || plan.file_size == file_size, "{plan:?}");
            }
            Err(why) => assert_harmless(&why.to_string()),
        }
    }
}
