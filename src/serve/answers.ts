/** How each kind of call is answered: header, readiness and caller first, and a Fault on the way back where one is thrown. */
import { Fault } from '../base/fault.ts'
import { CODE } from '../http2/frame.ts'
import { writeBlock } from '../http2/hpack.ts'
import type { RequestHead } from '../http2/request-fields.ts'
import type { Stream as Http2Stream, StreamUser } from '../http2/stream.ts'
import { Call, type CallReader } from './call.ts'
import { endWithLease, signalOf } from './call-end.ts'
import type { Caller } from './caller.ts'
import { OpenDialog } from './dialog.ts'
import { type EncodeFault, faultEncoder, statusFields } from './fault-status.ts'
import { OpenFeed } from './feed.ts'
import type { GrpcOptions, Handler, Handlers, Stream, Unary } from './grpc.ts'
import { type Message, type Method, methodsOf } from './messages.ts'
import { newestOnly } from './newest.ts'
import { timeoutOf } from './timeout.ts'

/** How a call is answered, once it is known who asks; what it throws ends the call. */
export type Answer = (call: Call, caller: Caller) => CallReader

const HEADER = 'workload.spiffe.io'
const MEDIA_TYPE = /^application\/grpc(?:\+proto)?(?:;|$)/
const NO_GRPC = writeBlock([[':status', '415']])
const NO_POST = writeBlock([
  [':status', '405'],
  ['allow', 'POST'],
])

/** What answers each method, by path. */
export class Answers {
  readonly #options: GrpcOptions
  readonly #encode: EncodeFault = faultEncoder()
  readonly #byPath = new Map<string, Answer>()

  constructor(options: GrpcOptions) {
    this.#options = options
  }

