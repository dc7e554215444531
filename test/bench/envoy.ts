/**
 * Signing for a real Envoy at a steady 1,000 requests a second: how long it waits for the agent, by its own clock, what a
 * request waits for in all, and what the agent pays on a core of its own. A client on grpc-js would take as long for itself as the agent may take
 * with all that an Envoy does.
 */
import { hasEnvoy } from '../support/envoy.ts'
import { startAgent, TARGET_URL } from './agent.ts'
import { startBareGrpc } from './bare-grpc.ts'
import { shareCores } from './cores.ts'
import { PROOF_FIELD, type Signing, startProxy } from './envoy-proxy.ts'
import type { Measured } from './figures.ts'
import type { BenchOptions } from './main.ts'
import { cpuMicros } from './meter.ts'
import { PacedClient } from './paced.ts'
import { median, quantile } from './rounds.ts'

const PER_SECOND = 1_000
const ROUND_MS = 2_000
const WARM_ROUNDS = 6

const FIGURES = ['check', 'trip', 'process'] as const
const { host, pathname } = new URL(TARGET_URL)

interface Round {
  /** Of whole requests, in ms. */
  readonly p50: number
  /** Of the round trips to the agent that sign, by Envoy's clock, in ms. */
  readonly trip: number
  /** The agent's, in µs a request. */
  readonly cpu: number
}

/** The figures of both services. */
export async function measureEnvoy({ quick }: BenchOptions): Promise<readonly Measured[]> {
  if (!hasEnvoy) return FIGURES.flatMap((name) => figuresOf(name, undefined))
  using cores = shareCores()
  const agent = await cores.apart(() => startAgent())
  const bare = await cores.apart(() => startBareGrpc())
  try {
    const ways = {
      none: { signing: 'none', ...agent },
      bare_check: { signing: 'check', ...bare },
      bare_trip: { signing: 'trip', ...bare },
      bare_process: { signing: 'process', ...bare },
      check: { signing: 'check', ...agent },
      trip: { signing: 'trip', ...agent },
      process: { signing: 'process', ...agent },
    } as const
    const rounds = await takeRounds(ways, quick ? 3 : 9)
    return FIGURES.flatMap((name) => figuresOf(name, rounds))
  } finally {
    bare.stop()
    await agent.stop()
  }
}

/** What is not compiled yet would queue up, round for round. */
function rateOf(round: number): number {
  return round < 0 ? PER_SECOND / (-2 * round) : PER_SECOND
}

interface SigningWay {
  readonly signing: Signing
  readonly socket: string
  readonly pid: number
}

async function takeRounds<K extends string>(ways: Readonly<Record<K, SigningWay>>, count: number) {
  const names = Object.keys(ways) as K[]
  await using proxy = await startProxy(ways, { name: 'example', authority: host })
  const rounds = Object.fromEntries(names.map((name) => [name, [] as Round[]])) as Record<K, Round[]>
  for (let round = -WARM_ROUNDS; round < count; round++)
    for (const name of names) {
      const { signing, pid } = ways[name]
      const wanted = signing === 'none' ? '' : `${PROOF_FIELD}: `
      const client = new PacedClient(proxy.ports[name], pathname, wanted)
      const before = cpuMicros(pid)
      const times = await client.run(rateOf(round), ROUND_MS).catch((error: unknown) => {
        throw new Error(`${name}: ${error}\n${proxy.envoy.log().slice(-1_000)}`)
      })
      const cpu = (cpuMicros(pid) - before) / times.length
      client.close()
      const trips = await proxy.times(name, times.length)
      if (round >= 0) rounds[name].push({ p50: quantile(times, 0.5), trip: quantile(trips, 0.5), cpu })
    }
  return rounds
}

type Rounds = Readonly<
  Record<'none' | (typeof FIGURES)[number] | `bare_${(typeof FIGURES)[number]}`, readonly Round[]>
>

/** Times are of Check and of the try with two trips; with one trip a try waits as long for it. */
function figuresOf(name: (typeof FIGURES)[number], rounds: Rounds | undefined): readonly Measured[] {
  const found = (key: 'cpu' | 'trip') => {
    if (!rounds) return { value: undefined, note: 'Envoy needs python3-venv' }
    const middle = (of: readonly Round[]) => median(of.map((round) => round[key]))
    return { value: middle(rounds[name]), floor: middle(rounds[`bare_${name}`]) }
  }
  const cpu = { name: `envoy_${name}_us`, ...found('cpu') } as const
  if (name === 'trip') return [cpu]
  const note = rounds && {
    note: `adds ${addedBy(rounds[name], rounds.none).toFixed(3)} ms to p50 of a request`,
  }
  return [{ name: `envoy_${name}_ms`, ...found('trip'), ...note }, cpu]
}

/** ms to p50 of a request, round for round. */
function addedBy(own: readonly Round[], none: readonly Round[]): number {
  return median(own.map(({ p50 }, at) => p50 - (none[at]?.p50 ?? 0)))
}
