/** The outside of a command, kept: what it wrote, a clock that sleeping moves, input that was put there. */

import type { Io } from '../../src/cli/io.ts'
import { type Environment, readEnvironment } from '../../src/config.ts'

export interface KeptIo extends Io {
  readonly written: { out: string; err: string }
  /** Ctrl-C. */
  stop(): void
}

export interface KeptIoOptions {
  readonly input?: string
  readonly isTerminal?: boolean
  readonly environment?: Partial<Environment>
  /** Seconds since 1970. */
  readonly now?: number
}

export const NOW = 1_800_000_000

export function keptIo(options: KeptIoOptions = {}): KeptIo {
  const written = { out: '', err: '' }
  const controller = new AbortController()
  let millis = (options.now ?? NOW) * 1000
  return {
    version: '1.2.3',
    environment: {
      ...readEnvironment(),
      endpointSocket: undefined,
      sudoUid: undefined,
      ...options.environment,
    },
    isColored: false,
    isTerminal: options.isTerminal ?? false,
    written,
    out: (text) => {
      written.out += text
    },
    err: (text) => {
      written.err += text
    },
    input: async () => options.input ?? '',
    now: () => Math.floor(millis / 1000),
    sleep: async (ms) => {
      millis += ms
    },
    interrupted: () => controller.signal,
    stop: () => controller.abort(),
  }
}
