/** Cases about proofs that were used before, or are too old: RFC 9449 s.11.1 and s.9. */

import { fateOf } from './answer.ts'
import { answered, type Played, type ProbeCase, spoilt, untried } from './case.ts'
import type { Lab } from './lab.ts'
import { lifeOf } from './wallet.ts'

const STORE =
  'Let the service remember the jti of each proof for its whole window, in one store for all of its nodes (RFC 9449 s.11.1).'

const OLD_LEFT_OUT =
  'only the made-up one was sent: the other is over later than --patience or the token lets the run wait (--nonce-life)'

/** After a wait the token may have ended, or the caller be locked out: then a refusal is none of what was sent. */
async function stillTaken(lab: Lab, played: Played): Promise<Played> {
  if (played.kind !== 'answered' || played.answers.some((answer) => fateOf(answer) === 'taken')) return played
  if (fateOf((await lab.genuine()).answer) === 'taken') return played
  return spoilt(
    'the genuine request after the wait was not taken: use a token that lives longer, or wait less',
  )
}

export const REPLAY_CASES: readonly ProbeCase[] = [
  {
    id: 'replay',
    sends: 'a whole request once more, at once, byte for byte',
    reasons: ['proof_replayed'],
    owner: 'application',
    cure: STORE,
    phase: 'now',
    isCore: true,
    isAboutProof: true,
    play: async (lab) => {
      const { answer, proof } = await lab.genuine()
      if (fateOf(answer) !== 'taken') return spoilt('the genuine request before it was not taken')
      // Twice: a store for each of two nodes tells every other replay.
      return answered(await lab.send(lab.fields(proof)), await lab.send(lab.fields(proof)))
    },
  },
  {
    id: 'late_replay',
    sends: 'a whole request once more, after a while',
    reasons: ['proof_replayed', 'proof_time', 'replay_floor', 'proof_nonce'],
    owner: 'application',
    cure: STORE,
    phase: 'late',
    isAboutProof: true,
    play: async (lab) => {
      const { late } = lab.options
      if (late === 0) return untried('no wait was asked for (--late 60s)')
      const { answer, proof } = await lab.genuine()
      if (fateOf(answer) !== 'taken') return spoilt('the genuine request before it was not taken')
      await lab.options.sleep(late * 1000)
      return stillTaken(lab, answered(await lab.send(lab.fields(proof))))
    },
  },
  {
    id: 'old_nonce',
    sends: 'a fresh proof with a nonce that the server never gave, and one with the first it gave, long ago',
    reasons: ['proof_nonce'],
    owner: 'application',
    cure: 'Let the service take only nonces of its own that are still good (RFC 9449 s.9).',
    phase: 'late',
    isAboutProof: true,
    play: async (lab) => {
      const { firstNonce: first, options } = lab
      if (first === undefined) return untried('the server gives no nonces')
      const withNonce = (nonce: string) => lab.send(lab.fields(lab.proof({ claims: { nonce } })))
      const madeUp = await withNonce(first.text.split('').reverse().join(''))
      const wait = Math.max(0, first.given + options.nonceLife - options.now())
      // A token that ends meanwhile would be refused for that.
      const end = lifeOf(lab.bound.token, options.now())?.to ?? Number.POSITIVE_INFINITY
      if (wait > options.patience || options.now() + wait >= end)
        return { ...answered(madeUp), note: OLD_LEFT_OUT }
      await options.sleep(wait * 1000)
      return stillTaken(lab, answered(madeUp, await withNonce(first.text)))
    },
  },
]
