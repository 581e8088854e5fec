//! info.ini. The bytes are a line of file names, separated by tabs, a line that tells why their mergers stopped, and what
//! stands in info.ini before these uploads are told in it.

use crate::name::assert_harmless;
use bigup_core::protocol::name::{FileName, printable};
use bigup_core::protocol::plan::Plan;
use bigup_core::storage::data_dir::DataDir;
use bigup_core::storage::info_ini::{InfoIni, key};
use bigup_core::storage::space::DiskSpace;
use bigup_core::storage::spool::{Spool, UploadId, UploadRecord};
use bigupd::upkeep::reconcile::Reconciler;
use ini::{Ini, ParseOption, Properties};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// How many names are looked at.
const MANY: usize = 4;

/// Keys that bigup writes.
const OURS: [&str; 9] = [
    key::MERGE_SLICE_PROCESS_EXIST,
    key::CURR_MERGE_SLICE_ID,
    key::SLICE_NUM,
    key::SLICE_SIZE,
    key::FILE_SIZE,
    key::MERGER_PID,
    key::BEGUN,
    key::PAUSED,
    key::LAST_ERROR,
];

/// Checks uploads in an info.ini.
///
/// # Panics
/// An upload is not told as it is, something foreign is lost, or what could not be read is not kept.
pub fn check(data: &[u8]) {
    let mut lines = data.splitn(3, |b| *b == b'\n');
    let mut line = || String::from_utf8_lossy(lines.next().unwrap_or_default());
    let (names, why) = (line(), line());
    let before = lines.next().unwrap_or_default();
    let names: BTreeSet<FileName> = names.split('\t').filter_map(|n| FileName::new(n).ok()).take(MANY).collect();
    if names.is_empty() {
        // Nothing is told then, and what stands there stays as it is.
        return;
    }
    let dir = tempfile::tempdir().expect("a temporary folder can be made");
    let data = DataDir::create(dir.path()).expect("a data folder can be made");
    std::fs::write(data.info_ini(), before).expect("it can be written");
    let (info, space) = (InfoIni::new(&data), DiskSpace::new(&data, 0));
    for (begun, name) in (0..).zip(&names) {
        let plan = Plan::new(Some(1), Some(10), Some(7)).expect("these numbers fit");
        let upload =
            UploadRecord { begun, last_error: Some(why.to_string()), ..UploadRecord::begin(name.clone(), plan, None) };
        let is_new =
            Spool::create(&data, &UploadId::of_name(&upload.file_name), &upload, &space).expect("a spool can be made");
        assert!(is_new, "{name:?}: two names never share a folder");
    }
    // An indented comment is taken for a key once, and is a comment afterwards.
    let told = [(); 3].map(|()| {
        for name in &names {
            info.refresh(&Spool::of(&data, &UploadId::of_name(name)), name, Some(0)).expect("it can be written");
        }
        written(&data.info_ini())
    });
    assert_eq!(told[1], told[2], "nothing is new");
    by_hand_all_are_told(&told[2], &names);
    if before.is_empty() {
        // By default quotes and escapes mean something to the library.
        all_are_told(&Ini::load_from_str(&told[2]).expect("it can be read"), &names, Some(&why));
    }
    Reconciler::new(data.clone()).reconcile(|_, _| ()).expect("it can be written");
    let text = written(&data.info_ini());
    by_hand_all_are_told(&text, &names);
    let whole = read_verbatim(&text).unwrap_or_else(|why| panic!("{why}: {text}"));
    all_are_told(&whole, &names, None);
    if !dir.path().join("info.ini.broken").exists() {
        let after = foreign(&whole, &names);
        let before = std::str::from_utf8(before).ok().and_then(|text| read_verbatim(text).ok());
        for entry in foreign(&before.expect("what cannot be read is kept"), &names) {
            assert!(after.contains(&entry), "{entry:?} is lost in {text}");
        }
    }
    Reconciler::new(data.clone()).reconcile(|_, _| ()).expect("it can be written");
    assert_eq!(written(&data.info_ini()), text, "nothing is new");
    for name in &names {
        info.remove(name).expect("it can be written");
    }
    let left = plain(&written(&data.info_ini()));
    assert!(names.iter().all(|name| !left.contains_key(&name.section_title())), "{left:?}");
}

