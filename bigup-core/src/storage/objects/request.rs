//! Signed requests, their time limits, and their repetition.

use super::credentials;
use super::error::{ObjectError, Reason};
use super::settings::ObjectSettings;
use crate::merger_events::{MergerEvent, StoreObserver, StoreRequest, StoreResult};
use rusty_s3::{Bucket, Credentials, S3Action, UrlStyle};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use ureq::http::{HeaderMap, Request, Response};
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::{Agent, Body, SendBody};

/// Time for which a signature holds: clocks may differ by some minutes, and a large part takes its time.
const SIGNED_FOR: Duration = Duration::from_secs(60 * 60);

/// Longest time to connect.
const CONNECT: Duration = Duration::from_secs(5);

/// Longest wait for the head of an answer.
const ANSWER: Duration = Duration::from_secs(20);

/// The same after a request that stores something: to complete a large upload takes a store some time.
const STORED: Duration = Duration::from_secs(120);

/// A failure that came later than this after the first attempt is not worth another attempt.
const SOON: Duration = Duration::from_secs(5);

/// Time for any body, and slowest rate beyond that in bytes a second. A body that takes longer is given up.
const BODY: Duration = Duration::from_secs(60);
const SLOWEST: u64 = 64 << 10;

/// Pauses before a request is repeated. After that the caller fails, and whoever started it waits longer.
const PAUSES: [Duration; 3] = [Duration::from_millis(100), Duration::from_millis(400), Duration::from_millis(1600)];

/// Largest answer that is read into memory, in bytes: a page of a list with the longest keys takes a quarter of it.
const MOST_TEXT: u64 = 16 << 20;

/// The names of requests that are counted by themselves.
pub(super) const STORING_A_PART: &str = "storing a part";
pub(super) const COMPLETING: &str = "completing an upload of parts";
pub(super) const STORING: &str = "storing an object";

/// The bytes that a request carries.
#[derive(Clone, Copy)]
pub(super) enum Payload<'a> {
    /// Nothing.
    Nothing,
    /// These.
    Bytes(&'a [u8]),
    /// Those of a file.
    Range {
        /// The file.
        file: &'a File,
        /// Place of the first byte.
        offset: u64,
        /// Number of bytes.
        len: u64,
    },
}

impl Payload<'_> {
    fn len(self) -> u64 {
        match self {
            Payload::Nothing => 0,
            Payload::Bytes(bytes) => bytes.len() as u64,
            Payload::Range { len, .. } => len,
        }
    }
}

/// A request, signed.
pub(super) struct Signed {
    method: &'static str,
    url: String,
    headers: Vec<(&'static str, String)>,
}

impl Signed {
    /// Signs `action` with these headers, whose names are in lower case.
    pub(super) fn of<'a, A: S3Action<'a>>(mut action: A, headers: Vec<(&'static str, String)>) -> Signed {
        for (name, value) in &headers {
            action.headers_mut().insert(*name, value.clone());
        }
        Signed { method: A::METHOD.to_str(), url: action.sign(SIGNED_FOR).into(), headers }
    }

    /// The same with a header that the signature does not cover.
    pub(super) fn with(mut self, name: &'static str, value: String) -> Signed {
        self.headers.push((name, value));
        self
    }
}

/// The text of an answer, and its headers.
pub(super) struct Answer {
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub text: String,
}

impl Answer {
    /// The value of a header. `None` if it is missing or not ASCII.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// Makes requests of one bucket. Connections are kept for the next one.
pub(super) struct Requests {
    bucket: Bucket,
    agent: Agent,
    credentials_file: Option<PathBuf>,
    observer: Option<Arc<StoreObserver>>,
}

impl Requests {
    /// Ready for requests; none is made.
    ///
    /// # Errors
    /// The settings make no URL.
    pub(super) fn new(settings: &ObjectSettings) -> Result<Requests, String> {
        let endpoint = settings.endpoint();
        let style = if settings.path_style { UrlStyle::Path } else { UrlStyle::VirtualHost };
        let wrong = |why: String| format!("s3_endpoint {endpoint}: {why}");
        let url = endpoint.parse().map_err(|e| wrong(format!("{e}")))?;
        let bucket = Bucket::new(url, style, settings.url.bucket.clone(), settings.region.clone());
        let bucket = bucket.map_err(|e| wrong(e.to_string()))?;
        let credentials_file = settings.credentials_file.clone();
        Ok(Requests { bucket, agent: agent(&endpoint), credentials_file, observer: None })
    }

