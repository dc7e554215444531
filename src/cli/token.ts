/** `holdfast token inspect`: what a token says, to what key it is bound and how long it lives; never the token. */
import type { Seconds } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import { type Jws, parseJws } from '../spiffe/jws.ts'
import type { Shown } from './agent.ts'
import { EXIT, type ExitCode, type Io } from './io.ts'
import { readToken } from './proof.ts'
import { instant, json, relative, table } from './render.ts'

export interface InspectOptions extends Shown {
  /** Where the token is; standard input when absent. */
  readonly file?: string
}

/** Reads one JWT and believes nothing of it: the signature is for the resource server to check. */
export async function inspectToken(options: InspectOptions, io: Io): Promise<ExitCode> {
  const jws = parseJws(await readToken(options.file ?? '-', io))
  if (!jws) {
    throw new Fault('usage', 'the token is no JWT: only its authorization server can say what it is', {
      action: 'Ask the introspection endpoint of its authorization server (RFC 7662).',
    })
  }
  const { header, payload } = jws
  const binding = bindingOf(payload)
  const expired = isExpired(payload['exp'], io.now())
  if (options.output === 'json') io.out(json({ header, claims: payload, binding, expired, verified: false }))
  else
    io.out(
      `${headText(jws)}\n\n${table(['claim', 'value'], rowsOf(payload, binding, io.now()), io.isColored)}`,
    )
  return EXIT.ok
}

/** How a token is bound (RFC 7800): to a DPoP key, a certificate, or to nothing. */
interface TokenBinding {
  readonly jkt?: string
  readonly x5t?: string
}

function bindingOf({ cnf }: Jws['payload']): TokenBinding {
  if (typeof cnf !== 'object' || cnf === null) return {}
  const { jkt, 'x5t#S256': x5t } = cnf as Readonly<Record<string, unknown>>
  return { ...(typeof jkt === 'string' ? { jkt } : {}), ...(typeof x5t === 'string' ? { x5t } : {}) }
}

function bindingText({ jkt, x5t }: TokenBinding): string {
  const texts = [
    ...(jkt === undefined ? [] : [`DPoP key ${jkt} (jkt): of use only with a proof by it`]),
    ...(x5t === undefined ? [] : [`certificate ${x5t} (x5t#S256): of use only over TLS with it`]),
  ]
  return texts.join('; ') || 'none that is known: whoever holds it may use it'
}

function headText({ header }: Jws): string {
  return `JWT of type ${textOf(header['typ'] ?? 'none')}, alg ${textOf(header['alg'])}; its signature was not checked`
}

const TIMES: ReadonlySet<string> = new Set(['iat', 'nbf', 'exp'])

function rowsOf(
  payload: Jws['payload'],
  binding: TokenBinding,
  now: Seconds,
): readonly (readonly string[])[] {
  const claims = Object.entries(payload).filter(([name]) => name !== 'cnf' && !TIMES.has(name))
  return [
    ...claims.map(([name, value]) => [name, textOf(value)]),
    ['binding', bindingText(binding)],
    ...['iat', 'nbf'].filter((name) => name in payload).map((name) => [name, timeText(payload[name], now)]),
    ['exp', expiryText(payload['exp'], now)],
  ]
}

function textOf(value: unknown): string {
  return typeof value === 'string' ? value : (JSON.stringify(value) ?? '')
}

const LAST_INSTANT: Seconds = 253_402_300_799

function isTime(value: unknown): value is Seconds {
  return typeof value === 'number' && value >= 0 && value <= LAST_INSTANT
}

function timeText(value: unknown, now: Seconds): string {
  return isTime(value) ? `${instant(value)}, ${relative(value, now)}` : `${textOf(value)}: no time`
}

function expiryText(value: unknown, now: Seconds): string {
  if (value === undefined) return 'never: a token without exp'
  return `${isExpired(value, now) ? 'expired: ' : ''}${timeText(value, now)}`
}

function isExpired(exp: unknown, now: Seconds): boolean {
  return isTime(exp) && exp <= now
}
