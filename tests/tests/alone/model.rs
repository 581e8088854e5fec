//! The spool against a plain model of it: random deeds of two sources and of clients that name none, with mergers that
//! run, mergers that are killed, uploads that are cancelled, cleaning up, and reboots in between. After each deed the
//! answer, what is held and what is finished are what the model says; at the end a push that goes by the rules ends in
//! the exact file.
//!
//! `PROPTEST_CASES` sets the number of cases.

use bigup_core::protocol::digest::{self, Digest, DigestKind, SliceDigest, SliceHasher};
use bigup_core::protocol::kept::Kept;
use bigup_core::protocol::name::FileName;
use bigup_core::protocol::native::ErrorCode;
use bigup_core::protocol::plan::{Plan, PlanError};
use bigup_core::storage::data_dir::{DataDir, FileModes};
use bigup_core::storage::disk::BootId;
use bigup_core::storage::spool::{FINISHED, Record, Spool, UploadId};
use bigup_merger::{Config, Events, MergeEnd, Stop};
use bigup_tests::process::kill_9;
use bigup_tests::{data, programs};
use bigupd::admission::access::Access;
use bigupd::commands::Outcome;
use bigupd::metrics::UploadProtocol;
use bigupd::refusal::{Refusal, against_upload};
use bigupd::uploads::request::BeginRequest;
use bigupd::uploads::settings::Settings;
use bigupd::uploads::{Admission, NameState, SliceRequest, SliceStored, SliceTarget, Uploads};
use proptest::prelude::*;
use proptest::test_runner::{FileFailurePersistence, RngSeed};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::process::Stdio;
use std::time::Duration;

const NAME: &str = "file.bin";

/// Cases without `PROPTEST_CASES`: some ten seconds.
const CASES: u32 = 96;

/// Bytes that must be held for each slice that an upload has more by its own cut than by that of who takes it over.
const WORTH_A_SLICE: u64 = 4 << 10;

const REGRESSIONS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/proptest-regressions/model.txt");

// --- what is drawn

/// Who sends: a client that names no source, two that do, and one that comes last and sees it through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    Nobody,
    A,
    B,
    Last,
}

impl Who {
    fn source(self) -> Option<String> {
        match self {
            Who::Nobody => None,
            Who::A => Some("a".to_owned()),
            Who::B => Some("b".to_owned()),
            Who::Last => Some("last".to_owned()),
        }
    }
}

/// What a client says of its file as it begins.
#[derive(Clone, Copy, Debug)]
enum Says {
    Everything,
    SliceNum,
    SliceSize,
    /// Everything, and that it is to be cut into slices of another size if nothing is held yet.
    Recut,
}

#[derive(Clone, Copy, Debug)]
enum Promise {
    Nothing,
    Own,
    Wrong,
}

/// How a slice is sent.
#[derive(Clone, Copy, Debug)]
enum MergerExit {
    Right,
    /// Right, but its digest is not told.
    Untold,
    WrongDigest,
    WrongLength,
    OtherContent,
    /// The connection breaks before all is there.
    Broken,
}

#[derive(Clone, Debug)]
enum Op {
    Begin {
        who: Who,
        silent: bool,
        says: Says,
        promise: Promise,
        replace: bool,
    },
    Put {
        who: Who,
        slice_id: u64,
        how: MergerExit,
    },
    Merge,
    KillMerger {
        after_micros: u64,
    },
    /// By an operator; its source is told until it is cleaned up.
    Cancel,
    Clean,
    Reboot,
}

/// The files of the sources: the same slice size, and each has a length of its own.
#[derive(Clone)]
struct Files {
    slice_size: u64,
    first: Vec<u8>,
    second: Vec<u8>,
    last: Vec<u8>,
}

impl std::fmt::Debug for Files {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (first, second, last) = (self.first.len(), self.second.len(), self.last.len());
        write!(f, "slices of {}, files of {first}, {second} and {last} bytes", self.slice_size)
    }
}

impl Files {
    fn of(&self, who: Who) -> &[u8] {
        match who {
            Who::Nobody | Who::A => &self.first,
            Who::B => &self.second,
            Who::Last => &self.last,
        }
    }

