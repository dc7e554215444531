/** Subject identifiers of security events (RFC 9493), as far as credentials name their subjects the same way. */

/** In the members of a rule. */
export type EventSubject =
  | { readonly issuer: string; readonly sub: string }
  | { readonly issuer: string; readonly jti: string }
  | { readonly spiffe_id: string }

export type Members = Readonly<Record<string, unknown>>

const TEXT_LIMIT = 2048

export function isMembers(value: unknown): value is Members {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/** The subject; undefined for a form that no credential here is known by (an email address, a phone number). */
export function subjectOf(identifier: unknown): EventSubject | undefined {
  if (!isMembers(identifier)) return undefined
  const { format, iss, sub, uri, jti } = identifier
  switch (format) {
    case 'iss_sub':
      return isText(iss) && isText(sub) ? { issuer: iss, sub } : undefined
    case 'jwt_id':
      return isText(iss) && isText(jti) ? { issuer: iss, jti } : undefined
    case 'uri':
      return isText(uri) && uri.startsWith('spiffe://') ? { spiffe_id: uri } : undefined
    // SSF 1.0 s.3.2: of the parts, the user is whom credentials name; a workload may stand as the device.
    case 'complex':
      return subjectOf(simple(identifier['user'])) ?? subjectOf(simple(identifier['device']))
    default:
      return undefined
  }
}

/** A complex subject has simple parts. */
function simple(identifier: unknown): unknown {
  return isMembers(identifier) && identifier['format'] !== 'complex' ? identifier : undefined
}

function isText(value: unknown): value is string {
  return typeof value === 'string' && value !== '' && value.length <= TEXT_LIMIT
}
