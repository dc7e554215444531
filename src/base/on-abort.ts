/**
 * Many who wait for one signal, behind one listener: Node looks through all listeners of a signal for each that comes
 * or goes, and on the signal of a lease hang all streams of a connection.
 */

const waiting = new WeakMap<AbortSignal, Set<() => void>>()

/** Calls `then` once, at once when `signal` has aborted; until the returned function is called. */
export function onAbort(signal: AbortSignal, then: () => void): () => void {
  if (signal.aborted) {
    then()
    return () => {}
  }
  const all = waiting.get(signal) ?? listen(signal)
  const one = () => then()
  all.add(one)
  return () => void all.delete(one)
}

function listen(signal: AbortSignal): Set<() => void> {
  const all = new Set<() => void>()
  waiting.set(signal, all)
  signal.addEventListener('abort', () => callAll(all), { once: true })
  return all
}

/** As of listeners of a signal, what one throws keeps none of the others from hearing. */
function callAll(all: Set<() => void>): void {
  for (const one of all) {
    all.delete(one)
    try {
      one()
    } catch (caught) {
      process.nextTick(() => {
        throw caught
      })
    }
  }
}
