/**
 * The HTTP message signature of one request with the WIT of its key (draft-ietf-wimse-http-signature): over what leaves,
 * the agent's own headers among it, and of the caller's only what the profile or the grant names.
 */
import { Fault } from '../base/fault.ts'
import { fieldValues } from '../proof/http-message.ts'
import { makeWimseSignature, WIMSE_FIELDS } from '../proof/wimse-signature.ts'
import { witOff } from './bind-wpt.ts'
import { type BindAsk, type BindOptions, type Carried, type Part, signerFor } from './bound.ts'
import type { Injected } from './headers.ts'

const PRINTABLE = /^[\t -~]*$/

/** Throws unimplemented, header_refused, revoked, keys_exhausted, key_lost. */
export function bindSignature(options: BindOptions, ask: BindAsk, { headers: before }: Carried): Part {
  const { heldWit, clock } = options
  if (!heldWit) throw witOff('HTTP message signatures')
  const { method, url, query, passed, signing } = ask
  for (const name of [...WIMSE_FIELDS, ...signing.names]) checkValue(name, fieldValues(passed, name))
  const signer = signerFor(options, ask, 'httpsig')
  const digest: Injected = signing.digest === undefined ? [] : [['Content-Digest', signing.digest]]
  const mine: Injected = [...digest, ['Workload-Identity-Token', heldWit(ask.entry, signer)]]
  const { scheme, origin, path, htu } = url
  const made = makeWimseSignature(
    signer,
    {
      method,
      scheme,
      authority: origin.slice(`${scheme}://`.length),
      path,
      query,
      headers: [...passed, ...before.flat(), ...mine.flat()],
    },
    { aud: htu, extra: [...before.map(([name]) => name.toLowerCase()), ...signing.names] },
    clock,
  )
  return {
    headers: [...mine, ['Signature-Input', made.input], ['Signature', made.signature]],
    expires: made.expires,
    jkt: signer.jkt,
    jti: made.nonce,
  }
}

/** RFC 9421 s.7.5.6: what two lines of a field mean is not the same to every server. */
function checkValue(name: string, values: readonly string[]): void {
  if (values.length > 1) throw new Fault('header_refused', `${name} is there twice, and is to be signed`)
  if (values.some((value) => !PRINTABLE.test(value)))
    throw new Fault('header_refused', `${name} has a character that cannot be signed`)
}
