//! Beginning an upload in states that only a kill at the right instant leaves behind, and of empty files.

use bigup_core::data_dir::DataDir;
use bigup_core::digest::{DigestKind, SliceHasher, of_bytes};
use bigup_core::disk::BootId;
use bigup_core::name::FileName;
use bigup_core::plan::Plan;
use bigup_core::spool::{Publication, Record, Spool, Upload};
use bigup_core::store::{self, Stamp};
use bigup_core::wire::ErrorCode;
use bigupd::access::Access;
use bigupd::config::{Config, SliceAck};
use bigupd::params::BeginAsk;
use bigupd::uploads::{Admission, SliceAsk, Standing, Stored, Uploads};
use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::Duration;

fn uploads(folder: &tempfile::TempDir) -> Uploads {
    let data = DataDir::create(folder.path()).unwrap();
    let config = Config { takeover_after: Duration::ZERO, ..Config::defaults(folder.path().to_owned()) };
    Uploads::new(data, Arc::new(config))
}

fn ask(source: Option<&str>, file_size: u64) -> BeginAsk {
    let plan = Plan::new(None, Some(1024), Some(file_size)).unwrap();
    let name = FileName::new("f").unwrap();
    BeginAsk {
        discard: false,
        by: Access::Everything,
        name,
        plan,
        source: source.map(str::to_owned),
        file_digest: None,
        replace: false,
        peer: None,
        recut: false,
    }
}

#[test]
fn a_client_that_left_keeps_nobody_waiting_until_it_is_back() {
    let folder = tempfile::tempdir().unwrap();
    let data = DataDir::create(folder.path()).unwrap();
    let takeover_after = Duration::from_secs(3600);
    let config = Config { takeover_after, ..Config::defaults(folder.path().to_owned()) };
    let uploads = Uploads::new(data, Arc::new(config));
    let (first, second) = (ask(Some("first"), 5000), ask(Some("second"), 5000));
    uploads.begin(&first).unwrap();
    assert!(uploads.begin(&second).is_err(), "the first is at work");
    // Another one's word does not count.
    uploads.leave(&first.name, Some("second")).unwrap();
    uploads.leave(&first.name, None).unwrap();
    assert!(uploads.begin(&second).is_err());
    uploads.leave(&first.name, Some("first")).unwrap();
    uploads.begin(&first).unwrap();
    assert!(uploads.begin(&second).is_err(), "the first is back");
    uploads.leave(&first.name, Some("first")).unwrap();
    uploads.begin(&second).unwrap();
    assert!(uploads.begin(&first).is_err(), "it is the second one's");
}

#[test]
fn an_upload_that_was_published_and_not_cleaned_up_is_finished_and_not_taken_over() {
    for old_name in [None, Some("0"), Some("merged")] {
        published_and_not_cleaned_up(old_name);
    }
}

/// The file stands in `files/`, and by the name `old_name` in the spool too, as a power cut may leave it.
fn published_and_not_cleaned_up(old_name: Option<&str>) {
    let folder = tempfile::tempdir().unwrap();
    let uploads = uploads(&folder);
    let content = [7; 100];
    let first = ask(Some("first"), 100);
    assert!(matches!(uploads.begin(&first), Ok(Standing::Unfinished(_))));
    let spool = Spool::of(&uploads.data, &first.name);
    let mut arrival = spool.arrival(0).unwrap();
    arrival.file().write_all(&content).unwrap();
    let mut hasher = SliceHasher::new(DigestKind::Hash, 0);
    hasher.update(&content);
    spool.lock().unwrap().unwrap().commit(&mut arrival, 100, Some("first"), &[hasher.finish()]).unwrap();
    // As after a kill between the rename into files/ and the removal of the spool.
    let finished = uploads.data.files().join("f");
    fs::rename(spool.slice_path(0), &finished).unwrap();
    let inode = fs::metadata(&finished).unwrap().ino();
    let publication = Publication { inode, digest: of_bytes(&content) };
    spool.lock().unwrap().unwrap().records().set_publication(Some(publication)).unwrap();

    let stamp = Stamp { digest: of_bytes(&content), source: first.source.clone() };
    store::stamp(&fs::File::open(&finished).unwrap(), &finished, &stamp).unwrap();
    if let Some(old_name) = old_name {
        fs::hard_link(&finished, spool.path().join(old_name)).unwrap();
    }

    let replace = BeginAsk { replace: true, file_digest: Some(stamp.digest), ..ask(Some("second"), 100) };
    let second = uploads.begin(&replace).unwrap();
    assert!(matches!(second, Standing::Finished { file_size: 100, same_source: false, .. }), "{second:?}");
    assert!(spool.upload().unwrap().is_none());
    assert_eq!(fs::read(&finished).unwrap(), content);
}