  add(service: string, handlers: Handlers): void {
    const methods = methodsOf(service)
    for (const [name, handler] of Object.entries(handlers)) {
      const method = methods[name]
      if (!method) throw new Fault('bug', `no .proto has ${service}/${name}`)
      this.set(method.path, this.#answer(`${service}/${name}`, refusing(method), handler))
    }
  }

  set(path: string, answer: Answer): void {
    this.#byPath.set(path, answer)
  }

  /** A call counts from its head until it is over: what its request holds meanwhile is bounded by that. */
  open(caller: Caller, stream: Http2Stream, { method, path, fields }: RequestHead): StreamUser | undefined {
    const name = path.slice(1)
    const call = new Call(stream, fields, (of, caught) => this.#fail(of, name, caught))
    const [type = ''] = call.field('content-type')
    if (method !== 'POST' || !MEDIA_TYPE.test(type)) {
      stream.finish(method === 'POST' ? NO_GRPC : NO_POST)
      return undefined
    }
    const answer = this.#byPath.get(path)
    if (!answer)
      call.fail(statusFields(new Fault('unimplemented', `there is no method ${name}`), this.#encode))
    else if (this.#count(call, caller, name, stream)) this.#begin(call, caller, name, answer)
    return call
  }

  #count(call: Call, caller: Caller, name: string, stream: Http2Stream): boolean {
    try {
      call.onClose(this.#options.calls.take(caller.owner))
      return true
    } catch (caught) {
      this.#options.onCall(name, Fault.from(caught))
      // Clients read this as "not now": gRPC maps it to UNAVAILABLE.
      stream.reset(CODE.refused)
      return false
    }
  }

  #begin(call: Call, caller: Caller, name: string, answer: Answer): void {
    try {
      call.read(answer(call, caller))
    } catch (caught) {
      this.#fail(call, name, caught)
    }
  }

  #answer(name: string, method: Method, handler: Handler): Answer {
    if ('unary' in handler) return this.#unary(name, method, handler.unary)
    if ('stream' in handler) return this.#stream(name, method, handler.stream)
    if ('exchange' in handler) return this.#exchange(name, method, handler.exchange)
    if ('dialog' in handler) return this.#dialog(name, method, handler.dialog)
    return this.#feed(name, method, handler.feed)
  }

  /** The security header comes before everything else (SPIFFE_Workload_Endpoint.md s.3). */
  #admit(name: string, call: Call): void {
    const header = call.field(HEADER)
    const isFree = this.#options.withoutHeader?.has(name.slice(0, name.lastIndexOf('/'))) === true
    if (!isFree && (header.length !== 1 || header[0] !== 'true')) throw new Fault('header_missing')
    this.#options.admit()
  }

  /** A call of several messages is over with the lease of its caller. */
  #admitLong(name: string, call: Call, caller: Caller, end: (fault: Fault) => void): void {
    this.#admit(name, call)
    this.#options.onCall(name, undefined)
    endWithLease(caller, (then) => call.onClose(then), end)
  }

  #fail(call: Call, name: string, caught: unknown): void {
    const fault = Fault.from(caught)
    this.#options.onCall(name, fault)
    call.fail(statusFields(fault, this.#encode))
  }

  #unary(name: string, method: Method, handle: Unary): Answer {
    const answer = async (call: Call, caller: Caller, request: Message) => {
      try {
        this.#admit(name, call)
        const message = await handle(caller, request, this.#goneOf(call))
        this.#options.onCall(name, undefined)
        call.write(method.responseSerialize(message))
        call.finish()
      } catch (caught) {
        this.#fail(call, name, caught)
      }
    }
    return (call, caller) => oneRequest(method, (request) => void answer(call, caller, request))
  }

  /** Gives the signal that aborts when nobody waits for the answer any more. */
  #goneOf(call: Call): () => AbortSignal {
    return signalOf((gone) => {
      call.onClose(gone)
      const [timeout] = call.field('grpc-timeout')
      const left = timeout === undefined ? undefined : timeoutOf(timeout)
      if (left !== undefined) call.onClose(this.#options.clock.after(left, () => gone(new Fault('deadline'))))
    })
  }

  #stream(
    name: string,
    method: Method,
    handle: (caller: Caller, request: Message, stream: Stream) => void,
  ): Answer {
    return (call, caller) =>
      oneRequest(method, (request) => {
        const stream = newestOnly(call, method, (fault) => this.#fail(call, name, fault))
        this.#admitLong(name, call, caller, stream.end)
        handle(caller, request, stream)
      })
  }

  #exchange(
    name: string,
    method: Method,
    handle: (caller: Caller, request: Message) => Message | Promise<Message>,
  ): Answer {
    return (call, caller) => {
      this.#admitLong(name, call, caller, (fault) => this.#fail(call, name, fault))
      // Reading stops while the other side does not take answers, and while others have their turn.
      const say = (message: Message) => {
        if (call.isClosed) return
        if (call.write(method.responseSerialize(message))) call.resume()
        else call.pause()
      }
      const answerLater = async (request: Message, wait: Promise<void> | Promise<Message>) => {
        call.pause()
        try {
          const made = await wait
          if (!call.isClosed) say(made ?? (await handle(caller, request)))
        } catch (caught) {
          this.#fail(call, name, caught)
        }
      }
      return {
        message: (bytes) => {
          const request = method.requestDeserialize(bytes)
          const made = this.#options.turns.enter(caller.owner) ?? handle(caller, request)
          if (made instanceof Promise) void answerLater(request, made)
          else say(made)
        },
        drained: () => call.resume(),
        end: () => call.finish(),
      }
    }
  }

  #dialog(name: string, method: Method, open: Extract<Handler, { dialog: unknown }>['dialog']): Answer {
    return (call, caller) => {
      const fail = (fault: Fault) => this.#fail(call, name, fault)
      const dialog = new OpenDialog(call, method, fail, () => this.#options.turns.enter(caller.owner))
      this.#admitLong(name, call, caller, (fault) => dialog.end(fault))
      return dialog.reader(open(caller, dialog))
    }
  }

  #feed(name: string, method: Method, open: Extract<Handler, { feed: unknown }>['feed']): Answer {
    return (call, caller) => {
      const feed = new OpenFeed(call, method, (fault) => this.#fail(call, name, fault))
      this.#admitLong(name, call, caller, (fault) => feed.end(fault))
      return feed.reader(open(caller, feed))
    }
  }
}

/** What cannot be decoded is the caller's fault, not the agent's. */
function refusing(method: Method): Method {
  const requestDeserialize = (bytes: Buffer) => {
    try {
      return method.requestDeserialize(bytes)
    } catch (cause) {
      throw new Fault('invalid_request', `the message is none of ${method.path.slice(1)}`, { cause })
    }
  }
  return { ...method, requestDeserialize }
}

/** Reads a call of one request, which is answered once the caller has said its last. */
function oneRequest(method: Method, then: (request: Message) => void): CallReader {
  let request: Message | undefined
  return {
    message: (bytes) => {
      if (request) throw new Fault('unimplemented', 'the method takes one message, and there is another')
      request = method.requestDeserialize(bytes)
    },
    end: () => {
      if (!request) throw new Fault('unimplemented', 'the method takes one message, and there is none')
      then(request)
    },
  }
}
