/** The body of a signed request, where a proxy shows it to the verifier: what its signature covers, or nothing gets through. */
import { Fault } from '../base/fault.ts'
import { DigestCheck, parseContentDigest } from '../proof/content-digest.ts'
import type { Binding } from './binding.ts'

/** A body as the asking proxy shows it. */
export interface AskedBody {
  /** As it arrived; undefined: not shown, or not to its end. */
  readonly whole: Uint8Array | undefined
  /** Whether any octet of it was shown. */
  readonly hasOctets: boolean
  /** Whether a signed request whose body is not shown is refused. */
  readonly isRequired: boolean
}

/** Throws digest_mismatch, proof_coverage, digest_required. Requests that are bound by no signature say nothing of a body. */
export function checkShownBody({ kind, contentDigest }: Binding, body: AskedBody | undefined): void {
  if (kind !== 'http-signature' || !body) return
  const { hasOctets, isRequired, whole } = body
  // HTTP/2 needs no length: such a body is known by what is seen of it alone.
  if (contentDigest === undefined) {
    if (!hasOctets) return
    throw new Fault('proof_coverage', 'a body came without the Content-Digest that signs it')
  }
  if (!whole) {
    if (!isRequired) return
    throw new Fault('digest_required', 'the body that the signature covers was not shown to its end', {
      owner: 'platform',
      action:
        'Let Envoy send it: with_request_body, with pack_as_bytes and max_request_bytes over its length.',
    })
  }
  const digests = parseContentDigest(contentDigest)
  const check = digests && new DigestCheck(digests)
  check?.update(whole)
  if (!check?.isMatch()) throw new Fault('digest_mismatch')
}
