// Uploads a file by tus-js-client, for tests: `node upload.mjs JSON`. The members of JSON are options of that client, and:
// file: the path of the file. isStream: true if the client gets it as a stream whose length it does not know; isBuffer: true if
// it gets its bytes, as in a browser. state: a file that remembers the upload, which is gone on with by it. SIGTERM aborts the upload; SIGINT ends it by DELETE. BIGUP_NODE_MODULES: the folder of
// modules. Each line that it prints is a JSON list: a response (method, status, Upload-Offset), the URL, or the end.
import { createReadStream, readFileSync, writeSync } from 'node:fs';
import { createRequire } from 'node:module';
import { PassThrough } from 'node:stream';

const { FileUrlStorage, Upload } = createRequire(`${process.env.BIGUP_NODE_MODULES}/`)('tus-js-client');
const { file, isBuffer, isStream, state, ...options } = JSON.parse(process.argv[2]);
const tell = (...what) => writeSync(1, `${JSON.stringify(what)}\n`);
const end = (code, ...what) => {
  tell(...what);
  process.exit(code);
};

const source = isBuffer ? readFileSync(file) : createReadStream(file);
const upload = new Upload(isStream ? source.pipe(new PassThrough()) : source, {
  // A member of JSON cannot be infinite: without a size of requests the whole file goes in one.
  retryDelays: [0, 500, 1000, 1000, 2000, 2000, 4000, 4000, 8000, 8000],
  ...options,
  ...(state && { urlStorage: new FileUrlStorage(state) }),
  onUploadUrlAvailable: () => tell('url', upload.url),
  onAfterResponse: (request, response) =>
    tell(request.getMethod(), response.getStatus(), response.getHeader('Upload-Offset') ?? null),
  onError: (error) => end(1, 'error', String(error)),
  onSuccess: () => end(0, 'success', upload.url),
});
const abort = async (terminates) => {
  await upload.abort(terminates);
  end(0, 'aborted', upload.url);
};
process.on('SIGTERM', () => abort(false));
process.on('SIGINT', () => abort(true));
if (state) {
  const [previous] = await upload.findPreviousUploads();
  if (previous) {
    upload.resumeFromPreviousUpload(previous);
  }
}
upload.start();
