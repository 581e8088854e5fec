//! A slice that is read from its source each time it is sent, so that no memory need hold all of it.
//!
//! It was read before, to be digested. If the source tells that it changed in between, nothing of it is sent. If it cannot
//! tell, the server compares what arrives with the digest, so it is not stored. A slice that is sent again is read once more
//! before that: where the source changed, repeating is in vain.

use crate::client::body::RequestBody;
use crate::pipeline::error::RoundError;
use crate::pipeline::reader::Place;
use crate::stop::StopSignal;
use bigup_core::protocol::digest::{SliceDigest, SliceHasher};
use std::cell::{Cell, RefCell};
use std::io::{self, Read};

/// The body of a request that brings the slice in a place.
pub struct SourceBody<'a> {
    place: Place<'a>,
    id: u64,
    digest: SliceDigest,
    stop: &'a StopSignal,
    was_opened: Cell<bool>,
    failure: RefCell<Option<RoundError>>,
}

/// The rest of such a slice.
struct Rest<'a> {
    body: &'a SourceBody<'a>,
    at: u64,
}

impl<'a> SourceBody<'a> {
    /// Of slice `id` in `place`, which had this digest when it was read. `stop` ends reading it again.
    pub fn new(place: Place<'a>, id: u64, digest: SliceDigest, stop: &'a StopSignal) -> SourceBody<'a> {
        SourceBody { place, id, digest, stop, was_opened: Cell::new(false), failure: RefCell::default() }
    }

    /// True if it could not be read, or reads differently now: sending it again is in vain.
    pub fn has_failed(&self) -> bool {
        self.failure.borrow().is_some()
    }

    /// The reason of that. `None` if there was no such failure.
    pub fn into_failure(self) -> Option<RoundError> {
        self.failure.into_inner()
    }

    fn check(&self) -> Result<(), RoundError> {
        let mut hasher = SliceHasher::new(self.digest.kind, self.place.offset);
        self.place.read(self.stop, |bytes| hasher.update(bytes))?;
        if hasher.finish() == self.digest { Ok(()) } else { Err(RoundError::SliceChanged(self.id)) }
    }

    fn fail(&self, error: RoundError) -> io::Error {
        let told = io::Error::other(error.to_string());
        *self.failure.borrow_mut() = Some(error);
        told
    }
}

impl RequestBody for SourceBody<'_> {
    fn size(&self) -> u64 {
        self.place.len
    }

    fn open(&self) -> Box<dyn Read + '_> {
        if self.was_opened.replace(true)
            && let Err(error) = self.check()
        {
            self.fail(error);
        }
        Box::new(Rest { body: self, at: 0 })
    }
}

impl Read for Rest<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        if self.body.has_failed() {
            return Err(io::Error::other("the slice cannot be read"));
        }
        let place = &self.body.place;
        let len = bytes.len().min(usize::try_from(place.len - self.at).unwrap_or(usize::MAX));
        place.source.read_at(place.offset + self.at, &mut bytes[..len]).map_err(|e| self.body.fail(e.into()))?;
        self.at += len as u64;
        Ok(len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Source;
    use crate::source::error::SourceError;
    use bigup_core::protocol::digest::DigestKind;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// Bytes that are others in the `n`th reading of all, counted from 0.
    struct Restless(AtomicUsize, usize);

    impl Source for Restless {
        fn size(&self) -> u64 {
            9
        }

        fn token(&self) -> &'static str {
            "t"
        }

        fn read_at(&self, offset: u64, bytes: &mut [u8]) -> Result<(), SourceError> {
            let differs = self.0.fetch_add(1, Ordering::Relaxed) == self.1;
            bytes.iter_mut().zip(offset..).for_each(|(byte, at)| *byte = at as u8 ^ u8::from(differs));
            Ok(())
        }

        fn check_name(&self) -> Result<(), SourceError> {
            Ok(())
        }
    }

    /// The bytes that were sent in two attempts at the last 6 of 9, and whether the body failed.
    fn twice(source: &Restless) -> ([Option<Vec<u8>>; 2], bool) {
        let mut hasher = SliceHasher::new(DigestKind::Hash, 3);
        hasher.update(&[3, 4, 5, 6, 7, 8]);
        let never = crossbeam_channel::never();
        let body = SourceBody::new(Place { source, offset: 3, len: 6 }, 1, hasher.finish(), &never);
        let send = || {
            let mut sent = vec![];
            body.open().read_to_end(&mut sent).is_ok().then_some(sent)
        };
        let sent = [send(), send()];
        let has_failed = body.has_failed();
        assert_eq!(matches!(body.into_failure(), Some(RoundError::SliceChanged(1))), has_failed);
        (sent, has_failed)
    }

    #[test]
    fn a_slice_is_read_each_time_and_compared_before_it_is_sent_again() {
        let right = Some(vec![3, 4, 5, 6, 7, 8]);
        // The end of each attempt is a reading of nothing.
        assert_eq!(twice(&Restless(AtomicUsize::new(0), 99)), ([right.clone(), right.clone()], false));
        // Sent with other bytes once, which the server refuses: the next attempt is right.
        assert_eq!(twice(&Restless(AtomicUsize::new(0), 0)), ([Some(vec![2, 5, 4, 7, 6, 9]), right.clone()], false));
        // Other bytes when it is read to be compared: nothing is sent again.
        assert_eq!(twice(&Restless(AtomicUsize::new(0), 2)), ([right, None], true));
    }
}
