//! Query strings. The bytes are one as it stands behind the `?`; what it says is also put into a query by the client's own
//! code and read back.

use crate::plan::assert_sound;
use crate::told;
use bigup_client::client::query::Query;
use bigup_core::protocol::digest::{Digest, SliceDigest};
use bigup_core::protocol::native::{MAX_DIGESTS, MAX_SOURCE_LEN, MAX_WAIT_SECS, param};
use bigupd::admission::access::Access;
use bigupd::http::native::query::QueryParams;
use bigupd::uploads::request::BeginRequest;

/// Checks a query string.
///
/// # Panics
/// What was accepted is over a limit, what was refused is not told properly, or the client's encoding is not read back.
pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    value_survives(text);
    let Some(params) = told(QueryParams::parse(text, Access::Everything)) else { return };
    for name in [param::SLICE_ID, param::SLICE_NUM, param::SLICE_SIZE, param::FILE_SIZE, param::OFFSET, "other"] {
        let number = told(params.number(name));
        assert_eq!(told(params.needed_number(name)), number.flatten());
    }
    for name in [param::REPLACE, param::RANGES, param::PEEK, param::RECUT] {
        told(params.switch(name));
    }
    told(params.value::<SliceDigest>(param::SLICE_DIGEST));
    told(params.value::<Digest>(param::FILE_DIGEST));
    let name = told(params.name_to_push());
    assert!(name.is_none() || params.has_file_name());
    if let Some(source) = told(params.source()).flatten() {
        assert!((1..=MAX_SOURCE_LEN).contains(&source.len()) && source.bytes().all(|b| b.is_ascii_graphic()));
    }
    if let Some(form) = told(params.form()) {
        assert!(form.wait.as_secs() <= MAX_WAIT_SECS);
    }
    if let Some((first, last)) = told(params.digests()).flatten() {
        assert!(first <= last && last - first < MAX_DIGESTS && last < bigup_core::protocol::plan::MAX_SLICES);
    }
    if let Some(ask) = told(params.begin()) {
        assert_sound(&ask.plan);
        assert_eq!(Some(&ask.name), name.as_ref());
        assert!(ask.plan.slice_num.is_some() || ask.plan.slice_size.is_some());
        is_read_back(&ask);
    }
    let slice_id = told(params.number(param::SLICE_ID)).flatten().unwrap_or(0);
    let len = told(params.number(param::SLICE_SIZE)).flatten().unwrap_or(1);
    if let Some(ask) = told(params.begin_with_slice(slice_id, len)) {
        assert_sound(&ask.plan);
        assert_eq!(ask.plan.learn(slice_id, len), Ok(ask.plan), "the slice has its place");
    }
}

/// Any text, put into a query by the client, is what the daemon reads.
fn value_survives(text: &str) {
    let query = Query::new().with("x", 1).with(param::FILE_NAME, text).with("y", 2);
    let params = QueryParams::parse(query.as_str(), Access::Everything).expect("the client's queries can be read");
    match bigup_core::protocol::name::FileName::new(text) {
        Ok(name) => assert_eq!(params.name_to_push(), Ok(name)),
        Err(why) => assert_eq!(params.name_to_push(), Err(why.into())),
    }
    assert_eq!((params.number("x"), params.number("y")), (Ok(Some(1)), Ok(Some(2))));
}

/// What a query asked for, said again by the client, asks for the same.
fn is_read_back(ask: &BeginRequest) {
    let query = Query::new()
        .with(param::FILE_NAME, ask.name.as_str())
        .with_known(param::SLICE_NUM, ask.plan.slice_num)
        .with_known(param::SLICE_SIZE, ask.plan.slice_size)
        .with_known(param::FILE_SIZE, ask.plan.file_size)
        .with_known(param::SOURCE, ask.source.as_ref())
        .with_known(param::FILE_DIGEST, ask.file_digest)
        .with_switch(param::REPLACE, ask.replace)
        .with_switch(param::RECUT, ask.recut);
    let again = QueryParams::parse(query.as_str(), Access::Everything).and_then(|params| params.begin());
    let asked =
        |ask: &BeginRequest| (ask.name.clone(), ask.plan.clone(), ask.source.clone(), ask.file_digest, ask.replace);
    assert_eq!(again.as_ref().map(asked), Ok(asked(ask)));
}
