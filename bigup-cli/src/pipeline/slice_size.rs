//! The slice size that the client asks for. The server's answer decides.

use crate::buffer::Buffer;
use crate::pipeline::error::SliceSizeError;
use crate::pipeline::sender_tuning::MOST;
use bigup_core::protocol::plan::{MAX_FILE_SIZE, MAX_SLICES};
use bigup_core::protocol::units::MIB;

/// Slice size where none was asked for, in bytes: large enough that a request is no overhead, small enough that what a
/// broken connection loses is sent again in a moment.
pub const DEFAULT_SLICE_SIZE: u64 = 8 * MIB;

/// Files up to this size, in bytes, are a single slice over a short line: such a one becomes the file without being
/// copied, and without a merger. To send it again takes a few seconds at most; a line where it would take longer has it
/// cut.
const SINGLE: u64 = 32 * MIB;

/// Slice size over a long line, which takes many senders: less of it is in memory then, and the time that each loses
/// between two slices, a round trip, stays small beside that of the slice.
pub const FAR_SLICE_SIZE: u64 = 256 << 10;

/// Slice size over a long line where the size of the file is not known: its slices are not to be too many.
const FAR_STREAM_SLICE_SIZE: u64 = 2 * MIB;

/// Smallest slice over a long line, in bytes, where the file is so small that larger ones would be too few for all
/// senders.
const LEAST_FAR_SLICE_SIZE: u64 = 128 << 10;

/// If the default would give more slices than this it is doubled: a tenth of the limit, so that lists stay short.
const MANY_SLICES: u64 = 100_000;

/// The slice size to ask for, in bytes.
///
/// `file_size` is None where it is not known; `given` is what the user asked for; `is_far`: the line is a long one.
///
/// # Errors
/// The file is too large, or would have too many slices of the given size; says which size would do.
pub fn slice_size_for(file_size: Option<u64>, given: Option<u64>, is_far: bool) -> Result<u64, SliceSizeError> {
    let file_size = file_size.unwrap_or(0);
    if file_size > MAX_FILE_SIZE {
        return Err(SliceSizeError::FileTooLarge(file_size));
    }
    let default = match file_size {
        _ if is_far => far_slice_size(file_size),
        1..=SINGLE => SINGLE,
        _ => DEFAULT_SLICE_SIZE,
    };
    let Some(given) = given else { return Ok(doubled(default, file_size, MANY_SLICES)) };
    match file_size.div_ceil(given) {
        number if number > MAX_SLICES => {
            let fitting = doubled(given.next_power_of_two(), file_size, MAX_SLICES);
            Err(SliceSizeError::TooMany { number, slice_size: given, fitting })
        }
        _ => Ok(given),
    }
}

/// Slices over a long line: at least one for each sender that there may be, where the file is known.
fn far_slice_size(file_size: u64) -> u64 {
    match file_size / MOST as u64 {
        // Nobody knows how many there will be.
        0 => FAR_STREAM_SLICE_SIZE,
        each => (1 << each.ilog2()).clamp(LEAST_FAR_SLICE_SIZE, FAR_SLICE_SIZE),
    }
}

/// `size`, in bytes, or as much more as keeps the number of slices of a file of `file_size` bytes low.
pub fn not_too_many(size: u64, file_size: u64) -> u64 {
    doubled(size, file_size, MANY_SLICES)
}

/// `size`, doubled until a file of `file_size` bytes has no more than `most` slices.
fn doubled(mut size: u64, file_size: u64, most: u64) -> u64 {
    while file_size.div_ceil(size) > most {
        size *= 2;
    }
    size
}

/// A buffer of `len` bytes.
///
/// # Errors
/// There is no memory for it.
pub fn buffer(len: u64) -> Result<Buffer, SliceSizeError> {
    let buffer = usize::try_from(len).ok().and_then(|len| Buffer::new(len).ok());
    buffer.ok_or(SliceSizeError::NoMemory(len))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_grows_with_the_file() {
        let most = MANY_SLICES * DEFAULT_SLICE_SIZE;
        for (file_size, slice_size) in [
            (0, DEFAULT_SLICE_SIZE),
            (1, SINGLE),
            (SINGLE, SINGLE),
            (SINGLE + 1, DEFAULT_SLICE_SIZE),
            (most - 1, DEFAULT_SLICE_SIZE),
            (most, DEFAULT_SLICE_SIZE),
            (most + 1, 2 * DEFAULT_SLICE_SIZE),
            (2 * most, 2 * DEFAULT_SLICE_SIZE),
            (2 * most + 1, 4 * DEFAULT_SLICE_SIZE),
        ] {
            assert_eq!(slice_size_for(Some(file_size), None, false), Ok(slice_size), "{file_size}");
        }
        assert_eq!(slice_size_for(None, None, false), Ok(DEFAULT_SLICE_SIZE));
        assert_eq!(slice_size_for(None, None, true), Ok(FAR_STREAM_SLICE_SIZE));
        assert_eq!(slice_size_for(Some(most), None, true), Ok(DEFAULT_SLICE_SIZE));
        for (file_size, slice_size) in [(8 * MIB, 128 << 10), (31 * MIB, 128 << 10), (32 * MIB, 256 << 10)] {
            assert_eq!(slice_size_for(Some(file_size), None, true), Ok(slice_size), "{file_size}");
        }
    }

    #[test]
    fn too_small_slices_are_refused_with_a_size_that_would_do() {
        assert_eq!(slice_size_for(Some(MAX_SLICES * 1024), Some(1024), false), Ok(1024));
        let refused = |file_size, given| match slice_size_for(Some(file_size), Some(given), false) {
            Err(SliceSizeError::TooMany { number, fitting, .. }) => (number, fitting),
            other => panic!("{other:?}"),
        };
        assert_eq!(refused(MAX_SLICES * 1024 + 1, 1024), (1_000_001, 2048));
        assert_eq!(refused(MAX_SLICES * 3000 + 1, 1100).1, 4096);
    }

    #[test]
    fn the_largest_file_is_checked_at_the_border() {
        assert_eq!(slice_size_for(Some(MAX_FILE_SIZE), None, false), Ok(256 * MIB));
        assert!(slice_size_for(Some(MAX_FILE_SIZE + 1), None, true).is_err());
    }
}
