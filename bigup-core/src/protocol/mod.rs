//! The protocol of clients and servers: names, slices, digests, and the parameters and bodies of the native endpoint.
//!
//! Here is only arithmetic and text. Nothing here reads or writes a file, opens a connection, or depends on the system.

pub mod digest;
pub mod name;
pub mod native;
pub mod plan;
pub mod ranges;
pub mod units;
