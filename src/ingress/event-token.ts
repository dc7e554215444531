/** Security Event Tokens (RFC 8417), checked as a receiver has to (RFC 8935 s.2, SSF 1.0 s.10): signed, typed, for us. */
import type { KeyObject } from 'node:crypto'
import type { Seconds } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import type { Transmitter } from '../policy/transmitter.ts'
import { isJwsAlg, parseJws, verifyJws } from '../spiffe/jws.ts'

/** A SET that its transmitter signed for this receiver. */
export interface SecurityEventToken {
  readonly jti: string
  readonly issued: Seconds
  /** By their URIs. */
  readonly events: Readonly<Record<string, unknown>>
  /** RFC 9493; of all events in it. */
  readonly subject: unknown
}

export interface SetCheck {
  readonly transmitter: Transmitter
  /** The key of that kid; undefined when the transmitter has none such. Throws verifier_keys. */
  readonly keyOf: (kid: string) => KeyObject | undefined | Promise<KeyObject | undefined>
  readonly now: Seconds
  readonly skew: Seconds
}

/** The codes of RFC 8935 s.2.4. */
export type SetError =
  | 'invalid_request'
  | 'invalid_key'
  | 'invalid_issuer'
  | 'invalid_audience'
  | 'authentication_failed'
  | 'access_denied'

/** Why a SET is not taken: a code for the transmitter. */
export class SetRefusal extends Error {
  readonly code: SetError

  constructor(code: SetError, what: string) {
    super(what)
    this.code = code
  }
}

const TEXT_LIMIT = 512
/** How old a SET may be: transmitters keep them while a receiver is down. */
export const OLDEST: Seconds = 7 * 86_400

/** The issuer that a SET names, before anything is verified: whose keys to verify it with. */
export function issuerIn(token: string): string | undefined {
  const issuer = parseJws(token)?.payload['iss']
  return typeof issuer === 'string' ? issuer : undefined
}

/** Throws SetRefusal, verifier_keys. */
export async function checkSet(token: string, check: SetCheck): Promise<SecurityEventToken> {
  const jws = parseJws(token)
  if (!jws) throw new SetRefusal('invalid_request', 'not a compact JWS')
  const { alg, crit, kid, typ } = jws.header
  const type = typeof typ === 'string' ? typ.toLowerCase().replace(/^application\//, '') : undefined
  if (type !== 'secevent+jwt') throw new SetRefusal('invalid_request', 'typ is not secevent+jwt')
  if (!isJwsAlg(alg) || crit !== undefined)
    throw new SetRefusal('invalid_request', 'alg or crit is not taken')
  if (typeof kid !== 'string' || kid === '' || kid.length > TEXT_LIMIT)
    throw new SetRefusal('invalid_key', 'it names no key')
  const { transmitter } = check
  const { iss, aud } = jws.payload
  if (iss !== transmitter.issuer) throw new SetRefusal('invalid_issuer', 'iss is another')
  const key = await keyFor(check, kid)
  if (!key || !verifyJws(jws, key, alg))
    throw new SetRefusal('invalid_key', 'the signature is of no key of iss')
  const audiences: readonly unknown[] = Array.isArray(aud) ? aud : [aud]
  if (!audiences.includes(transmitter.audience)) throw new SetRefusal('invalid_audience', 'aud is another')
  return claimsOf(jws.payload, check)
}

async function keyFor({ keyOf }: SetCheck, kid: string): Promise<KeyObject | undefined> {
  const found = keyOf(kid)
  return found instanceof Promise ? await found : found
}

/** RFC 8417 s.2.2; `exp` and `sub` are no claims of a SET (SSF 1.0 s.4.1.7): one that has them may be an ID token. */
function claimsOf(payload: Readonly<Record<string, unknown>>, { now, skew }: SetCheck): SecurityEventToken {
  const { events, exp, iat, jti, sub, sub_id: subject } = payload
  if (exp !== undefined || sub !== undefined)
    throw new SetRefusal('invalid_request', 'it has exp or sub, which a SET has not')
  if (typeof jti !== 'string' || jti === '' || jti.length > TEXT_LIMIT)
    throw new SetRefusal('invalid_request', 'it has no jti')
  if (typeof iat !== 'number' || !Number.isFinite(iat))
    throw new SetRefusal('invalid_request', 'it has no iat')
  if (iat > now + skew || iat < now - OLDEST)
    throw new SetRefusal('invalid_request', 'iat is in the future, or over a week ago')
  if (typeof events !== 'object' || events === null || Array.isArray(events))
    throw new SetRefusal('invalid_request', 'it has no events')
  return { jti, issued: iat, events: events as Readonly<Record<string, unknown>>, subject }
}

/** For the audit: a fault of the receiver itself stays one. */
export function refusalOf(error: unknown): SetRefusal {
  if (error instanceof SetRefusal) return error
  if (error instanceof Fault) throw error
  throw new Fault('bug', undefined, { cause: error })
}
