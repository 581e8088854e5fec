// The upload of one file, from the first question to the digest that the server confirms. It follows the rules of
// docs/http.md; their numbers stand in comments.

import { isUsable } from './answer.js';
import { Backoff } from './backoff.js';
import { Cut, SMALL, sliceSizeFor } from './cut.js';
import { Meter } from './meter.js';
import { hex, join } from './plain-blake3.js';
import { Stop } from './refusals.js';
import { sourceOf } from './source.js';
import { alone } from './tab-lock.js';
import { MOST } from './tuner.js';

const PIECE = 8 << 20;
const MAX_DIGESTS = 4096;
const PULSE = 4000;
const FUTILE_ROUNDS = 6;

/**
 * Milliseconds without a byte in either direction after which a request counts as lost: a connection can go silent without an
 * end. A proxy may take that long to pass a slice on.
 */
const SILENCE = 90_000;

/** A response that makes no sense is mostly none of the server's. */
const NONSENSE = { course: 'temporary', reason: 'no_server', message: '', status: 200, after: 0 };

/** Thrown to ask anew how the upload stands (7). */
const AGAIN = Symbol('again');

/** Thrown where the user ended or paused it. */
const ENDED = Symbol('ended');

/**
 * @typedef {'queued' | 'active' | 'paused' | 'stopped' | 'asking' | 'missing' | 'verified' | 'kept' | 'cancelled'} State
 * asking: the name exists and the user decides. missing: the file is to be chosen again. kept: the server's file stays.
 * @typedef {'opening' | 'sending' | 'comparing' | 'merging'} Phase of an active one
 */

/** The upload of one file. */
export class Upload {
  /**
   * @param {import('./source.js').Source} source
   * @param {string} name the name on the server
   * @param {import('./queue.js').Queue} queue
   * @param {number} order place in the queue
   */
  constructor(source, name, queue, order) {
    this.source = source;
    this.name = name;
    this.queue = queue;
    this.order = order;
    this.salt = 0;
    /** @type {State} */
    this.state = 'queued';
    /** @type {Phase} */
    this.phase = 'opening';
    /** Why it waits or stopped: a key of the words, and the server's own words. */
    this.reason = null;
    this.replaces = false;
    this.digest = '';
    this.meter = new Meter();
    this.backoff = new Backoff();
    this.end = new AbortController();
    this.forget();
  }

  /** Forgets all that is known about the slices. */
  forget() {
    this.cut = null;
    this.merged = 0;
    this.held = new Set();
    /** Digests of slices, as this page computed them of the file. */
    this.values = new Map();
    this.going = new Map();
    this.heldBytes = 0;
  }

  get size() {
    return this.source.size;
  }

  /** True while others have the connections. */
  get isInLineToSend() {
    return this.phase === 'sending' && this.going.size === 0 && this.heldBytes === 0;
  }

  /** Slices that are still to be sent, as far as is known. */
  get slicesLeft() {
    if (this.cut) return this.cut.count - this.held.size;
    return Math.ceil(this.size / sliceSizeFor(this.size));
  }

  /** True while it waits for something else than its turn: nothing goes out. */
  get isHeldUp() {
    return this.state === 'active' && this.phase !== 'merging' && (this.reason !== null || navigator.onLine === false);
  }

  get isSmall() {
    return this.size <= SMALL;
  }

  /** Bytes that went out, are stored, and are merged. */
  get progress() {
    if (this.state === 'verified') return { sent: this.size, stored: this.size, merged: this.size };
    let going = 0;
    for (const bytes of this.going.values()) going += bytes;
    return { sent: Math.min(this.size, this.heldBytes + going), stored: this.heldBytes, merged: this.merged };
  }

  get key() {
    return sourceOf({
      browser: this.queue.browser,
      path: this.source.path,
      size: this.size,
      modified: this.source.modified,
      salt: this.salt,
    });
  }

  /** Runs until it ends in one way or another, after a run that was halted has ended. Never throws. */
  async run() {
    await this.lastRun;
    this.lastRun = this.runOnce();
    await this.lastRun;
  }

