/** Verification in the application's own process: policy is code, keys are fetched, proofs remembered here. */
import { createSecretKey, KeyObject } from 'node:crypto'
import { type Clock, nowSeconds, type Seconds } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import { answerOf } from '../ingress/answer.ts'
import { Bearers } from '../ingress/bearer.ts'
import { challengeOf } from '../ingress/challenge.ts'
import type { Denials, VerifyOptions } from '../ingress/checking.ts'
import type { ChannelPeer } from '../ingress/inbound.ts'
import { KeySets } from '../ingress/key-sets.ts'
import { RecentTokens } from '../ingress/known-tokens.ts'
import { ServerNonces } from '../ingress/nonces.ts'
import type { AskedPeer } from '../ingress/question.ts'
import type { ReplayStore } from '../ingress/replay.ts'
import { MemoryReplayStore } from '../ingress/replay-memory.ts'
import { StatusLists } from '../ingress/status-lists.ts'
import { type Findings, verifyRequest } from '../ingress/verify.ts'
import type { Route } from '../policy/route.ts'
import { buildRoutes, checkSpelling, lengthOf, publicPathOf, type Routes } from '../policy/routes.ts'
import { DpopChecker } from '../proof/dpop-check.ts'
import { canonicalUrl } from '../proof/target.ts'
import type { BundleOf } from '../spiffe/bundle.ts'
import { verifyX509Svid } from '../spiffe/x509svid.ts'
import { bundlesOf } from './bundles.ts'
import { checkFunction, countOf, invalid, listOf, type Members, membersOf } from './form.ts'
import { keyFetch, statusFetch } from './key-fetch.ts'
import type { CommonOptions, LocalOptions } from './options.ts'
import { type Ask, quietly, tell, verifiedOf } from './outcome.ts'
import { ROUTE, readRoutes, readServers } from './read-routes.ts'

const COMMON = [
  'servers',
  'window',
  'skew',
  'replay',
  'nonceKey',
  'statusListMaxAge',
  'statusListStale',
  'bodyLimit',
  'bundleOf',
  'isRevoked',
  'onRefused',
  'onBearerMoved',
] as const
const ROUTES_LIMIT = 1_000
const NONCE_LIFE: Seconds = 120
const NONCE_STEP: Seconds = 30
const NONCE_KEY_BYTES = 32

export interface Verifying {
  readonly ask: Ask
  close(): void
}

/** Throws policy_invalid for options that say nothing, too much, or what cannot be carried out. */
export function openLocal(given: LocalOptions, clock: Clock): Verifying {
  const options = membersOf(given, 'options', [...COMMON, ...ROUTE, 'routes'])
  const servers = readServers(options['servers'])
  const stated = readRoutes(
    routesIn(options),
    servers.map(({ server }) => server),
  )
  const routes = buildRoutes(stated, () => nowSeconds(clock))
  refuseTwins(routes)
  const common = readCommon(given, clock)
  const { skew } = common
  const keys = new KeySets({ clock, fetch: keyFetch(servers, clock) })
  const lists = { clock, fetch: statusFetch(servers, clock), keys, skew, ...statusAges(given) }
  const checks: VerifyOptions = {
    ...common,
    routes: () => routes,
    tokens: {
      keys,
      introspection: undefined,
      statuses: new StatusLists(lists),
      known: new RecentTokens(clock),
    },
    proofs: new DpopChecker(),
  }
  return { ask: askWith(checks, given.onRefused), close: () => checks.replays.stop() }
}

/** Each with its place: the list, or the one route that the options are themselves. */
function routesIn({ routes, ...options }: Members): readonly (readonly [Members, string])[] {
  const own = ROUTE.filter((name) => name !== 'servers' && name in options)
  if (routes === undefined) return [[Object.fromEntries(own.map((name) => [name, options[name]])), 'options']]
  const [stray] = own
  if (stray !== undefined) throw invalid('options', `has both routes and ${stray}, which is of one route`)
  return listOf(routes, 'routes', (item, at) => [membersOf(item, at, ROUTE), at] as const, ROUTES_LIMIT)
}

/** Of two that take a path the longer one is meant; of two as long nobody knows. */
function refuseTwins({ all }: Routes): void {
  const seen = new Map<string, string>()
  for (const { name, platform } of all.values()) {
    const received = (platform?.received ?? '/').replace(/\/(?:\*\*)?$/, '')
    const twin = seen.get(received)
    if (twin !== undefined) throw invalid('routes', `${twin} and ${name} receive the same path`)
    seen.set(received, name)
  }
}

type Checks = Omit<VerifyOptions, 'routes' | 'tokens' | 'proofs'>

function readCommon(given: CommonOptions, clock: Clock): Checks {
  const window = countOf(given.window ?? 60, 'window', [5, 600])
  const skew = countOf(given.skew ?? 5, 'skew', [1, 60])
  for (const name of ['bundleOf', 'isRevoked', 'onRefused', 'onBearerMoved'] as const)
    checkFunction(given[name], name)
  // A proof can come as long as its nonce is given out, and once more as long as it is fresh itself.
  const keep = window + 2 * skew + NONCE_LIFE + NONCE_STEP
  return {
    clock,
    window,
    skew,
    replays: replaysOf(given, { clock, keep, skew }),
    nonces: noncesOf(given, clock),
    bundleOf: bundlesOf(given.bundleOf),
    denials: denialsOf(given.isRevoked),
    bearers: new Bearers({
      clock,
      onMoved: ({ route }, client) => quietly(() => given.onBearerMoved?.(route, client)),
    }),
  }
}

