/** The body of a caller's request on its way to a target: streamed, and its beginning kept for a second try. */
import type { Attempt } from './attempt.ts'
import { passTrailers } from './headers.ts'
import type { CallerRequest } from './sides.ts'

export interface BodyOptions {
  /** How much is kept, in bytes. */
  readonly limit: number
  /** Hears of each chunk. */
  readonly onBytes: () => void
}

/** Reads only as fast as the target takes. */
export class Body {
  readonly #source: CallerRequest
  readonly #options: BodyOptions
  #kept: Buffer[] | undefined = []
  #size = 0
  #hasEnded = false
  #attempt: Attempt | undefined
  #isListening = false

  constructor(source: CallerRequest, options: BodyOptions) {
    this.#source = source
    this.#options = options
  }

  /** Whether another try can send all of it. */
  get isReplayable(): boolean {
    return this.#kept !== undefined
  }

  /** Sends it over `attempt`, from its beginning, until `detach`. */
  sendOver(attempt: Attempt): void {
    this.#attempt = attempt
    attempt.sink.on('drain', () => this.#resume(attempt))
    let isFull = false
    for (const chunk of this.#kept ?? []) isFull = !attempt.sink.write(chunk)
    if (this.#hasEnded) attempt.finish(passTrailers(this.#source.rawTrailers))
    else {
      this.#listen()
      if (!isFull) this.#source.resume()
    }
  }

  /** Stops; what comes meanwhile waits in the kernel. */
  detach(): void {
    this.#attempt = undefined
    this.#source.pause()
  }

  #resume(attempt: Attempt): void {
    if (this.#attempt === attempt) this.#source.resume()
  }

  #listen(): void {
    if (this.#isListening) return
    this.#isListening = true
    this.#source.on('data', (chunk: Buffer) => this.#take(chunk))
    this.#source.once('end', () => {
      this.#hasEnded = true
      this.#attempt?.finish(passTrailers(this.#source.rawTrailers))
    })
  }

  #take(chunk: Buffer): void {
    this.#options.onBytes()
    this.#size += chunk.length
    if (this.#size > this.#options.limit) this.#kept = undefined
    this.#kept?.push(chunk)
    const { sink } = this.#attempt ?? {}
    if (!sink || sink.destroyed || !sink.writable || !sink.write(chunk)) this.#source.pause()
  }
}
