/** A private key from a file of the operator's: read, held, and the text overwritten. */
import { createPrivateKey } from 'node:crypto'
import { Fault } from '../base/fault.ts'
import { readTrusted } from '../base/trusted.ts'
import type { Alg } from '../proof/signer.ts'
import { type HeldKey, holdKey } from './signer.ts'

const FILE_LIMIT = 64 * 1024

/** The unencrypted PEM key in `file`; throws policy_writable when others can read or change it, config_invalid. */
export function readKeyFile(file: string): HeldKey {
  const pem = readTrusted(file, { maxBytes: FILE_LIMIT, secret: true })
  try {
    const key = createPrivateKey(pem)
    const { asymmetricKeyType: type, asymmetricKeyDetails: details } = key
    const alg = algOf(type, details?.namedCurve ?? String(details?.modulusLength))
    if (alg) return holdKey(key, alg)
  } catch {
    // Said below without the library's words, which quote the file.
  } finally {
    pem.fill(0)
  }
  throw new Fault(
    'config_invalid',
    `${file}: no unencrypted P-256, P-384 or RSA key (2048 to 8192 bits) in PEM`,
  )
}

function algOf(type: string | undefined, size: string): Alg | undefined {
  if (type === 'ec') return size === 'prime256v1' ? 'ES256' : size === 'secp384r1' ? 'ES384' : undefined
  return type === 'rsa' && Number(size) >= 2048 && Number(size) <= 8192 ? 'RS256' : undefined
}
