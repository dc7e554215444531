/**
 * gRPC over unix sockets; the only import of grpc-js clients. To the agent each stream has a connection of its own: the
 * agent attests connections, so that a new try is a new attestation. To others, messages are bytes.
 */
import { type ClientDuplexStream, credentials, Client as Grpc, Metadata } from '@grpc/grpc-js'
import {
  loadSync,
  type MessageTypeDefinition,
  type PackageDefinition,
  type ServiceDefinition,
} from '@grpc/proto-loader'
import { type Millis, systemClock } from '../base/clock.ts'
import { Fault, type Reason } from '../base/fault.ts'
import { packageFile } from '../base/package.ts'
import { faultOfRefusal, type WireRefusal } from './refusal.ts'

/** A protobuf message as the wire library gives and takes it; absent members are absent. */
export type Message = Readonly<Record<string, unknown>>

export type StreamMethod =
  | 'SpiffeWorkloadAPI/FetchX509SVID'
  | 'SpiffeWorkloadAPI/FetchX509Bundles'
  | 'SpiffeWorkloadAPI/FetchJWTBundles'
  | 'SpiffeWorkloadAPI/FetchWITSVID'
  | 'holdfast.v1.ProofService/WatchKeys'
  | 'holdfast.v1.ProofService/SignProofs'
export type UnaryMethod =
  | 'SpiffeWorkloadAPI/FetchJWTSVID'
  | 'SpiffeWorkloadAPI/ValidateJWTSVID'
  | 'holdfast.v1.ProofService/ListKeys'

/** gRPC status codes by name (grpc/doc/statuscodes.md). */
export const CODE = {
  OK: 0,
  CANCELLED: 1,
  UNKNOWN: 2,
  INVALID_ARGUMENT: 3,
  DEADLINE_EXCEEDED: 4,
  PERMISSION_DENIED: 7,
  RESOURCE_EXHAUSTED: 8,
  UNIMPLEMENTED: 12,
  INTERNAL: 13,
  UNAVAILABLE: 14,
} as const

/** How a call ended: the code says whether another try may help, the Fault what to tell people. */
export interface Ending {
  readonly code: number
  readonly fault: Fault
  /** The agent itself said so, in its own words. */
  readonly isAnswer: boolean
}

export interface Listener {
  readonly onMessage: (message: Message) => void
  /** Called once, never after `cancel`. */
  readonly onEnd: (ending: Ending) => void
  /** Sending may begin, or go on after `send` was false. */
  readonly onReady?: () => void
}

/** An open stream. */
export interface Call {
  /** Not before the first `onReady`. False when the next one is better waited for. */
  send(message: Message): boolean
  cancel(): void
}

export interface UnaryOptions {
  readonly timeout: Millis
  readonly signal?: AbortSignal | undefined
}

/** One connection to an agent. */
export interface Connection {
  /** Opens a stream; a server stream gets its one request at once. */
  open(method: StreamMethod, listener: Listener, request?: Message): Call
  /** Calls and waits; throws the Ending. */
  unary(method: UnaryMethod, request: Message, options: UnaryOptions): Promise<Message>
  close(): void
}

/** Connects to the socket at `path`; nothing is sent before the first call. */
export type Connect = (path: string) => Connection

const CHANNEL_OPTIONS = {
  'grpc.default_authority': 'localhost',
  'grpc.use_local_subchannel_pool': 1,
  'grpc.enable_retries': 0,
  'grpc.enable_channelz': 0,
  'grpc.enable_http_proxy': 0,
  'grpc.service_config_disable_resolution': 1,
}
const PROTO_OPTIONS = {
  keepCase: true,
  longs: Number,
  enums: String,
  defaults: false,
  oneofs: false,
} as const

/** Reads the services' definitions once; connections share them. */
export function loadServices(): Connect {
  const definitions = loadSync(['workload.proto', 'holdfast.proto', 'status.proto'], {
    ...PROTO_OPTIONS,
    includeDirs: [packageFile('proto')],
  })
  return (path) => new UnixConnection(definitions, path)
}

