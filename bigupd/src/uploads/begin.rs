//! Beginning an upload, going on with it, and taking over another source's.

use super::limits::Stop;
use super::refusals::{blocked, cannot_be_finished, in_the_way, no_disk_space};
use super::{ATTEMPTS, NameState, Unfinished, Uploads, finished};
use crate::admission::access::Access;
use crate::admission::amount;
use crate::admission::begun_uploads::{CountedBegin, check_left};
use crate::admission::grants::{Grant, Growing};
use crate::mergers::take_from_merger;
use crate::refusal::{Advice, Refusal, against_upload};
use crate::uploads::request::BeginRequest;
use bigup_core::protocol::name::FileName;
use bigup_core::protocol::native::ErrorCode;
use bigup_core::protocol::plan::Plan;
use bigup_core::storage::audit::{AuditEvent, AuditLine};
use bigup_core::storage::finish::cancel::leave_out;
use bigup_core::storage::finish::publish::{Outcome, is_moved, remedy};
use bigup_core::storage::spool::{HeldContent, LockedSpool, Spool, TOLD_FOR, UploadRecord};
use bigup_core::storage::store::{self, Entry, FinishedFile, Store};
use std::io;
use std::time::{Duration, Instant};

/// Seconds after which the client of a paused upload may ask again: soon enough after it is resumed.
const PAUSED_RETRY_AFTER: u64 = 5;

/// Longest time, in seconds, after which a client that waits for another push is to ask again.
const BUSY_RETRY_AFTER: u64 = 3;

/// Time that a merger may take to leave an upload of which something is to go. The sync of a batch mostly takes less.
const MERGER_LEAVES: Duration = Duration::from_secs(5);

/// Time between two tries while a merger has moved the file and has not ended yet: it syncs a folder and removes the
/// spool.
const MERGER_PAUSE: Duration = Duration::from_millis(50);

/// Bytes that must be held for each slice that an upload has more by its old cut than by the cut of the client that
/// takes it over. With fewer it is cut anew: a request costs about as much as sending them.
const WORTH_A_SLICE: u64 = 4 << 10;

impl Uploads {
    /// Begins an upload or goes on with it, or says that the file is finished.
    ///
    /// # Errors
    /// Refused; nothing changed then.
    pub fn begin(&self, ask: &BeginRequest) -> Result<NameState, Refusal> {
        match self.look_elsewhere(ask)? {
            Some(finished) => Ok(finished),
            None => self.begin_for(ask, false),
        }
    }

    /// The same for a client that waits for the end of the file it sent. A file that was finished a while ago is the
    /// end, even if somebody has moved it away since.
    ///
    /// # Errors
    /// Refused; nothing changed then.
    pub fn begin_and_wait(&self, ask: &BeginRequest) -> Result<NameState, Refusal> {
        self.begin_for(ask, true)
    }

    fn begin_for(&self, ask: &BeginRequest, waits: bool) -> Result<NameState, Refusal> {
        let standing = self.begin_or_go_on(ask, waits).inspect_err(|refusal| note_refused(ask, refusal))?;
        if let NameState::Unfinished(unfinished) = &standing
            && unfinished.is_part_held()
        {
            self.metrics.upload_resumed();
        }
        Ok(standing)
    }

