import { mkdtempSync, readFileSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { beforeEach, describe, expect, it } from 'vitest'
import { Revocations } from '../../../src/policy/revocations.ts'
import { ManualClock } from '../../support/clock.ts'

describe('Revocations', () => {
  let file: string
  beforeEach(() => {
    file = join(mkdtempSync(join(tmpdir(), 'holdfast-')), 'revocations.json')
  })

  it('denies what an operator named, and nothing else', () => {
    const revocations = new Revocations(undefined, new ManualClock())
    revocations.add('spiffe_id', 'spiffe://a.test/web')
    expect(() => revocations.check([['spiffe_id', 'spiffe://a.test/web']])).toThrowError(
      /revoked this spiffe id/,
    )
    expect(() =>
      revocations.check([
        ['spiffe_id', 'spiffe://a.test/we'],
        ['jkt', 'spiffe://a.test/web'],
      ]),
    ).not.toThrow()
  })

  it('is on disk before the operator has an answer, and read again by the next agent', () => {
    new Revocations(file, new ManualClock()).add('target', 'orders')
    expect(JSON.parse(readFileSync(file, 'utf8'))).toMatchObject([{ kind: 'target', value: 'orders' }])
    expect(new Revocations(file, new ManualClock()).find('target', 'orders')).toBeDefined()
  })

  it('keeps the rule out of memory when it cannot be written', () => {
    const revocations = new Revocations(join(file, 'no-such-folder'), new ManualClock())
    expect(() => revocations.add('jkt', 'x')).toThrow()
    expect(revocations.find('jkt', 'x')).toBeUndefined()
  })

  it('ends a rule given for a time', () => {
    const clock = new ManualClock()
    const revocations = new Revocations(file, clock)
    revocations.add('jkt', 'abc', 60)
    clock.advance(59_000)
    expect(revocations.find('jkt', 'abc')).toBeDefined()
    clock.advance(1_000)
    expect(revocations.find('jkt', 'abc')).toBeUndefined()
    expect(revocations.list()).toEqual([])
  })

  it('lifts a rule once', () => {
    const revocations = new Revocations(file, new ManualClock())
    revocations.add('jkt', 'abc')
    expect([revocations.lift('jkt', 'abc'), revocations.lift('jkt', 'abc')]).toEqual([true, false])
    expect(new Revocations(file, new ManualClock()).list()).toEqual([])
  })

  it.each([
    '',
    '{}',
    '[{"kind":"all","value":"x","since":1}]',
    '[{"kind":"jkt","value":"x","since":1,"until":"soon"}]',
  ])('refuses to start on %j, rather than forget what was revoked', (text) => {
    writeFileSync(file, text)
    expect(() => new Revocations(file, new ManualClock())).toThrowError(/will not start without knowing them/)
  })
})
