//! What must hold of bigup's parsers for any bytes that come: an oracle for each, a function that takes bytes and panics
//! where something does not hold.
//!
//! The fuzzers in `tests/fuzz` call them with ever new bytes; `tests/corpus.rs` calls them with the committed corpora, so
//! that whatever was found once is looked at by every `cargo test`. Each module tells how it reads its bytes.
//!
//! - [`name`] - file names, and the safe forms of them.
//! - [`query`] - parameters of a request.
//! - [`bundle`] - several files in one body.
//! - [`content`] - ranges, conditions and paths of requests for finished files.
//! - [`form`] - bodies, raw and multipart.
//! - [`text`] - sizes, times, digests, Content-Digest.
//! - [`tus`] - header fields and addresses of tus.
//! - [`plan`] - the arithmetic of slices.
//! - [`answer`] - what a client makes of a server's answers.
//! - [`config`] - the daemon's configuration file.
//! - [`metadata`] - upload.json and the file of records.
//! - [`info_ini`] - the operators' view.
//! - [`spool`] - a whole folder of an upload, by daemon and merger.
//! - [`upload_headers`] - header fields of resumable uploads.

pub mod answer;
pub mod bundle;
pub mod config;
pub mod content;
pub mod form;
pub mod info_ini;
pub mod metadata;
pub mod name;
pub mod plan;
pub mod query;
pub mod spool;
pub mod text;
pub mod tus;
pub mod upload_headers;

/// An oracle: panics where something does not hold of these bytes.
pub type Oracle = fn(&[u8]);

/// All oracles, by the names of their fuzz targets and corpora.
pub const ORACLES: [(&str, Oracle); 14] = [
    ("answer", answer::check),
    ("bundle", bundle::check),
    ("config", config::check),
    ("content", content::check),
    ("form", form::check),
    ("info_ini", info_ini::check),
    ("metadata", metadata::check),
    ("name", name::check),
    ("plan", plan::check),
    ("query", query::check),
    ("spool", spool::check),
    ("text", text::check),
    ("tus", tus::check),
    ("upload_headers", upload_headers::check),
];

/// What was accepted. What was refused has a status that says so, and a reason that can be shown anywhere.
fn told<T>(result: Result<T, bigupd::refusal::Refusal>) -> Option<T> {
    result
        .map_err(|refusal| {
            assert!(refusal.status().is_client_error() && !refusal.facts.is_empty(), "{refusal:?}");
            name::assert_harmless(&refusal.facts);
        })
        .ok()
}
