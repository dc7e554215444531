/** What a command touches of the outside: its streams, time, the environment. Tests hand in their own. */
import { setTimeout as after } from 'node:timers/promises'
import { type Millis, nowSeconds, type Seconds, systemClock } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import { type Environment, readEnvironment } from '../config.ts'

/** Exit codes, the same for every command. */
export const EXIT = {
  ok: 0,
  /** A check or a test failed. */
  failed: 1,
  /** The command line or a file is wrong. */
  usage: 2,
  unreachable: 3,
  refused: 4,
} as const

export type ExitCode = (typeof EXIT)[keyof typeof EXIT]

export interface Io {
  readonly version: string
  readonly environment: Environment
  /** Whether colours are wanted on standard output. */
  readonly isColored: boolean
  /** Whether standard output is a terminal, where a picture may be drawn anew. */
  readonly isTerminal: boolean
  out(text: string): void
  err(text: string): void
  /** Standard input as text; throws usage when it is over the bound. */
  input(): Promise<string>
  now(): Seconds
  /** Resolves after `ms`, or at once when `interrupted` aborts. */
  sleep(ms: Millis): Promise<void>
  /** Aborts at Ctrl-C and SIGTERM; from the first call on they no longer end the process by themselves. */
  interrupted(): AbortSignal
}

const INPUT_LIMIT = 64 * 1024

/** The process's own streams and clock. */
export function systemIo(version: string): Io {
  const environment = readEnvironment()
  const isTerminal = process.stdout.isTTY === true
  let stop: AbortController | undefined
  const interrupted = () => {
    if (!stop) {
      const controller = new AbortController()
      for (const name of ['SIGINT', 'SIGTERM'] as const) process.once(name, () => controller.abort())
      stop = controller
    }
    return stop.signal
  }
  return {
    version,
    environment,
    isTerminal,
    isColored: isTerminal && !environment.noColor,
    out: writeOut,
    err: (text) => void process.stderr.write(text),
    input: readInput,
    now: () => nowSeconds(systemClock),
    sleep: async (ms) => {
      await after(ms, undefined, stop ? { signal: stop.signal } : {}).catch(() => {})
    },
    interrupted,
  }
}

function writeOut(text: string): void {
  // A reader that has gone (`| head`) has seen enough.
  if (process.stdout.listenerCount('error') === 0) process.stdout.on('error', () => process.exit(EXIT.ok))
  process.stdout.write(text)
}

async function readInput(): Promise<string> {
  const chunks: Buffer[] = []
  let size = 0
  for await (const chunk of process.stdin) {
    size += (chunk as Buffer).length
    if (size > INPUT_LIMIT) throw new Fault('usage', `standard input is over ${INPUT_LIMIT} bytes`)
    chunks.push(chunk as Buffer)
  }
  return Buffer.concat(chunks).toString('utf8')
}
