//! The command `push`.
//!
//! The smallest files go in bundles, many in one request, where the server takes those. Other files that go in one
//! request each are pushed several at a time: most of the time of one is spent on waiting for the server's disk, which
//! syncs many at once as fast as one. Then the others follow one after the other, each with all senders.

use crate::cli::advice::{self, PushFlags};
use crate::cli::args::push::PushArgs;
use crate::cli::bundle_queue::{self, BundleQueue, Numbered};
use crate::cli::counts::count;
use crate::cli::default_folder::default_folder;
use crate::cli::descriptors;
use crate::cli::dry_run;
use crate::cli::embedded::Daemon;
use crate::cli::empty_folders;
use crate::cli::inputs::{Input, InputFile, Inputs};
use crate::cli::manifest;
use crate::cli::report::{FileReport, Report};
use crate::client::Client;
use crate::client::observer::NoObserver;
use crate::client::retry::RetryBudget;
use crate::pipeline::concurrency::Concurrency;
use crate::pipeline::sender_tuning::MOST;
use crate::source::error::SourceError;
use crate::source::fingerprint::Fingerprint;
use crate::source::producer::Producer;
use crate::source::system;
use crate::source::{LocalFile, Source};
use crate::stop::{Stop, StopSignal};
use crate::upload::bundle::Bundle;
use crate::upload::error::UploadError;
use crate::upload::{self, PushContext, Uploaded, ahead};
use bigup_core::protocol::digest::Digest;
use bigup_core::protocol::name::FileName;
use bigup_core::protocol::native::MAX_BUNDLED_FILE;
use bigup_core::protocol::units::MIB;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

/// Most small files that are pushed at a time: each mostly waits for a sync, which many share.
const AT_A_TIME: usize = 64;

/// Bytes of files that are pushed at a time, at most: with the buffers of that many connections they are in memory.
const BYTES_AT_A_TIME: u64 = 12 * MIB;

/// Pushes all files of `args`; whether all are stored.
///
/// # Errors
/// No file can be pushed.
pub fn run(args: &PushArgs, report: &Report) -> anyhow::Result<bool> {
    let mut inputs = Inputs::collect(&args.wanted()?);
    let daemon = args.embedded.as_deref().map(Daemon::start).transpose()?;
    let line = Line::new(args, daemon.as_ref())?;
    if args.name.is_none() && args.into.is_none() && !inputs.files.is_empty() {
        default_folder(&line.client, args.retry_policy(), report)?.iter().for_each(|folder| inputs.default_to(folder));
    }
    report.notes(&inputs.notes);
    inputs.failures.iter().for_each(|(path, message)| report.failed(Some(path), message));
    if args.dry_run {
        return dry_run::run(&line.client, &inputs, args, report);
    }
    let total = push_all(args, report, &line, &inputs);
    let has_folders = empty_folders::make(&line.client, &inputs.empty_folders, args.retry_policy(), report);
    if inputs.folders || inputs.files.len() + inputs.failures.len() > 1 {
        report.summary("stored", inputs.failures.len() as u64 + total.not_tried);
    }
    if let Some(path) = &args.manifest {
        manifest::write(path, total.digests.iter().map(|(number, digest)| (*digest, &inputs.files[*number].name)))?;
    }
    if let Some(daemon) = daemon {
        for input in inputs.files.iter().zip(&total.stored).filter_map(|(input, stored)| stored.then_some(input)) {
            report.total(&format!("finished file: {}", daemon.place_of(&input.name).display()));
        }
        daemon.stop()?;
    }
    Ok(total.is_well() && has_folders && inputs.failures.is_empty())
}

/// Pushes `inputs`, and tells of each.
pub fn push_all(args: &PushArgs, report: &Report, line: &Line, inputs: &Inputs) -> Total {
    push_each(args, report, line, inputs, &NoInterest)
}

/// The same; `interest` learns of each file.
pub fn push_each(args: &PushArgs, report: &Report, line: &Line, inputs: &Inputs, interest: &dyn Interest) -> Total {
    Push { args, report, client: &line.client, line, interest, total: Mutex::default() }.all(inputs)
}

/// Learns of each file of a push, by its number among the inputs. Several threads call.
pub trait Interest: Sync {
    /// The fingerprint without which a file is not pushed. `None`: it is pushed as it is.
    fn expected(&self, _number: usize) -> Option<Fingerprint> {
        None
    }

    /// A file is stored.
    fn stored(&self, _number: usize, _done: &Uploaded) {}

