/**
 * Tokens of the replay lab: the only ones that the agent has bound to a key it does not hold. The lab shows that it
 * holds the key by the DPoP proof of the token request; the agent says where that proof goes, and asks as the client.
 */
import { type Clock, nowSeconds } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import type { Secret } from '../base/secret.ts'
import type { KeyOwner } from '../keys/vault.ts'
import { DpopChecker } from '../proof/dpop-check.ts'
import type { Jkt, Signer } from '../proof/signer.ts'
import type { JwsAlg } from '../spiffe/jws.ts'
import type { BindAsk } from './bound.ts'
import type { TokenNeed, TokenRequests } from './token-request.ts'
import type { BoundToken } from './tokens.ts'

/** The token client, as far as the lab needs it. */
export interface ProbeTokens extends Pick<TokenRequests, 'challenge' | 'request'> {
  giveBack(need: TokenNeed, token: Secret<string>): void
}

export interface ProbeTokenOptions {
  readonly probes: ProbeTokens
  readonly clock: Clock
  /** Ends a key here, and at every verifier that hears of revocations. */
  readonly revokeKey: (jkt: Jkt, seconds: number) => void
}

/** What the proof for the token request has to say; asked for again when its nonce is no longer good. */
export interface ProbeChallenge {
  readonly token_endpoint: string
  readonly nonce?: string
}

const ALGS: ReadonlySet<JwsAlg> = new Set(['ES256'])
const WINDOW = 60
const SKEW = 5
const KEPT = 1_000
const AFTER = 60

interface Kept {
  readonly need: TokenNeed
  readonly bound: BoundToken
}

/** Gets them, and takes them back. */
export class ProbeKeys {
  readonly #options: ProbeTokenOptions
  readonly #checker = new DpopChecker()
  readonly #kept = new Map<string, Kept>()

  constructor(options: ProbeTokenOptions) {
    this.#options = options
  }

  /**
   * The token for `proof`, or what a proof has to say. Throws the reasons of proofs and of the token client; token
   * endpoints see the proof once.
   */
  async token(
    ask: BindAsk,
    proof: string | undefined,
    signal: AbortSignal,
  ): Promise<BoundToken | ProbeChallenge> {
    const { probes } = this.#options
    const need = needOf(ask, NO_KEY)
    const { endpoint, nonce } = await probes.challenge(need, signal)
    if (proof === undefined) return challengeOf(endpoint, nonce)
    const key = this.#holderOf(proof, endpoint)
    const bound = { ...needOf(ask, key), foreignProof: proof }
    try {
      const token = await probes.request(bound, signal)
      this.#keep({ need: bound, bound: token })
      return token
    } catch (error) {
      if (!(error instanceof Fault) || error.reason !== 'proof_nonce') throw error
      return challengeOf(endpoint, (await probes.challenge(need, signal)).nonce)
    }
  }

  /** Ends the key and gives its token back to the server. Throws not_found for a key that `ask` got no token for. */
  revoke({ instance, spiffeId }: KeyOwner, jkt: string): Jkt {
    const kept = this.#kept.get(jkt)
    const { need: asked } = kept ?? {}
    if (!kept || asked?.instance.key !== instance.key || asked.entry.spiffeId !== spiffeId)
      throw new Fault('not_found', 'this workload has got no probe token for such a key')
    const { clock, probes, revokeKey } = this.#options
    const { need, bound } = kept
    revokeKey(bound.jkt, Math.max(1, bound.expires - nowSeconds(clock)) + AFTER)
    probes.giveBack(need, bound.token)
    this.#kept.delete(jkt)
    return bound.jkt
  }

  #holderOf(proof: string, endpoint: string): Signer {
    const now = nowSeconds(this.#options.clock)
    const expected = { method: 'POST', urls: [endpoint], ath: undefined, now, window: WINDOW, skew: SKEW }
    const { jkt } = this.#checker.check(proof, { ...expected, algs: ALGS })
    return { ...NO_KEY, jkt }
  }

  #keep(kept: Kept): void {
    const { jkt } = kept.bound
    const [oldest] = this.#kept.keys()
    if (this.#kept.size >= KEPT && oldest !== undefined) this.#kept.delete(oldest)
    this.#kept.set(jkt, kept)
    kept.need.instance.signal.addEventListener('abort', () => this.#kept.delete(jkt), { once: true })
  }
}

/** A key that others hold: nothing is signed with it here. */
const NO_KEY: Signer = {
  alg: 'ES256',
  publicJwk: { kty: 'EC', crv: 'P-256', x: '', y: '' },
  jkt: '' as Jkt,
  sign: () => {
    throw new Fault('key_lost', 'the agent does not hold the key of this token')
  },
}

function needOf({ entry, instance, target, identity }: BindAsk, signer: Signer): TokenNeed {
  const { server } = identity
  if (!server?.client) throw new Fault('token_required', `${target.name} has no server to get a token from`)
  return { entry, instance, target, server, signer }
}

function challengeOf(endpoint: string, nonce: string | undefined): ProbeChallenge {
  return { token_endpoint: endpoint, ...(nonce === undefined ? {} : { nonce }) }
}
