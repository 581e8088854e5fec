//! What those who watch a daemon get from it.

use crate::process::eventually;
use std::collections::BTreeMap;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

/// An answer to a plain GET.
#[derive(Debug)]
pub struct Page {
    /// HTTP status.
    pub status: u16,
    /// The Content-Type.
    pub content_type: String,
    /// The body.
    pub text: String,
}

/// Asks for `path` at `url`, with a token maybe.
///
/// # Panics
/// There is no answer.
pub fn page(url: &str, path: &str, token: Option<&str>) -> Page {
    let config =
        ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(Duration::from_secs(60)));
    let agent: ureq::Agent = config.build().into();
    let request = agent.get(format!("{url}{path}"));
    let request = match token {
        Some(token) => request.header("Authorization", format!("Bearer {token}")),
        None => request,
    };
    let mut response = request.call().unwrap_or_else(|e| panic!("GET {url}{path}: {e}"));
    let content_type = response.headers().get("content-type").and_then(|value| value.to_str().ok());
    Page {
        content_type: content_type.unwrap_or_default().to_owned(),
        status: response.status().as_u16(),
        text: response.body_mut().read_to_string().expect("the answer can be read"),
    }
}

/// The metrics of a daemon at one instant.
pub struct Scrape(BTreeMap<String, f64>);

impl Scrape {
    /// Those at `url`.
    ///
    /// # Panics
    /// They cannot be had, or read.
    pub fn of(url: &str) -> Scrape {
        let page = page(url, "/metrics", None);
        assert_eq!(page.status, 200, "{page:?}");
        Scrape::read(&page.text)
    }

    /// Those in a text.
    ///
    /// # Panics
    /// It is none of Prometheus' format, as far as it is used here.
    pub fn read(text: &str) -> Scrape {
        let samples = text.lines().filter(|line| !line.starts_with('#')).map(|line| {
            let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no sample: {line}"));
            (series.to_owned(), value.parse().unwrap_or_else(|e| panic!("{line}: {e}")))
        });
        Scrape(samples.collect())
    }

    /// The value of a series, written as it is shown but for the prefix `bigup_`. 0: there is none.
    pub fn get(&self, series: &str) -> f64 {
        self.0.get(&format!("bigup_{series}")).copied().unwrap_or(0.0)
    }

    /// The sum over all series of a metric, named likewise.
    pub fn sum(&self, metric: &str) -> f64 {
        let (alone, labelled) = (format!("bigup_{metric}"), format!("bigup_{metric}{{"));
        self.0.iter().filter(|(series, _)| **series == alone || series.starts_with(&labelled)).map(|(_, v)| v).sum()
    }

    /// All series, as they are shown.
    pub fn series(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

/// Waits until the series at `url` have these values.
///
/// # Panics
/// They do not.
#[track_caller]
pub fn eventually_counted(url: &str, expected: &[(&str, f64)]) {
    let mut wrong = vec![];
    let shown = || {
        let now = Scrape::of(url);
        wrong = expected.iter().map(|(series, value)| (*series, *value, now.get(series))).collect();
        wrong.retain(|(_, value, is)| is != value);
        wrong.is_empty()
    };
    let waited = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| eventually("the metrics say so", shown)));
    assert!(waited.is_ok(), "series, expected, found: {wrong:?}");
}

fn promtool() -> Command {
    let tools = crate::docs::root().join("target/tools/prometheus/usr/bin/promtool");
    match std::env::var_os("BIGUP_PROMTOOL") {
        Some(path) => Command::new(path),
        None if tools.exists() => Command::new(tools),
        None => Command::new("promtool"),
    }
}

/// The words of Prometheus' own check, which likes this input.
///
/// # Panics
/// It does not like it, or is not there.
pub fn promtool_says(arguments: &[&str], input: &str) -> String {
    let mut command = promtool();
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|e| {
        panic!("promtool cannot be started ({e}): run tests/run, or install Debian's prometheus, or set BIGUP_PROMTOOL")
    });
    child.stdin.take().expect("it was asked for").write_all(input.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{arguments:?}: {said}");
    said
}
