// The token of this tab, and what a guest's link says. Both stand behind the # of the address, which no browser sends.

const TOKEN = 'bigup-token';
const FOLDER = 'bigup-folder';

/**
 * Takes the guest's link out of the address bar, so that neither the history nor a shared screen has it.
 * @returns {{token: string, folder: string, isGuest: boolean}}
 */
export function session() {
  const said = new URLSearchParams(location.hash.slice(1));
  if (said.has('token')) {
    keep(said.get('token'));
    write(FOLDER, said.get('folder') ?? '');
    history.replaceState(null, '', location.pathname);
    // Not as it was kept: the browser may block that.
    return { token: said.get('token'), folder: said.get('folder') ?? '', isGuest: true };
  }
  const folder = read(FOLDER);
  return { token: read(TOKEN) ?? '', folder: folder ?? '', isGuest: folder !== null };
}

/** Keeps a token for this tab only. */
export function keep(token) {
  write(TOKEN, token);
}

/** Forgets it, and that this was a guest. */
export function forget() {
  try {
    sessionStorage.removeItem(TOKEN);
    sessionStorage.removeItem(FOLDER);
  } catch {
    // There was nothing to forget.
  }
}

function read(key) {
  try {
    return sessionStorage.getItem(key);
  } catch {
    return null;
  }
}

function write(key, value) {
  try {
    sessionStorage.setItem(key, value);
  } catch {
    // The tab has no memory: the token is asked for again after a reload.
  }
}