    pub(super) fn begin_or_go_on(&self, ask: &BeginRequest, waits: bool) -> Result<NameState, Refusal> {
        self.check_plan(&ask.plan)?;
        let spool = Spool::of(&self.data, &ask.id);
        let (mut begin_hook, mut is_merger_told) = (self.begin_hook.as_ref().filter(|_| ask.has_hook()), false);
        let mut asked = Instant::now();
        for _ in 0..ATTEMPTS {
            if let Some(locked) = self.lock_to_begin(&spool)? {
                if is_moved(&self.data, &spool, &locked)? {
                    drop(locked);
                    if self.publish_now(&spool, &ask.name)?.is_none() {
                        std::thread::sleep(MERGER_PAUSE);
                    }
                    continue;
                }
                check_not_paused(locked.upload())?;
                self.check_reach(&ask.name)?;
                if let Some(asking) = begin_hook
                    && locked.upload().source != ask.source
                    && self.silence_of_owner(&spool, &locked, ask)?.is_ok()
                {
                    drop(locked);
                    asking.admit(ask.beginning())?;
                    // The count from before that is old: the question took its time.
                    (begin_hook, asked) = (None, Instant::now());
                    continue;
                }
                let unfinished = match self.go_on(&spool, locked, ask, asked) {
                    Err(Stop::Uncounted(what)) => {
                        self.grants.count(&what, asked)?;
                        continue;
                    }
                    Err(Stop::Refused(refusal)) if !is_merger_told && refusal == merger_at_work(&ask.name) => {
                        // Mostly it waits for slices that will not come any more.
                        is_merger_told = true;
                        drop(take_from_merger(&spool, MERGER_LEAVES));
                        continue;
                    }
                    Err(Stop::Refused(refusal)) => return Err(refusal),
                    Ok(gone_on) => gone_on,
                };
                if unfinished.upload.plan.slice_num != Some(0) {
                    return Ok(NameState::Unfinished(Box::new(unfinished)));
                }
                // Nothing is to be sent of an empty file.
                match self.publish_now(&spool, &ask.name)? {
                    Some(Outcome::Published(digest)) => {
                        let same_source = ask.source.is_some();
                        return Ok(NameState::Finished { file_size: 0, digest: Some(digest), same_source });
                    }
                    Some(Outcome::Blocked { why, remedy }) => return Err(blocked(&ask.name, &why, remedy)),
                    Some(Outcome::NoUpload) => continue,
                    Some(Outcome::NotYet) | None => return Ok(NameState::Unfinished(Box::new(unfinished))),
                }
            }
            if let Some(finished) = self.look_for_finished(ask)? {
                return Ok(finished);
            }
            if waits && let Some(finished) = self.look_for_moved(&spool, ask)? {
                return Ok(finished);
            }
            self.check_reach(&ask.name)?;
            ask.name.check_new()?;
            self.check_not_cancelled(&spool, &ask.name, ask.source.as_deref())?;
            if let Err(why) = store::is_possible(&self.data, &ask.name)? {
                return Err(Refusal::new(ErrorCode::BadName, why));
            }
            self.check_spool_limit_to_begin()?;
            let granted = match self.take(&ask.by, &ask.name, Growing::Upload(ask.bytes_at_begin())) {
                // Another request began it, and this one goes on with it. The bytes of that may be the reason for the
                // refusal.
                Err(_) if spool.path().exists() || self.look_for_finished(ask)?.is_some() => continue,
                taken => taken?,
            };
            match check_left(&self.data, &ask.by) {
                Err(_) if spool.path().exists() || self.look_for_finished(ask)?.is_some() => continue,
                checked => checked?,
            }
            if let Some(asking) = begin_hook.take() {
                // Nobody is asked about an upload that may not begin anyway; and nothing is taken while it is asked
                // about.
                drop(granted);
                asking.admit(ask.beginning())?;
                // That took its time, in which others may have come and gone.
                continue;
            }
            let upload = UploadRecord {
                token: ask.by.token().map(str::to_owned),
                certificate: ask.certificate.clone(),
                peer: ask.peer.map(|peer| peer.to_string()),
                replace: ask.replace,
                content: HeldContent::Own(ask.file_digest),
                kept: self.settings.keep.permitted(ask.kept),
                metadata: ask.metadata.clone(),
                sha256: ask.sha256,
                awaits_end: ask.awaits_end,
                concat: ask.concat.clone(),
                client: ask.client(),
                gives_back: self.data.gives_back(),
                ..UploadRecord::begin(ask.name.clone(), ask.plan.clone(), ask.source.clone())
            };
            // The end of another upload of this source is not the end of this one.
            ask.source.iter().for_each(|source| spool.forget_finished(source));
            let counted = match CountedBegin::take(&self.data, &ask.by) {
                Err(_) if spool.path().exists() || self.look_for_finished(ask)?.is_some() => continue,
                counted => counted?,
            };
            // Somebody else may create it first; the next round goes on with theirs.
            match self.with_disk_space(|space| Spool::create(&self.data, &ask.id, &upload, space)) {
                Err(e) if spool.path().exists() => {
                    log::debug!(file_name = ask.name.as_str(); "{}: begun by another request: {e}", ask.name)
                }
                created => {
                    if created.map_err(|e| no_disk_space(e, ask.name.as_str()))? {
                        counted.has_begun();
                        granted.landed();
                        if !upload.is_partial() {
                            self.metrics.upload_begun(ask.protocol);
                        }
                    }
                }
            }
        }
        Err(self.restless(&ask.name))
    }

