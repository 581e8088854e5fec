//! Requests and responses. Each protocol is a folder of its own; bodies, refusals and probes are shared.
//!
//! It turns a request into a question to [`uploads`](crate::uploads), and the outcome into words of its protocol. It decides nothing
//! about an upload itself.

pub mod app;
mod append;
pub mod body;
pub mod checksum;
pub mod native;
pub mod probes;
pub mod receive;
pub mod request;
pub mod response_budget;
pub mod routes;
mod timing;
pub mod tus;
mod waiting;