    fn slices(&self, who: Who, slice_size: u64) -> Vec<&[u8]> {
        self.of(who).chunks(slice_size as usize).collect()
    }
}

fn files() -> impl Strategy<Value = Files> {
    let slice_size = prop_oneof![Just(1024_u64), Just(2048), 1..3000_u64];
    let slices = || (0..=12_u64, prop_oneof![Just(0_u64), Just(1), 1..3000_u64]);
    (slice_size, slices(), slices(), slices(), any::<bool>()).prop_map(|(slice_size, one, two, three, same_len)| {
        let len = |(full, rest): (u64, u64)| (full * slice_size + rest % slice_size) as usize;
        let first = data::bytes(1, len(one));
        let mut second = data::bytes(2, if same_len { len(one) } else { len(two) });
        // Each other slice is the same in both.
        for (mine, theirs) in second.chunks_mut(slice_size as usize).zip(first.chunks(slice_size as usize)).step_by(2) {
            if mine.len() == theirs.len() {
                mine.copy_from_slice(theirs);
            }
        }
        Files { slice_size, first, second, last: data::bytes(3, len(three)) }
    })
}

fn who() -> impl Strategy<Value = Who> {
    prop_oneof![1 => Just(Who::Nobody), 3 => Just(Who::A), 2 => Just(Who::B)]
}

fn op() -> impl Strategy<Value = Op> {
    let says = prop_oneof![
        3 => Just(Says::Everything),
        1 => Just(Says::SliceNum),
        2 => Just(Says::SliceSize),
        1 => Just(Says::Recut),
    ];
    let promise = prop_oneof![4 => Just(Promise::Nothing), 3 => Just(Promise::Own), 1 => Just(Promise::Wrong)];
    let begin = (who(), prop::bool::weighted(0.7), says, promise, prop::bool::weighted(0.3))
        .prop_map(|(who, silent, says, promise, replace)| Op::Begin { who, silent, says, promise, replace });
    let how = prop_oneof![
        12 => Just(MergerExit::Right),
        2 => Just(MergerExit::Untold),
        1 => Just(MergerExit::WrongDigest),
        1 => Just(MergerExit::WrongLength),
        1 => Just(MergerExit::OtherContent),
        1 => Just(MergerExit::Broken),
    ];
    let put = (who(), 0..13_u64, how).prop_map(|(who, slice_id, how)| Op::Put { who, slice_id, how });
    prop_oneof![
        4 => begin,
        16 => put,
        3 => Just(Op::Merge),
        2 => (0..20_000_u64).prop_map(|after_micros| Op::KillMerger { after_micros }),
        1 => Just(Op::Cancel),
        1 => Just(Op::Clean),
        1 => Just(Op::Reboot),
    ]
}

/// Mostly one client that goes on and on, so that much gets finished, and others that come in between.
fn ops() -> impl Strategy<Value = Vec<Op>> {
    let begin =
        Op::Begin { who: Who::A, silent: true, says: Says::Everything, promise: Promise::Nothing, replace: false };
    prop_oneof![
        prop::collection::vec(op(), 1..60),
        prop::collection::vec(op(), 1..60).prop_map(move |mut ops| {
            ops.insert(0, begin.clone());
            ops
        }),
    ]
}

// --- the model

/// What the model knows of an upload.
#[derive(Clone, Debug)]
struct UploadRecord {
    source: Option<String>,
    plan: Plan,
    held: BTreeMap<u64, Vec<u8>>,
    taken_over: bool,
    promise: Option<Digest>,
    replace: bool,
    blocked: bool,
    /// Slices may lie there that the plan has no place for.
    litter: bool,
}

impl UploadRecord {
    fn needs_comparison(&self) -> bool {
        self.taken_over && self.promise.is_none()
    }

    fn is_whole(&self) -> bool {
        self.plan.slice_num.is_some_and(|num| (0..num).all(|id| self.held.contains_key(&id)))
    }

    fn content(&self) -> Vec<u8> {
        self.held.values().flatten().copied().collect()
    }

