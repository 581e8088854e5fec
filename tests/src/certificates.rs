//! Certificate authorities of a test, and the certificates that they sign.

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

const DAY: Duration = Duration::from_secs(86_400);

/// An authority, its certificate in a file.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its certificate, in PEM.
    pub file: PathBuf,
}

/// A certificate with its key, in files.
#[derive(Clone, Debug)]
pub struct Certificate {
    /// The certificate, in PEM.
    pub cert: PathBuf,
    /// Its private key, in PEM.
    pub key: PathBuf,
}

impl Authority {
    /// A new authority; its certificate is `NAME.pem` in `folder`.
    pub fn new(folder: &Path, name: &str) -> Authority {
        let mut params = CertificateParams::new(vec![]).expect("no names are right");
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("keys can be made");
        let certificate = params.self_signed(&key).expect("it can be signed");
        let file = write(folder, &format!("{name}.pem"), &certificate.pem());
        Authority { issuer: Issuer::new(params, key), file }
    }

    /// A certificate for these host names and addresses, in `NAME-cert.pem` and `NAME-key.pem` beside the authority's.
    pub fn issue(&self, name: &str, hosts: &[&str]) -> Certificate {
        self.issue_until(name, hosts, SystemTime::now() + DAY)
    }

    /// One that expired yesterday.
    pub fn issue_expired(&self, name: &str, hosts: &[&str]) -> Certificate {
        self.issue_until(name, hosts, SystemTime::now() - DAY)
    }

    fn issue_until(&self, name: &str, hosts: &[&str], not_after: SystemTime) -> Certificate {
        let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let mut params = CertificateParams::new(hosts).expect("the names are right");
        (params.not_before, params.not_after) = ((SystemTime::now() - 7 * DAY).into(), not_after.into());
        let key = KeyPair::generate().expect("keys can be made");
        let certificate = params.signed_by(&key, &self.issuer).expect("it can be signed");
        let folder = self.file.parent().expect("it is in a folder");
        let cert = write(folder, &format!("{name}-cert.pem"), &certificate.pem());
        let key = write(folder, &format!("{name}-key.pem"), &key.serialize_pem());
        Certificate { cert, key }
    }
}

impl Certificate {
    /// The daemon's arguments that name it.
    pub fn arguments(&self) -> [&str; 4] {
        ["--tls-cert", text(&self.cert), "--tls-key", text(&self.key)]
    }

    /// Puts the content of `other` into this one's files.
    pub fn become_like(&self, other: &Certificate) {
        for (from, to) in [(&other.cert, &self.cert), (&other.key, &self.key)] {
            std::fs::copy(from, to).expect("files can be copied");
        }
    }
}

fn write(folder: &Path, name: &str, content: &str) -> PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let path = folder.join(name);
    std::fs::write(&path, content).expect("the file can be written");
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).expect("its mode can be set");
    path
}

fn text(path: &Path) -> &str {
    path.to_str().expect("paths of tests are UTF-8")
}
