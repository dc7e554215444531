/** Pods whose sockets come from a SPIFFE CSI driver that nobody here changed, where it is installed. */
import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { NODE_NAME } from '../../support/cluster/kubelet.ts'
import { containerOf, podOf, startPod, WAITING } from '../../support/cluster/pods.ts'
import { until } from '../../support/until.ts'
import { CART, CLIENT, SHOP, SOMEBODY, type Stage } from './stage.ts'

const DRIVER = 'csi.spiffe.io'
const PROGRAMS = ['spiffe-csi-driver', 'csi-node-driver-registrar']
const [lacking] = PROGRAMS.filter((name) => spawnSync(name, ['--version']).error)

const OBJECT = {
  apiVersion: 'storage.k8s.io/v1',
  kind: 'CSIDriver',
  metadata: { name: DRIVER },
  spec: {
    attachRequired: false,
    podInfoOnMount: true,
    fsGroupPolicy: 'None',
    volumeLifecycleModes: ['Ephemeral'],
  },
}

export function csiSuite(stage: () => Stage): void {
  if (lacking !== undefined) {
    console.warn(`SKIPPED: the SPIFFE CSI driver needs ${lacking}`)
    it.skip('have their sockets by a CSI driver that knows one value', () => {})
    return
  }
  it('have their sockets by a CSI driver that knows one value', async () => {
    const { cluster } = stage()
    await startDriver(stage())
    const pod = await startPod(cluster, callerByCsi('by-csi'))
    const run = async (...command: readonly string[]) =>
      cluster.containers.exec(containerOf(pod), command, SOMEBODY)
    const { out, err } = await run(CLIENT, 'fetch')
    expect(err).toBe('')
    const mine = [expect.objectContaining({ spiffe_id: CART, verified: CART })]
    expect(JSON.parse(out)).toMatchObject({ x509: mine, jwt: mine, wit: mine })
    const egress = await run(
      '/bin/busybox',
      'env',
      '-u',
      'OUT',
      '/bin/node',
      '/app/caller.mjs',
      '/spiffe/egress.sock',
      'GET',
      'http://orders/v1/items',
    )
    expect(egress.out).toMatch(/^200 /)
    expect((await run('/bin/busybox', 'touch', '/spiffe/mine')).err).toMatch(/Read-only file system/)
  }, 90_000)
}

/** The driver and its registrar on the node, as their DaemonSet has them; of ours they know the directory of the socket. */
async function startDriver({ cluster }: Stage): Promise<void> {
  const { api, node } = cluster
  await api.apply(OBJECT)
  const place = join(node.dir, 'kubelet')
  const socket = join(place, 'plugins', DRIVER, 'csi.sock')
  node.run('mkdir', '-p', join(place, 'plugins', DRIVER))
  node.start('csi-driver', [
    'spiffe-csi-driver',
    '-workload-api-socket-dir=/run/holdfast/public',
    `-csi-socket-path=${socket}`,
    `-node-id=${NODE_NAME}`,
  ])
  node.start('csi-registrar', [
    'csi-node-driver-registrar',
    `--csi-address=${socket}`,
    `--kubelet-registration-path=${socket}`,
    `--plugin-registration-path=${join(place, 'plugins_registry')}`,
  ])
  await until(
    'the kubelet to know the driver',
    async () => {
      const { body } = await api.call('GET', `/apis/storage.k8s.io/v1/csinodes/${NODE_NAME}`)
      return body?.spec?.drivers?.some(({ name }: { readonly name: string }) => name === DRIVER)
    },
    30_000,
  )
}

/** The volume of deploy/examples/kubernetes/app-csi.yaml. */
function callerByCsi(name: string) {
  const volumeMounts = [{ name: 'spiffe', mountPath: '/spiffe', readOnly: true }]
  const env = [{ name: 'SPIFFE_ENDPOINT_SOCKET', value: 'unix:///spiffe/spire-agent.sock' }]
  return podOf(SHOP, name, {
    account: 'cart',
    spec: {
      containers: [{ ...WAITING, volumeMounts, env }],
      volumes: [{ name: 'spiffe', csi: { driver: DRIVER, readOnly: true } }],
    },
  })
}
