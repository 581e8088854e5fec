//! A bundle: several small files, each whole, that come in one request.
//!
//! All of them take each step together ([`publish_all`]). Each has its own checks, rights, digest and answer, as if it had
//! come alone. A file that needs more than that, since its name is taken or its upload has begun, is to be sent alone: it
//! is refused here, and nothing of it is kept.

use super::single_request::WholeFile;
use super::{NameState, SliceRequest, SliceStored, SliceTarget, Uploads};
use crate::admission::begun_uploads::is_limited;
use crate::refusal::{Advice, Refusal};
use crate::uploads::request::BeginRequest;
use bigup_core::protocol::digest::{Digest, DigestKind, SliceDigest, of_bytes};
use bigup_core::protocol::name::FileName;
use bigup_core::protocol::native::ErrorCode;
use bigup_core::storage::finish::single_request::{UnnamedFile, publish_all};
use bigup_core::storage::store::Store;
use std::io::Write;

/// A file of a bundle.
#[derive(Debug)]
pub struct BundledFile {
    /// The request that would send it alone.
    pub ask: SliceRequest,
    /// All of its bytes.
    pub bytes: Vec<u8>,
}

/// A file of a bundle that stands in `files/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BundledEnd {
    /// Its digest.
    pub digest: Digest,
    /// It was there before.
    pub held: bool,
}

/// How it goes on with a file, before any of the bundle is published.
enum Admitted<'a> {
    /// It is published with the others.
    Whole(UnnamedFile, WholeFile<'a>),
    /// It is there.
    Held(Digest),
}

impl Uploads {
    /// True if bundles may come: otherwise each of their files would be refused.
    pub fn takes_bundles(&self) -> bool {
        self.takes_unnamed_files()
    }

    /// Stores the files of a bundle, but for those that are refused already. One result for each, in order.
    ///
    /// # Errors
    /// The file is refused; nothing of it is kept.
    pub fn store_bundle(&self, files: &[Result<BundledFile, Refusal>]) -> Vec<Result<BundledEnd, Refusal>> {
        let (mut unnamed, mut whole) = (vec![], vec![]);
        let store = Store::for_several(&self.data);
        let ends: Vec<_> = files
            .iter()
            .map(|file| match file.as_ref().map_err(Clone::clone).and_then(|file| self.admit_bundled(&store, file)) {
                Ok(Admitted::Held(digest)) => Some(Ok(BundledEnd { digest, held: true })),
                Err(refusal) => Some(Err(refusal)),
                Ok(Admitted::Whole(file, of)) => {
                    unnamed.push((file, self.facts(&of)));
                    whole.push(of);
                    None
                }
            })
            .collect();
        let results = publish_all(&self.data, &unnamed);
        let mut published = whole.into_iter().zip(results).map(|(of, result)| {
            let name = of.name();
            match self.published(of, result)? {
                SliceStored::Finished(digest) => Ok(BundledEnd { digest, held: false }),
                _ => Err(alone(name)),
            }
        });
        // Those that were left out above were published, in their order.
        ends.into_iter().filter_map(|end| end.or_else(|| published.next())).collect()
    }

    fn admit_bundled<'a>(&self, store: &Store, file: &'a BundledFile) -> Result<Admitted<'a>, Refusal> {
        let BundledFile { ask, bytes } = file;
        // Files of a token that may begin a number of them are counted one by one, under a lock.
        let Some(begin) = ask.begin.as_ref().filter(|_| !is_limited(&ask.by)) else { return Err(alone(&ask.name)) };
        self.check_sizes(Some(ask.len), None, None)?;
        if ask.digest.is_some_and(|digest| digest.kind == DigestKind::ChainingValue) {
            let facts = "slice_digest is a chaining value, but a whole file has none";
            return Err(Refusal::new(ErrorCode::BadRequest, facts).advising(Advice::SendHash));
        }
        let digest = of_bytes(bytes);
        self.check_told(ask, &[SliceDigest { kind: DigestKind::Hash, digest }])?;
        if let Some(SliceTarget::UnnamedFile(unnamed, granted)) = self.unnamed(store, begin, ask)? {
            unnamed.file().write_all(bytes)?;
            return Ok(Admitted::Whole(unnamed, self.may_be_published(ask, granted, digest)?));
        }
        if self.has_spool(&ask.id) {
            return Err(alone(&ask.name));
        }
        match self.look_for_finished(&BeginRequest { file_digest: Some(digest), ..begin.clone() })? {
            Some(NameState::Finished { digest: Some(digest), .. }) => Ok(Admitted::Held(digest)),
            _ => Err(alone(&ask.name)),
        }
    }
}

fn alone(name: &FileName) -> Refusal {
    Refusal::new(ErrorCode::Conflict, format!("{name} takes more than its place in a bundle: send it alone"))
}
