//! The same question as a POST of JSON. It goes where the URL says: through no proxy, and to nowhere else by a redirect.

use super::program::MAX_MESSAGE;
use super::signature::Secret;
use super::{CapturedOutput, HookAnswer, HookQuestion, MAX_SAID};
use serde_json::Value;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio_rustls::rustls::crypto::ring;
use ureq::Agent;
use ureq::http::StatusCode;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

/// True if a URL can be asked as things stand.
///
/// # Errors
/// It is https://, and no authorities are installed.
pub fn check(url: &str) -> Result<(), String> {
    match is_tls(url) && authorities().is_empty() {
        true => {
            Err("no certificate authorities are installed on this system: install its package ca-certificates".into())
        }
        false => Ok(()),
    }
}

fn is_tls(url: &str) -> bool {
    url.starts_with("https://")
}

fn authorities() -> Vec<Certificate<'static>> {
    let found = rustls_native_certs::load_native_certs();
    found.errors.iter().for_each(|error| log::debug!("{error}"));
    found.certs.iter().map(|der| Certificate::from_der(der).to_owned()).collect()
}

/// The HTTP client for `url`.
pub fn agent(url: &str) -> Agent {
    let config = Agent::config_builder().http_status_as_error(false).proxy(None);
    let config = config.max_redirects(0).max_redirects_will_error(false);
    // A server that closes idle connections would make the next question fail.
    let config = config.max_idle_connections(0);
    if !is_tls(url) {
        return config.build().into();
    }
    let tls = TlsConfig::builder().unversioned_rustls_crypto_provider(Arc::new(ring::default_provider()));
    config.tls_config(tls.root_certs(RootCerts::from(authorities().into_iter())).build()).build().into()
}

/// Asks, and waits for `time` at most. The request is signed by the secret in `secret_file`, which is read each time,
/// so that it can change. Blocks.
pub fn post(
    agent: &Agent,
    url: &str,
    question: &HookQuestion,
    secret_file: Option<&Path>,
    time: Duration,
) -> HookAnswer {
    let body = question.json().to_string();
    let mut request = agent.post(url).config().timeout_global(Some(time)).build();
    if let Some(file) = secret_file {
        let secret = match Secret::read(file) {
            Ok(secret) => secret,
            Err(why) => return HookAnswer::Failed(format!("hook_secret_file: {why}")),
        };
        for (name, value) in secret.headers(&question.id, now(), &body) {
            request = request.header(name, value);
        }
    }
    match request.header("Content-Type", "application/json").send(body) {
        Ok(response) => {
            let status = response.status();
            let mut said = vec![];
            // The body only explains the status, so a part that cannot be read in time is left out.
            let _ = response.into_body().into_reader().take(MAX_SAID as u64).read_to_end(&mut said);
            judge(status, &said)
        }
        Err(e) => HookAnswer::Failed(e.to_string()),
    }
}

/// Seconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

fn judge(status: StatusCode, body: &[u8]) -> HookAnswer {
    let how = format!("HTTP status {}", status.as_u16());
    match status {
        status if status.is_success() => HookAnswer::Yes,
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => HookAnswer::Failed(how),
        status if status.is_client_error() => HookAnswer::No { how, message: message(body) },
        _ => HookAnswer::Failed(how),
    }
}

/// The text under `message` of a JSON body, else all of it.
fn message(body: &[u8]) -> String {
    let json: Option<Value> = serde_json::from_slice(body).ok();
    let text = json.as_ref().and_then(|json| json["message"].as_str()).map_or(body, str::as_bytes);
    let mut said = CapturedOutput::default();
    said.take(text);
    said.message(MAX_MESSAGE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_say_yes_no_or_not_now() {
        let judged = |status: u16, body: &str| judge(StatusCode::from_u16(status).unwrap(), body.as_bytes());
        for status in [200, 204] {
            assert_eq!(judged(status, "x"), HookAnswer::Yes);
        }
        for (body, message) in
            [(r#"{"message": "no\nway"}"#, "no way"), ("plain", "plain"), (r#"{"a": 1}"#, r#"{"a": 1}"#)]
        {
            let no = HookAnswer::No { how: "HTTP status 403".to_owned(), message: message.to_owned() };
            assert_eq!(judged(403, body), no);
        }
        for status in [302, 408, 429, 500, 503] {
            assert_eq!(judged(status, "x"), HookAnswer::Failed(format!("HTTP status {status}")));
        }
    }
}
