// A page with Uppy beside the tus server of its makers: `node site.mjs PORT FOLDER`. FOLDER gets the files; the page is at /,
// and sends the file that is chosen there.
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { FileStore } from '@tus/file-store';
import { Server } from '@tus/server';

const [port, directory] = process.argv.slice(2);
const here = (name) => readFileSync(new URL(name, import.meta.url));
const page = `<!doctype html><meta charset="utf-8"><title>Uppy</title>${here('uppy.html')}
<input type="file" id="file">
<script type="module">
  import Uppy from '@uppy/core';
  import Tus from '@uppy/tus';
  const uppy = new Uppy().use(Tus, { endpoint: new URL('/files', location).href });
  document.getElementById('file').onchange = async ({ target }) => {
    const [data] = target.files;
    uppy.addFile({ name: data.name, type: data.type, data });
    const { successful } = await uppy.upload();
    globalThis.isDone = successful.length === 1;
  };
  globalThis.isReady = true;
</script>`;

const server = new Server({ path: '/files', datastore: new FileStore({ directory }) });
createServer((request, response) => {
  if (request.url.startsWith('/files')) return server.handle(request, response);
  try {
    const isModule = request.url.startsWith('/modules/');
    const kind = request.url.endsWith('.json') ? 'application/json' : 'text/javascript';
    response.setHeader('Content-Type', isModule ? kind : 'text/html');
    return response.end(isModule ? here(`node_modules/${request.url.slice('/modules/'.length)}`) : page);
  } catch {
    return response.writeHead(404).end();
  }
}).listen(Number(port), '127.0.0.1');
