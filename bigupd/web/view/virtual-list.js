// A list of any length of which only the visible rows are in the document. The page scrolls, not the list.

/** Rows beside the visible ones, above and below. */
const SPARE = 6;

/** A list of rows of equal height. */
export class VirtualList {
  /**
   * @param {HTMLElement} box
   * @param {object} parts
   * @param {() => {node: HTMLElement, show: (item: any) => void}} parts.makeRow
   */
  constructor(box, { makeRow }) {
    this.box = box;
    this.makeRow = makeRow;
    this.items = [];
    this.rows = new Map();
    this.spare = [];
    this.space = document.createElement('div');
    this.space.className = 'rows';
    this.space.setAttribute('role', 'presentation');
    box.append(this.space);
    this.isDue = false;
    const due = () => this.drawSoon();
    addEventListener('scroll', due, { passive: true });
    addEventListener('resize', due, { passive: true });
  }

  /** Shows these items. */
  show(items) {
    this.items = items;
    this.draw();
  }

  drawSoon() {
    if (this.isDue) return;
    this.isDue = true;
    requestAnimationFrame(() => {
      this.isDue = false;
      this.draw();
    });
  }

  /** Height of a row, as the style says. */
  get height() {
    return parseFloat(getComputedStyle(this.box).getPropertyValue('--row')) || 76;
  }

  draw() {
    if (this.box.closest('[hidden]')) return;
    const { height } = this;
    const top = this.space.getBoundingClientRect().top;
    const first = Math.max(0, Math.floor(-top / height) - SPARE);
    const end = Math.min(this.items.length, Math.ceil((innerHeight - top) / height) + SPARE);
    this.space.style.height = `${this.items.length * height}px`;
    const wanted = this.items.slice(first, Math.max(first, end));
    const focused = this.focusedIndex(first, end);
    this.recycle(new Set(focused < 0 ? wanted : [...wanted, this.items[focused]]));
    wanted.forEach((item, i) => this.place(item, first + i, height));
    if (focused >= 0) this.place(this.items[focused], focused, height);
  }

  /** The place of a row that has the focus and is out of sight: it stays, so that keys go on from there. -1: there is none. */
  focusedIndex(first, end) {
    const row = document.activeElement?.closest('.row');
    if (!row || row.parentElement !== this.space) return -1;
    const [item] = [...this.rows].find(([, { node }]) => node === row) ?? [];
    const index = this.items.indexOf(item);
    return index < first || index >= end ? index : -1;
  }

  recycle(wanted) {
    for (const [item, row] of this.rows) {
      if (wanted.has(item)) continue;
      const next = row.node.contains(document.activeElement) ? this.nextOf(row) : null;
      this.rows.delete(item);
      row.node.remove();
      this.spare.push(row);
      next?.focus({ preventScroll: true });
    }
  }

  /** A button for the focus of a row whose item is gone: in the next row, or in the one before. */
  nextOf({ node }) {
    const rows = [node.nextElementSibling, node.previousElementSibling].filter(Boolean);
    return rows.map((row) => row.querySelector('button:not([hidden]), a')).find(Boolean);
  }

  place(item, index, height) {
    const row = this.rows.get(item) ?? this.take(item);
    row.node.style.transform = `translateY(${index * height}px)`;
    row.node.setAttribute('aria-setsize', this.items.length);
    row.node.setAttribute('aria-posinset', index + 1);
    row.show(item);
    if (row.index !== index || !row.node.isConnected) this.insert(row, index);
  }

  take(item) {
    const row = this.spare.pop() ?? this.makeRow();
    this.rows.set(item, row);
    return row;
  }

  /** Keeps the document's order that of the list, for keys and readers. */
  insert(row, index) {
    row.index = index;
    const next = Array.from(this.space.children).find((node) => Number(node.getAttribute('aria-posinset')) > index + 1);
    if (row.node.nextElementSibling !== (next ?? null) || !row.node.isConnected) this.space.insertBefore(row.node, next ?? null);
  }
}
