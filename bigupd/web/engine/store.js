// The browser's memory of unfinished uploads: after a reload the page lists them. Where a browser has no IndexedDB, as in
// some private windows, nothing is remembered.

const NAME = 'bigup';
const UPLOADS = 'uploads';

function done(request) {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

/** The database. `null` where there is none: a browser that blocks it refuses its very name. */
async function open() {
  try {
    const request = indexedDB.open(NAME, 1);
    request.onupgradeneeded = () => request.result.createObjectStore(UPLOADS, { keyPath: 'key' });
    return await done(request);
  } catch {
    return null;
  }
}

/** Unfinished uploads by their keys. */
export class Store {
  constructor() {
    this.changes = new Map();
    this.writing = null;
    this.database = open();
  }

  /** All that is remembered. */
  async all() {
    try {
      const database = await this.database;
      return database ? await done(database.transaction(UPLOADS).objectStore(UPLOADS).getAll()) : [];
    } catch {
      return [];
    }
  }

  /** Remembers a record with a `key`. */
  put(record) {
    this.change(record.key, record);
  }

  /** Forgets it. */
  remove(key) {
    this.change(key, null);
  }

  change(key, record) {
    this.changes.set(key, record);
    // Many changes at once are one transaction.
    this.writing ??= new Promise((resolve) => setTimeout(resolve, 50)).then(() => this.write());
  }

  async write() {
    const changes = this.changes;
    this.changes = new Map();
    this.writing = null;
    try {
      const database = await this.database;
      const store = database?.transaction(UPLOADS, 'readwrite').objectStore(UPLOADS);
      for (const [key, record] of database ? changes : []) this.apply(store, key, record);
    } catch {
      // The user has cleared it, or it is full: the page goes on, and remembers less.
    }
  }

  apply(store, key, record) {
    const request = record === null ? store.delete(key) : this.putIn(store, record);
    // A full disk must not undo the other changes.
    request.onerror = (event) => event.preventDefault();
  }

  putIn(store, record) {
    try {
      return store.put(record);
    } catch {
      // A browser that cannot store a handle stores the rest.
      return store.put({ ...record, handle: null });
    }
  }
}

/** A random name of this browser, which stays. */
export function browserName() {
  try {
    const stored = localStorage.getItem('bigup-browser');
    if (stored) return stored;
    const name = Array.from(crypto.getRandomValues(new Uint8Array(12)), (b) => b.toString(16).padStart(2, '0')).join('');
    localStorage.setItem('bigup-browser', name);
    return name;
  } catch {
    return `${Math.random()}`;
  }
}
