/** Waiting times between tries: doubled, bounded, jittered so that a fleet does not try in step. */
import type { Millis } from './clock.ts'

/** The wait before try `attempt` (0 is the first retry): between half and all of base·2^attempt, at most `max`. */
export function backoff(
  attempt: number,
  base: Millis = 100,
  max: Millis = 30_000,
  random = Math.random,
): Millis {
  const full = Math.min(max, base * 2 ** Math.min(attempt, 30))
  return full / 2 + (full / 2) * random()
}
