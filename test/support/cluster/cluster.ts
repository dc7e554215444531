/** A whole cluster of one node, of real parts: etcd, API server, kubelet, containerd. Pods are bound to the node by hand. */

import { join } from 'node:path'
import type { Api } from './api.ts'
import { type Containers, openContainers, PAUSE } from './containers.ts'
import { type ControlPlane, openControlPlane } from './control-plane.ts'
import { packAgent, packPause } from './images.ts'
import { type Kubelet, startKubelet } from './kubelet.ts'
import { type Node, openNode } from './node.ts'
import { makePki, type Pki } from './pki.ts'

export interface Cluster extends AsyncDisposable {
  readonly node: Node
  readonly pki: Pki
  readonly plane: ControlPlane
  readonly api: Api
  readonly containers: Containers
  readonly kubelet: Kubelet
}

/** Starts it; `programs` go into the image of agent and callers. */
export async function openCluster(programs: Readonly<Record<string, string>> = {}): Promise<Cluster> {
  const node = await openNode()
  try {
    const pki = makePki(join(node.dir, 'pki'))
    const [plane, containers] = await Promise.all([openControlPlane(node, pki), openContainers(node)])
    containers.import(packPause(node.dir, PAUSE))
    containers.import(packAgent(node.dir, programs))
    const kubelet = await startKubelet(node, pki, plane, containers.socket)
    return {
      node,
      pki,
      plane,
      containers,
      kubelet,
      api: plane.api,
      [Symbol.asyncDispose]: () => node[Symbol.asyncDispose](),
    }
  } catch (error) {
    for (const name of ['containerd', 'kubelet']) console.error(tryLog(node, name))
    await node[Symbol.asyncDispose]()
    throw error
  }
}

function tryLog(node: Node, name: string): string {
  try {
    return `${name}:\n${node.logOf(name)}`
  } catch {
    return ''
  }
}

/** Makes a namespace as a controller manager would: with its service accounts and the CA of the API server. */
export async function makeNamespace(
  { api, pki }: Pick<Cluster, 'api' | 'pki'>,
  name: string,
  accounts: readonly string[] = [],
  labels: Readonly<Record<string, string>> = {},
): Promise<void> {
  const known = await api.call('GET', `/api/v1/namespaces/${name}`)
  if (known.status !== 200) await api.ask('POST', '/api/v1/namespaces', { metadata: { name, labels } })
  const place = `/api/v1/namespaces/${name}`
  for (const account of ['default', ...accounts])
    await api.call('POST', `${place}/serviceaccounts`, { metadata: { name: account } })
  const data = { 'ca.crt': pki.ca }
  await api.call('POST', `${place}/configmaps`, { metadata: { name: 'kube-root-ca.crt' }, data })
}
