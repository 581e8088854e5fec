//! Periodic removal of files that dead processes left, and of abandoned uploads.

use crate::admission::tokens::uses::USES;
use crate::metrics::{Failure, Metrics};
use crate::upkeep::expiry::{ExpiryTimes, LOOKED, expire};
use bigup_core::storage::audit::AuditLine;
use bigup_core::storage::data_dir::DataDir;
use bigup_core::storage::disk::{HOLE_TRIAL, IoContext};
use bigup_core::storage::finish::cancel;
use bigup_core::storage::spool::{CANCELLED, DONE_TOLD_FOR, FINISHED, GONE, MAKING, Spool, TOLD_FOR, remove_if_left};
use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Time between two rounds.
const ROUND: Duration = Duration::from_secs(2);

/// Number of rounds between two searches for leftovers.
const CLEAN_EVERY: u32 = 30;

/// Number of rounds between two searches for leftovers in a store of objects: half a day, and a multiple of
/// [`CLEAN_EVERY`].
const SWEEP_STORE_EVERY: u32 = 21_600;

const _: () = assert!(SWEEP_STORE_EVERY.is_multiple_of(CLEAN_EVERY));

/// Least age of leftovers in a store of objects, where uploads never expire.
const STORE_LEFTOVER_AGE: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Least age of leftovers that are removed, if no process has them locked. Another daemon may have just made such a
/// file and be about to lock it. Marks of cancelled uploads count for the same time.
pub const LEFTOVER_AGE: Duration = TOLD_FOR;

/// Sweeps `data` for as long as it is polled; uploads to which nothing comes for these times are removed, and counted.
pub async fn sweep_forever(data: DataDir, times: ExpiryTimes, metrics: Metrics) {
    for round in 0_u32.. {
        if round.is_multiple_of(CLEAN_EVERY) || expires_in(round, times) {
            let (data, metrics) = (data.clone(), metrics.clone());
            let work = move || sweep(&data, times, &metrics, round);
            if let Err(e) = tokio::task::spawn_blocking(work).await {
                log::error!("cannot sweep the data folder: {e}");
            }
        }
        tokio::time::sleep(ROUND).await;
    }
}

/// True if this is a round in which abandoned uploads are looked for.
fn expires_in(round: u32, times: ExpiryTimes) -> bool {
    times.least().is_some_and(|least| round.is_multiple_of(expire_every(least)))
}

/// A step that fails must not keep the others from being taken.
fn sweep(data: &DataDir, times: ExpiryTimes, metrics: &Metrics, round: u32) {
    let taken = |step: io::Result<()>| {
        if let Err(e) = step {
            log::error!("cannot sweep the data folder: {e}");
        }
    };
    if round.is_multiple_of(CLEAN_EVERY) {
        let count = |marks: u64| (0..marks).for_each(|_| metrics.upload_failed(Failure::Cancelled));
        taken(clean(data, LEFTOVER_AGE).map(count));
    }
    if round.is_multiple_of(SWEEP_STORE_EVERY) {
        taken(sweep_store(data, times));
    }
    if expires_in(round, times) {
        taken(expire(data, times, metrics));
    }
}

/// Removes from the store of objects, if there is one, what lost data folders and lost answers left.
fn sweep_store(data: &DataDir, times: ExpiryTimes) -> io::Result<()> {
    let Some(objects) = data.objects() else { return Ok(()) };
    let spools: Vec<PathBuf> = Spool::all(data)?.iter().map(|spool| spool.path().to_owned()).collect();
    match objects.sweep(times.any.unwrap_or(STORE_LEFTOVER_AGE), &spools)? {
        0 => {}
        removed => log::info!("removed {removed} notes of uploads that nobody goes on with from the store"),
    }
    Ok(())
}

/// Rounds between two checks for expired uploads: few if the time is short.
fn expire_every(after: Duration) -> u32 {
    (after.as_secs() / 60).clamp(1, u64::from(CLEAN_EVERY)) as u32
}

