/**
 * A held key in TLS: a key is made for one certificate, goes into SecureContexts and nowhere else. OpenSSL takes it as
 * PEM only, so the text is written into a Buffer and overwritten, never a string.
 */
import { generateKeyPairSync } from 'node:crypto'
import { createSecureContext, type SecureContext, type SecureContextOptions } from 'node:tls'
import { pemOf } from '../base/pem.ts'

/** What the context is made of besides key and certificate. */
export type ContextBase = Readonly<Pick<SecureContextOptions, 'ca' | 'minVersion' | 'secureOptions'>>

/** A key that was made for one certificate. */
export interface TlsKey {
  /** The SubjectPublicKeyInfo to certify, in DER. */
  readonly spki: Buffer
  /** A context that shows `chain` (leaf first, in DER) over this key. */
  contextWith(chain: readonly Buffer[], base: ContextBase): SecureContext
}

/** A new P-256 key; it ends with what was made of it. */
export function makeTlsKey(): TlsKey {
  const { publicKey, privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  return {
    spki: publicKey.export({ type: 'spki', format: 'der' }),
    contextWith: (chain, base) => {
      const der = privateKey.export({ type: 'pkcs8', format: 'der' })
      const pem = pemOf('PRIVATE KEY', der)
      try {
        const cert = Buffer.concat(chain.map((each) => pemOf('CERTIFICATE', each)))
        return createSecureContext({ ...base, key: pem, cert })
      } finally {
        pem.fill(0)
        der.fill(0)
      }
    },
  }
}
