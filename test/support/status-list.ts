/** An issuer's side of status lists (draft-ietf-oauth-status-list s.4 and 5.1): statuses packed, deflated and signed. */
import { deflateSync } from 'node:zlib'
import type { Pair } from './certificates.ts'
import { signToken } from './tokens.ts'

export interface StatusTokenOf {
  readonly uri: string
  readonly iat: number
  readonly statuses: readonly number[]
  readonly bits?: number
  readonly header?: object
  readonly claims?: object
}

/** A Status List Token of `issuer`, right but for what is given. */
export function statusToken(issuer: Pair, { bits = 1, claims, header, iat, statuses, uri }: StatusTokenOf) {
  const bytes = Buffer.alloc(Math.ceil((statuses.length * bits) / 8))
  for (const [index, status] of statuses.entries()) {
    const bit = index * bits
    bytes[bit >> 3] = (bytes[bit >> 3] ?? 0) | (status << (bit & 7))
  }
  const list = { bits, lst: deflateSync(bytes).toString('base64url') }
  return signToken(
    { alg: 'ES256', kid: 'k1', typ: 'statuslist+jwt', ...header },
    { sub: uri, iat, status_list: list, ...claims },
    issuer,
  )
}
