// Downloads with a token: a link cannot carry it, so the page reads the file itself.

/**
 * Saves a finished file. Where the browser lets a page write files, it goes to the disk as it comes.
 * @param {string} url
 * @param {Record<string, string>} headers
 * @param {string} name
 * @returns {Promise<number>} the status; 0 if the user changed their mind or the connection broke
 */
export async function save(url, headers, name) {
  try {
    const handle = await globalThis.showSaveFilePicker?.({ suggestedName: name });
    const response = await fetch(url, { headers, cache: 'no-store' });
    if (!response.ok) return response.status;
    if (handle) await response.body.pipeTo(await handle.createWritable());
    else follow(URL.createObjectURL(await response.blob()), name);
    return response.status;
  } catch {
    return 0;
  }
}

function follow(url, name) {
  const link = document.createElement('a');
  link.href = url;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}
