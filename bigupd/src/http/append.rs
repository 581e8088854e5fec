//! Bodies that are appended to an upload: cut into slices on arrival, each merged while the next one comes.
//!
//! Whatever ends the body, the bytes that came are kept, and the next request goes on behind them. If the body has a
//! checksum, its slices are stored only once that is right: they wait as files, a limited number of them.

use crate::http::app::App;
use crate::http::body::{Body, RawBody, raw_body};
use crate::http::checksum::{Algorithm, Checksum, ToldChecksum};
use crate::http::receive::{Appended, Ended, append};
use crate::net::min_rate::MinRate;
use crate::net::trailers::Trailers;
use crate::refusal::{Advice, Refusal};
use crate::uploads::append::{AppendRequest, AppendTarget, Appendable};
use crate::uploads::appenders::Appender;
use crate::uploads::{SliceRequest, SliceStored, SliceTarget};
use bigup_core::protocol::digest::SliceDigest;
use bigup_core::protocol::native::ErrorCode;
use bigup_core::storage::spool::UploadId;
use bytes::Bytes;
use std::ops::ControlFlow;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};
use warp::http::header::HeaderMap;

/// Longest time that the older one of two requests may take to stop.
const STOPS_WITHIN: Duration = Duration::from_secs(10);

/// Time between two looks if it has.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Time after which one at another daemon is asked again to stop, since it may have begun only then.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// Longest time that a body waits for disk space that merging gives back.
const SPACE_PATIENCE: Duration = Duration::from_secs(10);

/// Most slices of a body with a checksum. Each is an open file.
const MAX_HELD_BACK: usize = 128;

/// A body to be appended.
pub struct AppendBody {
    /// The body.
    pub body: RawBody,
    /// Its length in bytes. `None` if it is not told before the body ends.
    pub len: Option<u64>,
    /// The checksum that it must have. `None` if there is none.
    pub checksum: Option<BodyChecksum>,
}

/// The checksum that a body must have.
pub enum BodyChecksum {
    /// This one.
    Told(Algorithm, Vec<u8>),
    /// The one in the fields behind the body, which the function finds there.
    InTrailers(Trailers, fn(&HeaderMap) -> Result<ToldChecksum, Refusal>),
}

impl BodyChecksum {
    /// The checksum of no bytes yet, to be compared with this one.
    fn start(&self) -> Checksum {
        match self {
            BodyChecksum::Told(algorithm, _) => Checksum::new(*algorithm),
            BodyChecksum::InTrailers(..) => Checksum::by_any(),
        }
    }

    /// True if a body whose end was read has it.
    fn is_of(&self, is: Checksum) -> Result<bool, Refusal> {
        let (algorithm, told) = match self {
            BodyChecksum::Told(algorithm, told) => (*algorithm, told.clone()),
            BodyChecksum::InTrailers(trailers, find) => find(trailers.get().unwrap_or(&HeaderMap::new()))?,
        };
        Ok(is.finish_by(algorithm) == told)
    }
}

impl AppendBody {
    /// No bytes.
    pub fn empty() -> AppendBody {
        let body = raw_body(futures_util::stream::empty::<Result<Bytes, warp::Error>>());
        AppendBody { body, len: Some(0), checksum: None }
    }
}

/// The upload once a body was appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AppendEnd {
    /// Bytes of the file that are held.
    pub offset: u64,
    /// True if that is all of it.
    pub is_whole: bool,
}

/// A body on its way into the slices of an upload.
struct Appending<'a> {
    app: &'a App,
    ask: AppendRequest,
    body: Body,
    more: Option<Bytes>,
    pace: MinRate,
    appender: Appender,
    told: Option<BodyChecksum>,
    /// Offset of the body's first byte.
    start: u64,
    checksum: Option<Checksum>,
    /// Whole slices that wait for the checksum to be right.
    held_back: Vec<(SliceRequest, SliceTarget, Vec<SliceDigest>)>,
}