/** How a call of a `BytesConnection` failed, in the words of gRPC. */
export interface BytesRefusal extends Error {
  readonly code: number
  readonly details: string
}

/** One connection to a service whose messages somebody else reads. Methods are `package.Service/Method`. */
export interface BytesConnection {
  /** Calls and waits; rejects with a BytesRefusal. */
  unary(
    method: string,
    request: Buffer,
    options: { readonly timeout: Millis; readonly signal: AbortSignal },
  ): Promise<Buffer>
  /** Opens a stream of the server; `onEnd` comes once, never after `cancel`. */
  stream(
    method: string,
    request: Buffer,
    listener: { readonly onMessage: (message: Buffer) => void; readonly onEnd: () => void },
  ): { pause(): void; resume(): void; cancel(): void }
  close(): void
}

/** Whoever asks waits himself before he asks again. */
const BYTES_OPTIONS = {
  ...CHANNEL_OPTIONS,
  'grpc.initial_reconnect_backoff_ms': 100,
  'grpc.max_reconnect_backoff_ms': 1_000,
}
const asIs = (bytes: Buffer) => bytes

/** Connects to `path` when the first call comes; no message may be longer than `maxBytes`. */
export function connectBytes(path: string, maxBytes: number): BytesConnection {
  const options = { ...BYTES_OPTIONS, 'grpc.max_receive_message_length': maxBytes }
  const grpc = new Grpc(`unix:${path}`, credentials.createInsecure(), options)
  return {
    unary: (method, request, { timeout, signal }) =>
      new Promise((resolve, reject) => {
        const cancel = () => call.cancel()
        const done = (error: Error | null, answer?: Buffer) => {
          signal.removeEventListener('abort', cancel)
          if (answer) resolve(answer)
          else reject(error)
        }
        const deadline = systemClock.now() + timeout
        const call = grpc.makeUnaryRequest(`/${method}`, asIs, asIs, request, { deadline }, done)
        signal.addEventListener('abort', cancel, { once: true })
      }),
    stream: (method, request, { onMessage, onEnd }) => {
      let isOver = false
      const stream = grpc.makeServerStreamRequest(`/${method}`, asIs, asIs, request)
      stream.on('data', (message: Buffer) => {
        if (!isOver) onMessage(message)
      })
      stream.on('error', () => {})
      stream.on('status', () => {
        if (!isOver) onEnd()
        isOver = true
      })
      return {
        pause: () => void stream.pause(),
        resume: () => void stream.resume(),
        cancel: () => {
          isOver = true
          stream.cancel()
        },
      }
    },
    close: () => grpc.close(),
  }
}

class UnixConnection implements Connection {
  readonly #definitions: PackageDefinition
  readonly #grpc: Grpc

  constructor(definitions: PackageDefinition, path: string) {
    this.#definitions = definitions
    this.#grpc = new Grpc(`unix:${path}`, credentials.createInsecure(), CHANNEL_OPTIONS)
  }