    /// It is cut into several slices, or not at all.
    fn recut(&mut self, ask: &BeginRequest) -> Result<(), ErrorCode> {
        let plan = Plan::new(None, ask.plan.slice_size, self.plan.file_size).map_err(code)?;
        let is_several = plan.slice_size.is_some() && plan.slice_num.is_none_or(|num| num > 1);
        if is_several && self.plan.slice_size.is_some() && self.plan.slice_num != Some(0) {
            self.plan = plan;
        }
        Ok(())
    }

    /// What the plan has no place for is none of the file.
    fn drop_what_does_not_fit(&mut self) {
        let (plan, before) = (self.plan.clone(), self.held.len());
        self.held.retain(|id, bytes| plan.learn(*id, bytes.len() as u64).is_ok());
        self.litter |= self.held.len() < before;
    }
}

#[derive(Clone, Debug, PartialEq)]
struct Finished {
    content: Vec<u8>,
    source: Option<String>,
}

#[derive(Clone, Debug, Default)]
struct Model {
    upload: Option<UploadRecord>,
    finished: Option<Finished>,
    /// Sources whose uploads were cancelled.
    cancelled: BTreeSet<Option<String>>,
}

/// What the model says of a begin.
#[derive(Debug, PartialEq)]
enum Begun {
    Finished,
    Unfinished,
    Refused(ErrorCode),
}

/// What it says of a slice.
#[derive(Debug, PartialEq)]
enum Put {
    /// Stored, or there already.
    Taken,
    /// Held already, in a finished file.
    Finished,
    Refused(&'static [ErrorCode]),
}

/// What becomes of a whole upload.
#[derive(Debug, PartialEq)]
enum Publishing {
    NotYet,
    Blocked,
    Published(Digest),
}

impl Model {
    fn begin(&mut self, ask: &BeginRequest, silent: bool) -> Begun {
        for _ in 0..4 {
            if self.upload.is_some() {
                let done = if self.upload.as_ref().is_some_and(|upload| upload.source == ask.source) {
                    self.resume(ask)
                } else {
                    self.take_over(ask, silent)
                };
                if let Err(code) = done {
                    return Begun::Refused(code);
                }
                let is_empty = self.upload.as_ref().is_some_and(|upload| upload.plan.slice_num == Some(0));
                if !is_empty {
                    return Begun::Unfinished;
                }
                return match self.publish() {
                    Publishing::NotYet => Begun::Unfinished,
                    Publishing::Blocked => Begun::Refused(ErrorCode::Conflict),
                    Publishing::Published(_) => Begun::Finished,
                };
            }
            if let Some(finished) = &self.finished {
                let own_digest = digest::of_bytes(&finished.content);
                let size = finished.content.len() as u64;
                let differs = match (ask.file_digest, ask.plan.file_size) {
                    (Some(digest), _) => digest != own_digest,
                    (None, Some(file_size)) => file_size != size,
                    (None, None) => false,
                };
                let is_own = ask.source.is_some() && finished.source == ask.source;
                let is_certain = ask.file_digest.is_some() || is_own;
                match (differs, ask.replace) {
                    (true, false) => return Begun::Refused(ErrorCode::Exists),
                    (false, false) => return Begun::Finished,
                    (false, true) if is_certain => return Begun::Finished,
                    (_, true) => {}
                }
            }
            if self.cancelled.contains(&ask.source) {
                return Begun::Refused(ErrorCode::Cancelled);
            }
            self.upload = Some(UploadRecord {
                source: ask.source.clone(),
                plan: ask.plan.clone(),
                held: BTreeMap::new(),
                taken_over: false,
                promise: ask.file_digest,
                replace: ask.replace,
                blocked: false,
                litter: false,
            });
        }
        panic!("it is begun again and again: {ask:?}");
    }

