/**
 * The keys that the agent holds for this process, as `WatchKeys` tells of them. A key is lost when the agent says so,
 * when a later full set lacks it, or when the agent says that this process has no identity any more.
 */
import type { Clock } from '../base/clock.ts'
import type { Agent } from './agent.ts'
import { CODE, type Ending, type Message } from './grpc.ts'
import { watchStream } from './watch.ts'

/** Public facts of a key; the key itself never leaves the agent. */
export interface HeldKey {
  readonly spiffeId: string
  /** What it signs, such as `dpop:https://as.example.org`. */
  readonly purpose: string
  /** RFC 7638 thumbprint: the `cnf.jkt` of tokens bound to it. */
  readonly jkt: string
  readonly alg: string
  /** Seconds since 1970. */
  readonly created: number
  /** Seconds since 1970; present when a newer key has taken over and this one only serves tokens bound to it. */
  readonly retired?: number
}

/** What happened to the keys. */
export interface KeysChange {
  /** Changes when all keys may have been lost, as after a restart of the agent. */
  readonly epoch: string
  /** All keys that are held now. */
  readonly keys: readonly HeldKey[]
  /** Held before, and not any more: tokens bound to them are useless. */
  readonly lost: readonly HeldKey[]
}

export type KeysListener = (change: KeysChange) => void

/** Follows the keys while anybody listens. */
export class KeyWatch {
  readonly #agent: Agent
  readonly #clock: Clock
  readonly #listeners = new Set<KeysListener>()
  #epoch = ''
  #keys: ReadonlyMap<string, HeldKey> = new Map()
  #stop: (() => void) | undefined

  constructor(agent: Agent, clock: Clock) {
    this.#agent = agent
    this.#clock = clock
  }

  /** Calls `listener` with the keys now and after each change, until the returned function is called. */
  listen(listener: KeysListener): () => void {
    this.#listeners.add(listener)
    if (this.#stop && this.#epoch !== '') queueMicrotask(() => this.#tellFirst(listener))
    this.#stop ??= watchStream({
      agent: this.#agent,
      method: 'holdfast.v1.ProofService/WatchKeys',
      clock: this.#clock,
      onMessage: (message) => this.#onMessage(message),
      onEnd: (ending) => this.#onEnd(ending),
    })
    return () => {
      this.#listeners.delete(listener)
      if (this.#listeners.size === 0) this.close()
    }
  }

  close(): void {
    this.#listeners.clear()
    this.#stop?.()
    this.#stop = undefined
  }

  /** Each message holds the full set, and besides what was lost since the last one. */
  #onMessage(message: Message): void {
    const changes = (message['changes'] ?? []) as readonly Change[]
    const held = changes.filter(({ change }) => change !== 'LOST').map(({ key }) => heldKey(key))
    const keys = new Map(held.map((key) => [key.jkt, key]))
    for (const { change, key } of changes) if (change === 'LOST') keys.delete(heldKey(key).jkt)
    this.#replace(String(message['epoch'] ?? ''), keys)
  }

  #tellFirst(listener: KeysListener): void {
    if (!this.#listeners.has(listener)) return
    listener({ epoch: this.#epoch, keys: [...this.#keys.values()], lost: [] })
  }

  #onEnd({ code }: Ending): void {
    if (code === CODE.PERMISSION_DENIED && this.#keys.size > 0) this.#replace(this.#epoch, new Map())
  }

  #replace(epoch: string, keys: ReadonlyMap<string, HeldKey>): void {
    const lost = [...this.#keys.values()].filter(({ jkt }) => !keys.has(jkt))
    this.#epoch = epoch
    this.#keys = keys
    const change = { epoch, keys: [...keys.values()], lost }
    for (const listener of [...this.#listeners]) listener(change)
  }
}

interface Change {
  readonly change?: string
  readonly key?: Message
}

function heldKey(key: Message = {}): HeldKey {
  const text = (name: string) => String(key[name] ?? '')
  const retired = key['retired']
  return {
    spiffeId: text('spiffe_id'),
    purpose: text('purpose'),
    jkt: text('jkt'),
    alg: text('alg'),
    created: Number(key['created'] ?? 0),
    ...(retired === undefined ? {} : { retired: Number(retired) }),
  }
}
