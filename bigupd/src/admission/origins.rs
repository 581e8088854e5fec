//! The web pages that are permitted to use the daemon.
//!
//! A browser sends requests for any page to any server that it reaches, and so to a daemon at its own machine. A token
//! proves that its sender was let in: no page has one by itself. A request without one is judged by what browsers add to
//! it and pages cannot change (Fetch Standard, "forbidden request-header"):
//!
//! | header | refused | against |
//! | --- | --- | --- |
//! | `Host` | a name that is not known as the daemon's | DNS rebinding: a page's name that stands for our address |
//! | `Origin` | that of a page of others | `fetch`, forms |
//! | `Sec-Fetch-Site` | everything but `same-origin`, and `none` where nothing is changed | what has no `Origin`: `<img src>`, links, also those in a letter |
//! | `Referer` | a page of others | the same by browsers, and at addresses, that have no `Sec-Fetch-Site` |
//! | `User-Agent` | a browser's with none of the three, where the request would change anything | the same from a page that hides its address |
//!
//! Pages of the origins in `allowed_origins` are let through. The response says so in the headers of CORS (Fetch
//! Standard, "CORS protocol"); without these a browser would not show it to them.

use crate::net::host::{Host, Origin};
use crate::net::response::{Response, no_content};
use crate::refusal::Refusal;
use bigup_core::protocol::name::{printable, quoted};
use bigup_core::protocol::native::{CLIENT_HEADER, ErrorCode};
use bigup_core::storage::data_dir::DataDir;
use std::path::Path;
use warp::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, HOST, HeaderMap, HeaderName,
    HeaderValue, ORIGIN, REFERER, USER_AGENT, VARY,
};

/// Fetch Metadata Request Headers, section 2.3.
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Private Network Access, section 3: asks if a page of the internet is permitted to call a machine of a private
/// network.
const REQUEST_PRIVATE_NETWORK: HeaderName = HeaderName::from_static("access-control-request-private-network");
const ALLOW_PRIVATE_NETWORK: HeaderName = HeaderName::from_static("access-control-allow-private-network");

/// The header fields that pages need of a protocol (Fetch Standard, "CORS protocol").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharedHeaders {
    /// Request headers that pages are permitted to set.
    pub request: &'static str,
    /// Response headers that pages can read, beside those that all pages can.
    pub response: &'static str,
}

/// Seconds for which a browser can keep a permission: the most that Chromium takes.
const MAX_AGE: HeaderValue = HeaderValue::from_static("7200");

/// Beginning of every browser's User-Agent.
const BROWSER: &[u8] = b"Mozilla/";

/// Pages that are permitted to call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllowedOrigins {
    /// All pages, with a token.
    any: bool,
    /// Pages of these, with or without one.
    listed: Vec<Origin>,
}

impl AllowedOrigins {
    /// Reads origins, or `*`, between commas or spaces.
    ///
    /// # Errors
    /// An entry is no origin.
    pub fn parse(text: &str) -> Result<AllowedOrigins, String> {
        let mut allowed = AllowedOrigins::default();
        for part in text.split([',', ' ']).filter(|part| !part.is_empty()) {
            match (part, Origin::parse(part)) {
                ("*", _) => allowed.any = true,
                (_, Some(origin)) => allowed.listed.push(origin),
                (_, None) => {
                    return Err(format!("{} is no origin like https://app.example.org, without a path", quoted(part)));
                }
            }
        }
        Ok(allowed)
    }

    /// True if pages of all origins are permitted to call, with a token.
    pub fn any(&self) -> bool {
        self.any
    }
}

/// Reads names of this server, between commas or spaces.
///
/// # Errors
/// An entry is no host name.
pub fn parse_hosts(text: &str) -> Result<Vec<Host>, String> {
    let each = text.split([',', ' ']).filter(|part| !part.is_empty());
    let host = |part: &str| Host::parse(part).filter(|host| !host.has_port());
    each.map(|part| host(part).ok_or_else(|| format!("{} is no name of a host, without a port", quoted(part))))
        .collect()
}

