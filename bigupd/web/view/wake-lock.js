// Keeps a phone awake while something is sent, where the browser can. A hidden page loses that, so it asks again.

/** Holds the screen awake as long as it is wanted. */
export class WakeLock {
  constructor() {
    this.lock = null;
    this.isWanted = false;
    document.addEventListener('visibilitychange', () => this.want(this.isWanted));
  }

  /** @param {boolean} isWanted */
  async want(isWanted) {
    this.isWanted = isWanted;
    if (!navigator.wakeLock) return;
    if (!isWanted) return void this.release();
    if (this.lock || this.isAsking || document.visibilityState !== 'visible') return;
    this.isAsking = true;
    this.lock = await navigator.wakeLock.request('screen').catch(() => null);
    this.isAsking = false;
    const { lock } = this;
    lock?.addEventListener('release', () => {
      if (this.lock === lock) this.lock = null;
    });
    if (!this.isWanted) this.release();
  }

  release() {
    this.lock?.release();
    this.lock = null;
  }
}
