import { createPrivateKey, createPublicKey } from 'node:crypto'
import { describe, expect, it } from 'vitest'
import { Fault } from '../../../src/base/fault.ts'
import type { Authority } from '../../../src/issue/authority.ts'
import { embeddedAuthority } from '../../../src/issue/embedded.ts'
import { Svids } from '../../../src/issue/svids.ts'
import { generateKey } from '../../../src/keys/signer.ts'
import type { Entry } from '../../../src/policy/entry.ts'
import { parseSpiffeId, parseTrustDomain } from '../../../src/spiffe/id.ts'
import { verifyJwtSvid } from '../../../src/spiffe/jwtsvid.ts'
import { verifyWitSvid } from '../../../src/spiffe/witsvid.ts'
import { verifyX509Svid } from '../../../src/spiffe/x509svid.ts'
import { LEAF_ID, NOW } from '../../support/certificates.ts'
import { ManualClock } from '../../support/clock.ts'
import { faultOf } from '../../support/faults.ts'

const HOUR = 3600
const ENTRY: Entry = {
  name: 'web',
  spiffeId: parseSpiffeId(LEAF_ID),
  selectors: [],
  x509Ttl: HOUR,
  jwtTtl: 300,
  hint: '',
  deliver: { x509: true, jwt: true, wit: true },
  audiences: [],
  acceptedAt: [],
  dnsNames: [],
  federatesWith: [],
  sds: {},
  isProbe: false,
  instance: 'identity',
  place: { file: 'policy.yaml', line: 1 },
}
const entry = (change: Partial<Entry> = {}): Entry => ({ ...ENTRY, ...change })

const authorityAt = (clock: ManualClock) =>
  embeddedAuthority({
    trustDomain: parseTrustDomain('example.org'),
    clock,
    algorithm: 'ES256',
    intermediate: false,
    caTtl: 24 * HOUR,
    keyTtl: 24 * HOUR,
    wit: true,
  })

function setUp(random = () => 0.5) {
  const clock = new ManualClock()
  const authority = authorityAt(clock)
  const issued: string[] = []
  const svids = new Svids({ authority, clock, random, onIssued: (kind) => issued.push(kind) })
  const now = () => Math.floor(clock.now() / 1000)
  return {
    clock,
    svids,
    issued,
    now,
    seconds: (count: number) => clock.advance(count * 1000),
    bundle: () => authority.bundle.get(),
  }
}

describe('an X509-SVID in the cache', () => {
  it('is made once for an identity, with the key that it was made for', () => {
    const { svids, issued, bundle, now } = setUp()
    const svid = svids.x509(entry())
    expect(svids.x509(entry())).toBe(svid)
    expect(issued).toEqual(['x509'])
    const { publicKey } = verifyX509Svid([svid.chain], bundle, now())
    const delivered = createPublicKey(createPrivateKey({ key: svid.key, format: 'der', type: 'pkcs8' }))
    expect(publicKey.equals(delivered)).toBe(true)
  })

  it.each<[string, Partial<Entry>]>([
    ['another identity', { spiffeId: parseSpiffeId('spiffe://example.org/db') }],
    ['another life', { x509Ttl: 60 }],
    ['other DNS names', { dnsNames: ['web.test'] }],
  ])('is not shared with %s', (_what, change) => {
    const { svids } = setUp()
    expect(svids.x509(entry(change))).not.toBe(svids.x509(entry()))
  })

  it.each([
    [0, 0.45],
    [0.5, 0.5],
    [0.999_999, 0.55],
  ])('is renewed at a jittered half of its life (chance %d: at %d)', (chance, part) => {
    const { svids, seconds } = setUp(() => chance)
    const first = svids.x509(entry())
    expect(first.renewAt - NOW).toBeCloseTo(HOUR * part, -1)
    seconds(first.renewAt - NOW - 1)
    expect([svids.isDue, svids.x509(entry()) === first]).toEqual([false, true])
    seconds(1)
    expect([svids.isDue, svids.x509(entry()) === first]).toEqual([true, false])
    expect(svids.isDue).toBe(false)
  })

  it('has its key overwritten a minute after it was replaced, when no message can hold it any more', () => {
    const { svids, seconds } = setUp()
    const { key } = svids.x509(entry())
    seconds(HOUR / 2)
    svids.x509(entry())
    expect(key.some((byte) => byte !== 0)).toBe(true)
    seconds(60)
    expect(key.every((byte) => byte === 0)).toBe(true)
  })

  it('goes with its entry and stays over a reload that does not touch it', () => {
    const { svids, seconds } = setUp()
    const gone = svids.x509(entry({ spiffeId: parseSpiffeId('spiffe://example.org/db') }))
    const kept = svids.x509(entry())
    svids.keepOnly([entry({ name: 'renamed' })])
    expect(svids.x509(entry())).toBe(kept)
    seconds(60)
    expect(gone.key.every((byte) => byte === 0)).toBe(true)
    expect(kept.key.some((byte) => byte !== 0)).toBe(true)
  })
})