#[test]
fn an_empty_file_is_finished_as_it_is_begun_and_again_when_it_replaces_itself() {
    let folder = tempfile::tempdir().unwrap();
    let uploads = uploads(&folder);
    for replace in [false, true, true] {
        let begun = uploads.begin(&BeginAsk { replace, ..ask(None, 0) }).unwrap();
        let digest = of_bytes(b"");
        assert_eq!(begun, Standing::Finished { file_size: 0, digest: Some(digest), same_source: false });
    }
    let wrong = BeginAsk { file_digest: Some(of_bytes(b"x")), replace: true, ..ask(Some("s"), 0) };
    assert_eq!(uploads.begin(&wrong).unwrap_err().code, ErrorCode::Conflict);
}

#[test]
fn a_refused_promise_is_made_good_by_another_comparison() {
    let folder = tempfile::tempdir().unwrap();
    let uploads = uploads(&folder);
    let asked = ask(Some("s"), 3000);
    uploads.begin(&asked).unwrap();
    let mut locked = Spool::of(&uploads.data, &asked.name).lock().unwrap().unwrap();
    let blocked = Upload { taken_over: true, blocked: Some("wrong".to_owned()), ..locked.upload().clone() };
    locked.save(blocked).unwrap();
    drop(locked);
    let Standing::Unfinished(unfinished) = uploads.begin(&asked).unwrap() else { panic!("nothing is finished") };
    assert!(unfinished.upload.needs_comparison() && unfinished.upload.blocked.is_none());
}

#[test]
fn a_source_that_tells_only_the_number_of_slices_may_take_over() {
    let folder = tempfile::tempdir().unwrap();
    let uploads = uploads(&folder);
    uploads.begin(&ask(Some("first"), 3000)).unwrap();
    let by_number = BeginAsk { plan: Plan::new(Some(7), None, None).unwrap(), ..ask(Some("second"), 1) };
    let Standing::Unfinished(unfinished) = uploads.begin(&by_number).unwrap() else { panic!("nothing is finished") };
    assert_eq!(unfinished.upload.plan.slice_num, Some(7));
}

#[test]
fn a_list_of_uploads_that_takes_more_than_an_answer_may_is_refused_as_it_grows() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = Config::defaults(folder.path().to_owned());
    config.limits.answer_size = 3000;
    let uploads = Uploads::new(DataDir::create(folder.path()).unwrap(), Arc::new(config));
    let begin = |n: usize| {
        let name = FileName::new(&format!("{n}{}", "\"".repeat(200))).unwrap();
        uploads.begin(&BeginAsk { name, ..ask(None, 3000) }).unwrap();
    };
    (0..4).for_each(begin);
    let (list, size) = uploads.list(|_| true).unwrap();
    assert!(serde_json::to_string(&list).unwrap().len() as u64 <= size && size <= 3000, "{size}");
    begin(4);
    let refusal = uploads.list(|_| true).unwrap_err();
    assert_eq!(refusal.code, ErrorCode::TooLarge);
    assert!(refusal.message.contains("3000 bytes"), "{}", refusal.message);
}

#[test]
fn where_slices_are_synced_one_that_did_not_survive_another_boot_is_not_answered_as_held() {
    let folder = tempfile::tempdir().unwrap();
    let mut uploads = uploads(&folder);
    let slice = |content: &[u8]| {
        let mut hasher = SliceHasher::new(DigestKind::ChainingValue, 1024);
        hasher.update(content);
        let (name, digest) = (FileName::new("f").unwrap(), Some(hasher.finish()));
        SliceAsk {
            by: Access::Anonymous,
            peer: None,
            name,
            slice_id: 1,
            len: 1024,
            digest,
            offset: None,
            source: None,
            begin: None,
        }
    };
    let asked = slice(&[7; 1024]);
    uploads.begin(&ask(None, 3000)).unwrap();
    let send = |uploads: &Uploads| match uploads.admit(&asked)? {
        Admission::Held(_) => Ok(Stored::Held),
        Admission::Take { target, .. } => {
            target.file().unwrap().write_all(&[7; 1024]).unwrap();
            uploads.commit(&asked, target, asked.digest.as_slice())
        }
    };
    assert_eq!(send(&uploads).unwrap(), Stored::Waits);
    let spool = Spool::of(&uploads.data, &asked.name);
    fs::write(spool.slice_path(1), [0; 1024]).unwrap();
    let locked = spool.lock().unwrap().unwrap();
    let record = locked.records().get(1).unwrap().unwrap();
    locked.records().put(1, &Record { boot: BootId([9; 8]), ..record }).unwrap();
    drop(locked);
    assert_eq!(send(&uploads).unwrap(), Stored::Held, "a merger looks at it before it is used");
    uploads.config = Arc::new(Config { slice_ack: SliceAck::Synced, ..(*uploads.config).clone() });
    assert_eq!(send(&uploads).unwrap_err().code, ErrorCode::Damaged);
    assert_eq!(send(&uploads).unwrap(), Stored::Waits);
    assert_eq!(send(&uploads).unwrap(), Stored::Held);
    assert_eq!(fs::read(spool.slice_path(1)).unwrap(), [7; 1024]);
}
