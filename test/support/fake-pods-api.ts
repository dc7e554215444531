/**
 * The Pods API of a kubelet on a unix socket as Kubernetes 1.37 serves it: pods as protobuf messages with the empty
 * strings that Go writes, events of a watch, its limit of requests, and each way in which it may fail.
 */
import { chmodSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import {
  Server,
  ServerCredentials,
  type ServerUnaryCall,
  type ServerWritableStream,
  type sendUnaryData,
  status,
} from '@grpc/grpc-js'
import protobuf from 'protobufjs'
import { ROOT } from './built-agent.ts'
import { type FakePod, podList } from './fake-kubelet.ts'

export type PodsApiTrouble =
  | 'none'
  | 'initializing'
  | 'limited'
  | 'hung'
  | 'wrong_bytes'
  | 'too_long'
  | 'too_many'
  | 'unimplemented'
  | 'internal'

export interface FakePodsApi extends AsyncDisposable {
  readonly socket: string
  readonly directory: string
  /** Each method that was called, by its name. */
  readonly asked: string[]
  /** What is listed; a change sends no event by itself. */
  pods: readonly FakePod[]
  trouble: PodsApiTrouble
  /** What a watch does beside telling of `change`. */
  watching: 'well' | 'no_sync' | 'flood' | 'drop' | 'refused'
  /** Events that were written. */
  events: number
  /** Lists other pods and tells the watchers of every difference. */
  change(pods: readonly FakePod[]): void
  tell(type: 'ADDED' | 'MODIFIED' | 'DELETED', pod: FakePod): void
  stop(): Promise<void>
  /** Listens on its socket again. */
  resume(): Promise<void>
}

const root = protobuf.loadSync(join(ROOT, 'proto/pods_api.proto'))
const encode = (name: string, value: object) => {
  const type = root.lookupType(`v1alpha1.${name}`)
  return Buffer.from(type.encode(type.fromObject(value)).finish())
}

type Stream = ServerWritableStream<Buffer, Buffer>
const BURST = 10
const PER_SECOND = 100

/** Starts one in a directory of its own, as a kubelet makes it. */
export async function startFakePodsApi(): Promise<FakePodsApi> {
  const directory = mkdtempSync(join(tmpdir(), 'hf-pods-api-'))
  chmodSync(directory, 0o750)
  const socket = join(directory, 'pods-api.sock')
  const streams = new Set<Stream>()
  let server: Server | undefined
  const listen = async () => {
    server = new Server()
    server.addService(definition(), {
      ListPods: limited((_call, answer) => list(fake, answer)),
      WatchPods: (stream: Stream) => watch(fake, stream, streams),
    })
    const started = server
    await new Promise<void>((resolve, reject) =>
      started.bindAsync(`unix:${socket}`, ServerCredentials.createInsecure(), (error) =>
        error ? reject(error) : resolve(),
      ),
    )
  }
  const stop = async () => {
    streams.clear()
    server?.forceShutdown()
    rmSync(socket, { force: true })
  }
  const fake: FakePodsApi = {
    socket,
    directory,
    asked: [],
    pods: [],
    trouble: 'none',
    watching: 'well',
    events: 0,
    change: (pods) => {
      const before = new Map(fake.pods.map((pod) => [pod.uid, pod]))
      fake.pods = pods
      for (const pod of pods) {
        if (!before.has(pod.uid)) fake.tell('ADDED', pod)
        else if (before.get(pod.uid) !== pod) fake.tell('MODIFIED', pod)
      }
      for (const pod of before.values())
        if (!pods.some(({ uid }) => uid === pod.uid)) fake.tell('DELETED', pod)
    },
    tell: (type, pod) => {
      for (const stream of streams) send(fake, stream, type, pod)
    },
    stop,
    resume: listen,
    [Symbol.asyncDispose]: async () => {
      await stop()
      rmSync(directory, { recursive: true, force: true })
    },
  }
  await listen()
  return fake
}

type Unary = (call: ServerUnaryCall<Buffer, Buffer>, answer: sendUnaryData<Buffer>) => void

/** The bucket of golang.org/x/time/rate, as the kubelet fills it. */
function limited(handle: Unary): Unary {
  let [tokens, last] = [BURST, performance.now()]
  return (call, answer) => {
    const now = performance.now()
    tokens = Math.min(BURST, tokens + ((now - last) / 1000) * PER_SECOND)
    last = now
    if (tokens < 1) answer({ code: status.RESOURCE_EXHAUSTED, details: 'rejected by rate limit' })
    else {
      tokens -= 1
      handle(call, answer)
    }
  }
}

const REFUSALS: Partial<
  Readonly<Record<PodsApiTrouble, { readonly code: status; readonly details: string }>>
> = {
  initializing: { code: status.FAILED_PRECONDITION, details: 'Kubelet is initializing' },
  limited: { code: status.RESOURCE_EXHAUSTED, details: 'rejected by rate limit' },
  unimplemented: { code: status.UNIMPLEMENTED, details: 'unknown service v1alpha1.Pods' },
  internal: { code: status.INTERNAL, details: 'failed to marshal pod: proto: \u0007' },
}

function list(fake: FakePodsApi, answer: sendUnaryData<Buffer>): void {
  fake.asked.push('ListPods')
  const refusal = REFUSALS[fake.trouble]
  if (refusal) answer(refusal)
  else if (fake.trouble !== 'hung') answer(null, listBytes(fake))
}

function listBytes({ trouble, pods }: FakePodsApi): Buffer {
  if (trouble === 'wrong_bytes') return Buffer.from([0x0a, 0x7f, 1, 2, 3])
  if (trouble === 'too_long') return Buffer.alloc(4 * 1024 * 1024)
  if (trouble === 'too_many') return Buffer.from('0a00'.repeat(10_001), 'hex')
  return encode('ListPodsResponse', { pods: pods.map(podBytes) })
}

function watch(fake: FakePodsApi, stream: Stream, streams: Set<Stream>): void {
  fake.asked.push('WatchPods')
  const refuse = (code: status, details: string) => stream.emit('error', { code, details })
  if (fake.trouble === 'initializing') {
    refuse(status.FAILED_PRECONDITION, 'Kubelet is initializing')
    return
  }
  if (fake.watching === 'refused') {
    refuse(status.UNIMPLEMENTED, 'unknown method WatchPods')
    return
  }
  streams.add(stream)
  stream.on('close', () => streams.delete(stream))
  stream.on('cancelled', () => streams.delete(stream))
  for (const pod of fake.pods) send(fake, stream, 'ADDED', pod)
  if (fake.watching !== 'no_sync') stream.write(encode('WatchPodsEvent', { type: 4 }))
  if (fake.watching === 'drop') refuse(status.RESOURCE_EXHAUSTED, 'watch client channel closed')
  if (fake.watching === 'flood') flood(fake, stream)
}

function flood(fake: FakePodsApi, stream: Stream): void {
  if (stream.destroyed || stream.cancelled) return
  const [pod] = fake.pods
  let mayGoOn = true
  while (pod && mayGoOn) mayGoOn = send(fake, stream, 'MODIFIED', pod)
  stream.once('drain', () => flood(fake, stream))
}

function send(fake: FakePodsApi, stream: Stream, type: string, pod: FakePod): boolean {
  fake.events += 1
  // Of a pod that ended the names are all that is sure.
  const { name, uid, namespace = 'shop' } = pod
  const bytes = type === 'DELETED' ? encode('Pod', { metadata: { name, namespace, uid } }) : podBytes(pod)
  return stream.write(encode('WatchPodsEvent', { type, pod: bytes }))
}

const nestedIn = (container: object) => ({ ephemeralContainerCommon: container })

/** The message of what `GET /pods` lists of the pod: Go writes strings that are empty, and a time as seconds. */
export function podBytes(pod: FakePod): Buffer {
  const { items } = podList([pod]) as { readonly items: readonly [Record<string, Record<string, unknown>>] }
  const [{ metadata, spec, status }] = items
  const deleted = metadata?.['deletionTimestamp']
  const ephemeral = (spec?.['ephemeralContainers'] ?? []) as readonly object[]
  return encode('Pod', {
    metadata: {
      ...metadata,
      ...(deleted === undefined
        ? {}
        : { deletionTimestamp: { seconds: Date.parse(String(deleted)) / 1000 } }),
    },
    spec: { serviceAccountName: '', ...spec, ephemeralContainers: ephemeral.map(nestedIn) },
    status,
  })
}

function definition() {
  const asIs = (bytes: Buffer) => bytes
  const method = (name: string, responseStream: boolean) => ({
    path: `/v1alpha1.Pods/${name}`,
    requestStream: false,
    responseStream,
    requestSerialize: asIs,
    requestDeserialize: asIs,
    responseSerialize: asIs,
    responseDeserialize: asIs,
  })
  return { ListPods: method('ListPods', false), WatchPods: method('WatchPods', true) }
}
