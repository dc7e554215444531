import { describe, expect, it, vi } from 'vitest'
import { Fault } from '../../../src/base/fault.ts'
import { type LookUp, Resolver } from '../../../src/egress/resolve.ts'
import { ManualClock } from '../../support/clock.ts'

const make = (lookUp: LookUp, clock = new ManualClock()) =>
  new Resolver({ clock, lookUp, own: () => ['10.9.8.7'] })
const answers = (...addresses: readonly string[]) =>
  vi.fn<LookUp>(async () => addresses.map((address) => ({ address, family: address.includes(':') ? 6 : 4 })))
const reasonOf = (promise: Promise<unknown>) =>
  promise.then(
    () => 'none',
    (error: unknown) => (error instanceof Fault ? `${error.reason}: ${error.message}` : String(error)),
  )

describe('resolving a host', () => {
  it('gives only the addresses that may be dialled', async () => {
    const resolver = make(answers('127.0.0.1', '192.0.2.1', '::1'))
    expect(await resolver.resolve('orders.example.org', [])).toEqual([{ address: '192.0.2.1', family: 4 }])
  })

  it('refuses a name that leads to this node or its metadata service', async () => {
    expect(await reasonOf(make(answers('169.254.169.254')).resolve('orders.example.org', []))).toBe(
      'upstream_address: orders.example.org is 169.254.169.254: loopback, link-local or an address of this node',
    )
    expect(await reasonOf(make(answers('10.9.8.7')).resolve('orders.example.org', []))).toContain(
      'upstream_address',
    )
  })

  it('checks an IP literal without a look-up', async () => {
    const lookUp = answers()
    expect(await reasonOf(make(lookUp).resolve('::1', []))).toContain('upstream_address')
    expect(await make(lookUp).resolve('::1', ['::1'])).toEqual([{ address: '::1', family: 6 }])
    expect(lookUp).not.toHaveBeenCalled()
  })

  it('asks once for callers at the same time, and afresh after 30 seconds', async () => {
    const clock = new ManualClock()
    const lookUp = answers('192.0.2.1')
    const resolver = make(lookUp, clock)
    await Promise.all([resolver.resolve('a.example', []), resolver.resolve('a.example', [])])
    clock.advance(29_999)
    await resolver.resolve('a.example', [])
    expect(lookUp).toHaveBeenCalledTimes(1)
    clock.advance(1)
    await resolver.resolve('a.example', [])
    expect(lookUp).toHaveBeenCalledTimes(2)
  })

  it('checks again what it remembers: a list of one target is not that of another', async () => {
    const resolver = make(answers('127.0.0.1'))
    await resolver.resolve('a.example', ['127.0.0.1'])
    expect(await reasonOf(resolver.resolve('a.example', []))).toContain('upstream_address')
  })

  it('does not remember a failure', async () => {
    const lookUp = vi.fn<LookUp>().mockRejectedValueOnce(new Error('EAI_AGAIN'))
    lookUp.mockResolvedValueOnce([{ address: '192.0.2.1', family: 4 }])
    const resolver = make(lookUp)
    expect(await reasonOf(resolver.resolve('a.example', []))).toBe(
      'upstream_unavailable: a.example does not resolve',
    )
    expect(await resolver.resolve('a.example', [])).toHaveLength(1)
  })

  it('does not wait for a resolver that never answers', async () => {
    const clock = new ManualClock()
    const pending = reasonOf(make(() => new Promise(() => {}), clock).resolve('a.example', []))
    clock.advance(5_000)
    expect(await pending).toBe('upstream_unavailable: a.example does not resolve in time')
  })

  it('finds localhost in the hosts file', async () => {
    const resolver = new Resolver({ clock: new ManualClock() })
    const addresses = await resolver.resolve('localhost', ['127.0.0.1', '::1'])
    expect(addresses.map(({ address }) => address)).toContain('127.0.0.1')
  })
})
