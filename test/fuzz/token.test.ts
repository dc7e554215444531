import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { Fault } from '../../src/base/fault.ts'
import { parseBundle } from '../../src/spiffe/bundle.ts'
import { parseSpiffeId, parseTrustDomain, pathOf, trustDomainOf } from '../../src/spiffe/id.ts'
import { publicJwkOf } from '../../src/spiffe/jwk.ts'
import { parseJws } from '../../src/spiffe/jws.ts'
import { verifyJwtSvid } from '../../src/spiffe/jwtsvid.ts'
import { verifyWitSvid } from '../../src/spiffe/witsvid.ts'
import { ecPair, LEAF_ID, makeAuthority, NOW } from '../support/certificates.ts'
import { guarded } from '../support/guarded.ts'
import { FUZZ, mutations, textMutations } from '../support/mutate.ts'
import { bundleOfKeys, signToken } from '../support/tokens.ts'

const pair = ecPair()
const keys = bundleOfKeys({ jwt: { k1: pair }, wit: { w1: pair } })
const jwk = { ...publicJwkOf(pair.publicKey), alg: 'ES256' }
const JWT = {
  header: { alg: 'ES256', kid: 'k1', typ: 'JWT' },
  claims: { sub: LEAF_ID, aud: ['db'], exp: NOW + 300 },
}
const WIT = {
  header: { alg: 'ES256', kid: 'w1', typ: 'wit+jwt' },
  claims: { sub: LEAF_ID, exp: NOW + 300, cnf: { jwk } },
}
const jwt = signToken(JWT.header, JWT.claims, pair)
const wit = signToken(WIT.header, WIT.claims, pair)

describe('SPIFFE IDs from outside', { timeout: 60_000 }, () => {
  const ids = fc.oneof(
    textMutations([LEAF_ID, 'spiffe://a-b_c.9/a/b/...', 'spiffe://td']),
    fc
      .array(
        fc.constantFrom(
          'spiffe:',
          '/',
          '//',
          'td',
          'TD',
          '.',
          '..',
          '%2e',
          '@',
          ':',
          '?',
          '#',
          '\u00e9',
          '-',
          '_',
        ),
        { maxLength: 8 },
      )
      .map((parts) => parts.join('')),
  )

  it('threats row 1: have one spelling each: the parts of an accepted one make it again', () => {
    fc.assert(
      fc.property(ids, (text) => {
        const id = guarded(() => parseSpiffeId(text))
        if (id instanceof Fault) expect(id.reason).toBe('spiffe_id_invalid')
        else {
          expect(`spiffe://${trustDomainOf(id)}${pathOf(id)}`).toBe(text)
          expect(new URL(text).href).toBe(text)
        }
      }),
      { ...FUZZ, numRuns: 2000 },
    )
  })
})

describe('tokens from outside', { timeout: 60_000 }, () => {
  it('are JWS or not, and never anything else', () => {
    fc.assert(
      fc.property(textMutations([jwt, wit]), (text) => {
        const jws = parseJws(text)
        if (jws) expect(`${jws.signingInput}.${jws.signature.toString('base64url')}`).toBe(text)
      }),
      FUZZ,
    )
  })

  it('verify only as they were signed', () => {
    fc.assert(
      fc.property(textMutations([jwt, wit]), (text) => {
        const svid = guarded(() => verifyJwtSvid(text, 'db', () => keys, NOW))
        if (!(svid instanceof Fault)) expect(text).toBe(jwt)
        const other = guarded(() => verifyWitSvid(text, () => keys, NOW))
        if (!(other instanceof Fault)) expect(text).toBe(wit)
      }),
      FUZZ,
    )
  })

  it('are refused with a reason when signed headers and claims hold any values', () => {
    const members = (names: readonly string[]) =>
      fc.dictionary(
        fc.oneof(fc.constantFrom(...names), fc.string({ maxLength: 4 })),
        fc.jsonValue({ maxDepth: 2 }),
        { maxKeys: 5 },
      )
    const changes = fc.tuple(
      members(['alg', 'kid', 'typ', 'crit']),
      members(['sub', 'aud', 'exp', 'nbf', 'iat', 'cnf']),
    )
    fc.assert(
      fc.property(changes, ([header, claims]) => {
        const token = signToken({ ...JWT.header, ...header }, { ...JWT.claims, ...claims }, pair)
        const svid = guarded(() => verifyJwtSvid(token, 'db', () => keys, NOW))
        if (!(svid instanceof Fault)) expect(svid.spiffeId).toBe(LEAF_ID)
        guarded(() =>
          verifyWitSvid(
            signToken({ ...WIT.header, ...header }, { ...WIT.claims, ...claims }, pair),
            () => keys,
            NOW,
          ),
        )
      }),
      { ...FUZZ, numRuns: 200 },
    )
  })

  it('are refused with a reason when cnf.jwk holds any values', () => {
    const change = fc.dictionary(
      fc.constantFrom('kty', 'crv', 'x', 'y', 'n', 'e', 'alg', 'd'),
      fc.jsonValue({ maxDepth: 1 }),
    )
    fc.assert(
      fc.property(change, (members) => {
        const claims = { ...WIT.claims, cnf: { jwk: { ...jwk, ...members } } }
        guarded(() => verifyWitSvid(signToken(WIT.header, claims, pair), () => keys, NOW))
      }),
      { ...FUZZ, numRuns: 200 },
    )
  })
})

describe('bundles from outside', { timeout: 60_000 }, () => {
  const x5c = [makeAuthority().der.toString('base64')]
  const document = JSON.stringify({
    spiffe_sequence: 1,
    keys: [
      { ...jwk, use: 'jwt-svid', kid: 'a' },
      { ...jwk, use: 'x509-svid', x5c },
    ],
  })
  const trustDomain = parseTrustDomain('example.org')

  it('are read or refused', () => {
    fc.assert(
      fc.property(mutations([Buffer.from(document)]), (bytes) => {
        const bundle = guarded(() => parseBundle(bytes.toString(), trustDomain))
        if (bundle instanceof Fault) expect(bundle.reason).toBe('bundle_missing')
      }),
      FUZZ,
    )
  })

  it('are read or refused when their keys hold any values', () => {
    const key = fc.dictionary(
      fc.constantFrom('kty', 'use', 'kid', 'x5c', 'crv', 'x', 'y', 'n', 'e'),
      fc.jsonValue({ maxDepth: 2 }),
    )
    fc.assert(
      fc.property(fc.array(key, { maxLength: 4 }), (changes) => {
        const list = changes.map((change) => ({ ...jwk, use: 'jwt-svid', ...change }))
        guarded(() => parseBundle(JSON.stringify({ keys: list }), trustDomain))
      }),
      FUZZ,
    )
  })
})
