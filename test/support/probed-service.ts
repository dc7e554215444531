/** A service that verifies what comes in, over TLS, with tokens of a real server; or that has one flaw. */
import { generateKeyPairSync } from 'node:crypto'
import { appendFileSync, chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import type { IncomingHttpHeaders, IncomingMessage, ServerResponse } from 'node:http'
import { createServer, request } from 'node:https'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type Clock, nowSeconds, systemClock } from '../../src/base/clock.ts'
import { Fault, type Reason } from '../../src/base/fault.ts'
import { Bearers } from '../../src/ingress/bearer.ts'
import type { VerifyOptions } from '../../src/ingress/checking.ts'
import { KeySets } from '../../src/ingress/key-sets.ts'
import { ServerNonces } from '../../src/ingress/nonces.ts'
import { MemoryReplayStore } from '../../src/ingress/replay-memory.ts'
import { verifyRequest } from '../../src/ingress/verify.ts'
import type { RuleBook } from '../../src/policy/book.ts'
import { type LabKey, readLabKey } from '../../src/probe/key.ts'
import { tokenMark } from '../../src/probe/records.ts'
import { DpopChecker } from '../../src/proof/dpop-check.ts'
import { newJti } from '../../src/proof/jwt.ts'
import { STATUS } from '../../src/serve/status.ts'
import { parseJws } from '../../src/spiffe/jws.ts'
import { startIssuer, type TestIssuer } from './issuer.ts'
import { bookOf, LAYERS } from './policy.ts'
import { makeTestCa, type TestCa } from './tls.ts'

/** What is wrong with a service; each is a mistake that somebody has made. */
export type Flaw =
  | 'drops_proof'
  | 'skips_ath'
  | 'ignores_method'
  | 'trusts_forwarded_host'
  | 'believes_user'
  | 'believes_xfcc'
  | 'no_replay_store'
  | 'takes_bearer'
  | 'cookie'
  | 'cache'
  | 'no_revocation'
  | 'any_audience'
  | 'any_nonce'
  | 'ignores_url'
  | 'any_key'
  | 'unsigned'
  | 'any_alg'
  | 'private_jwk'
  | 'any_future'
  | 'any_past'
  | 'first_proof'
  | 'last_proof'
  | 'no_proof'
  | 'no_token'
  | 'no_end'
  | 'knows_users'
  | 'knows_certificates'
  | 'believes_claims'
  | 'odd_cookie'
  | 'huge_cookie'
  | 'locks_out'
  | 'busy_once'
  | 'knows_host'

/** Refusals that a flawed service does not carry out. */
const FORGIVEN: Partial<Record<Flaw, readonly Reason[]>> = {
  drops_proof: [
    'proof_missing',
    'proof_malformed',
    'proof_forged',
    'proof_method',
    'proof_url',
    'proof_token',
    'proof_time',
    'proof_replayed',
    'proof_repeated',
    'replay_floor',
    'token_stolen',
  ],
  skips_ath: ['proof_token'],
  ignores_method: ['proof_method'],
  no_replay_store: ['proof_replayed'],
  takes_bearer: ['token_downgraded'],
  no_revocation: ['token_revoked'],
  any_audience: ['token_audience'],
  ignores_url: ['proof_url'],
  any_key: ['token_stolen'],
  unsigned: ['proof_forged'],
  no_proof: ['proof_missing'],
  no_token: ['token_missing'],
  no_end: ['token_expired'],
}

type ProofParts = NonNullable<ReturnType<typeof parseJws>>

/** What of a proof a flaw takes, whatever the verifier says of it. */
const TAKEN: Partial<Record<Flaw, (proof: ProofParts | undefined, text: string) => boolean>> = {
  any_alg: (_proof, text) => text.endsWith('.'),
  private_jwk: (proof) => Object.hasOwn((proof?.header['jwk'] as object | undefined) ?? {}, 'd'),
  any_future: (proof) => Number(proof?.payload['iat']) > Date.now() / 1000 + 300,
  any_past: (proof) => Number(proof?.payload['iat']) < Date.now() / 1000 - 3_000,
  any_nonce: (proof) => proof?.payload['nonce'] !== undefined,
}
const ABOUT: Partial<Record<Flaw, readonly Reason[]>> = {
  any_alg: ['proof_malformed'],
  private_jwk: ['proof_malformed'],
  any_future: ['proof_time'],
  any_past: ['proof_time'],
  any_nonce: ['proof_nonce'],
}

/** Headers as a service reads them that looks at one DPoP header of two. */
function read(flaws: readonly Flaw[], raw: readonly string[]): readonly string[] {
  const at = raw.flatMap((name, index) => (index % 2 === 0 && name.toLowerCase() === 'dpop' ? [index] : []))
  const kept = flaws.includes('first_proof') ? at[0] : flaws.includes('last_proof') ? at.at(-1) : undefined
  if (kept === undefined) return raw
  return raw.filter((_value, index) => {
    const line = index - (index % 2)
    return line === kept || !at.includes(line)
  })
}

