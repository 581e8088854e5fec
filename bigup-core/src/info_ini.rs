//! info.ini: a section per unfinished upload, for operators.
//!
//! It is a view. Everything in it is derived from the spools, so it can be rebuilt at any time, and no program decides
//! anything by it. It is read-modified-written under a lock on itself and replaced by rename, so that a reader, who
//! needs no lock, and a kill find the old one or the new one. The lock is held for microseconds; nothing is waited for
//! under it.
//!
//! Keys that bigup does not know survive. Comments do not: rust-ini does not keep them.

use crate::data_dir::DataDir;
use crate::disk::{self, Context, Durability, FileLock};
use crate::name::{FileName, printable};
use crate::spool::{Spool, Upload};
use ini::{EscapePolicy, Ini, ParseOption, Properties, WriteOption};
use std::io::{self, Read};
use std::time::{Duration, UNIX_EPOCH};

/// Name of the file, in the data folder.
const INFO_INI: &str = "info.ini";

/// What an unreadable info.ini is kept as.
const BROKEN: &str = "info.ini.broken";

/// The last second that RFC 3339 can tell, in seconds since 1970.
const END_OF_9999: u64 = 253_402_300_799;

/// Names of the keys.
pub mod key {
    /// 1 while a merger is at work on this file, else 0.
    pub const MERGE_SLICE_PROCESS_EXIST: &str = "merge_slice_process_exist";
    /// The frontier: the next slice to be merged. Those below it are in the merged file and synced.
    pub const CURR_MERGE_SLICE_ID: &str = "curr_merge_slice_id";
    /// Number of slices; absent while not known.
    pub const SLICE_NUM: &str = "slice_num";
    /// Bytes of a slice; absent while not known.
    pub const SLICE_SIZE: &str = "slice_size";
    /// Bytes of the file; absent while not known.
    pub const FILE_SIZE: &str = "file_size";
    /// Process id of the merger at work; absent while there is none.
    pub const MERGER_PID: &str = "merger_pid";
    /// When the upload was begun (RFC 3339, UTC).
    pub const BEGUN: &str = "begun";
    /// Why the merger stopped or the file cannot be published; absent while all is well.
    pub const LAST_ERROR: &str = "last_error";
}

/// The file info.ini of one data folder.
pub struct InfoIni<'a> {
    data: &'a DataDir,
}

impl InfoIni<'_> {
    /// The info.ini of `data`.
    pub fn new(data: &DataDir) -> InfoIni<'_> {
        InfoIni { data }
    }

    /// Brings the section of `spool` up to date, or removes it where there is no such upload any more. `frontier` is the
    /// synced one; None: it is read from the spool.
    ///
    /// # Errors
    /// As the system gives them; the old info.ini stands then.
    pub fn refresh(&self, spool: &Spool, name: &FileName, frontier: Option<u64>) -> io::Result<()> {
        let frontier = match frontier {
            Some(frontier) => frontier,
            None => synced_frontier(spool).or_else(|e| match e.kind() {
                io::ErrorKind::NotFound => Ok(0),
                _ => Err(e),
            })?,
        };
        self.edit(|ini| {
            if !project(ini, spool, frontier)? {
                ini.delete(Some(name.section_title()));
            }
            Ok(())
        })
    }

    /// Removes the section of a finished upload.
    ///
    /// # Errors
    /// As the system gives them; the old info.ini stands then.
    pub fn remove(&self, name: &FileName) -> io::Result<()> {
        self.edit(|ini| {
            ini.delete(Some(name.section_title()));
            Ok(())
        })
    }

    /// Makes info.ini say what the spools say: sections that are missing or wrong are written, those of bigup's without
    /// a spool are removed. What else is there stays.
    ///
    /// # Errors
    /// As the system gives them; the old info.ini stands then.
    pub fn reconcile(&self) -> io::Result<()> {
        self.edit(|ini| {
            for title in self.orphans(ini) {
                ini.delete(Some(title));
            }
            rebuild(ini, self.data)
        })
    }

    /// Titles of bigup's sections that have no spool.
    fn orphans(&self, ini: &Ini) -> Vec<String> {
        let ours = ini.iter().filter(|(_, keys)| keys.contains_key(key::CURR_MERGE_SLICE_ID));
        let is_orphan = |title: &&str| {
            let spool = FileName::from_section_title(title).map(|name| Spool::of(self.data, &name));
            !spool.is_some_and(|spool| spool.path().exists())
        };
        ours.filter_map(|(title, _)| title).filter(is_orphan).map(str::to_owned).collect()
    }

    /// Makes info.ini right where a look at it shows that it is wrong: unreadable, an upload without section or with a
    /// wrong one, a section without upload, a merger that died. Cheap while all is well, and takes no lock then.
    ///
    /// # Errors
    /// As the system gives them; the old info.ini stands then.
    pub fn mend(&self) -> io::Result<()> {
        let path = self.data.info_ini();
        let mut bytes = vec![];
        match disk::open_regular(&path) {
            Ok(mut file) => drop(file.read_to_end(&mut bytes).at("reading", &path)?),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) if e.kind() == io::ErrorKind::InvalidInput => return self.reconcile(),
            Err(e) => return Err(e),
        }
        let ini = match parse(&bytes) {
            Ok(ini) if self.orphans(&ini).is_empty() => ini,
            _ => return self.reconcile(),
        };
        for spool in Spool::all(self.data)? {
            let Ok(Some(upload)) = spool.upload() else { continue };
            if !is_told_right(&ini, &spool, &upload)? {
                self.refresh(&spool, &upload.file_name, None)?;
            }
        }
        Ok(())
    }

    /// Locks info.ini. Something else in its place, which could not even be read without danger, is put aside.
    fn lock(&self) -> io::Result<FileLock> {
        let path = self.data.info_ini();
        match FileLock::wait(&path) {
            Err(e) if e.kind() == io::ErrorKind::InvalidInput => {
                log::error!("{e}; it is kept as {BROKEN} and rebuilt");
                std::fs::rename(&path, self.data.root().join(BROKEN)).at("moving aside", &path)?;
                FileLock::wait(&path)
            }
            locked => locked,
        }
    }

    /// Reads, changes and replaces info.ini under its lock. One that cannot be read is kept aside and rebuilt.
    fn edit(&self, change: impl FnOnce(&mut Ini) -> io::Result<()>) -> io::Result<()> {
        let path = self.data.info_ini();
        let lock = self.lock()?;
        let mut bytes = vec![];
        lock.file().read_to_end(&mut bytes).at("reading", &path)?;
        let mut ini = match parse(&bytes) {
            Ok(ini) => ini,
            Err(why) => {
                log::error!("{} cannot be read ({why}); it is kept as {BROKEN} and rebuilt", path.display());
                disk::replace_file(self.data.root(), BROKEN, &bytes, Durability::Process)?;
                let mut ini = Ini::new();
                rebuild(&mut ini, self.data)?;
                ini
            }
        };
        change(&mut ini)?;
        let written = show(&ini);
        if written != bytes {
            disk::replace_file(self.data.root(), INFO_INI, &written, Durability::Process)?;
        }
        Ok(())
    }
}

