//! The command `sync`: makes a folder of the server the same as a local one.
//!
//! A file is sent if the server has none of its name, or one of another size or digest. Local digests come from a cache,
//! so that files that did not change are not read again. A file that the cache does not know counts as the same if it has
//! the size and the time that the server has kept, so that it is not read either. `--checksum` reads all.

use crate::cli::advice;
use crate::cli::args::sync::SyncArgs;
use crate::cli::counts::count;
use crate::cli::digest_cache::DigestCache;
use crate::cli::empty_folders;
use crate::cli::inputs::{Input, InputFile, Inputs};
use crate::cli::list;
use crate::cli::print::{print_json, print_line};
use crate::cli::push::{Line, Total, push_all};
use crate::cli::report::{Report, Style};
use crate::source::fingerprint::Fingerprint;
use crate::source::{LocalFile, hash_all, system};
use bigup_core::protocol::content::ListedFile;
use bigup_core::protocol::digest::Digest;
use bigup_core::protocol::kept::FileTime;
use bigup_core::protocol::name::FileName;
use serde_json::json;
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

/// Files of the server, by name.
type Listed = BTreeMap<String, ListedFile>;

/// The reason to send a file.
type Reason = Cow<'static, str>;

/// Makes the folder of the server the same; true if it is.
///
/// # Errors
/// The server refuses, or does not respond.
pub fn run(args: &SyncArgs, report: &Report) -> anyhow::Result<bool> {
    let push = &args.push;
    let folder = push.paths.first().map_or(Path::new("."), |path| path.as_path());
    anyhow::ensure!(folder.is_dir(), "{} is no folder: sync takes a folder, push takes files", folder.display());
    let wanted = push.wanted()?;
    let line = Line::new(push, None)?;
    let prefix = format!("{}/", push.name.as_deref().unwrap_or_default());
    // Files that are left out here are left alone there.
    let is_to_go = |file: &ListedFile| {
        let below = file.file_name.strip_prefix(&prefix).unwrap_or(&file.file_name);
        args.delete && wanted.filter.leaves_out(Path::new(below), || file.file_size).is_none()
    };
    let mut theirs = Listed::new();
    let (mut inputs, mut cache, reasons) = list::ahead(&line.client, &prefix, |mut pages| {
        let inputs = Inputs::collect(&wanted);
        report.notes(&inputs.notes);
        inputs.failures.iter().for_each(|(path, message)| report.failed(Some(path), message));
        let mut comparison = Comparison::new(&inputs.files, DigestCache::of(folder), args.checksum);
        pages.try_for_each(|page| {
            for file in page? {
                if !comparison.compare(&file) && is_to_go(&file) {
                    theirs.insert(file.file_name.clone(), file);
                }
            }
            anyhow::Ok(())
        })?;
        let Comparison { cache, reasons, .. } = comparison;
        Ok((inputs, cache, reasons))
    })?;
    let all = inputs.files.len();
    let reasons = keep_different(&mut inputs, reasons);
    let same = (all - inputs.files.len()) as u64;
    if push.dry_run {
        show_all(push.transfer.style() == Style::Json, &inputs, &reasons, &theirs, same);
        return Ok(inputs.failures.is_empty());
    }
    let total = push_all(push, report, &line, &inputs);
    keep_digests(&mut cache, &inputs, &total, report);
    let has_folders = empty_folders::make(&line.client, &inputs.empty_folders, push.retry_policy(), report);
    let is_well = total.is_well() && has_folders && inputs.failures.is_empty();
    let mut done = Deletion::default();
    if is_well {
        done = delete(&line, &theirs, report, push.transfer.style() == Style::Json);
    } else if args.delete {
        report.note("nothing was deleted, since files failed");
    }
    report.summary("stored", inputs.failures.len() as u64 + total.not_tried);
    report.total(&format!("{} unchanged, {} deleted", count(same, "file"), done.deleted));
    Ok(is_well && done.failed == 0)
}

/// Local files, as far as they are compared with those of the server.
struct Comparison<'a> {
    files: &'a [InputFile],
    /// The place of each file among all, by name.
    places: HashMap<&'a str, usize>,
    cache: DigestCache,
    reads_all: bool,
    /// The reason to send each file. `None`: the server has the same.
    reasons: Vec<Option<Reason>>,
}

