/** Checkpoints: their signatures, and the anchors that repeat them outside the audit log. */
import { createPublicKey, type KeyObject, verify } from 'node:crypto'
import { parseJsonObject } from '../base/json.ts'
import { type Anchor, checkpointInput, SIGNATURE_MEMBER, sha256 } from './audit-chain.ts'

const ANCHOR_LIMIT = 64 * 1024
const SIGNATURE = /^[A-Za-z0-9_-]{86}$/
const TAIL = /^,"signature":"([A-Za-z0-9_-]{86})"\}$/

/** The checkpoint in a line as its anchor would repeat it; undefined for any other text. */
export function anchorOfLine(line: string, seq: number, publicJwk: unknown): Anchor | undefined {
  const at = line.lastIndexOf(SIGNATURE_MEMBER)
  const signature = TAIL.exec(line.slice(at))?.[1]
  if (at < 0 || !signature) return undefined
  return { seq, hash: sha256(line.slice(0, at)), signature, publicKey: JSON.stringify(publicJwk) }
}

/** Whether the anchor's own key signed it. */
export function isSigned({ seq, hash, signature, publicKey }: Anchor): boolean {
  const bytes = Buffer.from(signature, 'base64url')
  // The last character has four bits to spare: two spellings of one signature are an edit.
  if (bytes.length !== 64 || bytes.toString('base64url') !== signature) return false
  const key = keyOf(publicKey)
  return (
    key !== undefined &&
    verify('sha256', checkpointInput(seq, hash), { key, dsaEncoding: 'ieee-p1363' }, bytes)
  )
}

function keyOf(publicKey: string): KeyObject | undefined {
  try {
    const { kty, crv, x, y } = parseJsonObject(publicKey, { maxBytes: 1024, maxDepth: 1 })
    if (kty !== 'EC' || crv !== 'P-256' || typeof x !== 'string' || typeof y !== 'string') return undefined
    return createPublicKey({ key: { kty, crv, x, y }, format: 'jwk' })
  } catch {
    return undefined
  }
}

/**
 * The anchors in a log, in any order: JSON objects with `audit_seq`, `audit_hash`, `signature` and `public_key`, or
 * `seq`, `hash` and so on, one a line. What a log collector puts before the object is skipped, and so are other lines.
 */
export function parseAnchors(text: string): readonly Anchor[] {
  return text.split('\n').flatMap((line) => {
    const start = line.indexOf('{')
    if (start < 0 || line.length > ANCHOR_LIMIT) return []
    try {
      const members = parseJsonObject(line.slice(start), { maxBytes: ANCHOR_LIMIT, maxDepth: 8 })
      return anchorOf(members)
    } catch {
      return []
    }
  })
}

function anchorOf(members: Readonly<Record<string, unknown>>): readonly Anchor[] {
  const seq = members['audit_seq'] ?? members['seq']
  const hash = members['audit_hash'] ?? members['hash']
  const { signature, public_key: key } = members
  const publicKey = typeof key === 'object' ? JSON.stringify(key) : key
  if (!Number.isSafeInteger(seq) || typeof hash !== 'string' || typeof publicKey !== 'string') return []
  if (typeof signature !== 'string' || !SIGNATURE.test(signature)) return []
  return [{ seq: seq as number, hash, signature, publicKey }]
}
