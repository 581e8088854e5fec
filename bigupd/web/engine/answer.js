// Responses of the server are checked before the page works by them: a proxy or a portal can send anything, and a number out
// of range would keep a tab busy for ever.

const DIGEST = /^[0-9a-f]{64}$/;

/** True if it is absent, or passes. */
function maybe(value, isRight) {
  return value === undefined || value === null || isRight(value);
}

function isCount(value) {
  return Number.isSafeInteger(value) && value >= 0;
}

/** True for ascending ranges of slices below `count`. */
function areRanges(ranges, count) {
  let next = 0;
  const isNext = (range) => {
    const isRight = Array.isArray(range) && range.length === 2 && range.every(isCount);
    if (!isRight || range[0] < next || range[1] < range[0] || range[1] >= count) return false;
    next = range[1] + 1;
    return true;
  };
  return Array.isArray(ranges) && ranges.every(isNext);
}

/**
 * True if a response about an upload of a file of `size` bytes can be worked by.
 * @param {any} answer its JSON
 * @param {number} size bytes of the file
 * @param {number} sliceSize bytes of a slice, where the response has none
 */
export function isUsable(answer, size, sliceSize) {
  // A finished file has no slices, whatever is told of them.
  if (answer.is_uploaded === 1) {
    return maybe(answer.file_size, isCount) && maybe(answer.file_digest, (digest) => DIGEST.test(digest));
  }
  const slice = answer.slice_size ?? sliceSize;
  if (!isCount(slice) || (slice === 0 && size > 0)) return false;
  const count = Math.max(1, Math.ceil(size / Math.max(1, slice)));
  return (
    answer.is_uploaded === 0 &&
    maybe(answer.curr_merge_slice_id, (frontier) => isCount(frontier) && frontier <= count) &&
    maybe(answer.slice_ranges_uploaded, (ranges) => areRanges(ranges, count)) &&
    maybe(answer.digests, (digests) => Array.isArray(digests))
  );
}
