/** Pods of a real kubelet: how soon a new one has its identity, what an upgrade or an outage costs them, how soon one is over. */

import { forcedEndings } from '../e2e/kubernetes/endings.ts'
import { type Outage, outageOf } from '../e2e/kubernetes/outage-run.ts'
import { openPodsApiStage } from '../e2e/kubernetes/pods-api-stage.ts'
import {
  CLIENT,
  callerCommand,
  lastOf,
  linesOf,
  missing,
  openStage,
  type Stage,
  startAgent,
  startCaller,
} from '../e2e/kubernetes/stage.ts'
import { SYSTEM } from '../support/cluster/agent-pod.ts'
import type { Json } from '../support/cluster/api.ts'
import { deletePod, podOf, untilGone } from '../support/cluster/pods.ts'
import { until } from '../support/until.ts'
import type { Measured } from './figures.ts'
import type { BenchOptions } from './main.ts'

const AT_ONCE = 20
const CALLERS = 10
const IDENTITY = 'http://localhost/v1/identity'
/** A client that follows the Workload API, and when it began and had its first SVID, in
 * seconds since boot; it ends with its input. Nothing polls: twenty shells that look every 2 ms take both cores away.
 */
const FIRST = `read began rest </proc/uptime
mkfifo /tmp/lines
sleep 2147483647 | ${CLIENT} watch >/tmp/lines &
while read -r line; do case $line in *'"x509":'*) break;; esac; done </tmp/lines
read ended rest </proc/uptime
echo "$began $ended" >/out/lines
exec sleep 2147483647`

const NAMES = ['pods_first_svid_p95_ms', 'pods_forced_end_ms', 'pods_upgrade_refused'] as const
const HTTPS_NAMES = ['pods_https_first_svid_p95_ms', 'pods_recovery_ms', 'pods_outage_lost'] as const

/** The figures of an agent as the chart has it: by the Pods API, where a kubelet has it. Skipped where no cluster can run. */
export async function measurePods({ quick }: BenchOptions): Promise<readonly Measured[]> {
  if (missing) return NAMES.map((name) => ({ name, value: undefined, note: `needs ${missing}` }))
  await using stage = await openPodsApiStage('{ attestor: auto }')
  await startAgent(stage, 'agent-1')
  const times = await allFirstTimes(stage, quick)
  const ends: number[] = []
  for (const round of roundsOf(quick)) ends.push(...Object.values(await forcedEndings(stage, round)))
  const calls = await upgrade(stage)
  const refused = calls.filter(isBad)
  return [
    firstFigure('pods_first_svid_p95_ms', times),
    {
      name: 'pods_forced_end_ms',
      value: Math.max(...ends),
      note: `p50 ${Math.round(quantile(ends, 0.5))} ms`,
    },
    {
      name: 'pods_upgrade_refused',
      value: refused.length,
      note: [`${calls.length} calls`, ...new Set(refused.map((line) => line.slice(0, 200)))]
        .slice(0, 3)
        .join('; '),
    },
  ]
}

/** Of one that asks the kubelet over HTTPS: what starts in an outage of the API server is unknown to it meanwhile. */
export async function measurePodsByHttps({ quick }: BenchOptions): Promise<readonly Measured[]> {
  if (missing) return HTTPS_NAMES.map((name) => ({ name, value: undefined, note: `needs ${missing}` }))
  await using stage = await openStage()
  await startAgent(stage, 'agent-1')
  const times = await allFirstTimes(stage, quick)
  const outages: Outage[] = []
  for (const round of roundsOf(quick)) outages.push(await outageOf(stage, round))
  const lines = outages.flatMap(({ known }) => known)
  return [
    firstFigure('pods_https_first_svid_p95_ms', times),
    {
      name: 'pods_recovery_ms',
      value: Math.max(...outages.map(({ recovery }) => recovery)),
      note: wholes(outages),
    },
    { name: 'pods_outage_lost', value: lines.filter(isBad).length, note: `${lines.length} requests` },
  ]
}

const roundsOf = (quick: boolean) => Array.from({ length: quick ? 1 : 3 }, (_none, at) => `-${at}`)

/** The first of them for an agent that does not wait for the list that names a container. */
export async function measureAwaited({ quick }: BenchOptions): Promise<readonly Measured[]> {
  const name = 'pods_awaited_first_svid_p95_ms'
  if (missing) return [{ name, value: undefined, note: `needs ${missing}` }]
  await using stage = await openStage('{ attestor: kubelet, unlisted_containers: awaited }')
  await startAgent(stage, 'agent-1')
  return [firstFigure(name, await allFirstTimes(stage, quick))]
}

const firstFigure = (name: Measured['name'], times: readonly number[]): Measured => ({
  name,
  value: quantile(times, 0.95),
  note: `p50 ${quantile(times, 0.5)} ms`,
})

const wholes = (outages: readonly Outage[]) =>
  `${outages.map(({ whole }) => (whole / 1_000).toFixed(1)).join(', ')} s from the API server being ready`
const isBad = (line: string) => !line.startsWith('200')

async function allFirstTimes(stage: Stage, quick: boolean): Promise<readonly number[]> {
  const times: number[] = []
  for (let round = 0; round < (quick ? 1 : 3); round++) times.push(...(await firstTimes(stage, round)))
  return times
}

async function firstTimes(stage: Stage, round: number): Promise<readonly number[]> {
  const names = Array.from({ length: AT_ONCE }, (_none, index) => `first-${round}-${index}`)
  const pods = await Promise.all(names.map((name) => startCaller(stage, name, ['/bin/sh', '-c', FIRST])))
  await until('all SVIDs', () => pods.every((pod) => lastOf(stage.cluster, pod) !== ''), 60_000)
  const times = pods.map((pod) => {
    const [began, ended] = lastOf(stage.cluster, pod).split(' ').map(Number)
    return Math.round(((ended ?? 0) - (began ?? 0)) * 1000)
  })
  await endAll(stage, pods)
  return times
}

async function endAll({ cluster }: Stage, pods: readonly Json[]): Promise<void> {
  await Promise.all(pods.map((pod) => deletePod(cluster, pod, true)))
  const isUsed = (pod: Json) => cluster.containers.ctr('containers', 'list').includes(pod.metadata.name)
  await until('the containers to end', () => !pods.some(isUsed), 60_000)
}

/** Every call of callers that go on while the agent is replaced. */
async function upgrade(stage: Stage): Promise<readonly string[]> {
  const { cluster } = stage
  const names = Array.from({ length: CALLERS }, (_none, index) => `upgrade-${index}`)
  const command = callerCommand('workload', IDENTITY, 20)
  const pods = await Promise.all(names.map((name) => startCaller(stage, name, command)))
  await until('callers that are served', () => pods.every((pod) => lastOf(cluster, pod).startsWith('200')))
  await startAgent(stage, 'agent-2')
  const old = podOf(SYSTEM, 'agent-1')
  await deletePod(cluster, old)
  await untilGone(cluster, old)
  const counts = pods.map((pod) => linesOf(cluster, pod).length)
  const isOver = () => pods.every((pod, index) => linesOf(cluster, pod).length > (counts[index] ?? 0) + 50)
  await until('calls after it', isOver, 60_000)
  return pods.flatMap((pod) => linesOf(cluster, pod))
}

function quantile(values: readonly number[], part: number): number {
  const sorted = [...values].sort((one, other) => one - other)
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))] ?? 0
}
