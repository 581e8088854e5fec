//! Limits of an upload, and of the number of uploads.

use super::{ATTEMPTS, Uploads};
use crate::admission::access::Access;
use crate::admission::amount::Amount;
use crate::admission::grants::{Grant, GrantRequest, Growing, OverLimit, Uncounted};
use crate::admission::quota::Quota;
use crate::admission::spool_limit::{LetIn, SpoolsFull};
use crate::metrics::Limit;
use crate::refusal::Refusal;
use bigup_core::protocol::name::FileName;
use bigup_core::protocol::native::ErrorCode;
use bigup_core::protocol::plan::Plan;
use bigup_core::protocol::units::show_size;
use bigup_core::storage::spool::Spool;
use std::time::Instant;

/// Seconds after which an upload that was one too many may be begun again.
const FULL_RETRY_AFTER: u64 = 5;

/// Seconds after which a token that has too many uploads may ask again: some of them may be finished by then.
const OF_TOKEN_RETRY_AFTER: u64 = 10;

/// Seconds after which a client that has no quota left beside the bytes that others add may ask again. Their bytes are
/// on the disk by then, or given up.
const QUOTA_RETRY_AFTER: u64 = 1;

/// Seconds after which a client may ask again that came while the store of objects was behind.
const STORE_RETRY_AFTER: u64 = 2;

impl Uploads {
    /// Refuses an upload if the known part of its plan is over the limits.
    pub(super) fn check_plan(&self, plan: &Plan) -> Result<(), Refusal> {
        self.check_sizes(plan.slice_size, plan.slice_num, plan.file_size)
    }

    /// The same of single numbers: bytes of a slice, number of slices, bytes of the file.
    pub(super) fn check_sizes(
        &self,
        slice: Option<u64>,
        slices: Option<u64>,
        file: Option<u64>,
    ) -> Result<(), Refusal> {
        let limits = &self.settings;
        let over = |is: Option<u64>, most: u64| is.filter(|is| *is > most);
        let (limit, message) = if let Some(slice) = over(slice, limits.slice_size) {
            let most = limits.slice_size;
            (Limit::SliceSize, format!("a slice of {slice} bytes is too large: at most {most}; use smaller slices"))
        } else if let Some(file) = over(file, limits.file_size) {
            (Limit::FileSize, format!("a file of {file} bytes is too large: at most {}", limits.file_size))
        } else if let Some(slices) = over(slices, limits.slices) {
            let most = limits.slices;
            (Limit::Slices, format!("{slices} slices are too many: at most {most}; use larger slices"))
        } else {
            return Ok(());
        };
        Err(Refusal::over(limit, ErrorCode::TooLarge, message))
    }

    /// Lets `by` add this to the bytes of `name`. It counts for as long as the result lives, and once that has
    /// [landed](Grant::landed) by its bytes on the disk. Blocks on the disk.
    ///
    /// # Errors
    /// It is too much, or the data folder cannot be read.
    pub(super) fn take(&self, by: &Access, name: &FileName, what: Growing) -> Result<Grant, Refusal> {
        let quota = self.quota_of(by);
        self.grants.take(&self.ask(by, quota.as_ref(), name, what))?.map_err(|over| self.over(by, quota, name, over))
    }

    /// The same for a caller that has the lock of the spool, and asked first at the moment `asked`. Does not count.
    ///
    /// # Errors
    /// It is too much, or something is to be counted first.
    pub(super) fn take_locked(
        &self,
        by: &Access,
        name: &FileName,
        what: Growing,
        asked: Instant,
    ) -> Result<Grant, Stop> {
        let quota = self.quota_of(by);
        let taken = self.grants.take_counted(&self.ask(by, quota.as_ref(), name, what), asked);
        Ok(taken.map_err(Stop::Uncounted)?.map_err(|over| self.over(by, quota, name, over))?)
    }

    /// Does `work`, which takes the lock of a spool of `name` and gives it up, also where it stops because something is
    /// to be counted. That is counted without the lock, and `work` done again. It is told when that was first asked.
    ///
    /// # Errors
    /// Those of `work`, or the data folder cannot be read.
    pub(super) fn counting<T>(
        &self,
        name: &FileName,
        mut work: impl FnMut(Instant) -> Result<T, Stop>,
    ) -> Result<T, Refusal> {
        let asked = Instant::now();
        for _ in 0..ATTEMPTS {
            match work(asked) {
                Err(Stop::Uncounted(what)) => self.grants.count(&what, asked)?,
                Err(Stop::Refused(refusal)) => return Err(refusal),
                Ok(done) => return Ok(done),
            }
        }
        Err(self.restless(name))
    }

    /// Lets slice `slice_id` of `len` bytes into the spool. The result is to be kept until its disk space is taken. Blocks
    /// on the disk, and must be called without a lock.
    ///
    /// # Errors
    /// Too much waits for the store of objects, or the data folder cannot be read.
    pub(super) fn check_spool_limit(&self, spool: &Spool, slice_id: u64, len: u64) -> Result<LetIn, Refusal> {
        let is_next = || {
            let Ok(Some(upload)) = spool.upload() else { return Ok(true) };
            Ok(spool.holdings(&upload)?.frontier == slice_id)
        };
        self.spool_limit.take(len, is_next)?.map_err(spools_full)
    }

