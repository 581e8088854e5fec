//! Requests and responses. Each protocol is a folder of its own; bodies, refusals and probes are shared.
//!
//! It uses [`net`](crate::net) and [`admission`](crate::admission), turns a request into a question to
//! [`uploads`](crate::uploads), and the outcome into words of its protocol. Decisions about an upload do not come in.

pub mod app;
mod append;
pub mod body;
pub mod checksum;
pub mod content;
pub mod digest_fields;
mod html;
pub mod ietf;
pub mod native;
pub mod page;
pub mod probes;
pub mod receive;
pub mod request;
pub mod response_budget;
pub mod routes;
mod timing;
mod told_digest;
pub mod tus;
pub mod upload_url;
mod waiting;
