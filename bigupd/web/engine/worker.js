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

async function read({ file, start, end }) {
  const bytes = new Uint8Array(await file.slice(start, end).arrayBuffer());
  if (bytes.length !== end - start) throw new DOMException('the file is shorter now', 'NotReadableError');
  return bytes;
}

async function digestOf(bytes, { start, kinds: wanted }) {
  const { hash, subtree } = await blake3;
  return Object.fromEntries(wanted.map((kind) => [kind, hex(kind === 'cv' ? subtree(bytes, start) : hash(bytes))]));
}

/** Hashes a slice without sending it. */
async function digest(job) {
  return { digests: await digestOf(await read(job), job) };
}

/** Sends a slice with its digest. */
async function send(job) {
  let isAborted = false;
  running.set(job.id, () => {
    isAborted = true;
  });
  const digests = await digestOf(await read(job), job);
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
    request.open('POST', url);
    Object.entries(job.headers).forEach(([name, value]) => request.setRequestHeader(name, value));
    request.upload.onprogress = ({ loaded }) => {
      if (performance.now() - told < EVERY) return;
      told = performance.now();
      postMessage({ id: job.id, sent: Math.min(loaded, end - start) });
    };
    request.onload = () => resolve(responseOf(request));
    request.onerror = () => resolve({ status: 0, text: '', after: null });
    request.ontimeout = request.onerror;
    request.onabort = () => resolve({ aborted: true });
    running.set(job.id, () => request.abort());
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