    /// The finished file of the asker's source, where there is an upload of that, too: another daemon that shares the
    /// store of objects has finished it. The upload goes. `None` if there is no such upload or file, or if that cannot be
    /// told now.
    fn look_elsewhere(&self, ask: &BeginRequest) -> Result<Option<NameState>, Refusal> {
        if self.data.objects().is_none() || ask.source.is_none() {
            return Ok(None);
        }
        let spool = Spool::of(&self.data, &ask.id);
        let is_meant =
            |upload: &UploadRecord| upload.source == ask.source && !upload.paused && ask.by.check_go_on(upload).is_ok();
        // It is not locked while the store is asked.
        if !self.lock_to_begin(&spool)?.is_some_and(|locked| is_meant(locked.upload())) {
            return Ok(None);
        }
        // Where the store does not answer, the upload goes on.
        let Ok(Entry::File(found)) = self.lookup(&ask.name) else { return Ok(None) };
        let standing = finished(&found, ask.source.as_deref());
        let is_same = matches!(standing, NameState::Finished { same_source: true, .. })
            && ask.plan.file_size.is_none_or(|size| size == found.size)
            && ask.file_digest.is_none_or(|wanted| found.stored_digest.as_ref().is_some_and(|is| is.digest == wanted));
        if !is_same {
            return Ok(None);
        }
        // A merger that does not leave is about to find the file itself.
        let Ok(merger) = take_from_merger(&spool, MERGER_LEAVES) else { return Ok(None) };
        if leave_out(&self.data, &spool, &merger, is_meant)? {
            log::info!(file_name = ask.name.as_str(); "{}: another daemon has finished it, so what is held here goes", ask.name);
        }
        Ok(Some(standing))
    }

    /// The end of the asker's upload, if the finished file is not there any more.
    fn look_for_moved(&self, spool: &Spool, ask: &BeginRequest) -> Result<Option<NameState>, Refusal> {
        let Some(source) = &ask.source else { return Ok(None) };
        // Nothing is sent of an empty file, so a client that asks for one begins it.
        let found = spool.finished(source)?.filter(|(digest, size)| {
            *size > 0
                && ask.plan.file_size.is_none_or(|wanted| wanted == *size)
                && ask.file_digest.is_none_or(|wanted| wanted == *digest)
        });
        Ok(found.map(|(digest, file_size)| NameState::Finished { file_size, digest: Some(digest), same_source: true }))
    }

