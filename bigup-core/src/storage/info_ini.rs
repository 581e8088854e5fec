//! info.ini: a section per unfinished upload, for operators.
//!
//! It is a view. Everything in it is derived from the spools, so it can be rebuilt at any time, and no program decides
//! anything by it. It is changed under a lock on itself and replaced by rename. So a reader needs no lock, and finds
//! the old file or the new one, as after a kill. No other wait happens under the lock.
//!
//! With thousands of uploads parsing the whole file takes longer than a single request of an upload. So it is cut into
//! its sections, which is cheap, and only the changed ones are parsed and written anew.
//!
//! Keys that bigup does not know survive. Comments do not: rust-ini does not keep them.

use crate::protocol::name::{FileName, printable};
use crate::storage::data_dir::DataDir;
use crate::storage::disk::{self, Durability, FileLock, IoContext};
use crate::storage::spool::{Holdings, Spool, UploadId, UploadRecord};
use ini::{EscapePolicy, Ini, ParseOption, Properties, WriteOption};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::{self, Read};
use std::time::{Duration, UNIX_EPOCH};

/// Name of the file, in the data folder.
const INFO_INI: &str = "info.ini";

/// Name under which an unreadable info.ini is kept.
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
    /// Process id of the merger at work; absent while there is no merger.
    pub const MERGER_PID: &str = "merger_pid";
    /// Time at which the upload was begun (RFC 3339, UTC).
    pub const BEGUN: &str = "begun";
    /// 1 while an operator lets the upload rest; absent otherwise.
    pub const PAUSED: &str = "paused";
    /// The reason the merger stopped or the file cannot be published; absent while all is well.
    pub const LAST_ERROR: &str = "last_error";
}

/// The file info.ini of one data folder.
pub struct InfoIni<'a> {
    data: &'a DataDir,
}

