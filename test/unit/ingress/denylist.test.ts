/** What is revoked: each rule as narrow as it says, bounded, and over at its end. */
import { describe, expect, it } from 'vitest'
import { nowSeconds } from '../../../src/base/clock.ts'
import type { Fault } from '../../../src/base/fault.ts'
import type { DenialFacts } from '../../../src/ingress/checking.ts'
import { type DenyRule, formatDenyRule, parseDenyRule, ruleId } from '../../../src/ingress/deny-rule.ts'
import { Denylist } from '../../../src/ingress/denylist.ts'
import { parseDenylist } from '../../../src/ingress/denylist-text.ts'
import { Revocations } from '../../../src/policy/revocations.ts'
import type { SpiffeId } from '../../../src/spiffe/id.ts'
import { ManualClock } from '../../support/clock.ts'

const NOBODY: DenialFacts = {
  spiffeId: undefined,
  issuer: undefined,
  subject: undefined,
  clientId: undefined,
  actor: undefined,
  tokenId: undefined,
  jkt: undefined,
  issuedAt: undefined,
}
const ANN: DenialFacts = {
  ...NOBODY,
  issuer: 'https://login.example.org',
  subject: 'ann',
  clientId: 'web',
  tokenId: 't-1',
  jkt: 'key-1',
  issuedAt: 1_700_000_000,
}

function open(limit = 100) {
  const clock = new ManualClock()
  const revocations = new Revocations(undefined, clock)
  const denylist = new Denylist({ clock, revocations, limit })
  const denies = (facts: Partial<DenialFacts> = {}) => {
    try {
      denylist.check({ ...ANN, ...facts })
      return false
    } catch (error) {
      expect((error as Fault).reason).toBe('token_revoked')
      return true
    }
  }
  const rule = (members: object) =>
    parseDenyRule({ until: nowSeconds(clock) + 60, reason: 'laptop stolen', ...members })
  return { clock, denies, denylist, revocations, rule }
}

describe('a rule', () => {
  it.each([
    [{ issuer: ANN.issuer }, { issuer: 'https://other.example.org' }],
    [{ sub: 'ann' }, { subject: 'bob' }],
    [{ client_id: 'web' }, { clientId: undefined }],
    [{ jti: 't-1' }, { tokenId: 't-2' }],
    [{ jkt: 'key-1' }, { jkt: 'key-2' }],
    [{ issuer: ANN.issuer, sub: 'ann' }, { issuer: 'https://other.example.org' }],
    [{ sub: 'ann', jkt: 'key-1' }, { jkt: undefined }],
    [{ sub: 'ann', before: 1_700_000_001 }, { issuedAt: 1_700_000_001 }],
  ])('%j denies what it names and nothing else', (members, other) => {
    const { denies, denylist, rule } = open()
    denylist.replace('file', [rule(members)])
    expect([denies(), denies(other)]).toEqual([true, false])
  })

  it.each(['spiffeId', 'clientId', 'subject', 'actor'] as const)(
    'of a SPIFFE ID denies whom a token names so (%s), whoever revoked it',
    (member) => {
      const { denies, denylist, revocations, rule } = open()
      const [id, other] = ['spiffe://example.org/web' as SpiffeId, 'spiffe://example.org/web2' as SpiffeId]
      denylist.replace('shared', [rule({ spiffe_id: id })])
      expect([denies({ [member]: id }), denies({ [member]: other })]).toEqual([true, false])
      denylist.replace('shared', [])
      revocations.add('spiffe_id', id)
      expect([denies({ [member]: id }), denies({ [member]: other })]).toEqual([true, false])
    },
  )

  it('with before denies what does not say when it was issued', () => {
    const { denies, denylist, rule } = open()
    denylist.replace('file', [rule({ sub: 'ann', before: 1 })])
    expect([denies({ issuedAt: undefined }), denies()]).toEqual([true, false])
  })

  it('ends at its end', () => {
    const { clock, denies, denylist, rule } = open()
    denylist.replace('file', [rule({ sub: 'ann' })])
    clock.advance(59_000)
    expect(denies()).toBe(true)
    clock.advance(1_000)
    expect([denies(), denylist.own().size]).toEqual([false, 0])
  })

  it.each([
    ['no mapping', ['sub']],
    ['nothing', { until: 1, reason: 'x' }],
    ['an unknown member', { sub: 'ann', until: 1, reason: 'x', audience: 'y' }],
    ['a name that every object has', { sub: 'ann', until: 1, reason: 'x', toString: 'y' }],
    ['no end', { sub: 'ann', reason: 'x' }],
    ['no reason', { sub: 'ann', until: 1 }],
    ['an end that is none', { sub: 'ann', until: 'soon', reason: 'x' }],
    ['an infinite end', { sub: 'ann', until: Number.POSITIVE_INFINITY, reason: 'x' }],
    ['an empty subject', { sub: '', until: 1, reason: 'x' }],
    ['a long subject', { sub: 'x'.repeat(2049), until: 1, reason: 'x' }],
  ])('with %s is refused', (_what, members) => {
    expect(() => parseDenyRule(members)).toThrow(expect.objectContaining({ reason: 'invalid_request' }))
  })

  it('is one text and one id, however its members are ordered', () => {
    const [a, b] = [
      { sub: 'ann', until: 1, reason: 'x' },
      { reason: 'x', until: 1, sub: 'ann' },
    ].map(parseDenyRule) as [DenyRule, DenyRule]
    expect([formatDenyRule(a), ruleId(a)]).toEqual([formatDenyRule(b), ruleId(b)])
  })
})

