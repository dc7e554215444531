/** Tokens with one named flaw: any header and any claims, signed by node:crypto. */
import { createHmac, sign } from 'node:crypto'
import type { Bundle } from '../../src/spiffe/bundle.ts'
import { parseTrustDomain } from '../../src/spiffe/id.ts'
import { publicJwkOf } from '../../src/spiffe/jwk.ts'
import type { Pair } from './certificates.ts'

const encode = (part: unknown) =>
  Buffer.from(typeof part === 'string' ? part : JSON.stringify(part)).toString('base64url')

/** A compact JWS by ES256, or by the algorithm given; a part that is a string is taken as it stands. */
export function signToken(
  header: unknown,
  payload: unknown,
  { privateKey: key }: Pair,
  digest = 'sha256',
): string {
  const input = `${encode(header)}.${encode(payload)}`
  return `${input}.${sign(digest, Buffer.from(input), { key, dsaEncoding: 'ieee-p1363' }).toString('base64url')}`
}

/** The classic forgery: the public key as an HMAC secret. */
export function macToken(header: unknown, payload: unknown, secret: Buffer): string {
  const input = `${encode(header)}.${encode(payload)}`
  return `${input}.${createHmac('sha256', secret).update(input).digest('base64url')}`
}

/** A bundle of example.org with these token keys, each under its `kid`. */
export function bundleOfKeys(keys: {
  readonly jwt?: Record<string, Pair>
  readonly wit?: Record<string, Pair>
}): Bundle {
  const authorities = (pairs: Record<string, Pair> = {}) =>
    new Map(
      Object.entries(pairs).map(([kid, { publicKey }]) => [
        kid,
        { key: publicKey, jwk: publicJwkOf(publicKey) },
      ]),
    )
  return {
    trustDomain: parseTrustDomain('example.org'),
    x509Authorities: [],
    jwtAuthorities: authorities(keys.jwt),
    witAuthorities: authorities(keys.wit),
    sequence: 1n,
    refreshHintSeconds: 300,
  }
}
