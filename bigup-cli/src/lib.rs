//! The bigup client: a plain synchronous program. One reader thread reads and hashes a file's slices, several sender threads post
//! them, a bounded queue lies between.
//!
//! # Layout
//! - [`source`] - what is read, and how a change under our hands, or a failed command, is noticed.
//! - [`client`] - HTTP requests, what lets us in, and which failures pass.
//! - [`pipeline`] - reader, queue and senders: how many there are, and how large slices are.
//! - [`upload`] - the protocol of one file, from the first question to the published file.
//! - [`stop`] - stopping all threads of an upload.
//! - [`cli`] - the command line.
//!
//! # Who ends what
//! The work is done in a thread of its own, so that a signal ends the program at once, whatever that thread waits for.
//! Nothing needs undoing: what the server answered is stored, all else is sent again next time.

#[cfg(feature = "cli")]
pub mod cli;
pub mod client;
pub mod pipeline;
pub mod source;
pub mod stop;
pub mod upload;
