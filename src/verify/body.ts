/** Whether a body is the one that its sender signed (RFC 9530): the signature covers its hash, the application has the body. */
import { Fault } from '../base/fault.ts'
import type { Challenge } from '../ingress/challenge.ts'
import { DigestCheck, parseContentDigest } from '../proof/content-digest.ts'
import { STATUS } from '../serve/status.ts'
import { countOf } from './form.ts'
import type { OnRefused } from './options.ts'
import { type Outcome, tell, type VerifiedRequest } from './outcome.ts'

/** The longest body that is read whole to be compared unless the application says another, in bytes. */
export const BODY_LIMIT = 1024 * 1024
const MOST = 64 * 1024 * 1024

/** What a body is judged by. */
export type SignedBody = Pick<VerifiedRequest, 'binding' | 'content_digest'>

/** How bodies of signed requests are compared here. */
export interface BodyRules {
  /** In bytes; 0: the application compares. */
  readonly limit: number
  readonly onRefused: OnRefused | undefined
}

/** Throws policy_invalid. */
export function bodyRulesOf({
  bodyLimit = BODY_LIMIT,
  onRefused,
}: {
  readonly bodyLimit?: number
  readonly onRefused?: OnRefused
}): BodyRules {
  return { limit: countOf(bodyLimit, 'bodyLimit', [0, MOST]), onRefused }
}

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

/** The outcome, or a refusal when the body that `read` gives is another one than was signed. */
export async function withSignedBody(
  outcome: Outcome,
  { limit, onRefused }: BodyRules,
  method: string,
  read: (limit: number) => Promise<Uint8Array>,
): Promise<Outcome> {
  const { verified } = outcome
  if (verified?.binding.kind !== 'http-signature' || limit === 0) return outcome
  try {
    checkBody(verified, await read(limit))
    return outcome
  } catch (caught) {
    const fault = Fault.from(caught)
    tell(onRefused, fault, { method, route: verified.route })
    return { verified: undefined, challenge: refusalOf(fault) }
  }
}

function checkBody(verified: VerifiedRequest, body: Uint8Array): void {
  if (isBodyOf(verified, body)) return
  if (verified.content_digest !== undefined) throw new Fault('digest_mismatch')
  throw new Fault('proof_coverage', 'a body came without the Content-Digest that signs it')
}

function refusalOf({ reason }: Fault): Challenge {
  const { http } = STATUS[reason]
  return { status: http >= 500 || http === 413 ? http : 400, headers: { 'cache-control': 'no-store' } }
}
