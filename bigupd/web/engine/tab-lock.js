// One tab sends a name at a time. Browsers without Web Locks, and pages over plain HTTP, leave that to the server: both tabs
// name the same source then, and no byte is mixed.

/**
 * Runs `work` while no other tab of this browser sends `name`.
 * @param {string} name
 * @param {AbortSignal} signal ends the wait
 * @param {() => void} onWait called if another tab is at it
 * @param {() => Promise<void>} work
 */
export async function alone(name, signal, onWait, work) {
  if (!navigator.locks) return work();
  const key = `bigup:${name}`;
  const isFree = await navigator.locks.request(key, { ifAvailable: true }, async (lock) => {
    if (lock) await work();
    return lock !== null;
  });
  if (isFree) return undefined;
  onWait();
  return navigator.locks.request(key, { signal }, work);
}
