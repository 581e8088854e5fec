//! The native endpoint, `/big_file_upload`: the protocol of `bigup-cli` and the oldest client.
//!
//! Its parameters and words stay here, and are known nowhere below.

pub mod query;
pub mod routes;
mod words;
