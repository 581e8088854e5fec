//! Beginning an upload in states that only a kill at the right instant leaves behind, and of empty files.

use bigup_core::protocol::digest::{DigestKind, SliceHasher, of_bytes};
use bigup_core::protocol::kept::Kept;
use bigup_core::protocol::name::FileName;
use bigup_core::protocol::native::ErrorCode;
use bigup_core::protocol::plan::Plan;
use bigup_core::storage::data_dir::DataDir;
use bigup_core::storage::disk::BootId;
use bigup_core::storage::spool::{HeldContent, Publication, Record, Spool, UploadId, UploadRecord};
use bigup_core::storage::store::{self, StoredDigest};
use bigupd::admission::access::Access;
use bigupd::config::Config;
use bigupd::metrics::UploadProtocol;
use bigupd::net::peer::Peer;
use bigupd::refusal::Advice;
use bigupd::uploads::request::BeginRequest;
use bigupd::uploads::settings::{Settings, SliceAck};
use bigupd::uploads::{Admission, NameState, SliceRequest, SliceStored, Uploads};
use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::Duration;

fn uploads(folder: &tempfile::TempDir) -> Uploads {
    uploads_with(folder, |settings| settings.takeover_after = Duration::ZERO)
}

fn uploads_with(folder: &tempfile::TempDir, change: impl FnOnce(&mut Settings)) -> Uploads {
    let data = DataDir::create(folder.path()).unwrap();
    let mut defaults = Config::defaults(folder.path().to_owned());
    change(&mut defaults.uploads);
    Uploads::new(data, defaults.uploads, &defaults.hooks)
}

fn ask(source: Option<&str>, file_size: u64) -> BeginRequest {
    let plan = Plan::new(None, Some(1024), Some(file_size)).unwrap();
    let name = FileName::new("f").unwrap();
    BeginRequest {
        discard: false,
        by: Access::Everything,
        id: UploadId::of_name(&name),
        name,
        plan,
        source: source.map(str::to_owned),
        file_digest: None,
        replace: false,
        peer: None,
        certificate: None,
        recut: false,
        by_size: false,
        kept: Kept::default(),
        metadata: None,
        sha256: None,
        protocol: UploadProtocol::Native,
        awaits_end: false,
        concat: None,
    }
}

#[test]
fn a_client_that_left_keeps_nobody_waiting_until_it_is_back() {
    let folder = tempfile::tempdir().unwrap();
    let uploads = patient(&folder);
    let (first, second) = (ask(Some("first"), 5000), ask(Some("second"), 5000));
    uploads.begin(&first).unwrap();
    assert!(uploads.begin(&second).is_err(), "the first is at work");
    // Another one's word does not count.
    uploads.leave(&first.id, Some("second")).unwrap();
    uploads.leave(&first.id, None).unwrap();
    assert!(uploads.begin(&second).is_err());
    uploads.leave(&first.id, Some("first")).unwrap();
    uploads.begin(&first).unwrap();
    assert!(uploads.begin(&second).is_err(), "the first is back");
    uploads.leave(&first.id, Some("first")).unwrap();
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
    assert!(matches!(uploads.begin(&first), Ok(NameState::Unfinished(_))));
    let spool = Spool::of(&uploads.data, &UploadId::of_name(&first.name));
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

    let stored_digest = StoredDigest { digest: of_bytes(&content), source: first.source.clone(), sha256: None };
    store::stamp(&fs::File::open(&finished).unwrap(), &finished, &stored_digest, None).unwrap();
    if let Some(old_name) = old_name {
        fs::hard_link(&finished, spool.path().join(old_name)).unwrap();
    }

    let replace = BeginRequest { replace: true, file_digest: Some(stored_digest.digest), ..ask(Some("second"), 100) };
    let second = uploads.begin(&replace).unwrap();
    assert!(matches!(second, NameState::Finished { file_size: 100, same_source: false, .. }), "{second:?}");
    assert!(spool.upload().unwrap().is_none());
    assert_eq!(fs::read(&finished).unwrap(), content);
}

