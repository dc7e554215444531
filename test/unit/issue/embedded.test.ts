import { createPublicKey } from 'node:crypto'
import { describe, expect, it } from 'vitest'
import { Live } from '../../../src/base/live.ts'
import {
  type CertificateAuthority,
  type EmbeddedOptions,
  embeddedAuthority,
} from '../../../src/issue/embedded.ts'
import { makeDeliveredKey } from '../../../src/keys/deliver.ts'
import { generateKey } from '../../../src/keys/signer.ts'
import type { Alg } from '../../../src/proof/signer.ts'
import type { Bundle } from '../../../src/spiffe/bundle.ts'
import { parseCertificate } from '../../../src/spiffe/certificate.ts'
import { parseSpiffeId, parseTrustDomain } from '../../../src/spiffe/id.ts'
import { verifyJwtSvid } from '../../../src/spiffe/jwtsvid.ts'
import { verifyWitSvid } from '../../../src/spiffe/witsvid.ts'
import { verifyX509Svid } from '../../../src/spiffe/x509svid.ts'
import {
  keyIdOf,
  LEAF_ID,
  makeAuthority,
  NOW,
  type TestAuthority,
  validity,
} from '../../support/certificates.ts'
import { ManualClock } from '../../support/clock.ts'
import { faultOf } from '../../support/faults.ts'
import { opensslVerify } from '../../support/openssl.ts'

const HOUR = 3600
const spiffeId = parseSpiffeId(LEAF_ID)

function setUp(change: Partial<EmbeddedOptions> = {}) {
  const clock = new ManualClock()
  const authority = embeddedAuthority({
    trustDomain: parseTrustDomain('example.org'),
    clock,
    algorithm: 'ES256',
    intermediate: false,
    caTtl: 24 * HOUR,
    keyTtl: 24 * HOUR,
    wit: true,
    ...change,
  })
  const key = makeDeliveredKey()
  const now = () => Math.floor(clock.now() / 1000)
  const issue = {
    x509: (ttl = HOUR) => authority.issueX509({ spiffeId, spki: key.spki, ttl, dnsNames: [] }),
    jwt: (ttl = 300) => authority.issueJwt({ spiffeId, audience: ['db'], ttl }),
    wit: (ttl = HOUR) => authority.issueWit({ spiffeId, publicJwk: key.publicJwk, alg: 'ES256', ttl }),
  }
  const seconds = (count: number) => clock.advance(count * 1000)
  return { clock, authority, key, issue, now, seconds, bundle: () => authority.bundle.get() }
}

