/** What an agent verifies for services: requests that they received, told by `public/verifier.sock`. */
import { createSecretKey, type KeyObject } from 'node:crypto'
import { Fault } from './base/fault.ts'
import { readTrusted } from './base/trusted.ts'
import type { Core, CoreOptions } from './core.ts'
import { Dialer } from './egress/dial.ts'
import { IssuerHttp, unavailable } from './egress/issuer-http.ts'
import { Metadata } from './egress/metadata.ts'
import { Resolver } from './egress/resolve.ts'
import type { Subjects } from './egress/subjects.ts'
import { Trust } from './egress/trust.ts'
import { type DenialParts, openDenials } from './incoming-denials.ts'
import { openReplays } from './incoming-replays.ts'
import type { TokenSources } from './ingress/access-token.ts'
import { Bearers } from './ingress/bearer.ts'
import type { VerifyOptions } from './ingress/checking.ts'
import { extAuthzHandlers } from './ingress/ext-authz.ts'
import { FORWARD_AUTH, forwardAuth } from './ingress/forward-auth.ts'
import type { HttpAsk } from './ingress/http-ask.ts'
import { Introspector } from './ingress/introspect.ts'
import { KeySets } from './ingress/key-sets.ts'
import { RecentTokens } from './ingress/known-tokens.ts'
import { ServerNonces } from './ingress/nonces.ts'
import { StatusLists } from './ingress/status-lists.ts'
import { STATUS_TOKEN_LIMIT } from './ingress/status-token.ts'
import { Verifier } from './ingress/verifier.ts'
import { verifyHandlers, verifyRoutes } from './ingress/verify-api.ts'
import type { Server } from './policy/grant.ts'
import { DpopChecker } from './proof/dpop-check.ts'
import type { Directories } from './serve/directories.ts'
import type { Handlers } from './serve/grpc.ts'
import type { Heads, Routes } from './serve/http.ts'
import type { BundleOf } from './spiffe/bundle.ts'

const MILLIS = 1000
const NONCE_STEP = 30
const NONCE_KEY_BYTES = 32
const NONCE_KEY_LIMIT = 4_096

/** What the verifier's socket serves. */
export interface Incoming {
  readonly verifier: Verifier
  /** Of this trust domain, and of those that are federated. */
  readonly bundleOf: BundleOf
  readonly services: Readonly<Record<string, Handlers>>
  /** Services whose clients send no `workload.spiffe.io`. */
  readonly withoutHeader: ReadonlySet<string>
  readonly routes: Routes
  readonly heads: Heads
  stop(): void
}

export interface IncomingOptions extends CoreOptions {
  readonly directories: Directories
}

/** Asks over the TLS that platform states for a server of that issuer. */
export type AskOf = (issuer: string) => HttpAsk

const ENVOY = 'envoy.service.auth.v3.Authorization'

/**
 * Opens it over the core's parts; nothing is fetched until a service asks. The replay store begins now: proofs made
 * before need a nonce. Throws config_invalid, policy_writable for a nonce key that cannot be used.
 */
export async function openIncoming(
  options: IncomingOptions,
  core: Core,
  subjects: () => Promise<Subjects>,
): Promise<Incoming> {
  const { audit, authority, clock, federated, metrics } = options
  const { book, revocations } = core
  const bundleOf: BundleOf = (name) =>
    name === authority.bundle.get().trustDomain ? authority.bundle.get() : federated.get().get(name)
  const sources = openSources(options, core, bundleOf)
  const denials = await openDenials(options, core, sources.ask)
  const checks = openChecks(options, core, denials)
  const verifier = new Verifier({
    ...checks,
    clock,
    routes: () => book.get().routes,
    observes: () => book.get().observe,
    tokens: sources.tokens,
    proofs: new DpopChecker(),
    bundleOf,
    denials: denials.denylist,
    revocations,
    audit,
    metrics,
    subjects,
    policy: () => book.get().hash,
  })
  return {
    verifier,
    bundleOf,
    services: { 'holdfast.v1.VerifyService': verifyHandlers(verifier), [ENVOY]: extAuthzHandlers(verifier) },
    withoutHeader: new Set([ENVOY]),
    routes: verifyRoutes(verifier),
    heads: {
      prefix: FORWARD_AUTH,
      name: 'forward_auth',
      answer: (request) => forwardAuth(verifier, request),
    },
    stop: () => {
      sources.stop()
      denials.stop()
      checks.stop()
    },
  }
}

