/**
 * A private key that signs and has no other way out. EC signatures are made as DER and converted: asking OpenSSL for
 * r||s costs twice the signature on Node 24 (45 against 22 µs).
 */
import { constants, createPublicKey, generateKeyPairSync, type KeyObject, sign } from 'node:crypto'
import { Fault } from '../base/fault.ts'
import type { Alg, Jkt, Signer } from '../proof/signer.ts'
import { publicJwkOf, thumbprint } from '../spiffe/jwk.ts'

/** A signer whose key can be taken away. */
export interface HeldKey extends Signer {
  readonly publicKey: KeyObject
  /** A signature as certificates hold it: DER for EC (RFC 5480), PKCS#1 for RSA. */
  signDer(input: Uint8Array): Buffer
  /** Drops the key; later signatures throw key_lost. */
  destroy(): void
}

const RSA_BITS = 2048

/** A new key of `alg`, in the secure heap when the process has one. */
export function generateKey(alg: Alg): HeldKey {
  const { privateKey } =
    alg === 'RS256' || alg === 'PS256'
      ? generateKeyPairSync('rsa', { modulusLength: RSA_BITS })
      : generateKeyPairSync('ec', { namedCurve: alg === 'ES384' ? 'P-384' : 'P-256' })
  return holdKey(privateKey, alg)
}

/** Wraps `privateKey`; nothing else may keep a reference to it. */
export function holdKey(privateKey: KeyObject, alg: Alg): HeldKey {
  let key: KeyObject | undefined = privateKey
  const held = () => {
    if (!key) throw new Fault('key_lost')
    return key
  }
  const publicKey = createPublicKey(privateKey)
  const publicJwk = publicJwkOf(publicKey)
  return {
    alg,
    publicKey,
    publicJwk,
    jkt: thumbprint(publicJwk) as Jkt,
    sign: (input) => signJws(input, held(), alg),
    signDer: (input) => sign(alg === 'ES384' ? 'sha384' : 'sha256', input, held()),
    destroy: () => {
      key = undefined
    },
  }
}

/** The JWS signature of `input` (RFC 7518 s.3). */
export function signJws(input: Uint8Array, key: KeyObject, alg: Alg): Buffer {
  if (alg === 'ES256') return rawOf(sign('sha256', input, key), 32)
  if (alg === 'ES384') return rawOf(sign('sha384', input, key), 48)
  if (alg === 'RS256') return sign('sha256', input, key)
  return sign('sha256', input, { key, padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: 32 })
}

/** r||s of a DER ECDSA-Sig-Value made by OpenSSL; integers are at most size+1 bytes, so lengths are one byte. */
function rawOf(der: Buffer, size: number): Buffer {
  const raw = Buffer.alloc(size * 2)
  const r = 2
  const s = copyInteger(der, r, raw, size)
  copyInteger(der, s, raw, size * 2)
  return raw
}

/** Copies the INTEGER at `at` so that it ends at `end`, without sign byte; returns where the next value starts. */
function copyInteger(der: Buffer, at: number, raw: Buffer, end: number): number {
  const length = der[at + 1] ?? 0
  const start = at + 2
  const skip = der[start] === 0 ? 1 : 0
  der.copy(raw, end - (length - skip), start + skip, start + length)
  return start + length
}
