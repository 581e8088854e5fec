// The files on the server: those that are finished, and uploads of all clients.

import { reasonWords, words } from '../words/index.js';
import { copyBy } from './clipboard.js';
import { $, button, element, readable, setText, show, splitName } from './dom.js';
import { save } from './download.js';
import { moment, share, size, time } from './format.js';
import { VirtualList } from './virtual-list.js';

const PAGE = 1000;
const EVERY = 3000;

/**
 * @param {import('../engine/server.js').Server} server
 * @param {import('./announcer.js').Announcer} announcer
 * @param {() => void} askToken called where the server wants a token
 */
export function filesView(server, announcer, askToken) {
  const state = { files: [], isWhole: false, sort: 'name', isDown: true, timer: 0 };
  const view = { server, announcer, askToken, state };
  view.list = new VirtualList($('files-list'), { makeRow: () => fileRow(view) });
  $('search').addEventListener('input', () => draw(view));
  $('files-more').addEventListener('click', () => load(view));
  $('refresh').addEventListener('click', () => reload(view));
  for (const node of $('sorts').children) node.addEventListener('click', () => sortBy(view, node.dataset.sort));
  showSort(state);
  return {
    open: () => {
      reload(view);
      watch(view);
    },
    close: () => clearTimeout(state.timer),
  };
}

async function reload(view) {
  view.state.files = [];
  await load(view);
}

async function load(view) {
  const { server, state } = view;
  const last = state.files[state.files.length - 1]?.file_name;
  const { files, refusal } = await server.files('', last, PAGE);
  if (refusal?.course === 'token') view.askToken();
  view.refused = refusal ?? null;
  state.files = state.files.concat(files ?? []);
  state.isWhole = (files ?? []).length < PAGE;
  draw(view);
}

/** Shows the uploads under way, and for operators the state of the server, again and again. */
async function watch(view) {
  const { state } = view;
  clearTimeout(state.timer);
  const { body } = await view.server.ask({ peek: 1 });
  drawProgress(body?.uploads ?? []);
  await drawOperator(view.server, body?.uploads ?? []);
  if ($('files').hidden) return;
  state.timer = setTimeout(() => watch(view), EVERY);
}

function drawProgress(uploads) {
  const lines = uploads.map((upload) => {
    const part = upload.slice_num ? upload.slices_held / upload.slice_num : 0;
    const facts = [words('held', { share: share(part) })];
    if (upload.file_size) facts.unshift(size(upload.file_size));
    if (upload.idle_seconds > 5) facts.push(words('idle', { time: time(upload.idle_seconds) }));
    if (upload.paused) facts.push(words('by_paused'));
    if (upload.last_error) facts.push(upload.last_error);
    return element('li', {}, [
      element('span', { class: 'name', text: readable(upload.file_name) }),
      element('span', { class: 'quiet', text: facts.join(' · ') }),
    ]);
  });
  const none = element('li', { class: 'quiet', text: words('none_running') });
  $('progress-list').replaceChildren(...(lines.length > 0 ? lines : [none]));
}

/** Room left and bytes to be merged, for those who may read the metrics. */
async function drawOperator(server, uploads) {
  const { status, text } = await server.fetch('/metrics');
  const room = status === 200 ? metric(text, 'bigup_disk_free_bytes') : null;
  show($('operator'), room !== null);
  if (room === null) return;
  const waiting = (upload) => Math.max(0, upload.slices_held - upload.curr_merge_slice_id) * (upload.slice_size ?? 0);
  const lag = uploads.reduce((sum, upload) => sum + waiting(upload), 0);
  setText($('operator'), `${words('room', { size: size(room) })} · ${words('lag', { size: size(lag) })}`);
}

/** The value of a metric without labels. */
export function metric(text, name) {
  const line = text.split('\n').find((one) => one.startsWith(`${name} `));
  return line ? Number(line.slice(name.length + 1)) : null;
}

function sortBy(view, sort) {
  const { state } = view;
  state.isDown = state.sort === sort ? !state.isDown : sort === 'name';
  state.sort = sort;
  showSort(state);
  draw(view);
}

function showSort({ sort, isDown }) {
  for (const node of $('sorts').children) {
    const isOne = node.dataset.sort === sort;
    node.setAttribute('aria-pressed', isOne);
    node.dataset.direction = isOne ? (isDown ? 'down' : 'up') : '';
  }
}

const ORDERS = {
  name: (a, b) => (a.file_name < b.file_name ? -1 : 1),
  size: (a, b) => a.file_size - b.file_size,
  modified: (a, b) => (a.modified < b.modified ? -1 : 1),
};

function draw(view) {
  const { state, refused } = view;
  const wanted = $('search').value.trim().toLowerCase();
  const found = state.files.filter(({ file_name }) => file_name.toLowerCase().includes(wanted));
  found.sort(ORDERS[state.sort]);
  if (!state.isDown) found.reverse();
  view.list.show(found);
  show($('files-more'), !state.isWhole && !refused);
  const note = refused ? noteOf(refused) : words(wanted ? 'no_match' : 'no_files');
  setText($('files-note'), note);
  show($('files-note'), found.length === 0);
}

function noteOf(refusal) {
  return refusal.reason === 'forbidden' ? words('may_not_read') : reasonWords(refusal.reason);
}

function fileRow(view) {
  const { server, announcer } = view;
  let file = null;
  const name = element('span', { class: 'name' });
  const folder = element('span', { class: 'folder' });
  const facts = element('span', { class: 'facts' });
  const digest = element('code', { class: 'digest' });
  const copying = button('copy', () => copyBy(copying, file.file_digest, announcer), { class: 'small' });
  const link = element('a', { class: 'button small', text: words('download'), download: '' });
  link.addEventListener('click', (event) => {
    if (!server.token) return;
    event.preventDefault();
    save(server.contentUrl(file.file_name), server.headers, splitName(file.file_name)[1]);
  });
  const deleting = button('delete', () => remove(view, file), { class: 'small danger' });
  const head = element('div', { class: 'row-head' }, [element('span', { class: 'path' }, [folder, name]), facts]);
  const actions = element('div', { class: 'actions' }, [copying, link, deleting]);
  const foot = element('div', { class: 'row-foot' }, [digest, actions]);
  const node = element('div', { class: 'row file', role: 'listitem' }, [element('div', { class: 'row-body' }, [head, foot])]);
  const showItem = (item) => {
    file = item;
    const shown = readable(item.file_name);
    const [before, last] = splitName(shown);
    setText(folder, before);
    setText(name, last);
    head.title = shown;
    setText(facts, `${size(item.file_size)} · ${moment(item.modified)}`);
    setText(digest, item.file_digest ?? '');
    show(copying, Boolean(item.file_digest));
    link.href = server.contentUrl(item.file_name);
    [copying, link, deleting].forEach((one) => one.setAttribute('aria-label', `${one.textContent}: ${shown}`));
  };
  return { node, show: showItem };
}

async function remove(view, file) {
  if (!confirm(words('delete_sure', { name: readable(file.file_name) }))) return;
  const refusal = await view.server.remove(file.file_name, file.file_digest);
  if (refusal) return void alert(`${reasonWords(refusal.reason)}\n${refusal.message}`);
  view.state.files = view.state.files.filter((other) => other !== file);
  view.announcer.tell(words('deleted', { name: readable(file.file_name) }));
  draw(view);
}
