// Sends a file by a page in Chromium, to its end: `node send.mjs PAGE URL FILE NAME`, where PAGE is a key of PAGES. Prints
// JSON: `wall`, seconds from the choice of the file to the end that the page shows, and `cpu`, seconds of the browser's
// processes meanwhile.
import { Chromium } from './chromium.mjs';

/** The sum of the browser's own processes is looked at so long after the end: some work is done late. */
const SETTLE = 300;

const PAGES = {
  /** The page of bigup, to the digest that the server confirms. */
  bigup: {
    ready: "document.getElementById('drop-title').textContent !== ''",
    input: "document.getElementById('input-files')",
    done: "document.querySelector('#list .row[data-state=verified]') !== null",
  },
  /**
   * One PUT of the whole file and nothing else: the least that sending a file takes in this browser. The network's process of
   * Chromium reads a file that is the whole body of an XMLHttpRequest itself; that of a fetch comes by way of the main process.
   */
  put: {
    path: '/page/icon.svg',
    prepare: (name) => `globalThis.input = Object.assign(document.createElementNS('http://www.w3.org/1999/xhtml', 'input'), {
      type: 'file',
      onchange: () => {
        const request = Object.assign(new XMLHttpRequest(), { onload: () => { globalThis.isDone = request.status < 300; } });
        request.open('PUT', '/content/${name}');
        request.send(input.files[0]);
      },
    }); 0`,
    input: 'input',
    done: 'globalThis.isDone === true',
  },
  /** The page of copyparty, which asks for no confirmation then. */
  copyparty: {
    stored: { ask_up: '0' },
    ready: "up2k.st !== undefined && document.querySelector('#u2form input[type=file]') !== null",
    input: "document.querySelector('#u2form input[type=file]')",
    done: 'up2k.st.files.length === 1 && up2k.st.files[0].done !== undefined && !up2k.st.is_busy',
  },
  /** Uppy, as tests/clients/tus/site.mjs shows it. */
  uppy: { ready: 'globalThis.isReady', input: "document.getElementById('file')", done: 'globalThis.isDone === true' },
};

/** Waits until the browser has done with its start, which goes on after the page is there. */
async function settled(browser) {
  const sum = () => Object.values(browser.cpu()).reduce((all, seconds) => all + seconds, 0);
  for (let before = sum(), left = 20; left > 0; left -= 1) {
    await new Promise((resolve) => setTimeout(resolve, 500));
    const now = sum();
    if (now - before < 0.05) return;
    before = now;
  }
}

const [kind, url, file, name] = process.argv.slice(2);
const page = PAGES[kind];
const browser = new Chromium();
try {
  await browser.open(url + (page.path ?? '/'), page.stored);
  await browser.until("document.readyState === 'complete'");
  if (page.prepare) await browser.run(page.prepare(name));
  if (page.ready) await browser.until(page.ready);
  await settled(browser);
  const before = browser.cpu();
  const began = performance.now();
  await browser.choose(page.input, [file]);
  await browser.until(page.done);
  const wall = (performance.now() - began) / 1000;
  await new Promise((resolve) => setTimeout(resolve, SETTLE));
  const after = browser.cpu();
  const cpu = Object.fromEntries(Object.entries(after).map(([of, seconds]) => [of, seconds - before[of]]));
  console.log(JSON.stringify({ wall, cpu }));
} finally {
  await browser.close();
}
