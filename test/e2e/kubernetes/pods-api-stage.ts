/** What the suites share, for an agent that asks the Pods API of the kubelet: a mounted socket, no token and no right. */
import { join } from 'node:path'
import { ACCOUNT, agentPod } from '../../support/cluster/agent-pod.ts'
import { openStage, type Stage } from './stage.ts'

const DIRECTORY = '/var/lib/kubelet/pods-api'

/** The agent's pod with the directory of the socket, and without what asking the kubelet over HTTPS takes. */
export async function openPodsApiStage(kubernetes = '{ attestor: pods_api }'): Promise<Stage> {
  const stage = await openStage(kubernetes)
  const place = '/apis/rbac.authorization.k8s.io/v1'
  for (const kind of ['clusterrolebindings', 'clusterroles'])
    await stage.cluster.api.ask('DELETE', `${place}/${kind}/${ACCOUNT}`)
  const { spec } = agentPod('none')
  const [agent] = spec.containers
  const name = 'pods-api'
  return {
    ...stage,
    agentOptions: {
      ...stage.agentOptions,
      spec: {
        automountServiceAccountToken: false,
        containers: [
          { ...agent, volumeMounts: [...agent.volumeMounts, { name, mountPath: DIRECTORY, readOnly: true }] },
        ],
        volumes: [
          ...spec.volumes,
          { name, hostPath: { path: join(stage.cluster.node.dir, 'kubelet/pods-api'), type: 'Directory' } },
        ],
      },
    },
  }
}
