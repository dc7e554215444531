/** A real controller manager and a real scheduler in a node: what makes pods of a DaemonSet or a CronJob, and finds them a node. */
import { join } from 'node:path'
import { until } from '../until.ts'
import type { Cluster } from './cluster.ts'
import { writeKubeconfig } from './kubeconfig.ts'
import { NODE_NAME } from './kubelet.ts'
import { CONTROLLERS, SCHEDULER } from './parts.ts'

/** What the tests need of it, and what that needs: a node gets rid of its first taint by the lifecycle of nodes. */
const RUNNING = [
  'cronjob-controller',
  'daemonset-controller',
  'garbage-collector-controller',
  'job-controller',
  'node-lifecycle-controller',
  'root-ca-certificate-publisher-controller',
  'serviceaccount-controller',
]

/** Starts both, each with the rights that a cluster gives it, and waits until pods may be bound to the node. */
export async function startControllers({ node, pki, plane, api }: Cluster): Promise<void> {
  const kubeconfig = (name: string) => {
    const client = pki.client(name, `system:${name}`, 'controllers')
    return writeKubeconfig(join(node.dir, `${name}.kubeconfig`), plane.url, pki, client)
  }
  const common = (file: string) => [
    `--kubeconfig=${file}`,
    `--authentication-kubeconfig=${file}`,
    `--authorization-kubeconfig=${file}`,
    '--bind-address=127.0.0.1',
    '--leader-elect=false',
  ]
  node.start('controllers', [
    CONTROLLERS,
    ...common(kubeconfig('kube-controller-manager')),
    `--controllers=${RUNNING.join(',')}`,
    '--use-service-account-credentials=true',
    `--root-ca-file=${pki.caFile}`,
    `--cert-dir=${join(node.dir, 'controllers')}`,
  ])
  node.start('scheduler', [SCHEDULER, ...common(kubeconfig('kube-scheduler'))])
  await until(
    'the node to take pods',
    async () => {
      const { spec } = await api.ask('GET', `/api/v1/nodes/${NODE_NAME}`)
      return spec.taints === undefined
    },
    60_000,
  ).catch((error) => {
    throw new Error(`${error.message}\n${node.logOf('controllers')}\n${node.logOf('scheduler')}`)
  })
}
