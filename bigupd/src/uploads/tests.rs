use super::*;
use crate::admission::amount::BLOCK;
use crate::admission::tokens::Prefix;
use crate::config::Config;
use crate::metrics::UploadProtocol;
use bigup_core::protocol::digest::SliceHasher;
use bigup_core::protocol::kept::Kept;
use bigup_core::protocol::plan::Plan;
use bigup_core::protocol::units::MIB;
use bigup_core::storage::disk::FileLock;
use bigup_core::storage::spool::UploadId;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::sync::Barrier;
use std::time::Duration;

/// Longer than anything takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

struct Fixture {
    _dir: tempfile::TempDir,
    uploads: Uploads,
}

impl Fixture {
    /// Clients without a token have this quota, in bytes.
    fn new(quota: u64) -> Fixture {
        let dir = tempfile::tempdir().unwrap();
        let defaults = Config::defaults(dir.path().to_owned());
        let settings = Settings { takeover_after: Duration::ZERO, anonymous_quota: Some(quota), ..defaults.uploads };
        let uploads = Uploads::new(DataDir::create(dir.path()).unwrap(), settings, &defaults.hooks);
        Fixture { _dir: dir, uploads }
    }

    fn begin(&self, ask: &BeginRequest) {
        self.uploads.begin(ask).unwrap();
    }

    fn admit(&self, ask: &SliceRequest) -> SliceTarget {
        match self.uploads.admit(ask).unwrap() {
            Admission::Take { target, .. } => target,
            Admission::Held(_) => panic!("nothing is held"),
        }
    }
}

fn name(text: &str) -> FileName {
    FileName::new(text).unwrap()
}

/// The size of the file is not known where it is None; slices have a mebibyte.
fn ask(source: &str, file_size: Option<u64>) -> BeginRequest {
    BeginRequest {
        by: Access::Anonymous,
        id: UploadId::of_name(&name("f")),
        name: name("f"),
        plan: Plan::new(None, Some(MIB), file_size).unwrap(),
        source: Some(source.to_owned()),
        file_digest: None,
        replace: false,
        recut: false,
        discard: false,
        by_size: false,
        kept: Kept::default(),
        metadata: None,
        sha256: None,
        protocol: UploadProtocol::Native,
        awaits_end: false,
        concat: None,
        peer: None,
        certificate: None,
    }
}

/// The same of eight slices, the last of which tells the size.
fn with_a_short_last_slice() -> BeginRequest {
    BeginRequest { plan: Plan::new(Some(8), Some(MIB), None).unwrap(), ..ask("s", None) }
}

/// A slice that is shorter than others.
fn last_slice(slice_id: u64) -> SliceRequest {
    SliceRequest {
        by: Access::Anonymous,
        peer: None,
        id: UploadId::of_name(&name("f")),
        name: name("f"),
        slice_id,
        len: 4,
        digest: None,
        offset: None,
        source: Some("s".to_owned()),
        begin: None,
    }
}

fn fill(target: &SliceTarget) -> SliceDigest {
    target.file().unwrap().write_all(b"last").unwrap();
    let mut hasher = SliceHasher::new(DigestKind::Hash, 0);
    hasher.update(b"last");
    hasher.finish()
}

/// Asserts that `request` leaves the spool of `f` to others while it waits for the count of the bytes below the quota.
#[track_caller]
fn assert_free_while_counting(f: &Fixture, request: impl FnOnce() -> Result<(), Refusal> + Send) {
    let lock = Spool::of(&f.uploads.data, &UploadId::of_name(&name("f"))).path().join("digests");
    let mut is_free = false;
    std::thread::scope(|scope| {
        let mut asked = None;
        f.uploads.grants.while_counting(&Prefix::default(), |is_waited_for| {
            asked = Some(scope.spawn(request));
            let began = Instant::now();
            while !is_waited_for() {
                assert!(began.elapsed() < PATIENCE, "nothing is counted");
                std::thread::yield_now();
            }
            is_free = FileLock::try_now(&lock).unwrap().is_some();
        });
        asked.unwrap().join().unwrap().unwrap();
    });
    assert!(is_free, "the spool is locked");
}

#[test]
fn the_spool_is_free_while_it_is_counted_what_a_told_size_adds() {
    let f = Fixture::new(100 * MIB);
    f.begin(&ask("s", None));
    assert_free_while_counting(&f, || f.uploads.begin(&ask("s", Some(3 * MIB))).map(drop));
    let upload = Spool::of(&f.uploads.data, &UploadId::of_name(&name("f"))).upload().unwrap().unwrap();
    assert_eq!(upload.plan.file_size, Some(3 * MIB));
}

#[test]
fn the_spool_is_free_while_it_is_counted_what_a_finer_cut_adds() {
    let f = Fixture::new(100 * MIB);
    f.begin(&ask("s", Some(3 * MIB)));
    // Slices of a byte count as blocks.
    let plan = Plan::new(None, Some(1024), Some(3 * MIB)).unwrap();
    assert_free_while_counting(&f, || {
        f.uploads.begin(&BeginRequest { plan: plan.clone(), recut: true, ..ask("s", None) }).map(drop)
    });
    assert_eq!(Spool::of(&f.uploads.data, &UploadId::of_name(&name("f"))).upload().unwrap().unwrap().plan, plan);
}

