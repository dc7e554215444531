/** An agent that verifies for this process, the server whose tokens it takes, and callers whose requests are right but for what a test changes. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createServer, request } from 'node:https'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type Clock, nowSeconds, systemClock } from '../../src/base/clock.ts'
import type { Config } from '../../src/config.ts'
import { generateKey, type HeldKey } from '../../src/keys/signer.ts'
import { hashOf } from '../../src/proof/jwt.ts'
import type { Signer } from '../../src/proof/signer.ts'
import { publicJwkOf } from '../../src/spiffe/jwk.ts'
import { makeJws } from '../../src/spiffe/jws.ts'
import type { AuditRecord } from '../../src/telemetry/audit.ts'
import { startAgent, type TestAgent } from './agent.ts'
import { ecPair, type Pair } from './certificates.ts'
import { first, RawClient } from './raw-client.ts'
import { statusToken } from './status-list.ts'
import { makeTestCa, type TestCa } from './tls.ts'
import { signToken } from './tokens.ts'

/** A request as a service received it. */
export interface Received {
  readonly route?: string
  readonly method: string
  readonly path: string
  readonly headers: readonly (readonly [string, string])[]
  /** Of the TLS peer, in DER. */
  readonly certificate?: Buffer
  readonly address?: string
}

/** What a test says of a request; the rest is right. */
export interface Over {
  readonly route?: string
  readonly method?: string
  readonly path?: string
  readonly scheme?: string
  /** Claims and header of the token; `undefined` leaves one out. */
  readonly claims?: Readonly<Record<string, unknown>>
  readonly header?: Readonly<Record<string, unknown>>
  readonly issuer?: Pair
  /** In place of one of `claims` and `header`. */
  readonly token?: string
  /** Claims and header of the proof. */
  readonly proof?: Readonly<Record<string, unknown>>
  readonly proofHeader?: Readonly<Record<string, unknown>>
  readonly key?: Signer
  /** Names that are left out, and lines that come besides. */
  readonly without?: readonly string[]
  readonly headers?: readonly (readonly [string, string])[]
  readonly certificate?: Buffer
  readonly address?: string
}

export interface VerifyRig extends AsyncDisposable {
  readonly agent: TestAgent
  readonly socket: string
  readonly ca: TestCa
  readonly key: HeldKey
  readonly issuer: Pair
  /** The SVID of the gateway that the route `gated` names, in DER. */
  readonly gateway: Buffer
  readonly policy: Readonly<Record<string, string>>
  /** What the status list of the server says, token by token; its URI is `statusUri`. */
  readonly statuses: number[]
  readonly statusUri: string
  /** Requests to the server, by path. */
  readonly asked: readonly string[]
  /** Of the server. */
  readonly issuerUrl: string
  /** Another agent of the same policy and clock, which the caller stops. */
  openAnother(): Promise<TestAgent>
  now(): number
  /** Sets the agent's clock forward. */
  pass(seconds: number): void
  token(over?: Over): string
  request(over?: Over): Received
  /** Records of the verifier so far. */
  verdicts(): readonly AuditRecord[]
}

export interface VerifyRigOptions {
  /** Who may ask about the routes; this process's own uid when absent. */
  readonly verifiers?: string
  readonly handOut?: 'claims' | 'handle'
  readonly config?: (config: Config, issuer: string) => Config
  /** The file of the security layer. */
  readonly security?: (issuer: string) => string
  /** Told the files of a TLS server on loopback before the agent starts. */
  readonly files?: (files: ReturnType<TestCa['serverFiles']>) => void
  /** What it answers for its JWK Set, which has `own`. */
  readonly jwks?: (own: object) => object
  /** What else the server answers: a JSON body, or text; 404 for undefined. Its TLS is that of the issuer. */
  readonly serve?: (path: string, body: string) => object | string | undefined
}

export const AUDIENCE = 'https://api.example.org'
/** `aud` of the Txn-Tokens that the route `traded` wants. */
export const TRADE = 'dev.holdfast.test'
const TRUST_DOMAIN = 'spiffe://dev.holdfast.test'

