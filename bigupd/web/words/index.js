// The visitor's language.

import de from './de.js';
import en from './en.js';
import zh from './zh.js';

/** All languages of the page. */
export const LANGUAGES = { en, de, zh };

/** The first of the visitor's languages that the page speaks. */
export function languageOf(wanted) {
  const known = wanted.map((tag) => tag.toLowerCase().split('-')[0]).find((tag) => Object.hasOwn(LANGUAGES, tag));
  return known ?? 'en';
}

/** The language in use. */
export const language = languageOf(globalThis.navigator?.languages ?? []);

/** Words of refusals that stand under another key, since a state has theirs. */
const OTHERS = { cancelled: 'cancelled_by', paused: 'server_paused' };

/**
 * The words of a key.
 * @param {string} key
 * @param {object} [values]
 */
export function words(key, values) {
  const found = LANGUAGES[language][key] ?? en[key] ?? key;
  return typeof found === 'function' ? found(values) : found;
}

/** The words of a reason. */
export function reasonWords(key) {
  return words(OTHERS[key] ?? key);
}
