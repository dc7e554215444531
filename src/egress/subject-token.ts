/**
 * What is read of a token that a workload was called with. Nothing of it is trusted: it narrows what is asked for, it
 * is seen by conditions, and the server that exchanges the token is the one that verifies it.
 */
import type { Seconds } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import { parseJws } from '../spiffe/jws.ts'

/** What conditions see of whoever called. */
interface SubjectFacts {
  /** Empty when nothing says it. */
  readonly subject: string
  /** Who acts for the subject, the newest first (RFC 8693 s.4.1); an actor without `sub` is an empty name. */
  readonly actors: readonly string[]
  readonly txn: string
}

/** The claims of a JWT, as far as they matter. */
export interface SubjectClaims extends SubjectFacts {
  readonly issuer: string | undefined
  /** Absent when the token says nothing of whom it is meant for. */
  readonly audience: readonly string[] | undefined
  /** Seconds since 1970. */
  readonly expires: Seconds | undefined
}

/** The claims of `token`; undefined when it is opaque. Throws token_malformed for what others might read as a JWT. */
export function readSubject(token: string): SubjectClaims | undefined {
  const payload = parseJws(token)?.payload
  if (!payload) {
    if (isLikeJwt(token)) throw new Fault('token_malformed', 'the subject token is a JWT that cannot be read')
    return undefined
  }
  const { iss, sub, aud, exp, act, txn } = payload as Partial<Record<string, unknown>>
  return {
    issuer: typeof iss === 'string' ? iss : undefined,
    subject: textOf(sub),
    actors: actorsOf(act),
    txn: textOf(txn),
    audience: aud === undefined ? undefined : [aud].flat().map(textOf),
    expires: typeof exp === 'number' && Number.isFinite(exp) ? exp : undefined,
  }
}

/** A laxer reader than this one would find claims where this one finds none. */
function isLikeJwt(token: string): boolean {
  const parts = token.split('.')
  return (
    parts.length === 3 &&
    Buffer.from(parts[0] ?? '', 'base64')
      .toString('latin1')
      .trimStart()
      .startsWith('{')
  )
}

function textOf(value: unknown): string {
  return typeof value === 'string' ? value : ''
}

/** The depth of JSON that is read bounds the chain. */
function actorsOf(act: unknown): readonly string[] {
  if (act === undefined) return []
  if (typeof act !== 'object' || act === null) return ['']
  const { sub, act: earlier } = act as { readonly sub?: unknown; readonly act?: unknown }
  return [textOf(sub), ...actorsOf(earlier)]
}
