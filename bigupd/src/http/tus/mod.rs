//! The tus protocol, version 1.0.0, at `/files/`: creation, appending in order, termination.
//!
//! Its headers, codes and words stay here, and are known nowhere below. It asks [`uploads`](crate::uploads) like the
//! native protocol does. Anything that other protocols with appending bodies share is in `http/append.rs`.

pub mod headers;
pub mod routes;
mod words;
