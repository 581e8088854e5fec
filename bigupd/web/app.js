// Puts the parts of the page together.

import { Queue } from './engine/queue.js';
import { Server } from './engine/server.js';
import { Store, browserName } from './engine/store.js';
import { Announcer } from './view/announcer.js';
import { $, show, translate } from './view/dom.js';
import { filesView } from './view/files.js';
import { sendView } from './view/send.js';
import { session } from './view/session.js';
import { tokenView } from './view/token.js';
import { WakeLock } from './view/wake-lock.js';
import { language, words } from './words/index.js';

document.documentElement.lang = language;
translate(document);

const visit = session();
const server = new Server();
server.token = visit.token;
const makeWorker = () => new Worker(new URL('engine/worker.js', import.meta.url), { type: 'module' });
const queue = new Queue({ server, store: new Store(), browser: browserName(), makeWorker });
const announcer = new Announcer($('live'));
const wakeLock = new WakeLock();

if (!$('text').textContent.trim()) $('text').textContent = words(visit.isGuest ? 'guest_lead' : 'lead');
const sending = sendView(queue, visit, announcer);
const token = tokenView(queue);
const files = filesView(server, announcer, token.ask);

function open(name) {
  for (const other of ['send', 'files']) {
    show($(other), other === name);
    $(`tab-${other}`).setAttribute('aria-pressed', other === name);
  }
  if (name === 'files') files.open();
  else files.close();
  sending.draw();
}

show($('tabs'), !visit.isGuest);
$('tab-send').addEventListener('click', () => open('send'));
$('tab-files').addEventListener('click', () => open('files'));
queue.addEventListener('token-given', () => $('files').hidden || files.open());
queue.addEventListener('change', () => wakeLock.want(queue.isAtWork));
document.addEventListener('visibilitychange', () => document.visibilityState === 'visible' && queue.wake());
addEventListener('beforeunload', (event) => {
  if (queue.hasUnsent) event.preventDefault();
});
queue.restore();
