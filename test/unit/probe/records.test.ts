/** Which record is of which request, where several verifiers and other callers are on record. */
import { describe, expect, it } from 'vitest'
import { type Members, Records, tokenMark } from '../../../src/probe/records.ts'

const OURS = tokenMark('ours')
const THEIRS = tokenMark('theirs')
const told = (allowed: boolean, token: string | undefined, reason?: string): Members => ({
  event: 'verify',
  allowed,
  ...(token === undefined ? {} : { token }),
  ...(reason === undefined ? {} : { reason }),
})

/** Verifiers by name, and what comes at each pull. */
function open(...tails: readonly (readonly [name: string, ...pulls: (readonly Members[])[]])[]) {
  const sleeps: number[] = []
  const records = new Records(
    tails.map(([name, ...pulls]) => ({ name, pull: () => pulls.shift() ?? [] })),
    async (ms) => void sleeps.push(ms),
  )
  return { records, sleeps }
}

describe('the record of a request', () => {
  it('is the one of its token, whoever else is on record', async () => {
    const come = [told(true, THEIRS), told(false, OURS, 'proof_replayed'), told(true, undefined)]
    const { records } = open(['b', come])
    expect(await records.find({ token: OURS, isTaken: false })).toMatchObject({
      verifier: 'b',
      allowed: false,
      reason: 'proof_replayed',
    })
  })

  it('is a refusal before what another verifier allowed, which is waited for', async () => {
    const { records, sleeps } = open(
      ['gateway', [told(true, OURS)]],
      ['b', [], [told(false, OURS, 'proof_url')]],
    )
    expect(await records.find({ token: OURS, isTaken: false })).toMatchObject({ verifier: 'b' })
    expect(sleeps).toHaveLength(1)
  })

  it('is what the one verifier allowed where no refusal comes', async () => {
    const taken = open(['gateway', [told(true, OURS)]], ['b'])
    expect(await taken.records.find({ token: OURS, isTaken: true })).toMatchObject({ verifier: 'gateway' })
    expect(taken.sleeps).toEqual([])
    const refused = open(['gateway', [told(true, OURS)]], ['b'])
    expect(await refused.records.find({ token: OURS, isTaken: false })).toMatchObject({ allowed: true })
  })

  it('is one without a token where the request shows none, or two', async () => {
    const { records } = open(['b', [told(true, THEIRS), told(false, undefined, 'proof_repeated')]])
    expect(await records.find({ token: OURS, isTaken: false })).toMatchObject({ reason: 'proof_repeated' })
  })

  it('is not told where several are possible and say different things', async () => {
    const come = [told(false, undefined, 'token_missing'), told(true, undefined)]
    const { records } = open(['b', come])
    expect(await records.find({ token: undefined, isTaken: false })).toBeUndefined()
  })

  it('is never one of before the mark, or a reason that nobody knows', async () => {
    const { records } = open(['b', [told(true, OURS)], [told(false, OURS, 'of_tomorrow')]])
    records.mark()
    expect(await records.find({ token: OURS, isTaken: false })).toMatchObject({ reason: 'other' })
  })
})

describe('sightings of a token', () => {
  it('tell it from other tokens, and from silence', async () => {
    const seen = open(['c', [], [told(false, OURS, 'token_audience')]])
    expect((await seen.records.sightings(OURS)).own).toMatchObject({ verifier: 'c' })
    const other = open(['c', [told(true, THEIRS)]])
    expect(await other.records.sightings(OURS)).toEqual({ own: undefined, others: 1 })
    expect(await open(['c']).records.sightings(OURS)).toEqual({ own: undefined, others: 0 })
  })
})
