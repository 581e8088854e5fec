// Runs parts of the page in node, for tests: `node engine.mjs FOLDER`, where FOLDER is bigupd/web. Prints a JSON object of
// results that the test compares.
import { readFileSync } from 'node:fs';
import { pathToFileURL } from 'node:url';

const folder = process.argv[2];
const load = (name) => import(pathToFileURL(`${folder}/${name}`));
const input = (length) => Uint8Array.from({ length }, (_, i) => i % 251);

const plain = await load('engine/plain-blake3.js');
const { hasher } = await load('engine/blake3.js');
const wasm = await hasher(async () => readFileSync(`${folder}/engine/blake3.wasm`));
const none = await hasher(async () => {
  throw new Error('WebAssembly is off');
});

const lengths = [0, 1, 2, 63, 64, 65, 127, 128, 1023, 1024, 1025, 2048, 2049, 3072, 4097, 31744, 102400, 1048577];
const hashing = (by, bytes, offset) => {
  const state = by.begin(offset);
  // In pieces of any length.
  for (let at = 0; at < bytes.length; at += 70001) state.update(bytes.subarray(at, at + 70001));
  return state;
};
const hashes = (by) => Object.fromEntries(lengths.map((length) => [length, plain.hex(hashing(by, input(length), 0).root())]));

/** Digests of files by their slices, as the page joins them. */
function joined(by, size, sliceSize) {
  const bytes = input(size);
  const values = [];
  for (let at = 0; at < size; at += sliceSize) values.push(hashing(by, bytes.subarray(at, at + sliceSize), at).subtree());
  return plain.hex(plain.join(values));
}

const cuts = [[2049, 1024], [5000, 1024], [1048577, 65536], [1048576, 131072], [700001, 262144]];
const joins = (by) => cuts.map(([size, slice]) => [size, joined(by, size, slice)]);

const { CODES, refusalOf } = await load('engine/refusals.js');
const { LANGUAGES, languageOf } = await load('words/index.js');
const { Backoff, PATIENCE } = await load('engine/backoff.js');
const { Tuner } = await load('engine/tuner.js');
const { Meter, RateLimit } = await load('engine/meter.js');
const { Cut, joins: doJoin, sliceSizeFor } = await load('engine/cut.js');
const { isUsable } = await load('engine/answer.js');
const { numbered } = await load('engine/queue.js');
const { readable } = await load('view/dom.js');
const { sourceOf } = await load('engine/source.js');

function course(status, body, after = null) {
  return refusalOf({ status, text: typeof body === 'string' ? body : JSON.stringify(body), after })?.course ?? null;
}

function backoff() {
  let time = 0;
  const delays = new Backoff(() => time, () => 1);
  const first = Array.from({ length: 8 }, () => delays.next());
  const asked = delays.next(30);
  // A machine that slept for a day did not try for a day.
  time += 86_400_000;
  delays.next();
  const afterSleep = delays.isOver;
  while (!delays.isOver) {
    time += 60_000;
    delays.next();
  }
  const before = time - 86_400_000;
  delays.progressed();
  return { first, asked, afterSleep, isPatient: before >= PATIENCE - 75_000, isOverAfterProgress: delays.isOver };
}

/** The number of connections on a line where more than `useful` of them carry no more. */
function tuned(useful) {
  let time = 0;
  const tuner = new Tuner(() => time);
  const seen = [];
  for (let step = 0; step < 60; step += 1) {
    time += 1600;
    tuner.stored(Math.min(tuner.connections, useful) * 1_000_000);
    if (step > 20) seen.push(tuner.connections);
  }
  return { least: Math.min(...seen), most: Math.max(...seen) };
}

function limited() {
  let time = 0;
  const limit = new RateLimit(() => time);
  limit.set(1_000_000);
  let sent = 0;
  while (time < 60_000) {
    if (limit.wait === 0) {
      limit.take(262_144);
      sent += 262_144;
    } else time += limit.wait;
  }
  return sent / 60;
}

