/**
 * The WIMSE profile of HTTP message signatures (draft-ietf-wimse-http-signature-08 s.3): a request signed with the key
 * of its WIT, for one recipient.
 */
import { type Clock, nowSeconds, type Seconds } from '../base/clock.ts'
import { component, hasField } from './components.ts'
import type { SignedRequest } from './http-message.ts'
import { makeSignature, type SignatureFields } from './httpsig.ts'
import type { SignatureRules } from './httpsig-verify.ts'
import { newJti } from './jwt.ts'
import type { Signer } from './signer.ts'

export const WIMSE_TAG = 'wimse-workload-to-workload'

/** Long enough for clocks that differ a little, short enough to be worth nothing in a log. */
const LIFETIME: Seconds = 60
const DERIVED = ['@method', '@path', '@query']
/** Fields that are covered wherever they are sent. */
export const WIMSE_FIELDS: readonly string[] = [
  'content-type',
  'content-digest',
  'authorization',
  'txn-token',
  'workload-identity-token',
]

export interface WimseSignature extends SignatureFields {
  readonly nonce: string
  readonly expires: Seconds
}

export interface WimseWish {
  /** The recipient: the target URI without its query, unless recipients know themselves by another name. */
  readonly aud: string
  /** Lower-case names of further fields to cover, where the request has them. */
  readonly extra: readonly string[]
}

/** Signs a request that has its WIT among its headers; throws key_lost, and invalid_request for a value that cannot be signed. */
export function makeWimseSignature(
  signer: Signer,
  request: SignedRequest,
  { aud, extra }: WimseWish,
  clock: Clock,
): WimseSignature {
  const created = nowSeconds(clock)
  const expires = created + LIFETIME
  const nonce = newJti()
  const fields = [...new Set([...WIMSE_FIELDS, ...extra])].filter((name) => hasField(request, name))
  const fieldsMade = makeSignature(signer, request, {
    label: 'wimse',
    components: [...DERIVED, ...fields].map((name) => component(name)),
    parameters: { created, expires, nonce, tag: WIMSE_TAG, 'wimse-aud': aud },
  })
  return { ...fieldsMade, nonce, expires }
}

/** What a recipient demands of such a signature; that `wimse-aud` means it is for the recipient to check. */
export const WIMSE_RULES: SignatureRules = {
  covers: [...DERIVED, 'workload-identity-token'].map((name) => `"${name}"`),
  coversPresent: WIMSE_FIELDS,
  requires: ['created', 'expires', 'nonce', 'tag', 'wimse-aud'],
  // The WIT names key and algorithm.
  refuses: ['keyid', 'alg'],
  maxAge: 300,
  skew: 30,
}