/// Removes leftovers of killed processes: spools half made or half removed, arrivals, temporary files. Also removes
/// marks of cancelled uploads. Returns the number of those marks.
///
/// # Errors
/// A folder cannot be listed. Files that cannot be removed are reported and left.
pub fn clean(data: &DataDir, age: Duration) -> io::Result<u64> {
    let mut marks = 0;
    for spool in Spool::all(data)? {
        if let Err(e) = spool.sweep(age) {
            log::warn!("{e}");
        }
    }
    let replaced = vec![".info.ini".to_owned(), ".tokens.json".to_owned(), format!(".{LOOKED}"), format!(".{USES}")];
    let mut moving = [MAKING, GONE, CANCELLED, FINISHED, HOLE_TRIAL].map(str::to_owned).to_vec();
    moving.push(format!(".{FINISHED}"));
    let mut places = vec![(data.tmp(), moving), (data.root().to_owned(), replaced)];
    if data.completed().exists() {
        places.push((data.completed(), vec![GONE.to_owned()]));
    }
    for (folder, prefixes) in places {
        for entry in std::fs::read_dir(&folder).at("listing", &folder)? {
            let path = entry.at("listing", &folder)?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if !prefixes.iter().any(|prefix| name.starts_with(prefix.as_str())) {
                continue;
            }
            // Marks are left on purpose, and go when they count no more.
            let is_done = name.starts_with(FINISHED);
            let is_cancelled = name.starts_with(CANCELLED);
            // The line is this daemon's, since the command that cancels logs nowhere. It comes first: a kill in between leaves
            // the mark, and the next sweep writes the line again.
            let tell = || {
                if is_cancelled {
                    cancel::cancelled_upload(&path).iter().for_each(AuditLine::log);
                }
            };
            match remove_if_left(&path, if is_done { age.max(DONE_TOLD_FOR) } else { age }, tell) {
                Ok(true) if is_cancelled => marks += 1,
                Ok(removed) if is_done || !removed => {}
                Ok(_) => log::info!("removed {}, left by a process that died", path.display()),
                Err(e) => log::warn!("{e}"),
            }
        }
    }
    Ok(marks)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bigup_core::protocol::name::FileName;
    use bigup_core::protocol::plan::Plan;
    use bigup_core::storage::disk::FileLock;
    use bigup_core::storage::space::DiskSpace;
    use bigup_core::storage::spool::{UploadId, UploadRecord};
    use std::fs;

    #[test]
    fn leftovers_go_and_links_are_not_followed() {
        let (dir, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let data = DataDir::create(dir.path()).unwrap();
        fs::write(outside.path().join("keep"), "x").unwrap();
        fs::create_dir(data.tmp().join(".gone-1")).unwrap();
        std::os::unix::fs::symlink(outside.path(), data.tmp().join(".gone-1/link")).unwrap();
        std::os::unix::fs::symlink(outside.path(), data.tmp().join(".new-2")).unwrap();
        for mark in ["0", "1"] {
            fs::write(data.tmp().join(format!("{CANCELLED}{mark}")), "x").unwrap();
        }
        for file in [".info.ini.3.tmp", ".tokens.json.3.tmp", "tokens.json"] {
            fs::write(dir.path().join(file), "x").unwrap();
        }
        fs::write(data.tmp().join(format!("{HOLE_TRIAL}4.tmp")), "").unwrap();
        assert_eq!(clean(&data, Duration::from_secs(60)).unwrap(), 0);
        assert_eq!(fs::read_dir(data.tmp()).unwrap().count(), 5, "too young to go");
        std::thread::sleep(Duration::from_millis(5));
        assert_eq!(clean(&data, Duration::ZERO).unwrap(), 2, "marks");
        assert_eq!(fs::read_dir(data.tmp()).unwrap().count(), 0);
        assert!(!dir.path().join(".info.ini.3.tmp").exists() && !dir.path().join(".tokens.json.3.tmp").exists());
        assert!(dir.path().join("tokens.json").exists());
        assert!(outside.path().join("keep").exists());
    }

    #[test]
    fn what_is_being_made_stays_however_long_that_takes() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::create(dir.path()).unwrap();
        let names = ["tmp/.new-1", "tmp/.gone-1", "tmp/.cancelled-1", ".info.ini.1.tmp"];
        let locks: Vec<FileLock> = names.iter().map(|name| FileLock::wait(&dir.path().join(name)).unwrap()).collect();
        std::thread::sleep(Duration::from_millis(5));
        assert_eq!(clean(&data, Duration::ZERO).unwrap(), 0);
        assert!(names.iter().all(|name| dir.path().join(name).exists()));
        drop(locks);
        assert_eq!(clean(&data, Duration::ZERO).unwrap(), 1);
        assert!(!names.iter().any(|name| dir.path().join(name).exists()));
    }

    #[test]
    fn an_upload_that_waits_for_its_disk_space_is_not_swept() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::create(dir.path()).unwrap();
        let plan = Plan::new(None, Some(1024), Some(4096)).unwrap();
        let upload = UploadRecord::begin(FileName::new("f").unwrap(), plan, None);
        // As forty begins do that come before this one.
        let others = FileLock::of_folder(&data.tmp()).unwrap();
        std::thread::scope(|threads| {
            let begun = threads.spawn(|| {
                Spool::create(&data, &UploadId::of_name(&upload.file_name), &upload, &DiskSpace::new(&data, 0))
            });
            let is_made = || {
                let mut names = fs::read_dir(data.tmp()).unwrap().map(|entry| entry.unwrap().path());
                names.any(|path| path.join("merged").exists())
            };
            let began = std::time::Instant::now();
            while !is_made() {
                assert!(began.elapsed() < Duration::from_secs(60), "nothing is made");
                std::thread::sleep(Duration::from_millis(5));
            }
            std::thread::sleep(Duration::from_millis(5));
            clean(&data, Duration::ZERO).unwrap();
            drop(others);
            assert!(begun.join().unwrap().unwrap(), "it is begun");
        });
        assert!(Spool::of(&data, &UploadId::of_name(&upload.file_name)).upload().unwrap().is_some());
    }
}
