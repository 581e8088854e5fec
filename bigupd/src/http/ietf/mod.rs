//! Resumable Uploads for HTTP, the draft of the IETF (draft-ietf-httpbis-resumable-upload, interop version 8), at
//! `/files/`: creation, appending in order, cancellation.
//!
//! It uses `http/append.rs` and [`uploads`](crate::uploads) like tus does. Its header fields, problem types and
//! words stay here, and are known nowhere below.

pub mod headers;
pub mod routes;
mod words;
