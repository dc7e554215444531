import { describe, expect, it, vi } from 'vitest'
import { Fault } from '../../../src/base/fault.ts'
import type { Live } from '../../../src/base/live.ts'
import { Secret } from '../../../src/base/secret.ts'
import type { ClientAuths } from '../../../src/egress/client-auth.ts'
import type { IssuerHttp } from '../../../src/egress/issuer-http.ts'
import { IssuerNonces } from '../../../src/egress/issuer-nonces.ts'
import type { Metadata } from '../../../src/egress/metadata.ts'
import { Revoker } from '../../../src/egress/revoke.ts'
import type { TokenNeed } from '../../../src/egress/token-request.ts'
import type { RuleBook } from '../../../src/policy/book.ts'
import { ManualClock } from '../../support/clock.ts'

const needOf = (name: string, issuer = 'https://as.example.org') =>
  ({
    server: { issuer, tokenEndpoint: name },
    entry: { spiffeId: `spiffe://example.org/${name}` },
  }) as TokenNeed
const need = needOf('web')
const NOW = 1_700_000_000

/** A revoker whose look for the endpoint is what a test decides. */
function open(revocationEndpoint: () => Promise<string | undefined>) {
  const heard: string[] = []
  const clock = new ManualClock()
  const looking = vi.fn(revocationEndpoint)
  const revoker = new Revoker({
    http: {} as IssuerHttp,
    metadata: { revocationEndpoint: looking } as unknown as Metadata,
    clients: {
      authenticate: () => ({ clientId: 'c', auth: () => {}, tls: undefined }),
    } as unknown as ClientAuths,
    nonces: new IssuerNonces(),
    book: { get: () => ({ serverTls: () => ({}) }) } as unknown as Live<RuleBook>,
    clock,
    onRevoked: (fault) => heard.push(fault?.reason ?? 'ok'),
  })
  return { revoker, looking, heard, clock }
}

const settle = () => new Promise((resolve) => setImmediate(resolve))

