//! The daemon's counters and gauges, and their text for Prometheus. docs/metrics.md gives the meaning of each metric.
//!
//! Counters are of this daemon, from its start, and of the mergers that it started. Gauges that the reconciler sets are
//! of the data folder, whichever process works on it. No label has a value that a client could choose, so the number of
//! series is bounded. Series of known labels are there from the start, with 0.

use bigup_core::merger_events::{MergerEvent, StoreRequest, StoreResult, time};
use prometheus_client::encoding::{EncodeLabelSet, prometheus_text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Metric, Registry};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The type of [`Metrics::text`].
pub use prometheus_client::encoding::prometheus_text::CONTENT_TYPE;

/// Upper bounds of request times, in seconds: from a response out of memory to the longest wait for a slow client.
const REQUEST_TIMES: [f64; 11] = [0.001, 0.005, 0.025, 0.1, 0.25, 1.0, 2.5, 10.0, 30.0, 60.0, 300.0];

/// Upper bounds of sync times, in seconds: from a fast SSD to a disk that is about to fail.
const SYNC_TIMES: [f64; 11] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.25, 1.0, 2.5, 10.0, 30.0];

/// An enum and the values of the label that it is.
macro_rules! labels {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $value:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[$variant_doc])* $variant,)* }

        impl $name {
            const ALL: &[$name] = &[$($name::$variant,)*];

            /// Its value of the label.
            pub const fn label(self) -> &'static str {
                match self { $($name::$variant => $value,)* }
            }
        }
    };
}

labels! {
    /// The kind of a request.
    Route {
        /// Begins an upload, or goes on with it.
        Begin = "begin",
        /// Asks how uploads stand.
        Peek = "peek",
        /// Brings a slice.
        Slice = "slice",
        /// Speaks tus.
        Tus = "tus",
        /// Speaks the draft of the IETF.
        Ietf = "ietf",
        /// Reads, lists or removes finished files by plain HTTP.
        Content = "content",
        /// Reads the page for browsers.
        Page = "page",
        /// Asks whether the daemon is well.
        Health = "health",
        /// Asks for these metrics.
        Metrics = "metrics",
        /// Anything else.
        Other = "other",
    }
}

labels! {
    /// A limit that something was refused for.
    Limit {
        /// max_connections.
        Connections = "connections",
        /// max_connections_per_address.
        ConnectionsPerAddress = "connections_per_address",
        /// max_uploads.
        Uploads = "uploads",
        /// max_uploads_per_token.
        UploadsPerToken = "uploads_per_token",
        /// The quota of a token.
        Quota = "quota",
        /// max_slice_size.
        SliceSize = "slice_size",
        /// max_file_size.
        FileSize = "file_size",
        /// max_slices.
        Slices = "slices",
        /// max_response_size.
        ResponseSize = "response_size",
        /// Limit of large responses on the way at once.
        ResponseBudget = "responses",
        /// Disk space.
        DiskSpace = "disk_space",
        /// header_timeout.
        Header = "header",
        /// body_timeout and min_body_rate, of bodies.
        MinRate = "body_rate",
        /// The same for responses that are not read.
        Reading = "reading",
        /// spool_limit.
        SpoolLimit = "spool_limit",
        /// Limit of uploads that wait for a response of on_begin.
        OnBegin = "on_begin",
    }
}

labels! {
    /// The protocol by which an upload is begun.
    UploadProtocol {
        /// The native one.
        Native = "native",
        /// tus.
        Tus = "tus",
        /// The draft of the IETF.
        Ietf = "ietf",
        /// PUT.
        Put = "put",
    }
}

labels! {
    /// The reason an upload failed.
    Failure {
        /// The file cannot be published as things stand; the upload stays until a client begins anew.
        Blocked = "blocked",
        /// Nothing came for too long, and it was removed.
        Expired = "expired",
        /// An operator ended it (`bigupd cancel`).
        Cancelled = "cancelled",
        /// Data on disk could not be read, and was moved to `damaged/`.
        Unreadable = "unreadable",
    }
}

labels! {
    /// The end of a merger.
    MergerEnd {
        /// It published the file.
        Published = "published",
        /// Nothing came for a while.
        Idle = "idle",
        /// It was told to stop.
        Stopped = "stopped",
        /// It did not say which of these, but that all is well.
        Done = "done",
        /// Another one was at work on the upload.
        AlreadyRunning = "already_running",
        /// The upload was gone.
        NoUpload = "no_upload",
        /// The file cannot be published as things stand.
        Blocked = "blocked",
        /// An error, which it logged.
        Failed = "failed",
        /// A signal ended it.
        Killed = "killed",
        /// It could not be started.
        NotStarted = "not_started",
    }
}

