/** A real kubelet in a node. */
import type { ChildProcess } from 'node:child_process'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { until } from '../until.ts'
import type { Json } from './api.ts'
import type { ControlPlane } from './control-plane.ts'
import { writeKubeconfig } from './kubeconfig.ts'
import type { Node } from './node.ts'
import { KUBELET } from './parts.ts'
import type { KeyFiles, Pki } from './pki.ts'

export const NODE_NAME = 'node-1'
const READ_ONLY_PORT = 10_255

export interface Kubelet {
  /** Ends it as a node that is upgraded does: its containers run on. */
  stop(): Promise<void>
  /** Starts it and waits until its node is ready. */
  start(): Promise<unknown>
}

/** Starts it and waits until its node is ready. */
export async function startKubelet(
  node: Node,
  pki: Pki,
  plane: ControlPlane,
  runtime: string,
): Promise<Kubelet> {
  const place = join(node.dir, 'kubelet')
  mkdirSync(join(place, 'static'), { recursive: true })
  const client = pki.client('kubelet-client', `system:node:${NODE_NAME}`, 'system:nodes')
  const server = pki.server('kubelet', [NODE_NAME], [node.network.node])
  const config = join(place, 'config.json')
  writeFileSync(join(place, 'resolv.conf'), '')
  writeFileSync(config, JSON.stringify(settings(place, node, pki, server, runtime)))
  const command = [
    KUBELET,
    `--config=${config}`,
    `--kubeconfig=${writeKubeconfig(join(place, 'kubeconfig'), plane.url, pki, client)}`,
    `--root-dir=${place}`,
    `--cert-dir=${join(place, 'pki')}`,
    `--hostname-override=${NODE_NAME}`,
    `--node-ip=${node.network.node}`,
  ]
  let child: ChildProcess
  const kubelet = {
    stop: () => node.stop(child),
    start: () => {
      child = node.start('kubelet', command)
      return untilReady(node, plane, child)
    },
  }
  await kubelet.start()
  return kubelet
}

function untilReady(node: Node, plane: ControlPlane, child: ChildProcess): Promise<boolean> {
  return until(
    'the node to be ready',
    async () => {
      if (child.exitCode !== null) throw new Error(`kubelet ended:\n${node.logOf('kubelet')}`)
      const { body } = await plane.api.call('GET', `/api/v1/nodes/${NODE_NAME}`)
      const ready = body?.status?.conditions?.find((each: { type: string }) => each.type === 'Ready')
      return ready?.status === 'True'
    },
    60_000,
  )
}

function settings(place: string, node: Node, pki: Pki, server: KeyFiles, runtime: string): object {
  return {
    kind: 'KubeletConfiguration',
    apiVersion: 'kubelet.config.k8s.io/v1beta1',
    address: node.network.node,
    readOnlyPort: READ_ONLY_PORT,
    authentication: {
      anonymous: { enabled: false },
      // Short, so that an outage of the API server shows soon.
      webhook: { enabled: true, cacheTTL: '5s' },
      x509: { clientCAFile: pki.caFile },
    },
    authorization: {
      mode: 'Webhook',
      webhook: { cacheAuthorizedTTL: '5s', cacheUnauthorizedTTL: '1s' },
    },
    tlsCertFile: server.cert,
    tlsPrivateKeyFile: server.key,
    containerRuntimeEndpoint: `unix://${runtime}`,
    cgroupDriver: 'cgroupfs',
    cgroupRoot: node.group,
    failCgroupV1: false,
    failSwapOn: false,
    staticPodPath: join(place, 'static'),
    podLogsDir: join(place, 'logs'),
    volumePluginDir: join(place, 'volume-plugins'),
    resolvConf: join(place, 'resolv.conf'),
    // A full disk of a developer's machine is no reason to evict.
    evictionHard: { 'nodefs.available': '0%', 'imagefs.available': '0%', 'memory.available': '1Mi' },
    imageGCHighThresholdPercent: 100,
    enableControllerAttachDetach: false,
    maxPods: 200,
    syncFrequency: '10s',
    healthzPort: 0,
    registerNode: true,
    shutdownGracePeriod: '0s',
  }
}

/** The pods that the kubelet lists now, by its read-only port: nobody has to vouch for who asks. */
export async function listedPods({ network }: Node): Promise<readonly Json[]> {
  const answer = await fetch(`http://${network.node}:${READ_ONLY_PORT}/pods`)
  return ((await answer.json()) as Json).items ?? []
}
