// Copies digests. Over plain HTTP a page has no clipboard of its own, but a selection can be copied.

import { words } from '../words/index.js';

/** Milliseconds for which a button says that it copied. */
const SAID = 1500;

/**
 * Copies by a button, which says so.
 * @param {HTMLButtonElement} button
 * @param {string} text
 * @param {import('./announcer.js').Announcer} announcer
 */
export async function copyBy(button, text, announcer) {
  if (!(await copy(text))) return;
  announcer.tell(words('copied'));
  button.textContent = words('copied');
  setTimeout(() => {
    button.textContent = words('copy');
  }, SAID);
}

/** True if it is copied. */
async function copy(text) {
  if (navigator.clipboard) {
    return navigator.clipboard.writeText(text).then(
      () => true,
      () => copySelection(text),
    );
  }
  return copySelection(text);
}

function copySelection(text) {
  const { activeElement } = document;
  const field = document.createElement('textarea');
  field.value = text;
  field.className = 'unseen';
  document.body.append(field);
  field.select();
  const isCopied = document.execCommand('copy');
  field.remove();
  // Who works with keys goes on where they were.
  activeElement?.focus({ preventScroll: true });
  return isCopied;
}
