/** A million proofs in the memory of a process of its own: what they take, and how fast they come in. */
import { fork } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import type { Measured } from './figures.ts'
import type { BenchOptions } from './main.ts'
import { median } from './rounds.ts'

/** What the process says at its end. */
export interface Filled {
  /** Growth of its resident memory. */
  readonly mb: number
  /** Inserts a second of its CPU. */
  readonly perSecond: number
}

export async function measureReplays({ quick }: BenchOptions): Promise<readonly Measured[]> {
  const filled: Filled[] = []
  for (let round = 0; round < (quick ? 1 : 5); round++) filled.push(await fill())
  return [
    { name: 'replay_memory_mb', value: median(filled.map(({ mb }) => mb)) },
    { name: 'replay_inserts_per_s', value: median(filled.map(({ perSecond }) => perSecond)) },
  ]
}

async function fill(): Promise<Filled> {
  const child = fork(fileURLToPath(new URL('replay-filler.js', import.meta.url)))
  const [filled] = (await once(child, 'message')) as [Filled]
  await once(child, 'exit')
  return filled
}
