/**
 * gRPC on connections that somebody else accepted and attested; the only import of grpc-js servers. The caller of a
 * stream is found by the address that its connection was given, never by anything the client says.
 */
import { constants, type ServerHttp2Stream } from 'node:http2'
import { Socket } from 'node:net'
import { Duplex } from 'node:stream'
import {
  experimental,
  type handleBidiStreamingCall,
  type handleServerStreamingCall,
  type handleUnaryCall,
  Metadata,
  Server,
  ServerCredentials,
  type ServerDuplexStream,
  ServerInterceptingCall,
  type ServerInterceptor,
  type ServerWritableStream,
  type UntypedServiceImplementation,
} from '@grpc/grpc-js'
import { Fault } from '../base/fault.ts'
import { closing, endWithLease, goneOf } from './call-end.ts'
import type { Caller } from './caller.ts'
import { type Dialog, type Hear, OpenDialog } from './dialog.ts'
import { type EncodeFault, faultEncoder } from './fault-status.ts'
import { type Feed, WireFeed } from './feed.ts'
import type { OwnerLimits } from './limits.ts'
import { type Message, methodsOf } from './messages.ts'
import { standardServices } from './standard-services.ts'
import { STATUS } from './status.ts'
import type { Turns } from './turns.ts'

/** The sending half of a server stream whose messages are full states: a slow reader gets only the newest. */
export interface Stream {
  send(message: Message): void
  end(fault: Fault): void
  /** Calls `then` once the stream has ended, whoever ended it. */
  onClose(then: () => void): void
}

/** Answers one request; `gone` gives a signal that aborts when the caller gives the call up. */
export type Unary = (caller: Caller, request: Message, gone: () => AbortSignal) => Message | Promise<Message>

/**
 * How one RPC is answered. `exchange` answers each message of a two-way stream with one message, in order; `dialog` opens
 * one that answers when it can, and returns what hears the caller; in `feed` the agent speaks unasked too.
 */
export type Handler =
  | { readonly unary: Unary }
  | { readonly stream: (caller: Caller, request: Message, stream: Stream) => void }
  | { readonly exchange: (caller: Caller, request: Message) => Message }
  | { readonly dialog: (caller: Caller, dialog: Dialog) => Hear }
  | { readonly feed: (caller: Caller, feed: Feed) => (request: Message) => void }

export type Handlers = Readonly<Record<string, Handler>>

export interface GrpcOptions {
  /** Throws not_ready or draining. */
  readonly admit: () => void
  /** Hears of each call that began, and of the reason when it failed. */
  readonly onCall: (method: string, fault: Fault | undefined) => void
  readonly streamsPerConnection: number
  /** Services whose clients send no `workload.spiffe.io`, by full name. */
  readonly withoutHeader?: ReadonlySet<string>
  /** Open calls by uid; one too many is refused before its request is read. */
  readonly calls: OwnerLimits
  /** When those begin that have one answer. */
  readonly turns?: Turns
}

/** The gRPC side of a socket. */
export interface GrpcSide {
  /** Serves `caller` on `connection`, which must not have been read from. */
  inject(connection: Duplex, caller: Caller): void
  /** Adds reflection and health. */
  addStandardServices(): void
  /** Sends GOAWAY, then ends what is still open after `grace` ms. */
  drain(grace: number): void
  stop(): void
}

const HEADER = 'workload.spiffe.io'
const MESSAGE_LIMIT = 1024 * 1024
const SESSION_MEMORY_MB = 4

/** Serves `services` (full service name to handlers). */
export function openGrpc(services: Readonly<Record<string, Handlers>>, options: GrpcOptions): GrpcSide {
  const callers = new Map<string, Caller>()
  const server = new Server({
    interceptors: [limitCalls(callers, options)],
    'grpc.max_receive_message_length': MESSAGE_LIMIT,
    'grpc.max_concurrent_streams': options.streamsPerConnection,
    'grpc-node.max_session_memory': SESSION_MEMORY_MB,
    'grpc.enable_channelz': 0,
  })
  outliveResets(server)
  const wrap = new Wrapper(callers, options, faultEncoder())
  for (const [name, handlers] of Object.entries(services))
    server.addService(methodsOf(name), wrap.all(name, handlers))
  const injector = server.createConnectionInjector(ServerCredentials.createInsecure())
  const ownInjectors = new Set<Injector>()
  return {
    inject: (connection, caller) => {
      const key = nextKey()
      callers.set(key, caller)
      connection.once('close', () => callers.delete(key))
      if (!(connection instanceof Socket)) return injectStream(server, ownInjectors, connection, key)
      Object.defineProperty(connection, 'remoteAddress', { value: key, configurable: true })
      Object.defineProperty(connection, 'remotePort', { value: undefined, configurable: true })
      injector.injectConnection(connection)
    },
    addStandardServices: () => {
      for (const { definition, implementation } of standardServices(Object.keys(services)))
        server.addService(definition, implementation)
    },
    drain: (grace) => {
      for (const one of [injector, ...ownInjectors]) one.drain(grace)
    },
    stop: () => {
      for (const own of ownInjectors) own.destroy()
      injector.destroy()
      server.forceShutdown()
    },
  }
}

