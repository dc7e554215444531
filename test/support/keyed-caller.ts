/** A caller without an agent, whose token and key are in its own hands. */
import { type Agent, request } from 'node:https'
import type { LabKey } from '../../src/probe/key.ts'
import { hashOf, newJti } from '../../src/proof/jwt.ts'

/** A token and a proof by `key`, for a GET of `htu`. */
export function headersFor(key: LabKey, token: string, htu: string): Record<string, string> {
  const claims = { jti: newJti(), htm: 'GET', htu, iat: Math.floor(Date.now() / 1000), ath: hashOf(token) }
  const proof = key.sign({ typ: 'dpop+jwt', alg: 'ES256', jwk: key.publicJwk }, claims)
  return { authorization: `DPoP ${token}`, dpop: proof }
}

/** The status of the answer. */
export function get(
  url: string,
  headers: Record<string, string>,
  ca: string,
  agent?: Agent,
): Promise<number> {
  return new Promise((resolve, reject) => {
    request(url, { headers, ca, agent: agent ?? false }, (response) => {
      response.resume().on('end', () => resolve(response.statusCode ?? 0))
    })
      .on('error', reject)
      .end()
  })
}
