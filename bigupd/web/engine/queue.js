// All uploads of a page: which of them run, what they share, and what is remembered of them.

import { Pool } from './pool.js';
import { refusalOf } from './refusals.js';
import { Slots } from './slots.js';
import { Source } from './source.js';
import { namesElsewhere } from './tab-lock.js';
import { Upload } from './upload.js';

/** Uploads that run at once. Each begins with a question, which a connection should not wait for. */
const AT_ONCE = 12;

/** Slices to be sent of those that have begun: more than there are connections, so that none is idle. */
const SLICES_AHEAD = 8;

/** Files that are added before the page may do something else. */
const ADDED_AT_ONCE = 100;

/** Remembered uploads whose state is asked for. */
const LOOKS = 20;

/** States in which bytes of the user's file are still to be sent. */
const UNSENT = new Set(['queued', 'active', 'paused', 'asking', 'stopped']);

/** States in which nothing is left to be done. */
export const ENDED = new Set(['verified', 'kept', 'cancelled']);

/**
 * The queue. Its event `change` tells that something is new to show, `token` that the server wants a token, `token-given` that
 * there is one now.
 */
export class Queue extends EventTarget {
  /**
   * @param {object} parts
   * @param {import('./server.js').Server} parts.server
   * @param {import('./store.js').Store} parts.store
   * @param {string} parts.browser
   * @param {() => Worker} parts.makeWorker
   */
  constructor({ server, store, browser, makeWorker }) {
    super();
    this.server = server;
    this.store = store;
    this.browser = browser;
    this.pool = new Pool(makeWorker);
    this.slots = new Slots((time) => this.pool.sleep(time));
    this.uploads = [];
    this.waiting = { small: [], large: [] };
    this.running = { small: new Set(), large: new Set() };
    /** The answer for all names that exist: `keep`, `replace` or `rename`. */
    this.forAll = null;
    this.refusalOf = refusalOf;
    this.adding = Promise.resolve();
    this.lastHashing = Promise.resolve();
    this.wakeUp = new AbortController();
    this.order = 0;
    this.names = new Map();
    addEventListener('online', () => this.wake());
    addEventListener('offline', () => this.dispatchEvent(new Event('change')));
  }

  /** True while slices go out or wait to. */
  get isSending() {
    return this.slots.taken > 0;
  }

  /** True while something is sent, or waits for the server to be sent. */
  get isAtWork() {
    return this.running.small.size + this.running.large.size > 0;
  }

  /** Bytes per second of one connection, where known. */
  get lineRate() {
    const rate = this.slots.meter.rate / Math.max(1, this.slots.taken);
    return rate > 0 ? rate : Infinity;
  }

  /**
   * Adds files. Those that are remembered go on where they stood.
   * @param {{source: Source, name: string}[]} entries
   * @returns {Promise<void>} all are added, in the order of the calls
   */
  add(entries) {
    this.adding = this.adding.then(() => this.addAll(entries));
    return this.adding;
  }

  async addAll(entries) {
    for (let at = 0; at < entries.length; at += ADDED_AT_ONCE) {
      entries.slice(at, at + ADDED_AT_ONCE).forEach((entry) => this.addOne(entry));
      this.pump();
      this.dispatchEvent(new Event('change'));
      await new Promise((resolve) => setTimeout(resolve));
    }
  }

  addOne({ source, name }) {
    const known = this.names.get(name);
    const isRunning = known?.state === 'queued' || known?.state === 'active';
    // Another file of this name, of another folder perhaps, gets a name of its own.
    if (isRunning && !known.source.isLike(source)) return this.addOne({ source, name: this.freeName(name) });
    if (known && !ENDED.has(known.state)) return this.chosenAgain(known, source);
    const upload = new Upload(source, name, this, (this.order += 1));
    this.uploads.push(upload);
    this.names.set(name, upload);
    this.remember(upload);
    this.enqueue(upload);
    return upload;
  }

  /** A file that is listed was chosen once more. */
  chosenAgain(upload, source) {
    if (upload.state === 'queued' || upload.state === 'active') return null;
    this.store.remove(upload.key);
    if (!upload.source.isLike(source)) upload.forget();
    upload.source = source;
    this.remember(upload);
    this.enqueue(upload);
    return upload;
  }

  /** Lists what is remembered of earlier visits. */
  async restore() {
    const [records, elsewhere] = await Promise.all([this.store.all(), namesElsewhere()]);
    records.sort((a, b) => a.at - b.at);
    // Another tab sends those just now.
    const ours = records.filter(({ name }) => !elsewhere.has(name));
    const restored = ours.map((record) => this.restoreOne(record)).filter((upload) => upload && !upload.isSmall);
    restored.slice(0, LOOKS).forEach((upload) => upload.look());
    this.dispatchEvent(new Event('change'));
  }

