//! Errors of requests, and of the preparation of a client.

use crate::client::address::UrlError;
use crate::client::connect;
use crate::client::tls::{CertificateProblem, TlsFailure};
use bigup_core::protocol::native::ErrorCode;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Why a request has no result.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// No answer at all.
    #[error("no answer from {url}: {}", connect::in_words(cause))]
    Transport {
        /// The server, and the proxy on the way to it.
        url: String,
        /// The failure.
        cause: Box<ureq::Error>,
    },
    /// The name of the server or of the proxy cannot be resolved, and nothing was ever heard from the server: most
    /// likely the name is wrong.
    #[error("{url}: {why}: check the name, or this machine's network")]
    Unresolved {
        /// The server, and the proxy on the way to it.
        url: String,
        /// The name, and the system's message.
        why: String,
    },
    /// A proxy on the way says no, and would say it again.
    #[error("{url}: {why}")]
    Proxy {
        /// The server, and the proxy on the way to it.
        url: String,
        /// The words of the proxy, and the remedy.
        why: String,
    },
    /// TLS fails, and would fail again.
    #[error("{url}: {failure}")]
    Tls {
        /// The server.
        url: String,
        /// The failure of TLS.
        failure: TlsFailure,
        /// This server answered as it should before, so that something between us and it may have changed for a while.
        met: bool,
    },
    /// The server said no.
    #[error("{message}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// Why, for programs.
        code: ErrorCode,
        /// Why, for people; printable.
        message: String,
        /// The wait that it asks for.
        retry_after: Option<Duration>,
    },
    /// The server is at another address, mostly https:// in place of http://. The client does not follow: the user
    /// decides who gets the token.
    #[error("{url} answers {status} and sends us to {location}")]
    Moved {
        /// The server.
        url: String,
        /// HTTP status.
        status: u16,
        /// The address that the server names, without a query; printable.
        location: String,
        /// This server answered as it should before.
        met: bool,
    },
    /// Somebody else answered, like a proxy.
    #[error("{url} answers {status} with something that no bigup server says: {excerpt}{}", foreign_hint(*status))]
    Foreign {
        /// The server.
        url: String,
        /// HTTP status.
        status: u16,
        /// Its begin; printable.
        excerpt: String,
        /// This server answered as it should before.
        met: bool,
        /// The wait that it asks for.
        retry_after: Option<Duration>,
    },
    /// It failed again and again.
    #[error("gave up after {attempts} attempts in {seconds} s: {last}")]
    GaveUp {
        /// Number of attempts.
        attempts: u32,
        /// For how long.
        seconds: u64,
        /// The last failure.
        last: Box<CallError>,
    },
    /// Something else failed meanwhile.
    #[error("stopped")]
    Stopped,
}

/// Why a client cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The URL of the server cannot be used.
    #[error("{0}")]
    Url(#[from] UrlError),
    /// The proxy that the environment names cannot be used.
    #[error("{variable}={url}: {problem}")]
    Proxy {
        /// Name of the environment variable.
        variable: String,
        /// Its value, without user and password; printable.
        url: String,
        /// The fault in it.
        problem: ProxyProblem,
    },
    /// A certificate or key cannot be used.
    #[error("{0}")]
    Certificates(#[from] CertificateProblem),
    /// The token cannot be used.
    #[error("{0}")]
    Token(#[from] TokenError),
}

/// Why a proxy cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProxyProblem {
    /// The value is no URL.
    #[error("this is no URL of a proxy; it looks like http://HOST:PORT")]
    NotAUrl,
    /// The scheme is unknown.
    #[error("there are no proxies of the kind {kind:?}; known are {known}")]
    Kind {
        /// The scheme.
        kind: String,
        /// All schemes that work.
        known: String,
    },
    /// The port is no number from 1 to 65535.
    #[error("the port {0:?} is none: ports go from 1 to 65535")]
    Port(String),
    /// The URL has no host.
    #[error("the proxy's host is missing; it looks like http://HOST:PORT")]
    NoHost,
    /// The HTTP library refuses the URL.
    #[error("this proxy cannot be used: {0}")]
    Unusable(String),
}

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The file cannot be read.
    #[error("cannot read the token in {path}: {cause}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        cause: io::Error,
    },
    /// The file holds something else.
    #[error("{0} is not a token and nothing else")]
    NotInFile(PathBuf),
    /// The text is empty, or holds something else than visible ASCII.
    #[error("this is no token: a token is visible ASCII")]
    Invalid,
    /// The system gives no random bytes.
    #[error("cannot make a token: {0}")]
    NoRandomness(String),
}