    /// A file is not stored. The reason is told as one to wait where this returns true, else as an error.
    fn failed(&self, _number: usize, _error: &UploadError) -> bool {
        false
    }
}

/// Wants nothing.
struct NoInterest;

impl Interest for NoInterest {}

/// The server, and how much goes there at a time.
pub struct Line {
    /// The server.
    pub client: Client,
    concurrency: Concurrency,
    /// Number of small files that are pushed at a time.
    at_a_time: usize,
}

impl Line {
    /// The server of `args`, or the `daemon` of our own.
    ///
    /// # Errors
    /// The URL, the token or a certificate cannot be used.
    pub fn new(args: &PushArgs, daemon: Option<&Daemon>) -> anyhow::Result<Line> {
        let open = descriptors::available();
        // A large file is open beside its connections, a small one beside its only one.
        let (most, at_a_time) = (MOST.min(open - 1), AT_A_TIME.min(open / 2));
        let senders = args.senders.map(|senders| usize::from(senders).min(open - 1));
        let builder = match daemon {
            Some(daemon) => Client::builder(daemon.url()).token(daemon.token().clone()),
            None => args.server.builder()?,
        };
        let client = builder.rates(args.transfer.limit_rate.clone()).build().map_err(advice::failed_client)?;
        Ok(Line { client, concurrency: Concurrency::new(senders, most, args.queue_size.into()), at_a_time })
    }

    /// Sends slices of the file at `path`, which grows, before it is pushed as `name`; see [`ahead`]. Returns their bytes.
    ///
    /// # Errors
    /// Any [`UploadError`].
    pub fn send_ahead(
        &self,
        args: &PushArgs,
        name: &FileName,
        path: &Path,
        stop: &StopSignal,
    ) -> Result<u64, UploadError> {
        let retry = RetryBudget::new(args.retry_policy());
        ahead::send(&PushContext { replace: false, ..self.context(args, &retry, stop) }, name, path)
    }

    /// The tools of a push that is told of nowhere else.
    fn context<'a>(&'a self, args: &PushArgs, retry: &'a RetryBudget, stop: &'a StopSignal) -> PushContext<'a> {
        PushContext {
            client: &self.client,
            observer: &NoObserver,
            retry,
            stop,
            concurrency: &self.concurrency,
            slice_size: args.slice_size,
            replace: args.replace,
            keep: args.keep,
        }
    }
}

/// The tools with which all files are pushed.
struct Push<'a> {
    args: &'a PushArgs,
    report: &'a Report,
    client: &'a Client,
    line: &'a Line,
    interest: &'a dyn Interest,
    total: Mutex<Total>,
}

/// A file whose push has begun.
struct AtWork<'a> {
    /// Its number among the inputs.
    number: usize,
    report: FileReport<'a>,
    /// Its fingerprint at the beginning. `None`: it is no file, or cannot be looked at.
    before: Option<Fingerprint>,
}

/// Bytes that several threads may have in memory.
struct Budget {
    left: Mutex<u64>,
    more: Condvar,
}

/// All files together.
#[derive(Default)]
pub struct Total {
    /// `true` for each file that is stored.
    pub stored: Vec<bool>,
    /// The digests of those whose digest is known.
    pub digests: BTreeMap<usize, Digest>,
    /// The fingerprints of those that were not changed while they were pushed, and that are looked at.
    pub fingerprints: BTreeMap<usize, Fingerprint>,
    /// Number of files that failed.
    pub failed: u64,
    /// Number of files that were not tried, since all would fail.
    pub not_tried: u64,
}

impl Total {
    /// True if all files are stored.
    pub fn is_well(&self) -> bool {
        self.failed + self.not_tried == 0
    }
}