/// The effect of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It asks, and changes nothing.
    Looks,
    /// It begins, stores or replaces something, or can do so.
    Changes,
}

/// Judges requests by the pages that sent them.
#[derive(Debug)]
pub struct Origins {
    allowed: AllowedOrigins,
    /// Names of this server beside `localhost`.
    names: Vec<String>,
    is_tls: bool,
}

impl Origins {
    /// Pages of the `allowed` origins are permitted to call. `hosts`, and the machine's own name, are names of this
    /// server. `is_tls`: the server speaks https.
    pub fn new(allowed: AllowedOrigins, hosts: &[Host], is_tls: bool) -> Origins {
        let own = machine_name().and_then(|name| Host::parse(&name)).map(|host| host.name().to_owned());
        // Multicast DNS can give it too; then only this machine responds to it (RFC 6762, section 3).
        let own = own.filter(|name| !name.is_empty()).map(|name| [format!("{name}.local"), name]);
        let names = hosts.iter().map(|host| host.name().to_owned());
        let names = names.chain(own.into_iter().flatten()).collect();
        Origins { allowed, names, is_tls }
    }

    /// Lets a request without a token pass, unless a foreign web page sent it.
    ///
    /// # Errors
    /// 403, and which setting would let it pass.
    pub fn check(&self, headers: &HeaderMap, does: Effect) -> Result<(), Refusal> {
        let host = one(headers, HOST)?.map(|text| Host::parse(text).ok_or_else(|| foreign_host(text))).transpose()?;
        // Whatever the name: no page has it stand for this server's address, since no page sent this.
        if let Some(host) = host.as_ref().filter(|_| !headers.contains_key(CLIENT_HEADER)) {
            self.check_host(host)?;
        }
        if let Some(text) = one(headers, ORIGIN)? {
            let origin = Origin::parse(text).ok_or_else(|| foreign_page("Origin", text))?;
            if self.allowed.listed.contains(&origin) {
                return Ok(());
            }
            if !self.is_own(&origin, host.as_ref()) {
                return Err(foreign_page("Origin", text));
            }
        }
        match (one(headers, SEC_FETCH_SITE)?, one(headers, REFERER)?) {
            (Some("same-origin"), _) => Ok(()),
            // The user typed the address, or followed a link in a letter.
            (Some("none"), _) if does == Effect::Looks => Ok(()),
            (Some("none"), _) => Err(followed_link()),
            (Some(site), _) => Err(foreign_page("Sec-Fetch-Site", site)),
            (None, Some(page)) => match Origin::of_address(page) {
                Some(origin) if self.is_own(&origin, host.as_ref()) || self.allowed.listed.contains(&origin) => Ok(()),
                _ => Err(foreign_page("Referer", page)),
            },
            (None, None) if does == Effect::Looks || headers.contains_key(ORIGIN) => Ok(()),
            (None, None) if is_browser(headers) => Err(hidden_page()),
            (None, None) => Ok(()),
        }
    }

    fn check_host(&self, host: &Host) -> Result<(), Refusal> {
        let name = host.name();
        let is_own = host.is_address()
            || name == "localhost"
            || name.ends_with(".localhost")
            || self.names.iter().any(|own| own == name);
        if is_own { Ok(()) } else { Err(foreign_host(name)) }
    }

    fn is_own(&self, origin: &Origin, host: Option<&Host>) -> bool {
        host.is_some_and(|host| origin.is_of(host, self.is_tls))
    }

    /// The origin of the page that sent a request, if that page is permitted to read the response. `None` if it is not,
    /// or the headers name no page.
    fn readable_by(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        let origin = headers.get(ORIGIN)?;
        let is_listed = || {
            let origin = origin.to_str().ok().and_then(Origin::parse);
            origin.is_some_and(|origin| self.allowed.listed.contains(&origin))
        };
        match self.allowed.any {
            true => Some(HeaderValue::from_static("*")),
            false => is_listed().then(|| origin.clone()),
        }
    }

