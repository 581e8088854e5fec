// Tells screen readers how things stand: at most once in 5 seconds, and only what is new.

const EVERY = 5000;

/** A live region. */
export class Announcer {
  /** @param {HTMLElement} region */
  constructor(region) {
    this.region = region;
    this.told = 0;
    this.wanted = '';
    this.timer = 0;
  }

  /** Says `text`, or what is said last until then. */
  say(text) {
    this.wanted = text;
    if (this.timer) return;
    const wait = Math.max(0, this.told + EVERY - performance.now());
    this.timer = setTimeout(() => this.speak(), wait);
  }

  speak() {
    this.timer = 0;
    this.told = performance.now();
    if (this.region.textContent !== this.wanted) this.region.textContent = this.wanted;
  }
}
