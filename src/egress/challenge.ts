/** What a target says of nonces: the challenge that asks for one, and the nonce itself (RFC 9449 s.8.1, s.9). */
import { type RawHeaders, valuesOf } from './headers.ts'

const UNAUTHORIZED = 401
// RFC 9449 s.8.1: NQCHAR; longer ones than any server's are not kept.
const NONCE = /^[\x21\x23-\x5b\x5d-\x7e]{1,256}$/
const CHALLENGES_LIMIT = 4096

/** The nonce of an answer: exactly one field of that name with one value, else none. */
export function nonceIn(raw: RawHeaders, name = 'dpop-nonce'): string | undefined {
  const [nonce, ...more] = valuesOf(raw, name)
  return nonce !== undefined && more.length === 0 && NONCE.test(nonce) ? nonce : undefined
}

/** Whether the answer asks for the same request with a nonce: 401 and `DPoP error="use_dpop_nonce"`. */
export function wantsNonce(status: number, raw: RawHeaders): boolean {
  return status === UNAUTHORIZED && errorsOf(raw, 'dpop').includes('use_dpop_nonce')
}

/** Whether the target refuses the token itself (RFC 6750 s.3.1), whatever its end says; `scheme` is how it was shown. */
export function refusesToken(status: number, raw: RawHeaders, scheme: 'dpop' | 'bearer' = 'dpop'): boolean {
  return status === UNAUTHORIZED && errorsOf(raw, scheme).includes('invalid_token')
}

function errorsOf(raw: RawHeaders, wanted: string): readonly string[] {
  return valuesOf(raw, 'www-authenticate').flatMap((value) =>
    errorsIn(value.slice(0, CHALLENGES_LIMIT), wanted),
  )
}

// One item of a list of challenges (RFC 9110 s.11.6.1): a scheme, a parameter, or a scheme with its first parameter.
const ITEM =
  /(?:([A-Za-z0-9!#$%&'*+.^_`|~-]+)(?:[ \t]+(?=[^\s=,])|[ \t]*(?=,|$)))?(?:([A-Za-z_]+)[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*)"|([^\s",]*)))?/y

/** The `error` parameters of the challenges of one scheme in one field value. */
function errorsIn(value: string, wanted: string): readonly string[] {
  const errors: string[] = []
  let scheme = ''
  for (let at = 0; at < value.length; at += 1) {
    ITEM.lastIndex = skip(value, at)
    const match = ITEM.exec(value)
    if (match?.[1]) scheme = match[1].toLowerCase()
    if (scheme === wanted && match?.[2] === 'error') errors.push(match[3] ?? match[4] ?? '')
    at = commaAfter(value, Math.max(at, ITEM.lastIndex))
  }
  return errors
}

function skip(value: string, at: number): number {
  let next = at
  while (next < value.length && /[\s,]/.test(value.charAt(next))) next += 1
  return next
}

function commaAfter(value: string, at: number): number {
  const comma = value.indexOf(',', at)
  return comma < 0 ? value.length : comma
}
