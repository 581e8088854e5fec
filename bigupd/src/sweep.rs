//! What is removed from time to time: what processes that died left, and abandoned uploads.

use crate::expiry::{LOOKED, expire};
use crate::metrics::{Failure, Metrics};
use bigup_core::data_dir::DataDir;
use bigup_core::disk::{Context, remove_folder};
use bigup_core::spool::{CANCELLED, DONE_TOLD_FOR, FINISHED, GONE, MAKING, Spool, TOLD_FOR, is_older};
use std::io;
use std::time::Duration;

/// How often it may be time for something.
const ROUND: Duration = Duration::from_secs(2);

/// How often leftovers are looked for, in rounds.
const CLEAN_EVERY: u32 = 30;

/// Leftovers are touched only when they are older: another daemon may be about to use what looks like one, and marks of
/// cancelled uploads count for as long.
pub const LEFTOVER_AGE: Duration = TOLD_FOR;

/// Sweeps `data` for as long as it is polled; uploads to which nothing comes for `expire_after` are removed, and counted.
pub async fn sweep_forever(data: DataDir, expire_after: Option<Duration>, metrics: Metrics) {
    for round in 0_u32.. {
        let (data, metrics) = (data.clone(), metrics.clone());
        let work = move || sweep(&data, expire_after, &metrics, round);
        if let Err(e) = tokio::task::spawn_blocking(work).await {
            log::error!("sweeping the data folder: {e}");
        }
        tokio::time::sleep(ROUND).await;
    }
}

/// One step that fails must not keep the others from being taken.
fn sweep(data: &DataDir, expire_after: Option<Duration>, metrics: &Metrics, round: u32) {
    let taken = |step: io::Result<()>| {
        if let Err(e) = step {
            log::error!("sweeping the data folder: {e}");
        }
    };
    if round.is_multiple_of(CLEAN_EVERY) {
        let count = |marks: u64| (0..marks).for_each(|_| metrics.upload_failed(Failure::Cancelled));
        taken(clean(data, LEFTOVER_AGE).map(count));
    }
    if let Some(after) = expire_after.filter(|after| round.is_multiple_of(expire_every(*after))) {
        taken(expire(data, after, metrics));
    }
}

/// Rounds between two looks at what expires: few where that is soon.
fn expire_every(after: Duration) -> u32 {
    (after.as_secs() / 60).clamp(1, u64::from(CLEAN_EVERY)) as u32
}

/// Removes what killed processes left: spools half made or half removed, arrivals, temporary files. Also marks of cancelled
/// uploads, of which there were as many as it says.
///
/// # Errors
/// A folder cannot be listed. What cannot be removed is reported and left.
pub fn clean(data: &DataDir, age: Duration) -> io::Result<u64> {
    let mut marks = 0;
    for spool in Spool::all(data)? {
        if let Err(e) = spool.sweep(age) {
            log::warn!("{e}");
        }
    }
    let replaced = vec![".info.ini".to_owned(), ".tokens.json".to_owned(), format!(".{LOOKED}")];
    let moving =
        vec![MAKING.to_owned(), GONE.to_owned(), CANCELLED.to_owned(), FINISHED.to_owned(), format!(".{FINISHED}")];
    let mut places = vec![(data.tmp(), moving), (data.root().to_owned(), replaced)];
    if data.completed().exists() {
        places.push((data.completed(), vec![GONE.to_owned()]));
    }
    for (folder, prefixes) in places {
        for entry in std::fs::read_dir(&folder).at("listing", &folder)? {
            let path = entry.at("listing", &folder)?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            // Marks are left on purpose, and go when they count no more.
            let (is_mark, is_done) = (name.starts_with(CANCELLED), name.starts_with(FINISHED));
            let age = if is_done { age.max(DONE_TOLD_FOR) } else { age };
            if prefixes.iter().any(|prefix| name.starts_with(prefix.as_str())) && is_older(&path, age) {
                if !is_mark && !is_done {
                    log::info!("removing {}, left by a process that died", path.display());
                }
                let is_dir = path.symlink_metadata().is_ok_and(|m| m.is_dir());
                let removed =
                    if is_dir { remove_folder(&path) } else { std::fs::remove_file(&path).at("removing", &path) };
                match removed {
                    Ok(()) => marks += u64::from(is_mark),
                    Err(e) => log::warn!("{e}"),
                }
            }
        }
    }
    Ok(marks)
}

#[cfg(test)]
mod tests {
    use super::*;
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
        assert_eq!(clean(&data, Duration::from_secs(60)).unwrap(), 0);
        assert_eq!(fs::read_dir(data.tmp()).unwrap().count(), 4, "too young to go");
        std::thread::sleep(Duration::from_millis(5));
        assert_eq!(clean(&data, Duration::ZERO).unwrap(), 2, "marks");
        assert_eq!(fs::read_dir(data.tmp()).unwrap().count(), 0);
        assert!(!dir.path().join(".info.ini.3.tmp").exists() && !dir.path().join(".tokens.json.3.tmp").exists());
        assert!(dir.path().join("tokens.json").exists());
        assert!(outside.path().join("keep").exists());
    }
}
