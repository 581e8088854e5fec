// A visitor of the page, in Firefox: the commands of visitor.mjs that its test needs, by WebDriver BiDi, which Firefox speaks
// itself (w3c.github.io/webdriver-bidi). Selectors are those of CSS. Its only argument is JSON: `profile` (a folder).
// Needs node with `--experimental-websocket`, or from 22 on.
import { spawn } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';

/** Milliseconds that a wait may take, on a machine with much else to do. */
const PATIENCE = 240_000;

const { profile } = JSON.parse(process.argv[2]);

/** Nothing that asks its maker's servers, or the user. */
const PREFERENCES = {
  'app.update.enabled': false,
  'browser.aboutwelcome.enabled': false,
  'browser.shell.checkDefaultBrowser': false,
  'datareporting.policy.dataSubmissionEnabled': false,
  'dom.disable_beforeunload': true,
  'intl.accept_languages': 'en-GB',
  'network.captive-portal-service.enabled': false,
  'network.connectivity-service.enabled': false,
  'services.settings.server': 'http://127.0.0.1:9',
  'toolkit.telemetry.server': '',
};
const lines = Object.entries(PREFERENCES).map(([name, value]) => `user_pref(${JSON.stringify(name)}, ${JSON.stringify(value)});`);
writeFileSync(join(profile, 'user.js'), lines.join('\n'));

const firefox = spawn('firefox-esr', ['--headless', '--no-remote', '--profile', profile, '--remote-debugging-port', '0'], {
  stdio: ['ignore', 'ignore', 'pipe'],
});
const said = createInterface({ input: firefox.stderr });
const address = await new Promise((resolve, reject) => {
  said.on('line', (line) => {
    const [, found] = /WebDriver BiDi listening on (ws:\S+)/.exec(line) ?? [];
    if (found) resolve(found);
  });
  firefox.once('exit', () => reject(new Error('firefox-esr ended')));
});
const socket = new WebSocket(`${address}/session`);
await new Promise((resolve, reject) => {
  socket.onopen = resolve;
  socket.onerror = reject;
});

const waiting = new Map();
const faults = [];
let last = 0;

socket.onmessage = ({ data }) => {
  const { id, result, error, message, method, params } = JSON.parse(data);
  if (method === 'log.entryAdded' && params.level === 'error') faults.push(`console: ${params.text}`);
  const one = waiting.get(id);
  waiting.delete(id);
  if (error) one?.reject(new Error(`${error}: ${message}`));
  else one?.resolve(result);
};

function ask(method, params) {
  last += 1;
  const id = last;
  socket.send(JSON.stringify({ id, method, params }));
  return new Promise((resolve, reject) => waiting.set(id, { resolve, reject }));
}

await ask('session.new', { capabilities: {} });
await ask('session.subscribe', { events: ['log.entryAdded'] });
const { contexts } = await ask('browsingContext.getTree', {});
const [{ context }] = contexts;
const target = { context };

/** The value of an expression, once it is there if it is promised. */
async function evaluate(expression) {
  const { result, exceptionDetails } = await ask('script.evaluate', { expression, target, awaitPromise: true });
  if (exceptionDetails) throw new Error(exceptionDetails.text);
  return result;
}

/** Waits until an expression is true. */
function until(expression) {
  return evaluate(`new Promise((ready, fail) => {
    const end = Date.now() + ${PATIENCE};
    const look = () => (${expression}) ? ready() : Date.now() > end ? fail(new Error('it did not come')) : setTimeout(look, 50);
    look();
  })`);
}

const shown = (at) => `[...document.querySelectorAll(${JSON.stringify(at)})].filter((one) => one.checkVisibility())`;

const commands = {
  open: async ({ url }) => {
    await ask('browsingContext.navigate', { context, url, wait: 'complete' });
    await until("document.getElementById('drop-title')?.textContent");
  },
  async choose({ files, input = '#input-files' }) {
    const element = await evaluate(`document.querySelector('${input}')`);
    await ask('input.setFiles', { context, element: { sharedId: element.sharedId }, files });
  },
  /** Drops files that a hidden input has, since the system's own drop cannot be driven. */
  async drop({ files }) {
    await evaluate("document.body.append(Object.assign(document.createElement('input'), { type: 'file', id: 'dropped', multiple: true }))");
    await commands.choose({ files, input: '#dropped' });
    await evaluate(`{
      const dataTransfer = new DataTransfer();
      for (const file of document.getElementById('dropped').files) dataTransfer.items.add(file);
      document.getElementById('dropped').remove();
      document.getElementById('drop').dispatchEvent(new DragEvent('drop', { dataTransfer, bubbles: true, cancelable: true }));
    }`);
  },
  click: async ({ at }) => {
    await until(`${shown(at)}.length > 0`);
    await evaluate(`${shown(at)}[0].click()`);
  },
  select: ({ at, value }) =>
    evaluate(`{ const one = document.querySelector('${at}'); one.value = '${value}'; one.dispatchEvent(new Event('change')); }`),
  until: ({ at, count = 1 }) => until(`${shown(at)}.length >= ${count}`),
  text: async ({ at }) => (await evaluate(`${shown(at)}[0].innerText`)).value,
  run: async ({ script }) => (await evaluate(script)).value,
  reload: () => ask('browsingContext.reload', { context, wait: 'complete' }),
  faults: () => faults,
};

async function answer(line) {
  const { do: name, ...about } = JSON.parse(line);
  try {
    const result = await commands[name](about);
    return { result: name === 'text' || name === 'run' || name === 'faults' ? result : null };
  } catch (error) {
    const page = await evaluate('document.body.innerText').catch(() => ({ value: '' }));
    return { error: `${name} ${JSON.stringify(about)}: ${error.message}\n${page.value}\n${faults.join('\n')}` };
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  process.stdout.write(`${JSON.stringify(await answer(line))}\n`);
}
const ended = new Promise((resolve) => firefox.once('exit', resolve));
await ask('browser.close', {}).catch(() => {});
await ended;
process.exit(0);
