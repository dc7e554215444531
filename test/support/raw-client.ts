/** gRPC with nothing in between: any RPC, any metadata, every status as it came over the wire. */
import { Client, credentials, Metadata, type StatusObject, status } from '@grpc/grpc-js'
import { loadSync, type MessageTypeDefinition, type ServiceDefinition } from '@grpc/proto-loader'
import { ROOT } from './built-agent.ts'
import { until } from './until.ts'

// biome-ignore lint/suspicious/noExplicitAny: tests read members of messages they assert on.
export type Message = any

const OPTIONS = { keepCase: true, longs: Number, enums: String, defaults: false, oneofs: false } as const
const definitions = {
  ...loadSync(
    ['workload.proto', 'holdfast.proto', 'status.proto', 'ext_authz.proto', 'ext_proc.proto', 'sds.proto'],
    { ...OPTIONS, includeDirs: [`${ROOT}proto`] },
  ),
  ...loadSync(['reflection/v1/reflection.proto', 'reflection/v1alpha/reflection.proto'], {
    ...OPTIONS,
    includeDirs: [`${ROOT}node_modules/@grpc/reflection/build/proto/grpc`],
  }),
  ...loadSync('health/v1/health.proto', {
    ...OPTIONS,
    includeDirs: [`${ROOT}node_modules/grpc-health-check/proto`],
  }),
}

/** How a call ended. */
export interface Ending {
  /** The status code's name. */
  readonly code: string
  readonly details: string
  /** `google.rpc.ErrorInfo` of the status. */
  readonly info: { readonly reason: string; readonly domain: string } | undefined
}

/** An open stream: what came so far, and how it ended. */
export interface RawStream {
  readonly messages: readonly Message[]
  readonly ending: Ending | undefined
  send(message: Message): void
  /** Waits for this many messages; the last of them. */
  message(count: number): Promise<Message>
  /** Waits for the end. */
  end(): Promise<Ending>
  cancel(): void
  /** Reading stops until `resume`. */
  pause(): void
  resume(): void
}

/** Pairs of names and values; a name may come twice. */
export type Headers = readonly (readonly [string, string])[]
export const SECURITY: Headers = [['workload.spiffe.io', 'true']]

/** A client with one connection of its own. */
export class RawClient implements Disposable {
  readonly #client: Client

  constructor(socket: string) {
    this.#client = new Client(`unix:${socket}`, credentials.createInsecure(), {
      'grpc.use_local_subchannel_pool': 1,
      'grpc.enable_retries': 0,
      'grpc.default_authority': 'localhost',
    })
  }

  /** The answer of a unary RPC, or how it was refused. */
  async unary(method: string, request: object, headers: Headers = SECURITY): Promise<Message | Ending> {
    const stream = this.open(method, request, headers)
    const ending = await stream.end()
    return ending.code === 'OK' ? stream.messages[0] : ending
  }

  /** Opens a stream; its request is sent unless `request` is undefined. A message may be its bytes. */
  open(method: string, request: object | undefined, headers: Headers = SECURITY): RawStream {
    const { path, serialize, deserialize } = definitionOf(method)
    const bytesOf = (message: Message) => (Buffer.isBuffer(message) ? message : serialize(message))
    const call = this.#client.makeBidiStreamRequest(path, bytesOf, deserialize, metadataOf(headers))
    const messages: Message[] = []
    let ending: Ending | undefined
    call.on('data', (message: Message) => messages.push(message))
    call.on('error', () => {})
    call.on('status', (state: StatusObject) => {
      ending = endingOf(state)
    })
    if (request !== undefined) {
      call.write(request)
      call.end()
    }
    return {
      messages,
      get ending() {
        return ending
      },
      send: (message) => call.write(message),
      message: async (count) => {
        await until(
          `message ${count} of ${method}: ${JSON.stringify(ending)}`,
          () => messages.length >= count,
        )
        return messages[count - 1]
      },
      end: () => until(`the end of ${method}`, () => ending),
      cancel: () => call.cancel(),
      pause: () => call.pause(),
      resume: () => call.resume(),
    }
  }

  [Symbol.dispose](): void {
    this.#client.close()
  }
}

/** The first message or the refusal of a server stream, which is then cancelled. */
export async function first(client: RawClient, method: string, request: object = {}, headers = SECURITY) {
  const stream = client.open(method, request, headers)
  const answer = await until(`an answer of ${method}`, () => stream.messages[0] ?? stream.ending)
  stream.cancel()
  return answer
}

function definitionOf(method: string) {
  const [service = '', name = ''] = method.split('/')
  const found = (definitions[service] as ServiceDefinition | undefined)?.[name]
  if (!found) {
    const bytes = (value: Buffer) => value
    return { path: `/${method}`, serialize: () => Buffer.alloc(0), deserialize: bytes }
  }
  return { path: found.path, serialize: found.requestSerialize, deserialize: found.responseDeserialize }
}

function metadataOf(headers: Headers): Metadata {
  const metadata = new Metadata()
  for (const [name, value] of headers) metadata.add(name, value)
  return metadata
}

function endingOf({ code, details, metadata }: StatusObject): Ending {
  const [raw] = metadata.get('grpc-status-details-bin')
  return { code: status[code] ?? String(code), details, info: raw ? errorInfoOf(raw as Buffer) : undefined }
}

function errorInfoOf(raw: Buffer): Ending['info'] {
  const of = (name: string) => definitions[name] as MessageTypeDefinition<object, object>
  const { details } = of('google.rpc.Status').deserialize(raw) as { details: { value: Buffer }[] }
  const [detail] = details
  return detail && (of('google.rpc.ErrorInfo').deserialize(detail.value) as Ending['info'])
}
