//! Count of the bytes and files below a prefix that has a quota.
//!
//! The count covers all that is there: all finished files below a prefix, whichever client pushed them, the folders
//! that hold them, and all unfinished uploads, each with the size that its file will have. So it needs no books that
//! could be wrong, and a file removed by hand counts no more. [`crate::admission::grants`] counts the grants between
//! two counts.
//!
//! Every inode counts as a block at least: a file of one byte, a folder, each slice of an upload. So a quota of bytes
//! bounds inodes, too.

use crate::admission::amount::Amount;
use crate::admission::tokens::Prefix;
use crate::admission::upload_count::UploadList;
use bigup_core::protocol::name::FileName;
use bigup_core::storage::data_dir::DataDir;
use bigup_core::storage::disk::IoContext;
use bigup_core::storage::store::Store;
use std::collections::HashSet;
use std::io;
use std::ops::ControlFlow;
use walkdir::WalkDir;

/// The most bytes and files that can be below a prefix when the quota's owner adds to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Quota {
    /// Where it counts.
    pub prefix: Prefix,
    /// Most bytes. `None`: any number.
    pub bytes: Option<u64>,
    /// Most files and folders. `None`: any number.
    pub files: Option<u64>,
}

impl Quota {
    /// True if so much is within it.
    pub fn allows(&self, amount: Amount) -> bool {
        self.bytes.is_none_or(|most| amount.bytes <= most) && self.files.is_none_or(|most| amount.files <= most)
    }
}

/// Number of the folders leading to `name` that exist; the ones after them are to be made for it.
pub fn folders_there(data: &DataDir, name: &FileName) -> u64 {
    if data.objects().is_some() {
        // Nothing is made for a folder in a store of objects.
        return name.components().count() as u64 - 1;
    }
    let mut path = data.files();
    let folders = name.components().count() - 1;
    let there = name.components().take(folders).take_while(|component| {
        path.push(component);
        // A folder that cannot be looked at counts as there; making it will tell.
        !matches!(path.symlink_metadata(), Err(e) if e.kind() == io::ErrorKind::NotFound)
    });
    there.count() as u64
}

/// The amount below `prefix` of `data`. `listed` tells of the unfinished uploads; that list must not be older than the
/// call. Takes long where there are many files.
///
/// # Errors
/// The data folder cannot be read.
pub fn count(data: &DataDir, prefix: &Prefix, listed: &UploadList) -> io::Result<Amount> {
    // In this order: a file that is finished meanwhile counts twice rather than not at all.
    let unfinished = unfinished(data, prefix, listed);
    Ok(unfinished.plus(finished(data, prefix)?))
}

fn unfinished(data: &DataDir, prefix: &Prefix, listed: &UploadList) -> Amount {
    let mut amount = Amount::default();
    let mut folders = HashSet::new();
    for upload in listed.uploads.iter().filter(|upload| prefix.covers(upload.name.as_str())) {
        amount = amount.plus(Amount::of_file(upload.bytes));
        let name = upload.name.as_str();
        folders.extend(name.match_indices('/').map(|(end, _)| &name[..end]).filter(|folder| prefix.covers(folder)));
    }
    // Those that are not there will be made for them.
    let to_be_made = |folder: &&&str| data.objects().is_none() && !data.files().join(folder).exists();
    amount.plus(Amount::of_folders(folders.iter().filter(to_be_made).count() as u64))
}

fn finished(data: &DataDir, prefix: &Prefix) -> io::Result<Amount> {
    if data.objects().is_some() {
        let mut amount = Amount::default();
        Store::new(data).list(prefix.as_str(), "", |file| {
            amount = amount.plus(Amount::of_file(file.size));
            ControlFlow::Continue(())
        })?;
        return Ok(amount);
    }
    // Without the slash at the end, which would follow a link.
    let folder = data.files().join(prefix.as_str().trim_end_matches('/'));
    let mut amount = Amount::default();
    for entry in WalkDir::new(&folder).follow_root_links(false).min_depth(1) {
        match entry.and_then(|entry| entry.metadata()) {
            Ok(found) if found.is_file() => amount = amount.plus(Amount::of_file(found.len())),
            Ok(_) => amount = amount.plus(Amount::of_folders(1)),
            Err(e) if is_gone(&e) => {}
            Err(e) => return Err(e).at("counting what is in", &folder),
        }
    }
    Ok(amount)
}

