// One tab sends a name at a time. Browsers without Web Locks, and pages over plain HTTP, leave that to the server: both tabs
// name the same source then, and no byte is mixed.

const PREFIX = 'bigup:';

/**
 * Runs `work` while no other tab of this browser sends `name`.
 * @param {string} name
 * @param {AbortSignal} signal ends the wait
 * @param {() => void} onWait called if another tab is at it
 * @param {() => Promise<void>} work
 */
export async function alone(name, signal, onWait, work) {
  if (!navigator.locks) return work();
  const key = PREFIX + name;
  let hasBegun = false;
  const begin = () => {
    hasBegun = true;
    return work();
  };
  try {
    const isFree = await navigator.locks.request(key, { ifAvailable: true }, async (lock) => {
      if (lock) await begin();
      return lock !== null;
    });
    if (isFree) return undefined;
    onWait();
    return await navigator.locks.request(key, { signal }, begin);
  } catch (error) {
    // A browser that blocks storage refuses locks too.
    if (error.name === 'SecurityError' && !hasBegun) return work();
    throw error;
  }
}

/** Names that tabs of this browser send now, as far as it tells. */
export async function namesElsewhere() {
  try {
    const { held } = await navigator.locks.query();
    return new Set(held.filter(({ name }) => name.startsWith(PREFIX)).map(({ name }) => name.slice(PREFIX.length)));
  } catch {
    return new Set();
  }
}
