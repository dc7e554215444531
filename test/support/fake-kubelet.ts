/**
 * A kubelet's secure port as far as an attestor sees it: TLS, tokens that a webhook knows, `nodes/pods` and
 * `nodes/proxy` told apart, `GET /pods` as Kubernetes 1.37 answers it, and each way in which it may fail. Rights are looked at
 * only for paths that a handler is behind.
 */

import type { IncomingMessage, ServerResponse } from 'node:http'
import { createServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import type { Duplex } from 'node:stream'
import { makeTestCa, type Names, type TestCa } from './tls.ts'

/** What a pod of a test says of itself; the rest is as a kubelet fills it in. */
export interface FakePod {
  readonly name: string
  readonly uid: string
  readonly namespace?: string
  readonly serviceAccount?: string
  readonly labels?: Readonly<Record<string, string>>
  readonly owners?: readonly { readonly kind: string; readonly name: string; readonly uid: string }[]
  readonly containers: readonly FakeContainer[]
  readonly init?: readonly FakeContainer[]
  readonly ephemeral?: readonly FakeContainer[]
  readonly deleted?: boolean
  readonly phase?: string
  /** Default `Always`. */
  readonly restartPolicy?: string
  /** A pod of the kubelet's manifest directory. */
  readonly isStatic?: boolean
  readonly nodeName?: string
  /** Members beside those that an attestor reads. */
  readonly more?: { readonly metadata?: object; readonly spec?: object; readonly status?: object }
}

export interface FakeContainer {
  readonly name: string
  /** 64 hex digits; absent while the container waits. */
  readonly id?: string
  readonly state?: 'running' | 'waiting' | 'terminated'
  /** Of one that is terminated; default 0. */
  readonly exitCode?: number
  /** Of this container alone; one of `init` with `Always` is a sidecar. */
  readonly restartPolicy?: string
  /** In the specification only: the kubelet has not looked at it yet. */
  readonly isUnwritten?: boolean
  readonly runtime?: string
  readonly image?: string
  readonly imageId?: string
  /** Of the run before. */
  readonly lastId?: string
}

export type Trouble = 'none' | 'slow' | 'truncated' | 'hung' | 'not_json' | 'items_null' | 'redirect' | number

export interface FakeKubelet extends AsyncDisposable {
  readonly url: string
  readonly ca: TestCa
  readonly port: number
  /** `METHOD PATH` of each request that was let in. */
  readonly asked: string[]
  pods: readonly FakePod[]
  /** What each token may do: `pods`, or `proxy`, which is everything. */
  readonly tokens: Map<string, 'pods' | 'proxy' | 'nothing'>
  trouble: Trouble
  /** Runs before an answer is made: what a race would do. */
  onAsk: () => void | Promise<void>
  stop(): Promise<void>
  /** Listens on its port again. */
  resume(): Promise<void>
}

/** Starts one on loopback with the token `good`. */
export async function startFakeKubelet(
  names: Names = { dns: 'localhost', ip: '127.0.0.1' },
  ca = makeTestCa('kubelet ca'),
): Promise<FakeKubelet> {
  const sockets = new Set<Duplex>()
  const kubelet = {
    asked: [] as string[],
    pods: [] as readonly FakePod[],
    tokens: new Map([['good', 'pods' as const]]) as FakeKubelet['tokens'],
    trouble: 'none' as Trouble,
    onAsk: () => {},
  } as unknown as FakeKubelet
  const server = createServer(ca.serverFiles(names), (request, response) => {
    void answer(kubelet, request, response)
  })
  server.on('connection', (socket) => {
    sockets.add(socket)
    socket.once('close', () => sockets.delete(socket))
  })
  const listen = (port: number) =>
    new Promise<void>((resolve) => server.listen(port, '127.0.0.1', () => resolve()))
  const stop = () =>
    new Promise<void>((resolve) => {
      server.close(() => resolve())
      for (const socket of sockets) socket.destroy()
    })
  await listen(0)
  const { port } = server.address() as AddressInfo
  return Object.assign(kubelet, {
    url: `https://127.0.0.1:${port}`,
    port,
    ca,
    stop,
    resume: () => listen(port),
    [Symbol.asyncDispose]: stop,
  })
}

async function answer(
  kubelet: FakeKubelet,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const path = request.url ?? ''
  const isPods = path === '/pods' || path === '/pods/'
  const isLogs = /^\/containerLogs(?:\/[^/]+){3}$/.test(path)
  if (!isPods && !isLogs) return reply(response, 404, '404: Page Not Found')
  const may = kubelet.tokens.get(/^Bearer (.+)$/.exec(request.headers.authorization ?? '')?.[1] ?? '')
  if (may === undefined) return reply(response, 401, 'Unauthorized')
  if (may === 'nothing' || (may === 'pods' && !isPods)) {
    const resource = isPods ? '[pods proxy]' : '[proxy]'
    return reply(response, 403, `Forbidden (user=test, verb=get, resource=nodes, subresource(s)=${resource})`)
  }
  kubelet.asked.push(`${request.method} ${path}`)
  if (isLogs && typeof kubelet.trouble !== 'number')
    return reply(response, 406, '406: Not Acceptable\n\nAvailable representations: ')
  await kubelet.onAsk()
  const text = JSON.stringify(podList(kubelet.pods))
  const { trouble } = kubelet
  if (typeof trouble === 'number') return reply(response, trouble, 'trouble')
  if (trouble === 'hung') return
  if (trouble === 'not_json') return reply(response, 200, '<html>')
  if (trouble === 'items_null')
    return reply(response, 200, '{"kind":"PodList","apiVersion":"v1","items":null}')
  if (trouble === 'redirect') {
    response.writeHead(302, { location: 'https://127.0.0.1:1/' }).end()
    return
  }
  response.writeHead(200, { 'content-type': 'application/json', 'content-length': Buffer.byteLength(text) })
  if (trouble === 'truncated' || trouble === 'slow') {
    response.write(text.slice(0, text.length / 2))
    if (trouble === 'truncated') setImmediate(() => response.destroy())
    return
  }
  response.end(text)
}

function reply(response: ServerResponse, status: number, text: string): void {
  response.writeHead(status, { 'content-type': 'text/plain; charset=utf-8' }).end(text)
}

/** The answer of `GET /pods`. */
export function podList(pods: readonly FakePod[]): object {
  return { kind: 'PodList', apiVersion: 'v1', metadata: {}, items: pods.map(podJson) }
}

function podJson(pod: FakePod): object {
  const { name, uid, namespace = 'shop', containers, init = [], ephemeral = [], isStatic = false } = pod
  const source = isStatic ? 'file' : 'api'
  return {
    metadata: {
      name,
      namespace,
      uid,
      labels: pod.labels,
      annotations: {
        'kubernetes.io/config.seen': '2026-11-28T08:00:00.000000000Z',
        'kubernetes.io/config.source': source,
        ...(isStatic ? { 'kubernetes.io/config.hash': uid } : {}),
      },
      ...(pod.owners
        ? { ownerReferences: pod.owners.map((owner) => ({ apiVersion: 'apps/v1', ...owner })) }
        : {}),
      ...(pod.deleted ? { deletionTimestamp: '2026-11-28T08:30:00Z', deletionGracePeriodSeconds: 30 } : {}),
      ...pod.more?.metadata,
    },
    spec: {
      nodeName: pod.nodeName ?? 'node-1',
      ...(isStatic ? {} : { serviceAccountName: pod.serviceAccount ?? 'default' }),
      restartPolicy: pod.restartPolicy ?? 'Always',
      containers: containers.map(specJson),
      ...(init.length > 0 ? { initContainers: init.map(specJson) } : {}),
      ...(ephemeral.length > 0 ? { ephemeralContainers: ephemeral.map(specJson) } : {}),
      ...pod.more?.spec,
    },
    status: {
      phase: pod.phase ?? 'Running',
      qosClass: 'BestEffort',
      ...statuses('containerStatuses', containers),
      ...statuses('initContainerStatuses', init),
      ...statuses('ephemeralContainerStatuses', ephemeral),
      ...pod.more?.status,
    },
  }
}

function specJson({ name, image = 'busybox:1', restartPolicy }: FakeContainer): object {
  return { name, image, ...(restartPolicy === undefined ? {} : { restartPolicy }) }
}

function statuses(key: string, containers: readonly FakeContainer[]): object {
  const written = containers.filter(({ isUnwritten }) => !isUnwritten)
  return written.length === 0 ? {} : { [key]: written.map(statusJson) }
}

const stateJson = { running: { startedAt: '2026-11-28T08:00:00Z' }, waiting: {} }

function statusJson(container: FakeContainer): object {
  const { name, id, runtime = 'containerd', image = 'docker.io/library/busybox:1' } = container
  const state = container.state ?? (id === undefined ? 'waiting' : 'running')
  return {
    name,
    state: { [state]: state === 'terminated' ? { exitCode: container.exitCode ?? 0 } : stateJson[state] },
    lastState:
      container.lastId === undefined
        ? {}
        : { terminated: { containerID: `${runtime}://${container.lastId}` } },
    ready: state === 'running',
    restartCount: container.lastId === undefined ? 0 : 1,
    image,
    imageID: container.imageId ?? `docker.io/library/busybox@sha256:${'1'.repeat(64)}`,
    ...(id === undefined ? {} : { containerID: `${runtime}://${id}` }),
  }
}
