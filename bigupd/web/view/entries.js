// Files that were dropped or chosen, with their paths. What cannot be read is told, and not left out in silence.

import { Source } from '../engine/source.js';

/**
 * @typedef {object} Found
 * @property {Source[]} sources
 * @property {{path: string, why: string}[]} unreadable
 */

/**
 * Files of an input.
 * @param {FileList} files
 * @returns {Source[]}
 */
export function ofInput(files) {
  return Array.from(files, (file) => new Source({ path: file.webkitRelativePath || file.name, file }));
}

/**
 * Files and folders of a drop. It must be called in the drop's event, since its items are gone afterwards.
 * @param {DataTransfer} transfer
 * @param {(count: number) => void} onCount learns how many files were found so far
 * @returns {Promise<Found>}
 */
export function ofDrop(transfer, onCount) {
  const items = Array.from(transfer.items).filter(({ kind }) => kind === 'file');
  const roots = items.map((item) => ({
    entry: item.webkitGetAsEntry?.() ?? null,
    // Only a secure page has handles, by which it can read a file again after a reload.
    handle: item.getAsFileSystemHandle?.().catch(() => null) ?? null,
    file: item.getAsFile(),
  }));
  return collect(roots, onCount);
}

async function collect(roots, onCount) {
  const found = { sources: [], unreadable: [], onCount };
  for (const { entry, handle, file } of roots) {
    const usable = await handle;
    if (usable) await ofHandle(usable, usable.name, found);
    else if (entry) await ofEntry(entry, found);
    else if (file) found.sources.push(new Source({ path: file.name, file }));
  }
  return found;
}

async function ofHandle(handle, path, found) {
  await guarded(path, found, async () => {
    if (handle.kind === 'file') return add(found, new Source({ path, file: await handle.getFile(), handle }));
    for await (const inner of handle.values()) await ofHandle(inner, `${path}/${inner.name}`, found);
    return undefined;
  });
}

async function ofEntry(entry, found) {
  const path = entry.fullPath.replace(/^\//, '');
  await guarded(path, found, async () => {
    if (entry.isFile) {
      const file = await new Promise((resolve, reject) => entry.file(resolve, reject));
      return add(found, new Source({ path, file }));
    }
    const reader = entry.createReader();
    for (;;) {
      // At most 100 entries come at a time, and none at the end.
      const inner = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
      if (inner.length === 0) return undefined;
      for (const one of inner) await ofEntry(one, found);
    }
  });
}

function add(found, source) {
  found.sources.push(source);
  if (found.sources.length % 100 === 0) found.onCount(found.sources.length);
}

async function guarded(path, found, work) {
  try {
    await work();
  } catch (error) {
    found.unreadable.push({ path, why: error.message || error.name });
  }
}

/**
 * Files by the browser's own dialog, where it gives handles. `null`: it has none, so an input must do.
 * @returns {Promise<Source[] | null>}
 */
export async function ofPicker() {
  if (!globalThis.showOpenFilePicker) return null;
  try {
    const handles = await globalThis.showOpenFilePicker({ multiple: true });
    return Promise.all(handles.map(async (handle) => new Source({ path: handle.name, file: await handle.getFile(), handle })));
  } catch (error) {
    return error.name === 'AbortError' ? [] : null;
  }
}