  async runOnce() {
    if (this.state !== 'queued') return;
    this.end = new AbortController();
    this.become('active', 'opening');
    this.backoff.progressed();
    try {
      await alone(this.name, this.end.signal, () => this.waitFor('other_tab'), () => this.push());
    } catch (error) {
      this.stopped(error);
    }
  }

  stopped(error) {
    if (this.end.signal.aborted) return;
    this.going.clear();
    const stop = error instanceof Stop ? error : new Stop('page_error', { message: String(error) });
    if (!(error instanceof Stop)) console.error(error);
    this.reason = { key: stop.reason, message: stop.refusal.message ?? '' };
    const states = { exists: 'asking', choose_again: 'missing' };
    this.become(states[stop.reason] ?? 'stopped');
    if (this.cut) this.leave();
  }

  /** Ends it, so that it can be run again. */
  halt(state) {
    this.end.abort();
    this.going.clear();
    this.reason = null;
    this.become(state);
  }

  become(state, phase = this.phase) {
    const before = this.state;
    this.state = state;
    this.phase = phase;
    this.queue.changed(this, before);
  }

  waitFor(key, message = '') {
    this.reason = { key, message };
    this.queue.changed(this, this.state);
  }

  async push() {
    if (this.end.signal.aborted) throw ENDED;
    this.reason = null;
    await this.source.check();
    this.startedAs = this.key;
    if (this.isSmall && this.size > 0 && !this.cut) {
      if (await this.atOnce()) return;
    }
    await this.inSlices();
  }

  /** Sends the whole file in one request. False if it has to go in slices. */
  async atOnce() {
    this.become('active', 'sending');
    const cut = new Cut(this.size, this.size);
    const parameters = { slice_num: 1, file_size: this.size, replace: this.replaces };
    for (;;) {
      const reply = await this.sendSlice(cut, 0, parameters);
      if (!reply.refusal) {
        this.backoff.progressed();
        this.heldBytes = this.size;
        const said = JSON.parse(reply.text);
        if (said.is_uploaded !== 1 || !isUsable(said, this.size, this.size)) return false;
        return this.confirm(said.file_digest, reply.digests.hash);
      }
      // It has begun in slices (conflict), and goes on in them.
      if (reply.refusal.course === 'ask') return false;
      await this.recover(reply.refusal);
    }
  }

  async inSlices() {
    let futile = 0;
    let best = -1;
    for (;;) {
      if (await this.open()) return;
      if (this.heldBytes + this.merged > best) futile = 0;
      else if ((futile += 1) > FUTILE_ROUNDS) throw new Stop('no_progress', { message: this.lastError });
      best = Math.max(best, this.heldBytes + this.merged);
      try {
        await this.withPulse(() => this.exchange());
        if (await this.finish()) return;
      } catch (error) {
        if (error !== AGAIN) throw error;
      }
    }
  }

  /** Begins the upload or goes on with it (3). True if the file is finished. */
  async open() {
    this.become('active', 'opening');
    const answer = await this.question({ ...(this.size === 0 && { wait: 10 }) });
    if (answer.is_uploaded === 1) return this.judge(answer);
    this.adopt(answer);
    return false;
  }

  /** The parameters that begin the upload and ask about it. */
  get parameters() {
    const slices = this.size === 0 ? { slice_num: 0 } : { slice_size: this.sliceSize };
    return { file_name: this.name, source: this.startedAs, file_size: this.size, ...slices, replace: this.replaces };
  }

  get sliceSize() {
    const { lineRate, slots } = this.queue;
    return this.cut?.sliceSize ?? Math.min(this.mostSlice ?? Infinity, sliceSizeFor(this.size, lineRate, slots.limit.limit));
  }

  /** The response to a question, once there is one. */
  async question(more) {
    for (;;) {
      const { body, refusal } = await this.queue.server.ask({ ...this.parameters, ranges: 1, ...more }, this.end.signal);
      if (this.end.signal.aborted) throw ENDED;
      if (body && !isUsable(body, this.size, this.sliceSize)) {
        await this.recover(NONSENSE);
        continue;
      }
      if (body) {
        this.reason = null;
        this.lastError = body.last_error ?? '';
        return body;
      }
      if (refusal.course === 'ask' && refusal.reason === 'no_upload') throw AGAIN;
      if (refusal.course === 'ask') throw new Stop(refusal.reason, refusal);
      await this.recover(refusal);
    }
  }

