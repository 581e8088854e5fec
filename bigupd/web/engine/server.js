// Questions to the server that carry no slice. Names are those of docs/http.md.

import { refusalOf } from './refusals.js';

const ENDPOINT = '/big_file_upload';

/** Milliseconds after which a question counts as unanswered; the longest wait that we ask for is shorter. */
const TIMEOUT = 60_000;

/** The native protocol, and finished files. */
export class Server {
  /** @param {string} [base] the server's address; the page's own by default */
  constructor(base = '') {
    this.base = base;
    this.token = '';
  }

  /** Header fields of each request. */
  get headers() {
    return this.token ? { Authorization: `Bearer ${this.token}` } : {};
  }

  /** The address of a request with these parameters; those that are undefined are left out. */
  url(parameters) {
    const given = Object.entries(parameters).filter(([, value]) => value !== undefined && value !== false);
    const pairs = given.map(([name, value]) => `${name}=${encodeURIComponent(value === true ? 1 : value)}`);
    return `${this.base}${ENDPOINT}?${pairs.join('&')}`;
  }

  /** The address of a finished file. */
  contentUrl(name) {
    return `${this.base}/content/${name.split('/').map(encodeURIComponent).join('/')}`;
  }

  /**
   * Asks. The response is its JSON, or the refusal.
   * @param {object} parameters
   * @param {AbortSignal} [signal]
   * @returns {Promise<{body?: any, refusal?: import('./refusals.js').Refusal}>}
   */
  async ask(parameters, signal) {
    const response = await this.fetch(this.url(parameters), {}, signal);
    const refusal = refusalOf(response);
    return refusal ? { refusal } : { body: JSON.parse(response.text) };
  }

  /**
   * Sends a request. Status 0: there was no response.
   * @returns {Promise<{status: number, text: string, after: string | null}>}
   */
  async fetch(url, options = {}, signal = undefined) {
    const end = new AbortController();
    const abort = () => end.abort();
    const timer = setTimeout(abort, TIMEOUT);
    signal?.addEventListener('abort', abort, { once: true });
    try {
      const all = { cache: 'no-store', redirect: 'manual', headers: this.headers, signal: end.signal, ...options };
      const response = await fetch(url, all);
      return { status: response.status, text: await response.text(), after: response.headers.get('Retry-After') };
    } catch {
      return { status: 0, text: '', after: null };
    } finally {
      clearTimeout(timer);
      signal?.removeEventListener('abort', abort);
    }
  }

  /**
   * A page of the list of finished files, each with `file_name`, `file_size`, `modified` and mostly `file_digest`.
   * @returns {Promise<{files?: object[], refusal?: import('./refusals.js').Refusal}>}
   */
  async files(prefix, after, limit) {
    const query = new URLSearchParams({ limit });
    if (prefix) query.set('prefix', prefix);
    if (after) query.set('after', after);
    const response = await this.fetch(`${this.base}/content/?${query}`);
    if (response.status !== 200) return { refusal: refusalOf(response) };
    try {
      const files = response.text.split('\n').filter(Boolean).map((line) => JSON.parse(line));
      if (files.every(({ file_name: name }) => typeof name === 'string')) return { files };
    } catch {
      // It is no list.
    }
    return { refusal: { course: 'temporary', reason: 'no_server', message: '', status: 200, after: 0 } };
  }

  /** Removes a finished file, if it is still the one with this digest. */
  async remove(name, digest) {
    const headers = digest ? { ...this.headers, 'If-Match': `"b3-${digest}"` } : this.headers;
    const response = await this.fetch(this.contentUrl(name), { method: 'DELETE', headers });
    return response.status === 204 ? null : refusalOf(response);
  }
}
