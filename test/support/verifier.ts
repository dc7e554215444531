/** A verifier over a small shop's routes, and the callers of it: requests that are right but for what a test changes. */
import type { KeyObject } from 'node:crypto'
import { nowSeconds } from '../../src/base/clock.ts'
import { Fault } from '../../src/base/fault.ts'
import type { TokenSources } from '../../src/ingress/access-token.ts'
import { Bearers } from '../../src/ingress/bearer.ts'
import type { DenialFacts, VerifyOptions } from '../../src/ingress/checking.ts'
import type { ChannelPeer, Inbound } from '../../src/ingress/inbound.ts'
import { ServerNonces } from '../../src/ingress/nonces.ts'
import { MemoryReplayStore } from '../../src/ingress/replay-memory.ts'
import { type Verified, verifyRequest } from '../../src/ingress/verify.ts'
import { generateKey, type HeldKey, holdKey } from '../../src/keys/signer.ts'
import type { Route } from '../../src/policy/route.ts'
import { DpopChecker } from '../../src/proof/dpop-check.ts'
import { hashOf } from '../../src/proof/jwt.ts'
import type { Signer } from '../../src/proof/signer.ts'
import type { SpiffeId } from '../../src/spiffe/id.ts'
import { makeJws } from '../../src/spiffe/jws.ts'
import { makeWitSvid } from '../../src/spiffe/witsvid.ts'
import { ecPair, type Pair } from './certificates.ts'
import { ManualClock } from './clock.ts'
import { bookOf, type Files, LAYERS } from './policy.ts'
import { bundleOfKeys, signToken } from './tokens.ts'

const IDENTITY = `${LAYERS.identity}servers:
  - { name: login, issuer: https://login.example.org }
  - { name: partner, issuer: https://partner.example.org }
routes:
  - name: api
    servers: [login]
    audience: [https://api.example.org]
    binding: [dpop, mtls]
    max_ttl: 10m
    act_depth: 1
  - { name: mesh, servers: [login], audience: [https://api.example.org], binding: [wpt, http-signature, mtls] }
  - { name: svid, audience: [api], binding: [jwt_svid] }
  - { name: open, servers: [login], audience: [https://api.example.org], binding: [dpop, bearer] }
  - { name: strict, servers: [login], audience: [https://api.example.org], nonce: required }
`
const PLATFORM = `${LAYERS.platform}routes:
  - name: api
    origins: ["https://api.example.org"]
    received: /v1
    public: /orders/v1
  - { name: mesh, origins: ["https://mesh.example.org"] }
  - { name: svid, origins: ["https://svid.example.org"] }
  - { name: open, origins: ["https://api.example.org"] }
  - name: strict
    origins: ["https://api.example.org"]
    hops:
      - { name: gateway, spiffe_id: "spiffe://example.org/gateway", certificate: client_cert }
      - { name: mesh, spiffe_id: "spiffe://example.org/mesh", certificate: xfcc }
      - { name: edge, addresses: [192.0.2.0/24] }
`
const APPLICATION = `${LAYERS.application}routes:
  - name: api
    grants:
      - { callers: ["client:login/web"], methods: [GET, POST], paths: [/orders/v1/**], scopes: [read] }
      - { callers: ["client:login/web"], methods: [DELETE], paths: [/orders/v1/**], scopes: [write] }
  - { name: mesh, grants: [{ callers: ["spiffe://example.org/web"], methods: ["*"], paths: [/**] }] }
  - { name: svid, grants: [{ callers: ["spiffe://example.org/web"], methods: ["*"], paths: [/**] }] }
  - { name: open, grants: [{ callers: ["client:login/web"], methods: ["*"], paths: [/**] }] }
  - { name: strict, grants: [{ callers: ["client:login/web"], methods: ["*"], paths: [/**] }] }
`
const SECURITY = `layer: security
route_exceptions:
  - { route: open, binding: bearer, approver: ann, until: 2030-01-01, clients: [web], max_ttl: 2m, rate: 3 }
`

export const ROUTES: Files = {
  identity: IDENTITY,
  platform: PLATFORM,
  application: APPLICATION,
  security: SECURITY,
}

const START = 1_700_000_000_000
const NOBODY: ChannelPeer = { certificate: undefined, spiffeId: undefined, address: undefined }

/** What a test says of a request; the rest is right. */
export interface RequestOf {
  readonly route: string
  readonly method: string
  readonly path: string
  /** The URL that the proof is for. */
  readonly url: string
  readonly scheme: string
  readonly claims: object
  /** In place of one of `claims`. */
  readonly token: string
  readonly proof: object
  readonly key: Signer
  /** Further headers, and those that replace. */
  readonly headers: readonly string[]
  readonly without: readonly string[]
  readonly peer: ChannelPeer
}

