// The number of connections: one more as long as that carries clearly more, one less where it does not.

/** Most requests with a body at once. A browser has six connections to a server. */
export const MOST = 6;

const WINDOW = 1500;
const GAIN = 1.08;

/**
 * Climbs to the number of connections beyond which the rate does not grow.
 */
export class Tuner {
  /** @param {() => number} now milliseconds */
  constructor(now = () => performance.now()) {
    this.now = now;
    this.connections = 3;
    this.step = 1;
    this.reset();
  }

  /** Begins a new window: after a pause its rate would mean nothing. */
  reset() {
    this.before = 0;
    this.bytes = 0;
    this.since = this.now();
  }

  /** `bytes` more were stored. */
  stored(bytes) {
    this.bytes += bytes;
    const time = this.now() - this.since;
    if (time < WINDOW) return;
    this.judge(this.bytes / time);
    this.bytes = 0;
    this.since = this.now();
  }

  judge(rate) {
    // The last step did harm, or no good: the other way is tried next.
    if (this.before && rate < this.before * GAIN) this.step = -this.step;
    this.before = rate;
    this.connections = Math.min(MOST, Math.max(1, this.connections + this.step));
  }
}
