/**
 * The Content-Digest of a request that is signed (RFC 9530, draft-ietf-wimse-http-signature s.3): a body is never sent
 * without one, and never other than it says.
 */
import type { Millis } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import { DigestCheck, digestOf, parseContentDigest } from '../proof/content-digest.ts'
import { fieldValues } from '../proof/http-message.ts'
import type { Body } from './body.ts'
import type { RawHeaders } from './headers.ts'
import { type Lifeline, orAborted } from './lifeline.ts'
import { expects } from './sending.ts'
import type { CallerRequest, CallerResponse } from './sides.ts'

interface Incoming {
  readonly request: CallerRequest
  readonly response: CallerResponse
  readonly line: Lifeline
}

/**
 * What the agent has to say itself; undefined where there is no body, or the caller says it: then the end of the body
 * is held back until the digest is known to be right. Throws header_refused, digest_mismatch, digest_required.
 */
export async function digestFor(
  { request, response, line }: Incoming,
  passed: RawHeaders,
  body: Body | undefined,
  patience: Millis,
): Promise<string | undefined> {
  const values = fieldValues(passed, 'content-digest')
  if (values.length > 0) {
    const check = checkOf(values.join(', '))
    if (body) body.holdTo(check, () => line.end(new Fault('digest_mismatch')))
    else if (!check.isMatch()) throw new Fault('digest_mismatch')
    if (line.signal.aborted) throw line.signal.reason
    return undefined
  }
  if (!body) return undefined
  if (expects(request)) response.writeContinue()
  line.wait(patience, 'the body stands still')
  const parts = await orAborted(body.gather(), line.signal)
  if (!parts) throw new Fault('digest_required')
  return digestOf(Buffer.concat(parts))
}

function checkOf(value: string): DigestCheck {
  const digests = parseContentDigest(value)
  if (!digests) throw new Fault('header_refused', 'Content-Digest is no list of sha-256 and sha-512 digests')
  return new DigestCheck(digests)
}
