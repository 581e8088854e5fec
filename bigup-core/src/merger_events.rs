//! Events of a merger for the process that started it, on its standard output: a line of JSON for each event.
//!
//! It is told for counting only. Nothing waits for it, nothing is decided by it, and an event that finds no reader is lost.

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Something that a merger did.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum MergerEvent {
    /// The bytes merged since the previous checkpoint are synced.
    Checkpoint {
        /// Bytes merged. A slice that was merged again counts again.
        bytes: u64,
        /// Duration of the sync.
        sync_seconds: f64,
    },
    /// The file is finished.
    Published {
        /// Its size.
        bytes: u64,
        /// Duration of the publication: syncs, and reading the file if its digest was not known yet.
        seconds: f64,
    },
    /// A part begins to go to the store of objects.
    PartBegins,
    /// A request to the store ended. One that is repeated ends each time.
    StoreAnswered {
        /// The kind of request.
        request: StoreRequest,
        /// The end that it came to.
        result: StoreResult,
        /// Bytes that it stored; 0 unless it succeeded.
        bytes: u64,
        /// Its duration.
        seconds: f64,
    },
    /// The merger leaves.
    Ended {
        /// The reason.
        how: MergerExit,
    },
}

/// A kind of request to the store of objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StoreRequest {
    /// Stores a part.
    Part,
    /// Makes the parts an object.
    Completion,
    /// Stores a whole object, or a note.
    Object,
    /// Anything else: looks, lists, removes, begins.
    Other,
}

/// The end of a request to the store of objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StoreResult {
    /// It was answered. That something is not there is an answer.
    Answered,
    /// No answer came, or one that makes no sense.
    NoAnswer,
    /// The store asks for fewer requests (429, 503, SlowDown).
    SlowDown,
    /// The store failed (5xx).
    Failed,
    /// The credentials do not permit it (401, 403).
    Denied,
}

/// Is told of requests to the store.
pub type StoreObserver = dyn Fn(MergerEvent) + Send + Sync;

/// The reason a merger leaves that did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MergerExit {
    /// The file is finished.
    Published,
    /// Nothing came for a while.
    Idle,
    /// It was told to stop.
    Stopped,
}

impl MergerEvent {
    /// The line, with its end. It has fewer bytes than a pipe takes at once or not at all (PIPE_BUF, pipe(7)).
    pub fn line(&self) -> String {
        serde_json::to_string(self).expect("numbers always serialise") + "\n"
    }

    /// The event of a line. `None` if this version does not know it.
    pub fn parse(line: &str) -> Option<MergerEvent> {
        serde_json::from_str(line).ok()
    }
}

/// A time of an event. Zero if `seconds` is no valid time, as in a line that another program wrote.
pub fn time(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_lines_and_read_again() {
        let published = MergerEvent::Published { bytes: u64::MAX, seconds: 1.5 };
        let line = published.line();
        assert_eq!(line, "{\"event\":\"published\",\"bytes\":18446744073709551615,\"seconds\":1.5}\n");
        let checkpoint = MergerEvent::Checkpoint { bytes: 3, sync_seconds: 1e-9 };
        let (request, result) = (StoreRequest::Completion, StoreResult::SlowDown);
        let answered = MergerEvent::StoreAnswered { request, result, bytes: 0, seconds: 0.25 };
        let ended = MergerEvent::Ended { how: MergerExit::Idle };
        for event in [published, checkpoint, MergerEvent::PartBegins, answered, ended] {
            assert_eq!(MergerEvent::parse(&event.line()), Some(event));
            assert_eq!(event.line().matches('\n').count(), 1);
            assert!(event.line().len() < 4096);
        }
    }

    #[test]
    fn what_is_no_event_is_none() {
        for line in ["", "{", "hello", r#"{"event":"later"}"#, r#"{"event":"checkpoint","bytes":-1,"sync_seconds":0}"#]
        {
            assert_eq!(MergerEvent::parse(line), None, "{line}");
        }
        assert_eq!([-1.0, f64::NAN, f64::INFINITY].map(time), [Duration::ZERO; 3]);
        assert_eq!(time(0.25), Duration::from_millis(250));
    }
}
