//! The protocol of clients and servers: names, slices, digests, and the parameters and bodies of the native endpoint.
//!
//! Here is only arithmetic and text. It uses no other folder. Files, connections and all that depends on the system do
//! not come in here.

pub mod content;
pub mod digest;
pub mod kept;
pub mod name;
pub mod native;
pub mod parts;
pub mod plan;
pub mod ranges;
pub mod sha256;
pub mod units;
