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
  /** What makes what is known of it less than it seems, in sentences. */
  readonly weaknesses: readonly string[]
}

export interface PodExplained {
  readonly uid: string
  readonly serviceAccount: string | undefined
  /** Of the whole pod. */
  readonly weaknesses: readonly string[]
  /** What else is to know of it, in sentences. */
  readonly notes: readonly string[]
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
  const { serviceAccount } = pod
  return {
    uid: pod.uid,
    serviceAccount,
    weaknesses: weaknessesOf(pod, rules),
    notes: notesOf(pod, rules),
    containers,
  }
}

function weaknessesOf({ isStatic }: Pod, rules: PodRules): readonly string[] {
  if (!isStatic || rules.static === 'narrow') return []
  return [
    'it is a static pod, and static_pods is full: whoever writes manifests on the node names any namespace, account and labels',
  ]
}

function notesOf({ isStatic, isTerminating }: Pod, rules: PodRules): readonly string[] {
  return [
    ...(rules.unlisted === 'awaited'
      ? [
          'until it is listed, what runs in it is taken for its one container that is to be started, if there is one (unlisted_containers: awaited)',
        ]
      : []),
    ...(isStatic && rules.static === 'narrow'
      ? [
          'it is a static pod: its namespace, service account, labels and owners are only claimed and give no selectors',
        ]
      : []),
    ...(isTerminating && rules.terminating === 'serve'
      ? ['it is being deleted, and is who it is until its containers have ended (terminating_pods: serve)']
      : []),
  ]
}

function explainContainer(
  list: PodList,
  { uid }: Pod,
  { id, kind, name, state }: PodContainer,
  rules: PodRules,
  isAlive: (containerId: string) => boolean,
): ContainerExplained {
  const told = { name, kind, state }
  if (id === undefined) return { ...told, selectors: [], why: 'it has not started yet', weaknesses: [] }
  const answer = podFacts(list, { podUid: uid, containerId: id }, rules, isAlive)
  if ('fault' in answer) return { ...told, selectors: [], why: answer.fault.message, weaknesses: [] }
  const weaknesses = [
    ...(kind === 'ephemeral'
      ? [
          'it is an ephemeral container, and ephemeral_containers lets it be who the pod is: so is whoever may debug the pod',
        ]
      : []),
    ...(isAlive(id) ? [] : ['no process of it is left: the list of the kubelet is behind']),
  ]
  return { ...told, selectors: answer.facts.selectors, why: undefined, weaknesses }
}
