//! Bundles: the body of a request that brings several files. The first byte is the length of the pieces in which the rest
//! comes.

use bigup_core::protocol::native::{MAX_BUNDLE_LINE, MAX_BUNDLED_FILE, param};
use bigupd::admission::access::Access;
use bigupd::http::native::bundle::{BundleCutter, Cut};
use bigupd::http::native::query::QueryParams;

/// Checks a body.
///
/// # Panics
/// What is cut out of it depends on its pieces, is over a limit, or is not what stands there.
pub fn check(data: &[u8]) {
    let Some((len, body)) = data.split_first() else { return };
    let (whole, is_whole) = cut(&[body]);
    let pieces: Vec<&[u8]> = body.chunks(usize::from(*len).max(1)).collect();
    assert_eq!(cut(&pieces), (whole.clone(), is_whole));
    let mut joined = vec![];
    for (query, bytes) in &whole {
        assert!(query.len() <= MAX_BUNDLE_LINE && bytes.len() as u64 <= MAX_BUNDLED_FILE && !query.contains('\n'));
        let params = QueryParams::parse(query, Access::Everything).expect("it was read before");
        assert_eq!(params.needed_number(param::SLICE_SIZE), Ok(bytes.len() as u64));
        joined.extend_from_slice(query.as_bytes());
        joined.push(b'\n');
        joined.extend_from_slice(bytes);
    }
    assert!(body.starts_with(&joined), "in order, with nothing left out");
}

/// The files of a body that comes in these pieces, and whether it is a bundle as far as it goes.
fn cut(pieces: &[&[u8]]) -> (Vec<Cut>, Option<usize>) {
    let (mut cutter, mut cuts) = (BundleCutter::default(), vec![]);
    for piece in pieces {
        cutter.push(piece);
        loop {
            match cutter.cut() {
                Ok(Some(cut)) => cuts.push(cut),
                Ok(None) => break,
                Err(_) => return (cuts, None),
            }
        }
    }
    (cuts, Some(cutter.rest()))
}