    /// The same for the next slice of an upload whose bytes come in order.
    ///
    /// # Errors
    /// As for [`Uploads::check_spool_limit`].
    pub(super) fn check_spool_limit_to_append(&self, spool: &Spool) -> Result<Option<LetIn>, Refusal> {
        if !self.spool_limit.is_set() {
            return Ok(None);
        }
        // One that cannot be read is told of later, in its own words.
        let Ok(Some(upload)) = spool.upload() else { return Ok(None) };
        let len = upload.plan.slice_size.unwrap_or(0).min(upload.plan.file_size.unwrap_or(u64::MAX));
        let is_next = || Ok(spool.holdings(&upload)?.waiting.is_empty());
        self.spool_limit.take(len, is_next)?.map(Some).map_err(spools_full)
    }

    /// The same for an upload that is to begin.
    ///
    /// # Errors
    /// As for [`Uploads::check_spool_limit`].
    pub(super) fn check_spool_limit_to_begin(&self) -> Result<(), Refusal> {
        self.spool_limit.take(0, || Ok(true))?.map(drop).map_err(spools_full)
    }

    fn quota_of(&self, by: &Access) -> Option<Quota> {
        let anonymous = || Quota { bytes: self.settings.anonymous_quota, ..Quota::default() };
        by.quota().or_else(|| (by.token().is_none() && self.settings.anonymous_quota.is_some()).then(anonymous))
    }

    fn ask<'a>(&self, by: &'a Access, quota: Option<&'a Quota>, name: &'a FileName, what: Growing) -> GrantRequest<'a> {
        let limits = &self.settings;
        GrantRequest {
            name,
            token: by.token(),
            what,
            most_uploads: limits.number,
            most_of_token: by.counts_uploads().then_some(limits.number_per_token),
            quota,
        }
    }

    fn over(&self, by: &Access, quota: Option<Quota>, name: &FileName, over: OverLimit) -> Refusal {
        let limits = &self.settings;
        match (over, &quota) {
            (OverLimit::Quota(there, more), Some(quota)) => over_quota(by, quota, there, more),
            (OverLimit::QuotaForNow, _) => over_quota_for_now(name),
            (OverLimit::OfToken(has), _) => too_many_of(by, has, limits.number_per_token),
            (OverLimit::Uploads | OverLimit::Quota(..), _) => too_many(limits.number),
        }
    }
}

/// The reason why work under the lock of a spool did not come to its end.
#[derive(Debug)]
pub(super) enum Stop {
    /// It may not.
    Refused(Refusal),
    /// This is to be counted first, without the lock: counting may walk all that is there, and no request that needs
    /// the spool is to wait for it. Begun again then, it goes on.
    Uncounted(Uncounted),
}

impl<E: Into<Refusal>> From<E> for Stop {
    fn from(error: E) -> Stop {
        Stop::Refused(error.into())
    }
}

fn spools_full(full: SpoolsFull) -> Refusal {
    let message = format!(
        "the store of finished files is slow or away: unfinished uploads need {} on the server, and more than {} is refused \
         (spool_limit): try again later",
        show_size(full.bytes),
        show_size(full.most)
    );
    Refusal { retry_after: Some(STORE_RETRY_AFTER), ..Refusal::over(Limit::SpoolLimit, ErrorCode::Overloaded, message) }
}

fn too_many(most: u64) -> Refusal {
    let message = format!("{most} uploads are unfinished, and no more are possible: try again later");
    Refusal { retry_after: Some(FULL_RETRY_AFTER), ..Refusal::over(Limit::Uploads, ErrorCode::Overloaded, message) }
}

fn too_many_of(by: &Access, has: u64, most: u64) -> Refusal {
    let who = who(by);
    let message = format!("{who} {has} unfinished uploads, and {most} are the most: finish some first");
    Refusal {
        retry_after: Some(OF_TOKEN_RETRY_AFTER),
        ..Refusal::over(Limit::UploadsPerToken, ErrorCode::TooMany, message)
    }
}

fn who(by: &Access) -> String {
    by.token().map_or("those without a token have".to_owned(), |token| format!("the token {token} has"))
}

fn over_quota_for_now(name: &FileName) -> Refusal {
    let message = format!("{name} does not fit into the quota beside what other requests are adding to it: ask again");
    Refusal { retry_after: Some(QUOTA_RETRY_AFTER), ..Refusal::over(Limit::Quota, ErrorCode::TooMany, message) }
}

fn over_quota(by: &Access, quota: &Quota, there: Amount, more: Amount) -> Refusal {
    let whose = by.token().map_or("without a token you".to_owned(), |token| format!("the token {token}"));
    let place = match quota.prefix.as_str() {
        "" => "in all",
        prefix => &format!("under {prefix}"),
    };
    let message = match quota.bytes.filter(|most| there.bytes.saturating_add(more.bytes) > *most) {
        Some(most) => format!(
            "{whose} may push up to {most} bytes ({}) {place}; {} are there, and {} more do not fit",
            show_size(most),
            there.bytes,
            more.bytes
        ),
        None => format!(
            "{whose} may push up to {} files and folders {place}; {} are there, and {} more do not fit",
            quota.files.unwrap_or(u64::MAX),
            there.files,
            more.files
        ),
    };
    Refusal::over(Limit::Quota, ErrorCode::TooLarge, message)
}
