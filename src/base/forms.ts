/** Forms that several schemas share: durations, and texts that a parser of ours understands. Loads zod. */
import * as z from 'zod'
import type { Seconds } from './clock.ts'
import { Fault } from './fault.ts'

const DURATION = /^([1-9][0-9]{0,7})(s|m|h|d)$/
const SIZES: Readonly<Record<string, Seconds>> = { s: 1, m: 60, h: 3600, d: 86_400 }

/** A transform by a parser that throws Faults: the Fault's message becomes the problem. */
export function parsedBy<T>(parse: (text: string) => T): (text: string, context: z.RefinementCtx) => T {
  return (text, context) => {
    try {
      return parse(text)
    } catch (error) {
      context.addIssue({
        code: 'custom',
        message: error instanceof Fault ? error.message : 'is not understood',
      })
      return z.NEVER
    }
  }
}

/** `90s`, `5m`, `1h`, `7d`, as seconds from `min` to `max`. */
export function duration(min: Seconds, max: Seconds): z.ZodType<Seconds, string> {
  const parse = parsedBy((text) => parseDuration(text, min, max))
  return z
    .string()
    .regex(DURATION, {
      error: ({ input }) => `is ${JSON.stringify(input)}, wanted a duration such as 90s, 5m, 1h or 7d`,
      abort: true,
    })
    .transform(parse)
}

function parseDuration(text: string, min: Seconds, max: Seconds): Seconds {
  const match = DURATION.exec(text)
  const seconds = Number(match?.[1]) * (SIZES[match?.[2] ?? ''] ?? Number.NaN)
  if (!(seconds >= min && seconds <= max)) {
    throw new Fault('config_invalid', `is ${text}, wanted from ${min} to ${max} seconds`)
  }
  return seconds
}
