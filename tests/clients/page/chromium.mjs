// A Chromium that is driven by as little as possible, for measuring: no events of the network, which cost the browser time.
// The protocol of its tools is spoken over two pipes.
import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const ARGUMENTS = [
  '--headless=new',
  '--no-sandbox',
  '--disable-gpu',
  '--disable-dev-shm-usage',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-extensions',
  '--no-first-run',
  '--window-size=1000,900',
  '--remote-debugging-pipe',
];

/** Clock ticks of /proc/PID/stat in a second (proc(5)). */
const TICKS = 100;

/** A browser with one page. */
export class Chromium {
  constructor() {
    this.profile = mkdtempSync(join(tmpdir(), 'bigup-chromium-'));
    const all = [...ARGUMENTS, `--user-data-dir=${this.profile}`, 'about:blank'];
    this.child = spawn('/usr/bin/chromium', all, { stdio: ['ignore', 'ignore', 'ignore', 'pipe', 'pipe'] });
    this.waiting = new Map();
    this.last = 0;
    let text = '';
    this.child.stdio[4].setEncoding('utf8').on('data', (more) => {
      const messages = (text + more).split('\0');
      text = messages.pop();
      messages.forEach((message) => this.hear(JSON.parse(message)));
    });
  }

  hear({ id, result, error }) {
    const waiting = this.waiting.get(id);
    this.waiting.delete(id);
    if (error) waiting?.reject(new Error(error.message));
    else waiting?.resolve(result);
  }

  /** The result of a command of the browser's tools. */
  ask(method, params = {}, sessionId = this.session) {
    this.last += 1;
    const id = this.last;
    this.child.stdio[3].write(`${JSON.stringify({ id, method, params, sessionId })}\0`);
    return new Promise((resolve, reject) => this.waiting.set(id, { resolve, reject }));
  }

  /** Opens an address in the page, with these entries in its local storage. */
  async open(url, stored = {}) {
    const { targetInfos } = await this.ask('Target.getTargets');
    const { targetId } = targetInfos.find(({ type }) => type === 'page');
    const { sessionId } = await this.ask('Target.attachToTarget', { targetId, flatten: true });
    this.session = sessionId;
    await this.ask('Page.enable');
    const source = `Object.entries(${JSON.stringify(stored)}).forEach(([key, value]) => { try { localStorage[key] = value; } catch {} })`;
    await this.ask('Page.addScriptToEvaluateOnNewDocument', { source });
    await this.ask('Page.navigate', { url });
  }

  /** The value of an expression, once it is there if it is promised. */
  async run(expression) {
    const { result, exceptionDetails } = await this.ask('Runtime.evaluate', { expression, awaitPromise: true, returnByValue: true });
    if (exceptionDetails) throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text);
    return result.value;
  }

  /** Waits until an expression is true. The page looks itself, so that this costs no messages. */
  until(expression) {
    const look = `{ let is = false; try { is = ${expression}; } catch {} if (is) ready(); else setTimeout(look, 20); }`;
    return this.run(`new Promise((ready) => { const look = () => ${look}; look(); })`);
  }

  /** Chooses files by an input. */
  async choose(input, files) {
    const { result } = await this.ask('Runtime.evaluate', { expression: input });
    await this.ask('DOM.setFileInputFiles', { objectId: result.objectId, files });
  }

  /** CPU seconds so far, by kind of process. Those that have ended do not count. */
  cpu() {
    const processes = readdirSync('/proc').filter((name) => /^\d+$/.test(name)).map(process).filter(Boolean);
    const parents = new Map(processes.map(({ pid, parent }) => [pid, parent]));
    const isOurs = (pid) => pid === this.child.pid || (parents.has(pid) && isOurs(parents.get(pid)));
    const sums = { browser: 0, page: 0, network: 0, others: 0 };
    for (const { pid, kind, time } of processes) if (isOurs(pid)) sums[kind] += time;
    return sums;
  }

  /** Ends it. */
  async close() {
    const ended = new Promise((resolve) => this.child.once('exit', resolve));
    this.ask('Browser.close', {}, undefined).catch(() => {});
    await ended;
    rmSync(this.profile, { recursive: true, force: true, maxRetries: 10, retryDelay: 100 });
  }
}

function process(name) {
  try {
    const stat = readFileSync(`/proc/${name}/stat`, 'utf8');
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    const time = (Number(fields[11]) + Number(fields[12])) / TICKS;
    return { pid: Number(name), parent: Number(fields[1]), kind: kindOf(readFileSync(`/proc/${name}/cmdline`, 'utf8')), time };
  } catch {
    // It has just ended.
    return null;
  }
}

function kindOf(command) {
  const [, type] = /--type=([\w-]+)/.exec(command) ?? [];
  if (!type) return 'browser';
  if (type === 'renderer') return 'page';
  return /network\.mojom/.test(command) ? 'network' : 'others';
}
