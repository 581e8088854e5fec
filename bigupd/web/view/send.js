// The part of the page that sends: the place to drop files, the sums and the list.

import { ENDED } from '../engine/queue.js';
import { Source } from '../engine/source.js';
import { words } from '../words/index.js';
import { copyBy } from './clipboard.js';
import { $, element, readable, setText, show } from './dom.js';
import { ofDrop, ofInput, ofPicker } from './entries.js';
import { rate, size, share, time } from './format.js';
import { uploadRow } from './upload-row.js';
import { VirtualList } from './virtual-list.js';

/** Milliseconds between two updates of what is shown. */
const EVERY = 250;

/** Limits of the rate to choose from, in MiB per second. */
const LIMITS = [0, 0.25, 0.5, 1, 2, 5, 10, 25, 50, 100];

/** Most unreadable entries that are listed by name. */
const LISTED = 200;

/**
 * @param {import('../engine/queue.js').Queue} queue
 * @param {{folder: string, isGuest: boolean}} session
 * @param {import('./announcer.js').Announcer} announcer
 */
export function sendView(queue, session, announcer) {
  const again = { upload: null };
  const page = {
    chooseAgain: (upload) => {
      again.upload = upload;
      $('input-one').click();
    },
    copy: (digest, button) => copyBy(button, digest, announcer),
  };
  const list = new VirtualList($('list'), { makeRow: () => uploadRow(queue, page) });
  const add = (sources) => queue.add(sources.map((source) => ({ source, name: folderOf(session) + source.path })));

  setUpChoice(add, queue, again);
  setUpDrop(add);
  setUpLimits(queue);
  setUpForAll(queue);
  if (session.isGuest) show($('folder-field'), false);

  const draw = () => {
    drawSum(queue, announcer);
    list.show(queue.uploads);
  };
  throttled(queue, draw);
  return { draw };
}

/** The folder that names begin with. */
function folderOf(session) {
  if (session.isGuest) return session.folder;
  const parts = $('folder').value.split('/').map((part) => part.trim()).filter(Boolean);
  return parts.length > 0 ? `${parts.join('/')}/` : '';
}

/** Draws after changes, and while bytes go out, at most so often. */
function throttled(queue, draw) {
  let timer = 0;
  const later = () => {
    timer ||= setTimeout(() => {
      timer = 0;
      draw();
      // Rates fall without a change, too.
      if (queue.isSending || queue.slots.meter.rate > 0) later();
    }, EVERY);
  };
  queue.addEventListener('change', later);
}

function setUpChoice(add, queue, again) {
  const input = (id, take) => {
    $(id).addEventListener('change', () => {
      take(ofInput($(id).files));
      $(id).value = '';
    });
  };
  input('input-files', add);
  input('input-folder', add);
  input('input-one', ([source]) => source && chooseAgain(queue, again.upload, source));
  $('choose-files').addEventListener('click', async () => {
    const sources = await ofPicker();
    if (sources) add(sources);
    else $('input-files').click();
  });
  $('choose-folder').addEventListener('click', () => $('input-folder').click());
}

/** The same file under the path that it had. */
function chooseAgain(queue, upload, source) {
  const same = new Source({ path: upload.source.path, file: source.file, handle: source.handle });
  queue.add([{ source: same, name: upload.name }]);
}

function setUpDrop(add) {
  const zone = $('drop');
  let depth = 0;
  const mark = (isOver) => {
    zone.classList.toggle('over', isOver);
    setText($('drop-title'), words(isOver ? 'drop_now' : 'drop_title'));
  };
  // Anywhere on the page: a browser would open what is dropped beside the zone.
  addEventListener('dragenter', (event) => {
    event.preventDefault();
    depth += 1;
    mark(true);
  });
  addEventListener('dragleave', () => {
    depth -= 1;
    if (depth <= 0) mark(false);
  });
  addEventListener('dragover', (event) => event.preventDefault());
  addEventListener('drop', async (event) => {
    event.preventDefault();
    depth = 0;
    mark(false);
    const unreadable = await ofDrop(event.dataTransfer, (sources, count) => {
      setText($('drop-title'), words('reading_folder', { count }));
      add(sources);
    });
    setText($('drop-title'), words('drop_title'));
    showSkipped(unreadable);
  });
  $('skipped-dismiss').addEventListener('click', () => show($('skipped'), false));
}

