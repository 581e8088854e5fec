//! The client of bigup: uploads files to a bigup server, and asks it for their state.
//!
//! An upload that was interrupted goes on where it stopped. Failed requests are repeated by a [`RetryPolicy`]. At the
//! end of [`Upload::run`] the server has the whole file, verified by its BLAKE3 digest and synced.
//!
//! # Example
//! ```
//! # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/daemon.rs"));
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let daemon = Daemon::start();
//! # let (url, path) = (daemon.url.as_str(), daemon.folder.path().join("disk.img"));
//! # std::fs::write(&path, b"content")?;
//! use bigup_client::{Client, FileName, LocalFile, RetryPolicy};
//! use std::time::Duration;
//!
//! let client = Client::builder(url).rate_limit(100 << 20).build()?;
//! let retry = RetryPolicy { retry_for: Duration::from_secs(60), ..RetryPolicy::default() };
//! let uploaded = client.upload("alice/disk.img", LocalFile::open(&path)?).retry(retry).run()?;
//! assert_eq!(uploaded.file_size, 7);
//!
//! let status = client.status(&FileName::new("alice/disk.img")?)?.expect("the server has the file");
//! assert_eq!((status.is_uploaded, status.digest()), (1, uploaded.file_digest));
//! assert!(client.uploads()?.is_empty(), "no upload is unfinished");
//!
//! // Other content replaces a finished file only on request.
//! std::fs::write(&path, b"other content")?;
//! let error = client.upload("alice/disk.img", LocalFile::open(&path)?).run().unwrap_err();
//! assert!(error.is_existing_file() && !error.is_temporary());
//! client.upload("alice/disk.img", LocalFile::open(&path)?).replace(true).run()?;
//! # Ok(())
//! # }
//! ```
//!
//! # Layout
//! - [`source`] - local files and other inputs; changes of a file, and failed commands, are noticed here.
//! - [`client`] - HTTP requests, tokens and certificates, retries.
//! - [`pipeline`] - one reader thread, a bounded queue, several sender threads.
//! - [`download`] - a finished file back to this machine, each piece checked.
//! - [`upload`] - the protocol of one file, from the first question to the published file.
//! - [`buffer`] - memory for slices.
//! - [`stop`] - the end of an upload by another thread.
//! - `watch` - a folder whose files are pushed once they are complete, with the cargo feature `cli`.
//! - `cli` - the command line, with the cargo feature `cli`. It uses only the public functions of the others.
//!
//! # Threads
//! The client is a plain synchronous program. [`Upload::run`] returns at the end of the upload; its threads end before.
//! An upload that ends early needs no undoing: the server keeps the slices that it acknowledged.

pub mod buffer;
#[cfg(feature = "cli")]
pub mod cli;
pub mod client;
pub mod download;
pub mod pipeline;
pub mod source;
pub mod stop;
pub mod upload;
#[cfg(feature = "cli")]
pub mod watch;

pub use bigup_core::protocol::digest::Digest;
pub use bigup_core::protocol::name::FileName;
pub use bigup_core::protocol::native::{UploadResponse, UploadStatus};
pub use bigup_core::protocol::plan::Plan;
pub use client::Client;
pub use client::builder::ClientBuilder;
pub use client::error::{CallError, ClientError, TokenError};
pub use client::observer::Observer;
pub use client::retry::{RetryPolicy, WhenFull};
pub use client::status::StoredFile;
pub use client::token::Token;
pub use source::error::SourceError;
pub use source::{LocalFile, Source};
pub use stop::Stop;
pub use upload::Uploaded;
pub use upload::builder::Upload;
pub use upload::error::UploadError;
pub use upload::keep::Keep;