impl<'a> Comparison<'a> {
    fn new(files: &'a [InputFile], cache: DigestCache, reads_all: bool) -> Comparison<'a> {
        let places = files.iter().enumerate().map(|(place, file)| (file.name.as_str(), place)).collect();
        Comparison { files, places, cache, reads_all, reasons: vec![Some("not on the server".into()); files.len()] }
    }

    /// Compares a file of the server with the local one of its name. False: there is none.
    fn compare(&mut self, there: &ListedFile) -> bool {
        let place = self.places.get(there.file_name.as_str()).copied();
        if let Some(place) = place {
            self.reasons[place] = difference(&self.files[place], there, &mut self.cache, self.reads_all);
        }
        place.is_some()
    }
}

/// Keeps the inputs that are to be sent, and the reason for each.
fn keep_different(inputs: &mut Inputs, reasons: Vec<Option<Reason>>) -> Vec<Reason> {
    let all = std::mem::take(&mut inputs.files).into_iter().zip(reasons);
    let different = all.filter_map(|(input, reason)| Some((input, reason?)));
    let reasons;
    (inputs.files, reasons) = different.unzip();
    reasons
}

/// Shows what would be sent and deleted.
fn show_all(is_json: bool, inputs: &Inputs, reasons: &[Reason], gone: &Listed, same: u64) {
    inputs.files.iter().zip(reasons).for_each(|(input, reason)| show(is_json, "send", input.name.as_str(), reason));
    inputs.empty_folders.iter().for_each(|name| show(is_json, "make", &format!("{name}/"), "an empty folder"));
    gone.keys().for_each(|name| show(is_json, "delete", name, "not here"));
    if !is_json {
        let would = format!("{} would be sent", count(inputs.files.len() as u64, "file"));
        print_line(&format!("{would}; {same} are the same, {} would be deleted", gone.len()));
    }
}

/// Notes the digests of the files that were pushed, and keeps all for the next time.
fn keep_digests(cache: &mut DigestCache, inputs: &Inputs, total: &Total, report: &Report) {
    for (number, found) in &total.fingerprints {
        if let (Input::File(path), Some(digest)) = (&inputs.files[*number].origin, total.digests.get(number)) {
            cache.note(path, found, *digest);
        }
    }
    if let Err(error) = cache.keep() {
        report.note(&format!("the digests of local files are not kept for the next time: {error}"));
    }
}

/// Numbers of removed files, and of those that stayed.
#[derive(Default)]
struct Deletion {
    deleted: u64,
    failed: u64,
}

/// Removes files of the server, each if it is still the listed one.
fn delete(line: &Line, files: &Listed, report: &Report, is_json: bool) -> Deletion {
    let mut done = Deletion::default();
    for (name, file) in files {
        let digest = file.file_digest.as_ref().and_then(|digest| digest.parse().ok());
        let removed = FileName::new(name).map_err(anyhow::Error::from);
        match removed.and_then(|name| line.client.remove(&name, digest).map_err(advice::failed_call)) {
            Ok(_) => {
                done.deleted += 1;
                if is_json {
                    print_json(&json!({"event": "removed", "file_name": name}));
                }
            }
            Err(error) => {
                done.failed += 1;
                report.failed(Some(name), &format!("{error:#}"));
            }
        }
    }
    done
}

/// The reason to send a file. `None`: the server has the same.
fn difference(input: &InputFile, there: &ListedFile, cache: &mut DigestCache, reads_all: bool) -> Option<Reason> {
    let Input::File(path) = &input.origin else { return Some("no file".into()) };
    // The push tells why a file cannot be looked at.
    let Ok(found) = system::fingerprint_at(path) else { return Some("".into()) };
    if found.size != there.file_size {
        return Some(format!("{} bytes here, {} on the server", found.size, there.file_size).into());
    }
    let theirs: Option<Digest> = there.file_digest.as_ref().and_then(|digest| digest.parse().ok());
    let Some(theirs) = theirs else { return Some("the server is not certain of its content".into()) };
    let known = if reads_all || system::MAY_CHANGE_UNSEEN { None } else { cache.get(path, &found) };
    let is_told_by_time = !reads_all && known.is_none() && cache.may_be_told_by_time(path, &found);
    if is_told_by_time && has_time(there, &found) {
        return None;
    }
    let own = known.or_else(|| {
        let hashed = LocalFile::open(path).and_then(|file| hash_all(&file, &crossbeam_channel::never())).ok()?;
        let is_unchanged = system::fingerprint_at(path).is_ok_and(|now| now == found);
        if is_unchanged {
            cache.note(path, &found, hashed);
        }
        Some(hashed)
    });
    if own == Some(theirs) { None } else { Some("other content".into()) }
}

/// True if the server has kept the time of a file with this fingerprint.
fn has_time(there: &ListedFile, found: &Fingerprint) -> bool {
    let kept = there.source_modified.as_ref().and_then(|text| text.parse::<FileTime>().ok());
    kept.is_some_and(|kept| kept.nanos() == found.modified)
}

fn show(is_json: bool, action: &str, name: &str, reason: &str) {
    if is_json {
        print_json(
            &json!({"event": "dry_run", "action": action, "file_name": name, "file_size": null, "reason": reason}),
        );
    } else {
        print_line(&format!("{action}: {name}: {reason}"));
    }
}
