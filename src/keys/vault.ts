/**
 * Every proof key: one a purpose and owner, made on first use, in memory only, gone with its owner's instance.
 * There is no way to export one (RFC 9449 s.11.4: others may use a key only through its holder).
 */
import { randomUUID, secureHeapUsed } from 'node:crypto'
import { type Clock, type Millis, nowSeconds, type Seconds } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import { Shares } from '../base/shares.ts'
import type { Alg, Jkt, Signer } from '../proof/signer.ts'
import { generateKey, type HeldKey } from './signer.ts'

/** Whose key: an identity in one instance. */
export interface KeyOwner {
  readonly spiffeId: string
  readonly instance: { readonly key: string; readonly signal: AbortSignal }
}

/** Public facts of a held key; times are seconds since 1970. */
export interface KeyFacts {
  readonly purpose: string
  readonly jkt: Jkt
  readonly alg: Alg
  readonly created: Seconds
  /** When it was replaced; it still signs for tokens bound to it until its ceiling has passed. */
  readonly retired?: Seconds
}

/** How a key is used that others must know before it signs. */
export interface PublishedTerms {
  /** How long a replaced key stays published: as long as anything it signed may be checked. */
  readonly ceiling: Seconds
  /** How long a key is published before it signs. */
  readonly lead: Seconds
}

/** What happened to a key of an owner. */
export interface KeyChange {
  readonly change: 'created' | 'rotated' | 'lost'
  readonly key: KeyFacts
}

/** Which keys an operator or a policy change takes away; absent members match all. */
export interface KeyFilter {
  readonly spiffeId?: string
  readonly jkt?: string
  readonly instance?: string
  readonly purpose?: string
}

interface Held {
  readonly key: HeldKey
  readonly purpose: string
  readonly created: Seconds
  retired: Seconds | undefined
  until: Seconds
  /** Zero for a key that signs as soon as it is made. */
  readonly lead: Seconds
  /** When it has been published for its lead; by the clock that nobody sets. */
  readonly signsFrom: Millis
  /** Gives its place in the vault back. */
  readonly leave: () => void
}

interface Ring {
  readonly spiffeId: string
  readonly instance: string
  readonly current: Map<string, Held>
  /** Published, and waiting for the end of their lead. */
  readonly next: Map<string, Held>
  /** Until when others may know only keys that are gone. */
  readonly stale: Map<string, Millis>
  readonly byJkt: Map<string, Held>
  readonly watchers: Set<(change: KeyChange) => void>
}

export interface VaultOptions {
  readonly clock: Clock
  /** The age at which a key is replaced. */
  readonly rotation: Seconds
  readonly alg?: Alg
  /** Most keys held at once; no identity holds more of them than are left for all others. */
  readonly limit?: number
}

const KEYS_PER_RING = 64
const HEAP_FULL = 0.9
const SWEEP_MS = 1_000
const MILLIS = 1_000

/** All proof keys of the agent. */
export class Vault {
  readonly #clock: Clock
  readonly #rotation: Seconds
  readonly #alg: Alg
  readonly #shares: Shares
  readonly #rings = new Map<string, Ring>()
  #epoch: string = randomUUID()
  #cancel = () => {}

  constructor(options: VaultOptions) {
    this.#clock = options.clock
    this.#rotation = options.rotation
    this.#alg = options.alg ?? 'ES256'
    this.#shares = new Shares('keys', options.limit ?? 16_384, 'keys_exhausted')
    this.#arm()
  }

  /** Changes when keys may have been lost all at once: at start and after a sleep of the machine. */
  get epoch(): string {
    return this.#epoch
  }

  get count(): number {
    return this.#shares.all
  }

  /**
   * The current key of `owner` for `purpose`; a key replaced by it serves bound tokens for `ceiling` more seconds.
   * Throws keys_exhausted when there is none and no room for one: a key that is only due for rotation goes on signing.
   */
  signerFor(owner: KeyOwner, purpose: string, ceiling: Seconds): Signer {
    const ring = this.#ringOf(owner)
    const held = ring.current.get(purpose)
    if (!held) return this.#replace(ring, purpose, ceiling).key
    if (held.until < ceiling) held.until = ceiling
    const isDue = this.#isDue(held, nowSeconds(this.#clock))
    return isDue && !this.#isFull(ring) ? this.#replace(ring, purpose, ceiling).key : held.key
  }

  /**
   * The key of `owner` for `purpose` that others have known for its lead. The first one signs at once, as nobody knows
   * an older one. Throws keys_exhausted, and not_ready while the successor of a lost key waits for its lead.
   */
  publishedSigner(owner: KeyOwner, purpose: string, terms: PublishedTerms): Signer {
    const { key, signsFrom } = this.#publish(owner, purpose, terms)
    const wait = signsFrom - this.#clock.monotonic()
    if (wait <= 0) return key
    throw new Fault('not_ready', 'the key was lost, and its successor is published before it signs', {
      action: 'Try again when its lead is over: those who check its signatures may know the lost key only.',
      retryAfterSeconds: Math.ceil(wait / MILLIS),
    })
  }

