/** Rounds that take turns: each way of doing a thing runs for a short time, again and again, under the same weather. */
import { cpuMicros } from './meter.ts'

/** One round of one way. */
export interface Sample {
  /** Operations in all. */
  readonly count: number
  readonly perSecond: number
  /** Median time of a call, in µs. */
  readonly p50: number
  /** CPU µs an operation: this process, and the watched one. */
  readonly ownCpu: number
  readonly agentCpu: number
}

/** A way of doing `size` operations with one call. */
export interface Way {
  readonly call: () => Promise<unknown> | unknown
  readonly inFlight: number
  /** The process whose CPU is watched instead of that of the options. */
  readonly pid?: number
  /** Operations a call; 1 when absent. */
  readonly size?: number
}

export interface RoundOptions {
  /** The process whose CPU is watched beside this one. */
  readonly pid: number
  readonly rounds: number
  /** ms a round. */
  readonly length: number
}

// A process that has just begun runs bytecode: a call costs several times what it costs once it is compiled.
const WARM_OPERATIONS = 10_000
const WARM_ROUNDS = 8

/** Warms each of `ways` and then runs them in turn, `rounds` times; samples in the order of the rounds. */
export async function takeTurns<K extends string>(
  ways: Readonly<Record<K, Way>>,
  { pid, rounds, length }: RoundOptions,
): Promise<Readonly<Record<K, readonly Sample[]>>> {
  const names = Object.keys(ways) as K[]
  const samples = Object.fromEntries(names.map((name) => [name, [] as Sample[]])) as Record<K, Sample[]>
  for (const name of names) await warm(ways[name], ways[name].pid ?? pid, length)
  for (let round = 0; round < rounds; round++)
    for (const name of names) samples[name].push(await runRound(ways[name], ways[name].pid ?? pid, length))
  return samples
}

async function warm(way: Way, pid: number, length: number): Promise<void> {
  let done = 0
  for (let round = 0; round < WARM_ROUNDS && done < WARM_OPERATIONS; round++)
    done += (await runRound(way, pid, length)).count
}

async function runRound(way: Way, pid: number, length: number): Promise<Sample> {
  const times: number[] = []
  const own = process.cpuUsage()
  const agent = cpuMicros(pid)
  const start = performance.now()
  const end = start + length
  const line = async () => {
    for (let now = performance.now(); now < end; ) {
      await way.call()
      const done = performance.now()
      times.push(done - now)
      now = done
    }
  }
  await Promise.all(Array.from({ length: way.inFlight }, line))
  const seconds = (performance.now() - start) / 1000
  const { user, system } = process.cpuUsage(own)
  const count = times.length * (way.size ?? 1)
  return {
    count,
    perSecond: count / seconds,
    p50: quantile(times, 0.5) * 1000,
    ownCpu: (user + system) / count,
    agentCpu: (cpuMicros(pid) - agent) / count,
  }
}

export function median(values: readonly number[]): number {
  return quantile(values, 0.5)
}

/** The value below which `share` of all lie. */
export function quantile(values: readonly number[], share: number): number {
  const sorted = values.toSorted((a, b) => a - b)
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN
}

/** The median of the quotients round by round, with the medians of both sides. */
export function ratioOf(own: readonly number[], peer: readonly number[]) {
  const value = median(own.map((each, round) => each / (peer[round] ?? Number.NaN)))
  return { value, own: median(own), peer: median(peer) }
}