#[test]
fn the_spool_is_free_while_it_is_counted_what_a_take_over_adds() {
    let f = Fixture::new(100 * MIB);
    f.begin(&ask("s", Some(3 * MIB)));
    assert_free_while_counting(&f, || f.uploads.begin(&ask("other", Some(5 * MIB))).map(drop));
    let upload = Spool::of(&f.uploads.data, &UploadId::of_name(&name("f"))).upload().unwrap().unwrap();
    assert_eq!((upload.source.as_deref(), upload.plan.file_size), (Some("other"), Some(5 * MIB)));
}

#[test]
fn the_spool_is_free_while_it_is_counted_what_a_slice_adds() {
    let f = Fixture::new(100 * MIB);
    f.begin(&with_a_short_last_slice());
    let mut target = None;
    assert_free_while_counting(&f, || f.uploads.admit(&last_slice(7)).map(|admission| target = Some(admission)));
    let Some(Admission::Take { target: target @ SliceTarget::Spool(_, Some(_)), .. }) = target else {
        panic!("it is granted")
    };
    let digest = fill(&target);
    assert_free_while_counting(&f, || f.uploads.commit(&last_slice(7), target, &[digest]).map(drop));
    let upload = Spool::of(&f.uploads.data, &UploadId::of_name(&name("f"))).upload().unwrap().unwrap();
    assert_eq!(upload.plan.file_size, Some(7 * MIB + 4));
}

#[test]
fn a_slice_that_tells_too_large_a_size_is_refused_and_not_stored() {
    let f = Fixture::new(5 * MIB);
    f.begin(&with_a_short_last_slice());
    let target = f.admit(&last_slice(7));
    let digest = fill(&target);
    assert_eq!(f.uploads.commit(&last_slice(7), target, &[digest]).unwrap_err().code, ErrorCode::TooLarge);
    let locked = Spool::of(&f.uploads.data, &UploadId::of_name(&name("f"))).lock().unwrap().unwrap();
    assert!(locked.upload().plan.file_size.is_none() && !locked.is_held(7).unwrap());
}

#[test]
fn sizes_told_at_once_do_not_pass_the_quota() {
    const PUSHES: u64 = 8;
    // Three of them can have a mebibyte, while the others have the block of an upload that was begun.
    let f = Fixture::new(3 * MIB + (PUSHES - 3) * BLOCK);
    let of = |i: u64, file_size| {
        let name = name(&format!("f{i}"));
        BeginRequest { id: UploadId::of_name(&name), name, ..ask("s", file_size) }
    };
    (0..PUSHES).for_each(|i| f.begin(&of(i, None)));
    let grow = |i: u64| f.uploads.begin(&of(i, Some(MIB))).is_ok();
    f.uploads.grants.forget_counts();
    let gate = Barrier::new(PUSHES as usize);
    std::thread::scope(|scope| {
        for i in 0..PUSHES {
            let (gate, grow) = (&gate, &grow);
            scope.spawn(move || {
                gate.wait();
                grow(i)
            });
        }
    });
    let grown = || {
        let upload = |i| Spool::of(&f.uploads.data, &UploadId::of_name(&of(i, None).name)).upload().unwrap().unwrap();
        (0..PUSHES).filter(|i| upload(*i).plan.file_size.is_some()).count()
    };
    assert!(grown() <= 3, "{} have grown", grown());
    // Some may have been told to come back.
    for i in 0..PUSHES {
        grow(i);
    }
    assert_eq!(grown(), 3);
}

/// True if this process has the file of this inode open.
fn is_open(inode: u64) -> bool {
    let open = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
    open.filter_map(|entry| std::fs::metadata(entry.path()).ok())
        .any(|found| found.ino() == inode && found.nlink() == 0)
}

#[test]
fn the_disk_space_of_a_merged_slice_that_is_kept_open_is_found() {
    let f = Fixture::new(100 * MIB);
    f.begin(&ask("s", Some(7 * MIB + 4)));
    let target = f.admit(&last_slice(7));
    let inode = target.file().unwrap().metadata().unwrap().ino();
    let digest = fill(&target);
    f.uploads.commit(&last_slice(7), target, &[digest]).unwrap();
    // As a merger does.
    std::fs::remove_file(Spool::of(&f.uploads.data, &UploadId::of_name(&name("f"))).slice_path(7)).unwrap();
    assert!(is_open(inode));
    let full = || SpaceError::Full { needed: 4, headroom: 0, available: 0, reserve: 0 };
    f.uploads.with_disk_space(|_| if is_open(inode) { Err(full()) } else { Ok(()) }).unwrap();
}

#[test]
fn disk_space_is_looked_for_once_more_and_only_where_there_is_none() {
    let f = Fixture::new(0);
    let tried = |error: fn() -> SpaceError| {
        let mut times = 0;
        let taken = f.uploads.with_disk_space(|_| {
            times += 1;
            Err::<(), _>(error())
        });
        assert!(taken.is_err());
        times
    };
    assert_eq!(tried(|| SpaceError::Full { needed: 4, headroom: 0, available: 0, reserve: 0 }), 2);
    assert_eq!(tried(|| SpaceError::NoInodes { needed: 4, available: 0, reserve: 0, total: 1 }), 2);
    assert_eq!(tried(|| SpaceError::Io(io::ErrorKind::StorageFull.into())), 2);
    assert_eq!(tried(|| SpaceError::Io(io::ErrorKind::QuotaExceeded.into())), 2);
    assert_eq!(tried(|| SpaceError::Io(io::ErrorKind::PermissionDenied.into())), 1);
}
