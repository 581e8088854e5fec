//! The parts that the bigup processes share: the protocol, and the data folder.
//!
//! No module talks to the network and none knows an async runtime. `bigupd`, `bigup-merger` and `bigup-cli` lean on this
//! crate and never on each other.
//!
//! - [`protocol`] - names, slices, digests and the wire: no I/O.
//! - [`storage`] - the data folder (feature `storage`, on by default): spools, finished files, and the steps between.
//! - [`merger_events`] - what a merger tells the daemon that started it.
//! - [`pem`] - certificates and keys in files.
//! - [`logging`] - what the programs log.

pub mod logging;
pub mod merger_events;
pub mod pem;
pub mod protocol;
#[cfg(feature = "storage")]
pub mod storage;
