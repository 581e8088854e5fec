//! The names in a client's certificate, through which it can have a token's rights.
//!
//! The handshake has verified the certificate by then (`tls_client_ca`), so that its names are its authority's word.

use std::sync::Arc;
use tokio_rustls::rustls::pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

/// Names that a client certificate is issued for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate(Arc<[String]>);

impl ClientCertificate {
    /// The names in the first certificate of a chain: the common names of its subject, then the host names, e-mail
    /// addresses and URIs of its subjectAltName (RFC 5280, sections 4.1.2.6 and 4.2.1.6). `None` if there is no
    /// certificate, or it has no names.
    pub fn first_of(chain: &[CertificateDer<'_>]) -> Option<ClientCertificate> {
        let (_, certificate) = X509Certificate::from_der(chain.first()?).ok()?;
        let common = certificate.subject().iter_common_name().filter_map(|name| name.as_str().ok());
        let mut names: Vec<String> = common.map(str::to_owned).collect();
        if let Ok(Some(alternatives)) = certificate.subject_alternative_name() {
            names.extend(alternatives.value.general_names.iter().filter_map(text_of));
        }
        (!names.is_empty()).then(|| ClientCertificate(names.into()))
    }

    /// True if it is issued for `name`, exactly.
    pub fn is_for(&self, name: &str) -> bool {
        self.0.iter().any(|own| own == name)
    }

    /// The first of its names, for people.
    pub fn name(&self) -> &str {
        &self.0[0]
    }
}

fn text_of(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(text) | GeneralName::RFC822Name(text) | GeneralName::URI(text) => Some((*text).to_owned()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    fn issued(common: Option<&str>, hosts: &[&str], mail: Option<&str>) -> Option<ClientCertificate> {
        let mut params = CertificateParams::new(hosts.iter().map(|h| (*h).to_owned()).collect::<Vec<_>>()).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        common.into_iter().for_each(|name| params.distinguished_name.push(DnType::CommonName, name));
        params.subject_alt_names.extend(mail.map(|mail| SanType::Rfc822Name(mail.try_into().unwrap())));
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        ClientCertificate::first_of(&[certificate.der().clone()])
    }

    #[test]
    fn all_names_count_and_the_common_name_is_shown() {
        let names = issued(Some("lab 7"), &["lab7.example.org"], Some("lab7@example.org")).unwrap();
        assert_eq!(names.name(), "lab 7");
        for name in ["lab 7", "lab7.example.org", "lab7@example.org"] {
            assert!(names.is_for(name), "{name}");
        }
        for other in ["lab", "LAB 7", "example.org", ""] {
            assert!(!names.is_for(other), "{other}");
        }
    }

    #[test]
    fn a_certificate_without_names_and_what_is_none_are_nobody() {
        assert_eq!(issued(None, &[], None), None);
        assert_eq!(ClientCertificate::first_of(&[]), None);
        assert_eq!(ClientCertificate::first_of(&[CertificateDer::from(vec![1, 2, 3])]), None);
    }
}
