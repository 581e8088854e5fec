// Rates over the last seconds, and a limit of the rate.

const SPAN = 6000;
const STEP = 250;

/**
 * Bytes per second over the last seconds.
 */
export class Meter {
  /** @param {() => number} now milliseconds */
  constructor(now = () => performance.now()) {
    this.now = now;
    this.steps = [];
  }

  /** `bytes` more went out; negative if some have to go again. */
  add(bytes) {
    const at = Math.floor(this.now() / STEP);
    const last = this.steps[this.steps.length - 1];
    if (last?.at === at) last.bytes += bytes;
    else this.steps.push({ at, bytes });
  }

  /** @returns {number} bytes per second */
  get rate() {
    const now = this.now();
    while (this.steps.length > 0 && (this.steps[0].at + 1) * STEP < now - SPAN) this.steps.shift();
    if (this.steps.length === 0) return 0;
    const time = Math.max(500, now - this.steps[0].at * STEP);
    const bytes = this.steps.reduce((sum, step) => sum + step.bytes, 0);
    return Math.max(0, (bytes * 1000) / time);
  }
}

/**
 * Holds slices back so that the rate stays below a limit over a few seconds. A slice goes at full speed, since a page cannot
 * slow a request down.
 */
export class RateLimit {
  /** @param {() => number} now milliseconds */
  constructor(now = () => performance.now()) {
    this.now = now;
    this.limit = 0;
    this.free = 0;
  }

  /** @param {number} limit bytes per second; 0 for none */
  set(limit) {
    this.limit = limit;
    this.free = this.now();
  }

  /** Milliseconds until the next slice may begin. */
  get wait() {
    return this.limit === 0 ? 0 : Math.max(0, this.free - this.now());
  }

  /** A slice of `bytes` begins. */
  take(bytes) {
    if (this.limit === 0) return;
    this.free = Math.max(this.free, this.now()) + (bytes * 1000) / this.limit;
  }
}