/** What is counted and remembered from request to request. */
function openChecks(
  options: CoreOptions,
  { book, revoked }: Core,
  { denylist }: DenialParts,
): Pick<VerifyOptions, 'replays' | 'nonces' | 'bearers' | 'window' | 'skew'> & { stop(): void } {
  const { audit, clock, config, log } = options
  const { nonceKeyFile, nonceLife, skew, window } = config.verifier
  // A proof can come as long as its nonce is given out, and once more as long as it is fresh itself.
  const keep = window + 2 * skew + nonceLife + NONCE_STEP
  const key = nonceKeyFile === undefined ? {} : { key: nonceKeyIn(nonceKeyFile) }
  const nonces = new ServerNonces({ clock, life: nonceLife, ...key })
  const replays = openReplays(options, { keep, skew, nonces, denylist, revoked })
  const bearers = new Bearers({
    clock,
    onMoved: ({ route, approver }, client) => {
      log.warn(`a bearer token of the route ${route} came from a second address`, {
        action: `Ask ${approver}.`,
      })
      const caller = client
      audit.append({ event: 'bearer.moved', allowed: true, route, caller, policy: book.get().hash })
    },
  })
  return { replays: replays.store, stop: replays.stop, nonces, bearers, window, skew }
}

/** How tokens are known to be their servers': keys, answers about them, and what was verified a moment ago. */
function openSources(
  { clock, config }: CoreOptions,
  { book, clientKeys }: Core,
  bundleOf: BundleOf,
): { readonly tokens: TokenSources; readonly ask: AskOf; stop(): void } {
  const { connectTimeout, dnsTtlMax } = config.egress
  const resolver = new Resolver({ clock, keep: dnsTtlMax * MILLIS })
  const trust = new Trust({ clock, bundleOf })
  const dialer = new Dialer({ clock, resolver, trust, patience: connectTimeout * MILLIS })
  const http = new IssuerHttp({ dialer, clock, timeout: config.tokens.timeout * MILLIS })
  const metadata = new Metadata({ http, clock })
  const introspection = new Introspector({ http, metadata, keys: clientKeys, book, clock })
  const ending = new AbortController()
  const known = new RecentTokens(clock)
  const unwatch = book.watch(() => {
    known.clear()
    statuses.clear()
  })
  const fetch = async (server: Server) => {
    const route = { platform: book.get().serverTls(server.issuer), client: undefined, signal: ending.signal }
    const url = await metadata.jwksUri(server, route)
    const ask = { method: 'GET', headers: { accept: 'application/json' }, body: undefined }
    const { status, body } = await http.call(url, ask, route)
    if (status !== 200) throw unavailable(`answers for its JWK Set with status ${status}`)
    return body
  }
  const statusToken = async ({ issuer }: Server, uri: string) => {
    const route = {
      platform: book.get().serverTls(issuer),
      client: undefined,
      signal: ending.signal,
      bodyLimit: STATUS_TOKEN_LIMIT,
    }
    const ask = { method: 'GET', headers: { accept: 'application/statuslist+jwt' }, body: undefined }
    const { status, body } = await http.call(uri, ask, route)
    if (status !== 200) throw unavailable(`answers for a status list with status ${status}`)
    return body
  }
  const ask: AskOf =
    (issuer) =>
    (url, { body, headers, method }, signal) =>
      http.call(
        url,
        { method, headers: { ...headers }, body: body as URLSearchParams | undefined },
        { platform: book.get().serverTls(issuer), client: undefined, signal },
      )
  const keys = new KeySets({ clock, fetch })
  const { skew, statusLists } = config.verifier
  const statuses = new StatusLists({ clock, fetch: statusToken, keys, skew, ...statusLists })
  return {
    ask,
    tokens: { keys, introspection, statuses, known },
    stop: () => {
      unwatch()
      known.clear()
      introspection.stop()
      ending.abort(new Fault('draining'))
    },
  }
}

function nonceKeyIn(file: string): KeyObject {
  const bytes = readTrusted(file, { maxBytes: NONCE_KEY_LIMIT, secret: true })
  try {
    if (bytes.length >= NONCE_KEY_BYTES) return createSecretKey(bytes)
    throw new Fault('config_invalid', `${file}: ${bytes.length} bytes, wanted at least ${NONCE_KEY_BYTES}`)
  } finally {
    bytes.fill(0)
  }
}