/** Whether a service with these flaws lets the request in for what somebody wrote into it. */
export function believes(flaws: readonly Flaw[], headers: IncomingHttpHeaders): boolean {
  const has = (flaw: Flaw) => flaws.includes(flaw)
  return (
    (has('believes_user') && headers['x-forwarded-user'] !== undefined) ||
    (has('believes_xfcc') && headers['x-forwarded-client-cert'] !== undefined) ||
    (has('knows_users') && headers['x-forwarded-user'] === 'web') ||
    (has('knows_certificates') && String(headers['x-forwarded-client-cert']).includes('Subject="CN=web"')) ||
    (has('believes_claims') && headers['x-holdfast-caller'] !== undefined) ||
    ((has('cookie') || has('odd_cookie')) && headers.cookie?.includes('session=') === true)
  )
}

/** Whether a service with these flaws lets a request in that has to be refused for `reason`. */
export function forgives(flaws: readonly Flaw[], reason: Reason, headers: IncomingHttpHeaders): boolean {
  if (flaws.some((flaw) => FORGIVEN[flaw]?.includes(reason))) return true
  const text = String(headers['dpop'])
  const takes = (flaw: Flaw) =>
    ABOUT[flaw]?.includes(reason) === true && TAKEN[flaw]?.(parseJws(text), text) === true
  if (flaws.some(takes)) return true
  if (reason !== 'proof_url' || !flaws.includes('trusts_forwarded_host')) return false
  const htu = parseJws(String(headers['dpop']))?.payload['htu']
  const host = headers['x-forwarded-host']
  return typeof htu === 'string' && typeof host === 'string' && htu.startsWith(`https://${host}/`)
}

/** A clock that a test moves on, and that otherwise goes. */
export interface ShiftedClock extends Clock {
  advance(ms: number): void
  /** Back to the system's time, which servers of tokens have. */
  reset(): void
}

export function shiftedClock(): ShiftedClock {
  let shift = 0
  return {
    now: () => systemClock.now() + shift,
    monotonic: () => systemClock.monotonic() + shift,
    after: systemClock.after,
    advance: (ms) => {
      shift += ms
    },
    reset: () => {
      shift = 0
    },
  }
}

export interface ServiceOptions {
  readonly rig: ProbeRig
  readonly flaws?: readonly Flaw[]
  readonly nonce?: 'required'
  readonly maxTtl?: string
  /** Where the public URL is, when that is not the service itself. */
  readonly publicOrigin?: string
  /** Headers of every answer, raw. */
  readonly says?: readonly string[]
}

export interface ProbedService extends AsyncDisposable {
  readonly origin: string
  readonly auditFile: string
  /** `jti` of tokens that were revoked. */
  readonly revoked: Set<unknown>
  /** `jkt` of keys that were revoked. */
  revokedKeys: () => ReadonlySet<unknown>
}

/** A name, and the address that it has. */
export interface ProbePlace {
  readonly name: string
  readonly address: string
}

/** The server of tokens, a CA and a clock that several services of one test share. */
export interface ProbeRig extends AsyncDisposable {
  /** Where the server is, and the services. */
  readonly at: ProbePlace
  readonly ca: TestCa
  readonly clock: ShiftedClock
  readonly issuer: TestIssuer
  readonly dir: string
  /** The key of the client `web` at the server, in PEM. */
  readonly clientKeyFile: string
  file(name: string, text: string): string
  /** A real token for `resource`, bound to `key`. */
  token(key: LabKey, resource?: string): Promise<string>
}

export const AUDIENCE = 'https://api.example.org'
export const OTHER_AUDIENCE = 'https://other.example.org'

const LOOPBACK: ProbePlace = { name: 'localhost', address: '127.0.0.1' }

export async function openProbeRig(ttlSeconds = 120, nonces = false, at = LOOPBACK): Promise<ProbeRig> {
  const ca = makeTestCa()
  const clock = shiftedClock()
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const pem = String(privateKey.export({ format: 'pem', type: 'pkcs8' }))
  const client = readLabKey('client.pem', pem)
  const resource = { scopes: ['read'], ttlSeconds }
  const issuer = await startIssuer({
    ca,
    at,
    nonces,
    clients: [{ clientId: 'web', jwks: [{ ...client.publicJwk, kid: client.jkt }], scopes: ['read'] }],
    resources: { [AUDIENCE]: resource, [OTHER_AUDIENCE]: resource },
  })
  const dir = mkdtempSync(join(tmpdir(), 'holdfast-probe-'))
  chmodSync(dir, 0o755)
  const clientKeyFile = join(dir, 'client.pem')
  writeFileSync(clientKeyFile, pem, { mode: 0o600 })
  return {
    at,
    ca,
    clock,
    issuer,
    dir,
    clientKeyFile,
    file: (name, text) => {
      writeFileSync(join(dir, name), text, { mode: 0o600 })
      return join(dir, name)
    },
    token: (key, audience = AUDIENCE) => requestToken({ ca, issuer, client, key, resource: audience }),
    [Symbol.asyncDispose]: async () => {
      await issuer.stop()
      rmSync(dir, { recursive: true, force: true })
    },
  }
}

