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

function told(reason, tone) {
  return { text: reasonWords(reason?.key ?? 'unknown'), detail: reason?.message ?? '', tone };
}