labels! {
    /// A hook.
    Hook {
        /// on_begin.
        Begin = "on_begin",
        /// on_complete.
        Complete = "on_complete",
    }
}

labels! {
    /// The result of asking or telling a hook once.
    HookResult {
        /// It is well.
        Yes = "yes",
        /// It says no.
        No = "no",
        /// There is no response.
        Failed = "failed",
        /// It was ended since the daemon stops.
        Stopped = "stopped",
    }
}

labels! {
    /// The target of a sync.
    Synced {
        /// A slice, before its 200.
        Slice = "slice",
        /// The bytes merged since the last checkpoint.
        Checkpoint = "checkpoint",
        /// A file that is finished.
        Publication = "publication",
    }
}

/// The values of the label `request`.
const STORE_REQUESTS: [StoreRequest; 4] =
    [StoreRequest::Part, StoreRequest::Completion, StoreRequest::Object, StoreRequest::Other];

const fn request_label(request: StoreRequest) -> &'static str {
    match request {
        StoreRequest::Part => "part",
        StoreRequest::Completion => "completion",
        StoreRequest::Object => "object",
        StoreRequest::Other => "other",
    }
}

/// The reasons for which a request to the store is made again.
const STORE_TROUBLES: [StoreResult; 4] =
    [StoreResult::NoAnswer, StoreResult::SlowDown, StoreResult::Failed, StoreResult::Denied];

const fn trouble_label(result: StoreResult) -> &'static str {
    match result {
        StoreResult::Answered => "answered",
        StoreResult::NoAnswer => "no_answer",
        StoreResult::SlowDown => "slow_down",
        StoreResult::Failed => "failed",
        StoreResult::Denied => "denied",
    }
}

/// A single label.
type One = [(&'static str, &'static str); 1];

/// Two of them.
type Two = [(&'static str, &'static str); 2];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Request {
    route: &'static str,
    status: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Build {
    version: &'static str,
}

/// The state of all uploads at the last scan.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScanResult {
    /// Number of unfinished uploads.
    pub uploads: u64,
    /// Bytes that they hold and that are not merged.
    pub lag_bytes: u64,
    /// Time for which the oldest slice has waited that a merger could merge.
    pub lag: Duration,
    /// Bytes that wait for the store of objects.
    pub for_store: u64,
    /// True if no upload changed since the scan before, and none can change by itself.
    pub all_rest: bool,
}

/// The metrics. Copies count together.
#[derive(Clone)]
pub struct Metrics(Arc<Inner>);

struct Inner {
    registry: Registry,
    uploads_begun: Family<One, Counter>,
    uploads_resumed: Counter,
    uploads_finished: Counter,
    uploads_failed: Family<One, Counter>,
    uploads_unfinished: Gauge,
    slices_received: Counter,
    slices_arriving: Gauge,
    bytes_received: Counter,
    bytes_merged: Counter,
    bytes_published: Counter,
    bytes_sent: Counter,
    downloads_running: Gauge,
    files_deleted: Counter,
    lag_bytes: Gauge,
    lag_seconds: Gauge<f64, AtomicU64>,
    merger_starts: Counter,
    merger_exits: Family<One, Counter>,
    mergers_running: Gauge,
    mergers_waiting: Gauge,
    sync_times: Family<One, Histogram, fn() -> Histogram>,
    request_times: Family<Request, Histogram, fn() -> Histogram>,
    refused: Family<One, Counter>,
    hook_answers: Family<Two, Counter>,
    completions_waiting: Gauge,
    completions_given_up: Counter,
    store_parts_in_flight: Gauge,
    store_parts: Counter,
    store_sent_bytes: Counter,
    store_waiting_bytes: Gauge,
    store_failures: Family<One, Counter>,
    store_times: Family<One, Histogram, fn() -> Histogram>,
    connections: Gauge,
    disk_free: Gauge,
    disk_inodes_free: Gauge,
    last_scan: Gauge<f64, AtomicU64>,
}

/// Adds a metric to those that are shown. Help gets a full stop by itself, counters `_total`.
fn shown<M: Metric + Clone>(registry: &mut Registry, name: &str, help: &str, metric: M) -> M {
    registry.register(name, help, metric.clone());
    metric
}

