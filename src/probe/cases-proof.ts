/** Cases about the proof itself: RFC 9449 s.4.3, one check each. */
import { hashOf } from '../proof/jwt.ts'
import { answered, type ProbeCase } from './case.ts'
import { withPrivateHalf } from './key.ts'
import type { Lab, ProofChange } from './lab.ts'

const AGAIN = 'Let the service check each proof as RFC 9449 s.4.3 lists it: '
const application = { owner: 'application', phase: 'now', isAboutProof: true } as const

/** A genuine token with a proof that is wrong in one thing. */
async function withProof(lab: Lab, change: (lab: Lab) => ProofChange) {
  return answered(await lab.attempt(() => lab.fields(lab.proof(change(lab)))))
}

const OTHER_HALF =
  'the private half was that of another key, so that none is shown: a library that compares the halves refuses it for that'
const HOUR = 3600
const TEN_MINUTES = 600

export const PROOF_CASES: readonly ProbeCase[] = [
  {
    ...application,
    id: 'other_method',
    sends: 'a proof that was made for another method',
    reasons: ['proof_method'],
    cure: `${AGAIN}htm has to be the method of the request (check 8).`,
    play: (lab) => withProof(lab, ({ options }) => ({ claims: { htm: otherMethod(options.method) } })),
  },
  {
    ...application,
    id: 'other_url',
    sends: 'a proof that was made for another URL of the same service',
    reasons: ['proof_url'],
    cure: `${AGAIN}htu has to be the public URL of the request (check 9).`,
    play: (lab) => withProof(lab, ({ options }) => ({ claims: { htu: siblingOf(options.htu) } })),
  },
  {
    ...application,
    id: 'wrong_ath',
    sends: 'a proof that was made for another access token',
    reasons: ['proof_token'],
    cure: `${AGAIN}ath has to be the hash of the very token that came along (check 12).`,
    play: (lab) => withProof(lab, () => ({ claims: { ath: hashOf(`${lab.bound.token}x`) } })),
  },
  {
    ...application,
    id: 'other_key',
    sends: 'a stolen token with a proof by another key',
    reasons: ['token_stolen'],
    isCore: true,
    cure: `${AGAIN}the key of the proof has to be the one in cnf.jkt of the token (check 12).`,
    play: (lab) => withProof(lab, () => ({ key: lab.stranger })),
  },
  {
    ...application,
    id: 'forged_proof',
    sends: "a proof that names the token's key and is signed by another",
    reasons: ['proof_forged'],
    cure: `${AGAIN}the signature has to verify with the key in jwk (check 6).`,
    play: (lab) => withProof(lab, () => ({ key: lab.stranger, header: { jwk: lab.bound.key.publicJwk } })),
  },
  {
    ...application,
    id: 'alg_none',
    sends: 'a proof of alg none, without a signature',
    reasons: ['proof_malformed'],
    cure: `${AGAIN}alg has to be one of a list of asymmetric algorithms (check 5).`,
    play: (lab) => withProof(lab, () => ({ header: { alg: 'none' } })),
  },
  {
    ...application,
    id: 'private_jwk',
    sends: 'a proof whose jwk shows a private key',
    reasons: ['proof_malformed'],
    cure: `${AGAIN}a jwk with a private member is refused (check 7).`,
    play: async (lab) => {
      const played = await withProof(lab, () => ({
        header: { jwk: withPrivateHalf(lab.bound.key.publicJwk) },
      }))
      const isSeen = played.kind === 'answered' && played.answers.every(({ record }) => record !== undefined)
      return isSeen ? played : { ...played, note: OTHER_HALF }
    },
  },
  {
    ...application,
    id: 'future_iat',
    sends: 'a proof that was made 10 minutes ahead',
    reasons: ['proof_time'],
    cure: `${AGAIN}iat may be ahead by the difference of clocks only (check 11).`,
    play: (lab) => withProof(lab, ({ options }) => ({ claims: { iat: options.now() + TEN_MINUTES } })),
  },
  {
    ...application,
    id: 'past_iat',
    sends: 'a proof that was made an hour ago and never used',
    reasons: ['proof_time', 'replay_floor'],
    cure: `${AGAIN}iat may be a minute or so old (check 11).`,
    play: (lab) => withProof(lab, ({ options }) => ({ claims: { iat: options.now() - HOUR } })),
  },
  {
    ...application,
    id: 'two_proofs',
    sends: 'two DPoP headers, one of them genuine: the first, then the last',
    reasons: ['proof_repeated'],
    cure: `${AGAIN}more than one DPoP header is refused (check 1).`,
    play: async (lab) => {
      const foreign = () => lab.proof({ key: lab.stranger })
      return answered(
        await lab.attempt(() => [...lab.fields(lab.proof()), ['DPoP', foreign()]]),
        await lab.attempt(() => [...lab.fields(foreign()), ['DPoP', lab.proof()]]),
      )
    },
  },
]

function otherMethod(method: 'GET' | 'HEAD'): string {
  return method === 'GET' ? 'HEAD' : 'GET'
}

function siblingOf(htu: string): string {
  return `${htu.endsWith('/') ? htu : `${htu}/`}elsewhere`
}