    /// Headers of the response to a request with these headers that tell a browser which pages can read it.
    pub fn sharing(&self, headers: &HeaderMap, shared: SharedHeaders) -> CorsHeaders {
        let varies = !self.allowed.listed.is_empty();
        CorsHeaders { readable_by: self.readable_by(headers), varies, shared }
    }

    /// The response to OPTIONS, including a browser's preflight; `allow` lists the methods, and `shared` the headers.
    ///
    /// # Errors
    /// It is a preflight for a page that is not permitted to call.
    pub fn options(
        &self,
        headers: &HeaderMap,
        allow: &'static str,
        shared: SharedHeaders,
    ) -> Result<Response, Refusal> {
        let mut response = no_content(allow);
        if let Some(origin) = headers.get(ORIGIN).filter(|_| headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)) {
            if self.readable_by(headers).is_none() {
                return Err(foreign_page("Origin", &String::from_utf8_lossy(origin.as_bytes())));
            }
            let answer = response.headers_mut();
            answer.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(allow));
            answer.insert(ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(shared.request));
            answer.insert(ACCESS_CONTROL_MAX_AGE, MAX_AGE);
            if headers.contains_key(REQUEST_PRIVATE_NETWORK) {
                answer.insert(ALLOW_PRIVATE_NETWORK, HeaderValue::from_static("true"));
            }
        }
        Ok(response)
    }
}

/// Response headers that tell a browser which pages can read the response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CorsHeaders {
    readable_by: Option<HeaderValue>,
    /// It is not the same for all pages.
    varies: bool,
    shared: SharedHeaders,
}

impl CorsHeaders {
    /// Tells it in `response`.
    pub fn told_in(self, mut response: Response) -> Response {
        let headers = response.headers_mut();
        if self.varies {
            headers.append(VARY, HeaderValue::from_static("origin"));
        }
        if let Some(origin) = self.readable_by {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(self.shared.response));
        }
        response
    }
}

/// True if all requests need a token where the pages of all origins are `allowed` to call. Reads the tokens of the data
/// folder.
///
/// # Errors
/// They do not, or the tokens cannot be read.
pub fn check_any(data_dir: &Path, allowed: &AllowedOrigins, allow_anonymous: bool) -> Result<(), String> {
    let data = DataDir::open(data_dir).ok();
    let tokens =
        data.map(|data| crate::admission::tokens::Tokens::read(&data)).transpose().map_err(|e| e.to_string())?;
    if !allowed.any() || (tokens.flatten().is_some() && !allow_anonymous) {
        return Ok(());
    }
    Err(format!(
        "allowed_origins = * lets every web page call, so every request must need a token: make one with \
         `bigupd token new NAME --data-dir {}` and leave allow_anonymous = no, or list the origins",
        data_dir.display()
    ))
}

/// The name of this machine (proc(5)). `None` if it cannot be told.
fn machine_name() -> Option<String> {
    std::fs::read_to_string("/proc/sys/kernel/hostname").ok().map(|name| name.trim().to_owned())
}

fn is_browser(headers: &HeaderMap) -> bool {
    headers.get_all(USER_AGENT).iter().any(|agent| agent.as_bytes().starts_with(BROWSER))
}

/// The only line of a header. `None` if it is missing.
fn one(headers: &HeaderMap, name: HeaderName) -> Result<Option<&str>, Refusal> {
    let mut lines = headers.get_all(&name).iter();
    match (lines.next(), lines.next()) {
        (None, _) => Ok(None),
        (Some(line), None) if line.to_str().is_ok() => Ok(line.to_str().ok()),
        _ => Err(forbidden(format!("the header {name} is there twice or is no text"))),
    }
}

/// A client's text, for a message.
fn shown(text: &str) -> String {
    printable(text).chars().take(200).collect()
}

fn forbidden(message: String) -> Refusal {
    Refusal::new(ErrorCode::Forbidden, message)
}

fn foreign_host(host: &str) -> Refusal {
    let host = shown(host);
    forbidden(format!(
        "this server does not know {host} as its own name, and the request has no token that counts: with such a name a \
         web page may reach where it must not (DNS rebinding). Add {host} to allowed_hosts of bigupd, or use tokens"
    ))
}

