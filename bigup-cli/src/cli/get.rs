//! The command `get`. Small files are fetched several at a time, then the others one after the other, each by several
//! connections.

use crate::cli::advice;
use crate::cli::args::files::GetArgs;
use crate::cli::list;
use crate::cli::report::Report;
use crate::client::Client;
use crate::client::retry::RetryBudget;
use crate::download::error::DownloadError;
use crate::download::place::can_be_named;
use crate::download::stream::to_writer;
use crate::download::{DownloadContext, Downloaded, RemoteFile, to_file};
use crate::pipeline::concurrency::Concurrency;
use crate::pipeline::sender_tuning::MOST;
use bigup_core::protocol::content::ListedFile;
use bigup_core::protocol::name::FileName;
use bigup_core::protocol::units::MIB;
use std::io::stdout;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

/// Largest file that is fetched beside others, in bytes.
const SMALL: u64 = MIB;

/// Small files that are fetched at a time: each mostly waits for the disk.
const AT_A_TIME: usize = 16;

/// A file to be fetched.
struct Job {
    name: FileName,
    /// As a list told it. `None`: it was named by itself.
    listed: Option<ListedFile>,
    to: PathBuf,
}

/// The tools with which all files are fetched.
struct Get<'a> {
    args: &'a GetArgs,
    client: &'a Client,
    report: &'a Report,
    concurrency: Concurrency,
    has_failed: AtomicBool,
}

/// Fetches all files of `args`; true if all are there.
///
/// # Errors
/// No file can be fetched.
pub fn run(args: &GetArgs, report: &Report) -> anyhow::Result<bool> {
    let builder = args.server.builder()?.rates(args.transfer.limit_rate.clone());
    let client = builder.build().map_err(advice::failed_client)?;
    let concurrency = Concurrency::new(args.connections.map(usize::from), MOST, 0);
    let get = Get { args, client: &client, report, concurrency, has_failed: AtomicBool::new(false) };
    let jobs = get.jobs()?;
    let is_many = jobs.len() > 1;
    let bytes: Option<u64> = jobs.iter().map(|job| job.listed.as_ref().map(|file| file.file_size)).sum();
    report.expect(jobs.len() as u64, bytes);
    let is_small = |job: &Job| job.listed.as_ref().is_some_and(|file| file.file_size <= SMALL);
    let (small, large): (Vec<Job>, Vec<Job>) = jobs.into_iter().partition(is_small);
    get.side_by_side(&small);
    large.iter().take_while(|_| !client.is_turned_away()).for_each(|job| get.one(job));
    report.end();
    if is_many {
        report.summary("fetched", 0);
    }
    Ok(!get.has_failed.into_inner())
}

impl Get<'_> {
    fn jobs(&self) -> anyhow::Result<Vec<Job>> {
        let args = self.args;
        let to = args.to.as_deref().unwrap_or(Path::new("."));
        let is_folder = |name: &str| name.is_empty() || name.ends_with('/');
        let ends_in_slash = to.as_os_str().as_encoded_bytes().last().is_some_and(|last| b"/\\".contains(last));
        let several = args.names.len() > 1 || args.names.iter().any(|name| is_folder(name));
        let is_into = several || ends_in_slash || to.is_dir();
        let mut jobs = vec![];
        for name in &args.names {
            if is_folder(name) {
                let mut is_empty = true;
                list::each(self.client, name, |file| {
                    is_empty = false;
                    let listed = file.file_name.clone();
                    match Job::listed(file, name, to) {
                        Ok(job) => jobs.push(job),
                        Err(error) => self.fail(&listed, &format!("{error:#}")),
                    }
                    Ok(())
                })?;
                if is_empty {
                    self.fail(name, "there are no finished files in it");
                }
                continue;
            }
            let name = FileName::new(name)?;
            let last = name.components().last().unwrap_or_default();
            let to = if is_into { local_path(to, last)? } else { to.to_owned() };
            jobs.push(Job { name, listed: None, to });
        }
        Ok(jobs)
    }

    fn side_by_side(&self, jobs: &[Job]) {
        if jobs.is_empty() {
            return;
        }
        let next = AtomicUsize::new(0);
        let work = || {
            while !self.client.is_turned_away()
                && let Some(job) = jobs.get(next.fetch_add(1, Ordering::Relaxed))
            {
                self.one(job);
            }
        };
        self.report.many();
        thread::scope(|scope| (0..AT_A_TIME.min(jobs.len())).for_each(|_| drop(scope.spawn(work))));
        self.report.one_by_one();
    }

    fn one(&self, job: &Job) {
        let file = self.report.file(&job.name);
        let (retry, stop) = (RetryBudget::new(self.args.transfer.retry_policy()), crossbeam_channel::never());
        let cx = DownloadContext {
            client: self.client,
            observer: &file,
            retry: &retry,
            stop: &stop,
            concurrency: &self.concurrency,
            replace: self.args.replace,
        };
        match self.fetch(&cx, job) {
            Ok(done) => file.got(&done),
            Err(error) => {
                self.has_failed.store(true, Ordering::Relaxed);
                file.failed(&advice::of_download(&error));
            }
        }
    }

    fn fetch(&self, cx: &DownloadContext<'_>, job: &Job) -> Result<Downloaded, DownloadError> {
        // The list has no digests of leaves, which small files do not need.
        let listed = job.listed.as_ref().filter(|file| file.file_size <= SMALL).and_then(RemoteFile::listed);
        let file = listed.map_or_else(|| RemoteFile::ask(cx, &job.name), Ok)?;
        if self.args.is_to_stdout() {
            return to_writer(cx, &file, &mut stdout().lock());
        }
        to_file(cx, &file, &job.to)
    }

    fn fail(&self, name: &str, message: &str) {
        self.has_failed.store(true, Ordering::Relaxed);
        self.report.failed(Some(name), message);
    }
}

impl Job {
    /// A file of the folder `folder` on the server, which goes into the local folder `to` with its last component.
    fn listed(file: ListedFile, folder: &str, to: &Path) -> anyhow::Result<Job> {
        let name = FileName::new(&file.file_name)?;
        let above = folder.trim_end_matches('/').rfind('/').map_or(0, |at| at + 1);
        let to = local_path(to, &file.file_name[above..])?;
        Ok(Job { name, listed: Some(file), to })
    }
}

/// The path of `name`, whose components are separated by `/`, below `folder`.
fn local_path(folder: &Path, name: &str) -> anyhow::Result<PathBuf> {
    let mut path = folder.to_owned();
    for component in name.split('/') {
        anyhow::ensure!(
            can_be_named(component),
            "no file of Windows has the name {component}; fetch it by itself with --to FILE"
        );
        path.push(component);
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_keeps_its_last_component() {
        let path = |name: &str, folder: &str| {
            let file = ListedFile { file_name: name.to_owned(), ..ListedFile::default() };
            Job::listed(file, folder, Path::new("to")).unwrap().to
        };
        assert_eq!(path("a/b/c/d", "a/b/"), Path::new("to/b/c/d"));
        assert_eq!(path("a/b", "a/"), Path::new("to/a/b"));
        assert_eq!(path("a/b", ""), Path::new("to/a/b"));
    }
}
