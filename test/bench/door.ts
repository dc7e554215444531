/** Requests through the egress door beside the same requests by npm dpop and fetch, from one process, in turns. */
import { fork } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { Measured } from './figures.ts'
import type { BenchOptions } from './main.ts'
import { median, ratioOf, type Sample } from './rounds.ts'
import { startBench } from './upstreams.ts'

/** What the caller is told. */
export interface CallerOptions {
  readonly egress: string
  readonly port: number
  readonly pid: number
  readonly quick: boolean
}

type Side = Readonly<Record<'egress' | 'direct', readonly Sample[]>>

/** What it has found: one request at a time, and 16. */
export interface CallerFound {
  readonly serial: Side
  readonly busy: Side
}

export async function measureDoor({ quick }: BenchOptions): Promise<readonly Measured[]> {
  const bench = await startBench()
  const dir = mkdtempSync(join(tmpdir(), 'holdfast-door-'))
  try {
    const { agent, port, ca } = bench
    writeFileSync(join(dir, 'ca.pem'), ca)
    const options: CallerOptions = { egress: agent.egress, port, pid: agent.pid, quick }
    const { serial, busy } = await call(options, join(dir, 'ca.pem'))
    return [added(serial), throughput(busy)]
  } finally {
    rmSync(dir, { recursive: true })
    await bench.stop()
  }
}

/** Node's fetch takes further roots from the environment only, when its process starts. */
async function call(options: CallerOptions, ca: string): Promise<CallerFound> {
  const script = fileURLToPath(new URL('door-caller.js', import.meta.url))
  const child = fork(script, [JSON.stringify(options)], { env: { NODE_EXTRA_CA_CERTS: ca } })
  const ended = once(child, 'exit').then(() => {
    throw new Error('the caller has ended')
  })
  const [found] = (await Promise.race([once(child, 'message'), ended])) as [CallerFound]
  child.kill()
  await ended.catch(() => {})
  return found
}

function added({ egress, direct }: Side): Measured {
  const ms = (samples: readonly Sample[]) => samples.map(({ p50 }) => p50 / 1000)
  const [own, peer] = [ms(egress), ms(direct)]
  const value = median(own.map((each, round) => each - (peer[round] ?? Number.NaN)))
  return { name: 'egress_added_p50_ms', value, own: median(own), peer: median(peer), of: 'ms' }
}

function throughput({ egress, direct }: Side): Measured {
  const rates = (samples: readonly Sample[]) => samples.map(({ perSecond }) => perSecond)
  const cpu = Math.round(median(egress.map(({ agentCpu }) => agentCpu)))
  const note = `${cpu} µs of the agent's CPU a request`
  return {
    name: 'egress_throughput_ratio',
    ...ratioOf(rates(egress), rates(direct)),
    of: 'requests/s',
    note,
  }
}