/// Adds counters with one label of these values.
fn family<T: Copy>(
    registry: &mut Registry,
    (name, help): (&str, &str),
    key: &'static str,
    all: &[T],
    label: impl Fn(T) -> &'static str,
) -> Family<One, Counter> {
    let family: Family<One, Counter> = shown(registry, name, help, Family::default());
    for value in all {
        drop(family.get_or_create(&[(key, label(*value))]));
    }
    family
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics::new()
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

impl Metrics {
    /// Nothing counted yet. The process is taken to start now.
    pub fn new() -> Metrics {
        let mut all = Registry::default();
        about_the_process(&mut all);
        let r = all.sub_registry_with_prefix("bigup");
        let build: Family<Build, Gauge> =
            shown(r, "build_info", "Version of the daemon, with the value 1", <_>::default());
        build.get_or_create(&Build { version: env!("CARGO_PKG_VERSION") }).set(1);
        let inner = Inner {
            uploads_begun: family(
                r,
                ("uploads_begun", "Uploads begun"),
                "protocol",
                UploadProtocol::ALL,
                UploadProtocol::label,
            ),
            uploads_resumed: shown(
                r,
                "uploads_resumed",
                "Times that a client went on with an upload of which some slices were held and others not",
                <_>::default(),
            ),
            uploads_finished: shown(r, "uploads_finished", "Uploads finished and files published", <_>::default()),
            uploads_failed: family(
                r,
                ("uploads_failed", "Uploads that were removed unfinished, or cannot be published as things stand"),
                "reason",
                Failure::ALL,
                Failure::label,
            ),
            uploads_unfinished: shown(r, "uploads_unfinished", "Unfinished uploads in the data folder", <_>::default()),
            slices_received: shown(r, "slices_received", "Slices received and stored", <_>::default()),
            slices_arriving: shown(r, "slices_arriving", "Slices whose bodies are arriving", <_>::default()),
            bytes_received: shown(r, "received_bytes", "Bytes of slices received and stored", <_>::default()),
            bytes_merged: shown(r, "merged_bytes", "Bytes of slices merged and synced", <_>::default()),
            bytes_published: shown(r, "published_bytes", "Bytes of files published", <_>::default()),
            bytes_sent: shown(r, "sent_bytes", "Bytes of finished files sent to readers", <_>::default()),
            downloads_running: shown(
                r,
                "downloads_running",
                "Responses with finished files that are being sent",
                <_>::default(),
            ),
            files_deleted: shown(r, "files_deleted", "Finished files that clients removed", <_>::default()),
            lag_bytes: shown(r, "merge_lag_bytes", "Bytes of slices that are held and not merged", <_>::default()),
            lag_seconds: shown(
                r,
                "merge_lag_seconds",
                "Age of the oldest slice that could be merged and is not",
                <_>::default(),
            ),
            merger_starts: shown(r, "merger_starts", "Mergers started", <_>::default()),
            merger_exits: family(
                r,
                ("merger_exits", "Mergers ended, and those that could not be started"),
                "reason",
                MergerEnd::ALL,
                MergerEnd::label,
            ),
            mergers_running: shown(r, "mergers_running", "Mergers at work that this daemon started", <_>::default()),
            mergers_waiting: shown(r, "mergers_waiting", "Uploads that wait for a merger's turn", <_>::default()),
            sync_times: shown(
                r,
                "sync_duration_seconds",
                "Time to bring data to the disk",
                Family::new_with_constructor(|| Histogram::new(SYNC_TIMES)),
            ),
            request_times: shown(
                r,
                "request_duration_seconds",
                "Time from the head of a request to its answer",
                Family::new_with_constructor(|| Histogram::new(REQUEST_TIMES)),
            ),
            refused: family(
                r,
                ("refused", "Requests and connections refused since a limit was reached"),
                "limit",
                Limit::ALL,
                Limit::label,
            ),
            hook_answers: shown(r, "hook_answers", "Times that a hook was asked or told", <_>::default()),
            store_parts_in_flight: shown(
                r,
                "store_parts_in_flight",
                "Parts that mergers are sending to the store of objects",
                <_>::default(),
            ),
            store_parts: shown(r, "store_parts", "Parts that the store of objects has taken", <_>::default()),
            store_sent_bytes: shown(
                r,
                "store_sent_bytes",
                "Bytes of parts and objects that the store of objects has taken",
                <_>::default(),
            ),
            store_waiting_bytes: shown(
                r,
                "store_waiting_bytes",
                "Bytes in the data folder that the store of objects could take",
                <_>::default(),
            ),
            store_failures: family(
                r,
                ("store_failures", "Requests to the store of objects that failed, and are made again"),
                "reason",
                &STORE_TROUBLES,
                trouble_label,
            ),
            store_times: shown(
                r,
                "store_request_duration_seconds",
                "Durations of requests to the store of objects",
                Family::new_with_constructor(|| Histogram::new(REQUEST_TIMES)),
            ),
            completions_waiting: shown(
                r,
                "completions_waiting",
                "Finished files that on_complete is still to be told of",
                <_>::default(),
            ),
            completions_given_up: shown(
                r,
                "completions_given_up",
                "Finished files that on_complete was told of in vain, and is not told of any more",
                <_>::default(),
            ),
            connections: shown(r, "connections_open", "Connections that are served", <_>::default()),
            disk_free: shown(r, "disk_free_bytes", "Bytes that uploads may still take on the disk", <_>::default()),
            disk_inodes_free: shown(r, "disk_inodes_free", "Files that may still be made on the disk", <_>::default()),
            last_scan: shown(
                r,
                "last_scan_timestamp_seconds",
                "When the data folder was last looked at as a whole, since 1970",
                <_>::default(),
            ),
            registry: all,
        };
        for (hook, answer) in Hook::ALL.iter().flat_map(|hook| HookResult::ALL.iter().map(move |answer| (hook, answer)))
        {
            drop(inner.hook_answers.get_or_create(&hook_labels(*hook, *answer)));
        }
        for request in STORE_REQUESTS {
            drop(inner.store_times.get_or_create(&[("request", request_label(request))]));
        }
        for what in Synced::ALL {
            drop(inner.sync_times.get_or_create(&[("what", what.label())]));
        }
        for route in Route::ALL {
            drop(inner.request_times.get_or_create(&Request { route: route.label(), status: 200 }));
        }
        Metrics(Arc::new(inner))
    }

    /// All metrics in Prometheus' text format, version 0.0.4.
    pub fn text(&self) -> String {
        let mut text = String::new();
        prometheus_text::encode(&mut text, &self.0.registry).expect("a string takes everything");
        text
    }

    /// An upload was begun.
    pub fn upload_begun(&self, by: UploadProtocol) {
        self.0.uploads_begun.get_or_create(&[("protocol", by.label())]).inc();
    }

    /// A client went on with an upload that holds some slices.
    pub fn upload_resumed(&self) {
        self.0.uploads_resumed.inc();
    }

    /// The daemon itself published a file of this many bytes, which took so long.
    pub fn upload_finished(&self, bytes: u64, took: Duration) {
        self.0.uploads_finished.inc();
        self.0.bytes_published.inc_by(bytes);
        self.synced(Synced::Publication, took);
    }

    /// An upload failed.
    pub fn upload_failed(&self, why: Failure) {
        self.0.uploads_failed.get_or_create(&[("reason", why.label())]).inc();
    }

    /// A slice arrives, for as long as the result lives.
    pub fn slice_arrives(&self) -> GaugeGuard {
        GaugeGuard::one_more(&self.0.slices_arriving)
    }

    /// A slice was stored.
    pub fn slice_received(&self, bytes: u64) {
        self.0.slices_received.inc();
        self.0.bytes_received.inc_by(bytes);
    }

    /// A finished file is sent to a reader, for as long as the result lives.
    pub fn download_runs(&self) -> GaugeGuard {
        GaugeGuard::one_more(&self.0.downloads_running)
    }

    /// A client removed a finished file.
    pub fn file_deleted(&self) {
        self.0.files_deleted.inc();
    }

    /// Bytes of a finished file were read for a reader.
    pub fn sent(&self, bytes: u64) {
        self.0.bytes_sent.inc_by(bytes);
    }

    /// A merger was started, and is at work for as long as the result lives.
    pub fn merger_started(&self) -> GaugeGuard {
        self.0.merger_starts.inc();
        GaugeGuard::one_more(&self.0.mergers_running)
    }

    /// A merger ended, or could not be started.
    pub fn merger_ended(&self, how: MergerEnd) {
        self.0.merger_exits.get_or_create(&[("reason", how.label())]).inc();
    }

    /// An upload waits for a merger's turn, for as long as the result lives.
    pub fn merger_waits(&self) -> GaugeGuard {
        GaugeGuard::one_more(&self.0.mergers_waiting)
    }

    /// A merger told this.
    pub fn merger_told(&self, event: &MergerEvent) {
        match *event {
            MergerEvent::Checkpoint { bytes, sync_seconds } => {
                self.0.bytes_merged.inc_by(bytes);
                self.synced(Synced::Checkpoint, time(sync_seconds));
            }
            MergerEvent::Published { bytes, seconds } => self.upload_finished(bytes, time(seconds)),
            MergerEvent::PartBegins => {
                self.0.store_parts_in_flight.inc();
            }
            MergerEvent::StoreAnswered { request, result, bytes, seconds } => {
                if request == StoreRequest::Part {
                    self.0.store_parts_in_flight.dec();
                }
                if request == StoreRequest::Part && result == StoreResult::Answered && bytes > 0 {
                    self.0.store_parts.inc();
                }
                self.0.store_sent_bytes.inc_by(bytes);
                if result != StoreResult::Answered {
                    self.0.store_failures.get_or_create(&[("reason", trouble_label(result))]).inc();
                }
                let label = [("request", request_label(request))];
                self.0.store_times.get_or_create(&label).observe(time(seconds).as_secs_f64());
            }
            MergerEvent::Ended { .. } => {}
        }
    }

    /// A merger has ended with so many parts on their way, or with so many more ends than beginnings: events can be lost.
    pub fn parts_given_up(&self, number: i64) {
        self.0.store_parts_in_flight.dec_by(number);
    }

    /// Something was synced, which took so long.
    pub fn synced(&self, what: Synced, took: Duration) {
        self.0.sync_times.get_or_create(&[("what", what.label())]).observe(took.as_secs_f64());
    }

    /// A request got a response with this status after this time; also the limit for which it was refused, if there was
    /// one.
    pub fn answered(&self, route: Route, status: u16, limit: Option<Limit>, took: Duration) {
        self.0.request_times.get_or_create(&Request { route: route.label(), status }).observe(took.as_secs_f64());
        limit.into_iter().for_each(|limit| self.refused(limit));
    }

    /// Something was refused for this limit.
    pub fn refused(&self, limit: Limit) {
        self.0.refused.get_or_create(&[("limit", limit.label())]).inc();
    }

    /// A hook was asked or told, with this outcome.
    pub fn hook_answered(&self, hook: Hook, answer: HookResult) {
        self.0.hook_answers.get_or_create(&hook_labels(hook, answer)).inc();
    }

    /// Sets the number of completion records for on_complete.
    pub fn completions_wait(&self, number: u64) {
        self.0.completions_waiting.set(signed(number));
    }

    /// on_complete is not told of a finished file any more.
    pub fn completion_given_up(&self) {
        self.0.completions_given_up.inc();
    }

    /// A connection is served, for as long as the result lives.
    pub fn connection_served(&self) -> GaugeGuard {
        GaugeGuard::one_more(&self.0.connections)
    }

    /// The data folder was scanned as a whole.
    pub fn scanned(&self, scanned: ScanResult) {
        self.0.uploads_unfinished.set(signed(scanned.uploads));
        self.0.lag_bytes.set(signed(scanned.lag_bytes));
        self.0.lag_seconds.set(scanned.lag.as_secs_f64());
        self.0.store_waiting_bytes.set(signed(scanned.for_store));
        self.0.last_scan.set(now());
    }

    /// So many bytes are left for uploads.
    pub fn disk_free(&self, bytes: u64) {
        self.0.disk_free.set(signed(bytes));
    }

    /// Sets the number of files that can still be made for uploads.
    pub fn disk_inodes_free(&self, inodes: u64) {
        self.0.disk_inodes_free.set(signed(inodes));
    }
}

fn hook_labels(hook: Hook, answer: HookResult) -> Two {
    [("hook", hook.label()), ("answer", answer.label())]
}

/// Metrics with names that all programs share, and so without a prefix.
fn about_the_process(registry: &mut Registry) {
    let help = "When the process started, since 1970";
    let started: Gauge<f64, AtomicU64> = shown(registry, "process_start_time_seconds", help, <_>::default());
    started.set(now());
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Something counts in a gauge for as long as this lives.
#[derive(Debug)]
pub struct GaugeGuard(Gauge);

impl GaugeGuard {
    fn one_more(gauge: &Gauge) -> GaugeGuard {
        gauge.inc();
        GaugeGuard(gauge.clone())
    }
}

impl Drop for GaugeGuard {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn assert_has(metrics: &Metrics, lines: &[&str]) {
        let text = metrics.text();
        for line in lines {
            assert!(text.lines().any(|is| is == *line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn every_value_of_a_bounded_label_is_there_from_the_start() {
        let metrics = Metrics::new();
        let text = metrics.text();
        let count = |start: &str| text.lines().filter(|line| line.starts_with(start) && line.ends_with(" 0")).count();
        assert_eq!(count("bigup_refused_total{limit="), Limit::ALL.len());
        assert_eq!(count("bigup_merger_exits_total{reason="), MergerEnd::ALL.len());
        assert_eq!(count("bigup_uploads_failed_total{reason="), Failure::ALL.len());
        assert_eq!(count("bigup_uploads_begun_total{protocol="), UploadProtocol::ALL.len());
        assert_eq!(count("bigup_sync_duration_seconds_count{what="), Synced::ALL.len());
        assert_has(&metrics, &[concat!("bigup_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1")]);
    }

    #[test]
    fn what_mergers_tell_counts() {
        let metrics = Metrics::new();
        metrics.merger_told(&MergerEvent::Checkpoint { bytes: 7, sync_seconds: 0.5 });
        metrics.merger_told(&MergerEvent::Checkpoint { bytes: 5, sync_seconds: 20.0 });
        metrics.merger_told(&MergerEvent::Published { bytes: 12, seconds: 0.002 });
        assert_has(
            &metrics,
            &[
                "bigup_merged_bytes_total 12",
                "bigup_published_bytes_total 12",
                "bigup_uploads_finished_total 1",
                "bigup_sync_duration_seconds_sum{what=\"checkpoint\"} 20.5",
                "bigup_sync_duration_seconds_bucket{what=\"checkpoint\",le=\"10\"} 1",
                "bigup_sync_duration_seconds_count{what=\"publication\"} 1",
            ],
        );
    }

    #[test]
    fn requests_to_the_store_are_counted_by_what_they_came_to() {
        let metrics = Metrics::new();
        let answered = |request, result, bytes| MergerEvent::StoreAnswered { request, result, bytes, seconds: 0.5 };
        for _ in 0..3 {
            metrics.merger_told(&MergerEvent::PartBegins);
        }
        metrics.merger_told(&answered(StoreRequest::Part, StoreResult::Answered, 7));
        metrics.merger_told(&answered(StoreRequest::Part, StoreResult::SlowDown, 0));
        metrics.merger_told(&answered(StoreRequest::Object, StoreResult::Answered, 5));
        metrics.merger_told(&answered(StoreRequest::Other, StoreResult::Answered, 0));
        assert_has(
            &metrics,
            &[
                "bigup_store_parts_in_flight 1",
                "bigup_store_parts_total 1",
                "bigup_store_sent_bytes_total 12",
                "bigup_store_failures_total{reason=\"slow_down\"} 1",
                "bigup_store_failures_total{reason=\"denied\"} 0",
                "bigup_store_request_duration_seconds_count{request=\"part\"} 2",
                "bigup_store_request_duration_seconds_count{request=\"completion\"} 0",
            ],
        );
        metrics.parts_given_up(1);
        assert_has(&metrics, &["bigup_store_parts_in_flight 0"]);
    }

    #[test]
    fn gauges_count_what_lives() {
        let metrics = Metrics::new();
        let (one, two) = (metrics.slice_arrives(), metrics.slice_arrives());
        assert_has(&metrics, &["bigup_slices_arriving 2"]);
        drop((one, two));
        assert_has(&metrics, &["bigup_slices_arriving 0"]);
        let merger = metrics.merger_started();
        assert_has(&metrics, &["bigup_mergers_running 1", "bigup_merger_starts_total 1"]);
        drop(merger);
        assert_has(&metrics, &["bigup_mergers_running 0", "bigup_merger_starts_total 1"]);
        metrics.disk_free(u64::MAX);
        metrics.scanned(ScanResult {
            uploads: 3,
            lag_bytes: 9,
            lag: Duration::from_millis(1500),
            for_store: 11,
            all_rest: false,
        });
        assert_has(
            &metrics,
            &[
                "bigup_disk_free_bytes 9223372036854775807",
                "bigup_merge_lag_bytes 9",
                "bigup_merge_lag_seconds 1.5",
                "bigup_store_waiting_bytes 11",
            ],
        );
    }
}
