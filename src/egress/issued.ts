/**
 * What the agent checks of a token that it was issued: bound to the key that asked, no longer and no wider than policy
 * states. The signature is the business of whoever takes the token; the answer came from the server itself.
 */
import type { Seconds } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import type { Jkt } from '../proof/signer.ts'
import { parseJws } from '../spiffe/jws.ts'
import { unavailable } from './issuer-http.ts'

/** The answer of a token endpoint (RFC 6749 s.5.1), as far as it matters. */
export interface Issued {
  readonly accessToken: string
  readonly tokenType: string
  readonly expiresIn: number | undefined
  readonly scope: string | undefined
  /** RFC 8693 s.2.2.1; absent where nothing was exchanged. */
  readonly issuedTokenType?: unknown
}

/** What the token has to be. */
export interface Wanted {
  readonly issuer: string
  /** The key that it has to be bound to by DPoP. */
  readonly jkt: Jkt | undefined
  /** The certificate instead (RFC 8705); with neither it is a bearer token, under an exception of security. */
  readonly certificate: WantedCertificate | undefined
  readonly maxTtl: Seconds
  /** What becomes of a token that lives longer. */
  readonly tooLong: 'refuse' | 'revoke'
  readonly scopes: readonly string[]
  readonly resource: string | undefined
  readonly now: Seconds
  /** How far the server's clock may be off. */
  readonly skew: Seconds
}

/** How long a token may be used, in seconds since 1970 by this node's clock. */
export interface Life {
  readonly expires: Seconds
  /** When it would end by itself, where that is after the longest life that policy allows. */
  readonly ends: Seconds | undefined
}

/** `isStated`: the server says that its tokens are bound to certificates, for those that cannot be read. */
export interface WantedCertificate {
  readonly x5t: string
  readonly isStated: boolean
}

type Claims = Readonly<Record<string, unknown>>

const TOKEN_LIMIT = 16 * 1024
// RFC 6750 s.2.1, RFC 9449 s.7.1: what an Authorization header can carry.
const TOKEN68 = /^[A-Za-z0-9._~+/-]+=*$/

/**
 * How long the token may be used. Throws issued_unbound, issued_too_long, issued_too_wide, and
 * issuer_unavailable for an answer that is none.
 */
export function checkIssued(issued: Issued, wanted: Wanted): Life {
  const { accessToken } = issued
  if (accessToken.length > TOKEN_LIMIT || !TOKEN68.test(accessToken))
    throw unavailable('issues a token that no header can carry')
  const claims = parseJws(accessToken)?.payload
  checkBinding(issued, claims, wanted)
  checkIssuer(claims, wanted)
  checkScope(issued, claims, wanted)
  checkAudience(claims, wanted)
  return checkLife(issued, claims, wanted)
}

/** RFC 9449 s.5, s.6.1: the type says it, and a token that can be read shows it. */
function checkBinding({ tokenType }: Issued, claims: Claims | undefined, wanted: Wanted): void {
  const { jkt, certificate } = wanted
  const type = tokenType.toLowerCase()
  if (certificate) {
    checkCertificate(type, claims, certificate)
    return
  }
  if (jkt === undefined) {
    if (type !== 'bearer') throw new Fault('issued_unbound', 'the issued token is no bearer token')
    return
  }
  if (type !== 'dpop')
    throw new Fault('issued_unbound', 'the issued token is a bearer token, wanted token_type DPoP')
  if (claims === undefined) return
  const bound = confirmationOf(claims)['jkt']
  if (bound === undefined) throw new Fault('issued_unbound', 'the issued token has no cnf.jkt')
  if (bound !== jkt) throw new Fault('issued_unbound', 'the issued token is bound to another key')
}