/**
 * grpc-js refuses methods and media types that it does not know by itself, and throws where the call was reset by then:
 * nobody would catch it, and any local process could end the agent with one packet.
 */
function outliveResets(server: Server): void {
  const name = '_streamHandler'
  const handle: unknown = Reflect.get(server, name)
  if (typeof handle !== 'function') throw new Fault('bug', `grpc-js has no ${name}`)
  Reflect.set(server, name, (...given: readonly [unknown, ServerHttp2Stream, unknown]) => {
    const [, stream] = given
    try {
      Reflect.apply(handle, server, given)
    } catch (caught) {
      if (!stream.destroyed && !stream.closed) throw caught
    }
  })
}

let connections = 0

/** grpc-js prints a peer as `address:port`; without a port, the address as it is. */
function nextKey(): string {
  connections += 1
  return `peer-${connections}`
}

type Injector = ReturnType<Server['createConnectionInjector']>

/** Node's HTTP/2 shows no address of a stream that is no socket: its calls are told theirs by an interceptor. */
function injectStream(server: Server, injectors: Set<Injector>, stream: Duplex, key: string): void {
  const insecure = ServerCredentials.createInsecure()
  const credentials = experimental.createServerCredentialsWithInterceptors(insecure, [
    (_method, call) => Object.assign(new ServerInterceptingCall(call), { getPeer: () => key }),
  ])
  const injector = server.createConnectionInjector(credentials)
  injectors.add(injector)
  stream.once('close', () => {
    injectors.delete(injector)
    injector.destroy()
  })
  injector.injectConnection(stream)
}

/**
 * Counts a call from its first frame to its last: what a request holds while it arrives is bounded by this and the
 * message limit. The stream is no public part of a call, and an interceptor that wraps calls would cost each 10 µs.
 */
function limitCalls(callers: ReadonlyMap<string, Caller>, options: GrpcOptions): ServerInterceptor {
  return (method, call) => {
    const unchanged = call as ServerInterceptingCall
    const caller = callers.get(call.getPeer())
    const stream = streamOf(call)
    if (!caller || !stream) return unchanged
    try {
      stream.once('close', options.calls.take(caller.owner))
    } catch (caught) {
      options.onCall(method.path.slice(1), Fault.from(caught))
      // Clients read this as "not now": gRPC maps it to UNAVAILABLE.
      stream.close(constants.NGHTTP2_REFUSED_STREAM)
    }
    return unchanged
  }
}

/** The HTTP/2 stream at the bottom of a call. */
function streamOf(call: unknown): ServerHttp2Stream | undefined {
  if (typeof call !== 'object' || call === null) return undefined
  const stream: unknown = Reflect.get(call, 'stream')
  if (stream instanceof Duplex) return stream as ServerHttp2Stream
  return streamOf(Reflect.get(call, 'nextCall'))
}

interface AnyCall {
  readonly metadata: Metadata
  getPeer(): string
}

/** Wraps handlers: header, readiness, caller, and Faults on the way back. */
class Wrapper {
  readonly #callers: ReadonlyMap<string, Caller>
  readonly #options: GrpcOptions
  readonly #encode: EncodeFault

  constructor(callers: ReadonlyMap<string, Caller>, options: GrpcOptions, encode: EncodeFault) {
    this.#callers = callers
    this.#options = options
    this.#encode = encode
  }

  all(service: string, handlers: Handlers): UntypedServiceImplementation {
    const wrapped = Object.entries(handlers).map(([method, handler]) => [
      method,
      this.#one(`${service}/${method}`, handler),
    ])
    return Object.fromEntries(wrapped) as UntypedServiceImplementation
  }

