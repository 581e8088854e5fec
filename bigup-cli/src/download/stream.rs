//! A file as a stream: bytes go out in order, each once the unit that it is in is right.
//!
//! Units wait in a file without a name, so that memory does not depend on their size.

use crate::download::error::DownloadError;
use crate::download::fetch::{Board, Fetch};
use crate::download::part::Sink;
use crate::download::pieces::Pieces;
use crate::download::place::{read_exact_at, write_all_at};
use crate::download::{DownloadContext, Downloaded, RemoteFile};
use bigup_core::protocol::digest::Digest;
use bigup_core::protocol::plan::Plan;
use std::fs::File;
use std::io::{self, Write};
use std::ops::Range;
use std::path::Path;
use std::thread;

/// Units that wait or are fetched at a time.
const WINDOW: u64 = 3;

/// Bytes that go out at a time.
const COPY_LEN: u64 = 256 << 10;

/// The file in which units wait, each in one of the places for them.
struct Waiting {
    file: File,
    len: u64,
}

/// Writes the content of `file` to `out`.
///
/// # Errors
/// Any [`DownloadError`]. No wrong byte went out; those before the failure did.
pub fn to_writer(
    cx: &DownloadContext<'_>,
    file: &RemoteFile,
    out: &mut dyn Write,
) -> Result<Downloaded, DownloadError> {
    let pieces = Pieces::new(file);
    let (units, unit_len) = (pieces.units(), pieces.unit_len());
    let ranges: Vec<Range<u64>> = (0..units).map(|unit| pieces.bytes_of_unit(unit)).collect();
    if let Ok(plan) = Plan::new(None, (file.size > 0).then_some(pieces.piece_len()), Some(file.size)) {
        cx.observer.started(&plan, 0, 0);
    }
    let waiting =
        tempfile::tempfile().map_err(|cause| DownloadError::io("make a file in", &std::env::temp_dir(), cause))?;
    let waiting = Waiting { file: waiting, len: WINDOW * unit_len as u64 * pieces.piece_len() };
    let board = Board::new(pieces, WINDOW as usize * unit_len);
    thread::scope(|scope| {
        let fetching = scope.spawn(|| Fetch { cx, file, board: &board, sink: &waiting }.run());
        for (unit, bytes) in ranges.into_iter().enumerate() {
            if !board.wait_for(unit) {
                break;
            }
            if let Err(error) = waiting.copy(bytes, out) {
                board.fail(error);
                break;
            }
            board.allow((unit + 1 + WINDOW as usize) * unit_len);
        }
        fetching.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })?;
    out.flush().map_err(DownloadError::Output)?;
    Ok(Downloaded { file_size: file.size, file_digest: file.digest, bytes_received: file.size, already: false })
}

impl Waiting {
    fn copy(&self, mut bytes: Range<u64>, out: &mut dyn Write) -> Result<(), DownloadError> {
        let mut buffer = vec![0; COPY_LEN as usize];
        while bytes.start < bytes.end {
            let len = COPY_LEN.min(bytes.end - bytes.start);
            let buffer = &mut buffer[..len as usize];
            read_exact_at(&self.file, buffer, bytes.start % self.len).map_err(failed)?;
            out.write_all(buffer).map_err(DownloadError::Output)?;
            bytes.start += len;
        }
        Ok(())
    }
}

fn failed(cause: io::Error) -> DownloadError {
    DownloadError::io("use a file in", Path::new(&std::env::temp_dir()), cause)
}

impl Sink for Waiting {
    fn write(&self, bytes: &[u8], offset: u64) -> Result<(), DownloadError> {
        // A piece is never at both ends: the length is a multiple of that of pieces.
        write_all_at(&self.file, bytes, offset % self.len).map_err(failed)
    }

    fn note(&self, _index: usize, _value: Option<Digest>) -> Result<(), DownloadError> {
        Ok(())
    }
}
