/** A log for tests that want none. */
import type { Log } from '../../src/telemetry/log.ts'

export const silentLog: Log = {
  level: 'error',
  setLevel: () => {},
  debug: () => {},
  info: () => {},
  warn: () => {},
  error: () => {},
}
