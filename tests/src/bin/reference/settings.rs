//! What the table of settings becomes: the sample configuration, and the reference of all keys. The manual page is made by
//! [`crate::man`] from the texts here.

use crate::markdown::{cell, escaped};
use bigupd::config::settings::{SETTINGS, Setting, Topic};

/// What the package sets, in place of defaults.
const OF_THE_PACKAGE: [(&str, &str); 1] = [("data_dir", "/var/lib/bigup")];

/// What is to be said of a key in the sample alone, which the package puts beside its units.
const REMARKS: [(&str, &str); 1] =
    [("listen", "Counts only where bigupd.socket is masked: that tells the addresses (systemctl edit bigupd.socket).")];

/// Width of the sample's comments.
const WIDTH: usize = 100;

/// How settings are given, a paragraph each.
pub const DESCRIPTION: &[&str] = &[
    "Settings of bigupd, a key = value on each line, without a section or in [bigupd]. Lines that begin with ; or # are \
     comments. Unknown keys are mistakes; all mistakes are told at once, before a port is bound, and bigupd \
     --check-config only tells them.",
    "Each setting may also be given as an option or in the environment: max_uploads is --max-uploads and \
     BIGUP_MAX_UPLOADS. Options win over the environment, the environment over the file, the file over defaults. The \
     file is read at the start; only the certificates are read again on SIGHUP.",
    "SIZE is a number of bytes, or a number with K, M, G or T (1024 and its powers). TIME is a number of seconds, or a \
     number with ms, s, m, h or d. N is a number.",
];

/// Files that belong to it.
pub const FILES: &[(&str, &str)] = &[
    (
        "/etc/bigup/bigupd.ini",
        "where the unit of systemd looks for it; another file is named by --config or BIGUP_CONFIG",
    ),
    ("/var/lib/bigup", "the data folder of the package"),
];

/// A whole file.
pub const EXAMPLE: &str = "\
[bigupd]
data_dir = /var/lib/bigup
listen = 0.0.0.0:8888
tls_cert = /etc/bigup/cert.pem
tls_key = /etc/bigup/key.pem
reserve = 10G
expire_after = 30d";

/// Topics in the order of the table.
pub fn topics() -> Vec<Topic> {
    let mut topics: Vec<Topic> = SETTINGS.iter().map(|setting| setting.topic).collect();
    topics.dedup();
    topics
}

/// systemd/bigupd.ini: every key, commented out where the package leaves the default.
pub fn sample() -> String {
    let mut text = "\
; Configuration of bigupd, read at its start: bigupd.ini(5). `bigupd --config FILE --check-config` tells every mistake.
;
; Keys that are commented out show their defaults; those that have none show an example.
[bigupd]
"
    .to_owned();
    for topic in topics() {
        text += &format!("\n; --- {}\n", topic.title());
        for setting in SETTINGS.iter().filter(|setting| setting.topic == topic) {
            text += &sample_of(setting);
        }
    }
    text
}

fn sample_of(setting: &Setting) -> String {
    let set = OF_THE_PACKAGE.iter().find(|(key, _)| *key == setting.key).map(|(_, value)| *value);
    let remark = REMARKS.iter().find(|(key, _)| *key == setting.key).map_or("", |(_, remark)| remark);
    let comment = wrapped(&format!("{}. {remark}", setting.help));
    let comment: String = comment.iter().map(|line| format!("; {line}\n")).collect();
    let (mark, value) = match (set, setting.default) {
        (Some(value), _) => ("", value),
        (None, Some(default)) => (";", default),
        (None, None) => (";", setting.example),
    };
    format!("\n{comment}{mark}{} = {value}\n", setting.key)
}

/// `text` in lines of [`WIDTH`].
fn wrapped(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = vec![];
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= WIDTH => *line += &format!(" {word}"),
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// docs/configuration.md.
pub fn reference() -> String {
    let mut text = "\
# Configuration of bigupd

Made from `bigupd/src/config/settings.rs` by `cargo run -p bigup-tests --bin reference -- --docs .`: change the table there, not
this file. The manual page bigupd.ini(5) says the same.
"
    .to_owned();
    DESCRIPTION.iter().for_each(|paragraph| text += &format!("\n{}\n", escaped(paragraph)));
    for topic in topics() {
        text += &format!("\n## {}\n", topic.title());
        text += "| key | value | default | example | meaning | environment |\n| --- | --- | --- | --- | --- | --- |\n";
        SETTINGS.iter().filter(|setting| setting.topic == topic).for_each(|setting| text += &row(setting));
    }
    text += &format!("\n## Example\n```ini\n{EXAMPLE}\n```\n");
    text
}

fn row(setting: &Setting) -> String {
    let default = setting.default.map_or("none".to_owned(), |default| format!("`{default}`"));
    format!(
        "| `{}` | {} | {default} | `{}` | {} | `{}` |\n",
        setting.key,
        cell(setting.value),
        setting.example,
        escaped(setting.help),
        setting.variable()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_as_long_as_they_may_be() {
        let text = "word ".repeat(41);
        let lines = wrapped(&text);
        assert_eq!(lines.iter().map(String::len).collect::<Vec<_>>(), [99, 99, 4]);
        assert_eq!(wrapped(""), [""; 0]);
    }
}
