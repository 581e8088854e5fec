// The file of an upload: what tells it from others, and its bytes as long as they stay the same.

import { hash, hex } from './plain-blake3.js';
import { Stop } from './refusals.js';

/**
 * A value that stands for the bytes of a file, as far as a page can tell. The browser is a part of it: equal names, sizes and
 * times on two machines mean nothing.
 * @param {{browser: string, path: string, size: number, modified: number, salt: number}} file
 */
export function sourceOf({ browser, path, size, modified, salt }) {
  const text = JSON.stringify([browser, path, size, modified, salt]);
  return `page-${hex(hash(new TextEncoder().encode(text)))}`;
}

/** A file that the user chose. */
export class Source {
  /**
   * @param {object} entry
   * @param {string} entry.path its path from the chosen folder on
   * @param {File | null} [entry.file]
   * @param {FileSystemFileHandle | null} [entry.handle] reads the file again, where the browser has that
   */
  constructor({ path, file = null, handle = null, size = file?.size, modified = file?.lastModified }) {
    this.path = path;
    this.file = file;
    this.handle = handle;
    this.size = size;
    this.modified = modified;
  }

  /** True if both are the same file, as far as size and time tell. */
  isLike(other) {
    return this.size === other.size && this.modified === other.modified;
  }

  /**
   * Reads the file's size and time again, where a handle makes that possible.
   * @throws {Stop} if it is another version, or gone
   */
  async check() {
    if (this.handle) this.file = await this.read();
    if (!this.file) throw new Stop('choose_again');
    if (this.file.size !== this.size || this.file.lastModified !== this.modified) throw new Stop('changed');
  }

  async read() {
    try {
      return await this.handle.getFile();
    } catch (error) {
      throw new Stop(error.name === 'NotFoundError' ? 'gone' : 'choose_again');
    }
  }

  /** The reason why reading failed. */
  async whyUnreadable() {
    if (!this.handle) return new Stop('unreadable');
    return this.check().then(
      () => new Stop('unreadable'),
      (stop) => stop,
    );
  }

  /** Takes the version that is there now. */
  async renew() {
    if (this.handle) this.file = await this.read();
    if (!this.file) throw new Stop('choose_again');
    this.size = this.file.size;
    this.modified = this.file.lastModified;
  }
}