  restoreOne({ key, name, path, size, modified, salt, handle }) {
    if (this.names.has(name)) return null;
    const upload = new Upload(new Source({ path, size, modified, handle }), name, this, (this.order += 1));
    upload.salt = salt;
    if (upload.key !== key) return null;
    upload.state = 'missing';
    upload.reason = { key: handle ? 'go_on' : 'choose_again', message: '' };
    this.uploads.push(upload);
    this.names.set(name, upload);
    return upload;
  }

  remember(upload) {
    const { path, size, modified, handle } = upload.source;
    const { key, name, salt } = upload;
    this.store.put({ key, name, path, size, modified, salt, handle, at: Date.now() + upload.order / 1000 });
  }

  enqueue(upload) {
    upload.reason = null;
    upload.become('queued');
    // A paused one may stand there still.
    if (!upload.isInLine) this.waiting[kindOf(upload)].push(upload);
    upload.isInLine = true;
  }

  /** Runs as many as may run. */
  pump() {
    this.start('large', () => this.slicesAhead < SLICES_AHEAD);
    this.start('small', () => true);
  }

  /** Slices to be sent of the large ones that run. */
  get slicesAhead() {
    let slices = 0;
    for (const upload of this.running.large) slices += upload.slicesLeft;
    return slices;
  }

  start(kind, mayStart) {
    while (this.running[kind].size < AT_ONCE && this.waiting[kind].length > 0 && mayStart()) {
      const upload = this.waiting[kind].shift();
      upload.isInLine = false;
      if (upload.state === 'queued') this.runOne(upload, kind);
    }
  }

  async runOne(upload, kind) {
    this.running[kind].add(upload);
    const leave = () => {
      if (!this.running[kind].delete(upload)) return;
      this.pump();
      this.dispatchEvent(new Event('change'));
    };
    // While the server merges one file, the next one is sent.
    upload.onMerging = leave;
    await upload.run();
    leave();
  }

  /** An upload has another state. */
  changed(upload, before) {
    if (upload.state === 'active' && upload.phase === 'merging') upload.onMerging?.();
    if (before !== upload.state && ENDED.has(upload.state)) this.store.remove(upload.key);
    if (upload.state === 'asking' && this.forAll) queueMicrotask(() => this.decide(upload, this.forAll));
    this.dispatchEvent(new Event('change'));
  }

  pause(upload) {
    if (upload.state === 'active' || upload.state === 'queued') upload.halt('paused');
  }

  resume(upload) {
    if (upload.state !== 'paused' && upload.state !== 'stopped') return;
    this.enqueue(upload);
    this.pump();
  }

  /** Goes on with a file of which the browser kept a handle. It asks the user, so it must come from a click. */
  async goOn(upload) {
    const { handle } = upload.source;
    const given = await handle.requestPermission({ mode: 'read' }).catch(() => 'denied');
    if (upload.state !== 'missing') return;
    if (given === 'granted') {
      this.enqueue(upload);
      this.pump();
    } else {
      // The browser does not ask again; the user can still choose the file.
      upload.source.handle = null;
      upload.waitFor('choose_again');
    }
  }

  /** Takes the version of the file that is there now. */
  async renew(upload) {
    this.store.remove(upload.key);
    try {
      await upload.source.renew();
    } catch (stop) {
      return upload.stopped(stop);
    }
    upload.forget();
    this.remember(upload);
    this.enqueue(upload);
    return this.pump();
  }

  /** Ends an upload and has the server drop what it holds of it. */
  cancel(upload) {
    if (ENDED.has(upload.state)) return;
    const isBegun = upload.cut !== null;
    const { parameters } = upload;
    upload.halt('cancelled');
    if (isBegun) this.discard(upload, parameters);
  }

  async discard(upload, parameters) {
    const slice_size = parameters.slice_size / 2;
    await this.server.ask({ ...parameters, slice_size, recut: 1, discard: 1, ranges: 1 });
    upload.leave();
  }

  /** Settles what is to become of a name that exists. */
  decide(upload, choice) {
    if (upload.state !== 'asking') return;
    if (choice === 'keep') return void upload.halt('kept');
    this.store.remove(upload.key);
    if (choice === 'replace') upload.replaces = true;
    else this.rename(upload);
    this.remember(upload);
    this.enqueue(upload);
    this.pump();
  }

  rename(upload) {
    upload.stem ??= upload.name;
    upload.copy = (upload.copy ?? 0) + 1;
    upload.name = this.freeName(upload.stem, upload.copy);
    this.names.set(upload.name, upload);
    upload.forget();
  }