  /** What others must know of `purpose`: the key that signs, the one before it, the next one. Throws keys_exhausted. */
  published(owner: KeyOwner, purpose: string, terms: PublishedTerms): readonly Signer[] {
    this.#publish(owner, purpose, terms)
    const now = nowSeconds(this.#clock)
    return [...this.#ringOf(owner).byJkt.values()]
      .filter((held) => held.purpose === purpose && !isOver(held, now))
      .map(({ key }) => key)
  }

  /** The owner's key of that thumbprint, current or retired; nobody else's key is ever found. */
  find(owner: KeyOwner, jkt: string): { readonly signer: Signer; readonly facts: KeyFacts } | undefined {
    const held = this.#rings.get(ownerKey(owner))?.byJkt.get(jkt)
    if (!held || isOver(held, nowSeconds(this.#clock))) return undefined
    return { signer: held.key, facts: factsOf(held) }
  }

  /** Public facts of all keys of `owner`. */
  list(owner: KeyOwner): readonly KeyFacts[] {
    const now = nowSeconds(this.#clock)
    return [...(this.#rings.get(ownerKey(owner))?.byJkt.values() ?? [])]
      .filter((held) => !isOver(held, now))
      .map(factsOf)
  }

  /** Hears of the owner's keys until the returned function is called. */
  watch(owner: KeyOwner, watcher: (change: KeyChange) => void): () => void {
    const { watchers } = this.#ringOf(owner)
    watchers.add(watcher)
    return () => watchers.delete(watcher)
  }

  /** Takes the matching keys away for good; how many there were. */
  destroy(filter: KeyFilter): number {
    const { spiffeId, instance, purpose, jkt } = filter
    return this.#dropAll(
      (ring, held) =>
        (spiffeId === undefined || spiffeId === ring.spiffeId) &&
        (instance === undefined || instance === ring.instance) &&
        (purpose === undefined || purpose === held.purpose) &&
        (jkt === undefined || jkt === held.key.jkt),
    )
  }

  /** Takes the keys away that `keep` does not want; how many there were. */
  retain(keep: (spiffeId: string, purpose: string) => boolean): number {
    return this.#dropAll((ring, held) => !keep(ring.spiffeId, held.purpose))
  }

  /** How many keys an identity has on this node. */
  countOf(spiffeId: string): number {
    let count = 0
    for (const ring of this.#rings.values()) if (ring.spiffeId === spiffeId) count += ring.byJkt.size
    return count
  }

  /** Takes every key away and begins a new epoch: a memory image may hold copies. */
  replaceAll(): void {
    this.#epoch = randomUUID()
    this.destroy({})
  }

  stop(): void {
    this.#cancel()
    this.destroy({})
  }

  #ringOf(owner: KeyOwner): Ring {
    const key = ownerKey(owner)
    const known = this.#rings.get(key)
    if (known) return known
    if (owner.instance.signal.aborted) throw new Fault('lease_ended')
    const ring = {
      spiffeId: owner.spiffeId,
      instance: owner.instance.key,
      current: new Map(),
      next: new Map(),
      stale: new Map(),
      byJkt: new Map(),
      watchers: new Set<(change: KeyChange) => void>(),
    }
    this.#rings.set(key, ring)
    owner.instance.signal.addEventListener('abort', () => this.#end(key, ring), { once: true })
    return ring
  }

  #end(key: string, ring: Ring): void {
    if (this.#rings.get(key) === ring) this.#rings.delete(key)
    this.#drop([...ring.byJkt.values()].map((held) => ({ ring, held })))
  }

  #replace(ring: Ring, purpose: string, ceiling: Seconds): Held {
    const held = this.#make(ring, purpose, { ceiling, lead: 0 }, 0)
    this.#instate(ring, held)
    return held
  }

  #make(ring: Ring, purpose: string, { ceiling, lead }: PublishedTerms, wait: Millis): Held {
    if (!hasRoom(ring)) throw new Fault('keys_exhausted')
    const leave = this.#shares.take(ring.spiffeId)
    const [created, signsFrom] = [nowSeconds(this.#clock), this.#clock.monotonic() + wait]
    const key = generateKey(this.#alg)
    const held: Held = { key, purpose, created, retired: undefined, until: ceiling, lead, signsFrom, leave }
    ring.byJkt.set(key.jkt, held)
    return held
  }

  /** Makes `held` the key of its purpose. */
  #instate(ring: Ring, held: Held): void {
    const old = ring.current.get(held.purpose)
    ring.current.set(held.purpose, held)
    if (old) old.retired = nowSeconds(this.#clock)
    tell(ring, { change: old ? 'rotated' : 'created', key: factsOf(held) })
  }

  #publish(owner: KeyOwner, purpose: string, terms: PublishedTerms): Held {
    const ring = this.#ringOf(owner)
    const held = ring.current.get(purpose)
    if (held) return this.#advance(ring, held)
    const isKnown = (ring.stale.get(purpose) ?? 0) > this.#clock.monotonic()
    const first = this.#make(ring, purpose, terms, isKnown ? terms.lead * MILLIS : 0)
    ring.stale.delete(purpose)
    this.#instate(ring, first)
    return first
  }

  /** Publishes the successor a lead before the key is due, and lets it sign when the lead is over. */
  #advance(ring: Ring, held: Held): Held {
    const { purpose, until: ceiling, lead, signsFrom } = held
    const next = ring.next.get(purpose)
    const now = this.#clock.monotonic()
    if (next && next.signsFrom <= now) {
      ring.next.delete(purpose)
      this.#instate(ring, next)
      return next
    }
    const isDue = now - signsFrom >= (this.#rotation - lead) * MILLIS && now >= signsFrom
    if (!next && isDue && !this.#isFull(ring))
      ring.next.set(purpose, this.#make(ring, purpose, { ceiling, lead }, lead * MILLIS))
    return held
  }

  #isFull(ring: Ring): boolean {
    return this.#shares.isFull(ring.spiffeId) || !hasRoom(ring)
  }

  #dropAll(isWanted: (ring: Ring, held: Held) => boolean): number {
    const lost = [...this.#rings.values()].flatMap((ring) =>
      [...ring.byJkt.values()].filter((held) => isWanted(ring, held)).map((held) => ({ ring, held })),
    )
    this.#drop(lost)
    return lost.length
  }

  /** All keys go before any watcher hears of one: a watcher that throws must not keep a key alive. */
  #drop(lost: readonly { readonly ring: Ring; readonly held: Held }[]): void {
    for (const { ring, held } of lost) {
      held.key.destroy()
      ring.byJkt.delete(held.key.jkt)
      this.#forget(ring, held)
      held.leave()
    }
    for (const { ring, held } of lost) tell(ring, { change: 'lost', key: factsOf(held) })
  }

  /** A successor in its lead takes no lost key's place early: others may know neither. */
  #forget({ current, next, stale }: Ring, held: Held): void {
    const { purpose, lead, retired } = held
    if (next.get(purpose) === held) next.delete(purpose)
    if (current.get(purpose) !== held) return
    current.delete(purpose)
    if (lead > 0 && retired === undefined) stale.set(purpose, this.#clock.monotonic() + lead * MILLIS)
    const successor = next.get(purpose)
    next.delete(purpose)
    if (successor) current.set(purpose, successor)
  }

  #arm(): void {
    this.#cancel = this.#clock.after(SWEEP_MS, () => {
      this.#sweep()
      this.#arm()
    })
  }

  /** Replaces what is due, so that watchers hear of it in time, and destroys what is over. */
  #sweep(): void {
    const now = nowSeconds(this.#clock)
    this.#dropAll((_ring, held) => isOver(held, now))
    for (const ring of this.#rings.values())
      for (const held of [...ring.current.values()])
        if (held.lead > 0) this.#advance(ring, held)
        else if (this.#isDue(held, now) && !this.#isFull(ring)) this.#replace(ring, held.purpose, held.until)
  }

  #isDue(held: Held, now: Seconds): boolean {
    return now - held.created >= this.#rotation
  }
}

/** What `owner` has is kept under it: one text for the identity and the instance. */
export function ownerKey({ instance, spiffeId }: KeyOwner): string {
  return `${instance.key} ${spiffeId}`
}

function hasRoom({ byJkt }: Ring): boolean {
  if (byJkt.size >= KEYS_PER_RING) return false
  const heap = secureHeapUsed()
  // Node's key generation does not fail softly when the secure heap is full.
  return heap === undefined || heap.total === 0 || heap.used / heap.total <= HEAP_FULL
}

/** `until` is a length while the key is current; it counts from retirement. */
function isOver(held: Held, now: Seconds): boolean {
  return held.retired !== undefined && now >= held.retired + held.until
}

function factsOf(held: Held): KeyFacts {
  const { key, purpose, created, retired } = held
  return { purpose, jkt: key.jkt, alg: key.alg, created, ...(retired === undefined ? {} : { retired }) }
}

function tell(ring: Ring, change: KeyChange): void {
  for (const watcher of [...ring.watchers]) watcher(change)
}
