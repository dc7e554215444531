/** Content-Digest (RFC 9530 s.2): the hash of a body, made, read, and compared with what was sent. */
import { createHash, type Hash, timingSafeEqual } from 'node:crypto'
import { type Item, parseDictionary } from './structured-fields.ts'

/** The active algorithms (s.5); the others are broken or no digests at all. */
const BYTES: ReadonlyMap<string, number> = new Map([
  ['sha-256', 32],
  ['sha-512', 64],
])

/** Digests by algorithm, at least one. */
export type ContentDigest = ReadonlyMap<string, Buffer>

/** The value of the field for a whole body. */
export function digestOf(body: Uint8Array): string {
  return digestText(createHash('sha256').update(body))
}

/** The value of the field, of a hash that has seen the body. */
function digestText(hash: Hash): string {
  return `sha-256=:${hash.digest('base64')}:`
}

/** The digests in a field value; undefined unless all are of active algorithms and of their size. */
export function parseContentDigest(value: string): ContentDigest | undefined {
  const members = parseDictionary(value)
  if (!members || members.size === 0) return undefined
  const digests = new Map<string, Buffer>()
  for (const [algorithm, member] of members) {
    const digest = 'bare' in member ? bytesOf(member) : undefined
    if (!digest || digest.length !== BYTES.get(algorithm)) return undefined
    digests.set(algorithm, digest)
  }
  return digests
}

function bytesOf({ bare, parameters }: Item): Buffer | undefined {
  return bare.type === 'bytes' && parameters.size === 0 ? bare.value : undefined
}

/** Compares a body with its digests, part by part. */
export class DigestCheck {
  readonly #hashes: readonly { readonly hash: Hash; readonly wanted: Buffer }[]

  constructor(digests: ContentDigest) {
    this.#hashes = [...digests].map(([algorithm, wanted]) => ({
      hash: createHash(algorithm.replace('-', '')),
      wanted,
    }))
  }

  update(part: Uint8Array): void {
    for (const { hash } of this.#hashes) hash.update(part)
  }

  /** Whether all digests are those of the parts; once, at their end. */
  isMatch(): boolean {
    return this.#hashes.map(({ hash, wanted }) => timingSafeEqual(hash.digest(), wanted)).every(Boolean)
  }
}
