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
    this.recycle(new Set(wanted));
    wanted.forEach((item, i) => this.place(item, first + i, height));
  }

  recycle(wanted) {
    for (const [item, row] of this.rows) {
      // The row that has the focus keeps it until it is left.
      if (wanted.has(item)) continue;
      this.rows.delete(item);
      row.node.remove();
      this.spare.push(row);
    }
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