describe('a denylist', () => {
  it('denies what operators revoke, at once, until it is lifted', () => {
    const { denies, revocations } = open()
    expect(denies()).toBe(false)
    revocations.add('jkt', 'key-1')
    revocations.add('spiffe_id', 'spiffe://example.org/web')
    expect([denies(), denies({ jkt: undefined, spiffeId: 'spiffe://example.org/web' })]).toEqual([true, true])
    revocations.lift('jkt', 'key-1')
    expect(denies()).toBe(false)
  })

  it('keeps what it had when a list is too long', () => {
    const { denies, denylist, rule } = open(2)
    denylist.replace('file', [rule({ sub: 'ann' })])
    const long = ['a', 'b', 'c'].map((sub) => rule({ sub }))
    expect(() => denylist.replace('file', long)).toThrow(expect.objectContaining({ reason: 'overloaded' }))
    expect(denies()).toBe(true)
  })

  it('passes on what is its own: no targets, no processes, nothing that it heard', () => {
    const { denylist, revocations, rule } = open()
    revocations.add('target', 'orders')
    revocations.add('process', 'p')
    revocations.add('jkt', 'key-1')
    for (const source of ['file', 'url', 'events', 'shared'] as const)
      denylist.replace(source, [rule({ sub: source })])
    expect([...denylist.own().values()].map(({ jkt, sub }) => jkt ?? sub)).toEqual([
      'key-1',
      'file',
      'events',
    ])
  })
})

describe('the text of a denylist', () => {
  it('is JSON lines or a YAML list', async () => {
    const lines = '{"sub":"ann","until":1,"reason":"x"}\n\n{"jkt":"k","until":"2030-01-01","reason":"y"}\n'
    const yaml = '- { sub: ann, until: 1, reason: x }\n- { jkt: k, until: 2030-01-01, reason: "y" }\n'
    const [a, b] = [await parseDenylist('a', lines), await parseDenylist('b', yaml)]
    expect(a).toEqual(b)
    expect(a).toHaveLength(2)
    expect([await parseDenylist('a', ''), await parseDenylist('a', '# none\n')]).toEqual([[], []])
  })

  it.each([
    ['{"sub":"ann","until":1,"reason":"x"}\n{"sub":1}', 'list:2: '],
    ['{"sub":"ann","sub":"bob","until":1,"reason":"x"}', 'list:1: '],
    ['- { sub: ann, until: 1, reason: x }\n- { sub: ann }\n', 'list:2: '],
    ['sub: ann\n', 'list:1: '],
    ['- &a { sub: ann }\n- *a\n', 'list:1: '],
    [`{"sub":"${'x'.repeat(9000)}","until":1,"reason":"x"}`, 'list:1: '],
  ])('%j is refused as a whole, with its line', async (text, place) => {
    await expect(parseDenylist('list', text)).rejects.toThrow(
      expect.objectContaining({ reason: 'config_invalid', message: expect.stringContaining(place) }),
    )
  })
})