    fn resume(&mut self, ask: &BeginRequest) -> Result<(), ErrorCode> {
        let upload = self.upload.as_mut().expect("the caller looked");
        if ask.recut && upload.held.is_empty() && !upload.litter {
            upload.recut(ask)?;
        }
        let plan = match (upload.plan.slice_size, ask.plan.slice_size) {
            (Some(has), Some(wish)) if has != wish => Plan::new(None, Some(has), ask.plan.file_size),
            _ => Ok(ask.plan.clone()),
        };
        let plan = plan.and_then(|plan| upload.plan.bind(&plan)).map_err(code)?;
        let (replace, promise) = (upload.replace || ask.replace, ask.file_digest.or(upload.promise));
        let said_anew = (replace, promise) != (upload.replace, upload.promise);
        if upload.blocked && !said_anew && !upload.needs_comparison() {
            let is_other = |finished: &Finished| promise != Some(digest::of_bytes(&finished.content));
            if !replace && self.finished.as_ref().is_some_and(is_other) {
                return Err(ErrorCode::Exists);
            }
        }
        (upload.plan, upload.replace, upload.promise, upload.blocked) = (plan, replace, promise, false);
        upload.drop_what_does_not_fit();
        Ok(())
    }

    fn take_over(&mut self, ask: &BeginRequest, silent: bool) -> Result<(), ErrorCode> {
        let upload = self.upload.as_mut().expect("the caller looked");
        if self.cancelled.contains(&ask.source) {
            return Err(ErrorCode::Cancelled);
        }
        if ask.source.is_none() {
            return Err(ErrorCode::Conflict);
        }
        if !silent {
            return Err(ErrorCode::Busy);
        }
        if upload.is_whole() && !upload.needs_comparison() && !upload.blocked {
            return Err(ErrorCode::Busy);
        }
        let slice_size = upload.plan.slice_size.or(ask.plan.slice_size);
        let by_number = ask.plan.slice_num.filter(|_| ask.plan.file_size.is_none() && ask.plan.slice_size.is_none());
        let shared = Plan::new(by_number, slice_size, ask.plan.file_size).map_err(code)?;
        let more = shared.slice_num.unwrap_or(0).saturating_sub(ask.plan.slice_num.unwrap_or(u64::MAX));
        let is_worth_it = !upload.held.is_empty() && upload.content().len() as u64 >= more * WORTH_A_SLICE;
        let keep = if is_worth_it { upload.plan.common_slices(&shared) } else { 0 };
        let plan = if keep > 0 { shared } else { ask.plan.clone() };
        upload.held.retain(|id, _| *id < keep);
        let taken_over = !upload.held.is_empty();
        *upload = UploadRecord {
            source: ask.source.clone(),
            plan,
            held: std::mem::take(&mut upload.held),
            taken_over,
            promise: ask.file_digest.filter(|_| !taken_over),
            replace: ask.replace,
            blocked: false,
            litter: false,
        };
        Ok(())
    }

    /// What becomes of `bytes`, sent as slice `slice_id` at `offset`; `is_damaged`: with a digest that is not theirs.
    fn put(&mut self, source: &Option<String>, slice_id: u64, offset: u64, bytes: &[u8], is_damaged: bool) -> Put {
        let Some(upload) = &mut self.upload else {
            return match &self.finished {
                Some(finished) if source.is_some() && finished.source == *source => Put::Finished,
                _ if self.cancelled.contains(source) => Put::Refused(&[ErrorCode::Cancelled]),
                Some(_) => Put::Refused(&[ErrorCode::Exists]),
                None => Put::Refused(&[ErrorCode::NoUpload]),
            };
        };
        if *source != upload.source {
            return Put::Refused(&[ErrorCode::Conflict]);
        }
        if upload.plan.offset_of(slice_id).is_some_and(|is| is != offset) {
            return Put::Refused(&[ErrorCode::Conflict]);
        }
        let plan = match upload.plan.learn(slice_id, bytes.len() as u64) {
            Ok(plan) => plan,
            Err(PlanError::BeyondEnd { .. }) => return Put::Refused(&[ErrorCode::BadRequest]),
            Err(_) => return Put::Refused(&[ErrorCode::Conflict]),
        };
        match upload.held.get(&slice_id) {
            // What is damaged is refused for its content or for its digest, whichever is looked at first.
            Some(_) if is_damaged => return Put::Refused(&[ErrorCode::Conflict, ErrorCode::Damaged]),
            None if is_damaged => return Put::Refused(&[ErrorCode::Damaged]),
            Some(held) if held == bytes => return Put::Taken,
            Some(_) if !upload.taken_over => return Put::Refused(&[ErrorCode::Conflict]),
            _ => {}
        }
        upload.plan = plan;
        upload.held.insert(slice_id, bytes.to_vec());
        Put::Taken
    }

