/** `holdfast check --kubernetes`: a cluster before and after an install, as its API server shows it. */
import { Fault } from '../base/fault.ts'
import { itemsOf, type Members, membersOf } from '../base/members.ts'
import { type ClusterApi, type ClusterWhere, metadataOf, openCluster, textOf } from './check-cluster.ts'
import { type Finding, failure, fine, type Group, skipped, warning } from './check-finding.ts'
import { podsApiFinding, podsApiUse } from './check-pods-api.ts'
import { rightsFindings } from './check-rights.ts'
import type { Io } from './io.ts'
import { counted } from './render.ts'

export interface KubernetesOptions extends ClusterWhere {
  /** Before an install: no agent is looked for. */
  readonly pre?: boolean
}

/** nodes/pods as a right of its own, and on by default (KEP-2862). */
const OLDEST_MINOR = 33
const NAMED = 20

/** The group; throws usage when the server cannot be one. */
export async function kubernetesGroup(options: KubernetesOptions, io: Io): Promise<Group> {
  const api = openCluster(options, io)
  try {
    const version = await api.get('/version')
    if (version instanceof Fault || version === undefined)
      return { name: 'kubernetes', findings: [unreachable(version)] }
    const use = options.pre ? 'no' : podsApiUse(await api.get(daemonSetPath(api)))
    const findings = [
      versionFinding(version),
      await namespaceFinding(api),
      ...(use === 'no' ? [] : [await podsApiFinding(use, version, api)]),
      ...(await rightsFindings(api, use === 'only')),
      await admissionFinding(api),
      ...(options.pre ? [] : [await agentsFinding(api)]),
      await egressFinding(api),
    ]
    return { name: 'kubernetes', findings }
  } finally {
    api.close()
  }
}

function unreachable(fault: Fault | undefined): Finding {
  return failure('k8s_server', fault?.message ?? 'this is no API server', {
    action: 'Run `kubectl proxy` in another terminal, or this command in a pod of the agent.',
  })
}

function versionFinding(version: Members): Finding {
  const minor = Number.parseInt(textOf(version['minor']), 10)
  const name = textOf(version['gitVersion'])
  if (minor >= OLDEST_MINOR) return fine('k8s_version', `Kubernetes ${name}`)
  return failure('k8s_version', `Kubernetes ${name}: 1.${OLDEST_MINOR} is the oldest that is supported`, {
    why: ['before it, asking the kubelet for pods takes nodes/proxy, which runs commands in every pod'],
    action: 'Update, or accept that risk by kubernetes.kubelet.legacy_access: nodes_proxy.',
  })
}

/** hostPID and hostPath are what Pod Security keeps everybody else from. */
async function namespaceFinding(api: ClusterApi): Promise<Finding> {
  const object = await api.get(`/api/v1/namespaces/${api.namespace}`)
  if (object instanceof Fault)
    return skipped('k8s_namespace', `the namespace ${api.namespace}: ${object.message}`)
  const create = `kubectl create namespace ${api.namespace}`
  if (!object)
    return warning('k8s_namespace', `there is no namespace ${api.namespace} yet`, { action: create })
  const level = textOf(metadataOf(object).labels['pod-security.kubernetes.io/enforce'])
  if (level === '' || level === 'privileged')
    return fine('k8s_namespace', `the namespace ${api.namespace} admits hostPID and hostPath`)
  return failure('k8s_namespace', `the namespace ${api.namespace} enforces Pod Security ${level}`, {
    why: ['the agent sees who calls by hostPID, and its sockets lie in a hostPath'],
    action: `kubectl label --overwrite namespace ${api.namespace} pod-security.kubernetes.io/enforce=privileged`,
  })
}

const ADMISSION = '/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings'

/** Without the policy, a pod with a writable mount could put a socket of its own in the place of the agent's. */
async function admissionFinding(api: ClusterApi): Promise<Finding> {
  const list = await api.get(ADMISSION)
  if (list instanceof Fault) return skipped('k8s_admission', `admission policies: ${list.message}`)
  const denying = itemsOf(list?.['items']).filter((binding) => {
    const { policyName, validationActions } = membersOf(binding['spec'])
    return (
      textOf(policyName).startsWith('holdfast') &&
      Array.isArray(validationActions) &&
      validationActions.includes('Deny')
    )
  })
  if (denying.length > 0)
    return fine(
      'k8s_admission',
      `${counted(denying.length, 'admission policy', 'admission policies')} of Holdfast in force`,
    )
  return warning(
    'k8s_admission',
    'no admission policy keeps pods from mounting the directories of the agent',
    {
      why: [
        'a pod that may write the public directory can pose as the agent; one that mounts the private one is its operator',
      ],
      action: 'Install the ValidatingAdmissionPolicy of deploy/.',
    },
  )
}