    /// Has `observer` be told of each request from now on.
    pub(super) fn observed_by(&mut self, observer: Arc<StoreObserver>) {
        self.observer = Some(observer);
    }

    /// A URL by which anybody can read the object of this key, for so long.
    ///
    /// # Errors
    /// There are no credentials.
    pub(super) fn link(&self, key: &str, valid: Duration) -> Result<String, ObjectError> {
        const WHAT: &str = "signing a link to an object";
        let not_made = |why: String| ObjectError::new(WHAT, Reason::NotMade(why));
        let credentials = credentials::read(self.credentials_file.as_deref()).map_err(not_made)?;
        Ok(self.bucket.get_object(Some(&credentials), key).sign(valid).into())
    }

    /// Makes a request, and once more where its failure may pass. Reads the answer.
    ///
    /// # Errors
    /// It is refused, or no answer comes.
    pub(super) fn call(
        &self,
        what: &'static str,
        sign: impl Fn(&Bucket, &Credentials) -> Signed,
        payload: Payload<'_>,
    ) -> Result<Answer, ObjectError> {
        self.patiently(what, payload, || {
            let response = self.once(what, &sign, payload)?;
            let (parts, body) = response.into_parts();
            let text = read_text(body).map_err(|e| ObjectError::new(what, Reason::NoAnswer(e.to_string())))?;
            // A completion can fail after its status was sent.
            if text.contains("<Error>") && text.contains("</Error>") && !text.contains("Result>") {
                return Err(ObjectError::refused(what, 500, &text));
            }
            Ok(Answer { headers: parts.headers, text })
        })
    }

    /// The same, for an answer that is read by the caller.
    ///
    /// # Errors
    /// As for [`Requests::call`].
    pub(super) fn stream(
        &self,
        what: &'static str,
        sign: impl Fn(&Bucket, &Credentials) -> Signed,
    ) -> Result<Response<Body>, ObjectError> {
        self.patiently(what, Payload::Nothing, || self.once(what, &sign, Payload::Nothing))
    }

    /// Makes a request once, and tells of it.
    fn observed<T>(
        &self,
        what: &str,
        payload: Payload<'_>,
        make: &impl Fn() -> Result<T, ObjectError>,
    ) -> Result<T, ObjectError> {
        let Some(observer) = &self.observer else { return make() };
        let request = match what {
            STORING_A_PART => StoreRequest::Part,
            COMPLETING => StoreRequest::Completion,
            STORING => StoreRequest::Object,
            _ => StoreRequest::Other,
        };
        if request == StoreRequest::Part {
            observer(MergerEvent::PartBegins);
        }
        let began = Instant::now();
        let made = make();
        let result = made.as_ref().err().map_or(StoreResult::Answered, ObjectError::result);
        let stores = made.is_ok() && matches!(request, StoreRequest::Part | StoreRequest::Object);
        let (bytes, seconds) = (if stores { payload.len() } else { 0 }, began.elapsed().as_secs_f64());
        observer(MergerEvent::StoreAnswered { request, result, bytes, seconds });
        made
    }

    fn patiently<T>(
        &self,
        what: &str,
        payload: Payload<'_>,
        make: impl Fn() -> Result<T, ObjectError>,
    ) -> Result<T, ObjectError> {
        let began = Instant::now();
        for pause in PAUSES {
            match self.observed(what, payload, &make) {
                Err(e) if e.may_pass() && began.elapsed() < SOON => {
                    log::debug!("once more after {pause:?}: {e}");
                    std::thread::sleep(pause);
                }
                done => return done,
            }
        }
        self.observed(what, payload, &make)
    }