  /** A finished file has the name: it is this one, or another one (10). */
  async judge(answer) {
    if (answer.file_size !== undefined && answer.file_size !== this.size) throw new Stop('exists');
    const own = await this.ownDigest();
    const said = answer.file_digest ?? (await this.question({ file_digest: own })).file_digest ?? own;
    if (said !== own) throw new Stop('exists');
    return this.confirm(said, own);
  }

  /** Takes over the cut and what is held. */
  adopt(answer) {
    const sliceSize = answer.slice_size ?? this.sliceSize;
    if (this.cut?.sliceSize !== sliceSize) {
      this.forget();
      this.cut = new Cut(this.size, sliceSize);
    }
    this.mostSlice = undefined;
    this.held = new Set();
    for (const [first, last] of answer.slice_ranges_uploaded ?? []) {
      for (let id = first; id <= last; id += 1) this.held.add(id);
    }
    this.compares = answer.compare === true;
    this.mergedTo(answer.curr_merge_slice_id);
    this.recount();
  }

  recount() {
    this.heldBytes = 0;
    for (const id of this.held) this.heldBytes += this.cut.length(id);
  }

  mergedTo(frontier = 0) {
    const merged = this.cut.below(frontier);
    if (merged > this.merged) this.backoff.progressed();
    this.merged = merged;
  }

  /** Sends what is missing, and compares what is held and was not sent by this page. */
  async exchange() {
    this.become('active', 'sending');
    const ids = Array.from({ length: this.cut.count }, (_, id) => id);
    const doubtful = ids.filter((id) => this.held.has(id) && !this.values.has(id));
    this.missing = ids.filter((id) => !this.held.has(id));
    // With compare, nothing that is held counts before it was compared (4).
    if (this.compares) await this.compareAll(doubtful);
    const lanes = Array.from({ length: Math.min(MOST, this.missing.length) }, () => this.lane());
    await this.together([...lanes, this.compares ? undefined : this.compareAll(doubtful)]);
  }

  /** Waits for all of them. The first that fails ends the others. */
  async together(works) {
    const failed = [];
    await Promise.all(works.map((work) => Promise.resolve(work).catch((error) => this.failedOne(failed, error))));
    this.isStopping = false;
    if (failed.length > 0) throw failed.find((error) => error !== AGAIN && error !== ENDED) ?? failed[0];
  }

  failedOne(failed, error) {
    failed.push(error);
    this.isStopping = true;
  }

  /** Sends one missing slice after the other. */
  async lane() {
    while (this.missing.length > 0 && !this.isStopping) {
      await this.sendUntilStored(this.missing.shift());
    }
  }

  async sendUntilStored(id) {
    while (!this.isStopping) {
      const reply = await this.sendSlice(this.cut, id, {});
      if (!reply.refusal) return this.stored(id, Object.values(reply.digests)[0]);
      if (reply.refusal.course === 'ask' || reply.refusal.course === 'exists') throw AGAIN;
      if (reply.refusal.course === 'smaller') await this.shrink(reply.refusal);
      // All lanes wait for one of them: a server in trouble gets a small question and not six slices.
      this.recovery ??= this.recover(reply.refusal).finally(() => {
        this.recovery = null;
      });
      await this.recovery;
    }
    return undefined;
  }

  stored(id, value) {
    this.values.set(id, value);
    if (!this.held.has(id)) this.heldBytes += this.cut.length(id);
    this.held.add(id);
    this.backoff.progressed();
    this.reason = null;
    this.queue.changed(this, this.state);
    this.queue.pump();
  }

  /** Learns what the server holds of a remembered upload, to show it. */
  async look() {
    this.startedAs = this.key;
    const asked = { file_name: this.name, source: this.startedAs, peek: 1, ranges: 1 };
    const { body } = await this.queue.server.ask(asked);
    if (body?.is_uploaded !== 0 || !body.slice_size || this.state !== 'missing') return;
    if (!isUsable(body, this.size, body.slice_size)) return;
    this.adopt(body);
    this.queue.changed(this, this.state);
  }

