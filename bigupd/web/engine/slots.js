// Turns of requests with a body: so many at once, and below the rate limit. Small files and slices of large ones take turns, so
// that neither waits for all of the others. Among each kind the upload that came first goes first.

import { Meter, RateLimit } from './meter.js';
import { Tuner } from './tuner.js';

/** Turns at the connections. */
export class Slots {
  /** @param {(time: number) => Promise<void>} sleep */
  constructor(sleep) {
    this.sleep = sleep;
    this.tuner = new Tuner();
    this.limit = new RateLimit();
    this.meter = new Meter();
    this.taken = 0;
    this.waiting = { small: [], large: [] };
    this.isTurnOfSmall = true;
    this.isHeld = false;
  }

  /**
   * Resolves once `bytes` may go. Lower `order` goes first among its kind.
   * @param {'small' | 'large'} kind
   * @param {number} order
   * @param {number} bytes
   * @param {AbortSignal} signal
   * @returns {Promise<boolean>} false if it was aborted
   */
  take(kind, order, bytes, signal) {
    if (signal.aborted) return Promise.resolve(false);
    return new Promise((resolve) => {
      const line = this.waiting[kind];
      const forget = () => this.forget(line, entry);
      const entry = { order, bytes, resolve: (taken) => (signal.removeEventListener('abort', forget), resolve(taken)) };
      const at = line.findIndex((other) => other.order > order);
      line.splice(at < 0 ? line.length : at, 0, entry);
      signal.addEventListener('abort', forget);
      this.give();
    });
  }

  forget(line, entry) {
    const at = line.indexOf(entry);
    if (at < 0) return;
    line.splice(at, 1);
    entry.resolve(false);
  }

  /** A request has ended; `stored` of its bytes are stored now. */
  release(stored) {
    this.taken -= 1;
    if (stored > 0) this.tuner.stored(stored);
    if (this.taken === 0 && !this.isAnyWaiting) this.tuner.reset();
    this.give();
  }

  get isAnyWaiting() {
    return this.waiting.small.length + this.waiting.large.length > 0;
  }

  /** The next one, of the kind whose turn it is, if there is one. */
  next() {
    const { small, large } = this.waiting;
    const [first, second] = this.isTurnOfSmall ? [small, large] : [large, small];
    this.isTurnOfSmall = !this.isTurnOfSmall;
    return first.shift() ?? second.shift();
  }

  give() {
    while (!this.isHeld && this.isAnyWaiting && this.taken < this.tuner.connections) {
      if (this.limit.wait > 0) return this.giveLater();
      const entry = this.next();
      this.taken += 1;
      this.limit.take(entry.bytes);
      entry.resolve(true);
    }
    return undefined;
  }

  async giveLater() {
    this.isHeld = true;
    // In steps, since the limit may be lifted meanwhile.
    await this.sleep(Math.min(this.limit.wait, 500));
    this.isHeld = false;
    this.give();
  }
}