describe('a JWT-SVID in the cache', () => {
  it('is the same one for the same audiences until half its life has passed', () => {
    const { svids, issued, seconds, bundle, now } = setUp()
    const token = svids.jwt(entry(), ['db'])
    expect(verifyJwtSvid(token, 'db', bundle, now()).expires).toBe(NOW + 300)
    expect(svids.jwt(entry(), ['db'])).toBe(token)
    seconds(150)
    expect(svids.jwt(entry(), ['db'])).not.toBe(token)
    expect(issued).toEqual(['jwt', 'jwt'])
  })

  it('is another one for other audiences, in other order, and for audiences that run together', () => {
    const { svids, bundle, now } = setUp()
    const lists = [['a', 'b'], ['b', 'a'], ['a,b'], ['a\0b'], ['a"', 'b'], ['a', '"b']]
    const tokens = lists.map((audience) => svids.jwt(entry(), audience))
    expect(new Set(tokens).size).toBe(lists.length)
    for (const [index, token] of tokens.entries())
      expect(verifyJwtSvid(token, lists[index]?.[0] ?? '', bundle, now()).audience).toEqual(lists[index])
  })

  it('is forgotten with every change of policy: its audience may have become reserved', () => {
    const { svids, issued } = setUp()
    svids.jwt(entry(), ['db'])
    svids.keepOnly([entry()])
    svids.jwt(entry(), ['db'])
    expect(issued).toEqual(['jwt', 'jwt'])
  })
})

describe('a WIT-SVID', () => {
  it('is delivered with a key of its own, which is lost when it is replaced', () => {
    const { svids, seconds, bundle, now } = setUp()
    const first = svids.deliveredWit(entry())
    expect(svids.deliveredWit(entry())).toBe(first)
    expect(verifyWitSvid(first.token, bundle, now()).jwk).toEqual(first.key.publicJwk)
    seconds(HOUR / 2)
    expect(svids.deliveredWit(entry()).key.publicJwk).not.toEqual(first.key.publicJwk)
    expect(faultOf(() => first.key.privateJwk())).toMatch(/^key_lost: /)
  })

  it('is held over the key that signs, and never over the delivered one', () => {
    const { svids, bundle, now } = setUp()
    const signer = generateKey('ES256')
    const held = svids.heldWit(entry(), signer)
    expect(svids.heldWit(entry(), signer)).toBe(held)
    expect(verifyWitSvid(held, bundle, now()).jwk).toEqual(signer.publicJwk)
    expect(verifyWitSvid(svids.deliveredWit(entry()).token, bundle, now()).jwk).not.toEqual(signer.publicJwk)
    expect(svids.heldWit(entry(), generateKey('ES256'))).not.toBe(held)
  })

  it('goes with its entry', () => {
    const { svids } = setUp()
    const { key } = svids.deliveredWit(entry())
    svids.keepOnly([])
    expect(faultOf(() => key.privateJwk())).toMatch(/^key_lost: /)
  })
})

describe('while the authority cannot sign', () => {
  it.each([
    ['X.509-SVID', (svids: Svids) => svids.x509(entry()), HOUR],
    ['JWT-SVID', (svids: Svids) => svids.jwt(entry(), ['a']), 300],
    ['WIT-SVID', (svids: Svids) => svids.deliveredWit(entry()), HOUR],
  ])('the last %s is given until it expires, and then none', (_kind, get, life) => {
    const clock = new ManualClock()
    const working = authorityAt(clock)
    let isDown = false
    const outage =
      <A extends unknown[], R>(call: (...args: A) => R) =>
      (...args: A): R => {
        if (isDown) throw new Fault('authority_unavailable')
        return call(...args)
      }
    const authority: Authority = {
      ...working,
      issueX509: outage(working.issueX509),
      issueJwt: outage(working.issueJwt),
      issueWit: outage(working.issueWit),
    }
    const svids = new Svids({ authority, clock })
    const first = get(svids)
    isDown = true
    clock.advance((life - 1) * 1000)
    expect(get(svids)).toBe(first)
    clock.advance(1_000)
    expect(faultOf(() => get(svids))).toMatch(/^authority_unavailable/)
    isDown = false
    expect(get(svids)).not.toBe(first)
  })
})

describe('when another CA signs', () => {
  it('who asks has an X.509-SVID of it, and nothing is due: whoever has one keeps it until its renewal', () => {
    const clock = new ManualClock()
    const working = authorityAt(clock)
    let ca = working.caLife()
    let isDown = false
    const authority: Authority = {
      ...working,
      caLife: () => ca,
      issueX509: (ask) => {
        if (isDown) throw new Fault('authority_unavailable')
        return working.issueX509(ask)
      },
    }
    const svids = new Svids({ authority, clock })
    const first = svids.x509(entry())
    ca = { ...ca }
    expect(svids.isDue).toBe(false)
    isDown = true
    expect(svids.x509(entry())).toBe(first)
    isDown = false
    const second = svids.x509(entry())
    expect(second).not.toBe(first)
    expect(svids.x509(entry())).toBe(second)
  })
})