    /// Finishes the file if all that this takes is there.
    fn publish(&mut self) -> Publishing {
        let Some(upload) = self.upload.as_mut().filter(|u| u.is_whole() && !u.needs_comparison()) else {
            return Publishing::NotYet;
        };
        if upload.blocked {
            return Publishing::Blocked;
        }
        let content = upload.content();
        let digest = digest::of_bytes(&content);
        if upload.promise.is_some_and(|promise| promise != digest) {
            // It is to be compared, and promised anew.
            (upload.blocked, upload.taken_over, upload.promise) = (true, true, None);
            return Publishing::Blocked;
        }
        match &self.finished {
            Some(finished) if finished.content == content => {}
            Some(_) if !upload.replace => {
                upload.blocked = true;
                return Publishing::Blocked;
            }
            _ => self.finished = Some(Finished { content, source: upload.source.clone() }),
        }
        self.upload = None;
        Publishing::Published(digest)
    }
}

fn code(error: PlanError) -> ErrorCode {
    against_upload(error).code
}

// --- the program, and the comparison

/// A data folder, and what the model says of it.
struct World {
    dir: tempfile::TempDir,
    data: DataDir,
    name: FileName,
    files: Files,
    /// How clients cut what they send.
    cut: u64,
    model: Model,
}

impl World {
    fn new(files: Files) -> World {
        let dir = tempfile::tempdir().expect("a temporary folder can be made");
        let data = DataDir::create(dir.path()).expect("the folders can be made");
        let (name, cut) = (FileName::new(NAME).expect("the name is fine"), files.slice_size);
        World { dir, data, name, files, cut, model: Model::default() }
    }

    fn apply(&mut self, op: &Op) {
        match *op {
            Op::Begin { who, silent, says, promise, replace } => self.begin(who, silent, says, promise, replace),
            Op::Put { who, slice_id, how } => self.put(who, slice_id, how),
            Op::Merge => self.merge(),
            Op::KillMerger { after_micros } => self.kill_merger(Duration::from_micros(after_micros)),
            Op::Cancel => self.cancel(),
            Op::Clean => {
                bigupd::upkeep::sweep::clean(&self.data, Duration::ZERO).expect("leftovers can be removed");
                self.model.cancelled.clear();
            }
            Op::Reboot => self.reboot(),
        }
        self.compare();
    }

    fn uploads(&self, silent: bool) -> Uploads {
        let takeover_after = if silent { Duration::ZERO } else { Duration::from_secs(1 << 30) };
        let defaults = bigupd::config::Config::defaults(self.data.root().to_owned());
        let settings = Settings { takeover_after, ..defaults.uploads };
        Uploads::new(self.data.clone(), settings, &defaults.hooks)
    }

    fn spool(&self) -> Spool {
        Spool::of(&self.data, &UploadId::of_name(&self.name))
    }

    /// What `who` asks for as it begins.
    fn begin_ask(&self, who: Who, says: Says, promise: Promise, replace: bool) -> BeginRequest {
        let (content, source) = (self.files.of(who), who.source());
        let (slice_size, file_size) = (self.files.slice_size, content.len() as u64);
        let plan = match says {
            Says::SliceNum => Plan::new(Some(file_size.div_ceil(slice_size)), None, None),
            Says::SliceSize => Plan::new(None, Some(slice_size), None),
            Says::Recut => Plan::new(None, Some((slice_size / 2).max(512)), Some(file_size)),
            _ => Plan::new(None, Some(slice_size), Some(file_size)),
        };
        let file_digest = match promise {
            Promise::Nothing => None,
            Promise::Own => Some(digest::of_bytes(content)),
            Promise::Wrong => Some(digest::of_bytes(b"something else")),
        };
        let plan = plan.expect("these numbers fit");
        let recut = matches!(says, Says::Recut);
        BeginRequest {
            by: Access::Everything,
            id: UploadId::of_name(&self.name),
            name: self.name.clone(),
            plan,
            source,
            metadata: None,
            sha256: None,
            protocol: UploadProtocol::Native,
            file_digest,
            replace,
            recut,
            discard: false,
            by_size: true,
            kept: Kept::default(),
            awaits_end: false,
            concat: None,
            peer: None,
            certificate: None,
        }
    }

