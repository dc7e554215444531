/**
 * Signing for a real Envoy at a steady 1,000 requests a second: what each of them waits for, and what it costs the agent.
 * A client on grpc-js would take as long for itself as the agent may take with all that an Envoy does.
 */
import { hasEnvoy } from '../support/envoy.ts'
import { startAgent, TARGET_URL } from './agent.ts'
import { startBareGrpc } from './bare-grpc.ts'
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
  readonly p50: number
  readonly cpu: number
}

/** The figures of both services. */
export async function measureEnvoy({ quick }: BenchOptions): Promise<readonly Measured[]> {
  if (!hasEnvoy) return FIGURES.flatMap((name) => figuresOf(name, undefined))
  const agent = await startAgent()
  const bare = await startBareGrpc()
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
      if (round >= 0) rounds[name].push({ p50: quantile(times, 0.5), cpu })
    }
  return rounds
}

type Rounds = Readonly<
  Record<'none' | (typeof FIGURES)[number] | `bare_${(typeof FIGURES)[number]}`, readonly Round[]>
>

function figuresOf(name: (typeof FIGURES)[number], rounds: Rounds | undefined): readonly Measured[] {
  if (!rounds) {
    const none = { value: undefined, note: 'Envoy needs python3-venv' }
    return [
      { name: `envoy_${name}_p50_ms`, ...none },
      { name: `envoy_${name}_us`, ...none },
    ]
  }
  const p50s = (of: readonly Round[]) => of.map(({ p50 }) => p50)
  const added = (of: readonly Round[]) =>
    median(p50s(of).map((each, at) => each - (p50s(rounds.none)[at] ?? 0)))
  const cpu = (of: readonly Round[]) => median(of.map((round) => round.cpu))
  const [own, bare] = [rounds[name], rounds[`bare_${name}`]]
  const beside = { own: median(p50s(own)), peer: median(p50s(rounds.none)), of: 'ms' }
  return [
    { name: `envoy_${name}_p50_ms`, value: added(own), ...beside, floor: added(bare) },
    { name: `envoy_${name}_us`, value: cpu(own), floor: cpu(bare) },
  ]
}
