//! The data folder: unfinished uploads, finished files, and every step between them that a kill or a power cut can
//! interrupt.
//!
//! It uses [`protocol`](crate::protocol) and plain synchronous I/O on local files. No HTTP, no async runtime and no
//! settings come in here.

pub mod audit;
pub mod data_dir;
pub mod disk;
pub mod finish;
mod group_sync;
pub mod info_ini;
pub mod space;
pub mod spool;
pub mod store;
