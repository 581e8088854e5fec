//! Connections: sockets, TLS, limits of their number, time and pace, and the origin of a request.
//!
//! It gives streams and peers to hyper. It knows no route, no upload and no token.

pub mod body_memory;
pub mod client_certificate;
pub mod connection_slots;
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