/// The keys of a section and their values; `None` for those that are absent.
type Values = [(&'static str, Option<String>); 9];

/// New values of sections, by their titles. `None` removes the section.
type Changes = BTreeMap<String, Option<Values>>;

impl InfoIni<'_> {
    /// The info.ini of `data`.
    pub fn new(data: &DataDir) -> InfoIni<'_> {
        InfoIni { data }
    }

    /// The content of the file; empty if there is no such file.
    ///
    /// # Errors
    /// Something else than a file is in its place ([`io::ErrorKind::InvalidInput`]), or as the system gives them.
    pub fn read(&self) -> io::Result<Vec<u8>> {
        let path = self.data.info_ini();
        let mut bytes = vec![];
        match disk::open_regular(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(bytes),
            Err(e) => Err(e),
            Ok(mut file) => file.read_to_end(&mut bytes).at("reading", &path).map(|_| bytes),
        }
    }

    /// Brings the section of `spool` up to date, or removes it where there is no such upload any more. `frontier` is
    /// the synced one; `None` if it is read from the spool.
    ///
    /// # Errors
    /// As the system gives them; the old info.ini stands then.
    pub fn refresh(&self, spool: &Spool, name: &FileName, frontier: Option<u64>) -> io::Result<()> {
        self.edit(|| Ok(Changes::from([(name.section_title(), values_of(spool, frontier)?)])))
    }

    /// Does the same for all these uploads, in one step. The section of an upload that cannot be read stays as it is:
    /// the client that begins that upload anew gets the error.
    ///
    /// # Errors
    /// As the system gives them; the old info.ini stands then.
    pub fn refresh_all(&self, uploads: &[(UploadId, FileName)]) -> io::Result<()> {
        let change = |(id, name): &(UploadId, FileName)| {
            Some((name.section_title(), values_of(&Spool::of(self.data, id), None).ok()?))
        };
        self.edit(|| Ok(uploads.iter().filter_map(change).collect()))
    }

    /// Keeps info.ini aside and rebuilds it if any section cannot be read, also of those that are not bigup's: readers of
    /// INI refuse such a file as a whole.
    ///
    /// # Errors
    /// As the system gives them; the old info.ini stands then.
    pub fn rebuild_if_broken(&self) -> io::Result<()> {
        self.edit_if(
            |sections| sections.iter().try_for_each(|section| section.upload().map(drop)),
            || Ok(Changes::new()),
        )
    }

    /// Removes the section of a finished upload, if it has one.
    ///
    /// # Errors
    /// As the system gives them; the old info.ini stands then.
    pub fn remove(&self, name: &FileName) -> io::Result<()> {
        self.edit(|| Ok(Changes::from([(name.section_title(), None)])))
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

    fn edit(&self, changes: impl FnOnce() -> io::Result<Changes>) -> io::Result<()> {
        self.edit_if(|_| Ok(()), changes)
    }

    /// Reads, changes and replaces info.ini under its lock. A file that cannot be read, or does not pass `check`, is
    /// kept aside and rebuilt.
    ///
    /// The changes are computed under the lock, above all whether a merger is at work: a merger takes its own lock
    /// before it comes here, so the last writer is right.
    fn edit_if(
        &self,
        check: impl FnOnce(&Sections<'_>) -> Result<(), String>,
        changes: impl FnOnce() -> io::Result<Changes>,
    ) -> io::Result<()> {
        let path = self.data.info_ini();
        let lock = self.lock()?;
        let mut bytes = vec![];
        lock.file().read_to_end(&mut bytes).at("reading", &path)?;
        let changes = changes()?;
        let sections = Sections::cut(&bytes).and_then(|sections| check(&sections).map(|()| sections));
        let written = match sections.and_then(|sections| sections.with(&changes)) {
            Ok(written) => written,
            Err(why) => {
                log::error!("{} cannot be read ({why}); it is kept as {BROKEN} and rebuilt", path.display());
                disk::replace_file(self.data.root(), BROKEN, &bytes, Durability::Process)?;
                let everything = self.everything()?.into_iter().chain(changes).collect();
                Sections::none().with(&everything).map_err(io::Error::other)?
            }
        };
        if written != bytes {
            disk::replace_file(self.data.root(), INFO_INI, &written, Durability::Process)?;
        }
        Ok(())
    }

    /// The sections that the spools describe. No spool is locked: a publisher holds that lock while it waits for the
    /// lock on info.ini.
    fn everything(&self) -> io::Result<Changes> {
        let mut changes = Changes::new();
        for spool in Spool::all(self.data)? {
            match spool.upload().and_then(|upload| Ok((upload, values_of(&spool, None)?))) {
                Ok((Some(upload), values)) => drop(changes.insert(upload.file_name.section_title(), values)),
                Ok((None, _)) => {}
                Err(e) => log::error!("upload in {} omitted from info.ini: {e}", spool.path().display()),
            }
        }
        Ok(changes)
    }
}

/// Logs why info.ini could not be brought up to date. It is a view: nothing else fails for it, and a daemon's next scan
/// repairs it.
pub fn log_failure(name: &FileName, told: io::Result<()>) {
    if let Err(e) = told {
        log::warn!(file_name = name.as_str(); "{name}: info.ini is not up to date: {e}");
    }
}

/// The text of info.ini, cut into its sections.
pub struct Sections<'a> {
    /// The text before the first section.
    head: &'a str,
    sections: Vec<Section<'a>>,
}

/// A section: the text from its title to the next one.
#[derive(Clone, Copy)]
pub struct Section<'a> {
    title: &'a str,
    text: &'a str,
}

