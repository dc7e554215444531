/** Whether one uid's silent connections are felt by another: the same calls in calm and during a flood, in turns. */
import { setTimeout as wait } from 'node:timers/promises'
import { startAgent } from './agent.ts'
import type { Measured } from './figures.ts'
import { startFlood } from './flood.ts'
import { openUnary } from './grpc.ts'
import type { BenchOptions } from './main.ts'
import { quantile, ratioOf } from './rounds.ts'

const CONNECTIONS = 1_000
const SETTLE = 500

/** The neighbour figure; both sides ask for a JWT-SVID, one after the other. */
export async function measureNeighbour({ quick }: BenchOptions): Promise<readonly Measured[]> {
  const name = 'neighbour_p99_ratio'
  if (process.getuid?.() !== 0)
    return [{ name, value: undefined, note: 'the flood needs a second uid: run as root' }]
  const agent = await startAgent({ defaultLimits: true })
  const unary = openUnary(agent.socket)
  const call = () => unary.call('SpiffeWorkloadAPI/FetchJWTSVID', { audience: ['neighbour'] })
  const length = quick ? 1_000 : 2_000
  const flood = await startFlood(agent.socket, CONNECTIONS)
  try {
    await timesOf(call, length)
    const [calm, flooded]: number[][] = [[], []]
    for (let round = 0; round < (quick ? 3 : 7); round++) {
      calm?.push(quantile(await timesOf(call, length), 0.99))
      flood.open()
      flooded?.push(quantile(await timesOf(call, length), 0.99))
      flood.close()
      await wait(SETTLE)
    }
    return [{ name, ...ratioOf(flooded ?? [], calm ?? []), of: 'µs' }]
  } finally {
    flood.stop()
    unary.close()
    await agent.stop()
  }
}

/** Times in µs of calls one after the other for `length` ms; throws when one fails. */
async function timesOf(call: () => Promise<unknown>, length: number): Promise<readonly number[]> {
  const times: number[] = []
  const end = performance.now() + length
  for (let now = performance.now(); now < end; ) {
    await call()
    const done = performance.now()
    times.push((done - now) * 1000)
    now = done
  }
  return times
}
