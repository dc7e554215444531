/** The body of a caller's request on its way to a target: streamed, and its beginning kept for a second try. */
import type { DigestCheck } from '../proof/content-digest.ts'
import type { Attempt } from './attempt.ts'
import { passTrailers } from './headers.ts'
import type { CallerRequest } from './sides.ts'

export interface BodyOptions {
  /** How much is kept, in bytes. */
  readonly limit: number
  /** Hears of each chunk. */
  readonly onBytes: () => void
}

/** What the body is held to. */
interface Hold {
  readonly check: DigestCheck
  readonly onMismatch: () => void
  /** The newest chunk: the target has no whole body before the digest is right. */
  last: Buffer | undefined
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
  #hold: Hold | undefined
  #onGathered: (() => void) | undefined

  constructor(source: CallerRequest, options: BodyOptions) {
    this.#source = source
    this.#options = options
  }

  /** Whether another try can send all of it. */
  get isReplayable(): boolean {
    return this.#kept !== undefined
  }

  /** Compares it with a digest while it is sent; after a redirect, with what came before that too. */
  holdTo(check: DigestCheck, onMismatch: () => void): void {
    const last = this.#hold?.last
    for (const chunk of this.#kept ?? []) check.update(chunk)
    if (last) check.update(last)
    this.#hold = { check, onMismatch, last }
    if (this.#hasEnded && !check.isMatch()) onMismatch()
  }

  /** All of it, before it is sent; undefined as soon as it is too long to be kept. */
  gather(): Promise<readonly Buffer[] | undefined> {
    if (this.#hasEnded) return Promise.resolve(this.#kept)
    return new Promise((resolve) => {
      this.#onGathered = () => {
        this.#onGathered = undefined
        resolve(this.#kept)
      }
      this.#listen()
      this.#source.resume()
    })
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
    this.#source.once('end', () => this.#end())
  }

  #take(chunk: Buffer): void {
    this.#options.onBytes()
    this.#size += chunk.length
    if (this.#size > this.#options.limit) this.#kept = undefined
    const next = this.#hold ? swap(this.#hold, chunk) : chunk
    if (next) this.#send(next)
  }

  #send(chunk: Buffer): void {
    this.#kept?.push(chunk)
    if (this.#onGathered) {
      if (!this.#kept) this.#onGathered()
      return
    }
    const { sink } = this.#attempt ?? {}
    if (!sink || sink.destroyed || !sink.writable || !sink.write(chunk)) this.#source.pause()
  }

  #end(): void {
    const hold = this.#hold
    if (hold && !hold.check.isMatch()) {
      hold.onMismatch()
      return
    }
    if (hold?.last) this.#send(hold.last)
    if (hold) hold.last = undefined
    this.#hasEnded = true
    this.#onGathered?.()
    this.#attempt?.finish(passTrailers(this.#source.rawTrailers))
  }
}

/** Keeps `chunk` back and gives what was kept before. */
function swap(hold: Hold, chunk: Buffer): Buffer | undefined {
  hold.check.update(chunk)
  const { last } = hold
  hold.last = chunk
  return last
}
