/** `holdfast verify`: a captured request, check by check: what it says, what is wanted; never its token or proof. */
import { createPublicKey, type KeyObject } from 'node:crypto'
import type { Seconds } from '../base/clock.ts'
import { Fault, printable } from '../base/fault.ts'
import { parseJsonObject } from '../base/json.ts'
import { confirmationIn } from '../ingress/confirmation.ts'
import { credentialsIn, valuesOf } from '../ingress/inbound.ts'
import { canonicalUrl } from '../proof/target.ts'
import { isJwsAlg, type Jws, parseJws, verifyJws } from '../spiffe/jws.ts'
import type { Shown } from './agent.ts'
import { EXIT, type ExitCode, type Io } from './io.ts'
import { instant, json, parseSpan, type Tint, tinted } from './render.ts'
import { readTextFile } from './text-file.ts'
import { type Capture, parseCapture } from './verify-capture.ts'
import { type ProofFacts, proofSteps, type Step, verifierSays } from './verify-proof.ts'

export interface VerifyOptions extends Shown {
  readonly request: string
  /** The public URL, where it is not that of Host. */
  readonly url?: string
  readonly jwks?: string
  /** When it was captured. */
  readonly at?: string
  readonly window: string
}

const SKEW: Seconds = 5

/** The code is 1 when a check fails. Nothing is sent. */
export async function verifyCapture(options: VerifyOptions, io: Io): Promise<ExitCode> {
  const text = options.request === '-' ? await io.input() : contentOf(options.request)
  const capture = parseCapture(options.request, text)
  const { token, scheme } = credentialsOf(capture)
  const jws = token === undefined ? undefined : parseJws(token)
  const facts: ProofFacts = {
    method: capture.method,
    htu: urlOf(capture, options.url),
    token,
    boundTo: jws && bindingOf(jws),
    now: options.at === undefined ? io.now() : instantOf(options.at),
    window: parseSpan('--window', options.window),
    skew: SKEW,
  }
  const proof = proofSteps(capture.headers, facts)
  const keys = options.jwks === undefined ? undefined : keysIn(options.jwks, contentOf(options.jwks))
  const access = tokenSteps({ scheme, token, jws, keys, now: facts.now })
  const said = verifierSays(capture.headers, facts)
  const passed = [...proof, ...access].every(({ verdict }) => verdict !== 'wrong') && !said
  if (options.output === 'json')
    io.out(json({ passed, url: facts.htu, proof, token: access, ...(said ? { verifier: said } : {}) }))
  else io.out(explained({ facts, proof, access, said, passed }, io.isColored))
  return passed ? EXIT.ok : EXIT.failed
}

/** One that sends two of a kind is read as far as it goes: a check says so. */
function credentialsOf({ headers }: Capture) {
  try {
    return credentialsIn(headers)
  } catch {
    const [first = ''] = valuesOf(headers, 'authorization')
    const [name = '', token] = first.split(/ +/)
    return { scheme: name.toLowerCase() === 'dpop' ? ('dpop' as const) : undefined, token }
  }
}