describe('the embedded authority', { timeout: 60_000 }, () => {
  it.each<[Alg, boolean]>([
    ['ES256', false],
    ['ES256', true],
    ['ES384', true],
    ['RS256', true],
    ['PS256', false],
  ])(
    'issues SVIDs by %s (intermediate: %s) that we and openssl -x509_strict verify',
    (algorithm, intermediate) => {
      const { issue, bundle, key, now } = setUp({ algorithm, intermediate })
      const { chain, notAfter } = issue.x509()
      const facts = verifyX509Svid(chain, bundle, now())
      expect(chain).toHaveLength(intermediate ? 2 : 1)
      expect(facts).toMatchObject({ spiffeId, notAfter: NOW + HOUR })
      expect(notAfter).toBe(NOW + HOUR)
      expect(facts.publicKey.equals(createPublicKey({ key: key.spki, format: 'der', type: 'spki' }))).toBe(
        true,
      )
      expect(opensslVerify(chain, bundle().x509Authorities, now())).toBe('OK')
      expect(verifyJwtSvid(issue.jwt().token, 'db', bundle, now()).expires).toBe(NOW + 300)
      expect(verifyWitSvid(issue.wit().token, bundle, now()).key.equals(facts.publicKey)).toBe(true)
    },
  )

  it('backdates a leaf by seconds, for clocks that differ', () => {
    expect(setUp().issue.x509().notBefore).toBe(NOW - 10)
  })

  it('signs WIT-SVIDs with keys of their own, or not at all', () => {
    const on = setUp().bundle()
    expect([...on.witAuthorities.keys()]).not.toEqual([...on.jwtAuthorities.keys()])
    const { issue, bundle } = setUp({ wit: false })
    expect(bundle().witAuthorities.size).toBe(0)
    expect(faultOf(() => issue.wit())).toMatch(/^authority_unavailable: /)
  })

  it('lets nothing outlive the key that signed it', () => {
    const { issue, bundle } = setUp({ caTtl: HOUR, keyTtl: HOUR, intermediate: true })
    const { chain, notAfter } = issue.x509(24 * HOUR)
    expect(notAfter).toBe(NOW + HOUR)
    expect([issue.jwt(24 * HOUR).expires, issue.wit(24 * HOUR).expires]).toEqual([NOW + HOUR, NOW + HOUR])
    for (const der of [...chain, ...bundle().x509Authorities])
      expect(parseCertificate(der).notAfter).toBe(NOW + HOUR)
  })

  it('FD-5: publishes a key before it signs and until nothing that it signed is valid, over two lives', () => {
    const { authority, issue, bundle, now, seconds } = setUp({ caTtl: 2 * HOUR, keyTtl: 2 * HOUR })
    const published: { at: number; bundle: Bundle }[] = [{ at: 0, bundle: bundle() }]
    authority.bundle.watch((value) => published.push({ at: now(), bundle: value }))
    const issued: { check: (of: () => Bundle) => unknown; expires: number }[] = []
    for (let step = 0; step < 40; step += 1) {
      seconds(360)
      // What a verifier knows that polled the bundle five minutes ago and will not for a while.
      const stale = published.findLast(({ at }) => at <= now() - 300)?.bundle ?? bundle()
      const x509 = issue.x509()
      const jwt = issue.jwt()
      const wit = issue.wit()
      issued.push(
        { check: (of) => verifyX509Svid(x509.chain, of, now()), expires: x509.notAfter },
        { check: (of) => verifyJwtSvid(jwt.token, 'db', of, now()), expires: jwt.expires },
        { check: (of) => verifyWitSvid(wit.token, of, now()), expires: wit.expires },
      )
      for (const { check } of issued.slice(-3)) check(() => stale)
      for (const { check, expires } of issued) if (expires > now()) check(bundle)
    }
    expect(published.length).toBeGreaterThan(4)
  })

  it('TB-2: raises the sequence with each change, and over a restart', () => {
    const { authority, bundle, seconds } = setUp()
    const sequences = [bundle().sequence]
    authority.bundle.watch((value) => sequences.push(value.sequence))
    seconds(72 * HOUR)
    for (const [index, sequence] of sequences.entries())
      if (index > 0) expect(sequence).toBe((sequences[index - 1] ?? 0n) + 1n)
    expect(sequences.length).toBeGreaterThan(4)
    const later = new ManualClock(NOW * 1000 + 72 * HOUR * 1000)
    expect(setUp({ clock: later }).bundle().sequence).toBeGreaterThan(sequences.at(-1) ?? 0n)
    expect(Number.isSafeInteger(Number(bundle().sequence))).toBe(true)
  })

  it('wakes from a sleep longer than its keys lived with new ones, and says so while it has none', () => {
    const { clock, issue, bundle, now, seconds } = setUp()
    seconds(13 * HOUR)
    clock.jump(30 * 24 * HOUR * 1000)
    for (const call of [issue.x509, issue.jwt, issue.wit])
      expect(faultOf(() => call())).toMatch(/^authority_unavailable: /)
    seconds(1)
    expect(verifyX509Svid(issue.x509().chain, bundle, now()).spiffeId).toBe(spiffeId)
    expect(verifyJwtSvid(issue.jwt().token, 'db', bundle, now()).spiffeId).toBe(spiffeId)
  })

  it('does nothing after it was stopped', () => {
    const { authority, bundle, seconds } = setUp()
    authority.stop()
    const { sequence } = bundle()
    seconds(72 * HOUR)
    expect(bundle().sequence).toBe(sequence)
  })
})

describe.each([60, 1_200, 6 * HOUR])('a CA made for %i s', (caTtl) => {
  it('never has less than a fifth of its life left: the alert is for what nobody renews', () => {
    const { authority, now, seconds } = setUp({ caTtl })
    const step = Math.max(1, Math.floor(caTtl / 200))
    const left = Array.from({ length: 400 }, () => {
      seconds(step)
      const { notBefore, notAfter } = authority.caLife()
      return (notAfter - now()) / (notAfter - notBefore)
    })
    expect(Math.min(...left)).toBeGreaterThan(0.2)
    expect(Math.min(...left)).toBeLessThan(0.6)
  })
})