impl<'a> Sections<'a> {
    fn none() -> Sections<'a> {
        Sections { head: "", sections: vec![] }
    }

    /// Cuts the text of info.ini. Keys are read only before the first section.
    ///
    /// # Errors
    /// bigup cannot change a file of this form; the error gives the reason.
    pub fn cut(bytes: &'a [u8]) -> Result<Sections<'a>, String> {
        let text = std::str::from_utf8(bytes).map_err(|e| e.to_string())?;
        // A tool that was killed can leave zeros, which rust-ini would take for a key.
        if text.contains('\0') {
            return Err("it has NUL bytes".to_owned());
        }
        // An end of a line for some readers, as for Python's, and a character like any other for rust-ini.
        if text.split('\r').skip(1).any(|rest| !rest.starts_with('\n')) {
            return Err("it has carriage returns within lines".to_owned());
        }
        let (mut begins, mut at) = (vec![], 0);
        for line in text.split_inclusive('\n') {
            if let Some(rest) = line.trim_start().strip_prefix('[') {
                let (title, tail) =
                    rest.split_once(']').ok_or_else(|| format!("a title without end: {}", line.trim()))?;
                // For rust-ini it is the first part of the next key, which can be lines further down; other readers
                // pass over it.
                if !tail.trim().is_empty() && !tail.trim_start().starts_with([';', '#']) {
                    return Err(format!("text behind a title: {}", line.trim()));
                }
                // Most readers pass over any white space before a title; for rust-ini all but these begins a key.
                if !line.trim_start_matches([' ', '\t']).starts_with('[') {
                    return Err(format!("no plain space before a title: {}", line.trim()));
                }
                begins.push((at, title.trim()));
            }
            at += line.len();
        }
        let ends = begins.iter().skip(1).map(|(at, _)| *at).chain([text.len()]);
        let sections = begins.iter().zip(ends).map(|((at, title), end)| Section { title, text: &text[*at..end] });
        let (head, sections) = (&text[..begins.first().map_or(text.len(), |(at, _)| *at)], sections.collect());
        parse(head).map(|_| Sections { head, sections })
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = Section<'a>> {
        self.sections.iter().copied()
    }

    /// The text with `changes` made.
    fn with(&self, changes: &Changes) -> Result<Vec<u8>, String> {
        let mut missing: BTreeMap<&str, &Values> =
            changes.iter().filter_map(|(title, values)| Some((&title[..], values.as_ref()?))).collect();
        let mut pieces = vec![Cow::Borrowed(self.head)];
        for Section { title, text } in self.iter() {
            pieces.push(match changes.get(title) {
                None => Cow::Borrowed(text),
                Some(values) => Cow::Owned(changed(parse(text)?, title, values.as_ref())),
            });
            missing.remove(title);
        }
        pieces.extend(missing.into_iter().map(|(title, values)| Cow::Owned(changed(Ini::new(), title, Some(values)))));
        let pieces: Vec<&str> = pieces.iter().map(|piece| piece.trim_end()).filter(|piece| !piece.is_empty()).collect();
        Ok(if pieces.is_empty() { vec![] } else { (pieces.join("\n\n") + "\n").into_bytes() })
    }
}

impl<'a> Section<'a> {
    /// Its title.
    pub fn title(&self) -> &'a str {
        self.title
    }

    /// All of it, with its title.
    pub fn text(&self) -> &'a str {
        self.text
    }

    /// The upload that it tells of. `None` if it is not one of bigup's sections.
    ///
    /// # Errors
    /// It cannot be read; the error gives the reason.
    pub fn upload(&self) -> Result<Option<FileName>, String> {
        let ini = parse(self.text)?;
        let is_ours = ini.get_from(Some(self.title), key::CURR_MERGE_SLICE_ID).is_some();
        Ok(FileName::from_section_title(self.title).filter(|_| is_ours))
    }

    /// True if it is up to date: `upload` holds `holdings` and is being merged by the process `merger`. A merger at
    /// work writes the frontier itself, when it has synced; then every value up to the frontier in `holdings` is right.
    pub fn matches(&self, upload: &UploadRecord, holdings: &Holdings, merger: Option<u32>) -> bool {
        let Ok(ini) = parse(self.text) else { return false };
        let told = ini.get_from(Some(self.title), key::CURR_MERGE_SLICE_ID).and_then(crate::protocol::units::parse_u64);
        let frontier = match (merger, told) {
            (Some(_), Some(told)) => told.min(holdings.frontier),
            _ => holdings.synced_frontier(),
        };
        let is_so = |(name, value): &(&str, Option<String>)| ini.get_from(Some(self.title), name) == value.as_deref();
        values(upload, merger, frontier).iter().all(is_so)
    }
}

