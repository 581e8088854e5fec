//! TLS: trusted certificates, our own certificate, and the meaning of a failure.

use bigup_core::pem::{self, PemError};
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{AlertDescription, CertificateError, Error, InvalidMessage, RootCertStore};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};
use ureq::tls::{Certificate, ClientCert, PrivateKey, RootCerts, TlsConfig};

/// Certificates for a server at https://, as files in PEM.
#[derive(Clone, Debug, Default)]
pub struct Certificates {
    /// Authorities that the server's certificate may be of. `None`: those of the system.
    pub ca_cert: Option<PathBuf>,
    /// Certificate to show to a server that asks for one. `None`: none is shown.
    pub client_cert: Option<PathBuf>,
    /// Private key of the client certificate.
    pub client_key: Option<PathBuf>,
}

/// The way to certificate authorities of the system.
const INSTALL_AUTHORITIES: &str =
    if cfg!(windows) { "let Windows Update install them" } else { "install its package ca-certificates" };

/// Why a certificate or key of ours cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateProblem {
    /// The file with the authorities holds none.
    #[error("{0}")]
    CaFile(PemError),
    /// An authority in the file is no valid certificate.
    #[error("{path}: certificate {number} in it: {cause}")]
    Authority {
        /// The file.
        path: PathBuf,
        /// Its place in the file, from 1.
        number: usize,
        /// The reason.
        cause: Error,
    },
    /// The system has no certificate authorities. The text is empty, or the reason in parentheses.
    #[error("no certificate authorities are installed on this system{0}: {INSTALL_AUTHORITIES}")]
    NoAuthorities(String),
    /// The file of the client certificate holds none.
    #[error("{0}")]
    ClientCertFile(PemError),
    /// The file of the client key holds none.
    #[error("{0}")]
    ClientKeyFile(PemError),
    /// The client key is of another certificate.
    #[error("the key in {key} is not that of the first certificate in {cert}")]
    KeyOfAnother {
        /// The file with the certificate.
        cert: PathBuf,
        /// The file with the key.
        key: PathBuf,
    },
    /// The client certificate is not valid.
    #[error("{path}: {cause}")]
    ClientCert {
        /// The file.
        path: PathBuf,
        /// The reason.
        cause: CertificateError,
    },
    /// The client key cannot be used.
    #[error("{path}: {cause}")]
    ClientKey {
        /// The file.
        path: PathBuf,
        /// The reason.
        cause: String,
    },
}

/// Why TLS with the server fails, in a way that the next attempt would meet again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TlsFailure {
    /// The certificate of the server is of no authority that the client trusts.
    #[error("the server's certificate is of no authority that we trust: make sure that this is the server you mean")]
    UnknownAuthority,
    /// The certificate of the server is for other names.
    #[error("the server's certificate is not for {expected}: it names {presented}")]
    OtherName {
        /// The host in the URL.
        expected: String,
        /// The names in the certificate.
        presented: String,
    },
    /// The server wants a client certificate.
    #[error("the server wants a client certificate")]
    ClientCertificateRequired,
    /// The server refuses the client certificate; the text is its alert.
    #[error("the server refuses the client certificate ({0}): give one of an authority that it trusts, not expired")]
    ClientCertificateRefused(String),
    /// Any other failure.
    #[error("{0}")]
    Other(String),
}

/// The settings with which connections are made.
///
/// # Errors
/// A file cannot be used, or there is nobody to trust.
pub fn config(files: &Certificates) -> Result<TlsConfig, CertificateProblem> {
    let authorities = match &files.ca_cert {
        Some(path) => own_authorities(path)?,
        None => authorities_of_the_system()?,
    };
    let client_cert = match (&files.client_cert, &files.client_key) {
        (Some(cert), Some(key)) => Some(client_cert(cert, key)?),
        _ => None,
    };
    Ok(TlsConfig::builder()
        .unversioned_rustls_crypto_provider(Arc::new(ring::default_provider()))
        .root_certs(RootCerts::from(owned(&authorities)))
        .client_cert(client_cert)
        .build())
}