    /// The meaning of the finished file of this name for a push; `None` if the push may begin.
    pub(super) fn look_for_finished(&self, ask: &BeginRequest) -> Result<Option<NameState>, Refusal> {
        let mut entry = self.lookup(&ask.name)?;
        if let Entry::File(found) = &entry
            && ask.file_digest.is_some()
            && ask.plan.file_size.is_none_or(|size| size == found.size)
        {
            entry = self.look_into(&ask.name)?;
        }
        let found = match entry {
            Entry::Nothing => return Ok(None),
            Entry::Other(what) => return Err(in_the_way(&what)),
            Entry::File(found) => found,
        };
        let stamped = found.stored_digest.as_ref();
        let differs = match (ask.file_digest, ask.plan.file_size) {
            (Some(digest), _) if stamped.is_some_and(|s| s.digest == digest) => None,
            (Some(digest), _) => Some(match stamped {
                Some(stored_digest) => format!("its digest is {}, yours {digest}", stored_digest.digest),
                None if ask.plan.file_size.is_some_and(|size| size != found.size) => {
                    format!("it has {} bytes, yours {}", found.size, ask.plan.file_size.unwrap_or(0))
                }
                None => format!("it changes while it is read, yours is {digest}"),
            }),
            (None, Some(size)) if size != found.size => Some(format!("it has {} bytes, yours {size}", found.size)),
            (None, _) => None,
        };
        match differs {
            Some(_) if ask.replace => Ok(None),
            Some(how) => {
                let facts = format!("{} exists: {how}", ask.name);
                Err(Refusal::new(ErrorCode::Exists, facts).advising(Advice::Replace))
            }
            None => {
                let standing = finished(&found, ask.source.as_deref());
                let certain =
                    ask.file_digest.is_some() || matches!(standing, NameState::Finished { same_source: true, .. });
                // Two empty files are the same.
                let is_empty = found.size == 0 && ask.plan.file_size == Some(0);
                if !ask.by_size && !ask.replace && ask.source.is_none() && !certain && !is_empty {
                    let facts = format!("{} exists, and whether it is yours cannot be told", ask.name);
                    return Err(Refusal::new(ErrorCode::Exists, facts).advising(Advice::IdentifyOrReplace));
                }
                Ok((certain || !ask.replace).then_some(standing))
            }
        }
    }

    fn go_on(
        &self,
        spool: &Spool,
        mut locked: LockedSpool,
        ask: &BeginRequest,
        asked: Instant,
    ) -> Result<Unfinished, Stop> {
        if locked.upload().source == ask.source {
            ask.by.check_go_on(locked.upload())?;
            if !is_sender(locked.upload(), ask.source.as_deref(), ask.client().as_deref()) {
                self.silence_of_owner(spool, &locked, ask)??;
            }
            self.resume(spool, &mut locked, ask, asked)?;
            show_life(spool);
            // A plan that was told only now is reserved where it can be. Otherwise each slice without disk space is
            // refused.
            if let Err(e) = self.with_disk_space(|space| locked.reserve(space, &locked.upload().plan)) {
                log::debug!(file_name = ask.name.as_str(); "{}: goes on without reserved disk space: {e}", ask.name);
            }
        } else {
            self.check_not_cancelled(spool, &ask.name, ask.source.as_deref())?;
            ask.by.check_take_over(locked.upload())?;
            self.take_over(spool, &mut locked, ask, asked)?;
        }
        Ok(Unfinished { holdings: locked.holdings()?, upload: locked.upload().clone() })
    }

    /// The source that began an upload goes on with it.
    fn resume(&self, spool: &Spool, locked: &mut LockedSpool, ask: &BeginRequest, asked: Instant) -> Result<(), Stop> {
        if ask.recut {
            self.recut(spool, locked, ask, asked)?;
        }
        if self.is_cut_in_vain(&locked.upload().plan, &ask.plan) {
            let growth = self.cut_off(spool, locked, 0, &ask.plan, ask, asked)?;
            let content = HeldContent::Own(locked.upload().file_digest());
            let upload = UploadRecord { plan: ask.plan.clone(), content, ..locked.upload().clone() };
            locked.save(upload)?;
            growth.into_iter().for_each(Grant::landed);
        }
        let old = locked.upload();
        // An upload that knows its slice size keeps it, whatever the client would like.
        let wish = match (old.plan.slice_size, ask.plan.slice_size) {
            (Some(has), Some(would_like)) if has != would_like => {
                Plan::new(None, Some(has), ask.plan.file_size).map_err(against_upload)?
            }
            _ => ask.plan.clone(),
        };
        let upload = UploadRecord {
            plan: old.plan.bind(&wish).map_err(against_upload)?,
            replace: old.replace || ask.replace,
            content: old.content.promised(ask.file_digest),
            kept: self.settings.keep.permitted(ask.kept).or(old.kept),
            client: ask.client().or_else(|| old.client.clone()),
            asks_again: false,
            ..old.clone()
        };
        let said_anew = (upload.replace, upload.content) != (old.replace, old.content);
        // If a promise turned out wrong, another comparison is the way out.
        if old.blocked.is_some()
            && !said_anew
            && !old.needs_comparison()
            && let Some(refusal) = self.what_blocks(&upload)?
        {
            return Err(refusal.into());
        }
        let growth = self.take_growth(&ask.by, locked, &upload.plan, asked)?;
        locked.save(UploadRecord { blocked: None, ..upload })?;
        growth.into_iter().for_each(Grant::landed);
        Ok(())
    }

