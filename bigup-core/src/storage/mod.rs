//! The data folder: unfinished uploads, finished files, and every step between them that a kill or a power cut can
//! interrupt.
//!
//! It uses [`protocol`](crate::protocol) and plain synchronous I/O on local files. `objects` alone makes requests, of a
//! store for finished files. No async runtime and no settings of programs come in here.

pub mod audit;
pub mod data_dir;
pub mod disk;
pub mod finish;
mod group_sync;
pub mod info_ini;
mod list_memory;
pub mod objects;
pub mod space;
pub mod spool;
pub mod store;