/// Logs why info.ini could not be brought up to date. It is a view: nothing else fails for it, and a daemon's next look
/// mends it.
pub fn tolerate(name: &FileName, told: io::Result<()>) {
    if let Err(e) = told {
        log::warn!("{name}: info.ini is not up to date: {e}");
    }
}

/// Writes a section for every readable spool. An unreadable one is reported by whoever begins that upload anew.
///
/// No spool is locked: whoever publishes holds that lock while waiting for the one on info.ini.
fn rebuild(ini: &mut Ini, data: &DataDir) -> io::Result<()> {
    for spool in Spool::all(data)? {
        if let Err(e) = synced_frontier(&spool).and_then(|frontier| project(ini, &spool, frontier)) {
            log::error!("no section for the upload in {}: {e}", spool.path().display());
        }
    }
    Ok(())
}

fn synced_frontier(spool: &Spool) -> io::Result<u64> {
    spool.upload()?.map_or(Ok(0), |upload| Ok(spool.holdings(&upload)?.synced_frontier()))
}

/// Writes the section of `spool`. False: there is no such upload.
///
/// Whether a merger is at work is looked up here, under the lock of info.ini: a merger takes its own lock before it
/// comes here, so the last writer is right.
fn project(ini: &mut Ini, spool: &Spool, frontier: u64) -> io::Result<bool> {
    let Some(upload) = spool.upload()? else { return Ok(false) };
    let merger = spool.merger()?;
    let title = upload.file_name.section_title();
    let keys = ini.entry(Some(title)).or_insert(Properties::new());
    for (name, value) in values(&upload, merger, frontier) {
        match value {
            Some(value) => keys.insert(name, value),
            None => drop(keys.remove(name)),
        }
    }
    Ok(true)
}