impl App {
    /// Appends a body to an upload. A request that appends already is told to stop.
    ///
    /// # Errors
    /// The offset is another one, the body is longer than the rest of the file, its checksum is wrong, or it broke off;
    /// bytes that came are kept then, unless their checksum is wrong or was not reached.
    pub(super) async fn append(&self, ask: AppendRequest, what: AppendBody) -> Result<AppendEnd, Refusal> {
        let appender = self.uploads.appenders.enter(&ask.source);
        let ask = AppendRequest { len: what.len, ..ask };
        let checksum = what.checksum.as_ref().map(BodyChecksum::start);
        let mut appending = Appending {
            app: self,
            start: ask.offset,
            ask,
            body: Body::Raw(what.body),
            more: None,
            pace: MinRate::new(&self.settings.limits),
            appender,
            told: what.checksum,
            checksum,
            held_back: vec![],
        };
        let first = appending.first().await?;
        appending.run(first).await
    }

    /// True if the body has bytes.
    ///
    /// # Errors
    /// It broke off.
    pub(super) async fn has_bytes(&self, body: RawBody) -> Result<bool, Refusal> {
        let (mut body, mut pace) = (Body::Raw(body), MinRate::new(&self.settings.limits));
        while let Some(piece) = body.next(&mut pace).await? {
            if !piece.is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The state of the upload, once a request that appends to it has stopped. `None` if there is none.
    ///
    /// # Errors
    /// That request does not stop, or the upload cannot be read.
    pub(super) async fn at_rest(&self, ask: &AppendRequest) -> Result<Option<Appendable>, Refusal> {
        self.stop_appending(ask).await?;
        let (uploads, id, source) = (self.uploads.clone(), ask.id.clone(), ask.source.clone());
        self.blocking(move || uploads.appendable(&id, &source)).await
    }

    /// Ends the upload, once a request that appends to it has stopped.
    ///
    /// # Errors
    /// That request does not stop, or the upload stays.
    pub(super) async fn end(&self, ask: AppendRequest) -> Result<(), Refusal> {
        self.stop_appending(&ask).await?;
        let uploads = self.uploads.clone();
        self.blocking(move || uploads.end(&ask.id, &ask.source)).await
    }

    /// Tells a request that appends to the upload to stop, and waits until what came by it is held.
    ///
    /// # Errors
    /// It does not stop.
    async fn stop_appending(&self, ask: &AppendRequest) -> Result<(), Refusal> {
        let deadline = Instant::now() + STOPS_WITHIN;
        if let Some(older) = self.uploads.appenders.stop(&ask.source) {
            timeout_at(deadline, older.ended()).await.map_err(|_| does_not_stop())?;
        }
        // It may be another daemon's.
        let mut other = OtherDaemon::default();
        loop {
            let (uploads, id, source) = (self.uploads.clone(), ask.id.clone(), ask.source.clone());
            let is_at_work = self.blocking(move || uploads.is_appended_to(&id, &source)).await?;
            if !is_at_work {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(does_not_stop());
            }
            other.wait_for(self, ask).await?;
        }
    }
}

/// A request of another daemon that appends, and is to stop.
#[derive(Default)]
struct OtherDaemon {
    asked: Option<Instant>,
}

impl OtherDaemon {
    /// Asks it to stop, unless that was a moment ago, and gives it a little time.
    async fn wait_for(&mut self, app: &App, ask: &AppendRequest) -> Result<(), Refusal> {
        if self.asked.is_none_or(|asked| asked.elapsed() >= ASK_EVERY) {
            self.asked = Some(Instant::now());
            let (uploads, id, source) = (app.uploads.clone(), ask.id.clone(), ask.source.clone());
            app.blocking(move || uploads.ask_to_stop(&id, &source)).await?;
        }
        tokio::time::sleep(LOOK_EVERY).await;
        Ok(())
    }
}

impl Appending<'_> {
    /// The place of the first bytes, once an older request has stopped.
    async fn first(&mut self) -> Result<Option<AppendTarget>, Refusal> {
        let deadline = Instant::now() + STOPS_WITHIN;
        timeout_at(deadline, self.appender.alone()).await.map_err(|_| does_not_stop())?;
        let mut other = OtherDaemon::default();
        let first = loop {
            match self.open().await {
                // It is another daemon's.
                Err(refusal) if refusal.code == ErrorCode::Busy && Instant::now() < deadline => {
                    other.wait_for(self.app, &self.ask).await?;
                }
                opened => break opened?,
            }
        };
        self.appender.heed_other_daemons(&self.app.uploads.data, &self.ask.id);
        // They hold for the first slice of the body.
        (self.ask.len, self.ask.file_size) = (None, None);
        Ok(first)
    }

    /// The place of the next bytes. Where slices are being merged, whose disk space comes back, it is waited for.
    async fn open(&self) -> Result<Option<AppendTarget>, Refusal> {
        let deadline = Instant::now() + SPACE_PATIENCE;
        let target = loop {
            let (uploads, ask) = (self.app.uploads.clone(), self.ask.clone());
            match self.app.blocking(move || uploads.append(&ask)).await {
                Err(refusal) if self.may_pass(&refusal) && Instant::now() < deadline => {
                    tokio::time::sleep(LOOK_EVERY).await;
                }
                opened => break opened?,
            }
        };
        Ok(target.map(|target| if self.told.is_some() { target.unnoted() } else { target }))
    }

    fn may_pass(&self, refusal: &Refusal) -> bool {
        refusal.code == ErrorCode::NoSpace && refusal.retry_after.is_some() && !self.appender.is_stopped()
    }

    async fn run(mut self, first: Option<AppendTarget>) -> Result<AppendEnd, Refusal> {
        let mut next = first;
        while let Some(target) = next {
            if self.appender.is_stopped() {
                // The newer one was told an offset, or is about to be.
                return Err(self.stopped());
            }
            let (slice, is_last, held) = (target.ask.clone(), target.is_last, target.held());
            let (checksum, share) = (self.checksum.take(), &self.app.thread_share);
            let (body, more, pace) = (&mut self.body, &mut self.more, &mut self.pace);
            let appended = append(body, more, target, checksum, pace, share, self.appender.stopped()).await?;
            self.ask.offset += appended.received;
            match appended.ended {
                Ok(Ended::Full) if is_last => return self.end_of_file(Some((slice, appended))).await,
                Ok(Ended::Full) => match self.whole_slice(slice, appended).await? {
                    ControlFlow::Continue(behind) => next = behind,
                    ControlFlow::Break(end) => return Ok(end),
                },
                Ok(Ended::Body) => return self.end_within(slice, held, appended).await,
                Ok(Ended::Stopped) => {
                    self.keep_if_unchecked(slice, held, appended).await?;
                    return Err(self.stopped());
                }
                Err(refusal) => {
                    self.keep_if_unchecked(slice, held, Appended { ended: Ok(Ended::Body), ..appended }).await?;
                    return Err(refusal);
                }
            }
        }
        self.end_of_file(None).await
    }

    /// The last byte of the file came, in the slice `last` or before. With it the body must end. If its end does not
    /// come, the file is whole all the same.
    async fn end_of_file(mut self, last: Option<(SliceRequest, Appended)>) -> Result<AppendEnd, Refusal> {
        let ended = match self.rest().await {
            Ok(Ended::Full) => return Err(goes_beyond(self.ask.offset)),
            Ok(Ended::Body) => Ok(AppendEnd { offset: self.ask.offset, is_whole: true }),
            Ok(Ended::Stopped) => Err(self.stopped()),
            Err(refusal) => Err(refusal),
        };
        if ended.is_err() && self.told.is_some() {
            return ended;
        }
        if let Some((ask, appended)) = last {
            self.checksum = appended.checksum;
            self.held_back.push((ask, appended.slice, appended.digests));
        }
        self.check_sum()?;
        self.store_held_back().await?;
        ended
    }

    /// Reads on behind the last byte of the file. [`Ended::Full`] if the body has more bytes.
    async fn rest(&mut self) -> Result<Ended, Refusal> {
        let Appending { body, more, pace, appender, .. } = self;
        while more.is_none() {
            tokio::select! {
                biased;
                () = appender.stopped() => return Ok(Ended::Stopped),
                piece = body.next(pace) => match piece? {
                    None => return Ok(Ended::Body),
                    Some(piece) => *more = Some(piece).filter(|piece| !piece.is_empty()),
                },
            }
        }
        Ok(Ended::Full)
    }

    /// Takes a slice that became whole, and opens the next one: `None` if there is none. Or the end, if the body ends with
    /// that slice.
    async fn whole_slice(
        &mut self,
        ask: SliceRequest,
        appended: Appended,
    ) -> Result<ControlFlow<AppendEnd, Option<AppendTarget>>, Refusal> {
        self.checksum = appended.checksum;
        if self.told.is_none() {
            self.store(ask, appended.slice, appended.digests).await?;
            // A place behind it may be refused, and all that came is stored.
            return match self.rest().await? {
                Ended::Full => self.open().await.map(ControlFlow::Continue),
                Ended::Body => Ok(ControlFlow::Break(AppendEnd { offset: self.ask.offset, is_whole: false })),
                Ended::Stopped => Err(self.stopped()),
            };
        }
        self.held_back.push((ask.clone(), appended.slice, appended.digests));
        if self.held_back.len() >= MAX_HELD_BACK {
            return Err(too_long_to_check(self.held_back.len() as u64 * ask.len));
        }
        let uploads = self.app.uploads.clone();
        self.app.blocking(move || uploads.append_behind(&ask)).await.map(ControlFlow::Continue)
    }

    async fn store(&self, ask: SliceRequest, slice: SliceTarget, digests: Vec<SliceDigest>) -> Result<(), Refusal> {
        let (uploads, asked) = (self.app.uploads.clone(), ask.clone());
        match self.app.blocking(move || uploads.commit(&asked, slice, &digests)).await? {
            // The slice is stored whether or not a merger can be started; the scan tries again.
            SliceStored::MergerDue(name) => drop(self.app.ensure_merger(&UploadId::of_name(&name), &name).await),
            SliceStored::Waits => self.app.wait_for_merging(&ask).await,
            SliceStored::Finished(_) | SliceStored::Held => {}
        }
        Ok(())
    }

    /// The body ended within a slice, of which `held` bytes were held before.
    async fn end_within(mut self, ask: SliceRequest, held: u64, appended: Appended) -> Result<AppendEnd, Refusal> {
        self.checksum = appended.checksum.clone();
        self.check_sum()?;
        self.store_held_back().await?;
        self.keep(ask, held, appended).await?;
        Ok(AppendEnd { offset: self.ask.offset, is_whole: false })
    }

    /// Keeps the bytes of a body that did not come to its end, unless they were to be checked.
    async fn keep_if_unchecked(&self, ask: SliceRequest, held: u64, appended: Appended) -> Result<(), Refusal> {
        if self.told.is_some() { Ok(()) } else { self.keep(ask, held, appended).await }
    }

    async fn keep(&self, ask: SliceRequest, held: u64, appended: Appended) -> Result<(), Refusal> {
        let Some(digest) = appended.digests.first().copied().filter(|_| appended.received > 0) else { return Ok(()) };
        let (uploads, len) = (self.app.uploads.clone(), held + appended.received);
        self.app.blocking(move || uploads.keep_tail(&ask, appended.slice, len, digest)).await
    }

    /// The refusal of this request, which a newer one ends.
    fn stopped(&self) -> Refusal {
        let facts = "a newer request goes on with this upload, so that this one was ended";
        let kept = if self.told.is_some() { self.start } else { self.ask.offset };
        Refusal { offset: Some(kept), ..Refusal::new(ErrorCode::Conflict, facts) }
    }

    /// Refuses a body whose checksum is not the one that was told.
    fn check_sum(&mut self) -> Result<(), Refusal> {
        match (&self.told, self.checksum.take()) {
            (Some(told), Some(is)) => {
                if told.is_of(is)? {
                    return Ok(());
                }
                let facts = "the bytes that arrived have another checksum, and none of them was kept";
                Err(Refusal::new(ErrorCode::Damaged, facts).advising(Advice::SendAgain))
            }
            _ => Ok(()),
        }
    }

    async fn store_held_back(&mut self) -> Result<(), Refusal> {
        for (ask, slice, digests) in std::mem::take(&mut self.held_back) {
            self.store(ask, slice, digests).await?;
        }
        Ok(())
    }
}

/// The body goes on behind the end of the file.
pub(super) fn goes_beyond(size: u64) -> Refusal {
    Refusal::new(ErrorCode::TooLarge, format!("the upload is {size} bytes long, and more bytes than that came"))
}

fn too_long_to_check(len: u64) -> Refusal {
    let facts = format!("a body with a checksum can have up to {len} bytes: send it in shorter requests");
    Refusal::new(ErrorCode::TooLarge, facts)
}

fn does_not_stop() -> Refusal {
    let facts = "another request is at work on this upload, and does not stop: ask again in a moment";
    Refusal { retry_after: Some(1), ..Refusal::new(ErrorCode::Busy, facts) }
}
