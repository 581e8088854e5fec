// Hashes slices: by WebAssembly, and in plain JavaScript where that is off or has no vector instructions.

import * as plain from './plain-blake3.js';

/**
 * @typedef {object} Hasher
 * @property {(bytes: Uint8Array) => Uint8Array} hash the hash of a whole file
 * @property {(bytes: Uint8Array, offset: number) => Uint8Array} subtree the chaining value of a slice at `offset`
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
    return ofModule(instance.exports);
  } catch {
    return { hash: plain.hash, subtree: plain.subtree, isPlain: true };
  }
}

function ofModule(wasm) {
  const length = wasm.window_len();
  const window = new Uint8Array(wasm.memory.buffer, wasm.window(), length);
  const value = new Uint8Array(wasm.memory.buffer, wasm.value(), 32);
  const feed = (bytes, offset) => {
    wasm.begin(offset);
    for (let at = 0; at < bytes.length; at += length) {
      const part = bytes.subarray(at, at + length);
      window.set(part);
      wasm.update(part.length);
    }
  };
  return {
    hash: (bytes) => {
      feed(bytes, 0);
      wasm.root();
      return value.slice();
    },
    subtree: (bytes, offset) => {
      feed(bytes, offset);
      wasm.subtree();
      return value.slice();
    },
    isPlain: false,
  };
}
