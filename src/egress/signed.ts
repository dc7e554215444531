/**
 * What was signed lately for applications that send requests themselves: whose report of an answer is believed, and
 * which request already is its second try (RFC 9449 s.8, s.9).
 */
import type { Instance } from '../attest/workload.ts'
import type { Clock, Millis } from '../base/clock.ts'
import { ownerKey } from '../keys/vault.ts'
import type { Jkt } from '../proof/signer.ts'
import type { SpiffeId } from '../spiffe/id.ts'

/** Whose requests they are. */
export interface SignedOwner {
  readonly spiffeId: SpiffeId
  readonly instance: Instance
}

/** The newest request of one owner to one URL. States: first -> granted -> retry -> first; requests at once share it. */
export interface SignedRequest {
  readonly jkt: Jkt
  readonly target: string
  readonly at: Millis
  state: 'first' | 'granted' | 'retry'
}

interface Owned {
  readonly byUrl: Map<string, SignedRequest>
  renewed: Millis
}

/** How long an answer may be on its way. */
const KEPT: Millis = 300_000
const URLS_LIMIT = 256
const RENEW_EVERY: Millis = 60_000

/** A memory bounded for each owner, and gone with its instance. */
export class Signed {
  readonly #byOwner = new Map<string, Owned>()
  readonly #clock: Clock

  constructor(clock: Clock) {
    this.#clock = clock
  }

  /** Notes that a request to `htu` was signed; what was signed first goes first. */
  note(owner: SignedOwner, htu: string, request: Pick<SignedRequest, 'jkt' | 'target'>): void {
    if (owner.instance.signal.aborted) return
    const { byUrl } = this.#byOwner.get(ownerKey(owner)) ?? this.#open(owner)
    const state = this.find(owner, htu)?.state === 'granted' ? 'retry' : 'first'
    byUrl.delete(htu)
    const { jkt, target } = request
    byUrl.set(htu, { jkt, target, at: this.#clock.monotonic(), state })
    const [oldest] = byUrl.keys()
    if (byUrl.size > URLS_LIMIT && oldest !== undefined) byUrl.delete(oldest)
  }

  /** The newest request to `htu`, when it is not too long ago. */
  find(owner: SignedOwner, htu: string): SignedRequest | undefined {
    const found = this.#byOwner.get(ownerKey(owner))?.byUrl.get(htu)
    return found && this.#clock.monotonic() - found.at < KEPT ? found : undefined
  }

  /** Whether a token that a target is said to refuse may be given up: rarely, or reports could order tokens. */
  mayRenew(owner: SignedOwner): boolean {
    const owned = this.#byOwner.get(ownerKey(owner))
    const now = this.#clock.monotonic()
    if (!owned || now - owned.renewed < RENEW_EVERY) return false
    owned.renewed = now
    return true
  }

  #open(owner: SignedOwner): Owned {
    const key = ownerKey(owner)
    const owned: Owned = { byUrl: new Map(), renewed: Number.NEGATIVE_INFINITY }
    this.#byOwner.set(key, owned)
    owner.instance.signal.addEventListener('abort', () => this.#byOwner.delete(key), { once: true })
    return owned
  }
}