impl Push<'_> {
    fn all(self, inputs: &Inputs) -> Total {
        let all = inputs.files.len();
        self.report.expect(all as u64, inputs.files.iter().map(InputFile::size).sum());
        self.lock().stored.resize(all, false);
        let (mut small, mut large) = (vec![], vec![]);
        for (number, input) in inputs.files.iter().enumerate() {
            match self.small_size(input) {
                Some(size) => small.push((number, size)),
                None => large.push(number),
            }
        }
        let tried = self.small(inputs, &small) + self.one_by_one(inputs, &large);
        self.report.end();
        let mut total = self.total.into_inner().unwrap_or_else(PoisonError::into_inner);
        let left = (all - tried) as u64;
        if left > 0 {
            self.report.failed(None, &format!("{} not tried", count(left, "more file")));
            total.not_tried = left;
        }
        total
    }

    /// Bytes of a file that goes in one request, as it is now. `None`: it does not.
    fn small_size(&self, input: &InputFile) -> Option<u64> {
        input.size().filter(|size| upload::is_small(*size, self.args.slice_size))
    }

    /// Pushes those of `inputs` that `which` says, with their sizes, several at a time. Returns the number of files
    /// that were tried.
    fn small(&self, inputs: &Inputs, which: &[Numbered]) -> usize {
        // The first one alone: what keeps all from being pushed is told once. An empty one would not tell of bundles.
        let first = which.iter().position(|(_, size)| *size > 0).unwrap_or(0);
        let Some((first, _)) = which.get(first) else { return 0 };
        let tried = self.one_by_one(inputs, &[*first]);
        let (tiny, mut others): (Vec<_>, Vec<_>) = which
            .iter()
            .filter(|(number, _)| number != first)
            .partition(|(_, size)| self.client.takes_bundles() && (1..=MAX_BUNDLED_FILE).contains(size));
        self.report.many();
        let left = self.in_bundles(inputs, &tiny);
        let tried = tried + tiny.len() - left.len();
        others.extend(left);
        let tried = tried + self.several_at_a_time(inputs, &others);
        self.report.one_by_one();
        tried
    }

    /// Pushes files in bundles; those that are left, to be pushed alone.
    fn in_bundles(&self, inputs: &Inputs, which: &[Numbered]) -> Vec<Numbered> {
        let queue = BundleQueue::new(which);
        let work = || {
            while !self.client.is_turned_away()
                && let files @ [_, ..] = queue.take()
            {
                let began = Instant::now();
                let left = self.bundle(inputs, files);
                queue.ended(files.len(), left, began.elapsed());
            }
        };
        thread::scope(|scope| (0..bundle_queue::AT_A_TIME.min(which.len())).for_each(|_| drop(scope.spawn(work))));
        queue.left()
    }

    /// Pushes files that take a request each, several at a time. Returns the number of files that were tried.
    fn several_at_a_time(&self, inputs: &Inputs, which: &[Numbered]) -> usize {
        let (next, budget) = (AtomicUsize::new(0), Budget::new(BYTES_AT_A_TIME));
        let work = || {
            while !self.client.is_turned_away()
                && let Some((input, size)) = which.get(next.fetch_add(1, Ordering::Relaxed))
            {
                budget.take(*size);
                self.one(inputs, *input);
                budget.give_back(*size);
            }
        };
        thread::scope(|scope| (0..self.line.at_a_time.min(which.len())).for_each(|_| drop(scope.spawn(work))));
        next.into_inner().min(which.len())
    }

    /// Pushes those of `inputs` that `which` says one after the other. Returns the number of files that were tried.
    fn one_by_one(&self, inputs: &Inputs, which: &[usize]) -> usize {
        which.iter().take_while(|_| !self.client.is_turned_away()).map(|input| self.one(inputs, *input)).count()
    }

    fn one(&self, inputs: &Inputs, number: usize) {
        let file = self.begin(inputs, number);
        let result = self.push(&file.report, &inputs.files[number], self.interest.expected(number));
        self.end(inputs, file, result);
    }

    fn begin(&self, inputs: &Inputs, number: usize) -> AtWork<'_> {
        let input = &inputs.files[number];
        AtWork { number, report: self.report.file(&input.name), before: fingerprint(input) }
    }

    /// Pushes files in one request; those that it does not store, to be pushed alone.
    fn bundle(&self, inputs: &Inputs, files: &[Numbered]) -> Vec<Numbered> {
        let (stop, retry) = (Stop::new(), RetryBudget::new(self.args.retry_policy()));
        let context = self.line.context(self.args, &retry, stop.signal());
        let (mut bundle, mut bundled, mut left) = (Bundle::new(&context), vec![], vec![]);
        for (number, size) in files {
            match self.add(&mut bundle, &inputs.files[*number], self.interest.expected(*number)) {
                true => bundled.push((self.begin(inputs, *number), *size)),
                false => left.push((*number, *size)),
            }
        }
        let ends = if bundled.is_empty() { vec![] } else { bundle.send() };
        for ((file, size), end) in bundled.into_iter().zip(ends) {
            match end {
                Some(done) => {
                    file.report.stored_at_once(&done);
                    self.end(inputs, file, Ok(done));
                }
                None => {
                    left.push((file.number, size));
                    file.report.set_aside();
                }
            }
        }
        left
    }

    /// False: the file is to be pushed alone, which tells what is wrong with it.
    fn add(&self, bundle: &mut Bundle<'_>, input: &InputFile, expected: Option<Fingerprint>) -> bool {
        let Ok(Some(file)) = self.open(input, expected) else { return false };
        (1..=MAX_BUNDLED_FILE).contains(&file.size()) && bundle.add(&input.name, &file).is_ok()
    }

    /// The push of a file ended so.
    fn end(&self, inputs: &Inputs, file: AtWork<'_>, result: Result<Uploaded, UploadError>) {
        let AtWork { number, report, before } = file;
        let input = &inputs.files[number];
        match result {
            Ok(done) => {
                self.interest.stored(number, &done);
                let is_unchanged = before.is_some() && fingerprint(input) == before;
                if self.args.remove_source
                    && let Err(error) = remove_source(input, is_unchanged)
                {
                    self.lock().failed += 1;
                    return report.failed(&format!("it is stored, and not removed here: {error}"));
                }
                let mut total = self.lock();
                total.stored[number] = true;
                total.fingerprints.extend(before.filter(|_| is_unchanged).map(|before| (number, before)));
                total.digests.extend(done.file_digest.map(|digest| (number, digest)));
                drop(total);
                report.done(&done);
            }
            Err(error) => {
                self.lock().failed += 1;
                let PushArgs { replace, when_full, .. } = *self.args;
                let message = advice::of_upload(&error, PushFlags { replace, when_full: when_full.into() });
                match self.interest.failed(number, &error) {
                    true => report.waits(&message),
                    false => report.failed(&message),
                }
            }
        }
    }

    /// Opens a file, which must have the fingerprint that is `expected` if one is. `None`: it is no file.
    fn open(&self, input: &InputFile, expected: Option<Fingerprint>) -> Result<Option<LocalFile>, SourceError> {
        let Input::File(path) = &input.origin else { return Ok(None) };
        let file = if self.args.growing { LocalFile::open_growing(path) } else { LocalFile::open(path) }?;
        match expected.and_then(|expected| expected.difference(&file.fingerprint())) {
            Some(difference) => Err(SourceError::Changed(difference)),
            None => Ok(Some(file)),
        }
    }

    fn push(
        &self,
        report: &FileReport<'_>,
        input: &InputFile,
        expected: Option<Fingerprint>,
    ) -> Result<Uploaded, UploadError> {
        let name = input.name.as_str();
        let upload = match (&input.origin, self.open(input, expected)?) {
            (_, Some(file)) => self.client.upload(name, file),
            (Input::Command(words), None) => self.client.upload_stream(name, Producer::start(words)?),
            (Input::Stdin | Input::File(_), None) => self.client.upload_stream(name, std::io::stdin().lock()),
        };
        upload
            .replace(self.args.replace)
            .keep(self.args.keep)
            .slice_size(self.args.slice_size)
            .retry(self.args.retry_policy())
            .concurrency(&self.line.concurrency)
            .observer(report)
            .run()
    }

    fn lock(&self) -> MutexGuard<'_, Total> {
        self.total.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The fingerprint of a file as it is now. `None`: it is no file, or cannot be looked at.
fn fingerprint(input: &InputFile) -> Option<Fingerprint> {
    let Input::File(path) = &input.origin else { return None };
    system::fingerprint_at(path).ok()
}

/// Removes a file that is stored, unless it was changed since the push began.
fn remove_source(input: &InputFile, is_unchanged: bool) -> anyhow::Result<()> {
    let Input::File(path) = &input.origin else { return Ok(()) };
    anyhow::ensure!(is_unchanged, "it was changed meanwhile");
    Ok(std::fs::remove_file(path)?)
}

impl Budget {
    fn new(bytes: u64) -> Budget {
        Budget { left: Mutex::new(bytes), more: Condvar::new() }
    }

    /// Waits until there are `bytes`, which are fewer than all.
    fn take(&self, bytes: u64) {
        let left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let mut left = self.more.wait_while(left, |left| *left < bytes).unwrap_or_else(PoisonError::into_inner);
        *left -= bytes;
    }

    fn give_back(&self, bytes: u64) {
        *self.left.lock().unwrap_or_else(PoisonError::into_inner) += bytes;
        self.more.notify_all();
    }
}
