// Files that were dropped or chosen, with their paths. What cannot be read is told, and not left out in silence.

import { Source } from '../engine/source.js';

/** Files that are handed on at once, while others are still looked for. */
const BATCH = 200;

/** Files of a folder that are opened side by side: each takes a message to another process. */
const ABREAST = 16;

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
 * @param {(sources: Source[], count: number) => void} onFound gets files, and learns how many were found so far
 * @returns {Promise<{path: string, why: string}[]>} entries that cannot be read
 */
export function ofDrop(transfer, onFound) {
  const items = Array.from(transfer.items).filter(({ kind }) => kind === 'file');
  const roots = items.map((item) => ({
    entry: item.webkitGetAsEntry?.() ?? null,
    // Only a secure page has handles, by which it can read a file again after a reload.
    handle: item.getAsFileSystemHandle?.().catch(() => null) ?? null,
    file: item.getAsFile(),
  }));
  return collect(roots, onFound);
}

async function collect(roots, onFound) {
  const found = { sources: [], count: 0, unreadable: [], onFound };
  for (const { entry, handle, file } of roots) {
    const usable = await handle;
    if (usable) await ofHandle(usable, usable.name, found);
    else if (entry) await ofEntry(entry, found);
    else if (file) add(found, new Source({ path: file.name, file }));
  }
  hand(found);
  return found.unreadable;
}

async function ofHandle(handle, path, found) {
  await guarded(path, found, async () => {
    if (handle.kind === 'file') return add(found, new Source({ path, file: await handle.getFile(), handle }));
    let group = [];
    for await (const inner of handle.values()) {
      group.push(ofHandle(inner, `${path}/${inner.name}`, found));
      if (group.length >= ABREAST) await Promise.all(group.splice(0));
    }
    return Promise.all(group);
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
  if (found.sources.length >= BATCH) hand(found);
}

function hand(found) {
  const sources = found.sources.splice(0);
  found.count += sources.length;
  found.onFound(sources, found.count);
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
