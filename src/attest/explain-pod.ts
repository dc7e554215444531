/** A pod as an operator asks about it: what each of its containers would be known by, and why one would not be. */
import { Fault } from '../base/fault.ts'
import type { Selector } from '../spiffe/selector.ts'
import { type PodRules, podFacts } from './pod-facts.ts'
import type { Pod, PodContainer, PodList } from './pod-list.ts'

export interface ContainerExplained extends Pick<PodContainer, 'name' | 'kind' | 'state'> {
  /** Those of the pod and the container; those of its processes, such as `unix:uid`, are not among them. */
  readonly selectors: readonly Selector[]
  /** Why it is known by none. */
  readonly why: string | undefined
}

export interface PodExplained {
  readonly uid: string
  readonly serviceAccount: string | undefined
  readonly containers: readonly ContainerExplained[]
}

/** The pod of that name in `list`; throws pod_unknown. */
export function explainPod(
  list: PodList,
  { namespace, name }: Pick<Pod, 'namespace' | 'name'>,
  rules: PodRules,
  isAlive: (containerId: string) => boolean,
): PodExplained {
  const pod = [...list.byUid.values()].find((each) => each.namespace === namespace && each.name === name)
  if (!pod)
    throw new Fault('pod_unknown', `the kubelet of this node knows no pod ${namespace}/${name}`, {
      action: 'Ask the agent of the node that the pod runs on: kubectl get pod -o wide.',
    })
  const containers = pod.containers.map((container) => explainContainer(list, pod, container, rules, isAlive))
  return { uid: pod.uid, serviceAccount: pod.serviceAccount, containers }
}

function explainContainer(
  list: PodList,
  { uid }: Pod,
  { id, kind, name, state }: PodContainer,
  rules: PodRules,
  isAlive: (containerId: string) => boolean,
): ContainerExplained {
  const told = { name, kind, state }
  if (id === undefined) return { ...told, selectors: [], why: 'it has not started yet' }
  const answer = podFacts(list, { podUid: uid, containerId: id }, rules, isAlive)
  return 'facts' in answer
    ? { ...told, selectors: answer.facts.selectors, why: undefined }
    : { ...told, selectors: [], why: answer.fault.message }
}
