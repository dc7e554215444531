/** The agent's log: pino lines on a descriptor, built from an allow-list of fields (threats row 12). */

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
