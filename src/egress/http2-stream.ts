/** One HTTP/2 stream of a caller, told in the words of HTTP/1.1: what follows need not know the difference. */
import { constants, type ServerHttp2Stream } from 'node:http2'
import type { Clock, Millis } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import { type EncodeFault, statusFields } from '../serve/fault-status.ts'
import { markedFault, markOf } from './answer.ts'
import { firstOf, pairsOf, type RawHeaders, valuesOf } from './headers.ts'
import { objectOf, rawOf, sendTrailers } from './http2.ts'
import type { CallerRequest, CallerResponse } from './sides.ts'

/** The head of a request as it came, pseudo-headers included. */
export interface Head2 {
  readonly raw: RawHeaders
  /** No body follows. */
  readonly isWhole: boolean
}

/** A request. */
export class Request2 implements CallerRequest {
  readonly method: string
  readonly url: string
  readonly rawHeaders: string[]
  readonly #stream: ServerHttp2Stream
  readonly #head: Head2
  #trailers: RawHeaders = []
  #hasEnded = false

  constructor(stream: ServerHttp2Stream, head: Head2) {
    this.#stream = stream
    this.#head = head
    this.method = firstOf(head.raw, ':method') ?? ''
    this.url = firstOf(head.raw, ':path') ?? ''
    this.rawHeaders = headersOf(head)
    stream.on('trailers', (fields) => {
      this.#trailers = rawOf(fields)
    })
    // Node ends a stream that its caller resets as well: that is no end of the body.
    stream.once('end', () => {
      this.#hasEnded = !stream.closed
    })
  }

  get rawTrailers(): string[] {
    return [...this.#trailers]
  }

  get complete(): boolean {
    return this.#head.isWhole || this.#hasEnded
  }

  get readableDidRead(): boolean {
    return this.#stream.readableDidRead
  }

  /** gRPC: its clients read a status of their own and no other. */
  get isGrpc(): boolean {
    return /^application\/grpc(?:[+;]|$)/i.test(firstOf(this.#head.raw, 'content-type') ?? '')
  }

  /** Throws method_not_allowed, invalid_request. */
  check(): void {
    const { raw } = this.#head
    const isTunnel = this.method === 'CONNECT' || firstOf(raw, ':protocol') !== undefined
    if (isTunnel) throw new Fault('method_not_allowed', 'CONNECT is refused')
    // What is signed is what is sent: to a target of HTTP/1.1 Node would send it in capitals.
    if (/[a-z]/.test(this.method)) throw new Fault('invalid_request', 'the method has small letters')
    const scheme = firstOf(raw, ':scheme')
    if (scheme !== 'http')
      throw new Fault('invalid_request', 'the :scheme is not http: it is the agent that speaks TLS')
    if (!this.url.startsWith('/')) throw new Fault('invalid_request', 'the :path is no path')
    if (firstOf(raw, 'expect') !== undefined && firstOf(raw, 'expect')?.toLowerCase() !== '100-continue')
      throw new Fault('invalid_request', 'the expectation is unknown')
  }

  on(event: 'data' | 'error', listener: (chunk: Buffer) => void): void {
    this.#stream.on(event, listener)
  }

  once(event: 'end', listener: () => void): void {
    this.#stream.once(event, () => {
      if (this.complete) listener()
    })
  }

  pause(): void {
    this.#stream.pause()
  }

  resume(): void {
    this.#stream.resume()
  }

  /** Throws away what still comes: to reset the stream would take the answer with it. */
  destroy(): void {
    this.#stream.removeAllListeners('data').resume()
  }
}

/** RFC 9113 s.8.3.1: `:authority` is Host; both are one name, or they are two Hosts. */
function headersOf({ raw, isWhole }: Head2): string[] {
  const fields = pairsOf(raw).filter(
    ([name]) => !name.startsWith(':') && name !== 'host' && name !== 'cookie',
  )
  const hosts = [...valuesOf(raw, ':authority'), ...valuesOf(raw, 'host')]
  const [first] = hosts
  const isOne =
    valuesOf(raw, 'host').length < 2 && hosts.every((host) => host.toLowerCase() === first?.toLowerCase())
  const names = isOne ? hosts.slice(0, 1) : hosts
  // RFC 9113 s.8.2.3: what was split for compression is one field again.
  const cookies = valuesOf(raw, 'cookie')
  const isLong = !isWhole && firstOf(raw, 'content-length') === undefined
  return [
    ...names.flatMap((name) => ['host', name]),
    ...fields.flat(),
    ...(cookies.length > 0 ? ['cookie', cookies.join('; ')] : []),
    // A body of unknown length has this name in HTTP/1.1 (RFC 9112 s.6.1); callers cannot send it here.
    ...(isLong ? ['transfer-encoding', 'chunked'] : []),
  ]
}

const LINGER: Millis = 1_000

/** An answer. Its head waits for what follows, so that one without a body can end the stream at once. */
export class Response2 implements CallerResponse {
  statusCode = 0
  readonly #stream: ServerHttp2Stream
  readonly #clock: Clock
  #head: RawHeaders | undefined
  #trailers: RawHeaders = []
  /** Node ends a stream that its caller resets: that is no end of the answer. */
  #hasEnded = false