/// It was removed meanwhile, or there is no such folder.
fn is_gone(error: &walkdir::Error) -> bool {
    let kind = error.io_error().map(io::Error::kind);
    matches!(kind, Some(io::ErrorKind::NotFound | io::ErrorKind::NotADirectory))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::amount::{BLOCK, bytes_of};
    use crate::admission::upload_count::UploadCount;
    use bigup_core::protocol::plan::Plan;
    use bigup_core::storage::space::DiskSpace;
    use bigup_core::storage::spool::Holdings;
    use bigup_core::storage::spool::{Spool, UploadId, UploadRecord};
    use std::fs;

    fn data() -> (tempfile::TempDir, DataDir) {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::create(dir.path()).unwrap();
        for (name, len) in [("a/x", 10_000), ("a/b/y", 20), ("ab", 3), ("c", 400_000)] {
            let path = data.files().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, vec![0; len]).unwrap();
        }
        (dir, data)
    }

    fn begin(data: &DataDir, name: &str, plan: Plan) {
        let upload = UploadRecord::begin(FileName::new(name).unwrap(), plan, None);
        assert!(Spool::create(data, &UploadId::of_name(&upload.file_name), &upload, &DiskSpace::new(data, 0)).unwrap());
    }

    fn found(data: &DataDir, prefix: &str) -> (u64, u64) {
        let prefix = Prefix::try_from(prefix.to_owned()).unwrap();
        let amount = count(data, &prefix, &UploadCount::default().look(data).unwrap()).unwrap();
        (amount.bytes, amount.files)
    }

    #[test]
    fn files_folders_and_uploads_below_the_prefix_count_a_block_each_at_least() {
        let (_dir, data) = data();
        // x, and b and y in it.
        let in_a = 10_000 + 2 * BLOCK;
        assert_eq!(found(&data, "a/"), (in_a, 3));
        assert_eq!(found(&data, ""), (in_a + BLOCK + BLOCK + 400_000, 6));
        for nothing in ["nothing/", "ab/x/"] {
            assert_eq!(found(&data, nothing), (0, 0));
        }
        begin(&data, "a/z", Plan::new(None, Some(10_000), Some(100_000)).unwrap());
        begin(&data, "abc", Plan::new(None, Some(10_000), Some(70_000)).unwrap());
        begin(&data, "a/open", Plan::new(None, Some(5000), None).unwrap());
        assert_eq!(found(&data, "a/"), (in_a + 100_000 + BLOCK, 5));
        let open = data.tmp().join("a%2Fopen");
        fs::write(open.join("0"), [0; 5000]).unwrap();
        fs::write(open.join("5"), [0; 5000]).unwrap();
        assert_eq!(found(&data, "a/"), (in_a + 100_000 + 10_000, 5));
    }

    #[test]
    fn folders_that_an_upload_will_need_count_once() {
        let (_dir, data) = data();
        let plan = Plan::new(None, Some(10_000), Some(20_000)).unwrap();
        let (bytes, files) = found(&data, "a/");
        for name in ["a/b/new/er/1", "a/b/new/er/2", "a/b/new/3"] {
            begin(&data, name, plan.clone());
        }
        assert_eq!(found(&data, "a/"), (bytes + 60_000 + 2 * BLOCK, files + 5));
        for (name, there) in [("a/b/new/er/1", 2), ("x", 0), ("a/y", 1), ("n/o/n/e", 0)] {
            assert_eq!(folders_there(&data, &FileName::new(name).unwrap()), there, "{name}");
        }
    }

    #[test]
    fn slices_count_a_block_each_however_small_they_are() {
        let none = Holdings { frontier: 0, waiting: vec![] };
        let bytes = |slice, size| bytes_of(&Plan::new(None, Some(slice), Some(size)).unwrap(), &none);
        assert_eq!((bytes(1, 1000), bytes(1 << 20, 10 << 20), bytes(10, 0)), (1000 * BLOCK, 10 << 20, BLOCK));
        let open = Plan::new(None, Some(1), None).unwrap();
        assert_eq!(bytes_of(&open, &Holdings { frontier: 2, waiting: vec![7] }), 3 * BLOCK);
    }

    #[test]
    fn links_are_not_followed() {
        let (_dir, data) = data();
        let (bytes, files) = found(&data, "a/");
        std::os::unix::fs::symlink(data.files().join("c"), data.files().join("a/link")).unwrap();
        std::os::unix::fs::symlink(data.files(), data.files().join("a/all")).unwrap();
        assert_eq!(found(&data, "a/"), (bytes + 2 * BLOCK, files + 2));
        std::os::unix::fs::symlink(data.files(), data.files().join("d")).unwrap();
        assert_eq!(found(&data, "d/"), (0, 0));
    }

    #[test]
    fn nothing_overflows() {
        let much = Amount { bytes: u64::MAX, files: u64::MAX };
        assert_eq!((much.plus(much), much.minus(much)), (much, Amount::default()));
        let plan = Plan::new(None, None, Some(u64::MAX >> 1)).unwrap_or_default();
        assert!(bytes_of(&plan, &Holdings { frontier: 0, waiting: vec![] }) >= BLOCK);
    }
}
