/**
 * One SDS stream: what it asked for, what it was sent, and what is new to it. A secret is sent once and again when its
 * content changes; what the client says of it (ACK, NACK) never sends it again.
 */
import { randomBytes } from 'node:crypto'
import { Fault } from '../base/fault.ts'
import type { Outgoing } from '../serve/feed.ts'
import type { Message } from '../serve/messages.ts'
import { type Asked, type Found, isPassing } from './sds-names.ts'
import { type Secret, versionOfAll } from './sds-secrets.ts'

/** What one message of a client says. */
export interface Heard {
  /** Names from now on: undefined is everything, `same` none other than before. */
  readonly names: ReadonlySet<string> | undefined | 'same'
  /** Names to send even if they were sent before. */
  readonly again: readonly string[]
  readonly nonce: string
  /** Why the client could not use what it was sent. */
  readonly error: string | undefined
  readonly isPlain: boolean | undefined
}

/** The two forms of the protocol: state of the world, and incremental. */
export interface Dialect {
  /** Reads a message; `names` are those so far, undefined before the first. Throws invalid_request. */
  hear(message: Message, names: Asked['names'], isFirst: boolean): Heard
  /** Whether a message with an old nonce says nothing at all. */
  readonly ignoresStale: boolean
  /** The message with these secrets, `removed` being names that lead nowhere any more; undefined says nothing. */
  render(changed: readonly EncodedSecret[], removed: readonly string[], state: State): Message | undefined
}

export interface EncodedSecret {
  readonly secret: Secret
  readonly bytes: Buffer
}

export interface State {
  readonly version: string
  readonly nonce: string
}

/** What the client made of what it was sent last. */
export type Verdict = 'ack' | 'nack'

export interface SecretStreamOptions {
  readonly dialect: Dialect
  /** The caller's secrets now; throws what ends the stream. */
  readonly find: (asked: Asked) => Found
  readonly onVerdict: (verdict: Verdict, error: string | undefined) => void
  readonly onSent: (secrets: readonly Secret[]) => void
  /** Counts the stream as waiting, or no longer; throws too_many_calls. */
  readonly onWaiting: (isWaiting: boolean) => void
}

const NONCE_BYTES = 12

/** States: silent until the first message; then waiting (nothing to send yet) or served. */
export class SecretStream {
  readonly #options: SecretStreamOptions
  readonly #sent = new Map<string, string>()
  #names: Asked['names']
  #isPlain = false
  #isFirst = true
  #nonce = ''
  #isJudged = true

  constructor(options: SecretStreamOptions) {
    this.#options = options
  }

  /** Takes a message of the client; true when something may have to be sent. Throws invalid_request. */
  hear(message: Message): boolean {
    const { dialect } = this.#options
    const heard = dialect.hear(message, this.#names, this.#isFirst)
    const isStale = !this.#isFirst && heard.nonce !== '' && heard.nonce !== this.#nonce
    if (isStale && dialect.ignoresStale) return false
    if (!this.#isFirst && !isStale) this.#judge(heard)
    const isFirst = this.#isFirst
    this.#isFirst = false
    if (heard.isPlain !== undefined) this.#isPlain = heard.isPlain
    if (heard.names !== 'same') this.#ask(heard.names)
    for (const name of heard.again) this.#sent.delete(name)
    return isFirst || heard.names !== 'same' || heard.again.length > 0
  }

  /** What the client does not have yet, if anything; throws what ends the stream. */
  next(): Outgoing | undefined {
    if (this.#isFirst) return undefined
    const { dialect, find, onSent } = this.#options
    const found = find({ names: this.#names, isPlain: this.#isPlain })
    this.#wait(found)
    const current = new Map(found.secrets.map((secret) => [secret.name, secret]))
    const changed = [...current.values()].filter(({ name, version }) => this.#sent.get(name) !== version)
    const removed = [...this.#sent.keys()].filter((name) => !current.has(name))
    for (const name of removed) this.#sent.delete(name)
    const encoded = changed.map((secret) => ({ secret, bytes: secret.encode() }))
    const state = {
      version: versionOfAll(found.secrets),
      nonce: randomBytes(NONCE_BYTES).toString('base64url'),
    }
    const message = dialect.render(encoded, removed, state)
    if (!message) return undefined
    this.#nonce = state.nonce
    this.#isJudged = false
    for (const { name, version } of changed) this.#sent.set(name, version)
    onSent(changed)
    const left = () => {
      for (const { bytes } of encoded) bytes.fill(0)
    }
    return { message, left }
  }

  /** The first word about what was sent last counts. */
  #judge({ nonce, error }: Heard): void {
    if (nonce === '' || this.#isJudged) return
    this.#isJudged = true
    this.#options.onVerdict(error === undefined ? 'ack' : 'nack', error)
  }

  #ask(names: Asked['names']): void {
    this.#names = names
    if (!names) return
    for (const name of [...this.#sent.keys()]) if (!names.has(name)) this.#sent.delete(name)
  }

  /** Who has nothing yet may wait, if that can change; who has lost everything is told so. */
  #wait({ secrets, refusals }: Found): void {
    const [first] = refusals
    const passing = refusals.find(isPassing)
    if (secrets.length === 0 && first) {
      if (!passing) throw first
      if (this.#sent.size > 0 && passing.reason === 'no_identity')
        throw new Fault('no_identity', 'no identity issued: the entry was changed or withdrawn')
    }
    this.#options.onWaiting(secrets.length === 0 && passing !== undefined && this.#sent.size === 0)
  }
}