describe('an authority of the operator', { timeout: 60_000 }, () => {
  function operator(
    root: TestAuthority,
    commonName: string,
    notAfter = NOW + 10 * HOUR,
  ): CertificateAuthority {
    const held = generateKey('ES256')
    const pair = { publicKey: held.publicKey, privateKey: held.publicKey }
    const { der, subject } = makeAuthority({
      signedBy: root,
      commonName,
      pair,
      validity: validity(NOW - 10, notAfter),
    })
    const life = { notBefore: NOW - 10, notAfter }
    return { root: root.der, chain: [der], subject, keyId: keyIdOf(pair), ...life, signer: held }
  }

  it('signs under its own name, and nothing beyond its end', () => {
    const root = makeAuthority({ validity: validity(NOW - 10, NOW + 100 * HOUR) })
    const { issue, bundle, now, seconds } = setUp({ ca: new Live(operator(root, 'issuing CA')) })
    expect(verifyX509Svid(issue.x509().chain, bundle, now()).spiffeId).toBe(spiffeId)
    expect(opensslVerify(issue.x509().chain, [root.der], now())).toBe('OK')
    expect(issue.x509(48 * HOUR).notAfter).toBe(NOW + 10 * HOUR)
    seconds(10 * HOUR)
    expect(faultOf(() => issue.x509())).toMatch(/^authority_unavailable: /)
    expect(issue.jwt().token).toMatch(/^ey/)
  })

  it('is replaced with overlap when its files change', () => {
    const [oldRoot, newRoot] = ['old root', 'new root'].map((commonName) =>
      makeAuthority({ commonName, validity: validity(NOW - 10, NOW + 100 * HOUR) }),
    ) as [TestAuthority, TestAuthority]
    const ca = new Live(operator(oldRoot, 'first'))
    const { issue, bundle, now, seconds } = setUp({ ca })
    const before = issue.x509()
    ca.set(operator(newRoot, 'second'))
    expect(bundle().x509Authorities).toEqual([oldRoot.der, newRoot.der])
    const nameOf = (chain: readonly Buffer[]) =>
      parseCertificate(chain[0] ?? Buffer.alloc(0)).issuer.toString('latin1')
    seconds(299)
    expect(nameOf(issue.x509().chain)).toContain('first')
    seconds(1)
    expect(nameOf(issue.x509().chain)).toContain('second')
    expect(verifyX509Svid(issue.x509().chain, bundle, now()).spiffeId).toBe(spiffeId)
    expect(verifyX509Svid(before.chain, bundle, now()).spiffeId).toBe(spiffeId)
  })

  it('signs at once below a root that is published, and verifiers know both', () => {
    const root = makeAuthority({ validity: validity(NOW - 10, NOW + 100 * HOUR) })
    const ca = new Live(operator(root, 'first'))
    const { issue, bundle, now } = setUp({ ca })
    const [before, { sequence }] = [issue.x509(), bundle()]
    ca.set(operator(root, 'second'))
    const after = issue.x509()
    expect(after.chain[1]?.equals(before.chain[1] ?? Buffer.alloc(0))).toBe(false)
    for (const { chain } of [before, after])
      expect(verifyX509Svid(chain, bundle, now()).spiffeId).toBe(spiffeId)
    expect([bundle().x509Authorities, bundle().sequence]).toEqual([[root.der], sequence])
    ca.set(operator(makeAuthority(), 'elsewhere'))
    expect(bundle().x509Authorities).toHaveLength(2)
    ca.set(operator(root, 'third'))
    expect([bundle().x509Authorities, bundle().sequence]).toEqual([[root.der], sequence + 2n])
  })

  it('tells the life of what signs now, not of what will', () => {
    const [root, next] = [makeAuthority(), makeAuthority()]
    const ca = new Live(operator(root, 'first'))
    const { authority, seconds } = setUp({ ca })
    ca.set(operator(next, 'second', NOW + 20 * HOUR))
    expect(authority.caLife()).toMatchObject({ notBefore: NOW - 10, notAfter: NOW + 10 * HOUR })
    seconds(300)
    expect(authority.caLife().notAfter).toBe(NOW + 20 * HOUR)
  })

  it('publishes one root once, however many authorities hang below it', () => {
    const root = makeAuthority()
    const ca = new Live(operator(root, 'first'))
    const { bundle } = setUp({ ca })
    ca.set(operator(root, 'second'))
    expect(bundle().x509Authorities).toEqual([root.der])
  })
})
