/** The agent's log: pino lines on a descriptor, built from an allow-list of fields (threats row 12). */
import { writeSync } from 'node:fs'
import { pino } from 'pino'
import { type Clock, systemClock } from '../base/clock.ts'
import { printable } from '../base/fault.ts'

export type LogLevel = 'debug' | 'info' | 'warn' | 'error'

/** The only fields a log line may have beside level, time and message; never a token, proof, nonce, query or key. */
export interface LogFacts {
  readonly reason?: string
  readonly owner?: string
  readonly action?: string
  readonly spiffe_id?: string
  readonly entry?: string
  readonly target?: string
  readonly file?: string
  readonly line?: number
  readonly socket?: string
  readonly pid?: number
  readonly uid?: number
  readonly count?: number
  readonly ms?: number
  readonly setting?: string
  readonly epoch?: string
  readonly audit_seq?: number
  readonly audit_hash?: string
  readonly signature?: string
  readonly public_key?: string
}

/** Writes lines; cheap when the level is off. */
export interface Log {
  readonly level: LogLevel
  setLevel(level: LogLevel): void
  debug(message: string, facts?: LogFacts): void
  info(message: string, facts?: LogFacts): void
  warn(message: string, facts?: LogFacts): void
  error(message: string, facts?: LogFacts): void
}

export interface LogOptions {
  readonly level: LogLevel
  /** A descriptor, never a path: a process that is not dumpable may not open /dev/stderr. */
  readonly fd: number
  readonly clock?: Clock
}

// The types end at run time: whatever an object brings beyond these fields is dropped here.
const FIELDS: ReadonlyMap<string, 'string' | 'number'> = new Map(
  Object.entries({
    reason: 'string',
    owner: 'string',
    action: 'string',
    spiffe_id: 'string',
    entry: 'string',
    target: 'string',
    file: 'string',
    line: 'number',
    socket: 'string',
    pid: 'number',
    uid: 'number',
    count: 'number',
    ms: 'number',
    setting: 'string',
    epoch: 'string',
    audit_seq: 'number',
    audit_hash: 'string',
    signature: 'string',
    public_key: 'string',
  } satisfies Record<keyof LogFacts, 'string' | 'number'>),
)

/**
 * A log on `fd`, each line written before the call returns. A line that the descriptor does not take is lost and
 * counted, never waited for: a stuck reader of the log must not stop the agent. pino adds 9 ms to the start.
 */
export function openLog(options: LogOptions): Log {
  const clock = options.clock ?? systemClock
  const lines = new Lines(options.fd)
  const logger = pino(
    {
      level: options.level,
      base: null,
      messageKey: 'message',
      timestamp: () => `,"time":"${new Date(clock.now()).toISOString()}"`,
      formatters: { level: (label) => ({ level: label }) },
    },
    lines,
  )
  const write = (level: LogLevel) => (message: string, facts?: LogFacts) => {
    if (!logger.isLevelEnabled(level)) return
    const lost = lines.takeLost()
    if (lost > 0) logger.warn({ count: lost }, 'log lines were lost: the descriptor did not take them')
    logger[level](allowed(facts), printable(message))
  }
  return {
    get level() {
      return logger.level as LogLevel
    },
    setLevel: (level) => {
      logger.level = level
    },
    debug: write('debug'),
    info: write('info'),
    warn: write('warn'),
    error: write('error'),
  }
}

/** The listed fields of `facts` that have the listed type, without control characters. */
function allowed(facts: LogFacts | undefined): Record<string, string | number> {
  const line: Record<string, string | number> = {}
  for (const [key, value] of Object.entries(facts ?? {})) {
    if (typeof value !== FIELDS.get(key)) continue
    line[key] = typeof value === 'string' ? printable(value) : value
  }
  return line
}

/** Whole lines on a descriptor; what it refuses is counted. */
class Lines {
  readonly #fd: number
  #lost = 0
  #torn = false

  constructor(fd: number) {
    this.#fd = fd
  }

  /** Lines lost since the last call. */
  takeLost(): number {
    const lost = this.#lost
    this.#lost = 0
    return lost
  }

  write(line: string): void {
    const bytes = Buffer.from(this.#torn ? `\n${line}` : line)
    let written = 0
    try {
      while (written < bytes.length) written += writeSync(this.#fd, bytes, written)
      this.#torn = false
    } catch {
      this.#lost++
      this.#torn ||= written > 0
    }
  }
}