    fn begin(&mut self, who: Who, silent: bool, says: Says, promise: Promise, replace: bool) {
        let ask = self.begin_ask(who, says, promise, replace);
        let expected = self.model.begin(&ask, silent);
        let is = match self.uploads(silent).begin(&ask) {
            Ok(NameState::Finished { digest, .. }) => {
                let finished = self.model.finished.as_ref().map(|finished| digest::of_bytes(&finished.content));
                assert_eq!(digest, finished);
                Begun::Finished
            }
            Ok(NameState::Unfinished(unfinished)) => {
                let upload = self.model.upload.as_ref().expect("the model has an upload too");
                assert_eq!(unfinished.upload.needs_comparison(), upload.needs_comparison());
                assert_eq!(unfinished.upload.plan, upload.plan);
                Begun::Unfinished
            }
            Err(refusal) => Begun::Refused(refusal.code),
        };
        assert_eq!(is, expected, "{ask:?}");
    }

    fn put(&mut self, who: Who, slice_id: u64, how: MergerExit) {
        let slices = self.files.slices(who, self.cut);
        let Some(own) = slices.get(slice_id as usize) else { return };
        let mut bytes = own.to_vec();
        match how {
            MergerExit::WrongLength => bytes.push(0),
            MergerExit::OtherContent => bytes = data::bytes(99 + slice_id, bytes.len()),
            MergerExit::Right | MergerExit::Untold | MergerExit::WrongDigest | MergerExit::Broken => {}
        }
        // What contradicts the client's own file, yet not what it said of it so far, is its own fault later.
        let plan = self.model.upload.as_ref().map(|upload| upload.plan.clone());
        if bytes.len() != own.len() && plan.is_some_and(|plan| plan.learn(slice_id, bytes.len() as u64).is_ok()) {
            return;
        }
        if matches!(how, MergerExit::Broken) {
            return self.put_and_break(who, slice_id, &bytes);
        }
        let is_damaged = matches!(how, MergerExit::WrongDigest);
        let offset = slice_id * self.cut;
        let expected = self.model.put(&who.source(), slice_id, offset, &bytes, is_damaged);
        match (self.send(who, slice_id, &bytes, how), expected) {
            (Ok(Some(SliceStored::Finished(digest))), Put::Taken) => {
                assert_eq!(self.model.publish(), Publishing::Published(digest));
            }
            (Ok(Some(_)), Put::Taken) | (Ok(None), Put::Taken | Put::Finished) => {}
            // The only slice was taken, and the file cannot be finished.
            (Err(ErrorCode::Conflict), Put::Taken) => {
                assert!(self.model.upload.as_ref().is_some_and(|upload| upload.plan.slice_num == Some(1)));
                assert_eq!(self.model.publish(), Publishing::Blocked);
            }
            (Err(code), Put::Refused(expected)) if expected.contains(&code) => {}
            (is, expected) => panic!("{is:?}, not {expected:?}"),
        }
    }

    /// Sends a slice as a daemon receives it. None: it was held before its bytes were asked for.
    fn send(&self, who: Who, slice_id: u64, bytes: &[u8], how: MergerExit) -> Result<Option<SliceStored>, ErrorCode> {
        let uploads = self.uploads(false);
        let ask = self.slice_ask(who, slice_id, bytes, how);
        let admission = uploads.admit(&ask).map_err(|refusal| refusal.code)?;
        let Admission::Take { target, kinds, offset } = admission else { return Ok(None) };
        write(&target, bytes);
        let digests: Vec<SliceDigest> = kinds.iter().map(|kind| digest_of(*kind, offset, bytes)).collect();
        uploads.commit(&ask, target, &digests).map(Some).map_err(|refusal: Refusal| refusal.code)
    }

    fn put_and_break(&self, who: Who, slice_id: u64, bytes: &[u8]) {
        let ask = self.slice_ask(who, slice_id, bytes, MergerExit::Right);
        if let Ok(Admission::Take { target, .. }) = self.uploads(false).admit(&ask) {
            write(&target, &bytes[..bytes.len() / 2]);
        }
    }

