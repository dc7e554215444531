import { describe, expect, it } from 'vitest'
import { Fault } from '../../../src/base/fault.ts'
import { REASONS } from '../../../src/base/reasons.ts'

describe('Fault', () => {
  it('takes its message, cure and owner from the reason', () => {
    const fault = new Fault('no_identity')
    expect(fault.message).toBe('no identity issued')
    expect(fault.toJSON()).toEqual({
      reason: 'no_identity',
      message: 'no identity issued',
      action: REASONS.no_identity.cure,
      owner: 'identity',
      docs: 'https://holdfast.dev/reasons#no_identity',
    })
  })

  it('shows nothing of its cause in JSON or enumeration', () => {
    const fault = new Fault('bug', undefined, { cause: new Error('eyJ-token') })
    expect(JSON.stringify(fault)).not.toContain('eyJ-token')
    expect(Object.keys(fault)).not.toContain('cause')
  })

  it('makes control characters of callers harmless and bounds the length', () => {
    const fault = new Fault('invalid_request', `a\nb\u001b[31m${'x'.repeat(5000)}`)
    expect(fault.message.startsWith('a\ufffdb\ufffd[31m')).toBe(true)
    expect(fault.message.length).toBeLessThan(1030)
  })

  it('keeps a Fault and hides everything else behind its reason', () => {
    const fault = new Fault('draining')
    expect(Fault.from(fault)).toBe(fault)
    expect(Fault.from(new Error('secret text')).message).toBe('internal error')
  })
})