#[test]
fn an_empty_file_is_finished_as_it_is_begun_and_again_when_it_replaces_itself() {
    let folder = tempfile::tempdir().unwrap();
    let uploads = uploads(&folder);
    for replace in [false, true, true] {
        let begun = uploads.begin(&BeginRequest { replace, ..ask(None, 0) }).unwrap();
        let digest = of_bytes(b"");
        assert_eq!(begun, NameState::Finished { file_size: 0, digest: Some(digest), same_source: false });
    }
    let wrong = BeginRequest { file_digest: Some(of_bytes(b"x")), replace: true, ..ask(Some("s"), 0) };
    assert_eq!(uploads.begin(&wrong).unwrap_err().code, ErrorCode::Conflict);
}

#[test]
fn a_refused_promise_is_made_good_by_another_comparison() {
    let folder = tempfile::tempdir().unwrap();
    let uploads = uploads(&folder);
    let asked = ask(Some("s"), 3000);
    uploads.begin(&asked).unwrap();
    let mut locked = Spool::of(&uploads.data, &UploadId::of_name(&asked.name)).lock().unwrap().unwrap();
    let blocked =
        UploadRecord { content: HeldContent::ToCompare, blocked: Some("wrong".to_owned()), ..locked.upload().clone() };
    locked.save(blocked).unwrap();
    drop(locked);
    let NameState::Unfinished(unfinished) = uploads.begin(&asked).unwrap() else { panic!("nothing is finished") };
    assert!(unfinished.upload.needs_comparison() && unfinished.upload.blocked.is_none());
}

#[test]
fn a_source_that_tells_only_the_number_of_slices_may_take_over() {
    let folder = tempfile::tempdir().unwrap();
    let uploads = uploads(&folder);
    uploads.begin(&ask(Some("first"), 3000)).unwrap();
    let by_number = BeginRequest { plan: Plan::new(Some(7), None, None).unwrap(), ..ask(Some("second"), 1) };
    let NameState::Unfinished(unfinished) = uploads.begin(&by_number).unwrap() else { panic!("nothing is finished") };
    assert_eq!(unfinished.upload.plan.slice_num, Some(7));
}

#[test]
fn a_list_of_uploads_that_takes_more_than_an_answer_may_is_refused_as_it_grows() {
    let folder = tempfile::tempdir().unwrap();
    let uploads = uploads_with(&folder, |settings| settings.response_size = 3000);
    let begin = |n: usize| {
        let name = FileName::new(&format!("{n}{}", "\"".repeat(200))).unwrap();
        uploads.begin(&BeginRequest { id: UploadId::of_name(&name), name, ..ask(None, 3000) }).unwrap();
    };
    (0..4).for_each(begin);
    let (list, size) = uploads.list(|_| true).unwrap();
    assert!(serde_json::to_string(&list).unwrap().len() as u64 <= size && size <= 3000, "{size}");
    begin(4);
    let refusal = uploads.list(|_| true).unwrap_err();
    assert_eq!(refusal.code, ErrorCode::TooLarge);
    assert!(refusal.facts.contains("3000 bytes"), "{}", refusal.facts);
}

