/** Which identities the containers of a pod have by the policy in force, for an operator. */
import type { Attestation } from '../attest/identify.ts'
import { Fault } from '../base/fault.ts'
import type { Live } from '../base/live.ts'
import type { RuleBook } from '../policy/book.ts'
import { type Weakened, weaknessesOf } from '../policy/explain.ts'
import { placeText } from '../policy/statements.ts'
import type { JsonAnswer } from '../serve/http.ts'
import type { AgentStatus } from './status.ts'

export interface ExplainPodOptions {
  readonly attestation: Pick<Attestation, 'explainPod'>
  readonly book: Live<RuleBook>
  readonly status: () => Pick<AgentStatus, 'degraded'>
}

/** As `holdfast explain pod` shows it. */
export interface PodExplanation {
  readonly namespace: string
  readonly name: string
  readonly uid: string
  readonly service_account?: string
  readonly policy: string
  /** What weakens all that is known of it: how the kubelet is asked, and where the pod comes from. */
  readonly weaknesses: readonly string[]
  readonly notes: readonly string[]
  readonly containers: readonly {
    readonly name: string
    readonly kind: string
    readonly state: string
    readonly why?: string
    readonly weaknesses: readonly string[]
    readonly selectors: readonly string[]
    readonly identities: readonly (Weakened & {
      readonly spiffe_id: string
      readonly entry: string
      readonly place: string
      readonly instance: string
      readonly delivers: readonly string[]
    })[]
  }[]
}

// A DNS label, and a DNS subdomain.
const NAMESPACE = /^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/
const NAME = /^[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?$/

/** Throws invalid_request, pod_unknown, pod_facts_unavailable, not_found. */
export async function explainPod(
  { attestation, book, status }: ExplainPodOptions,
  { namespace, name }: Readonly<Record<string, unknown>>,
): Promise<JsonAnswer & PodExplanation> {
  if (typeof namespace !== 'string' || !NAMESPACE.test(namespace))
    throw new Fault('invalid_request', 'namespace is missing or none')
  if (typeof name !== 'string' || !NAME.test(name))
    throw new Fault('invalid_request', 'name is missing or no name of a pod')
  const pod = await attestation.explainPod(namespace, name)
  const { containers, serviceAccount, uid, notes } = pod
  const now = book.get()
  return {
    namespace,
    name,
    uid,
    ...(serviceAccount === undefined ? {} : { service_account: serviceAccount }),
    policy: now.hash,
    weaknesses: [...sourceWeaknesses(status()), ...pod.weaknesses],
    notes,
    containers: containers.map(({ selectors, why, ...told }) => ({
      ...told,
      ...(why === undefined ? {} : { why }),
      selectors,
      identities: now.entriesFor(new Set(selectors)).map((entry) => ({
        spiffe_id: entry.spiffeId,
        entry: entry.name,
        place: placeText(entry.place),
        instance: entry.instance,
        delivers: (['x509', 'jwt', 'wit'] as const).filter((kind) => entry.deliver[kind]),
        ...weaknessesOf(now, entry),
      })),
    })),
  }
}

/** How the kubelet is asked. */
const SOURCE = /^kubelet_/

function sourceWeaknesses({ degraded }: Pick<AgentStatus, 'degraded'>): readonly string[] {
  return degraded.filter(({ code }) => SOURCE.test(code)).map(({ message }) => message)
}
