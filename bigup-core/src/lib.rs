//! The parts that the bigup processes share: the protocol, and the data folder.
//!
//! No module talks to the network or knows an async runtime. `bigupd`, `bigup-merger` and `bigup-cli` depend on this
//! crate and never on each other.
//!
//! - [`protocol`] - names, slices, digests and the wire: no I/O.
//! - [`storage`] - the data folder (feature `storage`, on by default): spools, finished files, and the steps between.
//! - [`merger_events`] - events of a merger for the daemon that started it.
//! - [`pem`] - certificates and keys in files.
//! - `host_names` - names of hosts in programs that are linked statically.
//! - `shared_file_systems` - file systems that other machines may change; on Linux.
//! - [`logging`], `journal` - log lines of the programs; the second on Linux.

#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub mod host_names;
#[cfg(target_os = "linux")]
pub mod journal;
pub mod logging;
pub mod merger_events;
pub mod pem;
pub mod protocol;
#[cfg(target_os = "linux")]
pub mod shared_file_systems;
#[cfg(feature = "storage")]
pub mod storage;
