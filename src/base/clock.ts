/** Time, injected: nothing else reads the system's clocks. */

declare const unit: unique symbol
/** A count of seconds. */
export type Seconds = number & { readonly [unit]?: 's' }
/** A count of milliseconds. */
export type Millis = number & { readonly [unit]?: 'ms' }

/** Wall time for claims, monotonic time for intervals, and timers that never hold the process open. */
export interface Clock {
  /** Milliseconds since 1970 UTC. */
  now(): Millis
  /** Milliseconds since an arbitrary start; never goes back. */
  monotonic(): Millis
  /** Runs `then` once after `delay`; the returned function cancels it. */
  after(delay: Millis, then: () => void): () => void
}

// setTimeout takes at most 2^31-1 ms and fires at once beyond that.
const LONGEST_TIMER = 2_147_483_647

export const systemClock: Clock = {
  now: () => Date.now(),
  monotonic: () => performance.now(),
  after: (delay, then) => {
    const timer = setTimeout(then, Math.min(Math.max(delay, 0), LONGEST_TIMER))
    timer.unref()
    return () => clearTimeout(timer)
  },
}

/** Whole seconds since 1970 UTC, as JWT claims want them (RFC 7519 s.2, NumericDate). */
export function nowSeconds(clock: Clock): Seconds {
  return Math.floor(clock.now() / 1000)
}
