/**
 * The compact JWS that every proof is (RFC 7515 s.7.1). Hand-built: a general library doubles the cost of a
 * signature; the header of a key is encoded once.
 */
import { hash, randomFillSync } from 'node:crypto'
import type { Signer } from './signer.ts'

export type ProofType = 'dpop+jwt' | 'wpt+jwt'

const headers: Record<ProofType, WeakMap<Signer, string>> = {
  'dpop+jwt': new WeakMap(),
  'wpt+jwt': new WeakMap(),
}

/** `header.payload.signature` for a payload that is already JSON. */
export function makeProof(typ: ProofType, signer: Signer, payload: string): string {
  const input = `${headerOf(typ, signer)}.${Buffer.from(payload).toString('base64url')}`
  return `${input}.${signer.sign(Buffer.from(input, 'latin1')).toString('base64url')}`
}

function headerOf(typ: ProofType, signer: Signer): string {
  let header = headers[typ].get(signer)
  if (header === undefined) {
    // A WPT names no key: its verifier takes the WIT's (draft-ietf-wimse-wpt s.2).
    const members =
      typ === 'dpop+jwt' ? { typ, alg: signer.alg, jwk: signer.publicJwk } : { typ, alg: signer.alg }
    header = Buffer.from(JSON.stringify(members)).toString('base64url')
    headers[typ].set(signer, header)
  }
  return header
}

// One call for 256 identifiers: a random read a proof costs more than the rest of the payload.
const JTI_BYTES = 16
const pool = Buffer.alloc(JTI_BYTES * 256)
let taken = pool.length

/** 128 random bits, base64url (RFC 9449 s.4.2 wants at least 96); never given twice. */
export function newJti(): string {
  if (taken === pool.length) {
    randomFillSync(pool)
    taken = 0
  }
  taken += JTI_BYTES
  return pool.toString('base64url', taken - JTI_BYTES, taken)
}

/** base64url SHA-256 of an ASCII token: `ath`, `tth`, `wth`. */
export function hashOf(token: string): string {
  return hash('sha256', token, 'base64url')
}
