// A worker: reads a slice, hashes it and sends it. It also sleeps, since a browser slows the clocks of a page down that
// nobody sees, and not those of its workers.
//
// The request has the slice of the file as its body, and not the bytes that were hashed: Chromium then reads the file where
// it sends, which takes a tenth of the time. The server compares the bytes that arrive with the digest, and both reads fail
// once the file is another version.

import { hasher } from './blake3.js';
import { hex } from './plain-blake3.js';

const blake3 = hasher(async () => (await fetch(new URL('blake3.wasm', import.meta.url))).arrayBuffer());

/** Milliseconds between two messages about the bytes that went out. */
const EVERY = 150;

const running = new Map();

const kinds = { send, digest, sleep };

onmessage = async ({ data }) => {
  if (data.kind === 'abort') return running.get(data.id)?.();
  const done = await kinds[data.kind](data).catch((error) => ({ failure: error.name || 'Error' }));
  running.delete(data.id);
  return postMessage({ id: data.id, done });
};

/** Reads a slice in pieces, which takes half the time and little memory, and hashes them. */
async function digestAs(kind, { file, start, end }) {
  const hashing = (await blake3).begin(kind === 'cv' ? start : 0);
  const reader = file.slice(start, end).stream().getReader();
  let length = 0;
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    hashing.update(value);
    length += value.length;
  }
  if (length !== end - start) throw new DOMException('the file is shorter now', 'NotReadableError');
  return hex(kind === 'cv' ? hashing.subtree() : hashing.root());
}

async function digestsOf(job) {
  const digests = {};
  for (const kind of job.kinds) digests[kind] = await digestAs(kind, job);
  return digests;
}

/** Hashes a slice without sending it. */
async function digest(job) {
  return { digests: await digestsOf(job) };
}

/** Sends a slice with its digest. */
async function send(job) {
  let isAborted = false;
  running.set(job.id, () => {
    isAborted = true;
  });
  const digests = await digestsOf(job);
  if (isAborted) return { aborted: true };
  const [kind] = job.kinds;
  const response = await post(job, `${job.url}&slice_digest=${kind}:${digests[kind]}`);
  return { ...response, digests };
}

function post(job, url) {
  const { start, end } = job;
  return new Promise((resolve) => {
    const request = new XMLHttpRequest();
    let told = 0;
    let silence;
    const heard = () => {
      clearTimeout(silence);
      silence = setTimeout(() => {
        request.onabort = request.onerror;
        request.abort();
      }, job.silence);
    };
    request.open('POST', url);
    Object.entries(job.headers).forEach(([name, value]) => request.setRequestHeader(name, value));
    request.upload.onprogress = ({ loaded }) => {
      heard();
      if (performance.now() - told < EVERY) return;
      told = performance.now();
      postMessage({ id: job.id, sent: Math.min(loaded, end - start) });
    };
    request.onload = () => resolve(responseOf(request));
    request.onerror = () => resolve({ status: 0, text: '', after: null });
    request.ontimeout = request.onerror;
    request.onabort = () => resolve({ aborted: true });
    request.onloadend = () => clearTimeout(silence);
    running.set(job.id, () => request.abort());
    heard();
    request.send(job.file.slice(start, end));
  });
}

function responseOf(request) {
  return { status: request.status, text: request.responseText, after: request.getResponseHeader('Retry-After') };
}

function sleep({ id, time }) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, time, {});
    running.set(id, () => {
      clearTimeout(timer);
      resolve({ aborted: true });
    });
  });
}
