//! The way of a finished file from the server to this machine.
//!
//! - `pieces` - how a file is cut, and which pieces are right; `fetch` - connections side by side; `part` - the file
//!   beside the destination that keeps all pieces until the end; `place` - the calls that differ between systems.
//! - `stream` - a file as a stream, in order.
//!
//! A piece counts once its digest leads to that of the file. It uses the client. No terminal and no flag comes in here.
//!
//! # What is on disk, and what a kill there leaves
//! ```text
//! 1  `.NAME.bigup-part` made and locked             nothing of the file: the next download begins
//! 2  a piece written, then its digest behind them   the pieces whose digests are there; others are fetched again
//! 3  the digests cut off, synced                    a whole file under the hidden name: its pieces are read again
//! 4  renamed to NAME, the folder synced             the whole file
//! ```
//! After a restart of the machine the pieces of step 2 are read again, since nothing of them was synced.

use crate::client::Client;
use crate::client::error::CallError;
use crate::client::observer::Observer;
use crate::client::retry::RetryBudget;
use crate::download::error::DownloadError;
use crate::download::fetch::{Board, Fetch};
use crate::download::part::PartFile;
use crate::download::pieces::Pieces;
use crate::pipeline::concurrency::Concurrency;
use crate::source::fingerprint::Fingerprint;
use crate::source::system;
use crate::stop::StopSignal;
use bigup_core::protocol::content::{LeavesResponse, ListedFile};
use bigup_core::protocol::digest::{Digest, Leaves};
use bigup_core::protocol::kept::FileTime;
use bigup_core::protocol::name::FileName;
use bigup_core::protocol::plan::Plan;
use std::fs;
use std::io;
use std::path::Path;
use std::time::SystemTime;

pub mod error;
mod fetch;
mod part;
mod pieces;
pub mod place;
pub mod stream;

/// The tools of a download.
pub struct DownloadContext<'a> {
    /// The server.
    pub client: &'a Client,
    /// Learns of progress.
    pub observer: &'a dyn Observer,
    /// The time of retries.
    pub retry: &'a RetryBudget,
    /// Closed when the user stops the download.
    pub stop: &'a StopSignal,
    /// The number of connections.
    pub concurrency: &'a Concurrency,
    /// True if a file of other content is to be replaced.
    pub replace: bool,
}

/// A finished file, as the server tells of it.
#[derive(Clone, Debug)]
pub struct RemoteFile {
    /// Its name.
    pub name: FileName,
    /// Its bytes.
    pub size: u64,
    /// Its digest.
    pub digest: Digest,
    /// Time of its last write.
    pub modified: Option<SystemTime>,
    /// The digests of its leaves. `None`: the server has none, or was not asked.
    pub leaves: Option<Leaves>,
}

/// A download that ended well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Downloaded {
    /// Bytes of the file.
    pub file_size: u64,
    /// Its digest.
    pub file_digest: Digest,
    /// Bytes that came from the server.
    pub bytes_received: u64,
    /// True if the destination had this content before.
    pub already: bool,
}

impl RemoteFile {
    /// Asks the server about the file `name`. A server that is not certain of the digest reads the file first.
    ///
    /// # Errors
    /// There is no such file, or the server does not know its digest.
    pub fn ask(cx: &DownloadContext<'_>, name: &FileName) -> Result<RemoteFile, DownloadError> {
        let ask = || cx.retry.call(cx.observer, cx.stop, None, || cx.client.leaves(name));
        let absent = || DownloadError::Absent(name.clone());
        let mut told = ask()?.ok_or_else(absent)?;
        if told.file_digest.is_none() {
            cx.observer.doing("the server reads its file");
            // No file has this digest: the server tells the right one.
            let nothing = Some(Digest([0; 32]));
            cx.retry.call(cx.observer, cx.stop, None, || cx.client.stored_file(name, nothing, cx.stop))?;
            told = ask()?.ok_or_else(absent)?;
        }
        RemoteFile::of(name, &told).ok_or_else(|| DownloadError::NoDigest(name.clone()))
    }