fn own_authorities(path: &Path) -> Result<Vec<CertificateDer<'static>>, CertificateProblem> {
    let found = pem::certificates(path).map_err(CertificateProblem::CaFile)?;
    for (i, der) in found.iter().enumerate() {
        let refused = |cause| CertificateProblem::Authority { path: path.to_owned(), number: i + 1, cause };
        RootCertStore::empty().add(der.clone()).map_err(refused)?;
    }
    Ok(found)
}

fn authorities_of_the_system() -> Result<Vec<CertificateDer<'static>>, CertificateProblem> {
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        log::debug!("{error}");
    }
    if found.certs.is_empty() {
        let why = found.errors.first().map(|error| format!(" ({error})")).unwrap_or_default();
        return Err(CertificateProblem::NoAuthorities(why));
    }
    Ok(found.certs)
}

fn client_cert(cert: &Path, key: &Path) -> Result<ClientCert, CertificateProblem> {
    let chain = pem::certificates(cert).map_err(CertificateProblem::ClientCertFile)?;
    let der = pem::private_key(key).map_err(CertificateProblem::ClientKeyFile)?;
    let unusable = |cause: String| CertificateProblem::ClientKey { path: key.to_owned(), cause };
    // The library would panic at what does not fit, and wants the key as PEM.
    CertifiedKey::from_der(chain.clone(), der, &ring::default_provider()).map_err(|error| match error {
        Error::InconsistentKeys(_) => CertificateProblem::KeyOfAnother { cert: cert.to_owned(), key: key.to_owned() },
        Error::InvalidCertificate(cause) => CertificateProblem::ClientCert { path: cert.to_owned(), cause },
        error => unusable(error.to_string()),
    })?;
    let text = std::fs::read(key).map_err(|error| unusable(error.to_string()))?;
    let chain: Vec<_> = owned(&chain).collect();
    let key = PrivateKey::from_pem(&text).map_err(|error| unusable(error.to_string()))?;
    Ok(ClientCert::new_with_certs(&chain, key))
}

/// The library's own form of certificates.
fn owned(certificates: &[CertificateDer<'static>]) -> impl Iterator<Item = Certificate<'static>> {
    certificates.iter().map(|der| Certificate::from_der(der).to_owned())
}

/// The failure, where `error` is one of TLS that the next attempt would meet again. `None`: it may
/// pass, or has nothing to do with TLS.
pub fn diagnosis(error: &ureq::Error) -> Option<TlsFailure> {
    let error = match error {
        ureq::Error::Tls(why) => return Some(TlsFailure::Other((*why).to_owned())),
        ureq::Error::Rustls(error) => error,
        // Failures of reading and writing come as one of their errors.
        ureq::Error::Io(error) => error.get_ref()?.downcast_ref::<Error>()?,
        _ => return None,
    };
    match error {
        Error::InvalidCertificate(error) => Some(refused_by_us(error)),
        Error::AlertReceived(alert) => refused_by_the_server(*alert),
        Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            let why = "the server does not speak TLS at this port: use http:// if that is meant";
            Some(TlsFailure::Other(why.to_owned()))
        }
        Error::PeerIncompatible(_) => Some(TlsFailure::Other(format!("the server's TLS is not ours: {error}"))),
        _ => None,
    }
}

fn refused_by_us(error: &CertificateError) -> TlsFailure {
    let date = |time: &UnixTime| humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(time.as_secs()));
    match error {
        // The latter two: an authority of the right name, with another key.
        CertificateError::UnknownIssuer
        | CertificateError::BadSignature
        | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => TlsFailure::UnknownAuthority,
        CertificateError::ExpiredContext { time, not_after } => TlsFailure::Other(format!(
            "the server's certificate expired at {}, and it is {} here: it needs a new one, or this machine's clock is \
             wrong",
            date(not_after),
            date(time)
        )),
        CertificateError::NotValidYetContext { time, not_before } => TlsFailure::Other(format!(
            "the server's certificate is valid from {} on, and it is {} here: one of the clocks is wrong",
            date(not_before),
            date(time)
        )),
        CertificateError::NotValidForNameContext { expected, presented } => TlsFailure::OtherName {
            expected: expected.to_str().into_owned(),
            presented: match &presented[..] {
                [] => "nobody (no subjectAltName)".to_owned(),
                names => names.iter().map(|name| plain(name)).collect::<Vec<_>>().join(", "),
            },
        },
        error => {
            let why = format!("the server's certificate cannot be accepted: {}", pem::refusal(error));
            TlsFailure::Other(why)
        }
    }
}

