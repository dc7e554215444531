/** Whether a body is the one that its sender signed (RFC 9530): the signature covers its hash, the application has the body. */
import { DigestCheck, parseContentDigest } from '../proof/content-digest.ts'
import type { VerifiedRequest } from './outcome.ts'

/** The longest body that is read whole to be compared, in bytes. */
export const BODY_LIMIT = 1024 * 1024

/** What a body is judged by. */
export type SignedBody = Pick<VerifiedRequest, 'binding' | 'content_digest'>

/**
 * Whether `body`, whole and as it arrived, is what the request's signature covers; true for requests that are bound by
 * no signature, which say nothing of their body.
 */
export function isBodyOf({ binding, content_digest: wanted }: SignedBody, body: Uint8Array): boolean {
  if (wanted === undefined) return binding.kind !== 'http-signature' || body.length === 0
  const digests = parseContentDigest(wanted)
  if (!digests) return false
  const check = new DigestCheck(digests)
  check.update(body)
  return check.isMatch()
}

/** The request with its body read; undefined when it is another one than was signed, or over the limit. */
export async function withSignedBody(request: Request, verified: SignedBody): Promise<Request | undefined> {
  if (verified.binding.kind !== 'http-signature') return request
  const body = await readBounded(request)
  if (!body || !isBodyOf(verified, body)) return undefined
  return body.length === 0 ? request : new Request(request.url, { ...partsOf(request), body })
}

function partsOf({ headers, method, signal }: Request) {
  return { headers, method, signal }
}

async function readBounded({ body }: Request): Promise<Buffer | undefined> {
  const parts: Uint8Array[] = []
  let size = 0
  for await (const part of (body ?? []) as AsyncIterable<Uint8Array>) {
    size += part.length
    if (size > BODY_LIMIT) return undefined
    parts.push(part)
  }
  return Buffer.concat(parts)
}
