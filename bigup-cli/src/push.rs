//! The command `push`.

use crate::args::PushArgs;
use crate::client::Client;
use crate::embedded::Daemon;
use crate::jobs::{Input, Job, Jobs};
use crate::pipeline::Lanes;
use crate::report::Report;
use crate::retry::Patience;
use crate::source::LocalFile;
use crate::tally::count;
use crate::upload::{self, Context};
use crate::{stdin, tally};
use bigup_core::units::show_size;

/// Pushes all files of `args`, one after the other; whether all are stored.
///
/// # Errors
/// What keeps every file from being pushed.
pub fn run(args: &PushArgs, report: &Report) -> anyhow::Result<bool> {
    let jobs = Jobs::collect(args);
    jobs.notes.iter().for_each(|note| report.note(note));
    jobs.failures.iter().for_each(|(path, message)| report.failed(Some(path), message));
    let daemon = args.embedded.as_deref().map(Daemon::start).transpose()?;
    let lanes = Lanes { senders: args.senders.into(), queue_size: args.queue_size.into() };
    let client = match &daemon {
        Some(daemon) => {
            let client = Client::new(daemon.url(), &args.server.certificates, lanes.senders)?;
            client.with_token(Some(daemon.token()))
        }
        None => args.server.client(lanes.senders)?,
    };
    let total = push_all(args, report, &client, lanes, &jobs);
    if jobs.folders || jobs.jobs.len() + jobs.failures.len() > 1 {
        report.total(&total.line(jobs.failures.len() as u64));
    }
    if let Some(daemon) = daemon {
        for place in total.stored.iter().map(|name| daemon.place_of(name)) {
            report.total(&format!("finished file: {}", place.display()));
        }
        daemon.stop()?;
    }
    Ok(total.failed == 0 && jobs.failures.is_empty())
}

/// All files together.
#[derive(Default)]
struct Total<'a> {
    stored: Vec<&'a bigup_core::name::FileName>,
    bytes: u64,
    failed: u64,
}

fn push_all<'a>(args: &PushArgs, report: &Report, client: &Client, lanes: Lanes, jobs: &'a Jobs) -> Total<'a> {
    let mut total = Total::default();
    report.expect(jobs.jobs.len() as u64);
    for (tried, job) in jobs.jobs.iter().enumerate() {
        let patience = Patience::new(args.retries, args.retry_for, args.when_full);
        let (slice_size, replace) = (args.slice_size, args.replace);
        let file = report.file(&job.name);
        let cx = Context { client, report: &file, patience: &patience, lanes, slice_size, replace };
        match push_one(&cx, job) {
            Ok(done) => {
                file.done(&done);
                total.bytes += done.file_size;
                total.stored.push(&job.name);
            }
            Err(error) => {
                file.failed(&format!("{error:#}"));
                total.failed += 1;
                let left = (jobs.jobs.len() - tried - 1) as u64;
                if client.is_turned_away() && left > 0 {
                    report.failed(None, &format!("{} not tried", count(left, "more file")));
                    total.failed += left;
                    break;
                }
            }
        }
    }
    total
}

fn push_one(cx: &Context<'_>, job: &Job) -> anyhow::Result<tally::Done> {
    match &job.input {
        Input::File(path) => upload::push(cx, &job.name, &LocalFile::open(path)?),
        Input::Stdin => stdin::push(cx, &job.name, std::io::stdin().lock()),
    }
}

impl Total<'_> {
    /// `3 files, 1.00 GiB stored; 1 failed`.
    fn line(&self, never_tried: u64) -> String {
        let stored = format!("{}, {} stored", count(self.stored.len() as u64, "file"), show_size(self.bytes));
        match self.failed + never_tried {
            0 => stored,
            failed => format!("{stored}; {failed} failed"),
        }
    }
}
