//! TLS on connections: certificates, reading them again, and handshakes.

use crate::net::linger;
use crate::net::listeners::Socket;
use crate::refusal::Refusal;
use bigup_core::pem;
use bigup_core::protocol::native::ErrorCode;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, UNIX_EPOCH};
use tokio::io::AsyncWriteExt;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::client::verify_server_cert_signed_by_trust_anchor;
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime};
use tokio_rustls::rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use tokio_rustls::rustls::sign::{CertifiedKey, SingleCertAndKey};
use tokio_rustls::rustls::{CertificateError, Error, RootCertStore, ServerConfig};
use tokio_rustls::server::TlsStream;

/// Certificates, as files in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate chain, the server's own first.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// Authorities whose certificates clients must show. `None`: clients need no certificate.
    pub client_ca: Option<PathBuf>,
    /// Lists of client certificates that their authorities have revoked. `None`: no list is checked.
    pub client_crl: Option<PathBuf>,
}

/// First byte of every TLS connection: the type of a handshake record (RFC 8446, section 5.1).
const HANDSHAKE_RECORD: u8 = 22;

/// The only protocol spoken inside (RFC 7301, section 6).
const ALPN: &[u8] = b"http/1.1";

/// The certificates that connections are served with.
pub struct Tls {
    files: TlsFiles,
    current: Mutex<Arc<ServerConfig>>,
}

impl Tls {
    /// Reads certificate, key and client authorities.
    ///
    /// Faults that clients would refuse, and a key that other users can read, are logged as warnings.
    ///
    /// # Errors
    /// All mistakes in the files, one each.
    pub fn load(files: &TlsFiles) -> Result<Tls, Vec<String>> {
        Ok(Tls { files: files.clone(), current: Mutex::new(Arc::new(read(files)?)) })
    }

    /// Reads the files again. New connections use their content; open connections go on.
    ///
    /// # Errors
    /// All mistakes in the files, one each; the files in use before stay in use.
    pub fn reload(&self) -> Result<(), Vec<String>> {
        let new = Arc::new(read(&self.files)?);
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = new;
        Ok(())
    }

    /// Does the handshake on a new connection, with the time limit `time`.
    ///
    /// A client that fails in it is told why, as an alert, or as plain HTTP where it speaks that.
    ///
    /// # Errors
    /// The client fails in it, goes away, or takes too long.
    pub async fn accept(&self, stream: Socket, time: Duration) -> io::Result<TlsStream<Socket>> {
        let done = tokio::time::timeout(time, self.handshake(stream)).await;
        done.unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "the TLS handshake took too long")))
    }

    async fn handshake(&self, mut stream: Socket) -> io::Result<TlsStream<Socket>> {
        if stream.peek().await?.is_some_and(|first| first != HANDSHAKE_RECORD) {
            stream.write_all(&refusal_of_plain_http()).await?;
            hang_up(stream).await?;
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the client speaks no TLS"));
        }
        let config = Arc::clone(&self.current.lock().unwrap_or_else(PoisonError::into_inner));
        match TlsAcceptor::from(config).accept(stream).into_fallible().await {
            Ok(stream) => Ok(stream),
            Err((error, stream)) => {
                // The alert has been sent.
                hang_up(stream).await?;
                Err(error)
            }
        }
    }
}

/// Closes a connection such that our last words arrive.
async fn hang_up(mut stream: Socket) -> io::Result<()> {
    stream.shutdown().await?;
    linger::linger(&mut stream).await;
    Ok(())
}

fn refusal_of_plain_http() -> Vec<u8> {
    Refusal::new(ErrorCode::BadRequest, "this port speaks TLS: use https:// in place of http://").bytes()
}

fn read(files: &TlsFiles) -> Result<ServerConfig, Vec<String>> {
    let provider = Arc::new(ring::default_provider());
    let mut mistakes = vec![];
    let own = own_certificate(files, &provider, &mut mistakes);
    let authorities = files.client_ca.as_ref().and_then(|path| authorities(path, &mut mistakes));
    let revoked = files.client_crl.as_ref().map(|path| revocation_lists(path, &mut mistakes)).unwrap_or_default();
    let Some(own) = own.filter(|_| mistakes.is_empty()) else { return Err(mistakes) };
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(told)?;
    let builder = match authorities {
        None => builder.with_no_client_auth(),
        Some(roots) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            let verifier = verifier.with_crls(revoked).enforce_revocation_expiration().build();
            let verifier = verifier.map_err(|e| vec![format!("tls_client_ca or tls_client_crl: {e}")])?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(own)));
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(config)
}