fn written(path: &Path) -> String {
    String::from_utf8(std::fs::read(path).unwrap_or_default()).expect("it is UTF-8")
}

/// What the sections of bigup's say besides the name.
const TOLD: [(&str, &str); 5] = [
    (key::CURR_MERGE_SLICE_ID, "0"),
    (key::SLICE_NUM, "1"),
    (key::SLICE_SIZE, "10"),
    (key::FILE_SIZE, "7"),
    (key::MERGE_SLICE_PROCESS_EXIST, "0"),
];

/// An operator's script finds each upload in a section of its own.
fn by_hand_all_are_told(text: &str, names: &BTreeSet<FileName>) {
    let sections = plain(text);
    for (begun, name) in names.iter().enumerate() {
        let title = name.section_title();
        let keys = sections.get(&title).unwrap_or_else(|| panic!("{title} is not in {text}"));
        for (key, value) in TOLD {
            assert_eq!(keys.get(key).map(String::as_str), Some(value), "{title} {key} in {text}");
        }
        assert_eq!(keys.get(key::BEGUN), Some(&format!("1970-01-01T00:00:0{begun}Z")), "{title} in {text}");
    }
}

/// The library finds them, too; and why their mergers stopped, in the words given.
fn all_are_told(ini: &Ini, names: &BTreeSet<FileName>, why: Option<&str>) {
    for name in names {
        let title = name.section_title();
        for (key, value) in TOLD {
            assert_eq!(ini.get_from(Some(&title[..]), key), Some(value), "{title} {key}");
        }
        let told = ini.get_from(Some(&title[..]), key::LAST_ERROR).expect("it is told");
        assert_harmless(told);
        if let Some(why) = why {
            assert_eq!(told.replace("%%", "%"), printable(&why.replace('\r', " ")).trim());
        }
    }
}

fn read_verbatim(text: &str) -> Result<Ini, ini::ParseError> {
    let verbatim = ParseOption { enabled_quote: false, enabled_escape: false, ..ParseOption::default() };
    // A backslash at the end of a line makes the library join lines, whatever the options say.
    Ini::load_from_str_opt(&text.replace("\\\n", "\\ \n"), verbatim)
}

/// What an operator's script finds: sections and their keys, a line each.
fn plain(text: &str) -> BTreeMap<String, BTreeMap<String, String>> {
    let (mut sections, mut title) = (BTreeMap::<_, BTreeMap<_, _>>::new(), String::new());
    for line in text.split(['\n', '\r']) {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            title = name.to_owned();
        } else if let Some((key, value)) = line.split_once(" = ") {
            sections.entry(title.clone()).or_default().insert(key.to_owned(), value.to_owned());
        }
    }
    sections
}

/// What is not bigup's: section, key and value.
fn foreign(ini: &Ini, names: &BTreeSet<FileName>) -> Vec<(Option<String>, String, String)> {
    let titles: Vec<String> = names.iter().map(FileName::section_title).collect();
    let tells_of_upload = |(_, keys): &(_, &Properties)| keys.contains_key(key::CURR_MERGE_SLICE_ID);
    let told: BTreeSet<Option<&str>> = ini.iter().filter(tells_of_upload).map(|(title, _)| title).collect();
    let mut entries = vec![];
    for (title, keys) in ini {
        let is_upload = title.is_some_and(|title| titles.iter().any(|ours| ours == title));
        // The sections of an upload that is not there go.
        if !is_upload && told.contains(&title) {
            continue;
        }
        // Comments do not survive, and a line that is indented may be one.
        let goes = |key: &str| key.starts_with([';', '#']) || (is_upload && OURS.contains(&key));
        for (key, value) in keys.iter().filter(|(key, _)| !goes(key)) {
            entries.push((title.map(str::to_owned), key.to_owned(), value.to_owned()));
        }
    }
    entries
}