/** The public URL that proofs are compared with; Host is what a caller chose, so `url` is better. */
function urlOf({ target, headers }: Capture, url: string | undefined): string {
  const [host = ''] = valuesOf(headers, 'host')
  const whole = url ?? (/^https?:\/\//i.test(target) ? target : `https://${host}${target}`)
  const end = whole.search(/[?#]/)
  return canonicalUrl(end < 0 ? whole : whole.slice(0, end)).htu
}

function bindingOf({ payload }: Jws): string | undefined {
  try {
    return confirmationIn(payload).jkt
  } catch {
    return undefined
  }
}

interface TokenFacts {
  readonly scheme: 'dpop' | 'bearer' | undefined
  readonly token: string | undefined
  readonly jws: Jws | undefined
  readonly keys: ReadonlyMap<string, KeyObject> | undefined
  readonly now: Seconds
}

function tokenSteps({ scheme, token, jws, keys, now }: TokenFacts): readonly Step[] {
  if (token === undefined)
    return [{ check: 'token', verdict: 'wrong', seen: 'no access token', wanted: 'Authorization: DPoP' }]
  const scheming: Step = {
    check: 'scheme',
    verdict: scheme === 'dpop' ? 'ok' : 'wrong',
    seen: scheme === 'bearer' ? 'Bearer' : scheme === 'dpop' ? 'DPoP' : 'another',
    wanted: 'DPoP: a bound token as Bearer is refused (s.7.2)',
  }
  if (!jws)
    return [
      scheming,
      { check: 'token', verdict: 'unknown', seen: 'opaque', wanted: 'its server says (RFC 7662)' },
    ]
  return [scheming, boundStep(jws), ...timeSteps(jws, now), signatureStep(jws, keys)]
}

function boundStep(jws: Jws): Step {
  const jkt = bindingOf(jws)
  const verdict = jkt === undefined ? 'wrong' : 'ok'
  return { check: 'cnf', verdict, seen: jkt ?? 'no jkt', wanted: 'the thumbprint of a key' }
}

function timeSteps({ payload: { exp, nbf } }: Jws, now: Seconds): readonly Step[] {
  const isExp = typeof exp === 'number' && Number.isFinite(exp) && Math.abs(exp) < LAST
  const ends: Step = {
    check: 'exp',
    verdict: isExp && exp > now - SKEW ? 'ok' : 'wrong',
    seen: isExp ? instant(exp) : 'none',
    wanted: `after ${instant(now)}`,
  }
  if (nbf === undefined) return [ends]
  const isNbf = typeof nbf === 'number' && nbf <= now + SKEW
  return [
    ends,
    { check: 'nbf', verdict: isNbf ? 'ok' : 'wrong', seen: isNbf ? 'begun' : 'not begun', wanted: 'begun' },
  ]
}

const LAST = 253_402_300_799

function signatureStep(jws: Jws, keys: ReadonlyMap<string, KeyObject> | undefined): Step {
  const check = 'signature of the token'
  if (!keys)
    return {
      check,
      verdict: 'unknown',
      seen: 'not checked',
      wanted: 'give the keys of its server (--jwks FILE)',
    }
  const { alg, kid } = jws.header
  const key = typeof kid === 'string' ? keys.get(kid) : undefined
  const isBy = key !== undefined && isJwsAlg(alg) && verifyJws(jws, key, alg)
  const seen =
    key === undefined ? 'it names no key of the file' : isBy ? 'by a key of the file' : 'not by its key'
  return { check, verdict: isBy ? 'ok' : 'wrong', seen, wanted: 'by a key of the file' }
}

const JWKS = { maxBytes: 1024 * 1024, maxDepth: 8 }

function keysIn(file: string, text: string): ReadonlyMap<string, KeyObject> {
  try {
    const { keys } = parseJsonObject(text, JWKS)
    if (Array.isArray(keys)) return new Map(keys.flatMap(keyOf))
  } catch {
    // Said below.
  }
  throw new Fault('usage', `${file}: is no JWK Set`, { action: 'Fetch the jwks_uri of the server.' })
}

function keyOf(jwk: unknown): readonly (readonly [string, KeyObject])[] {
  if (typeof jwk !== 'object' || jwk === null || !('kid' in jwk) || typeof jwk.kid !== 'string') return []
  try {
    return [[jwk.kid, createPublicKey({ key: jwk as Record<string, unknown>, format: 'jwk' })]]
  } catch {
    return []
  }
}

interface Explained {
  readonly facts: ProofFacts
  readonly proof: readonly Step[]
  readonly access: readonly Step[]
  readonly said: Fault | undefined
  readonly passed: boolean
}

const MARKS: Readonly<Record<Step['verdict'], readonly [string, Tint]>> = {
  ok: ['✓', 'green'],
  wrong: ['✗', 'red'],
  unknown: ['-', 'dim'],
}

function explained({ facts, proof, access, said, passed }: Explained, isColored: boolean): string {
  const group = (name: string, steps: readonly Step[]) =>
    `${tinted(name, 'bold', isColored)}\n${steps.map((each) => stepText(each, isColored)).join('')}\n`
  const head = `${printable(`${facts.method} ${facts.htu}`)}\n\n`
  const verdict = passed
    ? tinted(
        'nothing is wrong with it; whether it was used before, only its verifier knows',
        'green',
        isColored,
      )
    : tinted(said ? `refused: ${said.reason}: ${said.message}` : 'refused', 'red', isColored)
  const action = said ? `do: ${printable(said.action)}\n` : ''
  return `${head}${group('proof (RFC 9449 s.4.3)', proof)}${group('access token', access)}${verdict}\n${action}`
}

function stepText({ check, verdict, seen, wanted }: Step, isColored: boolean): string {
  const [mark, tint] = MARKS[verdict]
  const rest = verdict === 'ok' || wanted === '' ? '' : `; wanted: ${wanted}`
  return `  ${tinted(mark, tint, isColored)} ${printable(`${check}: ${seen}${rest}`)}\n`
}

function instantOf(text: string): Seconds {
  const millis = /^\d{4}-\d\d-\d\dT/.test(text) ? Date.parse(text) : Number.NaN
  if (!Number.isNaN(millis)) return Math.floor(millis / 1000)
  throw new Fault('usage', `--at is ${JSON.stringify(text)}, wanted a time such as 2030-01-31T09:30:00Z`)
}

const FILE_LIMIT = 1024 * 1024

function contentOf(file: string): string {
  return readTextFile(file, FILE_LIMIT, 'Name a file that this user may read, or - for standard input.')
}
