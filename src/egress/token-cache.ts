/**
 * The tokens of this node: one request at a time for each, renewed early while they are used, forgotten when their key,
 * lease or policy goes. No token is ever part of a key, a record or a Fault.
 */
import type { Clock, Millis, Seconds } from '../base/clock.ts'
import { nowSeconds } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import type { Live } from '../base/live.ts'
import { Shares } from '../base/shares.ts'
import type { Vault } from '../keys/vault.ts'
import type { RuleBook } from '../policy/book.ts'
import { purposeOf } from '../sign/sign.ts'
import { Flight } from './flight.ts'
import { Gates, type Urgency } from './gate.ts'
import type { Revoker } from './revoke.ts'
import { Setbacks } from './setbacks.ts'
import type { Subject } from './subjects.ts'
import { exchangeOf, keyOf, needOf, ownerOf, placeOf } from './token-need.ts'
import type { TokenNeed, TokenRequests } from './token-request.ts'
import type { BoundToken, TokenAsk, Tokens } from './tokens.ts'

export interface TokenCacheOptions {
  readonly requests: Pick<TokenRequests, 'request'>
  readonly revoker: Pick<Revoker, 'add' | 'settled' | 'stop'>
  readonly vault: Vault
  readonly book: Live<RuleBook>
  readonly clock: Clock
  /** How long before its end a token is renewed; a third of its life when that is less. */
  readonly renewBefore: Seconds
  /** Most tokens kept; no identity has more of them than are left for all others. */
  readonly limit: number
  readonly random?: () => number
  /** Hears of each token handed out or renewed, and of each failure. */
  readonly onToken: (kind: 'issued' | 'renewed' | 'reused', fault: Fault | undefined) => void
}

interface Held {
  readonly token: BoundToken
  readonly life: Seconds
}

/** One kind of token. States: empty -> under way -> held -> (under way and held) -> ...; gone from any. */
interface Slot {
  readonly key: string
  readonly need: TokenNeed
  held: Held | undefined
  flight: Flight<BoundToken> | undefined
  lastUsed: Seconds
  /** Gives its place in the cache back. */
  readonly leave: () => void
  cancelRenewal: () => void
}

/** At most so many requests at one server: a restart must not be a flood. */
const AT_ONCE = 8
const SERVERS_LIMIT = 256
/** A token is handed out with at least this much life. */
const LEFT: Seconds = 5

/** Why slots go: it decides what callers hear and whether the token is given back. */
interface Going {
  readonly fault: Fault
  readonly giveBack: boolean
}

/** Keeps tokens. */
export class TokenCache implements Tokens {
  readonly #options: TokenCacheOptions
  readonly #random: () => number
  /** In order of use. */
  readonly #slots = new Map<string, Slot>()
  readonly #shares: Shares
  readonly #gates = new Gates(AT_ONCE)
  readonly #servers: Setbacks
  /** Of servers, with the subjects of one instance: what a workload hands in must not keep a server from the others. */
  readonly #exchanges: Setbacks
  readonly #refusals: Setbacks
  readonly #watched = new Set<string>()
  readonly #subjects = new WeakSet<Subject>()
  readonly #unwatch: () => void
  #isEnding = false

