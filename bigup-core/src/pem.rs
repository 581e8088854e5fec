//! Certificates and private keys as files in PEM (RFC 7468).

use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use std::path::{Path, PathBuf};

/// The reason a file gives no certificate, no revocation list or no key.
#[derive(Debug, thiserror::Error)]
pub enum PemError {
    /// It cannot be read.
    #[error("{path}: {cause}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The reason.
        cause: std::io::Error,
    },
    /// A block in it is damaged.
    #[error("{path} is damaged PEM: {cause}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The fault in it.
        cause: pem::Error,
    },
    /// It holds no certificate.
    #[error("{0} holds no certificate in PEM: no line says -----BEGIN CERTIFICATE-----")]
    NoCertificate(PathBuf),
    /// It holds no certificate revocation list.
    #[error("{0} holds no certificate revocation list in PEM: no line says -----BEGIN X509 CRL-----")]
    NoRevocationList(PathBuf),
    /// It holds no private key.
    #[error("{0} holds no private key in PEM: no line says -----BEGIN PRIVATE KEY-----, nor RSA or EC PRIVATE KEY")]
    NoKey(PathBuf),
    /// Its key needs a passphrase, and there is no terminal to ask for it.
    #[error("{0} holds an encrypted private key: decrypt it with `openssl pkey`")]
    Encrypted(PathBuf),
}

/// The reason a server's certificate is refused, worded for its issuer. `error` comes from webpki.
pub fn refusal(error: &impl std::fmt::Display) -> String {
    let error = error.to_string();
    if error.contains("CaUsedAsEndEntity") {
        // `openssl req -x509` makes such a certificate by default.
        return "it is an authority's (CA:TRUE), which no server may show: make it with basicConstraints=CA:FALSE, or \
                sign another one by it"
            .to_owned();
    }
    error
}

/// All certificates in a file, in its order; at least one.
///
/// # Errors
/// It cannot be read, is no PEM, or holds no list.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, PemError> {
    all(path, PemError::NoCertificate)
}

/// All certificate revocation lists in a file (RFC 5280, section 5), in its order; at least one.
///
/// # Errors
/// It cannot be read, is no PEM, or holds no list.
pub fn revocation_lists(path: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>, PemError> {
    all(path, PemError::NoRevocationList)
}

/// All blocks of one kind in a file. `none` makes the error for a file without such blocks.
fn all<T: PemObject>(path: &Path, none: fn(PathBuf) -> PemError) -> Result<Vec<T>, PemError> {
    let found: Result<Vec<T>, _> = T::pem_slice_iter(&read(path)?).collect();
    match found {
        Ok(found) if found.is_empty() => Err(none(path.to_owned())),
        Ok(found) => Ok(found),
        Err(cause) => Err(PemError::Damaged { path: path.to_owned(), cause }),
    }
}

/// The first private key in a file, in PKCS #8, PKCS #1 or SEC 1. A certificate can stand beside it.
///
/// # Errors
/// It cannot be read, is no PEM, or holds no key, or an encrypted one.
pub fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, PemError> {
    let text = read(path)?;
    match PrivateKeyDer::from_pem_slice(&text) {
        Ok(key) => Ok(key),
        // In the label of the block, or in a header within it (RFC 1421), which makes it no PEM of today.
        Err(_) if String::from_utf8_lossy(&text).contains("ENCRYPTED") => Err(PemError::Encrypted(path.to_owned())),
        Err(pem::Error::NoItemsFound) => Err(PemError::NoKey(path.to_owned())),
        Err(cause) => Err(PemError::Damaged { path: path.to_owned(), cause }),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, PemError> {
    std::fs::read(path).map_err(|cause| PemError::Read { path: path.to_owned(), cause })
}

#[cfg(test)]
mod tests {
    use super::*;

    const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----\nAQID\n-----END CERTIFICATE-----\n";
    const KEY: &str = "-----BEGIN EC PRIVATE KEY-----\nBAUG\n-----END EC PRIVATE KEY-----\n";

    /// A file of this text.
    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        file
    }

    #[test]
    fn certificates_come_in_order_and_a_key_may_stand_among_them() {
        let both = file(&format!("a comment\n{CERTIFICATE}{KEY}{}", CERTIFICATE.replace("AQID", "BwgJ")));
        let found = certificates(both.path()).unwrap();
        assert_eq!(found.iter().map(|der| der.to_vec()).collect::<Vec<_>>(), [[1, 2, 3], [7, 8, 9]]);
        assert_eq!(private_key(both.path()).unwrap().secret_der(), [4, 5, 6]);
    }

    #[test]
    fn what_is_missing_is_said_and_where() {
        let path = Path::new("/nowhere/cert.pem");
        for said in [certificates(path).unwrap_err().to_string(), private_key(path).unwrap_err().to_string()] {
            assert!(said.contains("/nowhere/cert.pem") && said.contains("No such file"), "{said}");
        }
        let (empty, swapped) = (file(""), file(KEY));
        assert!(matches!(certificates(empty.path()), Err(PemError::NoCertificate(path)) if path == empty.path()));
        assert!(matches!(private_key(empty.path()), Err(PemError::NoKey(_))));
        assert!(matches!(certificates(swapped.path()), Err(PemError::NoCertificate(_))));
    }

    #[test]
    fn damage_and_encryption_are_told_apart() {
        let cut = file(CERTIFICATE.split_once("-----END").unwrap().0);
        assert!(matches!(certificates(cut.path()), Err(PemError::Damaged { .. })));
        assert!(matches!(private_key(file(&KEY.replace("BAUG", "B!UG")).path()), Err(PemError::Damaged { .. })));
        let pkcs8 = KEY.replace("EC PRIVATE", "ENCRYPTED PRIVATE");
        let headers = KEY.replace("BAUG", "Proc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nBAUG");
        for text in [pkcs8, headers] {
            assert!(matches!(private_key(file(&text).path()), Err(PemError::Encrypted(_))), "{text}");
        }
    }
}
