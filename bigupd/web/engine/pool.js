// The workers of a page. Each does one job at a time; a worker more sleeps for all.

/**
 * @typedef {object} Job
 * @property {'send' | 'digest' | 'sleep'} kind
 */

/**
 * Workers, made when they are needed.
 */
export class Pool {
  /** @param {() => Worker} make makes a worker */
  constructor(make) {
    this.make = make;
    this.idle = [];
    this.clock = null;
    this.jobs = new Map();
    this.last = 0;
  }

  /**
   * Runs a job on a worker of its own.
   * @param {Job} job
   * @param {AbortSignal} [signal] ends it
   * @param {(sent: number) => void} [onSent] learns how many bytes went out
   */
  async run(job, signal, onSent) {
    const worker = this.idle.pop() ?? this.start();
    try {
      return await this.ask(worker, job, signal, onSent);
    } finally {
      this.idle.push(worker);
    }
  }

  /**
   * Waits, at full speed in a hidden tab too.
   * @param {number} time milliseconds
   * @param {AbortSignal} [signal] ends it early
   */
  async sleep(time, signal) {
    this.clock ??= this.start();
    await this.ask(this.clock, { kind: 'sleep', time }, signal);
  }

  start() {
    const worker = this.make();
    worker.onmessage = ({ data }) => this.hear(data);
    return worker;
  }

  hear({ id, sent, done }) {
    const job = this.jobs.get(id);
    if (done) {
      this.jobs.delete(id);
      job.resolve(done);
    } else if (job) {
      job.onSent?.(sent);
    }
  }

  ask(worker, job, signal, onSent) {
    if (signal?.aborted) return Promise.resolve({ aborted: true });
    this.last += 1;
    const id = this.last;
    const abort = () => worker.postMessage({ kind: 'abort', id });
    signal?.addEventListener('abort', abort, { once: true });
    return new Promise((resolve) => {
      this.jobs.set(id, { resolve, onSent });
      worker.postMessage({ ...job, id });
    }).finally(() => signal?.removeEventListener('abort', abort));
  }
}
