// Uploads /file of its own site by tus-js-client to `endpoint` of the query, and goes on with the upload that the browser
// remembers. In the end it tells lists as upload.mjs does.
const query = new URLSearchParams(location.search);
const blob = await (await fetch('/file')).blob();
// The browser knows a file by its name, its size and its time.
const file = new File([blob], 'page.bin', { type: 'text/x-ü', lastModified: 1 });
const told = [];
const end = (...what) => tell([...told, what].map((list) => JSON.stringify(list)).join('\n'));
const upload = new tus.Upload(file, {
  endpoint: query.get('endpoint'),
  headers: { Authorization: `Bearer ${query.get('token')}` },
  chunkSize: Number(query.get('chunk')) || Infinity,
  metadata: { filename: file.name, filetype: file.type },
  onAfterResponse: (request, response) =>
    told.push([request.getMethod(), response.getStatus(), response.getHeader('Upload-Offset')]),
  onError: (error) => end('error', String(error)),
  onSuccess: () => end('success', upload.url),
});
const [previous] = await upload.findPreviousUploads();
if (previous) {
  told.push(['previous', previous.uploadUrl]);
  upload.resumeFromPreviousUpload(previous);
}
upload.start();
