//! The parts in which a file goes into a store of objects.

/// Largest file of several slices that is stored in one request, in bytes: parts of a larger one are sent while it arrives.
const MOST_AT_ONCE: u64 = 16 << 20;

/// The same of a file of one slice: none of it can be sent before all of it is there.
const MOST_SLICE_AT_ONCE: u64 = 64 << 20;

/// Most parts of an object.
const MOST_PARTS: u64 = 10_000;

/// Smallest part, in bytes; stores take none below 5 MiB but the last. Larger ones are fewer requests.
const LEAST_PART: u64 = 8 << 20;

/// Largest part, in bytes.
const MOST_PART: u64 = 5 << 30;

/// True if a file of `size` bytes in `slice_num` slices goes in parts; else it goes in one request.
pub fn goes_in_parts(size: u64, slice_num: Option<u64>) -> bool {
    size > if slice_num == Some(1) { MOST_SLICE_AT_ONCE } else { MOST_AT_ONCE }
}

/// The size of the parts of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartSizes {
    /// Bytes of each part but the last.
    pub part: u64,
}

impl PartSizes {
    /// Parts for a file of `size` bytes, as far as that is known, that comes in slices of `slice_size` bytes, if those
    /// have one size. Parts are runs of whole slices where they can be.
    pub fn of(size: Option<u64>, slice_size: Option<u64>) -> PartSizes {
        let least = size.unwrap_or(0).div_ceil(MOST_PARTS).max(LEAST_PART);
        let whole = slice_size.filter(|size| *size > 0).map(|size| least.div_ceil(size).saturating_mul(size));
        PartSizes { part: whole.filter(|part| *part <= MOST_PART).unwrap_or(least.next_multiple_of(1 << 20)) }
    }

    /// Number of parts of a file of `size` bytes.
    pub fn parts_of(self, size: u64) -> u64 {
        size.div_ceil(self.part)
    }

    /// True if a file of `size` bytes has no more parts than there can be.
    pub fn can_hold(self, size: u64) -> bool {
        self.parts_of(size) <= MOST_PARTS
    }

    /// Offset and length of part `number`, from 1, in a file of `size` bytes.
    pub fn extent(self, number: u64, size: u64) -> (u64, u64) {
        let offset = (number - 1) * self.part;
        (offset, self.part.min(size - offset))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_cannot_be_sent_while_it_arrives_goes_in_one_request() {
        for (size, slice_num, in_parts) in [
            (16 << 20, Some(2), false),
            ((16 << 20) + 1, Some(2), true),
            ((16 << 20) + 1, None, true),
            (32 << 20, Some(1), false),
            ((64 << 20) + 1, Some(1), true),
        ] {
            assert_eq!(goes_in_parts(size, slice_num), in_parts, "{size} in {slice_num:?}");
        }
    }

    #[test]
    fn parts_are_whole_slices_and_few_enough() {
        const MIB: u64 = 1 << 20;
        for (size, slice_size, part) in [
            (None, None, 8 * MIB),
            (Some(100 * MIB), Some(8 * MIB), 8 * MIB),
            (Some(100 * MIB), Some(MIB), 8 * MIB),
            (Some(100 * MIB), Some(3 * MIB), 9 * MIB),
            (Some(100 * MIB), Some(32 * MIB), 32 * MIB),
            (Some(5 << 40), Some(8 * MIB), 528 * MIB),
            (Some(100 * MIB), Some(6 << 30), 8 * MIB),
        ] {
            let sizes = PartSizes::of(size, slice_size);
            assert_eq!(sizes, PartSizes { part }, "{size:?} {slice_size:?}");
            assert!(size.is_none_or(|size| sizes.can_hold(size)));
        }
        let sizes = PartSizes { part: 10 };
        assert_eq!((sizes.parts_of(0), sizes.parts_of(10), sizes.parts_of(11)), (0, 1, 2));
        assert_eq!((sizes.extent(1, 11), sizes.extent(2, 11)), ((0, 10), (10, 1)));
        assert!(sizes.can_hold(100_000) && !sizes.can_hold(100_001));
    }
}
