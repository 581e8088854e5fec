// The words for the state of an upload.

import { reasonWords, words } from '../words/index.js';

/** True while the machine has no network at all. */
function isOffline() {
  return navigator.onLine === false;
}

/**
 * The state of an upload in one phrase, and what the server said.
 * @param {import('../engine/upload.js').Upload} upload
 * @returns {{text: string, detail: string, tone: 'calm' | 'wait' | 'stop' | 'good'}}
 */
export function describe(upload) {
  const { state, phase, reason } = upload;
  if (state === 'active') return describeActive(upload.isInLineToSend ? 'queued' : phase, reason);
  if (state === 'asking') return told(reason, 'wait');
  if (state === 'missing') return told(reason, 'wait');
  if (state === 'stopped') return told(reason, 'stop');
  return { text: words(state), detail: '', tone: state === 'verified' ? 'good' : 'calm' };
}

function describeActive(phase, reason) {
  if (phase !== 'merging' && isOffline()) return { text: words('offline'), detail: '', tone: 'wait' };
  if (reason) return told(reason, 'wait');
  return { text: words(phase), detail: '', tone: 'calm' };
}

/** Where the user has to act, the server's own words stand beside ours: they have the numbers and the names. */
function told(reason, tone) {
  const key = reason?.key ?? 'unknown';
  const detail = reason?.message ?? '';
  const isShown = detail !== '' && (tone === 'stop' || key === 'no_space');
  return { text: isShown ? `${reasonWords(key)} (${detail})` : reasonWords(key), detail, tone };
}