function showSkipped(unreadable) {
  if (unreadable.length === 0) return;
  show($('skipped'), true);
  setText($('skipped-title'), words('skipped', { count: unreadable.length }));
  const lines = unreadable.slice(0, LISTED).map(({ path, why }) => element('li', { text: `${readable(path)}: ${why}` }));
  $('skipped-list').replaceChildren(...lines);
}

function setUpLimits(queue) {
  const option = (mib) => element('option', { value: mib, text: mib === 0 ? words('limit_none') : rate(mib * 2 ** 20) });
  $('limit').append(...LIMITS.map(option));
  $('limit').addEventListener('change', () => {
    queue.slots.limit.set(Number($('limit').value) * 2 ** 20);
    queue.slots.give();
  });
}

function setUpForAll(queue) {
  const each = (id, states, act) => {
    $(id).addEventListener('click', () => queue.uploads.filter(({ state }) => states.includes(state)).forEach(act));
  };
  each('all-pause', ['active', 'queued'], (upload) => queue.pause(upload));
  each('all-resume', ['paused'], (upload) => queue.resume(upload));
  each('all-retry', ['stopped'], (upload) => queue.resume(upload));
  each('all-cancel', ['active', 'queued', 'paused', 'asking', 'stopped', 'missing'], (upload) => queue.cancel(upload));
  for (const choice of ['keep', 'replace', 'rename']) {
    $(`all-${choice}`).addEventListener('click', () => queue.decideAll(choice));
  }
  $('clear').addEventListener('click', () => queue.clear());
}

function drawSum(queue, announcer) {
  const { uploads, totals, slots } = queue;
  show($('uploads'), uploads.length > 0);
  document.body.classList.toggle('busy', uploads.length > 0);
  const isDone = totals.count > 0 && totals.verified === totals.count;
  setText($('uploads-title'), isDone ? words('all_done') : titleOf(totals));
  setText($('sum-detail'), detailOf(totals, totals.active > totals.held ? slots.meter.rate : 0));
  drawSumBar(totals);
  $('sum-bar').classList.toggle('done', isDone);
  show($('all-pause'), totals.active + totals.queued > 0);
  show($('all-resume'), totals.paused > 1);
  show($('all-retry'), totals.stopped > 1);
  show($('all-cancel'), totals.count > totals.verified);
  show($('clear'), uploads.some(({ state }) => ENDED.has(state)));
  for (const choice of ['keep', 'replace', 'rename']) show($(`all-${choice}`), totals.asking > 1);
  if (uploads.length > 0) announcer.say(isDone ? words('all_done') : spoken(totals));
  document.title = isDone || totals.bytes === 0 || !queue.isSending ? PAGE_TITLE : `${share(totals.stored / totals.bytes)} · ${PAGE_TITLE}`;
}

const PAGE_TITLE = document.title;

function titleOf(totals) {
  return `${words('of', { part: size(totals.stored), whole: size(totals.bytes) })}`;
}

function detailOf(totals, speed) {
  const parts = [words('files', { count: totals.count })];
  const waiting = totals.queued + totals.paused;
  if (totals.verified) parts.push(words('n_verified', { count: totals.verified }));
  if (waiting) parts.push(words('n_waiting', { count: waiting }));
  if (totals.asking) parts.push(words('n_asking', { count: totals.asking }));
  if (totals.missing) parts.push(words('n_missing', { count: totals.missing }));
  if (totals.stopped) parts.push(words('n_stopped', { count: totals.stopped }));
  if (speed > 0) parts.push(rate(speed), words('left', { time: time((totals.bytes - totals.sent) / speed) }));
  // A line ends with the dot, and none begins with one.
  return parts.join('\u00a0· ');
}

function spoken(totals) {
  return `${titleOf(totals)}. ${detailOf(totals, 0)}`;
}

function drawSumBar({ bytes, sent, stored }) {
  const whole = bytes || 1;
  const [first, second] = $('sum-bar').querySelectorAll('rect');
  first.setAttribute('width', (sent / whole) * 100);
  second.setAttribute('width', (stored / whole) * 100);
  $('sum-bar').setAttribute('aria-valuenow', Math.floor((stored / whole) * 100));
}
