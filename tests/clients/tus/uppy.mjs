// Uploads /file of its own site by Uppy to `endpoint` of the query. Uppy goes on with an upload that the browser remembers.
// In the end it tells lists as upload.mjs does.
import Uppy from '@uppy/core';
import Tus from '@uppy/tus';

const query = new URLSearchParams(location.search);
const blob = await (await fetch('/file')).blob();
const told = [];
const uppy = new Uppy().use(Tus, {
  endpoint: query.get('endpoint'),
  headers: { Authorization: `Bearer ${query.get('token')}` },
  chunkSize: Number(query.get('chunk')) || Infinity,
  onAfterResponse: (request, response) => {
    told.push([request.getMethod(), response.getStatus(), response.getHeader('Upload-Offset')]);
  },
});
// Uppy knows a file by its name, its size and its time.
uppy.addFile({ name: 'uppy.bin', type: 'text/x-a', data: new File([blob], 'uppy.bin', { lastModified: 1 }) });
const { successful, failed } = await uppy.upload();
told.push(failed.length > 0 ? ['error', String(failed[0].error)] : ['success', successful[0].uploadURL]);
tell(told.map((list) => JSON.stringify(list)).join('\n'));
