// Tells screen readers how things stand: at most once in 5 seconds, and only what is new.

const EVERY = 5000;

/** A live region. */
export class Announcer {
  /** @param {HTMLElement} region */
  constructor(region) {
    this.region = region;
    this.told = 0;
    this.wanted = '';
    this.news = [];
    this.timer = 0;
  }

  /** Says how things stand: `text`, or what is said last until then. */
  say(text) {
    this.wanted = text;
    this.plan();
  }

  /** Says what an action of the user did, before anything else. */
  tell(text) {
    this.news.push(text);
    this.plan();
  }

  plan() {
    if (this.timer) return;
    const wait = Math.max(0, this.told + EVERY - performance.now());
    this.timer = setTimeout(() => this.speak(), wait);
  }

  speak() {
    this.timer = 0;
    this.told = performance.now();
    const text = this.news.shift() ?? this.wanted;
    if (this.region.textContent !== text) this.region.textContent = text;
    if (this.news.length > 0) this.plan();
  }
}
