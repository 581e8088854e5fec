//! The native endpoint as a plain HTTP client sees it, and raw sockets for what such a client would not send.

use serde_json::Value;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::{Arc, Barrier};
use std::time::Duration;
use ureq::tls::{PemItem, RootCerts, TlsConfig};

/// How long an answer may take.
const ANSWER_TIME: Duration = Duration::from_secs(60);

/// An answer: status and JSON body.
#[derive(Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// The body; null where it is no JSON.
    pub body: Value,
}

impl Answer {
    /// Reads an answer as it came over a plain connection. Status 0: it is none.
    pub fn parse(text: &str) -> Answer {
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((text, ""));
        let status = head.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok()).unwrap_or(0);
        Answer { status, body: serde_json::from_str(body).unwrap_or(Value::Null) }
    }

    /// The text under `message`.
    pub fn message(&self) -> &str {
        self.body["message"].as_str().unwrap_or_default()
    }

    /// The ids under `slice_ids_uploaded`, sorted.
    pub fn held(&self) -> Vec<u64> {
        let ids = self.body["slice_ids_uploaded"].as_array().cloned().unwrap_or_default();
        let mut ids: Vec<u64> = ids.iter().filter_map(Value::as_u64).collect();
        ids.sort_unstable();
        ids
    }

    /// This answer, if it has the status.
    ///
    /// # Panics
    /// It has not.
    pub fn expect(self, status: u16) -> Answer {
        assert_eq!(self.status, status, "{self:?}");
        self
    }
}

/// The endpoint of one daemon.
#[derive(Clone)]
pub struct Server {
    agent: ureq::Agent,
    url: String,
    token: Option<String>,
    is_oldest: bool,
}

impl Server {
    /// The endpoint below `url`.
    pub fn new(url: &str) -> Server {
        let config = ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(ANSWER_TIME));
        Server { agent: config.build().into(), url: format!("{url}/big_file_upload"), token: None, is_oldest: false }
    }

    /// The same, with a token that goes with every request.
    pub fn with_token(self, token: &str) -> Server {
        Server { token: Some(token.to_owned()), ..self }
    }

    /// The same, as the oldest clients ask, which cannot say whose slices they send: queries go as they are.
    pub fn as_oldest(self) -> Server {
        Server { is_oldest: true, ..self }
    }

    fn target(&self, query: &str) -> String {
        let query = if self.is_oldest { query.to_owned() } else { sourced(query) };
        format!("{}?{query}", self.url)
    }

    fn authorized<B>(&self, request: ureq::RequestBuilder<B>) -> ureq::RequestBuilder<B> {
        match &self.token {
            Some(token) => request.header("Authorization", format!("Bearer {token}")),
            None => request,
        }
    }

    /// The endpoint below `url`, whose certificate must be of an authority in the file `ca`.
    pub fn trusting(url: &str, ca: &Path) -> Server {
        let pem = std::fs::read(ca).expect("the authority can be read");
        let roots = ureq::tls::parse_pem(&pem).filter_map(|item| match item.expect("it is PEM") {
            PemItem::Certificate(certificate) => Some(certificate),
            _ => None,
        });
        let tls = TlsConfig::builder()
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .root_certs(RootCerts::from(roots))
            .build();
        let config = ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(ANSWER_TIME));
        // Connections stay open, however long a test takes from one request to the next.
        let config = config.tls_config(tls).max_idle_age(Duration::from_secs(3600));
        Server { agent: config.build().into(), url: format!("{url}/big_file_upload"), token: None, is_oldest: false }
    }

    /// A GET with these parameters, already encoded.
    pub fn get(&self, query: &str) -> Answer {
        self.try_get(query).unwrap_or_else(|e| panic!("GET {query}: {e}"))
    }

    /// The same, for one that may get no answer.
    ///
    /// # Errors
    /// There is no answer.
    pub fn try_get(&self, query: &str) -> Result<Answer, ureq::Error> {
        self.authorized(self.agent.get(self.target(query))).call().map(read)
    }

    /// A POST of a raw body with these parameters, already encoded.
    pub fn post(&self, query: &str, body: &[u8]) -> Answer {
        let request = self.authorized(self.agent.post(self.target(query))).content_type("application/octet-stream");
        read(request.send(body).unwrap_or_else(|e| panic!("POST {query}: {e}")))
    }

    /// A POST with one more header.
    pub fn post_with(&self, query: &str, header: (&str, &str), body: &[u8]) -> Answer {
        let request = self.authorized(self.agent.post(self.target(query))).header(header.0, header.1);
        read(request.send(body).unwrap_or_else(|e| panic!("POST {query}: {e}")))
    }
}

