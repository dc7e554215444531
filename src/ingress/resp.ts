/**
 * RESP2, the protocol of Redis (https://redis.io/docs/latest/develop/reference/protocol-spec): commands as arrays of
 * texts, replies read as they arrive and bounded in every direction.
 */
import { Fault } from '../base/fault.ts'

/** An error that Redis answers with; a value, since it may stand inside of an array. */
export class RedisError extends Error {
  /** Its first word: `NOSCRIPT`, `NOPERM`, `OOM`. The rest may quote what was sent. */
  readonly code: string

  constructor(line: string) {
    const code = /^[A-Z]{1,32}(?= |$)/.exec(line)?.[0] ?? 'ERR'
    super(code)
    this.code = code
  }
}

export type Reply = string | number | undefined | RedisError | readonly Reply[]

const LINE_LIMIT = 64 * 1024
const BULK_LIMIT = 1024 * 1024
const ITEMS_LIMIT = 65_536
const DEPTH_LIMIT = 4
/** Of one reply with all its items. */
const REPLY_LIMIT = 16 * 1024 * 1024

/** A command, ready to be sent. */
export function encodeCommand(parts: readonly (string | number)[]): string {
  let text = `*${parts.length}\r\n`
  for (const part of parts) text += `$${Buffer.byteLength(String(part))}\r\n${part}\r\n`
  return text
}

interface Open {
  left: number
  readonly items: Reply[]
}

/** Reads replies from pieces of any size. */
export class ReplyReader {
  #rest: Buffer = Buffer.alloc(0)
  #at = 0
  #size = 0
  #bulk: number | undefined
  readonly #open: Open[] = []

  /** The replies that `chunk` completes; throws replay_unavailable for what is not RESP2 or over a bound. */
  read(chunk: Buffer): readonly Reply[] {
    this.#rest =
      this.#rest.length === this.#at ? chunk : Buffer.concat([this.#rest.subarray(this.#at), chunk])
    this.#at = 0
    const whole: Reply[] = []
    for (let step = this.#step(); step !== 'more'; step = this.#step()) {
      if (step === 'opened') continue
      const reply = this.#close(step.value)
      if (reply) whole.push(reply.value)
    }
    return whole
  }

  /** One value without items, or the start of an array. */
  #step(): { readonly value: Reply } | 'opened' | 'more' {
    if (this.#bulk !== undefined) return this.#readBulk(this.#bulk)
    const end = this.#rest.indexOf('\r\n', this.#at)
    if (end < 0) {
      if (this.#rest.length - this.#at > LINE_LIMIT) throw malformed(`a line of over ${LINE_LIMIT} bytes`)
      return 'more'
    }
    const [mark, line] = [this.#rest[this.#at], this.#rest.toString('utf8', this.#at + 1, end)]
    this.#take(end + 2)
    switch (mark) {
      case 0x2b:
        return { value: line }
      case 0x2d:
        return { value: new RedisError(line) }
      case 0x3a:
        return { value: integer(line) }
      case 0x24:
        return this.#begin(line)
      case 0x2a:
        return this.#openArray(line)
      default:
        throw malformed('a reply of no known type')
    }
  }

  #begin(line: string): { readonly value: Reply } | 'opened' | 'more' {
    const length = integer(line)
    if (length === -1) return { value: undefined }
    if (length < 0 || length > BULK_LIMIT) throw malformed(`a text of over ${BULK_LIMIT} bytes`)
    this.#bulk = length
    return this.#readBulk(length)
  }

  #readBulk(length: number): { readonly value: Reply } | 'more' {
    if (this.#rest.length - this.#at < length + 2) return 'more'
    const value = this.#rest.toString('utf8', this.#at, this.#at + length)
    this.#take(this.#at + length + 2)
    this.#bulk = undefined
    return { value }
  }

  #openArray(line: string): { readonly value: Reply } | 'opened' {
    const count = integer(line)
    if (count === -1) return { value: undefined }
    if (count === 0) return { value: [] }
    if (count < 0 || count > ITEMS_LIMIT || this.#open.length >= DEPTH_LIMIT)
      throw malformed(`an array of over ${ITEMS_LIMIT} items or nested over ${DEPTH_LIMIT} deep`)
    this.#open.push({ left: count, items: [] })
    return 'opened'
  }

  /** Puts `value` where it belongs; the reply, when that completes one. */
  #close(value: Reply): { readonly value: Reply } | undefined {
    let done = value
    for (let top = this.#open.at(-1); top; top = this.#open.at(-1)) {
      top.items.push(done)
      top.left -= 1
      if (top.left > 0) return undefined
      this.#open.pop()
      done = top.items
    }
    this.#size = 0
    return { value: done }
  }

  #take(to: number): void {
    this.#size += to - this.#at
    this.#at = to
    if (this.#size > REPLY_LIMIT) throw malformed(`a reply of over ${REPLY_LIMIT} bytes`)
  }
}

function integer(line: string): number {
  if (!/^-?[0-9]{1,15}$/.test(line)) throw malformed('a number that is none')
  return Number(line)
}

function malformed(what: string): Fault {
  return new Fault('replay_unavailable', `the Redis server answers with ${what}`)
}