    fn slice_ask(&self, who: Who, slice_id: u64, bytes: &[u8], how: MergerExit) -> SliceRequest {
        let len = bytes.len() as u64;
        let plan = self.model.upload.as_ref().map(|upload| upload.plan.clone()).unwrap_or_default();
        let mut told = match plan.learn(slice_id, len) {
            Ok(plan) => digest::of_slice(&plan, slice_id, bytes),
            Err(_) => digest_of(DigestKind::Hash, 0, bytes),
        };
        if matches!(how, MergerExit::WrongDigest) {
            told.digest.0[7] ^= 1;
        }
        let digest = (!matches!(how, MergerExit::Untold)).then_some(told);
        SliceRequest {
            by: Access::Everything,
            peer: None,
            id: UploadId::of_name(&self.name),
            name: self.name.clone(),
            slice_id,
            len,
            digest,
            offset: Some(slice_id * self.cut),
            source: who.source(),
            begin: None,
        }
    }

    fn merge(&mut self) {
        let (data_dir, file_name) = (self.dir.path().to_owned(), self.name.clone());
        let (idle, events) = (Duration::from_millis(1), Events::none());
        let modes = FileModes::default();
        let config = Config { data_dir, file_name, idle, leave_notice: false, modes, events, store: None };
        let had_upload = self.model.upload.is_some();
        let expected = match self.model.publish() {
            Publishing::Published(digest) => MergeEnd::Published(digest),
            Publishing::Blocked => MergeEnd::Blocked(String::new()),
            Publishing::NotYet if had_upload => MergeEnd::Idle,
            Publishing::NotYet => MergeEnd::NoUpload,
        };
        let ended = match bigup_merger::run(&config, &Stop::never()).expect("nothing fails here") {
            MergeEnd::Blocked(_) => MergeEnd::Blocked(String::new()),
            ended => ended,
        };
        // Whole, and blocked before it was: found out only once it is merged.
        if self.model.upload.as_ref().is_some_and(|u| u.blocked && u.is_whole() && ended != MergeEnd::Idle) {
            assert_eq!(ended, MergeEnd::Blocked(String::new()));
            return;
        }
        assert_eq!(ended, expected);
    }

    fn kill_merger(&mut self, after: Duration) {
        let mut command = programs::merger(self.dir.path(), NAME);
        command.args(["--idle", "1ms"]).env("BIGUP_LOG", "off").stdin(Stdio::null()).stderr(Stdio::null());
        let mut merger = command.spawn().expect("bigup-merger can be started");
        // No condition to wait for: any instant may be the one.
        std::thread::sleep(after);
        kill_9(&mut merger);
        self.follow_the_killed();
    }

    /// A killed merger may have finished the file or found that it cannot be; then the model must agree.
    fn follow_the_killed(&mut self) {
        let Some(is) = self.spool().upload().expect("the spool is readable") else {
            if self.model.upload.is_some() {
                assert!(matches!(self.model.publish(), Publishing::Published(_)), "the upload is gone");
            }
            return;
        };
        let upload = self.model.upload.as_ref().expect("the model has an upload too");
        if is.blocked.is_some() && !upload.blocked {
            assert_eq!(self.model.publish(), Publishing::Blocked);
        } else if self.was_renamed() {
            self.merge();
        }
    }

    /// The file stands in `files/` already, and its spool is still there.
    fn was_renamed(&self) -> bool {
        let digests = self.spool().open_digests().expect("the spool is there");
        let recorded = bigup_core::storage::spool::Records(&digests).publication().expect("it can be read");
        recorded.is_some() && !self.spool().merged_path().exists()
    }

    fn cancel(&mut self) {
        let done = bigupd::commands::cancel::cancel(&self.data, &self.name, Duration::ZERO).expect("nobody is at work");
        match self.model.upload.take() {
            None => assert!(matches!(done, Outcome::NoUpload(_))),
            Some(upload) => {
                assert!(matches!(done, Outcome::Done(_)));
                self.model.cancelled.insert(upload.source);
            }
        }
    }

