// BLAKE3 in plain JavaScript (the BLAKE3 paper, sections 2.2 to 2.5): joins the values of slices, and hashes where
// WebAssembly is off. It keeps no state, and its results are the same as those of the wasm module.

const IV = Uint32Array.of(
  0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19,
);
const ORDER = [2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8];
const ROUNDS = 7;
const CHUNK_START = 1;
const CHUNK_END = 2;
const PARENT = 4;
const ROOT = 8;

/** Bytes of a chunk, the leaf of the tree. */
export const CHUNK = 1024;
const BLOCK = 64;

/** Order of the message words in each round. */
const SCHEDULE = schedule();

function schedule() {
  const rounds = [Array.from({ length: 16 }, (_, i) => i)];
  while (rounds.length < ROUNDS) {
    const last = rounds[rounds.length - 1];
    rounds.push(ORDER.map((i) => last[i]));
  }
  return Uint8Array.from(rounds.flat());
}

const v = new Uint32Array(16);

function mix(a, b, c, d, x, y) {
  let va = v[a] + v[b] + x;
  let vd = v[d] ^ va;
  vd = (vd >>> 16) | (vd << 16);
  let vc = v[c] + vd;
  let vb = v[b] ^ vc;
  vb = (vb >>> 12) | (vb << 20);
  va = va + vb + y;
  vd ^= va;
  vd = (vd >>> 8) | (vd << 24);
  vc = vc + vd;
  vb ^= vc;
  v[a] = va;
  v[b] = (vb >>> 7) | (vb << 25);
  v[c] = vc;
  v[d] = vd;
}

/** Compresses the block of words `m` into `value`, in place. */
function compress(value, m, counter, length, flags) {
  v.set(value);
  v.set(IV.subarray(0, 4), 8);
  v[12] = counter;
  v[13] = counter / 0x100000000;
  v[14] = length;
  v[15] = flags;
  for (let s = 0; s < ROUNDS * 16; s += 16) {
    mix(0, 4, 8, 12, m[SCHEDULE[s]], m[SCHEDULE[s + 1]]);
    mix(1, 5, 9, 13, m[SCHEDULE[s + 2]], m[SCHEDULE[s + 3]]);
    mix(2, 6, 10, 14, m[SCHEDULE[s + 4]], m[SCHEDULE[s + 5]]);
    mix(3, 7, 11, 15, m[SCHEDULE[s + 6]], m[SCHEDULE[s + 7]]);
    mix(0, 5, 10, 15, m[SCHEDULE[s + 8]], m[SCHEDULE[s + 9]]);
    mix(1, 6, 11, 12, m[SCHEDULE[s + 10]], m[SCHEDULE[s + 11]]);
    mix(2, 7, 8, 13, m[SCHEDULE[s + 12]], m[SCHEDULE[s + 13]]);
    mix(3, 4, 9, 14, m[SCHEDULE[s + 14]], m[SCHEDULE[s + 15]]);
  }
  for (let i = 0; i < 8; i += 1) value[i] = v[i] ^ v[i + 8];
}

/** The words of a block, whose missing bytes are 0. */
function wordsOf(bytes, at, end, words) {
  words.fill(0);
  for (let i = at; i < end; i += 1) words[(i - at) >> 2] |= bytes[i] << (8 * ((i - at) & 3));
}

/** The value of one chunk, of bytes from `start` to `end`. */
function chunk(bytes, start, end, counter, rootFlag) {
  const value = IV.slice();
  const words = new Uint32Array(16);
  const blocks = Math.max(1, Math.ceil((end - start) / BLOCK));
  for (let block = 0; block < blocks; block += 1) {
    const at = start + block * BLOCK;
    const stop = Math.min(end, at + BLOCK);
    wordsOf(bytes, at, stop, words);
    const isLast = block === blocks - 1;
    const flags = (block === 0 ? CHUNK_START : 0) | (isLast ? CHUNK_END | rootFlag : 0);
    compress(value, words, counter, stop - at, flags);
  }
  return value;
}

function parent(left, right, rootFlag) {
  const value = IV.slice();
  const words = new Uint32Array(16);
  words.set(left);
  words.set(right, 8);
  compress(value, words, 0, BLOCK, PARENT | rootFlag);
  return value;
}

/** The largest power of two below `count`: the left part of a tree of so many leaves. */
function leftOf(count) {
  let left = 1;
  while (left * 2 < count) left *= 2;
  return left;
}

/** The value of a tree over `leaves`, whose values `leaf(index, rootFlag)` gives. */
function tree(first, count, leaf, rootFlag) {
  if (count === 1) return leaf(first, rootFlag);
  const left = leftOf(count);
  return parent(tree(first, left, leaf, 0), tree(first + left, count - left, leaf, 0), rootFlag);
}

function overBytes(bytes, offset, rootFlag) {
  const chunks = Math.max(1, Math.ceil(bytes.length / CHUNK));
  const leaf = (index, flag) => {
    const start = index * CHUNK;
    return chunk(bytes, start, Math.min(bytes.length, start + CHUNK), offset / CHUNK + index, flag);
  };
  return tree(0, chunks, leaf, rootFlag);
}

/**
 * The BLAKE3 hash of `bytes`.
 * @param {Uint8Array} bytes
 * @returns {Uint8Array}
 */
export function hash(bytes) {
  return toBytes(overBytes(bytes, 0, ROOT));
}

/**
 * The chaining value of a subtree: `bytes` stand at `offset` of their file.
 * @param {Uint8Array} bytes
 * @param {number} offset
 * @returns {Uint8Array}
 */
export function subtree(bytes, offset) {
  return toBytes(overBytes(bytes, offset, 0));
}

/**
 * The hash of a file whose slices have these chaining values. All slices but the last one have the same length, 1024·2^k.
 * @param {Uint8Array[]} values at least two
 * @returns {Uint8Array}
 */
export function join(values) {
  return toBytes(tree(0, values.length, (index) => toWords(values[index]), ROOT));
}

function toBytes(words) {
  const bytes = new Uint8Array(words.length * 4);
  const view = new DataView(bytes.buffer);
  words.forEach((word, i) => view.setUint32(i * 4, word, true));
  return bytes;
}

function toWords(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return Uint32Array.from({ length: bytes.length / 4 }, (_, i) => view.getUint32(i * 4, true));
}

/**
 * Bytes as hexadecimal digits.
 * @param {Uint8Array} bytes
 * @returns {string}
 */
export function hex(bytes) {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
}
