//! TLS: whom we trust, what we show of ourselves, and what a failure means.

use anyhow::{Context, bail};
use bigup_core::pem;
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
    /// Authorities that the server's certificate may be of. None: those of the system.
    pub ca_cert: Option<PathBuf>,
    /// Certificate to show to a server that asks for one. None: none is shown.
    pub client_cert: Option<PathBuf>,
    /// Private key of the client certificate.
    pub client_key: Option<PathBuf>,
}

/// What connections are made with.
///
/// # Errors
/// A file cannot be used, or there is nobody to trust.
pub fn config(files: &Certificates) -> anyhow::Result<TlsConfig> {
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

fn own_authorities(path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let found = pem::certificates(path).context("--ca-cert")?;
    for (i, der) in found.iter().enumerate() {
        let added = RootCertStore::empty().add(der.clone());
        added.with_context(|| format!("--ca-cert: {}: certificate {} in it", path.display(), i + 1))?;
    }
    Ok(found)
}

fn authorities_of_the_system() -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        log::debug!("{error}");
    }
    if found.certs.is_empty() {
        let why = found.errors.first().map(|error| format!(" ({error})")).unwrap_or_default();
        bail!(
            "no certificate authorities are installed on this system{why}: install its package ca-certificates, or give \
             the server's authority by --ca-cert"
        );
    }
    Ok(found.certs)
}

fn client_cert(cert: &Path, key: &Path) -> anyhow::Result<ClientCert> {
    let chain = pem::certificates(cert).context("--client-cert")?;
    let der = pem::private_key(key).context("--client-key")?;
    // The library would panic at what does not fit, and wants the key as PEM.
    let fits = CertifiedKey::from_der(chain.clone(), der, &ring::default_provider());
    let text = std::fs::read(key)?;
    let (cert, key) = (cert.display(), key.display());
    match fits {
        Ok(_) => {}
        Err(Error::InconsistentKeys(_)) => {
            bail!("--client-key: the key in {key} is not that of the first certificate in {cert}")
        }
        Err(Error::InvalidCertificate(error)) => bail!("--client-cert: {cert}: {error}"),
        Err(error) => bail!("--client-key: {key}: {error}"),
    }
    let chain: Vec<_> = owned(&chain).collect();
    Ok(ClientCert::new_with_certs(&chain, PrivateKey::from_pem(&text)?))
}

/// The library's own form of certificates.
fn owned(certificates: &[CertificateDer<'static>]) -> impl Iterator<Item = Certificate<'static>> {
    certificates.iter().map(|der| Certificate::from_der(der).to_owned())
}

/// What is wrong and what to do, where `error` is a failure of TLS that the next attempt would meet again. None: it may
/// pass, or has nothing to do with TLS.
pub fn diagnosis(error: &ureq::Error) -> Option<String> {
    let error = match error {
        ureq::Error::Tls(why) => return Some((*why).to_owned()),
        ureq::Error::Rustls(error) => error,
        // What fails in reading and writing comes as one of their errors.
        ureq::Error::Io(error) => error.get_ref()?.downcast_ref::<Error>()?,
        _ => return None,
    };
    match error {
        Error::InvalidCertificate(error) => Some(refused_by_us(error)),
        Error::AlertReceived(alert) => refused_by_the_server(*alert),
        Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            Some("the server does not speak TLS at this port: use http:// if that is meant".to_owned())
        }
        Error::PeerIncompatible(_) => Some(format!("the server's TLS is not ours: {error}")),
        _ => None,
    }
}

fn refused_by_us(error: &CertificateError) -> String {
    let date = |time: &UnixTime| humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(time.as_secs()));
    match error {
        // The latter two: an authority of the right name, with another key.
        CertificateError::UnknownIssuer
        | CertificateError::BadSignature
        | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
            "the server's certificate is of no authority that we trust: make sure that \
            this is the server you mean, and give its authority's certificate by --ca-cert"
                .to_owned()
        }
        CertificateError::ExpiredContext { time, not_after } => format!(
            "the server's certificate expired at {}, and it is {} here: it needs a new one, or this machine's clock is \
             wrong",
            date(not_after),
            date(time)
        ),
        CertificateError::NotValidYetContext { time, not_before } => format!(
            "the server's certificate is valid from {} on, and it is {} here: one of the clocks is wrong",
            date(not_before),
            date(time)
        ),
        CertificateError::NotValidForNameContext { expected, presented } => format!(
            "the server's certificate is not for {}: it names {}; use such a name in --url",
            expected.to_str(),
            match &presented[..] {
                [] => "nobody (no subjectAltName)".to_owned(),
                names => names.iter().map(|name| plain(name)).collect::<Vec<_>>().join(", "),
            }
        ),
        error => format!("the server's certificate cannot be accepted: {}", pem::refusal(error)),
    }
}

/// A name of a certificate as people write it; the library has `DnsName("localhost")`.
fn plain(name: &str) -> &str {
    let inner = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')'));
    inner.unwrap_or(name).trim_matches('"')
}

/// What the server says in an alert (RFC 8446, section 6.2), in words.
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

fn refused_by_the_server(alert: AlertDescription) -> Option<String> {
    match alert {
        AlertDescription::CertificateRequired => {
            Some("the server wants a client certificate: give --client-cert and --client-key".to_owned())
        }
        AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateRevoked
        | AlertDescription::CertificateExpired
        | AlertDescription::CertificateUnknown
        | AlertDescription::UnknownCA
        | AlertDescription::AccessDenied
        | AlertDescription::DecryptError => Some(format!(
            "the server refuses the client certificate ({}): give one of an authority that it trusts, not expired, by \
             --client-cert and --client-key",
            words(alert)
        )),
        AlertDescription::HandshakeFailure
        | AlertDescription::ProtocolVersion
        | AlertDescription::InsufficientSecurity
        | AlertDescription::UnrecognisedName
        | AlertDescription::NoApplicationProtocol => Some(format!("the server's TLS is not ours ({})", words(alert))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    /// As it comes out of a connection.
    fn met(error: Error) -> Option<String> {
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
        assert!(met(Error::InvalidCertificate(CertificateError::UnknownIssuer)).unwrap().contains("--ca-cert"));
        let (time, not_after) = (UnixTime::since_unix_epoch, Duration::from_secs);
        let expired = CertificateError::ExpiredContext { time: time(not_after(86_400)), not_after: time(not_after(0)) };
        let said = met(Error::InvalidCertificate(expired)).unwrap();
        assert!(said.contains("1970-01-01T00:00:00Z") && said.contains("1970-01-02T00:00:00Z"), "{said}");
        assert!(met(Error::AlertReceived(AlertDescription::CertificateRequired)).unwrap().contains("--client-cert"));
        assert!(met(Error::AlertReceived(AlertDescription::UnknownCA)).unwrap().contains("(unknown CA)"));
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