/** Opens it; the clock of the agent is past its start, so that proofs need no nonce. */
export async function openVerifyRig(options: VerifyRigOptions = {}): Promise<VerifyRig> {
  const dir = mkdtempSync(join(tmpdir(), 'holdfast-verify-'))
  const ca = makeTestCa()
  writeFileSync(join(dir, 'ca.pem'), ca.pem)
  const [key, issuer] = [generateKey('ES256'), ecPair()]
  const asked: string[] = []
  const statuses = [0, 1]
  const list = (uri: string) => statusToken(issuer, { uri, iat: now(), statuses, claims: { ttl: 30 } })
  const server = await startKeyServer(ca, issuer, asked, { ...options, list })
  const name = server.issuer
  let shift = 0
  const clock: Clock = {
    ...systemClock,
    now: () => systemClock.now() + shift,
    monotonic: () => systemClock.monotonic() + shift,
  }
  const policy = policyFor(name, join(dir, 'ca.pem'), options)
  options.files?.(ca.serverFiles())
  const openAnother = () =>
    startAgent({
      clock,
      policy,
      config: (config) => {
        const on: Config = { ...config, verifier: { ...config.verifier, socket: 'on' } }
        return options.config?.(on, name) ?? on
      },
    })
  const agent = await openAnother()
  // Past its start, as a clock that is ahead sees it.
  shift = 8_000
  const now = () => nowSeconds(clock)
  let proofs = 0
  const proofFor = (method: string, url: string, token: string, over: Over): string => {
    const by = over.key ?? key
    proofs += 1
    const header = { typ: 'dpop+jwt', alg: by.alg, jwk: by.publicJwk, ...over.proofHeader }
    const claims = {
      jti: `p-${proofs}`,
      iat: now(),
      htm: method,
      htu: url,
      ath: hashOf(token),
      ...over.proof,
    }
    return makeJws(header, claims, by)
  }
  const token = (over: Over = {}): string => {
    const standard = {
      iss: name,
      aud: AUDIENCE,
      sub: 'ann',
      client_id: 'web',
      scope: 'read list',
      iat: now(),
      exp: now() + 300,
      cnf: { jkt: key.jkt },
    }
    const header = { alg: 'ES256', kid: 'k1', typ: 'at+jwt', ...over.header }
    return signToken(header, { ...standard, ...over.claims }, over.issuer ?? issuer)
  }
  return {
    agent,
    policy,
    socket: join(agent.dir, 'public', 'verifier.sock'),
    ca,
    key,
    issuer,
    gateway: await svidOf(agent, `${TRUST_DOMAIN}/gateway`),
    statuses,
    statusUri: `${name}/status`,
    asked,
    issuerUrl: name,
    openAnother,
    now,
    pass: (seconds) => {
      shift += seconds * 1_000
    },
    token,
    request: (over = {}) => {
      const { method = 'GET', path = '/v1/items' } = over
      const sent = over.token ?? token(over)
      const proof = proofFor(method, 'https://api.example.org/orders/v1/items', sent, over)
      const lines: readonly (readonly [string, string])[] = [
        ['Host', 'internal.example.org'],
        ['Authorization', `${over.scheme ?? 'DPoP'} ${sent}`],
        ['DPoP', proof],
      ]
      const kept = lines.filter(([line]) => !over.without?.includes(line))
      return {
        route: over.route ?? 'api',
        method,
        path,
        headers: [...kept, ...(over.headers ?? [])],
        ...(over.certificate ? { certificate: over.certificate } : {}),
        ...(over.address ? { address: over.address } : {}),
      }
    },
    verdicts: () => agent.records.filter(({ event }) => event === 'verify'),
    [Symbol.asyncDispose]: async () => {
      await agent[Symbol.asyncDispose]()
      await server.stop()
      key.destroy()
      rmSync(dir, { recursive: true, force: true })
    },
  }
}