function statusAges({ statusListMaxAge = 300, statusListStale = 600 }: CommonOptions) {
  return {
    maxAge: countOf(statusListMaxAge, 'statusListMaxAge', [1, 3_600]),
    stale: countOf(statusListStale, 'statusListStale', [1, 86_400]),
  }
}

/** A memory that begins now knows nothing of what other replicas gave nonces for before. */
function noncesOf({ nonceKey, replay }: CommonOptions, clock: Clock): ServerNonces {
  const nonces = new ServerNonces({ clock, life: NONCE_LIFE, ...nonceKeyOf(nonceKey) })
  if (nonceKey !== undefined && !isStore(replay)) nonces.raise(clock.now() / 1000)
  return nonces
}

function isStore(given: CommonOptions['replay']): given is ReplayStore {
  return typeof given === 'object' && 'use' in given
}

interface Memory {
  readonly clock: Clock
  readonly keep: Seconds
  readonly skew: Seconds
}

function replaysOf({ replay: given, nonceKey }: CommonOptions, memory: Memory): ReplayStore {
  if (isStore(given)) {
    checkFunction(given.use, 'replay.use')
    checkFunction(given.stop, 'replay.stop')
    return given
  }
  const { limit: stated = 1_000_000, share: part } = membersOf(given ?? {}, 'replay', ['limit', 'share'])
  const limit = countOf(stated, 'replay.limit', [1_000, 10_000_000])
  const share = countOf(part ?? Math.ceil(limit / 4), 'replay.share', [1, limit])
  return new MemoryReplayStore({ ...memory, limit, share, sharesNonces: nonceKey !== undefined })
}

function nonceKeyOf(given: CommonOptions['nonceKey']): { readonly key?: KeyObject } {
  if (given === undefined) return {}
  const isKey = given instanceof KeyObject
  if (isKey ? given.type !== 'secret' : !(given instanceof Uint8Array))
    throw invalid('nonceKey', 'is neither bytes nor a secret key')
  const size = isKey ? (given.symmetricKeySize ?? 0) : given.byteLength
  if (size < NONCE_KEY_BYTES)
    throw invalid('nonceKey', `has ${size} bytes, wanted ${NONCE_KEY_BYTES} at least`)
  return { key: isKey ? given : createSecretKey(given) }
}

function denialsOf(isRevoked: CommonOptions['isRevoked']): Denials {
  return {
    check: (facts) => {
      // Whatever is not a plain no is a yes: a promise, by mistake, among others.
      if (isRevoked && isRevoked(facts) !== false) throw new Fault('token_revoked')
    },
  }
}

function askWith(checks: VerifyOptions, onRefused: CommonOptions['onRefused']): Ask {
  return async (receive) => {
    let method = ''
    let route: Route | undefined
    const found: Findings = {}
    try {
      const received = receive()
      const { path, query, headers } = received
      method = received.method
      route = routeFor(checks.routes(), path)
      // Member by member: V8 makes an object of a spread slowly (1 µs of 25).
      const inbound = { method, path, query, headers, peer: peerOf(checks, received.peer), route }
      const verified = await verifyRequest(checks, inbound, found)
      const nonce = route.identity?.nonce === 'required' ? checks.nonces.current() : undefined
      return verifiedOf(answerOf(verified), nonce)
    } catch (caught) {
      const fault = Fault.from(caught)
      tell(onRefused, fault, { method, ...(route ? { route: route.name } : {}) })
      return { verified: undefined, challenge: challengeOf(fault, route, checks.nonces, found.isWimse) }
    }
  }
}

/** The one that receives the longest prefix of `received`. Throws route_unknown, url_refused. */
function routeFor({ all }: Routes, received: string): Route {
  const [only, ...others] = all.values()
  if (only && others.length === 0) return only
  const { path } = canonicalUrl(`https://host${received}`)
  const below = [...all.values()].filter((route) => publicPathOf(route, path) !== undefined)
  const [longest] = below.sort((a, b) => lengthOf(b) - lengthOf(a))
  if (!longest) throw new Fault('route_unknown', 'the path is none that a route receives')
  checkSpelling(all.values(), path, longest)
  return longest
}

/** A certificate that is no SVID of a trusted domain shows possession of its key (RFC 8705 s.3), and names nobody. */
function peerOf(
  { bundleOf, clock }: { readonly bundleOf: BundleOf; readonly clock: Clock },
  { chain, address }: AskedPeer,
): ChannelPeer {
  const [certificate] = chain
  if (!certificate) return { certificate, spiffeId: undefined, address }
  try {
    return { certificate, spiffeId: verifyX509Svid(chain, bundleOf, nowSeconds(clock)).spiffeId, address }
  } catch {
    return { certificate, spiffeId: undefined, address }
  }
}
