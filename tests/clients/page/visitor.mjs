// A visitor of the page, in Chromium: each line of standard input is a command in JSON, each line of standard output its
// result, or an error. Its only argument is JSON: `profile` (a folder), `locale`, `dark`, `width`, `height`, `args` (of Chromium). BIGUP_NODE_MODULES: the folder of modules.
import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';

const require = createRequire(`${process.env.BIGUP_NODE_MODULES}/`);
const { chromium } = require('playwright-core');

/** Milliseconds that a wait may take, on a machine with much else to do. */
const PATIENCE = 240_000;

const options = JSON.parse(process.argv[2]);
const { width = 1000, height = 900 } = options;
const context = await chromium.launchPersistentContext(options.profile, {
  executablePath: '/usr/bin/chromium',
  args: [
    '--no-sandbox',
    '--disable-gpu',
    '--disable-dev-shm-usage',
    '--disable-background-networking',
    '--disable-component-update',
    ...(options.args ?? []),
  ],
  locale: options.locale ?? 'en-GB',
  colorScheme: options.dark ? 'dark' : 'light',
  viewport: { width, height },
});
context.setDefaultTimeout(PATIENCE);

/** What no visit may bring: errors in the console, exceptions, requests to elsewhere. */
const faults = [];
const allowed = {};
const posts = [];
let isLeaving = false;
let allTold;

let page;
const pages = new Map();

function watch(made) {
  made.on('pageerror', (error) => faults.push(`exception: ${error.stack}`));
  made.on('console', (message) => {
    const text = message.text();
    // The browser itself tells of each response that is no 200, and of lost connections.
    if (message.type() === 'error' && !/Failed to load resource/.test(text)) faults.push(`console: ${text}`);
    if (/Content Security Policy/.test(text)) faults.push(`console: ${text}`);
  });
  made.on('request', (request) => {
    const url = new URL(request.url());
    if (url.protocol.startsWith('http') && url.origin !== allowed.origin) faults.push(`request: ${request.url()}`);
    if (request.method() === 'POST') posts.push(request.url());
    if (/token/.test(url.search)) faults.push(`a token in an address: ${request.url()}`);
  });
  // The system's chooser of files never opens: the browser tells of it from now on.
  made.on('filechooser', () => {});
  made.on('dialog', (dialog) => (dialog.type() === 'beforeunload' && isLeaving ? null : dialog.accept()));
}

/** Drops files as the system does, so that folders are folders. */
async function drop(files) {
  const session = await context.newCDPSession(page);
  const { x, y, width: w, height: h } = await page.locator('#drop').boundingBox();
  const data = { items: [], files, dragOperationsMask: 1 };
  for (const type of ['dragEnter', 'dragOver', 'drop']) {
    await session.send('Input.dispatchDragEvent', { type, x: x + w / 2, y: y + h / 2, data });
  }
}