fn foreign_page(header: &str, value: &str) -> Refusal {
    let value = shown(value);
    forbidden(format!(
        "a web page of another origin sent this ({header}: {value}), without a token that counts. Add the page's origin to \
         allowed_origins of bigupd if it may do that"
    ))
}

fn followed_link() -> Refusal {
    forbidden(
        "a browser sent this for a link or an address that was typed, without a token that counts. Such a request may \
         look (peek=1) and change nothing"
            .to_owned(),
    )
}

fn hidden_page() -> Refusal {
    forbidden(
        "a browser sent this, and does not tell for which page; it may be one of another origin. A page that sends \
         Referer, and whose origin is this server's or in allowed_origins of bigupd, may do that"
            .to_owned(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHARED: SharedHeaders =
        SharedHeaders { request: "authorization, content-digest, content-type", response: "retry-after" };

    const FIREFOX: (&str, &str) = ("user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101");

    fn headers(lines: &[(&str, &str)]) -> HeaderMap {
        let name = |name: &str| HeaderName::from_bytes(name.as_bytes()).unwrap();
        lines.iter().map(|(n, value)| (name(n), HeaderValue::from_str(value).unwrap())).collect()
    }

    fn origins(allowed_origins: &str, allowed_hosts: &str) -> Origins {
        let allowed = AllowedOrigins::parse(allowed_origins).unwrap();
        Origins::new(allowed, &parse_hosts(allowed_hosts).unwrap(), false)
    }

    /// The reason to refuse a request to change something, if there is such a reason.
    fn refused(origins: &Origins, lines: &[(&str, &str)]) -> Option<String> {
        let refusal = origins.check(&headers(lines), Effect::Changes).err()?;
        assert_eq!(refusal.status().as_u16(), 403);
        Some(refusal.facts)
    }

    #[test]
    fn hosts_must_be_known() {
        let origins = origins("", "Files.example.org");
        let own = machine_name().unwrap();
        for host in
            ["127.0.0.1:1", "[::1]", "192.0.2.1", "localhost:8888", "a.localhost", "LOCALHOST.", "files.example.org:1"]
        {
            assert_eq!(refused(&origins, &[("host", host)]), None, "{host}");
        }
        for host in [own.clone(), own.to_uppercase(), format!("{own}.local:8888")] {
            assert_eq!(refused(&origins, &[("host", &host)]), None, "{host}");
        }
        for host in [
            "evil.example",
            "xfiles.example.org",
            "a.files.example.org",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "",
        ] {
            let message = refused(&origins, &[("host", host)]).unwrap_or_else(|| panic!("{host}"));
            assert!(message.contains(host) && message.contains("allowed_hosts"), "{message}");
        }
        assert_eq!(refused(&origins, &[]), None, "HTTP/1.0 has none");
        // No page can say that.
        let (host, client) = (("host", "evil.example"), (CLIENT_HEADER, "bigup-cli/1"));
        assert_eq!(refused(&origins, &[host, client]), None);
        assert!(refused(&origins, &[host, client, ("origin", "http://other.example")]).is_some());
    }

    #[test]
    fn pages_of_others_are_refused_and_those_that_are_listed_are_not() {
        let origins = origins("https://app.example.org, http://localhost:3000", "");
        let host = ("host", "127.0.0.1:8888");
        for right in [
            &[host][..],
            &[host, ("origin", "http://127.0.0.1:8888"), FIREFOX],
            &[host, ("origin", "https://app.example.org"), ("sec-fetch-site", "cross-site"), FIREFOX],
            &[host, ("origin", "http://localhost:3000"), ("sec-fetch-site", "same-site")],
            &[host, ("sec-fetch-site", "same-origin"), ("referer", "http://127.0.0.1:8888/x"), FIREFOX],
            &[host, ("referer", "http://127.0.0.1:8888/x"), FIREFOX],
            &[host, ("referer", "https://app.example.org/"), FIREFOX],
            &[host, ("user-agent", "bigup-cli/1")],
        ] {
            assert_eq!(refused(&origins, right), None, "{right:?}");
        }
        for (wrong, says) in [
            (&[host, ("origin", "https://evil.example")][..], "allowed_origins"),
            (&[host, ("origin", "null")], "allowed_origins"),
            (&[host, ("origin", "http://127.0.0.1:3000"), FIREFOX], "allowed_origins"),
            (&[host, ("origin", "http://127.0.0.1:8888"), ("origin", "https://app.example.org")], "twice"),
            // A redirect by a foreign server.
            (&[host, ("origin", "http://127.0.0.1:8888"), ("sec-fetch-site", "cross-site")], "allowed_origins"),
            (&[host, ("sec-fetch-site", "cross-site")], "allowed_origins"),
            (&[host, ("sec-fetch-site", "same-site")], "allowed_origins"),
            (&[host, ("sec-fetch-site", "new-kind")], "allowed_origins"),
            (&[host, ("sec-fetch-site", "none"), FIREFOX], "peek=1"),
            (&[host, ("referer", "https://evil.example/127.0.0.1:8888")], "allowed_origins"),
            (&[host, ("referer", "about:blank"), FIREFOX], "allowed_origins"),
            (&[host, FIREFOX], "Referer"),
            // A listed page tells nothing of the name by which it calls.
            (&[("host", "evil.example"), ("origin", "https://app.example.org")], "allowed_hosts"),
        ] {
            let message = refused(&origins, wrong).unwrap_or_else(|| panic!("{wrong:?}"));
            assert!(message.contains(says), "{message}");
        }
        for typed in [&[host, FIREFOX][..], &[host, ("sec-fetch-site", "none"), FIREFOX]] {
            assert!(origins.check(&headers(typed), Effect::Looks).is_ok(), "an address that somebody typed");
        }
    }

    #[test]
    fn all_pages_may_call_with_a_token_only() {
        let origins = origins("*", "");
        let asks = [("host", "127.0.0.1"), ("origin", "https://evil.example")];
        assert!(refused(&origins, &asks).is_some());
        assert_eq!(origins.readable_by(&headers(&asks)).unwrap(), "*");
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::create(dir.path()).unwrap();
        let check = |anonymous, allowed| check_any(dir.path(), &AllowedOrigins::parse(allowed).unwrap(), anonymous);
        assert!(check(false, "*").unwrap_err().contains("bigupd token new"));
        std::fs::write(data.tokens_json(), "{\"version\": 1, \"tokens\": []}").unwrap();
        assert_eq!(check(false, "*"), Ok(()));
        assert!(check(true, "*").is_err());
        assert_eq!(check(true, "http://a.example"), Ok(()));
    }

    #[test]
    fn a_preflight_is_answered_for_pages_that_may_call() {
        let origins = origins("https://app.example.org", "");
        let preflight = |origin| {
            let lines = [("origin", origin), ("access-control-request-method", "POST")];
            let asked = headers(&[&lines[..], &[("access-control-request-private-network", "true")]].concat());
            origins
                .options(&asked, "GET, POST", SHARED)
                .map(|response| origins.sharing(&asked, SHARED).told_in(response))
        };
        let response = preflight("https://app.example.org").unwrap();
        for (name, value) in [
            ("access-control-allow-origin", "https://app.example.org"),
            ("access-control-allow-methods", "GET, POST"),
            ("access-control-allow-headers", "authorization, content-digest, content-type"),
            ("access-control-max-age", "7200"),
            ("access-control-allow-private-network", "true"),
            ("vary", "origin"),
            ("allow", "GET, POST"),
        ] {
            assert_eq!(response.headers()[name], value, "{name}");
        }
        assert_eq!(response.status(), 204);
        assert!(preflight("https://evil.example").unwrap_err().facts.contains("allowed_origins"));
        let plain = origins.options(&headers(&[]), "GET", SHARED).unwrap();
        assert!(!plain.headers().contains_key("access-control-allow-methods"));
    }
}