function metered() {
  let time = 0;
  const meter = new Meter(() => time);
  for (; time < 20_000; time += 100) meter.add(100_000);
  return { rate: meter.rate, steps: meter.steps.length };
}

/** Responses of a server, and of something in its place. */
function answers() {
  const begun = { is_uploaded: 0, slice_size: 100, curr_merge_slice_id: 1, slice_ranges_uploaded: [[0, 0], [3, 9]] };
  const digest = 'ab'.repeat(32);
  const usable = [begun, { is_uploaded: 1 }, { is_uploaded: 1, file_digest: digest, slice_ranges_uploaded: [[0, 99]] }, { is_uploaded: 0 }];
  const others = [
    {},
    { is_uploaded: 'yes' },
    { ...begun, slice_size: 0 },
    { ...begun, slice_size: -1 },
    { ...begun, slice_size: '100' },
    { ...begun, slice_ranges_uploaded: [[0, 1e15]] },
    { ...begun, slice_ranges_uploaded: [[3, 4], [4, 5]] },
    { ...begun, slice_ranges_uploaded: 7 },
    { ...begun, curr_merge_slice_id: 11 },
    { is_uploaded: 1, file_digest: '<b>' },
  ];
  return [usable, others].map((all) => all.map((answer) => isUsable(answer, 1000, 100)));
}

const keys = (language) => Object.keys(LANGUAGES[language]).sort();
const file = { browser: 'b', path: 'p', size: 1, modified: 2, salt: 0 };

console.log(
  JSON.stringify({
    isWasm: !wasm.isPlain && none.isPlain,
    wasm: hashes(wasm),
    plain: hashes(none),
    joinsWasm: joins(wasm),
    joinsPlain: joins(none),
    codes: CODES,
    languages: Object.fromEntries(Object.keys(LANGUAGES).map((language) => [language, keys(language)])),
    chosen: [['de-AT', 'en'], ['zh-TW'], ['fr', 'de'], ['fr'], []].map(languageOf),
    courses: {
      stored: course(200, { status: 200 }),
      pageOfAPortal: course(200, '<html>'),
      redirect: course(302, ''),
      none: course(0, ''),
      proxyLimit: course(413, '<html>'),
      quota: course(413, { error: 'too_large', message: 'x' }),
      full: course(507, { error: 'no_space' }),
      fullForAMoment: course(507, { error: 'no_space' }, '1'),
      newCode: course(409, { error: 'something_new' }),
      gateway: course(502, '<html>'),
      prototype: course(400, { error: 'constructor' }),
    },
    backoff: backoff(),
    tuned: [1, 2, 4, 6].map(tuned),
    limited: limited(),
    metered: metered(),
    sizes: [1, 3 << 20, 1 << 30, 1e12, 16 * 2 ** 40].map((size) => [sliceSizeFor(size), doJoin(sliceSizeFor(size)), new Cut(size, sliceSizeFor(size)).count]),
    slow: sliceSizeFor(1 << 30, 100_000),
    limited_slices: [2 ** 18, 2 ** 20, 2 * 2 ** 20, 100 * 2 ** 20].map((limit) => sliceSizeFor(1 << 30, Infinity, limit)),
    numbered: [['a/b.txt', 1], ['x', 2], ['.rc', 3], ['a/.rc', 1], [`a/${'ä'.repeat(125)}.txt`, 10]].map(([name, number]) => numbered(name, number)),
    usable: answers(),
    readable: readable('a\u202Etxt.exe'),
    sources: new Set([sourceOf(file), sourceOf({ ...file }), sourceOf({ ...file, size: 2 }), sourceOf({ ...file, modified: 3 }), sourceOf({ ...file, browser: 'c' }), sourceOf({ ...file, salt: 1 })]).size,
    source: sourceOf(file),
  }),
);
