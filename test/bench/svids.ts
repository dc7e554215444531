/** X.509-SVIDs: one caller after the other, a burst of callers who stay, and a change that reaches them all. */
import { setTimeout as wait } from 'node:timers/promises'
import { type BenchAgent, startAgent } from './agent.ts'
import { gather } from './crowd.ts'
import { visit } from './fetch-x509.ts'
import type { Measured } from './figures.ts'
import type { BenchOptions } from './main.ts'
import { median } from './rounds.ts'

const CROWD = 2_000
const SERIAL_BLOCK = 200
// Until the way of a connection is compiled, it costs more than twice as much.
const WARM_VISITS = 1_500
const SETTLE = 1_000

/** The X.509 figures. */
export async function measureSvids({ quick }: BenchOptions): Promise<readonly Measured[]> {
  const agent = await startAgent()
  try {
    const serial = await serialCosts(agent, quick ? 3 : 8)
    const bursts: Burst[] = []
    for (let round = 0; round < (quick ? 1 : 3); round++) bursts.push(await burst(agent, quick ? 3 : 5))
    return [
      { name: 'x509_serial_us', value: median(serial) },
      { name: 'x509_burst_us', value: median(bursts.map(({ cost }) => cost)) },
      { name: 'x509_burst_rss_mb', value: Math.max(...bursts.map(({ mb }) => mb)) },
      { name: 'fanout_ms', value: median(bursts.flatMap(({ fanouts }) => fanouts)) },
    ]
  } finally {
    await agent.stop()
  }
}

/** CPU µs a visit, block by block. */
async function serialCosts(agent: BenchAgent, blocks: number): Promise<readonly number[]> {
  await visitTimes(agent, WARM_VISITS)
  const costs: number[] = []
  for (let block = 0; block < blocks; block++) {
    const before = agent.cpu()
    await visitTimes(agent, SERIAL_BLOCK)
    costs.push((agent.cpu() - before) / SERIAL_BLOCK)
  }
  return costs
}

async function visitTimes(agent: BenchAgent, count: number): Promise<void> {
  for (let visits = 0; visits < count; visits++)
    if (!(await visit(agent.socket))) throw new Error('a visitor got no SVID')
}

interface Burst {
  /** CPU µs a connection: coming, first SVID and leaving. */
  readonly cost: number
  readonly mb: number
  /** ms. */
  readonly fanouts: readonly number[]
}

async function burst(agent: BenchAgent, changes: number): Promise<Burst> {
  const before = agent.cpu()
  const crowd = gather(agent.socket, CROWD)
  await crowd.arrived(1)
  const coming = agent.cpu() - before
  const mb = agent.residentMb()
  const fanouts: number[] = []
  for (let change = 0; change < changes; change++) {
    await wait(SETTLE)
    const start = performance.now()
    agent.changeHint(`change-${change}`)
    fanouts.push((await crowd.arrived(1)) - start)
  }
  const last = agent.cpu()
  await crowd.leave()
  await wait(SETTLE)
  return { cost: (coming + agent.cpu() - last) / CROWD, mb, fanouts }
}
