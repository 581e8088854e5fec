//! Errors of the library in words for the user of the command line: the text of the error, and the flag that helps.

use crate::client::address::UrlError;
use crate::client::error::{CallError, ClientError};
use crate::client::retry::WhenFull;
use crate::client::tls::{CertificateProblem, TlsFailure};
use crate::download::error::DownloadError;
use crate::pipeline::error::SliceSizeError;
use crate::source::error::SourceError;
use crate::upload::error::UploadError;
use anyhow::anyhow;

/// The flags of a push that decide about advice.
#[derive(Clone, Copy, Debug)]
pub struct PushFlags {
    /// `--replace` is given.
    pub replace: bool,
    /// `--when-full`.
    pub when_full: WhenFull,
}

/// The text for a failed push.
pub fn of_upload(error: &UploadError, flags: PushFlags) -> String {
    format!("{error}{}", advice(error, flags))
}

/// The advice behind the text of `error`; empty where there is none.
pub fn advice(error: &UploadError, flags: PushFlags) -> String {
    match error {
        UploadError::Source(error) | UploadError::Changed(error) => source_advice(error),
        UploadError::SliceChanged(_) => "; push it again".to_owned(),
        UploadError::SliceSize(error) => slice_size_advice(error),
        // The server's own message may name the flag.
        UploadError::Exists(failed) if flags.replace || failed.error.to_string().contains("--replace") => String::new(),
        UploadError::Exists(_) => " (--replace replaces it)".to_owned(),
        UploadError::OtherContent { .. } | UploadError::UnknownContent => "; --replace replaces it".to_owned(),
        UploadError::DigestMismatch { .. } => "; push it again with --replace".to_owned(),
        UploadError::NoSpace(_) if flags.when_full == WhenFull::Stop => {
            " (--when-full wait waits for disk space)".to_owned()
        }
        UploadError::Lost | UploadError::CannotRepeat => "; run the same command again".to_owned(),
        error => error.call().map(call_advice).unwrap_or_default().to_owned(),
    }
}

/// The text for a failed download.
pub fn of_download(error: &DownloadError) -> String {
    let advice = match error {
        DownloadError::Exists(_) => " (--replace replaces it)",
        DownloadError::Changed(_) | DownloadError::Replaced(_) => "; run the same command again",
        DownloadError::Busy(_) => "; wait for its end",
        DownloadError::Call(error) => call_advice(error),
        _ => "",
    };
    format!("{error}{advice}")
}

/// The text for an input that cannot be read.
pub fn of_source(error: &SourceError) -> String {
    format!("{error}{}", source_advice(error))
}

/// The text for a failed request.
pub fn of_call(error: &CallError) -> String {
    format!("{error}{}", call_advice(error))
}

/// A failed request, with its text.
pub fn failed_call(error: CallError) -> anyhow::Error {
    anyhow!(of_call(&error))
}

/// The text for a client that cannot be made.
pub fn of_client(error: &ClientError) -> String {
    match error {
        ClientError::Url(UrlError::Secret(_)) => {
            format!("{error}: give a token by --token-file or BIGUP_TOKEN, and the URL without them")
        }
        ClientError::Certificates(problem) => of_certificates(problem),
        error => error.to_string(),
    }
}

/// A client that cannot be made, with the text for it.
pub fn failed_client(error: ClientError) -> anyhow::Error {
    anyhow!(of_client(&error))
}

fn of_certificates(problem: &CertificateProblem) -> String {
    match problem {
        CertificateProblem::CaFile(_) | CertificateProblem::Authority { .. } => format!("--ca-cert: {problem}"),
        CertificateProblem::NoAuthorities(_) => {
            format!("{problem}, or give the server's authority by --ca-cert")
        }
        CertificateProblem::ClientCertFile(_) | CertificateProblem::ClientCert { .. } => {
            format!("--client-cert: {problem}")
        }
        CertificateProblem::ClientKeyFile(_)
        | CertificateProblem::ClientKey { .. }
        | CertificateProblem::KeyOfAnother { .. } => format!("--client-key: {problem}"),
    }
}

