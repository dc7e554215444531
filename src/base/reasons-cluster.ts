/** The reasons of a cluster: its servers, and what they say of the pod that a caller is in. */
import type { ReasonFacts } from './reasons.ts'

export const CLUSTER_REASONS = {
  cluster_unavailable: {
    owner: 'platform',
    cause: 'a server of the cluster, the kubelet or the API server, does not answer as it should',
    cure: 'See `holdfast status`: it names the server and what it answered.',
  },
  pod_facts_unavailable: {
    owner: 'platform',
    cause: 'what the kubelet knows of the pod of this caller cannot be read now',
    cure: 'Try again; `holdfast status` says since when the kubelet does not answer, and why.',
  },
  pod_unknown: {
    owner: 'platform',
    cause: 'the kubelet knows no pod of this caller',
    cure: 'A pod that was deleted by force has no identity, even while it still runs; a new one is known within seconds.',
  },
  container_refused: {
    owner: 'identity',
    cause: 'the container of this caller is none that gets an identity',
    cure: 'Call from a running container of the pod; `holdfast explain --pid PID` says what was found instead.',
  },
} as const satisfies Readonly<Record<string, ReasonFacts>>