/// The text of a section with bigup's keys changed; empty if the section is to be removed.
fn changed(mut ini: Ini, title: &str, values: Option<&Values>) -> String {
    match values {
        None => drop(ini.delete(Some(title))),
        Some(values) => {
            let keys = ini.entry(Some(title.to_owned())).or_insert(Properties::new());
            for (name, value) in values {
                match value {
                    Some(value) => keys.insert(*name, value.clone()),
                    None => drop(keys.remove(name)),
                }
            }
        }
    }
    show(&ini)
}

/// The new values of the section of `spool`. `None` if there is no such upload.
fn values_of(spool: &Spool, frontier: Option<u64>) -> io::Result<Option<Values>> {
    let Some(upload) = spool.upload()? else { return Ok(None) };
    let frontier = match frontier {
        Some(frontier) => frontier,
        None => match spool.synced_frontier(&upload) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            read => read?,
        },
    };
    Ok(Some(values(&upload, spool.merger()?, frontier)))
}

fn values(upload: &UploadRecord, merger: Option<u32>, frontier: u64) -> Values {
    let number = |n: Option<u64>| n.map(|n| n.to_string());
    [
        (key::MERGE_SLICE_PROCESS_EXIST, Some(u8::from(merger.is_some()).to_string())),
        (key::CURR_MERGE_SLICE_ID, Some(frontier.to_string())),
        (key::SLICE_NUM, number(upload.plan.slice_num)),
        (key::SLICE_SIZE, number(upload.plan.slice_size)),
        (key::FILE_SIZE, number(upload.plan.file_size)),
        (key::MERGER_PID, merger.map(|pid| pid.to_string())),
        (key::BEGUN, Some(rfc3339(upload.begun))),
        (key::PAUSED, upload.paused.then(|| "1".to_owned())),
        (key::LAST_ERROR, upload.problem().map(one_line)),
    ]
}

fn rfc3339(seconds: u64) -> String {
    humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(seconds.min(END_OF_9999))).to_string()
}

/// Text that stays on its line and means nothing to readers of INI: `%` begins an interpolation for Python's; for others
/// a backslash escapes, and a value that begins with a quote goes on to the next one, lines further down.
fn one_line(text: &str) -> String {
    let text = printable(&text.replace(['\n', '\r'], " "));
    let text = text.trim().replace('%', "%%").replace('\\', "\\\\");
    if text.starts_with(['"', '\'']) { format!("\\{text}") } else { text }
}

/// Reads a piece of info.ini, which another piece can follow. A piece whose last key or value would swallow the next
/// title is an error.
fn parse(text: &str) -> Result<Ini, String> {
    // A title that is not there already.
    let mut next = "\u{7f}".to_owned();
    while text.contains(&next) {
        next.push('\u{7f}');
    }
    let verbatim = ParseOption { enabled_quote: false, enabled_escape: false, ..ParseOption::default() };
    // A backslash at the end of a line makes rust-ini join the next one to it, a title maybe, whatever the options say.
    let text = format!("{}\n[{next}]\nx = 1\n", text.replace("\\\n", "\\ \n"));
    let mut ini = Ini::load_from_str_opt(&text, verbatim).map_err(|e| e.to_string())?;
    let is_next_found = ini.delete(Some(next)).is_some_and(|next| next.get("x") == Some("1"));
    if is_next_found { Ok(ini) } else { Err("its last line has no end".to_owned()) }
}