/// The keys of a section and their values; None for those that are absent.
fn values(upload: &Upload, merger: Option<u32>, frontier: u64) -> [(&'static str, Option<String>); 8] {
    let number = |n: Option<u64>| n.map(|n| n.to_string());
    let last_error = upload.blocked.as_ref().or(upload.last_error.as_ref());
    [
        (key::MERGE_SLICE_PROCESS_EXIST, Some(u8::from(merger.is_some()).to_string())),
        (key::CURR_MERGE_SLICE_ID, Some(frontier.to_string())),
        (key::SLICE_NUM, number(upload.plan.slice_num)),
        (key::SLICE_SIZE, number(upload.plan.slice_size)),
        (key::FILE_SIZE, number(upload.plan.file_size)),
        (key::MERGER_PID, merger.map(|pid| pid.to_string())),
        (key::BEGUN, Some(rfc3339(upload.begun))),
        (key::LAST_ERROR, last_error.map(|text| one_line(text))),
    ]
}

/// Whether the section of `spool` says what is. While a merger is at work the frontier is its own to tell.
fn is_told_right(ini: &Ini, spool: &Spool, upload: &Upload) -> io::Result<bool> {
    let Some(keys) = ini.section(Some(upload.file_name.section_title())) else { return Ok(false) };
    let merger = spool.merger()?;
    let told = keys.get(key::CURR_MERGE_SLICE_ID).and_then(crate::units::parse_u64);
    let frontier = match (merger, told) {
        (Some(_), Some(told)) => told.min(spool.frontier(upload)?),
        _ => synced_frontier(spool)?,
    };
    Ok(values(upload, merger, frontier).iter().all(|(name, value)| keys.get(name) == value.as_deref()))
}

fn rfc3339(seconds: u64) -> String {
    humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(seconds.min(END_OF_9999))).to_string()
}

/// Text that stays on its line and means nothing to readers of INI (`%` begins an interpolation for Python's).
fn one_line(text: &str) -> String {
    printable(&text.replace('%', "%%").replace(['\n', '\r'], " ")).trim().to_owned()
}

fn parse(bytes: &[u8]) -> Result<Ini, String> {
    let text = std::str::from_utf8(bytes).map_err(|e| e.to_string())?;
    // A tool that was killed may leave zeros, which rust-ini would take for a key.
    if text.contains('\0') {
        return Err("it has NUL bytes".to_owned());
    }
    let verbatim = ParseOption { enabled_quote: false, enabled_escape: false, ..ParseOption::default() };
    Ini::load_from_str_opt(text, verbatim).map_err(|e| e.to_string())
}

