// The meaning of a response for a client: docs/http.md, "Retries" and "Statuses".

/**
 * @typedef {'temporary' | 'ask' | 'exists' | 'token' | 'disk' | 'smaller' | 'final'} Course
 * temporary: send it again later. ask: ask how the upload stands, and go on as the response says. exists: another file has
 * the name. token: a valid token is needed. disk: send it again once disk space is free. smaller: a proxy takes only
 * smaller slices. final: tell the user.
 */

/**
 * @typedef {object} Refusal
 * @property {Course} course
 * @property {string} reason key of the words for it
 * @property {string} message the server's own words; empty if there are none
 * @property {number} status 0 without a response
 * @property {number} after seconds to wait at least
 */

/** What each error code asks for. */
const COURSES = {
  bad_request: 'final',
  bad_name: 'final',
  damaged: 'temporary',
  unauthorized: 'token',
  forbidden: 'final',
  no_upload: 'ask',
  not_found: 'final',
  method_not_allowed: 'final',
  timeout: 'temporary',
  conflict: 'ask',
  exists: 'exists',
  busy: 'temporary',
  cancelled: 'final',
  too_large: 'final',
  precondition_failed: 'final',
  range_not_satisfiable: 'final',
  unsupported: 'final',
  too_many: 'temporary',
  overloaded: 'temporary',
  paused: 'temporary',
  internal: 'temporary',
  no_space: 'disk',
};

const TEMPORARY = new Set([408, 425, 429, 500, 502, 503, 504]);

/**
 * Judges a response. `null`: it is what was asked for.
 * @param {{status: number, text: string, after: string | null}} response status 0: no response came
 * @returns {Refusal | null}
 */
export function refusalOf({ status, text, after }) {
  const said = parsed(text);
  if (status === 200 && said?.status === 200) return null;
  const seconds = Math.min(120, Number(after) || 0);
  const code = typeof said?.error === 'string' ? said.error : '';
  const message = typeof said?.message === 'string' ? said.message : '';
  return { ...judged(status, code, Boolean(after)), message, status, after: seconds };
}

function judged(status, code, hasTime) {
  if (Object.hasOwn(COURSES, code)) {
    // Merging frees the space: docs/http.md, "Retries".
    const course = code === 'no_space' && hasTime ? 'temporary' : COURSES[code];
    return { course, reason: code };
  }
  if (status === 0) return { course: 'temporary', reason: 'no_response' };
  if (status === 413) return { course: 'smaller', reason: 'proxy_limit' };
  if (TEMPORARY.has(status)) return { course: 'temporary', reason: 'overloaded' };
  // A router or a captive portal responds in the server's place.
  if (status < 400) return { course: 'temporary', reason: 'no_server' };
  return { course: 'final', reason: 'unknown' };
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

/** All codes that have a course: tests compare them with docs/http.md and with the words. */
export const CODES = Object.keys(COURSES);

/**
 * Thrown where an upload cannot go on by itself.
 */
export class Stop extends Error {
  /**
   * @param {string} reason key of the words for it
   * @param {Partial<Refusal>} [refusal]
   */
  constructor(reason, refusal = {}) {
    super(refusal.message || reason);
    this.reason = reason;
    this.refusal = refusal;
  }
}