export interface TestVerifier {
  readonly clock: ManualClock
  readonly key: HeldKey
  readonly issuer: Pair
  readonly nonces: ServerNonces
  readonly replays: MemoryReplayStore
  readonly wit: Pair
  /** Throws token_revoked for what it returns true of. */
  /** Clients whose bearer token came from a second address. */
  readonly moved: string[]
  denies: (facts: DenialFacts) => boolean
  route(name: string): Route
  /** What it is made of. */
  readonly options: VerifyOptions
  token(claims?: object, header?: object): string
  proof(claims: object, key?: Signer): string
  request(over?: Partial<RequestOf>): Inbound
  verify(request: Inbound): Promise<Verified>
}

export async function openVerifier(
  files: Files = ROUTES,
  { limit = 10_000, share = 1_000, start = START } = {},
): Promise<TestVerifier> {
  const clock = new ManualClock(start)
  const book = await bookOf(files, { now: () => nowSeconds(clock) })
  const [key, issuer, wit] = [generateKey('ES256'), ecPair(), ecPair()]
  const bundle = bundleOfKeys({ jwt: { j1: issuer }, wit: { w1: wit } })
  const nonces = new ServerNonces({ clock, life: 120 })
  const replays = new MemoryReplayStore({ clock, keep: 300, limit, share })
  clock.advance(10_000)
  const options: VerifyOptions = {
    clock,
    routes: () => book.routes,
    tokens: sourcesOf({ k1: issuer.publicKey }),
    proofs: new DpopChecker(),
    replays,
    nonces,
    bundleOf: () => bundle,
    denials: {
      check: (facts: DenialFacts) => {
        if (verifier.denies(facts)) throw new Fault('token_revoked')
      },
    },
    bearers: new Bearers({ clock, onMoved: (_exception, client) => verifier.moved.push(client) }),
    window: 60,
    skew: 5,
  }
  const verifier: TestVerifier = {
    clock,
    key,
    issuer,
    wit,
    nonces,
    replays,
    moved: [],
    options,
    denies: () => false,
    route: (name) => {
      const route = book.routes.all.get(name)
      if (!route) throw new Error(`no route ${name}`)
      return route
    },
    token: (claims = {}, header = {}) => {
      const now = nowSeconds(clock)
      const standard = {
        iss: 'https://login.example.org',
        aud: 'https://api.example.org',
        sub: 'web',
        client_id: 'web',
        scope: 'read',
        iat: now,
        exp: now + 300,
        jti: 't-1',
        cnf: { jkt: key.jkt },
      }
      return signToken(
        { alg: 'ES256', kid: 'k1', typ: 'at+jwt', ...header },
        { ...standard, ...claims },
        issuer,
      )
    },
    proof: (claims, by = key) => {
      const header = { typ: 'dpop+jwt', alg: by.alg, jwk: by.publicJwk }
      proofs += 1
      return makeJws(header, { jti: `p-${proofs}`, iat: nowSeconds(clock), ...claims }, by)
    },
    request: (over = {}) => requestOf(verifier, over),
    verify: (request) => verifyRequest(options, request),
  }
  let proofs = 0
  return verifier
}

function requestOf(verifier: TestVerifier, over: Partial<RequestOf>): Inbound {
  const { method = 'GET', path = '/v1/items', url = 'https://api.example.org/orders/v1/items' } = over
  const token = over.token ?? verifier.token(over.claims)
  const claims = { htm: method, htu: url, ath: hashOf(token), ...over.proof }
  const standard = [
    ['Authorization', `${over.scheme ?? 'DPoP'} ${token}`],
    ['DPoP', verifier.proof(claims, over.key)],
  ]
  const kept = standard.filter(([name]) => !over.without?.includes(name ?? ''))
  const headers = ['Host', 'internal.example.org', ...kept.flat(), ...(over.headers ?? [])]
  return { method, path, headers, peer: over.peer ?? NOBODY, route: verifier.route(over.route ?? 'api') }
}

function sourcesOf(keys: Readonly<Record<string, KeyObject>>): TokenSources {
  const known = new Map()
  return {
    keys: { find: (_server, kid) => keys[kid] },
    introspection: undefined,
    statuses: { check: () => {} },
    known,
  }
}

/** The reason of a refusal; `ok` without one. */
export async function outcomeOf({ verify }: Pick<TestVerifier, 'verify'>, request: Inbound): Promise<string> {
  try {
    await verify(request)
    return 'ok'
  } catch (error) {
    if (error instanceof Fault) return error.reason
    throw error
  }
}

/** The WIT-SVID of the workload `web` for the key `held`; `over` says what of it is otherwise. */
export function witOf({ clock, wit }: TestVerifier, held: HeldKey, over: object = {}): string {
  const now = nowSeconds(clock)
  const claims = {
    spiffeId: 'spiffe://example.org/web' as SpiffeId,
    publicJwk: held.publicJwk,
    jwkAlg: 'ES256',
    now,
    expires: now + 600,
    kid: 'w1',
  }
  return makeWitSvid({ ...claims, ...over }, holdKey(wit.privateKey, 'ES256'))
}