function policyFor(
  issuer: string,
  caFile: string,
  {
    handOut = 'claims',
    security,
    serve,
    verifiers = `unix:uid:${process.getuid?.() ?? 0}`,
  }: VerifyRigOptions,
): Readonly<Record<string, string>> {
  const entry = (name: string, x509: boolean) =>
    `  - { name: ${name}, spiffe_id: ${TRUST_DOMAIN}/${name}, selectors: ['unix:uid:${process.getuid?.() ?? 0}'], deliver: { x509: ${x509}, jwt: false, wit: false } }\n`
  const names = ['api', 'strict', 'gated', 'narrow', 'traded']
  const says: Readonly<Record<string, string>> = {
    strict: ', nonce: required',
    traded: `, txn_token: { server: login, audience: '${TRADE}', presence: required }, hand_out: ${handOut}`,
    api: `, hand_out: ${handOut}`,
  }
  const identity = names.map(
    (name) =>
      `  - { name: ${name}, servers: [login], audience: ['${AUDIENCE}'], binding: [dpop, mtls], max_ttl: 10m${says[name] ?? ''} }\n`,
  )
  const hops = `, hops: [{ name: front-gate, spiffe_id: '${TRUST_DOMAIN}/gateway' }, { name: edge, addresses: [192.0.2.0/24] }]`
  const platform = names.map(
    (name) =>
      `  - { name: ${name}, origins: ['https://api.example.org'], received: /v1${name === 'narrow' ? '/narrow' : ''}, public: /orders/v1${name === 'narrow' ? '/narrow' : ''}, verifiers: ['${verifiers}']${name === 'gated' ? hops : ''} }\n`,
  )
  const grant =
    "{ callers: ['client:login/web'], methods: [GET, POST], paths: [/orders/v1/**], scopes: [read] }"
  const application = names.map((name) => `  - { name: ${name}, grants: [${grant}] }\n`)
  const trust = `tls: { trust: { file: ${caFile} } }, addresses: [127.0.0.1, '::1']`
  const list = serve ? `  - { issuer: '${issuer}/denylist', ${trust} }\n` : ''
  return {
    ...(security ? { 'security.yaml': security(issuer) } : {}),
    'identity.yaml': `layer: identity\nservers:\n  - { name: login, issuer: '${issuer}', status_lists: ['${issuer}'], client: { id: verifier, auth: private_key_jwt } }\nentries:\n${entry('shop', false)}${entry('gateway', true)}${entry('backend', true)}routes:\n${identity.join('')}`,
    'platform.yaml': `layer: platform\nservers:\n  - { issuer: '${issuer}', ${trust} }\n${list}routes:\n${platform.join('')}`,
    'application.yaml': `layer: application\nroutes:\n${application.join('')}`,
  }
}

/** Metadata, keys and a status list over TLS, and what a test serves besides. */
async function startKeyServer(
  ca: TestCa,
  keys: Pair,
  asked: string[],
  {
    jwks = (own) => ({ keys: [own] }),
    list,
    serve,
  }: Pick<VerifyRigOptions, 'jwks' | 'serve'> & { readonly list: (uri: string) => string },
) {
  let issuer = ''
  const answerTo = (path: string, body: string): object | string | undefined => {
    const jwk = { ...publicJwkOf(keys.publicKey), kid: 'k1', use: 'sig', alg: 'ES256' }
    if (path === '/jwks') return jwks(jwk)
    if (path === '/status') return list(`${issuer}/status`)
    if (path.startsWith('/.well-known/')) return { issuer, jwks_uri: `${issuer}/jwks` }
    return serve?.(path, body)
  }
  const server = createServer(ca.serverFiles(), async (request, response) => {
    const path = request.url ?? ''
    asked.push(path)
    let body = ''
    for await (const chunk of request) body += chunk
    const answer = answerTo(path, body)
    const type = typeof answer === 'object' ? { 'content-type': 'application/json' } : {}
    response.writeHead(answer === undefined ? 404 : 200, type)
    response.end(typeof answer === 'object' ? JSON.stringify(answer) : answer)
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  issuer = `https://localhost:${(server.address() as AddressInfo).port}`
  const stop = () => {
    server.closeAllConnections()
    return new Promise<void>((resolve) => server.close(() => resolve()))
  }
  return { issuer, stop }
}

async function svidOf(agent: TestAgent, id: string): Promise<Buffer> {
  using client = new RawClient(agent.socket)
  const { svids } = await first(client, 'SpiffeWorkloadAPI/FetchX509SVID')
  return svids.find(({ spiffe_id: one }: { spiffe_id: string }) => one === id).x509_svid
}

/** Sends it to a proxy of the test's own, over TLS, header by header; the status of its answer. */
export function askOver(port: number, { method, path, headers }: Received): Promise<number> {
  const options = { port, host: '127.0.0.1', agent: false, setHost: false, rejectUnauthorized: false }
  return new Promise((resolve, reject) => {
    const sent = request({ ...options, method, path })
    for (const [name, value] of headers) sent.appendHeader(name, value)
    sent.once('error', reject).once('response', (response) => {
      response.resume()
      resolve(response.statusCode ?? 0)
    })
    sent.end()
  })
}
