// Pictures of the page in its main states, in both themes and three widths: `node pictures.mjs BIGUPD FOLDER [STATE…]`. BIGUPD
// is the built program, FOLDER gets the pictures. BIGUP_NODE_MODULES: the folder of modules.
import { execFileSync, spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { createInterface } from 'node:readline';

const require = createRequire(`${process.env.BIGUP_NODE_MODULES}/`);
const { chromium } = require('playwright-core');

const SIZES = [
  { width: 360, height: 780 },
  { width: 768, height: 900 },
  { width: 1440, height: 900 },
];
/** The width of the two in README: docs/page-light.png and docs/page-dark.png are those of the state `sending`. */
const README = { width: 1000, height: 900 };
const MIB = 2 ** 20;
const TITLES = ['--web-title', 'Example Films', '--web-text', 'Footage for the edit. Questions: media@example.org'];

const [bigupd, folder, ...wanted] = process.argv.slice(2);
const scratch = mkdtempSync(join(tmpdir(), 'bigup-pictures-'));

/** A file of this size, which takes no space where it is large. */
function file(name, size, text = 'x') {
  const path = join(scratch, 'source', name);
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, text);
  truncateSync(path, size);
  return path;
}

const small = ['interview-ann.wav', 'notes.txt'].map((name, i) => file(name, [9 * MIB, 4000][i]));
const large = ['camera-a.mov', 'camera-b.mov'].map((name, i) => file(name, [1400 * MIB, 900 * MIB][i]));
const long = file(`${'a-very-long-name-that-some-camera-gave-'.repeat(5)}.mov`, 700 * MIB);
const chinese = file('采访 安 2030 年第一天的素材.mov', 300 * MIB);

/** A daemon with a data folder of its own. */
async function daemon(...options) {
  const data = mkdtempSync(join(scratch, 'data-'));
  const all = ['--data-dir', data, '--listen', '127.0.0.1:0', ...TITLES, ...options];
  const child = spawn(bigupd, all, { stdio: ['ignore', 'pipe', 'ignore'] });
  const [line] = await new Promise((ready) => createInterface({ input: child.stdout }).on('line', (text) => ready([text])));
  const url = /https?:\/\/\S+/.exec(line)[0].replace(/\/$/, '');
  const token = (...more) => execFileSync(bigupd, ['token', 'new', ...more, '--data-dir', data]).toString().trim();
  return { url, child, token };
}

const row = (state) => `#list .row[data-state=${state}]`;
const limit = (page, mib) => page.selectOption('#limit', String(mib));
const choose = (page, ...files) => page.setInputFiles('#input-files', files.flat());

