// Hashes slices: by WebAssembly, and in plain JavaScript where that is off or has no vector instructions.

import * as plain from './plain-blake3.js';

/**
 * @typedef {object} Hashing the hashing of one slice, whose bytes come piece by piece
 * @property {(bytes: Uint8Array) => void} update
 * @property {() => Uint8Array} root the hash of a whole file
 * @property {() => Uint8Array} subtree the chaining value of a slice
 *
 * @typedef {object} Hasher
 * @property {(offset: number) => Hashing} begin begins with a slice at `offset`; the slice before it is forgotten
 * @property {boolean} isPlain true without WebAssembly
 */

/**
 * The hasher of this browser.
 * @param {() => Promise<ArrayBuffer>} readModule reads blake3.wasm
 * @returns {Promise<Hasher>}
 */
export async function hasher(readModule) {
  try {
    const { instance } = await WebAssembly.instantiate(await readModule());
    return { begin: ofModule(instance.exports), isPlain: false };
  } catch {
    return { begin: inPlainJavaScript, isPlain: true };
  }
}

function ofModule(wasm) {
  const length = wasm.window_len();
  const window = new Uint8Array(wasm.memory.buffer, wasm.window(), length);
  const value = new Uint8Array(wasm.memory.buffer, wasm.value(), 32);
  const update = (bytes) => {
    for (let at = 0; at < bytes.length; at += length) {
      const part = bytes.subarray(at, at + length);
      window.set(part);
      wasm.update(part.length);
    }
  };
  const ended = (end) => () => {
    end();
    return value.slice();
  };
  return (offset) => {
    wasm.begin(offset);
    return { update, root: ended(wasm.root), subtree: ended(wasm.subtree) };
  };
}

/** Gathers the slice: a browser without WebAssembly is slow for other reasons, and this is rare. */
function inPlainJavaScript(offset) {
  const parts = [];
  const all = () => {
    const bytes = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
    parts.reduce((at, part) => (bytes.set(part, at), at + part.length), 0);
    return bytes;
  };
  return {
    // Its buffer is used again.
    update: (bytes) => parts.push(bytes.slice()),
    root: () => plain.hash(all()),
    subtree: () => plain.subtree(all(), offset),
  };
}
