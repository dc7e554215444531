/** Whether agents know pods by the Pods API of their kubelets, and whether they can: its socket, and the version that has it. */
import { trustedSocket } from '../attest/pods-api-trouble.ts'
import { Fault } from '../base/fault.ts'
import { itemsOf, type Members, membersOf } from '../base/members.ts'
import { type ClusterApi, textOf } from './check-cluster.ts'
import { type Finding, failure, fine, warning } from './check-finding.ts'

const MOUNT = '/var/lib/kubelet/pods-api'
/** The first that has it, and the first in which it is on. */
const [ALPHA_MINOR, ON_MINOR] = [36, 37]

/** Whether the pods of this DaemonSet mount the directory of that socket. */
export function mountsPodsApi(daemonSet: Members | Fault | undefined): boolean {
  if (daemonSet === undefined || daemonSet instanceof Fault) return false
  const { template } = membersOf(daemonSet['spec'])
  const containers = itemsOf(membersOf(membersOf(template)['spec'])['containers'])
  return containers.some((container) =>
    itemsOf(container['volumeMounts']).some((mount) => textOf(mount['mountPath']) === MOUNT),
  )
}

/** Of a cluster whose agents mount it; the socket itself is seen from a pod of the agent only. */
export function podsApiFinding(version: Members, api: Pick<ClusterApi, 'isSelf'>): Finding {
  const minor = Number.parseInt(textOf(version['minor']), 10)
  if (minor < ALPHA_MINOR)
    return failure('k8s_pods_api', `Kubernetes 1.${minor} has no Pods API`, {
      why: [`the agents mount ${MOUNT}, and would know no pod`],
      action: 'Set kubelet.attestor: kubelet, or update.',
    })
  if (api.isSelf) return socketFinding(`${MOUNT}/pods-api.sock`)
  if (minor >= ON_MINOR) return fine('k8s_pods_api', 'agents know pods by the Pods API, without a right')
  return warning('k8s_pods_api', `in Kubernetes 1.${minor} the Pods API is off by itself`, {
    action: 'Set the feature gate PodsAPI on every kubelet.',
  })
}

/** Of the socket at `path`: it is there, and nobody else can have put it there. */
export function socketFinding(path: string): Finding {
  try {
    trustedSocket(path)
    return fine('k8s_pods_api', `the socket of the Pods API is there, and root's: ${path}`)
  } catch (caught) {
    const { message, action } = Fault.from(caught)
    return failure('k8s_pods_api', message, { why: ['without it no pod is attested'], action })
  }
}
