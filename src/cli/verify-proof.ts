/** The twelve checks of one DPoP proof (RFC 9449 s.4.3), each with what was seen and what is wanted. */
import type { Seconds } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import { type RawHeaders, valuesOf } from '../ingress/inbound.ts'
import { DpopChecker } from '../proof/dpop-check.ts'
import { hashOf } from '../proof/jwt.ts'
import { canonicalUrl } from '../proof/target.ts'
import { importPublicJwk, publicJwkOf, thumbprint } from '../spiffe/jwk.ts'
import { isFit, isJwsAlg, type Jws, type JwsAlg, parseJws, verifyJws } from '../spiffe/jws.ts'

/** One check. `unknown`: it cannot be told from the request alone. */
export interface Step {
  readonly check: string
  readonly verdict: 'ok' | 'wrong' | 'unknown'
  readonly seen: string
  readonly wanted: string
}

export interface ProofFacts {
  readonly method: string
  readonly htu: string
  readonly token: string | undefined
  /** `cnf.jkt` of the token; undefined where the token does not show it. */
  readonly boundTo: string | undefined
  readonly now: Seconds
  readonly window: Seconds
  readonly skew: Seconds
}

const ALGS: ReadonlySet<JwsAlg> = new Set(['ES256', 'ES384', 'ES512', 'PS256', 'PS384', 'PS512', 'RS256'])
const PRIVATE = ['d', 'p', 'q', 'dp', 'dq', 'qi', 'oth', 'k']
const SHOWN = 16

/** All twelve, in the order of the standard. */
export function proofSteps(headers: RawHeaders, facts: ProofFacts): readonly Step[] {
  const values = valuesOf(headers, 'dpop')
  const [proof = ''] = values
  const jws = parseJws(proof)
  const one = step('1 one DPoP header', values.length === 1, String(values.length), '1')
  const formed = step(
    '2 a well-formed JWT',
    jws !== undefined,
    jws ? 'a compact JWS' : 'something else',
    'one',
  )
  if (!jws) return [one, formed, ...LATER.map(untold)]
  return [one, formed, ...headerSteps(jws), ...claimSteps(jws, facts)].sort(byNumber)
}

/** What the verifier itself would say of the proof; undefined when it takes it. */
export function verifierSays(headers: RawHeaders, facts: ProofFacts): Fault | undefined {
  const { method, htu, token, now, window, skew } = facts
  const [proof = ''] = valuesOf(headers, 'dpop')
  const ath = token === undefined ? undefined : hashOf(token)
  try {
    new DpopChecker().check(proof, { method, urls: [htu], ath, now, window, skew, algs: ALGS })
    return undefined
  } catch (error) {
    return Fault.from(error)
  }
}

function byNumber(one: Step, other: Step): number {
  return Number.parseInt(one.check, 10) - Number.parseInt(other.check, 10)
}

const LATER = [
  '3 the claims it must have',
  '4 typ',
  '5 alg',
  '6 signature',
  '7 no private key in jwk',
  '8 htm',
  '9 htu',
  '10 nonce',
  '11 iat',
  '12 ath and key of the token',
]

function untold(check: string): Step {
  return { check, verdict: 'unknown', seen: 'not readable', wanted: '' }
}

function step(check: string, isOk: boolean, seen: string, wanted: string): Step {
  return { check, verdict: isOk ? 'ok' : 'wrong', seen, wanted }
}

function headerSteps(jws: Jws): readonly Step[] {
  const { typ, alg, jwk } = jws.header
  const members = typeof jwk === 'object' && jwk !== null ? (jwk as Readonly<Record<string, unknown>>) : {}
  const shown = PRIVATE.filter((name) => name in members)
  // A private member is another check's matter: the signature is checked with the public half.
  const open = Object.fromEntries(Object.entries(members).filter(([name]) => !PRIVATE.includes(name)))
  const key = importPublicJwk(open)
  const isTaken = isJwsAlg(alg) && ALGS.has(alg)
  const isSigned = key !== undefined && isJwsAlg(alg) && isFit(key, alg) && verifyJws(jws, key, alg)
  return [
    step('4 typ', typ === 'dpop+jwt', wordOf(typ), 'dpop+jwt'),
    step('5 alg', isTaken, wordOf(alg), [...ALGS].join(', ')),
    step(
      '6 signature',
      isSigned,
      isSigned ? 'by the key in jwk' : 'not by the key in jwk',
      'by the key in jwk',
    ),
    step(
      '7 no private key in jwk',
      key !== undefined && shown.length === 0,
      jwkText(key !== undefined, shown),
      'a public key',
    ),
  ]
}

