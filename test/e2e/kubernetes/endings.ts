/** How soon everything ends that a pod has of the agent, once the kubelet does not list it any more. */
import type { Json } from '../../support/cluster/api.ts'
import { listedPods } from '../../support/cluster/kubelet.ts'
import { deletePod, startPod } from '../../support/cluster/pods.ts'
import { until } from '../../support/until.ts'
import { CLIENT, callerCommand, callerPod, lastOf, linesOf, type Stage } from './stage.ts'

const IDENTITY = 'http://localhost/v1/identity'
const OPEN = 'http://orders/v1/open'

/** ms from the end of the kubelet's list of a pod to that of what it had; at most, since lists are looked at one after the other. */
export interface Endings {
  /** Its next call is refused. */
  readonly call: number
  /** Its connection to an upstream. */
  readonly egress: number
  /** Its stream of SVIDs. */
  readonly stream: number
}

/** Pods that are deleted by force while their processes go on; `meanwhile` runs when all has ended, and they still go on. */
export async function forcedEndings(
  stage: Stage,
  name: string,
  meanwhile: (asking: Json) => Promise<void> = async () => {},
): Promise<Endings> {
  const { cluster } = stage
  // The first process of a container is not ended by the signal that tells it to; its child does not hear of it.
  const watch = ['/bin/sh', '-c', `${CLIENT} watch >/out/lines; exec sleep 2147483647`]
  const startPatient = (name: string, command: readonly string[]) => {
    const pod = callerPod(name, command)
    return startPod(cluster, { ...pod, spec: { ...pod.spec, terminationGracePeriodSeconds: 30 } })
  }
  const pods = await Promise.all([
    startPatient(`asks${name}`, callerCommand('workload', IDENTITY, 50)),
    startPatient(`holds${name}`, callerCommand('egress', OPEN, 'open')),
    startPatient(`watches${name}`, watch),
  ])
  const [asks, holds, watches] = pods
  const last = (pod: Json) => lastOf(cluster, pod)
  await until('an answer', () => /^200 /.test(last(asks)))
  await until('an open answer', () => last(holds) === '200 open')
  await until('an open stream', () => linesOf(cluster, watches).some((line) => line.includes('"x509"')))
  // A runtime that hangs keeps the processes alive, once they have been told to end; one that hung before would hold up the kubelet.
  try {
    const lists = followLists(stage, pods).finally(() => cluster.containers.hang(true))
    const when = async (what: string, probe: () => boolean) => {
      await until(what, probe)
      return performance.now()
    }
    const ends = Promise.all([
      when('a refusal', () => /^403 .*"pod_unknown"/.test(last(asks))),
      when('the end of an open answer', () => last(holds) === '0 ended'),
      when('the end of an open stream', () =>
        linesOf(cluster, watches).some((line) => line.includes('x509_error')),
      ),
    ])
    await Promise.all(pods.map((pod) => deletePod(cluster, pod, true)))
    const [named, ended] = await Promise.all([lists, ends])
    await meanwhile(asks)
    const [call = 0, egress = 0, stream = 0] = ended.map((time, at) => time - (named[at] ?? 0))
    return { call, egress, stream }
  } finally {
    cluster.containers.hang(false)
  }
}

/** When the kubelet was last asked for a list that still named each of `pods`; resolves when none is named any more. */
async function followLists({ cluster }: Stage, pods: readonly Json[]): Promise<readonly number[]> {
  const named = pods.map(() => 0)
  const open = new Set(pods.keys())
  await until('lists without the pods', async () => {
    const asked = performance.now()
    const uids = new Set((await listedPods(cluster.node)).map(({ metadata }) => metadata.uid))
    for (const at of open) {
      if (uids.has(pods[at].metadata.uid)) named[at] = asked
      else open.delete(at)
    }
    return open.size === 0
  })
  return named
}
