/** Whether agents know pods by the Pods API of their kubelets, and whether they can: its socket, and the version that has it. */
import { whyNotPodsApi } from '../attest/either-lists.ts'
import { trustedSocket } from '../attest/pods-api-trouble.ts'
import { systemClock } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import { itemsOf, type Members, membersOf } from '../base/members.ts'
import { openPodsApi } from '../pods-api.ts'
import type { Config } from '../settings.ts'
import { type ClusterApi, textOf } from './check-cluster.ts'
import { type Finding, failure, fine, warning } from './check-finding.ts'

const MOUNT = '/var/lib/kubelet/pods-api'
/** As the chart has it. */
const SETTINGS = { socket: `${MOUNT}/pods-api.sock`, timeout: 5, maxMib: 16 }
/** The first that has it, and the first in which it is on. */
const [ALPHA_MINOR, ON_MINOR] = [36, 37]

/** How the agents of a cluster have it: not at all, where a kubelet has it (`attestor: auto`), or it alone. */
export type PodsApiUse = 'no' | 'auto' | 'only'

/** Of the pods of this DaemonSet: whether they mount the directory of that socket, and whether they start without it. */
export function podsApiUse(daemonSet: Members | Fault | undefined): PodsApiUse {
  if (daemonSet === undefined || daemonSet instanceof Fault) return 'no'
  const spec = membersOf(membersOf(membersOf(daemonSet['spec'])['template'])['spec'])
  const mounts = itemsOf(spec['containers']).flatMap((container) => itemsOf(container['volumeMounts']))
  const mount = mounts.find((each) => textOf(each['mountPath']) === MOUNT)
  if (!mount) return 'no'
  const volume = itemsOf(spec['volumes']).find((each) => textOf(each['name']) === textOf(mount['name']))
  return membersOf(volume?.['hostPath'])['type'] === 'DirectoryOrCreate' ? 'auto' : 'only'
}

/** Of a cluster whose agents mount it; the socket itself is seen from a pod of the agent only. */
export async function podsApiFinding(
  use: PodsApiUse,
  version: Members,
  api: Pick<ClusterApi, 'isSelf'>,
): Promise<Finding> {
  const minor = Number.parseInt(textOf(version['minor']), 10)
  if (use === 'auto')
    return api.isSelf
      ? choiceFinding(SETTINGS)
      : fine(
          'k8s_pods_api',
          `agents know pods by the Pods API where it is on, as in Kubernetes 1.${ON_MINOR}`,
        )
  if (minor < ALPHA_MINOR)
    return failure('k8s_pods_api', `Kubernetes 1.${minor} has no Pods API`, {
      why: [`the agents mount ${MOUNT}, and would know no pod`],
      action: 'Set kubelet.attestor: auto, or update.',
    })
  if (api.isSelf) return socketFinding(SETTINGS.socket)
  if (minor >= ON_MINOR) return fine('k8s_pods_api', 'agents know pods by the Pods API, without a right')
  return warning('k8s_pods_api', `in Kubernetes 1.${minor} the Pods API is off by itself`, {
    action: 'Set the feature gate PodsAPI on every kubelet.',
  })
}

/** Which way an agent here would take with `attestor: auto`. */
export async function choiceFinding(settings: Config['kubernetes']['podsApi']): Promise<Finding> {
  const api = openPodsApi(settings, systemClock)
  const why = await whyNotPodsApi(api, AbortSignal.timeout(settings.timeout * 1000))
  api.close()
  if (why === undefined)
    return fine('k8s_pods_api', `pods are known by the Pods API of the kubelet: ${settings.socket}`)
  return fine('k8s_pods_api', `pods are known by the kubelet over HTTPS: ${why}`)
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