fn read(mut response: ureq::http::Response<ureq::Body>) -> Answer {
    let text = response.body_mut().read_to_string().expect("the answer can be read");
    Answer { status: response.status().as_u16(), body: serde_json::from_str(&text).unwrap_or(Value::Null) }
}

/// The statuses of 40 requests at the same moment, each of its own client.
pub fn forty(server: &Server, ask: impl Fn(&Server, usize) -> Answer + Sync) -> Vec<u16> {
    forty_at_once(|i| ask(&server.clone(), i).status)
}

/// The results of `ask`, called 40 times at the same moment.
pub fn forty_at_once<T: Send>(ask: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let gate = Barrier::new(40);
    let one = |i: usize| {
        gate.wait();
        ask(i)
    };
    std::thread::scope(|scope| {
        let one = &one;
        let threads: Vec<_> = (0..40).map(|i| scope.spawn(move || one(i))).collect();
        threads.into_iter().map(|thread| thread.join().expect("a request has an answer")).collect()
    })
}

/// A name or value, percent-encoded for a query.
pub fn encoded(text: &str) -> String {
    text.bytes()
        .map(|b| if b.is_ascii_alphanumeric() { (b as char).to_string() } else { format!("%{b:02X}") })
        .collect()
}

/// Host and port of a daemon's URL.
pub fn address(url: &str) -> &str {
    url.split_once("://").map_or(url, |(_, address)| address)
}

/// Opens a plain connection to a daemon.
pub fn connect(url: &str) -> TcpStream {
    let stream = TcpStream::connect(address(url)).expect("the daemon accepts connections");
    stream.set_read_timeout(Some(ANSWER_TIME)).expect("a time limit can be set");
    stream
}

/// Sends `bytes` as they are, all of them, and only then reads the answer up to its end or the connection's.
pub fn raw(url: &str, bytes: &[u8]) -> String {
    let mut stream = connect(url);
    stream.write_all(bytes).expect("the daemon takes all that is sent");
    read_answer(&mut stream)
}

/// Reads the head of one answer and nothing after it; less where the connection ends.
pub fn read_head(stream: &mut TcpStream) -> String {
    let mut head = vec![];
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).expect("the answer can be read") == 1 {
        head.extend(byte);
    }
    String::from_utf8_lossy(&head).into_owned()
}

/// Reads one answer with a Content-Length, or up to the end of the connection.
pub fn read_answer(stream: &mut TcpStream) -> String {
    let mut text = vec![];
    let mut block = [0; 4096];
    loop {
        let shown = String::from_utf8_lossy(&text).into_owned();
        if let Some((head, body)) = shown.split_once("\r\n\r\n") {
            let length =
                head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
            if length.is_some_and(|length: usize| body.len() >= length) {
                return shown;
            }
        }
        match stream.read(&mut block).expect("the answer can be read") {
            0 => return shown,
            got => text.extend(&block[..got]),
        }
    }
}

/// `query` with a source, as clients name one, where it is about an upload of several slices and names none.
pub fn sourced(query: &str) -> String {
    let is_left = |part: &str| {
        matches!(part, "peek=1" | "slice_num=0" | "slice_num=1")
            || ["source=", "bundle="].iter().any(|start| part.starts_with(start))
            || part.is_empty()
    };
    if query.split('&').any(is_left) { query.to_owned() } else { format!("{query}&source=test") }
}

/// The head of a POST to the endpoint, to be sent over a plain connection. `headers` are whole lines without an end. A source
/// is named as by [`sourced`].
pub fn post_head(query: &str, headers: &[&str]) -> Vec<u8> {
    let query = sourced(query);
    let lines: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    format!("POST /big_file_upload?{query} HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n").into_bytes()
}