    /// True if an upload cut by `old` can never be completed as the file is by the wish `wish` of the asker, while
    /// another cut could. Its held slices are worth less than a file that cannot be pushed.
    fn is_cut_in_vain(&self, old: &Plan, wish: &Plan) -> bool {
        let (Some(has), Some(would_like)) = (old.slice_size, wish.slice_size) else { return false };
        let file_size = wish.file_size.filter(|size| old.file_size.is_none_or(|known| known == *size));
        has != would_like
            && file_size.is_some()
            && !Plan::new(None, Some(has), file_size).is_ok_and(|plan| self.is_possible(&plan))
    }

    fn is_possible(&self, plan: &Plan) -> bool {
        self.check_plan(plan).is_ok()
    }

    /// The reason why the file of a blocked upload cannot be published under its name as things stand. `None` if the
    /// obstacle is gone: it is worth another try.
    fn what_blocks(&self, upload: &UploadRecord) -> Result<Option<Refusal>, Refusal> {
        let name = &upload.file_name;
        let is_same =
            |found: &FinishedFile| found.stored_digest.as_ref().is_some_and(|s| Some(s.digest) == upload.file_digest());
        Ok(match Store::new(&self.data).lookup(name)? {
            Entry::Nothing => None,
            Entry::File(found) if upload.replace || is_same(&found) => None,
            // Publication reads it, and finds out.
            Entry::File(found) if found.stored_digest.is_none() && Some(found.size) == upload.plan.file_size => None,
            Entry::File(_) => {
                let facts = format!("{name} cannot be finished: a file of that name exists, with other content");
                Some(Refusal::new(ErrorCode::Exists, facts).advising(Advice::Replace))
            }
            Entry::Other(what) => Some(cannot_be_finished(name, &what).advising(Advice::MoveAway)),
        })
    }

    /// The refusal for the client of an upload that cannot be finished.
    ///
    /// # Errors
    /// `files/` cannot be read.
    pub fn refusal_of_blocked(&self, upload: &UploadRecord) -> Result<Refusal, Refusal> {
        let (why, remedy) = (upload.blocked.as_deref().unwrap_or_default(), remedy(&self.data, upload)?);
        Ok(self.what_blocks(upload)?.unwrap_or_else(|| blocked(&upload.file_name, why, remedy)))
    }

