// Turns of requests with a body: so many at once, the upload that came first before others, and below the rate limit.

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
    this.waiting = [];
    this.isHeld = false;
  }

  /**
   * Resolves once `bytes` may go. Lower `order` goes first.
   * @param {number} order
   * @param {number} bytes
   * @param {AbortSignal} signal
   * @returns {Promise<boolean>} false if it was aborted
   */
  take(order, bytes, signal) {
    if (signal.aborted) return Promise.resolve(false);
    return new Promise((resolve) => {
      const forget = () => this.forget(entry);
      const entry = { order, bytes, resolve: (taken) => (signal.removeEventListener('abort', forget), resolve(taken)) };
      const at = this.waiting.findIndex((other) => other.order > order);
      this.waiting.splice(at < 0 ? this.waiting.length : at, 0, entry);
      signal.addEventListener('abort', forget);
      this.give();
    });
  }

  forget(entry) {
    const at = this.waiting.indexOf(entry);
    if (at < 0) return;
    this.waiting.splice(at, 1);
    entry.resolve(false);
  }

  /** A request has ended; `stored` of its bytes are stored now. */
  release(stored) {
    this.taken -= 1;
    if (stored > 0) this.tuner.stored(stored);
    if (this.taken === 0 && this.waiting.length === 0) this.tuner.reset();
    this.give();
  }

  give() {
    while (!this.isHeld && this.waiting.length > 0 && this.taken < this.tuner.connections) {
      if (this.limit.wait > 0) return this.giveLater();
      const entry = this.waiting.shift();
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