  #one(name: string, handler: Handler) {
    if ('unary' in handler) return this.#unary(name, handler.unary)
    if ('stream' in handler) return this.#stream(name, handler.stream)
    if ('dialog' in handler) return this.#dialog(name, handler.dialog)
    if ('feed' in handler) return this.#feed(name, handler.feed)
    return this.#exchange(name, handler.exchange)
  }

  /** The security header comes before everything else (SPIFFE_Workload_Endpoint.md s.3). */
  #admit(name: string, call: AnyCall): Caller {
    const header = call.metadata.get(HEADER)
    const isFree = this.#options.withoutHeader?.has(name.slice(0, name.lastIndexOf('/'))) === true
    if (!isFree && (header.length !== 1 || header[0] !== 'true')) throw new Fault('header_missing')
    this.#options.admit()
    const caller = this.#callers.get(call.getPeer())
    if (!caller) throw new Fault('peer_gone')
    return caller
  }

  #error(name: string, caught: unknown) {
    const fault = Fault.from(caught)
    this.#options.onCall(name, fault)
    const metadata = new Metadata()
    metadata.set('grpc-status-details-bin', this.#encode(fault))
    return { code: STATUS[fault.reason].grpc, details: fault.message, metadata }
  }

  #unary(name: string, handle: Unary) {
    const run: handleUnaryCall<Message, Message> = async (call, callback) => {
      try {
        const caller = this.#admit(name, call)
        const wait = this.#options.turns?.enter(caller.owner)
        if (wait) await wait
        const answer = await handle(caller, call.request, goneOf(call))
        this.#options.onCall(name, undefined)
        callback(null, answer)
      } catch (caught) {
        callback(this.#error(name, caught))
      }
    }
    return run
  }

  #stream(name: string, handle: (caller: Caller, request: Message, stream: Stream) => void) {
    const run: handleServerStreamingCall<Message, Message> = (call) => {
      const end = (fault: Fault) => call.emit('error', this.#error(name, fault))
      const stream = newestOnly(call, end)
      try {
        const caller = this.#admit(name, call)
        this.#options.onCall(name, undefined)
        endWithLease(caller, stream.onClose, end)
        handle(caller, call.request, stream)
      } catch (caught) {
        end(Fault.from(caught))
      }
    }
    return run
  }

  #exchange(name: string, handle: (caller: Caller, request: Message) => Message) {
    const run: handleBidiStreamingCall<Message, Message> = (call) => {
      const end = (caught: unknown) => call.emit('error', this.#error(name, caught))
      try {
        const caller = this.#admit(name, call)
        this.#options.onCall(name, undefined)
        endWithLease(caller, closing(call), end)
        answerEach(call, (request) => handle(caller, request), end)
      } catch (caught) {
        end(caught)
      }
    }
    return run
  }

  #dialog(name: string, open: (caller: Caller, dialog: Dialog) => Hear) {
    return this.#twoWay(name, (call, fail) => new OpenDialog(call, fail, closing(call)), open)
  }

  #feed(name: string, open: (caller: Caller, feed: Feed) => (request: Message) => void) {
    return this.#twoWay(name, (call, fail) => new WireFeed(call, closing(call), fail), open)
  }

  #twoWay<S, H>(
    name: string,
    sideOf: (call: ServerDuplexStream<Message, Message>, fail: (caught: unknown) => void) => S & Side<H>,
    open: (caller: Caller, side: S) => H,
  ) {
    const run: handleBidiStreamingCall<Message, Message> = (call) => {
      const side = sideOf(call, (caught) => call.emit('error', this.#error(name, caught)))
      try {
        const caller = this.#admit(name, call)
        this.#options.onCall(name, undefined)
        endWithLease(caller, side.onClose, (fault) => side.end(fault))
        side.listen(open(caller, side))
      } catch (caught) {
        side.end(Fault.from(caught))
      }
    }
    return run
  }
}

/** The agent's side of a two-way call, however it is heard and answered. */
interface Side<H> {
  readonly onClose: Stream['onClose']
  end(fault: Fault): void
  listen(hear: H): void
}

/**
 * A reader that does not read costs one message on its way and one that waits, the newest. Nothing older is queued: the
 * keys of a replaced SVID are wiped after a while, and a message that left later would carry zeros.
 */
function newestOnly(call: ServerWritableStream<Message, Message>, end: (fault: Fault) => void): Stream {
  let waiting: Message | undefined
  let isWriting = false
  let isClosed = false
  const onClose = closing(call)
  onClose(() => {
    isClosed = true
  })
  const send = (message: Message) => {
    if (isClosed) return
    if (isWriting) {
      waiting = message
      return
    }
    isWriting = true
    call.write(message, (error?: Error | null) => {
      isWriting = false
      const next = waiting
      waiting = undefined
      if (next && !error) send(next)
    })
  }
  call.on('error', () => {})
  return { send, end, onClose }
}

/** One answer a message; reading stops while the other side does not take answers. */
function answerEach(
  call: ServerDuplexStream<Message, Message>,
  answer: (request: Message) => Message,
  end: (caught: unknown) => void,
): void {
  call.on('data', (request: Message) => {
    try {
      if (!call.write(answer(request))) {
        call.pause()
        call.once('drain', () => call.resume())
      }
    } catch (caught) {
      end(caught)
    }
  })
  call.on('error', () => {})
  call.on('end', () => call.end())
}