    /// Cuts an upload that holds nothing yet as the asker would like; one that holds something stays as it is, unless
    /// that is to be dropped.
    fn recut(&self, spool: &Spool, locked: &mut LockedSpool, ask: &BeginRequest, asked: Instant) -> Result<(), Stop> {
        let old = locked.upload().plan.clone();
        // The rest that the asker knows is learned afterwards, as ever.
        let plan = Plan::new(None, ask.plan.slice_size, old.file_size).map_err(against_upload)?;
        // A single slice becomes the file in another way than several do, and nothing is sent of an empty one.
        let is_several = plan.slice_size.is_some() && !matches!(plan.slice_num, Some(0 | 1));
        if is_several && old.slice_size.is_some() && old.slice_num != Some(0) && plan != old {
            self.check_plan(&plan)?;
            // Before anything is dropped: it may be refused.
            let growth = self.take_growth(&ask.by, locked, &plan, asked)?;
            if ask.discard {
                // The lock of the merger comes before that of the spool; it is only tried, so nobody waits in a circle.
                let merger = spool.try_merger_lock()?;
                match locked.keep_first(0, &plan, merger.as_ref()) {
                    Err(e) if e.kind() == io::ErrorKind::ResourceBusy => return Err(merger_at_work(&ask.name).into()),
                    dropped => dropped?,
                }
            }
            let is_cut = self
                .with_disk_space(|space| locked.recut(plan.clone(), space))
                .map_err(|e| no_disk_space(e, ask.name.as_str()))?;
            growth.filter(|_| is_cut).into_iter().for_each(Grant::landed);
            log::debug!(file_name = ask.name.as_str(); "{}: cut anew, {:?} to {:?}: {is_cut}", ask.name, old.slice_size, plan.slice_size);
        }
        Ok(())
    }

    /// The time for which the client of this upload has been silent, if it is long enough for another client to go on
    /// with it; else the refusal that tells why it is not.
    fn silence_of_owner(
        &self,
        spool: &Spool,
        locked: &LockedSpool,
        ask: &BeginRequest,
    ) -> Result<Result<Duration, Refusal>, Refusal> {
        let (upload, silent) = (locked.upload(), spool.silent()?);
        if silent < self.settings.takeover_after {
            return Ok(Err(still_at_work(upload, ask, silent, self.settings.takeover_after)));
        }
        let unfinished = Unfinished { holdings: locked.holdings()?, upload: upload.clone() };
        // All that its client has to do is done. Where merging fails for good another one may do better.
        let is_ending = unfinished.is_all_held() && upload.may_be_published();
        if is_ending && (upload.last_error.is_none() || spool.merger()?.is_some()) {
            return Ok(Err(being_finished(&ask.name)));
        }
        Ok(Ok(silent))
    }

    /// Makes sure that an upload can go on by the plan `next`, of which it keeps the first `keep` slices. Returns the
    /// grant that this takes out of quotas, until it is saved.
    fn cut_off(
        &self,
        spool: &Spool,
        locked: &LockedSpool,
        keep: u64,
        next: &Plan,
        ask: &BeginRequest,
        asked: Instant,
    ) -> Result<Option<Grant>, Stop> {
        let name = &ask.name;
        let growth = self.take_growth(&ask.by, locked, next, asked)?;
        // The lock of the merger comes before that of the spool; it is only tried, so nobody waits in a circle.
        let merger = spool.try_merger_lock()?;
        self.with_disk_space(|space| locked.reserve(space, next)).map_err(|e| no_disk_space(e, name.as_str()))?;
        match locked.keep_first(keep, next, merger.as_ref()) {
            Err(e) if e.kind() == io::ErrorKind::ResourceBusy => Err(merger_at_work(name).into()),
            kept => Ok(kept.map(|()| growth)?),
        }
    }

    /// By which plan another source goes on with an upload of `old`, and how many of its slices stay.
    fn shared_plan(&self, spool: &Spool, locked: &LockedSpool, ask: &BeginRequest) -> Result<(Plan, u64), Refusal> {
        let (old, holdings) = (locked.upload(), locked.holdings()?);
        let slice_size = old.plan.slice_size.or(ask.plan.slice_size);
        // The number of slices counts where nothing else is said; else it follows.
        let by_number = ask.plan.slice_num.filter(|_| ask.plan.file_size.is_none() && ask.plan.slice_size.is_none());
        let shared = Plan::new(by_number, slice_size, ask.plan.file_size).ok();
        let Some(shared) = shared.filter(|plan| self.is_possible(plan)) else { return Ok((ask.plan.clone(), 0)) };
        let more = shared.slice_num.unwrap_or(0).saturating_sub(ask.plan.slice_num.unwrap_or(u64::MAX));
        let held = spool.bytes(old, &holdings)?.held;
        let is_worth_it = holdings.ranges().count() > 0 && held >= more.saturating_mul(WORTH_A_SLICE);
        match old.plan.common_slices(&shared) {
            keep if keep > 0 && is_worth_it => Ok((shared, keep)),
            _ => Ok((ask.plan.clone(), 0)),
        }
    }

