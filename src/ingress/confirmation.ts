/** What a token says it is bound to (RFC 7800 `cnf`): a proof key, a certificate, or nothing. */
import { createHash } from 'node:crypto'
import { Fault } from '../base/fault.ts'
import { type Claims, perToken } from './access-token.ts'

export interface Confirmation {
  /** RFC 9449 s.6.1. */
  readonly jkt: string | undefined
  /** RFC 8705 s.3.1. */
  readonly x5t: string | undefined
}

const DIGEST = /^[A-Za-z0-9_-]{43}$/
const KNOWN: ReadonlySet<string> = new Set(['jkt', 'x5t#S256'])

/** Throws token_malformed for a confirmation that cannot be checked: it must not pass as none. */
export function confirmationIn({ cnf }: Claims): Confirmation {
  if (cnf === undefined) return { jkt: undefined, x5t: undefined }
  if (typeof cnf !== 'object' || cnf === null || Array.isArray(cnf)) throw unknown()
  const members = cnf as Readonly<Record<string, unknown>>
  const names = Object.keys(members)
  if (names.length === 0 || !names.every((name) => KNOWN.has(name))) throw unknown()
  return { jkt: digestIn(members, 'jkt'), x5t: digestIn(members, 'x5t#S256') }
}

/** The same of a verified token. */
export const confirmationOf = perToken(({ claims }) => confirmationIn(claims))

function digestIn(members: Readonly<Record<string, unknown>>, name: string): string | undefined {
  const value = members[name]
  if (value === undefined) return undefined
  if (typeof value !== 'string' || !DIGEST.test(value)) throw unknown()
  return value
}

/** The `x5t#S256` of a certificate in DER. */
export function x5tOf(certificate: Buffer): string {
  return createHash('sha256').update(certificate).digest('base64url')
}

function unknown(): Fault {
  return new Fault('token_malformed', 'the token is bound to something that cannot be checked here', {
    owner: 'identity',
  })
}
