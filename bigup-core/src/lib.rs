//! What the bigup processes agree on: names, slices, digests, the wire, the spool, info.ini and the place of
//! finished files.
//!
//! Everything here is pure or plain synchronous I/O on local files; no module talks to the network and none knows an
//! async runtime. `bigupd`, `bigup-merger` and `bigup-cli` lean on this crate and never on each other.
//!
//! # Layout
//! - [`name`] - file names and the safe forms of them (folder, section title, terminal).
//! - [`plan`] - how a file is cut into slices, and the arithmetic of it.
//! - [`ranges`] - sets of slice ids as runs.
//! - [`digest`] - BLAKE3 digests of slices and how they join to the digest of the file.
//! - [`units`] - sizes and times as people write them.
//! - [`pem`] - certificates and keys in files.
//! - [`wire`] - parameters and JSON bodies of the native endpoint.
//! - [`data_dir`] - the folders of a data folder.
//! - [`room`] - how much the disk has left, and taking it beforehand.
//! - [`spool`] - one unfinished upload on disk.
//! - [`info_ini`] - the operators' view of unfinished uploads.
//! - [`store`] - finished files.
//! - [`publish`] - the step that turns a spool into a finished file.
//! - [`notice`] - finished files that somebody is still to be told of.
//! - [`draft`] - a small file that is finished without a spool.
//! - [`event`] - what a merger tells whoever started it.
//! - [`unpublish`] - the step back, for a file that turned out to be damaged.
//! - [`disk`] - atomic replacement, syncing and copying of files.
//! - [`logging`] - what the programs log; [`audit`] - the lines about uploads that ended.

pub mod audit;
pub mod data_dir;
pub mod digest;
pub mod disk;
pub mod draft;
pub mod event;
pub mod info_ini;
mod joint;
pub mod logging;
pub mod name;
pub mod notice;
pub mod pem;
pub mod plan;
pub mod publish;
pub mod ranges;
pub mod room;
pub mod spool;
pub mod store;
pub mod units;
pub mod unpublish;
pub mod wire;
