/** How long a caller waits for an answer, as it says it (grpc/doc/PROTOCOL-HTTP2.md, Timeout). */
import type { Millis } from '../base/clock.ts'

const FORM = /^([0-9]{1,8})([HMSmun])$/
const UNITS: Readonly<Record<string, Millis>> = {
  H: 3_600_000,
  M: 60_000,
  S: 1_000,
  m: 1,
  u: 0.001,
  n: 0.000_001,
}

/** The value of `grpc-timeout`; undefined for what is none. */
export function timeoutOf(text: string): Millis | undefined {
  const [, value, unit = ''] = FORM.exec(text) ?? []
  const millis = UNITS[unit]
  return value === undefined || millis === undefined ? undefined : Number(value) * millis
}
