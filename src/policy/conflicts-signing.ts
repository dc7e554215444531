/** What cannot be stated of requests that are signed (RFC 9421). */
import type { Problem } from '../base/problem.ts'
import { FRAMING, HOP_BY_HOP, isDenied } from './header-names.ts'
import type { IdentityStatement, Statements } from './statements.ts'

/** Statements about signatures that nobody could carry out. */
export function signingConflicts({ identity, application }: Statements): readonly Problem[] {
  const stated = new Map(identity.map((target) => [target.name, target]))
  return [
    ...identity.flatMap(witProblems),
    ...application.flatMap(({ name, grants }) =>
      grants
        .filter(({ signedHeaders }) => signedHeaders.length > 0)
        .flatMap(({ signedHeaders, place }) => [
          ...unsigned(stated.get(name)).map((message) => ({ ...place, message: `${name}: ${message}` })),
          ...signedHeaders.filter(isAgents).map((header) => ({
            ...place,
            message: `${name}: signed_headers has ${header}, which is no caller's to send: leave it out`,
          })),
        ]),
    ),
  ]
}

/** Both go with a WIT, each with one over its own key, and a request has room for one. */
function witProblems({ name, binding, place }: IdentityStatement): readonly Problem[] {
  if (!binding.includes('wpt') || !binding.includes('http-signature')) return []
  const message = `${name}: wpt and http-signature are two proofs for one WIT: leave one of them`
  return [{ ...place, message }]
}

function unsigned(target: IdentityStatement | undefined): readonly string[] {
  if (!target || target.binding.includes('http-signature')) return []
  return ['its grant has signed_headers, and its requests are not signed: add http-signature to binding']
}

/** What the agent says itself is signed anyway; what belongs to one hop is not the same at the next. */
function isAgents(header: string): boolean {
  return isDenied(header) || HOP_BY_HOP.has(header) || FRAMING.has(header) || header === 'content-digest'
}
