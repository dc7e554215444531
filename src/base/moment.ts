/** Moments: what is asked of the kernel twice in one has one answer. */
import { type Millis, systemClock } from './clock.ts'

/** Short beside the time that an answer takes to be of any use. */
const LENGTH: Millis = 1

/** The number of this moment; greater in every later one. A turn of the event loop would have to be counted: 12 µs each. */
export function moment(): number {
  return Math.floor(systemClock.monotonic() / LENGTH)
}
