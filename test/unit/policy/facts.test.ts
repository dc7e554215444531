/** Conditions on the call: time, subject, what the session did before. */
import { describe, expect, it } from 'vitest'
import { type CallContext, decide } from '../../../src/policy/decide.ts'
import { explain } from '../../../src/policy/explain.ts'
import { runPolicyTests } from '../../../src/policy/tests.ts'
import { bookOf, LAYERS, question } from '../../support/policy.ts'

/** Sunday, 2030-01-06T09:30:15Z. */
const context: CallContext = {
  now: 1_893_922_215,
  subject: 'alice',
  actors: ['https://agents.example.org/planner'],
  txn: 'order-17',
  calls: 2,
  writes: 1,
  targets: 1,
  isFirstUse: false,
}

const withWhen = (when: string, tests = '') => ({
  ...LAYERS,
  application: `${LAYERS.application}        when: ${JSON.stringify(when)}\n${tests}`,
})

async function isAllowed(when: string, over: Partial<CallContext> = {}): Promise<boolean> {
  const book = await bookOf(withWhen(when))
  return decide(book, question(book, { context: { ...context, ...over } })).allowed
}

describe('a condition on the call', () => {
  it.each([
    ['now < 1893922216', { now: 1_893_922_216 }],
    ['hour == 9', { now: 1_893_922_215 + 3600 }],
    ['minute == 30', { now: 1_893_922_215 + 60 }],
    ['weekday == 7', { now: 1_893_922_215 + 86_400 }],
    ["subject == 'alice'", { subject: '' }],
    ["'https://agents.example.org/planner' in actors", { actors: [] }],
    ["txn == 'order-17'", { txn: '' }],
    ['session_calls < 3', { calls: 3 }],
    ['session_writes < 2', { writes: 2 }],
    ['session_targets <= 1', { targets: 2 }],
    ['!first_use', { isFirstUse: true }],
  ])('%s holds, and not for another call', async (when, other) => {
    expect(await isAllowed(when)).toBe(true)
    expect(await isAllowed(when, other)).toBe(false)
  })

  it.each([
    ['a time that is no number', 'now > 0', { now: Number.NaN }],
    ['a count that is no number', 'session_calls < 3', { calls: Number.NaN }],
    ['a long subject', "subject != ''", { subject: 'a'.repeat(2049) }],
    ['many actors', 'size(actors) > 0', { actors: Array.from({ length: 129 }, String) }],
  ])('does not hold with %s', async (_what, when, over) => {
    expect(await isAllowed(when, over)).toBe(false)
  })

  it.each(['session_calls < 3', 'true || first_use', "subject != 'bob'"])(
    'does not hold where nothing is known of the call: %s',
    async (when) => {
      const book = await bookOf(withWhen(when))
      expect(decide(book, question(book))).toMatchObject({ allowed: false, reason: 'policy_denied' })
    },
  )

  it('is explained as known only when a request is made', async () => {
    const book = await bookOf(withWhen('session_calls < 3 && first_use'))
    const { url, method, token, selectors } = question(book)
    const found = explain(book, { url, method, token, selectors, kind: 'dpop' })
    expect(found).toMatchObject({
      allowed: false,
      message:
        'the condition at application.yaml:5 asks for session_calls, first_use, known only when a request is made',
    })
  })

  it('leaves a book that asks for nothing of the kind without need of it', async () => {
    expect((await bookOf()).needsContext).toBe(false)
    expect((await bookOf(withWhen("method == 'GET'"))).needsContext).toBe(false)
    expect((await bookOf(withWhen('hour < 9'))).needsContext).toBe(true)
    const approval = { ...LAYERS, application: `${LAYERS.application}        approval: {}\n` }
    expect((await bookOf(approval)).needsContext).toBe(true)
  })
})

describe('a policy test with context', () => {
  const test = (over: string) =>
    `tests:\n  - { name: t, spiffe_id: spiffe://example.org/web, method: GET, url: https://orders.example.org/orders/1, ${over} }\n`

  it.each([
    ['hour < 10', 'context: { time: 2030-01-06T09:30:00Z }, expect: allow'],
    ['hour < 10', 'context: { time: 2030-01-06T10:30:00Z }, expect: deny'],
    ['hour < 24', 'context: {}, expect: deny'],
    ['session_writes < 2', 'context: { session_writes: 1 }, expect: allow'],
    ['session_writes < 2', 'context: { session_writes: 2 }, expect: deny'],
    ['first_use', 'context: {}, expect: allow'],
    ['first_use', 'expect: deny'],
    ["subject == 'alice'", 'context: { subject: alice }, expect: allow'],
  ])('%s answers to %s', async (when, over) => {
    const book = await bookOf(withWhen(when, test(over)))
    expect(runPolicyTests(book)).toMatchObject([{ passed: true }])
  })

  it('says what a grant demands besides', async () => {
    const demands = '        approval: { on: always, wait: 90s }\n        hook: true\n'
    const application = `${LAYERS.application}${demands}${test('expect: allow')}`
    expect(runPolicyTests(await bookOf({ ...LAYERS, application }))[0]?.message).toBe(
      'allowed by read, application.yaml:5; also wants the approval of a person each time, within 90 s; also wants the decision hook',
    )
  })
})
