//! The native endpoint, `/big_file_upload`: the protocol of `bigup-cli` and the oldest client.
//!
//! It uses the shared parts of [`http`](crate::http), and asks [`uploads`](crate::uploads). Its parameters and words
//! stay here, and are known nowhere below. Decisions about an upload do not come in.

pub mod bundle;
pub mod query;
pub mod routes;
mod words;