/// A name of a certificate as people write it; the library has `DnsName("localhost")`.
fn plain(name: &str) -> &str {
    let inner = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')'));
    inner.unwrap_or(name).trim_matches('"')
}

/// The words of the server in an alert (RFC 8446, section 6.2), in words.
fn words(alert: AlertDescription) -> String {
    let name: Vec<char> = format!("{alert:?}").chars().collect();
    let mut words = String::new();
    for (i, c) in name.iter().enumerate() {
        let begins_word = c.is_uppercase() && name.get(i + 1).is_some_and(|next| next.is_lowercase());
        let follows_word = i > 0 && c.is_uppercase() && name[i - 1].is_lowercase();
        words.extend(follows_word.then_some(' '));
        words.push(if begins_word { c.to_ascii_lowercase() } else { *c });
    }
    words
}

fn refused_by_the_server(alert: AlertDescription) -> Option<TlsFailure> {
    match alert {
        AlertDescription::CertificateRequired => Some(TlsFailure::ClientCertificateRequired),
        AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateRevoked
        | AlertDescription::CertificateExpired
        | AlertDescription::CertificateUnknown
        | AlertDescription::UnknownCA
        | AlertDescription::AccessDenied
        | AlertDescription::DecryptError => Some(TlsFailure::ClientCertificateRefused(words(alert))),
        AlertDescription::HandshakeFailure
        | AlertDescription::ProtocolVersion
        | AlertDescription::InsufficientSecurity
        | AlertDescription::UnrecognisedName
        | AlertDescription::NoApplicationProtocol => {
            Some(TlsFailure::Other(format!("the server's TLS is not ours ({})", words(alert))))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    /// As it comes out of a connection.
    fn met(error: Error) -> Option<TlsFailure> {
        diagnosis(&ureq::Error::Io(io::Error::new(io::ErrorKind::InvalidData, error)))
    }

    #[test]
    fn names_and_alerts_are_told_in_words() {
        assert_eq!(["DnsName(\"localhost\")", "IpAddress(::1)", "x"].map(plain), ["localhost", "::1", "x"]);
        let alerts = [AlertDescription::HandshakeFailure, AlertDescription::CertificateExpired];
        assert_eq!(alerts.map(words), ["handshake failure", "certificate expired"]);
    }

    #[test]
    fn what_the_next_attempt_would_meet_again_is_told_and_the_rest_may_pass() {
        let stranger = met(Error::InvalidCertificate(CertificateError::UnknownIssuer));
        assert_eq!(stranger, Some(TlsFailure::UnknownAuthority));
        let (time, not_after) = (UnixTime::since_unix_epoch, Duration::from_secs);
        let expired = CertificateError::ExpiredContext { time: time(not_after(86_400)), not_after: time(not_after(0)) };
        let said = met(Error::InvalidCertificate(expired)).unwrap().to_string();
        assert!(said.contains("1970-01-01T00:00:00Z") && said.contains("1970-01-02T00:00:00Z"), "{said}");
        let required = met(Error::AlertReceived(AlertDescription::CertificateRequired));
        assert_eq!(required, Some(TlsFailure::ClientCertificateRequired));
        let refused = met(Error::AlertReceived(AlertDescription::UnknownCA)).unwrap().to_string();
        assert!(refused.contains("(unknown CA)"), "{refused}");
        for passes in [AlertDescription::InternalError, AlertDescription::BadRecordMac, AlertDescription::UserCanceled]
        {
            assert_eq!(met(Error::AlertReceived(passes)), None);
        }
        assert_eq!(met(Error::DecryptError), None, "bytes were damaged on the way");
        for kind in [io::ErrorKind::ConnectionReset, io::ErrorKind::ConnectionRefused, io::ErrorKind::UnexpectedEof] {
            assert_eq!(diagnosis(&ureq::Error::Io(kind.into())), None);
        }
    }
}