  /** The first name like `a (1).txt` that no upload of this page has. */
  freeName(name, from = 1) {
    let number = from;
    while (this.names.has(numbered(name, number))) number += 1;
    return numbered(name, number);
  }

  /** The same for all that ask, now and later. */
  decideAll(choice) {
    this.forAll = choice;
    this.uploads.filter(({ state }) => state === 'asking').forEach((upload) => this.decide(upload, choice));
  }

  /** Takes finished and cancelled ones off the list. */
  clear() {
    const isGone = ({ state }) => ENDED.has(state);
    this.uploads.filter(isGone).forEach((upload) => this.names.delete(upload.name));
    this.uploads = this.uploads.filter((upload) => !isGone(upload));
    this.dispatchEvent(new Event('change'));
  }

  /** Takes one off the list for good. */
  drop(upload) {
    this.cancel(upload);
    this.names.delete(upload.name);
    this.uploads = this.uploads.filter((other) => other !== upload);
    this.dispatchEvent(new Event('change'));
  }

  /** Whether leaving the page would stop something. */
  get hasUnsent() {
    return this.uploads.some((upload) => UNSENT.has(upload.state) && !(upload.phase === 'merging' && upload.state === 'active'));
  }

  /** Counts and bytes of all. */
  get totals() {
    const totals = { count: 0, bytes: 0, sent: 0, stored: 0, verified: 0, active: 0, asking: 0, stopped: 0, paused: 0, missing: 0, queued: 0, held: 0 };
    for (const upload of this.uploads) {
      if (upload.state === 'cancelled' || upload.state === 'kept') continue;
      totals.count += 1;
      totals[upload.state] += 1;
      if (upload.isHeldUp) totals.held += 1;
      totals.bytes += upload.size;
      const { sent, stored } = upload.progress;
      totals.sent += sent;
      totals.stored += stored;
    }
    return totals;
  }

  /** Waits at most so long: until the user ends it, or all are woken. */
  async sleep(time, signal) {
    const end = new AbortController();
    const abort = () => end.abort();
    const signals = [signal, this.wakeUp.signal].filter(Boolean);
    if (signals.some(({ aborted }) => aborted)) abort();
    signals.forEach((one) => one.addEventListener('abort', abort));
    await this.pool.sleep(time, end.signal);
    // An upload sleeps often, and its signal lives as long as it does.
    signals.forEach((one) => one.removeEventListener('abort', abort));
  }

  /** Ends all waits. */
  wake() {
    this.wakeUp.abort();
    this.wakeUp = new AbortController();
    this.dispatchEvent(new Event('change'));
  }

  /** Waits while the machine is offline. True if it was. */
  async online(signal) {
    if (navigator.onLine !== false) return false;
    while (navigator.onLine === false && !signal.aborted) await this.sleep(5000, signal);
    return true;
  }

  /** Reads held slices one at a time: the disk is for those that are sent. */
  hashing(work) {
    const result = this.lastHashing.then(work);
    this.lastHashing = result.catch(() => {});
    return result;
  }

  /** Waits for another token. */
  newToken(signal) {
    this.tokenWanted ??= withResolve();
    this.dispatchEvent(new Event('token'));
    const { promise } = this.tokenWanted;
    return new Promise((resolve) => {
      promise.then(resolve);
      signal.addEventListener('abort', resolve, { once: true });
    });
  }

  /** Goes on with this token. */
  useToken(token) {
    this.server.token = token;
    this.tokenWanted?.resolve();
    this.tokenWanted = null;
    this.dispatchEvent(new Event('change'));
    this.dispatchEvent(new Event('token-given'));
  }
}

function kindOf(upload) {
  return upload.isSmall ? 'small' : 'large';
}

function withResolve() {
  let resolve;
  const promise = new Promise((ready) => {
    resolve = ready;
  });
  return { promise, resolve };
}

/** Longest component of a name, in bytes: docs/http.md. */
const MAX_COMPONENT = 255;

/** `a/b.txt` and 1: `a/b (1).txt`. A last component that would be too long for the server loses the end of its stem. */
export function numbered(name, number) {
  const [, folder, stem, end] = /^(.*\/)?(.*?)((?:\.[^./]+)?)$/su.exec(name);
  const [kept, behind] = stem ? [stem, ` (${number})${end}`] : [end, ` (${number})`];
  const bytes = (text) => new TextEncoder().encode(text).length;
  const characters = Array.from(kept);
  while (characters.length > 1 && bytes(characters.join('') + behind) > MAX_COMPONENT) characters.pop();
  return `${folder ?? ''}${characters.join('')}${behind}`;
}