  constructor(options: TokenCacheOptions) {
    const { clock, random = Math.random, book } = options
    this.#options = options
    this.#random = random
    this.#shares = new Shares('tokens', options.limit)
    this.#servers = new Setbacks(clock, SERVERS_LIMIT, random)
    this.#exchanges = new Setbacks(clock, options.limit, random)
    this.#refusals = new Setbacks(clock, options.limit, random)
    this.#unwatch = book.watch(() =>
      this.#forget(() => true, { fault: new Fault('canceled'), giveBack: false }),
    )
  }

  get count(): number {
    return this.#slots.size
  }

  held(ask: TokenAsk): BoundToken | undefined {
    return this.#use(this.#slotFor(ask))
  }

  async get(ask: TokenAsk, signal: AbortSignal): Promise<BoundToken> {
    const slot = this.#slotFor(ask)
    const held = this.#use(slot)
    if (held) return held
    if (!slot.flight) this.#checkSetbacks(slot)
    slot.flight ??= this.#fly(slot, 'caller')
    return await slot.flight.join(signal)
  }

  drop(filter: Parameters<Tokens['drop']>[0]): number {
    const { spiffeId, instance, jkt, subject, target } = filter
    const isWanted = ({ need }: Slot) =>
      (spiffeId === undefined || spiffeId === need.entry.spiffeId) &&
      (instance === undefined || instance === need.instance.key) &&
      (jkt === undefined || jkt === need.signer.jkt) &&
      (subject === undefined || subject === (need.subject?.hash ?? '')) &&
      (target === undefined || target === need.target.name)
    return this.#forget(isWanted, { fault: new Fault('revoked'), giveBack: true })
  }

  /** Hands out nothing more and gives every token back; resolves when that is done, or after `limit`. */
  giveBack(limit: Millis): Promise<void> {
    this.#isEnding = true
    this.#forget(() => true, { fault: new Fault('draining'), giveBack: true })
    return this.#options.revoker.settled(limit)
  }

  stop(): void {
    this.#isEnding = true
    this.#unwatch()
    this.#forget(() => true, { fault: new Fault('draining'), giveBack: false })
    this.#options.revoker.stop()
  }

  #slotFor(ask: TokenAsk): Slot {
    if (this.#isEnding) throw new Fault('draining')
    return this.#slotOf(needOf(ask))
  }

  #use(slot: Slot): BoundToken | undefined {
    const now = nowSeconds(this.#options.clock)
    slot.lastUsed = now
    if (!slot.held || slot.held.token.expires - now < leastLife(slot)) return undefined
    this.#options.onToken('reused', undefined)
    return slot.held.token
  }

  #slotOf(need: TokenNeed): Slot {
    if (need.instance.signal.aborted) throw new Fault('lease_ended')
    if (need.subject?.signal.aborted) throw new Fault('subject_unknown')
    const key = keyOf(need, this.#options.book.get().hash)
    const known = this.#slots.get(key)
    this.#slots.delete(key)
    const slot = known ?? this.#open(key, need)
    this.#slots.set(key, slot)
    this.#watch(need)
    if (need.subject) this.#watchSubject(need.subject)
    return slot
  }

  #open(key: string, need: TokenNeed): Slot {
    const { spiffeId } = need.entry
    const hasRoom = this.#shares.isFull(spiffeId) && this.#makeRoom(spiffeId)
    const leave = hasRoom ? this.#shares.add(spiffeId) : this.#shares.take(spiffeId)
    return { key, need, held: undefined, flight: undefined, lastUsed: 0, leave, cancelRenewal: () => {} }
  }

  /** The token that was used longest ago goes, of those that have the same identity; what somebody waits for stays. */
  #makeRoom(spiffeId: string): boolean {
    const isAny = this.#shares.of(spiffeId) === 0
    for (const slot of this.#slots.values()) {
      if (slot.flight || !(isAny || slot.need.entry.spiffeId === spiffeId)) continue
      this.#end(slot)
      return true
    }
    return false
  }

  #checkSetbacks({ key, need }: Slot): void {
    try {
      this.#checkServer(need)
      this.#refusals.check(key)
    } catch (error) {
      this.#options.onToken('issued', Fault.from(error))
      throw error
    }
  }

  #checkServer(need: TokenNeed): void {
    this.#servers.check(placeOf(need))
    this.#exchanges.check(exchangeOf(need))
  }

  #fly(slot: Slot, urgency: Urgency): Flight<BoundToken> {
    const kind = urgency === 'caller' ? 'issued' : 'renewed'
    const flight: Flight<BoundToken> = new Flight(async (signal) => {
      try {
        const ask = { urgency, signal, who: slot.need.entry.spiffeId, within: ownerOf(slot.need) }
        const token = await this.#gates.of(placeOf(slot.need)).run(ask, () => this.#request(slot, signal))
        this.#land(slot, flight, token)
        this.#options.onToken(kind, undefined)
        return token
      } catch (error) {
        throw this.#fail(slot, flight, kind, Fault.from(error))
      }
    })
    return flight
  }

  /** Inside the gate: those who wait there are to know of a failure before they are let in. */
  async #request({ need }: Slot, signal: AbortSignal): Promise<BoundToken> {
    this.#checkServer(need)
    const [setbacks, place] = need.subject
      ? ([this.#exchanges, exchangeOf(need)] as const)
      : ([this.#servers, placeOf(need)] as const)
    try {
      const token = await this.#options.requests.request(need, signal)
      setbacks.clear(place)
      return token
    } catch (error) {
      const fault = Fault.from(error)
      if (fault.reason !== 'issuer_unavailable' || signal.aborted) throw fault
      throw setbacks.add(place, fault)
    }
  }

  #land(slot: Slot, flight: Flight<BoundToken>, token: BoundToken): void {
    const { key, need } = slot
    this.#refusals.clear(key)
    if (slot.flight === flight) slot.flight = undefined
    if (flight.isAbandoned) {
      this.#options.revoker.add(need, token.token, token.ends ?? token.expires)
      if (!slot.held) this.#remove(slot)
    } else if (this.#slots.get(key) === slot) this.#hold(slot, token)
  }

  #fail(slot: Slot, flight: Flight<BoundToken>, kind: 'issued' | 'renewed', fault: Fault): Fault {
    if (slot.flight === flight) slot.flight = undefined
    const isOwn = !flight.isAbandoned && fault.reason !== 'issuer_unavailable' && fault.reason !== 'canceled'
    const told = isOwn ? this.#refusals.add(slot.key, fault) : fault
    this.#options.onToken(kind, told)
    if (slot.held) this.#scheduleAgain(slot)
    else this.#remove(slot)
    return told
  }

  #hold(slot: Slot, token: BoundToken): void {
    const life = token.expires - nowSeconds(this.#options.clock)
    slot.held = { token, life }
    // Each token at a moment of its own: those that a restart brought together are not renewed together.
    const lead = Math.min(this.#options.renewBefore, life / 3) + (life / 6) * this.#random()
    if (!endsWithSubject(slot.need, token)) this.#schedule(slot, life - lead)
  }

  /** After a failure: when the server may be asked again, while the token has life left. */
  #scheduleAgain(slot: Slot): void {
    const { need } = slot
    const server = Math.max(this.#servers.waitOf(placeOf(need)), this.#exchanges.waitOf(exchangeOf(need)))
    const wait = Math.max(server, this.#refusals.waitOf(slot.key), 1_000)
    this.#schedule(slot, (wait / 1_000) * (1 + this.#random()))
  }

  #schedule(slot: Slot, delay: Seconds): void {
    slot.cancelRenewal()
    if (this.#slots.get(slot.key) !== slot) return
    slot.cancelRenewal = this.#options.clock.after(delay * 1_000, () => this.#renew(slot))
  }

  /** Only what was used within half the life of a token, for the newest certificate; the rest ends by itself. */
  #renew(slot: Slot): void {
    const { held } = slot
    if (!held || slot.flight) return
    const now = nowSeconds(this.#options.clock)
    const isOver = slot.need.certificate?.isCurrent === false
    if (isOver || now >= held.token.expires || now - slot.lastUsed > held.life / 2) {
      this.#end(slot)
      return
    }
    slot.flight = this.#fly(slot, 'renewal')
  }

  /** Keys tell when they go, leases when they end: once for each owner. */
  #watch({ entry, instance }: TokenNeed): void {
    const owner = ownerOf({ entry, instance })
    if (this.#watched.has(owner)) return
    this.#watched.add(owner)
    const isOwners = ({ need }: Slot) => ownerOf(need) === owner
    this.#options.vault.watch({ spiffeId: entry.spiffeId, instance }, ({ change, key }) => {
      if (change === 'lost')
        this.#forget((slot) => isOwners(slot) && slot.need.signer.jkt === key.jkt, {
          fault: new Fault('key_lost'),
          giveBack: true,
        })
      // The retired key goes on for requests under way; its tokens are not renewed and not handed out.
      if (change === 'rotated')
        this.#forget(
          (slot) =>
            isOwners(slot) &&
            !slot.need.certificate &&
            purposeOf(slot.need.target) === key.purpose &&
            slot.need.signer.jkt !== key.jkt,
          {
            fault: new Fault('canceled'),
            giveBack: false,
          },
        )
    })
    const end = () => {
      this.#watched.delete(owner)
      this.#forget(isOwners, { fault: new Fault('lease_ended'), giveBack: true })
    }
    instance.signal.addEventListener('abort', end, { once: true })
  }

  /** What was got for a handle goes with it. */
  #watchSubject(subject: Subject): void {
    if (this.#subjects.has(subject)) return
    this.#subjects.add(subject)
    const end = () =>
      this.#forget(({ need }) => need.subject === subject, {
        fault: new Fault('subject_unknown'),
        giveBack: true,
      })
    subject.signal.addEventListener('abort', end, { once: true })
  }

  #forget(isWanted: (slot: Slot) => boolean, { fault, giveBack }: Going): number {
    const going = [...this.#slots.values()].filter(isWanted)
    for (const slot of going) {
      const { held, need } = slot
      this.#end(slot)
      // What is only out of date is still brought to those who wait; it is not kept.
      if (giveBack || fault.reason === 'draining') slot.flight?.cutOff(fault)
      if (!held || !giveBack) continue
      const { token, expires, ends } = held.token
      this.#options.revoker.add(need, token, ends ?? expires)
    }
    return going.length
  }

  #end(slot: Slot): void {
    slot.cancelRenewal()
    slot.held = undefined
    this.#remove(slot)
  }

  #remove(slot: Slot): void {
    if (this.#slots.get(slot.key) !== slot) return
    this.#slots.delete(slot.key)
    slot.leave()
  }
}

/** No later token of this subject would live longer. */
function endsWithSubject({ subject }: TokenNeed, { expires }: BoundToken): boolean {
  return subject !== undefined && expires >= subject.expires
}

/** A token that ends with its subject is handed out to its last second. */
function leastLife({ need, held }: Slot): Seconds {
  return held && endsWithSubject(need, held.token) ? 1 : LEFT
}
