//! A small file that comes whole in one request, and needs no spool ([`bigup_core::storage::finish::single_request`]).

use super::refusals::{cannot_be_finished, exists_with, in_the_way, no_disk_space};
use super::{SliceRequest, SliceStored, SliceTarget, Uploads, check_reach};
use crate::admission::begun_uploads::{CountedBegin, check_left};
use crate::admission::grants::{Grant, Growing};
use crate::metrics::UploadProtocol;
use crate::refusal::{Advice, Refusal};
use crate::uploads::request::BeginRequest;
use bigup_core::protocol::digest::{Digest, DigestKind};
use bigup_core::protocol::name::FileName;
use bigup_core::protocol::units::MIB;
use bigup_core::storage::audit::{AuditEvent, AuditLine};
use bigup_core::storage::finish::single_request::{FileFacts, UnnamedFile, publish_all};
use bigup_core::storage::spool::{Spool, UploadId};
use bigup_core::storage::store::{Entry, FinishedFile, Store, StoreError, StoredDigest};
use std::io;
use std::sync::atomic::Ordering;
use std::time::Instant;

/// Largest file that needs no spool if it comes in one request, in bytes. An upload without a spool cannot go on, so a
/// broken connection is to lose little.
const MAX_DRAFT: u64 = MIB;

/// A file that arrived whole in a request, and may be published.
pub(super) struct WholeFile<'a> {
    ask: &'a SliceRequest,
    digest: Digest,
    granted: Grant,
    counted: CountedBegin,
    /// When that was asked.
    began: Instant,
}

impl<'a> WholeFile<'a> {
    /// Its name.
    pub(super) fn name(&self) -> &'a FileName {
        &self.ask.name
    }
}

impl Uploads {
    /// True if small files need no spool, as this daemon is set up, and as far as it knows the file system.
    pub(super) fn takes_unnamed_files(&self) -> bool {
        // A hook is asked about an upload, and told of one by the traces of its spool.
        let has_hooks = self.begin_hook.is_some() || self.data.leaves_notices();
        // A store of objects is asked with the file on disk, from which it can be asked again.
        let has_store = self.data.objects().is_some();
        !has_hooks && !has_store && !self.without_unnamed_files.load(Ordering::Relaxed)
    }

    /// A place for a small file that comes whole in this request, if there is nothing of its name yet: then it needs no
    /// spool. `None` if it needs one.
    pub(super) fn unnamed(
        &self,
        store: &Store,
        begin: &BeginRequest,
        ask: &SliceRequest,
    ) -> Result<Option<SliceTarget>, Refusal> {
        let is_plain = ask.len <= MAX_DRAFT && ask.digest.is_none_or(|digest| digest.kind == DigestKind::Hash);
        if !is_plain || !self.takes_unnamed_files() || self.has_spool(&ask.id) {
            return Ok(None);
        }
        if store.lookup(&ask.name)? != Entry::Nothing {
            return Ok(None);
        }
        check_reach(store, &ask.name)?;
        ask.name.check_new()?;
        self.check_not_cancelled(&Spool::of(&self.data, &ask.id), &ask.name, ask.source.as_deref())?;
        self.check_plan(&begin.plan)?;
        match check_left(&self.data, &ask.by) {
            // Another request of this token made it with the last upload that the token may begin.
            Err(_) if self.has_name(ask)? => return Ok(None),
            checked => checked?,
        }
        let granted = match self.take(&ask.by, &ask.name, Growing::UnnamedFile(ask.len)) {
            // Another request made it, and its bytes may be the reason for the refusal: see the state that is there.
            Err(_) if self.has_name(ask)? => return Ok(None),
            taken => taken?,
        };
        let unnamed = self
            .with_disk_space(|space| UnnamedFile::new(&self.data, ask.len, space))
            .map_err(|e| no_disk_space(e, ask.name.as_str()))?;
        Ok(unnamed.map(|unnamed| SliceTarget::UnnamedFile(unnamed, granted)))
    }

    /// True if there is this upload, or a finished file of its name.
    fn has_name(&self, ask: &SliceRequest) -> Result<bool, Refusal> {
        Ok(self.has_spool(&ask.id) || Store::new(&self.data).lookup(&ask.name)? != Entry::Nothing)
    }

    /// True if there is this upload, or something that looks like one.
    pub(super) fn has_spool(&self, id: &UploadId) -> bool {
        let found = Spool::of(&self.data, id).path().symlink_metadata();
        !matches!(found, Err(e) if e.kind() == io::ErrorKind::NotFound)
    }