    /// Another source goes on with an upload that fell silent.
    fn take_over(
        &self,
        spool: &Spool,
        locked: &mut LockedSpool,
        ask: &BeginRequest,
        asked: Instant,
    ) -> Result<(), Stop> {
        let name = &ask.name;
        if ask.source.is_none() {
            let message =
                format!("another client's push of {name} is unfinished; finish it there, or use another name");
            return Err(Refusal::new(ErrorCode::Conflict, message).into());
        }
        let silent = self.silence_of_owner(spool, locked, ask)??;
        let (mut plan, mut keep) = self.shared_plan(spool, locked, ask)?;
        // Bytes that only the store has cannot be compared, and publication reads all bytes of another source.
        let cannot_keep = locked.upload().gives_back
            && (spool.has_part_records() || self.with_disk_space(|space| locked.reserve_whole(space, &plan)).is_err());
        if keep > 0 && cannot_keep {
            log::info!(upload = name.as_str(); "{name}: another source sends all of it: the store has parts, or the disk is too small");
            (plan, keep) = (ask.plan.clone(), 0);
        }
        let is_anothers = locked.upload().token.as_deref() != ask.by.token();
        let granted = is_anothers.then(|| self.take_locked(&ask.by, name, Growing::TakeOver, asked)).transpose()?;
        let counted = is_anothers.then(|| CountedBegin::take(&self.data, &ask.by)).transpose()?;
        let growth = self.cut_off(spool, locked, keep, &plan, ask, asked)?;
        let holdings = locked.holdings()?;
        log::info!(
            upload = name.as_str();
            "{name}: another source goes on after {} s of silence; {} slices are to be compared",
            spool.idle()?.as_secs().min(silent.as_secs()),
            holdings.ranges().count()
        );
        let is_anything_held = holdings.ranges().count() > 0;
        let upload = UploadRecord {
            token: ask.by.token().map(str::to_owned),
            certificate: ask.certificate.clone(),
            peer: ask.peer.map(|peer| peer.to_string()),
            replace: ask.replace,
            content: if is_anything_held { HeldContent::ToCompare } else { HeldContent::Own(ask.file_digest) },
            kept: self.settings.keep.permitted(ask.kept),
            metadata: ask.metadata.clone(),
            sha256: ask.sha256,
            awaits_end: ask.awaits_end,
            concat: ask.concat.clone(),
            gives_back: self.data.gives_back(),
            ..UploadRecord::begin(ask.name.clone(), plan, ask.source.clone())
        };
        // Before any slice of the new source: after a power cut nobody must take the mixture for the old source's.
        locked.save(upload)?;
        counted.into_iter().for_each(CountedBegin::has_begun);
        [granted, growth].into_iter().flatten().for_each(Grant::landed);
        Ok(())
    }

    /// Takes out of quotas the bytes that an upload will count for more if `plan` becomes known of it. Its bytes held
    /// while its size is not known were taken slice by slice. `None` if there is nothing to take.
    pub(super) fn take_growth(
        &self,
        by: &Access,
        locked: &LockedSpool,
        plan: &Plan,
        asked: Instant,
    ) -> Result<Option<Grant>, Stop> {
        let known = &locked.upload().plan;
        if (plan.file_size, plan.slice_num) == (known.file_size, known.slice_num) {
            return Ok(None);
        }
        let holdings = locked.holdings()?;
        let more = amount::bytes_of(plan, &holdings).saturating_sub(amount::bytes_of(known, &holdings));
        if more == 0 {
            return Ok(None);
        }
        self.take_locked(by, &locked.upload().file_name, Growing::Growth(more), asked).map(Some)
    }