describe('giving tokens back', () => {
  it('asks two at a time, and holds no more than a thousand', async () => {
    let release = () => {}
    const released = new Promise<undefined>((resolve) => {
      release = () => resolve(undefined)
    })
    const { revoker, looking } = open(() => released)
    for (let index = 0; index < 2_000; index += 1) revoker.add(need, new Secret('t'), NOW + 60)
    await settle()
    expect(looking).toHaveBeenCalledTimes(2)
    release()
    await settle()
    expect(looking).toHaveBeenCalledTimes(1_024)
  })

  it('goes on for others, however many tokens one identity gives back', async () => {
    const ends: (() => void)[] = []
    const { revoker, looking } = open(() => new Promise((resolve) => ends.push(() => resolve(undefined))))
    for (let index = 0; index < 5_000; index += 1) revoker.add(need, new Secret('t'), NOW + 60)
    revoker.add(needOf('db'), new Secret('t'), NOW + 60)
    await settle()
    ends[0]?.()
    await settle()
    const asked = looking.mock.calls as unknown as [{ readonly tokenEndpoint: string }][]
    expect(asked.map(([{ tokenEndpoint }]) => tokenEndpoint)).toEqual(['web', 'web', 'db'])
  })

  it('lets a server that hangs keep nothing of another', async () => {
    const { revoker, looking, heard } = open(async () => undefined)
    looking
      .mockImplementationOnce(() => new Promise(() => {}))
      .mockImplementationOnce(() => new Promise(() => {}))
    for (let index = 0; index < 3; index += 1) revoker.add(need, new Secret('t'), NOW + 60)
    const other = needOf('web', 'https://b.example.org')
    revoker.add(other, new Secret('t'), NOW + 60)
    await settle()
    expect([looking.mock.calls.length, heard]).toEqual([3, []])
  })

  it('is waited for until all is done, or for the limit', async () => {
    let release = () => {}
    const { revoker, clock } = open(() => new Promise((resolve) => (release = () => resolve(undefined))))
    const ended: string[] = []
    const wait = (name: string) => revoker.settled(3_000).then(() => ended.push(name))
    await wait('nothing')
    revoker.add(need, new Secret('t'), NOW + 60)
    void wait('one')
    await settle()
    expect(ended).toEqual(['nothing'])
    release()
    await settle()
    expect(ended).toEqual(['nothing', 'one'])
    revoker.add(need, new Secret('t'), NOW + 60)
    void wait('late')
    clock.advance(2_999)
    await settle()
    expect(ended).toHaveLength(2)
    clock.advance(1)
    await settle()
    expect(ended).toEqual(['nothing', 'one', 'late'])
  })

  it('leaves alone what ends at once', async () => {
    const { revoker, looking } = open(async () => undefined)
    revoker.add(need, new Secret('t'), NOW + 2)
    await settle()
    expect(looking).not.toHaveBeenCalled()
  })

  it('says nothing where the server has no endpoint, and goes on after a failure', async () => {
    const { revoker, looking, heard } = open(async () => undefined)
    looking.mockRejectedValueOnce(new Fault('issuer_unavailable'))
    revoker.add(need, new Secret('t'), NOW + 60)
    revoker.add(need, new Secret('t'), NOW + 60)
    await settle()
    expect([looking.mock.calls.length, heard]).toEqual([2, ['issuer_unavailable']])
  })

  it('gives one token back once', async () => {
    const { revoker, looking } = open(async () => undefined)
    const token = new Secret('t')
    for (const _each of [1, 2]) revoker.add(need, token, NOW + 60)
    await settle()
    expect(looking).toHaveBeenCalledTimes(1)
  })

  it('waits for the time of a token, for its lease, or for nobody any more', async () => {
    const { revoker, looking, clock } = open(async () => undefined)
    const controller = new AbortController()
    const leased = { ...need, instance: { key: 'process:1:1', signal: controller.signal } }
    const times = { at: NOW + 60, ends: NOW + 600 }
    for (const _each of [1, 2]) revoker.addAt(leased, new Secret('t'), times)
    const early = new Secret('t')
    revoker.addAt(leased, early, times)
    revoker.add(leased, early, times.ends)
    clock.advance(59_000)
    await settle()
    expect(looking).toHaveBeenCalledTimes(1)
    clock.advance(1_000)
    await settle()
    expect(looking).toHaveBeenCalledTimes(3)
    revoker.addAt(leased, new Secret('t'), { at: NOW + 120, ends: NOW + 600 })
    controller.abort()
    await settle()
    expect(looking).toHaveBeenCalledTimes(4)
    revoker.addAt(leased, new Secret('t'), { at: NOW + 120, ends: NOW + 600 })
    await settle()
    expect(looking).toHaveBeenCalledTimes(5)
    revoker.stop()
    clock.advance(600_000)
    await settle()
    expect(looking).toHaveBeenCalledTimes(5)
  })

  it('remembers for an hour that a server refuses, and holds a bounded number for later', async () => {
    const { revoker, looking, clock } = open(async () => undefined)
    looking.mockRejectedValueOnce(new Fault('issuer_refused'))
    revoker.add(need, new Secret('t'), NOW + 60)
    await settle()
    expect(revoker.isRefusedBy(need.server)).toBe(true)
    clock.advance(3_600_000)
    expect(revoker.isRefusedBy(need.server)).toBe(false)
    const add = () => {
      const instance = { key: 'process:1:1', signal: new AbortController().signal }
      revoker.addAt({ ...need, instance }, new Secret('t'), { at: NOW + 9_000, ends: NOW + 9_999 })
    }
    for (let count = 0; count < 20_000; count += 1) add()
    expect(add).toThrow('20000 tokens that wait for their revocation are of spiffe://example.org/web')
    const { signal } = new AbortController()
    const other = { ...needOf('db'), instance: { key: 'process:2:1', signal } }
    revoker.addAt(other, new Secret('t'), { at: NOW + 9_000, ends: NOW + 9_999 })
  })

  it('ends with the agent', async () => {
    const { revoker, looking } = open(() => new Promise(() => {}))
    revoker.stop()
    revoker.add(need, new Secret('t'), NOW + 60)
    await settle()
    expect(looking).not.toHaveBeenCalled()
  })
})