#[test]
fn where_slices_are_synced_one_that_did_not_survive_another_boot_is_not_answered_as_held() {
    let folder = tempfile::tempdir().unwrap();
    let mut uploads = uploads(&folder);
    let slice = |content: &[u8]| {
        let mut hasher = SliceHasher::new(DigestKind::ChainingValue, 1024);
        hasher.update(content);
        let (name, digest) = (FileName::new("f").unwrap(), Some(hasher.finish()));
        SliceRequest {
            by: Access::Anonymous,
            peer: None,
            id: UploadId::of_name(&name),
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
        Admission::Held(_) => Ok(SliceStored::Held),
        Admission::Take { target, .. } => {
            target.file().unwrap().write_all(&[7; 1024]).unwrap();
            uploads.commit(&asked, target, asked.digest.as_slice())
        }
    };
    assert_eq!(send(&uploads).unwrap(), SliceStored::Waits);
    let spool = Spool::of(&uploads.data, &UploadId::of_name(&asked.name));
    fs::write(spool.slice_path(1), [0; 1024]).unwrap();
    let locked = spool.lock().unwrap().unwrap();
    let record = locked.records().get(1).unwrap().unwrap();
    locked.records().put(1, &Record { boot: BootId([9; 8]), ..record }).unwrap();
    drop(locked);
    assert_eq!(send(&uploads).unwrap(), SliceStored::Held, "a merger looks at it before it is used");
    uploads.settings = Arc::new(Settings { slice_ack: SliceAck::Synced, ..(*uploads.settings).clone() });
    assert_eq!(send(&uploads).unwrap_err().code, ErrorCode::Damaged);
    assert_eq!(send(&uploads).unwrap(), SliceStored::Waits);
    assert_eq!(send(&uploads).unwrap(), SliceStored::Held);
    assert_eq!(fs::read(spool.slice_path(1)).unwrap(), [7; 1024]);
}

#[test]
fn an_upload_of_another_version_is_left_alone_by_whatever_is_asked() {
    let folder = tempfile::tempdir().unwrap();
    let uploads = uploads(&folder);
    let asked = ask(Some("s"), 3000);
    uploads.begin(&asked).unwrap();
    let spool = Spool::of(&uploads.data, &UploadId::of_name(&asked.name));
    fs::write(spool.slice_path(1), [7; 1024]).unwrap();
    fs::write(spool.path().join("1.left.part"), "what only its own program knows").unwrap();
    let json = spool.path().join("upload.json");
    let right = fs::read_to_string(&json).unwrap();
    fs::write(&json, right.replace("\"version\": 1", "\"version\": 2")).unwrap();
    for who in ["s", "other"] {
        let refused = uploads.begin(&ask(Some(who), 3000)).unwrap_err();
        assert_eq!(refused.code, ErrorCode::Conflict);
        assert!(refused.facts.contains("version 2") && refused.facts.contains("version 1"), "{}", refused.facts);
    }
    assert!(uploads.peek(&asked.id, &asked.name, None).unwrap_err().facts.contains("version 2"));
    assert!(uploads.digests(&asked.id, &asked.name, 0, 9).unwrap_err().facts.contains("version 2"));
    bigupd::upkeep::sweep::clean(&uploads.data, Duration::ZERO).unwrap();
    let times = bigupd::upkeep::expiry::ExpiryTimes { any: Some(Duration::ZERO), begun: Some(Duration::ZERO) };
    bigupd::upkeep::expiry::expire(&uploads.data, times, &uploads.metrics).unwrap();
    assert!(spool.path().join("1.left.part").exists());
    fs::write(&json, right).unwrap();
    let NameState::Unfinished(unfinished) = uploads.begin(&asked).unwrap() else { panic!("nothing is finished") };
    assert_eq!(unfinished.holdings.waiting, [1]);
}

#[test]
fn an_upload_that_cannot_be_read_is_kept_aside_by_who_begins_and_by_nobody_else() {
    let folder = tempfile::tempdir().unwrap();
    let uploads = uploads(&folder);
    let asked = ask(Some("s"), 3000);
    uploads.begin(&asked).unwrap();
    let spool = Spool::of(&uploads.data, &UploadId::of_name(&asked.name));
    fs::write(spool.slice_path(1), [7; 1024]).unwrap();
    fs::write(spool.path().join("upload.json"), "garbage").unwrap();
    assert!(uploads.peek(&asked.id, &asked.name, None).unwrap_err().facts.contains("damaged/"));
    assert_eq!(uploads.digests(&asked.id, &asked.name, 0, 9).unwrap_err().code, ErrorCode::NoUpload);
    assert!(spool.slice_path(1).exists());
    let NameState::Unfinished(unfinished) = uploads.begin(&asked).unwrap() else { panic!("nothing is finished") };
    assert_eq!(unfinished.holdings.waiting, [0; 0]);
    let damaged = fs::read_dir(folder.path().join("damaged")).unwrap().next().unwrap().unwrap().path();
    assert_eq!(fs::read(damaged.join("tmp/f/1")).unwrap(), [7; 1024]);
    assert_eq!(fs::read(damaged.join("tmp/f/upload.json")).unwrap(), b"garbage");
}

/// The uploads of a folder in which nobody takes over what was heard of in the last hour.
fn patient(folder: &tempfile::TempDir) -> Uploads {
    uploads_with(folder, |settings| settings.takeover_after = Duration::from_secs(3600))
}

/// Makes all that there is of an upload look as if nobody had been heard of for a day.
fn fall_silent(spool: &Spool) {
    let day_ago = std::time::SystemTime::now() - Duration::from_secs(86_400);
    let entries = fs::read_dir(spool.path()).unwrap().map(|entry| entry.unwrap().path());
    for path in entries.chain([spool.path().to_owned()]) {
        fs::File::open(path).unwrap().set_modified(day_ago).unwrap();
    }
}

/// Sends these slices of 1024 bytes, or what is left of the file, from this source.
fn send(uploads: &Uploads, source: Option<&str>, ids: impl IntoIterator<Item = u64>, content: &[u8]) {
    for slice_id in ids {
        let part = content.chunks(1024).nth(slice_id as usize).unwrap();
        let asked = slice_of(source, slice_id, part.len());
        let Admission::Take { target, kinds, offset } = uploads.admit(&asked).unwrap() else { continue };
        target.file().unwrap().write_all(part).unwrap();
        let digests = kinds.iter().map(|kind| {
            let mut hasher = SliceHasher::new(*kind, offset);
            hasher.update(part);
            hasher.finish()
        });
        uploads.commit(&asked, target, &digests.collect::<Vec<_>>()).unwrap();
    }
}

fn slice_of(source: Option<&str>, slice_id: u64, len: usize) -> SliceRequest {
    SliceRequest {
        by: Access::Everything,
        peer: None,
        id: UploadId::of_name(&FileName::new("f").unwrap()),
        name: FileName::new("f").unwrap(),
        slice_id,
        len: len as u64,
        digest: None,
        offset: None,
        source: source.map(str::to_owned),
        begin: None,
    }
}

fn code(uploads: &Uploads, ask: &BeginRequest) -> Option<ErrorCode> {
    uploads.begin(ask).err().map(|refusal| refusal.code)
}

#[test]
fn whatever_is_heard_of_the_owner_keeps_an_upload_from_being_taken_over() {
    let folder = tempfile::tempdir().unwrap();
    let uploads = patient(&folder);
    let (owner, other) = (ask(Some("owner"), 3000), ask(Some("other"), 2500));
    uploads.begin(&owner).unwrap();
    send(&uploads, Some("owner"), [1], &[7; 3000]);
    let spool = Spool::of(&uploads.data, &UploadId::of_name(&owner.name));
    let held = SliceRequest {
        digest: spool.lock().unwrap().unwrap().records().get(1).unwrap().map(|r| r.digest),
        ..slice_of(Some("owner"), 1, 1024)
    };
    let arriving = std::cell::RefCell::new(vec![]);
    let signs: [(&str, &dyn Fn()); 4] = [
        ("begins", &|| drop(uploads.begin(&owner).unwrap())),
        ("looks, naming its source", &|| drop(uploads.peek(&owner.id, &owner.name, Some("owner")).unwrap())),
        ("sends what is held", &|| assert!(matches!(uploads.admit(&held), Ok(Admission::Held(_))))),
        ("sends a slice of which no byte came", &|| {
            let Ok(Admission::Take { target, .. }) = uploads.admit(&slice_of(Some("owner"), 0, 1024)) else { panic!() };
            arriving.borrow_mut().push(target);
        }),
    ];
    for (how, sign) in signs {
        fall_silent(&spool);
        sign();
        assert_eq!(code(&uploads, &other), Some(ErrorCode::Busy), "the owner {how}");
        fall_silent(&spool);
        // Neither of these is heard of the owner.
        uploads.peek(&owner.id, &owner.name, None).unwrap();
        uploads.peek(&owner.id, &owner.name, Some("other")).unwrap();
        assert!(spool.silent().unwrap() > Duration::from_secs(3600), "{how}");
    }
    assert_eq!(code(&uploads, &other), None, "and is silent");
    assert_eq!(uploads.begin(&owner).unwrap_err().code, ErrorCode::Busy, "now it is the other's");
}

#[test]
fn an_upload_that_only_waits_for_its_end_is_not_taken_over_unless_merging_fails() {
    let folder = tempfile::tempdir().unwrap();
    let uploads = uploads(&folder);
    let owner = ask(Some("owner"), 3000);
    uploads.begin(&owner).unwrap();
    send(&uploads, Some("owner"), 0..3, &[7; 3000]);
    let spool = Spool::of(&uploads.data, &UploadId::of_name(&owner.name));
    let other = ask(Some("other"), 2500);
    fall_silent(&spool);
    let refusal = uploads.begin(&other).unwrap_err();
    assert!(refusal.code == ErrorCode::Busy && refusal.facts.contains("being finished"), "{}", refusal.facts);
    let mut locked = spool.lock().unwrap().unwrap();
    let failing = UploadRecord { last_error: Some("the disk is broken".to_owned()), ..locked.upload().clone() };
    locked.save(failing).unwrap();
    drop(locked);
    let merger = spool.try_merger_lock().unwrap();
    assert_eq!(code(&uploads, &other), Some(ErrorCode::Busy), "one more merger tries it");
    drop(merger);
    assert_eq!(code(&uploads, &other), None);
}

#[test]
fn a_block_is_lifted_with_what_was_in_the_way() {
    let folder = tempfile::tempdir().unwrap();
    let uploads = uploads(&folder);
    let name = FileName::new("c/d").unwrap();
    let asked = BeginRequest { id: UploadId::of_name(&name), name, ..ask(Some("s"), 3000) };
    let in_the_way = uploads.data.files().join("c");
    uploads.begin(&asked).unwrap();
    let spool = Spool::of(&uploads.data, &UploadId::of_name(&asked.name));
    let block = || {
        let mut locked = spool.lock().unwrap().unwrap();
        let blocked = UploadRecord { blocked: Some("something was in the way".to_owned()), ..locked.upload().clone() };
        locked.save(blocked).unwrap();
    };
    block();
    fs::write(&in_the_way, "a file where a folder is to be").unwrap();
    let refusal = uploads.begin(&asked).unwrap_err();
    assert!(refusal.code == ErrorCode::Conflict && refusal.advice == Some(Advice::MoveAway), "{}", refusal.facts);
    fs::remove_file(&in_the_way).unwrap();
    assert_eq!(code(&uploads, &asked), None, "it was moved away");
    block();
    fs::create_dir(&in_the_way).unwrap();
    fs::write(in_the_way.join("d"), "another file").unwrap();
    let refusal = uploads.begin(&asked).unwrap_err();
    assert!(refusal.code == ErrorCode::Exists && refusal.advice == Some(Advice::Replace), "{}", refusal.facts);
    assert!(!refusal.facts.contains(folder.path().to_str().unwrap()), "{}", refusal.facts);
    assert_eq!(code(&uploads, &BeginRequest { replace: true, ..asked }), None, "it is to be replaced");
}

#[test]
fn a_cut_by_which_a_file_could_never_be_pushed_gives_way() {
    for (most, old, left, new) in [
        // (max_slices, slice size and bytes of what was left, and of what is pushed)
        (1_000_000, 1, 10, (8 << 20, 3 << 20)),
        (1_000_000, 1024, 10_240, (8 << 20, 2 << 30)),
        (100, 1024, 10_240, (1 << 20, 50 << 20)),
        // Few bytes are not worth many requests.
        (1_000_000, 1, 10, (900_000, 900_000)),
    ] {
        for (from, says_size) in [("other", true), ("owner", false)] {
            let folder = tempfile::tempdir().unwrap();
            let mut uploads = uploads(&folder);
            let plan = Plan::new(None, Some(old), says_size.then_some(left)).unwrap();
            let owner = BeginRequest { plan, ..ask(Some("owner"), 0) };
            uploads.begin(&owner).unwrap();
            let spool = Spool::of(&uploads.data, &UploadId::of_name(&owner.name));
            fs::write(spool.slice_path(0), vec![1; old as usize]).unwrap();
            uploads.settings = Arc::new(Settings { slices: most, ..(*uploads.settings).clone() });
            let wanted = Plan::new(None, Some(new.0), Some(new.1)).unwrap();
            let asked = BeginRequest { plan: wanted.clone(), ..ask(Some(from), 0) };
            let begun = uploads.begin(&asked);
            if from == "owner" && new.1 == 900_000 {
                let Ok(NameState::Unfinished(kept)) = begun else { panic!("{begun:?}") };
                assert_eq!(kept.upload.plan.slice_size, Some(1), "its own slices stay");
                continue;
            }
            let Ok(NameState::Unfinished(begun)) = begun else { panic!("{most} {old} {from}: {begun:?}") };
            assert_eq!(
                (begun.upload.plan.clone(), begun.holdings.ranges().count()),
                (wanted, 0),
                "{most} {old} {from}"
            );
            assert!(!begun.upload.is_taken_over());
        }
    }
}

#[test]
fn of_an_upload_that_holds_nothing_the_cut_is_that_of_who_takes_it_over() {
    let folder = tempfile::tempdir().unwrap();
    let uploads = uploads(&folder);
    uploads
        .begin(&BeginRequest { plan: Plan::new(None, Some(10), Some(3000)).unwrap(), ..ask(Some("one"), 0) })
        .unwrap();
    let NameState::Unfinished(begun) = uploads.begin(&ask(Some("two"), 3000)).unwrap() else {
        panic!("it is not finished")
    };
    assert_eq!(begun.upload.plan.slice_size, Some(1024));
}

#[test]
fn clients_that_name_no_source_are_told_apart_by_their_addresses_while_the_first_is_heard_of() {
    let folder = tempfile::tempdir().unwrap();
    let uploads = patient(&folder);
    let from = |address: &str| BeginRequest { peer: Some(address.parse().unwrap()), ..ask(None, 3000) };
    let slice_from = |address: &str| SliceRequest {
        peer: Some(Peer::Tcp(format!("{address}:9").parse().unwrap())),
        ..slice_of(None, 0, 1024)
    };
    let takes = |address| matches!(uploads.admit(&slice_from(address)), Ok(Admission::Take { .. }));
    let (one, two) = ("10.0.0.1", "10.0.0.2");
    uploads.begin(&from(one)).unwrap();
    assert_eq!((code(&uploads, &from(two)), code(&uploads, &from(one))), (Some(ErrorCode::Busy), None));
    let Ok(Admission::Take { target, kinds, offset }) = uploads.admit(&slice_from(one)) else {
        panic!("it is its own")
    };
    assert!(takes(one) && !takes(two));
    fall_silent(&Spool::of(&uploads.data, &UploadId::of_name(&from(one).name)));
    assert!(!takes(two), "it is to ask first");
    assert_eq!(code(&uploads, &from(two)), None);
    assert!(takes(two) && !takes(one));
    // What was let in before must not come between those of the other one.
    target.file().unwrap().write_all(&[7; 1024]).unwrap();
    let mut hasher = SliceHasher::new(kinds[0], offset);
    hasher.update(&[7; 1024]);
    let late = uploads.commit(&slice_from(one), target, &[hasher.finish()]);
    assert_eq!(late.unwrap_err().code, ErrorCode::Conflict);
}
