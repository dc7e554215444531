/**
 * A held key in TLS: a key is made for one certificate, goes into SecureContexts and nowhere else. OpenSSL takes it as
 * PEM only, so the text is written into a Buffer and overwritten, never a string.
 */
import { generateKeyPairSync } from 'node:crypto'
import { createSecureContext, type SecureContext, type SecureContextOptions } from 'node:tls'

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

const LINE = 64
const ALPHABET = Buffer.from('ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/', 'latin1')
const [NEWLINE, PADDING] = [10, 61]

/** RFC 7468 text of `der`, made without an intermediate string. */
function pemOf(label: string, der: Buffer): Buffer {
  const head = Buffer.from(`-----BEGIN ${label}-----\n`)
  const tail = Buffer.from(`-----END ${label}-----\n`)
  const length = Math.ceil(der.length / 3) * 4
  const pem = Buffer.alloc(head.length + length + Math.ceil(length / LINE) + tail.length)
  let at = head.copy(pem)
  for (let digit = 0; digit < length; digit += 1) {
    pem[at++] = digitOf(der, digit)
    if (digit % LINE === LINE - 1 || digit === length - 1) pem[at++] = NEWLINE
  }
  tail.copy(pem, at)
  return pem
}

/** The base64 digit at `index`: six bits that lie in one byte or two (RFC 4648 s.4). */
function digitOf(der: Buffer, index: number): number {
  const bit = index * 6
  const byte = bit >> 3
  if (byte >= der.length) return PADDING
  const pair = ((der[byte] ?? 0) << 8) | (der[byte + 1] ?? 0)
  return ALPHABET[(pair >> (10 - (bit & 7))) & 63] ?? 0
}
