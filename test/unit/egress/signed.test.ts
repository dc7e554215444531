/** What was signed lately: one second try a challenge, bounded memory, gone with the instance. */
import { describe, expect, it } from 'vitest'
import { Signed, type SignedOwner } from '../../../src/egress/signed.ts'
import type { Jkt } from '../../../src/proof/signer.ts'
import type { SpiffeId } from '../../../src/spiffe/id.ts'
import { ManualClock } from '../../support/clock.ts'

const URL_A = 'https://orders.example.org/a'
const REQUEST = { jkt: 'k' as Jkt, target: 'orders' }

function open(name = 'web') {
  const controller = new AbortController()
  const clock = new ManualClock()
  const owner: SignedOwner = {
    spiffeId: `spiffe://example.org/${name}` as SpiffeId,
    instance: { key: 'process:1:1', signal: controller.signal },
  }
  return { clock, owner, signed: new Signed(clock), end: () => controller.abort() }
}

describe('what was signed', () => {
  it('is the second try after a grant, and the first again after that', () => {
    const { owner, signed } = open()
    const states: (string | undefined)[] = []
    for (const isGranted of [true, false, false]) {
      signed.note(owner, URL_A, REQUEST)
      const found = signed.find(owner, URL_A)
      states.push(found?.state)
      if (found && isGranted) found.state = 'granted'
    }
    expect(states).toEqual(['first', 'retry', 'first'])
  })

  it('is forgotten after five minutes', () => {
    const { clock, owner, signed } = open()
    signed.note(owner, URL_A, REQUEST)
    clock.advance(299_999)
    expect(signed.find(owner, URL_A)).toMatchObject(REQUEST)
    clock.advance(1)
    expect(signed.find(owner, URL_A)).toBeUndefined()
  })

  it('is forgotten with its instance, and an ended one is not noted', () => {
    const { owner, signed, end } = open()
    signed.note(owner, URL_A, REQUEST)
    end()
    expect(signed.find(owner, URL_A)).toBeUndefined()
    signed.note(owner, URL_A, REQUEST)
    expect(signed.find(owner, URL_A)).toBeUndefined()
  })

  it('is kept for 256 URLs of an owner, the oldest goes first, and others lose nothing', () => {
    const { owner, signed } = open()
    const other = { ...owner, spiffeId: 'spiffe://example.org/other' as SpiffeId }
    signed.note(other, URL_A, REQUEST)
    for (let at = 0; at <= 256; at += 1) signed.note(owner, `${URL_A}/${at}`, REQUEST)
    expect(signed.find(owner, `${URL_A}/0`)).toBeUndefined()
    expect(signed.find(owner, `${URL_A}/1`)).toBeDefined()
    expect(signed.find(other, URL_A)).toBeDefined()
  })

  it('lets a token be given up once a minute, and never by one for whom nothing was signed', () => {
    const { clock, owner, signed } = open()
    expect(signed.mayRenew(owner)).toBe(false)
    signed.note(owner, URL_A, REQUEST)
    expect([signed.mayRenew(owner), signed.mayRenew(owner)]).toEqual([true, false])
    clock.advance(60_000)
    expect(signed.mayRenew(owner)).toBe(true)
  })
})