impl CallError {
    /// The server's error code, where it sent one; also from the last of several attempts.
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            CallError::Refused { code, .. } => Some(*code),
            CallError::GaveUp { last, .. } => last.code(),
            _ => None,
        }
    }

    /// The last failure, where it was tried several times; else this one.
    pub fn last(&self) -> &CallError {
        match self {
            CallError::GaveUp { last, .. } => last.last(),
            error => error,
        }
    }

    /// The same in a few words, for a line with little room.
    pub fn in_short(&self) -> String {
        let text = match self {
            CallError::Transport { cause, .. } => connect::in_short(cause),
            CallError::Refused { code: ErrorCode::NoSpace, .. } => "server full",
            CallError::Refused { code: ErrorCode::Paused, .. } => "paused",
            CallError::Refused { code: ErrorCode::Damaged, .. } => "damaged",
            CallError::Refused { status: 429 | 503, .. } => "server busy",
            CallError::Refused { status, .. } => return format!("server error {status}"),
            CallError::Foreign { status, .. } => return format!("proxy error {status}"),
            CallError::GaveUp { last, .. } => return last.in_short(),
            CallError::Tls { .. } => "TLS fails",
            CallError::Unresolved { .. } => "name unknown",
            CallError::Proxy { .. } => "proxy refuses",
            CallError::Moved { .. } => "moved",
            CallError::Stopped => "stopped",
        };
        text.to_owned()
    }

    /// True if the same request can succeed later without any change. False for a full disk, except where the server
    /// asks for a retry.
    pub fn is_temporary(&self) -> bool {
        match self {
            CallError::Transport { .. } => true,
            CallError::Refused { code: ErrorCode::Damaged, .. } => true,
            CallError::Refused { status: 507, retry_after, .. }
            | CallError::Foreign { status: 507, retry_after, .. } => retry_after.is_some(),
            CallError::Refused { status, .. } => matches!(status, 408 | 425 | 429 | 500 | 502 | 503 | 504),
            // Too much in this request for the proxy, or a proxy that wants a password: that stays so.
            CallError::Foreign { status: 407 | 413 | 414 | 431, .. } => false,
            // Gateways have numbers of their own for temporary failures.
            CallError::Foreign { status: 408 | 425 | 429 | 500..=599, .. } => true,
            // A router or a captive portal in the place of a server that was there a moment ago.
            CallError::Foreign { met, .. } | CallError::Moved { met, .. } | CallError::Tls { met, .. } => *met,
            CallError::GaveUp { last, .. } => last.is_temporary(),
            CallError::Unresolved { .. } | CallError::Proxy { .. } | CallError::Stopped => false,
        }
    }

    /// True if the disk of the server is full: the status is 507.
    pub fn is_full(&self) -> bool {
        matches!(self, CallError::Refused { status: 507, .. } | CallError::Foreign { status: 507, .. })
    }

    /// The wait that the server asks for, where it does.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            CallError::Refused { retry_after, .. } | CallError::Foreign { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

/// The reason of a foreign response, where the status tells it.
fn foreign_hint(status: u16) -> &'static str {
    match status {
        407 => "; it is a proxy that wants a user and a password: give them in its URL, http://USER:PASSWORD@HOST:PORT",
        413 => "; a proxy in front of the server takes no slices as large as these",
        _ => "",
    }
}
