//! Small files, several in one request: a bundle. Each has its own digest and its own answer.
//!
//! A bundle only saves work. It is sent once; a file of which it does not answer that it is stored is to be pushed
//! alone, which waits, retries and tells as ever.

use crate::client::error::CallError;
use crate::client::query::Query;
use crate::source::Source;
use crate::stop::is_closed;
use crate::upload::error::UploadError;
use crate::upload::finish::confirmed;
use crate::upload::{PushContext, Uploaded, WholeSource};
use bigup_core::protocol::digest::Digest;
use bigup_core::protocol::name::FileName;
use bigup_core::protocol::native::{BundleResponse, BundledResponse, param};

/// Most files of a bundle: more would share no more.
pub const FILES: usize = 64;

/// Bytes of the files of a bundle after which no more are added.
pub const BYTES: u64 = 512 << 10;

/// Files that go in one request.
pub struct Bundle<'a> {
    cx: &'a PushContext<'a>,
    body: Vec<u8>,
    /// Size in bytes and digest of each file.
    files: Vec<(u64, Digest)>,
}

impl<'a> Bundle<'a> {
    /// Without files.
    pub fn new(cx: &'a PushContext<'a>) -> Bundle<'a> {
        Bundle { cx, body: vec![], files: vec![] }
    }

    /// Reads `source`, to be pushed as `name`. It has some bytes, at most
    /// [`MAX_BUNDLED_FILE`](bigup_core::protocol::native::MAX_BUNDLED_FILE).
    ///
    /// # Errors
    /// It cannot be read, or changed meanwhile. The bundle is as it was.
    pub fn add(&mut self, name: &FileName, source: &dyn Source) -> Result<(), UploadError> {
        let WholeSource { bytes, digest, .. } = WholeSource::read(source, self.cx.stop)?;
        let size = bytes.len() as u64;
        let requests = self.cx.requests(name, source.token(), Some(size), size);
        let query = requests.keeping(self.cx.keep.of(source.kept())).whole_file(digest, size, self.cx.replace);
        self.body.extend_from_slice(query.as_str().as_bytes());
        self.body.push(b'\n');
        self.body.extend_from_slice(&bytes);
        self.files.push((size, digest.digest));
        Ok(())
    }

    /// Sends it. One result for each file, in order; `None`: it is to be pushed alone.
    pub fn send(self) -> Vec<Option<Uploaded>> {
        let Bundle { cx: PushContext { client, stop, .. }, body, files } = self;
        let query = Query::new().with(param::BUNDLE, files.len());
        let answer = match client.post::<BundleResponse>(&query, &body, false, stop, &|_| !is_closed(stop)) {
            Ok(answer) => answer.files,
            Err(error) => {
                log::debug!("a bundle of {} files failed, each is pushed alone: {error}", files.len());
                // Whoever is in between does not like them; the files themselves it may.
                if !matches!(error, CallError::Transport { .. } | CallError::Stopped) {
                    client.send_no_bundles();
                }
                vec![]
            }
        };
        let ends = answer.into_iter().map(Some).chain(std::iter::repeat(None));
        files.iter().zip(ends).map(|((size, digest), end)| stored(*size, *digest, end?)).collect()
    }
}

/// The push of a file that ended so. `None`: it is not stored, or is another one.
fn stored(file_size: u64, digest: Digest, end: BundledResponse) -> Option<Uploaded> {
    match end {
        BundledResponse::Stored(stored) if stored.is_uploaded == 1 => {
            let said = stored.file_digest.and_then(|digest| digest.parse().ok());
            let file_digest = confirmed(Some(digest), said).ok()?;
            Some(Uploaded { file_size, file_digest, already: stored.held, at_once: true })
        }
        BundledResponse::Stored(_) => None,
        BundledResponse::Refused(refused) => {
            log::debug!("a file of a bundle is pushed alone: {}", refused.message);
            None
        }
    }
}