fn source_advice(error: &SourceError) -> String {
    match error {
        SourceError::NotAFile(_) => "; pipes are read from standard input (-)".to_owned(),
        SourceError::HiddenContent(path) => {
            format!("; push what it says: bigup-cli push --name NAME - < {}", path.display())
        }
        error if error.is_change() => "; push it again".to_owned(),
        SourceError::NoCommand => ": --command needs a command behind --".to_owned(),
        _ => String::new(),
    }
}

fn slice_size_advice(error: &SliceSizeError) -> String {
    match error {
        SliceSizeError::TooMany { fitting, .. } => format!("; --slice-size {fitting} would do"),
        SliceSizeError::StreamTooLong(_) => ": use a larger --slice-size".to_owned(),
        SliceSizeError::NoMemory(_) => "; use a smaller --slice-size, or less --senders".to_owned(),
        SliceSizeError::FileTooLarge(_) => String::new(),
    }
}

fn call_advice(error: &CallError) -> &'static str {
    match error.last() {
        CallError::Moved { .. } => ": give that server as --url",
        CallError::Foreign { status: 413, .. } => {
            ": push with a smaller --slice-size, or raise its limit (client_max_body_size of nginx)"
        }
        CallError::Tls { failure, .. } => match failure {
            TlsFailure::UnknownAuthority => ", and give its authority's certificate by --ca-cert",
            TlsFailure::OtherName { .. } => "; use such a name in --url",
            TlsFailure::ClientCertificateRequired => ": give --client-cert and --client-key",
            TlsFailure::ClientCertificateRefused(_) => ", by --client-cert and --client-key",
            TlsFailure::Other(_) => "",
        },
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upload::error::Step;
    use bigup_core::protocol::native::ErrorCode;
    use std::path::PathBuf;

    const FLAGS: PushFlags = PushFlags { replace: false, when_full: WhenFull::Stop };

    fn refused(status: u16, code: ErrorCode, message: &str) -> UploadError {
        let error = CallError::Refused { status, code, message: message.to_owned(), retry_after: None };
        UploadError::of_call(Step::Ask, error)
    }

    #[test]
    fn a_flag_that_helps_is_named_and_none_that_is_given() {
        let exists = refused(409, ErrorCode::Exists, "it exists");
        assert_eq!(of_upload(&exists, FLAGS), "it exists (--replace replaces it)");
        assert_eq!(of_upload(&exists, PushFlags { replace: true, ..FLAGS }), "it exists");
        let told = refused(409, ErrorCode::Exists, "push with --replace");
        assert_eq!(of_upload(&told, FLAGS), "push with --replace");
        let full = refused(507, ErrorCode::NoSpace, "full");
        assert_eq!(of_upload(&full, FLAGS), "full (--when-full wait waits for disk space)");
        assert_eq!(of_upload(&full, PushFlags { when_full: WhenFull::Wait, ..FLAGS }), "full");
    }

    #[test]
    fn a_file_of_proc_has_the_command_that_pushes_it() {
        let error = SourceError::HiddenContent(PathBuf::from("/proc/version")).into();
        assert!(
            of_upload(&error, FLAGS).ends_with("; push what it says: bigup-cli push --name NAME - < /proc/version")
        );
    }

    #[test]
    fn advice_comes_last_also_after_retries() {
        let last = CallError::Moved { url: "u".to_owned(), status: 301, location: "l".to_owned(), met: true };
        let error = CallError::GaveUp { attempts: 2, seconds: 1, last: Box::new(last) };
        assert!(of_call(&error).ends_with("sends us to l: give that server as --url"));
        let size = SliceSizeError::TooMany { number: 1_000_001, slice_size: 1024, fitting: 2048 };
        assert!(of_upload(&size.into(), FLAGS).ends_with("; --slice-size 2048 would do"));
        let secret = ClientError::Url(UrlError::Secret("http://***@h".to_owned()));
        assert!(of_client(&secret).contains("--token-file"));
    }
}