fn show(ini: &Ini) -> String {
    let style = WriteOption { escape_policy: EscapePolicy::Nothing, kv_separator: " = ", ..WriteOption::default() };
    let mut bytes = vec![];
    ini.write_to_opt(&mut bytes, style).expect("writing to memory does not fail");
    String::from_utf8(bytes).expect("text gives text")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::plan::Plan;
    use crate::storage::space::DiskSpace;
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
            let upload = UploadRecord::begin(name.clone(), plan, None);
            assert!(
                Spool::create(
                    &self.data,
                    &UploadId::of_name(&upload.file_name),
                    &upload,
                    &DiskSpace::new(&self.data, 0)
                )
                .unwrap()
            );
            (Spool::of(&self.data, &UploadId::of_name(&name)), name)
        }

        fn refresh(&self, (spool, name): &(Spool, FileName), frontier: u64) {
            InfoIni::new(&self.data).refresh(spool, name, Some(frontier)).unwrap();
        }

        fn text(&self) -> String {
            fs::read_to_string(self.data.info_ini()).unwrap()
        }

        fn get(&self, section: &str, key: &str) -> Option<String> {
            parse(&self.text()).unwrap().get_from(Some(section), key).map(str::to_owned)
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
        let own = f.text().replace("[abc.txt]", "[abc.txt]\nnote = C:\\x 100% ; yes\npath = C:\\x\\");
        let edited = format!("owner = me\n{own}[other]\nx = 1\n");
        fs::write(f.data.info_ini(), edited).unwrap();
        f.refresh(&upload, 1);
        assert_eq!(f.get("abc.txt", "note").unwrap(), "C:\\x 100% ; yes");
        assert_eq!(f.get("abc.txt", "path").unwrap(), "C:\\x\\");
        assert_eq!(f.text().matches("merge_slice_process_exist").count(), 1, "{}", f.text());
        assert_eq!(f.get("other", "x").unwrap(), "1");
        assert!(f.text().starts_with("owner = me\n"));
    }

    #[test]
    fn garbage_is_kept_aside_and_rebuilt_from_the_spools() {
        for garbage in [
            &b"no key here"[..],
            b"\xff\xfe\0",
            b"[abc.txt\nx",
            b"[x]y\n\nz = 1\n",
            b"\x0c[abc.txt]\nx]\ny = 1\n",
            &[0; 100],
        ] {
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
    fn many_sections_change_in_one_step_and_others_stay_as_they_stand() {
        let f = Fixture::new();
        let uploads: Vec<_> = ["one", "two", "three"].map(|name| f.begin(name)).into();
        let all: Vec<_> = uploads.iter().map(|(spool, name)| (spool.id().clone(), name.clone())).collect();
        fs::write(f.data.info_ini(), "[ one ]\nnote = x\n# a comment\n[other]\n  # kept\nx=1\n\n\n").unwrap();
        InfoIni::new(&f.data).refresh_all(&all).unwrap();
        for name in ["one", "two", "three"] {
            assert_eq!(f.get(name, "slice_num").unwrap(), "3", "{}", f.text());
        }
        assert_eq!(f.get("one", "note").unwrap(), "x");
        assert!(f.text().contains("\n[other]\n  # kept\nx=1\n\n["), "{}", f.text());
        uploads[0].0.lock().unwrap().unwrap().remove().unwrap();
        fs::write(uploads[1].0.path().join("upload.json"), "garbage").unwrap();
        InfoIni::new(&f.data).refresh_all(&all).unwrap();
        assert_eq!(f.get("one", "slice_num"), None);
        assert_eq!(f.get("two", "slice_num").unwrap(), "3", "it cannot be read and stays");
    }

    #[test]
    fn a_section_is_right_or_not() {
        let f = Fixture::new();
        let upload = f.begin("abc.txt");
        f.refresh(&upload, 1);
        let begun = upload.0.upload().unwrap().unwrap();
        let text = f.text();
        let matches = |text: &str, frontier, waiting: &[u64], merger| {
            let holdings = Holdings { frontier, waiting: waiting.to_vec() };
            let sections = Sections::cut(text.as_bytes()).unwrap();
            sections.iter().next().unwrap().matches(&begun, &holdings, merger)
        };
        assert!(matches(&text, 1, &[], None));
        assert!(matches(&text, 2, &[1], None), "slice 1 may not be synced yet");
        assert!(!matches(&text, 2, &[], None), "it lags and nobody will tell");
        assert!(!matches(&text, 0, &[], None), "it leads");
        assert!(!matches(&text, 1, &[], Some(7)), "nothing is told of the merger");
        assert!(!matches(&text.replace("slice_num = 3", "slice_num = 4"), 1, &[], None));
        assert!(!matches(&(text.clone() + "garbage\n"), 1, &[], None));
        let merger = text.replace("exist = 0", "exist = 1") + "merger_pid = 7\n";
        assert!(matches(&merger, 3, &[], Some(7)), "the merger will tell");
        assert!(!matches(&merger, 0, &[], Some(7)), "it leads");
    }

    #[test]
    fn sections_are_bigups_or_somebody_elses() {
        let text = b"[abc.txt]\ncurr_merge_slice_id = 1\n[notes]\nx = 1\n[..]\ncurr_merge_slice_id = 1\n[x]\nbad\n";
        let sections = Sections::cut(text).unwrap();
        let uploads: Vec<_> = sections.iter().map(|section| section.upload()).collect();
        assert_eq!(uploads[..3], [Ok(Some(FileName::new("abc.txt").unwrap())), Ok(None), Ok(None)]);
        assert!(uploads[3].is_err());
    }

    #[test]
    fn a_key_without_end_does_not_swallow_the_title_after_it() {
        let f = Fixture::new();
        let upload = f.begin("abc.txt");
        fs::write(f.data.info_ini(), "b0\n ; #  a\tb0\n ; #  \n").unwrap();
        f.refresh(&upload, 1);
        assert_eq!(f.get("abc.txt", "slice_num").unwrap(), "3");
        assert!(f.data.root().join(BROKEN).exists());
        // For each title that ends the section in this way, another section can have that title.
        for title in ["other", "\u{7f}", "\u{7f}\u{7f}"] {
            assert!(parse(&format!("[{title}]\nx = 1\nkey")).is_err(), "{title:?}");
            assert!(parse(&format!("[{title}]\nx = 1\nkey = 2")).is_ok(), "{title:?}");
        }
    }

    #[test]
    fn names_that_mean_something_to_ini_stay_in_their_section() {
        let f = Fixture::new();
        for name in ["a]\u{2028}[b", "x=y;#z", " lead", "100%", "DEFAULT", "quo\"te\\n"] {
            let upload = f.begin(name);
            f.refresh(&upload, 7);
            assert_eq!(f.get(&upload.1.section_title(), "curr_merge_slice_id").unwrap(), "7", "{name}");
        }
        let sections = parse(&f.text()).unwrap().sections().flatten().count();
        assert_eq!(sections, 6);
    }

    #[test]
    fn a_reason_that_means_something_to_readers_stays_on_its_line() {
        let f = Fixture::new();
        for why in ["\"x of \"x/y is a file", "'", "a\\xzz\\", "100%", "; a", "\r[b]\nc = 1", "\u{1b}[2J"] {
            let (spool, name) = f.begin("a");
            let mut locked = spool.lock().unwrap().unwrap();
            let upload = UploadRecord { last_error: Some(why.to_owned()), ..locked.upload().clone() };
            locked.save(upload).unwrap();
            f.refresh(&(spool, name.clone()), 1);
            // As a reader that knows quotes and escapes takes it.
            let ini = Ini::load_from_str(&f.text()).unwrap();
            let told = ini.get_from(Some("a"), key::LAST_ERROR).unwrap().replace("%%", "%");
            assert_eq!(told, printable(&why.replace(['\r', '\n'], " ")).trim());
            assert_eq!(ini.len(), 2, "nothing else, but the general section: {}", f.text());
            locked.remove().unwrap();
            InfoIni::new(&f.data).remove(&name).unwrap();
        }
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
