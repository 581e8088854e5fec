//! The reasons for which a request to the store fails.

use crate::merger_events::StoreResult;
use std::error::Error;
use std::io;

/// A failed request to the store.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the store: {what}: {why}")]
pub struct ObjectError {
    /// The thing that was asked for.
    what: &'static str,
    why: Reason,
}

/// The reason.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Reason {
    /// No answer came.
    #[error("no answer: {0}")]
    NoAnswer(String),
    /// The store refuses.
    #[error("the answer is {}", answer(*status, code, message))]
    Refused {
        /// The HTTP status.
        status: u16,
        /// The code in the body, like `NoSuchKey`.
        code: String,
        /// The store's own words.
        message: String,
    },
    /// The request could not be made.
    #[error("{0}")]
    NotMade(String),
    /// The answer makes no sense.
    #[error("the answer cannot be understood: {0}")]
    Senseless(String),
}

/// The parts of an answer that it has: that to a HEAD has no more than a status.
fn answer(status: u16, code: &str, message: &str) -> String {
    let words = [code, message].into_iter().filter(|word| !word.is_empty());
    [status.to_string()].into_iter().chain(words.map(str::to_owned)).collect::<Vec<_>>().join(": ")
}

impl ObjectError {
    pub(super) fn new(what: &'static str, why: Reason) -> ObjectError {
        ObjectError { what, why }
    }

    /// The refusal that an answer is, by its status and its body.
    pub(super) fn refused(what: &'static str, status: u16, body: &str) -> ObjectError {
        let part = |tag: &str| {
            let (_, rest) = body.split_once(&format!("<{tag}>"))?;
            rest.split_once(&format!("</{tag}>")).map(|(text, _)| text.to_owned())
        };
        let code = part("Code").unwrap_or_default();
        let message = part("Message").unwrap_or_default();
        ObjectError::new(what, Reason::Refused { status, code, message })
    }

    /// The HTTP status of a refusal. `None` if no answer came.
    pub fn status(&self) -> Option<u16> {
        if let Reason::Refused { status, .. } = self.why { Some(status) } else { None }
    }

    /// True if the bucket is not there.
    pub fn is_without_bucket(&self) -> bool {
        self.has_code("NoSuchBucket")
    }

    /// True if the multipart upload is not there. Another 404, of a bucket that is away or of a server in between, says
    /// nothing of it.
    pub(super) fn is_without_upload(&self) -> bool {
        self.has_code("NoSuchUpload")
    }

    /// The end that the request came to, as it is counted.
    pub(super) fn result(&self) -> StoreResult {
        match &self.why {
            Reason::NoAnswer(_) | Reason::Senseless(_) => StoreResult::NoAnswer,
            Reason::Refused { status: 429 | 503, .. } => StoreResult::SlowDown,
            Reason::Refused { code, .. } if code == "SlowDown" => StoreResult::SlowDown,
            Reason::Refused { status, .. } if *status >= 500 => StoreResult::Failed,
            Reason::Refused { status: 401 | 403, .. } | Reason::NotMade(_) => StoreResult::Denied,
            Reason::Refused { .. } => StoreResult::Answered,
        }
    }

    /// True if the refusal has this code.
    fn has_code(&self, wanted: &str) -> bool {
        matches!(&self.why, Reason::Refused { code, .. } if code == wanted)
    }

    /// The same request can succeed a moment later.
    pub(super) fn may_pass(&self) -> bool {
        match &self.why {
            Reason::NoAnswer(_) | Reason::Senseless(_) => true,
            Reason::Refused { status, code, .. } => {
                *status >= 500 || [408, 429].contains(status) || ["SlowDown", "RequestTimeout"].contains(&code.as_str())
            }
            Reason::NotMade(_) => false,
        }
    }

    /// The error that an error of the system carries, if it is one of the store.
    pub fn of(error: &io::Error) -> Option<&ObjectError> {
        let inner: &(dyn Error + 'static) = error.get_ref()?;
        inner.downcast_ref()
    }
}

impl From<ObjectError> for io::Error {
    fn from(error: ObjectError) -> io::Error {
        let kind = match error.why {
            Reason::NoAnswer(_) => io::ErrorKind::NotConnected,
            _ => io::ErrorKind::Other,
        };
        io::Error::new(kind, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_tells_its_code_and_if_it_may_pass() {
        let body = "<?xml version=\"1.0\"?><Error><Code>SlowDown</Code><Message>Reduce it.</Message></Error>";
        let slow = ObjectError::refused("storing x", 400, body);
        assert!(slow.may_pass() && slow.has_code("SlowDown"));
        assert_eq!(slow.to_string(), "the store: storing x: the answer is 400: SlowDown: Reduce it.");
        let forbidden = ObjectError::refused("storing x", 403, "");
        assert!(!forbidden.may_pass());
        assert!(forbidden.to_string().ends_with("the answer is 403"));
        assert!(ObjectError::refused("x", 503, "").may_pass());
        let error: io::Error = slow.clone().into();
        assert_eq!(ObjectError::of(&error), Some(&slow));
        assert_eq!(ObjectError::of(&io::Error::other("x")), None);
    }
}
