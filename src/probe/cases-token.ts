/** Cases about the access token: shown without its proof, ended, revoked, meant for others, too long. */

import { fateOf } from './answer.ts'
import { answered, type ProbeCase, spoilt, untried } from './case.ts'
import type { Lab } from './lab.ts'
import { type Credential, lifeOf } from './wallet.ts'

const SKEW = 65
const REVOKED_WITHIN = 2_500

/** A fresh proof with `credential`, by its own key. */
function freshWith(lab: Lab, credential: Credential) {
  return lab.attempt(() => lab.fields(lab.proof({ credential }), 'DPoP', credential))
}

/** One that has ended would be refused for that. */
function hasEnded({ options: { now } }: Lab, { token }: Credential): boolean {
  return (lifeOf(token, now())?.to ?? Number.POSITIVE_INFINITY) <= now()
}

export const TOKEN_CASES: readonly ProbeCase[] = [
  {
    id: 'no_token',
    sends: 'no credential at all',
    reasons: ['token_missing'],
    owner: 'application',
    cure: 'Let the service refuse requests without a token.',
    phase: 'now',
    isCore: true,
    play: async (lab) => answered(await lab.send([])),
  },
  {
    id: 'no_proof',
    sends: 'the bound token with the scheme DPoP and no proof',
    reasons: ['proof_missing', 'token_downgraded'],
    owner: 'application',
    cure: 'Let the service demand a proof with each bound token (RFC 9449 s.7.1); a gateway that checked it is no reason not to.',
    phase: 'now',
    isCore: true,
    play: async (lab) => answered(await lab.send(lab.fields(undefined))),
  },
  {
    id: 'as_bearer',
    sends: 'the bound token as Bearer',
    reasons: ['token_downgraded', 'token_unbound'],
    owner: 'application',
    cure: 'Let the service refuse a token with cnf that comes as Bearer (RFC 9449 s.7.2).',
    phase: 'now',
    isCore: true,
    play: async (lab) =>
      answered(
        await lab.send(lab.fields(undefined, 'Bearer')),
        await lab.send(lab.fields(lab.proof(), 'Bearer')),
      ),
  },
  {
    id: 'other_audience',
    sends: 'a token that is meant for another audience, with a proof by its key',
    reasons: ['token_audience', 'token_issuer'],
    owner: 'application',
    cure: 'Let the service take only tokens whose aud names it (RFC 9068 s.4).',
    phase: 'now',
    play: async (lab) => {
      const other = await lab.options.wallet.otherAudience()
      if ('why' in other) return untried(other.why)
      if (hasEnded(lab, other)) return untried('the token for another audience has ended')
      return answered(await freshWith(lab, other))
    },
  },
  {
    id: 'long_life',
    sends: 'nothing more: how long the token that was taken lives',
    reasons: [],
    owner: 'identity',
    cure: 'Let the authorization server issue shorter tokens for this audience, and state max_ttl for the route.',
    phase: 'now',
    play: async (lab) => {
      const { maxTtl, now } = lab.options
      const life = lifeOf(lab.bound.token, now())
      if (!life) return untried('the token does not say how long it lives')
      const seconds = Math.ceil(life.to - life.from)
      const what = `the token lives ${seconds} s, wanted ${maxTtl} s at most`
      return { kind: 'observed', isHeld: seconds <= maxTtl, what }
    },
  },
  {
    id: 'revoked',
    sends: 'a token that was revoked, with a fresh proof by its key',
    reasons: ['token_revoked', 'token_inactive'],
    owner: 'security',
    cure: 'Let revocations reach the service: a denylist, CAEP events, a status list, or introspection.',
    phase: 'end',
    play: async (lab) => {
      const revocable = await lab.options.wallet.revocable()
      if ('why' in revocable) return untried(revocable.why)
      const { credential, revoke } = revocable
      if (hasEnded(lab, credential)) return untried('the revoked token has ended by itself')
      if (revoke) {
        if (fateOf(await freshWith(lab, credential)) !== 'taken')
          return spoilt('the token was not taken even before it was revoked')
        await revoke()
        await lab.options.sleep(REVOKED_WITHIN)
      }
      return answered(await freshWith(lab, credential))
    },
  },
  {
    id: 'expired',
    sends: 'a token that has ended, with a fresh proof by its key',
    reasons: ['token_expired', 'token_inactive'],
    owner: 'application',
    cure: 'Let the service check exp of each token, with a minute or less for clocks that differ.',
    phase: 'end',
    play: async (lab) => {
      const { expired, bound } = lab.options.wallet
      if (!('why' in expired)) return answered(await freshWith(lab, expired))
      const { now, sleep, patience } = lab.options
      const wait = (lifeOf(bound.token, now())?.to ?? Number.POSITIVE_INFINITY) + SKEW - now()
      if (wait > patience) return untried(expired.why)
      await sleep(Math.max(0, wait) * 1000)
      return answered(await freshWith(lab, bound))
    },
  },
]