  /** A proxy takes no such slices: all of it is cut anew, in smaller ones. */
  async shrink(refusal) {
    const size = this.cut.sliceSize / 2;
    if (size < 64 << 10) throw new Stop(refusal.reason, refusal);
    this.mostSlice = size;
    this.cut = null;
    await this.question({ recut: 1, discard: 1, slice_size: size });
    throw AGAIN;
  }

  /** Sends slice `id` with its digest (5). */
  async sendSlice(cut, id, parameters) {
    const { signal } = this.end;
    const { start, end } = cut.slice(id);
    const taken = await this.queue.slots.take(this.isSmall ? 'small' : 'large', this.order, end - start, signal);
    if (!taken) throw ENDED;
    let stored = 0;
    try {
      this.going.set(id, 0);
      const reply = await this.queue.pool.run(this.job(cut, id, parameters), signal, (sent) => this.went(id, sent));
      if (reply.aborted || signal.aborted) throw ENDED;
      if (reply.failure) throw await this.source.whyUnreadable();
      const refusal = this.queue.refusalOf(reply);
      if (!refusal) stored = end - start;
      if (!refusal) this.went(id, stored);
      return { ...reply, refusal };
    } finally {
      this.going.delete(id);
      this.queue.slots.release(stored);
    }
  }

  job(cut, id, parameters) {
    const { start, end } = cut.slice(id);
    const { server } = this.queue;
    const about = { file_name: this.name, source: this.startedAs, slice_id: id, slice_size: end - start, offset: start };
    const url = server.url({ ...about, ...parameters });
    const kinds = [cut.joins ? 'cv' : 'hash'];
    return { kind: 'send', file: this.source.file, start, end, url, headers: server.headers, kinds, silence: SILENCE };
  }

  /** So many bytes of a slice went out. */
  went(id, sent) {
    const more = sent - (this.going.get(id) ?? 0);
    this.going.set(id, sent);
    this.meter.add(more);
    this.queue.slots.meter.add(more);
  }

  /** Waits until it makes sense to try again (8, 9). */
  async recover(refusal) {
    const { signal } = this.end;
    if (refusal.course === 'exists') throw new Stop('exists');
    if (refusal.course === 'final' || refusal.course === 'smaller') throw new Stop(refusal.reason, refusal);
    this.waitFor(refusal.reason, refusal.message);
    if (refusal.course === 'token') return this.ended(await this.queue.newToken(signal));
    if (this.backoff.isOver && refusal.course !== 'disk') throw new Stop(refusal.reason, refusal);
    if (await this.queue.online(signal)) this.backoff.progressed();
    await this.queue.sleep(this.backoff.next(refusal.after), signal);
    return this.ended(undefined);
  }

  ended() {
    if (this.end.signal.aborted) throw ENDED;
  }

  /** Compares held slices with the file (4). Those that differ are missing, or belong to another version. */
  async compareAll(ids) {
    for (let at = 0; at < ids.length && !this.isStopping; at += 1) {
      if (at === 0 || ids[at] > this.digestsTo) await this.fetchDigests(ids[at]);
      await this.compare(ids[at]);
    }
  }

  async fetchDigests(first) {
    const last = Math.min(this.cut.count - 1, first + MAX_DIGESTS - 1);
    const answer = await this.question({ peek: 1, digests: `${first}-${last}` });
    // The upload became a file meanwhile.
    if (!answer.digests) throw AGAIN;
    this.digestsFrom = first;
    this.digestsTo = last;
    this.digests = answer.digests;
  }

  async compare(id) {
    const told = this.digests[id - this.digestsFrom];
    const own = this.cut.joins ? 'cv' : 'hash';
    const [kind, value] = (told ?? `${own}:`).split(':');
    const digests = await this.digestOf(this.cut.slice(id), [...new Set([own, kind])]);
    if (digests[kind] === value) return void this.values.set(id, digests[own]);
    if (!this.compares) return this.another();
    this.held.delete(id);
    this.recount();
    return void this.missing.push(id);
  }

