/** The SDK's clock: its timers hold the process open, since somebody awaits what they lead to. */
import { type Clock, systemClock } from '../base/clock.ts'

export const awaitedClock: Clock = {
  ...systemClock,
  after: (delay, then) => {
    const timer = setTimeout(then, delay)
    return () => clearTimeout(timer)
  },
}
