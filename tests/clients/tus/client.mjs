// Uploads a file by tus-js-client: `node client.mjs ENDPOINT FILE NAME PARALLEL CHUNK STATE`.
// CHUNK: bytes of a request, 0 for the whole file in one. STATE: file that remembers the upload, so that the same command
// goes on with it, or - for none.
import { createReadStream, statSync } from 'node:fs';
import { FileUrlStorage, Upload } from 'tus-js-client';

const [endpoint, file, filename, parallel, chunk, state] = process.argv.slice(2);
const parallelUploads = Number(parallel);
const options = {
  endpoint,
  parallelUploads,
  chunkSize: Number(chunk) || Infinity,
  uploadSize: parallelUploads > 1 ? undefined : statSync(file).size,
  metadata: { filename },
  retryDelays: [0, 1000, 3000],
  onError: (error) => {
    console.error(String(error));
    process.exit(1);
  },
  onSuccess: () => process.exit(0),
};
if (state !== '-') {
  options.urlStorage = new FileUrlStorage(state);
}
const upload = new Upload(createReadStream(file), options);
if (state !== '-') {
  const previous = await upload.findPreviousUploads();
  if (previous.length > 0) {
    upload.resumeFromPreviousUpload(previous[0]);
  }
}
upload.start();
