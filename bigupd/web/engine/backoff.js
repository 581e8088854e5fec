// Delays between repetitions: docs/http.md, rule 8 and 9.

const FIRST = 200;
const MOST = 10_000;

/** Milliseconds of failures without progress after which an upload stops. */
export const PATIENCE = 600_000;

/** Longest time that counts between two failures, in milliseconds: a machine that slept did not try. */
const ATTEMPT = 75_000;

/**
 * The delays of one upload. Progress begins them anew.
 */
export class Backoff {
  /** @param {() => number} now milliseconds */
  constructor(now = () => performance.now(), random = Math.random) {
    this.now = now;
    this.random = random;
    this.progressed();
  }

  /** Something was stored or merged. */
  progressed() {
    this.failures = 0;
    this.time = 0;
    this.last = this.now();
  }

  /** True after too long a time without progress. */
  get isOver() {
    return this.time > PATIENCE;
  }

  /**
   * Milliseconds to wait before the next attempt.
   * @param {number} [after] seconds that the server asks for
   */
  next(after = 0) {
    const doubled = Math.min(MOST, FIRST * 2 ** Math.min(this.failures, 6));
    this.failures += 1;
    this.time += Math.min(ATTEMPT, this.now() - this.last);
    this.last = this.now();
    return Math.max(after * 1000, doubled * (0.5 + this.random() / 2));
  }
}