/// A single mistake.
fn told(error: impl std::fmt::Display) -> Vec<String> {
    vec![format!("TLS: {error}")]
}

/// The server's certificate with its key. `None`: mistakes were noted.
fn own_certificate(files: &TlsFiles, provider: &CryptoProvider, mistakes: &mut Vec<String>) -> Option<CertifiedKey> {
    let mut note = |setting: &str, error: &dyn std::fmt::Display| mistakes.push(format!("{setting}: {error}"));
    let chain = pem::certificates(&files.cert).inspect_err(|e| note("tls_cert", e)).ok();
    let key = pem::private_key(&files.key).inspect_err(|e| note("tls_key", e)).ok();
    let (chain, key) = (chain?, key?);
    let (cert_path, key_path) = (files.cert.display(), files.key.display());
    match CertifiedKey::from_der(chain, key, provider) {
        Ok(own) => {
            if let Some(flaw) = flaw(&own.cert, provider) {
                log::warn!("tls_cert: clients will refuse the certificate in {cert_path}: {flaw}");
            }
            if is_open_to_others(&files.key) {
                log::warn!("tls_key: every user of this machine can read {key_path}: run chmod o-rwx on it");
            }
            return Some(own);
        }
        Err(Error::InconsistentKeys(_)) => {
            note("tls_key", &format_args!("the key in {key_path} is not that of the first certificate in {cert_path}"));
        }
        Err(Error::InvalidCertificate(e)) => note("tls_cert", &format_args!("{cert_path}: {e}")),
        Err(e) => note("tls_key", &format_args!("{key_path}: {e}")),
    }
    None
}

/// Authorities of client certificates. `None`: mistakes were noted.
fn authorities(path: &Path, mistakes: &mut Vec<String>) -> Option<RootCertStore> {
    let mut note = |error: &dyn std::fmt::Display| mistakes.push(format!("tls_client_ca: {error}"));
    let mut roots = RootCertStore::empty();
    for (i, der) in pem::certificates(path).inspect_err(|e| note(e)).ok()?.into_iter().enumerate() {
        if let Err(e) = roots.add(der) {
            note(&format_args!("{}: certificate {} in it: {e}", path.display(), i + 1));
            return None;
        }
    }
    Some(roots)
}

/// Lists of revoked client certificates; empty if mistakes were noted.
fn revocation_lists(path: &Path, mistakes: &mut Vec<String>) -> Vec<CertificateRevocationListDer<'static>> {
    let read = pem::revocation_lists(path).inspect_err(|e| mistakes.push(format!("tls_client_crl: {e}")));
    read.unwrap_or_default()
}

/// The reason clients will refuse the certificate, whomever they trust.
fn flaw(chain: &[CertificateDer<'static>], provider: &CryptoProvider) -> Option<String> {
    // To a verifier without trust anchors a certificate has no flaw but its unknown issuer.
    let (own, others) = chain.split_first()?;
    let algorithms = provider.signature_verification_algorithms.all;
    let trusted = RootCertStore::empty();
    let verified = ParsedCertificate::try_from(own)
        .and_then(|own| verify_server_cert_signed_by_trust_anchor(&own, &trusted, others, UnixTime::now(), algorithms));
    match verified {
        Ok(()) | Err(Error::InvalidCertificate(CertificateError::UnknownIssuer)) => None,
        Err(Error::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. })) => {
            let at = UNIX_EPOCH + Duration::from_secs(not_after.as_secs());
            Some(format!("it expired at {}", humantime::format_rfc3339_seconds(at)))
        }
        Err(e) => Some(pem::refusal(&e)),
    }
}

fn is_open_to_others(path: &Path) -> bool {
    path.metadata().is_ok_and(|m| m.permissions().mode() & 0o007 != 0)
}
