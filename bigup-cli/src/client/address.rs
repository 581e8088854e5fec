//! The server's address, checked before anything is sent, and shown without what should stay secret.

use bigup_core::protocol::name::printable;
use bigup_core::protocol::native;
use std::net::IpAddr;
use ureq::http::Uri;

/// The endpoint of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    url: String,
    host: String,
    port: u16,
    is_tls: bool,
}

/// A URL that cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// It is no URL of a server. Quoted without user and password.
    #[error("{0:?} is no URL of a server; it looks like http://HOST:PORT or https://HOST:PORT")]
    NotAServer(String),
    /// The port is no number from 1 to 65535.
    #[error("the port {port:?} in {url} is none: ports go from 1 to 65535")]
    Port {
        /// The URL, without user and password.
        url: String,
        /// The text in place of a port.
        port: String,
    },
    /// A user or a password stands in it.
    #[error(
        "a user or password stands in {0}, where every user of this machine can read it, and bigup servers take none"
    )]
    Secret(String),
}

impl Endpoint {
    /// The endpoint of the server at `url`, which may end in `/` or in the endpoint's own path.
    ///
    /// # Errors
    /// The URL cannot be used. No error shows a password.
    pub fn parse(url: &str) -> Result<Endpoint, UrlError> {
        let shown = printable(&masked(url));
        let invalid = || UrlError::NotAServer(shown.clone());
        let uri: Uri = url.parse().map_err(|_| invalid())?;
        let is_tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(invalid()),
        };
        let authority = uri.authority().ok_or_else(invalid)?.as_str();
        if authority.contains('@') {
            return Err(UrlError::Secret(shown));
        }
        let (host, port) = host_and_port(authority);
        if host.is_empty() || uri.query().is_some() {
            return Err(invalid());
        }
        let port = match port {
            None | Some("") => {
                if is_tls {
                    443
                } else {
                    80
                }
            }
            Some(port) => {
                port_number(port).ok_or_else(|| UrlError::Port { url: shown.clone(), port: printable(port) })?
            }
        };
        let base = url.trim_end_matches('/');
        let base = base.strip_suffix(native::PATH).unwrap_or(base).trim_end_matches('/');
        Ok(Endpoint { url: format!("{base}/{}", native::PATH), host: host.to_ascii_lowercase(), port, is_tls })
    }

    /// The URL that requests go to, without a query.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The URL of the server, with a `/` at its end.
    pub fn base(&self) -> &str {
        self.url.strip_suffix(native::PATH).unwrap_or(&self.url)
    }

    /// The host, without the brackets of an IPv6 address.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port, also where the URL leaves it to the scheme.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// True if TLS is spoken.
    pub fn is_tls(&self) -> bool {
        self.is_tls
    }

    /// True if it leads to this machine.
    pub fn is_loopback(&self) -> bool {
        self.host == "localhost" || self.host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    }
}

/// `url` with `***` in place of a user and a password.
pub fn masked(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").map_or(("", url), |(scheme, rest)| (scheme, rest));
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    // A password with such a character in it makes no URL, and is hidden all the same.
    let at = rest[..end].rfind('@').or_else(|| rest.rfind('@'));
    match at {
        None => url.to_owned(),
        Some(at) if url.contains("://") => format!("{scheme}://***{}", &rest[at..]),
        Some(at) => format!("***{}", &rest[at..]),
    }
}

/// Host and port of an authority (RFC 3986, section 3.2) without user; the host without brackets.
pub fn host_and_port(authority: &str) -> (&str, Option<&str>) {
    if let Some((host, rest)) = authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return (host, rest.strip_prefix(':'));
    }
    authority.split_once(':').map_or((authority, None), |(host, port)| (host, Some(port)))
}

/// `text` as the number of a port that can be connected to.
pub fn port_number(text: &str) -> Option<u16> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|port| is_number && *port > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_given_in_several_ways() {
        for (url, is, port) in [
            ("http://h", "http://h/big_file_upload", 80),
            ("http://h:80/", "http://h:80/big_file_upload", 80),
            ("http://h/big_file_upload", "http://h/big_file_upload", 80),
            ("http://h/sub/big_file_upload/", "http://h/sub/big_file_upload", 80),
            ("http://[::1]:8888/sub", "http://[::1]:8888/sub/big_file_upload", 8888),
            ("https://h", "https://h/big_file_upload", 443),
            ("https://H:65535", "https://H:65535/big_file_upload", 65535),
        ] {
            let endpoint = Endpoint::parse(url).unwrap();
            assert_eq!((endpoint.url(), endpoint.port()), (is, port), "{url}");
        }
        assert_eq!(Endpoint::parse("http://[::1]:8888").unwrap().host(), "::1");
    }

    #[test]
    fn other_urls_are_refused() {
        for bad in ["", "h:80", "localhost", "ftp://h", "http://", "http://h/?a=b", "http://h h", "http://:80"] {
            assert!(Endpoint::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_port_that_is_none_is_told_and_no_other_is_taken_for_it() {
        for (url, port) in [("http://h:99999", "99999"), ("https://[::1]:65536/x", "65536"), ("http://h:0", "0")] {
            let error = Endpoint::parse(url).unwrap_err();
            assert!(matches!(&error, UrlError::Port { port: told, .. } if told == port), "{url}: {error:?}");
            assert!(error.to_string().contains("1 to 65535"), "{error}");
        }
    }

    #[test]
    fn a_password_is_shown_in_no_error() {
        for url in ["http://u:s3cr3t@h:1", "http://s3cr3t@h", "ftp://u:s3cr3t@h", "http://u:s3/cr3t@h", "u:s3cr3t@h"] {
            let message = Endpoint::parse(url).unwrap_err().to_string();
            assert!(!message.contains("cr3t") && message.contains("***@h"), "{message}");
        }
        assert!(matches!(Endpoint::parse("http://u:p@h"), Err(UrlError::Secret(_))));
        assert_eq!(masked("http://h/a@b"), "http://***@b", "rather too much than too little");
        assert_eq!(masked("http://h"), "http://h");
    }

    #[test]
    fn this_machine_is_known_by_its_addresses() {
        let is_loopback = |url| Endpoint::parse(url).unwrap().is_loopback();
        for url in ["http://localhost/x", "http://127.0.0.1:80/x", "http://127.9.9.9/x", "http://[::1]:80/x"] {
            assert!(is_loopback(url), "{url}");
        }
        for url in ["http://localhost.example/x", "http://128.0.0.1/x", "http://[::2]/x"] {
            assert!(!is_loopback(url), "{url}");
        }
    }
}