fn show(ini: &Ini) -> Vec<u8> {
    let style = WriteOption { escape_policy: EscapePolicy::Nothing, kv_separator: " = ", ..WriteOption::default() };
    let mut bytes = vec![];
    ini.write_to_opt(&mut bytes, style).expect("writing to memory does not fail");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Plan;
    use crate::room::Room;
    use std::fs;

    struct Fixture {
        _dir: tempfile::TempDir,
        data: DataDir,
    }

    impl Fixture {
        fn new() -> Fixture {
            let dir = tempfile::tempdir().unwrap();
            Fixture { data: DataDir::create(&dir.path().join("data")).unwrap(), _dir: dir }
        }

        fn begin(&self, name: &str) -> (Spool, FileName) {
            let name = FileName::new(name).unwrap();
            let plan = Plan::new(None, Some(10), Some(25)).unwrap();
            assert!(
                Spool::create(&self.data, &Upload::begin(name.clone(), plan, None), &Room::new(&self.data, 0)).unwrap()
            );
            (Spool::of(&self.data, &name), name)
        }

        fn refresh(&self, (spool, name): &(Spool, FileName), frontier: u64) {
            InfoIni::new(&self.data).refresh(spool, name, Some(frontier)).unwrap();
        }

        fn text(&self) -> String {
            fs::read_to_string(self.data.info_ini()).unwrap()
        }

        fn get(&self, section: &str, key: &str) -> Option<String> {
            parse(self.text().as_bytes()).unwrap().get_from(Some(section), key).map(str::to_owned)
        }
    }

    #[test]
    fn a_section_tells_the_upload_and_goes_with_it() {
        let f = Fixture::new();
        let upload = f.begin("abc.txt");
        f.refresh(&upload, 2);
        let text = f.text();
        for line in ["[abc.txt]", "merge_slice_process_exist = 0", "curr_merge_slice_id = 2", "slice_num = 3"] {
            assert!(text.lines().any(|l| l == line), "{line} in {text}");
        }
        assert!(!text.contains("merger_pid"));
        let merger = upload.0.try_merger_lock().unwrap().unwrap();
        f.refresh(&upload, 2);
        assert_eq!(f.get("abc.txt", "merge_slice_process_exist").unwrap(), "1");
        assert_eq!(f.get("abc.txt", "merger_pid").unwrap(), std::process::id().to_string());
        drop(merger);
        f.refresh(&upload, 3);
        assert_eq!(f.get("abc.txt", "merger_pid"), None);
        upload.0.lock().unwrap().unwrap().remove().unwrap();
        f.refresh(&upload, 3);
        assert_eq!(f.text(), "");
    }

    #[test]
    fn what_operators_add_survives() {
        let f = Fixture::new();
        let upload = f.begin("abc.txt");
        f.refresh(&upload, 0);
        let edited = format!("owner = me\n{}note = C:\\x 100% ; yes\n[other]\nx = 1\n", f.text());
        fs::write(f.data.info_ini(), edited).unwrap();
        f.refresh(&upload, 1);
        InfoIni::new(&f.data).reconcile().unwrap();
        assert_eq!(f.get("abc.txt", "note").unwrap(), "C:\\x 100% ; yes");
        assert_eq!(f.get("other", "x").unwrap(), "1");
        assert!(f.text().starts_with("owner = me\n"));
    }

    #[test]
    fn garbage_is_kept_aside_and_rebuilt_from_the_spools() {
        for garbage in [&b"no key here"[..], b"\xff\xfe\0", b"[abc.txt\nx", &[0; 100]] {
            let f = Fixture::new();
            let (one, _two) = (f.begin("abc.txt"), f.begin("d/e f.bin"));
            fs::write(f.data.info_ini(), garbage).unwrap();
            f.refresh(&one, 1);
            assert_eq!(fs::read(f.data.root().join(BROKEN)).unwrap(), garbage);
            assert_eq!(f.get("abc.txt", "curr_merge_slice_id").unwrap(), "1");
            assert_eq!(f.get("d/e f.bin", "slice_num").unwrap(), "3");
        }
    }

    #[test]
    fn what_is_no_file_is_put_aside_and_not_read() {
        for kind in 0..3 {
            let f = Fixture::new();
            let one = f.begin("abc.txt");
            let (path, outside) = (f.data.info_ini(), f._dir.path().join("outside"));
            fs::write(&outside, "x").unwrap();
            match kind {
                0 => nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap(),
                1 => std::os::unix::fs::symlink(&outside, &path).unwrap(),
                _ => fs::create_dir(&path).unwrap(),
            }
            if kind == 0 {
                InfoIni::new(&f.data).mend().unwrap()
            } else {
                f.refresh(&one, 0)
            };
            assert_eq!(f.get("abc.txt", "slice_num").unwrap(), "3");
            assert!(f.data.root().join(BROKEN).symlink_metadata().is_ok_and(|found| !found.is_file()));
            assert_eq!(fs::read(outside).unwrap(), b"x");
        }
    }

    #[test]
    fn a_time_beyond_all_calendars_is_shown_as_the_last_one() {
        assert_eq!(rfc3339(u64::MAX), "9999-12-31T23:59:59Z");
    }

    #[test]
    fn reconciling_adds_what_is_missing_and_removes_what_is_over() {
        let f = Fixture::new();
        let (one, two) = (f.begin("one"), f.begin("two"));
        f.refresh(&one, 0);
        f.refresh(&two, 0);
        one.0.lock().unwrap().unwrap().remove().unwrap();
        fs::write(f.data.info_ini(), f.text().replace("[two]", "[three]")).unwrap();
        InfoIni::new(&f.data).reconcile().unwrap();
        let titles: Vec<String> = f.text().lines().filter(|l| l.starts_with('[')).map(str::to_owned).collect();
        assert_eq!(titles, ["[two]"]);
    }

    #[test]
    fn mending_finds_dead_mergers_and_sections_missing_or_left_over() {
        let f = Fixture::new();
        let (one, _two) = (f.begin("one"), f.begin("two"));
        let merger = one.0.try_merger_lock().unwrap().unwrap();
        f.refresh(&one, 0);
        drop(merger);
        InfoIni::new(&f.data).mend().unwrap();
        assert_eq!(f.get("one", "merge_slice_process_exist").unwrap(), "0");
        assert_eq!(f.get("two", "merge_slice_process_exist").unwrap(), "0");
        one.0.lock().unwrap().unwrap().remove().unwrap();
        InfoIni::new(&f.data).mend().unwrap();
        assert_eq!(f.get("one", "merge_slice_process_exist"), None);
    }

    #[test]
    fn names_that_mean_something_to_ini_stay_in_their_section() {
        let f = Fixture::new();
        for name in ["a]\u{2028}[b", "x=y;#z", " lead", "100%", "DEFAULT", "quo\"te\\n"] {
            let upload = f.begin(name);
            f.refresh(&upload, 7);
            assert_eq!(f.get(&upload.1.section_title(), "curr_merge_slice_id").unwrap(), "7", "{name}");
        }
        let sections = parse(f.text().as_bytes()).unwrap().sections().flatten().count();
        assert_eq!(sections, 6);
    }

    #[test]
    fn concurrent_edits_all_arrive() {
        let f = Fixture::new();
        let uploads: Vec<_> = (0..8).map(|i| f.begin(&format!("f{i}"))).collect();
        std::thread::scope(|scope| {
            for upload in &uploads {
                scope.spawn(|| (0..=20).for_each(|frontier| f.refresh(upload, frontier)));
            }
        });
        for i in 0..8 {
            assert_eq!(f.get(&format!("f{i}"), "curr_merge_slice_id").unwrap(), "20");
        }
    }
}