    /// Publishes a file that arrived whole, with this digest.
    pub(super) fn finish(
        &self,
        ask: &SliceRequest,
        unnamed: UnnamedFile,
        granted: Grant,
        digest: Digest,
    ) -> Result<SliceStored, Refusal> {
        let whole = self.may_be_published(ask, granted, digest)?;
        let result = publish_all(&self.data, &[(unnamed, self.facts(&whole))]).into_iter().next();
        self.published(whole, result.unwrap_or(Ok(())))
    }

    /// Refuses a file that arrived whole, with this digest, if it is not to be published.
    pub(super) fn may_be_published<'a>(
        &self,
        ask: &'a SliceRequest,
        granted: Grant,
        digest: Digest,
    ) -> Result<WholeFile<'a>, Refusal> {
        let begin = ask.begin.as_ref();
        if let Some(promised) = begin.and_then(|begin| begin.file_digest).filter(|promised| *promised != digest) {
            let why = format!("the whole file has the digest {digest}, not {promised} as promised");
            return Err(cannot_be_finished(&ask.name, &why).advising(Advice::UploadAgain));
        }
        if self.has_spool(&ask.id) {
            // Another push has begun meanwhile, and its bytes sent so far are not to be in vain.
            return Err(self.restless(&ask.name));
        }
        let began = Instant::now();
        let counted = match CountedBegin::take(&self.data, &ask.by) {
            Err(_) if self.has_name(ask)? => return Err(self.restless(&ask.name)),
            counted => counted?,
        };
        Ok(WholeFile { ask, digest, granted, counted, began })
    }

    /// The facts that a file is to have.
    pub(super) fn facts<'a>(&self, whole: &WholeFile<'a>) -> FileFacts<'a> {
        let WholeFile { ask, digest, .. } = *whole;
        let kept = ask.begin.as_ref().map(|begin| self.settings.keep.permitted(begin.kept)).unwrap_or_default();
        let stored_digest = StoredDigest { digest, source: ask.source.clone(), sha256: None };
        FileFacts { name: &ask.name, stored_digest, kept }
    }

    /// The file was published, or could not be.
    pub(super) fn published(
        &self,
        whole: WholeFile<'_>,
        result: Result<(), StoreError>,
    ) -> Result<SliceStored, Refusal> {
        let WholeFile { ask, digest, granted, counted, began } = whole;
        match result {
            Ok(()) => {
                counted.has_begun();
                granted.landed();
                self.metrics.upload_begun(UploadProtocol::Native);
                self.metrics.slice_received(ask.len);
                self.metrics.upload_finished(ask.len, began.elapsed());
                let begin = ask.begin.as_ref();
                AuditLine::new(AuditEvent::Finished, &ask.name)
                    .with("file_size", Some(ask.len))
                    .with("file_digest", Some(digest))
                    .with("token", ask.by.token())
                    .with("certificate", begin.and_then(|begin| begin.certificate.as_ref()))
                    .with("peer", begin.and_then(|begin| begin.peer))
                    .with("seconds", Some(began.elapsed().as_secs()))
                    .log();
                Ok(SliceStored::Finished(digest))
            }
            Err(StoreError::Exists) => self.finished_before(ask, digest),
            Err(StoreError::InTheWay(what)) => Err(in_the_way(&what)),
            Err(StoreError::Io(e)) if e.kind() == io::ErrorKind::Unsupported => {
                log::info!("files of one request take a spool from now on: {e}");
                self.without_unnamed_files.store(true, Ordering::Relaxed);
                Err(self.restless(&ask.name))
            }
            Err(StoreError::Io(e)) => {
                // It has its name, where only a sync after that failed. Else the next count finds nothing.
                counted.has_begun();
                granted.landed();
                Err(e.into())
            }
        }
    }

    /// Another request gave the name to something while this file, with this digest, came.
    fn finished_before(&self, ask: &SliceRequest, digest: Digest) -> Result<SliceStored, Refusal> {
        // Its writer may not have come to seal it.
        match self.look_into(&ask.name)? {
            Entry::File(FinishedFile { stored_digest: Some(stored_digest), .. }) if stored_digest.digest == digest => {
                Ok(SliceStored::Finished(digest))
            }
            // Asked again it is one that is to be replaced.
            Entry::File(_) if ask.begin.as_ref().is_some_and(|begin| begin.replace) => Err(self.restless(&ask.name)),
            Entry::File(FinishedFile { stored_digest: Some(stored_digest), .. }) => {
                Err(exists_with(ask, stored_digest.digest, digest))
            }
            Entry::File(FinishedFile { stored_digest: None, .. }) => Err(self.restless(&ask.name)),
            Entry::Other(what) => Err(in_the_way(&what)),
            Entry::Nothing => Err(self.restless(&ask.name)),
        }
    }
}