  constructor(stream: ServerHttp2Stream, clock: Clock) {
    this.#stream = stream
    this.#clock = clock
    stream.on('wantTrailers', () => {
      sendTrailers(stream, this.#trailers)
      if (!stream.readableEnded) this.#endSoon(constants.NGHTTP2_NO_ERROR)
    })
  }

  get headersSent(): boolean {
    return this.#head !== undefined || this.#stream.headersSent
  }

  get destroyed(): boolean {
    return this.#stream.destroyed || this.#stream.closed
  }

  get writableEnded(): boolean {
    return this.#hasEnded
  }

  get writableFinished(): boolean {
    const { rstCode, writableFinished } = this.#stream
    return this.#hasEnded && writableFinished && (rstCode ?? 0) === constants.NGHTTP2_NO_ERROR
  }

  writeContinue(): void {
    if (!this.destroyed && !this.headersSent) this.#stream.additionalHeaders({ ':status': 100 })
  }

  writeHead(status: number, headers: RawHeaders): void {
    this.statusCode = status
    this.#head = headers
  }

  flushHeaders(): void {
    this.#respond(false)
  }

  write(chunk: Buffer): boolean {
    this.#respond(false)
    return this.#stream.write(chunk)
  }

  addTrailers(trailers: readonly (readonly [string, string])[]): void {
    this.#trailers = trailers.flat()
  }

  end(body?: string): void {
    this.#hasEnded = true
    const isBare = body === undefined && this.#trailers.length === 0 && !this.#stream.headersSent
    this.#respond(isBare)
    if (!this.#stream.writableEnded) this.#stream.end(body)
    if (isBare && !this.#stream.readableEnded) this.#endSoon(constants.NGHTTP2_NO_ERROR)
  }

  destroy(): void {
    this.#stream.close(constants.NGHTTP2_INTERNAL_ERROR)
  }

  on(event: 'drain', listener: () => void): void {
    this.#stream.on(event, listener)
  }

  once(event: 'finish' | 'close', listener: () => void): void {
    this.#stream.once(event, () => {
      if (event === 'close' || this.writableFinished) listener()
    })
  }

  /** Ends a begun answer with `trailers`, whether the caller reads or not. */
  breakOff(trailers: readonly (readonly [string, string])[]): void {
    this.addTrailers(trailers)
    this.end()
    this.#endSoon(constants.NGHTTP2_CANCEL)
  }

  #respond(endStream: boolean): void {
    const headers = this.#head
    if (!headers || this.destroyed || this.#stream.headersSent) return
    const fields = { ':status': this.statusCode, ...objectOf(headers) }
    this.#stream.respond(fields, endStream ? { endStream } : { waitForTrailers: true })
  }

  /** RFC 9113 s.8.1: a caller that still sends is stopped once it has had the time to read its answer. */
  #endSoon(code: number): void {
    const stream = this.#stream
    stream.once(
      'close',
      this.#clock.after(LINGER, () => stream.close(code)),
    )
  }
}

/** How a stream is refused: gRPC hears a status of its own, in a head alone or, where messages came before, behind them. */
export function refusing(
  request: Request2,
  response: Response2,
  encode: EncodeFault,
): (fault: Fault) => void {
  return (fault) => {
    if (response.destroyed || response.writableEnded) return
    if (!request.isGrpc) return refuseHttp(response, fault)
    const status = [...statusFields(fault, encode), ...Object.entries(markOf(fault))]
    if (response.headersSent) return response.breakOff(status)
    response.writeHead(constants.HTTP_STATUS_OK, ['content-type', 'application/grpc', ...status.flat()])
    response.end()
  }
}

function refuseHttp(response: Response2, fault: Fault): void {
  if (response.headersSent) return void response.destroy()
  const { status, headers, body } = markedFault(fault)
  response.writeHead(
    status,
    Object.entries(headers).flatMap(([name, value]) => [name, String(value)]),
  )
  response.end(body)
}
