// Small helpers for elements. Text is set as text and never as HTML.

import { words } from '../words/index.js';

/** The element with this id. */
export const $ = (id) => document.getElementById(id);

/**
 * A new element.
 * @param {string} tag
 * @param {object} [properties] `class`, `text`, attributes, and listeners like `onclick`
 * @param {(Node | null)[]} [children]
 */
export function element(tag, properties = {}, children = []) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name === 'text') made.textContent = value;
    else if (name.startsWith('on')) made.addEventListener(name.slice(2), value);
    else if (value !== undefined && value !== false) made.setAttribute(name, value);
  }
  made.append(...children.filter(Boolean));
  return made;
}

/** A button with words. */
export function button(key, onclick, properties = {}) {
  return element('button', { type: 'button', text: words(key), onclick, ...properties });
}

/** Sets text only if it is new: the browser need not draw the same again. */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** The folder of a name, with its slash, and the last component. */
export function splitName(name) {
  const at = name.lastIndexOf('/') + 1;
  return [name.slice(0, at), name.slice(at)];
}

/**
 * A name as it can be read safely. Characters that turn the direction of text (Unicode's bidirectional controls) could show
 * `exe.txt` where the name ends in `txt.exe`, so they are told by their numbers.
 */
export function readable(name) {
  const turning = /[\u061C\u200E\u200F\u202A-\u202E\u2066-\u2069]/g;
  return name.replace(turning, (one) => `⟨U+${one.codePointAt(0).toString(16).toUpperCase().padStart(4, '0')}⟩`);
}

/** Shows or hides an element. */
export function show(node, isShown) {
  if (node.hidden === isShown) node.hidden = !isShown;
}

/** Puts the words of the visitor's language where the page names their keys. */
export function translate(root) {
  root.querySelectorAll('[data-words]').forEach((node) => {
    node.textContent = words(node.dataset.words);
  });
  root.querySelectorAll('[data-hint]').forEach((node) => node.setAttribute('placeholder', words(node.dataset.hint)));
  root.querySelectorAll('[data-label]').forEach((node) => node.setAttribute('aria-label', words(node.dataset.label)));
}
