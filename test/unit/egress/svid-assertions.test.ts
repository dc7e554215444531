import { describe, expect, it } from 'vitest'
import { SvidAssertions } from '../../../src/egress/svid-assertions.ts'
import { entry as entryNamed } from '../../support/book.ts'
import { ManualClock } from '../../support/clock.ts'

const server = { issuer: 'https://as.example.org', tokenEndpoint: undefined, client: undefined }
const entry = entryNamed('web', ['unix:uid:1000'])

function open() {
  const clock = new ManualClock()
  const asked: { readonly audience: readonly string[]; readonly ttl: number }[] = []
  const issueJwt: ConstructorParameters<typeof SvidAssertions>[0]['authority']['issueJwt'] = (ask) => {
    asked.push(ask)
    return { token: `svid-${asked.length}`, expires: clock.now() / 1000 + ask.ttl }
  }
  const controller = new AbortController()
  const instance = { key: 'process:1:1', signal: controller.signal }
  const assertions = new SvidAssertions({ authority: { issueJwt }, clock })
  return { assertions, asked, clock, end: () => controller.abort(), ask: { server, entry, instance } }
}

describe('a JWT-SVID as assertion', () => {
  it('is made for each request, for the issuer alone and a minute, when it is to be fresh', () => {
    const { assertions, asked, ask } = open()
    expect([assertions.fresh(ask), assertions.fresh(ask)]).toEqual(['svid-1', 'svid-2'])
    expect(asked[0]).toEqual({ spiffeId: entry.spiffeId, audience: ['https://as.example.org'], ttl: 60 })
    expect(assertions.count).toBe(0)
  })

  it('serves until half of its life is over when it is to be reused', () => {
    const { assertions, asked, ask, clock } = open()
    expect([assertions.reused(ask), assertions.reused(ask)]).toEqual(['svid-1', 'svid-1'])
    expect(asked).toEqual([{ spiffeId: entry.spiffeId, audience: ['https://as.example.org'], ttl: 300 }])
    clock.advance(149_000)
    expect(assertions.reused(ask)).toBe('svid-1')
    clock.advance(1_000)
    expect(assertions.reused(ask)).toBe('svid-2')
    expect(assertions.count).toBe(1)
  })

  it('is another one for each identity, instance and server', () => {
    const { assertions, ask } = open()
    const others = [
      ask,
      { ...ask, entry: entryNamed('batch', ['unix:uid:1000']) },
      { ...ask, instance: { ...ask.instance, key: 'process:2:1' } },
      { ...ask, server: { ...server, issuer: 'https://other.example.org' } },
    ]
    expect(new Set(others.map((other) => assertions.reused(other))).size).toBe(4)
  })

  it('ends with the lease, and afterwards none is kept', () => {
    const { assertions, ask, end } = open()
    const first = assertions.reused(ask)
    end()
    expect(assertions.count).toBe(0)
    expect(assertions.reused(ask)).not.toBe(first)
    expect(assertions.count).toBe(0)
  })
})