    /// Refuses `source` an upload, there being none of its, for a moment after that was cancelled.
    pub(super) fn check_not_cancelled(
        &self,
        spool: &Spool,
        name: &FileName,
        source: Option<&str>,
    ) -> Result<(), Refusal> {
        let Some(ago) = spool.cancelled(source)? else { return Ok(()) };
        let left = TOLD_FOR.saturating_sub(ago).as_secs() + 1;
        let facts = format!("the upload of {name} was cancelled on the server {} s ago", ago.as_secs());
        let refusal = Refusal::new(ErrorCode::Cancelled, facts).advising(Advice::UploadAgainIn(left));
        Err(Refusal { retry_after: Some(left), ..refusal })
    }
}

/// Leaves a line in the audit log about an upload that may not begin as things stand. A client that is only told to
/// come back is not refused.
pub(super) fn note_refused(ask: &BeginRequest, refusal: &Refusal) {
    if refusal.retry_after.is_none() {
        AuditLine::new(AuditEvent::Refused, &ask.name)
            .with("file_size", ask.plan.file_size)
            .with("file_digest", ask.file_digest)
            .with("token", ask.by.token())
            .with("certificate", ask.certificate.as_ref())
            .with("peer", ask.peer)
            .with("reason", Some(&refusal.facts))
            .log();
    }
}

/// The asker has to find out if the other push differs: it may be its own, interrupted a moment ago.
fn still_at_work(old: &UploadRecord, ask: &BeginRequest, idle: Duration, takeover_after: Duration) -> Refusal {
    let sizes = match (old.plan.file_size, ask.plan.file_size) {
        (Some(theirs), Some(yours)) if theirs != yours => format!(", of {theirs} bytes and not {yours} like yours"),
        _ => String::new(),
    };
    let left = takeover_after.saturating_sub(idle).as_secs().saturating_add(1);
    let message = format!(
        "another push of {} was at work {} s ago{sizes}; you may go on with it in {left} s if it stays silent",
        ask.name,
        idle.as_secs()
    );
    Refusal { retry_after: Some(left.min(BUSY_RETRY_AFTER)), ..Refusal::new(ErrorCode::Busy, message) }
}

/// Something of an upload is to go, which a merger may be about to append.
fn merger_at_work(name: &FileName) -> Refusal {
    let message = format!("{name} is being merged; ask again in a moment");
    Refusal { retry_after: Some(1), ..Refusal::new(ErrorCode::Busy, message) }
}

/// The client of an upload has done all it has to.
fn being_finished(name: &FileName) -> Refusal {
    let message = format!("another push of {name} has sent everything, and the file is being finished: ask again then");
    Refusal { retry_after: Some(BUSY_RETRY_AFTER), ..Refusal::new(ErrorCode::Busy, message) }
}

/// True if a client that names this source, or names none and is this client, may send slices of an upload. Clients
/// that name none are told apart by addresses or tokens, where slices of two could come together.
pub(super) fn is_sender(upload: &UploadRecord, source: Option<&str>, client: Option<&str>) -> bool {
    let is_same_client = upload.client.as_deref().zip(client).is_none_or(|(one, other)| one == other);
    let is_whole = matches!(upload.plan.slice_num, Some(0 | 1));
    upload.source.as_deref() == source && (source.is_some() || is_same_client || is_whole)
}

/// Notes that the client of an upload is heard of. Where that cannot be noted the upload may be taken over sooner.
pub(super) fn show_life(spool: &Spool) {
    if let Err(e) = spool.sign_of_life() {
        log::debug!("{e}");
    }
}

/// Refuses requests for a paused upload: nothing of it is taken. Slices that arrive already may end.
///
/// # Errors
/// It is paused.
pub fn check_not_paused(upload: &UploadRecord) -> Result<(), Refusal> {
    if !upload.paused {
        return Ok(());
    }
    let message =
        format!("the upload of {} is paused on the server; it goes on once it is resumed there", upload.file_name);
    Err(Refusal { retry_after: Some(PAUSED_RETRY_AFTER), ..Refusal::new(ErrorCode::Paused, message) })
}
