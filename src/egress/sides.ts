/** A caller's request and the answer to it, as either version of HTTP gives them to the one path that serves both. */

/** A request; Node's IncomingMessage is one. */
export interface CallerRequest {
  readonly method?: string | undefined
  /** The request target. */
  readonly url?: string | undefined
  /** In the words of HTTP/1.1, whichever version brought them: Host, and the framing of the body. */
  readonly rawHeaders: string[]
  /** Once the body has ended. */
  readonly rawTrailers: string[]
  /** Whether all of it has come. */
  readonly complete: boolean
  readonly readableDidRead: boolean
  on(event: 'data', listener: (chunk: Buffer) => void): unknown
  on(event: 'error', listener: () => void): unknown
  once(event: 'end', listener: () => void): unknown
  pause(): unknown
  resume(): unknown
  /** Wants no more of it. */
  destroy(): unknown
}

/** An answer; Node's ServerResponse is one. */
export interface CallerResponse {
  readonly statusCode: number
  readonly headersSent: boolean
  readonly destroyed: boolean
  readonly writableEnded: boolean
  readonly writableFinished: boolean
  writeContinue(): void
  /** Names and values in turn. */
  writeHead(status: number, headers: string[]): unknown
  /** Sends the head at once, without waiting for what follows it. */
  flushHeaders(): void
  /** Whether there is room for more; `drain` follows where there is none. */
  write(chunk: Buffer): boolean
  addTrailers(trailers: readonly [string, string][]): void
  end(): unknown
  /** Breaks it off, so that a part is not taken for all. */
  destroy(): unknown
  on(event: 'drain', listener: () => void): unknown
  once(event: 'finish' | 'close', listener: () => void): unknown
}
