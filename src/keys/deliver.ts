/**
 * The only keys that leave the agent: those of SVIDs that the Workload API must hand out (Workload API s.5.2.1, 7).
 * Imported by the doors that deliver and by nothing else.
 */
import { createECDH, createPublicKey } from 'node:crypto'
import { Fault } from '../base/fault.ts'
import { Secret } from '../base/secret.ts'
import { type PublicJwk, publicJwkOf } from '../spiffe/jwk.ts'

/** A P-256 key made to be given away. */
export interface DeliveredKey {
  /** SubjectPublicKeyInfo in DER. */
  readonly spki: Buffer
  readonly publicJwk: PublicJwk
  /** PKCS#8 in DER, unencrypted (Workload API s.5.2.1). A fresh copy each time: who asks for one wipes it. */
  pkcs8(): Buffer
  /** The private JWK of FetchWITSVID. */
  privateJwk(): Secret<string>
  /** Overwrites the key; later calls throw key_lost. */
  wipe(): void
}

// Fixed DER around a P-256 key: Node 20 takes 250 µs to export what is 19 µs this way.
const SPKI_HEAD = Buffer.from('3059301306072a8648ce3d020106082a8648ce3d030107034200', 'hex')
const PKCS8_HEAD = Buffer.from(
  '308187020100301306072a8648ce3d020106082a8648ce3d030107046d306b0201010420',
  'hex',
)
const PKCS8_PUBLIC = Buffer.from('a144034200', 'hex')
const SCALAR_BYTES = 32

/** A new key. Its scalar is a Buffer of ours, so that it can be overwritten. */
export function makeDeliveredKey(): DeliveredKey {
  const pair = createECDH('prime256v1')
  const point = pair.generateKeys()
  const short = pair.getPrivateKey()
  const scalar = Buffer.alloc(SCALAR_BYTES)
  short.copy(scalar, SCALAR_BYTES - short.length)
  short.fill(0)
  const spki = Buffer.concat([SPKI_HEAD, point])
  let wiped = false
  const take = () => {
    if (wiped) throw new Fault('key_lost')
    return scalar
  }
  return {
    spki,
    publicJwk: publicJwkOf(createPublicKey({ key: spki, format: 'der', type: 'spki' })),
    pkcs8: () => Buffer.concat([PKCS8_HEAD, take(), PKCS8_PUBLIC, point]),
    privateJwk: () => new Secret(privateJwk(point, take())),
    wipe: () => {
      wiped = true
      scalar.fill(0)
    },
  }
}

function privateJwk(point: Buffer, scalar: Buffer): string {
  const x = point.toString('base64url', 1, 33)
  const y = point.toString('base64url', 33, 65)
  return JSON.stringify({ kty: 'EC', crv: 'P-256', x, y, d: scalar.toString('base64url'), alg: 'ES256' })
}
