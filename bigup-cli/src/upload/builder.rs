//! Uploading a file or a stream.

use crate::client::Client;
use crate::client::observer::{NoObserver, Observer};
use crate::client::retry::{RetryBudget, RetryPolicy};
use crate::pipeline::concurrency::Concurrency;
use crate::pipeline::sender_tuning::MOST;
use crate::source::Source;
use crate::stop::Stop;
use crate::upload::error::UploadError;
use crate::upload::keep::Keep;
use crate::upload::{PushContext, Uploaded, push, stream};
use bigup_core::protocol::name::FileName;
use std::io::Read;

/// Slices between reading and sending where the number is not set.
const QUEUE_SIZE: usize = 2;

/// The settings of an upload. [`Client::upload`] and [`Client::upload_stream`] make one; [`Upload::run`] uploads.
#[must_use = "nothing is uploaded before `run`"]
pub struct Upload<'a> {
    client: &'a Client,
    name: String,
    content: Content<'a>,
    replace: bool,
    keep: Keep,
    slice_size: Option<u64>,
    retry: RetryPolicy,
    observer: &'a dyn Observer,
    stop: Option<&'a Stop>,
    concurrency: Option<&'a Concurrency>,
}

/// The bytes of an upload.
enum Content<'a> {
    Source(Box<dyn Source + 'a>),
    Stream(Box<dyn Read + 'a>),
}

impl Client {
    /// An upload of `source`, whose size is known, as the file `name`. An upload of the same source that was
    /// interrupted goes on where it stopped.
    pub fn upload<'a>(&'a self, name: &str, source: impl Source + 'a) -> Upload<'a> {
        Upload::new(self, name, Content::Source(Box::new(source)))
    }

    /// An upload of all bytes that `input` gives, as the file `name`. After an interruption it begins anew.
    ///
    /// An error of kind [`Other`](std::io::ErrorKind::Other) means that the writer failed.
    pub fn upload_stream<'a>(&'a self, name: &str, input: impl Read + 'a) -> Upload<'a> {
        Upload::new(self, name, Content::Stream(Box::new(input)))
    }
}

impl<'a> Upload<'a> {
    fn new(client: &'a Client, name: &str, content: Content<'a>) -> Upload<'a> {
        Upload {
            client,
            name: name.to_owned(),
            content,
            replace: false,
            keep: Keep::default(),
            slice_size: None,
            retry: RetryPolicy::default(),
            observer: &NoObserver,
            stop: None,
            concurrency: None,
        }
    }

    /// Replaces a finished file of the same name and other content. The default is an error.
    pub fn replace(mut self, replace: bool) -> Upload<'a> {
        self.replace = replace;
        self
    }

    /// Keeps these facts of the local file with the finished one. The default is the time of the last write.
    pub fn keep(mut self, keep: Keep) -> Upload<'a> {
        self.keep = keep;
        self
    }

    /// Asks for slices of so many bytes, at least 1024. `None`, which is the default, takes a size that fits the file
    /// and the line.
    pub fn slice_size(mut self, bytes: impl Into<Option<u64>>) -> Upload<'a> {
        self.slice_size = bytes.into();
        self
    }

    /// Repeats failed requests by this policy.
    pub fn retry(mut self, policy: RetryPolicy) -> Upload<'a> {
        self.retry = policy;
        self
    }

    /// Tells this observer of the progress.
    pub fn observer(mut self, observer: &'a dyn Observer) -> Upload<'a> {
        self.observer = observer;
        self
    }

    /// Ends the upload early when another thread calls [`Stop::stop`]. The upload ends once the current requests have
    /// ended: those that carry a slice at once, a question within 25 s. The server keeps the slices that it holds.
    ///
    /// ```
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/daemon.rs"));
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let daemon = Daemon::start();
    /// use bigup_client::{Client, Stop, UploadError};
    /// use std::{io, thread, time::Duration};
    ///
    /// let client = Client::builder(&daemon.url).build()?;
    /// let stop = Stop::new();
    /// let stopper = stop.clone();
    /// thread::spawn(move || {
    ///     thread::sleep(Duration::from_millis(500));
    ///     stopper.stop();
    /// });
    /// let endless = client.upload_stream("endless", io::repeat(7)).slice_size(1 << 20).stop(&stop).run();
    /// assert!(matches!(endless, Err(UploadError::Stopped)));
    /// # Ok(())
    /// # }
    /// ```
    pub fn stop(mut self, stop: &'a Stop) -> Upload<'a> {
        self.stop = Some(stop);
        self
    }

    /// Sends with these senders, which several uploads can share one after the other: they know the line already.
    pub fn concurrency(mut self, concurrency: &'a Concurrency) -> Upload<'a> {
        self.concurrency = Some(concurrency);
        self
    }

    /// Uploads. At the end the server has the whole file, verified and synced.
    ///
    /// # Errors
    /// Any [`UploadError`].
    pub fn run(self) -> Result<Uploaded, UploadError> {
        let name = FileName::new(&self.name)?;
        let (own_concurrency, own_stop) = (Concurrency::new(None, MOST, QUEUE_SIZE), Stop::new());
        let context = PushContext {
            client: self.client,
            observer: self.observer,
            retry: &RetryBudget::new(self.retry),
            stop: self.stop.unwrap_or(&own_stop).signal(),
            concurrency: self.concurrency.unwrap_or(&own_concurrency),
            slice_size: self.slice_size,
            replace: self.replace,
            keep: self.keep,
        };
        match self.content {
            Content::Source(source) => push(&context, &name, &*source),
            Content::Stream(input) => stream::push(&context, &name, input),
        }
    }
}