  open(method: StreamMethod, listener: Listener, request?: Message): Call {
    const { path, requestSerialize, responseDeserialize } = this.#method(method)
    const stream: ClientDuplexStream<Message, Message> = this.#grpc.makeBidiStreamRequest(
      path,
      requestSerialize,
      responseDeserialize as (bytes: Buffer) => Message,
      securityHeader(),
    )
    let isOver = false
    const end = (ending: Ending) => {
      if (isOver) return
      isOver = true
      listener.onEnd(ending)
    }
    stream.on('data', (message: Message) => {
      if (!isOver) listener.onMessage(message)
    })
    stream.on('drain', () => listener.onReady?.())
    // Every end has a status; an error only repeats it.
    stream.on('error', () => {})
    stream.on('status', (last: Ended) => end(this.#endingOf(last)))
    if (request) {
      stream.write(request)
      stream.end()
    }
    return {
      send: (message) => stream.write(message),
      cancel: () => {
        isOver = true
        stream.cancel()
      },
    }
  }

  unary(method: UnaryMethod, request: Message, { timeout, signal }: UnaryOptions): Promise<Message> {
    const { path, requestSerialize, responseDeserialize } = this.#method(method)
    const deadline = systemClock.now() + timeout
    return new Promise((resolve, reject) => {
      const call = this.#grpc.makeUnaryRequest(
        path,
        requestSerialize,
        responseDeserialize as (bytes: Buffer) => Message,
        request,
        securityHeader(),
        { deadline },
        (error, answer) => {
          signal?.removeEventListener('abort', cancel)
          if (error) reject(this.#endingOf(error))
          else resolve(answer ?? {})
        },
      )
      const cancel = () => call.cancel()
      signal?.addEventListener('abort', cancel, { once: true })
    })
  }

  close(): void {
    this.#grpc.close()
  }

  #method(name: StreamMethod | UnaryMethod) {
    const [service = '', method = ''] = name.split('/')
    const definition = (this.#definitions[service] as ServiceDefinition)[method]
    if (!definition) throw new Error(`the definitions lack ${name}`)
    return definition
  }

  #endingOf({ code, details, metadata }: Ended): Ending {
    const info = this.#errorInfo(metadata)
    if (info) return { code, fault: faultOfRefusal({ ...info, message: details }), isAnswer: true }
    const reason = REASON_OF[code] ?? 'bug'
    // What the library says of a broken connection helps nobody and names internals.
    const message = code === CODE.UNAVAILABLE ? undefined : details
    return { code, fault: new Fault(reason, message || undefined), isAnswer: false }
  }

  /** The `google.rpc.ErrorInfo` in the trailers; undefined when there is none that can be read. */
  #errorInfo(metadata: Metadata | undefined): WireRefusal | undefined {
    const [bytes] = metadata?.get('grpc-status-details-bin') ?? []
    if (!Buffer.isBuffer(bytes)) return undefined
    const type = (name: string) => this.#definitions[name] as MessageTypeDefinition<Message, Message>
    try {
      const { details } = type('google.rpc.Status').deserialize(bytes) as { details?: readonly AnyValue[] }
      const detail = details?.find(({ type_url: url }) => url?.endsWith('/google.rpc.ErrorInfo'))
      if (!detail?.value) return undefined
      const info = type('google.rpc.ErrorInfo').deserialize(detail.value) as ErrorInfo
      return { ...info.metadata, reason: info.reason }
    } catch {
      return undefined
    }
  }
}

interface Ended {
  readonly code: number
  readonly details: string
  readonly metadata?: Metadata
}

interface AnyValue {
  readonly type_url?: string
  readonly value?: Buffer
}

interface ErrorInfo {
  readonly reason?: string
  readonly metadata?: Readonly<Record<string, string>>
}

/** What a code means that comes without our own words: from another Workload API, or from a broken connection. */
const REASON_OF: Readonly<Record<number, Reason>> = {
  [CODE.OK]: 'draining',
  [CODE.CANCELLED]: 'canceled',
  [CODE.INVALID_ARGUMENT]: 'invalid_request',
  [CODE.DEADLINE_EXCEEDED]: 'deadline',
  [CODE.PERMISSION_DENIED]: 'no_identity',
  [CODE.RESOURCE_EXHAUSTED]: 'rate_limited',
  [CODE.UNIMPLEMENTED]: 'unimplemented',
  [CODE.UNAVAILABLE]: 'agent_unreachable',
}

/** SPIFFE_Workload_Endpoint.md s.3: what a server-side request forgery cannot send. */
function securityHeader(): Metadata {
  const metadata = new Metadata()
  metadata.set('workload.spiffe.io', 'true')
  return metadata
}