  /** The held slices are of other bytes, though name, size and time are the same: another source (1). */
  another() {
    this.leave();
    this.salt += 1;
    this.startedAs = this.key;
    this.queue.remember(this);
    throw AGAIN;
  }

  async digestOf({ start, end }, kinds) {
    const { signal } = this.end;
    const reply = await this.queue.hashing(() =>
      this.queue.pool.run({ kind: 'digest', file: this.source.file, start, end, kinds }, signal),
    );
    if (reply.aborted || signal.aborted) throw ENDED;
    if (reply.failure) throw await this.source.whyUnreadable();
    return reply.digests;
  }

  /** The digest of the file: joined of what was read already, or read now. */
  async ownDigest() {
    if (this.cut?.joins && this.values.size === this.cut.count) return this.joined(this.cut.count, this.values);
    if (this.size <= PIECE) return (await this.digestOf({ start: 0, end: this.size }, ['hash'])).hash;
    this.become('active', 'comparing');
    const pieces = new Cut(this.size, PIECE);
    const values = new Map();
    for (let id = 0; id < pieces.count; id += 1) {
      values.set(id, (await this.digestOf(pieces.slice(id), ['cv'])).cv);
    }
    return this.joined(pieces.count, values);
  }

  joined(count, values) {
    const bytes = (text) => Uint8Array.from({ length: 32 }, (_, i) => parseInt(text.slice(2 * i, 2 * i + 2), 16));
    return hex(join(Array.from({ length: count }, (_, id) => bytes(values.get(id)))));
  }

  /** Waits until the server has merged all and confirms the digest. False if slices turn out to be missing. */
  async finish() {
    const own = await this.withPulse(() => this.ownDigest());
    this.become('active', 'merging');
    for (;;) {
      const wait = this.queue.isSending ? 0 : 10;
      const answer = await this.question({ wait, file_digest: own });
      if (answer.is_uploaded === 1) return this.confirm(answer.file_digest ?? own, own);
      if (this.isMissingSome(answer)) return false;
      this.mergedTo(answer.curr_merge_slice_id);
      if (this.lastError) this.waitFor('merge_failed', this.lastError);
      if (this.backoff.isOver) throw new Stop('merge_failed', { message: this.lastError });
      this.queue.changed(this, this.state);
      await this.queue.sleep(600, this.end.signal);
      this.ended();
    }
  }

  isMissingSome(answer) {
    if (answer.slice_size !== undefined && answer.slice_size !== this.cut.sliceSize) return true;
    const held = (answer.slice_ranges_uploaded ?? []).reduce((sum, [first, last]) => sum + last - first + 1, 0);
    return held < this.cut.count;
  }

  /** The server has the file: its digest must be ours. */
  confirm(said, own) {
    if (said !== own) throw new Stop('differs', { message: `${said} ≠ ${own}` });
    this.digest = own;
    this.reason = null;
    this.merged = this.size;
    this.become('verified');
    return true;
  }

  /** Gives signs of life while `work` runs, and learns what is merged (12). */
  async withPulse(work) {
    const stop = new AbortController();
    const beat = this.beat(stop.signal).catch(() => {});
    try {
      return await work();
    } finally {
      stop.abort();
      await beat;
    }
  }

  async beat(signal) {
    for (;;) {
      await this.queue.sleep(PULSE, signal);
      if (signal.aborted || !this.cut) return;
      const asked = { file_name: this.name, source: this.startedAs, peek: 1, ranges: 1 };
      const { body } = await this.queue.server.ask(asked, signal);
      if (body?.is_uploaded === 0 && this.cut && isUsable(body, this.size, this.sliceSize)) this.mergedTo(body.curr_merge_slice_id);
    }
  }

  /** Tells the server that this client has given up, so that no other waits for it (12). */
  leave() {
    const asked = { file_name: this.name, source: this.startedAs, peek: 1, leave: 1 };
    this.queue.server.ask(asked);
  }
}