export interface TokenRequest {
  readonly ca: TestCa
  readonly issuer: Pick<TestIssuer, 'issuer'>
  readonly client: LabKey
  readonly key: LabKey
  readonly resource: string
}

/** A real token of the client `web` with the scope `read`, bound to `key`. */
export async function requestToken({ ca, issuer, client, key, resource }: TokenRequest): Promise<string> {
  const iat = nowSeconds(systemClock)
  const url = `${issuer.issuer}/token`
  const claims = { iss: 'web', sub: 'web', aud: issuer.issuer, jti: newJti(), iat, exp: iat + 60 }
  const body = new URLSearchParams({
    grant_type: 'client_credentials',
    client_id: 'web',
    client_assertion_type: 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer',
    client_assertion: client.sign({ alg: 'ES256', typ: 'JWT' }, claims),
    scope: 'read',
    resource,
  })
  const proof = key.sign(
    { typ: 'dpop+jwt', alg: 'ES256', jwk: key.publicJwk },
    { jti: newJti(), htm: 'POST', htu: url, iat },
  )
  const headers = { 'content-type': 'application/x-www-form-urlencoded', dpop: proof }
  const answer = await fetched(url, ca, { method: 'POST', headers, body: body.toString() })
  const { access_token: token } = JSON.parse(answer) as { access_token?: string }
  if (token === undefined) throw new Error(`no token: ${answer}`)
  return token
}

interface Fetching {
  readonly method: string
  readonly headers: Readonly<Record<string, string>>
  readonly body: string
}

/** The body of an answer. */
export function fetched(url: string, ca: TestCa, { method, headers, body }: Fetching): Promise<string> {
  return new Promise((resolve, reject) => {
    const sent = request(url, { method, headers, ca: ca.pem, agent: false }, (response) => {
      let text = ''
      response.setEncoding('utf8')
      response.on('data', (chunk: string) => {
        text += chunk
      })
      response.on('end', () => resolve(text))
    })
    sent.on('error', reject)
    sent.end(body)
  })
}

/** Starts it; `await using` stops it. */
export async function startProbedService(options: ServiceOptions): Promise<ProbedService> {
  const { rig } = options
  rig.clock.reset()
  const { name, address: ip } = rig.at
  const server = createServer(rig.ca.serverFiles({ dns: name, ip }))
  await new Promise<void>((resolve) => server.listen(0, ip, resolve))
  const address = server.address()
  const port = typeof address === 'object' && address ? address.port : 0
  const origin = `https://${name}:${port}`
  const auditFile = rig.file(`audit-${port}.jsonl`, '')
  const denied = { revoked: new Set<unknown>(), revokedKeys: (): ReadonlySet<unknown> => new Set() }
  const book = await bookOf(policyOf(options, options.publicOrigin ?? origin), {
    now: () => nowSeconds(rig.clock),
  })
  const service = new Service(options, { verify: verifyOptions(rig, book, denied), book, auditFile })
  rig.clock.advance(2_000)
  server.on('request', (incoming, outgoing) => {
    service.answer(incoming, outgoing).catch(() => outgoing.destroy())
  })
  return Object.assign(denied, {
    origin,
    auditFile,
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections()
      await new Promise<void>((resolve) => server.close(() => resolve()))
    },
  })
}

function verifyOptions(
  rig: ProbeRig,
  book: RuleBook,
  denied: Pick<ProbedService, 'revoked' | 'revokedKeys'>,
): VerifyOptions {
  const { clock, ca } = rig
  const place = `${rig.issuer.issuer.replace(rig.at.name, rig.at.address)}/jwks`
  const jwks = () => fetched(place, ca, { method: 'GET', headers: {}, body: '' })
  return {
    clock,
    routes: () => book.routes,
    tokens: {
      keys: new KeySets({ clock, fetch: jwks }),
      introspection: undefined,
      statuses: { check: () => {} },
      known: new Map(),
    },
    proofs: new DpopChecker(),
    replays: new MemoryReplayStore({ clock, keep: 300, limit: 10_000, share: 10_000 }),
    nonces: new ServerNonces({ clock, life: 120 }),
    bundleOf: () => undefined,
    denials: {
      check: ({ tokenId, jkt }) => {
        if (denied.revoked.has(tokenId) || denied.revokedKeys().has(jkt)) throw new Fault('token_revoked')
      },
    },
    bearers: new Bearers({ clock, onMoved: () => {} }),
    window: 60,
    skew: 5,
  }
}

