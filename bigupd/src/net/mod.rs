//! Connections: sockets, TLS, limits of their number, time and pace, and the origin of a request.
//!
//! It uses sockets, TLS and hyper, to which it gives streams and peers. Routes, uploads and tokens do not come in here.

pub mod body_memory;
pub mod client_certificate;
pub mod connection_slots;
pub mod file_parts;
pub mod forwarded;
pub mod host;
pub mod limits;
pub mod linger;
pub mod listeners;
pub mod min_rate;
pub mod peer;
pub mod response;
pub mod server;
pub mod timeouts;
pub mod tls;
pub mod trailers;
