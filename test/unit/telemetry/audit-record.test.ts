/** The text of records, one after another: a field says what its own record says. */
import { describe, expect, it } from 'vitest'
import type { AuditFacts } from '../../../src/telemetry/audit.ts'
import { membersOf } from '../../../src/telemetry/audit-record.ts'

const FACTS: AuditFacts = { event: 'sign.dpop', allowed: true, entry: 'orders', pid: 7, rule: 'a.yaml:1' }
const textOf = (facts: object) => membersOf(facts as AuditFacts)

describe('membersOf', () => {
  it('keeps the order of the facts and leaves out what is absent', () => {
    expect(textOf({ ...FACTS, target: undefined })).toBe(
      '"event":"sign.dpop","allowed":true,"entry":"orders","pid":7,"rule":"a.yaml:1"',
    )
  })

  it.each<[string, object]>([
    ['another value', { entry: 'bills', pid: 8, rule: 'a.yaml:2', allowed: false }],
    ['a value that must be escaped', { entry: 'a"b', rule: '\\' }],
    ['a field less', { entry: undefined }],
    ['the same again', {}],
  ])('says of each record what it says after %s', (_what, change) => {
    const changed = { ...FACTS, ...change }
    for (const facts of [FACTS, changed, FACTS, changed, FACTS])
      expect(JSON.parse(`{${textOf(facts)}}`)).toEqual(JSON.parse(JSON.stringify(facts)))
  })

  it('reads a list anew each time', () => {
    const audience = ['a']
    expect(textOf({ audience })).toBe('"audience":["a"]')
    audience.push('b')
    expect(textOf({ audience })).toBe('"audience":["a","b"]')
  })

  it.each([[{ entry: 7 }], [{ pid: '7' }], [{ pid: Number.NaN }], [{ allowed: 'yes' }], [{ secret: 'x' }]])(
    'leaves out %o, before and after a good value',
    (bad) => {
      for (const facts of [bad, bad, FACTS, bad])
        expect(textOf(facts)).toBe(facts === FACTS ? textOf(FACTS) : '')
    },
  )
})