/** The states: each opens a page and brings it there. */
const STATES = {
  empty: (page, { url }) => page.goto(url),
  async over(page, { url }) {
    await page.goto(url);
    await page.evaluate(() => dispatchEvent(new DragEvent('dragenter', { cancelable: true })));
  },
  async sending(page, { url }) {
    await page.goto(url);
    await page.fill('#folder', 'shoot/day-1');
    await choose(page, small);
    await page.locator(row('verified')).nth(1).waitFor();
    await page.locator('#folder').blur();
    await limit(page, 25);
    await choose(page, large, long, chinese);
    await page.locator("#uploads-title:text-matches('^[2-9][0-9][0-9] MiB|GiB.*GiB')").waitFor();
  },
  async paused(page, { url }) {
    await page.goto(url);
    await limit(page, 5);
    await choose(page, large, long);
    await page.locator("#list .facts:text-matches('/s')").first().waitFor();
    await page.click('#all-pause');
    await page.locator(row('paused')).first().waitFor();
  },
  async waiting(page, { url, child }) {
    await page.goto(url);
    await limit(page, 5);
    await choose(page, large);
    await page.locator("#list .facts:text-matches('/s')").first().waitFor();
    child.kill('SIGKILL');
    await page.locator('#list .row[data-tone=wait]').first().waitFor();
  },
  full: {
    options: ['--reserve', '200T'],
    async show(page, { url }) {
      await page.goto(url);
      await choose(page, large);
      await page.locator('#list .row[data-tone=wait]').first().waitFor();
    },
  },
  async offline(page, { url }) {
    await page.goto(url);
    await limit(page, 5);
    await choose(page, large);
    await page.locator("#list .facts:text-matches('/s')").first().waitFor();
    await page.context().setOffline(true);
    await page.locator('#list .row[data-tone=wait]').first().waitFor();
  },
  async exists(page, { url }) {
    await page.goto(url);
    await choose(page, small);
    await page.locator(row('verified')).nth(1).waitFor();
    await page.click('#clear');
    await choose(page, file('other/interview-ann.wav', 9 * MIB, 'y'), file('other/notes.txt', 4000, 'y'));
    await page.locator(row('asking')).nth(1).waitFor();
  },
  async token(page, { url, token }) {
    token('ann');
    await page.goto(url);
    await choose(page, small);
    await page.locator('#token').waitFor();
  },
  async guest(page, { url, token }) {
    await page.goto(token('ann', '--prefix', 'guests/ann/', '--permissions', 'push', '--once', '--link', url));
    await choose(page, small[0]);
    await page.locator(row('verified')).waitFor();
    await choose(page, small[1]);
    await page.locator(row('stopped')).waitFor();
  },
  async verified(page, { url }) {
    await page.goto(url);
    await choose(page, small, file('太阳.jpg', 300_000), file(`${'long-name-'.repeat(20)}.jpg`, 500_000));
    await page.locator(row('verified')).nth(3).waitFor();
  },
  async error(page, { url }) {
    await page.goto(url);
    await page.fill('#folder', '..');
    await choose(page, small);
    await page.locator(row('stopped')).nth(1).waitFor();
  },
  async missing(page, { url }) {
    await page.goto(url);
    await limit(page, 5);
    await choose(page, large);
    await page.locator("#list .facts:text-matches('/s')").first().waitFor();
    await page.waitForTimeout(3000);
    await page.reload();
    await page.locator(row('missing')).first().waitFor();
  },
  async skipped(page, { url }) {
    await page.goto(url);
    await page.evaluate(() => {
      FileSystemFileHandle.prototype.getFile = () => Promise.reject(new DOMException('permission denied', 'NotAllowedError'));
    });
    const session = await page.context().newCDPSession(page);
    const data = { items: [], files: [join(scratch, 'source')], dragOperationsMask: 1 };
    for (const type of ['dragEnter', 'dragOver', 'drop']) {
      await session.send('Input.dispatchDragEvent', { type, x: 300, y: 300, data });
    }
    await page.locator('#skipped').waitFor();
  },
  async files(page, { url }) {
    await page.goto(url);
    await page.fill('#folder', 'shoot/day-1');
    await choose(page, small, file('太阳.jpg', 300_000), file(`${'long-name-'.repeat(20)}.jpg`, 500_000));
    await page.locator(row('verified')).nth(3).waitFor();
    await limit(page, 5);
    await choose(page, large[0]);
    await page.locator("#list .facts:text-matches('/s')").first().waitFor();
    await page.click('#tab-files');
    await page.locator('#files-list .row').nth(3).waitFor();
    await page.locator('#operator').waitFor();
  },
  async none(page, { url }) {
    await page.goto(url);
    await page.click('#tab-files');
    await page.locator('#files-note').waitFor();
  },
};

/** States that are shown in other languages too. */
const SPOKEN = ['empty', 'sending', 'exists', 'files'];

async function shoot(browser, state, locale) {
  const { show = STATES[state], options = [] } = STATES[state];
  const server = await daemon(...options);
  const context = await browser.newContext({ locale });
  const page = await context.newPage();
  try {
    await show(page, server);
    for (const theme of ['light', 'dark']) {
      for (const size of state === 'sending' ? [...SIZES, README] : SIZES) {
        await page.emulateMedia({ colorScheme: theme });
        await page.setViewportSize(size);
        // As it is once it has been drawn.
        await page.evaluate(() => new Promise((drawn) => setTimeout(() => requestAnimationFrame(drawn), 350)));
        const language = locale.slice(0, 2);
        await page.screenshot({ path: join(folder, `${state}-${language}-${theme}-${size.width}.png`) });
      }
    }
  } finally {
    await context.close();
    server.child.kill('SIGKILL');
  }
}

mkdirSync(folder, { recursive: true });
const browser = await chromium.launch({ executablePath: '/usr/bin/chromium', args: ['--no-sandbox', '--disable-gpu'] });
try {
  for (const state of wanted.length > 0 ? wanted : Object.keys(STATES)) {
    for (const locale of SPOKEN.includes(state) ? ['en-GB', 'de-DE', 'zh-CN'] : ['en-GB']) {
      await shoot(browser, state, locale);
      console.log(`${state}, ${locale}`);
    }
  }
} finally {
  await browser.close();
  rmSync(scratch, { recursive: true, force: true });
}
