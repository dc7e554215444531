/** A log that keeps its lines, for tests that look at them. */
import type { Log, LogFacts, LogLevel } from '../../src/telemetry/log.ts'

export interface LoggedLine extends LogFacts {
  readonly level: LogLevel
  readonly message: string
}

/** Keeps every line in `lines`, whatever its level. */
export function keepLog(): Log & { readonly lines: LoggedLine[] } {
  const lines: LoggedLine[] = []
  const write = (level: LogLevel) => (message: string, facts?: LogFacts) => {
    lines.push({ ...facts, level, message })
  }
  return {
    lines,
    level: 'debug',
    setLevel: () => {},
    debug: write('debug'),
    info: write('info'),
    warn: write('warn'),
    error: write('error'),
  }
}