/** RFC 8705 s.3: the type stays Bearer, and `cnf` names this certificate and nothing else (RFC 7800 s.3.1). */
function checkCertificate(type: string, claims: Claims | undefined, wanted: WantedCertificate): void {
  if (type !== 'bearer')
    throw new Fault('issued_unbound', 'the issued token is bound by DPoP, wanted the certificate')
  if (claims === undefined) {
    if (wanted.isStated) return
    throw new Fault(
      'issued_unbound',
      'the issued token cannot be read, and its server does not say that it binds tokens to certificates',
      { action: 'Let the server issue JWTs, or state tls_client_certificate_bound_access_tokens.' },
    )
  }
  const cnf = confirmationOf(claims)
  const bound = cnf['x5t#S256']
  if (bound === undefined) throw new Fault('issued_unbound', 'the issued token has no cnf.x5t#S256')
  if (bound !== wanted.x5t)
    throw new Fault('issued_unbound', 'the issued token is bound to another certificate')
  if (Object.keys(cnf).length > 1)
    throw new Fault('issued_unbound', 'the issued token is bound to something else than the certificate too')
}

function confirmationOf(claims: Claims): Claims {
  const cnf = claims['cnf']
  return typeof cnf === 'object' && cnf !== null ? (cnf as Claims) : {}
}

/** Whether what a token says can be seen: it is a JWT. */
export function isReadable(token: string): boolean {
  return parseJws(token) !== undefined
}

/** RFC 9068 s.2.2: a token of another issuer has been mixed up, or passed on. */
function checkIssuer(claims: Claims | undefined, { issuer }: Wanted): void {
  if (claims?.['iss'] !== undefined && claims['iss'] !== issuer)
    throw unavailable('issues a token that names another issuer')
}

/** RFC 6749 s.3.3: a scope that is not there is the one that was asked for. */
function checkScope({ scope }: Issued, claims: Claims | undefined, wanted: Wanted): void {
  const inToken = claims?.['scope']
  for (const text of [scope, inToken]) {
    if (text === undefined) continue
    const list = typeof text === 'string' ? text.split(' ') : Array.isArray(text) ? text.map(String) : ['']
    const further = list.filter((name) => name !== '' && !wanted.scopes.includes(name)).length
    if (further > 0)
      throw new Fault(
        'issued_too_wide',
        `the issued token has ${further} scopes that the target does not state`,
      )
  }
}

/** RFC 8707 s.2, RFC 9068 s.3: a token for a resource is for that one only. */
function checkAudience(claims: Claims | undefined, { resource }: Wanted): void {
  if (claims === undefined || resource === undefined) return
  const list = listOf(claims['aud'])
  if (list.length === 0 || list.some((one) => one !== resource))
    throw new Fault(
      'issued_too_wide',
      'the issued token is for another audience than the resource of the target',
    )
}

/** RFC 7519 s.4.1.3: one audience may stand without a list. */
export function listOf(aud: unknown): readonly unknown[] {
  return Array.isArray(aud) ? aud : [aud]
}

/** `expires_in` counts from now; `exp` is by the server's clock, so its distance from `iat` counts too. */
function checkLife({ expiresIn }: Issued, claims: Claims | undefined, wanted: Wanted): Life {
  const { now, maxTtl, skew, tooLong } = wanted
  const [exp, iat] = [dateOf(claims?.['exp']), dateOf(claims?.['iat'])]
  if (expiresIn === undefined && exp === undefined)
    throw new Fault('issued_too_long', 'the issued token does not say when it ends: no expires_in, no exp')
  const life = Math.max(expiresIn ?? 0, exp !== undefined && iat !== undefined ? exp - iat : 0)
  const left = (exp ?? now) - now
  const longest = Math.floor(Math.max(life, left))
  const isTooLong = life > maxTtl || left > maxTtl + skew
  if (isTooLong && tooLong === 'refuse')
    throw new Fault('issued_too_long', `the issued token lives ${longest} s, allowed are ${maxTtl} s`)
  const expires = Math.min(exp ?? Number.POSITIVE_INFINITY, now + Math.min(expiresIn ?? maxTtl, maxTtl))
  if (expires <= now) throw unavailable('issues a token that has ended by the clock of this node')
  return { expires, ends: isTooLong ? now + longest : undefined }
}

function dateOf(value: unknown): number | undefined {
  return typeof value === 'number' && Number.isFinite(value) ? value : undefined
}
