/** A client of an authorization server that shows itself by `private_key_jwt`, and its key as the agent is given it. */
import { createPublicKey, generateKeyPairSync } from 'node:crypto'
import { publicJwkOf, thumbprint } from '../../src/spiffe/jwk.ts'
import type { IssuerClient } from './issuer.ts'

export interface KeyedClient {
  readonly client: IssuerClient
  /** The private key, PKCS#8. */
  readonly pem: string
}

export function makeClient(clientId = 'shop', scopes: readonly string[] = ['orders']): KeyedClient {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const jwk = publicJwkOf(createPublicKey(privateKey))
  return {
    client: { clientId, jwks: [{ ...jwk, kid: thumbprint(jwk) }], scopes },
    pem: String(privateKey.export({ format: 'pem', type: 'pkcs8' })),
  }
}
