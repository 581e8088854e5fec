//! Certificate authorities of a test, and the certificates that they sign.

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, IsCa, Issuer, KeyIdMethod, KeyPair,
    RevokedCertParams, SerialNumber,
};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
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
    /// Its serial number, by which its authority revokes it; 0 where that is not known.
    pub serial: u64,
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
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        static SERIAL: AtomicU64 = AtomicU64::new(1);
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        params.serial_number = Some(serial.into());
        let key = KeyPair::generate().expect("keys can be made");
        let certificate = params.signed_by(&key, &self.issuer).expect("it can be signed");
        let folder = self.file.parent().expect("it is in a folder");
        let cert = write(folder, &format!("{name}-cert.pem"), &certificate.pem());
        let key = write(folder, &format!("{name}-key.pem"), &key.serialize_pem());
        Certificate { cert, key, serial }
    }

    /// A list of what this authority has revoked, in `NAME.crl` beside its certificate; it is good until `next_update`.
    pub fn revoke(&self, name: &str, revoked: &[&Certificate], next_update: SystemTime) -> PathBuf {
        let revoked = revoked.iter().map(|certificate| RevokedCertParams {
            serial_number: certificate.serial.into(),
            revocation_time: (SystemTime::now() - DAY).into(),
            reason_code: None,
            invalidity_date: None,
        });
        let params = CertificateRevocationListParams {
            this_update: (SystemTime::now() - 2 * DAY).into(),
            next_update: next_update.into(),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = params.signed_by(&self.issuer).expect("it can be signed");
        let folder = self.file.parent().expect("it is in a folder");
        write(folder, &format!("{name}.crl"), &list.pem().expect("it can be written"))
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
