/** A real etcd and a real API server in a node, as small as they come: no controllers, no scheduler. */
import type { ChildProcess } from 'node:child_process'
import { join } from 'node:path'
import { until } from '../until.ts'
import { type Api, openApi } from './api.ts'
import type { Node } from './node.ts'
import { APISERVER } from './parts.ts'
import type { Pki } from './pki.ts'

/** Where pods find the API server: an address of the node's own, since no proxy for services runs. */
export const SERVICE_IP = '10.96.0.1'
const ETCD = 'http://127.0.0.1:2379'

export interface ControlPlane {
  readonly url: string
  readonly api: Api
  /** Ends the API server as an outage does; what it knows stays in etcd. */
  stop(): Promise<void>
  start(): Promise<void>
}

/** Starts both, and waits until the API server is ready. */
export async function openControlPlane(node: Node, pki: Pki): Promise<ControlPlane> {
  startEtcd(node)
  node.run('ip', 'addr', 'add', `${SERVICE_IP}/32`, 'dev', 'lo')
  const url = `https://${node.network.node}`
  const api = openApi(url, pki.ca, pki.client('admin', 'admin', 'system:masters'))
  const args = apiserverArgs(node, pki)
  let child: ChildProcess | undefined
  const plane: ControlPlane = {
    url,
    api,
    stop: async () => {
      if (child) await node.stop(child)
      child = undefined
    },
    start: async () => {
      child = node.start('apiserver', args)
      await until('the API server', () => isReady(api, child, node), 60_000)
    },
  }
  await plane.start()
  return plane
}

async function isReady(api: Api, child: ChildProcess | undefined, node: Node): Promise<boolean> {
  if (child?.exitCode !== null) throw new Error(`the API server ended:\n${node.logOf('apiserver')}`)
  const answer = await api.call('GET', '/readyz').catch(() => undefined)
  return answer?.status === 200
}

function startEtcd(node: Node): void {
  const peer = 'http://127.0.0.1:2380'
  node.start('etcd', [
    'etcd',
    `--data-dir=${join(node.dir, 'etcd')}`,
    `--listen-client-urls=${ETCD}`,
    `--advertise-client-urls=${ETCD}`,
    `--listen-peer-urls=${peer}`,
    `--initial-advertise-peer-urls=${peer}`,
    `--initial-cluster=default=${peer}`,
    // Nothing here outlives the test.
    '--unsafe-no-fsync',
  ])
}

function apiserverArgs(node: Node, pki: Pki): readonly string[] {
  const names = ['kubernetes.default.svc', 'kubernetes.default', 'kubernetes', 'localhost']
  const server = pki.server('apiserver', names, [node.network.node, SERVICE_IP, '127.0.0.1'])
  const kubelets = pki.client('apiserver-kubelet', 'kube-apiserver', 'system:masters')
  return [
    APISERVER,
    `--etcd-servers=${ETCD}`,
    '--bind-address=0.0.0.0',
    '--secure-port=443',
    `--advertise-address=${node.network.node}`,
    '--service-cluster-ip-range=10.96.0.0/16',
    '--authorization-mode=Node,RBAC',
    '--enable-admission-plugins=NodeRestriction',
    '--allow-privileged=true',
    `--client-ca-file=${pki.caFile}`,
    `--tls-cert-file=${server.cert}`,
    `--tls-private-key-file=${server.key}`,
    `--kubelet-client-certificate=${kubelets.cert}`,
    `--kubelet-client-key=${kubelets.key}`,
    '--kubelet-preferred-address-types=InternalIP',
    `--kubelet-certificate-authority=${pki.caFile}`,
    '--service-account-issuer=https://kubernetes.default.svc',
    `--service-account-key-file=${pki.tokens.publicKey}`,
    `--service-account-signing-key-file=${pki.tokens.key}`,
    `--cert-dir=${join(node.dir, 'apiserver')}`,
  ]
}