    fn once(
        &self,
        what: &'static str,
        sign: &impl Fn(&Bucket, &Credentials) -> Signed,
        payload: Payload<'_>,
    ) -> Result<Response<Body>, ObjectError> {
        let not_made = |why: String| ObjectError::new(what, Reason::NotMade(why));
        let credentials = credentials::read(self.credentials_file.as_deref()).map_err(not_made)?;
        let signed = sign(&self.bucket, &credentials);
        let mut request = Request::builder().method(signed.method).uri(signed.url);
        for (name, value) in signed.headers {
            request = request.header(name, value);
        }
        let sent = match payload {
            Payload::Nothing if ["PUT", "POST"].contains(&signed.method) => self.run(request.body(&[][..]), payload),
            Payload::Nothing => self.run(request.body(()), payload),
            Payload::Bytes(bytes) => self.run(request.body(bytes), payload),
            Payload::Range { file, offset, len } => {
                let mut reader = RangeReader { file, offset, left: len };
                let request = request.header("content-length", len);
                self.run(request.body(SendBody::from_reader(&mut reader)), payload)
            }
        };
        // The error of the library may tell the URL, in which the signature is: its kind is enough.
        let response = sent.map_err(|e| ObjectError::new(what, Reason::NoAnswer(without_url(&e))))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let text = read_text(response.into_body()).unwrap_or_default();
        Err(ObjectError::refused(what, status.as_u16(), &text))
    }

    fn run<B: ureq::AsSendBody>(
        &self,
        request: Result<Request<B>, ureq::http::Error>,
        payload: Payload<'_>,
    ) -> Result<Response<Body>, ureq::Error> {
        let time = BODY + Duration::from_secs(payload.len() / SLOWEST);
        let request = request?;
        let answer = if ["PUT", "POST"].contains(&request.method().as_str()) { STORED } else { ANSWER };
        let request = self.agent.configure_request(request).timeout_send_body(Some(time));
        self.agent.run(request.timeout_recv_response(Some(answer)).build())
    }
}

fn without_url(error: &ureq::Error) -> String {
    match error {
        ureq::Error::Io(e) => e.to_string(),
        ureq::Error::Timeout(reason) => format!("timeout ({reason})"),
        ureq::Error::BadUri(_) => "the URL cannot be used".to_owned(),
        other => other.to_string().split("http").next().unwrap_or_default().to_owned(),
    }
}

fn read_text(body: Body) -> io::Result<String> {
    let mut bytes = vec![];
    body.into_reader().take(MOST_TEXT).read_to_end(&mut bytes)?;
    String::from_utf8(bytes).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
}

/// Reads bytes of a file without moving its position, which other threads share.
struct RangeReader<'a> {
    file: &'a File,
    offset: u64,
    left: u64,
}

impl Read for RangeReader<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let most = bytes.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let got = self.file.read_at(&mut bytes[..most], self.offset)?;
        if got == 0 && most > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.offset += got as u64;
        self.left -= got as u64;
        Ok(got)
    }
}

/// This program and its version, for the logs of the store.
fn program() -> String {
    let path = std::env::current_exe().unwrap_or_default();
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or("bigup");
    format!("{name}/{}", env!("CARGO_PKG_VERSION"))
}

/// The HTTP client for the service at `endpoint`.
fn agent(endpoint: &str) -> Agent {
    let config = Agent::config_builder().http_status_as_error(false).proxy(None);
    let config = config.user_agent(program());
    let config = config.max_redirects(0).max_redirects_will_error(false);
    let config = config.max_idle_connections(64).max_idle_connections_per_host(64);
    let config = config.timeout_connect(Some(CONNECT));
    if !endpoint.starts_with("https://") {
        return config.build().into();
    }
    let found = rustls_native_certs::load_native_certs();
    found.errors.iter().for_each(|error| log::debug!("{error}"));
    let authorities: Vec<Certificate<'static>> =
        found.certs.iter().map(|der| Certificate::from_der(der).to_owned()).collect();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = TlsConfig::builder().unversioned_rustls_crypto_provider(provider);
    config.tls_config(tls.root_certs(RootCerts::from(authorities.into_iter())).build()).build().into()
}
