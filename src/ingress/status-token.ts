/** Status List Tokens as JWT (draft-ietf-oauth-status-list s.5.1): one signed text says of many tokens whether they still hold. */
import type { KeyObject } from 'node:crypto'
import { inflateSync } from 'node:zlib'
import type { Seconds } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import { isJwsAlg, parseJws, verifyJws } from '../spiffe/jws.ts'

/** A list that its issuer signed, inflated. */
export interface StatusList {
  /** How many bits one status has: 1, 2, 4 or 8. */
  readonly bits: number
  readonly bytes: Buffer
  readonly issuedAt: Seconds
  /** Not used from then on. */
  readonly expires: Seconds | undefined
  /** How long it may be used before it is fetched anew. */
  readonly ttl: Seconds | undefined
}

export interface StatusTokenCheck {
  readonly uri: string
  readonly issuer: string
  readonly now: Seconds
  readonly skew: Seconds
  /** The key of that kid at the issuer of the tokens; undefined when it has none such. */
  readonly find: (kid: string) => KeyObject | undefined | Promise<KeyObject | undefined>
}

/** The longest token that is read, in bytes. */
export const STATUS_TOKEN_LIMIT = 1024 * 1024
/** Eight million statuses of one byte, or 64 million of one bit: small texts inflate to anything. */
export const STATUS_BYTES_LIMIT = 8 * 1024 * 1024
const KID_LIMIT = 512
const BITS: ReadonlySet<unknown> = new Set([1, 2, 4, 8])
const TYPES: ReadonlySet<unknown> = new Set(['statuslist+jwt', 'application/statuslist+jwt'])
const BASE64URL = /^[A-Za-z0-9_-]+$/

/** Throws issuer_unavailable for a list that cannot be believed, verifier_keys. */
export async function readStatusToken(text: string, check: StatusTokenCheck): Promise<StatusList> {
  const jws = parseJws(text.trim(), STATUS_TOKEN_LIMIT)
  if (!jws) throw useless('is no compact JWS')
  const { alg, crit, kid, typ } = jws.header
  if (typeof typ !== 'string' || !TYPES.has(typ.toLowerCase())) throw useless('is of another typ')
  if (crit !== undefined) throw useless('names critical extensions')
  if (!isJwsAlg(alg)) throw useless('has an alg that is not taken')
  if (typeof kid !== 'string' || kid === '' || kid.length > KID_LIMIT) throw useless('names no key')
  const key = await check.find(kid)
  if (!key || !verifyJws(jws, key, alg)) throw useless('is not signed by a key of its issuer')
  return listIn(jws.payload, check)
}

type Members = Readonly<Record<string, unknown>>

function listIn(claims: Members, { issuer, now, skew, uri }: StatusTokenCheck): StatusList {
  const { exp, iat, iss, status_list: list, sub, ttl } = claims
  if (sub !== uri) throw useless('is the list of another URI')
  if (iss !== undefined && iss !== issuer) throw useless('is of another issuer')
  if (!isTime(iat) || iat > now + skew) throw useless('has no iat, or one in the future')
  if (exp !== undefined && (!isTime(exp) || exp <= now - skew)) throw useless('has expired')
  if (ttl !== undefined && !isTime(ttl)) throw useless('has a ttl that is none')
  const { bits, lst } = (typeof list === 'object' && list !== null ? list : {}) as Members
  if (!BITS.has(bits) || typeof lst !== 'string' || !BASE64URL.test(lst)) throw useless('holds no list')
  return { bits: Number(bits), bytes: inflated(lst), issuedAt: iat, expires: exp, ttl }
}

function isTime(value: unknown): value is Seconds {
  return typeof value === 'number' && Number.isFinite(value) && value > 0
}

function inflated(lst: string): Buffer {
  try {
    return inflateSync(Buffer.from(lst, 'base64url'), { maxOutputLength: STATUS_BYTES_LIMIT })
  } catch {
    throw useless(`holds no zlib data, or more than ${STATUS_BYTES_LIMIT} bytes of it`)
  }
}

/** The status at `index`, the least significant bits of a byte first (s.4.1); undefined beyond the end. */
export function statusAt({ bits, bytes }: StatusList, index: number): number | undefined {
  const perByte = 8 / bits
  const byte = bytes[Math.floor(index / perByte)]
  return byte === undefined ? undefined : (byte >> ((index % perByte) * bits)) & (2 ** bits - 1)
}

function useless(what: string): Fault {
  return new Fault('issuer_unavailable', `the status list ${what}`)
}