const DAEMON_SET = 'holdfast-agent'
const daemonSetPath = ({ namespace }: ClusterApi) =>
  `/apis/apps/v1/namespaces/${namespace}/daemonsets/${DAEMON_SET}`

async function agentsFinding(api: ClusterApi): Promise<Finding> {
  const name = DAEMON_SET
  const set = await api.get(daemonSetPath(api))
  if (set instanceof Fault) return skipped('k8s_agents', `the DaemonSet ${name}: ${set.message}`)
  if (!set)
    return failure('k8s_agents', `there is no DaemonSet ${name} in ${api.namespace}`, {
      action: 'Install deploy/, or name its namespace with --namespace.',
    })
  const spec = membersOf(membersOf(membersOf(set['spec'])['template'])['spec'])
  if (spec['hostPID'] !== true)
    return failure('k8s_agents', `the DaemonSet ${name} is without hostPID`, {
      why: ['every caller in another pod then has pid 0, and none is attested'],
      action: 'Set hostPID: true.',
    })
  const { desiredNumberScheduled: wanted, numberReady: ready } = membersOf(set['status'])
  if (typeof wanted !== 'number' || wanted === 0 || wanted !== ready)
    return failure('k8s_agents', `${String(ready ?? 0)} of ${String(wanted ?? 0)} agents are ready`, {
      action: `kubectl -n ${api.namespace} get pods -o wide; kubectl -n ${api.namespace} logs daemonset/${name}`,
    })
  return rolloutFinding(set, wanted, api.namespace)
}

/** The agent of before serves on while a new one does not get ready: all are ready then, and not all are what was installed. */
function rolloutFinding(set: Members, wanted: number, namespace: string): Finding {
  const { generation } = membersOf(set['metadata'])
  const { observedGeneration, updatedNumberScheduled: updated, numberAvailable } = membersOf(set['status'])
  const isSeen = generation === observedGeneration
  if (isSeen && updated === wanted && numberAvailable === wanted)
    return fine('k8s_agents', `${counted(wanted, 'agent')} on as many nodes, all ready`)
  const current = isSeen && typeof updated === 'number' ? updated : 0
  return warning(
    'k8s_agents',
    `${current} of ${counted(wanted, 'node')} have the agent that was installed last`,
    {
      why: ['a rollout is under way, or a new agent does not get ready: the one before it serves meanwhile'],
      action: `kubectl -n ${namespace} rollout status daemonset/${DAEMON_SET}; kubectl -n ${namespace} get pods`,
    },
  )
}

/** The agent sends from its own pod: what a NetworkPolicy forbids a workload, it would do for it. */
async function egressFinding(api: ClusterApi): Promise<Finding> {
  const list = await api.get('/apis/networking.k8s.io/v1/networkpolicies')
  if (list instanceof Fault) return skipped('k8s_egress', `network policies: ${list.message}`)
  const bound = itemsOf(list?.['items']).filter((policy) => {
    const { policyTypes, egress } = membersOf(policy['spec'])
    const isEgress = Array.isArray(policyTypes) ? policyTypes.includes('Egress') : egress !== undefined
    return isEgress && metadataOf(policy).namespace !== api.namespace
  })
  const namespaces = [...new Set(bound.map((policy) => metadataOf(policy).namespace))].sort()
  if (namespaces.length === 0)
    return fine('k8s_egress', 'no namespace has egress policies that egress would pass by')
  return warning('k8s_egress', `${counted(namespaces.length, 'namespace')} with egress policies`, {
    why: [
      `requests through the agent leave from its own pod and pass these by: ${listed(namespaces)}`,
      'what they may reach is then what grants and the egress.allow of the agent say',
    ],
    action:
      'Give such workloads targets with `via: sidecar`, which connect from the network of the pod itself.',
  })
}

function listed(names: readonly string[]): string {
  const rest = names.length - NAMED
  return `${names.slice(0, NAMED).join(', ')}${rest > 0 ? ` and ${rest} more` : ''}`
}
