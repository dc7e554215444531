import { expect, it } from 'vitest'
import type { KeyOwner } from '../../../src/keys/vault.ts'
import { Rates } from '../../../src/sign/rate.ts'
import { ManualClock } from '../../support/clock.ts'

it('refuses the request over the rate and fills again with time', () => {
  const clock = new ManualClock()
  const rates = new Rates(10, clock)
  const { signal } = new AbortController()
  for (let count = 0; count < 10; count++) rates.take('a', signal)
  expect(() => rates.take('a', signal)).toThrowError(/over 10 requests a second/)
  clock.advance(100)
  rates.take('a', signal)
  expect(() => rates.take('a', signal)).toThrow()
})

it('counts each instance by itself and forgets one that ended', () => {
  const rates = new Rates(1, new ManualClock())
  const lease = new AbortController()
  rates.take('a', lease.signal)
  rates.take('b', lease.signal)
  lease.abort()
  rates.take('a', new AbortController().signal)
})

it('counts identities by themselves where the node is the instance of them all', () => {
  const rates = new Rates(1, new ManualClock())
  const [web, shop] = ['web', 'shop'].map((name) => ({
    spiffeId: `spiffe://example.org/${name}`,
    instance: { key: 'identity', signal: new AbortController().signal },
  })) as [KeyOwner, KeyOwner]
  rates.takeOf(web)
  expect(() => rates.takeOf(web)).toThrow()
  rates.takeOf(shop)
})
