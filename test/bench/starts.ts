/** From nothing to the first SVID, and what an agent takes that nobody asks anything. */
import { setTimeout as wait } from 'node:timers/promises'
import { spawnAgent } from './agent.ts'
import { visit } from './fetch-x509.ts'
import type { Measured } from './figures.ts'
import type { BenchOptions } from './main.ts'
import { median } from './rounds.ts'

const MANY = 1_000
const LOOK_EVERY = 2
const WITHIN = 20_000
const IDLE = 3_000

/** The start figures. */
export async function measureStarts({ quick }: BenchOptions): Promise<readonly Measured[]> {
  const [one, many, idle]: Start[][] = [[], [], []]
  for (let round = 0; round < (quick ? 3 : 9); round++) {
    one?.push(await start(1))
    many?.push(await start(MANY))
  }
  for (let round = 0; round < (quick ? 1 : 3); round++) idle?.push(await start(1, IDLE))
  const figure = (name: 'start_1_ms' | 'start_1000_ms', starts: readonly Start[] = []): Measured => ({
    name,
    value: median(starts.map(({ ms }) => ms)),
    note: `${Math.round(median(starts.map(({ cpuMs }) => cpuMs)))} ms of CPU`,
  })
  return [
    figure('start_1_ms', one),
    figure('start_1000_ms', many),
    { name: 'idle_rss_mb', value: median((idle ?? []).map(({ mb }) => mb)) },
  ]
}

interface Start {
  /** From spawn to the first SVID. */
  readonly ms: number
  /** The agent's CPU until then. */
  readonly cpuMs: number
  readonly mb: number
}

/** Starts an agent with `entries`, visits it as soon as it can be visited, and looks at its memory after `idle` ms. */
async function start(entries: number, idle = 0): Promise<Start> {
  const agent = spawnAgent({ entries })
  try {
    while (!(await visit(agent.socket))) {
      agent.check()
      if (performance.now() - agent.startedAt > WITHIN) throw new Error('the agent has not started')
      await wait(LOOK_EVERY)
    }
    const ms = performance.now() - agent.startedAt
    const cpuMs = agent.cpu() / 1000
    await wait(idle)
    return { ms, cpuMs, mb: agent.residentMb() }
  } finally {
    await agent.stop()
  }
}