    fn reboot(&self) {
        let Some(locked) = self.spool().lock().expect("the spool is readable") else { return };
        let records = locked.records();
        for slice_id in 0..20 {
            if let Some(record) = records.get(slice_id).expect("it can be read") {
                records.put(slice_id, &Record { boot: BootId([9; 8]), ..record }).expect("it can be written");
            }
        }
        records.set_merge_boot(BootId([9; 8])).expect("it can be written");
    }

    fn compare(&mut self) {
        let finished = fs::read(self.data.files().join(NAME)).ok();
        assert!(finished.as_ref() == self.model.finished.as_ref().map(|f| &f.content), "what is finished differs");
        let is = self.spool().upload().expect("the spool is readable");
        assert_eq!(is.is_some(), self.model.upload.is_some());
        let (Some(is), Some(upload)) = (is, &mut self.model.upload) else { return };
        assert_eq!(is.blocked.is_some(), upload.blocked, "{:?}", is.blocked);
        assert_eq!(is.file_digest(), upload.promise);
        let spool = Spool::of(&self.data, &UploadId::of_name(&self.name));
        let held: Vec<u64> = spool.holdings(&is).expect("it can be read").ranges().iter().collect();
        // Of a merged file that another source made too long for it a full last slice is asked for again.
        let last = upload.plan.slice_num.and_then(|num| num.checked_sub(1));
        if upload.taken_over && last.is_some_and(|last| !held.contains(&last)) {
            upload.held.remove(&last.expect("it was just there"));
        }
        assert_eq!(held, upload.held.keys().copied().collect::<Vec<_>>(), "what is held differs");
    }

    // --- the end

    /// Whoever has the upload sees it through by the rules; else somebody takes it over and does.
    fn finish(&mut self) {
        self.apply(&Op::Clean);
        let owner = match &self.model.upload {
            Some(upload) => [Who::Nobody, Who::A, Who::B].into_iter().find(|who| who.source() == upload.source),
            None => Some(Who::A),
        };
        let owner = owner.expect("it is one of them");
        self.push(owner);
        if self.model.upload.is_some() {
            self.push(Who::Last);
            assert_eq!(self.model.finished.as_ref().map(|f| &f.content[..]), Some(self.files.of(Who::Last)));
        }
        self.apply(&Op::Clean);
        let left = bigup_tests::daemon::list(&self.data.tmp());
        assert!(left.iter().all(|name| name.starts_with(FINISHED)), "a spool is left: {left:?}");
        let info = fs::read_to_string(self.data.info_ini()).unwrap_or_default();
        assert!(!info.contains('['), "a section is left: {info}");
    }

    /// One push: begin, send all that is not held as it should be, promise, merge.
    fn push(&mut self, who: Who) {
        let begin = |promise| Op::Begin { who, silent: true, says: Says::Everything, promise, replace: true };
        self.apply(&begin(Promise::Nothing));
        let cut = self.model.upload.as_ref().and_then(|upload| upload.plan.slice_size);
        self.cut = cut.unwrap_or(self.files.slice_size);
        for slice_id in 0..self.files.slices(who, self.cut).len() as u64 {
            self.apply(&Op::Put { who, slice_id, how: MergerExit::Right });
        }
        self.apply(&begin(Promise::Own));
        self.apply(&Op::Merge);
    }
}

fn write(target: &SliceTarget, bytes: &[u8]) {
    target.file().expect("it goes into the spool").write_all(bytes).expect("there is disk space");
}

fn digest_of(kind: DigestKind, offset: u64, bytes: &[u8]) -> SliceDigest {
    let mut hasher = SliceHasher::new(kind, offset);
    hasher.update(bytes);
    hasher.finish()
}

fn config() -> ProptestConfig {
    let mut config = ProptestConfig {
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(REGRESSIONS))),
        max_shrink_iters: 2000,
        ..ProptestConfig::default()
    };
    if std::env::var_os("PROPTEST_CASES").is_none() {
        // The same ones every time; whoever asks for a number gets others each time.
        config.cases = CASES;
        config.rng_seed = RngSeed::Fixed(1);
    }
    config
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn the_spool_does_what_the_model_says(files in files(), ops in ops()) {
        let mut world = World::new(files);
        for op in &ops {
            world.apply(op);
        }
        world.finish();
    }
}
