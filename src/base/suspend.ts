/** Notices that the machine slept: a proof key may have been copied with the memory image, so it must not live on. */
import { readFileSync } from 'node:fs'
import type { Clock, Millis } from './clock.ts'

const PERIOD: Millis = 500
const SLEPT: Millis = 1_000

/** Milliseconds since boot, suspended time included (CLOCK_BOOTTIME). */
export function bootMillis(): Millis {
  return Number(readFileSync('/proc/uptime', 'utf8').split(' ')[0]) * 1000
}

/** Calls `resumed` after each sleep: time since boot went on while monotonic time stood still. */
export function watchSuspend(clock: Clock, resumed: () => void, boot: () => Millis = bootMillis): () => void {
  let offset = boot() - clock.monotonic()
  let cancel = () => {}
  const look = () => {
    const now = boot() - clock.monotonic()
    if (now - offset > SLEPT) resumed()
    offset = now
    cancel = clock.after(PERIOD, look)
  }
  cancel = clock.after(PERIOD, look)
  return () => cancel()
}