function jwkText(isKey: boolean, shown: readonly string[]): string {
  if (shown.length > 0) return `private members: ${shown.join(', ')}`
  return isKey ? 'a public key' : 'no key that is known here'
}

function claimSteps(jws: Jws, facts: ProofFacts): readonly Step[] {
  const { jti, htm, htu, iat, nonce } = jws.payload
  const { method, htu: url, token } = facts
  const wanted = ['jti', 'htm', 'htu', 'iat', ...(token === undefined ? [] : ['ath'])]
  const missing = wanted.filter((name) => jws.payload[name] === undefined)
  const seenUrl = urlText(htu)
  return [
    step(
      '3 the claims it must have',
      missing.length === 0 && typeof jti === 'string',
      missing.length === 0 ? 'all' : `missing: ${missing.join(', ')}`,
      wanted.join(', '),
    ),
    step('8 htm', htm === method, wordOf(htm), method),
    step('9 htu', seenUrl === url, seenUrl, url),
    nonceStep(nonce),
    timeStep(iat, facts),
    tokenStep(jws, facts),
  ]
}

function nonceStep(nonce: unknown): Step {
  const seen = nonce === undefined ? 'none' : 'there is one'
  return {
    check: '10 nonce',
    verdict: 'unknown',
    seen,
    wanted: 'one that the server gave and still takes, if it gave any: only the server can tell',
  }
}

function timeStep(iat: unknown, { now, window, skew }: ProofFacts): Step {
  const wanted = `at most ${window} s old, at most ${skew} s ahead`
  if (typeof iat !== 'number' || !Number.isFinite(iat)) return step('11 iat', false, 'no time', wanted)
  const age = Math.round(now - iat)
  const seen = age >= 0 ? `${age} s old` : `${-age} s ahead`
  return step('11 iat', iat <= now + skew && iat > now - window - skew, seen, wanted)
}

function tokenStep(jws: Jws, { token, boundTo }: ProofFacts): Step {
  const check = '12 ath and key of the token'
  if (token === undefined)
    return { check, verdict: 'unknown', seen: 'no token came along', wanted: 'ath with a token' }
  const ath = hashOf(token)
  if (jws.payload['ath'] !== ath) {
    const seen = typeof jws.payload['ath'] === 'string' ? beginning(jws.payload['ath']) : 'no ath'
    return step(check, false, `ath ${seen}`, `ath ${beginning(ath)}, the hash of the token`)
  }
  const jkt = jktOf(jws)
  if (boundTo === undefined)
    return {
      check,
      verdict: 'unknown',
      seen: `ath fits; the key is ${jkt}`,
      wanted: 'cnf.jkt, which the token does not show',
    }
  return step(check, jkt === boundTo, `ath fits; the key is ${jkt}`, `the key ${boundTo} of the token`)
}

function jktOf({ header: { jwk } }: Jws): string {
  const { kty, crv, x, y, n, e } = (typeof jwk === 'object' && jwk !== null ? jwk : {}) as Record<
    string,
    unknown
  >
  const key = importPublicJwk({ kty, crv, x, y, n, e })
  return key ? thumbprint(publicJwkOf(key)) : 'none'
}

function beginning(text: string): string {
  return /^[A-Za-z0-9_-]{16,64}$/.test(text) ? `${text.slice(0, SHOWN)}…` : 'of another form'
}

/** A short word of the proof; everything else could be a secret in the wrong place. */
function wordOf(value: unknown): string {
  if (value === undefined) return 'none'
  return typeof value === 'string' && /^[A-Za-z0-9+/.-]{1,32}$/.test(value) ? value : 'of another form'
}

/** Without its query, which may hold secrets. */
function urlText(htu: unknown): string {
  if (typeof htu !== 'string') return 'none'
  const end = htu.search(/[?#]/)
  try {
    return canonicalUrl(end < 0 ? htu : htu.slice(0, end)).htu
  } catch {
    return 'no canonical URL'
  }
}
