/** `GET /pods` of a kubelet over HTTPS: a list of pods in JSON. */
import { Fault } from '../base/fault.ts'
import type { ClusterHttps } from '../cluster/https.ts'
import { parsePods } from './pod-list.ts'
import { type PodLists, parseChanged } from './pod-source.ts'

export interface KubeletOptions {
  readonly https: Pick<ClusterHttps, 'ask' | 'refusal' | 'close'>
  readonly maxBytes: number
}

/** Asks one kubelet. */
export function kubeletLists({ https, maxBytes }: KubeletOptions): PodLists {
  const parse = parseChanged((bytes) => parsePods(parseJson(bytes)))
  return {
    ask: async (signal) => {
      const { status, bytes } = await https.ask('/pods', { signal, maxBytes })
      if (status !== 200) throw https.refusal(status)
      return parse(bytes)
    },
    close: () => https.close(),
  }
}

function parseJson(bytes: Buffer): unknown {
  try {
    return JSON.parse(bytes.toString('utf8'))
  } catch {
    throw new Fault('pod_facts_unavailable', 'the kubelet answers with something that is not JSON')
  }
}
