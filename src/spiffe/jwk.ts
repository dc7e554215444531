/** Public keys as JWK and their thumbprints (RFC 7517, RFC 7518 s.6, RFC 7638). */
import { createHash, createPublicKey, type KeyObject } from 'node:crypto'
import { Fault } from '../base/fault.ts'

/** A public key as an RFC 7517 member object, required members only. */
export type PublicJwk =
  | { readonly kty: 'EC'; readonly crv: 'P-256' | 'P-384' | 'P-521'; readonly x: string; readonly y: string }
  | { readonly kty: 'RSA'; readonly n: string; readonly e: string }

/** The RFC 7638 SHA-256 thumbprint, base64url: required members in lexicographic order, no blanks. */
export function thumbprint(jwk: PublicJwk): string {
  const members =
    jwk.kty === 'EC'
      ? { crv: jwk.crv, kty: jwk.kty, x: jwk.x, y: jwk.y }
      : { e: jwk.e, kty: jwk.kty, n: jwk.n }
  return createHash('sha256').update(JSON.stringify(members)).digest('base64url')
}

/** The public half of `key`; throws bug for a key type that no SVID may have. */
export function publicJwkOf(key: KeyObject): PublicJwk {
  const { kty, crv, x, y, n, e } = (key.type === 'private' ? createPublicKey(key) : key).export({
    format: 'jwk',
  })
  if (kty === 'EC' && x && y && (crv === 'P-256' || crv === 'P-384' || crv === 'P-521'))
    return { kty, crv, x, y }
  if (kty === 'RSA' && n && e) return { kty, n, e }
  throw new Fault('bug', 'a key is neither EC nor RSA')
}

const PRIVATE_MEMBERS = ['d', 'p', 'q', 'dp', 'dq', 'qi', 'oth', 'k']

/** The key of a JWK from outside; undefined for a kind that no SVID may have and for one that shows its private half. */
export function importPublicJwk(jwk: Readonly<Record<string, unknown>>): KeyObject | undefined {
  if (jwk['kty'] !== 'EC' && jwk['kty'] !== 'RSA') return undefined
  if (PRIVATE_MEMBERS.some((name) => name in jwk)) return undefined
  try {
    const key = createPublicKey({ key: jwk, format: 'jwk' })
    publicJwkOf(key)
    return key
  } catch {
    return undefined
  }
}
