/** `mode: observe` at the verifier: what policy does not expect passes and is on record, what is not proven stays refused. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { systemClock } from '../../src/base/clock.ts'
import { VERIFY_CASES, type VerifyCase } from '../support/verify-cases.ts'
import { openVerifyRig, type VerifyRig } from '../support/verify-rig.ts'
import { casesFor, expectAnswer, statusAt } from '../support/verify-table.ts'
import { WAYS, type Way } from '../support/verify-ways.ts'

const EXPECTATIONS = [
  'caller_unexpected',
  'policy_denied',
  'scope_missing',
  'hop_unexpected',
  'token_too_long',
]
const isExpectation = ({ reason }: VerifyCase) => EXPECTATIONS.includes(reason)
const HOUR = 3_600

const unexpectedFor = (way: Way) => casesFor(way).filter(([, each]) => isExpectation(each))
const unprovenFor = (way: Way) => casesFor(way).filter(([, each]) => !isExpectation(each))

async function expectObserved(rig: VerifyRig, way: Way, each: VerifyCase): Promise<void> {
  const [request] = each.requests(rig)
  if (!request) throw new Error('a case without a request')
  expect((await way.ask(rig.socket, request)).isAllowed).toBe(true)
  expect(rig.verdicts().at(-1)).toMatchObject({ allowed: true, observed: each.reason })
  // The proof is used up all the same.
  expect((await way.ask(rig.socket, request)).isAllowed).toBe(false)
  expect(rig.verdicts().at(-1)).toMatchObject({ allowed: false, reason: 'proof_replayed' })
  expect(rig.verdicts().at(-1)).not.toHaveProperty('observed')
}

describe('the verifier where policy only observes', () => {
  let rig: VerifyRig

  beforeAll(async () => {
    const until = `${new Date(systemClock.now() + HOUR * 1_000).toISOString().slice(0, 19)}Z`
    rig = await openVerifyRig({
      security: () => `layer: security\nobserve: { approver: ann, until: '${until}' }\n`,
    })
  })
  afterAll(async () => rig?.[Symbol.asyncDispose]())

  it('has a case of each expectation', () => {
    const reasons = new Set(VERIFY_CASES.filter(isExpectation).map(({ reason }) => reason))
    expect([...reasons].sort()).toEqual([...EXPECTATIONS].sort())
  })

  describe.each(WAYS.map((way) => [way.name, way] as const))('by %s', (_name, way) => {
    it.each(unexpectedFor(way))('lets through %s', (_case, each) => expectObserved(rig, way, each))

    it.each(unprovenFor(way))('answers as ever %s', (_case, each) => expectAnswer(rig, way, each))

    it('counts what would have been refused apart from what is right', async () => {
      const count = async (labels: string) =>
        Number(
          (await rig.agent.metrics.render())
            .split('\n')
            .find((line) => line.startsWith(`holdfast_verified_total{${labels}}`))
            ?.split(' ')
            .at(-1) ?? 0,
        )
      const [right, observed] = ['reason="ok"', 'reason="observed",observed="policy_denied"']
      const before = [await count(right), await count(observed)]
      await way.ask(rig.socket, rig.request())
      expect([await count(right), await count(observed)]).toEqual([Number(before[0]) + 1, before[1]])
      expect((await way.ask(rig.socket, rig.request({ method: 'PUT' }))).isAllowed).toBe(true)
      expect(await count(observed)).toBe(Number(before[1]) + 1)
    })

    it('refuses a method that no grant can allow', async () => {
      const heard = await way.ask(rig.socket, rig.request({ method: 'TRACE' }))
      expect([heard.isAllowed, heard.status]).toEqual([false, statusAt(way, 403)])
      expect(rig.verdicts().at(-1)).toMatchObject({ allowed: false, reason: 'policy_denied' })
    })
  })

  describe('after its end date', () => {
    beforeAll(() => rig.pass(HOUR))

    it.each(unexpectedFor(WAYS[0] as Way))('refuses %s', (_case, each) =>
      expectAnswer(rig, WAYS[0] as Way, each),
    )
  })
})
