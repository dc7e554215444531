/** X.509-SVIDs: one caller after the other, a burst of callers who stay, and a change that reaches them all. */
import { setTimeout as wait } from 'node:timers/promises'
import { startAgent } from './agent.ts'
import { startBareGrpc } from './bare-grpc.ts'
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

/** What is measured: the agent, or the floor beside it. */
interface Server {
  readonly socket: string
  cpu(): number
}

/** The X.509 figures. */
export async function measureSvids({ quick }: BenchOptions): Promise<readonly Measured[]> {
  const agent = await startAgent()
  const bare = await startBareGrpc()
  try {
    const [serial, bareSerial] = await serialCosts([agent, bare], quick ? 3 : 8)
    const bursts: Burst[] = []
    const floors: number[] = []
    for (let round = 0; round < (quick ? 1 : 3); round++) {
      bursts.push(await burst(agent, () => agent.residentMb(), quick ? 3 : 5, agent.changeHint))
      floors.push((await burst(bare, () => 0, 0)).cost)
    }
    // Later bursts find the heap as large as V8 has left it, with bare grpc-js too.
    const [first] = bursts
    return [
      { name: 'x509_serial_us', value: median(serial ?? []), floor: median(bareSerial ?? []) },
      { name: 'x509_burst_us', value: median(bursts.map(({ cost }) => cost)), floor: median(floors) },
      { name: 'x509_burst_rss_mb', value: first?.mb },
      { name: 'fanout_ms', value: median(bursts.flatMap(({ fanouts }) => fanouts)) },
    ]
  } finally {
    bare.stop()
    await agent.stop()
  }
}

/** CPU µs a visit of each server, in blocks that take turns. */
async function serialCosts(
  servers: readonly Server[],
  blocks: number,
): Promise<readonly (readonly number[])[]> {
  for (const { socket } of servers) await visitTimes(socket, WARM_VISITS)
  const costs = servers.map((): number[] => [])
  for (let block = 0; block < blocks; block++)
    for (const [index, server] of servers.entries()) {
      const before = server.cpu()
      await visitTimes(server.socket, SERIAL_BLOCK)
      costs[index]?.push((server.cpu() - before) / SERIAL_BLOCK)
    }
  return costs
}

async function visitTimes(socket: string, count: number): Promise<void> {
  for (let visits = 0; visits < count; visits++)
    if (!(await visit(socket))) throw new Error('a visitor got no SVID')
}

interface Burst {
  /** CPU µs a connection: coming, first SVID and leaving. */
  readonly cost: number
  readonly mb: number
  /** ms. */
  readonly fanouts: readonly number[]
}

async function burst(
  server: Server,
  residentMb: () => number,
  changes: number,
  change: (hint: string) => void = () => {},
): Promise<Burst> {
  const before = server.cpu()
  const crowd = gather(server.socket, CROWD)
  await crowd.arrived(1)
  const coming = server.cpu() - before
  const mb = residentMb()
  const fanouts: number[] = []
  for (let made = 0; made < changes; made++) {
    await wait(SETTLE)
    const start = performance.now()
    change(`change-${made}`)
    fanouts.push((await crowd.arrived(1)) - start)
  }
  const last = server.cpu()
  await crowd.leave()
  await wait(SETTLE)
  return { cost: (coming + server.cpu() - last) / CROWD, mb, fanouts }
}
