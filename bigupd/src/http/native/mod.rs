//! The native endpoint, `/big_file_upload`: what `bigup-cli` and the oldest client speak.
//!
//! Its parameters and words stay here, and are known nowhere below.

pub mod query;
pub mod routes;
mod words;
