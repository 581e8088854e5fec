// The cut of a file into slices. All slices but the last one have the same length, a power of two, so that their chaining
// values join to the digest of the file.

const MIB = 1 << 20;

/** Largest file that goes in one request, in bytes. What a broken connection loses of it is sent again in a moment. */
export const SMALL = 2 * MIB;

const LEAST = 256 << 10;
const MOST = 8 * MIB;

/** Seconds that one slice should take at most, on the line as it is. */
const SECONDS = 4;

/** Seconds of the limit of the rate that one slice may take at once: it goes at full speed, and the next ones wait. */
const BURST = 1;

/** Most slices of a file while larger slices are possible: lists of them stay short. */
const MANY = 200_000;

/**
 * The slice size to ask for, in bytes.
 * @param {number} size bytes of the file
 * @param {number} [rate] bytes per second of a connection, where known
 * @param {number} [limit] bytes per second that the user permits; 0 for any
 * @returns {number}
 */
export function sliceSizeFor(size, rate, limit) {
  let slice = MOST;
  while (rate && slice > LEAST && slice > rate * SECONDS) slice /= 2;
  while (limit && slice > LEAST && slice > limit * BURST) slice /= 2;
  while (size / slice > MANY) slice *= 2;
  return slice;
}

/** True if slices of this size are subtrees of the file's tree. */
export function joins(sliceSize) {
  return sliceSize >= 1024 && Number.isInteger(Math.log2(sliceSize));
}

/**
 * A file of `size` bytes in slices of `sliceSize`.
 */
export class Cut {
  /**
   * @param {number} size
   * @param {number} sliceSize
   */
  constructor(size, sliceSize) {
    this.size = size;
    this.sliceSize = sliceSize;
    this.count = Math.max(1, Math.ceil(size / sliceSize));
    this.joins = this.count > 1 && joins(sliceSize);
  }

  /** @returns {{start: number, end: number}} */
  slice(id) {
    const start = id * this.sliceSize;
    return { start, end: Math.min(this.size, start + this.sliceSize) };
  }

  /** Bytes of slice `id`. */
  length(id) {
    const { start, end } = this.slice(id);
    return end - start;
  }

  /** Bytes below the frontier, which is a number of slices. */
  below(frontier) {
    return Math.min(this.size, frontier * this.sliceSize);
  }
}