function policyOf({ rig, nonce, maxTtl = '10m' }: ServiceOptions, origin: string) {
  const wants = nonce === undefined ? '' : ', nonce: required'
  return {
    identity: `${LAYERS.identity}servers:\n  - { name: login, issuer: "${rig.issuer.issuer}" }\nroutes:\n  - { name: api, servers: [login], audience: ["${AUDIENCE}"], binding: [dpop], max_ttl: ${maxTtl}${wants} }\n`,
    platform: `${LAYERS.platform}routes:\n  - { name: api, origins: ["${origin}"] }\n`,
    application: `${LAYERS.application}routes:\n  - { name: api, grants: [{ callers: ["client:login/web"], methods: ["*"], paths: [/**] }] }\n`,
  }
}

interface ServiceParts {
  readonly verify: VerifyOptions
  readonly book: RuleBook
  readonly auditFile: string
}

/** What it refuses before it refuses everything. */
const LOCKED_AFTER = 4

class Service {
  readonly #options: ServiceOptions
  readonly #parts: ServiceParts
  readonly #cached = new Set<string>()
  #count = 0
  #refused = 0

  constructor(options: ServiceOptions, parts: ServiceParts) {
    this.#options = options
    this.#parts = parts
  }

  async answer(incoming: IncomingMessage, outgoing: ServerResponse): Promise<void> {
    const { headers, url = '' } = incoming
    const has = (flaw: Flaw) => this.#options.flaws?.includes(flaw) === true
    const said: string[] = [...(this.#options.says ?? [])]
    if (has('cache') && this.#cached.has(url)) {
      outgoing.writeHead(200, [...said, 'X-Cache', 'HIT'] as never).end('of somebody else')
      return
    }
    const { flaws = [], publicOrigin } = this.#options
    const busy = this.#busyWith(headers, publicOrigin)
    if (busy !== undefined) return void outgoing.writeHead(busy).end()
    const fault = believes(flaws, headers) ? undefined : await this.#refusal(incoming)
    if (fault && !forgives(flaws, fault.reason, headers)) {
      this.#refused += 1
      const { http, oauth } = STATUS[fault.reason]
      const nonce = oauth === 'use_dpop_nonce' ? ['DPoP-Nonce', this.#parts.verify.nonces.current()] : []
      const challenge = ['WWW-Authenticate', `DPoP error="${oauth}", algs="ES256"`]
      outgoing.writeHead(http, [...challenge, ...nonce, ...said] as never).end()
      return
    }
    this.#cached.add(url)
    if (has('cookie')) said.push('Set-Cookie', 'session=1234; Secure; HttpOnly')
    if (has('odd_cookie')) said.push('Set-Cookie', 'session=12 3,4\\; Secure; HttpOnly')
    if (has('huge_cookie')) said.push('Set-Cookie', `session=${'x'.repeat(5_000)}; Secure`)
    outgoing.writeHead(200, said as never).end('orders')
  }

  /** The status of one that has no time for it, or knows it by another name. */
  #busyWith({ host }: IncomingHttpHeaders, publicOrigin: string | undefined): number | undefined {
    const has = (flaw: Flaw) => this.#options.flaws?.includes(flaw) === true
    this.#count += 1
    if (has('locks_out') && this.#refused >= LOCKED_AFTER) return 401
    if (has('busy_once') && this.#count === 2) return 429
    return has('knows_host') && publicOrigin !== `https://${host}` ? 421 : undefined
  }

  /** What the verifier refuses it for; undefined when it does not. On record either way. */
  async #refusal({
    headers,
    method = '',
    url = '',
    rawHeaders,
  }: IncomingMessage): Promise<Fault | undefined> {
    const { verify, book } = this.#parts
    const route = book.routes.all.get('api')
    if (!route) throw new Error('no route')
    const peer = { certificate: undefined, spiffeId: undefined, address: '127.0.0.1' }
    const path = url.split('?')[0] ?? ''
    const [, shown] = headers.authorization?.split(' ') ?? []
    const token = shown === undefined ? undefined : tokenMark(shown)
    try {
      const headers = read(this.#options.flaws ?? [], rawHeaders)
      const { binding } = await verifyRequest(verify, { method, path, headers, peer, route })
      this.#record({ allowed: true, jkt: binding.jkt, token })
      return undefined
    } catch (error) {
      const fault = Fault.from(error)
      if (fault.reason === 'bug') throw error
      this.#record({ allowed: false, reason: fault.reason, token })
      return fault
    }
  }

  #record(facts: object): void {
    appendFileSync(this.#parts.auditFile, `${JSON.stringify({ event: 'verify', ...facts })}\n`)
  }
}