    /// The file in a list. `None`: the server is not certain of its digest.
    pub fn listed(file: &ListedFile) -> Option<RemoteFile> {
        let (name, digest) = (FileName::new(&file.file_name).ok()?, file.file_digest.as_ref()?.parse().ok()?);
        let modified = time_of(file.source_modified.as_deref(), &file.modified);
        Some(RemoteFile { name, size: file.file_size, digest, modified, leaves: None })
    }

    fn of(name: &FileName, told: &LeavesResponse) -> Option<RemoteFile> {
        let digest = told.file_digest.as_ref()?.parse().ok()?;
        let values = told.leaves.as_ref().and_then(|leaves| leaves.iter().map(|text| text.parse().ok()).collect());
        let leaves = values.zip(told.leaf_size).map(|(values, leaf_len)| Leaves { leaf_len, values });
        // What does not lead to the digest proves nothing.
        let leaves = leaves.filter(|leaves| leaves.root() == Some(digest));
        let modified = time_of(told.source_modified.as_deref(), &told.modified);
        Some(RemoteFile { name: name.clone(), size: told.file_size, digest, modified, leaves })
    }
}

/// The time of a file on the server: that of its client's file, where that is kept, or else the time `modified` of its
/// last write there. `None`: this system has no such time.
fn time_of(kept: Option<&str>, modified: &str) -> Option<SystemTime> {
    match kept.and_then(|text| text.parse::<FileTime>().ok()) {
        Some(time) => time.to_system(),
        None => humantime::parse_rfc3339(modified).ok(),
    }
}

/// Fetches `file` to the path `to`, which appears once it is whole. If there is a file already, only the parts that
/// differ are fetched.
///
/// # Errors
/// Any [`DownloadError`]. The fetched pieces are kept for the next attempt.
pub fn to_file(cx: &DownloadContext<'_>, file: &RemoteFile, to: &Path) -> Result<Downloaded, DownloadError> {
    let there = found(to)?;
    let mut pieces = Pieces::new(file);
    if let Some(there) = &there
        && there.size > 0
    {
        cx.observer.doing("comparing");
        pieces.read(&open(to)?, cx.stop, to)?;
        if there.size == file.size && pieces.is_whole() {
            let done = Downloaded { file_size: file.size, file_digest: file.digest, bytes_received: 0, already: true };
            return Ok(done);
        }
    }
    if there.is_some() && !cx.replace {
        return Err(DownloadError::Exists(to.to_owned()));
    }
    let same = if there.is_some() { std::mem::replace(&mut pieces, Pieces::new(file)) } else { Pieces::new(file) };
    let part = PartFile::open(to, file, &mut pieces, cx.stop)?;
    if there.is_some() {
        part.copy_pieces(&open(to)?, &same, &mut pieces, to)?;
    }
    let (held, bytes_held) = pieces.held();
    if let Ok(plan) = Plan::new(None, (file.size > 0).then_some(pieces.piece_len()), Some(file.size)) {
        cx.observer.started(&plan, held, bytes_held);
    }
    let board = Board::new(pieces, usize::MAX);
    Fetch { cx, file, board: &board, sink: &part }.run()?;
    part.finish(to, file.modified, there, cx.replace)?;
    let bytes_received = file.size - bytes_held;
    Ok(Downloaded { file_size: file.size, file_digest: file.digest, bytes_received, already: false })
}

/// The fingerprint of the file at `path`. `None`: there is none.
fn found(path: &Path) -> Result<Option<Fingerprint>, DownloadError> {
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => {
            system::fingerprint_at(path).map(Some).map_err(|cause| DownloadError::io("look at", path, cause))
        }
        Ok(_) => Err(DownloadError::NotAFile(path.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(cause) => Err(DownloadError::io("look at", path, cause)),
    }
}

fn open(path: &Path) -> Result<fs::File, DownloadError> {
    fs::File::open(path).map_err(|cause| DownloadError::io("open", path, cause))
}

impl From<CallError> for DownloadError {
    fn from(error: CallError) -> DownloadError {
        DownloadError::Call(error)
    }
}
