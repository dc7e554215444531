/** What of an application's own request is signed when it sends it itself: what its grant lists, and its body's digest. */
import { Fault } from '../base/fault.ts'
import type { Decision } from '../policy/decide.ts'
import type { Binding, TargetIdentity } from '../policy/grant.ts'
import { placeText } from '../policy/statements.ts'
import { fieldNames } from '../proof/http-message.ts'
import type { BindAsk, SigningAsk } from './bound.ts'
import { firstOf, passRequest, takesBody } from './headers.ts'
import { signedBy } from './permit.ts'
import type { HeadersAsk, SentAsk } from './release-ask.ts'

/** Throws invalid_request where nothing is signed, policy_denied for a field that the grant does not list, digest_required. */
export function signingOf(ask: HeadersAsk, kinds: readonly Binding[], decision: Decision): SigningAsk {
  const { method, contentDigest: digest } = ask
  const wanted = fieldNames(ask.signedHeaders)
  if (!kinds.includes('http-signature')) {
    if (wanted.length === 0 && digest === undefined) return { names: [], digest }
    throw new Fault('invalid_request', 'requests to this target are not signed', {
      action: 'Leave out signed_headers and content_digest, or add http-signature to binding of the target.',
    })
  }
  const listed = signedBy(decision)
  const foreign = wanted.find((name) => !listed.includes(name))
  if (foreign !== undefined) throw unlisted(foreign, decision)
  if (digest === undefined && takesBody(method))
    throw new Fault('digest_required', `a ${method} request is signed with the digest of its body`, {
      action: 'Send content_digest (RFC 9530); of an empty body it is the digest of no bytes.',
    })
  return { names: wanted, digest }
}

/** What of a request is signed that a proxy tells of in full: what its grant lists. Throws digest_required. */
export function sentSigning(
  { fields, hasBody }: SentAsk,
  kinds: readonly Binding[],
  { identity, decision }: { readonly identity: TargetIdentity; readonly decision: Decision },
): Pick<BindAsk, 'passed' | 'signing'> {
  const passed = passRequest(fields, { transaction: identity.passesTransaction })
  if (kinds.includes('http-signature') && hasBody && firstOf(passed, 'content-digest') === undefined)
    throw new Fault('digest_required', 'a request with a body is signed with the digest of its body', {
      action:
        'Send Content-Digest (RFC 9530): the agent does not see the body of a request that a proxy sends.',
    })
  return { passed, signing: { names: signedBy(decision), digest: undefined } }
}

function unlisted(name: string, decision: Decision): Fault {
  const at = decision.allowed ? ` at ${placeText(decision.rule)}` : ''
  return new Fault('policy_denied', `the grant does not let callers have ${name} signed`, {
    owner: 'application',
    action: `Add ${name} to signed_headers${at}.`,
  })
}
