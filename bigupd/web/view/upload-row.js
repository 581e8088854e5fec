// A row of the list of uploads.

import { words } from '../words/index.js';
import { button, element, readable, setText, show, splitName } from './dom.js';
import { rate, share, size, time } from './format.js';
import { describe } from './state-words.js';

const SVG = 'http://www.w3.org/2000/svg';

function svg(tag, attributes, children = []) {
  const made = document.createElementNS(SVG, tag);
  Object.entries(attributes).forEach(([name, value]) => made.setAttribute(name, value));
  made.append(...children);
  return made;
}

/** The parts of a bar: what went out, what is stored, what is merged. */
function bar() {
  const parts = ['sent', 'stored', 'merged'].map((name) => svg('rect', { class: name, height: 1, width: 0 }));
  const picture = svg('svg', { viewBox: '0 0 100 1', preserveAspectRatio: 'none', 'aria-hidden': 'true' }, parts);
  const node = element('div', { class: 'bar', role: 'progressbar', 'aria-valuemin': 0, 'aria-valuemax': 100 }, [picture]);
  return { node, parts };
}

/** The buttons of a row, and in which states they are there. */
const ACTIONS = [
  { key: 'keep', in: ['asking'], act: (queue, upload) => queue.decide(upload, 'keep') },
  { key: 'replace', in: ['asking'], act: (queue, upload) => queue.decide(upload, 'replace') },
  { key: 'rename', in: ['asking'], act: (queue, upload) => queue.decide(upload, 'rename') },
  { key: 'pause', in: ['active', 'queued'], act: (queue, upload) => queue.pause(upload) },
  { key: 'resume', in: ['paused'], act: (queue, upload) => queue.resume(upload) },
  { key: 'go_on_now', in: ['missing'], if: (upload) => upload.source.handle, act: (queue, upload) => queue.goOn(upload) },
  { key: 'choose_this', in: ['missing'], if: (upload) => !upload.source.handle, act: (queue, upload, page) => page.chooseAgain(upload) },
  { key: 'send_new', in: ['stopped'], if: isRenewable, act: (queue, upload) => queue.renew(upload) },
  { key: 'choose_this', in: ['stopped'], if: isToBeChosen, act: (queue, upload, page) => page.chooseAgain(upload) },
  { key: 'retry', in: ['stopped'], if: (upload) => !isRenewable(upload) && !isToBeChosen(upload), act: (queue, upload) => queue.resume(upload) },
  { key: 'copy', in: ['verified'], act: (queue, upload, page, node) => page.copy(upload.digest, node) },
  { key: 'cancel', in: ['active', 'queued', 'paused'], act: (queue, upload) => queue.cancel(upload) },
  { key: 'remove', in: ['stopped', 'missing', 'verified', 'kept', 'cancelled'], act: (queue, upload) => queue.drop(upload) },
];

function isRenewable(upload) {
  return upload.source.handle && ['changed', 'unreadable'].includes(upload.reason?.key);
}

function isToBeChosen(upload) {
  return !upload.source.handle && ['changed', 'unreadable', 'gone'].includes(upload.reason?.key);
}

/**
 * @param {import('../engine/queue.js').Queue} queue
 * @param {{chooseAgain: Function, copy: Function}} page
 */
export function uploadRow(queue, page) {
  let upload = null;
  const name = element('span', { class: 'name' });
  const folder = element('span', { class: 'folder' });
  const facts = element('span', { class: 'facts' });
  const state = element('span', { class: 'state' });
  const digest = element('code', { class: 'digest' });
  const { node: track, parts } = bar();
  const buttons = ACTIONS.map((action) => {
    const made = button(action.key, () => action.act(queue, upload, page, made), { class: 'small' });
    return made;
  });
  const head = element('div', { class: 'row-head' }, [element('span', { class: 'path' }, [folder, name]), facts]);
  const foot = element('div', { class: 'row-foot' }, [element('span', { class: 'said' }, [state, digest]), element('div', { class: 'actions' }, buttons)]);
  const node = element('div', { class: 'row', role: 'listitem' }, [element('span', { class: 'mark', 'aria-hidden': 'true' }), element('div', { class: 'row-body' }, [head, track, foot])]);

  const showItem = (item) => {
    upload = item;
    const shown = readable(item.name);
    const [before, last] = splitName(shown);
    setText(folder, before);
    setText(name, last);
    head.title = shown;
    const { text, detail, tone } = describe(item);
    setText(state, text);
    state.title = detail || (item.state === 'verified' ? words('verified_hint') : '');
    setText(digest, item.digest);
    show(digest, item.digest !== '');
    node.dataset.tone = tone;
    node.dataset.state = item.state;
    setText(facts, factsOf(item));
    showBar(item, track, parts);
    const hadFocus = buttons.includes(document.activeElement);
    ACTIONS.forEach((action, i) => showButton(buttons[i], action, item));
    // Who works with keys goes on where they are: a button that goes leaves the focus to its neighbour.
    const hasFocus = buttons.some((one) => one === document.activeElement && !one.hidden);
    if (hadFocus && !hasFocus) buttons.find(({ hidden }) => !hidden)?.focus();
  };
  return { node, show: showItem };
}

function showButton(node, action, upload) {
  const isThere = action.in.includes(upload.state) && (!action.if || Boolean(action.if(upload)));
  show(node, isThere);
  if (isThere) node.setAttribute('aria-label', `${words(action.key)}: ${readable(upload.name)}`);
}

function factsOf(upload) {
  if (upload.state !== 'active' || upload.phase === 'opening') return size(upload.size);
  const { sent } = upload.progress;
  const parts = [words('of', { part: size(sent), whole: size(upload.size) })];
  const speed = upload.meter.rate;
  if (upload.phase === 'sending' && speed > 0 && !upload.isHeldUp) {
    parts.push(rate(speed), words('left', { time: time((upload.size - sent) / speed) }));
  }
  return parts.join(' · ');
}

function showBar(upload, track, parts) {
  const { sent, stored, merged } = upload.progress;
  const whole = upload.size || 1;
  [sent, stored, merged].forEach((bytes, i) => {
    const width = String(Math.round((bytes / whole) * 1000) / 10);
    if (parts[i].getAttribute('width') !== width) parts[i].setAttribute('width', width);
  });
  track.setAttribute('aria-label', readable(upload.name));
  track.setAttribute('aria-valuenow', Math.floor((stored / whole) * 100));
  track.setAttribute('aria-valuetext', share(stored / whole));
}