const commands = {
  async open({ url, tab = 'first' }) {
    allowed.origin = new URL(url).origin;
    page = pages.get(tab) ?? (await context.newPage());
    if (!pages.has(tab)) watch(page);
    pages.set(tab, page);
    await page.goto(url);
    await page.locator('#drop-title', { hasText: /\S/ }).waitFor();
  },
  async turn({ tab }) {
    page = pages.get(tab);
    await page.bringToFront();
  },
  close: ({ tab }) => pages.get(tab).close({ runBeforeUnload: false }),
  /** Leaves the page as a user does: `asked` if the browser asks first, and the page stays then. */
  async leave() {
    isLeaving = true;
    const asked = page.waitForEvent('dialog').then((dialog) => dialog.dismiss()).then(() => 'asked');
    const left = page.waitForEvent('close').then(() => 'left');
    [asked, left].forEach((wait) => wait.catch(() => {}));
    await page.close({ runBeforeUnload: true });
    const how = await Promise.race([asked, left]);
    isLeaving = false;
    return how;
  },
  choose: ({ files, input = '#input-files' }) => page.setInputFiles(input, files),
  drop: ({ files }) => drop(files),
  click: ({ at }) => page.locator(at).first().click(),
  fill: ({ at, text }) => page.locator(at).fill(text),
  select: ({ at, value }) => page.locator(at).selectOption(value),
  /** The path of the file that a click downloads. */
  async download({ at }) {
    const [download] = await Promise.all([page.waitForEvent('download'), page.locator(at).first().click()]);
    return download.path();
  },
  press: ({ key }) => page.keyboard.press(key),
  /** Presses a key that opens the system's chooser of files, and chooses these there. */
  async choose_by_key({ key, files }) {
    const [chooser] = await Promise.all([page.waitForEvent('filechooser'), page.keyboard.press(key)]);
    await chooser.setFiles(files);
  },
  /** Lets the page's line carry so many bytes a second each way, so many milliseconds late. */
  async line({ latency, rate }) {
    const session = await context.newCDPSession(page);
    const throughput = { downloadThroughput: rate, uploadThroughput: rate };
    await session.send('Network.emulateNetworkConditions', { offline: false, latency, ...throughput });
  },
  /** Runs a script in pages before their own. */
  before: ({ script }) => context.addInitScript(script),
  /** Responds to questions with these bodies in turn, in the server's place, until `sense`. */
  async nonsense({ bodies }) {
    const left = bodies.map((body) => (typeof body === 'string' ? body : JSON.stringify(body)));
    const [first] = left;
    let isOver;
    allTold = new Promise((resolve) => {
      isOver = resolve;
    });
    await page.route(
      (url) => ['/big_file_upload', '/content/'].includes(url.pathname),
      (route) => {
        if (left.length === 0) isOver();
        return route.fulfill({ status: 200, contentType: 'application/json', body: left.shift() ?? first });
      },
    );
  },
  /** Waits until each of the bodies has gone out. */
  nonsense_told: () => allTold,
  sense: () => page.unrouteAll(),
  /** Waits until so many elements are shown, or more. */
  until: ({ at, count = 1 }) => page.locator(at).nth(count - 1).waitFor(),
  gone: ({ at }) => page.locator(at).first().waitFor({ state: 'hidden' }),
  text: ({ at }) => page.locator(at).first().innerText(),
  texts: ({ at }) => page.locator(at).allInnerTexts(),
  count: ({ at }) => page.locator(at).count(),
  run: ({ script }) => page.evaluate(script),
  offline: ({ on }) => context.setOffline(on),
  reload: () => page.reload(),
  address: () => page.url(),
  scroll: ({ to }) => page.evaluate((y) => scrollTo(0, y), to),
  async axe() {
    // Not by a script element, which the page's policy would refuse.
    await page.evaluate(require('axe-core').source);
    const { violations } = await page.evaluate(() => globalThis.axe.run());
    return violations.map(({ id, nodes }) => `${id}: ${nodes.map((node) => `${node.html} ${node.failureSummary}`).join('; ')}`);
  },
  async theme({ dark, width: w, height: h }) {
    await page.emulateMedia({ colorScheme: dark ? 'dark' : 'light' });
    if (w) await page.setViewportSize({ width: w, height: h });
  },
  picture: ({ path, full = false }) => page.screenshot({ path, fullPage: full }).then(() => null),
  faults: () => faults,
  /** Number of requests with a slice since the last call. */
  posts: () => posts.splice(0).length,
  async memory() {
    const session = await context.newCDPSession(page);
    await session.send('HeapProfiler.collectGarbage');
    return (await session.send('Runtime.getHeapUsage')).usedSize;
  },
};

async function answer(line) {
  const { do: name, ...about } = JSON.parse(line);
  try {
    return { result: (await commands[name](about)) ?? null };
  } catch (error) {
    const shown = await page?.locator('main').innerText().catch(() => '');
    return { error: `${name} ${JSON.stringify(about)}: ${error.message}\n${shown}\n${faults.join('\n')}` };
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  process.stdout.write(`${JSON.stringify(await answer(line))}\n`);
}
await context.close();
